"""What PostgreSQL's catalog says of a relation, and whether a policy fits it.

Queries only; everything is read from pg_catalog, whatever the session's search_path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from pgbalise.errors import InvalidPolicy
from pgbalise.marking.policy import Tolerance
from pgbalise.marking.types import KEY_TYPES, Kind, SqlType, decimals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgbalise.marking.policy import Carrier, Policy, Relation
    from pgbalise.session import Session


@dataclass(frozen=True)
class ColumnInfo:
    """A column as pg_attribute describes it."""

    name: str
    type_text: str
    """As ``format_type()`` prints it; a domain by its own name."""
    not_null: bool
    generated: bool
    """Computed by the server from other columns of the row."""
    deterministic: bool
    """False under a collation that takes different texts for equal."""
    foreign: bool
    """Part of a foreign key, on either side."""
    unique_with: tuple[str, ...]
    """The columns of the smallest unique index that it belongs to; empty when in none."""


@dataclass(frozen=True)
class RelationInfo:
    """A relation as pg_class describes it."""

    schema: str
    name: str
    kind: str
    """pg_class.relkind: r table, p partitioned table, m materialised view, v view, ..."""
    children: bool
    """Whether other tables inherit from it (partitions do not count)."""
    rows: int
    """The planner's estimate, over all partitions."""


_KINDS: Final = {
    "v": "a view",
    "f": "a foreign table",
    "S": "a sequence",
    "c": "a composite type",
    "i": "an index",
    "I": "an index",
}

_RELATIONS: Final = """
SELECT n.nspname::text, c.relname::text, c.relkind::text,
       c.relkind = 'r'
           AND EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = c.oid),
       (SELECT coalesce(sum(CASE
                    WHEN l.reltuples >= 0 THEN l.reltuples
                    ELSE pg_catalog.pg_relation_size(l.oid) / 100 END), 0)::bigint
          FROM pg_catalog.pg_class AS l
         WHERE l.oid = c.oid AND c.relkind IN ('r', 'm')
            OR c.relkind = 'p'
               AND l.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(c.oid) AS t
                              WHERE t.isleaf))
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1::text AND ($2::text IS NULL OR c.relname = $2::text)
 ORDER BY c.relname
"""

_COLUMNS: Final = """
SELECT a.attname::text,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       a.attnotnull,
       a.attgenerated <> '',
       coalesce(l.collisdeterministic, true),
       EXISTS (SELECT FROM pg_catalog.pg_constraint AS f
                WHERE f.contype = 'f'
                  AND ((f.conrelid = c.oid AND a.attnum = ANY (f.conkey))
                       OR (f.confrelid = c.oid AND a.attnum = ANY (f.confkey)))),
       coalesce((SELECT array_agg(k.attname::text ORDER BY k.attnum)
          FROM pg_catalog.pg_attribute AS k
         WHERE k.attrelid = c.oid
           AND k.attnum = ANY ((SELECT (u.indkey::smallint[])[0:u.indnkeyatts - 1]
                                  FROM pg_catalog.pg_index AS u
                                 WHERE u.indrelid = c.oid AND u.indisunique AND u.indisvalid
                                   AND u.indpred IS NULL AND u.indexprs IS NULL
                                   AND a.attnum = ANY ((u.indkey::smallint[])[0:u.indnkeyatts - 1])
                                 ORDER BY u.indnkeyatts, u.indisprimary DESC, u.indexrelid
                                 LIMIT 1)::smallint[])), '{}')
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation
 WHERE n.nspname = $1::text AND c.relname = $2::text AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
"""

_UNIQUE_KEYS: Final = """
SELECT (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM unnest((u.indkey::smallint[])[0:u.indnkeyatts - 1])
               WITH ORDINALITY AS k(attnum, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum)
  FROM pg_catalog.pg_index AS u
  JOIN pg_catalog.pg_class AS c ON c.oid = u.indrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1::text AND c.relname = $2::text
   AND u.indisunique AND u.indisvalid AND u.indpred IS NULL AND u.indexprs IS NULL
 ORDER BY u.indisprimary DESC, u.indnkeyatts, u.indexrelid
"""

