"""Cases for the terminal, as rich renderables.

Titles, names and conclusions are shown as text: neither markup nor control characters in them have
an effect. Times are UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pgbalise.registry.cases import Case, Run
from pgbalise.registry.matching import Matches, PossibleExtract
from pgbalise.report.case import round_down, visible
from pgbalise.tracing.decision import spend

_NAMES = 3
_EXTRACTS = 5
_DIGEST = 12


def cases_table(found: Sequence[Case]) -> RenderableType:
    """Return one row for each case."""
    table = _table()
    table.add_column("case", justify="right", no_wrap=True)
    table.add_column("title", overflow="fold", min_width=14)
    table.add_column("opened", no_wrap=True)
    table.add_column("closed", no_wrap=True)
    table.add_column("files", justify="right", no_wrap=True)
    table.add_column("looks", justify="right", no_wrap=True)
    table.add_column("accused", overflow="fold", min_width=12)
    for case in found:
        table.add_row(
            str(case.number),
            Text(visible(case.title)),
            _day(case.opened_at),
            _day(case.closed_at) if case.closed_at else "",
            f"{len(case.files):,}",
            f"{case.looks:,}",
            _names(case.accused),
            style="dim" if case.closed_at else "",
        )
    return table


def case_panel(case: Case, wrong: Sequence[str]) -> RenderableType:
    """Return a case in full; ``wrong`` says where its tables contradict its ledger."""
    title = Text.assemble((f"Case {case.number}", "bold"), "  ", (visible(case.title), "bold"))
    state = f"opened {_minute(case.opened_at)}"
    if case.closed_at is not None:
        state += f" · closed {_minute(case.closed_at)}"
    parts: list[RenderableType] = [title, Text(state, "dim"), ""]
    parts += [Text(fault, "bold red") for fault in wrong]
    parts += [""] if wrong else []
    if case.files:
        parts += [_files(case), ""]
    else:
        parts.append(Text(f"No file yet: pgbalise case add {case.number} FILE"))
    if case.runs:
        parts += [_looks(case), ""]
    lost = [str(run.look) for run in case.runs if run.state == "lost"]
    if lost:
        text = f"Look {lost[0]} has no verdict: its trace did not end. It counts all the same."
        if len(lost) > 1:
            text = f"Looks {', '.join(lost)} have no verdict: their traces did not end. They count."
        parts += [Text(text), ""]
    parts += _conclusions(case)
    parts.append(_budget(case))
    return Padding(Group(*parts), (1, 1))


def _conclusions(case: Case) -> list[RenderableType]:
    """Every conclusion there was, and why it did not last."""
    lines: list[RenderableType] = []
    for entry in case.history:
        day = _day(entry.recorded_at)
        if entry.kind == "case_closed":
            text = _paragraphs(str(entry.body.get("conclusion")))
            lines.append(Text.assemble((f"Concluded {day}: ", "bold"), text))
        elif entry.kind == "case_reopened":
            lines.append(
                Text.assemble(f"Reopened {day}: ", _paragraphs(str(entry.body.get("reason"))))
            )
    return [*lines, ""] if lines else lines


def _paragraphs(text: str) -> str:
    return "\n".join(visible(line) for line in text.strip().splitlines())


def _budget(case: Case) -> Text:
    line = Text()
    line.append("all looks together α ", "dim").append(f"{case.alpha:g}")
    line.append(" · spent ", "dim").append(f"{case.spent:.3g}")
    if case.closed_at is None:
        following = spend(case.alpha, case.looks + 1)
        line.append(f" · look {case.looks + 1} would test at ", "dim").append(f"{following:.3g}")
    return line


def _files(case: Case) -> Table:
    table = _table()
    table.add_column("file", justify="right", no_wrap=True)
    table.add_column("name", overflow="fold")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("found", no_wrap=True)
    table.add_column("SHA-256", no_wrap=True)
    for file in case.files:
        table.add_row(
            str(file.number),
            Text(visible(file.name)),
            f"{file.size:,}",
            _minute(file.found_at),
            f"{file.sha256[:_DIGEST]}…",
        )
    return table


def _looks(case: Case) -> Table:
    table = _table()
    table.add_column("look", justify="right", no_wrap=True)
    table.add_column("begun", no_wrap=True)
    table.add_column("files", overflow="fold")
    table.add_column("α", justify="right", no_wrap=True)
    table.add_column("needed", justify="right", no_wrap=True)
    table.add_column("log10 E", justify="right", no_wrap=True)
    table.add_column("accused", overflow="fold", min_width=12)
    for run in case.runs:
        table.add_row(
            str(run.look) if run.repeats is None else Text("again", "dim"),
            _minute(run.begun_at),
            _numbers(run.files, len(case.files)),
            f"{run.alpha:.2g}",
            *_verdict(run),
            style="" if run.repeats is None else "dim",
        )
    return table


def _verdict(run: Run) -> tuple[str, str, Text]:
    if run.verdict is None:
        told = {"running": Text("running", "cyan"), "lost": Text("no verdict", "bold yellow")}
        return "", "", told[run.state]
    strongest = run.verdict["verdicts"][0]["log10_e_value"]
    threshold = round_down(run.verdict["threshold_log10"], 1)
    return f"{threshold:.1f}", f"{round_down(strongest, 1):.1f}", _names(run.accused)


def _numbers(files: Sequence[int], there: int) -> str:
    if len(files) == there and there > 1:
        return f"1–{there}"
    return ", ".join(map(str, files))


def extracts_table(found: Matches) -> RenderableType:
    """Return the likeliest extracts, what speaks for each and what against."""
    if not found.considered:
        return Text("The ledger has no extract of the accused from this relation.", "yellow")
    counted = f"{found.fitting:,} of {found.considered:,} extracts of the accused in the ledger"
    parts: list[RenderableType] = [
        Text(f"{counted} may be the source.", "bold" if found.fitting else "bold yellow"),
        "",
    ]
    shown = [each for each in found.best if not each.contradicts] or found.best
    for extract in shown[:_EXTRACTS]:
        parts += [_extract(extract)]
    rest = found.fitting - _EXTRACTS
    if rest > 0:
        parts.append(Text(f"and {rest:,} more", "dim"))
    return Group(*parts)


def _extract(extract: PossibleExtract) -> RenderableType:
    head = Text.assemble(
        (f"entry {extract.sequence:,}", "bold"),
        f"  {_minute(extract.started_at)}  ",
        (visible(extract.recipient), "red"),
    )
    facts = (extract.client, extract.application, extract.command)
    source = " · ".join(visible(fact) for fact in facts if fact)
    lines: list[RenderableType] = []
    if source:
        lines.append(Text(source, "dim"))
    lines.append(Text(visible("; ".join(extract.fits))))
    if extract.contradicts:
        lines.append(Text(f"but {visible('; '.join(extract.contradicts))}", "yellow"))
    return Group(head, Padding(Group(*lines), (0, 0, 0, 2)))


def _names(accused: Sequence[str]) -> Text:
    if not accused:
        return Text("–", "dim")
    shown = [visible(name) for name in accused[:_NAMES]]
    more = f" and {len(accused) - _NAMES:,} more" if len(accused) > _NAMES else ""
    return Text(", ".join(shown), "red").append(more)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, header_style="dim", show_edge=False, padding=(0, 1, 0, 0))


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d")
