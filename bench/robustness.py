"""Robustness: whom a trace names when most of the rows, the key or the names of columns are gone.

``python -m bench robustness`` prints the figures beside those of two published fingerprints on
the same data (UCI Adult), and measures the other statistical promises; ``--quick`` takes fewer
trials. Every trial has a master key, thieves and rows of its own, drawn from its number.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from multiprocessing import get_context
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.adult import ALTERED_SHARE, CARRIERS, COLUMNS, KEY, NUMBERS, adult, generated, policy
from bench.trials import MERGES, Judgement, Source, as_text, disguised, drawn_key, named
from pgbalise.frames import mark
from pgbalise.marking.policy import parse_policy

T = TypeVar("T")

RECIPIENTS = 20
ALPHA = 1e-6
ROWS = {
    "90 % of the rows deleted": 3_256,
    "99 % of the rows deleted": 326,
    "500 rows": 500,
    "300 rows": 300,
    "100 rows": 100,
}
FORMS = ("with key", "without key", "without key, renamed, shuffled")
NAMED_BAR = {"99 % of the rows deleted": 0.95, "300 rows": 0.95}
RECALL_BAR = {2: 0.95, 5: 0.9, 10: 0.6}

MANY = 10_000
"""Recipients of the trials on clinical data."""
STRICT = 1e-9
"""Their false-accusation probability."""
CLINICAL_ROWS = {"with key": 240, "without key": 400}
CLINICAL_GRID = (160, 180, 200, 220, 240, 280, 320, 360, 400)
EDITED_SHARE = 0.15
LINKED_BAR = 0.966
"""What voting by rarity of the values reaches on the same rows."""

# Figures of others, not measured here: NCorr-FP and Universal on the same 32,561 rows and 20
# recipients; for collusion those that the authors of NCorr-FP published.
PEERS = {
    "90 % of the rows deleted": ("first .94, accused .77", "finds none"),
    "99 % of the rows deleted": ("fails with an error", "finds none"),
    "500 rows": ("fails with an error", "finds none"),
    "300 rows": ("fails with an error", "finds none"),
    "100 rows": ("fails with an error", "finds none"),
}
PEERS_WITHOUT_KEY = ("fails", "fails")
PEERS_COLLUSION = {
    2: "recall 1.00, 10.0 % of accusations false",
    5: "recall  .76,  6.5 % of accusations false",
    10: "recall  .27, 10.7 % of accusations false",
}


@dataclass(frozen=True)
class Trials:
    """How many trials of each kind."""

    lone: int
    keyless: int
    coalition: int
    mixed: int
    null: int
    null_keyless: int
    linked: int
    clinical: int
    clinical_keyless: int
    edited: int
    full: int


FULL = Trials(200, 50, 10, 10_000, 1_000, 100, 5, 200, 60, 100, 3)
QUICK = Trials(20, 4, 1, 200, 40, 4, 1, 20, 4, 10, 1)


def measure(*, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Yield one entry per figure, as each is found: name, value, unit, bar, holds, how."""
    trials = QUICK if quick else FULL
    # products this small gain nothing from threads, and there is a process per core already
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:

        def each(step: Callable[..., T], tasks: Iterable[tuple[Any, ...]]) -> list[T]:
            listed = list(tasks)
            what = f"{step.__name__.strip('_').replace('_', ' ')}: "
            _say(f"{what}{len(listed):,} trials")
            chunk = max(1, min(50, len(listed) // 16))
            results: list[T] = []
            for result in pool.map(step, *zip(*listed, strict=True), chunksize=chunk):
                results.append(result)
                if len(results) % 1_000 == 0:
                    _say(f"{what}{len(results):,} done")
            return results

        yield _altered()
        yield from _lone_leakers(each, trials)
        yield from _coalitions(each, trials)
        yield from _innocents(each, trials)
        yield from _strangers(each, trials)
        yield from _linkage(trials)
        yield from _clinical_leaks(each, trials)


Each = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], list[Any]]


# ------------------------------------------------------------------------- Adult, one leaker


