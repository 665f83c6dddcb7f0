"""Finding the stored row of a leaked one without a key: record linkage on all mapped fields.

`Linker.fit` learns from a sample of the leak what the thief did to each column, and plans how to
look for rows; `Linker.link` then says for each leaked row which stored row it is and how
probable that is. No codeword and no marked value is looked at, only stored and leaked ones, so a
wrong link costs evidence and never makes anybody look guilty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pgbalise.tracing.blocking import Blocks, Pass, plan, reach
from pgbalise.tracing.comparing import UNKNOWN, Bools, Cells, Field, Floats, Ints, Rates
from pgbalise.tracing.rehearsal import Trust, damaged, fit_trust
from pgbalise.tracing.weights import Model, Sheet, Tables, estimate_rates, first_rates

__all__ = ["UNKNOWN", "Cells", "Field", "FieldSummary", "Linker", "LinkerSummary", "Links"]

_FIT_ROWS = 2_000
_FIT_PASSES = 16
_PASSES = 30
_DROP = 14.0
"""Pairs that are exp(14) times less likely than their row's best are forgotten."""
_TIES = 500
"""So many stored rows are kept at most for one that a search through all of them was made for."""
_MARGIN = 3.0
_DOUBTFUL = 0.2
_REHEARSED = 250
_SURE = 0.9999
_SCAN = 600_000_000
"""Comparisons of cells that a last search through all stored rows may cost."""


@dataclass(frozen=True)
class Links:
    """The likeliest stored row of each leaked row."""

    stored: Ints
    """Index of the stored row; -1 where there is none."""
    probability: Floats
    """That it is the right one, all other stored rows and "none of them" considered."""


@dataclass(frozen=True)
class FieldSummary:
    """What linkage found out about one field."""

    name: str
    altered: float
    """Share of leaked values that do not come from the stored ones."""
    near: float
    """Share of leaked values that are close to the stored ones, but not the same."""


@dataclass(frozen=True)
class LinkerSummary:
    """What linkage found out about the leak, from the sample."""

    fields: tuple[FieldSummary, ...]
    absent: float
    """Share of leaked rows without a stored counterpart."""


