"""The text of a statement in the client's encoding, as a string and back, byte for byte."""

from __future__ import annotations

from typing import Final

_CODECS: Final = {
    "UTF8": "utf-8",
    # the one alias that the server reports as it was set
    "UNICODE": "utf-8",
    "LATIN1": "iso8859-1",
    "LATIN2": "iso8859-2",
    "LATIN3": "iso8859-3",
    "LATIN4": "iso8859-4",
    "LATIN5": "iso8859-9",
    "LATIN6": "iso8859-10",
    "LATIN7": "iso8859-13",
    "LATIN8": "iso8859-14",
    "LATIN9": "iso8859-15",
    "LATIN10": "iso8859-16",
    "WIN1250": "cp1250",
    "WIN1251": "cp1251",
    "WIN1252": "cp1252",
    "WIN1253": "cp1253",
    "WIN1254": "cp1254",
    "WIN1255": "cp1255",
    "WIN1256": "cp1256",
    "WIN1257": "cp1257",
    "WIN1258": "cp1258",
    "WIN866": "cp866",
    "WIN874": "cp874",
    "ISO_8859_5": "iso8859-5",
    "ISO_8859_6": "iso8859-6",
    "ISO_8859_7": "iso8859-7",
    "ISO_8859_8": "iso8859-8",
    "KOI8R": "koi8-r",
    "KOI8U": "koi8-u",
    "EUC_JP": "euc_jp",
    "EUC_KR": "euc_kr",
    "EUC_CN": "gb2312",
    "SJIS": "cp932",
    "BIG5": "cp950",
    "EUC_JIS_2004": "euc_jis_2004",
    "SHIFT_JIS_2004": "shift_jis_2004",
    "UHC": "cp949",
    "JOHAB": "johab",
    "GBK": "gbk",
    "GB18030": "gb18030",
    # what it says is not converted, and so is what the server takes it for: UTF-8, if anything
    "SQL_ASCII": "utf-8",
}
"""PostgreSQL's names (the manual, section 24.3.1) and Python's."""

# a byte of a character may look like a quote or a backslash in these
_UNSAFE: Final = frozenset({"SJIS", "BIG5", "GBK", "GB18030", "UHC", "JOHAB", "SHIFT_JIS_2004"})


class UnknownEncoding(Exception):
    """A text cannot be read, or written, in an encoding."""


def decode(data: bytes, encoding: str, *, settled: bool = True) -> str:
    """Return a statement's text; raise UnknownEncoding unless it goes back to the same bytes.

    ``settled`` is false when the client may have changed its encoding and the server has not said
    so yet: then only ASCII is read.
    """
    if encoding in _UNSAFE and not settled:
        raise UnknownEncoding("a statement cannot be read before the client's encoding is known")
    if data.isascii() and encoding not in _UNSAFE:
        return data.decode("ascii")
    codec = _CODECS.get(encoding)
    if codec is None or not settled:
        raise UnknownEncoding("a statement that is not ASCII cannot be read in this encoding")
    try:
        text = data.decode(codec)
        if text.encode(codec) == data:
            return text
    except UnicodeError:
        pass
    raise UnknownEncoding("a statement cannot be read in the client's encoding")


def encode(text: str, encoding: str) -> bytes:
    """Return a text in the client's encoding; raise UnknownEncoding when it cannot be written."""
    try:
        return text.encode("ascii" if text.isascii() else _CODECS[encoding])
    except (KeyError, UnicodeError):
        raise UnknownEncoding(
            "a protected relation's name cannot be written in the client's encoding"
        ) from None
