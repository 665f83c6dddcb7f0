"""``pgbalise alert``: what was raised, and whether it reaches those who must know.

Exit status: 0 done, 1 a sink did not take the test or is still to be told, 2 an error.
"""

from __future__ import annotations

import json
import signal
import threading
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgbalise.command import Dsn, Registry
from pgbalise.errors import InvalidInput, PgbaliseError
from pgbalise.registry.commands import moment

alert_app = typer.Typer(help="What the auditor must be told.")

_STYLES = {"critical": "bold red", "warning": "yellow"}


@alert_app.command("list")
def alert_list(
    registry: Registry = "",
    undelivered: Annotated[
        bool, typer.Option("--undelivered", help="Only those that some sink has not taken.")
    ] = False,
    recipient: Annotated[str | None, typer.Option(help="Only about this recipient.")] = None,
    since: Annotated[str | None, typer.Option(help="ISO 8601, UTC unless it says.")] = None,
    until: Annotated[str | None, typer.Option(help="ISO 8601, not included.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the last ones.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each alert.")
    ] = False,
) -> None:
    """List alerts, the oldest first."""
    from pgbalise.registry.alerts import alerts
    from pgbalise.registry.store import open_registry

    begin, end = moment(since, "--since"), moment(until, "--until")
    with open_registry(registry) as connection:
        found = list(
            alerts(
                connection,
                undelivered=undelivered,
                recipient=recipient,
                since=begin,
                until=end,
                limit=limit,
            )
        )
    if as_json:
        for alert, told in found:
            delivered = told.astimezone(UTC).isoformat() if told else None
            _print_json({**_told(alert), "delivered_at": delivered})
    elif found:
        _print_table(found)
    else:
        typer.echo("no alerts")


def _alerts_of(config: Path) -> tuple[dict[str, Any], str | None]:
    """Return the table [alerts] and the registry of a configuration; raise InvalidInput."""
    try:
        document = tomllib.loads(config.read_text("utf-8"))
    except OSError as problem:
        raise InvalidInput(f"{config}: cannot be read: {problem.strerror}") from None
    except ValueError:
        raise InvalidInput(f"{config}: this is not TOML") from None
    table, registry = document.get("alerts", {}), document.get("registry")
    if not isinstance(table, dict):
        raise InvalidInput(f"{config}: alerts must be a table")
    if registry is not None and not isinstance(registry, str):
        raise InvalidInput(f"{config}: registry must be a text")
    return table, registry or None


def _told(alert: dict[str, Any]) -> dict[str, Any]:
    from pgbalise.alert_text import sentence

    return {name: value for name, value in alert.items() if name != "type"} | {
        "text": sentence(alert)
    }


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def _print_table(found: list[tuple[dict[str, Any], datetime | None]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("raised (UTC)", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("what", overflow="fold")
    for alert, delivered in found:
        severity = str(alert["severity"])
        # names are others' choice: they could hold a terminal's control characters
        what = "".join(c if c.isprintable() else "?" for c in _told(alert)["text"])
        text = Text(what)
        if delivered is None:
            text.append(" Not yet told.", style="bold")
        stamp = str(alert["at"])[:16].replace("T", " ")
        table.add_row(stamp, Text(severity, style=_STYLES.get(severity, "")), text)
    Console(highlight=False).print(table)


@alert_app.command("test")
def alert_test(
    config: Annotated[
        Path,
        typer.Option("--config", help="The proxy's configuration, TOML.", show_default=False),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send a test alert to every sink of the configuration. It is not recorded."""
    from pgbalise.alerts import parse_sinks, senders, trial_alert

    table, _ = _alerts_of(config)
    told: dict[str, str | None] = {}
    alert = trial_alert(datetime.now(UTC))
    for sender in senders(parse_sinks(table)):
        try:
            sender.send(alert)
            told[sender.name] = None
        except PgbaliseError as problem:
            told[sender.name] = str(problem)
    if as_json:
        _print_json({"alert": alert["alert"], "sinks": told})
    else:
        for name, why in told.items():
            typer.echo(why or f"{name}: taken")
        if not told:
            typer.echo("the configuration names no sink: alerts go to the registry only")
    raise typer.Exit(1 if any(told.values()) else 0)


@alert_app.command("relay")
def alert_relay(
    config: Annotated[
        Path,
        typer.Option(
            "--config",
            help="Whom to tell: the proxy's configuration, or one with only alerts and registry.",
            show_default=False,
        ),
    ],
    folder: Annotated[
        Path,
        typer.Option(
            "--folder",
            help="Where alerts wait that are not told yet; this command's own, mode 0700.",
            show_default=False,
        ),
    ],
    dsn: Dsn = "",
    once: Annotated[
        bool, typer.Option("--once", help="Tell what there is, and end: for cron.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end.")
    ] = False,
) -> None:
    """Tell of the events of balise.check(), until SIGTERM. A proxy that has tripwires does too."""
    from pgbalise.alerts import AlertDesk, parse_sinks, senders
    from pgbalise.session import check_dsn, connect
    from pgbalise.tripwires import follow, relay

    table, registry = _alerts_of(config)
    sinks = senders(parse_sinks(table))
    if not sinks and registry is None:
        raise InvalidInput(
            f"{config}: names neither a sink nor a registry", hint="write [[alerts.webhook]]"
        )
    check_dsn(dsn)
    desk = AlertDesk(folder, sinks, registry)
    taken = 0

    def submit(alerts: Iterable[Mapping[str, Any]]) -> None:
        nonlocal taken
        alerts = list(alerts)
        desk.submit(alerts)
        taken += len(alerts)

    if once:
        with connect(dsn) as session:
            while relay(session, submit):
                pass
        desk.deliver(0.0)
    else:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        telling = threading.Thread(target=desk.run, args=(stop,))
        telling.start()
        try:
            follow(dsn, submit, lambda problem: typer.echo(str(problem), err=True), stop)
        finally:
            stop.set()
            telling.join()
    waiting = desk.waiting()
    if as_json:
        _print_json({"taken": taken, "waiting": waiting, "problems": desk.problems})
    elif once:
        for name, why in desk.problems.items():
            typer.echo(why if why.startswith(name) else f"{name}: {why}", err=True)
        typer.echo(f"{taken} taken, {waiting} still to be told")
    raise typer.Exit(1 if waiting else 0)
