"""Recording decoys: digests that tell nobody who they are, and prove it later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa

from pgbalise.database import apply_policy, enrol
from pgbalise.decoybook import enter
from pgbalise.decoys.identity import Mode, Role
from pgbalise.decoys.issued import IssuedDecoy, identity_digest
from pgbalise.decoys.traits import TraitKind
from pgbalise.errors import DatabaseProblem
from pgbalise.install import install
from pgbalise.marking.keys import MasterKey, frame
from pgbalise.marking.policy import RecipientClass
from pgbalise.registry.record import record_database
from pgbalise.registry.store import entries, open_registry, upgrade, verify_registry
from pgbalise.session import PsycopgSession, connect

KEY = MasterKey(bytes(range(32)))
AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = datetime(2026, 2, 28, 12, tzinfo=UTC)
POLICY = {
    "decoys": {"entity": "dpi.patient"},
    "relation": {
        "dpi.patient": {"key": {"id": "integer"}, "decoys": True, "identity": {"n": "full_name"}}
    },
}


def decoy(number: int, recipient: str = "ana") -> IssuedDecoy:
    return IssuedDecoy(
        number,
        recipient,
        number,
        Mode.SAFE,
        {Role.FULL_NAME: f"DUPONT Marie {number}", Role.BIRTH_DATE: "1985-05-12"},
        {TraitKind.PERSON: 1e5},
        {"id": str(number)},
        AT,
    )


@pytest.fixture
def session(cluster: Any, empty_db: psycopg.Connection[Any]) -> Iterator[PsycopgSession]:
    """A small database with one recipient and three decoys in the book."""
    empty_db.execute(
        "CREATE SCHEMA dpi; CREATE TABLE dpi.patient (id integer PRIMARY KEY, n text);"
        "CREATE ROLE ana LOGIN"
    )
    with connect(cluster.dsn(empty_db.info.dbname)) as opened:
        install(opened)
        with opened.connection.transaction():
            apply_policy(opened, POLICY, KEY)
            enrol(opened, ["ana"], RecipientClass.SECONDARY, KEY)
            enter(opened, [decoy(1), decoy(2), decoy(3)], KEY.fingerprint())
        yield opened


@pytest.fixture
def registry(cluster: Any, session: PsycopgSession) -> Iterator[sa.Connection]:
    with open_registry(cluster.dsn(session.connection.info.dbname)) as connection:
        upgrade(connection)
        yield connection


def told(registry: sa.Connection) -> list[tuple[str, dict[str, Any]]]:
    with registry.begin():
        return [(e.kind, dict(e.body)) for e in entries(registry) if e.kind.startswith("decoys")]


def test_each_decoy_is_recorded_once_and_can_be_proved(
    registry: sa.Connection, session: PsycopgSession
) -> None:
    record_database(registry, session, AT)
    [(kind, body)] = told(registry)
    assert (kind, body["recipient"]) == ("decoys", "ana")
    assert [one["number"] for one in body["decoys"]] == [1, 2, 3]
    # nothing of the identity is in it, and two decoys of one identity would differ
    assert "DUPONT" not in json.dumps(body)
    assert "1985" not in json.dumps(body)
    [(salt,)] = session.fetch("SELECT salt::text FROM balise.decoy WHERE number = 2")
    text = '{"birth_date":"1985-05-12","full_name":"DUPONT Marie 2"}'
    framed = frame("pgbalise decoy identity 1", UUID(salt).bytes, "ana", 2, text)
    assert body["decoys"][1]["identity_digest"] == hashlib.sha256(framed).hexdigest()
    assert identity_digest(decoy(2), bytes(16)) != identity_digest(
        replace(decoy(2), number=3), bytes(16)
    )
    assert record_database(registry, session, AT) == []
    session.fetch("UPDATE balise.decoy SET retired_at = $1 WHERE number = 3", LATER)
    record_database(registry, session, LATER)
    assert record_database(registry, session, LATER) == []
    kind, body = told(registry)[-1]
    assert (kind, body["recipient"], body["numbers"]) == ("decoys retired", "ana", [3])
    assert verify_registry(registry, [])[0] == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("DELETE FROM balise.decoy WHERE number = 2", "a decoy of ana is gone"),
        ("UPDATE balise.decoy SET salt = gen_random_uuid() WHERE number = 2", "ana/2 is somebody"),
        (
            'UPDATE balise.decoy SET identity = \'{"full_name": "X Y"}\' WHERE number = 1',
            "ana/1 is somebody else",
        ),
        ("UPDATE balise.decoy SET issued_at = '2020-01-01'", r"another time \(and 2 more\)"),
        ("UPDATE balise.decoy SET retired_at = NULL", "retirement of decoy ana/3 is undone"),
    ],
)
def test_a_book_that_was_changed_is_told_and_not_recorded(
    registry: sa.Connection, session: PsycopgSession, change: str, complaint: str
) -> None:
    session.fetch("UPDATE balise.decoy SET retired_at = $1 WHERE number = 3", LATER)
    record_database(registry, session, LATER)
    before = told(registry)
    session.fetch(change)
    with pytest.raises(DatabaseProblem, match=complaint):
        record_database(registry, session, LATER)
    assert told(registry) == before
