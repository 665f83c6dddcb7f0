"""pg_dump's custom, directory and tar formats: a table of contents, and data that COPY wrote.

Versions 1.12 to 1.16 of the archive (PostgreSQL 9.0 to 18). Nothing is executed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa

from pgbalise.errors import InvalidLeak
from pgbalise.leaks import sql
from pgbalise.leaks.delimited import copied
from pgbalise.leaks.encoding import encoding_of
from pgbalise.leaks.header import unique
from pgbalise.leaks.kind import HEAD
from pgbalise.leaks.statements import read as read_statements
from pgbalise.leaks.table import LeakTable
from pgbalise.leaks.unpacking import Budget

_MAGIC: Final = b"PGDMP"
_CUSTOM, _TAR, _DIRECTORY = 1, 3, 5
_DATA, _BLOBS = 1, 3
_OLDEST, _NEWEST = (1, 12), (1, 16)
_LONGEST: Final = 64 << 20
"""Bytes of a string in the table of contents, or of a piece of data."""

_END: Final = b"\\.\n\n\n"
_COPY: Final = re.compile(sql.COPY.pattern.removesuffix(rb"[^\S\n]*\n"), sql.COPY.flags)


class _Damaged(Exception):
    pass


@dataclass(frozen=True)
class _Entry:
    """One object of the dump."""

    dump_id: int
    table: str
    desc: str
    definition: str
    copy: str
    file: str


@dataclass(frozen=True)
class _Contents:
    compression: str
    entries: Mapping[int, _Entry]

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Return the columns of each table, as its definition names them."""
        answer = {}
        for entry in self.entries.values():
            text = entry.definition.strip().encode()
            if entry.desc == "TABLE" and (found := sql.CREATE.match(text)):
                answer[entry.table] = sql.created(text, found.end())
        return answer


