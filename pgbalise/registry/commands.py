"""The registry's part of the command line: ``pgbalise registry`` and ``pgbalise ledger``.

Exit status: 0 done, 1 the answer is no (``verify``: there is a fault; ``current``: an upgrade is
due), 2 an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgbalise.command import AsJson, Dsn, Registry, print_json
from pgbalise.errors import InvalidInput

if TYPE_CHECKING:
    from pgbalise.registry.ledger import Checkpoint, Entry

registry_app = typer.Typer(help="The auditor's own database.")
ledger_app = typer.Typer(help="What left, each entry chained to the one before.")

PublicKeys = Annotated[
    list[Path] | None,
    typer.Option("--public-key", help="A public key trusted to sign checkpoints; repeatable."),
]


@registry_app.command("upgrade")
def registry_upgrade(
    registry: Registry = "",
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL instead of running it.")
    ] = False,
    since: Annotated[
        str, typer.Option("--from", help="With --sql: the revision that is there.")
    ] = "base",
    as_json: AsJson = False,
) -> None:
    """Make the registry's tables, or bring them up to date."""
    from pgbalise.registry.store import current, open_registry, upgrade, upgrade_script

    if sql:
        typer.echo(upgrade_script(since), nl=False)
        return
    with open_registry(registry) as connection:
        upgrade(connection)
        revision = current(connection)
    if as_json:
        print_json({"revision": revision})
    else:
        typer.echo(f"the registry is at revision {revision}")


@registry_app.command("current")
def registry_current(registry: Registry = "", as_json: AsJson = False) -> None:
    """Say which revision the registry is at, and whether an upgrade is due."""
    from pgbalise.registry.store import current, newest, open_registry

    with open_registry(registry) as connection:
        revision = current(connection)
    wanted = newest()
    if as_json:
        print_json({"revision": revision, "newest": wanted})
    elif revision is None:
        typer.echo("there is no registry: run pgbalise registry upgrade")
    else:
        due = (
            "" if revision == wanted else f", {wanted} is the newest: run pgbalise registry upgrade"
        )
        typer.echo(f"the registry is at revision {revision}{due}")
    raise typer.Exit(0 if revision == wanted else 1)


