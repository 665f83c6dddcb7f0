"""Which stored row each leaked row is: by the key where the leak still has it, else by linkage.

Nothing here looks at a codeword, so a row taken for another costs power and never an innocent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.frames import microseconds, one_chunk, strings
from pgbalise.marking.hashing import hash_bytes
from pgbalise.marking.policy import Carrier, Equivalents, Relation, Tolerance
from pgbalise.marking.types import Kind, SqlType
from pgbalise.tracing.linkage import Cells, Field, Linker
from pgbalise.tracing.mapping import StoredColumn, TableMapping
from pgbalise.tracing.reading import ABSURD, canonical

SURE = 0.9
"""Rows linked with less probability are left out."""

SAMPLE_ROWS = 20_000
"""Rows of a leaked table, and of a relation, by which columns are compared and linkage is set."""

_KEY_SURE = 0.999
_KEY_PAIRS = 2_000
_KEY_FITS = 0.25
_FEWEST_PAIRS = 8
_UNTELLING = 0.9
_LINKED_ROWS = 8_192
_SPARE_BITS = 10


class LeakedTable(Protocol):
    """One table of a leak, as `pgbalise.leaks.LeakTable` gives it."""

    @property
    def name(self) -> str:
        """What the auditor knows it by."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' names, made up where the file has none."""

    @property
    def named(self) -> bool:
        """Whether the file itself names the columns."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield its rows as text, from the first one each time."""


