"""All that a trace report says, as one value.

It holds counts, names, hashes and shares; never a patient's value and never a secret. Column names
come from the leak's header: for a leak without one the caller makes names up (``column 1``),
because its first line is data.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import floor
from typing import Any, Literal, get_args

from pgbalise.errors import InvalidInput
from pgbalise.tracing.decision import Verdict

ColumnUse = Literal["carrier", "key", "ignored"]
"""What a column of the leak served for: evidence, finding the row, or nothing."""

COLUMN_USES: tuple[ColumnUse, ...] = get_args(ColumnUse)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")

# Cc, Cf, Co, Cn, Cs: control, invisible, private, unassigned, surrogate; Zl, Zp: line ends.
_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})


@dataclass(frozen=True)
class LeakFile:
    """A file that was traced: its name, SHA-256 in hexadecimal, size in bytes, and rows of data.

    Raises `InvalidInput` for a hash that is none, or a negative count.
    """

    name: str
    sha256: str
    size: int
    rows: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise InvalidInput(f"report: the SHA-256 of {self.name!r} is not 64 hexadecimal digits")
        _check_counts(f"file {self.name!r}", self.size, self.rows)


@dataclass(frozen=True)
class MappedColumn:
    """A column of the leak and what it served for; ``column`` is its name in the relation.

    ``column`` is None when the leak's column corresponds to nothing in the relation.
    """

    leak_column: str
    use: ColumnUse
    column: str | None = None

    def __post_init__(self) -> None:
        if self.use not in COLUMN_USES:
            raise InvalidInput(
                f"report: unknown use {self.use!r} of a column",
                hint="one of " + ", ".join(COLUMN_USES),
            )


@dataclass(frozen=True)
class CarrierEvidence:
    """What the cells of one carrier contributed.

    ``selected``: cells of the leak that a mark was meant for. ``informative``: those whose value
    speaks more for one bit than for the other. ``agreeing`` and ``disagreeing``: informative cells
    whose more likely bit is, is not, that of the recipient with the strongest evidence.

    Raises `InvalidInput` if a count is negative or larger than the one it is part of.
    """

    carrier: str
    selected: int
    informative: int
    agreeing: int
    disagreeing: int

    def __post_init__(self) -> None:
        _check_counts(f"carrier {self.carrier!r}", self.agreeing, self.disagreeing)
        if not self.agreeing + self.disagreeing <= self.informative <= self.selected:
            raise InvalidInput(f"report: the counts of carrier {self.carrier!r} contradict another")


@dataclass(frozen=True)
class CarrierNoise:
    """What happened to the cells of one carrier since they left: (transformation, share in [0, 1]).

    In the words of `pgbalise.tracing.noise.NoiseModel.describe`, largest share first.
    """

    carrier: str
    findings: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        for description, share in self.findings:
            # A share is a sum of floats, and may pass 1 by their rounding.
            if not 0 <= share <= 1 + 1e-9:
                raise InvalidInput(f"report: share {share} of {description!r} is not in [0, 1]")


@dataclass(frozen=True)
class TraceReport:
    """One trace, with what a third party needs to check it.

    ``relation`` is the name as the policy writes it (``schema.name``) in ``database``; ``epoch`` is
    the one under which the evidence is strongest, with the times (ISO 8601) when it was opened and
    closed; ``untried_epochs`` are those whose master key was not given. ``key_fingerprint``: 16
    hexadecimal digits that identify the master key and reveal nothing of it. ``versions``: version
    by software. ``created_at`` bears its time zone.

    Raises `InvalidInput` for a fingerprint of another form and for a time without zone.
    """

    verdict: Verdict
    database: str
    relation: str
    epoch: int
    files: tuple[LeakFile, ...]
    columns: tuple[MappedColumn, ...]
    carriers: tuple[CarrierEvidence, ...]
    noise: tuple[CarrierNoise, ...]
    key_fingerprint: str
    versions: Mapping[str, str]
    created_at: datetime
    epoch_opened_at: str | None = None
    epoch_closed_at: str | None = None
    untried_epochs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not _FINGERPRINT.fullmatch(self.key_fingerprint):
            raise InvalidInput("report: the key's fingerprint is not 16 hexadecimal digits")
        if self.created_at.utcoffset() is None:
            raise InvalidInput("report: created_at has no time zone")

    def epoch_as_dict(self) -> dict[str, Any]:
        """Return the epoch as a JSON object."""
        return {
            "number": self.epoch,
            "opened_at": self.epoch_opened_at,
            "closed_at": self.epoch_closed_at,
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object; ``verdict`` is what ``trace --json`` prints."""
        return {
            "created_at": self.created_at.isoformat(),
            "database": self.database,
            "relation": self.relation,
            "epoch": self.epoch_as_dict(),
            "untried_epochs": list(self.untried_epochs),
            "key_fingerprint": self.key_fingerprint,
            "versions": dict(self.versions),
            "files": [
                {"name": file.name, "sha256": file.sha256, "bytes": file.size, "rows": file.rows}
                for file in self.files
            ],
            "columns": [
                {"leak_column": column.leak_column, "use": column.use, "column": column.column}
                for column in self.columns
            ],
            "carriers": [
                {
                    "carrier": carrier.carrier,
                    "selected": carrier.selected,
                    "informative": carrier.informative,
                    "agreeing": carrier.agreeing,
                    "disagreeing": carrier.disagreeing,
                }
                for carrier in self.carriers
            ],
            "noise": [
                {
                    "carrier": noise.carrier,
                    "findings": [
                        {"transformation": description, "share": share}
                        for description, share in noise.findings
                    ],
                }
                for noise in self.noise
            ],
            "verdict": self.verdict.as_dict(),
        }


def visible(text: str) -> str:
    r"""Write characters that cannot be seen as ``\uXXXX``, all others as they are.

    Names come from files and roles that a hostile person may have named: a control character could
    drive a terminal, and a change of writing direction could make one name look like another.
    """
    return "".join(
        f"\\u{ord(char):04x}" if unicodedata.category(char) in _UNSEEN else char for char in text
    )


def exponent_places(verdict: Verdict) -> int:
    """Return how many decimals of a log10 e-value to show, at least 1.

    So many that, rounded down, nobody below the threshold looks as if at it.
    """
    threshold = verdict.threshold_log10
    below = [v.log10_e_value for v in verdict.verdicts if v.log10_e_value < threshold]
    nearest = max(below, default=threshold - 1)
    return next((n for n in range(1, 12) if round_down(nearest, n) < round_down(threshold, n)), 12)


def round_down(log: float, places: int) -> float:
    """Round an exponent down to so many decimals, so that evidence is never overstated."""
    # The nudge keeps 11.3 from becoming 11.2, for 11.3 has no exact binary form.
    scale = 10.0**places
    return floor(log * scale + 1e-6) / scale


def _check_counts(what: str, *counts: int) -> None:
    if min(counts) < 0:
        raise InvalidInput(f"report: {what} has a negative count")
