"""A leak's columns are found by their content, whatever they are called and look like."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.demo.cohort import build_cohort
from pgbalise.errors import InvalidInput
from pgbalise.marking.types import SqlType
from pgbalise.tracing.assignment import assign
from pgbalise.tracing.mapping import (
    LeakSample,
    Shortlist,
    StoredColumn,
    TableMapping,
    map_columns,
    map_sample,
)
from pgbalise.tracing.profiles import name_likeness

TYPES = {
    "patient": {
        "patient_id": "integer", "ipp": "text", "family_name": "text", "given_name": "text",
        "birth_date": "date", "sex": "text", "age": "smallint", "height_cm": "numeric(5,1)",
        "weight_kg": "numeric(5,1)", "bmi": "double precision", "included_on": "date",
        "last_seen_on": "date", "deceased": "boolean",
    },
    "lab_result": {
        "result_id": "bigint", "patient_id": "integer", "test": "text", "value": "numeric",
        "taken_at": "timestamp", "recorded_at": "timestamp",
    },
    "diagnosis": {
        "diagnosis_id": "bigint", "patient_id": "integer", "event": "text", "diagnosed_on": "date",
    },
}  # fmt: skip
LIKELY, SURE = 0.5, 0.9

Relations = dict[str, list[StoredColumn]]


@pytest.fixture(scope="module")
def relations() -> Relations:
    """The cohort's columns, at most 40,000 rows of each relation."""
    return {
        table.name: [
            StoredColumn(name, SqlType.parse(declared), pa.array(table.columns[name][:40_000]))
            for name, declared in TYPES[table.name].items()
        ]
        for table in build_cohort(1).tables()
    }


def rows(stored: list[StoredColumn], rng: np.random.Generator, size: int = 300) -> pa.Table:
    picked = pa.array(rng.choice(len(stored[0].values), size, replace=False))
    return pa.table({column.name: column.values.take(picked) for column in stored})


def as_date(value: str) -> str:
    return f"{value[8:10]}/{value[5:7]}/{value[:4]}"


WAYS: dict[str, list[Any]] = {
    "number": [
        lambda v, rng: str(round(float(v))),
        lambda v, rng: f"{float(v) + rng.normal(0, 0.5):.2f}",
        lambda v, rng: f"{float(v):,.1f} u".replace(",", " ").replace(".", ","),
    ],
    "unit": [lambda v, rng: f"{float(v) * 2.20462:.1f}"],
    "date": [
        lambda v, rng: as_date(v),
        lambda v, rng: v.replace("-", ""),
        lambda v, rng: str((np.datetime64(v) - np.datetime64("1899-12-30")).astype(int)),
        lambda v, rng: str(np.datetime64(v) + np.timedelta64(int(rng.integers(-2, 3)), "D")),
    ],
    "timestamp": [
        lambda v, rng: f"{as_date(v)} {v[11:13]}h{v[14:16]}",
        lambda v, rng: str(np.datetime64(v[:19]).astype("datetime64[s]").astype(int)),
        lambda v, rng: v[:19],
    ],
    "boolean": [lambda v, rng: {"t": "vrai", "f": "faux"}[v], lambda v, rng: str(int(v == "t"))],
    "text": [lambda v, rng: f" {v.upper()}"],
}


def ways(name: str, declared: str) -> list[Any]:
    if name == "weight_kg":
        return WAYS["number"] + WAYS["unit"]
    return WAYS.get("number" if declared.startswith(("numeric", "double")) else declared, [])


def disguised(stored: list[StoredColumn], rng: np.random.Generator) -> tuple[pa.Table, list[str]]:
    """300 rows without names, shuffled, rewritten, 10% of the cells altered; the true names."""
    table = rows(stored, rng)
    columns = []
    for column in stored:
        values = table.column(column.name).to_pylist()
        choices = ways(column.name, str(column.type).partition(" without")[0])
        if choices and rng.random() < 0.7:
            way = choices[int(rng.integers(len(choices)))]
            values = [None if v is None else way(v, rng) for v in values]
        for at in np.flatnonzero(rng.random(len(values)) < 0.1):
            values[at] = str(rng.choice(["?", "x9", "0", str(values[at - 1]), "13.7"]))
        columns.append((column.name, values))
    chosen = [columns[at] for at in rng.permutation(len(columns)) if rng.random() < 0.85]
    return (
        pa.table({f"column {n}": pa.array(v, pa.string()) for n, (_, v) in enumerate(chosen, 1)}),
        [name for name, _ in chosen],
    )


def check_disguises(relations: Relations, seeds: range) -> None:
    right: list[bool] = []
    for seed in seeds:
        stored = relations[list(relations)[seed % 3]]
        leak, truth = disguised(stored, np.random.default_rng(seed))
        found = map_columns(leak, False, stored)
        for column, name in zip(found.columns, truth, strict=True):
            right.append(column.column == name)
            assert right[-1] or column.confidence < SURE, (seed, name, column)
            if right[-1] and name == "weight_kg":
                pounds = np.mean([float(v) > 110 for v in plain(leak.column(column.leak_column))])
                assert column.format.converted == bool(pounds > 0.7)
    assert np.mean(right) >= 0.95


