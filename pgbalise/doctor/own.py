"""pgbalise's own schemas, the marked views and the catalog: whether they are as made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from pgbalise.compile.views import CATALOG, DECOYS
from pgbalise.doctor.findings import Finding, Severity
from pgbalise.doctor.scene import PATHLESS, PUBLIC, Scene, grants, own_relations, with_mend
from pgbalise.errors import InvalidPolicy
from pgbalise.install import OWNER, ROLES
from pgbalise.marking.policy import Policy, parse_policy
from pgbalise.marking.types import SqlType

if TYPE_CHECKING:
    from pgbalise.session import Session

_REFRESH: Final = "pgbalise policy refresh"


def secrets(session: Session, scene: Scene) -> Iterator[Finding]:
    """D13 and D14: who may read or write pgbalise's own schemas."""
    own = own_relations(session)
    for grant in grants(session, own):
        if grant.grantee in ROLES:
            continue  # D15 and D26 say it once
        bare = grant.relation
        if grant.schema == DECOYS:
            code, severity, why = "D14", Severity.CRITICAL, "decoys can be told from patients"
        elif bare in ("relation_secret", "codeword"):
            code, severity, why = "D13", Severity.CRITICAL, "it holds secrets"
        elif grant.privilege == "SELECT":
            code, severity, why = "D13", Severity.WARNING, "it tells who is marked, and how"
        else:
            code, severity, why = "D13", Severity.CRITICAL, "it decides who is marked, and how"
        for role, who in scene.holders(grant.grantee):
            usable = scene.usable(role, grant.schema)
            yield Finding(
                code,
                severity if usable else Severity.WARNING,
                role,
                grant.name,
                f"{who} has {grant.privilege} on {grant.name}: {why}{'' if usable else PATHLESS}",
                grant.mend,
            )
    for owner, name, fix in session.fetch(_OWNED, [CATALOG, DECOYS]):
        for role in scene.roles:
            if owner in scene.reach[role].privileges:
                text = f"{scene.through(role, owner)} owns {name} in pgbalise's own schemas"
                mend = scene.leaving(role, owner) or fix
                yield Finding("D13", Severity.CRITICAL, role, name, text, mend)


_OWNED: Final = """
SELECT o.rolname::text, x.name, x.fix
  FROM (SELECT n.nspowner AS owner, format('schema %I', n.nspname) AS name,
               format('ALTER SCHEMA %I OWNER TO %I', n.nspname, CURRENT_USER) AS fix
          FROM pg_catalog.pg_namespace AS n WHERE n.nspname = ANY ($1::text[])
         UNION ALL
        SELECT c.relowner, format('%I.%I', n.nspname, c.relname),
               format('ALTER TABLE %I.%I OWNER TO %I', n.nspname, c.relname, CURRENT_USER)
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = ANY ($1::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')) AS x
  JOIN pg_catalog.pg_roles AS o ON o.oid = x.owner
"""


# What an owner may do, its ownership says (D16 too, and D07 for the database's).
_CREATORS: Final = with_mend(
    """
SELECT coalesce(g.rolname::text, ''), n.nspname::text, quote_ident(n.nspname), @mend
  FROM pg_catalog.pg_namespace AS n
 CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS x
  LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee
 WHERE x.privilege_type = 'CREATE' AND n.nspname = ANY ($1::text[]) AND x.grantee <> n.nspowner
""",
    "x.privilege_type",
    "format('SCHEMA %I', n.nspname)",
    "n.nspowner",
    "n.nspacl",
)


