"""Trials that mark, attack and trace, on a relation like a laboratory's and on real patients."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pgbalise.demo.cohort import Table, build_cohort
from pgbalise.errors import InvalidInput
from pgbalise.frames import mark
from pgbalise.marking.codes import bias, codeword
from pgbalise.marking.policy import load_policy
from pgbalise.tracing.attacks.catalogue import attack_named
from pgbalise.tracing.robustness import SCORED, Plan, Rehearsal, changed_policy, settings, study
from pgbalise.tracing.trials import Setting, clopper_pearson

DEMO = load_policy((Path(__file__).parents[2] / "pgbalise/demo/policy.toml").read_text("utf-8"))
NAMES = [f"recipient_{n}" for n in range(1000)]
OPTIONS = {"alpha": 1e-6, "seed": 7}


def as_stored(table: Table) -> pa.Table:
    """A table of the cohort as the database prints it in UTC."""
    out = {}
    for name, texts in table.columns.items():
        column = pa.array(texts, pa.string())
        if name in ("taken_at", "recorded_at"):
            plain = pc.replace_substring(column, "T", " ")
            column = pc.binary_join_element_wise(plain, "+00", "")
        out[name] = column
    return pa.table(out)


@pytest.fixture(scope="module")
def cohort():
    return build_cohort(1)


@pytest.fixture(scope="module")
def patients(cohort) -> pa.Table:
    return as_stored(cohort.patient).slice(0, 8000)


@pytest.fixture(scope="module")
def rehearsal(patients) -> Rehearsal:
    return Rehearsal(DEMO, "dpi.patient", patients, NAMES, **OPTIONS)


def usual(name: str, colluders: int = 1) -> Setting:
    attack = attack_named(name)
    return Setting(attack, attack.usual, colluders, attack.keeps_key)


def test_copies_are_those_that_marking_gives(rehearsal, patients):
    rows = np.random.default_rng(1).permutation(patients.num_rows)[:3000]
    key = rehearsal._key
    word = codeword(key, "somebody", 1, bias(key, 1))
    expected = mark(patients, DEMO, "somebody", key, relation="dpi.patient").take(pa.array(rows))
    assert rehearsal._copier.copy(word, rows).equals(expected)


def test_intervals_are_those_of_clopper_and_pearson():
    # from tables of the beta distribution
    assert clopper_pearson(0, 10) == pytest.approx((0.0, 0.30850), abs=1e-4)
    assert clopper_pearson(10, 10) == pytest.approx((0.69150, 1.0), abs=1e-4)
    assert clopper_pearson(5, 10) == pytest.approx((0.18709, 0.81291), abs=1e-4)
    assert clopper_pearson(38, 40) == pytest.approx((0.83080, 0.99388), abs=1e-4)
    for hits, trials in ((3, 2), (-1, 5), (0, 0)):
        with pytest.raises(InvalidInput):
            clopper_pearson(hits, trials)


def test_a_thief_is_named_from_enough_rows_on_and_nobody_else_is(rehearsal):
    found = rehearsal.estimate(usual("none"), 1000, 5, sizes=True)
    assert (found.detected, found.false_accusations, found.not_traced) == (5, 0, 0)
    assert found.sizes is not None
    assert list(found.sizes) == sorted(found.sizes)
    assert 100 < found.rows_for(0.95) < 400
    assert found.rows_for(0.5) <= found.rows_for(0.95)
    # where a trial's size was found, it holds, and a good deal fewer rows do not do
    for number, trial in enumerate(found.trials):
        assert rehearsal.trial(found.setting, number, found.sizes[-1]).named
        assert not rehearsal.trial(found.setting, number, 40).named
        assert set(trial.decades) == {"height_cm", "weight_kg"}
        assert sum(trial.decades.values()) == pytest.approx(trial.strongest, abs=6)


def test_trials_repeat_and_share_thieves_and_rows(rehearsal, patients):
    again = Rehearsal(DEMO, "dpi.patient", patients, NAMES, **OPTIONS)
    first = [rehearsal.trial(usual("flip"), n, 300) for n in range(3)]
    assert first == [again.trial(usual("flip"), n, 300) for n in range(3)]
    pair = [rehearsal.trial(usual("mix", 2), n, 300) for n in range(3)]
    assert [trial.thieves for trial in first] == [trial.thieves[:1] for trial in pair]
    assert len({trial.thieves for trial in first}) == 3


def test_stronger_attacks_need_more_rows(rehearsal):
    needed = [
        rehearsal.estimate(Setting(attack_named("flip"), share), 300, 3, sizes=True).rows_for(0.5)
        for share in (0.0, 0.3)
    ]
    assert needed[0] < 0.75 * needed[1]


def test_an_attack_that_removes_every_mark_names_nobody(rehearsal):
    found = rehearsal.estimate(Setting(attack_named("resample"), 1.0), 400, 3, sizes=True)
    assert found.detected == 0
    assert found.rows_for() is None
    assert found.false_accusations == 0


def test_a_leak_that_cannot_be_traced_is_counted_as_such(rehearsal):
    other = Rehearsal(DEMO, "dpi.patient", rehearsal.stored.slice(0, 100), NAMES, **OPTIONS)
    found = other.estimate(Setting(attack_named("subset"), 0.01), 20, 3, sizes=False)
    assert (found.detected, found.not_traced) == (0, 3)


@pytest.fixture(scope="module")
def results(cohort) -> Rehearsal:
    stored = as_stored(cohort.lab_result).slice(0, 20_000)
    return Rehearsal(DEMO, "dpi.lab_result", stored, NAMES, **OPTIONS)


@pytest.mark.parametrize("relation", ["rehearsal", "results"])
@pytest.mark.parametrize("name", ["rekey", "keyless", "rename", "comma", "dates", "sort"])
def test_a_leak_that_looks_different_is_traced_as_well(request, relation, name):
    tried = request.getfixturevalue(relation)
    for number in range(2):
        plain, other = (tried.trial(usual(attack), number, 500) for attack in ("none", name))
        assert other.named == plain.named == 1
        assert other.wronged == 0
        assert other.cells >= 0.95 * plain.cells
        assert other.strongest > 0.9 * plain.strongest


def test_a_leak_without_its_key_needs_hardly_more_rows(rehearsal):
    with_key, without = (
        rehearsal.estimate(Setting(attack_named("none"), 1.0, 1, keyed), 300, 2, sizes=True)
        for keyed in (True, False)
    )
    assert without.rows_for(0.5) <= 1.2 * with_key.rows_for(0.5)


def test_few_leaks_tell_how_many_rows_are_needed(rehearsal):
    for name in ("none", "subset"):
        found = rehearsal.estimate(usual(name), 1000, 3, sizes=True)
        assert found.scored <= 7 * 3 * SCORED


@pytest.mark.parametrize(("name", "rows"), [("patient", 1000), ("lab_result", 600)])
def test_correlations_within_the_data_do_not_hide_the_thief(cohort, name, rows):
    """Fifteen cells in a hundred edited by who knows the data's joint distributions."""
    stored = as_stored(getattr(cohort, name)).slice(0, 20_000)
    tried = Rehearsal(DEMO, f"dpi.{name}", stored, NAMES, **OPTIONS)
    before, after = (
        tried.estimate(usual(attack), rows, 5, sizes=False) for attack in ("none", "correlation")
    )
    assert before.detected == after.detected == 5
    assert [t.thieves for t in before.trials] == [t.thieves for t in after.trials]
    assert after.false_accusations == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rows"), [("patient", 1000), ("lab_result", 600)])
