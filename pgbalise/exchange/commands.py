"""``pgbalise exchange``: whose decoy a record is, and where one's own were met.

Exit status: 0 done (``check``: somebody's decoy; ``report``: somebody was told; ``hits``: there are
some), 1 the answer is no, 2 an error.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pgbalise.command import AsJson, Registry, counting, out, print_json
from pgbalise.errors import InvalidInput, PgbaliseError
from pgbalise.registry.commands import moment

if TYPE_CHECKING:
    from pgbalise.decoys.issued import IssuedDecoy
    from pgbalise.exchange.client import Checked, Client
    from pgbalise.exchange.messages import Hit
    from pgbalise.exchange.records import Record

exchange_app = typer.Typer(help="Decoys of all establishments of a region.")
member_app = typer.Typer(help="The establishments that take part.")
exchange_app.add_typer(member_app, name="member")

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="PGBALISE_EXCHANGE_URL",
        show_envvar=True,
        help="The exchange, https://host.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="PGBALISE_EXCHANGE_TOKEN_FILE",
        show_envvar=True,
        help="The establishment's token, in a file of mode 0600.",
    ),
]
Ca = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        envvar="PGBALISE_EXCHANGE_CA",
        show_envvar=True,
        help="Certificates trusted instead of the system's.",
    ),
]
OwnBook = Annotated[
    str | None, typer.Option("--dsn", help="The database whose decoys are one's own.")
]
OwnFile = Annotated[
    Path | None,
    typer.Option("--decoys", help="One's own decoys, as decoys export --format jsonl writes them."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="ROLE=COLUMN of CSV, such as nir=NUM_SECU; repeatable."),
]
Suspicious = Annotated[
    Path, typer.Argument(help="CSV, or a value on each line; - is standard input.")
]


class PlaceOption(StrEnum):
    """Where a decoy was met."""

    OWN_NETWORK = "own_network"
    WEB = "web"
    FORUM = "forum"
    MAIL = "mail"
    DEVICE = "device"
    PARTNER = "partner"
    OTHER = "other"


class SeverityOption(StrEnum):
    """How much it matters."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


def _client(url: str, token_file: Path | None, ca: Path | None) -> Client:
    from pgbalise.exchange.client import Client, read_token

    if not url:
        raise InvalidInput("this needs the exchange's address", hint="--url https://host")
    if token_file is None:
        raise InvalidInput("this needs the establishment's token", hint="--token-file FILE")
    return Client(url, read_token(token_file), ca)


def _own(dsn: str | None, file: Path | None) -> list[IssuedDecoy]:
    from pgbalise.decoybook import decoys_of_file, issued
    from pgbalise.session import connect

    if dsn is not None and file is not None:
        raise InvalidInput("give --dsn or --decoys, not both")
    if file is not None:
        return decoys_of_file(file)
    if dsn is None:
        return []
    with connect(dsn) as session:
        return issued(session)


def _visible(text: str) -> str:
    # others chose it: it could hold a terminal's control characters
    return "".join(c if c.isprintable() else "?" for c in text)


