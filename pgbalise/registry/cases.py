"""Cases: the leaks of one affair, and what was concluded when. looks.py takes the looks.

The k-th look of a case tests at spend(alpha, k), so that all looks together, however many, accuse
anyone wrongly with probability at most the case's alpha. A look is taken in the registry before
the trace runs; its verdict is written before anyone sees it. Each step is an entry of the ledger
too, written in the same transaction: kinds ``case_opened``, ``leak_added``, ``trace_begun``,
``trace_run``, ``case_closed`` and ``case_reopened``. Their bodies hold no floating-point numbers:
those are texts, as Python writes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from pgbalise.errors import InvalidInput, InvalidLeak
from pgbalise.registry import tables
from pgbalise.registry.ledger import Entry, instant
from pgbalise.registry.store import Draft, append, lock, problems, snapshot, stored_entry
from pgbalise.tracing.decision import spend

State = Literal["done", "running", "lost"]
"""``lost``: begun, and ended without a verdict; the look is spent."""

RUNNING = 1_702_063_201
"""First half of the advisory lock that a run holds; the other half is its number."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class LeakedFile:
    """A file of a case; ``number`` counts within the case, ``size`` is in bytes."""

    number: int
    name: str
    sha256: str
    size: int
    found_at: datetime
    added_at: datetime


@dataclass(frozen=True)
class Run:
    """A run of the tracer in a case.

    ``look`` is the number of the look that it took, or that of the run it ``repeats``. ``alpha`` is
    what that look tests at. ``files`` are numbers of files of the case. ``verdict`` is the object
    that ``trace --json`` prints, with at most a hundred recipients unless more are accused.
    """

    number: int
    look: int
    alpha: float
    begun_at: datetime
    ended_at: datetime | None
    database: str
    relation: str | None
    files: tuple[int, ...]
    parameters: Mapping[str, Any]
    verdict: Mapping[str, Any] | None
    report_sha256: str | None
    repeats: int | None
    state: State

    @property
    def accused(self) -> list[str]:
        """The recipients accused, strongest evidence first."""
        found = self.verdict["verdicts"] if self.verdict else ()
        return [one["recipient"] for one in found if one["accused"]]


@dataclass(frozen=True)
class Case:
    """A case as the registry has it. ``history``: its entries in the ledger, in order."""

    number: int
    title: str
    alpha: float
    opened_at: datetime
    closed_at: datetime | None
    conclusion: str | None
    files: tuple[LeakedFile, ...] = ()
    runs: tuple[Run, ...] = ()
    history: tuple[Entry, ...] = ()

    @property
    def looks(self) -> int:
        """How many looks were taken."""
        return max((run.look for run in self.runs), default=0)

    @property
    def accused(self) -> list[str]:
        """Everyone whom a look accused, in the order of the looks."""
        return list(dict.fromkeys(name for run in self.runs for name in run.accused))

    @property
    def spent(self) -> float:
        """The part of alpha that the looks so far took together."""
        return sum(spend(self.alpha, look) for look in range(1, self.looks + 1))


def open_case(registry: sa.Connection, title: str, alpha: float, at: datetime) -> int:
    """Open a case whose looks may together accuse wrongly with probability alpha; its number.

    Raise InvalidInput for a title without a letter, or an alpha outside (0, 1).
    """
    if not title.strip():
        raise InvalidInput("a case needs a title")
    if not 0 < alpha < 1:
        raise InvalidInput("a case's alpha is between 0 and 1", hint="for example 1e-6")
    table = tables.investigation
    with problems(), registry.begin():
        lock(registry)
        number = int(
            registry.execute(
                sa.insert(table)
                .values(title=title, opened_at=at, alpha=alpha)
                .returning(table.c.investigation_id)
            ).scalar_one()
        )
        about = {"case": reference(number, at), "title": title, "alpha": repr(alpha)}
        append(registry, [Draft("case_opened", about)], at)
    return number


def add_leaks(
    registry: sa.Connection, number: int, files: Sequence[Path], found_at: datetime, at: datetime
) -> list[tuple[LeakedFile, list[int]]]:
    """Add files to a case, all or none: their names, SHA-256 and sizes, never their content.

    Return each with the numbers of the other cases that have it. Raise InvalidLeak for a file that
    cannot be read, InvalidInput for one that is in the case already, for a case that is closed
    or not there, and for files found after ``at``, now.
    """
    if found_at > at:
        raise InvalidInput("a leak cannot have been found in the future")
    known = [(_storable(path.name), *digest_of(path)) for path in files]
    added = []
    with problems(), registry.begin():
        row = open_row(registry, number)
        have = {file.sha256: file.number for file in files_of(registry, number)}
        for name, digest, size in known:
            if digest in have:
                raise InvalidInput(f"{name} is in case {number} already, as file {have[digest]}")
            have[digest] = len(have) + 1
            file = LeakedFile(have[digest], name, digest, size, found_at, at)
            registry.execute(
                sa.insert(tables.leak).values(
                    investigation_id=number,
                    file_name=name,
                    file_digest=bytes.fromhex(digest),
                    size=size,
                    found_at=found_at,
                    added_at=at,
                )
            )
            about = {
                "case": reference(number, row.opened_at),
                "leak": file.number,
                "file": name,
                "sha256": digest,
                "size": size,
                "found_at": instant(found_at),
            }
            append(registry, [Draft("leak_added", about)], at)
            added.append((file, _other_cases(registry, number, digest)))
    return added


