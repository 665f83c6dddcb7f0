"""Grants on protected relations, and what shows or copies their rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from pgbalise.compile.views import CATALOG, DECOYS
from pgbalise.doctor.findings import Finding, Severity
from pgbalise.doctor.scene import PATHLESS, Scene, grants, own_relations, with_mend

if TYPE_CHECKING:
    from pgbalise.session import Session

_WRITES: Final = {
    "INSERT": (Severity.WARNING, "marked values could come back into it"),
    "UPDATE": (Severity.WARNING, "marked values could come back into it"),
    "DELETE": (Severity.WARNING, "a recipient has no business deleting"),
    "TRUNCATE": (Severity.WARNING, "a recipient has no business deleting"),
    "TRIGGER": (Severity.CRITICAL, "a trigger of its own is given every raw row that is written"),
    "REFERENCES": (Severity.NOTICE, "a foreign key of its own tells which keys exist"),
}


def on_protected(session: Session, scene: Scene) -> Iterator[Finding]:
    """D08 to D10: grants on protected relations and their columns."""
    for grant in grants(session, scene.targets):
        what = grant.name if grant.column is None else f"column {grant.column} of {grant.name}"
        for role, who in scene.holders(grant.grantee):
            usable = scene.usable(role, grant.schema)
            pathless = "" if usable else PATHLESS
            if grant.privilege == "SELECT":
                yield Finding(
                    "D08" if grant.column is None else "D09",
                    Severity.CRITICAL if usable else Severity.WARNING,
                    role,
                    grant.name,
                    f"{who} may read {what}{pathless}",
                    grant.mend,
                )
            elif grant.privilege in _WRITES:
                severity, why = _WRITES[grant.privilege]
                yield Finding(
                    "D10",
                    severity if usable else Severity.NOTICE,
                    role,
                    grant.name,
                    f"{who} has {grant.privilege} on {what}: {why}{pathless}",
                    grant.mend,
                )


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
   AND v.relnamespace <> 'pg_catalog'::regnamespace
   AND v.relnamespace <> 'information_schema'::regnamespace
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
    bases, left_out = set(targets), set(marked)
    reads: dict[str, list[tuple[str, bool]]] = {}
    kind: dict[str, tuple[str, bool]] = {}
    for view, relkind, invoker, source, readable in sources:
        if view not in left_out:
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
                    readable and (source in bases or source in shows)
                    for source, readable in relations
                )
                if opened and not invoker:
                    shows.add(view)
                if any(source in passes for source, _ in relations):
                    passes.add(view)
        passes |= shows
        if len(shows) + len(passes) == before:
            return shows


def views(session: Session, scene: Scene) -> Iterator[Finding]:
    """D11: views that show protected data; D48: materialised views that keep a recipient's."""
    sources = [
        (view, kind, invoker, source, readable)
        for view, kind, invoker, source, readable in session.fetch(_VIEW_SOURCES)
    ]
    marked = scene.marked
    secret = [*scene.targets, *own_relations(session)]
    showing = sorted(showing_views(sources, secret, marked))
    for grant in grants(session, showing):
        if grant.privilege == "SELECT" and grant.schema not in (CATALOG, DECOYS):
            for role, who in scene.holders(grant.grantee):
                usable = scene.usable(role, grant.schema)
                yield Finding(
                    "D11",
                    Severity.CRITICAL if usable else Severity.WARNING,
                    role,
                    grant.name,
                    f"{who} may read view {grant.name}, which shows protected data unmarked"
                    f"{'' if usable else PATHLESS}",
                    grant.mend,
                )
    # a plain view reads with its owner's rights: found by those rights themselves
    for owner, name, fix in session.fetch(
        "SELECT o.rolname::text, format('%I.%I', n.nspname, c.relname),"
        " format('DROP MATERIALIZED VIEW %I.%I', n.nspname, c.relname)"
        " FROM pg_catalog.pg_class AS c"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        " JOIN pg_catalog.pg_roles AS o ON o.oid = c.relowner"
        " WHERE c.relkind = 'm' AND c.oid = ANY ($1::text[]::oid[])",
        showing,
    ):
        for role in scene.roles:
            if owner in scene.reach[role].privileges:
                who = scene.through(role, owner)
                text = f"{who} owns {name}, which keeps protected data unmarked"
                mend = scene.leaving(role, owner) or fix
                yield Finding("D11", Severity.CRITICAL, role, name, text, mend)
    if not marked:
        return
    kept = {view for view, kind, *_ in sources if kind == "m"}
    over = kept & showing_views([(*s[:4], True) for s in sources], marked, []) - set(showing)
    for grant in grants(session, sorted(over)):
        if grant.privilege == "SELECT":
            for role, who in scene.holders(grant.grantee):
                text = (
                    f"{who} may read materialised view {grant.name}, which keeps the marks of who"
                    " refreshed it: a leak of it would accuse that recipient"
                )
                yield Finding("D48", Severity.WARNING, role, grant.name, text, grant.mend)


