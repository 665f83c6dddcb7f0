"""A leaked column beside the stored one: what each bit would have given, and what is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgbalise.marking.cells import CarrierSecret, select
from pgbalise.marking.embedding import Column, alternatives
from pgbalise.marking.hashing import KeyPart
from pgbalise.marking.policy import Carrier, Derivation
from pgbalise.marking.types import Kind
from pgbalise.tracing.noise import (
    CategoricalNoise,
    NoiseModel,
    cell_evidence,
    estimate_categorical_noise,
    estimate_noise,
)
from pgbalise.tracing.scoring import Evidence

_SECOND = 1_000_000
_TIME_GRIDS = (1_000, _SECOND, 60 * _SECOND, 3_600 * _SECOND, 86_400 * _SECOND)


@dataclass(frozen=True)
class CarrierEvidence:
    """What one carrier's cells in a leak say."""

    carrier: Carrier
    evidence: Evidence
    noise: NoiseModel | CategoricalNoise
    extra: int
    """Decimals that the leak was compared with beyond the carrier's scale."""
    marked: int
    """Cells in the leak that carry a bit."""


def carrier_evidence(
    carrier: Carrier,
    derivation: Derivation,
    secret: CarrierSecret,
    dither: NDArray[np.uint8],
    key: Sequence[KeyPart],
    known: NDArray[np.bool_],
    stored: Column,
    seen: NDArray[np.int64],
    read: NDArray[np.bool_],
    extra: int,
) -> CarrierEvidence:
    """Compare a carrier in aligned rows (all arrays have one entry per row).

    ``key`` and ``known``: the key that the cells hang on, and where it has no NULL; ``stored``:
    the raw cells; ``seen`` and ``read``: leaked values in units of the carrier's scale plus
    ``extra`` decimals, and where there is a readable one; ``dither``: uint8[CODE_LENGTH].
    """
    cells = select(secret, carrier, derivation, key)
    row = cells.row
    options = alternatives(carrier, stored.take(row), cells.up)
    position = np.zeros(len(seen), np.int32)
    position[row] = cells.position
    selected = np.zeros(len(seen), np.bool_)
    selected[row] = options.markable & known[row]
    raw = _units(carrier, stored.values, extra)
    value0, value1 = raw.copy(), raw.copy()
    for bit, out in ((0, value0), (1, value1)):
        target = dither[cells.position] ^ np.uint8(bit)
        given = _units(carrier, options.embedded(stored.values[row], target), extra)
        out[row] = np.where(selected[row], given, raw[row])
    use = np.flatnonzero(read & stored.valid)
    columns = (seen[use], value0[use], value1[use], selected[use])
    noise: NoiseModel | CategoricalNoise
    if carrier.kind is Kind.CATEGORICAL:
        noise = estimate_categorical_noise(*columns)
    else:
        noise = estimate_noise(*columns, grids=_grids(carrier, extra))
    evidence = cell_evidence(noise, position[use], *columns)
    return CarrierEvidence(carrier, evidence, noise, extra, int(selected[use].sum()))


def _units(carrier: Carrier, values: NDArray[np.generic], extra: int) -> NDArray[np.int64]:
    """Values of a Column as integers, ``extra`` decimals finer than the carrier's scale."""
    if carrier.kind is Kind.FLOAT:
        wide = np.asarray(values, np.float64)
        usable = np.abs(wide) < 10.0 ** (17 - carrier.scale - extra)
        return np.rint(np.where(usable, wide, 0.0) * 10.0 ** (carrier.scale + extra)).astype(
            np.int64
        )
    whole = np.asarray(values, np.int64)
    clipped: NDArray[np.int64] = np.clip(whole, -(2**61) // 10**extra, 2**61 // 10**extra)
    units: NDArray[np.int64] = clipped * 10**extra
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
