"""The tables of schema ``balise_decoy``: the decoys' rows, one table for each relation.

A table has the relation's columns after ``balise_recipient``, whose row it is, and
``balise_decoy``, of which decoy. Row security shows a recipient its own rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pgbalise.catalog import columns, unique_keys
from pgbalise.compile.views import CATALOG, DECOYS, decoy_table
from pgbalise.errors import DatabaseProblem, InvalidPolicy
from pgbalise.fit_decoys import DECOY_COLUMNS
from pgbalise.install import OWNER

if TYPE_CHECKING:
    from pgbalise.marking.policy import Relation
    from pgbalise.session import Session


def prepare_decoys(session: Session, relation: Relation) -> None:
    """Make the table of a relation's decoys, or bring it in step with the relation.

    Its columns and their types, and its indexes. Raise InvalidPolicy when writing decoys would
    run somebody's code with the writer's rights, DatabaseProblem when the schema is not ours.
    """
    _prepare_schema(session)
    name, origin = decoy_table(relation), f"decoys of {relation.qualified}"
    there = {info.name: info for info in columns(session, DECOYS, name)}
    if there and _comment(session, name) not in (None, origin):
        # the views' name went to another relation
        session.run("DROP TABLE %I.%I", DECOYS, name)
        there = {}
    stored = columns(session, relation.schema, relation.name)
    refuse_foreign_code(session, relation)
    if not there:
        _create(session, relation)
    else:
        _follow(session, relation)
    session.run("COMMENT ON TABLE %I.%I IS %L", DECOYS, name, origin)
    # EXPLAIN's estimates would confirm guesses about the decoys of all recipients
    quiet = [*DECOY_COLUMNS, *(info.name for info in stored)]
    listed = ", ".join(["ALTER COLUMN %I SET STATISTICS 0"] * len(quiet))
    session.run(
        f"ALTER TABLE %I.%I SET (autovacuum_enabled = false), {listed}", DECOYS, name, *quiet
    )
    _index(session, relation)
    keep_small(session, relation)


_ROWS_TOLD: Final = 20_000
"""What the planner is told; of 200 recipients, as it supposes without statistics, 100 rows each."""


def keep_small(session: Session, relation: Relation) -> None:
    """Tell the planner that a relation's decoys are few, however many recipients have some.

    To be called after decoys were written. To merge decoys into the order of a key, the planner of
    PostgreSQL reckons with sorting the whole table, the decoys of all recipients
    (create_merge_append_path), and rather sorts the relation. From pg_class it takes the rows per
    page and counts the pages itself (estimate_rel_size). VACUUM, ANALYZE and CREATE INDEX write
    the true number again. Only a superuser may write there: else nothing is done.
    """
    session.fetch(
        "UPDATE pg_class AS c SET relpages = greatest(s.pages, 1),"
        " reltuples = CASE WHEN s.pages = 0 THEN 1 ELSE $3::int END"
        " FROM (SELECT t.oid, (pg_relation_size(t.oid)"
        " / current_setting('block_size')::int)::int AS pages"
        " FROM (SELECT format('%I.%I', $1::text, $2::text)::regclass AS oid) AS t) AS s"
        " WHERE c.oid = s.oid"
        " AND EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND rolsuper)",
        DECOYS,
        decoy_table(relation),
        _ROWS_TOLD,
    )


def _prepare_schema(session: Session) -> None:
    if not session.fetch("SELECT 1 FROM pg_namespace WHERE nspname = $1::text", DECOYS):
        session.run("CREATE SCHEMA %I", DECOYS)
    session.run("GRANT USAGE ON SCHEMA %I TO %I", DECOYS, OWNER)
    if session.fetch(
        "SELECT 1 FROM pg_namespace AS d, pg_namespace AS c"
        " WHERE d.nspname = $1::text AND c.nspname = $2::text AND d.nspowner <> c.nspowner",
        DECOYS,
        CATALOG,
    ):
        raise DatabaseProblem(f"schema {DECOYS} belongs to somebody else", hint="drop it first")
    # predicate locks would tell a recipient which of its rows are decoys
    session.run("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_lock_status() FROM PUBLIC")
    session.run("GRANT EXECUTE ON FUNCTION pg_catalog.pg_lock_status() TO pg_monitor")


def _comment(session: Session, name: str) -> str | None:
    [(comment,)] = session.fetch(
        "SELECT obj_description(format('%I.%I', $1::text, $2::text)::regclass, 'pg_class')",
        DECOYS,
        name,
    )
    return None if comment is None else str(comment)


def _create(session: Session, relation: Relation) -> None:
    name = decoy_table(relation)
    session.run(
        "CREATE TABLE %I.%I (balise_recipient name NOT NULL, balise_decoy bigint NOT NULL,"
        " LIKE %I.%I INCLUDING GENERATED)",
        DECOYS,
        name,
        relation.schema,
        relation.name,
    )
    session.run("ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY", DECOYS, name)
    # row security, not a WHERE in the view: a recipient's own functions are then never given
    # another recipient's decoys, however cheap they claim to be
    session.run(
        "CREATE POLICY own_decoys ON %I.%I FOR SELECT USING (balise_recipient = SESSION_USER)",
        DECOYS,
        name,
    )
    session.run("GRANT SELECT ON %I.%I TO %I", DECOYS, name, OWNER)


def _follow(session: Session, relation: Relation) -> None:
    """Give the table the relation's columns as they are now."""
    name = decoy_table(relation)
    there = {info.name: info for info in columns(session, DECOYS, name)}
    stored = {info.name: info for info in columns(session, relation.schema, relation.name)}
    if "balise_decoy" not in there:
        # the table of an earlier release, which wrote no rows
        session.run("DELETE FROM %I.%I", DECOYS, name)
        session.run("ALTER TABLE %I.%I ADD COLUMN balise_decoy bigint NOT NULL", DECOYS, name)
    for old in there.keys() - stored.keys() - {*DECOY_COLUMNS}:
        session.run("ALTER TABLE %I.%I DROP COLUMN %I", DECOYS, name, old)
    for info in stored.values():
        if info.name not in there:
            session.run(
                "ALTER TABLE %I.%I ADD COLUMN %I %s", DECOYS, name, info.name, info.type_text
            )
        elif info.type_text != there[info.name].type_text:
            session.run(
                "ALTER TABLE %I.%I ALTER COLUMN %I TYPE %s USING %I::text::%s",
                DECOYS,
                name,
                info.name,
                info.type_text,
                info.name,
                info.type_text,
            )


