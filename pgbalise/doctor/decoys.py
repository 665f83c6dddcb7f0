"""Whether decoys are as the policy wants them, and can be taken for patients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pgbalise.compile.views import DECOYS
from pgbalise.doctor.findings import Finding, Severity
from pgbalise.doctor.scene import Scene

if TYPE_CHECKING:
    from pgbalise.session import Session

_GENERATE: Final = "pgbalise decoys generate --key FILE"

# Each protected relation with a table of decoys: its key as a unique index of decoys has it, and
# the sequence of a key of one column.
_TABLES: Final = """
SELECT format('%I.%I', r.schema_name, r.relation_name), s.oid::text, d.relname::text, d.oid::text,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM pg_catalog.pg_index AS u,
               LATERAL unnest((u.indkey::smallint[])[1:u.indnkeyatts - 1])
                       WITH ORDINALITY AS k(attnum, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.oid AND a.attnum = k.attnum
         WHERE u.indrelid = d.oid AND u.indisunique AND u.indisvalid),
       has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(d.relnamespace, 'USAGE')
           AND has_table_privilege(s.oid, 'SELECT') AND has_table_privilege(d.oid, 'SELECT')
           AND NOT row_security_active(d.oid)
  FROM balise.relation AS r
  JOIN pg_catalog.pg_namespace AS n ON n.nspname = r.schema_name
  JOIN pg_catalog.pg_class AS s ON s.relnamespace = n.oid AND s.relname = r.relation_name
  JOIN pg_catalog.pg_class AS d
    ON d.relnamespace = to_regnamespace($1::text) AND d.relkind = 'r'
   AND obj_description(d.oid, 'pg_class')
       = 'decoys of ' || format('%I.%I', r.schema_name, r.relation_name)
 ORDER BY 1
