"""Leaks of a real marked database: the right recipient is named, and otherwise nobody."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from pgbalise.catalog import columns as catalog_columns
from pgbalise.decoys.identity import Mode, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.traits import TraitKind
from pgbalise.errors import InvalidInput, InvalidLeak
from pgbalise.frames import copied_rows, mark
from pgbalise.investigate import markings
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import parse_policy
from pgbalise.session import connect
from pgbalise.trace import Marking, Trace, trace

if TYPE_CHECKING:
    from pgbalise.tracing.decision import Verdict

COLUMNS = ["result_id", "patient_id", "test", "value", "taken_at", "recorded_at"]
ALPHA = 1e-6


def extract(hospital: Any, role: str, schema: str, ids: np.ndarray) -> pa.Table:
    """What a role gets of these rows by COPY, as text."""
    with psycopg.connect(hospital.dsn(role)) as connection, connection.cursor() as cursor:
        listed = ",".join(map(str, ids.tolist()))
        rows = f"SELECT {', '.join(COLUMNS)} FROM {schema}.lab_result WHERE result_id IN ({listed})"
        query = f"COPY ({rows}) TO STDOUT (FORMAT csv)"
        with cursor.copy(query.encode()) as copy:
            return copied_rows(b"".join(copy), COLUMNS)


def rounded(rows: pa.Table, rng: np.random.Generator, *, times: bool) -> pa.Table:
    """Half of the rows with their values as integers and their times cut to the second."""
    half = rng.random(rows.num_rows) < 0.5
    values = [
        str(round(float(v))) if h else v
        for v, h in zip(rows.column("value").to_pylist(), half, strict=True)
    ]
    stamps = [
        v[:19] + v[-3:] if h else v
        for v, h in zip(rows.column("recorded_at").to_pylist(), half, strict=True)
    ]
    out = rows.set_column(3, "value", pa.array(values)).set_column(
        5, "recorded_at", pa.array(stamps)
    )
    out = out.take(pa.array(rng.permutation(rows.num_rows)))
    return out if times else out.drop_columns(["recorded_at"])


def traced(hospital: Any, leak: pa.Table, name: str = "dpi.lab_result") -> Trace:
    """Trace a leak against the hospital's stored rows."""
    with connect(hospital.dsn()) as session, session.connection.transaction():
        found, _ = markings(session, [hospital.key], name)
        return trace(leak, found, alpha=ALPHA)


def verdict(hospital: Any, leak: pa.Table) -> Verdict:
    """Whom a leak of lab_result accuses, and why."""
    return traced(hospital, leak).verdict


def repetition(hospital: Any, elsewhere: Any, seed: int) -> None:
    """One leak of 1,000 rows by a random recipient, one of raw rows, one of another database."""
    rng = np.random.default_rng(seed)
    ids = 1 + rng.choice(400_123, 1_000, replace=False)
    thief = str(rng.choice(hospital.recipients))
    times = bool(seed % 2)
    leak = rounded(extract(hospital, thief, "marked", ids), rng, times=times)
    assert verdict(hospital, leak).accused == [thief], seed
    raw = rounded(extract(hospital, "postgres", "dpi", ids), rng, times=times)
    assert verdict(hospital, raw).accused == [], seed
    stranger = str(rng.choice(elsewhere.recipients))
    other = rounded(extract(elsewhere, stranger, "marked", ids), rng, times=times)
    assert verdict(hospital, other).accused == [], seed


@pytest.mark.parametrize("seed", range(8))
def test_the_leaker_is_named_and_nobody_else_is(hospital: Any, elsewhere: Any, seed: int) -> None:
    repetition(hospital, elsewhere, seed)


@pytest.mark.slow
def test_two_hundred_leaks_are_judged_without_an_error(hospital: Any, elsewhere: Any) -> None:
    for seed in range(1000, 1200):
        repetition(hospital, elsewhere, seed)


@pytest.mark.parametrize("name", ["patient", "lab_result", "diagnosis"])
def test_every_marked_cell_of_a_whole_copy_agrees(hospital: Any, name: str) -> None:
    role = hospital.recipients[11]
    with connect(hospital.dsn(role)) as session:
        columns = [info.name for info in catalog_columns(session, "marked", name)]
        copy = session.read(f"SELECT * FROM marked.{name}", columns)
    result = traced(hospital, copy, f"dpi.{name}")
    assert result.verdict.accused == [role]
    for (_, part), agreeing in zip(result.carriers, result.agreeing, strict=True):
        assert len(part.evidence) == part.marked == agreeing > 1000


def test_two_who_interleave_their_copies_are_both_named(hospital: Any) -> None:
    rng = np.random.default_rng(7)
    ids = 1 + rng.choice(400_123, 12_000, replace=False)
    thieves = sorted(rng.choice(hospital.recipients, 2, replace=False).tolist())
    copies = [
        extract(hospital, thief, "marked", np.sort(ids)).sort_by("result_id") for thief in thieves
    ]
    pick = rng.integers(0, 2, copies[0].num_rows)
    rows = pa.concat_tables(copies).take(pa.array(np.arange(len(pick)) + pick * len(pick)))
    assert sorted(verdict(hospital, rows).accused) == thieves


