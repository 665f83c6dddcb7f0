"""Every cell of the tables in docs/reference/roles.md, tried on a real server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors

from pgbalise.install import install
from pgbalise.keyfile import generate_key
from pgbalise.registry.store import open_registry, upgrade
from pgbalise.session import PsycopgSession

if TYPE_CHECKING:
    from pathlib import Path

REFUSALS = (
    errors.InsufficientPrivilege,
    errors.InvalidParameterValue,
    errors.DependentObjectsStillExist,
)

DATABASE = """
CREATE SCHEMA ward;
CREATE TABLE ward.vital (id integer PRIMARY KEY, pulse integer, stored_at timestamptz);
INSERT INTO ward.vital SELECT i, 50 + i % 90, now() FROM generate_series(1, 300) AS i;
CREATE TABLE ward.spare (LIKE ward.vital INCLUDING ALL);
CREATE TABLE ward.salary (LIKE ward.vital INCLUDING ALL);
CREATE TABLE public.leak AS SELECT id::text, pulse::text FROM ward.vital;
GRANT SELECT ON public.leak TO PUBLIC;
CREATE ROLE secondary LOGIN; CREATE ROLE care LOGIN; CREATE ROLE "table owner" LOGIN;
CREATE ROLE newcomer LOGIN; CREATE ROLE another LOGIN;
CREATE ROLE admin LOGIN IN ROLE balise_admin;
CREATE ROLE auditor LOGIN IN ROLE balise_auditor;
CREATE ROLE "auditor, reader" LOGIN IN ROLE balise_auditor;
CREATE ROLE proxy LOGIN IN ROLE balise_proxy;
CREATE ROLE application LOGIN IN ROLE balise_tripwire;
GRANT USAGE ON SCHEMA ward TO admin, "auditor, reader", "table owner";
GRANT SELECT ON ward.vital TO "auditor, reader";
GRANT SELECT ON ward.spare TO admin WITH GRANT OPTION;
ALTER TABLE ward.vital OWNER TO "table owner";
SELECT balise.mark_column('ward.vital', 'pulse', quantum => '1');
SELECT balise.apply('{key}');
SELECT balise.enrol('secondary', key_file => '{key}'), balise.enrol('care', 'care', '{key}'),
    balise.enrol('another', key_file => '{key}');
