"""pgbalise scan as scripts and people use it."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgbalise.alert_text import heading, told
from pgbalise.decoys.identity import Role
from pgbalise.decoys.issued import write_decoys
from pgbalise.install import install
from pgbalise.registry.alerts import alerts
from pgbalise.registry.store import open_registry, upgrade
from pgbalise.session import connect
from tests.scan.writing import filler, make_decoys

if TYPE_CHECKING:
    from pgbalise.demo.cluster import ThrowawayCluster
    from tests.conftest import Connection

DECOYS = make_decoys(10)
MAIL = DECOYS[7].identity[Role.MAIL]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "decoys.jsonl"
    path.write_text(write_decoys(DECOYS), "utf-8")
    return path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.csv").write_text(filler(100, 1))
    return folder


def run(*arguments: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pgbalise", "scan", *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, check=False)


def test_nothing_found_is_status_1(book: Path, files: Path) -> None:
    done = run("--decoys", book, files, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "files": 1,
        "bytes": (files / "a.csv").stat().st_size,
        "found": 0,
        "hits": [],
        "unreadable": [],
    }


def test_found_is_status_0_and_tells_where_but_not_what(book: Path, files: Path) -> None:
    with zipfile.ZipFile(files / "b.zip", "w") as archive:
        archive.writestr("in/c.gz", gzip.compress(f"a\nb;{MAIL}\n".encode()))
    done = run("--decoys", book, files, "--json")
    assert done.returncode == 0
    assert MAIL.encode() not in done.stdout
    (hit,) = json.loads(done.stdout)["hits"]
    assert hit == {
        "file": str(files / "b.zip"),
        "member": "in/c.gz",
        "offset": 4,
        "line": 2,
        "decoy": "role_1/3",
        "kind": "mail",
        "certainty": "certain",
    }
    shown = run("--decoys", book, files, "--show")
    assert b"patient.7" in shown.stdout


def test_a_hit_is_a_line_of_its_own_and_whole(book: Path, files: Path) -> None:
    folder = files / ("a long name of a folder " * 6)
    folder.mkdir()
    who = DECOYS[3].identity
    names = f"{who[Role.FAMILY_NAME]} {who[Role.GIVEN_NAME]}"
    (folder / "b.txt").write_text(f"\n{names} {who[Role.BIRTH_DATE]}\n{MAIL}")
    [first, second, total] = run("--decoys", book, files, "--show").stdout.decode().splitlines()
    assert first.split()[:3] == [DECOYS[3].name, "person", "certain"]
    assert f"{folder / 'b.txt'}:2  byte 1  {names}" in first
    assert f"{folder / 'b.txt'}:3" in second
    assert total.startswith("2 found in 2 files")


@pytest.mark.parametrize("text", ["Zoé", "ÉLODIE", "Noë"])
def test_what_is_shown_has_its_accents_at_both_ends(tmp_path: Path, files: Path, text: str) -> None:
    (one,) = make_decoys(1)
    named = dataclasses.replace(one, identity={**one.identity, Role.GIVEN_NAME: text})
    (tmp_path / "book").write_text(write_decoys([named]), "utf-8")
    family, born = named.identity[Role.FAMILY_NAME], named.identity[Role.BIRTH_DATE]
    lines = f"{born};{family};{text};x\n{text};{family};{born}\n"
    (files / "b.csv").write_text(lines, "utf-8")
    done = run("--decoys", tmp_path / "book", files, "--show", "--json")
    first, second = (hit["text"] for hit in json.loads(done.stdout)["hits"])
    assert first.endswith(f"{family};{text}")
    assert second.startswith(f"{text};{family}")


def test_who_reads_no_further_is_not_told_that_nothing_was_found(book: Path, files: Path) -> None:
    (files / "b.txt").write_text(f"{MAIL}\n" * 20_000)
    command = [sys.executable, "-m", "pgbalise", "scan", "--decoys", str(book), str(files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as scanning:
        assert scanning.stdout is not None
        scanning.stdout.readline()
        scanning.stdout.close()
        assert scanning.wait() == 141
        assert scanning.stderr is not None
        assert scanning.stderr.read() == b""


def test_a_full_disk_is_told_in_one_line(book: Path, files: Path) -> None:
    (files / "b.txt").write_text(f"{MAIL}\n")
    command = [sys.executable, "-m", "pgbalise", "scan", "--decoys", str(book), str(files)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert done.stderr == b"pgbalise: there is no room left on the disk\n"


def test_standard_input_is_searched_plain_and_packed(book: Path) -> None:
    text = f"x {MAIL}\n".encode()
    for given in (text, gzip.compress(text)):
        done = run("--decoys", book, "-", "--json", given=given)
        assert done.returncode == 0
        assert [hit["offset"] for hit in json.loads(done.stdout)["hits"]] == [2]


def test_what_cannot_be_read_is_listed_and_does_not_stop_the_scan(book: Path, files: Path) -> None:
    (files / "b.gz").write_bytes(gzip.compress(b"x" * 100_000)[:-40])
    done = run("--decoys", book, files, "--json")
    assert done.returncode == 2
    assert [u["file"] for u in json.loads(done.stdout)["unreadable"]] == [str(files / "b.gz")]
    (files / "c.txt").write_text(MAIL)
    assert run("--decoys", book, files).returncode == 0


def test_a_file_that_the_system_does_not_give_is_listed_with_its_reason(book: Path) -> None:
    done = run("--decoys", book, "/proc/self/mem")
    assert done.returncode == 2
    assert done.stderr == b"/proc/self/mem: not read: Input/output error\n"


def test_a_bomb_is_listed_as_unread(book: Path, files: Path) -> None:
    layer = gzip.compress(bytes(200_000_000), 9)
    (files / "bomb.gz").write_bytes(gzip.compress(layer, 9))
    done = run("--decoys", book, files, "--json")
    assert done.returncode == 2
    (unread,) = json.loads(done.stdout)["unreadable"]
    assert unread["file"].endswith("bomb.gz")


def test_links_and_pipes_in_a_folder_are_left_alone(book: Path, files: Path) -> None:
    outside = files.parent / "outside.txt"
    outside.write_text(MAIL)
    (files / "link").symlink_to(outside)
    (files / "round").symlink_to(files)
    os.mkfifo(files / "pipe")
    done = run("--decoys", book, files, "--json")
    assert (done.returncode, json.loads(done.stdout)["files"]) == (1, 1)


@pytest.mark.parametrize(
    "wrong", [["--decoys", "nowhere"], [], ["--decoys", "nowhere", "--dsn", "host=nowhere"]]
)
def test_without_one_list_of_decoys_nothing_is_searched(files: Path, wrong: list[str]) -> None:
    done = run(*wrong, files)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_path_that_is_not_there_is_an_error(book: Path, files: Path) -> None:
    for missing in (files / "missing", ""):
        done = run("--decoys", book, files, missing)
        assert done.returncode == 2
        assert not done.stdout


def test_decoys_come_from_the_database(
    cluster: ThrowawayCluster, empty_db: Connection, files: Path
) -> None:
    dsn = cluster.dsn(empty_db.info.dbname)
    with connect(dsn) as session:
        install(session)
        for decoy in DECOYS:
            body = decoy.as_dict()
            session.fetch(
                "INSERT INTO balise.decoy (role_name, number, mode, identity, spaces, key,"
                " key_fingerprint) VALUES ($1::name, $2::int, 'safe', $3::jsonb, '{}', '{}', 'x')",
                decoy.recipient,
                decoy.number,
                json.dumps(body["identity"]),
            )
    (files / "b.txt").write_text(MAIL)
    done = run("--dsn", dsn, files, "--json")
    assert done.returncode == 0, done.stderr
    assert [hit["decoy"] for hit in json.loads(done.stdout)["hits"]] == ["role_1/3"]


def test_what_is_found_is_recorded_once_for_each_decoy_and_file(
    cluster: ThrowawayCluster, empty_db: Connection, book: Path, files: Path
) -> None:
    dsn = cluster.dsn(empty_db.info.dbname)
    with open_registry(dsn) as registry:
        upgrade(registry)
    other = DECOYS[2]
    found = files / "patients.txt"
    names = f"{other.identity[Role.GIVEN_NAME]} {other.identity[Role.FAMILY_NAME]}"
    found.write_text(f"{MAIL}\nx\n{MAIL}\n{names}\n")
    for _ in "twice":
        done = run("--decoys", book, files, "--possible", "--registry", dsn)
        assert done.returncode == 0, done.stderr
        assert b"1 alerts in the registry" in done.stdout
    with open_registry(dsn) as registry:
        [(alert, delivered)] = alerts(registry)
    assert delivered is None
    assert (alert["kind"], alert["severity"]) == ("decoy_found", "critical")
    assert alert["recipient"] == "role_1"
    assert alert["detail"] == {
        "decoys": ["role_1/3"],
        "decoys_of": ["role_1"],
        "file": "patients.txt",
        "sha256": hashlib.sha256(found.read_bytes()).hexdigest(),
        "kinds": ["mail"],
        "places": 2,
    }
    assert MAIL not in json.dumps(alert)
    assert told(alert, "en") == (
        "A decoy given to role_1, role_1/3, is in the file patients.txt (by mail)."
    )
    assert told(alert, "fr").startswith("Un leurre donné à role_1, role_1/3, est dans le fichier")
    assert heading(alert, "fr") == "Un leurre est dans un fichier"


def test_a_registry_that_is_away_is_an_error_before_anything_is_read(
    book: Path, files: Path
) -> None:
    done = run("--decoys", book, files / "missing", "--registry", "host=/nowhere dbname=x")
    assert done.returncode == 2
    assert b"missing" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
