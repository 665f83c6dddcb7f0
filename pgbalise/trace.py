"""Whose copy is it? From leaked tables and the stored rows to a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pgbalise.align import Alignment, InMemory, LeakedTable, Piece, Source, StoredTable, spread
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.errors import InvalidInput, InvalidLeak
from pgbalise.frames import column_from_arrow, key_from_arrow, one_chunk
from pgbalise.marking.cells import carrier_secret
from pgbalise.marking.codes import bias, codewords, dither
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import Policy, Relation
from pgbalise.marking.types import SqlType
from pgbalise.tracing.alignment import CarrierCells, CarrierEvidence
from pgbalise.tracing.decision import Verdict, decide, threshold_log10
from pgbalise.tracing.decoding import Way, decode
from pgbalise.tracing.decoys import DecoySearch, FoundDecoy, decoy_e_values
from pgbalise.tracing.mapping import LeakSample, Shortlist, map_sample
from pgbalise.tracing.reading import seen_units
from pgbalise.tracing.scoring import Evidence
from pgbalise.wordstream import stream_words

Progress = Callable[[str], None]
"""Is told each step before it is taken."""


def silent(_step: str) -> None:
    """Tell nobody about progress."""


_HEAD_ROWS = 5_000
"""Rows of a leaked table that its columns are recognised by."""

_ALONE = range(2, 9)
"""Numbers of leaked tables of which each is also looked at alone: more would cost too much."""

_Way = tuple[int, str]
"""A policy (its id), and the leaked table looked at, "" for all of them."""

_Cells = dict[tuple[str, str], tuple[Relation, CarrierCells]]
"""By relation and carrier, what was gathered."""

_WORTH_TRYING = 0.25
"""A relation that a table has less in common with, compared with the best, is passed over."""


_NAMES_SHOWN = 20


@dataclass(frozen=True)
class Marking:
    """How rows of one relation may have been marked: by one policy of one epoch."""

    policy: Policy
    relation: Relation
    key: MasterKey
    stored: pa.Table | Source
    """The relation's rows, columns of text; carriers that it no longer has are passed over."""
    recipients: Sequence[str]
    """All who were ever enrolled in that epoch."""

    @cached_property
    def source(self) -> Source:
        """The relation's rows, with what was learnt about them."""
        if not isinstance(self.stored, pa.Table):
            return self.stored
        declared = dict(self.relation.key)
        for carrier in self.relation.carriers:
            declared |= {carrier.column: carrier.type, **dict(carrier.entity)}
            declared |= dict([carrier.by]) if carrier.by else {}
        text, names = SqlType("text"), self.stored.column_names
        return StoredTable(self.stored, {name: declared.get(name, text) for name in names})


@dataclass(frozen=True)
class Trace:
    """A verdict and what it rests on."""

    verdict: Verdict
    marking: Marking
    """One of the policy and epoch under which the evidence against the strongest is strongest."""
    alignments: tuple[Alignment, ...]
    """Each leaked table beside each relation that it has columns of."""
    ignored: tuple[str, ...]
    """Leaked tables that have no column of any relation."""
    carriers: tuple[tuple[Relation, CarrierEvidence], ...]
    agreeing: tuple[int, ...]
    """For each carrier, how many cells agree with the strongest recipient's codeword."""
    rounds: tuple[tuple[str, ...], ...]
    """Who was named in each round of decoding."""
    decoys: tuple[FoundDecoy, ...] = ()
    """The decoys that the leak holds."""


def trace(
    leak: pa.Table | Sequence[LeakedTable],
    markings: Sequence[Marking],
    *,
    alpha: float,
    decoys: Sequence[IssuedDecoy] = (),
    given: Mapping[str, str | None] | None = None,
    progress: Progress = silent,
    workers: int = 1,
) -> Trace:
    """Trace a leak, however its rows may have been marked.

    ``leak``: tables as `pgbalise.leaks` reads them, or one Arrow table with columns of text. All
    of it is one piece of evidence: what several tables say about one codeword position is taken
    together. ``decoys`` are all that were ever issued: those that the leak holds are evidence,
    whatever table they are in. ``given`` says by leaked column what stored column it is, None for
    none; the others are found by name and content. ``workers``: processes that make codewords when
    there are very many recipients.

    A recipient's e-value is the mean of those under each policy of each epoch (0 where it was not
    enrolled), for all tables together and, if they are few, for each alone. That is an e-value
    again: not knowing the epoch, or who leaked what, costs at most log10 of their number. Raise
    InvalidLeak when the leak has no carrier of any relation and no decoy.
    """
    if not any(marking.recipients for marking in markings):
        raise InvalidInput("nobody is enrolled, so nobody can be accused")
    threshold_log10(1, alpha)
    tables = [InMemory(leak)] if isinstance(leak, pa.Table) else list(leak)
    search = DecoySearch(decoys)
    if decoys:
        progress("looking for decoys")
        for batch in chain.from_iterable(table.batches() for table in tables):
            search.look(pa.Table.from_batches([batch]))
    needed = not search.found()
    alignments, ignored = matched(tables, markings, given or {}, progress, needed=needed)
    # of files that different people leaked, each one says more alone than all of them together
    alone = len({alignment.table.name for alignment, _ in alignments}) in _ALONE
    cells: dict[_Way, _Cells] = {}
    for alignment, mine in alignments:
        for piece in alignment.pieces(progress):
            for marking in mine:
                _compare(piece, alignment, marking, cells.setdefault((id(marking.policy), ""), {}))
                if alone:
                    way = (id(marking.policy), alignment.table.name)
                    _compare(piece, alignment, marking, cells.setdefault(way, {}))
    progress("weighing the evidence")
    found = {
        way: [(relation, one.evidence()) for relation, one in parts.values()]
        for way, parts in cells.items()
    }
    return _judged(
        [marking for marking in markings if marking.recipients],
        found,
        tuple(alignment for alignment, _ in alignments),
        ignored,
        search,
        alpha,
        progress,
        workers,
    )