"""

ATTEMPTS = {
    "read the marked views of class secondary": "TABLE marked.vital",
    "read the marked views of class care": "TABLE marked_care.vital",
    "read another recipient's copy by becoming it": "SET SESSION AUTHORIZATION another;"
    "TABLE marked.vital",
    "read the protected relation": "TABLE ward.vital",
    "read secrets: seeds, stored words": "TABLE balise.relation_secret; TABLE balise.codeword",
    "read the views' definitions: quanta, bounds": "SELECT 1 / (definition LIKE '%get_bit%')::int"
    " FROM pg_views WHERE schemaname = 'marked'",
    "read policies, epochs, recipients": "TABLE balise.policy; TABLE balise.epoch;"
    "TABLE balise.recipient",
    "read commitments": "TABLE balise.commitment",
    "try whether a value is a decoy's: balise.decoy_digests()": "SELECT balise.decoy_digests("
    "sha256('key'))",
    "have a text checked for decoys: balise.check()": "SELECT balise.check('x')",
    "read who met a decoy: balise.tripwire": "TABLE balise.tripwire",
    "take events to be told: balise.tripwires()": "SELECT balise.tripwires(1),"
    " balise.tripwires_told('{{}}'), balise.decoys_issued()",
    "trace with balise.trace()": "SELECT balise.trace('public.leak', 'ward.vital', '{key}')",
    "change the draft, apply it, refresh views": "SELECT balise.mark_column('ward.vital', 'pulse',"
    " quantum => '2'), balise.apply('{key}'), balise.refresh_views()",
    "protect another relation that it could grant": "SELECT balise.mark_column('ward.spare',"
    " 'pulse', quantum => '1'), balise.apply('{key}')",
    "protect another relation that it could not grant": "SELECT balise.mark_column('ward.salary',"
    " 'pulse', quantum => '1'), balise.apply('{key}')",
    "open an epoch": "SELECT balise.open_epoch('{key}')",
    "enrol and revoke recipients": "SELECT balise.enrol('newcomer', key_file => '{key}');"
    "SELECT balise.revoke('newcomer')",
    "enrol with force": "SELECT balise.enrol('newcomer', key_file => '{key}', force => true)",
    "change the catalog's tables by hand": "UPDATE balise.recipient SET revoked_at = now()",
    "add a column to the protected relation": "ALTER TABLE ward.vital ADD COLUMN note text",
    "drop a carrier or the key, with CASCADE": "ALTER TABLE ward.vital DROP pulse CASCADE",
    "drop a marked view": "DROP VIEW marked.vital",
    "disable the event triggers": "ALTER EVENT TRIGGER balise_refuse_drop DISABLE",
    "drop the extension, with CASCADE": "DROP EXTENSION pgbalise CASCADE",
}

REGISTRY = """
CREATE ROLE writer LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE courier LOGIN;
GRANT USAGE ON SCHEMA balise_registry TO writer, courier, reader;
GRANT SELECT ON ALL TABLES IN SCHEMA balise_registry TO writer, courier, reader;
GRANT INSERT ON ALL TABLES IN SCHEMA balise_registry TO writer, courier;
GRANT UPDATE ON balise_registry.recipient, balise_registry.decoy TO writer;
GRANT UPDATE (closed_at, conclusion) ON balise_registry.investigation TO writer;
GRANT UPDATE (verdict, ended_at, report_digest) ON balise_registry.trace TO writer;
GRANT UPDATE (delivered_at) ON balise_registry.alert TO courier;
"""

REGISTRY_ATTEMPTS = {
    "read: `ledger list`, `verify`, `export`": "TABLE balise_registry.entry;"
    "TABLE balise_registry.checkpoint",
    "add entries: `registry record`, `ledger import-pgaudit`, `checkpoint`": "INSERT INTO"
    " balise_registry.entry VALUES (1, now(), 'x', '{{}}', sha256('a'), sha256('b'));"
    "INSERT INTO balise_registry.checkpoint"
    " VALUES (1, sha256('c'), sha256('b'), now(), sha256('d') || sha256('e'))",
    "note a revocation": "UPDATE balise_registry.recipient SET revoked_at = now()",
    "note that an alert was told": "UPDATE balise_registry.alert SET delivered_at = now()",
    "look at cases: `case list`, `case show`, `trace --registry`": "TABLE"
    " balise_registry.investigation; TABLE balise_registry.leak; TABLE balise_registry.trace;"
    "TABLE balise_registry.commitment",
    "open a case, add files: `case open`, `case add`": "INSERT INTO"
    " balise_registry.investigation (title, opened_at, alpha) VALUES ('x', now(), 1e-6);"
    "INSERT INTO balise_registry.leak"
    " (investigation_id, file_name, file_digest, found_at, size, added_at)"
    " SELECT investigation_id, 'x', sha256('a'), now(), 1, now()"
    " FROM balise_registry.investigation",
    "look at its files, close and reopen it: `case run`, `case close`, `case reopen`": "UPDATE"
    " balise_registry.trace SET verdict = '{{}}', ended_at = now(), report_digest = NULL;"
    "UPDATE balise_registry.investigation SET closed_at = now(), conclusion = 'x'",
    "change or remove an entry": "DELETE FROM balise_registry.entry",
    "drop the trigger that refuses that": "DROP TRIGGER append_only ON balise_registry.entry",
    "upgrade": "CREATE TABLE balise_registry.another ()",
}


def documented(project: Path, heading: str) -> dict[str, dict[str, str]]:
    """Return the table below a heading: for each thing to do, each role's yes or no."""
    page = (project / "docs/reference/roles.md").read_text("utf-8")
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| ")
    ]
    return {what: dict(zip(rows[0][1:], may, strict=True)) for what, *may in rows[1:]}


def tried(dsns: dict[str, str], attempts: dict[str, str], key: str) -> dict[str, dict[str, str]]:
    """Try everything as everyone, each in a transaction that is rolled back."""
    found: dict[str, dict[str, str]] = {what: {} for what in attempts}
    for role, dsn in dsns.items():
        with psycopg.connect(dsn) as client:
            for what, statements in attempts.items():
                try:
                    client.execute(statements.format(key=key).encode())
                    found[what][role] = "yes"
                except REFUSALS:
                    found[what][role] = "no"
                client.rollback()
    return found


@pytest.fixture
def key(cluster: Any) -> Any:
    """A master key that the server's user may read."""
    path = cluster.data_dir / "roles.key"
    generate_key(path)
    owner = cluster.data_dir.stat()
    os.chown(path, owner.st_uid, owner.st_gid)
    yield str(path)
    path.unlink()


def test_everyone_may_do_what_the_page_says(
    cluster: Any, empty_db: psycopg.Connection[Any], project: Path, key: str
) -> None:
    install(PsycopgSession(empty_db))
    empty_db.execute(DATABASE.format(key=key).encode())
    said = documented(project, "The patient database")
    assert len(said) > 10
    dsns = {
        role: cluster.dsn(empty_db.info.dbname, "postgres" if role == "superuser" else role)
        for role in next(iter(said.values()))
    }
    assert tried(dsns, ATTEMPTS, key) == said


def test_everyone_may_do_with_the_registry_what_the_page_says(
    cluster: Any, empty_db: psycopg.Connection[Any], project: Path
) -> None:
    dbname = empty_db.info.dbname
    empty_db.execute(
        f"CREATE ROLE owner LOGIN; GRANT CREATE ON DATABASE {dbname} TO owner".encode()
    )
    with open_registry(cluster.dsn(dbname, "owner")) as registry:
        upgrade(registry)
    empty_db.execute(REGISTRY.encode())
    said = documented(project, "The registry")
    assert len(said) > 3
    dsns = {
        role: cluster.dsn(dbname, "postgres" if role == "superuser" else role)
        for role in next(iter(said.values()))
    }
    assert tried(dsns, REGISTRY_ATTEMPTS, "") == said