def defaults(session: Session, scene: Scene) -> Iterator[Finding]:
    """D25: relations yet to come that will be readable."""
    for grantee, creator, where, fix in session.fetch(
        "SELECT coalesce(g.rolname::text, ''), pg_get_userbyid(d.defaclrole)::text,"
        " coalesce(quote_ident(n.nspname), 'any schema'),"
        " format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE SELECT ON TABLES FROM %s',"
        " pg_get_userbyid(d.defaclrole), coalesce(format(' IN SCHEMA %I', n.nspname), ''),"
        " coalesce(quote_ident(g.rolname), 'PUBLIC'))"
        " FROM pg_catalog.pg_default_acl AS d"
        " LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = d.defaclnamespace"
        " CROSS JOIN LATERAL aclexplode(d.defaclacl) AS x"
        " LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee"
        " WHERE d.defaclobjtype = 'r' AND x.privilege_type = 'SELECT'"
        " AND x.grantee <> d.defaclrole"
        " AND (n.oid IS NULL OR n.nspname IN ($2::text, $3::text) OR n.oid IN"
        " (SELECT c.relnamespace FROM pg_catalog.pg_class AS c"
        " WHERE c.oid = ANY ($1::text[]::oid[])))",
        scene.targets,
        CATALOG,
        DECOYS,
    ):
        for role, who in scene.holders(grantee):
            text = (
                f"{who} will be able to read what {creator} creates in {where}: a new protected"
                " relation or a copy of one"
            )
            yield Finding("D25", Severity.WARNING, role, where, text, fix)


_HANDLERS: Final = """
SELECT format('%I.%I', n.nspname, c.relname), n.nspname::text, 'trigger', t.tgname::text,
       format('ALTER TABLE %I.%I DISABLE TRIGGER %I', n.nspname, c.relname, t.tgname),
       l.lanname::text, p.prosrc
  FROM pg_catalog.pg_trigger AS t
  JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
  JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
 WHERE t.tgrelid = ANY ($1::text[]::oid[]) AND NOT t.tgisinternal AND t.tgenabled <> 'D'
   AND t.tgparentid = 0
UNION ALL
SELECT format('%I.%I', n.nspname, c.relname), n.nspname::text, 'rule', r.rulename::text,
       format('ALTER TABLE %I.%I DISABLE RULE %I', n.nspname, c.relname, r.rulename),
       'sql', pg_get_ruledef(r.oid)
  FROM pg_catalog.pg_rewrite AS r
  JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE r.ev_class = ANY ($1::text[]::oid[]) AND r.ev_type <> '1' AND r.ev_enabled <> 'D'
"""
_HANDS_ON: Final = re.compile(
    r"\b(insert|update|merge|copy|notify|pg_notify|perform|execute)\b", re.I
)
_IDENTIFIER: Final = r'(?:"[^"]+"|[A-Za-z_]\w*)'
_INTO: Final = re.compile(
    r"\b(?:insert\s+into|merge\s+into|update)\s+(?:only\s+)?"
    rf"({_IDENTIFIER}(?:\.{_IDENTIFIER})?)",
    re.IGNORECASE,
)


def handlers(session: Session, scene: Scene) -> Iterator[Finding]:
    """D29: triggers and rules that are given the rows of a protected relation."""
    rows = session.fetch(_HANDLERS, scene.targets)
    for name, schema, kind, bare, fix, language, source in rows:
        if language in ("sql", "plpgsql") and not _HANDS_ON.search(source):
            continue
        yield Finding(
            "D29",
            Severity.WARNING,
            "",
            name,
            f"{kind} {bare} of {name} may hand its rows on: what it writes to is not protected",
            fix,
        )
        copies = [
            oid
            for (oid,) in session.fetch(
                # a name without schema is taken to be the relation's neighbour
                "SELECT DISTINCT c.oid::text FROM unnest($1::text[]) AS w(written)"
                " CROSS JOIN LATERAL parse_ident(w.written) AS i(parts)"
                " JOIN pg_catalog.pg_namespace AS n ON n.nspname ="
                " CASE cardinality(i.parts) WHEN 2 THEN i.parts[1] ELSE $2::text END"
                " JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid"
                " AND c.relname = i.parts[cardinality(i.parts)]"
                " WHERE c.oid::text <> ALL ($3::text[])",
                _INTO.findall(source),
                schema,
                scene.targets,
            )
        ]
        for grant in grants(session, copies):
            if grant.privilege == "SELECT":
                for role, who in scene.holders(grant.grantee):
                    usable = scene.usable(role, grant.schema)
                    yield Finding(
                        "D29",
                        Severity.CRITICAL if usable else Severity.WARNING,
                        role,
                        grant.name,
                        f"{who} may read {grant.name}, which {kind} {bare} fills from {name}"
                        f"{'' if usable else PATHLESS}",
                        grant.mend,
                    )


