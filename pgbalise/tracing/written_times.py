"""Dates and times as people and programs write them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pgbalise.tracing.written import (
    Bools,
    Floats,
    Format,
    Integers,
    masked,
    matches,
    only_where,
    rows_at,
    to_flags,
    where_valid,
)
from pgbalise.tracing.written_numbers import plain_numbers, to_floats

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


def read_days(text: pa.Array, form: Format) -> tuple[Integers, Bools]:
    """Days since 1970 of dates, a time after them ignored; days that do not exist are not read."""
    days, read = _iso_days(text)
    rest = where_valid(text) & ~read
    if rest.any():
        # there are fewer days than rows
        distinct = rows_at(text, rest).dictionary_encode()
        odd, at = distinct.dictionary, np.asarray(distinct.indices)
        more, ok = _iso_days(_like_iso(odd, form))
        if not ok.all():
            last, _, right = read_moments(rows_at(odd, ~ok), form)
            more[~ok], ok[~ok] = np.where(right, last, 0), right
        days[rest], read[rest] = more[at], ok[at]
    return days, read


def read_stamps(text: pa.Array, form: Format, zoned: bool) -> tuple[Integers, Bools]:
    """Microseconds since 1970 UTC, with or without a zone's offset; a date alone is midnight."""
    moments, naive, read = _iso_stamps(text)
    rest = where_valid(text) & ~read
    if rest.any():
        odd = rows_at(text, rest)
        more, bare, ok = _iso_stamps(_like_iso(odd, form))
        if not ok.all():
            days, clock, right = read_moments(rows_at(odd, ~ok), form)
            local = clock.zone == _NO_ZONE
            last = days * _DAY + clock.microseconds - np.where(local, 0, clock.zone)
            more[~ok], bare[~ok], ok[~ok] = np.where(right, last, 0), right & local, right
        moments[rest], naive[rest], read[rest] = more, bare, ok
    if zoned and form.zone != "UTC" and naive.any():
        moments = np.where(naive, _in_zone(moments, form.zone), moments)
    return moments, read


def _iso_days(text: pa.Array) -> tuple[Integers, Bools]:
    iso = pc.match_substring_regex(text, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T].*)?$")
    shown = only_where(pc.utf8_slice_codeunits(text, 0, 10), iso)
    try:
        dates = pc.cast(shown, pa.date32())
        read = where_valid(dates)
    except pa.ArrowInvalid:
        # a day that does not exist, for which strptime may take another one
        dates = pc.strptime(shown, format="%Y-%m-%d", unit="s", error_is_null=True)
        dates = pc.cast(dates, pa.date32())
        read = to_flags(pc.equal(pc.cast(dates, pa.string()), shown))
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
        mine = only_where(text, pc.match_substring_regex(text, pattern))
        try:
            stamps = pc.cast(mine, pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            _, there = _iso_days(mine)
            stamps = pc.cast(only_where(mine, there), pa.timestamp("us", zone))
        ok = where_valid(stamps)
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
        if matches(text, pattern).any():
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


def print_stamps(stamps: Integers, read: Bools) -> pa.Array:
    """Return microseconds since 1970 UTC as PostgreSQL prints timestamps."""
    shown = pc.cast(masked(stamps, read).cast(pa.timestamp("us")), pa.string())
    return pc.replace_substring_regex(shown, r"\.?0*$", "")


def read_clock(text: pa.Array, form: Format) -> tuple[Integers, Bools]:
    """Microseconds since midnight."""
    parts = pc.extract_regex(text, rf"^{_CLOCK}$")
    clock = _time_of_day(parts)
    units, read = np.where(clock.read, clock.microseconds, 0), clock.read & where_valid(parts)
    if form.calendar == "excel":
        share = to_floats(plain_numbers(text, _EITHER), _EITHER)
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
    noon, twelve = to_flags(pc.equal(half, "p")), to_flags(pc.not_equal(half, ""))
    read = (hour < 24) & (minute < 60) & (second < 60)
    read &= ~twelve | ((hour >= 1) & (hour <= 12))
    hour = np.where(twelve, hour % 12 + 12 * noon, hour)
    zone = _group(parts, "z")
    numeric = matches(zone, "^[+-]")
    digits = pc.replace_substring(pc.utf8_slice_codeunits(zone, 1), ":", "")
    padded = pc.utf8_rpad(pc.if_else(pa.array(numeric), digits, "0000"), width=4, padding="0")
    number = _digits(padded)
    offset = (number // 100 * 3600 + number % 100 * 60) * _SECOND
    offset = np.where(to_flags(pc.starts_with(zone, "-")), -offset, offset)
    offset = np.where(to_flags(pc.equal(zone, "")), _NO_ZONE, offset)
    time = ((hour * 60 + minute) * 60 + second) * _SECOND + _digits(fraction)
    return _Clock(time, offset, read)


def read_moments(text: pa.Array, form: Format) -> tuple[Integers, _Clock, Bools]:
    """Read dates with or without a time of day: days since 1970, the time, and which were read."""
    if form.calendar in ("excel", "unix s", "unix ms", "unix us"):
        counted, read = _counted(text, form.calendar)
        days = counted // _DAY
        clock = _Clock(counted - days * _DAY, np.full(len(days), _NO_ZONE), read)
        if not form.calendar.startswith("excel"):
            clock = replace(clock, zone=np.zeros(len(days), np.int64))
        rest = ~read
        if rest.any():
            more, later, ok = read_moments(rows_at(text, rest), replace(form, calendar="dmy"))
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
        parts = pc.extract_regex(text if rows.all() else rows_at(text, rows), pattern)
        found = where_valid(parts)
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
    named = matches(middle, r"^[^0-9]")
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
    numbers = to_floats(plain_numbers(text, _EITHER), _EITHER)
    if calendar == "excel":
        moments = (numbers - _EXCEL_DAYS) * _DAY
        read = (numbers >= 0) & (np.abs(moments) < _FARTHEST)
        return _milliseconds(np.where(read, moments, 0.0)), read
    moments = numbers * _STEPS[calendar]
    read = np.abs(moments) < _FARTHEST
    return np.rint(np.where(read, moments, 0.0)).astype(np.int64), read
