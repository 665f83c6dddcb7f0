"""Which traits a file of suspicious records holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.decoys.identity import Role
from pgbalise.errors import InvalidInput
from pgbalise.exchange.records import decode, read_mapping, read_records

PERSON = "person 1985-05-12 dupont marie"
NIR = "nir 2850535238042"


def kinds(text: str, mapping: dict[Role, str] | None = None) -> list[tuple[int, list[str]]]:
    return [
        (record.line, [f"{trait.kind.value} {trait.value}" for trait in record.traits])
        for record in read_records(text, mapping or {})
    ]


def test_a_value_on_each_line_is_known_by_its_form() -> None:
    text = """\
2 85 05 35 238 042 16
06.12.34.56.78

Marie.Dupont@Example.org
10101234567
DUPONT Marie, 12/05/1985
1985-05-12;Marie;Dupont
"Dupont Marie 12.05.1985"
something else
"""
    assert kinds(text) == [
        (1, [NIR]),
        (2, ["phone +33612345678"]),
        (4, ["mail marie.dupont@example.org"]),
        (5, ["rpps 10101234567"]),
        (6, [PERSON]),
        (7, [PERSON]),
        (8, [PERSON]),
        (9, []),
    ]


def test_a_table_is_known_by_its_header() -> None:
    text = """\
Family Name;GIVEN_NAME;birth-date;nir;ward
Dupont;Marie;12/05/1985;285053523804216;"two
lines"
Dupont;Marie;;;
;;31/02/1985;;
Dupont
"""
    assert kinds(text) == [(2, [NIR, PERSON]), (4, []), (5, []), (6, [])]


def test_columns_are_named_by_role() -> None:
    mapping = read_mapping(["nir=NUM_SECU", "record_number=IPP"])
    assert kinds("IPP,NUM_SECU\n80012345,2850535238042\n", mapping) == [(2, [NIR])]
    with pytest.raises(InvalidInput, match="lacks a column"):
        kinds("IPP,OTHER\n1,2\n", mapping)


@pytest.mark.parametrize("option", ["nir", "nir=", "ward=x", "=x", ""])
def test_a_column_of_no_role_is_refused(option: str) -> None:
    with pytest.raises(InvalidInput, match="--column"):
        read_mapping([option])


def test_a_role_has_one_column() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        read_mapping(["nir=a", "nir=b"])


def test_encodings_of_windows_are_read() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        assert decode("Lévêque".encode(encoding)) == "Lévêque"


@given(st.text())
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    refused = ""
    try:
        list(read_records(text, {}))
    except InvalidInput as problem:
        refused = str(problem)
    assert "\n" not in refused


@given(st.binary())
def test_any_bytes_are_text(content: bytes) -> None:
    list(read_records("x\n" + decode(content), {}))
