"""Copy which decoys were issued and retired into the registry, as digests of their identities.

A digest in the ledger proves, when a leak turns up, that the decoy was there before: with the
salt, which the hospital's database keeps, anybody can compute it from the identity.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from pgbalise.database import applied_documents
from pgbalise.decoybook import identity_digests, issued
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.errors import DatabaseProblem
from pgbalise.marking.policy import parse_policy
from pgbalise.registry import tables
from pgbalise.registry.ledger import instant
from pgbalise.registry.store import batches
from pgbalise.session import Session


def record_decoys(
    registry: sa.Connection, session: Session, database_id: int
) -> list[tuple[str, dict[str, Any]]]:
    """Store the decoys that are new or newly retired; return what the ledger is to say.

    One entry of kind ``decoys`` for each recipient and moment that decoys were issued, and one of
    kind ``decoys retired`` for each that some were. Raise DatabaseProblem when a decoy recorded
    earlier is gone, is another, or is no longer retired.
    """
    found = issued(session)
    recorded = _recorded(registry, database_id)
    if not found and not recorded:
        return []
    digests = identity_digests(session)
    by_key = {(decoy.recipient, _key(decoy.key)): decoy for decoy in found}
    _contradictions(recorded, by_key, digests)
    numbers = _recipients(registry, database_id)
    fresh, retired = [], []
    for name, decoy in by_key.items():
        row = recorded.get(name)
        if row is None:
            fresh.append(decoy)
        if decoy.retired_at is not None and (row is None or row.retired_at is None):
            retired.append(decoy)
    schema, relation = _entity(session) if fresh else ("", "")
    for batch in batches(fresh):
        registry.execute(
            sa.insert(tables.decoy),
            [
                {
                    "recipient_id": numbers[decoy.recipient],
                    "schema_name": schema,
                    "relation_name": relation,
                    "key": dict(decoy.key),
                    "identity_digest": digests[decoy.decoy_id],
                    "issued_at": decoy.issued_at,
                    "retired_at": decoy.retired_at,
                }
                for decoy in batch
            ],
        )
    for decoy in retired:
        row = recorded.get((decoy.recipient, _key(decoy.key)))
        if row is not None:
            registry.execute(
                sa.update(tables.decoy)
                .where(tables.decoy.c.decoy_id == row.decoy_id)
                .values(retired_at=decoy.retired_at)
            )
    return [*_told(fresh, digests), *_taken_back(retired)]


def _key(key: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(key.items()))


def _recorded(
    registry: sa.Connection, database_id: int
) -> dict[tuple[str, tuple[tuple[str, str], ...]], Any]:
    rows = registry.execute(
        sa.select(tables.decoy, tables.recipient.c.role_name)
        .join(tables.recipient)
        .where(tables.recipient.c.database_id == database_id)
    )
    return {(row.role_name, _key(row.key)): row for row in rows}


def _recipients(registry: sa.Connection, database_id: int) -> dict[str, int]:
    table = tables.recipient
    rows = registry.execute(
        sa.select(table.c.role_name, table.c.recipient_id).where(table.c.database_id == database_id)
    )
    return {row.role_name: row.recipient_id for row in rows}


def _entity(session: Session) -> tuple[str, str]:
    """The relation of the patients, in the newest policy that says it."""
    for document in reversed(applied_documents(session)):
        policy = parse_policy(document)
        if policy.decoys is not None:
            return policy.decoys.entity
    raise DatabaseProblem("there are decoys, but no policy ever said which relation they are of")


def _contradictions(
    recorded: dict[tuple[str, tuple[tuple[str, str], ...]], Any],
    now: dict[tuple[str, tuple[tuple[str, str], ...]], IssuedDecoy],
    digests: dict[int, bytes],
) -> None:
    wrong = []
    for name, row in recorded.items():
        decoy = now.get(name)
        if decoy is None:
            wrong.append(f"a decoy of {row.role_name} is gone")
        elif digests[decoy.decoy_id] != bytes(row.identity_digest):
            wrong.append(f"decoy {decoy.name} is somebody else")
        elif decoy.issued_at != row.issued_at:
            wrong.append(f"decoy {decoy.name} was issued at another time")
        elif row.retired_at is not None and decoy.retired_at != row.retired_at:
            wrong.append(f"the retirement of decoy {decoy.name} is undone or of another time")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise DatabaseProblem(
            f"the database contradicts the registry: {wrong[0]}{more}",
            hint="somebody changed the catalog, or this is another database of the same name",
        )


def _told(fresh: list[IssuedDecoy], digests: dict[int, bytes]) -> list[tuple[str, dict[str, Any]]]:
    groups: dict[tuple[str, datetime], list[IssuedDecoy]] = defaultdict(list)
    for decoy in fresh:
        groups[decoy.recipient, decoy.issued_at].append(decoy)
    return [
        (
            "decoys",
            {
                "recipient": recipient,
                "issued_at": instant(at.astimezone(UTC)),
                "decoys": [
                    {"number": decoy.number, "identity_digest": digests[decoy.decoy_id].hex()}
                    for decoy in decoys
                ],
            },
        )
        for (recipient, at), decoys in sorted(groups.items())
    ]


def _taken_back(retired: list[IssuedDecoy]) -> list[tuple[str, dict[str, Any]]]:
    groups: dict[tuple[str, datetime], list[int]] = defaultdict(list)
    for decoy in retired:
        assert decoy.retired_at is not None
        groups[decoy.recipient, decoy.retired_at].append(decoy.number)
    return [
        (
            "decoys retired",
            {
                "recipient": recipient,
                "retired_at": instant(at.astimezone(UTC)),
                "numbers": numbers,
            },
        )
        for (recipient, at), numbers in sorted(groups.items())
    ]
