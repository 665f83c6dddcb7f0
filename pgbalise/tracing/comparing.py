"""How much the agreement of a leaked and a stored cell says: levels, background, error rates.

The model is that of Fellegi and Sunter (1969) with value-specific frequencies. A leaked cell is
either a trace of its stored cell, at one of a few levels of closeness, or was altered, and then it
looks like any stored cell. The weight of a pair of cells is the logarithm of how much likelier
they are if they belong together than if the stored row was drawn at random::

    agreement at level k:  log(altered + intact_k / share_k)      apart:  log(altered)

where ``share_k`` is the share of stored rows that would agree at that level by chance. A column
that the thief replaced has ``altered`` 1 and weighs nothing, whatever its values are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Codes: TypeAlias = NDArray[np.int64]
Numbers: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Weights: TypeAlias = NDArray[np.float32]
Bools: TypeAlias = NDArray[np.bool_]

UNKNOWN = -2
"""The code of a leaked value that no stored row has."""
_NULL_CODE = -1
NULL_NUMBER = 1e300
_LARGEST = 1e150
_RINGS = 6
_DUST = 64 * float(np.finfo(np.float64).eps)
_GRID_SHARE = 0.9
_SAMPLE = 1 << 16


@dataclass(frozen=True)
class Field:
    """One column of the stored relation, one entry per stored row.

    ``values``: non-negative int64 codes for kind "code", float64 numbers for kind "number";
    ``valid``: where there is a value (numbers that are not finite count as NULL); ``tolerance``:
    how far a mark may have moved a number.
    """

    name: str
    values: Codes | Numbers
    valid: Bools
    kind: Literal["code", "number"]
    tolerance: float = 0.0


@dataclass(frozen=True)
class Cells:
    """The leak's cells of one field, in the units and codes of the stored ones.

    A leaked text that no stored row has gets code -2.
    """

    values: Codes | Numbers
    valid: Bools


@dataclass(frozen=True)
class Rates:
    """What became of one field's cells on their way into the leak."""

    altered: float
    """Share of the leaked values that have nothing to do with the stored ones."""
    intact: Floats
    """Share at each level of closeness; with ``altered`` they add up to 1."""
    blanked: float
    """Share of the leaked NULLs that have nothing to do with stored NULLs."""


class Comparison:
    """One field: its stored cells, ready for comparison, and the levels of closeness.

    Level 0 is agreement (for numbers: within tolerance and rounding), the last one is apart; NULL
    agrees with NULL.
    """

    def __init__(self, field: Field, sample: Cells) -> None:
        self.name = field.name
        self.is_code = field.kind == "code"
        self.size = max(len(field.values), 1)
        self._known: Codes | None = None
        self.dust = 0.0
        """What numbers may differ by and still be the same."""
        if self.is_code:
            codes = np.where(field.valid, np.asarray(field.values, np.int64), _NULL_CODE)
            if codes.max(initial=0) > 4 * len(codes) + 1024:
                self._known, codes = np.unique(codes, return_inverse=True)
                codes = np.where(field.valid, codes, _NULL_CODE)
            self.stored: NDArray[np.int32] | Numbers = codes.astype(np.int32)
            self._counts = np.bincount(codes[codes >= 0], minlength=1)
            self.widths: Floats = np.zeros(1)
            nulls = np.count_nonzero(codes == _NULL_CODE)
        else:
            self.stored = _plain(field.values, field.valid)
            there = self.stored != NULL_NUMBER
            self._sorted = np.sort(self.stored[there])
            leaked = _plain(sample.values, sample.valid)
            self.dust, self.widths = _widths(
                self._sorted, leaked[leaked != NULL_NUMBER], field.tolerance
            )
            nulls = np.count_nonzero(~there)
        self.null_share = max(float(nulls), 0.5) / self.size

    @property
    def levels(self) -> int:
        """How many levels of closeness there are besides apart."""
        return len(self.widths)

    def read(self, cells: Cells) -> Codes | Numbers:
        """Return leaked cells in the form of the stored ones."""
        if not self.is_code:
            return _plain(cells.values, cells.valid)
        codes = np.asarray(cells.values, np.int64)
        if self._known is None:
            codes = np.where((codes >= 0) & (codes < len(self._counts)), codes, UNKNOWN)
        elif len(self._known):
            at = np.minimum(np.searchsorted(self._known, codes), len(self._known) - 1)
            codes = np.where((self._known[at] == codes) & (codes >= 0), at, UNKNOWN)
        return np.where(cells.valid, codes, _NULL_CODE)

    def null(self, leaked: Codes | Numbers) -> Bools:
        """Say which cells, as `read` gives them, are NULL."""
        empty: Bools = leaked == (_NULL_CODE if self.is_code else NULL_NUMBER)
        return empty

    def shares(self, leaked: Codes | Numbers) -> Floats:
        """Return, float64[n, levels], the share of stored rows that agree at each level."""
        if self.is_code:
            count = self._counts[np.maximum(leaked, 0).astype(np.int64)]
            return (np.maximum(count, 0.5) / self.size)[:, None]
        # sorted questions walk through the sorted values once, instead of missing the cache
        order = np.argsort(leaked)
        value = np.asarray(leaked, np.float64)[order]
        within = np.zeros((len(value), self.levels + 1))
        for level, width in enumerate(self.widths):
            high = np.searchsorted(self._sorted, value + width, side="right")
            within[order, level + 1] = high - np.searchsorted(self._sorted, value - width)
        return np.maximum(np.diff(within, axis=1), 0.5) / self.size

    def compare(self, leaked: Codes | Numbers, rows: Ints, stored: Ints) -> NDArray[np.uint8]:
        """Return the level of each pair of a leaked and a stored row."""
        if self.is_code:
            apart: NDArray[np.uint8] = (self.stored[stored] != leaked[rows]).view(np.uint8)
            return apart
        distance = np.abs(self.stored[stored] - leaked[rows])
        level: NDArray[np.uint8] = (distance > self.widths[0]).view(np.uint8)
        for width in self.widths[1:]:
            level = level + (distance > width)
        return level

    def spread(self, value: int | float, weights: Weights) -> Weights:
        """Return about what every stored row weighs more than one apart.

        ``weights``: of the levels of one leaked cell.
        """
        steps = weights - np.append(weights[1:], weights[-1])
        if self.is_code:
            same: Weights = (self.stored == value).view(np.uint8).astype(np.float32) * steps[0]
            return same
        distance = np.abs(self.stored - value)
        out: Weights = np.zeros(len(distance), np.float32)
        # levels that hardly any cell reached weigh as much as apart
        for level in np.flatnonzero(np.abs(steps[:-1]) > 0.003):
            out += (distance <= self.widths[level]).view(np.uint8).astype(np.float32) * steps[level]
        return out

    def table(self, shares: Floats, null: Bools, rates: Rates) -> Weights:
        """Return, float32[n, levels + 1], the weight of each level for each leaked cell."""
        out = np.empty((len(shares), self.levels + 1), np.float32)
        out[:, :-1] = np.log(rates.altered + rates.intact / shares)
        out[:, -1] = np.log(rates.altered)
        out[null, 0] = np.log(rates.blanked + (1 - rates.blanked) / self.null_share)
        out[null, 1:] = np.log(rates.blanked)
        return out


