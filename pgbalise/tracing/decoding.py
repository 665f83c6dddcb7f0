"""From evidence to one e-value per recipient, when several may have leaked together.

Round 1 scores everyone as if nobody were known (`pgbalise.tracing.scoring`). Whoever reaches the
threshold is named, and round r scores the others again with the codewords of those named so far
taken for known. A recipient's evidence is the sum over rounds of w_r E^(r), with weights w_r that
are fixed beforehand and sum to 1.

Why no innocent is named more often than promised: run the rounds on the guilty alone. What they
name, A_1, A_2, ..., depends on the leak and on the guilty's codewords, of which an innocent's is
independent, so each E^(r) given A_(r-1) has mean 1 for the innocent, and so has the sum. The rounds
run on everyone are the same ones until an innocent is named for the first time. So if one is
ever named, then an innocent's sum *in the rounds of the guilty* has reached N / alpha, and by
Markov's inequality that happens to any of them with probability at most alpha.

A recipient already named gets nothing for later rounds: its own codeword is then among those
known. Such terms are left out, which can only lower a sum.

Many recipients are scored in stages. A codeword is a stream whose beginning is cheaper to make
than all of it, and the score of the beginning is an e-value of its own: the mean of the whole one's
given the beginning. So those whose beginning scores no higher than a cut keep the e-value of the
beginning (a martingale, stopped). The cut is a quantile among codewords that nobody has, drawn for
the purpose. Were it one among the recipients, then an innocent's word would have a say in who
of the guilty is named, and the proof above would not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log10
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pgbalise.errors import InvalidInput
from pgbalise.tracing.scoring import Evidence, Hypothesis, PositionWeights, position_weights

ROUND_WEIGHTS = (0.9, 0.05, 0.025, 0.0125, 0.00625, 0.00625)
"""Weights of the rounds; they sum to 1. Round 1 costs 0.05 decades, and whoever a later round is
for has evidence enough there to pay the others' price."""

STAGED_FROM = 100_000
"""From so many recipients on, codewords are made in stages."""

STAGES = ((1 / 8, 48, 0.1), (3 / 8, 144, 0.01))
"""Share of the marked positions that a stage looks at, how many at least, and the share of
innocents that it lets pass to the next in round 1; the last stage looks at all."""

LATER_PASSING = 0.3
"""In later rounds so much of that share passes: beside those named, others stand out more."""

_KEPT_BYTES = 1 << 28
_KEPT_ROWS = 4096
_DRAWN = 4000

Words: TypeAlias = Callable[[int, NDArray[np.int64]], Iterator[NDArray[np.uint8]]]
"""``words(wanted, rows)`` yields, in blocks, the first ``wanted`` bytes of the packed codewords
(least bit first) of the members at ``rows`` int64, in that order: uint8[n, wanted]."""


