"""How one cell carries one bit: quantisation by parity.

A value has a quantum index; when its parity differs from the bit to embed, the value moves by one
quantum, up or down by the cell's sign. Near a bound, a clinical threshold or a skipped value it
takes the other direction, or stays when neither is allowed. The compiler writes the same rules as
SQL from the same ``Zone`` values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgbalise.marking.policy import Carrier, Equivalents, Tolerance
from pgbalise.marking.types import Kind, decimals

Bools = NDArray[np.bool_]
Values = NDArray[Any]


@dataclass(frozen=True)
class Zone:
    """An interval of values, in a carrier's units. An end that is None is open to infinity."""

    low: Decimal | None
    high: Decimal | None
    closed: bool
    """Whether the ends themselves belong to it."""


@dataclass(frozen=True)
class Step:
    """One quantum's move: its size and where it may not go."""

    quantum: Decimal
    not_up: tuple[Zone, ...]
    not_down: tuple[Zone, ...]


def step(tolerance: Tolerance, quantum: Decimal) -> Step:
    """Return where a move by ``quantum`` is refused.

    A move keeps the answer of every comparison (<, <=, =, >=, >) with a threshold, stays within
    the bounds, and never lands on a skipped value.
    """
    not_up = [Zone(tolerance.high - quantum, None, closed=False)]
    not_down = [Zone(None, tolerance.low + quantum, closed=False)]
    for threshold in tolerance.thresholds:
        not_up.append(Zone(threshold - quantum, threshold, closed=True))
        not_down.append(Zone(threshold, threshold + quantum, closed=True))
    for value in tolerance.skip:
        not_up.append(Zone(value - quantum, value - quantum, closed=True))
        not_down.append(Zone(value + quantum, value + quantum, closed=True))
    return Step(quantum, tuple(not_up), tuple(not_down))


@dataclass(frozen=True)
class Column:
    """A carrier's cells.

    ``values``: int64 units for integer, numeric (times 10^scale of the carrier), date (days since
    1970-01-01) and timestamp (microseconds since 1970-01-01 UTC); float64 or float32 for
    floating point; int64 codes into the flattened equivalents for categorical, -1 for others.
    ``valid``: false for NULL. ``by``: int64 index into the carrier's tolerances, -1 for none of
    them; None without ``by``. ``scales``: decimals each numeric value is written with, int64;
    None when all have the carrier's scale.
    """

    values: Values
    valid: Bools
    by: NDArray[np.int64] | None = None
    scales: NDArray[np.int64] | None = None

    def take(self, index: NDArray[np.int64]) -> Column:
        """Return the cells at ``index``."""
        return Column(
            self.values[index],
            self.valid[index],
            None if self.by is None else self.by[index],
            None if self.scales is None else self.scales[index],
        )


@dataclass(frozen=True)
class Alternatives:
    """What each cell can become: ``moved`` when the embedded bit differs from ``parity``."""

    markable: Bools
    parity: NDArray[np.uint8]
    moved: Values

    def embedded(self, values: Values, bit: NDArray[np.uint8]) -> Values:
        """Return the values that carry ``bit`` (uint8[n]); those not markable stay."""
        return np.where(self.markable & (self.parity != bit), self.moved, values)


def alternatives(carrier: Carrier, column: Column, up: Bools) -> Alternatives:
    """Return, for each cell, whether it can be marked, its parity, and the value one step away.

    ``up`` is the cell's sign: the direction it takes when both are allowed.
    """
    n = len(column.values)
    out = Alternatives(np.zeros(n, np.bool_), np.zeros(n, np.uint8), column.values.copy())
    for at, tolerance in enumerate(carrier.tolerances.values()):
        mine = column.valid if column.by is None else column.valid & (column.by == at)
        index = np.flatnonzero(mine)
        if not len(index):
            continue
        cells = column.take(index)
        if isinstance(tolerance, Equivalents):
            _categorical(tolerance, cells, up[index], index, out)
            continue
        on_grid = np.zeros(len(index), np.bool_)
        if tolerance.grid is not None:
            on_grid = cells.values % int(tolerance.grid.scaleb(carrier.scale)) == 0
            heaped = np.flatnonzero(on_grid)
            _move(carrier, tolerance, tolerance.grid, cells.take(heaped), up, index[heaped], out)
        rest = np.flatnonzero(~on_grid)
        _move(carrier, tolerance, tolerance.quantum, cells.take(rest), up, index[rest], out)
    return out


