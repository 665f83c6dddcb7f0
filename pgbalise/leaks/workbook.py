"""The process that reads a workbook: ``python -m pgbalise.leaks.workbook FILE FOLDER``.

It writes each sheet with rows into the folder, as an Arrow file, and prints a JSON object that
lists them; or it fails, and prints one word that says why.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.ipc

from pgbalise.leaks.header import TYPED, is_header, numbered, unique
from pgbalise.leaks.spool import text_batches

_MEMORY: Final = 6 << 30
_SECONDS: Final = 900
_PREAMBLE: Final = 50


def _child(path: Path, folder: Path) -> int:
    from python_calamine import CalamineWorkbook, PasswordError

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    sheets = []
    try:
        with CalamineWorkbook.from_path(path) as workbook:
            for number, sheet in enumerate(workbook.sheet_names):
                rows = workbook.get_sheet_by_name(sheet).to_python()
                columns, named, body = table_of([[_text(cell) for cell in row] for row in rows])
                if not body:
                    continue
                target = folder / f"{path.name}.sheet-{number}"
                schema = pa.schema([(column, pa.string()) for column in columns])
                with pyarrow.ipc.new_file(target, schema) as writer:
                    for batch in text_batches(body, columns):
                        writer.write_batch(batch)
                sheets.append((sheet, str(target), named))
    except PasswordError:
        sys.stdout.write("encrypted")
        return 1
    except MemoryError:
        sys.stdout.write("memory")
        return 1
    json.dump({"sheets": sheets}, sys.stdout)
    return 0


def _text(cell: Any) -> str | None:
    if cell is None or cell == "":
        return None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        # A workbook has one kind of number: 12 and 12.0 are the same in it.
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, datetime):
        return cell.isoformat(" ")
    return cell.isoformat() if isinstance(cell, (date, time)) else str(cell)


def table_of(
    rows: Sequence[Sequence[str | None]],
) -> tuple[tuple[str, ...], bool, list[Sequence[str | None]]]:
    """Return a sheet's columns, whether it names them, and its rows.

    Blank rows, columns that have neither a name nor a value, and titles above the table are left
    out.
    """
    filled = [row for row in rows if any(row)]
    if not filled:
        return (), False, []
    used = [n for n in range(len(filled[0])) if any(row[n] for row in filled)]
    filled = [[row[n] for n in used] for row in filled]
    start = 0
    while (
        len(used) > 2
        and start < min(_PREAMBLE, len(filled) - 1)
        and sum(1 for cell in filled[start] if cell) < 2
    ):
        start += 1
    first, body = filled[start], filled[start + 1 :]
    if not body and not any(cell and TYPED.fullmatch(cell) for cell in first):
        return (), False, []
    if is_header(first, body):
        return unique(first), True, [row for row in body if row != first]
    return numbered(len(used)), False, filled[start:]


if __name__ == "__main__":
    sys.exit(_child(Path(sys.argv[1]), Path(sys.argv[2])))
