"""The auditor's question as one call: files in, report out."""

from __future__ import annotations

import os
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
    session: Session, leak: pa.Table, relation: str, keys: Sequence[MasterKey], progress: Progress
) -> tuple[list[Marking], list[Epoch]]:
    """Return every way in which a leak of this relation may have been marked, newest first.

    One for each policy of each epoch that one of the master keys opened; policies that treat the
    relation alike count once. Also returns the epochs whose key is not among ``keys``. Must run
    inside a transaction. Raise InvalidInput when no epoch marks with any of the keys,
    InvalidPolicy when no policy ever had the relation.
    """
    found: list[tuple[Policy, Relation, MasterKey, list[str]]] = []
    untried: list[Epoch] = []
    policies = [parse_policy(document) for document in applied_documents(session)]
    everyone = recipients(session)
    seen: set[str] = set()
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
            try:
                protected = policy.relation(relation)
                leak_columns(leak, protected)
                _check_key_is_there(session, protected)
            except (InvalidPolicy, InvalidLeak) as unfit:
                problem = problem or unfit
                continue
            alike = repr(
                (epoch.number, policy.derivation, replace(protected, view="", decoys=False))
            )
            if alike in seen:
                continue
            seen.add(alike)
            found.append((policy, protected, key, names))
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
    needed: dict[tuple[tuple[str, SqlType], ...], list[str]] = {}
    for _, protected, _, _ in found:
        needed.setdefault(protected.key, []).extend(protected.needed)
    stored: dict[tuple[tuple[str, SqlType], ...], pa.Table] = {}
    for key_columns, names_read in needed.items():
        progress("fetching the stored rows")
        protected = next(one for _, one, _, _ in found if one.key == key_columns)
        in_leak = {column: name for name, column in leak_columns(leak, protected).items()}
        wanted = key_text(leak, [in_leak[name] for name, _ in key_columns], key_columns)
        stored[key_columns] = stored_rows(
            session, protected, list(dict.fromkeys(names_read)), wanted
        )
    return [
        Marking(policy, protected, key, stored[protected.key], names)
        for policy, protected, key, names in found
    ], untried


def _had_a_word(recipient: Recipient, epoch: Epoch) -> bool:
    """Whether a recipient was enrolled in an epoch, even if its commitment is gone from there."""
    if epoch.number in recipient.commitments:
        return True
    enrolled, opened = map(datetime.fromisoformat, (recipient.enrolled_at, epoch.opened_at))
    return (epoch.closed_at is None or enrolled < datetime.fromisoformat(epoch.closed_at)) and (
        recipient.revoked_at is None or datetime.fromisoformat(recipient.revoked_at) > opened
    )


def _check_key_is_there(session: Session, relation: Relation) -> None:
    """Raise InvalidPolicy when the database lost what a former policy knew rows by."""
    there = {info.name for info in columns(session, relation.schema, relation.name)}
    for name, _ in relation.key:
        if name not in there:
            raise InvalidPolicy(
                f"{relation.qualified} no longer has {name}, its key when the leak was marked"
                if there
                else f"{relation.qualified} is no longer there",
                hint="restore a backup of that time and trace against it",
            )


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
    leaks = [read_leak(path) for path in files]
    names = leaks[0].rows.column_names
    if any(leak.rows.column_names != names for leak in leaks[1:]):
        raise InvalidLeak("the files have different columns", hint="trace them one by one")
    rows = pa.concat_tables([leak.rows for leak in leaks])
    with connect(dsn) as session:
        with session.connection.transaction():
            possible, untried = markings(session, rows, relation, keys, progress)
        known = {epoch.number: epoch for epoch in epochs(session)}
        [(database, server)] = session.fetch(
            "SELECT current_database()::text, current_setting('server_version')"
        )
        workers = os.cpu_count() or 1
        result = trace(rows, possible, alpha=alpha, progress=progress, workers=workers)
        check_accused(session, possible, result.verdict.accused)
    protected = result.marking.relation
    key_columns = {name for name, _ in protected.key}
    return TraceReport(
        verdict=result.verdict,
        database=database,
        relation=protected.qualified,
        epoch=result.marking.policy.epoch,
        epoch_opened_at=known[result.marking.policy.epoch].opened_at,
        epoch_closed_at=known[result.marking.policy.epoch].closed_at,
        untried_epochs=tuple(sorted(epoch.number for epoch in untried)),
        files=tuple(
            LeakFile(leak.name, leak.sha256, leak.size, leak.rows.num_rows) for leak in leaks
        ),
        columns=tuple(
            MappedColumn(name, "key" if column in key_columns else "carrier", column)
            if column
            else MappedColumn(name, "ignored")
            for name, column in result.columns.items()
        ),
        carriers=tuple(_counted(result)),
        noise=tuple(
            CarrierNoise(
                part.carrier.column,
                tuple((what, share) for what, share in _described(part) if share >= _WORTH_SAYING),
            )
            for part in result.carriers
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