def _categorical(
    equivalents: Equivalents,
    cells: Column,
    up: Bools,
    index: NDArray[np.int64],
    out: Alternatives,
) -> None:
    place = np.array([i for group in equivalents.groups for i in range(len(group))], np.int64)
    size = np.array([len(group) for group in equivalents.groups for _ in group], np.int64)
    known = cells.values >= 0
    codes = np.where(known, cells.values, 0)
    at, of = place[codes], size[codes]
    rise = np.where(up, at + 1 < of, at == 0)
    out.markable[index] = known
    out.parity[index] = (at & 1).astype(np.uint8)
    out.moved[index] = np.where(known, codes + np.where(rise, 1, -1), cells.values)


def _move(
    carrier: Carrier,
    tolerance: Tolerance,
    quantum: Decimal,
    cells: Column,
    up: Bools,
    index: NDArray[np.int64],
    out: Alternatives,
) -> None:
    values = cells.values
    scale = carrier.scale
    floating = carrier.kind is Kind.FLOAT
    inside = _float_test(values) if floating else _integer_test(values, scale)
    markable = inside(Zone(tolerance.low, tolerance.high, closed=True))
    for value in tolerance.skip:
        markable &= ~inside(Zone(value, value, closed=True))
    if carrier.kind is Kind.FLOAT:
        wide = np.where(markable, values, values.dtype.type(0)).astype(np.float64)
        units = np.rint(wide * 10.0 ** decimals(quantum)).astype(np.int64)
        counted = np.rint(wide * 10.0**scale)
        if not carrier.continuous:
            markable &= (counted / 10.0**scale).astype(values.dtype) == values
    else:
        units = _rounded(carrier, values, quantum)
        if cells.scales is not None:
            markable &= (cells.scales >= decimals(tolerance.quantum)) & (cells.scales <= scale)
    parity = (units // int(quantum.scaleb(decimals(quantum)))) & 1

    rule = step(tolerance, quantum)
    no_up = np.logical_or.reduce([inside(zone) for zone in rule.not_up])
    no_down = np.logical_or.reduce([inside(zone) for zone in rule.not_down])
    markable &= ~(no_up & no_down)
    rise = np.where(no_up, False, no_down | up[index])
    if carrier.kind is not Kind.FLOAT:
        size = int(quantum.scaleb(scale))
        moved = np.where(markable, values + np.where(rise, size, -size), values)
    elif carrier.continuous:
        by = values.dtype.type(quantum)
        moved = np.where(rise, values + by, values - by)
    else:
        size = int(quantum.scaleb(scale))
        moved = ((counted + np.where(rise, size, -size)) / 10.0**scale).astype(values.dtype)
    out.markable[index] = markable
    out.parity[index] = parity.astype(np.uint8)
    out.moved[index] = np.where(markable, moved, values)


def _rounded(carrier: Carrier, values: Values, quantum: Decimal) -> Values:
    """The values in units of the quantum's last decimal, as PostgreSQL rounds to an integer."""
    if carrier.kind is Kind.TIMESTAMP:
        seconds = values / 1_000_000.0
        micro = int(quantum)
        if micro % 1_000_000 == 0:
            index = np.rint(seconds / float(micro // 1_000_000))
        else:
            index = np.rint(seconds * float(1_000_000 // micro))
        return index.astype(np.int64) * micro
    coarser = carrier.scale - decimals(quantum)
    if coarser <= 0:
        return values
    unit = 10**coarser
    rounded: Values = np.sign(values) * ((np.abs(values) + unit // 2) // unit)
    return rounded


def _integer_test(values: Values, scale: int) -> Callable[[Zone], Bools]:
    def inside(zone: Zone) -> Bools:
        result = np.ones(len(values), np.bool_)
        if zone.low is not None:
            low = zone.low.scaleb(scale)
            result &= values >= (_ceil(low) if zone.closed else _floor(low) + 1)
        if zone.high is not None:
            high = zone.high.scaleb(scale)
            result &= values <= (_floor(high) if zone.closed else _ceil(high) - 1)
        return result

    return inside


def _float_test(values: Values) -> Callable[[Zone], Bools]:
    def inside(zone: Zone) -> Bools:
        result = ~np.isnan(values)
        if zone.low is not None:
            low = values.dtype.type(float(zone.low))
            result &= (values >= low) if zone.closed else (values > low)
        if zone.high is not None:
            high = values.dtype.type(float(zone.high))
            result &= (values <= high) if zone.closed else (values < high)
        return result

    return inside


def _floor(value: Decimal) -> int:
    return int(value.to_integral_value("ROUND_FLOOR"))


def _ceil(value: Decimal) -> int:
    return int(value.to_integral_value("ROUND_CEILING"))
