"""A running proxy tells of decoys: those asked for through it, and those met in an application."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgbalise.decoybook import enter
from pgbalise.decoys.identity import Mode, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.session import connect
from tests.proxy.proxied import Proxy, build, running, wait_until
from tests.test_alerts import Hook, serving

AT = datetime(2026, 3, 4, tzinfo=UTC)
NIRS = ["285057800608491", "185057800608436"]


def enter_decoy(dsn: str, number: int) -> None:
    identity = {Role.NIR: NIRS[number - 1], Role.RECORD_NUMBER: f"IPP{number:07d}"}
    decoy = IssuedDecoy(number, "other", number, Mode.SAFE, identity, {}, {}, AT)
    with connect(dsn) as session, session.connection.transaction():
        enter(session, [decoy], "f" * 16)


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    with serving(server):
        yield server


@pytest.fixture
def watched(cluster: ThrowawayCluster, tmp_path: Path, hook: Hook) -> Iterator[Proxy]:
    name = "with_decoys"
    build(cluster, name)
    cluster.psql("CREATE ROLE desk LOGIN IN ROLE balise_tripwire")
    enter_decoy(cluster.dsn(name), 1)
    more = f'[tripwires]\ndatabases = ["{name}"]\n'
    more += f'[[alerts.webhook]]\nurl = "http://127.0.0.1:{hook.server_port}/"'
    try:
        with running(
            tmp_path,
            name,
            f'host = "{cluster.host}"',
            top="workers = 1",
            more=more,
            environment={"no_proxy": "*"},
        ) as made:
            yield made
    finally:
        cluster.psql(f"DROP DATABASE {name} WITH (FORCE)")
        cluster.psql("DROP ROLE reader, other, nurse, clerk, keeper, desk")


def told(hook: Hook) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for _, _, body in hook.heard:
        alert = json.loads(body)
        found.setdefault(alert["kind"], []).append((alert["recipient"], alert["detail"]["decoys"]))
    return found


def test_decoys_are_known_in_any_spelling_and_new_ones_soon(
    cluster: ThrowawayCluster, watched: Proxy, hook: Hook
) -> None:
    reader = watched.connect("reader")
    reader.execute("SELECT 1 FROM hospital.patient WHERE id = 1")

    def asks(role: str, spelled: str, decoy: str) -> bool:
        """Ask until the proxy has read the decoys, which it does beside the sessions."""
        session = watched.connect(role)
        session.execute("SELECT 1 FROM hospital.patient WHERE name = %s", (spelled,))
        session.close()
        return (role, [decoy]) in told(hook).get("decoy", [])

    wait_until(lambda: asks("reader", "2 85 05 78 006 084", "other/1"), 30)
    enter_decoy(cluster.dsn(watched.dbname), 2)
    wait_until(lambda: asks("nurse", "1850578-006084 36", "other/2"), 30)
    assert told(hook)["decoy"] == [("reader", ["other/1"]), ("nurse", ["other/2"])]
    for nir in NIRS:
        assert nir[:13] not in watched.log


def test_events_of_the_database_are_told_by_the_proxy(
    cluster: ThrowawayCluster, watched: Proxy, hook: Hook
) -> None:
    with psycopg.connect(cluster.dsn(watched.dbname, "desk"), autocommit=True) as desk:
        desk.execute("SELECT balise.check(%s)", (f"patient IPP 0000001 / {NIRS[0]}",))
    wait_until(lambda: told(hook), 20)
    assert told(hook) == {"tripwire": [("desk", ["other/1"])]}
    with psycopg.connect(cluster.dsn(watched.dbname)) as auditor:
        row = auditor.execute("SELECT count(relayed_at), count(*) FROM balise.tripwire").fetchone()
    assert row == (1, 1)
