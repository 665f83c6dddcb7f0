"""What is asked of a writer: which decoys, since when and until when, and under which names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pgbalise.detectors.patterns import Selection, Target

Files = Mapping[str, bytes]
"""By name, what is to be written."""


@dataclass(frozen=True)
class Export:
    """A request to write detectors.

    ``made_at`` and ``expires`` are aware times. ``named``: rules may name recipients. ``salt`` is
    16 random bytes, for the formats that hash.
    """

    selection: Selection
    made_at: datetime
    expires: datetime | None
    named: bool
    salt: bytes

    @property
    def targets(self) -> tuple[Target, ...]:
        """The decoys to look for."""
        return self.selection.targets

    @property
    def made_on(self) -> str:
        """The day it was made, ISO, UTC."""
        return self.made_at.astimezone(UTC).date().isoformat()

    @property
    def expires_on(self) -> str | None:
        """The first day on which it is no longer to be used, ISO, UTC."""
        return self.expires.astimezone(UTC).date().isoformat() if self.expires else None

    def title(self, target: Target) -> str:
        """Return what a person is told when a rule fires."""
        whose = f", given to {visible(target.decoy.name)}" if self.named else ""
        return f"Decoy {target.rule}{whose}: a patient who does not exist"


def visible(text: str) -> str:
    """Return a text on one line: what cannot be printed is a question mark."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
