"""A verdict for the terminal, as rich renderables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pgbalise.report.case import (
    LeakedTable,
    MappedColumn,
    TraceReport,
    exponent_places,
    round_down,
    visible,
)
from pgbalise.tracing.decision import Verdict

_NARROW, _WIDE = 8, 24
_LEAST_ROWS = 5
_LEAST_OTHERS = 2
_NAMES_IN_SENTENCE = 5
_SURE = 0.9
_WARNINGS = 5


def verdict_panel(subject: TraceReport | Verdict) -> RenderableType:
    """Return the verdict in one sentence, the strongest recipients, and the facts it rests on.

    Names are shown as text: neither rich markup nor control characters in them have an effect.
    """
    verdict = subject.verdict if isinstance(subject, TraceReport) else subject
    parts: list[RenderableType] = [
        _sentence(verdict),
        "",
        _table(verdict),
        _facts(subject, verdict),
    ]
    if isinstance(subject, TraceReport):
        parts += _warnings(subject)
    return Padding(Group(*parts), (1, 1))


def _warnings(report: TraceReport) -> list[RenderableType]:
    """What may have kept evidence from being found."""
    told = [
        f"{visible(table.name)}: its columns may not tell one row from another"
        for table in report.tables
        if table.doubtful
    ]
    told += [f"not read: {visible(line)}" for file in report.files for line in file.skipped]
    more = len(told) - _WARNINGS
    told = [*told[:_WARNINGS], f"and {more:,} more"] if more > 1 else told
    return ["", *(Text(line, "yellow") for line in told)] if told else []


def mapping_panel(tables: Sequence[LeakedTable]) -> RenderableType:
    """Return which relation each leaked table is of, and which column each of its columns is.

    Names are shown as text, as in `verdict_panel`.
    """
    parts: list[RenderableType] = []
    for leaked in tables:
        title = Text(visible(leaked.name), style="bold")
        if leaked.relation is None:
            parts += [title.append(": of no protected relation", style="yellow"), ""]
            continue
        title.append(": ").append(visible(leaked.relation), style="bold cyan")
        parts += [title, columns_table(leaked.columns), ""]
    return Padding(Group(*parts), (1, 1, 0, 1))


_USES = {"key": "key", "carrier": "carries marks", "link": "finds the row", "ignored": ""}


def columns_table(columns: Sequence[MappedColumn]) -> Table:
    """Return which column of the relation each leaked column was taken for."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", show_edge=False, pad_edge=False)
    for name in ("in the leak", "in the relation", "use", "found by"):
        table.add_column(name, overflow="fold")
    table.add_column("sure", justify="right", no_wrap=True)
    table.add_column("written", overflow="fold")
    for one in columns:
        style = "dim" if one.column is None else ""
        sure = "" if one.confidence is None or one.column is None else f"{one.confidence:.0%}"
        table.add_row(
            Text(visible(one.leak_column), style),
            Text("–" if one.column is None else visible(one.column), style),
            Text(_USES[one.use], style),
            Text("" if one.by == "none" else one.by, style),
            Text(sure, "yellow" if one.confidence is not None and one.confidence < _SURE else ""),
            Text(visible(", ".join(one.formats)), style),
        )
    return table


def _sentence(verdict: Verdict) -> Text:
    accused = [visible(name) for name in verdict.accused]
    if not accused:
        return Text("No recipient can be named as a source of this leak.", style="bold yellow")
    copy = "copy" if len(accused) == 1 else "copies"
    sentence = Text(f"This leak contains data from the {copy} supplied to ", style="bold")
    shown = accused
    if len(accused) > _NAMES_IN_SENTENCE + 1:
        shown = [*accused[:_NAMES_IN_SENTENCE], f"{len(accused) - _NAMES_IN_SENTENCE:,} more"]
    for index, name in enumerate(shown):
        if index:
            sentence.append(" and " if index == len(shown) - 1 else ", ")
        sentence.append(name, style="red")
    return sentence.append(".")