def places(session: Session, scene: Scene) -> Iterator[Finding]:
    """D16: who could put an object in the place of one that is meant."""
    [(path,)] = session.fetch(
        "SELECT coalesce("
        " (SELECT string_agg(substr(c.setting, 13), ',') FROM pg_catalog.pg_db_role_setting AS s"
        " CROSS JOIN LATERAL unnest(s.setconfig) AS c(setting)"
        " WHERE c.setting LIKE 'search\\_path=%'"
        " AND s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database"
        "                            WHERE datname = current_database()))"
        " AND s.setrole IN (0, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1::text))),"
        " (SELECT boot_val FROM pg_catalog.pg_settings WHERE name = 'search_path'))",
        OWNER,
    )
    named = [part.strip().strip('"').replace('""', '"') for part in path.split(",")]
    searched = [OWNER if name == "$user" else name for name in named]
    schemas = scene.marked_schemas
    for grantee, schema, ident, mend in session.fetch(
        _CREATORS,
        [*searched, *schemas, CATALOG, DECOYS],
    ):
        if grantee == OWNER:
            continue  # D15 says it once
        where = "the view owner's search path" if schema in searched else "the marked views' schema"
        if schema in (CATALOG, DECOYS):
            where = "pgbalise's own schema"
        for role, who in scene.holders(grantee):
            text = (
                f"{who} may create objects in {ident}, {where}: it could put another object in the"
                " place of one that is meant"
            )
            yield Finding("D16", Severity.WARNING, role, ident, text, mend)
    for owner, name, fix in session.fetch(_OWNED, schemas):
        for role in scene.roles:
            if owner != OWNER and owner in scene.reach[role].privileges:
                text = f"{scene.through(role, owner)} owns {name}, and can replace marked views"
                mend = scene.leaving(role, owner) or fix
                yield Finding("D16", Severity.WARNING, role, name, text, mend)


def marked_views(session: Session, scene: Scene) -> Iterator[Finding]:
    """D24, D35, D36: marked views that are missing, changed or not alone."""
    # to_regclass() would refuse who may not use the schema
    for (name,) in session.fetch(
        "SELECT format('%I.%I', b.schema_name, b.relation_name) FROM balise.relation AS b"
        " WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = b.schema_name AND c.relname = b.relation_name)"
    ):
        text = f"protected relation {name} does not exist: dropped or renamed"
        yield Finding("D24", Severity.WARNING, "", name, text)
    for view in scene.views:
        if view.owner is None:
            text = f"marked view {view.name} is missing"
            yield Finding("D24", Severity.WARNING, "", view.name, text, command=_REFRESH)
            continue
        if view.owner != OWNER:
            text = f"marked view {view.name} belongs to {view.owner} and reads with its rights"
            mend = f"ALTER VIEW {view.name} OWNER TO {OWNER}"
            yield Finding("D24", Severity.WARNING, "", view.name, text, mend)
        if not view.as_written:
            text = f"marked view {view.name} is not as written: what it shows may be unmarked"
            yield Finding("D35", Severity.CRITICAL, "", view.name, text, command=_REFRESH)
    for schema in scene.marked_schemas:
        yield from _strangers(session, schema)


