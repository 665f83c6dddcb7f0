"""From the disk to the registry: all of it, once, whatever is killed or away in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.errors import DatabaseProblem, SpoolProblem
from pgbalise.proxy.backlog import Backlog
from pgbalise.proxy.courier import Courier
from pgbalise.proxy.spool import Spool
from pgbalise.registry.ledger import Entry
from pgbalise.registry.store import entries, open_registry, upgrade, verify_registry
from tests.proxy.records import AT, intent, killed_writers, name, outcome, progress
from tests.proxy.records import spool_directory as make_directory


@pytest.fixture
def registry_dsn(cluster: ThrowawayCluster, empty_db: psycopg.Connection[Any]) -> str:
    dsn = cluster.dsn(empty_db.info.dbname)
    with open_registry(dsn) as connection:
        upgrade(connection)
    return dsn


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_directory(tmp_path)


@pytest.fixture
def spool(directory: Path) -> Iterator[Spool]:
    made = Spool(directory, min_free_bytes=0, max_bytes=2**30, file_bytes=4000)
    made.start()
    yield made
    made.close()


def write(spool: Spool, *records: dict[str, Any]) -> None:
    done = threading.Semaphore(0)
    for record in records:
        spool.append(record, lambda _: done.release())
    for _ in records:
        assert done.acquire(timeout=20)


def stored(dsn: str) -> list[Entry]:
    with open_registry(dsn) as registry:
        assert verify_registry(registry, [])[0] == []
        with registry.begin():
            return list(entries(registry))


def origins(dsn: str) -> list[str]:
    return [entry.body["origin"] for entry in stored(dsn)]


def named(kind: str, *extracts: object) -> set[str]:
    return {f"{kind}:{name(str(extract))}" for extract in extracts}


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def running(courier: Courier) -> Iterator[Courier]:
    stop = threading.Event()
    thread = threading.Thread(target=courier.run, args=(stop,))
    thread.start()
    try:
        yield courier
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_extracts_reach_the_registry_with_their_outcomes(
    directory: Path, spool: Spool, registry_dsn: str
) -> None:
    ids = [name(str(n)) for n in range(30)]
    with running(Courier(directory, registry_dsn)) as courier:
        for extract in ids:
            write(spool, intent(extract), progress(extract, 1), outcome(extract))
        eventually(lambda: courier.figures().delivered == 60)
        spool.close()
        eventually(lambda: not Backlog(directory).files())
        figures = courier.figures()
    assert (figures.waiting_bytes, figures.oldest_seconds, figures.error) == (0, 0, None)
    assert origins(registry_dsn) == [
        f"{kind}:{extract}" for extract in ids for kind in ("extract", "outcome")
    ]


def test_what_is_written_last_is_delivered_before_the_courier_stops(
    directory: Path, spool: Spool, registry_dsn: str
) -> None:
    with running(Courier(directory, registry_dsn)) as courier:
        write(spool, intent(name("a")))
        eventually(lambda: courier.figures().delivered == 1)
        write(spool, outcome(name("a")))
        spool.close()
    assert len(origins(registry_dsn)) == 2


def test_after_kill_9_every_durable_intent_is_in_the_ledger_once(
    directory: Path, project: Path, registry_dsn: str
) -> None:
    durable = killed_writers(directory, project, count=2, enough=300)
    first = Courier(directory, registry_dsn).deliver_once()
    found = origins(registry_dsn)
    assert len(found) == len(set(found)) == first.entries
    assert {f"extract:{extract}" for extract in durable} <= set(found)
    ends = [entry.body for entry in stored(registry_dsn) if entry.kind == "outcome"]
    # nobody lived to say what became of them, only what was under way
    assert {end["outcome"] for end in ends} == {"unknown"}
    assert len(ends) == first.unknown == first.entries / 2
    assert sum(end["rows"] > 0 for end in ends) > 100
    assert all(end["started_at"] == AT < end["ended_at"] for end in ends)
    again = Courier(directory, registry_dsn).deliver_once()
    assert (again.entries, again.unknown) == (0, 0)
    (directory / "offsets.json").unlink()
    assert Courier(directory, registry_dsn).deliver_once().entries == 0
    assert origins(registry_dsn) == found


def test_a_delivery_that_is_killed_again_and_again_records_everything_once(
    directory: Path, spool: Spool, registry_dsn: str, project: Path
) -> None:
    ids = [name(str(n)) for n in range(2500)]
    write(spool, *(record for extract in ids for record in (intent(extract), outcome(extract))))
    spool.close()
    command = [sys.executable, "-m", "pgbalise", "ledger", "deliver", "--spool", str(directory)]
    count = "SELECT count(*) FROM balise_registry.entry"
    with psycopg.connect(registry_dsn, autocommit=True) as watching:

        def recorded() -> int:
            [(found,)] = watching.execute(count.encode())
            return int(found)

        for _ in range(2):
            before = recorded()
            with subprocess.Popen([*command, "--registry", registry_dsn], cwd=project) as process:
                eventually(lambda before=before: recorded() > before)
                os.kill(process.pid, signal.SIGKILL)
        assert recorded() < 5000
    done = subprocess.run(
        [*command, "--registry", registry_dsn, "--json"], cwd=project, capture_output=True
    )
    assert json.loads(done.stdout)["waiting_bytes"] == 0
    assert origins(registry_dsn) == [
        f"{kind}:{extract}" for extract in ids for kind in ("extract", "outcome")
    ]


def test_a_registry_that_is_away_costs_a_delay_and_nothing_else(directory: Path) -> None:
    seen: list[Any] = []
    spool = Spool(directory, min_free_bytes=0, max_bytes=2**30, file_bytes=4000)
    spool.start()
    with ThrowawayCluster() as server:
        with open_registry(server.dsn()) as connection:
            upgrade(connection)
        with running(Courier(directory, server.dsn(), observe=seen.extend)) as courier:
            write(spool, intent(name("0")))
            eventually(lambda: courier.figures().delivered == 1)
            server.stop(immediate=True)
            for n in range(1, 40):
                write(spool, intent(name(str(n))))
            # watching goes on
            eventually(lambda: len(seen) == 40)
            eventually(lambda: courier.figures().error is not None)
            figures = courier.figures()
            assert figures.waiting_bytes > 39 * 400
            assert figures.oldest_seconds > 3600
            server.start()
            write(spool, *(outcome(name(str(n))) for n in range(40)))
            eventually(lambda: courier.figures().delivered == 80)
            eventually(lambda: courier.figures().error is None)
            spool.close()
            eventually(lambda: not Backlog(directory).files())
        found = origins(server.dsn())
    assert len(found) == 80
    assert set(found) == named("extract", *range(40)) | named("outcome", *range(40))


def test_without_a_registry_records_stay_and_are_watched(directory: Path, spool: Spool) -> None:
    seen: list[Any] = []
    write(spool, *(intent(name(str(n))) for n in range(20)))
    with running(Courier(directory, observe=seen.extend)) as courier:
        eventually(lambda: len(seen) == 20)
        assert courier.figures().waiting_bytes > 20 * 400
    assert seen == [intent(name(str(n))) for n in range(20)]
    # what was shown before a restart is not shown again
    with running(Courier(directory, observe=seen.extend)):
        write(spool, outcome(name("3")))
        eventually(lambda: len(seen) == 21)
    assert seen[20:] == [outcome(name("3"))]


def test_an_extract_that_outlives_its_file_is_not_forgotten(
    directory: Path, spool: Spool, registry_dsn: str
) -> None:
    with running(Courier(directory, registry_dsn)):
        write(spool, intent(name("long")), intent(name("lost")), progress(name("lost"), 77))
        first = Backlog(directory).files()[0]
        for n in range(30):
            write(spool, intent(name(str(n))), outcome(name(str(n))))
        eventually(lambda: not first.exists())
    # another courier, which can no longer read when they began
    with running(Courier(directory, registry_dsn)) as courier:
        write(spool, outcome(name("long"), 5))
        eventually(lambda: courier.figures().delivered == 1)
        spool.close()
        eventually(lambda: courier.figures().delivered == 2)
    ends = {
        entry.body["extract"]: (entry.body["outcome"], entry.body["rows"])
        for entry in stored(registry_dsn)
        if entry.kind == "outcome"
    }
    assert ends[name("long")] == ("complete", 5)
    assert ends[name("lost")] == ("unknown", 77)
    assert len(ends) == 32


def test_what_is_under_way_is_not_given_up_for_lost(
    directory: Path, spool: Spool, registry_dsn: str
) -> None:
    write(spool, *(intent(name(str(n))) for n in range(20)))
    done = Courier(directory, registry_dsn).deliver_once()
    assert (done.entries, done.unknown) == (20, 0)
    spool.close()
    assert Courier(directory, registry_dsn).deliver_once().unknown == 20


def test_a_damaged_line_is_set_aside_and_keeps_nothing_up(
    directory: Path, registry_dsn: str
) -> None:
    lines = [
        json.dumps(intent(name("a"))),
        '{"type": "intent", "extract": "Dupont"',
        json.dumps(intent("Dupont")),
        json.dumps({"type": "future"}),
        json.dumps(intent(name("b"), application_name="nul \0 half \ud800")),
        json.dumps(outcome(name("b"), outcome="splendid")),
    ]
    path = directory / "20260131T120000.000000Z-1-0123456789abcdef.jsonl"
    path.write_text("\n".join(lines) + '\n{"torn')
    done = Courier(directory, registry_dsn).deliver_once()
    # the last two: what became of a and b
    assert (done.entries, done.damaged, done.unknown) == (4, 4, 2)
    assert path.with_suffix(".damaged").read_text().splitlines() == [*lines[1:4], lines[5]]
    found = stored(registry_dsn)
    assert {entry.body["origin"] for entry in found[:2]} == named("extract", "a", "b")
    assert found[1].body["application"] == "nul \ufffd half \ufffd"
    assert Courier(directory, registry_dsn).deliver_once().damaged == 0


def test_alerts_are_handed_on_and_files_wait_for_whoever_watches(
    directory: Path, spool: Spool, registry_dsn: str
) -> None:
    alert = {"type": "alert", "at": AT, "kind": "decoy", "alert": name("alert")}
    write(spool, intent(name("a")), alert, outcome(name("a")))
    spool.close()
    # delivered by hand: nobody was shown the alert
    assert Courier(directory, registry_dsn).deliver_once().files == 0
    seen: list[Any] = []
    with running(Courier(directory, registry_dsn, alerts=seen.extend)):
        eventually(lambda: not Backlog(directory).files())
    assert seen == [alert]


def test_an_observer_that_fails_sees_the_records_again_and_is_given_up_in_the_end(
    directory: Path, spool: Spool, registry_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgbalise.proxy.courier._ROUND", 0.05)
    tries: list[int] = []

    def observe(records: Any) -> None:
        tries.append(len(records))
        if len(tries) < 13:
            raise ValueError("Dupont")

    with running(Courier(directory, registry_dsn, observe=observe)) as courier:
        write(spool, intent(name("a")))
        eventually(lambda: courier.figures().observe_error == "ValueError")
        eventually(lambda: courier.figures().unobserved == 1)
        write(spool, outcome(name("a")))
        eventually(lambda: len(tries) == 13)
        eventually(lambda: courier.figures().observe_error is None)
        assert courier.figures().unobserved == 1
        eventually(lambda: courier.figures().delivered == 2)


def test_one_courier_at_a_time(directory: Path, spool: Spool, registry_dsn: str) -> None:
    write(spool, intent(name("a")))
    with running(Courier(directory, registry_dsn)) as courier:
        eventually(lambda: courier.figures().delivered == 1)
        with pytest.raises(SpoolProblem, match="somebody else"):
            Courier(directory, registry_dsn).deliver_once()
        with running(Courier(directory, registry_dsn)) as other:
            eventually(lambda: "somebody else" in (other.figures().error or ""))


def test_a_registry_that_is_not_one_is_told_and_nothing_lost(
    directory: Path, spool: Spool, cluster: ThrowawayCluster, empty_db: psycopg.Connection[Any]
) -> None:
    dsn = cluster.dsn(empty_db.info.dbname)
    write(spool, intent(name("a")))
    with pytest.raises(DatabaseProblem, match="registry upgrade"):
        Courier(directory, dsn).deliver_once()
    with running(Courier(directory, dsn)) as courier:
        eventually(lambda: "no registry" in (courier.figures().error or ""))
        with open_registry(dsn) as connection:
            upgrade(connection)
        eventually(lambda: courier.figures().delivered == 1)
        eventually(lambda: courier.figures().error is None)


def test_a_long_backlog_is_delivered_in_bounded_memory(
    directory: Path, registry_dsn: str, empty_db: psycopg.Connection[Any]
) -> None:
    import tracemalloc

    # a day's backlog is larger still; what is held does not depend on it
    path = directory / "20260131T120000.000000Z-1-0123456789abcdef.jsonl"
    with path.open("w") as lines:
        for n in range(30_000):
            lines.write(json.dumps(progress(name(str(n)), n), separators=(",", ":")) + " " * 900)
            lines.write("\n")
        for n in range(20):
            lines.write(json.dumps(intent(name(str(n)), statement="x" * 65_000)) + "\n")
            lines.write(json.dumps(outcome(name(str(n)))) + "\n")
    courier = Courier(directory, registry_dsn)
    tracemalloc.start()
    done = courier.deliver_once()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.entries == 40
    assert peak < 20 * 2**20 < path.stat().st_size


def test_a_copy_of_a_file_is_not_recorded_again(directory: Path, registry_dsn: str) -> None:
    # the same records in two files, as a copied directory has them
    text = "".join(json.dumps(record) + "\n" for record in (intent(name("a")), outcome(name("a"))))
    for at in ("1", "2"):
        (directory / f"2026013{at}T120000.000000Z-{at}-0123456789abcdef.jsonl").write_text(text)
    assert Courier(directory, registry_dsn).deliver_once().entries == 2
    with open_registry(registry_dsn) as registry, registry.begin():
        count = registry.execute(sa.text("SELECT count(*) FROM balise_registry.entry"))
        assert count.scalar_one() == 2


def test_a_courier_does_not_show_its_connection_string(directory: Path) -> None:
    assert "hunter2" not in repr(Courier(directory, "host=/tmp password=hunter2"))
