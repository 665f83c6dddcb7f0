"""Decoys in a leak: which ones are there, and what that says of each recipient.

A decoy's identity was drawn from the master key, for one recipient. Whoever had no part in the
leak has decoys that are independent of it, so the leak holds one of their traits by chance only:
with probability at most n / M, where n different values of that kind are in the leak and the
trait was drawn from M equally likely ones (its *space*). So ``M / n`` if it is there and 0 if not
has mean at most 1: an e-value. Names are counted among the persons of the same birth date, which is
taken as given. Averages over traits, and products over different decoys, are e-values again.

The codewords come from other subkeys than the decoys, so the product of this e-value and that
of the marks is an e-value, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.traits import TraitKind, fold
from pgbalise.marking.types import SqlType
from pgbalise.tracing.inference import formats
from pgbalise.tracing.reading import canonical
from pgbalise.tracing.written import as_strings, to_flags, where_valid

Integers = NDArray[np.int64]

_DATE: Final = SqlType("date")
_NAME_COLUMNS: Final = 6
"""So many columns are looked at for names: those with the most different words."""
_MOSTLY: Final = 0.5
_SEARCHED: Final = (
    TraitKind.RECORD,
    TraitKind.NIR,
    TraitKind.PHONE,
    TraitKind.MAIL,
    TraitKind.RPPS,
)
"""Kinds that one cell holds, in the order in which they are looked for."""

SHARE: Final = 0.1
"""How much of the wager is on decoys being found: finding none costs 0.05 decades, finding some
costs one."""
_OTHER_LENGTHS: Final = 0.05
"""How much of the wager on a record number is on one that is not as long as others' are."""
_MOST: Final = 1e12
_MOST_TOGETHER: Final = 20


@dataclass(frozen=True)
class FoundDecoy:
    """A decoy that a leak holds: by which kinds of trait, and the odds against each by chance."""

    decoy: IssuedDecoy
    odds: Mapping[TraitKind, float]
    """By kind, the space over the number of values that the leak has of it."""

    @property
    def e_value(self) -> float:
        """Evidence against "its recipient is innocent", from this decoy alone."""
        return min(sum(self.odds.values()) / len(self.decoy.traits), _MOST)


