"""What a column looks like, by its name and by its values, and how alike two of them are."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.marking.types import SqlType
from pgbalise.tracing.glance import LEAKED_VALUES, STORED_VALUES, Glance
from pgbalise.tracing.inference import (
    Known,
    conversion,
    decimals,
    divergence,
    formats,
    quantile_sketch,
    readable,
)
from pgbalise.tracing.reading import canonical, quantities
from pgbalise.tracing.written import Family, Format, family

Floats = NDArray[np.float64]

LEAK_ROWS = 2_000
STORED_ROWS = 100_000
"""Rows looked at, spread evenly over what is given."""


def spread_values(column: pa.ChunkedArray | pa.Array, rows: int) -> pa.Array:
    """Return at most so many values as text, spread evenly over the column."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if len(array) > rows:
        array = array.take(pa.array(np.linspace(0, len(array) - 1, rows).astype(np.int64)))
    return pc.cast(array, pa.string())


_LONGEST = 1_000
"""Characters of a text that are looked at."""


def shortened(text: pa.Array) -> pa.Array:
    """Return texts with only their first characters."""
    if (pc.max(pc.binary_length(text)).as_py() or 0) <= _LONGEST:
        return text
    return pc.utf8_slice_codeunits(text, 0, _LONGEST)


def name_likeness(leaked: str, stored: str) -> float:
    """Return how alike two columns' names are, 0 to 1: case, accents and signs do not count.

    From 0.8 on they say the same, maybe with a table's name before or a number after.
    """
    mine, theirs = name_words(leaked), name_words(stored)
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


def name_words(name: str) -> list[str]:
    """Return the words and numbers of a name: small letters, no accents."""
    split = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    bare = unicodedata.normalize("NFKD", split.casefold())
    return re.findall(r"[a-z]+|[0-9]+", "".join(c for c in bare if not unicodedata.combining(c)))


class LeakedProfile:
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
        """What a short look at its values tells."""
        return Glance.at(self.text, LEAKED_VALUES)

    @cached_property
    def cells(self) -> int:
        """How many cells have a value."""
        return int(pc.sum(pc.cast(pc.not_equal(self.text, ""), pa.int64())).as_py() or 0)

    @cached_property
    def words(self) -> _Words:
        """Its values as texts."""
        return _Words.of(self.text)

    @cached_property
    def truths(self) -> tuple[_Words, float]:
        """Its values read as truth values, and the share that can be."""
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


class StoredProfile:
    """A stored column and what is known of its values."""

    def __init__(self, name: str, declared: SqlType, text: pa.Array) -> None:
        self.name = name
        self.type = declared
        self.family = family(declared)
        self.text = text

    @cached_property
    def glance(self) -> Glance:
        """What a short look at its values tells."""
        return Glance.at(self.text, STORED_VALUES)

    @cached_property
    def known(self) -> Known | None:
        """Its values as numbers; None for a type that has none."""
        return (
            None if self.family in ("boolean", "uuid", "text") else Known.of(self.text, self.type)
        )

    @property
    def numbers(self) -> Floats:
        """The values as sorted numbers."""
        return np.empty(0) if self.known is None else self.known.numbers

    @cached_property
    def sketch(self) -> Floats:
        """Quantiles of its numbers."""
        return quantile_sketch(self.numbers) if len(self.numbers) else self.numbers

    @cached_property
    def distinct(self) -> Floats:
        """Its different numbers, sorted."""
        numbers = self.numbers
        return numbers[np.flatnonzero(np.diff(numbers, prepend=np.nan) != 0)]

    @property
    def places(self) -> int:
        """Decimals of its numbers."""
        return 0 if self.known is None else self.known.places

    @cached_property
    def words(self) -> _Words:
        """Its values as texts."""
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
    few = spread_values(text.drop_null(), LEAK_ROWS)
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


def likeness(leaked: LeakedProfile, stored: StoredProfile) -> float:
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


def legible(leaked: LeakedProfile, stored: StoredProfile) -> bool:
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


def _numbers_alike(reading: _Reading, stored: StoredProfile) -> float:
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


def _lift(numbers: Floats, stored: StoredProfile) -> tuple[float, bool]:
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


def fresh_key(leaked: LeakedProfile, stored: StoredProfile) -> bool:
    """Whether both name each row by a number of its own: new keys agree in nothing but that."""
    if stored.family != "integer" or len(stored.distinct) < 0.95 * len(stored.numbers):
        return False
    return any(
        reading.share > 0.9 and len(np.unique(reading.numbers)) > 0.95 * len(reading.numbers)
        for reading in leaked.readings(stored.type)
    )