_SAMPLE: Final = """
SELECT pg_catalog.format('SELECT %s FROM %I.%I AS x %s LIMIT %s',
    (SELECT string_agg(
         CASE
             WHEN t.kind = 'date' THEN pg_catalog.format(
                 'CASE WHEN x.%1$I BETWEEN ''0001-01-01'' AND ''9999-12-31'''
                 ' THEN pg_catalog.to_char(x.%1$I, ''YYYY-MM-DD'') END', t.name)
             WHEN t.kind = 'timestamp' THEN pg_catalog.format(
                 'CASE WHEN x.%1$I BETWEEN ''0001-01-02'' AND ''9999-12-30'''
                 ' THEN pg_catalog.to_char(x.%1$I, ''YYYY-MM-DD HH24:MI:SS.US'') END', t.name)
             WHEN t.kind = 'timestamptz' THEN pg_catalog.format(
                 'CASE WHEN x.%1$I BETWEEN ''0001-01-02'' AND ''9999-12-30'''
                 ' THEN pg_catalog.to_char(pg_catalog.timezone(''UTC'', x.%1$I),'
                 ' ''YYYY-MM-DD HH24:MI:SS.US"Z"'') END', t.name)
             WHEN t.kind = 'text' THEN pg_catalog.format('pg_catalog.left(x.%I::text, 200)', t.name)
             ELSE pg_catalog.format('x.%I::text', t.name)
         END, ', ' ORDER BY t.place)
       FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS t(name, kind, place)),
    $1::text, $2::text, $5::text, $6::bigint)
"""

_WHOLE_SCAN_ROWS: Final = 2_000_000
"""Up to this many rows a sample reads the whole relation and draws row by row; beyond, whole
pages are drawn, which costs little but keeps rows that were written together together."""


def server_version(session: Session) -> int:
    """Return PostgreSQL's ``server_version_num``, such as 150020."""
    [(number,)] = session.fetch("SELECT pg_catalog.current_setting('server_version_num')::int")
    return int(number)


def relations(session: Session, schema: str) -> list[RelationInfo]:
    """Return everything that pg_class has in a schema, by name."""
    return [RelationInfo(*row) for row in session.fetch(_RELATIONS, schema, None)]


def relation_info(session: Session, schema: str, name: str) -> RelationInfo | None:
    """Return what pg_class says of one relation; None when there is none of that name."""
    rows = session.fetch(_RELATIONS, schema, name)
    return RelationInfo(*rows[0]) if rows else None


def columns(session: Session, schema: str, name: str) -> list[ColumnInfo]:
    """Return a relation's columns in order; none when there is no such relation."""
    rows = [ColumnInfo(*row) for row in session.fetch(_COLUMNS, schema, name)]
    return [replace(info, unique_with=tuple(info.unique_with)) for info in rows]


def unique_keys(session: Session, schema: str, name: str) -> list[tuple[str, ...]]:
    """Return the column sets that a unique index covers, the primary key first."""
    return [tuple(row[0]) for row in session.fetch(_UNIQUE_KEYS, schema, name)]


def sample(
    session: Session,
    relation: RelationInfo,
    chosen: Sequence[ColumnInfo],
    rows: int,
    seed: int = 1,
) -> list[tuple[str | None, ...]]:
    """Return at most ``rows`` rows drawn at random, as text; the same ones for the same seed.

    Dates and timestamps come as ISO 8601 in UTC, NULL when infinite or outside years 1 to 9999;
    text is cut after 200 characters when its column is of a type that cannot be marked.
    """
    clause = ""
    if relation.rows > rows:
        # a little fewer than the limit, which would otherwise cut off the rows written last
        percent = 100.0 * max(1.0, rows - 4 * rows**0.5) / relation.rows
        method = "BERNOULLI" if relation.rows <= _WHOLE_SCAN_ROWS else "SYSTEM"
        if relation.kind in ("r", "p", "m"):
            clause = f"TABLESAMPLE {method} ({percent:.6f}) REPEATABLE ({seed:d})"
    drawn = _sampled(session, relation, chosen, clause, rows)
    if clause and 2 * len(drawn) < rows:
        # the planner's estimate was far too high
        drawn = _sampled(session, relation, chosen, "", rows)
    return drawn


def _sampled(
    session: Session,
    relation: RelationInfo,
    chosen: Sequence[ColumnInfo],
    clause: str,
    rows: int,
) -> list[tuple[str | None, ...]]:
    [(statement,)] = session.fetch(
        _SAMPLE,
        relation.schema,
        relation.name,
        [info.name for info in chosen],
        [_sample_kind(info) for info in chosen],
        clause,
        rows,
    )
    return session.fetch(statement)


