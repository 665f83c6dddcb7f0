"""The auditor's question as one call: files in, report out."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import version
from itertools import chain
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pgbalise import __version__
from pgbalise.align import SAMPLE_ROWS, Alignment, Source
from pgbalise.catalog import columns
from pgbalise.database import (
    Epoch,
    Recipient,
    applied_documents,
    check_commitments,
    epoch_uses,
    epochs,
    readable_columns,
    recipients,
    sampled_rows,
    stored_rows,
)
from pgbalise.decoybook import issued
from pgbalise.errors import DatabaseProblem, InvalidInput, InvalidPolicy, PgbaliseError
from pgbalise.leaks import Leak, LeakTable, open_leak
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import Relation, parse_policy
from pgbalise.marking.types import Kind
from pgbalise.report.case import (
    CarrierEvidence,
    CarrierNoise,
    ColumnUse,
    DecoySeen,
    LeakedTable,
    LeakFile,
    MappedColumn,
    SourceChange,
    TraceReport,
)
from pgbalise.session import connect
from pgbalise.trace import Marking, Progress, Trace, matched, silent, trace
from pgbalise.tracing.alignment import CarrierEvidence as Compared
from pgbalise.tracing.noise import NoiseModel
from pgbalise.tracing.written import Format

if TYPE_CHECKING:
    from pgbalise.session import PsycopgSession, Session

_WORTH_SAYING = 0.01
"""A transformation of fewer cells than this share is not told: the estimate is not that fine."""


def markings(
    session: Session, keys: Sequence[MasterKey], relation: str | None = None
) -> tuple[list[Marking], list[Epoch]]:
    """Return every way in which rows may have been marked, newest policy first.

    One for each relation (``relation``: this one only) of each policy of each epoch that one of
    the master keys opened; policies that treat their relations alike count once. Also returns the
    epochs whose key is not among ``keys``. What is stored is read when asked for, through
    ``session``, which must be inside a transaction by then. Raise InvalidInput when no epoch marks
    with any of the keys, InvalidPolicy when no policy ever had the relation.
    """
    found: list[Marking] = []
    untried: list[Epoch] = []
    policies = [parse_policy(document) for document in applied_documents(session)]
    everyone = recipients(session)
    seen: set[str] = set()
    sources: dict[tuple[object, ...], StoredRelation] = {}
    problem: PgbaliseError | None = None
    for epoch in reversed(epochs(session)):
        key = next((key for key in keys if epoch_uses(session, epoch, key)), None)
        if key is None:
            untried.append(epoch)
            continue
        names = [r.role for r in everyone if _had_a_word(r, epoch)]
        for policy in reversed(policies):
            if policy.epoch != epoch.number:
                continue
            mine = []
            try:
                wanted = [policy.relation(relation)] if relation else list(policy.relations)
            except InvalidPolicy as unfit:
                problem = problem or unfit
                continue
            for protected in wanted:
                place = (protected.schema, protected.name, protected.key)
                try:
                    if place not in sources:
                        sources[place] = StoredRelation(session, protected)
                except InvalidPolicy as unfit:
                    problem = problem or unfit
                    continue
                mine.append(Marking(policy, protected, key, sources[place], names))
            treated = [replace(one.relation, view="", decoys=False) for one in mine]
            alike = repr((epoch.number, policy.derivation, treated))
            if mine and alike not in seen:
                seen.add(alike)
                found += mine
    if not found:
        if problem is None and untried:
            names_of = ", ".join(f"{e.number} ({e.key_fingerprint})" for e in reversed(untried))
            problem = InvalidInput(
                f"no epoch marks with this master key; the database has epoch {names_of}",
                hint="give the key of the epoch that the leak may be from",
            )
        raise problem or DatabaseProblem(
            "no policy has been applied", hint="run pgbalise policy apply"
        )
    return found, untried


def _had_a_word(recipient: Recipient, epoch: Epoch) -> bool:
    """Whether a recipient was enrolled in an epoch, even if its commitment is gone from there."""
    if epoch.number in recipient.commitments:
        return True
    enrolled, opened = map(datetime.fromisoformat, (recipient.enrolled_at, epoch.opened_at))
    return (epoch.closed_at is None or enrolled < datetime.fromisoformat(epoch.closed_at)) and (
        recipient.revoked_at is None or datetime.fromisoformat(recipient.revoked_at) > opened
    )


class StoredRelation(Source):
    """The rows of one relation, read from the database when asked for.

    Raise InvalidPolicy when the database lost what a former policy knew rows by.
    """

    def __init__(self, session: Session, relation: Relation) -> None:
        infos = columns(session, relation.schema, relation.name)
        there = {info.name: info.type for info in infos}
        for name, _ in relation.key:
            if name not in there:
                raise InvalidPolicy(
                    f"{relation.qualified} no longer has {name}, its key when the leak was marked"
                    if there
                    else f"{relation.qualified} is no longer there",
                    hint="restore a backup of that time and trace against it",
                )
        self._session = session
        self._relation = relation
        readable = readable_columns(session, relation)
        self.types = {
            name: kind
            for name, kind in there.items()
            if name in relation.needed or (name in readable and kind.name not in _NOT_COMPARED)
        }
        self._everything: pa.Table | None = None

    def sample(self) -> pa.Table:
        """Return rows drawn at random, the same ones each time."""
        return sampled_rows(self._session, self._relation, list(self.types), SAMPLE_ROWS)

    def having(self, keys: pa.Table) -> pa.Table:
        """Return the rows with these keys."""
        for at, name in enumerate(keys.column_names):
            # no text of PostgreSQL's has this character, and it refuses to be asked for one
            never = pc.match_substring(keys.column(at), "\0")
            text = pc.if_else(never, pa.scalar(None, pa.string()), keys.column(at))
            keys = keys.set_column(at, name, text)
        return stored_rows(self._session, self._relation, list(self.types), keys)

    def everything(self) -> pa.Table:
        """Return all rows; they are read once and kept."""
        if self._everything is None:
            self._everything = sampled_rows(self._session, self._relation, list(self.types), None)
        return self._everything


_NOT_COMPARED = {"bytea", "json", "jsonb", "xml", "tsvector"}
"""Types whose values are large, and seldom written by others as PostgreSQL writes them."""


def check_accused(session: Session, found: Sequence[Marking], accused: Sequence[str]) -> None:
    """Raise InvalidInput unless every word of the accused is the one committed to."""
    everyone = [r for r in recipients(session) if r.role in accused]
    for marking in found:
        mine = [r for r in everyone if r.role in marking.recipients]
        check_commitments(marking.key, marking.policy.epoch, mine)


@dataclass(frozen=True)
class Question:
    """Against what leaked files are held."""

    dsn: str
    """The database that they may come from; empty for PG* variables and service files."""
    keys: Sequence[MasterKey]
    """The master keys of the epochs that they may be from."""
    relation: str | None = None
    """``schema.name``; None to try every protected relation."""
    given: Mapping[str, str | None] = field(default_factory=dict)
    """By column of the leak, the stored column that it is, None for none."""


@dataclass(frozen=True)
class _Scene:
    """Opened leaks beside all the ways in which their rows may have been marked."""

    leaks: Sequence[Leak]
    tables: Sequence[Sequence[LeakTable]]
    """Those of each leak."""
    session: PsycopgSession
    possible: Sequence[Marking]
    untried: Sequence[Epoch]


@contextmanager
def _opened(files: Sequence[Path], question: Question, progress: Progress) -> Iterator[_Scene]:
    progress("reading the leak")
    with ExitStack() as opened:
        leaks = [opened.enter_context(open_leak(path)) for path in files]
        session = opened.enter_context(connect(question.dsn))
        possible, untried = markings(session, question.keys, question.relation)
        with session.connection.transaction():
            # all that is read is of one moment
            session.fetch("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield _Scene(leaks, _tables(leaks), session, possible, untried)


def mapped(
    files: Sequence[Path], question: Question, *, progress: Progress = silent
) -> tuple[LeakedTable, ...]:
    """Return which relations and columns leaked files are of, without tracing them.

    The rows are not counted. Raises as `investigate`.
    """
    with _opened(files, question, progress) as scene:
        tables = [*chain.from_iterable(scene.tables)]
        found, ignored = matched(tables, scene.possible, question.given, progress)
    return _listed([alignment for alignment, _ in found], ignored)


def investigate(
    files: Sequence[Path],
    question: Question,
    *,
    alpha: float,
    created_at: datetime,
    progress: Progress = silent,
) -> TraceReport:
    """Trace leaked files, all of them one piece of evidence.

    ``alpha`` bounds the probability that anyone is accused wrongly. Raise InvalidLeak, InvalidKey,
    InvalidInput or DatabaseProblem, each in one line.
    """
    with _opened(files, question, progress) as scene:
        result = trace(
            [*chain.from_iterable(scene.tables)],
            scene.possible,
            alpha=alpha,
            decoys=issued(scene.session),
            given=question.given,
            progress=progress,
            workers=os.cpu_count() or 1,
        )
        check_accused(scene.session, scene.possible, result.verdict.accused)
        [epoch] = [e for e in epochs(scene.session) if e.number == result.marking.policy.epoch]
        [(database, server)] = scene.session.fetch(
            "SELECT current_database()::text, current_setting('server_version')"
        )
    read = {one.table.name: one.read for one in result.alignments}
    return TraceReport(
        verdict=result.verdict,
        database=database,
        epoch=epoch.number,
        epoch_opened_at=epoch.opened_at,
        epoch_closed_at=epoch.closed_at,
        untried_epochs=tuple(sorted(one.number for one in scene.untried)),
        files=tuple(
            LeakFile(
                leak.name,
                leak.sha256,
                leak.size,
                sum(read.get(table.name, 0) for table in tables),
                leak.skipped,
            )
            for leak, tables in zip(scene.leaks, scene.tables, strict=True)
        ),
        tables=_listed(result.alignments, result.ignored),
        carriers=tuple(
            CarrierEvidence(
                part.carrier.column,
                part.marked,
                len(part.evidence),
                agree,
                len(part.evidence) - agree,
                relation.qualified,
            )
            for (relation, part), agree in zip(result.carriers, result.agreeing, strict=True)
        ),
        noise=tuple(
            CarrierNoise(
                part.carrier.column,
                tuple((what, share) for what, share in _described(part) if share >= _WORTH_SAYING),
                relation.qualified,
            )
            for relation, part in result.carriers
        ),
        key_fingerprint=result.marking.key.fingerprint(),
        versions={
            "pgbalise": __version__,
            "PostgreSQL": server,
            "Python": platform.python_version(),
            "numpy": version("numpy"),
            "pyarrow": version("pyarrow"),
        },
        created_at=created_at,
        rounds=result.rounds,
        decoys=tuple(
            DecoySeen(
                one.decoy.recipient, one.decoy.number, tuple(one.odds), float(log10(one.e_value))
            )
            for one in sorted(result.decoys, key=lambda one: (one.decoy.recipient, -one.e_value))
        ),
        source=tuple(_changes(result)),
        commitments="checked",
        parameters=tuple(_parameters(question, alpha)),
    )


def _tables(leaks: Sequence[Leak]) -> list[list[LeakTable]]:
    """The tables of each file; those of the same name in two files get the file's number."""
    times = Counter(table.name for leak in leaks for table in leak.tables)
    return [
        [
            table if times[table.name] == 1 else replace(table, name=f"{number}: {table.name}")
            for table in leak.tables
        ]
        for number, leak in enumerate(leaks, 1)
    ]


