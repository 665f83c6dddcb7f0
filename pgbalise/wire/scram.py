"""SCRAM-SHA-256, ended at the proxy: the client proves its password here, the proxy upstream.

From the server's stored secret the proxy can check a client's proof (ScramServer). The proof shows
it the client key, and with that it can log in to the server as the same role (ScramClient): no
password is known, none is kept. Words and messages as in RFC 5802; RFC 5929 for the channel
binding ``tls-server-end-point``, the only one that PostgreSQL knows.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from asn1crypto.x509 import Certificate  # type: ignore[import-untyped]
from scramp import ScramException, ScramMechanism  # type: ignore[import-untyped]

from pgbalise.errors import AuthenticationRefused, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAIN: Final = "SCRAM-SHA-256"
PLUS: Final = "SCRAM-SHA-256-PLUS"

DEFAULT_ITERATIONS: Final = 4096
"""What PostgreSQL uses unless ``scram_iterations`` says otherwise; fewer are not accepted."""

_BINDING: Final = "tls-server-end-point"
_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 16
_MOST_ITERATIONS: Final = 10_000_000
_PROTOCOL_VIOLATION: Final = "08P01"
_WRONG_SERVER: Final = "28000"

_STORED = re.compile(r"SCRAM-SHA-256\$([0-9]{1,9}):([^$:]+)\$([^$:]+):([^$:]+)")
_SERVER_FIRST = re.compile(r"r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/=]+),i=([0-9]{1,9})")
_UNDEFINED_HASH: Final = {"ed25519", "ed448"}


@dataclass(frozen=True, slots=True, repr=False)
class Verifier:
    """What a server stores of a password: enough to check a proof, not enough to give one."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``pg_authid.rolpassword``; raise InvalidInput when it is no usable SCRAM secret."""
        match = _STORED.fullmatch(text)
        if not match:
            raise InvalidInput(
                "the role's stored password is no SCRAM-SHA-256 secret",
                hint="set password_encryption = 'scram-sha-256' and the password anew",
            )
        iterations = int(match[1])
        try:
            salt, stored_key, server_key = (
                b64decode(part, validate=True) for part in match.group(2, 3, 4)
            )
        except binascii.Error:
            raise InvalidInput("the role's stored SCRAM secret is damaged") from None
        if len(stored_key) != _KEY_BYTES or len(server_key) != _KEY_BYTES or len(salt) < 12:
            raise InvalidInput("the role's stored SCRAM secret is damaged")
        if not DEFAULT_ITERATIONS <= iterations <= _MOST_ITERATIONS:
            raise InvalidInput(
                f"the role's SCRAM secret has {iterations} iterations",
                hint=f"set scram_iterations to {DEFAULT_ITERATIONS} or more and the password anew",
            )
        return cls(iterations, salt, stored_key, server_key)

    @classmethod
    def mock(cls, user: str, secret: bytes, iterations: int = DEFAULT_ITERATIONS) -> Self:
        """Return what stands in for a role that has no usable secret: no proof fits it.

        The same user gets the same salt each time, so a stranger cannot tell who exists. ``secret``
        is random, the same in all processes, at least 16 bytes, and known to nobody else.
        """
        assert len(secret) >= _SALT_BYTES

        def drawn(purpose: bytes) -> bytes:
            return hmac.digest(secret, purpose + user.encode(errors="surrogateescape"), "sha256")

        return cls(iterations, drawn(b"salt:")[:_SALT_BYTES], drawn(b"stored:"), drawn(b"server:"))


