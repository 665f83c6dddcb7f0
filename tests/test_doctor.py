"""Each path is opened for real, must be found, must work where it says so, and must be mended."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgbalise.database import apply_policy, enrol, refresh_views, revoke
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.doctor import Finding, Report, Severity, examine, showing_views
from pgbalise.errors import DatabaseProblem
from pgbalise.install import install
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import PsycopgSession, connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

KEY = MasterKey(bytes(range(32)))
DOCUMENT: dict[str, Any] = {
    "relation": {
        "dpi.patient": {
            "key": {"patient_id": "integer"},
            "carrier": {"weight": {"type": "numeric(5,1)", "quantum": "0.1"}},
            "decoys": True,
        },
        "dpi.result": {
            "key": {"result_id": "integer", "year": "integer"},
            "carrier": {"value": {"type": "numeric(7,2)", "quantum": "0.01"}},
        },
    }
}


@dataclass
class Site:
    connection: psycopg.Connection[Any]
    session: PsycopgSession
    cluster: ThrowawayCluster

    def run(self, *statements: str) -> None:
        for statement in statements:
            self.connection.execute(statement)

    def report(self) -> Report:
        return examine(self.session, now=datetime.now(UTC))

    def findings(self) -> list[Finding]:
        return list(self.report().findings)

    def mend(self, findings: Iterable[Finding]) -> None:
        """Run what the findings say, exactly as printed."""
        for statement in dict.fromkeys(f.mend for f in findings):
            self.connection.execute(statement)

    def as_recipient(self, statement: str) -> list[tuple[Any, ...]]:
        dsn = self.cluster.dsn(self.connection.info.dbname, "researcher")
        with psycopg.connect(dsn, autocommit=True) as other:
            for part in statement.split(";")[:-1]:
                other.execute(part)
            cursor = other.execute(statement.rsplit(";", maxsplit=1)[-1])
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def site(cluster: ThrowawayCluster, empty_db: psycopg.Connection[Any]) -> Iterator[Site]:
    with connect(cluster.dsn(empty_db.info.dbname)) as session:
        here = Site(session.connection, session, cluster)
        here.run(
            "CREATE SCHEMA dpi",
            "CREATE TABLE dpi.patient (patient_id int PRIMARY KEY, name text, weight numeric(5,1))",
            "CREATE TABLE dpi.result (result_id int, year int, value numeric(7,2),"
            " PRIMARY KEY (result_id, year)) PARTITION BY LIST (year)",
            "CREATE TABLE dpi.result_2020 PARTITION OF dpi.result FOR VALUES IN (2020)",
            "INSERT INTO dpi.patient VALUES (1, 'A', 61.5), (2, 'B', 75.0)",
            "INSERT INTO dpi.result VALUES (1, 2020, 5.20)",
            "CREATE ROLE researcher LOGIN",
            "CREATE ROLE helper",
            "CREATE ROLE keeper",
        )
        install(session)
        with session.connection.transaction():
            apply_policy(session, DOCUMENT, KEY)
            enrol(session, ["researcher"], RecipientClass.SECONDARY, KEY)
        yield here


def test_clean_install_has_no_finding(site: Site) -> None:
    assert site.findings() == []
    assert len(site.as_recipient("SELECT * FROM marked.patient")) == 2
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        site.as_recipient("SELECT * FROM dpi.patient")


def test_without_extension(empty_db: psycopg.Connection[Any]) -> None:
    with pytest.raises(DatabaseProblem, match="no pgbalise extension"):
        examine(PsycopgSession(empty_db), now=datetime.now(UTC))


RAW = "SELECT name FROM dpi.patient"
USAGE = "GRANT USAGE ON SCHEMA dpi TO researcher"
SCHEMA = "CREATE SCHEMA desk; GRANT USAGE ON SCHEMA desk TO PUBLIC"
READ = "GRANT SELECT ON dpi.patient TO keeper; GRANT USAGE ON SCHEMA dpi TO keeper"

# name: (code, severity, object, what opens the path, what the recipient then reads)
PATHS: dict[str, tuple[str, str, str | None, str, str | None]] = {
    "superuser": ("D01", "critical", "superuser", "ALTER ROLE researcher SUPERUSER", RAW),
    "becomes superuser": (
        "D01",
        "critical",
        "SUPERUSER",
        "ALTER ROLE helper SUPERUSER; GRANT helper TO researcher",
        f"SET ROLE helper; {RAW}",
    ),
    "bypass rls": ("D02", "warning", "BYPASSRLS", "ALTER ROLE researcher BYPASSRLS", None),
    "replication": ("D03", "critical", "REPLICATION", "ALTER ROLE researcher REPLICATION", None),
    "createrole": (
        "D04",
        "critical",
        "CREATEROLE",
        "ALTER ROLE researcher CREATEROLE",
        f"GRANT pg_read_all_data TO researcher; {RAW}",
    ),
    "createrole by set role": (
        "D04",
        "critical",
        "CREATEROLE",
        "ALTER ROLE helper CREATEROLE; ALTER ROLE researcher NOINHERIT; GRANT helper TO researcher",
        (
            "SET ROLE helper; GRANT balise_owner TO researcher; RESET ROLE; SET ROLE balise_owner;"
            f"{RAW}"
        ),
    ),
    "reads all data": (
        "D05",
        "critical",
        "pg_read_all_data",
        "GRANT pg_read_all_data TO researcher",
        RAW,
    ),
    "reads server files": (
        "D05",
        "critical",
        "pg_read_server_files",
        "GRANT pg_read_server_files TO researcher",
        "CREATE TEMP TABLE t (x text); COPY t FROM '/etc/passwd'; SELECT * FROM t",
    ),
    "runs programs": (
        "D05",
        "critical",
        "pg_execute_server_program",
        "GRANT pg_execute_server_program TO researcher",
        "CREATE TEMP TABLE t (x text); COPY t FROM PROGRAM 'id'; SELECT * FROM t",
    ),
    "monitors": ("D05", "notice", "pg_monitor", "GRANT pg_monitor TO researcher", None),
    "owner": (
        "D06",
        "critical",
        "dpi.patient",
        f"{USAGE}; ALTER TABLE dpi.patient OWNER TO researcher",
        RAW,
    ),
    "member of owner": (
        "D06",
        "critical",
        "dpi.patient",
        (
            "GRANT USAGE ON SCHEMA dpi TO helper; ALTER TABLE dpi.patient OWNER TO helper;"
            "GRANT helper TO researcher"
        ),
        RAW,
    ),
    "schema owner": ("D07", "warning", "dpi", "ALTER SCHEMA dpi OWNER TO researcher", None),
    "database owner": (
        "D07",
        "warning",
        "empty_test",
        "ALTER DATABASE empty_test OWNER TO researcher",
        None,
    ),
    "direct grant": (
        "D08",
        "critical",
        "dpi.patient",
        f"{USAGE}; GRANT SELECT ON dpi.patient TO researcher",
        RAW,
    ),
    "public grant": (
        "D08",
        "critical",
        "dpi.patient",
        "GRANT USAGE ON SCHEMA dpi TO PUBLIC; GRANT SELECT ON dpi.patient TO PUBLIC",
        RAW,
    ),
    "inherited grant": (
        "D08",
        "critical",
        "dpi.patient",
        f"{READ}; GRANT keeper TO helper; GRANT helper TO researcher",
        RAW,
    ),
    "grant by set role": (
        "D08",
        "critical",
        "dpi.patient",
        f"{READ}; ALTER ROLE researcher NOINHERIT; GRANT keeper TO researcher",
        f"SET ROLE keeper; {RAW}",
    ),
    "grant by someone else": (
        "D08",
        "critical",
        "dpi.patient",
        (
            f"{USAGE}; GRANT USAGE ON SCHEMA dpi TO keeper;"
            "GRANT SELECT ON dpi.patient TO keeper WITH GRANT OPTION; SET ROLE keeper;"
            "GRANT SELECT ON dpi.patient TO researcher; RESET ROLE"
        ),
        RAW,
    ),
    "grant without schema": (
        "D08",
        "warning",
        "dpi.patient",
        "GRANT SELECT ON dpi.patient TO researcher",
        None,
    ),
    "partition": (
        "D08",
        "critical",
        "dpi.result_2020",
        f"{USAGE}; GRANT SELECT ON dpi.result_2020 TO researcher",
        "SELECT * FROM dpi.result_2020",
    ),
    "inheritance parent": (
        "D08",
        "critical",
        "dpi.person",
        (
            f"CREATE TABLE dpi.person (patient_id int NOT NULL, name text);"
            f"ALTER TABLE dpi.patient INHERIT dpi.person; {USAGE};"
            "GRANT SELECT ON dpi.person TO researcher"
        ),
        "SELECT name FROM dpi.person",
    ),
    "column grant": (
        "D09",
        "critical",
        "dpi.patient",
        f"{USAGE}; GRANT SELECT (name) ON dpi.patient TO researcher",
        RAW,
    ),
    "write": (
        "D10",
        "warning",
        "dpi.patient",
        f"{USAGE}; GRANT INSERT ON dpi.patient TO researcher",
        None,
    ),
    "write a column": (
        "D10",
        "warning",
        "dpi.patient",
        f"{USAGE}; GRANT UPDATE (name) ON dpi.patient TO researcher",
        None,
    ),
    "trigger": (
        "D10",
        "critical",
        "dpi.patient",
        f"{USAGE}; GRANT TRIGGER ON dpi.patient TO researcher",
        None,
    ),
    "view": (
        "D11",
        "critical",
        "desk.v",
        f"{SCHEMA}; CREATE VIEW desk.v AS {RAW}; GRANT SELECT ON desk.v TO researcher",
        "SELECT * FROM desk.v",
    ),
    "view on view, column grant": (
        "D11",
        "critical",
        "desk.w",
        (
            f"{SCHEMA}; CREATE VIEW desk.v AS {RAW}; CREATE VIEW desk.w AS SELECT * FROM desk.v;"
            "GRANT SELECT (name) ON desk.w TO PUBLIC"
        ),
        "SELECT name FROM desk.w",
    ),
    "view on a partition": (
        "D11",
        "critical",
        "desk.v",
        f"{SCHEMA}; CREATE VIEW desk.v AS TABLE dpi.result_2020; GRANT SELECT ON desk.v TO PUBLIC",
        "SELECT * FROM desk.v",
    ),
    "materialised view": (
        "D11",
        "critical",
        "desk.m",
        f"{SCHEMA}; CREATE MATERIALIZED VIEW desk.m AS {RAW}; GRANT SELECT ON desk.m TO researcher",
        "SELECT * FROM desk.m",
    ),
    "materialised view of an invoker view": (
        "D11",
        "critical",
        "desk.m",
        (
            f"{SCHEMA}; CREATE VIEW desk.v WITH (security_invoker) AS {RAW};"
            "CREATE MATERIALIZED VIEW desk.m AS SELECT * FROM desk.v;"
            "GRANT SELECT ON desk.m TO researcher"
        ),
        "SELECT * FROM desk.m",
    ),
    "own materialised view": (
        "D11",
        "critical",
        "desk.m",
        (
            f"{SCHEMA}; CREATE MATERIALIZED VIEW desk.m AS {RAW};"
            "ALTER MATERIALIZED VIEW desk.m OWNER TO researcher"
        ),
        "SELECT * FROM desk.m",
    ),
    "security definer": (
        "D12",
        "critical",
        "desk.f(n integer)",
        (
            f"{SCHEMA}; CREATE FUNCTION desk.f(n int) RETURNS SETOF text SECURITY DEFINER"
            f" LANGUAGE sql AS '{RAW}'"
        ),
        "SELECT desk.f(1)",
    ),
    "secret": (
        "D13",
        "critical",
        "balise.codeword",
        "GRANT USAGE ON SCHEMA balise TO researcher; GRANT SELECT ON balise.codeword TO researcher",
        "SELECT word FROM balise.codeword",
    ),
    "catalog": (
        "D13",
        "warning",
        "balise.policy",
        "GRANT USAGE ON SCHEMA balise TO researcher; GRANT SELECT ON balise.policy TO researcher",
        None,
    ),
    "catalog writer": (
        "D13",
        "critical",
        "balise.recipient",
        "GRANT USAGE ON SCHEMA balise TO researcher;GRANT UPDATE ON balise.recipient TO researcher",
        None,
    ),
    "administers": (
        "D13",
        "warning",
        "balise.revoke(role_name name)",
        (
            "GRANT USAGE ON SCHEMA balise TO researcher;"
            "GRANT EXECUTE ON FUNCTION balise.revoke TO researcher"
        ),
        None,
    ),
    "owns the catalog": (
        "D13",
        "critical",
        "balise.codeword",
        "ALTER TABLE balise.codeword OWNER TO researcher",
        None,
    ),
    "decoys": (
        "D14",
        "critical",
        "balise_decoy.patient",
        (
            "GRANT USAGE ON SCHEMA balise_decoy TO researcher;"
            "GRANT SELECT ON balise_decoy.patient TO researcher"
        ),
        "SELECT count(*) FROM balise_decoy.patient",
    ),
    "view owner": (
        "D15",
        "critical",
        "balise_owner",
        "GRANT balise_owner TO researcher",
        "SET ROLE balise_owner; SELECT seeds FROM balise.relation_secret",
    ),
    "search path": (
        "D16",
        "warning",
        "public",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        None,
    ),
    "set search path": (
        "D16",
        "warning",
        "desk",
        (
            f"{SCHEMA}; ALTER ROLE balise_owner SET search_path = desk, public;"
            "GRANT CREATE ON SCHEMA desk TO researcher"
        ),
        None,
    ),
    "view schema": (
        "D16",
        "warning",
        "marked",
        "GRANT CREATE ON SCHEMA marked TO researcher",
        None,
    ),
    "owns a marked view": (
        "D16",
        "warning",
        "marked.patient",
        "ALTER VIEW marked.patient OWNER TO researcher",
        None,
    ),
    "member of the recipient": ("D17", "notice", "helper", "GRANT researcher TO helper", None),
    "trusted untrusted": (
        "D18",
        "critical",
        "plpython3u",
        "UPDATE pg_language SET lanpltrusted = true WHERE lanname = 'plpython3u'",
        (
            "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE plpython3u AS 'return 1';"
            "SELECT pg_temp.f()"
        ),
    ),
    "untrusted function": (
        "D19",
        "warning",
        "desk.f()",
        f"{SCHEMA}; CREATE FUNCTION desk.f() RETURNS int LANGUAGE plpython3u AS 'return 1'",
        None,
    ),
    "file function": (
        "D20",
        "critical",
        "pg_catalog.pg_read_file(text)",
        "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO researcher",
        "SELECT pg_read_file('PG_VERSION')",
    ),
    "dblink": (
        "D21",
        "warning",
        "public.dblink(text, text)",
        "CREATE EXTENSION dblink SCHEMA public",
        None,
    ),
    "dblink_connect_u": (
        "D21",
        "critical",
        "public.dblink_connect_u(text)",
        (
            "CREATE EXTENSION dblink SCHEMA public;"
            "GRANT EXECUTE ON FUNCTION public.dblink_connect_u(text) TO researcher"
        ),
        None,
    ),
    "foreign server": (
        "D22",
        "warning",
        "copy",
        (
            "CREATE EXTENSION postgres_fdw SCHEMA public;"
            "CREATE SERVER copy FOREIGN DATA WRAPPER postgres_fdw;"
            "GRANT USAGE ON FOREIGN SERVER copy TO researcher"
        ),
        None,
    ),
    "foreign table": (
        "D22",
        "warning",
        "desk.t",
        (
            f"{SCHEMA}; CREATE EXTENSION postgres_fdw SCHEMA public;"
            "CREATE SERVER copy FOREIGN DATA WRAPPER postgres_fdw;"
            "CREATE FOREIGN TABLE desk.t (x int) SERVER copy; GRANT SELECT ON desk.t TO researcher"
        ),
        None,
    ),
    "granted, and passed on": (
        "D08",
        "critical",
        "dpi.patient",
        (
            f"{USAGE}; GRANT SELECT ON dpi.patient TO researcher WITH GRANT OPTION;"
            "SET ROLE researcher; GRANT SELECT ON dpi.patient TO helper; RESET ROLE"
        ),
        RAW,
    ),
    "file function by its inner name": (
        "D20",
        "critical",
        "desk.f(text)",
        (
            f"{SCHEMA}; CREATE FUNCTION desk.f(text) RETURNS text LANGUAGE internal"
            " AS 'pg_read_file_all'; GRANT EXECUTE ON FUNCTION pg_read_file(text) TO PUBLIC;"
            "REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM PUBLIC"
        ),
        "SELECT desk.f('PG_VERSION')",
    ),
    "back into this database": (
        "D22",
        "critical",
        "copy",
        (
            f"{SCHEMA}; CREATE EXTENSION postgres_fdw SCHEMA public; CREATE SERVER copy"
            " FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'HOST', dbname 'empty_test');"
            "CREATE USER MAPPING FOR researcher SERVER copy"
            " OPTIONS (user 'postgres', password_required 'false');"
            "CREATE FOREIGN TABLE desk.t (name text) SERVER copy"
            " OPTIONS (schema_name 'dpi', table_name 'patient');"
            "GRANT SELECT ON desk.t TO researcher"
        ),
        "SELECT name FROM desk.t",
    ),
    "administrator": (
        "D26",
        "critical",
        "balise_admin",
        "GRANT balise_admin TO researcher",
        "SELECT role_name FROM balise.recipient",
    ),
    "auditor": (
        "D26",
        "critical",
        "balise_auditor",
        "GRANT balise_auditor TO researcher",
        "SELECT count(*) FROM balise.decoy",
    ),
    "the proxy's role": (
        "D26",
        "critical",
        "balise_proxy",
        "GRANT balise_proxy TO researcher",
        "SELECT count(*) FROM balise.decoy_digests(sha256('a key of my own'))",
    ),
    "an application's role": (
        "D26",
        "warning",
        "balise_tripwire",
        "GRANT balise_tripwire TO researcher",
        "SELECT balise.check('anybody')::text IS NOT NULL",
    ),
    "copied by a rule": (
        "D29",
        "critical",
        "desk.copy",
        (
            f"{SCHEMA}; CREATE TABLE desk.copy (name text);"
            "CREATE RULE keep AS ON INSERT TO dpi.patient DO ALSO"
            " INSERT INTO desk.copy VALUES (NEW.name);"
            "INSERT INTO dpi.patient VALUES (3, 'C', 50.0); GRANT SELECT ON desk.copy TO researcher"
        ),
        "SELECT name FROM desk.copy",
    ),
    "write-ahead log": (
        "D30",
        "critical",
        (
            "public.pg_get_wal_records_info(start_lsn pg_lsn, end_lsn pg_lsn, OUT start_lsn pg_lsn,"
            " OUT end_lsn pg_lsn, OUT prev_lsn pg_lsn, OUT xid xid, OUT resource_manager text,"
            " OUT record_type text, OUT record_length integer, OUT main_data_length integer,"
            " OUT fpi_length integer, OUT description text, OUT block_ref text)"
        ),
        (
            "CREATE EXTENSION pg_walinspect SCHEMA public; GRANT EXECUTE ON"
            " FUNCTION public.pg_get_wal_records_info(pg_lsn, pg_lsn) TO researcher"
        ),
        None,
    ),
    "locks": (
        "D30",
        "warning",
        (
            "pg_catalog.pg_lock_status(OUT locktype text, OUT database oid, OUT relation oid,"
            " OUT page integer, OUT tuple smallint, OUT virtualxid text, OUT transactionid xid,"
            " OUT classid oid, OUT objid oid, OUT objsubid smallint, OUT virtualtransaction text,"
            " OUT pid integer, OUT mode text, OUT granted boolean, OUT fastpath boolean,"
            " OUT waitstart timestamp with time zone)"
        ),
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_lock_status() TO PUBLIC",
        "SELECT mode FROM pg_lock_status()",
    ),
    "counters": (
        "D31",
        "warning",
        "track_counts",
        "ALTER ROLE researcher IN DATABASE empty_test RESET track_counts",
        "SELECT 1 WHERE current_setting('track_counts')::bool",
    ),
    "parameter": (
        "D32",
        "warning",
        "session_replication_role",
        "GRANT SET ON PARAMETER session_replication_role TO researcher",
        "SET session_replication_role = replica; SELECT 1",
    ),
    "alter system": (
        "D32",
        "critical",
        "my.parameter",
        "GRANT ALTER SYSTEM ON PARAMETER my.parameter TO researcher",
        None,
    ),
    "large object": (
        "D33",
        "warning",
        "large object 424242",
        (
            "SELECT lo_from_bytea(424242, 'a patient');"
            "GRANT SELECT ON LARGE OBJECT 424242 TO researcher"
        ),
        "SELECT lo_get(424242)",
    ),
    "create schemas": (
        "D34",
        "notice",
        "empty_test",
        "GRANT CREATE ON DATABASE empty_test TO researcher",
        "CREATE SCHEMA mine; SELECT 1",
    ),
    "marks of another": (
        "D48",
        "warning",
        "desk.m",
        (
            f"{SCHEMA}; CREATE MATERIALIZED VIEW desk.m AS SELECT * FROM marked.patient"
            " WITH NO DATA; GRANT SELECT ON desk.m TO researcher"
        ),
        None,
    ),
    "view not granted": (
        "D37",
        "notice",
        "marked.patient",
        "REVOKE SELECT ON marked.patient FROM researcher",
        None,
    ),
    "schema not granted": (
        "D37",
        "notice",
        "schema marked",
        "REVOKE USAGE ON SCHEMA marked FROM researcher",
        None,
    ),
    "refusal not granted": (
        "D37",
        "notice",
        "balise.refuse()",
        "REVOKE EXECUTE ON FUNCTION balise.refuse() FROM researcher",
        None,
    ),
    "word of a revoked recipient": (
        "D38",
        "critical",
        "balise.codeword",
        "UPDATE balise.recipient SET revoked_at = now()",
        "SELECT * FROM marked.patient",
    ),
    "default privileges for decoys": (
        "D25",
        "warning",
        "balise_decoy",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA balise_decoy GRANT SELECT ON TABLES TO researcher",
        None,
    ),
    "default privileges": (
        "D25",
        "warning",
        "dpi",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA dpi GRANT SELECT ON TABLES TO researcher",
        None,
    ),
}


@pytest.mark.parametrize("path", PATHS)
def test_path_is_found_and_mended(site: Site, path: str) -> None:
    code, severity, name, opening, proof = PATHS[path]
    try:
        site.run(*opening.replace("HOST", site.cluster.host).split(";"))
        mine = [f for f in site.findings() if f.code == code and f.object == name]
        assert mine, site.findings()
        assert {f.severity for f in mine} == {Severity(severity)}
        assert {f.role for f in mine} == {"researcher"}
        assert all("\n" not in f.message for f in mine)
        if proof is not None:
            assert site.as_recipient(proof)
        assert all(f.mend for f in mine)
        site.mend(mine)
        assert not [f for f in site.findings() if f.code == code and f.object == name]
    finally:
        # roles outlive the database
        site.run("RESET ROLE", "ALTER ROLE balise_owner RESET search_path")
        site.run("ALTER DATABASE empty_test OWNER TO postgres")


TRIGGER = """
CREATE FUNCTION dpi.keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox SELECT NEW.*;
    RETURN NEW;
