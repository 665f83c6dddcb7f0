"""Signing keys on disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pgbalise.errors import InvalidKey
from pgbalise.registry.signing import (
    generate_signing_key,
    public_file,
    read_public_key,
    read_signing_key,
)


def test_a_key_pair_is_written_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.key"
    public = generate_signing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_public_key(public_file(path)) == public
    assert len(read_signing_key(path)) == 32
    before = path.read_bytes()
    with pytest.raises(InvalidKey, match="cannot be made"):
        generate_signing_key(path)
    public_file(path).unlink()
    with pytest.raises(InvalidKey, match="cannot be made"):
        generate_signing_key(path)
    assert path.read_bytes() == before


def test_other_programs_read_the_public_key(tmp_path: Path) -> None:
    generate_signing_key(tmp_path / "k")
    command = ["openssl", "pkey", "-pubin", "-in", tmp_path / "k.pub", "-noout", "-text"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ED25519" in done.stdout.upper()


def test_a_key_that_others_can_read_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k"
    generate_signing_key(path)
    path.chmod(0o640)
    with pytest.raises(InvalidKey, match="chmod 600"):
        read_signing_key(path)
    path.chmod(0o600)
    for wrong in ("", "00" * 32 + "\n", public_file(path).read_text()):
        other = tmp_path / "other"
        other.write_text(wrong)
        other.chmod(0o600)
        with pytest.raises(InvalidKey, match="no Ed25519 private key"):
            read_signing_key(other)
    with pytest.raises(InvalidKey, match="no public key"):
        read_public_key(path)
    rsa = ["openssl", "genpkey", "-algorithm", "X25519", "-out", str(tmp_path / "x")]
    subprocess.run(rsa, check=True, capture_output=True)
    (tmp_path / "x").chmod(0o600)
    with pytest.raises(InvalidKey, match="no Ed25519"):
        read_signing_key(tmp_path / "x")
    with pytest.raises(InvalidKey, match="ledger keygen"):
        read_signing_key(tmp_path / "nothing")
    with pytest.raises(InvalidKey, match="ledger keygen"):
        read_public_key(tmp_path / "nothing.pub")
