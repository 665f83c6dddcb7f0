"""What a client sends before its session: encryption requests, a cancel request, its startup.

The manual, sections 55.2.1 (start-up), 55.2.10 (SSL session encryption) and 55.2.11 (GSSAPI).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from struct import Struct

from pgbalise.wire import messages as m

_head = Struct("!II")
_TLS_HANDSHAKE = 0x16
"""The first byte of a TLS ClientHello: direct TLS, without an SSLRequest."""

_NAME_BYTES = 63
"""src/include/pg_config_manual.h, NAMEDATALEN - 1."""
_PROTOCOL_OPTION = b"_pq_."


class ProtocolViolation(Exception):
    """The other side does not speak the protocol; ``response`` is a FATAL ErrorResponse."""

    def __init__(self, text: str, *, sqlstate: str = "08P01", hint: str | None = None) -> None:
        super().__init__(text)
        self.response = m.error_response(sqlstate, text, hint, severity="FATAL")


@dataclass(frozen=True, slots=True)
class Answer:
    """Send these bytes in the clear, and go on."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Encrypt:
    """Send these bytes in the clear (none with direct TLS), then be the server of a TLS handshake.

    The handshake of direct TLS must choose the application protocol ``postgresql`` (ALPN).
    """

    data: bytes
    direct: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """A cancel request: process and key as BackendKeyData gave them, to be passed on."""

    process_and_key: bytes


@dataclass(frozen=True, slots=True)
class Start:
    """A startup message.

    ``data`` is what to send to the server: the client's own bytes, unless it asked for a protocol
    or for protocol options that are not spoken here; ``unspoken`` then lists those options and
    ``newest`` is the version to offer. ``parameters`` are the client's, ``settings`` what they set
    of the server's configuration, those in ``options`` included, by lower-case name.
    """

    data: bytes
    version: int
    parameters: Mapping[str, str]
    settings: Mapping[str, str]
    newest: int | None
    unspoken: tuple[str, ...]


Step = Answer | Encrypt | Cancel | Start


class _State(Enum):
    BARE = "nothing was asked for yet"
    NO_GSS = "GSSAPI encryption was declined"
    NO_TLS = "TLS was declined"
    NEITHER = "both were declined"
    ENCRYPTED = "within TLS"
    OVER = "the startup message has come"


# what an encryption request leads to; a request that has no entry is one too many
_AFTER_SSL = {_State.BARE: _State.NO_TLS, _State.NO_GSS: _State.NEITHER}
_AFTER_GSS = {_State.BARE: _State.NO_GSS, _State.NO_TLS: _State.NEITHER}


class Opening:
    """The beginning of one client's connection.

    ``wanted`` is how many more bytes are needed at most: who reads no more than that leaves what
    belongs to a TLS handshake where it is.
    """

    def __init__(self, *, tls: bool, encrypted: bool = False, tls_required: bool = False) -> None:
        self._tls = tls
        self._required = tls_required
        self._state = _State.ENCRYPTED if encrypted else _State.BARE
        self._data = b""

    @property
    def wanted(self) -> int:
        """How many bytes are missing of what is to be read next."""
        if len(self._data) < _head.size:
            return _head.size - len(self._data)
        length: int = _head.unpack_from(self._data)[0]
        return max(length - len(self._data), 0)

    def receive(self, data: bytes) -> Step | None:
        """Take bytes; return what they ask for, None while something is missing.

        Raise ProtocolViolation for what no client sends, and for what is not spoken here.
        """
        if self._state is _State.OVER:
            raise ProtocolViolation("the startup message has come already")
        self._data += data
        if self._data[:1] == bytes((_TLS_HANDSHAKE,)) and self._state is _State.BARE:
            if not self._tls:
                raise ProtocolViolation("TLS is not offered here")
            return Encrypt(b"", direct=True)
        if len(self._data) < _head.size:
            return None
        length, code = _head.unpack_from(self._data)
        if not _head.size <= length <= m.MAX_STARTUP_PACKET_LENGTH:
            raise ProtocolViolation("invalid length of startup packet")
        if len(self._data) < length:
            return None
        packet, rest = self._data[:length], self._data[length:]
        if rest:
            # what came in the clear behind a request could pass for the encrypted session's
            # (CVE-2021-23214); a client waits for the answer to its startup message too
            raise ProtocolViolation("received unencrypted data after the startup packet")
        self._data = b""
        if code == m.CANCEL_REQUEST:
            self._state = _State.OVER
            low, high = m.CANCEL_KEY_BYTES
            if not 4 + low <= length - _head.size <= 4 + high:
                raise ProtocolViolation("invalid length of cancel request packet")
            return Cancel(packet[_head.size :])
        if code in (m.SSL_REQUEST, m.GSSENC_REQUEST):
            return self._encryption(code, length)
        if self._required and self._state is not _State.ENCRYPTED:
            raise ProtocolViolation(
                "this proxy takes encrypted connections only",
                sqlstate="28000",
                hint="connect with sslmode=require or stricter",
            )
        self._state = _State.OVER
        return _start(packet)

    def _encryption(self, code: int, length: int) -> Step:
        after = (_AFTER_SSL if code == m.SSL_REQUEST else _AFTER_GSS).get(self._state)
        if after is None or length != _head.size:
            raise ProtocolViolation("an encryption request too many")
        if code == m.SSL_REQUEST and self._tls:
            return Encrypt(b"S", direct=False)
        self._state = after
        return Answer(b"N")


