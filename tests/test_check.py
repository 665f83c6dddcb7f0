from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.check import FEW, check, distortion, problems
from pgbalise.errors import InvalidPolicy
from pgbalise.marking.embedding import Column
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import Carrier, load_policy
from pgbalise.session import connect

if TYPE_CHECKING:
    import psycopg

    from pgbalise.demo.cluster import ThrowawayCluster


def carrier(body: str) -> Carrier:
    text = f'[relation."s.t"]\nkey = {{ id = "integer" }}\n[relation."s.t".carrier.x]\n{body}'
    return load_policy(text).relation(None).carriers[0]


def numbers(*values: float) -> Column:
    array = np.array(values)
    return Column(array, np.ones(len(array), np.bool_))


def measured(chosen: Carrier, raw: Column, seed: int = 1, share: float = 1.0) -> Any:
    random = np.random.default_rng(seed)
    n = len(raw.values)
    row = np.flatnonzero(random.random(n) < share)
    up = random.random(len(row)) < 0.5
    bit = random.integers(0, 2, len(row)).astype(np.uint8)
    return distortion(chosen, raw, row, up, bit)


def test_counts_of_an_integer_carrier() -> None:
    chosen = carrier('type = "integer"\nquantum = 1\nbounds = [0, 300]\nskip = [99]')
    raw = numbers(*[50] * 1000, *[99] * 10, *[301] * 5)
    [part] = distortion(
        chosen,
        raw,
        np.arange(1015),
        np.ones(1015, np.bool_),
        np.ones(1015, np.uint8),
    )
    assert (part.cells, part.selected, part.changed) == (1015, 1015, 1000)
    assert part.unmarkable.skipped == 10
    assert part.unmarkable.out_of_bounds == 5
    assert part.unmarkable.total == 15
    assert part.mean_shift == pytest.approx(1000 / 1015)
    assert part.mean_after - part.mean_before == pytest.approx(part.mean_shift)
    assert part.mean_shift_in_sd == pytest.approx(part.mean_shift / np.std(raw.values))
    assert part.sd_before == pytest.approx(np.std(raw.values))
    assert part.largest_move == 1
    assert part.ks_distance == pytest.approx(1000 / 1015)
    assert part.harmless


def test_unselected_cells_stay() -> None:
    chosen = carrier('type = "numeric(5,1)"\nquantum = 0.1')
    raw = numbers(*range(100))
    [part] = distortion(
        chosen, raw, np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0, np.uint8)
    )
    assert (part.cells, part.selected, part.changed, part.ks_distance) == (100, 0, 0, 0.0)
    assert part.mean_before == pytest.approx(4.95)
    assert part.mean_shift == 0


