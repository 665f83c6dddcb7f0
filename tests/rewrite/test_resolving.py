"""Names are what the server says they are, in the session that asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgbalise.rewrite import RESOLVE, Answer, Name, analyse, answers, decide
from pgbalise.rewrite.names import Protected, Rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Connection

LAYOUT = """
CREATE SCHEMA hospital; CREATE SCHEMA marked; CREATE SCHEMA other; CREATE SCHEMA "od.d""ity";
CREATE TABLE hospital.patient (id int PRIMARY KEY, name text);
CREATE VIEW marked.patient AS SELECT * FROM hospital.patient;
CREATE VIEW other.report AS SELECT count(*) FROM hospital.patient;
CREATE VIEW other.deep AS SELECT * FROM other.report;
CREATE MATERIALIZED VIEW other.stored AS SELECT * FROM other.deep;
CREATE VIEW other.through AS SELECT * FROM marked.patient;
CREATE VIEW other.both AS SELECT t.id FROM other.through AS t, hospital.patient AS p;
CREATE TABLE other.plain (id int);
CREATE TABLE other.patient (id int);
CREATE TABLE hospital.stay (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE hospital.stay_2024 PARTITION OF hospital.stay
    FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE VIEW marked.stay AS SELECT * FROM hospital.stay;
CREATE TABLE other.parent (id int);
CREATE TABLE other.kept () INHERITS (other.parent);
CREATE TABLE other.sibling () INHERITS (other.parent);
CREATE VIEW marked.kept AS SELECT * FROM other.kept;
CREATE TABLE other.ruled (id int, name text);
CREATE RULE "_also" AS ON UPDATE TO other.ruled DO ALSO SELECT * FROM hospital.patient;
CREATE TABLE other.guarded (id int);
CREATE POLICY look ON other.guarded USING (EXISTS (SELECT FROM hospital.patient));
CREATE TABLE "od.d""ity"."pa tient" (id int);
CREATE VIEW marked."été.""x" AS SELECT * FROM hospital.patient;
CREATE VIEW other.quoted AS SELECT * FROM "od.d""ity"."pa tient";
"""

PROTECTED = ("hospital.patient", "hospital.stay", "other.kept", '"od.d""ity"."pa tient"')
MARKED = ("marked.patient", "marked.stay", "marked.kept", 'marked."été.""x"')


class Session:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.protected, self.marked = (
            {self.oid(name): name for name in names} for names in (PROTECTED, MARKED)
        )

    def oid(self, name: str) -> int:
        [(oid,)] = self.connection.execute("SELECT %s::regclass::oid", (name,)).fetchall()
        return int(oid)

    def ask(self, *names: Name) -> dict[Name, Answer]:
        query = RESOLVE
        for at in (1, 2, 3):
            query = query.replace(f"${at}", f"%({at})s")
        texts = [name.quoted for name in names]
        values = {"1": texts, "2": list(self.protected), "3": list(self.marked)}
        return answers(names, self.connection.execute(query, values).fetchall())

    def reach(self, name: Name) -> tuple[set[str], set[str]]:
        answer = self.ask(name)[name]
        return {self.marked[o] for o in answer.marked}, {self.protected[o] for o in answer.stored}


@pytest.fixture
def session(empty_db: Connection) -> Iterator[Session]:
    empty_db.execute(LAYOUT)
    yield Session(empty_db)
    empty_db.execute("RESET ROLE")


@pytest.mark.parametrize(
    ("schema", "relation", "marked", "stored"),
    [
        ("hospital", "patient", (), ("hospital.patient",)),
        ("marked", "patient", ("marked.patient",), ()),
        ("other", "report", (), ("hospital.patient",)),
        ("other", "deep", (), ("hospital.patient",)),
        ("other", "stored", (), ("hospital.patient",)),
        ("other", "through", ("marked.patient",), ()),
        ("other", "both", ("marked.patient",), ("hospital.patient",)),
        ("other", "plain", (), ()),
        ("hospital", "stay_2024", (), ("hospital.stay",)),
        ("other", "parent", (), ("other.kept",)),
        ("other", "sibling", (), ()),
        ("other", "ruled", (), ("hospital.patient",)),
        ("other", "guarded", (), ("hospital.patient",)),
        ('od.d"ity', "pa tient", (), ('"od.d""ity"."pa tient"',)),
        ("other", "quoted", (), ('"od.d""ity"."pa tient"',)),
        ("marked", 'été."x', ('marked."été.""x"',), ()),
        ("nowhere", "patient", (), ()),
        (None, "pg_class", (), ()),
    ],
)
def test_reach_goes_through_what_is_read_and_stops_at_marked_views(
    session: Session,
    schema: str | None,
    relation: str,
    marked: tuple[str, ...],
    stored: tuple[str, ...],
) -> None:
    assert session.reach(Name(schema, relation)) == (set(marked), set(stored))


def test_a_bare_name_follows_the_search_path(session: Session) -> None:
    name = Name(None, "patient")
    assert session.ask(name)[name] == Answer(0)
    for path, oid in (
        ("hospital, other", session.oid("hospital.patient")),
        ("other, hospital", session.oid("other.patient")),
        ("marked", session.oid("marked.patient")),
    ):
        session.connection.execute(f"SET search_path = {path}")
        assert session.ask(name)[name].oid == oid


def test_a_temporary_table_shadows_and_pg_temp_names_it(session: Session) -> None:
    session.connection.execute("SET search_path = hospital")
    session.connection.execute("CREATE TEMP TABLE patient (id int)")
    temp = session.oid("pg_temp.patient")
    bare, named, full = (
        Name(None, "patient"),
        Name("pg_temp", "patient"),
        Name("hospital", "patient"),
    )
    found = session.ask(bare, named, full)
    assert (found[bare], found[named]) == (Answer(temp), Answer(temp))
    assert found[full].oid == session.oid("hospital.patient")


def test_nothing_that_the_client_made_stands_in_for_the_catalog(session: Session) -> None:
    session.connection.execute(
        """
        CREATE TEMP TABLE pg_class (oid oid, relname name, relnamespace oid);
        CREATE TEMP TABLE pg_namespace (oid oid, nspname name);
        CREATE TEMP TABLE pg_rewrite (oid oid, ev_class oid);
        CREATE SCHEMA trap;
        CREATE FUNCTION trap.never(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT false';
        CREATE FUNCTION trap.never(text, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
        CREATE FUNCTION trap.to_regclass(text) RETURNS regclass
            LANGUAGE sql AS 'SELECT NULL::regclass';
        CREATE FUNCTION trap.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS 'SELECT ''x''';
        CREATE OPERATOR trap.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = trap.never);
        CREATE OPERATOR trap.<> (LEFTARG = oid, RIGHTARG = oid, FUNCTION = trap.never);
        CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.never);
        SET search_path = trap, pg_temp, other, pg_catalog
        """
    )
    assert session.reach(Name("other", "deep")) == (set(), {"hospital.patient"})
    assert session.reach(Name(None, "deep")) == (set(), {"hospital.patient"})


def test_a_recipient_without_rights_on_the_schema_is_answered(session: Session) -> None:
    session.connection.execute("CREATE ROLE resolving_recipient")
    session.connection.execute("GRANT USAGE ON SCHEMA marked TO resolving_recipient")
    session.connection.execute("SET search_path = hospital, marked")
    session.connection.execute("SET ROLE resolving_recipient")
    full, bare = Name("hospital", "patient"), Name(None, "patient")
    found = session.ask(full, bare)
    session.connection.execute("RESET ROLE")
    assert found[full].oid == session.oid("hospital.patient")
    assert found[bare].oid == session.oid("marked.patient")
    session.connection.execute("DROP OWNED BY resolving_recipient")


def test_edited_text_runs_and_reads_the_view(session: Session) -> None:
    connection = session.connection
    connection.execute("INSERT INTO hospital.patient VALUES (1, 'stored')")
    connection.execute(
        "CREATE OR REPLACE VIEW marked.patient AS SELECT id, 'marked'::text AS name"
        " FROM hospital.patient"
    )
    connection.execute("CREATE VIEW marked.other AS SELECT * FROM marked.patient")
    for view in ("patient", "other"):
        protected = Protected("hospital", "patient", "marked", view, ())
        oid = session.oid("hospital.patient")
        rules = Rules(
            {oid: protected},
            {session.oid(f"marked.{view}"): protected},
            frozenset({"patient"}),
            {},
            frozenset({"count", "max"}),
            enrolled=True,
            allowed=frozenset(),
        )
        for sql in (
            "SELECT name FROM hospital.patient",
            "SELECT hospital.patient.name FROM hospital.patient",
            'SELECT patient.name FROM hospital /**/ . "patient" WHERE patient.id = 1',
            "SELECT p.name FROM ONLY (hospital.patient) AS p",
            "SELECT patient.name FROM ONLY (hospital.patient)",
            "SELECT max((SELECT hospital.patient.name)) FROM hospital.patient *",
            "SELECT (patient).name FROM hospital.patient",
            "WITH patient AS (SELECT * FROM hospital.patient) SELECT name FROM patient",
            "SELECT x.n FROM hospital.patient, LATERAL (SELECT hospital.patient.name) AS x(n)",
            "SELECT name FROM hospital.patient JOIN hospital.patient AS b USING (id, name) AS j",
            "VALUES ((SELECT name FROM hospital.patient))",
        ):
            analysis = analyse(sql, rules)
            decision = decide(analysis, session.ask(*analysis.questions), rules)
            assert connection.execute(decision.sql).fetchall() == [("marked",)], sql
