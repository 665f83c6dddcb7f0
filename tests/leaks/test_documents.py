from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgbalise.leaks import open_leak
from pgbalise.leaks.documents import flat
from tests.leaks.test_delimited import only_table, rows_of

EXPECTED = [["1", "Zoé", "12.10"], ["2", None, "3"]]
OBJECTS = '{"id": 1, "nom": "Zoé", "v": 12.10}', '{"id": 2, "nom": null, "v": 3}'


@pytest.mark.parametrize(
    "text",
    [
        f"[{OBJECTS[0]}, {OBJECTS[1]}]",
        "[\n  " + ",\n  ".join(OBJECTS) + "\n]\n",
        "\n".join(OBJECTS),
        ",\n".join(OBJECTS) + "\n",
        f'{{"rows": [{", ".join(OBJECTS)}]}}',
        f'{{"status": "ok", "data": {{"n": 2, "items": [{", ".join(OBJECTS)}]}}}}',
        '{"id": [1, 2], "nom": ["Zoé", null], "v": [12.10, 3]}',
        '{"id": {"0": 1, "1": 2}, "nom": {"0": "Zoé", "1": null}, "v": {"0": 12.10, "1": 3}}',
        '{"columns": ["id", "nom", "v"], "data": [[1, "Zoé", 12.10], [2, null, 3]]}',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_rows_are_found_wherever_they_are_and_numbers_keep_their_digits(
    text: str, encoding: str
) -> None:
    table, rows = only_table(text.encode(encoding))
    assert (table.columns, table.named) == (("id", "nom", "v"), True)
    assert rows == EXPECTED


def test_lists_of_values_have_no_names() -> None:
    table, rows = only_table(b'[[1, "Zo\\u00e9", 12.10], [2, null, 3]]')
    assert (table.columns, table.named) == (("column 1", "column 2", "column 3"), False)
    assert rows == EXPECTED


def test_resources_of_a_bundle_become_columns_with_dotted_names() -> None:
    bundle = {
        "resourceType": "Bundle",
        "entry": [
            {"resource": {"id": "1", "name": [{"family": "Le Gall", "given": ["Zoé", "Ana"]}]}},
            {"resource": {"id": "2", "active": True}},
        ],
    }
    table, rows = only_table(json.dumps(bundle).encode())
    assert table.columns[:3] == (
        "resource.id",
        "resource.name.0.family",
        "resource.name.0.given.0",
    )
    assert rows[1] == ["2", None, None, None, "true"]


def test_a_column_may_appear_in_the_last_row(tmp_path: Path) -> None:
    path = tmp_path / "leak"
    lines = [f'{{"a": {n}}}' for n in range(70_000)] + ['{"b": "x", "a": 1}']
    path.write_text("\n".join(lines))
    with open_leak(path) as leak:
        (table,) = leak.tables
        assert table.columns == ("a", "b")
        rows = rows_of(table)
    assert len(rows) == 70_001
    assert rows[0] == ["0", None]
    assert rows[-1] == ["1", "x"]


def test_lists_in_one_object_are_a_table_each(tmp_path: Path) -> None:
    path = tmp_path / "leak.json"
    path.write_text('{"patients": [{"id": 1}], "labs": [{"v": 2}, {"v": 3}]}')
    with open_leak(path) as leak:
        names = [table.name for table in leak.tables]
    assert names == ["leak.json: patients", "leak.json: labs"]


@pytest.mark.parametrize("orient", ["records", "split", "columns", "table"])
def test_what_pandas_writes_comes_back(orient: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": [1, 2], "nom": ["Zoé\n", None], "v": [12.5, 3.25]})
    frame.to_json(tmp_path / "x", orient=orient)
    table, rows = only_table((tmp_path / "x").read_bytes())
    assert table.columns[-3:] == ("id", "nom", "v")
    assert [row[-3:] for row in rows] == [["1", "Zoé\n", "12.5"], ["2", None, "3.25"]]


@settings(max_examples=60, deadline=None)
@example([{"id": 0, "nom": None}, {"id": 0, "nom": "\x7f" * 9}], False, False)
@given(
    st.lists(
        st.fixed_dictionaries({"id": st.integers(), "nom": st.none() | st.text(max_size=9)}),
        min_size=2,
        max_size=6,
    ),
    st.booleans(),
    st.booleans(),
)
def test_any_text_comes_back(rows: list[dict[str, object]], lines: bool, escaped: bool) -> None:
    if lines:
        text = "\n".join(json.dumps(row, ensure_ascii=escaped) for row in rows)
    else:
        text = json.dumps(rows, ensure_ascii=escaped)
    if not escaped and "\0" in text:
        return
    table, read = only_table(text.encode())
    expected = [{**row, "id": str(row["id"])} for row in rows]
    assert [dict(zip(table.columns, row, strict=True)) for row in read] == expected


def test_nesting_is_flattened_without_recursion() -> None:
    value: object = 1
    for _ in range(5_000):
        value = [value]
    assert list(flat({"a": value}).values()) == [1]