def close_case(registry: sa.Connection, number: int, conclusion: str, at: datetime) -> None:
    """Close a case: from then on it takes nothing more.

    Raise InvalidInput without a conclusion, and while a run is under way.
    """
    if not conclusion.strip():
        raise InvalidInput("a case is closed with a conclusion", hint="--conclusion TEXT")
    with problems(), registry.begin():
        row = open_row(registry, number)
        if any(run.state == "running" for run in runs_of(registry, number)):
            raise InvalidInput(f"a trace of case {number} is running", hint="wait for its verdict")
        registry.execute(
            sa.update(tables.investigation)
            .where(tables.investigation.c.investigation_id == number)
            .values(closed_at=at, conclusion=conclusion)
        )
        about = {"case": reference(number, row.opened_at), "conclusion": conclusion}
        append(registry, [Draft("case_closed", about)], at)


def reopen_case(registry: sa.Connection, number: int, reason: str, at: datetime) -> None:
    """Open a closed case again; its looks go on where they were.

    What was concluded stays in the ledger. Raise InvalidInput when the case is open, or without a
    reason.
    """
    if not reason.strip():
        raise InvalidInput("a case is reopened for a reason", hint="--reason TEXT")
    with problems(), registry.begin():
        lock(registry)
        row = case_row(registry, number)
        if row.closed_at is None:
            raise InvalidInput(f"case {number} is open")
        registry.execute(
            sa.update(tables.investigation)
            .where(tables.investigation.c.investigation_id == number)
            .values(closed_at=None, conclusion=None)
        )
        about = {"case": reference(number, row.opened_at), "reason": reason}
        append(registry, [Draft("case_reopened", about)], at)


def cases(registry: sa.Connection) -> list[Case]:
    """Return every case, the oldest first, without its history."""
    with problems(), snapshot(registry):
        rows = registry.execute(
            sa.select(tables.investigation).order_by(tables.investigation.c.investigation_id)
        ).all()
        return [_case(registry, row) for row in rows]


def case(registry: sa.Connection, number: int) -> Case:
    """Return a case with all that the registry has of it; raise InvalidInput if there is none."""
    with problems(), snapshot(registry):
        found = _case(registry, case_row(registry, number))
        return Case(**{**vars(found), "history": tuple(_history(registry, found))})


def faults(found: Case) -> list[str]:
    """Say where the registry's tables tell of a case something else than its ledger does."""
    told: dict[tuple[str, int], Mapping[str, Any]] = {}
    for entry in found.history:
        which = entry.body.get("run", entry.body.get("leak", 0))
        told[entry.kind, which] = entry.body
    wrong = []

    def compare(what: str, kind: str, which: int, facts: Mapping[str, Any]) -> None:
        body = told.pop((kind, which), None)
        if body is None:
            wrong.append(f"{what}: the ledger has no entry {kind}")
        elif any(body.get(name) != value for name, value in facts.items()):
            wrong.append(f"{what}: not what the ledger's entry {kind} says")

    facts = {"title": found.title, "alpha": repr(found.alpha)}
    compare("the case", "case_opened", 0, facts)
    for file in found.files:
        digest = {"file": file.name, "sha256": file.sha256, "found_at": instant(file.found_at)}
        compare(f"file {file.number}", "leak_added", file.number, digest)
    for run in found.runs:
        spent = {"look": run.look, "alpha": repr(run.alpha)}
        if run.repeats is None:
            compare(f"look {run.look}", "trace_begun", run.number, spent)
        if run.verdict is not None:
            ended = {"verdict_sha256": verdict_sha256(run.verdict), "accused": ledger_accused(run)}
            reported = {"report_sha256": run.report_sha256}
            compare(f"look {run.look}", "trace_run", run.number, spent | ended | reported)
    if found.conclusion is not None:
        compare("the conclusion", "case_closed", 0, {"conclusion": found.conclusion})
    # what is left was recorded, and is gone from the tables
    gone = {"leak_added": "file", "trace_begun": "run", "trace_run": "verdict of run"}
    wrong += [
        f"{gone[kind]} {which}: in the ledger, and no longer in the table"
        for kind, which in told
        if kind in gone
    ]
    return wrong


