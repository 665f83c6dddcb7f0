"""The report's sections on what the finding rests on, and on what it cannot say."""

from __future__ import annotations

from math import log10

from pgbalise.report.case import LeakedTable, MappedColumn, PossibleExtract, TraceReport
from pgbalise.report.markup import Column, Writer, facts, name_of, raised, row, table, text_of
from pgbalise.report.terms import fitting, written


def masthead(report: TraceReport, write: Writer) -> str:
    """Return what the report is about, who made it and when."""
    words = write.words
    several = "relations" if len(report.relations) > 1 else "relation"
    relations = ", ".join(map(name_of, report.relations)) or "–"
    entries = [
        (words[several], relations),
        (words["database"], name_of(report.database)),
        (words["created"], write.moment(report.created_at)),
    ]
    if report.case is not None:
        entries.append((words["case"], _case(report, write)))
    if report.signer is not None:
        entries.append((words["signer_head"], f"<code>{report.signer.public_key[:16]}…</code>"))
    return f"<header><h1>{words['report_title']}</h1>{facts(entries, 'meta')}</header>"


def _case(report: TraceReport, write: Writer) -> str:
    assert report.case is not None
    return write.words["case_text"].format(
        title=text_of(report.case.title),
        number=write.count(report.case.number),
        look=write.count(report.case.look),
    )


def matching(report: TraceReport, write: Writer) -> str:
    """Return how the rows and columns of each leaked table found theirs in the database."""
    verdict, words = report.verdict, write.words
    share = verdict.rows_aligned / verdict.rows_read if verdict.rows_read else 0.0
    text = words["matching_text"].format(
        read=write.count(verdict.rows_read),
        aligned=write.count(verdict.rows_aligned),
        share=write.share(share),
    )
    if not report.tables:
        return f"<p>{text}</p>\n" + _left_out(report, write)
    return (
        f"<p>{text} {words['tables_text']}</p>\n"
        + _left_out(report, write)
        + _tables(report, write)
        + "".join(_columns(leaked, write) for leaked in report.tables if leaked.columns)
    )


def _left_out(report: TraceReport, write: Writer) -> str:
    """Return what could not be read, and which tables' columns hardly tell rows apart."""
    words = write.words
    doubtful = [leaked.name for leaked in report.tables if leaked.doubtful]
    skipped = [line for file in report.files for line in file.skipped]
    out = ""
    if doubtful:
        out += f'<p class="note">{words["doubtful"].format(names=write.names(doubtful))}</p>\n'
    if skipped:
        lines = "".join(f"<li>{text_of(line)}</li>" for line in skipped)
        out += f'<p class="note">{words["skipped"]}</p>\n<ul class="note">{lines}</ul>\n'
    return out


def _tables(report: TraceReport, write: Writer) -> str:
    words = write.words
    columns = (
        Column(words["table"]),
        Column(words["matched_with"]),
        Column(words["how"]),
        *(
            Column(words[name], "number")
            for name in ("rows_read", "aligned", "ambiguous", "without", "duplicates", "altered")
        ),
    )
    rows = (
        row(
            columns,
            (
                name_of(leaked.name),
                words["no_relation"] if leaked.relation is None else name_of(leaked.relation),
                words[f"way_{leaked.aligned_by or 'none'}"],
                write.count(leaked.rows_read),
                write.count(leaked.rows_aligned),
                write.count(leaked.ambiguous),
                write.count(leaked.without_counterpart),
                write.count(leaked.duplicates),
                "–" if leaked.altered is None else write.share(leaked.altered),
            ),
            "idle" if leaked.relation is None else "",
        )
        for leaked in report.tables
    )
    return table(words["tables_caption"], columns, rows, "wide")


def _columns(leaked: LeakedTable, write: Writer) -> str:
    words = write.words
    columns = (
        Column(words["leak_column"]),
        Column(words["relation_column"]),
        Column(words["used_as"]),
        Column(words["found_by"]),
        Column(words["confidence"], "number"),
        Column(words["written_as"]),
    )

    def cells(column: MappedColumn) -> tuple[str, ...]:
        return (
            name_of(column.leak_column),
            "–" if column.column is None else name_of(column.column),
            words[f"use_{column.use}"],
            words[f"by_{column.by}"],
            "–" if column.confidence is None else write.share(column.confidence),
            ", ".join(text_of(written(text, write.language)) for text in column.formats) or "–",
        )

    caption = words["mapping_caption"].format(table=name_of(leaked.name))
    return table(
        caption,
        columns,
        (row(columns, cells(c), "idle" if c.use == "ignored" else "") for c in leaked.columns),
        "columns",
    )


def extracts(report: TraceReport, write: Writer) -> str:
    """Return which extracts in the ledger could be the one that leaked."""
    words = write.words
    if report.extracts is None:
        return f"<p>{words['extracts_none']}</p>\n"
    if not report.extracts:
        return f"<p>{words['extracts_nobody']}</p>\n"
    columns = (
        Column(words["sequence"], "number"),
        Column(words["recipient"]),
        Column(words["taken"]),
        Column(words["rows_delivered"], "number"),
        Column(words["through"]),
        Column(words["why"]),
    )

    def cells(extract: PossibleExtract) -> tuple[str, ...]:
        through = [text_of(text) for text in (extract.application, extract.client) if text]
        relations = ", ".join(map(name_of, extract.relations))
        why = write.series(text_of(fitting(text, write.language)) for text in extract.why)
        taken = write.time(extract.started_at, extract.ended_at)
        return (
            write.count(extract.sequence),
            name_of(extract.recipient),
            f'{text_of(extract.command)} {relations}<br/><span class="short">{taken}</span>',
            words["not_known"] if extract.rows is None else write.count(extract.rows),
            "<br/>".join(through) or "–",
            why or "–",
        )

    caption = words["extracts_caption"].format(
        shown=write.count(len(report.extracts)),
        fitting=write.count(max(len(report.extracts), report.extracts_fitting)),
    )
    return f"<p>{words['extracts_text']}</p>\n" + table(
        caption,
        columns,
        (row(columns, cells(extract), header=1) for extract in report.extracts),
        "extracts",
    )


