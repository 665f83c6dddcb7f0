from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pgbalise.errors import InvalidInput
from pgbalise.frames import mark
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import load_policy
from pgbalise.tracing.attacks.collusion import merge, mix

POLICY = load_policy("""
[relation."h.p"]
key = { id = "integer" }
[relation."h.p".carrier.v]
type = "integer"
quantum = 1
density = 1
[relation."h.p".carrier.w]
type = "double precision"
quantum = 0.5
density = 1
""")
RELATION = POLICY.relations[0]
KEY = MasterKey(b"collude!" * 4)
STORED = pa.table(
    {
        "id": range(3000),
        "v": [200 + n % 90 for n in range(3000)],
        "w": [n % 40 / 2 for n in range(3000)],
    }
)
COPIES = [
    pa.table({n: c.cast(pa.string()) for n, c in zip(STORED.column_names, t.columns, strict=True)})
    for t in (mark(STORED, POLICY, name, KEY) for name in "abc")
]
HELD = {
    name: np.array([copy.column(name).cast(pa.float64()).to_numpy() for copy in COPIES])
    for name in ("v", "w")
}


def merged(how, copies=COPIES, seed=1):
    out = merge(copies, RELATION, how, np.random.default_rng(seed))
    return {name: out.column(name).cast(pa.float64()).to_numpy() for name in ("v", "w")}


def test_extremes_are_those_of_the_copies():
    for how, least in (("minimum", np.min), ("maximum", np.max)):
        for name, values in merged(how).items():
            np.testing.assert_array_equal(values, least(HELD[name], axis=0))


def test_averages_are_means_in_the_columns_digits_with_ties_to_even():
    np.testing.assert_array_equal(merged("average")["v"], np.rint(HELD["v"].mean(axis=0)))
    both = merged("average", COPIES[:2])
    np.testing.assert_array_equal(both["v"], np.rint(HELD["v"][:2].mean(axis=0)))
    assert (
        0.3
        < np.mean(
            both["v"][HELD["v"][0] != HELD["v"][1]] == HELD["v"][0][HELD["v"][0] != HELD["v"][1]]
        )
        < 0.7
    )


@pytest.mark.parametrize("how", ["majority", "minority", "interleave"])
def test_every_cell_is_one_that_somebody_holds(how):
    for name, values in merged(how).items():
        assert np.all((HELD[name] == values).any(axis=0))
        mixed = HELD[name].min(axis=0) != HELD[name].max(axis=0)
        votes = (HELD[name] == values).sum(axis=0)[mixed]
        assert mixed.sum() > 500
        share = {"majority": 1.0, "minority": 0.0, "interleave": 5 / 9}[how]
        # two of three hold the majority's value, and interleaving picks it 2 times in 3
        expected = 2 / 3 if how == "interleave" else share
        assert np.mean(votes == 2) == pytest.approx(expected, abs=0.08)


def test_mixing_takes_whole_rows():
    out = mix(COPIES, np.random.default_rng(3))
    rows = list(zip(*(out.column(n).to_pylist() for n in ("id", "v", "w")), strict=True))
    held = [
        set(zip(*(c.column(n).to_pylist() for n in ("id", "v", "w")), strict=True)) for c in COPIES
    ]
    assert all(any(row in one for one in held) for row in rows)
    assert [row[0] for row in rows] == COPIES[0].column("id").to_pylist()
    assert all(0.25 < np.mean([row in one for row in rows]) < 0.9 for one in held)


def test_a_merge_follows_from_its_seed():
    one, same, other = (merged("interleave", seed=n)["v"] for n in (5, 5, 6))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_copies_of_different_rows_are_refused():
    rng = np.random.default_rng(0)
    for copies in ([], [COPIES[0], COPIES[1].slice(1)], [COPIES[0], COPIES[1].drop_columns(["w"])]):
        with pytest.raises(InvalidInput):
            merge(copies, RELATION, "majority", rng)
        with pytest.raises(InvalidInput):
            mix(copies, rng)