def _sample_kind(info: ColumnInfo) -> str:
    declared = SqlType.parse(info.type_text)
    match declared.kind:
        case Kind.DATE:
            return "date"
        case Kind.TIMESTAMP:
            return "timestamptz" if declared.name.endswith("with time zone") else "timestamp"
        case None if declared.name not in KEY_TYPES:
            return "text"
        case _:
            return "other"


def fit(session: Session, policy: Policy) -> None:
    """Raise InvalidPolicy, naming relation and column, unless the policy fits the database."""
    for relation in policy.relations:
        info = relation_info(session, relation.schema, relation.name)
        if info is None:
            raise InvalidPolicy(
                f"{relation.qualified}: there is no such relation",
                hint="names with capitals need quotes inside the policy's name",
            )
        if info.kind not in ("r", "p", "m"):
            what = _KINDS.get(info.kind, "no table")
            raise InvalidPolicy(
                f"{relation.qualified}: it is {what}, without a key to hang marks on"
            )
        known = {column.name: column for column in columns(session, relation.schema, relation.name)}
        _fit_key(session, relation, info, known)
        for carrier in relation.carriers:
            _fit_carrier(relation, carrier, known)


def _fit_key(
    session: Session,
    relation: Relation,
    info: RelationInfo,
    known: Mapping[str, ColumnInfo],
) -> None:
    where = f"{relation.qualified}: key"
    for name, declared in relation.key:
        column = _existing(known, name, where)
        _same_name(declared, column, f"{where} {name}")
        # a materialised view's columns are never declared NOT NULL
        if not column.not_null and info.kind != "m":
            raise InvalidPolicy(
                f"{where} {name}: the column may be NULL", hint="declare it NOT NULL first"
            )
    names = {name for name, _ in relation.key}
    if not any(names.issuperset(key) for key in unique_keys(session, info.schema, info.name)):
        listed = ", ".join(name for name, _ in relation.key)
        raise InvalidPolicy(
            f"{where} ({listed}): no primary key or unique index says that it is unique",
            hint="name the primary key's columns",
        )
    if info.children:
        raise InvalidPolicy(
            f"{where}: tables inherit from this one, so no index keeps its keys unique",
            hint="protect those tables instead, or make it a partitioned table",
        )


def _fit_carrier(relation: Relation, carrier: Carrier, known: Mapping[str, ColumnInfo]) -> None:
    where = f"{relation.qualified}: carrier {carrier.column}"
    column = _existing(known, carrier.column, where)
    actual = SqlType.parse(column.type_text)
    if actual != carrier.type:
        finest = _finest(carrier)
        if actual.name == "numeric" == carrier.type.name and finest > (actual.scale or finest):
            raise InvalidPolicy(
                f"{where}: the quantum is finer than the column's scale ({column.type_text})",
                hint=f"the finest is {Decimal(1).scaleb(-(actual.scale or 0))}",
            )
        raise InvalidPolicy(
            f"{where}: the column is of type {column.type_text}, not {carrier.type}",
            hint=f'write type = "{column.type_text}"' if actual.kind else "leave it out",
        )
    if column.foreign:
        raise InvalidPolicy(f"{where}: it is part of a foreign key, which is never marked")
    if carrier.kind is Kind.CATEGORICAL:
        _exact(column, where)
    for name, declared in carrier.entity:
        other = _existing(known, name, f"{where}: entity")
        _same_name(declared, other, f"{where}: entity {name}")
    if carrier.by is not None:
        name, declared = carrier.by
        other = _existing(known, name, f"{where}: by")
        _same_name(declared, other, f"{where}: by {name}")
        _exact(other, f"{where}: by {name}")


def _finest(carrier: Carrier) -> int:
    return max(
        (decimals(t.quantum) for t in carrier.tolerances.values() if isinstance(t, Tolerance)),
        default=0,
    )


def _existing(known: Mapping[str, ColumnInfo], name: str, where: str) -> ColumnInfo:
    if name not in known:
        raise InvalidPolicy(
            f"{where}: the relation has no column {name}", hint=f"it has {', '.join(known)}"
        )
    return known[name]


def _same_name(declared: SqlType, column: ColumnInfo, where: str) -> None:
    """Where only equality and hash count, a type's length or precision may be left out."""
    actual = SqlType.parse(column.type_text)
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
