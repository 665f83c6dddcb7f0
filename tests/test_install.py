"""Schema balise as an extension and as plain SQL: installed, brought up to date, taken out."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgbalise.database import (
    apply_policy,
    check_commitments,
    check_master_key,
    enrol,
    open_epoch,
    recipients,
    refresh_views,
    revoke,
)
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.errors import DatabaseProblem, InvalidInput, InvalidPolicy
from pgbalise.install import CATALOG_VERSION, ROLES, install, installed, uninstall
from pgbalise.marking.codes import bias, codeword, commitment, dither, stored_word
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import PsycopgSession
from tests.demonstration import marks_only

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = MasterKey(bytes(range(32)))
SAMPLE = "SELECT * FROM marked.lab_result WHERE result_id <= 5000 ORDER BY result_id"


@pytest.fixture
def document(project: Path) -> dict[str, Any]:
    return marks_only(project)


def seen_by(cluster: Any, connection: psycopg.Connection[Any], role: str) -> list[Any]:
    with psycopg.connect(cluster.dsn(connection.info.dbname, role)) as client:
        return client.execute(SAMPLE.encode()).fetchall()


def catalog(connection: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    """Everything that schema balise is made of, as the server describes it."""
    queries = {
        "columns": "SELECT c.relname, c.relkind, c.relacl::text, c.reloptions, a.attname,"
        " format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage, a.attacl::text,"
        " pg_get_expr(d.adbin, d.adrelid), obj_description(c.oid, 'pg_class')"
        " FROM pg_class AS c LEFT JOIN pg_attribute AS a"
        " ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum"
        " WHERE c.relnamespace = 'balise'::regnamespace ORDER BY c.relname, a.attname",
        "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)"
        " FROM pg_constraint WHERE connamespace = 'balise'::regnamespace ORDER BY 1, 2",
        "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'balise' ORDER BY 1",
        "functions": "SELECT pg_get_functiondef(oid), proacl::text, obj_description(oid, 'pg_proc')"
        " FROM pg_proc WHERE pronamespace = 'balise'::regnamespace ORDER BY 1",
        "triggers": "SELECT evtname, evtevent, evtenabled, evttags, evtfoid::regproc::text"
        " FROM pg_event_trigger ORDER BY 1",
        "schema": "SELECT nspacl::text FROM pg_namespace WHERE nspname = 'balise'",
        "dumped": "SELECT c::regclass::text, w FROM pg_extension,"
        " unnest(extconfig, extcondition) AS e(c, w) WHERE extname = 'pgbalise' ORDER BY 1",
        "members": "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend"
        " WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension"
        " WHERE extname = 'pgbalise') ORDER BY 1",
    }
    return {name: connection.execute(query.encode()).fetchall() for name, query in queries.items()}


@pytest.fixture
def released(dpi: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A database as version 0.1.0 left it: one protected relation, alice enrolled, bob revoked."""
    dpi.execute("CREATE EXTENSION pgbalise VERSION '0.1.0' CASCADE")
    dpi.execute("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN")
    dpi.execute(
        """
        INSERT INTO balise.policy (document, applied_at) VALUES ('{"relation": {"dpi.lab_result": {
            "key": {"result_id": "bigint"},
            "carrier": {"value": {"type": "numeric", "quantum": "0.1",
                                  "entity": {"patient_id": "integer"}}}}}}', '2026-03-01')
        """
    )
    dpi.execute(
        "INSERT INTO balise.relation (schema_name, relation_name) VALUES ('dpi', 'lab_result')"
    )
    dpi.execute("INSERT INTO balise.relation_secret VALUES (1, '{1,2}', '{abcdefghijklmnop}')")
    for schema in ("marked", "marked_care"):
        dpi.execute(f"CREATE SCHEMA {schema}".encode())
        view = f"CREATE VIEW {schema}.lab_result AS SELECT l.* FROM dpi.lab_result AS l"
        dpi.execute(f"{view} WHERE EXISTS (SELECT FROM balise.codeword)".encode())
        dpi.execute(f"ALTER VIEW {schema}.lab_result OWNER TO balise_owner".encode())
    for role in ("alice", "bob"):
        bits = codeword(KEY, role, 1, bias(KEY, 1))
        dpi.execute(
            "INSERT INTO balise.recipient VALUES (%s, 'secondary', 1, %s, '2026-03-02', %s)",
            (role, commitment(role, 1, bits), "2026-04-01" if role == "bob" else None),
        )
        if role == "alice":
            dpi.execute(
                "INSERT INTO balise.codeword VALUES (%s, 'secondary', %s)",
                (role, stored_word(bits, dither(KEY, 1))),
            )
    return dpi


