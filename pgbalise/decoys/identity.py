"""What a column says of who somebody is."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """What a column says of who somebody is; the policy's words in ``identity = {column = ...}``.

    All others are clinical: their values follow the real joint distribution.
    """

    RECORD_NUMBER = "record_number"
    """The establishment's own number of a patient (IPP), in the site's format."""
    NIR = "nir"
    """The national number with its key, 15 characters; also the INS that is made of it."""
    NIR_13 = "nir_13"
    """The national number without its key."""
    FAMILY_NAME = "family_name"
    """The name in use."""
    BIRTH_NAME = "birth_name"
    GIVEN_NAME = "given_name"
    FULL_NAME = "full_name"
    """Family and given name in one column, in the column's own order and case."""
    SEX = "sex"
    BIRTH_DATE = "birth_date"
    BIRTH_PLACE = "birth_place"
    """INSEE's code of the municipality, or 99 and a country's three digits."""
    PHONE = "phone"
    MOBILE = "mobile"
    MAIL = "mail"
    STREET = "street"
    RPPS = "rpps"
    """The national number of a health professional, 11 digits."""
    FINESS = "finess"
    """The national number of an establishment, 9 digits."""
    EMPTY = "empty"
    """Left NULL: free text, documents, whatever would betray a decoy or quote a patient."""


Identity = Mapping[Role, str]
"""Who somebody is: texts as PostgreSQL prints them (dates ISO), only the roles asked for."""


class Mode(StrEnum):
    """How identities are drawn."""

    SAFE = "safe"
    """No number, telephone or address of it can ever be a person's."""
    BELIEVABLE = "believable"
    """In the ranges that persons have; nobody is known to hold it."""
