"""A case from its first leak to its conclusion, in a real registry, with real traces."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from pgbalise.errors import DatabaseProblem, InvalidInput, InvalidLeak
from pgbalise.extract import write_extract
from pgbalise.investigate import Question
from pgbalise.registry import cases, looks
from pgbalise.registry.case_commands import case_app
from pgbalise.registry.ledger import instant
from pgbalise.registry.signing import generate_signing_key, read_signing_key
from pgbalise.registry.store import Draft, append, open_registry, problems, sign, verify_registry
from pgbalise.session import connect
from tests.conftest import Hospital

QUERY = "SELECT result_id, value, recorded_at FROM marked.lab_result WHERE result_id % 400 = {}"
LAB = "dpi.lab_result"


@pytest.fixture(scope="module")
def leaks(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two extracts of the first recipient's and one of the second's, about 1,000 rows each."""
    folder = tmp_path_factory.mktemp("leaks")
    found = []
    for number, role in enumerate([0, 0, 1]):
        path = folder / f"leak{number}.csv"
        with connect(hospital.dsn(hospital.recipients[role])) as client:
            write_extract(client, QUERY.format(number), path)
        found.append(path)
    return found


@pytest.fixture
def command(registry: sa.Connection, registry_dsn: str) -> Callable[..., Any]:
    """Run ``pgbalise case`` with --json, return what it prints; with ``text``, as it is shown."""

    def run(*words: object, status: int = 0, text: bool = False) -> Any:
        where = ["--registry", registry_dsn] + ([] if text else ["--json"])
        done = CliRunner().invoke(
            case_app, [*map(str, words), *where], env={"COLUMNS": "100", "TERM": "dumb"}
        )
        if isinstance(done.exception, Exception):
            raise done.exception
        assert done.exit_code == status, done.output
        return done.stdout if text else json.loads(done.stdout)

    return run


@pytest.fixture
def trace(hospital: Hospital) -> list[object]:
    """What ``case run`` needs besides the files."""
    return ["--relation", LAB, "--dsn", hospital.dsn(), "--key", hospital.key_file]


def kinds(registry: sa.Connection) -> list[str]:
    with registry.begin():
        rows = registry.execute(
            sa.text("SELECT kind FROM balise_registry.entry ORDER BY sequence")
        ).scalars()
        return list(rows)


