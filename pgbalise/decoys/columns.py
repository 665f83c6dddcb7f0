"""Rows of related relations as numpy arrays: what decoys are learned from, and what is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class ColumnKind(StrEnum):
    """How a column's values are held."""

    NUMBER = "number"
    """float64; whole numbers and numeric columns too."""
    CATEGORY = "category"
    """int64, places in ``categories``: text of few values, booleans, keys of other relations."""
    DATE = "date"
    """int64, days since 1970-01-01."""
    TIMESTAMP = "timestamp"
    """int64, microseconds since 1970-01-01 00:00 (UTC for timestamptz)."""


@dataclass(frozen=True)
class Column:
    """A column's values: ``values`` float64[n] or int64[n] by kind, ``valid`` bool[n] (not NULL).

    What stands in ``values`` where ``valid`` is false means nothing.
    """

    name: str
    kind: ColumnKind
    values: NDArray[np.float64] | NDArray[np.int64]
    valid: NDArray[np.bool_]
    categories: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Sample:
    """Rows of one relation, and to which row of which other they belong.

    ``parent`` is the place in the list of samples of the relation that this one's rows belong to,
    always an earlier one; None for the entity's relation, the first. ``parent_row`` int64[n] is
    each row's row there. Keys and columns that refer to the parents are not among ``columns``.
    """

    name: str
    columns: tuple[Column, ...]
    parent: int | None = None
    parent_row: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else len(self.parent_row)

    def column(self, name: str) -> Column:
        """Return the column of that name; raise KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)
