"""What decoys are learned from: patients and all their rows, read from the hospital's database.

Every column of a relation with decoys has one use: it is a key, refers to a row above, says who
somebody is, is left NULL, is computed by the server, or follows the real rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from sqlglot import exp

from pgbalise.catalog import ColumnInfo, columns, relation_info
from pgbalise.compile.cells import cast, column
from pgbalise.compile.views import table
from pgbalise.decoys.columns import Column, ColumnKind, Sample
from pgbalise.decoys.identity import Role
from pgbalise.decoys.texts import Form, kind_of, read_column
from pgbalise.errors import InvalidPolicy
from pgbalise.frames import one_chunk
from pgbalise.lineage import Link, in_order, links
from pgbalise.marking.types import Kind, SqlType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pgbalise.marking.policy import Policy, Relation
    from pgbalise.session import Session

MOST_ENTITIES: Final = 50_000
"""Patients that are read, at most."""

MOST_ROWS: Final = 2_000_000
"""Rows of one of their relations that are read, about, at most: fewer patients are read then."""

LEAST_HOLDERS: Final = 5
"""A value that fewer patients hold says who they are: it is never a decoy's."""

_PLACE: Final = "balise_place"
_PARENT: Final = "balise_parent"


class Use(StrEnum):
    """What a column of a decoy's row is."""

    NUMBER = "number"
    """A key, from holes of a sequence."""
    UUID = "uuid"
    TEXT_KEY = "text_key"
    """A key in the column's own format."""
    COUNTED = "counted"
    """The row's number among those of its parent."""
    LINK = "link"
    """That of a row above, which it refers to."""
    IDENTITY = "identity"
    EMPTY = "empty"
    SERVER = "server"
    """Computed by the server."""
    CLINICAL = "clinical"
    """Drawn from the joint distribution of the real rows."""


@dataclass(frozen=True)
class Member:
    """A relation with decoys, and where its rows hang."""

    relation: Relation
    columns: tuple[ColumnInfo, ...]
    parent: int | None
    """The place in the family of the relation that its rows belong to; None for the patients'."""
    links: Mapping[str, tuple[int, str]]
    """Columns that repeat a column of a row above: of which relation of the family."""
    uses: Mapping[str, Use]
    kinds: Mapping[str, ColumnKind]
    """How the columns that follow the real rows are held."""

    def using(self, use: Use) -> tuple[str, ...]:
        """Return the columns of a use."""
        return tuple(name for name, theirs in self.uses.items() if theirs is use)

    def declared(self, name: str) -> SqlType:
        """Return a column's type."""
        return next(info.type for info in self.columns if info.name == name)


@dataclass(frozen=True)
class Reading:
    """Real rows of one member: as a sample, and of its keys and identities the texts."""

    sample: Sample
    forms: Mapping[str, Form]
    texts: Mapping[str, pa.Array]


def family(session: Session, policy: Policy) -> list[Member]:
    """Return the relations with decoys, the patients' first, each after its parent.

    Raise InvalidPolicy, naming relation and column, where decoys' rows cannot be made.
    """
    known = links(session, policy)
    members: list[Member] = []
    for relation in in_order(policy, known):
        infos = tuple(columns(session, relation.schema, relation.name))
        mine = [link for link in known if link.child == relation]
        parent, above, left_out = _hang(relation, infos, mine, members)
        outside = _outside(session, relation, policy)
        uses, kinds = _uses(relation, infos, above, _labels(session, relation), outside)
        uses.update(dict.fromkeys(left_out, Use.EMPTY))
        members.append(Member(relation, infos, parent, above, uses, kinds))
    return members


def _hang(
    relation: Relation, infos: Sequence[ColumnInfo], mine: Sequence[Link], members: list[Member]
) -> tuple[int | None, dict[str, tuple[int, str]], set[str]]:
    """Return a relation's parent, the columns that repeat one of a row above, and those left out.

    These refer to what a decoy has no row of.
    """
    places = {member.relation.qualified: at for at, member in enumerate(members)}
    firm = {info.name for info in infos if info.not_null}
    candidates = [link for link in mine if link.parent.qualified in places]
    above: dict[str, tuple[int, str]] = {}
    parent, line = None, []
    if members:
        # the nearest to the rows, which those further up are the parents of
        chosen = max(
            candidates,
            key=lambda link: (
                firm.issuperset(link.columns),
                len(_line(members, places[link.parent.qualified])),
            ),
        )
        parent = places[chosen.parent.qualified]
        line = _line(members, parent)
        mine = [chosen, *(link for link in mine if link is not chosen)]
    left_out: set[str] = set()
    for link in mine:
        at = places.get(link.parent.qualified)
        if at is not None and at in line:
            for own, theirs in zip(link.columns, link.parent_columns, strict=True):
                above.setdefault(own, (at, theirs))
        else:
            left_out |= set(link.columns) - above.keys()
            stuck = sorted(set(link.columns) & firm - above.keys())
            if stuck:
                raise InvalidPolicy(
                    f"{relation.qualified}: column {stuck[0]} is NOT NULL and refers to"
                    f" {link.parent.qualified}, of which a decoy has no row to refer to",
                    hint="write decoys = false in one of the two",
                )
    return parent, above, left_out - above.keys()