def verdict_sha256(verdict: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a verdict's JSON: sorted members, no spaces, numbers as Python's."""
    text = json.dumps(
        _without_negative_zero(verdict), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _without_negative_zero(value: Any) -> Any:
    # the database's numbers have none
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, Mapping):
        return {name: _without_negative_zero(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_negative_zero(each) for each in value]
    return value


def ledger_accused(found: Run) -> list[dict[str, str]]:
    """Return the accused as the ledger names them, strongest evidence first."""
    verdicts = found.verdict["verdicts"] if found.verdict else ()
    return [
        {"recipient": one["recipient"], "log10_e_value": repr(one["log10_e_value"])}
        for one in verdicts
        if one["accused"]
    ]


def digest_of(path: Path) -> tuple[str, int]:
    """Return a file's SHA-256 and size; raise InvalidLeak when it cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as problem:
        raise InvalidLeak(f"{path}: {problem.strerror}") from None
    return digest.hexdigest(), size


def _storable(name: str) -> str:
    """A file's name was the thief's choice, and need not be text."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def reference(number: int, opened_at: datetime) -> dict[str, Any]:
    """Return how the ledger names a case."""
    # its number alone would mean another case in a registry that imported this ledger
    return {"number": number, "opened_at": instant(opened_at)}


def case_row(registry: sa.Connection, number: int) -> Any:
    """Return a case's row; raise InvalidInput when there is none."""
    table = tables.investigation
    found = registry.execute(
        sa.select(table).where(table.c.investigation_id == number)
    ).one_or_none()
    if found is None:
        raise InvalidInput(f"there is no case {number}", hint="see pgbalise case list")
    return found


def refuse_closed(row: Any) -> None:
    """Raise InvalidInput for the row of a closed case."""
    if row.closed_at is not None:
        raise InvalidInput(
            f"case {row.investigation_id} is closed and takes nothing more",
            hint="pgbalise case reopen",
        )


def open_row(registry: sa.Connection, number: int) -> Any:
    """Return an open case, which nobody else changes until the transaction ends."""
    lock(registry)
    row = case_row(registry, number)
    refuse_closed(row)
    return row


def _case(registry: sa.Connection, row: Any) -> Case:
    return Case(
        row.investigation_id,
        row.title,
        row.alpha,
        row.opened_at,
        row.closed_at,
        row.conclusion,
        tuple(files_of(registry, row.investigation_id)),
        tuple(runs_of(registry, row.investigation_id)),
    )


def files_of(registry: sa.Connection, number: int) -> list[LeakedFile]:
    """Return a case's files, in the order in which they were added."""
    table = tables.leak
    rows = registry.execute(
        sa.select(table).where(table.c.investigation_id == number).order_by(table.c.leak_id)
    )
    return [
        LeakedFile(
            at, row.file_name, bytes(row.file_digest).hex(), row.size, row.found_at, row.added_at
        )
        for at, row in enumerate(rows, start=1)
    ]


def _other_cases(registry: sa.Connection, number: int, digest: str) -> list[int]:
    table = tables.leak
    query = sa.select(table.c.investigation_id).where(
        table.c.file_digest == bytes.fromhex(digest), table.c.investigation_id != number
    )
    return sorted(registry.execute(query).scalars())


def runs_of(registry: sa.Connection, number: int) -> list[Run]:
    """Return a case's runs, in the order in which they began."""
    table, database = tables.trace, tables.database
    running = set(
        registry.execute(
            sa.text(
                "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
                " AND classid::bigint = :running AND database ="
                " (SELECT oid FROM pg_database WHERE datname = current_database())"
            ),
            {"running": RUNNING},
        ).scalars()
    )
    numbers = {file.sha256: file.number for file in files_of(registry, number)}
    rows = registry.execute(
        sa.select(table, database.c.name.label("database"))
        .join(database, table.c.database_id == database.c.database_id)
        .where(table.c.investigation_id == number)
        .order_by(table.c.trace_id)
    )
    found = []
    for row in rows:
        state: State = "done"
        if row.verdict is None:
            state = "running" if half(row.trace_id) in running else "lost"
        digests = row.parameters.get("files", ())
        found.append(
            Run(
                row.trace_id,
                row.look,
                row.alpha,
                row.run_at,
                row.ended_at,
                row.database,
                row.relation,
                tuple(sorted(numbers[digest] for digest in digests if digest in numbers)),
                row.parameters,
                row.verdict,
                None if row.report_digest is None else bytes(row.report_digest).hex(),
                row.repeats,
                state,
            )
        )
    return found


def half(number: int) -> int:
    """Return the half of the advisory lock that names a run."""
    return number % 2**31


def _history(registry: sa.Connection, found: Case) -> Iterator[Entry]:
    table = tables.entry
    about = {"case": reference(found.number, found.opened_at)}
    query = sa.select(table).where(table.c.body.contains(about)).order_by(table.c.sequence)
    for row in registry.execute(query):
        yield stored_entry(row)
