"""Which columns say who a patient is, suggested from names and a sample of values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pgbalise.decoys.identity import Role
from pgbalise.decoys.traits import mail_trait, nir_trait, phone_trait, rpps_trait
from pgbalise.marking.types import SqlType

_NAMES: Final[Mapping[Role, str]] = {
    Role.RECORD_NUMBER: r"ipp|nip|mrn|num(ero)?_dossier|dossier|record_number|medical_record",
    Role.NIR: r"nir|ins|nss|num(ero)?_secu|matricule_ins|secu",
    Role.FAMILY_NAME: r"family_name|last_?name|surname|nom|nom_(usage|utilise|famille|patient)",
    Role.BIRTH_NAME: r"birth_name|maiden_name|nom_(naissance|jeune_fille|naiss)",
    Role.GIVEN_NAME: r"given_name|first_?name|prenom|prénom|prenom_(usage|utilise)",
    Role.SEX: r"sex|sexe|gender|genre",
    Role.BIRTH_DATE: r"birth_?date|date_of_birth|dob|ddn|date_naiss(ance)?|naissance",
    Role.BIRTH_PLACE: r"birth_place|lieu_naissance|insee_naissance|code_lieu_naissance",
    Role.MOBILE: r"mobile|portable|tel_portable|gsm",
    Role.PHONE: r"phone|telephone|tel|tel_fixe|tel_domicile",
    Role.MAIL: r"e?mail|courriel|adresse_mail|mel",
    Role.STREET: r"street|rue|adresse|adresse1|voie|address",
    Role.RPPS: r"rpps|num(ero)?_rpps",
}
_LOOKS: Final[Mapping[Role, Callable[[str], object]]] = {
    Role.NIR: nir_trait,
    Role.PHONE: phone_trait,
    Role.MOBILE: phone_trait,
    Role.MAIL: mail_trait,
    Role.RPPS: rpps_trait,
    Role.RECORD_NUMBER: re.compile(r"(?=.*[0-9])[0-9A-Za-z][0-9A-Za-z ._/-]{3,}").fullmatch,
    Role.SEX: re.compile(r".{1,10}").fullmatch,
    Role.BIRTH_PLACE: re.compile(r"[0-9][0-9AB][0-9]{3}").fullmatch,
}
_SURE: Final = 0.9
"""A role whose values have a form is suggested when so many of the sample have it."""
_PATIENT: Final = (Role.FAMILY_NAME, Role.GIVEN_NAME, Role.BIRTH_DATE)
"""What a relation says of each row that is about a person."""


def identity_columns(
    types: Mapping[str, SqlType], rows: Mapping[str, Sequence[str | None]]
) -> dict[str, Role]:
    """Return which columns of a relation say who somebody is, each role once.

    ``types`` are all its columns; ``rows`` a sample of their values as text.
    """
    found: dict[str, Role] = {}
    for role, names in _NAMES.items():
        for name, declared in types.items():
            known = [text for text in rows.get(name, ()) if text]
            if (
                name not in found
                and role not in found.values()
                and re.fullmatch(names, name, re.IGNORECASE)
                and (declared.name == "date") == (role is Role.BIRTH_DATE)
                and known
                and _fits(role, known)
            ):
                found[name] = role
    return found


def _fits(role: Role, values: Sequence[str]) -> bool:
    look = _LOOKS.get(role)
    if look is None:
        return True
    return sum(bool(look(text)) for text in values) >= _SURE * len(values)


def is_of_patients(identity: Mapping[str, Role]) -> bool:
    """Whether a relation says names and birth date of each row: its rows are persons."""
    return set(_PATIENT) <= set(identity.values())
