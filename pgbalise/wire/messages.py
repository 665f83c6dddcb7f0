"""Single messages of the protocol: names, limits, how they are written and read.

A message is one type byte, a length that counts itself but not the type, and a body; the first
message of a client has no type. Integers are big-endian, strings end with NUL. The names are those
of the PostgreSQL manual, section 55.7, Message Formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from struct import Struct
from struct import error as struct_error

HEADER_BYTES = 5
"""A type and a length."""

length_at = Struct("!I").unpack_from
head_at = Struct("!BI").unpack_from
"""The type and the length of a message at an offset."""
_int16 = Struct("!h")
_int32 = Struct("!i")
_pair = Struct("!II")

PROTOCOL_3_0 = 3 << 16
PROTOCOL_3_2 = 3 << 16 | 2
"""The newest that the relay speaks (src/include/libpq/pqcomm.h, PG_PROTOCOL_LATEST of 18)."""

CANCEL_REQUEST = 1234 << 16 | 5678
SSL_REQUEST = 1234 << 16 | 5679
GSSENC_REQUEST = 1234 << 16 | 5680

MAX_STARTUP_PACKET_LENGTH = 10_000
"""src/include/libpq/pqcomm.h, MAX_STARTUP_PACKET_LENGTH."""

PG_MAX_AUTH_TOKEN_LENGTH = 65_535
"""src/include/libpq/auth.h, PG_MAX_AUTH_TOKEN_LENGTH."""

PQ_SMALL_MESSAGE_LIMIT = 10_000
"""src/include/libpq/libpq.h: the longest message of the types that carry no data."""

PQ_LARGE_MESSAGE_LIMIT = 0x3FFF_FFFF - 1
"""src/include/libpq/libpq.h: MaxAllocSize - 1, the longest of the others."""

CANCEL_KEY_BYTES = (4, 256)
"""Secret keys of a cancel request: 4 bytes in protocol 3.0, up to 256 in 3.2."""


class Frontend(IntEnum):
    """What a client may send once it has sent its startup message."""

    BIND = ord("B")
    CLOSE = ord("C")
    COPY_DATA = ord("d")
    COPY_DONE = ord("c")
    COPY_FAIL = ord("f")
    DESCRIBE = ord("D")
    EXECUTE = ord("E")
    FLUSH = ord("H")
    FUNCTION_CALL = ord("F")
    PARSE = ord("P")
    PASSWORD = ord("p")
    """PasswordMessage, SASLInitialResponse, SASLResponse, GSSResponse."""
    QUERY = ord("Q")
    SYNC = ord("S")
    TERMINATE = ord("X")


class Backend(IntEnum):
    """What a server may send."""

    AUTHENTICATION = ord("R")
    BACKEND_KEY_DATA = ord("K")
    BIND_COMPLETE = ord("2")
    CLOSE_COMPLETE = ord("3")
    COMMAND_COMPLETE = ord("C")
    COPY_BOTH_RESPONSE = ord("W")
    COPY_DATA = ord("d")
    COPY_DONE = ord("c")
    COPY_IN_RESPONSE = ord("G")
    COPY_OUT_RESPONSE = ord("H")
    DATA_ROW = ord("D")
    EMPTY_QUERY_RESPONSE = ord("I")
    ERROR_RESPONSE = ord("E")
    FUNCTION_CALL_RESPONSE = ord("V")
    NEGOTIATE_PROTOCOL_VERSION = ord("v")
    NO_DATA = ord("n")
    NOTICE_RESPONSE = ord("N")
    NOTIFICATION_RESPONSE = ord("A")
    PARAMETER_DESCRIPTION = ord("t")
    PARAMETER_STATUS = ord("S")
    PARSE_COMPLETE = ord("1")
    PORTAL_SUSPENDED = ord("s")
    READY_FOR_QUERY = ord("Z")
    ROW_DESCRIPTION = ord("T")


class Authentication(IntEnum):
    """The kinds of Authentication message that matter to who stands in between."""

    OK = 0
    CLEARTEXT_PASSWORD = 3
    MD5_PASSWORD = 5
    SASL = 10
    SASL_CONTINUE = 11
    SASL_FINAL = 12


SMALL_FRONTEND = frozenset(
    {
        Frontend.CLOSE,
        Frontend.COPY_DONE,
        Frontend.COPY_FAIL,
        Frontend.DESCRIBE,
        Frontend.EXECUTE,
        Frontend.FLUSH,
        Frontend.SYNC,
        Frontend.TERMINATE,
    }
)
"""Limited to PQ_SMALL_MESSAGE_LIMIT, as SocketBackend() of src/backend/tcop/postgres.c does."""


def message(kind: int, body: bytes = b"") -> bytes:
    """Return a message with its type and length."""
    return bytes((kind,)) + _int32.pack(len(body) + 4) + body


def string(value: str | bytes) -> bytes:
    """Return a NUL-terminated string; what was no UTF-8 goes back to its bytes."""
    return (_encoded(value) if isinstance(value, str) else value) + b"\0"


def _encoded(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def query(sql: bytes) -> bytes:
    """Return a Query message."""
    return message(Frontend.QUERY, sql + b"\0")


def parse(name: bytes, sql: bytes, types: bytes = b"\0\0") -> bytes:
    """Return a Parse message; ``types`` is the tail as on the wire, a count and OIDs."""
    return message(Frontend.PARSE, name + b"\0" + sql + b"\0" + types)


def bind(portal: bytes, statement: bytes, values: Sequence[bytes]) -> bytes:
    """Return a Bind message: values as text, results as text."""
    body = [portal, b"\0", statement, b"\0\0\0", _int16.pack(len(values))]
    for value in values:
        body += (_int32.pack(len(value)), value)
    body.append(b"\0\0")
    return message(Frontend.BIND, b"".join(body))


def execute(portal: bytes) -> bytes:
    """Return an Execute message for all rows."""
    return message(Frontend.EXECUTE, portal + b"\0\0\0\0\0")


def close(kind: bytes, name: bytes) -> bytes:
    """Return a Close message: kind ``S`` for a prepared statement, ``P`` for a portal."""
    return message(Frontend.CLOSE, kind + name + b"\0")


SYNC = message(Frontend.SYNC)
FLUSH = message(Frontend.FLUSH)
TERMINATE = message(Frontend.TERMINATE)


def startup_message(parameters: Mapping[str, str], version: int = PROTOCOL_3_0) -> bytes:
    """Return a StartupMessage."""
    body = b"".join(string(name) + string(value) for name, value in parameters.items()) + b"\0"
    return _pair.pack(len(body) + 8, version) + body


def cancel_request(process_and_key: bytes) -> bytes:
    """Return a CancelRequest; its argument is as BackendKeyData gave it."""
    return _pair.pack(len(process_and_key) + 8, CANCEL_REQUEST) + process_and_key


SSL_REQUEST_MESSAGE = _pair.pack(8, SSL_REQUEST)


def error_response(
    sqlstate: str,
    text: str,
    hint: str | None = None,
    *,
    severity: str = "ERROR",
    detail: str | None = None,
) -> bytes:
    """Return an ErrorResponse."""
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": text, "D": detail, "H": hint}
    body = b"".join(
        name.encode() + string(value.replace("\0", "")) for name, value in fields.items() if value
    )
    return message(Backend.ERROR_RESPONSE, body + b"\0")


def error_fields(body: bytes) -> dict[str, str]:
    """Return the fields of an ErrorResponse or NoticeResponse by their one-letter codes."""
    return {
        chr(field[0]): field[1:].decode("utf-8", "replace") for field in body.split(b"\0") if field
    }


def authentication(kind: Authentication, data: bytes = b"") -> bytes:
    """Return an Authentication message."""
    return message(Backend.AUTHENTICATION, _int32.pack(kind) + data)


def negotiate_protocol_version(version: int, options: Sequence[str]) -> bytes:
    """Return a NegotiateProtocolVersion: the newest version spoken, options not understood."""
    body = _pair.pack(version, len(options)) + b"".join(map(string, options))
    return message(Backend.NEGOTIATE_PROTOCOL_VERSION, body)


def read_negotiation(body: bytes) -> tuple[int, list[str]]:
    """Return the version and the options of a NegotiateProtocolVersion's body.

    Raise ValueError when it is malformed.
    """
    if len(body) < _pair.size:
        raise ValueError("a NegotiateProtocolVersion message is cut")
    version, count = _pair.unpack_from(body)
    options = body[_pair.size :].split(b"\0")[:count]
    return version, [option.decode("utf-8", "surrogateescape") for option in options]


def text_row(body: bytes) -> tuple[bytes | None, ...]:
    """Return the values of a DataRow's body; raise ValueError when it is malformed."""
    if len(body) < 2:
        raise ValueError("no column count")
    (count,) = _int16.unpack_from(body)
    values: list[bytes | None] = []
    at = 2
    for _ in range(count):
        if len(body) < at + 4:
            raise ValueError("a column is missing")
        (size,) = _int32.unpack_from(body, at)
        at += 4
        if size < 0:
            values.append(None)
            continue
        if len(body) < at + size:
            raise ValueError("a column is cut")
        values.append(body[at : at + size])
        at += size
    return tuple(values)


def bound_values(body: bytes, at: int) -> list[bytes | str | None]:
    """Return the values that a Bind message's body binds: str in text format, bytes in binary.

    ``at`` is where its parameter formats begin, behind the two names. Raise ValueError when it is
    malformed.
    """
    values: list[bytes | str | None] = []
    try:
        (formats,) = _int16.unpack_from(body, at)
        binary = [_int16.unpack_from(body, at + 2 + 2 * n)[0] == 1 for n in range(formats)]
        at += 2 + 2 * max(formats, 0)
        (count,) = _int16.unpack_from(body, at)
        at += 2
        for number in range(count):
            (size,) = _int32.unpack_from(body, at)
            at += 4
            if size < 0:
                values.append(None)
                continue
            value = body[at : at + size]
            at += size
            # one format stands for all values, none for text
            raw = binary[number if len(binary) > 1 else 0] if binary else False
            values.append(value if raw else value.decode("utf-8", "backslashreplace"))
    except (struct_error, IndexError) as problem:
        raise ValueError("a Bind message is cut") from problem
    if at > len(body):
        raise ValueError("a Bind message is cut")
    return values
