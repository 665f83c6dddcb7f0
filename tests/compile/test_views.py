"""What PostgreSQL's planner and privileges make of a marked view, seen as a recipient."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from pytest_postgresql.janitor import DatabaseJanitor

from pgbalise.database import apply_policy, enrol, revoke
from pgbalise.install import install
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import PsycopgSession

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgbalise.demo.cluster import ThrowawayCluster

Connection = psycopg.Connection[Any]
Node = dict[str, Any]

KEY = MasterKey(b"views" + bytes(27))
ROWS = 100_000
CARE_COLUMN = "vu"
PATIENT = {
    "key": {"id": "bigint"},
    "decoys": True,
    "carrier": {
        "poids": {"type": "numeric(5,1)", "quantum": "0.1", "bounds": ["1", "400"]},
        "age": {"type": "integer", "quantum": "1", "bounds": ["0", "120"]},
        "taille": {"type": "double precision", "quantum": "0.01", "bounds": ["0.3", "2.5"]},
        CARE_COLUMN: {"type": "timestamptz", "quantum": "1 millisecond", "neutral": True},
    },
}
SEJOUR = {
    "key": {"id": "bigint"},
    "carrier": {"duree": {"type": "integer", "quantum": "1", "bounds": ["0", "9999"]}},
}
MESURE = {
    "key": {"id": "bigint"},
    "carrier": {"valeur": {"type": "integer", "quantum": "1", "bounds": ["0", "9999"]}},
}
DOCUMENT = {"relation": {"dpi.patient": PATIENT, "dpi.sejour": SEJOUR, "dpi.mesure": MESURE}}

TABLES = f"""
CREATE SCHEMA dpi;
CREATE TABLE dpi.patient (
    id bigint PRIMARY KEY, nom text, service integer, poids numeric(5,1), age integer,
    taille double precision, vu timestamptz);
INSERT INTO dpi.patient
SELECT i, 'nom ' || i, i % 1000, 30 + (i % 1000) / 10.0, i % 120, 1 + (i % 100) / 100.0,
       timestamptz '2024-01-01 08:00:00+00' + i * interval '61.001 s'
  FROM generate_series(1, {ROWS}) AS i;
