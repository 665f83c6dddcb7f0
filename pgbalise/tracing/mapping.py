"""Which stored column each column of a leak is, by its name and by what is in it.

Names are cheap to change, so content has the last word: how the values are spread, which rare ones
occur on both sides, what texts look like. The columns are then assigned one to one, so that the
whole table is explained best.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.errors import InvalidInput
from pgbalise.marking.types import SqlType
from pgbalise.tracing.glance import LEAKED_VALUES, STORED_VALUES, Glance, Glances
from pgbalise.tracing.inference import (
    Known,
    conversion,
    decimals,
    divergence,
    formats,
    infer_format,
    quantile_sketch,
    readable,
)
from pgbalise.tracing.reading import canonical, quantities
from pgbalise.tracing.written import Family, Format, family

Floats = NDArray[np.float64]

LEAK_ROWS = 2_000
STORED_ROWS = 100_000
"""Rows looked at, spread evenly over what is given."""


@dataclass(frozen=True)
class StoredColumn:
    """A column that a leaked one may be."""

    name: str
    type: SqlType
    values: pa.Array
    """The stored values or a sample of them, text as PostgreSQL prints it."""

    @cached_property
    def _profile(self) -> _Stored:
        # kept with the column, which is compared with every table of a leak
        return _Stored(self.name, self.type, _short(_spread(self.values, STORED_ROWS)))


@dataclass(frozen=True)
class MappedColumn:
    """What a column of the leak was taken for."""

    leak_column: str
    column: str | None
    """The stored column's name; None when it is none of them, or too uncertain."""
    confidence: float
    """From 0.9 on sure, from 0.5 likely; of what is likeliest if ``column`` is None."""
    by: Literal["name", "content", "given", "none"]
    format: Format
    """How it writes its values."""


@dataclass(frozen=True)
class TableMapping:
    """What a leak's columns were taken for."""

    columns: tuple[MappedColumn, ...]
    """In the leak's order."""
    score: float
    """Bits of a row's information that the mapped columns carry, each weighed by its confidence:
    comparable between relations, 0 when the leak has nothing in common with this one."""
    identifying_bits: float
    """The same with every mapped column in full. Rows of a leak without its key are told apart
    for certain only where this is well above log2 of the number of rows."""


class LeakSample:
    """Some rows of a leaked table (columns of text), looked at once for all relations.

    ``named``: whether the leak itself names its columns; otherwise content alone decides.
    """

    def __init__(self, rows: pa.Table, named: bool) -> None:
        self.named = named
        self.names: list[str] = rows.column_names
        self.columns = [
            _Leaked(name, _short(_spread(rows.column(at), LEAK_ROWS)))
            for at, name in enumerate(self.names)
        ]


class Shortlist:
    """Relations, of which those worth comparing with a leaked table are picked."""

    def __init__(self, relations: Sequence[Sequence[StoredColumn]]) -> None:
        self._sizes = [len(columns) for columns in relations]
        if len(relations) <= _WORTH_COMPARING:
            return
        columns = [one._profile for columns in relations for one in columns]
        self._glances = Glances([one.glance for one in columns])
        self._entropy = np.array([one.entropy for one in columns])
        self._names: dict[str, list[int]] = {}
        for at, one in enumerate(columns):
            self._names.setdefault("".join(_words(one.name)), []).append(at)

    def of(self, sample: LeakSample) -> list[int]:
        """Return the numbers of the relations that look most like a table, all if they are few."""
        if len(self._sizes) <= _WORTH_COMPARING:
            return list(range(len(self._sizes)))
        score = np.zeros(len(self._sizes))
        starts = np.cumsum([0, *self._sizes[:-1]])
        there = np.flatnonzero(self._sizes)
        for column in sample.columns:
            like = self._glances.likeness(column.glance)
            if sample.named:
                same = self._names.get("".join(_words(column.name)), [])
                like[same] = (1 + like[same]) / 2
            score[there] += np.maximum.reduceat(like * self._entropy, starts[there])
        best = np.argsort(-score, kind="stable")[:_WORTH_COMPARING]
        return [int(n) for n in best if score[n] >= _WORTH_A_LOOK * score[best[0]]]


_WORTH_COMPARING = 6
_WORTH_A_LOOK = 0.2
_PAIRS = 2_500
_BEST_PAIRS = 24


