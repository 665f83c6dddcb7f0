"""``pgbalise decoys``: make decoys, list them, take them back, keep numbers for later ones."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pgbalise.command import (
    AsJson,
    Dsn,
    KeyCommand,
    KeyFile,
    counting,
    master_key,
    out,
    print_json,
)
from pgbalise.decoys.identity import Role
from pgbalise.errors import InvalidInput

if TYPE_CHECKING:
    from pgbalise.decoys.issued import IssuedDecoy

decoys_app = typer.Typer(help="Patients who do not exist, by the recipient they were issued to.")


@decoys_app.command("generate")
def generate(
    role: Annotated[
        list[str] | None,
        typer.Argument(help="Only these recipients; by default all for secondary use."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", help="Decoys that each is to have; by default as the policy says."),
    ] = None,
    dsn: Dsn = "",
    key: KeyFile = None,
    key_command: KeyCommand = None,
    as_json: AsJson = False,
) -> None:
    """Give recipients decoys, as many as are missing; replace those retired."""
    from pgbalise.issuing import issue_decoys
    from pgbalise.session import connect

    master = master_key(key, key_command)
    now = datetime.now(UTC)
    with counting(as_json) as say, connect(dsn) as session, session.connection.transaction():
        issue = issue_decoys(session, master, role or None, count, now, say)
    made = issue.decoys
    if as_json:
        print_json(
            {
                "issued": [
                    {"decoy": d.decoy_id, "recipient": d.recipient, "number": d.number}
                    for d in made
                ],
                "rows": issue.rows,
                "out_of_order": issue.out_of_order,
                "retired": issue.retired,
            }
        )
    elif made:
        recipients = len({decoy.recipient for decoy in made})
        out.print(
            f"issued {_counted(len(made), 'decoy')} with {_counted(issue.rows, 'row')} to"
            f" {_counted(recipients, 'recipient')}; have that recorded: pgbalise registry record",
            soft_wrap=True,
        )
        if issue.out_of_order:
            out.print(
                f"of these rows, {issue.out_of_order:,} have numbers that do not go with their"
                " times: pgbalise decoys reserve makes room for the next ones",
                soft_wrap=True,
            )
    else:
        out.print("nothing to do: every recipient has its decoys")


@decoys_app.command("list")
def show(
    role: Annotated[str | None, typer.Argument(help="Only this recipient's.")] = None,
    retired: Annotated[bool, typer.Option("--retired", help="Those taken back, too.")] = False,
    identities: Annotated[
        bool, typer.Option("--show", help="Who they are: whoever sees it can avoid them.")
    ] = False,
    dsn: Dsn = "",
    as_json: AsJson = False,
) -> None:
    """List the decoys issued; who they are only with --show."""
    from pgbalise.decoybook import issued
    from pgbalise.install import installed
    from pgbalise.session import connect

    with connect(dsn) as session:
        installed(session)
        ever = issued(session, [role] if role is not None else None)
    found = [decoy for decoy in ever if retired or decoy.retired_at is None]
    if as_json:
        print_json([_as_json(decoy, identities=identities) for decoy in found])
    elif not found:
        whom = f" to {role}" if role is not None else ""
        out.print(Text(f"no decoys have been issued{whom}" if not ever else _ALL_RETIRED))
    elif identities or role is not None:
        out.print(_one_by_one(found, retired=retired, identities=identities))
    else:
        out.print(_by_recipient(found, retired=retired))


_ALL_RETIRED = "all decoys have been retired; --retired lists them"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _as_json(decoy: IssuedDecoy, *, identities: bool) -> dict[str, Any]:
    body = decoy.as_dict()
    if not identities:
        for member in ("identity", "key", "spaces"):
            del body[member]
    return body


def _by_recipient(found: list[IssuedDecoy], *, retired: bool) -> Table:
    table = Table("recipient", "decoys", *(["retired"] if retired else []), "mode", "last issued")
    table.columns[0].overflow = "fold"
    active = Counter(d.recipient for d in found if d.retired_at is None)
    gone = Counter(d.recipient for d in found if d.retired_at is not None)
    for name in dict.fromkeys(decoy.recipient for decoy in found):
        last = max((d for d in found if d.recipient == name), key=lambda d: d.number)
        counts = [active[name], *([gone[name]] if retired else [])]
        table.add_row(Text(name), *map(str, counts), last.mode.value, _time(last.issued_at))
    return table


def _one_by_one(found: list[IssuedDecoy], *, retired: bool, identities: bool) -> Table:
    more = (["retired"] if retired else []) + (["who"] if identities else [])
    table = Table("decoy", "mode", "issued", *more)
    table.columns[0].overflow = "fold"
    for decoy in found:
        row = [Text(decoy.name), Text(decoy.mode.value), Text(_time(decoy.issued_at))]
        if retired:
            row.append(Text(_time(decoy.retired_at) if decoy.retired_at else ""))
        if identities:
            row.append(Text(_who(decoy)))
        table.add_row(*row)
    return table


def _who(decoy: IssuedDecoy) -> str:
    first = (Role.FAMILY_NAME, Role.BIRTH_NAME, Role.GIVEN_NAME, Role.FULL_NAME, Role.BIRTH_DATE)
    roles = [role for role in first if role in decoy.identity]
    return ", ".join(decoy.identity[role] for role in dict.fromkeys([*roles, *decoy.identity]))


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


@decoys_app.command("retire")
def take_back(
    role: Annotated[str, typer.Argument(show_default=False)],
    number: Annotated[list[int] | None, typer.Argument(help="Which of its decoys.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of its decoys.")] = False,
    dsn: Dsn = "",
    as_json: AsJson = False,
) -> None:
    """Take decoys out of a recipient's views; a leak that holds them still tells whose it is."""
    from pgbalise.decoybook import issued
    from pgbalise.install import installed
    from pgbalise.issuing import retire
    from pgbalise.session import connect

    if bool(number) == everything:
        raise InvalidInput("which decoys?", hint="give their numbers, or --all")
    with connect(dsn) as session, session.connection.transaction():
        installed(session)
        names = [(role, one) for one in number or []]
        if everything:
            ever = issued(session, [role])
            if not ever:
                raise InvalidInput(f"no decoy was issued to {role}", hint="pgbalise decoys list")
            names = [(role, d.number) for d in ever if d.retired_at is None]
        count = retire(session, names, datetime.now(UTC)) if names else 0
    if as_json:
        print_json({"retired": count})
    else:
        out.print(f"retired: {count}")


@decoys_app.command("reserve")
def reserve_numbers(
    count: Annotated[int, typer.Option("--count", help="Numbers of each sequence.")],
    dsn: Dsn = "",
    as_json: AsJson = False,
) -> None:
    """Take numbers from the sequences now, so that later decoys find some that fit in time."""
    from pgbalise.issuing import reserve
    from pgbalise.session import connect

    with connect(dsn) as session, session.connection.transaction():
        taken = reserve(session, count)
    if as_json:
        print_json({"reserved": count, "relations": sorted(taken)})
    else:
        relations = ", ".join(sorted(taken)) or "no relation has a sequence"
        out.print(f"reserved {count:,} numbers each: {relations}", soft_wrap=True)
