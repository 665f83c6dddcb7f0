"""A first policy, suggested from the catalog, the planner's statistics and a bounded sample.

Everything that is judged is judged by pure functions on a ``Sample``; ``suggest`` is the shell
that reads the database. What is suggested is a draft for someone who knows the data: each carrier
says why it was chosen and what a mark would change, and each column left alone says why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgbalise.catalog import ColumnInfo, RelationInfo, columns, relations, sample, unique_keys
from pgbalise.errors import InvalidInput
from pgbalise.fit import standing
from pgbalise.marking.document import quote
from pgbalise.marking.policy import load_policy
from pgbalise.marking.types import KEY_TYPES, Kind, SqlType, decimals
from pgbalise.suggest_decoys import identity_columns, is_of_patients

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pgbalise.decoys.identity import Role
    from pgbalise.session import Session

SAMPLE_ROWS: Final = 9_000
"""Rows of the random sample of a relation."""

GROUP_ROWS: Final = 1_000
"""Rows that share a foreign key, read besides: a random sample rarely holds two of a kind."""

ENOUGH_VALUES: Final = 30
"""Fewer values than this in the sample say too little."""

ENOUGH_DISTINCT: Final = 12
"""A column with fewer distinct values is a code, a grade or a score: each means something."""

FINE: Final = 0.02
"""A quantum is made coarser than the last digit up to this share of the spread."""

COARSE: Final = 0.25
"""A column whose last digit already is more than this share of its spread is left alone."""

_SENTINELS: Final = frozenset(
    Decimal(text)
    for text in (  # noqa: SIM905 - quoted one by one they would fill a page
        "-1 -8 -9 -88 -99 -999 -9999 -99999 77 88 99 777 888 998 999 7777 8888 9998 9999"
        " 88888 99999 888888 999999 9999999 99999999 99.9 99.99 999.9 999.99 9999.9 9999.99"
    ).split()
)
_NO_DATE: Final = frozenset(
    date.fromisoformat(text)
    for text in (  # noqa: SIM905 - the same
        "0001-01-01 1800-01-01 1899-12-30 1899-12-31 1900-01-01 1901-01-01 1970-01-01"
        " 2099-12-31 2199-12-31 2999-12-31 9999-12-31 9999-12-30"
    ).split()
)
_IDENTIFIER: Final = re.compile(
    r"(^|_)(id|uid|uuid|oid|num|number|numero|nr|no|ipp|iep|nip|nir|ins|nss|ssn|mrn|finess|rpps|"
    r"adeli|siret|siren|zip|postcode|postal|cp|phone|tel|telephone|mobile|fax|email|mail|iban|"
    r"barcode|version|seq|rank|ordre|position)(_|$)",
    re.IGNORECASE,
)
_NAME: Final = re.compile(
    r"(^|_)(name|firstname|lastname|surname|nom|prenom|prénom|patronyme|alias)(_|$)", re.IGNORECASE
)
_BIRTH: Final = re.compile(r"birth|naiss|(^|_)(dob|ddn)(_|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Statistics:
    """What pg_stats knows of a column."""

    null_share: float
    distinct: float
    """Distinct values; a negative number is a share of the rows."""
    common: Mapping[str, float]
    """The most common values, as text, with their share of the rows."""
    histogram: Sequence[str]


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key of one column."""

    column: str
    schema: str
    relation: str
    columns: frozenset[str]
    """All columns of the referenced relation."""

    @property
    def target(self) -> str:
        """The referenced relation, ``schema.name``."""
        return f"{quote(self.schema)}.{quote(self.relation)}"


@dataclass(frozen=True)
class Sample:
    """A relation and some of its rows."""

    relation: RelationInfo
    columns: Sequence[ColumnInfo]
    key: tuple[str, ...]
    foreign: Sequence[ForeignKey]
    statistics: Mapping[str, Statistics]
    rows: Mapping[str, Sequence[str | None]]
    """By column: the random sample."""
    groups: Mapping[str, Mapping[str, Sequence[str | None]]]
    """By foreign key column: by column, rows that are complete groups of that key."""


@dataclass(frozen=True)
class Carry:
    """A column, or one value of its ``by`` column, that can carry marks."""

    settings: Mapping[str, str]
    """Settings as TOML writes them."""
    why: Sequence[str]
    scale: int = 0
    """Decimals that its values are counted in, where that is the policy's to say."""
    finest: int = 0
    """Decimals of its quantum."""
    typical: int = 0
    """Decimals that half of its values are written with at most."""


@dataclass(frozen=True)
class Leave:
    """A column, or one value of its ``by`` column, that is left alone."""

    why: str


@dataclass
class _Draft:
    settings: dict[str, str] = field(default_factory=dict)
    why: list[str] = field(default_factory=list)


# --- numbers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """The finite numbers of a column: exact, as floats, and the decimals each is written with."""

    exact: Sequence[Decimal]
    values: NDArray[np.float64]
    written: NDArray[np.int64]
    used: NDArray[np.int64]
    """Decimals without trailing zeros."""

    @classmethod
    def read(cls, texts: Iterable[str | None]) -> Numbers:
        """Read numbers as PostgreSQL prints them; NULL, NaN and infinity are passed over."""
        exact = [Decimal(text) for text in texts if text is not None]
        exact = [value for value in exact if value.is_finite()]
        exponents = [value.as_tuple().exponent for value in exact]
        return cls(
            exact,
            np.array([float(value) for value in exact], np.float64),
            np.array([max(0, -e) if isinstance(e, int) else 0 for e in exponents], np.int64),
            np.array([decimals(value) for value in exact], np.int64),
        )

    def where(self, keep: NDArray[np.bool_]) -> Numbers:
        """Return the numbers for which ``keep`` holds."""
        exact = [value for value, kept in zip(self.exact, keep, strict=True) if kept]
        return Numbers(exact, self.values[keep], self.written[keep], self.used[keep])


