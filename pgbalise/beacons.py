"""Whether a statement asks for somebody who does not exist: constants against decoys' identities.

Only digests are kept, SHA-256 over a key of the process and the value's canonical form, so that a
process's memory does not list the decoys. SHA-256 because the database must be able to compute
them (``balise.decoy_digests``).

Canonical form: without spaces around it, ASCII letters small, integers without leading zeros. Known
wherever it stands is a text of at least six characters with a digit or an @ in it that looks
neither like a date nor like a decimal number, and an integer of nine digits or more. Shorter ones
are also the numbers of other things: they count only where a column of the decoy's name is
compared with them.

Traits of the decoys in the book (``pgbalise.decoys.traits``) are known in any spelling: a NIR with
or without its key, a telephone number with +33, names in any order and case where the statement has
the birth date too. Theirs are digests of another kind: neither is ever taken for the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from hashlib import sha256
from itertools import combinations
from typing import Final

from pgbalise.decoys.candidates import MONTHS, candidates
from pgbalise.decoys.traits import Trait, TraitKind, fold

DIGEST_BYTES: Final = 16

Named = tuple[str, int]
"""A recipient and the number of its decoy, 0 for one that is not in the book."""

_SHORT_DIGITS: Final = 8
_WIDTHS: Final = frozenset({2, 4, 8})
_MOST_ELEMENTS: Final = 10_000
_WORD: Final = re.compile(rb"[ -~]*")
_NOBODY: Final[frozenset[Named]] = frozenset()
_TRAIT: Final = b"\x01"
"""Before a trait: no value begins with it."""
_MOST_NAMES: Final = 8
_MOST_DATES: Final = 6
"""A statement with more of them is no look-up of one person."""
_MOST_WORDS: Final = 12


class Beacons:
    """The identities of all decoys of one database, as keyed digests.

    ``digests`` are recipient, number of the decoy (0: not known), and the digest of an identity or
    a trait of it.
    """

    def __init__(self, key: bytes, digests: Iterable[tuple[str, int, bytes]]) -> None:
        self._key = key
        decoys: dict[bytes, set[Named]] = {}
        for owner, number, digest in digests:
            decoys.setdefault(digest, set()).add((owner, number))
        # a decoy has several digests, so few sets are different
        shared: dict[frozenset[Named], frozenset[Named]] = {}
        self._decoys = {
            digest: shared.setdefault(frozenset(names), frozenset(names))
            for digest, names in decoys.items()
        }

    @classmethod
    def of(
        cls,
        key: bytes,
        identities: Iterable[tuple[str, str, str]],
        traits: Iterable[tuple[str, int, Trait]] = (),
    ) -> Beacons:
        """Return those of recipient, column name and value, and of recipient, number and trait.

        What does not identify anybody is left out.
        """
        values = ((owner, 0, beacon(key, column, value)) for owner, column, value in identities)
        known = ((owner, number, trait_beacon(key, trait)) for owner, number, trait in traits)
        found = (one for several in (values, known) for one in several)
        return cls(key, ((owner, n, digest) for owner, n, digest in found if digest is not None))

    def __len__(self) -> int:
        return len(self._decoys)

    def match(self, values: Iterable[bytes | str], column: str = "") -> bool:
        """Whether one of the values is a decoy's; see ``decoys``."""
        return bool(self.decoys(values, column))

    def owners(self, values: Iterable[bytes | str], column: str = "") -> frozenset[str]:
        """Return the recipients whose decoys the values identify; see ``decoys``."""
        return frozenset(owner for owner, _ in self.decoys(values, column))

    def decoys(self, values: Iterable[bytes | str], column: str = "") -> frozenset[Named]:
        """Return the decoys that the values identify, together or each by itself; mostly none.

        ``values`` are constants or parameters of one statement: str as text, bytes as the wire has
        them, in text or binary form (int2, int4, int8, uuid, date, text, and arrays of these).
        ``column`` is the bare name of the column that they are compared with, empty when that is
        not known; traits are looked for only then.
        """
        known, key = self._decoys, self._key
        if not known:
            return _NOBODY
        found = _NOBODY
        get = known.get
        names: list[bytes] = []
        dated: list[bytes] = []
        for value in values:
            for form in _forms(value):
                text = canonical(form)
                decoys = None
                if len(text) > _SHORT_DIGITS or not text.isdigit():
                    decoys = get(sha256(key + text).digest()[:DIGEST_BYTES])
                elif column:
                    decoys = get(_of_column(key, column, text))
                if decoys is not None:
                    found |= decoys
                if column:
                    continue
                if text.isdigit():
                    # of a number's zeros in front, canonical() leaves none
                    digits = form.strip()
                    if len(digits) > _SHORT_DIGITS:
                        found |= self._traits(_alone(digits))
                    elif len(digits) == _SHORT_DIGITS:
                        dated.append(digits)
                elif not _TELLING.search(text):
                    names.append(text)
                elif _WRITTEN.match(text):
                    found |= self._traits(_read(text))
                    if _DATED.search(text):
                        dated.append(text)
            if len(value) == 4 and isinstance(value, bytes) and value[0] in (0, 255):
                dated += _binary_date(value)
        # names may stand beside a date
        named = names or any(map(_SPACE.search, dated))
        if dated and named and len(names) <= _MOST_NAMES and len(dated) <= _MOST_DATES:
            found |= self._people(names, dated)
        return found

    def _traits(self, texts: Iterable[bytes]) -> frozenset[Named]:
        """Return whose numbers and addresses these are, in canonical form."""
        found = _NOBODY
        for text in texts:
            decoys = self._decoys.get(sha256(self._key + _TRAIT + text).digest()[:DIGEST_BYTES])
            if decoys is not None:
                found |= decoys
        return found

    def _people(self, names: Iterable[bytes], dated: Iterable[bytes]) -> frozenset[Named]:
        """Return who has all words of one or two of the names and one of the birth dates."""
        pieces = [fold(_decoded(name)).split() for name in names]
        born: set[str] = set()
        for text in dated:
            if _PLAIN_DATE.match(text):
                born.add(text[:10].decode())
                continue
            read = candidates(_decoded(text))
            if read.born:
                born |= read.born
                beside = [word for word in read.words if word.isalpha()]
                pieces += [beside, [word for word in beside if word not in MONTHS]]
        pieces = [piece for piece in pieces if 0 < len(piece) <= _MOST_WORDS]
        found = _NOBODY
        for group in (*((piece,) for piece in pieces), *combinations(pieces, 2)):
            words = " ".join(sorted(word for piece in group for word in piece))
            for day in born:
                found |= self._decoys.get(_of_trait(self._key, f"{day} {words}"), _NOBODY)
        return found


