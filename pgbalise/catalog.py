"""What PostgreSQL's catalog says of a relation.

Queries only; everything is read from pg_catalog, whatever the session's search_path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pgbalise.errors import InvalidPolicy
from pgbalise.marking.types import KEY_TYPES, Kind, SqlType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgbalise.session import Session


@dataclass(frozen=True)
class ColumnInfo:
    """A column as pg_attribute describes it."""

    name: str
    type_text: str
    """As ``format_type()`` prints it; a domain by its own name."""
    base_text: str
    """The same for the type that a domain is made of; ``type_text`` when it is no domain."""
    not_null: bool
    generated: bool
    """Computed by the server from other columns of the row."""
    deterministic: bool
    """False under a collation that takes different texts for equal."""
    foreign: bool
    """Part of a foreign key, on either side."""
    unique_with: tuple[str, ...]
    """The columns of the smallest unique index that it belongs to; empty when in none."""
    feeds: tuple[str, ...]
    """The columns of the row that the server computes from it, by name."""

    @property
    def type(self) -> SqlType:
        """What its values are marked and hashed as; a domain counts as what it is made of."""
        return SqlType.parse(self.base_text)


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
       CASE WHEN y.typtype = 'd' THEN
           (WITH RECURSIVE made AS (
                SELECT y.typbasetype AS type, y.typtypmod AS modifier, 1 AS depth
                UNION ALL
                SELECT d.typbasetype, d.typtypmod, m.depth + 1
                  FROM made AS m JOIN pg_catalog.pg_type AS d
                    ON d.oid = m.type AND d.typtype = 'd')
            SELECT pg_catalog.format_type(m.type, m.modifier) FROM made AS m
             ORDER BY m.depth DESC LIMIT 1)
           ELSE pg_catalog.format_type(a.atttypid, a.atttypmod) END,
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
                                 LIMIT 1)::smallint[])), '{}'),
       coalesce((SELECT array_agg(DISTINCT g.attname::text ORDER BY g.attname::text)
          FROM pg_catalog.pg_depend AS d
          LEFT JOIN pg_catalog.pg_attrdef AS f
            ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND f.oid = d.objid
          JOIN pg_catalog.pg_attribute AS g
            ON g.attrelid = c.oid AND g.attgenerated <> '' AND g.attnum <> a.attnum
           AND g.attnum = coalesce(f.adnum, d.objsubid)
         WHERE d.refclassid = 'pg_catalog.pg_class'::regclass
           AND d.refobjid = c.oid AND d.refobjsubid = a.attnum
           AND (f.adrelid = c.oid
                OR d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid)), '{}')
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_type AS y ON y.oid = a.atttypid
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


_PROTECTED_KIN: Final = """
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
    return [
        replace(info, unique_with=tuple(info.unique_with), feeds=tuple(info.feeds)) for info in rows
    ]


def existing(known: Mapping[str, ColumnInfo], name: str, where: str) -> ColumnInfo:
    """Return a relation's column by its name; raise InvalidPolicy when it has none such."""
    if name not in known:
        raise InvalidPolicy(
            f"{where}: the relation has no column {name}", hint=f"it has {', '.join(known)}"
        )
    return known[name]


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
    declared = info.type
    match declared.kind:
        case Kind.DATE:
            return "date"
        case Kind.TIMESTAMP:
            return "timestamptz" if declared.name.endswith("with time zone") else "timestamp"
        case None if declared.name not in KEY_TYPES:
            return "text"
        case _:
            return "other"


def protected_kin(session: Session) -> list[str]:
    """Return the oids of the protected relations and of all that hold their rows.

    That is partitions of partitions, children of children and parents of parents.
    """
    return [oid for (oid,) in session.fetch(_PROTECTED_KIN)]