def judge_number(
    declared: SqlType,
    numbers: Numbers,
    statistics: Statistics | None = None,
    *,
    finest: bool = False,
) -> Carry | Leave:
    """Say whether numbers of a type can carry marks, and with which tolerance.

    ``finest`` keeps the quantum at the last digit in use, for a column that others follow from.
    """
    if len(numbers.exact) < ENOUGH_VALUES:
        return Leave(f"only {len(numbers.exact)} values in the sample, too few to judge")
    distinct = len(set(numbers.exact))
    if {0, 1}.issuperset(numbers.exact):
        return Leave("a flag, 0 or 1")
    if distinct < ENOUGH_DISTINCT:
        return Leave(f"only {distinct} distinct values: a code, a grade or a score")
    draft = _Draft()
    skipped = _spikes(numbers, statistics)
    core = numbers.where(np.array([value not in skipped for value in numbers.exact]))
    if len(set(core.exact)) < ENOUGH_DISTINCT:
        return Leave("hardly any values besides those that stand for something else")
    spread = _spread(core.values)
    if not spread > 0:
        return Leave("its values do not spread")
    unit, scale, continuous = _unit(declared, core, spread)
    if not unit or float(unit) > COARSE * spread:
        step = f"{unit.normalize():f}" if unit else "the last digit"
        return Leave(
            f"one step ({step}) would be {_percent(float(unit) / spread)} of its spread"
            if unit
            else f"{step} is beyond what marking counts exactly"
        )
    grid = Decimal(0)
    if declared.kind in (Kind.INTEGER, Kind.NUMERIC):
        grid = _heap(core, unit, spread, draft)
    quantum = unit if finest or grid else _coarser(unit, FINE * spread)
    draft.why.insert(
        0,
        f"{len(set(core.exact))} distinct values in the sample; a mark moves one by"
        f" {_plain(quantum)}, {_percent(float(quantum) / spread)} of its spread",
    )
    draft.settings["quantum"] = _plain(quantum)
    if grid:
        draft.settings["grid"] = _plain(grid)
    bounds = _bounds(declared, core, unit, scale, statistics, skipped, draft)
    if bounds[1] - bounds[0] < 4 * max(quantum, grid):
        return Leave("its values lie too close together")
    draft.settings["bounds"] = f"[{_plain(bounds[0])}, {_plain(bounds[1])}]"
    if skipped:
        listed = ", ".join(_plain(value) for value in sorted(skipped))
        draft.settings["skip"] = f"[{listed}]"
        draft.why.append(
            f"{listed}: {'are' if len(skipped) > 1 else 'is'} far more frequent than"
            " neighbouring values, so nothing moves away from or onto it"
        )
    if continuous:
        draft.settings["continuous"] = "true"
        draft.why.append("computed values with all their digits: the digits beyond the step stay")
    places = max(decimals(quantum), decimals(grid))
    typical = int(np.median(core.written))
    return Carry(draft.settings, draft.why, max(scale, places), places, typical)


def _spread(values: NDArray[np.float64]) -> float:
    """The standard deviation, or what the interquartile range makes of it if that is smaller."""
    low, high = np.quantile(values, [0.25, 0.75])
    deviation = float(np.std(values))
    return min(deviation, float(high - low) / 1.349) if high > low else deviation


def _spikes(numbers: Numbers, statistics: Statistics | None) -> set[Decimal]:
    """The 0 of a zero-inflated column, and numbers that stand for no measurement (999, -1)."""
    total = len(numbers.exact)
    share: dict[Decimal, float] = {}
    for value in numbers.exact:
        share[value] = share.get(value, 0.0) + 1 / total
    if statistics is not None:
        present = max(1e-9, 1 - statistics.null_share)
        for text, frequency in statistics.common.items():
            value = Decimal(text)
            if value.is_finite():
                share[value] = max(share.get(value, 0.0), frequency / present)
    found: set[Decimal] = set()
    others = sorted((s for value, s in share.items() if value != 0), reverse=True)
    zero = share.get(Decimal(0), 0.0)
    if zero >= 0.02 and others and zero >= 3 * others[0]:
        found.add(Decimal(0))
    candidates = _SENTINELS & {value for value, s in share.items() if s >= 0.001 and s * total >= 3}
    rest = np.array([float(v) for v in numbers.exact if v not in candidates | found], np.float64)
    if len(rest) < ENOUGH_VALUES:
        return found
    low, first, third, high = np.quantile(rest, [0.005, 0.25, 0.75, 0.995])
    margin = max(third - first, np.finfo(np.float64).tiny)
    for value in candidates:
        lone_negative = value < 0 <= rest.min()
        if float(value) > high + margin or float(value) < low - margin or lone_negative:
            found.add(value)
    return found