@dataclass
class _Stored:
    """A relation's stored rows and every way in which they may have been marked."""

    relation: Relation
    """With the carriers of all of these ways."""
    source: Source
    markings: list[Marking] = field(default_factory=list)


def _by_relation(markings: Sequence[Marking]) -> list[_Stored]:
    found: dict[tuple[object, ...], _Stored] = {}
    for marking in markings:
        relation = marking.relation
        place = (id(marking.stored), relation.schema, relation.name, relation.key)
        one = found.get(place)
        if one is None:
            one = found[place] = _Stored(relation, marking.source)
        have = {carrier.column for carrier in one.relation.carriers}
        more = tuple(c for c in relation.carriers if c.column not in have)
        one.relation = replace(one.relation, carriers=one.relation.carriers + more)
        one.markings.append(marking)
    return list(found.values())


def matched(
    tables: Sequence[LeakedTable],
    markings: Sequence[Marking],
    given: Mapping[str, str | None],
    progress: Progress,
    *,
    needed: bool = True,
) -> tuple[list[tuple[Alignment, list[Marking]]], tuple[str, ...]]:
    """Find out which relations and columns leaked tables are of.

    Returns each leaked table beside each relation that it has carriers of, with the markings of
    that relation, and the names of tables that have none. Raise InvalidLeak when all are such,
    unless nothing is ``needed``.
    """
    relations = _by_relation(markings)
    _check_given(given, tables, relations)
    shortlist = Shortlist([one.source.columns for one in relations])
    found: list[tuple[Alignment, list[Marking]]] = []
    ignored = []
    for table in tables:
        progress(f"finding the columns of {table.name}")
        mine = _related(table, relations, shortlist, given)
        found += mine
        if not mine:
            ignored.append(table.name)
    if not found and needed:
        names = ", ".join(dict.fromkeys(one.relation.qualified for one in relations))
        raise InvalidLeak(
            f"the leak has none of the carriers of {names}",
            hint="is it of another relation? --column says which column is which",
        )
    return found, tuple(ignored)


def _check_given(
    given: Mapping[str, str | None], tables: Sequence[LeakedTable], relations: Sequence[_Stored]
) -> None:
    """Raise InvalidInput for a column that no table, or no relation, has."""
    have = dict.fromkeys(name for table in tables for name in table.columns)
    stored = dict.fromkeys(name for one in relations for name in one.source.types)
    for name, column in given.items():
        if name not in have:
            raise InvalidInput(f"the leak has no column {name}", hint=f"it has {_some(have)}")
        if column is not None and column not in stored:
            raise InvalidInput(f"no relation has a column {column}", hint=f"try {_some(stored)}")


def _some(names: Collection[str]) -> str:
    shown = [*names][:_NAMES_SHOWN]
    return ", ".join(shown) + (" and others" if len(names) > len(shown) else "")


def _related(
    table: LeakedTable,
    relations: Sequence[_Stored],
    shortlist: Shortlist,
    given: Mapping[str, str | None],
) -> list[tuple[Alignment, list[Marking]]]:
    """Return a leaked table beside each relation that it has carriers of."""
    head = next((batch for batch in table.batches() if batch.num_rows), None)
    if head is None:
        return []
    sample = LeakSample(spread(pa.Table.from_batches([head]), _HEAD_ROWS), table.named)
    here = {name: column for name, column in given.items() if name in table.columns}
    worth = set(shortlist.of(sample))
    mine = []
    for number, one in enumerate(relations):
        has = one.source.types
        if number in worth or any(column in has for column in here.values() if column):
            # what is a column of another relation is none of this one
            told = {name: column if column in has else None for name, column in here.items()}
            mine.append((map_sample(sample, one.source.columns, told), one))
    mine.sort(key=lambda each: -each[0].score)
    taken: dict[str, str] = {}
    found = []
    for mapping, one in mine:
        name = one.relation.qualified
        carriers = {carrier.column for carrier in one.relation.carriers}
        free = {
            m.leak_column
            for m in mapping.columns
            if m.column in carriers and taken.get(m.leak_column, name) == name
        }
        if not free or mapping.score < _WORTH_TRYING * mine[0][0].score:
            continue
        columns = tuple(
            replace(m, column=None) if m.column in carriers and m.leak_column not in free else m
            for m in mapping.columns
        )
        taken |= dict.fromkeys(free, name)
        untaken = replace(mapping, columns=columns)
        found.append((Alignment(table, untaken, one.relation, one.source), one.markings))
    return found