CREATE INDEX patient_service ON dpi.patient (service);
CREATE TABLE dpi.sejour (id bigint PRIMARY KEY, patient_id bigint NOT NULL, duree integer);
INSERT INTO dpi.sejour SELECT i, i % {ROWS} + 1, i % 50 FROM generate_series(1, {ROWS}) AS i;
CREATE TABLE dpi.mesure (id bigint PRIMARY KEY, valeur integer) PARTITION BY RANGE (id);
CREATE TABLE dpi.mesure_1 PARTITION OF dpi.mesure FOR VALUES FROM (0) TO (50000);
CREATE TABLE dpi.mesure_2 PARTITION OF dpi.mesure FOR VALUES FROM (50000) TO (100000);
CREATE TABLE dpi.mesure_3 PARTITION OF dpi.mesure FOR VALUES FROM (100000) TO (9000000);
INSERT INTO dpi.mesure SELECT i, i % 500 FROM generate_series(1, {ROWS}) AS i;
"""
ROLES = """
CREATE ROLE view_anna LOGIN;
CREATE ROLE view_bob LOGIN;
CREATE ROLE view_carl LOGIN;
CREATE ROLE view_gone LOGIN;
CREATE ROLE view_lost LOGIN;
CREATE ROLE view_stranger LOGIN;
CREATE ROLE view_member LOGIN IN ROLE view_anna;
"""
MISTAKES = """
GRANT USAGE ON SCHEMA marked TO view_stranger, view_gone, view_carl;
GRANT SELECT ON ALL TABLES IN SCHEMA marked TO view_stranger, view_gone, view_carl;
GRANT EXECUTE ON FUNCTION balise.refuse() TO view_stranger, view_gone;
"""


@dataclass(frozen=True)
class World:
    """A database with three marked relations and its recipients."""

    cluster: ThrowawayCluster
    name: str
    dba: Connection

    @contextmanager
    def as_role(self, role: str, *settings: str) -> Iterator[Connection]:
        dsn = self.cluster.dsn(self.name, f"view_{role}")
        with psycopg.connect(dsn, autocommit=True) as connection:
            for setting in settings:
                connection.execute(f"SET {setting}")
            yield connection


def apply(connection: Connection, document: dict[str, Any]) -> None:
    with connection.transaction():
        apply_policy(PsycopgSession(connection), document, KEY)


def enrol_role(connection: Connection, role: str, recipient_class: RecipientClass) -> None:
    with connection.transaction():
        enrol(PsycopgSession(connection), [role], recipient_class, KEY)


@contextmanager
def database(cluster: ThrowawayCluster, name: str, roles: Sequence[str]) -> Iterator[Connection]:
    """A database with the extension, dropped together with these roles."""
    janitor = DatabaseJanitor(
        user="postgres",
        host=cluster.host,
        port=cluster.port,
        dbname=name,
        template_dbname="template0",
    )
    with janitor, psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
        install(PsycopgSession(connection))
        yield connection
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        for role in roles:
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


@pytest.fixture(scope="module")
def world(cluster: ThrowawayCluster) -> Iterator[World]:
    roles = [f"view_{n}" for n in ("member", "anna", "bob", "carl", "gone", "lost", "stranger")]
    with database(cluster, "views_test", roles) as dba:
        dba.execute(TABLES + ROLES)
        apply(dba, DOCUMENT)
        for name in ("anna", "bob", "gone", "lost"):
            enrol_role(dba, f"view_{name}", RecipientClass.SECONDARY)
        enrol_role(dba, "view_carl", RecipientClass.CARE)
        with dba.transaction():
            revoke(PsycopgSession(dba), "view_gone")
        dba.execute("DELETE FROM balise.codeword WHERE role_name = 'view_lost'")
        dba.execute(MISTAKES)
        for recipient, key in (("view_anna", 700_001), ("view_bob", 700_002)):
            dba.execute(
                "INSERT INTO balise_decoy.patient VALUES"
                " (%s, 1, %s, %s, 7, 70.0, 40, 1.7, '2024-05-05 10:00:00+00')",
                (recipient, key, f"decoy of {recipient}"),
            )
        dba.execute(
            "INSERT INTO balise_decoy.patient SELECT 'other' || i % 40, 2, 800000 + i,"
            " 'decoy of another', 7, 70.0, 40, 1.7, '2024-05-05 10:00:00+00'"
            " FROM generate_series(1, 4000) AS i"
        )
        dba.execute("VACUUM ANALYZE")
        yield World(cluster, "views_test", dba)


@pytest.fixture
def anna(world: World) -> Iterator[Connection]:
    """A connection as a recipient for secondary use."""
    with world.as_role("anna") as connection:
        yield connection


def plan(connection: Connection, query: str, *, analyze: bool = False) -> list[Node]:
    """The nodes of a query's plan, parents first, each with its ancestors' kinds in ``above``."""
    options = "ANALYZE, TIMING OFF, COSTS OFF, FORMAT JSON" if analyze else "COSTS OFF, FORMAT JSON"
    row = connection.execute(f"EXPLAIN ({options}) {query}").fetchone()
    assert row is not None
    nodes: list[Node] = []

    def walk(node: Node, above: tuple[str, ...]) -> None:
        nodes.append({**node, "above": above})
        for child in node.get("Plans", []):
            walk(child, (*above, node["Node Type"]))

    walk(row[0][0]["Plan"], ())
    return nodes


def scans(nodes: list[Node], relation: str) -> list[Node]:
    return [node for node in nodes if node.get("Relation Name") == relation]


def the_scan(nodes: list[Node], index: str) -> Node:
    [node] = [node for node in nodes if node.get("Index Name") == index]
    return node


def own_decoys(nodes: list[Node]) -> list[Node]:
    """The scans of the decoys' index."""
    return [
        node
        for node in nodes
        if "SESSION_USER" in node.get("Index Cond", "")
        and node["Index Name"].startswith("patient_balise_recipient")
    ]


