"""``pgbalise decoys export``: decoys as other tools take them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pwd
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from pgbalise.command import AsJson, Dsn, err, out, print_json, working
from pgbalise.decoys.issued import IssuedDecoy, write_decoys
from pgbalise.decoys.traits import TraitKind
from pgbalise.detectors.export import Export, Files
from pgbalise.detectors.formats import FORMATS, FormatName
from pgbalise.detectors.patterns import Selection, rule_name, select
from pgbalise.errors import InvalidInput

_FORMATS = f"Of which tool: {', '.join(FormatName)}."


def export(
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="The file; for formats of several files a new folder, or FILE.zip.",
            show_default=False,
        ),
    ],
    format_name: Annotated[
        FormatName, typer.Option("--format", metavar="FORMAT", help=_FORMATS)
    ] = (FormatName.JSONL),
    recipient: Annotated[
        list[str] | None, typer.Option(help="Only decoys of this recipient; repeatable.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Until when it is to be used: 90d, or a date.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Only these kinds: record, nir, phone, mail, rpps, person; with commas."),
    ] = None,
    retired: Annotated[
        bool, typer.Option("--retired", help="Also decoys that were taken back.")
    ] = False,
    name_recipients: Annotated[
        bool, typer.Option("--name-recipients", help="Say in the rules whose decoy it is.")
    ] = False,
    dsn: Dsn = "",
    decoys: Annotated[
        Path | None,
        typer.Option(
            "--decoys",
            help="Decoys as --format jsonl writes them, instead of the database's.",
            show_default=False,
        ),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(
            "--registry",
            envvar="PGBALISE_REGISTRY",
            help="The registry, whose ledger is told of the export.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write decoys as rules, signatures, indicators or lists for the tools a hospital has."""
    now = datetime.now(UTC)
    until = _until(expires, now)
    form = FORMATS[format_name]
    if name_recipients and not form.names:
        raise InvalidInput(
            f"--name-recipients: {format_name} has no place for names",
            hint="the ledger, and --json, say whose decoy a rule is about",
        )
    kinds = _kinds(only)
    with working(as_json) as say:
        say("reading the decoys")
        book, where = _book(dsn, decoys, recipient)
        selection = select(book, form.kinds, kinds, least=form.least, retired=retired)
        if not selection.targets:
            raise InvalidInput(
                "there is no decoy to export", hint=_told(selection) or "see pgbalise decoys list"
            )
        say("writing")
        request = Export(selection, now, until, name_recipients, secrets.token_bytes(16))
        files = form.write(request)
        with _staged(output, files) as place:
            if registry is not None:
                say("telling the ledger")
                _record(registry, now, {**where, **_body(format_name, request, files)})
            place()
    _tell(output, format_name, request, files, as_json=as_json)


