"""One trial of robustness: recipients' copies are marked, a leak is made of them and traced.

All of it happens in memory, by `pgbalise.frames.mark` and `pgbalise.trace.trace`; all randomness
is the caller's generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.errors import InvalidLeak
from pgbalise.frames import mark
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import Policy
from pgbalise.trace import Marking, trace

Merge = Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.int64]]
"""How a coalition merges copies, int64[members, columns, rows], into one, int64[columns, rows]."""


def _mixed_rows(copies: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    members, columns, rows = copies.shape
    from_whom = rng.integers(members, size=rows)
    return copies[from_whom[None, :], np.arange(columns)[:, None], np.arange(rows)[None, :]]


def _interleaved(copies: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    from_whom = rng.integers(len(copies), size=copies.shape[1:])
    return np.take_along_axis(copies, from_whom[None], axis=0)[0]


def _most(copies: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    return _voted(copies, rng, most=True)


def _fewest(copies: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    return _voted(copies, rng, most=False)


def _voted(copies: NDArray[np.int64], rng: np.random.Generator, *, most: bool) -> NDArray[np.int64]:
    """A cell has at most two values among all copies; where they are as frequent, a coin."""
    low, high = copies.min(axis=0), copies.max(axis=0)
    lead = 2 * np.count_nonzero(copies == high, axis=0) - len(copies)
    coin = rng.choice(np.array([-1, 1]), lead.shape)
    lead = np.where(lead == 0, coin, lead)
    return np.where((lead > 0) == most, high, low)


def _lowest(copies: NDArray[np.int64], _: np.random.Generator) -> NDArray[np.int64]:
    return copies.min(axis=0)


def _highest(copies: NDArray[np.int64], _: np.random.Generator) -> NDArray[np.int64]:
    return copies.max(axis=0)


def _averaged(copies: NDArray[np.int64], _: np.random.Generator) -> NDArray[np.int64]:
    return np.rint(copies.mean(axis=0)).astype(np.int64)


MERGES: dict[str, Merge] = {
    "rows mixed": _mixed_rows,
    "cells interleaved": _interleaved,
    "majority": _most,
    "minority": _fewest,
    "lowest": _lowest,
    "highest": _highest,
    "averaged": _averaged,
}


@dataclass(frozen=True)
class Source:
    """A relation as its owner has it, and who receives it.

    ``table``: integers for the carriers, for marking and merging; ``text``: the same as text.
    """

    table: pa.Table
    text: pa.Table
    policy: Policy
    key: MasterKey
    recipients: Sequence[str]

    @classmethod
    def of(
        cls, table: pa.Table, policy: Policy, key: MasterKey, recipients: Sequence[str]
    ) -> Source:
        return cls(table, as_text(table), policy, key, recipients)

    def bare(self) -> Source:
        """The same with the columns alone that marks rest on."""
        columns = list(self.policy.relations[0].needed)
        return replace(self, table=self.table.select(columns), text=self.text.select(columns))

    def leaked_by(
        self,
        thieves: Sequence[str],
        rows: NDArray[np.int64],
        merge: str,
        rng: np.random.Generator,
    ) -> pa.Table:
        """What thieves make of their copies of some rows, as text, every column still there."""
        index = pa.array(rows)
        relation = self.policy.relations[0]
        part = self.table.select(relation.needed).take(index)
        carriers = [carrier.column for carrier in relation.carriers]
        copies = [mark(part, self.policy, thief, self.key) for thief in thieves]
        if len(copies) == 1:
            merged = [copies[0].column(name) for name in carriers]
        else:
            values = [[copy.column(name).to_numpy() for name in carriers] for copy in copies]
            merged = list(map(pa.array, MERGES[merge](np.array(values), rng)))
        out = self.text.take(index)
        for name, column in zip(carriers, merged, strict=True):
            at = out.column_names.index(name)
            out = out.set_column(at, name, pc.cast(column, pa.string()))
        return out

    def judge(self, leak: pa.Table, alpha: float, *, rows: NDArray[np.int64] | None) -> Judgement:
        """Trace a leak against these rows of the source, or against the whole of it."""
        stored = self.text if rows is None else self.text.take(pa.array(rows))
        marking = Marking(self.policy, self.policy.relations[0], self.key, stored, self.recipients)
        try:
            verdict = trace(leak, [marking], alpha=alpha).verdict
        except InvalidLeak:
            return Judgement((), {})
        found = {one.recipient: one.log10_e_value for one in verdict.verdicts}
        return Judgement(tuple(verdict.accused), found)


@dataclass(frozen=True)
class Judgement:
    """Who is accused, and the decimal logarithm of everyone's e-value, strongest first.

    A leak that cannot be traced at all accuses nobody and has no e-values.
    """

    accused: tuple[str, ...]
    log10_e_values: dict[str, float]

    @property
    def first(self) -> str | None:
        return next(iter(self.log10_e_values), None)

    def strongest_but(self, thieves: Sequence[str]) -> float:
        """The largest e-value (log10) of those who are not thieves."""
        others = [e for who, e in self.log10_e_values.items() if who not in thieves]
        return max(others, default=-np.inf)


def as_text(table: pa.Table) -> pa.Table:
    return pa.table({name: pc.cast(table.column(name), pa.string()) for name in table.column_names})


def disguised(leak: pa.Table, rng: np.random.Generator) -> pa.Table:
    """The same rows under columns renamed and in another order."""
    order = rng.permutation(leak.num_columns).tolist()
    return leak.select(order).rename_columns([f"v{n}" for n in range(1, leak.num_columns + 1)])


def drawn_key(rng: np.random.Generator) -> MasterKey:
    return MasterKey(rng.bytes(32))


def named(count: int) -> list[str]:
    """Names of recipients, recipient_00001 and so on."""
    return [f"recipient_{number:05d}" for number in range(1, count + 1)]
