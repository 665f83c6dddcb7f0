"""Cases: the leaks of one affair, every look at them, and what was concluded when.

The k-th look of a case tests at spend(alpha, k), so that all looks together, however many, accuse
anyone wrongly with probability at most the case's alpha. A look is taken in the registry before
the trace runs; its verdict is written before anyone sees it. Each step is an entry of the ledger
too, written in the same transaction: kinds ``case_opened``, ``leak_added``, ``trace_begun``,
``trace_run``, ``case_closed`` and ``case_reopened``. Their bodies hold no floating-point numbers:
those are texts, as Python writes them.

Who asks again with the same inputs gets the same look: see `run`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from pgbalise.errors import InvalidInput, InvalidLeak
from pgbalise.marking.keys import MasterKey
from pgbalise.registry import tables
from pgbalise.registry.extracts import listed
from pgbalise.registry.ledger import Entry, canonical, instant
from pgbalise.registry.matching import Matches, Sought, match
from pgbalise.registry.record import database_number, identity
from pgbalise.registry.store import Draft, append, lock, problems, stored_entry
from pgbalise.tracing.decision import spend

if TYPE_CHECKING:
    from pgbalise.report.case import TraceReport

Clock = Callable[[], datetime]
"""Tells the time, with its zone."""

State = Literal["done", "running", "lost"]
"""``lost``: begun, and ended without a verdict; the look is spent."""

_RUNNING = 1_702_063_201
"""First half of the advisory lock that a run holds; the other half is its number."""

_RECORDED = 100
"""Recipients of a verdict that the registry keeps, unless more are accused."""

_SAME = 1e-6
"""How far apart the numbers of one verdict may be when it is computed twice."""

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


@dataclass(frozen=True)
class Outcome:
    """What a run answered, and the extracts that the leak may be a copy of."""

    case: Case
    run: Run
    report: TraceReport
    rendered: bytes | None
    extracts: Matches


@dataclass(frozen=True)
class Question:
    """What is asked of the leaked files: where they may come from, and the keys to try."""

    relation: str | None
    keys: Sequence[MasterKey]
    dsn: str


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
        about = {"case": _reference(number, at), "title": title, "alpha": repr(alpha)}
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
    known = [(_storable(path.name), *_digest(path)) for path in files]
    added = []
    with problems(), registry.begin():
        row = _open_row(registry, number)
        have = {file.sha256: file.number for file in _files(registry, number)}
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
                "case": _reference(number, row.opened_at),
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
        row = _open_row(registry, number)
        if any(run.state == "running" for run in _runs(registry, number)):
            raise InvalidInput(f"a trace of case {number} is running", hint="wait for its verdict")
        registry.execute(
            sa.update(tables.investigation)
            .where(tables.investigation.c.investigation_id == number)
            .values(closed_at=at, conclusion=conclusion)
        )
        about = {"case": _reference(number, row.opened_at), "conclusion": conclusion}
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
        row = _row(registry, number)
        if row.closed_at is None:
            raise InvalidInput(f"case {number} is open")
        registry.execute(
            sa.update(tables.investigation)
            .where(tables.investigation.c.investigation_id == number)
            .values(closed_at=None, conclusion=None)
        )
        about = {"case": _reference(number, row.opened_at), "reason": reason}
        append(registry, [Draft("case_reopened", about)], at)


def cases(registry: sa.Connection) -> list[Case]:
    """Return every case, the oldest first, without its history."""
    with problems(), registry.begin():
        rows = registry.execute(
            sa.select(tables.investigation).order_by(tables.investigation.c.investigation_id)
        ).all()
        return [_case(registry, row) for row in rows]


def case(registry: sa.Connection, number: int) -> Case:
    """Return a case with all that the registry has of it; raise InvalidInput if there is none."""
    with problems(), registry.begin():
        found = _case(registry, _row(registry, number))
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
            ended = {"verdict_sha256": verdict_sha256(run.verdict), "accused": _accused(run)}
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


def run(
    registry: sa.Connection,
    number: int,
    files: Sequence[Path],
    question: Question,
    clock: Clock,
    *,
    only: bool = False,
    render: Callable[[TraceReport], bytes] | None = None,
    progress: Callable[[str], None],
) -> Outcome:
    """Look at a case's files: trace them together, and record the verdict before returning it.

    ``files`` are all of the case's, in any order and under any name, or with ``only`` some of
    them; their SHA-256 must be those recorded. ``render`` makes the report whose SHA-256 is
    recorded.

    A look that teaches nothing is free. When files, relation, keys and database are those of an
    earlier look, the verdict is computed as that look's. If it is the same, with whatever
    recipients, policies, stored rows and software there are now, it accuses nobody whom that look
    did not accuse, and so is that look. If it is not, nobody sees it: a new look is taken, and
    the verdict computed at the new look's alpha.

    Raise InvalidInput or InvalidLeak before the look is taken for files that are not the case's,
    keys, or a database that cannot be asked. What fails later leaves a look without a verdict.
    """
    with problems(), registry.begin():
        row = _row(registry, number)
        _refuse_closed(row)
        known = _files(registry, number)
    progress("checking the files")
    chosen = _chosen(known, files, number, only=only)
    asked = _ask(question, [file.sha256 for file, _ in chosen])
    paths = [path for _, path in chosen]

    def trace(alpha: float) -> tuple[TraceReport, bytes | None]:
        found = _trace(paths, question, alpha, clock(), progress)
        if {file.sha256 for file in found.files} != {file.sha256 for file, _ in chosen}:
            raise InvalidLeak("a file changed while it was read", hint="run it again")
        return found, render(found) if render is not None else None

    again = _same_inputs(registry, number, asked.inputs)
    if again is not None:
        progress(f"computing look {again.look} again")
        begun = clock()
        found, rendered = trace(again.alpha)
        if again.verdict is not None and _alike(recorded_verdict(found), again.verdict):
            made = _keep_repeat(registry, number, again, asked, begun, found, rendered, clock())
            return _outcome(registry, number, made, found, rendered, asked, chosen)
    with _look(registry, number, asked, clock()) as (made, alpha):
        found, rendered = trace(alpha)
        with problems(), registry.begin():
            _keep_verdict(registry, number, made, found, rendered, clock())
    return _outcome(registry, number, made, found, rendered, asked, chosen)


def _trace(
    paths: Sequence[Path],
    question: Question,
    alpha: float,
    at: datetime,
    progress: Callable[[str], None],
) -> TraceReport:
    from pgbalise.investigate import investigate

    assert question.relation is not None
    return investigate(
        paths,
        question.relation,
        question.keys,
        question.dsn,
        alpha=alpha,
        created_at=at,
        progress=progress,
    )


def recorded_verdict(found: TraceReport) -> dict[str, Any]:
    """Return what the registry keeps of a verdict: all accused, a hundred recipients at least."""
    whole = found.verdict.as_dict()
    kept = max(_RECORDED, len(found.verdict.accused))
    return {
        **whole,
        "verdicts": whole["verdicts"][:kept],
        "not_listed": max(len(whole["verdicts"]) - kept, 0),
        "database": found.database,
        "relation": found.relation,
        "epoch": found.epoch_as_dict() if found.verdict.accused else None,
        "untried_epochs": list(found.untried_epochs),
    }


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


def _alike(one: Any, other: Any) -> bool:
    """Whether two verdicts are the same, but for the last digits of their numbers."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return isclose(one, other, rel_tol=0.0, abs_tol=_SAME)
    return bool(one == other)


