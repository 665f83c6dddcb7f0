"""What comes before a session: each state, each refusal, and any pieces."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.wire import messages as m
from pgbalise.wire.startup import Answer, Cancel, Encrypt, Opening, ProtocolViolation, Start, Step

SSL = m.SSL_REQUEST_MESSAGE
GSS = struct.pack("!II", 8, m.GSSENC_REQUEST)
STARTUP = m.startup_message({"user": "ward", "database": "dpi"})


def packet(body: bytes, version: int = m.PROTOCOL_3_0) -> bytes:
    return struct.pack("!II", len(body) + 8, version) + body


def opened(
    *said: bytes, tls: bool = False, encrypted: bool = False, required: bool = False
) -> Step:
    opening = Opening(tls=tls, encrypted=encrypted, tls_required=required)
    step = None
    for data in said:
        step = opening.receive(data)
    assert step is not None
    return step


def started(body: bytes, version: int = m.PROTOCOL_3_0) -> Start:
    step = opened(packet(body, version))
    assert isinstance(step, Start)
    return step


@pytest.mark.parametrize(
    ("said", "options", "kind"),
    [
        ([STARTUP], {}, Start),
        ([SSL], {}, Answer),
        ([GSS], {}, Answer),
        ([SSL, STARTUP], {}, Start),
        ([GSS, STARTUP], {}, Start),
        ([SSL, GSS, STARTUP], {}, Start),
        ([GSS, SSL, STARTUP], {}, Start),
        ([SSL], {"tls": True}, Encrypt),
        ([GSS, SSL], {"tls": True}, Encrypt),
        ([b"\x16\3\1"], {"tls": True}, Encrypt),
        ([STARTUP], {"encrypted": True, "required": True}, Start),
        ([m.cancel_request(bytes(8))], {}, Cancel),
        ([m.cancel_request(bytes(260))], {}, Cancel),
        ([SSL, m.cancel_request(bytes(8))], {}, Cancel),
        ([m.cancel_request(bytes(8))], {"encrypted": True}, Cancel),
    ],
)
def test_each_step(said: list[bytes], options: dict[str, bool], kind: type[Step]) -> None:
    assert isinstance(opened(*said, **options), kind)


def test_encryption_is_declined_with_one_letter() -> None:
    assert opened(SSL) == Answer(b"N")
    assert opened(GSS, tls=True) == Answer(b"N")
    assert opened(SSL, tls=True) == Encrypt(b"S", direct=False)
    assert opened(b"\x16", tls=True) == Encrypt(b"", direct=True)


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ([SSL, SSL], {}),
        ([GSS, GSS], {}),
        ([SSL, GSS, SSL], {}),
        ([SSL], {"encrypted": True}),
        ([GSS], {"encrypted": True}),
        ([b"\x16\3\1"], {}),
        ([SSL + STARTUP], {}),
        ([STARTUP + b"Q"], {}),
        ([STARTUP, b"Q"], {}),
        ([STARTUP], {"required": True}),
        ([packet(b"x", m.SSL_REQUEST)], {}),
        ([m.cancel_request(bytes(7))], {}),
        ([m.cancel_request(bytes(261))], {}),
        ([b"\0\0\0\7\0\3\0\0"], {}),
        ([struct.pack("!II", 10_001, m.PROTOCOL_3_0)], {}),
        ([b"GET / HTTP/1.1\r\n"], {}),
    ],
)
def test_what_no_client_sends_is_refused(said: list[bytes], options: dict[str, bool]) -> None:
    with pytest.raises(ProtocolViolation) as refused:
        opened(*said, **options)
    assert m.error_fields(refused.value.response[5:])["S"] == "FATAL"


@pytest.mark.parametrize(
    ("body", "version", "sqlstate"),
    [
        (b"user\0a\0\0", 2 << 16, "0A000"),
        (b"user\0a\0\0", 4 << 16, "0A000"),
        (b"", m.PROTOCOL_3_0, "08P01"),
        (b"\0", m.PROTOCOL_3_0, "28000"),
        (b"user\0a\0", m.PROTOCOL_3_0, "08P01"),
        (b"user\0a", m.PROTOCOL_3_0, "08P01"),
        (b"user\0\0", m.PROTOCOL_3_0, "08P01"),
        (b"user\0a\0\0x\0y\0\0", m.PROTOCOL_3_0, "08P01"),
        (b"user\0a\0\0\0", m.PROTOCOL_3_0, "08P01"),
        (b"user\0\0\0", m.PROTOCOL_3_0, "28000"),
        (b"database\0a\0\0", m.PROTOCOL_3_0, "28000"),
        (b"user\0a\0replication\0true\0\0", m.PROTOCOL_3_0, "0A000"),
        (b"user\0a\0replication\0database\0\0", m.PROTOCOL_3_0, "0A000"),
        (b"user\0a\0replication\0OFF\0replication\0t\0\0", m.PROTOCOL_3_0, "0A000"),
        (b"user\0" + b"a" * 64 + b"\0\0", m.PROTOCOL_3_0, "42622"),
        (b"user\0a\0database\0" + b"a" * 64 + b"\0\0", m.PROTOCOL_3_0, "42622"),
    ],
)
def test_a_startup_message_is_refused(body: bytes, version: int, sqlstate: str) -> None:
    with pytest.raises(ProtocolViolation) as refused:
        started(body, version)
    assert m.error_fields(refused.value.response[5:])["C"] == sqlstate


def test_a_startup_message_is_handed_on_byte_for_byte() -> None:
    body = b"user\0w\xe9\0replication\0off\0TimeZone\0UTC\0user\0ward\0\0"
    step = started(body)
    assert step.data == packet(body)
    assert step.parameters["user"] == "ward"
    assert step.settings == {"timezone": "UTC"}
    assert step.newest is None


@pytest.mark.parametrize(("asked", "given"), [(2, None), (3, 2), (9, 2)])
def test_a_newer_protocol_is_negotiated(asked: int, given: int | None) -> None:
    step = started(b"user\0a\0\0", m.PROTOCOL_3_0 | asked)
    assert step.version == m.PROTOCOL_3_0 | 2
    assert step.newest == (given and m.PROTOCOL_3_0 | given)


def test_protocol_options_are_not_handed_on() -> None:
    step = started(b"user\0a\0_pq_.\xff\0x\0TimeZone\0UTC\0\0")
    assert step.data == packet(b"user\0a\0TimeZone\0UTC\0\0")
    assert step.unspoken == ("_pq_.\udcff",)
    assert m.negotiate_protocol_version(m.PROTOCOL_3_2, step.unspoken).endswith(b"_pq_.\xff\0")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("-c role=a", {"role": "a"}),
        ("-crole=a", {"role": "a"}),
        ("--role=a", {"role": "a"}),
        ("--Search-Path=a", {"search_path": "a"}),
        ("-ec role=a", {"role": "a"}),
        ("-Oecrole=a", {"role": "a"}),
        ("-e-role=a", {"role": "a"}),
        ("-B 16 -c role=a", {"role": "a"}),
        ("-B16c -c role=a", {"role": "a"}),
        (r"-c role=a\ b\\c", {"role": r"a b\c"}),
        ("-e", {}),
        ("-", {}),
        ("-c", {"": ""}),
        ("role=a", {}),
    ],
)
def test_settings_within_options_are_found(options: str, found: dict[str, str]) -> None:
    assert started(b"user\0a\0options\0" + options.encode() + b"\0\0").settings == found


@given(st.integers(0, len(STARTUP)), st.integers(0, len(STARTUP)))
def test_a_startup_message_may_come_in_pieces(first: int, second: int) -> None:
    opening = Opening(tls=True)
    first, second = sorted((first, second))
    steps = [opening.receive(p) for p in (STARTUP[:first], STARTUP[first:second]) if p]
    assert second == len(STARTUP) or steps in ([], [None], [None, None])
    if second < len(STARTUP):
        assert 0 < opening.wanted <= len(STARTUP) - second
        assert isinstance(opening.receive(STARTUP[second:]), Start)


@given(st.binary(max_size=200))
def test_anything_else_is_a_violation(data: bytes) -> None:
    try:
        opened(packet(data))
    except ProtocolViolation as problem:
        assert problem.response.startswith(b"E")  # noqa: PT017
