"""The command line as its users meet it: real server and files, exit statuses, one-line errors."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow.parquet
import pytest

if TYPE_CHECKING:
    from pathlib import Path

POLICY = "pgbalise/demo/policy.toml"


def run(*args: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pgbalise", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | (env or {}),
    )


def complaint(*args: object, env: dict[str, str] | None = None) -> str:
    """What a command that must fail says: one line on standard error, exit status 2."""
    done = run(*args, env=env)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("pgbalise: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key file made by the command."""
    path = tmp_path / "master.key"
    assert run("key", "generate", path).returncode == 0
    return path


def test_a_key_file_is_for_its_owner_and_never_overwritten(key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_text()
    assert "cannot be made" in complaint("key", "generate", key)
    assert key.read_text() == before


def test_a_dba_takes_a_database_from_nothing_to_a_verdict(
    cluster: Any, dpi: psycopg.Connection[Any], key: Path, tmp_path: Path, project: Path
) -> None:
    dsn = cluster.dsn(dpi.info.dbname)
    policy = project / POLICY
    assert "no pgbalise extension" in complaint("status", "--dsn", dsn)
    assert run("init", "--dsn", dsn).returncode == 0
    assert "no policy has been applied" in complaint(
        "recipient", "add", "nobody", "--dsn", dsn, "--key", key
    )
    plan = run("policy", "plan", policy, "--dsn", dsn)
    assert "CREATE OR REPLACE VIEW marked.lab_result" in plan.stdout
    assert dpi.execute("SELECT to_regclass('marked.lab_result')").fetchone() == (None,)
    applied = run("policy", "apply", policy, "--dsn", dsn, "--key", key, "--json")
    assert "marked.lab_result" in json.loads(applied.stdout)["views"]
    for role in ("alice", "bob", "carol"):
        dpi.execute(f"CREATE ROLE {role} LOGIN".encode())
    added = run("recipient", "add", "alice", "bob", "--dsn", dsn, "--key", key, "--json")
    assert json.loads(added.stdout)["enrolled"] == ["alice", "bob"]
    command = f"cat {key}"
    assert (
        run(
            "recipient", "add", "carol", "--class", "care", "--dsn", dsn, "--key-command", command
        ).returncode
        == 0
    )

    alice = cluster.dsn(dpi.info.dbname, "alice")
    query = "SELECT * FROM marked.lab_result ORDER BY result_id LIMIT 3000"
    for ending in ("csv", "parquet"):
        leak = tmp_path / f"leak.{ending}"
        done = run("extract", query, "-o", leak, "--dsn", alice, "--json")
        assert json.loads(done.stdout) == {"file": str(leak), "rows": 3000}
        report = tmp_path / f"{ending}.html"
        traced = run(
            "trace",
            leak,
            "--relation",
            "dpi.lab_result",
            "--dsn",
            dsn,
            "--key",
            key,
            "--json",
            "--report",
            report,
        )
        assert traced.returncode == 0, traced.stderr
        answer = json.loads(traced.stdout)
        assert answer["verdicts"][0]["recipient"] == "alice"
        assert [v["accused"] for v in answer["verdicts"]] == [True, False, False]
        assert answer["rows"] == {"read": 3000, "aligned": 3000}
        assert set(answer) == {
            "verdicts",
            "epoch",
            "untried_epochs",
            "threshold_log10",
            "alpha",
            "recipients",
            "rows",
            "rounds",
            "tables",
            "cells",
        }
        assert "alice" in report.read_text("utf-8")

    raw = tmp_path / "raw.csv"
    run("extract", query.replace("marked", "dpi"), "-o", raw, "--dsn", dsn)
    nobody = run("trace", raw, "--relation", "dpi.lab_result", "--dsn", dsn, "--key", key)
    assert nobody.returncode == 1
    assert run("recipient", "revoke", "alice", "--dsn", dsn).returncode == 0
    refused = complaint("extract", query, "-o", tmp_path / "no.csv", "--dsn", alice)
    assert "permission denied" in refused
    assert not (tmp_path / "no.csv").exists()
    again = run("trace", leak, "--relation", "dpi.lab_result", "--dsn", dsn, "--key", key, "--json")
    assert json.loads(again.stdout)["verdicts"][0] | {"log10_e_value": 0} == answer["verdicts"][
        0
    ] | {"log10_e_value": 0}
    listed = json.loads(run("recipient", "list", "--dsn", dsn, "--json").stdout)
    assert [(r["recipient"], r["revoked_at"] is None) for r in listed] == [
        ("alice", False),
        ("bob", True),
        ("carol", True),
    ]
    state = json.loads(run("status", "--dsn", dsn, "--json").stdout)
    assert state["recipients"] == {"enrolled": 2, "revoked": 1}
    checked = run("policy", "check", policy, "--dsn", dsn, "--json", "--sample", 20000)
    assert checked.returncode == 0, checked.stderr
    suggested = run("policy", "suggest", "dpi", "--dsn", dsn)
    assert suggested.returncode == 0, suggested.stderr
    proposal = tmp_path / "proposal.toml"
    proposal.write_text(suggested.stdout)
    assert run("policy", "check", proposal, "--dsn", dsn, "--sample", 5000).returncode == 0
    healthy = run("doctor", "--dsn", dsn, "--json")
    assert healthy.returncode == 0, healthy.stdout
    dpi.execute("GRANT USAGE ON SCHEMA dpi TO bob")
    dpi.execute("GRANT SELECT ON dpi.patient TO bob")
    ill = run("doctor", "--dsn", dsn, "--json")
    assert ill.returncode == 1
    assert any(
        f["role"] == "bob" and "dpi.patient" in f["mend"]
        for f in json.loads(ill.stdout)["findings"]
    )


def test_parquet_keeps_the_types(hospital: Any, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    query = "SELECT * FROM marked.patient LIMIT 10"
    assert (
        run("extract", query, "-o", path, "--dsn", hospital.dsn(hospital.recipients[0])).returncode
        == 0
    )
    types = {field.name: str(field.type) for field in pyarrow.parquet.read_schema(path)}
    assert types["weight_kg"] == "decimal128(5, 1)"
    assert types["birth_date"] == "date32[day]"


def test_the_doctor_is_not_shown_a_key_file_that_is_none(hospital: Any, tmp_path: Path) -> None:
    line = complaint("doctor", "--dsn", hospital.dsn(), "--key", tmp_path / "missing.key")
    assert "missing.key: there is no such file" in line


def test_wrong_keys_are_refused(hospital: Any, tmp_path: Path, key: Path, project: Path) -> None:
    leak = tmp_path / "leak.csv"
    leak.write_text("result_id,value\n1,2\n")
    trace = ("trace", leak, "--relation", "dpi.lab_result", "--dsn", hospital.dsn())
    assert "give --key" in complaint(*trace)
    assert "cannot be read" in complaint(*trace, "--key", tmp_path / "none")
    assert "no epoch marks with this master key" in complaint(*trace, "--key", key)
    key.chmod(0o640)
    assert "read by others" in complaint(*trace, "--key", key)
    key.chmod(0o600)
    key.write_text("not a key, but it is SECRETSECRET")
    said = complaint(*trace, "--key", key)
    assert "64 hexadecimal digits" in said
    assert "SECRET" not in said
    assert "key command failed" in complaint(*trace, "--key-command", "false")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"   \n", "empty"),
        (b"result_id,value\n", "no rows"),
        (bytes(range(256)) * 10, "binary"),
        (b"PAR1 but no more of it", "single value"),
        (b"colour,shape\nred,round\nblue,long\n", "none of the carriers"),
    ],
)
def test_a_leak_that_is_none_is_refused(
    hospital: Any, tmp_path: Path, content: bytes, said: str
) -> None:
    leak = tmp_path / "leak.csv"
    leak.write_bytes(content)
    report = tmp_path / "report.html"
    line = complaint(
        "trace", leak, "--relation", "dpi.lab_result", "--dsn", hospital.dsn(),
        "--key", hospital.key_file, "--report", report,
    )  # fmt: skip
    assert said in line
    assert not report.exists()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("carrier.weight_kg]", "carrier.wheight_kg]", "wheight_kg"),
        ('type = "numeric(5,1)"', 'type = "integer"', "weight_kg"),
        ("quantum = 0.1", "quantum = 0.01", "finer than the column's scale"),
        ("quantum = 0.1", "quantum = 0.1.1", "cannot be read"),
        ("dpi.patient", "dpi.patients", "patients"),
        ('[relation."dpi.patient"]', 'epoch = 2\n[relation."dpi.patient"]', "epoch"),
        ('key = { patient_id = "integer" }', 'key = { age = "smallint" }', "dpi.patient"),
    ],
)
def test_a_policy_that_does_not_fit_changes_nothing(
    hospital: Any, tmp_path: Path, project: Path, before: str, after: str, said: str
) -> None:
    with psycopg.connect(hospital.dsn()) as connection:
        count = "SELECT count(*), max(xmin::text::bigint) FROM balise.policy"
        state = connection.execute(count).fetchone()
        connection.rollback()
        text = (project / POLICY).read_text("utf-8")
        assert before in text
        wrong = tmp_path / "wrong.toml"
        wrong.write_text(text.replace(before, after))
        line = complaint(
            "policy", "apply", wrong, "--dsn", hospital.dsn(), "--key", hospital.key_file
        )
        assert said in line
        assert connection.execute(count).fetchone() == state


