"""The key file, as it lies on this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from pgbalise.doctor.findings import Finding, Severity
from pgbalise.errors import InvalidKey
from pgbalise.keyfile import read_key

if TYPE_CHECKING:
    from pgbalise.doctor.scene import Scene
    from pgbalise.session import Session


def key_file(session: Session, scene: Scene, path: Path) -> Iterator[Finding]:
    """D47: who can read or exchange the master key; whether it is the one in force."""

    def finding(severity: Severity, text: str, command: str = "") -> Finding:
        return Finding("D47", severity, "", str(path), f"key file {path} {text}", command=command)

    try:
        link = path.lstat()
        state = path.stat()
    except OSError as problem:
        yield finding(Severity.WARNING, f"cannot be looked at: {problem.strerror}")
        return
    if not stat.S_ISREG(state.st_mode):
        yield finding(Severity.WARNING, "is not an ordinary file")
        return
    if stat.S_ISLNK(link.st_mode):
        yield finding(Severity.NOTICE, f"is a link to {path.resolve()}")
    if state.st_mode & 0o077:
        text = f"is of mode {stat.S_IMODE(state.st_mode):04o}: others can read or change it"
        yield finding(Severity.CRITICAL, text, f"chmod 600 {quote(str(path))}")
    if state.st_uid != os.geteuid():
        text = f"belongs to user {state.st_uid}, not to who runs this"
        yield finding(Severity.WARNING, text, f"chown {os.geteuid()} {quote(str(path))}")
    if state.st_nlink > 1:
        yield finding(Severity.WARNING, f"has {state.st_nlink} names: it lies elsewhere too")
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if mode & 0o022 and not mode & stat.S_ISVTX:
            text = f"can be exchanged: others may write to {folder}"
            yield finding(Severity.WARNING, text, f"chmod go-w {quote(str(folder))}")
    # over a Unix socket there is no address
    if session.fetch(
        "SELECT coalesce(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', true)"
    ) == [(True,)]:
        yield finding(Severity.NOTICE, "lies on the database server's machine: keep it elsewhere")
    rows = session.fetch(
        "SELECT epoch, key_fingerprint FROM balise.epoch ORDER BY epoch DESC LIMIT 1"
    )
    try:
        fingerprint = read_key(path).fingerprint()
    except InvalidKey as problem:
        if not state.st_mode & 0o077:
            yield finding(Severity.WARNING, f"holds no key: {problem.message}")
        scene.not_checked.append(f"whether {path} holds the key in force: it could not be read")
        return
    if not rows or rows[0][1] is None:
        scene.not_checked.append(f"whether {path} holds the key in force: no fingerprint is known")
    elif rows[0][1] != fingerprint:
        text = f"holds key {fingerprint}, but epoch {rows[0][0]} marks with {rows[0][1]}"
        yield finding(Severity.WARNING, text)