def _altered() -> dict[str, Any]:
    table, key = _census(), drawn_key(np.random.default_rng(0))
    shares = []
    for recipient in named(RECIPIENTS):
        copy = mark(table, policy(), recipient, key)
        altered = sum(
            int(np.count_nonzero(table.column(c).to_numpy() != copy.column(c).to_numpy()))
            for c in CARRIERS
        )
        shares.append(altered / (table.num_rows * len(COLUMNS)))
    return _entry(
        "Adult: cells that marking altered",
        round(100 * max(shares), 3),
        "%",
        100 * ALTERED_SHARE,
        f"of 32,561 rows x 15 columns; the highest of {RECIPIENTS} recipients' copies",
        at_most=True,
    )


def _lone_leakers(each: Each, trials: Trials) -> list[dict[str, Any]]:
    entries = []
    lines = []
    for form in FORMS:
        count = trials.lone if form == "with key" else trials.keyless
        tasks = [(number, rows, form) for rows in ROWS.values() for number in range(count)]
        results: list[tuple[bool, bool, bool]] = each(_lone, tasks)
        for at, (label, rows) in enumerate(ROWS.items()):
            mine = results[at * count : (at + 1) * count]
            first, accused, false = (sum(column) / count for column in zip(*mine, strict=True))
            both = sum(one[0] and one[1] for one in mine) / count
            peers = PEERS[label] if form == "with key" else PEERS_WITHOUT_KEY
            lines.append(
                (label, form, f"{first:.2f}", f"{accused:.2f}", f"{100 * false:.1f} %", *peers)
            )
            entries.append(
                _entry(
                    f"Adult, {label}, {form}: right recipient first and accused",
                    round(both, 3),
                    "share",
                    NAMED_BAR.get(label),
                    f"{count} leaks of {rows:,} rows, {RECIPIENTS} recipients, alpha {ALPHA:g}; "
                    f"first {first:.3f}, accused {accused:.3f}, somebody else accused {false:.3f}",
                )
            )
    _print_table(
        "UCI Adult, one leaker of 20, the right recipient's share of trials "
        "(others' figures as published or measured elsewhere)",
        ("leak", "form", "first", "accused", "false", "NCorr-FP", "Universal"),
        lines,
    )
    return entries


def _lone(number: int, rows: int, form: str) -> tuple[bool, bool, bool]:
    """Whether the leaker comes first, whether it is accused, and whether anyone else is."""
    rng = np.random.default_rng([1, number, rows])
    source = _adult_source(rng)
    thief = str(rng.choice(source.recipients))
    leak = source.leaked_by([thief], _some(source, rows, rng), "", rng)
    found = source.judge(_formed(leak, form, rng), ALPHA, rows=None)
    return found.first == thief, thief in found.accused, bool({*found.accused} - {thief})


def _formed(leak: pa.Table, form: str, rng: np.random.Generator) -> pa.Table:
    if form == "with key":
        return leak
    bare = leak.drop_columns([KEY])
    return bare if form == "without key" else disguised(bare, rng)


# --------------------------------------------------------------------------- Adult, coalitions


def _coalitions(each: Each, trials: Trials) -> list[dict[str, Any]]:
    entries, lines = [], []
    cases = [(size, merge, "with key") for size, merge in product(RECALL_BAR, MERGES)]
    cases += [(size, "rows mixed", "without key") for size in RECALL_BAR]
    tasks = [(number, *case) for case in cases for number in range(trials.coalition)]
    results: list[tuple[int, int]] = each(_coalition, tasks)
    for at, (size, merge, form) in enumerate(cases):
        mine = results[at * trials.coalition : (at + 1) * trials.coalition]
        guilty, innocent = (sum(column) for column in zip(*mine, strict=True))
        recall = guilty / (size * trials.coalition)
        false = innocent / max(1, guilty + innocent)
        lines.append(
            (
                str(size),
                merge,
                form,
                f"{recall:.2f}",
                f"{100 * false:.1f} %",
                PEERS_COLLUSION[size] if form == "with key" else "fails",
            )
        )
        entries.append(
            _entry(
                f"Adult, {size} colluders, {merge}, {form}: share of them accused",
                round(recall, 3),
                "share",
                RECALL_BAR[size],
                f"{trials.coalition} leaks of 32,561 rows, {RECIPIENTS} recipients, alpha "
                f"{ALPHA:g}; {innocent} of {guilty + innocent} accusations false",
            )
        )
    _print_table(
        "UCI Adult, coalitions of 20 recipients, all 32,561 rows "
        "(others' figures as published; they name no attack)",
        ("thieves", "attack", "form", "recall", "false accusations", "NCorr-FP"),
        lines,
    )
    return entries


