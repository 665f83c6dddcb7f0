"""A carrier's cells, gathered while a leak streams by."""

from __future__ import annotations

import numpy as np
import pytest

from pgbalise.errors import InvalidInput
from pgbalise.marking.cells import carrier_secret, select
from pgbalise.marking.codes import CODE_LENGTH, dither
from pgbalise.marking.embedding import Column, alternatives
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import parse_policy
from pgbalise.tracing.alignment import CarrierCells

CARRIER = {"type": "numeric(8,1)", "quantum": "0.1", "bounds": ["0", "1000"], "density": "0.5"}
POLICY = parse_policy(
    {"relation": {"h.r": {"key": {"id": "bigint"}, "carrier": {"value": CARRIER}}}}
)
RELATION = POLICY.relations[0]
(ONLY,) = RELATION.carriers
KEY = MasterKey(bytes(range(32)))
SECRET = carrier_secret(KEY, POLICY, RELATION, ONLY)
HOW = (ONLY, POLICY.derivation, SECRET, dither(KEY, POLICY.epoch))
BITS = np.random.default_rng(9).integers(2, size=CODE_LENGTH).astype(np.uint8)


class Rows:
    """Rows of one recipient's copy, by their keys."""

    def __init__(self, ids):
        self.ids = np.asarray(ids, np.int64)
        stored = 400 + np.random.default_rng(1).integers(0, 3000, 100_000)[self.ids]
        self.stored = Column(stored, np.ones(len(stored), np.bool_))
        cells = select(SECRET, ONLY, POLICY.derivation, [self.ids])
        options = alternatives(ONLY, self.stored.take(cells.row), cells.up)
        self.seen = stored.copy()
        target = HOW[3][cells.position] ^ BITS[cells.position]
        self.seen[cells.row] = options.embedded(stored[cells.row], target)
        self.marked = cells.row[options.markable]

    def arguments(self, part=slice(None), seen=None, extra=0):
        shown = (self.seen if seen is None else seen)[part] * 10**extra
        every = np.ones(len(shown), np.bool_)
        stored = Column(self.stored.values[part], every)
        return [self.ids[part]], every, stored, shown, every, extra


def carrier_evidence(carrier, derivation, secret, dither, *rows, probability=None, stratum=None):
    """What rows say that are all at hand."""
    cells = CarrierCells(carrier, derivation, secret, dither)
    cells.add(*rows, probability=probability, stratum=stratum)
    return cells.evidence()


def gain(evidence):
    """Return the evidence for the recipient's bits, in natural logarithms."""
    sign = np.where(BITS[evidence.position] == 1, 1, -1)
    return sign * (evidence.log_likelihood1 - evidence.log_likelihood0)


def test_batches_give_what_all_rows_at_once_give():
    rows = Rows(np.arange(70_000))
    rng = np.random.default_rng(0)
    seen = np.where(rng.random(70_000) < 0.2, rows.seen // 10 * 10, rows.seen)
    probability = rng.choice([0.3, 1.0], 70_000)
    stratum = rng.integers(2, size=70_000).astype(np.int8)
    whole = carrier_evidence(
        *HOW, *rows.arguments(seen=seen), probability=probability, stratum=stratum
    )
    cells = CarrierCells(*HOW)
    for part in (slice(0, 5), slice(5, 41_000), slice(41_000, 70_000)):
        cells.add(*rows.arguments(part, seen), probability=probability[part], stratum=stratum[part])
    cut = cells.evidence()
    assert cut.noise == whole.noise
    assert cut.marked == whole.marked == len(rows.marked)
    for name in ("position", "log_likelihood0", "log_likelihood1"):
        np.testing.assert_array_equal(getattr(cut.evidence, name), getattr(whole.evidence, name))


def test_batches_may_differ_in_decimals():
    rows = Rows(np.arange(2000))
    cells = CarrierCells(*HOW)
    cells.add(*rows.arguments(slice(0, 1000)))
    cells.add(*rows.arguments(slice(1000, 2000), extra=3))
    found = cells.evidence()
    assert found.extra == 3
    assert len(found.evidence) == len(rows.marked)
    assert float(gain(found.evidence).min()) > 5


def test_a_cell_seen_ten_times_with_one_value_counts_once():
    once = carrier_evidence(*HOW, *Rows(np.arange(600)).arguments())
    ids = np.random.default_rng(2).permutation(np.repeat(np.arange(600), 10))
    often = carrier_evidence(*HOW, *Rows(ids).arguments())
    assert often.marked == once.marked
    assert gain(often.evidence).sum() == pytest.approx(gain(once.evidence).sum(), rel=0.2)


def test_copied_rows_that_went_wrong_do_not_outweigh_the_others():
    # one patient's rows were copied a hundred times, with a value changed at the source since
    ids = np.concatenate([np.arange(600), np.repeat(Rows(np.arange(600)).marked[:3], 100)])
    rows = Rows(ids)
    seen = rows.seen.copy()
    seen[600:] = 2 * rows.stored.values[600:] - seen[600:]
    found = carrier_evidence(*HOW, *rows.arguments(seen=seen))
    assert gain(found.evidence).sum() > 0.8 * 600 * 0.5 * 3


def test_of_a_cell_and_value_the_likeliest_row_counts():
    rows = Rows(np.repeat(np.arange(500), 2))
    probability = np.tile([0.2, 0.9], 500)
    better = carrier_evidence(
        *HOW, *Rows(np.arange(500)).arguments(), probability=np.full(500, 0.9)
    )
    both = carrier_evidence(*HOW, *rows.arguments(), probability=probability)
    assert gain(both.evidence).sum() == pytest.approx(gain(better.evidence).sum(), rel=0.05)


def test_rows_that_may_be_others_say_less():
    rows = Rows(np.arange(1000))
    sums = [
        gain(
            carrier_evidence(
                *HOW, *rows.arguments(), probability=np.full(1000, probability)
            ).evidence
        ).sum()
        for probability in (0.0, 0.5, 1.0)
    ]
    assert sums[0] == 0
    assert sums[1] == pytest.approx(np.log(3) * len(rows.marked), rel=0.1)
    assert sums[2] > 5 * sums[1]


def test_rows_known_to_be_unreliable_do_not_spoil_the_others():
    rows = Rows(np.arange(20_000))
    bad = np.random.default_rng(3).random(20_000) < 0.5
    seen = np.where(bad, np.random.default_rng(4).permutation(rows.stored.values), rows.seen)
    told = carrier_evidence(*HOW, *rows.arguments(seen=seen), stratum=bad.astype(np.int8))
    untold = carrier_evidence(*HOW, *rows.arguments(seen=seen))
    assert gain(told.evidence).sum() > 1.05 * gain(untold.evidence).sum()


def test_what_changed_at_the_source_is_told():
    rows = Rows(np.arange(8000))
    changed = np.random.default_rng(5).random(8000) < 0.15
    seen = np.where(changed, np.random.default_rng(6).permutation(rows.seen), rows.seen)
    found = carrier_evidence(*HOW, *rows.arguments(seen=seen))
    assert found.changed_share == pytest.approx(0.15, abs=0.03)
    assert carrier_evidence(*HOW, *rows.arguments()).changed_share < 0.005


def test_nothing_added_is_refused():
    with pytest.raises(InvalidInput):
        CarrierCells(*HOW).evidence()
