"""The auditor's question as one call: files in, report out."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from pgbalise import __version__
from pgbalise.database import (
    applied_policy,
    check_commitments,
    check_master_key,
    connect,
    recipients,
    stored_rows,
)
from pgbalise.errors import InvalidLeak
from pgbalise.leak import read_leak
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.types import Kind
from pgbalise.report.case import (
    CarrierEvidence,
    CarrierNoise,
    LeakFile,
    MappedColumn,
    TraceReport,
)
from pgbalise.trace import (
    Progress,
    Trace,
    key_text,
    leak_columns,
    needed_columns,
    silent,
    trace,
)
from pgbalise.tracing.alignment import CarrierEvidence as Compared
from pgbalise.tracing.noise import NoiseModel

_WORTH_SAYING = 0.01
"""A transformation of fewer cells than this share is not told: the estimate is not that fine."""


def investigate(
    files: Sequence[Path],
    relation: str,
    key: MasterKey,
    dsn: str,
    *,
    alpha: float,
    created_at: datetime,
    progress: Progress = silent,
) -> TraceReport:
    """Trace leaked files of one relation, taken together, against the database they came from.

    Raise InvalidLeak, InvalidKey or DatabaseProblem, each in one line.
    """
    progress("reading the leak")
    leaks = [read_leak(path) for path in files]
    names = leaks[0].rows.column_names
    if any(leak.rows.column_names != names for leak in leaks[1:]):
        raise InvalidLeak("the files have different columns", hint="trace them one by one")
    rows = pa.concat_tables([leak.rows for leak in leaks])
    with connect(dsn) as session:
        policy = applied_policy(session)
        protected = policy.relation(relation)
        check_master_key(session, key)
        everyone = recipients(session)
        found = {column: name for name, column in leak_columns(rows, protected).items()}
        keys = key_text(rows, [found[name] for name, _ in protected.key], protected.key)
        progress("fetching the stored rows")
        with session.connection.transaction():
            stored = stored_rows(session, protected, needed_columns(protected), keys)
        [(database, server)] = session.fetch(
            "SELECT current_database()::text, current_setting('server_version')"
        )
    names = [recipient.role for recipient in everyone]
    result = trace(rows, stored, policy, protected, key, names, alpha=alpha, progress=progress)
    check_commitments(key, [r for r in everyone if r.role in result.verdict.accused])
    key_columns = {name for name, _ in protected.key}
    return TraceReport(
        verdict=result.verdict,
        database=database,
        relation=protected.qualified,
        epoch=policy.epoch,
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
        key_fingerprint=key.fingerprint(),
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
