"""Which traits a file of suspicious records holds: CSV by its header, or a value on each line."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Final

from pgbalise.decoys.identity import Role
from pgbalise.decoys.traits import (
    Trait,
    mail_trait,
    nir_trait,
    person_trait,
    phone_trait,
    rpps_trait,
    traits,
)
from pgbalise.errors import InvalidInput
from pgbalise.exchange.protocol import EXCHANGED

_ISO: Final = re.compile(r"(?<!\d)(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)")
_FRENCH: Final = re.compile(r"(?<!\d)(\d{1,2})[-/. ](\d{1,2})[-/. ](\d{4})(?!\d)")
_WORD: Final = re.compile(r"[^0-9a-z]+")


@dataclass(frozen=True)
class Record:
    """A line of a file (from 1) and the traits on it that can be asked for, maybe none."""

    line: int
    traits: tuple[Trait, ...]


def decode(content: bytes) -> str:
    """Return a file's text: UTF-8, UTF-16 with its mark, else Windows-1252."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def read_mapping(options: list[str]) -> dict[Role, str]:
    """Read ROLE=COLUMN options; raise InvalidInput for a role that is none, or named twice."""
    found: dict[Role, str] = {}
    for option in options:
        role, equals, column = option.partition("=")
        if not equals or not column or role not in {known.value for known in Role}:
            raise InvalidInput("--column: must be ROLE=COLUMN", hint="such as nir=NUM_SECU")
        if Role(role) in found:
            raise InvalidInput(f"--column: {role} is named twice")
        found[Role(role)] = column
    return found


def read_records(text: str, mapping: Mapping[Role, str]) -> Iterator[Record]:
    """Yield the records of a text.

    It is CSV (``,`` ``;`` ``|`` or tabulators) when ``mapping`` names columns, or when a column of
    its first line is called like a role (case and punctuation make no difference); else each line
    is one value: a NIR, a telephone number, a mail address, an RPPS number, or names with a birth
    date. Raise InvalidInput when a column that ``mapping`` names is not there, or CSV is broken.
    """
    lines = text.splitlines()
    delimiter = _delimiter(lines[0]) if lines else ","
    header = next(csv.reader(lines[:1], delimiter=delimiter), [])
    places = _places(header, mapping)
    if places:
        yield from _table(lines, delimiter, places)
        return
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield Record(number, _of_line(line))


def _places(header: list[str], mapping: Mapping[Role, str]) -> dict[Role, int]:
    if mapping:
        for column in mapping.values():
            if column not in header:
                raise InvalidInput("the first line lacks a column that --column names")
        return {role: header.index(column) for role, column in mapping.items()}
    names = [_WORD.sub("_", name.strip().casefold()) for name in header]
    return {role: names.index(role.value) for role in Role if role.value in names}


def _delimiter(line: str) -> str:
    return max(",;\t|", key=line.count)


def _table(lines: list[str], delimiter: str, places: Mapping[Role, int]) -> Iterator[Record]:
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter)
    try:
        next(reader)
        begun = reader.line_num
        for row in reader:
            identity = {
                role: row[place].strip() for role, place in places.items() if place < len(row)
            }
            identity = {role: value for role, value in identity.items() if value}
            if Role.BIRTH_DATE in identity:
                born, _ = _dated(identity[Role.BIRTH_DATE])
                identity[Role.BIRTH_DATE] = born or ""
            if row:
                yield Record(begun + 1, _exchanged(traits(identity)))
            begun = reader.line_num
    except csv.Error:
        raise InvalidInput(f"line {reader.line_num}: this is not CSV") from None


def _of_line(line: str) -> tuple[Trait, ...]:
    value = line.strip().strip('"')
    born, rest = _dated(value)
    found = [make(value) for make in (nir_trait, phone_trait, mail_trait, rpps_trait)]
    if born is not None:
        found.append(person_trait(rest, born))
    return _exchanged(tuple(trait for trait in found if trait is not None))


def _exchanged(found: tuple[Trait, ...]) -> tuple[Trait, ...]:
    return tuple(trait for trait in found if trait.kind in EXCHANGED)


def _dated(text: str) -> tuple[str | None, str]:
    """Return the first date in a text as ISO 8601 writes it, and the text without it."""
    for pattern, order in ((_ISO, (1, 2, 3)), (_FRENCH, (3, 2, 1))):
        match = pattern.search(text)
        if match is not None:
            year, month, day = (int(match[place]) for place in order)
            with suppress(ValueError):
                rest = f"{text[: match.start()]} {text[match.end() :]}"
                return date(year, month, day).isoformat(), rest
    return None, text
