"""Decoys' rows: drawn from their own seeds, agreeing with themselves, nobody's copy."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from bench.decoys import auc, patient_features, row_features, samples_of
from pgbalise.decoys.columns import Column, ColumnKind, Sample
from pgbalise.decoys.nearness import nearness
from pgbalise.decoys.population import Population, fit_population
from pgbalise.decoys.relations import completed_years
from pgbalise.demo.cohort import build_cohort
from pgbalise.errors import InvalidInput


def seeds_of(count: int, word: str = "seed") -> list[bytes]:
    return [hashlib.sha256(f"{word} {number}".encode()).digest() for number in range(count)]


@pytest.fixture(scope="module")
def cohort() -> list[Sample]:
    return samples_of(build_cohort())


@pytest.fixture(scope="module")
def population(cohort: list[Sample]) -> Population:
    return fit_population(cohort, b"test")


@pytest.fixture(scope="module")
def drawn(population: Population) -> tuple[Sample, ...]:
    return population.draw(seeds_of(4000))


def number(name: str, values: object, valid: object = None) -> Column:
    array = np.asarray(values, np.float64)
    known = np.ones(len(array), bool) if valid is None else np.asarray(valid, bool)
    return Column(name, ColumnKind.NUMBER, array, known)


def category(name: str, codes: object, names: tuple[str, ...]) -> Column:
    array = np.asarray(codes, np.int64)
    return Column(name, ColumnKind.CATEGORY, array, np.ones(len(array), bool), names)


def moments(name: str, kind: ColumnKind, values: object) -> Column:
    array = np.asarray(values, np.int64)
    return Column(name, kind, array, np.ones(len(array), bool))


def same(one: tuple[Sample, ...], other: tuple[Sample, ...]) -> bool:
    for left, right in zip(one, other, strict=True):
        if not np.array_equal(left.parent_row, right.parent_row):
            return False
        for a, b in zip(left.columns, right.columns, strict=True):
            if not np.array_equal(a.valid, b.valid):
                return False
            if not np.array_equal(a.values[a.valid], b.values[b.valid]):
                return False
    return True


def entities(samples: tuple[Sample, ...], chosen: slice) -> tuple[Sample, ...]:
    from pgbalise.decoys.population import take

    return take(samples, np.arange(len(samples[0]))[chosen])


@pytest.mark.slow
def test_a_decoy_depends_on_its_own_seed_only(
    population: Population, drawn: tuple[Sample, ...]
) -> None:
    seeds = seeds_of(4000)
    assert same(population.draw(seeds[:50]), entities(drawn, slice(0, 50)))
    assert same(population.draw(seeds[900:903]), entities(drawn, slice(900, 903)))
    assert same(population.draw([seeds[7], *seeds[:3]]), entities(drawn, slice(0, 0))) is False


@pytest.mark.slow
def test_rows_are_not_told_from_real_ones(cohort: list[Sample], drawn: tuple[Sample, ...]) -> None:
    for real, decoy in zip(cohort, drawn, strict=True):
        one, other = row_features(real), row_features(decoy)
        some = np.random.default_rng(1)
        count = min(len(real), len(decoy), 8000)
        here, there = (some.choice(len(part), count, replace=False) for part in (real, decoy))
        mean, _ = auc(
            {name: values[here] for name, values in one.items()},
            {name: values[there] for name, values in other.items()},
            splits=2,
        )
        assert mean <= 0.55, real.name


@pytest.mark.slow
def test_columns_that_follow_from_others_do(drawn: tuple[Sample, ...]) -> None:
    patient, lab, _ = drawn
    age = completed_years(
        patient.column("birth_date").values.astype(np.int64),
        patient.column("included_on").values.astype(np.int64),
    )
    assert (age == patient.column("age").values).all()
    bmi, height, weight = (patient.column(name) for name in ("bmi", "height_cm", "weight_kg"))
    known = bmi.valid & height.valid & weight.valid
    ratio = weight.values[known] / (height.values[known] / 100) ** 2
    assert np.abs(bmi.values[known] / ratio - 1).max() < 0.02
    assert (lab.column("recorded_at").values >= lab.column("taken_at").values).all()
    names = lab.column("test").categories
    test, value = lab.column("test").values, lab.column("value").values
    moment = np.stack([lab.parent_row, lab.column("taken_at").values], axis=1)
    chol, hdl = (test == names.index(name) for name in ("chol", "hdl"))
    found = {tuple(key): one for key, one in zip(moment[chol].tolist(), value[chol], strict=True)}
    pairs = [
        (found[tuple(key)], one)
        for key, one in zip(moment[hdl].tolist(), value[hdl], strict=True)
        if tuple(key) in found
    ]
    assert len(pairs) > 0.99 * hdl.sum()
    assert np.mean([one == other for one, other in pairs]) > 0.98


@pytest.mark.slow
def test_no_decoy_is_nearer_than_patients_are_to_each_other(
    cohort: list[Sample], drawn: tuple[Sample, ...]
) -> None:
    found = nearness(cohort, drawn)
    assert found.identical == 0
    assert found.nearer == 0
    assert 0.8 < found.median < 1.3
    assert nearness(cohort, cohort).identical == len(cohort[0])


@pytest.mark.slow
def test_rows_are_in_the_order_of_their_patient_then_time(drawn: tuple[Sample, ...]) -> None:
    for sample, name in zip(drawn[1:], ("taken_at", "diagnosed_on"), strict=True):
        step = np.diff(sample.parent_row)
        assert (step >= 0).all()
        assert (np.diff(sample.column(name).values)[step == 0] >= 0).all()
        assert sample.parent_row.max() < len(drawn[0])


def test_what_fewer_than_five_have_is_never_drawn() -> None:
    random = np.random.default_rng(2)
    code = random.integers(0, 3, 300)
    code[:4] = 3
    sample = Sample("s.patient", (category("ward", code, ("a", "b", "c", "secret")),))
    ward = fit_population([sample], b"x").draw(seeds_of(3000))[0].column("ward")
    assert set(ward.values.tolist()) == {0, 1, 2}


def test_numbers_keep_their_decimals_and_their_heaps() -> None:
    random = np.random.default_rng(3)
    fee = np.where(random.random(500) < 0.4, 0.0, np.round(random.gamma(2.0, 30.0, 500), 1))
    sample = Sample("s.patient", (number("fee", fee),))
    found = fit_population([sample], b"x").draw(seeds_of(2000))[0].column("fee").values
    assert (np.round(found, 1) == found).all()
    assert abs((found == 0).mean() - 0.4) < 0.06
    assert found.max() < fee.max()


@pytest.mark.parametrize("count", [20, 30])
def test_little_is_enough(count: int) -> None:
    random = np.random.default_rng(4)
    sample = Sample(
        "s.patient",
        (
            number("constant", np.full(count, 3.0)),
            number("nothing", np.zeros(count), np.zeros(count)),
            category("only", np.zeros(count), ("one",)),
            moments("born", ColumnKind.DATE, random.integers(0, 9000, count)),
        ),
    )
    found = fit_population([sample], b"x").draw(seeds_of(40))[0]
    assert len(found) == 40
    assert (found.column("constant").values == 3).all()
    assert not found.column("nothing").valid.any()
    assert (found.column("only").values == 0).all()


def test_nobody_is_drawn_from_no_seed() -> None:
    sample = Sample("s.patient", (number("n", np.arange(40.0)),))
    assert len(fit_population([sample], b"x").draw([])[0]) == 0


def test_children_of_children_hang_on_their_parents() -> None:
    random = np.random.default_rng(5)
    patients, stays = 200, 500
    whose = np.sort(random.integers(0, patients, stays))
    admitted = random.integers(10_000, 12_000, stays)
    stay = Sample(
        "s.stay",
        (
            moments("admitted", ColumnKind.DATE, admitted),
            moments("left", ColumnKind.DATE, admitted + random.integers(1, 20, stays)),
            category("ward", random.integers(0, 3, stays), ("a", "b", "c")),
        ),
        0,
        whose,
    )
    of = np.sort(random.integers(0, stays, 1500))
    act = Sample(
        "s.act",
        (
            moments(
                "done",
                ColumnKind.TIMESTAMP,
                (admitted[of] * 24 + random.integers(0, 48, 1500)) * 3_600_000_000,
            ),
            number("price", random.integers(1, 50, 1500)),
        ),
        1,
        of,
    )
    patient = Sample("s.patient", (number("height", np.round(random.normal(170, 9, patients))),))
    drawn = fit_population([patient, stay, act], b"x").draw(seeds_of(300))
    assert 1.5 < len(drawn[1]) / 300 < 3.5
    assert 2 < len(drawn[2]) / len(drawn[1]) < 4
    left, came = drawn[1].column("left").values, drawn[1].column("admitted").values
    assert ((left - came >= 1) & (left - came < 20)).all()
    hours = drawn[2].column("done").values / 3.6e9 - came[drawn[2].parent_row] * 24
    assert ((hours >= 0) & (hours < 48)).all()


def test_too_few_patients_are_refused_by_name() -> None:
    sample = Sample("dpi.patient", (number("n", np.arange(19.0)),))
    with pytest.raises(InvalidInput, match=r"dpi\.patient"):
        fit_population([sample], b"x")


@pytest.mark.slow
def test_patients_are_hard_to_tell_over_all_relations(
    cohort: list[Sample], population: Population, drawn: tuple[Sample, ...]
) -> None:
    features = patient_features(cohort)
    some = np.random.default_rng(6).choice(len(cohort[0]), 4000, replace=False)
    real = {name: values[some] for name, values in features.items()}
    mean, _ = auc(real, patient_features(drawn), splits=1)
    assert mean <= 0.60
