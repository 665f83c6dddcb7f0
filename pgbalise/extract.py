"""Taking an extract: what a query returns to the role that is logged in, written to a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet
from psycopg import sql

from pgbalise.errors import InvalidInput
from pgbalise.session import problems

if TYPE_CHECKING:
    from psycopg import Column

    from pgbalise.session import PsycopgSession

_BATCH = 50_000

_ARROW = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}


def write_extract(session: PsycopgSession, query: str, path: Path) -> int:
    """Write a query's rows as CSV or Parquet, by the file's ending; return how many.

    The file appears only when it is complete. Types that Parquet lacks (numeric without a scale,
    uuid, jsonb, ...) are written as text.
    """
    writers = {".csv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in writers:
        raise InvalidInput(f"{path}: no such format", hint="end the name in .csv or .parquet")
    with _complete(path) as partial:
        return writers[path.suffix.lower()](session, query, partial)


@contextmanager
def _complete(path: Path) -> Iterator[Path]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # an extract is as confidential as what it was taken from
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as problem:
        raise InvalidInput(f"{path}: the file cannot be written: {problem.strerror}") from None
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _csv(session: PsycopgSession, query: str, path: Path) -> int:
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)").format(
        sql.SQL(query.rstrip().rstrip(";"))
    )
    with problems(), session.connection.cursor() as cursor:
        with cursor.copy(statement) as copy, path.open("wb") as file:
            for block in copy:
                file.write(block)
        return cursor.rowcount


def _parquet(session: PsycopgSession, query: str, path: Path) -> int:
    written = 0
    with (
        problems(),
        session.connection.transaction(),
        session.connection.cursor("extract") as cursor,
    ):
        cursor.itersize = _BATCH
        cursor.execute(sql.SQL(query.rstrip().rstrip(";")))
        assert cursor.description is not None
        schema = pa.schema([(column.name, _arrow_type(column)) for column in cursor.description])
        with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            while rows := cursor.fetchmany(_BATCH):
                writer.write_table(pa.table(_columns(rows, schema), schema))
                written += len(rows)
    return written


def _columns(rows: list[tuple[object, ...]], schema: pa.Schema) -> list[pa.Array]:
    columns = []
    for values, field in zip(zip(*rows, strict=True), schema, strict=True):
        text = pa.types.is_string(field.type)
        shown = [v if v is None else str(v) for v in values] if text else list(values)
        columns.append(pa.array(shown, field.type))
    return columns


def _arrow_type(column: Column) -> pa.DataType:
    if (
        column.type_display.startswith("numeric")
        and column.precision is not None
        and column.precision <= 38
    ):
        return pa.decimal128(column.precision, column.scale or 0)
    return _ARROW.get(column.type_display.split("(")[0], pa.string())