def test_a_lookup_by_key_reads_the_keys_index(anna: Connection) -> None:
    nodes = plan(anna, "SELECT * FROM marked.patient WHERE id = 5")
    assert the_scan(nodes, "patient_pkey")["Index Cond"] == "(id = 5)"
    [decoys] = own_decoys(nodes)
    assert decoys["Index Cond"].endswith("= SESSION_USER) AND (id = 5))")


def test_a_lookup_by_key_reads_one_partition(anna: Connection) -> None:
    nodes = plan(anna, "SELECT * FROM marked.mesure WHERE id = 60000")
    assert the_scan(nodes, "mesure_2_pkey")["Index Cond"] == "(id = 60000)"
    assert not scans(nodes, "mesure_1")


def test_a_join_looks_each_marked_row_up_by_its_key(anna: Connection) -> None:
    anna.execute("CREATE TEMPORARY TABLE wanted AS SELECT generate_series(1, 20) AS id")
    anna.execute("ANALYZE wanted")
    for kind in ("JOIN", "LEFT JOIN"):
        nodes = plan(anna, f"SELECT * FROM wanted AS w {kind} marked.patient AS p USING (id)")
        assert the_scan(nodes, "patient_pkey")["Index Cond"] == "(id = w.id)", kind


def test_two_marked_views_join_by_the_key(anna: Connection) -> None:
    nodes = plan(
        anna,
        "SELECT p.age, s.duree FROM marked.sejour AS s JOIN marked.patient AS p"
        " ON p.id = s.patient_id WHERE s.id BETWEEN 10 AND 20",
    )
    assert the_scan(nodes, "sejour_pkey")["Index Cond"] == "((id >= 10) AND (id <= 20))"
    assert "patient_id" in the_scan(nodes, "patient_pkey")["Index Cond"]
    assert {node["Node Type"] for node in scans(nodes, "patient")} == {"Index Scan"}


@pytest.mark.parametrize("view", ["sejour", "mesure"])
def test_the_first_rows_by_key_need_no_sort(anna: Connection, view: str) -> None:
    nodes = plan(anna, f"SELECT * FROM marked.{view} ORDER BY id LIMIT 10")
    assert "Sort" not in {node["Node Type"] for node in nodes}
    assert the_scan(nodes, f"{view}_1_pkey" if view == "mesure" else f"{view}_pkey")


def test_the_first_rows_by_key_merge_the_relation_with_the_decoys(anna: Connection) -> None:
    nodes = plan(anna, "SELECT * FROM marked.patient ORDER BY id LIMIT 10")
    relation = the_scan(nodes, "patient_pkey")
    assert relation["above"][-1] == "Merge Append"
    assert "Sort" not in relation["above"]
    [decoys] = own_decoys(nodes)
    assert "Merge Append" in decoys["above"]


PARALLEL = (
    "parallel_setup_cost = 0",
    "parallel_tuple_cost = 0",
    "min_parallel_table_scan_size = 0",
    "max_parallel_workers_per_gather = 2",
)


@pytest.mark.parametrize(
    ("view", "leaves"), [("patient", {"patient"}), ("mesure", {"mesure_1", "mesure_2", "mesure_3"})]
)
def test_parallel_workers_read_the_relation_and_give_the_serial_answer(
    world: World, view: str, leaves: set[str]
) -> None:
    column = {"patient": "poids", "mesure": "valeur"}[view]
    query = f"SELECT count(*), sum({column}), sum(id * {column}) FROM marked.{view}"
    with world.as_role("anna", "max_parallel_workers_per_gather = 0") as serial:
        expected = serial.execute(query).fetchone()
    with world.as_role("anna", *PARALLEL) as parallel:
        nodes = plan(parallel, query)
        found = parallel.execute(query).fetchone()
    read = [node for node in nodes if node["Parallel Aware"] and "Gather" in node["above"]]
    assert leaves <= {node.get("Relation Name") for node in read}
    assert found == expected


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM marked.patient",
        "SELECT avg(age) FROM marked.patient WHERE poids > 50",
        "SELECT * FROM marked.patient ORDER BY id LIMIT 1000",
        "SELECT * FROM marked.mesure",
        "SELECT * FROM marked.sejour AS s JOIN marked.patient AS p ON p.id = s.patient_id",
        "SELECT * FROM marked.sejour AS s LEFT JOIN marked.patient AS p ON p.id = s.patient_id",
    ],
)
def test_secrets_are_read_once_per_statement(anna: Connection, query: str) -> None:
    # every parallel worker would read them once more
    anna.execute("SET max_parallel_workers_per_gather = 0")
    nodes = plan(anna, query, analyze=True)
    read = scans(nodes, "codeword") + scans(nodes, "relation_secret")
    assert read
    assert {node["Actual Loops"] for node in read} == {1}


