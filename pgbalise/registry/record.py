"""Copy what a hospital's database knows about its recipients and their decoys into the registry.

What was recorded once is held against what the database says now: a commitment, a class or an
enrolment that changed, or a recipient that is gone, means that somebody changed the catalog. So
does a decoy that is gone or somebody else by now. Of decoys' identities only digests are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from pgbalise.database import Recipient, check_commitments, epoch_uses, epochs, recipients
from pgbalise.errors import DatabaseProblem, InvalidInput
from pgbalise.marking.keys import MasterKey
from pgbalise.registry import tables
from pgbalise.registry.ledger import Entry, instant
from pgbalise.registry.record_decoys import record_decoys
from pgbalise.registry.store import Draft, append, lock, problems
from pgbalise.session import Session


def identity(session: Session) -> tuple[str, str]:
    """Return a database's name and the identifier of the server that it is in."""
    [(name, system)] = session.fetch(
        "SELECT current_database()::text, system_identifier::text FROM pg_control_system()"
    )
    return name, system


def record_database(
    registry: sa.Connection, session: Session, at: datetime, keys: Sequence[MasterKey] = ()
) -> list[Entry]:
    """Record a database's recipients and decoys; return the ledger's new entries, maybe none.

    The commitments of every epoch that marks with one of the master keys are checked first. Raise
    InvalidInput when a key is no epoch's; DatabaseProblem, and record nothing, when the database
    contradicts what was recorded earlier.
    """
    found = recipients(session)
    known = epochs(session)
    for key in keys:
        theirs = [epoch.number for epoch in known if epoch_uses(session, epoch, key)]
        if not theirs:
            raise InvalidInput(f"no epoch of this database marks with master key {key!r}")
        for number in theirs:
            check_commitments(key, number, [r for r in found if number in r.commitments])
    fingerprints = {epoch.number: epoch.key_fingerprint for epoch in known}
    name, system = identity(session)
    where = {"database": name, "system": system}
    with problems(), registry.begin():
        # a second recording waits, and so sees this one
        lock(registry)
        database_id = database_number(registry, name, system, at)
        _contradictions(registry, database_id, found)
        drafts = [
            Draft(kind, {**where, **body})
            for recipient in found
            for kind, body in _news(registry, database_id, recipient, at, fingerprints)
        ]
        drafts += [
            Draft(kind, {**where, **body})
            for kind, body in record_decoys(registry, session, database_id)
        ]
        return append(registry, drafts, at) if drafts else []


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def database_number(registry: sa.Connection, name: str, system: str, at: datetime) -> int:
    """Return a database's number in the registry, where it is written down if it is new."""
    table = tables.database
    known = registry.execute(
        sa.select(table.c.database_id).where(
            table.c.name == name, table.c.system_identifier == system
        )
    ).scalar()
    if known is not None:
        return int(known)
    made = registry.execute(
        sa.insert(table)
        .values(name=name, system_identifier=system, first_seen=at)
        .returning(table.c.database_id)
    )
    return int(made.scalar_one())


def _contradictions(registry: sa.Connection, database_id: int, found: list[Recipient]) -> None:
    """Raise DatabaseProblem unless everything recorded is still so."""
    now = {recipient.role: recipient for recipient in found}
    table, promised = tables.recipient, tables.commitment
    rows = registry.execute(sa.select(table).where(table.c.database_id == database_id)).all()
    wrong = []
    for row in rows:
        role = row.role_name
        recipient = now.get(role)
        if recipient is None:
            wrong.append(f"recipient {role} is gone")
            continue
        if recipient.recipient_class.value != row[3]:
            wrong.append(f"the class of {role} is another")
        if _moment(recipient.enrolled_at) != row.enrolled_at:
            wrong.append(f"the enrolment of {role} is of another time")
        if row.revoked_at is not None and (
            recipient.revoked_at is None or _moment(recipient.revoked_at) != row.revoked_at
        ):
            wrong.append(f"the revocation of {role} is undone or of another time")
        for epoch, digest in registry.execute(
            sa.select(promised.c.epoch, promised.c.commitment).where(
                promised.c.recipient_id == row.recipient_id
            )
        ):
            if recipient.commitments.get(epoch) != bytes(digest):
                wrong.append(f"the commitment of {role} for epoch {epoch} is another")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise DatabaseProblem(
            f"the database contradicts the registry: {wrong[0]}{more}",
            hint="somebody changed the catalog, or this is another database of the same name",
        )


def _news(
    registry: sa.Connection,
    database_id: int,
    recipient: Recipient,
    at: datetime,
    fingerprints: Mapping[int, str | None],
) -> list[tuple[str, dict[str, Any]]]:
    """Store what is new about a recipient; return what the ledger is to say."""
    news: list[tuple[str, dict[str, Any]]] = []
    role = {"recipient": recipient.role}
    table, promised = tables.recipient, tables.commitment
    revoked = _moment(recipient.revoked_at) if recipient.revoked_at else None
    row = registry.execute(
        sa.select(table.c.recipient_id, table.c.revoked_at).where(
            table.c.database_id == database_id, table.c.role_name == recipient.role
        )
    ).one_or_none()
    if row is None:
        enrolled = _moment(recipient.enrolled_at)
        values = {
            "database_id": database_id,
            "role_name": recipient.role,
            "class": recipient.recipient_class.value,
            "enrolled_at": enrolled,
        }
        recipient_id = registry.execute(
            sa.insert(table).values(values).returning(table.c.recipient_id)
        ).scalar_one()
        body = {"class": recipient.recipient_class.value, "enrolled_at": instant(enrolled)}
        news.append(("enrolment", role | body))
    else:
        recipient_id = row.recipient_id
    known = set(
        registry.execute(
            sa.select(promised.c.epoch).where(promised.c.recipient_id == recipient_id)
        ).scalars()
    )
    for epoch, digest in sorted(recipient.commitments.items()):
        if epoch in known:
            continue
        registry.execute(
            sa.insert(promised).values(
                recipient_id=recipient_id,
                epoch=epoch,
                commitment=digest,
                made_at=at,
                key_fingerprint=fingerprints[epoch],
            )
        )
        promise = {
            "epoch": epoch,
            "commitment": digest.hex(),
            "key_fingerprint": fingerprints[epoch],
        }
        news.append(("commitment", role | promise))
    if revoked is not None and (row is None or row.revoked_at is None):
        registry.execute(
            sa.update(table).where(table.c.recipient_id == recipient_id).values(revoked_at=revoked)
        )
        news.append(("revocation", role | {"revoked_at": instant(revoked)}))
    return news