def _table(verdict: Verdict) -> Table:
    shown = verdict.verdicts[: max(_LEAST_ROWS, len(verdict.accused) + _LEAST_OTHERS)]
    full = max([verdict.threshold_log10, *(entry.log10_e_value for entry in shown)])
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", show_edge=False, pad_edge=False)
    table.add_column("recipient", overflow="fold", min_width=14)
    table.add_column("log10 E", justify="right", no_wrap=True)
    table.add_column("against threshold")
    table.add_column("cells", justify="right", no_wrap=True)
    table.add_column("decoys", justify="right", no_wrap=True)
    for entry in shown:
        style = "red" if entry.accused else ""
        table.add_row(
            Text(visible(entry.recipient), style="bold red" if entry.accused else ""),
            Text(_exponent(entry.log10_e_value, verdict), style=style),
            _Bar(entry.log10_e_value / full, verdict.threshold_log10 / full, style),
            f"{entry.cells:,}",
            f"{entry.decoys:,}" if entry.decoys else "–",
        )
    rest = verdict.verdicts[len(shown) :]
    if rest:
        highest = _exponent(rest[0].log10_e_value, verdict)
        table.add_row(Text(f"{len(rest):,} more", "dim"), Text(f"≤ {highest}", "dim"))
    return table


def _exponent(log: float, verdict: Verdict) -> str:
    places = exponent_places(verdict)
    return f"{round_down(log, places):.{places}f}"


@dataclass(frozen=True)
class _Bar:
    """A bar from 10^0 to the full scale; the stroke marks the threshold."""

    share: float
    threshold: float
    style: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        del console
        return Measurement(_NARROW, _WIDE).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console
        width = min(options.max_width, _WIDE)
        filled = round(width * min(max(self.share, 0.0), 1.0))
        mark = min(round(width * self.threshold), width - 1)
        line = "━" * filled + "─" * (width - filled)
        bar = Text(f"{line[:mark]}┃{line[mark + 1 :]}", no_wrap=True)
        bar.stylize(self.style, 0, filled)
        bar.stylize("dim", filled)
        bar.stylize("default bold not dim", mark, mark + 1)
        yield bar


def _facts(subject: TraceReport | Verdict, verdict: Verdict) -> Group:
    seen = [
        ("rows", f"{verdict.rows_aligned:,} aligned of {verdict.rows_read:,}"),
        ("cells", f"{verdict.cells_used:,} used of {verdict.cells_marked:,} marked"),
    ]
    if isinstance(subject, TraceReport):
        if subject.relations:
            seen.insert(0, ("relation", visible(", ".join(subject.relations))))
        seen += _epochs(subject)
    rule = [
        ("threshold", f"log10 N/α = {_exponent(verdict.threshold_log10, verdict)}"),
        ("recipients", f"N = {verdict.recipients:,}"),
        ("false accusation", f"α = {verdict.alpha:g}"),
    ]
    return Group("", _line(seen), _line(rule))


def _epochs(report: TraceReport) -> list[tuple[str, str]]:
    """From which epoch an accused recipient's copy is, and which epochs could not be tried."""
    seen = []
    if report.verdict.accused:
        times = [(time or "now")[:10] for time in (report.epoch_opened_at, report.epoch_closed_at)]
        during = f" ({times[0]} to {times[1]})" if report.epoch_opened_at else ""
        seen.append(("epoch", f"{report.epoch}{during}"))
    if report.untried_epochs:
        listed = ", ".join(map(str, report.untried_epochs))
        seen.append(("not tried, for want of their key: epoch", listed))
    return seen


def _line(facts: Sequence[tuple[str, str]]) -> Text:
    line = Text()
    for index, (name, value) in enumerate(facts):
        line.append(" · " if index else "", style="dim")
        line.append(f"{name} ", style="dim").append(value)
    return line
