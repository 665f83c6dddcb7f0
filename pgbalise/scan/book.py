"""PURE. Where decoys are in a text, however they are written.

The text is packed first: only ASCII letters, made small, and digits stay. What separates names and
digits, accents in any encoding, and the zero bytes of UTF-16 are gone then, so a few packed words
stand for all spellings of a decoy. What is found there is held against the text itself.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Final

import numpy as np

from pgbalise.decoys.identity import Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.spellings import birth_dates, nir_key, number_spellings, person_names
from pgbalise.decoys.traits import TraitKind, fold
from pgbalise.scan.lexicon import LEAST, Lexicon, Word

NEAR: Final = 200
"""Bytes between names and a birth date that still belong together."""

LINE: Final = 400
"""Bytes between them when they are on the same line."""

MARGIN: Final = 2_048
"""Bytes before and after a place that decide whether a decoy is there."""

_BLOCK: Final = 8_192
_ALNUM: Final = bytes(n for n in range(128) if chr(n).isalnum())
_OTHERS: Final = bytes(n for n in range(256) if n not in _ALNUM)
_SMALL: Final = bytes(range(256)).lower()
_KEPT: Final = bytes(n in _ALNUM for n in range(256))
_BETWEEN_NAMES: Final = 200
_FEW_NAMES: Final = 7
_FEW_DIGITS: Final = 8

# What may separate the digits of one number: blanks (no-break ones in UTF-8 and Latin-1), dots,
# dashes and the parentheses of +33 (0)6.
_IN_NUMBER: Final = re.compile(
    rb"(?:[A-Za-z0-9]|(?:[ .\-/_()+\xa0]|\xc2\xa0|\xe2\x80[\x89\xaf]){1,4}(?=[A-Za-z0-9]))+"
)
_BEFORE: Final = {
    TraitKind.PHONE: re.compile(rb"(?:(?<![A-Za-z0-9])(?:(?:00)?33|00))\Z"),
    TraitKind.RPPS: re.compile(rb"(?<![A-Za-z0-9])8\Z"),
}
_POINT_BEFORE: Final = re.compile(rb"[0-9]\.\Z")
_POINT_AFTER: Final = re.compile(rb"\.[0-9]")
_MAIL_BEFORE: Final = re.compile(rb"[A-Za-z0-9._+\-]\Z")
_MAIL_AFTER: Final = re.compile(rb"[A-Za-z0-9\-]|\.[A-Za-z0-9]")


_SOME_DATE: Final = re.compile(
    rb"(?<![0-9])(?:[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}|[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{2,4})"
    rb"(?![0-9])"
)
# With a time of day, unless it is midnight, a date is that of an event.
_DATE_ENDS: Final = re.compile(rb"(?![0-9]|[t ](?!00:00)[0-9]{2}:[0-9]{2})")


@dataclass(frozen=True)
class Sighting:
    """A decoy in a text: ``start`` and ``end`` are places in bytes.

    ``certain``: nobody else is meant. Names without their birth date near by may be a homonym's,
    and a short number may be the number of something else.
    """

    start: int
    end: int
    decoy: IssuedDecoy
    kind: TraitKind
    certain: bool


@dataclass(frozen=True)
class _Target:
    decoy: int
    kind: TraitKind
    certain: bool


class Book:
    """Decoys to look for."""

    def __init__(self, decoys: Sequence[IssuedDecoy]) -> None:
        self._decoys = tuple(decoys)
        targets: dict[Word, list[_Target]] = {}
        for index, decoy in enumerate(self._decoys):
            for word, kind, certain in _words(decoy):
                targets.setdefault(word, []).append(_Target(index, kind, certain))
        self._words = tuple(targets)
        self._targets = tuple(tuple(found) for found in targets.values())
        self._lexicon = Lexicon(self._words)
        self._years = [_year(decoy) for decoy in self._decoys]
        self._dates = lru_cache(65_536)(lambda index: _Dates.of(self._decoys[index]))

    def __len__(self) -> int:
        return len(self._words)

    @property
    def words(self) -> list[bytes]:
        """The packed words that are looked for."""
        return [word.text for word in self._words]

    def find(self, text: bytes, *, possible: bool = False) -> list[Sighting]:
        """Return the decoys in a text, by place; those that are not certain if ``possible``."""
        packed = _Packed(text)
        found: dict[tuple[int, int, TraitKind], Sighting] = {}
        for place, number in self._lexicon.find(packed.text):
            word = self._words[number].text
            for target in self._targets[number]:
                sighting = self._held(packed, place, word, target, possible)
                if sighting is not None and (possible or sighting.certain):
                    found[sighting.start, target.decoy, target.kind] = sighting
        return sorted(found.values(), key=lambda s: (s.start, s.decoy.name, s.kind))

    def _held(
        self, packed: _Packed, place: int, word: bytes, target: _Target, possible: bool
    ) -> Sighting | None:
        person = target.kind is TraitKind.PERSON
        dated = False
        if person:
            nearby = packed.text[max(0, place - LINE) : place + len(word) + LINE]
            dated = self._may_be_dated(nearby, target.decoy)
            if not dated and not possible:
                return None
        start, end = packed.place(place), packed.place(place + len(word) - 1) + 1
        decoy = self._decoys[target.decoy]
        if person:
            if not _are_names(packed.original, start, end):
                return None
            dated = dated and self._dates(target.decoy).near(packed.original, start, end)
            return Sighting(start, end, decoy, target.kind, dated)
        if not _is_number(packed.original, start, end, decoy, target.kind, word):
            return None
        return Sighting(start, end, decoy, target.kind, target.certain)

    def _may_be_dated(self, nearby: bytes, decoy: int) -> bool:
        """Say whether a packed text may hold the decoy's birth date; most hold not its year."""
        year, short = self._years[decoy]
        if year not in nearby:
            return short in nearby
        return any(date in nearby for date in self._dates(decoy).packed)


