"""What the patients of a hospital look like, and patients drawn who look like them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pgbalise.decoys.attributes import Attributes, learn_attributes, targets
from pgbalise.decoys.columns import Column, ColumnKind, Sample
from pgbalise.decoys.layout import Layout, lay_out, owners
from pgbalise.decoys.nearness import Nearness, frequent_kinds, learn_nearness
from pgbalise.decoys.number_looks import FEWEST
from pgbalise.decoys.series import (
    Frame,
    Series,
    column_of,
    draw_column,
    frame,
    kinds,
    learn_series,
    numbers_of,
    reordered,
    sample_like,
    times,
)
from pgbalise.decoys.timeline import Happening, Timeline, fit_timeline
from pgbalise.errors import InvalidInput

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MIN_ENTITIES = 20
"""Entities that a population is learned from at least."""
_TRACKED = 24
_AT_ONCE = 4096
_ATTEMPTS = 12


@dataclass(frozen=True)
class Population:
    """What was learned from the samples; ``draw`` makes entities like them.

    ``series[s]`` holds for each drawn column of sample s its place and a distribution per kind.
    """

    samples: tuple[Sample, ...]
    layout: Layout
    tracked: tuple[tuple[int, int], ...]
    timeline: Timeline
    attributes: Attributes
    series: tuple[tuple[tuple[int, tuple[Series, ...]], ...], ...]
    nearness: Nearness

    def draw(self, seeds: Sequence[bytes]) -> tuple[Sample, ...]:
        """Return samples of the same relations, entity i drawn from ``seeds[i]`` alone.

        A row of a relation below points with ``parent_row`` to a drawn row of the one above; rows
        are in the order of what they belong to, then time. An entity nearer to a real one than
        these are to each other is drawn again, from a seed of its own; what happened to it stays,
        or those of whom little is known would become rare.
        """
        if not seeds:
            return take(self.draw([b""]), np.zeros(0, np.int64))
        parts = [
            self._draw_apart(seeds[start : start + _AT_ONCE])
            for start in range(0, len(seeds), _AT_ONCE)
        ]
        return join(parts)

    def _draw_apart(self, seeds: Sequence[bytes]) -> tuple[Sample, ...]:
        drawn = self._draw_once(seeds, seeds)
        near = np.flatnonzero(self.nearness.too_near(drawn))
        for attempt in range(1, _ATTEMPTS + 1):
            if not len(near):
                break
            other = [
                hashlib.sha256(seeds[place] + b"again" + bytes([attempt])).digest()
                for place in near.tolist()
            ]
            again = self._draw_once(other, [seeds[place] for place in near.tolist()])
            still = self.nearness.too_near(again)
            if attempt == _ATTEMPTS:
                still[:] = False
            source = np.arange(len(seeds))
            source[near[~still]] = len(seeds) + np.flatnonzero(~still)
            drawn = take(join([drawn, again]), source)
            near = near[still]
        return drawn

    def _draw_once(self, seeds: Sequence[bytes], fixed: Sequence[bytes]) -> tuple[Sample, ...]:
        histories = self.timeline.draw(seeds, fixed)
        features = histories.features(self.tracked)
        known = np.concatenate([features, histories.endings(self.tracked)], axis=1)
        entity, zero = self.attributes.draw(seeds, fixed, histories, known)
        about = _about(entity, self.layout, features, zero)
        drawn: list[Sample] = [entity]
        above: list[Floats] = [np.zeros((len(seeds), 0))]
        for place, like in enumerate(self.samples[1:], start=1):
            happening = histories.happenings[place]
            assert happening is not None
            part = _part(like, place, happening, about, above, self.layout, zero)
            found: dict[int, Floats] = {}
            for column, series in self.series[place]:
                name = f"value {place} {column}"
                values = list(found.values())
                found[column] = draw_column(part.frame, series, values, seeds, name)
            columns = []
            for number, model in enumerate(like.columns):
                if number == self.layout.time[place]:
                    columns.append(times(happening, zero, model))
                elif number == self.layout.kind[place]:
                    columns.append(kinds(happening, model))
                else:
                    time = None if part.time is None else reordered_by(part.time, part.frame.order)
                    values_of = found.get(number, np.full(len(happening.owner), np.nan))
                    column_drawn = column_of(values_of, model, time)
                    columns.append(reordered(column_drawn, part.frame.order))
            sample = sample_like(like, columns, happening.parent)
            drawn.append(sample)
            above.append(_told(found, part.frame.order, len(sample)))
        return tuple(drawn)


def fit_population(samples: Sequence[Sample], seed: bytes) -> Population:
    """Learn what entities and their rows look like; ``samples[0]`` is the entity's relation.

    ``seed`` decides which rows stand for all where there are too many to learn from. Raises
    InvalidInput when there are fewer than MIN_ENTITIES entities.
    """
    if not samples or len(samples[0]) < MIN_ENTITIES:
        name = samples[0].name if samples else "no relation"
        raise InvalidInput(
            f"{name}: decoys are learned from {MIN_ENTITIES} rows at least",
            hint="load more patients first, or leave decoys out of this relation",
        )
    random = np.random.default_rng(np.frombuffer(hashlib.sha256(seed).digest(), np.uint32))
    samples = _without_rare(samples, random)
    layout = lay_out(samples)
    timeline, histories, zero = fit_timeline(samples, layout)
    tracked = frequent_kinds(samples, layout, _TRACKED)
    features = histories.features(tracked)
    known = np.concatenate([features, histories.endings(tracked)], axis=1)
    attributes = learn_attributes(samples[0], layout, histories, zero, known)
    about = _about(samples[0], layout, features, zero)
    above: list[Floats] = [np.zeros((len(samples[0]), 0))]
    learned: list[tuple[tuple[int, tuple[Series, ...]], ...]] = [()]
    for place, sample in enumerate(samples[1:], start=1):
        happening = histories.happenings[place]
        assert happening is not None
        part = _part(sample, place, happening, about, above, layout, zero)
        found: dict[int, Floats] = {}
        series = []
        when = layout.time[place]
        time = None if when is None else sample.columns[when]
        for number, column in enumerate(sample.columns):
            if number in (when, layout.kind[place]) or not column.valid.any():
                continue
            values = numbers_of(column, time)[part.frame.order]
            earlier = list(found.values())
            series.append((number, learn_series(part.frame, values, column, earlier, random)))
            found[number] = values
        learned.append(tuple(series))
        above.append(_told(found, part.frame.order, len(sample)))
    return Population(
        tuple(samples),
        layout,
        tracked,
        timeline,
        attributes,
        tuple(learned),
        learn_nearness(samples),
    )


@dataclass(frozen=True)
class _Part:
    frame: Frame
    time: Column | None


def _part(
    like: Sample,
    place: int,
    happening: Happening,
    about: Floats,
    above: Sequence[Floats],
    layout: Layout,
    zero: Ints,
) -> _Part:
    assert like.parent is not None
    parent = above[like.parent][happening.parent]
    when = layout.time[place]
    time = None if when is None else times(happening, zero, like.columns[when])
    return _Part(frame(happening, about, parent), time)


def reordered_by(column: Column, order: Ints) -> Column:
    """Return the rows of a column in that order."""
    return replace(column, values=column.values[order], valid=column.valid[order])


def _about(entity: Sample, layout: Layout, features: Floats, zero: Ints) -> Floats:
    """Return what rows may depend on about their entity: its row and how many rows it has."""
    own = [
        targets(column, layout, place, zero)
        for place, column in enumerate(entity.columns)
        if place not in layout.marks
    ]
    known = [np.where(np.isnan(column), -np.inf, column) for column in own]
    counts = 2 + len(layout.marks)
    return np.concatenate(
        [
            np.stack([*known, zero.astype(np.float64)], axis=1),
            features[:, :counts],
            features[:, counts::2],
        ],
        axis=1,
    )


def _told(found: dict[int, Floats], order: Ints, count: int) -> Floats:
    """Return the drawn columns in the sample's own order, float64[n, columns], -inf for NULL."""
    told = np.full((count, len(found)), -np.inf)
    for place, values in enumerate(found.values()):
        told[order, place] = np.where(np.isnan(values), -np.inf, values)
    return told


