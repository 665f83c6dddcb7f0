"""The seal of a report: bytes in, bytes out.

A sealed report is the report followed by one line, in every format the same JSON object inside
what the format takes for a comment:

    HTML   <!--pgbalise-seal {...}-->
    PDF    %pgbalise-seal {...}
    JSON   {"pgbalise-seal":{...}}        the file is then JSON lines: the report, its seal

Members of the object, in this order and without spaces: ``version`` 1; ``algorithm`` "Ed25519";
``public_key``, 64 hexadecimal digits; ``signed_at``, UTC as 2026-01-31T12:00:00Z; ``signature``,
128 digits; and, when an authority confirmed the time, ``timestamp``, its RFC 3161 response over the
64 bytes of the signature, in base64, and ``timestamp_signature``, 128 digits. What is signed:

    signature            "pgbalise report seal 1" LF format LF public_key LF signed_at LF
                         ("timestamped" or "not timestamped") LF SHA-256 of the report, hexadecimal
    timestamp_signature  "pgbalise report timestamp 1" LF the signature's 64 bytes, the response

So nothing in the file can change unseen: not the report, its format, the time, the response, nor
whether there was one. Readers of PDF want to find its end near the file's end: there the report's
last lines, from ``startxref`` on, follow the seal once more, exactly.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pgbalise.errors import InvalidInput

Format = Literal["html", "pdf", "json"]

_SEAL = b"pgbalise report seal 1\n"
_TIMESTAMP = b"pgbalise report timestamp 1\n"
_BEGINNINGS: dict[bytes, Format] = {b"<!DOCTYPE html>": "html", b"%PDF-": "pdf", b"{": "json"}
_LINES: dict[Format, tuple[bytes, bytes]] = {
    "html": (b"<!--pgbalise-seal ", b"-->"),
    "pdf": (b"%pgbalise-seal ", b""),
    "json": (b'{"pgbalise-seal":', b"}"),
}
_MOMENT = "%Y-%m-%dT%H:%M:%SZ"
_KEY = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")


class NotGenuine(InvalidInput):
    """The seal is missing, damaged, or does not fit the report; the text says which."""


@dataclass(frozen=True)
class Seal:
    """Who signed a report, when by their own clock, and an authority's confirmation of it.

    ``public_key`` 32 bytes, ``signature`` 64; ``timestamp`` is a TimeStampResp (RFC 3161) over the
    signature's bytes, or None.
    """

    public_key: bytes
    signed_at: datetime
    signature: bytes
    timestamp: bytes | None = None


def seal(
    report: bytes,
    private_key: bytes,
    signed_at: datetime,
    timestamp: Callable[[bytes], bytes] | None = None,
) -> bytes:
    """Return a report with its seal, made with an Ed25519 private key of 32 bytes.

    ``timestamp`` returns an authority's response over the bytes it is given; it is called once.
    ``signed_at`` bears its time zone and is kept to the second.

    Raises `InvalidInput` for what is neither HTML, PDF nor JSON, or has a seal already.
    """
    kind = report_format(report)
    if not report.endswith(b"\n"):
        raise InvalidInput("a report ends with the end of a line")
    if _marks(report, kind):
        raise InvalidInput("the report has a seal already")
    key = Ed25519PrivateKey.from_private_bytes(private_key)
    public = key.public_key().public_bytes_raw()
    at = signed_at.astimezone(UTC).replace(microsecond=0)
    signature = key.sign(_message(report, kind, public, at, timestamp is not None))
    made = Seal(public, at, signature, None if timestamp is None else timestamp(signature))
    countersignature = None
    if made.timestamp is not None:
        countersignature = key.sign(_TIMESTAMP + signature + made.timestamp)
    return report + _line(made, countersignature, kind) + _tail(report, kind)


def unseal(document: bytes) -> tuple[bytes, Seal]:
    """Return the report inside a sealed one, and its seal, whose signatures are good.

    Whether the key is one to trust, and the timestamp, is left to the caller.

    Raises `NotGenuine` when there is no seal or it does not fit; `InvalidInput` for what is neither
    HTML, PDF nor JSON.
    """
    kind = report_format(document)
    found = _marks(document, kind)
    if not found:
        raise NotGenuine("it has no seal")
    if len(found) > 1:
        raise NotGenuine("it has more than one seal")
    start = found[0]
    report = document[:start]
    end = document.find(b"\n", start) + 1
    tail = _tail(report, kind)
    if not end or document[end:] != tail:
        raise NotGenuine("something follows its seal, or the end is missing")
    made, countersignature = _read(document[start:end], kind)
    key = Ed25519PublicKey.from_public_bytes(made.public_key)
    stamped = made.timestamp is not None
    message = _message(report, kind, made.public_key, made.signed_at, stamped)
    try:
        key.verify(made.signature, message)
    except InvalidSignature:
        raise NotGenuine("it is not what was signed: report or seal was changed") from None
    try:
        if made.timestamp is not None and countersignature is not None:
            key.verify(countersignature, _TIMESTAMP + made.signature + made.timestamp)
    except InvalidSignature:
        raise NotGenuine("its timestamp is not the one it was sealed with") from None
    return report, made


def is_sealed(document: bytes) -> bool:
    """Tell whether a report has something that says it is a seal, good or not."""
    return bool(_marks(document, report_format(document)))


def report_format(document: bytes) -> Format:
    """Return the format of a report by its first bytes; raise `InvalidInput` for another."""
    for beginning, kind in _BEGINNINGS.items():
        if document.startswith(beginning):
            return kind
    raise InvalidInput("this is no report: neither HTML, PDF nor JSON")


def public_key_of(private_key: bytes) -> bytes:
    """Return the public key, 32 bytes, of an Ed25519 private key of 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def _message(
    report: bytes, kind: Format, public_key: bytes, signed_at: datetime, timestamped: bool
) -> bytes:
    lines = (
        kind,
        public_key.hex(),
        signed_at.strftime(_MOMENT),
        "timestamped" if timestamped else "not timestamped",
        hashlib.sha256(report).hexdigest(),
    )
    return _SEAL + "\n".join(lines).encode()