def _year(decoy: IssuedDecoy) -> tuple[bytes, bytes]:
    """Return the year of birth, and the whole date with two digits of it."""
    born = decoy.identity.get(Role.BIRTH_DATE, "").encode()
    return born[:4], born[8:10] + born[5:7] + born[2:4]


def pack(text: bytes) -> bytes:
    """Return the ASCII letters of a text, made small, and its digits."""
    return text.translate(_SMALL, _OTHERS)


class _Packed:
    """A packed text, and where its bytes were."""

    def __init__(self, original: bytes) -> None:
        blocks = [pack(original[n : n + _BLOCK]) for n in range(0, len(original), _BLOCK)]
        self.original = original
        self.text = b"".join(blocks)
        self._starts = list(accumulate(map(len, blocks), initial=0))
        self._block = (-1, np.zeros(0, np.int64))

    def place(self, index: int) -> int:
        """Return where a byte of the packed text was."""
        block = bisect_right(self._starts, index) - 1
        if self._block[0] != block:
            start = block * _BLOCK
            kept = self.original[start : start + _BLOCK].translate(_KEPT)
            self._block = block, np.flatnonzero(np.frombuffer(kept, np.bool_)) + start
        return int(self._block[1][index - self._starts[block]])


@dataclass(frozen=True)
class _Dates:
    """The spellings of a birth date, in small letters, and packed."""

    spelled: tuple[bytes, ...]
    packed: tuple[bytes, ...]

    @classmethod
    def of(cls, decoy: IssuedDecoy) -> _Dates:
        texts = [text.lower() for text in birth_dates(decoy)]
        spelled = {text.encode(code) for text in texts for code in ("utf-8", "latin-1")}
        return cls(tuple(spelled), tuple({pack(text) for text in spelled}))

    def _in(self, text: bytes) -> bool:
        small = text.replace(b"\0", b"").lower()
        for date in self.spelled:
            place = small.find(date)
            while place >= 0:
                if not small[:place][-1:].isdigit() and _DATE_ENDS.match(small, place + len(date)):
                    return True
                place = small.find(date, place + 1)
        return False

    def near(self, text: bytes, start: int, end: int) -> bool:
        """Say whether the date is on the line of this place, within LINE, or within NEAR of it.

        On other lines only if its own has no date: that of the next row is another patient's.
        """
        before = text[max(0, start - LINE) : start]
        after = text[end : end + LINE]
        first = before.rfind(b"\n") + 1
        stop = after.find(b"\n")
        last = stop if stop >= 0 else len(after)
        line = b" ".join((before[first:], text[start:end], after[:last]))
        if self._in(line):
            return True
        if _SOME_DATE.search(line.replace(b"\0", b"")):
            return False
        # Up to a date's length more, so that a date at the edge is whole.
        edge = NEAR + 20
        return self._in(b" ".join((before[-edge:], text[start:end], after[:edge])))


