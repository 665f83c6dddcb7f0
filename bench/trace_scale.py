"""Tracing end to end: a leak of 1,000,000 marked cells against 10,000 recipients.

``python -m bench trace_scale`` measures it. The leak is written in one process and traced in
others, each fresh, so that the peak memory reported is that of tracing alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

import pgbalise
from bench.apart import answer, peak_mebibytes, run_apart
from pgbalise.frames import copied_rows
from pgbalise.leaks import open_leak
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import parse_policy
from pgbalise.trace import Marking, trace

MODULE = "bench.trace_scale"
ROWS = 2_000_000
RECIPIENTS = 10_000
LEAKER = 4_242
ALPHA = 1e-9
RUNS = 3
WORKERS = os.cpu_count() or 1
BAR_SECONDS = 20.0
BAR_MEBIBYTES = 2048.0
COLUMNS = ("id", "taken_at", "value", "score", "ratio")
DOCUMENT: dict[str, Any] = {
    "relation": {
        "hospital.reading": {
            "key": {"id": "bigint"},
            "carrier": {
                "taken_at": {"type": "timestamptz", "quantum": "1 second", "neutral": True},
                "value": {"type": "numeric(8,1)", "quantum": "0.1", "bounds": ["0", "1000"]},
                "score": {"type": "integer", "quantum": "1", "bounds": ["0", "1000"]},
                "ratio": {"type": "double precision", "quantum": "0.001", "scale": 3},
            },
        }
    }
}


def measure(
    *, rows: int = ROWS, recipients: int = RECIPIENTS, seed: int = 7
) -> list[dict[str, Any]]:
    """Return one entry per figure: name, value, unit, bar, holds, how."""
    with tempfile.TemporaryDirectory(prefix="pgb-trace-") as folder:
        _say(f"writing a leak of {rows:,} rows")
        run_apart(MODULE, "write", folder, rows, seed)
        runs = []
        for number in range(1, RUNS + 1):
            runs.append(run_apart(MODULE, "trace", folder, recipients))
            _say(f"trace {number} of {RUNS}: {runs[-1]['seconds']:.1f} s")
    for run in runs:
        if run["accused"] != [_name(LEAKER)] or run["strongest"] != _name(LEAKER):
            raise RuntimeError(f"the trace accuses {run['accused']}, not {_name(LEAKER)}")
    totals = [run["seconds"] for run in runs]
    seconds, peak = median(totals), max(run["mebibytes"] for run in runs)
    cells = runs[0]["marked"]
    what = f"{cells:,} marked cells ({rows:,} rows) against {recipients:,} recipients"
    spread = f"{min(totals):.1f} to {max(totals):.1f} s"
    return [
        _entry(
            f"tracing a leak end to end: {what}",
            round(seconds, 2),
            "s",
            BAR_SECONDS,
            f"trace() of the CSV, stored rows in memory; median of {RUNS} fresh "
            f"processes ({spread}), the leaker alone accused in each; python -m bench trace_scale",
        ),
        _entry(
            "peak memory of tracing a leak end to end",
            round(peak, 1),
            "MiB",
            BAR_MEBIBYTES,
            f"peak resident set (VmHWM) of the process, stored rows included; highest of {RUNS}",
        ),
    ]


def _entry(name: str, value: float, unit: str, bar: float | None, how: str) -> dict[str, Any]:
    holds = None if bar is None else value <= bar
    return {"name": name, "value": value, "unit": unit, "bar": bar, "holds": holds, "how": how}


def _say(text: str) -> None:
    print(f"trace_scale: {text}", file=sys.stderr, flush=True)


def _name(number: int) -> str:
    return f"recipient_{number:05d}"


def _key() -> MasterKey:
    return MasterKey(bytes(range(32)))


def _write(folder: Path, rows: int, seed: int) -> dict[str, Any]:
    """Write what the relation holds as COPY prints it, and the leaker's extract as CSV."""
    rng = np.random.default_rng(seed)
    seconds = rng.integers(1_500_000_000, 1_700_000_000, rows) * 1_000_000
    tenths = rng.integers(400, 3_000, rows)
    stored = pa.table(
        {
            "id": pa.array(np.arange(1, rows + 1)),
            "taken_at": pa.array(seconds).cast(pa.timestamp("us", "UTC")),
            "value": pa.array(tenths / 10.0).cast(pa.decimal128(8, 1)),
            "score": pa.array(rng.integers(1, 1_000, rows), pa.int32()),
            "ratio": pa.array(rng.integers(100, 9_900, rows) / 1000.0),
        }
    )
    policy = parse_policy(DOCUMENT)
    # a thief's file: every row, in another order
    leak = pgbalise.mark(stored, policy, _name(LEAKER), _key()).take(
        pa.array(rng.permutation(rows))
    )
    for table, name, header in ((stored, "stored.csv", False), (leak, "leak.csv", True)):
        # as PostgreSQL prints it: 2021-02-03 04:05:06+00
        shown = pc.strftime(
            table["taken_at"].cast(pa.timestamp("s", "UTC")), "%Y-%m-%d %H:%M:%S+00"
        )
        at = table.column_names.index("taken_at")
        options = pyarrow.csv.WriteOptions(include_header=header, quoting_style="none")
        pyarrow.csv.write_csv(table.set_column(at, "taken_at", shown), folder / name, options)
    return {}


def _trace(folder: Path, recipients: int) -> dict[str, Any]:
    """Trace the leak in this process; return the seconds, the verdict and the peak memory."""
    policy = parse_policy(DOCUMENT)
    relation = policy.relations[0]
    stored = copied_rows((folder / "stored.csv").read_bytes(), list(COLUMNS))
    stored = stored.select(list(relation.needed))
    names = [_name(number) for number in range(recipients)]
    begin = perf_counter()
    marking = Marking(policy, relation, _key(), stored, names)
    with open_leak(folder / "leak.csv") as leak:
        found = trace(leak.tables, [marking], alpha=ALPHA, progress=_say, workers=WORKERS)
        size = leak.size
    end = perf_counter()
    verdict = found.verdict
    return {
        "seconds": end - begin,
        "megabytes": size / 1e6,
        "mebibytes": peak_mebibytes(),
        "marked": sum(part.marked for _, part in found.carriers),
        "strongest": verdict.verdicts[0].recipient,
        "accused": [one.recipient for one in verdict.verdicts if one.accused],
    }


if __name__ == "__main__":
    answer({"write": _write, "trace": _trace})
