"""Who takes more than they should, looks where they never looked, or asks for a decoy.

``Watch`` looks at spool records (intents, progress, outcomes, alerts) and answers with alerts. Time
is what the records say, never the clock's; so the same records always give the same alerts.

Rows are counted by the hour (of UTC) and by the day (of ``Limits.zone``) in which a record reports
them. A record's rows are cumulative for its extract, so what counts is the difference to the one
before: records that come twice count once, and those of different extracts in any order. Per
recipient, kind and hour or day there is one alert; its id is a digest of these, so that one that
is raised again after a crash is known to be the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from pgbalise.errors import InvalidInput
from pgbalise.limits import DAYS_KEPT, Limits

Alert = dict[str, Any]
"""A spool record of type ``alert``: text, integers, and lists of them; no patient's value."""

_ID: Final = re.compile("[0-9a-f]{32}")

OF_COMMANDS: Final = frozenset({"decoy_elsewhere", "decoy_found"})
"""Kinds that commands raise: they record an alert in the registry and tell nobody themselves."""

SEVERITIES: Final = ("info", "warning", "critical")

_MOST_NAMED: Final = 20
_HOURS_KEPT: Final = 48
_NIGHTS_KEPT: Final = 7
_FINISHED_DAYS: Final = 2
_FINISHED_KEPT: Final = 100_000
_OPEN_DAYS: Final = 30
_OPEN_KEPT: Final = 200_000


@dataclass
class Past:
    """What is known of one recipient; days are ISO dates of ``Limits.zone``.

    ``first`` is the day of its first extract, ``days`` rows by day, ``relations`` what it has
    read, as ``database:schema.name``.
    """

    first: str
    days: dict[str, int] = field(default_factory=dict)
    relations: set[str] = field(default_factory=set)


@dataclass
class _Recipient(Past):
    hours: dict[int, int] = field(default_factory=dict)
    """Rows by hour, which is numbered from 1970 on in UTC."""
    nights: dict[str, int] = field(default_factory=dict)
    """Rows taken off hours, by the day on which the night began."""


@dataclass(slots=True)
class _Extract:
    recipient: str
    database: str
    system: str
    client: str
    rows: int
    day: str
    """Of the last record about it."""


