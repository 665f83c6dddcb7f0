"""A trace report as one HTML file that prints on A4 and asks nothing of the network.

The markup is well-formed XML too, so that it can be checked and archived. What it says stands in
pgbalise.report.words; values are escaped where they enter it. Numbers such as 10^41.3 are written
``10^{41.3}`` until the last moment, because HTML, SVG and plain text raise an exponent differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isclose, log10
from typing import NamedTuple

from pgbalise.report.case import TraceReport, exponent_places, round_down, visible
from pgbalise.report.words import WORDS, Language
from pgbalise.tracing.decision import RecipientVerdict, Verdict

_NAMES_IN_SENTENCE = 5
_LABELS = 6
_LEAST_ROWS = 10
_LEAST_OTHERS = 3
_LEFT_ALONE = 0.99
"""Share of cells from which a carrier counts as left as it was delivered."""


def html(report: TraceReport, language: Language = "en") -> str:
    """Return the report as one HTML document, encoded by the caller as UTF-8."""
    words = {name: _spaced(text, language) for name, text in WORDS[language].items()}
    write = _Write(language, report.verdict)
    sections = (
        ("meaning", _meaning(report, words, write)),
        ("ranking", _ranking(report.verdict, words, write)),
        ("carriers", _carriers(report, words, write)),
        ("noise", _noise(report, words, write)),
        ("matching", _matching(report, words, write)),
        ("inputs", _inputs(report, words, write)),
        ("method", _method(report.verdict, words, write)),
        ("limits", _limits(words)),
    )
    body = "\n".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{words[name + "_title"]}</h2>\n'
        f"{content}</section>"
        for name, content in sections
    )
    title = f"{words['report_title']} – {escape(visible(', '.join(report.relations)))}"
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8"/>\n'
        # The browser itself refuses any request this file might make.
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        '<meta name="color-scheme" content="light dark"/>\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{_masthead(report, words, write)}\n{_verdict(report, words, write)}\n{body}\n"
        f"</main>\n<footer><p>{words['footer']}</p></footer>\n</body>\n</html>\n"
    )


@dataclass(frozen=True)
class _Write:
    """How numbers and names are written in one language, for one verdict."""

    language: Language
    verdict: Verdict

    def count(self, number: int) -> str:
        """Write a whole number with groups of three digits."""
        return f"{number:,}".replace(",", "\u202f") if self.language == "fr" else f"{number:,}"

    def decimal(self, number: float, places: int) -> str:
        text = f"{number:.{places}f}".replace("-", "−")
        return text.replace(".", ",") if self.language == "fr" else text

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

    def probability(self, value: float) -> str:
        """Write a probability: 0.05 as it is, small ones as a multiple of a power of ten."""
        if value >= 1e-3:
            text = f"{value:.6f}".rstrip("0")
            return text.replace(".", ",") if self.language == "fr" else text
        exponent = floor(log10(value) + 1e-9)
        mantissa = f"{value / 10.0**exponent:.2f}".rstrip("0").rstrip(".")
        mantissa = mantissa.replace(".", ",") if self.language == "fr" else mantissa
        power = "10^{−" + str(-exponent) + "}"
        return power if mantissa == "1" else f"{mantissa} × {power}"

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

    def moment(self, report: TraceReport) -> str:
        """Write the report's date and time in its own time zone."""
        at = report.created_at
        zone = at.strftime("%z")
        zone = "UTC" if zone == "+0000" else f"UTC{zone[:3]}:{zone[3:5]}".replace("-", "−")
        month = WORDS[self.language]["months"].split()[at.month - 1]
        if self.language == "fr":
            day = "1er" if at.day == 1 else str(at.day)
            return f"{day} {month} {at.year} à {at.hour} h {at.minute:02d} ({zone})"
        return f"{at.day} {month} {at.year}, {at.hour}:{at.minute:02d} ({zone})"

    def names(self, names: Sequence[str]) -> str:
        """Write "A, B and C" in HTML; of a long list the first few and how many more there are."""
        words = WORDS[self.language]
        shown = [_name(name) for name in names]
        if len(shown) > _NAMES_IN_SENTENCE + 1:
            more = self.count(len(shown) - _NAMES_IN_SENTENCE)
            shown = [*shown[:_NAMES_IN_SENTENCE], words["others"].format(count=more)]
        if len(shown) == 1:
            return shown[0]
        return f"{', '.join(shown[:-1])} {words['and']} {shown[-1]}"


def _spaced(text: str, language: Language) -> str:
    """Put the narrow unbreakable spaces that French wants before its high punctuation."""
    return re.sub(" (?=[;:?!%])", "\u202f", text) if language == "fr" else text