def _unit(declared: SqlType, core: Numbers, spread: float) -> tuple[Decimal, int, bool]:
    """The smallest step in actual use (0 if none is usable), the scale, and whether continuous."""
    continuous = False
    if declared.kind is Kind.FLOAT:
        significant = np.array([len(value.normalize().as_tuple().digits) for value in core.exact])
        many = 6 if declared.name == "real" else 12
        continuous = bool(np.mean(significant >= many) > 0.5)
    if continuous:
        # a power of ten far below the spread; judge_number then takes the largest allowed
        places = max(0, min(12, 3 - int(np.floor(np.log10(spread)))))
        fits = _places_that_fit(declared, core, places)
        return (Decimal(1).scaleb(-places) if fits else Decimal(0)), places, True
    free = declared.kind is Kind.NUMERIC and declared.scale is None
    digits = core.written if free else core.used
    share = 0.5 if free else 0.05
    places = int(max(d for d in range(int(digits.max()) + 1) if np.mean(digits >= d) >= share))
    scale = int(np.quantile(core.written if free else core.used, 0.999, method="higher"))
    scale = max(places, min(scale, 15))
    if declared.scale is not None and declared.kind is Kind.NUMERIC:
        scale = declared.scale
        if scale < 0:
            return Decimal(0), 0, False
    if places > 15 or not _places_that_fit(declared, core, scale):
        return Decimal(0), 0, False
    unit = Decimal(1).scaleb(-places)
    for factor in (100, 50, 25, 20, 10, 5, 2):
        if _multiples(core, unit * factor) >= 0.99:
            return unit * factor, scale, False
    return unit, scale, False


def _places_that_fit(declared: SqlType, core: Numbers, places: int) -> bool:
    low, high = declared.limits(places)
    inside = [low <= value <= high for value in core.exact]
    return float(np.mean(inside)) > 0.99


def _multiples(core: Numbers, step: Decimal) -> float:
    """Share of the numbers that are multiples of a step."""
    return float(np.mean([value % step == 0 for value in core.exact]))


def _heap(core: Numbers, unit: Decimal, spread: float, draft: _Draft) -> Decimal:
    """The grid that readings heap on, 0 if they do not or it is too coarse to move by."""
    best = Decimal(0)
    fine = coarse = ""
    excess = 0.0
    for factor in (2, 5, 10, 20, 50, 100):
        share = _multiples(core, unit * factor)
        if share < max(1.5 / factor, 1 / factor + 0.15):
            continue
        grid = unit * factor
        if float(grid) <= COARSE * spread:
            best = grid
            fine = f"heaped: {_percent(share)} are multiples of {_plain(grid)} and stay so"
        elif share - 1 / factor > excess:
            excess = share - 1 / factor
            coarse = (
                f"REVIEW: {_percent(share)} are multiples of {_plain(grid)}, too coarse a step;"
                " a marked one will no longer be"
            )
    draft.why += [line for line in (fine, coarse) if line]
    return best


def _coarser(unit: Decimal, limit: float) -> Decimal:
    """The largest unit x 1, 2, 5, 10, ... that stays within a limit, at least the unit itself."""
    best = unit
    for power in range(18):
        for factor in (1, 2, 5):
            candidate = unit * factor * 10**power
            if float(candidate) <= limit:
                best = candidate
    return best


def _bounds(
    declared: SqlType,
    core: Numbers,
    unit: Decimal,
    scale: int,
    statistics: Statistics | None,
    skipped: set[Decimal],
    draft: _Draft,
) -> tuple[Decimal, Decimal]:
    """The data's range rounded outward, without what lies far out."""
    values = core.values
    q01, first, third, q99 = np.quantile(values, [0.01, 0.25, 0.75, 0.99])
    reach = 3 * max(third - first, float(unit))
    seen = list(core.exact)
    if statistics is not None:
        ends = [Decimal(text) for text in (*statistics.histogram[:1], *statistics.histogram[-1:])]
        seen += [end for end in ends if end.is_finite() and end not in skipped]
    inside = [value for value in seen if q01 - reach <= float(value) <= q99 + reach]
    low, high = min(inside), max(inside)
    outside = len(seen) - len(inside)
    if outside:
        draft.why.append(
            f"sampled values far outside the bounds, which stay as they are: {outside}"
        )
    step = Decimal(1).scaleb((high - low).adjusted() - 1)
    step = max(step, unit)
    nice_low, nice_high = (low // step) * step, -(-high // step) * step
    if low < 0 and nice_low > low:
        nice_low -= step
    if high > 0 and nice_high < high:
        nice_high += step
    if low >= 0:
        # what is never negative stays so; what is never 0 does too
        nice_low = max(nice_low, Decimal(0) if low == 0 else unit)
    if high <= 0:
        nice_high = min(nice_high, Decimal(0) if high == 0 else -unit)
    least, most = declared.limits(scale)
    return max(nice_low, least), min(nice_high, most)


# --- dates and timestamps --------------------------------------------------------------------


def judge_date(name: str, texts: Sequence[str | None]) -> Carry | Leave:
    """Say whether dates can carry marks."""
    days = [date.fromisoformat(text) for text in texts if text is not None]
    if len(days) < ENOUGH_VALUES:
        return Leave(f"only {len(days)} dates in the sample, too few to judge")
    count: dict[date, int] = {}
    for day in days:
        count[day] = count.get(day, 0) + 1
    skipped = sorted(day for day in _NO_DATE & set(count) if count[day] >= 3)
    core = [day for day in days if day not in skipped]
    if len(set(core)) < ENOUGH_DISTINCT:
        return Leave(f"only {len(set(core))} distinct dates")
    firsts = sum(day.day == 1 for day in core) / len(core)
    if firsts > 0.25:
        return Leave(f"{_percent(firsts)} are the first of a month: the day is not known")
    low, high = min(core).replace(day=1), _month_end(max(core))
    why = [
        f"{len(set(core))} distinct dates in the sample; a mark moves one by a day",
        "REVIEW: whoever knows a date can see that it moved; leave out what must be exact",
    ]
    if _BIRTH.search(name):
        why.append("REVIEW: a birth date also links records; without it leaks align less well")
    new_year = sum((day.month, day.day) == (1, 1) for day in core) / len(core)
    if new_year > 0.02:
        why.append(f"REVIEW: {_percent(new_year)} are a 1 January, perhaps for a day not known")
    settings = {"quantum": '"1 day"', "bounds": f'["{low}", "{high}"]'}
    if skipped:
        settings["skip"] = "[" + ", ".join(f'"{day}"' for day in skipped) + "]"
        why.append("skip: placeholders for a date that is not known")
    return Carry(settings, why)


def _month_end(day: date) -> date:
    if day.year == 9999 and day.month == 12:
        return date(9999, 12, 31)
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)