END
$$;
CREATE TRIGGER keep AFTER INSERT ON dpi.patient FOR EACH ROW EXECUTE FUNCTION dpi.keep()
"""
DISABLED = "ALTER EVENT TRIGGER balise_keep_in_step DISABLE"

# by name: code, severity, object, what is done
STATES: dict[str, tuple[str, str, str, str]] = {
    "published": ("D27", "warning", "feed", "CREATE PUBLICATION feed FOR TABLE dpi.patient"),
    "published by partition": (
        "D27",
        "warning",
        "feed",
        "CREATE PUBLICATION feed FOR TABLE dpi.result",
    ),
    "published with all": ("D27", "warning", "feed", "CREATE PUBLICATION feed FOR ALL TABLES"),
    "published with its schema": (
        "D27",
        "warning",
        "feed",
        "CREATE PUBLICATION feed FOR TABLES IN SCHEMA dpi",
    ),
    "handed on by a trigger": ("D29", "warning", "dpi.patient", TRIGGER),
    "replaced": (
        "D35",
        "critical",
        "marked.patient",
        "CREATE OR REPLACE VIEW marked.patient AS SELECT * FROM dpi.patient",
    ),
    "dropped": ("D24", "warning", "marked.patient", "DROP VIEW marked.patient"),
    "among the marked": ("D36", "warning", "marked.v", "CREATE VIEW marked.v AS SELECT 1 AS x"),
    "somebody else's schema": ("D36", "warning", "marked", "ALTER SCHEMA marked OWNER TO helper"),
    "granted to everyone": (
        "D37",
        "notice",
        "marked.patient",
        "GRANT SELECT ON marked.patient TO PUBLIC",
    ),
    "granted to a stranger": (
        "D37",
        "notice",
        "marked.patient",
        "CREATE ROLE stranger LOGIN; GRANT SELECT ON marked.patient TO stranger",
    ),
    "out of step": (
        "D39",
        "warning",
        "dpi.patient",
        f"{DISABLED}; ALTER TABLE dpi.patient ADD COLUMN ward text",
    ),
    "event trigger disabled": ("D41", "warning", "balise_keep_in_step", DISABLED),
    "event trigger missing": (
        "D41",
        "warning",
        "balise_refuse_drop",
        (
            "ALTER EXTENSION pgbalise DROP EVENT TRIGGER balise_refuse_drop;"
            "DROP EVENT TRIGGER balise_refuse_drop"
        ),
    ),
}


@pytest.mark.parametrize("state", STATES)
def test_state_is_found_and_mended(site: Site, state: str) -> None:
    code, severity, name, doing = STATES[state]
    site.run(doing)
    mine = [f for f in site.findings() if (f.code, f.object) == (code, name) and not f.role]
    mine = mine or [f for f in site.findings() if (f.code, f.object) == (code, name)]
    assert {f.severity for f in mine if f.severity != "notice" or severity == "notice"} == {
        Severity(severity)
    }
    for finding in mine:
        if finding.command == "pgbalise policy refresh":
            with site.connection.transaction():
                refresh_views(site.session)
        elif finding.mend:
            site.mend([finding])
    left = [f for f in site.findings() if (f.code, f.object) == (code, name)]
    assert [f for f in left if f.severity == severity] == []


def test_new_columns_are_for_somebody_to_decide(site: Site) -> None:
    site.run("ALTER TABLE dpi.patient ADD COLUMN ward text, ADD COLUMN bed text")
    found = site.findings()
    assert [(f.code, f.severity, f.object) for f in found] == [
        ("D39", Severity.NOTICE, "dpi.patient")
    ] * 2
    assert [f.message.split()[1] for f in found] == ["bed", "ward"]
    assert all(f.command.startswith("pgbalise policy apply") for f in found)


def test_a_policy_that_no_longer_fits(site: Site) -> None:
    site.run(
        """UPDATE balise.policy SET document = jsonb_set(document,
               '{relation,dpi.patient,carrier,weight,type}', '"date"')
               #- '{relation,dpi.patient,carrier,weight,quantum}'""",
        "INSERT INTO balise.policy (document) VALUES ('{}')",
    )
    found = site.findings()
    assert [(f.code, f.severity, f.object) for f in found] == [
        ("D42", Severity.WARNING, "balise.policy"),
        ("D42", Severity.NOTICE, "balise.policy"),
    ]


