"""``pgbalise case``: leaks of one affair, every look at them, and what was concluded.

Exit status: 0 done (``run``: someone is accused), 1 the answer is no (``run``: no one is accused;
``show``: the case's tables contradict its ledger), 2 an error.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgbalise.command import (
    AsJson,
    Dsn,
    KeyCommand,
    KeyFiles,
    Registry,
    ReportFile,
    ReportLanguage,
    SigningKey,
    TimestampUrl,
    master_keys,
    out,
    print_json,
    working,
)
from pgbalise.errors import EnvironmentProblem, InvalidInput
from pgbalise.registry.commands import moment
from pgbalise.trace_command import Columns, RelationName, given_columns

if TYPE_CHECKING:
    from pgbalise.registry.cases import Case
    from pgbalise.registry.looks import Outcome
    from pgbalise.report.case import TraceReport

case_app = typer.Typer(help="Leaks of one affair, every look at them, and what was concluded.")

Number = Annotated[int, typer.Argument(metavar="CASE", show_default=False)]
Leaks = Annotated[list[Path], typer.Argument(metavar="LEAK...", show_default=False)]


def _now() -> datetime:
    return datetime.now(UTC)


def _shown(text: str) -> str:
    from pgbalise.report.case import visible

    return visible(text)


@case_app.command("open")
def case_open(
    title: Annotated[str, typer.Argument(show_default=False)],
    alpha: Annotated[
        float,
        typer.Option(help="Bound on the probability that any look accuses anyone wrongly."),
    ] = 1e-6,
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """Open a case, and choose once how sure all its looks together must be."""
    from pgbalise.registry.cases import open_case
    from pgbalise.registry.store import open_registry

    with open_registry(registry) as connection:
        number = open_case(connection, title, alpha, _now())
    if as_json:
        print_json({"case": number, "title": title, "alpha": alpha})
    else:
        typer.echo(f"case {number} is open, with α = {alpha:g} for all its looks together")


@case_app.command("add")
def case_add(
    case: Number,
    leak: Leaks,
    found: Annotated[
        str | None,
        typer.Option(
            "--found",
            help="When: ISO 8601, UTC unless it says; now by default.",
            show_default=False,
        ),
    ] = None,
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """Add leaked files: their names, SHA-256 and sizes. The files themselves are not stored."""
    from pgbalise.registry.cases import add_leaks
    from pgbalise.registry.store import open_registry

    at = _now()
    found_at = moment(found, "--found") or at
    with open_registry(registry) as connection:
        added = add_leaks(connection, case, leak, found_at, at)
    if as_json:
        print_json({"case": case, "files": [vars(file) | {"cases": o} for file, o in added]})
        return
    for file, others in added:
        typer.echo(f"file {file.number}: {_shown(file.name)}, SHA-256 {file.sha256}")
        if others:
            typer.echo(f"it is also in case {', '.join(map(str, others))}: the cases' α's add up")


@case_app.command("run")
def case_run(
    case: Number,
    leak: Leaks,
    relation: RelationName = None,
    column: Columns = None,
    only: Annotated[
        bool, typer.Option("--only", help="Look at the files given, though the case has more.")
    ] = False,
    report: ReportFile = None,
    language: ReportLanguage = "en",
    signing_key: SigningKey = None,
    timestamp: TimestampUrl = None,
    dsn: Dsn = "",
    key: KeyFiles = None,
    key_command: KeyCommand = None,
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """Trace a case's files, all of them or --only some. Takes a look unless nothing changed."""
    from pgbalise.investigate import Question
    from pgbalise.registry.looks import run
    from pgbalise.registry.store import open_registry

    target = None
    refused: list[EnvironmentProblem] = []
    if report is not None:
        from pgbalise.report.publish import publication

        target = publication(report, language, signing_key, timestamp)

    def rendered(found: TraceReport) -> bytes:
        assert target is not None
        content, late = target.content(found, _now())
        refused[:] = [late] if late is not None else []
        return content

    question = Question(dsn, master_keys(key, key_command), relation, given_columns(column))
    with working(as_json) as say, open_registry(registry) as connection:
        answer = run(
            connection,
            case,
            leak,
            question,
            _now,
            only=only,
            render=None if target is None else rendered,
            progress=say,
        )
    if target is not None and answer.rendered is not None:
        # after the verdict is recorded: before, nobody may read it
        try:
            target.save(answer.rendered)
        except InvalidInput as problem:
            raise InvalidInput(
                problem.message, hint="the verdict is recorded; run the same again, it is free"
            ) from None
        for late in refused:
            raise late
    if as_json:
        print_json(_answered(answer))
    else:
        _print_answer(answer, report)
    raise typer.Exit(0 if answer.report.verdict.accused else 1)