def test_a_case_is_kept_from_its_first_leak_to_its_conclusion(
    registry: sa.Connection,
    command: Callable[..., Any],
    hospital: Hospital,
    leaks: list[Path],
    trace: list[object],
    tmp_path: Path,
) -> None:
    alice, bob = hospital.recipients[:2]
    assert command("list") == []
    assert command("open", "forum post", "--alpha", "0.01")["case"] == 1
    command("add", 1, leaks[0], "--found", "2026-01-31T12:00")
    report = tmp_path / "report.html"
    first = command("run", 1, leaks[0], *trace, "--report", report)
    assert [v["recipient"] for v in first["verdicts"] if v["accused"]] == [alice]
    assert (first["look"], first["alpha"], first["case_alpha"]) == (1, 0.005, 0.01)
    assert first["report_sha256"] == hashlib.sha256(report.read_bytes()).hexdigest()

    # the second look sees both leaks, at less
    command("add", 1, leaks[2])
    with pytest.raises(InvalidInput, match=r"file 2 of case 1, leak2\.csv, is not given"):
        command("run", 1, leaks[0], *trace)
    second = command("run", 1, leaks[2], leaks[0], *trace)
    assert {v["recipient"] for v in second["verdicts"] if v["accused"]} == {alice, bob}
    assert (second["look"], second["alpha"]) == (2, 0.01 / 6)

    # the same question answers the same, under any file name, and costs nothing
    moved = tmp_path / "renamed.csv"
    shutil.copy(leaks[0], moved)
    third = command("run", 1, moved, *trace, "--only")
    assert (third["look"], third["repeats"]) == (1, True)
    assert third["verdicts"] == first["verdicts"]
    assert third["verdict_sha256"] == first["verdict_sha256"]

    shown = command("show", 1)
    assert [(run["look"], run["files"]) for run in shown["runs"]] == [
        (1, [1]),
        (2, [1, 2]),
        (1, [1]),
    ]
    assert shown["files"][0]["sha256"] == hashlib.sha256(leaks[0].read_bytes()).hexdigest()
    assert shown["files"][0]["size"] == leaks[0].stat().st_size
    assert (shown["looks"], shown["faults"]) == (2, [])
    told = [entry["body"] for entry in shown["history"] if entry["kind"] == "trace_run"]
    strongest = [(v["recipient"], v["log10_e_value"]) for v in second["verdicts"] if v["accused"]]
    in_ledger = [(v["recipient"], float(v["log10_e_value"])) for v in told[1]["accused"]]
    assert in_ledger == strongest
    assert told[0]["verdict_sha256"] == first["verdict_sha256"]
    assert told[0]["report_sha256"] == first["report_sha256"]
    assert told[2]["repeats"] == shown["runs"][0]["number"]

    command("close", 1, "--conclusion", "both copies are in it")
    for words in (
        ["add", 1, leaks[1]],
        ["run", 1, leaks[0], *trace],
        ["close", 1, "--conclusion", "x"],
    ):
        with pytest.raises(InvalidInput, match="case 1 is closed and takes nothing more"):
            command(*words)
    assert kinds(registry) == [
        "case_opened",
        "leak_added",
        "trace_begun",
        "trace_run",
        "leak_added",
        "trace_begun",
        "trace_run",
        "trace_run",
        "case_closed",
    ]
    [listed] = command("list")
    assert listed["conclusion"] == "both copies are in it"

    # reopened, the looks go on: the bound still holds
    command("reopen", 1, "--reason", "another file")
    assert command("list")[0]["conclusion"] is None
    command("add", 1, leaks[1])
    assert command("run", 1, leaks[1], *trace, "--only")["look"] == 3
    command("close", 1, "--conclusion", "still both")
    assert command("show", 1)["faults"] == []
    private = tmp_path / "ledger.key"
    public = generate_signing_key(private)
    sign(registry, read_signing_key(private), datetime.now(UTC))
    assert verify_registry(registry, [public])[0] == []


def test_only_files_with_the_recorded_content_are_looked_at(
    command: Callable[..., Any], leaks: list[Path], trace: list[object], tmp_path: Path
) -> None:
    command("open", "a case")
    with pytest.raises(InvalidInput, match="its SHA-256 is that of no file of case 1"):
        command("run", 1, leaks[0], *trace)
    changed = tmp_path / "leak0.csv"
    changed.write_bytes(leaks[0].read_bytes() + b"\n")
    command("add", 1, leaks[0])
    with pytest.raises(InvalidInput, match="its SHA-256 is that of no file of case 1"):
        command("run", 1, changed, *trace)
    with pytest.raises(InvalidInput, match=r"leak0\.csv is in case 1 already, as file 1"):
        command("add", 1, changed, leaks[0])
    with pytest.raises(InvalidLeak, match="No such file"):
        command("add", 1, tmp_path / "none.csv")
    with pytest.raises(InvalidInput, match="in the future"):
        command("add", 1, changed, "--found", "2100-01-01")
    for words in (["show", 7], ["add", 7, leaks[0]], ["reopen", 7, "--reason", "x"]):
        with pytest.raises(InvalidInput, match="there is no case 7"):
            command(*words)
    with pytest.raises(InvalidInput, match="case 1 is open"):
        command("reopen", 1, "--reason", "x")
    with pytest.raises(InvalidInput, match="with a conclusion"):
        command("close", 1, "--conclusion", " ")
    with pytest.raises(InvalidInput, match="alpha is between 0 and 1"):
        command("open", "a case", "--alpha", "1")
    with pytest.raises(InvalidInput, match="needs a title"):
        command("open", " ")
    with pytest.raises(InvalidInput, match=r"no policy of hospital ever had dpi\.lab"):
        command("run", 1, leaks[0], "--relation", "dpi.lab", *trace[2:])
    with pytest.raises(InvalidInput, match="there is no such folder"):
        command("run", 1, leaks[0], *trace, "--report", tmp_path / "none" / "report.html")
    # nothing of this took a look
    shown = command("show", 1)
    assert (shown["looks"], len(shown["files"]), shown["runs"]) == (0, 1, [])
    command("open", "another")
    assert command("add", 2, leaks[0])["files"][0]["cases"] == [1]


