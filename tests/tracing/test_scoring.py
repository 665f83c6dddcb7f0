from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import log, log10, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.errors import InvalidInput
from pgbalise.tracing.scoring import (
    STRATEGIES,
    Evidence,
    Hypothesis,
    default_hypotheses,
    position_weights,
    score,
)

LENGTH = 16

likelihoods = st.floats(-30, 0)
cells = st.lists(st.tuples(st.integers(0, 5), likelihoods, likelihoods), max_size=12)
biases = st.lists(st.integers(656, 64880), min_size=LENGTH, max_size=LENGTH).map(
    lambda listed: np.array(listed, np.uint16)
)
hypotheses = st.builds(
    Hypothesis,
    coalition=st.integers(1, 5),
    strategy=st.sampled_from(STRATEGIES),
    weight=st.floats(0.01, 1),
    symbol_error=st.sampled_from([1e-6, 1e-3, 0.2]),
)


def evidence_of(listed: list[tuple[int, float, float]]) -> Evidence:
    columns = list(zip(*listed, strict=True)) if listed else [(), (), ()]
    return Evidence(
        np.array(columns[0], np.int32),
        np.array(columns[1], np.float64),
        np.array(columns[2], np.float64),
    )


def pack(bits: np.ndarray) -> np.ndarray:
    return np.packbits(bits.astype(np.uint8), axis=1, bitorder="little")


def all_patterns(width: int) -> np.ndarray:
    patterns = np.array(list(product((0, 1), repeat=width)), np.uint8)
    return np.hstack([patterns, np.zeros((len(patterns), LENGTH - width), np.uint8)])


def brute_force(listed, bias, hypothesis, bits):
    """Return S for one codeword, by enumerating what the other members may hold."""
    theta = hypothesis.output_probabilities()
    total = 0.0
    for position in {cell[0] for cell in listed}:
        p = int(bias[position]) / 65536
        here = [cell[1:] for cell in listed if cell[0] == position]

        def likelihood(x, p=p, here=here):
            f = 0.0
            for others in product((0, 1), repeat=hypothesis.coalition - 1):
                chance = prod(p if bit else 1 - p for bit in others)
                t = theta[x + sum(others)]
                f += chance * prod(t * np.exp(l1) + (1 - t) * np.exp(l0) for l0, l1 in here)
            return f

        f0, f1 = likelihood(0), likelihood(1)
        total += log((f1 if bits[position] else f0) / (p * f1 + (1 - p) * f0))
    return total


@given(cells, biases, st.lists(hypotheses, min_size=1, max_size=6), st.sampled_from([0, 0.5, 1]))
def test_the_mean_over_all_codewords_is_exactly_one(listed, bias, grid, adaptation):
    patterns = all_patterns(6)
    p = bias[:6] / 65536
    chance = np.where(patterns[:, :6] == 1, p, 1 - p).prod(axis=1)
    scores = score(evidence_of(listed), bias, [pack(patterns)], grid, adaptation=adaptation)
    assert float(chance @ 10.0**scores.log10_e_value) == pytest.approx(1, rel=1e-11)


@given(cells, biases, st.data())
def test_default_grid_has_mean_one(listed, bias, data):
    patterns = all_patterns(6)
    p = bias[:6] / 65536
    chance = np.where(patterns[:, :6] == 1, p, 1 - p).prod(axis=1)
    scores = score(evidence_of(listed), bias, [pack(patterns)])
    assert float(chance @ 10.0**scores.log10_e_value) == pytest.approx(1, rel=1e-11)


def test_a_wrong_bias_breaks_the_mean():
    # Power of the two tests above: they fail if codewords follow another bias than the score.
    listed = [(0, -9.0, 0.0), (1, -9.0, 0.0)]
    bias = np.full(LENGTH, 16384, np.uint16)
    patterns = all_patterns(6)
    chance = np.where(patterns[:, :6] == 1, 0.3, 0.7).prod(axis=1)
    scores = score(evidence_of(listed), bias, [pack(patterns)])
    assert float(chance @ 10.0**scores.log10_e_value) > 1.1


@given(cells, biases, hypotheses)
def test_equals_brute_force(listed, bias, hypothesis):
    patterns = all_patterns(6)[::7]
    scores = score(evidence_of(listed), bias, [pack(patterns)], [hypothesis])
    expected = [brute_force(listed, bias, hypothesis, bits) / log(10) for bits in patterns]
    np.testing.assert_allclose(scores.log10_e_value, expected, rtol=1e-5, atol=1e-4)


