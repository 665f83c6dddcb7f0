"""What a recipient who may create objects can find out: never a secret, a stored value, a decoy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from psycopg import sql
from pytest_postgresql.janitor import DatabaseJanitor

from pgbalise.database import apply_policy, enrol
from pgbalise.errors import DatabaseProblem, InvalidRecipient
from pgbalise.install import install
from pgbalise.marking.codes import bias, codeword, dither
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import PsycopgSession
from tests.attack.oracle import pieces, spellings, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgbalise.demo.cluster import ThrowawayCluster

Connection = psycopg.Connection[Any]

KEY = MasterKey(b"secret" + bytes(26))
DENIED = "42501"
MISSING = "42P01"
FIRST = 7_000_000_000_000
STEP = 1_000_003
NUMBER = {"type": "bigint", "quantum": "1", "density": "1"}
DOCUMENT = {
    "derivation": "sha256",
    "relation": {
        "dpi.compte": {
            "key": {"id": "integer"},
            "decoys": True,
            "carrier": {
                "solde": NUMBER,
                "naissance": {"type": "timestamptz", "quantum": "1 second"},
            },
        }
    },
}
TABLES = f"""
CREATE SCHEMA dpi;
CREATE TABLE dpi.compte (id integer PRIMARY KEY, nom text, solde bigint, naissance timestamptz);
INSERT INTO dpi.compte
SELECT i, 'nom ' || i, {FIRST} + i * {STEP}::bigint, timestamptz '2000-01-01' + i * interval '1 h'
  FROM generate_series(1, 300) AS i;