def _coalition(number: int, size: int, merge: str, form: str) -> tuple[int, int]:
    """How many thieves and how many others are accused of a merged copy of everything."""
    rng = np.random.default_rng([2, number, size])
    source = _adult_source(rng)
    thieves = rng.choice(source.recipients, size, replace=False).tolist()
    leak = source.leaked_by(thieves, rng.permutation(source.table.num_rows), merge, rng)
    found = source.judge(_formed(leak, form, rng), ALPHA, rows=None)
    return _counted(found, thieves)


def _counted(found: Judgement, thieves: Sequence[str]) -> tuple[int, int]:
    guilty = len({*found.accused} & {*thieves})
    return guilty, len(found.accused) - guilty


# ------------------------------------------------------------------------- nobody else, and nobody


def _innocents(each: Each, trials: Trials) -> list[dict[str, Any]]:
    results: list[tuple[int, int, float]] = each(_any_attack, ((n,) for n in range(trials.mixed)))
    guilty, innocent = (sum(one[k] for one in results) for k in (0, 1))
    wide = sum(one[2] >= np.log10(RECIPIENTS / 0.01) for one in results) / trials.mixed
    what = (
        f"{trials.mixed:,} trials on Adult with the key, each with a master key, 1 to 10 thieves, "
        f"an attack and 100 to 5,000 rows of its own; the key and the carriers leak"
    )
    return [
        _entry(
            "innocents accused, any attack by 1 to 10 thieves",
            innocent,
            "people",
            0,
            f"{what}; alpha {ALPHA:g}; {guilty:,} accusations were right",
            at_most=True,
        ),
        _entry(
            "trials in which alpha = 1 % would accuse an innocent",
            round(100 * wide, 3),
            "%",
            1.0,
            f"the same {trials.mixed:,} trials",
            at_most=True,
        ),
    ]


def _any_attack(number: int) -> tuple[int, int, float]:
    """Thieves accused, others accused, and the strongest evidence (log10) against another."""
    rng = np.random.default_rng([3, number])
    source = _adult_source(rng).bare()
    thieves = rng.choice(source.recipients, rng.integers(1, 11), replace=False).tolist()
    rows = _some(source, _rows_drawn(rng), rng)
    merge = str(rng.choice(list(MERGES)))
    # of a leak that has the key, only the rows that it names are fetched
    leak = source.leaked_by(thieves, rows, merge, rng)
    found = source.judge(leak, ALPHA, rows=rows)
    return *_counted(found, thieves), found.strongest_but(thieves)


def _strangers(each: Each, trials: Trials) -> list[dict[str, Any]]:
    entries = []
    for form, count in (("with key", trials.null), ("without key", trials.null_keyless)):
        for kind in ("not ours", "ours, unmarked", "another hospital's"):
            tasks = ((number, kind, form) for number in range(count))
            results: list[tuple[int, bool]] = each(_stranger, tasks)
            accused, judged = (sum(column) for column in zip(*results, strict=True))
            entries.append(
                _entry(
                    f"accused of a leak that is {kind}, {form}",
                    accused,
                    "people",
                    0,
                    f"{count:,} leaks of 100 to 5,000 rows of Adult's columns, alpha {ALPHA:g}; "
                    f"{judged:,} of them could be compared with the source",
                    at_most=True,
                )
            )
    return entries


