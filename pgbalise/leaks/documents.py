"""JSON and JSON lines: whatever in them is a list of rows; numbers keep their digits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from pgbalise.errors import InvalidLeak
from pgbalise.leaks.encoding import encoding_of, utf8_chunks
from pgbalise.leaks.header import numbered, unique
from pgbalise.leaks.spool import Spool
from pgbalise.leaks.table import LeakTable

_LARGEST: Final = 256 << 20
"""Characters of one value: a row, or a document that is no list of rows."""

_STEP: Final = 1 << 20
_BLANK: Final = " \t\r\n\x1e\ufeff"
_DECODER: Final = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str, strict=False)
_NAMES: Final = ("columns", "fields", "header", "headers", "column_names", "keys")


class _NotJson(Exception):
    pass


class _Cursor:
    """A place in a text that is read as it is needed."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = ""
        self._at = 0
        self._ended = False
        self._partial = b""

    def _more(self, size: int) -> None:
        parts = [self._buffer[self._at :]]
        have = 0
        while have < size and not self._ended:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._ended = True
                chunk = b""
            data = self._partial + chunk
            # A character may be cut at the end of a chunk: it has at most four bytes.
            text = data.decode("utf-8", "strict" if self._ended else "ignore")
            self._partial = b"" if self._ended else _cut_character(data)
            parts.append(text)
            have += len(chunk)
        self._buffer, self._at = "".join(parts), 0

    def peek(self) -> str:
        """Return the next character that is not blank; empty at the end."""
        while True:
            while self._at < len(self._buffer):
                if self._buffer[self._at] not in _BLANK:
                    return self._buffer[self._at]
                self._at += 1
            if self._ended:
                return ""
            self._more(_STEP)

    def take(self, expected: str) -> bool:
        """Go past a character if it is the next one."""
        if self.peek() != expected:
            return False
        self._at += 1
        return True

    def need(self, expected: str) -> None:
        """Go past a character that must be the next one."""
        if not self.take(expected):
            raise _NotJson

    def value(self) -> Any:
        """Return the next value, numbers as their text."""
        self.peek()
        step = _STEP
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._at)
            except RecursionError:
                raise _NotJson from None
            except ValueError:
                end = -1
            # A number that touches the end may go on.
            if end >= 0 and (self._ended or end < len(self._buffer)):
                self._at = end
                return value
            if self._ended or len(self._buffer) - self._at > _LARGEST:
                raise _NotJson
            self._more(step)
            step *= 2


def _cut_character(data: bytes) -> bytes:
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            size = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[-back:] if size > back else b""
        if byte < 0x80:
            return b""
    return b""


def read(path: Path, name: str, head: bytes, folder: Path) -> list[LeakTable]:
    """Return the tables in a JSON text, converted into files in the folder.

    Raise InvalidLeak when it is not JSON, or has no rows.
    """
    chunks = utf8_chunks(path, encoding_of(path, head), name)
    tables = _Tables(folder, name)
    try:
        _document(_Cursor(chunks), tables, _is_lines(head))
    except (_NotJson, UnicodeDecodeError, RecursionError):
        raise InvalidLeak(f"{name}: the JSON text is damaged, cut or nested too deep") from None
    found = tables.made()
    if not found:
        raise InvalidLeak(f"{name}: the JSON text has no rows")
    return found


def _is_lines(head: bytes) -> bool:
    """Say whether the first line is an object and another value follows."""
    lines = head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \r\n\t\x1e").splitlines()
    filled = [line for line in lines if line.strip()]
    if len(filled) < 2:
        return False
    first = filled[0].strip()
    if first.startswith(b"[") and filled[1].strip().startswith(b"["):
        return first.endswith(b"]")
    return first.startswith(b"{") and filled[1].strip()[:1] in (b"{", b"\x1e")


