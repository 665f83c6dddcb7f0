"""The registry's database: connect, migrate, add to the ledger, read it, sign it.

Connections are libpq's: strings, URIs, PG* variables, service files, .pgpass. Times are arguments.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pgbalise.errors import DatabaseProblem, InvalidInput
from pgbalise.registry import tables
from pgbalise.registry.ledger import (
    Checkpoint,
    Entry,
    Fault,
    as_line,
    chained,
    read_line,
    signed,
    verify,
)
from pgbalise.session import check_dsn

if TYPE_CHECKING:
    from alembic.config import Config

_LEDGER_LOCK = 7_310_218_545_902_132
"""Held by whoever adds to the ledger, until their transaction ends."""

_BATCH = 1000

_T = TypeVar("_T")


@contextmanager
def problems() -> Iterator[None]:
    """Turn a database error into a DatabaseProblem: the server's own words, no statement."""
    try:
        yield
    except DBAPIError as problem:
        cause = problem.orig
        if not isinstance(cause, psycopg.Error):
            raise DatabaseProblem("the registry's database refused") from None
        raise _told(cause) from None
    except psycopg.Error as problem:
        raise _told(problem) from None
    except SQLAlchemyError as problem:
        # its text would hold the statement and its parameters
        raise DatabaseProblem(f"the registry failed: {type(problem).__name__}") from None


def _told(problem: psycopg.Error) -> DatabaseProblem:
    if isinstance(problem, psycopg.errors.UndefinedTable):
        return DatabaseProblem(
            "this database has no registry, or an older one", hint="run pgbalise registry upgrade"
        )
    lines = (problem.diag.message_primary or str(problem)).strip().splitlines()
    text = lines[0] if lines else type(problem).__name__
    return DatabaseProblem(f"the registry's database says: {text}", hint=problem.diag.message_hint)


@contextmanager
def open_registry(dsn: str) -> Iterator[sa.Connection]:
    """Connect to a registry; each ``with connection.begin():`` is one transaction.

    Raise InvalidInput for a connection string that is none, DatabaseProblem for anything that
    the server refuses. Neither holds the string.
    """
    engine = engine_of(dsn)
    try:
        with problems(), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def engine_of(dsn: str, connections: int = 0) -> sa.Engine:
    """Return what connects to a registry; it keeps up to so many connections open, else none.

    Its ``dispose`` closes them. Connecting raises as ``open_registry`` does, within ``problems``.
    """
    if not connections:
        return sa.create_engine(
            "postgresql+psycopg://", creator=lambda: _connect(dsn), poolclass=sa.NullPool
        )
    return sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: _connect(dsn),
        pool_size=connections,
        max_overflow=0,
        pool_pre_ping=True,
    )


def _connect(dsn: str) -> psycopg.Connection[Any]:
    check_dsn(dsn)
    connection = psycopg.connect(dsn, autocommit=True, application_name="pgbalise")
    for setting, value in (
        ("search_path", "pg_catalog"),
        ("datestyle", "ISO, YMD"),
        ("timezone", "UTC"),
    ):
        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (setting, value))
    connection.autocommit = False
    return connection


def _configuration(output: TextIO | None = None) -> Config:
    from alembic.config import Config

    found = Config(output_buffer=output) if output else Config()
    found.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    found.set_main_option("path_separator", "os")
    return found


def upgrade(registry: sa.Connection, revision: str = "head") -> None:
    """Bring the registry's tables to a revision, by default the newest, in one transaction."""
    from alembic import command

    _alembic(registry, lambda config: command.upgrade(config, revision))


def downgrade(registry: sa.Connection, revision: str) -> None:
    """Take the registry's tables back; DatabaseProblem when that would lose rows."""
    from alembic import command

    _alembic(registry, lambda config: command.downgrade(config, revision))


def upgrade_script(since: str = "base", revision: str = "head") -> str:
    """Return the SQL that upgrades a registry from one revision to another, for psql."""
    from alembic import command

    output = io.StringIO()
    _offline(lambda: command.upgrade(_configuration(output), f"{since}:{revision}", sql=True))
    return output.getvalue()


def _offline(work: Callable[[], None]) -> None:
    from alembic.util import CommandError

    try:
        work()
    except CommandError as problem:
        raise InvalidInput(f"revision: {problem}", hint="0001 to 0004, head or base") from None


def _alembic(registry: sa.Connection, work: Callable[[Config], None]) -> None:
    config = _configuration()
    config.attributes["connection"] = registry
    with problems(), registry.begin():
        _offline(lambda: work(config))


