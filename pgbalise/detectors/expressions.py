"""Texts as engines compare them: as bytes in the usual encodings, and as regular expressions.

No sign of ASCII is ever written as itself, but as a hexadecimal escape: so none has a meaning of
its own, neither to the engine nor to the file that the expression stands in.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final

from pgbalise.detectors.patterns import Person

BETWEEN_NAMES: Final = 64
"""Bytes between two names, at most: a field's end, the next one's label and beginning."""

TO_DATE: Final = 120
"""Bytes between names and birth date, at most."""

_TOKEN: Final = re.compile(r"\\x[0-9a-f]{2}|.", re.DOTALL)

_Trie = dict[str, "_Trie"]

_PLAIN: Final = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def encoded(text: str) -> tuple[bytes, ...]:
    """Return a text as files hold it: UTF-8 (composed, decomposed), Windows-1252, UTF-16LE.

    Windows-1252 is ISO 8859-1 with more letters in place of control characters.
    """
    composed = unicodedata.normalize("NFC", text)
    found = [text.encode(), composed.encode(), unicodedata.normalize("NFD", text).encode()]
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
    return any_of(
        escaped_bytes(form.encode())
        for text in texts
        for form in (text, *(unicodedata.normalize(name, text) for name in ("NFC", "NFD")))
    )


def on_text(texts: Iterable[str]) -> str:
    """Return an expression for any of the texts, for engines that know the encoding."""
    return any_of(
        escaped_text(form) for text in texts for form in (text, unicodedata.normalize("NFC", text))
    )


def any_of(literals: Iterable[str]) -> str:
    """Return an expression for any of the literals, as ``escaped_bytes`` and the like write them.

    Beginnings in common are written once, small letters for both cases: an engine that tries one
    alternative after the other has few to try.
    """
    trie: _Trie = {}
    for literal in literals:
        place = trie
        for token in _TOKEN.findall(literal):
            place = place.setdefault(
                token.lower() if token.isascii() and len(token) == 1 else token, {}
            )
        place[""] = {}
    return _of_trie(trie)


def _of_trie(trie: _Trie) -> str:
    # an engine takes the first that fits: the longer before the end
    ways = [
        token if rest.keys() == {""} else token + _of_trie(rest)
        for token, rest in sorted(trie.items(), reverse=True)
        if token
    ]
    if "" in trie:
        return f"(?:{'|'.join(ways)})?" if ways else ""
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
        names = f"{spelled(first)}{_gap(1, BETWEEN_NAMES)}{spelled(second)}"
        yield f"{names}{_gap(0, TO_DATE)}{date}"
        yield f"{date}{_gap(0, TO_DATE)}{names}"


def _gap(least: int, most: int) -> str:
    """Return what may stand between: of one line and object, or anything without a number.

    A namesake's line may be followed by somebody born on the decoy's day; but between them is the
    namesake's own birth date.
    """
    length = f"{{{least},{most}}}"
    return rf"(?:[^\x0a\x7b\x7d]{length}|[^0-9]{length})"
