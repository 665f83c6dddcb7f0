"""Telephone numbers, RPPS and FINESS that nobody has, as a column writes them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pgbalise.decoys.formats import LEAST_HELD
from pgbalise.decoys.identity import Mode
from pgbalise.decoys.stream import Mixture, Stream
from pgbalise.errors import EnvironmentProblem

FICTION: Final[Mapping[str, str]] = {
    "1": "19900",
    "2": "26191",
    "3": "35301",
    "4": "46571",
    "5": "53649",
    "6": "63998",
}
"""By zone, the first five digits after the 0 (four follow) of the blocks for audiovisual works.

Arcep, decision 2018-0881 of 24 July 2018 as amended (version of 1 January 2026), annex 1, section
2.5.12. They can neither call nor be called, and no operator is given them.
"""

_BLOCKS: Final = frozenset(FICTION.values())
_LANDLINES: Final = Mixture.even("12345")
_MOBILES: Final = Mixture.even("6")
_FRENCH: Final = re.compile(r"(?:0033|33)?0?([1-7])[0-9]{8}")
_LEAST_TEMPLATE: Final = 0.01


def for_fiction(text: str) -> bool:
    """Whether a French telephone number, however written, is of a block that nobody has."""
    digits = re.sub(r"\D", "", text)
    return digits[-9:-4] in _BLOCKS


def _fill(template: str, characters: str) -> str:
    if len(template) == len(characters):
        return characters
    letters = iter(characters)
    return "".join(next(letters) if place == "#" else place for place in template)


def _template(text: str, count: int) -> str:
    """Return a text whose last ``count`` letters and digits are places to fill."""
    left, out = count, []
    for letter in reversed(text):
        if left and letter.isalnum():
            out.append("#")
            left -= 1
        else:
            out.append(letter)
    return "".join(reversed(out))


def _often(templates: Iterable[str], default: str) -> Mixture[str]:
    counts = Counter(templates)
    total = sum(counts.values())
    often = {t: n for t, n in sorted(counts.items()) if n >= _LEAST_TEMPLATE * total}
    return Mixture.of(often or {default: 1.0})


@dataclass(frozen=True)
class Written:
    """How a column writes a number of a fixed length: ``#`` stands for a digit or letter."""

    templates: Mixture[str]

    def write(self, stream: Stream, number: str) -> str:
        """Write a number."""
        return _fill(self.templates.pick(stream), number)


def learn_written(texts: Iterable[str], length: int) -> Written:
    """Learn how numbers of ``length`` letters and digits are grouped; without one, not at all."""
    found = (text for text in texts if sum(letter.isalnum() for letter in text) == length)
    return Written(_often((_template(text, length) for text in found), "#" * length))


@dataclass(frozen=True)
class PhoneLook:
    """How a column writes telephone numbers, and of which zones they are."""

    written: Written
    zones: Mixture[str]

    def draw(self, stream: Stream) -> str:
        """Draw a number of a block for audiovisual works."""
        number = FICTION[self.zones.pick(stream)] + stream.digits(4)
        return self.written.write(stream, number)

    @property
    def space(self) -> float:
        """Among how many equally likely numbers, at least."""
        return 10_000 * self.zones.space


def learn_phones(texts: Iterable[str], *, mobile: bool) -> PhoneLook:
    """Learn from a column's texts; without one: ten digits, ``mobile`` or of all five zones."""
    templates, zones = [], Counter[str]()
    for text in texts:
        match = _FRENCH.fullmatch(re.sub(r"\D", "", text))
        if match:
            templates.append(_template(text, 9))
            zones["6" if match[1] == "7" else match[1]] += 1
    often = {z: n for z, n in sorted(zones.items()) if n >= 0.005 * len(templates)}
    return PhoneLook(
        Written(_often(templates, "0#########")),
        Mixture.of(often) if often else _MOBILES if mobile else _LANDLINES,
    )


def luhn_digit(body: str) -> str:
    """Return the check digit of digits (Luhn); raise EnvironmentProblem without python-stdnum."""
    try:
        from stdnum.luhn import calc_check_digit
    except ImportError as error:
        raise EnvironmentProblem(
            "numbers of patients who do not exist need the package python-stdnum",
            hint="run: pip install 'pgbalise[decoys]'",
        ) from error
    return calc_check_digit(body)


RPPS_SAFE: Final = "997"
"""Numbers of the test professionals on ANS's test cards (CPS de test: 8, then 99700...)."""
_RPPS_BELIEVABLE: Final = "105"
RPPS_SPACE: Final = 10_000_000


def draw_rpps(stream: Stream, mode: Mode) -> str:
    """Draw a professional's number: ten digits and Luhn's (ANS, modèle des objets de santé).

    Attributed numbers begin with 10, the latest with 101.
    """
    body = (RPPS_SAFE if mode is Mode.SAFE else _RPPS_BELIEVABLE) + stream.digits(7)
    return body + luhn_digit(body)


_DEPARTMENTS: Final = Mixture.even(f"{number:02d}" for number in range(1, 96) if number != 20)


def learn_departments(texts: Iterable[str]) -> Mixture[str]:
    """Return the departments of a column of FINESS numbers, without Corsica and overseas."""
    heads = Counter(text.strip()[:2] for text in texts)
    often = {d: n for d, n in sorted(heads.items()) if n >= LEAST_HELD and d in _DEPARTMENTS.values}
    return Mixture.of(often) if often else _DEPARTMENTS


def draw_finess(stream: Stream, departments: Mixture[str], mode: Mode) -> str:
    """Draw an establishment's number: department, 0, five digits and Luhn's.

    The third character of every number is 0 (ANS, modèle des objets de santé): safe ones have 9
    there, believable ones a high number instead.
    """
    department, number = departments.pick(stream), stream.digits(5)
    body = department + ("9" + number if mode is Mode.SAFE else "09" + number[1:])
    return body + luhn_digit(body)
