"""What the terminal shows of a verdict."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from rich.console import Console

from pgbalise.report.case import LeakedTable, LeakFile, TraceReport
from pgbalise.report.text import verdict_panel
from pgbalise.tracing.decision import Verdict, decide


def verdict(values: Sequence[float], names: Sequence[str] | None = None) -> Verdict:
    count = len(values)
    return decide(
        names or [f"role_{index}" for index in range(count)],
        np.array(values, np.float64),
        np.full(count, 6012),
        alpha=1e-9,
        rows_read=12408,
        rows_aligned=12391,
        cells_marked=6240,
        cells_used=6118,
    )


def shown(subject: Verdict | TraceReport, *, width: int = 100, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=colour, color_system="standard" if colour else None
    )
    console.print(verdict_panel(subject))
    return out.getvalue()


def test_accused_is_named_in_red() -> None:
    text = shown(verdict([0.0, 41.37, -1.0]))
    assert "This leak contains data from the copy supplied to role_1." in text
    assert "\x1b[1;31mrole_1" in shown(verdict([0.0, 41.37, -1.0]), colour=True)


def test_several_accused_are_named() -> None:
    assert "the copies supplied to role_1 and role_0." in shown(verdict([40.0, 41.0, -1.0]))


def test_nobody() -> None:
    text = shown(verdict([0.0, -1.0]))
    assert "No recipient can be named" in text


def test_all_accused_are_listed_and_the_rest_counted() -> None:
    text = shown(verdict([20.0 + index for index in range(30)] + [0.0] * 170), width=120)
    table = text.split("recipient ", 1)[1]
    for index in range(30):
        assert f"role_{index} " in table
    assert "168 more" in table


def test_facts_are_there() -> None:
    text = shown(verdict([41.37, 0.0]))
    for fact in (
        "12,391 aligned of 12,408",
        "6,118 used of 6,240",
        "N = 2",
        "1e-09",
        "9.3",
        "41.3",
    ):
        assert fact in text


def test_report_adds_its_relation_and_what_it_lacks() -> None:
    report = TraceReport(
        verdict=verdict([41.37, 0.0]),
        database="dpi",
        epoch=1,
        files=(LeakFile("a.zip", "ab" * 32, 9, 12408, ("a.zip: b.bin is a picture",)),),
        tables=(LeakedTable("dump.csv", "public.lab_result", 12408, 12391, doubtful=True),),
        carriers=(),
        noise=(),
        key_fingerprint="0" * 16,
        versions={},
        created_at=datetime(2026, 6, 7, tzinfo=UTC),
    )
    text = " ".join(shown(report).split())
    assert "public.lab_result" in text
    assert "dump.csv: its columns may not tell one row from another" in text
    assert "not read: a.zip: b.bin is a picture" in text
    of_none = " ".join(shown(replace(report, tables=())).split())
    assert "relation" not in of_none


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("values", [[9.5], [-300.0], [300.0, -5.0], [0.0] * 10_000])
def test_fits_any_terminal(width: int, values: Sequence[float]) -> None:
    text = shown(verdict(values), width=width)
    assert all(len(line) <= width for line in text.splitlines())


def test_bar_passes_the_threshold_only_of_the_accused() -> None:
    lines = [
        line for line in shown(verdict([10.5, 9.3, 4.0])).splitlines() if line.startswith(" role_")
    ]
    filled = [line.partition("┃")[2].count("━") for line in lines]
    assert filled[0] > 0
    assert filled[1:] == [0, 0]
    assert lines[2].partition("┃")[0].count("━") == pytest.approx(24 * 4 / 10.5, abs=1)


def test_names_are_neither_markup_nor_terminal_commands() -> None:
    text = shown(verdict([40.0, 0.0], ["[bold]x[/bold]", "\x1b[2Jy\u202e"]))
    assert "supplied to [bold]x[/bold]." in text
    assert "\x1b" not in text
    assert "\\u001b[2Jy\\u202e" in text
