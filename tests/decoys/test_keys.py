from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.decoys.keys import (
    DAY,
    LEAST_MARGIN,
    Assigned,
    Ints,
    Numbering,
    Order,
    assign_keys,
    counted,
    draw_uuids,
    fresh_needed,
    learn_numbering,
    rising,
    safety_margin,
    stored_together,
    uuid_version,
    with_fresh,
)

MINUTE = 60_000_000
NOBODY = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def history(rows: int, missing: float, noise: int = 0, seed: int = 1) -> tuple[Ints, Ints]:
    """Numbers that skip some, and times to the minute that follow them."""
    random = np.random.default_rng(seed)
    keys = np.cumsum(1 + (random.random(rows) < missing) * random.integers(1, 4, rows))
    times = np.cumsum(random.integers(0, 60, rows)) * MINUTE
    return keys, times + random.integers(-noise, noise + 1, rows) * MINUTE if noise else times


def assign(
    numbering: Numbering,
    owners: Ints,
    times: Ints,
    *,
    used: tuple[Ints, Ints] = NOBODY,
    movable: bool = True,
    groups: Ints | None = None,
    seed: int = 2,
) -> Assigned:
    chance = np.random.default_rng(seed).random((len(owners), 2))
    groups = np.arange(len(owners)) if groups is None else groups
    timed = np.ones(len(owners), np.bool_)
    return assign_keys(numbering, owners, times, timed, groups, chance, used=used, movable=movable)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.3), st.sampled_from([0, 300, 10**7]))
