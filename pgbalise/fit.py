"""Whether a policy fits a database, and why not.

Everything is read from pg_catalog, whatever the session's search_path; of rows only what no index
or constraint can answer for.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from pgbalise.catalog import columns, existing, relation_info, unique_keys
from pgbalise.errors import InvalidPolicy
from pgbalise.fit_decoys import fit_decoys
from pgbalise.install import OWNER
from pgbalise.lineage import in_order, links
from pgbalise.marking.document import quote
from pgbalise.marking.policy import Derivation, Tolerance
from pgbalise.marking.types import KEY_TYPES, Kind, SqlType, decimals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgbalise.catalog import ColumnInfo, RelationInfo
    from pgbalise.marking.policy import Carrier, Policy, Relation
    from pgbalise.session import Session

_KINDS: Final = {
    "v": "a view",
    "S": "a sequence",
    "c": "a composite type",
    "i": "an index",
    "I": "an index",
}

_LONGEST_NAME: Final = 63
"""Bytes of an identifier; PostgreSQL cuts off what is longer."""

_MOST_IN_A_ROW: Final = 1_664
"""Columns that a row can have while a query runs."""

_OWN_SCHEMAS: Final = frozenset({"balise", "balise_decoy", "information_schema"})

_KIN: Final = """
WITH RECURSIVE base AS (
    SELECT c.oid
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = $1::text AND c.relname = $2::text
), down AS (
    SELECT oid FROM base
    UNION SELECT i.inhrelid FROM down JOIN pg_catalog.pg_inherits AS i ON i.inhparent = down.oid
), up AS (
    SELECT oid FROM base
    UNION SELECT i.inhparent FROM up JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = up.oid
)
SELECT n.nspname::text, c.relname::text, c.relkind::text, k.above
  FROM (SELECT oid, true FROM up UNION ALL SELECT oid, false FROM down) AS k(oid, above)
  JOIN pg_catalog.pg_class AS c USING (oid)
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.oid NOT IN (SELECT oid FROM base)
 ORDER BY n.nspname, c.relname
"""

_ROW_SECURITY: Final = """
SELECT coalesce(o.rolsuper OR o.rolbypassrls OR NOT c.relforcerowsecurity
                AND pg_catalog.pg_has_role(o.oid, c.relowner, 'USAGE'), false),
       coalesce(bool_or(p.polpermissive AND p.owners), false),
       coalesce(bool_or(p.polpermissive AND p.everyone), false),
       min(p.polname) FILTER (WHERE NOT p.everyone AND NOT p.owners),
       min(p.unreadable)
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_roles AS o ON o.rolname = $3::text
  LEFT JOIN LATERAL (
       SELECT l.polname::text, l.polpermissive, 0 = ANY (l.polroles) AS everyone,
              EXISTS (SELECT FROM unnest(l.polroles) AS r(oid)
                       WHERE r.oid <> 0 AND pg_catalog.pg_has_role(o.oid, r.oid, 'USAGE')
              ) AS owners,
              (SELECT min(d.refobjid::regclass::text) FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = l.oid
                  AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> c.oid
                  AND NOT pg_catalog.has_any_column_privilege(o.oid, d.refobjid, 'SELECT')
              ) AS unreadable
         FROM pg_catalog.pg_policy AS l
        WHERE l.polrelid = c.oid AND l.polcmd IN ('r', '*')) AS p ON true
 WHERE n.nspname = $1::text AND c.relname = $2::text AND c.relrowsecurity
 GROUP BY c.oid, c.relowner, c.relforcerowsecurity, o.oid, o.rolsuper, o.rolbypassrls
"""

_TAKEN: Final = """
SELECT c.relkind::text FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1::text AND c.relname = $2::text
   AND NOT (c.relkind = 'v' AND pg_catalog.pg_get_userbyid(c.relowner) = $3::text)
