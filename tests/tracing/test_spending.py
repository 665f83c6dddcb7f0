"""Looking again and again at a growing case: alpha is spent, so the bound holds for all looks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pgbalise.tracing.decision import spend, threshold_log10
from pgbalise.tracing.scoring import Evidence, default_hypotheses, position_weights
from pgbalise.tracing.simulate import draw_bias, draw_codewords

INNOCENT, LEAKS, CELLS, POSITIONS, TRIALS, ALPHA = 3, 20, 10, 256, 150, 0.3


def looked_at(trial: int) -> NDArray[np.float64]:
    """The strongest innocent's log10 e-value at each look.

    After every leak that is found the auditor looks at it alone, then at all found so far. All are
    copies of others, of whom nobody is enrolled.
    """
    rng = np.random.default_rng([20, trial])
    bias = draw_bias(POSITIONS, rng)
    words = np.packbits(draw_codewords(bias, INNOCENT, rng), axis=1, bitorder="little")
    found: list[Evidence] = []
    strongest = []
    for _ in range(LEAKS):
        position = rng.integers(POSITIONS, size=CELLS).astype(np.int32)
        shown = draw_codewords(bias, 1, rng)[0][position] == 1
        ruled_out = np.full(CELLS, -np.inf)
        found.append(
            Evidence(position, np.where(shown, ruled_out, 0), np.where(shown, 0, ruled_out))
        )
        for evidence in (found[-1], Evidence.concatenate(found)):
            weights = position_weights(evidence, bias, default_hypotheses()[:1])
            strongest.append(weights.score(words).log10_e_value.max())
    return np.array(strongest)


def test_all_looks_together_accuse_falsely_no_more_often_than_alpha() -> None:
    spent = [threshold_log10(INNOCENT, spend(ALPHA, look)) for look in range(1, 2 * LEAKS + 1)]
    unspent = threshold_log10(INNOCENT, ALPHA)
    falsely = {"spent": 0, "unspent": 0}
    for trial in range(TRIALS):
        strongest = looked_at(trial)
        falsely["spent"] += bool(np.any(strongest >= spent))
        falsely["unspent"] += bool(np.any(strongest >= unspent))
    assert falsely["spent"] <= ALPHA * TRIALS
    # each look at alpha is too often: so these looks can break the bound
    assert falsely["unspent"] > 1.5 * ALPHA * TRIALS


@pytest.mark.parametrize("alpha", [1e-9, 0.05])
def test_what_is_spent_never_passes_alpha_and_comes_to_all_of_it(alpha: float) -> None:
    looks = 10_000
    spent = sum(spend(alpha, look) for look in range(1, looks + 1))
    assert spent == pytest.approx(alpha * (1 - 1 / (looks + 1)))
    assert spend(alpha, 1) == alpha / 2
