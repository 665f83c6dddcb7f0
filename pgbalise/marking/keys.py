"""The master key and what is derived from it.

Subkeys follow HKDF with SHA-256 (RFC 5869) and an empty salt: the master key is uniformly random.
"""

from __future__ import annotations

import hashlib
import hmac

from pgbalise.errors import InvalidKey

MASTER_KEY_BYTES = 32
_DOMAIN = b"pgbalise/1"


def frame(*fields: str | int | bytes) -> bytes:
    """Join fields so that different sequences never give the same bytes.

    Each field is preceded by its length as 4 bytes, big-endian; text is UTF-8, integers are
    8 bytes, big-endian, signed.
    """
    out = bytearray()
    for field in fields:
        if isinstance(field, str):
            raw = field.encode()
        elif isinstance(field, int):
            raw = field.to_bytes(8, "big", signed=True)
        else:
            raw = field
        out += len(raw).to_bytes(4, "big") + raw
    return bytes(out)


def hkdf_sha256(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 with an empty salt (RFC 5869): ``length`` bytes, at most 8,160."""
    return _expand(_extract(key), info, length)


def _extract(key: bytes) -> bytes:
    return hmac.digest(b"\0" * 32, key, "sha256")


def _expand(prk: bytes, info: bytes, length: int) -> bytes:
    if not 0 < length <= 255 * 32:
        raise ValueError("HKDF-SHA256 gives between 1 and 8160 bytes")
    block, out, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(prk, block + info + bytes([counter]), "sha256")
        out += block
        counter += 1
    return out[:length]


class MasterKey:
    """The auditor's 32 secret bytes. Its text form never shows them."""

    __slots__ = ("_prk",)

    def __init__(self, secret: bytes) -> None:
        """Raise InvalidKey unless ``secret`` has 32 bytes."""
        if len(secret) != MASTER_KEY_BYTES:
            raise InvalidKey(f"a master key has {MASTER_KEY_BYTES} bytes, this one {len(secret)}")
        self._prk = _extract(secret)

    def derive(self, purpose: str, *context: str | int | bytes, length: int = 32) -> bytes:
        """Return the subkey of ``length`` bytes for a purpose and its context (HKDF-SHA256)."""
        return _expand(self._prk, frame(_DOMAIN, purpose, *context), length)

    def stream(self, purpose: str, *context: str | int | bytes, length: int) -> bytes:
        """Return ``length`` pseudo-random bytes, however many: SHAKE-128 (FIPS 202) of a subkey."""
        return hashlib.shake_128(self.derive(purpose, *context)).digest(length)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name this key without telling anything about it."""
        return self.derive("fingerprint", length=8).hex()

    def __repr__(self) -> str:
        return f"MasterKey({self.fingerprint()})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a master key is not to be pickled")