def test_a_filter_on_an_unmarked_column_reads_its_index(anna: Connection) -> None:
    nodes = plan(anna, "SELECT * FROM marked.patient WHERE service = 5")
    assert the_scan(nodes, "patient_service")["Index Cond"] == "(service = 5)"


def test_a_filter_on_a_marked_column_sees_the_marked_value(world: World, anna: Connection) -> None:
    ages = dict(anna.execute("SELECT id, age FROM marked.patient").fetchall())
    stored = dict(world.dba.execute("SELECT id, age FROM dpi.patient").fetchall())
    found = {row[0] for row in anna.execute("SELECT id FROM marked.patient WHERE age = 50")}
    assert found == {key for key, age in ages.items() if age == 50}
    assert found != {key for key, age in stored.items() if age == 50}


LEAK = (
    "CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS"
    " $$ BEGIN RAISE NOTICE '%', $1; RETURN false; END $$"
)
QUERIES = {
    "count": "SELECT count(*) FROM marked.patient",
    "unmarked columns": "SELECT id, nom FROM marked.patient WHERE id < 10",
    "no column": "SELECT FROM marked.patient LIMIT 1",
    "exists": "SELECT EXISTS (SELECT FROM marked.patient WHERE id = 5)",
    "first rows": "SELECT id FROM marked.patient ORDER BY id LIMIT 3",
    "no row": "SELECT id FROM marked.patient WHERE id = -5",
    "no row, sorted": "SELECT id FROM marked.patient WHERE nom = 'none' ORDER BY id LIMIT 1",
    "prepared": "EXECUTE prepared",
    "cursor": "DECLARE mine CURSOR WITH HOLD FOR SELECT id FROM marked.patient",
    "copy": "COPY (SELECT id FROM marked.patient) TO STDOUT",
    "leaky function": "SELECT id FROM marked.patient WHERE pg_temp.leak(nom)",
    "leaky function, sorted": (
        "SELECT id FROM marked.patient WHERE pg_temp.leak(nom) ORDER BY id LIMIT 1"
    ),
    "leaky function, outer join": (
        "SELECT p.id FROM (VALUES (1), (2)) AS v (id)"
        " LEFT JOIN marked.patient AS p ON p.id = v.id AND pg_temp.leak(p.nom)"
    ),
    "leaky function, anti join": (
        "SELECT v.id FROM (VALUES (1), (2)) AS v (id) WHERE NOT EXISTS"
        " (SELECT FROM marked.patient AS p WHERE p.id = v.id AND pg_temp.leak(p.nom))"
    ),
}


def answers(connection: Connection, query: str) -> Iterator[str]:
    """What a statement sends back, as it comes."""
    with connection.cursor() as cursor:
        if query.startswith("COPY"):
            with cursor.copy(query) as copy:
                yield from (bytes(block).decode() for block in copy)
        else:
            yield from map(repr, cursor.execute(query))


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
@pytest.mark.parametrize("role", ["stranger", "member", "gone", "lost", "carl"])
def test_who_is_not_enrolled_for_a_view_gets_an_error_and_nothing_else(
    world: World, role: str, query: str
) -> None:
    seen: list[str | None] = []
    with world.as_role(role) as connection:
        connection.add_notice_handler(lambda notice: seen.append(notice.message_primary))
        connection.execute(LEAK)
        connection.execute("PREPARE prepared AS SELECT id, nom FROM marked.patient WHERE id < 10")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            seen.extend(answers(connection, query))
        assert not seen


