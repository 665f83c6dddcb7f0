"""Nothing leaves unrecorded, whatever dies, fills up or is away."""

from __future__ import annotations

import random
import resource
import struct
import threading
import time
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from pgbalise.registry.store import entries, open_registry, upgrade, verify_registry
from pgbalise.wire import messages as m
from tests.proxy.proxied import Raw, Said, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pgbalise.demo.cluster import ThrowawayCluster
    from pgbalise.registry.ledger import Entry
    from tests.conftest import Connection
    from tests.proxy.proxied import Proxy

EXTRACTS = 50


def registry(empty_db: Connection, cluster: ThrowawayCluster) -> str:
    """A registry in a database of its own."""
    dsn = cluster.dsn(empty_db.info.dbname)
    with open_registry(dsn) as connection:
        upgrade(connection)
    return dsn


def stored(dsn: str, kind: str) -> list[Entry]:
    """The ledger's entries of a kind, once it was found to be whole."""
    with open_registry(dsn) as connection:
        assert verify_registry(connection, [])[0] == []
        with connection.begin():
            return [entry for entry in entries(connection) if entry.kind == kind]


def take(proxy: Proxy, number: int, got: set[int], start: threading.Barrier) -> None:
    """Take one extract, and note when its first row has come."""
    with suppress(OSError, AssertionError, struct.error), closing(Raw(proxy).socket) as client:
        start.wait(60)
        sql = f"SELECT {', '.join(['id'] * (number + 1))} FROM hospital.patient"
        client.sendall(m.query(sql.encode()))
        data = b""
        while chunk := client.recv(65536):
            data += chunk
            # behind the RowDescription comes the first DataRow
            if len(data) > 5 and len(data) > (at := 1 + struct.unpack_from("!I", data, 1)[0]):
                assert data[at : at + 1] == b"D"
                got.add(number)
            time.sleep(0.005)


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(each, marks=pytest.mark.slow) for each in range(2, 6))]
)
def test_kill_9_during_extracts_loses_and_doubles_none(
    cluster: ThrowawayCluster, guarded: str, empty_db: Connection, tmp_path: Path, seed: int
) -> None:
    dsn = registry(empty_db, cluster)
    top = f'workers = 2\nregistry = "{dsn}"'
    upstream = f'host = "{cluster.host}"'
    got: set[int] = set()
    start = threading.Barrier(EXTRACTS + 1)
    with running(tmp_path, guarded, upstream, top=top) as made:
        threads = [
            threading.Thread(target=take, args=(made, number, got, start))
            for number in range(EXTRACTS)
        ]
        for thread in threads:
            thread.start()
        start.wait(60)
        enough = random.Random(seed).randrange(5, EXTRACTS - 10)
        wait_until(lambda: len(got) > enough)
        made.kill()
        for thread in threads:
            thread.join(20)
    intended = {one["extract"] for one in made.records("intent")}
    with running(tmp_path, guarded, upstream, top=top):
        wait_until(lambda: len(stored(dsn, "outcome")) >= len(intended), 30)
    extracts, outcomes = stored(dsn, "extract"), stored(dsn, "outcome")
    columns = {entry.body["normalised"].split(" FROM ")[0].count("id") - 1 for entry in extracts}
    assert got <= columns
    for found in (extracts, outcomes):
        assert len({entry.body["origin"] for entry in found}) == len(found)
    assert len(extracts) == len(outcomes) == len(columns)


@pytest.fixture
def small(cluster: ThrowawayCluster, guarded: str, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy whose spool may have one megabyte."""
    upstream, more = f'host = "{cluster.host}"', "[ledger]\nmin_free_bytes = 0\nmax_bytes = 1048576"
    with running(tmp_path, guarded, upstream, top="workers = 1", more=more) as made:
        yield made


@contextmanager
def full(proxy: Proxy) -> Iterator[None]:
    """Fill the spool to its limit."""
    ballast = proxy.folder / "spool" / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    yield
    ballast.unlink()


@contextmanager
def unwritable(proxy: Proxy) -> Iterator[None]:
    """Let no process write another byte to a file, as on a full disk."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    for process in proxy.processes():
        process.rlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    yield
    for process in proxy.processes():
        process.rlimit(resource.RLIMIT_FSIZE, unlimited)


@pytest.mark.parametrize("short", [full, unwritable])
def test_what_cannot_be_recorded_does_not_leave(
    small: Proxy, short: Callable[[Proxy], AbstractContextManager[None]]
) -> None:
    def query(number: int) -> Said:
        try:
            with Raw(small) as raw:
                return raw.query(f"SELECT name AS n{number} FROM hospital.patient LIMIT 9")
        except AssertionError as ended:
            # the server's last words come in place of ReadyForQuery
            return Said(ended.args[0] if isinstance(ended.args[0], list) else [])

    assert query(0).rows == 9
    with short(small):
        refused = []
        for number in range(1, 5):
            said = query(number)
            assert said.rows == 0 or any(
                f"n{number} " in one["statement"] for one in small.records("intent")
            )
            refused += said.errors
            time.sleep(0.6)
        assert refused[-1] == "53100"
        with Raw(small) as raw:
            assert raw.query("SELECT * FROM drug").rows == 10
    wait_until(lambda: query(9).rows == 9)
    assert any("n9 " in one["statement"] for one in small.records("intent"))