def test_an_updated_catalog_is_the_same_as_a_fresh_one(
    released: psycopg.Connection[Any], empty_db: psycopg.Connection[Any]
) -> None:
    released.execute("ALTER EXTENSION pgbalise UPDATE")
    empty_db.execute("CREATE EXTENSION pgbalise CASCADE")
    updated, fresh = catalog(released), catalog(empty_db)
    for part, found in fresh.items():
        assert updated[part] == found, part


def test_an_update_keeps_the_data(released: psycopg.Connection[Any]) -> None:
    session = PsycopgSession(released)
    word = session.fetch("SELECT word FROM balise.codeword")
    with pytest.raises(DatabaseProblem, match=r"of version 0\.1\.0"):
        installed(session)
    assert install(session) == CATALOG_VERSION
    alice, bob = recipients(session)
    assert (alice.role, bob.role) == ("alice", "bob")
    assert bob.revoked_at is not None
    check_commitments(KEY, 1, [alice, bob])
    check_master_key(session, KEY)
    with pytest.raises(InvalidInput, match="another master key"):
        check_master_key(session, MasterKey(bytes(32)))
    assert session.fetch("SELECT word FROM balise.codeword") == word
    assert session.fetch("SELECT opened_at FROM balise.epoch") == session.fetch(
        "SELECT timestamptz '2026-03-01'"
    )
    assert session.fetch("SELECT needed_columns::text[] FROM balise.relation") == [
        (["patient_id", "result_id", "value"],)
    ]
    session.fetch("SET search_path = pg_catalog")
    assert session.fetch(
        "SELECT definition_hash = sha256(convert_to(pg_get_viewdef(format('%I.%I',"
        " schema_name, view_name)::regclass), 'UTF8')) FROM balise.marked_view"
    ) == [(True,), (True,)]
    with released.transaction():
        open_epoch(session, KEY)


def test_a_dump_of_an_older_catalog_is_restored_into_its_version_and_updated(
    cluster: Any, released: psycopg.Connection[Any], tmp_path: Path
) -> None:
    dump = tmp_path / "old.dump"
    programs = cluster.bin_dir
    old = cluster.dsn(released.info.dbname)
    subprocess.run([programs / "pg_dump", "-Fc", "-f", dump, "-d", old], check=True)
    released.execute("CREATE DATABASE restored TEMPLATE template0")
    new = cluster.dsn("restored")
    try:
        with psycopg.connect(new, autocommit=True) as restored:
            restored.execute("CREATE EXTENSION pgbalise VERSION '0.1.0' CASCADE")
            done = subprocess.run(
                [programs / "pg_restore", "-d", new, dump], capture_output=True, text=True
            )
            faults = [x for x in done.stderr.splitlines() if "error:" in x]
            assert len(faults) == 1, faults
            assert 'schema "balise" already exists' in faults[0]
            session = PsycopgSession(restored)
            install(session)
            check_commitments(KEY, 1, recipients(session))
            restored.execute("CREATE ROLE carol LOGIN")
            with restored.transaction():
                enrol(session, ["carol"], RecipientClass.SECONDARY, KEY)
            assert session.fetch("SELECT key_fingerprint FROM balise.epoch") == [
                (KEY.fingerprint(),)
            ]
    finally:
        released.execute("DROP DATABASE restored")