@dataclass(frozen=True)
class InMemory:
    """A leaked table that is an Arrow table (columns of text) already."""

    table: pa.Table
    name: str = "leak"
    named: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(self.table.column_names)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the table as one batch."""
        yield from self.table.combine_chunks().to_batches()


class Source(ABC):
    """The stored rows of one relation, columns of text as PostgreSQL prints them.

    What is learnt about them is kept, for the next table or leak that is held against them.
    """

    types: Mapping[str, SqlType]
    """The columns that can be read, by name."""

    @abstractmethod
    def sample(self) -> pa.Table:
        """Return some rows, the same ones each time."""

    @abstractmethod
    def having(self, keys: pa.Table) -> pa.Table:
        """Return at least the rows with these keys (columns of text, named as stored)."""

    @abstractmethod
    def everything(self) -> pa.Table:
        """Return all rows, in the same order each time."""

    @cached_property
    def columns(self) -> tuple[StoredColumn, ...]:
        """The columns and a sample of their values, to recognise them by."""
        some = self.sample()
        return tuple(
            StoredColumn(name, self.types[name], one_chunk(some.column(name)))
            for name in some.column_names
        )


@dataclass(frozen=True)
class StoredTable(Source):
    """A source that is an Arrow table already."""

    table: pa.Table
    types: Mapping[str, SqlType]

    def sample(self) -> pa.Table:
        """Return rows spread evenly over the table."""
        return spread(self.table, SAMPLE_ROWS)

    def having(self, keys: pa.Table) -> pa.Table:
        """Return the table: who asks finds the rows with these keys in it."""
        del keys
        return self.table

    def everything(self) -> pa.Table:
        """Return the table."""
        return self.table


def spread(table: pa.Table, rows: int) -> pa.Table:
    """Return at most so many rows, spread evenly over the table."""
    if table.num_rows <= rows:
        return table
    return table.take(pa.array(np.linspace(0, table.num_rows - 1, rows).astype(np.int64)))


@dataclass(frozen=True)
class Piece:
    """Leaked rows beside the stored ones they were found to be; n entries each."""

    leaked: pa.Table
    """As the leak writes them, under its own column names."""
    stored: pa.Table
    probability: NDArray[np.float64]
    """That the stored row is the right one, at least `SURE`."""
    stratum: NDArray[np.int8]
    """0 where all columns agree that carry no marks, 1 where one of them does not."""


@dataclass(frozen=True)
class _Found:
    stored: pa.Table
    at: NDArray[np.int64]
    """Row of ``stored`` for each leaked row, -1 for none."""
    probability: NDArray[np.float64]


class Alignment:
    """One leaked table laid against one relation; its counts fill up as `pieces` goes on."""

    def __init__(
        self, table: LeakedTable, mapping: TableMapping, relation: Relation, source: Source
    ) -> None:
        self.table = table
        self.mapping = mapping
        self.relation = relation
        self.source = source
        self.how: Literal["key", "linkage"] = "linkage"
        self.read = self.aligned = self.ambiguous = self.unmatched = self.repeated = 0
        self.altered: tuple[tuple[str, float], ...] = ()
        """By stored column, the estimated share of cells that are not what is stored; with the key
        only of columns that bear no marks, whose every difference counts."""
        self.doubtful = False
        """Whether the columns hardly say enough to tell one row of the relation from another."""

    @property
    def leak_columns(self) -> dict[str, str]:
        """The leaked column of each stored column that was found."""
        return {m.column: m.leak_column for m in self.mapping.columns if m.column is not None}

    def pieces(self, progress: Callable[[str], None]) -> Iterator[Piece]:
        """Yield the rows that were found, batch by batch."""
        head = next((batch for batch in self.table.batches() if batch.num_rows), None)
        if head is None:
            return
        sample = spread(self._canonical(pa.Table.from_batches([head])), SAMPLE_ROWS)
        columns = _columns(self.relation, self.source, sample.column_names)
        keys = [name for name, _ in self.relation.key]
        if set(keys) <= set(sample.column_names) and self._key_holds(sample, columns):
            self.how = "key"
            find: _ByKey | _ByLinkage = _ByKey(self.source, keys)
        else:
            progress(f"comparing {self.table.name} with all rows of {self.relation.qualified}")
            find = _ByLinkage(self.source, columns, sample)
            needed = np.log2(max(1, find.rows)) + _SPARE_BITS
            self.doubtful = bool(self.mapping.identifying_bits < needed)
        off = _Differences(columns)
        for batch in self.table.batches():
            if not batch.num_rows:
                continue
            rows = pa.Table.from_batches([batch])
            written = self._canonical(rows)
            found = find(written)
            sure = np.flatnonzero(found.probability >= SURE)
            self.read += rows.num_rows
            self.aligned += len(sure)
            self.unmatched += int(np.count_nonzero(found.at < 0))
            self.ambiguous += rows.num_rows - len(sure) - int(np.count_nonzero(found.at < 0))
            if not len(sure):
                continue
            at = found.at[sure]
            self.repeated += find.repeated(found, sure)
            stored = found.stored.take(pa.array(at))
            index = pa.array(sure)
            stratum = off.add(written.take(index), stored)
            yield Piece(rows.take(index), stored, found.probability[sure], stratum)
        self.altered = off.shares() if self.how == "key" else find.altered()

    def _canonical(self, rows: pa.Table) -> pa.Table:
        """The columns that were found, under their stored names, as PostgreSQL writes them."""
        return pa.table(
            {
                m.column: canonical(
                    one_chunk(rows.column(m.leak_column)), self.source.types[m.column], m.format
                )
                for m in self.mapping.columns
                if m.column is not None
            }
        )

    def _key_holds(self, sample: pa.Table, columns: Sequence[_Column]) -> bool:
        """Whether rows with the same key resemble each other more than rows with another key.

        A thief may have numbered the rows anew, in numbers that the relation has too.
        """
        keys = [name for name, _ in self.relation.key]
        some = spread(sample, _KEY_PAIRS)
        found = _ByKey(self.source, keys)(some)
        rows = np.flatnonzero(found.at >= 0)
        others = [column for column in columns if column.name not in keys]
        if not len(rows) or not others:
            return bool(len(rows))
        leaked, stored = some.take(pa.array(rows)), found.stored.take(pa.array(found.at[rows]))
        fit = [
            column.likeness(leaked.column(column.name), stored.column(column.name))
            for column in others
        ]
        known = [value for value in fit if value is not None]
        return not known or sum(known) / len(known) >= _KEY_FITS


def readable(stored: pa.Table, types: Mapping[str, SqlType]) -> pa.Table:
    """Return stored rows with NULL for dates and times that only PostgreSQL knows.

    Those are infinity, years before Christ and after 9999: none of them ever bears a mark.
    """
    for at, name in enumerate(stored.column_names):
        declared, text = types[name], stored.column(at)
        if declared.kind not in (Kind.DATE, Kind.TIMESTAMP):
            continue
        zoned = declared.name == "timestamp with time zone"
        stamp = pa.timestamp("us", "UTC" if zoned else None)
        try:
            pc.cast(text, pa.date32() if declared.kind is Kind.DATE else stamp)
        except pa.ArrowInvalid:
            stored = stored.set_column(at, name, canonical(one_chunk(text), declared))
    return stored


class _ByKey:
    """Finds leaked rows by their key."""

    def __init__(self, source: Source, keys: Sequence[str]) -> None:
        self._source = source
        self._keys = list(keys)
        self._seen = np.empty(0, np.int64)

    def __call__(self, rows: pa.Table) -> _Found:
        wanted = rows.select(self._keys)
        stored = readable(self._source.having(wanted), self._source.types)
        index = pc.index_in(
            joined(wanted), value_set=joined(stored.select(self._keys)), skip_nulls=True
        )
        at = np.asarray(pc.fill_null(index, -1)).astype(np.int64)
        return _Found(stored, at, np.where(at >= 0, _KEY_SURE, 0.0))

    def repeated(self, found: _Found, sure: NDArray[np.int64]) -> int:
        """How many of these rows came before, in this batch or an earlier one."""
        named = joined(found.stored.select(self._keys)).take(pa.array(found.at[sure]))
        hashes = hash_bytes(strings(named), 0)
        before = len(self._seen)
        self._seen = np.union1d(self._seen, hashes)
        return len(sure) - (len(self._seen) - before)

    def altered(self) -> tuple[tuple[str, float], ...]:
        """Nothing was estimated on the way."""
        return ()


class _ByLinkage:
    """Finds leaked rows by what they resemble."""

    def __init__(self, source: Source, columns: Sequence[_Column], sample: pa.Table) -> None:
        self._stored = readable(source.everything(), source.types)
        self._encoders = [_Encoder(column, self._stored) for column in columns]
        self._linker = Linker.fit(
            [encoder.field for encoder in self._encoders],
            [encoder.cells(sample) for encoder in self._encoders],
        )
        self.rows = self._stored.num_rows
        self._seen = np.zeros(self.rows, np.bool_)

    def __call__(self, rows: pa.Table) -> _Found:
        at, probability = [], []
        # rows that are like very many others would fill the memory together
        for start in range(0, rows.num_rows, _LINKED_ROWS):
            some = rows.slice(start, _LINKED_ROWS)
            links = self._linker.link([encoder.cells(some) for encoder in self._encoders])
            at.append(links.stored)
            probability.append(links.probability)
        return _Found(self._stored, np.concatenate(at), np.concatenate(probability))

    def repeated(self, found: _Found, sure: NDArray[np.int64]) -> int:
        """How many of these rows came before, in this batch or an earlier one."""
        before = int(np.count_nonzero(self._seen))
        self._seen[found.at[sure]] = True
        return len(sure) - (int(np.count_nonzero(self._seen)) - before)

    def altered(self) -> tuple[tuple[str, float], ...]:
        """By column, the estimated share of cells that are not what is stored."""
        return tuple((field.name, field.altered) for field in self._linker.summary.fields)


@dataclass(frozen=True)
class _Column:
    """How one column's cells are compared."""

    name: str
    type: SqlType
    number: bool
    tolerance: float
    groups: tuple[tuple[str, ...], ...]
    """Texts that a mark may exchange."""
    marked: bool

    def numbers(self, text: pa.Array) -> NDArray[np.float64]:
        """Cells (text as PostgreSQL prints it) as numbers, days or microseconds; NaN for none."""
        match self.type.name:
            case "date":
                days = pc.cast(pc.cast(text, pa.date32()), pa.int32())
                values = pc.cast(days, pa.float64())
            case "timestamp without time zone" | "timestamp with time zone":
                # beyond 2**53, which Arrow does not take for a float, digits may be lost
                stamps = microseconds(text, self.type).astype(np.float64)
                return np.where(np.asarray(text.is_valid()), stamps, np.nan)
            case _:
                values = pc.cast(text, pa.float64())
        numbers = np.asarray(pc.fill_null(values, np.nan))
        return np.where(np.abs(numbers) < ABSURD, numbers, np.nan)

    def texts(self, text: pa.Array) -> pa.Array:
        """Cells as text, those that a mark may exchange as one."""
        if not self.groups:
            return text
        members = pa.array([m for group in self.groups for m in group], pa.string())
        first = pa.array([group[0] for group in self.groups for _ in group], pa.string())
        return pc.coalesce(first.take(pc.index_in(text, value_set=members, skip_nulls=True)), text)

    def stored_texts(self, text: pa.Array) -> pa.Array:
        """Stored cells as text, written as `canonical` writes leaked ones."""
        return self.texts(canonical(text, self.type))

    def agree(self, leaked: pa.Array, stored: pa.Array) -> tuple[NDArray[np.bool_], ...]:
        """Where both have a value, and where those are the same but for a mark."""
        both = np.asarray(pc.and_(leaked.is_valid(), stored.is_valid()))
        if self.number:
            apart = np.abs(self.numbers(leaked) - self.numbers(stored))
            both = both & np.isfinite(apart)
            return both, both & (apart <= self.tolerance)
        equal = pc.equal(self.texts(leaked), self.stored_texts(stored))
        return both, np.asarray(pc.fill_null(equal, False))

    def likeness(self, leaked: pa.ChunkedArray, stored: pa.ChunkedArray) -> float | None:
        """How much more alike paired cells are than cells paired at random: 0 to 1, or None."""
        mine, theirs = one_chunk(leaked), one_chunk(stored)
        turned = pa.array(np.roll(np.arange(len(mine)), max(1, len(mine) // 2)))
        others = theirs.take(turned)
        both, same = self.agree(mine, theirs)
        also, by_chance = self.agree(mine, others)
        if min(np.count_nonzero(both), np.count_nonzero(also)) < _FEWEST_PAIRS:
            return None
        if self.number:
            value = self.numbers(mine)
            apart = np.median(np.abs(value - self.numbers(theirs))[both])
            chance = np.median(np.abs(value - self.numbers(others))[also])
            if not chance > self.tolerance:
                return None
            return max(0.0, 1 - float(apart / chance))
        share, chance = np.mean(same[both]), np.mean(by_chance[also])
        return None if chance > _UNTELLING else max(0.0, float((share - chance) / (1 - chance)))


def _columns(relation: Relation, source: Source, names: Sequence[str]) -> list[_Column]:
    carriers = {carrier.column: carrier for carrier in relation.carriers}
    keys = {name for name, _ in relation.key}
    out = []
    for name in names:
        declared, carrier = source.types[name], carriers.get(name)
        number = declared.kind not in (None, Kind.CATEGORICAL) and name not in keys
        out.append(
            _Column(
                name,
                declared,
                number,
                0.0 if carrier is None else _tolerance(carrier),
                () if carrier is None else _groups(carrier),
                carrier is not None,
            )
        )
    return out


def _tolerance(carrier: Carrier) -> float:
    quanta = [
        max(tolerance.quantum, tolerance.grid or tolerance.quantum)
        for tolerance in carrier.tolerances.values()
        if isinstance(tolerance, Tolerance)
    ]
    # a float's sum may be off by its last digit
    return float(max(quanta, default=0)) * (1 + 1e-9)


def _groups(carrier: Carrier) -> tuple[tuple[str, ...], ...]:
    return tuple(
        group
        for tolerance in carrier.tolerances.values()
        if isinstance(tolerance, Equivalents)
        for group in tolerance.groups
    )


class _Encoder:
    """Turns one column's cells into what linkage compares: codes or numbers."""

    def __init__(self, column: _Column, stored: pa.Table) -> None:
        self._column = column
        text = one_chunk(stored.column(column.name))
        if column.number:
            values: NDArray[np.int64] | NDArray[np.float64] = column.numbers(text)
        else:
            encoded = column.stored_texts(text).dictionary_encode()
            self._dictionary = encoded.dictionary
            values = np.asarray(pc.fill_null(encoded.indices, -1)).astype(np.int64)
        self.field = Field(
            name=column.name,
            values=values,
            valid=np.asarray(text.is_valid()),
            kind="number" if column.number else "code",
            tolerance=column.tolerance,
        )

    def cells(self, rows: pa.Table) -> Cells:
        text = one_chunk(rows.column(self._column.name))
        if self._column.number:
            return Cells(self._column.numbers(text), np.asarray(text.is_valid()))
        codes = pc.index_in(self._column.texts(text), value_set=self._dictionary, skip_nulls=True)
        found = np.asarray(pc.fill_null(codes, -2)).astype(np.int64)
        return Cells(found, np.asarray(text.is_valid()))


class _Differences:
    """Where cells that bear no marks are not what is stored."""

    def __init__(self, columns: Sequence[_Column]) -> None:
        self._columns = [column for column in columns if not column.marked]
        self._compared = np.zeros(len(self._columns), np.int64)
        self._off = np.zeros(len(self._columns), np.int64)

    def add(self, leaked: pa.Table, stored: pa.Table) -> NDArray[np.int8]:
        """Compare rows: 0 where all these cells agree, 1 where one does not."""
        found = np.zeros(leaked.num_rows, np.bool_)
        for at, column in enumerate(self._columns):
            both, same = column.agree(
                one_chunk(leaked.column(column.name)), one_chunk(stored.column(column.name))
            )
            self._compared[at] += np.count_nonzero(both)
            self._off[at] += np.count_nonzero(both & ~same)
            found |= both & ~same
        return found.astype(np.int8)

    def shares(self) -> tuple[tuple[str, float], ...]:
        """Return by column the share of the cells compared that differ."""
        return tuple(
            (column.name, float(off / compared))
            for column, off, compared in zip(self._columns, self._off, self._compared, strict=True)
            if compared
        )


def joined(table: pa.Table) -> pa.Array:
    """Return the columns as one text per row, NULL where one of them is."""
    columns = [one_chunk(column) for column in table.columns]
    if len(columns) == 1:
        return columns[0]
    return pc.binary_join_element_wise(*columns, "\x1f", null_handling="emit_null")
