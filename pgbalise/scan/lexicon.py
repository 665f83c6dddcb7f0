"""PURE. All occurrences of very many words in a text, at hundreds of megabytes a second.

Each word has a key, some of its bytes; of a key of n bytes, the windows of q = n - s + 1 bytes at
its first s places are known. The text is looked at every s-th byte only, so one of a key's windows
is always seen. Windows are 64-bit integers, which numpy sees in the text without copying it:

    coarse   is the window's hash that of a known one? (a table that fits the processor's cache)
    fine     the same with another hash and a larger table, where coarse said yes; and at which
             of the s places of a key is that one?
    key      is a key's hash that of the bytes around the window, at such a place?
    exact    a dictionary of keys, and the word itself: no automaton is needed for what is left

An automaton over the same words (Aho-Corasick) needs a state, far apart in memory, for every byte
of a text of digits: it was measured five to ten times slower (python -m bench scan).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEAST: Final = 5
"""Bytes of the shortest words that can be looked for."""

_LONG: Final = 10
_SHORT: Final = 7
_FACTORS: Final = (
    0x9E3779B97F4A7C15,
    0xC2B2AE3D27D4EB4F,
    0xD6E8FEB86659FD93,
)
_COARSE: Final = 20
_FINE: Final = 24
_AT_ONCE: Final = 1 << 15
"""Windows whose hashes fit the processor's cache."""


@dataclass(frozen=True)
class Word:
    """A word to look for, of LEAST bytes at least.

    ``pivot`` is the place in it around which bytes tell most: where the second of two names begins,
    the end of a number, whose first digits many share.
    """

    text: bytes
    pivot: int


@dataclass(frozen=True)
class _Shape:
    """Bytes of a key, and how far apart the text is looked at."""

    key: int
    step: int


def _shape(word: bytes) -> _Shape:
    if len(word) >= _LONG:
        return _Shape(_LONG, 4)
    # Of digits there are few: a short window of them is everywhere.
    if len(word) < _SHORT or word.isdigit():
        return _Shape(len(word), 2)
    return _Shape(_SHORT, 4)


class Lexicon:
    """Words to look for; those of one shape are looked for together."""

    def __init__(self, words: Sequence[Word]) -> None:
        by_shape: dict[_Shape, list[int]] = {}
        for index, word in enumerate(words):
            by_shape.setdefault(_shape(word.text), []).append(index)
        self._meshes = [_Mesh(shape, words, members) for shape, members in by_shape.items()]

    def find(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Yield where each occurrence of a word begins, and the word's index; in no order."""
        # Zero bytes on both sides, so that every window that is looked at has neighbours.
        padded = b"".join((bytes(8), text, bytes(24 - len(text) % 8)))
        words = np.frombuffer(padded, "<u8")
        return chain.from_iterable(mesh.find(padded, words) for mesh in self._meshes)


class _Mesh:
    """The words whose keys have one shape."""

    def __init__(self, shape: _Shape, words: Sequence[Word], members: Sequence[int]) -> None:
        self._shape = shape
        self._words: dict[bytes, list[tuple[int, int, bytes]]] = {}
        for index in members:
            word = words[index]
            start = max(0, min(word.pivot - shape.key // 2, len(word.text) - shape.key))
            key = word.text[start : start + shape.key]
            self._words.setdefault(key, []).append((index, start, word.text))
        size = shape.key - shape.step + 1
        whole = min(8, shape.key)
        # A key of more than eight bytes is told by its first eight and by its last eight.
        self._ends = (shape.key - 8, 0) if shape.key > 8 else (0,)
        windows = [_numbers({key[n : n + size] for key in self._words}) for n in range(shape.step)]
        self._coarse = _Table(windows, size, 0, _COARSE, 6)
        self._fine = _Table(windows, size, 1, _FINE)
        self._keys = [
            _Table([_numbers({key[end : end + 8] for key in self._words})], whole, 2, _FINE)
            for end in self._ends
        ]

    def find(self, padded: bytes, words: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
        """Yield places in the text and indices of words."""
        places = set(chain.from_iterable(self._places(padded, words)))
        for place in places:
            for index, start, word in self._words.get(padded[place : place + self._shape.key], ()):
                if padded.startswith(word, place - start):
                    yield place - start - 8, index

    def _places(self, padded: bytes, words: NDArray[np.uint64]) -> Iterator[list[int]]:
        """Yield where keys may begin in the padded text, for each place of a window in a word."""
        for start in range(0, 8, self._shape.step):
            windows = np.frombuffer(padded, "<u8", len(words) - 2, 8 + start)
            parts = [
                self._seen(windows[first : first + _AT_ONCE], first + 1)
                for first in range(0, len(windows), _AT_ONCE)
            ]
            seen, at = (np.concatenate(column) for column in zip(*parts, strict=True))
            for back in range(self._shape.step):
                hits = seen[at & np.uint8(1 << back) != 0]
                for end, keys in zip(self._ends, self._keys, strict=True):
                    hits = hits[keys.has(_eight(words, hits, start - back + end)) != 0]
                yield (hits * 8 + (start - back)).tolist()

    def _seen(
        self, windows: NDArray[np.uint64], first: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return which windows may be known, counted from ``first``, and of which places."""
        seen = np.flatnonzero(self._coarse.has(windows) != 0)
        at = self._fine.has(windows.take(seen, mode="clip"))
        known = np.flatnonzero(at != 0)
        return seen.take(known, mode="clip") + first, at.take(known, mode="clip")


class _Table:
    """Which hashes the numbers of some sets have, at most eight; all are of ``size`` bytes."""

    def __init__(
        self,
        sets: Sequence[NDArray[np.uint64]],
        size: int,
        factor: int,
        most: int,
        room: int = 4,
    ) -> None:
        bits = min(most, max(12, sum(map(len, sets)).bit_length() + room))
        # The product has no room for the bytes of a number beyond the first ``size``.
        self._factor = np.uint64(_FACTORS[factor] << 8 * (8 - size) & (1 << 64) - 1)
        self._shift = np.uint64(64 - bits)
        self._has = np.zeros(1 << bits, np.uint8)
        for place, values in enumerate(sets):
            self._has[self._hashed(values)] |= np.uint8(1 << place)

    def has(self, values: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Return for each number, by its first ``size`` bytes, in which sets it may be.

        Bit n says so of the set n; it is never 0 for one that is.
        """
        return self._has.take(self._hashed(values), mode="clip")

    def _hashed(self, values: NDArray[np.uint64]) -> NDArray[np.int64]:
        mixed = values * self._factor
        mixed >>= self._shift
        return mixed.view(np.int64)


def _eight(words: NDArray[np.uint64], places: NDArray[np.int64], offset: int) -> NDArray[np.uint64]:
    """Return the 8 bytes that begin ``offset`` bytes after each of these words."""
    step, rest = divmod(offset, 8)
    low = words.take(places + step, mode="clip")
    if not rest:
        return low
    high = words.take(places + (step + 1), mode="clip")
    low >>= np.uint64(8 * rest)
    high <<= np.uint64(64 - 8 * rest)
    low |= high
    return low


def _numbers(parts: set[bytes]) -> NDArray[np.uint64]:
    return np.fromiter((int.from_bytes(part, "little") for part in parts), np.uint64, len(parts))
