"""Damage to symbols, numbers and rows as arrays: for simulations and for the noise model.

Everything is pure: randomness comes from the generator that the caller passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from pgbalise.errors import InvalidInput
from pgbalise.tracing.scoring import STRATEGIES, Strategy

if TYPE_CHECKING:
    from numpy.typing import NDArray

RoundingMode = Literal["half-away", "half-even", "floor", "toward-zero"]
"""How a value that is not on the grid is put on it."""

ROUNDING_MODES: tuple[RoundingMode, ...] = get_args(RoundingMode)

MAGNITUDE_LIMIT = 1 << 62
"""Values, in units, must stay below this so that differences fit in 64 bits."""


def collude(
    bits: NDArray[np.uint8], strategy: Strategy, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return the symbols, uint8[n] of 0 and 1, that a coalition puts in n cells.

    ``bits`` uint8[c, n]: the bit that each of c colluders holds for each cell. Each cell is treated
    on its own: two cells at the same codeword position may come out differently. Where all
    members hold the same bit, that bit is the symbol (the marking assumption).

    Raises `InvalidInput` for an unknown strategy or an empty coalition.
    """
    if bits.ndim != 2 or bits.shape[0] == 0:
        raise InvalidInput(f"coalition: expected bits[c, n] with c >= 1, got {bits.shape}")
    members, cells = bits.shape
    if strategy == "interleave":
        return np.asarray(bits[rng.integers(members, size=cells), np.arange(cells)], np.uint8)
    if strategy == "all-zero":
        return np.asarray(bits.min(axis=0), np.uint8)
    if strategy == "all-one":
        return np.asarray(bits.max(axis=0), np.uint8)
    if strategy not in STRATEGIES:
        raise InvalidInput(
            f"unknown collusion strategy {strategy!r}", hint="one of " + ", ".join(STRATEGIES)
        )
    ones = bits.sum(axis=0, dtype=np.int64)
    mixed = (ones > 0) & (ones < members)
    coin = rng.integers(2, size=cells, dtype=np.uint8)
    symbols = np.where(mixed, coin, bits[0])
    if strategy == "coin-flip":
        return symbols
    decided = mixed & (2 * ones != members)
    majority = 2 * ones > members
    chosen = majority if strategy == "majority" else ~majority
    return np.where(decided, chosen, symbols).astype(np.uint8)


def round_to_grid(
    values: NDArray[np.int64], grid: int, mode: RoundingMode = "half-away"
) -> NDArray[np.int64]:
    """Return ``values`` int64[n] put on multiples of ``grid``, both in the column's units.

    half-away and half-even round to the nearest multiple and differ on ties only; floor and
    toward-zero truncate and differ on negative values only.

    Raises `InvalidInput` if ``grid`` is below 1 or the mode unknown.
    """
    if grid < 1:
        raise InvalidInput(f"rounding grid {grid} is below 1")
    if mode == "floor":
        return values - values % grid
    magnitude = np.abs(values)
    quotient, rest = np.divmod(magnitude, grid)
    if mode == "half-away":
        quotient += 2 * rest >= grid
    elif mode == "half-even":
        quotient += (2 * rest > grid) | ((2 * rest == grid) & (quotient % 2 == 1))
    elif mode != "toward-zero":
        raise InvalidInput(
            f"unknown rounding mode {mode!r}", hint="one of " + ", ".join(ROUNDING_MODES)
        )
    return np.asarray(np.sign(values) * quotient * grid, np.int64)


def add_noise(
    values: NDArray[np.int64], scale: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return ``values`` int64[n] plus Gaussian noise of standard deviation ``scale``, in units.

    Raises `InvalidInput` if ``scale`` is negative.
    """
    if not scale >= 0:
        raise InvalidInput(f"noise of scale {scale}")
    return values + np.rint(rng.normal(0.0, scale, values.shape)).astype(np.int64)


def keep_rows(rows: int, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the indices, int64[round(rows * share)], of rows kept at random, in random order.

    ``share`` 1 only shuffles. Raises `InvalidInput` if ``share`` is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise InvalidInput(f"share of rows {share} is not in [0, 1]")
    return rng.permutation(rows)[: round(rows * share)].astype(np.int64)
