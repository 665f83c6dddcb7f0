"""Every kind of relation that a hospital has, protected for real or refused with a reason."""

from __future__ import annotations

import csv
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pytest
from psycopg import sql
from pytest_postgresql.janitor import DatabaseJanitor

import pgbalise
from pgbalise.check import check
from pgbalise.database import apply_policy, enrol
from pgbalise.errors import InvalidPolicy
from pgbalise.fit import fit
from pgbalise.install import install
from pgbalise.investigate import Question, investigate
from pgbalise.marking.document import split_name
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass, load_policy, parse_policy
from pgbalise.session import PsycopgSession
from pgbalise.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgbalise.demo.cluster import ThrowawayCluster

Document = dict[str, Any]

KEY = MasterKey(b"relations" + bytes(23))
NUMBER = {"type": "numeric(5,1)", "quantum": "0.1", "bounds": ["1", "400"], "density": "0.5"}
COUNT = {"type": "integer", "quantum": "1", "bounds": ["0", "1000"], "density": "0.5"}
ID = {"id": "bigint"}


class World:
    """A database whose schema ``h`` is the hospital's, and a recipient of each class."""

    def __init__(self, dba: psycopg.Connection[Any], cluster: ThrowawayCluster) -> None:
        self.dba = dba
        self.session = PsycopgSession(dba)
        self.dsn = cluster.dsn(dba.info.dbname)
        self._dsn = {role: cluster.dsn(dba.info.dbname, role) for role in ("rel_anna", "rel_carl")}

    def run(self, *statements: str) -> None:
        """Run statements of the hospital's."""
        for statement in statements:
            self.dba.execute(statement.encode())

    def apply(self, document: Document) -> None:
        with self.dba.transaction():
            apply_policy(self.session, document, KEY)

    def drop(self, *schemas: str) -> None:
        """Drop schemas whatever the policy in force rests on."""
        self.run("DELETE FROM balise.relation")
        self.run(*(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE" for schema in schemas))

    def ask(self, query: str | sql.Composable, role: str = "rel_anna") -> list[tuple[Any, ...]]:
        """A recipient's answer."""
        with psycopg.connect(self._dsn[role], autocommit=True) as connection:
            statement = query.encode() if isinstance(query, str) else query
            return connection.execute(statement).fetchall()

    def refused(self, document: Document, says: str) -> None:
        """Neither check nor apply does anything but say why, in one line."""
        for attempt in (
            lambda: check(self.session, parse_policy(document)),
            self.applying(document),
        ):
            with pytest.raises(InvalidPolicy, match=says) as caught:
                attempt()
            assert "\n" not in str(caught.value)
            assert caught.value.hint

    def applying(self, document: Document) -> Any:
        return lambda: self.apply(document)

    def agrees(self, document: Document, relation: str, *, by: str = "") -> int:
        """Apply; assert that the view is what Python makes of the relation; count changed cells.

        Every column that is no carrier must be as it is stored, to the byte.
        """
        self.apply(document)
        policy = parse_policy(document)
        protected = policy.relation(relation)
        schema, name = split_name(relation, "relation")
        here, there = sql.Identifier(schema, name), sql.Identifier("marked", protected.view)
        shown = self.dba.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(here)).description
        every = [column.name for column in shown or ()]
        carriers = [carrier.column for carrier in protected.carriers]
        order = sql.SQL(", ").join(sql.Identifier(column) for column, _ in protected.key)
        typed = {column for column, _ in protected.key} | set(carriers)
        typed |= {column for c in protected.carriers for column, _ in c.entity}
        columns = sql.SQL(", ").join(
            sql.Identifier(c) if c in typed else sql.SQL("{}::text").format(sql.Identifier(c))
            for c in every
        )
        query = sql.SQL("SELECT {} FROM {} ORDER BY {}")
        stored = self.dba.execute(query.format(columns, here, order)).fetchall()
        seen = self.ask(query.format(columns, there, order))
        assert stored
        table = pa.table({c: pa.array([row[at] for row in stored]) for at, c in enumerate(every)})
        marked = pgbalise.mark(table, policy, "rel_anna", KEY, relation=relation)
        expected = list(zip(*(marked.column(c).to_pylist() for c in every), strict=True))
        assert seen == expected
        return sum(
            a[at] != b[at]
            for a, b in zip(stored, seen, strict=True)
            for at, c in enumerate(every)
            if c in carriers
        )


@pytest.fixture(scope="module")
def shared(cluster: ThrowawayCluster) -> Iterator[World]:
    with database(cluster, "relations_test") as made:
        yield made


@contextmanager
def database(cluster: ThrowawayCluster, name: str) -> Iterator[World]:
    janitor = DatabaseJanitor(
        user="postgres",
        host=cluster.host,
        port=cluster.port,
        dbname=name,
        template_dbname="template0",
    )
    with janitor, psycopg.connect(cluster.dsn(name), autocommit=True) as dba:
        world = World(dba, cluster)
        install(world.session)
        world.run("CREATE ROLE rel_anna LOGIN", "CREATE ROLE rel_carl LOGIN")
        world.run("CREATE TABLE public.first (id int PRIMARY KEY, n int)")
        carrier = {"n": {"type": "integer", "quantum": "1", "bounds": ["0", "9"]}}
        first = {"public.first": {"key": {"id": "integer"}, "carrier": carrier}}
        with dba.transaction():
            apply_policy(world.session, {"relation": first}, KEY)
            enrol(world.session, ["rel_anna"], RecipientClass.SECONDARY, KEY)
            enrol(world.session, ["rel_carl"], RecipientClass.CARE, KEY)
        yield world
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("DROP ROLE rel_anna; DROP ROLE rel_carl")


@pytest.fixture
def world(shared: World) -> World:
    """The shared database with an empty schema ``h`` and no marked view."""
    shared.run(
        "DELETE FROM balise.policy",
        "DELETE FROM balise.relation",
        "DROP SCHEMA IF EXISTS h, marked, marked_care, balise_decoy CASCADE",
        "CREATE SCHEMA h",
    )
    return shared


def protect(relation: str, key: Any = None, carriers: Any = None, **more: Any) -> Document:
    body = {"key": key or ID, "carrier": carriers or {"poids": NUMBER}, **more}
    return {"relation": {relation: body}}


# --- partitions and inheritance ---------------------------------------------------------------

FILL = (
    "INSERT INTO h.t (id, jour, poids) SELECT i, date '2024-01-01' + i % 360, 50 + i % 300 / 10.0"
)


@pytest.mark.parametrize(
    "partitions",
    [
        (
            (
                "CREATE TABLE h.t (id bigint, jour date, poids numeric(5,1),"
                " PRIMARY KEY (id, jour))"
                " PARTITION BY RANGE (jour)"
            ),
            "CREATE TABLE h.a PARTITION OF h.t FOR VALUES FROM ('2024-01-01') TO ('2024-07-01')",
            "CREATE TABLE h.b PARTITION OF h.t DEFAULT",
        ),
        (
            (
                "CREATE TABLE h.t (id bigint, jour date, poids numeric(5,1),"
                " PRIMARY KEY (id, jour))"
                " PARTITION BY HASH (id)"
            ),
            "CREATE TABLE h.a PARTITION OF h.t FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
            (
                "CREATE TABLE h.b PARTITION OF h.t FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
                " PARTITION BY LIST (jour)"
            ),
            "CREATE TABLE h.b1 PARTITION OF h.b FOR VALUES IN ('2024-01-04')",
            "CREATE TABLE h.b2 PARTITION OF h.b DEFAULT",
        ),
        (
            # the carrier itself decides the partition
            (
                "CREATE TABLE h.t (id bigint NOT NULL, jour date NOT NULL, poids numeric(5,1))"
                " PARTITION BY RANGE (poids)"
            ),
            "CREATE TABLE h.a PARTITION OF h.t FOR VALUES FROM (0) TO (60)",
            "CREATE TABLE h.b PARTITION OF h.t DEFAULT",
        ),
    ],
    ids=["range", "hash of lists", "by the carrier"],
)
def test_partitions_are_marked_as_one_relation(world: World, partitions: tuple[str, ...]) -> None:
    world.run(*partitions, FILL + " FROM generate_series(1, 3000) AS i")
    keyed = "PRIMARY KEY" in partitions[0]
    key = {"id": "bigint", "jour": "date"}
    assert world.agrees(protect("h.t", key, unique=not keyed), "h.t") > 500


def test_a_partition_may_be_attached_later_with_its_columns_in_another_order(world: World) -> None:
    world.run(
        "CREATE TABLE h.t (id bigint PRIMARY KEY, jour date, poids numeric(5,1))"
        " PARTITION BY RANGE (id)",
        "CREATE TABLE h.a PARTITION OF h.t FOR VALUES FROM (0) TO (1000)",
        FILL + " FROM generate_series(1, 999) AS i",
    )
    document = protect("h.t")
    before = world.agrees(document, "h.t")
    world.run(
        "CREATE TABLE h.b (poids numeric(5,1), gone text, jour date, id bigint NOT NULL)",
        "ALTER TABLE h.b DROP COLUMN gone",
        "INSERT INTO h.b SELECT 50 + i % 30, '2024-02-03', i FROM generate_series(1000, 1999) AS i",
    )
    view = "SELECT id, jour, poids FROM marked.t ORDER BY id"
    assert len(world.ask(view)) == 999
    world.run("ALTER TABLE h.t ATTACH PARTITION h.b FOR VALUES FROM (1000) TO (2000)")
    seen = world.ask(view)
    assert len(seen) == 1999
    assert world.agrees(document, "h.t") > before + 150
    assert world.ask(view) == seen
    [plan] = world.ask("EXPLAIN (FORMAT JSON, COSTS OFF) SELECT * FROM marked.t WHERE id = 1500")
    assert "b_pkey" in str(plan)
    assert "a_pkey" not in str(plan)


def test_one_partition_can_be_protected_by_itself_but_not_beside_the_whole(world: World) -> None:
    world.run(
        "CREATE TABLE h.t (id bigint PRIMARY KEY, jour date, poids numeric(5,1))"
        " PARTITION BY RANGE (id)",
        "CREATE TABLE h.a PARTITION OF h.t FOR VALUES FROM (0) TO (10000)",
        FILL + " FROM generate_series(1, 1000) AS i",
    )
    alone = protect("h.a")
    assert world.agrees(alone, "h.a") > 100
    both = {"relation": {**alone["relation"], **protect("h.t")["relation"]}}
    world.refused(both, r"h\.a: h\.t, which it is part of, is protected too")


def test_children_that_inherit_are_marked_when_the_author_answers_for_the_key(
    world: World,
) -> None:
    world.run(
        "CREATE TABLE h.t (id bigint PRIMARY KEY, jour date, poids numeric(5,1))",
        "CREATE TABLE h.urgence (tri integer) INHERITS (h.t)",
        FILL + " FROM generate_series(1, 1000) AS i",
        "INSERT INTO h.urgence SELECT i, NULL, 70.5, 3 FROM generate_series(2000, 3000) AS i",
    )
    world.refused(protect("h.t"), "tables inherit from this one.*unique = true")
    assert world.agrees(protect("h.t", unique=True, decoys=True), "h.t") > 300
    document = protect("h.t", unique=True)
    assert world.agrees(document, "h.t") > 300
    assert world.ask("SELECT count(*) FROM marked.t") == [(2001,)]
    world.run("INSERT INTO h.urgence SELECT 7, NULL, 70.5, 1")
    world.refused(document, r"h\.t: key \(id\): several rows have the same")


# --- columns that the server computes ---------------------------------------------------------


def test_a_column_that_the_server_computes_can_neither_carry_nor_tell(world: World) -> None:
    world.run(
        "CREATE TABLE h.t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " poids numeric(5,1), taille numeric(5,1), fc integer,"
        " imc numeric(5,1) GENERATED ALWAYS AS (poids * 10000 / (taille * taille)) STORED)",
        "INSERT INTO h.t (poids, taille, fc)"
        " SELECT 60 + i % 50, 150 + i % 40, 50 + i % 70 FROM generate_series(1, 1000) AS i",
    )
    world.refused(protect("h.t", carriers={"imc": NUMBER}), "carrier imc: the server computes it")
    says = "carrier taille: the server computes imc from it"
    world.refused(protect("h.t", carriers={"taille": NUMBER, "fc": COUNT}), says)
    # the identity column is a key like another
    assert world.agrees(protect("h.t", carriers={"fc": COUNT}), "h.t") > 100


# --- row-level security -----------------------------------------------------------------------

SERVICE = (
    "CREATE TABLE h.t (id bigint PRIMARY KEY, service text, poids numeric(5,1))",
    (
        "INSERT INTO h.t SELECT i, CASE WHEN i % 2 = 0 THEN 'rel_anna' ELSE 'rel_other' END, 70"
        " FROM generate_series(1, 400) AS i"
    ),
    "ALTER TABLE h.t ENABLE ROW LEVEL SECURITY",
)
MINE = "CREATE POLICY mine ON h.t FOR SELECT TO {} USING (service = session_user)"


@pytest.mark.parametrize("force", ["NO FORCE", "FORCE"])
@pytest.mark.parametrize(
    ("whom", "identity"),
    [("PUBLIC", "session_user"), ("PUBLIC", "current_user"), ("balise_owner", "session_user")],
)
def test_row_security_holds_through_the_view(
    world: World, whom: str, identity: str, force: str
) -> None:
    world.run(
        *SERVICE,
        MINE.format(whom).replace("session_user", identity),
        f"ALTER TABLE h.t {force} ROW LEVEL SECURITY",
    )
    world.apply(protect("h.t"))
    assert world.ask("SELECT count(*), min(service) FROM marked.t") == [(200, "rel_anna")]
    assert world.ask("SELECT count(*) FROM marked.t WHERE id = 3") == [(0,)]
    assert world.ask("SELECT count(*) FROM marked_care.t", "rel_carl") == [(0,)]


def test_row_security_that_a_view_would_not_follow_is_refused(world: World) -> None:
    world.run(*SERVICE)
    document = protect("h.t")
    world.refused(document, r"h\.t: row security is on, and no policy lets balise_owner")
    world.run(MINE.format("rel_anna"))
    world.refused(document, r"no policy lets balise_owner.*FOR SELECT TO balise_owner")
    # what holds anna back would no longer do so
    world.run(
        "CREATE POLICY everyone ON h.t USING (true)",
        "CREATE POLICY but_anna ON h.t AS RESTRICTIVE TO rel_anna USING (id < 10)",
    )
    world.refused(document, r"h\.t: policy but_anna names roles")
    world.run(MINE.format("balise_owner").replace("mine", "marked"))
    world.apply(document)
    world.run("ALTER TABLE h.t OWNER TO balise_owner")
    world.refused(document, "balise_owner, who reads for the marked views, passes it")
    world.run("ALTER TABLE h.t FORCE ROW LEVEL SECURITY")
    world.apply(document)


def test_row_security_that_reads_another_table_needs_a_grant(world: World) -> None:
    world.run(
        *SERVICE,
        "CREATE TABLE h.staff (login name, service text)",
        "INSERT INTO h.staff VALUES ('rel_anna', 'rel_other')",
        "CREATE POLICY mine ON h.t USING"
        " (service IN (SELECT s.service FROM h.staff AS s WHERE s.login = session_user))",
    )
    world.refused(protect("h.t"), r"row security reads h\.staff, which balise_owner may not")
    world.run("GRANT SELECT ON h.staff TO balise_owner")
    world.apply(protect("h.t"))
    assert world.ask("SELECT DISTINCT service FROM marked.t") == [("rel_other",)]


# --- views, materialised views, foreign tables ------------------------------------------------


def test_a_materialised_view_is_marked_a_view_is_not(world: World) -> None:
    world.run(
        "CREATE TABLE h.brut (id bigint, poids numeric(5,1))",
        "INSERT INTO h.brut SELECT i, 50 + i % 30 FROM generate_series(1, 1000) AS i",
        "CREATE MATERIALIZED VIEW h.t AS SELECT id, poids FROM h.brut",
        "CREATE VIEW h.v AS SELECT id, poids FROM h.brut",
    )
    world.refused(protect("h.v"), r"h\.v: it is a view, .*protect the tables that it reads")
    world.refused(protect("h.t"), "no primary key or unique index")
    world.run("CREATE UNIQUE INDEX ON h.t (id)")
    assert world.agrees(protect("h.t"), "h.t") > 100
    world.run(
        "INSERT INTO h.brut SELECT i, 60 FROM generate_series(1001, 1500) AS i",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY h.t",
    )
    assert world.ask("SELECT count(*) FROM marked.t") == [(1500,)]
    world.run("INSERT INTO h.brut VALUES (NULL, 60)", "REFRESH MATERIALIZED VIEW h.t")
    # a row without a key carries no mark, and the views go on
    assert world.ask("SELECT poids FROM marked.t WHERE id IS NULL")[0][0] == 60
    world.refused(protect("h.t"), r"h\.t: key \(id\): it is NULL in some rows")


def test_a_foreign_table_is_refused_and_a_materialised_view_of_it_is_marked(world: World) -> None:
    dbname = world.dba.info.dbname
    world.run(
        "CREATE EXTENSION IF NOT EXISTS postgres_fdw",
        "CREATE SERVER IF NOT EXISTS loop FOREIGN DATA WRAPPER postgres_fdw OPTIONS"
        f" (host '{world.dba.info.host}', port '{world.dba.info.port}', dbname '{dbname}')",
        "CREATE USER MAPPING IF NOT EXISTS FOR postgres SERVER loop"
        " OPTIONS (user 'postgres', password_required 'false')",
        "CREATE TABLE h.brut (id bigint PRIMARY KEY, poids numeric(5,1))",
        "INSERT INTO h.brut SELECT i, 50 + i % 30 FROM generate_series(1, 1000) AS i",
        "CREATE FOREIGN TABLE h.loin (id bigint NOT NULL, poids numeric(5,1))"
        " SERVER loop OPTIONS (schema_name 'h', table_name 'brut')",
        "CREATE TABLE h.tout (id bigint, poids numeric(5,1)) PARTITION BY RANGE (id)",
        "CREATE TABLE h.milieu PARTITION OF h.tout DEFAULT PARTITION BY RANGE (id)",
        "CREATE FOREIGN TABLE h.part PARTITION OF h.milieu FOR VALUES FROM (0) TO (9999)"
        " SERVER loop OPTIONS (schema_name 'h', table_name 'brut')",
        "CREATE MATERIALIZED VIEW h.copie AS SELECT * FROM h.loin",
        "CREATE UNIQUE INDEX ON h.copie (id)",
    )
    says = r"h\.loin: it is a foreign table.*protect a materialised view of it"
    world.refused(protect("h.loin", unique=True), says)
    says = r"h\.tout: its part h\.part is a foreign table"
    world.refused(protect("h.tout", unique=True), says)
    assert world.agrees(protect("h.copie"), "h.copie") > 100


# --- names ------------------------------------------------------------------------------------

NAMES = [
    'a "quoted" one',
    "it's",
    "with.dot",
    "select",
    "SELECT",
    "Ünïcode é ☤",
    "100%s %I %% $1 {x}",
    "back\\slash\\",
    "dollar$1",
    "semi;colon--comment /* x */",
    " ",
    "marked",
    "two\nlines",
    "x" * 63,
    "é" * 31,
]
# the compiler's aliases, what it calls its columns, and names that differ by case only
COLUMNS = [
    *("t", "s", "h", "x", "r", "c", "word", "a1", "b1", "h1", "h2", "balise", "session_user"),
    *("role_name", "class", "relation_id", "seeds", "tableoid_", "Poids", "POIDS", "poids"),
    *(name for name in NAMES if name != "select"),
]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize("name", NAMES)
def test_schemas_and_relations_may_have_any_name(world: World, name: str) -> None:
    if name == "marked":
        schema = "h"
    else:
        schema = name
        world.drop(schema)
        world.run(f"CREATE SCHEMA {quoted(schema)}")
    relation = f"{quoted(schema)}.{quoted(name)}"
    world.run(
        f"CREATE TABLE {relation} (id bigint PRIMARY KEY, {quoted(name)} numeric(5,1))",
        f"INSERT INTO {relation} SELECT i, 50 + i % 30 FROM generate_series(1, 400) AS i",
        "ANALYZE",
    )
    document = protect(relation, carriers={name: NUMBER}, decoys=name != "balise_recipient")
    assert world.agrees(document, relation) > 50
    assert check(world.session, parse_policy(document)).harmless
    # applied again it replaces its views
    world.apply(document)
    suggest(world.session, [schema])
    if schema != "h":
        world.drop(schema)


def test_schemas_of_marked_views_may_have_any_name(world: World) -> None:
    names = {"secondary": 'it\'s "m"', "care": "100%s"}
    world.run("CREATE TABLE h.t (id bigint PRIMARY KEY, poids numeric(5,1))")
    world.apply(protect("h.t") | {"views": names})
    assert world.ask(f"SELECT * FROM {quoted(names['secondary'])}.t") == []
    assert world.ask(f"SELECT * FROM {quoted(names['care'])}.t", "rel_carl") == []
    world.drop(*names.values())


def test_columns_may_have_any_name(world: World) -> None:
    listed = ", ".join(f"{quoted(name)} integer" for name in COLUMNS)
    values = ", ".join(f"i % {100 + at}" for at, _ in enumerate(COLUMNS))
    keys = [COLUMNS[0], COLUMNS[-1]]
    world.run(
        f"CREATE TABLE h.t ({listed}, k text, UNIQUE ({', '.join(map(quoted, keys))}, k))",
        f"INSERT INTO h.t SELECT {values}, 'é' || i FROM generate_series(1, 300) AS i",
        *(f"ALTER TABLE h.t ALTER {quoted(name)} SET NOT NULL" for name in [*keys, "k"]),
    )
    carriers: Document = {name: {**COUNT, "density": "0.3"} for name in COLUMNS if name not in keys}
    carriers["word"]["entity"] = {"k": "text"}
    document = protect("h.t", dict.fromkeys(keys, "integer") | {"k": "text"}, carriers, decoys=True)
    for derivation in ("seeded", "sha256"):
        document["derivation"] = derivation
        assert world.agrees(document, "h.t") > 1000


def test_a_copy_of_an_odd_relation_is_traced(world: World, tmp_path: Path) -> None:
    relation = 'h."it\'s; 100%s"'
    world.run(
        'CREATE DOMAIN h."kilo s" AS numeric(5,1) CHECK (VALUE > 0)',
        f'CREATE TABLE {relation} ("a ""key"".%" text COLLATE "C" NOT NULL, t date NOT NULL,'
        ' "the, weight" h."kilo s")',
        f"INSERT INTO {relation} SELECT i, '2024-01-01', 50 + i % 300 / 10.0"
        " FROM generate_series(1, 3000) AS i",
        # later, some keys come twice
        f"INSERT INTO {relation} SELECT i, '2024-01-02', 66 FROM generate_series(1, 100) AS i",
    )
    key = {'a "key".%': "text", "t": "date"}
    world.apply(protect(relation, key, {"the, weight": NUMBER}, unique=True))
    world.run(f"INSERT INTO {relation} SELECT i, '2024-01-01', 80 FROM generate_series(1, 50) AS i")
    leak = tmp_path / "leak.csv"
    rows = world.ask('SELECT * FROM marked."it\'s; 100%s"')
    with leak.open("w", newline="") as file:
        csv.writer(file).writerows([['a "key".%', "t", "the, weight"], *rows])
    report = investigate(
        [leak],
        Question(world.dsn, [KEY], relation),
        alpha=1e-6,
        created_at=datetime(2024, 1, 1, tzinfo=UTC),
    )
    assert list(report.verdict.accused) == ["rel_anna"]
    assert report.verdict.rows_aligned == len(rows)


def test_names_that_cannot_be_are_refused(world: World) -> None:
    world.run(
        "CREATE TABLE h.t (id bigint PRIMARY KEY, balise_recipient text, poids numeric(5,1))",
        "CREATE SCHEMA other",
        "CREATE TABLE other.t (id bigint PRIMARY KEY, poids numeric(5,1))",
        "CREATE SCHEMA marked",
        "CREATE VIEW marked.t AS SELECT 1 AS id",
    )
    try:
        world.refused(protect("h.t"), r"h\.t: there is a marked\.t already, .*write view =")
        world.refused(protect("h.t", view="v", decoys=True), "a column balise_recipient of its own")
        world.refused(protect("h.t", view="é" * 32), "a name has at most 63 bytes")
        for schema in ("pg_marked", "balise", "information_schema"):
            document = protect("h.t", view="v") | {"views": {"secondary": schema}}
            world.refused(document, f"schema {schema} is not for marked views")
        world.apply(protect("h.t", view="v"))
        assert world.dba.execute("SELECT * FROM marked.t").fetchall() == [(1,)]
        both = {"relation": {**protect("h.t")["relation"], **protect("other.t")["relation"]}}
        with pytest.raises(
            InvalidPolicy, match=r"other\.t: its view name is taken twice"
        ) as caught:
            parse_policy(both)
        assert caught.value.hint == 'write view = "another_name"'
        for name in ("pg_catalog.pg_class", "balise.policy"):
            world.refused(protect(name), "it belongs to PostgreSQL, to pgbalise or to one session")
    finally:
        world.drop("other")


# --- columns of every type --------------------------------------------------------------------

LEFT_ALONE = {
    "integer[]": "'{{1,NULL},{3,4}}'",
    "h.poids[]": "'{70.5,71}'",
    "numrange": "'[1.0,2.50)'",
    "datemultirange": "'{[2020-01-01,2020-02-01)}'",
    "h.adresse": "'(\"12, rue\",75013)'",
    "h.sexe": "'F'",
    "boolean": "true",
    "json": '\'{"b" : 1,  "a":2.50}\'',
    "jsonb": '\'{"b" : 1,  "a":2.50}\'',
    "bytea": "'\\x00ff5c'",
    "tsvector": "to_tsvector('a fat cat')",
    "point": "'(1.5,2)'",
    "polygon": "'((0,0),(1,1),(2,0))'",
    "money": "'12.34'",
    "interval": "'1 mon -3 days 04:05:06.789'",
    "bit(3)": "B'101'",
    "varbit": "B'10'",
    "xml": "'<a b=\"1\"> x </a>'",
    "inet": "'10.0.0.1/8'",
    "macaddr": "'08:00:2b:01:02:03'",
    "time": "'23:59:59.999'",
    "timetz": "'23:59:59.999+02'",
    "uuid": "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "name": "'x'",
    "oid": "42",
    "regclass": "'pg_class'",
    "pg_lsn": "'16/B374D848'",
    '"char"': "'c'",
    "char(4)": "'ab'",
    "numeric": "'NaN'",
    "double precision": "'-0'",
    "h.poids": "70.5",
    "hstore": "'a=>1, b=>NULL'",
}


def test_every_other_column_stays_as_it_is(world: World) -> None:
    world.run(
        "CREATE EXTENSION IF NOT EXISTS hstore SCHEMA public",
        "CREATE DOMAIN h.poids AS numeric(5,1) CHECK (VALUE > 0)",
        "CREATE TYPE h.adresse AS (rue text, cp text)",
        "CREATE TYPE h.sexe AS ENUM ('F', 'M')",
        "SET search_path = public",
        "CREATE TABLE h.t (id bigint PRIMARY KEY, poids numeric(5,1), "
        + ", ".join(f"c{at} {kind}" for at, kind in enumerate(LEFT_ALONE))
        + ")",
        f"INSERT INTO h.t SELECT i, 70, {', '.join(LEFT_ALONE.values())}"
        " FROM generate_series(1, 300) AS i",
        "INSERT INTO h.t (id, poids) VALUES (0, 70)",
        "RESET search_path",
    )
    for decoys in (False, True):
        assert world.agrees(protect("h.t", decoys=decoys), "h.t") > 30
    kinds = "SELECT attname, atttypid, atttypmod FROM pg_attribute WHERE attnum > 0 AND attrelid = "
    stored = world.dba.execute(kinds + "'h.t'::regclass ORDER BY attnum").fetchall()
    assert world.dba.execute(kinds + "'marked.t'::regclass ORDER BY attnum").fetchall() == stored
    for at, kind in enumerate(LEFT_ALONE):
        if kind in ("boolean", "h.sexe"):
            carriers = {f"c{at}": {"type": "text", "equivalents": [["F", "M"]]}}
            world.refused(protect("h.t", carriers=carriers), f"is of type {kind}, not text")
    with pytest.raises(InvalidPolicy, match="a column of type boolean cannot be marked"):
        parse_policy(protect("h.t", carriers={"c6": {"type": "boolean"}}))


def test_domains_are_marked_as_what_they_are_made_of(world: World) -> None:
    world.run(
        "CREATE DOMAIN h.mesure AS numeric(5,1) CHECK (VALUE > 0)",
        "CREATE DOMAIN h.poids AS h.mesure CHECK (VALUE < 500)",
        "CREATE DOMAIN h.cle AS bigint NOT NULL",
        "CREATE DOMAIN h.code AS varchar(4)",
        "CREATE DOMAIN h.unite AS text CHECK (VALUE ~ '^[a-z]+/L$')",
        "CREATE DOMAIN h.compte AS integer",
        "CREATE DOMAIN h.instant AS timestamp(0) CHECK (VALUE < '2100-01-01')",
        "CREATE TABLE h.t (id h.cle, code h.code NOT NULL, poids h.poids, unite h.unite,"
        " n h.compte CHECK (n <= 900), vu h.instant, PRIMARY KEY (id, code))",
        "INSERT INTO h.t SELECT i, 'c' || i % 9, 50 + i % 30, CASE WHEN i % 2 = 0 THEN 'mmol/L'"
        " ELSE 'umol/L' END, i % 200, '2024-01-01'::timestamp + i * interval '1 minute'"
        " FROM generate_series(1, 1000) AS i",
    )
    carriers: Document = {
        "poids": {**NUMBER, "by": {"code": "varchar"}, "tolerance": {}},
        "unite": {"type": "text", "equivalents": [["mmol/L", "umol/L"]], "density": "0.5"},
        "n": {**COUNT, "bounds": ["0", "900"]},
        "vu": {"type": "timestamp(0)", "quantum": "1 second", "density": "0.5"},
    }
    carriers["vu"]["bounds"] = ["2000-01-01", "2099-12-31"]
    for name in ("quantum", "bounds"):
        carriers["poids"]["tolerance"] |= {
            c: carriers["poids"]["tolerance"].get(c, {}) | {name: NUMBER[name]}
            for c in ("c1", "c2", "c3", "c4", "c5")
        }
        del carriers["poids"][name]
    document = protect("h.t", {"id": "bigint", "code": "character varying"}, carriers)
    assert world.agrees(document, "h.t") > 500
    kinds = world.dba.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'marked.t'::regclass AND attnum > 0"
    ).fetchall()
    assert dict(kinds) == {
        "id": "h.cle",
        "code": "h.code",
        "poids": "numeric(5,1)",
        "unite": "text",
        "n": "integer",
        "vu": "timestamp(0) without time zone",
    }
    world.apply(document)
    # what is seen can be stored in a table like the hospital's
    world.run("CREATE TABLE h.copie (LIKE h.t INCLUDING ALL)")
    rows = world.ask("SELECT * FROM marked.t")
    with world.dba.cursor() as cursor:
        cursor.executemany("INSERT INTO h.copie VALUES (%s, %s, %s, %s, %s, %s)", rows)
    # and back to no marks on it
    world.apply(protect("h.t", {"id": "bigint", "code": "varchar"}, {"n": carriers["n"]}))


