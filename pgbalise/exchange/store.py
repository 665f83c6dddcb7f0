"""What the region keeps: its members, their beacons, the hits. Every change is in the ledger."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from pgbalise.errors import DatabaseProblem, InvalidInput
from pgbalise.exchange import protocol
from pgbalise.exchange.messages import Beacon, Hit, Own, Report
from pgbalise.registry import tables
from pgbalise.registry.ledger import instant
from pgbalise.registry.store import Draft, append, lock, problems

PAGE = 1000
"""Rows of one page: own beacons, hits."""

_region = tables.exchange_region
_member = tables.exchange_member
_beacon = tables.exchange_beacon
_hit = tables.exchange_hit


@dataclass(frozen=True)
class Region:
    """A region as the server knows it; ``padding`` is secret, ``bits`` the length of prefixes."""

    name: str
    salt: bytes
    padding: bytes
    bits: int


@dataclass(frozen=True)
class Member:
    """An establishment that takes part."""

    member_id: int
    name: str


@dataclass(frozen=True)
class Listed:
    """A member as ``member list`` shows it."""

    name: str
    added_at: datetime
    token_at: datetime
    revoked_at: datetime | None
    beacons: int


class TooMany(InvalidInput):
    """A member would have more beacons than one may."""


def open_region(registry: sa.Connection, name: str, at: datetime) -> Region:
    """Make the region, with a salt of its own; raise InvalidInput when there is one already."""
    protocol.check_name(name)
    made = Region(
        name, secrets.token_bytes(protocol.SALT_BYTES), secrets.token_bytes(32), protocol.LEAST_BITS
    )
    with problems(), registry.begin():
        row = {
            "region_id": 1,
            "name": name,
            "version": protocol.VERSION,
            "salt": made.salt,
            "padding": made.padding,
            "bits": made.bits,
            "opened_at": at,
        }
        added = insert(_region).values(row).on_conflict_do_nothing()
        if registry.execute(added.returning(_region.c.region_id)).scalar() is None:
            raise InvalidInput("this registry keeps a region's exchange already")
        append(registry, [Draft("exchange region", {"name": name, "salt": made.salt.hex()})], at)
    return made


def region(registry: sa.Connection) -> Region:
    """Return the region; raise InvalidInput when there is none."""
    with problems(), registry.begin():
        row = registry.execute(sa.select(_region)).one_or_none()
    if row is None:
        raise InvalidInput("this registry keeps no exchange", hint="run pgbalise exchange init")
    if row.version != protocol.VERSION:
        raise DatabaseProblem("the region's protocol is of another version of pgbalise")
    return Region(row.name, bytes(row.salt), bytes(row.padding), row.bits)


def add_member(registry: sa.Connection, name: str, at: datetime, *, rotate: bool = False) -> str:
    """Add an establishment, or with ``rotate`` give one a new token; return the token.

    The old token is worth nothing from then on. A revoked member comes back with ``rotate``. Raise
    InvalidInput for a name that is taken, or with ``rotate`` for one that is not.
    """
    protocol.check_name(name)
    token = protocol.token_text(secrets.token_bytes(32))
    digest = protocol.token_digest(token)
    with problems(), registry.begin():
        if rotate:
            changed = registry.execute(
                sa.update(_member)
                .where(_member.c.name == name)
                .values(token_digest=digest, token_at=at, revoked_at=None)
            ).rowcount
            if not changed:
                raise _no_member()
        else:
            row = {"name": name, "token_digest": digest, "token_at": at, "added_at": at}
            added = insert(_member).values(row).on_conflict_do_nothing()
            if registry.execute(added.returning(_member.c.member_id)).scalar() is None:
                raise InvalidInput(
                    "there is a member of this name already", hint="--rotate gives a new token"
                )
        what = "token" if rotate else "added"
        append(registry, [Draft("exchange member", {"name": name, "change": what})], at)
    return token


def revoke_member(registry: sa.Connection, name: str, at: datetime) -> int:
    """End a member's access and withdraw its beacons; return how many.

    Raise InvalidInput for one who is no member, or not any more.
    """
    with problems(), registry.begin():
        revoked = registry.execute(
            sa.update(_member)
            .where(_member.c.name == name, _member.c.revoked_at.is_(None))
            .values(revoked_at=at)
            .returning(_member.c.member_id)
        ).scalar()
        if revoked is None:
            raise _no_member()
        gone = registry.execute(sa.delete(_beacon).where(_beacon.c.member_id == revoked)).rowcount
        body = {"name": name, "change": "revoked", "withdrawn": gone}
        append(registry, [Draft("exchange member", body)], at)
        _settle(registry, at)
    return gone


def _no_member() -> InvalidInput:
    return InvalidInput("there is no such member", hint="see pgbalise exchange member list")


def members(registry: sa.Connection, at: datetime) -> list[Listed]:
    """Return all establishments that take part or did, by name, with their beacons in force."""
    live = (
        sa.select(_beacon.c.member_id, sa.func.count().label("beacons"))
        .where(_beacon.c.expires_at > at)
        .group_by(_beacon.c.member_id)
        .subquery()
    )
    query = (
        sa.select(_member, sa.func.coalesce(live.c.beacons, 0).label("beacons"))
        .outerjoin(live, live.c.member_id == _member.c.member_id)
        .order_by(_member.c.name)
    )
    with problems(), registry.begin():
        return [
            Listed(row.name, row.added_at, row.token_at, row.revoked_at, row.beacons)
            for row in registry.execute(query)
        ]


def member_of(registry: sa.Connection, token: str) -> Member | None:
    """Return whose token this is, None when it is nobody's (any more)."""
    digest = protocol.token_digest(token)
    if digest is None:
        return None
    query = sa.select(_member).where(
        _member.c.token_digest == digest, _member.c.revoked_at.is_(None)
    )
    with problems(), registry.begin():
        row = registry.execute(query).one_or_none()
    # the index compared digests of 256 random bits, which tells nothing of another token
    if row is None or not hmac.compare_digest(bytes(row.token_digest), digest):
        return None
    return Member(row.member_id, row.name)


