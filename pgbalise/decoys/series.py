"""Values of rows that happen again and again: each given the entity, the time and those before.

Every kind of row (a test, a diagnosis) has a distribution of its own, per column. Kinds that
repeat another one's value at the same time, value by value, are found and repeat it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgbalise.decoys.columns import Column, ColumnKind, Sample
from pgbalise.decoys.layout import DAY, microseconds
from pgbalise.decoys.number_looks import Look, look_at
from pgbalise.decoys.timeline import Happening
from pgbalise.decoys.trees import Conditional, learn_category, learn_number
from pgbalise.decoys.uniforms import uniforms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_MOST_ROWS = 60_000
"""Rows that a distribution is learned from at most."""
_LEAST_ROWS = 40
_OTHERS = 6
"""Kinds whose values another kind may depend on."""
_SAME = 0.98
_LAGS = 3


@dataclass(frozen=True)
class Frame:
    """Rows of one sample sorted by entity, time and kind, with what their values may depend on.

    ``about`` float64[entities, f] tells of the entity, ``above`` float64[rows, g] of the row above;
    ``event`` numbers rows of one entity at one time; ``order`` sorts the sample's rows so.
    """

    owner: Ints
    kind: Ints
    time: Ints
    event: Ints
    order: Ints
    about: Floats
    above: Floats

    def features(self, rows: Ints, earlier: Sequence[Floats]) -> Floats:
        """Return what is known of rows of one kind before their value is."""
        owner, time = self.owner[rows], self.time[rows].astype(np.float64)
        first = np.searchsorted(owner, owner)
        after = np.searchsorted(owner, owner, side="right")
        place = np.arange(len(rows)) - first
        since = np.full(len(rows), -np.inf)
        since[1:] = np.where(place[1:] > 0, time[1:] - time[:-1], -np.inf)
        together = np.bincount(self.event, minlength=1)[self.event[rows]]
        columns = [
            time / DAY,
            np.mod(time, DAY),
            place,
            after - first,
            since,
            np.where(place > 0, time - time[first], -np.inf),
            together,
            *(_known(values[rows]) for values in earlier),
        ]
        return np.concatenate(
            [self.about[owner], self.above[rows], np.stack(columns, axis=1)], axis=1
        )

    def of_others(self, rows: Ints, values: Floats, kinds: Sequence[int]) -> Floats:
        """Return per kind the last value at or before each row, its age, and the entity's mean."""
        count = len(self.about)
        span = int(self.time.max() - self.time.min()) // 60_000_000 + 2 if len(self.time) else 2
        when = (self.time - (self.time.min() if len(self.time) else 0)) // 60_000_000
        at = self.owner * span + when
        columns = []
        for kind in kinds:
            chosen = np.flatnonzero((self.kind == kind) & ~np.isnan(values))
            last = np.searchsorted(at[chosen], at[rows], side="right") - 1
            there = last >= 0
            if len(chosen):
                there &= self.owner[chosen[np.maximum(last, 0)]] == self.owner[rows]
                value = np.where(there, values[chosen[np.maximum(last, 0)]], -np.inf)
                age = np.where(there, at[rows] - at[chosen[np.maximum(last, 0)]], -np.inf)
            else:
                value = age = np.full(len(rows), -np.inf)
            have = np.bincount(self.owner[chosen], minlength=count)
            total = np.bincount(self.owner[chosen], values[chosen], minlength=count)
            mean = np.where(have > 0, total / np.maximum(have, 1), -np.inf)
            columns += [value, age, mean[self.owner[rows]]]
        if not columns:
            return np.zeros((len(rows), 0))
        return np.stack(columns, axis=1)


def frame(happening: Happening, about: Floats, above: Floats) -> Frame:
    """Return a sample's rows sorted; ``above`` float64[n, g] in the sample's order."""
    order = np.lexsort((happening.kind, happening.time, happening.owner))
    owner, time = happening.owner[order], happening.time[order]
    fresh = np.ones(len(order), bool)
    fresh[1:] = (owner[1:] != owner[:-1]) | (time[1:] != time[:-1])
    return Frame(
        owner, happening.kind[order], time, np.cumsum(fresh) - 1, order, about, above[order]
    )


