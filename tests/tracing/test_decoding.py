"""Colluders taken together: what the rounds promise, and what they find."""

from __future__ import annotations

from itertools import product
from math import log10

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise import wordstream
from pgbalise.errors import InvalidInput
from pgbalise.marking.codes import CODE_LENGTH, bias, codewords
from pgbalise.marking.keys import MasterKey
from pgbalise.tracing import decoding
from pgbalise.tracing.decision import threshold_log10
from pgbalise.tracing.decoding import ROUND_WEIGHTS, Way, decode
from pgbalise.tracing.scoring import (
    STRATEGIES,
    Evidence,
    Hypothesis,
    later_hypotheses,
    position_weights,
)
from pgbalise.tracing.simulate import draw_codewords, draw_leak, log10_e_values, recall, way_of
from pgbalise.wordstream import stream_words

PATTERNS = np.array(list(product((0, 1), repeat=8)), np.uint8)


def packed(bits):
    return np.packbits(bits, axis=1, bitorder="little")


def small_leak(seed, cells=14):
    rng = np.random.default_rng(seed)
    thresholds = rng.integers(3000, 62000, 8).astype(np.uint16)
    position = rng.integers(8, size=cells).astype(np.int32)
    evidence = Evidence(position, -rng.exponential(4, cells), -rng.exponential(4, cells))
    p = thresholds / 65536
    return evidence, thresholds, np.where(PATTERNS == 1, p, 1 - p).prod(axis=1), rng


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_given_those_named_the_mean_over_all_codewords_is_one(seed, named):
    evidence, thresholds, chance, rng = small_leak(seed)
    known = rng.integers(2, size=(named, 8)).astype(np.uint8)
    weights = position_weights(evidence, thresholds, named=known)
    values = 10.0 ** weights.score(packed(PATTERNS)).log10_e_value
    assert float(chance @ values) == pytest.approx(1, rel=1e-11)


@given(st.integers(0, 10**6))
def test_the_beginning_has_the_mean_of_what_may_follow(seed):
    rng = np.random.default_rng(seed)
    thresholds = rng.integers(3000, 62000, 16).astype(np.uint16)
    evidence = Evidence(
        rng.integers(16, size=30).astype(np.int32), -rng.exponential(4, 30), -rng.exponential(4, 30)
    )
    weights = position_weights(evidence, thresholds)
    begin = rng.integers(2, size=8).astype(np.uint8)
    whole = np.hstack([np.tile(begin, (256, 1)), PATTERNS])
    p = thresholds[8:] / 65536
    chance = np.where(PATTERNS == 1, p, 1 - p).prod(axis=1)
    mean = chance @ 10.0 ** weights.score(packed(whole)).log10_e_value
    first = weights.until(8).score(packed(begin[None])).log10_e_value[0]
    assert log10(mean) == pytest.approx(first, abs=1e-9)


def brute(listed, p, known, hypothesis, bit):
    """Return f(bit) at one position, by enumerating what the unknown others may hold."""
    theta = hypothesis.output_probabilities()
    unknown = hypothesis.coalition - len(known) - 1
    total = 0.0
    for others in product((0, 1), repeat=unknown):
        t = theta[sum(known) + bit + sum(others)]
        chance = np.prod([p if one else 1 - p for one in others])
        total += chance * np.prod([t * np.exp(l1) + (1 - t) * np.exp(l0) for l0, l1 in listed])
    return total


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "interleave"])
def test_equals_brute_force_beside_those_named(strategy):
    evidence, thresholds, _, rng = small_leak(3)
    known = rng.integers(2, size=(2, 8)).astype(np.uint8)
    one = Hypothesis(4, strategy, 1.0)
    weights = position_weights(evidence, thresholds, [one], named=known)
    for at in range(8):
        here = evidence.position == at
        listed = list(
            zip(evidence.log_likelihood0[here], evidence.log_likelihood1[here], strict=True)
        )
        f0, f1 = (
            brute(listed, thresholds[at] / 65536, known[:, at].tolist(), one, bit) for bit in (0, 1)
        )
        assert weights.weights[at, 0] == pytest.approx(np.log(f1 / f0), abs=1e-5)


