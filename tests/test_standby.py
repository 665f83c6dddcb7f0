"""A hot standby gives each recipient what the primary gives, and takes over from it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgbalise.database import apply_policy, enrol, revoke
from pgbalise.decoybook import enter
from pgbalise.decoys.identity import Mode, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.doctor import examine
from pgbalise.errors import EnvironmentProblem
from pgbalise.extract import write_extract
from pgbalise.install import install
from pgbalise.keyfile import generate_key, read_key
from pgbalise.marking.policy import RecipientClass, load_document
from pgbalise.session import connect
from pgbalise.tripwires import relay

POLICY = """
[relation."clinic.patient"]
key = { id = "integer" }
decoys = true
[relation."clinic.patient".carrier.weight]
type = "numeric(5,1)"
quantum = 0.1

[relation."clinic.measure"]
key = { id = "bigint" }
[relation."clinic.measure".carrier.taken_at]
type = "timestamptz"
quantum = "1 millisecond"
neutral = true
[relation."clinic.measure".carrier.value]
type = "integer"
quantum = 1
"""

TABLES = """
CREATE SCHEMA clinic;
CREATE TABLE clinic.patient AS
    SELECT n AS id, (40 + n % 600 / 10.0)::numeric(5,1) AS weight FROM generate_series(1, 500) AS n;
ALTER TABLE clinic.patient ADD PRIMARY KEY (id);
CREATE TABLE clinic.measure AS
    SELECT n::bigint AS id, timestamptz '2020-01-01Z' + n * interval '1.234 second' AS taken_at,
           n % 300 AS value FROM generate_series(1, 2000) AS n;
