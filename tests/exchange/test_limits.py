"""Token buckets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgbalise.exchange.limits import Buckets, Limit


@given(
    burst=st.integers(1, 20),
    rate=st.floats(0.1, 50),
    pauses=st.lists(st.floats(0, 5), min_size=1, max_size=200),
)
def test_no_more_calls_than_the_burst_and_the_time_allow(
    burst: int, rate: float, pauses: list[float]
) -> None:
    buckets, now, done = Buckets(Limit(rate, burst)), 1000.0, 0
    for pause in pauses:
        now += pause
        wait = buckets.take("a", now)
        done += not wait
        # what was counted may not be used up early; rounding of floats aside
        assert done <= burst + (now - 1000) * rate + 1e-6
        if wait:
            assert buckets.take("a", now + wait + 1e-9) == 0
            done += 1
            now += wait + 1e-9


def test_callers_have_buckets_of_their_own() -> None:
    buckets = Buckets(Limit(1, 2))
    assert [buckets.take("a", 0), buckets.take("a", 0), buckets.take("a", 0)] == [0, 0, 1]
    assert buckets.take("b", 0) == 0


def test_full_buckets_are_forgotten_and_empty_ones_are_not() -> None:
    buckets = Buckets(Limit(1, 1))
    for number in range(10_000):
        assert buckets.take(str(number), 0) == 0
    assert buckets.take("late", 0.5) == 0
    assert buckets.take("late", 0.5) > 0
    assert buckets.take("9999", 0.5) > 0
