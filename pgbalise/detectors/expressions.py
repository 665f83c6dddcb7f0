"""Texts as engines compare them: as bytes in the usual encodings, and as regular expressions.

No sign of ASCII is ever written as itself, but as a hexadecimal escape: so none has a meaning of
its own, neither to the engine nor to the file that the expression stands in.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final

from pgbalise.detectors.patterns import Person

BETWEEN_NAMES: Final = 64
"""Bytes between two names, at most: a field's end, the next one's label and beginning."""

TO_DATE: Final = 200
"""Bytes between names and birth date, at most."""

_PLAIN: Final = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def encoded(text: str) -> tuple[bytes, ...]:
    """Return a text as files hold it: UTF-8 (composed, decomposed), Windows-1252, UTF-16LE.

    Windows-1252 is ISO 8859-1 with more letters in place of control characters.
    """
    composed = unicodedata.normalize("NFC", text)
    found = [composed.encode(), unicodedata.normalize("NFD", text).encode()]
    with suppress(UnicodeEncodeError):
        found.append(composed.encode("cp1252"))
    return tuple(dict.fromkeys([*found, composed.encode("utf-16-le")]))


def escaped_bytes(text: bytes) -> str:
    r"""Return bytes as a regular expression on bytes: letters and digits, else ``\x2f``."""
    return "".join(chr(b) if chr(b) in _PLAIN else f"\\x{b:02x}" for b in text)


def escaped_text(text: str) -> str:
    r"""Return a text as a regular expression on Unicode text: ``\x2f`` for ASCII's signs."""
    return "".join(c if c in _PLAIN or not c.isascii() else f"\\x{ord(c):02x}" for c in text)


def on_bytes(texts: Iterable[str]) -> str:
    """Return an expression for any of the texts in any of the usual encodings."""
    return any_of(escaped_bytes(way) for text in texts for way in encoded(text))


def on_utf8(texts: Iterable[str]) -> str:
    """Return an expression for any of the texts, for engines that see bytes of UTF-8."""
    forms = (unicodedata.normalize(form, text) for text in texts for form in ("NFC", "NFD"))
    return any_of(escaped_bytes(form.encode()) for form in forms)


def on_text(texts: Iterable[str]) -> str:
    """Return an expression for any of the texts, for engines that know the encoding."""
    return any_of(escaped_text(unicodedata.normalize("NFC", text)) for text in texts)


def any_of(alternatives: Iterable[str]) -> str:
    """Return an expression for any of the expressions."""
    # an engine takes the first that fits: the longest, lest what follows seem to adjoin
    ways = sorted(set(alternatives), key=lambda way: (-len(way), way))
    return ways[0] if len(ways) == 1 else f"(?:{'|'.join(ways)})"


def alone(expression: str) -> str:
    """Return an expression that fits only where no letter or digit adjoins.

    It takes in what adjoins: engines without backtracking know no assertions but the ends.
    """
    return f"(?:^|[^0-9A-Za-z]){expression}(?:[^0-9A-Za-z]|$)"


def person_expressions(
    person: Person, spelled: Callable[[Iterable[str]], str] = on_bytes
) -> Iterator[str]:
    """Yield expressions for names and birth date near each other, in every order.

    They are to be used without case, with the dot for line feeds too.
    """
    date = spelled(person.dates)
    for first, second in person.names:
        names = f"{spelled(first)}.{{1,{BETWEEN_NAMES}}}{spelled(second)}"
        yield f"{names}.{{0,{TO_DATE}}}{date}"
        yield f"{date}.{{0,{TO_DATE}}}{names}"