def test_correlations_do_not_hide_thieves_in_many_trials(cohort, name, rows):
    tried = Rehearsal(DEMO, f"dpi.{name}", as_stored(getattr(cohort, name)), NAMES, **OPTIONS)
    before, after = (
        tried.estimate(usual(attack), rows, 60, sizes=False) for attack in ("none", "correlation")
    )
    low, high = before.interval
    assert low <= after.detection <= high
    assert before.false_accusations == after.false_accusations == 0


def test_what_to_try_is_a_grid():
    everything, quick = settings(), settings(quick=True)
    assert {s.attack.name for s in everything} == {s.attack.name for s in quick}
    assert len(quick) < len(everything)
    assert all(s.strength == s.attack.usual for s in quick)
    assert {s.colluders for s in settings(["majority", "flip"], [2, 4])} == {2, 4}
    assert {s.colluders for s in settings(["majority", "flip"], [1])} == {1}
    assert [s.keyed for s in settings(["flip", "rekey"], [1], quick=True)] == [True, False]
    assert not any(s.keyed for s in settings(keyed=False))
    with pytest.raises(InvalidInput):
        settings(["flop"])
    with pytest.raises(InvalidInput):
        settings(colluders=[0])


def test_changed_policies_are_still_policies():
    for change in ("density", "quantum"):
        other = changed_policy(DEMO, "dpi.lab_result", change, 3)
        for old, new in zip(
            DEMO.relation("dpi.lab_result").carriers,
            other.relation("dpi.lab_result").carriers,
            strict=True,
        ):
            assert (new.density == min(3 * old.density, 1)) == (change == "density")
            quanta = [
                (old.tolerances[by].quantum, new.tolerances[by].quantum) for by in old.tolerances
            ]
            assert all(b == (3 * a if change == "quantum" else a) for a, b in quanta)
        assert other.relation("dpi.patient") == DEMO.relation("dpi.patient")


def test_a_study_compares_attacks_and_policies(patients):
    chosen = settings(["none", "round", "interleave", "keyless"], [1, 2], quick=True)
    steps: list[tuple[str, int, int]] = []
    found = study(
        Plan(DEMO, "dpi.patient", patients, NAMES, **OPTIONS),
        chosen,
        rows=400,
        trials=2,
        progress=lambda *step: steps.append(step),
    )
    assert [e.setting for e in found.estimates] == chosen
    assert found.untouched is found.estimates[0]
    assert found.hardest is found.estimates[1]
    assert found.wronged == 0
    assert found.scored > 300
    denser, wider = found.variants
    assert (denser.change, wider.change) == ("density", "quantum")
    plain, _ = denser.estimates
    assert plain.rows_for() < found.untouched.rows_for()
    # the thief rounds to the same grid, which is half as many of the larger quanta
    assert wider.estimates[1].rows_for(0.5) < found.hardest.rows_for(0.5)
    assert all(a[1] <= b[1] <= b[2] for a, b in pairwise(steps))
    assert found.as_dict()["estimates"][0]["attack"] == "none"


def test_too_little_to_try_is_refused(patients):
    with pytest.raises(InvalidInput):
        Rehearsal(DEMO, "dpi.patient", patients.slice(0, 3), NAMES, **OPTIONS)
    with pytest.raises(InvalidInput):
        study(Plan(DEMO, "dpi.patient", patients, NAMES, **OPTIONS), [], rows=10, trials=3)
    small = Rehearsal(DEMO, "dpi.patient", patients, NAMES[:2], **OPTIONS)
    with pytest.raises(InvalidInput):
        small.trial(usual("majority", 3), 0, 100)
