"""Whether a statement asks for somebody who does not exist: constants against decoys' identities.

Only digests are kept, SHA-256 over a key of the process and the value's canonical form, so that a
process's memory does not list the decoys. SHA-256 because the database must be able to compute
them (``balise.decoy_digests``).

Canonical form: without spaces around it, ASCII letters small, integers without leading zeros. Known
wherever it stands is a text of at least six characters with a digit or an @ in it that looks
neither like a date nor like a decimal number, and an integer of nine digits or more. Shorter ones
are also the numbers of other things: they count only where a column of the decoy's name is
compared with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final

DIGEST_BYTES: Final = 16

_SHORT_DIGITS: Final = 8
_WIDTHS: Final = frozenset({2, 4, 8})
_MOST_ELEMENTS: Final = 10_000
_WORD: Final = re.compile(rb"[ -~]*")
_NOBODY: Final[frozenset[str]] = frozenset()


class Beacons:
    """The identities of all decoys of one database, as keyed digests.

    ``digests`` are pairs of a recipient and the digest of an identity of one of its decoys.
    """

    def __init__(self, key: bytes, digests: Iterable[tuple[str, bytes]]) -> None:
        self._key = key
        owners: dict[bytes, set[str]] = {}
        for owner, digest in digests:
            owners.setdefault(digest, set()).add(owner)
        # most decoys' owners are the same few sets
        shared: dict[frozenset[str], frozenset[str]] = {}
        self._owners = {
            digest: shared.setdefault(frozenset(names), frozenset(names))
            for digest, names in owners.items()
        }

    @classmethod
    def of(cls, key: bytes, identities: Iterable[tuple[str, str, str]]) -> Beacons:
        """Return those of recipient, column name and value; what does not identify is left out."""
        found = ((owner, beacon(key, column, value)) for owner, column, value in identities)
        return cls(key, ((owner, digest) for owner, digest in found if digest is not None))

    def __len__(self) -> int:
        return len(self._owners)

    def match(self, values: Iterable[bytes | str], column: str = "") -> bool:
        """Whether one of the values is a decoy's; see ``owners``."""
        return bool(self.owners(values, column))

    def owners(self, values: Iterable[bytes | str], column: str = "") -> frozenset[str]:
        """Return the recipients whose decoys the values identify; mostly nobody.

        ``values`` are constants or parameters: str as text, bytes as the wire has them, in text or
        binary form (int2, int4, int8, uuid, text, and arrays of these). ``column`` is the
        bare name of the column that they are compared with, empty when that is not known.
        """
        known, key = self._owners, self._key
        if not known:
            return _NOBODY
        found = _NOBODY
        get = known.get
        for value in values:
            for form in _forms(value):
                text = canonical(form)
                owners = None
                if len(text) > _SHORT_DIGITS or not text.isdigit():
                    owners = get(sha256(key + text).digest()[:DIGEST_BYTES])
                elif column:
                    owners = get(_of_column(key, column, text))
                if owners is not None:
                    found |= owners
        return found


def beacon(key: bytes, column: str, value: str) -> bytes | None:
    """Return the digest by which a decoy's value is known, None when it identifies nobody."""
    text = canonical(value.encode())
    if _WHOLE.fullmatch(text):
        if len(text) <= _SHORT_DIGITS:
            return _of_column(key, column, text) if text.isdigit() else None
    elif len(text) < 6 or not _TELLING.search(text) or _COMMON.match(text):
        return None
    return sha256(key + text).digest()[:DIGEST_BYTES]


_WHOLE: Final = re.compile(rb"-?[0-9]+")
_TELLING: Final = re.compile(rb"[0-9@]")
_COMMON: Final = re.compile(
    rb"[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}([^0-9].*)?$|-?[0-9]*[.,][0-9]+$", re.DOTALL
)


def canonical(value: bytes) -> bytes:
    """Return the form in which values are compared; the database computes the same."""
    text = value.strip().lower()
    if text[:1] in b"-0" and _WHOLE.fullmatch(text):
        sign, digits = (b"-", text[1:]) if text[:1] == b"-" else (b"", text)
        return sign + (digits.lstrip(b"0") or b"0")
    return text


def _of_column(key: bytes, column: str, text: bytes) -> bytes:
    return sha256(key + column.encode() + b"\0" + text).digest()[:DIGEST_BYTES]


def _forms(value: bytes | str) -> Iterable[bytes]:
    if isinstance(value, str):
        text = value.encode("utf-8", "backslashreplace")
        return _listed(text) if text[:1] == b"{" else (text,)
    if value[:1] == b"{":
        return _listed(value)
    if len(value) in _WIDTHS or len(value) >= 16:
        return _binary(value)
    return (value,)


def _binary(value: bytes) -> Iterator[bytes]:
    """The forms of a binary parameter, whose type is not known."""
    yield value
    size = len(value)
    if size in _WIDTHS:
        # four letters are no number: some number of nine digits would soon be a decoy's
        if size == 2 or value[0] < 0x20 or not _WORD.fullmatch(value):
            yield b"%d" % int.from_bytes(value, "big", signed=True)
    elif size == 16:
        yield _uuid(value)
    elif size > 20 and value[:2] == b"\0\0":
        yield from _elements(value)


def _uuid(value: bytes) -> bytes:
    h = value.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}".encode()


def _listed(value: bytes) -> Iterator[bytes]:
    """The elements of an array as text; quotes and commas inside elements are not looked at."""
    for element in value.strip(b"{}").split(b",", _MOST_ELEMENTS)[:_MOST_ELEMENTS]:
        yield element.strip(b' "')


def _elements(value: bytes) -> Iterator[bytes]:
    """The elements of a one-dimensional array in binary form, each in the forms it may have."""
    if int.from_bytes(value[:4], "big") != 1:
        return
    at = 20
    for _ in range(min(int.from_bytes(value[12:16], "big"), _MOST_ELEMENTS)):
        size = int.from_bytes(value[at : at + 4], "big", signed=True)
        at += 4
        if size > 0:
            element = value[at : at + size]
            at += size
            yield from _binary(element) if size <= 16 else (element,)


_COMPARED: Final = re.compile(
    r"""(?:\b([a-z_][\w$]*)|"((?:[^"]|"")+)")\s*
        (?:=\s*(?:any\s*\(\s*)?|in\s*\(\s*)
        ((?:\$[0-9]+\s*,?\s*)+)""",
    re.IGNORECASE | re.VERBOSE,
)


def comparisons(normalised: str) -> tuple[tuple[str, int], ...]:
    """Return which columns a normalised statement compares with which of its ``$n``.

    ``c = $1``, ``c IN ($1, $2)`` and ``c = ANY ($1)`` are seen, whatever else the statement is.
    What is not seen is not matched with integers that are known by their column only.
    """
    found = []
    for match in _COMPARED.finditer(normalised):
        plain, quoted, parameters = match.groups()
        name = quoted.replace('""', '"') if quoted else plain.lower()
        found += [(name, int(number)) for number in re.findall(r"\$([0-9]+)", parameters)]
    return tuple(found)
