"""Alerts are told: to every sink and to the registry, each at least once.

A desk keeps what is still to be told in a folder of its own, one file for each alert, so that
nothing is forgotten in a crash and nobody waits for a registry that is away.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgbalise.errors import EnvironmentProblem, InvalidInput, PgbaliseError
from pgbalise.senders import Sender, senders
from pgbalise.session import check_dsn
from pgbalise.sinks import parse_sinks, wants
from pgbalise.watch import Alert, alert_id

__all__ = ["AlertDesk", "Sender", "parse_sinks", "senders", "trial_alert", "write_whole"]

_ROUND: Final = 1.0
"""Seconds between two looks at what is to be told."""

_PATIENCE: Final = 300.0
"""Seconds that a sink which fails is left alone, at most."""

_ABANDONED: Final = timedelta(minutes=10)
"""After so long, an alert that another desk recorded and has not told is taken up."""

_LOOK: Final = 60.0
"""Seconds between two looks at what the registry holds untold."""

_REGISTRY: Final = "registry"

# a registry behind a network that swallows packets must not keep the others from being told
_WAITS: Final = {"connect_timeout": "10", "tcp_user_timeout": "60000"}

_ID: Final = re.compile(r"[0-9a-f]{32}")


def trial_alert(at: datetime) -> Alert:
    """Return an alert that says that it is a test."""
    stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "type": "alert",
        "at": stamp,
        "alert": alert_id("test", "", "", stamp),
        "kind": "test",
        "severity": "info",
        "recipient": None,
        "database": None,
        "system": None,
        "client": "local",
        "detail": {},
    }


@dataclass
class _Pause:
    """How long a sink that fails is left alone."""

    until: float = 0.0
    seconds: float = 0.0

    def fail(self, now: float) -> None:
        self.seconds = min(max(2 * self.seconds, _ROUND), _PATIENCE)
        self.until = now + self.seconds


@dataclass
class AlertDesk:
    """Holds alerts until every sink has taken them.

    ``folder`` is the desk's own, made when it is missing, 0700. ``registry`` is a connection
    string, None without one: then, and without senders, alerts are kept nowhere. ``look`` is how
    many seconds pass before the registry is asked again what nobody told. ``submit`` may be called
    from any thread; the rest belongs to one.
    """

    folder: Path
    senders: Sequence[Sender]
    registry: str | None = None
    look: float = _LOOK
    _pauses: dict[str, _Pause] = field(default_factory=dict)
    _errors: dict[str, str] = field(default_factory=dict)
    _failures: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as problem:
            raise EnvironmentProblem(
                f"{self.folder}: the alerts' folder cannot be made: {problem.strerror}"
            ) from None
        if self.registry is not None:
            check_dsn(self.registry)
            given = conninfo_to_dict(self.registry)
            waits = {name: value for name, value in _WAITS.items() if name not in given}
            self.registry = make_conninfo(self.registry, **waits)

    @property
    def problems(self) -> dict[str, str]:
        """What keeps sinks from being told now, by their names."""
        return dict(self._errors)

    def waiting(self) -> int:
        """Return how many alerts are still to be told to somebody."""
        return len(self._files())

    def submit(self, alerts: Iterable[Mapping[str, Any]]) -> None:
        """Take alerts; when this returns, they are on the disk.

        Raise EnvironmentProblem when they cannot be kept, InvalidInput for what is no alert.
        """
        for alert in alerts:
            if not _ID.fullmatch(str(alert.get("alert"))):
                raise InvalidInput("an alert's id is 32 hexadecimal digits")
            self._take(alert, adopted=False)

    def deliver(self, now: float) -> int:
        """Tell every sink that is not left alone now what it does not know; never raise.

        ``now`` is any clock's seconds that only grow. Return how many alerts all have taken.
        """
        done = 0
        for path, item in sorted(self._items(), key=self._turn):
            alert, taken = item["alert"], set(item["taken"])
            steps = [s for s in self.senders if s.name not in taken]
            for sender in steps:
                if not wants(sender.minimum, alert["severity"]) or self._try(sender, alert, now):
                    taken.add(sender.name)
            told = all(sender.name in taken for sender in self.senders)
            finished = told
            if self.registry is not None:
                record = _RegistrySender(self.registry, told=told)
                wanted = told or record.name not in taken
                if wanted and self._try(record, alert, now):
                    taken.add(record.name)
                elif wanted:
                    finished = False
            try:
                if finished:
                    path.unlink()
                    self._failures.pop(alert["alert"], None)
                    done += 1
                elif taken != set(item["taken"]):
                    self._keep(path, {**item, "taken": sorted(taken)})
            except (OSError, PgbaliseError) as problem:
                self._errors["folder"] = str(problem)
        return done

    def adopt(self, now: datetime) -> int:
        """Take up what the registry says was never told: by a command, or as a machine was lost.

        What was taken up so and another desk has told since is given up. Return how many are new;
        raise DatabaseProblem when the registry cannot be asked.
        """
        if self.registry is None:
            return 0
        from pgbalise.registry.alerts import undelivered
        from pgbalise.registry.store import open_registry

        with open_registry(self.registry) as registry:
            found = {alert["alert"]: alert for alert in undelivered(registry, now - _ABANDONED)}
        known = set()
        for path, item in self._items():
            known.add(path.stem)
            if item.get("adopted") and path.stem not in found:
                path.unlink(missing_ok=True)
        fresh = [alert for number, alert in found.items() if number not in known]
        for alert in fresh:
            self._take(alert, adopted=True)
        return len(fresh)

    def run(self, stop: threading.Event) -> None:
        """Deliver until told to stop; whatever fails is tried again, at most 300 s later."""
        next_look = 0.0
        while True:
            now = time.monotonic()
            pause = self._pauses.setdefault(_REGISTRY, _Pause())
            if self.registry is not None and now >= max(next_look, pause.until):
                try:
                    self.adopt(datetime.now(UTC))
                    next_look = now + self.look
                    self._errors.pop(_REGISTRY, None)
                except PgbaliseError as problem:
                    pause.fail(now)
                    self._errors[_REGISTRY] = str(problem)
            self.deliver(now)
            if stop.wait(_ROUND):
                return

    def _turn(self, entry: tuple[Path, dict[str, Any]]) -> tuple[int, str]:
        """In the order in which they were raised; but one that is refused holds up no other."""
        alert = entry[1]["alert"]
        return self._failures.get(alert["alert"], 0), str(alert["at"])

    def _try(self, sender: Sender, alert: Mapping[str, Any], now: float) -> bool:
        pause = self._pauses.setdefault(sender.name, _Pause())
        if now < pause.until:
            return False
        try:
            sender.send(alert)
        except Exception as problem:  # noqa: BLE001 - one alert must not keep others from being told
            pause.fail(now)
            known = isinstance(problem, PgbaliseError)
            self._errors[sender.name] = str(problem) if known else type(problem).__name__
            self._failures[alert["alert"]] = self._failures.get(alert["alert"], 0) + 1
            return False
        self._pauses.pop(sender.name)
        self._errors.pop(sender.name, None)
        return True

    def _files(self) -> list[Path]:
        return [path for path in self.folder.glob("*.json") if _ID.fullmatch(path.stem)]

    def _items(self) -> list[tuple[Path, dict[str, Any]]]:
        found = []
        for path in self._files():
            try:
                item = json.loads(path.read_text("utf-8"))
                wants("info", item["alert"]["severity"])
                item["alert"]["at"], item["alert"]["kind"], list(item["taken"])
            except (OSError, ValueError, KeyError, TypeError):
                self._errors["folder"] = f"{path.name} cannot be read"
                continue
            found.append((path, item))
        return found

    def _take(self, alert: Mapping[str, Any], *, adopted: bool) -> None:
        path = self.folder / f"{alert['alert']}.json"
        if not path.exists():
            self._keep(path, {"alert": dict(alert), "taken": [], "adopted": adopted})

    def _keep(self, path: Path, item: Mapping[str, Any]) -> None:
        write_whole(path, json.dumps(item, ensure_ascii=True).encode())


@dataclass(frozen=True)
class _RegistrySender:
    registry: str
    told: bool
    """Whether all other sinks have taken the alert."""
    name: str = _REGISTRY
    minimum: str = "info"

    def send(self, alert: Mapping[str, Any]) -> None:
        from pgbalise.registry.alerts import record_alert
        from pgbalise.registry.store import open_registry

        with open_registry(self.registry) as connection:
            record_alert(connection, alert, datetime.now(UTC), told=self.told)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, also after a crash; mode 0600.

    Raise EnvironmentProblem when it cannot be written.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as problem:
        raise EnvironmentProblem(f"{path}: cannot be written: {problem.strerror}") from None
