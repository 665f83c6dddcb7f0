"""The ledger for the terminal: two lines for an extract, one for anything else; streams."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from rich.cells import set_cell_size
from rich.console import Console
from rich.text import Text

from pgbalise.registry.extracts import Listed
from pgbalise.report.case import visible

_WHEN, _ROWS, _RUNS, _OUTCOME = 19, 11, 5, 12
_LEAST = 8
_STYLES = {"error": "yellow", "cancelled": "yellow", "disconnected": "yellow", "unknown": "red"}


class Listing:
    """Prints entries as they come, under a heading, as wide as the console."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        rest = self._console.width - _WHEN - _ROWS - _RUNS - _OUTCOME - 5
        self._who = max(rest // 2, _LEAST)
        self._from = max(rest - self._who, _LEAST)
        self._begun = False

    def print(self, item: Listed) -> None:
        """Print one entry; what others chose, names or statements, is shown as text."""
        if not self._begun:
            self._begun = True
            heading = ("when (UTC)", "recipient", "from", "rows", "runs", "outcome")
            self._put(Text(self._row(*heading), "dim"))
        if item.entry.kind == "extract":
            self._extract(item)
        else:
            self._other(item)

    def _extract(self, item: Listed) -> None:
        body, end = item.entry.body, item.outcome.body if item.outcome else {}
        # pgaudit's are told in one entry
        outcome = str(end.get("outcome") or body.get("outcome") or "running")
        rows = end.get("rows", body.get("rows"))
        count = "-" if rows is None else f"{rows:,}"
        if item.outcome and outcome == "unknown":
            count = f"≥ {count}"
        runs = end.get("executions")
        line = Text(
            self._row(
                self._when(item),
                body.get("recipient", "-"),
                " ".join(str(body.get(name) or "") for name in ("client", "application")).strip(),
                count,
                "-" if runs is None else f"{runs:,}",
                (end.get("sqlstate", "") and f"error {end['sqlstate']}") or outcome,
            )
        )
        if outcome in _STYLES:
            line.stylize(_STYLES[outcome], len(line) - _OUTCOME)
        self._put(line)
        what = f"{_what(body)}  {body.get('normalised') or ''}".rstrip()
        self._put(Text(set_cell_size(f"  {visible(what)}", self._console.width).rstrip(), "dim"))

    def _other(self, item: Listed) -> None:
        body = item.entry.body
        epoch = f", epoch {body['epoch']}" if item.entry.kind == "commitment" else ""
        columns = (self._when(item), body.get("recipient", "-"), f"{item.entry.kind}{epoch}")
        self._put(Text(self._row(*columns, "", "", "").rstrip()))

    def _when(self, item: Listed) -> str:
        moment = item.entry.body.get("started_at")
        text = str(moment or item.entry.recorded_at.astimezone(UTC).isoformat())
        return text[:_WHEN].replace("T", " ")

    def _row(self, when: str, who: str, place: str, rows: str, runs: str, outcome: str) -> str:
        return " ".join(
            (
                _fit(when, _WHEN),
                _fit(who, self._who),
                _fit(place, self._from),
                rows.rjust(_ROWS),
                runs.rjust(_RUNS),
                outcome.ljust(_OUTCOME),
            )
        )

    def _put(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)


def _what(body: Mapping[str, Any]) -> str:
    return ", ".join(str(name) for name in body.get("relations", ()))


def _fit(text: object, width: int) -> str:
    shown = visible(str(text))
    fitted = set_cell_size(shown, width)
    return fitted if fitted.rstrip() == shown.rstrip() else set_cell_size(shown, width - 1) + "…"
