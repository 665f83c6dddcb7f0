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

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.frames import column_from_arrow
from pgbalise.marking.policy import Carrier
from pgbalise.marking.types import INTEGER_TOPS, Kind, SqlType

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


# ---------------------------------------------------------------------------------------- reading


def canonical(text: pa.Array, declared: SqlType, format: Format = Format()) -> pa.Array:  # noqa: A002 - what it is
    """Return the values as PostgreSQL prints the declared type; NULL where a text is no such value.

    Times with a zone are printed in UTC. A numeric without a scale loses trailing zeros, and texts
    lose white space at either end and become Unicode's NFC form, so that equal values have equal
    texts: compare the stored values in the same way.
    """
    match family(declared):
        case "integer":
            return _canonical_integers(_plain_numbers(_known(text), format), declared, format)
        case "decimal" if declared.name == "numeric":
            return _canonical_numerics(_plain_numbers(_known(text), format), declared, format)
        case "decimal":
            return _canonical_floats(_plain_numbers(_known(text), format), declared, format)
        case "date":
            days, read = _days(_known(text), format)
            return pc.cast(_masked(days.astype(np.int32), read).cast(pa.date32()), pa.string())
        case "timestamp":
            zoned = declared.name == "timestamp with time zone"
            stamps, read = _stamps(_known(text), format, zoned)
            shown = _print_stamps(stamps, read)
            return pc.binary_join_element_wise(shown, "+00", "") if zoned else shown
        case "time":
            clock, read = _clock(_known(text), format)
            shown = _print_stamps(clock, read)
            return pc.utf8_slice_codeunits(shown, 11)
        case "boolean":
            return _booleans(_known(text))
        case "uuid":
            return _uuids(_known(text))
        case _:
            trimmed = pc.utf8_trim_whitespace(_strings(text))
            return pc.utf8_normalize(trimmed, "NFC")


ABSURD = 1e100
"""A number that large is no data, and what is computed from it would overflow."""


def quantities(
    text: pa.Array,
    declared: SqlType,
    format: Format = Format(),  # noqa: A002 - what it is
) -> tuple[Floats, Bools]:
    """Return numbers, days or seconds since 1970, or seconds since midnight, and which were read.

    float64[n], in stored units; for every family that has an order, NaN where nothing was read.
    Raises ValueError for a type whose values have none.
    """
    known = _known(text)
    match family(declared):
        case "integer" | "decimal":
            numbers = _floats(_plain_numbers(known, format), format)
            return numbers, np.abs(numbers) < ABSURD
        case "date":
            units, read = _days(known, format)
            scale = 1.0
        case "timestamp":
            zoned = declared.name == "timestamp with time zone"
            units, read = _stamps(known, format, zoned)
            scale = 1e-6
        case "time":
            units, read = _clock(known, format)
            scale = 1e-6
        case _:
            raise ValueError(f"values of {declared} have no order")
    return np.where(read, units * scale, np.nan), read


