"""How near entities are to each other: a decoy must not be nearer to a patient than patients are.

An entity is described by its row and by a summary of its rows elsewhere: how many of each frequent
kind, the first day of each, the mean of each number. As in Gower's distance (Biometrics 27, 1971),
every number counts by its rank among the real ones, between 0 and 1, and every category by whether
it is the same; the distances of the columns are added as squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgbalise.decoys.columns import ColumnKind, Sample
from pgbalise.decoys.layout import Layout, is_time, lay_out, microseconds, owners

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_KINDS = 8
_BLOCK = 1024
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class NearnessRatio:
    """Distances of decoys to the nearest real entity against those of real ones to each other.

    ``median`` is the ratio of the medians, ``fifth`` that of the fifth percentiles. ``nearer`` is
    the share of decoys below the first percentile of the real distances, which is the least
    allowed; ``identical`` the number of decoys at distance 0.
    """

    median: float
    fifth: float
    nearer: float
    identical: int


@dataclass(frozen=True)
class Nearness:
    """Real entities as points, float32[n, d], and how numbers become coordinates.

    ``least`` is the first percentile of the real entities' distances ``own`` to their nearest.
    """

    layout: Layout
    tracked: tuple[tuple[int, int], ...]
    scales: tuple[Floats, ...]
    gaps: tuple[bool, ...]
    sizes: tuple[int, ...]
    points: NDArray[np.float32]
    own: Floats
    least: float

    def distances(self, samples: Sequence[Sample]) -> Floats:
        """Return each entity's distance to the nearest real one, float64[n]."""
        points = _points(samples, self.layout, self.tracked, self.scales, self.gaps, self.sizes)
        return _nearest(points, self.points, itself=False)

    def too_near(self, samples: Sequence[Sample]) -> Bools:
        """Say which entities are nearer than ``least`` to a real one, whoever else is asked for."""
        points = _points(samples, self.layout, self.tracked, self.scales, self.gaps, self.sizes)
        found = np.zeros(len(points), bool)
        if self.least <= 0:
            return found
        bound = self.least**2
        for start in range(0, len(points), _BLOCK):
            block = points[start : start + _BLOCK]
            squares = _squares(block, self.points)
            near, real = np.nonzero(squares < bound * (1 + _TOLERANCE) + _TOLERANCE)
            # A product of matrices rounds by its shape; sums over one pair do not.
            exact = np.zeros(len(near))
            for place in range(points.shape[1]):
                step = block[near, place].astype(np.float64) - self.points[real, place]
                exact += step * step
            found[start + near[exact < bound]] = True
        return found


def learn_nearness(samples: Sequence[Sample]) -> Nearness:
    """Return the real entities as points."""
    layout = lay_out(samples)
    tracked = frequent_kinds(samples, layout, _KINDS)
    numbers, codes = _described(samples, layout, tracked)
    scales = tuple(np.sort(column[~np.isnan(column)]) for column in numbers)
    gaps = tuple(bool(np.isnan(column).any()) for column in numbers)
    sizes = tuple(int(column.max(initial=0)) + 1 for column in codes)
    points = _points(samples, layout, tracked, scales, gaps, sizes)
    own = _nearest(points, points, itself=True)
    return Nearness(
        layout, tracked, scales, gaps, sizes, points, own, float(np.quantile(own, 0.01))
    )


def nearness(real: Sequence[Sample], drawn: Sequence[Sample]) -> NearnessRatio:
    """Compare drawn entities' distances to real ones with those of real ones to each other."""
    learned = learn_nearness(real)
    found = learned.distances(drawn)
    return NearnessRatio(
        _ratio(np.median(found), np.median(learned.own)),
        _ratio(np.quantile(found, 0.05), np.quantile(learned.own, 0.05)),
        float((found < learned.least).mean()),
        int((found == 0).sum()),
    )