def _name(text: str) -> str:
    return f'<bdi class="name">{escape(visible(text))}</bdi>'


def _text(text: str) -> str:
    return f"<bdi>{escape(visible(text))}</bdi>"


def _sup(number: str) -> str:
    return re.sub(r"\^\{([^}]*)\}", r"<sup>\1</sup>", number)


def _raised(number: str) -> str:
    """Raise exponents in SVG text, which has no superscript of its own that all viewers know."""
    return re.sub(
        r"\^\{([^}]*)\}",
        r'<tspan dy="-5" font-size="75%">\1</tspan><tspan dy="5">&#8203;</tspan>',
        number,
    )


def _plain(number: str) -> str:
    return re.sub(r"\^\{([^}]*)\}", r"^\1", number)


def _facts(entries: Iterable[tuple[str, str]], kind: str) -> str:
    rows = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in entries)
    return f'<dl class="{kind}">{rows}</dl>'


class _Column(NamedTuple):
    head: str
    kind: str = ""


def _table(caption: str, columns: Sequence[_Column], rows: Iterable[str], kind: str = "") -> str:
    """Return a table; a row is a ``<tr>`` made by `_row`. Wide ones scroll on small screens."""
    head = "".join(f'<th scope="col"{_class(column.kind)}>{column.head}</th>' for column in columns)
    return (
        f'<div class="scroll"><table{_class(kind)}><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>\n"
    )


def _row(
    columns: Sequence[_Column], cells: Sequence[str], kind: str = "", header: int | None = 0
) -> str:
    """Return a row; the cell of index ``header`` is what the row is about."""
    written = []
    for index, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        tag, scope = ("th", ' scope="row"') if index == header else ("td", "")
        written.append(f"<{tag}{scope}{_class(column.kind)}>{cell}</{tag}>")
    return f"<tr{_class(kind)}>{''.join(written)}</tr>\n"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _masthead(report: TraceReport, words: dict[str, str], write: _Write) -> str:
    entries = (
        (words["relation"], ", ".join(map(_name, report.relations))),
        (words["database"], _name(report.database)),
        (words["created"], escape(write.moment(report))),
    )
    return f"<header><h1>{words['report_title']}</h1>{_facts(entries, 'meta')}</header>"


def _verdict(report: TraceReport, words: dict[str, str], write: _Write) -> str:
    verdict = report.verdict
    accused = verdict.accused
    several = "files" if len(report.files) > 1 else "file"
    chance = _sup(write.odds(-log10(verdict.alpha)))
    values = {
        "these": words[several],
        "of_these": words["of_" + several],
        "These": words[several + "_start"],
        "contain": words["contain_" + several],
        "names": write.names(accused) if accused else "",
        "chance": chance,
        "recipients": write.count(verdict.recipients),
    }
    number = "none" if not accused else "one" if len(accused) == 1 else "many"
    if number == "none" and verdict.recipients == 1:
        number = "none_of_one"
    strongest = verdict.verdicts[0]
    facts = (
        (words["strongest_evidence"], _sup(write.power(strongest.log10_e_value))),
        (words["needed"], _sup(write.power(verdict.threshold_log10))),
        (words["compared"], write.count(verdict.recipients)),
        (
            words["rows_matched"],
            words["of"].format(
                part=write.count(verdict.rows_aligned), whole=write.count(verdict.rows_read)
            ),
        ),
    )
    sentence = words["verdict_" + number.removesuffix("_of_one")].format(**values)
    return (
        f'<section class="verdict {"named" if accused else "nobody"}" aria-labelledby="verdict">'
        f'<h2 id="verdict" class="kicker">{words["verdict_title"]}</h2>\n'
        f'<p class="sentence">{sentence}</p>\n'
        f"<p>{words['explained_' + number].format(**values)}</p>\n"
        f"{_decoys(verdict, words, write)}{_facts(facts, 'figures')}</section>"
    )


def _decoys(verdict: Verdict, words: dict[str, str], write: _Write) -> str:
    found = [entry for entry in verdict.verdicts if entry.decoys]
    if not found:
        return ""
    listed = [
        words["decoys_of"].format(count=write.count(entry.decoys), name=_name(entry.recipient))
        for entry in found[:_NAMES_IN_SENTENCE]
    ]
    if len(found) > _NAMES_IN_SENTENCE:
        listed.append(words["others"].format(count=write.count(len(found) - _NAMES_IN_SENTENCE)))
    return f"<p>{words['decoys_found'].format(list=', '.join(listed))}</p>\n"


