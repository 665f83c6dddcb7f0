"""Whether a relation can have decoys, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgbalise.catalog import existing
from pgbalise.decoys.identity import Role
from pgbalise.errors import InvalidPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgbalise.catalog import ColumnInfo
    from pgbalise.marking.policy import Relation

_MOST_COLUMNS: Final = 1_600
"""Columns that a table can have."""

DECOY_COLUMNS: Final = ("balise_recipient", "balise_decoy")
"""What a table of decoys has before the relation's own columns: whose row it is, and of whom."""


def fit_decoys(relation: Relation, known: Mapping[str, ColumnInfo]) -> None:
    """Raise InvalidPolicy, naming relation and column, unless it can have the decoys it is to have.

    ``known`` are its columns by name.
    """
    if not relation.decoys:
        return
    where = f"{relation.qualified}: decoys"
    for name in DECOY_COLUMNS:
        if name in known:
            raise InvalidPolicy(
                f"{where}: their table has a column {name} of its own", hint="rename the relation's"
            )
    more = len(DECOY_COLUMNS)
    if len(known) + more > _MOST_COLUMNS:
        raise InvalidPolicy(
            f"{where}: their table has {more} columns more than the relation, {len(known) + more},"
            f" and a table at most {_MOST_COLUMNS}",
            hint="write decoys = false",
        )
    for name, role in relation.identity.items():
        column = existing(known, name, f"{relation.qualified}: identity")
        if column.generated:
            raise InvalidPolicy(
                f"{relation.qualified}: identity {name}: the server computes it from other columns",
                hint="give these a role; leave it out",
            )
        if role is Role.EMPTY and column.not_null:
            raise InvalidPolicy(
                f"{relation.qualified}: identity {name}: the column is NOT NULL, so decoys cannot"
                " leave it empty",
                hint="give it another role, or write decoys = false",
            )
    for name in relation.parents:
        existing(known, name, f"{relation.qualified}: parent")
