"""What the registry adds to a trace: extracts that the rows may be from, commitments recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING

import sqlalchemy as sa

from pgbalise.errors import InvalidInput
from pgbalise.registry import tables
from pgbalise.registry.extracts import listed
from pgbalise.registry.matching import Matches, Sought, match
from pgbalise.registry.record import identity
from pgbalise.registry.store import problems
from pgbalise.report.case import PossibleExtract, RecordedCommitment, TraceReport

if TYPE_CHECKING:
    from pgbalise.session import Session


@dataclass(frozen=True)
class Origin:
    """A patient database, as the registry knows it."""

    database: str
    system: str
    """The identifier of the server that it is in."""
    aliases: Mapping[str, str]
    """By the name of a marked view, the relation behind it."""
    commitments: Mapping[tuple[str, int], bytes]
    """By recipient and epoch, what the database itself keeps."""


def origin(session: Session) -> Origin:
    """Ask a patient database who it is."""
    from pgbalise.database import applied_documents, recipients
    from pgbalise.marking.policy import parse_policy

    database, system = identity(session)
    return Origin(
        database,
        system,
        {
            f"{schema}.{relation.view}": relation.qualified
            for policy in map(parse_policy, applied_documents(session))
            for schema in policy.schemas.values()
            for relation in policy.relations
        },
        {
            (one.role, epoch): digest
            for one in recipients(session)
            for epoch, digest in one.commitments.items()
        },
    )


def consulted(
    registry: sa.Connection, found: TraceReport, origin: Origin, found_at: datetime
) -> tuple[TraceReport, Matches]:
    """Return a report with what the registry knows, and the extracts with their contradictions.

    ``found_at``: when the leak was found. Raise InvalidInput when the registry recorded another
    commitment of someone accused than the database keeps.
    """
    matches = possible_extracts(registry, origin, sought(found, origin.aliases, found_at))
    recorded = _recorded(registry, found, origin)
    whole = len(recorded) == len(found.verdict.accused)
    return (
        replace(
            found,
            extracts=tuple(
                PossibleExtract(
                    one.sequence,
                    one.recipient,
                    one.started_at,
                    one.ended_at,
                    one.rows,
                    one.command,
                    one.relations,
                    one.application,
                    one.client,
                    one.fits,
                )
                for one in matches.best
                if not one.contradicts
            ),
            extracts_fitting=matches.fitting,
            commitments="registry" if recorded and whole else found.commitments,
            commitments_recorded=recorded,
        ),
        matches,
    )


def _recorded(
    registry: sa.Connection, found: TraceReport, origin: Origin
) -> tuple[RecordedCommitment, ...]:
    promised, known, databases = tables.commitment, tables.recipient, tables.database
    query = (
        sa.select(known.c.role_name, promised.c.commitment, promised.c.made_at)
        .join(known, known.c.recipient_id == promised.c.recipient_id)
        .join(databases, databases.c.database_id == known.c.database_id)
        .where(
            databases.c.name == origin.database,
            databases.c.system_identifier == origin.system,
            promised.c.epoch == found.epoch,
            known.c.role_name.in_(found.verdict.accused),
        )
        .order_by(known.c.role_name)
    )
    with problems(), registry.begin():
        rows = registry.execute(query).all()
    for row in rows:
        if bytes(row.commitment) != origin.commitments.get((row.role_name, found.epoch)):
            raise InvalidInput(
                f"the registry recorded another commitment of {row.role_name} in epoch"
                f" {found.epoch}",
                hint="the database's catalog was changed since",
            )
    return tuple(RecordedCommitment(row.role_name, row.made_at) for row in rows)


def sought(found: TraceReport, aliases: Mapping[str, str], found_at: datetime) -> Sought:
    """Return what an extract must fit to have been copied into the leak that was traced."""
    verdict = found.verdict
    seen: dict[str, set[str]] = {name: set() for name in found.relations}
    for part in found.carriers:
        if part.informative and part.relation is not None:
            seen.setdefault(part.relation, set()).add(part.carrier)
    return Sought(
        frozenset(verdict.accused),
        seen,
        aliases,
        found.distinct_rows,
        len(verdict.accused) > 1 or len(found.files) > 1,
        found.epoch,
        _moment(found.epoch_opened_at),
        _moment(found.epoch_closed_at),
        found_at,
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def possible_extracts(registry: sa.Connection, origin: Origin, about: Sought) -> Matches:
    """Return the extracts in the ledger that the leak may be a copy of."""
    names = [name for name, relation in about.aliases.items() if relation in about.carriers]
    with problems(), registry.begin():
        found = chain.from_iterable(
            listed(
                registry,
                kind="extract",
                recipient=recipient,
                database=origin.database,
                relations=[*about.carriers, *names],
            )
            for recipient in sorted(about.recipients)
        )
        # two servers may have databases of one name
        return match(
            (item for item in found if item.entry.body.get("system") == origin.system), about
        )
