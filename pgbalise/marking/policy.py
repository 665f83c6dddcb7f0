"""The policy: which columns may carry marks, and how far a value may move.

A policy is complete by itself: it names the type of every key and carrier, so that marking and
tracing need no database. Written as TOML (or the same structure as JSON); see docs/reference.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from pgbalise.errors import InvalidPolicy
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


_PLAIN = re.compile(r"^[a-z_][a-z0-9_$]*$")
_NAME = re.compile(r'^("(?:[^"]|"")+"|[^".\s]+)\.("(?:[^"]|"")+"|[^".\s]+)$')


def quote(name: str) -> str:
    """Write an identifier as PostgreSQL does, with quotes only where it needs them."""
    return name if _PLAIN.match(name) else '"' + name.replace('"', '""') + '"'


def split_name(text: str, where: str) -> tuple[str, str]:
    """Split ``schema.name``, either part quoted or not; unquoted parts fold to lower case."""
    match = _NAME.match(text)
    if not match:
        raise InvalidPolicy(f"{where}: {text!r} is not of the form schema.name")
    schema, name = (
        part[1:-1].replace('""', '"') if part.startswith('"') else part.lower()
        for part in match.groups()
    )
    return schema, name


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
    _only(document, {"views", "derivation", "epoch", "relation"}, "the policy")
    views = _table(document.get("views", {}), "views")
    _only(views, {"secondary", "care"}, "views")
    schemas = {
        RecipientClass.SECONDARY: _text(views.get("secondary", "marked"), "views.secondary"),
        RecipientClass.CARE: _text(views.get("care", "marked_care"), "views.care"),
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
    tables = _table(document.get("relation", {}), "relation")
    relations = tuple(_relation(name, _table(body, name)) for name, body in sorted(tables.items()))
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
    return Policy(relations, schemas, derivation, epoch)


def _relation(name: str, body: Mapping[str, Any]) -> Relation:
    schema, bare = split_name(name, "relation")
    _only(body, {"key", "unique", "carrier", "view", "decoys"}, name)
    key = _columns(body.get("key"), f"{name}: key")
    if not key:
        raise InvalidPolicy(f"{name}: it has no key", hint='write key = { id = "bigint" }')
    tables = _table(body.get("carrier", {}), f"{name}: carrier")
    if not tables:
        raise InvalidPolicy(f"{name}: it has no carrier")
    decoys, unique = (body.get(flag, False) for flag in ("decoys", "unique"))
    for flag, value in (("decoys", decoys), ("unique", unique)):
        if not isinstance(value, bool):
            raise InvalidPolicy(f"{name}: {flag} must be true or false")
    default = DEFAULT_CELLS_PER_ROW / len(tables)
    key_columns = {column for column, _ in key}
    carriers = []
    for column, table in sorted(tables.items()):
        where = f"{name}: carrier {column}"
        if column in key_columns:
            raise InvalidPolicy(f"{where}: a key is never marked")
        carriers.append(_carrier(column, _table(table, where), default, where))
    steering = {c for carrier in carriers for c, _ in carrier.entity}
    steering |= {carrier.by[0] for carrier in carriers if carrier.by}
    for column in sorted(steering & set(tables)):
        raise InvalidPolicy(
            f"{name}: carrier {column} is what another carrier goes by, so it must stay as it is"
        )
    view = _text(body.get("view", bare), f"{name}: view")
    return Relation(schema, bare, key, tuple(carriers), view, decoys, unique)


_TOLERANCE = {"quantum", "bounds", "thresholds", "skip", "grid", "equivalents"}


def _carrier(column: str, body: Mapping[str, Any], default: Decimal, where: str) -> Carrier:
    known = {"type", "density", "neutral", "entity", "by", "tolerance", "scale", "continuous"}
    _only(body, known | _TOLERANCE, where)
    declared = SqlType.parse(_text(body.get("type"), f"{where}: type"))
    if declared.kind is None:
        raise InvalidPolicy(f"{where}: a column of type {declared} cannot be marked")
    density = number(body.get("density", default), f"{where}: density")
    if not 0 < density <= 1:
        raise InvalidPolicy(f"{where}: density must be above 0 and at most 1")
    flags = {flag: body.get(flag, False) for flag in ("neutral", "continuous")}
    for flag, value in flags.items():
        if not isinstance(value, bool):
            raise InvalidPolicy(f"{where}: {flag} must be true or false")
    if flags["continuous"] and declared.kind is not Kind.FLOAT:
        raise InvalidPolicy(f"{where}: only a floating-point column can be continuous")
    by = _columns(body.get("by", {}), f"{where}: by")
    bodies: dict[str | None, Mapping[str, Any]]
    if by:
        if len(by) != 1:
            raise InvalidPolicy(f"{where}: by names one column")
        if set(body) & _TOLERANCE:
            raise InvalidPolicy(f"{where}: with by, each value has its own tolerance table")
        tables = _table(body.get("tolerance", {}), f"{where}: tolerance")
        bodies = {
            value: _table(table, f"{where}: tolerance {value}")
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
    _only(body, _TOLERANCE, where)
    if kind is Kind.CATEGORICAL:
        _only(body, {"equivalents"}, where)
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
    bounds = _list(body.get("bounds", ["", ""]), f"{where}: bounds")
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
                {value_units(kind, v, f"{where}: {name}") for v in _list(body.get(name, []), name)}
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
        tuple(_text(member, f"{where}: equivalents") for member in _list(group, where))
        for group in _list(value if value is not None else [], f"{where}: equivalents")
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
    for column, text in sorted(_table(value, where).items()):
        declared = SqlType.parse(_text(text, f"{where} {column}"))
        if declared.name not in KEY_TYPES:
            raise InvalidPolicy(
                f"{where} {column}: a column of type {declared} cannot be part of a key",
                hint="integers, text, uuid, date and timestamps can",
            )
        columns.append((column, declared))
    return tuple(columns)


def _only(table: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in table:
        if name not in known:
            raise InvalidPolicy(f"{where}: unknown setting {name!r}", hint=f"known: {_join(known)}")


def _join(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidPolicy(f"{where}: must be a table")
    return value


def _list(value: object, where: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise InvalidPolicy(f"{where}: must be a list")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidPolicy(f"{where}: must be a text that is not empty")
    return value
