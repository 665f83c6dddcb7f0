"""A first look at columns: cheap, rough, and of very many pairs at once.

It only says which pairs are worth comparing properly (`pgbalise.tracing.mapping`): a dump may have
hundreds of tables, a database hundreds of relations and a table thousands of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.frames import strings
from pgbalise.marking.hashing import hash_bytes

Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]

LEAKED_VALUES = 300
STORED_VALUES = 3_000
"""Values looked at, spread evenly over what is given."""

_QUANTILES = 16
_MOST = 0.5
_LOOK = 0.4
_WHEN = 0.5
_NUMBER = r"^[-+]?[0-9]{1,17}([.,][0-9]{1,17})?$"
_DATED = r"^[0-9]{1,4}[-/. ][0-9]{1,2}[-/. ][0-9]{1,4}"


@dataclass(frozen=True, eq=False)
class Glance:
    """What a first look at a column shows."""

    values: Hashes
    """Of its distinct values, sorted, case aside."""
    shapes: Hashes
    """Of what its values look like."""
    quantiles: Floats | None
    """Of its numbers, if it has mostly numbers."""
    dated: bool
    """Whether it has mostly dates or times."""

    @classmethod
    def at(cls, text: pa.Array, values: int) -> Glance:
        """Look at so many values of a column."""
        known = text.drop_null()
        if len(known) > values:
            known = known.take(pa.array(np.linspace(0, len(known) - 1, values).astype(np.int64)))
        known = pc.utf8_lower(pc.utf8_trim_whitespace(pc.utf8_slice_codeunits(known, 0, 100)))
        known = known.filter(pc.not_equal(known, ""))
        shape = pc.replace_substring_regex(known, r"\pL+", "a")
        shape = pc.replace_substring_regex(shape, "[0-9]", "9").unique()
        quantiles = None
        numbers = known.filter(pc.match_substring_regex(known, _NUMBER))
        if len(numbers) > _MOST * len(known):
            plain = pc.replace_substring(numbers, ",", ".")
            found = np.asarray(pc.cast(plain, pa.float64()))
            quantiles = np.quantile(found, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
        dated = pc.sum(pc.match_substring_regex(known, _DATED)).as_py() or 0
        return cls(_hashed(known), _hashed(shape), quantiles, dated > _MOST * len(known))


def _hashed(text: pa.Array) -> Hashes:
    return np.unique(hash_bytes(strings(text), 0).view(np.uint64))


class Glances:
    """Many columns, to hold others against."""

    def __init__(self, columns: Sequence[Glance]) -> None:
        self._size = len(columns)
        self._values = _Index([one.values for one in columns])
        self._shapes = _Index([one.shapes for one in columns])
        self._dated = np.array([one.dated for one in columns], np.bool_)
        self._numeric = np.array([one.quantiles is not None for one in columns], np.bool_)
        self._quantiles = np.array(
            [one.quantiles for one in columns if one.quantiles is not None], np.float64
        ).reshape(-1, _QUANTILES)

    def likeness(self, column: Glance) -> Floats:
        """Return how much each column looks like this one, float64, 0 to 1."""
        values = np.minimum(1.0, self._values.shared(column.values, self._size) / _LOOK)
        like = np.maximum(values, _LOOK * self._shapes.shared(column.shapes, self._size))
        if column.dated:
            like[self._dated] = np.maximum(like[self._dated], _WHEN)
        if column.quantiles is not None and len(self._quantiles):
            below = (self._quantiles[:, :, None] < column.quantiles).mean(axis=1)
            rank = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
            near = (1 - np.abs(below - rank).max(axis=1)) ** 2
            like[self._numeric] = np.maximum(like[self._numeric], 0.9 * near)
        return like


class _Index:
    """Which columns have a hash."""

    def __init__(self, hashes: Sequence[Hashes]) -> None:
        every = np.concatenate([np.empty(0, np.uint64), *hashes])
        owner = np.repeat(np.arange(len(hashes)), [len(one) for one in hashes])
        order = np.argsort(every, kind="stable")
        self._hash, self._owner = every[order], owner[order]

    def shared(self, hashes: Hashes, size: int) -> Floats:
        """Return the share of these hashes that each column has."""
        low = np.searchsorted(self._hash, hashes, "left")
        count = np.searchsorted(self._hash, hashes, "right") - low
        ahead = np.repeat(low - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
        owner = self._owner[ahead + np.arange(len(ahead))] if len(hashes) else self._owner[:0]
        return np.bincount(owner, minlength=size) / max(1, len(hashes))
