"""How many marked cells a trace needs, and how often it accuses an innocent, by simulation.

The codewords, the leak and the score are the real ones; only the relation is missing, since scoring
never sees it. Cells sit at random positions and show one symbol without doubt, unless said
otherwise. All randomness comes from the seed or generator that the caller passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pgbalise.errors import InvalidInput
from pgbalise.marking.codes import BIAS_CUTOFF, CODE_LENGTH
from pgbalise.tracing.attacks import collude
from pgbalise.tracing.decision import threshold_log10
from pgbalise.tracing.decoding import Way, decode
from pgbalise.tracing.scoring import (
    THRESHOLD_SCALE,
    Evidence,
    Hypothesis,
    Strategy,
    default_hypotheses,
    position_weights,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

RECIPIENTS = 10_000
"""Recipients of the reference setting."""

ALPHA = 1e-9
"""Family-wise false-accusation probability of the reference setting."""

WORST_STRATEGIES: tuple[Strategy, ...] = ("interleave", "majority", "minority", "all-zero")
"""Strategies over which a coalition's best choice is looked for; all-one mirrors all-zero."""


@dataclass(frozen=True, eq=False)
class Leak:
    """A simulated leak, on a codeword reduced to the positions that carry a cell.

    Positions without a cell add nothing to a score, so they are left out: ``bias`` uint16[P] (P
    a multiple of 8) and ``bits`` uint8[c, P], the colluders' bits, cover the others, and
    ``evidence`` refers to them.
    """

    bias: NDArray[np.uint16]
    bits: NDArray[np.uint8]
    evidence: Evidence


