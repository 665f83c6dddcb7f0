"""PostgreSQL's seeded 64-bit hashes, in numpy.

They are B. Jenkins' lookup3 as PostgreSQL computes it (src/common/hashfn.c) on a little-endian
machine, and do not change between versions, because hash partitioning rests on them. Integers,
dates and timestamps hash as ``hashint8extended``, text as ``hashtextextended`` under a
deterministic collation, uuid as ``uuid_hash_extended``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Words: TypeAlias = NDArray[np.uint32]
Hashes: TypeAlias = NDArray[np.int64]

_U32 = np.uint32


def _rot(x: Words, k: int) -> Words:
    return (x << _U32(k)) | (x >> _U32(32 - k))


def _mix(a: Words, b: Words, c: Words) -> tuple[Words, Words, Words]:
    for k1, k2, k3 in ((4, 6, 8), (16, 19, 4)):
        a = (a - c) ^ _rot(c, k1)
        c = c + b
        b = (b - a) ^ _rot(a, k2)
        a = a + c
        c = (c - b) ^ _rot(b, k3)
        b = b + a
    return a, b, c


def _final(a: Words, b: Words, c: Words) -> Hashes:
    c = (c ^ b) - _rot(b, 14)
    a = (a ^ c) - _rot(c, 11)
    b = (b ^ a) - _rot(a, 25)
    c = (c ^ b) - _rot(b, 16)
    a = (a ^ c) - _rot(c, 4)
    b = (b ^ a) - _rot(a, 14)
    c = (c ^ b) - _rot(b, 24)
    return ((b.astype(np.uint64) << np.uint64(32)) | c).view(np.int64)


def _start(length: int, seed: Hashes) -> tuple[Words, Words, Words]:
    word = np.full(seed.shape, (0x9E3779B9 + length + 3923095) & 0xFFFFFFFF, _U32)
    bits = seed.view(np.uint64)
    high, low = (bits >> np.uint64(32)).astype(_U32), bits.astype(_U32)
    a, b, c = _mix(word + high, word + low, word)
    unseeded = seed == 0
    if unseeded.any():
        a, b, c = (np.where(unseeded, word, mixed) for mixed in (a, b, c))
    return a, b, c


def _broadcast(seed: int | Hashes, n: int) -> Hashes:
    return np.broadcast_to(np.asarray(seed, np.int64), (n,)).copy()


def hash_int8(values: NDArray[np.int64], seed: int | Hashes) -> Hashes:
    """Return ``hashint8extended(value, seed)`` for int64[n] values and one or n int64 seeds."""
    bits = np.ascontiguousarray(values, np.int64).view(np.uint64)
    high = (bits >> np.uint64(32)).astype(_U32)
    folded = bits.astype(_U32) ^ np.where(values >= 0, high, ~high)
    a, b, c = _start(4, _broadcast(seed, len(bits)))
    return _final(a + folded, b, c)


def _hash_rows(rows: NDArray[np.uint8], seed: Hashes) -> Hashes:
    """Hash byte strings of one length, uint8[n, length], as hash_any_extended does."""
    length = rows.shape[1]
    a, b, c = _start(length, seed)
    whole = length // 12 * 12
    tail = np.zeros((len(rows), 12), np.uint8)
    if length > whole:
        rest = rows[:, whole:]
        tail[:, : min(8, length - whole)] = rest[:, :8]
        # the lowest byte of the last word stays free: lookup3 keeps it for the length
        tail[:, 9 : 9 + max(0, length - whole - 8)] = rest[:, 8:]
    words = np.ascontiguousarray(rows[:, :whole]).view("<u4").reshape(len(rows), whole // 4)
    for at in range(0, whole // 4, 3):
        a, b, c = _mix(a + words[:, at], b + words[:, at + 1], c + words[:, at + 2])
    last = tail.view("<u4")
    return _final(a + last[:, 0], b + last[:, 1], c + last[:, 2])


@dataclass(frozen=True)
class Strings:
    """Byte strings end to end: string i is ``data[offsets[i]:offsets[i + 1]]``.

    ``offsets`` is int64[n + 1], ``data`` uint8: the layout of an Arrow string array.
    """

    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]

    @classmethod
    def of(cls, values: Sequence[bytes]) -> Strings:
        """Lay out a sequence of byte strings."""
        offsets = np.zeros(len(values) + 1, np.int64)
        np.cumsum([len(value) for value in values], out=offsets[1:])
        return cls(offsets, np.frombuffer(b"".join(values), np.uint8))

    def __len__(self) -> int:
        return len(self.offsets) - 1


def hash_bytes(values: Strings, seed: int | Hashes) -> Hashes:
    """Return ``hashtextextended(value, seed)`` (or of a uuid's 16 bytes ``uuid_hash_extended``)."""
    lengths = np.diff(values.offsets)
    seeds = _broadcast(seed, len(values))
    out = np.empty(len(values), np.int64)
    for length in np.unique(lengths):
        at = np.flatnonzero(lengths == length)
        index = values.offsets[at][:, None] + np.arange(length)
        rows = values.data[index] if length else np.empty((len(at), 0), np.uint8)
        out[at] = _hash_rows(rows, seeds[at])
    return out


KeyPart: TypeAlias = "NDArray[np.int64] | Strings"
"""One key column: int64[n] for integers, dates (days since 2000-01-01) and timestamps
(microseconds since 2000-01-01 UTC); Strings for text (UTF-8) and uuid (16 bytes)."""


def key_hash(parts: Sequence[KeyPart], first: int, second: int) -> Hashes:
    """Return the cell hash of each key, int64[n].

    The parts are chained, each hash being the seed of the next, starting from the column's
    ``first`` seed; the result is hashed once more under its ``second`` seed, so that neither
    seed can be searched for alone.
    """
    if not parts:
        raise ValueError("a key has at least one column")
    chained: int | Hashes = first
    for part in parts:
        chained = (
            hash_bytes(part, chained) if isinstance(part, Strings) else hash_int8(part, chained)
        )
    assert not isinstance(chained, int)
    return hash_int8(chained, second)
