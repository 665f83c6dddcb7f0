"""Looks at a case: trace its files together, and record the verdict before anyone sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pgbalise.errors import InvalidInput, InvalidLeak
from pgbalise.registry import tables
from pgbalise.registry.cases import (
    RUNNING,
    Case,
    LeakedFile,
    Run,
    case,
    case_row,
    digest_of,
    files_of,
    half,
    ledger_accused,
    open_row,
    reference,
    refuse_closed,
    runs_of,
    verdict_sha256,
)
from pgbalise.registry.consulting import Origin, consulted, origin
from pgbalise.registry.ledger import canonical
from pgbalise.registry.matching import Matches
from pgbalise.registry.record import database_number
from pgbalise.registry.store import Draft, append, problems
from pgbalise.report.case import CaseLook, TraceReport
from pgbalise.tracing.decision import spend

if TYPE_CHECKING:
    from pgbalise.investigate import Question

Clock = Callable[[], datetime]
"""Tells the time, with its zone."""

_RECORDED = 100
"""Recipients of a verdict that the registry keeps, unless more are accused."""

_SAME = 1e-6
"""How far apart the numbers of one verdict may be when it is computed twice."""


@dataclass(frozen=True)
class Outcome:
    """What a run answered, and the extracts that the leak may be a copy of."""

    case: Case
    run: Run
    report: TraceReport
    rendered: bytes | None
    extracts: Matches


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
        row = case_row(registry, number)
        refuse_closed(row)
        known = files_of(registry, number)
    progress("checking the files")
    chosen = _chosen(known, files, number, only=only)
    asked = _ask(question, [file.sha256 for file, _ in chosen])
    paths = [path for _, path in chosen]

    found_at = min(file.found_at for file, _ in chosen)

    def trace(look: int, alpha: float) -> _Found:
        from pgbalise.investigate import investigate

        found = investigate(paths, question, alpha=alpha, created_at=clock(), progress=progress)
        if {file.sha256 for file in found.files} != {file.sha256 for file, _ in chosen}:
            raise InvalidLeak("a file changed while it was read", hint="run it again")
        found, extracts = consulted(registry, found, asked.origin, found_at)
        found = replace(found, case=CaseLook(number, row.title, look, row.alpha))
        return _Found(found, render(found) if render is not None else None, extracts)

    again = _same_inputs(registry, number, asked.inputs)
    if again is not None:
        progress(f"computing look {again.look} again")
        begun = clock()
        found = trace(again.look, again.alpha)
        if again.verdict is not None and _alike(recorded_verdict(found.report), again.verdict):
            made = _keep_repeat(registry, number, again, asked, begun, found, clock())
            return _outcome(registry, number, made, found)
    with _look(registry, number, asked, clock()) as (made, look, alpha):
        found = trace(look, alpha)
        with problems(), registry.begin():
            _keep_verdict(registry, number, made, found, clock())
    return _outcome(registry, number, made, found)


@dataclass(frozen=True)
class _Found:
    report: TraceReport
    rendered: bytes | None
    extracts: Matches


def recorded_verdict(found: TraceReport) -> dict[str, Any]:
    """Return what the registry keeps of a verdict: all accused, a hundred recipients at least."""
    whole = found.verdict.as_dict()
    kept = max(_RECORDED, len(found.verdict.accused))
    return {
        **whole,
        "verdicts": whole["verdicts"][:kept],
        "not_listed": max(len(whole["verdicts"]) - kept, 0),
        "database": found.database,
        "relations": list(found.relations),
        "epoch": found.epoch_as_dict() if found.verdict.accused else None,
        "untried_epochs": list(found.untried_epochs),
    }


def _alike(one: Any, other: Any) -> bool:
    """Whether two verdicts are the same, but for the last digits of their numbers."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return isclose(one, other, rel_tol=0.0, abs_tol=_SAME)
    return bool(one == other)


@dataclass(frozen=True)
class _Asked:
    """A question as the registry keeps it; ``inputs`` identifies what was asked."""

    origin: Origin
    relation: str | None
    parameters: Mapping[str, Any]
    inputs: bytes


