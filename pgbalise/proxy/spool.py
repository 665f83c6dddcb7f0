"""The proxy's own record of what leaves, on this machine's disk before the first row leaves.

Each process appends JSON lines to a file of its own, ``<UTC>-<process>-<random>.jsonl``, and holds
a lock on it (flock) for as long as it lives. A full file is left behind for the next one. The
last two parts of the name are the *owner*: all files of one Spool share them, so what began in
one file may end in another. A file is never written to again after a write failed: whatever the
failure left at its end is the end of that file, and nothing is ever glued to it.

backlog.py reads these files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import queue
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pgbalise.errors import SpoolProblem

LARGEST_LINE = 4 * 2**20
"""Bytes of one record, at most."""

LARGEST_STATEMENT = 2**16
"""Characters of a record's ``statement`` that are kept; a longer one ends with an ellipsis."""

SUFFIX = ".jsonl"

_SMALLEST_FILE, _LARGEST_FILE = 2**16, 64 * 2**20
_FILES = 256
"""Files that fill a directory: those still written to must not be all of it."""

_BATCH = 4 * 2**20
"""Bytes written at once, about."""

_AGAIN = 1.0
"""Seconds between two looks at what a directory holds, and between two tries to recover."""

_KEPT = 64 * 2**20
"""Bytes of records kept in memory while they cannot be written."""

Durable = Callable[[SpoolProblem | None], None]


@dataclass(frozen=True, slots=True)
class _Item:
    line: bytes
    type: object
    durable: Durable | None


