"""The reports' part of the command line: ``pgbalise report``.

Exit status: 0 done (``verify``: genuine), 1 the answer is no (``verify``: not genuine), 2 an error.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgbalise.command import AsJson, ReportLanguage, SigningKey, TimestampUrl
from pgbalise.errors import InvalidInput
from pgbalise.report.case import visible

if TYPE_CHECKING:
    from pgbalise.report.case import TraceReport
    from pgbalise.report.verification import Answer

report_app = typer.Typer(help="Reports of traces: check one, render one.")


@report_app.command("verify")
def report_verify(
    file: Annotated[Path, typer.Argument(help="HTML, PDF or JSON.", show_default=False)],
    public_key: Annotated[
        list[Path] | None,
        typer.Option("--public-key", help="A public key trusted to seal reports; repeatable."),
    ] = None,
    tsa_certificate: Annotated[
        list[Path] | None,
        typer.Option(
            "--tsa-certificate",
            help="A timestamp authority's certificate or its issuer's, PEM; repeatable.",
        ),
    ] = None,
    leak: Annotated[
        list[Path] | None,
        typer.Option("--leak", help="A file that the report must be about; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a report is genuine: sealed by a trusted key, and unchanged since."""
    from pgbalise.registry.signing import read_public_key
    from pgbalise.report.timestamp import read_certificates
    from pgbalise.report.verification import verify

    document = _read(file)
    digests = {path: _sha256(path) for path in leak or []}
    trusted = [read_public_key(path) for path in public_key or []]
    certificates = [one for path in tsa_certificate or [] for one in read_certificates(path)]
    try:
        answer = verify(document, trusted, certificates)
    except InvalidInput as problem:
        raise InvalidInput(f"{file}: {problem.message}", hint=problem.hint) from None
    examined = {one.sha256 for one in answer.facts.files} if answer.facts else set()
    about = {path: digest in examined for path, digest in digests.items()}
    if as_json:
        files = [
            {
                "file": str(path),
                "sha256": digests[path],
                "examined": known if answer.facts else None,
            }
            for path, known in about.items()
        ]
        typer.echo(json.dumps({"file": str(file), **answer.as_dict(), "leaks": files}))
    else:
        _tell(file, answer, about)
    raise typer.Exit(0 if answer.genuine and all(about.values()) else 1)


def _tell(file: Path, answer: Answer, about: dict[Path, bool]) -> None:
    seal, facts = answer.seal, answer.facts
    typer.echo(
        f"{visible(str(file))}: {'genuine' if answer.genuine else f'not genuine: {answer.problem}'}"
    )
    if seal is not None:
        typer.echo(f"sealed on {seal.signed_at:%Y-%m-%d %H:%M:%S} UTC; the public key is")
        typer.echo(f"  {seal.public_key.hex()}")
        if answer.timestamp is not None:
            at, name = answer.timestamp.at, visible(answer.timestamp.authority)
            typer.echo(f"time confirmed: {at:%Y-%m-%d %H:%M:%S} UTC by {name}")
        elif seal.timestamp is not None:
            typer.echo("its timestamp was not checked: give --tsa-certificate")
        else:
            typer.echo("no timestamp: the time is the signer's own statement")
    if facts is None or not answer.genuine:
        return
    accused = [visible(name) for name in facts.verdict.accused]
    typer.echo(f"it names {', '.join(accused)}" if accused else "it names nobody")
    for path, known in about.items():
        said = "a file that the report is about" if known else "NOT a file that the report is about"
        typer.echo(f"{visible(str(path))}: {said}")


@report_app.command("render")
def report_render(
    facts: Annotated[Path, typer.Argument(help="A report: JSON, HTML or PDF.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="FILE.html, .pdf or .json.", show_default=False)
    ],
    language: ReportLanguage = "en",
    signing_key: SigningKey = None,
    timestamp: TimestampUrl = None,
    as_json: AsJson = False,
) -> None:
    """Write a report anew from its facts, in another format or language, or sealed."""
    from pgbalise.report.publish import publication

    target = publication(output, language, signing_key, timestamp)
    try:
        report = _facts(_read(facts))
    except InvalidInput as problem:
        raise InvalidInput(f"{facts}: {problem.message}", hint=problem.hint) from None
    target.write(report, datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps({"report": str(output), "sealed": signing_key is not None}))
    else:
        typer.echo(f"report: {output}")


def _facts(document: bytes) -> TraceReport:
    """Return a report's facts; those of a sealed one only if they are what was sealed."""
    from pgbalise.report.sealing import is_sealed, unseal
    from pgbalise.report.verification import facts_of

    return facts_of(unseal(document)[0] if is_sealed(document) else document)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise InvalidInput(f"{path}: the report cannot be read: {problem.strerror}") from None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise InvalidInput(f"{path}: the leak cannot be read: {problem.strerror}") from None