def _line(members: Sequence[Member], at: int | None) -> list[int]:
    """A member and those above it."""
    found = []
    while at is not None:
        found.append(at)
        at = members[at].parent
    return found


_LABELS: Final = """
SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
 WHERE n.nspname = $1::text AND c.relname = $2::text AND a.attnum > 0 AND NOT a.attisdropped
   AND t.typtype = 'e'
"""


def _labels(session: Session, relation: Relation) -> set[str]:
    """The columns of an enumerated type."""
    return {name for (name,) in session.fetch(_LABELS, relation.schema, relation.name)}


_OUTSIDE: Final = """
SELECT f.conname::text,
       (SELECT array_agg(a.attname::text) FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey))
  FROM pg_catalog.pg_constraint AS f
  JOIN pg_catalog.pg_class AS p ON p.oid = f.confrelid
  JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
 WHERE f.contype = 'f'
   AND f.conrelid = pg_catalog.format('%I.%I', $1::text, $2::text)::regclass
   AND (pn.nspname::text, p.relname::text)
       NOT IN (SELECT * FROM unnest($3::text[], $4::text[]) AS named(s, r))
"""


def _outside(session: Session, relation: Relation, policy: Policy) -> dict[str, int]:
    """The columns that refer to a relation without decoys, each with how many do so together."""
    ours = [r for r in policy.relations if r.decoys]
    rows = session.fetch(
        _OUTSIDE,
        relation.schema,
        relation.name,
        [r.schema for r in ours],
        [r.name for r in ours],
    )
    found: dict[str, int] = {}
    for _, names in rows:
        for name in names:
            found[name] = max(len(names), found.get(name, 0))
    return found


def _uses(
    relation: Relation,
    infos: Sequence[ColumnInfo],
    above: Mapping[str, tuple[int, str]],
    labels: set[str],
    outside: Mapping[str, int],
) -> tuple[dict[str, Use], dict[str, ColumnKind]]:
    key = {name for name, _ in relation.key}
    free = [name for name in key if name not in above and name not in relation.identity]
    uses: dict[str, Use] = {}
    kinds: dict[str, ColumnKind] = {}
    for info in infos:
        kind = ColumnKind.CATEGORY if info.name in outside else None
        kind = kind or kind_of(info.type, label=info.name in labels)
        use = _use(relation, info, above, kind, free, outside.get(info.name, 0))
        uses[info.name] = use
        if use is Use.CLINICAL and kind is not None:
            kinds[info.name] = kind
    return uses, kinds


def _use(
    relation: Relation,
    info: ColumnInfo,
    above: Mapping[str, tuple[int, str]],
    kind: ColumnKind | None,
    free: Sequence[str],
    outside: int,
) -> Use:
    role = relation.identity.get(info.name)
    if info.generated:
        return Use.SERVER
    if info.name in above:
        return Use.LINK
    if role is Role.EMPTY:
        return Use.EMPTY
    if role is not None:
        # these two are drawn with the clinical columns, which depend on them
        clinical = role in (Role.SEX, Role.BIRTH_DATE) and kind is not None and not above
        return Use.CLINICAL if clinical else Use.IDENTITY
    alone = info.unique_with == (info.name,)
    if info.name in free or (alone and not outside):
        if info.type.kind is Kind.INTEGER:
            counts = info.name in free and len(free) < len(relation.key) and not alone
            return Use.COUNTED if counts else Use.NUMBER
        if info.type.name == "uuid":
            return Use.UUID
        if info.type.kind is Kind.CATEGORICAL and (alone or len(free) == len(relation.key) == 1):
            return Use.TEXT_KEY
    if kind is not None and outside < 2:
        return Use.CLINICAL
    if info.not_null:
        raise InvalidPolicy(
            f"{relation.qualified}: column {info.name} is NOT NULL, and decoys' values of it cannot"
            f" be drawn ({'a key of several columns' if outside else info.type_text})",
            hint="write decoys = false for this relation",
        )
    return Use.EMPTY


def read_family(session: Session, members: Sequence[Member]) -> list[Reading]:
    """Read patients at random with all their rows, in the order of the patients' keys.

    The same ones each time, as long as the relations stay the same. Needs SELECT on the relations
    and TEMPORARY on the database; must run inside a transaction. Raise InvalidPolicy when a column
    would quote a patient.
    """
    readings: list[Reading] = []
    names = [f"balise_kin_{at}" for at in range(len(members))]
    try:
        roots: list[NDArray[np.int64]] = []
        for at, member in enumerate(members):
            query = (
                _entities(session, members)
                if member.parent is None
                else _children(member, names[member.parent])
            )
            session.run(
                "CREATE TEMPORARY TABLE %I ON COMMIT DROP AS %s",
                names[at],
                query.sql(dialect="postgres", normalize_functions=False),
            )
            session.run("ANALYZE pg_temp.%I", names[at])
            reading, parents = _read(session, member, names[at])
            roots.append(
                np.arange(len(parents)) if member.parent is None else roots[member.parent][parents]
            )
            _refuse_quotes(member, reading, roots[at])
            readings.append(reading)
    finally:
        for name in names[: len(readings)]:
            session.run("DROP TABLE IF EXISTS pg_temp.%I", name)
    return readings


