"""Rows that can be read once only, kept as Arrow files so that they can be read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.ipc

from pgbalise.errors import InvalidLeak
from pgbalise.leaks.header import unique
from pgbalise.leaks.table import ROWS, LeakTable

_BYTES: Final = 32 << 20
"""Characters of a batch, at most about."""

_COLUMNS: Final = 4_096


def text_array(values: Sequence[str | None]) -> pa.Array:
    """Return texts as a column; lone surrogates, which are no text, become question marks."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        plain = [v if v is None else v.encode(errors="replace").decode() for v in values]
        return pa.array(plain, pa.string())


def text_batches(
    rows: Iterable[Sequence[str | None]], columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Yield rows as batches of string columns; each row has as many values as there are columns."""
    source = iter(rows)
    pending: list[Sequence[str | None]] = []
    size = 0
    while part := list(islice(source, 256)):
        pending += part
        size += sum(len(value) for row in part for value in row if value)
        size += 8 * len(part) * len(columns)
        if len(pending) >= ROWS or size >= _BYTES:
            yield _batch(pending, columns)
            pending, size = [], 0
    if pending:
        yield _batch(pending, columns)


def _batch(rows: list[Sequence[str | None]], columns: Sequence[str]) -> pa.RecordBatch:
    arrays = [text_array(column) for column in zip(*rows, strict=True)]
    return pa.record_batch(arrays, list(columns))


class Spool:
    """A table in the making, whose columns are known when its last row is."""

    _numbers = count()

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._stem = folder / f"spool-{next(self._numbers)}"
        self._columns: dict[str, int] = {}
        self._pending: list[Mapping[str, str | None]] = []
        self._size = 0
        self._segments: list[Path] = []

    def add(self, row: Mapping[str, str | None]) -> None:
        """Add a row: values by column; a column that it lacks is NULL.

        Raise InvalidLeak when the columns become too many for a table.
        """
        columns = self._columns
        for column, value in row.items():
            if column not in columns:
                columns[column] = len(columns)
            if value:
                self._size += len(value)
        if len(columns) > _COLUMNS:
            raise InvalidLeak(f"{self.name}: more than {_COLUMNS} columns")
        self._pending.append(row)
        self._size += 8 * len(columns)
        if len(self._pending) >= ROWS or self._size >= _BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        columns = list(self._columns)
        rows: Iterator[list[str | None]] = ([row.get(c) for c in columns] for row in self._pending)
        # Names of two keys may differ in a lone surrogate only, so the file numbers them.
        batch = _batch(list(rows), [str(n) for n in range(len(columns))])
        path = self._stem.with_suffix(f".{len(self._segments)}")
        options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
        with pyarrow.ipc.new_file(path, batch.schema, options=options) as writer:
            writer.write_batch(batch)
        self._segments.append(path)
        self._pending = []
        self._size = 0

    def table(self, names: Sequence[str] | None = None, *, named: bool = True) -> LeakTable | None:
        """Return the table, or None when it has no rows; ``names`` replace the columns' own."""
        self._flush()
        if not self._segments or not self._columns:
            return None
        columns = unique([c.encode(errors="replace").decode() for c in names or self._columns])
        segments = tuple(self._segments)
        return LeakTable(self.name, columns, named, lambda: _replayed(segments, columns))


def _replayed(segments: tuple[Path, ...], columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    for path in segments:
        with pa.OSFile(str(path)) as file, pyarrow.ipc.open_file(file) as reader:
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                missing = len(columns) - batch.num_columns
                nulls = [pa.nulls(batch.num_rows, pa.string())] * missing
                yield pa.record_batch([*batch.columns, *nulls], list(columns))