def test_a_catalog_that_lacks_something(site: Site) -> None:
    site.run(
        "DELETE FROM balise.codeword",
        "DELETE FROM balise.commitment",
        "DELETE FROM balise.relation_secret USING balise.relation AS r"
        " WHERE r.relation_id = relation_secret.relation_id AND relation_name = 'patient'",
    )
    found = site.findings()
    assert {(f.code, f.severity, f.object) for f in found} == {
        ("D38", Severity.WARNING, "balise.codeword"),
        ("D38", Severity.WARNING, "balise.commitment"),
        ("D38", Severity.WARNING, "dpi.patient"),
    }
    assert all(f.command for f in found)


def test_the_library_that_the_server_imports(site: Site) -> None:
    library = site.cluster.folder / "library"
    library.mkdir()
    library.chmod(0o777)
    source = "CREATE OR REPLACE FUNCTION balise.{}() RETURNS text LANGUAGE sql AS $$SELECT '{}'$$"
    site.run(
        source.format("python_path", f"{library}:/no/where"),
        source.format("load_library", "0.0.1"),
        source.format("version", "0.0.1"),
    )
    found = {f.object: f for f in site.findings()}
    assert {name: (f.code, f.severity) for name, f in found.items()} == {
        str(library): ("D44", Severity.CRITICAL),
        "/no/where": ("D44", Severity.WARNING),
        "balise.version()": ("D43", Severity.WARNING),
        "balise.load_library()": ("D43", Severity.WARNING),
    }
    subprocess.run(shlex.split(found[str(library)].command), check=True)
    site.run(
        "CREATE OR REPLACE FUNCTION balise.load_library() RETURNS text LANGUAGE plpgsql AS"
        " $$BEGIN RAISE 'no module'; END$$"
    )
    found = {f.object: f for f in site.findings()}
    assert str(library) not in found
    assert "no module" in found["balise.load_library()"].message


