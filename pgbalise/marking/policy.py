"""The policy: which columns may carry marks, and how far a value may move.

A policy is complete by itself: it names the type of every key and carrier, so that marking and
tracing need no database. Written as TOML (or the same structure as JSON); see docs/reference.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from pgbalise.decoys.identity import Role
from pgbalise.errors import InvalidPolicy
from pgbalise.marking.decoy_policy import (
    DecoyPolicy,
    read_decoys,
    read_identity,
    read_parents,
)
from pgbalise.marking.document import (
    flag_of,
    list_of,
    only,
    quote,
    split_name,
    table_of,
    text_of,
)
from pgbalise.marking.types import (
    KEY_TYPES,
    Kind,
    SqlType,
    decimals,
    number,
    quantum_units,
    value_units,
)

DEFAULT_CELLS_PER_ROW = Decimal("0.5")
"""Marked cells per row, on average, when the policy names no density."""


class RecipientClass(StrEnum):
    """What a recipient may be given: all carriers (secondary use), or neutral ones only (care)."""

    SECONDARY = "secondary"
    CARE = "care"


class Derivation(StrEnum):
    """What decides a selected cell's position and sign: PostgreSQL's seeded hash, or SHA-256."""

    SEEDED = "seeded"
    SHA256 = "sha256"


@dataclass(frozen=True)
class Tolerance:
    """How a value may move.

    Numbers are in the carrier's units: numbers for numeric kinds, days or microseconds since
    1970-01-01 for dates and timestamps.
    """

    quantum: Decimal
    low: Decimal
    high: Decimal
    thresholds: tuple[Decimal, ...] = ()
    skip: tuple[Decimal, ...] = ()
    grid: Decimal | None = None
    """Heaped values (multiples of the grid) move by a whole step of it: heaps keep their look."""


@dataclass(frozen=True)
class Equivalents:
    """Groups of values that mean the same; a mark replaces one by its neighbour in the group."""

    groups: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Carrier:
    """A column that may carry marks."""

    column: str
    type: SqlType
    density: Decimal
    """Share of the cells that carry a codeword bit; half of these differ from the stored value."""
    neutral: bool
    scale: int
    """Decimals that the column's values are counted in."""
    continuous: bool
    """A floating-point column of computed values with all their digits (no decimal look)."""
    entity: tuple[tuple[str, SqlType], ...]
    """The columns whose value owns this cell, like a key; empty when the row's key does."""
    by: tuple[str, SqlType] | None
    tolerances: Mapping[str | None, Tolerance | Equivalents]
    """By value of the ``by`` column, or under None."""

    @property
    def kind(self) -> Kind:
        """How the values are read and moved."""
        kind = self.type.kind
        assert kind is not None
        return kind