@pytest.mark.parametrize(
    ("column", "carrier", "says"),
    [
        (
            "poids",
            {**NUMBER, "bounds": ["0", "400"]},
            "lead to 0.0, which .* constraint mesure_check",
        ),
        ("poids", {**NUMBER, "bounds": ["1", "500"]}, "lead to 500.0, which .* poids_check"),
        ("n", {**COUNT, "bounds": []}, "bounds are a list of two"),
        ("n", {"type": "integer", "quantum": 1}, "constraint t_n_check forbids.*bounds that keep"),
        ("jour", {"type": "date", "quantum": "1 day"}, "lead to 9999-12-31, which .* t_jour_check"),
        (
            "unite",
            {"type": "text", "equivalents": [["g/L", "G/L"]]},
            "lead to G/L, which .* t_unite_check forbids.*leave that equivalent out",
        ),
    ],
)
def test_marks_that_a_constraint_forbids_are_refused(
    world: World, column: str, carrier: Document, says: str
) -> None:
    world.run(
        "CREATE DOMAIN h.mesure AS numeric(5,1) CHECK (VALUE > 0)",
        "CREATE DOMAIN h.poids AS h.mesure CHECK (VALUE < 500)",
        "CREATE TABLE h.t (id bigint PRIMARY KEY, poids h.poids,"
        " n integer CHECK (n BETWEEN 0 AND 9),"
        " jour date CHECK (jour < '2100-01-01'), unite text CHECK (unite IN ('g/L', 'mg/L')))",
    )
    if "bounds" in carrier and not carrier["bounds"]:
        with pytest.raises(InvalidPolicy, match=says):
            parse_policy(protect("h.t", carriers={column: carrier}))
        return
    world.refused(protect("h.t", carriers={column: carrier}), says)