def map_columns(
    sample: pa.Table,
    named: bool,
    stored: Sequence[StoredColumn],
    given: Mapping[str, str | None] | None = None,
) -> TableMapping:
    """Return which stored column each column of a leak is, from a sample of the leak's rows.

    ``named``: whether the leak itself names its columns; otherwise content alone decides.
    ``given``: stored columns that leaked ones are known to be, None to pass a column over.
    Raise InvalidInput when ``given`` names a column that is not there or names one twice.
    """
    return map_sample(LeakSample(sample, named), stored, given)


def map_sample(
    sample: LeakSample,
    stored: Sequence[StoredColumn],
    given: Mapping[str, str | None] | None = None,
) -> TableMapping:
    """Do as `map_columns`, of rows that may have been compared with other relations, too."""
    names = [column.name for column in stored]
    chosen = _checked(given or {}, sample.names, names)
    leaked, named = sample.columns, sample.named
    kept = [column._profile for column in stored]
    free_rows = [row for row, column in enumerate(leaked) if column.name not in chosen]
    free = [at for at, name in enumerate(names) if name not in chosen.values()]
    agreed = _agreed(leaked, kept, free_rows, free) if named else {}
    free_rows = [row for row in free_rows if row not in agreed]
    taken = {at for at, _ in agreed.values()}
    free = [at for at in free if at not in taken]
    free_rows = _plausible(leaked, kept, free_rows, free, named)
    content = np.array(
        [[_likeness(leaked[row], kept[at]) for at in free] for row in free_rows], np.float64
    ).reshape(len(free_rows), len(free))
    naming = np.zeros_like(content)
    if named:
        naming = np.array(
            [[name_likeness(leaked[row].name, names[at]) for at in free] for row in free_rows]
        ).reshape(content.shape)
    fresh = np.array(
        [[_fresh_key(leaked[row], kept[at]) for at in free] for row in free_rows], np.bool_
    ).reshape(content.shape)
    believed = content.copy()
    for row, at in np.argwhere((naming >= _EQUAL_NAME) & (content < _UNCONTRADICTED) & ~fresh):
        # the rows of one ward or one month need not look like the others
        rivals = np.delete(content[row], at).max(initial=0.0), np.delete(content[:, at], row)
        if max(rivals[0], rivals[1].max(initial=0.0)) < _CONTRADICTED and _legible(
            leaked[free_rows[row]], kept[free[at]]
        ):
            believed[row, at] = _UNCONTRADICTED
    weight = _weight(believed, naming, fresh)
    picked = assign(weight - _WORTH)
    sure = _confidence(believed, naming, fresh, weight, picked)
    agreement = dict.fromkeys(range(len(leaked)), 1.0)
    mapped: dict[int, tuple[_Stored | None, float, Literal["name", "content", "given", "none"]]]
    mapped = dict.fromkeys(range(len(leaked)), (None, 0.0, "none"))
    for here, (row, at, confidence) in enumerate(zip(free_rows, picked, sure, strict=True)):
        if at >= 0:
            found = naming[here, at] >= _SAME_NAME
            column = kept[free[at]] if confidence >= _LIKELY else None
            by: Literal["name", "content", "none"] = "name" if found else "content"
            mapped[row] = (column, confidence, by if column else "none")
            agreement[row] = _by_content(float(content[here, at]))
    for row, (at, alike) in agreed.items():
        mapped[row] = (kept[at], max(_NAMED, _by_content(alike)), "name")
        agreement[row] = _by_content(alike)
    for row, one in enumerate(leaked):
        if one.name in chosen:
            wanted = chosen[one.name]
            mapped[row] = (kept[names.index(wanted)] if wanted else None, 1.0, "given")
    columns = []
    score = bits = 0.0
    for row, (column, confidence, by_what) in mapped.items():
        form = Format()
        if column is not None:
            form = infer_format(leaked[row].text, column.type, column.known)
            # of relations whose columns have the same names, content tells which it is
            score += confidence * (1 + agreement[row]) / 2 * column.entropy
            bits += column.entropy
        columns.append(
            MappedColumn(
                leaked[row].name,
                None if column is None else column.name,
                round(confidence, 3),
                by_what,
                form,
            )
        )
    return TableMapping(tuple(columns), score, bits)


