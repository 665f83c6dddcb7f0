"""SQLite databases: every table, streamed from the file, which is never written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlglot import exp

from pgbalise.errors import InvalidLeak
from pgbalise.leaks.header import unique
from pgbalise.leaks.spool import text_batches
from pgbalise.leaks.table import LeakTable

_TABLES: Final = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    " AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY rowid"
)
_PROBLEMS: Final = (sqlite3.Error, sqlite3.Warning, OverflowError, ValueError, MemoryError)


def read(path: Path, name: str) -> list[LeakTable]:
    """Return the tables of a SQLite database that have rows.

    Raise InvalidLeak when the database cannot be read.
    """
    tables = []
    if _is_cut(path):
        raise InvalidLeak(f"{name}: the SQLite database is damaged or cut")
    try:
        with closing(_opened(path)) as database:
            for (table,) in database.execute(_TABLES).fetchall():
                cursor = database.execute(_select(table))
                if cursor.fetchone() is not None:
                    columns = unique([entry[0] for entry in cursor.description])
                    where = f"{name}: {table}"
                    reading = partial(_batches, path, where, table, columns)
                    tables.append(LeakTable(where, columns, True, reading))
    except _PROBLEMS:
        raise InvalidLeak(f"{name}: the SQLite database is damaged or cut") from None
    return tables


def _is_cut(path: Path) -> bool:
    """Say whether the file has fewer pages than its header says; SQLite reads zeros for them."""
    with path.open("rb") as file:
        header = file.read(100)
    page = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    # The count is kept by versions since 3.7.0, which write the change counter a second time.
    kept = header[24:28] == header[92:96]
    size = 65_536 if page == 1 else page
    return len(header) < 100 or (kept and path.stat().st_size < size * pages)


def _opened(path: Path) -> sqlite3.Connection:
    # Immutable: no journal is looked for, nor replayed. A schema that is not trusted runs no
    # function that could reach outside.
    database = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", uri=True)
    database.text_factory = lambda data: data.decode("utf-8", "replace")
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA query_only = ON")
    return database


def _select(table: str) -> str:
    return exp.select("*").from_(exp.to_identifier(table, quoted=True)).sql("sqlite")


def _batches(path: Path, where: str, table: str, columns: tuple[str, ...]) -> Iterator[Any]:
    try:
        with closing(_opened(path)) as database:
            rows = database.execute(_select(table))
            yield from text_batches((tuple(map(_text, row)) for row in rows), columns)
    except _PROBLEMS:
        raise InvalidLeak(f"{where}: the SQLite database is damaged or cut") from None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)
