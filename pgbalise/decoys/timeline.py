"""Which rows an entity has and when: histories put together from pieces of real ones.

A history is the sequence of days on which something happened. A new one begins as somebody's and,
after any day, may go on as somebody else's who had come to the same state: the same dates of the
entity behind them, the same events that happen once, about as many days and as much time to come.
Whatever happens on one day stays together, so rows that come together do; the days between and the
times of day are moved among their neighbours in rank. Values are not taken over: see ``rows``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgbalise.decoys.columns import ColumnKind, Sample
from pgbalise.decoys.layout import DAY, Layout, microseconds, owners
from pgbalise.decoys.number_looks import FEWEST, Pool, pool
from pgbalise.decoys.uniforms import uniform_table, uniforms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_CROSSING = 0.08
"""How likely a history is to go on as another one after a day."""
_GAP_WIDTH = 0.015
_LENGTH_WIDTH = 0.01
_EDIT = 0.04
"""How likely an ordinary day is left out, and as likely it happens twice."""
_LONG = 60
"""Days of a wait that another day may lie in."""
_WEEK = 7
_UNEVEN = 0.7
_CLOCK_WIDTH = 0.15
_LEAST_POOL = 100
_ONCE = 1.5
"""Rows per entity having any below which a kind is one that happens once."""
_TRACKED = 24
"""Kinds of rows that are counted per entity."""


@dataclass(frozen=True)
class Happening:
    """When the rows of one sample happened and what they are.

    ``owner`` and ``parent`` int64[n] are rows of the entity and of the sample above; ``kind``
    int64[n], -1 for none; ``time`` int64[n] microseconds since the beginning of the owner's day 0,
    where ``timed``.
    """

    owner: Ints
    parent: Ints
    kind: Ints
    time: Ints
    timed: Bools


@dataclass(frozen=True)
class Histories:
    """Histories of some entities: their rows' happenings, one per sample (None for the entity's).

    Days count from the first of the entity's marks, or from the first day where it has none.
    ``marks`` float64[n, marks], NaN for none. ``first`` and ``last`` days, and how many days
    something happened on, ``days``, float64[n]. ``weekday`` int64[n] is that of day 0 modulo 7, as
    days since 1970-01-01 count.
    """

    marks: Floats
    first: Floats
    last: Floats
    days: Floats
    weekday: Ints
    happenings: tuple[Happening | None, ...]

    def features(self, tracked: Sequence[tuple[int, int]]) -> Floats:
        """Return numbers about each history, float64[n, f], -inf for unknown.

        ``tracked`` are kinds of rows, as sample and kind; each gives how many there are and the
        day of the first.
        """
        count = len(self.first)
        marks = np.where(np.isnan(self.marks), -np.inf, self.marks)
        columns = [self.first, self.last, self.days, *marks.T[1:]]
        for place, kind in tracked:
            happening = self.happenings[place]
            assert happening is not None
            chosen = happening.kind == kind
            owner = happening.owner[chosen]
            columns.append(np.bincount(owner, minlength=count).astype(np.float64))
            earliest = np.full(count, np.inf)
            np.minimum.at(
                earliest,
                owner[happening.timed[chosen]],
                (happening.time[chosen] // DAY)[happening.timed[chosen]].astype(np.float64),
            )
            columns.append(np.where(np.isinf(earliest), -np.inf, earliest))
        return np.stack(columns, axis=1)

    def endings(self, tracked: Sequence[tuple[int, int]]) -> Floats:
        """Return how long before the last day each kind last happened, float64[n, kinds].

        Days, negative before it; -inf where it never did. ``tracked`` are kinds of rows, as sample
        and kind.
        """
        found = np.full((len(self.last), len(tracked)), -np.inf)
        for column, (place, kind) in enumerate(tracked):
            happening = self.happenings[place]
            assert happening is not None
            chosen = (happening.kind == kind) & happening.timed
            day = (happening.time[chosen] // DAY).astype(np.float64)
            np.maximum.at(found[:, column], happening.owner[chosen], day)
        return found - self.last[:, None]


@dataclass(frozen=True)
class _Pieces:
    """Rows of a sample, by what they hang on: ``starts`` int64[m + 1] into the other arrays."""

    starts: Ints
    kind: Ints
    clock: Ints
    timed: Bools
    pools: tuple[Pool, ...]
    pool_of: Ints
    dated: bool


@dataclass(frozen=True)
class Timeline:
    """Days of real histories, one after the other; ``draw`` makes new ones of them.

    Day p of all has ``gap`` days since the one before, bits ``mark`` for the entity's dates on it,
    and ``group``, to which every day after which one may go on belongs. A stretch goes from one of
    the entity's dates to the next: ``ahead`` is how much of it is to come, and its length is moved
    within the pool ``length_of`` the day that ends it. ``stretches`` are the lengths of all, those
    of entity i from ``stretch_starts[i]``; ``weekday`` is that of each day. On an ``ordinary`` day
    nothing happened that happens once.
    """

    first_day: Ints
    end: Ints
    gap: Floats
    gap_pools: tuple[Pool, ...]
    gap_pool_of: Ints
    mark: Ints
    marks: int
    group: Ints
    group_starts: Ints
    group_days: Ints
    ahead: Floats
    lengths: tuple[Pool, ...]
    length_of: Ints
    stretch_starts: Ints
    stretches: Floats
    weekday: Ints
    ordinary: Bools
    parents: tuple[int | None, ...]
    pieces: tuple[_Pieces | None, ...]
    longest: int

    def draw(self, seeds: Sequence[bytes], fixed: Sequence[bytes]) -> Histories:
        """Return a history per seed; what happens comes from ``fixed``, when from ``seeds``."""
        entity, who, day, wanted = self._walk(fixed)
        who, day, wanted, whole = self._edited(fixed, who, day, wanted)
        count = len(seeds)
        lengths = np.bincount(who, minlength=count)
        begin = np.cumsum(lengths) - lengths
        gap = self._gaps(seeds, entity, who, day, wanted, whole, begin)
        total = np.cumsum(gap)
        at = total - np.repeat(total[begin], lengths)
        marks = np.full((count, self.marks), np.nan)
        for place in range(self.marks):
            rows = np.flatnonzero(self.mark[day] >> place & 1)
            marks[who[rows], place] = at[rows]
        anchor = np.nan_to_num(marks[:, 0]) if self.marks else np.zeros(count)
        at -= anchor[who]
        weekday = (self.weekday[day[begin]] - at[begin].astype(np.int64)) % _WEEK
        marks -= anchor[:, None]
        happenings: list[Happening | None] = [None]
        taken: list[Ints] = [np.zeros(0, np.int64)]
        for place, piece in enumerate(self.pieces):
            parent = self.parents[place]
            if piece is None or parent is None:
                continue
            above = happenings[parent]
            if above is None:
                hooks = _Hooks(day, who, at.astype(np.int64) * DAY)
            else:
                hooks = _Hooks(taken[parent], above.owner, above.time)
            happening, rows = _expand(piece, seeds, f"clock {place}", hooks, above is not None)
            happenings.append(happening)
            taken.append(rows)
        return Histories(
            marks,
            at[begin],
            at[begin + lengths - 1],
            lengths.astype(np.float64),
            weekday,
            tuple(happenings),
        )

    def _gaps(
        self,
        seeds: Sequence[bytes],
        entity: Ints,
        who: Ints,
        day: Ints,
        wanted: Floats,
        kept: Floats,
        begin: Ints,
    ) -> Floats:
        """Return whole days between one day and the next, float64[n]; the first of each is 0."""
        count = len(seeds)
        chance = uniforms(seeds, "gaps", 2 * np.bincount(who, minlength=count)).reshape(-1, 2)
        gap = np.zeros(len(day))
        first = np.zeros(len(day), bool)
        first[begin] = True
        for place, gaps in enumerate(self.gap_pools):
            rows = np.flatnonzero((self.gap_pool_of[day] == place) & ~first)
            if len(rows):
                gap[rows] = gaps.moved(wanted[rows], _GAP_WIDTH, *chance[rows].T)
        # A stretch ends with a day that has a mark, or with the history.
        closing = self.mark[day] > 0
        closing[np.append(begin[1:], len(day)) - 1] = True
        stretch: Ints = np.cumsum(closing) - closing
        ends = np.flatnonzero(closing)
        # A history's stretches are as long as those of the one it began as, whoever it went on as.
        length: Floats = np.bincount(stretch, wanted).astype(np.float64)
        number = np.arange(len(ends)) - np.searchsorted(who[ends], who[ends])
        began = self.stretch_starts[entity[who[ends]]] + number
        own = began < self.stretch_starts[entity[who[ends]] + 1]
        length[own] = np.where(length[own] > 0, self.stretches[began[own]], 0)
        got = np.bincount(stretch, gap)
        per = np.bincount(who[ends], minlength=count)
        chance = uniforms(seeds, "stretches", 2 * per).reshape(-1, 2)
        for place, pooled in enumerate(self.lengths):
            rows = np.flatnonzero((self.length_of[day[ends]] == place) & (length > 0))
            if len(rows):
                length[rows] = pooled.moved(length[rows], _LENGTH_WIDTH, *chance[rows].T)
        gap *= (length / np.maximum(got, 1e-9))[stretch]
        # Who comes every Tuesday still does: gaps change by whole weeks.
        gap = kept + _WEEK * np.rint((gap - kept) / _WEEK)
        whole: Floats = np.where(gap < 1, gap + _WEEK * np.ceil((1 - gap) / _WEEK), gap)
        whole[begin] = 0
        return whole

    def _edited(
        self, seeds: Sequence[bytes], who: Ints, day: Ints, since: Floats
    ) -> tuple[Ints, Ints, Floats, Floats]:
        """Return days with some left out and some happening twice, and the whole days between.

        Else whoever is like a decoy in what happened, kind by kind, would be whom it began as.
        """
        chance = uniforms(seeds, "edits", 2 * np.bincount(who, minlength=len(seeds))).reshape(-1, 2)
        first = np.ones(len(who), bool)
        first[1:] = who[1:] != who[:-1]
        last = np.append(first[1:], True)
        whole = self.gap[day].copy()
        free = self.ordinary[day] & ~first & ~last
        left_out = free & (chance[:, 0] < _EDIT)
        twice = free & (chance[:, 0] > 1 - _EDIT) & (whole > _LONG)
        # what a day left out had before it comes before the next one that stays
        stays = np.flatnonzero(~left_out)
        into = np.searchsorted(stays, np.arange(len(who)))
        since = np.bincount(into, since).astype(np.float64)
        whole = np.bincount(into, whole).astype(np.float64)
        who, day, share = who[stays], day[stays], chance[stays, 1]
        place = np.repeat(np.arange(len(stays)), 1 + twice[stays])
        again = np.zeros(len(place), bool)
        again[1:] = place[1:] == place[:-1]
        doubled = twice[stays][place]
        # about halfway, by whole weeks: as short as any, waits would tell
        part = (_WEEK * np.rint(whole * (0.3 + 0.4 * share) / _WEEK))[place]
        parts = np.where(doubled, np.where(again, whole[place] - part, part), whole[place])
        ratio = np.where(doubled, parts / np.maximum(whole[place], 1), 1.0)
        return who[place], day[place], since[place] * ratio, parts

    def _walk(self, seeds: Sequence[bytes]) -> tuple[Ints, Ints, Ints, Floats]:
        """Return as whom histories begin, and their days: whose, which, and how long since."""
        turns = self.longest
        chance = uniform_table(seeds, "walk", 1 + 2 * turns)
        active = np.arange(len(seeds))
        entity = (chance[:, 0] * len(self.first_day)).astype(np.int64)
        day = self.first_day[entity]
        scale = np.ones(len(seeds))
        whose, which, since = [], [], []
        turn = 0
        while len(active):
            whose.append(active)
            which.append(day)
            since.append(self.gap[day] * scale)
            scale = np.where(self.mark[day] > 0, 1.0, scale)
            if turn < turns:
                group = self.group[day]
                crossing = (chance[active, 1 + 2 * turn] < _CROSSING) & (group >= 0)
                start, stop = self.group_starts[group], self.group_starts[group + 1]
                place = start + (chance[active, 2 + 2 * turn] * (stop - start)).astype(np.int64)
                other = np.where(crossing, self.group_days[np.where(crossing, place, 0)], day)
                # the rest of the stretch takes as long as it would have
                scale = scale * self.ahead[day] / np.maximum(self.ahead[other], 1)
                scale = np.where(self.ahead[other] > 0, scale, 1.0)
                day = other
            going = day < self.end[day]
            active, day, scale = active[going], day[going] + 1, scale[going]
            turn += 1
        who, days, waits = np.concatenate(whose), np.concatenate(which), np.concatenate(since)
        order = np.argsort(who, kind="stable")
        return entity, who[order], days[order], waits[order]


@dataclass(frozen=True)
class _Hooks:
    """What rows hang on, in the order of entities: place among the pieces, whose, and when."""

    place: Ints
    owner: Ints
    time: Ints


def _expand(
    piece: _Pieces, seeds: Sequence[bytes], name: str, hooks: _Hooks, nested: bool
) -> tuple[Happening, Ints]:
    """Return what hangs on the hooks, sorted by that and time, and which rows it was."""
    start = piece.starts[hooks.place]
    counts = piece.starts[hooks.place + 1] - start
    hook = np.repeat(np.arange(len(hooks.place)), counts)
    rows = np.repeat(start - (np.cumsum(counts) - counts), counts) + np.arange(len(hook))
    owner = hooks.owner[hook]
    clock = piece.clock[rows]
    # Rows of one hook at one time are one event, and are moved together.
    fresh = np.ones(len(rows), bool)
    fresh[1:] = (hook[1:] != hook[:-1]) | (clock[1:] != clock[:-1])
    event = np.cumsum(fresh) - 1
    events = np.flatnonzero(fresh)
    moved = clock[events].astype(np.float64)
    if not piece.dated or nested:
        per = np.bincount(owner[events], minlength=len(seeds))
        chance = uniforms(seeds, name, 2 * per).reshape(-1, 2)
        for place, clocks in enumerate(piece.pools):
            which = np.flatnonzero(piece.pool_of[rows[events]] == place)
            if len(which):
                moved[which] = clocks.moved(moved[which], _CLOCK_WIDTH, *chance[which].T)
    unit = DAY if piece.dated else 1
    time = hooks.time[hook] + np.rint(moved[event] / unit).astype(np.int64) * unit
    timed = piece.timed[rows]
    kind = piece.kind[rows]
    parent = hook if nested else owner
    order = np.lexsort((kind, time, parent))
    found = Happening(owner[order], parent[order], kind[order], time[order], timed[order])
    return found, rows[order]


def fit_timeline(samples: Sequence[Sample], layout: Layout) -> tuple[Timeline, Histories, Ints]:
    """Return what new histories are made of, the real ones, and the date of each one's day 0.

    The dates are days since 1970-01-01, int64[entities].
    """
    count = len(samples[0])
    owner = owners(samples)
    at = [_times(sample, layout.time[place]) for place, sample in enumerate(samples)]
    marks = [samples[0].columns[place] for place in layout.marks]
    mark_day = np.full((count, len(marks)), np.nan)
    for place, column in enumerate(marks):
        mark_day[column.valid, place] = (microseconds(column) // DAY)[column.valid]
    whose, when = _days(samples, owner, at, mark_day)
    starts = np.searchsorted(whose, np.arange(count + 1))
    bits = np.zeros(len(when), np.int64)
    for place in range(len(marks)):
        known = ~np.isnan(mark_day[:, place])
        rows = _find(whose, when, np.flatnonzero(known), mark_day[known, place].astype(np.int64))
        bits[rows] |= 1 << place
    zero = when[starts[:-1]].copy()
    if marks:
        known = ~np.isnan(mark_day[:, 0])
        zero[known] = mark_day[known, 0].astype(np.int64)

    happenings: list[Happening | None] = [None]
    pieces: list[_Pieces | None] = [None]
    order_of: list[Ints] = [np.arange(count)]
    for place, sample in enumerate(samples[1:], start=1):
        assert sample.parent is not None
        time, timed = at[place]
        chosen = layout.kind[place]
        kind = np.full(len(sample), -1, np.int64)
        if chosen is not None:
            column = sample.columns[chosen]
            kind = np.where(column.valid, column.values.astype(np.int64), -1)
        nested = sample.parent != 0
        if nested:
            base, known = at[sample.parent]
            # the rows above stand in another order among the pieces
            inverse = np.empty(len(samples[sample.parent]), np.int64)
            inverse[order_of[sample.parent]] = np.arange(len(inverse))
            hook, hooks = inverse[sample.parent_row], len(inverse)
            from_above = base[sample.parent_row]
            timed = timed & known[sample.parent_row]
        else:
            first = when[starts[:-1]][owner[place]]
            day = np.where(timed, time // DAY, first)
            hook, hooks = _find(whose, when, owner[place], day), len(when)
            from_above = day * DAY
        clock = np.where(timed, time - from_above, 0)
        order = np.lexsort((kind, clock, hook))
        order_of.append(order)
        column_time = layout.time[place]
        dated = column_time is None or sample.columns[column_time].kind is ColumnKind.DATE
        pools, pool_of = _pools(clock.astype(np.float64), kind, owner[place])
        pieces.append(
            _Pieces(
                np.searchsorted(hook[order], np.arange(hooks + 1)),
                kind[order],
                clock[order],
                timed[order],
                pools,
                pool_of[order],
                dated,
            )
        )
        begin = np.where(timed, time, from_above) - zero[owner[place]] * DAY
        happenings.append(Happening(owner[place], sample.parent_row, kind, begin, timed))

    gap = np.zeros(len(when))
    gap[1:] = when[1:] - when[:-1]
    gap[starts[:-1]] = 0
    gap_pools, gap_pool_of = _pools(gap, bits, whose, gap > 0)
    ahead, stretch_length, closing = _stretches(when, starts, bits, gap)
    ends = np.flatnonzero(closing)
    lengths, length_of = _pools(stretch_length, bits, whose, stretch_length > 0)
    behind, ordinary = _behind(whose, when, starts, bits, happenings, zero)
    group, group_starts, group_days = _groups(whose, when, starts, behind, gap, ahead)
    timeline = Timeline(
        starts[:-1],
        np.repeat(starts[1:] - 1, np.diff(starts)),
        gap,
        gap_pools,
        gap_pool_of,
        bits,
        len(marks),
        group,
        group_starts,
        group_days,
        ahead,
        lengths,
        length_of,
        np.searchsorted(whose[ends], np.arange(count + 1)),
        stretch_length[ends],
        when % _WEEK,
        ordinary,
        tuple(sample.parent for sample in samples),
        tuple(pieces),
        int(np.diff(starts).max()),
    )
    histories = Histories(
        mark_day - zero[:, None],
        (when[starts[:-1]] - zero).astype(np.float64),
        (when[starts[1:] - 1] - zero).astype(np.float64),
        np.diff(starts).astype(np.float64),
        zero % _WEEK,
        tuple(happenings),
    )
    return timeline, histories, zero


def _times(sample: Sample, place: int | None) -> tuple[Ints, Bools]:
    if place is None:
        return np.zeros(len(sample), np.int64), np.zeros(len(sample), bool)
    column = sample.columns[place]
    return np.where(column.valid, microseconds(column), 0), column.valid


def _days(
    samples: Sequence[Sample],
    owner: Sequence[Ints],
    at: Sequence[tuple[Ints, Bools]],
    mark_day: Floats,
) -> tuple[Ints, Ints]:
    """Return the distinct days of each entity, ascending; each entity has one at least."""
    whose, when = [], []
    for place, sample in enumerate(samples):
        if sample.parent == 0:
            time, timed = at[place]
            whose.append(owner[place][timed])
            when.append(time[timed] // DAY)
    for column in mark_day.T:
        known = ~np.isnan(column)
        whose.append(np.flatnonzero(known))
        when.append(column[known].astype(np.int64))
    who, days = np.concatenate([*whose, owner[0][:0]]), np.concatenate([*when, owner[0][:0]])
    bare = np.setdiff1d(owner[0], who)
    usual = int(np.median(days)) if len(days) else 0
    who, days = np.append(who, bare), np.append(days, np.full(len(bare), usual))
    pairs = np.unique(np.stack([who, days], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _find(whose: Ints, when: Ints, who: Ints, day: Ints) -> Ints:
    """Return the places of days among the sorted ones of all."""
    low, high = int(when.min()), int(when.max())
    width = high - low + 1
    return np.searchsorted(whose * width + (when - low), who * width + (day - low))


def _pools(
    values: Floats, label: Ints, owner: Ints, usable: Bools | None = None
) -> tuple[tuple[Pool, ...], Ints]:
    """Return a pool of all values, one for each frequent label, and which one each row is of."""
    if usable is None:
        usable = np.ones(len(values), bool)
    if not usable.any():
        return (), np.zeros(len(values), np.int64)
    pools = [pool(values[usable], owner[usable])]
    pool_of = np.zeros(len(values), np.int64)
    for one in np.unique(label[usable]).tolist():
        rows = usable & (label == one)
        if rows.sum() >= _LEAST_POOL:
            pool_of[rows] = len(pools)
            pools.append(pool(values[rows], owner[rows]))
    return tuple(pools), pool_of


def _stretches(when: Ints, starts: Ints, bits: Ints, gap: Floats) -> tuple[Floats, Floats, Bools]:
    """Return days of its stretch to come after each day, its length where one ends, and where."""
    closing = bits > 0
    closing[starts[1:] - 1] = True
    ends = np.flatnonzero(closing)
    ending = ends[np.searchsorted(ends, np.arange(len(when)) + 1).clip(max=len(ends) - 1)]
    ahead = (when[ending] - when).astype(np.float64)
    ahead[starts[1:] - 1] = 0
    stretch: Ints = np.cumsum(closing) - closing
    length = np.zeros(len(when))
    length[ends] = np.bincount(stretch, gap)
    return ahead, length, closing


def _groups(
    whose: Ints, when: Ints, starts: Ints, behind: Ints, gap: Floats, ahead: Floats
) -> tuple[Ints, Ints, Ints]:
    """Return the group of each day, -1 for none, and the days of each group as starts and days.

    After any day of a group, what is behind and roughly how much is to come is the same.
    """
    number = np.arange(len(when)) - starts[whose]
    left = starts[whose + 1] - 1 - np.arange(len(when))
    remaining = (when[starts[whose + 1] - 1] - when).astype(np.float64)
    state = [
        np.rint(2.5 * np.log2(left + 1)).astype(np.int64),
        np.rint(1.2 * np.log2(remaining + 1)).astype(np.int64),
        np.rint(1.2 * np.log2(ahead + 1)).astype(np.int64),
        np.rint(np.log2(number + 1)).astype(np.int64),
        np.rint(np.log2(gap + 1) / 2).astype(np.int64),
        behind,
    ]
    shares = np.bincount(when % _WEEK, minlength=_WEEK) / len(when)
    if shares.min() < _UNEVEN / _WEEK:
        # a place where weekends differ: nobody goes on from a Tuesday as from a Friday
        state.append(when % _WEEK)
    _, group = np.unique(np.stack(state, axis=1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    pairs = np.unique(np.stack([group, whose], axis=1), axis=0)
    entities = np.bincount(pairs[:, 0], minlength=int(group.max()) + 1)
    allowed = (entities[group] >= FEWEST) & (left > 0)
    _, compact = np.unique(group[allowed], return_inverse=True)
    found = np.full(len(group), -1, np.int64)
    found[allowed] = compact
    days = np.flatnonzero(allowed)[np.argsort(compact, kind="stable")]
    group_starts = np.searchsorted(found[days], np.arange(int(compact.max(initial=-1)) + 2))
    return found, np.append(group_starts, len(days)), np.append(days, 0)


def _behind(
    whose: Ints,
    when: Ints,
    starts: Ints,
    bits: Ints,
    happenings: Sequence[Happening | None],
    zero: Ints,
) -> tuple[Ints, Bools]:
    """Return a number for the entity's dates and the once-only behind each day; which have none."""
    once: list[tuple[Ints, Ints]] = []
    ordinary = bits == 0
    for place in range(int(bits.max(initial=0)).bit_length()):
        rows = np.flatnonzero(bits >> place & 1)
        once.append((whose[rows], rows))
    for happening in happenings:
        if happening is None or not happening.timed.any():
            continue
        day = happening.time // DAY + zero[happening.owner]
        inside = happening.timed & (day >= when[starts[happening.owner]])
        inside &= day <= when[starts[happening.owner + 1] - 1]
        for kind in np.unique(happening.kind[inside]).tolist():
            rows = np.flatnonzero(inside & (happening.kind == kind))
            holders = len(np.unique(happening.owner[rows]))
            if kind >= 0 and len(rows) < _ONCE * holders:
                earliest = np.full(len(starts) - 1, np.iinfo(np.int64).max)
                np.minimum.at(earliest, happening.owner[rows], day[rows])
                having = np.flatnonzero(earliest < np.iinfo(np.int64).max)
                ordinary[_find(whose, when, happening.owner[rows], day[rows])] = False
                once.append((having, _find(whose, when, having, earliest[having])))
    mixed = np.random.default_rng(0).integers(1 << 62, size=len(once))
    total = np.zeros(len(when), np.int64)
    for (_, rows), number in zip(once, mixed, strict=True):
        np.add.at(total, rows, number)
    running = np.cumsum(total)  # wraps around, which does no harm to a difference
    before = np.where(starts[:-1] > 0, running[starts[:-1] - 1], 0)
    return running - before[whose], ordinary
