"""What a policy would do to the data: the distortion, measured by really marking a sample.

``distortion`` is pure; ``check`` reads the sample. Bounds, thresholds and skipped values are
compared with the values before and after by themselves, not with the marker's own rules, so that
a mistake in those rules shows here. Reading a sample needs pyarrow (extra ``arrow``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.table import Table
from rich.text import Text

from pgbalise.catalog import columns, relation_info, sample
from pgbalise.errors import EnvironmentProblem, InvalidPolicy
from pgbalise.fit import fit
from pgbalise.marking.cells import carrier_secret, select
from pgbalise.marking.codes import CODE_LENGTH
from pgbalise.marking.embedding import alternatives
from pgbalise.marking.keys import MASTER_KEY_BYTES, MasterKey
from pgbalise.marking.policy import Equivalents
from pgbalise.marking.types import Kind, decimals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pgbalise.marking.embedding import Bools, Column, Values
    from pgbalise.marking.policy import Carrier, Policy, Relation, Tolerance
    from pgbalise.session import Session


FEW: Final = 5
"""Of fewer cells no mean is told."""


@dataclass(frozen=True)
class Unmarkable:
    """Why selected cells stay as they are whatever their bit."""

    out_of_bounds: int = 0
    skipped: int = 0
    digits: int = 0
    """Written with more decimals than the policy's scale or fewer than the quantum's, or NaN."""
    cornered: int = 0
    """A threshold, bound or skipped value bars both directions."""
    not_listed: int = 0
    """Text that stands in no group of equivalents."""

    @property
    def total(self) -> int:
        """Cells unmarkable for any reason."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Distortion:
    """What marking does to one carrier, or to the cells of one ``by`` value of it.

    Means, deviations and shifts are in the column's own unit; in days for dates and in seconds
    for timestamps. They are None for text, and for fewer than FEW cells, whose mean would tell
    of a patient.
    """

    by: str | None
    cells: int
    """Cells that are not NULL."""
    selected: int
    changed: int
    unmarkable: Unmarkable
    """Among the selected cells."""
    mean_before: float | None
    mean_after: float | None
    mean_shift: float | None
    mean_shift_in_sd: float | None
    sd_before: float | None
    sd_after: float | None
    largest_move: float | None
    ks_distance: float
    """Kolmogorov-Smirnov distance between the values before and after, 0 to 1."""
    threshold_crossings: int
    """Moves that change how a value compares with a threshold; must be 0."""
    left_bounds: int
    """Moves out of the bounds, or of the group of equivalents; must be 0."""
    onto_skipped: int
    """Moves onto or away from a skipped value; must be 0."""

    @property
    def harmless(self) -> bool:
        """Whether no value crossed a threshold, left its bounds or touched a skipped value."""
        return not (self.threshold_crossings or self.left_bounds or self.onto_skipped)


@dataclass(frozen=True)
class CarrierCheck:
    """One carrier."""

    column: str
    nulls: int
    """Cells that are NULL, or an infinite date or timestamp."""
    uncountable: int
    """Numbers too large or with more decimals than the policy's scale, NaN; they stay."""
    without_tolerance: int
    """Cells whose ``by`` value has no tolerance in the policy; they stay as they are."""
    without_owner: int
    """Cells whose entity is NULL; they stay as they are."""
    parts: tuple[Distortion, ...]
    """By value of the ``by`` column, or one."""


@dataclass(frozen=True)
class RelationCheck:
    """One protected relation."""

    relation: str
    rows: int
    """Rows in the sample."""
    carriers: tuple[CarrierCheck, ...]


