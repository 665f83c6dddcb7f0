"""The command line: parse, call, print.

Exit status: 0 done (``trace``: someone is accused; ``doctor``: nothing critical), 1 the answer is
no (``trace``: no one is accused; ``doctor``: a critical finding), 2 an error, told in one line.
"""

from __future__ import annotations

import errno
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer.exceptions import Abort, TyperException

from pgbalise import __version__
from pgbalise.command import (
    BROKEN_PIPE,
    AsJson,
    Dsn,
    KeyCommand,
    KeyFile,
    master_key,
    out,
    print_json,
    working,
)
from pgbalise.decoy_commands import decoys_app
from pgbalise.errors import InvalidInput, PgbaliseError
from pgbalise.evaluate_command import evaluate
from pgbalise.exchange.commands import exchange_app
from pgbalise.export_command import export
from pgbalise.keyfile import generate_key
from pgbalise.marking.policy import Policy, RecipientClass
from pgbalise.policyfile import read_document, read_policy
from pgbalise.proxy.commands import proxy
from pgbalise.registry.alert_commands import alert_app
from pgbalise.registry.case_commands import case_app
from pgbalise.registry.commands import ledger_app, registry_app
from pgbalise.report.commands import report_app
from pgbalise.scan_command import scan
from pgbalise.trace_command import trace

app = typer.Typer(
    help="Beacons on health data: mark what PostgreSQL returns, per recipient, and trace leaks.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
key_app = typer.Typer(help="The master key.")
policy_app = typer.Typer(help="Which columns carry marks, and how.")
recipient_app = typer.Typer(help="Who receives data.")
epoch_app = typer.Typer(help="Times during which marks stay the same, and the key of each.")
app.add_typer(key_app, name="key")
app.add_typer(policy_app, name="policy")
app.add_typer(recipient_app, name="recipient")
app.add_typer(epoch_app, name="epoch")
app.add_typer(decoys_app, name="decoys")
decoys_app.command()(export)
app.add_typer(registry_app, name="registry")
app.add_typer(ledger_app, name="ledger")
app.add_typer(alert_app, name="alert")
app.add_typer(case_app, name="case")
app.add_typer(report_app, name="report")
app.add_typer(exchange_app, name="exchange")

PolicyFile = Annotated[Path, typer.Argument(help="The policy, TOML or JSON.", show_default=False)]

_EXTRAS = {
    "python_calamine": "leaks",
    **dict.fromkeys(("olefile", "pypdf"), "scan"),
    **dict.fromkeys(("pymisp", "stix2", "yaml"), "detectors"),
    **dict.fromkeys(("faker", "stdnum"), "decoys"),
    **dict.fromkeys(("fastapi", "pydantic", "starlette", "uvicorn"), "exchange"),
    **dict.fromkeys(("rfc3161_client", "weasyprint"), "report"),
    **dict.fromkeys(("alembic", "cryptography", "sqlalchemy"), "registry"),
    **dict.fromkeys(("asn1crypto", "postgast", "scramp", "uvloop"), "proxy"),
}
"""The extra that has a package; those of pyarrow and the frames are the rest."""

_INTERRUPTED = 130
"""What typer makes of a KeyboardInterrupt."""


def main() -> None:
    """Run the command line and exit."""
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
        if status == _INTERRUPTED:
            _complain("interrupted")
        sys.exit(status)
    except PgbaliseError as problem:
        _complain(str(problem))
    except TyperException as problem:
        _complain(problem.format_message())
    except ModuleNotFoundError as problem:
        extra = _EXTRAS.get((problem.name or "").partition(".")[0], "arrow")
        _complain(f"this needs the Python package {problem.name} (pip install 'pgbalise[{extra}]')")
    except Abort:
        _complain("interrupted")
    except BrokenPipeError:
        sys.exit(BROKEN_PIPE)
    except Exception as problem:  # noqa: BLE001 - a fault must not look like an answer
        if isinstance(problem, OSError) and problem.errno == errno.ENOSPC:
            _complain("there is no room left on the disk")
        where = traceback.extract_tb(problem.__traceback__)[-1]
        fault = f"{type(problem).__name__} in {Path(where.filename).name}, line {where.lineno}"
        # its message might hold a patient's value
        _complain(f"internal error: {fault} (please report this)")


def _complain(text: str) -> None:
    # one line, whatever a file's or a server's message held
    print("pgbalise: " + " ".join(text.split()), file=sys.stderr)
    sys.exit(2)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"pgbalise {__version__}")
        raise typer.Exit


