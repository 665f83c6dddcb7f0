"""The commands as their users meet them."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import sqlalchemy as sa

from pgbalise.cli import main
from pgbalise.decoys.issued import write_decoys
from pgbalise.registry.alerts import alerts
from tests.exchange.conftest import NAMES, Exchange, decoy, line

RENNES, VITRE, PARC = NAMES


class Said:
    """What a command printed, and how it ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


def run(*words: object, env: dict[str, str] | None = None, given: bytes = b"") -> Said:
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, env or {}),
        patch.object(sys, "argv", ["pgbalise", "exchange", *map(str, words)]),
        patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(given))),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert isinstance(ended.value.code, int)
    return Said(ended.value.code, out.getvalue(), err.getvalue())


def complaint(*words: object, **how: Any) -> str:
    said = run(*words, **how)
    assert (said.status, said.out, said.err.count("\n")) == (2, "", 1), vars(said)
    return said.err


def answer(*words: object, status: int = 0, **how: Any) -> Any:
    said = run(*words, "--json", **how)
    assert said.status == status, vars(said)
    return json.loads(said.out)


@pytest.fixture
def at(exchange: Exchange, tmp_path: Path) -> Any:
    """The environment of a member's machine."""
    exchange.clock.now = datetime.now(UTC)

    def environment(name: str) -> dict[str, str]:
        file = tmp_path / f"{NAMES.index(name)}.token"
        file.write_text(exchange.tokens[name])
        file.chmod(0o600)
        return {
            "PGBALISE_EXCHANGE_URL": exchange.url,
            "PGBALISE_EXCHANGE_TOKEN_FILE": str(file),
        }

    return environment


@pytest.fixture
def book(tmp_path: Path) -> Path:
    file = tmp_path / "decoys.jsonl"
    file.write_text(write_decoys([decoy(1), decoy(2, "vendor")]))
    return file


def test_from_publication_to_an_alert(
    at: Any, book: Path, exchange: Exchange, registry: sa.Connection, tmp_path: Path
) -> None:
    done = answer("publish", "--decoys", book, env=at(RENNES))
    assert done == {"published": 6, "withdrawn": 0, "kept": 0, "left_out": 4}
    assert answer("status", env=at(RENNES))["beacons"] == 6

    leak = tmp_path / "leak.txt"
    leak.write_text(f"Jean Martin 01/01/1970\n{line(decoy(2))}\n")
    said = run("check", leak, env=at(PARC))
    assert (said.status, said.out) == (0, f"line 2: a decoy of {RENNES} (person)\n")
    found = answer("check", "-", env=at(PARC), given=leak.read_bytes())
    assert found == {
        "records": 2,
        "values": 2,
        "asked": 16,
        "found": [{"line": 2, "kinds": ["person"], "owners": [RENNES]}],
    }
    assert run("hits", env=at(RENNES)).status == 1

    words = ("--place", "forum", "--severity", "critical", "--note", "n 7")
    when = ("--seen-at", "2026-05-03T10:00")
    told = answer("report", leak, *words, *when, env=at(PARC))
    assert told["told"] == [RENNES]

    listed = run("hits", "--decoys", book, env=at(RENNES))
    assert (listed.status, listed.out) == (
        0,
        "2026-05-03 10:00 UTC critical: decoy vendor/2 met (forum), says Clinique du Parc: n 7\n",
    )
    for _ in "twice":
        heard = answer("hits", "--decoys", book, "--registry", exchange.dsn, env=at(RENNES))
    assert [hit["decoy"] for hit in heard["hits"]] == ["vendor/2"]
    [(alert, delivered)] = alerts(registry)
    assert (alert["kind"], alert["recipient"], delivered) == ("decoy_elsewhere", "vendor", None)
    assert alert["detail"]["decoy"] == "vendor/2"
    # whom a decoy was issued to is the owner's to know
    assert "vendor" not in json.dumps(answer("hits", env=at(RENNES)))


def test_a_file_without_a_decoy_ends_with_one(at: Any, book: Path, tmp_path: Path) -> None:
    run("publish", "--decoys", book, env=at(RENNES))
    said = run("check", env=at(PARC), given=b"Jean Martin 01/01/1970\n")
    assert (said.status, said.out, said.err) == (1, "", "")
    none = run("report", "--place", "web", env=at(PARC), given=b"Jean Martin 01/01/1970\n")
    assert (none.status, none.out) == (1, "")
    nothing = run("check", env=at(PARC), given=b"hello\n")
    assert nothing.status == 1
    assert "nothing in this file" in nothing.err


def test_columns_are_named(at: Any, book: Path) -> None:
    run("publish", "--decoys", book, env=at(RENNES))
    given = f"a;b\n1;{decoy(1).traits[0].value}\n".encode()
    found = answer("check", "--column", "mail=b", env=at(PARC), given=given)
    assert found["found"] == [{"line": 2, "kinds": ["mail"], "owners": [RENNES]}]
    assert "lacks a column" in complaint("check", "--column", "mail=c", env=at(PARC), given=given)


def test_what_is_missing_is_told_in_one_line(at: Any, book: Path, tmp_path: Path) -> None:
    none = {"PGBALISE_EXCHANGE_URL": "", "PGBALISE_EXCHANGE_TOKEN_FILE": ""}
    assert "--url" in complaint("status", env=none)
    url = {**none, "PGBALISE_EXCHANGE_URL": "http://localhost:1"}
    assert "--token-file" in complaint("status", "--url", "http://localhost:1", env={})
    assert "cannot be read" in complaint("status", "--token-file", tmp_path / "no", env=url)
    assert "cannot be read" in complaint("check", tmp_path / "no", env=at(PARC))
    assert "whose decoys" in complaint("publish", env=at(RENNES))
    both = complaint("publish", "--decoys", book, "--dsn", "", env=at(RENNES))
    assert "not both" in both
    long = complaint("report", "--place", "web", "--note", "x" * 201, env=at(PARC))
    assert "--note" in long
    assert "--place" in complaint("report", "--place", "moon", env=at(PARC))


def test_an_empty_book_withdraws_nothing_unless_it_is_said(
    at: Any, book: Path, tmp_path: Path
) -> None:
    run("publish", "--decoys", book, env=at(RENNES))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "no decoys" in complaint("publish", "--decoys", empty, env=at(RENNES))
    done = answer("publish", "--decoys", empty, "--empty", env=at(RENNES))
    assert done["withdrawn"] == 6


def test_members_are_admitted_listed_and_revoked(registry_dsn: str, tmp_path: Path) -> None:
    env = {"PGBALISE_REGISTRY": registry_dsn}
    assert "exchange init" in complaint("serve", "--listen", "127.0.0.1:0", env=env)
    assert "exchange init" in complaint("member", "add", RENNES, env=env)
    assert len(answer("init", "Bretagne", env=env)["salt"]) == 32
    assert "already" in complaint("init", "Bretagne", env=env)
    shown = run("member", "add", RENNES, env=env).out.strip()
    assert shown.startswith("pgbx_")
    file = tmp_path / "token"
    told = answer("member", "add", VITRE, "-o", file, env=env)
    assert told == {"member": VITRE, "token": None}
    assert file.stat().st_mode & 0o777 == 0o600
    assert "a file already" in complaint("member", "add", PARC, "-o", file, env=env)
    nowhere = tmp_path / "missing" / "token"
    assert str(nowhere) in complaint("member", "add", PARC, "-o", nowhere, env=env)
    fresh = tmp_path / "fresh"
    assert "--rotate" in complaint("member", "add", RENNES, "-o", fresh, env=env)
    assert not fresh.exists()
    assert answer("member", "add", RENNES, "--rotate", env=env)["token"] != shown
    assert "no such member" in complaint("member", "add", "x", "--rotate", env=env)
    assert "48 bytes" in complaint("member", "add", "é" * 25, env=env)
    assert answer("member", "revoke", VITRE, env=env) == {"member": VITRE, "withdrawn": 0}
    listed = answer("member", "list", env=env)["members"]
    assert [(one["name"], one["revoked_at"] is None) for one in listed] == [
        (VITRE, False),
        (RENNES, True),
    ]
    assert RENNES in run("member", "list", env=env).out


@pytest.fixture
def served(registry_dsn: str, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    env = {"PGBALISE_REGISTRY": registry_dsn}
    run("init", "Bretagne", env=env)
    run("member", "add", RENNES, "-o", tmp_path / "token", env=env)
    command = [sys.executable, "-m", "pgbalise", "exchange", "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_it_serves_until_it_is_told_to_stop(
    served: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    process, said = served
    assert said.startswith("listening on http://127.0.0.1:")
    url = said.removeprefix("listening on ")
    found = answer("status", "--url", url, "--token-file", tmp_path / "token")
    assert (found["region"], found["member"]) == ("Bretagne", RENNES)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_what_keeps_it_from_listening_is_told_plainly(registry_dsn: str, tmp_path: Path) -> None:
    env = {"PGBALISE_REGISTRY": registry_dsn}
    run("init", "Bretagne", env=env)
    (tmp_path / "pem").write_text("nothing of the kind\n")
    files = ("--tls-cert", tmp_path / "pem", "--tls-key", tmp_path / "pem")
    assert "not PEM, or not of each other" in complaint("serve", *files, env=env)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = complaint("serve", "--listen", address, env=env)
    assert said.rstrip().endswith("Address already in use")


def test_beyond_this_machine_it_wants_tls(registry_dsn: str) -> None:
    env = {"PGBALISE_REGISTRY": registry_dsn}
    assert "without TLS" in complaint("serve", "--listen", "0.0.0.0:0", env=env)
    assert "HOST:PORT" in complaint("serve", "--listen", "nowhere", env=env)


def test_help_loads_no_server() -> None:
    code = (
        "import sys; from pgbalise.cli import app; app(['exchange', '--help'],"
        " standalone_mode=False); print([m for m in sys.modules if m in"
        " ('fastapi', 'uvicorn', 'sqlalchemy', 'cryptography')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_times_of_expiry_are_days_from_now(at: Any, book: Path, exchange: Exchange) -> None:
    run("publish", "--decoys", book, "--days", "40", env=at(RENNES))
    expiries = {expires for _, expires in exchange.client(RENNES).own()}
    [expires] = expiries
    assert abs(expires - datetime.now(UTC) - timedelta(days=40)) < timedelta(minutes=5)