@registry_app.command("downgrade")
def registry_downgrade(
    revision: Annotated[str, typer.Argument(show_default=False)],
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """Take the registry's tables back to a revision; refused when rows would be lost."""
    from pgbalise.registry.store import current, downgrade, open_registry

    with open_registry(registry) as connection:
        downgrade(connection, revision)
        now = current(connection)
    if as_json:
        print_json({"revision": now})
    else:
        typer.echo(f"the registry is at revision {now or 'base'}")


@registry_app.command("record")
def registry_record(
    registry: Registry = "",
    dsn: Dsn = "",
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key",
            envvar="PGBALISE_KEY",
            help="A master key's file, repeatable: check the commitments made with it.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Record a patient database's recipients, and hold them against what was recorded."""
    from pgbalise.keyfile import read_key
    from pgbalise.registry.record import record_database
    from pgbalise.registry.store import open_registry
    from pgbalise.session import connect

    keys = [read_key(file) for file in key or []]
    with open_registry(registry) as connection, connect(dsn) as session:
        made = record_database(connection, session, datetime.now(UTC), keys)
    if as_json:
        print_json({"recorded": [entry_as_dict(entry) for entry in made]})
    else:
        typer.echo(f"{len(made)} new entries" if made else "nothing is new")


def entry_as_dict(entry: Entry) -> dict[str, Any]:
    """Return what ``--json`` prints of an entry."""
    from pgbalise.registry.ledger import instant

    return {
        "sequence": entry.sequence,
        "recorded_at": instant(entry.recorded_at),
        "kind": entry.kind,
        "body": entry.body,
        "hash": entry.hash.hex(),
    }


@ledger_app.command("list")
def ledger_list(
    registry: Registry = "",
    relation: Annotated[
        list[str] | None,
        typer.Option(help="Only what touched this relation, SCHEMA.NAME; repeatable: any of them."),
    ] = None,
    recipient: Annotated[str | None, typer.Option(help="Only of this recipient.")] = None,
    database: Annotated[str | None, typer.Option(help="Only of this database.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, such as extract.")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only what had not ended then: ISO 8601, UTC unless it says."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only what began before: ISO 8601.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the last ones.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each entry.")
    ] = False,
) -> None:
    """Say who read what, and what else was recorded. An extract is told with its outcome."""
    from pgbalise.registry.extracts import listed
    from pgbalise.registry.listing import Listing
    from pgbalise.registry.store import open_registry

    begin, end = moment(since, "--since"), moment(until, "--until")
    listing = Listing()
    with open_registry(registry) as connection, connection.begin():
        for item in listed(
            connection,
            kind=kind,
            recipient=recipient,
            database=database,
            relations=relation or (),
            since=begin,
            until=end,
            limit=limit,
        ):
            if as_json:
                told = entry_as_dict(item.entry)
                if item.entry.kind == "extract":
                    told["outcome"] = item.outcome and entry_as_dict(item.outcome)
                print_json(told)
            else:
                listing.print(item)
    if listing.empty and not as_json:
        typer.echo("nothing recorded answers this", err=True)


@ledger_app.command("deliver")
def ledger_deliver(
    spool: Annotated[
        Path, typer.Option("--spool", help="The proxy's spool directory.", show_default=False)
    ],
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """Deliver what a proxy left on its disk, after a crash. Nothing is recorded twice."""
    from pgbalise.proxy.courier import Courier

    courier = Courier(spool, registry)
    done = courier.deliver_once()
    waiting = courier.figures().waiting_bytes
    if as_json:
        print_json(
            {
                "recorded": done.entries,
                "unknown": done.unknown,
                "damaged": done.damaged,
                "files_deleted": done.files,
                "waiting_bytes": waiting,
            }
        )
        return
    typer.echo(f"{done.entries:,} new entries, {done.files:,} files done with and deleted")
    if done.unknown:
        typer.echo(f"{done.unknown:,} extracts have no outcome: their proxy died before they ended")
    if done.damaged:
        typer.echo(f"{done.damaged:,} lines are no records: see {spool}/*.damaged")
    if waiting:
        typer.echo(f"{waiting:,} bytes are not delivered: still being written, or cut off")


def moment(text: str | None, option: str) -> datetime | None:
    """Read a time an option gave, UTC unless it says; raise InvalidInput."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{option}: not a time", hint="2026-01-31T12:00:00+01:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@ledger_app.command("verify")
def ledger_verify(
    file: Annotated[
        Path | None,
        typer.Argument(help="An exported ledger; by default the registry's.", show_default=False),
    ] = None,
    public_key: PublicKeys = None,
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """Say whether an entry was edited, removed, inserted or moved."""
    from pgbalise.registry.ledger import verify_lines
    from pgbalise.registry.signing import read_public_key

    keys = [read_public_key(path) for path in public_key or ()]
    if file is not None:
        faults, count, signatures = verify_lines(_lines(file), keys)
    else:
        from pgbalise.registry.store import open_registry, verify_registry

        with open_registry(registry) as connection:
            faults, count, signatures = verify_registry(connection, keys)
    covered = _covered(signatures, keys)
    if as_json:
        print_json(
            {
                "entries": count,
                "signed": covered,
                "faults": [fault.as_dict() for fault in faults],
            }
        )
    else:
        for fault in faults:
            typer.echo(str(fault))
        if not faults:
            typer.echo(f"{count} entries, no fault")
            if not keys:
                typer.echo("no signature was checked: give --public-key")
            else:
                typer.echo(f"the last entry that a trusted key signed: {covered or 'none'}")
    raise typer.Exit(1 if faults else 0)


def _covered(signatures: list[Checkpoint], keys: list[bytes]) -> int | None:
    from pgbalise.registry.ledger import signature_holds

    trusted = [each for each in signatures if each.public_key in keys and signature_holds(each)]
    return max((each.sequence for each in trusted), default=None)


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8", errors="backslashreplace", newline="\n") as lines:
            yield from lines
    except OSError as problem:
        raise InvalidInput(f"{file}: cannot be read: {problem.strerror}") from None


@ledger_app.command("checkpoint")
def ledger_checkpoint(
    signing_key: Annotated[
        Path,
        typer.Option(
            "--signing-key", help="The private key's file, mode 0600.", show_default=False
        ),
    ],
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """Verify the ledger and sign its last entry."""
    from pgbalise.registry.signing import read_signing_key
    from pgbalise.registry.store import open_registry, sign

    private = read_signing_key(signing_key)
    with open_registry(registry) as connection:
        made = sign(connection, private, datetime.now(UTC))
    if as_json:
        print_json(
            {
                "sequence": made.sequence,
                "hash": made.hash.hex(),
                "public_key": made.public_key.hex(),
                "signature": made.signature.hex(),
            }
        )
    else:
        typer.echo(f"entry {made.sequence} is signed: {made.hash.hex()}")


@ledger_app.command("keygen")
def ledger_keygen(file: Annotated[Path, typer.Argument(show_default=False)]) -> None:
    """Write a fresh signing key to a new file, mode 0600, and the public key to FILE.pub."""
    from pgbalise.registry.signing import generate_signing_key, public_file

    public = generate_signing_key(file)
    typer.echo(f"{file}: new signing key; {public_file(file)}: its public key {public.hex()}")


@ledger_app.command("export")
def ledger_export(
    file: Annotated[Path, typer.Argument(help="JSON lines.", show_default=False)],
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """Write the whole ledger to a file that verify reads without the database."""
    from pgbalise.registry.store import export_lines, open_registry

    count = 0
    unfinished = file.with_name(file.name + ".unfinished")
    try:
        with (
            open_registry(registry) as connection,
            unfinished.open("w", encoding="utf-8", newline="\n") as lines,
        ):
            for line in export_lines(connection):
                lines.write(line + "\n")
                count += 1
        unfinished.replace(file)
    except OSError as problem:
        raise InvalidInput(f"{file}: cannot be written: {problem.strerror}") from None
    finally:
        unfinished.unlink(missing_ok=True)
    if as_json:
        print_json({"file": str(file), "lines": count})
    else:
        typer.echo(f"{file}: {count} lines")


@ledger_app.command("import")
def ledger_import(
    file: Annotated[Path, typer.Argument(help="An exported ledger.", show_default=False)],
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """Add what an exported ledger has beyond the registry's, when it continues it."""
    from pgbalise.registry.store import import_lines, open_registry

    with open_registry(registry) as connection:
        added = import_lines(connection, _lines(file))
    if as_json:
        print_json({"added": added})
    else:
        typer.echo(f"{added} entries added")


@ledger_app.command("import-pgaudit")
def ledger_import_pgaudit(
    file: Annotated[
        Path, typer.Argument(help="csvlog, jsonlog or plain log; also .gz.", show_default=False)
    ],
    registry: Registry = "",
    schema: Annotated[
        list[str] | None,
        typer.Option(help="A schema of marked views; repeatable. Default: marked, marked_care."),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="The server's identifier, when several are recorded.")
    ] = None,
    log_timezone: Annotated[
        str | None, typer.Option(help="The server's log_timezone, unless it is UTC.")
    ] = None,
    keep_statements: Annotated[
        bool, typer.Option(help="Store statements with their constants: patients' values.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Record what pgaudit logged of direct connections. Nothing is recorded twice."""
    from pgbalise.registry.pgaudit import import_log
    from pgbalise.registry.store import open_registry

    with open_registry(registry) as connection:
        summary = import_log(
            connection,
            file,
            schema or ["marked", "marked_care"],
            datetime.now(UTC),
            system=system,
            zone=_zone(log_timezone),
            keep_statements=keep_statements,
        )
    if as_json:
        print_json(summary.as_dict())
        return
    typer.echo(
        f"{summary.messages} messages of pgaudit: {summary.recorded} recorded,"
        f" {summary.known} known already, {summary.other} of other classes, schemas or databases,"
        f" {summary.nameless} without a relation"
    )
    if summary.nameless and summary.nameless + summary.other == summary.messages:
        typer.echo("no message names a relation of these schemas: is pgaudit.log_relation on?")
    if summary.imitated:
        typer.echo(f"{summary.imitated} messages only imitate pgaudit's: look at the log")
    if summary.incomplete:
        typer.echo("the file ends within a record: import it again when it is whole")


def _zone(name: str | None) -> tzinfo | None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput("--log-timezone: there is no such zone", hint="Europe/Paris") from None
