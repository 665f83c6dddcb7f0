"""From marked cells to one e-value per recipient.

For every position i the leak gives a likelihood f_i(x) of what was seen there if a recipient who
holds bit x belongs to a coalition of a given size with a given attack (a *hypothesis*). The score

    S_j = sum_i log( f_i(X_ji) / (p_i f_i(1) + (1 - p_i) f_i(0)) )

has E[exp S_j] = 1 for an innocent j, because the bits of an innocent's codeword are drawn with
P(X_ji = 1) = p_i independently of the leak. That holds for any non-negative f that depends on the
leak and on p alone, so neither a wrong hypothesis nor a wrong noise model can accuse an innocent
more often than promised; they only cost evidence. The single decoder that knows the attack is due
to Meerwald and Furon ("Toward practical joint decoding of binary Tardos fingerprinting codes",
IEEE TIFS 7(4), 2012) and Laarhoven ("Capacities and capacity-achieving decoders for various
fingerprinting games", IH&MMSec 2014); e-values and their averages are as in Vovk and Wang
("E-values: calibration, combination and applications", Ann. Statist. 49(3), 2021).

The weights of the average over hypotheses may depend on the leak too, for the same reason. A share
of them follows how well each hypothesis explains the leak before any codeword is looked at, which
rules out most attacks at no price.

Codewords of *other* recipients may be looked at as well: an innocent's bits are independent of
them. Once some of a coalition are named, their bits are known and not averaged over, which makes
the others stand out (`pgbalise.tracing.decoding`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import comb
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from pgbalise.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

Strategy = Literal["interleave", "majority", "minority", "all-zero", "all-one", "coin-flip"]
"""What a coalition puts where its members' bits differ (the marking assumption binds it elsewhere).

