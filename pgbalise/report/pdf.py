"""A trace report as PDF, made from its HTML; the same report gives the same bytes."""

from __future__ import annotations

import hashlib
import re
import zlib
from datetime import UTC
from typing import Any, NoReturn

from pgbalise.errors import EnvironmentProblem, InvalidInput
from pgbalise.report.case import TraceReport
from pgbalise.report.facts import write_facts
from pgbalise.report.html import html
from pgbalise.report.words import Language

FACTS = "facts.json"
"""The attachment with the report's facts."""

_LARGEST = 1 << 28


def pdf(report: TraceReport, language: Language = "en") -> bytes:
    """Return the report as PDF, with its facts attached.

    Raises `EnvironmentProblem` when Pango, which sets the type, is not on this machine.
    """
    try:
        from weasyprint import HTML, Attachment
    except OSError:
        raise EnvironmentProblem(
            "PDF needs Pango, which is not on this machine",
            hint="install libpango-1.0-0 and libpangoft2-1.0-0",
        ) from None

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise ValueError("a report asks nothing of the network, nor of the file system")

    facts = write_facts(report)
    at = report.created_at.astimezone(UTC)
    document = HTML(string=html(report, language), url_fetcher=refuse)
    made: bytes = document.write_pdf(
        attachments=[Attachment(string=facts, name=FACTS, created=at, modified=at)],
        pdf_identifier=hashlib.sha256(facts.encode()).digest()[:16],
    )
    return made if made.endswith(b"\n") else made + b"\n"


def attached_facts(document: bytes) -> bytes:
    """Return the facts attached to a PDF that `pdf` made; raise `InvalidInput` without any."""
    found = re.search(rb"/EmbeddedFile\b.{0,400}?stream\r?\n", document, re.DOTALL)
    if found is None:
        raise InvalidInput("the report holds no facts for programs")
    try:
        return zlib.decompressobj().decompress(document[found.end() :], _LARGEST)
    except zlib.error:
        raise InvalidInput("the report's facts cannot be read") from None
