"""Recording a hospital's recipients: once each, and never against what was recorded before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from pgbalise.database import enrol, revoke
from pgbalise.errors import DatabaseProblem, InvalidInput
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.registry.record import record_database
from pgbalise.registry.store import (
    entries,
    open_registry,
    problems,
    sign,
    upgrade,
    verify_registry,
)
from pgbalise.session import PsycopgSession
from tests.registry.conftest import protected

KEY = MasterKey(bytes(range(32)))
AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def session(empty_db: psycopg.Connection[Any]) -> PsycopgSession:
    """A small database with two recipients."""
    opened = protected(empty_db, KEY)
    empty_db.execute("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE carol LOGIN")
    with empty_db.transaction():
        enrol(opened, ["alice"], RecipientClass.SECONDARY, KEY)
        enrol(opened, ["bob"], RecipientClass.CARE, KEY)
    return opened


@pytest.fixture
def registry(cluster: Any, session: PsycopgSession) -> Iterator[sa.Connection]:
    """A registry beside the extension, in the same database."""
    with open_registry(cluster.dsn(session.connection.info.dbname)) as connection:
        upgrade(connection)
        yield connection


def told(registry: sa.Connection) -> list[tuple[str, str]]:
    with registry.begin():
        return [(entry.kind, entry.body["recipient"]) for entry in entries(registry)]


def test_each_enrolment_commitment_and_revocation_is_recorded_once(
    registry: sa.Connection, session: PsycopgSession
) -> None:
    record_database(registry, session, AT)
    expected = [
        ("enrolment", "alice"),
        ("commitment", "alice"),
        ("enrolment", "bob"),
        ("commitment", "bob"),
    ]
    assert told(registry) == expected
    assert record_database(registry, session, AT) == []
    with session.connection.transaction():
        revoke(session, "alice")
        enrol(session, ["carol"], RecipientClass.SECONDARY, KEY)
    record_database(registry, session, AT, [KEY])
    record_database(registry, session, AT)
    expected += [("revocation", "alice"), ("enrolment", "carol"), ("commitment", "carol")]
    assert told(registry) == expected
    assert verify_registry(registry, [])[0] == []
    with registry.begin():
        last = next(entries(registry, limit=1)).body
    assert last["key_fingerprint"] == KEY.fingerprint()
    assert last["database"] == session.connection.info.dbname


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("UPDATE balise.commitment SET commitment = '' WHERE role_name = 'bob'", "another"),
        ("UPDATE balise.recipient SET class = 'secondary' WHERE role_name = 'bob'", "class of bob"),
        ("UPDATE balise.recipient SET revoked_at = NULL", "revocation of alice"),
        ("UPDATE balise.recipient SET enrolled_at = '2000-01-01'", r"enrolment .*1 more"),
        ("DELETE FROM balise.recipient WHERE role_name = 'alice'", "alice is gone"),
    ],
)
def test_a_catalog_that_was_changed_is_told_and_not_recorded(
    registry: sa.Connection, session: PsycopgSession, change: str, complaint: str
) -> None:
    with session.connection.transaction():
        revoke(session, "alice")
    record_database(registry, session, AT)
    before = told(registry)
    session.connection.execute("SET session_replication_role = replica")
    session.connection.execute(change.encode())
    with pytest.raises(DatabaseProblem, match=complaint):
        record_database(registry, session, AT)
    assert told(registry) == before


def test_a_writer_needs_no_more_than_the_guide_says(
    cluster: Any, registry: sa.Connection, session: PsycopgSession
) -> None:
    session.connection.execute(
        "CREATE ROLE writer LOGIN; ALTER ROLE writer SET datestyle = 'German';"
        "GRANT USAGE ON SCHEMA balise_registry TO writer;"
        "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA balise_registry TO writer;"
        "GRANT UPDATE ON balise_registry.recipient TO writer"
    )
    with open_registry(cluster.dsn(session.connection.info.dbname, "writer")) as limited:
        assert len(record_database(limited, session, AT)) == 4
        with session.connection.transaction():
            revoke(session, "alice")
        assert len(record_database(limited, session, AT)) == 1
        sign(limited, bytes(32), AT)
        with pytest.raises(DatabaseProblem, match="must be owner"), problems(), limited.begin():
            limited.execute(sa.text("DROP TRIGGER append_only ON balise_registry.entry"))


def test_with_another_master_key_nothing_is_recorded(
    registry: sa.Connection, session: PsycopgSession
) -> None:
    with pytest.raises(InvalidInput, match="no epoch of this database"):
        record_database(registry, session, AT, [MasterKey(bytes(32))])
    assert told(registry) == []