def publish(
    registry: sa.Connection,
    member: Member,
    beacons: Sequence[Beacon],
    withdrawn: Sequence[str],
    at: datetime,
    *,
    most: int,
) -> tuple[int, int]:
    """Withdraw own beacons, then publish some; return how many of each were there to do.

    A beacon whose reference is known takes the old one's place. Beacons that have expired are
    removed on the way, whosever they are. Raise TooMany, and change nothing, when the member would
    have more than ``most``.
    """
    with problems(), registry.begin():
        # one publication at a time: two that remove the same rows would wait for each other
        lock(registry)
        registry.execute(sa.delete(_beacon).where(_beacon.c.expires_at <= at))
        gone = 0
        if withdrawn:
            references = [bytes.fromhex(text) for text in withdrawn]
            gone = registry.execute(
                sa.delete(_beacon).where(
                    _beacon.c.member_id == member.member_id, _beacon.c.reference.in_(references)
                )
            ).rowcount
        if beacons:
            # one statement cannot write a row twice: the last of a reference counts
            rows = {
                beacon.reference: {
                    "member_id": member.member_id,
                    "reference": bytes.fromhex(beacon.reference),
                    "digest": bytes.fromhex(beacon.digest),
                    "seal": bytes.fromhex(beacon.seal),
                    "expires_at": beacon.expires_at,
                    "published_at": at,
                }
                for beacon in beacons
            }
            statement = insert(_beacon)
            registry.execute(
                statement.on_conflict_do_update(
                    index_elements=["member_id", "reference"],
                    set_={
                        name: statement.excluded[name]
                        for name in ("digest", "seal", "expires_at", "published_at")
                    },
                ),
                list(rows.values()),
            )
            if _count(registry, member) > most:
                raise TooMany(f"a member may have {most} beacons")
        body = {"member": member.name, "published": len(beacons), "withdrawn": gone}
        append(registry, [Draft("exchange publish", body)], at)
        _settle(registry, at)
    return len(beacons), gone


def _count(registry: sa.Connection, member: Member) -> int:
    query = sa.select(sa.func.count()).where(_beacon.c.member_id == member.member_id)
    return int(registry.execute(query).scalar_one())


