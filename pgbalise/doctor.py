"""Whether an enrolled role can still reach what is protected, by any path the catalog shows.

The database's privileges are the wall: a role that can read a base relation, a secret or another
recipient's decoys needs no marked view. ``examine`` reads pg_catalog and schema balise only, and
changes nothing. Run it as a superuser or as the extension's owner, with search_path at pg_catalog
(as pgbalise.database.connect sets it), so that no one's functions stand in for the server's.

======  ========  ==================================================================================
code    severity  what
======  ========  ==================================================================================
D01     critical  superuser, or can become one
D02     warning   BYPASSRLS: row security does not bind it
D03     critical  REPLICATION: it can copy the whole cluster
D04     critical  CREATEROLE: before PostgreSQL 16 it can grant itself any role but a superuser
D05     critical  a predefined role that reads everything, or files, or runs programs
D06     critical  can act as the owner of a protected relation
D07     warning   can act as the owner of its schema, or of the database
D08     critical  SELECT on a protected relation
D09     critical  SELECT on columns of a protected relation
D10     mixed     may write to it: TRIGGER critical, REFERENCES notice, the others warning
D11     critical  another view or materialised view shows it, with its owner's rights
D12     warning   a SECURITY DEFINER function whose owner can read it
D13     critical  secrets and catalog in schema balise (reading what is not secret: warning)
D14     critical  decoys in schema balise_decoy
D15     critical  can act as the owner of the marked views
D16     warning   CREATE in a schema on the view owner's search path or of marked views; owns them
D17     notice    is a member of, or has as a member, another role by which views are reachable
D18     critical  an untrusted language was declared trusted, and it may use it
D19     warning   may call a function written in an untrusted language
D20     critical  may call a server function that reads or writes files
D21     mixed     dblink: dblink_connect_u critical, the others warning
D22     warning   may use a foreign server, or read a foreign table
D23     notice    is enrolled, but there is no such role
D24     warning   a protected relation or marked view is missing, or its view has another owner
D25     warning   future relations in a protected schema will be readable by it
======  ========  ==================================================================================

"Protected relation" includes its partitions, and the tables it inherits from or that inherit from
it. A grant counts when the role has it itself, through PUBLIC, or through a role that it can
inherit from or SET ROLE to. Without USAGE on the schema a grant on a relation is a warning only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from pgbalise.catalog import server_version
from pgbalise.compile.views import CATALOG, DECOYS
from pgbalise.errors import DatabaseProblem
from pgbalise.marking.policy import parse_policy

if TYPE_CHECKING:
    from pgbalise.session import Session

VIEW_OWNER: Final = "balise_owner"
"""The role that owns the marked views."""


class Severity(StrEnum):
    """How bad a finding is."""

    CRITICAL = "critical"
    """A path to raw data, secrets or decoys is open now."""
    WARNING = "warning"
    """A path that depends on something the catalog does not show, or a way to do other harm."""
    NOTICE = "notice"
    """Worth knowing."""


@dataclass(frozen=True)
class Finding:
    """One path, for one role."""

    code: str
    severity: Severity
    role: str
    """The enrolled role; empty when it concerns them all."""
    object: str
    """What is reached, as SQL writes it."""
    message: str
    mend: str
    """The statements that close the path, as SQL; empty when there is no single one."""

    def as_dict(self) -> dict[str, str]:
        """Return the finding as a plain dictionary, for JSON."""
        return {name: str(value) for name, value in asdict(self).items()}


def examine(session: Session) -> list[Finding]:
    """Return every open path of every enrolled role, the worst first.

    Raise DatabaseProblem when the database lacks the extension.
    """
    if session.fetch("SELECT pg_catalog.to_regclass('balise.recipient') IS NULL") == [(True,)]:
        raise DatabaseProblem("this database has no pgbalise extension", hint="run pgbalise init")
    scene = _scene(session)
    found: list[Finding] = list(_missing(session))
    if scene.roles:
        for examination in (
            _attributes,
            _predefined,
            _ownership,
            _grants,
            _writes,
            _views,
            _functions,
            _secrets,
            _marked,
            _members,
            _languages,
            _outside,
            _defaults,
        ):
            found += examination(session, scene)
    rank = {severity: at for at, severity in enumerate(Severity)}
    return sorted(
        _gathered(found, scene.roles),
        key=lambda f: (rank[f.severity], f.code, f.role, f.object, f.message),
    )


def _gathered(found: Sequence[Finding], roles: Sequence[str]) -> Sequence[Finding]:
    """Say once what is open to all recipients alike and closed by the same statement."""
    alike: dict[tuple[str, Severity, str, str], list[Finding]] = {}
    for finding in dict.fromkeys(found):
        what = (finding.code, finding.severity, finding.object, finding.mend)
        alike.setdefault(what, []).append(finding)
    out: list[Finding] = []
    for group in alike.values():
        if len(roles) > 1 and {finding.role for finding in group} == set(roles):
            first = group[0]
            message = first.message.replace(f"role {first.role}", "every recipient", 1)
            out.append(replace(first, role="", message=message))
        else:
            out += group
    return out


@dataclass(frozen=True)
class _Scene:
    """What every examination needs."""

    roles: list[str]
    """Enrolled roles that exist and are no superusers."""
    targets: list[str]
    """Protected relations and their relatives by inheritance, as oids."""
    marked: list[str]
    """Marked views, as oids."""
    schemas: list[str]
    """Schemas of marked views."""
    version: int
    leave: Mapping[tuple[str, str], str]
    """(role, other role that it can act as) -> the statements that end that."""

    def leaving(self, role: str, other: str) -> str:
        return self.leave.get((role, other), "")


def _scene(session: Session) -> _Scene:
    roles = [
        name
        for (name,) in session.fetch(
            "SELECT b.role_name::text FROM balise.recipient AS b"
            " JOIN pg_catalog.pg_roles AS r ON r.rolname = b.role_name"
            " WHERE b.revoked_at IS NULL AND NOT r.rolsuper ORDER BY 1"
        )
    ]
    targets = [oid for (oid,) in session.fetch(_TARGETS)]
    views, schemas = _policy_views(session)
    marked = [
        oid
        for (oid,) in session.fetch(
            "SELECT c.oid::text FROM pg_catalog.pg_class AS c"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
            " JOIN unnest($1::text[], $2::text[]) AS v(schema_name, view_name)"
            " ON n.nspname = v.schema_name AND c.relname = v.view_name",
            [schema for schema, _ in views],
            [view for _, view in views],
        )
    ]
    leave = {(role, other): fix for role, other, fix in session.fetch(_LEAVE, roles)}
    return _Scene(roles, targets, marked, schemas, server_version(session), leave)


def _policy_views(session: Session) -> tuple[list[tuple[str, str]], list[str]]:
    rows = session.fetch(
        "SELECT document::text FROM balise.policy WHERE applied_at IS NOT NULL"
        " ORDER BY version DESC LIMIT 1"
    )
    if not rows:
        return [], []
    policy = parse_policy(json.loads(rows[0][0]))
    schemas = list(policy.schemas.values())
    return [(schema, r.view) for schema in schemas for r in policy.relations], schemas


# A relation's relatives: partitions of partitions, parents of parents, whichever way.
_TARGETS: Final = """
WITH RECURSIVE base AS (
    SELECT c.oid
      FROM balise.relation AS b
      JOIN pg_catalog.pg_namespace AS n ON n.nspname = b.schema_name
      JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = b.relation_name
), down AS (
    SELECT oid FROM base
    UNION SELECT i.inhrelid FROM down JOIN pg_catalog.pg_inherits AS i ON i.inhparent = down.oid
), up AS (
    SELECT oid FROM base
    UNION SELECT i.inhparent FROM up JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = up.oid
)
SELECT oid::text FROM down UNION SELECT oid::text FROM up
"""

_LEAVE: Final = """
SELECT e.rolname::text, o.rolname::text,
       coalesce((SELECT string_agg(DISTINCT pg_catalog.format('REVOKE %I FROM %I',
                                                              h.rolname, e.rolname), '; ')
                   FROM pg_catalog.pg_auth_members AS m
                   JOIN pg_catalog.pg_roles AS h ON h.oid = m.roleid
                  WHERE m.member = e.oid AND NOT h.rolsuper
                    AND pg_catalog.pg_has_role(h.oid, o.oid, 'MEMBER')
                     OR m.member = e.oid AND h.oid = o.oid), '')
  FROM pg_catalog.pg_roles AS e
  JOIN pg_catalog.pg_roles AS o ON o.oid <> e.oid AND pg_catalog.pg_has_role(e.oid, o.oid, 'MEMBER')
 WHERE e.rolname = ANY ($1::text[])
