"""What a role is, and which other roles it can act as."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import TYPE_CHECKING, Final

from pgbalise.doctor.findings import Finding, Severity
from pgbalise.doctor.scene import Scene, with_mend
from pgbalise.install import OWNER

if TYPE_CHECKING:
    from pgbalise.session import Session


def missing_roles(session: Session) -> Iterator[Finding]:
    """D23 for recipients without a role, D01 for superusers."""
    for role, ident, fix in session.fetch(
        "SELECT b.role_name::text, quote_ident(b.role_name),"
        " format('SELECT balise.revoke(%L)', b.role_name) FROM balise.recipient AS b"
        " WHERE b.revoked_at IS NULL AND NOT EXISTS"
        " (SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname = b.role_name)"
    ):
        text = f"{role} is enrolled, but there is no such role"
        if session.fetch("SELECT to_regprocedure('balise.revoke(name)') IS NOT NULL") == [(True,)]:
            yield Finding("D23", Severity.NOTICE, role, ident, text, fix)
        else:
            command = f"pgbalise recipient revoke {quote(role)}"
            yield Finding("D23", Severity.NOTICE, role, ident, text, command=command)
    for role, fix in session.fetch(
        "SELECT r.rolname::text, format('ALTER ROLE %I NOSUPERUSER', r.rolname)"
        " FROM balise.recipient AS b JOIN pg_catalog.pg_roles AS r ON r.rolname = b.role_name"
        " WHERE b.revoked_at IS NULL AND r.rolsuper"
    ):
        text = f"role {role} is a superuser: no privilege binds it"
        yield Finding("D01", Severity.CRITICAL, role, "superuser", text, fix)


def attributes(session: Session, scene: Scene) -> Iterator[Finding]:
    """D01 to D04: what the role is, or can become."""
    texts = {
        "SUPERUSER": ("D01", Severity.CRITICAL, "no privilege binds it"),
        "BYPASSRLS": ("D02", Severity.WARNING, "row security does not bind it"),
        "REPLICATION": ("D03", Severity.CRITICAL, "it can copy the whole cluster"),
        "CREATEROLE": (
            ("D04", Severity.CRITICAL, "it can grant itself the roles that read everything")
            if scene.version < 160000
            else ("D04", Severity.WARNING, "it can create roles and grant those it administers")
        ),
    }
    for other, attribute, fix in session.fetch(
        "SELECT o.rolname::text, a.name, format('ALTER ROLE %I NO%s', o.rolname, a.name)"
        " FROM pg_catalog.pg_roles AS o"
        " CROSS JOIN LATERAL (VALUES ('SUPERUSER', o.rolsuper), ('BYPASSRLS', o.rolbypassrls),"
        " ('REPLICATION', o.rolreplication), ('CREATEROLE', o.rolcreaterole)) AS a(name, has)"
        # a superuser has the other attributes anyway
        " WHERE a.has AND (a.name = 'SUPERUSER' OR NOT o.rolsuper)"
    ):
        code, severity, text = texts[attribute]
        for role in scene.roles:
            # no attribute is inherited
            if other in scene.reach[role].become:
                own = other == role
                yield Finding(
                    code,
                    severity,
                    role,
                    attribute,
                    f"role {role}{'' if own else f' can become {other}, which'} has {attribute}:"
                    f" {text}",
                    fix if own else scene.leaving(role, other),
                )


_PREDEFINED: Final = {
    "pg_read_all_data": (Severity.CRITICAL, "reads every relation"),
    "pg_write_all_data": (Severity.WARNING, "writes to every relation"),
    "pg_read_server_files": (Severity.CRITICAL, "reads the server's files"),
    "pg_write_server_files": (Severity.CRITICAL, "writes the server's files"),
    "pg_execute_server_program": (Severity.CRITICAL, "runs programs on the server"),
    "pg_create_subscription": (Severity.WARNING, "can have the server connect to others"),
    "pg_maintain": (Severity.NOTICE, "maintains every relation"),
    "pg_monitor": (Severity.NOTICE, "sees the text of other sessions' statements"),
    "pg_read_all_stats": (Severity.NOTICE, "sees the text of other sessions' statements"),
    "pg_stat_scan_tables": (Severity.NOTICE, "measures every relation, decoys among them"),
}


def predefined(session: Session, scene: Scene) -> Iterator[Finding]:
    """D05: membership in the server's own roles; D26: in pgbalise's."""
    del session
    for role in scene.roles:
        held = scene.reach[role].privileges
        for other, (severity, text) in _PREDEFINED.items():
            # what pg_monitor brings along is said once
            implied = other in ("pg_read_all_stats", "pg_stat_scan_tables")
            if other in held and not (implied and "pg_monitor" in held):
                yield Finding(
                    "D05",
                    severity,
                    role,
                    other,
                    f"role {role} is a member of {other}, which {text}",
                    scene.leaving(role, other),
                )
        for other, severity, text in (
            ("balise_admin", Severity.CRITICAL, "decides who is marked, and how"),
            ("balise_auditor", Severity.CRITICAL, "reads who is marked, how, and all decoys"),
            # balise.decoy_digests() under a key of its own: every row is tried, and nobody told
            ("balise_proxy", Severity.CRITICAL, "may try unseen which patients are decoys"),
            # balise.check() tells the auditor of each hit
            ("balise_tripwire", Severity.WARNING, "may try which patients are decoys"),
        ):
            if other in held:
                yield Finding(
                    "D26",
                    severity,
                    role,
                    other,
                    f"role {role} is a member of {other}, which {text}",
                    scene.leaving(role, other),
                )
        if OWNER in held:
            yield Finding(
                "D15",
                Severity.CRITICAL,
                role,
                OWNER,
                f"role {role} is a member of {OWNER}, which reads protected relations and secrets",
                scene.leaving(role, OWNER),
            )


_OWNED: Final = """
SELECT o.rolname::text, x.kind, x.name, x.fix
  FROM (SELECT c.relowner AS owner, 'relation' AS kind,
               format('%I.%I', n.nspname, c.relname) AS name,
               format('ALTER %s %I.%I OWNER TO %I', CASE c.relkind WHEN 'm' THEN 'MATERIALIZED VIEW'
                          WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END,
                      n.nspname, c.relname, CURRENT_USER) AS fix
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.oid = ANY ($1::text[]::oid[])
         UNION ALL
        SELECT n.nspowner, 'schema', quote_ident(n.nspname),
               format('ALTER SCHEMA %I OWNER TO %I', n.nspname, CURRENT_USER)
          FROM pg_catalog.pg_namespace AS n
         WHERE n.oid IN (SELECT c.relnamespace FROM pg_catalog.pg_class AS c
                          WHERE c.oid = ANY ($1::text[]::oid[]))
           -- the database's owner has it by owning that
           AND n.nspowner <> coalesce((SELECT r.oid FROM pg_catalog.pg_roles AS r
                                        WHERE r.rolname = 'pg_database_owner'), 0)
         UNION ALL
        SELECT d.datdba, 'database', quote_ident(d.datname),
               format('ALTER DATABASE %I OWNER TO %I', d.datname, CURRENT_USER)
          FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()) AS x
  JOIN pg_catalog.pg_roles AS o ON o.oid = x.owner