def _start(packet: bytes) -> Start:
    _, version = _head.unpack_from(packet)
    if version >> 16 != m.PROTOCOL_3_0 >> 16:
        raise ProtocolViolation(
            f"unsupported frontend protocol {version >> 16}.{version & 0xFFFF}:"
            " this proxy supports 3.0 to 3.2",
            sqlstate="0A000",
        )
    fields = packet[_head.size :].split(b"\0")
    # pairs, then the empty name that ends them, then what is behind the last NUL
    if len(fields) < 2 or len(fields) % 2 or fields[-1] or fields[-2]:
        raise ProtocolViolation("invalid startup packet layout: expected terminator as last byte")
    pairs = list(zip(fields[:-2:2], fields[1:-2:2], strict=True))
    if not all(name for name, _ in pairs):
        raise ProtocolViolation("invalid startup packet layout: a parameter has no name")
    unspoken = [name for name, _ in pairs if name.startswith(_PROTOCOL_OPTION)]
    newest = m.PROTOCOL_3_2 if unspoken or version > m.PROTOCOL_3_2 else None
    parameters = {_text(name): _text(value) for name, value in pairs if name not in unspoken}
    if not parameters.get("user"):
        raise ProtocolViolation(
            "no PostgreSQL user name specified in startup packet", sqlstate="28000"
        )
    if any(len(value) > _NAME_BYTES for name, value in pairs if name in (b"user", b"database")):
        # some servers cut them, and what they then mean is another role's or database's name
        raise ProtocolViolation(
            f"the name of a role or a database has at most {_NAME_BYTES} bytes", sqlstate="42622"
        )
    if parameters.get("replication", "").lower() not in ("", "false", "off", "no", "0", "f", "n"):
        raise ProtocolViolation(
            "replication connections cannot be marked and are refused by this proxy",
            sqlstate="0A000",
            hint="connect to the server itself for replication and base backups",
        )
    if newest is not None:
        body = b"".join(
            name + b"\0" + value + b"\0" for name, value in pairs if name not in unspoken
        )
        version = min(version, m.PROTOCOL_3_2)
        packet = _head.pack(len(body) + _head.size + 1, version) + body + b"\0"
    return Start(
        packet,
        version,
        parameters,
        _settings(parameters),
        newest,
        tuple(_text(name) for name in unspoken),
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


_TAKES_VALUE = frozenset("BcCDdfhkNprStvW-")
"""Switches with a value in process_postgres_switches() of src/backend/tcop/postgres.c."""
_NOT_SETTINGS = frozenset({"user", "database", "options", "replication"})


def _settings(parameters: Mapping[str, str]) -> dict[str, str]:
    found = {name.lower(): value for name, value in parameters.items() if name not in _NOT_SETTINGS}
    words = iter(_words(parameters.get("options", "")))
    for word in words:
        # getopt() reads several letters in one word, up to one that takes a value
        at = next((at for at, letter in enumerate(word) if at and letter in _TAKES_VALUE), None)
        if at is None or word[0] != "-":
            continue
        value = word[at + 1 :] or next(words, "")
        if word[at] in "c-":
            name, _, value = value.partition("=")
            found[name.strip().replace("-", "_").lower()] = value
    return found


def _words(options: str) -> list[str]:
    """Split as pg_split_opts() of src/backend/utils/init/postinit.c does."""
    words = re.findall(r"(?:\\.|[^\s\\])+", options, re.DOTALL)
    return [re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL) for word in words]
