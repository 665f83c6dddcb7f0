"""Decoys and the ways to write them, for tests of scanning."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
import zipfile
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from faker.providers.person.fr_FR import Provider
from stdnum.fr import nir as stdnum_nir

from pgbalise.decoys.identity import Mode, Role
from pgbalise.decoys.issued import IssuedDecoy

if TYPE_CHECKING:
    from collections.abc import Mapping


def make_decoys(count: int, seed: int = 1) -> list[IssuedDecoy]:
    """Return decoys with a record number, NIR, names, birth date, telephones and mail."""
    drawn = random.Random(seed)
    found = []
    for index in range(count):
        female = drawn.random() < 0.5
        born = date(1930, 1, 1) + timedelta(drawn.randrange(30_000))
        given = drawn.choice(Provider.first_names_female if female else Provider.first_names_male)
        family = drawn.choice(Provider.last_names)
        nir = f"{2 if female else 1}{born:%y%m}{drawn.randrange(1, 96):02d}"
        nir += f"{drawn.randrange(990, 1000)}{drawn.randrange(1, 1000):03d}"
        identity = {
            Role.RECORD_NUMBER: f"8{drawn.randrange(10**9):09d}",
            Role.NIR: nir + stdnum_nir.calc_check_digits(nir),
            Role.FAMILY_NAME: family.upper(),
            Role.GIVEN_NAME: given,
            Role.BIRTH_DATE: born.isoformat(),
            Role.SEX: "F" if female else "M",
            Role.MOBILE: f"063998{(7_919 * index + 31 * seed) % 10_000:04d}",
            Role.MAIL: f"patient.{index}.{seed}@example.org",
        }
        issued = datetime(2026, 1, 1, tzinfo=UTC)
        recipient = f"role_{index // 5}"
        found.append(
            IssuedDecoy(index + 1, recipient, index % 5 + 1, Mode.SAFE, identity, {}, {}, issued)
        )
    return found


def sentences(decoy: IssuedDecoy) -> list[tuple[str, str]]:
    """Return ways to write a decoy, each with the kind of trait that it shows."""
    who = decoy.identity
    born = date.fromisoformat(who[Role.BIRTH_DATE])
    nir, phone = who[Role.NIR], who[Role.MOBILE]
    spaced = f"{nir[0]} {nir[1:3]} {nir[3:5]} {nir[5:7]} {nir[7:10]} {nir[10:13]} {nir[13:]}"
    dotted = ".".join(phone[n : n + 2] for n in range(0, 10, 2))
    family, given = who[Role.FAMILY_NAME], who[Role.GIVEN_NAME]
    return [
        ("nir", f"INS {spaced} qualified"),
        ("nir", f"nir={nir};"),
        ("phone", f"tel. {dotted}"),
        ("phone", f"<+33 (0){phone[1]} {phone[2:4]} {phone[4:6]} {phone[6:8]} {phone[8:]}>"),
        ("mail", f"to: {who[Role.MAIL].upper()}"),
        ("record", f"IPP:{who[Role.RECORD_NUMBER]}"),
        ("person", f"{given} {family}, born {born:%d/%m/%Y}"),
        ("person", f"{born:%Y%m%d};{family.lower()};{given.upper()};F"),
    ]


def row(decoy: IssuedDecoy) -> dict[str, str]:
    """Return a decoy as a row of a table."""
    who = decoy.identity
    names = (Role.RECORD_NUMBER, Role.FAMILY_NAME, Role.GIVEN_NAME, Role.BIRTH_DATE, Role.MOBILE)
    return {role.value: who[role] for role in names}


def filler(lines: int, seed: int) -> str:
    """Return lines of numbers, dates and words, as hospitals write them."""
    drawn = random.Random(seed)
    return "".join(
        f"{n};{drawn.randrange(10**10):010d};DUPRE;Aline;{drawn.randrange(1940, 2020)}-03-0"
        f"{drawn.randrange(1, 10)};chol;{drawn.randrange(100, 300)}\n"
        for n in range(lines)
    )


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a zip archive."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return target.getvalue()


def tarred(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    """Return a tar archive."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return target.getvalue()


def office(path: str, body: str, text: str) -> bytes:
    """Return an office document: a zip archive of XML, one part with the text."""
    return zipped(
        {
            "[Content_Types].xml": b'<?xml version="1.0"?><Types/>',
            path: f'<?xml version="1.0"?><{body} xmlns="x">{text}</{body}>'.encode(),
        }
    )


def as_json(decoy: IssuedDecoy) -> bytes:
    """Return a decoy as a FHIR patient, indented."""
    who = decoy.identity
    patient = {
        "resourceType": "Patient",
        "name": [{"family": who[Role.FAMILY_NAME], "given": [who[Role.GIVEN_NAME]]}],
        "gender": "female",
        "birthDate": who[Role.BIRTH_DATE],
    }
    return json.dumps(patient, indent=2).encode()


_END = 0xFFFFFFFE
_FREE = 0xFFFFFFFF


def compound(streams: Mapping[str, bytes]) -> bytes:
    """Return a compound file ([MS-CFB], version 3) with these streams, one storage deep at most.

    Streams are padded with blanks to the size from which they have sectors of their own.
    """
    entries: list[tuple[str, int, bytes, list[int]]] = [("Root Entry", 5, b"", [])]
    folders = {"": 0}
    for name, body in streams.items():
        folder, _, leaf = name.rpartition("/")
        if folder not in folders:
            folders[folder] = len(entries)
            entries[0][3].append(len(entries))
            entries.append((folder, 1, b"", []))
        entries[folders[folder]][3].append(len(entries))
        entries.append((leaf, 2, body.ljust(4_096), []))
    sectors: list[bytes] = []
    chains: list[int] = []

    def store(body: bytes) -> int:
        first = len(sectors)
        parts = [body[n : n + 512].ljust(512, b"\0") for n in range(0, len(body), 512)]
        sectors.extend(parts)
        chains.extend([*range(first + 1, first + len(parts)), _END])
        return first

    starts = [store(body) if kind == 2 else 0 for _, kind, body, _ in entries]
    right = [_FREE] * len(entries)
    child = [_FREE] * len(entries)
    for index, (_, _, _, members) in enumerate(entries):
        members.sort(key=lambda member: (len(entries[member][0]), entries[member][0].upper()))
        if members:
            child[index] = members[0]
        for one, other in pairwise(members):
            right[one] = other
    listed = b""
    for index, (name, kind, body, _) in enumerate(entries):
        title = name.encode("utf-16-le") + b"\0\0"
        listed += title.ljust(64, b"\0") + struct.pack(
            "<HBBIII16sIQQIQ",
            len(title),
            kind,
            1,
            _FREE,
            right[index],
            child[index],
            b"",
            0,
            0,
            0,
            starts[index] if kind == 2 else _END,
            len(body),
        )
    directory = store(listed)
    table = len(sectors)
    chains.append(0xFFFFFFFD)
    fat = struct.pack(f"<{len(chains)}I", *chains).ljust(512, b"\xff")
    assert len(fat) == 512, "too much for one sector of the table"
    header = struct.pack(
        "<8s16sHHHHH6xIIIIIIIIII",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"",
        0x3E,
        3,
        0xFFFE,
        9,
        6,
        0,
        1,
        directory,
        0,
        4_096,
        _END,
        0,
        _END,
        0,
        table,
    )
    return b"".join((header.ljust(512, b"\xff"), *sectors, fat))