"""


def ownership(session: Session, scene: Scene) -> Iterator[Finding]:
    """D06 and D07: what owns protected relations, their schemas and the database."""
    texts = {
        "relation": ("D06", Severity.CRITICAL, "{} and reads it"),
        "schema": ("D07", Severity.WARNING, "schema {} and can drop or replace what is in it"),
        "database": ("D07", Severity.WARNING, "database {} and can change its settings"),
    }
    for owner, kind, name, fix in session.fetch(_OWNED, scene.targets):
        code, severity, text = texts[kind]
        for role in scene.roles:
            if owner in scene.reach[role].privileges:
                who = scene.through(role, owner)
                mend = scene.leaving(role, owner) or fix
                message = f"{who} owns {text.format(name)}"
                yield Finding(code, severity, role, name, message, mend)


def members(session: Session, scene: Scene) -> Iterator[Finding]:
    """D17: who else acts as a recipient."""
    del session
    for one in scene.memberships:
        if one.group in scene.reach:
            text = (
                f"role {one.member} is a member of recipient {one.group}: it shares its privileges,"
                " but is refused unless enrolled itself"
            )
            if one.member in scene.reach:
                text = f"recipient {one.member} is a member of recipient {one.group}"
            yield Finding("D17", Severity.NOTICE, one.group, one.member, text, one.undo)


_CREATE: Final = with_mend(
    """