def _ask(question: Question, digests: Sequence[str]) -> _Asked:
    from pgbalise import __version__
    from pgbalise.session import connect

    with connect(question.dsn) as session:
        where = origin(session)
    if question.relation is not None and question.relation not in where.aliases.values():
        # a misspelt name shall not cost a look
        raise InvalidInput(f"no policy of {where.database} ever had {question.relation}")
    asked = {
        "files": sorted(digests),
        "keys": sorted(key.fingerprint() for key in question.keys),
        "relation": question.relation,
        "columns": dict(question.given),
    }
    whole = {**asked, "database": where.database, "system": where.system}
    inputs = hashlib.sha256(b"pgbalise look 1\n" + canonical(whole)).digest()
    return _Asked(where, question.relation, {**asked, "pgbalise": __version__}, inputs)


def _chosen(
    known: Sequence[LeakedFile], files: Sequence[Path], number: int, *, only: bool
) -> list[tuple[LeakedFile, Path]]:
    """Pair files with the case's, in the case's order."""
    by_digest = {file.sha256: file for file in known}
    found: dict[int, tuple[LeakedFile, Path]] = {}
    for path in files:
        digest, _ = digest_of(path)
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
        return next((run for run in runs_of(registry, number) if run.number == wanted), None)


@contextmanager
def _look(
    registry: sa.Connection, number: int, asked: _Asked, at: datetime
) -> Iterator[tuple[int, int, float]]:
    """Take the next look of a case, and hold its lock until the run ends.

    Yields the run's number, the look's, and its alpha.
    """
    with problems(), registry.begin():
        row = open_row(registry, number)
        look = max((run.look for run in runs_of(registry, number)), default=0) + 1
        alpha = spend(row.alpha, look)
        made = _insert(registry, number, asked, at, look=look, alpha=alpha, run_at=at, repeats=None)
        # held by the session: whoever sees the look sees whether its run lives
        registry.execute(sa.select(sa.func.pg_advisory_lock(RUNNING, half(made))))
        about = {
            "case": reference(number, row.opened_at),
            "run": made,
            "look": look,
            "alpha": repr(alpha),
            "database": asked.origin.database,
            "system": asked.origin.system,
            "inputs": asked.inputs.hex(),
            "parameters": asked.parameters,
        }
        append(registry, [Draft("trace_begun", about)], at)
    try:
        yield made, look, alpha
    finally:
        with problems(), registry.begin():
            registry.execute(sa.select(sa.func.pg_advisory_unlock(RUNNING, half(made))))


def _insert(
    registry: sa.Connection, number: int, asked: _Asked, at: datetime, **values: Any
) -> int:
    table = tables.trace
    return int(
        registry.execute(
            sa.insert(table)
            .values(
                investigation_id=number,
                database_id=database_number(
                    registry, asked.origin.database, asked.origin.system, at
                ),
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
    found: _Found,
    at: datetime,
) -> int:
    with problems(), registry.begin():
        open_row(registry, number)
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
        _keep_verdict(registry, number, made, found, at)
    return made


def _keep_verdict(
    registry: sa.Connection,
    number: int,
    made: int,
    found: _Found,
    at: datetime,
) -> None:
    row = open_row(registry, number)
    verdict = recorded_verdict(found.report)
    rendered = found.rendered
    report = None if rendered is None else hashlib.sha256(rendered).digest()
    registry.execute(
        sa.update(tables.trace)
        .where(tables.trace.c.trace_id == made)
        .values(verdict=verdict, ended_at=at, report_digest=report)
    )
    [run] = [run for run in runs_of(registry, number) if run.number == made]
    about = {
        "case": reference(number, row.opened_at),
        "run": made,
        "look": run.look,
        "alpha": repr(run.alpha),
        "repeats": run.repeats,
        "accused": ledger_accused(run),
        "threshold_log10": repr(found.report.verdict.threshold_log10),
        "recipients": found.report.verdict.recipients,
        "verdict_sha256": verdict_sha256(verdict),
        "report_sha256": run.report_sha256,
    }
    append(registry, [Draft("trace_run", about)], at)


def _outcome(registry: sa.Connection, number: int, made: int, found: _Found) -> Outcome:
    whole = case(registry, number)
    [run] = [run for run in whole.runs if run.number == made]
    return Outcome(whole, run, found.report, found.rendered, found.extracts)
