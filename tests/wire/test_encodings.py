"""The text of a statement in the client's encoding: the same bytes again, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.wire.encodings import _CODECS, UnknownEncoding, decode, encode

NAMES = sorted({*_CODECS, "UHC", "JOHAB", "EUC_TW", "MULE_INTERNAL", ""})


@given(st.binary(max_size=60), st.sampled_from(NAMES))
def test_what_is_read_goes_back_to_the_same_bytes(data: bytes, encoding: str) -> None:
    try:
        text = decode(data, encoding)
    except UnknownEncoding:
        return
    assert encode(text, encoding) == data


@pytest.mark.parametrize("encoding", sorted(_CODECS))
def test_ascii_is_read_in_every_encoding(encoding: str) -> None:
    assert decode(b"SELECT 'a'", encoding) == "SELECT 'a'"


@pytest.mark.parametrize(
    ("encoding", "data"), [("SJIS", b"\x95\\"), ("BIG5", b"\xa5\\"), ("GBK", b"\x95\\")]
)
def test_a_backslash_that_is_half_a_character_is_no_backslash(encoding: str, data: bytes) -> None:
    assert "\\" not in decode(data, encoding)
    with pytest.raises(UnknownEncoding):
        decode(data, encoding, settled=False)


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "EUC_JP", "SQL_ASCII"])
def test_only_ascii_is_read_while_the_encoding_may_change(encoding: str) -> None:
    assert decode(b"SELECT 1", encoding, settled=False) == "SELECT 1"
    with pytest.raises(UnknownEncoding):
        decode("é".encode(), encoding, settled=False)


@pytest.mark.parametrize("data", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"])
def test_what_is_no_utf8_is_refused(data: bytes) -> None:
    with pytest.raises(UnknownEncoding):
        decode(data, "UTF8")


def test_a_name_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(UnknownEncoding):
        encode("Ω", "LATIN1")
    with pytest.raises(UnknownEncoding):
        encode("é", "EUC_TW")
    assert encode("a", "EUC_TW") == b"a"
