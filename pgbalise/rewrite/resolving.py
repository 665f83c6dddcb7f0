"""What names are: asked of the server, in the client's own session.

Only there do search_path and temporary tables mean what they will mean for the statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pgbalise.rewrite.names import Answer, Name

RESOLVE: Final = """
WITH RECURSIVE asked AS (
    SELECT q.quoted, pg_catalog.parse_ident(q.quoted) AS parts
      FROM pg_catalog.unnest($1::pg_catalog.text[]) AS q(quoted)
), found AS (
    SELECT a.quoted,
           CASE WHEN a.parts[2] IS NULL THEN pg_catalog.to_regclass(a.quoted)::pg_catalog.oid
                ELSE (SELECT c.oid
                        FROM pg_catalog.pg_class AS c
                       WHERE c.relname::pg_catalog.text OPERATOR(pg_catalog.=) a.parts[2]
                         AND c.relnamespace OPERATOR(pg_catalog.=)
                             CASE WHEN a.parts[1] OPERATOR(pg_catalog.=) 'pg_temp'::pg_catalog.text
                                  THEN pg_catalog.pg_my_temp_schema()
                                  ELSE (SELECT n.oid FROM pg_catalog.pg_namespace AS n
                                         WHERE n.nspname::pg_catalog.text
                                               OPERATOR(pg_catalog.=) a.parts[1])
                             END)
           END AS oid
      FROM asked AS a
), reach AS (
    SELECT f.oid AS root, f.oid, false AS above FROM found AS f WHERE f.oid IS NOT NULL
    UNION
    SELECT r.root, x.oid, x.above
      FROM reach AS r
     CROSS JOIN LATERAL (
           SELECT d.refobjid AS oid, false AS above
             FROM pg_catalog.pg_rewrite AS w
             JOIN pg_catalog.pg_depend AS d
               ON d.classid OPERATOR(pg_catalog.=)
                  'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid
              AND d.objid OPERATOR(pg_catalog.=) w.oid
              AND d.refclassid OPERATOR(pg_catalog.=)
                  'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
            WHERE w.ev_class OPERATOR(pg_catalog.=) r.oid AND NOT r.above
            UNION ALL
           SELECT d.refobjid, false
             FROM pg_catalog.pg_policy AS p
             JOIN pg_catalog.pg_depend AS d
               ON d.classid OPERATOR(pg_catalog.=)
                  'pg_catalog.pg_policy'::pg_catalog.regclass::pg_catalog.oid
              AND d.objid OPERATOR(pg_catalog.=) p.oid
              AND d.refclassid OPERATOR(pg_catalog.=)
                  'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
            WHERE p.polrelid OPERATOR(pg_catalog.=) r.oid AND NOT r.above
            UNION ALL
           SELECT i.inhrelid, false
             FROM pg_catalog.pg_inherits AS i
            WHERE i.inhparent OPERATOR(pg_catalog.=) r.oid AND NOT r.above
            UNION ALL
           SELECT i.inhparent, true
             FROM pg_catalog.pg_inherits AS i
            WHERE i.inhrelid OPERATOR(pg_catalog.=) r.oid
           ) AS x
     WHERE r.oid OPERATOR(pg_catalog.<>) ALL ($2::pg_catalog.oid[])
       AND r.oid OPERATOR(pg_catalog.<>) ALL ($3::pg_catalog.oid[])
)
SELECT f.quoted,
       f.oid::pg_catalog.text,
       ARRAY(SELECT DISTINCT r.oid FROM reach AS r
              WHERE r.root OPERATOR(pg_catalog.=) f.oid AND NOT r.above
                AND r.oid OPERATOR(pg_catalog.=) ANY ($3::pg_catalog.oid[]))::pg_catalog.text,
       ARRAY(SELECT DISTINCT r.oid FROM reach AS r
              WHERE r.root OPERATOR(pg_catalog.=) f.oid
                AND r.oid OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.oid[]))::pg_catalog.text,
       (SELECT CASE WHEN n.oid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()
                    THEN 'pg_temp' ELSE n.nspname::pg_catalog.text END
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
         WHERE c.oid OPERATOR(pg_catalog.=) f.oid),
       EXISTS (SELECT FROM reach AS r
                 JOIN pg_catalog.pg_rewrite AS w ON w.ev_class OPERATOR(pg_catalog.=) r.oid
                WHERE r.root OPERATOR(pg_catalog.=) f.oid AND NOT r.above
                  AND w.ev_type OPERATOR(pg_catalog.<>) '1'::pg_catalog."char"
                  AND pg_catalog.strpos(w.ev_action::pg_catalog.text, ':commandType 1 ')
                      OPERATOR(pg_catalog.>) 0
              )::pg_catalog.text,
       EXISTS (SELECT FROM pg_catalog.pg_inherits AS i
                WHERE i.inhparent OPERATOR(pg_catalog.=) f.oid)::pg_catalog.text
  FROM found AS f
"""
"""One statement, for the client's session: what names are and which protected data they reach.

Parameters: $1 text[], ``quoted`` of the names; $2 oid[], the protected and the opaque relations;
$3 oid[], the marked views. Every name and operator is qualified, so nothing that the client made
can stand in for it, and no privilege on the schemas is needed. Reach goes through rules, policies,
partitions and inheritance: downwards to what is read, upwards from a partition to what it is part
of, and never past a protected relation or a marked view. A rule on a write gives rows when a SELECT
is among its actions; one that is part of another action counts too. For PostgreSQL 13 and later.
"""


def answers(names: Iterable[Name], rows: Iterable[Sequence[str | None]]) -> dict[Name, Answer]:
    """Return what RESOLVE's rows (values as text) say of each name."""
    found = {}
    for quoted, oid, marked, stored, schema, answering, parent in rows:
        found[quoted] = Answer(
            int(oid or 0),
            _oids(marked),
            _oids(stored),
            schema,
            answering == "true",
            parent == "true",
        )
    return {name: found.get(name.quoted, Answer(0)) for name in names}


def _oids(text: str | None) -> tuple[int, ...]:
    inside = (text or "{}").strip("{}")
    return tuple(sorted(int(oid) for oid in inside.split(","))) if inside else ()
