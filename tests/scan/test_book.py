"""Where decoys are in a text: what is one, and what only looks like one."""

from __future__ import annotations

import pytest

from pgbalise.decoys.identity import Mode, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.spellings import NAME_SEPARATORS, birth_dates, person_names, spellings
from pgbalise.decoys.traits import TraitKind
from pgbalise.scan.book import Book
from tests.scan.writing import make_decoys

MARIE = IssuedDecoy(
    1,
    "clinic",
    1,
    Mode.SAFE,
    {
        Role.NIR_13: "2850599123456",
        Role.FAMILY_NAME: "Lefèvre",
        Role.GIVEN_NAME: "Marie-Noëlle",
        Role.BIRTH_DATE: "1985-05-12",
        Role.MOBILE: "0639981234",
        Role.MAIL: "marie@example.org",
        Role.RECORD_NUMBER: "IPP-00123456",
        Role.RPPS: "10101234567",
    },
    {},
    {},
    make_decoys(1)[0].issued_at,
)
BOOK = Book([MARIE])


def kinds(text: str | bytes, *, possible: bool = False) -> list[tuple[str, bool]]:
    raw = text if isinstance(text, bytes) else text.encode()
    return [(s.kind.value, s.certain) for s in BOOK.find(raw, possible=possible)]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16", "utf-16-be"])
def test_every_spelling_is_found_in_every_encoding(encoding: str) -> None:
    born = birth_dates(MARIE)[0]
    for spelling in spellings(MARIE):
        beside = f" {born}" if spelling.kind is TraitKind.PERSON else ""
        text = f"x; <{spelling.text}>{beside}\n"
        assert (spelling.kind.value, True) in kinds(text.encode(encoding)), text


@pytest.mark.parametrize("separator", NAME_SEPARATORS)
def test_names_count_with_any_spelling_of_the_birth_date_on_either_side(separator: str) -> None:
    for one, other in person_names(MARIE):
        for born in birth_dates(MARIE):
            names = f"{one}{separator}{other}"
            assert kinds(f"{born}; {names};") == [("person", True)]
            assert kinds(f"{names}; {born}") == [("person", True)]


@pytest.mark.parametrize(
    "text",
    [
        "12850599123456",
        "28505991234567",
        "2850599123456A",
        "0.2850599123456",
        "2850599123456.75",
        "285059,9123456",
        "2850599\n123456",
        "285059912345600",
        "00639981234",
        "4433639981234",
        "anne-marie@example.org",
        "marie@example.organic",
        "marie@example.org.fr",
        "marie example org",
        "XIPP-00123456",
        "IPP-001234567",
        "110101234567",
    ],
)
def test_what_only_holds_a_number_is_none(text: str) -> None:
    assert kinds(f"a;{text};b") == []


@pytest.mark.parametrize(
    "text",
    ["285059912345672", "8 10101234567", "810101234567", "+330639981234", "0033639981234"],
)
def test_a_key_a_prefix_and_a_country_belong_to_the_number(text: str) -> None:
    nir = text.startswith("2")
    written = next(s.text for s in spellings(MARIE) if len(s.text) == 15) if nir else text
    assert len(kinds(f"a;{written};b")) == 1


def test_names_alone_are_only_possible() -> None:
    assert kinds("Lefèvre Marie-Noëlle") == []
    assert kinds("Lefèvre Marie-Noëlle", possible=True) == [("person", False)]


@pytest.mark.parametrize(
    "text",
    [
        "Lefèvre Marie-Noëlle;1985-05-13",
        "Lefèvre Marie-Noëlle;11985-05-12",
        "Lefèvre Marie-Noëlle; seen 1985-05-12 10:31",
        "Lefèvre Marie-Noëlle;1950-01-01\nDurand Luc;1985-05-12",
        "Lefèvre Marie-Noëlle\n" + "x" * 300 + "\n1985-05-12",
        "Lefèvre Marie-Noëllette;1985-05-12",
    ],
)
def test_another_date_time_row_or_name_is_somebody_else(text: str) -> None:
    assert kinds(text) == []


def test_a_birth_date_on_another_line_counts_when_the_line_has_none() -> None:
    assert kinds("name: Lefèvre Marie-Noëlle\nsex: F\nborn: 12.05.1985\n") == [("person", True)]


def test_two_names_of_few_letters_are_found_beside_their_birth_date() -> None:
    identity = {Role.FAMILY_NAME: "Li", Role.GIVEN_NAME: "An", Role.BIRTH_DATE: "1985-05-12"}
    short = IssuedDecoy(2, "clinic", 2, Mode.SAFE, identity, {}, {}, MARIE.issued_at)
    book = Book([short])
    assert [s.certain for s in book.find(b"x;LI;An;12/05/1985;F")] == [True]
    assert book.find(b"Berlin an 12/05/1985;Li;;F") == []


def test_a_short_record_number_of_digits_alone_is_only_possible() -> None:
    short = IssuedDecoy(
        2, "clinic", 2, Mode.SAFE, {Role.RECORD_NUMBER: "123456"}, {}, {}, MARIE.issued_at
    )
    assert Book([short]).find(b"ipp 123456;") == []
    assert [s.certain for s in Book([short]).find(b"ipp 123456;", possible=True)] == [False]


def test_what_is_found_is_where_it_says() -> None:
    text = "é\nx 2 85 05 99 123 456;\ntél 06.39.98.12.34".encode()
    found = {s.kind.value: text[s.start : s.end] for s in BOOK.find(text)}
    assert found == {"nir": b"2 85 05 99 123 456", "phone": b"06.39.98.12.34"}