def inputs(report: TraceReport, write: Writer) -> str:
    """Return the files, digests, key, versions and parameters that the numbers derive from."""
    words = write.words
    files = "".join(
        f"<li>{name_of(file.name)}, "
        + words["file_size"].format(rows=write.count(file.rows), size=write.count(file.size))
        + f"{_hash(file.sha256)}</li>\n"
        for file in report.files
    )
    files += "".join(
        f"<li>{words['digest_' + digest.of]} {name_of(digest.name)}{_hash(digest.sha256)}</li>\n"
        for digest in report.digests
    )
    versions = ", ".join(
        f"{text_of(software)} {text_of(version)}" for software, version in report.versions.items()
    )
    entries = [
        (words["epoch"], _epoch(report, write)),
        (words["key_fingerprint"], f"<code>{report.key_fingerprint}</code>"),
        (words["commitments"], _commitments(report, write)),
        (words["versions"], versions or "–"),
    ]
    if report.parameters:
        given = ", ".join(f"{name_of(name)} {name_of(value)}" for name, value in report.parameters)
        entries.append((words["parameters"], given))
    return (
        f"<p>{words['inputs_text']}</p>\n"
        + (f'<ul class="files">{files}</ul>\n' if files else "")
        + facts(entries, "meta")
    )


def _hash(sha256: str) -> str:
    return (
        '<br/><span class="hash"><abbr title="Secure Hash Algorithm">SHA-256</abbr> '
        f"<code>{sha256}</code></span>"
    )


def _epoch(report: TraceReport, write: Writer) -> str:
    words = write.words
    said = write.count(report.epoch)
    if report.epoch_opened_at is not None:
        closed = report.epoch_closed_at
        end = words["epoch_now"] if closed is None else text_of(closed[:10])
        start = text_of(report.epoch_opened_at[:10])
        said += ", " + words["epoch_times"].format(start=start, end=end)
    if report.untried_epochs:
        listed = ", ".join(write.count(number) for number in report.untried_epochs)
        said += ". " + words["epochs_untried"].format(listed=listed)
    return said


def _commitments(report: TraceReport, write: Writer) -> str:
    said = write.words[f"commitments_{report.commitments}"]
    recorded = (
        write.words["commitment_recorded"].format(
            name=name_of(commitment.recipient), at=write.moment(commitment.recorded_at)
        )
        for commitment in report.commitments_recorded
    )
    return write.series((said, *recorded))


def method(report: TraceReport, write: Writer) -> str:
    """Return how the e-values come about, and the bound on false accusation."""
    verdict, words = report.verdict, write.words
    values = {
        "recipients": write.count(verdict.recipients),
        "alpha": raised(write.probability(verdict.alpha)),
        "threshold": raised(write.power(verdict.threshold_log10)),
        "chance": raised(write.odds(-log10(verdict.alpha))),
    }
    spent = ""
    if report.case is not None:
        spent = "<p>" + words["alpha_spent"].format(
            look=write.count(report.case.look),
            whole=raised(write.probability(report.case.alpha)),
            part=values["alpha"],
        )
        spent += "</p>\n"
    return (
        f"<p>{words['method_marks']}</p>\n<p>{words['method_evidence']}</p>\n"
        f"{_FORMULA}<p>{words['method_average']}</p>\n"
        f'<p class="statement">{words["method_statement"].format(**values)}</p>\n'
        f"{spent}<p>{words['method_key']}</p>\n"
    )


_FORMULA = (
    '<p class="formula"><i>E<sub>j</sub></i> = <span class="product">∏<sub><i>i</i></sub></span> '
    '<span class="fraction"><span><i>f<sub>i</sub></i>(<i>X<sub>ji</sub></i>)</span>'
    '<span class="slash"> / </span>'
    "<span><i>p<sub>i</sub></i> <i>f<sub>i</sub></i>(1) + (1 − <i>p<sub>i</sub></i>) "
    "<i>f<sub>i</sub></i>(0)</span></span></p>\n"
)

_LIMITS = (
    "limit_person",
    "limit_account",
    "limit_copy",
    "limit_absence",
    "limit_frame",
    "limit_stored",
    "limit_independence",
    "limit_beforehand",
    "limit_source",
    "limit_repeat",
)


def limits(write: Writer) -> str:
    """Return what the report cannot prove."""
    items = "".join(f"<li>{write.words[name]}</li>\n" for name in _LIMITS)
    return f'<p>{write.words["limits_text"]}</p>\n<ul class="limits">{items}</ul>\n'


def signature(report: TraceReport, write: Writer) -> str:
    """Return who sealed the report and how to check it, or that nobody did."""
    words, signer = write.words, report.signer
    if signer is None:
        return f"<p>{words['unsigned']}</p>\n"
    authority = signer.timestamp_authority
    entries = (
        (words["public_key"], f"<code>{signer.public_key}</code>"),
        (words["signed_at"], write.moment(signer.signed_at)),
        (words["authority"], words["no_authority"] if authority is None else text_of(authority)),
    )
    return (
        f'<div class="signature"><p>{words["signed"]} {words["signed_check"]}</p>\n'
        "<p><code>pgbalise report verify FILE --public-key SIGNER.pub</code></p>\n"
        f"<p>{words['signed_paper']}</p>\n{facts(entries, 'meta')}</div>\n"
    )
