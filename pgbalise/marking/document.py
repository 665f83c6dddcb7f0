"""The parts of a document that a policy is read from: what they must be, and where they are not.

All raise InvalidPolicy; ``where`` names the part in its message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pgbalise.errors import InvalidPolicy


def only(table: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse settings that are not known."""
    for name in table:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise InvalidPolicy(f"{where}: unknown setting {name!r}", hint=f"known: {listed}")


def table_of(value: object, where: str) -> Mapping[str, Any]:
    """Return a table, refuse anything else."""
    if not isinstance(value, Mapping):
        raise InvalidPolicy(f"{where}: must be a table")
    return value


def list_of(value: object, where: str) -> Sequence[Any]:
    """Return a list, refuse anything else."""
    if not isinstance(value, list | tuple):
        raise InvalidPolicy(f"{where}: must be a list")
    return value


def text_of(value: object, where: str) -> str:
    """Return a text that is not empty, refuse anything else."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidPolicy(f"{where}: must be a text that is not empty")
    return value


def flag_of(body: Mapping[str, Any], name: str, where: str) -> bool:
    """Return a setting that is true or false, false where it is left out."""
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise InvalidPolicy(f"{where}: {name} must be true or false")
    return value


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
