"""Timestamps of RFC 3161: an authority's signed word that some bytes existed at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from pgbalise.errors import EnvironmentProblem, InvalidInput

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampResponse

_HINT = "give the address of an RFC 3161 authority, http:// or https://"
_SECONDS = 30
_LONGEST = 1 << 20


class TimestampRefused(EnvironmentProblem):
    """The authority cannot be reached, refuses, or confirms something else."""


@dataclass(frozen=True)
class Timestamp:
    """When an authority saw the bytes, and its name as its certificate has it."""

    at: datetime
    authority: str


def request_timestamp(url: str, message: bytes, seconds: float = _SECONDS) -> bytes:
    """Ask an authority to confirm bytes that exist now; only their SHA-256 leaves this machine.

    Returns its response as it came. Raises `InvalidInput` for an address that is none, and
    `TimestampRefused`.
    """
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    check_address(url)
    asked = TimestampRequestBuilder().data(message).hash_algorithm(HashAlgorithm.SHA256).build()
    request = Request(  # noqa: S310 - the scheme is checked above
        url,
        data=asked.as_bytes(),
        headers={"Content-Type": "application/timestamp-query"},
    )
    try:
        with urlopen(request, timeout=seconds) as answer:  # noqa: S310
            response: bytes = answer.read(_LONGEST)
    except (OSError, HTTPException, ValueError) as problem:
        reason = getattr(problem, "reason", None) or getattr(problem, "strerror", None)
        told = f": {reason}" if isinstance(reason, str | OSError) else ""
        raise TimestampRefused(f"the timestamp authority did not answer{told}") from None
    decoded = _decode(response)
    info = None if decoded is None or decoded.status else decoded.tst_info
    if info is None:
        raise TimestampRefused("the timestamp authority refused, or its answer cannot be read")
    if (
        info.nonce != asked.nonce
        or info.message_imprint.message != hashlib.sha256(message).digest()
    ):
        raise TimestampRefused("the timestamp authority answered to something else")
    return response


def check_address(url: str) -> None:
    """Raise `InvalidInput` unless this is an address that an authority can have."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        fine = False
    if not fine:
        raise InvalidInput("this is no timestamp authority's address", hint=_HINT)


def check_timestamp(
    response: bytes, message: bytes, certificates: Sequence[Certificate]
) -> Timestamp | None:
    """Return what an authority's response says of the message, None unless all of it is good.

    ``certificates`` are trusted: the authority's own, or that of whoever issued it. They must have
    been valid when the response was made, not now.
    """
    from rfc3161_client import VerificationError, VerifierBuilder

    decoded = _decode(response)
    if decoded is None:
        return None
    builder = VerifierBuilder()
    for certificate in certificates:
        builder = builder.add_root_certificate(certificate)
    try:
        builder.build().verify_message(decoded, message)
        return Timestamp(decoded.tst_info.gen_time, _authority(decoded))
    except (VerificationError, ValueError):
        return None


def read_certificates(path: Path) -> list[Certificate]:
    """Read certificates in PEM; raise `InvalidInput` when there is none."""
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(path.read_bytes())
    except OSError as problem:
        raise InvalidInput(f"{path}: the certificate cannot be read: {problem.strerror}") from None
    except ValueError:
        raise InvalidInput(f"{path}: this is no certificate in PEM") from None


def _decode(response: bytes) -> TimeStampResponse | None:
    from rfc3161_client import decode_timestamp_response

    try:
        return decode_timestamp_response(response)
    except ValueError:
        return None


def _authority(decoded: TimeStampResponse) -> str:
    from cryptography.x509 import load_der_x509_certificate

    [signer] = decoded.signed_data.signer_infos
    for encoded in decoded.signed_data.certificates:
        certificate = load_der_x509_certificate(encoded)
        if (certificate.issuer, certificate.serial_number) == (signer.issuer, signer.serial_number):
            return certificate.subject.rfc4514_string()
    return signer.issuer.rfc4514_string()
