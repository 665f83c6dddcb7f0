"""Tracing without the key: 1,000,000 leaked rows, 1,000,000 stored ones, 10,000 recipients.

``python -m bench keyless`` measures it. The leak is written in one process and traced in
another, so that the peak memory reported is that of tracing alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from bench.apart import answer, peak_mebibytes, run_apart
from bench.trials import drawn_key, named
from pgbalise.frames import copied_rows, mark
from pgbalise.leaks import open_leak
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import parse_policy
from pgbalise.trace import Marking, trace

MODULE = "bench.keyless"
ROWS = 1_000_000
RECIPIENTS = 10_000
WORKERS = os.cpu_count() or 1
LEAKER = named(RECIPIENTS)[4_242]
ALPHA = 1e-9
BAR_SECONDS = 120.0
BAR_MEBIBYTES = 4096.0
KEY = "stay_id"
COLUMNS = (
    KEY,
    "ward",
    "sex",
    "born",
    "diagnosis",
    "admitted_at",
    "weight",
    "pressure",
    "creatinine",
)
DOCUMENT: dict[str, Any] = {
    "relation": {
        "hospital.stay": {
            "key": {KEY: "bigint"},
            "carrier": {
                "admitted_at": {"type": "timestamptz", "quantum": "1 second", "neutral": True},
                "weight": {"type": "numeric(5,1)", "quantum": "0.1", "bounds": ["30", "200"]},
                "pressure": {"type": "integer", "quantum": 1, "bounds": [60, 250]},
                "creatinine": {"type": "integer", "quantum": 1, "bounds": [20, 900]},
            },
        }
    }
}


def measure(*, quick: bool = False, seed: int = 7) -> list[dict[str, Any]]:
    """Return one entry per figure: name, value, unit, bar, holds, how."""
    rows, recipients = ROWS // 10 if quick else ROWS, RECIPIENTS
    with tempfile.TemporaryDirectory(prefix="pgb-linkage-") as folder:
        _say(f"writing a leak of {rows:,} rows")
        run_apart(MODULE, "write", folder, rows, seed)
        run = run_apart(MODULE, "trace", folder, recipients)
    seconds = run["seconds"]
    named_alone = run["accused"] == [LEAKER]
    what = f"{rows:,} rows without key against {rows:,} and {recipients:,} recipients"
    how = "CSV read and traced in a fresh process, stored rows in memory, rows in another order"
    right = f"the leaker alone accused: {'yes' if named_alone else 'no'}"
    return [
        {
            "name": f"tracing a leak of {what}",
            "value": round(seconds, 1),
            "unit": "s",
            "bar": BAR_SECONDS,
            "holds": named_alone and seconds <= BAR_SECONDS,
            "how": f"{how}; {run['aligned']:,} rows linked, {right}",
        },
        {
            "name": "peak memory of tracing a leak without key",
            "value": round(run["mebibytes"], 1),
            "unit": "MiB",
            "bar": BAR_MEBIBYTES,
            "holds": named_alone and run["mebibytes"] <= BAR_MEBIBYTES,
            "how": f"peak resident set (VmHWM) of that process, stored rows included; {right}",
        },
    ]


def _say(text: str) -> None:
    print(f"keyless: {text}", file=sys.stderr, flush=True)


def _key() -> MasterKey:
    return drawn_key(np.random.default_rng(4_242))


def _write(folder: Path, rows: int, seed: int) -> dict[str, Any]:
    """Write what the relation holds as COPY prints it, and the leaker's extract as CSV."""
    rng = np.random.default_rng(seed)
    seconds = rng.integers(1_500_000_000, 1_700_000_000, rows) * 1_000_000
    tenths = np.clip(np.rint(rng.normal(740, 150, rows)), 310, 1_990)
    stored = pa.table(
        {
            KEY: pa.array(np.arange(1, rows + 1)),
            "ward": pa.array(np.minimum(rng.geometric(0.02, rows), 200)),
            "sex": pa.array(np.where(rng.random(rows) < 0.5, "F", "M")),
            "born": pa.array(rng.integers(1925, 2015, rows)),
            "diagnosis": pa.array(_codes(np.minimum(rng.geometric(0.005, rows), 2_000))),
            "admitted_at": pa.array(seconds).cast(pa.timestamp("us", "UTC")),
            "weight": pa.array(tenths / 10.0).cast(pa.decimal128(5, 1)),
            "pressure": pa.array(np.clip(np.rint(rng.normal(128, 18, rows)), 65, 240), pa.int32()),
            "creatinine": pa.array(
                np.clip(np.rint(rng.lognormal(4.4, 0.4, rows)), 25, 890), pa.int32()
            ),
        }
    )
    policy = parse_policy(DOCUMENT)
    copy = mark(stored, policy, LEAKER, _key())
    leak = copy.take(pa.array(rng.permutation(rows))).drop_columns([KEY])
    for table, name, header in ((stored, "stored.csv", False), (leak, "leak.csv", True)):
        # as PostgreSQL prints it: 2021-02-03 04:05:06+00
        shown = pc.strftime(
            table["admitted_at"].cast(pa.timestamp("s", "UTC")), "%Y-%m-%d %H:%M:%S+00"
        )
        at = table.column_names.index("admitted_at")
        options = pyarrow.csv.WriteOptions(include_header=header, quoting_style="none")
        pyarrow.csv.write_csv(table.set_column(at, "admitted_at", shown), folder / name, options)
    return {}


def _codes(numbers: np.ndarray[Any, Any]) -> pa.Array:
    return pc.binary_join_element_wise("D", pa.array(numbers).cast(pa.string()), "")


def _trace(folder: Path, recipients: int) -> dict[str, Any]:
    """Trace the leak in this process; return the seconds, the verdict and the peak memory."""
    policy = parse_policy(DOCUMENT)
    stored = copied_rows((folder / "stored.csv").read_bytes(), list(COLUMNS))
    begin = perf_counter()
    marking = Marking(policy, policy.relations[0], _key(), stored, named(recipients))
    with open_leak(folder / "leak.csv") as leak:
        found = trace(leak.tables, [marking], alpha=ALPHA, progress=_say, workers=WORKERS)
    return {
        "seconds": perf_counter() - begin,
        "mebibytes": peak_mebibytes(),
        "aligned": found.verdict.rows_aligned,
        "accused": found.verdict.accused,
    }


if __name__ == "__main__":
    answer({"write": _write, "trace": _trace})
