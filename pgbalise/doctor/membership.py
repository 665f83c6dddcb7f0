"""Which roles a role can act as: pure reasoning over pg_auth_members.

From PostgreSQL 16 a membership says by itself whether the member inherits the group's privileges
(INHERIT), may SET ROLE to it (SET), or may give it away (ADMIN), also to itself and with both.
Before, every member may SET ROLE, and inherits unless it is NOINHERIT.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Membership:
    """One row of pg_auth_members."""

    member: str
    group: str
    inherit: bool
    set: bool
    admin: bool
    undo: str = ""
    """The statement that ends it; empty when none does."""


@dataclass(frozen=True)
class Reach:
    """What one role can act as; itself is among them."""

    become: frozenset[str]
    """Roles it can SET ROLE to, if need be after giving itself the membership."""
    privileges: frozenset[str]
    """Roles whose privileges it can use, in one way or another."""


def reaches(roles: Iterable[str], memberships: Sequence[Membership]) -> dict[str, Reach]:
    """Return what each of these roles can act as."""
    of: dict[str, list[Membership]] = {}
    for one in memberships:
        of.setdefault(one.member, []).append(one)
    return {role: _reach({role}, of) for role in roles}


def _reach(start: set[str], of: Mapping[str, Sequence[Membership]]) -> Reach:
    become = set(start)
    while True:
        become = _closure(become, {m: [e.group for e in es if e.set] for m, es in of.items()})
        used = _closure(become, {m: [e.group for e in es if e.inherit] for m, es in of.items()})
        given = {e.group for role in used for e in of.get(role, ()) if e.admin}
        if given <= become:
            return Reach(frozenset(become), frozenset(used))
        become |= given


def _closure(start: set[str], edges: Mapping[str, Sequence[str]]) -> set[str]:
    reached, new = set(start), list(start)
    while new:
        for group in edges.get(new.pop(), ()):
            if group not in reached:
                reached.add(group)
                new.append(group)
    return reached


def leaving(role: str, other: str, memberships: Sequence[Membership]) -> str:
    """Return the statements that end a role's memberships by which it can act as another."""
    mine = [m for m in memberships if m.member == role and (m.inherit or m.set or m.admin)]
    groups = reaches({m.group for m in mine}, memberships)
    statements = [m.undo for m in mine if other in groups[m.group].privileges and m.undo]
    return "; ".join(dict.fromkeys(statements))