def test_a_role_with_select_but_never_enrolled_may_not_even_be_refused(world: World) -> None:
    world.dba.execute("REVOKE EXECUTE ON FUNCTION balise.refuse() FROM view_stranger")
    try:
        with (
            world.as_role("stranger") as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute("SELECT count(*) FROM marked.patient")
    finally:
        world.dba.execute("GRANT EXECUTE ON FUNCTION balise.refuse() TO view_stranger")


def test_another_role_does_not_lend_its_enrolment(world: World) -> None:
    with world.as_role("member") as connection:
        connection.execute("SET ROLE view_anna")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="view_member"):
            connection.execute("SELECT count(*) FROM marked.patient")


def test_a_statement_prepared_before_revocation_fails_after_it(empty_db: Connection) -> None:
    with small_world(empty_db):
        connection = connect_as(empty_db, "small_anna")
        with connection:
            connection.execute("PREPARE mine AS SELECT count(*) FROM marked.compte")
            connection.execute("EXECUTE mine")
            with empty_db.transaction():
                revoke(PsycopgSession(empty_db), "small_anna")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("EXECUTE mine")


COMPTE = """
CREATE SCHEMA dpi;
CREATE TABLE dpi.compte (id integer PRIMARY KEY, solde bigint, reste bigint);
INSERT INTO dpi.compte
SELECT i, 1000000 + 10 * i, 5000000 + 10 * i FROM generate_series(1, 400) AS i;
CREATE ROLE small_anna LOGIN;
"""


def carriers(*names: str) -> dict[str, Any]:
    """A policy that marks these columns of dpi.compte, every cell."""
    table = {"type": "bigint", "quantum": "1", "density": "1"}
    relation = {"key": {"id": "integer"}, "carrier": dict.fromkeys(names, table)}
    return {"relation": {"dpi.compte": relation}}


@contextmanager
def small_world(connection: Connection) -> Iterator[None]:
    """One relation of 400 rows, one recipient."""
    install(PsycopgSession(connection))
    connection.execute(COMPTE)
    apply(connection, carriers("solde"))
    enrol_role(connection, "small_anna", RecipientClass.SECONDARY)
    yield


def connect_as(connection: Connection, role: str) -> Connection:
    info = connection.info
    return psycopg.connect(
        host=info.host, port=info.port, dbname=info.dbname, user=role, autocommit=True
    )


def changed(rows: Sequence[tuple[Any, ...]], first: int) -> int:
    """How many of (id, value) differ from what COMPTE stored."""
    return sum(value != first + 10 * key for key, value in rows)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM balise.relation_secret",
        "UPDATE balise.relation_secret SET seeds = seeds[1:1]",
        "UPDATE balise.relation_secret SET seeds = ARRAY[NULL, NULL]::bigint[]",
    ],
)
def test_damaged_secrets_give_an_error_and_no_stored_value(
    empty_db: Connection, damage: str
) -> None:
    with small_world(empty_db), connect_as(empty_db, "small_anna") as connection:
        try:
            empty_db.execute(damage)
        except psycopg.errors.CheckViolation:
            return  # the catalog refuses the damage itself
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT id, solde FROM marked.compte")


def test_a_snapshot_older_than_the_policy_never_shows_stored_values(empty_db: Connection) -> None:
    with small_world(empty_db), connect_as(empty_db, "small_anna") as connection:
        query = "SELECT id, solde FROM marked.compte ORDER BY id"
        assert changed(connection.execute(query).fetchall(), 1_000_000) > 100
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1")
        apply(empty_db, carriers("reste", "solde"))
        try:
            rows = connection.execute(query).fetchall()
        except psycopg.Error:
            return  # refusing is as good
        assert changed(rows, 1_000_000) > 100


