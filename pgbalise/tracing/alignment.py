"""A leaked column beside the stored one: what each bit would have given, and what is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from pgbalise.errors import InvalidInput
from pgbalise.marking.cells import CarrierSecret, select
from pgbalise.marking.embedding import Column, alternatives
from pgbalise.marking.hashing import KeyPart
from pgbalise.marking.policy import Carrier, Derivation
from pgbalise.marking.types import Kind
from pgbalise.tracing.noise import (
    EM_CELLS,
    CategoricalNoise,
    NoiseModel,
    Strata,
    cell_evidence,
    estimate_categorical_noise,
    estimate_noise,
)
from pgbalise.tracing.scoring import Evidence

_SECOND = 1_000_000
_TIME_GRIDS = (1_000, _SECOND, 60 * _SECOND, 3_600 * _SECOND, 86_400 * _SECOND)
_LARGEST = 2**61
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class CarrierEvidence:
    """What one carrier's cells in a leak say."""

    carrier: Carrier
    evidence: Evidence
    noise: NoiseModel | CategoricalNoise
    extra: int
    """Decimals that the leak was compared with beyond the carrier's scale."""
    marked: int
    """Cells in the leak that carry a bit; one seen again with the same value counts once."""
    changed_share: float
    """Share of the cells without a mark that hold something else than was stored, beyond what was
    done to the others: replaced by the thief, or changed at the source since the extract."""


@dataclass(frozen=True, eq=False)
class _Compared:
    """Cells of one carrier beside what each bit would have given, one entry per cell."""

    cell: NDArray[np.int64]
    position: NDArray[np.int32]
    seen: NDArray[np.int64]
    value0: NDArray[np.int64]
    value1: NDArray[np.int64]
    probability: NDArray[np.float64]
    stratum: NDArray[np.int8]
    order: NDArray[np.uint64]
    """Of the row in the leak, a number that decides whether the cell is in a sample."""

    def __len__(self) -> int:
        return self.cell.size

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> _Compared:
        return _Compared(*(getattr(self, one.name)[index] for one in fields(self)))

    def finer(self, decimals: int) -> _Compared:
        """Return the cells with values in units smaller by so many decimals."""
        if decimals == 0:
            return self
        power = 10**decimals
        seen, value0, value1 = (
            np.clip(values, -_LARGEST // power, _LARGEST // power) * power
            for values in (self.seen, self.value0, self.value1)
        )
        return replace(self, seen=seen, value0=value0, value1=value1)

    @classmethod
    def concatenate(cls, parts: Sequence[_Compared]) -> _Compared:
        return cls(
            *(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls))
        )


