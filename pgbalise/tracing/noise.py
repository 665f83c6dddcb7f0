"""What the thief did to the values, estimated from the leak without any recipient.

P(w | v), the probability that a cell which held v shows w, is a mixture over what may have happened
to it: nothing, rounding to a grid in one of four ways, a constant offset, additive noise
(possibly rounded afterwards), rounding in another unit, or replacement by another value of the
column or by anything. The shares are fitted by expectation-maximisation on the aligned cells,
each weighed by the probability that its row is aligned rightly: in unselected cells v is known, in
selected ones it is one of two values with probability 1/2 each. Where the caller tells more
reliable rows from less reliable ones (strata), the shares are fitted for each kind, drawn towards
those of all. No codeword enters, so whatever is estimated here can weaken a trace but
not accuse an innocent (see `pgbalise.tracing.scoring`).

Only the shares are fitted; the components are fixed beforehand from the grids that the caller
offers and from quantiles of the differences. The log-likelihood is then concave in the shares, so
the fit has one optimum, needs no random start, and is deterministic (Dempster, Laird and Rubin,
"Maximum likelihood from incomplete data via the EM algorithm", J. R. Stat. Soc. B 39(1), 1977).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pgbalise.errors import InvalidInput
from pgbalise.tracing.attacks import MAGNITUDE_LIMIT, ROUNDING_MODES, RoundingMode, round_to_grid
from pgbalise.tracing.scoring import Evidence

Transformation = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""A deterministic map on values in units, such as truncation to the first of the month."""

EM_CELLS = 20_000
"""The shares are fitted on at most about so many cells, spread evenly over the column."""

BACKGROUND_FLOOR = 1e-4
"""Share of cells that the fit always leaves to replacement by anything."""

# Enough to separate components that differ on a few per cent of the cells; those that differ on
# fewer keep shares nearer to each other than the optimum has, which hardly matters to so few cells.
_EM_STEPS = 200
_EM_TOLERANCE = 1e-6
_NEGLIGIBLE_SHARE = 1e-7
_KERNEL_SCALES = 8
_OFFSETS = 4
_OFFSET_SHARE = 0.005
_CHUNK_CELLS = 1 << 16
_PSEUDO_COUNTS = {"identity": 1.0, "background": 0.1}
_REPLACING = ("resampled", "background")
_STRATUM_CELLS = 20.0
"""So many cells' worth of a stratum's shares come from those of all cells."""
_OTHER_PSEUDO_COUNT = 0.5


Strata: TypeAlias = "NDArray[np.int8] | None"
"""How reliable each cell's row is thought to be, int8[n], any numbers; None: all alike."""


class CellNoise(Protocol):
    """What `cell_evidence` asks of a noise model."""

    def log_likelihood(
        self, seen: NDArray[np.int64], value: NDArray[np.int64], stratum: Strata = None
    ) -> NDArray[np.float64]:
        """Return log P(seen | value), float64[n]; always finite."""


@dataclass(frozen=True, eq=False)
class _Marginal:
    """How often values occur in the leaked column, half of it smoothed over neighbours."""

    values: NDArray[np.int64]
    reach: int

    @classmethod
    def of(cls, seen: NDArray[np.int64]) -> _Marginal:
        low, high = np.quantile(seen, (0.1, 0.9)) if seen.size else (0.0, 0.0)
        return cls(np.sort(seen), int((high - low) / 20))

    def probability(self, seen: NDArray[np.int64]) -> NDArray[np.float64]:
        def between(low: int, high: int) -> NDArray[np.int64]:
            return np.asarray(
                np.searchsorted(self.values, seen + high, "right")
                - np.searchsorted(self.values, seen + low, "left")
            )

        near = between(-self.reach, self.reach) / (2 * self.reach + 1)
        return np.asarray((between(0, 0) + near) / (2 * max(1, self.values.size)))