@dataclass(frozen=True)
class Relation:
    """A protected relation."""

    schema: str
    name: str
    key: tuple[tuple[str, SqlType], ...]
    """The columns that identify a row, in the order of their names: so they are hashed."""
    carriers: tuple[Carrier, ...]
    view: str
    decoys: bool
    unique: bool = False
    """Whether the policy's author answers for the key where no index keeps it unique."""
    identity: Mapping[str, Role] = field(default_factory=dict)
    """What columns say of who a patient is; of the other columns decoys follow the real rows."""
    parents: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Columns that refer to the key of another relation (schema and name), where the database
    has no foreign key that says so."""

    @property
    def qualified(self) -> str:
        """The name as the policy writes it, ``schema.name``."""
        return f"{quote(self.schema)}.{quote(self.name)}"

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that marks rest on: the key, the carriers and what these go by."""
        names = [name for name, _ in self.key]
        for carrier in self.carriers:
            names += [carrier.column, *(name for name, _ in carrier.entity)]
            names += [carrier.by[0]] if carrier.by else []
        return tuple(dict.fromkeys(names))

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that the policy names: what marks rest on, and what decoys do."""
        return tuple(dict.fromkeys([*self.needed, *self.identity, *self.parents]))

    def carriers_for(self, recipient_class: RecipientClass) -> tuple[Carrier, ...]:
        """The carriers that a class of recipients gets marked: all, or the neutral ones."""
        if recipient_class is RecipientClass.SECONDARY:
            return self.carriers
        return tuple(carrier for carrier in self.carriers if carrier.neutral)


@dataclass(frozen=True)
class Policy:
    """What is protected, and how."""

    relations: tuple[Relation, ...]
    schemas: Mapping[RecipientClass, str]
    """The schema of the marked views, by class of recipient."""
    derivation: Derivation
    epoch: int
    decoys: DecoyPolicy | None = None
    """None when no decoys are to be issued, whatever relations have room for them."""

    def relation(self, name: str | None) -> Relation:
        """Return the relation of that name (``schema.name``); None means the only one."""
        if name is None:
            if len(self.relations) == 1:
                return self.relations[0]
            raise InvalidPolicy("the policy has several relations", hint="name one of them")
        wanted = split_name(name, "relation")
        for relation in self.relations:
            if (relation.schema, relation.name) == wanted:
                return relation
        known = ", ".join(relation.qualified for relation in self.relations)
        raise InvalidPolicy(f"the policy has no relation {name}", hint=f"it has {known}")


def load_policy(text: str) -> Policy:
    """Read a policy from TOML, or from JSON when the text starts with a brace."""
    return parse_policy(load_document(text))


def load_document(text: str) -> dict[str, Any]:
    """Read the structure of a policy, its numbers exact, without looking at what it says."""
    try:
        if text.lstrip().startswith("{"):
            document = json.loads(text, parse_float=Decimal)
        else:
            document = tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as problem:
        raise InvalidPolicy(f"the policy cannot be read: {problem}") from None
    assert isinstance(document, dict)
    return document


def parse_policy(document: Mapping[str, Any]) -> Policy:
    """Build a policy from its document; raise InvalidPolicy saying what is wrong and where."""
    only(document, {"views", "derivation", "epoch", "decoys", "relation"}, "the policy")
    views = table_of(document.get("views", {}), "views")
    only(views, {"secondary", "care"}, "views")
    schemas = {
        RecipientClass.SECONDARY: text_of(views.get("secondary", "marked"), "views.secondary"),
        RecipientClass.CARE: text_of(views.get("care", "marked_care"), "views.care"),
    }
    if len(set(schemas.values())) != len(schemas):
        raise InvalidPolicy("views: secondary and care need different schemas")
    try:
        derivation = Derivation(document.get("derivation", "seeded"))
    except ValueError:
        raise InvalidPolicy('derivation: must be "seeded" or "sha256"') from None
    epoch = document.get("epoch", 1)
    if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 1:
        raise InvalidPolicy("epoch: must be a whole number from 1")
    tables = table_of(document.get("relation", {}), "relation")
    relations = tuple(
        _relation(name, table_of(body, name)) for name, body in sorted(tables.items())
    )
    if not relations:
        raise InvalidPolicy("the policy protects no relation", hint='add [relation."schema.name"]')
    seen: set[tuple[str, str]] = set()
    for relation in relations:
        for name in ((relation.schema, relation.name), ("\0view", relation.view)):
            if name in seen:
                what = "view" if name[0] == "\0view" else "relation"
                raise InvalidPolicy(
                    f"{relation.qualified}: its {what} name is taken twice",
                    hint='write view = "another_name"' if name[0] == "\0view" else None,
                )
            seen.add(name)
        if relation.schema in schemas.values():
            raise InvalidPolicy(
                f"{relation.qualified}: the schema of marked views is not protected"
            )
    _check_parents(relations)
    decoys = None
    if "decoys" in document:
        possible = {(relation.schema, relation.name) for relation in relations if relation.decoys}
        decoys = read_decoys(table_of(document["decoys"], "decoys"), possible)
    return Policy(relations, schemas, derivation, epoch, decoys)


def _check_parents(relations: tuple[Relation, ...]) -> None:
    """Raise InvalidPolicy unless each parent is a relation with decoys and a key of one column."""
    by_name = {(relation.schema, relation.name): relation for relation in relations}
    for relation in relations:
        for name, wanted in relation.parents.items():
            where = f"{relation.qualified}: parent {name}"
            parent = by_name.get(wanted)
            if parent is None or not parent.decoys:
                raise InvalidPolicy(
                    f"{where}: {quote(wanted[0])}.{quote(wanted[1])} is not a relation of the"
                    " policy with decoys",
                    hint="leave it out: the column then follows the real rows",
                )
            if len(parent.key) != 1:
                raise InvalidPolicy(
                    f"{where}: the key of {parent.qualified} has several columns",
                    hint="declare the foreign key in the database",
                )


def _relation(name: str, body: Mapping[str, Any]) -> Relation:
    schema, bare = split_name(name, "relation")
    only(body, {"key", "unique", "carrier", "view", "decoys", "identity", "parent"}, name)
    key = _columns(body.get("key"), f"{name}: key")
    if not key:
        raise InvalidPolicy(f"{name}: it has no key", hint='write key = { id = "bigint" }')
    decoys, unique = (flag_of(body, flag, name) for flag in ("decoys", "unique"))
    tables = table_of(body.get("carrier", {}), f"{name}: carrier")
    if not tables and not decoys:
        raise InvalidPolicy(
            f"{name}: it has no carrier", hint="a relation without carriers needs decoys = true"
        )
    default = DEFAULT_CELLS_PER_ROW / max(1, len(tables))
    key_columns = {column for column, _ in key}
    carriers = []
    for column, table in sorted(tables.items()):
        where = f"{name}: carrier {column}"
        if column in key_columns:
            raise InvalidPolicy(f"{where}: a key is never marked")
        carriers.append(_carrier(column, table_of(table, where), default, where))
    steering = {c for carrier in carriers for c, _ in carrier.entity}
    steering |= {carrier.by[0] for carrier in carriers if carrier.by}
    for column in sorted(steering & set(tables)):
        raise InvalidPolicy(
            f"{name}: carrier {column} is what another carrier goes by, so it must stay as it is"
        )
    view = text_of(body.get("view", bare), f"{name}: view")
    identity = read_identity(body.get("identity", {}), f"{name}: identity", set(tables))
    parents = read_parents(body.get("parent", {}), f"{name}: parent", set(tables))
    if (identity or parents) and not decoys:
        raise InvalidPolicy(
            f"{name}: identity and parent are for a relation with decoys",
            hint="write decoys = true",
        )
    return Relation(schema, bare, key, tuple(carriers), view, decoys, unique, identity, parents)


_TOLERANCE = {"quantum", "bounds", "thresholds", "skip", "grid", "equivalents"}


def _carrier(column: str, body: Mapping[str, Any], default: Decimal, where: str) -> Carrier:
    known = {"type", "density", "neutral", "entity", "by", "tolerance", "scale", "continuous"}
    only(body, known | _TOLERANCE, where)
    declared = SqlType.parse(text_of(body.get("type"), f"{where}: type"))
    if declared.kind is None:
        raise InvalidPolicy(f"{where}: a column of type {declared} cannot be marked")
    density = number(body.get("density", default), f"{where}: density")
    if not 0 < density <= 1:
        raise InvalidPolicy(f"{where}: density must be above 0 and at most 1")
    flags = {flag: flag_of(body, flag, where) for flag in ("neutral", "continuous")}
    if flags["continuous"] and declared.kind is not Kind.FLOAT:
        raise InvalidPolicy(f"{where}: only a floating-point column can be continuous")
    by = _columns(body.get("by", {}), f"{where}: by")
    bodies: dict[str | None, Mapping[str, Any]]
    if by:
        if len(by) != 1:
            raise InvalidPolicy(f"{where}: by names one column")
        if set(body) & _TOLERANCE:
            raise InvalidPolicy(f"{where}: with by, each value has its own tolerance table")
        tables = table_of(body.get("tolerance", {}), f"{where}: tolerance")
        bodies = {
            value: table_of(table, f"{where}: tolerance {value}")
            for value, table in sorted(tables.items())
        }
        if not bodies:
            raise InvalidPolicy(f"{where}: by {by[0][0]} needs at least one tolerance table")
    else:
        if "tolerance" in body:
            raise InvalidPolicy(f"{where}: tolerance tables need by")
        bodies = {None: {name: value for name, value in body.items() if name in _TOLERANCE}}
    scale = _scale(declared, body, bodies, where)
    tolerances = {
        value: _tolerance(declared, scale, table, where if value is None else f"{where} {value}")
        for value, table in bodies.items()
    }
    return Carrier(
        column,
        declared,
        density,
        flags["neutral"],
        scale,
        flags["continuous"],
        _columns(body.get("entity", {}), f"{where}: entity"),
        by[0] if by else None,
        tolerances,
    )


def _scale(
    declared: SqlType,
    body: Mapping[str, Any],
    bodies: Mapping[str | None, Mapping[str, Any]],
    where: str,
) -> int:
    """Decimals that values are counted in: the column's, else the finest that the policy names."""
    if declared.kind not in (Kind.NUMERIC, Kind.FLOAT):
        if "scale" in body:
            raise InvalidPolicy(f"{where}: scale is for numeric and floating-point columns")
        return 0
    finest = (
        max(
            decimals(number(table[name], f"{where}: {name}"))
            for table in bodies.values()
            for name in ("quantum", "grid")
            if name in table
        )
        if any("quantum" in table for table in bodies.values())
        else 0
    )
    if declared.kind is Kind.NUMERIC and declared.scale is not None:
        if "scale" in body:
            raise InvalidPolicy(f"{where}: {declared} already says its scale")
        if finest > declared.scale:
            raise InvalidPolicy(
                f"{where}: the quantum is finer than the column's scale ({declared})",
                hint=f"the finest is {Decimal(1).scaleb(-declared.scale)}",
            )
        return declared.scale
    scale = body.get("scale", finest)
    if not isinstance(scale, int) or isinstance(scale, bool) or not 0 <= scale <= 15:
        raise InvalidPolicy(f"{where}: scale must be a whole number from 0 to 15")
    if scale < finest:
        raise InvalidPolicy(f"{where}: the quantum is finer than the scale, {scale} decimals")
    return scale