def draw_bias(length: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return bias thresholds uint16[length] from the law of `pgbalise.marking.codes.bias`."""
    low = np.arcsin(np.sqrt(BIAS_CUTOFF))
    angle = rng.uniform(low, np.pi / 2 - low, length)
    return np.asarray(np.rint(np.sin(angle) ** 2 * THRESHOLD_SCALE), np.uint16)


def draw_codewords(
    bias: NDArray[np.uint16], recipients: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return codewords uint8[recipients, len(bias)] of 0 and 1, P(1) = bias / 65536."""
    uniform = rng.integers(THRESHOLD_SCALE, size=(recipients, bias.size), dtype=np.uint16)
    return (uniform < bias).astype(np.uint8)


def draw_leak(
    cells: int,
    coalition: int,
    strategy: Strategy,
    rng: np.random.Generator,
    *,
    log_odds: float = np.inf,
    length: int = CODE_LENGTH,
) -> Leak:
    """Return a leak of ``cells`` marked cells at random positions out of ``length``.

    A coalition of 0 leaks raw rows: every cell shows a symbol that no codeword has chosen.

    A finite ``log_odds`` b makes cells unreliable: a cell shows the other symbol with
    probability 1 / (1 + e**b), and its likelihoods say so.
    """
    drawn = rng.integers(length, size=cells)
    used, position = np.unique(drawn, return_inverse=True)
    bias = draw_bias(-(-max(used.size, 1) // 8) * 8, rng)
    bits = draw_codewords(bias, coalition, rng)
    if coalition:
        symbols = collude(bits[:, position], strategy, rng).astype(np.bool_)
    else:
        symbols = rng.random(cells) < 0.5
    error = np.exp(-np.logaddexp(0.0, log_odds))
    symbols ^= rng.random(cells) < error
    with np.errstate(divide="ignore"):
        likely, unlikely = np.log1p(-error), np.log(error)
    evidence = Evidence(
        position.astype(np.int32),
        np.where(symbols, unlikely, likely),
        np.where(symbols, likely, unlikely),
    )
    return Leak(bias, bits, evidence)


def log10_e_values(
    leak: Leak, codewords: NDArray[np.uint8], hypotheses: Sequence[Hypothesis] | None = None
) -> NDArray[np.float64]:
    """Return the e-values, float64[n], of codewords uint8[n, P] of 0 and 1 against a leak."""
    packed = np.packbits(codewords, axis=1, bitorder="little")
    return position_weights(leak.evidence, leak.bias, hypotheses).score(packed).log10_e_value


def colluder_evidence(
    cells: int,
    coalition: int,
    strategy: Strategy,
    *,
    trials: int,
    seed: int,
    hypotheses: Sequence[Hypothesis] | None = None,
) -> NDArray[np.float64]:
    """Return the largest log10 e-value among the colluders, float64[trials], one per leak.

    Trial k depends on ``seed`` and k alone.
    """
    grid = default_hypotheses() if hypotheses is None else hypotheses
    strongest = np.empty(trials)
    for trial in range(trials):
        rng = np.random.default_rng([seed, trial])
        leak = draw_leak(cells, coalition, strategy, rng)
        strongest[trial] = log10_e_values(leak, leak.bits, grid).max()
    return strongest


def detection(
    cells: int,
    coalition: int,
    strategy: Strategy,
    *,
    trials: int = 400,
    seed: int = 0,
    recipients: int = RECIPIENTS,
    alpha: float = ALPHA,
    hypotheses: Sequence[Hypothesis] | None = None,
) -> float:
    """Return the share of leaks in which at least one colluder is accused.

    The innocents are not drawn: theory bounds the probability that any of them is accused by
    ``alpha``, which no number of trials could see, and `innocent_e_values` checks that theory.
    """
    strongest = colluder_evidence(
        cells, coalition, strategy, trials=trials, seed=seed, hypotheses=hypotheses
    )
    return float(np.mean(strongest >= threshold_log10(recipients, alpha)))


def cells_needed(
    coalition: int,
    strategy: Strategy,
    *,
    power: float = 0.95,
    trials: int = 400,
    seed: int = 0,
    recipients: int = RECIPIENTS,
    alpha: float = ALPHA,
    precision: float = 0.01,
    hypotheses: Sequence[Hypothesis] | None = None,
) -> int:
    """Return the number of marked cells with which `detection` reaches ``power``.

    The size is doubled until enough and then bisected to within a share ``precision`` of itself.

    Raises `InvalidInput` if ``power`` or ``precision`` is outside (0, 1).
    """
    if not (0 < power < 1 and 0 < precision < 1):
        raise InvalidInput(f"power {power} or precision {precision} is not in (0, 1)")

    def enough(cells: int) -> bool:
        share = detection(
            cells,
            coalition,
            strategy,
            trials=trials,
            seed=seed,
            recipients=recipients,
            alpha=alpha,
            hypotheses=hypotheses,
        )
        return share >= power

    above = 32
    while not enough(above):
        above *= 2
    below = above // 2 if above > 32 else 0
    while above - below > max(1.0, precision * above):
        middle = (above + below) // 2
        if enough(middle):
            above = middle
        else:
            below = middle
    return above


def worst_cells_needed(
    coalition: int,
    strategies: Sequence[Strategy] = WORST_STRATEGIES,
    *,
    power: float = 0.95,
    trials: int = 400,
    seed: int = 0,
    recipients: int = RECIPIENTS,
    alpha: float = ALPHA,
    precision: float = 0.01,
    hypotheses: Sequence[Hypothesis] | None = None,
) -> int:
    """Return `cells_needed` for the strategy that needs most, of those listed.

    A lone recipient has no choice, so one strategy stands for all. Raises as `cells_needed`.
    """
    worst = 0
    for strategy in strategies if coalition > 1 else strategies[:1]:
        share = (
            detection(
                worst,
                coalition,
                strategy,
                trials=trials,
                seed=seed,
                recipients=recipients,
                alpha=alpha,
                hypotheses=hypotheses,
            )
            if worst
            else 0.0
        )
        if share < power:
            needed = cells_needed(
                coalition,
                strategy,
                power=power,
                trials=trials,
                seed=seed,
                recipients=recipients,
                alpha=alpha,
                precision=precision,
                hypotheses=hypotheses,
            )
            worst = max(worst, needed)
    return worst


def way_of(leak: Leak, codewords: NDArray[np.uint8] | None = None) -> Way:
    """Return a leak as `decode` takes it: the colluders come first, then ``codewords``."""
    bits = leak.bits if codewords is None else np.vstack([leak.bits, codewords])
    packed = np.packbits(bits, axis=1, bitorder="little")

    def words(wanted: int, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        yield packed[rows, :wanted]

    return Way(leak.evidence, leak.bias, np.arange(len(bits)), words)


def recall(
    cells: int,
    coalition: int,
    strategy: Strategy,
    *,
    trials: int = 100,
    seed: int = 0,
    recipients: int = RECIPIENTS,
    alpha: float = ALPHA,
) -> NDArray[np.int64]:
    """Return how many of the colluders are named in round 1 and in all, int64[trials, 2].

    The innocents are not drawn, as for `detection`.
    """
    named = np.zeros((trials, 2), np.int64)
    for trial in range(trials):
        leak = draw_leak(cells, coalition, strategy, np.random.default_rng([seed, trial]))
        threshold = threshold_log10(recipients, alpha)
        found = decode([way_of(leak)], coalition, threshold_log10=threshold)
        listed = [len(one) for one in found.rounds]
        named[trial] = sum(listed[:1]), sum(listed)
    return named


def innocent_e_values(
    leak: Leak,
    innocents: int,
    rng: np.random.Generator,
    hypotheses: Sequence[Hypothesis] | None = None,
) -> NDArray[np.float64]:
    """Return log10 e-values, float64[innocents], of recipients who had no part in a leak.

    Given the leak they are independent, each e-value with mean 1. Their law has a heavy tail:
    beyond a few dozen cells nearly all of the mean sits on events too rare to be drawn, so
    the sample mean tells something for small leaks only. For any size,
    P(e-value >= x) <= 1 / x (Markov), which exceedance counts can check.
    """
    return log10_e_values(leak, draw_codewords(leak.bias, innocents, rng), hypotheses)