class _Reader:
    """The archive's own integers and strings."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.intsize = 4

    def bytes(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST:
            raise _Damaged
        data = self._file.read(size)
        if len(data) != size:
            raise _Damaged
        return data

    def byte(self) -> int:
        return self.bytes(1)[0]

    def int(self) -> int:
        sign = self.byte()
        size = int.from_bytes(self.bytes(self.intsize), "little")
        return -size if sign else size

    def text(self) -> str | None:
        size = self.int()
        return None if size < 0 else self.bytes(size).decode("utf-8", "replace")


def _contents(reader: _Reader) -> _Contents:
    if reader.bytes(5) != _MAGIC:
        raise _Damaged
    version = reader.byte(), reader.byte()
    reader.byte()
    if not _OLDEST <= version <= _NEWEST:
        raise _Damaged
    reader.intsize, offsize = reader.byte(), reader.byte()
    form = reader.byte()
    if reader.intsize not in (4, 8) or offsize not in (4, 8):
        raise _Damaged
    if version >= (1, 15):
        compression = dict(enumerate(("none", "gzip", "lz4", "zstd"))).get(reader.byte(), "")
    else:
        compression = "gzip" if reader.int() else "none"
    for _ in range(7):
        reader.int()
    for _ in range(3):
        reader.text()
    count = reader.int()
    entries = (_entry(reader, version, form, offsize) for _ in range(count))
    return _Contents(compression, {entry.dump_id: entry for entry in entries})


def _entry(reader: _Reader, version: tuple[int, int], form: int, offsize: int) -> _Entry:
    dump_id = reader.int()
    reader.int()
    for _ in range(2):
        reader.text()
    tag, desc = reader.text() or "", reader.text() or ""
    reader.int()
    definition = reader.text() or ""
    reader.text()
    copy, namespace = reader.text() or "", reader.text() or ""
    reader.text()
    if version >= (1, 14):
        reader.text()
    if version >= (1, 16):
        reader.int()
    for _ in range(2):
        reader.text()
    while reader.text() is not None:
        pass
    file = ""
    if form == _CUSTOM:
        reader.bytes(1 + offsize)
    else:
        file = reader.text() or ""
    return _Entry(dump_id, f"{namespace}.{tag}" if namespace else tag, desc, definition, copy, file)


def read_custom(path: Path, name: str, folder: Path, budget: Budget) -> list[LeakTable]:
    """Return the tables that have rows in a dump in custom format.

    Raise InvalidLeak when it is damaged or cut, or has no rows.
    """
    tables: list[LeakTable] = []
    try:
        with path.open("rb") as file:
            reader = _Reader(file)
            contents = _contents(reader)
            while kind := file.read(1):
                dump_id = reader.int()
                if kind[0] == _BLOBS:
                    while reader.int():
                        for _ in _pieces(reader):
                            pass
                    continue
                if kind[0] != _DATA or dump_id not in contents.entries:
                    raise _Damaged
                target = budget.file(folder)
                plain = _plain(_pieces(reader), contents.compression)
                budget.write(plain, target, name)
                tables += _tables(contents, contents.entries[dump_id], target, name, folder)
    except (_Damaged, zlib.error, pa.ArrowException, OSError, OverflowError):
        raise InvalidLeak(f"{name}: the dump of pg_dump is damaged or cut") from None
    return _some(tables, name)


def read_folder(
    files: Mapping[str, Path], contents: Path, name: str, folder: Path, budget: Budget
) -> list[LeakTable]:
    """Return the tables that have rows in a dump in directory or tar format.

    ``files``: the files of the dump by their base names; ``contents``: its ``toc.dat``.
    """
    tables: list[LeakTable] = []
    try:
        with contents.open("rb") as file:
            listed = _contents(_Reader(file))
        for entry in listed.entries.values():
            if entry.desc != "TABLE DATA" or not entry.file:
                continue
            data = _data_file(files, entry.file, name, folder, budget)
            tables += _tables(listed, entry, data, name, folder)
    except (_Damaged, zlib.error, pa.ArrowException, OSError, EOFError):
        raise InvalidLeak(f"{name}: the dump of pg_dump is damaged or cut") from None
    return _some(tables, name)


def _data_file(
    files: Mapping[str, Path], wanted: str, name: str, folder: Path, budget: Budget
) -> Path:
    for suffix, compression in (("", ""), (".gz", "gzip"), (".lz4", "lz4"), (".zst", "zstd")):
        found = files.get(wanted + suffix)
        if found is not None and compression:
            target = budget.file(folder)
            with pa.CompressedInputStream(pa.OSFile(str(found)), compression) as stream:
                budget.write(iter(lambda: stream.read(1 << 20), b""), target, name)
            return target
        if found is not None:
            return found
    raise _Damaged


def _some(tables: list[LeakTable], name: str) -> list[LeakTable]:
    if not tables:
        raise InvalidLeak(f"{name}: the dump of pg_dump has no rows")
    return tables


def _pieces(reader: _Reader) -> Iterator[bytes]:
    while size := reader.int():
        yield reader.bytes(size)


def _plain(pieces: Iterator[bytes], compression: str) -> Iterator[bytes]:
    if compression == "none":
        yield from pieces
    elif compression == "gzip":
        inflate = zlib.decompressobj()
        for piece in pieces:
            left = piece
            while left:
                yield inflate.decompress(left, 1 << 22)
                left = inflate.unconsumed_tail
        yield inflate.flush()
        if not inflate.eof:
            raise _Damaged
    elif compression:
        source = pa.PythonFile(_Pieces(pieces), "r")
        with pa.CompressedInputStream(source, compression) as stream:
            while data := stream.read(1 << 20):
                yield data
        # What follows the compressed stream: the piece of length zero.
        for _ in pieces:
            pass
    else:
        raise _Damaged


class _Pieces:
    """Pieces of bytes as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        self.closed = True


def _tables(
    contents: _Contents, entry: _Entry, path: Path, name: str, folder: Path
) -> list[LeakTable]:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, size - len(_END)))
        tail = file.read()
    where = f"{name}: {entry.table}"
    if not entry.copy:
        if b"INSERT INTO" not in head:
            return []
        return read_statements(path, name, head, folder, contents.columns())
    found = _COPY.match(entry.copy.encode())
    end = size - len(_END) if tail == _END else size
    if found is None or not end:
        return []
    columns = unique(sql.names_of(found[2]))
    return [copied(path, where, columns, encoding_of(path, head), 0, end)]
