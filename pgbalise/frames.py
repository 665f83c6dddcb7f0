"""Arrow arrays in and out of the marking core, and ``pgbalise.mark`` for frames.

Needs pyarrow (extra ``arrow``). The core itself, ``pgbalise.marking``, needs only numpy.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.errors import InvalidInput
from pgbalise.marking.cells import carrier_secret, select
from pgbalise.marking.codes import bias, codeword, dither
from pgbalise.marking.embedding import Column, alternatives
from pgbalise.marking.hashing import KeyPart, Strings
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import Carrier, Equivalents, Policy, RecipientClass, Relation
from pgbalise.marking.types import Kind, SqlType

Bools = NDArray[np.bool_]
Frame = TypeVar("Frame")

_2000_DAYS = 10_957
_2000_MICROSECONDS = 946_684_800_000_000
_DAY = 86_400_000_000


def key_from_arrow(
    table: pa.Table, key: Sequence[tuple[str, SqlType]]
) -> tuple[list[KeyPart], Bools]:
    """Return the key's columns for pgbalise.marking, and which rows have no NULL in them.

    Raise InvalidInput when a value is not of its declared type.
    """
    parts: list[KeyPart] = []
    valid = np.ones(table.num_rows, np.bool_)
    for name, declared in key:
        array = one_chunk(table.column(name))
        try:
            valid &= np.asarray(array.is_valid())
            parts.append(_key_part(array, declared))
        except (pa.ArrowException, ValueError):
            raise InvalidInput(f"column {name}: a value is no {declared}") from None
    return parts, valid


def _key_part(array: pa.Array, declared: SqlType) -> KeyPart:
    match declared.name:
        case "smallint" | "integer" | "bigint":
            return _integers(pc.cast(array, pa.int64()))
        case "date":
            return (_integers(pc.cast(array, pa.date32()).view(pa.int32())) - _2000_DAYS) * _DAY
        case "timestamp without time zone" | "timestamp with time zone":
            return microseconds(array, declared) - _2000_MICROSECONDS
        case "uuid":
            text = pc.fill_null(pc.cast(array, pa.string()), "0" * 32)
            joined = "".join(pc.replace_substring(text, "-", "").to_pylist())
            data = np.frombuffer(bytes.fromhex(joined), np.uint8)
            return Strings(np.arange(len(array) + 1, dtype=np.int64) * 16, data)
        case _:
            text = pc.cast(array, pa.large_string())
            return strings(pc.utf8_rtrim(text, " ") if declared.name == "character" else text)


def strings(array: pa.Array) -> Strings:
    """Return an array of text for hashing, NULL as the empty text."""
    text = pc.fill_null(pc.cast(array, pa.large_string()), "")
    offsets, data = text.buffers()[1:]
    bounds = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1]
    return Strings(bounds, np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8))


def column_from_arrow(table: pa.Table, carrier: Carrier) -> Column:
    """Return a carrier's cells for pgbalise.marking; values that cannot be marked are not valid.

    Raise InvalidInput when a value is not of the carrier's type.
    """
    array = one_chunk(table.column(carrier.column))
    try:
        values, scales = _values(array, carrier)
    except (pa.ArrowException, ValueError):
        raise InvalidInput(f"column {carrier.column}: a value is no {carrier.type}") from None
    valid = np.asarray(array.is_valid())
    if carrier.kind is Kind.NUMERIC:
        valid = valid & (values != _NO_NUMBER)
    by = None
    if carrier.by is not None:
        known = pa.array(list(carrier.tolerances), pa.string())
        chooser = pc.cast(one_chunk(table.column(carrier.by[0])), pa.string())
        if carrier.by[1].name == "character":
            chooser = pc.utf8_rtrim(chooser, " ")
        by = _integers(pc.fill_null(pc.cast(pc.index_in(chooser, value_set=known), pa.int64()), -1))
    return Column(values, valid, by, scales)


_NO_NUMBER = -(2**63)


def _values(array: pa.Array, carrier: Carrier) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    match carrier.kind:
        case Kind.INTEGER:
            return _integers(pc.cast(array, pa.int64())), None
        case Kind.FLOAT:
            width = pa.float32() if carrier.type.name == "real" else pa.float64()
            return np.asarray(pc.fill_null(pc.cast(array, width), 0.0)), None
        case Kind.DATE:
            return _integers(pc.cast(array, pa.date32()).view(pa.int32())), None
        case Kind.TIMESTAMP:
            return microseconds(array, carrier.type), None
        case Kind.CATEGORICAL:
            groups = [t for t in carrier.tolerances.values() if isinstance(t, Equivalents)]
            members = pa.array(
                [m for t in groups for group in t.groups for m in group], pa.string()
            )
            text = pc.cast(array, pa.string())
            if carrier.type.name == "character":
                text = pc.utf8_rtrim(text, " ")
            codes = pc.index_in(text, value_set=members)
            return _integers(pc.fill_null(pc.cast(codes, pa.int64()), -1)), None
        case _:
            return _numeric(array, carrier)


def _numeric(array: pa.Array, carrier: Carrier) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    scale = carrier.scale
    free = carrier.type.scale is None
    if pa.types.is_floating(array.type):
        # numpy has no decimals, so neither does pandas by default
        floats = np.asarray(pc.fill_null(pc.cast(array, pa.float64()), np.nan))
        counted = np.rint(np.where(np.isfinite(floats), floats, 0.0) * 10.0**scale)
        exact = (counted / 10.0**scale == floats) & (np.abs(counted) < 2**53)
        return np.where(exact, counted, _NO_NUMBER).astype(np.int64), None
    scales = None
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        point = _integers(pc.cast(pc.find_substring(array, "."), pa.int64()))
        length = _integers(pc.cast(pc.utf8_length(array), pa.int64()))
        scales = np.where(point < 0, 0, length - point - 1)
        plain = pc.match_substring_regex(array, r"^-?[0-9]{1,20}(\.[0-9]{0,17})?$")
        usable = pc.and_(plain, pa.array(scales <= scale))
        array = pc.if_else(usable, array, pa.scalar(None, array.type))
    elif pa.types.is_decimal(array.type):
        scales = np.full(len(array), array.type.scale, np.int64)
        array = pc.cast(array, pa.decimal128(38, array.type.scale))
        if array.type.scale > scale:
            raise ValueError("finer than the carrier's scale")
    wide = pc.cast(array, pa.decimal128(38, scale))
    words = np.frombuffer(wide.buffers()[1], np.int64).reshape(-1, 2)
    low, high = (words[wide.offset : wide.offset + len(wide), i] for i in (0, 1))
    fits = np.asarray(wide.is_valid()) & (high == (low >> 63))
    return np.where(fits, low, _NO_NUMBER), scales if free else None


def microseconds(array: pa.Array, declared: SqlType) -> NDArray[np.int64]:
    """Return microseconds since 1970-01-01 UTC, int64; text and naive values count as UTC."""
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        zoned = declared.name == "timestamp with time zone"
        array = pc.cast(array, pa.timestamp("us", "UTC" if zoned else None))
    return _integers(
        pc.cast(array, pa.timestamp("us", getattr(array.type, "tz", None))).view(pa.int64())
    )


def _integers(array: pa.Array) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(array, 0)).astype(np.int64)


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, dictionaries decoded."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def python_values(
    carrier: Carrier, values: NDArray[Any], scales: NDArray[np.int64] | None
) -> list[Any]:
    """Return marked values (units) as Python objects that Arrow takes for the carrier's type."""
    match carrier.kind:
        case Kind.NUMERIC:
            places = np.full(len(values), carrier.scale) if scales is None else scales
            return [
                Decimal(int(v)).scaleb(-carrier.scale).quantize(Decimal(1).scaleb(-int(s)))
                for v, s in zip(values, places, strict=True)
            ]
        case Kind.DATE:
            return list(values.astype("datetime64[D]").tolist())
        case Kind.TIMESTAMP:
            return list(values.astype("datetime64[us]").tolist())
        case Kind.CATEGORICAL:
            groups = [t for t in carrier.tolerances.values() if isinstance(t, Equivalents)]
            members = [m for t in groups for group in t.groups for m in group]
            return [members[int(code)] for code in values]
        case _:
            return list(values.tolist())


