"""One carrier's cell as a SQL expression: the same rules as pgbalise.marking.embedding.

Everything is written with sqlglot and printed in PostgreSQL's dialect. The expressions are kept
small on purpose: at the start of each statement PostgreSQL looks up and checks every function
call in them, which is what a lookup by key pays for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import TypeAlias

import numpy as np
from sqlglot import exp

from pgbalise.marking.cells import POSITION_MASK, SIGN_BIT, gate_limit
from pgbalise.marking.codes import CODE_LENGTH
from pgbalise.marking.embedding import Step, Zone, step
from pgbalise.marking.policy import Carrier, Derivation, Equivalents, Tolerance
from pgbalise.marking.types import Kind, SqlType, decimals

_Writer: TypeAlias = Callable[[Carrier, Tolerance | Equivalents], exp.Expr]

BASE = "t"
"""Alias of the protected relation (and its decoys) inside a marked view."""

SECRETS = "s"
"""Alias of the one row of secrets inside a marked view."""

HASHES = "h"
"""Alias of a row's cell hashes inside a marked view."""


def column(name: str, table: str) -> exp.Column:
    """Return a quoted reference to a column of an alias."""
    return exp.column(exp.to_identifier(name, quoted=True), table=table, copy=False)


def call(name: str, *arguments: exp.Expr) -> exp.Expr:
    """Return a function call as it stands, whatever sqlglot knows of the name."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def cast(value: exp.Expr, to: str) -> exp.Expr:
    """Return a cast to a PostgreSQL type, spelled as given."""
    # one node for all: nothing reads a type's parent
    return exp.Cast(this=value, to=_data_type(to))


@cache
def _data_type(name: str) -> exp.DataType:
    return exp.DataType.build(name, dialect="postgres", udt=True)


def constant(text: str, to: str) -> exp.Expr:
    """Return a constant of a type: a cast string literal, which the parser folds at once."""
    return cast(exp.Literal.string(text), to)


def integer(value: int) -> exp.Expr:
    """Return a plain integer literal (not negative)."""
    return exp.Literal.number(value)


def case(branches: Iterable[tuple[exp.Expr, exp.Expr]], otherwise: exp.Expr | None) -> exp.Case:
    """Return CASE WHEN ... THEN ... [ELSE ...] END."""
    out = exp.Case()
    for condition, value in branches:
        out = out.when(condition, value, copy=False)
    return out if otherwise is None else out.else_(otherwise, copy=False)


def paren(value: exp.Expr) -> exp.Expr:
    """Return the expression in parentheses."""
    return exp.Paren(this=value)


def key_hash(key: Sequence[tuple[str, SqlType]], first: exp.Expr, second: exp.Expr) -> exp.Expr:
    """Return the cell hash (see pgbalise.marking.hashing.key_hash)."""
    chained = first
    for name, declared in key:
        value = column(name, BASE)
        match declared.name:
            case "smallint":
                chained = call("hashint2extended", value, chained)
            case "integer":
                chained = call("hashint4extended", value, chained)
            case "bigint":
                chained = call("hashint8extended", value, chained)
            case "uuid":
                chained = call("uuid_hash_extended", value, chained)
            case "date":
                stamp = cast(value, "timestamp without time zone")
                chained = call("timestamp_hash_extended", stamp, chained)
            case "timestamp without time zone":
                chained = call("timestamp_hash_extended", value, chained)
            case "timestamp with time zone":
                stamp = call("timezone", exp.Literal.string("UTC"), value)
                chained = call("timestamp_hash_extended", stamp, chained)
            case _:
                text = cast(value, "text") if declared.name == "character" else value
                plain = exp.Collate(this=text, expression=exp.to_identifier("C", quoted=True))
                chained = call("hashtextextended", plain, chained)
    return call("hashint8extended", chained, second)


def cell_hash(carrier: Carrier, key: Sequence[tuple[str, SqlType]], number: int) -> exp.Expr:
    """Return a carrier's cell hash; ``number`` says which of the secrets are its own."""
    seeds = (column(f"{letter}{number}", SECRETS) for letter in "ab")
    return key_hash(carrier.entity or key, *seeds)