class Linker:
    """Links leaked rows to one stored relation."""

    def __init__(
        self,
        model: Model,
        rates: Sequence[Rates],
        absent: float,
        blocks: Blocks,
        passes: Sequence[Pass],
        trust: Trust | None = None,
    ) -> None:
        self._model = model
        self._rates = tuple(rates)
        self._absent = absent
        self._blocks = blocks
        self._passes = tuple(passes)
        self._trust = trust or Trust()

    @classmethod
    def fit(cls, stored: Sequence[Field], sample: Sequence[Cells]) -> Linker:
        """Learn from a sample of the leak, whose ``sample`` has the cells of ``stored``'s fields.

        The sample should be rows from all over the leak; 2,000 of them are used. The same
        arguments give the same linker.
        """
        rows = len(sample[0].values) if sample else 0
        part = slice(None, None, max(1, -(-rows // _FIT_ROWS)))
        sample = [Cells(one.values[part], one.valid[part]) for one in sample]
        model = Model(stored, sample)
        first = [first_rates(model.comparisons, 0.1, even) for even in (False, True)]
        rates, absent, fit = first[0], 0.05, -np.inf
        sheet = model.read(sample)
        if not model.size or not len(sheet):
            return cls(model, rates, absent, Blocks(model.comparisons, []), [])
        for start in first:
            # most leaks keep most values; only where they do not seem to, numbers may be far off
            if start is not first[0] and absent < _DOUBTFUL:
                break
            blocks = Blocks(model.comparisons, reach(model.comparisons, start))
            at, found = _pairs(blocks, plan(blocks, start, _FIT_PASSES), sheet)
            other = estimate_rates(model, sheet, at, found, start)
            if other.fit > fit:
                rates, absent, fit = other.rates, other.absent, other.fit
        blocks = Blocks(model.comparisons, reach(model.comparisons, rates))
        linker = cls(model, rates, absent, blocks, plan(blocks, rates, _PASSES))
        if model.size >= _REHEARSED:
            linker._rehearse(stored, sample)
        return linker

    def _rehearse(self, stored: Sequence[Field], sample: Sequence[Cells]) -> None:
        """Learn what odds are worth here, and with that how many rows have no counterpart."""
        size = self._model.size
        rng = np.random.default_rng(2)
        known = rng.choice(size, 2 * min(_REHEARSED, size // 2), replace=False)
        half = len(known) // 2
        trial = damaged(self._model, stored, self._rates, known, seed=3)
        hidden = np.where(np.arange(len(known)) < half, -1, known)
        tried = self._search(trial, hidden)
        found = tried.holds(np.where(hidden < 0, known, -1))
        self._trust = fit_trust(tried.odds(), found, np.ones(len(known)))
        step = max(1, len(sample[0].values) // _REHEARSED)
        seen = self._search([Cells(one.values[::step], one.valid[::step]) for one in sample])
        # where odds hardly tell, the share could run away to all rows
        most = (1 + self._absent) / 2
        self._absent = min(self._trust.absent(seen.odds(), 0.05), most)

    @property
    def summary(self) -> LinkerSummary:
        """What was learnt from the sample."""
        fields = (
            FieldSummary(one.name, rate.altered, float(rate.intact[1:].sum()))
            for one, rate in zip(self._model.comparisons, self._rates, strict=True)
        )
        return LinkerSummary(tuple(fields), self._absent)

    def link(self, rows: Sequence[Cells]) -> Links:
        """Return the likeliest stored row of each leaked row, and its probability.

        Stored rows that agree with the leaked one equally well share the probability. Who uses
        the links should leave out those below 0.9.
        """
        search = self._search(rows)
        return search.links(self._trust.found(search.odds(), self._absent))

    def _search(self, rows: Sequence[Cells], hidden: Ints | None = None) -> _Search:
        """Look for rows; ``hidden``: a stored row for each that must not be found, or -1."""
        sheet = self._model.read(rows)
        tables = self._model.tables(sheet, self._rates)
        search = _Search(self._model, sheet, tables, self._absent, hidden)
        active = np.arange(len(sheet))
        for number, one in enumerate(self._passes):
            if not len(active):
                break
            search.keep(
                [
                    search.weigh(at, stored)
                    for at, stored in self._blocks.propose(one, sheet, active)
                ]
            )
            search.missed[active] = one.missed
            active = search.unresolved(active, one.fields, number)
        active = active[search.hopeful(active)]
        if 0 < len(active) * self._model.size * len(self._rates) <= _SCAN:
            search.scan(active)
        return search


def _pairs(blocks: Blocks, passes: Sequence[Pass], sheet: Sheet) -> tuple[Ints, Ints]:
    """Return all pairs that the passes propose, each once."""
    everyone = np.arange(len(sheet))
    pairs = [everyone[:0]]
    for one in passes:
        for at, found in blocks.propose(one, sheet, everyone, cap=50):
            pairs.append(at * blocks.size + found)
    rows, stored = np.divmod(np.unique(np.concatenate(pairs)), blocks.size)
    return rows, stored


class _Search:
    """Pairs found so far for the rows of a sheet."""

    def __init__(
        self,
        model: Model,
        sheet: Sheet,
        tables: Tables,
        absent: float,
        hidden: Ints | None = None,
    ) -> None:
        self._hidden = hidden
        self._model = model
        self._sheet = sheet
        self._tables = tables
        self._absent = absent
        count = len(sheet)
        best = [table.max(axis=1) for table in tables.weights]
        loss = [top - table[:, -1] for top, table in zip(best, tables.weights, strict=True)]
        self._full = np.sum(best, axis=0) if best else np.zeros(0)
        self._loss = np.stack(loss, axis=1) if loss else np.zeros((0, 0))
        fields = len(loss)
        self._pair = np.triu_indices(fields, 1)
        self._single_left = np.ones((count, fields), np.bool_)
        self._pair_left = np.ones((count, len(self._pair[0])), np.bool_)
        self._best = np.full(count, -np.inf, np.float32)
        self._row = np.zeros(0, np.int64)
        self._stored = np.zeros(0, np.int64)
        self._weight = np.zeros(0, np.float32)
        self.missed = np.ones(count)

    def weigh(self, rows: Ints, stored: Ints) -> tuple[Ints, Ints, Floats]:
        """Return those pairs that matter, with their weights."""
        if self._hidden is not None:
            shown = self._hidden[rows] != stored
            rows, stored = rows[shown], stored[shown]
        levels = self._model.compare(self._sheet, rows, stored)
        weights = self._model.weigh(self._tables, rows, levels)
        total = np.sum(weights, axis=0)
        np.maximum.at(self._best, rows, total)
        good = np.flatnonzero(total >= self._floor(rows))
        return rows[good], stored[good], total[good]

    def _floor(self, rows: Ints) -> Floats:
        least = np.log(max(self._model.size, 1)) - _DROP
        floor: Floats = np.maximum(self._best[rows] - _DROP, least)
        return floor

    def keep(self, found: Sequence[tuple[Ints, Ints, Floats]]) -> None:
        """Add pairs; each is kept once."""
        row, stored, weight = (
            np.concatenate([first, *(one[n] for one in found)])
            for n, first in enumerate((self._row, self._stored, self._weight))
        )
        good = weight >= self._floor(row)
        row, stored, weight = row[good], stored[good], weight[good]
        _, at = np.unique(row * max(self._model.size, 1) + stored, return_index=True)
        self._row, self._stored, self._weight = row[at], stored[at], weight[at]

    def unresolved(self, active: Ints, fields: Sequence[int], number: int) -> Ints:
        """Return the rows for which a stored row yet unseen could change the answer.

        Such a row differs from the leaked one on a field of each pass so far. It can thus weigh
        no more than all fields less the least fields that have a part in every pass.
        """
        inside = np.zeros(self._loss.shape[1], np.bool_)
        inside[list(fields)] = True
        first, second = self._pair
        single = self._single_left[active] & inside
        pair = self._pair_left[active] & (inside[first] | inside[second])
        self._single_left[active] = single
        self._pair_left[active] = pair
        loss = self._loss[active]
        three = np.sort(loss, axis=1)[:, :3].sum(axis=1)
        two = np.where(pair, loss[:, first] + loss[:, second], np.inf).min(axis=1, initial=np.inf)
        lone = np.where(single, loss, np.inf).min(axis=1, initial=np.inf)
        unseen = self._full[active] - np.minimum(np.minimum(lone, two), three)
        done = self._best[active] >= unseen + _MARGIN
        if number >= 2:
            done |= ~single.any(axis=1) & (self._certainty()[active] >= _SURE)
        rest: Ints = active[~done]
        return rest

    def hopeful(self, rows: Ints) -> Bools:
        """Say which rows a stored one could be told for if it agreed in every field."""
        odds = self._full[rows] - self._tables.unrelated[rows] - np.log(max(self._model.size, 1))
        hope: Bools = odds > np.log(self._absent / (1 - self._absent))
        return hope

    def scan(self, rows: Ints) -> None:
        """Compare rows with every stored row."""
        found = []
        for row in rows.tolist():
            stored = self._model.likely(self._sheet, self._tables, row, _DROP + 1, _TIES)
            found.append(self.weigh(np.full(len(stored), row), stored))
        self.keep(found)
        self.missed[rows] = 0.0

    def holds(self, stored: Ints) -> Bools:
        """Say for each row whether a stored row is among those found for it."""
        found = np.zeros(len(stored), np.bool_)
        found[self._row[self._stored == stored[self._row]]] = True
        return found

    def _shares(self) -> tuple[Floats, Floats]:
        """Return the odds of each pair against "none of them", and their sum for each row."""
        scale = -np.log(max(self._model.size, 1)) - self._tables.unrelated[self._row]
        odds = np.exp(np.minimum(self._weight.astype(np.float64) + scale, 700.0))
        total: Floats = np.bincount(self._row, odds, len(self._best)).astype(np.float64)
        return odds, total

    def odds(self) -> Floats:
        """Return each row's log odds that its original is among the rows found."""
        logarithm: Floats = np.log(np.maximum(self._shares()[1], 1e-300))
        return logarithm

    def _certainty(self) -> Floats:
        odds, total = self._shares()
        rest = self._absent / (1 - self._absent) + self.missed
        top = np.zeros(len(total))
        np.maximum.at(top, self._row, odds)
        sure: Floats = top / (total + rest)
        return sure

    def links(self, found: Floats) -> Links:
        """Return the best of the pairs; ``found``: that a row's original is among them."""
        odds, total = self._shares()
        count = len(total)
        stored = np.full(count, -1, np.int64)
        probability = np.zeros(count)
        # the last of a row's pairs in this order is its best, of equals the first stored
        order = np.lexsort((-self._stored, odds, self._row))
        row = self._row[order]
        last = np.flatnonzero(np.append(row[1:] != row[:-1], True)) if len(row) else row
        stored[row[last]] = self._stored[order][last]
        probability[row[last]] = odds[order][last] / total[row[last]] * found[row[last]]
        return Links(stored, probability)
