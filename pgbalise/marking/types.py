"""The SQL types that pgbalise can mark or use in a key, and how their values become numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from pgbalise.errors import InvalidPolicy


class Kind(StrEnum):
    """How a carrier's values are read and moved."""

    INTEGER = "integer"
    NUMERIC = "numeric"
    FLOAT = "float"
    DATE = "date"
    TIMESTAMP = "timestamp"
    CATEGORICAL = "categorical"


_KINDS = {
    "smallint": Kind.INTEGER,
    "integer": Kind.INTEGER,
    "bigint": Kind.INTEGER,
    "numeric": Kind.NUMERIC,
    "real": Kind.FLOAT,
    "double precision": Kind.FLOAT,
    "date": Kind.DATE,
    "timestamp without time zone": Kind.TIMESTAMP,
    "timestamp with time zone": Kind.TIMESTAMP,
    "text": Kind.CATEGORICAL,
    "character varying": Kind.CATEGORICAL,
    "character": Kind.CATEGORICAL,
}

_SYNONYMS = {
    "int2": "smallint",
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "decimal": "numeric",
    "float4": "real",
    "float8": "double precision",
    "float": "double precision",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "varchar": "character varying",
    "char": "character",
    "bpchar": "character",
}

INTEGER_TOPS = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}
"""The largest value of each integer type; the smallest is one further from zero."""

# far enough from the ends that no step of the marking overflows
_MARKED_TOP = 2**61

KEY_TYPES = frozenset(
    {
        "smallint",
        "integer",
        "bigint",
        "text",
        "character varying",
        "character",
        "uuid",
        "date",
        "timestamp without time zone",
        "timestamp with time zone",
    }
)

_TYPE = re.compile(
    r"^([a-z0-9 ]+?)\s*(?:\(\s*(\d+)\s*(?:,\s*(-?\d+)\s*)?\))?( with(?:out)? time zone)?$"
)


@dataclass(frozen=True)
class SqlType:
    """A type as ``format_type()`` prints it: name, and its modifier where it has one."""

    name: str
    precision: int | None = None
    scale: int | None = None

    @classmethod
    def parse(cls, text: str) -> SqlType:
        """Read ``numeric(7,2)``, ``timestamptz``, ``character varying(20)`` and the like."""
        match = _TYPE.match(" ".join(text.lower().split()))
        if not match:
            return cls(text)
        name, precision, scale, zone = match.groups()
        name = name + (zone or "")
        name = _SYNONYMS.get(name, name)
        if name == "numeric" and precision is not None and scale is None:
            scale = "0"
        return cls(name, int(precision) if precision else None, int(scale) if scale else None)

    def __str__(self) -> str:
        if self.precision is None:
            return self.name
        inner = str(self.precision) if self.scale is None else f"{self.precision},{self.scale}"
        base, _, zone = self.name.partition(" with")
        return f"{base}({inner}) with{zone}" if zone else f"{self.name}({inner})"

    @property
    def unlimited(self) -> str:
        """The type without its modifier, as SQL writes it."""
        # "character" alone would mean character(1)
        return "bpchar" if self.name == "character" else self.name

    @property
    def kind(self) -> Kind | None:
        """How a carrier of this type is marked; None when it cannot be."""
        return _KINDS.get(self.name)

    def limits(self, scale: int) -> tuple[Decimal, Decimal]:
        """Return the smallest and largest value that marking handles exactly in this type.

        Numbers for numeric kinds, days or microseconds since 1970-01-01 for dates and
        timestamps. ``scale`` is the number of decimals that values are counted in.
        """
        match self.kind:
            case Kind.INTEGER:
                top = Decimal(min(INTEGER_TOPS[self.name], _MARKED_TOP))
            case Kind.NUMERIC:
                top = Decimal(10) ** (17 - scale)
                if self.precision is not None:
                    fits = Decimal(10) ** (self.precision - (self.scale or 0))
                    top = min(top, fits - Decimal(10) ** -(self.scale or 0))
            case Kind.FLOAT:
                digits = 6 if self.name == "real" else 15
                top = Decimal(10) ** (digits - scale)
            case Kind.DATE:
                return Decimal(days(date(1, 1, 1))), Decimal(days(date(9999, 12, 31)))
            case Kind.TIMESTAMP:
                # within these years a double counts microseconds since 1970 exactly
                return (
                    Decimal(microseconds(datetime(1700, 1, 1, tzinfo=UTC))),
                    Decimal(microseconds(datetime(2250, 1, 1, tzinfo=UTC))),
                )
            case _:
                return Decimal(0), Decimal(0)
        return -top, top


_EPOCH_DAY = date(1970, 1, 1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"^\s*(\d+)\s*(microsecond|millisecond|second|minute|hour|day)s?\s*$")
_MICROSECONDS = {
    "microsecond": 1,
    "millisecond": 1_000,
    "second": 1_000_000,
    "minute": 60_000_000,
    "hour": 3_600_000_000,
    "day": 86_400_000_000,
}


def days(value: date) -> int:
    """Days since 1970-01-01."""
    return (value - _EPOCH_DAY).days


def microseconds(value: datetime) -> int:
    """Microseconds since 1970-01-01 UTC; a naive value counts as UTC."""
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def decimals(value: Decimal) -> int:
    """Digits that a number needs after its decimal point (0 for 100, 1 for 0.50)."""
    exponent = value.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def quantum_units(kind: Kind, value: object, where: str) -> Decimal:
    """Read a quantum: a number, ``"2 days"`` for dates, ``"1 minute"`` for timestamps."""
    if kind in (Kind.DATE, Kind.TIMESTAMP):
        match = _DURATION.match(str(value))
        if not match:
            raise InvalidPolicy(
                f"{where}: {value!r} is no duration", hint='write "1 day" or "5 minutes"'
            )
        amount = int(match[1]) * _MICROSECONDS[match[2]]
        if kind is Kind.TIMESTAMP:
            return Decimal(amount)
        if amount % _MICROSECONDS["day"]:
            raise InvalidPolicy(f"{where}: a date moves by whole days, not by {value!r}")
        return Decimal(amount // _MICROSECONDS["day"])
    return number(value, where)


def value_units(kind: Kind, value: object, where: str) -> Decimal:
    """Read a bound, threshold or skipped value of a carrier's kind."""
    try:
        if kind is Kind.DATE:
            return Decimal(
                days(value if isinstance(value, date) else date.fromisoformat(str(value)))
            )
        if kind is Kind.TIMESTAMP:
            stamp = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
            return Decimal(microseconds(stamp))
    except ValueError:
        raise InvalidPolicy(f"{where}: {value!r} is no {kind}") from None
    return number(value, where)


def number(value: object, where: str) -> Decimal:
    """Read a finite number; raise InvalidPolicy naming ``where`` it stood."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
            raise InvalidOperation
        parsed = Decimal(str(value))
        if not parsed.is_finite():
            raise InvalidOperation
    except InvalidOperation:
        raise InvalidPolicy(f"{where}: {value!r} is not a number") from None
    return parsed
