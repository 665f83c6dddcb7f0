"""Numbers, truth values and uuids as people and programs write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.marking.types import INTEGER_TOPS, SqlType
from pgbalise.tracing.written import (
    Floats,
    Format,
    masked,
    matches,
    only_where,
    rows_at,
    to_flags,
    where_valid,
)

NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_SPACES = r"[ \x{00a0}\x{202f}\x{2009}'’]"
_SPACED = rf"^[+-]?[1-9][0-9]{{0,2}}({_SPACES}[0-9]{{3}})+([.,][0-9]*)?$"
UNIT = r"[0-9]\.?\s*(?P<unit>[^\s0-9.,+'’-][^\s0-9]*)$"


def plain_numbers(text: pa.Array, form: Format) -> pa.Array:
    """The numbers as digits with a point, NULL for what is none; still in the leak's unit."""
    sure = NUMBER if form.thousands != "." else r"^[+-]?[0-9]+$"
    plain = pc.match_substring_regex(text, sure)
    rest = ~to_flags(plain) & where_valid(text)
    out = only_where(text, plain)
    if not rest.any():
        return out
    return pc.replace_with_mask(out, pa.array(rest), _odd_numbers(rows_at(text, rest), form))


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
            text = only_where(text, pc.invert(other))
    if form.decimal == ",":
        text = pc.replace_substring(text, ",", ".")
    return only_where(text, pc.match_substring_regex(text, NUMBER))


def to_floats(plain: pa.Array, form: Format) -> Floats:
    """Numbers in the stored unit; NaN where there is none."""
    numbers: Floats = np.asarray(pc.fill_null(pc.cast(plain, pa.float64()), np.nan))
    if form.converted:
        numbers = (numbers - form.offset) / form.factor
    return numbers


def _rounded(numbers: Floats, form: Format, declared: SqlType) -> Floats:
    """Converted numbers with no more digits than the stored ones have."""
    scale = declared.scale if declared.scale is not None else form.scale
    return numbers if scale is None else np.round(numbers, scale)


def canonical_integers(plain: pa.Array, declared: SqlType, form: Format) -> pa.Array:
    """Return plain numbers as PostgreSQL prints integers of the declared type."""
    top = INTEGER_TOPS[declared.name]
    if form.converted:
        numbers = np.rint(to_floats(plain, form))
        fits = np.abs(numbers) < min(float(top), 2.0**53)
        return pc.cast(masked(np.where(fits, numbers, 0).astype(np.int64), fits), pa.string())
    # a spreadsheet or a data frame may have written 17 as 17.0
    whole = pc.replace_substring_regex(plain, r"^\+|\.0*$", "")
    digits = matches(whole, r"^-?[0-9]{1,18}$")
    number = pc.cast(only_where(whole, digits), pa.int64())
    rest = where_valid(plain) & ~digits
    if rest.any():
        number = pc.replace_with_mask(number, pa.array(rest), _large_integers(rows_at(plain, rest)))
    fits = pc.and_(pc.greater_equal(number, -top - 1), pc.less_equal(number, top))
    return pc.cast(only_where(number, fits), pa.string())


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


def canonical_numerics(plain: pa.Array, declared: SqlType, form: Format) -> pa.Array:
    """Return plain numbers as PostgreSQL prints ``numeric`` of the declared scale."""
    if form.converted:
        plain = _print_floats(_rounded(to_floats(plain, form), form, declared), exponents=None)
    power = pc.match_substring_regex(plain, "[eE]")
    if pc.any(power).as_py():
        spelt = _print_floats(to_floats(plain, Format()), exponents=None)
        plain = pc.if_else(power, spelt, plain)
    if declared.scale is not None:
        return _scaled(plain, declared)
    tidy = matches(plain, r"^(0|-?[1-9][0-9]*|-?(0|[1-9][0-9]*)\.[0-9]*[1-9])$")
    rest = where_valid(plain) & ~tidy
    if not rest.any():
        return plain
    odd = pc.replace_substring_regex(rows_at(plain, rest), r"^\+", "")
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
    wide = pc.cast(only_where(plain, fits), pa.decimal128(38, 17))
    rounded = pc.round(wide, ndigits=min(scale, 17), round_mode="half_towards_infinity")
    small = pc.less(pc.cast(pc.abs(rounded), pa.float64()), pa.scalar(10.0 ** (precision - scale)))
    places = min(max(scale, 0), 17)
    shown = pc.cast(pc.cast(only_where(rounded, small), pa.decimal128(38, places)), pa.string())
    power = pc.match_substring(shown, "E")
    if not pc.any(power).as_py():
        return shown
    # a decimal smaller than a millionth is printed with an exponent
    spelt = [None if v is None else f"{v:.{places}f}" for v in rounded.to_pylist()]
    return pc.if_else(power, pa.array(spelt, pa.string()), shown)


def canonical_floats(plain: pa.Array, declared: SqlType, form: Format) -> pa.Array:
    """Return plain numbers as PostgreSQL prints floating point of the declared width."""
    numbers = to_floats(plain, form)
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
    shown = pc.cast(masked(numbers, finite), pa.string())
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


_TRUE = ("t", "true", "1", "1.0", "y", "yes", "on", "o", "oui", "v", "vrai", "x")
_FALSE = ("f", "false", "0", "0.0", "n", "no", "off", "non", "faux")


def read_booleans(text: pa.Array) -> pa.Array:
    """Return truth values as t and f."""
    words = pa.array([*_TRUE, *_FALSE])
    shown = pa.array(["t"] * len(_TRUE) + ["f"] * len(_FALSE))
    return shown.take(pc.index_in(pc.utf8_lower(text), value_set=words))


_UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


def read_uuids(text: pa.Array) -> pa.Array:
    """Return uuids in lower case with dashes."""
    plain = matches(text, _UUID)
    lower = pc.utf8_lower(text)
    rest = where_valid(text) & ~plain
    if not rest.any():
        return lower
    bare = pc.replace_substring_regex(rows_at(lower, rest), r"^(urn:uuid:)?\{?|\}$", "")
    bare = pc.replace_substring(bare, "-", "")
    cuts = ((0, 8), (8, 12), (12, 16), (16, 20), (20, None))
    parts = [pc.utf8_slice_codeunits(bare, start, stop) for start, stop in cuts]
    dashed = pc.binary_join_element_wise(*parts, "-")
    dashed = only_where(dashed, pc.match_substring_regex(dashed, _UUID))
    return pc.replace_with_mask(lower, pa.array(rest), dashed)
