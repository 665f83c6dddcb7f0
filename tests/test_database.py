"""Applying policies again, dumping and restoring, and what stays as it was."""

from __future__ import annotations

import copy
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import Queue
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pytest

from pgbalise.database import (
    applied_document,
    applied_policy,
    apply_policy,
    check_commitments,
    enrol,
    epochs,
    open_epoch,
    planned,
    recipients,
    revoke,
)
from pgbalise.errors import DatabaseProblem, InvalidInput, InvalidPolicy, InvalidRecipient
from pgbalise.install import install
from pgbalise.investigate import markings
from pgbalise.marking.codes import bias, codeword, dither, stored_word
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass, parse_policy
from pgbalise.session import PsycopgSession, connect
from pgbalise.trace import trace
from tests.demonstration import marks_only

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pgbalise.session import Session

KEY = MasterKey(bytes(range(32)))
OTHER_KEY = MasterKey(bytes(range(1, 33)))
SAMPLE = "SELECT * FROM marked.lab_result WHERE result_id <= 5000 ORDER BY result_id"


@pytest.fixture
def document(project: Path) -> dict[str, Any]:
    """The demonstration's policy."""
    return marks_only(project)


@pytest.fixture
def session(dpi: psycopg.Connection[Any], document: dict[str, Any]) -> PsycopgSession:
    """A database with the policy in force and one recipient."""
    opened = PsycopgSession(dpi)
    install(opened)
    dpi.execute("CREATE ROLE alice LOGIN")
    with dpi.transaction():
        apply_policy(opened, document, KEY)
        enrol(opened, ["alice"], RecipientClass.SECONDARY, KEY)
    return opened


def seen_by_alice(cluster: Any, dbname: str, query: str = SAMPLE) -> list[Any]:
    with psycopg.connect(cluster.dsn(dbname, "alice")) as alice:
        return alice.execute(query.encode()).fetchall()


def test_applying_again_changes_no_mark_and_keeps_the_grants(
    cluster: Any, session: PsycopgSession, document: dict[str, Any]
) -> None:
    dbname = session.connection.info.dbname
    before = seen_by_alice(cluster, dbname)
    with session.connection.transaction():
        apply_policy(session, applied_document(session), KEY)
    assert seen_by_alice(cluster, dbname) == before
    assert parse_policy(applied_document(session)) == parse_policy(document)


def test_a_relation_taken_out_loses_its_views_and_secrets(
    cluster: Any, session: PsycopgSession, document: dict[str, Any]
) -> None:
    smaller = copy.deepcopy(document)
    del smaller["relation"]["dpi.patient"]
    with session.connection.transaction():
        apply_policy(session, smaller, KEY)
    assert session.fetch("SELECT to_regclass('marked.patient')") == [(None,)]
    assert session.fetch("SELECT count(*)::int FROM balise.relation_secret") == [(2,)]
    assert seen_by_alice(
        cluster, session.connection.info.dbname, "SELECT 1 FROM marked.diagnosis LIMIT 1"
    )


def test_planning_changes_nothing_and_shows_no_secret(
    session: PsycopgSession, document: dict[str, Any]
) -> None:
    secrets = session.fetch("SELECT seeds, keys FROM balise.relation_secret ORDER BY relation_id")
    statements = planned(session, document)
    assert any(
        statement.startswith("CREATE OR REPLACE VIEW marked.lab_result") for statement in statements
    )
    assert (
        session.fetch("SELECT seeds, keys FROM balise.relation_secret ORDER BY relation_id")
        == secrets
    )
    text = "\n".join(statements)
    assert not any(str(seed) in text for seeds, _ in secrets for seed in seeds)


def test_stored_rows_are_untouched(session: PsycopgSession, cluster: Any) -> None:
    digest = "SELECT md5(string_agg(l::text, '' ORDER BY result_id)) FROM dpi.lab_result AS l"
    before = session.fetch(digest)
    seen_by_alice(cluster, session.connection.info.dbname, "SELECT * FROM marked.lab_result")
    assert session.fetch(digest) == before


def test_a_dump_restored_elsewhere_gives_the_same_marks(
    cluster: Any, session: PsycopgSession, tmp_path: Path
) -> None:
    dbname = session.connection.info.dbname
    before = seen_by_alice(cluster, dbname)
    dump = tmp_path / "dpi.dump"
    subprocess.run(
        [cluster.bin_dir / "pg_dump", "-Fc", "-f", dump, "-d", cluster.dsn(dbname)], check=True
    )
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE restored TEMPLATE template0")
        try:
            subprocess.run(
                [cluster.bin_dir / "pg_restore", "-e", "-d", cluster.dsn("restored"), dump],
                check=True,
            )
            assert seen_by_alice(cluster, "restored") == before
            with psycopg.connect(cluster.dsn("restored")) as restored:
                opened = PsycopgSession(restored)
                with pytest.raises(InvalidRecipient, match="enrolled already"):
                    enrol(opened, ["alice"], RecipientClass.SECONDARY, KEY)
                restored.rollback()
        finally:
            admin.execute("DROP DATABASE restored")


