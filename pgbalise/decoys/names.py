"""Names as a column writes them: Faker's French lists, in the site's case, accents and order.

The lists (MIT licence) are drawn from by our own choice: a call of Faker per name would take a
minute for 50,000. Faker says of no name when it was given, so a name fits the sex, not the year.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Final

from pgbalise.decoys.stream import Stream
from pgbalise.decoys.traits import fold
from pgbalise.errors import EnvironmentProblem

_MOST_COMPOUND: Final = 0.2
_LIGATURES: Final = str.maketrans({"œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE"})


class Case(StrEnum):
    """How letters are written."""

    TITLE = "title"
    UPPER = "upper"
    LOWER = "lower"


@dataclass(frozen=True)
class Look:
    """How a column writes names."""

    case: Case = Case.TITLE
    accents: bool = True
    hyphens: bool = True
    compound: float = 0.0
    """The share of names of two parts."""

    def write(self, name: str) -> str:
        """Write a name (in title case, with accents) the column's way."""
        if not self.hyphens:
            name = name.replace("-", " ")
        if not self.accents:
            name = plain(name)
        if self.case is Case.UPPER:
            return name.upper()
        return name.lower() if self.case is Case.LOWER else name


def plain(text: str) -> str:
    """Return a text without accents and ligatures; case and punctuation stay."""
    apart = unicodedata.normalize("NFKD", text.translate(_LIGATURES))
    return "".join(letter for letter in apart if not unicodedata.combining(letter))


def learn_look(texts: Sequence[str], default: Look | None = None) -> Look:
    """Learn how names are written from a column's texts; without one, ``default``."""
    texts = [text for text in texts if any(letter.isalpha() for letter in text)]
    if not texts:
        return default or Look()
    cases = Counter(
        Case.UPPER if text.isupper() else Case.LOWER if text.islower() else Case.TITLE
        for text in texts
    )
    hyphens = sum("-" in text for text in texts)
    spaces = sum(" " in text.strip() for text in texts)
    return Look(
        cases.most_common(1)[0][0],
        sum(plain(text) != text for text in texts) >= 0.005 * len(texts),
        hyphens > 0 or spaces == 0,
        min(hyphens / len(texts), _MOST_COMPOUND),
    )


@dataclass(frozen=True)
class NameLists:
    """French names in title case, each once; the likeliest first."""

    family: tuple[str, ...]
    female: tuple[str, ...]
    male: tuple[str, ...]

    def given(self, sex: str) -> tuple[str, ...]:
        """Return the given names of a sex, F or M."""
        return self.female if sex == "F" else self.male


@cache
def name_lists() -> NameLists:
    """Return Faker's French names; raise EnvironmentProblem when Faker is not installed."""
    try:
        from faker.providers.person.fr_FR import Provider
    except ImportError as error:
        raise EnvironmentProblem(
            "names of patients who do not exist need the package Faker",
            hint="run: pip install 'pgbalise[decoys]'",
        ) from error
    return NameLists(
        tuple(dict.fromkeys(Provider.last_names)),
        tuple(dict.fromkeys(Provider.first_names_female)),
        tuple(dict.fromkeys(Provider.first_names_male)),
    )


@cache
def given_words() -> frozenset[str]:
    """Return all given names, folded."""
    lists = name_lists()
    return frozenset(fold(name) for name in lists.female + lists.male)


@cache
def least_choice(names: tuple[str, ...]) -> float:
    """Among how many equally likely folded names one of these is drawn, at least."""
    return len(names) / max(Counter(map(fold, names)).values())


@cache
def least_people(families: tuple[str, ...], givens: tuple[str, ...]) -> float:
    """Among how many equally likely people one is drawn, at least, whose names have no order.

    Thomas Martin is Martin Thomas where both lists have both names.
    """
    first = [fold(name).split() for name in families]
    second = [fold(name).split() for name in givens]
    ways = Counter(tuple(sorted(one + other)) for one in first for other in second)
    return len(families) * len(givens) / max(ways.values())


