"""What the doctor says: findings, their severity, and all of them together as a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How bad a finding is."""

    CRITICAL = "critical"
    """A path to raw data, secrets or decoys is open now."""
    WARNING = "warning"
    """A path that depends on something the catalog does not show, or a way to do other harm."""
    NOTICE = "notice"
    """Worth knowing."""


@dataclass(frozen=True)
class Finding:
    """One path, for one role, or one thing that is not as it should be."""

    code: str
    severity: Severity
    role: str
    """The role; empty when it concerns them all, or none."""
    object: str
    """What is reached, as SQL writes it."""
    message: str
    """One line."""
    mend: str = ""
    """The SQL statements that mend it, with ``; `` between them; empty when none does."""
    command: str = ""
    """The shell command that mends it; empty when none does."""

    def as_dict(self) -> dict[str, str]:
        """Return the finding as a plain dictionary, for JSON."""
        return {name: str(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Report:
    """What an examination found."""

    findings: Sequence[Finding]
    """The worst first."""
    not_checked: Sequence[str]
    """What the session's role may not see, one line each: nothing is known about it."""
    roles: int
    """How many recipients are enrolled."""

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding, or None."""
        return self.findings[0].severity if self.findings else None

    def count(self, severity: Severity) -> int:
        """Return the number of findings of a severity."""
        return sum(finding.severity is severity for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return {
            "findings": [finding.as_dict() for finding in self.findings],
            "not_checked": list(self.not_checked),
            "roles": self.roles,
        }