def _without_rare(samples: Sequence[Sample], random: np.random.Generator) -> tuple[Sample, ...]:
    """Return samples in which a category held by fewer than FEWEST entities is another one."""
    owner = owners(samples)
    cleaned = []
    for place, sample in enumerate(samples):
        columns = []
        for column in sample.columns:
            if column.kind is not ColumnKind.CATEGORY or not column.valid.any():
                columns.append(column)
                continue
            code = column.values.astype(np.int64)
            held_by = np.stack([code[column.valid], owner[place][column.valid]], axis=1)
            held = np.bincount(np.unique(held_by, axis=0)[:, 0], minlength=int(code.max()) + 1)
            common = column.valid & (held[np.where(column.valid, code, 0)] >= FEWEST)
            rare = np.flatnonzero(column.valid & ~common)
            valid = column.valid
            if common.any():
                code = code.copy()
                code[rare] = random.choice(code[common], len(rare))
            else:
                valid = np.zeros_like(valid)
            columns.append(replace(column, values=code, valid=valid))
        cleaned.append(replace(sample, columns=tuple(columns)))
    return tuple(cleaned)


def take(samples: Sequence[Sample], entities: Ints) -> tuple[Sample, ...]:
    """Return samples with those entities only, int64[n], in that order, and their rows."""
    rows_of = [entities]
    taken = [_rows(samples[0], entities, samples[0].parent_row)]
    for sample in samples[1:]:
        assert sample.parent is not None
        order = np.argsort(sample.parent_row, kind="stable")
        wanted = rows_of[sample.parent]
        start = np.searchsorted(sample.parent_row[order], wanted)
        counts = np.searchsorted(sample.parent_row[order], wanted, side="right") - start
        parent_row = np.repeat(np.arange(len(wanted)), counts)
        offset = np.repeat(start - (np.cumsum(counts) - counts), counts)
        rows = order[offset + np.arange(len(parent_row))]
        rows_of.append(rows)
        taken.append(_rows(sample, rows, parent_row))
    return tuple(taken)


def _rows(sample: Sample, rows: Ints, parent_row: Ints) -> Sample:
    columns = tuple(reordered_by(column, rows) for column in sample.columns)
    return replace(sample, columns=columns, parent_row=parent_row)


def join(parts: Sequence[Sequence[Sample]]) -> tuple[Sample, ...]:
    """Return samples of the same relations as one, the entities of the first part first."""
    joined: list[Sample] = []
    for place, first in enumerate(parts[0]):
        pieces = [part[place] for part in parts]
        parent_row = first.parent_row
        if first.parent is not None:
            above = np.cumsum([0, *(len(part[first.parent]) for part in parts)])
            parent_row = np.concatenate(
                [piece.parent_row + base for piece, base in zip(pieces, above, strict=False)]
            )
        columns = [
            replace(
                column,
                values=np.concatenate([piece.columns[number].values for piece in pieces]),
                valid=np.concatenate([piece.columns[number].valid for piece in pieces]),
            )
            for number, column in enumerate(first.columns)
        ]
        joined.append(replace(first, columns=tuple(columns), parent_row=parent_row))
    return tuple(joined)
