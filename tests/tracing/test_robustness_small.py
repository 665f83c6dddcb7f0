"""Marking, attack and trace end to end, in memory, on census-like rows: a small, seeded sample."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bench.adult import ALTERED_SHARE, CARRIERS, COLUMNS, KEY, generated, policy
from bench.trials import MERGES, Source, disguised, drawn_key, named
from pgbalise.frames import mark

ALPHA = 1e-6
ROWS = 8_000
CENSUS = generated(ROWS, np.random.default_rng(1))


def source(rng: np.random.Generator, table: pa.Table = CENSUS) -> Source:
    return Source.of(table, policy(), drawn_key(rng), named(20))


def test_a_copy_differs_in_at_most_one_cell_in_a_hundred() -> None:
    copy = mark(CENSUS, policy(), "r", drawn_key(np.random.default_rng(2)))
    altered = sum(pc.sum(pc.not_equal(CENSUS[c], copy[c])).as_py() for c in CARRIERS)
    assert 0.7 * ALTERED_SHARE < altered / (ROWS * len(COLUMNS)) <= ALTERED_SHARE


@pytest.mark.parametrize(
    "form",
    [
        "with key",
        "without key",
        "disguised",
    ],
)
def test_who_leaks_300_rows_is_first_and_the_only_one_accused(form: str) -> None:
    named_right = 0
    for seed in range(10):
        rng = np.random.default_rng([3, seed])
        hospital = source(rng)
        thief = str(rng.choice(hospital.recipients))
        rows = rng.choice(ROWS, 300, replace=False)
        leak = hospital.leaked_by([thief], rows, "", rng)
        if form != "with key":
            leak = leak.drop_columns([KEY])
        if form == "disguised":
            leak = disguised(leak, rng)
        found = hospital.judge(leak, ALPHA, rows=None)
        assert found.first == thief
        assert set(found.accused) <= {thief}
        named_right += found.accused == (thief,)
    assert named_right >= 9


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("size", [2, 5])
def test_all_who_merge_their_copies_are_accused_and_nobody_else(size: int, merge: str) -> None:
    for seed in range(2):
        rng = np.random.default_rng([4, seed])
        hospital = source(rng)
        thieves = rng.choice(hospital.recipients, size, replace=False).tolist()
        leak = hospital.leaked_by(thieves, rng.permutation(ROWS), merge, rng)
        assert set(hospital.judge(leak, ALPHA, rows=None).accused) == set(thieves)


@pytest.mark.parametrize("kind", ["not ours", "ours, unmarked", "another hospital's"])
def test_nobody_is_accused_of_a_leak_that_no_recipient_had(kind: str) -> None:
    for seed in range(34):
        rng = np.random.default_rng([5, seed])
        hospital = source(rng, CENSUS.slice(0, ROWS // 2))
        theirs = CENSUS.slice(ROWS // 2).set_column(0, KEY, hospital.table.column(KEY))
        rows = rng.choice(ROWS // 2, int(rng.integers(100, 1_000)), replace=False)
        if kind == "not ours":
            invented = generated(len(rows), rng).set_column(0, KEY, pa.array(rows + 1))
            leak = source(rng, invented).text
        elif kind == "ours, unmarked":
            leak = hospital.text.take(pa.array(rows))
        else:
            leak = source(rng, theirs).leaked_by([hospital.recipients[seed % 20]], rows, "", rng)
        found = hospital.judge(leak, ALPHA, rows=None)
        assert found.accused == ()
        if kind == "ours, unmarked":
            assert len(found.log10_e_values) == 20


def test_merging_puts_into_a_cell_what_the_attack_says() -> None:
    rng = np.random.default_rng(6)
    copies = np.array([[[1, 5, 9, 4]], [[1, 6, 9, 4]], [[2, 6, 9, 4]]])
    merged = {name: merge(copies, rng)[0].tolist() for name, merge in MERGES.items()}
    assert merged["majority"] == [1, 6, 9, 4]
    assert merged["minority"][:2] == [2, 5]
    assert merged["lowest"] == [1, 5, 9, 4]
    assert merged["highest"] == [2, 6, 9, 4]
    assert merged["averaged"] == [1, 6, 9, 4]
    assert merged["rows mixed"][2:] == merged["cells interleaved"][2:] == [9, 4]
    many = np.repeat(np.array([[[0], [0]], [[1], [1]]]), 100, axis=2)
    mixed = MERGES["rows mixed"](many, rng)
    assert (mixed[0] == mixed[1]).all()
    assert {0, 1} == set(mixed[0].tolist())
    assert not np.array_equal(*MERGES["cells interleaved"](many, rng))
