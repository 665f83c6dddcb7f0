"""PURE. Text split into rows of fields: exact and slow, for samples and for rows out of line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

NULL: Final = "\\N"
"""How PostgreSQL and MySQL write NULL in text."""

_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE: Final = re.compile(r"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """One row: its fields, which of them were quoted whole, and where it ends in the text."""

    fields: tuple[str | None, ...]
    quoted: tuple[bool, ...]
    end: int


def split(text: str, delimiter: str, quote: str, escape: bool) -> Iterator[Row]:
    r"""Yield a text's rows, blank lines left out.

    ``quote`` is empty when nothing is quoted; with ``escape`` a backslash makes the next character
    plain. An empty field is None unless it is quoted, and so is ``\N``. A quote that is never
    closed is a character like any other.
    """
    match = _pattern(delimiter, quote, escape).match
    position = 0
    fields: list[str | None] = []
    quoted: list[bool] = []
    while position < len(text) or fields:
        found = match(text, position)
        assert found is not None, "the pattern matches any text, an empty one too"
        position = found.end()
        inside, after, plain, end = found.groups()
        if inside is not None:
            value: str | None = inside.replace(quote * 2, quote) + after
        else:
            value = plain if plain and plain != NULL else None
        if escape and value:
            value = _ESCAPE_ANY.sub(r"\1", value)
        fields.append(value)
        quoted.append(inside is not None and not after)
        if end == delimiter:
            continue
        if len(fields) > 1 or fields[0] is not None:
            yield Row(tuple(fields), tuple(quoted), position)
        fields, quoted = [], []


_ESCAPE_ANY: Final = re.compile(r"\\(.)", re.DOTALL)


@lru_cache(64)
def _pattern(delimiter: str, quote: str, escape: bool) -> re.Pattern[str]:
    d, q = re.escape(delimiter), re.escape(quote)
    end = rf"({d}|\r\n|\n|\r|\Z)"
    plain = rf"((?:\\.|[^{d}\r\n\\])*+)" if escape else rf"([^{d}\r\n]*+)"
    if not quote:
        return re.compile(rf"(?:(?!)()())?{plain}{end}", re.DOTALL)
    body = rf"(?:[^{q}\\]|\\.|{q}{q})*+" if escape else rf"[^{q}]*+(?:{q}{q}[^{q}]*+)*+"
    return re.compile(rf"(?:{q}({body}){q}([^{d}\r\n]*+)|{plain}){end}", re.DOTALL)


def unescaped(text: str) -> str:
    """Return a value of COPY's text format without its backslashes."""
    return _ESCAPE.sub(_unescape, text)


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    if code[0] in "01234567":
        return chr(int(code, 8))
    return _ESCAPES.get(code, code)
