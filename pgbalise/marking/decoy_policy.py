"""The policy's part on decoys: how many, of what kind, and what columns say of a patient."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pgbalise.decoys.identity import Mode, Role
from pgbalise.errors import InvalidPolicy
from pgbalise.marking.document import only, split_name, table_of, text_of

MOST_DECOYS = 1_000
"""Decoys that a policy may give one recipient; more would change what the recipient counts."""


@dataclass(frozen=True)
class DecoyPolicy:
    """Which decoys recipients get."""

    entity: tuple[str, str]
    """Schema and name of the relation of the patients; the others with decoys depend on it."""
    per_recipient: int = 5
    mode: Mode = Mode.SAFE
    mail_domain: str = "example.org"
    """Where decoys have their mail addresses: the hospital's own domain, or a reserved one."""


# RFC 1035, section 2.3.4, and RFC 1123, section 2.1
_DOMAIN = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
)


def read_decoys(body: Mapping[str, Any], possible: Collection[tuple[str, str]]) -> DecoyPolicy:
    """Read the policy's part on decoys; ``possible`` are the relations that have decoys."""
    only(body, {"entity", "per_recipient", "mode", "mail_domain"}, "decoys")
    entity = split_name(text_of(body.get("entity"), "decoys: entity"), "decoys: entity")
    if entity not in possible:
        raise InvalidPolicy(
            f"decoys: entity: {body['entity']} is not a relation of the policy with decoys",
            hint="protect the relation of the patients, and write decoys = true in it",
        )
    number_each = body.get("per_recipient", 5)
    whole = isinstance(number_each, int) and not isinstance(number_each, bool)
    if not whole or not 1 <= number_each <= MOST_DECOYS:
        raise InvalidPolicy(f"decoys: per_recipient must be a whole number from 1 to {MOST_DECOYS}")
    try:
        mode = Mode(body.get("mode", Mode.SAFE))
    except ValueError:
        raise InvalidPolicy('decoys: mode must be "safe" or "believable"') from None
    domain = text_of(body.get("mail_domain", "example.org"), "decoys: mail_domain").lower()
    if not _DOMAIN.fullmatch(domain):
        raise InvalidPolicy(
            f"decoys: mail_domain: {domain!r} is no domain name",
            hint='write one that the establishment owns, or a reserved one such as "example.org"',
        )
    return DecoyPolicy(entity, number_each, mode, domain)


# a mark would make another number or address of it, by which the decoy is not recognised
_UNMARKED_ROLES = frozenset(Role) - {Role.SEX, Role.BIRTH_DATE, Role.BIRTH_PLACE, Role.EMPTY}


def read_identity(value: object, where: str, carriers: Collection[str]) -> Mapping[str, Role]:
    """Read what columns say of who somebody is."""
    found: dict[str, Role] = {}
    for column, text in sorted(table_of(value, where).items()):
        try:
            role = Role(text)
        except ValueError:
            raise InvalidPolicy(
                f"{where} {column}: it says {text!r} of nobody",
                hint=f"known: {', '.join(role.value for role in Role)}",
            ) from None
        if role is not Role.EMPTY and role in found.values():
            raise InvalidPolicy(f"{where}: two columns are a patient's {role.value}")
        if role in _UNMARKED_ROLES and column in carriers:
            raise InvalidPolicy(
                f"{where} {column}: it is a carrier, and a decoy is recognised by it",
                hint="leave the carrier out",
            )
        found[column] = role
    return found


def read_parents(
    value: object, where: str, carriers: Collection[str]
) -> Mapping[str, tuple[str, str]]:
    """Read which columns refer to the key of which relation."""
    found: dict[str, tuple[str, str]] = {}
    for column, text in sorted(table_of(value, where).items()):
        if column in carriers:
            raise InvalidPolicy(
                f"{where} {column}: it is a carrier, and marked it refers to nothing"
            )
        found[column] = split_name(text_of(text, f"{where} {column}"), f"{where} {column}")
    return found