def _meaning(report: TraceReport, words: dict[str, str], write: _Write) -> str:
    verdict = report.verdict
    strongest = verdict.verdicts[0]
    values = {
        "recipients": write.count(verdict.recipients),
        "threshold": _sup(write.power(verdict.threshold_log10)),
        "alpha": _sup(write.probability(verdict.alpha)),
        "chance": _sup(write.odds(-log10(verdict.alpha))),
        "name": _name(strongest.recipient),
        "value": _sup(write.power(strongest.log10_e_value)),
        "alone": _sup(write.odds(strongest.log10_e_value)),
        "among": _sup(write.odds(strongest.log10_e_value - log10(verdict.recipients))),
    }
    last = ""
    if verdict.accused:
        extreme = strongest.log10_e_value - log10(verdict.recipients) >= 12
        several = "" if verdict.recipients == 1 else " " + words["meaning_among"].format(**values)
        last = (
            f"<p>{words['meaning_here'].format(**values)}{several}"
            f"{' ' + words['meaning_extreme'] if extreme else ''}</p>\n"
        )
    threshold = words["meaning_threshold" if verdict.recipients > 1 else "meaning_threshold_one"]
    return (
        f"<p>{words['meaning_1']}</p>\n<p>{threshold.format(**values)}</p>\n"
        f"{last}<p>{words['meaning_guilt']}</p>\n"
    )


def _ranking(verdict: Verdict, words: dict[str, str], write: _Write) -> str:
    columns = (
        _Column(words["rank"], "number"),
        _Column(words["recipient"]),
        _Column(words["e_value"], "number short"),
        _Column(words["against_threshold"], "bar"),
        _Column(words["agreeing_cells"], "number"),
        _Column(words["decoys"], "number"),
        _Column(words["finding"], "short"),
    )
    accused = len(verdict.accused)
    shown = verdict.verdicts[: max(_LEAST_ROWS, accused + _LEAST_OTHERS)]
    full = max(verdict.threshold_log10, shown[0].log10_e_value)
    rows = (
        _row(
            columns,
            (
                write.count(rank),
                _name(entry.recipient),
                _sup(write.power(entry.log10_e_value)),
                _bar(entry, verdict.threshold_log10, full),
                write.count(entry.cells),
                write.count(entry.decoys),
                words["named" if entry.accused else "not_named"],
            ),
            "accused" if entry.accused else "",
            header=1,
        )
        for rank, entry in enumerate(shown, 1)
    )
    rest = len(verdict.verdicts) - len(shown)
    caption = words["ranking_caption"].format(
        shown=write.count(len(shown)), recipients=write.count(verdict.recipients)
    )
    tail = f'<p class="note">{words["bar_note"]}'
    if rest:
        tail += " " + words["rest"].format(
            count=write.count(rest),
            value=_sup(write.power(verdict.verdicts[len(shown)].log10_e_value)),
        )
    return (
        _figure(verdict, words, write) + _table(caption, columns, rows, "ranking") + f"{tail}</p>\n"
    )


def _bar(entry: RecipientVerdict, threshold: float, full: float) -> str:
    """Return evidence as a bar from 10^0, with a tick at the threshold."""
    width = 120.0
    length = width * min(max(entry.log10_e_value / full, 0.0), 1.0)
    tick = min(width * threshold / full, width - 1)
    return (
        '<svg class="spark" viewBox="0 0 120 12" width="120" height="12" aria-hidden="true">'
        '<rect class="track" x="0" y="5" width="120" height="2"/>'
        f'<rect class="fill" x="0" y="3" width="{length:.1f}" height="6"/>'
        f'<rect class="tick" x="{tick:.1f}" y="0" width="1.5" height="12"/></svg>'
    )


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: _Box) -> bool:
        """Tell whether two boxes share a point."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


_WIDTH, _HEIGHT = 720.0, 330.0
_PLOT = _Box(56.0, 14.0, 712.0, 282.0)
_LETTER = 7.0
"""Width of a letter in a label; generous, since the font is the viewer's."""


