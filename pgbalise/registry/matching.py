"""Which extracts in the ledger a leak may be a copy of. Pure: entries in, a short list out.

A trace names a recipient; the ledger knows what that recipient took. An extract that contradicts
what the trace saw cannot be the leak's only source, and the contradiction is told in words.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nsmallest
from math import log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgbalise.registry.extracts import Listed

KEPT = 20
"""Extracts that `match` returns at most."""

_UNKNOWN_ROWS = 2.0
"""An extract of an unknown number of rows ranks like one of a hundred times the leak's."""

_GATHERS = re.compile(r"\b(?:array|\w+_agg|xmlagg|to_jsonb?|query_to_xml)\b", re.IGNORECASE)
"""What may put several stored rows into one that is delivered."""


@dataclass(frozen=True)
class Sought:
    """What a trace saw, as far as an extract must fit it.

    ``carriers``: by relation (``schema.name``), the columns in which marks were seen. ``aliases``:
    by the name of a marked view, the relation behind it. ``rows``: distinct stored rows that the
    leak has. ``several``: whether these may come from several extracts (files, or accused). The
    epoch's times are None when unknown, or not yet closed. All times bear their zone.
    """

    recipients: Collection[str]
    carriers: Mapping[str, Collection[str]]
    aliases: Mapping[str, str]
    rows: int
    several: bool
    epoch: int
    epoch_opened_at: datetime | None
    epoch_closed_at: datetime | None
    found_at: datetime


@dataclass(frozen=True)
class PossibleExtract:
    """An extract of an accused recipient's from a relation of the leak.

    ``sequence`` is its entry's number in the ledger. ``ended_at``, ``rows`` and ``outcome`` are
    None when the ledger does not tell. ``fits`` and ``contradicts`` are phrases.
    """

    sequence: int
    recipient: str
    started_at: datetime
    ended_at: datetime | None
    rows: int | None
    outcome: str | None
    command: str
    relations: tuple[str, ...]
    application: str
    client: str
    fits: tuple[str, ...]
    contradicts: tuple[str, ...]


@dataclass(frozen=True)
class Matches:
    """The likeliest extracts, best first; of ``considered`` ones ``fitting`` contradict nothing."""

    best: tuple[PossibleExtract, ...]
    fitting: int
    considered: int


def match(entries: Iterable[Listed], sought: Sought, *, kept: int = KEPT) -> Matches:
    """Rank the extracts among a ledger's entries; holds no more than ``kept`` of them at a time.

    Those without a contradiction come first, then those with fewest. Among equals, the closest:
    orders of magnitude between the rows delivered and the leak's, and between a day and the time
    that passed until the leak was found.
    """
    considered = fitting = 0

    def ranked() -> Iterable[tuple[int, float, int, PossibleExtract]]:
        nonlocal considered, fitting
        for item in entries:
            found = judge(item, sought)
            if found is None:
                continue
            considered += 1
            fitting += not found.contradicts
            yield len(found.contradicts), _distance(found, sought), -found.sequence, found

    best = nsmallest(kept, ranked())
    return Matches(tuple(found for *_, found in best), fitting, considered)


def judge(item: Listed, sought: Sought) -> PossibleExtract | None:
    """Return what speaks for and against an entry; None for one of no accused, or elsewhere."""
    body, end = item.entry.body, item.outcome.body if item.outcome else {}
    if item.entry.kind != "extract" or body.get("recipient") not in sought.recipients:
        return None
    names = tuple(map(str, body.get("relations", ())))
    touched = [name for name in sought.carriers if _touched(name, names, sought.aliases)]
    if not touched:
        return None
    started = _time(body.get("started_at")) or item.entry.recorded_at
    ended = _time(end.get("ended_at") or body.get("ended_at"))
    rows = end.get("rows", body.get("rows"))
    outcome = end.get("outcome") or body.get("outcome")
    fits = [f"read {_listed(touched)}"]
    contradicts: list[str] = []
    for fit, words in (
        *_of_carriers(body.get("carriers"), touched, sought),
        *_of_rows(rows, outcome, body.get("normalised"), sought),
        _of_epoch(body.get("epoch"), started, ended, sought),
        _of_time(started, ended, sought.found_at),
    ):
        (fits if fit else contradicts).append(words)
    return PossibleExtract(
        item.entry.sequence,
        str(body["recipient"]),
        started,
        ended,
        rows,
        None if outcome is None else str(outcome),
        str(body.get("command") or ""),
        names,
        str(body.get("application") or ""),
        str(body.get("client") or ""),
        tuple(fits),
        tuple(contradicts),
    )


def _touched(relation: str, names: Collection[str], aliases: Mapping[str, str]) -> bool:
    return any(aliases.get(name, name) == relation for name in names)


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(str(text)).astimezone(UTC) if text else None


def _listed(names: Iterable[str]) -> str:
    *rest, last = names
    return f"{', '.join(rest)} and {last}" if rest else last


def _of_carriers(
    given: object, touched: Iterable[str], sought: Sought
) -> Iterable[tuple[bool, str]]:
    if not isinstance(given, Mapping):
        return
    for relation in touched:
        seen = sorted(sought.carriers[relation])
        missing = [name for name in seen if name not in given.get(relation, ())]
        if missing:
            yield False, f"was not given {_listed(missing)} of {relation}"
        elif seen:
            yield True, f"was given {_listed(seen)}"


def _of_rows(
    rows: int | None, outcome: object, statement: object, sought: Sought
) -> Iterable[tuple[bool, str]]:
    if rows is None:
        return
    # a proxy that died knows only what had left by then
    at_least = "at least " if outcome == "unknown" else ""
    words = f"delivered {at_least}{rows:,} {_plural('row', rows)}"
    may_hold = bool(at_least) or (
        rows > 0 and (sought.several or bool(_GATHERS.search(str(statement or ""))))
    )
    if rows < sought.rows and may_hold:
        yield True, f"{words}, the leak's {sought.rows:,} may not all be from it"
    else:
        yield rows >= sought.rows, f"{words}, the leak has {sought.rows:,}"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + "s"


def _of_epoch(
    epoch: object, started: datetime, ended: datetime | None, sought: Sought
) -> tuple[bool, str]:
    leaks = f"the leak is of epoch {sought.epoch}"
    if isinstance(epoch, int):
        fit = epoch == sought.epoch
        return fit, f"in epoch {epoch}" + ("" if fit else f", {leaks}")
    if sought.epoch_closed_at is not None and started >= sought.epoch_closed_at:
        return False, f"began later than epoch {sought.epoch}, {leaks}"
    if sought.epoch_opened_at is not None and (ended or started) < sought.epoch_opened_at:
        return False, f"ended before epoch {sought.epoch}, {leaks}"
    return True, f"in epoch {sought.epoch}"


def _of_time(started: datetime, ended: datetime | None, found: datetime) -> tuple[bool, str]:
    if started > found:
        return False, "began after the leak was found"
    days = (found - min(ended or started, found)).days
    when = f"{days:,} {_plural('day', days)}" if days else "less than a day"
    return True, f"{when} before the leak was found"


def _distance(extract: PossibleExtract, sought: Sought) -> float:
    apart = _UNKNOWN_ROWS
    if extract.rows is not None:
        apart = abs(log10((extract.rows + 1) / (sought.rows + 1)))
    passed = sought.found_at - (extract.ended_at or extract.started_at)
    return apart + log10(1 + abs(passed.total_seconds()) / 86_400)
