"""Whose copy is it? From a leak and the stored rows to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pgbalise.errors import InvalidInput, InvalidLeak, PgbaliseError
from pgbalise.frames import column_from_arrow, key_from_arrow, one_chunk
from pgbalise.marking.cells import carrier_secret
from pgbalise.marking.codes import bias, codewords, dither
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import Carrier, Policy, Relation
from pgbalise.marking.types import INTEGER_TOPS, Kind, SqlType
from pgbalise.tracing.alignment import CarrierEvidence, carrier_evidence
from pgbalise.tracing.decision import Verdict, decide, threshold_log10
from pgbalise.tracing.decoding import Way, decode
from pgbalise.tracing.scoring import Evidence
from pgbalise.wordstream import stream_words

Progress = Callable[[str], None]
"""Is told each step before it is taken."""


def silent(_step: str) -> None:
    """Tell nobody about progress."""


@dataclass(frozen=True)
class Marking:
    """How the leak may have been marked: by one policy of one epoch."""

    policy: Policy
    relation: Relation
    key: MasterKey
    stored: pa.Table
    """The relation's rows, columns of text; rows that the leak does not mention are passed over,
    and so are carriers that the table no longer has the columns for."""
    recipients: Sequence[str]
    """All who were ever enrolled in that epoch."""


@dataclass(frozen=True)
class Trace:
    """A verdict and what it rests on."""

    verdict: Verdict
    marking: Marking
    """The one under which the evidence against the strongest recipient is strongest."""
    columns: dict[str, str]
    """What each column of the leak was taken for: a column of the relation, or "" for none."""
    carriers: tuple[CarrierEvidence, ...]
    agreeing: tuple[int, ...]
    """For each carrier, how many cells agree with the strongest recipient's codeword."""


def leak_columns(leak: pa.Table, relation: Relation) -> dict[str, str]:
    """Match a leak's columns to the relation's by name, whatever their case.

    Raise InvalidLeak when the key is not there or no carrier is.
    """
    wanted = [name for name, _ in relation.key] + [c.column for c in relation.carriers]
    folded = {name.lower(): name for name in wanted}
    found = {name: folded.get(name.strip().lower(), "") for name in leak.column_names}
    for name, _ in relation.key:
        if name not in found.values():
            raise InvalidLeak(
                f"the leak has no column {name}, the key of {relation.qualified}",
                hint="is it of another relation?",
            )
    if not any(c.column in found.values() for c in relation.carriers):
        raise InvalidLeak(
            f"the leak has none of the carriers of {relation.qualified}",
            hint="is it of another relation?",
        )
    return found


def key_text(table: pa.Table, names: Sequence[str], key: Sequence[tuple[str, SqlType]]) -> pa.Table:
    """Return the key columns as PostgreSQL prints them; NULL where a text is no such value."""
    return pa.table(
        {
            column: _canonical(one_chunk(table.column(name)), declared)
            for name, (column, declared) in zip(names, key, strict=True)
        }
    )


def _canonical(array: pa.Array, declared: SqlType) -> pa.Array:
    text = pc.utf8_trim_whitespace(pc.cast(array, pa.string()))
    match declared.name:
        case "smallint" | "integer" | "bigint":
            # a spreadsheet or a data frame may have written 17 as 17.0
            whole = pc.replace_substring_regex(text, r"\.0*$", "")
            plain = pc.match_substring_regex(whole, r"^[+-]?[0-9]{1,18}$")
            number = pc.cast(pc.if_else(plain, whole, None), pa.int64())
            top = INTEGER_TOPS[declared.name]
            fits = pc.and_(pc.greater_equal(number, -top - 1), pc.less_equal(number, top))
            return pc.cast(pc.if_else(fits, number, None), pa.string())
        case "uuid":
            plain = pc.match_substring_regex(text, _UUID)
            return pc.if_else(plain, pc.utf8_lower(text), None)
        case "date":
            return pc.cast(_dates(text), pa.string())
        case "timestamp without time zone" | "timestamp with time zone":
            stamps, read = _timestamps(text)
            shown = pc.cast(pa.array(stamps, pa.timestamp("us")), pa.string())
            return pc.if_else(pa.array(read), shown, None)
        case "character":
            return pc.utf8_rtrim(pc.cast(array, pa.string()), " ")
        case _:
            return pc.cast(array, pa.string())


