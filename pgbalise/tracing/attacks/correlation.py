"""What the data's own regularities tell a thief about marks.

The attack of T. Ji, E. Ayday, E. Yilmaz and P. Li ("The Curse of Correlations for Robust
Fingerprinting of Relational Databases", RAID 2021): who knows how columns go together, and rows,
looks for cells that are improbable given the others and sets them to what is probable. Here the
thief knows the policy too, so only values one quantum away come into question, and is given the
joint distributions of the unmarked data, which is more than any real thief has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.frames import one_chunk
from pgbalise.marking.embedding import Column
from pgbalise.marking.policy import Carrier, Relation
from pgbalise.marking.types import Kind
from pgbalise.tracing.attacks.cells import groups, quanta, read, write
from pgbalise.tracing.attacks.damage import present, share_of

Codes = NDArray[np.int64]

_BINS = 16
"""Quantiles that a column of numbers is cut into where it tells about another."""
_COMMON = 48
"""Most frequent texts of a column that count each for itself."""
_TELLING = 0.5
"""A column of texts is looked at if those cover this share of its rows."""
_MOST_VALUES = 4096
"""A carrier with more distinct values (a time to the millisecond) has no distribution to know."""
_BACKING = 4.0
"""Rows of the general distribution that smooth each conditional one."""
_WORTH = 0.002
"""Nats per cell below which a column tells nothing about another."""
_REACH = 64
"""Differences between related rows are told apart up to so many quanta."""
_LEVEL = 48
"""The bit from which a value's number says which tolerance it has."""
_RELATED = (1.5, 500.0)
"""Rows with the same value of a column are related if that many have it on average."""


@dataclass(frozen=True, eq=False)
class _Bins:
    """How another column's texts become few codes."""

    column: str
    edges: NDArray[np.float64] | None
    common: pa.Array | None

    @classmethod
    def fit(cls, table: pa.Table, name: str) -> _Bins | None:
        text = one_chunk(table.column(name))
        counts = pc.value_counts(text.drop_null())
        numbers, read = _as_numbers(text)
        if len(counts) > _COMMON and read.sum() >= 0.9 * (len(text) - text.null_count):
            inner = np.quantile(numbers[read], np.linspace(0, 1, _BINS + 1)[1:-1])
            return cls(name, np.unique(inner), None)
        number = np.asarray(counts.field("counts"))
        top = np.argsort(-number, kind="stable")[:_COMMON]
        if not len(text) or number[top].sum() < _TELLING * len(text):
            return None
        return cls(name, None, counts.field("values").take(pa.array(top)))

    @property
    def size(self) -> int:
        edges, common = self.edges, self.common
        return 2 + (len(edges) if edges is not None else len(common) if common is not None else 0)

    def codes(self, table: pa.Table) -> Codes:
        """Return int64[n] below ``size``; the last is for NULL and what is neither."""
        text = one_chunk(table.column(self.column))
        if self.edges is not None:
            numbers, read = _as_numbers(text)
            found = np.searchsorted(self.edges, numbers, "right")
            return np.where(read, found, self.size - 1)
        index = pc.index_in(text, value_set=self.common, skip_nulls=True)
        other = pc.if_else(text.is_valid(), self.size - 2, self.size - 1)
        return np.asarray(pc.coalesce(index, pc.cast(other, pa.int32()))).astype(np.int64)


