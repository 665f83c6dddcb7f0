"""The report's sections on what was found."""

from __future__ import annotations

from math import log10

from pgbalise.report.case import CarrierEvidence, CarrierNoise, TraceReport
from pgbalise.report.figure import figure
from pgbalise.report.markup import (
    NAMES_IN_SENTENCE,
    Column,
    Writer,
    facts,
    name_of,
    raised,
    row,
    table,
    text_of,
)
from pgbalise.report.style import look
from pgbalise.report.terms import happened
from pgbalise.tracing.decision import RecipientVerdict, Verdict

_LEAST_ROWS = 10

_LEAST_OTHERS = 3


def verdict(report: TraceReport, write: Writer) -> str:
    """Return the verdict in one sentence, its bound, and the numbers behind it."""
    verdict = report.verdict
    accused = verdict.accused
    several = "files" if len(report.files) > 1 else "file"
    chance = raised(write.odds(-log10(verdict.alpha)))
    values = {
        "these": write.words[several],
        "of_these": write.words["of_" + several],
        "These": write.words[several + "_start"],
        "contain": write.words["contain_" + several],
        "names": write.names(accused) if accused else "",
        "chance": chance,
        "recipients": write.count(verdict.recipients),
    }
    number = "none" if not accused else "one" if len(accused) == 1 else "many"
    if number == "none" and verdict.recipients == 1:
        number = "none_of_one"
    strongest = verdict.verdicts[0]
    figures = (
        (write.words["strongest_evidence"], raised(write.power(strongest.log10_e_value))),
        (write.words["needed"], raised(write.power(verdict.threshold_log10))),
        (write.words["compared"], write.count(verdict.recipients)),
        (
            write.words["rows_matched"],
            write.words["of"].format(
                part=write.count(verdict.rows_aligned), whole=write.count(verdict.rows_read)
            ),
        ),
    )
    sentence = write.words["verdict_" + number.removesuffix("_of_one")].format(**values)
    return (
        f'<section class="verdict {"named" if accused else "nobody"}" aria-labelledby="verdict">'
        f'<h2 id="verdict" class="kicker">{write.words["verdict_title"]}</h2>\n'
        f'<p class="sentence">{sentence}</p>\n'
        f"<p>{write.words['explained_' + number].format(**values)}</p>\n"
        f"{_decoys(verdict, write)}{facts(figures, 'figures')}</section>"
    )


def _decoys(verdict: Verdict, write: Writer) -> str:
    found = [entry for entry in verdict.verdicts if entry.decoys]
    if not found:
        return ""
    listed = [
        write.words["decoys_of"].format(
            count=write.count(entry.decoys), name=name_of(entry.recipient)
        )
        for entry in found[:NAMES_IN_SENTENCE]
    ]
    if len(found) > NAMES_IN_SENTENCE:
        listed.append(
            write.words["others"].format(count=write.count(len(found) - NAMES_IN_SENTENCE))
        )
    return f"<p>{write.words['decoys_found'].format(list=', '.join(listed))}</p>\n"


def meaning(report: TraceReport, write: Writer) -> str:
    """Return what an e-value is, for those who never met one."""
    verdict = report.verdict
    strongest = verdict.verdicts[0]
    values = {
        "recipients": write.count(verdict.recipients),
        "threshold": raised(write.power(verdict.threshold_log10)),
        "alpha": raised(write.probability(verdict.alpha)),
        "chance": raised(write.odds(-log10(verdict.alpha))),
        "name": name_of(strongest.recipient),
        "value": raised(write.power(strongest.log10_e_value)),
        "alone": raised(write.odds(strongest.log10_e_value)),
        "among": raised(write.odds(strongest.log10_e_value - log10(verdict.recipients))),
    }
    last = ""
    if verdict.accused:
        extreme = strongest.log10_e_value - log10(verdict.recipients) >= 12
        several = (
            "" if verdict.recipients == 1 else " " + write.words["meaning_among"].format(**values)
        )
        last = (
            f"<p>{write.words['meaning_here'].format(**values)}{several}"
            f"{' ' + write.words['meaning_extreme'] if extreme else ''}</p>\n"
        )
    threshold = write.words[
        "meaning_threshold" if verdict.recipients > 1 else "meaning_threshold_one"
    ]
    return (
        f"<p>{write.words['meaning_1']}</p>\n<p>{threshold.format(**values)}</p>\n"
        f"{last}<p>{write.words['meaning_guilt']}</p>\n"
    )