def current(registry: sa.Connection) -> str | None:
    """Return the registry's revision, None when there is no registry."""
    from alembic.migration import MigrationContext

    options = {"version_table_schema": tables.SCHEMA}
    with problems(), registry.begin():
        return MigrationContext.configure(registry, opts=options).get_current_revision()


def newest() -> str:
    """Return the revision that this version of pgbalise needs."""
    from alembic.script import ScriptDirectory

    return str(ScriptDirectory.from_config(_configuration()).get_current_head())


@dataclass(frozen=True)
class Draft:
    """What is to be recorded. Its body's member ``origin``, if any, names the event itself."""

    kind: str
    body: Mapping[str, Any]


def lock(registry: sa.Connection) -> None:
    """Wait for whoever else adds to the ledger, and hold them off until the transaction ends."""
    registry.execute(sa.select(sa.func.pg_advisory_xact_lock(_LEDGER_LOCK)))


def append(registry: sa.Connection, drafts: Iterable[Draft], at: datetime) -> list[Entry]:
    """Add entries to the ledger and return them; must run inside a transaction.

    Writers wait for each other until their transactions end. A draft whose origin is recorded
    already is left out.
    """
    lock(registry)
    head = _head(registry)
    written: list[Entry] = []
    for batch in batches(drafts):
        origins = [draft.body["origin"] for draft in batch if "origin" in draft.body]
        known = set(
            registry.execute(
                sa.select(tables.entry.c.origin).where(tables.entry.c.origin.in_(origins))
            ).scalars()
            if origins
            else ()
        )
        fresh: list[Entry] = []
        for draft in batch:
            origin = draft.body.get("origin")
            if origin is not None and origin in known:
                continue
            known.add(origin)
            head = chained(head, at, draft.kind, draft.body)
            fresh.append(head)
        _insert(registry, fresh)
        written += fresh
    return written


def batches(items: Iterable[_T]) -> Iterator[list[_T]]:
    """Yield the items in lists that are worth one round trip to the server."""
    batch: list[_T] = []
    for item in items:
        batch.append(item)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _insert(registry: sa.Connection, entries: Sequence[Entry]) -> None:
    rows = [
        {
            "sequence": entry.sequence,
            "recorded_at": entry.recorded_at,
            "kind": entry.kind,
            "body": entry.body,
            "previous": entry.previous,
            "hash": entry.hash,
        }
        for entry in entries
    ]
    if rows:
        registry.execute(sa.insert(tables.entry), rows)


def stored_entry(row: Any, prefix: str = "") -> Entry:
    """Return the entry in a row, whose columns' names may begin with a prefix."""
    found = row._mapping
    return Entry(
        found[f"{prefix}sequence"],
        found[f"{prefix}recorded_at"],
        found[f"{prefix}kind"],
        found[f"{prefix}body"],
        bytes(found[f"{prefix}previous"]),
        bytes(found[f"{prefix}hash"]),
    )


def _head(registry: sa.Connection) -> Entry | None:
    query = sa.select(tables.entry).order_by(tables.entry.c.sequence.desc()).limit(1)
    row = registry.execute(query).one_or_none()
    return None if row is None else stored_entry(row)


def entries(
    registry: sa.Connection,
    *,
    kind: str | None = None,
    recipient: str | None = None,
    relation: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = None,
) -> Iterator[Entry]:
    """Yield entries in order, those that fit every filter given; streams.

    ``since`` (inclusive) and ``until`` (exclusive) look at when what an entry tells began, or,
    where it does not say, when it was recorded. ``limit`` keeps the last ones.
    """
    table = tables.entry
    # a body's time is always written in one form, of UTC, so text compares like time
    moment = sa.func.coalesce(
        sa.cast(table.c.body["started_at"].astext, sa.DateTime(timezone=True)),
        table.c.recorded_at,
    )
    query = sa.select(table).order_by(table.c.sequence)
    if kind is not None:
        query = query.where(table.c.kind == kind)
    if recipient is not None:
        query = query.where(table.c.body.contains({"recipient": recipient}))
    if relation is not None:
        query = query.where(table.c.body.contains({"relations": [relation]}))
    if since is not None:
        query = query.where(moment >= since)
    if until is not None:
        query = query.where(moment < until)
    if limit is not None:
        tail = query.order_by(None).order_by(table.c.sequence.desc()).limit(limit).subquery()
        query = sa.select(tail).order_by(tail.c.sequence)
    with problems(), registry.execute(query.execution_options(yield_per=_BATCH)) as rows:
        for row in rows:
            yield stored_entry(row)


