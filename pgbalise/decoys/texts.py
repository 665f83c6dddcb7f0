"""Columns of text, as PostgreSQL prints them, as what decoys are learned from; and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.decoys.columns import Column, ColumnKind
from pgbalise.marking.types import INTEGER_TOPS, Kind, SqlType

Bools = NDArray[np.bool_]

_ISO_DATE: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_ISO_TIME: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(\+00)?$"
_NUMBER: Final = r"^-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?$"

_ALL_DIGITS: Final = 9
"""From so many decimals on, numbers are computed ones, whose digits nobody chose."""


@dataclass(frozen=True)
class Form:
    """How a column's values are written."""

    kind: ColumnKind
    type: SqlType
    decimals: int | None = None
    """Digits after the point, at most; None for as many as the number needs."""
    padded: bool = False
    """Whether they are always that many, in a column that does not see to it itself."""


def kind_of(declared: SqlType, *, label: bool) -> ColumnKind | None:
    """Return how a column is held, None for what follows no law (jsonb, bytea, arrays).

    ``label``: an enumerated type or boolean, whose values are categories whatever it is called.
    """
    if label or declared.name == "boolean":
        return ColumnKind.CATEGORY
    match declared.kind:
        case Kind.INTEGER | Kind.NUMERIC | Kind.FLOAT:
            return ColumnKind.NUMBER
        case Kind.DATE:
            return ColumnKind.DATE
        case Kind.TIMESTAMP:
            return ColumnKind.TIMESTAMP
        case Kind.CATEGORICAL:
            return ColumnKind.CATEGORY
        case _:
            return None


def read_column(
    name: str, kind: ColumnKind, declared: SqlType, texts: pa.Array
) -> tuple[Column, Form]:
    """Read a column of text. Infinite values, NaN and years outside 1 to 9999 count as NULL.

    Dates and times are ISO 8601, those with a time zone in UTC.
    """
    match kind:
        case ColumnKind.CATEGORY:
            encoded = pc.dictionary_encode(texts)
            words = encoded.dictionary.to_pylist()
            # sorted: the same rows in another order give the same column
            order = sorted(range(len(words)), key=lambda at: words[at])
            rank = np.empty(len(words) + 1, np.int64)
            rank[order] = np.arange(len(words))
            rank[-1] = 0
            codes = _ints(pc.fill_null(pc.cast(encoded.indices, pa.int64()), -1))
            valid = codes >= 0
            column = Column(name, kind, rank[codes], valid, tuple(words[at] for at in order))
            return column, Form(kind, declared)
        case ColumnKind.NUMBER:
            texts = _fitting(texts, _NUMBER)
            numbers = pc.fill_null(pc.cast(texts, pa.float64()), 0.0)
            column = Column(name, kind, np.asarray(numbers), np.asarray(texts.is_valid()))
            return column, _number_form(declared, texts)
        case ColumnKind.DATE:
            texts = _fitting(texts, _ISO_DATE)
            days = pc.fill_null(pc.cast(pc.cast(texts, pa.date32()), pa.int32()), 0)
            column = Column(name, kind, _ints(pc.cast(days, pa.int64())), _valid(texts))
            return column, Form(kind, declared)
        case _:
            texts = pc.replace_substring_regex(_fitting(texts, _ISO_TIME), r"\+00$", "")
            stamps = pc.cast(pc.cast(texts, pa.timestamp("us")), pa.int64())
            column = Column(name, kind, _ints(pc.fill_null(stamps, 0)), _valid(texts))
            return column, Form(kind, declared)


def _fitting(texts: pa.Array, pattern: str) -> pa.Array:
    fits = pc.match_substring_regex(texts, pattern)
    return pc.if_else(fits, texts, pa.scalar(None, texts.type))


def _valid(texts: pa.Array) -> Bools:
    return np.asarray(texts.is_valid())


def _ints(array: pa.Array) -> NDArray[np.int64]:
    return np.asarray(array, np.int64)


def _number_form(declared: SqlType, texts: pa.Array) -> Form:
    kind = ColumnKind.NUMBER
    if declared.kind is Kind.INTEGER:
        return Form(kind, declared, 0)
    if declared.scale is not None:
        return Form(kind, declared, max(0, declared.scale))
    plain = pc.drop_null(texts)
    if not len(plain) or pc.any(pc.match_substring(plain, "e")).as_py():
        return Form(kind, declared)
    point = pc.find_substring(plain, ".")
    decimals = pc.if_else(
        pc.less(point, 0), 0, pc.subtract(pc.subtract(pc.utf8_length(plain), point), 1)
    )
    least, most = pc.min(decimals).as_py(), pc.max(decimals).as_py()
    if most >= _ALL_DIGITS:
        return Form(kind, declared)
    return Form(kind, declared, most, least == most > 0 and declared.kind is Kind.NUMERIC)


def write_column(column: Column, form: Form) -> pa.Array:
    """Return a column as COPY reads it: text, numbers, dates or timestamps; NULL where not valid.

    Numbers are rounded to the column's decimals and cut to what its type can hold.
    """
    missing = ~column.valid
    match form.kind:
        case ColumnKind.CATEGORY:
            words = pa.array(list(column.categories), pa.string())
            return words.take(pa.array(column.values, pa.int64(), mask=missing))
        case ColumnKind.DATE:
            days = np.clip(column.values, -719_162, 2_932_896).astype(np.int32)
            return pa.array(days, pa.int32(), mask=missing).view(pa.date32())
        case ColumnKind.TIMESTAMP:
            zone = "UTC" if form.type.name.endswith("with time zone") else None
            return pa.array(column.values, pa.int64(), mask=missing).view(pa.timestamp("us", zone))
        case _:
            return _numbers(column.values.astype(np.float64), missing, form)


def _numbers(values: NDArray[np.float64], missing: Bools, form: Form) -> pa.Array:
    values = np.where(missing, 0.0, values)
    if form.type.kind is Kind.INTEGER:
        top = min(INTEGER_TOPS[form.type.name], 2**53)
        whole = np.clip(np.rint(values), -top - 1, top).astype(np.int64)
        return pa.array(whole, pa.int64(), mask=missing)
    if form.decimals is not None:
        # adding zero takes the sign off a negative zero
        values = np.round(values, form.decimals) + 0.0
    if form.type.precision is not None:
        fits = 10.0 ** (form.type.precision - (form.type.scale or 0))
        finest = 10.0 ** -(form.type.scale or 0)
        values = np.clip(values, -(fits - finest), fits - finest)
    few, inverse = np.unique(values, return_inverse=True)
    if form.padded:
        texts = [f"{value:.{form.decimals}f}" for value in few.tolist()]
    elif form.type.name == "real":
        texts = [str(value).removesuffix(".0") for value in few.astype(np.float32)]
    else:
        texts = [repr(value).removesuffix(".0") for value in few.tolist()]
    return pa.array(texts, pa.string()).take(pa.array(inverse, pa.int64(), mask=missing))
