"""The curve of all recipients, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

from pgbalise.report.case import visible
from pgbalise.report.markup import Writer, plain, raised, raised_svg
from pgbalise.report.style import look
from pgbalise.tracing.decision import Verdict

_LABELS = 6


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
_PLOT = _Box(66.0, 14.0, 712.0, 282.0)

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


def figure(verdict: Verdict, write: Writer) -> str:
    """Return every recipient as a dot, by rank and evidence, with the threshold."""
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
    described = plain(write.words["plot_described"].format(**values))
    one = "_one" if verdict.recipients == 1 else ""
    caption = write.words["plot_caption" + one].format(**values)
    if scale.clipped:
        caption += " " + write.words["plot_clipped"].format(**values)
    return (
        f'<figure><svg {look("plot")} viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img"'
        ' aria-labelledby="plot-title plot-text">'
        f'<title id="plot-title">{write.words["ranking_title"]}</title>'
        f'<desc id="plot-text">{described}</desc>\n'
        f"{_axes(scale, write)}{_points(verdict, scale, write)}</svg>"
        f"<figcaption>{raised(caption)}</figcaption></figure>\n"
    )


def _axes(scale: _Scale, write: Writer) -> str:
    out = []
    step = scale.step
    places = 0 if step >= 1 else 1
    for index in range(ceil(scale.low / step), floor(scale.high / step) + 1):
        log, y = index * step, scale.y(index * step)
        out.append(
            f'<line {look("zero" if index == 0 else "grid")} x1="{_PLOT.left:.0f}" y1="{y:.1f}"'
            f' x2="{_PLOT.right:.0f}" y2="{y:.1f}"/>'
        )
        label = "1" if index == 0 else "10^{" + write.decimal(log, places) + "}"
        out.append(
            f'<text {look("axis")} x="{_PLOT.left - 8:.0f}" y="{y + 4:.1f}"'
            f' text-anchor="end">{raised_svg(label)}</text>\n'
        )
    for rank in _ranks(scale.number):
        x = scale.x(rank)
        out.append(
            f'<line {look("stub")} x1="{x:.1f}" y1="{_PLOT.bottom:.0f}" x2="{x:.1f}"'
            f' y2="{_PLOT.bottom + 4:.0f}"/><text {look("axis")} x="{x:.1f}"'
            f' y="{_PLOT.bottom + 19:.0f}" text-anchor="middle">{write.count(rank)}</text>\n'
        )
    out.append(
        f'<text {look("axis")} x="{(_PLOT.left + _PLOT.right) / 2:.0f}" y="{_HEIGHT - 6:.0f}"'
        f' text-anchor="middle">{write.words["axis_rank"]}</text>\n'
        f'<text {look("axis")} transform="translate(12 {(_PLOT.top + _PLOT.bottom) / 2:.0f})'
        f' rotate(-90)" text-anchor="middle">{write.words["axis_value"]}</text>\n'
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


def _points(verdict: Verdict, scale: _Scale, write: Writer) -> str:
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
        f'<circle {look("ring")} cx="{x:.1f}" cy="{y:.1f}" r="5.75"/>' for x, y, _ in accused
    )
    return (
        f'<rect {look("zone")} x="{_PLOT.left:.0f}" y="{_PLOT.top:.0f}"'
        f' width="{_PLOT.right - _PLOT.left:.0f}" height="{y - _PLOT.top:.1f}"/>'
        f'<line {look("threshold")} x1="{_PLOT.left:.0f}" y1="{y:.1f}" x2="{_PLOT.right:.0f}"'
        f' y2="{y:.1f}"/>\n<path {look("crowd" if scale.number > 80 else "few")} d="{marks}"/>\n'
        f"{rings}{labels}{_threshold_label(verdict, y, taken + boxes, write)}"
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
                f'<line {look("leader")} x1="{x + side * 4:.1f}" y1="{y:.1f}"'
                f' x2="{x + side * 12:.1f}" y2="{y + shift:.1f}"/>'
            )
        out.append(
            f'<text {look("label")} x="{x + side * 14:.1f}" y="{y + shift + 4.5:.1f}"'
            f' text-anchor="{"start" if side > 0 else "end"}">{escape(text)}</text>\n'
        )
    return "".join(out), boxes


def _threshold_label(verdict: Verdict, y: float, taken: Sequence[_Box], write: Writer) -> str:
    text = write.words["threshold_label"].format(
        threshold=write.power(verdict.threshold_log10),
        recipients=write.count(verdict.recipients),
        alpha=write.probability(verdict.alpha),
    )
    width = _LETTER * len(plain(text))
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
        f'<text {look("limit")} x="{end:.1f}" y="{base:.1f}"'
        f' text-anchor="end">{raised_svg(text)}</text>\n'
    )
