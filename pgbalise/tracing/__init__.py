"""From a leak to a verdict per recipient: noise, evidence, scores and decision. Pure code."""

from pgbalise.tracing.attacks import add_noise, collude, keep_rows, round_to_grid
from pgbalise.tracing.decision import RecipientVerdict, Verdict, decide, spend, threshold_log10
from pgbalise.tracing.decoding import Decoded, Way, decode
from pgbalise.tracing.noise import (
    CategoricalNoise,
    NoiseModel,
    cell_evidence,
    estimate_categorical_noise,
    estimate_noise,
)
from pgbalise.tracing.scoring import (
    Evidence,
    Hypothesis,
    PositionWeights,
    Scores,
    default_hypotheses,
    position_weights,
    score,
)

__all__ = [
    "CategoricalNoise",
    "Decoded",
    "Evidence",
    "Hypothesis",
    "NoiseModel",
    "PositionWeights",
    "RecipientVerdict",
    "Scores",
    "Verdict",
    "Way",
    "add_noise",
    "cell_evidence",
    "collude",
    "decide",
    "decode",
    "default_hypotheses",
    "estimate_categorical_noise",
    "estimate_noise",
    "keep_rows",
    "position_weights",
    "round_to_grid",
    "score",
    "spend",
    "threshold_log10",
]
