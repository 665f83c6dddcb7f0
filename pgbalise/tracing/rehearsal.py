"""How far the odds of a link can be trusted: tried on stored rows whose origin is known.

Stored rows are damaged as the leak was. Some keep their original among the stored rows, some are
linked as if they were of other origin. A logistic regression of the outcome on the log odds then
says what odds are worth in this relation, whose columns depend on each other in ways that no
model of pairs sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pgbalise.tracing.comparing import Bools, Cells, Field, Floats, Ints, Rates
from pgbalise.tracing.weights import Model

_ROUNDS = 25
_PRIOR = 2.0


@dataclass(frozen=True)
class Trust:
    """What the log odds of "its original was found" are worth: ``shift + slope * odds``."""

    shift: float = 0.0
    slope: float = 1.0

    def found(self, odds: Floats, absent: float) -> Floats:
        """Return the probability that the original is among the rows found."""
        logit = self.shift + self.slope * odds + np.log((1 - absent) / absent)
        probability: Floats = 1 / (1 + np.exp(-np.clip(logit, -700, 700)))
        return probability

    def absent(self, odds: Floats, start: float) -> float:
        """Return the share of rows without a counterpart, given the odds of a sample."""
        share = start
        for _ in range(_ROUNDS):
            missing = float((1 - self.found(odds, share)).sum())
            share = (missing + _PRIOR * start) / (len(odds) + _PRIOR)
        return float(np.clip(share, 1e-4, 1 - 1e-4))


def damaged(
    model: Model, stored: Sequence[Field], rates: Sequence[Rates], rows: Ints, seed: int
) -> list[Cells]:
    """Return stored rows as the leak would have them; the same arguments, the same cells."""
    rng = np.random.default_rng(seed)
    out = []
    for one, field, rate in zip(model.comparisons, stored, rates, strict=True):
        values, valid = field.values[rows].copy(), field.valid[rows].copy()
        levels = len(rate.intact)
        level = np.searchsorted(np.cumsum(rate.intact), rng.random(len(rows)), side="right")
        drawn = rng.integers(model.size, size=len(rows))
        if not one.is_code:
            edges = np.append(0.0, one.widths)
            at = np.minimum(level, levels - 1)
            moved = edges[at] + rng.random(len(rows)) * (edges[at + 1] - edges[at])
            # marks and rounding move about half of those that still count as the same
            sign = np.where(
                level > 0, rng.choice([-1.0, 1.0], len(rows)), rng.integers(-1, 2, len(rows))
            )
            values = np.where(level < levels, values + sign * moved, values)
        gone = (level >= levels) & valid
        values = np.where(gone, field.values[drawn], values)
        valid = np.where(gone, field.valid[drawn], valid)
        out.append(Cells(values, valid))
    return out


def fit_trust(odds: Floats, found: Bools, weight: Floats) -> Trust:
    """Fit a trust that never makes odds count for more than they say.

    ``odds``: log odds of rehearsed rows; ``found``: whether the original was among the rows
    found; ``weight``: what each row counts, in rows with even prior odds.
    """
    odds = np.clip(odds, -40.0, 40.0)
    design = np.stack([np.ones(len(odds)), odds], axis=1)
    start = np.array([0.0, 1.0])
    at = start.copy()
    # pulls to what the model says, which stands where the outcomes do not contradict it
    pull = np.array([0.5, 20.0])
    for _ in range(_ROUNDS):
        chance = 1 / (1 + np.exp(-np.clip(design @ at, -40, 40)))
        slope = design.T @ (weight * (found - chance)) - pull * (at - start)
        curve = (design * (weight * chance * (1 - chance))[:, None]).T @ design + np.diag(pull)
        step = np.linalg.solve(curve, slope)
        at = at + np.clip(step, -2, 2)
    return Trust(min(float(at[0]), 0.0), float(np.clip(at[1], 0.2, 1.0)))
