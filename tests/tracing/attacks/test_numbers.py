from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.errors import InvalidInput
from pgbalise.tracing.attacks import add_noise, collude, keep_rows, round_to_grid
from pgbalise.tracing.scoring import STRATEGIES, Hypothesis

DECIMAL = {
    "half-away": ROUND_HALF_UP,
    "half-even": ROUND_HALF_EVEN,
    "floor": ROUND_FLOOR,
    "toward-zero": ROUND_DOWN,
}


@given(st.sampled_from(STRATEGIES), st.integers(1, 6), st.integers(0, 2**32))
def test_marking_assumption_and_reproducibility(strategy, members, seed):
    bits = np.random.default_rng(seed).integers(2, size=(members, 200), dtype=np.uint8)
    symbols = collude(bits, strategy, np.random.default_rng(seed))
    assert symbols.dtype == np.uint8
    same = bits.min(axis=0) == bits.max(axis=0)
    np.testing.assert_array_equal(symbols[same], bits[0][same])
    np.testing.assert_array_equal(symbols, collude(bits, strategy, np.random.default_rng(seed)))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("members", [2, 3, 4, 5])
def test_frequencies_are_those_of_the_hypothesis(strategy, members):
    cells = 40_000
    theta = Hypothesis(members, strategy, 1.0, symbol_error=1e-9).output_probabilities()
    rng = np.random.default_rng(members)
    for held in range(members + 1):
        bits = np.zeros((members, cells), np.uint8)
        bits[:held] = 1
        share = collude(rng.permuted(bits, axis=0), strategy, rng).mean()
        spread = np.sqrt(theta[held] * (1 - theta[held]) / cells)
        assert abs(share - theta[held]) <= 4.5 * spread + 1e-6


@given(
    st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=20),
    st.integers(1, 10**7),
    st.sampled_from(sorted(DECIMAL)),
)
def test_rounding_is_that_of_decimal(values, grid, mode):
    rounded = round_to_grid(np.array(values, np.int64), grid, mode)
    expected = [
        int((Decimal(v) / Decimal(grid)).quantize(Decimal(1), DECIMAL[mode])) * grid for v in values
    ]
    assert rounded.tolist() == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("half-away", [-20, -10, 0, 10, 20, 30]),
        ("half-even", [-20, 0, 0, 0, 20, 20]),
        ("floor", [-20, -10, 0, 0, 10, 20]),
        ("toward-zero", [-10, 0, 0, 0, 10, 20]),
    ],
)
def test_rounding_ties(mode, expected):
    values = np.array([-15, -5, 0, 5, 15, 25])
    assert round_to_grid(values, 10, mode).tolist() == expected


def test_noise_has_the_scale_asked_for():
    values = np.arange(100_000, dtype=np.int64)
    moved = add_noise(values, 30.0, np.random.default_rng(1)) - values
    assert moved.dtype == np.int64
    assert abs(moved.mean()) < 0.5
    assert moved.std() == pytest.approx(30, rel=0.02)
    np.testing.assert_array_equal(add_noise(values, 0.0, np.random.default_rng(1)), values)


@given(st.integers(0, 300), st.floats(0, 1), st.integers(0, 2**32))
def test_kept_rows_are_distinct_and_as_many_as_asked_for(rows, share, seed):
    kept = keep_rows(rows, share, np.random.default_rng(seed))
    assert kept.size == round(rows * share)
    assert np.unique(kept).size == kept.size
    assert not kept.size or (kept.min() >= 0 and kept.max() < rows)


def test_all_rows_are_shuffled():
    kept = keep_rows(1000, 1.0, np.random.default_rng(0))
    assert sorted(kept.tolist()) == list(range(1000))
    assert kept.tolist() != list(range(1000))


def test_impossible_attacks_are_refused():
    rng = np.random.default_rng(0)
    values = np.zeros(3, np.int64)
    bits = np.zeros((2, 3), np.uint8)
    with pytest.raises(InvalidInput):
        collude(bits, "averaging", rng)
    with pytest.raises(InvalidInput):
        collude(bits[:0], "majority", rng)
    with pytest.raises(InvalidInput):
        round_to_grid(values, 0)
    with pytest.raises(InvalidInput):
        round_to_grid(values, 10, "ceiling")
    with pytest.raises(InvalidInput):
        add_noise(values, -1.0, rng)
    with pytest.raises(InvalidInput):
        keep_rows(3, 1.5, rng)
