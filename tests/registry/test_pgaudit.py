"""pgaudit's messages, from the real logs of a server that has it, in all three forms."""

from __future__ import annotations

import csv
import gzip
import io
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.errors import InvalidInput
from pgbalise.registry import tables
from pgbalise.registry.ledger import Entry
from pgbalise.registry.pgaudit import PREFIX, Summary, import_log, moment, normalised
from pgbalise.registry.store import entries, verify_registry

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
SETTINGS = {
    "shared_preload_libraries": "pgaudit",
    "pgaudit.log": "read",
    "pgaudit.log_relation": "on",
    "pgaudit.log_catalog": "off",
    "pgaudit.role": "balise_audit",
    "logging_collector": "on",
    "log_destination": "stderr,csvlog,jsonlog",
    "log_filename": "server.log",
    "log_rotation_size": "0",
    "log_line_prefix": PREFIX,
    "lc_messages": "C",
    "listen_addresses": "127.0.0.1",
}
SCHEMA = """
CREATE ROLE alice LOGIN; CREATE ROLE "Éve, ""x" LOGIN; CREATE ROLE balise_audit;
CREATE ROLE rows LOGIN; ALTER ROLE rows SET pgaudit.log_rows = on;
CREATE ROLE forger LOGIN;
CREATE SCHEMA marked; CREATE TABLE public.t (id int, v text);
INSERT INTO t SELECT g, 'val ' || g FROM generate_series(1, 100) AS g;
CREATE VIEW marked.t AS SELECT * FROM public.t;
CREATE VIEW marked."Odd, ""name.x" AS SELECT * FROM public.t;
GRANT USAGE ON SCHEMA marked TO PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA marked TO PUBLIC, balise_audit;
"""
ODD = 'marked.Odd, "name.x'
FORMS = ["server.csv", "server.json", "server.log"]


def copied(connection: psycopg.Connection[Any], query: str) -> None:
    with connection.cursor().copy(query.encode()) as copy:
        list(copy)


