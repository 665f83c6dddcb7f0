"""How names, numbers and tables are written in HTML, in each language.

Numbers such as 10^41.3 are written ``10^{41.3}`` until the last moment, because HTML, SVG and plain
text raise an exponent differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from math import floor, isclose, log10
from typing import NamedTuple

from pgbalise.report.case import exponent_places, round_down, visible
from pgbalise.report.style import STYLE
from pgbalise.report.words import WORDS, Language
from pgbalise.tracing.decision import Verdict

NAMES_IN_SENTENCE = 5
_LONG = 24
_WHOLE = 16


@dataclass(frozen=True)
class Numbers:
    """How numbers are written in one language."""

    language: Language

    def count(self, number: int) -> str:
        """Write a whole number with groups of three digits."""
        return f"{number:,}".replace(",", "\u202f") if self.language == "fr" else f"{number:,}"

    def decimal(self, number: float, places: int) -> str:
        """Write a number with so many decimals."""
        text = f"{number:.{places}f}".replace("-", "−")
        return text.replace(".", ",") if self.language == "fr" else text

    def probability(self, value: float) -> str:
        """Write a probability: 0.05 as it is, small ones as a multiple of a power of ten."""
        if value >= 1e-3:
            text = f"{value:.6f}".rstrip("0")
            return text.replace(".", ",") if self.language == "fr" else text
        exponent = floor(log10(value) + 1e-9)
        mantissa = f"{10.0 ** (log10(value) - exponent):.2f}".rstrip("0").rstrip(".")
        mantissa = mantissa.replace(".", ",") if self.language == "fr" else mantissa
        power = "10^{−" + str(-exponent) + "}"
        return power if mantissa == "1" else f"{mantissa}\u00a0×\u00a0{power}"


@dataclass(frozen=True)
class Writer(Numbers):
    """How numbers and names are written in one language, for one verdict."""

    verdict: Verdict
    words: Mapping[str, str]

    @classmethod
    def of(cls, language: Language, verdict: Verdict) -> Writer:
        """Return how to write about a verdict in a language."""
        words = {name: spaced(text, language) for name, text in WORDS[language].items()}
        return cls(language, verdict, words)

    def share(self, share: float) -> str:
        """Write a share as a percentage; what is not all is never written as 100 %."""
        percent = 100 * min(share, 1.0)
        sign = ""
        if 0 < percent < 0.1:
            sign, percent = "&lt; ", 0.1
        elif 99.9 < percent < 100:
            sign, percent = "&gt; ", 99.9
        text = self.decimal(percent, 0 if percent in (0, 100) else 1)
        return f"{sign}{text}\u202f%" if self.language == "fr" else f"{sign}{text}%"

    def power(self, log: float) -> str:
        """Write 10^log, the exponent rounded down."""
        places = exponent_places(self.verdict)
        return "10^{" + self.decimal(round_down(log, places), places) + "}"

    def odds(self, log: float) -> str:
        """Write 10^log, log >= 0, as the x of "1 in x", rounded down: no chance is understated."""
        whole = round(10.0**log) if log < 9.5 else 0
        if (
            log < 9.5
            and isclose(whole, 10.0**log, rel_tol=1e-9)
            and len(str(whole).rstrip("0")) <= 2
        ):
            return self.count(whole)
        if log >= 6:
            return "10^{" + str(floor(log + 1e-9)) + "}"
        if log >= 1:
            unit = 10 ** (floor(log) - 1)
            return self.count(floor(10.0**log / unit + 1e-9) * unit)
        return self.decimal(floor(10.0**log * 10 + 1e-9) / 10, 1)

    def moment(self, at: datetime) -> str:
        """Write a date and time in its own time zone."""
        zone = at.strftime("%z")
        zone = "UTC" if zone == "+0000" else f"UTC{zone[:3]}:{zone[3:5]}".replace("-", "−")
        month = self.words["months"].split()[at.month - 1]
        if self.language == "fr":
            day = "1er" if at.day == 1 else str(at.day)
            return f"{day} {month} {at.year} à {at.hour} h {at.minute:02d} ({zone})"
        return f"{at.day} {month} {at.year}, {at.hour}:{at.minute:02d} ({zone})"

    def time(self, start: datetime, end: datetime | None) -> str:
        """Write a time or an interval to the minute, short, in the zone of its start."""
        zone = "UTC" if start.utcoffset() == timedelta() else f"{start:%z}".replace("-", "−")
        said = f"{start:%Y-%m-%d %H:%M}"
        until = said if end is None else f"{end.astimezone(start.tzinfo):%Y-%m-%d %H:%M}"
        if until != said:
            said += "–" + (until[11:] if until[:10] == said[:10] else until)
        return f"{said} {zone}"

    def series(self, items: Iterable[str]) -> str:
        """Write things that may hold commas one after the other, in HTML."""
        return ("\u202f; " if self.language == "fr" else "; ").join(items)

    def names(self, names: Sequence[str]) -> str:
        """Write "A, B and C" in HTML; of a long list the first few and how many more there are."""
        words = self.words
        shown = [name_of(name) for name in names]
        if len(shown) > NAMES_IN_SENTENCE + 1:
            more = self.count(len(shown) - NAMES_IN_SENTENCE)
            shown = [*shown[:NAMES_IN_SENTENCE], words["others"].format(count=more)]
        if len(shown) == 1:
            return shown[0]
        return f"{', '.join(shown[:-1])} {words['and']} {shown[-1]}"


def spaced(text: str, language: Language) -> str:
    """Put the narrow unbreakable spaces that French wants before its high punctuation."""
    return re.sub(" (?=[;:?!%])", "\u202f", text) if language == "fr" else text


def name_of(text: str) -> str:
    """Return a name in HTML: harmless, and apart from the writing direction around it.

    A long one may break anywhere.
    """
    kind = "name long" if len(text) > _LONG else "name"
    return f'<bdi class="{kind}">{escape(visible(text))}</bdi>'


def text_of(text: str) -> str:
    """Return somebody else's words in HTML, as harmless."""
    return f"<bdi>{escape(visible(text))}</bdi>"


