"""Decoys as lists: whole, as texts to search for, and as salted hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from pgbalise.decoys.issued import write_decoys
from pgbalise.decoys.traits import Trait
from pgbalise.detectors.export import Export, Files

SCRYPT_N: Final = 2**14
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
"""What RFC 7914 calls N, r and p: 16 MiB and about 50 ms for each value."""


def write_jsonl(export: Export) -> Files:
    """Return the decoys as ``decoys.issued.read_decoys`` reads them, with their recipients."""
    decoys = [target.decoy for target in export.targets]
    decoys.sort(key=lambda decoy: (decoy.recipient, decoy.number))
    return {"decoys.jsonl": write_decoys(decoys).encode()}


def write_list(export: Export) -> Files:
    """Return texts, one a line, sorted, without repeats: ``grep -F -i -w -f`` takes them."""
    texts = {spelling.text for target in export.targets for spelling in target.texts}
    return {"decoys.txt": "".join(f"{text}\n" for text in sorted(texts)).encode()}


def write_sha256(export: Export) -> Files:
    """Return ``kind:hash`` lines, hashes being SHA-256 of the salt and the trait's text."""
    return _hashed(export, "sha256", lambda trait: sha256_hash(export.salt, trait))


def write_scrypt(export: Export) -> Files:
    """Return ``kind:hash`` lines, hashes being scrypt's of the trait's text, 32 bytes."""
    method = f"scrypt N={SCRYPT_N} r={SCRYPT_R} p={SCRYPT_P}"
    return _hashed(export, method, lambda trait: scrypt_hash(export.salt, trait))


def sha256_hash(salt: bytes, trait: Trait) -> str:
    """Return a trait's salted hash, hexadecimal."""
    return hashlib.sha256(salt + trait.value.encode()).hexdigest()


def scrypt_hash(salt: bytes, trait: Trait) -> str:
    """Return a trait's salted hash that is slow to make, hexadecimal."""
    return hashlib.scrypt(
        trait.value.encode(), salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, dklen=32
    ).hex()


def _hashed(export: Export, method: str, digest: Callable[[Trait], str]) -> Files:
    head = [f"# pgbalise decoys 1, {method}, salt={export.salt.hex()}, made={export.made_on}"]
    if export.expires_on is not None:
        head[0] += f", expires={export.expires_on}"
    traits = {
        trait
        for target in export.targets
        for trait in target.decoy.traits
        if trait.kind in export.selection.kinds
    }
    lines = sorted(f"{trait.kind.value}:{digest(trait)}" for trait in traits)
    return {"decoys.hashes": "".join(f"{line}\n" for line in head + lines).encode("ascii")}
