"""A connection as the rest of pgbalise needs it, over psycopg or inside the server.

Identifiers are quoted by the server (``format('%I')``), values are parameters.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from psycopg import RawCursor, errors, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Json

from pgbalise.errors import DatabaseProblem, InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa


class Session(Protocol):
    """What pgbalise needs of a connection: parameters are ``$1``, ``$2``, ..."""

    def fetch(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""

    def run(self, template: str, *names: str) -> None:
        """Run ``format(template, *names)``, put together by the server."""

    def append(
        self, schema: str, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> None:
        """Append rows to a table, secrets among them: no log ever shows them.

        Columns of json and jsonb take JSON as text.
        """

    def load(self, table: str, rows: pa.Table) -> None:
        """Append rows of text to a table made by pgbalise; columns in the table's order."""

    def fill(self, schema: str, table: str, rows: pa.Table) -> None:
        """Append many rows to a table, columns by name; text, numbers, dates and timestamps."""

    def read(self, query: str, names: Sequence[str]) -> pa.Table:
        """Return a query's rows as text, under these names."""


_JSON = frozenset({114, 3802})
"""The oids of json and jsonb, the same on every server."""


def _as_json(text: object) -> Json | None:
    # psycopg would make a JSON string of a text
    return None if text is None else Json(text, dumps=str)


class PsycopgSession:
    """A Session over a psycopg connection; its errors become DatabaseProblem."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def fetch(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, none for one that returns no rows."""
        with problems(), RawCursor(self.connection) as cursor:
            cursor.execute(sql.encode(), args or None)
            return cursor.fetchall() if cursor.description else []

    def run(self, template: str, *names: str) -> None:
        """Run ``format(template, *names)``, put together by the server."""
        run(self, template, *names)

    def append(
        self, schema: str, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> None:
        """Append rows to a table by COPY, whose data no log setting writes down.

        In its binary format: of a row of text, an error's context would quote the beginning.
        """
        kinds = self.fetch(
            "SELECT a.atttypid::int8 FROM unnest($3::text[]) WITH ORDINALITY AS c(name, at)"
            " JOIN pg_attribute AS a ON a.attname = c.name"
            " AND a.attrelid = format('%I.%I', $1::text, $2::text)::regclass ORDER BY c.at",
            schema,
            table,
            list(columns),
        )
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
            sql.Identifier(schema, table), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with problems(), self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([oid for (oid,) in kinds])
            json_at = {at for at, (oid,) in enumerate(kinds) if oid in _JSON}
            for row in rows:
                copy.write_row([_as_json(v) if at in json_at else v for at, v in enumerate(row)])

    def load(self, table: str, rows: pa.Table) -> None:
        """Append rows of text to a table made by pgbalise; columns in the table's order."""
        import pyarrow.csv

        body = io.BytesIO()
        pyarrow.csv.write_csv(rows, body, pyarrow.csv.WriteOptions(include_header=False))
        statement = sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(sql.Identifier(table))
        with problems(), self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(body.getbuffer())

    def fill(self, schema: str, table: str, rows: pa.Table) -> None:
        """Append many rows to a table, columns by name; text, numbers, dates and timestamps."""
        import pyarrow.csv

        body = io.BytesIO()
        pyarrow.csv.write_csv(rows, body, pyarrow.csv.WriteOptions(include_header=False))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
            sql.Identifier(schema, table),
            sql.SQL(", ").join(map(sql.Identifier, rows.column_names)),
        )
        with problems(), self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(body.getbuffer())

    def read(self, query: str, names: Sequence[str]) -> pa.Table:
        """Return a query's rows as text, under these names."""
        from pgbalise.frames import copied_rows

        statement = b"COPY (" + query.encode() + b") TO STDOUT (FORMAT csv)"
        with problems(), self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            return copied_rows(b"".join(copy), list(names))


def run(session: Session, template: str, *names: str) -> None:
    """Have the server put a statement together with format(), and run it."""
    [(statement,)] = session.fetch(
        "SELECT pg_catalog.format($1::text, VARIADIC $2::text[])", template, list(names)
    )
    session.fetch(statement)


_HINTS: dict[type[psycopg.Error], str] = {
    errors.LockNotAvailable: "another session reads a marked view (see pg_stat_activity): end it,"
    " or try again",
    errors.ReadOnlySqlTransaction: "this is a standby or a read-only session: use the primary",
}

_MISSING = (errors.InvalidSchemaName, errors.UndefinedFunction, errors.UndefinedTable)


@contextmanager
def problems() -> Iterator[None]:
    """Turn a psycopg error into a DatabaseProblem of one line."""
    try:
        yield
    except psycopg.Error as problem:
        diag = problem.diag
        text = diag.message_primary or str(problem).strip().splitlines()[0]
        hint = _HINTS.get(type(problem)) or diag.message_hint
        if isinstance(problem, _MISSING) and "balise" in text:
            hint = "this database has no pgbalise, or an older one: run pgbalise init"
        if isinstance(problem, errors.DependentObjectsStillExist) and diag.message_detail:
            # names of objects; other errors' details may hold values
            hint = "; ".join(diag.message_detail.splitlines())
        raise DatabaseProblem(f"the database says: {text}", hint=hint) from None


def check_dsn(dsn: str) -> None:
    """Raise InvalidInput for a connection string that libpq would repeat in its complaint."""
    try:
        parameters = conninfo_to_dict(dsn)
    except psycopg.Error:
        # libpq quotes the part it stumbled over, which may be the password
        raise InvalidInput(
            "the connection string cannot be read",
            hint="as libpq writes them: host=... dbname=..., or postgresql://...",
        ) from None
    if any("@" in str(parameters.get(name, "")) for name in ("host", "port")):
        raise InvalidInput(
            "the connection string has an @ in its host",
            hint="in a URI, write the @ of a password as %40",
        )


@contextmanager
def connect(dsn: str) -> Iterator[PsycopgSession]:
    """Open a connection that prints every value the same way, whatever the server's settings.

    ``dsn`` is a libpq connection string or URI, empty for PG* variables and service files. Raise
    InvalidInput when it cannot be read.
    """
    check_dsn(dsn)
    with problems():
        connection = psycopg.connect(dsn, autocommit=True, application_name="pgbalise")
    with connection:
        session = PsycopgSession(connection)
        for setting, value in (
            ("default_transaction_isolation", "read committed"),
            ("search_path", "pg_catalog, pg_temp"),
            ("datestyle", "ISO, YMD"),
            ("timezone", "UTC"),
            ("extra_float_digits", "1"),
            ("intervalstyle", "postgres"),
        ):
            session.fetch("SELECT set_config($1::text, $2::text, false)", setting, value)
        yield session
