"""By what a decoy is recognised: canonical forms that survive another way of writing.

A trait is a kind and a canonical text. Two writings of the same number, address or person have
the same canonical text: accents, case, spaces, punctuation, the country code of a telephone number,
the key of a NIR, the order of names and the format of a date make no difference.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pgbalise.decoys.identity import Identity, Role


class TraitKind(StrEnum):
    """What a trait is of."""

    RECORD = "record"
    """Of a record number (IPP): its letters, large, and digits."""
    NIR = "nir"
    """Of a NIR or INS: 13 characters, without the key."""
    PHONE = "phone"
    """Of a telephone number: as E.164 writes it, ``+33612345678``."""
    MAIL = "mail"
    """Of a mail address: small letters."""
    RPPS = "rpps"
    """Of a health professional's number: 11 digits."""
    PERSON = "person"
    """Of names and a birth date: ``1985-05-12 dupont marie``, the words of the names sorted."""


@dataclass(frozen=True, order=True)
class Trait:
    """Something by which a decoy is recognised."""

    kind: TraitKind
    value: str


LEAST_RECORD: Final = 5
"""Shorter record numbers are also the numbers of other things: they are no trait."""

_LIGATURES: Final = str.maketrans({"œ": "oe", "æ": "ae", "ß": "ss", "ø": "o", "đ": "d", "ł": "l"})
_NOT_WORD: Final = re.compile(r"[^0-9a-z]+")
_NIR: Final = re.compile(r"[1-478][0-9]{4}(?:[0-9]{2}|2[AB])[0-9]{6}(?:[0-9]{2})?")


def fold(text: str) -> str:
    """Return words of ASCII small letters and digits with one space between them."""
    if text.isascii():
        return _NOT_WORD.sub(" ", text.lower()).strip()
    apart = unicodedata.normalize("NFKD", text.casefold().translate(_LIGATURES))
    plain = "".join(letter for letter in apart if not unicodedata.combining(letter))
    # What stands for a sign such as ™ or ℞ may be a capital letter.
    return _NOT_WORD.sub(" ", plain.lower()).strip()


def record_trait(text: str) -> Trait | None:
    """Return the trait of a record number, None when it is too short to tell anybody apart."""
    value = fold(text).replace(" ", "").upper()
    return Trait(TraitKind.RECORD, value) if len(value) >= LEAST_RECORD else None


def nir_trait(text: str) -> Trait | None:
    """Return the trait of a NIR with or without its key, None when it has not the form of one."""
    value = fold(text).replace(" ", "").upper()
    return Trait(TraitKind.NIR, value[:13]) if _NIR.fullmatch(value) else None


def phone_trait(text: str) -> Trait | None:
    """Return the trait of a French telephone number, None when it has not the form of one."""
    digits = re.sub(r"[\s().\-/\u00a0\u202f]", "", text)
    match = re.fullmatch(r"(?:(?:\+|00)330?|0)([1-9][0-9]{8})", digits)
    return Trait(TraitKind.PHONE, f"+33{match[1]}") if match else None


def mail_trait(text: str) -> Trait | None:
    """Return the trait of a mail address, None when it has not the form of one."""
    value = text.strip().casefold()
    matched = re.fullmatch(r"[^@\s<>]+@[^@\s<>]+\.[^@\s<>]+", value)
    return Trait(TraitKind.MAIL, value) if matched else None


def rpps_trait(text: str) -> Trait | None:
    """Return the trait of an RPPS number, None when it has not the form of one."""
    digits = re.sub(r"\s", "", text)
    return Trait(TraitKind.RPPS, digits) if re.fullmatch(r"[0-9]{11}", digits) else None


def person_trait(names: str, born: str) -> Trait | None:
    """Return the trait of somebody's names, in any order, and birth date (ISO, YYYY-MM-DD)."""
    words = fold(names).split()
    if len(words) < 2 or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", born):
        return None
    return Trait(TraitKind.PERSON, " ".join([born, *sorted(words)]))


def traits(identity: Identity) -> tuple[Trait, ...]:
    """Return all traits of an identity, sorted and without repeats."""
    return tuple(sorted({trait for trait in _traits(identity) if trait is not None}))


def _traits(identity: Identity) -> Iterator[Trait | None]:
    by_role = {
        Role.RECORD_NUMBER: record_trait,
        Role.NIR: nir_trait,
        Role.NIR_13: nir_trait,
        Role.PHONE: phone_trait,
        Role.MOBILE: phone_trait,
        Role.MAIL: mail_trait,
        Role.RPPS: rpps_trait,
    }
    for role, make in by_role.items():
        if role in identity:
            yield make(identity[role])
    born = identity.get(Role.BIRTH_DATE, "")
    given = identity.get(Role.GIVEN_NAME, "")
    for role in (Role.FAMILY_NAME, Role.BIRTH_NAME):
        if role in identity and given:
            yield person_trait(f"{identity[role]} {given}", born)
    if Role.FULL_NAME in identity:
        yield person_trait(identity[Role.FULL_NAME], born)


Spaces = Mapping[TraitKind, float]
"""By kind, among how many equally likely values a decoy's trait was drawn, at least: the chance
that a list of n values, made without knowing the decoy, holds its trait is at most n over this."""
