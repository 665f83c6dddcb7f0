"""A report's facts as one line of JSON, and the report back from it."""

from __future__ import annotations

import json
from math import isclose

from pgbalise.errors import InvalidInput
from pgbalise.report.case import TraceReport
from pgbalise.report.plain import from_plain
from pgbalise.tracing.decision import RecipientVerdict, Verdict, threshold_log10

_LARGEST = 1e12
"""Beyond any exponent that evidence can have."""


def write_facts(report: TraceReport) -> str:
    """Return the report as one line of ASCII that is safe inside HTML, without the line's end."""
    text = json.dumps(report.as_dict(), separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def read_facts(text: str | bytes) -> TraceReport:
    """Return the report that `write_facts` wrote.

    Raises `InvalidInput`, without the content, for anything else, a verdict that contradicts
    itself included.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput("this is not a report's JSON") from None
    if not isinstance(document, dict):
        raise InvalidInput("this is not a report's JSON")
    verdict = _verdict(document.get("verdict"))
    return from_plain(TraceReport, document | {"verdict": verdict}, "report")


def _verdict(document: object) -> Verdict:
    """Return the verdict that `Verdict.as_dict` wrote; nobody is accused but by the rule."""
    try:
        if not isinstance(document, dict):
            raise TypeError
        rows, cells = document["rows"], document["cells"]
        flat = {name: item for name, item in document.items() if name not in ("rows", "cells")}
        flat["rows_read"], flat["rows_aligned"] = rows["read"], rows["aligned"]
        flat["cells_marked"], flat["cells_used"] = cells["marked"], cells["used"]
    except (KeyError, TypeError):
        raise InvalidInput("report.verdict is not what it must be") from None
    verdict = from_plain(Verdict, flat, "report.verdict")
    threshold = threshold_log10(verdict.recipients, verdict.alpha)

    def order(entry: RecipientVerdict) -> tuple[float, str]:
        return -entry.log10_e_value, entry.recipient

    entries = verdict.verdicts
    if not (
        isclose(threshold, verdict.threshold_log10, rel_tol=1e-12)
        and len(entries) == len({entry.recipient for entry in entries}) == verdict.recipients
        and list(entries) == sorted(entries, key=order)
        and all(e.accused == (e.log10_e_value >= verdict.threshold_log10) for e in entries)
        and 0 <= verdict.rows_aligned <= verdict.rows_read
        and 0 <= verdict.cells_used <= verdict.cells_marked
        and all(min(entry.cells, entry.decoys) >= 0 for entry in entries)
        and all(abs(entry.log10_e_value) < _LARGEST for entry in entries)
    ):
        raise InvalidInput("report.verdict contradicts itself")
    return verdict
