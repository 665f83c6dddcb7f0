"""In which encoding a text is, and the text as a stream of UTF-8."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pgbalise.errors import InvalidLeak
from pgbalise.leaks.kind import utf16_order

CHUNK: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"
_INSIDE_A_WORD: Final = re.compile(rb"(?<=[A-Za-z])[\x80-\xff](?=[A-Za-z])")
_MULTIBYTE: Final = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}")
_LETTERS: Final = frozenset("àâäæçéèêëîïôöœùûüÿÀÂÄÆÇÉÈÊËÎÏÔÖŒÙÛÜŸñÑßáíóúÁÍÓÚåÅøØ")


def _page(name: str) -> str:
    """Return a one-byte code page as a table; bytes that it leaves out stand for themselves."""
    return "".join(bytes([n]).decode(name, "ignore") or chr(n) for n in range(256))


# The order decides when several explain the bytes equally well.
_PAGES: Final = {name: _page(name) for name in ("cp1252", "iso8859-15", "cp850", "mac-roman")}


@dataclass(frozen=True)
class Encoding:
    """How a file's bytes become text."""

    name: str
    """``utf-8``, ``utf-16-le``, ``utf-16-be``, ``mixed`` (UTF-8 with Windows-1252 among it), or
    a one-byte code page."""

    def decoder(self) -> Callable[[bytes, bool], str]:
        """Return a function of a chunk, and whether it is the last, that gives its text.

        It raises UnicodeDecodeError for what is not UTF-16.
        """
        if self.name in _PAGES:
            table = _PAGES[self.name]
            return lambda data, _last: codecs.charmap_decode(data, "strict", table)[0]
        if self.name == "mixed":
            return codecs.getincrementaldecoder("utf-8")(_HANDLER).decode
        return codecs.getincrementaldecoder(self.name)("strict").decode


_HANDLER: Final = "pgbalise.one-byte"


def _as_one_byte(problem: UnicodeError) -> tuple[str, int]:
    if not isinstance(problem, UnicodeDecodeError):
        raise problem
    bad = problem.object[problem.start : problem.end]
    return "".join(_PAGES["cp1252"][byte] for byte in bad), problem.end


codecs.register_error(_HANDLER, _as_one_byte)


def encoding_of(path: Path, head: bytes) -> Encoding:
    """Return a text's encoding; the whole file is read, since one accent at its end decides.

    UTF-8 if all of it is. Else, when most of its accents are UTF-8, ``mixed``: files that were put
    together, or cut inside a character. Else the code page in which most bytes within words are
    letters of Western Europe.
    """
    order = utf16_order(head)
    if order is not None:
        return Encoding(f"utf-16-{order}")
    if _is_utf8(path):
        return Encoding("utf-8")
    whole = broken = 0
    inside: list[int] = [0] * 256
    for chunk in raw_chunks(path):
        high = len(chunk) - len(chunk.translate(None, bytes(range(128, 256))))
        characters = _MULTIBYTE.findall(chunk)
        whole += len(characters)
        broken += high - sum(map(len, characters))
        for found in _INSIDE_A_WORD.findall(chunk):
            inside[found[0]] += 1
    if whole > broken:
        return Encoding("mixed")
    return Encoding(max(_PAGES, key=lambda name: _explained(_PAGES[name], inside)))


def _explained(table: str, counts: list[int]) -> int:
    return sum(count for byte, count in enumerate(counts) if table[byte] in _LETTERS)


def _is_utf8(path: Path) -> bool:
    decode = codecs.getincrementaldecoder("utf-8")("strict").decode
    try:
        for chunk in raw_chunks(path):
            decode(chunk)
        decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


def raw_chunks(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield a file's bytes, or those of a part of it."""
    with path.open("rb") as file:
        file.seek(start)
        left = end - start if end is not None else None
        while chunk := file.read(CHUNK if left is None else min(CHUNK, left)):
            if left is not None:
                left -= len(chunk)
            yield chunk


def utf8_chunks(
    path: Path, encoding: Encoding, where: str, start: int = 0, end: int | None = None
) -> Iterator[bytes]:
    """Yield a text as UTF-8 without a byte order mark.

    Raise InvalidLeak when it has NUL characters or is not in that encoding after all.
    """
    first = True
    for chunk in _recoded(raw_chunks(path, start, end), encoding, where):
        if b"\0" in chunk:
            raise InvalidLeak(f"{where}: a NUL character is in the text")
        yield chunk.removeprefix(_BOM) if first else chunk
        first = False


def _recoded(chunks: Iterator[bytes], encoding: Encoding, where: str) -> Iterator[bytes]:
    if encoding.name == "utf-8":
        yield from chunks
        return
    decode = encoding.decoder()
    try:
        for chunk in chunks:
            if text := decode(chunk, False):
                yield text.encode()
        if text := decode(b"", True):
            yield text.encode()
    except UnicodeError:
        raise InvalidLeak(f"{where}: the text is not valid {encoding.name.upper()}") from None


class ByteStream:
    """Chunks of bytes as a file to read from.

    ``quotes`` counts a byte in what was read; ``closed_quote`` says whether the text ended with it.
    """

    def __init__(self, chunks: Iterator[bytes], skip: int = 0, quote: bytes = b"") -> None:
        self._chunks = chunks
        self._skip = skip
        self._quote = quote
        self._rest = b""
        self.quotes = 0
        self.closed_quote = False
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        """Return up to so many bytes; none at the end."""
        parts: list[bytes] = []
        have = 0
        while size < 0 or have < size:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    break
                if self._skip:
                    skipped = min(self._skip, len(self._rest))
                    self._skip -= skipped
                    self._rest = self._rest[skipped:]
                    continue
            part = self._rest if size < 0 else self._rest[: size - have]
            self._rest = self._rest[len(part) :]
            parts.append(part)
            have += len(part)
        data = b"".join(parts)
        if self._quote:
            self.quotes += data.count(self._quote)
            if end := data.rstrip(b"\r\n"):
                self.closed_quote = end.endswith(self._quote)
        return data

    def close(self) -> None:
        """Read no more."""
        self.closed = True
