"""A carrier's cells in a table of text: read as numbers, written back as PostgreSQL prints them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.frames import column_from_arrow, one_chunk
from pgbalise.marking.embedding import Column
from pgbalise.marking.policy import Carrier, Equivalents
from pgbalise.marking.types import Kind


def read(table: pa.Table, carrier: Carrier) -> Column:
    """Return a carrier's cells as numbers in its units; see `pgbalise.marking.embedding.Column`.

    Raises InvalidInput when a value is not of the carrier's type.
    """
    return column_from_arrow(table, carrier)


def quanta(carrier: Carrier, column: Column) -> NDArray[Any]:
    """Return each cell's quantum in the units of ``column``; 0 where the policy has none for it.

    Of texts with equivalents it is 1, the step from one equivalent to the next.
    """
    floating = carrier.kind is Kind.FLOAT
    out = np.zeros(len(column.values), np.float64 if floating else np.int64)
    for at, tolerance in enumerate(carrier.tolerances.values()):
        mine = column.valid if column.by is None else column.valid & (column.by == at)
        if isinstance(tolerance, Equivalents):
            out[mine & (column.values >= 0)] = 1
        else:
            size = tolerance.quantum
            out[mine] = float(size) if floating else int(size.scaleb(carrier.scale))
    if floating:
        out[~np.isfinite(column.values)] = 0.0
    return out


def groups(carrier: Carrier) -> NDArray[np.int64]:
    """Return, for each code of a categorical carrier, the first code of its group."""
    sizes = [
        len(group)
        for tolerance in carrier.tolerances.values()
        if isinstance(tolerance, Equivalents)
        for group in tolerance.groups
    ]
    starts = np.cumsum([0, *sizes])[:-1]
    return np.repeat(starts, sizes).astype(np.int64)


def write(table: pa.Table, carrier: Carrier, column: Column, values: NDArray[Any]) -> pa.Table:
    """Return the table with the carrier's cells set to ``values``.

    ``column`` is what was read from it. Only cells that differ are written anew.
    """
    changed = np.flatnonzero(column.valid & (values != column.values))
    if carrier.kind is Kind.FLOAT:
        changed = changed[np.isfinite(values[changed])]
    if not len(changed):
        return table
    scales = None if column.scales is None else column.scales[changed]
    return replaced(table, carrier.column, changed, texts(carrier, values[changed], scales))


def replaced(table: pa.Table, name: str, rows: NDArray[np.int64], text: pa.Array) -> pa.Table:
    """Return the table with the cells of one column at ``rows`` (ascending) replaced by texts."""
    mask = np.zeros(table.num_rows, np.bool_)
    mask[rows] = True
    old = one_chunk(table.column(name))
    new = pc.replace_with_mask(old, pa.array(mask), text.cast(old.type))
    return table.set_column(table.column_names.index(name), name, new)


def texts(carrier: Carrier, values: NDArray[Any], scales: NDArray[np.int64] | None) -> pa.Array:
    """Return values in a carrier's units as PostgreSQL prints its type.

    ``scales``: the decimals each number is written with; more are used where it needs them.
    """
    match carrier.kind:
        case Kind.INTEGER:
            return pa.array(values).cast(pa.string())
        case Kind.NUMERIC:
            return _numbers(values, carrier.scale, scales)
        case Kind.DATE:
            return pa.array(values.astype("datetime64[D]")).cast(pa.string())
        case Kind.TIMESTAMP:
            text = pa.array(values.astype("datetime64[us]")).cast(pa.string())
            text = pc.replace_substring_regex(text, r"\.?0*$", "")
            zoned = carrier.type.name.endswith("with time zone")
            return pc.binary_join_element_wise(text, "+00" if zoned else "", "")
        case Kind.CATEGORICAL:
            members = [
                member
                for tolerance in carrier.tolerances.values()
                if isinstance(tolerance, Equivalents)
                for group in tolerance.groups
                for member in group
            ]
            return pa.array(members, pa.string()).take(pa.array(values))
        case _:
            single = carrier.type.name == "real"
            shown = [str(np.float32(v)) if single else repr(v) for v in values.tolist()]
            return pa.array([text.removesuffix(".0") for text in shown], pa.string())


def _numbers(values: NDArray[np.int64], scale: int, scales: NDArray[np.int64] | None) -> pa.Array:
    written = []
    places = [scale] * len(values) if scales is None else scales.tolist()
    for number, wanted in zip(values.tolist(), places, strict=True):
        rest = 10 ** max(0, scale - wanted)
        digits = scale if number % rest else wanted
        head, tail = divmod(abs(number) // 10 ** (scale - min(digits, scale)), 10**digits)
        sign = "-" if number < 0 else ""
        written.append(f"{sign}{head}.{tail:0{digits}d}" if digits else f"{sign}{head}")
    return pa.array(written, pa.string())
