"""Dumps as SQL text: the rows of COPY blocks and of INSERT statements; nothing is executed."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pgbalise.errors import InvalidLeak
from pgbalise.leaks import sql
from pgbalise.leaks.delimited import copied
from pgbalise.leaks.encoding import Encoding, encoding_of, utf8_chunks
from pgbalise.leaks.header import numbered, unique
from pgbalise.leaks.spool import Spool
from pgbalise.leaks.table import LeakTable

_MYSQL: Final = re.compile(rb"MySQL|MariaDB|phpMyAdmin|`")
_AGAIN: Final = re.compile(rb"^(?:COPY|INSERT|REPLACE|CREATE)\s", re.MULTILINE | re.IGNORECASE)
_COMMA: Final = re.compile(rb"\s*+,")
_RELEASED: Final = 64 << 20


class _OtherQuoting(Exception):
    """The text cannot be read that way: perhaps backslashes are, or are not, escapes in it."""


def read(
    path: Path,
    name: str,
    head: bytes,
    folder: Path,
    created: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> list[LeakTable]:
    """Return the tables that have rows in a dump as text.

    ``created``: the columns of tables that are defined elsewhere. Raise InvalidLeak when it ends in
    the middle of a table, cannot be read, or has no rows.
    """
    encoding = encoding_of(path, head)
    if encoding.name.startswith("utf-16"):
        path, encoding = _recoded(path, encoding, name, folder), Encoding("utf-8")
    mysql = bool(_MYSQL.search(head))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for escape in (mysql, not mysql):
            try:
                tables = _Script(path, text, name, encoding, folder, escape, created).tables()
            except _OtherQuoting:
                continue
            if not tables:
                raise InvalidLeak(f"{name}: the dump has no rows")
            return tables
    raise InvalidLeak(f"{name}: an INSERT cannot be read, or is cut")


def _recoded(path: Path, encoding: Encoding, name: str, folder: Path) -> Path:
    target = folder / f"{path.name}.utf-8.sql"
    with target.open("wb") as file:
        for chunk in utf8_chunks(path, encoding, name):
            file.write(chunk)
    return target


class _Script:
    """One reading of the text, from its first statement to its last."""

    def __init__(
        self,
        path: Path,
        text: mmap.mmap,
        name: str,
        encoding: Encoding,
        folder: Path,
        escape: bool,
        created: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._path = path
        self._text = text
        self._name = name
        self._encoding = encoding
        self._folder = folder
        self._escape = escape
        self._created = dict(created)
        self._copied: list[LeakTable] = []
        self._inserted: dict[tuple[str, tuple[str, ...]], tuple[Spool, bool]] = {}
        self._released = 0

    def tables(self) -> list[LeakTable]:
        """Return the tables that have rows."""
        text, position = self._text, 0
        readers: tuple[tuple[re.Pattern[bytes], Callable[[re.Match[bytes]], int]], ...] = (
            (sql.INSERT, self._insert),
            (sql.COPY, self._copy),
            (sql.CREATE, self._create),
        )
        while True:
            gap = sql.GAP.match(text, position)
            position = gap.end() if gap else position
            if position >= len(text):
                break
            for pattern, reader in readers:
                if found := pattern.match(text, position):
                    position = reader(found)
                    break
            else:
                position = self._skipped(position)
            self._release(position)
        inserted = (spool.table(named=named) for spool, named in self._inserted.values())
        return self._copied + [table for table in inserted if table is not None]

    def _release(self, position: int) -> None:
        # What was read stays in memory otherwise, until all of a large file is there.
        if position - self._released > _RELEASED:
            self._text.madvise(mmap.MADV_DONTNEED)
            self._released = position

    def _skipped(self, position: int) -> int:
        end = sql.skipped(self._text, position, self._escape)
        if end > position:
            return end
        again = _AGAIN.search(self._text, position + 1)
        return again.start() if again else len(self._text)

    def _create(self, found: re.Match[bytes]) -> int:
        self._created[sql.name_of(found[1])] = sql.created(self._text, found.end())
        return self._skipped(found.end())

    def _copy(self, found: re.Match[bytes]) -> int:
        text, start = self._text, found.end()
        table = sql.name_of(found[1])
        end = start if text[start : start + 2] == b"\\." else text.find(b"\n\\.", start) + 1
        while end and text[end + 2 : end + 3] not in (b"\n", b"\r", b""):
            end = text.find(b"\n\\.", end) + 1
        if not end:
            raise InvalidLeak(f"{self._name}: the dump is cut inside a COPY")
        if end > start and not found[3].strip():
            columns = sql.names_of(found[2]) or self._created.get(table, ())
            if not columns:
                columns = numbered(text[start : text.find(b"\n", start)].count(b"\t") + 1)
            where = f"{self._name}: {table}"
            self._copied.append(
                copied(self._path, where, unique(columns), self._encoding, start, end)
            )
        return end + 2

    def _insert(self, found: re.Match[bytes]) -> int:
        table, columns = sql.name_of(found[1]), sql.names_of(found[2])
        columns = columns or self._created.get(table, ())
        position = found.end()
        opening = sql.OPENING.match(self._text, position)
        if opening is None:
            if position >= len(self._text):
                raise _OtherQuoting
            return self._skipped(position)
        while opening is not None:
            values, position = self._row(opening.end())
            self._add(table, columns, values)
            self._release(position)
            comma = _COMMA.match(self._text, position)
            if comma is None:
                break
            opening = sql.OPENING.match(self._text, comma.end())
            if opening is None:
                raise _OtherQuoting
        return self._skipped(position) if position < len(self._text) else position

    def _add(self, table: str, columns: tuple[str, ...], values: list[str | None]) -> None:
        if columns and len(columns) != len(values):
            raise _OtherQuoting
        key = table, columns or numbered(len(values))
        if key not in self._inserted:
            spool = Spool(self._folder, f"{self._name}: {table}")
            self._inserted[key] = spool, bool(columns)
        self._inserted[key][0].add(dict(zip(key[1], values, strict=True)))

    def _row(self, position: int) -> tuple[list[str | None], int]:
        match = sql.LITERAL[self._escape].match
        values: list[str | None] = []
        while True:
            found = match(self._text, position)
            if found is None:
                raise _OtherQuoting
            position = found.end()
            values.append(self._value(found))
            if found[9] == b")":
                return values, position

    def _value(self, found: re.Match[bytes]) -> str | None:
        _null, boolean, binary, number, escaped, text, function, _other, _end = found.groups()
        if text is not None:
            value = self._decoded(text)
            return sql.string(value, self._escape) if b"'" in text or b"\\" in text else value
        if number is not None:
            return str(number, "ascii")
        if boolean is not None:
            return str(boolean, "ascii").lower()
        if binary is not None:
            return "\\x" + str(binary, "ascii").strip("'").lower()
        if escaped is not None:
            return sql.string(self._decoded(escaped), True)
        inner = sql.called(function) if function is not None else None
        return sql.string(self._decoded(inner), self._escape) if inner is not None else None

    def _decoded(self, value: bytes) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            return self._encoding.decoder()(value, True)
