"""pgbalise.mark on the frames that people use."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import pgbalise
from pgbalise.errors import InvalidInput, InvalidPolicy
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass, parse_policy

KEY = MasterKey(bytes(range(32)))
POLICY = parse_policy(
    {
        "relation": {
            "dpi.lab": {
                "key": {"id": "bigint"},
                "carrier": {
                    "value": {"type": "numeric(7,2)", "quantum": "0.1", "density": "0.5"},
                    "score": {"type": "integer", "quantum": 1, "density": "0.5"},
                    "at": {
                        "type": "timestamptz",
                        "quantum": "1 minute",
                        "density": "0.5",
                        "neutral": True,
                    },
                },
            }
        }
    }
)
N = 400


def table() -> pa.Table:
    return pa.table(
        {
            "id": pa.array(range(N), pa.int64()),
            "value": pa.array(
                [Decimal(i).scaleb(-2) for i in range(1000, 1000 + N)], pa.decimal128(7, 2)
            ),
            "score": pa.array([None if i == 3 else i for i in range(N)], pa.int32()),
            "at": pa.array(
                [1_600_000_000_000_000 + i * 10**6 for i in range(N)], pa.timestamp("us", "UTC")
            ),
            "note": pa.array(["as it is"] * N),
        }
    )


def changed(before: pa.Table, after: pa.Table, column: str) -> list[int]:
    pairs = zip(before.column(column).to_pylist(), after.column(column).to_pylist(), strict=True)
    return [row for row, (a, b) in enumerate(pairs) if a != b]


def test_arrow_keeps_its_schema_and_a_quarter_of_the_cells_change() -> None:
    raw = table()
    marked = pgbalise.mark(raw, POLICY, "alice", KEY)
    assert marked.schema == raw.schema
    assert marked.column("note") == raw.column("note")
    for column in ("value", "score", "at"):
        assert 0.15 * N < len(changed(raw, marked, column)) < 0.35 * N
    assert marked.column("score")[3].as_py() is None


@pytest.mark.parametrize("shuffled", [False, True])
def test_pandas_and_polars_give_the_same_marks_and_keep_their_types(shuffled: bool) -> None:
    arrow = pgbalise.mark(table(), POLICY, "alice", KEY)
    pandas = table().to_pandas()
    if shuffled:
        pandas = pandas.sample(frac=1, random_state=1)
    out = pgbalise.mark(pandas, POLICY, "alice", KEY)
    assert isinstance(out, pd.DataFrame)
    assert out.dtypes.equals(pandas.dtypes)
    assert out.index.equals(pandas.index)
    assert out.sort_index()["value"].tolist() == arrow.column("value").to_pylist()
    assert out.sort_index()["at"].tolist() == arrow.to_pandas()["at"].tolist()
    frame = pl.from_arrow(table())
    assert isinstance(frame, pl.DataFrame)
    polar = pgbalise.mark(frame, POLICY, "alice", KEY)
    assert polar.schema == frame.schema
    assert polar["value"].to_list() == arrow.column("value").to_pylist()
    assert polar["score"].to_list() == arrow.column("score").to_pylist()


def test_a_numeric_column_of_floats_is_marked_as_decimals() -> None:
    exact = pgbalise.mark(table(), POLICY, "alice", KEY).column("value").to_pylist()
    floats = table().set_column(
        1, "value", pa.array([float(v) for v in table().column("value").to_pylist()])
    )
    assert pgbalise.mark(floats, POLICY, "alice", KEY).column("value").to_pylist() == [
        float(v) for v in exact
    ]


def test_the_frame_given_stays_as_it_is() -> None:
    pandas = table().to_pandas()
    before = pandas.copy()
    pgbalise.mark(pandas, POLICY, "alice", KEY)
    pd.testing.assert_frame_equal(pandas, before)


def test_recipients_differ_and_marks_are_always_the_same() -> None:
    alice, again, bob = (
        pgbalise.mark(table(), POLICY, who, KEY) for who in ("alice", "alice", "bob")
    )
    assert alice == again
    assert len(changed(alice, bob, "value")) > 0.1 * N


def test_care_gets_only_what_is_neutral() -> None:
    raw = table()
    marked = pgbalise.mark(raw, POLICY, "alice", KEY, recipient_class=RecipientClass.CARE)
    assert changed(raw, marked, "value") == changed(raw, marked, "score") == []
    assert changed(raw, marked, "at")


def test_wrong_frames_are_refused() -> None:
    with pytest.raises(InvalidInput, match="needs column id"):
        pgbalise.mark(table().drop_columns(["id"]), POLICY, "alice", KEY)
    with pytest.raises(InvalidInput, match="cannot be marked"):
        pgbalise.mark([1, 2], POLICY, "alice", KEY)
    with pytest.raises(InvalidInput, match="column id: a value is no bigint"):
        pgbalise.mark(table().set_column(0, "id", pa.array(["x"] * N)), POLICY, "alice", KEY)
    with pytest.raises(InvalidPolicy, match="no relation"):
        pgbalise.mark(table(), POLICY, "alice", KEY, relation="dpi.other")


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done: Any = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_marking_core_needs_only_numpy() -> None:
    loaded = modules_after(
        "import pgbalise.marking.cells, pgbalise.marking.codes, pgbalise.marking.embedding"
    )
    assert "numpy" in loaded
    assert not loaded & {"pyarrow", "pandas", "polars", "sqlglot", "psycopg", "typer", "rich"}