@pytest.fixture
def dba(cluster: Any, dpi: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """A connection of a DBA who is no superuser, as a managed service gives, and owns the data."""
    dpi.execute("CREATE ROLE managed LOGIN CREATEROLE")
    for name in ("patient", "lab_result", "diagnosis"):
        dpi.execute(f"ALTER TABLE dpi.{name} OWNER TO managed".encode())
    dpi.execute("ALTER SCHEMA dpi OWNER TO managed")
    dpi.execute(f"GRANT CREATE ON DATABASE {dpi.info.dbname} TO managed".encode())
    with psycopg.connect(cluster.dsn(dpi.info.dbname, "managed"), autocommit=True) as connection:
        yield connection


def test_plain_sql_needs_no_superuser_and_gives_the_same_marks(
    cluster: Any, hospital: Any, dba: psycopg.Connection[Any], document: dict[str, Any]
) -> None:
    session = PsycopgSession(dba)
    role = hospital.recipients[0]
    assert install(session, sql_only=True) == CATALOG_VERSION
    assert install(session, sql_only=True) == CATALOG_VERSION
    with dba.transaction():
        apply_policy(session, document, hospital.key)
        enrol(session, [role, hospital.recipients[1]], RecipientClass.SECONDARY, hospital.key)
    with psycopg.connect(hospital.dsn(role)) as client:
        expected = client.execute(SAMPLE.encode()).fetchall()
    assert seen_by(cluster, dba, role) == expected
    with dba.transaction():
        revoke(session, role)
        open_epoch(session, hospital.key)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        seen_by(cluster, dba, role)
    assert seen_by(cluster, dba, hospital.recipients[1])
    for secret in ("codeword", "relation_secret"):
        with (
            psycopg.connect(cluster.dsn(dba.info.dbname, role)) as client,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            client.execute(f"SELECT * FROM balise.{secret}".encode())


def protected_without_extension(
    dba: psycopg.Connection[Any], document: dict[str, Any]
) -> PsycopgSession:
    session = PsycopgSession(dba)
    install(session, sql_only=True)
    dba.execute("CREATE ROLE alice LOGIN")
    with dba.transaction():
        apply_policy(session, document, KEY)
        enrol(session, ["alice"], RecipientClass.SECONDARY, KEY)
    return session


def test_plain_sql_follows_new_columns_when_told(
    cluster: Any, dba: psycopg.Connection[Any], document: dict[str, Any]
) -> None:
    session = protected_without_extension(dba, document)
    before = seen_by(cluster, dba, "alice")
    dba.execute("ALTER TABLE dpi.lab_result ADD COLUMN comment text DEFAULT 'none'")
    assert seen_by(cluster, dba, "alice") == before
    with dba.transaction():
        refresh_views(session)
    assert seen_by(cluster, dba, "alice") == [(*row, "none") for row in before]


def test_a_renamed_carrier_is_never_given_as_it_is_stored(
    cluster: Any, dba: psycopg.Connection[Any], document: dict[str, Any]
) -> None:
    session = protected_without_extension(dba, document)
    before = seen_by(cluster, dba, "alice")
    dba.execute("ALTER TABLE dpi.lab_result RENAME COLUMN value TO result")
    refused = pytest.raises(InvalidPolicy, match="no column value")
    with refused, dba.transaction():
        refresh_views(session)
    assert seen_by(cluster, dba, "alice") == before


def test_plain_sql_restored_without_a_superuser_is_right_after_a_refresh(
    cluster: Any, dba: psycopg.Connection[Any], document: dict[str, Any], tmp_path: Path
) -> None:
    protected_without_extension(dba, document)
    before = seen_by(cluster, dba, "alice")
    dump = tmp_path / "dpi.dump"
    dsn = cluster.dsn(dba.info.dbname)
    subprocess.run([cluster.bin_dir / "pg_dump", "-Fc", "-f", dump, "-d", dsn], check=True)
    with psycopg.connect(dsn, autocommit=True) as superuser:
        superuser.execute("CREATE DATABASE restored TEMPLATE template0 OWNER managed")
        try:
            with psycopg.connect(cluster.dsn("restored", "managed"), autocommit=True) as restored:
                subprocess.run(
                    [
                        cluster.bin_dir / "pg_restore",
                        "-d",
                        cluster.dsn("restored", "managed"),
                        dump,
                    ],
                    capture_output=True,
                )
                with restored.transaction():
                    refresh_views(PsycopgSession(restored))
                assert seen_by(cluster, restored, "alice") == before
        finally:
            superuser.execute("DROP DATABASE restored")


def test_a_role_without_the_rights_is_told_which_it_lacks(
    cluster: Any, empty_db: psycopg.Connection[Any]
) -> None:
    dbname = empty_db.info.dbname
    empty_db.execute("CREATE ROLE nobody_special LOGIN")
    with psycopg.connect(cluster.dsn(dbname, "nobody_special"), autocommit=True) as client:
        session = PsycopgSession(client)
        with pytest.raises(DatabaseProblem, match="may not create a schema"):
            install(session, sql_only=True)
    empty_db.execute("CREATE SCHEMA balise")
    with pytest.raises(DatabaseProblem, match="not pgbalise's"):
        install(PsycopgSession(empty_db), sql_only=True)


def test_the_two_ways_of_installing_are_not_mixed(empty_db: psycopg.Connection[Any]) -> None:
    session = PsycopgSession(empty_db)
    install(session)
    with pytest.raises(DatabaseProblem, match="as an extension"):
        install(session, sql_only=True)
    uninstall(session)
    install(session, sql_only=True)
    with pytest.raises(DatabaseProblem, match="as plain SQL"):
        install(session)


@pytest.mark.parametrize("sql_only", [False, True])
def test_uninstalling_leaves_the_database_as_it_was(
    cluster: Any, dpi: psycopg.Connection[Any], document: dict[str, Any], sql_only: bool
) -> None:
    def dumped() -> str:
        done = subprocess.run(
            [cluster.bin_dir / "pg_dump", "--schema-only", "-d", cluster.dsn(dpi.info.dbname)],
            capture_output=True,
            text=True,
            check=True,
        )
        # newer pg_dump begins and ends with a random word
        return "\n".join(x for x in done.stdout.splitlines() if "restrict" not in x)

    dpi.execute("CREATE ROLE alice LOGIN")
    # what the extension asks for is the hospital's from then on
    dpi.execute("CREATE EXTENSION plpython3u")
    before = dumped()
    session = PsycopgSession(dpi)
    install(session, sql_only=sql_only)
    document["relation"]["dpi.patient"]["decoys"] = True
    with dpi.transaction():
        apply_policy(session, document, KEY)
        enrol(session, ["alice"], RecipientClass.SECONDARY, KEY)
    assert dumped() != before
    with dpi.transaction():
        uninstall(session)
    assert dumped() == before
    settings = "SELECT 1 FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database"
    settings += " WHERE datname = current_database())"
    assert dpi.execute(settings.encode()).fetchall() == []
    with pytest.raises(DatabaseProblem, match="no pgbalise"):
        installed(session)


@pytest.fixture
def protected(dpi: psycopg.Connection[Any], document: dict[str, Any]) -> psycopg.Connection[Any]:
    """A database with the extension, the demonstration's policy and one recipient, alice."""
    session = PsycopgSession(dpi)
    install(session)
    dpi.execute("CREATE ROLE alice LOGIN; CREATE ROLE app LOGIN; CREATE ROLE dba LOGIN")
    dpi.execute("ALTER TABLE dpi.lab_result OWNER TO app; GRANT USAGE, CREATE ON SCHEMA dpi TO app")
    with dpi.transaction():
        apply_policy(session, document, KEY)
        enrol(session, ["alice"], RecipientClass.SECONDARY, KEY)
    return dpi


def test_a_new_column_appears_unmarked_in_the_views(
    cluster: Any, protected: psycopg.Connection[Any]
) -> None:
    before = seen_by(cluster, protected, "alice")
    with psycopg.connect(cluster.dsn(protected.info.dbname, "app"), autocommit=True) as app:
        app.execute("ALTER TABLE dpi.lab_result ADD COLUMN comment text DEFAULT 'none'")
    assert seen_by(cluster, protected, "alice") == [(*row, "none") for row in before]
    [(hashes,)] = protected.execute(
        "SELECT bool_and(definition_hash = sha256(convert_to(pg_get_viewdef("
        "format('%I.%I', schema_name, view_name)::regclass), 'UTF8'))) FROM balise.marked_view"
    ).fetchall()
    assert hashes


def test_a_dropped_unmarked_column_leaves_the_views(
    cluster: Any, protected: psycopg.Connection[Any]
) -> None:
    protected.execute("ALTER TABLE dpi.lab_result ADD COLUMN comment text DEFAULT 'none'")
    before = seen_by(cluster, protected, "alice")
    protected.execute("ALTER TABLE dpi.lab_result DROP COLUMN comment CASCADE")
    assert seen_by(cluster, protected, "alice") == [row[:-1] for row in before]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("ALTER TABLE dpi.lab_result DROP COLUMN value CASCADE", "column value of dpi.lab_result"),
        ("ALTER TABLE dpi.lab_result DROP COLUMN result_id CASCADE", "column result_id"),
        ("DROP TABLE dpi.lab_result CASCADE", "rests on dpi.lab_result"),
        ("DROP SCHEMA dpi CASCADE", "rests on dpi."),
        ("ALTER TABLE dpi.lab_result RENAME TO lab", "name of dpi.lab_result"),
        ("ALTER TABLE dpi.lab_result RENAME COLUMN value TO result", "name of column value"),
        ("ALTER TABLE dpi.lab_result SET SCHEMA public", "name of dpi.lab_result"),
        ("ALTER SCHEMA dpi RENAME TO records", "name of dpi."),
    ],
)
def test_what_the_policy_rests_on_is_not_taken_away(
    cluster: Any, protected: psycopg.Connection[Any], statement: str, said: str
) -> None:
    before = seen_by(cluster, protected, "alice")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match=said) as refused:
        protected.execute(statement.encode())
    assert "policy" in (refused.value.diag.message_hint or "")
    assert seen_by(cluster, protected, "alice") == before


