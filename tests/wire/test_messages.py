"""Single messages, written and read."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.wire import messages as m
from pgbalise.wire.messages import Backend, Frontend

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
rows = st.lists(st.none() | st.binary(max_size=20), max_size=20)


def row(values: list[bytes | None]) -> bytes:
    return struct.pack("!h", len(values)) + b"".join(
        struct.pack("!i", -1) if one is None else struct.pack("!i", len(one)) + one
        for one in values
    )


@pytest.mark.parametrize(
    ("made", "bytes_"),
    [
        (m.query(b"SELECT 1"), b"Q\0\0\0\x0dSELECT 1\0"),
        (m.parse(b"s", b"SELECT 1"), b"P\0\0\0\x11s\0SELECT 1\0\0\0"),
        (m.bind(b"p", b"s", [b"1"]), b"B\0\0\0\x13p\0s\0\0\0\0\1\0\0\0\0011\0\0"),
        (m.execute(b"p"), b"E\0\0\0\x0ap\0\0\0\0\0"),
        (m.close(b"S", b"s"), b"C\0\0\0\7Ss\0"),
        (m.close(b"P", b"p"), b"C\0\0\0\7Pp\0"),
        (m.SYNC, b"S\0\0\0\4"),
        (m.FLUSH, b"H\0\0\0\4"),
        (m.TERMINATE, b"X\0\0\0\4"),
        (m.SSL_REQUEST_MESSAGE, b"\0\0\0\x08\x04\xd2\x16\x2f"),
        (m.cancel_request(b"\0\0\0\1key!"), b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\1key!"),
        (m.startup_message({"user": "a"}), b"\0\0\0\x10\0\3\0\0user\0a\0\0"),
    ],
)
def test_messages_are_written_as_the_manual_says(made: bytes, bytes_: bytes) -> None:
    assert made == bytes_


def test_every_kind_of_message_has_a_limit_or_carries_data() -> None:
    large = {Frontend.BIND, Frontend.PARSE, Frontend.QUERY, Frontend.FUNCTION_CALL,
             Frontend.COPY_DATA, Frontend.PASSWORD}  # fmt: skip
    assert set(Frontend) - m.SMALL_FRONTEND == large


@given(text, text, text)
def test_the_fields_of_an_error_are_read_again(message: str, hint: str, detail: str) -> None:
    made = m.error_response("42501", message, hint, detail=detail)
    assert made[0] == Backend.ERROR_RESPONSE
    assert m.error_fields(made[5:]) == {
        "S": "ERROR", "V": "ERROR", "C": "42501", "M": message, "H": hint, "D": detail
    }  # fmt: skip


def test_a_nul_in_an_error_does_not_end_it() -> None:
    assert m.error_fields(m.error_response("42501", "a\0b")[5:])["M"] == "ab"


@given(rows)
def test_a_row_is_read_again(values: list[bytes | None]) -> None:
    assert m.text_row(row(values)) == tuple(values)


@given(rows, st.data())
def test_a_row_that_is_cut_is_malformed(values: list[bytes | None], data: st.DataObject) -> None:
    whole = row(values)
    with pytest.raises(ValueError, match="column"):
        m.text_row(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.integers(0, 2**32 - 1), st.lists(text, max_size=5))
def test_a_negotiation_is_read_again(version: int, options: list[str]) -> None:
    assert m.read_negotiation(m.negotiate_protocol_version(version, options)[5:]) == (
        version,
        options,
    )


@pytest.mark.parametrize(
    ("formats", "expected"),
    [
        ([], ["é", None, "b"]),
        ([0], ["é", None, "b"]),
        ([1], ["é".encode(), None, b"b"]),
        ([0, 0, 1], ["é", None, b"b"]),
    ],
)
def test_bound_values_are_read_in_their_formats(formats: list[int], expected: list[object]) -> None:
    head = struct.pack(f"!h{len(formats)}h", len(formats), *formats)
    body = b"pp" + head + row(["é".encode(), None, b"b"]) + b"\0\0"
    assert m.bound_values(body, 2) == expected
    for end in range(2, len(body) - 2):
        with pytest.raises(ValueError, match="cut"):
            m.bound_values(body[:end], 2)


@given(st.binary(max_size=100), st.integers(0, 10))
def test_any_bind_is_read_or_malformed(body: bytes, at: int) -> None:
    try:
        m.bound_values(body, at)
    except ValueError as problem:
        assert "cut" in str(problem)  # noqa: PT017
