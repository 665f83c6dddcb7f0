"""Decoding: one million recipients against 2,000 marked cells, codewords made on the way.

``python -m bench decoding`` measures it in a fresh process, so that the peak memory reported is
that of decoding alone (and of the processes that it starts, each counted whole).
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from pgbalise.marking.codes import CODE_LENGTH, bias, codeword
from pgbalise.marking.keys import MasterKey
from pgbalise.tracing.attacks import collude
from pgbalise.tracing.decision import threshold_log10
from pgbalise.tracing.decoding import Way, decode
from pgbalise.tracing.scoring import Evidence
from pgbalise.wordstream import stream_words

RECIPIENTS = 1_000_000
CELLS = 2_000
LEAKERS = (123_456, 777_777)
ALPHA = 1e-9
EPOCH = 1
BAR_SECONDS = 60.0
BAR_MEBIBYTES = 2048.0


def measure(*, recipients: int = RECIPIENTS, cells: int = CELLS) -> list[dict[str, Any]]:
    """Return one entry per figure: name, value, unit, bar, holds, how."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.decoding", str(recipients), str(cells)],
        cwd=Path(__file__).resolve().parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    run = json.loads(done.stdout)
    what = f"{cells:,} marked cells against {recipients:,} recipients"
    return [
        {
            "name": f"decoding {what}",
            "value": round(run["seconds"], 1),
            "unit": "s",
            "bar": BAR_SECONDS,
            "holds": run["seconds"] <= BAR_SECONDS,
            "how": f"two who interleaved, both named; codewords made by {run['workers']} "
            f"processes in stages; wall clock of one run, {run['cpu']:.0f} s of CPU time in all",
        },
        {
            "name": f"peak memory of decoding {what}",
            "value": round(run["mebibytes"], 1),
            "unit": "MiB",
            "bar": BAR_MEBIBYTES,
            "holds": run["mebibytes"] <= BAR_MEBIBYTES,
            "how": "peak resident set of the process, plus its workers' (each as the largest)",
        },
    ]


def _run(recipients: int, cells: int) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    key, workers = MasterKey(bytes(range(32))), os.cpu_count() or 1
    thresholds = bias(key, EPOCH)
    names = [f"recipient_{number:07d}" for number in range(recipients)]
    leakers = [number % recipients for number in LEAKERS]
    held = np.stack([codeword(key, names[one], EPOCH, thresholds) for one in leakers])
    position = rng.integers(CODE_LENGTH, size=cells).astype(np.int32)
    shown = collude(held[:, position], "interleave", rng) == 1
    evidence = Evidence(position, np.where(shown, -12.0, 0.0), np.where(shown, 0.0, -12.0))
    begin, busy = perf_counter(), _cpu()
    way = Way(
        evidence,
        thresholds,
        np.arange(recipients),
        stream_words(key, names, EPOCH, thresholds, workers),
    )
    found = decode([way], recipients, threshold_log10=threshold_log10(recipients, ALPHA))
    seconds = perf_counter() - begin
    named = sorted(one for each in found.rounds for one in each)
    if named != sorted(leakers):
        raise RuntimeError(f"decoding names {named}, not {sorted(leakers)}")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "seconds": seconds,
        "cpu": _cpu() - busy,
        "mebibytes": (own + workers * largest) / 1024,
        "workers": workers,
    }


def _cpu() -> float:
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


if __name__ == "__main__":
    print(json.dumps(_run(*map(int, sys.argv[1:]))))