def checkpoints(registry: sa.Connection) -> list[Checkpoint]:
    """Return every checkpoint, in the order of the entries they sign."""
    table = tables.checkpoint
    query = sa.select(table).order_by(table.c.sequence, table.c.public_key)
    return [
        Checkpoint(
            row.sequence,
            bytes(row.hash),
            row.signed_at,
            bytes(row.public_key),
            bytes(row.signature),
        )
        for row in registry.execute(query)
    ]


@contextmanager
def snapshot(registry: sa.Connection) -> Iterator[None]:
    """Read the ledger as it stands at one moment, in a transaction of its own."""
    with registry.begin():
        registry.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        yield


def verify_registry(
    registry: sa.Connection, public_keys: Sequence[bytes]
) -> tuple[list[Fault], int, list[Checkpoint]]:
    """Verify the ledger as it is stored; return faults, number of entries, checkpoints."""
    with problems(), snapshot(registry):
        count = registry.execute(sa.select(sa.func.count()).select_from(tables.entry)).scalar_one()
        signatures = checkpoints(registry)
        return verify(entries(registry), signatures, public_keys), count, signatures


def sign(registry: sa.Connection, private_key: bytes, at: datetime) -> Checkpoint:
    """Verify the ledger, sign its last entry, and keep the checkpoint.

    Raise InvalidInput when the ledger is empty or has a fault: a signature would cover it up.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
    with problems(), registry.begin():
        lock(registry)
        earlier = checkpoints(registry)
        faults = verify(entries(registry), earlier, [public])
        faults = [fault for fault in faults if fault.kind != "unknown key"]
        if faults:
            raise InvalidInput(
                f"the ledger is not whole, {faults[0]}", hint="see pgbalise ledger verify"
            )
        head = _head(registry)
        if head is None:
            raise InvalidInput("the ledger is empty: there is nothing to sign")
        for known in earlier:
            if (known.sequence, known.public_key) == (head.sequence, public):
                return known
        made = signed(head, at, private_key)
        _keep(registry, [made])
        return made


def _keep(registry: sa.Connection, made: Sequence[Checkpoint]) -> None:
    for checkpoint in made:
        registry.execute(
            sa.insert(tables.checkpoint).values(
                sequence=checkpoint.sequence,
                public_key=checkpoint.public_key,
                hash=checkpoint.hash,
                signed_at=checkpoint.signed_at,
                signature=checkpoint.signature,
            )
        )


def export_lines(registry: sa.Connection) -> Iterator[str]:
    """Yield the whole ledger as lines: every entry, then every checkpoint."""
    with problems(), snapshot(registry):
        for entry in entries(registry):
            yield as_line(entry)
        for checkpoint in checkpoints(registry):
            yield as_line(checkpoint)


def import_lines(registry: sa.Connection, lines: Iterable[str]) -> int:
    """Add what an exported ledger has beyond this one; return the number of entries added.

    Raise InvalidInput, and add nothing, when its chain is broken or is not this ledger's.
    Signatures are kept as they are: verify tells what they are worth.
    """
    added = 0
    kept: list[Checkpoint] = []
    with problems(), registry.begin():
        lock(registry)
        head = _head(registry)
        own = head.sequence if head else 0
        last: Entry | None = None

        def fresh() -> Iterator[Entry]:
            nonlocal last
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    item = read_line(line)
                    if isinstance(item, Checkpoint):
                        kept.append(item)
                        continue
                    if item != chained(last, item.recorded_at, item.kind, item.body):
                        raise InvalidInput("its chain is broken")
                except InvalidInput as problem:
                    raise InvalidInput(f"line {number}: {problem.message}") from None
                last = item
                if head and item.sequence == own and item.hash != head.hash:
                    raise InvalidInput(f"line {number}: this is the ledger of another registry")
                if item.sequence > own:
                    yield item

        for batch in batches(fresh()):
            _insert(registry, batch)
            added += len(batch)
        if last is None or last.sequence < own:
            raise InvalidInput("this file ends before the registry's ledger does")
        have = {(known.sequence, known.public_key) for known in checkpoints(registry)}
        for item in kept:
            if item.sequence > last.sequence:
                raise InvalidInput("a checkpoint in this file is of an entry that is not there")
            if (item.sequence, item.public_key) not in have:
                have.add((item.sequence, item.public_key))
                _keep(registry, [item])
    return added
