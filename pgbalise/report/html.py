"""A trace report as one HTML file that prints on A4 and asks nothing of the network.

The markup is well-formed XML too, so that it can be checked and archived. What it says stands in
pgbalise.report.words; values are escaped where they enter it.
"""

from __future__ import annotations

from html import escape

from pgbalise.report import findings, provenance
from pgbalise.report.case import TraceReport, visible
from pgbalise.report.facts import write_facts
from pgbalise.report.markup import Writer, page, section
from pgbalise.report.words import Language


def html(report: TraceReport, language: Language = "en") -> str:
    """Return the report as one HTML document, encoded by the caller as UTF-8."""
    write = Writer.of(language, report.verdict)
    words = write.words
    sections = [
        ("meaning", findings.meaning(report, write)),
        ("ranking", findings.ranking(report.verdict, write)),
        ("rounds", findings.rounds(report, write) if len(report.rounds) > 1 else ""),
        ("decoys", findings.decoys(report, write) if report.decoys else ""),
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
    title = f"{words['report_title']} – {escape(visible(', '.join(report.relations)))}"
    return page(
        language,
        title,
        [
            provenance.masthead(report, write),
            findings.verdict(report, write),
            *(section(name, words[name + "_title"], text) for name, text in sections if text),
        ],
        f"<footer><p>{words['footer']}</p></footer>\n"
        # For programs: a browser runs no script of this type.
        f'<script type="application/json" id="facts">\n{write_facts(report)}\n</script>',
    )
