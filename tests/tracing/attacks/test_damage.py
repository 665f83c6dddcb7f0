from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pgbalise.errors import InvalidInput
from pgbalise.marking.embedding import alternatives
from pgbalise.tracing.attacks import damage
from pgbalise.tracing.attacks.cells import quanta, read


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def moves(policy, before: pa.Table, after: pa.Table):
    """For each carrier but texts: its name, quanta and how far each cell moved."""
    for carrier in policy.relations[0].carriers:
        if carrier.column != "unit":
            old, new = read(before, carrier), read(after, carrier)
            yield carrier.column, quanta(carrier, old), new.values - old.values


def test_a_subset_has_the_share_asked_for(table):
    kept = damage.subset(table, 0.3, rng())
    assert kept.num_rows == 150
    assert set(kept.column("id").to_pylist()) <= set(table.column("id").to_pylist())
    assert kept.column("id").to_pylist() != sorted(kept.column("id").to_pylist())


@pytest.mark.parametrize(("share", "left"), [(0.0, 6), (0.5, 3), (1.0, 1)])
def test_dropping_columns_spares_one_carrier(policy, table, share, left):
    relation = policy.relations[0]
    out = damage.drop_carriers(table, relation, share, rng())
    assert len(damage.present(out, relation)) == left
    assert {"id", "drug"} <= set(out.column_names)


def test_flipped_cells_carry_the_other_bit(policy, table):
    relation = policy.relations[0]
    out = damage.flip(table, relation, 0.4, rng())
    for carrier in relation.carriers:
        old, new = read(table, carrier), read(out, carrier)
        up = np.zeros(table.num_rows, np.bool_)
        before, after = (alternatives(carrier, column, up) for column in (old, new))
        changed = np.asarray(old.values != new.values) & old.valid
        assert changed[before.markable].mean() == pytest.approx(0.4, abs=0.09), carrier.column
        assert not changed[~before.markable].any()
        assert np.all(before.parity[changed] != after.parity[changed])


def test_noise_has_the_scale_asked_for_in_quanta(policy, table):
    out = damage.noise(table, policy.relations[0], 3.0, rng())
    for name, steps, moved in moves(policy, table, out):
        there = steps > 0
        assert (moved[there] / steps[there]).std() == pytest.approx(3.0, rel=0.2), name
        assert not moved[~there].any()
    with pytest.raises(InvalidInput):
        damage.noise(table, policy.relations[0], -1.0, rng())


def test_rounded_values_lie_on_the_grid_and_near(policy, table):
    out = damage.coarsen(table, policy.relations[0], 4.0)
    for carrier in policy.relations[0].carriers:
        old, new = read(table, carrier), read(out, carrier)
        steps = quanta(carrier, old)
        there = steps > 0
        if carrier.column == "unit":
            assert set(out.column("unit").to_pylist()) == {"g/L", "UI", "kg"}
            continue
        grid = new.values[there] / (4 * steps[there])
        np.testing.assert_allclose(grid, np.rint(grid), atol=1e-6)
        assert np.all(np.abs(new.values - old.values)[there] <= 2.000001 * steps[there])


def test_resampled_cells_are_those_of_rows_alike(policy, table):
    out = damage.resample(table, policy.relations[0], 0.5, rng())
    drug = np.array(table.column("drug").to_pylist())
    for name in ("a", "b", "c"):
        before, after = (
            np.array(t.column("dose").to_pylist(), object)[drug == name] for t in (table, out)
        )
        assert set(after) <= set(before)
        assert 0.35 < np.mean(before != after) < 0.6
    assert damage.resample(table, policy.relations[0], 0.0, rng()).equals(table)


def test_rows_of_another_origin_are_mixed_in(table):
    mine, others = table.slice(0, 100), table.slice(100, 30)
    out = damage.enlarge(mine, others, 0.2, rng())
    assert out.num_rows == 120
    assert set(mine.column("id").to_pylist()) < set(out.column("id").to_pylist())
    assert damage.enlarge(mine, others, 5.0, rng()).num_rows == 130


def test_sorting_keeps_the_rows(policy, table):
    out = damage.sort(table, policy.relations[0], rng())
    assert out.sort_by("id").equals(table.sort_by("id"))
    assert not out.equals(table)


def test_new_keys_are_numbers_that_mean_nothing(policy, table):
    out = damage.new_key(table, policy.relations[0], rng())
    assert sorted(map(int, out.column("id").to_pylist())) == list(range(1, 501))
    assert out.column("id").to_pylist() != table.column("id").to_pylist()
    assert out.column("age").equals(table.column("age"))
    assert "id" not in damage.drop_key(table, policy.relations[0]).column_names


def test_formats_change_how_values_look(table):
    comma, french = damage.decimal_comma(table), damage.french_dates(table)
    first = table.slice(0, 1).to_pylist()[0]
    assert comma.column("ratio")[0].as_py() == first["ratio"].replace(".", ",")
    assert comma.column("stored_at").equals(table.column("stored_at"))
    year, month, day = first["seen_on"].split("-")
    assert french.column("seen_on")[0].as_py() == f"{day}/{month}/{year}"
    year, month, rest = first["stored_at"].split("-")
    assert french.column("stored_at")[0].as_py() == f"{rest[:2]}/{month}/{year}{rest[2:]}"
    assert damage.rename(table).column_names == [f"champ_{n}" for n in range(1, 9)]


def test_impossible_shares_are_refused(policy, table):
    for attack in (damage.flip, damage.resample, damage.drop_carriers):
        with pytest.raises(InvalidInput):
            attack(table, policy.relations[0], 1.5, rng())