CREATE ROLE secret_anna LOGIN;
CREATE ROLE secret_bob LOGIN;
CREATE ROLE secret_carl LOGIN;
CREATE SCHEMA anna AUTHORIZATION secret_anna;
"""
DECOYS = """
INSERT INTO balise_decoy.compte
SELECT 'secret_anna', 1, 1000 + i, 'leurre a', 5, now() FROM generate_series(1, 3) AS i;
INSERT INTO balise_decoy.compte
SELECT 'secret_bob', 2, 2000 + i, 'leurre b', 5, now() FROM generate_series(1, 500) AS i;
VACUUM ANALYZE
"""


@dataclass(frozen=True)
class World:
    cluster: ThrowawayCluster
    name: str
    dba: Connection
    forbidden: frozenset[str]
    """Texts that a recipient (anna) must never read."""

    def connect(self, role: str) -> Connection:
        return psycopg.connect(self.cluster.dsn(self.name, f"secret_{role}"), autocommit=True)

    def exposed(self, texts: list[str]) -> set[str]:
        """The forbidden texts that occur in these."""
        everything = "\n".join(texts).lower()
        return {text for text in self.forbidden if text in everything}


def forbidden_texts(dba: Connection) -> frozenset[str]:
    texts = {"leurre b"}
    for seeds, keys in dba.execute("SELECT seeds, keys FROM balise.relation_secret"):
        texts.update(text for seed in seeds for text in spellings(seed))
        texts.update(text for key in keys for text in pieces(bytes(key)))
    for (word,) in dba.execute("SELECT word FROM balise.codeword"):
        texts.update(pieces(bytes(word)))
    bits = codeword(KEY, "secret_anna", 1, bias(KEY, 1))
    for secret in (dither(KEY, 1), bits):
        texts.update(pieces(np.packbits(secret, bitorder="little").tobytes()))
    return frozenset(texts)


@pytest.fixture(scope="module")
def world(cluster: ThrowawayCluster) -> Iterator[World]:
    name = "secrets_test"
    janitor = DatabaseJanitor(
        user="postgres",
        host=cluster.host,
        port=cluster.port,
        dbname=name,
        template_dbname="template0",
    )
    with janitor, psycopg.connect(cluster.dsn(name), autocommit=True) as dba:
        session = PsycopgSession(dba)
        install(session)
        dba.execute(TABLES)
        with dba.transaction():
            apply_policy(session, DOCUMENT, KEY)
        for role, recipient_class in (
            ("anna", "secondary"),
            ("bob", "secondary"),
            ("carl", "care"),
        ):
            with dba.transaction():
                enrol(session, [f"secret_{role}"], RecipientClass(recipient_class), KEY)
        for statement in DECOYS.split(";"):
            dba.execute(statement)
        bare = World(cluster, name, dba, forbidden_texts(dba))
        with bare.connect("anna") as anna:
            given = dict(anna.execute("SELECT id, solde FROM marked.compte WHERE id <= 300"))
        stored = dict(dba.execute("SELECT id, solde FROM dpi.compte").fetchall())
        moved = {str(value) for key, value in stored.items() if given[key] != value}
        assert len(moved) > 100
        yield World(cluster, name, dba, bare.forbidden | moved)
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("DROP ROLE secret_anna, secret_bob, secret_carl")


@dataclass
class Overheard:
    """Everything that statements sent back."""

    texts: list[str]
    states: set[str]


def listen(connection: Connection, *statements: str) -> Overheard:
    """Run statements one by one, whatever happens, and keep all that comes back."""
    heard = Overheard([], set())

    def keep(diag: psycopg.errors.Diagnostic) -> None:
        parts = (diag.message_primary, diag.message_detail, diag.message_hint, diag.context)
        heard.texts.extend(part for part in parts if part)

    connection.add_notice_handler(keep)
    for statement in statements:
        try:
            with connection.cursor() as cursor:
                if statement.endswith("TO STDOUT"):
                    with cursor.copy(statement) as copy:
                        heard.texts.extend(bytes(block).decode("latin1") for block in copy)
                    continue
                cursor.execute(statement)
                if cursor.description:
                    for row in cursor:
                        heard.texts.extend(map(written, row))
        except psycopg.Error as problem:
            heard.states.add(problem.sqlstate or "")
            keep(problem.diag)
    return heard


def function(name: str, argument: str, body: str, returns: str = "boolean") -> str:
    return (
        f"CREATE FUNCTION anna.{name}({argument}) RETURNS {returns} LANGUAGE plpgsql COST 0.0001"
        f" AS $$ BEGIN {body} END $$"
    )


SHOW = "RAISE NOTICE '%', $1;"
SHOW2 = "RAISE NOTICE '% %', $1, $2;"
TELL = function("tell", "anyelement", f"{SHOW} RETURN true;")
V = "marked.compte"

ATTACKS: dict[str, tuple[set[str], list[str]]] = {
    "stored tables": (
        {DENIED},
        [
            f"SELECT * FROM {name}"
            for name in (
                "dpi.compte",
                "balise.codeword",
                "balise.relation_secret",
                "balise.recipient",
                "balise.policy",
                "balise.relation",
                "balise_decoy.compte",
                "pg_statistic",
                "pg_authid",
                "marked_care.compte",
            )
        ],
    ),
    "functions of the extension": (
        {DENIED},
        [
            "SELECT balise.refuse()",
            "SELECT balise.python_path()",
            "SELECT balise.load_library()",
            "SELECT balise.apply('/etc/passwd')",
            "SELECT balise.enrol('secret_anna', 'secondary', '/etc/passwd', true)",
            "SELECT balise.revoke('secret_bob')",
            "SELECT * FROM balise.trace('marked.compte', 'dpi.compte', '/etc/passwd')",
            "SELECT balise.mark_column('marked.compte', 'solde')",
            "CREATE FUNCTION anna.py() RETURNS text LANGUAGE plpython3u AS $$ return GD $$",
        ],
    ),
    "definitions": (
        set(),
        [
            f"SELECT pg_get_viewdef('{V}'::regclass)",
            "SELECT pg_get_viewdef(c.oid) FROM pg_class AS c WHERE relname = 'compte'",
            (
                "SELECT ev_action, ev_qual, pg_get_ruledef(oid) FROM pg_rewrite"
                " WHERE ev_class IN (SELECT oid FROM pg_class WHERE relname = 'compte')"
            ),
            "SELECT * FROM pg_proc WHERE oid >= 16384",
            "SELECT * FROM pg_class WHERE relnamespace >= 16384",
            "SELECT * FROM pg_attribute WHERE attrelid >= 16384",
            "SELECT adbin FROM pg_attrdef",
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint",
            "SELECT * FROM pg_policies",
            "SELECT * FROM pg_description WHERE objoid >= 16384",
            "SELECT * FROM pg_extension",
            "SELECT * FROM pg_db_role_setting",
            "SELECT * FROM information_schema.views WHERE table_schema LIKE 'marked%'",
            "SELECT * FROM information_schema.columns WHERE table_schema LIKE 'marked%'",
            "SELECT * FROM pg_roles",
        ],
    ),
    "statistics": (
        set(),
        [
            "SELECT * FROM pg_stats",
            "SELECT * FROM pg_stats_ext",
            "SELECT * FROM pg_stats_ext_exprs",
            "SELECT * FROM pg_stat_activity",
            "SELECT * FROM pg_stat_all_tables",
            "SELECT * FROM pg_prepared_statements",
            "SELECT * FROM pg_cursors",
        ],
    ),
    "locks": ({DENIED}, ["SELECT * FROM pg_locks"]),
    "statistics of one's own copies": (
        set(),
        [
            f"CREATE TABLE anna.copy AS SELECT * FROM {V}",
            "CREATE STATISTICS anna.stat ON nom, solde FROM anna.copy",
            "ANALYZE anna.copy",
            "SELECT * FROM pg_stats WHERE schemaname = 'anna'",
            "SELECT * FROM pg_stats_ext WHERE schemaname = 'anna'",
            f"CREATE MATERIALIZED VIEW anna.kept AS SELECT * FROM {V}",
            "REFRESH MATERIALIZED VIEW anna.kept",
            "ANALYZE anna.kept",
            "TABLE anna.kept",
            f"ANALYZE {V}",
        ],
    ),
    "statistics of tables behind the view": (
        {DENIED, "42809"},
        [
            "ANALYZE balise.codeword",
            "ANALYZE dpi.compte",
            f"CREATE STATISTICS anna.other ON nom, solde FROM {V}",
            "CREATE STATISTICS anna.other2 ON nom, solde FROM dpi.compte",
        ],
    ),
    "plans": (
        set(),
        [
            f"EXPLAIN (ANALYZE, VERBOSE, BUFFERS, SETTINGS) SELECT * FROM {V}",
            f"EXPLAIN (ANALYZE, VERBOSE, FORMAT JSON) SELECT * FROM {V} WHERE solde > 5",
            f"EXPLAIN (VERBOSE) SELECT * FROM {V} AS a JOIN {V} AS b USING (solde)",
        ],
    ),
    "debugging settings": (
        set(),
        [
            "SET client_min_messages = debug5",
            "SET debug_print_parse = on",
            "SET debug_print_rewritten = on",
            "SET debug_print_plan = on",
            "SET plan_cache_mode = force_custom_plan",
            f"SELECT id, solde FROM {V} WHERE id < 3",
            f"PREPARE p (int) AS SELECT id, solde FROM {V} WHERE id = $1",
            "EXECUTE p (3)",
            "SET plan_cache_mode = force_generic_plan",
            "EXECUTE p (4)",
            "SELECT * FROM pg_settings",
        ],
    ),
    "privileged settings": (
        {DENIED},
        [
            "SET log_statement = 'all'",
            "SET log_min_messages = debug5",
            "SET session_preload_libraries = 'auto_explain'",
            "LOAD 'auto_explain'",
            "LOAD 'pageinspect'",
            "SET session_replication_role = replica",
        ],
    ),
    "errors on values": (
        {"22012", "22P02", "22003", "22008", "23505", "23514"},
        [
            f"SELECT 1 / (solde - solde) FROM {V}",
            f"SELECT ('x' || solde)::int FROM {V}",
            f"SELECT solde::smallint FROM {V}",
            f"SELECT row_to_json(c)::text::int FROM {V} AS c",
            "CREATE TABLE anna.one (solde bigint, nom text UNIQUE)",
            f"INSERT INTO anna.one SELECT solde, 'same' FROM {V}",
            "CREATE DOMAIN anna.small AS bigint CHECK (VALUE < 10)",
            f"SELECT solde::anna.small FROM {V}",
            f"SELECT CAST((c.*)::text AS integer) FROM {V} AS c",
            f"SELECT to_timestamp(solde::text, 'YYYY') FROM {V}",
        ],
    ),
    "leaky functions": (
        set(),
        [
            TELL,
            f"SELECT id FROM {V} WHERE anna.tell(solde)",
            f"SELECT id FROM {V} AS c WHERE anna.tell(c)",
            f"SELECT id FROM {V} AS c WHERE anna.tell(c) ORDER BY id LIMIT 200",
            f"SELECT a.id FROM {V} AS a JOIN {V} AS b ON a.id = b.id AND anna.tell(b.solde)",
            f"SELECT nom FROM {V} GROUP BY nom HAVING anna.tell(max(solde))",
            f"SELECT id FROM {V} ORDER BY anna.tell(solde)",
            f"SELECT id, x FROM {V} AS c, LATERAL (SELECT anna.tell(c) AS x OFFSET 0) AS l",
            f"SELECT (SELECT anna.tell(c.solde)) FROM {V} AS c",
            (
                f"SELECT v.i FROM generate_series(1, 9) AS v (i) LEFT JOIN {V} AS c"
                " ON c.id = v.i AND anna.tell(c)"
            ),
        ],
    ),
    "leaky operators with estimators": (
        set(),
        [
            function("eq", "text, text", f"{SHOW2} RETURN $1 = $2;"),
            function("eq8", "bigint, bigint", f"{SHOW2} RETURN $1 = $2;"),
            (
                "CREATE OPERATOR anna.=== (FUNCTION = anna.eq, LEFTARG = text, RIGHTARG = text,"
                " RESTRICT = eqsel, JOIN = eqjoinsel, COMMUTATOR = OPERATOR(anna.===))"
            ),
            (
                "CREATE OPERATOR anna.=== (FUNCTION = anna.eq8, LEFTARG = bigint,"
                " RIGHTARG = bigint, RESTRICT = scalarltsel, JOIN = eqjoinsel)"
            ),
            f"EXPLAIN SELECT * FROM {V} WHERE nom OPERATOR(anna.===) 'x'",
            f"SELECT * FROM {V} WHERE nom OPERATOR(anna.===) 'x' AND id > 999",
            f"EXPLAIN SELECT * FROM {V} WHERE solde OPERATOR(anna.===) 7",
            f"SELECT count(*) FROM {V} WHERE solde OPERATOR(anna.===) 7",
            f"EXPLAIN SELECT * FROM {V} AS a JOIN {V} AS b ON a.nom OPERATOR(anna.===) b.nom",
        ],
    ),
    "leaky aggregates and casts": (
        set(),
        [
            function("step", "text, bigint", "RAISE NOTICE '%', $2; RETURN $2::text;", "text"),
            "CREATE AGGREGATE anna.spy (bigint) (SFUNC = anna.step, STYPE = text)",
            f"SELECT anna.spy(solde), anna.spy(solde) OVER () FROM {V} GROUP BY solde",
            f"SELECT anna.spy(solde) FILTER (WHERE id > 4) FROM {V}",
            "CREATE TYPE anna.wrapped AS (text text)",
            function("wrap", "bigint", f"{SHOW} RETURN ROW($1::text);", "anna.wrapped"),
            "CREATE CAST (bigint AS anna.wrapped) WITH FUNCTION anna.wrap(bigint) AS IMPLICIT",
            f"SELECT solde::anna.wrapped FROM {V}",
        ],
    ),
    "whole rows": (
        set(),
        [
            f"SELECT c FROM {V} AS c",
            f"SELECT row_to_json(c), to_jsonb(c), hstore FROM {V} AS c, (SELECT 1) AS x (hstore)",
            f"SELECT query_to_xml('SELECT * FROM {V}', true, false, '')",
            f"SELECT array_agg(c) FROM {V} AS c",
            f"COPY (SELECT * FROM {V}) TO STDOUT",
            f"COPY (SELECT c FROM {V} AS c) TO STDOUT",
            f"SELECT lo_from_bytea(424242, string_agg(c::text, ',')::bytea) FROM {V} AS c",
            "SELECT convert_from(lo_get(424242), 'UTF8'), lo_unlink(424242)",
        ],
    ),
    "what is not in the view": (
        {"42703", "42809", MISSING, DENIED, "0A000", "55000", "XX000"},
        [
            f"SELECT word FROM {V}",
            f"SELECT s.word FROM {V}",
            f"SELECT s.* FROM {V}",
            f"SELECT t.solde FROM {V} AS c",
            f"SELECT ctid FROM {V}",
            f"SELECT xmin, tableoid FROM {V}",
            f"SELECT * FROM {V} TABLESAMPLE BERNOULLI (50)",
            f"SELECT * FROM {V} FOR UPDATE",
            f"SELECT * FROM {V} FOR SHARE",
            f"COPY {V} TO STDOUT",
            "COPY balise.codeword TO STDOUT",
            "COPY dpi.compte TO '/tmp/x'",
            f"DO $$ BEGIN LOCK TABLE {V} IN SHARE MODE; END $$",
            f"UPDATE {V} SET solde = solde",
            f"DELETE FROM {V}",
            f"CREATE RULE r AS ON INSERT TO {V} DO ALSO SELECT 1",
            f"CREATE TABLE anna.heir () INHERITS ({V})",
            "CREATE TABLE anna.heir () INHERITS (dpi.compte)",
            "CREATE TABLE anna.heir (id integer REFERENCES dpi.compte)",
            f"ALTER VIEW {V} SET (security_invoker = on)",
            f"ALTER VIEW {V} OWNER TO secret_anna",
            f"CREATE OR REPLACE VIEW {V} AS SELECT 1",
            f"CREATE TRIGGER t INSTEAD OF UPDATE ON {V} EXECUTE FUNCTION anna.tell()",
            f"SELECT currtid2('{V}', '(0,1)')",
        ],
    ),
    "files": (
        {DENIED},
        [
            "SELECT pg_read_file(pg_relation_filepath('balise.codeword'))",
            "SELECT pg_read_binary_file('pg_hba.conf')",
            "SELECT pg_ls_dir('.')",
            "SELECT lo_import('/etc/passwd')",
            "CREATE EXTENSION pageinspect",
            "COPY (SELECT 1) TO PROGRAM 'cat'",
            "CREATE TABLE anna.f AS SELECT pg_read_file('server.log')",
        ],
    ),
    "another's identity": (
        {DENIED, "22023"},
        [
            "SET ROLE secret_bob",
            "SET ROLE balise_owner",
            "SET SESSION AUTHORIZATION secret_bob",
            "SELECT set_config('session_authorization', 'secret_bob', false)",
            "SELECT set_config('role', 'balise_owner', false)",
            "ALTER ROLE secret_bob RENAME TO other",
            "ALTER ROLE secret_bob PASSWORD 'x'",
            "GRANT secret_bob TO secret_anna",
            "GRANT balise_owner TO secret_anna",
            "CREATE ROLE secret_dave",
            "INSERT INTO balise.codeword VALUES ('secret_anna', 'secondary', '')",
            "UPDATE balise.codeword SET role_name = 'secret_anna'",
        ],
    ),
    "names that shadow": (
        {MISSING},
        [
            function(
                "hashint8extended",
                "bigint, bigint",
                f"{SHOW2} RETURN 1;",
                "bigint",
            ),
            function(
                "hashint4extended",
                "integer, bigint",
                f"{SHOW2} RETURN 1;",
                "bigint",
            ),
            function("get_bit", "bytea, bigint", f"{SHOW2} RETURN 1;", "integer"),
            function("sha256", "bytea", f"{SHOW} RETURN $1;", "bytea"),
            function("encode", "bytea, text", f"{SHOW} RETURN 'x';", "text"),
            function("int8send", "bigint", f"{SHOW} RETURN 'x';", "bytea"),
            function("quote_ident", "text", f"{SHOW} RETURN 'x';", "text"),
            function("refuse", "", "RAISE NOTICE 'mine'; RETURN true;"),
            function("lt8", "bigint, bigint", f"{SHOW2} RETURN $1 = $2;"),
            "CREATE OPERATOR anna.< (FUNCTION = anna.lt8, LEFTARG = bigint, RIGHTARG = bigint)",
            "CREATE OPERATOR anna.= (FUNCTION = anna.lt8, LEFTARG = bigint, RIGHTARG = bigint)",
            "CREATE OPERATOR anna.& (FUNCTION = anna.lt8, LEFTARG = bigint, RIGHTARG = bigint)",
            "CREATE TEMPORARY TABLE codeword (role_name name, class text, word bytea)",
            "INSERT INTO codeword SELECT session_user, 'secondary', repeat('x', 8000)::bytea",
            "CREATE TEMPORARY TABLE compte AS SELECT 1 AS id",
            "CREATE TEMPORARY VIEW relation_secret AS SELECT 1 AS relation_id",
            "SET search_path = anna, pg_temp, marked, pg_catalog",
            f"SELECT * FROM {V}",
            f"SELECT * FROM {V} WHERE id = 5 AND solde > 5",
            "SELECT * FROM pg_temp.marked",
        ],
    ),
    "row security": (
        {DENIED},
        [
            "SET row_security = off",
            f"SELECT * FROM {V}",
            "ALTER TABLE balise_decoy.compte DISABLE ROW LEVEL SECURITY",
            "DROP POLICY own_decoys ON balise_decoy.compte",
            "CREATE POLICY more ON balise_decoy.compte USING (true)",
            "ALTER ROLE secret_anna BYPASSRLS",
        ],
    ),
    "own views, rules, triggers and definer functions": (
        set(),
        [
            TELL,
            f"CREATE VIEW anna.mine WITH (security_barrier) AS SELECT * FROM {V}",
            f"CREATE VIEW anna.asker AS SELECT * FROM {V} WHERE anna.tell(solde)",
            "SELECT * FROM anna.mine WHERE anna.tell(mine)",
            "SELECT * FROM anna.asker",
            function("moved", "", "RAISE NOTICE '% %', OLD, NEW; RETURN NEW;", "trigger"),
            (
                "CREATE TRIGGER t INSTEAD OF UPDATE ON anna.mine"
                " FOR EACH ROW EXECUTE FUNCTION anna.moved()"
            ),
            "UPDATE anna.mine SET solde = solde + 5000",
            "CREATE TABLE anna.sink (LIKE marked.compte)",
            "CREATE RULE r AS ON DELETE TO anna.mine DO INSTEAD INSERT INTO anna.sink SELECT OLD.*",
            "DELETE FROM anna.mine",
            "TABLE anna.sink",
            (
                f"CREATE FUNCTION anna.all() RETURNS SETOF {V} LANGUAGE sql SECURITY DEFINER AS"
                f" $$ SELECT * FROM {V} $$"
            ),
            "SELECT * FROM anna.all()",
            "SELECT session_user, current_user, current_setting('session_authorization')",
        ],
    ),
    "planner settings": (
        set(),
        [
            TELL,
            *(
                step
                for setting in (
                    "enable_seqscan",
                    "enable_indexscan",
                    "enable_bitmapscan",
                    "enable_nestloop",
                    "enable_hashjoin",
                    "enable_mergejoin",
                    "enable_material",
                    "enable_sort",
                    "jit",
                )
                for step in (f"SET {setting} = off", f"SELECT * FROM {V} AS c WHERE anna.tell(c)")
            ),
            "SET force_parallel_mode = on",
            f"SELECT * FROM {V}",
            "SET from_collapse_limit = 1",
            "SET join_collapse_limit = 1",
            "SET geqo_threshold = 2",
            f"SELECT * FROM {V} AS a JOIN {V} AS b USING (id) WHERE anna.tell(a.solde)",
        ],
    ),
    "server programs": (
        {DENIED, "0A000", "42710", "58P01"},
        [
            "CREATE EXTENSION dblink",
            "CREATE EXTENSION postgres_fdw",
            "CREATE PUBLICATION p FOR TABLE balise.codeword",
            "SELECT pg_create_logical_replication_slot('s', 'test_decoding')",
            "SELECT pg_switch_wal()",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
        ],
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_secret_comes_out(world: World, attack: str) -> None:
    expected, statements = ATTACKS[attack]
    try:
        with world.connect("anna") as anna:
            heard = listen(anna, *statements)
    finally:
        world.dba.execute("DROP SCHEMA anna CASCADE; CREATE SCHEMA anna AUTHORIZATION secret_anna")
    assert heard.texts
    assert not world.exposed(heard.texts)
    # a statement that fails for another reason would prove nothing
    assert heard.states <= expected, heard.texts[-5:]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT seeds FROM balise.relation_secret",
        "SELECT keys FROM balise.relation_secret",
        "SELECT keys[1]::text FROM balise.relation_secret",
        "SELECT word FROM balise.codeword WHERE role_name = 'secret_anna'",
        "SELECT encode(word, 'escape') FROM balise.codeword",
        "SELECT solde FROM dpi.compte",
        "SELECT nom FROM balise_decoy.compte",
        "COPY balise.codeword TO STDOUT",
    ],
)
def test_a_secret_would_be_noticed(world: World, query: str) -> None:
    assert world.exposed(listen(world.dba, query).texts)


SETTINGS = [
    "timezone = 'Asia/Kathmandu'",
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'sql_standard'",
    "extra_float_digits = -15",
    "timezone_abbreviations = 'India'",
    "search_path = ''",
    "standard_conforming_strings = off",
    "bytea_output = 'escape'",
    "lc_numeric = 'C'",
    "transform_null_equals = on",
    "array_nulls = off",
    "force_parallel_mode = on",
    "jit_above_cost = 0",
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_cell_has_the_same_value_under_every_setting(world: World, setting: str) -> None:
    query = "SELECT id, solde, extract(epoch FROM naissance) FROM marked.compte WHERE id < 300"
    with world.connect("anna") as anna:
        first = anna.execute(query).fetchall()
        again = anna.execute(query).fetchall()
        anna.execute(f"SET {setting}")
        assert anna.execute(query).fetchall() == again == first


def test_two_recipients_get_different_marks(world: World) -> None:
    query = "SELECT solde FROM marked.compte WHERE id <= 300 ORDER BY id"
    with world.connect("anna") as anna, world.connect("bob") as bob:
        pairs = list(zip(anna.execute(query), bob.execute(query), strict=True))
    assert 30 < sum(a != b for a, b in pairs) < 270


def found_by(connection: Connection, key: int, oracle: str) -> list[tuple[Any, ...]]:
    """What an oracle says, in one transaction, after a lookup by key."""
    connection.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
    query = "SELECT id, nom FROM marked.compte WHERE id = %s"
    assert len(connection.execute(query, (key,)).fetchall()) == 1
    try:
        return connection.execute(oracle).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        return []
    finally:
        connection.execute("ROLLBACK")


@pytest.mark.parametrize(
    "oracle",
    [
        (
            "SELECT schemaname, idx_tup_fetch FROM pg_stat_xact_all_tables"
            " WHERE schemaname IN ('dpi', 'balise_decoy') ORDER BY 1"
        ),
        (
            "SELECT relation::regclass::text, locktype FROM pg_locks WHERE mode = 'SIReadLock'"
            " AND locktype = 'tuple' AND pid = pg_backend_pid() ORDER BY 1"
        ),
    ],
    ids=["counters", "predicate locks"],
)
def test_the_server_does_not_tell_a_decoy_from_a_patient(world: World, oracle: str) -> None:
    settings = ["enable_seqscan = off", "enable_bitmapscan = off"]
    answers = []
    for key in (7, 1001):
        with world.connect("anna") as anna:
            for setting in settings:
                anna.execute(f"SET {setting}")
            answers.append(found_by(anna, key, oracle))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "shortcut",
    [
        "GRANT SELECT ON dpi.compte TO shortcut",
        "GRANT SELECT (solde) ON dpi.compte TO shortcut",
        "GRANT UPDATE (solde) ON dpi.compte TO shortcut",
        "GRANT pg_read_all_data TO shortcut",
        "GRANT pg_read_server_files TO shortcut",
        "GRANT pg_execute_server_program TO shortcut",
        "GRANT SELECT ON balise.codeword TO shortcut",
        "ALTER ROLE shortcut CREATEROLE",
        "ALTER ROLE shortcut REPLICATION",
        "ALTER ROLE shortcut BYPASSRLS",
    ],
)
def test_a_role_with_a_way_round_the_views_is_not_enrolled(world: World, shortcut: str) -> None:
    world.dba.execute("BEGIN")
    try:
        world.dba.execute("CREATE ROLE shortcut LOGIN")
        world.dba.execute(shortcut)
        with pytest.raises(InvalidRecipient):
            enrol(PsycopgSession(world.dba), ["shortcut"], RecipientClass.SECONDARY, KEY)
    finally:
        world.dba.execute("ROLLBACK")


def test_the_servers_log_holds_no_secret(world: World) -> None:
    log = world.cluster.folder / "server.log"
    before = log.stat().st_size
    session = PsycopgSession(world.dba)
    world.dba.execute("SET log_statement = 'all'")
    try:
        with world.dba.transaction():
            apply_policy(session, DOCUMENT, KEY)
            world.dba.execute("CREATE ROLE logged LOGIN")
            enrol(session, ["logged"], RecipientClass.SECONDARY, KEY)
            bare = forbidden_texts(world.dba)
            raise psycopg.Rollback
    finally:
        world.dba.execute("RESET log_statement")
    written = log.read_bytes()[before:].decode("utf-8", "replace").lower()
    assert "create role logged" in written
    assert not {text for text in bare if text in written}


def test_default_privileges_do_not_open_the_secrets(empty_db: Connection) -> None:
    empty_db.execute(
        "CREATE ROLE reader LOGIN; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader;"
        "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO reader"
    )
    install(PsycopgSession(empty_db))
    info = empty_db.info
    for table in ("codeword", "relation_secret"):
        with (
            psycopg.connect(
                host=info.host, port=info.port, dbname=info.dbname, user="reader"
            ) as reader,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            reader.execute(sql.SQL("SELECT * FROM balise.{}").format(sql.Identifier(table)))


def test_decoys_never_go_into_a_table_that_someone_else_made(empty_db: Connection) -> None:
    info = empty_db.info
    empty_db.execute(
        "CREATE ROLE squatter LOGIN; CREATE TABLE compte (id integer PRIMARY KEY, solde bigint)"
    )
    empty_db.execute(
        sql.SQL("GRANT CREATE ON DATABASE {} TO squatter").format(sql.Identifier(info.dbname))
    )
    with psycopg.connect(
        host=info.host, port=info.port, dbname=info.dbname, user="squatter"
    ) as squatter:
        squatter.execute(
            "CREATE SCHEMA balise_decoy; GRANT USAGE ON SCHEMA balise_decoy TO PUBLIC;"
            "CREATE TABLE balise_decoy.compte (recipient name, id integer, solde bigint);"
            "GRANT SELECT ON balise_decoy.compte TO PUBLIC"
        )
    session = PsycopgSession(empty_db)
    relation = {"key": {"id": "integer"}, "decoys": True, "carrier": {"solde": NUMBER}}
    try:
        install(session)
        with empty_db.transaction():
            apply_policy(session, {"relation": {"public.compte": relation}}, KEY)
    except DatabaseProblem:
        return  # refusing is as good
    owner = empty_db.execute(
        "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'balise_decoy.compte'::regclass"
    ).fetchone()
    assert owner != ("squatter",)