def _listed(found: Sequence[Alignment], ignored: Sequence[str]) -> tuple[LeakedTable, ...]:
    none = (LeakedTable(name, None, 0, 0) for name in ignored)
    return (*(_table(one) for one in found), *none)


def _table(one: Alignment) -> LeakedTable:
    relation = one.relation
    keys, carriers = ({name for name, _ in relation.key}, {c.column for c in relation.carriers})

    def use(column: str | None) -> ColumnUse:
        if column is None:
            return "ignored"
        if column in keys and one.how == "key":
            return "key"
        return "carrier" if column in carriers else "link"

    return LeakedTable(
        one.table.name,
        relation.qualified,
        one.read,
        one.aligned,
        one.how,
        one.ambiguous,
        one.unmatched,
        one.repeated,
        sum(share for _, share in one.altered) / len(one.altered) if one.altered else None,
        tuple(
            MappedColumn(
                m.leak_column,
                use(m.column),
                m.column,
                m.by,
                m.confidence if m.column is not None else None,
                tuple(_written(m.format)) if m.column is not None else (),
            )
            for m in one.mapping.columns
        ),
        one.doubtful,
    )


def _written(form: Format) -> Iterator[str]:
    """How a leaked column writes its values, where not as PostgreSQL does."""
    if form.decimal == ",":
        yield "decimal comma"
    if form.thousands:
        yield f"thousands grouped by {'points' if form.thousands == '.' else 'commas'}"
    if form.unit:
        yield f"unit {form.unit}"
    match form.calendar:
        case "mdy":
            yield "month/day/year"
        case "compact":
            yield "year, month, day as digits"
        case "excel":
            yield "spreadsheet days"
        case "unix s" | "unix ms" | "unix us":
            yield form.calendar
        case "dmy":
            pass
    if form.zone != "UTC":
        yield f"time zone {form.zone}"
    if form.converted:
        by = f"x {form.factor:g}"
        yield f"{by} {'+' if form.offset > 0 else '-'} {abs(form.offset):g}" if form.offset else by


