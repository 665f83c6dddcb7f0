"""Leaked rows are laid beside the right stored ones, whatever became of keys, files and source."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from pgbalise.align import InMemory, StoredTable
from pgbalise.demo.cohort import build_cohort
from pgbalise.frames import mark
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import parse_policy
from pgbalise.marking.types import SqlType
from pgbalise.trace import Marking, Trace, trace
from pgbalise.tracing.reading import canonical
from tests.demonstration import marks_only

if TYPE_CHECKING:
    from collections.abc import Iterator

ALPHA = 1e-6
KEY = MasterKey(bytes(range(32)))
NAMES = [f"role_{n}" for n in range(20)]
POLICY = parse_policy(marks_only(Path(__file__).parents[1]))
TYPES = {
    "patient_id": "integer", "birth_date": "date", "age": "smallint", "height_cm": "numeric(5,1)",
    "weight_kg": "numeric(5,1)", "bmi": "double precision", "included_on": "date",
    "last_seen_on": "date", "deceased": "boolean", "result_id": "bigint", "value": "numeric",
    "taken_at": "timestamptz", "recorded_at": "timestamptz", "diagnosis_id": "bigint",
    "diagnosed_on": "date",
}  # fmt: skip
ID = "patient_id"


@dataclass(frozen=True)
class Ward:
    """The cohort in memory and its markings."""

    stored: dict[str, pa.Table]
    markings: dict[str, Marking]

    def leak(self, role: str, rows: np.ndarray, relation: str = "patient") -> pa.Table:
        """These rows as a role gets them."""
        table = self.stored[relation].take(pa.array(rows))
        return mark(table, POLICY, role, KEY, relation=f"dpi.{relation}")

    def trace(self, *leaks: Any, **options: Any) -> Trace:
        """Trace tables, each a leaked file."""
        tables = [
            InMemory(x, f"{n}") if isinstance(x, pa.Table) else x for n, x in enumerate(leaks)
        ]
        return trace(tables, list(self.markings.values()), alpha=ALPHA, **options)


@pytest.fixture(scope="module")
def ward() -> Ward:
    """The cohort's patients and diagnoses, and part of their results."""
    stored, markings = {}, {}
    for table in build_cohort(1).tables():
        types = {name: SqlType.parse(TYPES.get(name, "text")) for name in table.columns}
        rows = pa.table(
            {n: canonical(pa.array(table.columns[n][:30_000]), kind) for n, kind in types.items()}
        )
        relation = POLICY.relation(f"dpi.{table.name}")
        stored[table.name] = rows
        markings[table.name] = Marking(POLICY, relation, KEY, StoredTable(rows, types), NAMES)
    return Ward(stored, markings)


def picked(seed: int, rows: int, of: int = 17_549) -> np.ndarray:
    return np.random.default_rng(seed).choice(of, rows, replace=False)


def with_ids(leak: pa.Table, ids: Any) -> pa.Table:
    return leak.set_column(0, ID, pa.array([str(n) for n in ids]))


def test_rows_are_found_by_a_key_that_holds(ward: Ward) -> None:
    found = ward.trace(ward.leak("role_3", picked(1, 1_000)))
    [one] = found.alignments
    assert (one.how, one.read, one.aligned, one.repeated) == ("key", 1_000, 1_000, 0)
    assert found.verdict.accused == ["role_3"]


@pytest.mark.parametrize("renumbered", ["in order", "at random"])
def test_a_key_given_anew_in_the_same_range_is_not_believed(ward: Ward, renumbered: str) -> None:
    rng = np.random.default_rng(2)
    leak = ward.leak("role_4", np.sort(picked(2, 1_200)))
    ids = np.arange(1, 1_201) if renumbered == "in order" else rng.permutation(17_549)[:1_200]
    found = ward.trace(with_ids(leak, ids))
    [one] = found.alignments
    assert one.how == "linkage"
    assert one.aligned > 1_100
    assert found.verdict.accused == ["role_4"]


def test_half_of_the_keys_given_anew_hide_nobody(ward: Ward) -> None:
    rng = np.random.default_rng(3)
    leak = ward.leak("role_5", picked(3, 1_600))
    ids = np.array(leak.column(ID).to_pylist())
    half = rng.permutation(len(ids))[:800]
    ids[half] = rng.permutation(17_549)[:800].astype(str)
    assert ward.trace(with_ids(leak, ids)).verdict.accused == ["role_5"]