def _accused(found: Run) -> list[dict[str, str]]:
    verdicts = found.verdict["verdicts"] if found.verdict else ()
    return [
        {"recipient": one["recipient"], "log10_e_value": repr(one["log10_e_value"])}
        for one in verdicts
        if one["accused"]
    ]


@dataclass(frozen=True)
class _Asked:
    """A question as the registry keeps it.

    ``inputs`` identifies what was asked. ``aliases``: by marked view, the relation behind it.
    """

    database: str
    system: str
    relation: str | None
    parameters: Mapping[str, Any]
    inputs: bytes
    aliases: Mapping[str, str]


def _ask(question: Question, digests: Sequence[str]) -> _Asked:
    from pgbalise import __version__
    from pgbalise.database import applied_documents
    from pgbalise.marking.policy import parse_policy
    from pgbalise.session import connect

    if question.relation is None:
        raise InvalidInput("this needs the relation that the leak is of", hint="--relation")
    with connect(question.dsn) as session:
        database, system = identity(session)
        policies = [parse_policy(document) for document in applied_documents(session)]
    asked = {
        "files": sorted(digests),
        "keys": sorted(key.fingerprint() for key in question.keys),
        "relation": question.relation,
    }
    inputs = hashlib.sha256(
        b"pgbalise look 1\n" + canonical({**asked, "database": database, "system": system})
    )
    return _Asked(
        database,
        system,
        question.relation,
        {**asked, "pgbalise": __version__},
        inputs.digest(),
        {
            f"{schema}.{relation.view}": relation.qualified
            for policy in policies
            for schema in policy.schemas.values()
            for relation in policy.relations
        },
    )


