"""What several thieves make of their copies of the same rows, in the same order.

Where all copies agree the common value is kept: the marking assumption of D. Boneh and J. Shaw
("Collusion-secure fingerprinting for digital data", IEEE Trans. Inf. Theory 44(5), 1998). Means,
except of equal values, are the one attack that may leave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pgbalise.marking.embedding import Column
from pgbalise.marking.policy import Carrier, Relation
from pgbalise.marking.types import Kind
from pgbalise.tracing.attacks.cells import read, write
from pgbalise.tracing.attacks.damage import copies_alike, present, shifted

Merge = Literal["average", "minimum", "maximum", "majority", "minority", "interleave"]
"""What is put in a cell where the copies differ.

average: the mean, in the digits of the column; minimum, maximum; majority, minority: the value
that most, fewest copies have, ties at random; interleave: that of a copy picked at random.
"""


def merge(
    copies: Sequence[pa.Table], relation: Relation, how: Merge, rng: np.random.Generator
) -> pa.Table:
    """Merge copies cell by cell. Raises InvalidInput unless they have the same shape."""
    copies_alike(copies)
    out = copies[0]
    for carrier in present(out, relation):
        columns = [read(copy, carrier) for copy in copies]
        held = np.stack([column.values for column in columns])
        first = columns[0]
        if how == "average" and carrier.kind is not Kind.CATEGORICAL:
            values = _mean(carrier, first, held)
        else:
            values = _picked(held, how, rng)
        out = write(out, carrier, first, values)
    return out


def _mean(carrier: Carrier, first: Column, held: NDArray[Any]) -> NDArray[Any]:
    if carrier.kind is Kind.FLOAT:
        with np.errstate(invalid="ignore"):
            by = np.sum(held - held[0], axis=0, dtype=np.float64) / len(held)
        return shifted(carrier, first, np.nan_to_num(np.asarray(by, np.float64)))
    # ties go to the even number, as people and programs round: neither copy is preferred
    members = len(held)
    below, rest = np.divmod(np.sum(held - held[0], axis=0), members)
    below = below + held[0]
    up = (2 * rest > members) | ((2 * rest == members) & (below % 2 == 1))
    return np.asarray(below + up)


def _picked(held: NDArray[Any], how: Merge, rng: np.random.Generator) -> NDArray[Any]:
    if how == "minimum":
        return np.asarray(held.min(axis=0))
    if how == "maximum":
        return np.asarray(held.max(axis=0))
    members, cells = held.shape
    preference = rng.random((members, cells))
    if how != "interleave":
        votes = np.stack([(held == mine).sum(axis=0) for mine in held])
        preference += -votes if how == "minority" else votes
    return np.asarray(held[preference.argmax(axis=0), np.arange(cells)])


def mix(copies: Sequence[pa.Table], rng: np.random.Generator) -> pa.Table:
    """Take each row from a copy picked at random. Raises as `merge` does."""
    copies_alike(copies)
    rows = copies[0].num_rows
    pick = rng.integers(len(copies), size=rows)
    return pa.concat_tables(copies).take(pa.array(pick * rows + np.arange(rows)))
