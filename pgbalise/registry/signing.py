"""The ledger's signing key on disk: Ed25519 in PEM, private with mode 0600, public beside it."""

from __future__ import annotations

from pathlib import Path

from pgbalise.errors import InvalidKey
from pgbalise.keyfile import read_private, write_private

_HINT = "make one with pgbalise ledger keygen"


def public_file(path: Path) -> Path:
    """Return where the public key of a private key's file is: FILE.pub."""
    return path.with_name(path.name + ".pub")


def generate_signing_key(path: Path) -> bytes:
    """Write a fresh private key and FILE.pub, never over another; return the public key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public_path = public_file(path)
    if public_path.exists():
        raise InvalidKey(f"{public_path}: the key file cannot be made: File exists")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_private(path, private)
    try:
        public_path.write_bytes(public)
    except OSError as problem:
        raise InvalidKey(
            f"{public_path}: the key file cannot be made: {problem.strerror}"
        ) from None
    return key.public_key().public_bytes_raw()


def read_signing_key(path: Path) -> bytes:
    """Read a private key, 32 bytes; InvalidKey when it is missing, malformed or not private."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = read_private(path, _HINT)
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidKey(f"{path}: this is no Ed25519 private key in PEM", hint=_HINT)
    return key.private_bytes_raw()


def read_public_key(path: Path) -> bytes:
    """Read a public key, 32 bytes; InvalidKey when it is missing or malformed."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        text = path.read_bytes()
    except OSError as problem:
        raise InvalidKey(
            f"{path}: the public key cannot be read: {problem.strerror}", hint=_HINT
        ) from None
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidKey(f"{path}: this is no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidKey(f"{path}: this is no Ed25519 public key")
    return key.public_bytes_raw()