def _until(text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    try:
        if days := re.fullmatch(r"([0-9]{1,5})d", text):
            found = now + timedelta(days=int(days[1]))
        else:
            found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise InvalidInput("--expires: not a time", hint="90d, or 2027-01-31") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    if found <= now:
        raise InvalidInput("--expires: this time is past")
    return found


def _kinds(text: str | None) -> frozenset[TraitKind] | None:
    if text is None:
        return None
    try:
        return frozenset(TraitKind(word.strip()) for word in text.split(","))
    except ValueError:
        known = ", ".join(TraitKind)
        raise InvalidInput("--only: no such kind", hint=f"the kinds are {known}") from None


def _book(
    dsn: str, file: Path | None, recipients: Sequence[str] | None
) -> tuple[list[IssuedDecoy], dict[str, str]]:
    """Return the decoys, and which database they are from if it was asked."""
    from pgbalise.decoybook import decoys_of_file, issued

    if file is None:
        from pgbalise.session import connect

        with connect(dsn) as session:
            [(name,)] = session.fetch("SELECT current_database()::text")
            found, where = issued(session, recipients or None), {"database": str(name)}
    elif dsn:
        raise InvalidInput("give --dsn or --decoys, not both")
    else:
        wanted = set(recipients or ())
        everything = decoys_of_file(file)
        found = [each for each in everything if not wanted or each.recipient in wanted]
        where = {}
    missing = set(recipients or ()) - {decoy.recipient for decoy in found}
    if missing:
        raise InvalidInput(f"no decoy was issued to {min(missing)}")
    return found, where


def _body(name: FormatName, request: Export, files: Files) -> dict[str, Any]:
    """Return what the ledger is told: which decoys, and of what they are recognised again."""
    from pgbalise.registry.ledger import instant

    return {
        "format": name.value,
        "kinds": sorted(request.selection.kinds),
        "files": {file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
        "expires_at": instant(request.expires) if request.expires else None,
        "recipients_named": request.named or name is FormatName.JSONL,
        "decoys": [
            {
                "recipient": target.decoy.recipient,
                "number": target.decoy.number,
                "rule": target.rule,
                "digest": _digest(target.decoy),
            }
            for target in request.targets
        ],
    }


def _digest(decoy: IssuedDecoy) -> str:
    """Return the SHA-256 of a decoy's line of JSON, before it was retired."""
    line = write_decoys([dataclasses.replace(decoy, retired_at=None)])
    return hashlib.sha256(line.encode()).hexdigest()


def _record(dsn: str, now: datetime, body: dict[str, Any]) -> None:
    import sqlalchemy as sa

    from pgbalise.registry.store import Draft, append, open_registry, problems

    with open_registry(dsn) as registry, problems(), registry.begin():
        role = registry.execute(sa.text("SELECT session_user::text")).scalar_one()
        append(registry, [Draft("export", {**body, "by": _user(), "role": str(role)})], now)


def _user() -> str:
    """Return who runs this, as the system knows them: variables can be set by anyone."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@contextmanager
def _staged(output: Path, files: Files) -> Iterator[Any]:
    """Write files beside their place, and yield what puts them there, whole or not at all.

    Files have mode 0600, a folder 0700. Raise InvalidInput when they cannot be written, or when
    the place of a folder is taken.
    """
    if not output.name:
        raise InvalidInput("--output: this names no file")
    if output.exists() and not (output.is_file() or output.is_dir()):
        # a device, or a pipe: the file would take its place
        raise InvalidInput(f"{output}: cannot be written: not an ordinary file")
    unfinished = output.with_name(output.name + ".unfinished")
    try:
        if len(files) > 1 and output.suffix.lower() != ".zip":
            if output.exists():
                raise InvalidInput(
                    f"{output}: is there already", hint="give a new folder, or a FILE.zip"
                )
            unfinished.mkdir(mode=0o700)
            for name, content in files.items():
                _write(unfinished / name, content)
        else:
            _write(unfinished, _zipped(files) if len(files) > 1 else next(iter(files.values())))
        yield lambda: unfinished.replace(output)
    except OSError as problem:
        raise InvalidInput(f"{output}: cannot be written: {problem.strerror}") from None
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        else:
            unfinished.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _zipped(files: Files) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _told(selection: Selection) -> str:
    return "; ".join(f"{count:,} {reason}" for reason, count in selection.left_out.items())


def _tell(output: Path, name: FormatName, request: Export, files: Files, *, as_json: bool) -> None:
    selection = request.selection
    if as_json:
        print_json(
            {
                "file": str(output),
                "format": name.value,
                "decoys": len(selection.targets),
                "patterns": selection.patterns,
                "left_out": dict(selection.left_out),
                "expires": request.expires.isoformat() if request.expires else None,
                "files": {each: hashlib.sha256(text).hexdigest() for each, text in files.items()},
                "rules": {rule_name(each.decoy): each.decoy.name for each in selection.targets},
            }
        )
        return
    out.print(
        f"{output}: {len(selection.targets):,} decoys, {selection.patterns:,} patterns",
        soft_wrap=True,
        markup=False,
    )
    for reason, count in selection.left_out.items():
        out.print(f"left out: {count:,} {reason}", soft_wrap=True)
    if request.expires is not None and not FORMATS[name].expires:
        err.print(f"{name} cannot say until when it is to be used", soft_wrap=True)
