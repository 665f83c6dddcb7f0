"""The master key on disk: 64 hexadecimal digits in a file that only its owner may read."""

from __future__ import annotations

import os
import secrets
import shlex
import stat
import subprocess
from pathlib import Path

from pgbalise.errors import InvalidKey
from pgbalise.marking.keys import MASTER_KEY_BYTES, MasterKey


def generate_key(path: Path) -> MasterKey:
    """Write a fresh master key to a new file of mode 0600; never overwrites one."""
    secret = secrets.token_bytes(MASTER_KEY_BYTES)
    write_private(path, secret.hex().encode() + b"\n")
    return MasterKey(secret)


def write_private(path: Path, content: bytes) -> None:
    """Write a secret to a new file of mode 0600; InvalidKey when there is one already."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as problem:
        raise InvalidKey(f"{path}: the key file cannot be made: {problem.strerror}") from None
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def read_key(path: Path) -> MasterKey:
    """Read a master key; raise InvalidKey when it is missing, malformed or readable by others."""
    return _parse(read_private(path, "make one with pgbalise key generate"), str(path))


def read_private(path: Path, hint: str) -> bytes:
    """Read a secret's file; raise InvalidKey when it is missing (with ``hint``) or not private."""
    try:
        # the check and the reading are of the same open file, so it cannot be exchanged in between
        # and a pipe that nobody writes to does not hold it up
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(handle, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4096) if stat.S_ISREG(mode) else b""
    except OSError as problem:
        raise InvalidKey(
            f"{path}: the key file cannot be read: {problem.strerror}",
            hint=hint,
        ) from None
    if not stat.S_ISREG(mode):
        raise InvalidKey(f"{path}: the key is not an ordinary file")
    if mode & 0o077:
        raise InvalidKey(f"{path}: the key file can be read by others", hint=f"chmod 600 {path}")
    return text


def key_from_command(command: str) -> MasterKey:
    """Run a command (no shell) and read the master key from what it prints."""
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, timeout=60, check=True)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        # the command's own words are not passed on: they might hold the key
        raise InvalidKey("the key command failed", hint="run it by hand to see why") from None
    return _parse(done.stdout, "the key command")


def _parse(text: bytes, where: str) -> MasterKey:
    try:
        secret = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        secret = b""
    if len(secret) != MASTER_KEY_BYTES:
        raise InvalidKey(f"{where}: a master key is {2 * MASTER_KEY_BYTES} hexadecimal digits")
    return MasterKey(secret)