def _plain(values: Codes | Numbers, valid: Bools) -> Numbers:
    numbers = np.asarray(values, np.float64)
    usable = valid & (np.abs(numbers) < _LARGEST)
    # adding 0.0 makes -0.0 the same as 0.0 in its bits too
    return np.where(usable, numbers, NULL_NUMBER) + 0.0


def _widths(stored: Floats, leaked: Floats, tolerance: float) -> tuple[float, Floats]:
    """Choose how far apart two numbers may be at each level, from the data's own grain."""
    known = stored[:: max(1, len(stored) // _SAMPLE)]
    known = known[np.append(True, np.diff(known) > 0)] if len(known) else known
    if len(known) < 2:
        dust = float(np.abs(known).max(initial=0.0)) * _DUST
        return dust, np.array([max(tolerance, dust)])
    grain = float(np.median(np.diff(known)))
    dust = min(_DUST * float(np.abs(known).max()), grain / 4)
    grid = _grid(stored, leaked)
    # what rounding does to a value is no alteration: it still counts as agreement
    widths = [tolerance + grid / 2 + dust, tolerance + grid + dust] if grid else [tolerance + dust]
    grain = max(grain, widths[-1])
    spread = float(np.subtract(*np.quantile(known, [0.75, 0.25]))) / 2
    more = _RINGS - len(widths)
    if spread > 2 * grain:
        widths += [grain * (spread / grain) ** (step / more) for step in range(1, more + 1)]
    return dust, np.array(widths)


def _grid(stored: Floats, leaked: Floats) -> float:
    """Return the coarsest round step that the leak's values keep to and the stored do not."""
    leaked = leaked[:4096]
    if len(leaked) < 8:
        return 0.0
    stored = stored[:: max(1, len(stored) // 4096)]
    top = max(float(np.ptp(leaked)), 1e-12)
    powers = [10.0**power for power in range(-6, 13)]
    steps = {base * power for power in powers for base in (1, 2, 5, 6, 36, 864)}
    for step in sorted((s for s in steps if s < top), reverse=True):
        if _keeps(leaked, step) >= _GRID_SHARE and _keeps(stored, step) < _GRID_SHARE:
            return step
    return 0.0


def _keeps(values: Floats, step: float) -> float:
    """Return the share of values on the grid through the median value."""
    rest = (values - values[np.argsort(values)[len(values) // 2]]) / step
    return float(np.mean(np.abs(rest - np.rint(rest)) < 1e-6))
