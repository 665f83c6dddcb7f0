"""How a leaked column writes its values, and the values themselves.

A stored value has one text, PostgreSQL's; a leak may have passed through a spreadsheet, a data
frame or a converter since. `infer_format` decides once for a column, from a sample, what its texts
mean where they could mean several things (is 03/02/2021 in February?); `canonical` and `seen_units`
then read any number of them in that way. A text that is no value of its type is not read; nothing
here raises for one.

Texts that can mean one thing only are read whatever the format says: ISO dates, months by name,
digits grouped by spaces, true or vrai.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pgbalise.frames import column_from_arrow
from pgbalise.marking.policy import Carrier
from pgbalise.marking.types import Kind, SqlType
from pgbalise.tracing.written import (
    PLAIN,
    Bools,
    Floats,
    Format,
    Integers,
    as_strings,
    family,
    known_texts,
    masked,
)
from pgbalise.tracing.written_numbers import (
    canonical_floats,
    canonical_integers,
    canonical_numerics,
    plain_numbers,
    read_booleans,
    read_uuids,
    to_floats,
)
from pgbalise.tracing.written_times import print_stamps, read_clock, read_days, read_stamps


def canonical(text: pa.Array, declared: SqlType, format: Format = PLAIN) -> pa.Array:  # noqa: A002 - what it is
    """Return the values as PostgreSQL prints the declared type; NULL where a text is no such value.

    Times with a zone are printed in UTC. A numeric without a scale loses trailing zeros, and texts
    lose white space at either end and become Unicode's NFC form, so that equal values have equal
    texts: compare the stored values in the same way.
    """
    match family(declared):
        case "integer":
            return canonical_integers(plain_numbers(known_texts(text), format), declared, format)
        case "decimal" if declared.name == "numeric":
            return canonical_numerics(plain_numbers(known_texts(text), format), declared, format)
        case "decimal":
            return canonical_floats(plain_numbers(known_texts(text), format), declared, format)
        case "date":
            days, read = read_days(known_texts(text), format)
            return pc.cast(masked(days.astype(np.int32), read).cast(pa.date32()), pa.string())
        case "timestamp":
            zoned = declared.name == "timestamp with time zone"
            stamps, read = read_stamps(known_texts(text), format, zoned)
            shown = print_stamps(stamps, read)
            return pc.binary_join_element_wise(shown, "+00", "") if zoned else shown
        case "time":
            clock, read = read_clock(known_texts(text), format)
            shown = print_stamps(clock, read)
            return pc.utf8_slice_codeunits(shown, 11)
        case "boolean":
            return read_booleans(known_texts(text))
        case "uuid":
            return read_uuids(known_texts(text))
        case _:
            trimmed = pc.utf8_trim_whitespace(as_strings(text))
            return pc.utf8_normalize(trimmed, "NFC")


ABSURD = 1e100
"""A number that large is no data, and what is computed from it would overflow."""


def quantities(
    text: pa.Array,
    declared: SqlType,
    format: Format = PLAIN,  # noqa: A002 - what it is
) -> tuple[Floats, Bools]:
    """Return numbers, days or seconds since 1970, or seconds since midnight, and which were read.

    float64[n], in stored units; for every family that has an order, NaN where nothing was read.
    Raises ValueError for a type whose values have none.
    """
    known = known_texts(text)
    match family(declared):
        case "integer" | "decimal":
            numbers = to_floats(plain_numbers(known, format), format)
            return numbers, np.abs(numbers) < ABSURD
        case "date":
            units, read = read_days(known, format)
            scale = 1.0
        case "timestamp":
            zoned = declared.name == "timestamp with time zone"
            units, read = read_stamps(known, format, zoned)
            scale = 1e-6
        case "time":
            units, read = read_clock(known, format)
            scale = 1e-6
        case _:
            raise ValueError(f"values of {declared} have no order")
    return np.where(read, units * scale, np.nan), read


def seen_units(
    text: pa.Array,
    carrier: Carrier,
    format: Format = PLAIN,  # noqa: A002 - what it is
) -> tuple[Integers, Bools, int]:
    """Read a leaked carrier: units, where one could be read, and the decimals beyond the scale.

    Units are as the marking counts them (int64[n]): the carrier's scale and the extra decimals for
    numbers, days or microseconds since 1970, codes of the equivalents. The extra decimals are the
    same for all arrays of one column when ``format`` was inferred.
    """
    match carrier.kind:
        case Kind.CATEGORICAL:
            return (*_codes(text, carrier), 0)
        case Kind.DATE:
            return (*read_days(known_texts(text), format), 0)
        case Kind.TIMESTAMP:
            zoned = carrier.type.name == "timestamp with time zone"
            return (*read_stamps(known_texts(text), format, zoned), 0)
        case _:
            numbers = to_floats(plain_numbers(known_texts(text), format), format)
            fractional = format.fractional
            if fractional is None:
                whole = np.nan_to_num(numbers)
                fractional = bool(np.any(np.rint(whole) != whole))
            extra = 3 if fractional or carrier.kind is not Kind.INTEGER else 0
            power = 10.0 ** (carrier.scale + extra)
            read = np.abs(numbers) < 10.0**17 / power
            return np.rint(np.where(read, numbers, 0.0) * power).astype(np.int64), read, extra


def _codes(text: pa.Array, carrier: Carrier) -> tuple[Integers, Bools]:
    """Codes of equivalents; white space and normal form count only where they tell two apart."""
    bare = replace(carrier, by=None)

    def codes(array: pa.Array) -> Integers:
        return column_from_arrow(pa.table({carrier.column: array}), bare).values.astype(np.int64)

    strings = as_strings(text)
    exact = codes(strings)
    tidy = codes(canonical(strings, carrier.type))
    return np.where(exact >= 0, exact, tidy), np.asarray(strings.is_valid())
