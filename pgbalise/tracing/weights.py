"""All fields of a relation weighed together, and what became of them estimated from a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgbalise.tracing.comparing import (
    NULL_NUMBER,
    Bools,
    Cells,
    Codes,
    Comparison,
    Field,
    Floats,
    Ints,
    Numbers,
    Rates,
    Weights,
)

_SAMPLE = 1 << 16
_SHRINK = 3.0
_LEAST_GAIN = 0.05
_FEW_VALUES = 256


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

    def likely(self, sheet: Sheet, tables: Tables, row: int, drop: float, most: int) -> Ints:
        """Return a leaked row's ``most`` likeliest stored rows, within ``drop`` of the first."""
        total: Weights = np.zeros(self.size, np.float32)
        for one, leaked, table in zip(self.comparisons, sheet.leaked, tables.weights, strict=True):
            total += one.spread(leaked[row], table[row])
        found = np.flatnonzero(total >= total.max() - drop)
        if len(found) > most:
            found = found[np.argpartition(-total[found], most)[:most]]
        return found


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
