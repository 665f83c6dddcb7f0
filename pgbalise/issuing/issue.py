"""Decoys are made, written where the marked views find them, and taken back.

A decoy derives from the master key, its recipient and its number; so retiring one and making
another changes none of the others. The same key, number and state of the database give the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from pgbalise.compile.views import DECOYS
from pgbalise.database import applied_policy, check_master_key, recipients
from pgbalise.decoy_tables import keep_small, refuse_foreign_code, tables_with_decoys
from pgbalise.decoybook import enter, issued
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.errors import DatabaseProblem, InvalidInput, InvalidPolicy, InvalidRecipient
from pgbalise.install import installed
from pgbalise.issuing.free_keys import sequence_of, take_numbers
from pgbalise.issuing.making import Progress, Wanted, learn, make_batch, silent
from pgbalise.issuing.sampling import Use, family
from pgbalise.issuing.stored_values import (
    collided,
)
from pgbalise.marking.decoy_policy import MOST_DECOYS
from pgbalise.marking.policy import RecipientClass

if TYPE_CHECKING:
    from pgbalise.marking.keys import MasterKey
    from pgbalise.session import Session

BATCH: Final = 10_000
"""Decoys that are drawn at once."""


@dataclass(frozen=True)
class Issue:
    """What one making of decoys gave."""

    decoys: list[IssuedDecoy]
    """The new ones, by recipient and number."""
    rows: int = 0
    """Their rows in all relations."""
    out_of_order: int = 0
    """Rows whose number does not go with their time as the real ones' do: by these an attacker
    who sorts by number could find decoys. ``reserve`` makes them fewer, next time."""
    retired: int = 0
    """Decoys taken back because a real row has got one of their keys."""


def make_decoys(
    session: Session,
    key: MasterKey,
    names: Sequence[str] | None,
    count: int | None,
    now: datetime,
) -> list[IssuedDecoy]:
    """Give recipients decoys, and return the new ones; as ``issue_decoys``."""
    return issue_decoys(session, key, names, count, now).decoys


def issue_decoys(
    session: Session,
    key: MasterKey,
    names: Sequence[str] | None,
    count: int | None,
    now: datetime,
    progress: Progress = silent,
) -> Issue:
    """Give recipients decoys until each has ``count``, by default as many as the policy says.

    ``names``: only these recipients; None: all of class secondary who are not revoked. Decoys whose
    keys a real row has got since are retired first, and replaced. Must run inside one transaction.
    Raise InvalidPolicy when the policy says nothing of decoys or a column's
    values cannot be made, InvalidRecipient, InvalidInput for another master key or too few patients
    to learn from, DatabaseProblem when keys run out or somebody else makes decoys.
    """
    installed(session)
    _one_at_a_time(session)
    policy = applied_policy(session)
    if policy.decoys is None:
        raise InvalidPolicy(
            "the policy in force does not say which decoys to issue",
            hint="add [decoys] with entity, and apply it",
        )
    count = policy.decoys.per_recipient if count is None else count
    if not 1 <= count <= MOST_DECOYS:
        raise InvalidInput(f"count must be a whole number from 1 to {MOST_DECOYS}")
    check_master_key(session, key)
    roles = _chosen(session, names)
    members = family(session, policy)
    for member in members:
        refuse_foreign_code(session, member.relation)
    version = _policy_version(session)
    progress("looking at what is there", 0, 1)
    known = issued(session)
    clashing = collided(session, members, roles)
    if clashing:
        _retire(session, clashing, now)
    wanted = _wanted(known, roles, count, clashing)
    if not wanted:
        return Issue([], retired=len(clashing))
    run = learn(session, key, policy, members, known, now, progress)
    if _policy_version(session) != version:
        raise DatabaseProblem("the policy changed meanwhile", hint="run it again")
    made: list[IssuedDecoy] = []
    progress("making decoys", 0, len(wanted))
    for batch in _batches(wanted):
        made += make_batch(run, batch)
        progress("making decoys", len(made), len(wanted))
    enter(session, made, key.fingerprint())
    for member in members:
        keep_small(session, member.relation)
    return Issue(made, run.rows, run.out_of_order, len(clashing))


def retire(session: Session, names: Sequence[tuple[str, int]], now: datetime) -> int:
    """Take decoys back, by recipient and number: out of the views, while the catalog keeps them.

    Must run inside one transaction. Those retired before stay as they are. Returns how many were
    taken back. Raise InvalidInput when there is no such decoy.
    """
    installed(session)
    _one_at_a_time(session)
    by_name = {(d.recipient, d.number): d for d in issued(session, [role for role, _ in names])}
    unknown = [f"{role}/{number}" for role, number in names if (role, number) not in by_name]
    if unknown:
        raise InvalidInput(
            f"there is no decoy {unknown[0]}", hint="pgbalise decoys list shows them"
        )
    active = [by_name[name] for name in dict.fromkeys(names) if by_name[name].retired_at is None]
    _retire(session, [decoy.decoy_id for decoy in active], now)
    return len(active)


def reserve(session: Session, count: int) -> dict[str, int]:
    """Take numbers from the sequences of all relations with decoys, for decoys to have later.

    When those are made, the numbers are holes among real ones, and so fit in time. Returns by
    ``schema.relation`` the last number taken. Raise InvalidPolicy without decoys in the policy.
    """
    installed(session)
    if not 1 <= count <= 1_000_000:
        raise InvalidInput("count must be a whole number from 1 to 1,000,000")
    taken = {}
    for member in family(session, applied_policy(session)):
        for name in member.using(Use.NUMBER):
            sequence = sequence_of(session, member, name)
            if sequence is not None:
                taken[member.relation.qualified] = take_numbers(session, sequence, count)[-1]
    return taken


def _one_at_a_time(session: Session) -> None:
    """Wait for whoever else makes or retires decoys; readers go on."""
    session.fetch("LOCK TABLE balise.decoy IN SHARE ROW EXCLUSIVE MODE")


def _policy_version(session: Session) -> int:
    [(version,)] = session.fetch(
        "SELECT max(version) FROM balise.policy WHERE applied_at IS NOT NULL"
    )
    return int(version)


def _chosen(session: Session, names: Sequence[str] | None) -> list[str]:
    """The recipients who are to have decoys."""
    known = {recipient.role: recipient for recipient in recipients(session)}
    able = [
        role
        for role, recipient in known.items()
        if recipient.revoked_at is None and recipient.recipient_class is RecipientClass.SECONDARY
    ]
    if names is None:
        if not able:
            raise InvalidRecipient(
                "nobody is enrolled for secondary use", hint="pgbalise recipient add ROLE"
            )
        return able
    for name in names:
        if name not in known:
            raise InvalidRecipient(f"role {name} is not enrolled")
        if known[name].revoked_at is not None:
            raise InvalidRecipient(f"role {name} is revoked")
        if name not in able:
            raise InvalidRecipient(f"role {name} is enrolled for care, and never gets a decoy")
    return list(dict.fromkeys(names))


def _wanted(
    known: Sequence[IssuedDecoy], roles: Sequence[str], count: int, clashing: Sequence[int]
) -> list[Wanted]:
    active, last = dict.fromkeys(roles, 0), dict.fromkeys(roles, 0)
    gone = set(clashing)
    for decoy in known:
        if decoy.recipient in active:
            last[decoy.recipient] = max(last[decoy.recipient], decoy.number)
            active[decoy.recipient] += decoy.retired_at is None and decoy.decoy_id not in gone
    return [
        Wanted(role, last[role] + more)
        for role in roles
        for more in range(1, count - active[role] + 1)
    ]


def _batches(wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """Cut into parts of about BATCH decoys; those of one recipient stay together."""
    part: list[Wanted] = []
    for one in wanted:
        if len(part) >= BATCH and one.recipient != part[-1].recipient:
            yield part
            part = []
        part.append(one)
    if part:
        yield part


def _retire(session: Session, decoys: Sequence[int], now: datetime) -> None:
    if not decoys:
        return
    ids = list(decoys)
    session.fetch(
        "UPDATE balise.decoy SET retired_at = $2::timestamptz WHERE decoy_id = ANY ($1::bigint[])",
        ids,
        now.isoformat(),
    )
    _remove(session, ids)


def _remove(session: Session, decoys: Sequence[int]) -> None:
    """Delete decoys' rows, found by their recipient and number."""
    for name in tables_with_decoys(session):
        session.run(
            "DELETE FROM %I.%I AS d USING balise.decoy AS b WHERE d.balise_recipient = b.role_name"
            " AND d.balise_decoy = b.decoy_id AND b.decoy_id = ANY (%L::bigint[])",
            DECOYS,
            name,
            "{" + ",".join(map(str, decoys)) + "}",
        )
