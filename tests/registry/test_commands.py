"""The commands as their users meet them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest

from pgbalise.cli import main
from pgbalise.database import enrol
from pgbalise.keyfile import generate_key
from pgbalise.marking.policy import RecipientClass
from tests.proxy.records import STATEMENT, intent, name, outcome, progress, spool_directory
from tests.registry.conftest import protected


def run(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process: starting one for each command takes too long."""
    out, err = io.StringIO(), io.StringIO()
    command = ["pgbalise", *map(str, words)]
    with (
        patch.dict(os.environ, env or {}),
        patch.object(sys, "argv", command),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    status = ended.value.code
    assert isinstance(status, int)
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


def complaint(*words: object, env: dict[str, str] | None = None) -> str:
    done = run(*words, env=env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    return done.stderr


def answer(*words: object, env: dict[str, str] | None = None, status: int = 0) -> Any:
    done = run(*words, "--json", env=env)
    assert done.returncode == status, done
    return json.loads(done.stdout)


def test_an_auditor_keeps_a_registry_and_finds_what_was_changed(
    registry_dsn: str, empty_db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    env = {"PGBALISE_REGISTRY": registry_dsn}
    key = generate_key(tmp_path / "master.key")
    session = protected(empty_db, key)
    empty_db.execute("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN")
    with empty_db.transaction():
        enrol(session, ["alice", "bob"], RecipientClass.SECONDARY, key)

    assert "no registry" in complaint("ledger", "list", env=env)
    assert answer("registry", "current", env=env, status=1) == {"revision": None, "newest": "0004"}
    assert answer("registry", "upgrade", env=env) == {"revision": "0004"}
    assert run("registry", "current", env=env).returncode == 0
    master = ("--key", tmp_path / "master.key")
    recorded = answer("registry", "record", "--dsn", registry_dsn, *master, env=env)["recorded"]
    assert [(entry["kind"], entry["body"]["recipient"]) for entry in recorded] == [
        ("enrolment", "alice"),
        ("commitment", "alice"),
        ("enrolment", "bob"),
        ("commitment", "bob"),
    ]
    assert answer("registry", "record", "--dsn", registry_dsn, env=env) == {"recorded": []}
    listed = run("ledger", "list", "--recipient", "bob", "--json", "--registry", registry_dsn)
    assert [json.loads(line)["sequence"] for line in listed.stdout.splitlines()] == [3, 4]
    lines = run("ledger", "list", env=env).stdout.splitlines()
    assert lines[0].split() == ["when", "(UTC)", "recipient", "rows", "runs", "outcome"]
    assert lines[-1].split()[2:] == ["bob", "commitment,", "epoch", "1"]
    early = run("ledger", "list", "--until", "2020-01-01", env=env)
    assert (early.stdout, early.stderr) == ("", "nothing recorded answers this\n")
    assert "not a time" in complaint("ledger", "list", "--since", "soon", env=env)

    signing, public = tmp_path / "ledger.key", tmp_path / "ledger.key.pub"
    assert run("ledger", "keygen", signing).returncode == 0
    signed = answer("ledger", "checkpoint", "--signing-key", signing, env=env)
    assert signed["sequence"] == 4
    assert "PRIVATE" not in json.dumps(signed)
    export = tmp_path / "ledger.jsonl"
    assert answer("ledger", "export", export, env=env)["lines"] == 5
    trusted = ("--public-key", public)
    assert answer("ledger", "verify", *trusted, env=env) == {
        "entries": 4,
        "signed": 4,
        "faults": [],
    }
    # without the database, and with another key
    offline = {"PGHOST": "nowhere.invalid", "PGBALISE_REGISTRY": ""}
    assert answer("ledger", "verify", export, *trusted, env=offline)["faults"] == []
    assert "no signature was checked" in run("ledger", "verify", export, env=offline).stdout
    run("ledger", "keygen", tmp_path / "other.key")
    other = run("ledger", "verify", export, "--public-key", tmp_path / "other.key.pub")
    assert (other.returncode, other.stdout) == (
        1,
        "checkpoint of entry 4: unknown key: signed by a key that is not trusted\n",
    )
    tampered = tmp_path / "tampered.jsonl"
    lines = export.read_text().splitlines(keepends=True)
    tampered.write_text("".join([lines[0], lines[2].replace("bob", "eve"), *lines[3:]]))
    found = run("ledger", "verify", tampered, *trusted)
    assert found.returncode == 1
    assert [line.split(": ")[:2] for line in found.stdout.splitlines()] == [
        ["entry 2", "removed"],
        ["entry 3", "edited"],
    ]

    empty_db.execute("UPDATE balise.commitment SET commitment = sha256('x')")
    told = complaint("registry", "record", "--dsn", registry_dsn, env=env)
    assert "contradicts the registry: the commitment of alice" in told
    refused = complaint("registry", "downgrade", "base", env=env)
    assert "holds rows that a downgrade would lose" in refused
    assert answer("registry", "downgrade", "0001", env=env) == {"revision": "0001"}


def test_the_script_for_the_dba_runs_in_psql(
    cluster: Any, registry_dsn: str, empty_db: psycopg.Connection[Any]
) -> None:
    script = run("registry", "upgrade", "--sql", env={"PGHOST": "nowhere.invalid"})
    assert script.returncode == 0
    cluster.psql(script.stdout, dbname=empty_db.info.dbname)
    assert run("registry", "current", "--registry", registry_dsn).returncode == 0
    assert run("registry", "upgrade", "--sql", "--from", "0004").stdout.count("CREATE TABLE") == 0


def test_a_log_is_imported_with_what_came_of_it(
    registry_dsn: str, empty_db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    env = {"PGBALISE_REGISTRY": registry_dsn}
    run("registry", "upgrade", env=env)
    log = tmp_path / "server.json"
    record = {
        "timestamp": "2026-01-31 13:00:00.000 CET",
        "user": "alice",
        "dbname": "dpi",
        "remote_host": "10.0.0.7",
        "remote_port": 4711,
        "session_id": "1.1",
        "message": "AUDIT: SESSION,1,1,READ,SELECT,VIEW,marked.t,"
        "SELECT * FROM marked.t WHERE id = 184,<not logged>",
        "application_name": "report\x1b[2J",
    }
    log.write_text(json.dumps(record) + "\n")
    command = ("ledger", "import-pgaudit", log)
    assert "registry record" in complaint(*command, env=env)
    empty_db.execute(
        "INSERT INTO balise_registry.database (name, system_identifier, first_seen)"
        " VALUES ('dpi', '7', now())"
    )
    assert "--log-timezone" in complaint(*command, env=env)
    assert "no such zone" in complaint(*command, "--log-timezone", "../../etc", env=env)
    zone = ("--log-timezone", "Europe/Paris")
    assert answer(*command, *zone, env=env)["recorded"] == 1
    assert "0 recorded, 1 known already" in run(*command, *zone, env=env).stdout
    listed = run("ledger", "list", "--relation", "marked.t", env=env).stdout
    assert listed.splitlines()[1:] == [
        "2026-01-31 12:00:00 alice                                -        - unknown",
        r"  10.0.0.7:4711 · report\u001b[2J · marked.t · SELECT * FROM marked.t WHERE id = ?",
    ]
    other = run(*command, *zone, "--schema", "elsewhere", env=env).stdout
    assert "1 of other classes" in other


def test_what_a_proxy_left_is_delivered_and_told(registry_dsn: str, tmp_path: Path) -> None:
    env = {"PGBALISE_REGISTRY": registry_dsn}
    run("registry", "upgrade", env=env)
    spool = spool_directory(tmp_path)
    deliver = ("ledger", "deliver", "--spool", spool)
    assert "0 new entries" in run(*deliver, env=env).stdout
    records = [
        intent(name("a")),
        intent(name("b"), recipient="a_recipient_with_a_rather_long_name", client="[bold]x[/]"),
        progress(name("b"), 1234567),
        outcome(name("a"), 3, executions=20),
        {"type": "other"},
        intent(name("c"), recipient="late", at="2026-02-01T00:00:00.000000Z"),
        outcome(name("c"), outcome="error", sqlstate="57014"),
    ]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (spool / "20260131T120000.000000Z-1-0123456789abcdef.jsonl").write_text(text + '{"torn')
    assert answer(*deliver, env=env) == {
        "recorded": 6,
        "unknown": 1,
        "damaged": 1,
        "files_deleted": 0,
        "waiting_bytes": 6,
    }
    assert "6 bytes are not delivered" in run(*deliver, env=env).stdout

    until = ("ledger", "list", "--until", "2026-02-01")
    what = f"hospital.patient · {STATEMENT}"
    assert run(*until, "--relation", "hospital.patient", env=env).stdout.splitlines()[1:] == [
        "2026-01-31 12:00:00 registry_rennes                      3       20 complete",
        f"  192.0.2.7 · report · {what}",
        "2026-01-31 12:00:00 a_recipient_with_a_rather_long_name  ≥ 1,234,567        1 unknown",
        f"  [bold]x[/] · report · {what}",
    ]
    one = run(*until, "--database", "dpi", "--recipient", "registry_rennes", "--json", env=env)
    found = json.loads(one.stdout)
    assert (found["kind"], found["body"]["relations"]) == ("extract", ["hospital.patient"])
    assert found["outcome"]["body"]["rows"] == 3
    late = run("ledger", "list", "--recipient", "late", env=env).stdout
    assert "error 57014" in late
    assert run("ledger", "list", "--relation", "hospital.nothing", env=env).stdout == ""
    spool.chmod(0o755)
    assert "chmod 0700" in complaint(*deliver, env=env)


@pytest.mark.parametrize(
    "registry", ["host=/tmp password=hunter2 x y", "postgresql://u:hunter2@127.0.0.1:1/x"]
)
def test_no_command_repeats_the_password(registry: str) -> None:
    assert "hunter2" not in complaint("ledger", "list", "--registry", registry)
    assert "hunter2" not in complaint("registry", "current", env={"PGBALISE_REGISTRY": registry})
    helped = run("ledger", "list", "--help", env={"PGBALISE_REGISTRY": registry})
    assert "hunter2" not in helped.stdout


def test_help_does_not_load_what_only_a_command_needs() -> None:
    check = (
        "import sys, pgbalise.cli; "
        "print([m for m in ('sqlalchemy', 'alembic', 'cryptography') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.stdout == "[]\n"
