"""Decoys, leaks that hold them in one spelling or another, and rows of patients who do exist."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache

from pgbalise.decoys.identity import Mode, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.demo.cohort import build_cohort
from pgbalise.detectors.export import Export
from pgbalise.detectors.formats import FORMATS, FormatName
from pgbalise.detectors.patterns import select

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

IDENTITY = {
    Role.RECORD_NUMBER: "8380809999",
    Role.NIR: "285057899908430",
    Role.FAMILY_NAME: "LEFÈVRE",
    Role.GIVEN_NAME: "Marie-Hélène",
    Role.BIRTH_DATE: "1985-05-12",
    Role.SEX: "F",
    Role.PHONE: "0261912345",
    Role.MOBILE: "06 39 98 12 34",
    Role.MAIL: "marie.lefevre@patients.example.org",
    Role.RPPS: "10003456782",
}

SPELLED = {
    "csv": 'id;nom;prenom;ddn\r\n1;"LEFÈVRE";"Marie-Hélène";12/05/1985\r\n',
    "json": '[{"nom": "Lefèvre", "prenom": "Marie-Hélène", "ne_le": "1985-05-12"}]',
    "insert": "INSERT INTO p VALUES (1, 'LEFEVRE', 'MARIE HELENE', '1985-05-12');",
    "swapped": "Patiente : marie hélène lefèvre,\nnée le 12 mai 1985 à Nantes",
    "date first": "19850512|LEFEVRE|MARIE-HELENE",
    "record": "IPP 8380809999, vue le 3 mars",
    "nir": "NIR : 2 85 05 78 999 084",
    "phone": "rappeler au +33 2 61 91 23 45 demain",
    "mobile": "mobile=0639981234;",
    "dotted": "tél. 06.39.98.12.34",
    "mail": "écrire à Marie.Lefevre@Patients.example.org ce soir",
    "rpps": "adressée par 10003456782",
}
"""Ways to write that decoy, each by one thing that tells it."""

ALMOST = {
    "another date": "LEFÈVRE;Marie-Hélène;13/05/1985",
    "another name": "LEFÈVRE;Marie;12/05/1985",
    "only the names": "LEFÈVRE;Marie-Hélène",
    "a longer number": "183808099990",
    "another's mail": "anne-marie.lefevre1@patients.example.org",
    "another's telephone": "0639981235",
}
"""What is not that decoy, though it is near."""

ENCODINGS = ("utf-8", "cp1252", "utf-16-le", "utf-16")


def decoy(
    identity: dict[Role, str] | None = None,
    *,
    number: int = 1,
    recipient: str = "vendor_brest",
    retired: bool = False,
) -> IssuedDecoy:
    """A decoy as it was issued."""
    return IssuedDecoy(
        40 + number,
        recipient,
        number,
        Mode.SAFE,
        IDENTITY if identity is None else identity,
        {},
        {"patient_id": str(900 + number)},
        NOW - timedelta(days=30),
        NOW - timedelta(days=1) if retired else None,
    )


@cache
def patients() -> tuple[dict[str, str], ...]:
    """The demonstration's patients."""
    table = build_cohort().patient
    return tuple(
        {name: value or "" for name, value in zip(table.columns, row, strict=True)}
        for row in table.rows()
    )


@cache
def real_rows() -> str:
    """The demonstration's patients, as CSV."""
    text = io.StringIO()
    lines = csv.DictWriter(text, list(patients()[0]))
    lines.writeheader()
    lines.writerows(patients())
    return text.getvalue()


def short_rows() -> str:
    """The patients again, with nothing but names and birth date in a line."""
    wanted = ("family_name", "given_name", "birth_date")
    return "\n".join(";".join(one[name] for name in wanted) for one in patients())


def strangers(count: int) -> list[IssuedDecoy]:
    """Decoys whose names and birth date are each some patient's."""
    draw = random.Random(3)
    return [
        decoy(
            {
                Role.FAMILY_NAME: draw.choice(patients())["family_name"],
                Role.GIVEN_NAME: draw.choice(patients())["given_name"],
                Role.BIRTH_DATE: draw.choice(patients())["birth_date"],
            },
            number=100 + number,
        )
        for number in range(count)
    ]


def namesakes() -> list[IssuedDecoy]:
    """Decoys that bear the names of patients, but have another's birth date."""
    some = patients()[5:500:100]
    return [
        decoy(
            {
                Role.FAMILY_NAME: one["family_name"],
                Role.GIVEN_NAME: one["given_name"],
                Role.BIRTH_DATE: other["birth_date"],
                Role.RECORD_NUMBER: f"99{number}0009991",
            },
            number=10 + number,
        )
        for number, (one, other) in enumerate(zip(some, [*some[1:], some[0]], strict=True))
    ]


AWKWARD = (
    'D"Arc\\',
    "O'Brien;|#",
    "/etc/passwd*?",
    "{x}$y%z",
    "Đỗ Œuvrard",
    "L’Hérault-d'Œuf",
    "(a)[b]^c.",
    "Nguyễn 🐟",
)
"""Names that mean something to some tool."""


def awkward() -> list[IssuedDecoy]:
    """Decoys of such names, given to recipients of such names."""
    return [
        decoy(
            {
                Role.FAMILY_NAME: name,
                Role.GIVEN_NAME: f"Zoé {name}",
                Role.BIRTH_DATE: "1950-08-01",
                Role.RECORD_NUMBER: f"IPP/{name}-2024",
                Role.MAIL: f"a'{number}$b@patients.example.org",
            },
            number=30 + number,
            recipient=f'r {name}"',
        )
        for number, name in enumerate(AWKWARD)
    ]


def export_of(
    form: FormatName, decoys: list[IssuedDecoy], *, named: bool = False, days: int | None = 90
) -> Export:
    """A request for a format."""
    selection = select(decoys, FORMATS[form].kinds, least=FORMATS[form].least)
    expires = NOW + timedelta(days=days) if days is not None else None
    return Export(selection, NOW, expires, named, b"0123456789abcdef")


def files_of(
    form: FormatName, decoys: list[IssuedDecoy], *, named: bool = False, days: int | None = 90
) -> dict[str, bytes]:
    """What a format's writer makes of decoys."""
    return dict(FORMATS[form].write(export_of(form, decoys, named=named, days=days)))


def written(identity: dict[Role, str]) -> str:
    """A line of a leak about somebody."""
    return f"{identity[Role.FAMILY_NAME]};{identity[Role.GIVEN_NAME]};{identity[Role.BIRTH_DATE]}"


def encoded_leaks() -> Iterator[tuple[str, bytes, bool]]:
    """Name, content and whether it holds the decoy: every leak in every encoding."""
    for texts, held in ((SPELLED, True), (ALMOST, False)):
        for name, text in texts.items():
            for encoding in ENCODINGS:
                yield f"{name}.{encoding}", text.encode(encoding), held