def test_a_key_is_free_and_no_owner_has_it_twice(seed: int, missing: float, noise: int) -> None:
    keys, times = history(3_000, missing, noise, seed)
    numbering = learn_numbering(keys, int(keys[-1]) - 500, times=times)
    random = np.random.default_rng(seed)
    owners = np.sort(random.integers(0, 20, 400))
    holes = np.setdiff1d(np.arange(1, keys[-1]), keys)
    taken = holes[:: 1 + len(holes) // 30]
    used = (random.integers(0, 3, len(taken)), taken)
    found = assign(numbering, owners, random.choice(times, 400), used=used)
    there = found.keys >= 0
    assert not np.isin(found.keys[there], keys).any()
    assert (found.keys[there] <= keys[-1] - 500).all()
    drawn = list(zip(owners[there].tolist(), found.keys[there].tolist(), strict=True))
    before = set(zip(used[0].tolist(), taken.tolist(), strict=True))
    assert len(set(drawn) | before) == len(drawn) + len(before)


def test_holes_are_shared_between_owners() -> None:
    keys, times = history(20_000, 0.02)
    numbering = learn_numbering(keys, int(keys[-1]), times=times)
    wanted = np.tile(times[[5_000, 9_000, 14_000]], 50)
    found = assign(numbering, np.repeat(np.arange(50), 3), wanted)
    assert len(np.unique(found.keys)) == 3


def test_where_numbers_follow_time_decoys_do_too() -> None:
    keys, times = history(50_000, 0.04)
    numbering = learn_numbering(keys, int(keys[-1]), times=times)
    assert numbering.order is Order.EXACT
    wanted = np.random.default_rng(3).choice(times[:-2_000], 300) + 7 * MINUTE
    found = assign(numbering, np.repeat(np.arange(3), 100), wanted)
    assert found.out_of_order == 0
    at = np.searchsorted(keys, found.keys)
    assert (times[at - 1] <= found.times).all()
    assert (found.times <= times[at]).all()
    assert (found.times % MINUTE == 0).all()
    assert np.abs(found.times - wanted).max() <= numbering.reach
    # nor do they all have the time of the row before
    assert np.mean(found.times == times[at - 1]) < 0.2


def test_times_that_others_rest_on_stay() -> None:
    keys, times = history(50_000, 0.04)
    numbering = learn_numbering(keys, int(keys[-1]), times=times)
    wanted = times[1_000:40_000:777] + 1
    found = assign(numbering, np.zeros(len(wanted), np.int64), wanted, movable=False)
    assert (found.times == wanted).all()
    assert found.out_of_order > 0


def test_loose_order_stays_as_loose_as_it_is() -> None:
    random = np.random.default_rng(4)
    keys, times = history(50_000, 0.04, noise=60 * 24 * 40)
    numbering = learn_numbering(keys, int(keys[-1]), times=times)
    assert numbering.order is Order.LOOSE
    wanted = random.choice(times, 2_000)
    found = assign(numbering, np.arange(2_000), wanted)
    assert (found.times == wanted).all()
    trend = np.polyfit(keys, times, 3)
    real = np.std(times - np.polyval(trend, keys))
    mine = np.std(found.times - np.polyval(trend, found.keys))
    assert mine == pytest.approx(real, rel=0.15)


def test_without_an_order_keys_spread_like_the_real_ones() -> None:
    random = np.random.default_rng(5)
    keys, times = history(50_000, 0.04)
    numbering = learn_numbering(keys, int(keys[-1]), times=random.permutation(times))
    assert numbering.order is Order.NONE
    found = assign(numbering, np.arange(2_000), random.choice(times, 2_000))
    real = np.quantile(keys, [0.1, 0.5, 0.9])
    assert np.quantile(found.keys, [0.1, 0.5, 0.9]) == pytest.approx(real, rel=0.1)


def test_rows_stored_together_get_numbers_that_follow_each_other() -> None:
    random = np.random.default_rng(6)
    panels = np.repeat(np.arange(9_000), 2)
    step = np.ones(18_000, np.int64)
    step[::2] += 2 * (random.random(9_000) < 0.05)
    keys = np.cumsum(step)
    times = panels * 31 * MINUTE
    assert stored_together(keys, times, panels)
    numbering = learn_numbering(keys, int(keys[-1]), times=times, together=True)
    wanted = np.repeat(times[3_000:15_000:1_500], 2)
    found = assign(numbering, np.zeros(16, np.int64), wanted, groups=np.repeat(np.arange(8), 2))
    assert (np.diff(found.keys.reshape(-1, 2)) == 1).all()
    assert (np.diff(found.times.reshape(-1, 2)) == 0).all()
    assert not stored_together(random.permutation(keys), times, panels)


def test_what_holes_do_not_suffice_for_gets_new_numbers_that_owners_share() -> None:
    keys = np.array([1, 2, 4, 5, 7, 8])
    numbering = learn_numbering(keys, 8)
    owners = np.repeat(np.arange(4), 5)
    found = assign(numbering, owners, np.zeros(20, np.int64))
    assert fresh_needed(found.keys, owners) == 3
    assert found.out_of_order == 12
    complete = with_fresh(found.keys, owners, np.array([9, 10, 11]))
    for owner in range(4):
        assert sorted(complete[owners == owner].tolist()) == [3, 6, 9, 10, 11]


def test_gaps_between_windows_are_not_holes() -> None:
    keys = np.array([10, 11, 13, 500, 502, 503])
    windows = np.array([1, 1, 1, 2, 2, 2])
    assert learn_numbering(keys, 1_000, windows=windows).first.tolist() == [12, 501]
    assert 14 in learn_numbering(keys, 1_000).first.tolist()


def test_the_numbers_given_last_are_left_out() -> None:
    assert safety_margin(50_000) == LEAST_MARGIN
    assert safety_margin(50_000_000) == 50_000
    assert safety_margin(50_000, cache=100) == 10_000
    keys = np.arange(1, 9_999, 2)
    numbering = learn_numbering(keys, 9_000)
    assert numbering.first.max() <= 9_000
    assert (numbering.first + numbering.length - 1).max() <= 9_000


def test_a_relation_without_holes_or_rows_has_no_slots() -> None:
    for keys in (np.arange(100), np.zeros(0, np.int64)):
        numbering = learn_numbering(keys, 100)
        found = assign(numbering, np.zeros(3, np.int64), np.zeros(3, np.int64))
        assert (found.keys == -1).all()


def test_rising_tells_which_time_goes_with_the_numbers() -> None:
    keys, times = history(5_000, 0.1)
    random = np.random.default_rng(7)
    assert rising(times, keys) > 1
    assert 0.8 < rising(times + random.integers(0, 20 * DAY, 5_000), keys) < 1
    assert abs(rising(random.permutation(times), keys)) < 0.1
    assert rising(np.zeros(5_000, np.int64), keys) == -1


def test_counting_begins_anew_for_each_parent() -> None:
    assert counted(np.array([3, 3, 3, 5, 8, 8]), 1).tolist() == [1, 2, 3, 1, 1, 2]
    assert counted(np.zeros(0, np.int64), 1).tolist() == []


def test_uuids_are_of_the_columns_version_and_of_the_seed_alone() -> None:
    seeds = [bytes([n]) * 32 for n in range(3)]
    counts = np.array([2, 0, 3])
    times = np.arange(5) * DAY + 1_700_000_000_000_000
    fours = draw_uuids(seeds, "k", counts, 4, None)
    assert len(set(fours)) == 5
    assert {UUID(text).version for text in fours} == {4}
    assert draw_uuids(seeds[2:], "k", counts[2:], 4, None) == fours[2:]
    sevens = [UUID(text) for text in draw_uuids(seeds, "k", counts, 7, times)]
    assert {found.variant for found in sevens} == {"specified in RFC 4122"}
    assert [found.int >> 80 for found in sevens] == (times // 1_000).tolist()
    assert uuid_version([str(found) for found in sevens]) == 7
    assert uuid_version(fours) == 4
