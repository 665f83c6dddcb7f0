"""Schema balise: put it into a database, bring it up to date, take it out again.

As an extension (needs a superuser and plpython3u), or as plain SQL where those cannot be had: the
same catalog and the same marked views, with the command line in place of the SQL functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pgbalise.compile.views import CATALOG, DECOYS
from pgbalise.errors import DatabaseProblem, EnvironmentProblem

if TYPE_CHECKING:
    from pgbalise.session import Session

CATALOG_VERSION = "0.2.0"
"""The version of the catalog that this library reads and writes."""

OWNER = "balise_owner"
"""The role that owns the marked views."""

ROLES = (OWNER, "balise_admin", "balise_auditor", "balise_proxy", "balise_tripwire")
"""The roles that pgbalise creates; they belong to the server, not to one database."""


def found(session: Session) -> tuple[str | None, bool]:
    """Return the version of the catalog in this database, if any, and whether as an extension."""
    [(extension, has_version)] = session.fetch(
        "SELECT (SELECT extversion::text FROM pg_extension WHERE extname = 'pgbalise'),"
        " to_regprocedure('balise.version()') IS NOT NULL"
    )
    if extension is not None:
        return str(extension), True
    if not has_version:
        return None, False
    [(version,)] = session.fetch("SELECT balise.version()")
    return str(version), False


def installed(session: Session) -> str:
    """Return the catalog's version.

    Raise DatabaseProblem when the database has none, or not the one this library works with.
    """
    version, _ = found(session)
    if version is None:
        raise DatabaseProblem("this database has no pgbalise extension", hint="run pgbalise init")
    if version != CATALOG_VERSION:
        raise DatabaseProblem(
            f"this database's catalog is of version {version}, this library's {CATALOG_VERSION}",
            hint="run ALTER EXTENSION pgbalise UPDATE, or install the library of that version",
        )
    return version


def install(session: Session, *, sql_only: bool = False) -> str:
    """Create schema balise, or bring it up to date; return its version.

    ``sql_only`` needs no superuser, no extension and no plpython3u: only CREATEROLE (unless the
    roles in ROLES exist and the session's role is a member of balise_owner) and CREATE on the
    database. Runs in one transaction of its own.
    """
    version, extension = found(session)
    if sql_only and extension:
        raise DatabaseProblem(
            "this database has pgbalise as an extension", hint="leave --sql-only out"
        )
    if not sql_only and version is not None and not extension:
        raise DatabaseProblem(
            "this database has pgbalise as plain SQL, without the extension", hint="give --sql-only"
        )
    if sql_only:
        _install_sql(session, version)
    elif version is None:
        if not session.fetch("SELECT 1 FROM pg_available_extensions WHERE name = 'pgbalise'"):
            raise DatabaseProblem(
                "this server has no pgbalise extension",
                hint="run make -C sql install on its machine first, or give --sql-only",
            )
        session.fetch("CREATE EXTENSION pgbalise CASCADE")
    elif version != CATALOG_VERSION:
        session.fetch("ALTER EXTENSION pgbalise UPDATE")
    return installed(session)


def _install_sql(session: Session, version: str | None) -> None:
    if version == CATALOG_VERSION:
        return
    missing = [
        role
        for role in ROLES
        if not session.fetch("SELECT 1 FROM pg_roles WHERE rolname = $1::text", role)
    ]
    [(may_create_roles, may_create_schemas)] = session.fetch(
        "SELECT rolsuper OR rolcreaterole, has_database_privilege(current_database(), 'CREATE')"
        " FROM pg_roles WHERE rolname = current_user"
    )
    if not may_create_schemas:
        raise DatabaseProblem(
            "this role may not create a schema here", hint="GRANT CREATE ON DATABASE"
        )
    if missing and not may_create_roles:
        raise DatabaseProblem(
            f"this role may not create the roles {', '.join(missing)}",
            hint="give it CREATEROLE, or have them created and balise_owner granted to it",
        )
    if version is None:
        if session.fetch("SELECT 1 FROM pg_namespace WHERE nspname = $1::text", CATALOG):
            raise DatabaseProblem(f"there is a schema {CATALOG} that is not pgbalise's")
        parts = ["CREATE SCHEMA balise;", _script("catalog.sql")]
    else:
        parts = [_script(f"catalog--{version}--{CATALOG_VERSION}.sql")]
    parts += [_script("routines.sql"), _script("rights.sql"), _JOIN_OWNER]
    session.fetch("BEGIN;\n" + "\n".join(parts) + "\nCOMMIT;")


# ALTER VIEW ... OWNER TO asks for membership, which CREATEROLE may grant
_JOIN_OWNER = """
DO $$
BEGIN
    IF NOT pg_catalog.pg_has_role('balise_owner', 'USAGE') THEN
        GRANT balise_owner TO CURRENT_USER;
    END IF;
END
$$;
"""


def _script(name: str) -> str:
    package = Path(__file__).resolve().parent
    # in an installed package, and in the source tree
    for folder in (package / "sql", package.parent / "sql"):
        if (folder / name).is_file():
            return (folder / name).read_text("utf-8")
    raise EnvironmentProblem(
        f"this installation of pgbalise lacks sql/{name}", hint="install the package again"
    )


def uninstall(session: Session) -> None:
    """Take pgbalise out of this database: views, grants, decoys, catalog, in one transaction.

    The hospital's own relations are as they were before. Without the catalog only the master key
    and the registry's records can still tell whose copy a leak is. Roles go too unless another
    database uses them or the session's role may not drop them. Raise DatabaseProblem when
    something of somebody else's depends on a view.
    """
    version, extension = found(session)
    if version is None:
        raise DatabaseProblem("this database has no pgbalise extension")
    recipients = session.fetch(
        "SELECT b.role_name::text, current_database()::text FROM balise.recipient AS b"
        " JOIN pg_roles AS r ON r.rolname = b.role_name"
        " JOIN pg_db_role_setting AS s"
        " ON s.setrole = r.oid AND 'track_counts=off' = ANY (s.setconfig)"
        " JOIN pg_database AS d ON d.oid = s.setdatabase AND d.datname = current_database()"
    )
    for role, database in recipients:
        session.run("ALTER ROLE %I IN DATABASE %I RESET track_counts", role, database)
    schemas = session.fetch(
        "SELECT DISTINCT v.schema_name::text FROM balise.marked_view AS v"
        " JOIN pg_namespace AS n ON n.nspname = v.schema_name"
    )
    decoys = session.fetch("SELECT 1 FROM pg_namespace WHERE nspname = $1::text", DECOYS)
    session.run("DROP OWNED BY %I", OWNER)
    for (schema,) in schemas:
        if not session.fetch(
            "SELECT 1 FROM pg_depend AS d WHERE d.refclassid = 'pg_namespace'::regclass"
            " AND d.refobjid = $1::text::regnamespace",
            schema,
        ):
            session.run("DROP SCHEMA %I", schema)
    if decoys:
        session.run("DROP SCHEMA %I CASCADE", DECOYS)
        session.run("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_lock_status() FROM pg_monitor")
        session.run("GRANT EXECUTE ON FUNCTION pg_catalog.pg_lock_status() TO PUBLIC")
    if extension:
        session.run("DROP EXTENSION pgbalise")
    session.run("DROP SCHEMA balise CASCADE")
    for role in ROLES:
        # since PostgreSQL 16, CREATEROLE drops only what it has the ADMIN option of
        if session.fetch(
            "SELECT 1 FROM pg_roles AS r, pg_roles AS me"
            " WHERE r.rolname = $1::text AND me.rolname = current_user AND NOT EXISTS ("
            "SELECT FROM pg_shdepend AS d"
            " WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid)"
            " AND (me.rolsuper OR me.rolcreaterole"
            " AND (current_setting('server_version_num')::int < 160000"
            " OR pg_has_role(r.oid, 'USAGE WITH ADMIN OPTION')))",
            role,
        ):
            session.run("DROP ROLE %I", role)
