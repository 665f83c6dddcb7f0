"""``pgbalise report``: what an expert on another machine can check, and what a forger can not."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pgbalise.errors import EnvironmentProblem, InvalidInput, InvalidKey, PgbaliseError
from pgbalise.registry.signing import generate_signing_key, read_signing_key
from pgbalise.report.case import LeakFile, TraceReport
from pgbalise.report.commands import report_app
from pgbalise.report.facts import read_facts, write_facts
from pgbalise.report.publish import publication
from pgbalise.report.sealing import seal

from .conftest import Authority
from .test_facts import report

NOW = datetime(2026, 6, 8, 9, 0, 5, tzinfo=UTC)
LEAK = b"patient,value\n1,2\n"
FORMATS = ("html", "pdf", "json")


def case(name: str = "registry_rennes") -> TraceReport:
    made = report([41.4, -1.0], [name, "b"], "clinic", 0.5)
    return replace(made, files=(LeakFile("l.csv", hashlib.sha256(LEAK).hexdigest(), 18, 1),))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    generate_signing_key(folder / "auditor")
    generate_signing_key(folder / "forger")
    return folder


@pytest.fixture(scope="module")
def sealed(keys: Path) -> dict[str, bytes]:
    found = {}
    for ending in FORMATS:
        path = keys / f"report.{ending}"
        publication(path, "en", keys / "auditor").write(case(), NOW)
        found[ending] = path.read_bytes()
    return found


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(report_app, [str(argument) for argument in arguments])
    if isinstance(result.exception, PgbaliseError):
        raise result.exception
    return result


def verify(content: bytes, keys: Path, *more: object, key: str = "auditor") -> Result:
    path = keys / "to-check"
    path.write_bytes(content)
    return run("verify", path, "--public-key", keys / f"{key}.pub", *more)


@pytest.mark.parametrize("ending", FORMATS)
def test_sealed_report_is_genuine(sealed: dict[str, bytes], keys: Path, ending: str) -> None:
    result = verify(sealed[ending], keys)
    assert result.exit_code == 0, result.output
    assert "genuine" in result.output
    assert "sealed on 2026-06-08 09:00:05 UTC" in result.output
    assert "it names registry_rennes" in result.output


@pytest.mark.parametrize("ending", FORMATS)
def test_examined_leak_is_told_from_another_file(
    sealed: dict[str, bytes], keys: Path, ending: str
) -> None:
    (keys / "leak").write_bytes(LEAK)
    (keys / "other").write_bytes(LEAK + b" ")
    assert verify(sealed[ending], keys, "--leak", keys / "leak").exit_code == 0
    both = verify(sealed[ending], keys, "--leak", keys / "leak", "--leak", keys / "other", "--json")
    assert both.exit_code == 1
    answer = json.loads(both.output)
    assert answer["genuine"]
    assert [leak["examined"] for leak in answer["leaks"]] == [True, False]
    assert answer["accused"] == ["registry_rennes"]


@pytest.mark.parametrize("ending", FORMATS)
def test_key_inside_the_seal_is_not_trusted(
    sealed: dict[str, bytes], keys: Path, ending: str
) -> None:
    path = keys / "to-check"
    path.write_bytes(sealed[ending])
    unknown = run("verify", path)
    assert unknown.exit_code == 1
    assert "anybody could have made such a key" in unknown.output
    assert re.search(r"\b[0-9a-f]{64}\b", unknown.output)
    assert "registry_rennes" not in unknown.output
    other = verify(sealed[ending], keys, key="forger")
    assert other.exit_code == 1
    assert "not genuine" in other.output
    again = run(
        "verify",
        path,
        *("--public-key", keys / "forger.pub"),
        *("--public-key", keys / "auditor.pub"),
    )
    assert again.exit_code == 0


@pytest.mark.parametrize("ending", FORMATS)
def test_every_changed_byte_is_found(sealed: dict[str, bytes], keys: Path, ending: str) -> None:
    document = sealed[ending]
    for place in range(16, len(document), len(document) // 40):
        changed = bytearray(document)
        changed[place] ^= 0x04
        result = verify(bytes(changed), keys)
        assert result.exit_code == 1, place


def test_changed_facts_inside_the_page_are_found(sealed: dict[str, bytes], keys: Path) -> None:
    changed = sealed["html"].replace(b'"registry_rennes"', b'"vendor_brest"')
    assert changed != sealed["html"]
    result = verify(changed, keys)
    assert result.exit_code == 1
    assert "it is not what was signed" in result.output


@pytest.mark.parametrize("ending", FORMATS)
def test_report_without_seal_is_not_genuine(keys: Path, ending: str) -> None:
    path = keys / f"bare.{ending}"
    publication(path, "fr").write(case(), NOW)
    result = run("verify", path, "--public-key", keys / "auditor.pub")
    assert result.exit_code == 1
    assert "it has no seal" in result.output


HOSTILE = (
    '--><!--pgbalise-seal {"version":1}-->',
    "x\n%pgbalise-seal {}\n",
    '"}\n{"pgbalise-seal":{}}\n',
    '</script><script type="application/json" id="facts">\n{}\n</script>',
    "startxref\n0\n%%EOF\n",
    "/EmbeddedFile stream\n",
)


@pytest.mark.parametrize(
    ("ending", "name"),
    [
        *((ending, name) for ending in ("html", "json") for name in HOSTILE),
        ("pdf", "".join(HOSTILE)),
    ],
)
def test_hostile_names_forge_nothing(keys: Path, ending: str, name: str) -> None:
    path = keys / f"hostile.{ending}"
    made = case(name)
    publication(path, "en", keys / "auditor").write(replace(made, database=name), NOW)
    result = run("verify", path, "--public-key", keys / "auditor.pub", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["accused"] == [name]
    # nor does a name in a forged report bring a seal along
    publication(path, "en").write(replace(made, database=name), NOW)
    assert run("verify", path, "--public-key", keys / "auditor.pub").exit_code == 1


def test_seal_of_a_text_that_names_another_signer_is_not_genuine(keys: Path) -> None:
    """Who re-seals somebody's report must not appear as who made it."""
    forger = publication(keys / "x.html", "en", keys / "forger")
    forger.write(case(), NOW)
    content = (keys / "x.html").read_bytes()
    stripped = re.sub(rb"<!--pgbalise-seal .*\n", b"", content)
    resealed = seal(stripped, read_signing_key(keys / "auditor"), NOW)
    result = verify(resealed, keys)
    assert result.exit_code == 1
    assert "another signer" in result.output