interleave: the bit of a member picked at random; majority, minority: the more, less frequent bit,
a fair coin on a tie; all-zero, all-one: always that bit; coin-flip: a fair coin.
"""

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

THRESHOLD_SCALE = 65536
"""Bias thresholds are integers t with p = t / THRESHOLD_SCALE."""

SYMBOL_ERROR = 1e-3
"""Chance, in every hypothesis, that a cell shows the other symbol (see `Hypothesis`)."""

ADAPTATION = 0.5
"""Share of the hypothesis weights that follows the leak (see `position_weights`)."""

_CHUNK_CELLS = 1 << 18
_CHUNK_ROWS = 512
_CHUNK_POSITIONS = 4096
_EXACT_FLOAT32 = float(1 << 24)
_LOWEST_LOG = -690.0
_DENSE_SHARE = 8
_SHARE_CELLS = 20_000
_SHARE_STEPS = 100


@dataclass(frozen=True, eq=False)
class Evidence:
    """What marked cells say about the bits that were embedded in them.

    ``position`` int32[n] is the codeword position (0..L-1) of each cell; several cells may share
    one. ``log_likelihood0`` and ``log_likelihood1``, float64[n], are the natural logarithms of
    P(what is seen in the cell | the value embedded carried bit 0, bit 1), each up to a constant
    common to both. Minus infinity (impossible) is allowed in one of the two.

    Raises `InvalidInput` if the lengths differ, if a position is negative, or if a cell has a
    likelihood that is NaN or plus infinity, or two that are both zero.
    """

    position: NDArray[np.int32]
    log_likelihood0: NDArray[np.float64]
    log_likelihood1: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not (self.position.shape == self.log_likelihood0.shape == self.log_likelihood1.shape):
            raise InvalidInput("evidence: position and likelihoods differ in length")
        if self.position.ndim != 1:
            raise InvalidInput("evidence: arrays must have one dimension")
        if self.position.size and int(self.position.min()) < 0:
            raise InvalidInput("evidence: negative codeword position")
        if not bool(np.all(np.isfinite(np.maximum(self.log_likelihood0, self.log_likelihood1)))):
            raise InvalidInput(
                "evidence: every cell needs a finite likelihood under bit 0 or bit 1"
            )

    def __len__(self) -> int:
        """Return the number of cells."""
        return int(self.position.size)

    @classmethod
    def concatenate(cls, parts: Iterable[Evidence]) -> Evidence:
        """Return the evidence of all parts (columns, leaks); no parts give no cells."""
        listed = list(parts)
        if not listed:
            return cls(np.empty(0, np.int32), np.empty(0), np.empty(0))
        return cls(
            np.concatenate([part.position for part in listed]),
            np.concatenate([part.log_likelihood0 for part in listed]),
            np.concatenate([part.log_likelihood1 for part in listed]),
        )


@dataclass(frozen=True)
class Hypothesis:
    """A coalition of a given size that follows a given strategy, and its prior weight.

    ``symbol_error`` is the chance that a cell shows the symbol opposite to the one that the
    coalition chose (a row wrongly aligned, a value that changed at the source since). It bounds
    what a single cell can say, so that no single cell clears a guilty recipient.

    ``share`` is the share of the cells that come from the recipient looked at, for interleaving by
    members who gave unequally much; the others share the rest alike. None: all gave alike.
    """

    coalition: int
    strategy: Strategy
    weight: float
    symbol_error: float = SYMBOL_ERROR
    share: float | None = None

    def __post_init__(self) -> None:
        if self.coalition < 1:
            raise InvalidInput(f"hypothesis: coalition of {self.coalition}")
        if self.strategy not in STRATEGIES:
            raise InvalidInput(
                f"hypothesis: unknown strategy {self.strategy!r}",
                hint="one of " + ", ".join(STRATEGIES),
            )
        if not 0 < self.weight < float("inf"):
            raise InvalidInput(f"hypothesis: weight {self.weight} is not positive and finite")
        if not 0 < self.symbol_error < 0.5:
            raise InvalidInput(f"hypothesis: symbol error {self.symbol_error} not in (0, 1/2)")
        if self.share is not None and not (
            0 < self.share < 1 and self.coalition > 1 and self.strategy == "interleave"
        ):
            raise InvalidInput("hypothesis: a share is of interleaving and lies in (0, 1)")

    def output_probabilities(self) -> NDArray[np.float64]:
        """Return theta, float64[coalition + 1].

        theta[k] is the probability that a cell shows symbol 1 when k members hold a 1 there, and
        all gave alike.
        """
        held = np.arange(self.coalition + 1) / self.coalition
        if self.strategy == "interleave":
            theta = held
        elif self.strategy == "majority":
            theta = (1 + np.sign(2 * held - 1)) / 2
        elif self.strategy == "minority":
            theta = (1 - np.sign(2 * held - 1)) / 2
        elif self.strategy == "all-zero":
            theta = np.zeros_like(held)
        elif self.strategy == "all-one":
            theta = np.ones_like(held)
        else:
            theta = np.full_like(held, 0.5)
        theta[0], theta[-1] = 0.0, 1.0
        return np.clip(theta, self.symbol_error, 1 - self.symbol_error)

    def _beside(self) -> NDArray[np.float64]:
        """Return theta, float64[2, coalition]: by the recipient's bit, and others who hold a 1."""
        size = self.coalition
        if self.share is None:
            held = np.add.outer(np.arange(2), np.arange(size))
            return np.asarray(self.output_probabilities()[held])
        others = (1 - self.share) * np.arange(size) / (size - 1)
        theta = np.add.outer(self.share * np.arange(2), others)
        return np.asarray(np.clip(theta, self.symbol_error, 1 - self.symbol_error))


