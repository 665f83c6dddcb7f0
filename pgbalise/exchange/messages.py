"""What travels between an establishment and the exchange, and how it must look."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from pgbalise.exchange.protocol import (
    DIGEST_BYTES,
    LEAST_BITS,
    MOST_BITS,
    REFERENCE_BYTES,
    SALT_BYTES,
    SEAL_BYTES,
)

BATCH = 1000
"""Beacons published, or withdrawn, in one call."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable")
    return text


def _of_utc(moment: datetime) -> datetime:
    """In years that PostgreSQL and every zone can write."""
    if not 1970 <= moment.year <= 2999:
        raise ValueError("must be a year from 1970 to 2999")
    return moment.astimezone(UTC)


def _hexadecimal(length: int) -> str:
    return f"^[0-9a-f]{{{2 * length}}}$"


Reference = Annotated[
    str,
    Field(
        pattern=_hexadecimal(REFERENCE_BYTES),
        description="The establishment's own name of a beacon, 16 bytes in hexadecimal.",
    ),
]
Digest = Annotated[
    str,
    Field(
        pattern=_hexadecimal(DIGEST_BYTES),
        description="Of a trait: 32 bytes of scrypt, in hexadecimal.",
    ),
]
Seal = Annotated[
    str,
    Field(
        pattern=_hexadecimal(SEAL_BYTES),
        description="The owner's name under the trait's seal key, 64 bytes in hexadecimal.",
    ),
]
Moment = Annotated[
    AwareDatetime, AfterValidator(_of_utc), Field(description="ISO 8601 with its zone.")
]
Place = Literal["own_network", "web", "forum", "mail", "device", "partner", "other"]
Severity = Literal["info", "warning", "critical"]


class Message(BaseModel):
    """What a member sends: what is not known is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """What the exchange answers: a client passes over what a newer server adds."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Beacon(Message):
    """A decoy's trait, as its owner publishes it."""

    reference: Reference
    digest: Digest
    seal: Seal
    expires_at: Moment


class Publication(Message):
    """Beacons to publish or replace, and references of those to withdraw."""

    publish: Annotated[list[Beacon], Field(max_length=BATCH)] = []
    withdraw: Annotated[list[Reference], Field(max_length=BATCH)] = []


class Published(Answer):
    """What was done. A reference that the member does not have counts for nothing."""

    published: int
    withdrawn: int


class Own(Answer):
    """A beacon of one's own."""

    reference: Reference
    expires_at: datetime


class OwnBeacons(Answer):
    """A page of one's own beacons by reference; the last one leads to the next page."""

    beacons: list[Own]
    count: Annotated[int, Field(description="Of all pages.")]


class Range(Answer):
    """Everything that begins with a prefix, and padding."""

    prefix: Annotated[str, Field(pattern="^[01]+$")]
    entries: Annotated[
        list[str],
        Field(description="Tag (16 bytes) and seal (64 bytes) in Base64, sorted."),
    ]


class Report(Message):
    """Where a decoy was met. It says nothing of an identity: whoever reads it has the book."""

    digest: Digest
    seen_at: Moment
    place: Place
    severity: Severity = "warning"
    note: Annotated[
        str,
        AfterValidator(_printable),
        Field(max_length=200, description="Such as the reporter's own number of the matter."),
    ] = ""


class Told(Answer):
    """Whose decoy it is: they will read of it."""

    owners: list[str]


class Hit(Answer):
    """Where one of one's own decoys was met, and who says so."""

    hit: int
    reference: Reference
    reporter: str
    seen_at: datetime
    received_at: datetime
    place: str
    severity: str
    note: str


class Hits(Answer):
    """A page of hits; the last one leads to the next page."""

    hits: list[Hit]


class Status(Answer):
    """What a client needs to know before it asks anything."""

    version: Annotated[int, Field(description="Of the protocol.")]
    region: str
    member: Annotated[str, Field(description="Whose token it is.")]
    salt: Annotated[str, Field(pattern=_hexadecimal(SALT_BYTES))]
    bits: Annotated[
        int, Field(ge=LEAST_BITS, le=MOST_BITS, description="How long prefixes are now.")
    ]
    answer: Annotated[int, Field(description="Entries of which a range answer is a multiple.")]
    beacons: Annotated[int, Field(description="Of the member, in force.")]


class Problem(Answer):
    """An error, as RFC 9457 writes it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
