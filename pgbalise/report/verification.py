"""Whether a report is genuine: what its seal, its timestamp and its facts say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgbalise.errors import InvalidInput
from pgbalise.report.case import TraceReport
from pgbalise.report.facts import read_facts
from pgbalise.report.pdf import attached_facts
from pgbalise.report.sealing import NotGenuine, Seal, report_format, unseal
from pgbalise.report.timestamp import Timestamp, check_timestamp

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_FACTS = (b'<script type="application/json" id="facts">\n', b"\n</script>")


@dataclass(frozen=True)
class Answer:
    """What a report's seal is worth.

    ``problem`` says in one line why the report is not genuine, None when it is. ``seal`` and
    ``facts`` are None when there is none that can be relied on, ``timestamp`` when it was not
    checked.
    """

    problem: str | None
    seal: Seal | None = None
    facts: TraceReport | None = None
    timestamp: Timestamp | None = None

    @property
    def genuine(self) -> bool:
        """Whether someone trusted sealed it, exactly so."""
        return self.problem is None

    def as_dict(self) -> dict[str, Any]:
        """Return what ``report verify --json`` prints."""
        seal, stamp = self.seal, self.timestamp
        return {
            "genuine": self.genuine,
            "problem": self.problem,
            "public_key": None if seal is None else seal.public_key.hex(),
            "signed_at": None if seal is None else seal.signed_at.isoformat(),
            "timestamped": seal is not None and seal.timestamp is not None,
            "timestamp": None
            if stamp is None
            else {"at": stamp.at.isoformat(), "authority": stamp.authority},
            "accused": None if self.facts is None else self.facts.verdict.accused,
            "created_at": None if self.facts is None else self.facts.created_at.isoformat(),
        }


def verify(
    document: bytes, trusted: Sequence[bytes], certificates: Sequence[Certificate] = ()
) -> Answer:
    """Say whether a report is one that a trusted key sealed, and when.

    ``trusted`` are public keys of 32 bytes, from elsewhere: anybody can make a key and put it into
    a seal. ``certificates`` are those of a timestamp authority, or of its issuer; when given, the
    report must have a timestamp that they vouch for.

    Raises `InvalidInput` for what is no report.
    """
    try:
        report, seal = unseal(document)
    except NotGenuine as problem:
        return Answer(problem.message)
    if not trusted:
        return Answer(
            "nobody vouches for the key that sealed it, and anybody could have made such a key",
            seal,
        )
    if seal.public_key not in trusted:
        return Answer("it was sealed with a key that is not among those given", seal)
    stamp = None
    if certificates:
        if seal.timestamp is None:
            return Answer("it has no timestamp", seal)
        stamp = check_timestamp(seal.timestamp, seal.signature, certificates)
        if stamp is None:
            return Answer("no authority given vouches for its timestamp", seal)
    facts = facts_of(report)
    signer = facts.signer
    if signer is None or (signer.public_key, signer.signed_at) != (
        seal.public_key.hex(),
        seal.signed_at,
    ):
        return Answer("it names another signer or time than its seal", seal, facts, stamp)
    return Answer(None, seal, facts, stamp)


def facts_of(report: bytes) -> TraceReport:
    """Return the facts in a report without seal; raise `InvalidInput` when there are none."""
    match report_format(report):
        case "json":
            return read_facts(report)
        case "pdf":
            return read_facts(attached_facts(report))
        case "html":
            before, found, rest = report.rpartition(_FACTS[0])
            facts, ended, _ = rest.partition(_FACTS[1])
            if not (before and found and ended):
                raise InvalidInput("the report holds no facts for programs")
            return read_facts(facts)