def mark(
    frame: Frame,
    policy: Policy,
    recipient: str,
    key: MasterKey,
    *,
    relation: str | None = None,
    recipient_class: RecipientClass = RecipientClass.SECONDARY,
) -> Frame:
    """Mark a pyarrow Table, pandas DataFrame or polars DataFrame for a recipient.

    Gives the same values as the marked view of ``relation`` (``schema.name``; needless when the
    policy has one) gives that recipient. The frame must have the relation's key and every column
    that a carrier goes by; carriers that it lacks are passed over. The frame itself stays as it
    is. Raise InvalidInput when a column is missing or not of its declared type.
    """
    protected = policy.relation(relation)
    table = frame if isinstance(frame, pa.Table) else _to_arrow(frame)
    thresholds = bias(key, policy.epoch)
    word = codeword(key, recipient, policy.epoch, thresholds) ^ dither(key, policy.epoch)
    for carrier in protected.carriers_for(recipient_class):
        if carrier.column not in table.column_names:
            continue
        needed = [name for name, _ in carrier.entity or protected.key]
        needed += [carrier.by[0]] if carrier.by else []
        missing = [name for name in needed if name not in table.column_names]
        if missing:
            raise InvalidInput(f"carrier {carrier.column} needs column {missing[0]}")
        rows, values, scales = _marked(table, policy, protected, carrier, key, word)
        frame, table = _replace(frame, table, carrier, rows, python_values(carrier, values, scales))
    return frame


