"""The exchange's protocol, version 1: digests of traits, prefixes, answers of one size, seals.

A trait (:mod:`pgbalise.decoys.traits`) is hashed with scrypt (RFC 7914; N = 2^14, r = 8, p = 1:
16 MiB of memory, some 45 ms of one core in 2026) under the region's public salt, over

    "pgbalise exchange 1" LF kind ":" value      (UTF-8)

into 64 bytes. The first 32 are the *digest*, by which the server knows the trait; the other 32 are
the *seal key*, which only those have who know the value. A digest's first bits are its *prefix*,
written with the digits 0 and 1; bytes 2 to 17 are its *tag*, what a range answer shows of it.
The other 14 bytes stay between those who know the value and the server, so who downloads every
answer can neither publish nor report what it found there.

The *seal* is the owner's name, padded, under AES-SIV (RFC 5297: deterministic, misuse resistant)
with the seal key and the digest as associated data. Who does not know the value cannot tell a seal
from random bytes, and so neither whose a beacon is nor a beacon from padding.

An *entry* is tag and seal. A range answer has a multiple of ``ANSWER`` entries, sorted; what
beacons do not fill is padding, the same bytes whenever the same prefix is asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.traits import Trait, TraitKind
from pgbalise.errors import InvalidInput

VERSION: Final = 1

SALT_BYTES: Final = 16
DIGEST_BYTES: Final = 32
REFERENCE_BYTES: Final = 16
NAME_BYTES: Final = 48
"""An establishment's name, in UTF-8, at most."""
TAG_BYTES: Final = 16
SEAL_BYTES: Final = NAME_BYTES + 16
ENTRY_BYTES: Final = TAG_BYTES + SEAL_BYTES

LEAST_BITS: Final = 4
MOST_BITS: Final = 16
"""A client never shows more of a digest, whatever a server asks for."""
FILL: Final = 256
"""Beacons of one prefix, on average, at most; then prefixes become a bit longer."""
ANSWER: Final = 512
"""Entries of one range answer. A prefix with more beacons than this (a Poisson variable of mean 256
exceeds 512 with probability below 10^-40) has twice, three times as many."""

LEAST_LOOKUPS: Final = 32
"""A check asks for at least so many prefixes; those that no trait needs are random."""

BIRTH_DAYS: Final = 18 * 365.25
"""Among how many days a birth date is guessed, at least: those of a hospital for children."""

LEAST_SPACE: Final = 1e7
"""A trait drawn among fewer values is not published: others hold it by chance, and it is soon
guessed."""

EXCHANGED: Final = (
    TraitKind.NIR,
    TraitKind.PERSON,
    TraitKind.MAIL,
    TraitKind.PHONE,
    TraitKind.RPPS,
)
"""A record number means nothing beyond its establishment: elsewhere it is a patient's."""

_PERSONAL: Final = f"pgbalise exchange {VERSION}\n".encode()
_N: Final = 2**14
_R: Final = 8
_P: Final = 1
_PREFIX: Final = re.compile(f"[01]{{{LEAST_BITS},{MOST_BITS}}}")

_TOKEN: Final = re.compile("pgbx_[0-9A-Za-z_-]{43}")


@dataclass(frozen=True)
class Hashed:
    """A trait as the exchange knows it: ``digest`` and ``seal_key`` of 32 bytes each."""

    digest: bytes
    seal_key: bytes

    @property
    def tag(self) -> bytes:
        """What a range answer shows of it, 16 bytes."""
        return tag_of(self.digest)


def hash_trait(trait: Trait, salt: bytes) -> Hashed:
    """Hash a trait under a region's salt (16 bytes): some 45 ms and 16 MiB; frees the GIL."""
    made = hashlib.scrypt(
        _PERSONAL + f"{trait.kind.value}:{trait.value}".encode("utf-8", "backslashreplace"),
        salt=salt,
        n=_N,
        r=_R,
        p=_P,
        maxmem=2 * 128 * _N * _R,
        dklen=2 * DIGEST_BYTES,
    )
    return Hashed(made[:DIGEST_BYTES], made[DIGEST_BYTES:])


def tag_of(digest: bytes) -> bytes:
    """Return what a range answer shows of a digest, 16 bytes."""
    return digest[2 : 2 + TAG_BYTES]


def prefix_of(digest: bytes, bits: int) -> str:
    """Return the first bits of a digest as digits 0 and 1."""
    return f"{int.from_bytes(digest[:2], 'big'):016b}"[:bits]


def check_prefix(text: str) -> str:
    """Return the text when it is a prefix, 4 to 16 digits 0 and 1; raise InvalidInput."""
    if not _PREFIX.fullmatch(text):
        raise InvalidInput(f"a prefix is {LEAST_BITS} to {MOST_BITS} digits 0 and 1")
    return text


def bounds(prefix: str) -> tuple[bytes, bytes | None]:
    """Return the least digest of a prefix, and that after its last one (None: there is none)."""
    low = int(prefix, 2) << (16 - len(prefix))
    high = low + (1 << (16 - len(prefix)))
    rest = bytes(DIGEST_BYTES - 2)
    return (
        low.to_bytes(2, "big") + rest,
        high.to_bytes(2, "big") + rest if high < 1 << 16 else None,
    )


def bits_for(beacons: int) -> int:
    """Return how long prefixes are in a region of so many beacons, 4 to 16 bits."""
    bits = LEAST_BITS
    while bits < MOST_BITS and beacons > FILL << bits:
        bits += 1
    return bits