@dataclass(frozen=True)
class Series:
    """How one kind's values in one column are drawn.

    ``copied`` is the kind whose value at the same time is repeated. ``null`` says which are NULL,
    ``again`` which repeat the one before; ``lagged`` whether the value depends on those before,
    ``first`` is the distribution of an entity's first. ``level`` tells what is usual for such an
    entity, whatever came before. ``daily``: one day, one value.
    """

    kind: int
    copied: int | None
    others: tuple[int, ...]
    null: Conditional | None
    again: Conditional | None
    value: Conditional | None
    first: Conditional | None
    level: Conditional | None
    daily: bool
    lagged: bool

    def draw(self, rows: Floats, first: Bools, today: Bools, chance: Floats) -> Floats:
        """Return values float64[n] of rows with ``features``, NaN for NULL.

        ``first`` says where an entity's rows of the kind begin, ``today`` which are of the same day
        as the one before; ``chance`` float64[n, 3].
        """
        drawn = np.full(len(rows), np.nan)
        if self.value is None or not len(rows):
            return drawn
        empty = np.zeros(len(rows), bool)
        if self.null is not None:
            empty = self.null.draw(rows, chance[:, 0]) > 0
        lags = np.full((len(rows), _LAGS), -np.inf)
        if self.level is not None:
            rows = np.concatenate([rows, self.level.expected(rows)[:, None]], axis=1)
        if not self.lagged:
            drawn = self.value.draw(np.concatenate([rows, lags], axis=1), chance[:, 1])
            return np.where(empty, np.nan, drawn)
        number = np.arange(len(rows)) - np.maximum.accumulate(
            np.where(first, np.arange(len(rows)), 0)
        )
        turn = np.argsort(number, kind="stable")
        bounds = np.searchsorted(number[turn], np.arange(int(number.max()) + 2))
        total, have = np.zeros(len(rows)), np.zeros(len(rows))
        for step in range(len(bounds) - 1):
            here = turn[bounds[step] : bounds[step + 1]]
            features = np.concatenate([rows[here], lags[here]], axis=1)
            if step:
                previous = here - 1
                features[:, -3] = _known(drawn[previous])
                if step > 1:
                    features[:, -2] = _known(drawn[previous - 1])
                features[:, -1] = np.where(
                    have[previous] > 0, total[previous] / np.maximum(have[previous], 1), -np.inf
                )
            model = self.first if step == 0 and self.first is not None else self.value
            before = _followed(features) if step else None
            values = model.draw(features, chance[here, 1], before)
            if step and self.again is not None:
                repeats = self.again.draw(features, chance[here, 2]) > 0
                values = np.where(repeats & ~np.isnan(drawn[here - 1]), drawn[here - 1], values)
            if step and self.daily:
                kept = today[here] & ~np.isnan(drawn[here - 1])
                values = np.where(kept, drawn[here - 1], values)
            values = np.where(empty[here], np.nan, values)
            drawn[here] = values
            total[here], have[here] = np.nan_to_num(values), ~np.isnan(values)
            if step:
                total[here] += total[here - 1]
                have[here] += have[here - 1]
        return drawn


def learn_series(
    frame: Frame,
    values: Floats,
    like: Column,
    earlier: Sequence[Floats],
    random: np.random.Generator,
) -> tuple[Series, ...]:
    """Return a series per kind, the most frequent first; ``values`` float64[n], NaN for NULL."""
    category = like.kind is ColumnKind.CATEGORY
    kinds, counts = np.unique(frame.kind, return_counts=True)
    ordered = kinds[np.argsort(-counts, kind="stable")].tolist()
    series: list[Series] = []
    for place, kind in enumerate(ordered):
        others = tuple(one.kind for one in series if one.copied is None)[:_OTHERS]
        others = () if category else others
        copied = None if category else _copied(frame, values, kind, ordered[:place])
        rows = np.flatnonzero(frame.kind == kind)
        alone = rows
        if copied is not None:
            alone = rows[np.isnan(_partner(frame, values, kind, copied))]
            if len(alone) < _LEAST_ROWS:
                alone = rows[: _LEAST_ROWS * 5]
        features = np.concatenate(
            [frame.features(rows, earlier), frame.of_others(rows, values, others)], axis=1
        )
        lags = _lags(frame.owner[rows], values[rows])
        today = _today(frame, rows)
        # copied rows have hardly any of their own to learn from
        chosen = np.isin(rows, alone) if copied is not None else np.ones(len(rows), bool)
        series.append(
            _learn(
                kind,
                copied,
                others,
                frame.owner[rows][chosen],
                features[chosen],
                lags[chosen],
                today[chosen],
                values[rows][chosen],
                category,
                random,
            )
        )
    return tuple(series)