def test_a_recipients_own_view_does_not_hold_up_the_next_policy(empty_db: Connection) -> None:
    with small_world(empty_db), connect_as(empty_db, "small_anna") as connection:
        connection.execute("CREATE TEMPORARY VIEW mine AS SELECT * FROM marked.compte")
        apply(empty_db, carriers("solde", "reste"))
        rows = connection.execute("SELECT id, reste FROM marked.compte").fetchall()
        assert changed(rows, 5_000_000) > 100


def test_care_changes_neutral_carriers_only_and_has_no_decoy(world: World) -> None:
    stored = world.dba.execute("SELECT * FROM dpi.patient ORDER BY id").fetchall()
    with world.as_role("carl") as carl:
        given = carl.execute("SELECT * FROM marked_care.patient ORDER BY id").fetchall()
    assert len(given) == len(stored)
    assert [row[:-1] for row in given] == [row[:-1] for row in stored]
    moved = sum(a[-1] != b[-1] for a, b in zip(given, stored, strict=True))
    assert 0.03 * ROWS < moved < 0.1 * ROWS


def test_the_care_view_mentions_neither_decoys_nor_the_other_carriers_secrets(world: World) -> None:
    row = world.dba.execute("SELECT pg_get_viewdef('marked_care.patient'::regclass)").fetchone()
    assert row is not None
    for unknown in ("balise_decoy", "seeds[1]", "seeds[6]", "UNION"):
        assert unknown not in row[0]
    assert "seeds[7]" in row[0]


def test_each_recipient_sees_only_its_own_decoy(world: World) -> None:
    query = "SELECT id FROM marked.patient WHERE id > 700000"
    for role, expected in (("anna", 700_001), ("bob", 700_002)):
        with world.as_role(role) as connection:
            assert connection.execute(query).fetchall() == [(expected,)]
            count = connection.execute("SELECT count(*) FROM marked.patient").fetchone()
            assert count == (ROWS + 1,)


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("enable_seqscan = off", "enable_bitmapscan = off"),
        ("enable_indexscan = off", "enable_bitmapscan = off"),
        ("enable_material = off", "enable_memoize = off"),
        PARALLEL,
    ],
)
@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM marked.patient WHERE pg_temp.leak(nom)",
        "SELECT id FROM marked.patient WHERE pg_temp.leak(nom) ORDER BY id LIMIT 1",
        "SELECT id FROM marked.patient WHERE pg_temp.leak(nom) AND id > 700000",
        "SELECT id FROM marked.patient AS p WHERE pg_temp.leak((p.*)::text) AND service = 7",
    ],
)
def test_a_leaky_function_never_meets_anothers_decoy(
    world: World, settings: tuple[str, ...], query: str
) -> None:
    seen: list[str] = []
    with world.as_role("anna", *settings) as connection:
        connection.add_notice_handler(lambda notice: seen.append(str(notice.message_primary)))
        connection.execute(LEAK)
        connection.execute(query)
    assert any("decoy of view_anna" in text for text in seen)
    assert not any("view_bob" in text or "another" in text for text in seen)


def test_the_own_decoy_is_found_by_key_and_by_join(anna: Connection) -> None:
    by_key = anna.execute("SELECT nom FROM marked.patient WHERE id = 700001").fetchall()
    joined = anna.execute(
        "SELECT p.nom FROM (VALUES (700001), (700002), (3)) AS v (id)"
        " JOIN marked.patient AS p USING (id) ORDER BY p.id"
    ).fetchall()
    assert by_key == [("decoy of view_anna",)]
    assert joined == [("nom 3",), ("decoy of view_anna",)]


def test_decoys_of_a_relation_that_has_a_column_recipient(empty_db: Connection) -> None:
    install(PsycopgSession(empty_db))
    empty_db.execute(
        "CREATE TABLE courrier (id integer PRIMARY KEY, recipient text, pages integer);"
        "INSERT INTO courrier VALUES (1, 'Dr Roy', 12)"
    )
    relation = {
        "key": {"id": "integer"},
        "decoys": True,
        "carrier": {"pages": {"type": "integer", "quantum": "1", "bounds": ["0", "99"]}},
    }
    apply(empty_db, {"relation": {"public.courrier": relation}})
    empty_db.execute("CREATE ROLE letter_anna LOGIN")
    enrol_role(empty_db, "letter_anna", RecipientClass.SECONDARY)
    with connect_as(empty_db, "letter_anna") as connection:
        rows = connection.execute("SELECT id, recipient FROM marked.courrier").fetchall()
    assert rows == [(1, "Dr Roy")]