@dataclass(frozen=True)
class _Scored:
    """What the leak says if it was marked in one way."""

    marking: Marking
    columns: dict[str, str]
    rows_aligned: int
    parts: tuple[CarrierEvidence, ...]
    evidence: Evidence
    thresholds: NDArray[np.uint16]


def trace(
    leak: pa.Table,
    markings: Sequence[Marking],
    *,
    alpha: float,
    progress: Progress = silent,
    workers: int = 1,
) -> Trace:
    """Trace a leak (columns of text) that still holds the key, however it may have been marked.

    A recipient's e-value is the mean of those under each marking (0 where it was not enrolled),
    which is an e-value again: not knowing the epoch costs at most log10(len(markings)).
    ``workers``: processes that make codewords when there are very many recipients. Raise
    InvalidLeak when no row of the leak can be found in the relation.
    """
    scored: list[_Scored] = []
    problem: PgbaliseError = InvalidInput("nobody is enrolled, so nobody can be accused")
    for marking in markings:
        try:
            if marking.recipients:
                scored.append(_scored(leak, marking, progress))
        except InvalidLeak as unfit:
            problem = problem if isinstance(problem, InvalidLeak) else unfit
    if not scored:
        raise problem
    everyone = sorted({name for one in scored for name in one.marking.recipients})
    at = {name: row for row, name in enumerate(everyone)}
    progress(f"scoring {len(everyone):,} recipients")
    decoded = decode(
        [_way(one, at, workers) for one in scored],
        len(everyone),
        threshold_log10=threshold_log10(len(everyone), alpha),
    )
    best = decoded.best
    first = scored[best[int(decoded.log10_e_value.argmax())]]
    verdict = decide(
        everyone,
        decoded.log10_e_value,
        decoded.agreeing,
        alpha=alpha,
        rows_read=leak.num_rows,
        rows_aligned=first.rows_aligned,
        cells_marked=sum(part.marked for part in first.parts),
        cells_used=len(first.evidence),
    )
    strongest = verdict.verdicts[0].recipient
    winner = scored[best[at[strongest]]]
    epoch = winner.marking.policy.epoch
    [word] = codewords(winner.marking.key, [strongest], epoch, winner.thresholds)
    bits = np.unpackbits(word, bitorder="little")
    return Trace(
        verdict,
        winner.marking,
        winner.columns,
        winner.parts,
        tuple(_agreeing(part.evidence, bits) for part in winner.parts),
    )


def _scored(leak: pa.Table, marking: Marking, progress: Progress) -> _Scored:
    policy, key, stored = marking.policy, marking.key, marking.stored
    relation = _still_there(marking.relation, stored)
    progress("aligning rows")
    columns = leak_columns(leak, relation)
    name_in_leak = {column: name for name, column in columns.items() if column}
    key_names = [name for name, _ in relation.key]
    rows, at = _align(
        key_text(leak, [name_in_leak[name] for name in key_names], relation.key),
        key_text(stored, key_names, relation.key),
    )
    if not len(rows):
        raise InvalidLeak(
            f"none of the leak's keys is in {relation.qualified}",
            hint="is it of another relation or database?",
        )
    aligned = stored.take(pa.array(at))
    found = leak.take(pa.array(rows))
    dithers = dither(key, policy.epoch)
    parts = []
    for carrier in relation.carriers:
        if carrier.column not in name_in_leak:
            continue
        progress(f"comparing {carrier.column}")
        key_parts, known = key_from_arrow(aligned, carrier.entity or relation.key)
        seen, read, extra = seen_units(
            one_chunk(found.column(name_in_leak[carrier.column])), carrier
        )
        parts.append(
            carrier_evidence(
                carrier,
                policy.derivation,
                carrier_secret(key, policy, relation, carrier),
                dithers,
                key_parts,
                known,
                column_from_arrow(aligned, carrier),
                seen,
                read,
                extra,
            )
        )
    evidence = Evidence.concatenate(part.evidence for part in parts)
    return _Scored(marking, columns, len(rows), tuple(parts), evidence, bias(key, policy.epoch))


def _way(one: _Scored, at: dict[str, int], workers: int) -> Way:
    marking = one.marking
    names = marking.recipients
    return Way(
        one.evidence,
        one.thresholds,
        np.array([at[name] for name in names], np.int64),
        stream_words(marking.key, names, marking.policy.epoch, one.thresholds, workers),
    )