def test_a_carrier_of_another_type_is_refused_by_the_view(
    protected: psycopg.Connection[Any],
) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="used by a view") as refused:
        protected.execute("ALTER TABLE dpi.lab_result ALTER COLUMN value TYPE numeric(10,3)")
    assert "marked" in (refused.value.diag.message_detail or "")


def test_a_carrier_of_another_type_has_no_view_until_the_policy_says_so(
    cluster: Any, protected: psycopg.Connection[Any], document: dict[str, Any]
) -> None:
    before = seen_by(cluster, protected, "alice")
    notices: list[str] = []
    protected.add_notice_handler(lambda diag: notices.append(diag.message_primary or ""))
    protected.execute("DROP VIEW marked.lab_result, marked_care.lab_result")
    protected.execute("ALTER TABLE dpi.lab_result ALTER COLUMN value TYPE numeric(12,3)")
    assert any("do not show its columns" in notice for notice in notices)
    with pytest.raises(psycopg.errors.UndefinedTable):
        seen_by(cluster, protected, "alice")
    document["relation"]["dpi.lab_result"]["carrier"]["value"]["type"] = "numeric(12,3)"
    with protected.transaction():
        apply_policy(PsycopgSession(protected), document, KEY)
    assert len(seen_by(cluster, protected, "alice")) == len(before)