def test_a_look_whose_trace_failed_is_spent(
    command: Callable[..., Any],
    hospital: Hospital,
    leaks: list[Path],
    trace: list[object],
    tmp_path: Path,
) -> None:
    none = tmp_path / "other.csv"
    none.write_text("colour,shape\nred,round\nblue,long\n")
    command("open", "a case")
    command("add", 1, none, leaks[0])
    with pytest.raises(InvalidLeak):
        command("run", 1, none, *trace, "--only")
    shown = command("show", 1)
    assert [run["state"] for run in shown["runs"]] == ["lost"]
    assert command("run", 1, leaks[0], *trace, "--only")["look"] == 2
    text = command("show", 1, text=True)
    assert "Look 1 has no verdict" in text


def test_a_run_that_is_killed_leaves_a_spent_look(
    registry_dsn: str,
    command: Callable[..., Any],
    hospital: Hospital,
    leaks: list[Path],
    trace: list[object],
    project: Path,
) -> None:
    command("open", "a case", "--alpha", "0.01")
    command("add", 1, leaks[0])
    program = "from pgbalise.registry.case_commands import case_app; case_app()"
    words = ["run", "1", leaks[0], *trace, "--registry", registry_dsn]
    with psycopg.connect(hospital.dsn()) as other:
        # the trace waits for the stored rows
        other.execute("LOCK TABLE dpi.lab_result IN ACCESS EXCLUSIVE MODE")
        process = subprocess.Popen([sys.executable, "-c", program, *map(str, words)], cwd=project)
        try:
            for _ in range(600):
                runs = command("show", 1)["runs"]
                if runs:
                    break
                time.sleep(0.1)
            assert [run["state"] for run in runs] == ["running"]
            with pytest.raises(InvalidInput, match="a trace of case 1 is running"):
                command("close", 1, "--conclusion", "x")
            assert "running" in command("show", 1, text=True)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    for _ in range(100):
        [lost] = command("show", 1)["runs"]
        if lost["state"] == "lost":
            break
        time.sleep(0.1)
    assert (lost["state"], lost["verdict"], lost["alpha"]) == ("lost", None, 0.005)
    again = command("run", 1, leaks[0], *trace)
    assert (again["look"], again["alpha"], again["repeats"]) == (2, 0.01 / 6, False)
    assert command("show", 1)["faults"] == []


def test_runs_at_the_same_time_take_different_looks(
    registry_dsn: str,
    command: Callable[..., Any],
    hospital: Hospital,
    leaks: list[Path],
) -> None:
    command("open", "a case")
    command("add", 1, *leaks)
    question = Question(hospital.dsn(), [hospital.key], LAB)

    def look(path: Path) -> int:
        with open_registry(registry_dsn) as mine:
            found = looks.run(mine, 1, [path], question, now, only=True, progress=lambda _: None)
        return found.run.look

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(look, leaks)) == [1, 2, 3]


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def small(empty_db: psycopg.Connection[Any], cluster: Any, tmp_path: Path) -> Any:
    """A database that a test may change, a leak of it, and how to ask."""
    from pgbalise.database import enrol
    from pgbalise.keyfile import generate_key
    from pgbalise.marking.policy import RecipientClass
    from tests.registry.conftest import protected

    key = generate_key(tmp_path / "master.key")
    session = protected(empty_db, key)
    empty_db.execute("INSERT INTO vital SELECT n, 60 + n % 40 FROM generate_series(1, 3000) n")
    empty_db.execute("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN")
    with empty_db.transaction():
        enrol(session, ["alice", "bob"], RecipientClass.SECONDARY, key)
    leak = tmp_path / "leak.csv"
    with connect(cluster.dsn(empty_db.info.dbname, "alice")) as client:
        write_extract(client, "SELECT id, pulse FROM marked.vital", leak)
    return leak, Question(cluster.dsn(empty_db.info.dbname), [key], "public.vital")