def test_the_clock(site: Site) -> None:
    now = datetime.now(UTC)
    for seconds, said in ((-3600, "3600 s ahead"), (90, "s behind"), (0, None)):
        report = examine(site.session, now=now + timedelta(seconds=seconds))
        assert [(f.code, f.severity) for f in report.findings] == (
            [("D45", Severity.WARNING)] if said else []
        )
        assert said is None or said in report.findings[0].message
    site.run("UPDATE balise.recipient SET enrolled_at = now() + interval '1 hour'")
    [finding] = site.findings()
    assert (finding.code, finding.severity) == ("D45", Severity.WARNING)


def test_the_key_file(site: Site, tmp_path: Path) -> None:
    def look(path: Path) -> dict[Severity, list[Finding]]:
        report = examine(site.session, now=datetime.now(UTC), key_file=path)
        assert bytes(range(32)).hex() not in repr(report)
        return {s: [f for f in report.findings if f.severity is s] for s in Severity}

    file = tmp_path / "key"
    file.write_text(bytes(range(32)).hex())
    file.chmod(0o600)
    found = look(file)
    assert found[Severity.CRITICAL] == found[Severity.WARNING] == []
    assert [f.code for f in found[Severity.NOTICE]] == ["D47"]
    file.chmod(0o640)
    [finding] = look(file)[Severity.CRITICAL]
    subprocess.run(shlex.split(finding.command), check=True)
    assert look(file)[Severity.CRITICAL] == []
    tmp_path.chmod(0o777)
    [finding] = look(file)[Severity.WARNING]
    assert "exchanged" in finding.message
    subprocess.run(shlex.split(finding.command), check=True)
    (tmp_path / "other").hardlink_to(file)
    assert ["2 names" in f.message for f in look(file)[Severity.WARNING]] == [True]
    (tmp_path / "other").unlink()
    (tmp_path / "link").symlink_to(file)
    assert len(look(tmp_path / "link")[Severity.NOTICE]) == 2
    file.write_text("00" * 32)
    assert ["marks with" in f.message for f in look(file)[Severity.WARNING]] == [True]
    file.write_text("no key")
    assert ["no key" in f.message for f in look(file)[Severity.WARNING]] == [True]
    assert ["cannot be" in f.message for f in look(tmp_path / "no")[Severity.WARNING]] == [True]
    assert ["ordinary" in f.message for f in look(tmp_path)[Severity.WARNING]] == [True]


