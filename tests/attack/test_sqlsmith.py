"""Thousands of random statements of an enrolled role: nothing crashes, nothing has changed."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgbalise.doctor import examine
from pgbalise.session import connect
from tests.attack.conftest import SEED, VIEWS, rows

if TYPE_CHECKING:
    from tests.attack.conftest import Pair, World

CRASHES = ("terminated by signal", "PANIC:", "TRAP:", "reinitializing", "ABORT:")
"""What PostgreSQL's log says of a crash or a failed assertion."""


def state(world: World) -> dict[str, Any]:
    """What random statements must not change: all copies, what is stored, the doctor's findings."""
    seen = {
        f"{role}: {schema}.{view}": rows(world, role, f"{schema}.{view}")
        for role, schema in (
            ("mallory", "marked"),
            ("victim", "marked"),
            ("carole", "marked_care"),
            ("postgres", "clinic"),
        )
        for view in VIEWS
    }
    for table in ("balise_decoy.patient", *(f"balise.{name}" for name in CATALOG)):
        seen[table] = rows(world, "postgres", table)
    with connect(world.dsn()) as session:
        seen["doctor"] = examine(session, now=datetime.now(UTC)).findings
    return seen


CATALOG = (
    "codeword",
    "commitment",
    "epoch",
    "marked_view",
    "policy",
    "recipient",
    "relation",
    "relation_secret",
)


@pytest.mark.parametrize(
    "statements",
    [pytest.param(500), pytest.param(20_000, marks=pytest.mark.slow)],
)
def test_random_statements_change_nothing(fresh_pair: Pair, statements: int) -> None:
    world = fresh_pair.real
    log = world.cluster.folder / "server.log"
    before, read, postmaster = state(world), log.stat().st_size, started(world)
    done = subprocess.run(
        [
            "sqlsmith",
            f"--target={world.dsn('mallory')}",
            f"--seed={SEED}",
            f"--max-queries={statements}",
            "--exclude-catalog",
            "--dump-all-queries",
            "--verbose",
        ],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=3600,
    )
    said = log.read_bytes()[read:].decode("utf-8", "replace")
    assert done.returncode == 0, done.stderr[-500:]
    assert started(world) == postmaster
    assert not [line for line in said.splitlines() if any(word in line for word in CRASHES)]
    # one sign for each statement: . went well, e error, S syntax error, t timeout, C lost
    signs = "".join(re.findall(r"^[.eStC]+$", done.stderr, re.MULTILINE))
    assert "C" not in signs
    assert signs.count(".") > statements / 10, done.stderr[-500:]
    for view in VIEWS:
        assert f"marked.{view}" in done.stdout
    assert state(world) == before


def started(world: World) -> tuple[Any, ...] | None:
    """When the server started and last recovered."""
    with psycopg.connect(world.dsn()) as connection:
        return connection.execute(
            "SELECT pg_postmaster_start_time(), timeline_id FROM pg_control_checkpoint()"
        ).fetchone()
