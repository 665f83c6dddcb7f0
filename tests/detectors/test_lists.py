from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pgbalise.decoybook import decoys_of_file
from pgbalise.decoys.traits import Trait, mail_trait, nir_trait, person_trait, phone_trait
from pgbalise.detectors.formats import FormatName
from pgbalise.detectors.lists import scrypt_hash, sha256_hash
from tests.detectors.leaking import ALMOST, SPELLED, awkward, decoy, files_of, patients, real_rows


def grepped(patterns: Path, text: str) -> bool:
    done = subprocess.run(
        ["grep", "-F", "-i", "-w", "-q", "-f", patterns], input=text.encode(), env={"LC_ALL": "C"}
    )
    assert done.returncode in (0, 1)
    return done.returncode == 0


def test_grep_finds_numbers_and_addresses_with_the_list(tmp_path: Path) -> None:
    patterns = tmp_path / "decoys.txt"
    patterns.write_bytes(files_of(FormatName.LIST, [decoy(), *awkward()])["decoys.txt"])
    for name in ("record", "nir", "phone", "mobile", "dotted", "mail", "rpps"):
        assert grepped(patterns, SPELLED[name]), name
    for name, text in ALMOST.items():
        assert not grepped(patterns, text), name
    assert not grepped(patterns, real_rows())


def test_decoys_are_read_again_with_everything(tmp_path: Path) -> None:
    some = [decoy(), *awkward()]
    file = tmp_path / "decoys.jsonl"
    file.write_bytes(files_of(FormatName.JSONL, some)["decoys.jsonl"])
    assert decoys_of_file(file) == sorted(some, key=lambda each: (each.recipient, each.number))


@pytest.mark.parametrize("form", [FormatName.HASHES, FormatName.SCRYPT])
def test_whoever_has_a_record_can_look_up_its_hash(form: FormatName) -> None:
    head, *lines = files_of(form, [decoy()])["decoys.hashes"].decode("ascii").splitlines()
    facts = dict(part.split("=") for part in head.replace(",", "").split() if "=" in part)
    assert (facts["made"], facts["expires"]) == ("2026-11-22", "2027-02-20")
    salt = bytes.fromhex(facts["salt"])
    digest = sha256_hash if form is FormatName.HASHES else scrypt_hash

    def listed(trait: Trait | None) -> bool:
        assert trait is not None
        return f"{trait.kind.value}:{digest(salt, trait)}" in lines

    assert listed(person_trait("marie-helene LEFEVRE", "1985-05-12"))
    assert listed(phone_trait("+33 (0)6 39 98 12 34"))
    assert listed(nir_trait("2 85 05 78 999 084"))
    assert listed(mail_trait("Marie.Lefevre@patients.example.org"))
    assert not listed(person_trait("marie-helene LEFEVRE", "1985-05-13"))
    if form is FormatName.HASHES:
        for row in patients():
            names = f"{row['family_name']} {row['given_name']}"
            assert not listed(person_trait(names, row["birth_date"]))


def test_neither_list_tells_what_it_is_made_of() -> None:
    for form in (FormatName.HASHES, FormatName.SCRYPT):
        content = files_of(form, [decoy()])["decoys.hashes"].lower()
        for value in (b"brest", b"lefevre", b"8380809999", b"639981234"):
            assert value not in content