@app.command()
def init(
    dsn: Dsn = "",
    sql_only: Annotated[
        bool, typer.Option("--sql-only", help="Plain SQL: no superuser, extension or plpython3u.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create schema balise in a database, or bring it up to date."""
    from pgbalise.install import install
    from pgbalise.session import connect

    with connect(dsn) as session:
        found = install(session, sql_only=sql_only)
        library = __version__ if sql_only else session.fetch("SELECT balise.load_library()")[0][0]
    if as_json:
        print_json({"catalog": found, "extension": not sql_only, "library": library})
    elif sql_only:
        out.print(f"catalog {found} is there, as plain SQL")
    else:
        out.print(
            f"extension pgbalise {found} is there, and PL/Python imports the library {library}"
        )


@app.command()
def uninstall(
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it: the catalog and all decoys are lost.")
    ] = False,
    dsn: Dsn = "",
    as_json: AsJson = False,
) -> None:
    """Take pgbalise out of a database; the hospital's own relations stay as they were."""
    from pgbalise.install import uninstall as take_out
    from pgbalise.session import connect

    if not yes:
        raise InvalidInput(
            "this drops the marked views, the decoys and the catalog, with every commitment",
            hint="record them in the registry first, then give --yes",
        )
    with connect(dsn) as session, session.connection.transaction():
        take_out(session)
    if as_json:
        print_json({"uninstalled": True})
    else:
        out.print("pgbalise is no longer in this database")


@app.command()
def status(dsn: Dsn = "", as_json: AsJson = False) -> None:
    """Say what is installed, protected and enrolled."""
    from pgbalise.database import applied_policy, epochs, recipients
    from pgbalise.errors import DatabaseProblem
    from pgbalise.install import found, installed
    from pgbalise.session import connect

    with connect(dsn) as session:
        answer: dict[str, Any] = {"catalog": installed(session), "library": __version__}
        answer["extension"] = found(session)[1]
        [(answer["database"],)] = session.fetch("SELECT current_database()::text")
        try:
            policy: Policy | None = applied_policy(session)
        except DatabaseProblem:
            policy = None
        everyone = recipients(session)
        answer["epochs"] = [vars(epoch) for epoch in epochs(session)]
    answer["epoch"] = policy.epoch if policy else None
    schemas = list(policy.schemas.values()) if policy else []
    answer["relations"] = [
        {
            "relation": relation.qualified,
            "views": [f"{schema}.{relation.view}" for schema in schemas],
            "carriers": [carrier.column for carrier in relation.carriers],
        }
        for relation in (policy.relations if policy else ())
    ]
    answer["recipients"] = {
        "enrolled": sum(recipient.revoked_at is None for recipient in everyone),
        "revoked": sum(recipient.revoked_at is not None for recipient in everyone),
    }
    if as_json:
        print_json(answer)
        return
    how = "extension" if answer["extension"] else "plain SQL,"
    out.print(f"database {answer['database']}: {how} {answer['catalog']}, epoch {answer['epoch']}")
    table = Table("relation", "marked views", "carriers")
    for relation in answer["relations"]:
        table.add_row(
            relation["relation"], ", ".join(relation["views"]), ", ".join(relation["carriers"])
        )
    out.print(table if answer["relations"] else "no policy has been applied")
    out.print("{enrolled} recipients enrolled, {revoked} revoked".format(**answer["recipients"]))


@app.command()
def doctor(
    dsn: Dsn = "",
    key: Annotated[
        Path | None, typer.Option("--key", help="Look at the master key's file, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a recipient can reach a protected relation by any other path."""
    from pgbalise.doctor import Report, Severity, examine
    from pgbalise.session import connect

    if key is not None and not key.exists():
        raise InvalidInput(f"{key}: there is no such file", hint="give the master key's file")

    def show(report: Report) -> None:
        colours = {Severity.CRITICAL: "red", Severity.WARNING: "yellow", Severity.NOTICE: "cyan"}
        for severity, colour in colours.items():
            if report.count(severity):
                out.print(f"[{colour} bold]{severity.value}[/]")
            for finding in report.findings:
                if finding.severity is not severity:
                    continue
                grid = Table.grid(padding=(0, 2, 0, 0))
                grid.add_row("", finding.code, Text(finding.message))
                out.print(grid)
                # a line to paste is never broken
                for line in (finding.mend and f"{finding.mend};", finding.command):
                    if line:
                        out.print(f"       {line}", style="green", markup=False, soft_wrap=True)
        if report.not_checked:
            out.print("[bold]not checked[/]")
        for thing in report.not_checked:
            out.print(Padding(Text(thing), (0, 0, 0, 2)))
        count = ", ".join(f"{report.count(s)} {s.value}" for s in Severity)
        plural = "" if report.roles == 1 else "s"
        examined = f"{report.roles} recipient{plural} examined: {count}"
        out.print(f"{examined}, {len(report.not_checked)} not checked")

    with connect(dsn) as session:
        report = examine(session, now=datetime.now(UTC), key_file=key)
    if as_json:
        print_json(report.as_dict())
    else:
        show(report)
    raise typer.Exit(1 if report.worst is Severity.CRITICAL else 0)


@key_app.command("generate")
def key_generate(file: Annotated[Path, typer.Argument(show_default=False)]) -> None:
    """Write a fresh master key to a new file."""
    key = generate_key(file)
    out.print(
        f"{file}: new master key {key.fingerprint()}; keep a copy in a safe place", soft_wrap=True
    )


@policy_app.command("suggest")
def policy_suggest(
    schema: Annotated[list[str], typer.Argument(help="Schemas to look at.", show_default=False)],
    dsn: Dsn = "",
) -> None:
    """Propose a policy from the catalog and its statistics."""
    from pgbalise.session import connect
    from pgbalise.suggest import suggest

    with connect(dsn) as session:
        print(suggest(session, schema), end="")


@policy_app.command("check")
def policy_check(
    file: PolicyFile,
    dsn: Dsn = "",
    as_json: AsJson = False,
    sample: Annotated[int, typer.Option(help="Rows to mark of each relation.")] = 100_000,
) -> None:
    """Report the distortion that a policy would cause."""
    from pgbalise.check import check
    from pgbalise.session import connect

    policy = read_policy(file)
    with working(as_json) as say, connect(dsn) as session:
        say("marking a sample")
        report = check(session, policy, None, sample)
    if as_json:
        print_json(report.as_dict())
        return
    out.print(report.table())


@policy_app.command("plan")
def policy_plan(file: PolicyFile, dsn: Dsn = "") -> None:
    """Print the SQL that apply would run. Runs it and takes it back."""
    from pgbalise.database import planned
    from pgbalise.session import connect

    document = read_document(file)
    with connect(dsn) as session:
        for statement in planned(session, document):
            print(statement + ";")


@policy_app.command("apply")
def policy_apply(
    file: PolicyFile,
    dsn: Dsn = "",
    key: KeyFile = None,
    key_command: KeyCommand = None,
    as_json: AsJson = False,
) -> None:
    """Write the marked views, in one transaction."""
    from pgbalise.database import apply_policy
    from pgbalise.session import connect

    document = read_document(file)
    master = master_key(key, key_command)
    with connect(dsn) as session, session.connection.transaction():
        views = apply_policy(session, document, master)
    if as_json:
        print_json({"views": views})
    else:
        out.print(f"applied: {', '.join(views)}", soft_wrap=True)


@policy_app.command("refresh")
def policy_refresh(
    relation: Annotated[
        str | None, typer.Argument(help="SCHEMA.NAME; all when left out.", show_default=False)
    ] = None,
    dsn: Dsn = "",
    as_json: AsJson = False,
) -> None:
    """Write the marked views again, after relations changed. Needs no key; marks stay."""
    from pgbalise.database import refresh_views
    from pgbalise.session import connect

    with connect(dsn) as session, session.connection.transaction():
        views = refresh_views(session, relation)
    if as_json:
        print_json({"views": views})
    else:
        out.print(f"refreshed: {', '.join(views)}", soft_wrap=True)


@epoch_app.command("open")
def epoch_open(
    dsn: Dsn = "",
    key: KeyFile = None,
    key_command: KeyCommand = None,
    as_json: AsJson = False,
) -> None:
    """Change every mark from now on, under the same master key or a new one.

    Keep the old key: leaks of earlier epochs are traced with it.
    """
    from pgbalise.database import open_epoch
    from pgbalise.session import connect

    master = master_key(key, key_command)
    with connect(dsn) as session, session.connection.transaction():
        number = open_epoch(session, master)
    if as_json:
        print_json({"epoch": number, "key_fingerprint": master.fingerprint()})
    else:
        out.print(f"epoch {number} is in force, under master key {master.fingerprint()}")


@epoch_app.command("list")
def epoch_list(dsn: Dsn = "", as_json: AsJson = False) -> None:
    """List every epoch, when it was in force and under which master key."""
    from pgbalise.database import epochs
    from pgbalise.session import connect

    with connect(dsn) as session:
        known = epochs(session)
    if as_json:
        print_json([vars(epoch) for epoch in known])
        return
    table = Table("epoch", "opened", "closed", "master key")
    for epoch in known:
        table.add_row(
            str(epoch.number),
            epoch.opened_at[:19],
            (epoch.closed_at or "")[:19],
            epoch.key_fingerprint or "unknown",
        )
    out.print(table if known else "no policy has been applied")


@recipient_app.command("add")
def recipient_add(
    role: Annotated[list[str], typer.Argument(help="Login roles.", show_default=False)],
    recipient_class: Annotated[RecipientClass, typer.Option("--class")] = RecipientClass.SECONDARY,
    force: Annotated[
        bool, typer.Option(help="Enrol even a role that can pass by its views.")
    ] = False,
    dsn: Dsn = "",
    key: KeyFile = None,
    key_command: KeyCommand = None,
    as_json: AsJson = False,
) -> None:
    """Make login roles recipients, all or none."""
    from pgbalise.database import enrol
    from pgbalise.session import connect

    master = master_key(key, key_command)
    with connect(dsn) as session, session.connection.transaction():
        epoch = enrol(session, role, recipient_class, master, force=force)
    if as_json:
        print_json({"enrolled": role, "class": recipient_class.value, "epoch": epoch})
    else:
        out.print(f"enrolled for {recipient_class.value} use: {', '.join(role)}", soft_wrap=True)


@recipient_app.command("list")
def recipient_list(dsn: Dsn = "", as_json: AsJson = False) -> None:
    """List every recipient ever enrolled."""
    from pgbalise.database import recipients
    from pgbalise.session import connect

    with connect(dsn) as session:
        everyone = recipients(session)
    if as_json:
        print_json(
            [
                {
                    "recipient": recipient.role,
                    "class": recipient.recipient_class.value,
                    "commitments": {
                        str(epoch): digest.hex() for epoch, digest in recipient.commitments.items()
                    },
                    "enrolled_at": recipient.enrolled_at,
                    "revoked_at": recipient.revoked_at,
                }
                for recipient in everyone
            ]
        )
        return
    table = Table("recipient", "class", "epochs", "enrolled", "revoked")
    for recipient in everyone:
        table.add_row(
            recipient.role,
            recipient.recipient_class.value,
            ", ".join(map(str, recipient.commitments)),
            recipient.enrolled_at[:19],
            (recipient.revoked_at or "")[:19],
        )
    out.print(table)


@recipient_app.command("revoke")
def recipient_revoke(
    role: Annotated[str, typer.Argument(show_default=False)], dsn: Dsn = "", as_json: AsJson = False
) -> None:
    """Stop a recipient's access at once; it stays traceable for ever."""
    from pgbalise.database import revoke
    from pgbalise.session import connect

    with connect(dsn) as session, session.connection.transaction():
        revoke(session, role)
    if as_json:
        print_json({"revoked": role})
    else:
        out.print(f"revoked: {role}")


@app.command()
def extract(
    query: Annotated[str, typer.Argument(metavar="SQL", show_default=False)],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="FILE.csv or FILE.parquet", show_default=False)
    ],
    dsn: Dsn = "",
    as_json: AsJson = False,
) -> None:
    """Run a query as the role that the connection logs in as, and write what it returns."""
    from pgbalise.extract import write_extract
    from pgbalise.session import connect

    with working(as_json) as say, connect(dsn) as session:
        say("reading")
        rows = write_extract(session, query, output)
    if as_json:
        print_json({"file": str(output), "rows": rows})
    else:
        out.print(f"{output}: {rows:,} rows", soft_wrap=True)


app.command()(trace)
app.command()(scan)
app.command()(evaluate)
app.command()(proxy)


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--output", "-o", help="Where the results go.")] = Path(
        "demo-output"
    ),
    recipients: Annotated[int, typer.Option(help="How many recipients to enrol.")] = 200,
    seed: Annotated[int, typer.Option(help="What the made-up parts derive from.")] = 1,
) -> None:
    """Show the whole job on real clinical data, in a server of its own that is gone afterwards."""
    from pgbalise.demo.story import tell

    tell(directory, recipients, seed, out)