def ranking(verdict: Verdict, write: Writer) -> str:
    """Return the curve of all recipients and the table of the first."""
    columns = (
        Column(write.words["rank"], "number"),
        Column(write.words["recipient"]),
        Column(write.words["e_value"], "number short"),
        Column(write.words["against_threshold"], "bar"),
        Column(write.words["agreeing_cells"], "number"),
        Column(write.words["decoys"], "number"),
        Column(write.words["finding"], "short"),
    )
    accused = len(verdict.accused)
    shown = verdict.verdicts[: max(_LEAST_ROWS, accused + _LEAST_OTHERS)]
    full = max(verdict.threshold_log10, shown[0].log10_e_value)
    rows = (
        row(
            columns,
            (
                write.count(rank),
                name_of(entry.recipient),
                raised(write.power(entry.log10_e_value)),
                _bar(entry, verdict.threshold_log10, full),
                write.count(entry.cells),
                write.count(entry.decoys),
                write.words["named" if entry.accused else "not_named"],
            ),
            "accused" if entry.accused else "",
            header=1,
        )
        for rank, entry in enumerate(shown, 1)
    )
    rest = len(verdict.verdicts) - len(shown)
    caption = write.words["ranking_caption"].format(
        shown=write.count(len(shown)), recipients=write.count(verdict.recipients)
    )
    tail = f'<p class="note">{write.words["bar_note"]}'
    if rest:
        tail += " " + write.words["rest"].format(
            count=write.count(rest),
            value=raised(write.power(verdict.verdicts[len(shown)].log10_e_value)),
        )
    return figure(verdict, write) + table(caption, columns, rows, "ranking") + f"{tail}</p>\n"


def _bar(entry: RecipientVerdict, threshold: float, full: float) -> str:
    """Return evidence as a bar from 10^0, with a tick at the threshold."""
    width = 120.0
    length = width * min(max(entry.log10_e_value / full, 0.0), 1.0)
    tick = min(width * threshold / full, width - 1)
    fill = look("fill accused" if entry.accused else "fill")
    return (
        '<svg class="spark" viewBox="0 0 120 12" width="120" height="12" aria-hidden="true">'
        f'<rect {look("track")} x="0" y="5" width="120" height="2"/>'
        f'<rect {fill} x="0" y="3" width="{length:.1f}" height="6"/>'
        f'<rect {look("tick")} x="{tick:.1f}" y="0" width="1.5" height="12"/></svg>'
    )


def carriers(report: TraceReport, write: Writer) -> str:
    """Return how many cells of each carrier spoke for and against."""
    verdict = report.verdict
    cells = write.words["cells"].format(
        marked=write.count(verdict.cells_marked), used=write.count(verdict.cells_used)
    )
    if not report.carriers:
        return f"<p>{cells} {write.words['carriers_none']}</p>\n"
    strongest = verdict.verdicts[0].recipient
    columns = (
        Column(write.words["carrier"]),
        Column(write.words["selected"], "number"),
        Column(write.words["informative"], "number"),
        Column(write.words["agree"], "number"),
        Column(write.words["disagree"], "number"),
        Column(write.words["share_agreeing"], "number"),
    )

    def numbers(first: str, counts: tuple[int, int, int, int]) -> tuple[str, ...]:
        told = counts[2] + counts[3]
        agreeing = write.share(counts[2] / told) if told else "–"
        return (first, *(write.count(count) for count in counts), agreeing)

    counted = [(c.selected, c.informative, c.agreeing, c.disagreeing) for c in report.carriers]
    rows = [
        row(columns, numbers(_carrier(carrier, report), counts))
        for carrier, counts in zip(report.carriers, counted, strict=True)
    ]
    if len(counted) > 1:
        selected, informative, agreeing, disagreeing = (
            sum(column) for column in zip(*counted, strict=True)
        )
        total = (selected, informative, agreeing, disagreeing)
        rows.append(row(columns, numbers(write.words["total"], total), "total"))
    caption = write.words["carriers_caption"].format(name=name_of(strongest))
    return f"<p>{cells} {write.words['carriers_text']}</p>\n" + table(caption, columns, rows)