"""


def decoys(session: Session, scene: Scene) -> Iterator[Finding]:
    """D49 to D52: keys shared with rows, decoys that lack or are left, relations that tell."""
    for name, stored, table, oid, key, readable in session.fetch(_TABLES, DECOYS):
        if not readable or not key:
            scene.not_checked.append(f"the decoys of {name}, which this role may not read")
            continue
        yield from _collisions(session, name, stored, oid, key)
        yield from _ahead(session, name, stored, oid, key)
        yield from _leftovers(session, table, oid)
    yield from _lacking(session)
    yield from _telling(session)


def _collisions(
    session: Session, name: str, stored: str, oid: str, key: list[str]
) -> Iterator[Finding]:
    [(query,)] = session.fetch(
        "SELECT format('SELECT d.balise_recipient::text, count(*) FROM %s AS d JOIN %s AS s ON %s"
        " GROUP BY 1 ORDER BY 1', $2::text::oid::regclass, $1::text::oid::regclass,"
        " (SELECT string_agg(format('s.%1$I = d.%1$I', k), ' AND ') FROM unnest($3::text[]) AS k))",
        stored,
        oid,
        key,
    )
    for role, count in session.fetch(query):
        yield Finding(
            "D49",
            Severity.WARNING,
            role,
            name,
            f"{count} decoys of {role} in {name} share their key with a row that came since",
            command=_GENERATE,
        )


def _ahead(session: Session, name: str, stored: str, oid: str, key: list[str]) -> Iterator[Finding]:
    if len(key) != 1:
        return
    for sequence, last in session.fetch(
        "SELECT q.oid::regclass::text, pg_sequence_last_value(q.oid)"
        " FROM (SELECT pg_get_serial_sequence($1::text::oid::regclass::text, $2::text)"
        "::regclass AS oid) AS q WHERE has_sequence_privilege(q.oid, 'SELECT')",
        stored,
        key[0],
    ):
        [(query,)] = session.fetch(
            "SELECT format('SELECT count(*) FROM %s WHERE %I > $1::int8', $1::text::oid::regclass,"
            " $2::text)",
            oid,
            key[0],
        )
        [(count,)] = session.fetch(query, last or 0)
        if count:
            yield Finding(
                "D49",
                Severity.WARNING,
                "",
                name,
                f"{count} rows of decoys in {name} have keys that {sequence} has yet to give",
                command=_GENERATE,
            )


def _leftovers(session: Session, table: str, oid: str) -> Iterator[Finding]:
    [(query, delete)] = session.fetch(
        "SELECT format('SELECT d.balise_recipient::text, count(*) FROM %1$s AS d"
        " WHERE NOT EXISTS (SELECT FROM balise.recipient AS r WHERE r.role_name ="
        " d.balise_recipient AND r.class = ''secondary'' AND r.revoked_at IS NULL)"
        " GROUP BY 1 ORDER BY 1', $1::text::oid::regclass),"
        " format('DELETE FROM %s WHERE balise_recipient = ', $1::text::oid::regclass)",
        oid,
    )
    for role, count in session.fetch(query):
        [(quoted,)] = session.fetch("SELECT quote_literal($1::text)", role)
        yield Finding(
            "D51",
            Severity.NOTICE,
            role,
            f"{DECOYS}.{table}",
            f"{count} rows of decoys are there for {role}, who is no recipient of class secondary",
            f"{delete}{quoted}",
        )


def _lacking(session: Session) -> Iterator[Finding]:
    if not session.fetch("SELECT 1 WHERE has_table_privilege('balise.decoy', 'SELECT')"):
        return
    for role, has, wanted in session.fetch(
        "SELECT r.role_name::text, (SELECT count(*) FROM balise.decoy AS d"
        " WHERE d.role_name = r.role_name AND d.retired_at IS NULL), p.wanted"
        " FROM balise.recipient AS r, (SELECT (coalesce(document -> 'decoys' ->> 'per_recipient',"
        " '5'))::int AS wanted FROM (SELECT document FROM balise.policy"
        " WHERE applied_at IS NOT NULL ORDER BY version DESC LIMIT 1) AS last"
        " WHERE document ? 'decoys') AS p"
        " WHERE r.class = 'secondary' AND r.revoked_at IS NULL ORDER BY 1"
    ):
        if has < wanted:
            yield Finding(
                "D50",
                Severity.NOTICE,
                role,
                "balise.decoy",
                f"recipient {role} has {has or 'no'} decoys, and the policy wants {wanted}",
                command=_GENERATE,
            )


# Relations that refer to one with decoys and have none, and who may read them: themselves, or
# through a marked view.
_TELLING: Final = """
WITH decoyed AS (
    SELECT s.oid, format('%I.%I', r.schema_name, r.relation_name) AS name
      FROM balise.relation AS r
      JOIN pg_catalog.pg_namespace AS n ON n.nspname = r.schema_name
      JOIN pg_catalog.pg_class AS s ON s.relnamespace = n.oid AND s.relname = r.relation_name
      JOIN pg_catalog.pg_class AS d
        ON d.relnamespace = to_regnamespace($1::text) AND d.relkind = 'r'
       AND obj_description(d.oid, 'pg_class')
           = 'decoys of ' || format('%I.%I', r.schema_name, r.relation_name)
), referring AS (
    SELECT DISTINCT f.conrelid AS oid, decoyed.name
      FROM decoyed JOIN pg_catalog.pg_constraint AS f
        ON f.confrelid = decoyed.oid AND f.contype = 'f' AND f.conparentid = 0
     WHERE f.conrelid NOT IN (SELECT oid FROM decoyed)
), read AS (
    SELECT oid, name, oid AS by FROM referring
    UNION
    SELECT g.oid, g.name, v.oid
      FROM referring AS g
      JOIN pg_catalog.pg_class AS c ON c.oid = g.oid
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
      JOIN balise.relation AS r ON r.schema_name = n.nspname AND r.relation_name = c.relname
      JOIN balise.marked_view AS m USING (relation_id)
      JOIN pg_catalog.pg_namespace AS vn ON vn.nspname = m.schema_name
      JOIN pg_catalog.pg_class AS v ON v.relnamespace = vn.oid AND v.relname = m.view_name
)
SELECT DISTINCT q.role_name::text, read.oid::regclass::text, read.name
  FROM read
  JOIN balise.recipient AS q ON q.class = 'secondary' AND q.revoked_at IS NULL
  JOIN pg_catalog.pg_roles AS l ON l.rolname = q.role_name
 WHERE has_any_column_privilege(l.oid, read.by, 'SELECT')
 ORDER BY 1, 2, 3
"""


def _telling(session: Session) -> Iterator[Finding]:
    for role, relation, referred in session.fetch(_TELLING, DECOYS):
        yield Finding(
            "D52",
            Severity.WARNING,
            role,
            relation,
            f"{role} may read {relation}, which refers to {referred} and has no decoys: who has no"
            " row there may be one",
            command="pgbalise policy apply FILE.toml",
        )
