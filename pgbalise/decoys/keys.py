"""Which keys decoys' rows get: numbers that no real row has and none will ever have.

A sequence never gives a number twice, so what it gave and no row has (an insertion rolled back,
a row deleted) stays free for ever: a *hole*. Decoys take holes, near in the order of time where
the real numbers follow time, and share them: the same hole serves one decoy of each recipient,
since each sees only their own. So few numbers are used up, and nobody sees a gap where others
have a row.

A number given to a transaction that is still open is no hole yet: the last ones are left out.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import shake_128
from itertools import pairwise
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
T = TypeVar("T", bound=np.generic)

DAY: Final = 86_400_000_000
"""Microseconds of a day; all times here are microseconds since 1970-01-01."""

LEAST_MARGIN: Final = 1_000
"""At least so many of the numbers given last are left out, and one in a thousand of all."""

LONGEST_SLOT: Final = 8
"""Longer runs of holes are cut: one serves several groups of rows."""

_LONGEST_RUN: Final = 64
"""Of a longer run (a jump after a restart) only its first numbers look like any others."""

_TRIES: Final = 400


class Order(StrEnum):
    """How numbers follow time."""

    EXACT = "exact"
    """A later row has a greater number, but for one in a thousand."""
    LOOSE = "loose"
    """Mostly so: Spearman's rank correlation is at least 0.8."""
    NONE = "none"


@dataclass(frozen=True)
class Numbering:
    """The holes among a relation's numbers, as slots of up to 8 that follow each other.

    All arrays int64[slots] in the order of the numbers unless said otherwise.
    """

    order: Order
    first: Ints
    length: Ints
    before: Ints
    """The time of the real row before the slot, or when another slot between the same rows ends."""
    after: Ints
    """The time of the real row after it, likewise."""
    place: Floats
    """float64, never falling: where it lies in time or, without an order, its first number."""
    residuals: Floats
    """float64: how far real rows' times are from what their numbers say; for LOOSE."""
    numbers: Ints
    """Some of the real numbers, sorted, without an order: where slots are wanted."""
    grid: int
    """Real times are multiples of it, from one of them."""
    reach: int
    """A row's time may be moved so far, to fit between its neighbours'."""
    together: bool
    """Whether rows of one owner and time have numbers that follow each other."""


