"""What one thief does to one copy: tables of text in, tables of text out.

Rounding, noise, subsets and flips are the attacks of R. Agrawal and J. Kiernan ("Watermarking
relational databases", VLDB 2002); replacing cells by others of their column is the "random
response" of Y. Li, V. Swarup and S. Jajodia ("Fingerprinting relational databases: schemes and
specialties", IEEE TDSC 2(1), 2005), drawn from the column itself so that it does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.errors import InvalidInput
from pgbalise.frames import one_chunk
from pgbalise.marking.embedding import Column, alternatives
from pgbalise.marking.policy import Carrier, Relation
from pgbalise.marking.types import Kind
from pgbalise.tracing.attacks.cells import groups, quanta, read, replaced, write
from pgbalise.tracing.attacks.numbers import keep_rows, round_to_grid


def share_of(share: float, what: str) -> float:
    """Return ``share``; raise InvalidInput unless it lies in [0, 1]."""
    if not 0 <= share <= 1:
        raise InvalidInput(f"share of {what} {share} is not in [0, 1]")
    return share


def present(table: pa.Table, relation: Relation) -> list[Carrier]:
    """Return the carriers that a table still has."""
    return [carrier for carrier in relation.carriers if carrier.column in table.column_names]


def subset(table: pa.Table, share: float, rng: np.random.Generator) -> pa.Table:
    """Return a share of the rows, at random and in random order."""
    return table.take(pa.array(keep_rows(table.num_rows, share, rng)))


def drop_carriers(
    table: pa.Table, relation: Relation, share: float, rng: np.random.Generator
) -> pa.Table:
    """Return the table without a share of its carriers, drawn at random; one always stays."""
    names = [carrier.column for carrier in present(table, relation)]
    number = min(round(len(names) * share_of(share, "columns")), len(names) - 1)
    return table.drop_columns(rng.permutation(np.array(names, object))[: max(number, 0)].tolist())


def flip(table: pa.Table, relation: Relation, share: float, rng: np.random.Generator) -> pa.Table:
    """Move a share of the carriers' cells by one quantum, as a mark would, up or down."""
    share_of(share, "cells")
    for carrier in present(table, relation):
        column = read(table, carrier)
        rows = len(column.values)
        options = alternatives(carrier, column, rng.random(rows) < 0.5)
        chosen = options.markable & (rng.random(rows) < share)
        table = write(table, carrier, column, np.where(chosen, options.moved, column.values))
    return table


def noise(table: pa.Table, relation: Relation, scale: float, rng: np.random.Generator) -> pa.Table:
    """Add Gaussian noise of ``scale`` quanta (standard deviation) to every carrier.

    A text with equivalents is replaced by another of its group with probability ``scale`` (at
    most 1). Raises InvalidInput if ``scale`` is negative.
    """
    if not scale >= 0:
        raise InvalidInput(f"noise of scale {scale}")
    for carrier in present(table, relation):
        column = read(table, carrier)
        if carrier.kind is Kind.CATEGORICAL:
            options = alternatives(carrier, column, rng.random(len(column.values)) < 0.5)
            moved = options.markable & (rng.random(len(column.values)) < scale)
            values = np.where(moved, options.moved, column.values)
        else:
            by = rng.normal(0.0, 1.0, len(column.values)) * scale * quanta(carrier, column)
            values = shifted(carrier, column, by)
        table = write(table, carrier, column, values)
    return table


def coarsen(table: pa.Table, relation: Relation, factor: float) -> pa.Table:
    """Round every carrier to multiples of ``factor`` quanta, ties away from zero.

    Of texts with equivalents only the first of each group is left. Raises InvalidInput if a grid
    would be finer than the digits of its column.
    """
    for carrier in present(table, relation):
        column = read(table, carrier)
        steps = quanta(carrier, column)
        if carrier.kind is Kind.CATEGORICAL:
            values = np.where(steps > 0, groups(carrier)[np.maximum(column.values, 0)], -1)
            values = np.where(steps > 0, values, column.values)
        elif carrier.kind is Kind.FLOAT:
            grid = np.where(steps > 0, steps * factor, 1.0)
            safe = np.where(steps > 0, column.values, 0.0)
            values = np.where(steps > 0, _tidy(carrier, np.rint(safe / grid) * grid), column.values)
        else:
            values = column.values.copy()
            for step in np.unique(steps[steps > 0]).tolist():
                mine = steps == step
                values[mine] = round_to_grid(values[mine], round(step * factor))
        table = write(table, carrier, column, values)
    return table