def seen_units(
    text: pa.Array,
    carrier: Carrier,
    format: Format = Format(),  # noqa: A002 - what it is
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
            return (*_days(_known(text), format), 0)
        case Kind.TIMESTAMP:
            zoned = carrier.type.name == "timestamp with time zone"
            return (*_stamps(_known(text), format, zoned), 0)
        case _:
            numbers = _floats(_plain_numbers(_known(text), format), format)
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

    strings = _strings(text)
    exact = codes(strings)
    tidy = codes(canonical(strings, carrier.type))
    return np.where(exact >= 0, exact, tidy), np.asarray(strings.is_valid())


# ------------------------------------------------------------------------------------ plain texts


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


def _strings(text: pa.Array) -> pa.Array:
    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    if pa.types.is_dictionary(text.type):
        text = text.dictionary_decode()
    return text if pa.types.is_string(text.type) else pc.cast(text, pa.string())


def _known(text: pa.Array) -> pa.Array:
    """Texts without white space at either end, NULL for the words that mean it."""
    trimmed = pc.utf8_trim_whitespace(_strings(text))
    nothing = pc.is_in(trimmed, value_set=pa.array(_NOTHING, pa.string()))
    return _only(trimmed, pc.invert(nothing)) if pc.any(nothing).as_py() else trimmed


def _only(array: pa.Array, keep: pa.Array | Bools) -> pa.Array:
    """NULL where ``keep`` does not hold."""
    return pc.if_else(_mask(keep), array, pa.scalar(None, array.type))


def _mask(flags: pa.Array | Bools) -> pa.Array:
    return pa.array(flags) if isinstance(flags, np.ndarray) else pc.fill_null(flags, False)


def _matches(text: pa.Array, pattern: str) -> Bools:
    """Where a text matches; not where it is NULL."""
    return _flags(pc.match_substring_regex(text, pattern))


def _flags(array: pa.Array) -> Bools:
    return np.asarray(pc.fill_null(array, False)).astype(np.bool_)


def _valid(array: pa.Array) -> Bools:
    return np.asarray(array.is_valid()).astype(np.bool_)


def _masked(values: NDArray[Any], read: Bools) -> pa.Array:
    return pa.array(values, mask=~read)


def _at(array: pa.Array, rows: Bools) -> pa.Array:
    return array.filter(pa.array(rows))


# ---------------------------------------------------------------------------------------- numbers

_NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_SPACES = r"[ \x{00a0}\x{202f}\x{2009}'’]"
_SPACED = rf"^[+-]?[1-9][0-9]{{0,2}}({_SPACES}[0-9]{{3}})+([.,][0-9]*)?$"
_UNIT = r"[0-9]\.?\s*(?P<unit>[^\s0-9.,+'’-][^\s0-9]*)$"


def _plain_numbers(text: pa.Array, form: Format) -> pa.Array:
    """The numbers as digits with a point, NULL for what is none; still in the leak's unit."""
    sure = _NUMBER if form.thousands != "." else r"^[+-]?[0-9]+$"
    plain = pc.match_substring_regex(text, sure)
    rest = ~_flags(plain) & _valid(text)
    out = _only(text, plain)
    if not rest.any():
        return out
    return pc.replace_with_mask(out, pa.array(rest), _odd_numbers(_at(text, rest), form))


def _odd_numbers(text: pa.Array, form: Format) -> pa.Array:
    text = pc.replace_substring(text, "−", "-")
    if form.unit:
        bare = pc.utf8_slice_codeunits(text, 0, -len(form.unit))
        ends = pc.ends_with(text, form.unit)
        text = pc.utf8_rtrim_whitespace(pc.if_else(ends, bare, text))
    spaced = pc.match_substring_regex(text, _SPACED)
    if pc.any(spaced).as_py():
        text = pc.if_else(spaced, pc.replace_substring_regex(text, _SPACES, ""), text)
    if form.thousands:
        sign, point = form.thousands, form.decimal
        grouped = pc.match_substring_regex(
            text, rf"^[+-]?[1-9][0-9]{{0,2}}(\{sign}[0-9]{{3}})+(\{point}[0-9]*)?$"
        )
        text = pc.if_else(grouped, pc.replace_substring(text, sign, ""), text)
        if sign == ".":
            # what still has a point is no number of this column
            other = pc.match_substring(text, ".")
            text = _only(text, pc.invert(other))
    if form.decimal == ",":
        text = pc.replace_substring(text, ",", ".")
    return _only(text, pc.match_substring_regex(text, _NUMBER))


def _floats(plain: pa.Array, form: Format) -> Floats:
    """Numbers in the stored unit; NaN where there is none."""
    numbers: Floats = np.asarray(pc.fill_null(pc.cast(plain, pa.float64()), np.nan))
    if form.converted:
        numbers = (numbers - form.offset) / form.factor
    return numbers


def _rounded(numbers: Floats, form: Format, declared: SqlType) -> Floats:
    """Converted numbers with no more digits than the stored ones have."""
    scale = declared.scale if declared.scale is not None else form.scale
    return numbers if scale is None else np.round(numbers, scale)


def _canonical_integers(plain: pa.Array, declared: SqlType, form: Format) -> pa.Array:
    top = INTEGER_TOPS[declared.name]
    if form.converted:
        numbers = np.rint(_floats(plain, form))
        fits = np.abs(numbers) < min(float(top), 2.0**53)
        return pc.cast(_masked(np.where(fits, numbers, 0).astype(np.int64), fits), pa.string())
    # a spreadsheet or a data frame may have written 17 as 17.0
    whole = pc.replace_substring_regex(plain, r"^\+|\.0*$", "")
    digits = _matches(whole, r"^-?[0-9]{1,18}$")
    number = pc.cast(_only(whole, digits), pa.int64())
    rest = _valid(plain) & ~digits
    if rest.any():
        number = pc.replace_with_mask(number, pa.array(rest), _large_integers(_at(plain, rest)))
    fits = pc.and_(pc.greater_equal(number, -top - 1), pc.less_equal(number, top))
    return pc.cast(_only(number, fits), pa.string())


def _large_integers(plain: pa.Array) -> pa.Array:
    """19 digits, or an exponent; NULL when it is no integer or a double may not hold it."""

    def whole(text: str | None) -> int | None:
        assert text is not None
        if text.lstrip("+-").isdigit():
            number = int(text) if len(text) < 40 else 2**63
            return number if -(2**63) <= number < 2**63 else None
        value = float(text)
        return int(value) if value.is_integer() and abs(value) < 2**53 else None

    # as many values as such a column has are rare; each is looked at once
    distinct = plain.dictionary_encode()
    values = pa.array([whole(text) for text in distinct.dictionary.to_pylist()], pa.int64())
    return values.take(distinct.indices)


def _canonical_numerics(plain: pa.Array, declared: SqlType, form: Format) -> pa.Array:
    if form.converted:
        plain = _print_floats(_rounded(_floats(plain, form), form, declared), exponents=None)
    power = pc.match_substring_regex(plain, "[eE]")
    if pc.any(power).as_py():
        spelt = _print_floats(_floats(plain, Format()), exponents=None)
        plain = pc.if_else(power, spelt, plain)
    if declared.scale is not None:
        return _scaled(plain, declared)
    tidy = _matches(plain, r"^(0|-?[1-9][0-9]*|-?(0|[1-9][0-9]*)\.[0-9]*[1-9])$")
    rest = _valid(plain) & ~tidy
    if not rest.any():
        return plain
    odd = pc.replace_substring_regex(_at(plain, rest), r"^\+", "")
    odd = pc.replace_substring_regex(odd, r"^(-?)0*([0-9])", r"\1\2")
    odd = pc.replace_substring_regex(odd, r"^(-?)\.", r"\g<1>0.".replace(r"\g<1>", r"\1"))
    odd = pc.replace_substring_regex(odd, r"(\.[0-9]*?)0*$", r"\1")
    odd = pc.replace_substring_regex(odd, r"\.$", "")
    odd = pc.replace_substring_regex(odd, r"^-0$", "0")
    return pc.replace_with_mask(plain, pa.array(rest), odd)


def _scaled(plain: pa.Array, declared: SqlType) -> pa.Array:
    """Numbers with the declared number of decimals, NULL where they do not fit the type."""
    scale = declared.scale or 0
    precision = declared.precision or 38
    fits = pc.match_substring_regex(plain, r"^[+-]?[0-9]{0,20}(\.[0-9]{0,17})?$")
    wide = pc.cast(_only(plain, fits), pa.decimal128(38, 17))
    rounded = pc.round(wide, ndigits=min(scale, 17), round_mode="half_towards_infinity")
    small = pc.less(pc.cast(pc.abs(rounded), pa.float64()), pa.scalar(10.0 ** (precision - scale)))
    places = min(max(scale, 0), 17)
    shown = pc.cast(pc.cast(_only(rounded, small), pa.decimal128(38, places)), pa.string())
    power = pc.match_substring(shown, "E")
    if not pc.any(power).as_py():
        return shown
    # a decimal smaller than a millionth is printed with an exponent
    spelt = [None if v is None else f"{v:.{places}f}" for v in rounded.to_pylist()]
    return pc.if_else(power, pa.array(spelt, pa.string()), shown)


def _canonical_floats(plain: pa.Array, declared: SqlType, form: Format) -> pa.Array:
    numbers = _floats(plain, form)
    if form.converted:
        numbers = _rounded(numbers, form, declared)
    single = declared.name == "real"
    if single:
        with np.errstate(over="ignore"):
            return _print_floats(numbers.astype(np.float32), exponents=6)
    return _print_floats(numbers, exponents=15)


def _print_floats(numbers: NDArray[np.floating[Any]], *, exponents: int | None) -> pa.Array:
    """The shortest digits that give the number back.

    With a power of ten from 10**exponents on and below 1e-4, as PostgreSQL; never if it is None.
    """
    finite = np.isfinite(numbers)
    shown = pc.cast(_masked(numbers, finite), pa.string())
    size = np.abs(np.where(finite, numbers, 0))
    upper = 1e6 if exponents is None else min(10.0**exponents, 1e14)
    rest = finite & (((size < 1e-4) & (size != 0)) | (size >= upper))
    if not rest.any():
        return shown

    def spelt(number: np.floating[Any]) -> str:
        magnitude = abs(float(number))
        if exponents is None or 1e-4 <= magnitude < 10.0**exponents:
            return np.format_float_positional(number, trim="-")
        return np.format_float_scientific(number, trim="-", exp_digits=2)

    distinct, index = np.unique(numbers[rest], return_inverse=True)
    texts = pa.array([spelt(number) for number in distinct], pa.string())
    return pc.replace_with_mask(shown, pa.array(rest), texts.take(pa.array(index)))


# ------------------------------------------------------------------------------ booleans and uuids

_TRUE = ("t", "true", "1", "1.0", "y", "yes", "on", "o", "oui", "v", "vrai", "x")
_FALSE = ("f", "false", "0", "0.0", "n", "no", "off", "non", "faux")


def _booleans(text: pa.Array) -> pa.Array:
    words = pa.array([*_TRUE, *_FALSE])
    shown = pa.array(["t"] * len(_TRUE) + ["f"] * len(_FALSE))
    return shown.take(pc.index_in(pc.utf8_lower(text), value_set=words))


_UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


def _uuids(text: pa.Array) -> pa.Array:
    plain = _matches(text, _UUID)
    lower = pc.utf8_lower(text)
    rest = _valid(text) & ~plain
    if not rest.any():
        return lower
    bare = pc.replace_substring_regex(_at(lower, rest), r"^(urn:uuid:)?\{?|\}$", "")
    bare = pc.replace_substring(bare, "-", "")
    cuts = ((0, 8), (8, 12), (12, 16), (16, 20), (20, None))
    parts = [pc.utf8_slice_codeunits(bare, start, stop) for start, stop in cuts]
    dashed = pc.binary_join_element_wise(*parts, "-")
    dashed = _only(dashed, pc.match_substring_regex(dashed, _UUID))
    return pc.replace_with_mask(lower, pa.array(rest), dashed)


# ------------------------------------------------------------------------------- dates and times

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_EXCEL_DAYS = 25_569
"""Days from 1899-12-30 to 1970-01-01."""

_ZONE = r"(?P<z>Z|z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?"
_CLOCK = (
    r"(?P<h>[0-9]{1,2})\s?[:hH]\s?(?P<m>[0-9]{2})?"
    r"(?:\s?(?::|min|m|')\s?(?P<s>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?\s?s?)?"
    r"\s?(?P<p>[AaPp]\.?[Mm]\.?)?\s?" + _ZONE
)
_LATER = rf"(?:(?:T|t|,?\s+(?:à\s+)?){_CLOCK})?$"
_SIGN = r"(?:\s?[-/. ]\s?)"
# Unicode's class of letters would take longer to compile than a thousand dates to read
_NAME = r"[^\s0-9./,:-]{3,}\.?"
_DAY_FIRST = (
    rf"^(?P<a>[0-9]{{1,4}})(?:er)?{_SIGN}(?P<b>[0-9]{{1,2}}|{_NAME})"
    rf"{_SIGN}(?P<c>[0-9]{{1,4}}){_LATER}"
)
_MONTH_FIRST = (
    rf"^(?P<b>{_NAME}){_SIGN}(?P<a>[0-9]{{1,2}})(?:st|nd|rd|th)?,?\s?(?P<c>[0-9]{{4}})"
    rf"{_LATER}"
)
_COMPACT = (
    r"^(?P<a>[0-9]{4})(?P<b>[0-9]{2})(?P<c>[0-9]{2})(?:[T ]?(?P<h>[0-9]{2}):?(?P<m>[0-9]{2})"
    r"(?::?(?P<s>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)?(?P<p>)" + _ZONE + ")?$"
)
_WEEKDAY = (
    r"(?i)^(?:lun(?:di)?|mar(?:di)?|mer(?:credi)?|jeu(?:di)?|ven(?:dredi)?|sam(?:edi)?|dim(?:anche)?"
    r"|mon(?:day)?|tue(?:sday)?|wed(?:nesday)?|thu(?:rsday)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)"
    r"\.?,?\s+(?:le\s+)?(.)"
)
_MONTHS = {
    name: month
    for month, names in enumerate(
        (
            "janvier janv jan january",
            "février fevrier févr fevr fév fev feb february",
            "mars mar march",
            "avril avr april apr",
            "mai may",
            "juin jun june",
            "juillet juil juill jul july",
            "août aout aoû aou august aug",
            "septembre sept sep september",
            "octobre oct october",
            "novembre nov november",
            "décembre decembre déc dec december",
        ),
        start=1,
    )
    for name in names.split()
}


def _days(text: pa.Array, form: Format) -> tuple[Integers, Bools]:
    """Days since 1970 of dates, a time after them ignored; days that do not exist are not read."""
    days, read = _iso_days(text)
    rest = _valid(text) & ~read
    if rest.any():
        # there are fewer days than rows
        distinct = _at(text, rest).dictionary_encode()
        odd, at = distinct.dictionary, np.asarray(distinct.indices)
        more, ok = _iso_days(_like_iso(odd, form))
        if not ok.all():
            last, _, right = _moments(_at(odd, ~ok), form)
            more[~ok], ok[~ok] = np.where(right, last, 0), right
        days[rest], read[rest] = more[at], ok[at]
    return days, read


def _stamps(text: pa.Array, form: Format, zoned: bool) -> tuple[Integers, Bools]:
    """Microseconds since 1970 UTC, with or without a zone's offset; a date alone is midnight."""
    moments, naive, read = _iso_stamps(text)
    rest = _valid(text) & ~read
    if rest.any():
        odd = _at(text, rest)
        more, bare, ok = _iso_stamps(_like_iso(odd, form))
        if not ok.all():
            days, clock, right = _moments(_at(odd, ~ok), form)
            local = clock.zone == _NO_ZONE
            last = days * _DAY + clock.microseconds - np.where(local, 0, clock.zone)
            more[~ok], bare[~ok], ok[~ok] = np.where(right, last, 0), right & local, right
        moments[rest], naive[rest], read[rest] = more, bare, ok
    if zoned and form.zone != "UTC" and naive.any():
        moments = np.where(naive, _in_zone(moments, form.zone), moments)
    return moments, read


def _iso_days(text: pa.Array) -> tuple[Integers, Bools]:
    iso = pc.match_substring_regex(text, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T].*)?$")
    shown = _only(pc.utf8_slice_codeunits(text, 0, 10), iso)
    try:
        dates = pc.cast(shown, pa.date32())
        read = _valid(dates)
    except pa.ArrowInvalid:
        # a day that does not exist, for which strptime may take another one
        dates = pc.strptime(shown, format="%Y-%m-%d", unit="s", error_is_null=True)
        dates = pc.cast(dates, pa.date32())
        read = _flags(pc.equal(pc.cast(dates, pa.string()), shown))
    return np.where(read, _whole(dates.view(pa.int32())), 0), read.copy()