def _compare(
    piece: Piece,
    alignment: Alignment,
    marking: Marking,
    cells: _Cells,
) -> None:
    """Add what the rows of a piece say about each carrier."""
    formats = {m.column: (m.leak_column, m.format) for m in alignment.mapping.columns}
    there = set(piece.stored.column_names)
    policy, relation = marking.policy, marking.relation
    for carrier in relation.carriers:
        needed = {carrier.column, *(n for n, _ in carrier.entity)}
        needed |= {carrier.by[0]} if carrier.by else set()
        if carrier.column not in formats or not needed <= there:
            continue
        place = (relation.qualified, carrier.column)
        if place not in cells:
            secret = carrier_secret(marking.key, policy, relation, carrier)
            dithers = dither(marking.key, policy.epoch)
            collected = CarrierCells(carrier, policy.derivation, secret, dithers)
            cells[place] = relation, collected
        name, written = formats[carrier.column]
        parts, known = key_from_arrow(piece.stored, carrier.entity or relation.key)
        seen, read, extra = seen_units(one_chunk(piece.leaked.column(name)), carrier, written)
        cells[place][1].add(
            parts,
            known,
            column_from_arrow(piece.stored, carrier),
            seen,
            read,
            extra,
            probability=piece.probability,
            stratum=piece.stratum,
        )


def _judged(
    markings: Sequence[Marking],
    found: Mapping[_Way, Sequence[tuple[Relation, CarrierEvidence]]],
    alignments: tuple[Alignment, ...],
    ignored: tuple[str, ...],
    search: DecoySearch,
    alpha: float,
    progress: Progress,
    workers: int,
) -> Trace:
    everyone = sorted({name for marking in markings for name in marking.recipients})
    at = {name: row for row, name in enumerate(everyone)}
    progress(f"scoring {len(everyone):,} recipients")
    ways, chosen = [], []
    for marking in {id(marking.policy): marking for marking in markings}.values():
        policy = id(marking.policy)
        thresholds = bias(marking.key, marking.policy.epoch)
        enrolled = sorted(
            {name for m in markings if id(m.policy) == policy for name in m.recipients}
        )
        members = np.array([at[name] for name in enrolled], np.int64)
        words = stream_words(marking.key, enrolled, marking.policy.epoch, thresholds, workers)
        alone = [way for way in found if way[0] == policy and way[1]]
        for place in [(policy, ""), *alone]:
            parts = found.get(place, [])
            evidence = Evidence.concatenate(part.evidence for _, part in parts)
            ways.append(Way(evidence, thresholds, members, words))
            chosen.append(marking)
    decoys = search.found()
    decoded = decode(
        ways,
        len(everyone),
        threshold_log10=threshold_log10(len(everyone), alpha),
        beside_log10=decoy_e_values(decoys, search.decoys, everyone),
    )
    strongest = int(decoded.log10_e_value.argmax())
    way = int(decoded.best[strongest])
    winner = chosen[way]
    parts = found.get((id(winner.policy), ""), [])
    read: dict[str, int] = {}
    aligned: dict[str, int] = {}
    for one in alignments:
        read[one.table.name] = max(read.get(one.table.name, 0), one.read)
        aligned[one.table.name] = max(aligned.get(one.table.name, 0), one.aligned)
    per_recipient = Counter(one.decoy.recipient for one in decoys)
    verdict = decide(
        everyone,
        decoded.log10_e_value,
        decoded.agreeing,
        np.array([per_recipient[name] for name in everyone], np.int64),
        alpha=alpha,
        rows_read=sum(read.values()) or search.rows,
        rows_aligned=sum(aligned.values()),
        cells_marked=sum(part.marked for _, part in parts),
        cells_used=sum(len(part.evidence) for _, part in parts),
    )
    [word] = codewords(winner.key, [everyone[strongest]], winner.policy.epoch, ways[way].bias)
    bits = np.unpackbits(word, bitorder="little")
    return Trace(
        verdict,
        winner,
        alignments,
        ignored,
        tuple(parts),
        tuple(_agreeing(part.evidence, bits) for _, part in parts),
        tuple(tuple(everyone[n] for n in names) for names in decoded.rounds),
        decoys,
    )


def _agreeing(evidence: Evidence, bits: NDArray[np.uint8]) -> int:
    likelier = evidence.log_likelihood1 > evidence.log_likelihood0
    return int(np.count_nonzero(likelier == (bits[evidence.position] == 1)))