def resample(
    table: pa.Table, relation: Relation, share: float, rng: np.random.Generator
) -> pa.Table:
    """Replace a share of the carriers' cells by values of other rows of the same column.

    Where the tolerance goes by another column, the other row has the same value there.
    """
    share_of(share, "cells")
    for carrier in present(table, relation):
        cells = one_chunk(table.column(carrier.column))
        by = _codes(table, carrier)
        order = np.argsort(by, kind="stable")
        starts = np.searchsorted(by[order], by)
        sizes = np.searchsorted(by[order], by, "right") - starts
        chosen = np.flatnonzero(rng.random(len(by)) < share)
        drawn = starts[chosen] + (rng.random(len(chosen)) * sizes[chosen]).astype(np.int64)
        if len(chosen):
            table = replaced(table, carrier.column, chosen, cells.take(pa.array(order[drawn])))
    return table


def _codes(table: pa.Table, carrier: Carrier) -> NDArray[np.int64]:
    if carrier.by is None or carrier.by[0] not in table.column_names:
        return np.zeros(table.num_rows, np.int64)
    encoded = one_chunk(table.column(carrier.by[0])).dictionary_encode().indices
    return np.asarray(pc.fill_null(encoded, -1)).astype(np.int64)


def enlarge(table: pa.Table, others: pa.Table, share: float, rng: np.random.Generator) -> pa.Table:
    """Mix in rows of another origin (``share`` per row of the copy), as far as there are some."""
    number = min(round(table.num_rows * share), others.num_rows)
    drawn = others.take(pa.array(rng.permutation(others.num_rows)[:number]))
    both = pa.concat_tables([table, drawn.select(table.column_names)])
    return both.take(pa.array(rng.permutation(both.num_rows)))


def sort(table: pa.Table, relation: Relation, rng: np.random.Generator) -> pa.Table:
    """Sort the rows by one of the carriers, as text."""
    names = [carrier.column for carrier in present(table, relation)]
    return table.sort_by(str(rng.choice(names))) if names else table


def drop_key(table: pa.Table, relation: Relation) -> pa.Table:
    """Drop the key."""
    return table.drop_columns([name for name, _ in relation.key if name in table.column_names])


def new_key(table: pa.Table, relation: Relation, rng: np.random.Generator) -> pa.Table:
    """Number the rows anew, from 1 and in random order, in place of the key's first column."""
    numbers = pa.array((1 + rng.permutation(table.num_rows)).astype(str), pa.string())
    first = relation.key[0][0]
    rest = drop_key(table, relation)
    return pa.table([numbers, *rest.columns], names=[first, *rest.column_names])


def rename(table: pa.Table) -> pa.Table:
    """Give every column a name that says nothing."""
    return table.rename_columns([f"champ_{n}" for n in range(1, table.num_columns + 1)])


def decimal_comma(table: pa.Table) -> pa.Table:
    """Write numbers with a decimal comma."""
    return _rewritten(table, r"^([+-]?[0-9]+)\.([0-9]+)$", r"\1,\2")


def french_dates(table: pa.Table) -> pa.Table:
    """Write dates, and those of timestamps, as 31/12/2021."""
    return _rewritten(table, r"^([0-9]{4})-([0-9]{2})-([0-9]{2})($|[ T])", r"\3/\2/\1\4")


def _rewritten(table: pa.Table, pattern: str, by: str) -> pa.Table:
    columns = [pc.replace_substring_regex(column, pattern, by) for column in table.columns]
    return pa.table(columns, names=table.column_names)


def shifted(carrier: Carrier, column: Column, by: NDArray[np.float64]) -> NDArray[Any]:
    """Return a column's values (units) plus ``by``, at the resolution its type is written in."""
    if carrier.kind is not Kind.FLOAT:
        return np.asarray(column.values + np.rint(by).astype(np.int64))
    return np.where(by == 0.0, column.values, _tidy(carrier, column.values + by))


def _tidy(carrier: Carrier, values: NDArray[Any]) -> NDArray[Any]:
    """Floating-point numbers with no more digits than their column shows."""
    if carrier.continuous:
        return values
    power = 10.0**carrier.scale
    return np.asarray(np.rint(values * power) / power).astype(values.dtype)


def copies_alike(copies: Sequence[pa.Table]) -> None:
    """Raise InvalidInput unless there are copies, and all have the same columns and rows."""
    if not copies:
        raise InvalidInput("an attack needs at least one copy")
    shapes = {(tuple(copy.column_names), copy.num_rows) for copy in copies}
    if len(shapes) > 1:
        raise InvalidInput("copies that are merged must have the same columns and rows")