# What is not the server's own is in pg_depend; what writing a row runs are the conditions of
# domains, wherever in a type they are, and the expressions of generated columns; what reading it
# as text runs are casts.
_FOREIGN_CODE: Final = """
WITH RECURSIVE base AS (
    SELECT format('%I.%I', $1::text, $2::text)::regclass AS oid
), made(name, type) AS (
    SELECT a.attname, a.atttypid
      FROM base JOIN pg_attribute AS a ON a.attrelid = base.oid
     WHERE a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT m.name, inner_type.oid
      FROM made AS m
      JOIN pg_type AS t ON t.oid = m.type
      LEFT JOIN pg_range AS r ON r.rngtypid = t.oid OR r.rngmultitypid = t.oid,
           LATERAL (SELECT t.typbasetype AS oid UNION ALL SELECT t.typelem
                     UNION ALL SELECT r.rngsubtype
                     UNION ALL SELECT a.atttypid FROM pg_attribute AS a
                      WHERE a.attrelid = t.typrelid AND t.typrelid <> 0
                        AND a.attnum > 0 AND NOT a.attisdropped) AS inner_type
     WHERE inner_type.oid <> 0
)
SELECT m.name::text, 'is of a domain whose condition calls'
  FROM made AS m JOIN pg_constraint AS k ON k.contypid = m.type
  JOIN pg_depend AS d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
   AND d.refobjid <> k.contypid
UNION ALL
SELECT a.attname::text, 'is computed by'
  FROM base
  JOIN pg_attribute AS a ON a.attrelid = base.oid AND a.attgenerated <> ''
  JOIN pg_attrdef AS f ON f.adrelid = base.oid AND f.adnum = a.attnum
  JOIN pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
   AND d.refclassid <> 'pg_class'::regclass
UNION ALL
SELECT m.name::text, 'is of a type that is cast to text by'
  FROM made AS m JOIN pg_cast AS c ON c.castsource = m.type
 WHERE c.casttarget = ANY (ARRAY['text'::regtype, 'varchar'::regtype, 'bpchar'::regtype])
   AND c.castfunc >= 16384
LIMIT 1
"""


def refuse_foreign_code(session: Session, relation: Relation) -> None:
    """Raise InvalidPolicy when issuing decoys of a relation would run functions of somebody's.

    What reading its rows and writing a decoy runs, it runs with the rights of who issues decoys.
    So it may be nothing but what the server itself has. To be asked each time: who owns a type may
    change what it does.
    """
    for name, what in session.fetch(_FOREIGN_CODE, relation.schema, relation.name):
        raise InvalidPolicy(
            f"{relation.qualified}: column {name} {what} functions that are not PostgreSQL's own,"
            " and the relation has decoys",
            hint=f"give {name} a plain type with a CHECK of the table, or write decoys = false",
        )


@dataclass(frozen=True)
class _Part:
    """A column of an index, and how it is kept in order there; schema and name of each."""

    column: str
    collation: tuple[str, str] | None
    operators: tuple[str, str]
    backwards: bool
    nulls_first: bool


