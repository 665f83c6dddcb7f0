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

from collections.abc import Sequence
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
_SHRINK = 3.0
_LEAST_GAIN = 0.05
_FEW_VALUES = 256


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


class Background:
    """How leaked rows look that have nothing to do with any one stored row: a tree of pairs.

    Fields depend on each other. That does not touch the comparison of two stored rows, since what
    happens to a cell on its way does not depend on the others; but a row of other origin agrees
    with some stored row far more often than if its fields were drawn one by one.
    """

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self._known: list[NDArray[np.number]] = []
        self._counts: list[Ints] = []
        codes = []
        for one in comparisons:
            known, code, counts = np.unique(
                _binned(one, one.stored), return_inverse=True, return_counts=True
            )
            self._known.append(known)
            self._counts.append(counts)
            codes.append(code.astype(np.int64))
        self.parent = _tree(codes, self._counts)
        self._pairs: dict[int, tuple[Ints, Ints]] = {}
        for child, parent in self.parent.items():
            pair = codes[parent] * len(self._counts[child]) + codes[child]
            self._pairs[child] = np.unique(pair, return_counts=True)

    def lifts(
        self, comparisons: Sequence[Comparison], leaked: Sequence[Codes | Numbers]
    ) -> dict[int, Floats]:
        """Return for each child how much commoner its value is where the parent's agrees."""
        codes = {}
        for one in {*self.parent, *self.parent.values()}:
            known = self._known[one]
            # a mark may have moved a number into the next bin
            reach = 0.0 if comparisons[one].is_code else float(comparisons[one].widths[0])
            found: list[Ints] = []
            for shift in (-reach, reach) if reach else (0.0,):
                value = _binned(comparisons[one], leaked[one], shift)
                at = np.minimum(np.searchsorted(known, value), len(known) - 1)
                at = np.where(known[at] == value, at, -1)
                found.append(np.where(at == found[0], -1, at) if found else at)
            codes[one] = found
        out = {}
        for child, parent in self.parent.items():
            known, counts = self._pairs[child]
            size = len(self._counts[child])
            both = np.zeros(len(leaked[child]))
            given, alone = both.copy(), both.copy()
            for mine in codes[child]:
                alone += np.where(mine >= 0, self._counts[child][mine], 0)
            for theirs in codes[parent]:
                given += np.where(theirs >= 0, self._counts[parent][theirs], 0)
                for mine in codes[child]:
                    pair = theirs * size + mine
                    at = np.minimum(np.searchsorted(known, pair), len(known) - 1)
                    there = (theirs >= 0) & (mine >= 0) & (known[at] == pair)
                    both += np.where(there, counts[at], 0)
            share = np.maximum(alone, 1) / self._counts[child].sum()
            lift = _others(both, given, share) / share
            out[child] = np.where((alone > 0) & (given > 0), lift, 1.0)
        return out


@dataclass(frozen=True)
class Sheet:
    """Leaked rows, ready for comparison."""

    leaked: tuple[Codes | Numbers, ...]
    null: tuple[Bools, ...]
    shares: tuple[Floats, ...]
    lifts: dict[int, Floats]

    def __len__(self) -> int:
        return len(self.null[0]) if self.null else 0


@dataclass(frozen=True)
class Tables:
    """Weights of every level of every field for the rows of a sheet."""

    weights: tuple[Weights, ...]
    unrelated: Floats
    """Weight of "some row like the stored ones", to compare the sum over fields with."""


class Model:
    """All fields of a relation, compared."""

    def __init__(self, stored: Sequence[Field], sample: Sequence[Cells]) -> None:
        self.comparisons = tuple(
            Comparison(field, cells) for field, cells in zip(stored, sample, strict=True)
        )
        self.size = len(stored[0].values) if stored else 0
        self.background = Background(self.comparisons)

    def read(self, cells: Sequence[Cells]) -> Sheet:
        """Prepare leaked rows."""
        leaked = tuple(c.read(one) for c, one in zip(self.comparisons, cells, strict=True))
        pairs = list(zip(self.comparisons, leaked, strict=True))
        return Sheet(
            leaked,
            tuple(c.null(one) for c, one in pairs),
            tuple(c.shares(one) for c, one in pairs),
            self.background.lifts(self.comparisons, leaked),
        )

    def tables(self, sheet: Sheet, rates: Sequence[Rates]) -> Tables:
        """Return the weights that the rates give."""
        weights = tuple(
            c.table(shares, null, rate)
            for c, shares, null, rate in zip(
                self.comparisons, sheet.shares, sheet.null, rates, strict=True
            )
        )
        unrelated = np.zeros(len(sheet))
        for child, lift in sheet.lifts.items():
            rate = rates[child]
            parent = rates[self.background.parent[child]]
            kept = (1 - rate.altered) * (1 - parent.altered)
            unrelated += np.log(1 - kept + kept * lift)
        return Tables(weights, unrelated)

    def compare(self, sheet: Sheet, rows: Ints, stored: Ints) -> list[NDArray[np.uint8]]:
        """Return for each field the level of each pair."""
        return [
            c.compare(leaked, rows, stored)
            for c, leaked in zip(self.comparisons, sheet.leaked, strict=True)
        ]

    def weigh(
        self, tables: Tables, rows: Ints, levels: Sequence[NDArray[np.uint8]]
    ) -> list[Weights]:
        """Return for each field the weight of each pair."""
        return [
            table.reshape(-1)[rows * table.shape[1] + level]
            for table, level in zip(tables.weights, levels, strict=True)
        ]

    def likely(self, sheet: Sheet, tables: Tables, row: int, drop: float) -> Ints:
        """Return the stored rows within ``drop`` of the likeliest for one leaked row."""
        total: Weights = np.zeros(self.size, np.float32)
        for one, leaked, table in zip(self.comparisons, sheet.leaked, tables.weights, strict=True):
            total += one.spread(leaked[row], table[row])
        return np.flatnonzero(total >= total.max() - drop)