def _words(decoy: IssuedDecoy) -> Iterator[tuple[Word, TraitKind, bool]]:
    by_kind: dict[TraitKind, set[bytes]] = {}
    for spelling in number_spellings(decoy):
        by_kind.setdefault(spelling.kind, set()).add(pack(spelling.text.encode()))
    for kind, words in by_kind.items():
        for text in words:
            # What has another within it is found with that one.
            if len(text) >= LEAST and not any(o in text for o in words if o != text):
                certain = not (text.isdigit() and len(text) < _FEW_DIGITS)
                pivot = 0 if kind is TraitKind.MAIL else len(text)
                yield Word(text, pivot), kind, certain
    yield from ((word, TraitKind.PERSON, True) for word in set(_names(decoy)))


def _names(decoy: IssuedDecoy) -> Iterator[Word]:
    if not birth_dates(decoy):
        return
    for names in person_names(decoy):
        plain = tuple(fold(name).encode() for name in names)
        for one, other in (tuple(name.encode() for name in names), plain):
            first, both = pack(one), pack(one) + pack(other)
            if not first or first == both:
                continue
            if len(both) >= _FEW_NAMES:
                yield Word(both, len(first))
                continue
            # So few letters are everywhere: with the birth date beside them they are not.
            born = decoy.identity[Role.BIRTH_DATE]
            year, month, day = (part.encode() for part in born.split("-"))
            for date in (year + month + day, day + month + year):
                yield Word(both + date, len(both))
                yield Word(date + both, len(date))


def _are_names(text: bytes, start: int, end: int) -> bool:
    if end - start > _BETWEEN_NAMES + 100:
        return False
    return not _adjoins(text, start, end)


def _adjoins(text: bytes, start: int, end: int) -> bool:
    before, after = _around(text, start, end)
    return before[-1:].isalnum() or after[:1].isalnum()


def _around(text: bytes, start: int, end: int) -> tuple[bytes, bytes]:
    """Return what stands before and after a place, without the zero bytes of UTF-16."""
    before, after = text[max(0, start - 24) : start], text[end : end + 24]
    # Alone a zero byte ends a text in a binary file; after the first byte it is a character's.
    if text[start + 1 : start + 2] == b"\0":
        return before.replace(b"\0", b""), after.replace(b"\0", b"")
    return before, after


def _is_number(
    text: bytes, start: int, end: int, decoy: IssuedDecoy, kind: TraitKind, word: bytes
) -> bool:
    written = text[start:end].replace(b"\0", b"")
    before, after = _around(text, start, end)
    if kind is TraitKind.MAIL:
        if _MAIL_BEFORE.search(before) or _MAIL_AFTER.match(after):
            return False
        address = decoy.identity.get(Role.MAIL, "").strip().casefold().encode()
        return written.lower().replace(b"%40", b"@") == address
    if not _IN_NUMBER.fullmatch(written):
        return False
    if _POINT_BEFORE.search(before) or _POINT_AFTER.match(after):
        return False
    if before[-1:].isalnum() and not (kind in _BEFORE and _BEFORE[kind].search(before)):
        return False
    if not after[:1].isalnum():
        return True
    key = nir_key(word.decode()).encode() if kind is TraitKind.NIR else b""
    return bool(key) and after.startswith(key) and not after[2:3].isalnum()
