from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pgbalise.marking.policy import Policy, load_policy

POLICY = """
[relation."h.person"]
key = { id = "integer" }
[relation."h.person".carrier.age]
type = "smallint"
quantum = 1
bounds = [0, 120]
[relation."h.person".carrier.dose]
type = "numeric"
by = { drug = "text" }
[relation."h.person".carrier.dose.tolerance.a]
quantum = 0.1
[relation."h.person".carrier.dose.tolerance.b]
quantum = 5
[relation."h.person".carrier.ratio]
type = "double precision"
quantum = 0.01
[relation."h.person".carrier.seen_on]
type = "date"
quantum = "1 day"
[relation."h.person".carrier.stored_at]
type = "timestamp with time zone"
quantum = "1 millisecond"
[relation."h.person".carrier.unit]
type = "text"
equivalents = [["g/L", "g/l"], ["UI", "IU", "U"]]
"""


@pytest.fixture(scope="session")
def policy() -> Policy:
    """Carriers of every kind, one of them with a tolerance that goes by another column."""
    return load_policy(POLICY)


def people(rows: int, seed: int) -> pa.Table:
    """Rows of h.person as text; some cells NULL."""
    rng = np.random.default_rng(seed)
    age = rng.integers(20, 90, rows)
    drug = rng.choice(["a", "b", "c"], rows)
    day = np.datetime64("2020-01-01") + rng.integers(0, 900, rows)
    stamp = day.astype("datetime64[us]") + rng.integers(0, 86_400_000, rows) * 1000
    dose = np.where(drug == "b", 5 * rng.integers(10, 80, rows), rng.integers(1, 400, rows) / 10)
    columns = {
        "id": [str(n) for n in rng.permutation(rows) + 1],
        "drug": drug.tolist(),
        "age": [None if n % 50 == 7 else str(v) for n, v in enumerate(age.tolist())],
        "dose": [f"{v:.0f}" if d == "b" else f"{v:.1f}" for d, v in zip(drug, dose, strict=True)],
        "ratio": [
            repr(round(float(v), 2)).removesuffix(".0") for v in (age / 50 + rng.random(rows))
        ],
        "seen_on": [str(d) for d in day],
        "stored_at": [str(s).replace("T", " ").rstrip("0").rstrip(".") + "+00" for s in stamp],
        "unit": rng.choice(["g/L", "g/l", "UI", "IU", "U", "kg"], rows).tolist(),
    }
    return pa.table({name: pa.array(texts, pa.string()) for name, texts in columns.items()})


@pytest.fixture(scope="session")
def table() -> pa.Table:
    """Five hundred rows of h.person."""
    return people(500, 1)