def test_a_policy_with_decoys_survives_a_new_column(empty_db: Connection) -> None:
    with small_world(empty_db):
        document = carriers("solde")
        document["relation"]["dpi.compte"]["decoys"] = True
        apply(empty_db, document)
        empty_db.execute("ALTER TABLE dpi.compte ADD COLUMN devise text DEFAULT 'EUR'")
        apply(empty_db, document)
        with connect_as(empty_db, "small_anna") as connection:
            rows = connection.execute("SELECT DISTINCT devise FROM marked.compte").fetchall()
        assert rows == [("EUR",)]


def test_a_key_wider_than_the_primary_key_may_have_decoys(empty_db: Connection) -> None:
    with small_world(empty_db):
        document = carriers("solde")
        empty_db.execute("ALTER TABLE dpi.compte ALTER COLUMN reste SET NOT NULL")
        document["relation"]["dpi.compte"] |= {
            "key": {"id": "integer", "reste": "bigint"},
            "decoys": True,
        }
        apply(empty_db, document)
        with connect_as(empty_db, "small_anna") as connection:
            rows = connection.execute("SELECT id, solde FROM marked.compte").fetchall()
        assert changed(rows, 1_000_000) > 100


def test_marked_and_stored_rows_agree_outside_marked_cells(world: World, anna: Connection) -> None:
    stored = world.dba.execute("SELECT * FROM dpi.patient ORDER BY id").fetchall()
    given = anna.execute("SELECT * FROM marked.patient WHERE id < 700000 ORDER BY id").fetchall()
    assert [row[:3] for row in given] == [row[:3] for row in stored]
    for column in range(3, 7):
        moved = sum(a[column] != b[column] for a, b in zip(given, stored, strict=True))
        # density 1/8, and half of the selected cells already carry their bit
        assert 0.05 * ROWS < moved < 0.08 * ROWS


def described(connection: Connection, relation: str) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod), attcollation FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (relation,),
    ).fetchall()


@pytest.mark.parametrize("schema", ["marked", "marked_care"])
@pytest.mark.parametrize("relation", ["patient", "sejour", "mesure"])
def test_a_marked_view_has_the_relations_columns(world: World, schema: str, relation: str) -> None:
    expected = described(world.dba, f"dpi.{relation}")
    assert described(world.dba, f"{schema}.{relation}") == expected


def test_every_type_keeps_its_modifier(empty_db: Connection) -> None:
    install(PsycopgSession(empty_db))
    empty_db.execute(
        "CREATE TABLE kinds (id varchar(12) PRIMARY KEY, a smallint, b numeric(9,2),"
        " c varchar(10), d char(4), e timestamp(3), f timestamptz(0), g real, h date,"
        ' i varchar(20) COLLATE "C", j numeric)'
    )
    number = {"quantum": "1", "bounds": ["0", "100"]}
    words = {"equivalents": [["oui", "o"], ["non", "n"]]}
    table = {
        "a": {"type": "smallint", **number},
        "b": {"type": "numeric(9,2)", **number},
        "c": {"type": "varchar(10)", **words},
        "d": {"type": "char(4)", **words},
        "e": {"type": "timestamp(3)", "quantum": "1 second"},
        "f": {"type": "timestamptz(0)", "quantum": "1 minute"},
        "g": {"type": "real", **number},
        "h": {"type": "date", "quantum": "1 day"},
        "i": {"type": "varchar(20)", **words},
        "j": {"type": "numeric", **number},
    }
    relation = {"key": {"id": "varchar"}, "decoys": True, "carrier": table}
    apply(empty_db, {"relation": {"public.kinds": relation}})
    assert described(empty_db, "marked.kinds") == described(empty_db, "public.kinds")


