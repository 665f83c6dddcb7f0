"""JSON and JSON lines: whatever in them is a list of rows; numbers keep their digits."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from pgbalise.errors import InvalidLeak
from pgbalise.leaks.cursor import Cursor, NotJson
from pgbalise.leaks.encoding import encoding_of, utf8_chunks
from pgbalise.leaks.header import numbered, unique
from pgbalise.leaks.spool import Spool
from pgbalise.leaks.table import LeakTable

_VALUES: Final = 4 << 20
"""Single values of a list: columns that are kept until all of them are known."""

_NAMES: Final = ("columns", "fields", "header", "headers", "column_names", "keys")


def read(path: Path, name: str, head: bytes, folder: Path) -> list[LeakTable]:
    """Return the tables in a JSON text, converted into files in the folder.

    Raise InvalidLeak when it is not JSON, or has no rows.
    """
    chunks = utf8_chunks(path, encoding_of(path, head), name)
    tables = _Tables(folder, name)
    try:
        _document(Cursor(chunks), tables, _is_lines(head))
    except (NotJson, UnicodeDecodeError, RecursionError):
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
            raise NotJson

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


def _document(cursor: Cursor, tables: _Tables, lines: bool) -> None:
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
        raise NotJson


def _list(cursor: Cursor, tables: _Tables, place: str, names: tuple[str, ...]) -> list[Any] | None:
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
            if len(scalars) > _VALUES:
                raise NotJson
        if cursor.take("]"):
            break
        cursor.need(",")
    if scalars and not place:
        raise NotJson
    return scalars or None


def _object(cursor: Cursor, tables: _Tables) -> None:
    """Find the rows in one object: lists of rows in it, or columns, or rows by their key."""
    cursor.need("{")
    rest: dict[str, Any] = {}
    streamed = False
    if cursor.take("}"):
        return
    while True:
        key = cursor.value()
        if not isinstance(key, str):
            raise NotJson
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