def frequent_kinds(
    samples: Sequence[Sample], layout: Layout, most: int
) -> tuple[tuple[int, int], ...]:
    """Return the kinds of rows that most entities have, as sample and kind, at most ``most``."""
    owner = owners(samples)
    found: list[tuple[int, int, int]] = []
    for place, sample in enumerate(samples[1:], start=1):
        chosen = layout.kind[place]
        if chosen is None:
            found.append((len(np.unique(owner[place])), place, -1))
            continue
        column = sample.columns[chosen]
        kind = np.where(column.valid, column.values.astype(np.int64), -1)
        pairs = np.unique(np.stack([kind, owner[place]], axis=1), axis=0)[:, 0]
        for one, held in zip(*np.unique(pairs, return_counts=True), strict=True):
            found.append((int(held), place, int(one)))
    found.sort(key=lambda item: (-item[0], item[1], item[2]))
    return tuple((place, kind) for _, place, kind in found[:most])


def _described(
    samples: Sequence[Sample], layout: Layout, tracked: Sequence[tuple[int, int]]
) -> tuple[list[Floats], list[NDArray[np.int64]]]:
    """Return numbers, NaN for unknown, and categories (0 for NULL) about each entity."""
    entity, count = samples[0], len(samples[0])
    numbers: list[Floats] = []
    codes: list[NDArray[np.int64]] = []
    for column in entity.columns:
        if column.kind is ColumnKind.CATEGORY:
            codes.append(np.where(column.valid, column.values.astype(np.int64) + 1, 0))
        else:
            numbers.append(np.where(column.valid, column.values.astype(np.float64), np.nan))
    owner = owners(samples)
    for place, kind in tracked:
        sample, chosen = samples[place], layout.kind[place]
        rows = np.ones(len(sample), bool)
        if chosen is not None:
            column = sample.columns[chosen]
            rows = np.where(column.valid, column.values, -1) == kind
        who = owner[place][rows]
        have = np.bincount(who, minlength=count)
        numbers.append(have.astype(np.float64))
        when = layout.time[place]
        if when is not None:
            column = sample.columns[when]
            earliest = np.full(count, np.inf)
            valid = column.valid[rows]
            np.minimum.at(earliest, who[valid], microseconds(column)[rows][valid].astype(float))
            numbers.append(np.where(np.isinf(earliest), np.nan, earliest))
        for column in sample.columns:
            if column.kind is ColumnKind.NUMBER and not is_time(column):
                valid = column.valid[rows]
                total = np.bincount(who[valid], column.values[rows][valid], minlength=count)
                known = np.bincount(who[valid], minlength=count)
                numbers.append(np.where(known > 0, total / np.maximum(known, 1), np.nan))
    return numbers, codes


def _points(
    samples: Sequence[Sample],
    layout: Layout,
    tracked: Sequence[tuple[int, int]],
    scales: Sequence[Floats],
    gaps: Sequence[bool],
    sizes: Sequence[int],
) -> NDArray[np.float32]:
    numbers, codes = _described(samples, layout, tracked)
    coordinates: list[Floats] = []
    for column, scale, gappy in zip(numbers, scales, gaps, strict=True):
        unknown = np.isnan(column)
        if not len(scale):
            continue
        low = np.searchsorted(scale, column, side="left")
        high = np.searchsorted(scale, column, side="right")
        coordinates.append(np.where(unknown, 0.5, (low + high) / (2 * len(scale))))
        if gappy:
            coordinates.append(unknown * 0.5)
    for code, size in zip(codes, sizes, strict=True):
        coordinates.extend((code == one) * np.sqrt(0.5) for one in range(size))
    return np.stack(coordinates, axis=1).astype(np.float32)


def _squares(points: NDArray[np.float32], real: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = (points**2).sum(axis=1)[:, None] + (real**2).sum(axis=1)[None, :]
    squares: NDArray[np.float32] = lengths - 2 * (points @ real.T)
    return squares


def _nearest(points: NDArray[np.float32], real: NDArray[np.float32], *, itself: bool) -> Floats:
    found = np.empty(len(points))
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        squares = _squares(block, real)
        if itself:
            squares[np.arange(len(block)), start + np.arange(len(block))] = np.inf
        place = squares.argmin(axis=1)
        exact = (block.astype(np.float64) - real[place]) ** 2
        found[start : start + len(block)] = np.sqrt(exact.sum(axis=1))
    return found


def _ratio(drawn: np.floating, real: np.floating) -> float:
    return float(drawn / real) if real > 0 else (1.0 if drawn == real else float("inf"))