def test_counts_say_what_was_used(hospital: Any) -> None:
    rows = extract(hospital, hospital.recipients[0], "marked", np.arange(1, 2001))
    junk = pa.table({name: pa.array(["999999999"]) for name in COLUMNS})
    found = verdict(hospital, pa.concat_tables([rows, junk, junk]))
    # some numbers are nobody's
    count = rows.num_rows
    assert 1800 < count < 2000
    assert (found.rows_read, found.rows_aligned) == (count + 2, count)
    # rows of one sample share the time it was taken at, and so one mark
    assert count * 0.3 < found.cells_marked < count * 0.45
    assert found.verdicts[0].cells == pytest.approx(found.cells_used, rel=0.01)


def test_a_leak_is_read_as_spreadsheets_write_it(hospital: Any) -> None:
    thief = hospital.recipients[3]
    rows = extract(hospital, thief, "marked", np.arange(5000, 7000))
    ids = pa.array([f" {i}.0" for i in rows.column("result_id").to_pylist()])
    values = pa.array([f"{float(v):.3f}" for v in rows.column("value").to_pylist()])
    table = pa.table({"RESULT_ID": ids, "Value": values, "note": values})
    assert verdict(hospital, table).accused == [thief]


def test_a_leak_of_another_relation_is_refused(hospital: Any) -> None:
    with pytest.raises(InvalidLeak, match="none of the carriers"):
        verdict(hospital, pa.table({"result_id": ["1"], "colour": ["red"]}))


def test_rows_that_the_relation_never_had_accuse_nobody(hospital: Any) -> None:
    rows = pa.table({"result_id": ["-5", "x"], "value": ["1", "2"]})
    found = verdict(hospital, rows)
    assert found.accused == []
    assert (found.rows_read, found.rows_aligned, found.cells_used) == (2, 0, 0)


def test_of_several_epochs_and_policies_nobody_innocent_is_named() -> None:
    """The mean e-value of innocents stays at 1, whichever epoch a leak is from, or none."""
    rng = np.random.default_rng(20_260_722)
    relation = {"key": {"id": "integer"}, "carrier": {"v": {"type": "integer", "quantum": "1"}}}
    wider = {**relation, "carrier": {"v": {"type": "integer", "quantum": "2"}}}
    enrolled = {1: range(30), 2: range(10, 40), 3: range(20, 50)}
    innocent: list[float] = []
    named = 0
    for number in range(36):
        cells = (5, 10, 400)[number % 3]
        keys = [MasterKey(rng.bytes(32)) for _ in range(2)]
        policies = [
            parse_policy({"epoch": epoch, "relation": {"h.p": body}})
            for epoch in enrolled
            for body in (relation, wider)
        ]
        stored = pa.table({"id": range(cells), "v": rng.integers(100, 900, cells)})
        text = pa.table({name: stored[name].cast(pa.string()) for name in ("id", "v")})
        markings = [
            Marking(
                policy,
                policy.relations[0],
                keys[policy.epoch == 3],
                text,
                [f"r{n}" for n in enrolled[policy.epoch]],
            )
            for policy in policies
        ]
        leak, thief = text, None
        if number % 4:
            chosen = markings[int(rng.integers(len(markings)))]
            thief = chosen.recipients[int(rng.integers(len(chosen.recipients)))]
            leak = mark(stored, chosen.policy, thief, chosen.key, relation="h.p")
            leak = pa.table({name: leak[name].cast(pa.string()) for name in ("id", "v")})
        verdict = trace(leak, markings, alpha=ALPHA).verdict
        assert set(verdict.accused) <= {thief}
        assert verdict.recipients == 50
        named += len(verdict.accused)
        if cells < 100:
            # of many cells, one innocent in millions would carry the mean
            innocent += [10**v.log10_e_value for v in verdict.verdicts if v.recipient != thief]
    assert named >= 7
    values = np.array(innocent)
    assert values.mean() <= 1 + 4 * values.std() / np.sqrt(len(values))


def small(key: dict[str, str]) -> dict[str, Any]:
    carrier = {"v": {"type": "integer", "quantum": "1"}}
    return {"relation": {"h.p": {"key": key, "carrier": carrier}}}


def test_policies_that_know_rows_by_different_keys_are_both_tried() -> None:
    rng = np.random.default_rng(5)
    stored = pa.table({"id": range(800), "day": range(800), "v": rng.integers(100, 900, 800)})
    text = pa.table({name: stored[name].cast(pa.string()) for name in stored.column_names})
    names, key = [f"r{n}" for n in range(10)], MasterKey(bytes(32))
    policies = [
        parse_policy(small(columns))
        for columns in ({"id": "integer"}, {"id": "integer", "day": "integer"})
    ]
    markings = [Marking(one, one.relations[0], key, text, names) for one in policies]
    for policy in policies:
        copy = mark(stored, policy, "r3", key)
        leak = pa.table({name: copy[name].cast(pa.string()) for name in copy.column_names})
        found = trace(leak, markings, alpha=ALPHA)
        assert found.verdict.accused == ["r3"]
        assert found.marking.policy is policy


