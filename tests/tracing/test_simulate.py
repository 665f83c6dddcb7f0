"""The statistical promises, in the reference setting: 10,000 recipients, alpha = 1e-9.

Two promises are checked: an innocent's e-value has mean (at most) 1, and few enough cells accuse a
guilty recipient. E-values have a heavy tail: after m cells of a single leaker their second moment
is about 2**m, so the mean of a million of them says something for m up to about ten. There
it is compared with 1 on both sides. For larger leaks what is rare is what carries the mean; there
the number of e-values beyond x is compared with Markov's bound n / x.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pgbalise.errors import InvalidInput
from pgbalise.marking.codes import BIAS_CUTOFF
from pgbalise.tracing.attacks import add_noise, collude, keep_rows, round_to_grid
from pgbalise.tracing.noise import cell_evidence, estimate_noise
from pgbalise.tracing.scoring import THRESHOLD_SCALE, Evidence
from pgbalise.tracing.simulate import (
    WORST_STRATEGIES,
    Leak,
    cells_needed,
    colluder_evidence,
    detection,
    draw_bias,
    draw_codewords,
    draw_leak,
    innocent_e_values,
    log10_e_values,
    worst_cells_needed,
)

BARS = {1: 100, 2: 450, 3: 1200, 5: 3200}
SETTINGS = [(1, "interleave")] + [(c, s) for c in (2, 3, 5) for s in WORST_STRATEGIES]

KINDS = ["single", "collusion", "unreliable", "raw", "shared positions", "damaged"]


def leak_of(kind, cells, rng):
    if kind == "single":
        return draw_leak(cells, 1, "interleave", rng)
    if kind == "collusion":
        return draw_leak(cells, 3, "minority", rng)
    if kind == "unreliable":
        return draw_leak(cells, 2, "interleave", rng, log_odds=1.5)
    if kind == "raw":
        return draw_leak(cells, 0, "interleave", rng)
    if kind == "shared positions":
        return draw_leak(cells, 2, "interleave", rng, length=max(1, cells // 2))
    return damaged_leak(cells, 2, rng)[0]


def damaged_leak(cells, coalition, rng, *, colluders=None):
    """Return a leak of values, half of them rounded, some noisy, weighed by the noise model."""
    leak = draw_leak(cells, coalition, "interleave", rng)
    position = leak.evidence.position
    raw = rng.integers(0, 50_000, 2 * cells)
    selected = np.arange(2 * cells) < cells
    moved = raw + np.where(rng.random(2 * cells) < 0.5, 20, -20)
    odd = (raw // 20) % 2 == 1
    value0 = np.where(selected & odd, moved, raw)
    value1 = np.where(selected & ~odd, moved, raw)
    symbol = np.zeros(2 * cells, bool)
    symbol[:cells] = collude(leak.bits[:, position], "interleave", rng)
    seen = np.where(symbol, value1, value0)
    rounded = keep_rows(2 * cells, 0.5, rng)
    seen[rounded] = round_to_grid(seen[rounded], 100)
    noisy = keep_rows(2 * cells, 0.2, rng)
    seen[noisy] = add_noise(seen[noisy], 8, rng)
    noise = estimate_noise(seen, value0, value1, selected, grids=(10, 100, 1000))
    everywhere = np.concatenate([position, np.zeros(cells, np.int32)])
    evidence = cell_evidence(noise, everywhere, seen, value0, value1, selected)
    return replace(leak, evidence=evidence), symbol


def mean_and_error(log10_values):
    values = 10.0**log10_values
    return values.mean(), values.std() / np.sqrt(values.size)


def small_leaks(kind, cells, leaks, innocents, seed, *, twist=None):
    parts = []
    for index in range(leaks):
        rng = np.random.default_rng([seed, cells, index])
        leak = leak_of(kind, cells, rng)
        truth = leak if twist is None else replace(leak, bias=twist(leak.bias))
        codewords = draw_codewords(truth.bias, innocents, rng)
        parts.append(log10_e_values(leak, codewords))
    return np.concatenate(parts)


def check_exceedances(values):
    for level in (1, 2, 3, 4):
        allowed = values.size / 10.0**level
        assert np.count_nonzero(values >= level) <= allowed + 4 * np.sqrt(allowed)


@pytest.mark.parametrize("kind", KINDS)
def test_innocents_have_mean_one(kind):
    for cells in (1, 3, 6):
        values = small_leaks(kind, cells, leaks=40, innocents=500, seed=KINDS.index(kind))
        mean, error = mean_and_error(values)
        assert mean <= 1 + 4 * error
        if cells < 6:
            assert mean >= 1 - 4 * error
        check_exceedances(values)


def test_that_check_notices_a_bias_that_is_two_percent_off():
    def twist(bias):
        toward_one = bias.astype(np.int64) + THRESHOLD_SCALE // 50
        return np.minimum(toward_one, THRESHOLD_SCALE - 1).astype(np.uint16)

    parts = []
    for index in range(200):
        rng = np.random.default_rng([9, index])
        leak = draw_leak(3, 1, "interleave", rng)
        ones = Evidence(np.arange(3, dtype=np.int32), np.full(3, -np.inf), np.zeros(3))
        framed = replace(leak, evidence=ones)
        parts.append(log10_e_values(framed, draw_codewords(twist(leak.bias), 500, rng)))
    mean, error = mean_and_error(np.concatenate(parts))
    assert mean > 1 + 4 * error


@pytest.mark.parametrize("kind", KINDS)
def test_innocents_of_larger_leaks_stay_below_markov(kind):
    rng = np.random.default_rng(77 + KINDS.index(kind))
    for cells in (40, 1000):
        check_exceedances(innocent_e_values(leak_of(kind, cells, rng), 4000, rng))


@pytest.mark.parametrize(("coalition", "strategy"), SETTINGS)
def test_the_guilty_are_accused_at_the_bar(coalition, strategy):
    trials = 60 if coalition < 5 else 30
    assert detection(BARS[coalition], coalition, strategy, trials=trials, seed=3) >= 0.95


def test_far_too_few_cells_accuse_nobody():
    # 13 decades from 40 cells of about 0.167 decades each are out of reach.
    assert detection(40, 1, "interleave", trials=60, seed=3) == 0
    assert detection(100, 3, "interleave", trials=60, seed=3) < 0.1


def test_evidence_grows_with_the_leak():
    means = [
        colluder_evidence(cells, 2, "interleave", trials=20, seed=5).mean()
        for cells in (100, 300, 900)
    ]
    assert means == sorted(means)
    assert means[2] > 5 * means[0]


def test_cells_needed_is_where_detection_turns():
    needed = cells_needed(1, "interleave", trials=40, seed=2, precision=0.02)
    assert detection(needed, 1, "interleave", trials=40, seed=2) >= 0.95
    assert detection(int(needed * 0.9), 1, "interleave", trials=40, seed=2) < 0.95
    easier = cells_needed(
        1, "interleave", trials=40, seed=2, precision=0.02, recipients=10, alpha=1e-3
    )
    assert easier < 0.5 * needed


def test_the_worst_strategy_is_the_one_that_needs_most():
    settings = {"trials": 8, "seed": 4, "recipients": 10, "alpha": 1e-2, "precision": 0.1}
    strategies = ("all-zero", "interleave")
    each = {s: cells_needed(3, s, **settings) for s in strategies}
    assert each["interleave"] > each["all-zero"]
    assert worst_cells_needed(3, strategies, **settings) == each["interleave"]
    assert worst_cells_needed(3, strategies[::-1], **settings) == each["interleave"]


def test_simulation_depends_on_its_seed_alone():
    first = colluder_evidence(60, 2, "majority", trials=4, seed=1)
    np.testing.assert_array_equal(first, colluder_evidence(60, 2, "majority", trials=4, seed=1))
    assert not np.array_equal(first, colluder_evidence(60, 2, "majority", trials=4, seed=2))


def test_a_damaged_leak_still_names_its_source():
    rng = np.random.default_rng(12)
    leak, _ = damaged_leak(600, 1, rng)
    assert log10_e_values(leak, leak.bits)[0] > 13
    assert innocent_e_values(leak, 2000, rng).max() < 13


def test_raw_rows_accuse_nobody():
    rng = np.random.default_rng(4)
    values = innocent_e_values(draw_leak(3000, 0, "interleave", rng), 3000, rng)
    assert values.max() < 4


def test_bias_follows_the_cut_arcsine_law():
    p = np.sort(draw_bias(100_000, np.random.default_rng(0)) / THRESHOLD_SCALE)
    assert p[0] >= BIAS_CUTOFF - 1e-5
    assert p[-1] <= 1 - BIAS_CUTOFF + 1e-5
    low = np.arcsin(np.sqrt(BIAS_CUTOFF))
    law = (np.arcsin(np.sqrt(p)) - low) / (np.pi / 2 - 2 * low)
    # Kolmogorov-Smirnov at 1e-6.
    assert np.abs(law - np.arange(p.size) / p.size).max() < 2.7 / np.sqrt(p.size)


def test_codewords_follow_the_bias():
    bias = np.array([656, 16384, 32768, 64880], np.uint16)
    share = draw_codewords(bias, 200_000, np.random.default_rng(0)).mean(axis=0)
    np.testing.assert_allclose(share, bias / THRESHOLD_SCALE, atol=0.005)


def test_unreliable_symbols_carry_their_odds():
    leak = draw_leak(20_000, 1, "interleave", np.random.default_rng(0), log_odds=1.0)
    likely = leak.evidence.log_likelihood1 > leak.evidence.log_likelihood0
    wrong = np.mean(likely != leak.bits[0, leak.evidence.position])
    assert wrong == pytest.approx(1 / (1 + np.e), abs=0.015)
    odds = np.abs(leak.evidence.log_likelihood1 - leak.evidence.log_likelihood0)
    np.testing.assert_allclose(odds, 1.0)


def test_a_leak_names_only_its_positions():
    leak = draw_leak(500, 4, "majority", np.random.default_rng(0), length=100)
    assert isinstance(leak, Leak)
    assert leak.bias.size % 8 == 0
    assert leak.bits.shape == (4, leak.bias.size)
    assert int(leak.evidence.position.max()) < 100


@pytest.mark.parametrize("arguments", [{"power": 1.0}, {"precision": 0.0}])
def test_impossible_simulations_are_refused(arguments):
    with pytest.raises(InvalidInput):
        cells_needed(1, "interleave", **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("coalition", sorted(BARS))
def test_cells_needed_for_any_strategy(coalition):
    assert worst_cells_needed(coalition, trials=400, seed=11) <= BARS[coalition]


@pytest.mark.slow
def test_two_million_innocents():
    tested = 0
    for kind in KINDS:
        for cells in (1, 2, 4, 8):
            values = small_leaks(kind, cells, leaks=100, innocents=500, seed=50)
            mean, error = mean_and_error(values)
            assert mean <= 1 + 4 * error
            if cells <= 2:
                assert mean >= 1 - 4 * error
            check_exceedances(values)
            tested += values.size
        for cells in (30, 100, 1000, 3000):
            rng = np.random.default_rng([60, KINDS.index(kind), cells])
            values = np.concatenate(
                [innocent_e_values(leak_of(kind, cells, rng), 10_000, rng) for _ in range(3)]
            )
            check_exceedances(values)
            tested += values.size
    assert tested >= 1_900_000