def test_a_codeword_other_than_the_committed_one_is_refused(session: PsycopgSession) -> None:
    [alice] = recipients(session)
    check_commitments(KEY, 1, [alice])
    for epoch, wrong in ((1, replace(alice, commitments={1: bytes(32)})), (2, alice)):
        with pytest.raises(InvalidInput, match="codeword of alice"):
            check_commitments(KEY, epoch, [wrong])


def test_a_new_epoch_changes_the_marks_and_keeps_the_old_commitments(
    cluster: Any, session: PsycopgSession
) -> None:
    dbname = session.connection.info.dbname
    before = seen_by_alice(cluster, dbname)
    [alice] = recipients(session)
    with session.connection.transaction():
        assert open_epoch(session, OTHER_KEY) == 2
    after = seen_by_alice(cluster, dbname)
    assert len(after) == len(before)
    assert sum(a != b for a, b in zip(after, before, strict=True)) > len(before) / 10
    [renewed] = recipients(session)
    assert renewed.commitments[1] == alice.commitments[1]
    check_commitments(OTHER_KEY, 2, [renewed])
    first, second = epochs(session)
    assert first.closed_at == second.opened_at
    assert second.closed_at is None
    assert [e.key_fingerprint for e in (first, second)] == [
        key.fingerprint() for key in (KEY, OTHER_KEY)
    ]


def test_who_was_revoked_has_no_word_in_a_new_epoch(session: PsycopgSession) -> None:
    with session.connection.transaction():
        revoke(session, "alice")
        open_epoch(session, KEY)
    [alice] = recipients(session)
    assert set(alice.commitments) == {1}
    assert session.fetch("SELECT count(*)::int FROM balise.codeword") == [(0,)]


def test_an_epoch_marks_with_one_key_only(
    session: PsycopgSession, document: dict[str, Any]
) -> None:
    session.run("CREATE ROLE %I LOGIN", "bob")
    for change in (
        lambda: apply_policy(session, document, OTHER_KEY),
        lambda: enrol(session, ["bob"], RecipientClass.SECONDARY, OTHER_KEY),
    ):
        with (
            pytest.raises(InvalidInput, match="another master key"),
            session.connection.transaction(),
        ):
            change()


def test_a_policy_goes_on_with_the_epoch_in_force(
    session: PsycopgSession, document: dict[str, Any]
) -> None:
    with session.connection.transaction():
        open_epoch(session, KEY)
    for other in (1, 3):
        refused = pytest.raises(InvalidPolicy, match="epoch: 2 is in force")
        with refused, session.connection.transaction():
            apply_policy(session, document | {"epoch": other}, KEY)
    without = {name: value for name, value in document.items() if name != "epoch"}
    with session.connection.transaction():
        apply_policy(session, without, KEY)
    assert applied_policy(session).epoch == 2


def test_secrets_reach_no_log_whatever_is_logged(
    cluster: Any, session: PsycopgSession, document: dict[str, Any]
) -> None:
    for setting in ("log_statement = 'all'", "log_min_duration_statement = 0"):
        session.fetch(f"SET {setting}")
    with session.connection.transaction():
        open_epoch(session, KEY)
    [(word,)] = session.fetch("SELECT encode(substr(word, 100, 40), 'hex') FROM balise.codeword")
    seeds = session.fetch("SELECT unnest(seeds)::text FROM balise.relation_secret")
    log = (cluster.folder / "server.log").read_text("utf-8", "replace")
    assert "COPY" in log
    for secret in (word, *(seed for (seed,) in seeds)):
        assert secret not in log


def test_a_policy_does_not_use_a_schema_of_somebody_elses(
    session: PsycopgSession, document: dict[str, Any]
) -> None:
    session.fetch("CREATE ROLE squatter LOGIN")
    session.fetch("CREATE SCHEMA taken AUTHORIZATION squatter")
    with pytest.raises(DatabaseProblem, match="somebody else"), session.connection.transaction():
        apply_policy(session, document | {"views": {"secondary": "taken"}}, KEY)


def test_dropping_the_extension_leaves_the_hospitals_tables(session: PsycopgSession) -> None:
    session.fetch("DROP EXTENSION pgbalise CASCADE")
    assert session.fetch("SELECT count(*)::int FROM dpi.lab_result") == [(400_123,)]
    assert session.fetch("SELECT to_regclass('marked.lab_result')") == [(None,)]


