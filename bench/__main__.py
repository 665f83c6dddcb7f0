"""Run the measures and write down what they found.

``python -m bench [NAME...] [--source DIR] [--quick]`` runs all of them, or those named, prints a
table as it goes and writes ``bench/results.json``. A measure of somebody else's files needs
``--source``, and is left out of a run of all without it. After a run of some measures the file
keeps what it had of the others. ``--quick`` asks those measures that know how for fewer trials, and
writes nothing. The exit status is 1 when a bar does not hold and 2 for a name that is none or lacks
its source.

A measure is a module of this package with a function ``measure()``, or ``measure(source)``, that
returns or yields entries ``{"name", "value", "unit", "bar", "holds", "how"}``; ``bar`` and
``holds`` are null where there is no bar. To add one, name it in MEASURES, in SOURCED when it
takes a source and in QUICK when it takes ``quick``.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

MEASURES = (
    "tracing",
    "decoding",
    "trace_scale",
    "linkage",
    "linkage_scale",
    "keyless",
    "robustness",
    "throughput",
    "policy_scale",
    "decoy_views",
    "proxy",
    "rewriting",
    "ledger",
    "scan",
    "issuing",
    "decoys",
)
SOURCED = ("rewriting",)
QUICK = ("keyless", "robustness", "issuing")
RESULTS = Path(__file__).with_name("results.json")
FIELDS = ("name", "value", "unit", "bar", "holds", "how")


def main(arguments: list[str]) -> int:
    """Run the named measures, or all; return the exit status."""
    parser = ArgumentParser(prog="bench")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--source", type=Path, metavar="DIR")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(arguments)
    names, source = given.names, given.source
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        print(f"bench: no measure {unknown[0]}; there are {', '.join(MEASURES)}", file=sys.stderr)
        return 2
    without = [name for name in names if name in SOURCED and source is None]
    if without:
        print(f"bench: {without[0]} needs --source; its docstring says which", file=sys.stderr)
        return 2
    wanted = names or [name for name in MEASURES if source or name not in SOURCED]
    kept = _read() if wanted != list(MEASURES) else []
    entries: list[dict[str, Any]] = []
    for name in dict.fromkeys(wanted):
        print(f"\n{name}", flush=True)
        begin = perf_counter()
        options = (source,) if name in SOURCED else ()
        flags = {"quick": True} if given.quick and name in QUICK else {}
        for entry in import_module(f"bench.{name}").measure(*options, **flags):
            if tuple(entry) != FIELDS:
                raise RuntimeError(f"bench.{name}: an entry has the fields {', '.join(entry)}")
            print(_row(entry), flush=True)
            entries.append(entry)
        print(f"  ({perf_counter() - begin:.0f} s)", flush=True)
        # after each measure, so that an interruption loses only the one under way
        if not given.quick:
            _write(kept, entries)
    failed = [entry for entry in entries if entry["holds"] is False]
    bars = sum(entry["bar"] is not None for entry in entries)
    where = "nothing written" if given.quick else RESULTS
    print(f"\n{len(entries)} figures, {bars - len(failed)} of {bars} bars hold: {where}")
    return 1 if failed else 0


def _row(entry: dict[str, Any]) -> str:
    value = f"{entry['value']:,g} {entry['unit']}"
    bar, verdict = "", ""
    if entry["bar"] is not None:
        bar, verdict = f"bar {entry['bar']:,g}", "holds" if entry["holds"] else "FAILS"
    return f"  {entry['name']:<92} {value:>14}  {bar:<10} {verdict}".rstrip()


def _read() -> list[dict[str, Any]]:
    if not RESULTS.exists():
        return []
    entries: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return entries


def _write(kept: list[dict[str, Any]], entries: list[dict[str, Any]]) -> None:
    measured = {entry["name"] for entry in entries}
    merged = [entry for entry in kept if entry["name"] not in measured] + entries
    text = json.dumps(merged, indent=2, ensure_ascii=False)
    RESULTS.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