def _entities(session: Session, members: Sequence[Member]) -> exp.Select:
    """Patients, all or about so many at random, numbered in the order of their keys."""
    sizes = []
    for member in members:
        info = relation_info(session, member.relation.schema, member.relation.name)
        sizes.append(info.rows if info else 0)
    relation = members[0].relation
    info = relation_info(session, relation.schema, relation.name)
    widest = max(sizes) / max(1, sizes[0])
    wanted = min(MOST_ENTITIES, max(1_000, int(MOST_ROWS / max(1.0, widest))))
    source = table(relation.name, relation.schema, "t")
    query = exp.select(_number(relation), *_raw(members[0])).from_(source)
    if sizes[0] > wanted and info is not None and info.kind in ("r", "p", "m"):
        query.args["from_"].this.set(
            "sample",
            exp.TableSample(
                method=exp.Var(this="BERNOULLI"),
                percent=exp.Literal.number(f"{100 * wanted / sizes[0]:.6f}"),
                seed=exp.Literal.number(1),
            ),
        )
    return query


def _children(member: Member, parent: str) -> exp.Select:
    mine = {own: theirs for own, (at, theirs) in member.links.items() if at == member.parent}
    joined = exp.and_(
        *(
            exp.EQ(this=column(own, "t"), expression=column(theirs, "p"))
            for own, theirs in mine.items()
        )
    )
    return (
        exp.select(
            _number(member.relation, column(_PLACE, "p")),
            exp.alias_(column(_PLACE, "p"), _PARENT),
            *_raw(member),
        )
        .from_(table(member.relation.name, member.relation.schema, "t"))
        .join(table(parent, "pg_temp", "p"), on=joined)
    )


def _number(relation: Relation, *before: exp.Expr) -> exp.Expr:
    order = exp.Order(
        expressions=[
            exp.Ordered(this=part)
            for part in [*before, *(column(name, "t") for name, _ in relation.key)]
        ]
    )
    number = exp.Window(this=exp.RowNumber(), order=order)
    return exp.alias_(exp.Sub(this=number, expression=exp.Literal.number(1)), _PLACE)


def _raw(member: Member) -> list[exp.Expr]:
    return [
        exp.alias_(column(name, "t"), exp.to_identifier(name, quoted=True))
        for name, use in member.uses.items()
        if use not in (Use.EMPTY, Use.SERVER)
    ]


def _read(session: Session, member: Member, name: str) -> tuple[Reading, NDArray[np.int64]]:
    wanted = [part for part, use in member.uses.items() if use not in (Use.EMPTY, Use.SERVER)]
    above = [] if member.parent is None else [_PARENT]
    query = (
        exp.select(*(cast(column(part, "t"), "text") for part in [*above, *wanted]))
        .from_(table(name, "pg_temp", "t"))
        .order_by(column(_PLACE, "t"))
    )
    rows = session.read(query.sql(dialect="postgres", normalize_functions=False), [*above, *wanted])
    parents = (
        np.asarray(one_chunk(rows.column(_PARENT)).cast(pa.int64()), np.int64)
        if above
        else np.zeros(rows.num_rows, np.int64)
    )
    found: list[Column] = []
    forms: dict[str, Form] = {}
    texts: dict[str, pa.Array] = {}
    for part in wanted:
        array = one_chunk(rows.column(part))
        if member.uses[part] is Use.CLINICAL:
            made, forms[part] = read_column(part, member.kinds[part], member.declared(part), array)
            found.append(made)
        if member.uses[part] is not Use.CLINICAL or part in member.relation.identity:
            texts[part] = array
    sample = Sample(
        member.relation.qualified,
        tuple(found),
        member.parent,
        parents if above else np.zeros(0, np.int64),
    )
    return Reading(sample, forms, texts), parents


def _refuse_quotes(member: Member, reading: Reading, roots: NDArray[np.int64]) -> None:
    """Raise InvalidPolicy for a column of texts most of which hardly anybody else has."""
    for made in reading.sample.columns:
        if made.kind is not ColumnKind.CATEGORY or not made.valid.any():
            continue
        values = made.values[made.valid].astype(np.int64)
        entities = int(roots.max()) + 1
        pairs = np.unique(values * entities + roots[made.valid])
        holders = np.bincount(pairs // entities, minlength=len(made.categories))
        if np.mean(holders[values] >= LEAST_HOLDERS) < 0.5:
            raise InvalidPolicy(
                f"{member.relation.qualified}: of most values of column {made.name} fewer than"
                f" {LEAST_HOLDERS} patients have the same, so a decoy's would quote a patient",
                hint=f'say what it is: identity = {{ {made.name} = "empty" }}, or another role',
            )
