"""How a leaked column writes its values, decided once for all of it from a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pgbalise.marking.types import SqlType
from pgbalise.tracing.reading import canonical, quantities
from pgbalise.tracing.written import (
    Calendar,
    Floats,
    Format,
    family,
    known_texts,
    matches,
    rows_at,
    where_valid,
)
from pgbalise.tracing.written_numbers import NUMBER, UNIT, plain_numbers, to_floats
from pgbalise.tracing.written_times import read_moments


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
    known = known_texts(text)
    match family(declared):
        case "integer" | "decimal":
            return _number_formats(known, declared)
        case "date" | "timestamp":
            return _calendars(known)
        case "time":
            bare = matches(known, r"^[0-9]*[.,][0-9]+$").sum() * 2 > where_valid(known).sum()
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
    if matches(known, NUMBER).sum() == where_valid(known).sum():
        dotted = matches(known, r"^[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+$")
        if not dotted.sum() or (matches(known, r"\.") & ~dotted).any():
            return (Format(),)
    unit = _unit(known)
    found = []
    for prior, (decimal, thousands) in enumerate(_SIGNS):
        form = Format(decimal=decimal, thousands=thousands, unit=unit)
        numbers = to_floats(plain_numbers(known, form), form)
        read = np.isfinite(numbers)
        count = int(read.sum())
        whole = 0.0
        if family(declared) == "integer":
            whole = float(np.mean(np.rint(numbers[read]) == numbers[read])) if count else 0.0
        found.append((-count, -round(whole, 2), prior, form))
    return _likeliest(found, int(where_valid(known).sum()))


def _likeliest(found: list[tuple[int, float, int, Format]], cells: int) -> tuple[Format, ...]:
    """Drop what reads clearly less than the best, and what reads no more than a simpler one."""
    found.sort(key=lambda one: one[:3])
    most = -found[0][0]
    return tuple(form for count, _, _, form in found if -count >= most - _OPEN * cells)


def _unit(known: pa.Array) -> str:
    """What most of the numbers that something follows are followed by."""
    rest = where_valid(known) & ~matches(known, NUMBER)
    found = pc.struct_field(pc.extract_regex(rows_at(known, rest), UNIT), "unit").drop_null()
    if not len(found):
        return ""
    counts = pc.value_counts(found)
    texts, numbers = counts.field(0).to_pylist(), counts.field(1).to_pylist()
    number, text = max(zip(numbers, texts, strict=True))
    return text if number >= 0.05 * where_valid(known).sum() else ""


_PLAUSIBLE = (-43_830, 65_744)
"""1850 to 2150, in days since 1970."""


def _calendars(known: pa.Array) -> tuple[Format, ...]:
    cells = int(where_valid(known).sum())
    bare = matches(known, r"^[+-]?[0-9]+([.,][0-9]*)?$|^[0-9]{8}[T ]?[0-9]{4}")
    open_order = matches(known, r"^[0-9]{1,2}[-/. ]")
    if not bare.any() and not open_order.any():
        return (Format(),)
    tried: tuple[Calendar, ...] = ("dmy", "mdy")
    if bare.sum() * 2 > cells:
        tried = ("compact", "excel", "unix s", "unix ms", "unix us")
    found = []
    for prior, calendar in enumerate(tried):
        form = Format(calendar=calendar)
        days, _, read = read_moments(known, form)
        read &= (days >= _PLAUSIBLE[0]) & (days <= _PLAUSIBLE[1]) & where_valid(known)
        if calendar.startswith("unix"):
            # 20210203 is sooner a day than a moment of 1970, as any small number would be
            read &= ~matches(known, r"^(1[89]|2[01])[0-9]{6}$") & (np.abs(days) >= 10)
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
    numbers = plain_numbers(known_texts(text), form).drop_null()
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
    known = known_texts(text)
    cells = int(where_valid(known).sum())
    if not cells:
        return 0.0
    return float((len(text) - canonical(known, declared, form).null_count) / cells)
