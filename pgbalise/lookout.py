"""The watch at work: it remembers across restarts, tells the desk, and publishes who is refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from pgbalise.alerts import write_whole
from pgbalise.beacons import Beacons
from pgbalise.errors import EnvironmentProblem, InvalidInput
from pgbalise.limits import DAYS_KEPT, Limits
from pgbalise.watch import Alert, Past, Watch

if TYPE_CHECKING:
    import sqlalchemy as sa

    from pgbalise.session import Session

STATE: Final = "watch.json"
REFUSED: Final = "refused.json"

_SHARE: Final = 20
"""At most one part in so many of the time goes into writing the state down."""


class Desk(Protocol):
    """Takes alerts so that they are not forgotten."""

    def submit(self, alerts: Iterable[Mapping[str, Any]]) -> None:
        """Keep them, or raise a PgbaliseError."""


class Lookout:
    """A Watch over the records of a spool, with its state in a folder.

    ``folder`` holds ``watch.json`` (the state) and ``refused.json`` (see ``RefusedRecipients``). It
    belongs to one process. ``past`` is used when there is no state. ``clock`` says which hour and
    day it is, to decide who is refused now. Any thread may call any method.
    """

    def __init__(
        self,
        limits: Limits,
        folder: Path,
        desk: Desk,
        past: Mapping[str, Past] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder, self._desk, self._clock = folder, desk, clock
        state = _state(folder / STATE)
        self.watch = Watch(limits, past) if state is None else Watch.restore(limits, state)
        self._lock = threading.RLock()
        self._untold: list[Alert] = []
        self._published: dict[str, datetime] | None = None
        self._rest_until = 0.0

    def observe(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Look at records, tell the desk, and write the state down unless that was just done.

        When it raises (EnvironmentProblem: something cannot be written), call it again with the
        same records: nothing counts twice and no alert is lost.
        """
        with self._lock:
            self._untold += self.watch.observe(records)
            if self._untold:
                self._desk.submit(self._untold)
                self._untold = []
            self._publish()
            if time.monotonic() >= self._rest_until:
                self.save()

    def use(self, limits: Limits) -> None:
        """Exchange the limits, as when the configuration was read again."""
        with self._lock:
            self.watch.limits = limits
            self._publish()

    def _publish(self) -> None:
        refused = self.watch.refused(self._clock())
        if refused != self._published:
            body = {name: until.isoformat() for name, until in refused.items()}
            write_whole(self._folder / REFUSED, json.dumps(body).encode())
            self._published = refused

    def save(self) -> None:
        """Write the state down, as before the process ends.

        After a kill, what was observed since the last time is not counted: at most 20 times as
        long as writing takes.
        """
        with self._lock:
            if self._untold:
                # the state says that they were told; without it they are raised again
                return
            begun = time.monotonic()
            write_whole(self._folder / STATE, json.dumps(self.watch.state()).encode())
            self._rest_until = begun + _SHARE * (time.monotonic() - begun)


def _state(path: Path) -> Mapping[str, Any] | None:
    try:
        state = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it is damaged"
        raise InvalidInput(
            f"{path}: the watch's state cannot be read: {why}",
            hint="delete it to begin anew from the ledger",
        ) from None
    if not isinstance(state, Mapping):
        raise InvalidInput(f"{path}: this is not the watch's state", hint="delete it")
    return state


class RefusedRecipients:
    """Who is beyond a limit now, as ``Lookout`` published it in a folder; cheap to ask often.

    Looks at the file at most once a second. While there is none, nobody is refused.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / REFUSED
        self._stamp: tuple[int, int] | None = None
        self._until: dict[str, datetime] = {}
        self._look_at = 0.0

    def until(self, recipient: str, now: datetime) -> datetime | None:
        """Return the time (UTC) until which a recipient is refused, None when it is not.

        Raise EnvironmentProblem when the file cannot be read: then nobody knows.
        """
        monotonic = time.monotonic()
        if monotonic >= self._look_at:
            self._read()
            self._look_at = monotonic + 1.0
        until = self._until.get(recipient)
        return until if until is not None and now < until else None

    def _read(self) -> None:
        try:
            found = self._path.stat()
            # every version is a new file
            stamp = (found.st_ino, found.st_mtime_ns)
            if stamp == self._stamp:
                return
            body = json.loads(self._path.read_bytes())
            self._until = {name: datetime.fromisoformat(text) for name, text in body.items()}
            self._stamp = stamp
        except FileNotFoundError:
            self._until, self._stamp = {}, None
        except (OSError, ValueError, AttributeError, TypeError) as problem:
            why = problem.strerror if isinstance(problem, OSError) else "it is damaged"
            raise EnvironmentProblem(f"{self._path}: cannot be read: {why}") from None


_PAST: Final = """
WITH extract AS (
    SELECT body ->> 'origin' AS origin, body ->> 'recipient' AS recipient,
           body ->> 'database' AS database, body -> 'relations' AS relations,
           ((body ->> 'started_at')::timestamptz AT TIME ZONE :zone)::date AS day
      FROM balise_registry.entry
     WHERE kind = 'extract'
), taken AS (
    SELECT e.recipient, ((o.body ->> 'ended_at')::timestamptz AT TIME ZONE :zone)::date AS day,
           sum((o.body ->> 'rows')::bigint)::bigint AS rows
      FROM balise_registry.entry AS o
      JOIN extract AS e ON e.origin = 'extract:' || (o.body ->> 'extract')
     WHERE o.kind = 'outcome'
     GROUP BY 1, 2
), read AS (
    SELECT e.recipient, jsonb_agg(DISTINCT e.database || ':' || r.name) AS names
      FROM extract AS e, jsonb_array_elements_text(e.relations) AS r(name)
     GROUP BY e.recipient
), days AS (
    SELECT recipient, jsonb_object_agg(day, rows) AS rows
      FROM taken
     WHERE day >= :since
     GROUP BY recipient
)
SELECT f.recipient, f.day::text, coalesce(d.rows, '{}'), coalesce(r.names, '[]')
  FROM (SELECT recipient, min(day) AS day FROM extract GROUP BY recipient) AS f
  LEFT JOIN read AS r ON r.recipient = f.recipient
  LEFT JOIN days AS d ON d.recipient = f.recipient
"""


def past_from_ledger(registry: sa.Connection, limits: Limits, now: datetime) -> dict[str, Past]:
    """Return what the ledger knows of each recipient: what it read, and rows by day.

    Rows are the proxy's: pgaudit's entries of the same statements would count them again. Raise
    DatabaseProblem when the registry cannot be read.
    """
    import sqlalchemy as sa

    from pgbalise.registry.store import problems

    parameters = {"zone": str(limits.zone), "since": now.date() - timedelta(days=DAYS_KEPT)}
    with problems(), registry.begin():
        rows = registry.execute(sa.text(_PAST), parameters).all()
    return {name: Past(first, days, set(names)) for name, first, days, names in rows}


def load_beacons(session: Session, key: bytes) -> Beacons:
    """Return the identities of a database's decoys; ``key`` is 32 random bytes of this process.

    The session's role needs EXECUTE on ``balise.decoy_digests``, and no right to read a decoy or a
    patient. Raise DatabaseProblem when it lacks it.
    """
    rows = session.fetch(
        "SELECT recipient::text, coalesce(number, 0), digest FROM balise.decoy_digests($1::bytea)",
        key,
    )
    return Beacons(key, ((owner, number, bytes(digest)) for owner, number, digest in rows))
