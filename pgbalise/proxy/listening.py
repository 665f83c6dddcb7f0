"""The sockets on which the proxy takes connections."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pgbalise.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgbalise.proxy.config import Address

_BACKLOG: Final = 1024


@contextmanager
def listen_unix(address: Address) -> Iterator[socket.socket]:
    """Listen on a Unix socket that everyone may connect to, as PostgreSQL's; removed afterwards.

    Raises EnvironmentProblem when that is not possible.
    """
    path = address.socket
    assert path is not None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as problem:
        listener.close()
        raise EnvironmentProblem(
            f"listen: cannot listen on {address}: {problem.strerror}"
        ) from None
    with listener:
        yield listener
    path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def check_free(address: Address) -> None:
    """Raise EnvironmentProblem unless nobody listens on an address, another proxy neither."""
    for listener in listen_tcp(address, shared=False):
        listener.close()


def listen_tcp(address: Address, *, shared: bool = True) -> list[socket.socket]:
    """Listen on every address of a host; several processes may, the kernel shares connections out.

    Unless ``shared``, no other may. Raises EnvironmentProblem when that is not possible.
    """
    opened: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, name in found:
            with _passed_over_if_missing(len(found) > 1):
                opened.append(_open_tcp(family, kind, protocol, name, shared))
        if not opened:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    except OSError as problem:
        for listener in opened:
            listener.close()
        raise EnvironmentProblem(
            f"listen: cannot listen on {address}: {problem.strerror}",
            hint="is another program using the port?"
            if problem.errno == errno.EADDRINUSE
            else "write an address of this machine",
        ) from None
    return opened


@contextmanager
def _passed_over_if_missing(allowed: bool) -> Iterator[None]:
    """Pass over an address of a name that this machine lacks, such as ::1 of localhost."""
    try:
        yield
    except OSError as problem:
        if not allowed or problem.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
            raise


def _open_tcp(
    family: int, kind: int, protocol: int, name: tuple[object, ...], shared: bool
) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(name)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