def safety_margin(numbers: int, cache: int = 1) -> int:
    """Return how many of the numbers given last are no holes yet, of ``numbers`` given in all.

    A session keeps ``cache`` numbers at a time (CREATE SEQUENCE ... CACHE) and may insert them
    much later; a hundred such sessions are allowed for.
    """
    return max(LEAST_MARGIN, numbers // 1_000, 100 * cache)


def learn_numbering(
    keys: Ints,
    last: int,
    *,
    times: Ints | None = None,
    timed: NDArray[np.bool_] | None = None,
    windows: Ints | None = None,
    together: bool = False,
) -> Numbering:
    """Learn where the holes are from real rows: int64[n] each, in any order.

    ``last``: only numbers up to this one can be holes. ``times`` where ``timed`` (None: all) is
    true. ``windows``: numbers between two rows are known to be holes
    only when both are of the same window, which says that all rows between were read; None
    when all rows of the relation were. ``together``: as ``stored_together`` says.
    """
    by_key = np.argsort(keys, kind="stable")
    keys = keys[by_key]
    moment = np.zeros(len(keys), np.int64)
    known = np.zeros(len(keys), np.bool_)
    if times is not None:
        known = np.ones(len(keys), np.bool_) if timed is None else timed[by_key]
        moment = _filled(times[by_key], known)
    order = _order(moment[known])
    gap = np.diff(keys) - 1
    if windows is not None:
        gap[np.diff(windows[by_key]) != 0] = 0
    gap = np.minimum(gap, last - keys[:-1])
    at = np.flatnonzero(gap > 0)
    run_first, run_length = keys[at] + 1, np.minimum(gap[at], _LONGEST_RUN)
    pieces = -(-run_length // LONGEST_SLOT)
    of_run = np.repeat(np.arange(len(at)), pieces)
    piece = np.arange(len(of_run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first = run_first[of_run] + LONGEST_SLOT * piece
    length = np.minimum(LONGEST_SLOT, run_length[of_run] - LONGEST_SLOT * piece)
    grid = _grid(moment[known])
    begin, end = moment[at][of_run], moment[np.minimum(at + 1, len(keys) - 1)][of_run]
    # each slot of a run has its part of the time, so that two in it follow each other
    share = (end - begin) // (grid * pieces[of_run]) * grid
    before = begin + share * piece
    after = np.where(piece == pieces[of_run] - 1, end, before + share)
    residuals, place = np.zeros(0), first.astype(np.float64)
    if order is Order.EXACT:
        place = np.maximum.accumulate((before + after) / 2)
    elif order is Order.LOOSE:
        trend = _trend(moment)
        residuals = _thinned((moment - trend)[known].astype(np.float64), 10_000)
        place = np.maximum.accumulate(trend[at][of_run])
    spacing = float(np.median(np.diff(place))) if len(place) > 1 else 0.0
    return Numbering(
        order,
        first,
        length,
        before,
        after,
        place,
        residuals,
        _thinned(keys, 100_000) if order is Order.NONE else np.zeros(0, np.int64),
        grid,
        int(min(30 * DAY, max(DAY, 8 * spacing))),
        together,
    )


def _filled(times: Ints, known: NDArray[np.bool_]) -> Ints:
    """Give a row without a time that of the row before it."""
    at = np.maximum.accumulate(np.where(known, np.arange(len(times)), -1))
    first = int(np.argmax(known)) if known.any() else 0
    return np.asarray(times[np.where(at < 0, first, at)])


def _thinned(values: NDArray[T], most: int) -> NDArray[T]:
    return values[:: max(1, -(-len(values) // most))]


def _order(times: Ints) -> Order:
    how = rising(times, np.arange(len(times)))
    return Order.EXACT if how > 1 else Order.LOOSE if how >= 0.8 else Order.NONE


def _ranks(values: Ints) -> Floats:
    """Ranks from 0, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    return np.asarray(middle[inverse], np.float64)


def _trend(times: Ints) -> Floats:
    """The time that a number alone tells: medians of blocks of rows, never falling."""
    size = max(50, len(times) // 2_000)
    blocks = max(1, len(times) // size)
    bounds = np.linspace(0, len(times), blocks + 1).astype(np.int64)
    medians = [np.median(times[low:high]) for low, high in pairwise(bounds)]
    middles = (bounds[:-1] + bounds[1:]) / 2
    return np.interp(np.arange(len(times)), middles, np.maximum.accumulate(medians))


def _grid(times: Ints) -> int:
    few = _thinned(times, 100_000)
    return max(1, int(np.gcd.reduce(few - few[0]))) if len(few) else 1


def stored_together(keys: Ints, times: Ints, owners: Ints) -> bool:
    """Whether rows of one owner and time mostly have numbers that follow each other."""
    by_group = np.lexsort((keys, times, owners))
    same = (np.diff(owners[by_group]) == 0) & (np.diff(times[by_group]) == 0)
    return bool(same.any() and np.mean(np.diff(keys[by_group])[same] == 1) >= 0.5)


def rising(values: Ints, keys: Ints) -> float:
    """Return how well values follow keys: 1 + the share that rise if nearly all do, else Spearman.

    int64[n] both; -1 when nothing follows from so few or such equal values.
    """
    ordered = values[np.argsort(keys, kind="stable")]
    if len(ordered) < 2 or ordered.min() == ordered.max():
        return -1.0
    share = float(np.mean(np.diff(ordered) >= 0))
    if share >= 0.999:
        return 1.0 + share
    few = _thinned(ordered, 20_000)
    return float(np.corrcoef(np.arange(len(few)), _ranks(few))[0, 1])


@dataclass(frozen=True)
class Assigned:
    """The numbers of rows that were wanted: int64[n] each."""

    keys: Ints
    """-1 where no hole was left."""
    times: Ints
    """The times, moved where they did not fit between those of the real rows next to it."""
    out_of_order: int
    """Rows whose time tells that their number is not of it."""


def assign_keys(
    numbering: Numbering,
    owners: Ints,
    times: Ints,
    timed: NDArray[np.bool_],
    groups: Ints,
    chance: Floats,
    *,
    used: tuple[Ints, Ints],
    movable: bool,
) -> Assigned:
    """Give each row a hole that its owner has no other row in.

    int64[n] rows: ``owners``, ``times`` where ``timed`` is true, and ``groups``, equal for rows
    that were stored together, which follow each other. ``chance`` float64[n, 2] in (0, 1).
    ``used``: owners and numbers that those have already. ``movable``: whether a time may be moved
    by up to ``reach``, for all rows of a group alike.
    """
    starts, sizes = _pieces(numbering, groups, times)
    keys = np.full(len(owners), -1, np.int64)
    moved = times.copy()
    target = _targets(numbering, times[starts], timed[starts], chance[starts, 0])
    taken = _taken(numbering, used)
    astray = 0
    for size in range(LONGEST_SLOT, 0, -1):
        eligible = np.flatnonzero(numbering.length >= size)
        mine = np.flatnonzero(sizes == size)
        if not len(mine):
            continue
        demand = int(np.bincount(owners[starts[mine]]).max())
        if size > 1 and len(eligible) < 8 + 2 * demand:
            # one by one: there are too few slots for rows that were stored together
            loose = (starts[mine][:, None] + np.arange(size)).ravel()
            starts = np.r_[np.delete(starts, mine), loose]
            sizes = np.r_[np.delete(sizes, mine), np.ones(len(loose), np.int64)]
            target = _targets(numbering, times[starts], timed[starts], chance[starts, 0])
            continue
        slots, taken = _nearest(numbering, eligible, target[mine], owners[starts[mine]], taken)
        found = slots >= 0
        at, slot = starts[mine][found], slots[found]
        fit = _fitting(numbering, slot, times[at], chance[at, 1], movable=movable)
        if numbering.order is Order.EXACT:
            inside = (fit >= numbering.before[slot]) & (fit <= numbering.after[slot])
            astray += size * int(np.sum(~inside & timed[at]))
        for offset in range(size):
            keys[at + offset] = numbering.first[slot] + offset
            moved[at + offset] += fit - times[at]
    return Assigned(keys, moved, astray + int(np.sum(keys < 0)))


def _pieces(numbering: Numbering, groups: Ints, times: Ints) -> tuple[Ints, Ints]:
    """Where the rows that get one slot together begin, and how many they are."""
    count = len(groups)
    if not count:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    begins = np.ones(count, np.bool_)
    if numbering.together:
        begins[1:] = (np.diff(groups) != 0) | (np.diff(times) != 0)
        place = np.arange(count) - np.maximum.accumulate(np.where(begins, np.arange(count), 0))
        begins |= place % LONGEST_SLOT == 0
    starts = np.flatnonzero(begins)
    return starts, np.diff(np.r_[starts, count])


def _targets(numbering: Numbering, times: Ints, timed: NDArray[np.bool_], chance: Floats) -> Floats:
    """Where on the axis of ``place`` each wants its slot."""
    if not len(numbering.place):
        return np.zeros(len(times))
    if numbering.order is Order.NONE:
        at = (chance * len(numbering.numbers)).astype(np.int64)
        return numbering.numbers[at].astype(np.float64)
    wanted = times.astype(np.float64)
    if numbering.order is Order.LOOSE and len(numbering.residuals):
        wanted -= numbering.residuals[(chance * len(numbering.residuals)).astype(np.int64)]
    anywhere = numbering.place[(chance * len(numbering.place)).astype(np.int64)]
    return np.where(timed, wanted, anywhere)


def _taken(numbering: Numbering, used: tuple[Ints, Ints]) -> Ints:
    """The slots that owners have a row in, as owner * slots + slot, sorted."""
    owners, keys = used
    if not len(keys) or not len(numbering.first):
        return np.zeros(0, np.int64)
    slot = np.maximum(np.searchsorted(numbering.first, keys, side="right") - 1, 0)
    inside = (keys >= numbering.first[slot]) & (
        keys < numbering.first[slot] + numbering.length[slot]
    )
    return np.unique(owners[inside] * len(numbering.first) + slot[inside])


def _nearest(
    numbering: Numbering, eligible: Ints, target: Floats, owners: Ints, taken: Ints
) -> tuple[Ints, Ints]:
    """For each target a slot, the nearest that its owner has not taken, or -1; who took what.

    All at once: of those of one owner who want the same slot the first gets it, and the others
    look further.
    """
    place = numbering.place[eligible]
    right = np.searchsorted(place, target)
    left = right - 1
    found = np.full(len(target), -1, np.int64)
    pending = np.arange(len(target))
    for _ in range(_TRIES):
        pending = pending[(left[pending] >= 0) | (right[pending] < len(place))]
        if not len(pending):
            break
        low, high = left[pending], right[pending]
        below = np.where(low >= 0, target[pending] - place[np.maximum(low, 0)], np.inf)
        above = np.where(
            high < len(place), place[np.minimum(high, len(place) - 1)] - target[pending], np.inf
        )
        down = below <= above
        slot = eligible[np.where(down, low, np.minimum(high, len(place) - 1))]
        code = owners[pending] * len(numbering.first) + slot
        free = ~_among(code, taken)
        first = np.zeros(len(pending), np.bool_)
        first[np.unique(code, return_index=True)[1]] = True
        won = free & first
        found[pending[won]] = slot[won]
        taken = np.sort(np.r_[taken, code[won]])
        lost = pending[~won]
        left[lost] -= down[~won]
        right[lost] += ~down[~won]
        pending = lost
    return found, taken


def _among(values: Ints, ordered: Ints) -> NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[at] == values)


def _fitting(
    numbering: Numbering, slots: Ints, times: Ints, chance: Floats, *, movable: bool
) -> Ints:
    """The times between those of the slots' neighbours, where they may be moved there."""
    if numbering.order is not Order.EXACT or not movable:
        return times
    before, after = numbering.before[slots], numbering.after[slots]
    steps = (after - before) // numbering.grid
    between = before + np.rint(chance * steps).astype(np.int64) * numbering.grid
    outside = (times < before) | (times > after)
    near = np.abs(between - times) <= numbering.reach
    return np.where(outside & near, between, times)


def fresh_needed(keys: Ints, owners: Ints) -> int:
    """Return how many numbers the owner with the most rows without one needs: so many are new."""
    missing = owners[keys < 0]
    return int(np.bincount(missing).max()) if len(missing) else 0


def with_fresh(keys: Ints, owners: Ints, fresh: Ints) -> Ints:
    """Give rows without a number one of ``fresh``, in order; owners share them."""
    out = keys.copy()
    missing = np.flatnonzero(keys < 0)
    by_owner = missing[np.argsort(owners[missing], kind="stable")]
    theirs = owners[by_owner]
    begins = np.r_[True, theirs[1:] != theirs[:-1]] if len(theirs) else np.zeros(0, np.bool_)
    place = np.arange(len(theirs))
    rank = place - np.maximum.accumulate(np.where(begins, place, 0))
    out[by_owner] = fresh[rank]
    return out


def counted(parents: Ints, least: int) -> Ints:
    """Number the rows of each parent from ``least``; int64[n], rows of a parent together."""
    place = np.arange(len(parents))
    begins = np.r_[True, parents[1:] != parents[:-1]] if len(parents) else np.zeros(0, np.bool_)
    return least + place - np.maximum.accumulate(np.where(begins, place, 0))


def draw_uuids(
    seeds: Sequence[bytes], name: str, counts: Ints, version: int, times: Ints | None
) -> list[str]:
    """Return ``counts[i]`` UUIDs of each seed i (RFC 9562): version 7 with ``times``, else 4.

    122 random bits, or 74, are never drawn again by whoever draws at random too.
    """
    stream = b"".join(
        shake_128(seed + b"\0" + name.encode()).digest(16 * count)
        for seed, count in zip(seeds, counts.tolist(), strict=True)
    )
    drawn = []
    for row in range(int(counts.sum())):
        bits = bytearray(stream[16 * row : 16 * row + 16])
        if version == 7 and times is not None:
            bits[:6] = int(times[row] // 1_000).to_bytes(6, "big")
        bits[6] = (bits[6] & 0x0F) | (0x70 if version == 7 else 0x40)
        bits[8] = (bits[8] & 0x3F) | 0x80
        drawn.append(str(uuid.UUID(bytes=bytes(bits))))
    return drawn


def uuid_version(texts: Sequence[str]) -> int:
    """Return 7 when the UUIDs are mostly of that version, else 4."""
    sevens = sum(text[14:15] == "7" for text in texts)
    return 7 if 2 * sevens > len(texts) else 4
