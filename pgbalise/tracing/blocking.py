"""Which stored rows a leaked row is compared with: passes over fields that isolate rows.

A pass proposes the stored rows that agree with the leaked one on a few fields. The passes are
chosen so that, whichever cells a thief altered, some pass remains whose fields are intact, at the
least number of comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pgbalise.tracing.comparing import NULL_NUMBER, Comparison, Ints, Rates
from pgbalise.tracing.weights import Sheet

_SAMPLE = 8192
_PATTERNS = 1024
_TARGETS = (1.5, 4.0, 16.0, 64.0)
_PROBE = 2.0
_AGAIN = 0.3
_BINS = 4.0
_CHUNK = 1 << 20
_CAP = 2_000
_REACHED = 0.9

Hashes = NDArray[np.uint64]


@dataclass
class Pass:
    """Stored rows that agree with a leaked row on ``fields``; the index is built when needed."""

    fields: tuple[int, ...]
    missed: float
    """Share of leaked rows that neither this pass nor an earlier one proposes."""
    index: Hashes | None = field(default=None, repr=False)


class Blocks:
    """The stored rows' keys for any pass."""

    def __init__(self, comparisons: Sequence[Comparison], reach: Sequence[float]) -> None:
        self._comparisons = comparisons
        self._reach = reach
        """How far apart two numbers may be that a pass still has to bring together."""
        self.size = len(comparisons[0].stored) if comparisons else 0
        bits = max(self.size - 1, 1).bit_length()
        self._row = np.uint64((1 << bits) - 1)

    def propose(
        self, one: Pass, sheet: Sheet, rows: Ints, cap: int = _CAP
    ) -> Iterator[tuple[Ints, Ints]]:
        """Yield pairs of leaked and stored rows, each pair once, in chunks.

        Rows with more than ``cap`` partners get none.
        """
        if one.index is None:
            one.index = self._index(one.fields)
        rows, key = self._keys(one.fields, sheet, rows)
        order = np.argsort(key)
        rows, key = rows[order], key[order]
        low = np.searchsorted(one.index, key)
        count = np.searchsorted(one.index, key | self._row, side="right") - low
        count[count > cap] = 0
        ends = np.cumsum(count)
        begin = 0
        while begin < len(rows):
            done = int(ends[begin - 1]) if begin else 0
            end = max(begin + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
            some = count[begin:end]
            step = np.arange(some.sum()) - np.repeat(np.cumsum(some) - some, some)
            at = np.repeat(low[begin:end], some) + step
            yield np.repeat(rows[begin:end], some), (one.index[at] & self._row).astype(np.int64)
            begin = end

    def crowd(self, fields: Sequence[int]) -> float:
        """Return how many stored rows a pass proposes for a stored row, itself included."""
        key = np.sort(self._sum(fields, slice(None, None, max(1, self.size // _SAMPLE))))
        edges = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
        run = np.diff(np.append(edges, len(key))).astype(np.float64)
        pairs = float((run * (run - 1)).sum()) / max(len(key) * (len(key) - 1.0), 1.0)
        wide = sum(self._reach[f] > 0 for f in fields)
        return 1 + self.size * pairs * (1 + 2 / _BINS) ** wide

    def _index(self, fields: Sequence[int]) -> Hashes:
        key = self._sum(fields, slice(None)) & ~self._row
        key |= np.arange(self.size, dtype=np.uint64)
        key.sort()
        return key

    def _sum(self, fields: Sequence[int], part: slice) -> Hashes:
        total: Hashes = np.zeros(len(range(*part.indices(self.size))), np.uint64)
        for f in fields:
            total += _mixed(self._bin(f, self._comparisons[f].stored[part], 0.0), f)
        return total

    def _bin(self, f: int, values: NDArray[np.generic], shift: float) -> NDArray[np.int64]:
        if self._comparisons[f].is_code:
            return np.asarray(values, np.int64)
        numbers = np.asarray(values, np.float64)
        null = numbers == NULL_NUMBER
        known = np.where(null, 0.0, numbers)
        if self._reach[f]:
            bins = np.floor((known + shift) / (_BINS * self._reach[f]))
        else:
            bins = np.rint(known / (2 * self._comparisons[f].dust or 1.0))
        whole = np.clip(bins, -(2.0**62), 2.0**62).astype(np.int64)
        whole[null] = np.iinfo(np.int64).max
        return whole

    def _keys(self, fields: Sequence[int], sheet: Sheet, rows: Ints) -> tuple[Ints, Hashes]:
        """Return the keys to ask for: a number near the edge of its bin asks for two."""
        key: Hashes = np.zeros(len(rows), np.uint64)
        wide = []
        for f in fields:
            if self._reach[f]:
                wide.append((f, self._reach[f]))
            else:
                key += _mixed(self._bin(f, sheet.leaked[f][rows], 0.0), f)
        for f, far in wide:
            value = sheet.leaked[f][rows]
            low, high = self._bin(f, value, -far), self._bin(f, value, far)
            two = np.flatnonzero(low != high)
            more = key[two] + _mixed(high[two], f)
            key = np.concatenate([key + _mixed(low, f), more])
            rows = np.concatenate([rows, rows[two]])
        return rows, key & ~self._row


def plan(blocks: Blocks, rates: Sequence[Rates], limit: int) -> list[Pass]:
    """Choose passes, cheapest gain first; the same input gives the same passes."""
    count = len(rates)
    if not blocks.size or not count:
        return []
    rng = np.random.default_rng(1)
    altered = np.array([rate.altered for rate in rates])
    intact = rng.random((_PATTERNS, count)) >= altered
    pool = _pool(blocks, altered, rng)
    kept = [intact[:, fields].all(axis=1) for fields in pool]
    costs = [_PROBE + cost for cost in pool.values()]
    worth = np.ones(_PATTERNS)
    missed = np.ones(_PATTERNS, np.bool_)
    out: list[Pass] = []
    left = set(range(len(pool)))
    names = list(pool)
    while left and len(out) < limit:
        best = max(left, key=lambda n: (float(worth[kept[n]].sum()) / costs[n], -n))
        if worth[kept[best]].sum() < 0.002 * _PATTERNS:
            break
        left.remove(best)
        worth[kept[best]] *= _AGAIN
        missed &= ~kept[best]
        out.append(Pass(names[best], float(missed.mean())))
    return out


def _pool(
    blocks: Blocks, altered: NDArray[np.float64], rng: np.random.Generator
) -> dict[tuple[int, ...], float]:
    """Return subsets of fields that isolate rows to some degree, and what each costs."""
    count = len(altered)
    pool: dict[tuple[int, ...], float] = {}
    seen: dict[tuple[int, ...], float] = {}

    def crowd(fields: tuple[int, ...]) -> float:
        if fields not in seen:
            seen[fields] = blocks.crowd(fields)
        return seen[fields]

    alone = np.array([crowd((f,)) for f in range(count)])
    useful = [f for f in range(count) if altered[f] < 0.9 and alone[f] < 0.95 * blocks.size]
    bonus = np.log(np.maximum(blocks.size / alone, 1.0)) * (1 - altered)
    for _ in range(24):
        order = sorted(useful, key=lambda f: -bonus[f] * rng.random())
        chosen: tuple[int, ...] = ()
        targets = list(_TARGETS)
        for f in order:
            trial = tuple(sorted((*chosen, f)))
            if chosen and crowd(trial) > 0.9 * crowd(chosen):
                continue
            chosen = trial
            while targets and crowd(chosen) <= targets[-1]:
                pool[chosen] = crowd(chosen)
                targets.pop()
            if not targets:
                break
        if chosen and targets:
            pool[chosen] = crowd(chosen)
    return pool


def _mixed(values: NDArray[np.int64], field: int) -> Hashes:
    """Scatter the bits of integers, differently for each field."""
    out: Hashes = values.view(np.uint64) + np.uint64((field + 1) * 0x9E3779B97F4A7C15 & (2**64 - 1))
    out ^= out >> np.uint64(30)
    out *= np.uint64(0xBF58476D1CE4E5B9)
    out ^= out >> np.uint64(27)
    out *= np.uint64(0x94D049BB133111EB)
    out ^= out >> np.uint64(31)
    return out


def reach(comparisons: Sequence[Comparison], rates: Sequence[Rates]) -> list[float]:
    """Return the distance within which most of the cells that were not altered lie."""
    out = []
    for one, rate in zip(comparisons, rates, strict=True):
        reached = np.cumsum(rate.intact) >= _REACHED * rate.intact.sum()
        width = float(one.widths[int(np.argmax(reached))])
        out.append(0.0 if one.is_code or width <= one.dust else width)
    return out
