"""Which numbers of a relation no row has, read from the database; new ones from its sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from sqlglot import exp

from pgbalise.catalog import relation_info
from pgbalise.compile.cells import cast, column
from pgbalise.compile.views import table
from pgbalise.decoys.columns import Column, ColumnKind
from pgbalise.decoys.keys import (
    DAY,
    Ints,
    Numbering,
    learn_numbering,
    rising,
    safety_margin,
    stored_together,
)
from pgbalise.decoys.texts import read_column
from pgbalise.errors import DatabaseProblem
from pgbalise.frames import one_chunk
from pgbalise.marking.types import INTEGER_TOPS, SqlType

if TYPE_CHECKING:
    from pgbalise.issuing.sampling import Member, Reading
    from pgbalise.session import Session

_WHOLE: Final = 5_000_000
"""Of relations with more rows only windows of their keys are read."""

_WINDOWS: Final = 1_000
_WINDOW: Final = 2_000
"""So many, with so many rows each, evenly over the keys: enough holes for any recipient."""

_LEAST_FOLLOWING: Final = 0.8


@dataclass(frozen=True)
class Sequence:
    """The sequence that a column's numbers come from."""

    schema: str
    name: str
    last: int
    """The number it gave last, 0 before the first."""
    increment: int
    cache: int


@dataclass(frozen=True)
class Numbers:
    """The free numbers of a column."""

    numbering: Numbering
    time: str | None
    """The column whose times go with the numbers."""
    sequence: Sequence | None
    step: int
    offset: int
    """Numbers of the column are ``offset`` more than multiples of ``step``; ``numbering`` has these
    divided by it."""

    def as_stored(self, keys: Ints) -> Ints:
        """Return the column's values for the numbering's."""
        return keys * self.step + self.offset

    def as_numbered(self, values: Ints) -> Ints:
        """Return the numbering's numbers for the column's values."""
        return (values - self.offset) // self.step


_SEQUENCE: Final = """
SELECT n.nspname::text, s.relname::text, coalesce(q.last_value, 0), q.increment_by, q.cache_size
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS m ON m.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = $3::text
  LEFT JOIN pg_catalog.pg_attrdef AS f ON f.adrelid = c.oid AND f.adnum = a.attnum
  JOIN pg_catalog.pg_depend AS d
    ON d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = d.classid
       AND d.refobjid = c.oid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i')
    OR d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
       AND d.refclassid = 'pg_catalog.pg_class'::regclass
  JOIN pg_catalog.pg_class AS s
    ON s.relkind = 'S'
   AND s.oid = CASE d.classid WHEN 'pg_catalog.pg_class'::regclass THEN d.objid
                              ELSE d.refobjid END
  JOIN pg_catalog.pg_namespace AS n ON n.oid = s.relnamespace
  JOIN pg_catalog.pg_sequences AS q ON q.schemaname = n.nspname AND q.sequencename = s.relname
 WHERE m.nspname = $1::text AND c.relname = $2::text
 ORDER BY d.deptype LIMIT 1
"""


def sequence_of(session: Session, member: Member, name: str) -> Sequence | None:
    """Return the sequence of a column's default, or None when it has none."""
    rows = session.fetch(_SEQUENCE, member.relation.schema, member.relation.name, name)
    return Sequence(*rows[0]) if rows else None


def take_numbers(session: Session, sequence: Sequence, count: int) -> list[int]:
    """Take numbers from a sequence: no row will ever get them, unless from here."""
    return [
        number
        for (number,) in session.fetch(
            "SELECT nextval(format('%I.%I', $1::text, $2::text)::regclass)"
            " FROM generate_series(1, $3::bigint)",
            sequence.schema,
            sequence.name,
            count,
        )
    ]


def read_numbers(session: Session, member: Member, name: str, reading: Reading) -> Numbers:
    """Return the free numbers of a column; ``reading`` are real rows of its relation."""
    sequence = sequence_of(session, member, name)
    sampled = _integers(reading.texts[name])
    time = _time(reading, sampled)
    keys, moments, timed, windows = _read(session, member, name, time, sequence)
    step, offset = _grid(keys, sequence)
    keys = (keys - offset) // step
    given = ((sequence.last if sequence else int(keys.max(initial=0))) - offset) // step
    together = False
    if time is not None and len(reading.sample.parent_row):
        made = reading.sample.column(time)
        together = stored_together(
            (sampled - offset) // step, microseconds_of(made), reading.sample.parent_row
        )
    numbering = learn_numbering(
        keys,
        given - safety_margin(max(0, given), sequence.cache if sequence else 1),
        times=moments if time is not None else None,
        timed=timed,
        windows=windows,
        together=together,
    )
    return Numbers(numbering, time, sequence, step, offset)


def microseconds_of(made: Column) -> Ints:
    """Return a date's or timestamp's values as microseconds since 1970-01-01."""
    factor = DAY if made.kind is ColumnKind.DATE else 1
    return made.values.astype(np.int64) * factor


