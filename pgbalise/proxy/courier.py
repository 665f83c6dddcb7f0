"""Takes a spool's records further: to whoever watches at once, to the registry when it answers.

Watching never waits for the registry. What the registry has not taken stays on the disk, so a day
without it costs no memory; what it has taken is deleted. The registry leaves out what it knows, so
a record that is delivered again, after a crash, is recorded once.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgbalise.errors import InvalidInput, PgbaliseError, SpoolProblem
from pgbalise.proxy.backlog import Backlog, Line, locked, owner, read_lines
from pgbalise.registry.extracts import OpenExtracts, draft
from pgbalise.registry.ledger import read_instant
from pgbalise.registry.store import append, open_registry, problems
from pgbalise.session import check_dsn

_ROUND = 1.0
"""Seconds between two looks at the files."""

_PATIENCE = 60.0
"""Seconds between two tries to reach the registry, at most."""

_FAREWELL = 15.0
"""Seconds that a registry gets to take the last records when the courier stops."""

_TRIES = 10
"""Times that records are shown to whoever observes before they are given up."""

_RECORDS, _BYTES = 1000, 8 * 2**20
"""What is held in memory, and delivered in one transaction, at most: whichever comes first."""

# a registry behind a network that swallows packets must not hold a delivery forever
_WAITS = {"connect_timeout": "10", "tcp_user_timeout": "60000"}

Record = Mapping[str, Any]
Observer = Callable[[Sequence[Record]], object]


@dataclass(slots=True)
class Delivered:
    """What came of a delivery: entries new in the ledger, and lines that were no records.

    ``unknown`` are the extracts whose process died before it could tell their outcome; their
    entries are among the others. ``files`` were done with and deleted.
    """

    entries: int = 0
    unknown: int = 0
    damaged: int = 0
    files: int = 0

    def since(self, before: Delivered) -> Delivered:
        """Return what was added to a total since."""
        return Delivered(
            self.entries - before.entries,
            self.unknown - before.unknown,
            self.damaged - before.damaged,
            self.files - before.files,
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """A courier's state for the metrics.

    ``delivered`` entries are new in the ledger, ``damaged`` lines were set aside, ``unobserved``
    records were given up because nobody could be shown them. ``oldest_seconds`` is the age of what
    waits longest for the registry. ``error`` is why the last delivery failed, ``observe_error``
    why the last observation did; None when they did not. Neither holds a secret.
    """

    delivered: int
    damaged: int
    unobserved: int
    waiting_bytes: int
    oldest_seconds: float
    error: str | None
    observe_error: str | None


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Courier:
    """The one reader of a spool's directory.

    ``registry`` is its connection string, None to leave the records where they are. ``observe``
    and ``alerts`` are called in the thread of ``run``, with records in the order of each file,
    ``alerts`` with those of type alert only. After a crash they may see records again. When
    they raise they see them again a second later, a few times. Raise SpoolProblem when the
    directory is not one for a spool, InvalidInput for a connection string that is none.
    """

    directory: Path
    registry: str | None = field(default=None, repr=False)
    observe: Observer | None = None
    alerts: Observer | None = None
    clock: Callable[[], datetime] = _now
    _total: Delivered = field(default_factory=Delivered, init=False)
    _error: str | None = field(default=None, init=False)
    _observe_error: str | None = field(default=None, init=False)
    _tries: int = field(default=0, init=False)
    _unobserved: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._backlog = Backlog(self.directory)
        self._open = OpenExtracts()
        if self.registry is not None:
            check_dsn(self.registry)
            known = conninfo_to_dict(self.registry)
            waits = {name: value for name, value in _WAITS.items() if name not in known}
            self.registry = make_conninfo(self.registry, **waits)

    def run(self, stop: threading.Event) -> None:
        """Deliver and observe until told to stop, then once more; whatever fails is tried again.

        While another courier has the directory, wait for it.
        """
        while True:
            try:
                with self._backlog.lock():
                    self._error = None
                    self._work(stop)
                return
            except SpoolProblem as problem:
                self._error = problem.message
            if stop.wait(_ROUND):
                return

    def deliver_once(self) -> Delivered:
        """Deliver all that is there, and return what that came to.

        Files that hold what nobody was shown stay: the proxy shows it when it runs again.

        Raise SpoolProblem when another courier has the directory, or its files cannot be read or
        written; DatabaseProblem when the registry refuses: what it took before stays taken.
        """
        assert self.registry is not None
        before = replace(self._total)
        with self._backlog.lock(), open_registry(self.registry) as registry:
            _insist(registry)
            try:
                self._recall()
                self._deliver(registry, watched=True)
            except OSError as problem:
                raise SpoolProblem(f"{self.directory}: {problem.strerror}") from None
        return self._total.since(before)

    def figures(self) -> Figures:
        """Return the metrics, from any thread."""
        waiting, age = 0, 0.0
        with contextlib.suppress(OSError, InvalidInput):
            waiting = self._backlog.waiting()
            oldest = self._backlog.oldest() if waiting else None
            if oldest is not None:
                age = max((self.clock() - read_instant(oldest)).total_seconds(), 0.0)
        total = self._total
        return Figures(
            total.entries,
            total.damaged,
            self._unobserved,
            waiting,
            age,
            self._error,
            self._observe_error,
        )

    def _work(self, stop: threading.Event) -> None:
        deliverer = threading.Thread(
            target=self._delivering, args=(stop,), name="courier", daemon=True
        )
        if self.registry is not None:
            deliverer.start()
        last = False
        while not last:
            last = stop.wait(_ROUND)
            try:
                self._observe()
                self._observe_error = None
            except Exception as problem:  # noqa: BLE001 - a fault must not end the watch
                self._observe_error = _told(problem)
        if self.registry is not None:
            deliverer.join(_FAREWELL)

    def _observe(self) -> None:
        if self.observe is None and self.alerts is None:
            return
        for path in self._backlog.files():
            lines = read_lines(path, self._backlog.offset(path).observed)
            for batch in _batches((path, line) for line in lines):
                self._show([line.record for _, line in batch if line.record is not None])
                self._backlog.advance(delivered={}, observed=_ends(batch))

    def _show(self, records: Sequence[Record]) -> None:
        try:
            if self.observe is not None and records:
                self.observe(records)
            found = [record for record in records if record.get("type") == "alert"]
            if self.alerts is not None and found:
                self.alerts(found)
        except Exception:
            self._tries += 1
            if self._tries < _TRIES:
                raise
            # what cannot be shown would fill the disk, and then nothing could leave any more
            self._unobserved += len(records)
        self._tries = 0

    def _delivering(self, stop: threading.Event) -> None:
        assert self.registry is not None
        failures, recalled, last = 0, False, False
        while not last:
            try:
                with open_registry(self.registry) as registry:
                    _insist(registry)
                    while not last:
                        if not recalled:
                            self._recall()
                            recalled = True
                        self._deliver(registry)
                        failures, self._error = 0, None
                        last = stop.wait(_ROUND)
                    self._deliver(registry)
            except Exception as problem:  # noqa: BLE001 - nothing may end the delivery
                self._error = _told(problem)
                failures += 1
                last = last or stop.wait(min(_ROUND * 2 ** min(failures - 1, 10), _PATIENCE))

    def _recall(self) -> None:
        """Find out which extracts were open when the last courier stopped."""
        self._open = OpenExtracts(self._backlog.opened())
        for path in self._backlog.files():
            delivered = self._backlog.offset(path).delivered
            for line in read_lines(path, 0):
                if line.end > delivered:
                    break
                self._follow(path, line)

    def _deliver(self, registry: sa.Connection, *, watched: bool = False) -> None:
        """Deliver what the files hold now, then what can be said of the dead; tidy up."""
        # in this order: what is dead now, or locked no more, will not have grown when it was read
        dead = self._backlog.dead() | self._gone()
        files = self._backlog.files()
        ended = [path for path in files if not locked(path)]
        lines = (
            (path, line)
            for path in files
            for line in read_lines(path, self._backlog.offset(path).delivered)
        )
        unsaved: OSError | None = None
        try:
            for batch in _batches(lines):
                self._record(registry, batch)
                try:
                    self._backlog.advance(delivered=_ends(batch), observed={})
                except OSError as problem:
                    # a full disk is emptied by going on
                    unsaved = problem
            for name in sorted(dead):
                self._bury(registry, name)
        finally:
            self._tidy(ended, watched or self.observe is not None or self.alerts is not None)
        if unsaved is not None:
            raise unsaved

    def _gone(self) -> set[str]:
        """Return the owners that left something open and no file."""
        found = self._open.owners()
        # twice: a name that comes while a directory is read may be passed over
        for _ in range(2):
            found -= {owner(path) for path in self._backlog.files()}
        return found

    def _tidy(self, ended: Iterable[Path], watched: bool) -> None:
        """Delete the files that nobody writes to and everybody has read."""
        finished = []
        for path in ended:
            offset = self._backlog.offset(path)
            read = min(offset.delivered, offset.observed) if watched else offset.delivered
            if next(read_lines(path, read), None) is None:
                finished.append(path)
        if finished:
            self._backlog.delete(finished, self._open.state())
            self._total.files += len(finished)

    def _record(self, registry: sa.Connection, batch: Sequence[tuple[Path, Line]]) -> None:
        drafts, damaged, sound = [], [], []
        for path, line in batch:
            try:
                made = draft(line.record) if line.record is not None else None
            except InvalidInput:
                damaged.append((path, line))
                continue
            if line.damaged:
                damaged.append((path, line))
            sound.append((path, line))
            if made is not None:
                drafts.append(made)
        if drafts:
            with problems(), registry.begin():
                written = len(append(registry, drafts, self.clock()))
            self._total.entries += written
        for path, line in damaged:
            self._backlog.set_aside(path, line.raw)
            self._total.damaged += 1
        for path, line in sound:
            self._follow(path, line)

    def _follow(self, path: Path, line: Line) -> None:
        if line.record is not None:
            self._open.follow(owner(path), line.record)

    def _bury(self, registry: sa.Connection, name: str) -> None:
        """Record what became of a dead owner's extracts: nobody knows."""
        left = iter(self._open.unknown(name, self.clock()))
        while records := list(islice(left, _RECORDS)):
            drafts = []
            for record in records:
                # only a damaged open.json gives what is no record
                with contextlib.suppress(InvalidInput):
                    drafts.append(draft(record))
            with problems(), registry.begin():
                made = [each for each in drafts if each is not None]
                written = len(append(registry, made, self.clock()))
            self._total.entries += written
            self._total.unknown += written
        self._open.forget(name)


def _insist(registry: sa.Connection) -> None:
    """Have the registry's disk hold what it says it took: ours will not hold it any more."""
    setting = sa.text(
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') = 'off'"
    )
    with problems(), registry.begin():
        registry.execute(setting)


def _batches(lines: Iterable[tuple[Path, Line]]) -> Iterator[list[tuple[Path, Line]]]:
    batch: list[tuple[Path, Line]] = []
    size = 0
    for path, line in lines:
        batch.append((path, line))
        size += len(line.raw)
        if len(batch) >= _RECORDS or size >= _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _ends(batch: Iterable[tuple[Path, Line]]) -> dict[Path, int]:
    return {path: line.end for path, line in batch}


def _told(problem: Exception) -> str:
    # the words of any other error might hold a record's
    return problem.message if isinstance(problem, PgbaliseError) else type(problem).__name__