def _still_there(relation: Relation, stored: pa.Table) -> Relation:
    """Leave out the carriers whose columns the table lost since."""
    there = set(stored.column_names)
    carriers = tuple(
        c
        for c in relation.carriers
        if {c.column, *(n for n, _ in c.entity), *((c.by[0],) if c.by else ())} <= there
    )
    return replace(relation, carriers=carriers)


def _agreeing(evidence: Evidence, bits: NDArray[np.uint8]) -> int:
    likelier = evidence.log_likelihood1 > evidence.log_likelihood0
    return int(np.count_nonzero(likelier == (bits[evidence.position] == 1)))


def _align(leak: pa.Table, stored: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the leak whose key is stored, and where each one's is."""
    mine, theirs = (_joined(table) for table in (leak, stored))
    index = pc.index_in(mine, value_set=theirs, skip_nulls=True)
    rows = np.flatnonzero(np.asarray(index.is_valid()))
    return rows, np.asarray(index.take(pa.array(rows))).astype(np.int64)


def _joined(table: pa.Table) -> pa.Array:
    columns = [one_chunk(column) for column in table.columns]
    if len(columns) == 1:
        return columns[0]
    return pc.binary_join_element_wise(*columns, "\x1f", null_handling="emit_null")


_NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"


def seen_units(
    array: pa.Array, carrier: Carrier
) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
    """Read a leaked column: units, where one could be read, and the decimals beyond the scale."""
    text = pc.utf8_trim_whitespace(pc.cast(array, pa.string()))
    match carrier.kind:
        case Kind.CATEGORICAL:
            codes = column_from_arrow(
                pa.table({carrier.column: pc.cast(array, pa.string())}), replace(carrier, by=None)
            ).values
            return codes, np.asarray(array.is_valid()), 0
        case Kind.DATE:
            days = _dates(text).view(pa.int32())
            return _filled(days), np.asarray(days.is_valid()), 0
        case Kind.TIMESTAMP:
            stamps, read = _timestamps(text)
            return stamps, read, 0
        case _:
            shown = pc.if_else(pc.match_substring_regex(text, _NUMBER), text, None)
            numbers = np.asarray(pc.fill_null(pc.cast(shown, pa.float64()), np.nan))
            extra = 0 if carrier.kind is Kind.INTEGER else 3
            if np.any(np.rint(np.nan_to_num(numbers)) != np.nan_to_num(numbers)):
                extra = 3
            power = 10.0 ** (carrier.scale + extra)
            read = np.abs(numbers) < 10.0**17 / power
            return np.rint(np.where(read, numbers, 0.0) * power).astype(np.int64), read, extra


_UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


def _dates(text: pa.Array) -> pa.Array:
    """Dates of ISO texts, a time after them ignored; NULL for days that do not exist."""
    iso = pc.match_substring_regex(text, r"^\d{4}-\d\d-\d\d([ T].*)?$")
    shown = pc.if_else(iso, pc.utf8_slice_codeunits(text, 0, 10), None)
    parsed = pc.strptime(shown, format="%Y-%m-%d", unit="s", error_is_null=True)
    days = pc.cast(parsed, pa.date32())
    # strptime takes the 30th of February for the 2nd of March
    return pc.if_else(pc.equal(pc.cast(days, pa.string()), shown), days, None)


def _filled(array: pa.Array) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(array, 0)).astype(np.int64)


def _timestamps(text: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Microseconds since 1970 UTC of ISO texts, with or without a zone's offset."""
    body = r"^\d{4}-\d\d-\d\d[ T][0-2]\d:\d\d(:\d\d(\.\d{1,6})?)?"
    out = np.zeros(len(text), np.int64)
    read = np.zeros(len(text), np.bool_)
    for pattern, zone in ((body + "$", None), (body + r"(Z|[+-]\d\d(:?\d\d)?)$", "UTC")):
        mine = pc.match_substring_regex(text, pattern)
        try:
            stamps = pc.cast(pc.if_else(mine, text, None), pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            # a day or an hour that does not exist: read one by one, and leave those out
            stamps = _one_by_one(pc.if_else(mine, text, None), zone)
        ok = np.asarray(stamps.is_valid())
        out = np.where(ok, _filled(stamps.view(pa.int64())), out)
        read |= ok
    return out, read


def _one_by_one(text: pa.Array, zone: str | None) -> pa.Array:
    def stamp(value: pa.Scalar) -> object:
        try:
            return value.cast(pa.timestamp("us", zone)).as_py()
        except pa.ArrowInvalid:
            return None

    return pa.array([stamp(value) for value in text], pa.timestamp("us", zone))
