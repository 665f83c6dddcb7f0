"""The rows of decoys, put together: what was drawn, who they are, and their keys.

Nothing here reads or writes the database; new numbers of a sequence are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pgbalise.decoys.columns import Column, ColumnKind, Sample
from pgbalise.decoys.formats import Drawer, learn_format
from pgbalise.decoys.identity import Identity
from pgbalise.decoys.keys import (
    DAY,
    Ints,
    assign_keys,
    counted,
    draw_uuids,
    fresh_needed,
    uuid_version,
    with_fresh,
)
from pgbalise.decoys.stream import Stream
from pgbalise.decoys.texts import write_column
from pgbalise.decoys.uniforms import uniforms
from pgbalise.issuing.free_keys import microseconds_of
from pgbalise.issuing.sampling import Use

if TYPE_CHECKING:
    from pgbalise.issuing.free_keys import Numbers
    from pgbalise.issuing.sampling import Member, Reading

_NEAR: Final = 31 * DAY
"""When a row's time is moved, those of its times move along that are not farther from it."""

Place = tuple[int, str]
"""A member of the family and one of its columns."""


@dataclass(frozen=True)
class Source:
    """What rows are made from: the family, its real rows, and its free keys."""

    members: Sequence[Member]
    readings: Sequence[Reading]
    numbers: Mapping[Place, Numbers]
    ties: Mapping[int, str] = field(default_factory=dict)
    """By member, the column by which rows of the same time are numbered."""


@dataclass(frozen=True)
class Batch:
    """Decoys to be made: as many seeds, identities and owners as there are."""

    seeds: Sequence[bytes]
    identities: Sequence[Identity]
    owners: Ints
    """Whose decoy each is, numbers from 0."""
    used: Mapping[Place, tuple[Ints, Ints]]
    """Owners and values of a column that those have already."""
    taken: Mapping[Place, set[str]]
    """Values of text keys in use; what is drawn is added."""


@dataclass(frozen=True)
class Rows:
    """Rows of one member."""

    columns: Mapping[str, pa.Array]
    decoys: Ints
    """Of which decoy of the batch each row is."""
    out_of_order: int
    """Rows whose key does not go with their time."""


def tie_columns(members: Sequence[Member], readings: Sequence[Reading]) -> dict[int, str]:
    """Return by member the column that real rows of one parent and time are sorted by, if any.

    The readings' rows are in the order of parent, then key.
    """
    found = {}
    for at, reading in enumerate(readings):
        sample = reading.sample
        moments = [c for c in sample.columns if c.kind in (ColumnKind.DATE, ColumnKind.TIMESTAMP)]
        if members[at].parent is None or not moments:
            continue
        same = np.diff(sample.parent_row) == 0
        for made in moments:
            same &= np.diff(made.values) == 0
        for made in sample.columns:
            if made.kind is ColumnKind.CATEGORY and same.any():
                step = np.diff(made.values)[same]
                if np.mean(step >= 0) >= 0.99 and np.mean(step > 0) >= 0.5:
                    found[at] = made.name
                    break
    return found


def put_together(
    source: Source,
    batch: Batch,
    drawn: Sequence[Sample],
    fresh: Callable[[Place, int], Ints],
) -> list[Rows]:
    """Return the rows of a batch, by member.

    ``drawn`` are the clinical columns. ``fresh(place, count)`` gives new numbers for a column,
    the same ones first whenever it is asked for more.
    """
    made: list[Rows] = []
    lines: list[dict[int, Ints]] = []
    parents = {member.parent for member in source.members}
    for at, member in enumerate(source.members):
        sample = drawn[at]
        leaf = at not in parents
        if leaf and member.parent is not None:
            sample = _sorted(source, at, sample)
        if member.parent is None:
            line: dict[int, Ints] = {}
            decoys = np.arange(len(batch.seeds))
        else:
            above = sample.parent_row
            line = {member.parent: above}
            line.update({up: rows[above] for up, rows in lines[member.parent].items()})
            decoys = made[member.parent].decoys[above]
        lines.append(line)
        weaver = _Weaver(source, batch, at, sample, decoys, fresh, leaf=leaf)
        columns = weaver.keys()
        for name, (up, theirs) in member.links.items():
            columns[name] = made[up].columns[theirs].take(pa.array(line[up]))
        for name in member.using(Use.IDENTITY):
            role = member.relation.identity[name]
            texts = pa.array([identity.get(role) for identity in batch.identities], pa.string())
            columns[name] = texts.take(pa.array(decoys))
        forms = source.readings[at].forms
        for column in weaver.sample.columns:
            columns[column.name] = write_column(column, forms[column.name])
        made.append(Rows(columns, decoys, weaver.out_of_order))
    return made