"""


def _through(role: str, other: str) -> str:
    """Name the way by which a grant reaches a role."""
    if other == role:
        return f"role {role}"
    if other == "":
        return f"everyone (PUBLIC), so role {role},"
    return f"role {role}, as {other},"


def _missing(session: Session) -> Sequence[Finding]:
    found = [
        Finding(
            "D23",
            Severity.NOTICE,
            role,
            ident,
            f"{role} is enrolled, but there is no such role",
            fix,
        )
        for role, ident, fix in session.fetch(
            "SELECT b.role_name::text, quote_ident(b.role_name),"
            " format('SELECT balise.revoke(%L)', b.role_name) FROM balise.recipient AS b"
            " WHERE b.revoked_at IS NULL AND NOT EXISTS"
            " (SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname = b.role_name)"
        )
    ]
    found += [
        Finding(
            "D01",
            Severity.CRITICAL,
            role,
            "superuser",
            f"role {role} is a superuser: no privilege binds it",
            fix,
        )
        for role, fix in session.fetch(
            "SELECT r.rolname::text, format('ALTER ROLE %I NOSUPERUSER', r.rolname)"
            " FROM balise.recipient AS b JOIN pg_catalog.pg_roles AS r ON r.rolname = b.role_name"
            " WHERE b.revoked_at IS NULL AND r.rolsuper"
        )
    ]
    found += [
        Finding(
            "D24",
            Severity.WARNING,
            "",
            name,
            f"protected relation {name} does not exist: dropped or renamed",
            "",
        )
        for (name,) in session.fetch(
            "SELECT format('%I.%I', b.schema_name, b.relation_name) FROM balise.relation AS b"
            " WHERE to_regclass(format('%I.%I', b.schema_name, b.relation_name)) IS NULL"
        )
    ]
    views, _ = _policy_views(session)
    for name, owner, fix in session.fetch(
        "SELECT format('%I.%I', v.schema_name, v.view_name), pg_get_userbyid(c.relowner)::text,"
        " format('ALTER VIEW %I.%I OWNER TO %I', v.schema_name, v.view_name, $3::text)"
        " FROM unnest($1::text[], $2::text[]) AS v(schema_name, view_name)"
        " LEFT JOIN pg_catalog.pg_class AS c"
        " ON c.oid = to_regclass(format('%I.%I', v.schema_name, v.view_name))"
        " WHERE c.oid IS NULL OR pg_get_userbyid(c.relowner) <> $3::text",
        [schema for schema, _ in views],
        [view for _, view in views],
        VIEW_OWNER,
    ):
        message = (
            f"marked view {name} is missing: apply the policy again"
            if owner is None
            else f"marked view {name} belongs to {owner} and reads with that role's rights"
        )
        found.append(
            Finding("D24", Severity.WARNING, "", name, message, fix if owner is not None else "")
        )
    return found


def _attributes(session: Session, scene: _Scene) -> Sequence[Finding]:
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
    rows = session.fetch(
        "SELECT e.rolname::text, o.rolname::text, a.name,"
        " format('ALTER ROLE %I NO%s', o.rolname, a.name)"
        " FROM pg_catalog.pg_roles AS e"
        " JOIN pg_catalog.pg_roles AS o ON pg_has_role(e.oid, o.oid, 'MEMBER')"
        " CROSS JOIN LATERAL (VALUES ('SUPERUSER', o.rolsuper), ('BYPASSRLS', o.rolbypassrls),"
        " ('REPLICATION', o.rolreplication), ('CREATEROLE', o.rolcreaterole)) AS a(name, has)"
        " WHERE e.rolname = ANY ($1::text[]) AND a.has"
        # a superuser has the other attributes anyway
        " AND (a.name = 'SUPERUSER' OR NOT o.rolsuper)",
        scene.roles,
    )
    found = []
    for role, other, attribute, fix in rows:
        code, severity, text = texts[attribute]
        who = f"role {role} has" if other == role else f"role {role} can become {other}, which has"
        found.append(
            Finding(
                code,
                severity,
                role,
                attribute,
                f"{who} {attribute}: {text}",
                fix if other == role else scene.leaving(role, other),
            )
        )
    return found


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
}


def _predefined(session: Session, scene: _Scene) -> Sequence[Finding]:
    rows = session.fetch(
        "SELECT e.rolname::text, o.rolname::text FROM pg_catalog.pg_roles AS e"
        " JOIN pg_catalog.pg_roles AS o ON pg_has_role(e.oid, o.oid, 'MEMBER')"
        " WHERE e.rolname = ANY ($1::text[]) AND o.rolname = ANY ($2::text[])",
        scene.roles,
        list(_PREDEFINED),
    )
    return [
        Finding(
            "D05",
            _PREDEFINED[other][0],
            role,
            other,
            f"role {role} is a member of {other}, which {_PREDEFINED[other][1]}",
            scene.leaving(role, other),
        )
        for role, other in rows
    ]


def _ownership(session: Session, scene: _Scene) -> Sequence[Finding]:
    found = [
        Finding(
            "D06",
            Severity.CRITICAL,
            role,
            name,
            f"{_through(role, owner)} owns {name} and reads it",
            scene.leaving(role, owner) or fix,
        )
        for role, owner, name, fix in session.fetch(
            "SELECT e.rolname::text, o.rolname::text, format('%I.%I', n.nspname, c.relname),"
            " format('ALTER %s %I.%I OWNER TO %I', CASE c.relkind WHEN 'm' THEN"
            " 'MATERIALIZED VIEW' ELSE 'TABLE' END, n.nspname, c.relname, CURRENT_USER)"
            " FROM pg_catalog.pg_class AS c"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
            " JOIN pg_catalog.pg_roles AS o ON o.oid = c.relowner"
            " JOIN pg_catalog.pg_roles AS e ON pg_has_role(e.oid, o.oid, 'MEMBER')"
            " WHERE e.rolname = ANY ($1::text[]) AND c.oid = ANY ($2::text[]::oid[])",
            scene.roles,
            scene.targets,
        )
    ]
    found += [
        Finding(
            "D07",
            Severity.WARNING,
            role,
            name,
            f"{_through(role, owner)} owns schema {name} and can drop or replace what is in it",
            scene.leaving(role, owner) or fix,
        )
        for role, owner, name, fix in session.fetch(
            "SELECT DISTINCT e.rolname::text, o.rolname::text, quote_ident(n.nspname),"
            " format('ALTER SCHEMA %I OWNER TO %I', n.nspname, CURRENT_USER)"
            " FROM pg_catalog.pg_class AS c"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
            " JOIN pg_catalog.pg_roles AS o ON o.oid = n.nspowner"
            " JOIN pg_catalog.pg_roles AS e ON pg_has_role(e.oid, o.oid, 'MEMBER')"
            " WHERE e.rolname = ANY ($1::text[]) AND c.oid = ANY ($2::text[]::oid[])"
            # the database's owner, found below
            " AND o.rolname <> 'pg_database_owner'",
            scene.roles,
            scene.targets,
        )
    ]
    found += [
        Finding(
            "D07",
            Severity.WARNING,
            role,
            name,
            f"{_through(role, owner)} owns database {name} and can change its settings",
            scene.leaving(role, owner) or fix,
        )
        for role, owner, name, fix in session.fetch(
            "SELECT e.rolname::text, o.rolname::text, quote_ident(d.datname),"
            " format('ALTER DATABASE %I OWNER TO %I', d.datname, CURRENT_USER)"
            " FROM pg_catalog.pg_database AS d"
            " JOIN pg_catalog.pg_roles AS o ON o.oid = d.datdba"
            " JOIN pg_catalog.pg_roles AS e ON pg_has_role(e.oid, o.oid, 'MEMBER')"
            " WHERE e.rolname = ANY ($1::text[]) AND d.datname = current_database()",
            scene.roles,
        )
    ]
    return found


# What follows finds the grants on relations, by table or column, that reach each role: the role
# that has them ('' for PUBLIC), whether some role that it can act as may use the schema, and the
# statement that takes them back. A grant made by someone else than the owner is only taken back
# in that role's name.
_RELATION_GRANTS: Final = """
SELECT DISTINCT e.rolname::text, coalesce(g.rolname::text, ''), c.oid::text,
       pg_catalog.format('%I.%I', n.nspname, c.relname),
       acl.privilege_type::text, acl.attname::text,
       EXISTS (SELECT FROM pg_catalog.pg_roles AS u
                WHERE pg_catalog.pg_has_role(e.oid, u.oid, 'MEMBER')
                  AND pg_catalog.has_schema_privilege(u.oid, n.oid, 'USAGE')),
       CASE WHEN acl.grantor = c.relowner THEN '' ELSE
            pg_catalog.format('SET ROLE %I; ', pg_catalog.pg_get_userbyid(acl.grantor)) END
       || pg_catalog.format('REVOKE %s%s ON %I.%I FROM %s', acl.privilege_type,
                 CASE WHEN acl.attname IS NULL THEN ''
                      ELSE pg_catalog.format(' (%I)', acl.attname) END,
                 n.nspname, c.relname, coalesce(quote_ident(g.rolname), 'PUBLIC'))
       || CASE WHEN acl.grantor = c.relowner THEN '' ELSE '; RESET ROLE' END
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL (
       SELECT x.grantor, x.grantee, x.privilege_type, NULL::name AS attname
         FROM pg_catalog.aclexplode(c.relacl) AS x
       UNION ALL
       SELECT x.grantor, x.grantee, x.privilege_type, a.attname
         FROM pg_catalog.pg_attribute AS a, pg_catalog.aclexplode(a.attacl) AS x
        WHERE a.attrelid = c.oid AND NOT a.attisdropped
       ) AS acl
  JOIN pg_catalog.pg_roles AS e
    ON e.rolname = ANY ($1::text[])
   AND (acl.grantee = 0 OR pg_catalog.pg_has_role(e.oid, acl.grantee, 'MEMBER'))
  LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = acl.grantee
 WHERE c.oid = ANY ($2::text[]::oid[]) AND acl.grantee <> c.relowner
