"""What every examination needs, read once: recipients, what they reach, what is protected.

Grants are read object by object and joined with the recipients here, not in SQL: with hundreds of
recipients and thousands of relations the server would ask about each pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from pgbalise.catalog import protected_kin, server_version
from pgbalise.compile.views import CATALOG, DECOYS
from pgbalise.doctor.membership import Membership, Reach, leaving, reaches

if TYPE_CHECKING:
    from pgbalise.session import Session

PUBLIC: Final = ""
"""How everyone is named among the grantees."""

PATHLESS: Final = " (as long as it has no USAGE on the schema, this leads nowhere)"


class Grant(NamedTuple):
    """One privilege on a relation, or on one of its columns, given to somebody not its owner."""

    grantee: str
    oid: str
    schema: str
    relation: str
    """Without its schema."""
    name: str
    """As SQL writes it."""
    privilege: str
    column: str | None
    mend: str


class MarkedView(NamedTuple):
    """A marked view as the catalog remembers it and as it is."""

    schema: str
    view: str
    name: str
    """As SQL writes it."""
    oid: str | None
    owner: str | None
    as_written: bool
    ident: str
    """Its schema, as SQL writes it."""


@dataclass(frozen=True)
class Scene:
    """What every examination needs."""

    roles: Sequence[str]
    """The roles to examine: they exist and are no superusers."""
    reach: Mapping[str, Reach]
    memberships: Sequence[Membership]
    targets: Sequence[str]
    """Protected relations and their relatives by inheritance, as oids."""
    views: Sequence[MarkedView]
    version: int
    """PostgreSQL's server_version_num."""
    usage: Mapping[str, frozenset[str]]
    """By schema, who may use what is in it (PUBLIC among them)."""
    database: str
    not_checked: list[str] = field(default_factory=list)

    @property
    def marked(self) -> list[str]:
        """The marked views, as oids; D35 tells when one is no longer as written."""
        return [v.oid for v in self.views if v.oid is not None]

    @property
    def marked_schemas(self) -> list[str]:
        """The schemas of marked views."""
        return sorted({v.schema for v in self.views})

    def leaving(self, role: str, other: str) -> str:
        """Return the statements that end a role's acting as another."""
        return leaving(role, other, self.memberships)

    def holders(self, grantee: str) -> Iterator[tuple[str, str]]:
        """Yield each examined role that a grant reaches, and how to name it.

        A grant to PUBLIC reaches them all alike: then it is said once, of no role.
        """
        if grantee == PUBLIC and len(self.roles) > 1:
            yield "", "everyone (PUBLIC), so every recipient,"
        else:
            for role in self.roles:
                if grantee == PUBLIC:
                    yield role, f"everyone (PUBLIC), so role {role},"
                elif grantee in self.reach[role].privileges:
                    yield role, self.through(role, grantee)

    def through(self, role: str, other: str) -> str:
        """Name the way by which a grant reaches a role."""
        return f"role {role}" if role == other else f"role {role}, as {other},"

    def usable(self, role: str, schema: str) -> bool:
        """Whether a role (or, for none, any of them) may use a schema."""
        allowed = self.usage.get(schema, frozenset())
        chosen = [role] if role else self.roles
        return PUBLIC in allowed or any(allowed & self.reach[r].privileges for r in chosen)

    def of(self, roles: Sequence[str]) -> Scene:
        """Return the same scene for other roles."""
        return Scene(
            roles,
            reaches(roles, self.memberships),
            self.memberships,
            self.targets,
            self.views,
            self.version,
            self.usage,
            self.database,
            self.not_checked,
        )


def survey(session: Session) -> tuple[Scene, Scene]:
    """Return the scene of the enrolled roles and of the revoked ones."""
    version = server_version(session)
    memberships = [Membership(*row) for row in session.fetch(_memberships(version))]
    names: dict[bool, list[str]] = {True: [], False: []}
    for name, enrolled in session.fetch(
        "SELECT b.role_name::text, b.revoked_at IS NULL FROM balise.recipient AS b"
        " JOIN pg_catalog.pg_roles AS r ON r.rolname = b.role_name"
        " WHERE NOT r.rolsuper ORDER BY 1"
    ):
        names[enrolled].append(name)
    usage: dict[str, set[str]] = {}
    for schema, grantee in session.fetch(
        "SELECT n.nspname::text, coalesce(g.rolname::text, '') FROM pg_catalog.pg_namespace AS n"
        " CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS x"
        " LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee"
        " WHERE x.privilege_type = 'USAGE'"
    ):
        usage.setdefault(schema, set()).add(grantee)
    [(database,)] = session.fetch("SELECT current_database()::text")
    scene = Scene(
        names[True],
        reaches(names[True], memberships),
        memberships,
        protected_kin(session),
        [MarkedView(*row) for row in session.fetch(_MARKED)],
        version,
        {schema: frozenset(allowed) for schema, allowed in usage.items()},
        database,
    )
    return scene, scene.of(names[False])


