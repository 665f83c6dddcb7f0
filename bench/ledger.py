"""What the ledger costs: records durable on this disk, delivered to a registry, found again.

``python -m bench ledger`` writes to the folder for temporary files (TMPDIR), so that is the disk
that it measures. The registry is a server of its own that waits for its disk, with 100,000 entries:
50,000 extracts of 200 recipients and their outcomes.
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import sqlalchemy as sa

from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.proxy.courier import Courier
from pgbalise.proxy.spool import Spool
from pgbalise.registry.extracts import listed
from pgbalise.registry.ledger import instant
from pgbalise.registry.store import open_registry, upgrade

EXTRACTS = 50_000
SYNCS = 300
SECONDS = 3.0
ROUNDS = 5
RELATIONS = {"hospital.patient": 50.0, "hospital.lab": 30.0, "hospital.stay": 19.5, "h.rare": 0.5}
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
HOW = "python -m bench ledger"


def measure() -> list[dict[str, Any]]:
    """Return the figures."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        found = [_entry("time of one fdatasync, median", 1e3 * _sync(directory), "ms")]
        for count in (1, 8, 64):
            rate = _durable(directory, count)
            found.append(_entry(f"records made durable, {count} waiting at a time", rate, "/s"))
    with tempfile.TemporaryDirectory() as place, _server() as server:
        _fill(Path(place))
        with open_registry(server.dsn()) as registry:
            upgrade(registry)
        begin = perf_counter()
        done = Courier(Path(place), server.dsn()).deliver_once()
        rate = done.entries / (perf_counter() - begin)
        found.append(_entry("entries delivered to a registry", rate, "/s"))
        with open_registry(server.dsn()) as registry:
            # as autovacuum does
            for statement in (
                "SELECT gin_clean_pending_list('balise_registry.ix_entry_body')",
                "ANALYZE balise_registry.entry",
            ):
                with registry.begin():
                    registry.execute(sa.text(statement))
            day = {"since": BEGIN + timedelta(days=10), "until": BEGIN + timedelta(days=11)}
            for what, filters in (
                (
                    "a day of a relation that half of all touched",
                    {"relations": ["hospital.patient"]},
                ),
                ("a day of a relation that few touched", {"relations": ["h.rare"]}),
            ):
                seconds = _listed(registry, **filters, **day)
                name = f"ledger list among {2 * EXTRACTS:,} entries: {what}"
                found.append(_entry(name, 1e3 * seconds, "ms"))
    return found


def _entry(name: str, value: float, unit: str) -> dict[str, Any]:
    figures = {"name": name, "value": round(value, 2), "unit": unit}
    return {**figures, "bar": None, "holds": None, "how": HOW}


def _server() -> ThrowawayCluster:
    return ThrowawayCluster(settings={"fsync": "on", "synchronous_commit": "on"})


def _intent(number: int, relation: str) -> dict[str, Any]:
    extract = hashlib.sha256(b"%d" % number).hexdigest()[:32]
    statement = f"SELECT p.id, p.birth_date, p.weight FROM {relation} p WHERE p.id = $1"
    return {
        "type": "intent",
        "at": instant(BEGIN + timedelta(seconds=30 * number)),
        "extract": extract,
        "session": extract,
        "recipient": f"recipient_{number % 200}",
        "class": "secondary",
        "database": "dpi",
        "system": "7412345678901234567",
        "client": f"192.0.2.{number % 250}",
        "application_name": "report",
        "statement": statement,
        "statement_hash": hashlib.sha256(statement.encode()).hexdigest(),
        "relations": [{"relation": relation, "carriers": ["birth_date", "weight"]}],
        "epoch": 1,
        "kind": "select",
    }


def _sync(directory: Path) -> float:
    line = b"x" * 600
    file = os.open(directory / "sync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    times = []
    for _ in range(SYNCS):
        os.write(file, line)
        begin = perf_counter()
        os.fdatasync(file)
        times.append(perf_counter() - begin)
    os.close(file)
    return median(times)


def _durable(directory: Path, count: int) -> float:
    spool = Spool(directory, min_free_bytes=0, max_bytes=2**40)
    spool.start()
    end = perf_counter() + SECONDS
    done = [0] * count

    def next_of(thread: int) -> Callable[[object], None]:
        def told(problem: object) -> None:
            assert problem is None
            done[thread] += 1
            if perf_counter() < end:
                spool.append(record, told)
            else:
                finished.release()

        return told

    record = _intent(0, "hospital.patient")
    finished = threading.Semaphore(0)
    for thread in range(count):
        spool.append(record, next_of(thread))
    for _ in range(count):
        finished.acquire()
    spool.close()
    return sum(done) / SECONDS


def _fill(directory: Path) -> None:
    chosen = random.Random(1).choices([*RELATIONS], [*RELATIONS.values()], k=EXTRACTS)
    spool = Spool(directory, min_free_bytes=0, max_bytes=2**40)
    spool.start()
    for number, relation in enumerate(chosen):
        intent = _intent(number, relation)
        spool.append(intent)
        ended = instant(BEGIN + timedelta(seconds=30 * number + number % 100))
        counts = {"executions": number % 7 + 1, "rows": number % 1000, "bytes": number}
        times = {"at": ended, "started_at": intent["at"], "ended_at": ended}
        told = {"type": "outcome", "extract": intent["extract"], "outcome": "complete"}
        spool.append(told | counts | times)
    spool.close()


def _listed(registry: sa.Connection, **filters: Any) -> float:
    times = []
    for _ in range(ROUNDS):
        begin = perf_counter()
        with registry.begin():
            assert list(listed(registry, **filters))
        times.append(perf_counter() - begin)
    return median(times)