@dataclass(frozen=True)
class _Scale:
    """Where ranks and exponents lie in the plot. ``clipped``: values below ``low`` exist."""

    low: float
    high: float
    number: int
    clipped: bool

    @classmethod
    def of(cls, verdict: Verdict) -> _Scale:
        values = [entry.log10_e_value for entry in verdict.verdicts]
        high = max(verdict.threshold_log10, *values) if values else verdict.threshold_log10
        # Strong evidence of innocence would flatten all that matters: cut it, and say so.
        floor_ = -max(high, 2.0)
        low = min(0.0, *values)
        room = 0.07 * (high - max(low, floor_))
        # The threshold's label stands above its line.
        above = 2 * room if high < verdict.threshold_log10 + room else room
        return cls(max(low, floor_) - room, high + above, len(values), low < floor_)

    @property
    def step(self) -> float:
        """Return the decades between two grid lines, a round number."""
        return _step((self.high - self.low) / 6)

    def x(self, rank: int) -> float:
        """Return the abscissa of a rank, from 1."""
        if self.number == 1:
            return (_PLOT.left + _PLOT.right) / 2
        width = _PLOT.right - _PLOT.left
        margin = max(16.0, width / (2 * self.number))
        return _PLOT.left + margin + (rank - 1) / (self.number - 1) * (width - 2 * margin)

    def y(self, log: float) -> float:
        """Return the ordinate of 10^log; what is below the plot lies at its lower edge."""
        share = (max(log, self.low) - self.low) / (self.high - self.low)
        return _PLOT.bottom - share * (_PLOT.bottom - _PLOT.top)


def _figure(verdict: Verdict, words: dict[str, str], write: _Write) -> str:
    scale = _Scale.of(verdict)
    values = {
        "recipients": write.count(verdict.recipients),
        "threshold": write.power(verdict.threshold_log10),
        "alpha": write.probability(verdict.alpha),
        "value": write.power(verdict.verdicts[0].log10_e_value),
        "name": escape(visible(verdict.verdicts[0].recipient)),
        "low": write.power(scale.low),
        "accused": write.count(len(verdict.accused)),
        "step": "10^{" + write.decimal(scale.step, 0 if scale.step >= 1 else 1) + "}",
    }
    described = _plain(words["plot_described"].format(**values))
    one = "_one" if verdict.recipients == 1 else ""
    caption = words["plot_caption" + one].format(**values)
    if scale.clipped:
        caption += " " + words["plot_clipped"].format(**values)
    return (
        f'<figure><svg class="plot" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img"'
        ' aria-labelledby="plot-title plot-text">'
        f'<title id="plot-title">{words["ranking_title"]}</title>'
        f'<desc id="plot-text">{described}</desc>\n'
        f"{_axes(scale, words, write)}{_points(verdict, scale, words, write)}</svg>"
        f"<figcaption>{_sup(caption)}</figcaption></figure>\n"
    )


def _axes(scale: _Scale, words: dict[str, str], write: _Write) -> str:
    out = []
    step = scale.step
    places = 0 if step >= 1 else 1
    for index in range(ceil(scale.low / step), floor(scale.high / step) + 1):
        log, y = index * step, scale.y(index * step)
        out.append(
            f'<line class="{"zero" if index == 0 else "grid"}" x1="{_PLOT.left:.0f}" y1="{y:.1f}"'
            f' x2="{_PLOT.right:.0f}" y2="{y:.1f}"/>'
        )
        label = "1" if index == 0 else "10^{" + write.decimal(log, places) + "}"
        out.append(
            f'<text class="axis" x="{_PLOT.left - 8:.0f}" y="{y + 4:.1f}"'
            f' text-anchor="end">{_raised(label)}</text>\n'
        )
    for rank in _ranks(scale.number):
        x = scale.x(rank)
        out.append(
            f'<line class="stub" x1="{x:.1f}" y1="{_PLOT.bottom:.0f}" x2="{x:.1f}"'
            f' y2="{_PLOT.bottom + 4:.0f}"/><text class="axis" x="{x:.1f}"'
            f' y="{_PLOT.bottom + 19:.0f}" text-anchor="middle">{write.count(rank)}</text>\n'
        )
    out.append(
        f'<text class="axis" x="{(_PLOT.left + _PLOT.right) / 2:.0f}" y="{_HEIGHT - 6:.0f}"'
        f' text-anchor="middle">{words["axis_rank"]}</text>\n'
        f'<text class="axis" transform="translate(12 {(_PLOT.top + _PLOT.bottom) / 2:.0f})'
        f' rotate(-90)" text-anchor="middle">{words["axis_value"]}</text>\n'
    )
    return "".join(out)