@dataclass(frozen=True)
class CheckReport:
    """What a policy would do."""

    relations: tuple[RelationCheck, ...]

    @property
    def harmless(self) -> bool:
        """Whether every move kept to thresholds, bounds and skipped values."""
        return all(
            part.harmless
            for relation in self.relations
            for carrier in relation.carriers
            for part in carrier.parts
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain dictionaries and lists, for JSON."""
        return {**asdict(self), "harmless": self.harmless}

    def table(self) -> Table:
        """Return the report as a table for a terminal, one line per carrier and ``by`` value."""
        out = Table(
            "carrier",
            "cells",
            "selected",
            "changed",
            "mean before",
            "shift",
            "in sd",
            "sd ratio",
            "KS",
            "unmarkable",
            "violations",
        )
        for relation in self.relations:
            for carrier in relation.carriers:
                for part in carrier.parts:
                    name = f"{relation.relation}.{carrier.column}"
                    out.add_row(
                        Text(name if part.by is None else f"{name} ({part.by})"),
                        str(part.cells),
                        _share(part.selected, part.cells),
                        _share(part.changed, part.cells),
                        _number(part.mean_before, ".5g"),
                        _number(part.mean_shift, "+.2g"),
                        _number(part.mean_shift_in_sd, "+.1e"),
                        _number(
                            part.sd_after / part.sd_before
                            if part.sd_after is not None and part.sd_before
                            else None,
                            ".5f",
                        ),
                        f"{part.ks_distance:.1e}",
                        _share(part.unmarkable.total, part.selected),
                        str(part.threshold_crossings + part.left_bounds + part.onto_skipped),
                    )
        return out


def _share(some: int, of: int) -> str:
    return f"{100 * some / of:.1f} %" if of else ""


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)


def distortion(
    carrier: Carrier,
    raw: Column,
    row: NDArray[np.int64],
    up: Bools,
    bit: NDArray[np.uint8],
) -> list[Distortion]:
    """Mark the cells ``row`` of a column and return what that does, by ``by`` value.

    ``row`` (int64, distinct) are the selected cells, ``up`` their signs and ``bit`` (uint8) the
    bits that they are to carry.
    """
    options = alternatives(carrier, raw.take(row), up)
    markable = np.zeros(len(raw.values), np.bool_)
    markable[row] = options.markable
    selected = np.zeros(len(raw.values), np.bool_)
    selected[row] = True
    after = raw.values.copy()
    after[row] = options.embedded(raw.values[row], bit)
    return [
        _part(
            carrier,
            value,
            tolerance,
            raw.take(np.flatnonzero(mine)),
            after[mine],
            selected[mine],
            markable[mine],
        )
        for at, (value, tolerance) in enumerate(carrier.tolerances.items())
        for mine in [raw.valid if raw.by is None else raw.valid & (raw.by == at)]
    ]


def _part(
    carrier: Carrier,
    by: str | None,
    tolerance: Tolerance | Equivalents,
    before: Column,
    after: Values,
    selected: Bools,
    markable: Bools,
) -> Distortion:
    old = before.values
    changed = ~_same(old, after)
    if isinstance(tolerance, Equivalents):
        groups = np.array(
            [at for at, group in enumerate(tolerance.groups) for _ in group], np.int64
        )
        left = changed & ((old < 0) | (groups[np.maximum(old, 0)] != groups[np.maximum(after, 0)]))
        return Distortion(
            by,
            len(old),
            int(selected.sum()),
            int(changed.sum()),
            Unmarkable(not_listed=int((selected & ~markable).sum())),
            *(None,) * 7,
            _ks_distance(old, after),
            0,
            int(left.sum()),
            0,
        )
    below, above = _beyond(carrier, old, tolerance.low, tolerance.high)
    below_after, above_after = _beyond(carrier, after, tolerance.low, tolerance.high)
    crossed = np.zeros(len(old), np.bool_)
    for threshold in tolerance.thresholds:
        crossed |= _side(carrier, old, threshold) != _side(carrier, after, threshold)
    special = np.zeros(len(old), np.bool_)
    special_after = np.zeros(len(old), np.bool_)
    for value in tolerance.skip:
        special |= _side(carrier, old, value) == 0
        special_after |= _side(carrier, after, value) == 0
    stuck = selected & ~markable
    outside = stuck & (below | above)
    skipped = stuck & special & ~outside
    digits = stuck & _odd_digits(carrier, tolerance, before) & ~outside & ~skipped
    x, y = _plain(carrier, old), _plain(carrier, after)
    finite = np.isfinite(x)
    x, y = x[finite], y[finite]
    told = len(x) >= FEW
    # the shift by itself: in the difference of two means, rounding would drown it
    shift = float(np.mean(y - x)) if told else None
    deviation = float(np.std(x)) if told else None
    return Distortion(
        by,
        len(old),
        int(selected.sum()),
        int(changed.sum()),
        Unmarkable(
            int(outside.sum()),
            int(skipped.sum()),
            int(digits.sum()),
            int((stuck & ~outside & ~skipped & ~digits).sum()),
        ),
        float(np.mean(x)) if told else None,
        float(np.mean(y)) if told else None,
        shift,
        shift / deviation if shift is not None and deviation else None,
        deviation,
        float(np.std(y)) if told else None,
        float(np.abs(y - x).max()) if told else None,
        _ks_distance(x, y),
        int(crossed.sum()),
        int((changed & (below_after | above_after | below | above)).sum()),
        int((changed & (special | special_after)).sum()),
    )


def _same(left: Values, right: Values) -> Bools:
    same: Bools = left == right
    if left.dtype.kind == "f":
        same |= np.isnan(left) & np.isnan(right)
    return same


def _side(carrier: Carrier, values: Values, mark: Decimal) -> NDArray[np.int8]:
    """-1, 0 or 1 as a value is below, at or above a number in the carrier's units."""
    if carrier.kind is Kind.FLOAT:
        # PostgreSQL compares with the constant rounded to the column's type
        least = most = values.dtype.type(float(mark))
    else:
        scaled = mark.scaleb(carrier.scale)
        least = int(scaled.to_integral_value("ROUND_CEILING"))
        most = int(scaled.to_integral_value("ROUND_FLOOR"))
    side: NDArray[np.int8] = (values > most).astype(np.int8) - (values < least).astype(np.int8)
    return side


def _beyond(carrier: Carrier, values: Values, low: Decimal, high: Decimal) -> tuple[Bools, Bools]:
    return _side(carrier, values, low) < 0, _side(carrier, values, high) > 0


def _odd_digits(carrier: Carrier, tolerance: Tolerance, column: Column) -> Bools:
    if carrier.kind is Kind.FLOAT:
        values = column.values
        finite = np.isfinite(values)
        if carrier.continuous:
            return ~finite
        safe = np.where(finite, values, 0).astype(np.float64)
        counted = np.rint(safe * 10.0**carrier.scale) / 10.0**carrier.scale
        odd: Bools = ~finite | (counted.astype(values.dtype) != values)
        return odd
    if column.scales is None:
        return np.zeros(len(column.values), np.bool_)
    fewer: Bools = column.scales < decimals(tolerance.quantum)
    more: Bools = column.scales > carrier.scale
    return fewer | more


def _plain(carrier: Carrier, values: Values) -> NDArray[np.float64]:
    """Values in the column's own unit: numbers, days, seconds."""
    wide = values.astype(np.float64)
    match carrier.kind:
        case Kind.TIMESTAMP:
            return wide / 1e6
        case Kind.NUMERIC:
            return wide / 10.0**carrier.scale
        case _:
            return wide


def _ks_distance(left: Values, right: Values) -> float:
    """Largest difference between the two empirical distribution functions (equal sizes)."""
    if not len(left):
        return 0.0
    points = np.unique(np.concatenate([left, right]))
    below_left = np.searchsorted(np.sort(left), points, "right")
    below_right = np.searchsorted(np.sort(right), points, "right")
    return float(np.abs(below_left - below_right).max() / len(left))


def check(
    session: Session,
    policy: Policy,
    key: MasterKey | None = None,
    sample_rows: int = 100_000,
    seed: int = 1,
) -> CheckReport:
    """Mark a sample of every relation for an imaginary recipient and return the distortion.

    Without ``key`` a master key is drawn from ``seed``, which suits as well: marks differ, their
    number and size do not. The recipient's bits are drawn from ``seed``. Raise InvalidPolicy when
    the policy does not fit the database, EnvironmentProblem without pyarrow.
    """
    fit(session, policy)
    random = np.random.default_rng(seed)
    master = key or MasterKey(random.bytes(MASTER_KEY_BYTES))
    word = random.integers(0, 2, CODE_LENGTH).astype(np.uint8)
    return CheckReport(
        tuple(
            _check_relation(session, policy, relation, master, word, sample_rows, seed)
            for relation in policy.relations
        )
    )


def _check_relation(
    session: Session,
    policy: Policy,
    relation: Relation,
    key: MasterKey,
    word: NDArray[np.uint8],
    sample_rows: int,
    seed: int,
) -> RelationCheck:
    frames, pa = _arrow()
    info = relation_info(session, relation.schema, relation.name)
    if info is None:
        raise InvalidPolicy(f"{relation.qualified}: there is no such relation")
    needed = {name for name, _ in relation.key}
    for carrier in relation.carriers:
        needed |= {carrier.column, *(name for name, _ in carrier.entity)}
        needed |= {carrier.by[0]} if carrier.by else set()
    chosen = [c for c in columns(session, relation.schema, relation.name) if c.name in needed]
    rows = sample(session, info, chosen, sample_rows, seed)
    by_column: Sequence[Sequence[str | None]] = list(zip(*rows, strict=True)) or [()] * len(chosen)
    table = pa.table(
        {c.name: pa.array(texts, pa.string()) for c, texts in zip(chosen, by_column, strict=True)}
    )
    checks = []
    for carrier in relation.carriers:
        parts, owned = frames.key_from_arrow(table, carrier.entity or relation.key)
        raw: Column = frames.column_from_arrow(table, carrier)
        cells = select(
            carrier_secret(key, policy, relation, carrier), carrier, policy.derivation, parts
        )
        mine = owned[cells.row] & raw.valid[cells.row]
        row, up = cells.row[mine], cells.up[mine]
        checks.append(
            CarrierCheck(
                carrier.column,
                table.column(carrier.column).null_count,
                int((~raw.valid).sum()) - table.column(carrier.column).null_count,
                0 if raw.by is None else int((raw.valid & (raw.by < 0)).sum()),
                int((raw.valid & ~owned).sum()),
                tuple(distortion(carrier, raw, row, up, word[cells.position[mine]])),
            )
        )
    return RelationCheck(relation.qualified, len(rows), tuple(checks))


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa

        from pgbalise import frames
    except ImportError:
        raise EnvironmentProblem(
            "measuring distortion needs pyarrow", hint="run: pip install 'pgbalise[arrow]'"
        ) from None
    return frames, pa


def problems(report: CheckReport) -> Mapping[str, int]:
    """Return what must not happen and did: carrier (and ``by`` value) to number of values."""
    found: dict[str, int] = {}
    for relation in report.relations:
        for carrier in relation.carriers:
            for part in carrier.parts:
                count = part.threshold_crossings + part.left_bounds + part.onto_skipped
                if count:
                    name = f"{relation.relation}.{carrier.column}"
                    found[name if part.by is None else f"{name} ({part.by})"] = count
    return found
