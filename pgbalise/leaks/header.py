"""PURE. Whether the first row of a table names its columns, and names that are unique."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

Cells = Sequence[str | None]

TYPED: Final = re.compile(
    r"\s*+(?:[+-]?[\d\s.,'\u00a0\u202f]*\d[\d\s.,'\u00a0\u202f]*(?:[eE][+-]?\d+)?\s?%?"
    r"|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[T ].*)?"
    r"|\d{1,2}:\d\d(?::\d\d.*)?"
    r"|[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}|\\x[0-9a-f]*"
    r"|true|false|NULL|NaN|[^@\s]+@[^@\s]+\.\w+)\s*",
)
"""A value that is no name: a number, a date, a time, a UUID, a mail address."""

_WORD_LIST: Final = """
id ipp nip nir ins iep key cle code uid uuid rowid index num no number numero ref name nom
prenom prénom firstname lastname surname patronyme sexe sex gender genre birth birthdate dob
naissance death deces décès age date datetime time heure timestamp year annee année month mois
day jour adresse address street rue zip zipcode postal cp ville city commune pays country
region région tel telephone téléphone phone mobile mail email patient person personne visit
visite sejour séjour encounter service unite unité unit units ward doctor medecin médecin
practitioner diag diagnosis diagnostic loinc icd icd10 cim10 cim ccam atc ghm result resultat
résultat value valeur valeurs val test analyte analyse label libelle libellé description
comment commentaire note notes status statut state etat état type kind class categorie
catégorie category level niveau weight poids height taille bmi imc glucose creatinine hba1c
sodium potassium title titre first last middle start end debut début fin total count qty
quantity quantite amount price prix source
"""
_USUAL: Final = frozenset(_WORD_LIST.split())
_WORDS: Final = re.compile(r"[^\W\d_]+\d*")
_CAMEL: Final = re.compile(r"(?<=[a-zà-ÿ])(?=[A-Z])")
_ROWS: Final = 200


def is_header(first: Cells, body: Sequence[Cells]) -> bool:
    """Say whether the first row of a table names the columns of the rows below it."""
    named = [cell for cell in first if cell and cell.strip()]
    if not named or len(named) * 2 < len(first) or any(map(TYPED.fullmatch, named)):
        return False
    if any(len(cell) > 200 or "\n" in cell.strip() for cell in named):
        return False
    # Files put one behind the other have the header again.
    rows = [row for row in body[:_ROWS] if tuple(row) != tuple(first)]
    score = 2.0 * sum(map(_usual, named)) - (len(named) - len(set(named)))
    for index, cell in enumerate(first):
        below = [value for row in rows if index < len(row) and (value := row[index])]
        if cell and below:
            score += _evidence(cell, below)
    return score > 0


def _usual(cell: str) -> bool:
    words = _WORDS.findall(_CAMEL.sub("_", cell).lower())
    return any(word in _USUAL for word in words) and len(words) <= 5


def _evidence(cell: str, below: list[str]) -> float:
    """Return how much more a cell looks like the name of the values below than like one."""
    if sum(1 for value in below if TYPED.fullmatch(value)) * 5 >= len(below) * 4:
        return 2.0
    if cell in below:
        return -2.0
    style = _style(cell)
    alike = sum(1 for value in below if _style(value) == style) / len(below)
    if alike < 0.1:
        return 0.6
    return 0.3 if "_" in cell and style == "lower" else -0.6 * alike


def _style(value: str) -> str:
    if not any(character.isalpha() for character in value):
        return "other"
    spaced = " spaced" if " " in value.strip() else ""
    if value.islower():
        return "lower" + spaced
    if value.isupper():
        return "upper" + spaced
    return ("title" if value[:1].isupper() else "mixed") + spaced


def unique(names: Cells) -> tuple[str, ...]:
    """Return the names, unique: the second ``a`` is ``a 2``, an empty third ``column 3``."""
    seen: set[str] = set()
    answer = []
    for index, name in enumerate(names, 1):
        plain = " ".join(name.split()) if name else ""
        plain = plain or f"column {index}"
        given, again = plain, 1
        while given in seen:
            again += 1
            given = f"{plain} {again}"
        seen.add(given)
        answer.append(given)
    return tuple(answer)


def numbered(width: int) -> tuple[str, ...]:
    """Return the names of columns that the file does not name."""
    return tuple(f"column {index}" for index in range(1, width + 1))