def test_an_interrupted_apply_leaves_everything_as_it_was(
    cluster: Any, dpi: psycopg.Connection[Any], key: Path, project: Path
) -> None:
    dsn = cluster.dsn(dpi.info.dbname)
    assert run("init", "--dsn", dsn).returncode == 0
    # a lock on one relation makes apply wait halfway through its work
    with psycopg.connect(dsn) as holder:
        holder.execute("LOCK TABLE dpi.diagnosis IN ACCESS EXCLUSIVE MODE")
        waiting = subprocess.Popen(
            [sys.executable, "-m", "pgbalise", "policy", "apply", project / POLICY,
             "--dsn", dsn, "--key", key],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        blocked = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'pgbalise' AND wait_event_type = 'Lock'"
        )
        for _ in range(200):
            if dpi.execute(blocked).fetchone() == (1,):
                break
            time.sleep(0.05)
        else:
            pytest.fail("apply never reached the locked relation")
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=30)
    assert waiting.returncode == 2
    assert said == "pgbalise: interrupted\n"
    assert dpi.execute(
        "SELECT to_regclass('marked.patient'), to_regnamespace('marked')"
    ).fetchone() == (None, None)
    assert dpi.execute("SELECT count(*) FROM balise.policy").fetchone() == (0,)


@pytest.mark.parametrize(
    "args",
    [
        ["trace"],
        ["no-such-command"],
        ["status", "--dsn", "host=/nowhere"],
        ["status", "--dsn", "no dsn at all"],
        ["extract", "SELECT 1", "-o", "x.doc"],
        ["policy", "apply", "/no/such/file", "--dsn", ""],
        ["policy", "check", "/no/such/file"],
        ["trace", "x.csv", "--relation", "a.b", "--alpha", "two"],
    ],
)
def test_other_bad_input_gets_one_line(args: list[str]) -> None:
    complaint(*args)