def _memberships(version: int) -> str:
    # From 16 a grant is one grantor's, and only taken back in that role's name.
    options, undo = "g.rolinherit, true, m.admin_option", "''"
    if version >= 160000:
        options = "m.inherit_option, m.set_option, m.admin_option"
        undo = (
            "CASE WHEN m.grantor = 10 THEN ''"
            " ELSE format(' GRANTED BY %I', pg_get_userbyid(m.grantor)) END"
            " || CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_auth_members AS d"
            " WHERE d.roleid = m.roleid AND d.grantor = m.member) THEN ' CASCADE' ELSE '' END"
        )
    return _MEMBERSHIPS.replace("@options", options).replace("@undo", undo)


# The last membership is the one that no row says.
_MEMBERSHIPS: Final = """
SELECT g.rolname::text, h.rolname::text, @options,
       format('REVOKE %I FROM %I', h.rolname, g.rolname) || @undo
  FROM pg_catalog.pg_auth_members AS m
  JOIN pg_catalog.pg_roles AS g ON g.oid = m.member
  JOIN pg_catalog.pg_roles AS h ON h.oid = m.roleid
 UNION ALL
SELECT pg_get_userbyid(d.datdba)::text, r.rolname::text, true, true, false, ''
  FROM pg_catalog.pg_database AS d, pg_catalog.pg_roles AS r
 WHERE d.datname = current_database() AND r.rolname = 'pg_database_owner'
"""

_MARKED: Final = """
SELECT v.schema_name::text, v.view_name::text, format('%I.%I', v.schema_name, v.view_name),
       c.oid::text, pg_get_userbyid(c.relowner)::text,
       coalesce(c.relkind = 'v' AND c.reloptions IS NULL
                AND sha256(convert_to(pg_get_viewdef(c.oid), 'UTF8')) = v.definition_hash, false),
       quote_ident(v.schema_name)
  FROM balise.marked_view AS v
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = v.schema_name
  LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = v.view_name
 ORDER BY 1, 2
"""


def with_mend(query: str, what: str, on: str, owner: str, acl: str) -> str:
    """Return a query with ``@mend`` replaced by what takes back its grant ``x`` to role ``g``.

    ``what`` and ``on`` are SQL expressions of the privilege and the object, ``owner`` and ``acl``
    of the object's owner and grants. A grant made by someone else than the owner is only taken
    back in that role's name, and one that was passed on only with what came of it.
    """
    for name, text in (("what", what), ("on", on), ("owner", owner), ("acl", acl)):
        query = query.replace("@mend", _TAKEN_BACK).replace(f"@{name}", text)
    return query


_TAKEN_BACK: Final = """CASE WHEN x.grantor = @owner THEN ''
            ELSE format('SET ROLE %I; ', pg_get_userbyid(x.grantor)) END
       || format('REVOKE %s ON %s FROM %s%s', @what, @on,
                 coalesce(quote_ident(g.rolname), 'PUBLIC'),
                 CASE WHEN EXISTS (SELECT FROM aclexplode(@acl) AS y
                                    WHERE y.grantor = x.grantee AND y.grantee <> x.grantee
                                      AND y.privilege_type = x.privilege_type)
                      THEN ' CASCADE' ELSE '' END)
       || CASE WHEN x.grantor = @owner THEN '' ELSE '; RESET ROLE' END"""

_TABLE_GRANTS: Final = """
SELECT coalesce(g.rolname::text, ''), c.oid::text, n.nspname::text, c.relname::text,
       format('%I.%I', n.nspname, c.relname), x.privilege_type::text, NULL::text,
       @mend
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL aclexplode(c.relacl) AS x
  LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee
 WHERE c.oid = ANY ($1::text[]::oid[]) AND x.grantee <> c.relowner
   AND coalesce(g.rolname::text, '') <> ALL ($2::text[])
"""

_COLUMN_GRANTS: Final = """
SELECT coalesce(g.rolname::text, ''), c.oid::text, n.nspname::text, c.relname::text,
       format('%I.%I', n.nspname, c.relname), x.privilege_type::text, a.attname::text,
       @mend
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND NOT a.attisdropped
 CROSS JOIN LATERAL aclexplode(a.attacl) AS x
  LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = x.grantee
 WHERE c.oid = ANY ($1::text[]::oid[]) AND a.attacl IS NOT NULL AND x.grantee <> c.relowner
   AND coalesce(g.rolname::text, '') <> ALL ($2::text[])
"""

_NAME: Final = "format('%I.%I', n.nspname, c.relname)"
_GRANTS: Final = " UNION ALL ".join(
    (
        with_mend(_TABLE_GRANTS, "x.privilege_type", _NAME, "c.relowner", "c.relacl"),
        with_mend(
            _COLUMN_GRANTS,
            "format('%s (%I)', x.privilege_type, a.attname)",
            _NAME,
            "c.relowner",
            "a.attacl",
        ),
    )
)


def grants(session: Session, oids: Iterable[str], besides: Iterable[str] = ()) -> list[Grant]:
    """Return who holds which privilege on these relations: owners and ``besides`` are left out."""
    chosen = list(oids)
    if not chosen:
        return []
    return [Grant(*row) for row in session.fetch(_GRANTS, chosen, list(besides))]


def own_relations(session: Session) -> list[str]:
    """Return what pgbalise's own schemas hold, as oids."""
    rows = session.fetch(
        "SELECT c.oid::text FROM pg_catalog.pg_class AS c"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname IN ($1::text, $2::text) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
        CATALOG,
        DECOYS,
    )
    return [oid for (oid,) in rows]