ALTER TABLE clinic.measure ADD PRIMARY KEY (id);
"""

VIEWS = {
    "anna": ["marked.patient", "marked.measure"],
    "ward": ["marked_care.patient", "marked_care.measure"],
}

Bytes = dict[tuple[str, str], bytes]


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("standby") / "master.key"
    generate_key(path)
    return path


@pytest.fixture(scope="module")
def primary(key_file: Path, project: Path) -> Iterator[ThrowawayCluster]:
    """A server with two protected relations and two recipients, anna and ward."""
    with ThrowawayCluster() as cluster:
        cluster.install_extension(project / "sql")
        cluster.psql(
            TABLES + "CREATE ROLE anna LOGIN; CREATE ROLE ward LOGIN; CREATE ROLE late LOGIN"
        )
        key = read_key(key_file)
        with connect(cluster.dsn()) as session:
            install(session)
            with session.connection.transaction():
                apply_policy(session, load_document(POLICY), key)
                enrol(session, ["anna"], RecipientClass.SECONDARY, key)
                enrol(session, ["ward"], RecipientClass.CARE, key)
        yield cluster


@pytest.fixture
def standby(primary: ThrowawayCluster) -> Iterator[ThrowawayCluster]:
    """A streaming standby of it that has replayed everything."""
    with ThrowawayCluster(primary=primary) as cluster:
        catch_up(primary, cluster)
        yield cluster


def one(cluster: ThrowawayCluster, query: str, *args: object) -> Any:
    with psycopg.connect(cluster.dsn()) as connection:
        row = connection.execute(query.encode(), args).fetchone()
        assert row is not None
        return row[0]


def catch_up(primary: ThrowawayCluster, standby: ThrowawayCluster) -> None:
    """Wait until the standby has replayed what has been written so far."""
    # the throwaway server's commits are asynchronous, and its WAL writer sleeps when idle
    primary.psql("CHECKPOINT")
    written = one(primary, "SELECT pg_current_wal_flush_lsn()::text")
    deadline = time.monotonic() + 20
    while not one(standby, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", written):
        assert time.monotonic() < deadline, standby.log_tail()
        time.sleep(0.05)


def answers(cluster: ThrowawayCluster) -> Bytes:
    """What every recipient is given of every view, as COPY writes it."""
    found = {}
    for role, views in VIEWS.items():
        with connect(cluster.dsn(user=role)) as session:
            for view in views:
                query = f"COPY (SELECT * FROM {view} ORDER BY id) TO STDOUT".encode()
                with session.connection.cursor().copy(query) as copy:
                    found[role, view] = b"".join(copy)
    return found


def pgbalise(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pgbalise", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_standby_gives_the_same_bytes_and_writes_nothing(
    primary: ThrowawayCluster, standby: ThrowawayCluster, tmp_path: Path
) -> None:
    assert one(standby, "SELECT pg_is_in_recovery()") is True
    given = answers(standby)
    assert given == answers(primary)
    stored = primary.psql("COPY (TABLE clinic.patient ORDER BY id) TO STDOUT").encode()
    assert given["ward", "marked_care.patient"] == stored != given["anna", "marked.patient"]
    with connect(standby.dsn(user="anna")) as session:
        assert write_extract(session, "TABLE marked.measure", tmp_path / "extract.csv") == 2000
    with connect(standby.dsn()) as session:
        assert "critical" not in {
            finding.severity for finding in examine(session, now=datetime.now(UTC)).findings
        }
    # on the primary, where it could, reading does not write either
    with psycopg.connect(primary.dsn(user="anna")) as anna:
        anna.execute("SELECT * FROM marked.patient").fetchall()
        row = anna.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()
        assert row == (None,)


def test_what_changes_on_the_primary_is_in_force_on_the_standby(
    primary: ThrowawayCluster, standby: ThrowawayCluster, key_file: Path
) -> None:
    before = answers(standby)
    key = read_key(key_file)
    changed = load_document(POLICY.replace("quantum = 0.1", "quantum = 0.5"))
    with connect(primary.dsn()) as session, session.connection.transaction():
        apply_policy(session, changed, key)
        session.run("CREATE ROLE %I LOGIN", "leaver")
        enrol(session, ["leaver"], RecipientClass.SECONDARY, key)
    catch_up(primary, standby)
    after = answers(standby)
    assert after == answers(primary)
    assert [at for at in after if after[at] != before[at]] == [("anna", "marked.patient")]

    with psycopg.connect(standby.dsn(user="leaver"), autocommit=True) as leaver:
        assert len(leaver.execute("SELECT * FROM marked.patient").fetchall()) == 500
        with connect(primary.dsn()) as session, session.connection.transaction():
            revoke(session, "leaver")
        catch_up(primary, standby)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            leaver.execute("SELECT * FROM marked.patient")


@pytest.mark.parametrize("command", ["policy apply", "recipient add"])
def test_a_standby_refuses_to_administer_in_one_line(
    standby: ThrowawayCluster, key_file: Path, tmp_path: Path, command: str
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    what = policy if command == "policy apply" else "late"
    done = pgbalise(*command.split(), what, "--key", key_file, "--dsn", standby.dsn())
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("pgbalise: ")
    assert "recovery" in done.stderr or "read-only" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_standby_says_in_its_log_who_met_a_decoy(
    primary: ThrowawayCluster, standby: ThrowawayCluster
) -> None:
    nir = "285057800608491"
    decoy = IssuedDecoy(1, "anna", 1, Mode.SAFE, {Role.NIR: nir}, {}, {}, datetime.now(UTC))
    with connect(primary.dsn()) as session, session.connection.transaction():
        enter(session, [decoy], "f" * 16)
        session.run("CREATE ROLE %I LOGIN IN ROLE balise_tripwire", "desk")
    catch_up(primary, standby)
    with psycopg.connect(standby.dsn(user="desk")) as desk:
        desk.execute(f"SELECT balise.check('{nir}')".encode())
    told = standby.log_tail(50)
    assert "tripwire decoys=anna/1 kinds=nir role=desk client=local unrecorded=25006" in told
    assert nir not in told
    with connect(standby.dsn()) as session:
        assert relay(session, lambda alerts: None) == 0


def test_a_promoted_standby_marks_as_before_and_administers(
    primary: ThrowawayCluster, standby: ThrowawayCluster, key_file: Path
) -> None:
    before = answers(standby)
    assert one(standby, "SELECT pg_promote()") is True
    assert one(standby, "SELECT pg_is_in_recovery()") is False
    assert answers(standby) == before == answers(primary)
    done = pgbalise("recipient", "add", "late", "--key", key_file, "--dsn", standby.dsn())
    assert done.returncode == 0, done.stderr
    with psycopg.connect(standby.dsn(user="late")) as late:
        assert len(late.execute("SELECT * FROM marked.patient").fetchall()) == 500
    # PL/Python finds the library there too
    standby.psql("SELECT balise.revoke('late')")
    with (
        psycopg.connect(standby.dsn(user="late")) as late,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        late.execute("SELECT * FROM marked.patient")


def test_a_standby_of_nothing_is_one_clear_error() -> None:
    with ThrowawayCluster() as gone:
        pass
    with pytest.raises(EnvironmentProblem) as caught:
        ThrowawayCluster(primary=gone).start()
    assert "\n" not in str(caught.value)
