"""In the real tool: clamscan, with no signatures but these."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pytest

from pgbalise.detectors.formats import FormatName
from pgbalise.detectors.patterns import rule_name
from tests.detectors.leaking import (
    SPELLED,
    awkward,
    decoy,
    encoded_leaks,
    files_of,
    namesakes,
    real_rows,
    written,
)

pytestmark = pytest.mark.skipif(
    shutil.which("clamscan") is None, reason="clamscan is not installed (Debian: clamav)"
)


def scanned(signatures: bytes, folder: Path) -> dict[str, str]:
    """By file, the signature found."""
    database = folder.parent / "decoys.ldb"
    database.write_bytes(signatures)
    done = subprocess.run(
        ["clamscan", "--no-summary", "-d", database, "-r", folder], capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done
    assert "error" not in done.stderr.lower(), done
    lines = [line.rpartition(": ") for line in done.stdout.splitlines() if line]
    return {Path(path).name: what.removesuffix(" FOUND") for path, _, what in lines if what != "OK"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    return made


def test_signatures_find_every_spelling_and_encoding_and_nothing_near(folder: Path) -> None:
    one = decoy()
    expected = set()
    for name, content, held in encoded_leaks():
        (folder / name).write_bytes(content)
        expected |= {name} if held else set()
    found = scanned(files_of(FormatName.CLAMAV, [one])["decoys.ldb"], folder)
    assert set(found) == expected
    assert all(f".{rule_name(one)}." in what for what in found.values())


def test_real_rows_are_silent_and_a_namesake_is_found_only_by_birth_date(folder: Path) -> None:
    others = namesakes()[:2]
    (folder / "real.csv").write_text(real_rows())
    (folder / "leak.csv").write_text(real_rows() + written(dict(others[0].identity)))
    found = scanned(files_of(FormatName.CLAMAV, [decoy(), *others])["decoys.ldb"], folder)
    assert found == {"leak.csv": f"Pgbalise.Decoy.{rule_name(others[0])}.Person.UNOFFICIAL"}


def test_what_is_packed_or_attached_is_found(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.csv", SPELLED["csv"])
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "x", "a@example.org", "b@example.org"
    mail.set_content("Bonjour")
    mail.add_attachment(SPELLED["csv"].encode(), "text", "csv", filename="c.csv")
    (folder / "d.eml").write_bytes(bytes(mail))
    found = scanned(files_of(FormatName.CLAMAV, [decoy()])["decoys.ldb"], folder)
    assert set(found) == {"a.zip", "d.eml"}


def test_names_that_mean_something_to_the_tool_are_found_too(folder: Path) -> None:
    some = awkward()
    for one in some:
        (folder / rule_name(one)).write_text(written(dict(one.identity)))
    found = scanned(files_of(FormatName.CLAMAV, some)["decoys.ldb"], folder)
    assert set(found) == {rule_name(one) for one in some}
    assert all(f".{name}." in what for name, what in found.items())


def test_every_line_has_no_more_parts_than_allowed() -> None:
    for line in files_of(FormatName.CLAMAV, [decoy(), *awkward()])["decoys.ldb"].splitlines():
        name, block, _, *parts = line.decode("ascii").split(";")
        assert name.startswith("Pgbalise.Decoy.d")
        assert block == "Engine:81-255,Target:0"
        assert 1 <= len(parts) <= 64