def raised(number: str) -> str:
    """Raise exponents in HTML."""
    return re.sub(r"\^\{([^}]*)\}", r"<sup>\1</sup>", number)


def raised_svg(number: str) -> str:
    """Raise exponents in SVG text, which has no superscript of its own that all viewers know."""
    return re.sub(
        r"\^\{([^}]*)\}",
        r'<tspan dy="-5" font-size="75%">\1</tspan><tspan dy="5">&#8203;</tspan>',
        number,
    )


def plain(number: str) -> str:
    """Write exponents in plain text."""
    return re.sub(r"\^\{([^}]*)\}", r"^\1", number)


def facts(entries: Iterable[tuple[str, str]], kind: str) -> str:
    """Return a list of terms and what is said of each, both in HTML."""
    rows = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in entries)
    return f'<dl class="{kind}">{rows}</dl>'


class Column(NamedTuple):
    """A table's column: its head in HTML, and its class."""

    head: str
    kind: str = ""


def table(caption: str, columns: Sequence[Column], rows: Iterable[str], kind: str = "") -> str:
    """Return a table; a row is a ``<tr>`` made by `row`. Wide ones scroll on small screens.

    A table of few rows is never cut between two pages.
    """
    head = "".join(f'<th scope="col"{_class(column.kind)}>{column.head}</th>' for column in columns)
    lines = list(rows)
    whole = " whole" if len(lines) <= _WHOLE else ""
    return (
        f'<div class="scroll{whole}"><table{_class(kind)}><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def row(
    columns: Sequence[Column], cells: Sequence[str], kind: str = "", header: int | None = 0
) -> str:
    """Return a row; the cell of index ``header`` is what the row is about."""
    written = []
    for index, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        tag, scope = ("th", ' scope="row"') if index == header else ("td", "")
        written.append(f"<{tag}{scope}{_class(column.kind)}>{cell}</{tag}>")
    return f"<tr{_class(kind)}>{''.join(written)}</tr>\n"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def page(
    language: Language, title: str, sections: Iterable[str], footer: str, style: str = STYLE
) -> str:
    """Return one HTML document that asks nothing of the network; everything given is HTML.

    ``sections``: what ``<main>`` holds; ``footer``: what comes after that.
    """
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8"/>\n'
        # The browser itself refuses any request this file might make.
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        '<meta name="color-scheme" content="light dark"/>\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + f"\n</main>\n{footer}\n</body>\n</html>\n"
    )


def section(name: str, title: str, content: str) -> str:
    """Return a section under its title; nothing when it has no content."""
    head = f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>'
    return f"{head}\n{content}</section>" if content else ""
