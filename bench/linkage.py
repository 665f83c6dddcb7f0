"""Leaked rows found again without a key: how many, how surely, how fast.

``python -m bench linkage`` damages rows of the UCI Adult census (32,561 rows of 15 columns, CC BY
4.0) and links them. The scale figures are ``python -m bench linkage_scale``.
"""

from __future__ import annotations

from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.adult import rows as rows_of_adult
from pgbalise.tracing.linkage import Cells, Field, Linker

SURE = 0.9
LEAKS = 5
BAR_RIGHT = 0.966
BAR_SECONDS = 4.0
NUMBERS = (0, 2, 4, 10, 11, 12)
WEIGHT = 2
"""The census weight, which alone nearly tells the rows apart."""
CASES = (
    ("anything", 0.1, 1_000, True),
    ("typing", 0.1, 1_000, True),
    ("anything", 0.1, 300, True),
    ("anything", 0.1, 100, True),
    ("anything", 0.2, 1_000, True),
    ("anything", 0.3, 1_000, True),
    ("anything", 0.1, 1_000, False),
    ("typing", 0.1, 1_000, False),
)


def measure() -> list[dict[str, Any]]:
    """Return one entry per figure: name, value, unit, bar, holds, how."""
    fields = census()
    entries = []
    for kind, rate, rows, weighed in CASES:
        used = fields if weighed else [f for n, f in enumerate(fields) if n != WEIGHT]
        twin = _twins(used)
        figures = np.zeros(4)
        for seed in range(LEAKS):
            rng = np.random.default_rng(seed)
            truth = rng.integers(len(fields[0].values), size=rows)
            leak = damage(used, truth, rate, kind, rng)
            begin = process_time()
            links = Linker.fit(used, leak).link(leak)
            seconds = process_time() - begin
            right = twin[links.stored] == twin[truth]
            sure = links.probability >= SURE
            figures += right.mean(), (sure & right).mean(), (sure & ~right).mean(), seconds
        share, sure_right, sure_wrong, seconds = (figures / LEAKS).tolist()
        barred = (rate, rows, weighed) == (0.1, 1_000, True)
        what = f"Adult, {rows:,} rows, {rate:.0%} of cells altered ({kind})"
        what += "" if weighed else ", census weight dropped"
        how = (
            f"mean of {LEAKS} seeded leaks; a row is right if it equals the original in all columns"
        )
        entries += [
            _entry(
                f"{what}: likeliest row right", 100 * share, "%", barred, share > BAR_RIGHT, how
            ),
            _entry(f"{what}: at 0.9 right", 100 * sure_right, "%", how=how),
            _entry(f"{what}: at 0.9 wrong", 100 * sure_wrong, "%", how=how),
            _entry(f"{what}: at 0.9 none", 100 * (1 - sure_right - sure_wrong), "%", how=how),
            _entry(f"{what}: fit and link", seconds, "s", barred, seconds < BAR_SECONDS, how),
        ]
        for entry in entries[-5:]:
            bar = BAR_SECONDS if entry["unit"] == "s" else 100 * BAR_RIGHT
            entry["bar"] = bar if entry["bar"] else None
    return entries


def _entry(
    name: str, value: float, unit: str, barred: bool = False, holds: bool = True, how: str = ""
) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "bar": barred or None,
        "holds": holds if barred else None,
        "how": how,
    }


def census() -> list[Field]:
    """Return the columns of Adult."""
    fields = []
    for number, column in enumerate(zip(*rows_of_adult(), strict=True)):
        there = np.ones(len(column), np.bool_)
        if number in NUMBERS:
            values = np.array(column, np.float64)
            fields.append(Field(str(number), values, there, "number"))
        else:
            codes = np.unique(column, return_inverse=True)[1].astype(np.int64)
            fields.append(Field(str(number), codes, there, "code"))
    return fields


def damage(
    fields: list[Field],
    rows: NDArray[np.int64],
    rate: float,
    kind: str,
    rng: np.random.Generator,
) -> list[Cells]:
    """Return rows with cells altered: "anything" draws from the column, "typing" slips a little."""
    out = []
    for field in fields:
        values = field.values[rows].copy()
        hit = np.flatnonzero(rng.random(len(rows)) < rate)
        drawn = field.values[rng.integers(len(field.values), size=len(hit))]
        if kind == "typing" and field.kind == "number":
            slip = rng.normal(0, max(1.0, float(field.values.std()) / 10), len(hit))
            values[hit] += np.rint(slip)
        elif kind == "typing":
            # half of the misspelt words are no word of the column
            values[hit] = np.where(rng.random(len(hit)) < 0.5, drawn, -2)
        else:
            values[hit] = drawn
        out.append(Cells(values, field.valid[rows]))
    return out


def _twins(fields: list[Field]) -> NDArray[np.int64]:
    table = np.stack([np.asarray(field.values, np.float64) for field in fields], axis=1)
    return np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