"""

_PATHLESS: Final = " (as long as it has no USAGE on the schema, this leads nowhere)"


def _grants(session: Session, scene: _Scene) -> Sequence[Finding]:
    found = []
    for row in session.fetch(_RELATION_GRANTS, scene.roles, scene.targets):
        role, other, _, name, privilege, column, usable, fix = row
        if privilege != "SELECT":
            continue
        what = f"{name}" if column is None else f"column {column} of {name}"
        found.append(
            Finding(
                "D08" if column is None else "D09",
                Severity.CRITICAL if usable else Severity.WARNING,
                role,
                name,
                f"{_through(role, other)} may read {what}{'' if usable else _PATHLESS}",
                fix,
            )
        )
    return found


_WRITES: Final = {
    "INSERT": (Severity.WARNING, "marked values could come back into it"),
    "UPDATE": (Severity.WARNING, "marked values could come back into it"),
    "DELETE": (Severity.WARNING, "a recipient has no business deleting"),
    "TRUNCATE": (Severity.WARNING, "a recipient has no business deleting"),
    "TRIGGER": (Severity.CRITICAL, "a trigger of its own is given every raw row that is written"),
    "REFERENCES": (Severity.NOTICE, "a foreign key of its own tells which keys exist"),
}


def _writes(session: Session, scene: _Scene) -> Sequence[Finding]:
    found = []
    for row in session.fetch(_RELATION_GRANTS, scene.roles, scene.targets):
        role, other, _, name, privilege, column, usable, fix = row
        if privilege not in _WRITES:
            continue
        severity, why = _WRITES[privilege]
        what = f"{name}" if column is None else f"column {column} of {name}"
        found.append(
            Finding(
                "D10",
                severity if usable else Severity.NOTICE,
                role,
                name,
                f"{_through(role, other)} has {privilege} on {what}: {why}"
                f"{'' if usable else _PATHLESS}",
                fix,
            )
        )
    return found


_VIEW_SOURCES: Final = """
SELECT DISTINCT v.oid::text, v.relkind::text,
       coalesce(lower((SELECT o.option_value FROM pg_catalog.pg_options_to_table(v.reloptions) AS o
                        WHERE o.option_name = 'security_invoker')), 'false')
           IN ('true', 'on', 'yes', '1'),
       d.refobjid::text,
       pg_catalog.has_any_column_privilege(v.relowner, d.refobjid, 'SELECT')
  FROM pg_catalog.pg_depend AS d
  JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid
  JOIN pg_catalog.pg_class AS v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
  JOIN pg_catalog.pg_class AS s ON s.oid = d.refobjid AND s.relkind IN ('r', 'p', 'v', 'm', 'f')
 WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass
   AND d.refclassid = 'pg_catalog.pg_class'::regclass
   AND d.refobjid <> v.oid