def _chosen(
    known: Sequence[LeakedFile], files: Sequence[Path], number: int, *, only: bool
) -> list[tuple[LeakedFile, Path]]:
    """Pair files with the case's, in the case's order."""
    by_digest = {file.sha256: file for file in known}
    found: dict[int, tuple[LeakedFile, Path]] = {}
    for path in files:
        digest, _ = _digest(path)
        if digest not in by_digest:
            raise InvalidInput(
                f"{path}: its SHA-256 is that of no file of case {number}",
                hint=f"pgbalise case add {number} FILE",
            )
        found[by_digest[digest].number] = (by_digest[digest], path)
    missing = [file for file in known if file.number not in found]
    if not found:
        raise InvalidInput(f"no file of case {number} is given")
    if missing and not only:
        raise InvalidInput(
            f"file {missing[0].number} of case {number}, {missing[0].name}, is not given",
            hint="give every file of the case, or --only to look at some",
        )
    return [found[at] for at in sorted(found)]


def _digest(path: Path) -> tuple[str, int]:
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


def _reference(number: int, opened_at: datetime) -> dict[str, Any]:
    # its number alone would mean another case in a registry that imported this ledger
    return {"number": number, "opened_at": instant(opened_at)}


def _row(registry: sa.Connection, number: int) -> Any:
    table = tables.investigation
    found = registry.execute(
        sa.select(table).where(table.c.investigation_id == number)
    ).one_or_none()
    if found is None:
        raise InvalidInput(f"there is no case {number}", hint="see pgbalise case list")
    return found


def _refuse_closed(row: Any) -> None:
    if row.closed_at is not None:
        raise InvalidInput(
            f"case {row.investigation_id} is closed and takes nothing more",
            hint="pgbalise case reopen",
        )


def _open_row(registry: sa.Connection, number: int) -> Any:
    """Return an open case, which nobody else changes until the transaction ends."""
    lock(registry)
    row = _row(registry, number)
    _refuse_closed(row)
    return row


def _case(registry: sa.Connection, row: Any) -> Case:
    return Case(
        row.investigation_id,
        row.title,
        row.alpha,
        row.opened_at,
        row.closed_at,
        row.conclusion,
        tuple(_files(registry, row.investigation_id)),
        tuple(_runs(registry, row.investigation_id)),
    )


def _files(registry: sa.Connection, number: int) -> list[LeakedFile]:
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


def _runs(registry: sa.Connection, number: int) -> list[Run]:
    table, database = tables.trace, tables.database
    running = set(
        registry.execute(
            sa.text(
                "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
                " AND classid::bigint = :running AND database ="
                " (SELECT oid FROM pg_database WHERE datname = current_database())"
            ),
            {"running": _RUNNING},
        ).scalars()
    )
    numbers = {file.sha256: file.number for file in _files(registry, number)}
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
            state = "running" if _half(row.trace_id) in running else "lost"
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


def _half(number: int) -> int:
    return number % 2**31


def _history(registry: sa.Connection, found: Case) -> Iterator[Entry]:
    table = tables.entry
    about = {"case": _reference(found.number, found.opened_at)}
    query = sa.select(table).where(table.c.body.contains(about)).order_by(table.c.sequence)
    for row in registry.execute(query):
        yield stored_entry(row)


def _same_inputs(registry: sa.Connection, number: int, inputs: bytes) -> Run | None:
    """Return the last look that was asked the same and has a verdict."""
    table = tables.trace
    with problems(), registry.begin():
        wanted = registry.execute(
            sa.select(table.c.trace_id)
            .where(
                table.c.investigation_id == number,
                table.c.inputs == inputs,
                table.c.verdict.is_not(None),
                table.c.repeats.is_(None),
            )
            .order_by(table.c.trace_id.desc())
            .limit(1)
        ).scalar()
        return next((run for run in _runs(registry, number) if run.number == wanted), None)


