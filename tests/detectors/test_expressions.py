from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgbalise.decoys.identity import Role
from pgbalise.decoys.traits import TraitKind
from pgbalise.detectors.expressions import (
    alone,
    on_bytes,
    on_text,
    on_utf8,
    person_expressions,
)
from pgbalise.detectors.patterns import select
from tests.detectors.leaking import ALMOST, SPELLED, decoy, namesakes, real_rows, written

TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1)


@given(TEXTS)
@example("9")
@example("x")
def test_a_text_is_found_as_it_is_and_nothing_else(text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    for expression, content in (
        (alone(on_utf8([text])).encode("ascii"), text.encode()),
        (alone(on_bytes([text])).encode("ascii"), composed.encode("utf-16-le")),
    ):
        assert re.search(expression, b"; " + content + b" ;", re.I)
        # what follows must not be the text itself
        follows = b"8" if text == "9" else b"9"
        assert not re.search(expression, b"x" + content + follows, re.I)
    assert re.search(alone(on_text([text])), f"; {composed} ;", re.I)


@given(TEXTS)
def test_no_sign_stands_for_itself_in_an_expression(text: str) -> None:
    assert re.fullmatch(r"(?:[0-9A-Za-z]|\\x[0-9a-f]{2}|\(\?:|\||\)\??)+", on_bytes([text]))


@pytest.mark.parametrize("name", ["csv", "json", "insert", "swapped", "date first"])
def test_names_and_a_birth_date_are_found_near_each_other(name: str) -> None:
    person = select([decoy()], set(TraitKind)).targets[0].person
    assert person is not None
    for spelled, text in (
        (on_bytes, SPELLED[name].encode("cp1252").decode("latin-1")),
        (on_text, SPELLED[name]),
    ):
        assert any(re.search(e, text, re.I | re.S) for e in person_expressions(person, spelled))


def test_a_namesake_is_not_the_decoy() -> None:
    rows = real_rows()
    for other in namesakes():
        person = select([other], set(TraitKind)).targets[0].person
        assert person is not None
        expressions = [
            re.compile(alone(e), re.I | re.S) for e in person_expressions(person, on_text)
        ]
        assert not any(e.search(rows) for e in expressions)
        assert any(e.search(written(dict(other.identity))) for e in expressions)


def test_who_only_resembles_the_decoy_is_not_found() -> None:
    target = select([decoy()], set(TraitKind)).targets[0]
    assert target.person is not None
    ways = [on_text(s.text for s in target.texts), *person_expressions(target.person, on_text)]
    for text in ALMOST.values():
        assert not any(re.search(alone(way), text, re.I | re.S) for way in ways)


def test_a_full_name_in_one_column_is_enough() -> None:
    whole = decoy({Role.FULL_NAME: "LE GOFF Anne-Laure", Role.BIRTH_DATE: "1950-01-02"})
    person = select([whole], set(TraitKind)).targets[0].person
    assert person is not None
    ways = list(person_expressions(person, on_text))
    for text in ("LE GOFF;ANNE LAURE;02/01/1950", "Anne-Laure Le Goff, 2 janvier 1950"):
        assert any(re.search(way, text, re.I | re.S) for way in ways), text


@given(st.lists(TEXTS, min_size=1, max_size=12))
def test_any_of_several_texts_is_found_whole(texts: list[str]) -> None:
    expression = re.compile(on_utf8(texts).encode("ascii"), re.I)
    for text in texts:
        assert expression.fullmatch(text.encode())