@dataclass(frozen=True, eq=False)
class Way:
    """One way in which the leak may have been marked: a policy of an epoch.

    ``bias`` uint16[L]: thresholds t with p = t / 65536. ``members`` int64[M]: which of all the
    recipients had a codeword then; ``words`` makes those.
    """

    evidence: Evidence
    bias: NDArray[np.uint16]
    members: NDArray[np.int64]
    words: Words


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the leak says about each of the N recipients.

    ``log10_e_value`` float64[N]: the evidence against "is innocent". ``agreeing`` int64[N]: cells
    whose likelier symbol is the recipient's bit, in the likeliest way and among the cells looked at
    for it. ``best`` int64[N]: the index of the likeliest way. ``rounds``: who was named newly in
    each round, strongest first.
    """

    log10_e_value: NDArray[np.float64]
    agreeing: NDArray[np.int64]
    best: NDArray[np.int64]
    rounds: tuple[tuple[int, ...], ...]


def decode(
    ways: Sequence[Way],
    recipients: int,
    *,
    threshold_log10: float,
    hypotheses: Sequence[Hypothesis] | None = None,
    beside_log10: NDArray[np.float64] | None = None,
) -> Decoded:
    """Return the e-values of ``recipients`` recipients, colluders taken together.

    A recipient's e-value is the mean of those under each way, 0 where it had no codeword: an
    e-value again, whatever the ways have to do with each other. ``threshold_log10``: from where
    someone counts as named (`pgbalise.tracing.decision.threshold_log10`). ``hypotheses``: the
    grid of round 1. ``beside_log10`` float64[N]: what each recipient's e-value is multiplied by, an
    e-value that does not depend on codewords.

    Raises `InvalidInput` without a way or a recipient, and for members that are none of them.
    """
    if not ways or recipients < 1:
        raise InvalidInput("decoding needs a recipient and a way in which the leak was marked")
    for way in ways:
        if way.members.size and not 0 <= way.members.min() <= way.members.max() < recipients:
            raise InvalidInput("decoding: a member is none of the recipients")
    leaks = [_MarkedPositions(way) for way in ways]
    values = np.full((len(ways), recipients), -np.inf)
    agreeing = np.zeros((len(ways), recipients), np.int64)
    total = np.full(recipients, -np.inf)
    named: list[int] = []
    rounds: list[tuple[int, ...]] = []
    for weight in ROUND_WEIGHTS:
        for row, leak in enumerate(leaks):
            mine = leak.way.members
            scores, agree = leak.scores(named, hypotheses if not named else None)
            values[row, mine] = _log10_add(values[row, mine], log10(weight) + scores)
            if not named:
                agreeing[row, mine] = agree
        top = values.max(axis=0)
        shift = np.where(np.isfinite(top), top, 0.0)
        with np.errstate(divide="ignore"):
            total = shift + np.log10(np.sum(10.0 ** (values - shift), axis=0) / len(ways))
        if beside_log10 is not None:
            total = total + beside_log10
        reached = np.flatnonzero(total >= threshold_log10)
        new = np.setdiff1d(reached, named)
        if not new.size:
            break
        newly = tuple(int(j) for j in new[np.argsort(-total[new], kind="stable")])
        rounds.append(newly)
        named += newly
    best = values.argmax(axis=0)
    return Decoded(total, agreeing[best, np.arange(recipients)], best, tuple(rounds))


def _log10_add(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.logaddexp(one * np.log(10), other * np.log(10)) / np.log(10))


class _MarkedPositions:
    """A way reduced to the positions that carry a cell."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self._used = np.unique(way.evidence.position).astype(np.int64)
        self._length = -(-self._used.size // 8) * 8
        evidence = way.evidence
        slot = np.searchsorted(self._used, evidence.position).astype(np.int32)
        self._evidence = Evidence(slot, evidence.log_likelihood0, evidence.log_likelihood1)
        self._bias = np.full(self._length, 1 << 15, np.uint16)
        self._bias[: self._used.size] = way.bias[self._used]
        self._kept: dict[int, NDArray[np.uint8]] = {}

    def scores(
        self, named: Sequence[int], hypotheses: Sequence[Hypothesis] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the members' log10 e-values, and agreeing cells, given who is named."""
        members = self.way.members
        known = np.flatnonzero(np.isin(members, named))
        bits = np.zeros((0, self._length), np.uint8)
        if known.size:
            packed = np.concatenate(list(self._blocks(known, self._length)))
            bits = np.unpackbits(packed, axis=1, bitorder="little")
        weights = position_weights(self._evidence, self._bias, hypotheses, named=bits)
        value = np.full(members.size, -np.inf)
        agreeing = np.zeros(members.size, np.int64)
        rows = np.setdiff1d(np.arange(members.size), known)
        for count, share in self._stages(rows.size):
            beginning = weights.until(count)
            self._score(beginning, rows, value, agreeing)
            if count < self._length:
                passing = share * (LATER_PASSING if known.size else 1.0)
                rows = rows[value[rows] > self._cut(beginning, passing)]
        return value, agreeing

    def _cut(self, weights: PositionWeights, passing: float) -> float:
        """Return what a share ``passing`` of innocent codewords scores more than."""
        # not the key's codewords: the seed is of no consequence, as long as it is fixed
        rng = np.random.default_rng(0)
        drawn = rng.integers(1 << 16, size=(_DRAWN, weights.length), dtype=np.uint16)
        bits = np.packbits(drawn < self._bias[: weights.length], axis=1, bitorder="little")
        return float(np.quantile(weights.score(bits).log10_e_value, 1 - passing))

    def _score(
        self,
        weights: PositionWeights,
        rows: NDArray[np.int64],
        value: NDArray[np.float64],
        agreeing: NDArray[np.int64],
    ) -> None:
        at = 0
        for block in self._blocks(rows, weights.length):
            scored = weights.score(block)
            here = rows[at : at + len(block)]
            value[here] = scored.log10_e_value
            agreeing[here] = scored.agreeing
            at += len(block)

    def _stages(self, candidates: int) -> list[tuple[int, float]]:
        """Return for each stage the positions it looks at and the share of members passing it."""
        stages = []
        if candidates >= STAGED_FROM:
            for share, least, passing in STAGES:
                count = -(-max(ceil(share * self._used.size), least) // 8) * 8
                if count < self._length // 2:
                    stages.append((count, passing))
        return [*stages, (self._length, 1.0)]

    def _blocks(self, rows: NDArray[np.int64], length: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the members' bits at the first ``length`` used positions, packed.

        Those of all members are kept for the next round unless they are many.
        """
        if length not in self._kept:
            everyone = rows.size == self.way.members.size
            if not everyone or rows.size * length > 8 * _KEPT_BYTES:
                yield from self._made(rows, length)
                return
            kept = np.empty((rows.size, length // 8), np.uint8)
            at = 0
            for block in self._made(rows, length):
                kept[at : at + len(block)] = block
                at += len(block)
            self._kept[length] = kept
        for at in range(0, rows.size, _KEPT_ROWS):
            yield self._kept[length][rows[at : at + _KEPT_ROWS]]

    def _made(self, rows: NDArray[np.int64], length: int) -> Iterator[NDArray[np.uint8]]:
        used = self._used[:length]
        if not used.size:
            yield np.zeros((rows.size, 0), np.uint8)
            return
        wanted = int(used[-1]) // 8 + 1
        byte, bit = used >> 3, (used & 7).astype(np.uint8)
        for block in self.way.words(wanted, rows):
            if used.size == 8 * wanted:
                yield block
            else:
                bits = np.zeros((len(block), length), np.uint8)
                bits[:, : used.size] = (block[:, byte] >> bit) & 1
                yield np.packbits(bits, axis=1, bitorder="little")
