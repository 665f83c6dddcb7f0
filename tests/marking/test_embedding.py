"""What holds for every cell, whatever its kind: tolerance, bounds, thresholds, parity."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.marking.embedding import Column, alternatives
from pgbalise.marking.policy import Carrier, Tolerance, parse_policy


def carrier(**settings: Any) -> Carrier:
    document = {"relation": {"d.r": {"key": {"id": "bigint"}, "carrier": {"c": settings}}}}
    return parse_policy(document).relations[0].carriers[0]


def column(values: list[Any], dtype: Any = np.int64) -> Column:
    array = np.array(values, dtype)
    return Column(array, np.ones(len(array), np.bool_))


VALUES = st.lists(st.integers(-1000, 1000), min_size=1, max_size=50)


@given(
    VALUES,
    st.integers(1, 7),
    st.integers(-800, 0),
    st.integers(20, 800),
    st.lists(st.integers(-900, 900), max_size=3),
    st.lists(st.integers(-900, 900), max_size=3),
    st.booleans(),
)
def test_a_mark_keeps_tolerance_bounds_thresholds_and_skips(
    values: list[int],
    quantum: int,
    low: int,
    high: int,
    thresholds: list[int],
    skip: list[int],
    rising: bool,
) -> None:
    rule = carrier(
        type="integer",
        quantum=quantum,
        bounds=[low, high],
        thresholds=thresholds,
        skip=skip,
    )
    cells = column(values)
    options = alternatives(rule, cells, np.full(len(values), rising))
    for bit in (0, 1):
        out = options.embedded(cells.values, np.full(len(values), bit, np.uint8))
        assert np.all(np.abs(out - cells.values) <= quantum)
        for before, after in zip(values, out.tolist(), strict=True):
            if before == after:
                continue
            assert low <= before <= high
            assert low <= after <= high
            assert before not in skip
            assert after not in skip
            for t in thresholds:
                assert (before < t, before == t) == (after < t, after == t)
    inside = options.markable
    assert np.all((options.moved[inside] // quantum - cells.values[inside] // quantum) % 2 == 1)


def test_the_sign_decides_unless_an_edge_forbids_it() -> None:
    rule = carrier(type="integer", quantum=1, bounds=[0, 10], thresholds=[5])
    values = [0, 3, 4, 5, 6, 10]
    up = alternatives(rule, column(values), np.full(6, True))
    down = alternatives(rule, column(values), np.full(6, False))
    assert up.moved.tolist() == [1, 4, 3, 5, 7, 9]
    assert down.moved.tolist() == [1, 2, 3, 5, 7, 9]
    assert up.markable.tolist() == [True, True, True, False, True, True]


def test_heaped_values_move_on_their_own_grid() -> None:
    rule = carrier(type="integer", quantum=1, grid=5, bounds=[0, 300])
    moved = alternatives(rule, column([120, 121, 300]), np.array([True, True, True])).moved
    assert moved.tolist() == [125, 122, 295]


def test_decimal_floats_keep_their_look_and_others_are_left_alone() -> None:
    rule = carrier(type="double precision", quantum="0.1")
    options = alternatives(rule, column([12.1, 0.3, 12.15, 1 / 3], float), np.full(4, True))
    assert [repr(float(v)) for v in options.moved[:2]] == ["12.2", "0.4"]
    assert options.markable.tolist() == [True, True, False, False]


def test_nan_infinity_and_null_pass_untouched() -> None:
    rule = carrier(type="double precision", quantum="0.1")
    cells = Column(np.array([np.nan, np.inf, -np.inf, 1.0]), np.array([True, True, True, False]))
    options = alternatives(rule, cells, np.full(4, True))
    assert not options.markable.any()
    assert np.array_equal(options.moved, cells.values, equal_nan=True)


def test_neighbours_in_a_group_mean_the_same_and_differ_in_parity() -> None:
    rule = carrier(type="text", equivalents=[["M", "H", "m"], ["F", "W"]])
    cells = column([0, 1, 2, 3, 4, -1])
    for rising in (True, False):
        options = alternatives(rule, cells, np.full(6, rising))
        assert options.markable.tolist() == [True] * 5 + [False]
        assert options.moved[[0, 2, 3, 4]].tolist() == [1, 1, 4, 3]
        assert options.moved[1] == (2 if rising else 0)


def test_signs_average_out() -> None:
    rule = carrier(type="integer", quantum=1, bounds=[0, 1000])
    rng = np.random.default_rng(1)
    values = rng.integers(300, 700, 20_000)
    options = alternatives(rule, column(values.tolist()), rng.random(20_000) < 0.5)
    out = options.embedded(values, rng.integers(0, 2, 20_000).astype(np.uint8))
    assert abs((out - values).mean()) < 4 * np.sqrt(0.5 / 20_000)
    assert abs((out != values).mean() - 0.5) < 0.02


def test_a_quantum_of_many_units_is_exact_where_binary_fractions_are_not() -> None:
    rule = carrier(type="numeric(6,2)", quantum="0.15")
    tolerance = rule.tolerances[None]
    assert isinstance(tolerance, Tolerance)
    assert tolerance.quantum == Decimal("0.15")
    options = alternatives(rule, column([30, 45, 44]), np.full(3, True))
    assert options.parity.tolist() == [0, 1, 0]
    assert options.moved.tolist() == [45, 60, 59]
