"""A region's exchange on a real server, three establishments, and a clock that tests can move."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from pytest_postgresql.janitor import DatabaseJanitor

from pgbalise.decoys.identity import Mode, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.traits import TraitKind
from pgbalise.exchange.client import Client
from pgbalise.exchange.limits import Limits
from pgbalise.exchange.server import Listen, application, prepared
from pgbalise.exchange.store import add_member, open_region
from pgbalise.registry.store import engine_of, open_registry, upgrade

AT = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)
NAMES = ("CHU de Rennes", "CH de Vitré", "Clinique du Parc")
SPACES = dict.fromkeys((TraitKind.NIR, TraitKind.PERSON, TraitKind.MAIL), 1e10)


@pytest.fixture(autouse=True)
def _no_http_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def decoy(number: int, recipient: str = "study", **spaces: float) -> IssuedDecoy:
    """A decoy with three traits that are exchanged, and a record number and telephone that not."""
    identity = {
        Role.RECORD_NUMBER: f"IPP{1000000 + number}",
        Role.NIR: f"2990199{number:03d}00142"[:13] + "00",
        Role.FAMILY_NAME: f"Lévêque-{'abcdefghij'[number % 10] * 3}",
        Role.GIVEN_NAME: "Maëlle",
        Role.BIRTH_DATE: f"1985-05-{1 + number % 28:02d}",
        Role.PHONE: f"0199 00 {number:04d}"[:12],
        Role.MAIL: f"maelle.{number}@example.org",
    }
    found = {**SPACES, TraitKind.PHONE: 6e4, **{TraitKind(k): v for k, v in spaces.items()}}
    key = {"patient_id": str(90000 + number)}
    return IssuedDecoy(number, recipient, number, Mode.SAFE, identity, found, key, AT)


def line(one: IssuedDecoy) -> str:
    """A decoy as somebody else writes it: other case, no accents, other format of the date."""
    born = datetime.fromisoformat(one.identity[Role.BIRTH_DATE])
    name = one.identity[Role.FAMILY_NAME].replace("é", "e").replace("ê", "e").upper()
    return f"MAELLE {name} {born:%d/%m/%Y}"


@dataclass
class Clock:
    """The server's: what it records, and by what it counts calls."""

    now: datetime = AT
    ticks: float = 0.0

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.ticks += seconds


@dataclass
class Exchange:
    url: str
    dsn: str
    tokens: dict[str, str]
    clock: Clock
    pauses: list[float] = field(default_factory=list)

    def client(self, name: str, ca: Path | None = None) -> Client:
        """A client of an establishment, for which time passes when it waits."""

        def pause(seconds: float) -> None:
            self.pauses.append(seconds)
            self.clock.pass_(seconds)

        return Client(self.url, self.tokens[name], ca, pause=pause)


def _janitor(cluster: Any, dbname: str, template: str) -> DatabaseJanitor:
    return DatabaseJanitor(
        user="postgres",
        host=cluster.host,
        port=cluster.port,
        dbname=dbname,
        template_dbname=template,
    )


@pytest.fixture(scope="session")
def registry_template(cluster: Any) -> Iterator[str]:
    """A database with a registry, to be copied: migrating one for each test takes too long."""
    name = "exchange_template"
    with _janitor(cluster, name, "template0"):
        with open_registry(cluster.dsn(name)) as connection:
            upgrade(connection)
        yield name


@pytest.fixture
def home(cluster: Any, registry_template: str) -> Iterator[psycopg.Connection[Any]]:
    """The registry's database, for its superuser, in autocommit."""
    name = "exchange_test"
    with (
        _janitor(cluster, name, registry_template),
        psycopg.connect(cluster.dsn(name), autocommit=True) as connection,
    ):
        yield connection


@pytest.fixture
def registry_dsn(cluster: Any, home: psycopg.Connection[Any]) -> str:
    return str(cluster.dsn(home.info.dbname))


@pytest.fixture
def registry(registry_dsn: str) -> Iterator[sa.Connection]:
    with open_registry(registry_dsn) as connection:
        yield connection


@contextmanager
def serving(dsn: str, limits: Limits, listen: Listen) -> Iterator[Exchange]:
    """Open a region with three members, and serve it."""
    with open_registry(dsn) as connection:
        open_region(connection, "Bretagne", AT)
        tokens = {name: add_member(connection, name, AT) for name in NAMES}
    clock = Clock()
    engine = engine_of(dsn, 4)
    app = application(engine, limits, now=lambda: clock.now, ticks=lambda: clock.ticks)
    server, opened = prepared(app, listen)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        scheme = "https" if listen.certificate else "http"
        yield Exchange(f"{scheme}://localhost:{opened.getsockname()[1]}", dsn, tokens, clock)
    finally:
        server.should_exit = True
        thread.join()
        opened.close()
        engine.dispose()


@pytest.fixture
def serve(registry_dsn: str) -> Callable[..., Any]:
    """Serve with limits and a certificate of one's own."""

    def start(limits: Limits | None = None, **how: Any) -> Any:
        return serving(registry_dsn, limits or Limits(), Listen("127.0.0.1", 0, **how))

    return start


@pytest.fixture
def exchange(serve: Callable[..., Any]) -> Iterator[Exchange]:
    with serve() as running:
        yield running