def test_tables_without_a_header_are_read_by_their_content(ward: Ward) -> None:
    leak = ward.leak("role_6", picked(4, 1_000))
    blind = leak.rename_columns([f"column {n}" for n in range(1, leak.num_columns + 1)])
    found = ward.trace(InMemory(blind, named=False))
    assert found.verdict.accused == ["role_6"]
    mapped = {m.leak_column: m.column for m in found.alignments[0].mapping.columns}
    assert list(mapped.values()) == leak.column_names


def test_columns_can_be_told_beside_relations_that_lack_them(ward: Ward) -> None:
    leak = ward.leak("role_7", picked(5, 900)).select(["weight_kg", ID, "height_cm"])
    blind = InMemory(leak.rename_columns(["a", "b", "c"]))
    told = {"a": "weight_kg", "b": ID, "c": None}
    found = ward.trace(blind, given=told)
    [one] = [one for one in found.alignments if one.relation.name == "patient"]
    assert {m.leak_column: m.column for m in one.mapping.columns} == told
    assert found.verdict.accused == ["role_7"]


def test_copies_of_rows_are_counted_and_add_no_evidence(ward: Ward) -> None:
    leak = ward.leak("role_8", picked(6, 600))
    once, thrice = ward.trace(leak), ward.trace(pa.concat_tables([leak, leak, leak]))
    assert thrice.alignments[0].repeated == 1_200
    assert thrice.verdict.cells_marked == once.verdict.cells_marked
    twice = ward.trace(leak, leak)
    assert twice.verdict.cells_marked == once.verdict.cells_marked
    for found in (thrice, twice):
        assert found.verdict.accused == ["role_8"]
        assert np.isclose(strength(found), strength(once), atol=2.0)


def strength(found: Trace) -> float:
    return found.verdict.verdicts[0].log10_e_value


def test_rows_of_other_origin_are_left_out(ward: Ward) -> None:
    """Half of the rows are of no patient: their columns were drawn one by one."""
    rng = np.random.default_rng(7)
    leak = ward.leak("role_9", picked(7, 1_000)).drop_columns([ID])
    everyone = ward.stored["patient"]
    strangers = pa.table(
        {
            name: everyone.column(name).take(pa.array(rng.choice(17_549, 1_000)))
            for name in leak.column_names
        }
    )
    mixed = pa.concat_tables([leak, strangers]).take(pa.array(rng.permutation(2_000)))
    found = ward.trace(mixed)
    [one] = found.alignments
    assert 900 < one.aligned < 1_050
    assert found.verdict.accused == ["role_9"]
    assert ward.trace(strangers).verdict.accused == []


def test_a_table_joined_of_two_relations_gives_evidence_of_both(ward: Ward) -> None:
    labs = ward.leak("role_10", np.arange(4_000), "lab_result")
    patients = ward.leak("role_10", np.arange(17_549)).select(
        [ID, "birth_date", "sex", "weight_kg", "height_cm", "family_name"]
    )
    joined = labs.join(patients, ID, join_type="inner").combine_chunks()
    found = ward.trace(joined)
    sides = {one.relation.name: one for one in found.alignments}
    assert {"patient", "lab_result"} <= set(sides)
    assert sides["patient"].repeated > 1_000
    parts = {part.carrier.column: part for _, part in found.carriers}
    # a patient's weight is seen once for each of its results, and was marked once
    assert (
        0 < parts["weight_kg"].marked < 0.5 * (sides["patient"].aligned - sides["patient"].repeated)
    )
    assert parts["value"].marked > 0
    assert found.verdict.accused == ["role_10"]


@pytest.mark.parametrize("keyed", [True, False])
def test_two_files_of_two_people_name_both(ward: Ward, keyed: bool) -> None:
    small, large = ward.leak("role_11", picked(8, 500)), ward.leak("role_12", picked(9, 5_000))
    if not keyed:
        small, large = small.drop_columns([ID]), large.drop_columns([ID])
    assert sorted(ward.trace(small, large).verdict.accused) == ["role_11", "role_12"]


@dataclass(frozen=True)
class Cut(InMemory):
    """A leaked table that comes in batches of so many rows, some of them empty."""

    rows: int = 1

    def batches(self) -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pylist([], self.table.schema)
        yield from self.table.combine_chunks().to_batches(max_chunksize=self.rows)
        yield pa.RecordBatch.from_pylist([], self.table.schema)


