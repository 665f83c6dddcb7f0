"""How much may be unpacked, and where it is written."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pgbalise.errors import EnvironmentProblem, InvalidLeak

MAX_UNPACKED: Final = 64 << 30
"""Bytes that a leak may take when it is unpacked, unless the caller says otherwise."""

_RATIO: Final = 400
"""How many times its own size a leak may be when it is unpacked. Tables of repeated values reach
a hundred; what reaches a thousand was made to fill a disk."""

_SMALL: Final = 64 << 20
"""Bytes that are not worth a suspicion."""


class Budget:
    """What may still be unpacked of one leak.

    ``size`` is the size of the file as given, in bytes, ``limit`` what it may take unpacked.
    """

    def __init__(self, size: int, limit: int = MAX_UNPACKED) -> None:
        self._limit = limit
        self._expected = max(_SMALL, size * _RATIO)
        self._spent = 0
        self._files = 0

    def file(self, folder: Path) -> Path:
        """Return a path in the folder that nothing has; names in archives are never used."""
        self._files += 1
        return folder / f"unpacked-{self._files}"

    def write(self, chunks: Iterator[bytes], target: Path, where: str) -> None:
        """Write a file, raising InvalidLeak once the leak has become too large.

        Raise EnvironmentProblem when the disk is full.
        """
        with target.open("xb") as file:
            for chunk in chunks:
                self.claim(len(chunk), where)
                try:
                    file.write(chunk)
                except OSError as problem:
                    if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    raise EnvironmentProblem(
                        "no room to unpack the leak", hint="set TMPDIR to a folder with more"
                    ) from None

    def claim(self, size: int, where: str) -> None:
        """Count bytes as unpacked, raising InvalidLeak once they are too many."""
        self._spent += size
        if self._spent > self._limit:
            raise InvalidLeak(
                f"{where}: more than {self._limit >> 20} MiB when it is unpacked",
                hint="unpack it yourself, and trace its files one by one",
            )
        if self._spent > self._expected:
            raise InvalidLeak(
                f"{where}: more than {_RATIO} times its size when it is unpacked",
                hint="if it is no bomb, unpack it yourself",
            )
