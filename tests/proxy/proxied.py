"""A running proxy in front of a real server, for tests of what clients see and what is recorded."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import port_for
import psutil
import psycopg
import pytest

from pgbalise.database import apply_policy, enrol
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.install import install
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import connect
from pgbalise.wire import messages as m

KEY = MasterKey(bytes(range(32)))
ROWS = 5000
POLICY = {
    "relation": {
        "hospital.patient": {
            "key": {"id": "integer"},
            "carrier": {
                "weight": {"type": "integer", "quantum": 1},
                "seen_at": {"type": "timestamp", "quantum": "1 millisecond", "neutral": True},
            },
        },
        "ward.patient": {
            "key": {"id": "integer"},
            "carrier": {"weight": {"type": "integer", "quantum": 1}},
            "view": "ward_patient",
        },
    }
}
SCENE = f"""
CREATE ROLE reader LOGIN; CREATE ROLE other LOGIN; CREATE ROLE nurse LOGIN; CREATE ROLE clerk LOGIN;
CREATE ROLE keeper LOGIN IN ROLE balise_proxy;
CREATE SCHEMA hospital; CREATE SCHEMA ward; CREATE SCHEMA work;
GRANT USAGE ON SCHEMA hospital, ward, work TO PUBLIC; GRANT CREATE ON SCHEMA work TO reader;
CREATE TABLE hospital.patient (id int PRIMARY KEY, name text, weight int, seen_at timestamp);
INSERT INTO hospital.patient SELECT i, 'patient ' || i, 40 + i % 60,
  '2026-01-01'::timestamp + i * interval '1 s' FROM generate_series(1, {ROWS}) AS i;
CREATE TABLE ward.patient (id int PRIMARY KEY, weight int);
INSERT INTO ward.patient SELECT i, 40 + i % 60 FROM generate_series(1, 50) AS i;
CREATE TABLE public.drug (id int PRIMARY KEY, name text);
INSERT INTO public.drug SELECT i, 'drug ' || i FROM generate_series(1, 10) AS i;
GRANT ALL ON public.drug TO PUBLIC;
"""


def wait_until(condition: Callable[[], object], seconds: float = 15) -> None:
    """Return once the condition holds; fail when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@dataclass
class Proxy:
    """A process of ``pgbalise proxy`` and what it leaves behind."""

    folder: Path
    port: int
    dbname: str
    process: subprocess.Popen[bytes]
    opened: list[psycopg.Connection[Any]] = field(default_factory=list)

    @property
    def log(self) -> str:
        """What the proxy said."""
        return (self.folder / "log").read_text()

    def dsn(self, user: str = "reader", **more: object) -> str:
        """A connection string through the proxy."""
        given = {"host": "127.0.0.1", "port": self.port, "dbname": self.dbname, "user": user}
        return psycopg.conninfo.make_conninfo("", **{**given, "connect_timeout": 15, **more})

    def connect(self, user: str = "reader", **more: object) -> psycopg.Connection[Any]:
        """Open a session in autocommit, closed with the test."""
        connection = psycopg.connect(self.dsn(user, **more), autocommit=True)
        self.opened.append(connection)
        return connection

    def records(self, kind: str = "", session: str | None = None) -> list[dict[str, Any]]:
        """The spool's records in order, of one type and session if given."""
        found: list[dict[str, Any]] = []
        for path in sorted((self.folder / "spool").glob("*.jsonl")):
            lines = path.read_text().splitlines()
            found += [json.loads(line) for line in lines if line.endswith("}")]
        return [
            one
            for one in found
            if (not kind or one["type"] == kind) and (not session or one.get("session") == session)
        ]

    def intents(self, name: str) -> list[dict[str, Any]]:
        """The intents of the sessions with this application_name."""
        return [one for one in self.records("intent") if one["application_name"] == name]

    def outcome(self, extract: str) -> dict[str, Any]:
        """Wait for the outcome of an extract."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [one for one in self.records("outcome") if one["extract"] == extract]
            return bool(found)

        wait_until(there)
        [record] = found
        return record

    def processes(self) -> list[psutil.Process]:
        """The proxy's processes, the supervisor first."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the proxy in order and return its exit status."""
        for connection in self.opened:
            with suppress(psycopg.Error):
                connection.close()
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(20)

    def kill(self) -> None:
        """End all its processes at once, as a power failure would."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(20)


def build(cluster: ThrowawayCluster, dbname: str) -> None:
    """Make a database with two protected relations, and recipients of both classes."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(
            psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(dbname))
        )
    with connect(cluster.dsn(dbname)) as session:
        install(session, sql_only=True)
        session.connection.execute(SCENE)
        with session.connection.transaction():
            apply_policy(session, POLICY, KEY)
        with session.connection.transaction():
            enrol(session, ["reader", "other"], RecipientClass.SECONDARY, KEY)
            enrol(session, ["nurse"], RecipientClass.CARE, KEY)