@dataclass(frozen=True, eq=False)
class Scores:
    """One entry per recipient, in the order of the codewords.

    ``log10_e_value`` float64[n_recipients]: decimal logarithm of the evidence against "this
    recipient is innocent". ``agreeing`` int64[n_recipients]: cells whose more likely symbol is the
    recipient's bit; an innocent agrees by chance, so this is a description and not a proof.
    """

    log10_e_value: NDArray[np.float64]
    agreeing: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PositionWeights:
    """A leak reduced to what scoring needs; its size does not depend on the number of cells.

    For hypothesis h the score of a codeword X is ``base[h] + sum_i X[positions[i]] weights[i, h]``.

    ``length`` is L. ``positions`` int64[P]; ``weights`` float64[P, H] = log f(1) - log f(0);
    ``p`` float64[P]: the bias there. ``base`` float64[H] = sum log f(0) / (p f(1) + (1 - p) f(0));
    ``log_mixture`` float64[H]:
    logarithms of the weights of the average over hypotheses, which sum to 1; ``cells0`` and
    ``cells1`` int64[P]: cells at each position that favour symbol 0 and 1.

    Column h of ``weights`` holds multiples of a power of two that is so large that any sum over
    ``_CHUNK_POSITIONS`` consecutive rows stays below 2**24 such units. Every intermediate of
    a float32 product with a 0/1 matrix is then an integer that float32 represents, so
    that product is exact. ``base`` is computed from the rounded weights: E[exp S] = 1 stays true
    for them, and the evidence lost to rounding is of the order of 1e-6 of a score.
    """

    length: int
    positions: NDArray[np.int64]
    p: NDArray[np.float64]
    weights: NDArray[np.float64]
    base: NDArray[np.float64]
    log_mixture: NDArray[np.float64]
    cells0: NDArray[np.int64]
    cells1: NDArray[np.int64]

    @cached_property
    def _factors(self) -> NDArray[np.float32]:
        """Return [weights, cells1 - cells0] as float32[P, H + 1] (exact, see the class)."""
        gain = (self.cells1 - self.cells0)[:, None]
        return np.hstack([self.weights, gain]).astype(np.float32)

    def until(self, length: int) -> PositionWeights:
        """Return the weights of the first ``length`` (a multiple of 8) positions of the codeword.

        The average over hypotheses stays as it is: the e-value of the whole codeword, given the
        bits of its beginning, then has the e-value of the beginning for its mean, so that an
        auditor may look at the beginning and decide whether the rest is worth the trouble.
        """
        part = slice(0, int(np.searchsorted(self.positions, length)))
        p, weights = self.p[part], self.weights[part]
        return PositionWeights(
            length,
            self.positions[part],
            p,
            weights,
            _base(weights, p),
            self.log_mixture,
            self.cells0[part],
            self.cells1[part],
        )

    def score(self, codewords: NDArray[np.uint8]) -> Scores:
        """Score a block of packed codewords, uint8[n, L // 8], least significant bit first.

        Raises `InvalidInput` if the block has another shape or type.
        """
        if codewords.ndim != 2 or codewords.shape[1] * 8 != self.length:
            raise InvalidInput(
                f"codewords: expected rows of {self.length // 8} bytes, got {codewords.shape}"
            )
        if codewords.dtype != np.uint8:
            raise InvalidInput(f"codewords: expected uint8, got {codewords.dtype}")
        columns = self.base.size
        log10_e_value = np.empty(len(codewords))
        agreeing = np.empty(len(codewords), np.int64)
        for start in range(0, len(codewords), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            sums = self._project(codewords[rows])
            scores = sums[:, :columns] + (self.base + self.log_mixture)
            log10_e_value[rows] = np.logaddexp.reduce(scores, axis=1) / np.log(10)
            agreeing[rows] = np.rint(sums[:, columns]).astype(np.int64) + self.cells0.sum()
        return Scores(log10_e_value, agreeing)

    def _project(self, codewords: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return X @ [weights, cells1 - cells0], float64[n, H + 1]."""
        factors = self._factors
        out = np.zeros((len(codewords), factors.shape[1]))
        dense = self.positions.size == self.length
        bits = codewords
        if not dense:
            bits = np.unpackbits(codewords, axis=1, bitorder="little")[:, self.positions]
        step = _exact_step(self.cells1 - self.cells0)
        for start in range(0, self.positions.size, step):
            part = slice(start, start + step)
            if dense:
                packed = codewords[:, start // 8 : (start + step) // 8]
                matrix = np.unpackbits(packed, axis=1, bitorder="little").astype(np.float32)
            else:
                matrix = bits[:, part].astype(np.float32)
            out += matrix @ factors[part]
        return out


def default_hypotheses() -> tuple[Hypothesis, ...]:
    """Return the grid of hypotheses, heaviest first; the weights sum to 1.

    Half of the weight is on the single recipient, which costs a lone leaker 0.3 of the 13 decades
    of evidence that 10,000 recipients at 1e-9 ask for. The other sizes get less as they grow; for
    each size interleaving, the strategy that mixing extracts row by row amounts to, gets three
    quarters: its sizes look alike before a codeword is looked at, and the leak tells the others.
    A few hypotheses of a lone recipient allow for many wrong symbols, and two are of a recipient
    who gave most of a mixed leak.
    """
    grid = [Hypothesis(1, "interleave", 0.5)]
    grid += [Hypothesis(1, "interleave", 0.02, symbol_error=error) for error in (0.03, 0.12, 0.3)]
    grid += [Hypothesis(2, "interleave", 0.02, share=share) for share in (0.9, 0.75)]
    sizes = {2: 0.14, 3: 0.09, 4: 0.05, 5: 0.05, 6: 0.03, 8: 0.03, 10: 0.02, 13: 0.015, 17: 0.015}
    for coalition, share in sizes.items():
        others: tuple[Strategy, ...] = ("all-zero", "all-one")
        if coalition > 2:
            others += ("majority", "minority", "coin-flip")
        grid.append(Hypothesis(coalition, "interleave", share * 0.75))
        grid += [Hypothesis(coalition, name, share / 4 / len(others)) for name in others]
    total = sum(hypothesis.weight for hypothesis in grid)
    return tuple(
        replace(one, weight=one.weight / total)
        for one in sorted(grid, key=lambda hypothesis: -hypothesis.weight)
    )


def later_hypotheses(named: int) -> tuple[Hypothesis, ...]:
    """Return the grid for who else was in a coalition of which ``named`` are known.

    One more is likeliest; interleaving, which fits shares to those known, gets half.
    """
    more = {1: 0.3, 2: 0.2, 3: 0.15, 4: 0.12, 6: 0.1, 9: 0.08, 13: 0.05}
    others: tuple[Strategy, ...] = ("all-zero", "all-one", "majority", "minority", "coin-flip")
    grid = []
    for size, share in more.items():
        grid.append(Hypothesis(named + size, "interleave", share / 2))
        grid += [Hypothesis(named + size, name, share / 2 / len(others)) for name in others]
    return tuple(grid)


def position_weights(
    evidence: Evidence,
    bias: NDArray[np.uint16],
    hypotheses: Sequence[Hypothesis] | None = None,
    *,
    adaptation: float = ADAPTATION,
    named: NDArray[np.uint8] | None = None,
) -> PositionWeights:
    """Reduce evidence to weights per position, once, before any other codeword is looked at.

    ``bias`` uint16[L]: thresholds t with p = t / 65536, L a multiple of 8. ``hypotheses`` defaults
    to `default_hypotheses`; their weights need not sum to 1. ``named`` uint8[a, L] of 0 and 1: the
    codewords of recipients taken for members of every coalition; then each hypothesis has more
    members than those (default `later_hypotheses`), the weights are for anyone else, and
    under interleaving the shares that the named gave are fitted to the leak.

    Hypothesis h enters the average with weight (1 - a) w_h + a w_h m_h / sum_g w_g m_g, where a is
    ``adaptation`` and m_h the probability of the leak under h for an unknown codeword. The weights
    depend on the leak but on no codeword other than the named ones, so the average is an e-value
    for every a in [0, 1]; at the default a hypothesis never has less than half of its prior
    weight. Use 0 where e-values of disjoint leaks are multiplied and looked at after each one: with
    weights fixed beforehand the score of each hypothesis is a martingale, and so is the average.

    Raises `InvalidInput` for a bias of the wrong type or with p = 0 at a used position, for
    a position beyond L, for an empty grid, for an adaptation outside [0, 1], and for a coalition
    that has no room for anyone but the named.
    """
    if named is not None and not len(named):
        named = None
    known = 0 if named is None else len(named)
    grid = hypotheses
    if grid is None:
        grid = later_hypotheses(known) if known else default_hypotheses()
    if not grid:
        raise InvalidInput("scoring needs at least one hypothesis")
    if not 0 <= adaptation <= 1:
        raise InvalidInput(f"adaptation {adaptation} is not in [0, 1]")
    if bias.dtype != np.uint16 or bias.ndim != 1 or bias.size % 8:
        raise InvalidInput("bias: expected uint16[L] with L a multiple of 8")
    if len(evidence) and int(evidence.position.max()) >= bias.size:
        raise InvalidInput("evidence: codeword position beyond the end of the codeword")
    if min(one.coalition for one in grid) <= known:
        raise InvalidInput(f"hypotheses: a coalition has no room beside {known} named recipients")

    cells_at = np.bincount(evidence.position, minlength=bias.size)
    if np.count_nonzero(cells_at) * _DENSE_SHARE > bias.size:
        # Neutral weights at the few unused positions are cheaper than gathering bits.
        positions = np.arange(bias.size)
    else:
        positions = np.flatnonzero(cells_at)
    slot_of = np.zeros(bias.size, np.int64)
    slot_of[positions] = np.arange(positions.size)
    thresholds = bias[positions]
    if bool(np.any(thresholds[cells_at[positions] > 0] == 0)):
        raise InvalidInput("bias: p = 0 at a position that carries a cell")
    # An unused position has f(0) = f(1) whatever its bias, but not if p were 0.
    p = np.maximum(thresholds, 1) / THRESHOLD_SCALE

    cells = _Cells.of(evidence, slot_of, positions.size)
    explain: _Alone | _Beside
    explain = _Alone(cells, p, grid) if named is None else _Beside(cells, p, named[:, positions])
    weights = np.empty((positions.size, len(grid)))
    log_marginal = np.empty(len(grid))
    step = _exact_step(cells.favour1 - cells.favour0)
    for column, one in enumerate(grid):
        f0, f1 = explain.likelihoods(one)
        log_marginal[column] = np.log(p * f1 + (1 - p) * f0).sum()
        weights[:, column] = _round_weights(np.log(f1) - np.log(f0), step)

    prior = np.array([one.weight for one in grid])
    prior /= prior.sum()
    posterior = prior * np.exp(log_marginal - log_marginal.max())
    posterior /= posterior.sum()
    with np.errstate(divide="ignore"):
        log_mixture = np.log((1 - adaptation) * prior + adaptation * posterior)
    return PositionWeights(
        bias.size,
        positions,
        p,
        weights,
        _base(weights, p),
        log_mixture,
        cells.favour0,
        cells.favour1,
    )


def score(
    evidence: Evidence,
    bias: NDArray[np.uint16],
    codewords: Iterable[NDArray[np.uint8]],
    hypotheses: Sequence[Hypothesis] | None = None,
    *,
    adaptation: float = ADAPTATION,
) -> Scores:
    """Score every recipient: `position_weights`, then each block of packed codewords in turn.

    ``codewords`` yields blocks uint8[n, L // 8], least significant bit first; one block at a time
    is held. Raises `InvalidInput` as `position_weights` and `PositionWeights.score` do.
    """
    weights = position_weights(evidence, bias, hypotheses, adaptation=adaptation)
    parts = [weights.score(block) for block in codewords]
    if not parts:
        return Scores(np.empty(0), np.empty(0, np.int64))
    return Scores(
        np.concatenate([part.log10_e_value for part in parts]),
        np.concatenate([part.agreeing for part in parts]),
    )


def _base(weights: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the score of a codeword without a 1 under each hypothesis, float64[H]."""
    log1, log0 = np.log(p)[:, None], np.log1p(-p)[:, None]
    out = np.zeros(weights.shape[1])
    for start in range(0, len(weights), _CHUNK_POSITIONS):
        part = slice(start, start + _CHUNK_POSITIONS)
        out -= np.logaddexp(log1[part] + weights[part], log0[part]).sum(axis=0)
    return out


@dataclass(frozen=True, eq=False)
class _Cells:
    """Evidence by slot (the index of a used position), each cell's larger likelihood being 1."""

    slot: NDArray[np.int64]
    like0: NDArray[np.float64]
    slope: NDArray[np.float64]
    favour0: NDArray[np.int64]
    favour1: NDArray[np.int64]

    @classmethod
    def of(cls, evidence: Evidence, slot_of: NDArray[np.int64], slots: int) -> _Cells:
        log0, log1 = evidence.log_likelihood0, evidence.log_likelihood1
        larger = np.maximum(log0, log1)
        like0, like1 = np.exp(log0 - larger), np.exp(log1 - larger)
        slot = slot_of[evidence.position]
        return cls(
            slot,
            like0,
            like1 - like0,
            np.bincount(slot[log0 > log1], minlength=slots),
            np.bincount(slot[log1 > log0], minlength=slots),
        )

    def log_likelihood(self, theta: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log G, float64[slots], for one theta or one for each slot.

        G is the product over a position's cells of theta P(w|1) + (1 - theta) P(w|0).
        """
        slots = self.favour0.size
        out = np.zeros(slots)
        for start in range(0, self.slot.size, _CHUNK_CELLS):
            part = slice(start, start + _CHUNK_CELLS)
            slot = self.slot[part]
            chance = theta[slot] if isinstance(theta, np.ndarray) else theta
            log_cell = np.log(self.like0[part] + chance * self.slope[part])
            out += np.bincount(slot, log_cell, minlength=slots)
        return out


class _Alone:
    """What the leak says of one recipient's bits when nobody's are known."""

    def __init__(self, cells: _Cells, p: NDArray[np.float64], grid: Sequence[Hypothesis]) -> None:
        theta = np.unique(np.concatenate([one._beside().ravel() for one in grid]))
        log_g = np.stack([cells.log_likelihood(float(value)) for value in theta])
        if p.size:
            log_g -= log_g.max(axis=0)
        # The floor only caps f(1) / f(0) at e**690 per position; f may be any function of the leak.
        self._theta, self._g = theta, np.exp(np.maximum(log_g, _LOWEST_LOG))
        self._p = p
        self._held: dict[int, NDArray[np.float64]] = {}

    def likelihoods(self, one: Hypothesis) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return f(0) and f(1), float64[slots] each."""
        others = one.coalition - 1
        if others not in self._held:
            self._held[others] = _binomial(others, self._p)
        row = np.searchsorted(self._theta, one._beside())
        f0, f1 = np.zeros(self._p.size), np.zeros(self._p.size)
        for ones, chance in enumerate(self._held[others]):
            f0 += chance * self._g[row[0, ones]]
            f1 += chance * self._g[row[1, ones]]
        return f0, f1


class _Beside:
    """What the leak says of one recipient's bits beside those of recipients already named."""

    def __init__(self, cells: _Cells, p: NDArray[np.float64], named: NDArray[np.uint8]) -> None:
        self._cells, self._p, self._known = cells, p, len(named)
        self._ones = named.sum(axis=0, dtype=np.int64)
        shares = _shares(cells, p, named)
        self._given = shares[:-1] @ named
        self._rest = float(shares[-1])
        error = SYMBOL_ERROR
        both = [cells.log_likelihood(value) for value in (error, 0.5, 1 - error)]
        self._top = np.max(both, axis=0)
        self._log_g: dict[float, NDArray[np.float64]] = {}

    def likelihoods(self, one: Hypothesis) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return f(0) and f(1), float64[slots] each."""
        unknown = one.coalition - self._known
        g = [self._g(one, ones, unknown) for ones in range(unknown + 1)]
        f0, f1 = np.zeros(self._p.size), np.zeros(self._p.size)
        for ones, chance in enumerate(_binomial(unknown - 1, self._p)):
            f0 += chance * g[ones]
            f1 += chance * g[ones + 1]
        return f0, f1

    def _g(self, one: Hypothesis, ones: int, unknown: int) -> NDArray[np.float64]:
        """Return the likelihood when ``ones`` of the ``unknown`` members hold a 1."""
        if one.strategy == "interleave":
            theta = self._given + self._rest * ones / unknown
            log_g = self._cells.log_likelihood(
                np.clip(theta, one.symbol_error, 1 - one.symbol_error)
            )
        else:
            table = one.output_probabilities()
            log_g = np.empty(self._p.size)
            held = self._ones + ones
            for value in np.unique(table):
                here = table[held] == value
                log_g[here] = self._constant(float(value))[here]
        return np.asarray(np.exp(np.clip(log_g - self._top, _LOWEST_LOG, -_LOWEST_LOG)))

    def _constant(self, theta: float) -> NDArray[np.float64]:
        if theta not in self._log_g:
            self._log_g[theta] = self._cells.log_likelihood(theta)
        return self._log_g[theta]


def _shares(cells: _Cells, p: NDArray[np.float64], named: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the shares of the cells that each of the named gave and, last, that others gave.

    By expectation-maximisation as in `pgbalise.tracing.noise`; the others' bits are unknown, so
    they give 1 with probability p.
    """
    step = max(1, cells.slot.size // _SHARE_CELLS)
    slot, like0, slope = cells.slot[::step], cells.like0[::step], cells.slope[::step]
    chance = np.clip(np.vstack([named, p])[:, slot], SYMBOL_ERROR, 1 - SYMBOL_ERROR)
    likelihood = like0 + chance * slope
    shares = np.full(len(likelihood), 1 / len(likelihood))
    for _ in range(_SHARE_STEPS):
        shares = (1 / len(shares) + shares * (likelihood / (shares @ likelihood)).sum(axis=1)) / (
            1 + slot.size
        )
    return np.asarray(shares)


def _binomial(trials: int, p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return P(k successes in ``trials``), float64[trials + 1, len(p)]."""
    return np.stack([comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(trials + 1)])


def _exact_step(gain: NDArray[np.int64]) -> int:
    """Return how many consecutive positions a float32 product may sum: a multiple of 8.

    ``_CHUNK_POSITIONS``, or less if the cell counts of so many positions could pass 2**24.
    """
    step = _CHUNK_POSITIONS
    if gain.size:
        largest = int(np.abs(gain).max())
        while step > 8 and largest * step >= _EXACT_FLOAT32:
            step //= 2
    return step


def _round_weights(weights: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Round to multiples of the power of two that makes float32 sums of ``step`` weights exact."""
    if not weights.size:
        return weights
    starts = np.arange(0, weights.size, step)
    # Rounding may add half a unit per weight, hence the room of one `step` below 2**24.
    largest = float(np.add.reduceat(np.abs(weights), starts).max())
    if largest == 0.0:
        return weights
    unit = 2.0 ** np.ceil(np.log2(largest / (_EXACT_FLOAT32 - step)))
    return np.asarray(np.rint(weights / unit) * unit)
