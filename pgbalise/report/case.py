"""All that a trace report says, as one value.

It holds counts, names, hashes and shares; never a patient's value and never a secret. Column names
come from the leak's header: for a leak without one the caller makes names up (``column 1``),
because its first line is data.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from math import floor
from typing import Any, Literal, get_args

from pgbalise.decoys.traits import TraitKind
from pgbalise.errors import InvalidInput
from pgbalise.report.plain import to_plain
from pgbalise.tracing.decision import Verdict

ColumnUse = Literal["carrier", "key", "link", "ignored"]
"""What a column of the leak served for: evidence, finding the row by key or by content, nothing."""

FoundBy = Literal["name", "content", "given", "none"]
"""How the relation's column was found: like names, like values, told by the auditor, not at all."""

AlignedBy = Literal["key", "linkage"]
"""How a leaked row found its stored row: by an equal key, or by all columns together."""

CommitmentCheck = Literal["unchecked", "checked", "registry"]
"""Whether each accused codeword was held against the commitment made at enrolment: not at all,
against the database's own copy, or against the copy in the registry's ledger too."""

DigestOf = Literal["policy", "source", "recipients", "mapping"]
"""An input besides the leak: a policy, the stored rows, the recipients compared, columns given."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")

# Cc, Cf, Co, Cn, Cs: control, invisible, private, unassigned, surrogate; Zl, Zp: line ends.
_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})


@dataclass(frozen=True)
class LeakFile:
    """A file that was traced: its name, SHA-256 in hexadecimal, size in bytes, and rows of data.

    ``skipped``: of an archive, what in it was not read and why, a line each.

    Raises `InvalidInput` for a hash that is none, or a negative count.
    """

    name: str
    sha256: str
    size: int
    rows: int
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_hash(self.name, self.sha256)
        _check_counts(f"file {self.name!r}", self.size, self.rows)


@dataclass(frozen=True)
class InputDigest:
    """The SHA-256, in hexadecimal, of another input; ``name`` tells it from others of its kind.

    Raises `InvalidInput` for a hash that is none, or an unknown kind.
    """

    of: DigestOf
    name: str
    sha256: str

    def __post_init__(self) -> None:
        _check_word("kind of input", self.of, DigestOf)
        _check_hash(self.name, self.sha256)


@dataclass(frozen=True)
class MappedColumn:
    """A column of the leak and what it served for; ``column`` is its name in the relation.

    ``column`` is None when the leak's column corresponds to nothing in the relation.
    ``confidence`` in [0, 1] says how sure the correspondence is, None when it was not estimated.
    ``formats`` are the ways in which the leak writes its values where they differ from
    PostgreSQL's, such as ``decimal comma`` or ``x 2.20462``.
    """

    leak_column: str
    use: ColumnUse
    column: str | None = None
    by: FoundBy = "none"
    confidence: float | None = None
    formats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_word("use", self.use, ColumnUse)
        _check_word("way to find a column", self.by, FoundBy)
        _check_share("confidence", self.leak_column, self.confidence)


@dataclass(frozen=True)
class LeakedTable:
    """A table of a leaked file: a CSV has one, a dump or a spreadsheet may have many.

    ``relation``: the protected relation (``schema.name``) it was traced against, None when it fits
    none. Of the rows read, ``rows_aligned`` were matched with a stored row; ``ambiguous`` fit
    several equally well, ``without_counterpart`` none. ``duplicates``, whatever became of them,
    fit a stored row that another row had already. ``altered``: estimated share in [0, 1] of the
    cells of aligned rows that differ from what was delivered; None when it was not estimated.
    ``doubtful``: whether the columns hardly say enough to tell one stored row from another.

    Raises `InvalidInput` for a negative count, more rows than were read, or a share that is none.
    """

    name: str
    relation: str | None
    rows_read: int
    rows_aligned: int
    aligned_by: AlignedBy | None = None
    ambiguous: int = 0
    without_counterpart: int = 0
    duplicates: int = 0
    altered: float | None = None
    columns: tuple[MappedColumn, ...] = ()
    doubtful: bool = False

    def __post_init__(self) -> None:
        what = f"table {self.name!r}"
        parts = (self.rows_aligned, self.ambiguous, self.without_counterpart)
        _check_counts(what, self.rows_read, self.duplicates, *parts)
        if max(sum(parts), self.duplicates) > self.rows_read:
            raise InvalidInput(f"report: the counts of {what} contradict another")
        if self.aligned_by is not None:
            _check_word("alignment", self.aligned_by, AlignedBy)
        _check_share("share", self.name, self.altered)


@dataclass(frozen=True)
class CarrierEvidence:
    """What the cells of one carrier contributed.

    ``selected``: cells of the leak that a mark was meant for. ``informative``: those whose value
    speaks more for one bit than for the other. ``agreeing`` and ``disagreeing``: informative cells
    whose more likely bit is, is not, that of the recipient with the strongest evidence.
    ``relation`` is needed when the report has several.

    Raises `InvalidInput` if a count is negative or larger than the one it is part of.
    """

    carrier: str
    selected: int
    informative: int
    agreeing: int
    disagreeing: int
    relation: str | None = None

    def __post_init__(self) -> None:
        _check_counts(f"carrier {self.carrier!r}", self.agreeing, self.disagreeing)
        if not self.agreeing + self.disagreeing <= self.informative <= self.selected:
            raise InvalidInput(f"report: the counts of carrier {self.carrier!r} contradict another")


@dataclass(frozen=True)
class CarrierNoise:
    """What happened to the cells of one carrier since they left: (transformation, share in [0, 1]).

    In the words of `pgbalise.tracing.noise.NoiseModel.describe`, largest share first.
    ``relation`` is needed when the report has several.
    """

    carrier: str
    findings: tuple[tuple[str, float], ...]
    relation: str | None = None

    def __post_init__(self) -> None:
        for description, share in self.findings:
            _check_share("share", description, share)


@dataclass(frozen=True)
class SourceChange:
    """How the source differs today from when the leak left it, as estimates in [0, 1].

    ``rows_deleted``: share of the leak's rows that the source no longer has; None when that cannot
    be told from rows that never were of it. ``cells_changed``: by column, the share of cells whose
    stored value has become another.
    """

    relation: str
    rows_deleted: float | None = None
    cells_changed: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        _check_share("share", self.relation, self.rows_deleted)
        for column, share in self.cells_changed:
            _check_share("share", column, share)


@dataclass(frozen=True)
class DecoySeen:
    """A decoy that the leak holds: the ``number``-th issued to ``recipient``.

    ``traits`` are the kinds by which it was recognised, such as ``record`` or ``person``, never
    their values. ``log10_e_value`` is the evidence of this decoy alone. Raises `InvalidInput` for a
    number below 1.
    """

    recipient: str
    number: int
    traits: tuple[TraitKind, ...]
    log10_e_value: float

    def __post_init__(self) -> None:
        _check_counts(f"decoy of {self.recipient}", self.number - 1)


@dataclass(frozen=True)
class PossibleExtract:
    """An extract in the ledger that could have been the source of leaked rows.

    ``sequence`` is its number in the ledger; ``rows`` delivered, None when that was not recorded;
    ``command`` the kind of statement, such as SELECT, never its text; ``why`` it fits, each a few
    words. Raises `InvalidInput` for a time without zone or a negative number.
    """

    sequence: int
    recipient: str
    started_at: datetime
    ended_at: datetime | None = None
    rows: int | None = None
    command: str = ""
    relations: tuple[str, ...] = ()
    application: str = ""
    client: str = ""
    why: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_counts(f"extract {self.sequence}", self.sequence, self.rows or 0)
        _check_zone("started_at", self.started_at)
        if self.ended_at is not None:
            _check_zone("ended_at", self.ended_at)


@dataclass(frozen=True)
class RecordedCommitment:
    """When the registry's ledger recorded the commitment to a recipient's codeword."""

    recipient: str
    recorded_at: datetime

    def __post_init__(self) -> None:
        _check_zone("recorded_at", self.recorded_at)


@dataclass(frozen=True)
class CaseLook:
    """Which look of which case this trace was.

    ``alpha`` bounds the probability that anyone is accused falsely in the whole case, however many
    looks it takes; the verdict's alpha is the part of it that this look spent. Raises
    `InvalidInput` when numbers are below 1 or alpha is not in (0, 1).
    """

    number: int
    title: str
    look: int
    alpha: float

    def __post_init__(self) -> None:
        if self.number < 1 or self.look < 1 or not 0 < self.alpha < 1:
            raise InvalidInput("report: the case's number, look or alpha is none")


@dataclass(frozen=True)
class Signer:
    """Who is to sign the report: an Ed25519 public key, 64 hexadecimal digits, and when.

    ``timestamp_authority`` is the address of the authority asked to confirm the time, if any. The
    seal proves it; this is its announcement in the text. Raises `InvalidInput` for a key of
    another form and for a time without zone.
    """

    public_key: str
    signed_at: datetime
    timestamp_authority: str | None = None

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.public_key):
            raise InvalidInput("report: the signer's public key is not 64 hexadecimal digits")
        _check_zone("signed_at", self.signed_at)


@dataclass(frozen=True)
class TraceReport:
    """One trace, with what a third party needs to check it.

    ``tables`` are those of the leaked ``files``; the relations traced are theirs, in ``database``.
    ``epoch`` is the one under which the evidence is strongest, with the times (ISO 8601) when it
    was opened and closed; ``untried_epochs`` are those whose master key was not given.
    ``key_fingerprint``: 16 hexadecimal digits that identify the master key and reveal nothing of
    it. ``versions``: version by software. ``created_at`` bears its time zone. ``rounds``: who was
    named newly in each round of joint decoding. ``decoys``: those found. ``source``: how the source
    has changed since.
    ``extracts``: those of the accused that fit best, of ``extracts_fitting`` that fit at all; None
    when the ledger was not consulted. ``parameters``: (option, value) as given on the command line,
    none of them a secret.

    Raises `InvalidInput` for a fingerprint of another form and for a time without zone.
    """

    verdict: Verdict
    database: str
    epoch: int
    files: tuple[LeakFile, ...]
    tables: tuple[LeakedTable, ...]
    carriers: tuple[CarrierEvidence, ...]
    noise: tuple[CarrierNoise, ...]
    key_fingerprint: str
    versions: Mapping[str, str]
    created_at: datetime
    epoch_opened_at: str | None = None
    epoch_closed_at: str | None = None
    untried_epochs: tuple[int, ...] = ()
    rounds: tuple[tuple[str, ...], ...] = ()
    decoys: tuple[DecoySeen, ...] = ()
    source: tuple[SourceChange, ...] = ()
    extracts: tuple[PossibleExtract, ...] | None = None
    extracts_fitting: int = 0
    commitments: CommitmentCheck = "unchecked"
    commitments_recorded: tuple[RecordedCommitment, ...] = ()
    digests: tuple[InputDigest, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    case: CaseLook | None = None
    signer: Signer | None = None

    def __post_init__(self) -> None:
        if not _FINGERPRINT.fullmatch(self.key_fingerprint):
            raise InvalidInput("report: the key's fingerprint is not 16 hexadecimal digits")
        _check_zone("created_at", self.created_at)
        _check_word("check of commitments", self.commitments, CommitmentCheck)
        _check_counts("the list of extracts", self.extracts_fitting)
        named = [name for newly in self.rounds for name in newly]
        if self.rounds and sorted(named) != sorted(self.verdict.accused):
            raise InvalidInput("report: the rounds name others than the verdict")

    @property
    def relations(self) -> tuple[str, ...]:
        """Return the relations traced, each once, in the order of the tables."""
        return tuple(dict.fromkeys(t.relation for t in self.tables if t.relation is not None))

    @property
    def distinct_rows(self) -> int:
        """Return how many stored rows the leak has, one that is in it several times counted once.

        Of a table that was held against several relations, those of the one it has most of.
        """
        most: dict[str, int] = {}
        for table in self.tables:
            distinct = max(0, table.rows_aligned - table.duplicates)
            most[table.name] = max(most.get(table.name, 0), distinct)
        return sum(most.values())

    def epoch_as_dict(self) -> dict[str, Any]:
        """Return the epoch as a JSON object."""
        return {
            "number": self.epoch,
            "opened_at": self.epoch_opened_at,
            "closed_at": self.epoch_closed_at,
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object; ``verdict`` is what ``trace --json`` prints."""
        # The verdict may be long, and has a form of its own.
        rest = (field.name for field in fields(self) if field.name != "verdict")
        plain = {name: to_plain(getattr(self, name)) for name in rest}
        return plain | {"verdict": self.verdict.as_dict()}


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


def _check_hash(name: str, sha256: str) -> None:
    if not _SHA256.fullmatch(sha256):
        raise InvalidInput(f"report: the SHA-256 of {name!r} is not 64 hexadecimal digits")


def _check_share(what: str, name: str, share: float | None) -> None:
    # A share is a sum of floats, and may pass 1 by their rounding.
    if share is not None and not 0 <= share <= 1 + 1e-9:
        raise InvalidInput(f"report: {what} {share} of {name!r} is not in [0, 1]")


def _check_word(what: str, word: str, words: Any) -> None:
    if word not in get_args(words):
        raise InvalidInput(
            f"report: unknown {what} {word!r}", hint="one of " + ", ".join(get_args(words))
        )


def _check_zone(what: str, at: datetime) -> None:
    # Years that every time zone has.
    if at.utcoffset() is None or not 1 < at.year < 9999:
        raise InvalidInput(f"report: {what} has no time zone, or is out of range")
