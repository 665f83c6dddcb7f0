"""How the relations with decoys hang together: which depends on which, down from the patients'.

By the database's foreign keys and, where it declares none, the policy's ``parent``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pgbalise.errors import InvalidPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgbalise.marking.policy import Policy, Relation
    from pgbalise.session import Session


@dataclass(frozen=True)
class Link:
    """Columns of a relation with decoys that refer to columns of another one, or of itself."""

    child: Relation
    columns: tuple[str, ...]
    parent: Relation
    parent_columns: tuple[str, ...]
    """As many as ``columns``, in the same order: what makes a row of the parent unique."""


_FOREIGN_KEYS: Final = """
SELECT cn.nspname::text, c.relname::text, pn.nspname::text, p.relname::text,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM unnest(f.conkey) WITH ORDINALITY AS k(attnum, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum),
       (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM unnest(f.confkey) WITH ORDINALITY AS k(attnum, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p.oid AND a.attnum = k.attnum)
  FROM pg_catalog.pg_constraint AS f
  JOIN pg_catalog.pg_class AS c ON c.oid = f.conrelid
  JOIN pg_catalog.pg_namespace AS cn ON cn.oid = c.relnamespace
  JOIN pg_catalog.pg_class AS p ON p.oid = f.confrelid
  JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
 WHERE f.contype = 'f'
   AND (cn.nspname::text, c.relname::text)
       IN (SELECT * FROM unnest($1::text[], $2::text[]) AS named(s, r))
   AND (pn.nspname::text, p.relname::text)
       IN (SELECT * FROM unnest($1::text[], $2::text[]) AS named(s, r))
 ORDER BY cn.nspname, c.relname, f.conname
"""


def links(session: Session, policy: Policy) -> list[Link]:
    """Return how the policy's relations with decoys refer to each other, without repeats.

    By the name of the child; of one relation, what the database declares comes first. A relation
    may refer to several others, to one of them by several columns, and to itself.
    """
    by_name = {(r.schema, r.name): r for r in policy.relations if r.decoys}
    if not by_name:
        return []
    found = [
        Link(by_name[schema, name], tuple(own), by_name[p_schema, p_name], tuple(theirs))
        for schema, name, p_schema, p_name, own, theirs in session.fetch(
            _FOREIGN_KEYS, [schema for schema, _ in by_name], [name for _, name in by_name]
        )
    ]
    known = {(link.child.qualified, link.columns, link.parent.qualified) for link in found}
    for relation in by_name.values():
        for column, name in relation.parents.items():
            parent = by_name[name]
            link = Link(relation, (column,), parent, tuple(part for part, _ in parent.key))
            if (relation.qualified, link.columns, parent.qualified) not in known:
                found.append(link)
    return sorted(found, key=lambda link: link.child.qualified)


def in_order(policy: Policy, known: Sequence[Link]) -> list[Relation]:
    """Return the relations with decoys, the patients' first, each after those it refers to.

    ``known`` are the policy's links. Where they go in circles (a patient's last stay), a relation
    comes after at least one that it refers to. Raise InvalidPolicy when a relation with decoys
    does not lead to the patients', or when the policy has no ``decoys``.
    """
    if policy.decoys is None:
        raise InvalidPolicy(
            "the policy does not say which decoys to issue", hint="add [decoys] with entity"
        )
    wanted = {(r.schema, r.name): r for r in policy.relations if r.decoys}
    entity = wanted.pop(policy.decoys.entity)
    parents: dict[tuple[str, str], set[tuple[str, str]]] = {name: set() for name in wanted}
    for link in known:
        child, parent = ((r.schema, r.name) for r in (link.child, link.parent))
        if child in parents and child != parent:
            parents[child].add(parent)
    placed = {policy.decoys.entity: entity}
    while parents:
        ready = [name for name, above in parents.items() if above and above <= placed.keys()]
        ready = ready or [name for name, above in parents.items() if above & placed.keys()][:1]
        if not ready:
            names = ", ".join(wanted[name].qualified for name in parents)
            raise InvalidPolicy(
                f"{names}: no foreign key leads from there to {entity.qualified} through relations"
                " with decoys, so whose rows the decoys' would be is not known",
                hint=f'write parent = {{ COLUMN = "{entity.qualified}" }}, or decoys = false',
            )
        for name in ready:
            placed[name] = wanted[name]
            del parents[name]
    return list(placed.values())
