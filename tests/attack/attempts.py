"""The attempts, by family: scripts that any recipient can run.

An attempt gives the SQLSTATEs that it must end in, no more and no fewer: a script that fails for
another reason would prove nothing. ``twin`` is false where two runs differ by themselves, for
the reason given beside it. See conftest.World.play for the form of a step and the @marks@.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.attack.conftest import Step

DENIED: Final = "42501"
UNKNOWN: Final = "42P01"
WRONG_KIND: Final = "42809"
NO_COLUMN: Final = "42703"
NOT_SUPPORTED: Final = "0A000"
NO_TRANSACTION: Final = "25P01"


@dataclass(frozen=True)
class Attempt:
    script: tuple[Step, ...]
    states: frozenset[str] = frozenset()
    twin: bool = True
    changes: bool = False
    """Whether the administration changes something, so that a database of its own is needed."""


def tries(
    *script: Step,
    states: str = "",
    twin: bool = True,
    changes: bool = False,
) -> Attempt:
    return Attempt(script, frozenset(states.split()), twin, changes)


def function(
    name: str, arguments: str, body: str, returns: str = "boolean", more: str = "COST 0.0001"
) -> str:
    return (
        f"CREATE FUNCTION {name}({arguments}) RETURNS {returns} LANGUAGE plpgsql {more}"
        f" AS $$ BEGIN {body} END $$"
    )


V: Final = "marked.patient"
M: Final = "marked.mesure"
TELL: Final = function("m.tell", "anyelement", "RAISE NOTICE '%', $1; RETURN true;")
BARRED: Final = function("m.stop", "anyelement", "RAISE EXCEPTION 'stop %', $1;")
PLAN: Final = "EXPLAIN (ANALYZE, VERBOSE, SETTINGS, TIMING OFF, SUMMARY OFF)"

LEAKY: Final = {
    "a cheap function in WHERE": tries(TELL, f"SELECT id FROM {V} WHERE m.tell(solde)"),
    "a cheap function beside a selective condition": tries(
        TELL, f"SELECT id FROM {V} WHERE ville = 'Nowhere' AND m.tell(solde) AND m.tell(nom)"
    ),
    "a function that raises its argument": tries(
        BARRED, f"SELECT id FROM {V} WHERE m.stop(solde)", states="P0001"
    ),
    "a function on a whole row": tries(TELL, f"SELECT id FROM {V} AS p WHERE m.tell(p)"),
    "a function in ORDER BY": tries(TELL, f"SELECT id FROM {V} ORDER BY m.tell(naissance), vu_le"),
    "a function in GROUP BY and HAVING": tries(
        TELL,
        f"SELECT m.tell(valeur), count(*) FROM {M} GROUP BY 1 HAVING m.tell(max(pris_le))",
    ),
    "a function in a join condition": tries(
        TELL,
        f"SELECT count(*) FROM {V} AS p JOIN {M} AS r ON r.patient_id = p.id"
        " AND m.tell(p.solde) AND m.tell(r.valeur)",
    ),
    "a function below an outer join": tries(
        TELL,
        f"SELECT count(*) FROM generate_series(1, 2200) AS k LEFT JOIN {V} AS p"
        " ON p.id = k AND m.tell(p.solde)",
    ),
    "a function in LIMIT's subquery": tries(
        TELL,
        f"SELECT id FROM {V} LIMIT (SELECT count(*) FROM {V} WHERE m.tell(solde) AND id < 9)",
    ),
    "an SQL function that is inlined": tries(
        TELL,
        "CREATE FUNCTION m.inline(bigint) RETURNS boolean LANGUAGE sql STABLE"
        " AS 'SELECT m.tell($1) OR $1 / ($1 - @raw@) > 0'",
        f"SELECT id FROM {V} WHERE m.inline(solde) ORDER BY id",
    ),
    "a function declared leakproof": tries(
        function("m.quiet", "bigint", "RETURN true;", more="LEAKPROOF"), states=DENIED
    ),
    "a support function of the planner": tries(
        TELL,
        function("m.helped", "bigint", "RETURN true;", more="SUPPORT generate_series_int8_support"),
        states=DENIED,
    ),
    "an operator with borrowed estimators": tries(
        function("m.near", "bigint, bigint", "RAISE NOTICE '% %', $1, $2; RETURN $1 < $2;"),
        "CREATE OPERATOR m.<<< (FUNCTION = m.near, LEFTARG = bigint, RIGHTARG = bigint,"
        " RESTRICT = scalarltsel, JOIN = scalarltjoinsel)",
        f"EXPLAIN SELECT * FROM {V} WHERE solde OPERATOR(m.<<<) @raw@",
        f"EXPLAIN SELECT * FROM {V} AS a JOIN {V} AS b ON a.solde OPERATOR(m.<<<) b.solde",
        f"SELECT count(*) FROM {V} WHERE id OPERATOR(pg_catalog.<) 5"
        " AND solde OPERATOR(m.<<<) @raw@",
    ),
    "an operator on keys that estimates by running": tries(
        function("m.eq4", "integer, integer", "RAISE NOTICE '% %', $1, $2; RETURN $1 = $2;"),
        function("m.eqt", "text, text", "RAISE NOTICE '% %', $1, $2; RETURN $1 = $2;"),
        "CREATE OPERATOR m.=== (FUNCTION = m.eq4, LEFTARG = integer, RIGHTARG = integer,"
        " RESTRICT = scalargtsel)",
        "CREATE OPERATOR m.=== (FUNCTION = m.eqt, LEFTARG = text, RIGHTARG = text,"
        " RESTRICT = eqsel, JOIN = eqjoinsel)",
        f"EXPLAIN SELECT * FROM {V} WHERE id OPERATOR(m.===) 7",
        f"EXPLAIN SELECT * FROM {V} WHERE ville OPERATOR(m.===) 'x'",
        f"EXPLAIN SELECT * FROM {V} AS a JOIN {V} AS b ON a.ville OPERATOR(m.===) b.ville",
    ),
    "a pattern operator of one's own": tries(
        function("m.like_it", "text, text", "RAISE NOTICE '%', $1; RETURN $1 LIKE $2;"),
        "CREATE OPERATOR m.~~~ (FUNCTION = m.like_it, LEFTARG = text, RIGHTARG = text,"
        " RESTRICT = matchingsel, JOIN = matchingjoinsel)",
        f"SELECT id FROM {V} WHERE nom OPERATOR(m.~~~) 'leurre%' AND id > 9999",
        f"EXPLAIN SELECT id FROM {V} WHERE ville OPERATOR(m.~~~) 'Z%'",
    ),
    "an operator class of one's own": tries(
        function("m.cmp", "bigint, bigint", "RAISE NOTICE '% %', $1, $2; RETURN 0;", "integer"),
        "CREATE OPERATOR CLASS m.spying FOR TYPE bigint USING btree AS"
        " OPERATOR 1 <, OPERATOR 3 =, OPERATOR 5 >, FUNCTION 1 m.cmp(bigint, bigint)",
        "CREATE OPERATOR FAMILY m.spying USING btree",
        states=DENIED,
    ),
    "a domain that checks": tries(
        TELL,
        "CREATE DOMAIN m.seen AS bigint CHECK (m.tell(VALUE))",
        f"SELECT solde::m.seen FROM {V} WHERE id < 50",
        "CREATE DOMAIN m.guess AS bigint CHECK (VALUE <> @raw@)",
        f"SELECT count(solde::m.guess) FROM {V}",
    ),
    "a cast of one's own": tries(
        "CREATE TYPE m.wrapped AS (inside text)",
        function("m.wrap", "bigint", "RAISE NOTICE '%', $1; RETURN ROW ($1::text);", "m.wrapped"),
        "CREATE CAST (bigint AS m.wrapped) WITH FUNCTION m.wrap(bigint) AS IMPLICIT",
        f"SELECT solde::m.wrapped FROM {V}",
    ),
    "an aggregate of one's own": tries(
        function("m.keep", "text, bigint", "RAISE NOTICE '%', $2; RETURN $1 || $2;", "text"),
        "CREATE AGGREGATE m.spy (bigint) (SFUNC = m.keep, STYPE = text, INITCOND = '')",
        f"SELECT length(m.spy(solde)), length(m.spy(DISTINCT solde)) FROM {V}",
        f"SELECT m.spy(solde) FILTER (WHERE ville = 'Brest') FROM {V} GROUP BY ville",
    ),
    "a window aggregate that moves back": tries(
        function("m.add", "bigint, bigint", "RAISE NOTICE '+%', $2; RETURN $1 + $2;", "bigint"),
        function("m.sub", "bigint, bigint", "RAISE NOTICE '-%', $2; RETURN $1 - $2;", "bigint"),
        "CREATE AGGREGATE m.slide (bigint) (SFUNC = m.add, STYPE = bigint, INITCOND = 0,"
        " MSFUNC = m.add, MINVFUNC = m.sub, MSTYPE = bigint, MINITCOND = 0)",
        f"SELECT m.slide(solde) OVER (ORDER BY id ROWS 2 PRECEDING) FROM {V} WHERE id < 99",
        f"SELECT lag(solde) OVER w, nth_value(solde, 2) OVER w FROM {V} WINDOW w AS (ORDER BY id)",
    ),
    "a hypothetical-set aggregate": tries(
        f"SELECT rank(@raw@) WITHIN GROUP (ORDER BY solde) FROM {V}",
        f"SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY naissance), mode() WITHIN GROUP"
        f" (ORDER BY vu_le) FROM {V}",
    ),
}

STATISTICS: Final = {
    "published statistics": tries(
        "SELECT * FROM pg_stats WHERE schemaname !~ '^(pg_catalog|information_schema)$'",
        "SELECT * FROM pg_stats_ext",
        "SELECT * FROM pg_stats_ext_exprs",
    ),
    "statistics as stored": tries(
        "SELECT * FROM pg_statistic",
        "SELECT * FROM pg_statistic_ext_data",
        "TABLE pg_catalog.pg_largeobject",
        states=DENIED,
    ),
    "statistics of the tables behind": tries(
        "ANALYZE clinic.patient",
        f"ANALYZE {V}",
        f"CREATE STATISTICS m.two ON solde, ville FROM {V}",
        "CREATE STATISTICS m.base ON solde, ville FROM clinic.patient",
        "DROP STATISTICS clinic.together",
        "ALTER STATISTICS clinic.together SET STATISTICS 10000",
        f"ALTER TABLE {V} ALTER COLUMN solde SET STATISTICS 10000",
        states="42501 42809",
    ),
    "the plan of a guess at a marked column": tries(
        f"EXPLAIN SELECT * FROM {V} WHERE solde = @raw@",
        f"EXPLAIN SELECT * FROM {V} WHERE solde > @raw@",
        f"EXPLAIN SELECT * FROM {V} WHERE solde BETWEEN @mine@ - 2 AND @mine@ + 2",
        f"EXPLAIN SELECT * FROM {M} WHERE trunc(valeur) = 10007",
        f"EXPLAIN SELECT * FROM {V} WHERE naissance IN ('@born@', '1901-01-04')",
        f"EXPLAIN SELECT DISTINCT solde, naissance FROM {V}",
        f"EXPLAIN SELECT * FROM {V} AS a JOIN {V} AS b USING (solde)",
        f"EXPLAIN SELECT * FROM {V} WHERE solde IS NULL OR vu_le IS DISTINCT FROM NULL",
    ),
    "a plan with everything in it": tries(
        f"{PLAN} SELECT * FROM {V} AS p JOIN {M} AS r ON r.patient_id = p.id",
        f"EXPLAIN (ANALYZE, VERBOSE, BUFFERS, WAL, FORMAT JSON) SELECT * FROM {V}",
        f"EXPLAIN (VERBOSE, FORMAT YAML) SELECT * FROM {M} WHERE valeur > 10000",
        twin=False,  # times
    ),
    "rows removed by a filter, counted in the plan": tries(
        f"{PLAN} SELECT * FROM {V} WHERE solde = @raw@",
        f"{PLAN} SELECT * FROM {V} WHERE solde < @raw@ AND naissance < '@born@'",
        f"{PLAN} SELECT * FROM {M} WHERE valeur > 11000",
    ),
    "the estimate for a decoy's town": tries(
        f"EXPLAIN SELECT * FROM {V} WHERE ville = '@decoytown@'",
        f"EXPLAIN SELECT * FROM {V} WHERE ville LIKE 'Zuyd%'",
    ),
    "the estimate for a range of decoys' keys": tries(
        *(f"EXPLAIN SELECT * FROM {V} WHERE id > {bound}" for bound in range(1950, 2150, 10)),
    ),
    "the estimate for a decoy's name": tries(
        f"EXPLAIN SELECT * FROM {V} WHERE nom = '@decoy@'",
        f"EXPLAIN SELECT * FROM {V} WHERE nom > 'leurre-v' AND nom < 'leurre-w'",
    ),
    "the estimate for a join with guessed decoys": tries(
        "CREATE TABLE m.guess AS SELECT 2000 + i AS id, '@decoytown@' AS ville"
        " FROM generate_series(1, 120) AS i",
        "ANALYZE m.guess",
        f"EXPLAIN SELECT * FROM {V} JOIN m.guess USING (ville)",
        f"EXPLAIN SELECT * FROM {V} JOIN m.guess USING (id)",
    ),
    "statistics of one's own copies": tries(
        f"CREATE TABLE m.copy AS SELECT * FROM {V}",
        "ALTER TABLE m.copy ALTER COLUMN solde SET STATISTICS 10000",
        "CREATE STATISTICS m.deep (mcv) ON ville, solde FROM m.copy",
        "CREATE INDEX ON m.copy ((solde / 1000))",
        "ANALYZE m.copy",
        "SELECT * FROM pg_stats WHERE schemaname = 'm' ORDER BY tablename, attname",
        "SELECT * FROM pg_stats_ext WHERE schemaname = 'm'",
    ),
    "counters of the server": tries(
        "BEGIN",
        f"SELECT count(*) FROM {V} WHERE id IN (@id@, @decoyid@, 1001)",
        "SELECT relname, seq_scan, seq_tup_read, idx_scan, idx_tup_fetch"
        " FROM pg_stat_xact_all_tables"
        " WHERE schemaname IN ('clinic', 'balise', 'balise_decoy') ORDER BY relid",
        "SELECT relname, pg_stat_get_xact_tuples_fetched(oid), pg_stat_get_xact_numscans(oid)"
        " FROM pg_class WHERE relnamespace::regnamespace::text ~ 'clinic|balise' ORDER BY oid",
        "COMMIT",
        "SELECT relname, heap_blks_read >= 0 FROM pg_statio_all_tables"
        " WHERE relname = 'patient' ORDER BY relid",
    ),
    "counting turned on again": tries(
        "SET track_counts = on",
        "ALTER ROLE mallory SET track_counts = on",
        "DO $$ BEGIN EXECUTE format('ALTER ROLE mallory IN DATABASE %I RESET track_counts',"
        " current_database()); END $$",
        "DO $$ BEGIN EXECUTE format('ALTER ROLE mallory IN DATABASE %I RESET ALL',"
        " current_database()); END $$",
        ("mallory:2", "SHOW track_counts"),
        ("mallory:2", "BEGIN"),
        ("mallory:2", f"SELECT count(*) FROM {V} WHERE id IN (1001, 2001)"),
        (
            "mallory:2",
            (
                "SELECT pg_stat_get_xact_numscans(oid), pg_stat_get_xact_tuples_fetched(oid)"
                " FROM pg_class WHERE relnamespace::regnamespace::text = 'balise_decoy'"
            ),
        ),
        states=DENIED,
    ),
    "counting turned on with the connection": tries(
        ("mallory -c track_counts=on", "SHOW track_counts"), states="refused"
    ),
    "statements of others in the server's statistics": tries(
        ("victim", f"SELECT * FROM {V} WHERE solde = @theirs@"),
        "SELECT usename, query, state FROM pg_stat_activity WHERE usename <> 'mallory'",
        "SELECT pg_stat_get_backend_activity(b) FROM pg_stat_get_backend_idset() AS b",
        "SELECT pg_stat_get_activity(NULL)",
        twin=False,  # processes come and go
    ),
    "statements of others with pg_stat_statements": tries(
        ("dba", "CREATE EXTENSION pg_stat_statements"),
        "SELECT * FROM pg_stat_statements",
        states="55000",
        changes=True,
    ),
    "sizes of what is behind": tries(
        "SELECT relname, pg_relation_size(oid), relpages, reltuples, relallvisible FROM pg_class"
        " WHERE relnamespace::regnamespace::text ~ 'clinic|balise' AND relkind IN ('r', 'i')",
        f"SELECT sum(pg_column_size(solde)), sum(pg_column_size(p)) FROM {V} AS p",
        twin=False,  # the sizes tell how many decoys there are in all, not whose or which
    ),
}

ERRORS: Final = {
    "a division that fails at the stored value": tries(
        f"SELECT 1 / (solde - @raw@) FROM {V} WHERE id = @id@",
        f"SELECT count(1 / (solde - @raw@)) FROM {V}",
    ),
    "a division that fails at every row": tries(
        f"SELECT 1 / (solde - solde) FROM {V}", states="22012"
    ),
    "casts that quote what they fail on": tries(
        f"SELECT solde::smallint FROM {V}",
        f"SELECT ('x' || solde)::integer FROM {V}",
        f"SELECT (p.*)::text::integer FROM {V} AS p",
        f"SELECT vu_le::text::date::text::integer FROM {V}",
        f"SELECT naissance::text::inet FROM {V}",
        f"SELECT solde::text::uuid FROM {V} ORDER BY solde DESC",
        f"SELECT to_date(solde::text, 'YYYYMMDD') FROM {V}",
        f"SELECT xmlparse(DOCUMENT row_to_json(p)::text) FROM {V} AS p",
        f"SELECT solde::text::json -> 'a', ('[' || solde)::json FROM {V}",
        states="22003 22P02 22008 2200M",
    ),
    "a constraint that quotes what it refuses": tries(
        f"CREATE TABLE m.one AS SELECT * FROM {V} LIMIT 0",
        "ALTER TABLE m.one ADD CHECK (solde < 5)",
        f"INSERT INTO m.one SELECT * FROM {V}",
        states="23514",
    ),
    "a unique key that quotes what it refuses": tries(
        "CREATE TABLE m.one (solde bigint PRIMARY KEY)",
        f"INSERT INTO m.one SELECT solde FROM {V}",
        f"INSERT INTO m.one SELECT solde FROM {V}",
        f"INSERT INTO m.one SELECT solde FROM {V} ON CONFLICT (solde) DO UPDATE SET solde = 1",
        states="23505",
    ),
    "a foreign key to the stored table": tries(
        "CREATE TABLE m.ref (id integer REFERENCES clinic.patient)",
        "CREATE TABLE m.ref (nom text REFERENCES clinic.patient (nom))",
        f"CREATE TABLE m.ref (id integer REFERENCES {V} (id))",
        states="42501 42809",
    ),
    "a constraint trigger from the stored table": tries(
        "CREATE TABLE m.ref (id integer)",
        "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON m.ref FROM clinic.patient"
        ' FOR EACH ROW EXECUTE FUNCTION "RI_FKey_check_ins"(c, ref, patient, id, id)',
        states=DENIED,
    ),
    "an exclusion constraint that quotes": tries(
        "CREATE TABLE m.range (s int8range, EXCLUDE USING gist (s WITH &&))",
        f"INSERT INTO m.range SELECT int8range(solde - 900000, solde + 900000) FROM {V}",
        states="23P01",
    ),
    "diagnostics stacked in a function": tries(
        "DO $$ DECLARE a text; b text; c text; BEGIN PERFORM 1 / (solde - solde) FROM"
        f" {V}; EXCEPTION WHEN OTHERS THEN GET STACKED DIAGNOSTICS a = PG_EXCEPTION_CONTEXT,"
        " b = PG_EXCEPTION_DETAIL, c = MESSAGE_TEXT; RAISE NOTICE '% % %', a, b, c; END $$",
        "DO $$ DECLARE a text; BEGIN PERFORM * FROM marked_care.patient;"
        " EXCEPTION WHEN OTHERS THEN GET STACKED DIAGNOSTICS a = PG_EXCEPTION_CONTEXT;"
        " RAISE NOTICE '%', a; END $$",
    ),
    "names that are there or not": tries(
        "SELECT to_regclass('balise.codeword'), to_regclass('clinic.patient')",
        "SELECT 'balise_decoy.patient'::regclass",
        states=DENIED,
    ),
    "definitions": tries(
        f"SELECT pg_get_viewdef('{V}'), pg_get_viewdef('{M}', true)",
        "SELECT pg_get_functiondef(p.oid) FROM pg_proc AS p WHERE pronamespace ="
        " (SELECT oid FROM pg_namespace WHERE nspname = 'balise')",
        "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef",
        "SELECT pg_get_expr(polqual, polrelid) FROM pg_policy",
        "SELECT pg_get_constraintdef(oid), conbin FROM pg_constraint",
        "SELECT pg_get_indexdef(indexrelid), pg_get_expr(indexprs, indrelid) FROM pg_index"
        " WHERE indexrelid >= 16384",
        "SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext",
        "SELECT pg_get_ruledef(oid), ev_action FROM pg_rewrite WHERE oid >= 16384",
        "SELECT pg_describe_object(classid, objid, objsubid), pg_identify_object(classid, objid,"
        " objsubid) FROM pg_depend WHERE objid >= 16384",
        "SELECT attmissingval, attoptions, attfdwoptions FROM pg_attribute WHERE attrelid >= 16384",
        "SELECT * FROM pg_description WHERE objoid >= 16384",
        "SELECT * FROM pg_db_role_setting AS s JOIN pg_roles AS r ON r.oid = s.setrole"
        " WHERE rolname = 'mallory' AND setdatabase = 0",
        "SELECT * FROM pg_extension",
    ),
    "privileges asked about": tries(
        "SELECT has_table_privilege(c.oid, 'SELECT'), has_any_column_privilege(c.oid, 'SELECT')"
        " FROM pg_class AS c WHERE relnamespace::regnamespace::text ~ 'clinic|balise'"
        " ORDER BY c.oid",
        "SELECT has_table_privilege('victim', c.oid, 'SELECT'), relacl FROM pg_class AS c"
        " WHERE relnamespace::regnamespace::text ~ 'clinic|balise' ORDER BY c.oid",
        "SELECT row_security_active(c.oid) FROM pg_class AS c WHERE relname = 'patient'"
        " ORDER BY relnamespace::regnamespace::text",
        "SELECT pg_has_role('balise_owner', 'MEMBER')",
    ),
    "sequences of the catalog": tries(
        "SELECT currval('balise.policy_version_seq')",
        "SELECT nextval('balise.relation_relation_id_seq')",
        "SELECT lastval()",
        "SELECT last_value FROM balise.relation_relation_id_seq",
        "SELECT * FROM pg_sequences",
        "SELECT pg_sequence_last_value(oid) FROM pg_class WHERE relkind = 'S'",
        states=f"{DENIED} 55000",
    ),
}

ROWS: Final = {
    "system columns": tries(
        f"SELECT ctid FROM {V}",
        f"SELECT xmin, cmin, xmax FROM {V}",
        f"SELECT tableoid FROM {V}",
        f"SELECT p.ctid FROM {V} AS p, LATERAL (SELECT p.ctid) AS x",
        f"SELECT * FROM {V} WHERE ctid = '(0,1)'",
        f"SELECT currtid2('{V}', '(0,1)')",
        states=f"{NO_COLUMN} XX000",
    ),
    "names inside the view": tries(
        f"SELECT t.solde FROM {V}",
        f"SELECT s.word FROM {V}",
        f"SELECT h1, a1, b1 FROM {V}",
        f"SELECT {V}.balise_recipient FROM {V}",
        f"SELECT (p).word FROM {V} AS p",
        states=f"{UNKNOWN} {NO_COLUMN}",
    ),
    "lateral and correlated subqueries": tries(
        TELL,
        f"SELECT x FROM {V} AS p, LATERAL (SELECT m.tell(p.solde) AS x OFFSET 0) AS l",
        f"SELECT (SELECT max(r.valeur) FROM {M} AS r WHERE r.patient_id = p.id) FROM {V} AS p",
        f"SELECT id FROM {V} AS p WHERE EXISTS (SELECT FROM {V} AS q WHERE q.solde = p.solde"
        " AND m.tell(q))",
        f"SELECT id FROM {V} WHERE solde = ANY (SELECT @raw@ UNION ALL SELECT @mine@)",
    ),
    "a recursive query": tries(
        TELL,
        f"WITH RECURSIVE w AS (SELECT id, solde FROM {V} WHERE id = 1 UNION ALL SELECT p.id,"
        f" p.solde FROM w JOIN {V} AS p ON p.id = w.id + 1 AND m.tell(p.solde)) SELECT * FROM w",
        f"WITH RECURSIVE w (s) AS (SELECT @raw@ UNION SELECT solde FROM w JOIN {V} ON solde = s)"
        " SELECT count(*) FROM w",
    ),
    "materialised and inlined common tables": tries(
        TELL,
        f"WITH w AS MATERIALIZED (SELECT * FROM {V}) SELECT id FROM w WHERE m.tell(w)",
        f"WITH w AS NOT MATERIALIZED (SELECT * FROM {V}) SELECT id FROM w WHERE m.tell(solde)",
    ),
    "locking the rows": tries(
        f"SELECT * FROM {V} FOR UPDATE",
        f"SELECT * FROM {V} FOR SHARE",
        f"SELECT * FROM {M} FOR KEY SHARE SKIP LOCKED",
        f"LOCK TABLE {V} IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE clinic.patient IN ACCESS SHARE MODE",
        states=f"{DENIED} {NO_TRANSACTION}",
    ),
    "writing through the view": tries(
        f"INSERT INTO {V} (id) VALUES (1) RETURNING *",
        f"UPDATE {V} SET solde = solde RETURNING *",
        f"DELETE FROM {V} RETURNING *",
        f"MERGE INTO {V} AS v USING (SELECT 1 AS id) AS s ON s.id = v.id WHEN MATCHED THEN DELETE",
        f"INSERT INTO {V} (id) VALUES (1) ON CONFLICT (id) DO NOTHING",
        f"TRUNCATE {V}",
        states=f"{WRONG_KIND} {NOT_SUPPORTED} 55000",
    ),
    "writing with a common table": tries(
        f"CREATE TABLE m.sink AS SELECT * FROM {V} LIMIT 0",
        f"WITH w AS (INSERT INTO m.sink SELECT * FROM {V} RETURNING *) SELECT * FROM w",
        f"WITH w AS (UPDATE m.sink AS s SET solde = p.solde FROM {V} AS p WHERE p.id = s.id"
        " RETURNING p.*) SELECT * FROM w",
        f"MERGE INTO m.sink AS s USING {V} AS p ON p.id = s.id AND p.solde = @raw@"
        " WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (p.id, 'new')",
        "SELECT count(*) FROM m.sink",
    ),
    "sampling": tries(
        f"SELECT * FROM {V} TABLESAMPLE SYSTEM (100)",
        f"SELECT * FROM {V} TABLESAMPLE BERNOULLI (100) REPEATABLE (1)",
        states=NOT_SUPPORTED,
    ),
    "grouping sets": tries(
        f"SELECT ville, solde, vu_le, count(*) FROM {V} GROUP BY CUBE (ville, solde, vu_le)",
        f"SELECT grouping(solde), sum(solde) FROM {V} GROUP BY GROUPING SETS ((solde), ())",
    ),
    "set operations with guesses": tries(
        f"SELECT id, solde FROM {V} INTERSECT SELECT @id@, @raw@",
        f"SELECT @id@, @raw@ EXCEPT SELECT id, solde FROM {V}",
        f"SELECT solde FROM {V} UNION SELECT @raw@ ORDER BY 1",
        f"SELECT nom FROM (VALUES ('@decoy@')) AS g (nom) INTERSECT ALL SELECT nom FROM {V}",
    ),
    "a guess at every stored value near one's own": tries(
        f"SELECT p.id, g FROM {V} AS p CROSS JOIN generate_series(-3, 3) AS g"
        " WHERE EXISTS (SELECT FROM marked.patient AS q WHERE q.solde = p.solde + g)",
        f"SELECT count(*) FROM {V} WHERE solde = @raw@",
        f"SELECT count(*) FROM {V} WHERE id = @id@ AND naissance = '@born@'",
    ),
    "reading a thousand times": tries(
        f"SELECT count(DISTINCT solde), avg(solde) FROM {V},"
        f" generate_series(1, 1000) WHERE id = @id@",
        f"SELECT n, (SELECT sum(p.solde) FROM {V} AS p WHERE p.id = @id@ AND n > 0)"
        " FROM generate_series(1, 50) AS n",
        f"DO $$ DECLARE a numeric := 0; i int; BEGIN FOR i IN 1..200 LOOP a := a +"
        f" (SELECT solde FROM {V} WHERE id = @id@); END LOOP; RAISE NOTICE '%', a / 200; END $$",
    ),
    "the same cell by different paths": tries(
        "SET jit = off",  # switched-off paths cost so much that it would compile everything
        *(
            step
            for setting in (
                "seqscan",
                "indexscan",
                "bitmapscan",
                "nestloop",
                "hashjoin",
                "material",
            )
            for step in (
                f"SET enable_{setting} = off",
                f"SELECT * FROM {V} WHERE id IN (@id@, 1001) AND solde >= @raw@ - 1",
                f"SELECT * FROM {V} AS p JOIN {M} AS r ON r.patient_id = p.id WHERE p.id < 4",
            )
        ),
    ),
    "whole rows in every dress": tries(
        f"SELECT p, to_jsonb(p), hashtext(p::text), md5(p::text) FROM {V} AS p",
        f"SELECT array_agg(p), json_agg(p), string_agg(p::text, '|') FROM {V} AS p",
        f"SELECT jsonb_path_query(to_jsonb(p), '$.*') FROM {V} AS p",
        f"SELECT jsonb_populate_record(p, '{{\"solde\": null}}') FROM {V} AS p",
        f"SELECT record_image_eq(p, q) FROM {V} AS p JOIN {V} AS q USING (id) WHERE id < 5",
        f"SELECT int8send(solde), date_send(naissance), record_send(p) FROM {V} AS p",
    ),
}

FUNCTIONS: Final = {
    "queries as XML": tries(
        f"SELECT query_to_xml('SELECT * FROM {V}', true, false, '')",
        f"SELECT table_to_xml('{M}', false, true, '')",
        "SELECT schema_to_xml('marked', true, false, '')",
        "SELECT database_to_xmlschema(true, false, '')",
        f"DECLARE c CURSOR WITH HOLD FOR SELECT * FROM {V}",
        "SELECT cursor_to_xml('c', 100, false, true, '')",
    ),
    "hidden tables as XML": tries(
        "SELECT query_to_xml('TABLE balise.codeword', true, false, '')",
        "SELECT table_to_xml('clinic.patient', true, false, '')",
        "SELECT schema_to_xml('balise', true, false, '')",
        "SELECT schema_to_xml('clinic', true, false, '')",
        states=DENIED,
    ),
    "functions that take SQL": tries(
        f"SELECT * FROM ts_stat('SELECT to_tsvector(nom || solde) FROM {V}')",
        "SELECT * FROM ts_stat('SELECT to_tsvector(nom) FROM balise_decoy.patient')",
        f"SELECT ts_rewrite('a'::tsquery, 'SELECT to_tsquery(nom), ''b''::tsquery FROM {V}')",
        states=DENIED,
    ),
    "functions that take SQL, of extensions": tries(
        ("dba", "CREATE EXTENSION tablefunc; CREATE EXTENSION xml2; CREATE EXTENSION pgcrypto"),
        "SELECT * FROM public.crosstab('SELECT id, 1, solde FROM clinic.patient', 1)"
        " AS (a int, b int)",
        "SELECT * FROM public.connectby('clinic.patient', 'id', 'id', '1', 0) AS t (a int, b int,"
        " c int)",
        "SELECT * FROM public.xpath_table('id', 'nom', 'clinic.patient', '/', 'true')"
        " AS t (a text, b text)",
        f"SELECT public.digest(p::text, 'sha256') FROM {V} AS p",
        states=DENIED,
        changes=True,
    ),
    "extensions that look below": tries(
        (
            "dba",
            (
                "CREATE EXTENSION pageinspect; CREATE EXTENSION pgstattuple;"
                "CREATE EXTENSION pgrowlocks;"
                "CREATE EXTENSION pg_prewarm; CREATE EXTENSION pg_buffercache;"
                "CREATE EXTENSION amcheck;"
                "CREATE EXTENSION pg_visibility; CREATE EXTENSION pg_freespacemap;"
                "CREATE EXTENSION pg_walinspect; CREATE EXTENSION pg_surgery"
            ),
        ),
        "SELECT public.get_raw_page(oid::regclass::text, 0) FROM pg_class"
        " WHERE relname = 'codeword'",
        "SELECT public.get_raw_page('balise.codeword', 0)",
        "SELECT * FROM public.pgstattuple('balise_decoy.patient')",
        "SELECT * FROM public.pgrowlocks('clinic.patient')",
        "SELECT public.pg_prewarm(oid) FROM pg_class WHERE relname = 'codeword'",
        "SELECT * FROM public.pg_buffercache",
        "SELECT public.bt_index_check(oid) FROM pg_class WHERE relname = 'codeword_pkey'",
        "SELECT * FROM public.pg_get_wal_records_info_till_end_of_wal('0/1')",
        "SELECT public.heap_force_freeze(oid, ARRAY['(0,1)'::tid]) FROM pg_class"
        " WHERE relname = 'codeword'",
        states=DENIED,
        changes=True,
    ),
    "another server that is this one": tries(
        (
            "dba",
            "CREATE EXTENSION dblink; CREATE EXTENSION postgres_fdw; CREATE EXTENSION file_fdw",
        ),
        "SELECT * FROM public.dblink('dbname=' || current_database() || ' user=postgres',"
        " 'TABLE balise.codeword') AS t (a name, b text, c bytea)",
        "SELECT public.dblink_connect_u('x', 'user=victim')",
        "CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw",
        "CREATE SERVER file FOREIGN DATA WRAPPER file_fdw",
        "CREATE USER MAPPING FOR mallory SERVER here",
        "IMPORT FOREIGN SCHEMA balise FROM SERVER here INTO m",
        states=f"{DENIED} 2F003 42704",
        changes=True,
    ),
    "extensions of one's own choice": tries(
        "CREATE EXTENSION hstore",
        "CREATE EXTENSION pgcrypto SCHEMA m",
        "CREATE EXTENSION dblink SCHEMA m",
        "CREATE EXTENSION pageinspect",
        "CREATE LANGUAGE plpython3u",
        "CREATE FOREIGN DATA WRAPPER w",
        "ALTER EXTENSION pgbalise DROP TABLE balise.codeword",
        "ALTER EXTENSION pgbalise UPDATE",
        "DROP EXTENSION pgbalise",
        states=f"{DENIED} 42710",
    ),
    "functions of pgbalise": tries(
        "SELECT balise.refuse()",
        "SELECT balise.enrol('mallory', 'care', '/etc/hostname', true)",
        "SELECT balise.revoke('victim')",
        "SELECT balise.apply('/etc/hostname')",
        f"SELECT * FROM balise.trace('{V}', 'clinic.patient', '/etc/hostname')",
        "SELECT balise.load_library()",
        states=DENIED,
    ),
    "files": tries(
        "SELECT pg_read_file('postgresql.auto.conf')",
        "SELECT pg_read_binary_file(pg_relation_filepath(oid)) FROM pg_class"
        " WHERE relname = 'codeword'",
        "SELECT pg_ls_dir('base')",
        "SELECT * FROM pg_ls_waldir()",
        "SELECT * FROM pg_ls_tmpdir()",
        "SELECT pg_stat_file('base')",
        "SELECT pg_current_logfile()",
        "SELECT * FROM pg_hba_file_rules",
        "SELECT lo_import('/etc/hostname')",
        "COPY clinic.patient TO '/tmp/pgbalise-attempt'",
        f"COPY (SELECT * FROM {V}) TO PROGRAM 'cat'",
        "CREATE TEMP TABLE f (a text)",
        "COPY f FROM '/etc/hostname'",
        "COPY f FROM PROGRAM 'id'",
        states=DENIED,
    ),
    "large objects": tries(
        f"SELECT lo_from_bytea(20260101, string_agg(p::text, ';')::bytea) FROM {V} AS p",
        "SELECT convert_from(lo_get(20260101), 'UTF8')",
        "GRANT SELECT ON LARGE OBJECT 20260101 TO PUBLIC",
        ("victim", "SELECT lo_put(20260101, 0, 'x')"),
        "SELECT convert_from(lo_get(20260101), 'UTF8')",
        "SELECT lo_unlink(20260101)",
        "SELECT lo_export(20260101, '/tmp/pgbalise-attempt')",
        states=DENIED,
    ),
    "copying out": tries(
        f"COPY (SELECT * FROM {V}) TO STDOUT",
        f"COPY (SELECT p FROM {M} AS p) TO STDOUT (FORMAT binary)",
        f"COPY {V} TO STDOUT",
        "COPY clinic.patient TO STDOUT",
        "COPY (SELECT * FROM balise_decoy.patient) TO STDOUT",
        f"COPY {V} FROM STDIN",
        states=f"{DENIED} {WRONG_KIND}",
    ),
    "an anonymous block": tries(
        f"DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM {V} LOOP"
        " RAISE NOTICE '%', r; END LOOP; END $$",
        f"DO $$ DECLARE r {V}; BEGIN SELECT * INTO r FROM {V} WHERE id = @id@;"
        " ASSERT r.solde <> @raw@; RAISE NOTICE '%', to_json(r); END $$",
        "DO $$ BEGIN EXECUTE 'TABLE clinic.patient'; END $$",
        "DO LANGUAGE plpython3u 'plpy.notice(GD)'",
        states=DENIED,
    ),
    "a binary cursor": tries(
        "BEGIN",
        f"DECLARE c BINARY CURSOR FOR SELECT solde, naissance, p FROM {V} AS p",
        "FETCH ALL IN c",
        "COMMIT",
    ),
}

OBJECTS: Final = {
    "a view that asks": tries(
        TELL,
        f"CREATE VIEW m.asker AS SELECT * FROM {V} WHERE m.tell(solde)",
        "SELECT * FROM m.asker WHERE id > 250",
        f"CREATE VIEW m.barrier WITH (security_barrier) AS SELECT * FROM {V}",
        "SELECT id FROM m.barrier WHERE m.tell(naissance)",
    ),
    "a view with its caller's rights": tries(
        f"CREATE VIEW m.invoked WITH (security_invoker) AS SELECT * FROM {V}",
        "SELECT * FROM m.invoked",
        f"ALTER VIEW {V} SET (security_invoker)",
        f"ALTER VIEW {V} RESET (security_barrier)",
        "CREATE VIEW m.raw WITH (security_invoker) AS SELECT * FROM clinic.patient",
        states=DENIED,
    ),
    "a view over hidden tables": tries(
        "CREATE VIEW m.a AS SELECT * FROM clinic.patient",
        "CREATE VIEW m.b AS SELECT * FROM balise.codeword",
        "CREATE VIEW m.c AS SELECT * FROM marked_care.patient",
        states=DENIED,
    ),
    "a view given to its owner": tries(
        f"CREATE VIEW m.gift AS SELECT * FROM {V}",
        "ALTER VIEW m.gift OWNER TO balise_owner",
        "ALTER SCHEMA m OWNER TO balise_owner",
        "REASSIGN OWNED BY mallory TO balise_owner",
        "CREATE SCHEMA n AUTHORIZATION balise_owner",
        states=DENIED,
    ),
    "a definer function given to the views' owner": tries(
        "CREATE FUNCTION m.gift() RETURNS SETOF bytea LANGUAGE sql SECURITY DEFINER"
        " AS 'SELECT NULL::bytea'",
        "ALTER FUNCTION m.gift() OWNER TO balise_owner",
        states=DENIED,
    ),
    "triggers instead of writing": tries(
        f"CREATE VIEW m.mine AS SELECT * FROM {V}",
        function("m.moved", "", "RAISE NOTICE '% %', OLD, NEW; RETURN NEW;", "trigger"),
        "CREATE TRIGGER t INSTEAD OF UPDATE ON m.mine FOR EACH ROW EXECUTE FUNCTION m.moved()",
        "UPDATE m.mine SET solde = solde + 500000 RETURNING *",
        f"CREATE TRIGGER t INSTEAD OF UPDATE ON {V} FOR EACH ROW EXECUTE FUNCTION m.moved()",
        states=DENIED,
    ),
    "rules instead of writing": tries(
        f"CREATE VIEW m.mine AS SELECT * FROM {V}",
        f"CREATE TABLE m.sink AS SELECT * FROM {V} LIMIT 0",
        "CREATE RULE r AS ON DELETE TO m.mine DO INSTEAD INSERT INTO m.sink SELECT OLD.*",
        "DELETE FROM m.mine WHERE id < 100",
        "TABLE m.sink",
        f"CREATE RULE r AS ON INSERT TO {V} DO ALSO SELECT 1",
        f'CREATE OR REPLACE RULE "_RETURN" AS ON SELECT TO {V} DO INSTEAD SELECT 1',
        "CREATE RULE r AS ON INSERT TO clinic.patient DO ALSO SELECT NEW.*",
        states=DENIED,
    ),
    "materialised views": tries(
        f"CREATE MATERIALIZED VIEW m.kept AS SELECT * FROM {V}",
        "CREATE UNIQUE INDEX ON m.kept (id)",
        "CREATE INDEX by_solde ON m.kept (solde)",
        "CLUSTER m.kept USING by_solde",
        "REINDEX TABLE m.kept",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY m.kept",
        "ANALYZE m.kept",
        "SELECT * FROM m.kept WHERE solde = @raw@",
        "SELECT ctid, * FROM m.kept",
        "SELECT most_common_vals, histogram_bounds FROM pg_stats WHERE tablename = 'kept'"
        " ORDER BY attname",
    ),
    "a materialised view that another fills": tries(
        f"CREATE MATERIALIZED VIEW m.trap AS SELECT * FROM {V} WITH NO DATA",
        ("dba", "GRANT USAGE ON SCHEMA m TO victim"),
        ("victim", "REFRESH MATERIALIZED VIEW m.trap"),
        ("victim", "SELECT * FROM m.trap"),
        "GRANT ALL ON m.trap TO victim",
        "TABLE m.trap",
        states="55000",
    ),
    "an index on a function, kept by the superuser": tries(
        "CREATE FUNCTION m.peek(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
        f" RAISE NOTICE '%', (SELECT string_agg(p::text, ';') FROM {V} AS p); RETURN $1;"
        " EXCEPTION WHEN OTHERS THEN RETURN $1; END $$",
        "CREATE TABLE m.bait (i integer)",
        "INSERT INTO m.bait VALUES (1), (2)",
        "CREATE INDEX ON m.bait (m.peek(i))",
        ("dba", "VACUUM ANALYZE m.bait"),
        ("dba", "REINDEX TABLE m.bait"),
        "SELECT * FROM pg_stats WHERE schemaname = 'm' ORDER BY tablename, attname",
    ),
    "a table like the view": tries(
        f"CREATE TABLE m.twin (LIKE {V} INCLUDING ALL)",
        f"CREATE TABLE m.heir () INHERITS ({V})",
        "CREATE TABLE m.heir () INHERITS (clinic.patient)",
        "CREATE TABLE m.heir (LIKE clinic.patient)",
        f"CREATE TABLE m.parts (LIKE {V}) PARTITION BY RANGE (id)",
        "ALTER TABLE m.parts ATTACH PARTITION clinic.patient DEFAULT",
        f"CREATE TABLE m.typed OF {V}",
        states=f"{DENIED} {WRONG_KIND}",
    ),
    "generated columns and defaults": tries(
        "CREATE FUNCTION m.get(integer) RETURNS text LANGUAGE sql IMMUTABLE"
        f" AS 'SELECT p::text FROM {V} AS p WHERE id = $1'",
        "CREATE TABLE m.gen (id integer, p text GENERATED ALWAYS AS (m.get(id)) STORED)",
        "INSERT INTO m.gen SELECT generate_series(1, 300)",
        "TABLE m.gen",
        "CREATE TABLE m.other (id integer DEFAULT m.get(1)::integer)",
        "INSERT INTO m.other DEFAULT VALUES",
        states="22P02",
    ),
    "comments and labels": tries(
        f"COMMENT ON VIEW {V} IS 'mine'",
        "COMMENT ON COLUMN balise.codeword.word IS 'mine'",
        f"SECURITY LABEL ON VIEW {V} IS 'mine'",
        f"ALTER VIEW {V} RENAME COLUMN solde TO x",
        f"ALTER VIEW {V} SET SCHEMA m",
        f"CREATE OR REPLACE VIEW {V} AS SELECT 1",
        f"DROP VIEW {V}",
        f"GRANT SELECT ON {V} TO outsider",
        "ALTER DEFAULT PRIVILEGES FOR ROLE balise_owner GRANT SELECT ON TABLES TO mallory",
        states=f"{DENIED} 22023",
    ),
    "replication and events": tries(
        "CREATE PUBLICATION p FOR TABLE clinic.patient",
        "CREATE PUBLICATION p FOR ALL TABLES",
        "CREATE SUBSCRIPTION s CONNECTION 'dbname=x' PUBLICATION p",
        "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
        "SELECT pg_logical_slot_peek_changes('s', NULL, NULL)",
        function("m.event", "", "RETURN;", "event_trigger"),
        "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION m.event()",
        "SELECT pg_logical_emit_message(true, 'a', 'b') IS NULL",
        states=DENIED,
    ),
    "a replication connection": tries(
        ("mallory:wal", "SELECT 1"),
        "SELECT pg_switch_wal()",
        "SELECT pg_backup_start('x')",
        states=DENIED,
    ),
    "a text search configuration and a collation": tries(
        "CREATE TEXT SEARCH CONFIGURATION m.c (COPY = simple)",
        f"SELECT to_tsvector('m.c', nom || ' ' || solde) FROM {V}",
        'CREATE COLLATION m.odd (provider = icu, locale = "und", deterministic = false)',
        'CREATE COLLATION m.same FROM "C"',
        f"SELECT nom FROM {V} WHERE nom COLLATE m.same > 'leurre' ORDER BY nom COLLATE m.same",
        "CREATE CONVERSION m.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
        "CREATE TEXT SEARCH TEMPLATE m.t (LEXIZE = dsimple_lexize)",
        states=DENIED,
    ),
}

SHADOWS: Final = {
    "functions of the marks shadowed": tries(
        function(
            "m.hashint4extended", "integer, bigint", "RAISE NOTICE '%', $2; RETURN 1;", "bigint"
        ),
        function(
            "m.hashint8extended", "bigint, bigint", "RAISE NOTICE '%', $2; RETURN 1;", "bigint"
        ),
        function("m.get_bit", "bytea, bigint", "RAISE NOTICE '%', $1; RETURN 1;", "integer"),
        function("m.get_bit", "bytea, integer", "RAISE NOTICE '%', $1; RETURN 1;", "integer"),
        function("m.refuse", "", "RETURN true;"),
        "SET search_path = m, pg_temp, pg_catalog",
        f"SELECT * FROM {V}",
        f"SELECT * FROM {M} ORDER BY pris_le",
    ),
    "operators of the marks shadowed": tries(
        function("m.lt8", "bigint, bigint", "RAISE NOTICE '% %', $1, $2; RETURN true;"),
        function("m.eqname", "name, name", "RAISE NOTICE '% %', $1, $2; RETURN true;"),
        function("m.and8", "bigint, bigint", "RAISE NOTICE '% %', $1, $2; RETURN $1;", "bigint"),
        "CREATE OPERATOR m.< (FUNCTION = m.lt8, LEFTARG = bigint, RIGHTARG = bigint)",
        "CREATE OPERATOR m.= (FUNCTION = m.eqname, LEFTARG = name, RIGHTARG = name)",
        "CREATE OPERATOR m.& (FUNCTION = m.and8, LEFTARG = bigint, RIGHTARG = bigint)",
        "CREATE OPERATOR m.+ (FUNCTION = m.and8, LEFTARG = bigint, RIGHTARG = bigint)",
        "SET search_path = m, pg_catalog",
        f"SELECT * FROM {V} WHERE id = 5 OR solde < @raw@",
    ),
    "tables of the catalog shadowed": tries(
        "CREATE TEMPORARY TABLE codeword AS SELECT session_user AS role_name, 'secondary'::text"
        " AS class, decode(repeat('00', 8000), 'hex') AS word",
        "CREATE TEMPORARY TABLE relation_secret AS SELECT r AS relation_id, ARRAY[1, 2, 3, 4, 5,"
        " 6]::bigint[] AS seeds, ARRAY[]::bytea[] AS keys FROM generate_series(1, 9) AS r",
        "CREATE TEMPORARY TABLE patient (id integer)",
        "SET search_path = pg_temp, m, marked",
        f"SELECT * FROM {V}",
        "CREATE TEMPORARY VIEW balise AS SELECT 1",
        "CREATE SCHEMA balise_other",
        states=DENIED,
    ),
    "temporary functions": tries(
        function("pg_temp.session_user", "", "RETURN 'victim';", "name"),
        function("pg_temp.tell", "anyelement", "RAISE NOTICE '%', $1; RETURN true;"),
        f"SELECT id FROM {V} WHERE pg_temp.tell(solde)",
        'SELECT pg_temp."session_user"()',
    ),
    "types shadowed": tries(
        "CREATE DOMAIN m.interval AS pg_catalog.interval",
        "CREATE DOMAIN m.bigint AS pg_catalog.int4",
        "CREATE DOMAIN m.numeric AS pg_catalog.numeric CHECK (VALUE < 0)",
        "SET search_path = m, pg_catalog",
        f"SELECT * FROM {V}",
        f"SELECT * FROM {M}",
    ),
}

IDENTITY: Final = {
    "another role": tries(
        "SET ROLE victim",
        "SET ROLE balise_owner",
        "SET LOCAL ROLE carole",
        "SET SESSION AUTHORIZATION victim",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SELECT set_config('session_authorization', 'victim', false)",
        "SELECT set_config('role', 'balise_owner', true)",
        f"SELECT session_user, count(*) FROM {V}",
        states=DENIED,
    ),
    "another role from the start of the connection": tries(
        ("mallory -c role=victim", f"SELECT * FROM {V}"), states="refused"
    ),
    "another session user from the start of the connection": tries(
        ("mallory -c session_authorization=victim", f"SELECT session_user, * FROM {V}"),
        states="refused",
    ),
    "another role as one's own setting": tries(
        "ALTER ROLE mallory SET role = 'balise_owner'",
        "ALTER ROLE mallory SET session_authorization = 'victim'",
        ("mallory:2", "SELECT session_user, current_user"),
        ("mallory:2", f"SELECT * FROM {V}"),
    ),
    "another name": tries(
        "ALTER ROLE mallory RENAME TO victim",
        "ALTER ROLE mallory RENAME TO mallory2",
        "ALTER ROLE victim RENAME TO other",
        'SET ROLE "VICTIM"',
        'SET ROLE "victim "',
        f"SET ROLE {'victim' + 'x' * 60}",
        'CREATE ROLE "victim " LOGIN',
        states=f"{DENIED} {NOT_SUPPORTED} 22023",
    ),
    "other memberships": tries(
        "GRANT victim TO mallory",
        "GRANT balise_owner TO mallory",
        "GRANT pg_read_all_data TO mallory",
        "GRANT SELECT ON clinic.patient TO mallory",
        "ALTER ROLE mallory BYPASSRLS",
        "ALTER ROLE mallory SUPERUSER",
        "ALTER ROLE victim PASSWORD 'x'",
        "CREATE ROLE helper IN ROLE victim",
        "ALTER GROUP balise_owner ADD USER mallory",
        "SELECT rolname, rolpassword FROM pg_authid",
        "SELECT * FROM pg_shadow",
        states=DENIED,
    ),
    "the other class": tries(
        "SELECT * FROM marked_care.patient",
        "SELECT * FROM marked_care.mesure",
        f"SELECT a.pris_le, b.pris_le FROM {M} AS a JOIN marked_care.mesure AS b USING (mesure_id)",
        "UPDATE balise.codeword SET class = 'care' WHERE role_name = 'mallory'",
        "INSERT INTO balise.recipient (role_name, class) VALUES ('mallory', 'care')",
        states=DENIED,
    ),
    "a care role at the secondary views": tries(
        ("carole", f"SELECT * FROM {V}"),
        ("carole", f"SELECT * FROM {M}"),
        ("carole", "SELECT * FROM balise_decoy.patient"),
        ("carole", "SELECT * FROM clinic.mesure"),
        ("carole", "SELECT nom FROM marked_care.patient WHERE nom LIKE 'leurre%'"),
        ("carole", "SELECT pris_le FROM marked_care.mesure"),
        states=DENIED,
    ),
    "a view lent to another recipient": tries(
        f"CREATE VIEW m.lent AS SELECT * FROM {V}",
        "GRANT SELECT ON m.lent TO PUBLIC",
        ("outsider", "SELECT * FROM m.lent"),
        ("ghost", "SELECT * FROM m.lent"),
        ("carole", "SELECT * FROM m.lent"),
        states=DENIED,
    ),
    "a definer function lent to those not enrolled": tries(
        f"CREATE FUNCTION m.lend() RETURNS SETOF {V} LANGUAGE sql SECURITY DEFINER"
        f" AS 'SELECT * FROM {V}'",
        "GRANT EXECUTE ON FUNCTION m.lend() TO PUBLIC",
        ("outsider", "SELECT * FROM m.lend()"),
        ("ghost", "SELECT * FROM m.lend()"),
        states=DENIED,
    ),
    "a prepared statement over a changed role": tries(
        f"PREPARE p AS SELECT session_user, * FROM {V} WHERE id = @id@",
        "EXECUTE p",
        "SET ROLE mallory",
        "EXECUTE p",
        "SET ROLE victim",
        "EXECUTE p",
        "RESET SESSION AUTHORIZATION",
        "EXECUTE p",
        states=DENIED,
    ),
    "a role that is not enrolled": tries(
        ("outsider", f"SELECT * FROM {V}"),
        ("outsider", "SELECT * FROM clinic.patient"),
        ("outsider", "SELECT * FROM balise_decoy.patient"),
        ("outsider", "SELECT * FROM balise.relation_secret"),
        ("outsider", f"EXPLAIN SELECT * FROM {V}"),
        ("outsider", "SELECT * FROM pg_stats WHERE schemaname ~ 'clinic|balise|marked'"),
        (
            "outsider",
            "SELECT pg_get_viewdef(oid) FROM pg_class WHERE relname = 'patient' ORDER BY 1",
        ),
        states=DENIED,
    ),
    "a role that was given the views but not enrolled": tries(
        ("dba", f"GRANT USAGE ON SCHEMA marked TO outsider; GRANT SELECT ON {V} TO outsider"),
        (
            "outsider",
            (
                "CREATE FUNCTION pg_temp.tell(anyelement) RETURNS boolean LANGUAGE plpgsql"
                " COST 0.0001 AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$"
            ),
        ),
        ("outsider", f"SELECT * FROM {V} WHERE pg_temp.tell(solde)"),
        ("outsider", f"SELECT count(*) FROM {V}"),
        ("outsider", f"SELECT EXISTS (SELECT FROM {V} WHERE solde = @raw@)"),
        states=DENIED,
        changes=True,
    ),
    "a revoked role": tries(
        ("ghost", f"SELECT * FROM {V}"),
        ("ghost", "SELECT * FROM marked_care.patient"),
        ("ghost", "SELECT * FROM clinic.patient"),
        ("ghost", "SELECT balise.refuse()"),
        ("ghost", "SELECT * FROM balise.codeword"),
        ("ghost", f"CREATE TEMPORARY VIEW v AS SELECT * FROM {V}"),
        states=DENIED,
    ),
}

SETTINGS: Final = {
    "the parser's and planner's trees": tries(
        "SET client_min_messages = debug5",
        "SET debug_print_parse = on",
        "SET debug_print_rewritten = on",
        "SET debug_print_plan = on",
        "SET debug_pretty_print = off",
        f"SELECT solde FROM {V} WHERE id = @id@",
        twin=False,  # debug messages name files and processes
    ),
    "loading code": tries(
        "SET session_preload_libraries = 'auto_explain'",
        "SET local_preload_libraries = 'auto_explain'",
        "LOAD 'auto_explain'",
        "LOAD '$libdir/plpython3'",
        "SET dynamic_library_path = '/tmp'",
        "CREATE FUNCTION m.c() RETURNS integer LANGUAGE c AS 'plpython3', 'plpython3_call_handler'",
        "CREATE FUNCTION m.i() RETURNS text LANGUAGE internal AS 'pg_read_file_all'",
        states=DENIED,
    ),
    "loading code with the connection": tries(
        ("mallory -c session_preload_libraries=auto_explain", f"SELECT 1 FROM {V}"),
        states="refused",
    ),
    "logging and tracking": tries(
        *(
            f"SET {setting}"
            for setting in (
                "log_statement = 'all'",
                "log_min_messages = debug5",
                "log_statement_stats = on",
                "log_executor_stats = on",
                "log_parameter_max_length_on_error = -1",
                "track_functions = 'all'",
                "track_io_timing = on",
                "track_activities = off",
                "session_replication_role = replica",
                "lc_messages = 'C'",
                "allow_system_table_mods = on",
                "ignore_system_indexes = on",
                "zero_damaged_pages = on",
            )
        ),
        "SELECT balise.python_path()",
        states=f"{DENIED} 55P02",
    ),
    "row security turned off": tries(
        "SET row_security = off",
        f"SELECT * FROM {V}",
        "ALTER TABLE balise_decoy.patient DISABLE ROW LEVEL SECURITY",
        "CREATE POLICY all_of_them ON balise_decoy.patient USING (true)",
        "ALTER POLICY own_decoys ON balise_decoy.patient USING (true)",
        "DROP POLICY own_decoys ON balise_decoy.patient",
        states=DENIED,
    ),
    "generic and custom plans": tries(
        f"PREPARE p (bigint) AS SELECT id, solde FROM {V} WHERE solde = $1",
        *(
            step
            for mode in ("force_generic_plan", "force_custom_plan")
            for step in (
                f"SET plan_cache_mode = {mode}",
                "EXECUTE p (@raw@)",
                "EXPLAIN EXECUTE p (@raw@)",
            )
        ),
        "SELECT statement FROM pg_prepared_statements",
    ),
    "parallel workers": tries(
        "SET force_parallel_mode = on",
        "SET parallel_setup_cost = 0",
        "SET parallel_tuple_cost = 0",
        "SET min_parallel_table_scan_size = 0",
        "SET max_parallel_workers_per_gather = 2",
        "CREATE FUNCTION m.tell(anyelement) RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE"
        " COST 0.0001 AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$",
        f"SELECT * FROM {V} WHERE m.tell(ville) AND m.tell(solde) ORDER BY id",
        f"SELECT session_user, sum(valeur), count(*) FROM {M} WHERE code = 'hdl'",
        twin=False,  # messages of workers come in any order
    ),
    "compiled expressions": tries(
        "SET jit = on",
        "SET jit_above_cost = 0",
        "SET jit_inline_above_cost = 0",
        f"SELECT * FROM {V} WHERE solde <> @raw@",
        "SET jit_dump_bitcode = on",
        "SET jit_debugging_support = on",
        states=f"{DENIED} 55P02",
    ),
    "constraints and inheritance used by the planner": tries(
        "SET constraint_exclusion = on",
        "EXPLAIN SELECT * FROM marked.patient WHERE solde < 0",
        "SET enable_partitionwise_join = on",
        "SET from_collapse_limit = 1",
        "SET join_collapse_limit = 1",
        "SET geqo_threshold = 2",
        f"SELECT count(*) FROM {V} AS a JOIN {V} AS b USING (solde) WHERE a.solde > 0",
    ),
    "how values are written": tries(
        "SET extra_float_digits = -15",
        "SET bytea_output = 'escape'",
        "SET datestyle = 'SQL, DMY'",
        "SET intervalstyle = 'iso_8601'",
        "SET timezone = 'Asia/Kathmandu'",
        "SET transform_null_equals = on",
        "SET array_nulls = off",
        "SET standard_conforming_strings = off",
        "SET default_table_access_method = 'heap'",
        "SET work_mem = '64kB'",
        f"SELECT * FROM {V} ORDER BY solde",
        f"SELECT extract(epoch FROM pris_le), valeur::float8 FROM {M}",
    ),
    "settings that hold something": tries(
        "SELECT name, setting, reset_val FROM pg_settings WHERE name ~ 'balise|secret|key'",
        "SELECT current_setting('balise.key', true), current_setting('pgbalise.key', true)",
        "SET balise.role = 'victim'",
        "SET balise.recipient = 'victim'",
        f"SELECT * FROM {V} WHERE id < 5",
        "SELECT * FROM pg_file_settings",
        states=DENIED,
    ),
}

TIME: Final = {
    "a held cursor across revocation": tries(
        f"DECLARE c CURSOR WITH HOLD FOR SELECT * FROM {V} ORDER BY id",
        "FETCH 5 IN c",
        ("pgbalise", "revoke mallory"),
        "FETCH ALL IN c",
        f"SELECT * FROM {V}",
        states=DENIED,
        changes=True,
    ),
    "an open transaction across revocation": tries(
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        f"SELECT count(*) FROM {V}",
        f"DECLARE c CURSOR FOR SELECT * FROM {M} ORDER BY mesure_id",
        "FETCH 2 IN c",
        ("pgbalise", "revoke mallory"),
        "FETCH ALL IN c",
        f"SELECT * FROM {V}",
        states=DENIED,
        changes=True,
    ),
    "a prepared statement across revocation": tries(
        f"PREPARE p AS SELECT * FROM {V}",
        "EXECUTE p",
        ("pgbalise", "revoke mallory"),
        "EXECUTE p",
        states=DENIED,
        changes=True,
    ),
    "own views after revocation": tries(
        f"CREATE VIEW m.kept AS SELECT * FROM {V}",
        f"CREATE MATERIALIZED VIEW m.copied AS SELECT * FROM {V}",
        ("pgbalise", "revoke mallory"),
        "SELECT * FROM m.kept",
        "REFRESH MATERIALIZED VIEW m.copied",
        "TABLE m.copied",
        states=DENIED,
        changes=True,
    ),
    "an old snapshot across a new policy": tries(
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "SELECT count(*) FROM pg_class WHERE relname = 'patient'",
        ("pgbalise", "apply"),
        f"SELECT * FROM {V}",
        states=DENIED,
        changes=True,
    ),
    "an exported snapshot across a new policy": tries(
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "SELECT pg_export_snapshot()",
        ("pgbalise", "apply"),
        ("mallory:2", "BEGIN ISOLATION LEVEL REPEATABLE READ"),
        ("mallory:2", "SET TRANSACTION SNAPSHOT '@last@'"),
        ("mallory:2", f"SELECT * FROM {V}"),
        states=DENIED,
        twin=False,  # a snapshot's name
        changes=True,
    ),
    "a prepared statement across a new policy": tries(
        f"PREPARE p AS SELECT * FROM {V} ORDER BY id",
        "EXECUTE p",
        ("pgbalise", "apply"),
        "EXECUTE p",
        "SET plan_cache_mode = force_generic_plan",
        "EXECUTE p",
        changes=True,
    ),
    "an open cursor across a new policy": tries(
        "BEGIN",
        f"DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT * FROM {V} ORDER BY id",
        "COMMIT",
        "FETCH 5 IN c",
        ("pgbalise", "apply"),
        "FETCH ALL IN c",
        "FETCH ABSOLUTE 1 IN c",
        changes=True,
    ),
    "notifications of others": tries(
        "LISTEN victim",
        ("victim", f"SELECT pg_notify('victim', count(*)::text) FROM {V}"),
        "SELECT 1",
        ("victim", "NOTIFY victim, 'hello'"),
        "SELECT pg_listening_channels(), pg_notification_queue_usage()",
        twin=False,  # the sender's process
    ),
    "locks of others": tries(
        ("victim", "BEGIN ISOLATION LEVEL SERIALIZABLE"),
        ("victim", f"SELECT * FROM {V} WHERE id = @decoyid@"),
        "SELECT * FROM pg_locks",
        "SELECT pg_lock_status()",
        "SELECT pg_blocking_pids(pg_backend_pid()), pg_safe_snapshot_blocking_pids(1)",
        "SELECT pg_try_advisory_lock(@decoyid@)",
        states=DENIED,
    ),
    "statements of others stopped": tries(
        ("victim", "SELECT 1"),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'victim'",
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
        "SELECT pg_log_backend_memory_contexts(pg_backend_pid())",
        "SELECT pg_reload_conf()",
        states=DENIED,
    ),
    "two sessions that disagree": tries(
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        ("mallory:2", "BEGIN ISOLATION LEVEL SERIALIZABLE"),
        f"CREATE TEMP TABLE a AS SELECT sum(solde) FROM {V}",
        ("mallory:2", f"CREATE TEMP TABLE b AS SELECT sum(solde) FROM {V}"),
        "COMMIT",
        ("mallory:2", "COMMIT"),
        "SELECT * FROM a",
        ("mallory:2", "SELECT * FROM b"),
    ),
}

FAMILIES: Final = {
    "leaky functions and operators": LEAKY,
    "statistics and plans": STATISTICS,
    "errors and definitions": ERRORS,
    "rows": ROWS,
    "functions of the server": FUNCTIONS,
    "objects of one's own": OBJECTS,
    "names that shadow": SHADOWS,
    "identity": IDENTITY,
    "settings": SETTINGS,
    "time and others": TIME,
}

ATTEMPTS: Final = {
    f"{family}: {name}": attempt
    for family, attempts in FAMILIES.items()
    for name, attempt in attempts.items()
}