def _marks(document: bytes, kind: Format) -> list[int]:
    """Return where lines begin that say they are a seal."""
    prefix = re.escape(_LINES[kind][0])
    return [match.start() for match in re.finditer(rb"(?m)^" + prefix, document)]


def _tail(report: bytes, kind: Format) -> bytes:
    """Return what must follow the seal."""
    return report[report.rfind(b"startxref") :] if kind == "pdf" and b"startxref" in report else b""


def _line(made: Seal, countersignature: bytes | None, kind: Format) -> bytes:
    members: dict[str, object] = {
        "version": 1,
        "algorithm": "Ed25519",
        "public_key": made.public_key.hex(),
        "signed_at": made.signed_at.strftime(_MOMENT),
        "signature": made.signature.hex(),
    }
    if made.timestamp is not None and countersignature is not None:
        members["timestamp"] = base64.b64encode(made.timestamp).decode()
        members["timestamp_signature"] = countersignature.hex()
    before, after = _LINES[kind]
    return before + json.dumps(members, separators=(",", ":")).encode() + after + b"\n"


def _read(line: bytes, kind: Format) -> tuple[Seal, bytes | None]:
    """Return a line's seal and the signature of its timestamp; the line is as `_line` writes it."""
    before, after = _LINES[kind]
    damaged = NotGenuine("its seal is damaged")
    try:
        members = json.loads(line[len(before) : len(line) - len(after) - 1])
        if not all(isinstance(members[name], str) for name in ("public_key", "signature")):
            raise damaged
        if not _KEY.fullmatch(members["public_key"]) or not _SIGNATURE.fullmatch(
            members["signature"]
        ):
            raise damaged
        at = datetime.strptime(members["signed_at"], _MOMENT).replace(tzinfo=UTC)
        token = members.get("timestamp")
        made = Seal(
            bytes.fromhex(members["public_key"]),
            at,
            bytes.fromhex(members["signature"]),
            None if token is None else base64.b64decode(token, validate=True),
        )
        countersignature = None if token is None else bytes.fromhex(members["timestamp_signature"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise damaged from None
    # One way to write a seal, so that no byte of it can change unseen.
    if _line(made, countersignature, kind) != line:
        raise damaged
    return made, countersignature
