"""How the report looks, on a screen and on A4."""

from __future__ import annotations

_LOOKS = {
    "plot": 'font-family="sans-serif" font-size="13"',
    "grid": 'stroke="#eef1f4"',
    "zero": 'stroke="#d3d9df"',
    "stub": 'stroke="#d3d9df"',
    "axis": 'fill="#59636e" font-size="12.5"',
    "zone": 'fill="#a3172a" fill-opacity=".035"',
    "threshold": 'stroke="#a3172a" stroke-width="1.25" stroke-dasharray="5 4"',
    "limit": 'fill="#a3172a"',
    "crowd": 'fill="none" stroke="#5d7488" stroke-linecap="round" stroke-width="4"',
    "few": 'fill="none" stroke="#5d7488" stroke-linecap="round" stroke-width="7"',
    "ring": 'fill="#a3172a" stroke="#fff" stroke-width="1.5"',
    "leader": 'stroke="#a3172a" stroke-width=".75"',
    "label": 'fill="#a3172a" font-weight="600"',
    "track": 'fill="#d3d9df"',
    "fill": 'fill="#5d7488"',
    "fill accused": 'fill="#a3172a"',
    "tick": 'fill="#1c2024"',
}


def look(kind: str) -> str:
    """Return the class of an SVG element, and how it looks where the page's style does not reach.

    Paper is such a place: what sets the PDF applies no style sheet inside a drawing.
    """
    return f'class="{kind}" {_LOOKS[kind]}'


STYLE = """
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
.name, code { font-family: var(--mono); font-size: .88em; overflow-wrap: break-word; }
.long, code { overflow-wrap: anywhere; }
.of { color: var(--soft); }
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
table .name { white-space: nowrap; }
table .long { white-space: normal; overflow-wrap: anywhere; }
table.wide th, table.wide td, table.extracts td, table.extracts th { padding-right: .6rem;
  font-size: .8125rem; }
table.extracts td { vertical-align: top; }
table.rounds th:first-child { width: 6em; }
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
.fraction { display: inline-block; vertical-align: middle; text-align: center;
  line-height: 1.5; }
.fraction > span { display: block; padding: 0 .3em; }
.fraction > span:first-child { border-bottom: 1px solid currentColor; }
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
@page { size: A4; margin: 18mm 17mm; @bottom-right { content: counter(page) " / " counter(pages);
  font: 8pt "Liberation Sans", Arial, sans-serif; color: #59636e; } }
@media print {
  html { font-size: 9.75pt; }
  main, footer { max-width: none; padding: 0; }
  header { padding-top: 0; }
  h2 { margin-top: 1.5rem; break-after: avoid; }
  p { orphans: 3; widows: 3; }
  figure, tr, .whole, .signature, .verdict, .statement, .formula, .limits li, .files li {
    break-inside: avoid; }
  caption { break-after: avoid; }
  thead { display: table-header-group; }
  .scroll { overflow: visible; }
  footer { break-before: avoid; margin-top: 1.2rem; padding-bottom: 0; }
  svg { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