class CarrierCells:
    """A carrier's cells, gathered while a leak streams by.

    Kept are all cells that carry a bit, and of the others a sample of at most
    `pgbalise.tracing.noise.EM_CELLS`, which depends on the rows' numbers in the leak alone and not
    on how they were cut into batches.
    """

    def __init__(
        self,
        carrier: Carrier,
        derivation: Derivation,
        secret: CarrierSecret,
        dither: NDArray[np.uint8],
    ) -> None:
        """``dither``: uint8[CODE_LENGTH]; see `pgbalise.marking.codes`."""
        self.carrier = carrier
        self._derivation, self._secret, self._dither = derivation, secret, dither
        self._rows = 0
        self._marked: list[tuple[_Compared, int]] = []
        self._others: list[tuple[_Compared, int]] = []
        self._limit = 2**64 - 1

    def add(
        self,
        key: Sequence[KeyPart],
        known: NDArray[np.bool_],
        stored: Column,
        seen: NDArray[np.int64],
        read: NDArray[np.bool_],
        extra: int,
        *,
        probability: NDArray[np.float64] | None = None,
        stratum: Strata = None,
    ) -> None:
        """Add rows of the leak, in its order; all arrays have one entry per row.

        ``key`` and ``known``: the key that the cells hang on (the entity's, if the carrier has
        one), and where it has no NULL; ``stored``: the raw cells of the rows aligned; ``seen`` and
        ``read``: leaked values in units of the carrier's scale plus ``extra`` decimals, and where
        there is a readable one; ``probability``: that the row aligned is the right one (default
        1); ``stratum``: how reliable the row is thought to be (default all alike). Rows that have
        no counterpart are left out by the caller.
        """
        carrier, rows = self.carrier, len(seen)
        cells = select(self._secret, carrier, self._derivation, key)
        row = cells.row
        options = alternatives(carrier, stored.take(row), cells.up)
        raw = _units(carrier, stored.values, extra)
        numbers = np.arange(self._rows, self._rows + rows, dtype=np.uint64)
        self._rows += rows
        everything = _Compared(
            np.zeros(rows, np.int64),
            np.zeros(rows, np.int32),
            seen,
            raw,
            raw.copy(),
            np.ones(rows) if probability is None else probability,
            np.zeros(rows, np.int8) if stratum is None else stratum,
            numbers * _GOLDEN,
        )
        everything.cell[row], everything.position[row] = cells.cell, cells.position
        selected = np.zeros(rows, np.bool_)
        selected[row] = options.markable & known[row]
        for bit, out in ((0, everything.value0), (1, everything.value1)):
            target = self._dither[cells.position] ^ np.uint8(bit)
            given = _units(carrier, options.embedded(stored.values[row], target), extra)
            out[row] = np.where(selected[row], given, raw[row])
        use = read & stored.valid
        self._marked.append((everything.take(use & selected), extra))
        self._others.append(
            (everything.take(use & ~selected & (everything.order <= self._limit)), extra)
        )
        while sum(len(part) for part, _ in self._others) > EM_CELLS:
            self._limit //= 2
            self._others = [
                (part.take(part.order <= self._limit), finer) for part, finer in self._others
            ]

    def evidence(self) -> CarrierEvidence:
        """Fit what was done to the values and return what the marked cells say.

        A cell that is seen more than once with the same value (a row copied, a value that belongs
        to an entity of many rows) counts once, with the highest of its probabilities: it was
        marked once. Raises `InvalidInput` when nothing was added.
        """
        if not self._marked:
            raise InvalidInput("a carrier was not compared with anything")
        extra = max(finer for _, finer in self._marked)
        marked, others = (
            _Compared.concatenate([part.finer(extra - finer) for part, finer in parts])
            for parts in (self._marked, self._others)
        )
        marked = _once(marked)
        limit = 2**64 - 1
        while np.count_nonzero(marked.order <= limit) > EM_CELLS:
            limit //= 2
        sample = _Compared.concatenate([others, marked.take(marked.order <= limit)])
        is_marked = np.arange(len(sample)) >= len(others)
        columns = (sample.seen, sample.value0, sample.value1, is_marked)
        noise: NoiseModel | CategoricalNoise
        if self.carrier.kind is Kind.CATEGORICAL:
            noise = estimate_categorical_noise(
                *columns, probability=sample.probability, stratum=sample.stratum
            )
        else:
            noise = estimate_noise(
                *columns,
                grids=_grids(self.carrier, extra),
                probability=sample.probability,
                stratum=sample.stratum,
            )
        evidence = cell_evidence(
            noise,
            marked.position,
            marked.seen,
            marked.value0,
            marked.value1,
            np.ones(len(marked), np.bool_),
            marked.probability,
            marked.stratum,
        )
        gone = noise.replaced(others.seen, others.value0, others.stratum)
        weight = others.probability.sum()
        changed = float(gone @ others.probability / weight) if weight else 0.0
        return CarrierEvidence(self.carrier, evidence, noise, extra, len(marked), changed)


def _once(marked: _Compared) -> _Compared:
    """Keep of each cell and value the row most probably aligned rightly, in the leak's order."""
    order = np.lexsort((-marked.probability, marked.seen, marked.cell))
    cell, seen = marked.cell[order], marked.seen[order]
    first = np.ones(len(marked), np.bool_)
    first[1:] = (cell[1:] != cell[:-1]) | (seen[1:] != seen[:-1])
    return marked.take(np.sort(order[first]))


def _units(carrier: Carrier, values: NDArray[np.generic], extra: int) -> NDArray[np.int64]:
    """Values of a Column as integers, ``extra`` decimals finer than the carrier's scale."""
    if carrier.kind is Kind.FLOAT:
        wide = np.asarray(values, np.float64)
        usable = np.abs(wide) < 10.0 ** (17 - carrier.scale - extra)
        return np.rint(np.where(usable, wide, 0.0) * 10.0 ** (carrier.scale + extra)).astype(
            np.int64
        )
    whole = np.asarray(values, np.int64)
    units: NDArray[np.int64] = (
        np.clip(whole, -_LARGEST // 10**extra, _LARGEST // 10**extra) * 10**extra
    )
    return units


def _grids(carrier: Carrier, extra: int) -> tuple[int, ...]:
    if carrier.kind is Kind.TIMESTAMP:
        return _TIME_GRIDS
    if carrier.kind is Kind.DATE:
        return (7,)
    digits = carrier.scale + extra
    return tuple(
        step * 10**power for power in range(max(0, digits - 3), digits + 3) for step in (1, 2, 5)
    )
