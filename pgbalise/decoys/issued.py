"""A decoy as it was issued to a recipient, and its line in a file of decoys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from pgbalise.decoys.identity import Identity, Mode, Role
from pgbalise.decoys.traits import Spaces, Trait, TraitKind, traits
from pgbalise.errors import InvalidInput
from pgbalise.marking.keys import frame


@dataclass(frozen=True)
class IssuedDecoy:
    """A patient who does not exist, as issued to one recipient.

    ``decoy_id`` is the database's number of it; ``number`` counts the recipient's decoys from 1 and
    is never given twice. ``key`` is the entity's key in the database: names of columns and values
    as text. Times are aware.
    """

    decoy_id: int
    recipient: str
    number: int
    mode: Mode
    identity: Identity
    spaces: Spaces
    key: Mapping[str, str]
    issued_at: datetime
    retired_at: datetime | None = None

    @cached_property
    def traits(self) -> tuple[Trait, ...]:
        """By what it is recognised."""
        return traits(self.identity)

    @property
    def name(self) -> str:
        """What it is called in reports: ``role/number``, which tells nothing of its identity."""
        return f"{self.recipient}/{self.number}"

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; ``from_dict`` reads it."""
        return {
            "decoy": self.decoy_id,
            "recipient": self.recipient,
            "number": self.number,
            "mode": self.mode.value,
            "identity": {role.value: text for role, text in self.identity.items()},
            "spaces": {kind.value: space for kind, space in self.spaces.items()},
            "key": dict(self.key),
            "issued_at": self.issued_at.isoformat(),
            "retired_at": self.retired_at.isoformat() if self.retired_at else None,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> IssuedDecoy:
        """Read what ``as_dict`` gave; raise InvalidInput for anything else."""
        try:
            retired = body["retired_at"]
            return cls(
                int(body["decoy"]),
                str(body["recipient"]),
                int(body["number"]),
                Mode(body["mode"]),
                {Role(role): str(text) for role, text in body["identity"].items()},
                {TraitKind(kind): float(space) for kind, space in body["spaces"].items()},
                {str(name): str(text) for name, text in body["key"].items()},
                _aware(body["issued_at"]),
                _aware(retired) if retired is not None else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InvalidInput("this is not a decoy as pgbalise writes it") from None


def identity_digest(decoy: IssuedDecoy, salt: bytes) -> bytes:
    """Return the 32 bytes that commit to a decoy's identity: SHA-256 over a salt and all of it.

    Whoever has the salt (16 random bytes, ``balise.decoy.salt``) and the identity can check it;
    without the salt it tells nothing, however few identities there could be.
    """
    identity = {role.value: text for role, text in decoy.identity.items()}
    text = json.dumps(identity, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    framed = frame("pgbalise decoy identity 1", salt, decoy.recipient, decoy.number, text)
    return hashlib.sha256(framed).digest()


def _aware(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time without a zone")
    return found


def write_decoys(decoys: Iterable[IssuedDecoy]) -> str:
    """Return decoys as JSON Lines; ``read_decoys`` reads them."""
    return "".join(json.dumps(decoy.as_dict(), ensure_ascii=False) + "\n" for decoy in decoys)


def read_decoys(text: str) -> list[IssuedDecoy]:
    """Read decoys from JSON Lines; raise InvalidInput, naming the line, when one is no decoy."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            body = json.loads(line)
            if not isinstance(body, dict):
                raise InvalidInput("a line must be an object")
            found.append(IssuedDecoy.from_dict(body))
        except (json.JSONDecodeError, InvalidInput, RecursionError):
            raise InvalidInput(
                f"line {number} is not a decoy as pgbalise writes it",
                hint="pgbalise decoys export --format jsonl writes this file",
            ) from None
    return found