def _settle(registry: sa.Connection, at: datetime) -> None:
    """Let the length of prefixes follow the number of beacons; the ledger's lock is held."""
    count = sa.select(sa.func.count()).select_from(_beacon).where(_beacon.c.expires_at > at)
    bits = protocol.bits_for(registry.execute(count).scalar_one())
    registry.execute(sa.update(_region).where(_region.c.bits != bits).values(bits=bits))


def own_beacons(
    registry: sa.Connection, member: Member, after: str, at: datetime
) -> tuple[list[Own], int]:
    """Return a page of a member's beacons in force by reference, and how many it has in all."""
    mine = sa.and_(_beacon.c.member_id == member.member_id, _beacon.c.expires_at > at)
    query = (
        sa.select(_beacon.c.reference, _beacon.c.expires_at)
        .where(mine, _beacon.c.reference > bytes.fromhex(after))
        .order_by(_beacon.c.reference)
        .limit(PAGE)
    )
    with problems(), registry.begin():
        rows = registry.execute(query).all()
        count = registry.execute(sa.select(sa.func.count()).where(mine)).scalar_one()
    own = [Own(reference=bytes(row.reference).hex(), expires_at=row.expires_at) for row in rows]
    return own, count


def range_entries(registry: sa.Connection, here: Region, prefix: str, at: datetime) -> list[bytes]:
    """Return the entries of a range answer."""
    low, high = protocol.bounds(prefix)
    query = sa.select(_beacon.c.digest, _beacon.c.seal).where(
        _beacon.c.digest >= low, _beacon.c.expires_at > at
    )
    if high is not None:
        query = query.where(_beacon.c.digest < high)
    with problems(), registry.begin():
        rows = registry.execute(query).all()
    return protocol.answer(prefix, [(bytes(row[0]), bytes(row[1])) for row in rows], here.padding)


def record_hit(registry: sa.Connection, member: Member, report: Report, at: datetime) -> list[str]:
    """Record where a decoy was met, once; return the names of the establishments told.

    That is none when nobody published the digest.
    """
    query = (
        sa.select(_beacon.c.member_id, _beacon.c.reference, _member.c.name)
        .join(_member)
        .where(_beacon.c.digest == bytes.fromhex(report.digest), _beacon.c.expires_at > at)
        .order_by(_member.c.name)
    )
    with problems(), registry.begin():
        found = registry.execute(query).all()
        drafts = []
        for owner in found:
            row = {
                "owner_id": owner.member_id,
                "reporter_id": member.member_id,
                "reference": bytes(owner.reference),
                "seen_at": report.seen_at,
                "received_at": at,
                "place": report.place,
                "severity": report.severity,
                "note": report.note,
            }
            statement = insert(_hit).values(row).on_conflict_do_nothing()
            number = registry.execute(statement.returning(_hit.c.hit_id)).scalar()
            if number is not None:
                body = {
                    "hit": number,
                    "reporter": member.name,
                    "owner": owner.name,
                    "reference": row["reference"].hex(),
                    "seen_at": instant(report.seen_at),
                    "place": report.place,
                    "severity": report.severity,
                }
                drafts.append(Draft("exchange hit", body))
        if drafts:
            append(registry, drafts, at)
    return sorted({owner.name for owner in found})


def own_hits(
    registry: sa.Connection, member: Member, after: int, since: datetime | None
) -> list[Hit]:
    """Return a page of the hits of a member's decoys, in the order they were recorded.

    ``since`` looks at when a hit was recorded, and is inclusive.
    """
    query = (
        sa.select(_hit, _member.c.name)
        .join(_member, _member.c.member_id == _hit.c.reporter_id)
        .where(_hit.c.owner_id == member.member_id, _hit.c.hit_id > after)
        .order_by(_hit.c.hit_id)
        .limit(PAGE)
    )
    if since is not None:
        query = query.where(_hit.c.received_at >= since)
    with problems(), registry.begin():
        return [
            Hit(
                hit=row.hit_id,
                reference=bytes(row.reference).hex(),
                reporter=row.name,
                seen_at=row.seen_at,
                received_at=row.received_at,
                place=row.place,
                severity=row.severity,
                note=row.note,
            )
            for row in registry.execute(query)
        ]
