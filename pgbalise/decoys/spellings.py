"""The usual ways to write what a decoy is recognised by, for readers that compare literal text.

Large and small ASCII letters are the same to all readers: of texts that differ in nothing else only
one is given. Letters outside ASCII, whose case many tools do not fold, are given both ways.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final

from pgbalise.decoys.identity import Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.traits import Trait, TraitKind, fold, mail_trait, record_trait


@dataclass(frozen=True, order=True)
class Spelling:
    """One way of writing a trait of this kind.

    Of TraitKind.PERSON it is the names alone: others may bear them too, and only a spelling of
    ``birth_dates`` near by tells that this person is meant.
    """

    kind: TraitKind
    text: str


NAME_SEPARATORS: Final = (" ", ", ", ",", ";", "\t", "|", '","', '";"')
"""What stands between two names of a person: in prose, lists and delimited files."""

_MONTHS: Final = (
    ("janvier", "January"),
    ("février", "February"),
    ("mars", "March"),
    ("avril", "April"),
    ("mai", "May"),
    ("juin", "June"),
    ("juillet", "July"),
    ("août", "August"),
    ("septembre", "September"),
    ("octobre", "October"),
    ("novembre", "November"),
    ("décembre", "December"),
)
_NIR_GROUPS: Final = re.compile(r"(.)(..)(..)(..)(...)(...)")


def spellings(decoy: IssuedDecoy) -> tuple[Spelling, ...]:
    """Return every usual way to write each of a decoy's traits, sorted and without repeats.

    A reader must look for a text that begins or ends with a letter or digit where no other letter
    or digit adjoins: a NIR inside a longer number is another number.
    """
    found: dict[tuple[TraitKind, str], Spelling] = {}
    for spelling in (*number_spellings(decoy), *_names(decoy)):
        found.setdefault((spelling.kind, _same_case(spelling.text)), spelling)
    return tuple(sorted(found.values()))


def number_spellings(decoy: IssuedDecoy) -> tuple[Spelling, ...]:
    """Return the spellings of a decoy's numbers and mail addresses: of all traits but its names."""
    found = [Spelling(trait.kind, text) for trait in decoy.traits for text in _of_number(trait)]
    record = decoy.identity.get(Role.RECORD_NUMBER, "")
    if record_trait(record) is not None:
        found.append(Spelling(TraitKind.RECORD, record.strip()))
    mail = decoy.identity.get(Role.MAIL, "")
    if mail_trait(mail) is not None:
        found.append(Spelling(TraitKind.MAIL, mail.strip()))
    return tuple(found)


def birth_dates(decoy: IssuedDecoy) -> tuple[str, ...]:
    """Return every usual way to write a decoy's birth date, none when it has none.

    Alone they tell nothing: many were born on each day.
    """
    try:
        born = date.fromisoformat(decoy.identity.get(Role.BIRTH_DATE, ""))
    except ValueError:
        return ()
    day, month, year = f"{born.day:02d}", f"{born.month:02d}", f"{born.year:04d}"
    french, english = _MONTHS[born.month - 1]
    texts = [f"{year}-{month}-{day}", f"{year}/{month}/{day}", f"{year}{month}{day}"]
    for separator in "/-. ":
        texts.append(separator.join((day, month, year)))
        texts.append(separator.join((str(born.day), str(born.month), year)))
    texts.append(f"{day}{month}{year}")
    texts.append(f"{day}/{month}/{year[2:]}")
    texts.append(f"{month}/{day}/{year}")
    for (spelled,) in _accents((french,)):
        texts.append(f"{born.day} {spelled} {year}")
        if born.day == 1:
            texts.append(f"1er {spelled} {year}")
    texts += [f"{born.day} {english} {year}", f"{english} {born.day}, {year}"]
    return tuple(dict.fromkeys(texts))


