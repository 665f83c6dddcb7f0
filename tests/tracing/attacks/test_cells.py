from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.marking.policy import Policy, load_policy
from pgbalise.tracing.attacks.cells import quanta, read, texts, write


def carrier(kind: str, **settings: str):
    body = "\n".join(f"{name} = {value}" for name, value in settings.items())
    return (
        load_policy(
            f'[relation."h.p"]\nkey = {{ id = "integer" }}\n[relation."h.p".carrier.v]\n'
            f'type = "{kind}"\n{body}'
        )
        .relations[0]
        .carriers[0]
    )


def test_what_is_read_is_written_as_it_was(policy: Policy, table: pa.Table) -> None:
    for one in policy.relations[0].carriers:
        column = read(table, one)
        rows = np.flatnonzero(column.valid & ((column.values >= 0) | (one.column != "unit")))
        scales = None if column.scales is None else column.scales[rows]
        written = texts(one, column.values[rows], scales)
        assert written.to_pylist() == table.column(one.column).take(pa.array(rows)).to_pylist()


@given(st.integers(-(10**12), 10**12), st.integers(0, 6), st.integers(0, 3))
def test_numbers_keep_their_decimals_unless_they_need_more(units, scale, fewer):
    one = carrier("numeric", quantum="0.000001", scale="6")
    written = max(scale - fewer, 0)
    [text] = texts(one, np.array([units]), np.array([written])).to_pylist()
    assert Decimal(text) == Decimal(units).scaleb(-6)
    places = len(text.partition(".")[2])
    assert places == (written if units % 10 ** (6 - written) == 0 else 6)


@pytest.mark.parametrize(
    ("kind", "settings", "values", "expected"),
    [
        ("timestamp with time zone", {"quantum": '"1 second"'}, [0, 1_500_000, 90_000_000],
         ["1970-01-01 00:00:00+00", "1970-01-01 00:00:01.5+00", "1970-01-01 00:01:30+00"]),
        ("timestamp without time zone", {"quantum": '"1 second"'}, [10],
         ["1970-01-01 00:00:00.00001"]),
        ("real", {"quantum": "0.1"}, np.array([0.1, 12.0], np.float32), ["0.1", "12"]),
        ("numeric(6,2)", {"quantum": "0.01"}, [-5, 100], ["-0.05", "1.00"]),
        ("date", {"quantum": '"1 day"'}, [-1], ["1969-12-31"]),
    ],
)  # fmt: skip
def test_values_look_as_postgresql_prints_them(kind, settings, values, expected):
    assert texts(carrier(kind, **settings), np.array(values), None).to_pylist() == expected


def test_each_cell_has_the_quantum_of_its_tolerance(policy: Policy, table: pa.Table) -> None:
    relation = policy.relations[0]
    dose = next(one for one in relation.carriers if one.column == "dose")
    steps = quanta(dose, read(table, dose))
    drug = np.array(table.column("drug").to_pylist())
    unit = 10**dose.scale
    assert set(steps[drug == "a"]) == {unit // 10}
    assert set(steps[drug == "b"]) == {5 * unit}
    assert set(steps[drug == "c"]) == {0}


def test_only_cells_that_differ_are_written(policy: Policy, table: pa.Table) -> None:
    age = policy.relations[0].carriers[0]
    column = read(table, age)
    values = column.values.copy()
    values[:10] += 1
    out = write(table, age, column, values)
    before, after = (t.column("age").to_pylist() for t in (table, out))
    assert after[10:] == before[10:]
    assert after[0] == str(int(before[0]) + 1)
    assert after[7] is None
    assert before[7] is None