def _meanwhile(
    cluster: Any, dbname: str, first: Callable[[Session], object], then: Callable[[Session], object]
) -> None:
    """Run ``then`` in a session that starts while the transaction of ``first`` is still open."""
    pids: Queue[int] = Queue()

    def second() -> None:
        with connect(cluster.dsn(dbname)) as session, session.connection.transaction():
            pids.put(session.connection.info.backend_pid)
            then(session)

    with ThreadPoolExecutor(1) as pool:
        with connect(cluster.dsn(dbname)) as session, session.connection.transaction():
            first(session)
            running = pool.submit(second)
            pid = pids.get(timeout=10)
            waits = "SELECT 1 FROM pg_locks WHERE pid = $1::int AND NOT granted"
            until = time.monotonic() + 10
            while not running.done() and not session.fetch(waits, pid):
                assert time.monotonic() < until
        running.result(timeout=30)


def test_two_epochs_opened_at_once_become_two(session: PsycopgSession, cluster: Any) -> None:
    _meanwhile(
        cluster,
        session.connection.info.dbname,
        lambda one: open_epoch(one, KEY),
        lambda other: open_epoch(other, OTHER_KEY),
    )
    fingerprints = [epoch.key_fingerprint for epoch in epochs(session)]
    assert fingerprints == [KEY.fingerprint(), KEY.fingerprint(), OTHER_KEY.fingerprint()]
    check_commitments(KEY, 2, recipients(session))
    check_commitments(OTHER_KEY, 3, recipients(session))


def test_who_is_enrolled_while_an_epoch_opens_is_enrolled_in_it(
    session: PsycopgSession, cluster: Any
) -> None:
    session.connection.execute("CREATE ROLE bob LOGIN")
    _meanwhile(
        cluster,
        session.connection.info.dbname,
        lambda one: open_epoch(one, KEY),
        lambda other: enrol(other, ["bob"], RecipientClass.SECONDARY, KEY),
    )
    assert [list(r.commitments) for r in recipients(session)] == [[1, 2], [2]]


def test_who_is_revoked_while_an_epoch_opens_stays_revoked(
    session: PsycopgSession, cluster: Any
) -> None:
    dbname = session.connection.info.dbname
    _meanwhile(
        cluster,
        dbname,
        lambda one: revoke(one, "alice"),
        lambda other: open_epoch(other, KEY),
    )
    assert session.fetch("SELECT 1 FROM balise.codeword") == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        seen_by_alice(cluster, dbname)


def test_a_snapshot_older_than_the_lock_is_refused(session: PsycopgSession) -> None:
    with session.connection.transaction(force_rollback=True):
        session.fetch("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(DatabaseProblem, match="newest state"):
            open_epoch(session, KEY)


def test_an_interrupted_enrolment_quotes_no_codeword(session: PsycopgSession, cluster: Any) -> None:
    session.connection.execute("CREATE ROLE bob LOGIN")
    session.fetch(
        "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE EXCEPTION ''the disk is full''; END'"
    )
    session.fetch(
        "CREATE TRIGGER fail BEFORE INSERT ON balise.codeword"
        " FOR EACH ROW EXECUTE FUNCTION public.fail()"
    )
    with pytest.raises(DatabaseProblem, match="full"), session.connection.transaction():
        enrol(session, ["bob"], RecipientClass.SECONDARY, KEY)
    log = cluster.log_tail(40)
    assert "COPY codeword, line 1" in log
    word = stored_word(codeword(KEY, "bob", 1, bias(KEY, 1)), dither(KEY, 1))
    assert word[:8].hex() not in log


def test_a_leak_is_traced_by_todays_key_when_a_former_one_is_gone(
    dpi: psycopg.Connection[Any], cluster: Any
) -> None:
    session = PsycopgSession(dpi)
    install(session)
    dpi.execute("CREATE ROLE alice LOGIN")
    dpi.execute(
        "CREATE TABLE dpi.visit (old int PRIMARY KEY, id int NOT NULL UNIQUE, cost int NOT NULL)"
    )
    dpi.execute("INSERT INTO dpi.visit SELECT n, n + 5000, n * 7 FROM generate_series(1, 2000) n")
    carriers = {"cost": {"type": "integer", "quantum": "1"}}
    for key in ("old", "id"):
        body = {"key": {key: "integer"}, "carrier": carriers}
        with dpi.transaction():
            apply_policy(session, {"relation": {"dpi.visit": body}}, KEY)
    with dpi.transaction():
        enrol(session, ["alice"], RecipientClass.SECONDARY, KEY)
    rows = seen_by_alice(cluster, dpi.info.dbname, "SELECT * FROM marked.visit")
    leak = pa.table(
        {name: [str(row[at]) for row in rows] for at, name in enumerate(("old", "id", "cost"))}
    )
    dpi.execute("ALTER TABLE dpi.visit DROP COLUMN old CASCADE")
    with dpi.transaction():
        [marking], _ = markings(session, [KEY], "dpi.visit")
        assert trace(leak, [marking], alpha=1e-6).verdict.accused == ["alice"]
