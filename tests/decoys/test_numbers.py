"""Telephones, RPPS and FINESS: against Arcep's blocks, Luhn by hand and the forms of the column."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.decoys.identity import Mode
from pgbalise.decoys.numbers import (
    draw_finess,
    draw_rpps,
    for_fiction,
    learn_departments,
    learn_phones,
    learn_written,
)
from pgbalise.decoys.stream import Stream
from pgbalise.decoys.traits import phone_trait

_SEEDS = st.binary(min_size=32, max_size=32)

# Arcep, decision 2018-0881 as amended, annex 1, section 2.5.12.
_AUDIOVISUAL = re.compile(r"\+33(19900|26191|35301|46571|53649|63998)[0-9]{4}")


def luhn_holds(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


_FORMS = {
    "0612345678": r"0[0-9]{9}",
    "06 12 34 56 78": r"0[0-9]( [0-9]{2}){4}",
    "06.12.34.56.78": r"0[0-9](\.[0-9]{2}){4}",
    "+33612345678": r"\+33[0-9]{9}",
    "+33 6 12 34 56 78": r"\+33 [0-9]( [0-9]{2}){4}",
    "+33 (0)6 12 34 56 78": r"\+33 \(0\)[0-9]( [0-9]{2}){4}",
    "0033612345678": r"0033[0-9]{9}",
    "06-12-34-56-78": r"0[0-9](-[0-9]{2}){4}",
}


@given(_SEEDS, st.sampled_from(sorted(_FORMS)), st.booleans())
def test_a_telephone_can_never_ring_and_looks_like_the_columns(
    seed: bytes, form: str, mobile: bool
) -> None:
    look = learn_phones([form] * 3, mobile=mobile)
    text = look.draw(Stream(seed, "phone"))
    assert re.fullmatch(_FORMS[form], text)
    trait = phone_trait(text)
    assert trait is not None
    assert _AUDIOVISUAL.fullmatch(trait.value)
    assert for_fiction(text)
    assert not for_fiction(form)


@given(_SEEDS, st.booleans())
def test_without_a_column_telephones_are_nobodys_too(seed: bytes, mobile: bool) -> None:
    trait = phone_trait(learn_phones([], mobile=mobile).draw(Stream(seed, "phone")))
    assert trait is not None
    assert _AUDIOVISUAL.fullmatch(trait.value)
    assert (trait.value[3] == "6") is mobile


def test_zones_are_those_of_the_column() -> None:
    look = learn_phones(["05 61 00 00 00"] * 90 + ["07 61 00 00 00"] * 10, mobile=False)
    drawn = [look.draw(Stream(i.to_bytes(2, "big"), "phone")) for i in range(300)]
    starts = {text[:8] for text in drawn}
    assert starts == {"05 36 49", "06 39 98"}
    assert 240 < sum(text.startswith("05") for text in drawn) < 295
    assert look.space == pytest.approx(10_000 / 0.9)


@pytest.mark.parametrize("texts", [["call the ward"], ["+49 30 1234567"], ["15"], [""]])
def test_what_is_no_french_number_teaches_nothing(texts: list[str]) -> None:
    assert learn_phones(texts, mobile=True) == learn_phones([], mobile=True)


@given(_SEEDS, st.sampled_from(Mode))
def test_a_professional_number_passes_luhn_and_is_nobodys(seed: bytes, mode: Mode) -> None:
    number = draw_rpps(Stream(seed, "rpps"), mode)
    assert re.fullmatch(r"[0-9]{11}", number)
    assert luhn_holds(number)
    # Attributed numbers begin with 10, those of test cards with 997.
    assert number.startswith("997" if mode is Mode.SAFE else "105")


@given(_SEEDS, st.sampled_from(Mode))
def test_an_establishment_number_passes_luhn_and_is_of_no_establishment(
    seed: bytes, mode: Mode
) -> None:
    departments = learn_departments(["310000001"] * 9 + ["2A0000001"] * 9 + ["090000001"] * 2)
    number = draw_finess(Stream(seed, "finess"), departments, mode)
    assert re.fullmatch(r"31[0-9]{7}", number)
    assert luhn_holds(number)
    assert number[2] == ("9" if mode is Mode.SAFE else "0")


def test_groups_are_those_of_the_column() -> None:
    written = learn_written(["1 85 05 31 555 123 45"] * 4 + ["?"], 15)
    assert written.write(Stream(b"", "x"), "285053155500012") == "2 85 05 31 555 000 12"
    assert learn_written([], 11).write(Stream(b"", "x"), "99700245667") == "99700245667"
