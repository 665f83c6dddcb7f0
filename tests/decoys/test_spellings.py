"""The usual ways to write what a decoy is recognised by."""

from __future__ import annotations

from datetime import UTC, date, datetime
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum.fr import nir as stdnum_nir

from pgbalise.decoys.identity import Identity, Mode, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.spellings import birth_dates, nir_key, spellings
from pgbalise.decoys.traits import (
    TraitKind,
    mail_trait,
    nir_trait,
    person_trait,
    phone_trait,
    record_trait,
    rpps_trait,
)


def decoy(identity: Identity) -> IssuedDecoy:
    issued = datetime(2026, 1, 1, tzinfo=UTC)
    return IssuedDecoy(1, "clinic", 1, Mode.SAFE, identity, {}, {}, issued)


def texts(identity: Identity, kind: TraitKind) -> list[str]:
    return [found.text for found in spellings(decoy(identity)) if found.kind is kind]


MARIE = {
    Role.FAMILY_NAME: "Lefèvre",
    Role.GIVEN_NAME: "Marie-Noëlle",
    Role.BIRTH_DATE: "1985-05-01",
}

nirs = st.from_regex(
    r"[12][0-9]{2}(0[1-9]|1[0-2])([0-8][0-9]|2[AB])[0-9]{6}", fullmatch=True
).filter(str.isascii)


@given(nirs)
def test_a_nir_is_spelled_with_its_true_key(nir: str) -> None:
    assert nir_key(nir) == stdnum_nir.calc_check_digits(nir)
    assert nir + stdnum_nir.calc_check_digits(nir) in texts({Role.NIR_13: nir}, TraitKind.NIR)


@given(nirs, st.from_regex(r"0[1-9][0-9]{8}", fullmatch=True).filter(str.isascii))
def test_every_spelling_of_a_number_means_the_same_number(nir: str, phone: str) -> None:
    for text in texts({Role.NIR_13: nir}, TraitKind.NIR):
        assert nir_trait(text) == nir_trait(nir)
    for text in texts({Role.PHONE: phone}, TraitKind.PHONE):
        written = f"+{text}" if text.startswith("33") else text
        assert phone_trait(written.replace("+33(0)", "+33").replace("(0)", "")) == phone_trait(
            phone
        )


def test_mail_record_and_professional_numbers_mean_the_same() -> None:
    identity = {
        Role.MAIL: "Marie.Lefevre@Example.org",
        Role.RECORD_NUMBER: "IPP-00123",
        Role.RPPS: "10101234567",
    }
    for text in texts(identity, TraitKind.MAIL):
        assert mail_trait(unquote(text)) == mail_trait(identity[Role.MAIL])
    assert texts(identity, TraitKind.RECORD) == ["IPP-00123", "IPP00123"]
    for text in texts(identity, TraitKind.RECORD):
        assert record_trait(text) == record_trait("IPP-00123")
    assert [rpps_trait(text[-11:]) for text in texts(identity, TraitKind.RPPS)] == [
        rpps_trait("10101234567")
    ] * 2


@pytest.mark.parametrize(
    "text",
    [
        "Lefèvre Marie-Noëlle",
        "LEFÈVRE, MARIE-NOËLLE",
        "Marie-Noelle Lefevre",
        "lefevre;marie noelle",
        'Marie-Noëlle","Lefèvre',
    ],
)
def test_names_are_spelled_in_both_orders_with_and_without_accents(text: str) -> None:
    assert text in texts(MARIE, TraitKind.PERSON)


def test_every_spelling_of_a_person_means_the_same_person() -> None:
    for text in texts(MARIE, TraitKind.PERSON):
        assert person_trait(text, "1985-05-01") == decoy(MARIE).traits[0]


def test_ascii_case_alone_makes_no_second_spelling() -> None:
    found = [
        text.lower() for text in texts({**MARIE, Role.FAMILY_NAME: "Durand"}, TraitKind.PERSON)
    ]
    plain = [text for text in found if text.isascii()]
    assert len(plain) == len(set(plain))


def test_a_full_name_in_one_column_is_spelled_in_both_orders() -> None:
    found = texts({Role.FULL_NAME: "DUPONT Marie", Role.BIRTH_DATE: "1985-05-01"}, TraitKind.PERSON)
    assert {"DUPONT Marie", "Marie, DUPONT"} <= set(found)


def test_names_without_a_second_name_are_not_spelled() -> None:
    assert spellings(decoy({Role.FAMILY_NAME: "Dupont", Role.BIRTH_DATE: "1985-05-01"})) == ()


@given(st.dates(date(1900, 1, 1), date(2030, 1, 1)))
def test_numeric_birth_dates_are_written_as_calendars_print_them(born: date) -> None:
    found = birth_dates(decoy({Role.BIRTH_DATE: born.isoformat()}))
    assert {born.strftime(form) for form in ("%Y-%m-%d", "%d/%m/%Y", "%Y%m%d", "%d.%m.%Y")} <= set(
        found
    )


def test_months_are_named_in_french_and_english() -> None:
    found = birth_dates(decoy({Role.BIRTH_DATE: "1985-08-01"}))
    assert {"1er août 1985", "1 AOÛT 1985", "1 aout 1985", "1 August 1985"} <= set(found)


def test_an_identity_without_a_birth_date_has_no_spelling_of_it() -> None:
    assert birth_dates(decoy({})) == ()