def judge_timestamp(declared: SqlType, texts: Sequence[str | None]) -> Carry | Leave:
    """Say whether timestamps (ISO 8601 in UTC, six decimals) can carry marks."""
    present = [text.rstrip("Z") for text in texts if text is not None]
    least, most = (int(limit) for limit in declared.limits(0))
    micro = np.array(present, "datetime64[us]").astype(np.int64)
    micro = micro[(micro >= least) & (micro <= most)]
    if len(micro) < ENOUGH_VALUES:
        return Leave(f"only {len(micro)} usable timestamps in the sample, too few to judge")
    if len(np.unique(micro)) < ENOUGH_DISTINCT:
        return Leave(f"only {len(np.unique(micro))} distinct timestamps")
    width, text = next(
        (width, text) for width, text in _RESOLUTIONS if np.mean(micro % width == 0) >= 0.95
    )
    low = np.datetime64(int(micro.min()), "us").astype("datetime64[M]").astype("datetime64[D]")
    high = np.datetime64(int(micro.max()), "us").astype("datetime64[M]") + 1
    settings = {"quantum": f'"{text}"', "bounds": f'["{low}", "{high.astype("datetime64[D]")}"]'}
    if width >= 3_600_000_000:
        return Leave("whole hours or days only: a step would be too long, or change the day")
    if width < 1_000_000:
        settings["neutral"] = "true"
        return Carry(
            settings,
            [
                f"has digits below a second; a mark moves one by {text}",
                "neutral: no one is treated otherwise for it, so care recipients get it too",
            ],
        )
    return Carry(settings, [f"noted to the {_NOTED[text]}; a mark moves one by {text}"])


_RESOLUTIONS: Final = (
    (86_400_000_000, "1 day"),
    (3_600_000_000, "1 hour"),
    (900_000_000, "15 minutes"),
    (300_000_000, "5 minutes"),
    (60_000_000, "1 minute"),
    (1_000_000, "1 second"),
    # ten steps of the last digit, so that marks survive a digit rounded away
    (1_000, "10 milliseconds"),
    (1, "1 millisecond"),
)
_NOTED: Final = {
    "15 minutes": "quarter of an hour",
    "5 minutes": "five minutes",
    "1 minute": "minute",
    "1 second": "second",
}


# --- relations between columns ----------------------------------------------------------------


def derived_columns(drawn: Sample) -> dict[str, tuple[str, ...]]:
    """Return the numeric columns that follow from others of the row, and from which.

    A sum or difference of two columns (also of dates, as in an age), or a product of powers (as
    in a body mass index), to within rounding for 95 % of the sampled rows.
    """
    numeric: dict[str, NDArray[np.float64]] = {}
    units: dict[str, float] = {}
    inputs: dict[str, NDArray[np.float64]] = {}
    for info in drawn.columns[:60]:
        declared = info.type
        if info.foreign or info.name in drawn.key:
            continue
        texts = drawn.rows[info.name][:2_000]
        if declared.kind in (Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT):
            values = np.array([np.nan if t is None else float(t) for t in texts], np.float64)
            values[~np.isfinite(values)] = np.nan
            finite = values[~np.isnan(values)]
            if len(finite) < 100 or len(np.unique(finite)) < ENOUGH_DISTINCT:
                continue
            numeric[info.name] = inputs[info.name] = values
            places = int(np.quantile(Numbers.read(texts).used, 0.95))
            units[info.name] = 10.0**-places
        elif declared.kind is Kind.DATE:
            inputs[info.name] = np.array(
                ["NaT" if t is None else t for t in texts], "datetime64[D]"
            ).astype(np.float64)
            inputs[info.name][[t is None for t in texts]] = np.nan
    places_of = {name: at for at, name in enumerate(numeric)}
    # what was computed has more digits than what it was computed from, and comes later
    order = sorted(numeric, key=lambda name: (units[name], -places_of[name]))
    found: dict[str, tuple[str, ...]] = {}
    for name in order:
        sources = _sources(name, units[name], inputs, found)
        if sources:
            found[name] = sources
    return found


def _sources(
    name: str,
    unit: float,
    inputs: Mapping[str, NDArray[np.float64]],
    found: Mapping[str, tuple[str, ...]],
) -> tuple[str, ...]:
    target = inputs[name]
    others = [other for other in inputs if other != name and other not in found][:30]
    deviation = float(np.nanstd(target))
    allowed = max(0.05 * deviation, 0.6 * unit) if unit < deviation / 2 else 0.0
    for at, first in enumerate(others):
        pairs: list[tuple[str, ...]] = [(first, second) for second in others[at + 1 :]]
        for names in pairs or [(first,)]:
            both = [inputs[other] for other in names]
            known = ~np.isnan(target) & ~np.logical_or.reduce([np.isnan(v) for v in both])
            if known.sum() < 100:
                continue
            y, x = target[known], [values[known] for values in both]
            if _follows(y, x, allowed):
                return names
            if min(y.min(), *(values.min() for values in x)) > 0 and _follows(
                y, [np.log(values) for values in x], allowed, logarithm=True
            ):
                return names
    return ()


def _follows(
    y: NDArray[np.float64],
    x: Sequence[NDArray[np.float64]],
    allowed: float,
    *,
    logarithm: bool = False,
) -> bool:
    design = np.column_stack([np.ones(len(y)), *(values - values.mean() for values in x)])
    target = np.log(y) if logarithm else y
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    fitted = design @ solution
    error = np.abs((np.exp(fitted) if logarithm else fitted) - y)
    return bool(np.quantile(error, 0.95) <= allowed)