@pytest.mark.parametrize(
    "condition",
    [
        "h.ok(n)",
        "query_to_xml('SELECT 1 / 0', true, true, '') IS NOT NULL OR n > 0",
        "n > 0 AND n::h.checked IS NOT NULL",
    ],
)
def test_a_constraint_that_could_run_something_is_not_tried(world: World, condition: str) -> None:
    world.run(
        "CREATE FUNCTION h.ok(integer) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'run as %', current_user; END $$",
        "CREATE DOMAIN h.checked AS integer CHECK (h.ok(VALUE))",
        f"CREATE TABLE h.t (id bigint PRIMARY KEY, n integer CHECK ({condition}))",
    )
    world.apply(protect("h.t", carriers={"n": {"type": "integer", "quantum": "1"}}))


# --- wide tables ------------------------------------------------------------------------------


@pytest.mark.parametrize(("derivation", "most"), [("seeded", 63), ("sha256", 31)])
def test_a_table_of_1600_columns(world: World, derivation: str, most: int) -> None:
    listed = ", ".join(f"c{at} smallint" for at in range(1599))
    values = ", ".join(f"(i * {at}) % 1000" for at in range(1599))
    world.run(
        f"CREATE TABLE h.t (id bigint PRIMARY KEY, {listed})",
        f"INSERT INTO h.t SELECT i, {values} FROM generate_series(1, 100) AS i",
    )
    small = {"type": "smallint", "quantum": "1", "bounds": ["0", "1000"], "density": "0.5"}
    carriers = {f"c{at}": small for at in range(1, most + 1)}
    document = protect("h.t", carriers=carriers) | {"derivation": derivation}
    assert world.agrees(document, "h.t") > 500
    # inside a query a row has columns besides, and must still fit
    for order in ("c5, c900 DESC", "c900", "c900 LIMIT 100"):
        rows = world.ask(f"SELECT * FROM marked.t ORDER BY {order}")
        assert len(rows) == 100
        assert len(rows[0]) == 1600
    kept = "WITH m AS MATERIALIZED (SELECT * FROM marked.t) SELECT count(*) FROM m, m AS n"
    assert world.ask(kept) == [(10_000,)]
    assert len(world.ask("SELECT * FROM marked_care.t WHERE id = 7", "rel_carl")[0]) == 1600
    carriers["c1000"] = small
    world.refused(document, r"h\.t: 1600 columns .* 1665 columns inside.*mark fewer columns")
    world.refused(
        protect("h.t", carriers={"c1": small}, decoys=True),
        "decoys: their table has 2 columns more than the relation, 1602.*decoys = false",
    )


