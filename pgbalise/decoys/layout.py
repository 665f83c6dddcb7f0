"""What part each column plays: when a row happened, what kind it is, what hangs on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgbalise.decoys.columns import Column, ColumnKind, Sample

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DAY = 86_400_000_000
"""Microseconds of a day."""
_MOST_KINDS = 4000
_NEAR = 1.0


@dataclass(frozen=True)
class Layout:
    """Places of columns, per sample.

    ``time[s]`` is the column that says when a row of sample s happened, ``kind[s]`` the category
    that says what it is; None where there is none, and for the entity. ``marks`` are the entity's
    dates that lie among its rows' (admission, last contact), the first of them the one from which
    days are counted; a birth date is none.
    """

    time: tuple[int | None, ...]
    kind: tuple[int | None, ...]
    marks: tuple[int, ...]


def is_time(column: Column) -> bool:
    """Say whether the column holds dates or timestamps."""
    return column.kind in (ColumnKind.DATE, ColumnKind.TIMESTAMP)


def microseconds(column: Column) -> Ints:
    """Return dates and timestamps as microseconds since 1970-01-01, int64[n]."""
    unit = DAY if column.kind is ColumnKind.DATE else 1
    return column.values.astype(np.int64) * unit


def owners(samples: Sequence[Sample]) -> list[Ints]:
    """Return for each sample the entity that each row belongs to."""
    found = [np.arange(len(samples[0]))]
    for sample in samples[1:]:
        assert sample.parent is not None
        found.append(found[sample.parent][sample.parent_row])
    return found


def lay_out(samples: Sequence[Sample]) -> Layout:
    """Return the parts that the columns play, found from their values alone."""
    time: list[int | None] = [None]
    kind: list[int | None] = [None]
    owner = owners(samples)
    for place, sample in enumerate(samples[1:], start=1):
        time.append(_time_of(sample, owner[place]))
        kind.append(_kind_of(sample))
    return Layout(tuple(time), tuple(kind), _marks(samples, time, owner))


def _time_of(sample: Sample, owner: Ints) -> int | None:
    """Return the column of times with the fewest NULLs and, among these, most often shared."""
    best: tuple[float, int, int] | None = None
    for place, column in enumerate(sample.columns):
        if not is_time(column) or not column.valid.any():
            continue
        known = np.stack([owner[column.valid], column.values[column.valid]], axis=1)
        distinct = len(np.unique(known, axis=0))
        missing = round(1 - column.valid.mean(), 2)
        if best is None or (missing, distinct) < best[:2]:
            best = (missing, distinct, place)
    return None if best is None else best[2]


def _kind_of(sample: Sample) -> int | None:
    """Return the category that tells most about the numbers, or the first one."""
    candidates = [
        place
        for place, column in enumerate(sample.columns)
        if column.kind is ColumnKind.CATEGORY and 1 < len(column.categories) <= _MOST_KINDS
    ]
    if not candidates:
        return None
    numbers = [column for column in sample.columns if column.kind is ColumnKind.NUMBER]
    told = [
        sum(_explained(sample.columns[place], number) for number in numbers) for place in candidates
    ]
    return candidates[int(np.argmax(told))]


def _explained(category: Column, number: Column) -> float:
    """Return which share of the variance of the number's ranks the category explains."""
    both = category.valid & number.valid
    if both.sum() < 2:
        return 0.0
    _, rank = np.unique(number.values[both], return_inverse=True)
    code = category.values[both].astype(np.int64)
    counts = np.bincount(code)
    means = np.bincount(code, rank) / np.maximum(counts, 1)
    spread = float(rank.var())
    return float(means[code].var()) / spread if spread else 0.0


def _marks(
    samples: Sequence[Sample], time: Sequence[int | None], owner: Sequence[Ints]
) -> tuple[int, ...]:
    entity = samples[0]
    dates = [
        place
        for place, column in enumerate(entity.columns)
        if is_time(column) and column.valid.any()
    ]
    of, at = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for place, sample in enumerate(samples):
        chosen = time[place]
        if sample.parent != 0 or chosen is None:
            continue
        column = sample.columns[chosen]
        of.append(owner[place][column.valid])
        at.append(microseconds(column)[column.valid])
    who, when = np.concatenate(of), np.concatenate(at)
    if not dates or not len(who):
        return tuple(dates[:1])
    first = np.full(len(entity), np.iinfo(np.int64).max)
    last = np.full(len(entity), np.iinfo(np.int64).min)
    np.minimum.at(first, who, when)
    np.maximum.at(last, who, when)
    having = first <= last
    length = float(np.quantile((last - first)[having], 0.75)) + DAY
    distance: dict[int, float] = {}
    for place in dates:
        column = entity.columns[place]
        known = having & column.valid
        if not known.any():
            continue
        here = microseconds(column)[known]
        away = np.maximum(first[known] - here, here - last[known])
        distance[place] = float(np.median(np.maximum(away, 0)))
    near = [place for place in distance if distance[place] <= _NEAR * length]
    if not near:
        return tuple(sorted(distance, key=distance.__getitem__)[:1])
    return tuple(near)