class Watch:
    """Sums over the records seen so far, and the alerts that they gave.

    ``past`` is what is known from elsewhere, such as the ledger, by recipient. ``limits`` may be
    exchanged at any time. Memory is bounded: sums by day are kept for 90 days, finished extracts
    for two (to know their records when they come again, at most 100,000), unfinished ones for 30
    days after their last record.
    """

    def __init__(self, limits: Limits, past: Mapping[str, Past] | None = None) -> None:
        self.limits = limits
        self._recipients = {
            name: _Recipient(known.first, dict(known.days), set(known.relations))
            for name, known in (past or {}).items()
        }
        self._open: dict[str, _Extract] = {}
        self._finished: dict[str, str] = {}
        self._raised: dict[str, str] = {}
        self._newest = ""

    def observe(self, records: Iterable[Mapping[str, Any]]) -> list[Alert]:
        """Count what the records say; return the alerts that this raises, in order.

        Records that are no spool records are passed over: whoever reads the spool reports them.
        """
        alerts: list[Alert] = []
        for record in records:
            try:
                at = _instant(record["at"])
                extract, kind = record.get("extract"), record["type"]
                if kind == "intent":
                    self._begin(str(extract), record, at, alerts)
                elif kind in ("progress", "outcome"):
                    self._count(str(extract), record, at, alerts)
                elif kind == "alert":
                    self._pass_on(record, at, alerts)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                continue
        # the oldest come first
        while len(self._finished) > _FINISHED_KEPT:
            del self._finished[next(iter(self._finished))]
        while len(self._open) > _OPEN_KEPT:
            del self._open[next(iter(self._open))]
        return alerts

    def refused(self, now: datetime) -> dict[str, datetime]:
        """Return who is beyond a limit that refuses, and until when (UTC)."""
        until = {}
        for name, known in self._recipients.items():
            limits = self.limits.of(name)
            if not limits.refuse:
                continue
            local = now.astimezone(limits.zone)
            hour = _hour(now)
            if _beyond(known.days.get(local.date().isoformat(), 0), limits.rows_per_day):
                midnight = datetime.combine(
                    local.date() + timedelta(days=1), time(), tzinfo=limits.zone
                )
                until[name] = midnight.astimezone(UTC)
            elif _beyond(known.hours.get(hour, 0), limits.rows_per_hour):
                until[name] = _hour_begins(hour + 1)
        return until

    def rows(self, recipient: str) -> dict[str, int]:
        """Return a recipient's rows by day."""
        known = self._recipients.get(recipient)
        return dict(known.days) if known else {}

    def state(self) -> dict[str, Any]:
        """Return all that is known as plain JSON, for ``restore``."""
        return {
            "version": 1,
            "newest": self._newest,
            "recipients": {
                name: {
                    "first": known.first,
                    "days": known.days,
                    "hours": {str(hour): rows for hour, rows in known.hours.items()},
                    "nights": known.nights,
                    "relations": sorted(known.relations),
                }
                for name, known in self._recipients.items()
            },
            "open": {
                number: [e.recipient, e.database, e.system, e.client, e.rows, e.day]
                for number, e in self._open.items()
            },
            "finished": self._finished,
            "raised": self._raised,
        }

    @classmethod
    def restore(cls, limits: Limits, state: Mapping[str, Any]) -> Watch:
        """Return the Watch whose ``state`` this is; raise InvalidInput when it is none."""
        made = cls(limits)
        try:
            if state["version"] != 1:
                raise InvalidInput("the watch's state is of another version of pgbalise")
            for name, known in state["recipients"].items():
                made._recipients[name] = _Recipient(
                    str(known["first"]),
                    {str(day): int(rows) for day, rows in known["days"].items()},
                    set(known["relations"]),
                    {int(hour): int(rows) for hour, rows in known["hours"].items()},
                    {str(night): int(rows) for night, rows in known["nights"].items()},
                )
            for number, (*names, rows, day) in state["open"].items():
                recipient, database, system, client = map(str, names)
                made._open[number] = _Extract(
                    recipient, database, system, client, int(rows), str(day)
                )
            made._finished = {str(number): str(day) for number, day in state["finished"].items()}
            made._raised = {str(number): str(day) for number, day in state["raised"].items()}
            made._newest = str(state["newest"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InvalidInput("the watch's state cannot be read") from None
        return made

    def _begin(
        self, number: str, record: Mapping[str, Any], at: datetime, alerts: list[Alert]
    ) -> None:
        if number in self._open or number in self._finished:
            return
        name, database = str(record["recipient"]), str(record["database"])
        system, client = str(record["system"]), str(record.get("client", ""))
        relations = [str(touched["relation"]) for touched in record["relations"]]
        day = self._day(at)
        self._open[number] = _Extract(name, database, system, client, 0, day)
        known = self._recipients.setdefault(name, _Recipient(day))
        known.first = min(known.first, day)
        limits = self.limits.of(name)
        learnt = date.fromisoformat(known.first) + timedelta(days=limits.learning_days)
        for relation in relations:
            key = f"{database}:{relation}"
            if key in known.relations:
                continue
            known.relations.add(key)
            if date.fromisoformat(day) >= learnt:
                alert = self._alert("first_seen", "info", self._open[number], at, key)
                self._raise(alert, {"relation": relation}, day, alerts)

    def _count(
        self, number: str, record: Mapping[str, Any], at: datetime, alerts: list[Alert]
    ) -> None:
        day, rows = self._day(at), int(record["rows"])
        extract = self._open.get(number)
        if extract is None:
            return
        fresh, extract.rows = max(0, rows - extract.rows), max(rows, extract.rows)
        extract.day = max(day, extract.day)
        if record["type"] == "outcome":
            del self._open[number]
            self._finished[number] = day
        if fresh:
            self._add(extract, fresh, at, day, alerts)

    def _add(
        self, extract: _Extract, fresh: int, at: datetime, day: str, alerts: list[Alert]
    ) -> None:
        known = self._recipients[extract.recipient]
        limits = self.limits.of(extract.recipient)
        local = at.astimezone(limits.zone)
        if day >= _days_before(self._newest, DAYS_KEPT):
            rows = known.days[day] = known.days.get(day, 0) + fresh
            if _beyond(rows, limits.rows_per_day):
                alert = self._alert("rows_per_day", "warning", extract, at, day)
                detail = {"day": day, "rows": rows, "limit": limits.rows_per_day}
                self._raise(alert, detail, day, alerts)
            self._compare(extract, known, limits, at, day, alerts)
        hour = _hour(at)
        if day >= _days_before(self._newest, _HOURS_KEPT // 24):
            rows = known.hours[hour] = known.hours.get(hour, 0) + fresh
            if _beyond(rows, limits.rows_per_hour):
                begins = _hour_begins(hour).astimezone(limits.zone).isoformat(timespec="minutes")
                alert = self._alert("rows_per_hour", "warning", extract, at, str(hour))
                detail = {"hour": begins, "rows": rows, "limit": limits.rows_per_hour}
                self._raise(alert, detail, day, alerts)
        if limits.off_hours is not None and limits.off_hours.covers(local):
            night = limits.off_hours.night(local).isoformat()
            if night >= _days_before(self._newest, _NIGHTS_KEPT):
                rows = known.nights[night] = known.nights.get(night, 0) + fresh
                if _beyond(rows, limits.bulk_rows):
                    alert = self._alert("off_hours", "warning", extract, at, night)
                    detail = {"night": night, "rows": rows, "limit": limits.bulk_rows}
                    self._raise(alert, detail, day, alerts)

    def _compare(
        self,
        extract: _Extract,
        known: _Recipient,
        limits: Limits,
        at: datetime,
        day: str,
        alerts: list[Alert],
    ) -> None:
        rows = known.days[day]
        if limits.times_own_past is None or not _beyond(rows, limits.bulk_rows or 0):
            return
        alert = self._alert("own_past", "warning", extract, at, day)
        if alert["alert"] in self._raised:
            return
        off = limits.off_hours.days_off if limits.off_hours else frozenset()

        def is_off(text: str) -> bool:
            return date.fromisoformat(text).weekday() in off

        comparable = [
            (earlier_rows, earlier)
            for earlier, earlier_rows in known.days.items()
            if earlier < day and is_off(earlier) == is_off(day)
        ]
        if len(comparable) < limits.known_days:
            return
        busiest, busiest_day = max(comparable)
        if rows > limits.times_own_past * busiest:
            detail = {
                "day": day,
                "rows": rows,
                "busiest": busiest,
                "busiest_day": busiest_day,
                "days": len(comparable),
                "times": limits.times_own_past,
            }
            self._raise(alert, detail, day, alerts)

    def _pass_on(self, record: Mapping[str, Any], at: datetime, alerts: list[Alert]) -> None:
        alert = dict(record)
        # one that a desk cannot take would be offered to it forever
        if not _ID.fullmatch(alert["alert"]) or alert["severity"] not in SEVERITIES:
            return
        recipient, owners = alert["recipient"], alert["detail"].get("decoys_of")
        alert["kind"] = str(alert["kind"])
        if not self.limits.of(recipient).own_decoys and owners == [recipient]:
            return
        self._raise(alert, alert["detail"], self._day(at), alerts)

    def _alert(
        self, kind: str, severity: str, extract: _Extract, at: datetime, period: str
    ) -> Alert:
        return {
            "type": "alert",
            "at": _written(at),
            "alert": alert_id(kind, extract.system, extract.recipient, period),
            "kind": kind,
            "severity": severity,
            "recipient": extract.recipient,
            "database": extract.database,
            "system": extract.system,
            "client": extract.client,
        }

    def _raise(self, alert: Alert, detail: object, day: str, alerts: list[Alert]) -> None:
        if alert["alert"] not in self._raised:
            self._raised[alert["alert"]] = day
            alerts.append({**alert, "detail": detail})

    def _day(self, at: datetime) -> str:
        day = at.astimezone(self.limits.zone).date().isoformat()
        if day > self._newest:
            self._newest = day
            self._forget()
        return day

    def _forget(self) -> None:
        def before(days: int) -> str:
            return _days_before(self._newest, days)

        oldest_hour = _hour(datetime.fromisoformat(before(_HOURS_KEPT // 24 + 1) + "T00:00Z"))
        for known in self._recipients.values():
            known.days = _since(known.days, before(DAYS_KEPT))
            known.nights = _since(known.nights, before(_NIGHTS_KEPT))
            known.hours = {hour: n for hour, n in known.hours.items() if hour >= oldest_hour}
        self._raised = _seen_since(self._raised, before(DAYS_KEPT))
        self._finished = _seen_since(self._finished, before(_FINISHED_DAYS))
        left = before(_OPEN_DAYS)
        self._open = {number: e for number, e in self._open.items() if e.day >= left}


def alert_id(kind: str, system: str, recipient: str, period: str) -> str:
    """Return the id, 32 hexadecimal digits, of the one alert of a kind in a period."""
    text = f"pgbalise alert 1\0{kind}\0{system}\0{recipient}\0{period}"
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def decoy_alert(
    at: datetime,
    *,
    recipient: str,
    database: str,
    system: str,
    client: str,
    decoys: Iterable[tuple[str, int]],
    relations: Iterable[str] = (),
    statement_hash: str | None = None,
) -> Alert:
    """Return the alert that a role's statement holds a decoy's identity.

    ``decoys`` are the recipients whose decoy it is, and its number (0: not known): whoever else
    knows it has their data. ``relations`` are those the statement touches. Within an hour of UTC
    the id stays the same, but a decoy of the role's own never hides that of another's.
    """
    known = sorted(set(decoys))
    owners = sorted({owner for owner, _ in known})
    detail: dict[str, Any] = {"decoys_of": owners, "relations": sorted(relations)}
    named = [f"{owner}/{number}" for owner, number in known if number]
    if named:
        detail["decoys"] = named[:_MOST_NAMED]
    whose = " own" if owners == [recipient] else ""
    if statement_hash is not None:
        detail["statement_hash"] = statement_hash
    return {
        "type": "alert",
        "at": _written(at),
        "alert": alert_id("decoy", system, recipient, f"{_hour(at)}{whose}"),
        "kind": "decoy",
        "severity": "critical",
        "recipient": recipient,
        "database": database,
        "system": system,
        "client": client,
        "detail": detail,
    }


def tripwire_alert(
    at: datetime,
    *,
    event: int,
    role: str,
    database: str,
    system: str,
    client: str,
    application: str,
    decoys: Sequence[str],
    kinds: Sequence[str],
) -> Alert:
    """Return the alert that a role had a decoy's identity checked; its id is that of the event.

    ``decoys`` are recipients and numbers, as ``vendor_brest/3``; ``kinds`` by which traits.
    """
    return {
        "type": "alert",
        "at": _written(at),
        "alert": alert_id("tripwire", system, role, f"{database}:{event}"),
        "kind": "tripwire",
        "severity": "critical",
        "recipient": role,
        "database": database,
        "system": system,
        "client": client,
        "detail": {
            "event": event,
            "application": application,
            "decoys": list(decoys)[:_MOST_NAMED],
            "decoys_of": sorted({name.rpartition("/")[0] for name in decoys}),
            "kinds": list(kinds),
        },
    }


def _beyond(rows: int, limit: int | None) -> bool:
    return limit is not None and rows > limit


def _instant(text: object) -> datetime:
    found = datetime.fromisoformat(str(text))
    if found.tzinfo is None:
        raise ValueError("a record's time is of UTC")
    return found.astimezone(UTC)


def _written(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _hour(at: datetime) -> int:
    return int(at.timestamp() // 3600)


def _hour_begins(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * 3600, UTC)


def _days_before(day: str, days: int) -> str:
    return (date.fromisoformat(day) - timedelta(days=days)).isoformat()


def _since(sums: dict[str, int], day: str) -> dict[str, int]:
    return {key: rows for key, rows in sums.items() if key >= day}


def _seen_since(seen: dict[str, str], day: str) -> dict[str, str]:
    return {key: last for key, last in seen.items() if last >= day}
