"""What the proxy tells systemd about itself; without systemd nothing is said."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """The service manager's notification socket, as systemd's ``sd_notify`` describes it.

    ``environment`` is the process's own: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are read.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the null byte of an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = _watchdog_seconds(environment)
        """How often ``WATCHDOG=1`` is due, half of what systemd waits; None for never."""

    def send(self, *lines: str) -> None:
        """Send lines such as ``READY=1``; a service manager that does not listen is not missed."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as target:
            target.setblocking(False)
            target.sendto("\n".join(lines).encode(), self._address)

    def reloading(self) -> None:
        """Say that the configuration is being read anew; ``READY=1`` ends it."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    try:
        microseconds = int(environment["WATCHDOG_USEC"])
        meant = int(environment.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return microseconds / 2_000_000 if meant == os.getpid() and microseconds > 0 else None