def marked_cell(
    carrier: Carrier, derivation: Derivation, number: int, server_version: int
) -> exp.Expr:
    """Return a carrier's marked value, from its cell hash and the secrets of its ``number``."""
    hashed = column(f"h{number}", HASHES)
    drawn: exp.Expr = hashed
    if derivation is Derivation.SHA256:
        message = exp.DPipe(this=column(f"k{number}", SECRETS), expression=call("int8send", hashed))
        digest = call("encode", call("sha256", message), exp.Literal.string("base64"))
        drawn = call("hashtextextended", digest, integer(0))
    position: exp.Expr = exp.Mod(
        this=paren(exp.BitwiseAnd(this=drawn, expression=integer(POSITION_MASK))),
        expression=integer(CODE_LENGTH),
    )
    if server_version < 140000:
        position = cast(paren(position), "integer")
    target = call("get_bit", column("word", SECRETS), position)
    up = exp.EQ(
        this=paren(exp.BitwiseAnd(this=drawn.copy(), expression=integer(SIGN_BIT))),
        expression=integer(0),
    )
    # of a domain a CASE takes neither the modifier nor, where marks are, the type; of another
    # column the parser drops this cast again
    raw = cast(
        column(carrier.column, BASE),
        carrier.type.unlimited if carrier.type.precision is None else str(carrier.type),
    )
    differs = exp.NEQ(this=target, expression=_by(carrier, _parity))
    moved = _by(carrier, lambda c, t: _moved(c, t, up))
    if carrier.type.precision is not None:
        # a view's column keeps its type modifier only if every branch has it
        moved = cast(paren(moved), str(carrier.type))
    changed = case([(differs, moved)], raw)
    if carrier.density == 1:
        return changed
    limit = constant(str(gate_limit(carrier.density)), "bigint")
    gate = exp.LT(this=hashed.copy(), expression=limit)
    return case([(gate, changed)], raw.copy())


def _by(carrier: Carrier, write: _Writer) -> exp.Expr:
    """Write something for each tolerance, chosen by the value of the ``by`` column."""
    if carrier.by is None:
        return write(carrier, carrier.tolerances[None])
    chooser = column(carrier.by[0], BASE)
    same: dict[Tolerance | Equivalents, list[str]] = {}
    for value, tolerance in carrier.tolerances.items():
        assert value is not None
        same.setdefault(tolerance, []).append(value)
    branches: list[tuple[exp.Expr, exp.Expr]] = []
    for tolerance, values in same.items():
        named = [_text_constant(value, carrier.by[1]) for value in values]
        condition = (
            exp.EQ(this=chooser.copy(), expression=named[0])
            if len(named) == 1
            else exp.In(this=chooser.copy(), expressions=named)
        )
        branches.append((condition, write(carrier, tolerance)))
    return case(branches, None)


def _parity(carrier: Carrier, tolerance: Tolerance | Equivalents) -> exp.Expr:
    """0 or 1; NULL where the value cannot be marked."""
    value = column(carrier.column, BASE)
    if isinstance(tolerance, Equivalents):
        sides: tuple[list[str], list[str]] = ([], [])
        for group in tolerance.groups:
            for at, member in enumerate(group):
                sides[at & 1].append(member)
        return case(
            [
                (_in(value, [exp.Literal.string(member) for member in side]), integer(at))
                for at, side in enumerate(sides)
            ],
            None,
        )
    markable = [_inside(carrier, Zone(tolerance.low, tolerance.high, closed=True))]
    if tolerance.skip:
        skipped = _in(value.copy(), [_constant(carrier, skip) for skip in tolerance.skip])
        markable.append(exp.Not(this=skipped))
    if carrier.kind is Kind.FLOAT and not carrier.continuous:
        counted = exp.Div(this=_counted(carrier, carrier.scale), expression=_power(carrier.scale))
        markable.append(exp.EQ(this=_float_cast(carrier, counted), expression=value.copy()))
    if carrier.kind is Kind.NUMERIC and carrier.type.scale is None:
        markable.append(
            exp.Between(
                this=call("scale", value.copy()),
                low=integer(decimals(tolerance.quantum)),
                high=integer(carrier.scale),
            )
        )
    parity = _on_grid(
        carrier, tolerance, lambda quantum: _index_parity(carrier, tolerance, quantum)
    )
    return case([(exp.and_(*markable, copy=False), parity)], None)


