"""PURE. What a file is, told by its first bytes."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final


class Kind(Enum):
    """What a file is; the value is what an error message calls it."""

    PARQUET = "Parquet file"
    ARROW_FILE = "Arrow file"
    ARROW_STREAM = "Arrow stream"
    ZIP = "zip archive"
    TAR = "tar archive"
    GZIP = "gzip file"
    BZIP2 = "bzip2 file"
    XZ = "xz file"
    ZSTD = "zstd file"
    LZ4 = "lz4 file"
    SQLITE = "SQLite database"
    PG_CUSTOM = "dump of pg_dump"
    COMPOUND = "workbook"
    JSON = "JSON text"
    SQL = "SQL text"
    TEXT = "text"
    OTHER = "binary file"


HEAD: Final = 65_536
"""Bytes that ``kind_of`` wants to see."""

_MAGIC: Final = (
    (b"ARROW1\0\0", Kind.ARROW_FILE),
    (b"\xff\xff\xff\xff", Kind.ARROW_STREAM),
    (b"PK\x03\x04", Kind.ZIP),
    (b"PK\x05\x06", Kind.ZIP),
    (b"\x1f\x8b", Kind.GZIP),
    (b"\xfd7zXZ\0", Kind.XZ),
    (b"\x28\xb5\x2f\xfd", Kind.ZSTD),
    (b"\x04\x22\x4d\x18", Kind.LZ4),
    (b"SQLite format 3\0", Kind.SQLITE),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind.COMPOUND),
)

# These could begin a text as well: a header PAR1, PAR2.
_LETTERS: Final = (
    (b"PAR1", Kind.PARQUET),
    (b"PGDMP", Kind.PG_CUSTOM),
    (b"ORC", Kind.OTHER),
)
_BZIP2: Final = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P)")

_FOREIGN: Final = (
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it first"),
    (b"PGCOPY\n\xff\r\n\0", "a binary COPY, which does not name its types"),
    (b"-----BEGIN PGP", "encrypted: decrypt it first"),
    (b"{\\rtf", "a rich text document"),
    (b"Obj\x01", "an Avro file: convert it to Parquet first"),
)

_SQL: Final = re.compile(
    rb"-- (?:PostgreSQL database|MySQL dump|MariaDB dump|phpMyAdmin)|^\s*(?:"
    rb"(?:INSERT|REPLACE)\s+(?:IGNORE\s+)?INTO\s+[^\s(]+.{0,4000}?(?:\bVALUES?\b|\bSELECT\b)"
    rb"|COPY\s+[^\n]{1,4000}?\bFROM\s+stdin\b[^\n]*;"
    rb"|CREATE\s+(?:[a-z]+\s+){0,3}TABLE\s.{1,400}?\()",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_JSON: Final = re.compile(rb'\s*+(?:\{\s*+(?:"|\}|$)|\[\s*+(?:[\[{"\]\d-]|true|false|null|$))')
_MARKUP: Final = re.compile(rb"\s*+<(?:[?!]|[A-Za-z][\w:.-]*[\s>/])")
# DEL is not among them: JSON writes it as it is
_CONTROLS: Final = bytes(set(range(32)) - set(b"\t\n\r\f\x01\x1a\x1b"))
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


def kind_of(head: bytes) -> Kind:
    """Return what a file is that begins with these bytes (as many as HEAD, if it has them)."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if _BZIP2.match(head):
        return Kind.BZIP2
    for magic, kind in _LETTERS:
        if head.startswith(magic) and _is_binary(head[:64]):
            return kind
    if foreign(head):
        return Kind.OTHER
    if head[257:262] == b"ustar" or _is_old_tar(head):
        return Kind.TAR
    order = utf16_order(head)
    if order is None and _is_binary(head):
        return Kind.OTHER
    text = head
    if order is not None:
        text = head.decode(f"utf-16-{order}", "ignore").encode()
    text = text.removeprefix(b"\xef\xbb\xbf")
    if _JSON.match(text):
        return Kind.JSON
    if _MARKUP.match(text):
        return Kind.OTHER
    return Kind.SQL if _SQL.search(text) else Kind.TEXT


def foreign(head: bytes) -> str | None:
    """Return what a file is that holds no rows, when its first bytes tell."""
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            return what
    return "XML or HTML" if _MARKUP.match(head.removeprefix(b"\xef\xbb\xbf")) else None


def utf16_order(head: bytes) -> str | None:
    """Return the byte order of UTF-16, ``le`` or ``be``, or None when the bytes are not UTF-16.

    Without a byte order mark, text is UTF-16 when most of its characters are ASCII: one byte in
    two is zero, always the same one.
    """
    if head[:2] in _UTF16:
        return "le" if head[:2] == _UTF16[0] else "be"
    sample = head[: min(len(head), 4_096) & ~1]
    if len(sample) < 4:
        return None
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    most = len(sample) // 4
    if odd > most and not even:
        return "le"
    return "be" if even > most and not odd else None


def _is_binary(head: bytes) -> bool:
    if b"\0" in head:
        return True
    return len(head) - len(head.translate(None, _CONTROLS)) > len(head) // 100


def _is_old_tar(head: bytes) -> bool:
    # The header before POSIX has no magic, only a sum of its bytes with the sum's own as blanks.
    if len(head) < 512 or not head[0]:
        return False
    try:
        stated = int(head[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    return sum(head[:148]) + sum(head[156:512]) + 8 * 32 == stated
