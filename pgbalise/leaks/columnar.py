"""Parquet and Arrow, streamed; nested columns flattened, every value as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet

from pgbalise.errors import InvalidLeak
from pgbalise.leaks.header import unique
from pgbalise.leaks.kind import Kind
from pgbalise.leaks.table import ROWS, LeakTable

_PROBLEMS = (pa.ArrowException, OSError, ValueError, OverflowError, TypeError)


def read(path: Path, name: str, kind: Kind) -> list[LeakTable]:
    """Return the table in a Parquet or Arrow file.

    Raise InvalidLeak when the file cannot be read or has no rows.
    """
    raw: Callable[[Path], Iterator[pa.RecordBatch]] = {
        Kind.PARQUET: _parquet,
        Kind.ARROW_FILE: _arrow_file,
        Kind.ARROW_STREAM: _arrow_stream,
    }[kind]
    try:
        schema, rows = None, 0
        for batch in raw(path):
            schema, rows = batch.schema, batch.num_rows
            if rows:
                break
    except _PROBLEMS:
        raise InvalidLeak(f"{name}: the {kind.value} is damaged or cut") from None
    if schema is None or not rows:
        raise InvalidLeak(f"{name}: the {kind.value} has no rows")
    names = unique([title for field in schema for title in _titles(field.name, field.type)])
    if not names:
        raise InvalidLeak(f"{name}: the {kind.value} has no columns")
    return [LeakTable(name, names, True, partial(_batches, raw, path, name, names))]


def _parquet(path: Path) -> Iterator[pa.RecordBatch]:
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS, use_threads=False):
            yield from _checked(batch)


def _arrow_file(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as source, pyarrow.ipc.open_file(source) as reader:
        for index in range(reader.num_record_batches):
            yield from _checked(reader.get_batch(index))


def _arrow_stream(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as source, pyarrow.ipc.open_stream(source) as reader:
        for batch in reader:
            yield from _checked(batch)


def _checked(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield a batch in parts, after making sure that it is what it says: offsets, UTF-8."""
    batch.validate(full=True)
    for start in range(0, batch.num_rows, ROWS):
        yield batch.slice(start, ROWS)


def _batches(
    raw: Callable[[Path], Iterator[pa.RecordBatch]],
    path: Path,
    name: str,
    names: tuple[str, ...],
) -> Iterator[pa.RecordBatch]:
    try:
        for batch in raw(path):
            if batch.num_rows:
                columns = [text for column in batch.columns for text in _texts(column)]
                yield pa.record_batch(columns, list(names))
    except _PROBLEMS:
        raise InvalidLeak(f"{name}: the file is damaged or cut") from None


def _titles(name: str, kind: pa.DataType) -> list[str]:
    if pa.types.is_struct(kind):
        return [title for field in kind for title in _titles(f"{name}.{field.name}", field.type)]
    return [name]


def _texts(column: pa.Array) -> list[pa.Array]:
    kind = column.type
    if pa.types.is_struct(kind):
        # flatten() gives NULL to the fields of a row whose struct is NULL.
        return [text for part in column.flatten() for text in _texts(part)]
    return [as_text(column)]


def as_text(column: pa.Array) -> pa.Array:
    """Return a column as text, as PostgreSQL would print it where it has the type."""
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        return as_text(column.storage)
    if pa.types.is_dictionary(kind):
        return as_text(column.dictionary_decode())
    if pa.types.is_string(kind):
        return column
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _binary(column)
    try:
        if not pa.types.is_duration(kind):
            return pc.cast(column, pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        pass
    return pa.array([_printed(value) for value in column.to_pylist()], pa.string())


def _binary(column: pa.Array) -> pa.Array:
    try:
        return pc.cast(column, pa.string())
    except pa.ArrowInvalid:
        values = column.to_pylist()
        return pa.array([None if v is None else "\\x" + v.hex() for v in values], pa.string())


def _printed(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value.hex() if isinstance(value, bytes) else str(value)