class _Tables:
    """The tables found so far, by their place in the document."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._spools: dict[str, tuple[Spool, bool]] = {}

    def row(self, place: str, value: Any, names: tuple[str, ...] = ()) -> None:
        """Add an object, or a list of values, as a row."""
        if isinstance(value, list):
            titles = names if len(names) == len(value) else numbered(len(value))
            value = dict(zip(titles, value, strict=True))
            self._spool(place, titles is names).add(flat(value))
        elif isinstance(value, dict):
            self._spool(place, True).add(flat(value))
        elif value is not None:
            raise _NotJson

    def _spool(self, place: str, named: bool) -> Spool:
        if place not in self._spools:
            name = f"{self._name}: {place}" if place else self._name
            self._spools[place] = Spool(self._folder, name), named
        return self._spools[place][0]

    def made(self) -> list[LeakTable]:
        """Return the tables that have rows."""
        tables = (spool.table(named=named) for spool, named in self._spools.values())
        return [table for table in tables if table is not None]


def flat(row: Mapping[str, Any]) -> dict[str, str | None]:
    """Return an object as a row: what is nested becomes columns with dotted names."""
    answer: dict[str, str | None] = {}
    pending: list[tuple[str, Any]] = list(row.items())[::-1]
    while pending:
        name, value = pending.pop()
        if isinstance(value, dict):
            pending += [(f"{name}.{key}", part) for key, part in value.items()][::-1]
        elif isinstance(value, list):
            pending += [(f"{name}.{index}", part) for index, part in enumerate(value)][::-1]
        elif isinstance(value, bool):
            answer[name] = "true" if value else "false"
        else:
            answer[name] = value
    return answer


def _document(cursor: _Cursor, tables: _Tables, lines: bool) -> None:
    if lines:
        while cursor.peek():
            tables.row("", cursor.value())
            cursor.take(",")
        return
    if cursor.peek() == "[":
        _list(cursor, tables, "", ())
    else:
        _object(cursor, tables)
    if cursor.peek():
        raise _NotJson


def _list(cursor: _Cursor, tables: _Tables, place: str, names: tuple[str, ...]) -> list[Any] | None:
    """Stream a list's rows into a table; return the list when it holds single values instead."""
    cursor.need("[")
    scalars: list[Any] = []
    if cursor.take("]"):
        return scalars
    while True:
        streamed = cursor.peek() in ("{", "[") and not scalars
        value = cursor.value()
        if streamed:
            tables.row(place, value, names)
        else:
            scalars.append(value)
            if len(scalars) > _LARGEST // 64:
                raise _NotJson
        if cursor.take("]"):
            break
        cursor.need(",")
    if scalars and not place:
        raise _NotJson
    return scalars or None


def _object(cursor: _Cursor, tables: _Tables) -> None:
    """Find the rows in one object: lists of rows in it, or columns, or rows by their key."""
    cursor.need("{")
    rest: dict[str, Any] = {}
    streamed = False
    if cursor.take("}"):
        return
    while True:
        key = cursor.value()
        if not isinstance(key, str):
            raise _NotJson
        cursor.need(":")
        if cursor.peek() == "[":
            scalars = _list(cursor, tables, key, _given_names(rest))
            streamed |= scalars is None
            if scalars is not None:
                rest[key] = scalars
        else:
            rest[key] = cursor.value()
        if cursor.take("}"):
            break
        cursor.need(",")
    if not streamed:
        _search(rest, tables, "", 0)


def _given_names(rest: Mapping[str, Any]) -> tuple[str, ...]:
    for key in _NAMES:
        names = rest.get(key)
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return unique(names)
    return ()


def _search(value: dict[str, Any], tables: _Tables, place: str, depth: int) -> None:
    parts = list(value.values())
    if parts and all(isinstance(part, list) for part in parts):
        if any(isinstance(cell, (dict, list)) for part in parts for cell in part):
            for key, part in value.items():
                for row in part:
                    tables.row(_joined(place, key), row)
            return
        for row in zip_longest(*parts):
            tables.row(place, dict(zip(value, row, strict=True)))
        return
    if parts and all(isinstance(part, dict) for part in parts):
        inner = list(parts[0])
        if len(parts) > 1 or _are_numbers(inner):
            _keyed(value, inner, tables, place)
            return
    found = False
    for key, part in value.items():
        if isinstance(part, dict) and depth < 8 and _has_list(part, 0):
            _search(part, tables, _joined(place, key), depth + 1)
            found = True
        elif isinstance(part, list) and part and all(isinstance(row, dict) for row in part):
            for row in part:
                tables.row(_joined(place, key), row)
            found = True
    if not found:
        tables.row(place, value)


def _keyed(value: dict[str, Any], inner: list[str], tables: _Tables, place: str) -> None:
    if _are_numbers(inner) and inner:
        # Columns by name, each with its values by row number (pandas writes this).
        for index in inner:
            tables.row(place, {name: column.get(index) for name, column in value.items()})
        return
    for key, row in value.items():
        tables.row(place, {"key": key, **row})


def _are_numbers(keys: list[str]) -> bool:
    return bool(keys) and all(key.isdecimal() for key in keys)


def _has_list(value: dict[str, Any], depth: int) -> bool:
    return any(
        (isinstance(part, list) and part and isinstance(part[0], (dict, list)))
        or (isinstance(part, dict) and depth < 8 and _has_list(part, depth + 1))
        for part in value.values()
    )


def _joined(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key