def test_what_a_role_may_not_see_is_said(
    cluster: ThrowawayCluster, empty_db: psycopg.Connection[Any]
) -> None:
    for statement in (
        "CREATE ROLE dba LOGIN CREATEROLE",
        "CREATE ROLE researcher LOGIN",
        "CREATE ROLE auditor LOGIN",
        "GRANT CREATE ON DATABASE empty_test TO dba",
        "CREATE SCHEMA dpi AUTHORIZATION dba",
        "CREATE TABLE dpi.patient (patient_id int PRIMARY KEY, weight numeric(5,1))",
        "ALTER TABLE dpi.patient OWNER TO dba",
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER copy FOREIGN DATA WRAPPER postgres_fdw",
        "CREATE USER MAPPING FOR PUBLIC SERVER copy",
    ):
        empty_db.execute(statement.encode())
    body = {**DOCUMENT["relation"]["dpi.patient"], "decoys": False}
    with connect(cluster.dsn("empty_test", "dba")) as session:
        install(session, sql_only=True)
        with session.connection.transaction():
            apply_policy(session, {"relation": {"dpi.patient": body}}, KEY)
            enrol(session, ["researcher"], RecipientClass.SECONDARY, KEY)
        session.connection.execute("GRANT balise_auditor TO auditor")
        report = examine(session, now=datetime.now(UTC))
        assert {(f.code, f.severity, f.object) for f in report.findings} == {
            ("D31", Severity.NOTICE, "track_counts"),
            ("D41", Severity.NOTICE, "balise_keep_in_step"),
            ("D41", Severity.NOTICE, "balise_refuse_drop"),
        }
        assert [said.split()[0] for said in report.not_checked] == ["as", "pg_hba.conf:"]
        session.connection.execute("GRANT SELECT ON dpi.patient TO researcher")
        session.connection.execute("GRANT USAGE ON SCHEMA dpi TO researcher")
        [worst, *_] = examine(session, now=datetime.now(UTC)).findings
        assert worst.code == "D08"
        session.connection.execute(worst.mend.encode())
        assert examine(session, now=datetime.now(UTC)).worst is Severity.NOTICE
    with connect(cluster.dsn("empty_test", "auditor")) as session:
        report = examine(session, now=datetime.now(UTC))
        assert any("codeword" in said for said in report.not_checked)


