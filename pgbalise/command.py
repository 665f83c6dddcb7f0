"""What the commands share: options, keys, printing, progress."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from pgbalise.errors import InvalidInput
from pgbalise.keyfile import key_from_command, read_key
from pgbalise.marking.keys import MasterKey

BROKEN_PIPE = 141
"""Exit status when nobody reads on: what a shell makes of SIGPIPE."""

Dsn = Annotated[
    str,
    typer.Option(
        "--dsn",
        help="libpq connection string or URI; by default PG* variables, service files, .pgpass.",
    ),
]
Registry = Annotated[
    str,
    typer.Option(
        "--registry",
        envvar="PGBALISE_REGISTRY",
        show_envvar=True,
        help="The registry: libpq connection string or URI; by default PG* variables.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key", envvar="PGBALISE_KEY", help="The master key's file, mode 0600."),
]
KeyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--key",
        envvar="PGBALISE_KEY",
        help="The master key's file; again for each key that earlier epochs used.",
    ),
]
KeyCommand = Annotated[
    str | None, typer.Option("--key-command", help="A command that prints the master key.")
]
ReportFile = Annotated[
    Path | None,
    typer.Option("--report", help="Write the report, FILE.html, .pdf or .json."),
]
ReportLanguage = Annotated[str, typer.Option("--language", help="The report's language, en or fr.")]
SigningKey = Annotated[
    Path | None,
    typer.Option("--signing-key", help="Seal the report with this key, as ledger keygen makes it."),
]
TimestampUrl = Annotated[
    str | None,
    typer.Option("--timestamp", help="Have this RFC 3161 authority confirm the seal's time."),
]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich ends with 1, which to some commands means: nothing found
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(BROKEN_PIPE)


out = _Console(highlight=False)
err = _Console(stderr=True, highlight=False)

_NO_KEY = InvalidInput("this needs the master key", hint="give --key FILE or --key-command")


def master_key(file: Path | None, command: str | None) -> MasterKey:
    """Return the one key given; raise InvalidInput for none and for two."""
    if (file is None) == (command is None):
        raise _NO_KEY
    return read_key(file) if file is not None else key_from_command(command or "")


def master_keys(files: Sequence[Path] | None, command: str | None) -> list[MasterKey]:
    """Return all keys given; raise InvalidInput for none."""
    keys = [read_key(file) for file in files or []]
    keys += [key_from_command(command)] if command is not None else []
    if not keys:
        raise _NO_KEY
    return keys


def print_json(value: object) -> None:
    """Print one JSON object on a line of its own."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str))


@contextmanager
def working(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner on standard error that says what is going on."""
    with _shown(quiet, SpinnerColumn(), TextColumn("{task.description}")) as progress:
        task = progress.add_task("connecting", total=None)
        yield lambda step: progress.update(task, description=step)


@contextmanager
def counting(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error: what is going on, how much of how much is done."""
    bar = BarColumn(bar_width=30), TextColumn("{task.percentage:>3.0f}%")
    with _shown(quiet, TextColumn("{task.description:<24}"), *bar) as progress:
        task = progress.add_task("connecting", total=None)
        yield lambda step, done, total: progress.update(
            task, description=step, completed=done, total=total
        )


def _shown(quiet: bool, *columns: ProgressColumn) -> Progress:
    return Progress(
        *columns,
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=quiet or not err.is_terminal,
    )