class ScramServer:
    """The server's side of one login: ``start``, then ``finish``, each once.

    ``nonce`` is the server's part, random and printable ASCII without a comma (18 random bytes in
    base64 are what PostgreSQL takes). ``channel_binding`` is ``end_point`` of the certificate shown
    to the client, None without TLS or when the certificate has none.
    """

    def __init__(self, verifier: Verifier, nonce: str, channel_binding: bytes | None) -> None:
        self._verifier = verifier
        self._nonce = nonce
        self._binding = None if channel_binding is None else (_BINDING, channel_binding)

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The mechanisms to offer, the preferred one first."""
        return (PLAIN,) if self._binding is None else (PLUS, PLAIN)

    def start(self, mechanism: str, data: bytes) -> bytes:
        """Take the client's first message, return the server's first.

        Raises AuthenticationRefused when the client breaks the protocol, asks for a mechanism that
        was not offered, or was told that there is no channel binding (a downgrade).
        """
        if mechanism not in self.mechanisms:
            raise _violation("the client chose a SASL mechanism that was not offered")
        message = _text(data)
        if mechanism == PLAIN and message.startswith("p="):
            raise _violation("the client sent channel binding with a mechanism that has none")
        head, bare = _split_first(message)
        try:
            self._server = ScramMechanism(mechanism).make_server(
                self._secrets, channel_binding=self._binding, s_nonce=self._nonce
            )
            # libpq sends no user name, which scramp does not take; PostgreSQL goes by the startup
            # message's in any case. What was signed is the message as it came.
            self._server.set_client_first(head + re.sub(r"^n=[^,]*", "n=*", bare))
            self._server.client_first_bare = bare
            answer: str = self._server.get_server_first()
        except ScramException as problem:
            raise _refusal(problem) from None
        self._client_first_bare, self._server_first = bare, answer
        return answer.encode()

    def finish(self, data: bytes) -> tuple[bytes, bytes]:
        """Take the client's final message, return the server's final one and the client key.

        The client key logs in as the role: keep it as long as the session needs it, in memory only.
        Raises AuthenticationRefused when the proof is wrong or the client breaks the protocol.
        """
        message = _text(data)
        try:
            self._server.set_client_final(message)
            server_final: str = self._server.get_server_final()
        except ScramException as problem:
            raise _refusal(problem) from None
        unproved, _, proof = message.rpartition(",p=")
        signed = _auth_message(self._client_first_bare, self._server_first, unproved)
        signature = hmac.digest(self._verifier.stored_key, signed, "sha256")
        return server_final.encode(), _xor(b64decode(proof), signature)

    def _secrets(self, _: str) -> tuple[bytes, bytes, bytes, int]:
        known = self._verifier
        return known.salt, known.stored_key, known.server_key, known.iterations


class ScramClient:
    """The client's side of one login, by a client key: ``start``, ``next``, then ``verify``.

    ``verifier`` is the one the client key was proved against. ``nonce`` is random, like the
    server's. ``channel_binding`` is ``end_point`` of the certificate the server showed, None
    without TLS. ``mechanisms`` are those the server offers.
    """

    def __init__(
        self,
        user: str,
        client_key: bytes,
        verifier: Verifier,
        nonce: str,
        channel_binding: bytes | None,
        mechanisms: Sequence[str],
    ) -> None:
        self._client_key = client_key
        self._verifier = verifier
        self._nonce = nonce
        if channel_binding is not None and PLUS in mechanisms:
            self._mechanism, self._head = PLUS, f"p={_BINDING},,"
        elif PLAIN in mechanisms:
            self._mechanism = PLAIN
            self._head = "n,," if channel_binding is None else "y,,"
        else:
            raise AuthenticationRefused(
                "the server asks for a login other than SCRAM-SHA-256",
                sqlstate=_WRONG_SERVER,
                hint="write scram-sha-256 in the server's pg_hba.conf for the proxy's address",
            )
        bound = channel_binding if self._mechanism == PLUS else None
        self._header = b64encode(self._head.encode() + (bound or b"")).decode()
        self._bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={nonce}"

    def start(self) -> tuple[str, bytes]:
        """Return the mechanism and the client's first message."""
        return self._mechanism, (self._head + self._bare).encode()

    def next(self, server_first: bytes) -> bytes:
        """Take the server's first message, return the client's final one.

        Raises AuthenticationRefused when the server does not answer this client, or when the role
        has another secret than the one the client key was proved against.
        """
        message = _text(server_first)
        match = _SERVER_FIRST.fullmatch(message)
        if not match or not match[1].startswith(self._nonce) or match[1] == self._nonce:
            raise _violation("the server's SCRAM message is malformed or no answer to this login")
        try:
            salt = b64decode(match[2], validate=True)
        except binascii.Error:
            raise _violation("the server's SCRAM message is malformed") from None
        if salt != self._verifier.salt or int(match[3]) != self._verifier.iterations:
            raise AuthenticationRefused(
                "the role's password was changed during the login", hint="log in again"
            )
        unproved = f"c={self._header},r={match[1]}"
        self._signed = _auth_message(self._bare, message, unproved)
        signature = hmac.digest(self._verifier.stored_key, self._signed, "sha256")
        proof = b64encode(_xor(self._client_key, signature)).decode()
        return f"{unproved},p={proof}".encode()

    def verify(self, server_final: bytes) -> None:
        """Raise AuthenticationRefused unless the server proves that it knows the role's secret."""
        signature = hmac.digest(self._verifier.server_key, self._signed, "sha256")
        expected = b"v=" + b64encode(signature)
        if not hmac.compare_digest(expected, server_final):
            raise AuthenticationRefused(
                "the server did not prove that it knows the role's secret", sqlstate=_WRONG_SERVER
            )


def end_point(certificate_der: bytes) -> bytes | None:
    """Return a certificate's ``tls-server-end-point`` data, None when it has none.

    It is the certificate's hash by its signature's algorithm, SHA-256 for MD5 and SHA-1; a
    signature without a hash of its own (Ed25519) has none. Raises InvalidInput when the bytes are
    no DER certificate.
    """
    try:
        signature = Certificate.load(certificate_der, strict=True)["signature_algorithm"]
        algorithm = signature["algorithm"].native
    except (TypeError, ValueError):
        raise InvalidInput("the TLS certificate cannot be read") from None
    if algorithm in _UNDEFINED_HASH:
        return None
    try:
        name = str(signature.hash_algo)
    except ValueError:
        return None
    digest = hashlib.new("sha256" if name in {"md5", "sha1"} else name, certificate_der)
    return digest.digest()


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _violation("a SCRAM message is no UTF-8") from None


def _split_first(message: str) -> tuple[str, str]:
    parts = message.split(",", 2)
    if len(parts) != 3:
        raise _violation("the client's SCRAM message is malformed")
    return f"{parts[0]},{parts[1]},", parts[2]


def _auth_message(client_first_bare: str, server_first: str, unproved: str) -> bytes:
    return f"{client_first_bare},{server_first},{unproved}".encode()


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _violation(message: str) -> AuthenticationRefused:
    return AuthenticationRefused(message, sqlstate=_PROTOCOL_VIOLATION)


def _refusal(problem: ScramException) -> AuthenticationRefused:
    # scramp's own text may quote the message; the code of RFC 5802 does not.
    reason = "other-error" if problem.server_error is None else problem.server_error.value
    if reason == "invalid-proof":
        return AuthenticationRefused("password authentication failed")
    return _violation(f"the client's SCRAM message is refused: {reason}")