"""

# Whatever a condition calls is run with the caller's rights, often a superuser's: so only what is
# the server's own and immutable, which can neither run SQL nor touch a file.
_CHECKS: Final = r"""
WITH RECURSIVE made AS (
    SELECT a.attnum, a.attname::text AS name, a.atttypid AS type
      FROM pg_catalog.pg_attribute AS a
      JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = $1::text AND c.relname = $2::text AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT m.attnum, m.name, d.typbasetype
      FROM made AS m JOIN pg_catalog.pg_type AS d ON d.oid = m.type AND d.typtype = 'd'
), checks AS (
    SELECT a.attname::text AS name, k.oid, k.conname::text AS title, a.attname::text AS variable,
           pg_catalog.pg_get_expr(k.conbin, k.conrelid) AS condition, k.conbin::text AS tree,
           k.contypid
      FROM pg_catalog.pg_constraint AS k
      JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
     WHERE n.nspname = $1::text AND c.relname = $2::text
       AND k.contype = 'c' AND cardinality(k.conkey) = 1
    UNION ALL
    SELECT m.name, k.oid, k.conname::text, 'value', pg_catalog.pg_get_expr(k.conbin, 0),
           k.conbin::text, k.contypid
      FROM made AS m JOIN pg_catalog.pg_constraint AS k ON k.contypid = m.type AND k.contype = 'c'
)
SELECT k.name, k.title,
       pg_catalog.format(
           'SELECT x.%1$I::text FROM (SELECT t::%2$s AS %1$I FROM unnest($1::text[]) AS v(t)) AS x'
           ' WHERE (%3$s) IS FALSE LIMIT 1',
           k.variable, $4::text, k.condition)
  FROM checks AS k
 WHERE k.name = $3::text AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND d.objid = k.oid
          AND d.refclassid <> 'pg_catalog.pg_class'::regclass AND d.refobjid <> k.contypid)
   AND NOT EXISTS (
       SELECT FROM (SELECT m[1]::oid FROM regexp_matches(k.tree, 'funcid (\d+)', 'g') AS m
                    UNION
                    SELECT o.oprcode FROM regexp_matches(k.tree, ':opno (\d+)', 'g') AS m
                      JOIN pg_catalog.pg_operator AS o ON o.oid = m[1]::oid) AS called(oid)
         LEFT JOIN pg_catalog.pg_proc AS f USING (oid)
        WHERE called.oid <> 0 AND (f.provolatile = 'i' AND f.oid < 16384) IS NOT TRUE)
 ORDER BY k.title
"""

# The planner evaluates the expressions of a relation's indexes, its partitions' and children's.
_FOREIGN_CODE: Final = """
WITH RECURSIVE down(oid) AS (
    SELECT c.oid
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = $1::text AND c.relname = $2::text
    UNION
    SELECT i.inhrelid FROM down JOIN pg_catalog.pg_inherits AS i ON i.inhparent = down.oid
)
SELECT 1
  FROM down
  JOIN pg_catalog.pg_class AS c ON c.oid = down.oid
  JOIN pg_catalog.pg_roles AS o ON o.oid = c.relowner
  JOIN pg_catalog.pg_index AS x ON x.indrelid = c.oid
  JOIN pg_catalog.pg_depend AS d
    ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = x.indexrelid
   AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass,
                        'pg_catalog.pg_type'::regclass)
 WHERE NOT o.rolsuper AND o.rolname <> current_user
 LIMIT 1
"""

_KEY_QUESTIONS: Final = """
SELECT pg_catalog.format(
           'SELECT count(*) FROM (SELECT FROM %I.%I AS x WHERE %s LIMIT 1) AS found',
           $1::text, $2::text, k.nulls),
       pg_catalog.format(
           'SELECT count(*) FROM (SELECT FROM %I.%I AS x GROUP BY %s HAVING count(*) > 1 LIMIT 1)'
           ' AS found', $1::text, $2::text, k.listed)
  FROM (SELECT string_agg(pg_catalog.format('x.%I IS NULL', name), ' OR '),
               string_agg(pg_catalog.format('x.%I', name), ', ')
          FROM unnest($3::text[]) AS n(name)) AS k(nulls, listed)
