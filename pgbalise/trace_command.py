"""``pgbalise trace``: whose copy a leaked file is, or that nobody can be named."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgbalise.command import (
    AsJson,
    Dsn,
    KeyCommand,
    KeyFiles,
    ReportFile,
    ReportLanguage,
    SigningKey,
    TimestampUrl,
    master_keys,
    out,
    print_json,
    working,
)
from pgbalise.errors import InvalidInput

if TYPE_CHECKING:
    from pgbalise.report.case import TraceReport

Leaks = Annotated[
    list[Path],
    typer.Argument(
        help="Leaked files: text, spreadsheets, Parquet, JSON, SQLite, dumps, archives.",
        show_default=False,
    ),
]
RelationName = Annotated[
    str | None,
    typer.Option(
        "--relation",
        help="The protected relation, SCHEMA.NAME; by default found out.",
        show_default=False,
    ),
]
Alpha = Annotated[
    float, typer.Option(help="Bound on the probability that anyone is accused wrongly.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="LEAK=STORED",
        help="Which stored column a leaked one is (none after = for no column); repeatable.",
    ),
]


def given_columns(texts: Sequence[str] | None) -> dict[str, str | None]:
    """Read LEAK=STORED; raise InvalidInput for what is not of this form, or said twice."""
    given: dict[str, str | None] = {}
    for text in texts or ():
        name, sign, column = text.rpartition("=")
        if not sign or not name:
            raise InvalidInput(f"--column {text!r} is not of the form LEAK=STORED")
        if name in given:
            raise InvalidInput(f"--column names {name!r} twice")
        given[name] = column or None
    return given


def answer(found: TraceReport) -> dict[str, Any]:
    """Return the object that ``trace --json`` prints."""
    return found.verdict.as_dict() | {
        "epoch": found.epoch_as_dict() if found.verdict.accused else None,
        "untried_epochs": list(found.untried_epochs),
        "rounds": [list(names) for names in found.rounds],
        "tables": found.as_dict()["tables"],
    }


def trace(
    leak: Leaks,
    relation: RelationName = None,
    column: Columns = None,
    mapping: Annotated[
        bool, typer.Option("--mapping", help="Only show which columns these are.")
    ] = False,
    alpha: Alpha = 1e-6,
    report: ReportFile = None,
    language: ReportLanguage = "en",
    signing_key: SigningKey = None,
    timestamp: TimestampUrl = None,
    dsn: Dsn = "",
    key: KeyFiles = None,
    key_command: KeyCommand = None,
    registry: Annotated[
        str | None,
        typer.Option(
            "--registry",
            envvar="PGBALISE_REGISTRY",
            help="The registry, to tell which extracts these rows may be from.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whose copy a leaked file is, or that nobody can be named."""
    from pgbalise.investigate import Question, investigate, mapped
    from pgbalise.report.plain import to_plain
    from pgbalise.report.text import mapping_panel, verdict_panel
    from pgbalise.tracing.decision import threshold_log10

    threshold_log10(1, alpha)
    target = None
    if report is not None:
        from pgbalise.report.publish import publication

        target = publication(report, language, signing_key, timestamp)
    question = Question(dsn, master_keys(key, key_command), relation, given_columns(column))
    if mapping:
        with working(as_json) as say:
            tables = mapped(leak, question, progress=say)
        if as_json:
            print_json({"tables": [to_plain(table) for table in tables]})
        else:
            out.print(mapping_panel(tables))
        return
    now = datetime.now(UTC)
    with working(as_json) as say:
        found = investigate(leak, question, alpha=alpha, created_at=now, progress=say)
        if registry is not None:
            from pgbalise.registry.consulting import consulted, origin
            from pgbalise.registry.store import open_registry
            from pgbalise.session import connect

            say("asking the registry")
            with connect(dsn) as session, open_registry(registry) as connection:
                found, _ = consulted(connection, found, origin(session), now)
    if target is not None:
        target.write(found, now)
    if as_json:
        print_json(answer(found))
    else:
        out.print(verdict_panel(found))
        if any(one.by in ("content", "given") for t in found.tables for one in t.columns):
            out.print(mapping_panel(found.tables))
        if report is not None:
            out.print(f"report: {report}", soft_wrap=True)
    raise typer.Exit(0 if found.verdict.accused else 1)