"""


def showing_views(
    sources: Sequence[tuple[str, str, bool, str, bool]],
    targets: Sequence[str],
    marked: Sequence[str],
) -> set[str]:
    """Return the views through which a role can see a target without rights on it.

    ``sources`` has one row for each relation that a view reads: view, kind (v or m), whether it is
    security_invoker, the relation, whether the view's owner can read that relation. A view that
    checks its caller's rights is itself no path; but a materialised view made from one is, for it
    keeps what its owner saw.
    """
    reads: dict[str, list[tuple[str, bool]]] = {}
    kind: dict[str, tuple[str, bool]] = {}
    for view, relkind, invoker, source, readable in sources:
        if view not in marked:
            reads.setdefault(view, []).append((source, readable))
            kind[view] = (relkind, invoker)
    shows: set[str] = set()
    passes = set(targets)
    while True:
        before = len(shows) + len(passes)
        for view, relations in reads.items():
            relkind, invoker = kind[view]
            if relkind == "m" and any(source in passes for source, _ in relations):
                shows.add(view)
            elif relkind == "v":
                opened = any(
                    readable and (source in targets or source in shows)
                    for source, readable in relations
                )
                if opened and not invoker:
                    shows.add(view)
                if any(source in passes for source, _ in relations):
                    passes.add(view)
        passes |= shows
        if len(shows) + len(passes) == before:
            return shows


def _views(session: Session, scene: _Scene) -> Sequence[Finding]:
    sources = [
        (view, kind, invoker, source, readable)
        for view, kind, invoker, source, readable in session.fetch(_VIEW_SOURCES)
    ]
    views = sorted(showing_views(sources, scene.targets, scene.marked))
    found = []
    for row in session.fetch(_RELATION_GRANTS, scene.roles, views):
        role, other, _, name, privilege, _, usable, fix = row
        if privilege == "SELECT":
            found.append(
                Finding(
                    "D11",
                    Severity.CRITICAL if usable else Severity.WARNING,
                    role,
                    name,
                    f"{_through(role, other)} may read view {name}, which shows protected data"
                    f" unmarked{'' if usable else _PATHLESS}",
                    fix,
                )
            )
    found += [
        Finding(
            "D11",
            Severity.CRITICAL,
            role,
            name,
            f"{_through(role, owner)} owns {name}, which keeps protected data unmarked",
            scene.leaving(role, owner) or fix,
        )
        for role, owner, name, fix in session.fetch(
            # a plain view reads with its owner's rights: found by those rights themselves
            "SELECT e.rolname::text, o.rolname::text, format('%I.%I', n.nspname, c.relname),"
            " format('DROP MATERIALIZED VIEW %I.%I', n.nspname, c.relname)"
            " FROM pg_catalog.pg_class AS c"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
            " JOIN pg_catalog.pg_roles AS o ON o.oid = c.relowner"
            " JOIN pg_catalog.pg_roles AS e ON pg_has_role(e.oid, o.oid, 'MEMBER')"
            " WHERE e.rolname = ANY ($1::text[]) AND c.relkind = 'm'"
            " AND c.oid = ANY ($2::text[]::oid[])",
            scene.roles,
            views,
        )
    ]
    return found


# Functions that a role may call: through PUBLIC (the default), itself or another role.
_CALLABLE: Final = """
SELECT DISTINCT e.rolname::text, p.oid::text,
       pg_catalog.format('%I.%I(%s)', n.nspname, p.proname,
                         pg_catalog.pg_get_function_identity_arguments(p.oid)),
       n.nspname::text, p.proname::text, l.lanname::text, p.prosecdef,
       pg_catalog.pg_get_userbyid(p.proowner)::text,
       EXISTS (SELECT FROM unnest($2::text[]::oid[]) AS t(oid)
                WHERE pg_catalog.has_any_column_privilege(p.proowner, t.oid, 'SELECT')),
       EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid
                  AND d.deptype = 'e'),
       coalesce((SELECT string_agg(DISTINCT pg_catalog.format(
                   'REVOKE EXECUTE ON %s %I.%I(%s) FROM %s',
                   CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END,
                   n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid),
                   coalesce(quote_ident(g.rolname), 'PUBLIC')), '; ')
          FROM pg_catalog.aclexplode(
                   coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS x
          LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee
         WHERE x.privilege_type = 'EXECUTE' AND x.grantee <> p.proowner
           AND (x.grantee = 0 OR pg_catalog.pg_has_role(e.oid, x.grantee, 'MEMBER'))), '')
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
  JOIN pg_catalog.pg_roles AS e ON e.rolname = ANY ($1::text[])
  JOIN pg_catalog.pg_roles AS u
    ON pg_catalog.pg_has_role(e.oid, u.oid, 'MEMBER') AND NOT u.rolsuper
   AND pg_catalog.has_function_privilege(u.oid, p.oid, 'EXECUTE')
 WHERE EXISTS (SELECT FROM pg_catalog.pg_roles AS s
                WHERE pg_catalog.pg_has_role(e.oid, s.oid, 'MEMBER')
                  AND pg_catalog.has_schema_privilege(s.oid, n.oid, 'USAGE'))
   AND (n.nspname NOT IN ('pg_catalog', 'information_schema')
        OR p.prosecdef OR p.proname = ANY ($3::text[]))