# --- keys -------------------------------------------------------------------------------------

ROWS = (
    "CREATE TABLE h.t (id bigint NOT NULL, jour date NOT NULL, poids numeric(5,1))",
    "INSERT INTO h.t SELECT i / 2, date '2024-01-01' + i % 2, 60 FROM generate_series(0, 799) AS i",
)
BOTH = {"id": "bigint", "jour": "date"}


@pytest.mark.parametrize(
    "index",
    [
        "CREATE UNIQUE INDEX ON h.t (id, jour)",
        "CREATE UNIQUE INDEX ON h.t (jour, id) INCLUDE (poids)",
        "CREATE UNIQUE INDEX ON h.t (id, jour) NULLS NOT DISTINCT",
        "ALTER TABLE h.t ADD UNIQUE (id, jour) DEFERRABLE INITIALLY DEFERRED",
    ],
)
def test_a_unique_index_makes_a_key(world: World, index: str) -> None:
    world.run(*ROWS, index)
    assert world.agrees(protect("h.t", BOTH), "h.t") > 50


@pytest.mark.parametrize(
    "index",
    [
        "CREATE INDEX ON h.t (id, jour)",
        "CREATE UNIQUE INDEX ON h.t (id, jour) WHERE poids > 0",
        "CREATE UNIQUE INDEX ON h.t ((id + 0), jour)",
        "CREATE UNIQUE INDEX ON h.t (id, jour, poids)",
        "SELECT 1",
    ],
)
def test_a_key_that_no_index_keeps_must_be_answered_for(world: World, index: str) -> None:
    world.run(*ROWS, index)
    document = protect("h.t", BOTH)
    world.refused(document, "no primary key or unique index.*or write unique = true")
    document["relation"]["h.t"]["unique"] = True
    assert world.agrees(document, "h.t") > 50
    says = "decoys need a key that an index keeps unique"
    world.refused(protect("h.t", BOTH, unique=True, decoys=True), says)
    world.refused(protect("h.t", ID, unique=True), r"key \(id\): several rows have the same")