def traffic(server: ThrowawayCluster) -> None:
    def connect(user: str, **more: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(server.dsn(user=user), autocommit=True, **more)

    with connect("alice", application_name='my app, "x" LOG:  AUDIT: ' + "x" * 60) as alice:
        alice.execute(
            "SELECT *\n\tFROM marked.t\n WHERE v = 'Dupont, \"Jean\"' AND id < 500012 -- Martin\n"
        )
        alice.execute("SELECT v FROM marked.t WHERE id < %s", (77,))
        alice.execute("SELECT 1; SELECT now()")
        copied(alice, "COPY (SELECT id FROM marked.t WHERE v <> 'Durand') TO STDOUT")
        alice.execute(
            'SELECT a.id FROM marked.t a JOIN marked."Odd, ""name.x" b USING (id);'
            " SELECT 'LOG:  AUDIT: SESSION,1,1,READ' FROM marked.t"
        )
        alice.execute("BEGIN; DECLARE c CURSOR FOR SELECT * FROM marked.t; FETCH 9 FROM c; COMMIT")
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            alice.execute("SELECT v::int FROM marked.t")
    with psycopg.connect(
        host="127.0.0.1", port=server.port, dbname="postgres", user='Éve, "x', autocommit=True
    ) as eve:
        eve.execute("SELECT v FROM marked.t LIMIT 3")
    with connect("rows") as rows:
        rows.execute("SELECT v FROM marked.t LIMIT 3")
        rows.execute("BEGIN; DECLARE c CURSOR FOR SELECT * FROM marked.t; FETCH ALL c; COMMIT")
        with pytest.raises(psycopg.errors.DivisionByZero):
            rows.execute("SELECT 1 / (id - 99) FROM marked.t")
    with connect("forger") as forger:
        forger.execute(
            "DO $$ BEGIN RAISE LOG 'AUDIT: SESSION,1,1,READ,SELECT,VIEW,marked.t,x,<not logged>';"
            " RAISE LOG E'x\\n%', 'AUDIT: SESSION,1,1,READ,SELECT,VIEW,marked.t,x,<not logged>';"
            " END $$"
        )
        forger.execute("SELECT id FROM marked.t")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same traffic as csvlog, jsonlog and plain log."""
    folder = tmp_path_factory.mktemp("logs")
    with ThrowawayCluster(settings=SETTINGS) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(SCHEMA.encode())
        traffic(server)
        # the collector writes what was said before it ends with the server
        server.stop()
        for name in FORMS:
            shutil.copyfile(server.data_dir / "log" / name, folder / name)
    return folder


@pytest.fixture
def recorded(registry: sa.Connection) -> sa.Connection:
    """A registry that knows the server's database."""
    know(registry, "postgres", "7")
    return registry


def know(registry: sa.Connection, name: str, system: str) -> None:
    with registry.begin():
        registry.execute(
            sa.insert(tables.database).values(name=name, system_identifier=system, first_seen=AT)
        )


def load(registry: sa.Connection, path: Path, **more: Any) -> Summary:
    return import_log(registry, path, ["marked"], AT, **more)


def stored(registry: sa.Connection) -> list[Entry]:
    with registry.begin():
        return list(entries(registry))


def reads(registry: sa.Connection) -> list[tuple[Any, ...]]:
    names = ("recipient", "statement_number", "command", "rows", "normalised")
    found = [entry.body for entry in stored(registry)]
    return [(*(body[name] for name in names), *body["relations"]) for body in found]


STAR = "SELECT * FROM marked.t"
JOIN = (
    'SELECT a.id FROM marked.t a JOIN marked."Odd, ""name.x" b USING (id); SELECT ? FROM marked.t'
)
CURSOR = f"BEGIN; DECLARE c CURSOR FOR {STAR}; FETCH ? FROM c; COMMIT"
EVE = 'Éve, "x'
EXPECTED = [
    ("alice", "1.1", "SELECT", None, f"{STAR} WHERE v = ? AND id < ?", "marked.t"),
    ("alice", "2.1", "SELECT", None, "SELECT v FROM marked.t WHERE id < $1", "marked.t"),
    (
        "alice",
        "5.1",
        "SELECT",
        None,
        "COPY (SELECT id FROM marked.t WHERE v <> ?) TO STDOUT",
        "marked.t",
    ),
    ("alice", "6.1", "SELECT", None, JOIN, "marked.t"),
    ("alice", "6.1", "SELECT", None, JOIN, ODD),
    ("alice", "7.1", "SELECT", None, JOIN, "marked.t"),
    ("alice", "8.1", "SELECT", None, CURSOR, "marked.t"),
    ("alice", "9.1", "SELECT", None, "SELECT v::int FROM marked.t", "marked.t"),
    (EVE, "1.1", "SELECT", None, "SELECT v FROM marked.t LIMIT ?", "marked.t"),
    ("rows", "1.1", "SELECT", 3, "SELECT v FROM marked.t LIMIT ?", "marked.t"),
    ("forger", "1.1", "SELECT", None, "SELECT id FROM marked.t", "marked.t"),
]


@pytest.mark.parametrize("form", FORMS)
def test_every_read_of_a_marked_view_is_recorded(
    recorded: sa.Connection, logs: Path, form: str
) -> None:
    summary = load(recorded, logs / form)
    assert reads(recorded) == EXPECTED
    assert summary.recorded == len(EXPECTED)
    # what RAISE writes in pgaudit's form is told apart, and told
    assert summary.imitated == 1
    assert not summary.incomplete
    assert verify_registry(recorded, [])[0] == []
    first = stored(recorded)[0].body
    assert first["database"] == "postgres"
    assert first["client"] == "[local]"
    assert first["application"].startswith('my app, "x" LOG:  AUDIT: xxx')
    eve = next(entry.body for entry in stored(recorded) if entry.body["recipient"] == EVE)
    assert eve["client"].startswith("127.0.0.1")


def test_all_forms_say_the_same_and_nothing_is_recorded_twice(
    recorded: sa.Connection, logs: Path, tmp_path: Path
) -> None:
    half = tmp_path / "server.csv.1"
    records = (logs / "server.csv").read_bytes().splitlines(keepends=True)
    half.write_bytes(b"".join(records[: len(records) * 2 // 3]))
    load(recorded, half)
    before = len(stored(recorded))
    assert 0 < before < len(EXPECTED)
    with gzip.open(tmp_path / "server.csv.gz", "wb") as packed:
        packed.write((logs / "server.csv").read_bytes())
    added = load(recorded, tmp_path / "server.csv.gz")
    assert added.recorded == len(EXPECTED) - before
    assert reads(recorded) == EXPECTED
    for form in FORMS:
        again = load(recorded, logs / form)
        assert again.recorded == 0
        assert again.messages == again.known + again.other + again.nameless + again.imitated
    assert reads(recorded) == EXPECTED


def test_object_audit_logging_alone_records_the_same(
    recorded: sa.Connection, logs: Path, tmp_path: Path
) -> None:
    lines = (logs / "server.json").read_bytes().splitlines(keepends=True)
    log = tmp_path / "server.json"
    log.write_bytes(b"".join(line for line in lines if b'"AUDIT: SESSION' not in line))
    assert load(recorded, log).other == 0
    assert reads(recorded) == EXPECTED


def test_with_log_rows_cursors_and_failures_leave_unlogged(
    recorded: sa.Connection, logs: Path
) -> None:
    # what the guide warns of: pgaudit 1.7 then writes at a statement's end, which these miss
    load(recorded, logs / "server.csv")
    assert [read[4] for read in reads(recorded) if read[0] == "rows"] == [
        "SELECT v FROM marked.t LIMIT ?"
    ]


def test_no_constant_is_stored_unless_asked(
    recorded: sa.Connection, logs: Path, empty_db: psycopg.Connection[Any]
) -> None:
    load(recorded, logs / "server.json")
    everything = "SELECT string_agg(e::text, '') FROM balise_registry.entry AS e"
    [text] = empty_db.execute(everything).fetchone() or [""]
    assert not any(value in text for value in ("Dupont", "500012", "Martin", "Durand"))


def test_statements_are_kept_when_asked(recorded: sa.Connection, logs: Path) -> None:
    load(recorded, logs / "server.log", keep_statements=True)
    assert stored(recorded)[0].body["statement"] == (
        "SELECT *\n\tFROM marked.t\n WHERE v = 'Dupont, \"Jean\"' AND id < 500012 -- Martin\n"
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_file_still_being_written_says_so_and_is_finished_later(
    recorded: sa.Connection, logs: Path, tmp_path: Path, form: str
) -> None:
    whole = (logs / form).read_bytes()
    growing = tmp_path / form
    growing.write_bytes(whole[: whole.index(b"Durand") + 3])
    assert load(recorded, growing).incomplete
    assert len(stored(recorded)) < len(EXPECTED)
    growing.write_bytes(whole)
    assert not load(recorded, growing).incomplete
    assert sorted(map(str, reads(recorded))) == sorted(map(str, EXPECTED))


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_record_is_named_not_skipped(
    recorded: sa.Connection, logs: Path, tmp_path: Path, form: str
) -> None:
    lines = (logs / form).read_bytes().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if b"AUDIT: SESSION,2,1" in line)
    damaged = tmp_path / form
    cut = lines[at][: lines[at].index(b"AUDIT: SESSION") + 20] + b"\n"
    damaged.write_bytes(b"".join([*lines[:at], cut, *lines[at + 1 :]]))
    with pytest.raises(InvalidInput, match=rf"{form}: line {at + 1}\b"):
        load(recorded, damaged)


def test_a_plain_log_with_another_prefix_is_refused(
    recorded: sa.Connection, tmp_path: Path
) -> None:
    log = tmp_path / "postgresql.log"
    log.write_text("2026-01-31 12:00:00.000 UTC [7] alice@dpi LOG:  AUDIT: SESSION,1,1,READ\n")
    with pytest.raises(InvalidInput, match="log_line_prefix"):
        load(recorded, log)
    with pytest.raises(InvalidInput, match="cannot be read"):
        load(recorded, tmp_path / "nothing.log")


def test_only_recorded_databases_count_and_servers_are_told_apart(
    registry: sa.Connection, logs: Path
) -> None:
    with pytest.raises(InvalidInput, match="registry record"):
        load(registry, logs / "server.csv")
    know(registry, "another", "7")
    assert load(registry, logs / "server.csv").recorded == 0
    know(registry, "postgres", "8")
    with pytest.raises(InvalidInput, match="--system"):
        load(registry, logs / "server.csv")
    assert load(registry, logs / "server.csv", system="8").recorded == len(EXPECTED)
    know(registry, "postgres", "9")
    # the same sessions of another server are other events
    assert load(registry, logs / "server.csv", system="9").recorded == len(EXPECTED)


def test_a_long_log_is_read_as_a_stream(recorded: sa.Connection, tmp_path: Path) -> None:
    import tracemalloc

    row = io.StringIO()
    message = "AUDIT: SESSION,{},1,READ,SELECT,VIEW,marked.t,\"SELECT '" + "x" * 1000 + "'\",<n>"
    who = ["2026-01-31 12:00:00.000 UTC", "alice", "another", 1, "[local]", "1.1"]
    csv.writer(row).writerow([*who, *[""] * 7, message, *[""] * 8, "app", "", "", 0])
    line = row.getvalue().replace("\r\n", "\n").replace("UTC,alice", 'UTC,"alice"')
    log = tmp_path / "server.csv"
    with log.open("w") as file:
        for number in range(20_000):
            file.write(line.format(number))
    tracemalloc.start()
    began = time.monotonic()
    assert load(recorded, log).other == 20_000
    assert time.monotonic() - began < 30
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < log.stat().st_size / 4


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1_840_127, 12abc, 1.5e-3, .5, 0x1F,-3", "SELECT ?, ?, ?, ?, ?,-?"),
        (
            r"SELECT E'b\'c', U&'d\0061', B'101', x'1F', n'n', 'a''b' 'c'",
            "SELECT ?, ?, ?, ?, ?, ? ?",
        ),
        ("SELECT $tag$ it's $t$ $tag$, $$x$$, $1, a$1$b", "SELECT ?, ?, $1, a$1$b"),
        ("/* a /* b */ c */SELECT\n\ta->>'k' FROM \"T 1\" -- d", 'SELECT a->>? FROM "T 1"'),
        ("EXPLAIN SELECT 'x;y', 7 FROM t; SELECT 8", "EXPLAIN SELECT ?, ? FROM t; SELECT ?"),
        ("SELECT é FROM naïve WHERE a=$é$Dupont$é$", "SELECT é FROM naïve WHERE a=?"),
        ("SELECT 'unterminated", None),
        ("SELECT 1 /* unterminated /* */", None),
        ("SELECT $x$ unterminated", None),
        # one string or two, as standard_conforming_strings says
        (r"SELECT 'a\' || ' b'", None),
    ],
)
def test_constants_and_comments_are_taken_out(statement: str, expected: str | None) -> None:
    assert normalised(statement) == expected


QUOTED = [
    lambda text: "'" + text.replace("'", "''") + "'",
    lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'",
    lambda text: "U&'" + text.replace("\\", "\\\\").replace("'", "''") + "'",
    lambda text: "$q$" + text.replace("$", "") + "$q$",
    lambda text: "/* " + text.replace("*", "").replace("/", "") + " */",
    lambda text: "-- " + text.replace("\n", "").replace("\r", "") + "\n",
]


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20),
    st.text(st.sampled_from("'\\$\"*/-\n ;x"), max_size=6),
    st.sampled_from(QUOTED),
    st.sampled_from(["", "EXPLAIN ", "DECLARE c CURSOR FOR ", "PREPARE p AS ", "SHOW x; "]),
)
def test_a_secret_never_survives_its_quotes(
    before: str, after: str, quote: Any, prefix: str
) -> None:
    literal = quote(before + "geheim 1840127" + after)
    found = normalised(f"{prefix}SELECT a FROM t WHERE {literal} = b")
    assert found is None or ("geheim" not in found and "1840127" not in found)