def draw_name(stream: Stream, names: Sequence[str], compound: float) -> str:
    """Draw a name, of two parts with the share ``compound``."""
    first, second, point = stream.pick(names), stream.pick(names), stream.share()
    return f"{first}-{second}" if point < compound and first != second else first


@dataclass(frozen=True)
class FullLook:
    """How a column writes family and given name together."""

    family_first: bool = True
    separator: str = " "
    family: Look = Look(Case.UPPER)
    given: Look = Look()
    titles: tuple[str, str] | None = None
    """What stands before a man's and a woman's name."""

    def write(self, family: str, given: str, sex: str) -> str:
        """Write names (in title case, with accents) the column's way."""
        words = [self.family.write(family), self.given.write(given)]
        if not self.family_first:
            words.reverse()
        text = self.separator.join(words)
        return f"{self.titles[sex == 'F']} {text}" if self.titles else text


_TITLES: Final = {
    "M.": ("M.", "Mme"),
    "M": ("M", "Mme"),
    "MR": ("MR", "MME"),
    "Mr": ("Mr", "Mme"),
    "Monsieur": ("Monsieur", "Madame"),
    "MONSIEUR": ("MONSIEUR", "MADAME"),
}


def learn_full_look(texts: Sequence[str]) -> FullLook:
    """Learn how family and given name stand together from a column's texts.

    A comma follows the family name. Else what is in capitals beside what is not is the family name;
    else the order is that in which given names of Faker's lists are found.
    """
    split = [(text.split(), text) for text in texts]
    split = [(words, text) for words, text in split if len(words) >= 2]
    if not split:
        return FullLook()
    titles = Counter(words[0] for words, _ in split if words[0] in _TITLES and len(words) > 2)
    titled = titles.most_common(1)
    civil = _TITLES[titled[0][0]] if titled and titled[0][1] >= 0.1 * len(split) else None
    known = {word for pair in _TITLES.values() for word in pair} | {"Mlle", "MLLE"}
    bodies = [
        words[1:] if civil and words[0] in known and len(words) > 2 else words for words, _ in split
    ]
    commas = sum("," in text for _, text in split) > 0.5 * len(split)
    votes = Counter(_family_first(words) for words in bodies)
    family_first = commas or votes[True] >= votes[False]
    pairs = [(words[0], words[-1]) if family_first else (words[-1], words[0]) for words in bodies]
    return FullLook(
        family_first,
        ", " if commas else " ",
        learn_look([family.strip(",") for family, _ in pairs]),
        learn_look([given for _, given in pairs]),
        civil,
    )


def _family_first(words: Sequence[str]) -> bool | None:
    first, last = words[0], words[-1]
    if first.isupper() != last.isupper():
        return first.isupper()
    known = given_words()
    if (fold(first) in known) != (fold(last) in known):
        return fold(last) in known
    return None


_WAYS: Final = ("rue", "rue", "rue", "avenue", "chemin", "boulevard", "place", "impasse")


@dataclass(frozen=True)
class StreetLook:
    """How a column writes a house number and a street."""

    look: Look = Look()
    comma: bool = False
    number: bool = True

    def draw(self, stream: Stream) -> str:
        """Draw a street named after nobody in particular."""
        number, way = 1 + stream.below(98), stream.pick(_WAYS)
        lists = name_lists()
        given = stream.pick(lists.female + lists.male)
        name = stream.pick(lists.family)
        street = f"{way} {given} {name}" if stream.below(2) else f"{way} {name}"
        if self.number:
            street = f"{number}{',' if self.comma else ''} {street}"
        return self.look.write(street)


def learn_street(texts: Sequence[str]) -> StreetLook:
    """Learn how streets are written from a column's texts."""
    texts = [text for text in texts if text.strip()]
    if not texts:
        return StreetLook()
    numbered = [text for text in texts if text.lstrip()[0].isdecimal()]
    commas = sum("," in text.split(" ")[0] for text in numbered)
    return StreetLook(
        learn_look(texts), 2 * commas > len(numbered) > 0, 2 * len(numbered) >= len(texts)
    )