def _on_grid(
    carrier: Carrier, tolerance: Tolerance, write: Callable[[Decimal], exp.Expr]
) -> exp.Expr:
    if tolerance.grid is None:
        return write(tolerance.quantum)
    rest = exp.Mod(this=column(carrier.column, BASE), expression=_constant(carrier, tolerance.grid))
    heaped = exp.EQ(this=rest, expression=integer(0))
    return case([(heaped, write(tolerance.grid))], write(tolerance.quantum))


def _index_parity(carrier: Carrier, tolerance: Tolerance, quantum: Decimal) -> exp.Expr:
    value: exp.Expr = column(carrier.column, BASE)
    places = decimals(quantum)
    step_units = int(quantum.scaleb(places))
    if carrier.kind is Kind.TIMESTAMP:
        seconds = call("date_part", exp.Literal.string("epoch"), value)
        index: exp.Expr
        if step_units % 1_000_000 == 0:
            index = exp.Div(this=seconds, expression=_double(step_units // 1_000_000))
        else:
            index = exp.Mul(this=seconds, expression=_double(1_000_000 // step_units))
        return _odd(cast(paren(index), "bigint"))
    if carrier.kind is Kind.DATE:
        value = paren(exp.Sub(this=value, expression=constant("1970-01-01", "date")))
    elif carrier.kind is Kind.FLOAT:
        value = cast(_scaled_float(carrier, places), "bigint")
    elif carrier.kind is Kind.NUMERIC:
        if places:
            scaled = exp.Mul(this=value, expression=constant(str(10**places), "numeric"))
            value = paren(scaled)
        value = cast(value, "bigint")
    if step_units == 1:
        return _odd(value)
    lowest = int((-tolerance.low).scaleb(places).to_integral_value("ROUND_CEILING")) + 1
    if lowest > 0:
        # integer division truncates: negative numbers are first shifted by an even number of steps
        shift = -(-lowest // (2 * step_units)) * 2 * step_units
        value = paren(
            exp.Add(this=cast(value, "bigint"), expression=constant(str(shift), "bigint"))
        )
    return _odd(paren(exp.Div(this=value, expression=integer(step_units), typed=True)))


def _odd(value: exp.Expr) -> exp.Expr:
    return paren(exp.BitwiseAnd(this=value, expression=integer(1)))


def _moved(carrier: Carrier, tolerance: Tolerance | Equivalents, up: exp.Expr) -> exp.Expr:
    if isinstance(tolerance, Equivalents):
        return _neighbour(carrier, tolerance, up)
    return _on_grid(
        carrier, tolerance, lambda quantum: _stepped(carrier, step(tolerance, quantum), up)
    )


def _neighbour(carrier: Carrier, equivalents: Equivalents, up: exp.Expr) -> exp.Expr:
    value = column(carrier.column, BASE)
    branches: list[tuple[exp.Expr, exp.Expr]] = []
    for group in equivalents.groups:
        for at, member in enumerate(group):
            names = [
                _text_constant(group[i], carrier.type)
                for i in (at + 1, at - 1)
                if 0 <= i < len(group)
            ]
            target = names[0] if len(names) == 1 else case([(up.copy(), names[0])], names[1])
            branches.append(
                (exp.EQ(this=value.copy(), expression=exp.Literal.string(member)), target)
            )
    return case(branches, None)


def _text_constant(value: str, declared: SqlType) -> exp.Expr:
    return constant(value, declared.unlimited)


def _stepped(carrier: Carrier, rule: Step, up: exp.Expr) -> exp.Expr:
    rise, fall, stay = (
        _delta(carrier, amount) for amount in (rule.quantum, -rule.quantum, Decimal(0))
    )
    not_up = exp.or_(*(_inside(carrier, zone) for zone in rule.not_up), copy=False)
    not_down = exp.or_(*(_inside(carrier, zone) for zone in rule.not_down), copy=False)
    # with thresholds or skipped values there may be no way out in either direction
    cornered = len(rule.not_up) > 1
    down = case([(not_down.copy(), stay)], fall.copy()) if cornered else fall.copy()
    delta = case([(not_up, down), (not_down, rise.copy()), (up.copy(), rise)], fall)
    value: exp.Expr = column(carrier.column, BASE)
    if carrier.kind is Kind.FLOAT and not carrier.continuous:
        total = paren(exp.Add(this=_counted(carrier, carrier.scale), expression=delta))
        return _float_cast(carrier, exp.Div(this=total, expression=_power(carrier.scale)))
    return exp.Add(this=value, expression=delta)


def _delta(carrier: Carrier, amount: Decimal) -> exp.Expr:
    if carrier.kind is Kind.TIMESTAMP:
        return constant(f"{amount} microseconds", "interval")
    if carrier.kind is Kind.DATE:
        return constant(str(amount), "integer")
    if carrier.kind is Kind.FLOAT and not carrier.continuous:
        return _double(int(amount.scaleb(carrier.scale)))
    return _constant(carrier, amount)


def _inside(carrier: Carrier, zone: Zone) -> exp.Expr:
    value = column(carrier.column, BASE)
    if zone.low is not None and zone.high is not None:
        low, high = _constant(carrier, zone.low), _constant(carrier, zone.high)
        if zone.low == zone.high:
            return exp.EQ(this=value, expression=low)
        return exp.Between(this=value, low=low, high=high)
    if zone.low is not None:
        return exp.GT(this=value, expression=_constant(carrier, zone.low))
    assert zone.high is not None
    return exp.LT(this=value, expression=_constant(carrier, zone.high))


def _in(value: exp.Expr, members: Sequence[exp.Expr]) -> exp.Expr:
    return exp.In(this=value.copy(), expressions=list(members))


def _constant(carrier: Carrier, value: Decimal) -> exp.Expr:
    """A value in the carrier's units as a constant that compares with the column."""
    match carrier.kind:
        case Kind.DATE:
            return constant((date(1970, 1, 1) + timedelta(days=int(value))).isoformat(), "date")
        case Kind.TIMESTAMP:
            stamp = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(value))
            if carrier.type.name == "timestamp without time zone":
                stamp = stamp.replace(tzinfo=None)
            return constant(stamp.isoformat(sep=" "), carrier.type.name)
        case Kind.FLOAT if carrier.type.name == "real":
            return constant(str(np.float32(float(value))), "real")
        case Kind.FLOAT:
            return constant(repr(float(value)), "double precision")
        case Kind.INTEGER:
            # a threshold between two integers compares as a number
            name = carrier.type.name if value == int(value) else "numeric"
            return constant(f"{value:f}" if name == "numeric" else str(int(value)), name)
        case _:
            return constant(f"{value:f}", "numeric")


def _double(value: int) -> exp.Expr:
    return constant(str(value), "double precision")


def _power(places: int) -> exp.Expr:
    return _double(10**places)


def _scaled_float(carrier: Carrier, places: int) -> exp.Expr:
    value: exp.Expr = column(carrier.column, BASE)
    if carrier.type.name == "real":
        value = cast(value, "double precision")
    return paren(exp.Mul(this=value, expression=_power(places)))


def _counted(carrier: Carrier, places: int) -> exp.Expr:
    return call("round", _scaled_float(carrier, places))


def _float_cast(carrier: Carrier, value: exp.Expr) -> exp.Expr:
    return cast(paren(value), "real") if carrier.type.name == "real" else paren(value)