def _learn(
    kind: int,
    copied: int | None,
    others: tuple[int, ...],
    owner: Ints,
    features: Floats,
    lags: Floats,
    today: Bools,
    values: Floats,
    category: bool,
    random: np.random.Generator,
) -> Series:
    known = ~np.isnan(values)
    null = None
    if not known.all():
        sub = _some(np.arange(len(values)), random)
        null = learn_category(features[sub], (~known[sub]).astype(np.int64))
    if not known.any():
        return Series(kind, copied, others, None, None, None, None, None, daily=False, lagged=False)
    again, level, daily = None, None, False
    if not category:
        look = look_at(values[known], owner[known])
        same = known & (values == lags[:, 0])
        following = known & np.isfinite(lags[:, 0])
        repeated = today & following
        if repeated.sum() >= _LEAST_ROWS // 2 and same[repeated].mean() >= _SAME:
            daily = True
            following &= ~today
        if following.sum() > _LEAST_ROWS:
            sub = _some(np.flatnonzero(known), random)
            level = learn_number(features[sub], values[sub], look, (), _PATIENTLY)
            features = np.concatenate([features, level.expected(features)[:, None]], axis=1)
        full = np.concatenate([features, lags], axis=1)
        later = following if following.sum() > _LEAST_ROWS else known
        sub = _some(np.flatnonzero(later), random)
        before = _followed(full) if level is not None else None
        value = _learn_later(full, values, look, before, sub)
        asked = _some(np.flatnonzero(following), random)
        if len(asked) >= _LEAST_ROWS:
            drawn = value.draw(full[asked], random.random(len(asked)))
            chance, share = (drawn == lags[asked, 0]).mean(), same[asked].mean()
            if share > chance + _REPEATS:
                # only as many repeats are told apart as do not come by themselves
                excess = (share - chance) / (share * (1 - chance))
                same &= random.random(len(same)) < excess
                again = learn_category(full[asked], same[asked].astype(np.int64))
                other = np.flatnonzero(following & ~same)
                if len(other) >= _LEAST_ROWS:
                    sub = _some(other, random)
                    value = _learn_later(full, values, look, before, sub)
    else:
        full = np.concatenate([features, lags], axis=1)
        sub = _some(np.flatnonzero(known), random)
        value = learn_category(full[sub], values[sub].astype(np.int64))
    lagged = daily or again is not None or _uses_lags(value, full.shape[1])
    begins = np.flatnonzero(known & ~np.isfinite(lags).any(axis=1))
    first = None
    if lagged and not category and len(begins) >= _LEAST_ROWS:
        look = look_at(values[known], owner[known])
        first = learn_number(full[begins], values[begins], look, (), _PATIENTLY)
    return Series(kind, copied, others, null, again, value, first, level, daily, lagged)


def _learn_later(
    full: Floats, values: Floats, look: Look, before: Floats | None, rows: Ints
) -> Conditional:
    plain = learn_number(full[rows], values[rows], look)
    if before is None or not _uses_lags(plain, full.shape[1]):
        return plain
    return learn_number(full[rows], values[rows], look, (), _STEPWISE, before[rows])


def _followed(features: Floats) -> Floats:
    """Return what a value moves along with, float64[n, k]: those before and the usual level.

    ``features`` end with the level and the lags.
    """
    level = features[:, -_LAGS - 1]
    last = np.where(np.isfinite(features[:, -_LAGS]), features[:, -_LAGS], level)
    lags = [np.where(np.isfinite(lag), lag, last) for lag in features[:, -_LAGS:].T]
    return np.stack([*lags, level], axis=1)


def _uses_lags(value: Conditional, width: int) -> bool:
    return any(value.tree.uses(width - lag) for lag in range(1, _LAGS + 1))


def _today(frame: Frame, rows: Ints) -> Bools:
    """Say which of rows of one kind are of the same entity and day as the one before."""
    owner, day = frame.owner[rows], frame.time[rows] // DAY
    today = np.zeros(len(rows), bool)
    today[1:] = (owner[1:] == owner[:-1]) & (day[1:] == day[:-1])
    return today


_REPEATS = 0.005
_STEPWISE = 5.0
_PATIENTLY = 8.0
"""What an entity's usual level depends on is worth more splits than it can prove one by one."""


def _some(rows: Ints, random: np.random.Generator) -> Ints:
    if len(rows) <= _MOST_ROWS:
        return rows
    return np.sort(random.choice(rows, _MOST_ROWS, replace=False))


def _lags(owner: Ints, values: Floats) -> Floats:
    """Return the value before, the one before that and the mean of all before, -inf for none."""
    lags = np.full((len(values), _LAGS), -np.inf)
    for lag in (1, 2):
        same = owner[lag:] == owner[:-lag]
        lags[lag:, lag - 1] = np.where(same, _known(values[:-lag]), -np.inf)
    filled, have = np.nan_to_num(values), (~np.isnan(values)).astype(np.float64)
    first = np.searchsorted(owner, owner)
    total, count = np.cumsum(filled) - filled, np.cumsum(have) - have
    total, count = total - total[first], count - count[first]
    lags[:, 2] = np.where(count > 0, total / np.maximum(count, 1), -np.inf)
    return lags


def _partner(frame: Frame, values: Floats, kind: int, other: int) -> Floats:
    """Return for each row of ``kind`` the value of ``other`` at the same time, NaN for none.

    The n-th of a kind at one time goes with the n-th of the other.
    """
    rows, partners = (_numbered(frame, one) for one in (kind, other))
    place = np.searchsorted(partners[1], rows[1])
    place = np.minimum(place, max(len(partners[1]) - 1, 0))
    if not len(partners[1]):
        return np.full(len(rows[1]), np.nan)
    there = partners[1][place] == rows[1]
    return np.where(there, values[partners[0][place]], np.nan)