_INDEXES: Final = """
SELECT x.indexrelid::int8, x.indisunique, i.relname::text, a.attname::text,
       ln.nspname::text, l.collname::text, pn.nspname::text, p.opcname::text,
       x.indoption[k.place::int - 1] & 1 = 1, x.indoption[k.place::int - 1] & 2 = 2
  FROM pg_catalog.pg_index AS x
  JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
  JOIN pg_catalog.pg_am AS m ON m.oid = i.relam AND m.amname = 'btree'
 CROSS JOIN LATERAL unnest((x.indkey::smallint[])[0:x.indnkeyatts - 1])
               WITH ORDINALITY AS k(attnum, place)
  JOIN pg_catalog.pg_opclass AS p ON p.oid = x.indclass[k.place::int - 1]
  JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.opcnamespace
  LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = x.indcollation[k.place::int - 1]
  LEFT JOIN pg_catalog.pg_namespace AS ln ON ln.oid = l.collnamespace
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
 WHERE x.indrelid = format('%I.%I', $1::text, $2::text)::regclass AND x.indisvalid
   -- an expression's functions would run with the rights of who writes decoys
   AND x.indexprs IS NULL
   AND NOT EXISTS (SELECT FROM unnest(x.indclass::oid[]) AS u(oid) WHERE u.oid >= 16384)
 ORDER BY x.indexrelid, k.place
"""


def _indexes(session: Session, schema: str, name: str) -> dict[str, tuple[bool, tuple[_Part, ...]]]:
    """Return the btree indexes of columns: by name, whether unique, and their columns."""
    found: dict[str, tuple[bool, tuple[_Part, ...]]] = {}
    for _, unique, index, column, *collation, of, operators, backwards, first in session.fetch(
        _INDEXES, schema, name
    ):
        part = _Part(
            column,
            (collation[0], collation[1]) if collation[1] is not None else None,
            (of, operators),
            backwards,
            first,
        )
        found[index] = unique, (*found.get(index, (unique, ()))[1], part)
    return found


def _index(session: Session, relation: Relation) -> None:
    """Give the table an index for each of the relation's, behind the recipient.

    What finds rows of the relation by an index then finds decoys by one, and rows that come in
    an index's order are merged. Where the relation's is partial, the decoys' is of all rows; by
    an expression a recipient's few decoys are filtered.
    """
    name = decoy_table(relation)
    named = {column for column, _ in relation.key}
    # in the key's own order, so that its index and this one can be merged
    keys = next(
        k for k in unique_keys(session, relation.schema, relation.name) if named.issuperset(k)
    )
    stored = {parts for _, parts in _indexes(session, relation.schema, relation.name).values()}
    # one that begins another is found in it
    wanted = {
        parts
        for parts in stored
        if not any(len(o) > len(parts) and o[: len(parts)] == parts for o in stored)
    }
    unique, by_decoy = False, False
    for index, (is_unique, parts) in _indexes(session, DECOYS, name).items():
        columns_after = tuple(part.column for part in parts[1:])
        if is_unique and columns_after == keys:
            unique = True
        elif columns_after == ("balise_decoy",):
            by_decoy = True
        elif is_unique or parts[1:] not in wanted:
            session.run("DROP INDEX %I.%I", DECOYS, index)
            continue
        wanted.discard(parts[1:])
    if not unique:
        listed = ", ".join(["%I"] * len(keys))
        session.run(
            f"CREATE UNIQUE INDEX ON %I.%I (balise_recipient, {listed})", DECOYS, name, *keys
        )
    if not by_decoy:
        session.run("CREATE INDEX ON %I.%I (balise_recipient, balise_decoy)", DECOYS, name)
    for parts in sorted(wanted, key=repr):
        if tuple(part.column for part in parts) != keys:
            template, words = _written(parts)
            session.run(
                f"CREATE INDEX ON %I.%I (balise_recipient, {template})", DECOYS, name, *words
            )


def _written(parts: Sequence[_Part]) -> tuple[str, list[str]]:
    """Return the columns of an index as a template of names, and the names."""
    templates, words = [], []
    for part in parts:
        template = "%I"
        words.append(part.column)
        if part.collation is not None:
            template += " COLLATE %I.%I"
            words += part.collation
        template += " %I.%I" + (" DESC" if part.backwards else "")
        words += part.operators
        templates.append(template + (" NULLS FIRST" if part.nulls_first else " NULLS LAST"))
    return ", ".join(templates), words


def tables_with_decoys(session: Session) -> list[str]:
    """Return the names of the tables in schema ``balise_decoy``."""
    return [
        name
        for (name,) in session.fetch(
            "SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n"
            " ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid"
            " WHERE n.nspname = $1::text AND c.relkind = 'r' AND a.attname = 'balise_decoy'"
            " AND NOT a.attisdropped ORDER BY c.relname",
            DECOYS,
        )
    ]


def forget_decoys(session: Session, role: str) -> None:
    """Take a recipient's decoys out of its views; the catalog keeps them as retired."""
    for name in tables_with_decoys(session):
        session.run("DELETE FROM %I.%I WHERE balise_recipient = %L", DECOYS, name, role)
    session.fetch(
        "UPDATE balise.decoy SET retired_at = now()"
        " WHERE role_name = $1::text AND retired_at IS NULL",
        role,
    )