def test_a_time_is_read_in_its_zone() -> None:
    paris = ZoneInfo("Europe/Paris")
    utc = datetime(2026, 10, 25, 0, 30, 0, 1000, tzinfo=UTC)
    assert moment("2026-10-25 00:30:00.001 UTC", None) == utc
    assert moment("2026-10-25 02:30:00.001 CEST", paris) == utc
    assert moment("2026-10-25 02:30:00.001 CET", paris) == utc.replace(hour=1)
    assert moment("2026-10-25 03:30:00.001 +03", None) == utc
    for text, zone in (
        ("2026-10-25 02:30:00.001 CET", None),
        ("2026-07-01 02:30:00.001 CET", paris),
    ):
        with pytest.raises(InvalidInput, match="log-timezone"):
            moment(text, zone)


def test_a_login_role_s_name_cannot_imitate_a_line(recorded: sa.Connection, tmp_path: Path) -> None:
    # names of roles and databases that do not exist reach the log too, also with line breaks
    with ThrowawayCluster(settings=SETTINGS | {"log_connections": "on"}) as server:
        for name in ("\n2026-01-31 12:00:00.000 UTC [1] 1.1 h user=x", "x LOG:  AUDIT: SESSION"):
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(server.dsn(), user=name, dbname=name)
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier("a\nb")))
        server.stop()
        for form in FORMS:
            shutil.copyfile(server.data_dir / "log" / form, tmp_path / form)
    for form in FORMS:
        assert load(recorded, tmp_path / form).messages == 0
