"""The ledger for the terminal: two lines for an extract, one for anything else; streams."""

from __future__ import annotations

from datetime import UTC

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from pgbalise.registry.extracts import Listed
from pgbalise.registry.ledger import Entry
from pgbalise.report.case import visible

_WHEN, _ROWS, _RUNS, _OUTCOME = 19, 12, 8, 12
_LEAST = 12
_STYLES = {"error": "yellow", "cancelled": "yellow", "disconnected": "yellow", "unknown": "red"}


class Listing:
    """Prints entries as they come, under a heading.

    On a terminal statements are cut to fit its width, in a file they are whole.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        rest = self._console.width - (_WHEN + _ROWS + _RUNS + _OUTCOME + 4)
        self._who = max(rest, _LEAST)
        self._begun = False

    @property
    def empty(self) -> bool:
        """Whether nothing was printed."""
        return not self._begun

    def print(self, item: Listed) -> None:
        """Print one entry; what others chose, names or statements, is shown as text."""
        if not self._begun:
            self._begun = True
            heading = ("when (UTC)", "recipient", "rows", "runs", "outcome")
            self._put(self._row(*heading), "dim")
        if item.entry.kind == "extract":
            self._extract(item)
        else:
            self._other(item.entry)

    def _extract(self, item: Listed) -> None:
        # pgaudit's are told in one entry, with members of the same names
        body, end = item.entry.body, item.outcome.body if item.outcome else {}
        outcome = str(end.get("outcome") or body.get("outcome") or "running")
        rows, runs = end.get("rows", body.get("rows")), end.get("executions")
        count = "-" if rows is None else f"{rows:,}"
        # a proxy that died knows only what left before
        at_least = "≥ " if item.outcome and outcome == "unknown" else ""
        told = f"error {end['sqlstate']}" if "sqlstate" in end else outcome
        self._put(
            self._row(
                _when(item.entry),
                str(body.get("recipient", "-")),
                at_least + count,
                "-" if runs is None else f"{runs:,}",
                told,
            ),
            _STYLES.get(outcome, ""),
        )
        relations = ", ".join(map(str, body.get("relations", ())))
        facts = (body.get("client"), body.get("application"), relations, body.get("normalised"))
        text = " · ".join(" ".join(str(fact).split()) for fact in facts if fact)
        shown = "  " + visible(text)
        if self._console.is_terminal and cell_len(shown) > self._console.width:
            shown = set_cell_size(shown, self._console.width - 1).rstrip() + "…"
        self._put(shown, "dim")

    def _other(self, entry: Entry) -> None:
        told = {
            "commitment": f", epoch {entry.body.get('epoch')}",
            "alert": f": {entry.body.get('alert_kind')}",
        }.get(entry.kind, "")
        who = _padded(str(entry.body.get("recipient", "-")), self._who)
        self._put(f"{_when(entry)} {who} {visible(entry.kind + told)}")

    def _row(self, when: str, who: str, rows: str, runs: str, outcome: str) -> str:
        who = _padded(who, self._who)
        return f"{when:<{_WHEN}} {who} {rows:>{_ROWS}} {runs:>{_RUNS}} {outcome}"

    def _put(self, line: str, style: str = "") -> None:
        self._console.print(Text(line, style), soft_wrap=True)


def _when(entry: Entry) -> str:
    text = str(entry.body.get("started_at") or entry.recorded_at.astimezone(UTC).isoformat())
    return text[:_WHEN].replace("T", " ")


def _padded(text: str, width: int) -> str:
    shown = visible(text)
    return shown + " " * (width - cell_len(shown))