def _carrier(part: CarrierEvidence | CarrierNoise, report: TraceReport) -> str:
    """Return a carrier's name, with its relation when there are several."""
    if part.relation is None or len(report.relations) < 2:
        return name_of(part.carrier)
    return f'{name_of(part.carrier)} <span class="of">{name_of(part.relation)}</span>'


_LEFT_ALONE = 0.99
"""Share of cells from which a carrier counts as left as it was delivered."""


def noise(report: TraceReport, write: Writer) -> str:
    """Return what was done to the values since they left."""
    if not report.noise:
        return f"<p>{write.words['noise_none']}</p>\n"
    altered = [
        noise.carrier
        for noise in report.noise
        if sum(share for what, share in noise.findings if what == "unchanged") < _LEFT_ALONE
    ]
    if altered:
        summary = write.words["noise_altered"].format(
            names=write.names(altered), count=write.count(len(altered))
        )
    else:
        summary = write.words["noise_unaltered"]
    columns = (
        Column(write.words["carrier"]),
        Column(write.words["transformation"]),
        Column(write.words["share"], "number"),
    )
    rows = [
        row(
            columns,
            (
                _carrier(noise, report) if index == 0 else "",
                text_of(happened(description, write.language)),
                write.share(share),
            ),
            header=None if index else 0,
        )
        for noise in report.noise
        for index, (description, share) in enumerate(noise.findings)
    ]
    return f"<p>{summary} {write.words['noise_text']}</p>\n" + table(
        write.words["noise_caption"], columns, rows
    )


def rounds(report: TraceReport, write: Writer) -> str:
    """Return who was named in which round of joint decoding."""
    words = write.words
    columns = (Column(words["round"], "short"), Column(words["newly_named"]))
    rows = (
        row(columns, (write.count(number), ", ".join(map(name_of, named)) or words["round_none"]))
        for number, named in enumerate(report.rounds, 1)
    )
    return f"<p>{words['rounds_text']}</p>\n<p>{words['rounds_bound']}</p>\n" + table(
        words["rounds_caption"], columns, rows, "rounds"
    )


_DECOYS_SHOWN = 50


def decoys(report: TraceReport, write: Writer) -> str:
    """Return which decoys the leak holds, and by what they were recognised."""
    words = write.words
    columns = (
        Column(words["decoy"]),
        Column(words["recognised_by"]),
        Column(words["e_value"], "number short"),
    )
    rows = [
        row(
            columns,
            (
                words["decoy_name"].format(
                    recipient=name_of(seen.recipient), number=write.count(seen.number)
                ),
                ", ".join(words[f"trait_{kind.value}"] for kind in seen.traits),
                raised(write.power(seen.log10_e_value)),
            ),
            header=0,
        )
        for seen in report.decoys[:_DECOYS_SHOWN]
    ]
    rest = len(report.decoys) - len(rows)
    more = f"<p>{words['others'].format(count=write.count(rest))}</p>\n" if rest else ""
    return (
        f"<p>{words['decoys_text']}</p>\n"
        + table(words["decoys_caption"], columns, rows, "decoys")
        + more
    )


def source(report: TraceReport, write: Writer) -> str:
    """Return how the source has changed since the leak left it."""
    words = write.words
    columns = (
        Column(words["relation"]),
        Column(words["what_changed"]),
        Column(words["share_changed"], "number"),
    )
    rows = []
    for change in report.source:
        found = [
            (words["cells_changed"].format(column=name_of(column)), share)
            for column, share in change.cells_changed
        ]
        if change.rows_deleted is not None:
            found.insert(0, (words["rows_deleted"], change.rows_deleted))
        for index, (what, share) in enumerate(found):
            head = "" if index else name_of(change.relation)
            cells = (head, what, write.share(share))
            rows.append(row(columns, cells, header=None if index else 0))
    text = f"<p>{words['source_text']}</p>\n"
    if not rows:
        return text + f"<p>{words['source_same']}</p>"
    return text + table(words["source_caption"], columns, rows)
