"""Records as the proxy writes them, and a process that writes them until it is killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from pgbalise.proxy.backlog import Backlog, read_lines

AT = "2026-01-31T12:00:00.000000Z"
STATEMENT = "SELECT id, birth_date FROM hospital.patient WHERE id = $1"

WRITER = """
import itertools, os, sys
from pathlib import Path
from pgbalise.proxy.spool import Spool
sys.path.insert(0, 'tests/proxy')
from records import intent, name, progress
spool = Spool(Path(sys.argv[1]), min_free_bytes=0, max_bytes=2**30, file_bytes=2**16)
spool.start()
def durable(extract):
    def told(problem):
        assert problem is None
        os.write(1, (extract + "\\n").encode())
    return told
for n in itertools.count():
    extract = name(f"{os.getpid()}/{n}")
    spool.append(intent(extract), durable(extract))
    spool.append(progress(extract, n))
    if n % 64 == 0:
        os.sched_yield()
"""


def name(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def intent(extract: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "intent",
        "at": AT,
        "extract": extract,
        "session": name("session"),
        "recipient": "registry_rennes",
        "class": "secondary",
        "database": "dpi",
        "system": "7412345678901234567",
        "client": "192.0.2.7",
        "application_name": "report",
        "statement": STATEMENT,
        "statement_hash": hashlib.sha256(STATEMENT.encode()).hexdigest(),
        "relations": [{"relation": "hospital.patient", "carriers": ["birth_date"]}],
        "epoch": 1,
        "kind": "select",
        **more,
    }


def progress(extract: str, rows: int) -> dict[str, Any]:
    counts = {"executions": 1, "rows": rows, "bytes": 10 * rows}
    return {"type": "progress", "at": AT, "extract": extract, **counts}


def outcome(extract: str, rows: int = 3, **more: Any) -> dict[str, Any]:
    times = {"started_at": AT, "ended_at": "2026-01-31T12:00:09.000000Z"}
    return progress(extract, rows) | times | {"type": "outcome", "outcome": "complete", **more}


def spool_directory(parent: Path) -> Path:
    directory = parent / "spool"
    directory.mkdir(mode=0o700)
    return directory


def written(directory: Path) -> list[Any]:
    """The records of every file, in order; None for a line that is none."""
    return [line.record for path in Backlog(directory).files() for line in read_lines(path, 0)]


def killed_writers(directory: Path, project: Path, count: int, enough: int) -> set[str]:
    """Let processes write, kill -9 them, return the extracts that they were told are durable."""
    command = [sys.executable, "-c", WRITER, str(directory)]
    processes = [
        subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE) for _ in range(count)
    ]
    told = b""
    for process in processes:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(enough)]
        os.kill(process.pid, signal.SIGKILL)
        told += b"".join(lines) + process.stdout.read()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    return {line for line in told.decode().splitlines() if len(line) == 32}
