"""NIR of nobody: checked against the rules of the number, not against what draws it."""

import re
from collections import Counter
from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stdnum.fr import nir as stdnum_nir

from pgbalise.decoys.identity import Mode
from pgbalise.decoys.nir import (
    Places,
    draw_order,
    learn_places,
    nir_13,
    nir_key,
    nobody_can_hold,
    usual_places,
)
from pgbalise.decoys.stream import Stream

_BORN = st.dates(date(1905, 1, 1), date(2026, 12, 31))
_SEEDS = st.binary(min_size=32, max_size=32)


def key_by_hand(number: str) -> int:
    """INSEE: 2A is computed as 19, 2B as 18; the key is 97 less the remainder by 97."""
    return 97 - int(number.replace("2A", "19").replace("2B", "18")) % 97


@given(_SEEDS, st.sampled_from("FM"), _BORN, st.sampled_from(Mode))
@example(bytes(32), "F", date(1900, 1, 1), Mode.SAFE)
def test_a_number_says_sex_year_month_and_place(
    seed: bytes, sex: str, born: date, mode: Mode
) -> None:
    stream = Stream(seed, "test")
    place = Places().draw(stream, born)
    number = nir_13(sex, born, place, draw_order(stream, mode))
    assert len(number) == 13
    assert number[0] == {"M": "1", "F": "2"}[sex]
    assert int(number[1:3]) == born.year % 100
    assert int(number[3:5]) == born.month
    assert number[5:10] == place
    whole = number + nir_key(number)
    assert int(whole[13:]) == key_by_hand(number)
    assert stdnum_nir.is_valid(whole)


@given(_SEEDS)
def test_the_last_three_digits_are_nobodys_or_those_of_big_towns(seed: bytes) -> None:
    assert draw_order(Stream(seed, "test"), Mode.SAFE) == 0
    # 001 to 999 number births; fewer than 500 in a month is what all but a few towns have.
    assert 500 <= draw_order(Stream(seed, "test"), Mode.BELIEVABLE) <= 999


@pytest.mark.parametrize(
    ("number", "nobodys"),
    [("2850575116000", True), ("285057511600055", True), ("2850575116001", False)],
)
def test_order_000_is_what_nobody_can_hold(number: str, nobodys: bool) -> None:
    assert nobody_can_hold(number) is nobodys


@pytest.mark.parametrize("number", ["2530721104004", "253072A073004", "253072B073004"])
def test_corsica_has_the_key_that_insee_computes(number: str) -> None:
    assert int(nir_key(number)) == key_by_hand(number)
    assert stdnum_nir.is_valid(number + nir_key(number))


def test_usual_places_are_municipalities_of_departments() -> None:
    places = usual_places()
    assert len(places) == len(set(places)) == 75 * 250
    assert all(re.fullmatch(r"[0-9]{5}", place) for place in places)
    assert {"01001", "31250", "59250", "89001"} <= set(places)
    # Paris numbers its boroughs from 101, Corsica is 2A and 2B, Belfort has 106 codes.
    assert not {place[:2] for place in places} & {"75", "20", "90", "92", "93", "94", "00"}
    assert not any(place.endswith("000") for place in places)


def test_frequent_places_are_followed_and_rare_ones_are_not_told() -> None:
    texts = ["31555"] * 60 + ["99352"] * 20 + ["09122"] * 4 + [""] * 10 + ["Toulouse"] * 50
    places = learn_places(texts)
    drawn = Counter(
        places.draw(Stream(bytes([i % 256, i // 256]), "x"), date(1980, 1, 1)) for i in range(4000)
    )
    assert 0.66 < drawn["31555"] / 4000 < 0.76
    assert 0.20 < drawn["99352"] / 4000 < 0.28
    assert drawn["09122"] <= 3
    assert drawn.most_common(1)[0][1] / 4000 <= 1.1 / places.space(date(1980, 1, 1))


def test_places_are_read_from_nir_too() -> None:
    numbers = ["2 85 05 31 555 123 45", "285053155512345", "2850531555123"] * 5
    places = learn_places(numbers)
    assert places.frequent is not None
    assert places.frequent.values == ("31555",)
    assert places.elsewhere == 0


@pytest.mark.parametrize(
    ("place", "year", "possible"),
    [
        ("2A004", 1975, False),
        ("2A004", 1976, True),
        ("20004", 1975, True),
        ("20004", 1976, False),
        ("93008", 1967, False),
        ("93008", 1968, True),
    ],
)
def test_a_department_is_called_as_it_was_at_birth(place: str, year: int, possible: bool) -> None:
    places = learn_places([place] * 10)
    drawn = {places.draw(Stream(bytes([i]), "x"), date(year, 6, 1)) for i in range(50)}
    assert (place in drawn) is possible
    assert possible or drawn <= set(usual_places())