def trait_beacon(key: bytes, trait: Trait) -> bytes | None:
    """Return the digest by which a trait is known, None for a record number of a few digits."""
    if (
        trait.kind is TraitKind.RECORD
        and trait.value.isdigit()
        and len(trait.value) <= _SHORT_DIGITS
    ):
        return None
    return _of_trait(key, trait.value)


def _of_trait(key: bytes, value: str) -> bytes:
    return sha256(key + _TRAIT + value.encode()).digest()[:DIGEST_BYTES]


def _read(text: bytes) -> list[bytes]:
    """The numbers and addresses of a value, in canonical form."""
    if text.isalnum() and text.isascii():
        return _alone(text)
    if _PLAIN_DATE.match(text) or _UUID.match(text):
        return []
    if _SPACED.search(text):
        found = [one.encode() for one in candidates(_decoded(text)).texts]
    else:
        found = _alone(_NOT_WORD.sub(b"", text))
    return [one for one in found if len(one) > _SHORT_DIGITS or not one.isdigit()]


def _alone(text: bytes) -> list[bytes]:
    """What letters and digits may be by themselves; see ``candidates``."""
    large = text.upper()
    size = len(large)
    if size == 15 and _NIR.fullmatch(large):
        return [large, large[:13]]
    if 10 <= size <= 14 and large[0] in b"03" and _PHONE.fullmatch(large):
        return [large, b"+33" + large[-9:]]
    return [large]


_NIR: Final = re.compile(rb"[1-478][0-9]{4}(?:[0-9]{2}|2[AB])[0-9]{8}")
_PHONE: Final = re.compile(rb"(?:(?:00)?330?|0)[1-9][0-9]{8}")
_PLAIN_DATE: Final = re.compile(rb"[0-9]{4}-[01][0-9]-[0-3][0-9](?:$|[t ][0-9:.+z-]*$)")
_UUID: Final = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_SPACE: Final = re.compile(rb"\s")
_DATED: Final = re.compile(
    rb"[0-9][a-z]*[^0-9a-z]{1,3}(?:[0-9]{1,2}|[a-z\x80-\xff]{3,12})[^0-9a-z]{1,3}[0-9]"
)
_SPACED: Final = re.compile(rb"[\s@]|[^\x00-\x7f]")
_NOT_WORD: Final = re.compile(rb"[^0-9a-z]+")
_WRITTEN: Final = re.compile(rb"[^\x00-\x08]{5,400}$")
"""Not binary; a longer value is a document, which nobody is looked up by."""
_EPOCH: Final = date(2000, 1, 1)


def _binary_date(value: bytes) -> list[bytes]:
    """A date of 1900 to 2030, as PostgreSQL sends it: days since 2000; none for another number."""
    days = int.from_bytes(value, "big", signed=True)
    if not -36_525 < days < 11_323:
        return []
    return [(_EPOCH + timedelta(days)).isoformat().encode()]


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


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