def plain(column: pa.ChunkedArray) -> list[str]:
    texts = [
        v.removesuffix(" u").replace(" ", "").replace(",", ".") for v in column.to_pylist() if v
    ]
    return [v for v in texts if v.replace(".", "").isdigit()]


def test_columns_are_found_without_names_and_however_written(relations: Relations) -> None:
    check_disguises(relations, range(12))


@pytest.mark.slow
def test_columns_are_found_in_fifty_disguises(relations: Relations) -> None:
    check_disguises(relations, range(100, 150))


def names(found: TableMapping) -> list[str | None]:
    return [column.column for column in found.columns]


def test_of_several_relations_the_right_one_scores_highest(relations: Relations) -> None:
    rng = np.random.default_rng(4)
    for name, stored in relations.items():
        leak = rows(stored, rng)
        score = {other: map_columns(leak, False, relations[other]).score for other in relations}
        others = [value for other, value in score.items() if other != name]
        assert score[name] > 1.5 * max(others)


def test_a_table_of_another_database_has_little_in_common(relations: Relations) -> None:
    rng = np.random.default_rng(5)
    towers = pa.table(
        {
            "name": [f"pylon {n}/{n % 7}" for n in rng.integers(0, 10**6, 300)],
            "lat": [f"{n:.5f}" for n in rng.uniform(43, 49, 300)],
            "lon": [f"{n:.5f}" for n in rng.uniform(-4, 7, 300)],
            "built": [f"{n}-01-01" for n in rng.integers(2019, 2024, 300)],
            "owner": rng.choice(["north", "south", "state"], 300).tolist(),
            "bearing": [f"{n:.3f}" for n in rng.uniform(0, 1, 300)],
        }
    )
    for stored in relations.values():
        own = map_columns(rows(stored, rng), False, stored)
        for named in (False, True):
            assert map_columns(towers, named, stored).score < 0.1 * own.score


@pytest.mark.parametrize(
    ("leaked", "stored", "same"),
    [
        ("BIRTH_DATE", "birth_date", True),
        ("Birth Date", "birth_date", True),
        ("birthDate", "birth_date", True),
        ("patient.birth_date", "birth_date", True),
        ("Créé le", "cree_le", True),
        ("value 2", "value", True),
        ("birth_date_1", "birth_date", True),
        ("date", "birth_date", False),
        ("death_date", "birth_date", False),
        ("column 1", "value", False),
        ("", "value", False),
        ("?", "value", False),
    ],
)
def test_names_are_alike_whatever_their_case_and_signs(
    leaked: str, stored: str, same: bool
) -> None:
    assert (name_likeness(leaked, stored) >= 0.8) == same


def test_content_wins_over_a_name_that_contradicts_it(relations: Relations) -> None:
    stored = relations["patient"]
    leak = rows(stored, np.random.default_rng(6))
    order = leak.column_names
    moved = [*order[1:], order[0]]
    found = map_columns(leak.rename_columns(moved), True, stored)
    assert names(found) == order
    assert {column.by for column in found.columns} <= {"content"}


def test_a_name_decides_where_content_cannot(relations: Relations) -> None:
    stored = relations["patient"]
    leak = rows(stored, np.random.default_rng(7), 12)
    found = map_columns(leak.rename_columns([n.upper() for n in leak.column_names]), True, stored)
    assert names(found) == leak.column_names
    assert {column.by for column in found.columns} == {"name"}
    assert min(column.confidence for column in found.columns) >= SURE


def test_a_key_given_anew_is_known_by_its_name_but_not_for_sure(relations: Relations) -> None:
    stored = relations["patient"]
    leak = rows(stored, np.random.default_rng(8))
    fresh = leak.set_column(0, "patient_id", [[str(n) for n in range(900_000, 900_300)]])
    key = map_columns(fresh, True, stored).columns[0]
    assert (key.column, key.by) == ("patient_id", "name")
    assert LIKELY <= key.confidence < SURE
    assert not key.format.converted
    assert map_columns(fresh, False, stored).columns[0].column is None


def test_of_two_copies_of_a_column_the_better_is_taken(relations: Relations) -> None:
    stored = relations["diagnosis"]
    rng = np.random.default_rng(9)
    leak = rows(stored, rng)
    days = leak.column("diagnosed_on").to_pylist()
    noisy = [str(np.datetime64(d) + np.timedelta64(int(rng.integers(-9, 9)), "D")) for d in days]
    found = map_columns(leak.append_column("copy", [noisy]), False, stored)
    assert names(found) == [*leak.column_names, None]