def _answered(answer: Outcome) -> dict[str, Any]:
    from pgbalise.registry.cases import verdict_sha256

    found, accused = answer.report, bool(answer.report.verdict.accused)
    return found.verdict.as_dict() | {
        "epoch": found.epoch_as_dict() if accused else None,
        "untried_epochs": list(found.untried_epochs),
        "case": answer.case.number,
        "case_alpha": answer.case.alpha,
        "look": answer.run.look,
        "repeats": answer.run.repeats is not None,
        "verdict_sha256": verdict_sha256(answer.run.verdict or {}),
        "report_sha256": answer.run.report_sha256,
        "extracts": {
            "best": [vars(extract) for extract in answer.extracts.best],
            "fitting": answer.extracts.fitting,
            "considered": answer.extracts.considered,
        },
    }


def _print_answer(answer: Outcome, report: Path | None) -> None:
    from pgbalise.registry.case_view import extracts_table
    from pgbalise.report.text import verdict_panel

    out.print(verdict_panel(answer.report))
    case, run = answer.case, answer.run
    again = ", the same verdict as before: no look was spent" if run.repeats else ""
    out.print(
        f"look {run.look} of case {case.number}, at α = {run.alpha:.3g} of {case.alpha:g}{again}",
        soft_wrap=True,
    )
    if report is not None:
        out.print(f"report: {_shown(str(report))}", soft_wrap=True, markup=False)
    if answer.report.verdict.accused:
        out.print()
        out.print(extracts_table(answer.extracts))


@case_app.command("list")
def case_list(registry: Registry = "", as_json: AsJson = False) -> None:
    """List every case, and what each came to."""
    from pgbalise.registry.case_view import cases_table
    from pgbalise.registry.cases import cases
    from pgbalise.registry.store import open_registry

    with open_registry(registry) as connection:
        found = cases(connection)
    if as_json:
        print_json([_summary(case) for case in found])
    elif found:
        out.print(cases_table(found))
    else:
        typer.echo("no case was opened")


@case_app.command("show")
def case_show(case: Number, registry: Registry = "", as_json: AsJson = False) -> None:
    """Show a case's files, looks and conclusion, held against the ledger."""
    from pgbalise.registry.case_view import case_panel
    from pgbalise.registry.cases import case as read_case
    from pgbalise.registry.cases import faults
    from pgbalise.registry.commands import entry_as_dict
    from pgbalise.registry.store import open_registry

    with open_registry(registry) as connection:
        found = read_case(connection, case)
    wrong = faults(found)
    if as_json:
        print_json(
            _summary(found)
            | {
                "files": [vars(file) for file in found.files],
                "runs": [vars(run) for run in found.runs],
                "history": [entry_as_dict(entry) for entry in found.history],
                "faults": wrong,
            }
        )
    else:
        out.print(case_panel(found, wrong))
    raise typer.Exit(1 if wrong else 0)


def _summary(case: Case) -> dict[str, Any]:
    return {
        "case": case.number,
        "title": case.title,
        "alpha": case.alpha,
        "spent": case.spent,
        "looks": case.looks,
        "opened_at": case.opened_at,
        "closed_at": case.closed_at,
        "conclusion": case.conclusion,
        "files": len(case.files),
        "accused": case.accused,
    }


@case_app.command("close")
def case_close(
    case: Number,
    conclusion: Annotated[str, typer.Option(help="What was concluded.", show_default=False)],
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """Close a case with a conclusion. It takes nothing more."""
    from pgbalise.registry.cases import close_case
    from pgbalise.registry.store import open_registry

    with open_registry(registry) as connection:
        close_case(connection, case, conclusion, _now())
    _told(as_json, case, "closed")


@case_app.command("reopen")
def case_reopen(
    case: Number,
    reason: Annotated[str, typer.Option(help="Why.", show_default=False)],
    registry: Registry = "",
    as_json: AsJson = False,
) -> None:
    """Open a closed case again. Its looks go on; its conclusion stays in the ledger."""
    from pgbalise.registry.cases import reopen_case
    from pgbalise.registry.store import open_registry

    with open_registry(registry) as connection:
        reopen_case(connection, case, reason, _now())
    _told(as_json, case, "open")


def _told(as_json: bool, case: int, state: str) -> None:
    if as_json:
        print_json({"case": case, "state": state})
    else:
        typer.echo(f"case {case} is {state}{' again' if state == 'open' else ''}")
