"""Ways past the tables' privileges: functions, languages, foreign servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from pgbalise.compile.views import CATALOG
from pgbalise.doctor.findings import Finding, Severity
from pgbalise.doctor.roles import decoys_exist
from pgbalise.doctor.scene import Scene, grants, with_mend

if TYPE_CHECKING:
    from pgbalise.session import Session

# pg_read_file itself, by its inner name, is the old one that checks for a superuser
_FILES: Final = (
    "^(pg_read_file_|pg_read_binary_file|pg_ls_dir|pg_stat_file|(be_)?lo_(im|ex)port|pg_file_)"
)
_WAL: Final = "^pg_get_wal_(record|block)"
_MEASURES: Final = "^(pgstat|pg_visibility|pg_buffercache|pg_freespace|pgrowlocks|pg_lock_status)"

# One row for each role that may call a function, and for its owner. Most functions are of no
# interest: those kept are not the server's own, or run as their owner, or do what is named above.
_CALLABLE: Final = with_mend(
    """
SELECT coalesce(g.rolname::text, ''), n.nspname::text,
       format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
       CASE WHEN l.lanname = 'internal' THEN p.prosrc ELSE p.proname END::text,
       l.lanname::text, p.prosecdef, o.rolname::text, p.prosrc,
       EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'),
       EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                  AND d.refclassid = 'pg_class'::regclass
                  AND d.refobjid = ANY ($1::text[]::oid[])),
       CASE WHEN x.grantee = p.proowner THEN '' ELSE @mend END
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
  JOIN pg_catalog.pg_roles AS o ON o.oid = p.proowner
 CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS x
  LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee
 WHERE p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
   AND (n.nspname = 'balise' OR p.prosecdef OR p.proname ~ $2::text OR p.prosrc ~ $2::text
        OR n.nspname NOT IN ('pg_catalog', 'information_schema')
           AND l.lanname NOT IN ('sql', 'plpgsql', 'internal'))
""",
    "x.privilege_type",
    "format('%s %I.%I(%s)', CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END,"
    " n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))",
    "p.proowner",
    "p.proacl",
)

_UNTRUSTED: Final = ("c", "plpythonu", "plpython2u", "plpython3u", "plperlu", "pltclu", "plsh")


class _Function(NamedTuple):
    grantee: str
    schema: str
    name: str
    does: str
    language: str
    definer: bool
    owner: str
    source: str
    extension: bool
    depends: bool
    mend: str


def functions(session: Session, scene: Scene) -> Iterator[Finding]:
    """D12, D13, D19 to D21 and D30: functions that a role may call."""
    names = f"{_FILES}|{_WAL}|{_MEASURES}"
    callable_ = [_Function(*row) for row in session.fetch(_CALLABLE, scene.targets, names)]
    owners = sorted({f.owner for f in callable_ if f.definer})
    readers = {
        owner
        for (owner,) in session.fetch(
            "SELECT o.name FROM unnest($1::text[]) AS o(name) WHERE EXISTS"
            " (SELECT FROM unnest($2::text[]::oid[]) AS t(oid)"
            " WHERE has_any_column_privilege(o.name::name, t.oid, 'SELECT'))",
            owners,
            scene.targets,
        )
    }
    protected = session.fetch(
        "SELECT relname::text FROM pg_catalog.pg_class WHERE oid = ANY ($1::text[]::oid[])",
        scene.targets,
    )
    named = {name for (name,) in protected}
    decoys = decoys_exist(session)
    for function in callable_:
        said = _said(function, readers, named, decoys=decoys)
        if said is None:
            continue
        code, severity, text = said
        for role, who in scene.holders(function.grantee):
            if scene.usable(role, function.schema):
                mend = function.mend or scene.leaving(role, function.grantee)
                yield Finding(
                    code,
                    severity,
                    role,
                    function.name,
                    f"{who} may call {function.name}{text}",
                    mend,
                )


def _said(
    function: _Function, readers: set[str], named: set[str], *, decoys: bool
) -> tuple[str, Severity, str] | None:
    if function.schema == CATALOG:
        if function.does in ("refuse", "version", "in_step"):
            return None
        return "D13", Severity.WARNING, ", which administers pgbalise"
    inside = function.language in ("internal", "c")
    if inside and re.match(_FILES, function.does):
        return "D20", Severity.CRITICAL, ", which reaches the server's files"
    if inside and re.match(_WAL, function.does):
        return "D30", Severity.CRITICAL, ", which reads rows out of the write-ahead log"
    if inside and re.match(_MEASURES, function.does):
        if not decoys:
            return None
        return "D30", Severity.WARNING, ": locks and sizes tell decoys from patients"
    if inside and function.does.startswith("dblink"):
        if function.does == "dblink_connect_u":
            text = ": a connection of the server's own, with the server's own identity"
            return "D21", Severity.CRITICAL, text
        return "D21", Severity.WARNING, ": a connection of the server's own passes by the proxy"
    if function.definer and function.owner in readers:
        text = f", which runs as {function.owner}, who can read protected data"
        if function.depends or named & set(re.findall(r"\w+", function.source)):
            return "D12", Severity.CRITICAL, f"{text}, and names a protected relation"
        return "D12", Severity.WARNING, f"{text}: read its source"
    # an extension's C functions were written to be called
    if function.language in _UNTRUSTED and not (function.extension and function.language == "c"):
        text = (
            f", written in {function.language}: it can do what the server's operating system user"
            " can; read its source"
        )
        return "D19", Severity.WARNING, text
    return None


def languages(session: Session, scene: Scene) -> Iterator[Finding]:
    """D18: untrusted languages that were declared trusted."""
    for grantee, name, fix in session.fetch(
        "SELECT coalesce(g.rolname::text, ''), quote_ident(l.lanname), format("
        "'UPDATE pg_catalog.pg_language SET lanpltrusted = false WHERE lanname = %L', l.lanname)"
        " FROM pg_catalog.pg_language AS l"
        " CROSS JOIN LATERAL aclexplode(coalesce(l.lanacl, acldefault('l', l.lanowner))) AS x"
        " LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee"
        " WHERE l.lanpltrusted AND l.lanname::text = ANY ($1::text[])",
        [*_UNTRUSTED, "internal"],
    ):
        for role, who in scene.holders(grantee):
            text = (
                f"language {name} is declared trusted, and {who} may write functions in it that do"
                " what the server's operating system user can"
            )
            yield Finding("D18", Severity.CRITICAL, role, name, text, fix)


_SERVERS: Final = with_mend(
    """
