"""One-to-one assignment of the greatest value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def assign(value: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each row of ``value[n, m]`` the column it is given, -1 for none.

    No column is given twice, and the sum of the values given is the largest possible; pairs of no
    positive value are never made. Among equal sums the same one is always chosen.
    """
    rows, columns = value.shape
    if rows > columns:
        turned = assign(value.T)
        given = np.full(rows, -1)
        given[turned[turned >= 0]] = np.flatnonzero(turned >= 0)
        return given
    # beside the columns each row has a place of its own that is worth nothing
    cost = np.hstack([-np.maximum(value, 0.0), np.zeros((rows, rows))])
    # the Hungarian method by shortest augmenting paths, one row at a time
    width = columns + rows
    row_price, column_price = np.zeros(rows), np.zeros(width)
    owner = np.full(width, -1)
    for start in range(rows):
        shortest = np.full(width, np.inf)
        before = np.full(width, -1)
        done = np.zeros(width, np.bool_)
        row, at, length = start, -1, 0.0
        reached: list[tuple[int, int]] = []
        while True:
            step = length + cost[row] - row_price[row] - column_price
            better = ~done & (step < shortest - 1e-12)
            shortest[better] = step[better]
            before[better] = row
            open_ = np.where(done, np.inf, shortest)
            at = int(open_.argmin())
            length = float(open_[at])
            done[at] = True
            if owner[at] < 0:
                break
            row = int(owner[at])
            reached.append((row, at))
        row_price[start] += length
        for passed, column in reached:
            row_price[passed] += length - shortest[column]
            column_price[column] -= length - shortest[column]
        while True:
            row = int(before[at])
            owner[at] = row
            # the place that the row leaves is the one it was reached by
            previous = [column for passed, column in reached if passed == row]
            if row == start:
                break
            at = previous[0]
    given = np.full(rows, -1)
    for column in range(columns):
        if owner[column] >= 0 and value[owner[column], column] > 0:
            given[owner[column]] = column
    return given
