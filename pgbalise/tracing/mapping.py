"""Which stored column each column of a leak is, by its name and by what is in it.

Names are cheap to change, so content has the last word: how the values are spread, which rare ones
occur on both sides, what texts look like. The columns are then assigned one to one, so that the
whole table is explained best.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pgbalise.errors import InvalidInput
from pgbalise.marking.types import SqlType
from pgbalise.tracing.assignment import assign
from pgbalise.tracing.glance import Glances
from pgbalise.tracing.inference import infer_format
from pgbalise.tracing.profiles import (
    LEAK_ROWS,
    STORED_ROWS,
    LeakedProfile,
    StoredProfile,
    fresh_key,
    legible,
    likeness,
    name_likeness,
    name_words,
    shortened,
    spread_values,
)
from pgbalise.tracing.written import Format

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StoredColumn:
    """A column that a leaked one may be."""

    name: str
    type: SqlType
    values: pa.Array
    """The stored values or a sample of them, text as PostgreSQL prints it."""

    @cached_property
    def _profile(self) -> StoredProfile:
        # kept with the column, which is compared with every table of a leak
        return StoredProfile(
            self.name, self.type, shortened(spread_values(self.values, STORED_ROWS))
        )


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
            LeakedProfile(name, shortened(spread_values(rows.column(at), LEAK_ROWS)))
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
            self._names.setdefault("".join(name_words(one.name)), []).append(at)

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
                same = self._names.get("".join(name_words(column.name)), [])
                like[same] = (1 + like[same]) / 2
            score[there] += np.maximum.reduceat(like * self._entropy, starts[there])
        best = np.argsort(-score, kind="stable")[:_WORTH_COMPARING]
        return [int(n) for n in best if score[n] >= _WORTH_A_LOOK * score[best[0]]]


_SAME_NAME = 0.8
_NAME_GAIN = 0.35
_EQUAL_NAME = 0.999
_CONTRADICTED = 0.65
_UNCONTRADICTED = 0.55

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
        [[likeness(leaked[row], kept[at]) for at in free] for row in free_rows], np.float64
    ).reshape(len(free_rows), len(free))
    naming = np.zeros_like(content)
    if named:
        naming = np.array(
            [[name_likeness(leaked[row].name, names[at]) for at in free] for row in free_rows]
        ).reshape(content.shape)
    fresh = np.array(
        [[fresh_key(leaked[row], kept[at]) for at in free] for row in free_rows], np.bool_
    ).reshape(content.shape)
    believed = content.copy()
    for row, at in np.argwhere((naming >= _EQUAL_NAME) & (content < _UNCONTRADICTED) & ~fresh):
        # the rows of one ward or one month need not look like the others
        rivals = np.delete(content[row], at).max(initial=0.0), np.delete(content[:, at], row)
        if max(rivals[0], rivals[1].max(initial=0.0)) < _CONTRADICTED and legible(
            leaked[free_rows[row]], kept[free[at]]
        ):
            believed[row, at] = _UNCONTRADICTED
    weight = _weight(believed, naming, fresh)
    picked = assign(weight - _WORTH)
    sure = _confidence(believed, naming, fresh, weight, picked)
    agreement = dict.fromkeys(range(len(leaked)), 1.0)
    mapped: dict[
        int, tuple[StoredProfile | None, float, Literal["name", "content", "given", "none"]]
    ]
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


def _agreed(
    leaked: Sequence[LeakedProfile],
    stored: Sequence[StoredProfile],
    rows: Sequence[int],
    free: Sequence[int],
) -> dict[int, tuple[int, float]]:
    """Return the pairs that both name and content agree on: by row, the column and its likeness.

    No other assignment of theirs can be much better, so they need not be compared with the rest.
    """
    mine, theirs = (
        _once({n: "".join(name_words(columns[n].name)) for n in numbers})
        for columns, numbers in ((leaked, rows), (stored, free))
    )
    out = {}
    for name, row in mine.items():
        if name in theirs:
            alike = likeness(leaked[row], stored[theirs[name]])
            if alike >= _CONTRADICTED:
                out[row] = (theirs[name], alike)
    return out


def _once(names: Mapping[int, str]) -> dict[str, int]:
    """Return which number has each name, for names that only one has."""
    count = Counter(names.values())
    return {name: n for n, name in names.items() if name and count[name] == 1}


def _plausible(
    leaked: Sequence[LeakedProfile],
    stored: Sequence[StoredProfile],
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
            called = "".join(name_words(stored[column].name))
            for here, row in enumerate(rows):
                if "".join(name_words(leaked[row].name)) == called:
                    like[here, at] += 1.0
    best = np.argsort(-like, axis=0, kind="stable")[:_BEST_PAIRS]
    return [rows[here] for here in np.unique(best)]


_WORTH = 0.3
"""A pair less alike than this is no pair."""
_LIKELY = 0.5


def _weight(content: Floats, naming: Floats, fresh: NDArray[np.bool_]) -> Floats:
    """Content, and the name where content does not contradict it."""
    believed = (content >= 0.15) | fresh
    weight: Floats = content + np.where(believed, _NAME_GAIN * naming, 0.0)
    return weight


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