def choose_by(drawn: Sample, column: str, numbers: Mapping[str, Sequence[int]]) -> str | None:
    """Return the column whose values say what a number is (a test's code), or None.

    ``numbers`` gives for each candidate the sampled rows by value. It must explain most of the
    number's rank, and the groups' spreads must differ so much that one tolerance cannot do.
    """
    texts = drawn.rows[column]
    values = np.array([np.nan if t is None else float(t) for t in texts], np.float64)
    best: tuple[float, str] | None = None
    for info in drawn.columns:
        if info.name == column or info.name not in numbers:
            continue
        codes = np.asarray(numbers[info.name])
        usable = np.isfinite(values) & (codes >= 0)
        groups = [values[usable & (codes == code)] for code in np.unique(codes[usable])]
        groups = [group for group in groups if len(group) >= 20]
        covered = sum(map(len, groups))
        if len(groups) < 2 or covered < 0.6 * usable.sum():
            continue
        spreads = [_spread(group) for group in groups if set(group.tolist()) - {0.0, 1.0}]
        flags = len(spreads) < len(groups)
        spreads = [spread for spread in spreads if spread > 0]
        if not spreads or not (flags or max(spreads) > 4 * min(spreads)):
            continue
        rank = np.argsort(np.argsort(np.concatenate(groups), kind="stable"), kind="stable")
        parts = np.split(rank, np.cumsum([len(group) for group in groups])[:-1])
        between = sum(len(part) * (part.mean() - rank.mean()) ** 2 for part in parts)
        explained = float(between / ((rank - rank.mean()) ** 2).sum())
        if explained > 0.3 and (best is None or explained > best[0]):
            best = (explained, info.name)
    return best[1] if best else None


def _codes(drawn: Sample) -> dict[str, Sequence[int]]:
    """Columns that may say what a number of the row is, as an index of values by row."""
    out: dict[str, Sequence[int]] = {}
    for info in drawn.columns:
        declared = info.type
        if declared.name not in KEY_TYPES - {"uuid", "date"} or declared.kind is Kind.TIMESTAMP:
            continue
        if info.name in drawn.key or not info.deterministic:
            continue
        texts = drawn.rows[info.name]
        known = sorted({text for text in texts if text is not None})
        if 2 <= len(known) <= 500 and 5 * len(known) <= len(texts):
            index = {text: at for at, text in enumerate(known)}
            out[info.name] = [-1 if text is None else index[text] for text in texts]
    return out


def repeated_per(drawn: Sample, column: str) -> ForeignKey | None:
    """Return the foreign key that a column's value follows from, row after row."""
    for key in drawn.foreign:
        repeated = constant = 0
        values: dict[str, set[str]] = {}
        for rows in (drawn.rows, drawn.groups.get(key.column, {})):
            if column not in rows:
                continue
            for owner, value in zip(rows[key.column], rows[column], strict=True):
                if owner is not None and value is not None:
                    values.setdefault(owner, set()).add(value)
                    repeated += 1
        repeated -= len(values)
        constant = sum(len(seen) == 1 for seen in values.values())
        if repeated >= 50 and constant >= 0.999 * len(values) > 0:
            return key
    return None


def shared_within(drawn: Sample, column: str) -> tuple[float, str]:
    """Return the largest share of rows whose value another row of the same group has too."""
    best = (0.0, "")
    for key, rows in drawn.groups.items():
        count: dict[tuple[str, str], int] = {}
        for owner, value in zip(rows[key], rows[column], strict=True):
            if owner is not None and value is not None:
                count[owner, value] = count.get((owner, value), 0) + 1
        total = sum(count.values())
        if total >= ENOUGH_VALUES:
            best = max(best, (sum(n for n in count.values() if n > 1) / total, key))
    return best


# --- one relation ----------------------------------------------------------------------------


def draft_relation(drawn: Sample, view: str | None = None) -> tuple[str, bool]:
    """Return a relation's part of the policy as TOML, and whether it has a carrier.

    Without a carrier the text is comments only.
    """
    types = {info.name: info.type for info in drawn.columns}
    derived = derived_columns(drawn)
    feeds: dict[str, list[str]] = {}
    for name, sources in derived.items():
        for source in sources:
            feeds.setdefault(source, []).append(name)
    codes = _codes(drawn)
    chosen: dict[str, str] = {}
    for info in drawn.columns:
        numeric = types[info.name].kind in (Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT)
        if numeric and not _never(drawn, info, derived):
            by = choose_by(drawn, info.name, codes)
            if by is not None and by not in chosen:
                chosen[info.name] = by
    steering = set(chosen.values())
    carried: list[str] = []
    left: list[str] = []
    for info in drawn.columns:
        if info.name in steering:
            left.append(f"{info.name}: other carriers go by it")
            continue
        never = _never(drawn, info, derived)
        if never:
            left.append(f"{info.name}: {never}")
            continue
        block = _carrier(drawn, info, chosen.get(info.name), feeds.get(info.name, []))
        if isinstance(block, Leave):
            left.append(f"{info.name}: {block.why}")
        else:
            carried.append(block)
    title = f"{quote(drawn.relation.schema)}.{quote(drawn.relation.name)}"
    lines: list[str] = []
    if not carried:
        lines = [_comment(f"{title}: left alone, no column can carry marks")]
        lines += _decoys(title, identity_columns(types, drawn.rows))
        return "\n".join([*lines, *(_comment(f"  {line}") for line in left)]) + "\n", False
    key = ", ".join(f"{_bare(name)} = {_quoted(types[name].name)}" for name in drawn.key)
    lines += [f"[relation.{_quoted(title)}]", f"key = {{ {key} }}"]
    if view is not None:
        lines.append(f"view = {_quoted(view)}")
    lines += _decoys(title, identity_columns(types, drawn.rows))
    if left:
        lines += ["# Left alone:", *(_comment(f"  {line}") for line in left)]
    return "\n".join(["\n".join(lines), *carried]) + "\n", True