def test_what_the_auditor_knows_is_taken_as_given(relations: Relations) -> None:
    stored = relations["diagnosis"]
    leak = rows(stored, np.random.default_rng(10))
    found = map_columns(leak, True, stored, {"patient_id": "diagnosis_id", "event": None})
    assert names(found)[1:] == ["diagnosis_id", None, "diagnosed_on"]
    assert [column.by for column in found.columns][1:] == ["given", "given", "name"]
    for given_columns, complaint in (
        ({"colour": "event"}, "no column colour.*it has diagnosis_id, patient_id"),
        ({"event": "colour"}, "no column colour.*it has diagnosis_id, patient_id"),
        ({"event": "event", "patient_id": "event"}, "cannot both be event"),
    ):
        with pytest.raises(InvalidInput, match=complaint):
            map_columns(leak, True, stored, given_columns)


def test_what_identifies_a_row_is_counted_in_bits(relations: Relations) -> None:
    stored = relations["patient"]
    leak = rows(stored, np.random.default_rng(11))
    sex = map_columns(leak.select(["sex"]), True, stored)
    assert 0.9 < sex.identifying_bits <= 1
    whole = map_columns(leak, True, stored)
    assert whole.identifying_bits > 80
    assert whole.score <= whole.identifying_bits


def test_empty_columns_and_tables_are_mapped_to_nothing_or_by_name(relations: Relations) -> None:
    stored = relations["diagnosis"]
    nothing = pa.table({"a": pa.nulls(3, pa.string()), "b": ["", "", ""]})
    assert names(map_columns(nothing, False, stored)) == [None, None]
    assert map_columns(pa.table({}), True, stored).score == 0
    assert map_columns(nothing, True, []).score == 0
    empty = [StoredColumn("a", SqlType("integer"), pa.array([], pa.string()))]
    assert map_columns(pa.table({"x": ["1", "2"]}), True, empty).score == 0


@settings(deadline=None)
@given(st.data())
def test_the_assignment_is_the_best_of_all(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    cell = st.integers(-3, 9)
    value = np.array(
        data.draw(st.lists(cell, min_size=height * width, max_size=height * width)), float
    ).reshape(height, width)
    picked = assign(value)
    used = [at for at in picked if at >= 0]
    assert len(set(used)) == len(used)
    total = sum(value[row, at] for row, at in enumerate(picked) if at >= 0)
    places = [*range(width), *[-1] * height]
    best = max(
        sum(value[row, at] for row, at in enumerate(way) if at >= 0)
        for way in set(itertools.permutations(places, height))
    )
    assert total == pytest.approx(best)


def test_sixty_columns_are_assigned_to_sixty_at_once() -> None:
    value = np.random.default_rng(12).random((60, 60))
    start = time.process_time()
    picked = assign(value)
    assert time.process_time() - start < 1
    assert sorted(picked) == list(range(60))


def lookalike(seed: int) -> list[StoredColumn]:
    """A relation of which there are others with the same names and types."""
    rng = np.random.default_rng(seed)
    columns = {
        "id": ("bigint", map(str, range(1, 3_001))),
        "code": ("text", (f"{chr(65 + seed)}{n}" for n in rng.integers(0, 60, 3_000))),
        "amount": ("numeric(6,1)", (f"{x:.1f}" for x in rng.gamma(2, 10 + 9 * seed, 3_000))),
        "day": ("date", map(str, np.datetime64("1990-01-01") + rng.integers(0, 9_000, 3_000))),
        "owner": ("text", (f"P{n}" for n in rng.integers(0, 4_000, 3_000) + 2_000 * seed)),
    }  # fmt: skip
    return [
        StoredColumn(name, SqlType.parse(declared), pa.array(values))
        for name, (declared, values) in columns.items()
    ]


@pytest.mark.parametrize("named", [True, False])
def test_of_many_relations_of_the_same_columns_the_right_one_is_found(named: bool) -> None:
    relations = [lookalike(seed) for seed in range(20)]
    shortlist = Shortlist(relations)
    for right in (0, 7, 19):
        leak = rows(relations[right], np.random.default_rng(right))
        if not named:
            leak = leak.rename_columns([f"column {n}" for n in range(leak.num_columns)])
        sample = LeakSample(leak, named)
        worth = shortlist.of(sample)
        assert len(worth) < 10
        score = {number: map_sample(sample, relations[number]).score for number in worth}
        assert max(score, key=score.__getitem__) == right


@pytest.mark.parametrize("named", [True, False])
def test_a_few_columns_are_found_among_hundreds_of_others(
    relations: Relations, named: bool
) -> None:
    stored = relations["patient"]
    rng = np.random.default_rng(13)
    leak = rows(stored, rng)
    wide = {f"x{n}": pa.array([str(v) for v in rng.integers(0, 999, 300)]) for n in range(500)}
    wide |= {f"y {name}": leak.column(name).combine_chunks() for name in leak.column_names}
    found = map_columns(pa.table(wide), named, stored)
    mapped = {m.leak_column: m.column for m in found.columns if m.column is not None}
    right = sum(mapped.get(f"y {name}") == name for name in leak.column_names)
    assert right >= (13 if named else 10)
