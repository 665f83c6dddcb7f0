"""Uniform numbers that depend on a seed and a name only, whoever else is drawn along.

SHAKE-128 (FIPS 202) of the seed and the name is read as far as is needed, so a longer reading
begins with the shorter one, and numbers of different names have nothing to do with each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WIDTH = 4


def uniforms(seeds: Sequence[bytes], name: str, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``lengths[i]`` numbers of each seed i, one seed after the other, in (0, 1).

    float64[lengths.sum()], multiples of 2^-32 moved by half of that; ``lengths`` int64[len(seeds)].
    """
    tail = b"\x00" + name.encode()
    stream = b"".join(
        hashlib.shake_128(seed + tail).digest(_WIDTH * length)
        for seed, length in zip(seeds, lengths.tolist(), strict=True)
    )
    whole = np.frombuffer(stream, "<u4").astype(np.float64)
    return (whole + 0.5) / 2.0 ** (8 * _WIDTH)


def uniform_table(seeds: Sequence[bytes], name: str, width: int) -> NDArray[np.float64]:
    """Return ``width`` numbers of each seed, float64[len(seeds), width], as ``uniforms`` does."""
    lengths = np.full(len(seeds), width, np.int64)
    return uniforms(seeds, name, lengths).reshape(len(seeds), width)