def check_directory(directory: Path) -> None:
    """Raise SpoolProblem unless the directory is ours and closed to everybody else."""
    try:
        found = directory.lstat()
    except OSError as problem:
        raise SpoolProblem(
            f"{directory}: the spool cannot be opened: {problem.strerror}",
            hint="make the directory, mode 0700, for the user that runs the proxy",
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        raise SpoolProblem(f"{directory}: the spool is not a directory")
    if found.st_uid != os.geteuid():
        raise SpoolProblem(
            f"{directory}: the spool belongs to another user", hint="run this as its owner"
        )
    if found.st_mode & 0o077:
        raise SpoolProblem(f"{directory}: the spool is open to others", hint="chmod 0700")


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable; raise OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Spool:
    """A process's writer of records; start it after the last fork.

    ``min_free_bytes`` of the file system are left to others, and the directory as a whole may grow
    to about ``max_bytes``. Beyond either, intents are refused and progress is left out, while
    outcomes are still written: what is under way can end and be told. ``file_bytes``, after which
    a new file is begun, follows from ``max_bytes`` by default.
    """

    def __init__(
        self,
        directory: Path,
        *,
        min_free_bytes: int,
        max_bytes: int,
        file_bytes: int | None = None,
    ) -> None:
        self._directory = directory
        self._min_free = min_free_bytes
        self._max = max_bytes
        fitting = min(max(max_bytes // _FILES, _SMALLEST_FILE), _LARGEST_FILE)
        self._file_bytes = file_bytes or fitting
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._problem: SpoolProblem | None = None
        self._broken = False
        self._kept: list[_Item] = []
        self._asked: list[_Item] = []
        self._owner = ""
        self._path: Path | None = None
        self._file = -1
        self._size = 0
        self._used = 0
        self._looked = -_AGAIN

    @property
    def problem(self) -> SpoolProblem | None:
        """Why intents cannot be kept now, None when they can; cheap. It clears by itself."""
        return self._problem

    def start(self) -> None:
        """Open this process's file and start the thread that writes.

        Raise SpoolProblem when the directory is not one for a spool. When it only is full, start,
        with ``problem`` saying so.
        """
        check_directory(self._directory)
        self._owner = f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            self._open()
        except OSError as problem:
            self._fail(problem)
        else:
            self._problem = self._shortage()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def append(self, record: Mapping[str, object], durable: Durable | None = None) -> None:
        """Queue a record for the disk; never blocks.

        ``durable`` is called once, from the writer's thread: with None when the record is on
        the disk, with the problem when it is not kept (a reader may still have seen it). A
        record without it that cannot be written is kept in memory and tried again.
        """
        line = _line(record)
        if len(line) > LARGEST_LINE:
            _tell(durable, SpoolProblem("a record is too long for the spool"))
        elif self._thread is None or self._closing.is_set():
            _tell(durable, SpoolProblem("the spool is not open"))
        else:
            self._queue.put(_Item(line, record.get("type"), durable))

    def close(self) -> None:
        """Write what is queued, make it durable, give up the file; harmless when repeated.

        The thread that appends closes. What could not be written is lost, and ``problem`` says why.
        """
        if self._thread is None:
            return
        self._closing.set()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            # a thread that died of a fault must not leave anybody waiting for it
            problem = SpoolProblem("the spool is not open")
            if not self._closing.is_set():
                self._problem = problem
                self._closing.set()
            self._answer(problem)
            with contextlib.suppress(queue.Empty):
                while True:
                    item = self._queue.get_nowait()
                    if item is not None:
                        _tell(item.durable, problem)
            self._leave()

    def _turn(self) -> bool:
        """Write what waits; return whether there may be more."""
        batch, more = self._take()
        shortage = self._shortage()
        if shortage is not None:
            self._problem = shortage
            batch = _essential(batch, shortage)
        self._asked = batch
        items = [*self._kept, *batch]
        # an empty line, which readers pass over, shows whether the disk works again
        lines = [item.line for item in items] or ([b"\n"] if self._broken else [])
        try:
            if lines:
                self._write(b"".join(lines))
        except OSError as problem:
            self._fail(problem)
            self._kept = _kept(items)
            self._answer(self._problem)
            return more
        self._kept, self._broken, self._problem = [], False, shortage
        self._answer(None)
        return more

    def _answer(self, problem: SpoolProblem | None) -> None:
        asked, self._asked = self._asked, []
        for item in asked:
            _tell(item.durable, problem)

    def _take(self) -> tuple[list[_Item], bool]:
        """Wait for something to do; return it, and False when nothing will follow."""
        batch: list[_Item] = []
        size = 0
        with contextlib.suppress(queue.Empty):
            item = self._queue.get(timeout=_AGAIN if self._problem else None)
            while item is not None:
                batch.append(item)
                size += len(item.line)
                if size >= _BATCH:
                    return batch, True
                item = self._queue.get_nowait()
            return batch, False
        return batch, True

    def _shortage(self) -> SpoolProblem | None:
        now = time.monotonic()
        try:
            if now - self._looked >= _AGAIN:
                self._looked = now
                self._used = directory_bytes(self._directory)
            space = os.statvfs(self._directory)
        except OSError as problem:
            return _unwritable(self._directory, problem)
        if space.f_bavail * space.f_frsize < self._min_free:
            return SpoolProblem(
                f"{self._directory}: less than {self._min_free:,} bytes are free",
                hint="make room on the spool's file system",
            )
        if self._used >= self._max:
            return SpoolProblem(
                f"{self._directory}: the spool has grown to its limit of {self._max:,} bytes",
                hint="is the registry reachable? see pgbalise ledger deliver",
            )
        return None

    def _write(self, data: bytes) -> None:
        if self._broken or self._size >= self._file_bytes:
            self._open()
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        os.fdatasync(self._file)
        if os.fstat(self._file).st_nlink == 0:
            # a file without a name takes all that is written, and keeps nothing
            raise FileNotFoundError(errno.ENOENT, "somebody removed its file")
        self._size += len(data)
        self._used += len(data)

    def _open(self) -> None:
        """Begin a file, then leave the one before; raise OSError and stay with that one."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        path = self._directory / f"{stamp}-{self._owner}{SUFFIX}"
        # it gets its name once it is locked: no reader ever takes it for a dead process's
        hidden = path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(hidden, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden.rename(path)
            sync_directory(self._directory)
        except OSError:
            os.close(file)
            for each in (hidden, path):
                with contextlib.suppress(OSError):
                    each.unlink()
            raise
        self._leave()
        self._path, self._file, self._size = path, file, 0

    def _leave(self) -> None:
        if self._path is None:
            return
        if self._size == 0:
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self._file)
        self._path, self._file = None, -1

    def _fail(self, problem: OSError) -> None:
        """Take what a failed write left off the file, which is not written to again."""
        self._problem = _unwritable(self._directory, problem)
        self._broken = True
        if self._path is not None:
            # the lock stays until there is another file: without one we would seem dead
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)


def directory_bytes(directory: Path) -> int:
    """Return how many bytes the files of a directory have; raise OSError."""
    total = 0
    with os.scandir(directory) as found:
        for each in found:
            # another process may have just removed it
            with contextlib.suppress(FileNotFoundError):
                total += each.stat(follow_symlinks=False).st_size
    return total


def _line(record: Mapping[str, object]) -> bytes:
    statement = record.get("statement")
    if isinstance(statement, str) and len(statement) > LARGEST_STATEMENT:
        record = {**record, "statement": statement[: LARGEST_STATEMENT - 1] + "…"}
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # half a surrogate pair becomes JSON's own escape of it
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _tell(durable: Durable | None, problem: SpoolProblem | None) -> None:
    if durable is not None:
        # whoever asked may be gone, and the others still wait for their answer
        with contextlib.suppress(Exception):
            durable(problem)


def _essential(batch: Iterable[_Item], shortage: SpoolProblem) -> list[_Item]:
    """Refuse what would let more leave; return what is to be written all the same."""
    left = []
    for item in batch:
        if item.type == "intent" and item.durable is not None:
            _tell(item.durable, shortage)
        elif item.type != "progress" or item.durable is not None:
            left.append(item)
    return left


def _kept(items: Iterable[_Item]) -> list[_Item]:
    """Return what nobody was told about, as far as memory should hold it."""
    left, size = [], 0
    for item in items:
        if item.durable is None and item.type != "progress":
            size += len(item.line)
            if size <= _KEPT:
                left.append(item)
    return left


def _unwritable(directory: Path, problem: OSError) -> SpoolProblem:
    hint = None
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "make room on the spool's file system"
    return SpoolProblem(f"{directory}: the spool cannot be written: {problem.strerror}", hint=hint)
