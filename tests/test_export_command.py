"""Decoys written for other tools, as who does it meets it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgbalise.decoys.issued import write_decoys
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.detectors.formats import FormatName
from pgbalise.detectors.patterns import rule_name
from pgbalise.install import install
from pgbalise.registry.store import entries, open_registry, upgrade
from pgbalise.session import PsycopgSession
from tests.detectors.leaking import awkward, decoy
from tests.registry.test_commands import answer, complaint, run

SOME = [
    decoy(number=1),
    decoy(number=2, retired=True),
    decoy(number=3, recipient="study_quimper"),
]


@pytest.fixture(autouse=True)
def no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGBALISE_REGISTRY", raising=False)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    file = tmp_path / "book.jsonl"
    file.write_text(write_decoys(SOME))
    return file


@pytest.mark.parametrize("form", list(FormatName))
def test_every_format_is_written_whole_for_its_owner_alone(
    form: FormatName, book: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    told = answer("decoys", "export", "--format", form, "-o", output, "--decoys", book)
    assert told["decoys"] == 2
    assert told["rules"] == {rule_name(one): one.name for one in (SOME[0], SOME[2])}
    assert told["left_out"]["decoys that were retired"] == 1
    files = sorted(output.iterdir()) if output.is_dir() else [output]
    assert [hashlib.sha256(file.read_bytes()).hexdigest() for file in files] == [
        told["files"][name] for name in sorted(told["files"])
    ]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    if output.is_dir():
        assert stat.S_IMODE(output.stat().st_mode) == 0o700
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book.jsonl", "out"]


def test_several_files_go_into_a_new_folder_or_an_archive(book: Path, tmp_path: Path) -> None:
    words = ("decoys", "export", "--format", "purview", "--decoys", book, "-o")
    assert run(*words, tmp_path / "edm.zip").returncode == 0
    with zipfile.ZipFile(tmp_path / "edm.zip") as archive:
        packed = sorted(archive.namelist())
    folder = tmp_path / "edm"
    assert run(*words, folder).returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == packed
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "is there already" in complaint(*words, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_asked_for_is_what_is_written(book: Path, tmp_path: Path) -> None:
    def told(*words: object) -> Any:
        return answer("decoys", "export", "--decoys", book, "-o", tmp_path / "out", *words)

    assert told("--format", "yara", "--recipient", "study_quimper")["decoys"] == 1
    assert told("--format", "yara", "--retired")["decoys"] == 3
    assert told("--format", "yara", "--expires", "2999-01-31")["expires"].startswith("2999-01-31")
    assert 'expires = "2999-01-31"' in (tmp_path / "out").read_text()
    told("--format", "list", "--only", "mail")
    assert set((tmp_path / "out").read_text().split()) == {
        "marie.lefevre@patients.example.org",
        "marie.lefevre%40patients.example.org",
    }
    told("--format", "yara")
    assert "quimper" not in (tmp_path / "out").read_text()
    told("--format", "yara", "--name-recipients")
    assert 'recipient = "study_quimper"' in (tmp_path / "out").read_text()


def test_a_person_is_told_what_was_left_out(book: Path, tmp_path: Path) -> None:
    words = ("decoys", "export", "--format", "list", "--decoys", book, "-o", tmp_path / "out")
    done = run(*words, "--expires", "30d")
    assert done.returncode == 0
    assert "2 decoys" in done.stdout
    assert "left out: 1 decoys that were retired" in done.stdout
    assert "birth date" in done.stdout
    assert "until when" in done.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--expires", "yesterday"), "not a time"),
        (("--expires", "2020-01-01"), "past"),
        (("--expires", "99999d"), ""),
        (("--only", "nir,shoe size"), "no such kind"),
        (("--format", "clamav", "--name-recipients"), "no place for names"),
        (("--recipient", "nobody"), "no decoy was issued to nobody"),
        (("--only", "rpps", "--format", "yara", "--dsn", "service=x"), "not both"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_written(
    words: tuple[str, ...], why: str, book: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    done = run("decoys", "export", "--decoys", book, "-o", output, *words)
    if why:
        assert done.returncode == 2
        assert why in done.stderr
        assert not output.exists()
    assert not output.with_name("out.unfinished").exists()


def test_no_decoy_and_no_place_are_errors(book: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    words = ("decoys", "export", "--format", "yara")
    assert "no decoy to export" in complaint(*words, "--decoys", empty, "-o", tmp_path / "out")
    nowhere = tmp_path / "missing" / "out"
    assert "cannot be written" in complaint(*words, "--decoys", book, "-o", nowhere)


def test_a_device_or_a_pipe_stays_what_it_is(book: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for output in (pipe, "/dev/null", "", "."):
        assert (
            "--output" in (said := complaint("decoys", "export", "-o", output, "--decoys", book))
            or "not an ordinary file" in said
        )
    assert pipe.is_fifo()
    assert Path("/dev/null").is_char_device()


def test_a_database_without_decoys_says_what_to_do(
    cluster: ThrowawayCluster, empty_db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    dsn = cluster.dsn(empty_db.info.dbname)
    said = complaint("decoys", "export", "-o", tmp_path / "out", "--dsn", dsn)
    assert "run pgbalise init" in said


def test_the_ledger_knows_who_was_given_which_decoys(
    cluster: Any, empty_db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    dsn = cluster.dsn(empty_db.info.dbname)
    session = PsycopgSession(empty_db)
    install(session)
    for one in SOME:
        empty_db.execute(
            "INSERT INTO balise.decoy (decoy_id, role_name, number, mode, identity, spaces, key,"
            " key_fingerprint, issued_at, retired_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                one.decoy_id,
                one.recipient,
                one.number,
                one.mode.value,
                Jsonb({role.value: text for role, text in one.identity.items()}),
                Jsonb({}),
                Jsonb(dict(one.key)),
                "0" * 16,
                one.issued_at,
                one.retired_at,
            ),
        )
    with open_registry(dsn) as registry:
        upgrade(registry)
    output = tmp_path / "decoys.yar"
    words = ("decoys", "export", "--format", "yara", "-o", output, "--dsn", dsn, "--expires", "90d")
    told = answer(*words, "--registry", dsn)
    assert told["decoys"] == 2
    with open_registry(dsn) as registry, registry.begin():
        [entry] = entries(registry)
    assert entry.kind == "export"
    body = dict(entry.body)
    assert body["format"] == "yara"
    assert body["database"] == empty_db.info.dbname
    assert body["files"] == {"decoys.yar": hashlib.sha256(output.read_bytes()).hexdigest()}
    assert body["expires_at"].startswith(told["expires"][:10])
    assert (body["role"], body["recipients_named"]) == ("postgres", False)
    assert body["by"]
    assert {(one["recipient"], one["number"], one["rule"]) for one in body["decoys"]} == {
        (one.recipient, one.number, rule_name(one)) for one in (SOME[0], SOME[2])
    }
    for value in SOME[0].identity.values():
        assert len(value) < 4 or value not in json.dumps(body, ensure_ascii=False)
    listed = run("ledger", "list", "--registry", dsn, "--kind", "export")
    assert listed.returncode == 0
    assert "export" in listed.stdout


def test_without_the_ledger_nothing_is_written(
    cluster: Any, empty_db: psycopg.Connection[Any], book: Path, tmp_path: Path
) -> None:
    dsn = cluster.dsn(empty_db.info.dbname)
    words = ("decoys", "export", "--format", "yara", "--decoys", book, "-o", tmp_path / "out")
    assert "no registry" in complaint(*words, "--registry", dsn)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book.jsonl"]


def test_names_that_mean_something_to_a_tool_are_no_error(tmp_path: Path) -> None:
    file = tmp_path / "book.jsonl"
    file.write_text(write_decoys(awkward()))
    for form in FormatName:
        done = run("decoys", "export", "--format", form, "-o", tmp_path / form, "--decoys", file)
        assert done.returncode == 0, done