def test_rows_that_come_to_share_a_key_are_marked_alike(world: World) -> None:
    world.run(*ROWS)
    document = protect("h.t", BOTH, unique=True)
    world.apply(document)
    world.run("INSERT INTO h.t SELECT * FROM h.t")
    rows = world.ask("SELECT count(*), count(DISTINCT poids) FROM marked.t GROUP BY id, jour")
    assert set(rows) == {(2, 1)}
    world.refused(document, "several rows have the same.*add columns until none do")


def test_a_key_column_that_may_be_null_is_refused(world: World) -> None:
    world.run("CREATE TABLE h.t (id bigint UNIQUE NULLS NOT DISTINCT, poids numeric(5,1))")
    for unique in (False, True):
        world.refused(protect("h.t", unique=unique), "key id: the column may be NULL")
    world.run("ALTER TABLE h.t ALTER id SET NOT NULL", "INSERT INTO h.t VALUES (1, 60)")
    world.apply(protect("h.t"))


def test_a_column_that_is_unique_by_itself_carries_no_marks(world: World) -> None:
    world.run(
        "CREATE TABLE h.t (id bigint PRIMARY KEY, n integer UNIQUE, m integer, UNIQUE (n, m))"
    )
    world.refused(protect("h.t", carriers={"n": COUNT}), "carrier n: it is unique by itself")
    world.apply(protect("h.t", carriers={"m": COUNT}))


