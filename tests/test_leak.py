from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.leak import as_text, copied_rows, read_leak
from pgbalise.marking.policy import Carrier, parse_policy
from pgbalise.trace import key_text, seen_units

if TYPE_CHECKING:
    from pathlib import Path


def carrier(**settings: object) -> Carrier:
    document = {"relation": {"d.r": {"key": {"id": "bigint"}, "carrier": {"c": settings}}}}
    return parse_policy(document).relations[0].carriers[0]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_is_read_as_text_whatever_its_delimiter(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "leak.csv"
    rows = [["id", "note"], ["007", '"a ""b"""'], ["", '""'], ["9", '"two\nlines"']]
    path.write_text("\ufeff" + "\n".join(delimiter.join(row) for row in rows) + "\n", "utf-8")
    leak = read_leak(path)
    assert leak.rows.to_pydict() == {"id": ["007", None, "9"], "note": ['a "b"', "", "two\nlines"]}
    assert leak.size == path.stat().st_size
    assert len(leak.sha256) == 64


def test_parquet_and_csv_of_the_same_rows_read_alike(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, None], pa.int32()),
            "value": pa.array([Decimal("12.10"), Decimal("0.00")], pa.decimal128(7, 2)),
            "kind": pa.array(["a", "b"]).dictionary_encode(),
        }
    )
    path = tmp_path / "leak.parquet"
    pyarrow.parquet.write_table(table, path)
    assert read_leak(path).rows.to_pydict() == {
        "id": ["1", None],
        "value": ["12.10", "0.00"],
        "kind": ["a", "b"],
    }


@given(
    st.lists(
        st.one_of(st.none(), st.text(st.characters(codec="ascii", exclude_characters="\0\r"))),
        min_size=1,
        max_size=9,
    )
)
def test_what_postgresql_copies_is_read_back(values: list[str | None]) -> None:
    body = "".join(
        "1," + ("" if v is None else '"' + v.replace('"', '""') + '"') + "\n" for v in values
    )
    assert copied_rows(body.encode(), ["n", "v"]).column("v").to_pylist() == values


def test_numbers_are_read_with_the_decimals_the_thief_left() -> None:
    texts = pa.array([" 12.1 ", "12.1049", "1e2", "+3", ".5", "12,5", "abc", None, "9" * 30])
    units, read, extra = seen_units(texts, carrier(type="numeric(7,2)", quantum="0.1"))
    assert extra == 3
    assert units[:5].tolist() == [1_210_000, 1_210_490, 10_000_000, 300_000, 50_000]
    assert read.tolist() == [True] * 5 + [False] * 4


def test_times_are_read_with_and_without_a_zone() -> None:
    texts = pa.array(
        [
            "2021-02-03 04:05:06",
            "2021-02-03T04:05:06Z",
            "2021-02-03 05:05:06.5+01",
            "2021-02-30 00:00:00",
            "?",
        ]
    )
    units, read, _ = seen_units(texts, carrier(type="timestamptz", quantum="1 second"))
    assert read.tolist() == [True, True, True, False, False]
    assert (units[:3] - units[0]).tolist() == [0, 0, 500_000]
    assert units[0] == np.datetime64("2021-02-03T04:05:06", "us").astype(np.int64)


def test_dates_are_read_when_they_exist() -> None:
    texts = pa.array(["2021-02-03", "2021-02-03 00:00:00", "2021-02-30", "03/02/2021"])
    units, read, _ = seen_units(texts, carrier(type="date", quantum="1 day"))
    assert read.tolist() == [True, True, False, False]
    assert units[0] == units[1] == np.datetime64("2021-02-03", "D").astype(np.int64)


@pytest.mark.parametrize(
    ("declared", "texts", "keys"),
    [
        ("bigint", ["17.0", " 17", "x", "1" * 19], ["17", "17", None, None]),
        ("smallint", ["32767", "32768", "-32768"], ["32767", None, "-32768"]),
        ("date", ["2021-02-03 00:00", "2021-02-30"], ["2021-02-03", None]),
        (
            "uuid",
            ["A" * 8 + "-0000-0000-0000-" + "0" * 12, "17"],
            ["a" * 8 + "-0000-0000-0000-" + "0" * 12, None],
        ),
        (
            "timestamptz",
            ["2021-02-03 04:05:06+01", "2021-02-30 00:00:00"],
            ["2021-02-03 03:05:06.000000", None],
        ),
        ("character(4)", ["a  ", "a"], ["a", "a"]),
        ("text", ["a ", None], ["a ", None]),
    ],
)
def test_keys_are_compared_as_postgresql_prints_them(
    declared: str, texts: list[str], keys: list[str]
) -> None:
    document = {
        "relation": {
            "d.r": {"key": {"id": declared}, "carrier": {"c": {"type": "integer", "quantum": 1}}}
        }
    }
    key = parse_policy(document).relations[0].key
    assert key_text(pa.table({"k": texts}), ["k"], key).column("id").to_pylist() == keys


def test_every_column_becomes_text() -> None:
    table = pa.table({"a": [1.5, None], "b": [True, False]})
    assert as_text(table).to_pydict() == {"a": ["1.5", None], "b": ["true", "false"]}
