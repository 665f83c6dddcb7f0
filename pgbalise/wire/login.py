"""From the startup message to the first ReadyForQuery, between a client and a server.

The server's authentication requests are handed on to the client and its answers to the server, so
that whoever stands between learns no password; or, when the client has proved itself already,
answered here.
"""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import Protocol

from pgbalise.wire import messages as m
from pgbalise.wire.messages import Authentication, Backend, Frontend
from pgbalise.wire.startup import ProtocolViolation

_int32 = Struct("!I").unpack_from
_BINDING = "-PLUS"


class ScramAnswers(Protocol):
    """The client's side of a SCRAM exchange with the server."""

    def start(self, offered: tuple[str, ...]) -> tuple[str, bytes]:
        """Return the mechanism chosen and the client's first message."""

    def next(self, data: bytes) -> bytes:
        """Return the client's final message."""

    def verify(self, data: bytes) -> None:
        """Check the server's final message."""


class _State(Enum):
    SERVER = "the server is to speak"
    CLIENT = "the client is to answer"
    ACCEPTED = "the server has accepted the client"
    OVER = "the session is ready"


class Login:
    """One login. After each call, what to send lies in ``to_client`` and ``to_server``.

    ``done`` once the session is ready; ``client_rest`` and ``server_rest`` are then bytes that
    belong to it. ``refused`` once the server has sent an error. ``parameters`` are the server's
    ParameterStatus messages. ``answers`` are given when the client has logged in already, and its
    AuthenticationOk was not sent yet.
    """

    def __init__(
        self,
        *,
        newest: int | None = None,
        unspoken: tuple[str, ...] = (),
        answers: ScramAnswers | None = None,
    ) -> None:
        self.to_client: list[bytes] = []
        self.to_server: list[bytes] = []
        self.parameters: dict[str, str] = {}
        self.done = False
        self.refused = False
        self.server_rest = b""
        self._newest = newest
        self._unspoken = unspoken
        self._answers = answers
        self._client = b""
        self._state = _State.SERVER

    @property
    def client_rest(self) -> bytes:
        """What the client has sent that nobody has read yet."""
        return self._client

    def from_client(self, data: bytes) -> None:
        """Take bytes of the client; only answers that were asked for are handed on.

        Raise ProtocolViolation for anything else.
        """
        self._client += data
        while len(self._client) >= m.HEADER_BYTES and self._state is _State.CLIENT:
            kind = self._client[0]
            (length,) = _int32(self._client, 1)
            if kind == Frontend.TERMINATE:
                raise ProtocolViolation("the client left")
            if kind != Frontend.PASSWORD:
                raise ProtocolViolation("expected an answer to the authentication request")
            if not 4 <= length <= m.PG_MAX_AUTH_TOKEN_LENGTH:
                raise ProtocolViolation("invalid length of an authentication message")
            if len(self._client) <= length:
                return
            self.to_server.append(self._client[: length + 1])
            self._client = self._client[length + 1 :]
            self._state = _State.SERVER
        if len(self._client) > 2 * m.PG_MAX_AUTH_TOKEN_LENGTH:
            raise ProtocolViolation("too much data before the session is ready")

    def from_server(self, data: bytes) -> None:
        """Take bytes of the server. Raise ProtocolViolation for what no server sends here."""
        self.server_rest += data
        while len(self.server_rest) >= m.HEADER_BYTES and not self.done:
            kind = self.server_rest[0]
            (length,) = _int32(self.server_rest, 1)
            if not 4 <= length <= m.PG_MAX_AUTH_TOKEN_LENGTH:
                raise ProtocolViolation("the server sent a message of invalid length")
            if len(self.server_rest) <= length:
                return
            whole, self.server_rest = self.server_rest[: length + 1], self.server_rest[length + 1 :]
            self._take(kind, whole)
        if self._state is _State.CLIENT:
            self.from_client(b"")

    def _take(self, kind: int, whole: bytes) -> None:
        body = whole[m.HEADER_BYTES :]
        if kind == Backend.NEGOTIATE_PROTOCOL_VERSION and len(body) >= 8:
            version, options = m.read_negotiation(body)
            self._newest = min(version, self._newest or version)
            self._unspoken = (*self._unspoken, *options)
            return
        if self._newest is not None:
            self.to_client.append(m.negotiate_protocol_version(self._newest, self._unspoken))
            self._newest = None
        if kind == Backend.AUTHENTICATION and len(body) >= 4 and self._state is _State.SERVER:
            self._authentication(whole, body)
        elif kind == Backend.PARAMETER_STATUS:
            text = body.decode("utf-8", "surrogateescape")
            name, value, *_ = (*text.split("\0"), "", "")
            self.parameters[name] = value
            self.to_client.append(whole)
        elif kind == Backend.ERROR_RESPONSE:
            self.refused = True
            self.to_client.append(whole)
        elif kind in (Backend.NOTICE_RESPONSE, Backend.BACKEND_KEY_DATA):
            self.to_client.append(whole)
        elif kind == Backend.READY_FOR_QUERY and self._state is _State.ACCEPTED:
            self._state = _State.OVER
            self.done = True
            self.to_client.append(whole)
        else:
            raise ProtocolViolation("the server does not speak the protocol")

    def _authentication(self, whole: bytes, body: bytes) -> None:
        (kind,) = _int32(body)
        if kind == Authentication.OK:
            self._state = _State.ACCEPTED
            self.to_client.append(whole)
        elif self._answers is not None:
            self._answer(kind, body[4:])
        elif kind == Authentication.SASL:
            # a channel binding is of one TLS connection, and there are two
            offered = [name for name in _names(body[4:]) if not name.endswith(_BINDING)]
            listed = b"".join(map(m.string, offered)) + b"\0"
            self.to_client.append(m.authentication(Authentication.SASL, listed))
            self._state = _State.CLIENT
        else:
            self.to_client.append(whole)
            if kind != Authentication.SASL_FINAL:
                self._state = _State.CLIENT

    def _answer(self, kind: int, data: bytes) -> None:
        assert self._answers is not None
        if kind == Authentication.SASL:
            mechanism, first = self._answers.start(tuple(_names(data)))
            answer = m.string(mechanism) + len(first).to_bytes(4, "big") + first
        elif kind == Authentication.SASL_CONTINUE:
            answer = self._answers.next(data)
        elif kind == Authentication.SASL_FINAL:
            self._answers.verify(data)
            return
        else:
            raise ProtocolViolation(
                "the server asks for another authentication than SCRAM",
                sqlstate="28000",
                hint="give this role a scram-sha-256 line in pg_hba.conf, or set"
                ' authentication.mode = "relay"',
            )
        self.to_server.append(m.message(Frontend.PASSWORD, answer))


def _names(data: bytes) -> list[str]:
    return [name.decode("ascii", "replace") for name in data.split(b"\0") if name]