def _stranger(number: int, kind: str, form: str) -> tuple[int, bool]:
    """How many are accused of a leak in which none of them had a part, and if it was judged."""
    rng = np.random.default_rng([4, number])
    table, count = _census(), _rows_drawn(rng)
    # this hospital has one half of the people, the other hospital the other, both numbered from 1
    order = rng.permutation(table.num_rows)
    numbers = pa.array(range(1, len(order) // 2 + 1), pa.int64())
    mine, theirs = (
        table.take(pa.array(half[: len(numbers)])).set_column(0, KEY, numbers)
        for half in np.array_split(order, 2)
    )
    source = Source.of(mine, policy(), drawn_key(rng), named(RECIPIENTS))
    keyed = form == "with key"
    source = source.bare() if keyed else source
    rows = _some(source, count, rng)
    if kind == "not ours":
        at = pa.array(rows)
        invented = generated(count, rng).set_column(0, KEY, numbers.take(at))
        leak = as_text(invented.select(source.table.column_names))
    elif kind == "ours, unmarked":
        leak = source.text.take(pa.array(rows))
    else:
        other = Source.of(theirs, policy(), drawn_key(rng), source.recipients)
        leak = other.leaked_by([str(rng.choice(other.recipients))], rows, "", rng)
        leak = leak.select(source.table.column_names)
    found = source.judge(_formed(leak, form, rng), ALPHA, rows=rows if keyed else None)
    return len(found.accused), bool(found.log10_e_values)


def _rows_drawn(rng: np.random.Generator) -> int:
    return round(float(np.exp(rng.uniform(np.log(100), np.log(5_000)))))


# --------------------------------------------------------------------------------------- linkage


def _linkage(trials: Trials) -> list[dict[str, Any]]:
    runs = [_linked(number) for number in range(trials.linked)]
    right, seconds = (float(np.mean(column)) for column in zip(*runs, strict=True))
    how = f"mean of {trials.linked}; among 32,561 by 15 columns, 10 % of the cells altered, no key"
    return [
        _entry("rows of Adult linked rightly", round(right, 4), "share", LINKED_BAR, how),
        _entry("linking 1,000 rows of Adult", round(seconds, 2), "s", 4.0, how, at_most=True),
    ]


def _linked(number: int) -> tuple[float, float]:
    """The share of 1,000 damaged rows that are linked to the right one, and the seconds it took."""
    from pgbalise.tracing.linkage import Cells, Field, Linker

    rng = np.random.default_rng([7, number])
    table = _census()
    rows = rng.choice(table.num_rows, 1_000, replace=False)
    carriers = {c.column: c for c in policy().relations[0].carriers}
    fields, cells = [], []
    for name in COLUMNS:
        distinct, code = np.unique(table.column(name).to_numpy(), return_inverse=True)
        altered = rng.random(len(rows)) < 0.1
        other = (code[rows] + rng.integers(1, len(distinct), len(rows))) % len(distinct)
        seen = np.where(altered, other, code[rows])
        number_like = name in NUMBERS
        values = distinct.astype(np.float64) if number_like else np.arange(len(distinct))
        tolerance = 0.0
        if name in carriers:
            moves = carriers[name].tolerances[None]
            tolerance = float(getattr(moves, "grid", None) or getattr(moves, "quantum", 0))
        fields.append(
            Field(
                name,
                values[code],
                np.ones(len(code), np.bool_),
                "number" if number_like else "code",
                tolerance,
            )
        )
        cells.append(Cells(values[seen], np.ones(len(seen), np.bool_)))
    begin = perf_counter()
    found = Linker.fit(fields, cells).link(cells).stored
    return float(np.mean(found == rows)), perf_counter() - begin


# ------------------------------------------------------------------------------- clinical data

PATIENT: dict[str, Any] = {
    "relation": {
        "dpi.patient": {
            "key": {"patient_id": "integer"},
            "carrier": {
                "birth_date": {"type": "date", "quantum": "1 day"},
                "last_seen_on": {"type": "date", "quantum": "1 day"},
                "weight_kg": {"type": "numeric(5,1)", "quantum": "0.1", "bounds": [30, 200]},
                "height_cm": {"type": "numeric(5,1)", "quantum": 1, "bounds": [110, 220]},
            },
        }
    }
}
IDENTIFYING = ("ipp", "family_name", "given_name")


def _clinical_leaks(each: Each, trials: Trials) -> list[dict[str, Any]]:
    entries = []
    for form, bar in CLINICAL_ROWS.items():
        keyed = form == "with key"
        count = trials.clinical if keyed else trials.clinical_keyless
        results = np.array(each(_clinical, ((number, form) for number in range(count))))
        shares = dict(zip(CLINICAL_GRID, np.mean(results, axis=0).tolist(), strict=True))
        enough = [rows for rows in CLINICAL_GRID if shares[rows] >= 0.95]
        entries.append(
            _entry(
                f"rows that name one leaker of 10,000, {form}",
                enough[0] if enough else CLINICAL_GRID[-1] + 1,
                "rows",
                bar,
                f"the fewest of {', '.join(map(str, CLINICAL_GRID))} with which 95 % of {count} "
                f"leaks do (one more: none does); NAFLD's 17,549 patients without names, 4 "
                f"carriers at the default density, alpha {STRICT:g}; at {bar} rows "
                f"{shares[bar]:.3f}",
                at_most=True,
            )
        )
    right = sum(each(_full_clinical, ((number,) for number in range(trials.full))))
    entries.append(
        _entry(
            "leaks of 400 rows in which the leaker alone is accused of 10,000",
            right / trials.full,
            "share",
            1.0,
            f"{trials.full} of the same leaks with the key and all codewords",
        )
    )
    return entries + _edited_results(each, trials)


def _clinical(number: int, form: str) -> list[bool]:
    """Whether the leaker is named, by the rows that leak."""
    rng = np.random.default_rng([5, number])
    source = _patient_source(rng, RECIPIENTS)
    thief = str(rng.choice(source.recipients))
    order = rng.permutation(source.table.num_rows)[: CLINICAL_GRID[-1]]
    leak = source.leaked_by([thief], order, "", rng)
    keyed = form == "with key"
    if not keyed:
        leak = leak.drop_columns(["patient_id"])
    return [
        source.judge(
            leak.slice(0, rows), _few(STRICT), rows=order[:rows] if keyed else None
        ).accused
        == (thief,)
        for rows in CLINICAL_GRID
    ]


def _few(alpha: float) -> float:
    """With RECIPIENTS scored, the alpha that gives the threshold of MANY at ``alpha``.

    A thief's e-value does not depend on how many innocents are scored beside it, so scoring all
    the others adds nothing to a measure of how often the thief is named.
    """
    return alpha * RECIPIENTS / MANY


def _full_clinical(number: int) -> bool:
    rng = np.random.default_rng([5, number])
    source = _patient_source(rng, MANY)
    thief = str(rng.choice(source.recipients))
    rows = _some(source, 400, rng)
    found = source.judge(source.leaked_by([thief], rows, "", rng), STRICT, rows=rows)
    return found.accused == (thief,)


@cache
def _patients() -> pa.Table:
    from pgbalise.demo.cohort import build_cohort

    columns = dict(build_cohort().patient.columns)
    for name in ("weight_kg", "height_cm"):
        columns[name] = [None if v is None else f"{float(v):.1f}" for v in columns[name]]
    return pa.table({name: pa.array(v, pa.string()) for name, v in columns.items()}).drop_columns(
        list(IDENTIFYING)
    )


def _patient_source(rng: np.random.Generator, recipients: int) -> Source:
    return Source.of(_patients(), parse_policy(PATIENT), drawn_key(rng), named(recipients))


# ------------------------------------------------------------------------ attack by correlation

LAB: dict[str, Any] = {
    "relation": {
        "dpi.lab_result": {
            "key": {"result_id": "bigint"},
            "carrier": {
                "value": {
                    "type": "numeric",
                    "by": {"test": "text"},
                    "entity": {"patient_id": "integer", "taken_at": "timestamp with time zone"},
                    "tolerance": {
                        "hdl": {"quantum": 1, "bounds": [1, 250]},
                        "chol": {"quantum": 1, "bounds": [1, 250]},
                        "sbp": {"quantum": 2, "bounds": [50, 300]},
                        "dbp": {"quantum": 2, "bounds": [50, 300]},
                    },
                }
            },
        }
    }
}


def _edited_results(each: Each, trials: Trials) -> list[dict[str, Any]]:
    found = {
        share: np.array(each(_edited, ((number, share) for number in range(trials.edited))))
        for share in (0.0, EDITED_SHARE)
    }
    (plain, before), (edited, after) = (
        (float(np.mean(one[:, 0])), float(np.median(one[:, 1]))) for one in found.values()
    )
    return [
        _entry(
            f"lab results, {100 * EDITED_SHARE:.0f} % of the values edited by correlation: named",
            round(edited, 3),
            "share",
            round(plain, 3),
            f"{trials.edited} leaks of 1,000 results, 10,000 recipients, alpha {STRICT:g}; the bar "
            f"is that of the same leaks unedited; median e-value 10^{after:.0f}, before "
            f"10^{before:.0f}",
        )
    ]


def _edited(number: int, share: float) -> tuple[bool, float]:
    """Whether the leaker is named of 1,000 results, and the e-value (log10) against it.

    The thief, who holds a copy of everything, expects of each result what the patient's other
    results of that test say, and replaces those results that are farthest from it.
    """
    rng = np.random.default_rng([6, number])
    source = Source.of(_results(), parse_policy(LAB), drawn_key(rng), named(RECIPIENTS))
    thief = str(rng.choice(source.recipients))
    copy = mark(source.table, source.policy, thief, source.key)
    rows = _some(source, 1_000, rng)
    leak = copy.take(pa.array(rows))
    values = np.array(copy.column("value").to_pylist(), np.float64)
    expected = np.rint(_others_mean(values, _series()))
    strange = np.abs(values - expected)[rows]
    edited = np.argsort(-strange, kind="stable")[: round(share * len(rows))]
    shown = leak.column("value").to_pylist()
    for at in edited.tolist():
        shown[at] = str(int(expected[rows[at]]))
    leak = leak.set_column(leak.column_names.index("value"), "value", pa.array(shown, pa.string()))
    found = source.judge(leak, _few(STRICT), rows=rows)
    return found.accused == (thief,), found.log10_e_values[thief]


def _others_mean(values: NDArray[np.float64], series: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of the other values of each one's series; its own where it has no others."""
    count, total = np.bincount(series), np.bincount(series, values)
    others = count[series] - 1
    return np.where(others > 0, (total[series] - values) / np.maximum(others, 1), values)


@cache
def _results() -> pa.Table:
    from pgbalise.demo.cohort import build_cohort

    table = build_cohort().lab_result
    columns = dict(table.columns)
    columns["taken_at"] = [f"{minute}:00+00" for minute in columns["taken_at"]]
    arrays = {name: pa.array(v, pa.string()) for name, v in columns.items()}
    return pa.table(arrays).drop_columns(["recorded_at"])


@cache
def _series() -> NDArray[np.int64]:
    """Which series of results, of one patient and one test, each result belongs to."""
    table = _results()
    names = [
        f"{who} {what}"
        for who, what in zip(
            table.column("patient_id").to_pylist(), table.column("test").to_pylist(), strict=True
        )
    ]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


# ------------------------------------------------------------------------------------- shared


@cache
def _census() -> pa.Table:
    return adult()


@cache
def _census_text() -> pa.Table:
    return Source.of(_census(), policy(), drawn_key(np.random.default_rng()), ()).text


def _adult_source(rng: np.random.Generator) -> Source:
    return Source(_census(), _census_text(), policy(), drawn_key(rng), named(RECIPIENTS))


def _some(source: Source, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.choice(source.table.num_rows, count, replace=False)


def _entry(
    name: str,
    value: float,
    unit: str,
    bar: float | None,
    how: str,
    *,
    at_most: bool = False,
) -> dict[str, Any]:
    holds = None if bar is None else bool(value <= bar if at_most else value >= bar)
    return {"name": name, "value": value, "unit": unit, "bar": bar, "holds": holds, "how": how}


def _print_table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    print(f"\n  {title}\n")
    for line in (head, tuple("-" * width for width in widths), *lines):
        print(
            "  " + "  ".join(f"{cell:<{width}}" for cell, width in _beside(line, widths)).rstrip()
        )
    print(flush=True)


def _beside(line: Sequence[str], widths: Sequence[int]) -> Iterator[tuple[str, int]]:
    return zip(line, widths, strict=True)


def _say(text: str) -> None:
    print(f"robustness: {text}", file=sys.stderr, flush=True)
