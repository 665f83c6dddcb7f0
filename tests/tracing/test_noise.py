from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.errors import InvalidInput
from pgbalise.tracing.attacks import add_noise, keep_rows, round_to_grid
from pgbalise.tracing.noise import (
    CategoricalNoise,
    cell_evidence,
    estimate_categorical_noise,
    estimate_noise,
)

GRIDS = (10, 50, 100, 1000)
DAY = 86_400_000_000


class Column(NamedTuple):
    value0: np.ndarray
    value1: np.ndarray
    selected: np.ndarray
    bit: np.ndarray
    leaked: np.ndarray


def marked_column(cells, *, quantum=10, low=-3000, high=30_000, seed=1, density=0.5):
    rng = np.random.default_rng(seed)
    raw = rng.integers(low, high, cells)
    selected = rng.random(cells) < density
    moved = raw + np.where(rng.random(cells) < 0.5, quantum, -quantum)
    odd = (raw // quantum) % 2 == 1
    value0 = np.where(selected & odd, moved, raw)
    value1 = np.where(selected & ~odd, moved, raw)
    bit = rng.integers(2, size=cells)
    return Column(value0, value1, selected, bit, np.where(bit == 1, value1, value0))


def fit(column, seen, grids=GRIDS, **more):
    return estimate_noise(seen, column.value0, column.value1, column.selected, grids=grids, **more)


def told(column, seen, noise):
    """Return the mean information per cell in bits, and the share of cells that point right."""
    evidence = cell_evidence(
        noise,
        np.arange(seen.size, dtype=np.int32),
        seen,
        column.value0,
        column.value1,
        column.selected,
    )
    sign = np.where(column.bit[evidence.position] == 1, 1, -1)
    odds = sign * (evidence.log_likelihood1 - evidence.log_likelihood0)
    information = 1 - np.logaddexp(0, -odds) / np.log(2)
    marked = np.count_nonzero(column.value0 != column.value1)
    return information.sum() / marked, np.mean(odds > 0)


@pytest.mark.parametrize("cells", [6, 60, 50_000])
def test_untouched_values_tell_everything(cells):
    column = marked_column(cells, seed=cells)
    noise = fit(column, column.leaked)
    information, right = told(column, column.leaked, noise)
    assert right == 1
    assert information > 0.99 - 0.5 / cells
    assert noise.describe()[0][0] == "unchanged"
    assert noise.describe()[0][1] > 1 - 2 / cells - 0.01


@pytest.mark.parametrize("pattern", ["alternating", "blocks", "random"])
def test_half_of_the_rows_rounded(pattern):
    # Alternating rows are what a fixed sampling stride would miss.
    column = marked_column(120_000)
    index = np.arange(120_000)
    rounded = {
        "alternating": index % 2 == 0,
        "blocks": index < 60_000,
        "random": np.random.default_rng(0).random(120_000) < 0.5,
    }[pattern]
    seen = np.where(rounded, round_to_grid(column.leaked, 100), column.leaked)
    noise = fit(column, seen)
    shares = dict(noise.describe())
    assert shares["unchanged"] == pytest.approx(0.5, abs=0.03)
    assert shares["rounded to 100"] == pytest.approx(0.5, abs=0.03)
    information, _ = told(column, seen, noise)
    assert 0.5 < information < 0.65


@pytest.mark.parametrize(
    ("mode", "name"),
    [("half-even", "rounded"), ("floor", "truncated"), ("toward-zero", "truncated")],
)
def test_rounding_mode_is_recognised(mode, name):
    column = marked_column(5000, quantum=7, low=-20_000, high=20_000)
    noise = fit(column, round_to_grid(column.leaked, 50, mode))
    assert noise.describe()[0][0] == f"{name} to 50"
    shares = {
        component.mode: share
        for component, share in zip(noise.components, noise.shares, strict=True)
        if component.kind == "rounding" and component.amount == 50
    }
    assert max(shares, key=shares.__getitem__) == mode
    assert shares[mode] > 0.8


@pytest.mark.parametrize("density", [0.5, 1.0])
def test_a_constant_offset_is_recognised(density):
    column = marked_column(2000, density=density)
    seen = column.leaked + 137
    noise = fit(column, seen)
    information, right = told(column, seen, noise)
    assert noise.describe()[0][0] == "shifted by 137"
    assert right == 1
    assert information > 0.97


@pytest.mark.parametrize("scale", [2, 5, 10, 200])
def test_additive_noise_is_weighed_as_its_true_law_would(scale):
    column = marked_column(40_000)
    seen = add_noise(column.leaked, scale, np.random.default_rng(3))
    noise = fit(column, seen)
    assert noise.describe()[0][0].startswith("noise")
    assert noise.describe()[0][1] > 0.9
    information, _ = told(column, seen, noise)

    marked = column.value0 != column.value1
    squares = [
        (seen[marked] - value[marked]) ** 2 / (2 * scale**2)
        for value in (column.value0, column.value1)
    ]
    odds = np.where(column.bit[marked] == 1, 1, -1) * (squares[0] - squares[1])
    best = np.mean(1 - np.logaddexp(0, -odds) / np.log(2))
    assert best - 0.03 < information < best + 0.02


def test_noise_then_rounding():
    column = marked_column(40_000, quantum=30)
    seen = round_to_grid(add_noise(column.leaked, 20, np.random.default_rng(3)), 10)
    noise = fit(column, seen)
    # Half of the ties go away from zero, so the centre of what was added may be found to be 1.
    rounded = [share for name, share in noise.describe() if name.endswith(", rounded to 10")]
    assert sum(rounded) > 0.9
    assert told(column, seen, noise)[0] > 0.2


def test_replaced_values_tell_nothing():
    column = marked_column(20_000)
    seen = np.random.default_rng(9).permutation(column.leaked)
    noise = fit(column, seen)
    assert noise.describe()[0][0] == "replaced"
    assert noise.describe()[0][1] > 0.9
    assert abs(told(column, seen, noise)[0]) < 0.01


def test_half_replaced_and_half_intact():
    column = marked_column(20_000)
    seen = column.leaked.copy()
    lost = keep_rows(seen.size, 0.5, np.random.default_rng(2))
    seen[lost] = np.random.default_rng(9).permutation(seen)[lost]
    assert told(column, seen, fit(column, seen))[0] > 0.48


def test_timestamps_in_microseconds():
    start = 1_600_000_000_000_000
    column = marked_column(30_000, quantum=400_000, low=start, high=start + 900 * DAY)
    grids = (1000, 1_000_000, 60_000_000, 3_600_000_000, DAY)
    milliseconds = round_to_grid(column.leaked, 1000, "floor")
    assert told(column, milliseconds, fit(column, milliseconds, grids))[0] > 0.98
    days = round_to_grid(column.leaked, DAY, "floor")
    assert fit(column, days, grids).describe()[0][0] == f"truncated to {DAY}"


def test_a_named_transformation():
    column = marked_column(3000, low=0)
    seen = (column.leaked // 700) * 700 + 350
    noise = fit(column, seen, transformations=[("classes of 700", lambda v: v // 700 * 700 + 350)])
    assert noise.describe()[0] == ("classes of 700", pytest.approx(1, abs=0.01))


def test_amounts_are_written_by_the_caller():
    column = marked_column(3000)
    noise = fit(column, round_to_grid(column.leaked, 100))
    assert noise.describe(lambda amount: f"{amount / 100:.2f} kg")[0][0] == "rounded to 1.00 kg"


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32), st.floats(0.3, 100))
def test_every_component_is_a_probability(cells, seed, scale):
    rng = np.random.default_rng(seed)
    column = marked_column(cells, seed=seed, low=0, high=500)
    seen = add_noise(column.leaked, scale, rng)
    noise = fit(column, seen, (5, 20))
    assert sum(noise.shares) == pytest.approx(1)
    assert min(noise.shares) >= 0
    wide = np.arange(-25_000, 25_000)
    for value in (0, 137):
        for component in noise.components:
            if component.kind != "background":
                mass = component.probability(wide, np.full_like(wide, value), noise.span).sum()
                assert mass == pytest.approx(1, abs=1e-6)
    far = np.array([2**61, -(2**61), 0])
    assert bool(np.all(np.isfinite(noise.log_likelihood(far, -far))))


def test_the_fit_is_deterministic_and_blind_to_bits():
    column = marked_column(1000)
    seen = add_noise(column.leaked, 4, np.random.default_rng(0))
    swapped = estimate_noise(seen, column.value1, column.value0, column.selected, grids=GRIDS)
    assert fit(column, seen) == fit(column, seen)
    np.testing.assert_allclose(swapped.shares, fit(column, seen).shares, atol=0.02)


def test_no_cells_mean_untouched():
    empty = np.empty(0, np.int64)
    noise = estimate_noise(empty, empty, empty, np.empty(0, np.bool_), grids=(10,))
    assert noise.describe()[0][0] == "unchanged"
    assert len(cell_evidence(noise, np.empty(0, np.int32), empty, empty, empty, empty > 0)) == 0


def test_cells_that_tell_nothing_are_dropped():
    # 90 and 110 both round to 100; 140 and 160 do not round alike.
    noise = fit(marked_column(0), np.empty(0, np.int64))
    value0, value1 = np.array([90, 140, 90, 140]), np.array([110, 160, 90, 160])
    seen = np.array([50_000, 140, 90, 160])
    evidence = cell_evidence(
        noise,
        np.array([4, 5, 6, 7], np.int32),
        seen,
        value0,
        value1,
        np.array([True, True, False, False]),
    )
    assert evidence.position.tolist() == [5]
    assert evidence.log_likelihood0[0] > evidence.log_likelihood1[0]


@pytest.mark.parametrize("error", [0.0, 0.1, 0.6])
def test_categories(error):
    rng = np.random.default_rng(4)
    cells, categories = 20_000, 6
    value0 = rng.integers(categories, size=cells)
    selected = rng.random(cells) < 0.4
    value1 = np.where(selected, (value0 + 1) % categories, value0)
    bit = rng.integers(2, size=cells)
    seen = np.where(bit == 1, value1, value0)
    lost = rng.random(cells) < error
    seen = np.where(lost, rng.integers(categories, size=cells), seen)
    noise = estimate_categorical_noise(seen, value0, value1, selected)
    assert noise.categories == categories
    assert noise.unchanged == pytest.approx(1 - error, abs=0.02)
    column = Column(value0, value1, selected, bit, seen)
    informative, right = told(column, seen, noise)
    assert informative > (1 - error) ** 2 * 0.7
    assert right > 0.75
    total = np.exp(noise.log_likelihood(np.arange(categories), np.zeros(categories, int))).sum()
    assert total == pytest.approx(1)


def test_categorical_summary():
    assert CategoricalNoise(0.25, 4).describe() == [("replaced", 0.75), ("unchanged", 0.25)]


def test_impossible_columns_are_refused():
    column = marked_column(4)
    arguments = (column.leaked, column.value0, column.value1, column.selected)
    with pytest.raises(InvalidInput, match="length"):
        estimate_noise(column.leaked[:2], *arguments[1:])
    with pytest.raises(InvalidInput, match="int64"):
        estimate_noise(column.leaked.astype(float), *arguments[1:])
    with pytest.raises(InvalidInput, match="boolean"):
        estimate_noise(*arguments[:3], column.selected.astype(np.int64))
    with pytest.raises(InvalidInput, match="large"):
        estimate_noise(column.leaked + 2**62, *arguments[1:])
    with pytest.raises(InvalidInput, match="grid"):
        estimate_noise(*arguments, grids=(0,))
    with pytest.raises(InvalidInput, match="categories"):
        estimate_categorical_noise(*arguments, categories=1)
    with pytest.raises(InvalidInput, match="positions"):
        cell_evidence(CategoricalNoise(0.5, 3), np.zeros(2, np.int32), *arguments)


def test_a_column_left_alone_is_not_said_to_be_rounded_to_grids_it_lies_on() -> None:
    column = marked_column(2000, quantum=100)
    whole = Column(*(part // 100 * 100 for part in column[:2]), *column[2:])
    seen = np.where(whole.bit == 1, whole.value1, whole.value0)
    [(what, share)] = fit(whole, seen).describe()
    assert what == "unchanged"
    assert share > 0.99


def test_values_taken_from_other_rows_are_weighed_by_how_frequent_they_are() -> None:
    rng = np.random.default_rng(8)
    # nearly all values are one of a few, as ages or scores are
    column = marked_column(20_000, quantum=1, low=0, high=12)
    seen = np.where(rng.random(20_000) < 0.4, rng.permutation(column.leaked), column.leaked)
    noise = fit(column, seen, ())
    information, _ = told(column, seen, noise)
    shares = dict(noise.describe())
    assert shares["replaced"] == pytest.approx(0.4, abs=0.05)
    assert 0.25 < information < 0.55


def test_rounding_in_another_unit_leaves_most_of_the_evidence() -> None:
    column = marked_column(20_000, quantum=100)
    pounds = np.rint(column.leaked * 2.2046 / 100)
    seen = np.rint(pounds * 100 / 2.2046).astype(np.int64)
    noise = fit(column, seen, ())
    assert noise.describe()[0][0] == "noise"
    assert told(column, seen, noise)[0] > 0.97


def test_a_stratum_has_shares_of_its_own() -> None:
    column = marked_column(20_000)
    rng = np.random.default_rng(7)
    stratum = rng.integers(2, size=20_000).astype(np.int8)
    seen = np.where(stratum == 1, rng.permutation(column.leaked), column.leaked)
    noise = fit(column, seen, stratum=stratum)
    (_, good), (_, bad) = noise.strata
    assert good[0] > 0.99
    assert bad[0] < 0.02
    gone = noise.replaced(seen, column.leaked, stratum)
    assert gone[stratum == 0].mean() < 0.01
    assert gone[stratum == 1].mean() > 0.9


def test_rows_probably_misaligned_do_not_count_in_the_fit() -> None:
    column = marked_column(20_000)
    rng = np.random.default_rng(7)
    wrong = rng.random(20_000) < 0.5
    seen = np.where(wrong, rng.permutation(column.leaked), column.leaked)
    noise = fit(column, seen, probability=np.where(wrong, 0.01, 1.0))
    assert dict(noise.describe())["unchanged"] > 0.97


def test_probabilities_and_strata_must_fit_the_cells() -> None:
    column = marked_column(10)
    with pytest.raises(InvalidInput, match="probability"):
        fit(column, column.leaked, probability=np.full(10, 1.5))
    with pytest.raises(InvalidInput, match="stratum"):
        fit(column, column.leaked, stratum=np.zeros(3, np.int8))