class DecoySearch:
    """Looks for decoys in tables of text; `look` takes one batch after the other."""

    def __init__(self, decoys: Sequence[IssuedDecoy]) -> None:
        self.decoys = decoys
        self._by_value: dict[TraitKind, dict[str, list[int]]] = {kind: {} for kind in TraitKind}
        for place, decoy in enumerate(decoys):
            for trait in decoy.traits:
                for value in _written(trait.kind, trait.value):
                    self._by_value[trait.kind].setdefault(value, []).append(place)
        self._values = {
            kind: pa.array(self._by_value[kind], pa.string())
            for kind in _SEARCHED
            if self._by_value[kind]
        }
        self._lengths: dict[int, set[str]] = {}
        for value, places in self._by_value[TraitKind.RECORD].items():
            owners = {decoys[place].recipient for place in places}
            self._lengths.setdefault(len(value), set()).update(owners)
        self._records: Counter[int] = Counter()
        persons = sorted((_person(value), value) for value in self._by_value[TraitKind.PERSON])
        self._persons = np.array([hashed for hashed, _ in persons], np.uint64)
        self._person_of = [value for _, value in persons]
        born = {value[:10] for value in self._by_value[TraitKind.PERSON]}
        self._born = pa.array(sorted(born), pa.string())
        self._found: set[tuple[int, TraitKind]] = set()
        self._seen: dict[TraitKind, int] = dict.fromkeys(TraitKind, 0)
        self._same_day: dict[str, int] = {}
        self._words: dict[str, int] = {}
        self.rows = 0

    def look(self, table: pa.Table) -> None:
        """Look at rows of a leaked table; columns of text, whatever their names."""
        self.rows += table.num_rows
        columns = [as_strings(column) for column in table.columns]
        for kind, values in self._values.items():
            for column in columns:
                self._look_for(kind, values, column)
        if self._person_of:
            self._look_for_persons(columns)

    def found(self) -> tuple[FoundDecoy, ...]:
        """Return the decoys found so far, in their order."""
        odds: dict[int, dict[TraitKind, float]] = {}
        for place, kind in sorted(self._found):
            decoy = self.decoys[place]
            space = decoy.spaces.get(kind, 1.0)
            if kind is TraitKind.RECORD:
                chance = self._record_odds(decoy, space)
            elif kind is TraitKind.PERSON:
                [born] = {t.value[:10] for t in decoy.traits if t.kind is kind}
                chance = _odds(space, self._same_day[born])
            else:
                chance = _odds(space, self._seen[kind])
            odds.setdefault(place, {})[kind] = chance
        return tuple(FoundDecoy(self.decoys[place], each) for place, each in odds.items())

    def _record_odds(self, decoy: IssuedDecoy, space: float) -> float:
        """The odds against a record number that is there by chance.

        Most of the wager is on a number as long as those of the other recipients' decoys, among
        which it is counted; the rest on one of any length. The recipient's own decoys may not say
        among which numbers they are counted: they are what is in question.
        """
        every = sum(self._records.values())
        mine = {decoy.recipient}
        others = {length for length, owners in self._lengths.items() if owners - mine}
        if not others:
            return _odds(space, every)
        alike = sum(self._records[length] for length in others)
        fits = any(
            len(value) in others
            for trait in decoy.traits
            if trait.kind is TraitKind.RECORD
            for value in _written(trait.kind, trait.value)
        )
        return (1 - _OTHER_LENGTHS) * fits * _odds(space, alike) + _OTHER_LENGTHS * _odds(
            space, every
        )

    def _look_for(self, kind: TraitKind, values: pa.Array, column: pa.Array) -> None:
        written = pc.unique(_canonical(kind, column).drop_null())
        if kind is TraitKind.RECORD:
            written = written.filter(pc.greater_equal(pc.utf8_length(written), 1))
            for one in pc.value_counts(pc.utf8_length(written)).to_pylist():
                self._records[one["values"]] += one["counts"]
        # of a table in several batches, the same value may count more than once: that only
        # lessens the odds
        self._seen[kind] += len(written)
        for value in written.filter(pc.is_in(written, value_set=values)).to_pylist():
            self._found |= {(place, kind) for place in self._by_value[kind][value]}

    def _look_for_persons(self, columns: Sequence[pa.Array]) -> None:
        days: list[pa.Array] = []
        names: list[_Names] = []
        for column in columns:
            read = _days(column)
            days += read
            if not read and (named := self._named(column)) is not None:
                names.append(named)
        names.sort(key=lambda one: -one.words)
        del names[_NAME_COLUMNS:]
        ways = [one.sums for one in names]
        ways += [one.sums + other.sums for one, other in combinations(names, 2)]
        for day in days:
            there = to_flags(pc.is_in(day, value_set=self._born))
            rows = np.flatnonzero(there)
            if not len(rows):
                continue
            dates = pc.dictionary_encode(day.take(pa.array(rows)))
            texts = dates.dictionary.to_pylist()
            counts = np.bincount(np.asarray(dates.indices), minlength=len(texts))
            mixed = np.array([_hash(text) for text in texts], np.uint64)[np.asarray(dates.indices)]
            for text, count in zip(texts, counts, strict=True):
                tried = int(count) * len(ways)
                self._same_day[text] = self._same_day.get(text, 0) + tried
            for sums in ways:
                self._match_persons(sums[rows] + mixed)

    def _match_persons(self, wanted: NDArray[np.uint64]) -> None:
        at = np.minimum(np.searchsorted(self._persons, wanted), len(self._persons) - 1)
        for place in np.unique(at[self._persons[at] == wanted]):
            value = self._person_of[int(place)]
            owners = self._by_value[TraitKind.PERSON][value]
            self._found |= {(owner, TraitKind.PERSON) for owner in owners}

    def _named(self, column: pa.Array) -> _Names | None:
        """The sum of the hashes of each cell's words, which no order of them changes."""
        letters = to_flags(pc.match_substring_regex(column, r"\p{L}"))
        if letters.sum() <= _MOSTLY * where_valid(column).sum():
            return None
        cells = pc.dictionary_encode(column.fill_null(""))
        folded = [fold(text).split() for text in cells.dictionary.to_pylist()]
        words = {word for cell in folded for word in cell}
        for word in words:
            if word not in self._words:
                self._words[word] = _hash(word)
        sums = np.array(
            [sum(self._words[word] for word in cell) & _WORD for cell in folded], np.uint64
        )
        return _Names(len(words), sums[np.asarray(cells.indices)])


