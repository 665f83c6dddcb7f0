"""A million leaked rows found again without a key among a million stored ones.

``python -m bench linkage_scale`` draws a clinical relation of nine columns without a key, leaks all
of it with a tenth of the cells altered in every fifth row, and links it in batches.
"""

from __future__ import annotations

import resource
from time import process_time
from typing import Any

import numpy as np

from bench.linkage import SURE, damage
from pgbalise.tracing.linkage import Cells, Field, Linker

ROWS = 1_000_000
BATCH = 65_536
SAMPLE = 20_000
BAR_SECONDS = 50.0
BAR_MEBIBYTES = 1536.0


def measure(*, rows: int = ROWS, seed: int = 7) -> list[dict[str, Any]]:
    """Return one entry per figure: name, value, unit, bar, holds, how."""
    entries = []
    for title, share, rate in (("a fifth of the rows", 0.2, 0.1), ("all rows", 1.0, 0.1)):
        rng = np.random.default_rng(seed)
        fields = clinical(rows, rng)
        truth = rng.permutation(rows)
        leak = damage(fields, truth, rate, "anything", rng)
        whole = rng.random(rows) >= share
        for field, cells in zip(fields, leak, strict=True):
            cells.values[whole] = field.values[truth[whole]]
        before = _peak()
        begin = process_time()
        linker = Linker.fit(fields, _part(leak, slice(0, SAMPLE)))
        parts = [linker.link(_part(leak, slice(at, at + BATCH))) for at in range(0, rows, BATCH)]
        seconds = process_time() - begin
        grown = _peak() - before
        stored = np.concatenate([part.stored for part in parts])
        sure = np.concatenate([part.probability for part in parts]) >= SURE
        right = stored == truth
        what = f"{rows:,} rows without a key, 10% of cells altered in {title}"
        how = f"9 columns, fit on {SAMPLE:,} rows, batches of {BATCH:,}; one seeded leak"
        for name, value, unit, bar in (
            ("fit and link", seconds, "s", BAR_SECONDS),
            ("memory beyond the rows themselves", grown, "MiB", BAR_MEBIBYTES),
            ("likeliest row right", 100 * float(right.mean()), "%", None),
            ("at 0.9 right", 100 * float((sure & right).mean()), "%", None),
            ("at 0.9 wrong", 100 * float((sure & ~right).mean()), "%", None),
        ):
            entries.append(
                {
                    "name": f"{what}: {name}",
                    "value": round(value, 2),
                    "unit": unit,
                    "bar": bar,
                    "holds": None if bar is None else value <= bar,
                    "how": how,
                }
            )
    return entries


def clinical(rows: int, rng: np.random.Generator) -> list[Field]:
    """Draw results of tests: several per patient and visit, no key."""
    patient = np.sort(rng.integers(rows // 12 + 1, size=rows))
    people = int(patient[-1]) + 1
    visit = patient * 4 + rng.integers(4, size=rows)
    _, visit = np.unique(visit, return_inverse=True)
    visits = int(visit.max()) + 1
    test = np.minimum(rng.geometric(0.03, rows) - 1, 199)
    centre = rng.lognormal(3, 1, 200)[test]
    born = rng.integers(-14_000, 18_000, people)
    columns: list[tuple[str, Any, float | None]] = [
        ("birth_date", born[patient], 1.0),
        ("sex", rng.integers(2, size=people)[patient], None),
        ("test", test, None),
        ("value", np.round(centre * rng.lognormal(0, 0.3, rows), 1), 0.1),
        ("taken_on", rng.integers(16_000, 19_000, visits)[visit], 0.0),
        ("ward", rng.integers(40, size=visits)[visit], None),
        ("weight", np.round(rng.normal(75, 15, people)[patient], 1), 0.1),
        ("device", rng.integers(300, size=rows), None),
        ("outcome", (rng.random(rows) < 0.1).astype(np.int64), None),
    ]
    there = np.ones(rows, np.bool_)
    return [
        Field(name, np.asarray(values, np.int64), there, "code")
        if tolerance is None
        else Field(name, np.asarray(values, np.float64), there, "number", tolerance)
        for name, values, tolerance in columns
    ]


def _part(cells: list[Cells], part: slice) -> list[Cells]:
    return [Cells(one.values[part], one.valid[part]) for one in cells]


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
