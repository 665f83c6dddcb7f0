"""Reading a leaked file, and the stored rows it is compared with, as columns of text."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from pgbalise.errors import InvalidLeak

_PARQUET = b"PAR1"
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Leak:
    """A leaked file: its rows as text, and what identifies the file itself."""

    name: str
    sha256: str
    size: int
    """Bytes."""
    rows: pa.Table


def read_leak(path: Path) -> Leak:
    """Read CSV (comma, semicolon, tab or bar between fields, with a header) or Parquet.

    Raise InvalidLeak when the file is missing, empty, or neither.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise InvalidLeak(f"{path}: {problem.strerror}") from None
    if not data.strip():
        raise InvalidLeak(f"{path}: the file is empty")
    rows = _parquet(path, data) if data[:4] == _PARQUET else _csv(path, data)
    if not rows.num_rows:
        raise InvalidLeak(f"{path}: the file has no rows")
    return Leak(path.name, hashlib.sha256(data).hexdigest(), len(data), rows)


def _parquet(path: Path, data: bytes) -> pa.Table:
    try:
        return as_text(pyarrow.parquet.read_table(pa.BufferReader(data)))
    except pa.ArrowException:
        raise InvalidLeak(f"{path}: the Parquet file cannot be read") from None


def _csv(path: Path, data: bytes) -> pa.Table:
    if data[:3] == b"\xef\xbb\xbf":
        data = data[3:]
    head = data[:65536]
    if b"\0" in head:
        raise InvalidLeak(f"{path}: the file is binary", hint="CSV and Parquet can be read")
    try:
        first = head.decode(errors="strict" if len(data) <= len(head) else "ignore").splitlines()[0]
    except UnicodeDecodeError:
        raise InvalidLeak(f"{path}: the file is not UTF-8 text") from None
    delimiter = max(_DELIMITERS, key=first.count)
    names = next(csv.reader([first], delimiter=delimiter))
    if len(set(names)) != len(names):
        raise InvalidLeak(f"{path}: two columns of the header have the same name")
    return _read_csv(path.name, data, names, delimiter)


def _read_csv(where: str, data: bytes, names: list[str], delimiter: str) -> pa.Table:
    try:
        return pyarrow.csv.read_csv(
            io.BytesIO(data),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
            ),
        )
    except pa.ArrowException:
        raise InvalidLeak(
            f"{where}: not every row has the {len(names)} fields of the header"
        ) from None


def copied_rows(data: bytes, names: list[str]) -> pa.Table:
    """Read what COPY ... TO STDOUT (FORMAT csv) printed, without a header, as text."""
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(names)
    return _read_csv("COPY", header.getvalue().encode() + data, names, ",")


def as_text(table: pa.Table) -> pa.Table:
    """Return the table with every column as text, as PostgreSQL would print it."""
    return pa.table([_text(column) for column in table.columns], names=table.column_names)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    plain = column
    if pa.types.is_dictionary(column.type):
        plain = pc.cast(column, column.type.value_type)
    return plain if pa.types.is_string(plain.type) else pc.cast(plain, pa.string())