@pytest.mark.parametrize(
    "harmless",
    [
        # a view that checks its caller's rights
        (
            f"{SCHEMA}; CREATE VIEW desk.v WITH (security_invoker) AS {RAW};"
            "GRANT SELECT ON desk.v TO researcher"
        ),
        # the same below a view of a superuser: PostgreSQL still checks the caller's
        (
            f"{SCHEMA}; CREATE VIEW desk.v WITH (security_invoker) AS {RAW};"
            "CREATE VIEW desk.w AS SELECT * FROM desk.v; GRANT SELECT ON desk.w TO researcher"
        ),
        # a view whose owner cannot read the relation
        (
            f"{SCHEMA}; CREATE VIEW desk.v AS {RAW}; ALTER VIEW desk.v OWNER TO helper;"
            "GRANT SELECT ON desk.v TO researcher"
        ),
    ],
)
def test_views_that_show_nothing(site: Site, harmless: str) -> None:
    site.run(*harmless.split(";"))
    name = "desk.w" if "desk.w" in harmless else "desk.v"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        site.as_recipient(f"SELECT * FROM {name}")
    assert site.findings() == []


def test_harmless_grants_are_not_reported(site: Site) -> None:
    site.run(
        "CREATE SCHEMA desk",
        "GRANT USAGE ON SCHEMA desk TO PUBLIC",
        "CREATE TABLE desk.public_holiday (day date)",
        "GRANT ALL ON desk.public_holiday TO researcher",
        "CREATE VIEW desk.own AS SELECT * FROM marked.patient",
        "GRANT SELECT ON desk.own TO researcher",
        "CREATE FUNCTION desk.one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION desk.own() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION desk.own OWNER TO helper",
        "GRANT SELECT ON dpi.patient TO helper",
        "REVOKE ALL ON FUNCTION desk.own FROM PUBLIC",
        "GRANT helper TO keeper",
    )
    assert site.findings() == []