def _time(reading: Reading, keys: Ints) -> str | None:
    """The date or timestamp that follows the keys best, if any does."""
    best, found = _LEAST_FOLLOWING, None
    for made in reading.sample.columns:
        if made.kind in (ColumnKind.DATE, ColumnKind.TIMESTAMP) and made.valid.sum() > 20:
            how = rising(made.values[made.valid].astype(np.int64), keys[made.valid])
            if how >= best and how > -1:
                best, found = how, made.name
    return found


def _integers(texts: pa.Array) -> Ints:
    return np.asarray(texts.cast(pa.int64()).fill_null(0), np.int64)


def _read(
    session: Session, member: Member, name: str, time: str | None, sequence: Sequence | None
) -> tuple[Ints, Ints, np.ndarray[tuple[int], np.dtype[np.bool_]], Ints | None]:
    """Keys, times, which of these are there, and, if not all rows were read, of which window."""
    relation = member.relation
    info = relation_info(session, relation.schema, relation.name)
    names = [name, *([time] if time else [])]
    source = table(relation.name, relation.schema, "t")
    outputs = [cast(column(part, "t"), "text") for part in names]
    known = exp.Not(this=exp.Is(this=column(name, "t"), expression=exp.null()))
    whole = info is None or info.rows <= _WHOLE
    query = exp.select(*outputs).from_(source).where(known)
    if not whole:
        query = _windows(session, member, name, outputs, sequence)
        names = [*names, "window"]
    rows = session.read(query.sql(dialect="postgres", normalize_functions=False), names)
    keys = _integers(one_chunk(rows.column(name)))
    moments, timed = np.zeros(len(keys), np.int64), np.ones(len(keys), np.bool_)
    if time:
        declared = member.declared(time)
        made, _ = read_column(time, member.kinds[time], declared, one_chunk(rows.column(time)))
        moments, timed = microseconds_of(made), made.valid
    windows = None if whole else _integers(one_chunk(rows.column("window")))
    return keys, moments, timed, windows


def _windows(
    session: Session,
    member: Member,
    name: str,
    outputs: list[exp.Expr],
    sequence: Sequence | None,
) -> exp.Select:
    """Rows from evenly spread keys on, some of each: by the key's index, whatever the size."""
    relation = member.relation
    ends = exp.select(
        exp.Min(this=column(name, "t")).as_("low"), exp.Max(this=column(name, "t")).as_("high")
    ).from_(table(relation.name, relation.schema, "t"))
    [(low, high)] = session.fetch(ends.sql(dialect="postgres"))
    high = min(high, sequence.last) if sequence else high
    begins = np.unique(np.linspace(low, high, _WINDOWS, endpoint=False).astype(np.int64))
    listed = exp.Array(expressions=[exp.Literal.number(int(at)) for at in begins])
    starts = exp.Unnest(
        expressions=[cast(listed, "bigint[]")],
        alias=exp.TableAlias(this=exp.to_identifier("w"), columns=[exp.to_identifier("begin")]),
    )
    # up to the next window's beginning: no row is read twice
    inner = (
        exp.select(*(exp.column(part.this.this.this, "t") for part in outputs))
        .from_(table(relation.name, relation.schema, "t"))
        .where(exp.GTE(this=column(name, "t"), expression=column("begin", "w")))
        .where(
            exp.LT(
                this=column(name, "t"),
                expression=exp.Add(
                    this=column("begin", "w"),
                    expression=exp.Literal.number(max(1, int((high - low) // _WINDOWS))),
                ),
            )
        )
        .order_by(column(name, "t"))
        .limit(_WINDOW)
    )
    return (
        exp.select(*outputs, cast(column("begin", "w"), "text"))
        .from_(starts)
        .join(
            exp.Lateral(this=inner.subquery(), alias=exp.TableAlias(this=exp.to_identifier("t"))),
            join_type="cross",
        )
    )


def _grid(keys: Ints, sequence: Sequence | None) -> tuple[int, int]:
    """The step between numbers and what they begin with, where the sequence counts in steps."""
    step = abs(sequence.increment) if sequence else 1
    if step <= 1 or not len(keys):
        return 1, 0
    rest = keys % step
    offset = int(np.bincount(rest).argmax())
    # else an application numbers within the steps by itself
    return (step, offset) if np.mean(rest == offset) >= 0.99 else (1, 0)


def fresh_numbers(
    session: Session, member: Member, name: str, numbers: Numbers, count: int
) -> Ints:
    """Take new numbers from a column's sequence.

    Raise DatabaseProblem when it has none, or when the column cannot hold what the sequence gives.
    """
    if numbers.sequence is None:
        raise DatabaseProblem(
            f"{member.relation.qualified}: too few numbers of column {name} are free, and it has no"
            " sequence to take others from",
            hint="issue fewer decoys for each recipient, or give the column a sequence",
        )
    taken = np.asarray(take_numbers(session, numbers.sequence, count), np.int64)
    declared: SqlType = member.declared(name)
    if len(taken) and taken.max() > INTEGER_TOPS[declared.name]:
        raise DatabaseProblem(f"{member.relation.qualified}: the sequence of {name} is at its end")
    return numbers.as_numbered(taken)
