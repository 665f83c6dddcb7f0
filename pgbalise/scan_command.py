"""The command that looks for decoys in files: parse, call, print."""

from __future__ import annotations

import hashlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pgbalise.command import AsJson, err, out, print_json, working
from pgbalise.errors import InvalidInput

if TYPE_CHECKING:
    from pgbalise.decoys.issued import IssuedDecoy
    from pgbalise.scan.scanning import Findings, Hit


def scan(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Files and folders; - is standard input.", show_default=False
        ),
    ],
    decoys: Annotated[
        Path | None,
        typer.Option("--decoys", help="The decoys, as decoys export --format jsonl writes them."),
    ] = None,
    dsn: Annotated[
        str | None,
        typer.Option(
            "--dsn", help="Read the decoys from this database instead: libpq string or URI."
        ),
    ] = None,
    possible: Annotated[
        bool,
        typer.Option(
            "--possible", help="Also names without their birth date, and short record numbers."
        ),
    ] = False,
    registry: Annotated[
        str | None,
        typer.Option(
            "--registry",
            help="Record what is certain as alerts in this registry, one for each decoy and file.",
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print what stands there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether decoys are in files of any kind.

    Exit status 0 when a decoy was found, 1 when none was, 2 on an error, or when none was found
    and something could not be read.
    """
    from pgbalise.scan.book import Book
    from pgbalise.scan.scanning import scan as search

    if registry is not None:
        # hours later would be late to hear that there is none
        _record([], registry)
    with working(as_json) as progress:
        known = _decoys(decoys, dsn)
        if not known:
            raise InvalidInput("there are no decoys to look for", hint="pgbalise decoys generate")
        progress(f"{len(known)} decoys")
        findings = search(
            Book(known), paths, sys.stdin.buffer, possible=possible, progress=progress
        )
    if as_json:
        print_json(findings.as_dict(show=show))
    else:
        _print(findings, show)
    if registry is not None:
        recorded = _record(findings.hits, registry)
        if not as_json:
            out.print(f"{recorded} alerts in the registry")
    raise typer.Exit(findings.status)


def _decoys(file: Path | None, dsn: str | None) -> list[IssuedDecoy]:
    from pgbalise.decoybook import decoys_of_file, issued
    from pgbalise.session import connect

    if (file is None) == (dsn is None):
        raise InvalidInput("which decoys?", hint="give --decoys FILE or --dsn")
    if file is not None:
        return decoys_of_file(file)
    with connect(dsn or "") as session:
        return issued(session)


def _record(hits: list[Hit], registry: str) -> int:
    """Record the alerts of hits, those that are known already once; return how many they are."""
    from pgbalise.registry.alerts import record_alert
    from pgbalise.registry.store import open_registry
    from pgbalise.scan.telling import found_alerts

    digests = {name: _digest(name) for name in {hit.file for hit in hits if hit.certain}}
    known = {name: digest for name, digest in digests.items() if digest is not None}
    now = datetime.now(UTC)
    alerts = found_alerts(hits, known, now)
    with open_registry(registry) as connection:
        for alert in alerts:
            record_alert(connection, alert, now, told=False)
    return len(alerts)


def _digest(name: str) -> str | None:
    from pgbalise.scan.scanning import STANDARD_INPUT

    if name == STANDARD_INPUT:
        return None
    try:
        with Path(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        # it is gone, or its name cannot be printed as it is
        return None


def _print(findings: Findings, show: bool) -> None:
    # one line each, however long: a table would fold names of files, and cut those of decoys
    width = max((len(hit.decoy) for hit in findings.hits), default=0)
    for hit in findings.hits:
        where = f"{hit.file}!{hit.member}" if hit.member else hit.file
        certainty = "certain" if hit.certain else "possible"
        line = f"{hit.decoy:{width}}  {hit.kind:6}  {certainty:8}  {where}:{hit.line}"
        written = f"  {hit.written}" if show else ""
        out.print(Text(f"{line}  byte {hit.offset:,}{written}"), soft_wrap=True)
    for unread in findings.unread:
        where = f"{unread.file}!{unread.member}" if unread.member else unread.file
        err.print(Text(f"{where}: not read: {unread.reason}"), soft_wrap=True)
    files = f"{findings.files:,} file{'' if findings.files == 1 else 's'}"
    out.print(f"{findings.found:,} found in {files}, {findings.bytes:,} bytes")