"""


def fit(session: Session, policy: Policy) -> None:
    """Raise InvalidPolicy, naming relation and column, unless the policy fits the database.

    Reads no row of most relations: only where no index can keep a key unique or a constraint
    keep it from being NULL are all its values looked at.
    """
    protected = {(relation.schema, relation.name) for relation in policy.relations}
    for schema in policy.schemas.values():
        _fit_name(schema, f"views: schema {schema}")
        if schema in _OWN_SCHEMAS or schema.startswith("pg_"):
            raise InvalidPolicy(
                f"views: schema {schema} is not for marked views", hint="choose another name"
            )
    for relation in policy.relations:
        info = relation_info(session, relation.schema, relation.name)
        if info is None:
            raise InvalidPolicy(
                f"{relation.qualified}: there is no such relation",
                hint="names with capitals need quotes inside the policy's name",
            )
        obstacle = standing(session, info)
        if obstacle is not None:
            raise obstacle
        for schema, name, _, above in session.fetch(_KIN, relation.schema, relation.name):
            if above and (schema, name) in protected:
                raise InvalidPolicy(
                    f"{relation.qualified}: {quote(schema)}.{quote(name)}, which it is part of, is"
                    " protected too, so its rows would be marked in two ways",
                    hint="protect the one that recipients are to read",
                )
        found = columns(session, relation.schema, relation.name)
        known = {column.name: column for column in found}
        _fit_views(session, policy, relation)
        _fit_width(policy, relation, len(known))
        fit_decoys(relation, known)
        _fit_key(session, relation, info, known)
        for carrier in relation.carriers:
            _fit_carrier(relation, carrier, known)
            _fit_checks(session, relation, carrier, known[carrier.column])
    if policy.decoys is not None:
        in_order(policy, links(session, policy))


def fit_columns(relation: Relation, infos: Sequence[ColumnInfo]) -> None:
    """Raise InvalidPolicy unless the key and the carriers are what the policy says they are.

    The part of ``fit`` that needs the columns only: safe to run for whoever changes the relation.
    """
    known = {column.name: column for column in infos}
    for name, declared in relation.key:
        where = f"{relation.qualified}: key"
        _same_name(declared, existing(known, name, where), f"{where} {name}")
    for carrier in relation.carriers:
        _fit_carrier(relation, carrier, known)


def standing(session: Session, info: RelationInfo) -> InvalidPolicy | None:
    """Return why a relation cannot be protected, whatever the policy says of it, or None."""
    where = f"{quote(info.schema)}.{quote(info.name)}"
    if info.schema in _OWN_SCHEMAS or info.schema.startswith("pg_"):
        return InvalidPolicy(
            f"{where}: it belongs to PostgreSQL, to pgbalise or to one session",
            hint="protect the hospital's own tables",
        )
    if info.kind == "f":
        return _foreign(where, "it is a foreign table")
    if info.kind not in ("r", "p", "m"):
        what = _KINDS.get(info.kind, "no table")
        return InvalidPolicy(
            f"{where}: it is {what}, without a key to hang marks on",
            hint="protect the tables that it reads; a view over their marked views is marked"
            if info.kind == "v"
            else "protect tables, partitioned tables and materialised views",
        )
    for schema, name, kind, above in session.fetch(_KIN, info.schema, info.name):
        if kind == "f" and not above:
            part = f"{quote(schema)}.{quote(name)}"
            return _foreign(where, f"its part {part} is a foreign table")
    return _row_security(session, info, where)


def _foreign(where: str, what: str) -> InvalidPolicy:
    # what of a marked view's query is sent to the other server is that wrapper's to decide
    return InvalidPolicy(
        f"{where}: {what}, whose rows and keys another server may change unseen",
        hint="protect a materialised view of it that has a unique index",
    )


def _row_security(session: Session, info: RelationInfo, where: str) -> InvalidPolicy | None:
    rows = session.fetch(_ROW_SECURITY, info.schema, info.name, OWNER)
    if not rows:
        return None
    passes, named, open_to_all, others, unreadable = rows[0]
    advice = f"write a policy FOR SELECT TO {OWNER} that goes by session_user"
    if passes:
        return InvalidPolicy(
            f"{where}: row security is on, and {OWNER}, who reads for the marked views, passes it",
            hint="let another role own the relation, and neither SUPERUSER nor BYPASSRLS",
        )
    if not named and not open_to_all:
        return InvalidPolicy(
            f"{where}: row security is on, and no policy lets {OWNER}, who reads for the marked"
            " views, see a row",
            hint=advice,
        )
    if others is not None and not named:
        return InvalidPolicy(
            f"{where}: policy {others} names roles, and a marked view reads as {OWNER}, whoever"
            " asks",
            hint=advice,
        )
    if unreadable is not None:
        return InvalidPolicy(
            f"{where}: its row security reads {unreadable}, which {OWNER} may not",
            hint=f"GRANT SELECT ON {unreadable} TO {OWNER}",
        )
    return None


def _fit_name(name: str, where: str) -> None:
    if len(name.encode()) > _LONGEST_NAME:
        raise InvalidPolicy(
            f"{where}: a name has at most {_LONGEST_NAME} bytes", hint="choose a shorter one"
        )


def _fit_views(session: Session, policy: Policy, relation: Relation) -> None:
    _fit_name(relation.view, f"{relation.qualified}: view {relation.view}")
    for schema in policy.schemas.values():
        if session.fetch(_TAKEN, schema, relation.view, OWNER):
            raise InvalidPolicy(
                f"{relation.qualified}: there is a {quote(schema)}.{quote(relation.view)} already,"
                " and not a marked view",
                hint='write view = "another_name"',
            )


def _fit_width(policy: Policy, relation: Relation, width: int) -> None:
    """A marked view's rows have more columns inside than they show: hashes, keys, the word."""
    each = 2 if policy.derivation is Derivation.SHA256 else 1
    inside = width + each * len(relation.carriers) + 1
    if inside > _MOST_IN_A_ROW:
        raise InvalidPolicy(
            f"{relation.qualified}: {width} columns and {len(relation.carriers)} carriers make"
            f" {inside} columns inside a query, and PostgreSQL has room for {_MOST_IN_A_ROW}",
            hint="mark fewer columns of it",
        )