def _decoys(title: str, identity: Mapping[str, Role]) -> list[str]:
    """What to write for a relation of patients to have decoys, as comments."""
    if not is_of_patients(identity):
        return []
    roles = ", ".join(f"{_bare(name)} = {_quoted(role.value)}" for name, role in identity.items())
    lines = (
        "REVIEW these are patients. For each recipient to get some who do not exist, write at the",
        f"top [decoys] and entity = {_quoted(title)}, decoys = true in the relations that refer to",
        "this one, and here:",
        "decoys = true",
        f"identity = {{ {roles} }}",
    )
    return [_comment(line) for line in lines]


def _never(drawn: Sample, info: ColumnInfo, derived: Mapping[str, tuple[str, ...]]) -> str:
    """Say why a column is out of the question, whatever its values; empty if it is not."""
    declared = info.type
    if info.name in drawn.key:
        return "the key is never marked"
    if info.foreign:
        return "part of a foreign key, never marked"
    if info.generated:
        return "the server computes it from other columns"
    if info.feeds:
        return f"the server computes {info.feeds[0]} from it, which would tell its value"
    if info.unique_with:
        rest = [name for name in info.unique_with if name != info.name]
        return f"unique together with {', '.join(rest)}" if rest else "unique: an identifier"
    if declared.kind is None:
        return (
            "yes or no"
            if declared.name == "boolean"
            else f"of type {info.type_text}, which cannot be marked"
        )
    if info.name in derived:
        return f"follows from {' and '.join(derived[info.name])}, so a mark would show"
    if declared.kind is Kind.CATEGORICAL:
        return _text_reason(drawn, info)
    if declared.kind is Kind.INTEGER and _IDENTIFIER.search(info.name):
        return "by its name a number that identifies or orders something"
    if declared.kind is Kind.INTEGER and _distinct(drawn, info.name) > 0.9:
        return "nearly every row has its own value: an identifier or a counter"
    return ""


def _text_reason(drawn: Sample, info: ColumnInfo) -> str:
    texts = [text for text in drawn.rows[info.name] if text]
    if _NAME.search(info.name):
        return "names of persons or things"
    if not texts:
        return "text; empty in the sample"
    if _IDENTIFIER.search(info.name) or _distinct(drawn, info.name) > 0.9:
        return "text that identifies something"
    distinct = len(set(texts))
    if distinct <= 500 and 5 * distinct <= len(texts):
        return (
            f"text with {distinct} values, a code or category; it can carry marks only if you"
            " declare equivalents"
        )
    if sum(map(len, texts)) / len(texts) > 40:
        return "free text"
    return "text without declared equivalents"


def _distinct(drawn: Sample, name: str) -> float:
    """Distinct values as a share of those present."""
    known = drawn.statistics.get(name)
    texts = [text for text in drawn.rows[name] if text is not None]
    if known is None:
        return len(set(texts)) / len(texts) if len(texts) >= ENOUGH_VALUES else 0.0
    present = max(1.0, drawn.relation.rows * (1 - known.null_share))
    if known.distinct < 0:
        return -known.distinct * drawn.relation.rows / present
    return known.distinct / present if present >= ENOUGH_VALUES else 0.0


def _carrier(
    drawn: Sample,
    info: ColumnInfo,
    by: str | None,
    feeds: Sequence[str],
) -> str | Leave:
    declared = info.type
    texts = drawn.rows[info.name]
    entity = repeated_per(drawn, info.name) if by is None else None
    if entity is not None and info.name in entity.columns:
        return Leave(f"a copy of {entity.target}.{info.name}; marked apart, the two would disagree")
    if declared.kind in (Kind.DATE, Kind.TIMESTAMP) and entity is None:
        share, key = shared_within(drawn, info.name)
        if share > 0.3:
            return Leave(
                f"{_percent(share)} of the rows share it with another row of the same {key};"
                " marks would move them apart, and show"
            )
    extra = [
        f"REVIEW: {name} follows from it to within rounding, so a large move would show"
        for name in feeds
    ]
    if by is not None:
        return _by_carrier(drawn, info, by, extra)
    judged: Carry | Leave
    match declared.kind:
        case Kind.DATE:
            judged = judge_date(info.name, texts)
        case Kind.TIMESTAMP:
            judged = judge_timestamp(declared, texts)
        case _:
            statistics = drawn.statistics.get(info.name)
            judged = judge_number(declared, Numbers.read(texts), statistics, finest=bool(feeds))
    if isinstance(judged, Leave):
        return judged
    head = _head(drawn, info)
    lines = ["", *(_comment(line) for line in (*judged.why, *extra))]
    if entity is not None:
        lines.append(_comment(f"repeated on every row of the same {entity.column}: it moves once"))
    lines += [f"[{head}]", f"type = {_quoted(info.base_text)}"]
    if entity is not None:
        owner = next(c for c in drawn.columns if c.name == entity.column)
        name = owner.type.name
        lines.append(f"entity = {{ {_bare(entity.column)} = {_quoted(name)} }}")
    free = declared.kind is Kind.FLOAT or (declared.kind is Kind.NUMERIC and declared.scale is None)
    if free and judged.scale > judged.finest:
        lines.append(f"scale = {judged.scale}")
    return "\n".join([*lines, *_settings(judged)])