@exchange_app.command()
def publish(
    url: Url = "",
    token_file: TokenFile = None,
    ca: Ca = None,
    dsn: OwnBook = None,
    decoys: OwnFile = None,
    days: Annotated[
        int, typer.Option(min=31, max=3650, help="After so many days they expire.")
    ] = 365,
    percent: Annotated[
        int,
        typer.Option(
            "--percent", min=1, max=100, help="Publish so many of the decoys; the rest stay secret."
        ),
    ] = 100,
    empty: Annotated[
        bool, typer.Option("--empty", help="Withdraw everything when there are no decoys.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish one's own decoys as digests, and withdraw those that are not in the book any more."""
    from pgbalise.exchange.client import synchronise
    from pgbalise.exchange.protocol import chosen

    client = _client(url, token_file, ca)
    if dsn is None and decoys is None:
        raise InvalidInput("whose decoys? give --dsn or --decoys FILE")
    book = _own(dsn, decoys)
    if not book and not empty:
        raise InvalidInput("there are no decoys", hint="--empty withdraws what was published")
    now = datetime.now(UTC)
    shared = chosen(book, percent)
    with counting(as_json) as progress:
        done = synchronise(client, shared, now + timedelta(days=days), now, progress)
    if as_json:
        print_json(vars(done))
    else:
        out.print(
            f"{done.published} published, {done.withdrawn} withdrawn, {done.kept} there already,"
            f" {done.left_out} not exchanged"
        )


def _read(file: Path, columns: list[str] | None) -> list[Record]:
    from pgbalise.exchange.records import decode, read_mapping, read_records

    mapping = read_mapping(columns or [])
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as problem:
        raise InvalidInput(f"{file}: cannot be read: {problem.strerror}") from None
    return list(read_records(decode(content), mapping))


def _noise() -> Iterator[int]:
    while True:
        yield secrets.randbits(64)


def _checked(client: Client, records: list[Record], quiet: bool) -> tuple[Checked, list[Any]]:
    from pgbalise.exchange.client import check

    traits = {trait for record in records for trait in record.traits}
    with counting(quiet) as progress:
        found = check(client, traits, _noise(), progress)
    lines = []
    for record in records:
        hit = [trait for trait in record.traits if trait in found.owners]
        if hit:
            kinds = sorted({trait.kind.value for trait in hit})
            owners = sorted({name for trait in hit for name in found.owners[trait]})
            lines.append({"line": record.line, "kinds": kinds, "owners": owners})
    return found, lines


def _answer(records: list[Record], found: Checked, lines: list[Any]) -> dict[str, Any]:
    return {
        "records": len(records),
        "values": len({trait for record in records for trait in record.traits}),
        "asked": found.asked,
        "found": lines,
    }


def _print_lines(records: list[Record], lines: list[Any]) -> None:
    for line in lines:
        owners, kinds = ", ".join(line["owners"]), ", ".join(line["kinds"])
        typer.echo(f"line {line['line']}: a decoy of {_visible(owners)} ({kinds})")
    if not any(record.traits for record in records):
        typer.echo("there is nothing in this file that can be asked for", err=True)


@exchange_app.command()
def check(
    file: Suspicious = Path("-"),
    url: Url = "",
    token_file: TokenFile = None,
    ca: Ca = None,
    column: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Say which lines of a file are somebody's decoy, and whose. No value leaves this machine."""
    client = _client(url, token_file, ca)
    records = _read(file, column)
    found, lines = _checked(client, records, as_json)
    if as_json:
        print_json(_answer(records, found, lines))
    else:
        _print_lines(records, lines)
    raise typer.Exit(0 if lines else 1)


@exchange_app.command()
def report(
    place: Annotated[PlaceOption, typer.Option("--place", help="Where they were met.")],
    file: Suspicious = Path("-"),
    url: Url = "",
    token_file: TokenFile = None,
    ca: Ca = None,
    column: Columns = None,
    seen_at: Annotated[
        str | None, typer.Option("--seen-at", help="ISO 8601, UTC unless it says; else now.")
    ] = None,
    severity: Annotated[
        SeverityOption, typer.Option("--severity", help="How much it matters.")
    ] = SeverityOption.WARNING,
    note: Annotated[
        str, typer.Option("--note", help="One's own number of the matter; nothing of a patient.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Tell the owners of decoys in a file that they were met; whatever else is in it stays here."""
    from pydantic import ValidationError

    from pgbalise.exchange.messages import Report

    client = _client(url, token_file, ca)
    at = moment(seen_at, "--seen-at") or datetime.now(UTC)
    # the same words are checked by the server; here they cost no hashing
    try:
        form = Report(
            digest=64 * "0", seen_at=at, place=place.value, severity=severity.value, note=note
        )
    except ValidationError:
        raise InvalidInput(
            "--note: at most 200 printable characters; --seen-at: a year from 1970 to 2999"
        ) from None
    records = _read(file, column)
    found, lines = _checked(client, records, as_json)
    told: set[str] = set()
    for trait in found.owners:
        body = form.model_copy(update={"digest": found.hashed[trait].digest.hex()})
        told |= set(client.report(body))
    if as_json:
        print_json({**_answer(records, found, lines), "told": sorted(told)})
    else:
        _print_lines(records, lines)
        if told:
            typer.echo(f"told {_visible(', '.join(sorted(told)))}")
    raise typer.Exit(0 if told else 1)


@exchange_app.command()
def hits(
    url: Url = "",
    token_file: TokenFile = None,
    ca: Ca = None,
    dsn: OwnBook = None,
    decoys: OwnFile = None,
    registry: Annotated[
        str | None,
        typer.Option("--registry", help="Record them as alerts in this registry, each once."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="ISO 8601, UTC unless it says.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List where one's own decoys were met; with the book, to whom each was issued."""
    from pgbalise.exchange.client import as_json as plain
    from pgbalise.exchange.client import decoy_of_reference, hit_alert

    client = _client(url, token_file, ca)
    begin = moment(since, "--since")
    book = decoy_of_reference(_own(dsn, decoys))
    found = list(client.hits(begin))
    if registry is not None and found:
        from pgbalise.registry.alerts import record_alert
        from pgbalise.registry.store import open_registry

        region, now = client.status().region, datetime.now(UTC)
        with open_registry(registry) as connection:
            for hit in found:
                alert = hit_alert(hit, book.get(hit.reference), region)
                record_alert(connection, alert, now, told=False)
    named = {one.reference: book[one.reference] for one in found if one.reference in book}
    if as_json:
        print_json(
            {
                "hits": [
                    {
                        **plain(one),
                        "decoy": named[one.reference].name if one.reference in named else None,
                    }
                    for one in found
                ]
            }
        )
    else:
        for one in found:
            typer.echo(_told(one, named.get(one.reference)))
    raise typer.Exit(0 if found else 1)


def _told(hit: Hit, decoy: IssuedDecoy | None) -> str:
    whom = f"decoy {decoy.name}" if decoy is not None else "a decoy"
    when = hit.seen_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    note = f": {hit.note}" if hit.note else ""
    place = hit.place.replace("_", " ")
    text = f"{when} UTC {hit.severity}: {whom} met ({place}), says {hit.reporter}{note}"
    return _visible(text)


@exchange_app.command()
def status(
    url: Url = "", token_file: TokenFile = None, ca: Ca = None, as_json: AsJson = False
) -> None:
    """Say which exchange this is, and what one has published there."""
    from pgbalise.exchange.client import as_json as plain

    found = _client(url, token_file, ca).status()
    if as_json:
        print_json(plain(found))
    else:
        typer.echo(
            _visible(
                f"exchange of {found.region}: {found.member} has {found.beacons} beacons,"
                f" prefixes have {found.bits} bits"
            )
        )


@exchange_app.command("init")
def exchange_init(
    region: Annotated[str, typer.Argument(help="The region's name.", show_default=False)],
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """Open a region's exchange in a registry, with a salt of its own."""
    from pgbalise.exchange.store import open_region
    from pgbalise.registry.store import open_registry

    with open_registry(registry) as connection:
        made = open_region(connection, region, datetime.now(UTC))
    if as_json:
        print_json({"region": made.name, "salt": made.salt.hex()})
    else:
        typer.echo(f"the exchange of {made.name} is open")


@exchange_app.command()
def serve(
    registry: Registry = "",
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT.")] = "127.0.0.1:8711",
    certificate: Annotated[
        Path | None, typer.Option("--tls-cert", help="Certificate chain, PEM.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key, PEM.")] = None,
    without_tls: Annotated[
        bool,
        typer.Option("--without-tls", help="Listen beyond this machine without TLS all the same."),
    ] = False,
    lookups: Annotated[
        float, typer.Option("--lookups", min=0.1, help="Range queries of a member per second.")
    ] = 20.0,
    beacons: Annotated[
        int, typer.Option("--beacons", min=1, help="Beacons that a member may have.")
    ] = 1_000_000,
) -> None:
    """Serve the region's exchange until told to stop."""
    from pgbalise.exchange.limits import Limit, Limits
    from pgbalise.exchange.server import Listen, parse_listen
    from pgbalise.exchange.server import serve as run

    limits = Limits(lookups=Limit(lookups, Limits.lookups.burst), beacons=beacons)
    listening = Listen(*parse_listen(listen), certificate, key, without_tls)
    run(registry, listening, limits, lambda url: typer.echo(f"listening on {url}"))


@member_app.command("add")
def member_add(
    name: Annotated[str, typer.Argument(help="The establishment's name.", show_default=False)],
    registry: Registry = "",
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Give a member a new token; the old one ends.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the token to a new file, 0600.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Admit an establishment. Its token is shown this once: only its hash is kept."""
    from pgbalise.exchange.store import add_member, region
    from pgbalise.keyfile import write_private
    from pgbalise.registry.store import open_registry

    with open_registry(registry) as connection:
        region(connection)
        if output is not None:
            if output.exists():
                raise InvalidInput(f"{output}: there is a file already")
            # nobody is given a token that cannot be kept
            write_private(output, b"")
        try:
            token = add_member(connection, name, datetime.now(UTC), rotate=rotate)
        except PgbaliseError:
            if output is not None:
                output.unlink()
            raise
    if output is not None:
        output.write_text(f"{token}\n")
    if as_json:
        print_json({"member": name, "token": None if output is not None else token})
    elif output is not None:
        typer.echo(f"the token of {name} is in {output}")
    else:
        typer.echo(token)


@member_app.command("list")
def member_list(registry: Registry = "", as_json: AsJson = False) -> None:
    """List the establishments that take part, or did."""
    from pgbalise.exchange.store import members
    from pgbalise.registry.store import open_registry

    with open_registry(registry) as connection:
        found = members(connection, datetime.now(UTC))
    if as_json:
        print_json({"members": [vars(member) for member in found]})
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("name", "beacons", "token of (UTC)", "revoked (UTC)"):
        table.add_column(title)
    for member in found:
        revoked = f"{member.revoked_at:%Y-%m-%d}" if member.revoked_at else ""
        token_at = f"{member.token_at.astimezone(UTC):%Y-%m-%d %H:%M}"
        table.add_row(Text(member.name), str(member.beacons), token_at, revoked)
    out.print(table)


@member_app.command("revoke")
def member_revoke(
    name: Annotated[str, typer.Argument(help="The establishment's name.", show_default=False)],
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """End an establishment's access and withdraw its beacons."""
    from pgbalise.exchange.store import revoke_member
    from pgbalise.registry.store import open_registry

    with open_registry(registry) as connection:
        gone = revoke_member(connection, name, datetime.now(UTC))
    if as_json:
        print_json({"member": name, "withdrawn": gone})
    else:
        typer.echo(f"{name} is revoked, {gone} beacons withdrawn")