def test_revoked_recipients_keep_nothing(site: Site) -> None:
    site.run("GRANT pg_read_all_data TO researcher", READ, "GRANT keeper TO researcher")
    with site.connection.transaction():
        revoke(site.session, "researcher")
    found = site.findings()
    assert {(f.code, f.severity, f.object) for f in found} == {
        ("D40", Severity.WARNING, "pg_read_all_data"),
        ("D40", Severity.WARNING, "dpi.patient"),
    }
    site.mend(found)
    assert site.findings() == []


def test_what_is_missing(site: Site) -> None:
    site.run(
        "DROP VIEW marked_care.patient",
        "ALTER VIEW marked.patient OWNER TO postgres",
        "SET session_replication_role = replica",
        "ALTER EVENT TRIGGER balise_keep_in_step DISABLE",
        "ALTER TABLE dpi.result RENAME TO outcome",
        "ALTER EVENT TRIGGER balise_keep_in_step ENABLE",
        "DROP OWNED BY researcher",
        "ALTER ROLE researcher RENAME TO gone",
    )
    found = [f for f in site.findings() if f.code in ("D23", "D24")]
    assert [(f.code, f.object) for f in found] == [
        ("D24", "dpi.result"),
        ("D24", "marked.patient"),
        ("D24", "marked_care.patient"),
        ("D23", "researcher"),
    ]
    site.run(found[1].mend, found[3].mend)
    assert {f.object for f in site.findings() if f.code in ("D23", "D24")} == {
        "dpi.result",
        "marked_care.patient",
    }


