"""PURE. A text that comes in pieces: decoys across their borders, offsets and lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

import numpy as np

from pgbalise.scan.book import MARGIN, Book, Sighting

PIECE: Final = 2 << 20
"""Bytes of the pieces that are read fastest."""

_ACCENTED: Final = 8
"""Bytes beside a place in which accented letters are looked for: it begins and ends with ASCII."""

Change = Callable[[bytes], bytes]
"""What is done to a piece before it is looked at; its length and its newlines stay."""


@dataclass(frozen=True)
class Place:
    """A sighting and where it is: ``offset`` in bytes from 0, ``line`` from 1."""

    offset: int
    line: int
    sighting: Sighting
    text: bytes


def places(
    book: Book, pieces: Iterable[bytes], *, possible: bool = False, change: Change | None = None
) -> Iterator[Place]:
    """Yield the decoys in a text, in order, each once."""
    held = b""
    offset = 0
    line = 1
    first = True
    source = iter(pieces)
    following = next(source, None)
    while following is not None:
        piece, following = following, next(source, None)
        held += piece
        last = following is None
        if not last and len(held) < 4 * MARGIN:
            continue
        low = 0 if first else MARGIN
        high = len(held) if last else len(held) - MARGIN
        seen = change(held) if change is not None else held
        for sighting in book.find(seen, possible=possible):
            if low <= sighting.start < high:
                before = line + held.count(b"\n", 0, sighting.start)
                written = _written(seen, sighting.start, sighting.end)
                yield Place(offset + sighting.start, before, sighting, written)
        if not last:
            keep = high - MARGIN
            line += int(np.count_nonzero(np.frombuffer(held, np.uint8, keep) == 10))
            offset += keep
            held = held[keep:]
            first = False


def _written(text: bytes, start: int, end: int) -> bytes:
    """Return what stands at a place, with the accented letters at its ends."""
    before = text[max(0, start - _ACCENTED) : start].decode("utf-8", "replace")
    after = text[end : end + _ACCENTED].decode("utf-8", "replace")
    head = "".join(takewhile(_accented, reversed(before)))[::-1]
    tail = "".join(takewhile(_accented, after))
    return head.encode() + text[start:end] + tail.encode()


def _accented(character: str) -> bool:
    return character.isalpha() and not character.isascii()
