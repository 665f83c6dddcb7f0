"""Values of frozen dataclasses to plain JSON and back, with every type checked on the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from math import inf, isfinite
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pgbalise.errors import InvalidInput

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Return a value as plain JSON: dataclasses as objects, tuples as lists, times as ISO 8601."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: to_plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(wanted: type[T], document: object, where: str) -> T:
    """Return the value of a dataclass that `to_plain` made plain JSON of.

    Members with a default may be missing, unknown ones may not be there. A value that is already of
    the type wanted stays as it is. ``where`` names the document in messages.

    Raises `InvalidInput`, without the value, for anything else.
    """
    return cast("T", _read(wanted, document, where))


def _read(wanted: Any, value: object, where: str) -> Any:
    if wanted is float and type(value) in (int, float):
        return _finite(cast("float", value), where)
    # A truth value is an int to Python, not to whoever wrote the document.
    if wanted in (int, str, bool) and type(value) is wanted:
        return value
    if wanted is datetime and isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            raise _unfit(where) from None
    if is_dataclass(wanted):
        return value if isinstance(value, cast("type", wanted)) else _object(wanted, value, where)
    return _composed(wanted, value, where)


def _finite(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = inf
    if not isfinite(number):
        raise _unfit(where)
    return number


def _composed(wanted: Any, value: object, where: str) -> Any:
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin is Literal and isinstance(value, str) and value in inner:
        return value
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        [only] = (kind for kind in inner if kind is not NoneType)
        return _read(only, value, where)
    if origin is tuple and isinstance(value, list):
        if inner[-1] is not Ellipsis:
            if len(value) != len(inner):
                raise _unfit(where)
            return tuple(_read(kind, item, where) for kind, item in zip(inner, value, strict=True))
        return tuple(_read(inner[0], item, f"{where}[{n}]") for n, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {
            _read(str, name, where): _read(inner[1], item, where) for name, item in value.items()
        }
    raise _unfit(where)


def _object(wanted: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise _unfit(where)
    hints = get_type_hints(wanted)
    known = {field.name: field for field in fields(wanted)}
    if value.keys() - known.keys():
        raise InvalidInput(f"{where} has a member that this version does not know")
    for name, field in known.items():
        if name not in value and field.default is MISSING:
            raise InvalidInput(f"{where} lacks {name}")
    return wanted(
        **{name: _read(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    )


def _unfit(where: str) -> InvalidInput:
    return InvalidInput(f"{where} is not what it must be")