def check_name(name: str) -> str:
    """Return an establishment's name; raise InvalidInput unless it is printable and fits a seal."""
    if not name or name != name.strip() or not name.isprintable():
        raise InvalidInput("a name is printable text without spaces at its ends")
    if len(name.encode("utf-8", "replace")) > NAME_BYTES:
        raise InvalidInput(f"a name has at most {NAME_BYTES} bytes in UTF-8")
    return name


def seal(hashed: Hashed, name: str) -> bytes:
    """Return the owner's name under the trait's seal key, 64 bytes."""
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    plain = check_name(name).encode().ljust(NAME_BYTES, b"\0")
    return AESSIV(hashed.seal_key).encrypt(plain, [_PERSONAL, hashed.digest])


def unseal(hashed: Hashed, sealed: bytes) -> str | None:
    """Return the name in a seal, None when it is not one of this trait."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    try:
        plain = AESSIV(hashed.seal_key).decrypt(sealed, [_PERSONAL, hashed.digest])
        return check_name(plain.rstrip(b"\0").decode())
    except (InvalidTag, InvalidInput, ValueError):
        return None


def answer(prefix: str, beacons: Collection[tuple[bytes, bytes]], secret: bytes) -> list[bytes]:
    """Return the entries of a range answer, sorted: the beacons' and padding.

    ``beacons`` are digests and seals; ``secret`` is the server's own, at least 16 bytes, from which
    the padding of this prefix follows.
    """
    real = [tag_of(digest) + sealed for digest, sealed in beacons]
    size = max(-(-len(real) // ANSWER), 1) * ANSWER
    # the padding of a longer answer begins as that of a shorter one does
    stream = hashlib.shake_256(b"%d:%s%s" % (len(secret), secret, prefix.encode())).digest(
        ENTRY_BYTES * (size - len(real))
    )
    padding = (stream[at : at + ENTRY_BYTES] for at in range(0, len(stream), ENTRY_BYTES))
    return sorted([*real, *padding])


def owners(hashed: Hashed, entries: Iterable[bytes]) -> list[str]:
    """Return whose decoy has this trait, by a range answer of its prefix; sorted, mostly empty."""
    found = set()
    for entry in entries:
        if entry[:TAG_BYTES] == hashed.tag:
            name = unseal(hashed, entry[TAG_BYTES:])
            if name is not None:
                found.add(name)
    return sorted(found)


def lookups(needed: Collection[str], bits: int, noise: Iterator[int]) -> list[str]:
    """Return the prefixes to ask for, in random order: those needed and random ones.

    ``noise`` gives random non-negative integers below 2^64. There are at least ``LEAST_LOOKUPS``,
    or all that exist.
    """
    wanted = set(needed)
    least = min(LEAST_LOOKUPS, 1 << bits)
    while len(wanted) < least:
        wanted.add(f"{next(noise) % (1 << bits):0{bits}b}")
    order = sorted(wanted)
    return [text for _, text in sorted((next(noise), text) for text in order)]


def chosen(decoys: Iterable[IssuedDecoy], percent: int) -> list[IssuedDecoy]:
    """Return about so many percent of the decoys: of the same book always the same ones.

    Those of a smaller percentage are among those of a larger one. What decides is a decoy's
    numbers and time, which nobody else knows.
    """
    return [decoy for decoy in decoys if int(_reference(decoy, -1)[:8], 16) * 100 < percent << 32]


def published_traits(decoy: IssuedDecoy) -> list[tuple[str, Trait]]:
    """Return the traits of a decoy that are exchanged, each with its reference.

    Left out are kinds that mean nothing elsewhere, and those drawn among fewer than ``LEAST_SPACE``
    values. A reference is 32 hexadecimal digits, the establishment's own name of the beacon: it
    depends on the decoy's numbers and time, not on its identity.
    """
    found = []
    for place, trait in enumerate(decoy.traits):
        if trait.kind in EXCHANGED and _space(decoy, trait.kind) >= LEAST_SPACE:
            found.append((_reference(decoy, place), trait))
    return found


def _space(decoy: IssuedDecoy, kind: TraitKind) -> float:
    """Return among how many values a trait is guessed by who knows how it was drawn.

    A decoy's own space counts what was drawn for it. Its birth date was drawn with its clinical
    values and counts nothing there; who guesses names and a birth date must guess both.
    """
    drawn = decoy.spaces.get(kind, 0.0)
    return drawn * BIRTH_DAYS if kind is TraitKind.PERSON else drawn


def _reference(decoy: IssuedDecoy, place: int) -> str:
    parts: Sequence[object] = (
        decoy.decoy_id,
        decoy.recipient,
        decoy.number,
        decoy.issued_at.timestamp(),
        place,
    )
    return hashlib.sha256(json.dumps(parts).encode()).digest()[:REFERENCE_BYTES].hex()


def token_text(secret: bytes) -> str:
    """Return the token that 32 random bytes make, 48 characters."""
    from base64 import urlsafe_b64encode

    assert len(secret) == 32
    return "pgbx_" + urlsafe_b64encode(secret).decode().rstrip("=")


def token_digest(token: str) -> bytes | None:
    """Return what the server keeps of a token, None when the text is no token.

    SHA-256 is enough: a token is 256 random bits, so there is nothing to guess.
    """
    if not _TOKEN.fullmatch(token):
        return None
    return hashlib.sha256(b"pgbalise exchange token\n" + token.encode()).digest()