def test_a_repeated_look_is_free_only_while_its_verdict_is_the_same(
    registry: sa.Connection, empty_db: psycopg.Connection[Any], small: Any
) -> None:
    leak, question = small
    steps: list[str] = []

    def look() -> tuple[int, bool, float]:
        found = looks.run(registry, 1, [leak], question, now, progress=steps.append)
        assert found.report.verdict.alpha == found.run.alpha
        assert found.report.verdict.accused == found.run.accused == ["alice"]
        return found.run.look, found.run.repeats is not None, found.run.alpha

    cases.open_case(registry, "a case", 0.06, now())
    cases.add_leaks(registry, 1, [leak], now(), now())
    assert look() == (1, False, 0.03)
    assert look() == (1, True, 0.03)
    # stored rows that the leak has not change nothing
    empty_db.execute("INSERT INTO vital VALUES (9001, 70)")
    assert look() == (1, True, 0.03)
    # those that it has do: the patient's record was corrected
    empty_db.execute("UPDATE vital SET pulse = pulse + 20 WHERE id <= 500")
    assert look() == (2, False, 0.01)
    assert look() == (2, True, 0.01)
    # one recipient more is one more who might be accused
    empty_db.execute("CREATE ROLE carol LOGIN")
    from pgbalise.database import enrol
    from pgbalise.marking.policy import RecipientClass
    from pgbalise.session import PsycopgSession

    with empty_db.transaction():
        enrol(PsycopgSession(empty_db), ["carol"], RecipientClass.SECONDARY, question.keys[0])
    assert look() == (3, False, 0.005)
    assert cases.faults(cases.case(registry, 1)) == []


def test_a_role_with_the_writer_s_privileges_keeps_cases(
    registry: sa.Connection, cluster: Any, empty_db: psycopg.Connection[Any], small: Any
) -> None:
    leak, question = small
    empty_db.execute(
        "CREATE ROLE case_keeper LOGIN; GRANT USAGE ON SCHEMA balise_registry TO case_keeper;"
        " GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA balise_registry TO case_keeper;"
        " GRANT UPDATE (closed_at, conclusion) ON balise_registry.investigation TO case_keeper;"
        " GRANT UPDATE (verdict, ended_at, report_digest) ON balise_registry.trace TO case_keeper"
    )
    with open_registry(cluster.dsn(empty_db.info.dbname, "case_keeper")) as mine:
        cases.open_case(mine, "a case", 0.06, now())
        cases.add_leaks(mine, 1, [leak], now(), now())
        found = looks.run(mine, 1, [leak], question, now, progress=lambda _: None)
        assert found.run.accused == ["alice"]
        cases.close_case(mine, 1, "it was alice's copy", now())
        cases.reopen_case(mine, 1, "or was it", now())
        with pytest.raises(DatabaseProblem), mine.begin(), problems():
            mine.execute(sa.text("UPDATE balise_registry.trace SET look = 7"))
    empty_db.execute("DROP OWNED BY case_keeper")


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        (
            "UPDATE {}.trace SET verdict = jsonb_set(verdict, '{{verdicts,0,accused}}', 'false')",
            "look 1: not what the ledger's entry trace_run says",
        ),
        ("UPDATE {}.trace SET look = 2", "look 2: not what the ledger's entry trace_begun says"),
        ("DELETE FROM {}.trace", "run 1: in the ledger, and no longer in the table"),
        ("UPDATE {}.leak SET file_digest = sha256('x')", "file 1: not what the ledger"),
        ("DELETE FROM {}.leak", "file 1: in the ledger, and no longer in the table"),
        ("UPDATE {}.investigation SET alpha = 0.5", "the case: not what the ledger"),
        ("UPDATE {}.investigation SET conclusion = 'nobody'", "the conclusion: not what"),
    ],
)
def test_what_was_changed_in_the_tables_contradicts_the_ledger(
    registry: sa.Connection,
    empty_db: psycopg.Connection[Any],
    small: Any,
    statement: str,
    fault: str,
) -> None:
    leak, question = small
    cases.open_case(registry, "a case", 0.06, now())
    cases.add_leaks(registry, 1, [leak], now(), now())
    looks.run(registry, 1, [leak], question, now, progress=lambda _: None)
    cases.close_case(registry, 1, "it was alice's copy", now())
    assert cases.faults(cases.case(registry, 1)) == []
    empty_db.execute(statement.format("balise_registry").encode())
    assert any(told.startswith(fault) for told in cases.faults(cases.case(registry, 1)))


