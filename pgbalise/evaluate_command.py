"""``pgbalise evaluate``: parse, call, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pgbalise.errors import InvalidInput, InvalidPolicy
from pgbalise.marking.policy import Policy, load_policy


def _policy(path: Path) -> Policy:
    try:
        return load_policy(path.read_text("utf-8"))
    except OSError as problem:
        raise InvalidPolicy(f"{path}: the policy cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidPolicy(f"{path}: the policy is not UTF-8 text") from None
    except InvalidPolicy as problem:
        raise InvalidPolicy(f"{path}: {problem.message}", hint=problem.hint) from None


def _sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInput(
            "--colluders: not a list of numbers", hint="such as --colluders 1,2,3"
        ) from None


def evaluate(
    policy: Annotated[Path, typer.Option(help="The policy, TOML or JSON.", show_default=False)],
    relation: Annotated[
        str | None,
        typer.Option(help="SCHEMA.NAME; needless when the policy has one.", show_default=False),
    ] = None,
    recipients: Annotated[int, typer.Option(min=1, help="Who could have leaked.")] = 1_000,
    alpha: Annotated[
        float, typer.Option(help="Bound on the probability that anyone is accused wrongly.")
    ] = 1e-6,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the copies that leak.")] = 1_000,
    trials: Annotated[int, typer.Option(min=1, help="Leaks for each attack.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="What all that is drawn follows from.")] = 1,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="Only this attack; may be repeated.", show_default=False),
    ] = None,
    colluders: Annotated[str, typer.Option(help="Sizes of coalitions to try.")] = "1,2,3,5",
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Drop the key from every leak.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="One strength of each attack, at most 20 leaks.")
    ] = False,
    sample: Annotated[int, typer.Option(min=8, help="Rows to read, at most.")] = 200_000,
    report: Annotated[Path | None, typer.Option(help="Write the report, FILE.html.")] = None,
    language: Annotated[str, typer.Option(help="The report's language, en or fr.")] = "en",
    dsn: Annotated[
        str,
        typer.Option(
            "--dsn",
            help="libpq connection string or URI; by default PG* variables, service files,"
            " .pgpass.",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how well a policy's marks would survive thieves, on the database's own rows.

    Reads only the relation, needs no key, writes nothing to the database.
    """
    from pgbalise.evaluate import Question
    from pgbalise.evaluate import evaluate as ask
    from pgbalise.report.robustness import html, summary
    from pgbalise.session import connect
    from pgbalise.tracing.robustness import settings

    if language not in ("en", "fr"):
        raise InvalidInput(f"no report in {language!r}", hint="en or fr")
    if not 0 < alpha < 1:
        raise InvalidInput(f"alpha {alpha} is not a probability in (0, 1)")
    question = Question(
        settings(attack or (), _sizes(colluders), keyed=not without_key, quick=quick),
        relation,
        recipients,
        alpha,
        rows,
        min(trials, 20) if quick else trials,
        seed,
        sample,
    )
    asked = _policy(policy)
    err = Console(stderr=True, highlight=False)
    with (
        Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            console=err,
            transient=True,
            disable=as_json or not err.is_terminal,
        ) as shown,
        connect(dsn) as session,
    ):
        task = shown.add_task("connecting", total=None)
        found = ask(
            session,
            asked,
            question,
            lambda what, done, total: shown.update(
                task, description=what, completed=done, total=total
            ),
        )
    if report is not None:
        report.write_text(html(found, "fr" if language == "fr" else "en"), "utf-8")
    if as_json:
        print(json.dumps(found.as_dict(), ensure_ascii=False))  # noqa: T201 - the answer
        return
    out = Console(highlight=False)
    out.print(summary(found))
    if report is not None:
        out.print(f"report: {report}", soft_wrap=True)