def false_accusations(leaks, seed, *, alpha=0.2, recipients=40):
    """Return in how many leaks anyone innocent is named, and how often a second round was run."""
    wrong = again = 0
    threshold = threshold_log10(recipients, alpha)
    for index in range(leaks):
        rng = np.random.default_rng([seed, index])
        coalition = int(rng.integers(6))
        strategy = STRATEGIES[rng.integers(len(STRATEGIES))]
        cells = int(rng.integers(4, 120))
        odds = [np.inf, 2.0][rng.integers(2)]
        leak = draw_leak(cells, coalition, strategy, rng, log_odds=odds)
        way = way_of(leak, draw_codewords(leak.bias, recipients - coalition, rng))
        rounds = decode([way], recipients, threshold_log10=threshold).rounds
        again += bool(rounds)
        wrong += any(j >= coalition for one in rounds for j in one)
    return wrong, again


def most_allowed(leaks, alpha=0.2):
    return leaks * alpha + 4 * np.sqrt(leaks * alpha * (1 - alpha))


def test_innocents_are_named_in_at_most_a_share_alpha_of_the_leaks():
    wrong, again = false_accusations(150, seed=1)
    assert again > 20
    assert wrong <= most_allowed(150)


@pytest.mark.slow
def test_innocents_are_named_in_at_most_a_share_alpha_of_thousands_of_leaks():
    wrong, again = false_accusations(3000, seed=2)
    assert again > 400
    assert wrong <= most_allowed(3000)


def test_that_check_notices_rounds_that_are_multiplied(monkeypatch):
    # what is known of a leak in two rounds is the same leak: their product is no e-value
    def times(one, other):
        return np.where(np.isfinite(one), one, 0.0) + np.where(np.isfinite(other), other, 0.0)

    def falsely(leaks, alpha, recipients=4000):
        rng = np.random.default_rng(5)
        wrong = 0
        for _ in range(leaks):
            leak = draw_leak(38, 1, "interleave", rng)
            way = way_of(leak, draw_codewords(leak.bias, recipients - 1, rng))
            found = decode([way], recipients, threshold_log10=log10(recipients / alpha))
            wrong += any(j > 0 for one in found.rounds for j in one)
        return wrong

    assert falsely(50, 0.05) <= most_allowed(50, 0.05)
    monkeypatch.setattr(decoding, "_log10_add", times)
    monkeypatch.setattr(decoding, "ROUND_WEIGHTS", (1.0,) * 6)
    # and to score the same evidence again, as if nobody were known
    monkeypatch.setattr(
        decoding,
        "position_weights",
        lambda evidence, thresholds, grid, named: position_weights(evidence, thresholds, grid),
    )
    assert falsely(50, 0.05) > most_allowed(50, 0.05)


def test_colluders_known_make_the_others_stand_out():
    named = recall(2600, 5, "interleave", trials=12, seed=4)
    assert named[:, 1].mean() > named[:, 0].mean() + 0.5
    assert bool(np.all(named[:, 1] >= named[:, 0]))


def test_who_gave_a_tenth_is_named_beside_who_gave_the_rest():
    rng = np.random.default_rng(6)
    leak = draw_leak(9000, 2, "interleave", rng)
    position = leak.evidence.position
    shown = np.where(rng.random(9000) < 0.9, leak.bits[0, position], leak.bits[1, position]) == 1
    evidence = Evidence(position, np.where(shown, -12.0, 0.0), np.where(shown, 0.0, -12.0))
    way = way_of(leak, draw_codewords(leak.bias, 50, rng))
    way = Way(evidence, way.bias, way.members, way.words)
    found = decode([way], 52, threshold_log10=9)
    assert sorted(j for one in found.rounds for j in one) == [0, 1]


def test_who_is_named_is_scored_in_the_rounds_until_then_alone():
    leak = draw_leak(400, 1, "interleave", np.random.default_rng(0))
    found = decode([way_of(leak)], 1, threshold_log10=13)
    assert found.rounds == ((0,),)
    alone = log10_e_values(leak, leak.bits)[0] + log10(ROUND_WEIGHTS[0])
    assert found.log10_e_value[0] == pytest.approx(alone)
    assert found.agreeing[0] == 400


def test_weights_of_rounds_and_of_later_hypotheses_sum_to_one():
    assert sum(ROUND_WEIGHTS) == pytest.approx(1)
    for named in (1, 3):
        grid = later_hypotheses(named)
        assert sum(one.weight for one in grid) == pytest.approx(1)
        assert min(one.coalition for one in grid) == named + 1