@dataclass(frozen=True)
class _Component:
    """One thing that may happen to a value; ``amount`` and ``scale`` are in units.

    transform: w = T(v) for a caller's T. rounding: put on grid ``amount``. offset: w = v + amount.
    kernel: v plus logistic noise of scale ``scale`` about ``centre``, rounded to ``amount``. even:
    anything within ``amount`` of v, as rounding in another unit gives. resampled: another value
    of the column. background: anything.
    """

    kind: Literal[
        "identity", "transform", "rounding", "offset", "kernel", "even", "resampled", "background"
    ]
    name: str = ""
    amount: int = 0
    mode: RoundingMode = "half-away"
    scale: float = 0.0
    centre: int = 0
    transform: Transformation | None = None
    marginal: _Marginal | None = field(default=None, compare=False, repr=False)

    def probability(
        self, seen: NDArray[np.int64], value: NDArray[np.int64], span: float
    ) -> NDArray[np.float64]:
        """Return P(seen | value) if this is what happened, float64[n]."""
        if self.kind == "background":
            return np.full(seen.shape, 1.0 / span)
        if self.kind == "kernel":
            return self._kernel(seen, value)
        if self.kind == "even":
            return np.asarray(np.abs(seen - value) <= self.amount) / (2.0 * self.amount + 1)
        if self.marginal is not None:
            return self.marginal.probability(seen)
        if self.kind == "rounding":
            expected = round_to_grid(value, self.amount, self.mode)
        elif self.transform is not None:
            expected = self.transform(value)
        else:
            expected = value + self.amount
        return np.asarray(seen == expected, np.float64)

    def _kernel(self, seen: NDArray[np.int64], value: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the logistic mass that rounding sends to ``seen``.

        With distance d, grid g, scale s and the logistic function F the mass is
        F((d + g/2) / s) - F((d - g/2) / s). It is computed as the product below, which does not
        cancel in the tails.
        """
        distance = np.abs(seen - value - self.centre).astype(np.float64)
        half = self.amount / 2
        above = np.exp(-(distance + half) / self.scale)
        # |d - g/2| keeps the exponent negative; the sign decides which form of 1 / (1 + e^b).
        gap = (distance - half) / self.scale
        tail = np.exp(-np.abs(gap))
        below = np.where(gap >= 0, tail, 1.0) / (1.0 + tail)
        mass = below / (1.0 + above) * -np.expm1(-self.amount / self.scale)
        if self.amount > 1:
            mass[seen % self.amount != 0] = 0.0
        return np.asarray(mass)


@dataclass(frozen=True)
class NoiseModel:
    """The fitted mixture for one column of numbers, dates or timestamps, all in integer units."""

    components: tuple[_Component, ...]
    shares: tuple[float, ...]
    span: float
    """Number of values over which replacement by anything is spread."""
    strata: tuple[tuple[int, tuple[float, ...]], ...] = ()
    """Shares among the cells of each stratum; elsewhere those of all hold."""

    def log_likelihood(
        self, seen: NDArray[np.int64], value: NDArray[np.int64], stratum: Strata = None
    ) -> NDArray[np.float64]:
        """Return log P(seen | value), float64[n], natural logarithm, finite.

        ``seen`` and ``value`` are int64[n] in the units of the fit.
        """
        out = np.empty(seen.shape)
        for start in range(0, seen.size, _CHUNK_CELLS):
            part = slice(start, start + _CHUNK_CELLS)
            of = None if stratum is None else stratum[part]
            out[part] = np.log(sum(self._parts(seen[part], value[part], of)))
        return out

    def replaced(
        self, seen: NDArray[np.int64], value: NDArray[np.int64], stratum: Strata = None
    ) -> NDArray[np.float64]:
        """Return P(the value was replaced | seen, value), float64[n]."""
        total, gone = np.zeros(seen.shape), np.zeros(seen.shape)
        for component, part in zip(self.components, self._parts(seen, value, stratum), strict=True):
            total += part
            if component.kind in _REPLACING:
                gone += part
        return gone / total

    def _parts(
        self, seen: NDArray[np.int64], value: NDArray[np.int64], stratum: Strata
    ) -> Iterator[NDArray[np.float64]]:
        """Yield share times probability for each component."""
        table = np.array([self.shares, *(shares for _, shares in self.strata)])
        row = np.zeros(seen.shape, np.int64)
        if stratum is not None:
            for at, (number, _) in enumerate(self.strata, 1):
                row[stratum == number] = at
        for component, shares in zip(self.components, table.T, strict=True):
            if shares.max() < _NEGLIGIBLE_SHARE:
                yield np.zeros(seen.shape)
            else:
                yield shares[row] * component.probability(seen, value, self.span)

    def describe(self, unit: Callable[[int], str] | None = None) -> list[tuple[str, float]]:
        """Return what happened to the cells, as (transformation, share), largest share first.

        Ways of rounding to one grid that differ on ties only, or on negative values only, count as
        one. ``unit`` writes an amount given in units (default: as an integer). Shares
        below 0.1 % are left out.
        """
        write = str if unit is None else unit
        shares: dict[str, float] = {}
        for component, share in zip(self.components, self.shares, strict=True):
            name = _describe(component, write)
            shares[name] = shares.get(name, 0.0) + share
        listed = [(name, share) for name, share in shares.items() if share >= 1e-3]
        return sorted(listed, key=lambda entry: -entry[1])


@dataclass(frozen=True)
class CategoricalNoise:
    """The fitted mixture for one column of codes: left alone, or replaced by another.

    Half of the replaced cells are taken for any of ``categories``, half for a category as frequent
    as it is in the leak (``frequencies``, if given).
    """

    unchanged: float
    categories: int
    frequencies: tuple[tuple[int, float], ...] = ()
    strata: tuple[tuple[int, float], ...] = ()
    """Share of unchanged cells in each stratum; elsewhere that of all holds."""

    def log_likelihood(
        self, seen: NDArray[np.int64], value: NDArray[np.int64], stratum: Strata = None
    ) -> NDArray[np.float64]:
        """Return log P(seen | value), float64[n], natural logarithm, finite."""
        unchanged, gone = self._parts(seen, stratum)
        return np.log(np.where(seen == value, unchanged + gone, gone))

    def replaced(
        self, seen: NDArray[np.int64], value: NDArray[np.int64], stratum: Strata = None
    ) -> NDArray[np.float64]:
        """Return P(the value was replaced | seen, value), float64[n]."""
        unchanged, gone = self._parts(seen, stratum)
        return np.where(seen == value, gone / (unchanged + gone), 1.0)

    def _parts(
        self, seen: NDArray[np.int64], stratum: Strata
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        unchanged = np.full(seen.shape, self.unchanged)
        if stratum is not None:
            for number, share in self.strata:
                unchanged[stratum == number] = share
        return unchanged, (1.0 - unchanged) * _replacement(seen, self.categories, self.frequencies)

    def describe(self) -> list[tuple[str, float]]:
        """Return (transformation, share), largest share first, as `NoiseModel.describe`."""
        listed = [("unchanged", self.unchanged), ("replaced", 1.0 - self.unchanged)]
        return sorted([entry for entry in listed if entry[1] >= 1e-3], key=lambda entry: -entry[1])


def estimate_noise(
    seen: NDArray[np.int64],
    value0: NDArray[np.int64],
    value1: NDArray[np.int64],
    selected: NDArray[np.bool_],
    *,
    grids: Sequence[int] = (),
    transformations: Sequence[tuple[str, Transformation]] = (),
    probability: NDArray[np.float64] | None = None,
    stratum: Strata = None,
) -> NoiseModel:
    """Fit what happened to a column of numbers, dates or timestamps.

    ``seen`` int64[n]: leaked values; ``value0`` and ``value1`` int64[n]: what bit 0 and bit 1 would
    have given, equal (the raw value) where ``selected`` bool[n] is False. All are integers at one
    scale (hundredths, days, microseconds...), below 2**62 in magnitude. ``grids``: rounding grids
    to consider, in units; 1 and repetitions are ignored. ``transformations``: further named maps,
    such as truncation to a month. ``probability`` float64[n]: that the cell's row is aligned
    rightly (default 1), its weight in the fit. ``stratum`` int8[n]: how reliable its row is.

    A Dirichlet prior of a fraction of a cell per component lets a handful of cells do; with no
    cell at all the model says that values were most likely left alone.

    Raises `InvalidInput` if lengths or types differ, for a grid below 1, and for values too large.
    """
    _check_columns(seen, value0, value1, selected, probability, stratum)
    if any(grid < 1 for grid in grids):
        raise InvalidInput("noise: a rounding grid is below 1")
    rows = _spread(seen.size)
    sample, low, high, known = seen[rows], value0[rows], value1[rows], ~selected[rows]
    span = 1.0
    if seen.size:
        columns = (seen, value0, value1)
        span += float(max(int(c.max()) for c in columns) - min(int(c.min()) for c in columns))
    # rows that are probably others' must not suggest what was done to the values
    right = np.full(rows.size, fill_value=True)
    if probability is not None:
        right = probability[rows] >= 0.5
    components = _components(
        sample[right],
        low[right],
        high[right],
        known[right],
        sorted({*grids} - {1}),
        transformations,
    )
    likelihood = np.empty((sample.size, len(components)))
    for column, component in enumerate(components):
        likelihood[:, column] = component.probability(sample, low, span)
        differ = low != high
        other = component.probability(sample[differ], high[differ], span)
        likelihood[differ, column] = (likelihood[differ, column] + other) / 2
    # rounding to a grid that every value lies on is to leave them alone
    alike = [bool(np.array_equal(each, likelihood[:, 0])) for each in likelihood.T]
    told = [n == 0 or not alike[n] or n == len(components) - 1 for n in range(len(components))]
    components = [component for component, kept in zip(components, told, strict=True) if kept]
    likelihood = likelihood[:, told]
    prior = _pseudo_counts(components)
    prior[-1] += BACKGROUND_FLOOR * sample.size
    weight = np.ones(rows.size) if probability is None else probability[rows]
    of = None if stratum is None else stratum[rows]
    shares, strata = _fit_strata(likelihood, prior, weight, of)
    return NoiseModel(tuple(components), shares, span, strata)


def estimate_categorical_noise(
    seen: NDArray[np.int64],
    value0: NDArray[np.int64],
    value1: NDArray[np.int64],
    selected: NDArray[np.bool_],
    *,
    categories: int | None = None,
    probability: NDArray[np.float64] | None = None,
    stratum: Strata = None,
) -> CategoricalNoise:
    """Fit what happened to a column of codes; arguments as for `estimate_noise`.

    ``categories`` is the number of categories a replaced value may come from; by default those that
    occur in the three columns, at least 2.

    Raises `InvalidInput` as `estimate_noise`, and for fewer than 2 categories.
    """
    _check_columns(seen, value0, value1, selected, probability, stratum)
    if categories is None:
        categories = max(2, np.unique(np.concatenate([seen, value0, value1])).size)
    if categories < 2:
        raise InvalidInput(f"noise: {categories} categories")
    rows = _spread(seen.size)
    weight = np.ones(rows.size) if probability is None else probability[rows]
    codes, count = np.unique(seen[rows], return_counts=True)
    frequencies = tuple(
        (int(code), float(n) / rows.size) for code, n in zip(codes, count, strict=True)
    )
    same = ((seen[rows] == value0[rows]).astype(np.float64) + (seen[rows] == value1[rows])) / 2
    gone = _replacement(seen[rows], categories, frequencies)
    prior = np.array([_PSEUDO_COUNTS["identity"], _PSEUDO_COUNTS["background"]])
    prior[-1] += BACKGROUND_FLOOR * rows.size
    of = None if stratum is None else stratum[rows]
    shares, strata = _fit_strata(np.column_stack([same, gone]), prior, weight, of)
    return CategoricalNoise(
        shares[0], categories, frequencies, tuple((number, each[0]) for number, each in strata)
    )


def _replacement(
    seen: NDArray[np.int64], categories: int, frequencies: tuple[tuple[int, float], ...]
) -> NDArray[np.float64]:
    """Return P(seen | replaced), float64[n]."""
    out = np.full(seen.shape, 1.0 / categories)
    if frequencies:
        codes = np.array([code for code, _ in frequencies])
        shares = np.array([share for _, share in frequencies])
        at = np.minimum(np.searchsorted(codes, seen), codes.size - 1)
        out = (out + np.where(codes[at] == seen, shares[at], 0.0)) / 2
    return out


def cell_evidence(
    noise: CellNoise,
    position: NDArray[np.int32],
    seen: NDArray[np.int64],
    value0: NDArray[np.int64],
    value1: NDArray[np.int64],
    selected: NDArray[np.bool_],
    probability: NDArray[np.float64] | None = None,
    stratum: Strata = None,
) -> Evidence:
    """Return the evidence of the selected cells that tell bit 0 from bit 1.

    ``position`` int32[n] is the codeword position of each cell (any number where not selected);
    the other arguments are as for `estimate_noise`. A cell whose row is the right one with
    probability q has the likelihoods q L(x) + (1 - q) (L(0) + L(1)) / 2: a wrong row tells
    nothing. Cells with two equal likelihoods are dropped: they say nothing.
    """
    _check_columns(seen, value0, value1, selected, probability, stratum)
    if position.shape != seen.shape:
        raise InvalidInput("noise: positions and values differ in length")
    telling = np.flatnonzero(selected & (value0 != value1))
    of = None if stratum is None else stratum[telling]
    log0 = noise.log_likelihood(seen[telling], value0[telling], of)
    log1 = noise.log_likelihood(seen[telling], value1[telling], of)
    if probability is not None:
        right = probability[telling]
        with np.errstate(divide="ignore"):
            neither = np.log1p(-right) + np.logaddexp(log0, log1) - np.log(2)
            log0 = np.logaddexp(np.log(right) + log0, neither)
            log1 = np.logaddexp(np.log(right) + log1, neither)
    differ = log0 != log1
    return Evidence(
        position[telling][differ].astype(np.int32, copy=False), log0[differ], log1[differ]
    )


def _check_columns(
    seen: NDArray[np.int64],
    value0: NDArray[np.int64],
    value1: NDArray[np.int64],
    selected: NDArray[np.bool_],
    probability: NDArray[np.float64] | None = None,
    stratum: Strata = None,
) -> None:
    if not (seen.shape == value0.shape == value1.shape == selected.shape) or seen.ndim != 1:
        raise InvalidInput("noise: columns differ in length")
    if probability is not None and (
        probability.shape != seen.shape or not bool(np.all((probability >= 0) & (probability <= 1)))
    ):
        raise InvalidInput("noise: expected a probability for each cell")
    if stratum is not None and stratum.shape != seen.shape:
        raise InvalidInput("noise: expected a stratum for each cell")
    for column in (seen, value0, value1):
        if column.dtype != np.int64:
            raise InvalidInput(f"noise: expected int64 units, got {column.dtype}")
        if column.size and (
            int(column.max()) >= MAGNITUDE_LIMIT or int(column.min()) <= -MAGNITUDE_LIMIT
        ):
            raise InvalidInput("noise: a value is too large for the column's units")
    if selected.dtype != np.bool_:
        raise InvalidInput(f"noise: expected a boolean selection, got {selected.dtype}")


def _spread(rows: int) -> NDArray[np.int64]:
    """Return about EM_CELLS of ``rows`` indices, or all if there are no more, evenly spread.

    A fixed stride would see only one kind of cell in a leak that alternates between two, so the
    multiples of the golden ratio (mod 1) decide: they are spread evenly within every residue class.
    """
    indices = np.arange(rows, dtype=np.uint64)
    if rows <= EM_CELLS:
        return indices.astype(np.int64)
    fraction = indices * np.uint64(0x9E3779B97F4A7C15)
    return np.flatnonzero(fraction < np.uint64(2**64 * EM_CELLS // rows))


def _components(
    seen: NDArray[np.int64],
    value0: NDArray[np.int64],
    value1: NDArray[np.int64],
    known: NDArray[np.bool_],
    grids: Sequence[int],
    transformations: Sequence[tuple[str, Transformation]],
) -> list[_Component]:
    """Return the components to mix; identity first, resampled and background last."""
    out = [_Component("identity")]
    out += [_Component("transform", name=name, transform=apply) for name, apply in transformations]
    # A grid that almost nothing lies on cannot have been applied to a share worth modelling.
    used = [grid for grid in grids if np.mean(seen % grid == 0) >= 1e-3] if seen.size else []
    out += [_Component("rounding", amount=g, mode=mode) for g in used for mode in ROUNDING_MODES]

    difference0, difference1 = seen - value0, seen - value1
    nearer = np.where(np.abs(difference0) <= np.abs(difference1), difference0, difference1)
    # Selected cells blur an offset by the embedding; they serve only where nothing else is left.
    clear = difference0[known] if np.count_nonzero(known) else np.append(difference0, difference1)
    moved = clear[clear != 0]
    out += [_Component("offset", amount=amount) for amount in _offsets(moved, clear.size)]
    centres = [0]
    # A sign test: symmetric noise has a median of 0, whatever the sample's is.
    if abs(int(np.sign(moved).sum())) > 3 * np.sqrt(moved.size):
        centres.append(int(np.median(moved)))
    for centre in centres:
        distance = np.abs(nearer - centre)
        for scale in _kernel_scales(distance[distance > 0]):
            for grid in (1, *used):
                # Noise far below the grid is rounding, which is listed already.
                if scale >= grid / 8:
                    out.append(_Component("kernel", amount=grid, scale=scale, centre=centre))
    beyond = np.abs(nearer[nearer != 0])
    if beyond.size:
        edges = {ceil(np.quantile(beyond, q) / q) for q in (0.5, 0.95, 0.99)}
        out += [_Component("even", amount=amount) for amount in sorted(edges)]
    out.append(_Component("resampled", marginal=_Marginal.of(seen)))
    out.append(_Component("background"))
    return out


def _offsets(moved: NDArray[np.int64], cells: int) -> list[int]:
    """Return the non-zero differences that stand out, most frequent first, at most _OFFSETS.

    One that its neighbours nearly match is the top of a hill of additive noise instead.
    """
    values, count = np.unique(moved, return_counts=True)
    out = []
    for index in np.argsort(-count, kind="stable")[:_OFFSETS]:
        beside = count[np.abs(values - values[index]) == 1]
        nearby = int(beside.max()) if beside.size else 0
        if count[index] >= max(3.0, _OFFSET_SHARE * cells, 3.0 * nearby):
            out.append(int(values[index]))
    return out


def _kernel_scales(distance: NDArray[np.int64]) -> list[float]:
    """Return logistic scales that cover the bulk of the positive distances, in units."""
    if not distance.size:
        return []
    low, high = (float(edge) for edge in np.quantile(distance, (0.05, 0.95)))
    low, high = max(0.25, low / 2), max(0.5, high)
    number = min(_KERNEL_SCALES, 1 + int(np.ceil(np.log2(high / low))))
    return [float(scale) for scale in np.geomspace(low, high, max(2, number))]


def _pseudo_counts(components: Sequence[_Component]) -> NDArray[np.float64]:
    """Return the Dirichlet pseudo-counts: one cell left alone, half a cell for all the rest."""
    others = sum(component.kind not in _PSEUDO_COUNTS for component in components)
    return np.array(
        [
            _PSEUDO_COUNTS.get(component.kind, _OTHER_PSEUDO_COUNT / max(1, others))
            for component in components
        ]
    )


def _fit_strata(
    likelihood: NDArray[np.float64],
    prior: NDArray[np.float64],
    weight: NDArray[np.float64],
    stratum: Strata,
) -> tuple[tuple[float, ...], tuple[tuple[int, tuple[float, ...]], ...]]:
    """Return the shares among all cells and among those of each stratum."""
    shares = _fit_shares(likelihood, prior, weight)
    strata = []
    if stratum is not None:
        for number in np.unique(stratum):
            mine = stratum == number
            near = prior + _STRATUM_CELLS * shares
            strata.append(
                (int(number), _as_tuple(_fit_shares(likelihood[mine], near, weight[mine])))
            )
    return _as_tuple(shares), tuple(strata)


def _as_tuple(shares: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(share) for share in shares)


def _fit_shares(
    likelihood: NDArray[np.float64], prior: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the shares, float64[T], that maximise the posterior given likelihood[n, T].

    ``prior``: pseudo-counts; ``weight``: how much each row of ``likelihood`` counts.
    """
    total = float(weight.sum() + prior.sum())
    shares = prior / prior.sum()
    for _ in range(_EM_STEPS):
        responsibility = (weight / (likelihood @ shares)) @ likelihood
        updated = (prior + shares * responsibility) / total
        change = float(np.abs(updated - shares).max())
        shares = updated
        if change < _EM_TOLERANCE:
            break
    return np.asarray(shares / shares.sum())


def _describe(component: _Component, write: Callable[[int], str]) -> str:
    if component.kind == "identity":
        return "unchanged"
    if component.kind == "transform":
        return component.name
    if component.kind == "offset":
        return f"shifted by {write(component.amount)}"
    if component.kind in _REPLACING:
        return "replaced"
    if component.kind == "even":
        return "noise"
    if component.kind == "rounding":
        nearest = component.mode.startswith("half")
        return f"{'rounded' if nearest else 'truncated'} to {write(component.amount)}"
    centre = f" about a shift of {write(component.centre)}" if component.centre else ""
    grid = f", rounded to {write(component.amount)}" if component.amount > 1 else ""
    return f"noise{centre}{grid}"
