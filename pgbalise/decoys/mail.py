"""Mail addresses in a domain that the establishment owns, or that nobody can."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

from pgbalise.decoys.names import given_words, least_choice
from pgbalise.decoys.stream import Mixture, Stream
from pgbalise.decoys.traits import fold
from pgbalise.errors import EnvironmentProblem, InvalidInput

_RESERVED: Final = ("example.com", "example.net", "example.org")
_RESERVED_TOP: Final = ("test", "example", "invalid", "localhost")
_DOMAIN: Final = re.compile(
    r"(?=.{4,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}"
)


def reserved(domain: str) -> bool:
    """Whether nobody can own a domain: RFC 2606, sections 2 and 3; RFC 6761, section 6."""
    labels = domain.lower().rstrip(".").split(".")
    return labels[-1] in _RESERVED_TOP or ".".join(labels[-2:]) in _RESERVED


@cache
def _public() -> frozenset[str]:
    try:
        from faker.providers.internet import Provider
        from faker.providers.internet.fr_FR import Provider as French
    except ImportError as error:
        raise EnvironmentProblem(
            "names of patients who do not exist need the package Faker",
            hint="run: pip install 'pgbalise[decoys]'",
        ) from error
    listed = {*Provider.free_email_domains, *French.free_email_domains}
    return frozenset(
        listed | {"outlook.com", "outlook.fr", "icloud.com", "proton.me", "wanadoo.fr"}
    )


def check_domain(domain: str) -> str:
    """Return a domain in small letters.

    Raise InvalidInput for what is none, and for a public provider's: anybody may open the address.
    """
    small = domain.strip().lower()
    if not _DOMAIN.fullmatch(small):
        raise InvalidInput(
            "the mail domain of the decoys is not a domain name",
            hint="name one that the establishment owns, or example.org",
        )
    if small in _public():
        raise InvalidInput(
            f"{small} gives addresses to anybody: a decoy's could be a person's",
            hint="name one that the establishment owns, or example.org",
        )
    return small


@dataclass(frozen=True)
class LocalPart:
    """What stands before the @: ``f`` family name, ``g`` given name, ``i`` its initial."""

    pattern: str
    digits: int

    def write(self, stream: Stream, family: str, given: str) -> str:
        """Write names as letters of ASCII."""
        words = {"f": _letters(family), "g": _letters(given)}
        words["i"] = words["g"][:1]
        body = "".join(words.get(letter, letter) for letter in self.pattern)
        return body + stream.digits(self.digits)

    def space(self, families: tuple[str, ...], givens: tuple[str, ...]) -> float:
        """Among how many equally likely ones, at least; an initial is counted as nothing."""
        names = least_choice(families) * (least_choice(givens) if "g" in self.pattern else 1.0)
        return names * 10.0**self.digits


def _letters(name: str) -> str:
    return fold(name).replace(" ", "")


USUAL: Final = Mixture.of({LocalPart("g.f", 0): 3.0, LocalPart("g.f", 2): 2.0})


def learn_mail(texts: Iterable[str]) -> Mixture[LocalPart]:
    """Learn how local parts are made from a column's texts; without one, given.family.

    A part is a given name when Faker's lists have it, an initial when it is one letter.
    """
    found = Counter(
        part
        for text in texts
        if "@" in text and (part := _local_part(text.strip().lower().split("@")[0]))
    )
    total = sum(found.values())
    often = {part: count for part, count in found.items() if count >= max(2, 0.02 * total)}
    if not often:
        return USUAL
    return Mixture.of({p: often[p] for p in sorted(often, key=lambda p: (p.pattern, p.digits))})


def _local_part(local: str) -> LocalPart | None:
    match = re.fullmatch(r"([a-z]+)(?:([._-])([a-z]+))?([0-9]{0,4})", local)
    if match is None:
        return None
    first, separator, second, digits = match.groups()
    known = given_words()
    if second is None:
        whole = any(first.startswith(name) for name in known if len(name) > 3)
        return LocalPart("gf" if whole else "if", len(digits))
    kinds = ["i" if len(word) == 1 else "g" if word in known else "f" for word in (first, second)]
    if kinds.count("f") != 1:
        return None
    return LocalPart(separator.join(kinds), len(digits))