_ISO_STAMP = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T]([01][0-9]|2[0-3]):[0-5][0-9]"
    r"(:[0-5][0-9](\.[0-9]{1,6})?)?"
)
_ISO_ZONE = r"(Z|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)"


def _iso_stamps(text: pa.Array) -> tuple[Integers, Bools, Bools]:
    """Microseconds, where they name no zone, and which were read."""
    moments = np.zeros(len(text), np.int64)
    read, naive = np.zeros((2, len(text)), np.bool_)
    for pattern, zone in ((_ISO_STAMP + _ISO_ZONE + "$", "UTC"), (_ISO_STAMP + "$", None)):
        if read.all():
            break
        mine = _only(text, pc.match_substring_regex(text, pattern))
        try:
            stamps = pc.cast(mine, pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            _, there = _iso_days(mine)
            stamps = pc.cast(_only(mine, there), pa.timestamp("us", zone))
        ok = _valid(stamps)
        moments = np.where(ok, _whole(stamps.view(pa.int64())), moments)
        read |= ok
        naive |= ok & (zone is None)
    return moments, naive, read


_SWAPS = {
    "dmy": (r"^([0-9]{2})[-/.]([0-9]{2})[-/.]([0-9]{4})", r"\3-\2-\1"),
    "mdy": (r"^([0-9]{2})[-/.]([0-9]{2})[-/.]([0-9]{4})", r"\3-\1-\2"),
    "compact": (r"^([0-9]{4})([0-9]{2})([0-9]{2})", r"\1-\2-\3"),
}


def _like_iso(text: pa.Array, form: Format) -> pa.Array:
    """Rewrite the layouts that are frequent in leaks, several times faster than taking them apart.

    What has another layout becomes something that is no ISO date either.
    """
    if form.calendar in ("excel", "unix s", "unix ms", "unix us"):
        return text
    for pattern, shown in (
        _SWAPS[form.calendar],
        (r"^(.{10})[ T]([0-9]{2})[hH]([0-9]{2})$", r"\1 \2:\3"),
        # a data frame's nanoseconds
        (r"^(.{19}\.[0-9]{6})[0-9]{1,3}", r"\1"),
    ):
        if _matches(text, pattern).any():
            text = pc.replace_substring_regex(text, pattern, shown)
    return text


def _in_zone(local: Integers, zone: str) -> Integers:
    """UTC of local times; unknown zones count as UTC."""
    try:
        moments = pc.assume_timezone(
            pa.array(local, pa.timestamp("us")), zone, ambiguous="earliest", nonexistent="latest"
        )
    except pa.ArrowInvalid:
        return local
    return np.asarray(moments.view(pa.int64())).astype(np.int64)


def _print_stamps(stamps: Integers, read: Bools) -> pa.Array:
    shown = pc.cast(_masked(stamps, read).cast(pa.timestamp("us")), pa.string())
    return pc.replace_substring_regex(shown, r"\.?0*$", "")


def _clock(text: pa.Array, form: Format) -> tuple[Integers, Bools]:
    """Microseconds since midnight."""
    parts = pc.extract_regex(text, rf"^{_CLOCK}$")
    clock = _time_of_day(parts)
    units, read = np.where(clock.read, clock.microseconds, 0), clock.read & _valid(parts)
    if form.calendar == "excel":
        share = _floats(_plain_numbers(text, _EITHER), _EITHER)
        serial = ~read & (share >= 0) & (share < 1)
        units = np.where(serial, _milliseconds(np.where(serial, share, 0.0) * _DAY), units)
        read = read | serial
    return units, read


_NO_ZONE = np.iinfo(np.int64).min
_EITHER = Format(decimal=",")


@dataclass(frozen=True)
class _Clock:
    """Times of day: microseconds since midnight, of the zone's offset, and which were read."""

    microseconds: Integers
    zone: Integers
    read: Bools


def _whole(array: pa.Array) -> Integers:
    return np.asarray(pc.fill_null(array, 0)).astype(np.int64)


def _group(parts: pa.Array, name: str) -> pa.Array:
    return pc.fill_null(pc.struct_field(parts, name), "")


def _digits(text: pa.Array) -> Integers:
    """Texts of at most 9 digits as numbers; an empty one is 0."""
    return np.asarray(pc.cast(pc.if_else(pc.equal(text, ""), "0", text), pa.int64()))


def _milliseconds(microseconds: Floats) -> Integers:
    """A spreadsheet knows no more than milliseconds."""
    return np.rint(microseconds / 1000).astype(np.int64) * 1000


def _time_of_day(parts: pa.Array) -> _Clock:
    hour, minute, second = (_digits(_group(parts, name)) for name in "hms")
    fraction = pc.utf8_slice_codeunits(pc.utf8_rpad(_group(parts, "f"), width=6, padding="0"), 0, 6)
    half = pc.utf8_lower(pc.utf8_slice_codeunits(_group(parts, "p"), 0, 1))
    noon, twelve = _flags(pc.equal(half, "p")), _flags(pc.not_equal(half, ""))
    read = (hour < 24) & (minute < 60) & (second < 60)
    read &= ~twelve | ((hour >= 1) & (hour <= 12))
    hour = np.where(twelve, hour % 12 + 12 * noon, hour)
    zone = _group(parts, "z")
    numeric = _matches(zone, "^[+-]")
    digits = pc.replace_substring(pc.utf8_slice_codeunits(zone, 1), ":", "")
    padded = pc.utf8_rpad(pc.if_else(pa.array(numeric), digits, "0000"), width=4, padding="0")
    number = _digits(padded)
    offset = (number // 100 * 3600 + number % 100 * 60) * _SECOND
    offset = np.where(_flags(pc.starts_with(zone, "-")), -offset, offset)
    offset = np.where(_flags(pc.equal(zone, "")), _NO_ZONE, offset)
    time = ((hour * 60 + minute) * 60 + second) * _SECOND + _digits(fraction)
    return _Clock(time, offset, read)


def _moments(text: pa.Array, form: Format) -> tuple[Integers, _Clock, Bools]:
    """Read dates with or without a time of day: days since 1970, the time, and which were read."""
    if form.calendar in ("excel", "unix s", "unix ms", "unix us"):
        counted, read = _counted(text, form.calendar)
        days = counted // _DAY
        clock = _Clock(counted - days * _DAY, np.full(len(days), _NO_ZONE), read)
        if not form.calendar.startswith("excel"):
            clock = replace(clock, zone=np.zeros(len(days), np.int64))
        rest = ~read
        if rest.any():
            more, later, ok = _moments(_at(text, rest), replace(form, calendar="dmy"))
            days, read = days.copy(), read.copy()
            days[rest], read[rest] = more, ok
            clock.microseconds[rest], clock.zone[rest] = later.microseconds, later.zone
        return days, clock, read
    if pc.any(pc.match_substring_regex(text, r"^[^0-9]")).as_py():
        text = pc.replace_substring_regex(text, _WEEKDAY, r"\1")
    days = np.zeros(len(text), np.int64)
    time, zone = np.zeros(len(text), np.int64), np.full(len(text), _NO_ZONE)
    read = np.zeros(len(text), np.bool_)
    patterns = [_DAY_FIRST, _MONTH_FIRST] + [_COMPACT] * (form.calendar == "compact")
    for pattern in patterns:
        rows = ~read
        if not rows.any():
            break
        parts = pc.extract_regex(text if rows.all() else _at(text, rows), pattern)
        found = _valid(parts)
        if not found.any():
            continue
        order = "ymd" if pattern is _COMPACT else form.calendar
        day, ok = _calendar_days(parts, order, form.pivot)
        clock = _time_of_day(parts)
        days[rows], time[rows], zone[rows] = day, clock.microseconds, clock.zone
        read[rows] = ok & clock.read & found
    return days, _Clock(time, zone, read), read


def _calendar_days(parts: pa.Array, order: str, pivot: int) -> tuple[Integers, Bools]:
    first, middle, last = (_group(parts, name) for name in "abc")
    named = _matches(middle, r"^[^0-9]")
    if named.any():
        name = pc.utf8_lower(pc.utf8_rtrim(pc.utf8_normalize(middle, "NFC"), "."))
        at = pc.index_in(name, value_set=pa.array(list(_MONTHS)))
        month_of = pa.array(list(_MONTHS.values()), pa.int64())
        by_name = np.asarray(pc.fill_null(month_of.take(at), 0))
        middle = pc.if_else(pa.array(named), "", middle)
    else:
        by_name = np.zeros(len(first), np.int64)
    widths = [np.asarray(pc.binary_length(part)) for part in (first, last)]
    a, b, c = (_digits(part) for part in (first, middle, last))
    swapped = (order == "mdy") & ~named
    leading = widths[0] == 4
    year = np.where(leading, a, c)
    short = ~leading & (widths[1] == 2)
    year = np.where(short, pivot - (pivot - year) % 100, year)
    day = np.where(leading, c, np.where(swapped, b, a))
    month = np.where(named, by_name, np.where(leading, b, np.where(swapped, a, b)))
    widths_fit = (leading & (widths[1] <= 2)) | (
        (widths[0] <= 2) & ((widths[1] == 2) | (widths[1] == 4))
    )
    ok = widths_fit & (year >= 1) & (year <= 9999) & (month >= 1) & (month <= 12) & (day >= 1)
    months = np.where(ok, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    start = months.astype("datetime64[D]").astype(np.int64)
    length = (months + 1).astype("datetime64[D]").astype(np.int64) - start
    ok &= day <= length
    return np.where(ok, start + day - 1, 0), ok


_STEPS = {"unix s": 1e6, "unix ms": 1e3, "unix us": 1.0}
_FARTHEST = 253_402_300_800 * 1e6
"""The year 10000."""


def _counted(text: pa.Array, calendar: str) -> tuple[Integers, Bools]:
    """Microseconds since 1970 of numbers that count days, seconds or less."""
    numbers = _floats(_plain_numbers(text, _EITHER), _EITHER)
    if calendar == "excel":
        moments = (numbers - _EXCEL_DAYS) * _DAY
        read = (numbers >= 0) & (np.abs(moments) < _FARTHEST)
        return _milliseconds(np.where(read, moments, 0.0)), read
    moments = numbers * _STEPS[calendar]
    read = np.abs(moments) < _FARTHEST
    return np.rint(np.where(read, moments, 0.0)).astype(np.int64), read


# -------------------------------------------------------------------------------------- inference


@dataclass(frozen=True)
class Known:
    """Stored values that leaked ones are held against."""

    numbers: Floats
    """As numbers (see `quantities`), sorted."""
    places: int
    """Decimals that nearly all of them need no more than (see `decimals`)."""

    @classmethod
    def of(cls, text: pa.Array, declared: SqlType) -> Known:
        """Read values as PostgreSQL prints them."""
        numbers, read = quantities(text, declared)
        counted = family(declared) in ("integer", "decimal")
        return cls(np.sort(numbers[read]), decimals(text, Format()) if counted else 0)


def infer_format(text: pa.Array, declared: SqlType, like: pa.Array | Known | None = None) -> Format:
    """Return how a column writes its values, told from a sample of it.

    ``like``: stored values, as PostgreSQL prints them, of the column that it was mapped to. They
    decide between readings that the texts alone leave open, and show a change of unit; without
    them French order and the decimal comma are presumed. The same sample gives the same format.
    """
    plausible = formats(text, declared)
    kind = family(declared)
    if kind in ("boolean", "uuid", "text") or like is None:
        return _finished(text, declared, plausible[0], None)
    known = like if isinstance(like, Known) else Known.of(like, declared)
    stored = known.numbers
    if not len(stored):
        return _finished(text, declared, plausible[0], None)
    if kind == "date" or kind == "timestamp":
        seconds = stored[-1] * (86_400 if kind == "date" else 1)
        last = 1970 + int(seconds // (365.2425 * 86_400))
        plausible = tuple(replace(form, pivot=last) for form in plausible)
    best, closest = plausible[0], -1.0
    for form in plausible if len(plausible) > 1 else ():
        numbers, read = quantities(text, declared, form)
        near = closeness(numbers[read], stored)
        # the likelier one stays unless another is clearly closer
        if near > closest + 0.02:
            best, closest = form, near
    if kind == "timestamp" and declared.name == "timestamp with time zone":
        best = _zoned(text, declared, best, stored)
    return _finished(text, declared, best, known)


def formats(text: pa.Array, declared: SqlType) -> tuple[Format, ...]:
    """Return the formats in which (nearly) the most of a sample can be read, likeliest first.

    More than one where the texts leave it open: 1,234 or 03/02/2021 in every row.
    """
    known = _known(text)
    match family(declared):
        case "integer" | "decimal":
            return _number_formats(known, declared)
        case "date" | "timestamp":
            return _calendars(known)
        case "time":
            bare = _matches(known, r"^[0-9]*[.,][0-9]+$").sum() * 2 > _valid(known).sum()
            return (Format(calendar="excel" if bare else "dmy"),)
        case _:
            return (Format(),)


_SIGNS: tuple[tuple[Literal[".", ","], Literal["", ".", ","]], ...] = (
    (".", ""),
    (",", ""),
    (",", "."),
    (".", ","),
)
_OPEN = 0.02
"""Readings of as many cells but for this share are left open for the stored values to decide."""


def _number_formats(known: pa.Array, declared: SqlType) -> tuple[Format, ...]:
    if _matches(known, _NUMBER).sum() == _valid(known).sum():
        dotted = _matches(known, r"^[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+$")
        if not dotted.sum() or (_matches(known, r"\.") & ~dotted).any():
            return (Format(),)
    unit = _unit(known)
    found = []
    for prior, (decimal, thousands) in enumerate(_SIGNS):
        form = Format(decimal=decimal, thousands=thousands, unit=unit)
        numbers = _floats(_plain_numbers(known, form), form)
        read = np.isfinite(numbers)
        count = int(read.sum())
        whole = 0.0
        if family(declared) == "integer":
            whole = float(np.mean(np.rint(numbers[read]) == numbers[read])) if count else 0.0
        found.append((-count, -round(whole, 2), prior, form))
    return _likeliest(found, int(_valid(known).sum()))


def _likeliest(found: list[tuple[int, float, int, Format]], cells: int) -> tuple[Format, ...]:
    """Drop what reads clearly less than the best, and what reads no more than a simpler one."""
    found.sort(key=lambda one: one[:3])
    most = -found[0][0]
    return tuple(form for count, _, _, form in found if -count >= most - _OPEN * cells)


def _unit(known: pa.Array) -> str:
    """What most of the numbers that something follows are followed by."""
    rest = _valid(known) & ~_matches(known, _NUMBER)
    found = pc.struct_field(pc.extract_regex(_at(known, rest), _UNIT), "unit").drop_null()
    if not len(found):
        return ""
    counts = pc.value_counts(found)
    texts, numbers = counts.field(0).to_pylist(), counts.field(1).to_pylist()
    number, text = max(zip(numbers, texts, strict=True))
    return text if number >= 0.05 * _valid(known).sum() else ""


_PLAUSIBLE = (-43_830, 65_744)
"""1850 to 2150, in days since 1970."""


def _calendars(known: pa.Array) -> tuple[Format, ...]:
    cells = int(_valid(known).sum())
    bare = _matches(known, r"^[+-]?[0-9]+([.,][0-9]*)?$|^[0-9]{8}[T ]?[0-9]{4}")
    open_order = _matches(known, r"^[0-9]{1,2}[-/. ]")
    if not bare.any() and not open_order.any():
        return (Format(),)
    tried: tuple[Calendar, ...] = ("dmy", "mdy")
    if bare.sum() * 2 > cells:
        tried = ("compact", "excel", "unix s", "unix ms", "unix us")
    found = []
    for prior, calendar in enumerate(tried):
        form = Format(calendar=calendar)
        days, _, read = _moments(known, form)
        read &= (days >= _PLAUSIBLE[0]) & (days <= _PLAUSIBLE[1]) & _valid(known)
        if calendar.startswith("unix"):
            # 20210203 is sooner a day than a moment of 1970, as any small number would be
            read &= ~_matches(known, r"^(1[89]|2[01])[0-9]{6}$") & (np.abs(days) >= 10)
        found.append((-int(read.sum()), 0.0, prior, form))
    return _likeliest(found, cells)


def _zoned(text: pa.Array, declared: SqlType, form: Format, stored: Floats) -> Format:
    """Choose the zone of times that name none by how many minutes of theirs are stored."""
    minutes = np.unique(stored // 60)
    best, most = form, -1.0
    for zone in ("UTC", "Europe/Paris"):
        tried = replace(form, zone=zone)
        moments, read = quantities(text, declared, tried)
        share = float(np.mean(np.isin(moments[read] // 60, minutes))) if read.any() else 0.0
        if share > most + 0.1:
            best, most = tried, share
    return best


def _finished(text: pa.Array, declared: SqlType, form: Format, stored: Known | None) -> Format:
    """Add what only numbers have: their unit, and whether there are decimals."""
    if family(declared) not in ("integer", "decimal"):
        return form
    if stored is not None:
        form = replace(form, scale=stored.places if stored.places <= 9 else None)
        leaked, read = quantities(text, declared, form)
        factor, offset = conversion(
            np.sort(leaked[read]), stored.numbers, decimals(text, form), stored.places, declared
        )
        form = replace(form, factor=factor, offset=offset)
    leaked, read = quantities(text, declared, form)
    fractional = form.converted or bool(np.any(np.rint(leaked[read]) != leaked[read]))
    return replace(form, fractional=fractional)


def decimals(text: pa.Array, form: Format) -> int:
    """Return how many decimals 99 % of a sample's numbers need no more than, 0 for no numbers.

    17, as many as there can be, where most have a power of ten.
    """
    numbers = _plain_numbers(_known(text), form).drop_null()
    plain = numbers.filter(pc.invert(pc.match_substring_regex(numbers, "[eE]")))
    if 2 * len(plain) < len(numbers):
        return 17
    if not len(plain):
        return 0
    digits = pc.replace_substring_regex(plain, r"(\.[0-9]*?)0*$", r"\1")
    point = np.asarray(pc.find_substring(digits, ".")).astype(np.int64)
    length = np.asarray(pc.binary_length(digits)).astype(np.int64)
    places = np.where(point < 0, 0, length - point - 1)
    return int(np.quantile(places, 0.99, method="higher"))


_FACTORS = (
    *(10.0**power for power in (1, 2, 3, 6)),
    *(2.20462, 2.2),  # kg to lb
    *(2.54, 30.48),  # inches and feet to cm
    *(18.016, 5.5506),  # glucose: mmol/L to mg/dL, g/L to mmol/L
    *(38.67, 2.586),  # cholesterol: likewise
    *(88.42, 8.842),  # creatinine: mg/dL and mg/L to µmol/L; nearly triglycerides, too
    *(17.1, 6.006, 16.65, 59.48, 4.008),  # bilirubin, urea, urea in g/L, urate, calcium
    7.50062,  # kPa to mmHg
    4.184,  # kcal to kJ
    *(12.0, 365.25),  # years to months and days
)
_CONVERSIONS = (
    *((factor, 0.0) for factor in _FACTORS),
    *((1 / factor, 0.0) for factor in _FACTORS),
    *((1.8, 32.0), (1 / 1.8, -32 / 1.8)),  # °C and °F
    *((10.929, -23.5), (1 / 10.929, 2.15)),  # HbA1c: % (NGSP) and mmol/mol (IFCC)
)
_FAR = 0.35
_NEAR = 0.12


def conversion(
    leaked: Floats, stored: Floats, leaked_places: int, stored_places: int, declared: SqlType
) -> tuple[float, float]:
    """Return the factor and offset from stored to leaked numbers; 1 and 0 unless it is plain.

    Plain means that the leaked numbers lie far from the stored ones, and near them as a whole
    once converted: a choice of rows keeps stored numbers as they are. Both samples are sorted.
    """
    if len(leaked) < 20 or not len(stored):
        return 1.0, 0.0
    sketch = quantile_sketch(stored)
    here = divergence(leaked, sketch)
    if here < _FAR:
        return 1.0, 0.0
    distinct = stored[np.flatnonzero(np.diff(stored, prepend=np.nan) != 0)]
    names_rows = family(declared) == "integer" and len(distinct) > 0.95 * len(stored)
    if len(distinct) < 8 or names_rows:
        return 1.0, 0.0
    # another unit may cost a digit, but no more
    alike = stored[np.linspace(0, len(stored) - 1, len(leaked)).astype(np.int64)]
    if len(np.unique(leaked)) < 0.1 * len(np.unique(alike)):
        return 1.0, 0.0
    grid = 10.0**-stored_places
    chosen = np.isin(np.rint(leaked / grid), np.rint(distinct / grid))
    subset = leaked_places <= stored_places and float(chosen.mean()) >= 0.85
    limit = min(max(_NEAR, 1.2 / np.sqrt(len(leaked))), here / 3)
    found = []
    for factor, offset in _CONVERSIONS:
        away = divergence(leaked, sketch * factor + offset)
        if away <= limit + 0.05:
            fit = _coherence((leaked - offset) / factor, 0.5 * 10.0**-leaked_places / factor, grid)
            found.append((away, fit, factor, offset))
    if subset:
        found = [one for one in found if one[1] >= 0.5]
    if not found or min(found)[0] > limit:
        return 1.0, 0.0
    closest = min(found)[0]
    _, _, factor, offset = max(
        (one for one in found if one[0] <= closest + 0.05), key=lambda one: (one[1], -one[0])
    )
    return factor, offset


def _coherence(numbers: Floats, tolerance: float, grid: float) -> float:
    """How many more numbers than by chance lie on a grid within a tolerance, 0 to 1.

    0, too, where the tolerance is too wide to tell.
    """
    chance = 2 * tolerance / grid
    if chance > 0.7:
        return 0.0
    off = np.abs(numbers - np.rint(numbers / grid) * grid)
    share = float(np.mean(off <= 1.01 * tolerance + 1e-9 * np.abs(numbers)))
    return round(max(0.0, (share - chance) / (1 - chance)), 2)


# ------------------------------------------------------------------------------------- likenesses

_SKETCH = (np.arange(256) + 0.5) / 256


def quantile_sketch(values: Floats) -> Floats:
    """Return 256 quantiles of a sorted sample, itself sorted."""
    return values[(_SKETCH * len(values)).astype(np.int64)]


def divergence(one: Floats, other: Floats) -> float:
    """Return how differently two sorted samples are spread: 0 alike, 1 disjoint.

    Twice the mean distance between their distribution functions, which rounding hardly changes.
    """
    if not len(one) or not len(other):
        return 1.0
    total = 0.0
    for sample in (one, other):
        points = quantile_sketch(sample) if len(sample) > len(_SKETCH) else sample
        total += float(np.mean(np.abs(_rank(one, points) - _rank(other, points))))
    return min(1.0, total)


def _rank(sample: Floats, points: Floats) -> Floats:
    below = np.searchsorted(sample, points, "left") + np.searchsorted(sample, points, "right")
    ranks: Floats = below / (2 * len(sample))
    return ranks


def closeness(leaked: Floats, stored: Floats) -> float:
    """Return how well leaked numbers agree with a sorted stored sample: 0 not at all, 1 fully."""
    if not len(leaked):
        return 0.0
    at = np.minimum(np.searchsorted(stored, leaked), len(stored) - 1)
    return 0.5 * float(np.mean(stored[at] == leaked)) + 0.5 * (
        1 - divergence(np.sort(leaked), stored)
    )


def readable(text: pa.Array, declared: SqlType, form: Format) -> float:
    """Return the share of a sample's values that can be read as the type, 0 when it has none."""
    known = _known(text)
    cells = int(_valid(known).sum())
    if not cells:
        return 0.0
    return float((len(text) - canonical(known, declared, form).null_count) / cells)
