"""How a column's numbers look: decimals, heaps, and how far out they go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FEWEST = 5
"""A value that fewer entities have is nobody else's business: it is never given out."""
_LOOKED_AT = 4000
_FINEST = 6
_MOSTLY = 0.6
_DOUBLE = 16  # significant digits from which a double is written in full


@dataclass(frozen=True)
class Look:
    """``decimals`` and ``significant`` digits written, bounds, and values that many entities have.

    ``low`` and ``high`` are such that FEWEST entities go at least as far; ``common`` is sorted.
    ``unit`` is what all whole numbers are a multiple of, 0 when that says nothing;
    ``grid`` what most numbers are a multiple of, 0 where each has its own digits.
    """

    decimals: int
    significant: int
    low: float
    high: float
    common: Floats
    unit: float = 0.0
    grid: float = 0.0

    def clipped(self, values: Floats) -> Floats:
        """Return values within the bounds."""
        return np.clip(values, self.low, self.high)

    def is_common(self, values: Floats) -> Bools:
        """Say for each value whether FEWEST entities have it."""
        if not len(self.common):
            return np.zeros(len(values), bool)
        place = np.minimum(np.searchsorted(self.common, values), len(self.common) - 1)
        found: Bools = self.common[place] == values
        return found

    def written(self, values: Floats) -> Floats:
        """Return values rounded as the column's are."""
        values = self.clipped(values)
        if self.unit > 1:
            values = np.rint(values / self.unit) * self.unit
        if self.decimals < _DOUBLE - 4:
            values = np.round(values, self.decimals) + 0.0
        elif self.significant < _DOUBLE:
            digits = self.significant
            values = np.array([float(f"{value:.{digits}g}") for value in values.tolist()])
        return values


def look_at(values: Floats, owner: Ints) -> Look:
    """Return the look of ``values`` float64[n], finite, of the entities ``owner`` int64[n]."""
    if not len(values):
        return Look(0, _DOUBLE + 1, 0.0, 0.0, np.zeros(0))
    step = max(1, len(values) // _LOOKED_AT)
    digits = [_digits(value) for value in values[::step].tolist()]
    entities = len(np.unique(owner))
    few = min(FEWEST, 1 + entities // 20)
    order = np.lexsort((values, owner))
    first = np.ones(len(order), bool)
    first[1:] = owner[order][1:] != owner[order][:-1]
    last = np.append(first[1:], True)
    lows, highs = np.sort(values[order][first]), np.sort(values[order][last])
    # the same value again of the same entity does not make it more common
    first[1:] |= values[order][1:] != values[order][:-1]
    distinct, held = np.unique(values[order][first], return_counts=True)
    return Look(
        max(decimals for decimals, _ in digits),
        max(significant for _, significant in digits),
        float(lows[min(few, len(lows)) - 1]),
        float(highs[-min(few, len(highs))]),
        distinct[held >= FEWEST],
        _unit(distinct),
        _grid(values[::step], max(decimals for decimals, _ in digits)),
    )


def _grid(values: Floats, decimals: int) -> float:
    if decimals > _FINEST:
        return 0.0
    whole = np.rint(values * 10.0**decimals)
    coarse = next((u for u in (10, 5, 2) if (whole % u == 0).mean() >= _MOSTLY), 1)
    return coarse / 10.0**decimals


def _unit(distinct: Floats) -> float:
    if len(distinct) < 3 or (distinct != np.rint(distinct)).any():
        return 0.0
    return float(np.gcd.reduce(np.abs(distinct).astype(np.int64)))


def _digits(value: float) -> tuple[int, int]:
    text = repr(abs(value))
    if "e" in text:
        return _DOUBLE, _DOUBLE + 1
    whole, _, decimals = text.partition(".")
    decimals = decimals.rstrip("0")
    return len(decimals), len((whole + decimals).lstrip("0"))


@dataclass(frozen=True)
class Pool:
    """Sorted values among which one is moved to a neighbour, such that the whole stays as it is."""

    values: Floats
    look: Look

    def moved(self, values: Floats, width: float, tie: Floats, chance: Floats) -> Floats:
        """Return each value's neighbour at most ``width`` of all ranks away.

        ``tie`` and ``chance`` float64[n] in (0, 1): where among equal values, and how far. Ranks
        beyond an end come back from it, so uniform ranks remain uniform.
        """
        low = np.searchsorted(self.values, values, side="left")
        high = np.searchsorted(self.values, values, side="right")
        rank = (low + tie * (high - low)) / len(self.values) + width * (2 * chance - 1)
        rank = np.abs(rank)
        rank = np.where(rank > 1, 2 - rank, rank)
        exact = np.clip(rank, 0, 1) * len(self.values)
        place = np.minimum(exact.astype(np.int64), len(self.values) - 1)
        drawn = self.values[place]
        loose = ~self.look.is_common(drawn)
        if loose.any():
            here = place[loose]
            other = np.where(here + 1 < len(self.values), here + 1, np.maximum(here - 1, 0))
            at = np.clip(exact[loose] - here, 0, 1)
            drawn[loose] = self.look.written(
                drawn[loose] + at * (self.values[other] - drawn[loose])
            )
        return drawn


def pool(values: Floats, owner: Ints) -> Pool:
    """Return the pool of ``values`` float64[n] of the entities ``owner`` int64[n]."""
    look = look_at(values, owner)
    return Pool(np.sort(look.clipped(values)), look)
