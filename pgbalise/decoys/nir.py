"""Numbers of the national register of persons (NIR), and the places of birth in them.

Decree 82-103 of 22 January 1982, article 4: sex (1 digit), year (2) and month (2) of birth, place
of birth (5), then three digits that tell apart who was born in the same place in the same period. A
key of two digits follows. The INS (public health code, article L. 1111-8-1) is this number.

*Safe*: the three digits are 000. They number births, from 001 on, also where a place that has more
than 999 in a month gets a second code; so nobody can hold such a number, and whoever knows the rule
sees it. *Believable*: 500 to 999, which only places with as many births in a month give out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Final

from pgbalise.decoys.formats import LEAST_HELD
from pgbalise.decoys.identity import Mode
from pgbalise.decoys.stream import Mixture, Stream
from pgbalise.errors import EnvironmentProblem

PLACE: Final = re.compile(r"(?:[0-9]{2}|2[AB])[0-9]{3}")
"""INSEE's code of a municipality or, after 99, of a country."""

_CODES: Final = 250
_OTHERS: Final = frozenset(
    [
        "04",
        "05",
        "06",
        "13",
        "20",
        "36",
        "44",
        "48",
        "66",
        "75",
        "82",
        "83",
        "84",
        "87",
        "90",
        "91",
        "92",
        "93",
        "94",
        "95",
    ]
)
"""Departments that lack some code up to 250 (INSEE, code officiel géographique, file of the
municipalities of 1943 to 2017). In the other 75 every code from 001 to 250 was a municipality's:
they were numbered in alphabetical order."""

_BELIEVABLE_FROM: Final = 500
_BELIEVABLE_ORDERS: Final = 500
_TRIES: Final = 20


def nir_13(sex: str, born: date, place: str, order: int) -> str:
    """Return the number without its key. ``sex`` is F or M, ``order`` 0 to 999."""
    return f"{2 if sex == 'F' else 1}{born:%y%m}{place}{order:03d}"


def nir_key(number: str) -> str:
    """Return the two digits that follow the 13: 97 less the remainder by 97.

    2A counts as 19 and 2B as 18 (INSEE). Raise EnvironmentProblem without python-stdnum.
    """
    try:
        from stdnum.fr.nir import calc_check_digits
    except ImportError as error:
        raise EnvironmentProblem(
            "numbers of patients who do not exist need the package python-stdnum",
            hint="run: pip install 'pgbalise[decoys]'",
        ) from error
    return calc_check_digits(number)


def nobody_can_hold(number: str) -> bool:
    """Whether the rules forbid that a person has this number (13 or 15 characters)."""
    return number[10:13] == "000"


def draw_order(stream: Stream, mode: Mode) -> int:
    """Draw the last three digits."""
    drawn = stream.below(_BELIEVABLE_ORDERS)
    return 0 if mode is Mode.SAFE else _BELIEVABLE_FROM + drawn


def order_space(mode: Mode) -> int:
    """Among how many ``draw_order`` draws."""
    return 1 if mode is Mode.SAFE else _BELIEVABLE_ORDERS


@cache
def usual_places() -> tuple[str, ...]:
    """Return 18,750 codes of places that are or were municipalities."""
    return tuple(
        f"{department:02d}{code:03d}"
        for department in range(1, 91)
        if f"{department:02d}" not in _OTHERS
        for code in range(1, _CODES + 1)
    )


@dataclass(frozen=True)
class Places:
    """Where the site's patients were born."""

    frequent: Mixture[str] | None = None
    """Places of at least five patients."""
    elsewhere: float = 1.0
    """The share of the others: drawn from ``usual_places``."""

    def draw(self, stream: Stream, born: date) -> str:
        """Draw a place that was called so at the time."""
        for _ in range(_TRIES):
            if self.frequent is None or stream.share() < self.elsewhere:
                return stream.pick(usual_places())
            place = self.frequent.pick(stream)
            if _was_there(place, born):
                return place
        return stream.pick(usual_places())

    def space(self, born: date | None) -> float:
        """1 over the share of the likeliest place, at least; None: whatever the birth date.

        A place that was not there at the time leaves its share to the others.
        """
        if born is None:
            return min(self.space(day) for day in _ERAS)
        most = 1 / len(usual_places())
        if self.frequent is not None:
            drawn = zip(self.frequent.values, self.frequent.shares, strict=True)
            there = [share for place, share in drawn if _was_there(place, born)]
            kept = self.elsewhere + (1 - self.elsewhere) * sum(there)
            if there:
                most += (1 - self.elsewhere) * max(there) / kept
        return 1 / min(most, 1.0)


def learn_places(texts: Iterable[str]) -> Places:
    """Learn from places of birth, or from NIR (13 or 15 characters, spaces or none)."""
    places = []
    for text in texts:
        bare = re.sub(r"[\s.]", "", text).upper()
        place = bare if len(bare) == 5 else bare[5:10] if len(bare) in (13, 15) else ""
        if PLACE.fullmatch(place):
            places.append(place)
    counts = {p: n for p, n in sorted(Counter(places).items()) if n >= LEAST_HELD}
    if not counts:
        return Places()
    return Places(Mixture.of(counts), 1 - sum(counts.values()) / len(places))


_ERAS: Final = (date(1967, 1, 1), date(1975, 1, 1), date(1976, 1, 1))
"""A day of each time between which departments changed; see ``_was_there``."""


def _was_there(place: str, born: date) -> bool:
    """Whether the code of the department is that of the year of birth.

    2A and 2B replaced 20 on 1 January 1976 (law 75-356). 91 to 95 became departments around Paris
    on 1 January 1968 (law 64-707); before, the codes were those of places in North Africa.
    """
    department = place[:2]
    if department in ("2A", "2B"):
        return born.year >= 1976
    if department == "20":
        return born.year < 1976
    return department not in ("91", "92", "93", "94", "95") or born.year >= 1968