@pytest.mark.parametrize("alpha", ["0", "1", "-1", "nan"])
def test_alpha_must_be_a_probability(hospital: Any, tmp_path: Path, alpha: str) -> None:
    leak = tmp_path / "leak.csv"
    leak.write_text("result_id,value\n1,2\n")
    said = complaint(
        "trace", leak, "--relation", "dpi.lab_result", "--alpha", alpha,
        "--dsn", hospital.dsn(), "--key", hospital.key_file,
    )  # fmt: skip
    assert "alpha" in said


def test_a_writer_and_a_superuser_are_not_enrolled(hospital: Any) -> None:
    common = ("--dsn", hospital.dsn(), "--key", hospital.key_file)
    assert "there is no role" in complaint("recipient", "add", "nobody_there", *common)
    assert "whatever it is granted" in complaint("recipient", "add", "postgres", *common)
    with psycopg.connect(hospital.dsn(), autocommit=True) as connection:
        connection.execute("CREATE ROLE scribe LOGIN")
        try:
            connection.execute("GRANT UPDATE ON dpi.diagnosis TO scribe")
            assert "can read or write dpi.diagnosis" in complaint(
                "recipient", "add", "scribe", *common
            )
        finally:
            connection.execute("DROP OWNED BY scribe")
            connection.execute("DROP ROLE scribe")


def test_an_extract_is_for_its_owner_and_complete_or_not_there(
    hospital: Any, tmp_path: Path
) -> None:
    dsn = hospital.dsn(hospital.recipients[1])
    path = tmp_path / "x.csv"
    assert (
        run(
            "extract", "SELECT * FROM marked.diagnosis LIMIT 5;", "-o", path, "--dsn", dsn
        ).returncode
        == 0
    )
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open() as file:
        assert len(list(csv.reader(file))) == 6
    before = path.read_bytes()
    failing = "SELECT 1 / (result_id - 100000) FROM marked.lab_result"
    assert "division by zero" in complaint("extract", failing, "-o", path, "--dsn", dsn)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]
