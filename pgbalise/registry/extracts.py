"""What left through the proxy, as the ledger keeps it, and the answer to who read what when.

An extract is two entries. Kind ``extract`` says who asked for what, and was durable on the proxy's
machine before the first row left; its origin is ``extract:<id>``. Kind ``outcome`` says what came
of it; its origin is ``outcome:<id>``. Origins are unique in a registry, so what is delivered twice
is recorded once. An extract that pgaudit logged is one entry (pgaudit.py) with members of the same
names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pgbalise.errors import InvalidInput
from pgbalise.registry import tables
from pgbalise.registry.ledger import Entry, canonical, instant, read_instant
from pgbalise.registry.store import Draft, problems, stored_entry

OUTCOMES = ("complete", "error", "cancelled", "disconnected", "unknown")
"""How an extract ends; ``unknown`` when the proxy did not live to tell."""

_ID = re.compile("[0-9a-f]{32}")
_DIGEST = re.compile("[0-9a-f]{64}")
_STATE = re.compile("[0-9A-Z]{5}")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def draft(record: Mapping[str, Any]) -> Draft | None:
    """Return what the ledger keeps of a spool's record; None for progress and alerts.

    What a client chose never keeps its extract from being recorded: characters that the ledger
    cannot hold become U+FFFD. Raise InvalidInput, without the record's content, for what is not a
    record.
    """
    try:
        match record["type"]:
            case "intent":
                made = Draft("extract", _intent(record))
            case "outcome":
                made = Draft("outcome", _outcome(record))
            case "progress" | "alert":
                return None
            case _:
                raise ValueError
        canonical(made.body)
    except (KeyError, TypeError, ValueError, InvalidInput):
        raise InvalidInput("this is not a record of the proxy's") from None
    return made


def _intent(record: Mapping[str, Any]) -> dict[str, Any]:
    touched = record["relations"]
    names = list(dict.fromkeys(_text(each["relation"]) for each in touched))
    carriers: dict[str, list[str]] = {name: [] for name in names}
    for each in touched:
        carriers[_text(each["relation"])] += map(_text, each["carriers"])
    epoch = record.get("epoch")
    return {
        "origin": f"extract:{_match(_ID, record['extract'])}",
        "extract": record["extract"],
        "session": _match(_ID, record["session"]),
        "recipient": _text(record["recipient"]),
        "class": _text(record["class"]),
        "database": _text(record["database"]),
        "system": _text(record["system"]),
        "client": _text(record["client"]),
        "application": _text(record["application_name"]),
        "command": _text(record["kind"]).upper(),
        "relations": names,
        "carriers": carriers,
        "epoch": None if epoch is None else _number(epoch),
        "started_at": _time(record["at"]),
        "normalised": _text(record["statement"]),
        "normalised_sha256": _match(_DIGEST, record["statement_hash"]),
    }


def _outcome(record: Mapping[str, Any]) -> dict[str, Any]:
    if record["outcome"] not in OUTCOMES:
        raise ValueError
    body = {
        "origin": f"outcome:{_match(_ID, record['extract'])}",
        "extract": record["extract"],
        "executions": _number(record["executions"]),
        "rows": _number(record["rows"]),
        "bytes": _number(record["bytes"]),
        "started_at": _time(record["started_at"]),
        "ended_at": _time(record["ended_at"]),
        "outcome": record["outcome"],
    }
    if record.get("sqlstate"):
        body["sqlstate"] = _match(_STATE, record["sqlstate"])
    return body


def _match(pattern: re.Pattern[str], value: Any) -> str:
    if pattern.fullmatch(value) is None:
        raise ValueError
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return _UNSTORABLE.sub("\ufffd", value)


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _time(value: Any) -> str:
    return instant(read_instant(value))


class OpenExtracts:
    """The extracts that began and have not ended, by owner: the process that tells of them."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        """Begin with none, or with what ``state`` returned; what cannot be read is left out."""
        self._open: dict[str, dict[str, list[Any]]] = {}
        for owner, extracts in (state or {}).items():
            if not isinstance(extracts, Mapping):
                continue
            for extract, known in extracts.items():
                if isinstance(known, list) and len(known) == len(_COUNTS) + 1:
                    self._open.setdefault(owner, {})[extract] = known

    def state(self) -> dict[str, dict[str, list[Any]]]:
        """Return all of it as plain JSON."""
        return self._open

    def owners(self) -> set[str]:
        """Return the owners that have something open."""
        return set(self._open)

    def follow(self, owner: str, record: Mapping[str, Any]) -> None:
        """Learn from a record, in the order in which its owner wrote it; again is harmless."""
        extract = record.get("extract")
        if not isinstance(extract, str):
            return
        theirs = self._open.setdefault(owner, {})
        match record.get("type"):
            case "intent":
                theirs.setdefault(extract, [record.get("at"), 0, 0, 0])
            case "progress" if extract in theirs:
                known = theirs[extract]
                for at, name in enumerate(_COUNTS, start=1):
                    count = record.get(name)
                    if type(count) is int:
                        known[at] = max(known[at], count)
            case "outcome":
                theirs.pop(extract, None)
        if not theirs:
            del self._open[owner]

    def unknown(self, owner: str, at: datetime) -> list[dict[str, Any]]:
        """Return the outcomes of what a dead owner left open, for ``draft``.

        They say what was last known of rows, bytes and executions: at least so much left. They
        ended before ``at``, now.
        """
        return [
            {
                "type": "outcome",
                "extract": extract,
                **dict(zip(_COUNTS, known[1:], strict=True)),
                "started_at": known[0],
                "ended_at": instant(at),
                "outcome": "unknown",
            }
            for extract, known in self._open.get(owner, {}).items()
        ]

    def forget(self, owner: str) -> None:
        """Drop what an owner left open, once it is told."""
        self._open.pop(owner, None)


_COUNTS = ("executions", "rows", "bytes")


@dataclass(frozen=True)
class Listed:
    """An entry, and for an extract of the proxy's that has ended the entry of its outcome."""

    entry: Entry
    outcome: Entry | None