def _fit_key(
    session: Session,
    relation: Relation,
    info: RelationInfo,
    known: Mapping[str, ColumnInfo],
) -> None:
    where = f"{relation.qualified}: key"
    for name, declared in relation.key:
        column = existing(known, name, where)
        _same_name(declared, column, f"{where} {name}")
        # a materialised view's columns are never declared NOT NULL
        if not column.not_null and info.kind != "m":
            raise InvalidPolicy(
                f"{where} {name}: the column may be NULL", hint="declare it NOT NULL first"
            )
    names = [name for name, _ in relation.key]
    listed = ", ".join(names)
    covered = any(
        set(names).issuperset(key) for key in unique_keys(session, info.schema, info.name)
    )
    if not relation.unique:
        if info.children:
            raise InvalidPolicy(
                f"{where}: tables inherit from this one, so no index keeps its keys unique",
                hint="protect those tables instead, or write unique = true to have all rows"
                " checked",
            )
        if not covered:
            raise InvalidPolicy(
                f"{where} ({listed}): no primary key or unique index says that it is unique",
                hint="name the primary key's columns, or write unique = true to have its rows"
                " checked",
            )
    elif relation.decoys and not covered:
        raise InvalidPolicy(
            f"{relation.qualified}: decoys need a key that an index keeps unique",
            hint="create a unique index, or write decoys = false",
        )
    indexed = covered and not info.children
    if indexed and info.kind != "m":
        return
    if session.fetch(_FOREIGN_CODE, info.schema, info.name):
        raise InvalidPolicy(
            f"{where} ({listed}): an index of the relation calls functions that are not"
            " PostgreSQL's own, and would run them with your rights when the key is checked",
            hint="give the key a unique index, or drop that index",
        )
    [(nulls, doubles)] = session.fetch(_KEY_QUESTIONS, info.schema, info.name, names)
    if session.fetch(nulls)[0][0]:
        raise InvalidPolicy(
            f"{where} ({listed}): it is NULL in some rows", hint="leave those rows out of it"
        )
    if not indexed and session.fetch(doubles)[0][0]:
        raise InvalidPolicy(
            f"{where} ({listed}): several rows have the same", hint="add columns until none do"
        )