def test_what_cannot_be_protected_is_left_alone_by_suggestions(world: World) -> None:
    world.run(
        "CREATE DOMAIN h.kg AS numeric(5,1)",
        "CREATE TABLE h.bon (id bigint PRIMARY KEY, poids h.kg)",
        "CREATE TABLE h.ferme (LIKE h.bon INCLUDING ALL)",
        "INSERT INTO h.bon SELECT i, 60 + random() * 30 FROM generate_series(1, 1000) AS i",
        "INSERT INTO h.ferme SELECT * FROM h.bon",
        "ALTER TABLE h.ferme ENABLE ROW LEVEL SECURITY",
        "ANALYZE h.bon, h.ferme",
    )
    world.run("CREATE SCHEMA autre", "CREATE TABLE autre.bon AS SELECT * FROM h.bon")
    world.run("ALTER TABLE autre.bon ADD PRIMARY KEY (id)", "ANALYZE autre.bon")
    try:
        text = suggest(world.session, ["h", "autre"])
        fit(world.session, load_policy(text))
    finally:
        world.drop("autre")
    assert 'view = "autre_bon"' in text
    assert "# h.ferme: left alone, row security is on" in text
    assert 'type = "numeric(5,1)"' in text


def test_an_index_runs_nothing_when_a_key_is_checked(world: World) -> None:
    world.run(
        "CREATE ROLE rel_owner LOGIN",
        "CREATE TABLE h.t (id bigint NOT NULL, poids numeric(5,1))",
        "INSERT INTO h.t SELECT i, i FROM generate_series(1, 50) AS i",
        "CREATE FUNCTION h.f(bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT $1'",
        "CREATE INDEX ON h.t ((h.f(id)))",
        "ALTER TABLE h.t OWNER TO rel_owner",
    )
    try:
        document = protect("h.t", {"id": "bigint"}, unique=True)
        world.refused(document, r"index .* not PostgreSQL's own")
        world.run("DROP INDEX h.t_f_idx")
        world.apply(document)
    finally:
        world.drop("h", "marked", "marked_care")
        world.run("DROP ROLE rel_owner")
