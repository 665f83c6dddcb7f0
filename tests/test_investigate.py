"""Tracing across epochs: which one a leak is from, whichever key it marked with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pgbalise.database import apply_policy, enrol, open_epoch, revoke
from pgbalise.errors import InvalidInput
from pgbalise.extract import write_extract
from pgbalise.install import install
from pgbalise.investigate import Question, investigate
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass, load_document
from pgbalise.session import PsycopgSession, connect

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

FIRST, SECOND, OTHER = (MasterKey(bytes(range(n, n + 32))) for n in (0, 1, 2))
QUERY = "SELECT result_id, value, recorded_at FROM {} WHERE result_id % 200 = 3"


@pytest.fixture
def leaks(
    cluster: Any, dpi: psycopg.Connection[Any], project: Path, tmp_path: Path
) -> dict[str, Path]:
    """Extracts of three epochs: 1 and 2 under the first key, 3 under the second."""
    session = PsycopgSession(dpi)
    install(session)
    document = load_document((project / "pgbalise/demo/policy.toml").read_text("utf-8"))
    names = ["alice", "bob", "carol"]
    for name in names:
        session.run("CREATE ROLE %I LOGIN", name)
    found = {"raw": tmp_path / "raw.csv"}

    def extract(role: str, epoch: int) -> None:
        path = tmp_path / f"{role}{epoch}.csv"
        with connect(cluster.dsn(dpi.info.dbname, role)) as client:
            write_extract(client, QUERY.format("marked.lab_result"), path)
        found[f"{role} {epoch}"] = path

    with dpi.transaction():
        apply_policy(session, document, FIRST)
        enrol(session, ["alice", "bob"], RecipientClass.SECONDARY, FIRST)
    extract("alice", 1)
    with dpi.transaction():
        open_epoch(session, FIRST)
        enrol(session, ["carol"], RecipientClass.SECONDARY, FIRST)
    extract("alice", 2)
    extract("carol", 2)
    with dpi.transaction():
        revoke(session, "alice")
        open_epoch(session, SECOND)
    extract("bob", 3)
    write_extract(session, QUERY.format("dpi.lab_result"), found["raw"])
    return found


def traced(cluster: Any, dpi: Any, leak: Path, *keys: MasterKey) -> Any:
    return investigate(
        [leak],
        Question(cluster.dsn(dpi.info.dbname), keys, "dpi.lab_result"),
        alpha=1e-6,
        created_at=datetime(2026, 6, 1, tzinfo=UTC),
    )


def test_a_trace_says_whose_copy_it_is_and_of_which_epoch(
    cluster: Any, dpi: psycopg.Connection[Any], leaks: dict[str, Path]
) -> None:
    for leak, path in leaks.items():
        report = traced(cluster, dpi, path, SECOND, FIRST)
        if leak == "raw":
            assert report.verdict.accused == []
            continue
        role, epoch = leak.split()
        assert report.verdict.accused == [role]
        assert report.epoch == int(epoch)
        key = SECOND if epoch == "3" else FIRST
        assert report.key_fingerprint == key.fingerprint()
        assert report.untried_epochs == ()
        assert report.verdict.recipients == 3
        assert (report.epoch_closed_at is None) == (epoch == "3")


def test_a_leak_of_an_epoch_whose_key_is_not_given_names_nobody(
    cluster: Any, dpi: psycopg.Connection[Any], leaks: dict[str, Path]
) -> None:
    report = traced(cluster, dpi, leaks["alice 2"], SECOND)
    assert report.verdict.accused == []
    assert report.untried_epochs == (1, 2)
    with pytest.raises(InvalidInput, match="no epoch marks with this master key"):
        traced(cluster, dpi, leaks["alice 2"], OTHER)


def test_a_leak_of_an_older_policy_of_the_same_epoch_is_traced(
    cluster: Any, dpi: psycopg.Connection[Any], leaks: dict[str, Path], project: Path
) -> None:
    document = load_document((project / "pgbalise/demo/policy.toml").read_text("utf-8"))
    del document["relation"]["dpi.lab_result"]["carrier"]["value"]
    session = PsycopgSession(dpi)
    with dpi.transaction():
        apply_policy(session, document, SECOND)
    assert traced(cluster, dpi, leaks["bob 3"], SECOND).verdict.accused == ["bob"]
    del document["relation"]["dpi.lab_result"]
    with dpi.transaction():
        apply_policy(session, document, SECOND)
    assert traced(cluster, dpi, leaks["bob 3"], SECOND).verdict.accused == ["bob"]
    assert traced(cluster, dpi, leaks["alice 1"], FIRST).epoch == 1


def test_a_commitment_taken_out_of_the_catalog_hides_nobody(
    cluster: Any, dpi: psycopg.Connection[Any], leaks: dict[str, Path]
) -> None:
    dpi.execute("DELETE FROM balise.commitment WHERE role_name = 'alice' AND epoch = 1")
    with pytest.raises(InvalidInput, match="codeword of alice is not the one committed to"):
        traced(cluster, dpi, leaks["alice 1"], FIRST)
    assert traced(cluster, dpi, leaks["bob 3"], FIRST, SECOND).verdict.accused == ["bob"]