def _sorted(source: Source, at: int, sample: Sample) -> Sample:
    """Put rows in the order of parent, time and then as real rows of one time are numbered."""
    time = next(
        (n.time for (place, _), n in source.numbers.items() if place == at and n.time), None
    )
    keys: list[Ints] = []
    if at in source.ties:
        keys.append(sample.column(source.ties[at]).values.astype(np.int64))
    if time is not None:
        keys.append(microseconds_of(sample.column(time)))
    order = np.lexsort((*keys, sample.parent_row))
    columns = tuple(
        replace(column, values=column.values[order], valid=column.valid[order])
        for column in sample.columns
    )
    return replace(sample, columns=columns, parent_row=sample.parent_row[order])


class _Weaver:
    """Makes the keys of one member's rows, and moves their times where the keys need it."""

    def __init__(
        self,
        source: Source,
        batch: Batch,
        at: int,
        sample: Sample,
        decoys: Ints,
        fresh: Callable[[Place, int], Ints],
        *,
        leaf: bool,
    ) -> None:
        self.source = source
        self.batch = batch
        self.at = at
        self.sample = sample
        self.decoys = decoys
        self.fresh = fresh
        self.leaf = leaf
        self.out_of_order = 0
        self.counts = np.bincount(decoys, minlength=len(batch.seeds))

    def keys(self) -> dict[str, pa.Array]:
        member, reading = self.source.members[self.at], self.source.readings[self.at]
        columns: dict[str, pa.Array] = {}
        for name in member.using(Use.NUMBER):
            columns[name] = pa.array(self._numbers(name))
        for name in member.using(Use.COUNTED):
            least = int(np.asarray(reading.texts[name].cast(pa.int64()).drop_null()).min(initial=1))
            columns[name] = pa.array(counted(self.sample.parent_row, least))
        for name in member.using(Use.UUID):
            few = reading.texts[name].slice(0, 1_000).to_pylist()
            texts = draw_uuids(
                self.batch.seeds,
                self._topic(name),
                self.counts,
                uuid_version([text for text in few if text]),
                self._any_time(),
            )
            columns[name] = pa.array(texts, pa.string())
        for name in member.using(Use.TEXT_KEY):
            columns[name] = pa.array(self._texts(name), pa.string())
        return columns

    def _topic(self, name: str) -> str:
        return f"key {self.source.members[self.at].relation.qualified} {name}"

    def _numbers(self, name: str) -> Ints:
        place = (self.at, name)
        numbers = self.source.numbers[place]
        count = len(self.decoys)
        times, timed = np.zeros(count, np.int64), np.zeros(count, np.bool_)
        if numbers.time is not None:
            column = self.sample.column(numbers.time)
            times, timed = microseconds_of(column), column.valid
        chance = uniforms(self.batch.seeds, self._topic(name), 2 * self.counts).reshape(-1, 2)
        owners = self.batch.owners[self.decoys]
        used_owners, used = self.batch.used.get(place, (np.zeros(0, np.int64),) * 2)
        assigned = assign_keys(
            numbers.numbering,
            owners,
            times,
            timed,
            self.sample.parent_row if len(self.sample.parent_row) else np.arange(count),
            chance,
            used=(used_owners, numbers.as_numbered(used)),
            movable=self.leaf,
        )
        keys = assigned.keys
        needed = fresh_needed(keys, owners)
        if needed:
            keys = with_fresh(keys, owners, self.fresh(place, needed))
        if numbers.time is not None:
            self._move(times, assigned.times - times)
        self.out_of_order += assigned.out_of_order
        return numbers.as_stored(keys)

    def _move(self, times: Ints, delta: Ints) -> None:
        """Move a row's times by as much as the one that its key goes with."""
        columns = tuple(_moved(column, times, delta) for column in self.sample.columns)
        self.sample = replace(self.sample, columns=columns)

    def _any_time(self) -> Ints | None:
        moments: list[Column] = [
            c for c in self.sample.columns if c.kind in (ColumnKind.TIMESTAMP, ColumnKind.DATE)
        ]
        return microseconds_of(moments[0]) if moments else None

    def _texts(self, name: str) -> list[str]:
        place = (self.at, name)
        taken = self.batch.taken[place]
        real = [text for text in self.source.readings[self.at].texts[name].to_pylist() if text]
        drawer = Drawer(learn_format(real), taken)
        begins = np.cumsum(self.counts) - self.counts
        drawn = []
        for row, decoy in enumerate(self.decoys.tolist()):
            topic = f"{self._topic(name)} {row - begins[decoy]}"
            text = drawer.draw(Stream(self.batch.seeds[decoy], topic))
            taken.add(text)
            drawn.append(text)
        return drawn


def _moved(column: Column, times: Ints, delta: Ints) -> Column:
    values: NDArray[np.int64]
    if column.kind is ColumnKind.TIMESTAMP:
        near = np.abs(column.values - times) <= _NEAR
        values = (column.values + np.where(near, delta, 0)).astype(np.int64)
    elif column.kind is ColumnKind.DATE:
        near = np.abs(column.values * DAY - times) <= _NEAR
        days = (times + delta) // DAY - times // DAY
        values = (column.values + np.where(near, days, 0)).astype(np.int64)
    else:
        return column
    return replace(column, values=values)
