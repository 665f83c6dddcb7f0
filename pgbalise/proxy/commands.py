"""``pgbalise proxy``: the configuration in, a running proxy out."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated

import typer

from pgbalise.errors import InvalidInput


def proxy(
    config: Annotated[
        Path, typer.Option("--config", "-c", help="The configuration, TOML.", show_default=False)
    ],
    listen: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT or unix:FOLDER instead of the configured ones; repeatable."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say whether the configuration can be used, and end.")
    ] = False,
) -> None:
    """Stand between applications and PostgreSQL: marked data out, a ledger entry for each extract.

    Runs until SIGTERM, which lets sessions finish; SIGHUP reads the configuration again.
    """
    from pgbalise.proxy.background import check_watch, tasks
    from pgbalise.proxy.config import Config, parse_listen
    from pgbalise.proxy.spool import check_directory
    from pgbalise.proxy.supervisor import read_config, run
    from pgbalise.proxy.worker import client_context, serve, upstream_context

    def usable(found: Config) -> None:
        check_watch(found)
        check_directory(found.spool)
        try:
            upstream_context(found)
            if found.tls is not None:
                client_context(found)
        except (OSError, ssl.SSLError) as problem:
            raise InvalidInput(
                f"a certificate or key cannot be used: {problem.strerror or problem}",
                hint="look at [tls] and [upstream] in the configuration",
            ) from None

    if check:
        _, found = read_config(config, usable)
        for warning in found.warnings():
            typer.echo(warning)
        typer.echo(f"{config}: can be used")
        return
    addresses = parse_listen(listen) if listen else ()
    raise typer.Exit(run(config, serve, background=tasks, check=usable, listen=addresses))