def _step(least: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** floor(log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
    return max(step, 0.1)


def _ranks(number: int) -> list[int]:
    """Return the ranks that the axis names: the first, and round ones."""
    if number <= 12:
        return list(range(1, number + 1))
    step = max(1, round(_step(number / 5)))
    return [1, *range(step, number + 1, step)]


def _points(verdict: Verdict, scale: _Scale, words: dict[str, str], write: _Write) -> str:
    others: dict[tuple[float, float], None] = {}
    accused: list[tuple[float, float, str]] = []
    for rank, entry in enumerate(verdict.verdicts, 1):
        x, y = scale.x(rank), scale.y(entry.log10_e_value)
        if entry.accused:
            accused.append((x, y, entry.recipient))
        else:
            # On a half-pixel grid ten thousand recipients make a thousand marks at most.
            others[round(2 * x) / 2, round(2 * y) / 2] = None
    marks = "".join(f"M{x:g} {y:g}h0" for x, y in others)
    y = scale.y(verdict.threshold_log10)
    taken = [_Box(x - 4, y - 4, x + 4, y + 4) for x, y in others]
    taken += [_Box(x - 5, y - 5, x + 5, y + 5) for x, y, _ in accused]
    labels, boxes = _labels(accused, taken)
    rings = "".join(
        f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="5.75"/>' for x, y, _ in accused
    )
    return (
        f'<rect class="zone" x="{_PLOT.left:.0f}" y="{_PLOT.top:.0f}"'
        f' width="{_PLOT.right - _PLOT.left:.0f}" height="{y - _PLOT.top:.1f}"/>'
        f'<line class="threshold" x1="{_PLOT.left:.0f}" y1="{y:.1f}" x2="{_PLOT.right:.0f}"'
        f' y2="{y:.1f}"/>\n<path class="{"crowd" if scale.number > 80 else "few"}" d="{marks}"/>\n'
        f"{rings}{labels}{_threshold_label(verdict, y, taken + boxes, words, write)}"
    )


def _labels(
    accused: Sequence[tuple[float, float, str]], taken: Sequence[_Box]
) -> tuple[str, list[_Box]]:
    """Return the names of the first few accused beside their points, and where the names lie."""
    out: list[str] = []
    boxes: list[_Box] = []
    for x, y, name in accused[:_LABELS]:
        text = visible(name)
        text = text if len(text) <= 34 else text[:33] + "…"
        width = _LETTER * len(text)
        side = 1 if x + 16 + width < _PLOT.right else -1
        left = x + 14 if side > 0 else x - 14 - width
        for shift in (0.0, -9.0, 9.0, -17.0, 17.0, -26.0, 26.0):
            box = _Box(left, y + shift - 7, left + width, y + shift + 7)
            inside = box.top >= 0 and box.bottom <= _PLOT.bottom
            # Names stand in the order of the evidence.
            ranked = not boxes or box.top > boxes[-1].top
            if inside and ranked and not any(box.overlaps(other) for other in (*taken, *boxes)):
                break
        else:
            # No room: the table has the name.
            continue
        boxes.append(box)
        if shift:
            out.append(
                f'<line class="leader" x1="{x + side * 4:.1f}" y1="{y:.1f}"'
                f' x2="{x + side * 12:.1f}" y2="{y + shift:.1f}"/>'
            )
        out.append(
            f'<text class="label" x="{x + side * 14:.1f}" y="{y + shift + 4.5:.1f}"'
            f' text-anchor="{"start" if side > 0 else "end"}">{escape(text)}</text>\n'
        )
    return "".join(out), boxes


def _threshold_label(
    verdict: Verdict, y: float, taken: Sequence[_Box], words: dict[str, str], write: _Write
) -> str:
    text = words["threshold_label"].format(
        threshold=write.power(verdict.threshold_log10),
        recipients=write.count(verdict.recipients),
        alpha=write.probability(verdict.alpha),
    )
    width = _LETTER * len(_plain(text))
    ends = (_PLOT.right - 4, (_PLOT.left + _PLOT.right + width) / 2, _PLOT.left + 8 + width)
    # Room for the raised exponents above, for descenders below.
    spots = [(end, base) for base in (y - 8, y + 19) for end in ends]
    end, base = next(
        (
            (end, base)
            for end, base in spots
            if base + 5 < _PLOT.bottom
            and not any(
                _Box(end - width, base - 17, end, base + 4).overlaps(other) for other in taken
            )
        ),
        spots[0],
    )
    return (
        f'<text class="limit" x="{end:.1f}" y="{base:.1f}"'
        f' text-anchor="end">{_raised(text)}</text>\n'
    )


def _carriers(report: TraceReport, words: dict[str, str], write: _Write) -> str:
    verdict = report.verdict
    cells = words["cells"].format(
        marked=write.count(verdict.cells_marked), used=write.count(verdict.cells_used)
    )
    if not report.carriers:
        return f"<p>{cells} {words['carriers_none']}</p>\n"
    strongest = verdict.verdicts[0].recipient
    columns = (
        _Column(words["carrier"]),
        _Column(words["selected"], "number"),
        _Column(words["informative"], "number"),
        _Column(words["agree"], "number"),
        _Column(words["disagree"], "number"),
        _Column(words["share_agreeing"], "number"),
    )

    def numbers(first: str, counts: tuple[int, int, int, int]) -> tuple[str, ...]:
        told = counts[2] + counts[3]
        agreeing = write.share(counts[2] / told) if told else "–"
        return (first, *(write.count(count) for count in counts), agreeing)

    counted = [(c.selected, c.informative, c.agreeing, c.disagreeing) for c in report.carriers]
    rows = [
        _row(columns, numbers(_name(carrier.carrier), counts))
        for carrier, counts in zip(report.carriers, counted, strict=True)
    ]
    if len(counted) > 1:
        selected, informative, agreeing, disagreeing = (
            sum(column) for column in zip(*counted, strict=True)
        )
        total = (selected, informative, agreeing, disagreeing)
        rows.append(_row(columns, numbers(words["total"], total), "total"))
    caption = words["carriers_caption"].format(name=_name(strongest))
    return f"<p>{cells} {words['carriers_text']}</p>\n" + _table(caption, columns, rows)


def _noise(report: TraceReport, words: dict[str, str], write: _Write) -> str:
    if not report.noise:
        return f"<p>{words['noise_none']}</p>\n"
    altered = [
        noise.carrier
        for noise in report.noise
        if sum(share for what, share in noise.findings if what == "unchanged") < _LEFT_ALONE
    ]
    if altered:
        summary = words["noise_altered"].format(
            names=write.names(altered), count=write.count(len(altered))
        )
    else:
        summary = words["noise_unaltered"]
    columns = (
        _Column(words["carrier"]),
        _Column(words["transformation"]),
        _Column(words["share"], "number"),
    )
    rows = [
        _row(
            columns,
            (
                _name(noise.carrier) if index == 0 else "",
                _happened(description, write.language),
                write.share(share),
            ),
            header=None if index else 0,
        )
        for noise in report.noise
        for index, (description, share) in enumerate(noise.findings)
    ]
    return f"<p>{summary} {words['noise_text']}</p>\n" + _table(
        words["noise_caption"], columns, rows
    )


def _happened(description: str, language: Language) -> str:
    """Return a transformation in the report's language; unknown ones stay as they are."""
    if language == "en":
        return _text(description)
    for pattern, french in _TRANSFORMATIONS:
        match = pattern.fullmatch(description)
        if match:
            # What an optional part did not match is left out with the words around it.
            filled = french.format(*(group or "" for group in match.groups()))
            if "about a shift of" in description:
                filled += f" autour d’un décalage de {match[1]}"
            if match.re.groups == 2 and match[2]:
                filled += f", puis arrondi à {match[2]}"
            filled = re.sub(r"(?<=\d)\.(?=\d)", ",", filled)
            return _text(re.sub(r"\bdays\b", "jours", filled))
    return _text(description)


_TRANSFORMATIONS = tuple(
    (re.compile(pattern), french)
    for pattern, french in (
        (r"unchanged", "inchangée"),
        (r"replaced", "remplacée par une autre valeur"),
        (r"rounded to (.+)", "arrondie à {0}"),
        (r"truncated to (.+)", "tronquée à {0}"),
        (r"shifted by (.+)", "décalée de {0}"),
        (r"noise(?: about a shift of (.+?))?(?:, rounded to (.+))?", "bruit ajouté"),
    )
)
"""The words of `pgbalise.tracing.noise.NoiseModel.describe`."""


def _matching(report: TraceReport, words: dict[str, str], write: _Write) -> str:
    verdict = report.verdict
    share = verdict.rows_aligned / verdict.rows_read if verdict.rows_read else 0.0
    columns_ = [c for table in report.tables for c in table.columns]
    keyed = any(column.use == "key" for column in columns_)
    text = words["matching_text"].format(
        read=write.count(verdict.rows_read),
        aligned=write.count(verdict.rows_aligned),
        share=write.share(share),
        how=words["matched_by_key" if keyed else "matched_by_content"],
    )
    if not columns_:
        return f"<p>{text}</p>\n"
    columns = (
        _Column(words["leak_column"]),
        _Column(words["used_as"]),
        _Column(words["relation_column"]),
    )
    rows = [
        _row(
            columns,
            (
                _name(column.leak_column),
                words["use_" + column.use],
                "–" if column.column is None else _name(column.column),
            ),
            "idle" if column.use == "ignored" else "",
        )
        for column in columns_
    ]
    return f"<p>{text}</p>\n" + _table(words["matching_caption"], columns, rows)


def _epoch(report: TraceReport, write: _Write, words: dict[str, str]) -> str:
    said = write.count(report.epoch)
    if report.epoch_opened_at is not None:
        closed = report.epoch_closed_at
        end = words["epoch_now"] if closed is None else _text(closed[:10])
        said += ", " + words["epoch_times"].format(
            start=_text(report.epoch_opened_at[:10]), end=end
        )
    if report.untried_epochs:
        listed = ", ".join(write.count(number) for number in report.untried_epochs)
        said += ". " + words["epochs_untried"].format(listed=listed)
    return said


def _inputs(report: TraceReport, words: dict[str, str], write: _Write) -> str:
    files = "".join(
        f"<li>{_name(file.name)}, "
        + words["file_size"].format(rows=write.count(file.rows), size=write.count(file.size))
        + f'<br/><span class="hash"><abbr title="Secure Hash Algorithm">SHA-256</abbr> '
        f"<code>{file.sha256}</code></span></li>\n"
        for file in report.files
    )
    versions = ", ".join(
        f"{_text(software)} {_text(version)}" for software, version in report.versions.items()
    )
    entries = (
        (words["epoch"], _epoch(report, write, words)),
        (words["key_fingerprint"], f"<code>{report.key_fingerprint}</code>"),
        (words["versions"], versions or "–"),
    )
    return (
        f"<p>{words['inputs_text']}</p>\n"
        + (f'<ul class="files">{files}</ul>\n' if files else "")
        + _facts(entries, "meta")
    )


def _method(verdict: Verdict, words: dict[str, str], write: _Write) -> str:
    values = {
        "recipients": write.count(verdict.recipients),
        "alpha": _sup(write.probability(verdict.alpha)),
        "threshold": _sup(write.power(verdict.threshold_log10)),
        "chance": _sup(write.odds(-log10(verdict.alpha))),
    }
    return (
        f"<p>{words['method_marks']}</p>\n<p>{words['method_evidence']}</p>\n"
        f"{_FORMULA}<p>{words['method_average']}</p>\n"
        f'<p class="statement">{words["method_statement"].format(**values)}</p>\n'
        f"<p>{words['method_key']}</p>\n"
    )


_FORMULA = (
    '<p class="formula"><i>E<sub>j</sub></i> = <span class="product">∏<sub><i>i</i></sub></span> '
    '<span class="fraction"><span><i>f<sub>i</sub></i>(<i>X<sub>ji</sub></i>)</span>'
    '<span class="slash"> / </span>'
    "<span><i>p<sub>i</sub></i> <i>f<sub>i</sub></i>(1) + (1 − <i>p<sub>i</sub></i>) "
    "<i>f<sub>i</sub></i>(0)</span></span></p>\n"
)


def _limits(words: dict[str, str]) -> str:
    items = "".join(
        f"<li>{words[name]}</li>\n"
        for name in (
            "limit_person",
            "limit_copy",
            "limit_absence",
            "limit_frame",
            "limit_beforehand",
            "limit_source",
            "limit_repeat",
        )
    )
    return f'<p>{words["limits_text"]}</p>\n<ul class="limits">{items}</ul>\n'


_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2024; --soft: #59636e; --rule: #d3d9df;
  --faint: #eef1f4; --dot: #5d7488; --named: #a3172a; --calm: #3f5568;
  --serif: Charter, "Bitstream Charter", "Sitka Text", Cambria, "Liberation Serif", Georgia, serif;
  --sans: system-ui, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e4e7ea;
  --soft: #a3adb8; --rule: #39414a; --faint: #20252b; --dot: #93a9bc; --named: #ff9a9a;
  --calm: #a9bfd2; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1.0625rem/1.55 var(--serif); }
main, footer { max-width: 47rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding: 3rem 0 1.3rem; }
h1 { margin: 0 0 .7rem; font: 600 1.05rem/1.3 var(--sans); letter-spacing: .02em; }
h2 { margin: 3rem 0 .7rem; font: 600 1.4rem/1.25 var(--serif); }
p { margin: 0 0 .9rem; }
sup, sub { font-size: .72em; line-height: 0; }
.name, code { font-family: var(--mono); font-size: .88em; overflow-wrap: anywhere; }
dl { margin: 0; }
dd { margin: 0; }
.meta { font: .875rem/1.5 var(--sans); }
.meta div { display: flex; gap: .75rem; margin: .12rem 0; }
.meta dt { flex: 0 0 11rem; color: var(--soft); }
.meta .name, .meta code { font-size: .95em; }
.verdict { padding: 1.6rem 0 1.5rem; border-top: 3px solid var(--calm);
  border-bottom: 1px solid var(--rule); }
.verdict.named { border-top-color: var(--named); }
.kicker { margin: 0 0 .5rem; font: 600 .875rem/1.3 var(--sans); color: var(--calm); }
.named .kicker { color: var(--named); }
.sentence { font: 600 1.75rem/1.28 var(--serif); letter-spacing: -.005em; text-wrap: balance; }
.sentence .name { font: inherit; color: var(--named); }
.figures { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .9rem 1.6rem;
  margin-top: 1.4rem; font-family: var(--sans); }
.figures dt { font-size: .8125rem; color: var(--soft); }
.figures dd { font-size: 1.25rem; line-height: 1.5; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
figure { margin: 1.2rem 0 2rem; }
.plot { display: block; width: 100%; height: auto; font: 13px var(--sans); }
.plot text { fill: var(--ink); }
.plot .axis { fill: var(--soft); font-size: 12.5px; }
.plot .grid { stroke: var(--faint); }
.plot .zero, .plot .stub { stroke: var(--rule); }
.plot .zone { fill: var(--named); fill-opacity: .035; }
.plot .threshold { stroke: var(--named); stroke-width: 1.25; stroke-dasharray: 5 4; }
.plot .limit { fill: var(--named); }
.plot .crowd, .plot .few { fill: none; stroke: var(--dot); stroke-linecap: round; stroke-width: 4; }
.plot .few { stroke-width: 7; }
.plot .ring { fill: var(--named); stroke: var(--paper); stroke-width: 1.5; }
.plot .leader { stroke: var(--named); stroke-width: .75; }
.plot .label { fill: var(--named); font-weight: 600; }
figcaption, .note { font: .875rem/1.5 var(--sans); color: var(--soft); }
figcaption { margin-top: .5rem; }
.note { margin-top: .6rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { width: 100%; border-collapse: collapse; font: .875rem/1.4 var(--sans);
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .5rem; }
th, td { padding: .38rem .8rem .38rem 0; text-align: left; vertical-align: baseline;
  font-weight: 400; border-bottom: 1px solid var(--faint); }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--soft); font-size: .8125rem; vertical-align: bottom;
  border-bottom: 1px solid var(--rule); }
th.number, td.number { text-align: right; }
.short { white-space: nowrap; }
th.number + th:not(.number), th.number + td:not(.number), td.number + td:not(.number)
  { padding-left: .8rem; }
td.bar, th.bar { width: 120px; padding-left: .8rem; }
td.bar { vertical-align: top; padding-top: .55rem; }
tbody tr.accused > * { color: var(--named); font-weight: 600; }
tr.total > * { font-weight: 600; border-top: 1px solid var(--rule); }
tr.idle > * { color: var(--soft); }
table.ranking th .name { display: inline-block; min-width: 11em; }
.spark { display: block; }
.spark .track { fill: var(--rule); }
.spark .fill { fill: var(--dot); }
.spark .tick { fill: var(--ink); }
.accused .spark .fill { fill: var(--named); }
.files { margin: 0 0 1rem; padding: 0; list-style: none; font: .9375rem/1.6 var(--sans); }
.files li { margin-bottom: .6rem; }
.hash { color: var(--soft); font-size: .875rem; }
.hash code { font-size: .8rem; }
abbr { text-decoration: none; }
.formula { margin: 1.2rem 0; font-size: 1.15rem; text-align: center; }
.product { font-size: 1.25em; }
.fraction { display: inline-flex; flex-direction: column; vertical-align: middle;
  text-align: center; line-height: 1.5; }
.fraction > span:first-child { border-bottom: 1px solid currentColor; }
.fraction > span { padding: 0 .3em; }
.fraction .slash { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); }
.statement { padding: 0 1.6rem; }
.limits { margin: 0 0 1rem; padding-left: 1.1rem; }
.limits li { margin-bottom: .55rem; }
footer { margin-top: 3.5rem; padding-bottom: 3rem; }
footer p { padding-top: .9rem; border-top: 1px solid var(--rule);
  font: .8125rem/1.5 var(--sans); color: var(--soft); }
@media (max-width: 36rem) { .sentence { font-size: 1.4rem; } .meta dt { flex-basis: 7.5rem; }
  main, footer { padding: 0 1rem; } header { padding-top: 1.5rem; } }
@page { size: A4; margin: 18mm 17mm; }
@media print {
  html { font-size: 9.75pt; }
  main, footer { max-width: none; padding: 0; }
  header { padding-top: 0; }
  h2 { margin-top: 1.5rem; break-after: avoid; }
  figure, tr, .verdict, .statement, .formula, .limits li, .files li { break-inside: avoid; }
  caption { break-after: avoid; }
  thead { display: table-header-group; }
  .scroll { overflow: visible; }
  svg { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