def _fit_carrier(relation: Relation, carrier: Carrier, known: Mapping[str, ColumnInfo]) -> None:
    where = f"{relation.qualified}: carrier {carrier.column}"
    column = existing(known, carrier.column, where)
    actual = column.type
    if actual != carrier.type:
        finest = _finest(carrier)
        if actual.name == "numeric" == carrier.type.name and finest > (actual.scale or finest):
            raise InvalidPolicy(
                f"{where}: the quantum is finer than the column's scale ({column.base_text})",
                hint=f"the finest is {Decimal(1).scaleb(-(actual.scale or 0))}",
            )
        raise InvalidPolicy(
            f"{where}: the column is of type {column.type_text}, not {carrier.type}",
            hint=f'write type = "{column.base_text}"' if actual.kind else "leave it out",
        )
    if column.generated:
        raise InvalidPolicy(
            f"{where}: the server computes it from other columns, which would tell what was marked",
            hint="leave it out",
        )
    if column.feeds:
        raise InvalidPolicy(
            f"{where}: the server computes {column.feeds[0]} from it, which would tell its value",
            hint="leave it out, or let the application compute the other column",
        )
    if column.foreign:
        raise InvalidPolicy(f"{where}: it is part of a foreign key, which is never marked")
    if column.unique_with == (column.name,):
        raise InvalidPolicy(
            f"{where}: it is unique by itself, and marked rows could come to share it",
            hint="leave it out",
        )
    if carrier.kind is Kind.CATEGORICAL:
        _exact(column, where)
    for name, declared in carrier.entity:
        other = existing(known, name, f"{where}: entity")
        _same_name(declared, other, f"{where}: entity {name}")
    if carrier.by is not None:
        name, declared = carrier.by
        other = existing(known, name, f"{where}: by")
        _same_name(declared, other, f"{where}: by {name}")
        _exact(other, f"{where}: by {name}")


def _fit_checks(session: Session, relation: Relation, carrier: Carrier, column: ColumnInfo) -> None:
    """What a mark may make of a value must be what the relation could hold."""
    checks = session.fetch(
        _CHECKS, relation.schema, relation.name, carrier.column, _uncut(column.type)
    )
    if not checks:
        return
    values: list[str] = []
    for tolerance in carrier.tolerances.values():
        if isinstance(tolerance, Tolerance):
            values += [_text(carrier.kind, end) for end in (tolerance.low, tolerance.high)]
        else:
            values += [member for group in tolerance.groups for member in group]
    for _, title, statement in checks:
        for (value,) in session.fetch(statement, values):
            raise InvalidPolicy(
                f"{relation.qualified}: carrier {carrier.column}: a mark may lead to {value}, which"
                f" the relation's constraint {title} forbids",
                hint="leave that equivalent out"
                if carrier.kind is Kind.CATEGORICAL
                else "write bounds that keep within the constraint",
            )


def _uncut(declared: SqlType) -> str:
    return str(declared) if declared.precision is not None else declared.unlimited


def _text(kind: Kind, value: Decimal) -> str:
    """A value in a carrier's units as PostgreSQL reads it."""
    match kind:
        case Kind.DATE:
            return (date(1970, 1, 1) + timedelta(days=int(value))).isoformat()
        case Kind.TIMESTAMP:
            stamp = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(value))
            return stamp.isoformat(sep=" ")
        case _:
            return f"{value:f}"


def _finest(carrier: Carrier) -> int:
    return max(
        (decimals(t.quantum) for t in carrier.tolerances.values() if isinstance(t, Tolerance)),
        default=0,
    )


def _same_name(declared: SqlType, column: ColumnInfo, where: str) -> None:
    """Where only equality and hash count, a type's length or precision may be left out."""
    actual = column.type
    bare = declared.precision is None and declared.scale is None
    if actual.name != declared.name or not (bare or actual == declared):
        raise InvalidPolicy(
            f"{where}: the column is of type {column.type_text}, not {declared}",
            hint=f'write {column.name} = "{actual.name}"' if actual.name in KEY_TYPES else None,
        )


def _exact(column: ColumnInfo, where: str) -> None:
    """Marking compares texts byte by byte; such a collation would compare them otherwise."""
    if not column.deterministic:
        raise InvalidPolicy(
            f"{where}: its collation is not deterministic", hint="choose a deterministic collation"
        )
