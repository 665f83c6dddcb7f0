from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pgbalise.leaks import open_leak
from tests.leaks.corpus import csv_text


def test_the_name_says_nothing_about_the_format(tmp_path: Path) -> None:
    for name in ("leak.parquet", "leak.zip", "leak.json", "leak", "leak.sql"):
        path = tmp_path / name
        path.write_text(csv_text())
        with open_leak(path) as leak:
            assert (leak.name, leak.tables[0].name) == (name, name)
            assert leak.skipped == ()


def test_libraries_are_imported_when_a_file_needs_them() -> None:
    program = (
        "import sys, pgbalise.leaks; "
        "print({'duckdb', 'python_calamine', 'pgdumplib', 'pandas', 'openpyxl'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n"