@contextmanager
def running(
    folder: Path,
    dbname: str,
    upstream: str,
    *,
    port: int | None = None,
    top: str = "",
    more: str = "",
    environment: dict[str, str] | None = None,
) -> Iterator[Proxy]:
    """Run ``pgbalise proxy``; ``top`` goes above the configuration's tables, ``more`` below."""
    port = port or port_for.select_random()
    for name in ("spool", "run"):
        (folder / name).mkdir(mode=0o700, exist_ok=True, parents=True)
    if "listen" not in top:
        top += f'\nlisten = ["127.0.0.1:{port}"]'
    (folder / "proxy.toml").write_text(
        f'spool = "{folder}/spool"\nrun = "{folder}/run"\nuser = "keeper"\n{top}\n'
        f"[upstream]\n{upstream}\n{more}\n"
    )
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pgbalise", "proxy", "-c", folder / "proxy.toml"],
            stderr=log,
            env={**os.environ, **(environment or {})},
        )
    made = Proxy(folder, port, dbname, process)
    try:
        wait_until(lambda: "proxy.ready" in made.log or process.poll() is not None, 30)
        assert process.poll() is None, made.log
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def guarded(cluster: ThrowawayCluster) -> Iterator[str]:
    """A database with protected relations on the run's server. Do not change it."""
    name = "guarded"
    roles = "reader, other, nurse, clerk, keeper"
    build(cluster, name)
    yield name
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute(f"DROP ROLE {roles}")


@pytest.fixture(scope="session")
def front(
    cluster: ThrowawayCluster, guarded: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """Two workers in front of ``guarded``. For tests that do not change its configuration."""
    with running(
        tmp_path_factory.mktemp("proxy"),
        guarded,
        f'host = "{cluster.host}"',
        top="workers = 2",
        more="[ledger]\npoint_rows = 20\noutcome_seconds = 1\n[rewrite]\nrefresh_seconds = 1",
    ) as made:
        yield made


class Raw:
    """A client that sends messages as it likes: what a driver would not send, an attacker may."""

    def __init__(self, proxy: Proxy, user: str = "reader", **parameters: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", proxy.port), timeout=15)
        pairs = {"user": user, "database": proxy.dbname, **parameters}
        body = b"".join(m.string(k) + m.string(v) for k, v in pairs.items()) + b"\0"
        self.socket.sendall(struct.pack("!II", len(body) + 8, m.PROTOCOL_3_0) + body)
        self.data = b""
        self.until_ready()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def message(self) -> tuple[bytes, bytes]:
        """Return the next message's type and body; two empty ones at the end."""
        while len(self.data) < 5 or len(self.data) < 1 + struct.unpack_from("!I", self.data, 1)[0]:
            more = self.socket.recv(65536)
            if not more:
                return b"", b""
            self.data += more
        end = 1 + struct.unpack_from("!I", self.data, 1)[0]
        whole, self.data = self.data[:end], self.data[end:]
        return whole[:1], whole[5:]

    def until_ready(self, times: int = 1) -> list[tuple[bytes, bytes]]:
        """Return the messages up to the last of so many ReadyForQuery."""
        found = []
        while times:
            found.append(self.message())
            assert found[-1][0], found
            times -= found[-1][0] == b"Z"
        return found

    def run(self, *messages: bytes, times: int = 1) -> Said:
        """Send messages in one piece and return what came of them."""
        self.socket.sendall(b"".join(messages))
        return Said(self.until_ready(times))

    def query(self, sql: str) -> Said:
        """Run a simple query."""
        return self.run(m.query(sql.encode()))


class Said(list[tuple[bytes, bytes]]):
    """Messages that the server sent."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(kind in (b"D", b"d") for kind, _ in self)

    @property
    def errors(self) -> list[str]:
        """The errors' SQLSTATEs."""
        return [m.error_fields(body)["C"] for kind, body in self if kind == b"E"]
