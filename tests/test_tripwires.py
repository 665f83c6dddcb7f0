"""Who meets a decoy's identity in an application is recorded, told, and learns nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgbalise.alert_text import sentence
from pgbalise.decoybook import enter
from pgbalise.decoys.candidates import candidates
from pgbalise.decoys.identity import Identity, Mode, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.traits import (
    fold,
    mail_trait,
    nir_trait,
    person_trait,
    phone_trait,
    record_trait,
    rpps_trait,
)
from pgbalise.errors import EnvironmentProblem
from pgbalise.install import install
from pgbalise.session import PsycopgSession, connect
from pgbalise.sinks import cef
from pgbalise.tripwires import relay
from tests.proxy.proxied import wait_until
from tests.test_alerts import Hook, serving

AT = datetime(2026, 3, 4, 12, 5, tzinfo=UTC)
MARIE: Identity = {
    Role.RECORD_NUMBER: "IPP-0090001",
    Role.NIR: "285057800608491",
    Role.FAMILY_NAME: "Lefèvre-Œuvrard",
    Role.GIVEN_NAME: "Marie",
    Role.BIRTH_DATE: "1985-05-12",
    Role.PHONE: "01 99 00 12 34",
    Role.MAIL: "marie.lefevre@example.org",
}
JEAN: Identity = {
    Role.RECORD_NUMBER: "80012345",
    Role.FULL_NAME: "LE GOFF Jean-Yves",
    Role.BIRTH_DATE: "1948-11-03",
    Role.MOBILE: "+33639980012",
    Role.RPPS: "10101234567",
}


def issued(
    number: int, recipient: str, identity: Identity, *, retired: bool = False
) -> IssuedDecoy:
    return IssuedDecoy(
        number, recipient, number, Mode.SAFE, identity, {}, {}, AT, AT if retired else None
    )


@pytest.fixture
def dpi_with_book(empty_db: psycopg.Connection[Any]) -> PsycopgSession:
    session = PsycopgSession(empty_db)
    install(session, sql_only=True)
    empty_db.execute("CREATE ROLE desk LOGIN IN ROLE balise_tripwire; CREATE ROLE anna LOGIN")
    empty_db.execute("CREATE ROLE gate LOGIN IN ROLE balise_proxy")
    enter(session, [issued(1, "anna", MARIE), issued(2, "bob", JEAN, retired=True)], "f" * 16)
    return session


@pytest.fixture
def desk(cluster: Any, dpi_with_book: PsycopgSession) -> Iterator[psycopg.Connection[Any]]:
    dbname = dpi_with_book.connection.info.dbname
    dsn = cluster.dsn(dbname, "desk")
    with psycopg.connect(dsn, autocommit=True, application_name="identity desk") as connection:
        yield connection


def events(session: PsycopgSession) -> list[tuple[Any, ...]]:
    return session.fetch("SELECT decoy_ids, kinds FROM balise.tripwire ORDER BY event_id")


@pytest.mark.parametrize(
    ("text", "decoy", "kinds"),
    [
        ("IPP-0090001", 1, ["record"]),
        ("patient ipp 0090001.", 1, ["record"]),
        ("2 85 05 78 006 084 91", 1, ["nir"]),
        ("NIR: 2850578006084, à vérifier", 1, ["nir"]),
        ("+33 (0)1.99.00.12.34", 1, ["phone"]),
        ("tél. 0033 199 001 234", 1, ["phone"]),
        ('{"mail": "Marie.Lefevre@Example.org"}', 1, ["mail"]),
        ("Mme LEFEVRE OEUVRARD Marie, née le 12/05/1985", 1, ["person"]),
        ("marie lefèvre-œuvrard 12 mai 85", 1, ["person"]),
        ('{"family_name":"Lefèvre-Œuvrard","given":"MARIE","born":"1985-05-12"}', 1, ["person"]),
        ("19850512;Lefe\u0300vre-\u0152uvrard;Marie", 1, ["person"]),
        ("Jean-Yves Le Goff, 3.11.1948, 80012345", 2, ["person", "record"]),
        ("06 39 98 00 12 / 10101234567", 2, ["phone", "rpps"]),
    ],
)
def test_an_identity_is_known_however_it_is_written(
    dpi_with_book: PsycopgSession,
    desk: psycopg.Connection[Any],
    text: str,
    decoy: int,
    kinds: list[str],
) -> None:
    assert desk.execute("SELECT balise.check(%s)", (text,)).fetchone() == ("",)
    assert events(dpi_with_book) == [([decoy], kinds)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Marie Lefèvre-Œuvrard 13/05/1985",
        "Lefèvre-Œuvrard 12/05/1985",
        "800 12345 12",
        "montant 80 012 345 euros",
        "0990001 285057800608 0199001235 marie@example.org",
        "x" * 5000 + " 12/05/1985 " + "0 " * 5000,
    ],
)
def test_what_is_nobodys_raises_nothing(
    dpi_with_book: PsycopgSession, desk: psycopg.Connection[Any], text: str
) -> None:
    desk.execute("SELECT balise.check(%s)", (text,))
    assert events(dpi_with_book) == []


def test_an_event_says_who_and_from_where_and_not_what(
    cluster: Any, dpi_with_book: PsycopgSession, desk: psycopg.Connection[Any]
) -> None:
    for _ in range(3):
        desk.execute("SELECT balise.check(%s)", (f"{MARIE[Role.NIR]} {JEAN[Role.RPPS]}",))
    desk.execute("SELECT balise.check(%s)", (JEAN[Role.RPPS],))
    rows = dpi_with_book.fetch(
        "SELECT role_name::text, client::text, application_name, decoy_ids, kinds,"
        " relayed_at, at > now() - interval '1 minute' FROM balise.tripwire ORDER BY event_id"
    )
    assert [row[3:] for row in rows] == [
        ([1, 2], ["nir", "rpps"], None, True),
        ([2], ["rpps"], None, True),
    ]
    assert {row[:3] for row in rows} == {("desk", rows[0][1], "identity desk")}
    [(everything,)] = dpi_with_book.fetch("SELECT json_agg(e)::text FROM balise.tripwire AS e")
    assert "2850578006084" not in everything


def test_who_calls_is_told_nothing_and_the_log_outlives_a_rollback(
    cluster: Any, dpi_with_book: PsycopgSession, desk: psycopg.Connection[Any]
) -> None:
    notices: list[str] = []
    desk.add_notice_handler(lambda said: notices.append(str(said.message_primary)))
    desk.execute("SET client_min_messages = debug1")
    with desk.transaction(force_rollback=True):
        desk.execute(f"SELECT balise.check('{MARIE[Role.MAIL]}')".encode())
        row = desk.execute("SELECT current_setting('client_min_messages')").fetchone()
        assert row == ("debug1",)
    desk.execute("SET default_transaction_read_only = on")
    desk.execute(f"SELECT balise.check('{MARIE[Role.MAIL]}')".encode())
    assert events(dpi_with_book) == []
    assert not [said for said in notices if "tripwire" in said]
    log = cluster.log_tail(200)
    lines = [line for line in log.splitlines() if "pgbalise tripwire" in line]
    assert [line.split("pgbalise tripwire ")[1] for line in lines[-2:]] == [
        "decoys=anna/1 kinds=mail role=desk client=local",
        "decoys=anna/1 kinds=mail role=desk client=local unrecorded=25006",
    ]
    assert str(MARIE[Role.MAIL]) not in log


def test_only_who_was_granted_it_may_ask(cluster: Any, dpi_with_book: PsycopgSession) -> None:
    dbname = dpi_with_book.connection.info.dbname
    for role in ("anna", "gate"):
        with psycopg.connect(cluster.dsn(dbname, role), autocommit=True) as client:
            for call in ("check('x')", "candidates('x')", "fold('x')"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    client.execute(f"SELECT balise.{call}".encode())
    with psycopg.connect(cluster.dsn(dbname, "desk"), autocommit=True) as client:
        for relation in ("tripwire", "decoy", "decoy_trait"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                client.execute(f"TABLE balise.{relation}".encode())


def test_a_table_can_have_its_rows_checked(
    dpi_with_book: PsycopgSession, desk: psycopg.Connection[Any]
) -> None:
    dpi_with_book.fetch(
        "CREATE TABLE public.appointment (id serial, family text, given text, born date);"
        "CREATE TRIGGER tripwire AFTER INSERT OR UPDATE ON public.appointment"
        " FOR EACH ROW EXECUTE FUNCTION balise.check_row();"
        "GRANT ALL ON public.appointment, public.appointment_id_seq TO anna"
    )
    dpi_with_book.fetch("SET SESSION AUTHORIZATION anna")
    dpi_with_book.fetch(
        "INSERT INTO public.appointment (family, given, born)"
        " VALUES ('Martin', 'Anne', '1970-1-1'),"
        " ('LEFEVRE OEUVRARD', 'Marie', '1985-05-12'), (NULL, NULL, NULL)"
    )
    dpi_with_book.fetch("RESET SESSION AUTHORIZATION")
    rows = dpi_with_book.fetch("SELECT role_name::text, decoy_ids FROM balise.tripwire")
    assert rows == [("anna", [1])]


# Of the marks of Asia's scripts the database takes off fewer: no name in its columns has them.
LETTERS = st.one_of(
    st.characters(min_codepoint=1, max_codepoint=0x36F, exclude_categories=["Cs", "Cn"]),
    st.characters(
        min_codepoint=0x2000, max_codepoint=0x24FF, exclude_categories=["Cs", "Cn", "Mn"]
    ),
)
PIECES = st.one_of(
    st.text(LETTERS, max_size=6),
    st.text("0123456789", min_size=1, max_size=4),
    st.sampled_from(
        ["+33", "0", "00", "(0)", "2A", "1", "85", "mai", "août", "1er", "x@y.fr", "T09"]
    ),
    st.sampled_from(["12/05/1985", "1985-05-12", "0612345678", "185057800608436", "Œ", "É", "ﬁ"]),
)
TEXTS = st.lists(
    st.tuples(PIECES, st.sampled_from(["", " ", "-", ".", "\u00a0", ", "])), max_size=12
).map(lambda parts: "".join(piece + gap for piece, gap in parts))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(TEXTS)
def test_the_database_reads_a_text_as_python_does(dpi_with_book: PsycopgSession, text: str) -> None:
    [(texts, born, words)] = dpi_with_book.fetch("SELECT * FROM balise.candidates($1::text)", text)
    mine = candidates(text)
    assert " ".join(words) == fold(text)
    assert tuple(words) == mine.words
    assert set(texts or ()) == mine.texts
    assert set(born or ()) == mine.born


@pytest.mark.parametrize("encoding", ["LATIN1", "LATIN9", "WIN1252"])
def test_accents_are_known_in_western_encodings(
    cluster: Any, empty_db: psycopg.Connection[Any], encoding: str
) -> None:
    written = "Ça, Hélène ÅSTRÖM-Nuñez, forêt où naît Ÿ: Æ æ ß Ø 1"
    if encoding != "LATIN1":
        written += " Œuvre cœur, Š š Ž ž"
    else:
        written = written.replace("Ÿ", "ÿ")
    empty_db.execute(
        f"CREATE DATABASE western ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0".encode()
    )
    try:
        with connect(cluster.dsn("western")) as session:
            install(session, sql_only=True)
            assert session.fetch("SELECT balise.fold($1::text)", written) == [(fold(written),)]
    finally:
        empty_db.execute("DROP DATABASE western")


GAPS = st.sampled_from(["", " ", "-", "."])


@settings(max_examples=200, deadline=None)
@given(st.text("0123456789ABab", min_size=5, max_size=16), GAPS, st.integers(1, 3), st.data())
def test_whatever_has_a_trait_is_a_candidate(value: str, gap: str, every: int, data: Any) -> None:
    """Alone in a field, or with words around it."""
    spaced = gap.join(value[at : at + every] for at in range(0, len(value), every))
    kinds = (record_trait, nir_trait, phone_trait, rpps_trait, mail_trait)
    for written in (spaced, value, f"{value}@x.fr", f"+33{value}"):
        words = fold(written).split()
        mixed = len(words) > 3 and not all(word[0].isdigit() for word in words)
        if len(words) > 8 or mixed or not re.search("[0-9]", written):
            continue
        for kind in kinds:
            trait = kind(written)
            assert trait is None or trait.value in candidates(written).texts, written
    for kind in (nir_trait, phone_trait, rpps_trait):
        trait = kind(value)
        assert trait is None or trait.value in candidates(f"le {value}, vu").texts


def test_a_birth_date_is_read_in_every_usual_form() -> None:
    for written in (
        "1985-05-02",
        "02/05/1985",
        "2.5.1985",
        "02 05 85",
        "2 mai 1985",
        "2 May 1985",
        "02051985",
        "19850502",
        "1985-05-02T00:00:00Z",
        "né le 2 mai 1985 à Rennes",
    ):
        assert "1985-05-02" in candidates(written).born, written
    assert person_trait("Marie Lefèvre", "1985-05-02") is not None
    for written in ("32/05/1985", "12/13/1985", "le 12 du mois 1985", "5/1985"):
        assert candidates(written).born == frozenset(), written


CHECK = f"SELECT balise.check('{MARIE[Role.NIR]}')"


def test_every_event_becomes_one_alert_that_says_whose_decoy_and_who_asked(
    cluster: Any, dpi_with_book: PsycopgSession, desk: psycopg.Connection[Any]
) -> None:
    desk.execute("SELECT balise.check(%s)", (f"{MARIE[Role.NIR]} {JEAN[Role.RPPS]}",))
    told: list[Any] = []
    dbname = dpi_with_book.connection.info.dbname
    with connect(cluster.dsn(dbname, "gate")) as session:
        assert relay(session, told.extend) == 1
        assert relay(session, told.extend) == 0
    [alert] = told
    assert (alert["kind"], alert["severity"], alert["recipient"]) == (
        "tripwire",
        "critical",
        "desk",
    )
    assert alert["detail"] == {
        "event": 1,
        "application": "identity desk",
        "decoys": ["anna/1", "bob/2"],
        "decoys_of": ["anna", "bob"],
        "kinds": ["nir", "rpps"],
    }
    assert sentence(alert) == (
        "desk was given the identity of a patient who does not exist, decoy anna/1, bob/2"
        " (by nir, rpps)."
    )
    assert "cs4=anna/1, bob/2 cs4Label=Decoys cs5=identity desk" in cef(alert, "1")


def test_what_cannot_be_kept_is_not_told_and_comes_again(
    cluster: Any, dpi_with_book: PsycopgSession, desk: psycopg.Connection[Any]
) -> None:
    desk.execute(CHECK.encode())
    first: list[Any] = []
    again: list[Any] = []

    def full(alerts: Any) -> None:
        first.extend(alerts)
        raise EnvironmentProblem("the disk is full")

    dbname = dpi_with_book.connection.info.dbname
    with (
        connect(cluster.dsn(dbname, "gate")) as one,
        connect(cluster.dsn(dbname, "gate")) as other,
    ):
        with pytest.raises(EnvironmentProblem):
            relay(one, full)

        def meanwhile(alerts: Any) -> None:
            again.extend(alerts)
            assert relay(other, first.extend) == 0, "what another relay holds is not given twice"

        assert relay(one, meanwhile) == 1
    assert first == again


def test_an_event_outlasts_a_kill_and_a_receiver_that_is_down(
    cluster: Any, dpi_with_book: PsycopgSession, desk: psycopg.Connection[Any], tmp_path: Path
) -> None:
    desk.execute(CHECK.encode())
    dsn = cluster.dsn(dpi_with_book.connection.info.dbname, "gate")
    killed = (
        "import os, signal, sys; from pathlib import Path; from pgbalise.alerts import AlertDesk;"
        "from pgbalise.session import connect; from pgbalise.tripwires import relay;"
        "desk = AlertDesk(Path(sys.argv[2]), []);"
        "end = lambda alerts: (desk.submit(alerts), os.kill(os.getpid(), signal.SIGKILL));\n"
        "with connect(sys.argv[1]) as session: relay(session, end)"
    )
    folder = tmp_path / "alerts"
    done = subprocess.run([sys.executable, "-c", killed, dsn, str(folder)])
    assert done.returncode == -9
    hook = Hook()
    config = tmp_path / "alerts.toml"
    config.write_text(f'[[alerts.webhook]]\nurl = "http://127.0.0.1:{hook.server_port}/"\n')
    command = ("alert", "relay", "--config", config, "--folder", folder, "--dsn", dsn, "--once")
    with serving(hook):
        hook.status = 503
        failed = pgbalise(*command)
        assert failed.returncode == 1
        assert failed.stderr.count("webhook") == 1
        desk.execute(f"SELECT balise.check('{JEAN[Role.RPPS]}')".encode())
        hook.status, hook.heard = 204, []
        told = pgbalise(*command, "--json")
        assert json.loads(told.stdout) == {"taken": 1, "waiting": 0, "problems": {}}
        assert pgbalise(*command).returncode == 0
        decoys = [json.loads(body)["detail"]["decoys"] for _, _, body in hook.heard]
        assert decoys == [["anna/1"], ["bob/2"]]


def test_a_relay_runs_until_it_is_told_to_stop(
    cluster: Any, dpi_with_book: PsycopgSession, desk: psycopg.Connection[Any], tmp_path: Path
) -> None:
    dsn = cluster.dsn(dpi_with_book.connection.info.dbname, "gate")
    hook = Hook()
    config = tmp_path / "alerts.toml"
    config.write_text(f'[[alerts.webhook]]\nurl = "http://127.0.0.1:{hook.server_port}/"\n')
    command = ["alert", "relay", "--config", config, "--folder", tmp_path / "alerts", "--dsn", dsn]
    with (
        serving(hook),
        subprocess.Popen([sys.executable, "-m", "pgbalise", *map(str, command)]) as process,
    ):
        try:
            desk.execute(CHECK.encode())
            wait_until(lambda: hook.heard)
            dpi_with_book.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gate'"
            )
            desk.execute(f"SELECT balise.check('{JEAN[Role.RPPS]}')".encode())
            wait_until(lambda: len(hook.heard) == 2)
        finally:
            process.terminate()
        assert process.wait(20) == 0


def test_a_relay_that_would_tell_nobody_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "alerts.toml"
    config.write_text("[alerts]\n")
    done = pgbalise("alert", "relay", "--config", config, "--folder", tmp_path / "a", "--once")
    assert done.returncode == 2
    assert "names neither a sink nor a registry" in done.stderr
    assert not (tmp_path / "a").exists()


def pgbalise(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pgbalise", *map(str, words)]
    environment = {**os.environ, "no_proxy": "*"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
