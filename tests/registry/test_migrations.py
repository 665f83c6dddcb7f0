"""Migrations: what they make is what tables.py says, up, down and offline, and nothing else."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from pgbalise.errors import DatabaseProblem, InvalidInput
from pgbalise.registry.store import (
    current,
    downgrade,
    newest,
    open_registry,
    upgrade,
    upgrade_script,
)
from pgbalise.registry.tables import SCHEMA, metadata

CATALOG = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
  a.attidentity::text || a.attgenerated::text || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
WHERE c.relnamespace = 'balise_registry'::regnamespace AND c.relkind = 'r'
UNION ALL SELECT 'comment', relname, obj_description(oid, 'pg_class'), '', '', '' FROM pg_class
WHERE relnamespace = 'balise_registry'::regnamespace AND relkind = 'r'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
FROM pg_constraint WHERE connamespace = 'balise_registry'::regnamespace
UNION ALL SELECT 'index', tablename, indexname, indexdef, '', '' FROM pg_indexes
WHERE schemaname = 'balise_registry'
"""
LOGIC = """
SELECT tgrelid::regclass::text, pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger
WHERE tgrelid::regclass::text LIKE 'balise_registry.%' AND NOT tgisinternal
UNION ALL SELECT proname, pg_get_functiondef(oid), '' FROM pg_proc
WHERE pronamespace = 'balise_registry'::regnamespace
"""


def snapshot(connection: psycopg.Connection[Any], query: str = CATALOG) -> set[Any]:
    rows = connection.execute(query.encode()).fetchall()
    return {row for row in rows if not any("alembic_version" in part for part in row)}


def differences(registry: sa.Connection) -> list[Any]:
    def ours(name: str | None, kind: str, parents: Any) -> bool:
        return name == SCHEMA if kind == "schema" else parents.get("schema_name") == SCHEMA

    options = {
        "include_schemas": True,
        "include_name": ours,
        "version_table_schema": SCHEMA,
        "compare_server_default": True,
    }
    with registry.begin():
        return compare_metadata(MigrationContext.configure(registry, opts=options), metadata)


def test_migrations_make_what_the_tables_describe(
    registry: sa.Connection, empty_db: psycopg.Connection[Any]
) -> None:
    assert current(registry) == newest()
    assert differences(registry) == []
    migrated = snapshot(empty_db)
    empty_db.execute("DROP SCHEMA balise_registry CASCADE")
    empty_db.execute("CREATE SCHEMA balise_registry")
    with registry.begin():
        metadata.create_all(registry)
    described = snapshot(empty_db)
    assert described - migrated == set()
    assert migrated - described == set()


def test_the_comparison_sees_what_differs(
    registry: sa.Connection, empty_db: psycopg.Connection[Any]
) -> None:
    # a guard on the test above
    empty_db.execute("ALTER TABLE balise_registry.alert ALTER body DROP DEFAULT")
    empty_db.execute("DROP INDEX balise_registry.ix_entry_body")
    empty_db.execute("CREATE TABLE balise_registry.more (id int)")
    assert len(differences(registry)) == 3


def test_up_down_and_up_again_leads_to_the_same(
    registry: sa.Connection, empty_db: psycopg.Connection[Any]
) -> None:
    whole, logic = snapshot(empty_db), snapshot(empty_db, LOGIC)
    downgrade(registry, "0001")
    assert current(registry) == "0001"
    assert empty_db.execute("SELECT to_regclass('balise_registry.decoy')").fetchone() == (None,)
    downgrade(registry, "base")
    assert current(registry) is None
    assert snapshot(empty_db) == set()
    upgrade(registry, "0001")
    upgrade(registry)
    upgrade(registry)
    assert (snapshot(empty_db), snapshot(empty_db, LOGIC)) == (whole, logic)


@pytest.mark.parametrize(
    ("table", "row", "revision"),
    [
        (
            "investigation",
            "(title, opened_at, alpha) VALUES ('a case', now(), 0.01)",
            "0002",
        ),
        ("database", "(name, system_identifier, first_seen) VALUES ('dpi', '7', now())", "base"),
    ],
)
def test_a_downgrade_that_would_lose_rows_is_refused(
    registry: sa.Connection,
    empty_db: psycopg.Connection[Any],
    table: str,
    row: str,
    revision: str,
) -> None:
    empty_db.execute(f"INSERT INTO balise_registry.{table} {row}".encode())
    whole = snapshot(empty_db)
    with pytest.raises(DatabaseProblem, match=f"{table} holds rows that a downgrade would lose"):
        downgrade(registry, revision)
    assert current(registry) == newest()
    assert snapshot(empty_db) == whole


def test_the_offline_script_makes_the_same_registry(
    cluster: Any, registry_dsn: str, empty_db: psycopg.Connection[Any]
) -> None:
    cluster.psql(upgrade_script("base", "0001"), dbname=empty_db.info.dbname)
    cluster.psql(upgrade_script("0001"), dbname=empty_db.info.dbname)
    with open_registry(registry_dsn) as registry:
        assert current(registry) == newest()
        assert differences(registry) == []
    offline, logic = snapshot(empty_db), snapshot(empty_db, LOGIC)
    empty_db.execute("DROP SCHEMA balise_registry CASCADE")
    with open_registry(registry_dsn) as registry:
        upgrade(registry)
    assert (snapshot(empty_db), snapshot(empty_db, LOGIC)) == (offline, logic)
    empty_db.execute("DROP SCHEMA balise_registry CASCADE")
    cluster.psql(upgrade_script(), dbname=empty_db.info.dbname)
    assert (snapshot(empty_db), snapshot(empty_db, LOGIC)) == (offline, logic)


def test_the_hospital_s_tables_are_never_touched(
    registry: sa.Connection, empty_db: psycopg.Connection[Any]
) -> None:
    empty_db.execute("CREATE TABLE public.entry (id int); CREATE TABLE public.decoy (id int)")
    assert differences(registry) == []
    downgrade(registry, "base")
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert empty_db.execute(tables).fetchone() == (3,)


def test_an_unknown_revision_is_told_in_one_line(registry: sa.Connection) -> None:
    with pytest.raises(InvalidInput, match="revision"):
        downgrade(registry, "0815")
    with pytest.raises(InvalidInput, match="revision"):
        upgrade_script("0815")