def test_names_that_need_quotes(site: Site) -> None:
    site.run(
        'CREATE SCHEMA "Odd; schema"',
        'CREATE VIEW "Odd; schema"."v""; x" AS TABLE dpi.patient',
        'CREATE ROLE "other; role"',
        'GRANT USAGE ON SCHEMA "Odd; schema" TO "other; role"',
        'GRANT SELECT ON "Odd; schema"."v""; x" TO "other; role"',
        'GRANT "other; role" TO researcher',
    )
    [finding] = site.findings()
    assert finding.code == "D11"
    assert finding.mend == 'REVOKE SELECT ON "Odd; schema"."v""; x" FROM "other; role"'
    site.run(finding.mend)
    assert site.findings() == []


def test_what_is_open_to_all_is_said_once(site: Site) -> None:
    site.run("CREATE ROLE registry LOGIN")
    with site.connection.transaction():
        enrol(site.session, ["registry"], RecipientClass.CARE, KEY)
    site.run("GRANT USAGE ON SCHEMA dpi TO PUBLIC", "GRANT SELECT ON dpi.patient TO PUBLIC")
    [finding] = site.findings()
    assert (finding.code, finding.role) == ("D08", "")
    assert finding.message == "everyone (PUBLIC), so every recipient, may read dpi.patient"
    site.run(finding.mend, "GRANT SELECT ON dpi.patient TO registry")
    [finding] = site.findings()
    assert finding.role == "registry"


def test_order_and_summary(site: Site) -> None:
    site.run(
        "GRANT researcher TO helper",
        "GRANT SELECT ON dpi.patient TO researcher",
        "GRANT pg_read_all_data TO researcher",
    )
    report = site.report()
    found = report.findings
    assert [f.severity for f in found] == sorted(
        (f.severity for f in found), key=list(Severity).index
    )
    assert report.worst is Severity.CRITICAL
    assert Report([], [], 0).worst is None
    assert report.count(Severity.NOTICE) == 1
    answer = report.as_dict()
    assert (answer["not_checked"], answer["roles"]) == ([], 1)
    assert set(answer["findings"][0]) == {
        *("code", "severity", "role", "object", "message", "mend", "command")
    }


def test_showing_views_is_recursive() -> None:
    sources = [
        ("v", "v", False, "t", True),
        ("w", "v", False, "v", True),
        ("invoker", "v", True, "t", True),
        ("over", "v", False, "invoker", True),
        ("kept", "m", False, "over", True),
        ("unreadable", "v", False, "t", False),
        ("marked", "v", False, "t", True),
        ("fine", "v", False, "marked", True),
    ]
    assert showing_views(sources, ["t"], ["marked"]) == {"v", "w", "kept"}


@pytest.mark.slow
def test_a_server_that_lets_everyone_in_and_its_standby() -> None:
    settings = {"wal_level": "logical", "unix_socket_permissions": "0777"}
    with ThrowawayCluster(settings=settings) as server:
        with connect(server.dsn()) as session:
            session.connection.execute(
                "CREATE SCHEMA dpi; CREATE ROLE researcher LOGIN;"
                "CREATE TABLE dpi.patient (patient_id int PRIMARY KEY, weight numeric(5,1))"
            )
            install(session, sql_only=True)
            body = DOCUMENT["relation"]["dpi.patient"]
            with session.connection.transaction():
                apply_policy(session, {"relation": {"dpi.patient": body}}, KEY)
                enrol(session, ["researcher"], RecipientClass.SECONDARY, KEY)
            session.connection.execute(
                "SELECT pg_create_logical_replication_slot('outlet', 'pgoutput')"
            )
            session.connection.execute("GRANT SELECT ON dpi.patient TO researcher")
            found = examine(session, now=datetime.now(UTC)).findings
            assert [f.code for f in found] == ["D08", "D28", "D46"]
            session.connection.execute(found[1].mend.encode())
        server.stop()
        # recovery that never ends is what a hot standby is in
        owner = (server.data_dir / "PG_VERSION").stat()
        signal = server.data_dir / "standby.signal"
        signal.touch()
        os.chown(signal, owner.st_uid, owner.st_gid)
        server.start()
        with connect(server.dsn()) as session:
            assert session.fetch("SELECT pg_is_in_recovery()") == [(True,)]
            found = examine(session, now=datetime.now(UTC)).findings
            assert [f.code for f in found] == ["D08", "D46"]