def _checked(
    given: Mapping[str, str | None], leaked: Sequence[str], stored: Sequence[str]
) -> dict[str, str | None]:
    for name, column in given.items():
        if name not in leaked:
            raise InvalidInput(f"the leak has no column {name}", hint=f"it has {', '.join(leaked)}")
        if column is not None and column not in stored:
            raise InvalidInput(
                f"the relation has no column {column}", hint=f"it has {', '.join(stored)}"
            )
    wanted = [column for column in given.values() if column is not None]
    for column in wanted:
        if wanted.count(column) > 1:
            raise InvalidInput(f"two columns of the leak cannot both be {column}")
    return dict(given)


def _spread(column: pa.ChunkedArray | pa.Array, rows: int) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if len(array) > rows:
        array = array.take(pa.array(np.linspace(0, len(array) - 1, rows).astype(np.int64)))
    return pc.cast(array, pa.string())


def _agreed(
    leaked: Sequence[_Leaked], stored: Sequence[_Stored], rows: Sequence[int], free: Sequence[int]
) -> dict[int, tuple[int, float]]:
    """Return the pairs that both name and content agree on: by row, the column and its likeness.

    No other assignment of theirs can be much better, so they need not be compared with the rest.
    """
    mine, theirs = (
        _once({n: "".join(_words(columns[n].name)) for n in numbers})
        for columns, numbers in ((leaked, rows), (stored, free))
    )
    out = {}
    for name, row in mine.items():
        if name in theirs:
            alike = _likeness(leaked[row], stored[theirs[name]])
            if alike >= _CONTRADICTED:
                out[row] = (theirs[name], alike)
    return out


def _once(names: Mapping[int, str]) -> dict[str, int]:
    """Return which number has each name, for names that only one has."""
    count = Counter(names.values())
    return {name: n for n, name in names.items() if name and count[name] == 1}


def _plausible(
    leaked: Sequence[_Leaked],
    stored: Sequence[_Stored],
    rows: list[int],
    free: Sequence[int],
    named: bool,
) -> list[int]:
    """Return the leaked columns worth comparing with these stored ones: all unless very many."""
    if len(rows) * len(free) <= _PAIRS:
        return rows
    glances = Glances([stored[at].glance for at in free])
    like = np.array([glances.likeness(leaked[row].glance) for row in rows])
    if named:
        for at, column in enumerate(free):
            called = "".join(_words(stored[column].name))
            for here, row in enumerate(rows):
                if "".join(_words(leaked[row].name)) == called:
                    like[here, at] += 1.0
    best = np.argsort(-like, axis=0, kind="stable")[:_BEST_PAIRS]
    return [rows[here] for here in np.unique(best)]


_LONGEST = 1_000
"""Characters of a text that are looked at."""


def _short(text: pa.Array) -> pa.Array:
    if (pc.max(pc.binary_length(text)).as_py() or 0) <= _LONGEST:
        return text
    return pc.utf8_slice_codeunits(text, 0, _LONGEST)


# ------------------------------------------------------------------------------------------ names

_SAME_NAME = 0.8
_NAME_GAIN = 0.35


def name_likeness(leaked: str, stored: str) -> float:
    """Return how alike two columns' names are, 0 to 1: case, accents and signs do not count.

    From 0.8 on they say the same, maybe with a table's name before or a number after.
    """
    mine, theirs = _words(leaked), _words(stored)
    if not mine or not theirs:
        return 0.0
    if "".join(mine) == "".join(theirs):
        return 1.0
    if mine[-len(theirs) :] == theirs:
        return 0.9
    while len(mine) > 1 and mine[-1].isdigit():
        mine = mine[:-1]
    if mine == theirs or mine[-len(theirs) :] == theirs:
        return 0.85
    both = set(mine) & set(theirs)
    return 0.6 * len(both) / len(set(mine) | set(theirs))


def _words(name: str) -> list[str]:
    split = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    bare = unicodedata.normalize("NFKD", split.casefold())
    return re.findall(r"[a-z]+|[0-9]+", "".join(c for c in bare if not unicodedata.combining(c)))


# ---------------------------------------------------------------------------------------- content


