"""A trace report as one HTML file that prints on A4 and asks nothing of the network.

The markup is well-formed XML too, so that it can be checked and archived. What it says stands in
pgbalise.report.words; values are escaped where they enter it.
"""

from __future__ import annotations

from html import escape

from pgbalise.report import findings, provenance
from pgbalise.report.case import TraceReport, visible
from pgbalise.report.facts import write_facts
from pgbalise.report.markup import Writer
from pgbalise.report.style import STYLE
from pgbalise.report.words import Language


def html(report: TraceReport, language: Language = "en") -> str:
    """Return the report as one HTML document, encoded by the caller as UTF-8."""
    write = Writer.of(language, report.verdict)
    words = write.words
    sections = [
        ("meaning", findings.meaning(report, write)),
        ("ranking", findings.ranking(report.verdict, write)),
        ("rounds", findings.rounds(report, write) if len(report.rounds) > 1 else ""),
        ("carriers", findings.carriers(report, write)),
        ("noise", findings.noise(report, write)),
        ("source", findings.source(report, write) if report.source else ""),
        ("matching", provenance.matching(report, write)),
        ("extracts", provenance.extracts(report, write)),
        ("inputs", provenance.inputs(report, write)),
        ("method", provenance.method(report, write)),
        ("limits", provenance.limits(write)),
        ("signature", provenance.signature(report, write)),
    ]
    body = "\n".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{words[name + "_title"]}</h2>\n'
        f"{content}</section>"
        for name, content in sections
        if content
    )
    title = f"{words['report_title']} – {escape(visible(', '.join(report.relations)))}"
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8"/>\n'
        # The browser itself refuses any request this file might make.
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        '<meta name="color-scheme" content="light dark"/>\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{provenance.masthead(report, write)}\n{findings.verdict(report, write)}\n{body}\n"
        f"</main>\n<footer><p>{words['footer']}</p></footer>\n"
        # For programs: a browser runs no script of this type.
        f'<script type="application/json" id="facts">\n{write_facts(report)}\n</script>\n'
        "</body>\n</html>\n"
    )