SELECT DISTINCT coalesce(g.rolname::text, ''), quote_ident(s.srvname),
       CASE WHEN x.grantee = s.srvowner
            THEN format('ALTER SERVER %I OWNER TO %I', s.srvname, CURRENT_USER)
            ELSE @mend END,
       x.grantee = s.srvowner
  FROM pg_catalog.pg_foreign_server AS s
 CROSS JOIN LATERAL aclexplode(coalesce(s.srvacl, acldefault('S', s.srvowner))) AS x
  LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee
 WHERE x.privilege_type = 'USAGE'
""",
    "x.privilege_type",
    "format('FOREIGN SERVER %I', s.srvname)",
    "s.srvowner",
    "s.srvacl",
)

# A mapping is shown with its options to superusers and to the server's owner only.
_MAPPINGS: Final = """
SELECT m.srvname::text, CASE WHEN m.umuser = 0 THEN '' ELSE m.usename::text END,
       m.umoptions IS NOT NULL,
       EXISTS (SELECT FROM pg_catalog.pg_options_to_table(s.srvoptions) AS d
                WHERE d.option_name = 'dbname' AND d.option_value = current_database()),
       (SELECT u.option_value FROM pg_catalog.pg_options_to_table(m.umoptions) AS u
         WHERE u.option_name = 'user'),
       format('DROP USER MAPPING FOR %s SERVER %I',
              CASE WHEN m.umuser = 0 THEN 'PUBLIC' ELSE quote_ident(m.usename) END, m.srvname),
       EXISTS (SELECT FROM pg_catalog.pg_roles AS r
                CROSS JOIN unnest($1::text[]::oid[]) AS t(oid)
                WHERE r.rolname = (SELECT u.option_value
                                     FROM pg_catalog.pg_options_to_table(m.umoptions) AS u
                                    WHERE u.option_name = 'user')
                  AND has_any_column_privilege(r.oid, t.oid, 'SELECT'))
  FROM pg_catalog.pg_user_mappings AS m
  JOIN pg_catalog.pg_foreign_server AS s ON s.oid = m.srvid
"""


def foreign(session: Session, scene: Scene) -> Iterator[Finding]:
    """D22: foreign servers, user mappings and foreign tables."""
    for grantee, ident, fix, owns in session.fetch(_SERVERS):
        for role, who in scene.holders(grantee):
            mend = (scene.leaving(role, grantee) or fix) if owns else fix
            text = (
                f"{who} may use foreign server {ident}: what lies behind it may be this database,"
                " or unmarked copies"
            )
            yield Finding("D22", Severity.WARNING, role, ident, text, mend)
    for server, user, seen, here, login, fix, reads in session.fetch(_MAPPINGS, scene.targets):
        if not seen:
            scene.not_checked.append(f"as whom the user mappings of server {server} log in")
        elif here and reads:
            # a mapping counts for its own user only, not for who inherits from it
            for role, who in scene.holders(user):
                if user in ("", role) or user in scene.reach[role].become:
                    text = (
                        f"{who} reaches a database of this name through server {server} as {login},"
                        " who can read protected data"
                    )
                    yield Finding("D22", Severity.CRITICAL, role, server, text, fix)
    tables = [
        oid
        for (oid,) in session.fetch("SELECT ftrelid::oid::text FROM pg_catalog.pg_foreign_table")
    ]
    for grant in grants(session, tables):
        for role, who in scene.holders(grant.grantee):
            if grant.privilege == "SELECT" and scene.usable(role, grant.schema):
                text = (
                    f"{who} may read foreign table {grant.name}: what lies behind it may be"
                    " unmarked data"
                )
                yield Finding("D22", Severity.WARNING, role, grant.name, text, grant.mend)
