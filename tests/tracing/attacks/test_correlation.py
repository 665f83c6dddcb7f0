"""A thief who knows how columns go together finds values that do not, and few marks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pgbalise.errors import InvalidInput
from pgbalise.frames import mark
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import load_policy
from pgbalise.tracing.attacks.cells import read
from pgbalise.tracing.attacks.correlation import Correlations

POLICY = """
[relation."h.p"]
key = { id = "integer" }
[relation."h.p".carrier.x]
type = "integer"
quantum = QUANTUM
density = 0.5
"""


def table(rows: int, noise: float) -> pa.Table:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 20, rows)
    x = 10 * y + np.rint(rng.normal(0, noise, rows)).astype(int)
    return pa.table(
        {n: pa.array(v.astype(str)) for n, v in (("id", np.arange(rows)), ("x", x), ("y", y))}
    )


def attacked(noise: float, quantum: int, share: float):
    """The stored, marked and corrected values."""
    policy = load_policy(POLICY.replace("QUANTUM", str(quantum)))
    relation = policy.relations[0]
    stored = table(8000, noise)
    copy = mark(stored, policy, "thief", MasterKey(b"correlat" * 4))
    known = Correlations.learn(stored, relation)
    out = known.correct(copy, relation, share, same_rows=True)
    return [read(one, relation.carriers[0]).values for one in (stored, copy, out)]


def test_values_that_contradict_another_column_are_put_right():
    """The quantum is far too coarse: x follows from y."""
    stored, copy, out = attacked(0.0, 1, 0.5)
    assert np.mean(stored != copy) > 0.2
    assert np.mean(stored != out) < 0.05


def test_marks_within_the_natural_spread_are_not_found():
    stored, copy, out = attacked(12.0, 1, 0.15)
    moved, edited = stored != copy, copy != out
    assert 0.13 < edited.mean() <= 0.15
    assert np.mean(edited[moved]) < 1.35 * edited.mean()
    assert np.mean((stored == out)[moved]) < 0.15


def test_no_more_than_the_share_is_edited_and_none_for_nothing():
    _, copy, out = attacked(3.0, 2, 0.05)
    assert 0 < np.mean(copy != out) <= 0.05
    _, copy, out = attacked(3.0, 2, 0.0)
    assert np.array_equal(copy, out)
    with pytest.raises(InvalidInput):
        attacked(3.0, 2, 1.1)


def test_related_rows_tell_on_each_other():
    """Ten equal readings of one patient: the one that a mark moved stands out."""
    policy = load_policy(POLICY.replace("QUANTUM", "1").replace("0.5", "0.1"))
    relation = policy.relations[0]
    rows = 4000
    patient = np.arange(rows) // 10
    value = np.random.default_rng(1).integers(100, 999, rows // 10)[patient]
    columns = (("id", np.arange(rows)), ("x", value), ("patient", patient))
    stored = pa.table({name: pa.array(values.astype(str)) for name, values in columns})
    copy = mark(stored, policy, "thief", MasterKey(b"correlat" * 4))
    out = Correlations.learn(stored, relation).correct(copy, relation, 0.3, same_rows=True)
    before, after = (
        np.mean(np.array(t.column("x").to_pylist()) != stored.column("x").to_numpy())
        for t in (copy, out)
    )
    assert before > 0.03
    assert after < before / 3
