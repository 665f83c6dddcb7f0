"""Workbooks (XLSX, XLSM, XLSB, XLS, ODS): every sheet with rows.

They are read in a process of its own, with bounded memory and time: a small workbook can claim
sixteen thousand million cells, and what exhausts the memory would end this process without a word.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pgbalise
from pgbalise.errors import EnvironmentProblem, InvalidLeak
from pgbalise.leaks.columnar import read as read_columnar
from pgbalise.leaks.kind import Kind
from pgbalise.leaks.table import LeakTable

_CHILD: Final = "pgbalise.leaks.workbook"
_SECONDS: Final = 1_000


def read(path: Path, name: str, folder: Path) -> list[LeakTable]:
    """Return the sheets of a workbook that have rows.

    Raise InvalidLeak when the workbook cannot be read or is encrypted, EnvironmentProblem without
    python-calamine.
    """
    if find_spec("python_calamine") is None:
        raise EnvironmentProblem(
            "reading workbooks needs python-calamine", hint="run: pip install 'pgbalise[leaks]'"
        )
    # The child finds the packages where this process found them.
    found = [str(Path(pgbalise.__file__).parents[1]), *sys.path]
    command = [sys.executable, "-m", _CHILD, str(path), str(folder)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, found))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InvalidLeak(f"{name}: the workbook takes too long to read") from None
    if done.returncode:
        raise InvalidLeak(f"{name}: {_reason(done.stdout)}")
    tables = []
    for sheet, file, named in json.loads(done.stdout)["sheets"]:
        (table,) = read_columnar(Path(file), f"{name}: {sheet}", Kind.ARROW_FILE)
        tables.append(replace(table, named=named))
    if not tables:
        raise InvalidLeak(f"{name}: the workbook has no rows")
    return tables


def _reason(output: bytes) -> str:
    return {
        b"encrypted": "the workbook is encrypted: save it without a password first",
        b"memory": "the workbook takes too much memory to read",
    }.get(output.strip(), "the workbook is damaged, or holds no table")