@pytest.mark.parametrize("keyed", [True, False])
def test_the_verdict_does_not_depend_on_batches(ward: Ward, keyed: bool) -> None:
    leak = ward.leak("role_13", picked(10, 1_500))
    leak = leak if keyed else leak.drop_columns([ID])
    whole, cut = ward.trace(leak), ward.trace(Cut(leak, rows=400))
    assert cut.verdict.accused == whole.verdict.accused == ["role_13"]
    assert cut.verdict.rows_read == 1_500
    assert abs(cut.verdict.rows_aligned - whole.verdict.rows_aligned) <= 15
    assert np.isclose(strength(cut), strength(whole), rtol=0.05)


def test_columns_that_tell_no_row_from_another_are_said_to(ward: Ward) -> None:
    leak = ward.leak("role_14", picked(11, 2_000))
    vague = ward.trace(leak.select(["sex", "age", "weight_kg"]))
    assert {one.doubtful for one in vague.alignments} == {True}
    assert set(vague.verdict.accused) <= {"role_14"}
    clear = ward.trace(leak.drop_columns([ID]))
    assert {one.doubtful for one in clear.alignments} == {False}


def test_what_was_altered_is_told_by_column(ward: Ward) -> None:
    rng = np.random.default_rng(12)
    leak = ward.leak("role_15", picked(12, 2_000))
    changed = [
        "X" if rng.random() < 0.2 else name for name in leak.column("family_name").to_pylist()
    ]
    at = leak.column_names.index("family_name")
    leak = leak.set_column(at, "family_name", pa.array(changed))
    for one in (leak, leak.drop_columns([ID])):
        altered = dict(ward.trace(one).alignments[0].altered)
        assert altered["family_name"] == pytest.approx(0.2, abs=0.04)
        assert altered["given_name"] < 0.03


def stored_text(ward: Ward, name: str, at: int, value: str) -> Marking:
    """The patients with one value put into a column of the stored rows."""
    table = ward.stored["patient"]
    values = table.column(name).to_pylist()
    values[at] = value
    table = table.set_column(table.column_names.index(name), name, pa.array(values))
    old = ward.markings["patient"]
    return Marking(POLICY, old.relation, KEY, StoredTable(table, old.source.types), NAMES)


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("birth_date", "infinity"),
        ("birth_date", "0044-03-15 BC"),
        ("birth_date", "10000-01-01"),
        ("weight_kg", "NaN"),
        ("bmi", "-Infinity"),
        ("family_name", " de\u0301 "),
    ],
)
def test_values_that_only_postgresql_knows_stop_no_trace(
    ward: Ward, name: str, value: str, keyed: bool
) -> None:
    rows = np.arange(700)
    marking = stored_text(ward, name, 5, value)
    leak = ward.leak("role_16", rows) if keyed else ward.leak("role_16", rows).drop_columns([ID])
    assert trace(leak, [marking], alpha=ALPHA).verdict.accused == ["role_16"]


@pytest.mark.parametrize(
    "value",
    ["1e308", "-1e400", "NaN", "9999-12-31 23:59:59.999999", "0000-01-01", "-infinity", "\x00",
     "9" * 400, "\u202e", "٣", "x" * 200_000],
)  # fmt: skip
def test_hostile_cells_end_in_a_verdict(ward: Ward, value: str) -> None:
    leak = ward.leak("role_17", picked(13, 120))
    for start in (0, 1):
        spoilt = leak
        for at in range(start, leak.num_columns, 2):
            cells = leak.column(at).to_pylist()
            cells[::2] = [value] * 60
            spoilt = spoilt.set_column(at, leak.column_names[at], pa.array(cells))
        found = trace(spoilt, [ward.markings["patient"]], alpha=ALPHA)
        assert set(found.verdict.accused) <= {"role_17"}


def test_rows_that_are_all_alike_take_neither_memory_nor_time(ward: Ward) -> None:
    alike = InMemory(pa.table({"sex": ["F"] * 30_000, "weight_kg": ["70"] * 30_000}))
    start = time.process_time()
    found = trace([alike], [ward.markings["patient"]], alpha=ALPHA)
    assert time.process_time() - start < 10
    assert found.verdict.rows_aligned == 0