def test_violations_are_seen_when_they_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A marker that ignores its own rules is caught by the comparison of values."""
    chosen = carrier(
        'type = "numeric(5,1)"\nquantum = 0.1\nbounds = [0, 20]\nthresholds = [7.0]\nskip = [9.9]'
    )
    lawless = carrier('type = "numeric(5,1)"\nquantum = 0.1')
    raw = numbers(70, 69, 200, 98, *range(100, 110))
    from pgbalise.marking.embedding import alternatives

    monkeypatch.setattr(
        "pgbalise.check.alternatives", lambda _, cells, up: alternatives(lawless, cells, up)
    )
    up, bit = np.ones(14, np.bool_), (1 - (raw.values & 1)).astype(np.uint8)
    [part] = distortion(chosen, raw, np.arange(14), up, bit)
    assert part.changed == 14
    assert part.threshold_crossings == 2  # 7.0 -> 7.1 and 6.9 -> 7.0
    assert part.left_bounds == 1
    assert part.onto_skipped == 1
    assert not part.harmless


def test_cornered_and_digits() -> None:
    chosen = carrier('type = "numeric"\nquantum = 0.1\nscale = 2\nthresholds = [1.0, 1.1]')
    raw = Column(
        np.array([100, 105, 500, 550] + [800] * 10),
        np.ones(14, np.bool_),
        scales=np.array([2, 2, 0, 1] + [2] * 10),
    )
    [part] = measured(chosen, raw)
    assert part.unmarkable.cornered == 2
    assert part.unmarkable.digits == 1
    floats = carrier('type = "double precision"\nquantum = 0.1')
    [part] = measured(floats, numbers(0.1, 0.12, np.nan, np.inf, *np.arange(10) / 10))
    # infinity lies outside the bounds, 0.12 has a digit too many
    assert (part.unmarkable.digits, part.unmarkable.out_of_bounds) == (2, 1)
    assert part.mean_shift is not None


def test_few_cells_tell_no_mean() -> None:
    chosen = carrier('type = "integer"\nquantum = 1')
    [part] = measured(chosen, numbers(*range(FEW - 1)))
    assert part.cells == FEW - 1
    assert part.mean_before is part.mean_after is part.sd_before is part.largest_move is None
    [part] = measured(chosen, numbers(*range(FEW)))
    assert part.mean_before == 2


def test_by_values_are_told_apart() -> None:
    chosen = carrier(
        'type = "numeric"\nby = { code = "text" }\n'
        '[relation."s.t".carrier.x.tolerance.a]\nquantum = 1\n'
        '[relation."s.t".carrier.x.tolerance.b]\nquantum = 0.1'
    )
    values = np.arange(300) * 10
    raw = Column(values, np.ones(300, np.bool_), by=np.arange(300) % 3 - 1)
    first, second = measured(chosen, raw)
    assert (first.by, second.by) == ("a", "b")
    assert first.cells == second.cells == 100
    assert (first.largest_move, second.largest_move) == (1.0, pytest.approx(0.1))


def test_categories() -> None:
    chosen = carrier('type = "text"\nequivalents = [["M", "male"], ["F", "female", "f"]]')
    raw = Column(np.array([-1] * 10 + [0, 1, 2, 3, 4] * 20), np.ones(110, np.bool_))
    [part] = measured(chosen, raw)
    assert part.unmarkable.not_listed == 10
    assert part.mean_before is None
    assert part.harmless
    assert 20 < part.changed < 80


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-50, 350), min_size=1, max_size=200),
    thresholds=st.lists(st.integers(-10, 310), max_size=4),
    skip=st.lists(st.integers(-10, 310), max_size=3),
    quantum=st.sampled_from([1, 2, 5]),
    seed=st.integers(0, 1000),
)
def test_marking_never_does_harm(
    values: list[int], thresholds: list[int], skip: list[int], quantum: int, seed: int
) -> None:
    chosen = carrier(
        f'type = "integer"\nquantum = {quantum}\nbounds = [0, 300]\n'
        f"thresholds = {thresholds}\nskip = {skip}"
    )
    [part] = measured(chosen, numbers(*values), seed, 0.8)
    assert part.harmless
    assert part.changed <= part.selected - part.unmarkable.total
    assert 0 <= part.ks_distance <= part.changed / part.cells
    if part.largest_move is not None:
        assert part.largest_move in (0, quantum)


POLICY = """
[relation."dpi.patient"]
key = { patient_id = "integer" }
[relation."dpi.patient".carrier.height_cm]
type = "numeric(5,1)"
quantum = 1
density = 0.5
[relation."dpi.patient".carrier.birth_date]
type = "date"
quantum = "1 day"
density = 0.5
[relation."dpi.patient".carrier.bmi]
type = "double precision"
quantum = 0.01
continuous = true
thresholds = [25, 30]
density = 0.5

