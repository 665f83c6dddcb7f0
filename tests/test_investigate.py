"""Tracing across epochs: which one a leak is from, whichever key it marked with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table
from rich.console import Console

from pgbalise.database import apply_policy, enrol, open_epoch, revoke
from pgbalise.errors import InvalidInput
from pgbalise.extract import write_extract
from pgbalise.install import install
from pgbalise.investigate import Question, investigate
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.report.html import html
from pgbalise.report.text import verdict_panel
from pgbalise.session import PsycopgSession, connect
from tests.demonstration import marks_only

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
    document = marks_only(project)
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


def traced(cluster: Any, dpi: Any, leak: Path | list[Path], *keys: MasterKey) -> Any:
    return investigate(
        leak if isinstance(leak, list) else [leak],
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
    document = marks_only(project)
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


def test_a_source_that_changed_since_is_told_and_hides_nobody(
    cluster: Any, dpi: psycopg.Connection[Any], leaks: dict[str, Path]
) -> None:
    dpi.execute("DELETE FROM dpi.lab_result WHERE result_id % 2000 = 3")
    dpi.execute("SELECT setseed(0.5)")
    dpi.execute(
        "UPDATE dpi.lab_result SET value = round(value * (0.5 + random())),"
        " recorded_at = recorded_at + random() * interval '300 days' WHERE result_id % 2000 = 203"
    )
    report = traced(cluster, dpi, leaks["bob 3"], SECOND)
    assert report.verdict.accused == ["bob"]
    [change] = report.source
    assert change.rows_deleted == pytest.approx(0.1, abs=0.01)
    changed = dict(change.cells_changed)
    # values near those stored may as well be the thief's doing
    left = {part.carrier: dict(part.findings)["unchanged"] for part in report.noise}
    assert left["value"] == pytest.approx(0.89, abs=0.02)
    assert changed["recorded_at"] == pytest.approx(0.11, abs=0.02)


def test_files_of_one_name_are_told_apart(
    cluster: Any, dpi: psycopg.Connection[Any], leaks: dict[str, Path], tmp_path: Path
) -> None:
    files = []
    for name in ("alice 2", "carol 2"):
        files.append(tmp_path / name / "leak.csv")
        files[-1].parent.mkdir()
        leaks[name].rename(files[-1])
    report = traced(cluster, dpi, files, FIRST)
    assert sorted(report.verdict.accused) == ["alice", "carol"]
    assert [table.name for table in report.tables] == ["1: leak.csv", "2: leak.csv"]
    rows = [file.rows for file in report.files]
    assert rows == [table.rows_read for table in report.tables]
    assert min(rows) > 1900
    assert report.distinct_rows == sum(rows)


def test_what_of_an_archive_was_not_read_is_reported(
    cluster: Any, dpi: psycopg.Connection[Any], leaks: dict[str, Path], tmp_path: Path
) -> None:
    packed = tmp_path / "loot.zip"
    with ZipFile(packed, "w") as archive:
        archive.write(leaks["bob 3"], "bob.csv")
        archive.writestr("empty.csv", "")
        archive.writestr("towers.csv", "name,height\nEiffel,330\nMontparnasse,210\n")
    report = traced(cluster, dpi, packed, SECOND)
    assert report.verdict.accused == ["bob"]
    [line] = report.files[0].skipped
    assert "empty.csv" in line
    assert [table.relation for table in report.tables] == ["dpi.lab_result", None]
    shown = Console(width=100)
    with shown.capture() as screen:
        shown.print(verdict_panel(report))
    assert f"not read: {line}" in " ".join(screen.get().split())
    assert line in html(report, "en")


def test_keys_that_no_database_could_hold_stop_no_trace(
    cluster: Any, dpi: psycopg.Connection[Any], tmp_path: Path
) -> None:
    session = PsycopgSession(dpi)
    install(session)
    session.run("CREATE ROLE dora LOGIN")
    body = {"key": {"ipp": "text", "included_on": "date"}}
    body["carrier"] = {"weight_kg": {"type": "numeric(5,1)", "quantum": "0.1"}}
    with dpi.transaction():
        apply_policy(session, {"relation": {"dpi.patient": body}}, FIRST)
        enrol(session, ["dora"], RecipientClass.SECONDARY, FIRST)
    path = tmp_path / "dora.parquet"
    columns = ["ipp", "included_on", "weight_kg", "sex", "bmi", "family_name"]
    with connect(cluster.dsn(dpi.info.dbname, "dora")) as client:
        copy = client.read(f"SELECT {', '.join(columns)} FROM marked.patient LIMIT 1500", columns)
    odd = ["\x00", "a\x00b", "\\N", "\\.", "x" * 9_000, "\ud7ff\U0010ffff"]
    days = ["9999-12-31", "0000-00-00", "0044-01-01 BC", None]
    rows = [[text, day, "1", "F", "2", "x"] for text in odd for day in days]
    spoilt = pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True)))
    write_table(pa.concat_tables([copy, spoilt.cast(copy.schema)]), path)
    question = Question(cluster.dsn(dpi.info.dbname), [FIRST])
    report = investigate([path], question, alpha=1e-6, created_at=datetime(2026, 6, 1, tzinfo=UTC))
    assert report.verdict.accused == ["dora"]
    assert report.tables[0].aligned_by == "key"
