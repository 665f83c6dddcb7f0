"""``pgbalise evaluate``: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgbalise.command import AsJson, Dsn, ReportLanguage, counting, out, print_json
from pgbalise.errors import InvalidInput
from pgbalise.policyfile import read_policy


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
    colluders: Annotated[
        str | None,
        typer.Option(
            help="Sizes of coalitions to try; by default 1,2,3,5, or 1,3 if --quick.",
            show_default=False,
        ),
    ] = None,
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Drop the key from every leak.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="One strength of each attack, at most 20 leaks.")
    ] = False,
    sample: Annotated[int, typer.Option(min=8, help="Rows to read, at most.")] = 200_000,
    report: Annotated[Path | None, typer.Option(help="Write the report, FILE.html.")] = None,
    language: ReportLanguage = "en",
    dsn: Dsn = "",
    as_json: AsJson = False,
) -> None:
    """Say how well a policy's marks would survive thieves, on the database's own rows.

    Reads only the relation, needs no key, writes nothing to the database.
    """
    from pgbalise.evaluate import Question
    from pgbalise.evaluate import evaluate as ask
    from pgbalise.report.publish import write_report
    from pgbalise.report.robustness import html, summary
    from pgbalise.report.words import language_named
    from pgbalise.session import connect
    from pgbalise.tracing.robustness import settings

    chosen = language_named(language)
    if report is not None and report.suffix.lower() != ".html":
        raise InvalidInput(f"{report}: no report is written so", hint="end it in .html")
    if not 0 < alpha < 1:
        raise InvalidInput(f"alpha {alpha} is not a probability in (0, 1)")
    sizes = _sizes(colluders or ("1,3" if quick else "1,2,3,5"))
    question = Question(
        settings(attack or (), sizes, keyed=not without_key, quick=quick),
        relation,
        recipients,
        alpha,
        rows,
        min(trials, 20) if quick else trials,
        seed,
        sample,
    )
    asked = read_policy(policy)
    with counting(as_json) as say, connect(dsn) as session:
        found = ask(session, asked, question, say)
    if report is not None:
        write_report(report, html(found, chosen).encode("utf-8"))
    if as_json:
        print_json(found.as_dict())
        return
    out.print(summary(found))
    if report is not None:
        out.print(f"report: {report}", soft_wrap=True)
