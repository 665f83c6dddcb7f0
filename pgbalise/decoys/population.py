"""What the patients of a hospital look like, and patients drawn who look like them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pgbalise.decoys.columns import Column, ColumnKind, Sample
from pgbalise.decoys.uniforms import uniform_table, uniforms
from pgbalise.errors import InvalidInput

MIN_ENTITIES = 20


@dataclass(frozen=True)
class Population:
    """What was learned from the samples; ``draw`` makes entities like them."""

    samples: tuple[Sample, ...]

    def draw(self, seeds: Sequence[bytes]) -> tuple[Sample, ...]:
        """Return samples of the same relations and columns, entity i drawn from ``seeds[i]`` alone."""
        entity = self.samples[0]
        first = uniform_table(seeds, "entity", 2)
        donors = (first[:, 0] * len(entity)).astype(np.int64)
        shift = (first[:, 1] * 60).astype(np.int64) - 30
        taken: list[NDArray[np.int64]] = [donors]
        owners: list[NDArray[np.int64]] = [np.arange(len(seeds))]
        drawn: list[Sample] = []
        for place, sample in enumerate(self.samples):
            if sample.parent is None:
                rows, parent_row = donors, sample.parent_row[:0]
            else:
                order = np.argsort(sample.parent_row, kind="stable")
                above = taken[sample.parent]
                starts = np.searchsorted(sample.parent_row[order], above)
                ends = np.searchsorted(sample.parent_row[order], above, side="right")
                counts = ends - starts
                parent_row = np.repeat(np.arange(len(above)), counts)
                offset = np.arange(len(parent_row)) - np.repeat(np.cumsum(counts) - counts, counts)
                rows = order[np.repeat(starts, counts) + offset]
                taken.append(rows)
                owners.append(owners[sample.parent][parent_row])
            owner = owners[place]
            counts = np.bincount(owner, minlength=len(seeds))
            columns = []
            for column in sample.columns:
                chance = uniforms(seeds, f"{sample.name}/{column.name}", counts)
                columns.append(_redraw(column, rows, chance, shift[owner]))
            drawn.append(replace(sample, columns=tuple(columns), parent_row=parent_row))
        return tuple(drawn)


def fit_population(samples: Sequence[Sample], seed: bytes) -> Population:
    """Learn from samples, the entity's relation first; raise InvalidInput for fewer than 20."""
    if len(samples[0]) < MIN_ENTITIES:
        raise InvalidInput(
            f"{samples[0].name} has fewer than {MIN_ENTITIES} rows to learn decoys from"
        )
    return Population(tuple(samples))


def _redraw(
    column: Column,
    rows: NDArray[np.int64],
    chance: NDArray[np.float64],
    shift: NDArray[np.int64],
) -> Column:
    values, valid = column.values[rows], column.valid[rows]
    if column.kind is ColumnKind.DATE:
        values = values + shift
    elif column.kind is ColumnKind.TIMESTAMP:
        values = values + shift * 86_400_000_000
    elif column.kind is ColumnKind.NUMBER and column.valid.any():
        order = np.sort(column.values[column.valid])
        values = order[(chance * len(order)).astype(np.int64)]
    return replace(column, values=values, valid=valid)