def test_tables_that_are_not_protected_are_nobodys_business(
    cluster: Any, protected: psycopg.Connection[Any]
) -> None:
    for role in ("postgres", "app"):
        with psycopg.connect(cluster.dsn(protected.info.dbname, role), autocommit=True) as client:
            client.execute("CREATE TABLE dpi.lab_result_2 (value int, b int)")
            client.execute("ALTER TABLE dpi.lab_result_2 DROP COLUMN value, ADD COLUMN c text")
            client.execute("ALTER TABLE dpi.lab_result_2 RENAME TO lab_result_3")
            client.execute("DROP TABLE dpi.lab_result_3")


def test_dropping_the_extension_leaves_the_hospitals_tables(
    protected: psycopg.Connection[Any],
) -> None:
    def stored() -> Any:
        query = "SELECT md5(string_agg(t::text, '' ORDER BY result_id)) FROM dpi.lab_result AS t"
        return protected.execute(query.encode()).fetchall()

    before = stored()
    protected.execute("DROP EXTENSION pgbalise CASCADE")
    assert stored() == before
    assert protected.execute("SELECT to_regclass('marked.lab_result')").fetchall() == [(None,)]
    protected.execute("ALTER TABLE dpi.lab_result DROP COLUMN value")


@pytest.fixture
def key_file(cluster: Any) -> Iterator[Path]:
    """The master key in a file that the server's user may read."""
    owner = cluster.data_dir.stat()
    path: Path = cluster.data_dir / "install-master.key"
    path.write_text(bytes(range(32)).hex())
    path.chmod(0o600)
    os.chown(path, owner.st_uid, owner.st_gid)
    yield path
    path.unlink()


