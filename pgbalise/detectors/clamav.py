"""ClamAV logical signatures (.ldb), one for each decoy and kind.

Format: https://docs.clamav.net/manual/Signatures/LogicalSignatures.html. Subsignatures are
hexadecimal, with modifiers i (case), w and a (UTF-16 and ASCII) and f (nothing adjoins);
names with a birth date are a PCRE subsignature that the birth date triggers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pgbalise.detectors.export import Export, Files
from pgbalise.detectors.expressions import alone, encoded, person_expressions
from pgbalise.detectors.patterns import NUMBERS, Person, Target

_MOST: Final = 60
"""Of 64 subsignatures that a signature may have."""

_BLOCK: Final = "Engine:81-255,Target:0"
"""Functionality level 81 is ClamAV 0.99, the first with PCRE; target 0 is any file."""


def write_clamav(export: Export) -> Files:
    """Return one file of signatures ``Pgbalise.Decoy.<rule>.<Kind>``."""
    lines = [line for target in export.targets for line in _signatures(target)]
    return {"decoys.ldb": "".join(f"{line}\n" for line in lines).encode("ascii")}


def _signatures(target: Target) -> Iterator[str]:
    for kind in sorted(NUMBERS):
        parts = [part for text in target.of(kind) for part in _literal(text, "f")]
        for start in range(0, len(parts), _MOST):
            some = parts[start : start + _MOST]
            name = f"Pgbalise.Decoy.{target.rule}.{kind.value.capitalize()}"
            yield _line(name + (f".{start // _MOST}" if start else ""), _either(some), some)
    if target.person is not None:
        yield _person(target.rule, target.person)


def _person(rule: str, person: Person) -> str:
    """Return a signature whose expression is tried only where a name and the date are at all."""
    dates = [part for date in person.dates for part in _literal(date, "")]
    names = [part for name in _in_all(person) for part in _literal(name, "")]
    triggers, condition = dates, _either(dates)
    if len(dates) + len(names) <= _MOST:
        triggers, condition = dates + names, f"{condition}&{_either(names, len(dates))}"
    expression = alone(f"(?:{'|'.join(person_expressions(person))})")
    last = str(len(triggers))
    return _line(f"Pgbalise.Decoy.{rule}.Person", last, [*triggers, f"{condition}/{expression}/is"])


def _in_all(person: Person) -> Sequence[str]:
    """Return the ways to write a name that is in every pair, else all names' ways."""
    for ways in person.names[0]:
        if all(ways in pair for pair in person.names):
            return ways
    return [way for pair in person.names for way in pair[0]]


def _literal(text: str, alone: str) -> list[str]:
    if text.isascii():
        return [f"{text.encode().hex()}::iwa{alone}"]
    return [f"{content.hex()}::i{alone}" for content in encoded(text)]


def _either(parts: Sequence[str], first: int = 0) -> str:
    return f"({'|'.join(map(str, range(first, first + len(parts))))})"


def _line(name: str, expression: str, subsignatures: Sequence[str]) -> str:
    return ";".join([name, _BLOCK, expression, *subsignatures])
