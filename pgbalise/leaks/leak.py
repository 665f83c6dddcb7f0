"""A leaked file as it was found: opened, identified, and closed again."""

from __future__ import annotations

import hashlib
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pgbalise.errors import EnvironmentProblem, InvalidLeak
from pgbalise.leaks.archives import Reading, printable
from pgbalise.leaks.encoding import raw_chunks
from pgbalise.leaks.table import LeakTable
from pgbalise.leaks.unpacking import MAX_UNPACKED, Budget

__all__ = ["Leak", "LeakTable", "open_leak"]


@dataclass(frozen=True)
class Leak:
    """A leaked file: what identifies it, and the tables in it."""

    name: str
    """The file's name, without its folder."""
    sha256: str
    """Of the file as given, in hexadecimal."""
    size: int
    """Bytes of the file as given."""
    tables: tuple[LeakTable, ...]
    """All that have rows, at least one."""
    skipped: tuple[str, ...] = ()
    """Of an archive: what in it was not read and why, a line each."""


@contextmanager
def open_leak(path: Path, *, max_unpacked: int = MAX_UNPACKED) -> Iterator[Leak]:
    """Find out what a file is, and give its tables until the context ends.

    ``max_unpacked``: how many bytes an archive may have when it is unpacked. Raise InvalidLeak,
    with one line that has nothing of the file's content, when the file is missing, no regular
    file, malformed or without rows; EnvironmentProblem when a library or room on the disk is
    missing.
    """
    name = printable(path.name)
    try:
        status = path.stat()
    except (OSError, ValueError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "no such file"
        raise InvalidLeak(f"{name}: {why}") from None
    if not stat.S_ISREG(status.st_mode):
        folder = stat.S_ISDIR(status.st_mode)
        hint = "give its files, or pack it with tar" if folder else "copy it to a file first"
        raise InvalidLeak(f"{name}: it is {'a folder' if folder else 'no file'}", hint=hint)
    try:
        digest = hashlib.sha256()
        for chunk in raw_chunks(path):
            digest.update(chunk)
    except OSError as problem:
        raise InvalidLeak(f"{name}: {problem.strerror}") from None
    with _folder() as folder_path:
        reading = Reading(folder_path, Budget(status.st_size, max_unpacked))
        try:
            tables = reading.tables(path, name)
        except (OSError, MemoryError):
            raise InvalidLeak(f"{name}: the file cannot be read") from None
        yield Leak(name, digest.hexdigest(), status.st_size, tuple(tables), tuple(reading.skipped))


@contextmanager
def _folder() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="pgbalise-leak-", ignore_cleanup_errors=True)
    except OSError:
        raise EnvironmentProblem(
            "there is no folder for temporary files", hint="set TMPDIR to one that can be written"
        ) from None
    with folder as path:
        yield Path(path)
