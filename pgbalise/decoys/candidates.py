"""What of a text may be a decoy's trait: numbers however they are spaced, addresses, dates, words.

``balise.candidates`` in the database follows the same rules; a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pgbalise.decoys.traits import LEAST_RECORD, fold

_MOST_WORDS: Final = 8
"""A number is spread over no more words: +33 (0)6 12 34 56 78 has seven."""
_MOST_MIXED: Final = 3
"""Over more words only when each begins with a digit: IPP 0012 345."""
_LONGEST: Final = 40
_LONG_NUMBER: Final = re.compile(r"[0-9]{9,}")
_DIGIT: Final = re.compile(r"[0-9]")
_LETTER: Final = re.compile(r"[a-z]")
_NIR: Final = re.compile(r"[1-478][0-9]{4}(?:[0-9]{2}|2[ab])[0-9]{6}(?:[0-9]{2})?")
_PHONE: Final = re.compile(r"(?:(?:00)?330?|0)[1-9][0-9]{8}")
_MAILS: Final = tuple(
    re.compile(rf"{letter}{{1,64}}@{letter}{{1,255}}\.{letter}{{1,63}}")
    # as long as RFC 5321 (4.5.3.1) lets them be: without an end, a long text would take hours;
    # with whatever an address may have in it, and without what may stand around it
    for letter in ("[!-;=?A-~]", "[!#$%&*+./0-9?A-Z^_`a-z~-]")
)
_DAY: Final = re.compile(r"([0-9]{1,2})(?:er|st|nd|rd|th|t[0-9]+)?")
_MONTHS: Final = tuple(
    re.compile(begins)
    for begins in (
        "jan",
        "fe[vb]",
        "mar",
        "a[vp]r",
        "ma[iy]",
        "jui?n",
        "jui?l",
        "a(?:ou|ug)",
        "sep",
        "oct",
        "nov",
        "dec",
    )
)


MONTHS: Final = frozenset(
    [
        "janvier",
        "fevrier",
        "mars",
        "avril",
        "mai",
        "juin",
        "juillet",
        "aout",
        "septembre",
        "octobre",
        "novembre",
        "decembre",
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ]
)
"""The months' names as ``fold`` gives them."""


@dataclass(frozen=True)
class Candidates:
    """What a text may hold of an identity.

    ``texts`` are canonical texts of all kinds but person; ``born`` dates as YYYY-MM-DD (all
    readings of one that can be read in several ways); ``words`` all words, in order, as ``fold``
    gives them.
    """

    texts: frozenset[str]
    born: frozenset[str]
    words: tuple[str, ...]


def candidates(text: str) -> Candidates:
    """Return what of a text may be a trait.

    A record number of up to eight digits counts when it is one word, or all of the text: else any
    two amounts side by side would make one.
    """
    words = tuple(fold(text).split())
    found = set(_mails(text)) if "@" in text else set()
    if any(map(_DIGIT.search, words)):
        found.update(_numbers(words))
        born = frozenset(_dates(words))
    else:
        born = frozenset()
    return Candidates(frozenset(found), born, words)


def _mails(text: str) -> Iterator[str]:
    for form in _MAILS:
        for match in form.finditer(text):
            yield match[0].rstrip(".").lower()


def _numbers(words: tuple[str, ...]) -> Iterator[str]:
    for at in range(len(words)):
        run, digits = "", True
        for size, word in enumerate(words[at : at + _MOST_WORDS], 1):
            run += word
            digits = digits and word[0].isdigit()
            if len(run) > _LONGEST or (size > _MOST_MIXED and not digits):
                break
            if len(run) < LEAST_RECORD or not _DIGIT.search(run):
                continue
            if (
                size == 1
                or size == len(words)
                or (size <= _MOST_MIXED and _LETTER.search(run))
                or _LONG_NUMBER.fullmatch(run)
            ):
                yield run.upper()
            if _NIR.fullmatch(run):
                yield run[:13].upper()
            if _PHONE.fullmatch(run):
                yield f"+33{run[-9:]}"


def _dates(words: tuple[str, ...]) -> Iterator[str]:
    for at, word in enumerate(words):
        second, third = (*words[at + 1 : at + 3], "", "")[:2]
        if len(word) == 8 and word.isdigit():
            yield from _date(word[:4], word[4:6], word[6:])
            yield from _date(word[4:], word[2:4], word[:2])
        if third and len(word) == 4 and word.isdigit():
            yield from _date(word, second, third)
        if len(third) in (2, 4) and third.isdigit():
            yield from _date(third, second, word)


def _date(year: str, month: str, day: str) -> Iterator[str]:
    found = _DAY.fullmatch(day)
    number = _month(month)
    if found is None or not 1 <= number <= 12 or not 1 <= int(found[1]) <= 31:
        return
    for century in ("19", "20") if len(year) == 2 else ("",):
        yield f"{century}{year}-{number:02d}-{int(found[1]):02d}"


def _month(word: str) -> int:
    if word.isdigit():
        return int(word) if len(word) <= 2 else 0
    return next((n for n, begins in enumerate(_MONTHS, 1) if begins.match(word)), 0)
