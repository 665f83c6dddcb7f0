"""What real rows and decoys' rows hold, asked of the database: values in use, keys that clash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sqlglot import exp

from pgbalise.catalog import relation_info
from pgbalise.compile.cells import cast, column
from pgbalise.compile.views import DECOYS, decoy_table, table
from pgbalise.issuing.sampling import Member, Use
from pgbalise.marking.types import Kind, SqlType

if TYPE_CHECKING:
    from pgbalise.marking.policy import Relation
    from pgbalise.session import Session

_WHOLE: Final = 2_000_000
"""Of relations with more rows no column is read as a whole."""


def whole_column(session: Session, relation: Relation, name: str) -> set[str]:
    """Return all values of a column as text; none when the relation is too large for that."""
    info = relation_info(session, relation.schema, relation.name)
    if info is None or info.rows > _WHOLE:
        return set()
    query = (
        exp.select(cast(column(name, "t"), "text"))
        .from_(table(relation.name, relation.schema, "t"))
        .where(_known(name, "t"))
    )
    return set(session.read(_sql(query), [name]).column(name).to_pylist())


def in_use(
    session: Session, relation: Relation, declared: SqlType, name: str, texts: Sequence[str]
) -> set[str]:
    """Return those of the texts that are values of a column; by its index, if it has one."""
    if not texts:
        return set()
    kind = declared.name if declared.kind is Kind.INTEGER else "text"
    values = cast(cast(exp.Parameter(this=exp.Literal.number(1)), "text[]"), f"{kind}[]")
    query = (
        exp.select(cast(column(name, "t"), "text"))
        .distinct()
        .from_(table(relation.name, relation.schema, "t"))
        .where(exp.EQ(this=column(name, "t"), expression=exp.Any(this=exp.Paren(this=values))))
    )
    return {text for (text,) in session.fetch(_sql(query), list(texts))}


def values_of(
    session: Session, relation: Relation, name: str, roles: Sequence[str]
) -> list[tuple[str, int]]:
    """Return whose decoys have which whole numbers in a column."""
    query = (
        exp.select(cast(column("balise_recipient", "d"), "text"), column(name, "d"))
        .from_(table(decoy_table(relation), DECOYS, "d"))
        .where(_of_these())
        .where(_known(name, "d"))
    )
    return [(role, int(value)) for role, value in session.fetch(_sql(query), list(roles))]


def collided(session: Session, members: Sequence[Member], roles: Sequence[str]) -> list[int]:
    """Return the decoys of these recipients of which a real row has got a key since."""
    found: set[int] = set()
    for member in members:
        relation = member.relation
        keys = [[name for name, _ in relation.key]]
        keys += [
            [info.name]
            for info in member.columns
            if info.unique_with == (info.name,)
            and [info.name] != keys[0]
            and member.uses[info.name] in (Use.NUMBER, Use.UUID, Use.TEXT_KEY, Use.IDENTITY)
        ]
        for names in keys:
            same = exp.and_(
                *(exp.EQ(this=column(n, "t"), expression=column(n, "d")) for n in names)
            )
            real = exp.select("1").from_(table(relation.name, relation.schema, "t")).where(same)
            query = (
                exp.select(column("balise_decoy", "d"))
                .distinct()
                .from_(table(decoy_table(relation), DECOYS, "d"))
                .where(_of_these())
                .where(exp.Exists(this=real))
            )
            found |= {decoy for (decoy,) in session.fetch(_sql(query), list(roles))}
    return sorted(found)


# As for the values that marks may lead to: only conditions that call what is the server's own.
_CHECKS: Final = r"""
SELECT k.conname::text,
       pg_catalog.format(
           'SELECT DISTINCT d.balise_decoy FROM balise_decoy.%I AS d'
           ' WHERE d.balise_recipient = ANY ($1::name[]) AND d.balise_decoy = ANY ($2::bigint[])'
           ' AND (%s) IS FALSE', $3::text, pg_catalog.pg_get_expr(k.conbin, k.conrelid))
  FROM pg_catalog.pg_constraint AS k
  JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1::text AND c.relname = $2::text AND k.contype = 'c'
   AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND d.objid = k.oid
          AND d.refclassid <> 'pg_catalog.pg_class'::regclass)
   AND NOT EXISTS (
       SELECT FROM (SELECT m[1]::oid
                      FROM regexp_matches(k.conbin::text, 'funcid (\d+)', 'g') AS m
                    UNION
                    SELECT o.oprcode
                      FROM regexp_matches(k.conbin::text, ':opno (\d+)', 'g') AS m
                      JOIN pg_catalog.pg_operator AS o ON o.oid = m[1]::oid) AS called(oid)
         LEFT JOIN pg_catalog.pg_proc AS f USING (oid)
        WHERE called.oid <> 0 AND (f.provolatile = 'i' AND f.oid < 16384) IS NOT TRUE)
 ORDER BY k.conname
"""


def broken_checks(
    session: Session, members: Sequence[Member], roles: Sequence[str], decoys: Sequence[int]
) -> tuple[list[int], str]:
    """Return the decoys whose rows the relations' own constraints would not let in, and one's name.

    A constraint that calls what is not PostgreSQL's own is not evaluated: it would run somebody's
    code with the caller's rights.
    """
    broken: set[int] = set()
    why = ""
    for member in members:
        relation = member.relation
        for name, statement in session.fetch(
            _CHECKS, relation.schema, relation.name, decoy_table(relation)
        ):
            found = {decoy for (decoy,) in session.fetch(statement, list(roles), list(decoys))}
            if found:
                why = f"{relation.qualified}: constraint {name}"
            broken |= found
    return sorted(broken), why


def _of_these() -> exp.Expr:
    names = cast(exp.Parameter(this=exp.Literal.number(1)), "name[]")
    return exp.EQ(
        this=column("balise_recipient", "d"), expression=exp.Any(this=exp.Paren(this=names))
    )


def _known(name: str, alias: str) -> exp.Expr:
    return exp.Not(this=exp.Is(this=column(name, alias), expression=exp.null()))


def _sql(query: exp.Select) -> str:
    return query.sql(dialect="postgres", normalize_functions=False)
