"""Tracing: marked cells a trace needs, and the time and memory of scoring.

``python -m bench.tracing`` prints the figures as JSON lines.
"""

from __future__ import annotations

import json
import tracemalloc
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from pgbalise.marking.codes import CODE_LENGTH
from pgbalise.tracing.scoring import Evidence, position_weights
from pgbalise.tracing.simulate import draw_bias, draw_codewords, worst_cells_needed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BARS_CELLS = {1: 100, 2: 450, 3: 1200, 5: 3200}
BAR_SECONDS = 5.0
BAR_MEBIBYTES = 1024.0
CELLS = 1_000_000
RECIPIENTS = 10_000
BLOCK = 512


def measure(*, trials: int = 400, seed: int = 11) -> list[dict[str, Any]]:
    """Return one entry per figure: name, value, unit, bar, holds, how."""
    entries = []
    for coalition, bar in BARS_CELLS.items():
        cells = worst_cells_needed(coalition, trials=trials, seed=seed)
        who = "one leaker" if coalition == 1 else f"a coalition of {coalition}"
        entries.append(
            {
                "name": f"marked cells needed to accuse {who}",
                "value": cells,
                "unit": "cells",
                "bar": bar,
                "holds": cells <= bar,
                "how": f"simulation, {trials} leaks per size, 95 % detection, worst of interleave, "
                "majority, minority and all-zero; 10,000 recipients, alpha 1e-9",
            }
        )
    runs = [_score(seed, traced=False)[0] for _ in range(3)]
    seconds = sorted(runs)[1]
    _, mebibytes = _score(seed, traced=True)
    what = f"{CELLS:,} marked cells against {RECIPIENTS:,} recipients"
    entries.append(
        {
            "name": f"scoring {what}",
            "value": round(seconds, 2),
            "unit": "s",
            "bar": BAR_SECONDS,
            "holds": seconds <= BAR_SECONDS,
            "how": "position weights and products, wall clock, median of 3, codewords not counted",
        }
    )
    entries.append(
        {
            "name": f"peak memory of scoring {what}",
            "value": round(mebibytes, 1),
            "unit": "MiB",
            "bar": BAR_MEBIBYTES,
            "holds": mebibytes <= BAR_MEBIBYTES,
            "how": "tracemalloc peak, with the evidence and the drawing of one block of codewords",
        }
    )
    return entries


def _score(seed: int, *, traced: bool) -> tuple[float, float]:
    """Return the seconds spent scoring and, if traced, the peak of allocations in MiB."""
    rng = np.random.default_rng(seed)
    if traced:
        tracemalloc.start()
    try:
        bias = draw_bias(CODE_LENGTH, rng)
        evidence = Evidence(
            rng.integers(CODE_LENGTH, size=CELLS, dtype=np.int32),
            -rng.exponential(5.0, CELLS),
            -rng.exponential(5.0, CELLS),
        )
        blocks = _blocks(bias, rng)
        start = perf_counter()
        weights = position_weights(evidence, bias)
        seconds = perf_counter() - start
        for block in blocks:
            start = perf_counter()
            weights.score(block)
            seconds += perf_counter() - start
        peak = tracemalloc.get_traced_memory()[1] / 2**20 if traced else 0.0
    finally:
        tracemalloc.stop()
    return seconds, peak


def _blocks(bias: NDArray[np.uint16], rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, RECIPIENTS, BLOCK):
        count = min(BLOCK, RECIPIENTS - start)
        yield np.packbits(draw_codewords(bias, count, rng), axis=1, bitorder="little")


if __name__ == "__main__":
    for entry in measure():
        print(json.dumps(entry))