def test_whoever_got_one_relation_only_is_judged_by_it() -> None:
    rng = np.random.default_rng(6)
    key = MasterKey(bytes(32))
    body = small({"id": "integer"})["relation"]["h.p"]
    policy = parse_policy({"relation": {"h.p": body, "h.q": body}})
    markings, leaks = [], []
    for relation, names in zip(policy.relations, (["a", "b"], ["b", "c"]), strict=True):
        stored = pa.table({"id": range(900), "v": rng.integers(100, 900, 900)})
        text = pa.table({name: stored[name].cast(pa.string()) for name in ("id", "v")})
        markings.append(Marking(policy, relation, key, text, names))
        copy = mark(stored, policy, names[-1], key, relation=relation.qualified)
        leaks.append(pa.table({name: copy[name].cast(pa.string()) for name in ("id", "v")}))
    markings.append(Marking(policy, policy.relations[0], key, markings[0].stored, []))
    assert trace(leaks[1], markings, alpha=ALPHA).verdict.accused == ["c"]
    found = trace(leaks[0], markings, alpha=ALPHA).verdict
    assert (found.accused, found.recipients) == (["b"], 3)


def test_columns_told_that_no_table_or_relation_has_are_refused() -> None:
    policy = parse_policy(small({"id": "integer"}))
    text = pa.table({"id": ["1", "2"], "v": ["100", "200"]})
    markings = [Marking(policy, policy.relations[0], MasterKey(bytes(32)), text, ["a"])]
    for told, complaint in (
        ({"colour": "v"}, "the leak has no column colour.*it has id, v"),
        ({"v": "colour"}, "no relation has a column colour.*try id, v"),
    ):
        with pytest.raises(InvalidInput, match=complaint):
            trace(text, markings, alpha=ALPHA, given=told)


def decoys_of(names: list[str], each: int) -> list[IssuedDecoy]:
    """Decoys with record numbers of their own."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        IssuedDecoy(
            100 * place + number,
            name,
            number,
            Mode.SAFE,
            {Role.RECORD_NUMBER: f"8{place:04d}{number:05d}"},
            {TraitKind.RECORD: 1e9},
            {},
            now,
        )
        for place, name in enumerate(names)
        for number in range(1, each + 1)
    ]


def test_a_list_without_any_marked_column_is_traced_by_its_decoys() -> None:
    policy = parse_policy(small({"id": "integer"}))
    names = ["a", "b", "c"]
    text = pa.table({"id": ["1", "2"], "v": ["100", "200"]})
    markings = [Marking(policy, policy.relations[0], MasterKey(bytes(32)), text, names)]
    patients = [f"7{n:09d}" for n in range(500)]
    stolen = [*patients, "8 0001 00001", "8000100003"]
    decoys = decoys_of(names, 3)
    found = trace(pa.table({"N° dossier": stolen}), markings, alpha=ALPHA, decoys=decoys)
    assert found.verdict.accused == ["b"]
    assert found.verdict.verdicts[0].decoys == 2
    assert found.verdict.rows_read == 502
    with pytest.raises(InvalidLeak):
        trace(pa.table({"N° dossier": patients}), markings, alpha=ALPHA, decoys=decoys)


def test_decoys_and_marks_add_up_to_what_neither_says_alone() -> None:
    rng = np.random.default_rng(7)
    key, policy = MasterKey(bytes(32)), parse_policy(small({"id": "integer"}))
    names = [f"r{n}" for n in range(10)]
    stored = pa.table({"id": range(50), "v": rng.integers(100, 900, 50)})
    text = pa.table({name: stored[name].cast(pa.string()) for name in ("id", "v")})
    markings = [Marking(policy, policy.relations[0], key, text, names)]
    copy = mark(stored, policy, "r4", key)
    rows = {name: copy[name].cast(pa.string()).to_pylist() for name in ("id", "v")}
    with_decoy = pa.table(
        {"id": [*rows["id"], "60"], "v": [*rows["v"], "444"], "n": [""] * 50 + ["8000400001"]}
    )
    decoys = decoys_of(names, 1)
    marks = trace(pa.table(rows), markings, alpha=ALPHA).verdict.verdicts[0]
    alone = trace(with_decoy.select(["n"]), markings, alpha=ALPHA, decoys=decoys).verdict
    both = trace(with_decoy, markings, alpha=ALPHA, decoys=decoys).verdict
    assert both.verdicts[0].recipient == marks.recipient == alone.verdicts[0].recipient == "r4"
    added = marks.log10_e_value + alone.verdicts[0].log10_e_value
    assert both.verdicts[0].log10_e_value == pytest.approx(added, abs=0.3)
    assert both.accused == ["r4"]
