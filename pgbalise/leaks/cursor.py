"""PURE. A JSON text that is read value by value, so that it may be larger than memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

_LARGEST: Final = 256 << 20
"""Characters of one value: a row, or a document that is no list of rows."""

_STEP: Final = 1 << 20
_BLANK: Final = " \t\r\n\x1e\ufeff"
_DECODER: Final = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str, strict=False)


class NotJson(Exception):
    """The text is no JSON, is cut, or is nested too deep."""


class Cursor:
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
            raise NotJson

    def value(self) -> Any:
        """Return the next value, numbers as their text."""
        self.peek()
        step = _STEP
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._at)
            except RecursionError:
                raise NotJson from None
            except ValueError:
                end = -1
            # A number that touches the end may go on.
            if end >= 0 and (self._ended or end < len(self._buffer)):
                self._at = end
                return value
            if self._ended or len(self._buffer) - self._at > _LARGEST:
                raise NotJson
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