[relation."dpi.lab_result"]
key = { result_id = "bigint" }
[relation."dpi.lab_result".carrier.value]
type = "numeric"
by = { test = "text" }
[relation."dpi.lab_result".carrier.value.tolerance.chol]
quantum = 1
thresholds = [50]
[relation."dpi.lab_result".carrier.value.tolerance.sbp]
quantum = 1
grid = 2
bounds = [40, 300]
[relation."dpi.lab_result".carrier.taken_at]
type = "timestamptz"
quantum = "1 minute"
"""


def test_check_of_the_cohort(cluster: ThrowawayCluster, dpi: psycopg.Connection[Any]) -> None:
    policy = load_policy(POLICY)
    with connect(cluster.dsn(dpi.info.dbname)) as session:
        report = check(session, policy, sample_rows=20_000)
        again = check(session, policy, sample_rows=20_000)
        other = check(session, policy, MasterKey(bytes(32)), sample_rows=20_000)
    assert report == again
    assert report != other
    assert report.harmless
    assert problems(report) == {}
    result, patient = report.relations
    assert patient.rows == 17_549
    assert 19_000 < result.rows <= 20_000
    birth, bmi, height = patient.carriers
    taken, value = result.carriers
    [nulls] = dpi.execute("SELECT count(*) FROM dpi.patient WHERE height_cm IS NULL").fetchone()  # type: ignore[misc]
    assert height.nulls == nulls
    [part] = height.parts
    [(mean, deviation)] = dpi.execute(
        "SELECT avg(height_cm)::float8, stddev_pop(height_cm)::float8 FROM dpi.patient"
    )
    assert part.mean_before == pytest.approx(mean)
    assert part.sd_before == pytest.approx(deviation)
    assert 0.47 < part.selected / part.cells < 0.53
    assert 0.22 < part.changed / part.cells < 0.28
    assert abs(part.mean_shift_in_sd) < 0.01
    assert part.ks_distance < 0.05
    assert birth.parts[0].largest_move == 1
    assert bmi.parts[0].threshold_crossings == 0
    assert {part.by for part in value.parts} == {"chol", "sbp"}
    assert value.without_tolerance > 0
    assert sum(
        part.cells for part in value.parts
    ) + value.without_tolerance + value.uncountable == (result.rows)
    assert taken.parts[0].largest_move == 60
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["harmless"] is True
    assert plain["relations"][1]["carriers"][2]["parts"][0]["changed"] == part.changed
    assert report.table().row_count == 6


def test_marks_exactly_what_a_marked_view_would(
    cluster: ThrowawayCluster, dpi: psycopg.Connection[Any]
) -> None:
    """The same cells change as pgbalise.mark changes for the same key and bits."""
    import pyarrow as pa

    from pgbalise.frames import mark

    key = MasterKey(bytes(range(32)))
    policy = load_policy(POLICY.split('[relation."dpi.lab_result"]', maxsplit=1)[0])
    rows = dpi.execute(
        "SELECT patient_id, height_cm::text, birth_date::text, bmi::text FROM dpi.patient"
    ).fetchall()
    names = ["patient_id", "height_cm", "birth_date", "bmi"]
    table = pa.table({name: [row[at] for row in rows] for at, name in enumerate(names)})
    marked = mark(table, policy, "someone", key)
    changed = [
        sum(x != y for x, y in zip(table[name].to_pylist(), marked[name].to_pylist(), strict=True))
        for name in ("birth_date", "bmi", "height_cm")
    ]
    with connect(cluster.dsn(dpi.info.dbname)) as session:
        report = check(session, policy, key)
    for count, seen in zip(changed, report.relations[0].carriers, strict=True):
        # half of the same selected cells, by other bits
        assert abs(count - seen.parts[0].changed) < 6 * (seen.parts[0].selected / 2) ** 0.5


def test_check_refuses_a_policy_that_does_not_fit(
    cluster: ThrowawayCluster, dpi: psycopg.Connection[Any]
) -> None:
    wrong = load_policy(POLICY.replace("numeric(5,1)", "numeric(6,1)"))
    with (
        connect(cluster.dsn(dpi.info.dbname)) as session,
        pytest.raises(InvalidPolicy, match=r"dpi\.patient: carrier height_cm"),
    ):
        check(session, wrong)


def test_entities_without_an_owner_and_infinite_dates(
    cluster: ThrowawayCluster, empty_db: psycopg.Connection[Any]
) -> None:
    empty_db.execute("CREATE TABLE t (id int PRIMARY KEY, owner int, born date, x numeric)")
    empty_db.execute(
        "INSERT INTO t SELECT i, CASE WHEN i > 10 THEN i / 5 END,"
        " CASE WHEN i % 2 = 0 THEN date '1970-01-01' + i / 5 ELSE 'infinity' END,"
        " CASE WHEN i = 1 THEN 'NaN' WHEN i = 2 THEN 1e30 ELSE i END"
        " FROM generate_series(1, 100) AS i"
    )
    policy = load_policy(
        '[relation."public.t"]\nkey = { id = "integer" }\n'
        '[relation."public.t".carrier.born]\ntype = "date"\nquantum = "1 day"\ndensity = 1\n'
        'entity = { owner = "integer" }\n'
        '[relation."public.t".carrier.x]\ntype = "numeric"\nquantum = 1\ndensity = 1'
    )
    with connect(cluster.dsn(empty_db.info.dbname)) as session:
        born, x = check(session, policy).relations[0].carriers
    assert (born.nulls, born.uncountable, born.without_owner) == (50, 0, 5)
    assert born.parts[0].selected == 45
    assert (x.nulls, x.uncountable, x.parts[0].cells) == (0, 2, 98)
