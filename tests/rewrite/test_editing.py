"""Protected names are replaced, every other byte stays, and what was touched is told."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.rewrite import explain_refusal
from pgbalise.rewrite.editing import same
from pgbalise.rewrite.grammar import parse
from tests.rewrite.conftest import PATIENT, STAY, Door, rules

VIEW = '"marked"."patient"'
STAYS = '"marked"."stay_view"'


@pytest.mark.parametrize(
    ("sql", "edited"),
    [
        ("SELECT * FROM hospital.patient", f"SELECT * FROM {VIEW}"),
        ("TABLE patient;", f"TABLE {VIEW};"),
        (
            "select * from patient p where p.a='é' -- x",
            f"select * from {VIEW} p where p.a='é' -- x",
        ),
        ("SELECT 'é', * FROM patient", f"SELECT 'é', * FROM {VIEW}"),
        ("SELECT 1 FROM postgres.hospital.patient x", f"SELECT 1 FROM {VIEW} x"),
        ("SELECT 1 FROM hospital /* a */ . patient/**/x", f"SELECT 1 FROM {VIEW}/**/x"),
        (r'SELECT 1 FROM U&"p\0061tient"', f"SELECT 1 FROM {VIEW}"),
        (
            "SELECT 1 FROM U&\"hosp!0069tal\" UESCAPE '!' . patient AS x",
            f"SELECT 1 FROM {VIEW} AS x",
        ),
        # an alias keeps the relation's name where the view has another
        ('SELECT "Stay".a FROM "Stay"', f'SELECT "Stay".a FROM {STAYS} AS "Stay"'),
        ('SELECT 1 FROM "Stay" x, "Stay" AS y(a)', f"SELECT 1 FROM {STAYS} x, {STAYS} AS y(a)"),
        (
            'SELECT 1 FROM "Stay" * WHERE 2 * 3 = 6',
            f'SELECT 1 FROM {STAYS} * AS "Stay" WHERE 2 * 3 = 6',
        ),
        ('SELECT 1 FROM ONLY "Stay"', f'SELECT 1 FROM ONLY {STAYS} AS "Stay"'),
        (
            'SELECT 1 FROM (ONLY ("Stay") JOIN t ON true)',
            f'SELECT 1 FROM (ONLY ({STAYS}) AS "Stay" JOIN t ON true)',
        ),
        (
            'SELECT 1 FROM (ONLY "Stay" CROSS JOIN t)',
            f'SELECT 1 FROM (ONLY {STAYS} AS "Stay" CROSS JOIN t)',
        ),
        ('SELECT 1 FROM (t CROSS JOIN "Stay")', f'SELECT 1 FROM (t CROSS JOIN {STAYS} AS "Stay")'),
        # columns with a schema follow their FROM-item
        (
            "SELECT hospital.patient.name, hospital.patient.* FROM hospital.patient",
            f"SELECT {VIEW}.name, {VIEW}.* FROM {VIEW}",
        ),
        (
            "SELECT hospital.patient.name FROM patient WHERE postgres.hospital.patient.id = 1",
            f"SELECT {VIEW}.name FROM {VIEW} WHERE {VIEW}.id = 1",
        ),
        ('SELECT hospital."Stay".a FROM "Stay"', f'SELECT "Stay".a FROM {STAYS} AS "Stay"'),
        (
            "SELECT (SELECT hospital.patient.name) FROM hospital.patient",
            f"SELECT (SELECT {VIEW}.name) FROM {VIEW}",
        ),
        (
            "SELECT hospital.patient.name FROM hospital.patient AS p",
            f"SELECT hospital.patient.name FROM {VIEW} AS p",
        ),
        # what is written to stays
        (
            "UPDATE hospital.patient SET a = 1 FROM patient b WHERE hospital.patient.id = b.id",
            f"UPDATE hospital.patient SET a = 1 FROM {VIEW} b WHERE hospital.patient.id = b.id",
        ),
        (
            "UPDATE t SET a = hospital.patient.a FROM hospital.patient",
            f"UPDATE t SET a = {VIEW}.a FROM {VIEW}",
        ),
        (
            "UPDATE other.patient SET a = 1 FROM hospital.patient WHERE hospital.patient.a",
            f"UPDATE other.patient SET a = 1 FROM {VIEW} WHERE {VIEW}.a",
        ),
        (
            'UPDATE t SET (a, b) = (SELECT a, b FROM "Stay") WHERE c',
            f'UPDATE t SET (a, b) = (SELECT a, b FROM {STAYS} AS "Stay") WHERE c',
        ),
        (
            # an error before, and so it must be one after
            "DELETE FROM hospital.patient USING hospital.patient",
            f'DELETE FROM hospital.patient USING {VIEW} AS "patient"',
        ),
        (
            "INSERT INTO patient SELECT * FROM patient ON CONFLICT (id) DO NOTHING",
            f"INSERT INTO patient SELECT * FROM {VIEW} ON CONFLICT (id) DO NOTHING",
        ),
        (
            "MERGE INTO patient AS a USING patient AS b ON a.id = b.id WHEN MATCHED THEN DELETE",
            f"MERGE INTO patient AS a USING {VIEW} AS b ON a.id = b.id WHEN MATCHED THEN DELETE",
        ),
        # COPY
        ("COPY hospital.patient TO STDOUT", f"COPY (SELECT * FROM {VIEW}) TO STDOUT"),
        (
            'COPY "Stay" (a, "B""b", values) TO STDOUT (FORCE_QUOTE (a))',
            f'COPY (SELECT "a", "B""b", "values" FROM {STAYS}) TO STDOUT (FORCE_QUOTE (a))',
        ),
        (
            "COPY patient TO '/tmp/x' CSV HEADER",
            f"COPY (SELECT * FROM {VIEW}) TO '/tmp/x' CSV HEADER",
        ),
        ("COPY (TABLE patient) TO STDOUT", f"COPY (TABLE {VIEW}) TO STDOUT"),
        # queries inside
        ("DECLARE c CURSOR FOR TABLE patient", f"DECLARE c CURSOR FOR TABLE {VIEW}"),
        ("PREPARE p AS TABLE patient", f"PREPARE p AS TABLE {VIEW}"),
        ("SELECT * INTO x FROM patient", f"SELECT * INTO x FROM {VIEW}"),
        (
            "WITH patient AS (TABLE patient) TABLE patient",
            f"WITH patient AS (TABLE {VIEW}) TABLE patient",
        ),
        (
            "(WITH patient AS (SELECT 1) TABLE patient) UNION TABLE patient",
            f"(WITH patient AS (SELECT 1) TABLE patient) UNION TABLE {VIEW}",
        ),
        ("BEGIN; TABLE patient; COMMIT", f"BEGIN; TABLE {VIEW}; COMMIT"),
    ],
)
def test_names_are_replaced_in_place(door: Door, sql: str, edited: str) -> None:
    assert door.passes(sql).sql == edited


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM marked.patient",
        "SELECT * FROM summary",
        "SELECT * FROM pg_temp.patient",
        "SELECT * FROM nowhere.patient",
        "UPDATE patient SET a = patient.b WHERE hospital.patient.c",
    ],
)
def test_what_needs_no_edit_is_the_same_object(door: Door, sql: str) -> None:
    assert door.passes(sql).sql is sql


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIEW v AS TABLE patient",
        "CREATE SCHEMA x CREATE VIEW y AS TABLE patient",
        "CREATE RULE r AS ON UPDATE TO t DO ALSO TABLE patient",
        "CREATE POLICY p ON t USING (EXISTS (TABLE patient))",
        "ALTER POLICY p ON t USING (EXISTS (TABLE patient))",
    ],
)
def test_what_would_be_read_unseen_later_may_not_be_defined(door: Door, sql: str) -> None:
    assert door.refuses(sql).sqlstate == "42501"


def test_a_bare_name_stays_what_it_is_now(door: Door) -> None:
    decision = door.passes('SELECT shadow.a, "shadow".* FROM "shadow", ONLY shadow AS s')
    assert decision.sql == (
        'SELECT shadow.a, "shadow".* FROM "work"."shadow", ONLY "work".shadow AS s'
    )
    assert door.passes("COPY shadow (a) TO STDOUT").sql == 'COPY "work".shadow (a) TO STDOUT'
    assert door.passes("SELECT * FROM work.shadow").sql == "SELECT * FROM work.shadow"


@pytest.mark.parametrize(
    "sql",
    ["COPY BINARY patient TO STDOUT", "COPY patient TO STDOUT USING DELIMITERS '|'"],
)
def test_a_form_that_cannot_be_edited_is_refused(door: Door, sql: str) -> None:
    assert door.refuses(sql).sqlstate == "0A000"


@pytest.mark.parametrize(
    ("sql", "touched"),
    [
        ('SELECT 1 FROM patient, "Stay", marked.patient', (STAY, PATIENT)),
        ("SELECT 1 FROM summary", (PATIENT,)),
        ("SELECT 1 FROM stay_view", (STAY,)),
        ("DELETE FROM patient", ()),
        ("SELECT 1 FROM pg_temp.patient", ()),
    ],
)
def test_what_is_read_through_marked_views_is_told(
    door: Door, sql: str, touched: tuple[object, ...]
) -> None:
    [step] = door.passes(sql).statements
    assert step.touched == touched
    assert bool(step.statement) == bool(touched)


@pytest.mark.parametrize(
    ("sql", "statement"),
    [
        (
            "SELECT  a,-1 /* b */ FROM\n patient -- 'c'\nWHERE d=$2 AND e IN (E'f', 'g'\n'h', 1.5)",
            "SELECT a,-$3 FROM patient WHERE d=$2 AND e IN ($4, $5, $6)",
        ),
        (" TABLE patient ;", "TABLE patient"),
        ("TABLE patient WHERE", ""),
        (
            "PREPARE p AS SELECT $$x$$, B'1' FROM \"patient\"",
            'PREPARE p AS SELECT $1, $2 FROM "patient"',
        ),
    ],
)
def test_the_statement_is_told_without_constants_and_comments(
    door: Door, sql: str, statement: str
) -> None:
    found = door(sql)
    steps = getattr(found, "statements", ())
    assert [step.statement for step in steps] == ([statement] if statement else [])


def test_each_statement_of_a_text_is_told_alone(door: Door) -> None:
    first, second, third = door.passes(
        "SELECT 'é'; TABLE patient; SELECT 2 FROM patient"
    ).statements
    assert (first.statement, second.statement) == ("", "TABLE patient")
    assert (third.statement, third.constants) == ("SELECT $1 FROM patient", ("2",))


_MANY = 3_000


@pytest.mark.parametrize(
    "sql",
    [
        "TABLE patient;" * 3 * _MANY,
        "".join(f"CREATE TEMP TABLE v{at} AS TABLE patient;" for at in range(2 * _MANY)),
        "WITH " + ", ".join(f"c{at} AS (SELECT)" for at in range(5 * _MANY)) + " SELECT 1",
        "SELECT " + "hospital.patient.id," * 3 * _MANY + "1 FROM " + "patient p," * 3 * _MANY + "t",
    ],
    ids=["statements", "views", "ctes", "columns"],
)
def test_the_time_to_decide_grows_no_faster_than_the_text(door: Door, sql: str) -> None:
    def seconds(text: str) -> float:
        begun = process_time()
        door.passes(text)
        return process_time() - begun

    # what grew with the square of the text took from 7 to 20 seconds here
    assert seconds(sql) < 4


def test_explaining_a_prepared_statement_has_a_refusal() -> None:
    refusal = explain_refusal((PATIENT, STAY))
    assert refusal.sqlstate == "42501"
    assert "hospital.patient, hospital.Stay" in refusal.message


def test_trees_that_differ_are_told_apart() -> None:
    one = parse(b"SELECT a, 1 FROM b")
    assert same(one, parse(b"SELECT  a ,  1 FROM   b"), {})
    for other in (
        b"SELECT a, 2 FROM b",
        b"SELECT a FROM b",
        b"SELECT a, 1 FROM ONLY b",
        b"SELECT 1",
    ):
        assert not same(one, parse(other), {})


# Queries of all shapes. A protected name is written as a placeholder, so that what the edited
# text must be is known without editing.

_NAMES = st.sampled_from(
    ["hospital.patient", "patient", 'hospital . "patient"', "HOSPITAL./* , */Patient"]
)
_OTHERS = st.sampled_from(["t", "other.patient", '"Patient"', "pg_temp.patient", "marked.patient"])
_COLUMNS = st.sampled_from(
    ["a", "p.a", "'hospital.patient'", "$$patient$$", '"patient"', "1.5", "é"]
)
_GAPS = st.sampled_from([" ", "\n", " /* patient é */ ", " -- hospital.patient\n"])


@st.composite
def _queries(draw: st.DrawFn, depth: int = 2) -> str:
    """A query in which a protected name stands between two \x01."""
    gap = draw(_GAPS)
    items = []
    for at in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["name", "other", "query"] if depth else ["name", "other"]))
        if kind == "query":
            lateral = draw(st.sampled_from(["", "LATERAL "]))
            items.append(f"{lateral}({draw(_queries(depth - 1))}) AS f{at}")
        else:
            name = f"\x01{draw(_NAMES)}\x01" if kind == "name" else draw(_OTHERS)
            items.append(f"{name} AS f{at}")
    column = draw(_COLUMNS)
    if depth and draw(st.booleans()):
        column = f"({draw(_queries(depth - 1))})"
    joined = draw(st.sampled_from([", ", " CROSS JOIN ", " NATURAL JOIN "])).join(items)
    query = f"SELECT{gap}{column}{gap}FROM{gap}{joined}"
    shape = draw(st.sampled_from(["", "union", "cte", "shadow"])) if depth else ""
    if shape == "union":
        query = f"({query}){gap}UNION ALL{gap}({draw(_queries(depth - 1))})"
    elif shape == "cte":
        query = f"WITH{gap}c AS ({draw(_queries(depth - 1))}){gap}{query}"
    elif shape == "shadow":
        query = f"SELECT 1 FROM (WITH patient AS ({query}) TABLE patient) AS s"
    return query


@given(_queries())
def test_editing_keeps_every_other_byte(marked: str) -> None:
    pieces = marked.split("\x01")
    expected = "".join(VIEW if at % 2 else piece for at, piece in enumerate(pieces))
    assert Door(rules()).passes("".join(pieces)).sql == expected