def listed(
    registry: sa.Connection,
    *,
    kind: str | None = None,
    recipient: str | None = None,
    database: str | None = None,
    relations: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = None,
) -> Iterator[Listed]:
    """Yield entries in order, those that fit every filter given; streams.

    Outcomes come with their extracts, unless they are what is asked for (``kind``). Of several
    ``relations`` one is enough. An entry fits ``since`` (inclusive) and ``until`` (exclusive) when
    the time from its beginning to its end has a part in common with them: an extract of the
    proxy's without an outcome has not ended; what only happened, or was only recorded, at one
    time ended then. ``limit`` keeps the last ones.
    """
    table, end = tables.entry, tables.entry.alias("outcome")
    # times in bodies are always written in one form, of UTC, so text compares like time
    recorded = sa.func.to_char(
        sa.func.timezone("UTC", table.c.recorded_at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
    )
    began = sa.func.coalesce(table.c.body["started_at"].astext, recorded)
    ended = sa.case(
        (table.c.origin.startswith("extract:"), end.c.body["ended_at"].astext),
        else_=sa.func.coalesce(table.c.body["ended_at"].astext, began),
    )
    columns = [column.label(f"outcome_{column.name}") for column in end.c]
    query = (
        sa.select(table, *columns)
        .select_from(
            table.outerjoin(
                end,
                sa.and_(
                    table.c.kind == "extract",
                    end.c.origin == sa.func.concat("outcome:", table.c.body["extract"].astext),
                ),
            )
        )
        .order_by(table.c.sequence)
    )
    query = query.where(table.c.kind == kind if kind else table.c.kind != "outcome")
    for name, value in (("recipient", recipient), ("database", database)):
        if value is not None:
            query = query.where(table.c.body.contains({name: value}))
    if relations:
        query = query.where(
            sa.or_(*(table.c.body.contains({"relations": [name]}) for name in relations))
        )
    if until is not None:
        query = query.where(sa.collate(began, "C") < instant(until))
    if since is not None:
        query = query.where(
            sa.or_(ended.is_(None), sa.collate(ended, "C") >= instant(since)),
        )
    if limit is not None:
        tail = query.order_by(None).order_by(table.c.sequence.desc()).limit(limit).subquery()
        query = sa.select(tail).order_by(tail.c.sequence)
    with problems(), registry.execute(query.execution_options(yield_per=1000)) as rows:
        for row in rows:
            outcome = None if row.outcome_sequence is None else stored_entry(row, "outcome_")
            yield Listed(stored_entry(row), outcome)