def _odds(space: float, values: int) -> float:
    return max(1.0, space / max(1, values))


@dataclass(frozen=True)
class _Names:
    words: int
    """Different words."""
    sums: NDArray[np.uint64]


_WORD: Final = (1 << 64) - 1


def _hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big")


def _person(value: str) -> int:
    return sum(_hash(word) for word in value.split()) & _WORD


def _written(kind: TraitKind, value: str) -> tuple[str, ...]:
    """The forms in which `_canonical` may give a trait's value."""
    if kind is TraitKind.RECORD and value.isdigit():
        return (value.lstrip("0"),)
    return (value,)


def _canonical(kind: TraitKind, column: pa.Array) -> pa.Array:
    """Return cells in the form of the traits' values, NULL where they have not the form."""
    if kind is TraitKind.MAIL:
        return _only(pc.utf8_lower(pc.utf8_trim_whitespace(column)), r"^[^@\s]+@[^@\s]+$")
    if kind is TraitKind.PHONE:
        digits = pc.replace_substring_regex(column, r"[\s().\-/\x{a0}\x{202f}]|\.0$", "")
        digits = _only(digits, r"^(?:(?:\+|00)?33\(?0?\)?|0)?[1-9][0-9]{8}$")
        return pc.binary_join_element_wise("+33", pc.utf8_slice_codeunits(digits, -9), "")
    # a spreadsheet writes numbers without the zeros before them, or with decimals
    plain = pc.utf8_upper(pc.replace_substring_regex(column, r"\.0+$|[^0-9A-Za-z.]", ""))
    plain = pc.replace_substring(plain, ".", "")
    if kind is TraitKind.NIR:
        form = r"^[1-478][0-9]{4}(?:[0-9]{2}|2[AB])[0-9]{6}(?:[0-9]{2})?$"
        return pc.utf8_slice_codeunits(_only(plain, form), 0, 13)
    if kind is TraitKind.RPPS:
        return _only(plain, r"^[0-9]{11}$")
    return pc.replace_substring_regex(_only(plain, r"[0-9]"), r"^0+([0-9]*)$", r"\1")


def _only(column: pa.Array, form: str) -> pa.Array:
    fits = pc.fill_null(pc.match_substring_regex(column, form), False)
    return pc.if_else(fits, column, pa.scalar(None, pa.string()))


def _days(column: pa.Array) -> list[pa.Array]:
    """Return the days that a column writes, in each way in which they can be read."""
    head = column.slice(0, 1000)
    known = where_valid(head).sum()
    read = []
    for form in formats(head, _DATE):
        days = canonical(head, _DATE, form)
        if known and where_valid(days).sum() > _MOSTLY * known:
            read.append(canonical(column, _DATE, form))
    return read


def decoy_e_values(
    found: Sequence[FoundDecoy], decoys: Sequence[IssuedDecoy], recipients: Sequence[str]
) -> NDArray[np.float64]:
    """Return each recipient's log10 e-value from decoys, float64[N] in the order of ``recipients``.

    ``decoys`` are all that were issued, retired ones too, among which ``found`` were looked for.
    Of m decoys r may have leaked: for each r the mean over the choices of r of their products is
    an e-value, and so is the mean over r. 0 where nobody was issued any.
    """
    issued: dict[str, int] = {}
    for decoy in decoys:
        issued[decoy.recipient] = issued.get(decoy.recipient, 0) + 1
    there: dict[str, list[float]] = {}
    for one in found:
        there.setdefault(one.decoy.recipient, []).append(one.e_value)
    values = np.zeros(len(recipients))
    for place, name in enumerate(recipients):
        if name in issued:
            wager = _together(there.get(name, []), issued[name])
            values[place] = np.log10(1 - SHARE + SHARE * wager)
    return values


def _together(values: Sequence[float], issued: int) -> float:
    most = min(issued, _MOST_TOGETHER)
    strongest = sorted(values, reverse=True)[:_MOST_TOGETHER]
    # elementary symmetric sums over their number of terms
    sums = np.zeros(most + 1)
    sums[0] = 1.0
    for value in strongest:
        sums[1:] += value * sums[:-1]
    choices = np.array([_choices(issued, r) for r in range(1, most + 1)])
    return float((sums[1:] / choices).mean())


def _choices(n: int, r: int) -> float:
    return float(np.prod([(n - k) / (r - k) for k in range(r)]))