def test_timestamp_is_checked_against_its_authority(keys: Path, authority: Authority) -> None:
    path = keys / "stamped.html"
    publication(path, "en", keys / "auditor", authority.url).write(case(), NOW)
    content = path.read_bytes()
    unchecked = verify(content, keys)
    assert unchecked.exit_code == 0
    assert "timestamp was not checked" in unchecked.output
    good = verify(content, keys, "--tsa-certificate", authority.certificate, "--json")
    assert good.exit_code == 0
    stamp = json.loads(good.output)["timestamp"]
    assert stamp["authority"] == "CN=Test authority"
    assert datetime.now(UTC) - datetime.fromisoformat(stamp["at"]) < timedelta(minutes=5)
    other = verify(content, keys, "--tsa-certificate", authority.other_certificate)
    assert other.exit_code == 1
    assert "no authority given vouches" in other.output


def test_silent_authority_costs_the_timestamp_not_the_report(keys: Path) -> None:
    path = keys / "late.html"
    with pytest.raises(EnvironmentProblem, match="sealed without a timestamp"):
        publication(path, "en", keys / "auditor", "http://127.0.0.1:1/").write(case(), NOW)
    result = run("verify", path, "--public-key", keys / "auditor.pub")
    assert result.exit_code == 0
    assert "no timestamp" in result.output
    assert "nobody; the time is the signer" in path.read_text("utf-8")


def test_missing_timestamp_is_told_when_asked_for(
    sealed: dict[str, bytes], keys: Path, authority: Authority
) -> None:
    result = verify(sealed["html"], keys, "--tsa-certificate", authority.certificate)
    assert result.exit_code == 1
    assert "it has no timestamp" in result.output