@given(cells, biases, st.randoms(use_true_random=False))
def test_order_of_cells_does_not_matter(listed, bias, random):
    shuffled = list(listed)
    random.shuffle(shuffled)
    patterns = pack(all_patterns(6))
    one = score(evidence_of(listed), bias, [patterns])
    two = score(evidence_of(shuffled), bias, [patterns])
    np.testing.assert_allclose(one.log10_e_value, two.log10_e_value, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(one.agreeing, two.agreeing)


@given(cells, cells, biases, hypotheses)
def test_disjoint_evidence_multiplies(first, second, bias, hypothesis):
    moved = [(position + 6, l0, l1) for position, l0, l1 in second]
    rng = np.random.default_rng(len(first) + 13 * len(second))
    codewords = pack(rng.integers(2, size=(40, LENGTH)))
    parts = [evidence_of(first), evidence_of(moved)]
    single = [score(part, bias, [codewords], [hypothesis]).log10_e_value for part in parts]
    both = score(Evidence.concatenate(parts), bias, [codewords], [hypothesis]).log10_e_value
    np.testing.assert_allclose(both, single[0] + single[1], rtol=1e-5, atol=1e-4)


@given(cells, biases)
def test_a_cell_that_tells_nothing_changes_nothing(listed, bias):
    patterns = pack(all_patterns(6))
    more = [*listed, (3, -2.5, -2.5), (9, -1.0, -1.0)]
    one = score(evidence_of(listed), bias, [patterns])
    two = score(evidence_of(more), bias, [patterns])
    np.testing.assert_allclose(one.log10_e_value, two.log10_e_value, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(one.agreeing, two.agreeing)


@given(cells, biases)
def test_agreeing_cells_are_counted(listed, bias):
    patterns = all_patterns(6)
    agreeing = score(evidence_of(listed), bias, [pack(patterns)]).agreeing
    expected = [
        sum((l1 > l0) if bits[position] else (l0 > l1) for position, l0, l1 in listed)
        for bits in patterns
    ]
    np.testing.assert_array_equal(agreeing, expected)


@given(cells.filter(bool), biases, st.integers(2, 4))
def test_repeating_evidence_of_other_blocks_keeps_order(listed, bias, blocks):
    patterns = pack(all_patterns(6))
    whole = score(evidence_of(listed), bias, [patterns])
    split = score(evidence_of(listed), bias, np.array_split(patterns, blocks))
    np.testing.assert_array_equal(whole.log10_e_value, split.log10_e_value)
    np.testing.assert_array_equal(whole.agreeing, split.agreeing)


@pytest.mark.parametrize("used", [300, 20_000])
def test_float32_products_are_exact(used):
    # Sparse and dense paths, weights from tiny to hundreds: the sums must equal float64's.
    rng = np.random.default_rng(used)
    length, count = 24_000, 3 * used
    bias = rng.integers(656, 64880, length).astype(np.uint16)
    evidence = Evidence(
        rng.choice(used, count).astype(np.int32), -rng.exponential(9, count), -np.ones(count)
    )
    weights = position_weights(evidence, bias)
    assert (weights.positions.size == length) == (used == 20_000)
    bits = rng.integers(2, size=(70, length), dtype=np.uint8)
    projected = weights._project(pack(bits))
    exact = bits[:, weights.positions].astype(np.float64) @ weights.weights
    np.testing.assert_array_equal(projected[:, :-1], exact)


def test_many_cells_at_one_position_stay_finite_and_exact():
    count = 30_000
    position = np.repeat(np.array([0, 1, 2], np.int32), count)
    log0, log1 = np.zeros(3 * count), np.full(3 * count, -np.inf)
    log0[:count], log1[:count] = -np.inf, 0.0
    log0[2 * count :: 2], log1[2 * count :: 2] = -np.inf, 0.0
    bias = np.array([16384] * LENGTH, np.uint16)
    patterns = all_patterns(3)
    result = score(Evidence(position, log0, log1), bias, [pack(patterns)])
    chance = np.where(patterns[:, :3] == 1, 0.25, 0.75).prod(axis=1)
    assert float(chance @ 10.0**result.log10_e_value) == pytest.approx(1, rel=1e-11)
    guilty = int(np.flatnonzero((patterns[:, :2] == [1, 0]).all(axis=1))[0])
    assert result.log10_e_value.argmax() in (guilty, guilty + 1)
    assert result.agreeing[guilty] == 2 * count + count // 2


def test_agreement_beyond_float32_integers():
    # 2**24 + 1 has no float32 form; the step shrinks until sums fit.
    count = (1 << 21) + 1
    position = np.tile(np.arange(8, dtype=np.int32), count // 4)
    evidence = Evidence(position, np.full(position.size, -1.0), np.zeros(position.size))
    result = score(evidence, np.full(16, 32768, np.uint16), [np.array([[255, 0]], np.uint8)])
    assert result.agreeing.tolist() == [position.size]


def test_no_evidence_is_an_e_value_of_one():
    empty = Evidence.concatenate([])
    result = score(empty, np.full(LENGTH, 3000, np.uint16), [pack(all_patterns(6))])
    np.testing.assert_allclose(result.log10_e_value, 0, atol=1e-12)
    assert result.agreeing.sum() == 0
    assert score(empty, np.full(LENGTH, 3000, np.uint16), []).log10_e_value.size == 0


def test_one_leaker_gains_the_information_of_its_symbols():
    # c = 1 alone: every cell multiplies by 1 / P(symbol), up to the symbol error.
    bias = np.array([655, 6554, 32768, 58982] * 4, np.uint16)
    bits = np.array([[1, 0, 1, 1] * 4], np.uint8)
    log1 = np.where(bits[0] == 1, 0.0, -np.inf)
    log0 = np.where(bits[0] == 1, -np.inf, 0.0)
    evidence = Evidence(np.arange(16, dtype=np.int32), log0, log1)
    lone = Hypothesis(1, "interleave", 1.0, symbol_error=1e-9)
    p = bias / 65536
    expected = -sum(log10(q if bit else 1 - q) for q, bit in zip(p, bits[0], strict=True))
    value = float(score(evidence, bias, [pack(bits)], [lone]).log10_e_value[0])
    assert value == pytest.approx(expected, rel=1e-5)


def test_one_contradicting_cell_does_not_clear_the_guilty():
    rng = np.random.default_rng(5)
    bias = rng.integers(6000, 60000, 800).astype(np.uint16)
    bits = (rng.random((1, 800)) < bias / 65536).astype(np.uint8)
    shown = bits[0].copy()
    shown[[3, 99, 500]] ^= 1
    log1 = np.where(shown == 1, 0.0, -np.inf)
    log0 = np.where(shown == 1, -np.inf, 0.0)
    evidence = Evidence(np.arange(800, dtype=np.int32), log0, log1)
    assert score(evidence, bias, [pack(bits)]).log10_e_value[0] > 100


def test_adaptation_costs_at_most_the_prior_and_finds_the_attack():
    rng = np.random.default_rng(8)
    bias = rng.integers(656, 64880, 1600).astype(np.uint16)
    bits = (rng.random((5, 1600)) < bias / 65536).astype(np.uint8)
    shown = bits.min(axis=0)
    log1, log0 = np.where(shown == 1, 0, -np.inf), np.where(shown == 1, -np.inf, 0)
    evidence = Evidence(np.arange(1600, dtype=np.int32), log0, log1)
    fixed = score(evidence, bias, [pack(bits)], adaptation=0).log10_e_value
    adapted = score(evidence, bias, [pack(bits)]).log10_e_value
    assert bool(np.all(adapted > fixed - log10(2) - 1e-9))
    assert float(np.median(adapted - fixed)) > 0.5
    weights = position_weights(evidence, bias)
    heaviest = default_hypotheses()[int(weights.log_mixture.argmax())]
    assert heaviest.strategy == "all-zero"
    assert heaviest.coalition in (4, 5, 6)


@pytest.mark.parametrize(
    ("strategy", "size", "expected"),
    [
        ("interleave", 4, [0, 0.25, 0.5, 0.75, 1]),
        ("majority", 4, [0, 0, 0.5, 1, 1]),
        ("minority", 4, [0, 1, 0.5, 0, 1]),
        ("all-zero", 3, [0, 0, 0, 1]),
        ("all-one", 3, [0, 1, 1, 1]),
        ("coin-flip", 3, [0, 0.5, 0.5, 1]),
    ],
)
def test_output_probabilities(strategy, size, expected):
    theta = Hypothesis(size, strategy, 1.0, symbol_error=1e-12).output_probabilities()
    np.testing.assert_allclose(theta, expected, atol=1e-11)


def test_default_weights_sum_to_one_and_favour_the_single_leaker():
    grid = default_hypotheses()
    assert sum(one.weight for one in grid) == pytest.approx(1)
    assert len({replace(one, weight=1.0) for one in grid}) == len(grid)
    assert sum(one.weight for one in grid if one.coalition == 1) >= 0.45
    assert {1, 2, 3, 4, 5, 6, 8} <= {one.coalition for one in grid}


@pytest.mark.parametrize(
    "arguments",
    [
        {"coalition": 0},
        {"strategy": "averaging"},
        {"weight": 0.0},
        {"weight": float("nan")},
        {"symbol_error": 0.0},
        {"symbol_error": 0.5},
        {"share": 0.5},
        {"share": 1.0, "strategy": "interleave"},
        {"share": 0.5, "strategy": "interleave", "coalition": 1},
    ],
)
def test_impossible_hypotheses_are_refused(arguments):
    with pytest.raises(InvalidInput):
        Hypothesis(**{"coalition": 2, "strategy": "majority", "weight": 1.0, **arguments})


@pytest.mark.parametrize(
    ("position", "log0", "log1"),
    [
        ([0, 1], [0.0], [0.0]),
        ([-1], [0.0], [-1.0]),
        ([0], [float("nan")], [0.0]),
        ([0], [-np.inf], [-np.inf]),
        ([0], [np.inf], [0.0]),
    ],
)
def test_impossible_evidence_is_refused(position, log0, log1):
    with pytest.raises(InvalidInput):
        Evidence(np.array(position, np.int32), np.array(log0), np.array(log1))


def test_impossible_calls_are_refused():
    bias = np.full(LENGTH, 3000, np.uint16)
    evidence = evidence_of([(2, 0.0, -3.0)])
    block = pack(all_patterns(6))
    with pytest.raises(InvalidInput, match="beyond"):
        score(evidence_of([(LENGTH, 0.0, -3.0)]), bias, [block])
    with pytest.raises(InvalidInput, match="hypothesis"):
        score(evidence, bias, [block], [])
    with pytest.raises(InvalidInput, match="adaptation"):
        score(evidence, bias, [block], adaptation=1.5)
    with pytest.raises(InvalidInput, match="uint16"):
        score(evidence, bias.astype(np.int64), [block])
    with pytest.raises(InvalidInput, match="p = 0"):
        score(evidence, bias * np.uint16(0), [block])
    with pytest.raises(InvalidInput, match="bytes"):
        score(evidence, bias, [block[:, :1]])
    with pytest.raises(InvalidInput, match="uint8"):
        score(evidence, bias, [block.astype(np.int64)])


def test_who_gave_most_of_a_mixed_leak_is_seen_better_with_a_share():
    rng = np.random.default_rng(2)
    bias = rng.integers(656, 64880, 400).astype(np.uint16)
    bits = (rng.random((2, 400)) < bias / 65536).astype(np.uint8)
    shown = np.where(rng.random(400) < 0.8, bits[0], bits[1])
    log1, log0 = np.where(shown == 1, 0, -np.inf), np.where(shown == 1, -np.inf, 0)
    evidence = Evidence(np.arange(400, dtype=np.int32), log0, log1)
    grid = default_hypotheses()
    alike = [one for one in grid if one.share is None]
    values = [
        score(evidence, bias, [pack(bits[:1])], which).log10_e_value[0] for which in (grid, alike)
    ]
    assert values[0] > values[1] + 0.5


@given(cells, biases, st.floats(0.05, 0.95), st.integers(2, 4))
def test_a_share_keeps_the_mean_at_one(listed, bias, share, coalition):
    patterns = all_patterns(6)
    p = bias[:6] / 65536
    chance = np.where(patterns[:, :6] == 1, p, 1 - p).prod(axis=1)
    one = Hypothesis(coalition, "interleave", 1.0, share=share)
    scores = score(evidence_of(listed), bias, [pack(patterns)], [one])
    assert float(chance @ 10.0**scores.log10_e_value) == pytest.approx(1, rel=1e-11)