def nir_key(nir: str) -> str:
    """Return the two digits of the key of a NIR's 13 characters.

    97 less the number modulo 97, with 19 for Corsica's 2A and 18 for 2B
    (decree no 82-103 of 22 January 1982; INSEE).
    """
    digits = nir.upper().replace("2A", "19").replace("2B", "18")
    return f"{97 - int(digits) % 97:02d}"


def _of_number(trait: Trait) -> Iterator[str]:
    value = trait.value
    match trait.kind:
        case TraitKind.NIR:
            key = nir_key(value)
            grouped = _NIR_GROUPS.sub(r"\1 \2 \3 \4 \5 \6", value)
            yield from (value, f"{value}{key}", f"{value} {key}", grouped, f"{grouped} {key}")
        case TraitKind.PHONE:
            yield from _of_phone(value.removeprefix("+33"))
        case TraitKind.MAIL:
            yield from (value, value.replace("@", "%40"))
        case TraitKind.RPPS:
            # A professional's card writes the kind of number, 8, before it.
            yield from (value, f"8{value}")
        case TraitKind.RECORD:
            yield value
        case TraitKind.PERSON:
            pass


def _of_phone(nine: str) -> Iterator[str]:
    yield from (f"0{nine}", f"+33{nine}", f"0033{nine}", f"33{nine}", f"+330{nine}")
    yield from (f"+33(0){nine}", f"+33 {nine}", f"+33 0{nine}")
    pairs = [nine[place : place + 2] for place in range(1, 9, 2)]
    for separator in " .-/":
        yield separator.join([f"0{nine[0]}", *pairs])
    for separator in " .-":
        rest = separator.join([nine[0], *pairs])
        yield from (f"+33{separator}{rest}", f"0033{separator}{rest}")
    rest = " ".join([nine[0], *pairs])
    yield from (f"+33{rest}", f"+33 (0){rest}", f"+33 (0) {rest}", f"+33(0){rest}")


def _names(decoy: IssuedDecoy) -> Iterator[Spelling]:
    for first, second in person_names(decoy):
        for one, other in _accents((first, second)):
            for separator in NAME_SEPARATORS:
                yield Spelling(TraitKind.PERSON, f"{one}{separator}{other}")


def person_names(decoy: IssuedDecoy) -> tuple[tuple[str, str], ...]:
    """Return a person's names as two parts, in both orders; none unless it has both.

    The parts are a family name and the given names. Of a full name in one column nobody knows
    where the one ends: its first word and the rest, and its last word and the rest.
    """
    identity = decoy.identity
    given = identity.get(Role.GIVEN_NAME, "")
    pairs = [
        (identity.get(role, "").strip(), given.strip())
        for role in (Role.FAMILY_NAME, Role.BIRTH_NAME)
    ]
    words = identity.get(Role.FULL_NAME, "").split()
    if len(words) > 1:
        pairs += [(words[0], " ".join(words[1:])), (" ".join(words[:-1]), words[-1])]
    kept = [(one, other) for one, other in pairs if fold(one) and fold(other)]
    return tuple(dict.fromkeys([*kept, *((other, one) for one, other in kept)]))


def _accents(texts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield texts as they are and, where it differs, large, without accents, as bare words."""
    yield texts
    if not all(text.isascii() for text in texts):
        yield tuple(text.upper() for text in texts)
        yield tuple("".join(map(_plain, text)) for text in texts)
    # Administrative files write neither hyphens nor apostrophes.
    yield tuple(fold(text) for text in texts)


def _plain(letter: str) -> str:
    """Return an ASCII way to write a letter; a mark that combines with one is dropped."""
    if letter.isascii():
        return letter
    plain = fold(letter)
    if plain:
        return plain.upper() if letter.isupper() else plain
    if unicodedata.combining(letter):
        return ""
    return "-" if unicodedata.category(letter) == "Pd" else "'" if letter in "\u2018\u2019" else " "


def _same_case(text: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)