def first_rates(
    comparisons: Sequence[Comparison], altered: float, even: bool = False
) -> list[Rates]:
    """Return rates to begin with: most cells agree, few are near, ``altered`` of them anything.

    ``even``: near ones are as many, at every distance.
    """
    out = []
    for one in comparisons:
        intact = np.full(one.levels, 0.05 / max(one.levels - 1, 1))
        intact[0] = 1.0
        if even:
            intact[:] = 1.0
        out.append(Rates(altered, intact * (1 - altered) / intact.sum(), altered))
    return out


@dataclass(frozen=True)
class Estimate:
    """Rates fitted to a sample."""

    rates: list[Rates]
    absent: float
    """Share of rows without a counterpart."""
    fit: float
    """Log likelihood of the sample, to compare estimates by."""


def estimate_rates(
    model: Model,
    sheet: Sheet,
    rows: Ints,
    stored: Ints,
    first: Sequence[Rates],
    *,
    rounds: int = 15,
    prior: float = 4.0,
) -> Estimate:
    """Fit rates, and the share of rows without a counterpart, by expectation maximisation.

    ``rows`` and ``stored``: pairs that may belong together, each once. ``prior``: how many
    rows' worth ``first`` counts.
    """
    rates = list(first)
    absent = start = 0.05
    fit = -np.inf
    count = len(sheet)
    levels = model.compare(sheet, rows, stored)
    for _ in range(rounds):
        tables = model.tables(sheet, rates)
        weights = model.weigh(tables, rows, levels)
        share, fit = _posterior(model, tables, rows, np.sum(weights, axis=0), absent)
        found = np.bincount(rows, share, count)
        absent = (float((1 - found).sum()) + prior * start) / (count + prior)
        new = []
        for field, (one, old) in enumerate(zip(model.comparisons, rates, strict=True)):
            null = sheet.null[field][rows]
            base = np.where(null, old.blanked, old.altered)
            # the part of a pair's probability that an altered cell explains
            astray = share * base / np.exp(weights[field].astype(np.float64))
            near = np.bincount(
                levels[field][~null], (share - astray)[~null], minlength=one.levels + 1
            )
            kept = near[: one.levels] + prior * first[field].intact
            loose = astray[~null].sum() + prior * first[field].altered
            total = kept.sum() + loose
            blanked = astray[null].sum() + prior * first[field].blanked
            new.append(Rates(loose / total, kept / total, blanked / (share[null].sum() + prior)))
        rates = new
    return Estimate(rates, absent, fit)


def _posterior(
    model: Model, tables: Tables, rows: Ints, weight: Weights, absent: float
) -> tuple[Floats, float]:
    """Return the probability of each pair, and the log likelihood of the rows."""
    odds = np.exp(weight.astype(np.float64)) * (1 - absent) / model.size
    unrelated = absent * np.exp(tables.unrelated)
    total = np.bincount(rows, odds, len(unrelated)) + unrelated
    return odds / total[rows], float(np.log(total).sum())


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


def _binned(
    one: Comparison, values: Codes | Numbers | NDArray[np.int32], shift: float = 0.0
) -> Codes | Numbers:
    """Return values that are equal where two cells agree, edges of bins aside."""
    if one.is_code:
        return np.asarray(values, np.int64)
    width = 2 * float(one.widths[0]) or 1.0
    null = np.asarray(values) == NULL_NUMBER
    return np.where(null, NULL_NUMBER, np.floor((np.where(null, 0.0, values) + shift) / width))


def _others(both: Ints | Floats, one: Ints | Floats, share: Floats | float) -> NDArray[np.float64]:
    """Return how often the child's value goes with the parent's among the other rows."""
    rest = np.maximum(both - 1, 0) + _SHRINK * share
    out: Floats = np.minimum(rest / (np.maximum(one - 1, 0) + _SHRINK), 1.0)
    return out


def _tree(codes: Sequence[Ints], counts: Sequence[Ints]) -> dict[int, int]:
    """Choose for each field the one that says most about it, without cycles."""
    gains = []
    for parent, code in enumerate(codes):
        size = len(counts[parent])
        if size < 2 or not len(code):
            continue
        part = slice(None, None, max(1, len(code) // _SAMPLE))
        chosen = np.arange(len(code))[part]
        if size > _FEW_VALUES and len(code) > _SAMPLE:
            # whole groups, since a sample of rows would hardly see two of the same value
            spread = (
                np.arange(size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            ) >> np.uint64(32)
            keep = spread < np.uint64((_SAMPLE << 32) // len(code))
            chosen = np.flatnonzero(keep[code])
        if len(chosen) < 2:
            continue
        given = code[chosen]
        one = np.bincount(given, minlength=size)
        for child, other in enumerate(codes):
            if child == parent or len(counts[child]) < 2:
                continue
            size_of = len(counts[child])
            pairs, both = np.unique(given * size_of + other[chosen], return_counts=True)
            share = counts[child][pairs % size_of] / len(code)
            lift = _others(both, one[pairs // size_of], share) / share
            gain = float((both * np.log(lift)).sum()) / len(chosen)
            if gain > _LEAST_GAIN:
                gains.append((gain, parent, child))
    root = list(range(len(codes)))

    def top(field: int) -> int:
        while root[field] != field:
            field = root[field]
        return field

    parents: dict[int, int] = {}
    for _, parent, child in sorted(gains, key=lambda g: (-g[0], g[1], g[2])):
        if child not in parents and top(parent) != top(child):
            parents[child] = parent
            root[top(child)] = top(parent)
    return parents
