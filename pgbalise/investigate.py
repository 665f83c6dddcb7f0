"""The auditor's question as one call: files in, report out."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pgbalise import __version__
from pgbalise.catalog import columns
from pgbalise.database import (
    Epoch,
    Recipient,
    applied_documents,
    check_commitments,
    epoch_uses,
    epochs,
    recipients,
    stored_rows,
)
from pgbalise.errors import (
    DatabaseProblem,
    InvalidInput,
    InvalidLeak,
    InvalidPolicy,
    PgbaliseError,
)
from pgbalise.leak import read_leak
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import Policy, Relation, parse_policy
from pgbalise.marking.types import Kind, SqlType
from pgbalise.report.case import (
    CarrierEvidence,
    CarrierNoise,
    LeakedTable,
    LeakFile,
    MappedColumn,
    TraceReport,
)
from pgbalise.session import connect
from pgbalise.trace import Marking, Progress, Trace, key_text, leak_columns, silent, trace
from pgbalise.tracing.alignment import CarrierEvidence as Compared
from pgbalise.tracing.noise import NoiseModel

if TYPE_CHECKING:
    from pgbalise.session import Session

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


class StoredRelation:
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


def investigate(
    files: Sequence[Path],
    relation: str,
    keys: Sequence[MasterKey],
    dsn: str,
    *,
    alpha: float,
    created_at: datetime,
    progress: Progress = silent,
) -> TraceReport:
    """Trace leaked files of one relation, taken together, against the database they came from.

    ``keys`` are the master keys of the epochs that the leak may be from. Raise InvalidLeak,
    InvalidKey, InvalidInput or DatabaseProblem, each in one line.
    """
    progress("reading the leak")
    with ExitStack() as opened:
        leaks = [opened.enter_context(open_leak(path)) for path in files]
        tables = [table for leak in leaks for table in leak.tables]
        session = opened.enter_context(connect(dsn))
        known = {epoch.number: epoch for epoch in epochs(session)}
        [(database, server)] = session.fetch(
            "SELECT current_database()::text, current_setting('server_version')"
        )
        possible, untried = markings(session, keys, relation)
        with session.connection.transaction():
            # all that is read is of one moment
            session.fetch("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            result = trace(tables, possible, alpha=alpha, given=given, progress=progress)
        check_accused(session, possible, result.verdict.accused)
    protected = result.marking.relation
    key_columns = {name for name, _ in protected.key}
    return TraceReport(
        verdict=result.verdict,
        database=database,
        epoch=result.marking.policy.epoch,
        epoch_opened_at=known[result.marking.policy.epoch].opened_at,
        epoch_closed_at=known[result.marking.policy.epoch].closed_at,
        untried_epochs=tuple(sorted(epoch.number for epoch in untried)),
        files=tuple(
            LeakFile(leak.name, leak.sha256, leak.size, leak.rows.num_rows) for leak in leaks
        ),
        tables=(
            LeakedTable(
                name=leaks[0].name if len(leaks) == 1 else f"{len(leaks)} files together",
                relation=protected.qualified,
                rows_read=result.verdict.rows_read,
                rows_aligned=result.verdict.rows_aligned,
                aligned_by="key",
                columns=tuple(
                    MappedColumn(
                        name, "key" if column in key_columns else "carrier", column, by="name"
                    )
                    if column
                    else MappedColumn(name, "ignored")
                    for name, column in result.columns.items()
                ),
            ),
        ),
        carriers=tuple(_counted(result)),
        noise=tuple(
            CarrierNoise(
                part.carrier.column,
                tuple((what, share) for what, share in _described(part) if share >= _WORTH_SAYING),
            )
            for part in result.carriers
        ),
        commitments="checked",
        key_fingerprint=result.marking.key.fingerprint(),
        versions={
            "pgbalise": __version__,
            "PostgreSQL": server,
            "Python": platform.python_version(),
            "numpy": version("numpy"),
            "pyarrow": version("pyarrow"),
        },
        created_at=created_at,
    )


def _counted(result: Trace) -> list[CarrierEvidence]:
    return [
        CarrierEvidence(
            part.carrier.column, part.marked, len(part.evidence), agree, len(part.evidence) - agree
        )
        for part, agree in zip(result.carriers, result.agreeing, strict=True)
    ]


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
