from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest

from pgbalise.leaks import open_leak


def test_values_are_written_as_postgresql_prints_them(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([1, None], pa.int32()),
            "v": pa.array([Decimal("12.10"), Decimal("0.00")], pa.decimal128(7, 2)),
            "f": pa.array([0.1, 1e300]),
            "d": pa.array([date(2021, 2, 3), None]),
            "t": pa.array([datetime(2021, 2, 3, 4, 5, 6), None], pa.timestamp("us")),
            "b": pa.array([True, False]),
            "k": pa.array(["a", "é"]).dictionary_encode(),
            "x": pa.array([b"\xff\x00", None]),
            "u": pa.array([b"text", None]),
            "l": pa.array(["long", None], pa.large_string()),
            "z": pa.nulls(2),
            "i": pa.array([timedelta(seconds=1), None]),
            "a": pa.array([[1, 2], None]),
            "s": pa.array([{"p": 1, "q": {"r": "x"}}, None]),
        }
    )
    path = tmp_path / "leak"
    pyarrow.parquet.write_table(table.drop(["z"]), path)
    with open_leak(path) as leak:
        (read,) = leak.tables
        (batch,) = read.batches()
    assert read.named
    assert set(batch.schema.types) == {pa.string()}
    first, second = batch.to_pylist()
    assert first == {
        "n": "1",
        "v": "12.10",
        "f": "0.1",
        "d": "2021-02-03",
        "t": "2021-02-03 04:05:06.000000",
        "b": "true",
        "k": "a",
        "x": "\\xff00",
        "u": "text",
        "l": "long",
        "i": "0:00:01",
        "a": "[1, 2]",
        "s.p": "1",
        "s.q.r": "x",
    }
    assert second["f"] == "1e+300"
    assert second["s.p"] is second["s.q.r"] is second["n"] is None


@pytest.mark.parametrize("form", ["parquet", "feather", "stream"])
def test_all_rows_of_a_large_file_come_in_batches(form: str, tmp_path: Path) -> None:
    table = pa.table({"id": range(200_000), "nom": ["é"] * 200_000})
    path = tmp_path / "leak"
    match form:
        case "parquet":
            pyarrow.parquet.write_table(table, path)
        case "feather":
            pyarrow.feather.write_feather(table, path)
        case _:
            with pyarrow.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table)
    with open_leak(path) as leak:
        for _ in range(2):
            batches = list(leak.tables[0].batches())
            assert max(batch.num_rows for batch in batches) <= 65_536
            ids = [value for batch in batches for value in batch.column(0).to_pylist()]
            assert ids == [str(n) for n in range(200_000)]