@contextmanager
def _look(
    registry: sa.Connection, number: int, asked: _Asked, at: datetime
) -> Iterator[tuple[int, float]]:
    """Take the next look of a case, and hold its lock until the run ends; its number and alpha."""
    with problems(), registry.begin():
        row = _open_row(registry, number)
        look = _case(registry, row).looks + 1
        alpha = spend(row.alpha, look)
        made = _insert(registry, number, asked, at, look=look, alpha=alpha, run_at=at, repeats=None)
        # held by the session: whoever sees the look sees whether its run lives
        registry.execute(sa.select(sa.func.pg_advisory_lock(_RUNNING, _half(made))))
        about = {
            "case": _reference(number, row.opened_at),
            "run": made,
            "look": look,
            "alpha": repr(alpha),
            "database": asked.database,
            "system": asked.system,
            "inputs": asked.inputs.hex(),
            "parameters": asked.parameters,
        }
        append(registry, [Draft("trace_begun", about)], at)
    try:
        yield made, alpha
    finally:
        with problems(), registry.begin():
            registry.execute(sa.select(sa.func.pg_advisory_unlock(_RUNNING, _half(made))))


def _insert(
    registry: sa.Connection, number: int, asked: _Asked, at: datetime, **values: Any
) -> int:
    table = tables.trace
    return int(
        registry.execute(
            sa.insert(table)
            .values(
                investigation_id=number,
                database_id=database_number(registry, asked.database, asked.system, at),
                relation=asked.relation,
                inputs=asked.inputs,
                parameters=asked.parameters,
                **values,
            )
            .returning(table.c.trace_id)
        ).scalar_one()
    )


def _keep_repeat(
    registry: sa.Connection,
    number: int,
    again: Run,
    asked: _Asked,
    begun: datetime,
    found: TraceReport,
    rendered: bytes | None,
    at: datetime,
) -> int:
    with problems(), registry.begin():
        _open_row(registry, number)
        made = _insert(
            registry,
            number,
            asked,
            at,
            look=again.look,
            alpha=again.alpha,
            run_at=begun,
            repeats=again.number,
        )
        _keep_verdict(registry, number, made, found, rendered, at)
    return made


def _keep_verdict(
    registry: sa.Connection,
    number: int,
    made: int,
    found: TraceReport,
    rendered: bytes | None,
    at: datetime,
) -> None:
    row = _open_row(registry, number)
    verdict = recorded_verdict(found)
    report = None if rendered is None else hashlib.sha256(rendered).digest()
    registry.execute(
        sa.update(tables.trace)
        .where(tables.trace.c.trace_id == made)
        .values(verdict=verdict, ended_at=at, report_digest=report)
    )
    [run] = [run for run in _runs(registry, number) if run.number == made]
    about = {
        "case": _reference(number, row.opened_at),
        "run": made,
        "look": run.look,
        "alpha": repr(run.alpha),
        "repeats": run.repeats,
        "accused": _accused(run),
        "threshold_log10": repr(found.verdict.threshold_log10),
        "recipients": found.verdict.recipients,
        "verdict_sha256": verdict_sha256(verdict),
        "report_sha256": run.report_sha256,
    }
    append(registry, [Draft("trace_run", about)], at)


def sought(found: TraceReport, aliases: Mapping[str, str], found_at: datetime) -> Sought:
    """Return what an extract must fit to have been copied into the leak that was traced."""
    verdict = found.verdict
    seen = frozenset(part.carrier for part in found.carriers if part.informative)
    return Sought(
        frozenset(verdict.accused),
        {found.relation: seen},
        aliases,
        verdict.rows_aligned,
        len(verdict.accused) > 1 or len(found.files) > 1,
        found.epoch,
        _moment(found.epoch_opened_at),
        _moment(found.epoch_closed_at),
        found_at,
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def possible_extracts(
    registry: sa.Connection, database: str, system: str, about: Sought
) -> Matches:
    """Return the extracts in the ledger that the leak may be a copy of.

    ``system`` identifies the server that the database is in, as `identity` does.
    """
    names = [name for name, relation in about.aliases.items() if relation in about.carriers]
    with problems(), registry.begin():
        found = chain.from_iterable(
            listed(
                registry,
                kind="extract",
                recipient=recipient,
                database=database,
                relations=[*about.carriers, *names],
            )
            for recipient in sorted(about.recipients)
        )
        # two servers may have databases of one name
        return match((item for item in found if item.entry.body.get("system") == system), about)


def _outcome(
    registry: sa.Connection,
    number: int,
    made: int,
    found: TraceReport,
    rendered: bytes | None,
    asked: _Asked,
    chosen: Sequence[tuple[LeakedFile, Path]],
) -> Outcome:
    whole = case(registry, number)
    [run] = [run for run in whole.runs if run.number == made]
    found_at = min(file.found_at for file, _ in chosen)
    extracts = possible_extracts(
        registry, asked.database, asked.system, sought(found, asked.aliases, found_at)
    )
    return Outcome(whole, run, found, rendered, extracts)