def test_the_extracts_that_may_be_the_source_are_named(
    registry: sa.Connection,
    command: Callable[..., Any],
    hospital: Hospital,
    leaks: list[Path],
    trace: list[object],
) -> None:
    from pgbalise.registry.extracts import draft
    from pgbalise.registry.record import identity
    from tests.proxy.records import intent, name, outcome

    with connect(hospital.dsn()) as session:
        database, system = identity(session)
    found_at = now() - timedelta(seconds=1)
    rows = len(leaks[0].read_text().splitlines()) - 1
    touched = [{"relation": LAB, "carriers": ["recorded_at", "value"]}]
    with registry.begin():
        for extract, role, delivered, where in (
            ("small", 0, 12, system),
            ("right", 0, rows, system),
            ("large", 0, 400_123, system),
            ("another's", 1, rows, system),
            ("elsewhere", 0, rows, "1"),
        ):
            times = {"started_at": instant(found_at), "ended_at": instant(found_at)}
            told = intent(
                name(extract),
                at=times["started_at"],
                recipient=hospital.recipients[role],
                database=database,
                system=where,
                relations=touched,
            )
            for record in (told, outcome(name(extract), delivered, **times)):
                made = draft(record)
                assert isinstance(made, Draft)
                append(registry, [made], now())
    command("open", "a case")
    command("add", 1, leaks[0])
    found = command("run", 1, leaks[0], *trace)["extracts"]
    assert (found["fitting"], found["considered"]) == (2, 3)
    assert [one["sequence"] for one in found["best"]] == [3, 5, 1]
    assert found["best"][2]["contradicts"] == [f"delivered 12 rows, the leak has {rows:,}"]
    text = command("run", 1, leaks[0], *trace, text=True)
    assert "2 of 3 extracts of the accused in the ledger may be the source." in text
    assert "the same verdict as before: no look was spent" in text


def test_what_others_wrote_is_shown_as_text(
    registry: sa.Connection, command: Callable[..., Any], tmp_path: Path
) -> None:
    leak = tmp_path / "a\x1b[31m[bold]\udcff.csv"
    leak.write_text("x")
    command("open", "[red]\x1b[31mtitle")
    command("add", 1, leak)
    command("close", 1, "--conclusion", "[blink]\x1b[5mnobody")
    for shown in (command("list", text=True), command("show", 1, text=True)):
        assert "\x1b" not in shown
        assert "[red]\\u001b[31mtitle" in shown
    assert "a\\u001b[31m[bold]\ufffd.csv" in shown
    assert "[blink]\\u001b[5mnobody" in shown