SELECT coalesce(g.rolname::text, ''), quote_ident(d.datname), @mend
  FROM pg_catalog.pg_database AS d
 CROSS JOIN LATERAL aclexplode(d.datacl) AS x
  LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee
 WHERE d.datname = current_database() AND x.privilege_type = 'CREATE' AND x.grantee <> d.datdba
""",
    "x.privilege_type",
    "format('DATABASE %I', d.datname)",
    "d.datdba",
    "d.datacl",
)


def on_database(session: Session, scene: Scene) -> Iterator[Finding]:
    """D34: CREATE on the database."""
    for grantee, name, mend in session.fetch(_CREATE):
        for role, who in scene.holders(grantee):
            text = f"{who} may create schemas and trusted extensions in database {name}"
            yield Finding("D34", Severity.NOTICE, role, name, text, mend)


def parameters(session: Session, scene: Scene) -> Iterator[Finding]:
    """D32: settings of superusers that were given away (from PostgreSQL 15)."""
    if scene.version < 150000:
        return
    for grantee, name, privilege in session.fetch(
        "SELECT coalesce(g.rolname::text, ''), p.parname::text, x.privilege_type::text"
        " FROM pg_catalog.pg_parameter_acl AS p CROSS JOIN LATERAL aclexplode(p.paracl) AS x"
        " LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee"
        " WHERE x.grantee <> 10"
    ):
        [(fix,)] = session.fetch(
            "SELECT format('REVOKE %s ON PARAMETER %s FROM %s', $1::text,"
            " (SELECT string_agg(quote_ident(part), '.')"
            " FROM string_to_table($2::text, '.') AS part),"
            " CASE WHEN $3::text = '' THEN 'PUBLIC' ELSE quote_ident($3::text) END)",
            privilege,
            name,
            grantee,
        )
        severity = Severity.CRITICAL if privilege == "ALTER SYSTEM" else Severity.WARNING
        for role, who in scene.holders(grantee):
            text = f"{who} has {privilege} on parameter {name}, which is a superuser's"
            yield Finding("D32", severity, role, name, text, fix)


def counters(session: Session, scene: Scene) -> Iterator[Finding]:
    """D31: the counters of its own transaction tell a role which rows are decoys."""
    rows = session.fetch(
        "SELECT r.rolname::text,"
        " format('ALTER ROLE %I IN DATABASE %I SET track_counts = off',"
        " r.rolname, current_database()),"
        " (SELECT c.setting FROM pg_catalog.pg_db_role_setting AS s"
        " CROSS JOIN LATERAL unnest(s.setconfig) AS c(setting)"
        " WHERE c.setting LIKE 'track_counts=%' AND s.setrole IN (0, r.oid)"
        " AND s.setdatabase IN (0, d.oid)"
        # as the server does: the role's in this database, the role's, the database's, everyone's
        " ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1)"
        " FROM pg_catalog.pg_roles AS r, pg_catalog.pg_database AS d"
        " WHERE r.rolname::text = ANY ($1::text[]) AND d.datname = current_database()",
        list(scene.roles),
    )
    severity = Severity.WARNING if decoys_exist(session) else Severity.NOTICE
    for role, fix, setting in rows:
        if setting is None or setting.split("=")[1].lower() not in ("off", "false", "no", "0"):
            text = (
                f"role {role} has track_counts on: the counters of its own transaction tell which"
                " table a row came from"
            )
            yield Finding("D31", severity, role, "track_counts", text, fix)


def decoys_exist(session: Session) -> bool:
    """Whether some relation has decoys."""
    return bool(session.fetch("SELECT 1 FROM pg_namespace WHERE nspname = 'balise_decoy'"))
