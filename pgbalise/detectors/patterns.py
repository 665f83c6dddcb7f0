"""What of each decoy a detector is to look for, and what it is not given, and why."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.spellings import Spelling, birth_dates, person_names, spellings
from pgbalise.decoys.traits import TraitKind, fold

LEAST_ALONE: Final = 8
"""Characters that a text needs to be looked for in any traffic or file: shorter ones are also the
numbers of other things."""

NUMBERS: Final = frozenset(TraitKind) - {TraitKind.PERSON}
"""The kinds of which a single text tells the decoy."""


@dataclass(frozen=True)
class Person:
    """Names and a birth date: alone they are others' too, near to each other they tell the decoy.

    ``names`` are pairs: the ways to write one name, and those to write the name that follows it.
    """

    names: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    dates: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """A decoy as a detector is to see it.

    ``rule`` is what rules and reports call it: ``d`` and 16 hexadecimal digits, the same in every
    format and every export. ``texts`` are of the kinds in ``NUMBERS``.
    """

    rule: str
    decoy: IssuedDecoy
    texts: tuple[Spelling, ...]
    person: Person | None

    @property
    def patterns(self) -> int:
        """How many texts are looked for; names with a birth date count as one."""
        return len(self.texts) + (self.person is not None)

    def of(self, kind: TraitKind) -> tuple[str, ...]:
        """Return the texts of a kind."""
        return tuple(spelling.text for spelling in self.texts if spelling.kind == kind)


@dataclass(frozen=True)
class Selection:
    """The decoys to look for, in the order of their rules, and how much was left out and why.

    ``kinds`` are those looked for.
    """

    targets: tuple[Target, ...]
    kinds: frozenset[TraitKind]
    left_out: Mapping[str, int]

    @property
    def patterns(self) -> int:
        """How many texts are looked for in all."""
        return sum(target.patterns for target in self.targets)


def rule_name(decoy: IssuedDecoy) -> str:
    """Return what rules call a decoy, which says nothing of its recipient.

    It depends on what the catalog alone has together: the decoy's key, its number and the time of
    issue to the microsecond. Whoever knows all of these knows the recipient anyway.
    """
    known = [
        decoy.decoy_id,
        decoy.recipient,
        decoy.number,
        sorted(decoy.key.items()),
        decoy.issued_at.astimezone(UTC).isoformat(),
    ]
    text = "pgbalise decoy rule 1\n" + json.dumps(known, ensure_ascii=True)
    return "d" + hashlib.sha256(text.encode()).hexdigest()[:16]


def select(
    decoys: Iterable[IssuedDecoy],
    kinds: Collection[TraitKind],
    only: Collection[TraitKind] | None = None,
    *,
    least: int = LEAST_ALONE,
    retired: bool = False,
) -> Selection:
    """Return what a detector is to look for.

    ``kinds`` are those that it can match, ``only`` those wanted, ``least`` the length in
    characters below which it would mistake a text for something else. Decoys that were taken back
    are left out unless ``retired``.
    """
    left_out: Counter[str] = Counter()
    targets = []
    for decoy in decoys:
        if decoy.retired_at is not None and not retired:
            left_out["decoys that were retired"] += 1
            continue
        texts = []
        for spelling in spellings(decoy):
            reason = _against(spelling, kinds, only, least)
            if reason is not None:
                left_out[reason] += reason != ""
            elif _writable(spelling.text):
                texts.append(spelling)
            else:
                left_out["texts with control characters"] += 1
        person = None
        if only is None or TraitKind.PERSON in only:
            person = _person(decoy)
            if person is not None and TraitKind.PERSON not in kinds:
                left_out["names, which the format cannot tie to a birth date"] += 1
                person = None
        if texts or person is not None:
            targets.append(Target(rule_name(decoy), decoy, tuple(texts), person))
        else:
            left_out["decoys of which nothing remains"] += 1
    # by the rule's name: the catalog's order would tell which belong together
    targets.sort(key=lambda target: target.rule)
    wanted = frozenset(kinds if only is None else set(kinds) & set(only))
    return Selection(tuple(targets), wanted, {reason: n for reason, n in left_out.items() if n})


def _against(
    spelling: Spelling,
    kinds: Collection[TraitKind],
    only: Collection[TraitKind] | None,
    least: int,
) -> str | None:
    """Return why a spelling is left out, an empty text when nobody need be told; None to keep."""
    if spelling.kind is TraitKind.PERSON or (only is not None and spelling.kind not in only):
        return ""
    if spelling.kind not in kinds:
        return f"spellings of kind {spelling.kind.value}, which the format cannot hold"
    if len(spelling.text) < least:
        return f"numbers of fewer than {least} characters"
    return None


def _writable(text: str) -> bool:
    return not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)


def _person(decoy: IssuedDecoy) -> Person | None:
    dates, names = birth_dates(decoy), person_names(decoy)
    if not dates or not names:
        return None
    if not all(_writable(name) for pair in names for name in pair):
        return None
    return Person(tuple((tuple(_ways(a)), tuple(_ways(b))) for a, b in names), dates)


def _ways(name: str) -> Iterator[str]:
    """Yield a name's ways of writing that differ in more than the case of ASCII letters."""
    decomposed = unicodedata.normalize("NFKD", name)
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    seen = set()
    for text in (name, name.lower(), name.upper(), plain, fold(name)):
        # administrative files write neither hyphens nor apostrophes
        bare = "".join(letter if letter.isalnum() else " " for letter in text)
        for way in (text, " ".join(bare.split())):
            key = "".join(letter.lower() if letter.isascii() else letter for letter in way)
            if way and key not in seen:
                seen.add(key)
                yield way
