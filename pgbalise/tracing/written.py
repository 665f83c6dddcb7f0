"""What one leaked column writes: the form of its values, and plain looks at its texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.marking.types import SqlType

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

Family = Literal["integer", "decimal", "date", "timestamp", "time", "boolean", "uuid", "text"]
"""What kind of text a type has."""

Calendar = Literal["dmy", "mdy", "compact", "excel", "unix s", "unix ms", "unix us"]


@dataclass(frozen=True)
class Format:
    """How one leaked column writes its values; by default as PostgreSQL does, or in French order.

    What does not concern the column's type stays at its default.
    """

    decimal: Literal[".", ","] = "."
    """The decimal sign; beside the comma a point is one, too, unless it groups digits."""
    thousands: Literal["", ".", ","] = ""
    """What groups digits by three; spaces and apostrophes may always."""
    unit: str = ""
    """What stands after a number and is no part of it: ``kg``, ``%``."""
    calendar: Calendar = "dmy"
    """The order of day and month where digits leave it open, or what a bare number counts:
    digits of a day (``compact``), days since 1899-12-30 (``excel``), a time since 1970."""
    pivot: int = 2069
    """The last year that a year of two digits may mean."""
    zone: str = "UTC"
    """The time zone of times that name none, where the column's type has a zone."""
    factor: float = 1.0
    offset: float = 0.0
    """A number was written as stored * factor + offset."""
    scale: int | None = None
    """Decimals of the stored numbers: to so many a number is rounded after converting its unit."""
    fractional: bool | None = None
    """Whether numbers have decimals beyond those stored; None when each array shall tell."""

    @property
    def converted(self) -> bool:
        """Whether the numbers are in another unit than the stored ones."""
        return self.factor != 1.0 or self.offset != 0.0


PLAIN = Format()
"""As PostgreSQL writes, or in French order."""


def family(declared: SqlType) -> Family:
    """Return what kind of text a type's values have; types of no other kind count as text."""
    match declared.name:
        case "smallint" | "integer" | "bigint":
            return "integer"
        case "numeric" | "real" | "double precision":
            return "decimal"
        case "date":
            return "date"
        case "timestamp without time zone" | "timestamp with time zone":
            return "timestamp"
        case "time" | "time without time zone":
            return "time"
        case "boolean" | "bool":
            return "boolean"
        case "uuid":
            return "uuid"
        case _:
            return "text"


_NOTHING = (
    *("", "-", "--", "—", "–", "?", ".", "\\N", "(null)", "(vide)", "#N/A", "#N/D", "<NA>"),
    *(
        shown
        for word in ("null", "na", "n/a", "nan", "nat", "none", "nil", "vide", "missing")
        for shown in (word, word.upper(), word.capitalize())
    ),
    *("NaN", "NaT"),
)
"""What stands for no value in a column of numbers, dates and the like."""


def as_strings(text: pa.Array) -> pa.Array:
    """Return texts as one array of UTF-8."""
    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    if pa.types.is_dictionary(text.type):
        text = text.dictionary_decode()
    return text if pa.types.is_string(text.type) else pc.cast(text, pa.string())


def known_texts(text: pa.Array) -> pa.Array:
    """Texts without white space at either end, NULL for the words that mean it."""
    trimmed = pc.utf8_trim_whitespace(as_strings(text))
    nothing = pc.is_in(trimmed, value_set=pa.array(_NOTHING, pa.string()))
    return only_where(trimmed, pc.invert(nothing)) if pc.any(nothing).as_py() else trimmed


def only_where(array: pa.Array, keep: pa.Array | Bools) -> pa.Array:
    """NULL where ``keep`` does not hold."""
    return pc.if_else(_mask(keep), array, pa.scalar(None, array.type))


def _mask(flags: pa.Array | Bools) -> pa.Array:
    return pa.array(flags) if isinstance(flags, np.ndarray) else pc.fill_null(flags, False)


def matches(text: pa.Array, pattern: str) -> Bools:
    """Where a text matches; not where it is NULL."""
    return to_flags(pc.match_substring_regex(text, pattern))


def to_flags(array: pa.Array) -> Bools:
    """Return truth values, false where there is none."""
    return np.asarray(pc.fill_null(array, False)).astype(np.bool_)


def where_valid(array: pa.Array) -> Bools:
    """Return where there is a value."""
    return np.asarray(array.is_valid()).astype(np.bool_)


def masked(values: NDArray[Any], read: Bools) -> pa.Array:
    """Return values as an array, NULL where none was read."""
    return pa.array(values, mask=~read)


def rows_at(array: pa.Array, rows: Bools) -> pa.Array:
    """Return the entries where ``rows`` is true."""
    return array.filter(pa.array(rows))