class _Leaked:
    """A leaked column, and what it says read as one kind or another."""

    def __init__(self, name: str, text: pa.Array) -> None:
        self.name = name
        self.text = text
        self._readings: dict[tuple[Family, bool], list[_Reading]] = {}

    def readings(self, declared: SqlType) -> list[_Reading]:
        """The values as numbers in each plausible format; empty when few can be read."""
        key = (family(declared), declared.name == "timestamp with time zone")
        if key not in self._readings:
            found = []
            for form in formats(self.text, declared)[:3]:
                numbers, read = quantities(self.text, declared, form)
                share = read.sum() / max(1, self.cells)
                if share >= 0.5:
                    places = decimals(self.text, form) if key[0] in ("integer", "decimal") else 0
                    found.append(_Reading(np.sort(numbers[read]), float(share), places))
            self._readings[key] = found
        return self._readings[key]

    @cached_property
    def glance(self) -> Glance:
        return Glance.at(self.text, LEAKED_VALUES)

    @cached_property
    def cells(self) -> int:
        return int(pc.sum(pc.cast(pc.not_equal(self.text, ""), pa.int64())).as_py() or 0)

    @cached_property
    def words(self) -> _Words:
        return _Words.of(self.text)

    @cached_property
    def truths(self) -> tuple[_Words, float]:
        boolean = SqlType("boolean")
        share = readable(self.text, boolean, Format())
        return _Words.of(canonical(self.text, boolean)), share


@dataclass(frozen=True)
class _Reading:
    numbers: Floats
    """Sorted."""
    share: float
    """Of the cells with a value."""
    places: int


class _Stored:
    """A stored column and what is known of its values."""

    def __init__(self, name: str, declared: SqlType, text: pa.Array) -> None:
        self.name = name
        self.type = declared
        self.family = family(declared)
        self.text = text

    @cached_property
    def glance(self) -> Glance:
        return Glance.at(self.text, STORED_VALUES)

    @cached_property
    def known(self) -> Known | None:
        return (
            None if self.family in ("boolean", "uuid", "text") else Known.of(self.text, self.type)
        )

    @property
    def numbers(self) -> Floats:
        """The values as sorted numbers."""
        return np.empty(0) if self.known is None else self.known.numbers

    @cached_property
    def sketch(self) -> Floats:
        return quantile_sketch(self.numbers) if len(self.numbers) else self.numbers

    @cached_property
    def distinct(self) -> Floats:
        numbers = self.numbers
        return numbers[np.flatnonzero(np.diff(numbers, prepend=np.nan) != 0)]

    @property
    def places(self) -> int:
        return 0 if self.known is None else self.known.places

    @cached_property
    def words(self) -> _Words:
        return _Words.of(canonical(self.text, self.type))

    @cached_property
    def entropy(self) -> float:
        """Bits of information in a value."""
        counts = pc.value_counts(self.text.drop_null()).field(1) if len(self.text) else []
        share = np.asarray(counts, np.float64)
        share = share / max(1.0, share.sum())
        return float(-(share * np.log2(share)).sum()) if len(share) else 0.0


@dataclass(frozen=True)
class _Words:
    """Distinct texts with their shares, and the shares of what texts look like."""

    texts: pa.Array
    shares: Floats
    shapes: dict[str, float]
    apart: bool
    """Whether nearly every row has a text of its own."""

    @classmethod
    def of(cls, text: pa.Array) -> _Words:
        known = _folded(text).drop_null()
        counts = pc.value_counts(known)
        shares = np.asarray(counts.field(1), np.float64) / max(1, len(known))
        apart = len(counts) > 0.9 * len(known)
        return cls(counts.field(0), shares, _shapes(text), apart)


def _folded(text: pa.Array) -> pa.Array:
    """Texts without what a copy may lose: case, accents, zeros in front, white space."""
    bare = pc.utf8_normalize(pc.utf8_trim_whitespace(text), "NFD")
    bare = pc.replace_substring_regex(pc.utf8_lower(bare), r"[\x{0300}-\x{036f}]+", "")
    bare = pc.replace_substring_regex(bare, r"^0+([0-9]+)$", r"\1")
    return pc.if_else(pc.equal(bare, ""), pa.scalar(None, pa.string()), bare)


def _shapes(text: pa.Array) -> dict[str, float]:
    few = _spread(text.drop_null(), LEAK_ROWS)
    shape = pc.replace_substring_regex(few, r"[a-zß-öø-ÿ]+", "a")
    shape = pc.replace_substring_regex(shape, r"[A-ZÀ-ÖØ-Þ]+", "A")
    shape = pc.replace_substring_regex(shape, r"[0-9]", "9")
    shape = pc.utf8_slice_codeunits(shape, 0, 24)
    counts = pc.value_counts(shape)
    return {
        shown: count / max(1, len(few))
        for shown, count in zip(
            counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True
        )
    }