def _strangers(session: Session, schema: str) -> Iterator[Finding]:
    for name, what, fix in session.fetch(
        "SELECT format('%I.%I', n.nspname, c.relname), k.name,"
        " format('ALTER %s %I.%I SET SCHEMA public', upper(k.name), n.nspname, c.relname)"
        " FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        " JOIN (VALUES ('r', 'table'), ('p', 'table'), ('v', 'view'), ('m', 'materialized view'),"
        " ('f', 'foreign table')) AS k(kind, name) ON k.kind = c.relkind::text"
        " WHERE n.nspname = $1::text AND NOT EXISTS (SELECT FROM balise.marked_view AS v"
        " WHERE v.schema_name = n.nspname AND v.view_name = c.relname)",
        schema,
    ):
        text = f"{what} {name} is no marked view, though it stands among them"
        yield Finding("D36", Severity.WARNING, "", name, text, fix)
    for ident, owner, fix in session.fetch(
        "SELECT quote_ident(n.nspname), o.rolname::text,"
        " format('ALTER SCHEMA %I OWNER TO %I', n.nspname, pg_get_userbyid(c.nspowner))"
        " FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS o ON o.oid = n.nspowner"
        " JOIN pg_catalog.pg_namespace AS c ON c.nspname = 'balise'"
        " WHERE n.nspname = $1::text AND n.nspowner <> c.nspowner"
        " AND NOT o.rolsuper AND o.rolname <> $2::text",
        schema,
        OWNER,
    ):
        text = f"schema {ident} of marked views belongs to {owner}, who can replace them"
        yield Finding("D36", Severity.WARNING, "", ident, text, fix)


def handed_out(session: Session, scene: Scene) -> Iterator[Finding]:
    """D37: marked views not granted to a recipient, or granted to others."""
    for role, views, fix in _not_granted(session, scene):
        more = f" and {len(views) - 1} more" if len(views) > 1 else ""
        text = f"recipient {role} may not read its marked view {views[0]}{more}"
        yield Finding("D37", Severity.NOTICE, role, views[0], text, fix)
    for role, name, fix in session.fetch(
        "SELECT b.role_name::text, 'schema ' || quote_ident(n.nspname),"
        " format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, b.role_name)"
        " FROM balise.recipient AS b"
        " JOIN pg_catalog.pg_roles AS r ON r.rolname = b.role_name AND NOT r.rolsuper"
        " JOIN unnest($1::text[], $2::text[]) AS s(class, schema_name) ON s.class = b.class"
        " JOIN pg_catalog.pg_namespace AS n ON n.nspname = s.schema_name"
        " WHERE b.revoked_at IS NULL AND NOT has_schema_privilege(r.oid, n.oid, 'USAGE')"
        " UNION ALL SELECT b.role_name::text, 'balise.refuse()',"
        " format('GRANT EXECUTE ON FUNCTION balise.refuse() TO %I', b.role_name)"
        " FROM balise.recipient AS b"
        " JOIN pg_catalog.pg_roles AS r ON r.rolname = b.role_name AND NOT r.rolsuper"
        " WHERE b.revoked_at IS NULL"
        " AND NOT has_function_privilege(r.oid, 'balise.refuse()', 'EXECUTE')",
        *_classes(session),
    ):
        text = f"recipient {role} may not use {name}, which its marked views need"
        yield Finding("D37", Severity.NOTICE, role, name, text, fix)
    state = {
        name: "enrolled" if enrolled else "revoked"
        for name, enrolled in session.fetch(
            "SELECT role_name::text, revoked_at IS NULL FROM balise.recipient"
        )
    }
    login = {
        name
        for (name,) in session.fetch(
            "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolcanlogin AND NOT rolsuper"
        )
    }
    strangers: dict[str, list[tuple[str, str]]] = {}
    enrolled = [role for role, known in state.items() if known == "enrolled"]
    for grant in grants(session, scene.marked, besides=enrolled):
        if grant.grantee == PUBLIC or grant.grantee in login:
            strangers.setdefault(grant.grantee, []).append((grant.name, grant.mend))
    for grantee, held in strangers.items():
        revoked = state.get(grantee) == "revoked"
        who = "everyone (PUBLIC)" if grantee == PUBLIC else f"role {grantee}"
        more = f" and {len(held) - 1} more" if len(held) > 1 else ""
        yield Finding(
            "D37",
            Severity.WARNING if revoked else Severity.NOTICE,
            grantee,
            held[0][0],
            f"{who} holds rights on marked view {held[0][0]}{more}, but is"
            f" {'revoked' if revoked else 'not enrolled'}, so refused",
            "; ".join(mend for _, mend in held),
        )


def _not_granted(session: Session, scene: Scene) -> Iterator[tuple[str, list[str], str]]:
    """Yield each recipient that lacks views of its class, their names, and what grants them."""
    schemas = dict(zip(*_classes(session), strict=True))
    classes = {
        role: schemas.get(name)
        for role, name in session.fetch(
            "SELECT role_name::text, class FROM balise.recipient WHERE revoked_at IS NULL"
        )
    }
    held = {
        oid: set(grantees)
        for oid, grantees in session.fetch(
            "SELECT c.oid::text, ARRAY(SELECT g.rolname::text"
            " FROM aclexplode(c.relacl) AS x JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee"
            " WHERE x.privilege_type = 'SELECT')"
            " FROM pg_catalog.pg_class AS c WHERE c.oid = ANY ($1::text[]::oid[])",
            scene.marked,
        )
    }
    # a group may have been granted what its member lacks
    lacking = [
        (role, view.oid, view.name)
        for role in scene.roles
        for view in scene.views
        if view.oid in held and view.schema == classes[role] and role not in held[view.oid]
    ]
    rows = session.fetch(
        "SELECT w.role, array_agg(w.name ORDER BY w.name),"
        " format('GRANT SELECT ON %s TO %I', string_agg(w.name, ', ' ORDER BY w.name), w.role)"
        " FROM unnest($1::text[], $2::text[], $3::text[]) AS w(role, oid, name)"
        " WHERE NOT has_table_privilege(w.role::name, w.oid::oid, 'SELECT') GROUP BY w.role",
        *([row[at] for row in lacking] for at in range(3)),
    )
    yield from ((role, views, fix) for role, views, fix in rows)


def _classes(session: Session) -> tuple[list[str], list[str]]:
    try:
        policy = _policy(session)
    except InvalidPolicy:
        return [], []  # D42 says so
    if policy is None:
        return [], []
    return [c.value for c in policy.schemas], list(policy.schemas.values())


def _policy(session: Session) -> Policy | None:
    rows = session.fetch(
        "SELECT document::text FROM balise.policy WHERE applied_at IS NOT NULL"
        " ORDER BY version DESC LIMIT 1"
    )
    return parse_policy(json.loads(rows[0][0])) if rows else None


def catalog(session: Session, scene: Scene) -> Iterator[Finding]:
    """D38: where the catalog contradicts itself."""
    if session.fetch("SELECT has_table_privilege('balise.codeword', 'SELECT')") == [(True,)]:
        for role, fix in session.fetch(
            "SELECT w.role_name::text,"
            " format('DELETE FROM balise.codeword WHERE role_name = %L', w.role_name)"
            " FROM balise.codeword AS w JOIN balise.recipient AS b USING (role_name)"
            " WHERE b.revoked_at IS NOT NULL"
        ):
            text = f"recipient {role} is revoked, but has a word: its marked views still serve it"
            yield Finding("D38", Severity.CRITICAL, role, "balise.codeword", text, fix)
        for (role,) in session.fetch(
            "SELECT b.role_name::text FROM balise.recipient AS b"
            " LEFT JOIN balise.codeword AS w USING (role_name)"
            " WHERE b.revoked_at IS NULL AND w.role_name IS NULL"
        ):
            yield Finding(
                "D38",
                Severity.WARNING,
                role,
                "balise.codeword",
                f"recipient {role} is enrolled, but has no word: its marked views refuse it",
                command="pgbalise epoch open --key FILE",
            )
        for (name,) in session.fetch(
            "SELECT format('%I.%I', r.schema_name, r.relation_name) FROM balise.relation AS r"
            " LEFT JOIN balise.relation_secret AS s USING (relation_id)"
            " WHERE s.relation_id IS NULL"
        ):
            yield Finding(
                "D38",
                Severity.WARNING,
                "",
                name,
                f"protected relation {name} has no secrets: its marked views refuse everyone",
                command="pgbalise policy apply FILE --key FILE",
            )
    else:
        scene.not_checked.append("the words in balise.codeword, which this role may not read")
    for (role,) in session.fetch(
        "SELECT b.role_name::text FROM balise.recipient AS b"
        " LEFT JOIN balise.commitment AS c ON c.role_name = b.role_name"
        " AND c.epoch = (SELECT max(epoch) FROM balise.epoch)"
        " WHERE b.revoked_at IS NULL AND c.role_name IS NULL"
    ):
        yield Finding(
            "D38",
            Severity.WARNING,
            role,
            "balise.commitment",
            f"recipient {role} has no commitment in the epoch in force: a leak of its copy would"
            " prove less",
            command="pgbalise epoch open --key FILE",
        )


def steps(session: Session, scene: Scene) -> Iterator[Finding]:
    """D39: columns that the marked views, or the policy, do not know yet."""
    del scene
    for name, late, columns in session.fetch(
        """
        WITH shape AS (
            SELECT n.nspname, c.relname, array_agg(a.attname ORDER BY a.attnum) AS names
              FROM pg_catalog.pg_class AS c
              JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
              JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
             WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm')
             GROUP BY n.nspname, c.relname
        )
        SELECT format('%I.%I', r.schema_name, r.relation_name),
               EXISTS (SELECT FROM balise.marked_view AS v
                         JOIN shape AS u
                           ON u.nspname = v.schema_name AND u.relname = v.view_name
                        WHERE v.relation_id = r.relation_id AND u.names <> s.names),
               ARRAY(SELECT x.name::text FROM unnest(s.names) AS x(name)
                      WHERE x.name <> ALL (r.column_names))
          FROM balise.relation AS r
          JOIN shape AS s ON s.nspname = r.schema_name AND s.relname = r.relation_name
         ORDER BY 1
        """
    ):
        if late:
            text = f"the marked views of {name} do not show its columns as they are now"
            yield Finding("D39", Severity.WARNING, "", name, text, command=_REFRESH)
        for column in columns:
            yield Finding(
                "D39",
                Severity.NOTICE,
                "",
                name,
                f"column {column} of {name} is newer than the policy: it goes out unmarked, decide",
                command="pgbalise policy apply FILE --key FILE",
            )


def policies(session: Session, scene: Scene) -> Iterator[Finding]:
    """D42: a policy in force that no longer fits, or a draft."""
    if session.fetch("SELECT 1 FROM balise.policy WHERE applied_at IS NULL"):
        command = "pgbalise policy apply FILE --key FILE"
        text = "the draft policy was never applied"
        yield Finding("D42", Severity.NOTICE, "", "balise.policy", text, command=command)
    try:
        policy = _policy(session)
    except InvalidPolicy as problem:
        text = f"the policy in force cannot be read: {problem.message}"
        yield Finding("D42", Severity.WARNING, "", "balise.policy", text)
        return
    if policy is not None:
        yield from _misfits(session, scene, policy)


def _misfits(session: Session, scene: Scene, policy: Policy) -> Iterator[Finding]:
    types: dict[tuple[str, str], dict[str, str]] = {}
    for schema, relation, column, kind in session.fetch(
        "SELECT n.nspname::text, c.relname::text, a.attname::text,"
        " format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute AS a"
        " JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.oid = ANY ($1::text[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped",
        scene.targets,
    ):
        types.setdefault((schema, relation), {})[column] = kind
    for relation in policy.relations:
        known = types.get((relation.schema, relation.name))
        wanted: Sequence[tuple[str, SqlType]] = [
            *relation.key,
            *((carrier.column, carrier.type) for carrier in relation.carriers),
        ]
        for column, declared in wanted if known else ():
            assert known is not None
            actual = known.get(column)
            if actual is not None and SqlType.parse(actual).name == declared.name:
                continue
            is_now = "is gone" if actual is None else f"is {actual} now"
            yield Finding(
                "D42",
                Severity.WARNING,
                "",
                relation.qualified,
                f"column {column} of {relation.qualified} {is_now}; the policy says {declared}",
                command="pgbalise policy apply FILE --key FILE",
            )
