"""Alerts in the registry: what was raised, whom it concerns, and when it was told.

The table says what is still to be told; the ledger has an entry of kind ``alert`` for each, so
that nobody can take back that it was raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from pgbalise.registry import tables
from pgbalise.registry.ledger import instant
from pgbalise.registry.store import Draft, append, problems
from pgbalise.watch import OF_COMMANDS


def record_alert(
    registry: sa.Connection, alert: Mapping[str, Any], at: datetime, *, told: bool
) -> None:
    """Record an alert once, however often it comes; with ``told``, that every sink took it.

    ``at`` is now. Raise DatabaseProblem when the registry refuses.
    """
    table = tables.alert
    raised = datetime.fromisoformat(alert["at"]).astimezone(UTC)
    with problems(), registry.begin():
        # the ledger's entries name what they tell of, so it says whether this one is known
        if append(registry, [_draft(alert, raised)], at):
            registry.execute(
                sa.insert(table).values(
                    raised_at=raised,
                    severity=alert["severity"],
                    kind=alert["kind"],
                    recipient_id=_recipient_id(registry, alert),
                    body=_storable(dict(alert)),
                )
            )
        if told:
            registry.execute(
                sa.update(table)
                .where(
                    table.c.body["alert"].astext == alert["alert"], table.c.delivered_at.is_(None)
                )
                .values(delivered_at=at)
            )


def _recipient_id(registry: sa.Connection, alert: Mapping[str, Any]) -> int | None:
    recipient, database = tables.recipient, tables.database
    found = registry.execute(
        sa.select(recipient.c.recipient_id)
        .join(database)
        .where(
            recipient.c.role_name == alert.get("recipient"),
            database.c.name == alert.get("database"),
            database.c.system_identifier == alert.get("system"),
        )
    ).scalar()
    return None if found is None else int(found)


def _draft(alert: Mapping[str, Any], raised: datetime) -> Draft:
    detail = alert.get("detail") or {}
    names = detail.get("relations") or ([detail["relation"]] if "relation" in detail else [])
    body = {
        "origin": f"alert:{alert['alert']}",
        "alert": alert["alert"],
        "alert_kind": alert["kind"],
        "severity": alert["severity"],
        "recipient": alert.get("recipient"),
        "database": alert.get("database"),
        "system": alert.get("system"),
        "client": alert.get("client"),
        "relations": names,
        "started_at": instant(raised),
        "detail": detail,
    }
    return Draft("alert", _storable(body))


def _storable(value: Any) -> Any:
    """Neither JSONB nor the ledger holds U+0000 or half a surrogate pair."""
    if isinstance(value, str):
        clean = value.replace("\0", "\ufffd")
        return clean.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {str(name): _storable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value


def undelivered(registry: sa.Connection, before: datetime) -> list[dict[str, Any]]:
    """Return the alerts that nobody will tell, as far as the registry knows, the oldest first.

    They are those of commands, which have no desk, and others that were raised before a time.
    """
    return [
        alert
        for alert, _ in alerts(registry, undelivered=True)
        if alert["kind"] in OF_COMMANDS or datetime.fromisoformat(alert["at"]) < before
    ]


def alerts(
    registry: sa.Connection,
    *,
    undelivered: bool = False,
    recipient: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = None,
) -> Iterator[tuple[dict[str, Any], datetime | None]]:
    """Yield alerts in the order they were raised, and when all sinks had taken each.

    ``since`` is inclusive, ``until`` is not; ``limit`` keeps the last ones.
    """
    table = tables.alert
    query = sa.select(table).order_by(table.c.raised_at, table.c.alert_id)
    if undelivered:
        query = query.where(table.c.delivered_at.is_(None))
    if recipient is not None:
        query = query.where(table.c.body["recipient"].astext == recipient)
    if since is not None:
        query = query.where(table.c.raised_at >= since)
    if until is not None:
        query = query.where(table.c.raised_at < until)
    if limit is not None:
        last = query.order_by(None).order_by(table.c.raised_at.desc(), table.c.alert_id.desc())
        tail = last.limit(limit).subquery()
        query = sa.select(tail).order_by(tail.c.raised_at, tail.c.alert_id)
    with problems(), registry.begin():
        rows = registry.execute(query).all()
    for row in rows:
        yield dict(row.body), row.delivered_at
