"""What PostgreSQL's own regression files showed: ways in which a statement reads what it does not
name, tried on a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgbalise.rewrite import RESOLVE, Decision, Protected, Refusal, Rules, analyse, answers, decide

if TYPE_CHECKING:
    from tests.conftest import Connection

LAYOUT = """
CREATE SCHEMA hospital; CREATE SCHEMA marked; CREATE SCHEMA other;
CREATE TABLE hospital.patient (id int PRIMARY KEY, name text);
INSERT INTO hospital.patient VALUES (1, 'Anne');
CREATE VIEW marked.patient AS SELECT id, 'marked' AS name FROM hospital.patient;
CREATE TABLE hospital.ward (id int);
CREATE TABLE hospital.night_ward () INHERITS (hospital.ward);
CREATE VIEW marked.ward AS SELECT * FROM hospital.ward;
CREATE TABLE other.inbox (id int);
CREATE RULE answer AS ON INSERT TO other.inbox DO ALSO SELECT * FROM hospital.patient;
CREATE TABLE other.log (id int, name text);
CREATE RULE keep AS ON DELETE TO hospital.patient
    DO ALSO INSERT INTO other.log VALUES (OLD.id, OLD.name);
CREATE VIEW other.register AS SELECT * FROM hospital.patient;
CREATE FUNCTION other.first_name() RETURNS text LANGUAGE sql SECURITY DEFINER
    AS 'SELECT name FROM hospital.patient LIMIT 1';
CREATE VIEW other.door AS SELECT 1 AS id, other.first_name() AS name;
CREATE VIEW other.porch AS SELECT * FROM other.door;
"""


class Shell:
    """Does what a proxy does with a text, for two protected relations."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        relations = [
            Protected("hospital", name, "marked", name, ()) for name in ("patient", "ward")
        ]
        self.rules = Rules(
            protected={self.oid(str(known)): known for known in relations},
            marked={self.oid(f"{known.view_schema}.{known.view}"): known for known in relations},
            names=frozenset({"patient", "ward", "inbox", "log", "register", "door", "porch"}),
            functions={"first_name": "it reaches patient"},
            builtins=frozenset(),
            enrolled=True,
            allowed=frozenset(),
            opaque={self.oid("other.door"): "it calls first_name, which reaches patient"},
        )

    def oid(self, name: str) -> int:
        [(oid,)] = self.connection.execute("SELECT %s::regclass::oid", (name,)).fetchall()
        return int(oid)

    def __call__(self, sql: str) -> Decision | Refusal:
        analysis = analyse(sql, self.rules)
        query = RESOLVE
        for at in (1, 2, 3):
            query = query.replace(f"${at}", f"%({at})s")
        values = {
            "1": [name.quoted for name in analysis.questions],
            "2": [*self.rules.protected, *self.rules.opaque],
            "3": list(self.rules.marked),
        }
        rows = self.connection.execute(query, values).fetchall()
        return decide(analysis, answers(analysis.questions, rows), self.rules)


@pytest.fixture
def shell(empty_db: Connection) -> Shell:
    empty_db.execute(LAYOUT)
    return Shell(empty_db)


def test_a_write_whose_rule_answers_with_stored_rows_is_refused(shell: Shell) -> None:
    sql = "INSERT INTO other.inbox VALUES (1)"
    assert shell.connection.execute(sql).fetchall() == [(1, "Anne")]
    assert isinstance(shell(sql), Refusal)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM hospital.patient WHERE id = 1",
        "UPDATE other.register SET name = 'x' WHERE id = 1",
        "INSERT INTO other.log VALUES (1, 'x')",
    ],
)
def test_a_write_that_gives_no_rows_is_left_to_the_servers_privileges(
    shell: Shell, sql: str
) -> None:
    decision = shell(sql)
    assert isinstance(decision, Decision)
    assert decision.sql == sql


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM ONLY hospital.ward",
        "TABLE ONLY (hospital.ward)",
        "COPY hospital.ward TO STDOUT",
    ],
)
def test_a_parent_without_its_children_is_refused_since_the_view_shows_both(
    shell: Shell, sql: str
) -> None:
    assert isinstance(shell(sql), Refusal)


def test_only_is_kept_where_nothing_inherits(shell: Shell) -> None:
    decision = shell("SELECT * FROM ONLY hospital.patient")
    assert isinstance(decision, Decision)
    assert decision.sql == 'SELECT * FROM ONLY "marked"."patient"'


@pytest.mark.parametrize("view", ["door", "porch"])
def test_a_view_that_calls_a_function_which_may_not_be_called_is_refused(
    shell: Shell, view: str
) -> None:
    sql = f"SELECT name FROM other.{view}"
    assert shell.connection.execute(sql.encode()).fetchall() == [("Anne",)]
    assert isinstance(shell(sql), Refusal)