def test_several_ways_are_averaged_and_the_likeliest_is_told():
    rng = np.random.default_rng(3)
    leak, other = (draw_leak(200, 1, "interleave", rng) for _ in range(2))
    innocent = draw_codewords(leak.bias, 1, rng)
    unlike = draw_codewords(other.bias, 2, rng)
    right = way_of(leak, innocent)
    right = Way(right.evidence, right.bias, np.array([2, 0]), right.words)
    wrong = Way(
        other.evidence,
        other.bias,
        np.array([0, 1]),
        lambda wanted, rows: iter([packed(unlike)[rows]]),
    )
    one = decode([right], 3, threshold_log10=13)
    both = decode([wrong, right], 3, threshold_log10=13)
    assert one.rounds == both.rounds == ((2,),)
    assert both.log10_e_value[2] == pytest.approx(one.log10_e_value[2] - log10(2))
    assert both.best.tolist() == [0, 0, 1] or both.best.tolist() == [1, 0, 1]
    assert np.isneginf(one.log10_e_value[1])


def test_no_evidence_names_nobody():
    leak = draw_leak(0, 0, "interleave", np.random.default_rng(0))
    way = way_of(leak, np.zeros((3, leak.bias.size), np.uint8))
    found = decode([way], 3, threshold_log10=3)
    assert found.rounds == ()
    np.testing.assert_allclose(found.log10_e_value, log10(ROUND_WEIGHTS[0]))


def staged(monkeypatch, cells, coalition, seed, *, recipients=3000):
    rng = np.random.default_rng(seed)
    leak = draw_leak(cells, coalition, "interleave", rng)
    drawn = way_of(leak, draw_codewords(leak.bias, recipients - coalition, rng))
    asked = []

    def words(wanted, rows):
        asked.append((wanted * 8, rows.size))
        return drawn.words(wanted, rows)

    way = Way(drawn.evidence, drawn.bias, drawn.members, words)
    whole = decode([way], recipients, threshold_log10=15)
    monkeypatch.setattr(decoding, "STAGED_FROM", 1000)
    asked.clear()
    return whole, decode([way], recipients, threshold_log10=15), asked, leak.bias.size


def test_of_many_recipients_most_are_scored_on_the_beginning(monkeypatch):
    whole, quick, asked, length = staged(monkeypatch, 2000, 1, 8)
    assert quick.rounds == whole.rounds == ((0,),)
    assert quick.log10_e_value[0] == whole.log10_e_value[0]
    everyone, some, few = (rows for _, rows in asked[:3])
    assert everyone == 3000
    assert 200 < some < 400
    assert few < 50
    assert asked[0][0] < length * 0.13
    assert asked[1][0] < length * 0.38
    assert np.count_nonzero(quick.log10_e_value == whole.log10_e_value) <= few


@pytest.mark.parametrize("seed", range(8))
def test_a_lone_leaker_of_a_hundred_cells_is_not_lost_in_stages(monkeypatch, seed):
    _, quick, _, _ = staged(monkeypatch, 110, 1, seed)
    assert quick.rounds == ((0,),)


@pytest.mark.parametrize("seed", range(3))
def test_colluders_are_not_lost_in_stages(monkeypatch, seed):
    whole, quick, _, _ = staged(monkeypatch, 700, 2, seed)
    assert whole.rounds == quick.rounds


NAMES = [f"recipient_{number}" for number in range(40)]


@pytest.mark.parametrize("workers", [1, 2])
def test_streamed_words_begin_as_the_whole_ones(monkeypatch, workers):
    monkeypatch.setattr(wordstream, "_WORTH_FORKING", 0)
    monkeypatch.setattr(wordstream, "_BLOCK_ROWS", 7)
    key = MasterKey(bytes(range(32)))
    thresholds = bias(key, 3)
    words = stream_words(key, NAMES, 3, thresholds, workers)
    rows = np.array([5, 1, *range(20, 40)])
    expected = codewords(key, [NAMES[row] for row in rows], 3, thresholds)
    for wanted in (1, 777, CODE_LENGTH // 8):
        got = np.concatenate(list(words(wanted, rows)))
        np.testing.assert_array_equal(got, expected[:, :wanted])


def test_impossible_calls_are_refused():
    leak = draw_leak(10, 2, "interleave", np.random.default_rng(0))
    with pytest.raises(InvalidInput, match="way"):
        decode([], 3, threshold_log10=3)
    with pytest.raises(InvalidInput, match="member"):
        decode([way_of(leak)], 1, threshold_log10=3)
    with pytest.raises(InvalidInput, match="room"):
        position_weights(
            leak.evidence, leak.bias, [Hypothesis(2, "majority", 1.0)], named=leak.bits
        )