def _by_carrier(drawn: Sample, info: ColumnInfo, by: str, extra: Sequence[str]) -> str | Leave:
    declared = info.type
    chooser = next(column for column in drawn.columns if column.name == by)
    groups: dict[str, list[str | None]] = {}
    for code, text in zip(drawn.rows[by], drawn.rows[info.name], strict=True):
        if code is not None:
            groups.setdefault(code, []).append(text)
    judged = {
        code: judge_number(declared, Numbers.read(texts)) for code, texts in sorted(groups.items())
    }
    carry = {code: verdict for code, verdict in judged.items() if isinstance(verdict, Carry)}
    for code in sorted(carry, key=lambda code: -carry[code].finest):
        if carry[code].finest + _digits(carry.values()) > 17:
            # counted in 64 bits, one scale for all: what needs most decimals gives way
            carry.pop(code)
            judged[code] = Leave("its decimals and the largest values do not fit one scale")
    if not carry:
        return Leave(f"no value of {by} has numbers that can be marked")
    free = declared.kind is Kind.FLOAT or (declared.kind is Kind.NUMERIC and declared.scale is None)
    scale = max(verdict.scale for verdict in carry.values())
    if free and declared.kind is Kind.NUMERIC:
        # values are counted in 64 bits: a large one leaves room for fewer decimals
        room = 17 - _digits(carry.values())
        scale = max([min(scale, room), *(verdict.finest for verdict in carry.values())])
        for code in [code for code, verdict in carry.items() if verdict.typical > scale]:
            carry.pop(code)
            judged[code] = Leave(f"most values have more than the {scale} decimals that can count")
        if not carry:
            return Leave("its values have more decimals than can be counted")
    head = _head(drawn, info)
    lines = [
        "",
        _comment(f"what it is depends on {by}: each value of that column has its own tolerance"),
        *(_comment(line) for line in extra),
    ]
    flags = {"continuous": any("continuous" in verdict.settings for verdict in carry.values())}
    if flags["continuous"]:
        carry = {c: v for c, v in carry.items() if "continuous" in v.settings}
    for code, verdict in judged.items():
        if code not in carry:
            reason = verdict.why if isinstance(verdict, Leave) else "not computed as the others are"
            lines.append(_comment(f"  {code}: left alone, {reason}"))
    lines += [f"[{head}]", f"type = {_quoted(info.base_text)}"]
    lines.append(f"by = {{ {_bare(by)} = {_quoted(chooser.type.name)} }}")
    if free and scale > max(verdict.finest for verdict in carry.values()):
        lines.append(f"scale = {scale}")
    if flags["continuous"]:
        lines.append("continuous = true")
    for code, verdict in carry.items():
        lines += ["", *(_comment(line) for line in verdict.why)]
        lines += [f"[{head}.tolerance.{_quoted(code)}]", *_settings(verdict, {"continuous"})]
    return "\n".join(lines)


def _digits(carried: Iterable[Carry]) -> int:
    """Digits before the point of the largest bound."""
    ends = [Decimal(end) for one in carried for end in one.settings["bounds"][1:-1].split(", ")]
    return max(end.adjusted() + 1 for end in ends)


def _settings(carry: Carry, without: Set[str] = frozenset()) -> list[str]:
    lines = [f"{name} = {text}" for name, text in carry.settings.items() if name not in without]
    if not carry.settings["quantum"].startswith('"'):
        lines.append(
            "thresholds = []  # decision limits that a mark must never cross: yours to name"
        )
    return lines


def _head(drawn: Sample, info: ColumnInfo) -> str:
    title = f"{quote(drawn.relation.schema)}.{quote(drawn.relation.name)}"
    return f"relation.{_quoted(title)}.carrier.{_bare(info.name)}"


def _plain(value: Decimal) -> str:
    text = f"{value.normalize():f}"
    return "0" if text == "-0" else text


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _bare(text: str) -> str:
    """A key of TOML, quoted only where it must be."""
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _quoted(text)


def _comment(text: str) -> str:
    """A comment line; names may hold any character, a comment may not."""
    return "# " + "".join(c if c.isprintable() else "?" for c in text)


# --- the shell -------------------------------------------------------------------------------

_STATISTICS: Final = """
SELECT attname::text, null_frac::float8, n_distinct::float8,
       most_common_vals::text::text[], most_common_freqs::float8[], histogram_bounds::text::text[]
  FROM pg_catalog.pg_stats
 WHERE schemaname = $1::text AND tablename = $2::text
 ORDER BY inherited
"""

_FOREIGN_KEYS: Final = """
SELECT a.attname::text, rn.nspname::text, r.relname::text,
       (SELECT array_agg(x.attname::text) FROM pg_catalog.pg_attribute AS x
         WHERE x.attrelid = r.oid AND x.attnum > 0 AND NOT x.attisdropped)
  FROM pg_catalog.pg_constraint AS f
  JOIN pg_catalog.pg_class AS c ON c.oid = f.conrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = f.conkey[1]
  JOIN pg_catalog.pg_class AS r ON r.oid = f.confrelid
  JOIN pg_catalog.pg_namespace AS rn ON rn.oid = r.relnamespace
 WHERE f.contype = 'f' AND cardinality(f.conkey) = 1 AND f.conparentid = 0
   AND n.nspname = $1::text AND c.relname = $2::text
 ORDER BY f.conkey[1], f.oid
"""