def _changes(result: Trace) -> Iterator[SourceChange]:
    """What the source no longer has, or has otherwise, of the rows that leaked."""
    for relation in dict.fromkeys(one.relation.qualified for one in result.alignments):
        mine = [one for one in result.alignments if one.relation.qualified == relation]
        keyed = [one for one in mine if one.how == "key" and one.read]
        deleted = (
            sum(one.unmatched for one in keyed) / sum(one.read for one in keyed) if keyed else None
        )
        cells = {name: share for one in mine for name, share in one.altered}
        cells |= {
            part.carrier.column: part.changed_share
            for owner, part in result.carriers
            if owner.qualified == relation and part.changed_share is not None
        }
        yield SourceChange(
            relation, deleted, tuple((n, s) for n, s in cells.items() if s >= _WORTH_SAYING)
        )


def _parameters(question: Question, alpha: float) -> Iterator[tuple[str, str]]:
    yield "--alpha", f"{alpha:g}"
    if question.relation is not None:
        yield "--relation", question.relation
    for name, column in question.given.items():
        yield "--column", f"{name}={column or ''}"


def _described(part: Compared) -> list[tuple[str, float]]:
    noise = part.noise
    if not isinstance(noise, NoiseModel):
        return noise.describe()
    if part.carrier.kind is Kind.DATE:
        return noise.describe(lambda units: f"{units} days")
    if part.carrier.kind is Kind.TIMESTAMP:
        return noise.describe(lambda units: f"{units / 1_000_000:g} s")
    power = 10.0 ** (part.carrier.scale + part.extra)
    return noise.describe(lambda units: f"{units / power:g}")