_PUBLISHED: Final = """
SELECT p.pubname::text, quote_ident(p.pubname), format('%I.%I', n.nspname, c.relname),
       CASE WHEN p.puballtables THEN format('DROP PUBLICATION %I', p.pubname)
            ELSE coalesce((SELECT string_agg(format('ALTER PUBLICATION %I DROP TABLE %s',
                                       p.pubname, r.prrelid::regclass), '; ')
                    FROM pg_catalog.pg_publication_rel AS r
                   WHERE r.prpubid = p.oid AND r.prrelid IN (
                         SELECT c.oid UNION
                         SELECT a.relid::oid FROM pg_catalog.pg_partition_ancestors(c.oid) AS a)),
                 {by_schema}) END
  FROM pg_catalog.pg_publication AS p
  JOIN pg_catalog.pg_publication_tables AS t ON t.pubname = p.pubname
  JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.schemaname
  JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.tablename
 WHERE c.oid = ANY ($1::text[]::oid[])
"""


def replication(session: Session, scene: Scene) -> Iterator[Finding]:
    """D27: publications of protected relations; D28: logical replication slots."""
    by_schema = "''"
    if scene.version >= 150000:
        by_schema = "format('ALTER PUBLICATION %I DROP TABLES IN SCHEMA %I', p.pubname, n.nspname)"
    who = session.fetch(
        "SELECT rolname::text FROM pg_catalog.pg_roles"
        " WHERE rolreplication AND rolcanlogin AND NOT rolsuper ORDER BY 1"
    )
    names = ", ".join(name for (name,) in who) or "superusers only"
    published: dict[tuple[str, str], list[str]] = {}
    for _, ident, name, fix in session.fetch(
        _PUBLISHED.format(by_schema=by_schema), [*scene.targets, *own_relations(session)]
    ):
        published.setdefault((ident, fix), []).append(name)
    for (ident, fix), relations in published.items():
        more = f" and {len(relations) - 1} more" if len(relations) > 1 else ""
        text = (
            f"publication {ident} sends the rows of {relations[0]}{more} unmarked to whoever"
            f" subscribes with REPLICATION ({names})"
        )
        yield Finding("D27", Severity.WARNING, "", ident, text, fix)
    for name, plugin, fix in session.fetch(
        "SELECT quote_ident(slot_name), plugin::text,"
        " format('SELECT pg_catalog.pg_drop_replication_slot(%L)', slot_name)"
        " FROM pg_catalog.pg_replication_slots"
        " WHERE slot_type = 'logical' AND database = current_database()"
    ):
        text = (
            f"logical replication slot {name} ({plugin}) keeps every change of this database,"
            f" unmarked, for whoever has REPLICATION ({names})"
        )
        yield Finding("D28", Severity.WARNING, "", name, text, fix)


_LARGE_OBJECTS: Final = with_mend(
    """
SELECT coalesce(g.rolname::text, ''), m.oid::text, @mend
  FROM pg_catalog.pg_largeobject_metadata AS m
 CROSS JOIN LATERAL aclexplode(m.lomacl) AS x
  LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee
 WHERE x.privilege_type = 'SELECT' AND x.grantee <> m.lomowner
 ORDER BY m.oid
""",
    "x.privilege_type",
    "format('LARGE OBJECT %s', m.oid)",
    "m.lomowner",
    "m.lomacl",
)


def large_objects(session: Session, scene: Scene) -> Iterator[Finding]:
    """D33: large objects, which no view marks."""
    found: dict[str, list[tuple[str, str]]] = {}
    for grantee, oid, mend in session.fetch(_LARGE_OBJECTS):
        found.setdefault(grantee, []).append((oid, mend))
    for grantee, objects in found.items():
        for role, who in scene.holders(grantee):
            yield Finding(
                "D33",
                Severity.WARNING,
                role,
                f"large object {objects[0][0]}",
                f"{who} may read {len(objects)} large objects, which nothing marks",
                "; ".join(mend for _, mend in objects),
            )
    if session.fetch(
        "SELECT 1 WHERE current_setting('lo_compat_privileges')::bool"
        " AND EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)"
    ):
        [(fix,)] = session.fetch(
            "SELECT format('ALTER DATABASE %I SET lo_compat_privileges = off', current_database())"
        )
        text = "lo_compat_privileges is on: everyone may read every large object"
        yield Finding("D33", Severity.WARNING, "", "lo_compat_privileges", text, fix)