def test_an_administrator_needs_no_superuser(
    cluster: Any, protected: psycopg.Connection[Any], key_file: Path
) -> None:
    def statement(client: psycopg.Connection[Any], query: str) -> None:
        client.execute(query.encode())

    with psycopg.connect(cluster.dsn(protected.info.dbname, "dba"), autocommit=True) as client:
        for query in ("SELECT balise.apply('/x')", "TABLE balise.recipient", "TABLE balise.policy"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                statement(client, query)
        protected.execute("GRANT balise_admin TO dba; GRANT USAGE ON SCHEMA dpi TO dba")
        protected.execute("CREATE ROLE bob LOGIN")
        statement(client, f"SELECT balise.enrol('bob', key_file => '{key_file}')")
        assert seen_by(cluster, protected, "bob")
        statement(client, "SELECT balise.revoke('bob')")
        statement(client, f"SELECT balise.apply('{key_file}')")
        statement(client, f"SELECT balise.open_epoch('{key_file}')")
        statement(client, "SELECT balise.refresh_views()")
        statement(client, "SELECT balise.unmark_column('dpi.diagnosis', 'diagnosed_on')")
        for query in (
            "TABLE balise.codeword",
            "TABLE balise.relation_secret",
            "SELECT balise.trace('pg_class', 'dpi.lab_result', '/x')",
            "SELECT * FROM dpi.lab_result LIMIT 1",
            "DELETE FROM balise.commitment",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                statement(client, query)
        refused = pytest.raises(psycopg.errors.Error, match="only a superuser")
        protected.execute("CREATE ROLE carol LOGIN")
        with refused:
            statement(client, f"SELECT balise.enrol('carol', 'care', '{key_file}', true)")


def test_an_administrator_protects_only_what_it_may_give_out(
    cluster: Any, protected: psycopg.Connection[Any], key_file: Path
) -> None:
    protected.execute("GRANT balise_admin TO dba; GRANT USAGE ON SCHEMA dpi TO dba")
    protected.execute("CREATE TABLE dpi.salaries (id int PRIMARY KEY, amount int)")
    with psycopg.connect(cluster.dsn(protected.info.dbname, "dba"), autocommit=True) as client:
        client.execute("SELECT balise.mark_column('dpi.salaries', 'amount', quantum => '1')")
        with pytest.raises(psycopg.errors.Error, match="may not give it to others"):
            client.execute(f"SELECT balise.apply('{key_file}')".encode())


def test_an_auditor_reads_and_traces_but_changes_nothing(
    cluster: Any, protected: psycopg.Connection[Any]
) -> None:
    protected.execute("CREATE ROLE auditor LOGIN IN ROLE balise_auditor")
    with psycopg.connect(cluster.dsn(protected.info.dbname, "auditor"), autocommit=True) as client:
        for readable in ("policy", "epoch", "recipient", "commitment", "relation", "marked_view"):
            client.execute(f"TABLE balise.{readable}".encode())
        for query in (
            "TABLE balise.codeword",
            "SELECT balise.revoke('alice')",
            "SELECT balise.apply('/x')",
            "DELETE FROM balise.commitment",
            "TABLE dpi.lab_result",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                client.execute(query.encode())


def test_nothing_is_granted_to_public_and_definers_pin_their_search_path(
    cluster: Any, empty_db: psycopg.Connection[Any]
) -> None:
    empty_db.execute(
        "CREATE ROLE everyone; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO everyone"
    )
    empty_db.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO everyone")
    empty_db.execute("CREATE EXTENSION pgbalise CASCADE")
    found = empty_db.execute(
        "SELECT p.oid::regprocedure::text, p.proacl::text FROM pg_proc AS p"
        " WHERE pronamespace = 'balise'::regnamespace AND (proacl IS NULL"
        " OR proacl::text ~ '[{,]=' OR proacl::text ~ 'everyone') AND proname <> 'refuse'"
        " UNION ALL SELECT c.relname::text, c.relacl::text FROM pg_class AS c"
        " WHERE relnamespace = 'balise'::regnamespace AND relkind IN ('r', 'S')"
        " AND (relacl::text ~ '[{,]=' OR relacl::text ~ 'everyone')"
    ).fetchall()
    assert found == []
    unpinned = empty_db.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE prosecdef"
        " AND pronamespace = 'balise'::regnamespace"
        " AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)"
    ).fetchall()
    assert unpinned == []
    empty_db.execute("ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM everyone")
    empty_db.execute("ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM everyone")


def test_a_dump_restored_into_a_new_cluster_gives_the_same_marks(
    cluster: Any, protected: psycopg.Connection[Any], project: Path, tmp_path: Path
) -> None:
    expected = seen_by(cluster, protected, "alice")
    dump, roles = tmp_path / "dpi.dump", tmp_path / "roles.sql"
    programs = {"pg_dump": ["-Fc", "-f", dump], "pg_dumpall": ["--roles-only", "-f", roles]}
    for program, options in programs.items():
        subprocess.run(
            [cluster.bin_dir / program, *options, "-d", cluster.dsn(protected.info.dbname)],
            check=True,
        )
    with ThrowawayCluster() as other:
        other.install_extension(project / "sql")
        # as a DBA does: the superuser is there already
        script = roles.read_text("utf-8").replace("CREATE ROLE postgres;", "")
        other.psql("\n".join(x for x in script.splitlines() if "restrict" not in x))
        other.psql("CREATE DATABASE dpi TEMPLATE template0")
        subprocess.run(
            [other.bin_dir / "pg_restore", "-e", "-d", other.dsn("dpi"), dump], check=True
        )
        with psycopg.connect(other.dsn("dpi"), autocommit=True) as restored:
            assert seen_by(other, restored, "alice") == expected
            session = PsycopgSession(restored)
            check_commitments(KEY, 1, recipients(session))
            restored.execute("ALTER TABLE dpi.lab_result ADD COLUMN comment text")
            assert len(seen_by(other, restored, "alice")[0]) == len(expected[0]) + 1
            with restored.transaction():
                open_epoch(session, KEY)


def test_temporary_objects_run_nothing_with_the_definers_rights(
    cluster: Any, protected: psycopg.Connection[Any]
) -> None:
    protected.execute("GRANT balise_admin TO dba; GRANT USAGE ON SCHEMA dpi TO dba")
    for role, statement in (
        ("app", "ALTER TABLE dpi.lab_result ADD COLUMN comment text"),
        ("dba", "SELECT balise.mark_column('dpi.patient', 'weight_kg', quantum => '1')"),
        ("dba", "SELECT balise.refresh_views()"),
    ):
        with psycopg.connect(cluster.dsn(protected.info.dbname, role), autocommit=True) as client:
            client.execute(
                "CREATE FUNCTION pg_temp.climb(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql"
                " AS $$ BEGIN IF current_user <> session_user THEN"
                " EXECUTE format('ALTER ROLE %I SUPERUSER', session_user); END IF;"
                " RETURN true; END $$"
            )
            client.execute(
                "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.climb(value))"
            )
            client.execute(statement.encode())
    found = protected.execute(
        "SELECT rolname FROM pg_roles WHERE rolsuper AND rolname IN ('app', 'dba')"
    )
    assert found.fetchall() == []


def test_an_administrator_is_shown_no_secret_in_a_plan(
    cluster: Any, protected: psycopg.Connection[Any], key_file: Path
) -> None:
    protected.execute("GRANT balise_admin TO dba; CREATE ROLE bob LOGIN")
    said: list[str] = []
    with psycopg.connect(cluster.dsn(protected.info.dbname, "dba"), autocommit=True) as client:
        client.add_notice_handler(lambda notice: said.append(notice.message_detail or ""))
        client.execute("SET client_min_messages = log; SET debug_print_plan = on")
        client.execute("SELECT balise.enrol('bob', key_file => %s)", [str(key_file)])
        client.execute("SELECT balise.apply(%s)", [str(key_file)])
        assert client.execute("SHOW debug_print_plan").fetchone() == ("on",)
    [(word, seeds)] = protected.execute(
        "SELECT word, seeds FROM balise.codeword, balise.relation_secret"
        " WHERE role_name = 'bob' ORDER BY relation_id LIMIT 1"
    ).fetchall()
    shown = " ".join(" ".join(said).split())
    assert "PLANNEDSTMT" in shown
    for secret in (word[:20], seeds[0].to_bytes(8, "little", signed=True)):
        signed = [byte - 256 if byte > 127 else byte for byte in secret]
        assert " ".join(map(str, signed)) not in shown


def test_an_administrator_learns_nothing_of_the_servers_files(
    cluster: Any, protected: psycopg.Connection[Any]
) -> None:
    protected.execute("GRANT balise_admin TO dba")
    said = set()
    with psycopg.connect(cluster.dsn(protected.info.dbname, "dba"), autocommit=True) as client:
        for file in ("/etc/passwd", "/etc/shadow", "/tmp", "/nowhere", "/dev/zero", "PG_VERSION"):
            with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
                client.execute("SELECT balise.open_epoch(%s)", [file])
            said.add((refused.value.diag.message_primary, refused.value.diag.message_hint))
    assert len(said) == 1


def test_following_a_new_column_leaves_the_transactions_settings(
    cluster: Any, protected: psycopg.Connection[Any]
) -> None:
    with psycopg.connect(cluster.dsn(protected.info.dbname, "app")) as app:
        settings = "SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'plpgsql.%'"
        before = app.execute(settings).fetchall()
        app.execute("ALTER TABLE dpi.lab_result ADD COLUMN comment text")
        assert app.execute(settings).fetchall() == before


def test_a_new_column_that_would_tell_a_carriers_value_is_not_shown(
    cluster: Any, protected: psycopg.Connection[Any]
) -> None:
    before = seen_by(cluster, protected, "alice")
    said: list[Any] = []
    protected.add_notice_handler(
        lambda notice: said.append((notice.severity, notice.message_detail))
    )
    protected.execute(
        "ALTER TABLE dpi.lab_result ADD COLUMN twice numeric GENERATED ALWAYS AS (value * 2) STORED"
    )
    assert seen_by(cluster, protected, "alice") == before
    [(severity, detail)] = said
    assert severity == "WARNING"
    assert "computes twice" in detail


def test_views_that_go_with_a_type_come_back(
    cluster: Any, protected: psycopg.Connection[Any]
) -> None:
    before = seen_by(cluster, protected, "alice")
    protected.execute("CREATE DOMAIN public.remark AS text")
    protected.execute("ALTER TABLE dpi.lab_result ADD COLUMN comment public.remark")
    protected.execute("DROP DOMAIN public.remark CASCADE")
    assert seen_by(cluster, protected, "alice") == before


@pytest.mark.parametrize(
    ("options", "into"), [(["--jobs", "2"], "new"), (["--clean", "--if-exists"], "same")]
)
def test_a_restored_database_gives_the_same_marks(
    cluster: Any,
    protected: psycopg.Connection[Any],
    tmp_path: Path,
    options: list[str],
    into: str,
) -> None:
    def run(*command: str) -> None:
        done = subprocess.run(
            [cluster.bin_dir / command[0], *command[1:]],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    name = protected.info.dbname
    before = seen_by(cluster, protected, "alice")
    stored = {
        part: protected.execute(f"SELECT * FROM balise.{part} ORDER BY 1".encode()).fetchall()
        for part in ("policy", "recipient", "codeword", "commitment", "relation_secret")
    }
    run("pg_dump", "-Fd", "-f", str(tmp_path / "dump"), "-d", cluster.dsn(name))
    if into == "new":
        protected.execute("CREATE DATABASE restored TEMPLATE template0")
        name = "restored"
    try:
        run("pg_restore", *options, "-d", cluster.dsn(name), str(tmp_path / "dump"))
        with psycopg.connect(cluster.dsn(name), autocommit=True) as restored:
            assert seen_by(cluster, restored, "alice") == before
            for part, rows in stored.items():
                found = restored.execute(f"SELECT * FROM balise.{part} ORDER BY 1".encode())
                assert found.fetchall() == rows
    finally:
        protected.execute("DROP DATABASE IF EXISTS restored")


def make_roles(connection: psycopg.Connection[Any]) -> None:
    """As another database of the server may have left them, or not."""
    for role in ROLES:
        with suppress(psycopg.errors.DuplicateObject):
            connection.execute(f"CREATE ROLE {role}".encode())


def test_an_owner_of_views_who_can_log_in_is_not_trusted(empty_db: psycopg.Connection[Any]) -> None:
    make_roles(empty_db)
    empty_db.execute("ALTER ROLE balise_owner LOGIN")
    try:
        for sql_only in (False, True):
            with pytest.raises(DatabaseProblem, match="balise_owner is there already"):
                install(PsycopgSession(empty_db), sql_only=sql_only)
            empty_db.execute("ROLLBACK")
            assert empty_db.execute("SELECT to_regnamespace('balise')").fetchone() == (None,)
    finally:
        empty_db.execute("ALTER ROLE balise_owner NOLOGIN")
    assert install(PsycopgSession(empty_db)) == CATALOG_VERSION


def test_uninstalling_leaves_roles_that_it_may_not_drop(
    cluster: Any, empty_db: psycopg.Connection[Any]
) -> None:
    dbname = empty_db.info.dbname
    make_roles(empty_db)
    empty_db.execute("CREATE ROLE managed LOGIN IN ROLE balise_owner")
    empty_db.execute(f"GRANT CREATE ON DATABASE {dbname} TO managed".encode())
    with psycopg.connect(cluster.dsn(dbname, "managed"), autocommit=True) as client:
        session = PsycopgSession(client)
        install(session, sql_only=True)
        with client.transaction():
            uninstall(session)
    left = empty_db.execute("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'balise%'")
    assert left.fetchone() == (5,)


def test_a_domain_runs_nothing_when_its_column_comes_to_the_decoys(
    cluster: Any, protected: psycopg.Connection[Any], document: dict[str, Any]
) -> None:
    document["relation"]["dpi.lab_result"]["decoys"] = True
    with protected.transaction():
        apply_policy(PsycopgSession(protected), document, KEY)
    protected.execute(
        "INSERT INTO balise_decoy.lab_result SELECT 'alice', 1, * FROM dpi.lab_result LIMIT 3"
    )
    with psycopg.connect(cluster.dsn(protected.info.dbname, "app"), autocommit=True) as app:
        app.execute(
            "CREATE FUNCTION dpi.climb(text) RETURNS boolean LANGUAGE plpgsql AS"
            " $$ BEGIN IF current_user <> session_user THEN ALTER ROLE app SUPERUSER; END IF;"
            " RETURN true; END $$"
        )
        app.execute("CREATE DOMAIN dpi.remark AS text CHECK (dpi.climb(value))")
        app.execute("ALTER TABLE dpi.lab_result ADD COLUMN comment dpi.remark")
        app.execute("CREATE DOMAIN dpi.short AS text CHECK (length(value) < 9)")
        app.execute("ALTER TABLE dpi.lab_result DROP COLUMN comment CASCADE")
        app.execute("ALTER TABLE dpi.lab_result ADD COLUMN note dpi.short")
    found = protected.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'app'")
    assert found.fetchone() == (False,)
    names = "SELECT attname FROM pg_attribute WHERE attrelid = 'marked.lab_result'::regclass"
    assert ("note",) in protected.execute(names.encode()).fetchall()
