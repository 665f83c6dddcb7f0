"""A robustness study for a terminal, and as one HTML file that asks nothing of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pgbalise.report.case import visible
from pgbalise.report.markup import Column, Numbers, facts, page, raised, row, section, spaced, table
from pgbalise.report.robustness_words import ATTACKS, STRENGTHS, WORDS
from pgbalise.report.style import STYLE
from pgbalise.report.words import Language
from pgbalise.tracing.decision import threshold_log10
from pgbalise.tracing.robustness import LINKED_ROWS
from pgbalise.tracing.trials import Estimate, Study, Variant

_WEAK = 0.25
"""A carrier is weak if it adds less than this part of an equal share."""
_HALF = 0.55
"""Rows needed up to this part of what they were count as halved: a study has its own noise."""
_LITTLE = 0.85
_CURVES = 5


@dataclass(frozen=True)
class _Write(Numbers):
    """How things are written in one language."""

    def word(self, name: str, /, **values: str) -> str:
        return spaced(WORDS[self.language][name].format(**values), self.language)

    def short(self, value: float) -> str:
        text = f"{value:g}"
        return text.replace(".", ",") if self.language == "fr" else text

    def share(self, value: float) -> str:
        """Write a share: never as 0 or 100 % what is neither."""
        percent = 100 * value
        places = 1 if 0 < percent < 1 or 99 < percent < 100 else 0
        sign = "%" if self.language == "en" else "\u202f%"
        return self.decimal(percent, places) + sign

    def attack(self, estimate: Estimate) -> str:
        return ATTACKS[self.language][estimate.setting.attack.name]

    def strength(self, estimate: Estimate) -> str:
        form = STRENGTHS[self.language].get(estimate.setting.attack.name)
        value = estimate.setting.strength
        return (
            "" if form is None else form.format(percent=self.share(value), number=self.short(value))
        )

    def what(self, estimate: Estimate) -> str:
        """Write an attack with its strength."""
        strength = self.strength(estimate)
        return f"{self.attack(estimate)} ({strength})" if strength else self.attack(estimate)

    def rows(self, estimate: Estimate, more: str = "more") -> str:
        """Write the rows that an attack makes necessary; nothing if they were not looked for."""
        needed = estimate.rows_for()
        if needed is not None:
            return self.count(needed)
        return self.word(more, most=self.count(estimate.most)) if estimate.sizes else ""

    def label(self, estimate: Estimate) -> str:
        parts = [self.what(estimate)]
        if estimate.setting.colluders > 1:
            parts.append(self.word("thieves_short", count=self.count(estimate.setting.colluders)))
        if not estimate.setting.keyed and estimate.setting.attack.kind != "key":
            parts.append(self.word("without_key"))
        return ", ".join(parts)


def advice(study: Study, language: Language = "en") -> list[str]:
    """Return what a study means for the policy, in plain words, what matters most first."""
    write = _Write(language)
    base, worst = study.untouched, study.hardest
    out = []
    if base is not None and base.sizes is not None:
        if base.rows_for() is None:
            out.append(write.word("advice_untouched_none", most=write.count(base.most)))
        else:
            out.append(write.word("advice_untouched", rows=write.rows(base)))
    if base is not None:
        out += _on_carriers(base, write)
    if worst is not None:
        out += _on_hardest(base, worst, write)
    out += [text for variant in study.variants if (text := _on_variant(study, variant, write))]
    together = [e for e in study.estimates if e.setting.colluders > 1]
    if together:
        hard = min(together, key=lambda e: (e.detection, e.recall, -e.setting.colluders))
        out.append(
            write.word(
                "advice_coalition",
                thieves=write.count(hard.setting.colluders),
                what=write.what(hard),
                rows=write.count(hard.rows),
                share=write.share(hard.detection),
                all=write.share(hard.all_named),
            )
        )
    lost = [e for e in study.estimates if e.not_traced]
    if lost:
        listed = ", ".join(
            f"{write.label(e)} ({write.count(e.not_traced)}/{len(e.trials)})" for e in lost
        )
        out.append(write.word("advice_not_traced", list=listed))
    name = "advice_wronged" if study.wronged else "advice_wronged_none"
    out.append(
        write.word(name, scored=write.count(study.scored), wronged=write.count(study.wronged))
    )
    return out


def _on_carriers(base: Estimate, write: _Write) -> list[str]:
    decades = {name: max(value, 0.0) for name, value in base.decades.items()}
    whole = sum(decades.values())
    if not whole:
        return []
    ranked = sorted(decades, key=lambda name: -decades[name])
    listed = ", ".join(f"{visible(name)} {write.share(decades[name] / whole)}" for name in ranked)
    out = [write.word("advice_carriers", list=listed)]
    weak = [name for name in ranked if decades[name] < _WEAK * whole / len(ranked)]
    out += [write.word("advice_weak", name=visible(name)) for name in weak]
    return out


def _on_hardest(base: Estimate | None, worst: Estimate, write: _Write) -> list[str]:
    values = {"what": write.what(worst), "rows": write.rows(worst), "most": write.count(worst.most)}
    if worst.rows_for() is None:
        out = [write.word("advice_hardest_never", **values)]
    elif base is not None and base.rows_for() is not None:
        out = [write.word("advice_hardest", base=write.rows(base), **values)]
    else:
        return []
    decades = sorted(worst.decades.items(), key=lambda entry: -entry[1])
    if len(decades) > 1 and decades[0][1] > 2 * max(decades[1][1], 0.0):
        out.append(write.word("advice_survivor", name=visible(decades[0][0])))
    return out


def _on_variant(study: Study, variant: Variant, write: _Write) -> str:
    before = {id_of(e): e for e in study.estimates if e.sizes is not None}
    pairs = [(before[id_of(e)], e) for e in variant.estimates if id_of(e) in before]
    plain = next((pair for pair in pairs if pair[0].setting.attack.name == "none"), None)
    if plain is None:
        return ""
    hard = next((pair for pair in pairs if pair is not plain), None)
    after = (
        write.word("advice_after", rows=write.rows(hard[1]), base=write.rows(hard[0]))
        if hard
        else ""
    )
    ratios = [_ratio(*pair) for pair in (plain, hard) if pair]
    verdict = "some"
    if ratios[0] <= _HALF:
        verdict = "halves"
    elif ratios[-1] <= _HALF:
        verdict = "hard"
    elif min(ratios) > _LITTLE:
        verdict = "little"
    return write.word(
        "advice_" + variant.change,
        times=write.word("twice")
        if variant.factor == 2
        else write.word("times", factor=write.short(variant.factor)),
        rows=write.rows(plain[1]),
        base=write.rows(plain[0]),
        after=after,
        verdict=write.word("verdict_" + verdict),
    )


def id_of(estimate: Estimate) -> tuple[str, float, int, bool]:
    """Return what makes two estimates comparable: the same setting."""
    setting = estimate.setting
    return setting.attack.name, setting.strength, setting.colluders, setting.keyed


def _ratio(before: Estimate, after: Estimate) -> float:
    old, new = before.rows_for(), after.rows_for()
    if new is None:
        return 1.0
    return new / old if old is not None else 0.0


def _lost(one: Estimate) -> bool:
    """Whether not one leak could be traced."""
    return one.not_traced == len(one.trials)


def summary(study: Study) -> RenderableType:
    """Return a study as a table for a terminal, and what it means."""
    write = _Write("en")
    shown = Table(box=box.SIMPLE_HEAD, header_style="dim", show_edge=False, pad_edge=False)
    shown.add_column("attack", no_wrap=True)
    shown.add_column("strength", no_wrap=True)
    for name in ("thieves", "named", "95% interval", "all named", "rows needed", "innocents"):
        shown.add_column(name, justify="right", no_wrap=True)
    kind = ""
    for one in study.estimates:
        if kind and one.setting.attack.kind != kind:
            shown.add_section()
        kind = one.setting.attack.kind
        low, high = one.interval
        lost = _lost(one)
        shown.add_row(
            write.attack(one),
            write.strength(one),
            str(one.setting.colluders),
            "not traced" if lost else write.share(one.detection),
            "" if lost else f"{100 * low:.0f}–{100 * high:.0f}%",
            "" if lost else write.share(one.all_named),
            write.rows(one, "most"),
            str(one.false_accusations),
        )
    about = Text(
        f"{study.relation} · {study.trials} leaks of {study.rows:,} rows for each line ·"
        f" recipients N = {study.recipients:,} · α = {study.alpha:g} · seed {study.seed}",
        style="dim",
    )
    said = Table.grid(padding=(0, 1, 0, 0))
    for text in advice(study):
        said.add_row("•", Text(text))
    return Padding(Group(about, "", shown, "", said), (1, 1))


def html(study: Study, language: Language = "en") -> str:
    """Return the report as one HTML document, encoded by the caller as UTF-8."""
    write = _Write(language)
    title = f"{write.word('title')} – {escape(visible(study.relation))}"
    counted = {"trials": write.count(study.trials), "rows": write.count(study.rows)}
    sections = [
        ("advice", _bullets(advice(study, language))),
        ("detection", _figure(_bars(study, write), write.word("detection_caption", **counted))),
    ]
    curves = _curves(study, write)
    if curves:
        sections.append(("curve", _figure(curves, write.word("curve_caption"))))
    sections.append(("carriers", _carriers(study, write)))
    if study.variants:
        sections.append(("variants", _variants(study, write)))
    sections += [("table", _all_figures(study, write)), ("method", _method(study, write))]
    return page(
        language,
        title,
        [
            _masthead(study, write),
            _headline(study, write),
            *(section(n, write.word(n + "_title"), text) for n, text in sections if text),
        ],
        f"<footer><p>{write.word('footer')}</p></footer>",
        STYLE + _STYLE,
    )


def _masthead(study: Study, write: _Write) -> str:
    entries = (
        ("relation", f"<code>{escape(visible(study.relation))}</code>"),
        ("recipients", write.count(study.recipients)),
        ("alpha", raised(write.probability(study.alpha))),
        (
            "copies",
            write.word(
                "copies_are", rows=write.count(study.rows), stored=write.count(study.stored)
            ),
        ),
        ("trials", write.count(study.trials)),
        ("seed", str(study.seed)),
    )
    meta = facts(((write.word(name), value) for name, value in entries), "meta")
    return f"<header><h1>{write.word('title')}</h1>{meta}</header>"


def _headline(study: Study, write: _Write) -> str:
    base, worst = study.untouched, study.hardest
    if base is None:
        sentence = write.word("headline_other")
    elif base.rows_for() is not None:
        sentence = write.word("headline_rows", rows=write.rows(base))
    else:
        sentence = write.word(
            "headline_none", rows=write.count(base.rows), share=write.share(base.detection)
        )
    figures = []
    for name, one in (("figure_untouched", base), ("figure_hardest", worst)):
        if one is not None:
            figures.append((name, write.share(one.detection)))
    wronged = write.word("of", part=write.count(study.wronged), whole=write.count(study.scored))
    figures.append(("figure_wronged", wronged))
    shown = facts(((write.word(name), value) for name, value in figures), "figures")
    return f'<section class="verdict"><p class="sentence">{sentence}</p>{shown}</section>'


def _bullets(texts: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>\n" for text in texts)
    return f'<ul class="limits">{items}</ul>\n'


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>\n"


_WIDTH, _LEFT, _RIGHT, _LINE = 720, 316, 656, 21


def _bars(study: Study, write: _Write) -> str:
    """One bar for each estimate, with its interval, under a heading for each kind of attack."""
    out: list[str] = []
    y, kind = 6, ""
    for one in study.estimates:
        if one.setting.attack.kind != kind:
            kind = one.setting.attack.kind
            y += 8 if out else 0
            heading = write.word("kind_" + kind)
            out.append(f'<text class="group" x="0" y="{y + 14}">{heading}</text>')
            y += _LINE
        out.append(_bar(one, y, write))
        y += _LINE
    grid = "".join(
        f'<line class="grid" x1="{_x(share):.1f}" y1="4" x2="{_x(share):.1f}" y2="{y + 2}"/>'
        f'<text class="axis" x="{_x(share):.1f}" y="{y + 17}" text-anchor="middle">'
        f"{write.share(share)}</text>"
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {y + 22}" role="img" aria-label='
        f'"{write.word("detection_title")}">{grid}{"".join(out)}</svg>'
    )


def _x(share: float) -> float:
    return _LEFT + share * (_RIGHT - _LEFT)


def _bar(one: Estimate, y: int, write: _Write) -> str:
    low, high = one.interval
    lost = _lost(one)
    said = write.word("not_traced").lower() if lost else write.share(one.detection)
    width = _x(one.detection) - _LEFT
    bar = (
        ""
        if lost
        else f'<rect class="bar" x="{_LEFT}" y="{y + 5}" width="{width:.1f}" height="10"/>'
        f'<path class="whisker" d="M{_x(low):.1f} {y + 10}H{_x(high):.1f}'
        f'M{_x(low):.1f} {y + 7}v6M{_x(high):.1f} {y + 7}v6"/>'
    )
    return (
        f'<text x="{_LEFT - 10}" y="{y + 14}" text-anchor="end">'
        f"{escape(_cut(write.label(one), 46))}</text>{bar}"
        f'<text x="{_LEFT + 6 if lost else _RIGHT + 12}" y="{y + 14}">{said}</text>\n'
    )


_PLOT_LEFT, _PLOT_TOP, _PLOT_RIGHT, _PLOT_BOTTOM = 56, 12, 460, 262


def _curves(study: Study, write: _Write) -> str:
    """Share of trials that name a thief against rows: steps, since sizes are those of trials."""
    known = [e for e in study.estimates if e.sizes is not None and e.sizes[0] is not None]
    if not known:
        return ""
    base, worst = study.untouched, study.hardest
    first = [e for e in (base, worst) if e is not None and e in known]
    rest = sorted(
        (e for e in known if e not in first and e.setting.attack.kind in ("values", "collusion")),
        key=lambda e: -(e.rows_for() or e.most),
    )
    chosen = [*first, *rest][:_CURVES]
    if not chosen:
        return ""
    sizes = [size for e in chosen for size in e.sizes or () if size is not None]
    low, high = log10(min(sizes)) - 0.08, log10(max(sizes)) + 0.08

    def at(size: float) -> float:
        return _PLOT_LEFT + (log10(size) - low) / (high - low) * (_PLOT_RIGHT - _PLOT_LEFT)

    def up(share: float) -> float:
        return _PLOT_BOTTOM - share * (_PLOT_BOTTOM - _PLOT_TOP)

    out = [
        f'<line class="grid" x1="{_PLOT_LEFT}" y1="{up(share):.1f}" x2="{_PLOT_RIGHT}"'
        f' y2="{up(share):.1f}"/><text class="axis" x="{_PLOT_LEFT - 8}"'
        f' y="{up(share) + 4:.1f}" text-anchor="end">{write.share(share)}</text>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    out += [
        f'<line class="grid" x1="{at(size):.1f}" y1="{_PLOT_TOP}" x2="{at(size):.1f}"'
        f' y2="{_PLOT_BOTTOM}"/><text class="axis" x="{at(size):.1f}" y="{_PLOT_BOTTOM + 18}"'
        f' text-anchor="middle">{write.count(size)}</text>'
        for size in _round_sizes(10**low, 10**high)
    ]
    out.append(
        f'<line class="threshold" x1="{_PLOT_LEFT}" y1="{up(0.95):.1f}" x2="{_PLOT_RIGHT}"'
        f' y2="{up(0.95):.1f}"/><text class="axis" x="{(_PLOT_LEFT + _PLOT_RIGHT) / 2:.0f}"'
        f' y="{_PLOT_BOTTOM + 36}" text-anchor="middle">{write.word("axis_rows")}</text>'
    )
    for index, one in enumerate(chosen):
        path = [f"M{_PLOT_LEFT} {up(0):.1f}"]
        reached = sorted(size for size in one.sizes or () if size is not None)
        for number, size in enumerate(reached, 1):
            path.append(f"H{at(size):.1f}V{up(number / len(one.sizes or ())):.1f}")
        path.append(f"H{_PLOT_RIGHT}")
        y = _PLOT_TOP + 12 + 24 * index
        out.append(
            f'<path class="curve c{index}" d="{"".join(path)}"/>'
            f'<path class="curve c{index}" d="M{_PLOT_RIGHT + 14} {y - 4}h18"/>'
            f'<text class="key" x="{_PLOT_RIGHT + 38}" y="{y}">{escape(_cut(write.label(one)))}'
            "</text>\n"
        )
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_PLOT_BOTTOM + 42}" role="img" aria-label='
        f'"{write.word("curve_title")}">{"".join(out)}</svg>'
    )


def _cut(text: str, most: int = 34) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _round_sizes(low: float, high: float) -> list[int]:
    steps = (1, 2, 5) if log10(high / low) < 2.5 else (1,)
    return [
        step * 10**power
        for power in range(floor(log10(low)), ceil(log10(high)) + 1)
        for step in steps
        if low <= step * 10**power <= high
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """Return a table; all columns but the first one hold numbers."""
    columns = [Column(name, "number" if at else "") for at, name in enumerate(head)]
    return table(caption, columns, [row(columns, cells) for cells in rows], "wide")


def _all_figures(study: Study, write: _Write) -> str:
    names = (
        "attack", "thieves", "detected", "interval", "recall", "all_named", "rows_needed",
        "wronged",
    )  # fmt: skip
    head = [write.word(name) for name in names]
    rows = []
    for one in study.estimates:
        low, high = (write.decimal(100 * share, 0) for share in one.interval)
        known = [
            write.share(one.detection),
            f"{low}–{high}",
            write.share(one.recall),
            write.share(one.all_named),
        ]
        if _lost(one):
            known = [write.word("not_traced").lower(), *["–"] * 3]
        rows.append(
            [
                escape(write.what(one)),
                write.count(one.setting.colluders),
                *known,
                escape(write.rows(one, "most")) or "–",
                write.count(one.false_accusations),
            ]
        )
    caption = write.word(
        "table_caption", trials=write.count(study.trials), rows=write.count(study.rows)
    )
    return _table(head, rows, caption)


def _carriers(study: Study, write: _Write) -> str:
    kinds = ("selection", "values")
    shown = [
        e
        for e in study.estimates
        if e.setting.colluders == 1
        and e.setting.strength == e.setting.attack.usual
        and e.setting.attack.kind in kinds
        and e.setting.attack.name not in ("subset", "superset")
        and e.decades
    ]
    if not shown:
        return ""
    names = sorted({name for e in shown for name in e.decades})
    head = [write.word("attack"), *(f"<code>{escape(visible(name))}</code>" for name in names)]
    rows = [
        [
            escape(write.what(e)),
            *(write.decimal(e.decades[n], 1) if n in e.decades else "–" for n in names),
        ]
        for e in shown
    ]
    threshold = write.decimal(threshold_log10(study.recipients, study.alpha), 1)
    caption = write.word("carriers_caption", rows=write.count(study.rows), threshold=threshold)
    return _table(head, rows, caption)


def _variants(study: Study, write: _Write) -> str:
    compared = study.variants[0].estimates
    before = {id_of(e): e for e in study.estimates}
    head = [write.word("change"), *(escape(write.what(e)) for e in compared)]
    rows = [
        [write.word("as_is"), *(escape(write.rows(before[id_of(e)], "most")) for e in compared)]
    ]
    rows += [
        [
            write.word(variant.change, factor=write.short(variant.factor)),
            *(escape(write.rows(e, "most")) for e in variant.estimates),
        ]
        for variant in study.variants
    ]
    return _table(head, rows, write.word("variants_caption"))


def _method(study: Study, write: _Write) -> str:
    texts = [write.word("method", recipients=write.count(study.recipients))]
    if any(not e.setting.keyed for e in study.estimates):
        linked = write.count(min(LINKED_ROWS, study.stored))
        texts.append(write.word("method_linked", linked=linked))
    texts.append(write.word("method_limits"))
    return "".join(f"<p>{text}</p>\n" for text in texts)


_STYLE = """
:root { --c2: #8a6d1d; --c3: #2f7d6b; --c4: #7a4b8f; }
@media screen and (prefers-color-scheme: dark) { :root { --c2: #d9bd6a; --c3: #7fcab6;
  --c4: #c7a1d8; } }
.figures { justify-content: flex-start; column-gap: 3rem; }
.plot text { font-variant-numeric: tabular-nums; }
.plot .group { font-weight: 600; }
.plot .bar { fill: var(--dot); fill-opacity: .55; }
.plot .whisker { fill: none; stroke: var(--ink); }
.plot .curve { fill: none; stroke: var(--calm); stroke-width: 2; stroke-linejoin: round; }
.plot .c1 { stroke: var(--named); } .plot .c2 { stroke: var(--c2); }
.plot .c3 { stroke: var(--c3); } .plot .c4 { stroke: var(--c4); }
.plot .key { font-size: 11.5px; }
.wide tbody th { min-width: 12.5rem; }
td { white-space: nowrap; }
"""
