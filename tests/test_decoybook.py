from __future__ import annotations

from datetime import UTC, datetime, timedelta
from json import dumps
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgbalise.decoybook import enter, issued
from pgbalise.decoys.identity import Mode, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.traits import TraitKind
from pgbalise.errors import DatabaseProblem
from pgbalise.install import install
from pgbalise.session import PsycopgSession

if TYPE_CHECKING:
    from pathlib import Path

ISSUED = datetime(2026, 3, 1, 10, 20, 30, 123456, UTC)
DECOYS = [
    IssuedDecoy(
        7,
        "lab",
        1,
        Mode.SAFE,
        {Role.FAMILY_NAME: 'D\'Œuvré "x" \\ é', Role.GIVEN_NAME: "Zoé", Role.NIR_13: "2" * 13},
        {TraitKind.PERSON: 1e9, TraitKind.NIR: 12.5},
        {"patient_id": "12"},
        ISSUED,
    ),
    IssuedDecoy(
        8,
        "research",
        3,
        Mode.BELIEVABLE,
        {Role.MAIL: "A.B@example.org", Role.RECORD_NUMBER: "ab-123456"},
        {TraitKind.MAIL: 3.0},
        {"site": "a,b", "patient_id": "{1}"},
        ISSUED,
        ISSUED + timedelta(days=2),
    ),
]


@pytest.fixture
def book(empty_db: psycopg.Connection[Any]) -> PsycopgSession:
    session = PsycopgSession(empty_db)
    install(session)
    return session


def test_what_was_entered_is_what_is_read(book: PsycopgSession) -> None:
    with book.connection.transaction():
        enter(book, DECOYS, "ab12")
    assert issued(book) == DECOYS
    assert issued(book, ["research"]) == DECOYS[1:]
    assert issued(book, retired=False) == DECOYS[:1]
    assert issued(book, []) == []
    assert book.fetch("SELECT DISTINCT key_fingerprint FROM balise.decoy") == [("ab12",)]
    kept = book.fetch("SELECT decoy_id, kind, value FROM balise.decoy_trait")
    wanted = {(d.decoy_id, t.kind.value, t.value) for d in DECOYS for t in d.traits}
    assert set(kept) == wanted
    assert len(wanted) >= 3


def test_the_server_enters_the_same(
    book: PsycopgSession, empty_db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    # PL/Python's own session, on the server
    empty_db.execute("CREATE TEMPORARY TABLE given (body text)")
    for decoy in DECOYS:
        empty_db.execute("INSERT INTO given VALUES (%s)", [dumps(decoy.as_dict())])
    empty_db.execute("SELECT balise.load_library()")
    empty_db.execute(
        """
        DO LANGUAGE plpython3u $$
        from json import loads
        from pgbalise.decoybook import enter
        from pgbalise.decoys.issued import IssuedDecoy
        from pgbalise.plpython import PlpySession
        bodies = [loads(row["body"]) for row in plpy.execute("TABLE given")]
        enter(PlpySession(plpy), [IssuedDecoy.from_dict(body) for body in bodies], "ab12")
        $$
        """
    )
    assert issued(book) == DECOYS


def test_a_number_is_given_once(book: PsycopgSession) -> None:
    with book.connection.transaction():
        enter(book, DECOYS, "ab12")
    with (
        pytest.raises(DatabaseProblem, match="duplicate key") as caught,
        book.connection.transaction(),
    ):
        enter(book, DECOYS[:1], "ab12")
    assert "Zoé" not in str(caught.value)
    assert issued(book) == DECOYS


def test_only_the_auditor_reads_the_book(book: PsycopgSession, cluster: Any) -> None:
    book.fetch("CREATE ROLE book_auditor LOGIN IN ROLE balise_auditor")
    book.fetch("CREATE ROLE book_admin LOGIN IN ROLE balise_admin")
    with book.connection.transaction():
        enter(book, DECOYS, "ab12")
    name = book.connection.info.dbname
    with psycopg.connect(cluster.dsn(name, "book_auditor"), autocommit=True) as connection:
        assert issued(PsycopgSession(connection)) == DECOYS
    with (
        psycopg.connect(cluster.dsn(name, "book_admin"), autocommit=True) as connection,
        pytest.raises(DatabaseProblem, match="permission denied"),
    ):
        issued(PsycopgSession(connection))