def _numbered(frame: Frame, kind: int) -> tuple[Ints, Ints]:
    rows = np.flatnonzero(frame.kind == kind)
    event = frame.event[rows]
    number = np.arange(len(rows)) - np.searchsorted(event, event)
    return rows, event * (1 << 20) + number


def _copied(frame: Frame, values: Floats, kind: int, before: Sequence[int]) -> int | None:
    rows = np.flatnonzero(frame.kind == kind)
    for other in before[:_OTHERS]:
        partner = _partner(frame, values, kind, other)
        both = ~np.isnan(partner)
        if both.sum() < max(_LEAST_ROWS, 0.5 * len(rows)):
            continue
        if (partner[both] == values[rows][both]).mean() >= _SAME and np.ptp(partner[both]) > 0:
            return other
    return None


def draw_column(
    frame: Frame,
    series: Sequence[Series],
    earlier: Sequence[Floats],
    seeds: Sequence[bytes],
    name: str,
) -> Floats:
    """Return a column of the frame, float64[n], NaN for NULL."""
    per = np.bincount(frame.owner, minlength=len(seeds))
    chance = uniforms(seeds, name, 3 * per).reshape(-1, 3)
    values = np.full(len(frame.owner), np.nan)
    for one in series:
        rows = np.flatnonzero(frame.kind == one.kind)
        if not len(rows):
            continue
        partner = np.full(len(rows), np.nan)
        if one.copied is not None:
            partner = _partner(frame, values, one.kind, one.copied)
        own = np.isnan(partner)
        values[rows] = partner
        if not own.any():
            continue
        features = np.concatenate(
            [frame.features(rows, earlier), frame.of_others(rows, values, one.others)], axis=1
        )
        left, owner = rows[own], frame.owner[rows[own]]
        first = np.ones(len(left), bool)
        first[1:] = owner[1:] != owner[:-1]
        values[left] = one.draw(features[own], first, _today(frame, left), chance[left])
    return values


def numbers_of(column: Column, time: Column | None) -> Floats:
    """Return a column's values as numbers, times as the distance to ``time``; NaN for NULL.

    In days where both are dates, in microseconds otherwise.
    """
    values: Floats = column.values.astype(np.float64)
    valid = column.valid
    if column.kind in (ColumnKind.DATE, ColumnKind.TIMESTAMP) and time is not None:
        valid = valid & time.valid
        if column.kind is ColumnKind.DATE and time.kind is ColumnKind.DATE:
            values = (column.values - time.values).astype(np.float64)
        elif column.kind is ColumnKind.DATE:
            values = (column.values - microseconds(time) // DAY).astype(np.float64)
        else:
            values = (column.values - microseconds(time)).astype(np.float64)
    return np.where(valid, values, np.nan)


def column_of(values: Floats, like: Column, time: Column | None) -> Column:
    """Return what ``numbers_of`` turned into numbers as a column like ``like``."""
    valid = ~np.isnan(values)
    plain = np.nan_to_num(values)
    if like.kind is ColumnKind.NUMBER:
        return Column(like.name, like.kind, plain, valid)
    whole = np.rint(plain).astype(np.int64)
    if like.kind is not ColumnKind.CATEGORY and time is not None:
        base = microseconds(time)
        whole = whole + (base // DAY if like.kind is ColumnKind.DATE else base)
    return Column(like.name, like.kind, whole, valid, like.categories)


def _known(values: Floats) -> Floats:
    return np.where(np.isnan(values), -np.inf, values)


def reordered(column: Column, order: Ints) -> Column:
    """Return a column of sorted rows in the order before sorting."""
    values, valid = np.empty_like(column.values), np.empty_like(column.valid)
    values[order], valid[order] = column.values, column.valid
    return Column(column.name, column.kind, values, valid, column.categories)


def times(happening: Happening, zero: Ints, like: Column) -> Column:
    """Return the column that says when rows happened, ``zero`` being the dates of days 0."""
    micro = happening.time + zero[happening.owner] * DAY
    values = micro // DAY if like.kind is ColumnKind.DATE else micro
    return Column(like.name, like.kind, values, happening.timed, like.categories)


def kinds(happening: Happening, like: Column) -> Column:
    """Return the column that says what rows are."""
    known = happening.kind >= 0
    return Column(like.name, like.kind, np.maximum(happening.kind, 0), known, like.categories)


def sample_like(like: Sample, columns: Sequence[Column], parent: Ints) -> Sample:
    """Return a sample of the same relation."""
    return Sample(like.name, tuple(columns), like.parent, parent)