def _tolerance(
    declared: SqlType, scale: int, body: Mapping[str, Any], where: str
) -> Tolerance | Equivalents:
    kind = declared.kind
    assert kind is not None
    only(body, _TOLERANCE, where)
    if kind is Kind.CATEGORICAL:
        only(body, {"equivalents"}, where)
        groups = _equivalents(body.get("equivalents"), where)
        longest = max(len(member) for group in groups for member in group)
        if declared.precision is not None and longest > declared.precision:
            raise InvalidPolicy(f"{where}: an equivalent is longer than {declared} can hold")
        return Equivalents(groups)
    if "equivalents" in body:
        raise InvalidPolicy(f"{where}: equivalents are for text columns")
    if "quantum" not in body:
        raise InvalidPolicy(f"{where}: it has no quantum")
    quantum = quantum_units(kind, body["quantum"], f"{where}: quantum")
    whole = kind is not Kind.NUMERIC and kind is not Kind.FLOAT
    if quantum <= 0 or (whole and quantum != int(quantum)):
        raise InvalidPolicy(f"{where}: the quantum must be a positive {'whole ' * whole}number")
    if kind is Kind.TIMESTAMP and 1_000_000 % quantum and quantum % 1_000_000:
        raise InvalidPolicy(f"{where}: the quantum must divide one second or be whole seconds")
    if kind is Kind.TIMESTAMP and quantum % 10 ** (
        6 - (6 if declared.precision is None else declared.precision)
    ):
        raise InvalidPolicy(f"{where}: the quantum is finer than the column's scale ({declared})")
    low, high = declared.limits(scale)
    bounds = list_of(body.get("bounds", ["", ""]), f"{where}: bounds")
    if len(bounds) != 2:
        raise InvalidPolicy(f"{where}: bounds are a list of two, the lowest and the highest value")
    if bounds[0] != "":
        low = max(low, value_units(kind, bounds[0], f"{where}: bounds"))
    if bounds[1] != "":
        high = min(high, value_units(kind, bounds[1], f"{where}: bounds"))
    if high - low < 2 * quantum:
        raise InvalidPolicy(f"{where}: between its bounds a value cannot move by the quantum")
    values = {
        name: tuple(
            sorted(
                {
                    value_units(kind, v, f"{where}: {name}")
                    for v in list_of(body.get(name, []), name)
                }
            )
        )
        for name in ("thresholds", "skip")
    }
    grid = None
    if "grid" in body:
        if kind not in (Kind.INTEGER, Kind.NUMERIC):
            raise InvalidPolicy(f"{where}: a grid is for integer and numeric columns")
        grid = number(body["grid"], f"{where}: grid")
        if grid <= quantum or grid % quantum:
            raise InvalidPolicy(f"{where}: the grid must be a multiple of the quantum")
    return Tolerance(quantum, low, high, values["thresholds"], values["skip"], grid)


def _equivalents(value: object, where: str) -> tuple[tuple[str, ...], ...]:
    groups = tuple(
        tuple(text_of(member, f"{where}: equivalents") for member in list_of(group, where))
        for group in list_of(value if value is not None else [], f"{where}: equivalents")
    )
    members = [member for group in groups for member in group]
    if not groups or any(len(group) < 2 for group in groups):
        raise InvalidPolicy(f"{where}: equivalents are a list of groups of two or more values")
    if len(set(members)) != len(members):
        raise InvalidPolicy(f"{where}: a value stands in two groups of equivalents")
    return groups


def _columns(value: object, where: str) -> tuple[tuple[str, SqlType], ...]:
    if value is None:
        return ()
    columns = []
    # in the order of their names: the order of a table's entries is lost in JSON, and it must
    # not change which cells are marked
    for column, text in sorted(table_of(value, where).items()):
        declared = SqlType.parse(text_of(text, f"{where} {column}"))
        if declared.name not in KEY_TYPES:
            raise InvalidPolicy(
                f"{where} {column}: a column of type {declared} cannot be part of a key",
                hint="integers, text, uuid, date and timestamps can",
            )
        columns.append((column, declared))
    return tuple(columns)
