"""ClamAV logical signatures (.ldb), one for each decoy and kind.

Format: https://docs.clamav.net/manual/Signatures/LogicalSignatures.html. Subsignatures are
hexadecimal, with modifiers i (case), w and a (UTF-16 and ASCII) and f (nothing adjoins);
names with a birth date are a PCRE subsignature that the birth date triggers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final

from pgbalise.detectors.export import Export, Files
from pgbalise.detectors.expressions import BETWEEN_NAMES, alone, encoded, person_expressions
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
    """Return a signature whose expression is tried only where names and date are at all."""
    dates = [part for date in person.dates for part in _literal(date, "")]
    names = list(dict.fromkeys(_pairs(person)))
    triggers, condition = dates, _either(dates)
    if len(dates) + len(names) <= _MOST:
        triggers, condition = dates + names, f"{condition}&{_either(names, len(dates))}"
    expression = alone(f"(?:{'|'.join(person_expressions(person))})")
    last = str(len(triggers))
    return _line(f"Pgbalise.Decoy.{rule}.Person", last, [*triggers, f"{condition}/{expression}/is"])


def _pairs(person: Person) -> Iterator[str]:
    """Yield one name near the other, in the same encoding; they are found without expressions."""
    for firsts, seconds in person.names:
        for narrow in (True, False):
            one, other = (
                {way.hex() for name in names for way in _in(name, narrow=narrow)}
                for names in (firsts, seconds)
            )
            for first, second in sorted(product(one, other)):
                yield f"{first}{{1-{BETWEEN_NAMES}}}{second}::i"


def _in(text: str, *, narrow: bool) -> tuple[bytes, ...]:
    *eights, sixteen = encoded(text)
    return tuple(eights) if narrow else (sixteen,)


def _literal(text: str, alone: str) -> list[str]:
    if text.isascii():
        return [f"{text.encode().hex()}::iwa{alone}"]
    return [f"{content.hex()}::i{alone}" for content in encoded(text)]


def _either(parts: Sequence[str], first: int = 0) -> str:
    return f"({'|'.join(map(str, range(first, first + len(parts))))})"


def _line(name: str, expression: str, subsignatures: Sequence[str]) -> str:
    return ";".join([name, _BLOCK, expression, *subsignatures])
