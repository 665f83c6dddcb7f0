"""Delimited text, streamed: CSV, TSV and their kin, and the text format of COPY."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pgbalise.errors import InvalidLeak
from pgbalise.leaks.dialect import Dialect, NotATable, infer, is_rule
from pgbalise.leaks.encoding import ByteStream, Encoding, encoding_of, utf8_chunks
from pgbalise.leaks.fields import NULL, split, unescaped
from pgbalise.leaks.table import LeakTable

_BLOCK: Final = 2 << 20
"""Bytes read at a time, so the longest row there may be."""

_SAMPLE: Final = 1 << 18
_DROPPED: Final = 20
"""One row in so many may be beyond repair (and one in a shorter file)."""

_MANY: Final = 100_000
_ESCAPED_NULL: Final = re.compile(rb"(?<=[\x01\t\n\r,;|:^])\\N(?=[\x01\t\n\r,;|:^]|\Z)")
_ESCAPED_END: Final = re.compile(rb"\\([\s\S])")


def read(path: Path, name: str, head: bytes) -> list[LeakTable]:
    """Return the table in a delimited text.

    Raise InvalidLeak when it is none: empty, a header only, rows that differ in their fields.
    """
    encoding = encoding_of(path, head)
    sample, complete = _sample(path, encoding, name)
    try:
        dialect = infer(sample, complete)
    except NotATable as problem:
        raise InvalidLeak(f"{name}: {problem}") from None
    names = dialect.columns
    skip = len(sample[: dialect.skip].encode())
    source = partial(utf8_chunks, path, encoding, name)
    reading = partial(_batches, source, name, dialect, names, skip)
    return [LeakTable(name, names, bool(dialect.header), reading)]


def copied(
    path: Path, name: str, columns: tuple[str, ...], encoding: Encoding, start: int, end: int | None
) -> LeakTable:
    """Return the table in a part of a file that COPY wrote in its text format."""
    width = len(columns)
    dialect = Dialect("\t", "", False, True, False, False, 0, columns, width, tuple(range(width)))
    source = partial(utf8_chunks, path, encoding, name, start, end)
    return LeakTable(name, columns, True, partial(_batches, source, name, dialect, columns, 0))


def _sample(path: Path, encoding: Encoding, name: str) -> tuple[str, bool]:
    parts: list[bytes] = []
    have = 0
    for chunk in utf8_chunks(path, encoding, name):
        parts.append(chunk)
        have += len(chunk)
        if have > _SAMPLE:
            sample = b"".join(parts)[:_SAMPLE]
            return sample.decode("utf-8", "ignore"), False
    return b"".join(parts).decode(), True


class _Ragged:
    """Rows whose number of fields is not the table's: repaired when a rule says how, or dropped."""

    def __init__(self, name: str, dialect: Dialect) -> None:
        self._name = name
        self._dialect = dialect
        self._repaired: list[tuple[str | None, ...]] = []
        self._dropped = 0
        self._short = 0
        self._unclosed = False
        self.rows = 0

    def __call__(self, row: Any) -> str:
        repaired = self._repair(row.text)
        if repaired is not None:
            self._repaired.append(repaired)
        if len(self._repaired) > _MANY or self._dropped > _MANY:
            return "error"
        return "skip"

    def _repair(self, text: str) -> tuple[str | None, ...] | None:
        dialect, width = self._dialect, self._dialect.width
        if is_rule(text) or text.strip() == "\\.":
            return None
        rows = list(split(text, dialect.delimiter, dialect.quote, dialect.escape))
        # A quote that is not closed takes the lines below it into its row.
        self._unclosed |= len(rows) > 1
        fields = rows[0].fields if len(rows) == 1 else ()
        if len(fields) > width and not any(fields[width:]):
            return fields[:width]
        if 1 < len(fields) < width:
            self._short += 1
            return fields + (None,) * (width - len(fields))
        self._dropped += 1
        return None

    def taken(self, names: list[str]) -> pa.RecordBatch | None:
        """Return the rows repaired since, raising InvalidLeak when too many were dropped."""
        self.rows += len(self._repaired)
        if self._unclosed:
            raise InvalidLeak(f"{self._name}: a quote is opened and never closed")
        allowed = 1 + (self.rows + self._dropped) // _DROPPED
        if self._dropped > allowed or self._short > max(allowed, self.rows // 2):
            raise InvalidLeak(f"{self._name}: its rows differ in their number of fields")
        if not self._repaired:
            return None
        columns = zip(*self._repaired, strict=True)
        self._repaired = []
        return pa.record_batch([pa.array(column, pa.string()) for column in columns], names)


def _batches(
    source: Callable[[], Iterator[bytes]],
    name: str,
    dialect: Dialect,
    names: tuple[str, ...],
    skip: int,
) -> Iterator[pa.RecordBatch]:
    raw = [f"f{index}" for index in range(dialect.width)]
    chunks = source()
    if dialect.escape:
        chunks = _whole_lines(chunks, lambda text: _ESCAPED_NULL.sub(b"", text))
    elif dialect.copy_text:
        chunks = _whole_lines(chunks, _escaped_ends)
    stream = ByteStream(chunks, skip, dialect.quote.encode())
    ragged = _Ragged(name, dialect)
    last = None
    for batch in _parsed(stream, name, dialect, raw, ragged):
        ragged.rows += batch.num_rows
        for part in (batch, ragged.taken(raw)):
            if part is not None and (finished := _finished(part, dialect, names)).num_rows:
                yield finished
        if batch.num_rows:
            last = batch
    part = ragged.taken(raw)
    if part is not None:
        yield _finished(part, dialect, names)
    # Quotes come in pairs, unless a backslash is how one is written within others.
    unpaired = stream.quotes % 2 and not dialect.escape
    if last is not None and (unpaired or not stream.closed_quote):
        value = last.column(last.num_columns - 1)[-1].as_py()
        if dialect.quote and value and "\n" in value:
            raise InvalidLeak(f"{name}: a quote is opened and never closed")


def _parsed(
    stream: ByteStream, name: str, dialect: Dialect, raw: list[str], ragged: _Ragged
) -> Iterator[pa.RecordBatch]:
    parse = pyarrow.csv.ParseOptions(
        delimiter=dialect.delimiter,
        quote_char=dialect.quote or False,
        double_quote=True,
        escape_char="\\" if dialect.escape else False,
        newlines_in_values=bool(dialect.quote),
        # COPY writes the empty text of an only column as an empty line.
        ignore_empty_lines=not (dialect.copy_text and dialect.width == 1),
        invalid_row_handler=ragged,
    )
    convert = pyarrow.csv.ConvertOptions(
        column_types={column: pa.string() for column in raw},
        null_values=[NULL] if dialect.copy_text else ["", NULL],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    options = pyarrow.csv.ReadOptions(column_names=raw, block_size=_BLOCK, use_threads=False)
    try:
        yield from pyarrow.csv.open_csv(pa.PythonFile(stream, "r"), options, parse, convert)
    except pa.ArrowInvalid as problem:
        if "Empty CSV file" in str(problem):
            return
        if "straddling" in str(problem):
            what = f"a row is longer than {_BLOCK >> 20} MiB, or a quote is never closed"
            raise InvalidLeak(f"{name}: {what}") from None
        raise InvalidLeak(f"{name}: its rows cannot be told apart") from None


def _finished(batch: pa.RecordBatch, dialect: Dialect, names: tuple[str, ...]) -> pa.RecordBatch:
    """Return the columns that are kept, values as they were meant, repeated headers left out."""
    columns = [batch.column(field) for field in dialect.keep]
    if dialect.copy_text:
        columns = [_unescaped(column) for column in columns]
    if dialect.ruled or dialect.padded:
        columns = [_trimmed(column) for column in columns]
    finished = pa.record_batch(columns, list(names)) if columns else batch
    drop = _repeated_header(batch, dialect)
    if dialect.ruled and finished.num_rows:
        ruled = pc.match_substring_regex(finished.column(0), r"^:?-{3,}:?$|^\+-")
        drop = pc.or_(drop, pc.fill_null(ruled, False)) if drop is not None else ruled
    if drop is not None:
        finished = finished.filter(pc.invert(pc.fill_null(drop, False)))
    return finished


def _repeated_header(batch: pa.RecordBatch, dialect: Dialect) -> pa.Array | None:
    """Return which rows are the header again, as in files put one behind the other."""
    if len(dialect.header) != batch.num_columns:
        return None
    same = None
    for column, title in zip(batch.columns, dialect.header, strict=True):
        if title is None:
            continue
        equal = pc.equal(column, title)
        same = equal if same is None else pc.and_(same, equal)
        if not pc.any(same).as_py():
            return None
    return same


def _unescaped(column: pa.Array) -> pa.Array:
    escaped = pc.fill_null(pc.match_substring(column, "\\"), False)
    if not pc.any(escaped).as_py():
        return column
    plain = [unescaped(value) for value in column.filter(escaped).to_pylist()]
    return pc.replace_with_mask(column, escaped, pa.array(plain, pa.string()))


def _trimmed(column: pa.Array) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def _whole_lines(chunks: Iterator[bytes], change: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Change a text whose chunks are first made to end where a line does."""
    rest = b""
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        # An escaped newline ends no line.
        while cut and (len(chunk[: cut - 1]) - len(chunk[: cut - 1].rstrip(b"\\"))) % 2:
            cut = chunk.rfind(b"\n", 0, cut - 1) + 1
        if not cut:
            rest += chunk
            if len(rest) > _BLOCK:
                yield change(rest)
                rest = b""
            continue
        yield change(rest + chunk[:cut])
        rest = chunk[cut:]
    if rest:
        yield change(rest)


def _escaped_ends(text: bytes) -> bytes:
    """Return COPY text in which an escaped newline or tab is written with a letter.

    COPY reads both forms; MySQL writes the one, PostgreSQL the other.
    """
    if b"\\\n" not in text and b"\\\t" not in text:
        return text
    letters = {b"\n": b"\\n", b"\t": b"\\t"}
    return _ESCAPED_END.sub(lambda found: letters.get(found[1], found[0]), text)