ODD = ["Select", "a b", 'qu"ote', "per%cent %I", "back\\slash", "it's", "été", "user", "x.y", "$1"]


@pytest.mark.parametrize("strings", ["on", "off"])
def test_odd_names_and_values_come_through(empty_db: Connection, strings: str) -> None:
    empty_db.execute(f"SET standard_conforming_strings = {strings}")
    install(PsycopgSession(empty_db))
    quoted = [sql.Identifier(name) for name in ODD]
    schema, table = sql.Identifier("Odd 100% schema"), sql.Identifier('Ta"ble %s')
    empty_db.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
    empty_db.execute(
        sql.SQL("CREATE TABLE {}.{} ({} text PRIMARY KEY, {} text, {} integer)").format(
            schema, table, quoted[0], quoted[1], sql.SQL(" integer, ").join(quoted[2:])
        )
    )
    rows = [(f"{n}'\\%", ODD[n % 10], *[50] * (len(ODD) - 2)) for n in range(200)]
    values = [sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, row))) for row in rows]
    empty_db.execute(
        sql.SQL("INSERT INTO {}.{} VALUES {}").format(schema, table, sql.SQL(", ").join(values))
    )
    number = {"type": "integer", "quantum": "1", "density": "1"}
    bounds = {"quantum": "1", "bounds": ["0", "100"]}
    by = {
        "type": "integer",
        "density": "1",
        "by": {"a b": "text"},
        "tolerance": dict.fromkeys(ODD[:8], bounds) | {"other ' \\": {"quantum": "2"}},
    }
    relation = {
        "key": {"Select": "text"},
        "decoys": True,
        "view": "View % \"one\" 'two' \\",
        "carrier": {ODD[2]: by} | dict.fromkeys(ODD[3:], number),
    }
    document = {
        "views": {"secondary": "Marked %s", "care": 'Ca"re'},
        "relation": {'"Odd 100% schema"."Ta""ble %s"': relation},
    }
    apply(empty_db, document)
    role = 'odd "role" %I \\'
    empty_db.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    enrol_role(empty_db, role, RecipientClass.SECONDARY)
    with connect_as(empty_db, role) as connection:
        view = sql.Identifier("Marked %s", str(relation["view"]))
        given = connection.execute(sql.SQL("SELECT * FROM {}").format(view)).fetchall()
    assert [row[:2] for row in given] == [row[:2] for row in rows]
    moved: dict[str, int] = {}
    for row in given:
        assert set(row[2:]) <= {49, 50, 51}
        moved[row[1]] = moved.get(row[1], 0) + (row[2] != 50)
    # of 20 cells each, half move; for values without a tolerance none
    assert {value for value, count in moved.items() if count} == set(ODD[:8])
    assert all(sum(row[at] != 50 for row in given) > 60 for at in range(3, len(ODD)))


@pytest.mark.parametrize("query", ["SELECT * FROM {}", "SELECT count(*) FROM {}"])
def test_a_read_only_transaction_suffices(anna: Connection, query: str) -> None:
    anna.execute("SET default_transaction_read_only = on")
    for view in ("patient", "sejour", "mesure"):
        ordinary = anna.execute(query.format(f"marked.{view}") + " LIMIT 5").fetchall()
        assert ordinary
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        anna.execute("CREATE TABLE pg_catalog.nothing ()")


def test_readers_go_on_while_a_policy_is_applied(empty_db: Connection) -> None:
    with small_world(empty_db):
        problems: list[str] = []
        answers: list[int] = []
        stop = threading.Event()

        def read() -> None:
            with connect_as(empty_db, "small_anna") as connection:
                while not stop.is_set():
                    try:
                        rows = connection.execute("SELECT id, solde FROM marked.compte").fetchall()
                        answers.append(changed(rows, 1_000_000))
                    except psycopg.Error as problem:
                        problems.append(str(problem))

        reader = threading.Thread(target=read)
        reader.start()
        for names in [("solde",), ("reste", "solde")] * 4:
            apply(empty_db, carriers(*names))
        stop.set()
        reader.join()
    assert not problems
    assert min(answers) > 100
