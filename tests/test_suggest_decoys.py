"""What is suggested to be a patient's identity."""

from __future__ import annotations

import tomllib
from typing import Any

from pgbalise.marking.types import SqlType
from pgbalise.session import PsycopgSession
from pgbalise.suggest import suggest
from pgbalise.suggest_decoys import identity_columns, is_of_patients

ROWS: dict[str, list[str | None]] = {
    "ipp": ["8001", "8002"],
    "nom": ["DUPONT", None],
    "nom_naissance": ["DUPONT", "MARTIN"],
    "prenom": ["Marie", "Jean"],
    "ddn": ["1985-05-12", "1970-01-02"],
    "sexe": ["F", "M"],
    "nir": ["285057800608491", None],
    "tel": ["02 99 00 00 00", "0299000001"],
    "mail": ["a@b.fr", ""],
    "ville": ["Rennes", "Brest"],
}
TYPES = {
    name: SqlType.parse("date" if name == "ddn" else "text")
    for name in (
        "ipp",
        "nom",
        "prenom",
        "ddn",
        "sexe",
        "nir",
        "tel",
        "mail",
        "ville",
        "nom_naissance",
    )
}


def test_columns_are_recognised_by_name_and_values() -> None:
    found = {name: role.value for name, role in identity_columns(TYPES, ROWS).items()}
    assert found == {
        "ipp": "record_number", "nom": "family_name", "nom_naissance": "birth_name",
        "prenom": "given_name", "ddn": "birth_date", "sexe": "sex", "nir": "nir", "tel": "phone",
        "mail": "mail",
    }  # fmt: skip


def test_values_of_another_form_are_not_believed() -> None:
    rows = {**ROWS, "nir": ["12", "13"], "tel": ["poste 4", "poste 5"], "mail": ["x", "y"]}
    found = identity_columns(TYPES, rows)
    assert not {"nir", "tel", "mail"} & set(found)
    assert is_of_patients(found)
    assert not is_of_patients(identity_columns(TYPES, {**ROWS, "ddn": [None, None]}))


def test_a_suggested_policy_holds_what_to_write_for_decoys(dpi: Any) -> None:
    text = suggest(PsycopgSession(dpi), ["dpi"])
    assert "decoys" not in tomllib.loads(text)
    start = text.index("# decoys = true")
    lines = text[start:].splitlines()[:2]
    wanted = tomllib.loads("\n".join(line.removeprefix("# ") for line in lines))
    assert wanted["decoys"] is True
    assert wanted["identity"] == {
        "ipp": "record_number", "family_name": "family_name", "given_name": "given_name",
        "birth_date": "birth_date", "sex": "sex",
    }  # fmt: skip
    assert text.count("# decoys = true") == 1
