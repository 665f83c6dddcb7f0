"""A step of a benchmark in a process of its own, so that its peak memory is that of it alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Step = Callable[..., dict[str, Any]]


def run_apart(module: str, *arguments: object) -> dict[str, Any]:
    """Run ``python -m module ARGUMENTS`` and return the JSON object that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=Path(__file__).resolve().parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def answer(steps: dict[str, Step]) -> None:
    """In that process: run the step that is asked for, in a folder, and print what it returns."""
    step, place, *numbers = sys.argv[1:]
    print(json.dumps(steps[step](Path(place), *map(int, numbers))))


def peak_mebibytes() -> float:
    """Return this process's own peak resident set.

    getrusage() would do, but for a child it starts at the peak of the process that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024
