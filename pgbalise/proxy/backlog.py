"""What a spool's files hold, for whoever takes the records further (spool.py writes them).

``offsets.json`` in the same directory says how far each file was delivered and observed, in bytes.
``open.json`` names the extracts still open when a file that told of them was deleted. What cannot
be read as a record is set aside in a file that ends in ``.damaged``, and kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pgbalise.errors import SpoolProblem
from pgbalise.proxy.spool import LARGEST_LINE, SUFFIX, check_directory, sync_directory

_OFFSETS, _OPEN, _LOCK = "offsets.json", "open.json", "courier.lock"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file: the offset after it and its record, None for one that is no record."""

    end: int
    record: Mapping[str, Any] | None
    raw: bytes

    @property
    def damaged(self) -> bool:
        """Whether there is something, and not a record."""
        return self.record is None and bool(self.raw.strip())


@dataclass(slots=True)
class Offset:
    """How far a file was delivered and observed, in bytes."""

    delivered: int = 0
    observed: int = 0


def owner(path: Path) -> str:
    """Return the part of a file's name that all files of one Spool share."""
    return path.name.removesuffix(SUFFIX).partition("-")[2]


def locked(path: Path) -> bool:
    """Whether a living process may still write to a file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def read_lines(path: Path, offset: int) -> Iterator[Line]:
    """Yield a file's complete lines from an offset; a line without its end is not there yet.

    A file that is gone has no lines. Raise OSError when it cannot be read.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        while raw := file.readline(LARGEST_LINE + 1):
            end = raw
            while not end.endswith(b"\n"):
                end = file.readline(LARGEST_LINE)
                if not end:
                    return
            at = file.tell()
            yield Line(at, _record(raw) if end is raw else None, raw)


def _record(raw: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(raw, parse_float=_refuse, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refuse(_: str) -> NoReturn:
    raise ValueError


@dataclass
class Backlog:
    """A directory's files and how far they were read; one reader at a time (``lock``).

    Raise SpoolProblem when the directory is not one for a spool.
    """

    directory: Path
    _offsets: dict[str, Offset] = field(default_factory=dict, init=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        check_directory(self.directory)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other readers away; raise SpoolProblem when there is one."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(self.directory / _LOCK, flags, 0o600)
        except OSError as problem:
            raise SpoolProblem(
                f"{self.directory}: the spool cannot be read: {problem.strerror}"
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpoolProblem(
                f"{self.directory}: somebody else is delivering this spool",
                hint="a running proxy delivers its own",
            ) from None
        else:
            with self._guard:
                self._offsets = _offsets(_loaded(self.directory / _OFFSETS))
            yield
        finally:
            os.close(file)

    def files(self) -> list[Path]:
        """Return the files with records, oldest first; raise OSError."""
        return sorted(path for path in self.directory.iterdir() if path.suffix == SUFFIX)

    def dead(self) -> set[str]:
        """Return the owners that will never write again; raise OSError."""
        files = self.files()
        found = {owner(path) for path in files}
        while True:
            found -= {owner(path) for path in files if locked(path)}
            # one that changed files while we looked locked the next before it left the last
            files, before = self.files(), files
            if not any(owner(path) in found for path in files if path not in before):
                return found

    def offset(self, path: Path) -> Offset:
        """Return how far a file was read: a copy."""
        with self._guard:
            found = self._offsets.get(path.name, Offset())
            return Offset(found.delivered, found.observed)

    def advance(self, *, delivered: Mapping[Path, int], observed: Mapping[Path, int]) -> None:
        """Remember how far files were read, also after a restart; raise OSError when it cannot.

        Then it is still remembered until then.
        """
        with self._guard:
            for path, end in delivered.items():
                self._offsets.setdefault(path.name, Offset()).delivered = end
            for path, end in observed.items():
                self._offsets.setdefault(path.name, Offset()).observed = end
            self._save()

    def delete(self, paths: list[Path], still_open: object) -> None:
        """Delete files that are delivered; raise OSError.

        ``still_open`` is what ``opened`` is to return after a restart.
        """
        _store(self.directory / _OPEN, still_open)
        for path in paths:
            path.unlink(missing_ok=True)
        sync_directory(self.directory)
        with self._guard:
            for path in paths:
                self._offsets.pop(path.name, None)
            self._save()

    def opened(self) -> dict[str, Any]:
        """Return what the last ``delete`` was given; empty when there is nothing to be read."""
        return _loaded(self.directory / _OPEN)

    def set_aside(self, path: Path, raw: bytes) -> None:
        """Keep what is no record, out of the way; raise OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path.with_suffix(".damaged"), flags, 0o600), "ab") as file:
            file.write(raw.rstrip(b"\n") + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def waiting(self) -> int:
        """Return how many bytes are not delivered; raise OSError."""
        total = 0
        for path in self.files():
            with contextlib.suppress(FileNotFoundError):
                total += max(path.stat().st_size - self.offset(path).delivered, 0)
        return total

    def oldest(self) -> str | None:
        """Return the time of the oldest record that is not delivered; raise OSError."""
        firsts = (
            next((line.record for line in lines if line.record is not None), None)
            for lines in (read_lines(path, self.offset(path).delivered) for path in self.files())
        )
        times = [first.get("at") for first in firsts if first is not None]
        return min((at for at in times if isinstance(at, str)), default=None)

    def _save(self) -> None:
        offsets = {
            name: [offset.delivered, offset.observed] for name, offset in self._offsets.items()
        }
        _store(self.directory / _OFFSETS, offsets)


def _offsets(stored: Mapping[str, Any]) -> dict[str, Offset]:
    found = {}
    for name, pair in stored.items():
        # without an offset a file is delivered again, and what is known is left out
        with contextlib.suppress(ValueError, TypeError):
            delivered, observed = map(int, pair)
            found[name] = Offset(delivered, observed)
    return found


def _loaded(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _store(path: Path, value: object) -> None:
    """Put a value where the one before was, whole or not at all; raise OSError."""
    fresh = path.with_suffix(".fresh")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
        file.write(json.dumps(value, separators=(",", ":")).encode())
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_directory(path.parent)
