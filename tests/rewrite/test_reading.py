"""What a text touches, does, and is refused for."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.rewrite import Decision, Name, Refusal, Rules, Unreadable, analyse
from tests.rewrite.conftest import Door, rules

HOSPITAL, BARE = Name("hospital", "patient"), Name(None, "patient")


@pytest.mark.parametrize(
    ("sql", "questions"),
    [
        ("SELECT * FROM patient", {BARE}),
        ("TABLE patient", {BARE}),
        ("SELECT * FROM PATIENT", {BARE}),
        ('SELECT * FROM "PATIENT"', set()),
        ('SELECT * FROM hospital . /* here */ "patient"', {HOSPITAL}),
        ("SELECT * FROM hospital.-- there\npatient", {HOSPITAL}),
        (r'SELECT * FROM U&"p\0061tient"', {BARE}),
        ("SELECT * FROM U&\"p!0061tient\" UESCAPE '!'", {BARE}),
        ("SELECT * FROM postgres.hospital.patient", {HOSPITAL}),
        ("SELECT 1 FROM a, LATERAL (SELECT * FROM patient WHERE a.x = y) AS b", {BARE}),
        ("SELECT 1 FROM a LEFT JOIN (b NATURAL JOIN patient) USING (x) AS j", {BARE}),
        ("SELECT (SELECT max(id) FROM patient)", {BARE}),
        ("SELECT 1 WHERE EXISTS (TABLE patient)", {BARE}),
        ("SELECT ARRAY(TABLE patient)", {BARE}),
        ("SELECT 1 ORDER BY (TABLE patient) LIMIT (TABLE hospital.patient)", {BARE, HOSPITAL}),
        ("SELECT max(x) FILTER (WHERE x IN (TABLE patient)) OVER () FROM t", {BARE}),
        ("SELECT 1 FROM t WINDOW w AS (PARTITION BY (TABLE patient))", {BARE}),
        ("SELECT 1 FROM t TABLESAMPLE system ((SELECT id FROM patient))", {BARE}),
        ("SELECT 1 FROM patient TABLESAMPLE system (1)", {BARE}),
        ("SELECT 1 FROM ROWS FROM (unnest(ARRAY(TABLE patient)))", {BARE}),
        ("SELECT 1 FROM XMLTABLE('/' PASSING (TABLE patient) COLUMNS a int)", {BARE}),
        ("SELECT 1 FROM JSON_TABLE((TABLE patient), '$' COLUMNS (a int))", {BARE}),
        ("SELECT JSON_ARRAY(SELECT id FROM patient)", {BARE}),
        ("SELECT CASE WHEN (TABLE patient) THEN 1 END", {BARE}),
        ("SELECT 1 GROUP BY GROUPING SETS ((), ((TABLE patient)))", {BARE}),
        ("VALUES (1), ((TABLE patient))", {BARE}),
        ("SELECT 1 UNION ALL (SELECT 2 EXCEPT TABLE patient)", {BARE}),
        ("SELECT 1 FROM patient FOR UPDATE OF patient", {BARE}),
        ("SELECT 1 FROM t FOR UPDATE OF patient", set()),
        ("SELECT 'patient', patient FROM t AS patient", set()),
        ("SELECT 1 AS patient FROM f() AS patient", set()),
        # common table expressions
        ("WITH patient AS (SELECT 1) TABLE patient", set()),
        ("WITH patient AS (TABLE patient) TABLE patient", {BARE}),
        ("WITH RECURSIVE patient AS (SELECT 1 UNION TABLE patient) TABLE patient", set()),
        ("WITH patient AS (SELECT 1) TABLE hospital.patient", {HOSPITAL}),
        ("WITH a AS (TABLE patient), patient AS (SELECT 1) TABLE a", {BARE}),
        ("WITH RECURSIVE a AS (TABLE patient), patient AS (SELECT 1) TABLE a", set()),
        ("WITH patient AS (SELECT 1), a AS (TABLE patient) TABLE a", set()),
        ("(WITH patient AS (SELECT 1) TABLE patient) UNION TABLE patient", {BARE}),
        ("WITH patient AS (SELECT 1) (TABLE patient UNION TABLE patient)", set()),
        ("SELECT (WITH patient AS (SELECT 1) TABLE patient), 2 FROM patient", {BARE}),
        ("WITH patient AS (SELECT 1) SELECT (SELECT 1 FROM patient), 2 FROM t", set()),
        ("WITH a AS (WITH patient AS (SELECT 1) TABLE patient) TABLE patient", {BARE}),
        ("WITH patient AS (SELECT 1) INSERT INTO t TABLE patient", set()),
        ("INSERT INTO t WITH patient AS (SELECT 1) TABLE patient", set()),
        ("WITH a AS (DELETE FROM t USING patient RETURNING 1) TABLE a", {BARE}),
        ("WITH patient AS (SELECT 1) UPDATE t SET x = 1 FROM patient", set()),
        ("WITH patient AS (SELECT 1) DELETE FROM t USING patient", set()),
        (
            "WITH patient AS (SELECT 1)\nMERGE INTO t USING patient ON a WHEN MATCHED THEN DELETE",
            set(),
        ),
        # writes: what they read
        ("INSERT INTO t SELECT * FROM patient", {BARE}),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", set()),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = (TABLE patient)", {BARE}),
        ("UPDATE t SET x = (TABLE patient)", {BARE}),
        ("DELETE FROM t WHERE x IN (TABLE patient)", {BARE}),
        ("MERGE INTO t USING patient ON t.id = patient.id WHEN MATCHED THEN DELETE", {BARE}),
        ("MERGE INTO t USING s ON true WHEN MATCHED AND (TABLE patient) THEN DELETE", {BARE}),
        # what is written may have rules that answer
        ("INSERT INTO patient VALUES (1)", {BARE}),
        ("UPDATE patient SET x = 1 WHERE y = 2", {BARE}),
        ("DELETE FROM hospital.patient", {Name("hospital", "patient")}),
        # utilities are the server's matter
        ("TRUNCATE patient", set()),
        ("LOCK TABLE patient", set()),
        ("ANALYZE patient", set()),
        ("VACUUM (FULL) hospital.patient (name)", set()),
        ("COPY patient FROM STDIN", set()),
        ("ALTER TABLE patient ADD COLUMN x int", set()),
        ("ALTER TABLE x INHERIT patient", set()),
        ("GRANT SELECT ON hospital.patient TO x", set()),
        ("COMMENT ON TABLE hospital.patient IS 'x'", set()),
        ("CREATE INDEX ON hospital.patient (name)", set()),
        ("CREATE TABLE x (LIKE hospital.patient, y int REFERENCES hospital.patient)", set()),
        ("CREATE STATISTICS s ON (a + b), c FROM patient", set()),
        ("SELECT json_populate_record(NULL::hospital.patient, '{}')", set()),
        ("SELECT 'hospital.patient'::regclass", set()),
        # queries inside other statements
        ("COPY patient TO STDOUT", {BARE}),
        ("COPY (TABLE patient) TO STDOUT", {BARE}),
        ("COPY (INSERT INTO t TABLE patient RETURNING 1) TO STDOUT", {BARE}),
        ("CREATE TABLE x AS TABLE patient", {BARE}),
        ("CREATE MATERIALIZED VIEW x AS TABLE patient", {BARE}),
        ("CREATE VIEW x AS TABLE patient", {BARE}),
        ("CREATE SCHEMA x CREATE VIEW y AS TABLE patient", {BARE}),
        ("SELECT * INTO x FROM patient", {BARE}),
        ("DECLARE c CURSOR FOR TABLE patient", {BARE}),
        ("PREPARE p AS TABLE patient", {BARE}),
        ("PREPARE p AS DELETE FROM t USING patient", {BARE}),
        ("EXPLAIN TABLE patient", {BARE}),
        ("EXPLAIN CREATE TABLE x AS TABLE patient", {BARE}),
        ("EXPLAIN DELETE FROM patient", {BARE}),
        ("CREATE RULE r AS ON INSERT TO t DO ALSO INSERT INTO u TABLE patient", {BARE}),
        ("CREATE POLICY p ON t USING (EXISTS (TABLE patient))", {BARE}),
        ("EXECUTE p((SELECT 1 FROM patient))", {BARE}),
        ("CALL p((SELECT 1 FROM patient))", {BARE}),
    ],
)
def test_names_that_are_read_or_written_are_asked_about(
    recipient_rules: Rules, sql: str, questions: set[Name]
) -> None:
    assert analyse(sql, recipient_rules).questions == questions


def test_a_name_longer_than_63_bytes_is_the_one_it_is_cut_to() -> None:
    cut = "é" * 31
    made = Rules({}, {}, frozenset({cut}), {}, frozenset(), True, frozenset())
    for written in (cut + "é", cut + "éé" * 9, f'"{cut}x__"'):
        names = {name.relation for name in analyse(f"SELECT 1 FROM {written}", made).questions}
        assert names == ({cut} if written.strip('"').startswith(cut + "é") else set())


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "",
        " ; ; -- nothing",
        "SELECT abalance FROM accounts WHERE aid = 1234",
        "INSERT INTO t VALUES (1, 'patient')",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "COMMIT",
        "SAVEPOINT a; RELEASE a",
        "SHOW search_path",
        "SET statement_timeout = 1",
        "SET TRANSACTION READ ONLY",
        "LISTEN x; NOTIFY x, 'y'; UNLISTEN *",
        "EXPLAIN SELECT 1",
        "SELECT count(*), pg_catalog.lower('x') FROM pg_class",
        "SELECT set_config('statement_timeout', $1, false)",
        "COPY t FROM STDIN",
        "COPY t TO STDOUT",
        "SELECT patient.id FROM t AS patient",
    ],
)
def test_what_concerns_nothing_is_plain(recipient_rules: Rules, sql: str) -> None:
    assert analyse(sql, recipient_rules).plain


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("SET ROLE dba", "42501"),
        ("SET LOCAL ROLE dba", "42501"),
        ('SET "Role" = dba', "42501"),
        ("SET SESSION AUTHORIZATION dba", "42501"),
        ("SELECT 1; SET ROLE dba", "42501"),
        ("SELECT set_config('role', 'dba', false)", "42501"),
        ("SELECT pg_catalog.set_config(E'R\\157le', 'dba', false)", "42501"),
        ("SELECT set_config('ro' || 'le', 'dba', false)", "42501"),
        (
            "SELECT set_config(new_value => 'dba', setting_name => 'role', is_local => true)",
            "42501",
        ),
        ("UPDATE pg_settings SET setting = 'dba' WHERE name = 'role'", "42501"),
        ("CREATE TEMP VIEW s AS SELECT * FROM pg_settings", "42501"),
        ("ALTER ROLE me SET role = 'dba'", "42501"),
        ("ALTER DATABASE d SET session_authorization = 'dba'", "42501"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET role = 'dba' AS 'SELECT 1'", "42501"),
        ("SET debug_print_plan = on", "42501"),
        ("SELECT leak()", "42501"),
        ("SELECT other.leak()", "42501"),
        ("SELECT * FROM leak() AS x", "42501"),
        ("SELECT x FROM t WHERE x = ANY (SELECT blob(1))", "42501"),
        ("SELECT (t).leak FROM t", "42501"),
        ("SELECT t.leak FROM t", "42501"),
        ("CALL leak()", "42501"),
        ("CREATE VIEW v AS SELECT leak()", "42501"),
        ("CREATE TABLE x (a int DEFAULT leak())", "42501"),
        ("CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION leak()", "42501"),
        ("CREATE AGGREGATE a (int) (sfunc = leak, stype = int)", "42501"),
        ("CREATE OPERATOR + (leftarg = int, function = leak)", "42501"),
        ("CREATE CAST (int AS text) WITH FUNCTION leak(int)", "42501"),
        ("ALTER FUNCTION leak() RENAME TO harmless", "42501"),
        ("ALTER FUNCTION mine() RENAME TO lower", "42501"),
        ("CREATE FUNCTION lower(int) RETURNS int LANGUAGE sql AS 'SELECT 1'", "42501"),
        ("SELECT query_to_xml('SELECT 1', true, true, '')", "42501"),
        ("SELECT pg_catalog.query_to_xml('SELECT 1', true, true, '')", "42501"),
        ("SELECT * FROM ts_stat('SELECT 1')", "42501"),
        ("SELECT ts_rewrite('a', 'SELECT 1')", "42501"),
        ("SELECT * FROM dblink('x', 'SELECT 1') AS t(a int)", "42501"),
        ("SELECT * FROM crosstab3('SELECT 1')", "42501"),
        ("DO 'BEGIN PERFORM 1 FROM hospital.patient; END'", "42501"),
        ("DO LANGUAGE plpython3u 'pass'", "42501"),
        ("DO $$BEGIN EXECUTE 'SELECT ' || x; END$$", "42501"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM patient'", "42501"),
        ("CREATE PROCEDURE f() LANGUAGE sql BEGIN ATOMIC SELECT 1 FROM patient; END", "42501"),
        ("CREATE FUNCTION f() RETURNS int RETURN (SELECT 1 FROM patient)", "42501"),
        ("CREATE PROCEDURE f() BEGIN ATOMIC DELETE FROM patient; END", "42501"),
        ("EXPLAIN SELECT * FROM patient", "42501"),
        ("EXPLAIN (ANALYZE) SELECT * FROM marked.patient", "42501"),
        ("EXPLAIN UPDATE patient SET x = 1", "42501"),
        ("SELECT * FROM report", "42501"),
        ("INSERT INTO patient VALUES (1) RETURNING id", "0A000"),
        ("UPDATE hospital.patient SET x = x RETURNING *", "0A000"),
        ("WITH a AS (DELETE FROM patient RETURNING *) TABLE a", "0A000"),
        ("MERGE INTO patient USING s ON true WHEN MATCHED THEN DELETE RETURNING *", "0A000"),
        # the end means something else after the beginning
        ("SET search_path = x; SELECT * FROM patient", "0A000"),
        ("CREATE TEMP TABLE patient (a int); SELECT * FROM patient", "0A000"),
        ("DROP TABLE a, pg_temp.patient; SELECT * FROM patient", "0A000"),
        ("SELECT unknown(); SELECT * FROM patient", "0A000"),
        ("DO 'BEGIN END'; COPY patient TO STDOUT", "0A000"),
        ("ROLLBACK; SELECT * FROM patient", "0A000"),
        (
            "SELECT 1 + 1; SELECT * FROM pg_temp.patient; SELECT * FROM stay_view",
            "0A000",
        ),
        # what cannot be read
        ("SELECT * FORM patient", "0A000"),
        ("SELECT * FROM 'patient", "0A000"),
        (r'SELEKT U&"p\0061tient"', "0A000"),
        ("SELEKT 'query_to_xml'", "0A000"),
        ("FROBNICATE SET ROLE x", "0A000"),
        ("SELECT 1 /* patient", "0A000"),
        ('SELEKT "St""ay" FROM Stay', "0A000"),
        ("SELECT '\ud800'", "22021"),
        ("SELECT 1 \0 FROM patient", "22021"),
    ],
)
def test_a_recipient_is_refused(door: Door, sql: str, sqlstate: str) -> None:
    refusal = door.refuses(sql)
    assert refusal.sqlstate == sqlstate
    assert refusal.message
    assert refusal.hint


@pytest.mark.parametrize(
    "sql",
    [
        "SET ROLE NONE",
        "RESET ROLE",
        "RESET ALL",
        "SET SESSION AUTHORIZATION DEFAULT",
        "DISCARD ALL",
        "SELECT pg_catalog.leak()",
        "SELECT leak FROM t",
        "SELECT t.blob FROM t",
        "SELECT ts_rewrite('a'::tsquery, 'a', 'b')",
        "EXPLAIN SELECT * FROM pg_temp.patient",
        "INSERT INTO pg_temp.patient VALUES (1) RETURNING id",
        "INSERT INTO patient VALUES (1) ON CONFLICT (id) DO UPDATE SET x = 1",
        "DO 'BEGIN PERFORM 1; END'",
        "CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a'",
        "CREATE FUNCTION f(a int) RETURNS int RETURN a + 1",
        "CREATE TABLE x (a int); SELECT * FROM patient",
        "BEGIN; SELECT * FROM patient; SELECT 1; COMMIT",
        "SET statement_timeout = 0; SELECT * FROM patient",
        "SELECT * FROM patient; SET search_path = x",
        "SELEKT 1",
        "SELECT 'x",
        "SELECT 1 FROM",
        "ON CONFLICT DO NOTHNG",
    ],
)
def test_a_recipient_may(door: Door, sql: str) -> None:
    assert door.passes(sql).sql


def test_a_field_of_any_refused_function_is_refused_when_nobody_knows_its_arguments() -> None:
    door = Door(dataclasses.replace(rules(), attributes=None))
    assert door.refuses("SELECT t.blob FROM t").sqlstate == "42501"


def test_the_administrator_may_allow_a_function_that_takes_sql() -> None:
    door = Door(rules(allowed=frozenset({"ts_stat"})))
    assert door.passes("SELECT * FROM ts_stat('SELECT 1')")
    assert door.refuses("SELECT query_to_xml('SELECT 1', true, true, '')")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM patient",
        "SELECT * FROM marked.patient",
        "SELECT * FROM summary",
        "EXPLAIN SELECT * FROM report",
        "COPY hospital.patient TO STDOUT",
        "UPDATE patient SET x = x RETURNING *",
        "INSERT INTO patient VALUES (1) ON CONFLICT (id) DO UPDATE SET x = 1 RETURNING *",
    ],
)
def test_a_role_that_is_no_recipient_reads_nothing_protected(back_door: Door, sql: str) -> None:
    refusal = back_door.refuses(sql)
    assert refusal.sqlstate == "42501"
    assert "not enrolled" in refusal.message


@pytest.mark.parametrize(
    "sql",
    [
        "SET ROLE dba",
        "DO LANGUAGE plpython3u 'pass'",
        "SELECT leak()",
        "INSERT INTO patient VALUES (1) RETURNING id",
        "INSERT INTO patient DEFAULT VALUES RETURNING id",
        "ALTER TABLE hospital.patient ADD COLUMN x int",
        "EXPLAIN UPDATE hospital.patient SET x = 1",
        "SELECT * FROM pg_temp.patient",
    ],
)
def test_a_role_that_is_no_recipient_may(back_door: Door, sql: str) -> None:
    assert back_door.passes(sql).sql == sql


def test_no_refusal_repeats_a_constant(door: Door) -> None:
    for sql in ("SELECT leak('s3cret')", "SET ROLE s3cret", "SELEKT patient 's3cret'"):
        assert "s3cret" not in str(door.refuses(sql))


@pytest.mark.parametrize(
    ("sql", "refused"),
    [
        (r"SELECT '\' , * FROM hospital.patient -- '", True),
        (r"SELECT 'a\\b'", True),
        (r"SELECT E'a\'b', $$\$$", False),
        ("SELECT 'a''b'", False),
    ],
)
def test_a_backslash_is_refused_where_it_has_two_readings(
    door: Door, sql: str, *, refused: bool
) -> None:
    found = door(sql, standard_conforming_strings=False)
    assert isinstance(found, Refusal) == refused


@pytest.mark.parametrize(
    ("sql", "steps"),
    [
        ("PREPARE p AS SELECT 1", {"kind": "prepare", "prepares": "p"}),
        ("EXECUTE p", {"kind": "execute", "executes": "p"}),
        ("CREATE TABLE x AS EXECUTE p", {"kind": "write", "executes": "p"}),
        ("EXPLAIN ANALYZE EXECUTE p(1)", {"kind": "explain", "executes": "p"}),
        ('DEALLOCATE "P"', {"kind": "deallocate", "deallocates": "P"}),
        ("DEALLOCATE ALL", {"deallocates": "*"}),
        ("DISCARD ALL", {"deallocates": "*", "closes": "*", "changes_names": True}),
        ("DISCARD TEMP", {"deallocates": None, "changes_names": True}),
        ("DECLARE c CURSOR FOR SELECT 1", {"kind": "cursor", "declares": "c"}),
        ("FETCH ALL FROM C", {"kind": "fetch", "fetches": "c"}),
        ("MOVE 3 IN c", {"kind": "fetch", "fetches": "c"}),
        ("CLOSE c", {"kind": "close", "closes": "c"}),
        ("CLOSE ALL", {"closes": "*"}),
        ("SET search_path = x", {"changes_names": True}),
        ("SELECT set_config('search_path', 'x', false)", {"changes_names": True}),
        ("RESET ALL", {"changes_names": True, "changes_reading": True}),
        ("SET standard_conforming_strings = off", {"changes_reading": True}),
        ("CREATE TEMP TABLE x (a int)", {"changes_names": True}),
        ("CREATE FOREIGN TABLE x (a int) SERVER s", {"changes_names": True}),
        ("DROP SCHEMA x", {"changes_names": True}),
        ("SELECT own.f()", {"changes_names": True}),
        ("ROLLBACK TO a", {"kind": "transaction", "changes_names": True}),
        ("SELECT * FROM patient", {"kind": "select", "changes_names": False}),
        ("SELECT * INTO x FROM patient", {"kind": "write", "creates": ("x",)}),
        ("CREATE VIEW x AS SELECT 1", {"creates": ()}),
        ("ALTER VIEW summary RENAME TO x", {"creates": ("x",)}),
        ("COPY patient TO STDOUT", {"kind": "copy"}),
        ("INSERT INTO t TABLE patient", {"kind": "write"}),
    ],
)
def test_a_step_says_what_its_statement_does(
    door: Door, sql: str, steps: dict[str, object]
) -> None:
    [step] = door.passes(sql).statements
    assert {name: getattr(step, name) for name in steps} == steps


@pytest.mark.parametrize(
    ("sql", "depends"),
    [
        ("SELECT set_config('statement_timeout', '1', false) FROM patient", True),
        ("SELECT U&\"set!005fconfig\" UESCAPE '!' ('statement_timeout', '1', false)", True),
        ("SELECT ts_stat('SELECT 1')", True),
        ("SELECT lower('x') FROM patient WHERE a = 1", False),
    ],
)
def test_statements_whose_constants_matter_are_told(
    recipient_rules: Rules, sql: str, *, depends: bool
) -> None:
    [statement] = analyse(sql, recipient_rules).statements
    assert statement.reads_constants == depends


def test_every_statement_is_a_step(door: Door) -> None:
    decision = door.passes("BEGIN; SELECT 1;; SELECT * FROM patient; COMMIT")
    assert [step.kind for step in decision.statements] == [
        "transaction",
        "select",
        "select",
        "transaction",
    ]
    assert [bool(step.touched) for step in decision.statements] == [False, False, True, False]


def test_constants_are_told_as_text(recipient_rules: Rules) -> None:
    analysis = analyse(
        "SELECT 1 FROM t WHERE a = 'O''Hara' AND b IN (7, 1.5) AND c", recipient_rules
    )
    assert analysis.plain
    assert sorted(analysis.constants) == ["1", "1.5", "7", "O'Hara"]


def test_a_name_is_found_at_any_depth(recipient_rules: Rules) -> None:
    for sql in (
        "SELECT " + "(SELECT " * 300 + "(TABLE patient)" + ")" * 300,
        "SELECT " + "1 + " * 3_000 + "(SELECT id FROM patient)",
        "SELECT 1" + " UNION SELECT 1" * 3_000 + " UNION TABLE patient",
        "SELECT " + "NOT " * 900 + "(TABLE patient)",
    ):
        assert analyse(sql, recipient_rules).questions == {BARE}


_FRAGMENTS = r"""
SELECT FROM WHERE patient hospital. marked.patient stay_view WITH AS ( ) UNION U&"p\0061tient"
E'\'' $$ $a$ -- /* */ '' "" UESCAPE ONLY LATERAL JOIN INSERT INTO UPDATE SET DELETE COPY TO STDOUT
TABLE EXPLAIN ROLE x 1 $1
"""

_PIECES = st.sampled_from(
    [
        *"()[];,.*'\"$:-/\\\n ",
        *_FRAGMENTS.split(),
        "é",
        "\ud83d\ude00",
    ]
)


@given(st.lists(_PIECES, max_size=14), st.sampled_from(["", " "]))
def test_any_text_is_decided_or_refused(pieces: list[str], glue: str) -> None:
    made = rules()
    try:
        analysis = analyse(glue.join(pieces), made)
    except Unreadable:
        return
    found = Door(made)(glue.join(pieces))
    assert isinstance(found, Decision | Refusal)
    if isinstance(found, Decision) and not analysis.readable:
        assert not re.search(r"(?<![\w$])patient(?![\w$])", glue.join(pieces))


@given(st.text(max_size=40))
def test_any_characters_are_decided_or_refused(text: str) -> None:
    assert isinstance(Door(rules())(text), Decision | Refusal)