def _marked(
    table: pa.Table,
    policy: Policy,
    relation: Relation,
    carrier: Carrier,
    key: MasterKey,
    word: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64] | None]:
    """The rows that change, their new values in units, and the decimals they are written with."""
    parts, valid = key_from_arrow(table, carrier.entity or relation.key)
    cells = select(
        carrier_secret(key, policy, relation, carrier), carrier, policy.derivation, parts
    )
    column = column_from_arrow(table, carrier).take(cells.row)
    options = alternatives(carrier, column, cells.up)
    target = word[cells.position]
    changed = valid[cells.row] & options.markable & (options.parity != target)
    return (
        cells.row[changed],
        options.moved[changed],
        None if column.scales is None else column.scales[changed],
    )


def _to_arrow(frame: Any) -> pa.Table:
    if hasattr(frame, "to_arrow"):
        return frame.to_arrow()
    if hasattr(frame, "iloc"):
        return pa.Table.from_pandas(frame, preserve_index=False)
    raise InvalidInput(
        f"a frame of type {type(frame).__name__} cannot be marked",
        hint="give a pyarrow Table, a pandas or a polars DataFrame",
    )


def _replace(
    frame: Any, table: pa.Table, carrier: Carrier, rows: NDArray[np.int64], values: list[Any]
) -> tuple[Any, pa.Table]:
    at = table.column_names.index(carrier.column)
    old = one_chunk(table.column(at))
    kind = old.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = [str(value) for value in values]
    elif pa.types.is_floating(kind):
        values = [float(value) for value in values]
    new = pa.array(values, pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) else kind)
    mask = np.zeros(len(old), np.bool_)
    mask[rows] = True
    column = pc.replace_with_mask(old, pa.array(mask), new.cast(kind))
    table = table.set_column(at, table.schema.field(at).name, column)
    if isinstance(frame, pa.Table):
        return table, table
    if hasattr(frame, "iloc"):
        replaced = frame[carrier.column].copy()
        replaced.iloc[rows] = column.take(pa.array(rows)).to_pandas().to_numpy()
        return frame.assign(**{carrier.column: replaced}), table
    import polars as pl

    series = pl.Series(carrier.column, column).cast(frame.schema[carrier.column])
    return frame.with_columns(series), table


def copied_rows(data: bytes, names: list[str]) -> pa.Table:
    """Read what COPY ... TO STDOUT (FORMAT csv) printed, without a header, as text."""
    import pyarrow.csv

    if not data:
        return pa.table({name: pa.array([], pa.string()) for name in names})
    return pyarrow.csv.read_csv(
        io.BytesIO(data),
        read_options=pyarrow.csv.ReadOptions(column_names=names),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )
