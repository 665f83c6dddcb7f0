"""``pgbalise decoys``: what is printed, and what a refusal looks like."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgbalise.database import apply_policy, enrol
from pgbalise.install import install
from pgbalise.keyfile import generate_key
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import PsycopgSession, connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import LiteralString

    from pgbalise.demo.cluster import ThrowawayCluster
    from tests.conftest import Connection

POLICY: dict[str, Any] = {
    "decoys": {"entity": "h.person", "per_recipient": 2},
    "relation": {
        "h.person": {
            "key": {"id": "integer"},
            "decoys": True,
            "identity": {"nip": "record_number", "name": "full_name", "born": "birth_date"},
        }
    },
}
TABLES = """
CREATE SCHEMA h;
CREATE TABLE h.person (id serial PRIMARY KEY, nip text UNIQUE, name text, born date, weight int);
INSERT INTO h.person (id, nip, name, born, weight)
SELECT 3 * i, 'P' || 10000 + i * 37, 'DUPONT Marie', date '1950-01-01' + i * 40, 50 + i % 40
  FROM generate_series(1, 400) AS i;
SELECT setval('h.person_id_seq', 5000);
CREATE ROLE ana LOGIN; CREATE ROLE ben LOGIN; CREATE ROLE cora LOGIN;
"""


Run = "Callable[..., subprocess.CompletedProcess[str]]"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_key(tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def session(cluster: ThrowawayCluster, empty_db: Connection, key: Path) -> Iterator[PsycopgSession]:
    from pgbalise.keyfile import read_key

    empty_db.execute(TABLES.encode())
    with connect(cluster.dsn(empty_db.info.dbname)) as found:
        install(found)
        with found.connection.transaction():
            apply_policy(found, POLICY, read_key(key))
            enrol(found, ["ana", "ben"], RecipientClass.SECONDARY, read_key(key))
            enrol(found, ["cora"], RecipientClass.CARE, read_key(key))
        yield found


@pytest.fixture
def run(cluster: ThrowawayCluster, session: PsycopgSession) -> Run:
    def running(*args: object, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pgbalise",
                "decoys",
                *map(str, args),
                "--dsn",
                cluster.dsn(session.connection.info.dbname),
            ],
            capture_output=True,
            text=True,
            env={"COLUMNS": "80", "PATH": "/usr/bin"},
        )
        assert done.returncode == status, done.stderr
        return done

    return running


def test_from_generation_to_retirement(run: Any, key: Path) -> None:
    made = json.loads(run("generate", "--key", key, "--json").stdout)
    assert [(d["recipient"], d["number"]) for d in made["issued"]] == [
        ("ana", 1),
        ("ana", 2),
        ("ben", 1),
        ("ben", 2),
    ]
    assert made["rows"] == 4
    assert "nothing to do" in run("generate", "--key", key).stdout
    assert "issued 1 decoy with 1 row to 1 recipient;" in " ".join(
        run("generate", "ben", "--count", 3, "--key", key).stdout.split()
    )
    listed = run("list").stdout
    assert max(map(len, listed.splitlines())) <= 80
    assert [line.split("│")[1:3] for line in listed.splitlines() if "│ ana" in line] == [
        [" ana       ", " 2      "]
    ]
    assert json.loads(run("retire", "ana", 2, "--json").stdout) == {"retired": 1}
    assert [d["number"] for d in json.loads(run("list", "ana", "--json").stdout)] == [1]
    [first, second] = json.loads(run("list", "ana", "--json", "--retired").stdout)
    assert first["retired_at"] is None
    assert datetime.fromisoformat(second["retired_at"]) < datetime.now(UTC)
    assert json.loads(run("retire", "ben", "--all", "--json").stdout) == {"retired": 3}
    assert run("retire", "ben", "--all").stdout == "retired: 0\n"
    assert run("list", "ben").stdout == "all decoys have been retired; --retired lists them\n"
    assert run("list", "nobody").stdout == "no decoys have been issued to nobody\n"


def test_who_they_are_is_shown_only_when_asked_for(
    run: Any, key: Path, session: PsycopgSession
) -> None:
    run("generate", "--key", key)
    secrets = [
        text
        for row in session.fetch("SELECT nip, name, id::text FROM balise_decoy.person")
        for text in row
    ]
    for arguments in ((), ("ana",), ("--json",), ("ana", "--retired")):
        shown = run("list", *arguments).stdout
        assert not [text for text in secrets if f" {text} " in shown or f'"{text}"' in shown]
    [(nip,)] = session.fetch(
        "SELECT nip FROM balise_decoy.person WHERE balise_recipient = 'ana' ORDER BY 1 LIMIT 1"
    )
    assert nip in run("list", "ana", "--show").stdout
    assert nip in run("list", "--show", "--json").stdout


def test_reserving_takes_numbers(run: Any, session: PsycopgSession) -> None:
    assert json.loads(run("reserve", "--count", 25, "--json").stdout) == {
        "reserved": 25,
        "relations": ["h.person"],
    }
    assert session.fetch("SELECT last_value FROM h.person_id_seq") == [(5025,)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate", "nobody"), "role nobody is not enrolled"),
        (("generate", "cora"), "role cora is enrolled for care, and never gets a decoy"),
        (("generate", "--count", "0"), "count must be a whole number from 1 to 1000"),
        (("retire", "ana"), "which decoys? (give their numbers, or --all)"),
        (("retire", "ana", "7"), "there is no decoy ana/7"),
        (("retire", "nobody", "--all"), "no decoy was issued to nobody"),
        (("reserve", "--count", "0"), "count must be"),
    ],
)
def test_a_refusal_is_one_line_and_status_2(
    run: Any, key: Path, arguments: tuple[str, ...], words: str
) -> None:
    extra = ("--key", key) if arguments[0] == "generate" else ()
    done = run(*arguments, *extra, status=2)
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_administrator_makes_and_retires_them_from_psql(
    cluster: ThrowawayCluster, session: PsycopgSession, key: Path
) -> None:
    owner = cluster.data_dir.stat()
    path = cluster.data_dir / "test-decoys.key"
    path.write_bytes(key.read_bytes())
    path.chmod(0o600)
    os.chown(path, owner.st_uid, owner.st_gid)
    psql = session.connection
    psql.execute("CREATE ROLE dora; GRANT balise_admin TO dora; SET ROLE dora")

    def answer(call: LiteralString) -> Any:
        with psql.transaction():
            found = psql.execute(call, {"key": str(path)}).fetchone()
        assert found is not None
        return found[0]

    try:
        assert answer("SELECT balise.make_decoys('ana', 1, %(key)s)") == 1
        assert answer("SELECT balise.make_decoys(key_file => %(key)s)") == 3
        assert answer("SELECT balise.make_decoys(key_file => %(key)s)") == 0
        assert answer("SELECT balise.retire_decoys('ana', 1)") == 1
        assert answer("SELECT balise.retire_decoys('ana')") == 1
        assert answer("SELECT balise.retire_decoys('ana')") == 0
        for call, words in (
            ("SELECT balise.make_decoys('cora', 1, %(key)s)", "never gets a decoy"),
            ("SELECT balise.make_decoys('ana', 0, %(key)s)", "from 1 to 1000"),
            ("SELECT balise.make_decoys()", "needs the master key"),
            ("SELECT balise.retire_decoys('ana', 9)", "role ana has no decoy 9"),
            ("SELECT balise.retire_decoys('cora')", "role cora has no decoy"),
            ("SELECT balise.retire_decoys(NULL)", "must not be NULL"),
        ):
            with pytest.raises(psycopg.Error, match=words):
                answer(call)
    finally:
        path.unlink()
    psql.execute("RESET ROLE; DROP ROLE dora")
    assert session.fetch("SELECT balise_recipient::text FROM balise_decoy.person") == [
        ("ben",),
        ("ben",),
    ]