def _as_numbers(text: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Numbers, or days of dates and timestamps, and where there is one."""
    plain = pc.match_substring_regex(text, r"^[+-]?[0-9]{1,15}(\.[0-9]{1,15})?$")
    numbers = pc.cast(pc.if_else(plain, text, None), pa.float64())
    if numbers.null_count == len(text):
        iso = pc.match_substring_regex(text, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}")
        day = pc.if_else(iso, pc.utf8_slice_codeunits(text, 0, 10), None)
        seconds = pc.strptime(day, format="%Y-%m-%d", unit="s", error_is_null=True)
        numbers = pc.cast(pc.cast(seconds, pa.int64()), pa.float64())
    return np.asarray(pc.fill_null(numbers, 0.0)), np.asarray(numbers.is_valid())


@dataclass(frozen=True, eq=False)
class _Kin:
    """How a carrier's values differ between related rows."""

    column: str
    """Rows are related that agree in it and in what the carrier goes by."""
    log_share: NDArray[np.float64]
    """Of differences -_REACH - 1 to _REACH + 1 in quanta; the ends stand for all beyond."""

    def order(self, table: pa.Table, column: Column) -> tuple[Codes, NDArray[np.bool_]]:
        """Return rows such that related ones stand side by side, and whether each pair is."""
        key = _encoded(table, self.column)
        group = _numbered([key] if column.by is None else [key, column.by])
        rows = np.flatnonzero(column.valid & (key >= 0))
        rows = rows[np.argsort(group[rows], kind="stable")]
        return rows, group[rows][1:] == group[rows][:-1]


def _numbered(keys: Sequence[Codes]) -> Codes:
    """Number the distinct rows of several arrays of codes."""
    group = np.zeros(len(keys[0]), np.int64)
    for key in keys:
        low = int(key.min(initial=0))
        # numbered anew each time, so that the numbers stay small
        _, group = np.unique(
            group * (int(key.max(initial=0)) - low + 1) + key - low, return_inverse=True
        )
    return group.astype(np.int64)


@dataclass(frozen=True, eq=False)
class _Model:
    """What is known of one carrier."""

    carrier: Carrier
    known: Codes
    """The (tolerance, value in quanta) pairs that occur, as one number each, sorted."""
    bins: tuple[_Bins, ...]
    counts: NDArray[np.float64]
    """float64[len(known)]"""
    totals: NDArray[np.float64]
    """The same, summed by tolerance."""
    joint: tuple[NDArray[np.float64], ...]
    """For each of ``bins``: float64[len(known), bins.size]"""
    joint_totals: tuple[NDArray[np.float64], ...]
    kin: tuple[_Kin, ...]
    own: Codes
    """Each row of the table it was learned from, as index into ``known``, or -1."""


class Correlations:
    """What is known of a relation: how its carriers go with other columns and with other rows."""

    def __init__(self, models: Sequence[_Model]) -> None:
        self._models = {model.carrier.column: model for model in models}

    @classmethod
    def learn(cls, table: pa.Table, relation: Relation) -> Correlations:
        """Learn from a table of text with the relation's columns."""
        return cls(
            [model for c in present(table, relation) if (model := _learn(table, relation, c))]
        )

    def correct(
        self, table: pa.Table, relation: Relation, share: float, *, same_rows: bool
    ) -> pa.Table:
        """Set the least plausible cells, at most a share of each carrier's, one quantum away.

        A cell changes only if the data say that the other value is likelier. ``same_rows``: the
        table has the rows that were learned from, in their order; then what each row itself had
        added is left out, since nobody knows the unmarked value of the row in question.
        """
        share_of(share, "cells")
        for carrier in present(table, relation):
            model = self._models.get(carrier.column)
            if model is None:
                continue
            column = read(table, carrier)
            gain, values = _View.of(model, table, column, same_rows).best_neighbours()
            budget = int(share * np.count_nonzero(column.valid))
            best = np.argsort(-gain, kind="stable")[:budget]
            best = best[gain[best] > 0.0]
            out = column.values.copy()
            out[best] = values[best]
            table = write(table, carrier, column, out)
        return table


def _learn(table: pa.Table, relation: Relation, carrier: Carrier) -> _Model | None:
    column = read(table, carrier)
    steps = quanta(carrier, column)
    pairs = _pairs(column, column.values, steps)
    there = steps > 0
    known, counts = np.unique(pairs[there], return_counts=True)
    if not len(known) or len(known) > _MOST_VALUES:
        return None
    own = np.where(there, np.searchsorted(known, pairs), -1)
    keys = {name for name, _ in relation.key} | {carrier.column}
    if carrier.by is not None:
        keys.add(carrier.by[0])
    bins, joint = [], []
    for name in table.column_names:
        made = None if name in keys else _Bins.fit(table, name)
        if made is not None:
            flat = own[there] * made.size + made.codes(table)[there]
            counted = np.bincount(flat, minlength=len(known) * made.size)
            together = counted.reshape(len(known), made.size).astype(np.float64)
            if _informative(together, _by_level(known, together)[known >> _LEVEL], counts):
                bins.append(made)
                joint.append(together)
    return _Model(
        carrier,
        known,
        tuple(bins),
        counts.astype(np.float64),
        _by_level(known, counts.astype(np.float64)),
        tuple(joint),
        tuple(_by_level(known, table_of) for table_of in joint),
        _kinships(table, carrier, column, steps),
        own,
    )


def _informative(
    together: NDArray[np.float64], with_level: NDArray[np.float64], counts: Codes
) -> bool:
    """Whether a column tells more about a value than chance would have it (mutual information)."""
    cells = together.sum()
    expected = counts[:, None] * with_level / np.maximum(with_level.sum(axis=1), 1)[:, None]
    # few rows of similar values: so many cells that each is expected to be filled
    rows = (np.cumsum(counts) - 1) * _BINS // counts.sum()
    few, few_expected = (
        np.stack([np.bincount(rows, column, _BINS) for column in matrix.T])
        for matrix in (together, expected)
    )
    there = few > 0
    information = (few[there] * np.log(few[there] / few_expected[there])).sum() / cells
    chance = np.count_nonzero(few_expected) / (2 * cells)
    return bool(information > 1.5 * chance + _WORTH)


def _by_level(known: Codes, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    levels = known >> _LEVEL
    out = np.zeros((int(levels[-1]) + 1, *counts.shape[1:]))
    np.add.at(out, levels, counts)
    return out


def _kinships(
    table: pa.Table, carrier: Carrier, column: Column, steps: NDArray[Any]
) -> tuple[_Kin, ...]:
    if carrier.kind is Kind.CATEGORICAL:
        return ()
    out = []
    for name in table.column_names:
        distinct = len(pc.unique(one_chunk(table.column(name))))
        if name == carrier.column or not (
            _RELATED[0] <= table.num_rows / max(distinct, 1) <= _RELATED[1]
        ):
            continue
        kin = _Kin(name, np.empty(0))
        rows, side = kin.order(table, column)
        if not side.any():
            continue
        before, after = rows[:-1][side], rows[1:][side]
        apart = _apart(column.values[after] - column.values[before], steps[after])
        counts = np.bincount(apart, minlength=2 * _REACH + 3) + 0.5
        # either row may be the one in question
        counts += counts[::-1].copy()
        out.append(_Kin(name, np.log(counts / counts.sum())))
    return tuple(out)


@dataclass(frozen=True, eq=False)
class _View:
    """A copy's column as a model sees it."""

    model: _Model
    column: Column
    steps: NDArray[Any]
    own: Codes
    told: tuple[Codes, ...]
    """The codes of the model's bins."""
    related: tuple[tuple[NDArray[np.float64], Codes, Codes], ...]
    """For each kinship: the shares of differences, and the rows of each pair side by side."""
    twins: Codes | None
    """Cells with the same number are one value of one entity and can only move together."""

    @classmethod
    def of(cls, model: _Model, table: pa.Table, column: Column, same_rows: bool) -> _View:
        steps = quanta(model.carrier, column)
        related = []
        for kin in model.kin:
            rows, side = kin.order(table, column)
            related.append((kin.log_share, rows[:-1][side], rows[1:][side]))
        return cls(
            model,
            column,
            steps,
            model.own if same_rows else np.full(len(steps), -1),
            tuple(made.codes(table) for made in model.bins),
            tuple(related),
            _twins(model.carrier, table, column),
        )

    def plausibility(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Logarithm of how likely each cell's value is given the rest, up to a constant."""
        model = self.model
        pairs = _pairs(self.column, values, self.steps)
        at = np.minimum(np.searchsorted(model.known, pairs), len(model.known) - 1)
        there = (model.known[at] == pairs) & (self.steps > 0)
        mine = (self.own == at) & there
        level = np.minimum(pairs >> _LEVEL, len(model.totals) - 1)
        share = (np.where(there, model.counts[at], 0.0) - mine + 0.25) / (model.totals[level] + 1.0)
        log = np.log(share)
        for codes, joint, totals in zip(self.told, model.joint, model.joint_totals, strict=True):
            count = np.maximum(np.where(there, joint[at, codes], 0.0) - mine, 0.0)
            log += np.log((count / share + _BACKING) / (totals[level, codes] + _BACKING))
        for log_share, before, after in self.related:
            for one, other in ((before, after), (after, before)):
                apart = _apart(values[one] - self.column.values[other], self.steps[one])
                np.add.at(log, one, log_share[apart])
        return np.asarray(log, np.float64)

    def best_neighbours(self) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """How much likelier the better neighbour of each cell is than its value, and that one."""
        carrier, values = self.model.carrier, self.column.values
        now = self.plausibility(values)
        gain, chosen = np.full(len(now), -np.inf), values.copy()
        for sign in (1, -1):
            candidates = values + sign * self.steps
            allowed = self.steps > 0
            if carrier.kind is Kind.CATEGORICAL:
                allowed &= _same_group(carrier, values, candidates)
            candidates = np.where(allowed, candidates, values)
            more = np.where(allowed, self.plausibility(candidates) - now, 0.0)
            if self.twins is not None:
                more = np.bincount(self.twins, more)[self.twins]
            more = np.where(allowed, more, -np.inf)
            chosen = np.where(more > gain, candidates, chosen)
            gain = np.maximum(gain, more)
        return gain, chosen


def _twins(carrier: Carrier, table: pa.Table, column: Column) -> Codes | None:
    names = [name for name, _ in carrier.entity]
    if not names or not set(names) <= set(table.column_names):
        return None
    _, values = np.unique(column.values, return_inverse=True)
    return _numbered([*(_encoded(table, name) for name in names), values.astype(np.int64)])


def _same_group(carrier: Carrier, codes: Codes, others: Codes) -> NDArray[np.bool_]:
    of = np.append(groups(carrier), -1)
    inside = (others >= 0) & (others < len(of) - 1)
    same: NDArray[np.bool_] = of[codes] == of[np.where(inside, others, -1)]
    return same & inside


def _pairs(column: Column, values: NDArray[Any], steps: NDArray[Any]) -> Codes:
    """One number for each cell's tolerance and value in quanta."""
    size = np.where(steps > 0, steps, 1)
    index = np.rint(np.nan_to_num(values) / size) if values.dtype.kind == "f" else values // size
    clipped = np.clip(index, -(2**40), 2**40).astype(np.int64)
    level = np.zeros(len(values), np.int64) if column.by is None else np.maximum(column.by, 0)
    return np.asarray((level << _LEVEL) + (clipped + 2**40), np.int64)


def _apart(difference: NDArray[Any], steps: NDArray[Any]) -> Codes:
    """Differences in quanta, from 0 for -_REACH - 1 and less."""
    apart = np.rint(np.nan_to_num(difference / np.where(steps > 0, steps, 1)))
    return (np.clip(apart, -_REACH - 1, _REACH + 1) + _REACH + 1).astype(np.int64)


def _encoded(table: pa.Table, name: str) -> Codes:
    encoded = one_chunk(table.column(name)).dictionary_encode().indices
    return np.asarray(pc.fill_null(encoded, -1), np.int64)
