"""The entity's own row: its place in the calendar and its columns, one after the other.

Each column is drawn from its distribution given the history and the columns before it; which are
NULL together is drawn first, what follows from other columns is computed last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pgbalise.decoys.columns import Column, ColumnKind, Sample
from pgbalise.decoys.layout import DAY, Layout, is_time, microseconds
from pgbalise.decoys.number_looks import FEWEST, look_at
from pgbalise.decoys.relations import Product, Rule, Years, completed_years, find_rules
from pgbalise.decoys.timeline import Histories
from pgbalise.decoys.trees import Conditional, learn_category, learn_number
from pgbalise.decoys.uniforms import uniform_table

_MOST_LEVELS = 100
_PARTS = 11
_GENEROUS = 4.0
"""The chi-square that tells one split from chance: many weak ones tie a row to its history."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Residual:
    """What a rule leaves: in which part of its distribution, given all; where in it, by level."""

    parts: Conditional
    value: Conditional


@dataclass(frozen=True)
class Attributes:
    """How an entity's row is drawn from its history.

    Day 0 lies between ``earliest`` and as late as the history's last day allows, ``latest``.
    ``patterns`` bool[p, columns] says which columns are known together. ``parts`` are drawn in that
    order: the place of the column and its distribution; ``rules`` compute the rest, those that
    leave a residual given the first ``base`` features and the ``levels`` of their sources.
    """

    sample: Sample
    layout: Layout
    earliest: float
    latest: float
    calendar: Conditional
    patterns: NDArray[np.bool_]
    pattern: Conditional
    parts: tuple[tuple[int, Conditional], ...]
    rules: tuple[Rule, ...]
    residuals: tuple[Residual | None, ...]
    levels: dict[str, Floats]
    base: int

    def draw(
        self,
        seeds: Sequence[bytes],
        fixed: Sequence[bytes],
        histories: Histories,
        features: Floats,
    ) -> tuple[Sample, Ints]:
        """Return a row per history, ``features`` being the history's, and the date of its day 0.

        Which columns are NULL comes from ``fixed``, the rest from ``seeds``.
        """
        columns = self.sample.columns
        chance = uniform_table(seeds, "attributes", 3 + len(columns))
        room = _room(histories, self.earliest, self.latest)
        share = self.calendar.draw(features, chance[:, 0])
        zero = np.rint(self.earliest + share * room).astype(np.int64)
        zero -= (zero - histories.weekday + 3) % 7 - 3
        features = np.concatenate([features, zero[:, None]], axis=1)
        pattern = self.pattern.draw(features, uniform_table(fixed, "pattern", 1)[:, 0])
        known = self.patterns[pattern.astype(np.int64)]
        for place, mark in enumerate(self.layout.marks):
            known[:, mark] = ~np.isnan(histories.marks[:, place])
        features = np.concatenate([features, known[:, self._nullable()]], axis=1)
        values: dict[int, Floats] = {}
        for place, conditional in self.parts:
            drawn = conditional.draw(features, chance[:, 2 + place])
            drawn = np.where(known[:, place], drawn, np.nan)
            values[place] = drawn
            features = _with(features, drawn)
        features = features[:, : self.base]
        rows = self._assembled(values, histories, zero, known)
        for rule, residual in zip(self.rules, self.residuals, strict=True):
            rows = self._apply(rule, residual, rows, features, chance, known)
        return Sample(self.sample.name, tuple(rows)), zero

    def _nullable(self) -> list[int]:
        return [place for place in range(len(self.sample.columns)) if self._varying(place)]

    def _varying(self, place: int) -> bool:
        return place not in self.layout.marks and 0 < self.patterns[:, place].sum() < len(
            self.patterns
        )

    def _assembled(
        self, values: dict[int, Floats], histories: Histories, zero: Ints, known: NDArray[np.bool_]
    ) -> list[Column]:
        columns = []
        for place, like in enumerate(self.sample.columns):
            drawn = np.nan_to_num(values.get(place, np.zeros(len(zero))))
            if place in self.layout.marks:
                offset = np.nan_to_num(histories.marks[:, self.layout.marks.index(place)])
                day = zero + offset.astype(np.int64)
                whole = day if like.kind is ColumnKind.DATE else day * DAY + _whole(drawn)
            elif like.kind is ColumnKind.DATE:
                whole = zero + _whole(drawn)
            elif like.kind is ColumnKind.TIMESTAMP:
                whole = zero * DAY + _whole(drawn)
            elif like.kind is ColumnKind.CATEGORY:
                whole = _whole(drawn)
            else:
                columns.append(
                    Column(like.name, like.kind, drawn, known[:, place], like.categories)
                )
                continue
            columns.append(Column(like.name, like.kind, whole, known[:, place], like.categories))
        return columns

    def _apply(
        self,
        rule: Rule,
        residual: Residual | None,
        rows: list[Column],
        features: Floats,
        chance: Floats,
        known: NDArray[np.bool_],
    ) -> list[Column]:
        names = [column.name for column in rows]
        place = names.index(rule.target)
        valid = known[:, place]
        plain = rows[place].values.astype(np.float64)
        if isinstance(rule, Product):
            assert residual is not None
            sources = {name: as_floats(rows[names.index(name)]) for name in rule.sources}
            asked = _with_level(features, rule, self.levels, sources)
            part = residual.parts.draw(asked, chance[:, 2 + place])
            asked = np.concatenate([part[:, None], asked[:, features.shape[1] :]], axis=1)
            rest = residual.value.draw(asked, chance[:, -1])
            known_values = self.sample.columns[place]
            rows_known = np.flatnonzero(known_values.valid)
            look = look_at(known_values.values[rows_known].astype(np.float64), rows_known)
            completed = rule.completed(sources, rest)
            # within bounds it would not follow from its sources, which keep to theirs
            free = replace(look, low=-np.inf, high=np.inf)
            given = free.written(np.nan_to_num(completed))
            plain = np.where(np.isnan(completed), plain, given)
        else:
            since, until = (rows[names.index(name)] for name in (rule.since, rule.until))
            first, second = (microseconds(column) // DAY for column in (since, until))
            between = completed_years(first, second) if isinstance(rule, Years) else second - first
            plain = np.where(since.valid & until.valid, between, plain)
        rows = list(rows)
        rows[place] = Column(rule.target, rows[place].kind, plain, valid)
        return rows


def learn_attributes(
    sample: Sample, layout: Layout, histories: Histories, zero: Ints, features: Floats
) -> Attributes:
    """Learn the entity's rows given their histories' ``features`` float64[n, f]."""
    count = len(sample)
    owner = np.arange(count)
    few = min(FEWEST, 1 + count // 20)
    earliest = float(np.sort(zero)[few - 1])
    latest = float(np.sort(zero + histories.last)[-few])
    share = (zero - earliest) / _room(histories, earliest, latest)
    calendar = learn_number(features, share, look_at(share, owner))
    features = np.concatenate([features, zero[:, None]], axis=1)

    known = np.stack([column.valid for column in sample.columns], axis=1)
    free = known.copy()
    free[:, list(layout.marks)] = True
    patterns, pattern = np.unique(free, axis=0, return_inverse=True)
    pattern = pattern.reshape(-1)
    held = np.bincount(pattern) >= FEWEST
    if not held.any():
        held[:] = True
    frequent = held[pattern]
    conditional = learn_category(features[frequent], pattern[frequent])
    varying = [
        place
        for place in range(len(sample.columns))
        if place not in layout.marks and patterns[:, place].any() and not patterns[:, place].all()
    ]
    features = np.concatenate([features, free[:, varying]], axis=1)

    rules = find_rules(
        {c.name: as_floats(c) for c in sample.columns if c.kind is ColumnKind.NUMBER},
        {
            c.name: np.where(c.valid, microseconds(c) // DAY, np.nan)
            for c in sample.columns
            if is_time(c)
        },
    )
    names = [column.name for column in sample.columns]
    ruled = {names.index(rule.target) for rule in rules}
    parts: list[tuple[int, Conditional]] = []
    base = features.shape[1]
    categorical: list[int] = []
    # what a rule gives comes last: it tells others nothing that its sources do not
    for place in sorted(range(len(names)), key=lambda place: place in ruled):
        column = sample.columns[place]
        if not column.valid.any():
            continue
        if place in layout.marks and column.kind is ColumnKind.DATE:
            continue
        target = targets(column, layout, place, zero)
        rows = np.flatnonzero(column.valid)
        if column.kind is ColumnKind.CATEGORY:
            learned = learn_category(
                features[rows], target[rows].astype(np.int64), tuple(categorical)
            )
            if len(column.categories) > 2:
                categorical.append(features.shape[1])
        else:
            look = look_at(target[rows], owner[rows])
            learned = learn_number(
                features[rows], target[rows], look, tuple(categorical), _GENEROUS
            )
        parts.append((place, learned))
        features = _with(features, target)
        if place not in ruled:
            base = features.shape[1]
    categorical = [place for place in categorical if place < base]
    features = features[:, :base]
    residuals: list[Residual | None] = []
    levels: dict[str, Floats] = {}
    for rule in rules:
        if not isinstance(rule, Product):
            residuals.append(None)
            continue
        values = {name: as_floats(sample.column(name)) for name in (*rule.sources, rule.target)}
        rest = rule.rest(values)
        rows = np.flatnonzero(~np.isnan(rest))
        look = look_at(rest[rows], owner[rows])
        for name in rule.sources:
            distinct = np.unique(values[name][rows])
            if len(distinct) <= _MOST_LEVELS:
                levels[name] = distinct
        asked = _with_level(features, rule, levels, values)
        width = features.shape[1]
        places = (*categorical, *range(width, asked.shape[1]))
        edges = np.unique(np.quantile(rest[rows], np.linspace(0, 1, _PARTS + 1)[1:-1]))
        part = np.searchsorted(edges, rest[rows])
        within = np.concatenate([part[:, None].astype(np.float64), asked[rows, width:]], axis=1)
        levelled = tuple(range(1, within.shape[1]))
        residuals.append(
            Residual(
                learn_category(asked[rows], part, places),
                learn_number(within, rest[rows], look, levelled, 0.0),
            )
        )
    return Attributes(
        sample,
        layout,
        earliest,
        latest,
        calendar,
        patterns,
        conditional,
        tuple(parts),
        rules,
        tuple(residuals),
        levels,
        base,
    )


def targets(column: Column, layout: Layout, place: int, zero: Ints) -> Floats:
    """Return a column of the entity as numbers, dates counted from day 0; NaN for NULL."""
    values: Floats = column.values.astype(np.float64)
    if place in layout.marks and column.kind is ColumnKind.TIMESTAMP:
        values = (column.values % DAY).astype(np.float64)
    elif column.kind is ColumnKind.DATE:
        values = (column.values - zero).astype(np.float64)
    elif column.kind is ColumnKind.TIMESTAMP:
        values = (column.values - zero * DAY).astype(np.float64)
    return np.where(column.valid, values, np.nan)


def as_floats(column: Column) -> Floats:
    """Return the values, NaN for NULL, float64[n]."""
    return np.where(column.valid, column.values.astype(np.float64), np.nan)


def _with_level(
    features: Floats, rule: Product, levels: dict[str, Floats], values: dict[str, Floats]
) -> Floats:
    """Return features with the sources of few values as categories: each is rounded its own way."""
    columns = [features]
    for name in rule.sources:
        if name in levels:
            level = np.searchsorted(levels[name], values[name]).clip(max=len(levels[name]) - 1)
            columns.append(np.where(np.isnan(values[name]), -np.inf, level)[:, None])
    return np.concatenate(columns, axis=1)


def _room(histories: Histories, earliest: float, latest: float) -> Floats:
    return np.maximum(latest - histories.last - earliest, 1.0)


def _whole(values: Floats) -> Ints:
    return np.rint(values).astype(np.int64)


def _with(features: Floats, column: Floats) -> Floats:
    known = np.where(np.isnan(column), -np.inf, column)
    return np.concatenate([features, known[:, None]], axis=1)
