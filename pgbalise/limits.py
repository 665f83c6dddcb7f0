"""What a recipient may take before somebody is told: the table ``[watch]``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pgbalise.errors import InvalidInput

_WEEKDAYS: Final = (
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
)
DAYS_KEPT: Final = 90
"""For so many days a recipient's rows are remembered."""

_UNLIMITED: Final = "unlimited"


@dataclass(frozen=True)
class OffHours:
    """When nobody is expected to take much: from ``start`` to ``end``, and on whole days off.

    Local times; ``end`` before ``start`` means the next morning, equal ones no hours at all.
    ``days_off`` are weekdays, Monday is 0.
    """

    start: time
    end: time
    days_off: frozenset[int] = frozenset()

    def covers(self, local: datetime) -> bool:
        """Whether a local time is within them."""
        if local.weekday() in self.days_off:
            return True
        now = local.time()
        if self.start <= self.end:
            return self.start <= now < self.end
        return now >= self.start or now < self.end

    def night(self, local: datetime) -> date:
        """The day on which the night began that a local time belongs to."""
        if self.start > self.end and local.time() < self.end:
            return local.date() - timedelta(days=1)
        return local.date()


@dataclass(frozen=True)
class Limits:
    """What a recipient may take before somebody is told; None means no limit.

    ``times_own_past``: a day's rows may be this many times those of the recipient's busiest
    comparable day of the last 90 (working days are compared with working days, days off with days
    off), once ``known_days`` of them are known. ``bulk_rows``: rows of one night beyond which
    taking them off hours is told; a day with fewer is never held against the past.
    ``learning_days``: for so long after a recipient's first extract, relations are not new.
    ``refuse``: beyond an hour's or a day's limit the recipient is refused until it ends.
    ``own_decoys``: whether it is told when a recipient asks for one of its own decoys.
    ``recipients``: the limits of those who have their own.
    """

    rows_per_hour: int | None = None
    rows_per_day: int | None = None
    times_own_past: int | None = 5
    known_days: int = 10
    learning_days: int = 14
    bulk_rows: int | None = 10_000
    off_hours: OffHours | None = None
    zone: tzinfo = UTC
    refuse: bool = False
    own_decoys: bool = True
    recipients: Mapping[str, Limits] = field(default_factory=dict)

    def of(self, recipient: str) -> Limits:
        """The limits of one recipient."""
        return self.recipients.get(recipient, self)


_OWN_KEYS: Final = {
    "rows_per_hour",
    "rows_per_day",
    "times_own_past",
    "known_days",
    "learning_days",
    "bulk_rows",
    "on_limit",
    "own_decoys",
    "off_hours",
}


def parse_limits(table: Mapping[str, Any]) -> Limits:
    """Read the limits from the table ``[watch]``; raise InvalidInput naming what is wrong.

    Keys: ``zone``; ``rows_per_hour``, ``rows_per_day``, ``times_own_past`` and ``bulk_rows``
    (whole numbers, or "unlimited"); ``known_days``, ``learning_days``; ``on_limit`` ("alert" or
    "refuse"); ``own_decoys`` ("alert" or "ignore"); a table ``off_hours`` with ``start``, ``end``
    and ``days_off``; and tables ``recipient.NAME`` with any of these but ``zone``.
    """
    _known_keys(table, _OWN_KEYS | {"zone", "recipient"}, "watch")
    limits = Limits(zone=_zone(table.get("zone", "UTC")))
    limits = _parsed(limits, {k: table[k] for k in table.keys() & _OWN_KEYS}, "watch")
    own = {}
    for name, value in _table(table.get("recipient", {}), "watch.recipient").items():
        where = f"watch.recipient.{name}"
        body = _table(value, where)
        _known_keys(body, _OWN_KEYS, where)
        own[name] = _parsed(limits, body, where)
    return replace(limits, recipients=own)


def _parsed(base: Limits, table: Mapping[str, Any], where: str) -> Limits:
    changes: dict[str, Any] = {}
    for key in ("rows_per_hour", "rows_per_day", "times_own_past", "bulk_rows"):
        if key in table:
            unlimited = table[key] == _UNLIMITED
            changes[key] = None if unlimited else _number(table[key], f"{where}.{key}", 1)
    for key, least in (("known_days", 1), ("learning_days", 0)):
        if key in table:
            changes[key] = _number(table[key], f"{where}.{key}", least)
            if changes[key] > DAYS_KEPT:
                raise InvalidInput(f"{where}.{key}: at most {DAYS_KEPT} days are remembered")
    if "on_limit" in table:
        changes["refuse"] = _choice(table, "on_limit", ("alert", "refuse"), where) == "refuse"
    if "own_decoys" in table:
        changes["own_decoys"] = _choice(table, "own_decoys", ("alert", "ignore"), where) == "alert"
    if "off_hours" in table:
        changes["off_hours"] = _off_hours(table["off_hours"], f"{where}.off_hours")
    return replace(base, **changes)


def _off_hours(value: object, where: str) -> OffHours:
    table = _table(value, where)
    _known_keys(table, {"start", "end", "days_off"}, where)
    days = table.get("days_off", [])
    if not isinstance(days, list) or not all(day in _WEEKDAYS for day in days):
        raise InvalidInput(
            f"{where}.days_off: must be a list of weekdays", hint='["saturday", "sunday"]'
        )
    start, end = (_time(table.get(key, "00:00"), f"{where}.{key}") for key in ("start", "end"))
    if start == end and not days:
        raise InvalidInput(f"{where}: covers no time", hint='start = "20:00", end = "07:00"')
    return OffHours(start, end, frozenset(map(_WEEKDAYS.index, days)))


def _time(value: object, where: str) -> time:
    try:
        found = value if isinstance(value, time) else time.fromisoformat(str(value))
    except ValueError:
        found = None
    if found is None or found.tzinfo is not None:
        raise InvalidInput(f"{where}: must be a local time of day", hint='"20:00"')
    return found


def _zone(value: object) -> tzinfo:
    try:
        return ZoneInfo(value) if isinstance(value, str) else _no_zone()
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return _no_zone()


def _no_zone() -> tzinfo:
    raise InvalidInput("watch.zone: there is no such time zone", hint='"Europe/Paris"')


def _known_keys(table: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise InvalidInput(
                f"{where}.{key}: there is no such key", hint=f"known: {', '.join(sorted(known))}"
            )


def _table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where}: must be a table", hint=f"write [{where}]")
    return value


def _number(value: object, where: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInput(f"{where}: must be a whole number from {least}")
    return value


def _choice(table: Mapping[str, Any], key: str, allowed: Sequence[str], where: str) -> str:
    value = table[key]
    if value not in allowed:
        either = " or ".join(f'"{word}"' for word in allowed)
        raise InvalidInput(f"{where}.{key}: must be {either}")
    return str(value)