_GROUP: Final = """
SELECT pg_catalog.format(
    'SELECT %s FROM %I.%I AS x WHERE x.%I = ANY ($1::text[]::%s[]) LIMIT %s',
    (SELECT string_agg(pg_catalog.format('pg_catalog.left(x.%I::text, 64)', t.name), ', '
                       ORDER BY t.place)
       FROM unnest($3::text[]) WITH ORDINALITY AS t(name, place)),
    $1::text, $2::text, $4::text, $5::text, $6::bigint)
"""


def suggest(session: Session, schemas: Sequence[str]) -> str:
    """Return a policy in TOML for the tables of these schemas, with a reason for every choice.

    Reads at most about 10,000 rows of each. Raise InvalidInput when a schema does not exist or
    nothing in them can carry a mark, DatabaseProblem when the session may not read them.
    """
    protect: list[str] = []
    without: list[str] = []
    views: set[str] = set()
    for schema in dict.fromkeys(schemas):
        found = session.fetch(
            "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1::text", schema
        )
        if not found:
            raise InvalidInput(f"there is no schema {schema}")
        for relation in _tables(session, schema):
            drawn = draw(session, relation)
            if isinstance(drawn, Leave):
                title = f"{quote(schema)}.{quote(relation.name)}"
                without.append(_comment(f"{title}: left alone, {drawn.why}") + "\n")
                continue
            view = _free_name(schema, relation.name, views)
            text, carries = draft_relation(drawn, view)
            (protect if carries else without).append(text)
            if carries:
                views.add(view or relation.name)
    if not protect:
        raise InvalidInput(
            f"nothing in {', '.join(map(quote, schemas))} can carry a mark",
            hint="a relation needs a primary key and measurements, dates or timestamps",
        )
    policy = "\n".join([_PREAMBLE, *protect, *without])
    load_policy(policy)
    return policy


def _free_name(schema: str, relation: str, taken: Set[str]) -> str | None:
    """Name a relation's views where another relation has taken its name; None where none has."""
    if relation not in taken:
        return None
    name, number = f"{schema}_{relation}", 1
    while name in taken or len(name.encode()) > 63:
        number += 1
        name = f"{relation.encode()[:50].decode(errors='ignore')}_{number}"
    return name


_PREAMBLE: Final = """\
# Suggested from the catalog, the planner's statistics and a sample: a draft, to be reviewed by
# someone who knows the data. "REVIEW" marks what needs a decision. Then: pgbalise policy check.
#
# quantum     how far a mark moves a value          bounds  where no mark leads out of
# thresholds  decision limits no mark crosses       skip    values that stay as they are
# grid        heaped values move along it           neutral may be marked for care, too
"""


def _tables(session: Session, schema: str) -> list[RelationInfo]:
    """Tables and partitioned tables, without partitions and without what extensions made."""
    rows = session.fetch(
        "SELECT c.relname::text FROM pg_catalog.pg_class AS c"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.objid = c.oid"
        " AND d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype = 'e')",
        schema,
    )
    names = {row[0] for row in rows}
    return [relation for relation in relations(session, schema) if relation.name in names]


def draw(session: Session, relation: RelationInfo) -> Sample | Leave:
    """Read what is needed to judge a relation, or say why it cannot be protected."""
    schema, name = relation.schema, relation.name
    obstacle = standing(session, relation)
    if obstacle is not None:
        return Leave(obstacle.message.partition(": ")[2])
    if relation.children:
        return Leave("tables inherit from it, so no index keeps its keys unique")
    known = columns(session, schema, name)
    infos = {info.name: info for info in known}
    keys = unique_keys(session, schema, name)
    if not keys:
        return Leave("it has no primary key and no unique index")
    key = next((key for key in keys if all(_can_be_key(infos[column]) for column in key)), None)
    if key is None:
        return Leave("its keys may be NULL or are of a type that marks cannot hang on")
    rows = _by_column(known, sample(session, relation, known, SAMPLE_ROWS))
    if len(rows[key[0]]) < ENOUGH_VALUES:
        return Leave("it has too few rows to judge")
    statistics = {
        column: Statistics(
            nulls, distinct, dict(zip(common or [], shares or [], strict=False)), histogram or []
        )
        for column, nulls, distinct, common, shares, histogram in session.fetch(
            _STATISTICS, schema, name
        )
    }
    foreign = [
        ForeignKey(column, target_schema, target, frozenset(names))
        for column, target_schema, target, names in session.fetch(_FOREIGN_KEYS, schema, name)
        if infos[column].type.name in KEY_TYPES
    ]
    groups: dict[str, Mapping[str, Sequence[Any]]] = {}
    for column in list(dict.fromkeys(key.column for key in foreign))[:3]:
        groups[column] = _groups(session, relation, known, column, rows[column])
    return Sample(relation, known, key, foreign, statistics, rows, groups)


def _can_be_key(info: ColumnInfo) -> bool:
    return info.not_null and info.type.name in KEY_TYPES


def _groups(
    session: Session,
    relation: RelationInfo,
    known: Sequence[ColumnInfo],
    column: str,
    values: Sequence[str | None],
) -> Mapping[str, Sequence[str | None]]:
    """Rows of some values of a foreign key, all rows of each as far as the limit goes."""
    declared = next(c for c in known if c.name == column).type.name
    some = sorted({value for value in values[:: max(1, len(values) // 100)] if value is not None})
    [(statement,)] = session.fetch(
        _GROUP,
        relation.schema,
        relation.name,
        [info.name for info in known],
        column,
        # bpchar, since a bare character is character(1)
        "bpchar" if declared == "character" else declared,
        GROUP_ROWS // 3,
    )
    return _by_column(known, session.fetch(statement, some))


def _by_column(
    known: Sequence[ColumnInfo], rows: Sequence[tuple[str | None, ...]]
) -> dict[str, list[str | None]]:
    return {info.name: [row[at] for row in rows] for at, info in enumerate(known)}