def _likeness(leaked: _Leaked, stored: _Stored) -> float:
    """How well a leaked column's content agrees with a stored one's, 0 to 1."""
    if not leaked.cells or not len(stored.text):
        return 0.0
    match stored.family:
        case "text" | "uuid":
            return _texts_alike(leaked.words, stored.words)
        case "boolean":
            words, share = leaked.truths
            return _trust(share) * _texts_alike(words, stored.words)
        case _:
            return max(
                (_numbers_alike(reading, stored) for reading in leaked.readings(stored.type)),
                default=0.0,
            )


def _trust(share: float) -> float:
    """From the share of values that can be read: damage costs nothing, another type all."""
    return float(np.clip((share - 0.5) / 0.35, 0.0, 1.0))


_EQUAL_NAME = 0.999
_CONTRADICTED = 0.65
_UNCONTRADICTED = 0.55


def _legible(leaked: _Leaked, stored: _Stored) -> bool:
    """Whether nearly all values of a leaked column can be read as a stored one's type."""
    if stored.family in ("text", "uuid"):
        return True
    if stored.family == "boolean":
        return _trust(leaked.truths[1]) == 1.0
    return any(_trust(reading.share) == 1.0 for reading in leaked.readings(stored.type))


_FEW = 100
"""A column of no more distinct texts is known by their shares."""


def _texts_alike(leaked: _Words, stored: _Words) -> float:
    if not len(stored.texts) or not len(leaked.texts):
        return 0.0
    at = pc.index_in(leaked.texts, value_set=stored.texts)
    found = np.asarray(at.is_valid()).astype(np.bool_)
    where = np.asarray(at.drop_null()).astype(np.int64)
    share = float(leaked.shares[found].sum())
    common = float(np.minimum(leaked.shares[found], stored.shares[where]).sum())
    if len(stored.texts) <= _FEW:
        return share * (0.5 + 0.5 * common)
    shape = sum(min(part, stored.shapes.get(shown, 0.0)) for shown, part in leaked.shapes.items())
    # distinct texts of which a sample holds only some: a good part found is as telling as all
    repeated = float((stored.shares**2).sum()) * len(stored.texts)
    told = min(1.0, share / 0.4) * (0.55 + 0.25 * shape + 0.2 * min(1.0, common * repeated / 0.3))
    # a column of other texts looks alike, too, unless both tell every row apart
    apart = leaked.apart and stored.apart
    return max(told, (0.55 if apart else 0.4) * shape)


def _numbers_alike(reading: _Reading, stored: _Stored) -> float:
    numbers = reading.numbers
    if not len(numbers) or not len(stored.numbers):
        return 0.0
    spread = divergence(numbers, stored.sketch)
    off = max(0.0, spread - 0.4 / np.sqrt(len(numbers)))
    alike = (1 - off) ** 2
    lift, telling = _lift(numbers, stored)
    if telling:
        rare = min(1.0, lift / 0.4)
        alike = max(alike * (0.7 + 0.3 * rare), 0.5 * rare + 0.4 * rare * alike)
    else:
        alike *= 0.92
    if reading.places > stored.places:
        alike *= 0.9
    if alike < 0.5 and stored.family in ("integer", "decimal"):
        factor, offset = conversion(
            numbers, stored.numbers, reading.places, stored.places, stored.type
        )
        if (factor, offset) != (1.0, 0.0):
            converted = divergence(numbers, stored.sketch * factor + offset)
            off = max(0.0, converted - 0.4 / np.sqrt(len(numbers)))
            alike = max(alike, 0.8 * (1 - off) ** 2)
    return float(alike * _trust(reading.share))


