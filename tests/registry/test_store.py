"""The ledger in the database: added to by many at once, exported, imported, signed, guarded."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from pgbalise.errors import DatabaseProblem, InvalidInput
from pgbalise.registry.ledger import Entry, verify
from pgbalise.registry.store import (
    Draft,
    append,
    checkpoints,
    entries,
    export_lines,
    import_lines,
    open_registry,
    sign,
    upgrade,
    verify_registry,
)

AT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
KEY = bytes(range(32))


def draft(**body: Any) -> Draft:
    return Draft("extract", body)


def stored(registry: sa.Connection, **filters: Any) -> list[Entry]:
    with registry.begin():
        return list(entries(registry, **filters))


def fill(registry: sa.Connection, count: int = 5) -> list[Entry]:
    with registry.begin():
        return append(registry, [draft(rows=n, text='é "\\\n\u2028😀') for n in range(count)], AT)


def test_entries_come_back_as_they_were_hashed(registry: sa.Connection) -> None:
    written = fill(registry, 2500)
    assert stored(registry) == written
    assert [entry.sequence for entry in written] == list(range(1, 2501))
    assert verify_registry(registry, [])[0] == []


def test_writers_at_the_same_time_never_fork_the_chain(
    registry: sa.Connection, registry_dsn: str
) -> None:
    gate, failures = threading.Barrier(8), []

    def work(writer: int) -> None:
        try:
            with open_registry(registry_dsn) as own:
                gate.wait()
                for n in range(15):
                    with own.begin() as transaction:
                        append(own, [draft(writer=writer, n=n), draft(writer=writer, n=n)], AT)
                        if n % 5 == 4:
                            transaction.rollback()
        except Exception as failure:  # noqa: BLE001
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(stored(registry)) == 8 * 12 * 2
    assert verify_registry(registry, [])[0] == []


def test_the_database_itself_refuses_a_fork(
    registry: sa.Connection, empty_db: psycopg.Connection[Any]
) -> None:
    # whoever writes without asking for the lock
    fill(registry)
    with pytest.raises(psycopg.errors.UniqueViolation):
        empty_db.execute(
            "INSERT INTO balise_registry.entry (sequence, recorded_at, kind, body, previous, hash)"
            " SELECT 6, now(), 'extract', '{}', previous, sha256('x')"
            " FROM balise_registry.entry WHERE sequence = 5"
        )


def test_one_event_is_recorded_once(registry: sa.Connection) -> None:
    with registry.begin():
        assert len(append(registry, [draft(origin="a"), draft(origin="a"), draft()], AT)) == 2
    with registry.begin():
        assert len(append(registry, [draft(origin="b"), draft(origin="a"), draft()], AT)) == 2
    assert [entry.body.get("origin") for entry in stored(registry)] == ["a", None, "b", None]


def test_entries_are_found_by_recipient_relation_kind_and_time(registry: sa.Connection) -> None:
    began = "2026-01-30T08:00:00.000000Z"
    with registry.begin():
        append(registry, [draft(recipient="alice", relations=["marked.t"], started_at=began)], AT)
        append(registry, [draft(recipient="bob", relations=["marked.t", "marked.u"])], AT)
        append(registry, [Draft("enrolment", {"recipient": "alice"})], AT + timedelta(days=1))

    def numbers(**filters: Any) -> list[int]:
        return [entry.sequence for entry in stored(registry, **filters)]

    assert numbers() == [1, 2, 3]
    assert numbers(recipient="alice") == [1, 3]
    assert numbers(relation="marked.u") == [2]
    assert numbers(relation="marked.t", recipient="alice") == [1]
    assert numbers(kind="enrolment") == [3]
    assert numbers(since=AT) == [2, 3]
    assert numbers(until=AT) == [1]
    assert numbers(since=AT, until=AT + timedelta(days=1)) == [2]
    assert numbers(limit=2) == [2, 3]
    assert numbers(recipient="alice", limit=1) == [3]


@pytest.mark.parametrize("table", ["entry", "checkpoint"])
@pytest.mark.parametrize("role", ["origin", "replica"])
@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET hash = hash WHERE false", "DELETE FROM {}", "TRUNCATE {} CASCADE"]
)
def test_the_ledger_refuses_changes_even_from_a_superuser(
    registry: sa.Connection,
    empty_db: psycopg.Connection[Any],
    table: str,
    role: str,
    statement: str,
) -> None:
    fill(registry)
    empty_db.execute(f"SET session_replication_role = {role}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="can only be added to"):
        empty_db.execute(statement.format(f"balise_registry.{table}").encode())


def test_who_gets_round_the_trigger_is_seen_by_the_chain(
    registry: sa.Connection, empty_db: psycopg.Connection[Any]
) -> None:
    fill(registry)
    signature = sign(registry, KEY, AT)
    empty_db.execute("ALTER TABLE balise_registry.entry DISABLE TRIGGER append_only")
    empty_db.execute("UPDATE balise_registry.entry SET body = '{}' WHERE sequence = 3")
    assert [str(f) for f in verify_registry(registry, [signature.public_key])[0]] == [
        "entry 3: edited: its content does not give its hash"
    ]
    with pytest.raises(InvalidInput, match="not whole, entry 3"):
        sign(registry, KEY, AT)


def test_a_checkpoint_is_made_once_and_seen_by_verify(registry: sa.Connection) -> None:
    with pytest.raises(InvalidInput, match="empty"):
        sign(registry, KEY, AT)
    fill(registry)
    made = sign(registry, KEY, AT)
    assert made.sequence == 5
    assert sign(registry, KEY, AT + timedelta(days=1)) == made
    fill(registry)
    second = sign(registry, KEY, AT)
    with registry.begin():
        assert checkpoints(registry) == [made, second]
    assert verify_registry(registry, [made.public_key]) == ([], 10, [made, second])


def test_an_export_moves_the_ledger_to_another_registry(
    registry: sa.Connection, empty_db: psycopg.Connection[Any]
) -> None:
    fill(registry, 3)
    early = list(export_lines(registry))
    fill(registry, 3)
    sign(registry, KEY, AT)
    whole, lines = stored(registry), list(export_lines(registry))
    assert import_lines(registry, lines) == 0
    with pytest.raises(InvalidInput, match="ends before"):
        import_lines(registry, early)
    empty_db.execute("DROP SCHEMA balise_registry CASCADE")
    upgrade(registry)
    assert import_lines(registry, early) == 3
    assert import_lines(registry, lines) == 3
    assert import_lines(registry, lines) == 0
    assert stored(registry) == whole
    assert list(export_lines(registry)) == lines
    broken = [*lines[:2], *lines[3:]]
    with pytest.raises(InvalidInput, match="line 3: its chain is broken"):
        import_lines(registry, broken)


def test_the_ledger_of_another_registry_is_not_mixed_in(
    registry: sa.Connection, empty_db: psycopg.Connection[Any]
) -> None:
    with registry.begin():
        append(registry, [draft(n=1)], AT)
    other = list(export_lines(registry))
    empty_db.execute("DROP SCHEMA balise_registry CASCADE")
    upgrade(registry)
    with registry.begin():
        append(registry, [draft(n=2)], AT)
    with pytest.raises(InvalidInput, match="another registry"):
        import_lines(registry, other)
    assert verify(stored(registry), [], []) == []


@pytest.mark.parametrize(
    "dsn",
    [
        "host=localhost password=hunter2 two words",
        "postgresql://auditor:hunter2@x@127.0.0.1:1/registry",
        "postgresql://auditor:hunter2/3@127.0.0.1:1/registry",
        "postgresql://auditor:hunter2@127.0.0.1:1/registry",
        "postgresql://auditor:x@127.0.0.1:1/registry?password=hunter2&sslmod=x",
    ],
)
def test_no_error_holds_the_password(dsn: str) -> None:
    with pytest.raises((InvalidInput, DatabaseProblem)) as caught, open_registry(dsn):
        pass
    assert "hunter2" not in str(caught.value)


def test_a_database_without_registry_is_told_so(registry_dsn: str) -> None:
    with (
        open_registry(registry_dsn) as registry,
        pytest.raises(DatabaseProblem, match=r"no registry.*pgbalise registry upgrade"),
    ):
        verify_registry(registry, [])