"""

_FILE_FUNCTIONS: Final = (
    "pg_read_file",
    "pg_read_binary_file",
    "pg_ls_dir",
    "pg_stat_file",
    "lo_import",
    "lo_export",
    "pg_file_write",
    "pg_file_unlink",
    "pg_file_rename",
)


def _functions(session: Session, scene: _Scene) -> Sequence[Finding]:
    found = []
    rows = session.fetch(_CALLABLE, scene.roles, scene.targets, list(_FILE_FUNCTIONS))
    for role, _, name, schema, bare, language, definer, owner, reads, extension, fix in rows:
        if schema == CATALOG:
            if bare != "refuse":
                found.append(
                    Finding(
                        "D13",
                        Severity.WARNING,
                        role,
                        name,
                        f"role {role} may call {name}, which administers pgbalise",
                        fix,
                    )
                )
            continue
        if bare in _FILE_FUNCTIONS and language in ("internal", "c"):
            found.append(
                Finding(
                    "D20",
                    Severity.CRITICAL,
                    role,
                    name,
                    f"role {role} may call {name}, which reaches the server's files",
                    fix,
                )
            )
        elif bare.startswith("dblink") and language == "c":
            unsafe = bare == "dblink_connect_u"
            found.append(
                Finding(
                    "D21",
                    Severity.CRITICAL if unsafe else Severity.WARNING,
                    role,
                    name,
                    f"role {role} may call {name}: a connection of the server's own"
                    + (", with the server's own identity" if unsafe else " passes by the proxy"),
                    fix,
                )
            )
        elif definer and reads:
            found.append(
                Finding(
                    "D12",
                    Severity.WARNING,
                    role,
                    name,
                    f"role {role} may call {name}, which runs as {owner}, who can read protected"
                    " data: read its source",
                    fix,
                )
            )
        elif _untrusted(language) and not (extension and language == "c"):
            found.append(
                Finding(
                    "D19",
                    Severity.WARNING,
                    role,
                    name,
                    f"role {role} may call {name}, written in {language}: it can do what the"
                    " server's operating system user can; read its source",
                    fix,
                )
            )
    return found


def _untrusted(language: str) -> bool:
    return language in ("c", "plpythonu", "plpython2u", "plpython3u", "plperlu", "pltclu", "plsh")


def _secrets(session: Session, scene: _Scene) -> Sequence[Finding]:
    tables = session.fetch(
        "SELECT c.oid::text, n.nspname::text, c.relname::text FROM pg_catalog.pg_class AS c"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname IN ($1::text, $2::text) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
        CATALOG,
        DECOYS,
    )
    where = {oid: (schema, name) for oid, schema, name in tables}
    found = []
    for row in session.fetch(_RELATION_GRANTS, scene.roles, list(where)):
        role, other, oid, name, privilege, _, usable, fix = row
        schema, bare = where[oid]
        if other == VIEW_OWNER:
            continue  # D15 says it once
        if schema == DECOYS:
            code, severity, why = "D14", Severity.CRITICAL, "decoys can be told from patients"
        elif bare in ("relation_secret", "codeword"):
            code, severity, why = "D13", Severity.CRITICAL, "it holds secrets"
        elif privilege == "SELECT":
            code, severity, why = "D13", Severity.WARNING, "it tells who is marked, and how"
        else:
            code, severity, why = "D13", Severity.CRITICAL, "it decides who is marked, and how"
        found.append(
            Finding(
                code,
                severity if usable else Severity.WARNING,
                role,
                name,
                f"{_through(role, other)} has {privilege} on {name}: {why}"
                f"{'' if usable else _PATHLESS}",
                fix,
            )
        )
    found += [
        Finding(
            "D13",
            Severity.CRITICAL,
            role,
            name,
            f"{_through(role, owner)} owns {name} in pgbalise's own schemas",
            scene.leaving(role, owner) or fix,
        )
        for role, owner, name, fix in session.fetch(_OWNED, scene.roles, [CATALOG, DECOYS])
    ]
    found += [
        Finding(
            "D15",
            Severity.CRITICAL,
            role,
            VIEW_OWNER,
            f"role {role} is a member of {VIEW_OWNER}, which reads protected relations and secrets",
            scene.leaving(role, VIEW_OWNER),
        )
        for (role,) in session.fetch(
            "SELECT e.rolname::text FROM pg_catalog.pg_roles AS e"
            " JOIN pg_catalog.pg_roles AS o ON o.rolname = $2::text"
            " AND pg_has_role(e.oid, o.oid, 'MEMBER') WHERE e.rolname = ANY ($1::text[])",
            scene.roles,
            VIEW_OWNER,
        )
    ]
    return found


_OWNED: Final = """
SELECT e.rolname::text, o.rolname::text, x.name, x.fix
  FROM (SELECT n.nspowner AS owner, pg_catalog.format('schema %I', n.nspname) AS name,
               pg_catalog.format('ALTER SCHEMA %I OWNER TO %I', n.nspname, CURRENT_USER) AS fix
          FROM pg_catalog.pg_namespace AS n WHERE n.nspname = ANY ($2::text[])
         UNION ALL
        SELECT c.relowner, pg_catalog.format('%I.%I', n.nspname, c.relname),
               pg_catalog.format('ALTER TABLE %I.%I OWNER TO %I',
                                 n.nspname, c.relname, CURRENT_USER)
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = ANY ($2::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')) AS x
  JOIN pg_catalog.pg_roles AS o ON o.oid = x.owner
  JOIN pg_catalog.pg_roles AS e
    ON e.rolname = ANY ($1::text[]) AND pg_catalog.pg_has_role(e.oid, o.oid, 'MEMBER')
"""


def _marked(session: Session, scene: _Scene) -> Sequence[Finding]:
    [(path,)] = session.fetch(
        "SELECT coalesce("
        " (SELECT string_agg(substr(c.setting, 13), ',') FROM pg_catalog.pg_db_role_setting AS s"
        " CROSS JOIN LATERAL unnest(s.setconfig) AS c(setting)"
        " WHERE c.setting LIKE 'search\\_path=%'"
        " AND s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database"
        "                            WHERE datname = current_database()))"
        " AND s.setrole IN (0, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1::text))),"
        " (SELECT boot_val FROM pg_catalog.pg_settings WHERE name = 'search_path'))",
        VIEW_OWNER,
    )
    named = [part.strip().strip('"').replace('""', '"') for part in path.split(",")]
    schemas = [VIEW_OWNER if name == "$user" else name for name in named]
    found = []
    for role, other, schema, ident, fix in session.fetch(
        "SELECT DISTINCT e.rolname::text, coalesce(g.rolname::text, ''), n.nspname::text,"
        " quote_ident(n.nspname), format('REVOKE CREATE ON SCHEMA %I FROM %s', n.nspname,"
        " coalesce(quote_ident(g.rolname), 'PUBLIC'))"
        " FROM pg_catalog.pg_namespace AS n CROSS JOIN LATERAL"
        " aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS x"
        " JOIN pg_catalog.pg_roles AS e ON e.rolname = ANY ($1::text[])"
        " AND (x.grantee = 0 OR pg_has_role(e.oid, x.grantee, 'MEMBER'))"
        " LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee"
        " WHERE x.privilege_type = 'CREATE' AND n.nspname = ANY ($2::text[])"
        # what an owner may do, its ownership says (below, and D07 for the database's)
        " AND x.grantee <> n.nspowner",
        scene.roles,
        [*schemas, *scene.schemas, CATALOG, DECOYS],
    ):
        if other == VIEW_OWNER:
            continue  # D15 says it once
        where = "the view owner's search path" if schema in schemas else "the marked views' schema"
        if schema in (CATALOG, DECOYS):
            where = "pgbalise's own schema"
        found.append(
            Finding(
                "D16",
                Severity.WARNING,
                role,
                ident,
                f"{_through(role, other)} may create objects in {ident}, {where}: it could put"
                " another object in the place of one that is meant",
                fix,
            )
        )
    found += [
        Finding(
            "D16",
            Severity.WARNING,
            role,
            name,
            f"{_through(role, owner)} owns {name}, and can replace marked views",
            scene.leaving(role, owner) or fix,
        )
        for role, owner, name, fix in session.fetch(_OWNED, scene.roles, scene.schemas)
        if owner != VIEW_OWNER
    ]
    return found


def _members(session: Session, scene: _Scene) -> Sequence[Finding]:
    return [
        Finding("D17", Severity.NOTICE, role, other, text, fix)
        for role, other, text, fix in session.fetch(
            "SELECT e.rolname::text, quote_ident(m.rolname),"
            " format('role %s is a member of recipient %s: it shares its privileges, but is refused"
            " unless enrolled itself', m.rolname, e.rolname),"
            " format('REVOKE %I FROM %I', e.rolname, m.rolname)"
            " FROM pg_catalog.pg_auth_members AS a"
            " JOIN pg_catalog.pg_roles AS e ON e.oid = a.roleid"
            " JOIN pg_catalog.pg_roles AS m ON m.oid = a.member"
            " WHERE e.rolname = ANY ($1::text[])",
            scene.roles,
        )
    ]


def _languages(session: Session, scene: _Scene) -> Sequence[Finding]:
    return [
        Finding(
            "D18",
            Severity.CRITICAL,
            role,
            name,
            f"language {name} is declared trusted, and role {role} may write functions in it that"
            " do what the server's operating system user can",
            fix,
        )
        for role, name, bare, fix in session.fetch(
            "SELECT e.rolname::text, quote_ident(l.lanname), l.lanname::text,"
            " format('UPDATE pg_catalog.pg_language SET lanpltrusted = false WHERE lanname = %L',"
            " l.lanname)"
            " FROM pg_catalog.pg_language AS l"
            " JOIN pg_catalog.pg_roles AS e ON e.rolname = ANY ($1::text[])"
            " WHERE l.lanpltrusted AND EXISTS (SELECT FROM pg_catalog.pg_roles AS o"
            " WHERE pg_has_role(e.oid, o.oid, 'MEMBER')"
            " AND has_language_privilege(o.oid, l.oid, 'USAGE'))",
            scene.roles,
        )
        if _untrusted(bare) or bare == "internal"
    ]


def _outside(session: Session, scene: _Scene) -> Sequence[Finding]:
    found = [
        Finding(
            "D22",
            Severity.WARNING,
            role,
            name,
            f"{_through(role, other)} may use foreign server {name}: what lies behind it may be"
            " this database, or unmarked copies",
            scene.leaving(role, other) or fix if owns else fix,
        )
        for role, other, name, owns, fix in session.fetch(
            "SELECT DISTINCT e.rolname::text, coalesce(g.rolname::text, ''),"
            " quote_ident(s.srvname),"
            " x.grantee = s.srvowner, CASE WHEN x.grantee = s.srvowner"
            " THEN format('ALTER SERVER %I OWNER TO %I', s.srvname, CURRENT_USER)"
            " ELSE format('REVOKE USAGE ON FOREIGN SERVER %I FROM %s', s.srvname,"
            " coalesce(quote_ident(g.rolname), 'PUBLIC')) END"
            " FROM pg_catalog.pg_foreign_server AS s CROSS JOIN LATERAL"
            " aclexplode(coalesce(s.srvacl, acldefault('S', s.srvowner))) AS x"
            " JOIN pg_catalog.pg_roles AS e ON e.rolname = ANY ($1::text[])"
            " AND (x.grantee = 0 OR pg_has_role(e.oid, x.grantee, 'MEMBER'))"
            " LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee"
            " WHERE x.privilege_type = 'USAGE'",
            scene.roles,
        )
    ]
    tables = [
        oid
        for (oid,) in session.fetch("SELECT ftrelid::oid::text FROM pg_catalog.pg_foreign_table")
    ]
    for row in session.fetch(_RELATION_GRANTS, scene.roles, tables):
        role, other, _, name, privilege, _, usable, fix = row
        if privilege == "SELECT" and usable:
            found.append(
                Finding(
                    "D22",
                    Severity.WARNING,
                    role,
                    name,
                    f"{_through(role, other)} may read foreign table {name}: what lies behind it"
                    " may be unmarked data",
                    fix,
                )
            )
    return found


def _defaults(session: Session, scene: _Scene) -> Sequence[Finding]:
    return [
        Finding(
            "D25",
            Severity.WARNING,
            role,
            where,
            f"{_through(role, other)} will be able to read what {creator} creates in {where}:"
            " a new protected relation or a copy of one",
            fix,
        )
        for role, other, creator, where, fix in session.fetch(
            "SELECT DISTINCT e.rolname::text, coalesce(g.rolname::text, ''),"
            " pg_get_userbyid(d.defaclrole)::text, coalesce(quote_ident(n.nspname), 'any schema'),"
            " format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE SELECT ON TABLES FROM %s',"
            " pg_get_userbyid(d.defaclrole), coalesce(format(' IN SCHEMA %I', n.nspname), ''),"
            " coalesce(quote_ident(g.rolname), 'PUBLIC'))"
            " FROM pg_catalog.pg_default_acl AS d"
            " LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = d.defaclnamespace"
            " CROSS JOIN LATERAL aclexplode(d.defaclacl) AS x"
            " JOIN pg_catalog.pg_roles AS e ON e.rolname = ANY ($1::text[])"
            " AND (x.grantee = 0 OR pg_has_role(e.oid, x.grantee, 'MEMBER'))"
            " LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee"
            " WHERE d.defaclobjtype = 'r' AND x.privilege_type = 'SELECT'"
            " AND x.grantee <> d.defaclrole AND (n.oid IS NULL OR n.oid IN"
            " (SELECT c.relnamespace FROM pg_catalog.pg_class AS c"
            " WHERE c.oid = ANY ($2::text[]::oid[])))",
            scene.roles,
            scene.targets,
        )
    ]


def worst(findings: Sequence[Finding]) -> Severity | None:
    """Return the severity of the worst finding, or None."""
    return findings[0].severity if findings else None


def summary(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings and their number by severity as plain values, for JSON."""
    count = {severity.value: 0 for severity in Severity}
    for finding in findings:
        count[finding.severity.value] += 1
    return {"findings": [finding.as_dict() for finding in findings], "count": count}
