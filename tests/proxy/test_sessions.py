"""Sessions through a running proxy: what moves, what is limited, and how they end."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.demo.servers import installation
from pgbalise.wire import messages as m
from tests.proxy.proxied import Raw, build, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.proxy.proxied import Proxy

FLOOD = "SELECT repeat('x', 100000) FROM generate_series(1, 10000)"


@contextmanager
def own(
    cluster: ThrowawayCluster, guarded: str, folder: Path, more: str = "", workers: int = 1
) -> Iterator[Proxy]:
    """A proxy that one test has for itself."""
    top = f"workers = {workers}"
    with running(folder, guarded, f'host = "{cluster.host}"', top=top, more=more) as made:
        yield made


def test_any_worker_hands_a_cancel_request_on(front: Proxy) -> None:
    for _ in range(4):
        connection = front.connect()
        threading.Timer(0.2, connection.cancel_safe).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(10)")
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_notifications_arrive_unasked(front: Proxy) -> None:
    listener, sender = front.connect(), front.connect()
    listener.execute("LISTEN ward")
    sender.execute("NOTIFY ward, 'bed 4'")
    [notice] = listener.notifies(timeout=5, stop_after=1)
    assert (notice.channel, notice.payload) == ("ward", "bed 4")


@pytest.mark.parametrize("options", ["", "(FORMAT csv)", "(FORMAT binary)"])
def test_copies_go_in_and_out(front: Proxy, options: str) -> None:
    connection = front.connect()
    connection.execute(
        "CREATE TEMP TABLE bulk AS SELECT i, 'row ' || i AS t FROM generate_series(1, 100000) AS i"
    )
    cursor = connection.cursor()
    with cursor.copy(f"COPY bulk TO STDOUT {options}".encode()) as out:
        data = b"".join(out)
    connection.execute("CREATE TEMP TABLE again (i int, t text)")
    with cursor.copy(f"COPY again FROM STDIN {options}".encode()) as into:
        for at in range(0, len(data), 70_001):
            into.write(data[at : at + 70_001])
    rows = connection.execute("TABLE bulk EXCEPT TABLE again").fetchall()
    assert (rows, cursor.rowcount) == ([], 100_000)


def test_large_objects_are_read_by_functions(front: Proxy) -> None:
    connection = front.connect()
    [(oid,)] = connection.execute("SELECT lo_from_bytea(0, %s)", (b"x" * 10_000,)).fetchall()
    [(data,)] = connection.execute("SELECT lo_get(%s)", (oid,)).fetchall()
    assert bytes(data) == b"x" * 10_000
    connection.execute("SELECT lo_unlink(%s)", (oid,))


def test_a_parameter_may_have_64_megabytes(front: Proxy) -> None:
    value = os.urandom(64 << 20)
    [(size,)] = front.connect().execute("SELECT length(%s::bytea)", (value,)).fetchall()
    assert size == len(value)


def test_a_statement_may_be_as_long_as_is_configured(front: Proxy) -> None:
    connection = front.connect()
    [(size,)] = connection.execute(f"SELECT length('{'x' * 1_000_000}')".encode()).fetchall()
    assert size == 1_000_000
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="statement_bytes"):
        connection.execute(f"SELECT length('{'x' * (17 << 20)}')".encode())


def test_a_client_that_vanishes_is_an_outcome(front: Proxy) -> None:
    raw = Raw(front, application_name="vanished")
    raw.socket.sendall(m.query(b"SELECT pg_sleep(0.001), * FROM hospital.patient"))
    raw.socket.recv(10)
    raw.socket.close()
    [intent] = front.intents("vanished")
    assert front.outcome(intent["extract"])["outcome"] == "disconnected"


def test_what_left_before_the_client_hung_up_is_counted(front: Proxy) -> None:
    raw = Raw(front, application_name="hung up")
    many = b"SELECT p.* FROM hospital.patient AS p, generate_series(1, 100000)"
    raw.socket.sendall(m.query(b"COPY (" + many + b") TO STDOUT"))
    got = b""
    while len(got) < 1_000_000:
        got += raw.socket.recv(65536)
    raw.socket.close()
    [intent] = front.intents("hung up")
    outcome = front.outcome(intent["extract"])
    assert outcome["outcome"] == "disconnected"
    assert outcome["rows"] >= got.count(b"\n") - 1
    assert outcome["bytes"] >= 900_000
    assert outcome["executions"] == 0


def test_a_long_copy_tells_of_its_progress(
    cluster: ThrowawayCluster, guarded: str, tmp_path: Path
) -> None:
    with own(cluster, guarded, tmp_path, more="[ledger]\noutcome_seconds = 1") as made:
        raw = Raw(made, application_name="slow")
        many = b"SELECT p.* FROM hospital.patient AS p, generate_series(1, 100000)"
        raw.socket.sendall(m.query(b"COPY (" + many + b") TO STDOUT"))
        raw.socket.recv(65536)
        wait_until(lambda: made.records("progress"))
        first = made.records("progress")[0]
        assert first["rows"] > 0
        assert first["executions"] == 0
        raw.socket.close()
        outcome = made.outcome(first["extract"])
        assert outcome["rows"] >= first["rows"]


def test_leaving_in_the_midst_is_no_completion(front: Proxy) -> None:
    with Raw(front, application_name="left") as raw:
        statement = m.query(b"SELECT pg_sleep(0.001), * FROM hospital.patient")
        raw.socket.sendall(statement + m.TERMINATE)
        wait_until(lambda: front.intents("left"))
        [intent] = front.intents("left")
        assert front.outcome(intent["extract"])["outcome"] == "disconnected"


def test_a_new_application_name_is_recorded(front: Proxy) -> None:
    connection = front.connect(application_name="one")
    connection.execute("SET application_name TO 'renamed'")
    connection.execute("SELECT 1 FROM hospital.patient LIMIT 1")
    assert front.intents("one") == []
    assert len(front.intents("renamed")) == 1


def test_a_client_that_does_not_read_costs_no_memory(front: Proxy) -> None:
    raw = Raw(front)
    before = max(each.memory_info().rss for each in front.processes())
    raw.socket.sendall(m.query(FLOOD.encode()))
    peak = 0
    for _ in range(20):
        time.sleep(0.05)
        peak = max(peak, *(each.memory_info().rss for each in front.processes()))
    assert peak - before < 20 << 20
    raw.socket.close()


@pytest.mark.slow
def test_a_gigabyte_passes_a_slow_reader(front: Proxy) -> None:
    with Raw(front) as raw:
        before = max(each.memory_info().rss for each in front.processes())
        raw.socket.sendall(m.query(FLOOD.encode()))
        received = peak = 0
        while chunk := raw.socket.recv(1 << 20):
            received += len(chunk)
            if received % 50 == 0:
                time.sleep(0.01)
                peak = max(peak, *(each.memory_info().rss for each in front.processes()))
            if chunk.endswith(b"Z\0\0\0\x05I"):
                break
    assert received > 10_000 * 100_000
    assert peak - before < 20 << 20


def test_connections_are_limited(cluster: ThrowawayCluster, guarded: str, tmp_path: Path) -> None:
    limits = (
        "[limits]\nconnections = 4\nconnections_per_role = 2\nconnections_per_address = 3\n"
        "startup_seconds = 1"
    )
    with own(cluster, guarded, tmp_path, limits) as made:
        first, second = made.connect(), made.connect()
        with pytest.raises(psycopg.OperationalError, match="for this role"):
            made.connect()
        made.connect("other")
        with pytest.raises(psycopg.OperationalError, match="too many connections"):
            made.connect("clerk")
        first.close()
        wait_until(lambda: _lets_in(made, "reader"))
        second.close()
        # who says nothing has no place for long
        with socket.create_connection(("127.0.0.1", made.port), timeout=10) as silent:
            assert m.error_fields(silent.recv(1000)[5:])["C"] == "57014"


def _lets_in(proxy: Proxy, user: str) -> bool:
    with suppress(psycopg.OperationalError):
        proxy.connect(user)
        return True
    return False


def test_a_stopping_proxy_lets_what_runs_finish(
    cluster: ThrowawayCluster, guarded: str, tmp_path: Path
) -> None:
    with own(cluster, guarded, tmp_path, workers=2) as made:
        idle, busy, open_one = Raw(made), made.connect(), made.connect()
        open_one.execute("BEGIN")
        done: list[object] = []
        thread = threading.Thread(
            target=lambda: done.append(busy.execute("SELECT pg_sleep(1), 7").fetchall()[0][1])
        )
        thread.start()
        time.sleep(0.3)
        made.process.send_signal(signal.SIGTERM)
        kind, body = idle.message()
        assert (kind, m.error_fields(body)["C"]) == (b"E", "57P01")
        idle.socket.close()
        assert open_one.execute("SELECT 5").fetchall() == [(5,)]
        open_one.execute("COMMIT")
        thread.join(10)
        assert done == [7]
        assert made.process.wait(15) == 0


def test_a_changed_configuration_is_read(
    cluster: ThrowawayCluster, guarded: str, tmp_path: Path
) -> None:
    with own(cluster, guarded, tmp_path) as made:
        kept = made.connect()
        call = "SELECT query_to_xml('SELECT 1', true, true, '')"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            kept.execute(call.encode())
        with (tmp_path / "proxy.toml").open("a") as file:
            file.write(
                '[limits]\nconnections = 1\n[rewrite]\nfunctions = ["query_to_xml"]\n'
                "refresh_seconds = 1\n"
            )
        made.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not _lets_in(made, "reader"))

        def allowed() -> bool:
            with suppress(psycopg.errors.InsufficientPrivilege):
                kept.execute(call.encode())
                return True
            return False

        wait_until(allowed)


def test_a_server_that_goes_takes_its_sessions_and_no_more(
    cluster: ThrowawayCluster, front: Proxy
) -> None:
    connection = front.connect(application_name="terminated")
    other = front.connect()
    pid = connection.info.backend_pid
    cluster.psql(f"SELECT pg_terminate_backend({pid})")
    with pytest.raises(psycopg.errors.AdminShutdown):
        connection.execute("SELECT 1")
    assert other.execute("SELECT 1").fetchall() == [(1,)]


def test_no_process_is_left(cluster: ThrowawayCluster, guarded: str, tmp_path: Path) -> None:
    with own(cluster, guarded, tmp_path, workers=2) as made:
        found = made.processes()
        assert len(found) >= 3
        made.connect()
    _, alive = psutil.wait_procs(found, timeout=5)
    assert alive == []


def test_a_server_that_dies_in_the_midst_is_an_error(
    cluster: ThrowawayCluster, front: Proxy
) -> None:
    reader = front.connect(application_name="killed")
    pid = reader.info.backend_pid
    threading.Timer(0.4, cluster.psql, [f"SELECT pg_terminate_backend({pid})"]).start()
    with pytest.raises(psycopg.errors.AdminShutdown):
        reader.execute("SELECT pg_sleep(0.01), * FROM hospital.patient")
    [intent] = front.intents("killed")
    assert front.outcome(intent["extract"])["outcome"] in ("error", "disconnected")


@pytest.mark.slow
def test_protocol_3_2_is_spoken_with_a_server_that_speaks_it(tmp_path: Path) -> None:
    with ThrowawayCluster(installation=installation(18)) as server:
        build(server, "newer")
        options = {"max_protocol_version": "latest", "application_name": "newer"}
        with running(tmp_path, "newer", f'host = "{server.host}"', top="workers = 2") as made:
            connection = made.connect(**options)
            assert connection.pgconn.full_protocol_version == 30002
            assert len(connection.execute("SELECT * FROM hospital.patient").fetchall()) == 5000
            # its keys are longer
            threading.Timer(0.2, connection.cancel_safe).start()
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("SELECT pg_sleep(10)")
            assert len(made.intents("newer")) == 1