def test_timestamp_of_another_signature_does_not_pass(keys: Path, authority: Authority) -> None:
    """Not even when whoever holds the key puts it there."""
    from pgbalise.report.timestamp import request_timestamp

    earlier = request_timestamp(authority.url, b"an earlier signature")
    path = keys / "moved.html"
    publication(path, "en", keys / "auditor").write(case(), NOW)
    body = re.sub(rb"<!--pgbalise-seal .*\n", b"", path.read_bytes())
    moved = seal(body, read_signing_key(keys / "auditor"), NOW, lambda _: earlier)
    result = verify(moved, keys, "--tsa-certificate", authority.certificate)
    assert result.exit_code == 1
    assert "vouches" in result.output


@pytest.mark.parametrize("ending", FORMATS)
def test_report_is_rendered_anew_from_any_format(
    sealed: dict[str, bytes], keys: Path, ending: str
) -> None:
    source, target = keys / f"source.{ending}", keys / "rapport.html"
    source.write_bytes(sealed[ending])
    assert run("render", source, "-o", target, "--language", "fr").exit_code == 0
    text = target.read_text("utf-8")
    assert "Rapport de traçage" in text
    assert "pas signé" in text
    run("render", source, "-o", keys / "again.json", "--signing-key", keys / "forger")
    facts = read_facts((keys / "again.json").read_bytes().splitlines()[0])
    assert replace(facts, signer=None) == replace(case(), signer=None)
    assert run("verify", keys / "again.json", "--public-key", keys / "forger.pub").exit_code == 0


def test_changed_report_is_not_rendered(sealed: dict[str, bytes], keys: Path) -> None:
    source = keys / "changed.json"
    source.write_bytes(sealed["json"].replace(b"registry_rennes", b"vendor_brest"))
    with pytest.raises(InvalidInput, match="not what was signed"):
        run("render", source, "-o", keys / "no.html")
    assert not (keys / "no.html").exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"{", b"{}\n", b"%PDF-1.7\n", b"<!DOCTYPE html>\n", bytes(range(256))]
)
def test_malformed_report_is_an_error_or_not_genuine(keys: Path, content: bytes) -> None:
    path = keys / "malformed"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as problem:
        run("render", path, "-o", keys / "no.html")
    assert "\n" not in str(problem.value)
    if content[:5] in (b"{", b"{}\n", b"%PDF-", b"<!DOC"):
        assert run("verify", path).exit_code == 1
    else:
        with pytest.raises(InvalidInput, match="no report"):
            run("verify", path)


def test_what_cannot_be_written_is_told_before_any_work(keys: Path) -> None:
    for path, more, word in (
        ("x.docx", {}, "written"),
        ("x.html", {"timestamp_url": "http://127.0.0.1/"}, "signing-key"),
        ("x.html", {"signing_key": keys / "auditor", "timestamp_url": "ftp://h/"}, "address"),
    ):
        with pytest.raises(InvalidInput, match=word):
            publication(keys / path, "en", **more)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="en or fr"):
        publication(keys / "x.html", "de")
    with pytest.raises(InvalidKey):
        publication(keys / "x.html", "en", keys / "missing")
    with pytest.raises(InvalidInput, match="no such folder"):
        publication(keys / "no" / "x.html", "en")
    (keys / "taken.html").mkdir()
    with pytest.raises(InvalidInput, match="cannot be written"):
        publication(keys / "taken.html", "en").write(case(), NOW)


def test_checking_needs_neither_database_nor_data_frames(
    sealed: dict[str, bytes], keys: Path
) -> None:
    """On an expert's machine only the report extra is there."""
    path = keys / "alone.html"
    path.write_bytes(sealed["html"])
    code = (
        "import sys\n"
        "for name in ('psycopg', 'sqlalchemy', 'pyarrow', 'weasyprint', 'pandas', 'duckdb'):\n"
        "    sys.modules[name] = None\n"
        "from pgbalise.report.commands import report_app\n"
        "report_app()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "verify", path, "--public-key", keys / "auditor.pub"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "genuine" in done.stdout


def test_facts_are_the_whole_report(sealed: dict[str, bytes]) -> None:
    facts = read_facts(sealed["json"].splitlines()[0])
    assert facts.signer is not None
    assert write_facts(replace(facts, signer=None)) == write_facts(replace(case(), signer=None))