def _lift(numbers: Floats, stored: _Stored) -> tuple[float, bool]:
    """How many more numbers than by chance are stored, too, and whether chance leaves room."""
    distinct = stored.distinct
    low, high = numbers[len(numbers) // 20], numbers[-1 - len(numbers) // 20]
    unit = 10.0**-stored.places if stored.family in ("integer", "decimal") else 1.0
    if stored.family == "timestamp":
        unit = 60.0
    room = (high - low) / unit + 1
    inside = np.searchsorted(distinct, high, "right") - np.searchsorted(distinct, low, "left")
    chance = min(1.0, inside / room)
    at = np.minimum(np.searchsorted(distinct, numbers), len(distinct) - 1)
    share = float(np.mean(np.abs(distinct[at] - numbers) <= 1e-9 * np.abs(numbers)))
    if chance > 0.8:
        return 0.0, False
    # that all of a few different numbers are stored, too, may well be chance
    several = min(1.0, np.count_nonzero(np.diff(numbers)) / 50)
    return several * max(0.0, (share - chance) / (1 - chance)), True


def _fresh_key(leaked: _Leaked, stored: _Stored) -> bool:
    """Whether both name each row by a number of its own: new keys agree in nothing but that."""
    if stored.family != "integer" or len(stored.distinct) < 0.95 * len(stored.numbers):
        return False
    return any(
        reading.share > 0.9 and len(np.unique(reading.numbers)) > 0.95 * len(reading.numbers)
        for reading in leaked.readings(stored.type)
    )


# ------------------------------------------------------------------------------------- assignment

_WORTH = 0.3
"""A pair less alike than this is no pair."""
_LIKELY = 0.5


def _weight(content: Floats, naming: Floats, fresh: NDArray[np.bool_]) -> Floats:
    """Content, and the name where content does not contradict it."""
    believed = (content >= 0.15) | fresh
    weight: Floats = content + np.where(believed, _NAME_GAIN * naming, 0.0)
    return weight


def assign(value: Floats) -> NDArray[np.int64]:
    """Return for each row of ``value[n, m]`` the column it is given, -1 for none.

    No column is given twice, and the sum of the values given is the largest possible; pairs of no
    positive value are never made. Among equal sums the same one is always chosen.
    """
    rows, columns = value.shape
    if rows > columns:
        turned = assign(value.T)
        given = np.full(rows, -1)
        given[turned[turned >= 0]] = np.flatnonzero(turned >= 0)
        return given
    # beside the columns each row has a place of its own that is worth nothing
    cost = np.hstack([-np.maximum(value, 0.0), np.zeros((rows, rows))])
    # the Hungarian method by shortest augmenting paths, one row at a time
    width = columns + rows
    row_price, column_price = np.zeros(rows), np.zeros(width)
    owner = np.full(width, -1)
    for start in range(rows):
        shortest = np.full(width, np.inf)
        before = np.full(width, -1)
        done = np.zeros(width, np.bool_)
        row, at, length = start, -1, 0.0
        reached: list[tuple[int, int]] = []
        while True:
            step = length + cost[row] - row_price[row] - column_price
            better = ~done & (step < shortest - 1e-12)
            shortest[better] = step[better]
            before[better] = row
            open_ = np.where(done, np.inf, shortest)
            at = int(open_.argmin())
            length = float(open_[at])
            done[at] = True
            if owner[at] < 0:
                break
            row = int(owner[at])
            reached.append((row, at))
        row_price[start] += length
        for passed, column in reached:
            row_price[passed] += length - shortest[column]
            column_price[column] -= length - shortest[column]
        while True:
            row = int(before[at])
            owner[at] = row
            # the place that the row leaves is the one it was reached by
            previous = [column for passed, column in reached if passed == row]
            if row == start:
                break
            at = previous[0]
    given = np.full(rows, -1)
    for column in range(columns):
        if owner[column] >= 0 and value[owner[column], column] > 0:
            given[owner[column]] = column
    return given


_NAMED = 0.97
"""How sure a pair of one name is whose content does not contradict it."""


def _by_content(alike: float) -> float:
    return float(np.interp(alike, (0.3, 0.5, 0.65, 0.8), (0.2, 0.6, 0.85, 0.98)))


def _confidence(
    content: Floats,
    naming: Floats,
    fresh: NDArray[np.bool_],
    weight: Floats,
    picked: NDArray[np.int64],
) -> list[float]:
    """How sure each pair is: by how well it agrees, and by how much better than any other way."""
    owner = {int(at): row for row, at in enumerate(picked) if at >= 0}
    out = []
    for row, at in enumerate(picked):
        if at < 0:
            out.append(0.0)
            continue
        alike = float(content[row, at])
        sure = _by_content(alike)
        margin = 1.0
        for other in range(weight.shape[1]):
            if other == at:
                continue
            loss = float(weight[row, at] - weight[row, other])
            rival = owner.get(other)
            if rival is not None:
                back = max(float(weight[rival, at]), _WORTH)
                loss += float(weight[rival, other]) - back
            margin = min(margin, loss)
        sure *= float(np.interp(margin, (0.0, 0.05, 0.12), (0.5, 0.75, 1.0)))
        if naming[row, at] >= _SAME_NAME:
            named = _NAMED if alike >= 0.3 else 0.6 if fresh[row, at] or alike >= 0.15 else 0.0
            sure = max(sure, named)
        out.append(sure)
    return out
