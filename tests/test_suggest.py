from __future__ import annotations

import tomllib
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.check import check
from pgbalise.errors import InvalidInput
from pgbalise.fit import fit
from pgbalise.marking.policy import Tolerance, load_policy
from pgbalise.marking.types import SqlType
from pgbalise.session import connect
from pgbalise.suggest import (
    Carry,
    Leave,
    Numbers,
    Statistics,
    judge_date,
    judge_number,
    judge_timestamp,
    suggest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg

    from pgbalise.demo.cluster import ThrowawayCluster

NUMERIC = SqlType.parse("numeric(7,2)")
INTEGER = SqlType.parse("integer")


@pytest.fixture
def suggested(cluster: ThrowawayCluster, empty_db: psycopg.Connection[Any]) -> Callable[..., str]:
    def run(*statements: str, schemas: Sequence[str] = ("public",)) -> str:
        for statement in statements:
            empty_db.execute(statement)
        empty_db.execute("ANALYZE")
        with connect(cluster.dsn(empty_db.info.dbname)) as session:
            return suggest(session, schemas)

    return run


def texts(values: Any, places: int = 0) -> list[str]:
    return [f"{value:.{places}f}" for value in values]


def judged(declared: SqlType, values: Sequence[str], **more: Any) -> Carry:
    verdict = judge_number(declared, Numbers.read(values), **more)
    assert isinstance(verdict, Carry), verdict
    return verdict


RANDOM = np.random.default_rng(5)


def test_quantum_is_the_last_digit_in_use_or_at_most_two_percent() -> None:
    weights = RANDOM.normal(75, 15, 5000)
    # numeric(7,2), but only one decimal is ever used; 0.2 is 1.3 % of the spread
    verdict = judged(NUMERIC, [f"{value:.1f}0" for value in weights])
    assert verdict.settings["quantum"] == "0.2"
    verdict = judged(NUMERIC, [f"{value:.1f}0" for value in weights], finest=True)
    assert verdict.settings["quantum"] == "0.1"
    # a step of 1 is already 6.7 % of the spread: taken, and said
    verdict = judged(INTEGER, texts(weights))
    assert verdict.settings["quantum"] == "1"
    assert "6." in verdict.why[0]


def test_coarse_and_scarce_numbers_are_left_alone() -> None:
    assert isinstance(judge_number(INTEGER, Numbers.read(texts(range(20)))), Leave)
    scores = judge_number(INTEGER, Numbers.read(texts(RANDOM.integers(0, 8, 900))))
    assert isinstance(scores, Leave)
    assert "a code, a grade or a score" in scores.why
    flag = judge_number(INTEGER, Numbers.read(texts(RANDOM.integers(0, 2, 900))))
    assert flag == Leave("a flag, 0 or 1")
    coarse = judge_number(INTEGER, Numbers.read(texts(RANDOM.normal(50, 2.5, 900))))
    assert isinstance(coarse, Leave)
    assert "of its spread" in coarse.why


def test_multiples_of_five_move_by_five() -> None:
    doses = 5 * RANDOM.integers(10, 60, 3000)
    assert judged(INTEGER, texts(doses)).settings["quantum"] == "5"


def test_heaped_readings_get_a_grid() -> None:
    pressure = RANDOM.normal(130, 18, 5000).round()
    heaped = np.where(RANDOM.random(5000) < 0.7, (pressure / 2).round() * 2, pressure)
    verdict = judged(INTEGER, texts(heaped))
    assert verdict.settings["quantum"] == "1"
    assert verdict.settings["grid"] == "2"
    assert "grid" not in judged(INTEGER, texts(pressure)).settings
    tens = np.where(RANDOM.random(5000) < 0.5, (pressure / 10).round() * 10, pressure)
    verdict = judged(INTEGER, texts(tens))
    # a step of 10 would be half of the spread
    assert any(line.startswith("REVIEW") and "of 10" in line for line in verdict.why)


def test_sentinels_and_zero_inflation_are_skipped() -> None:
    base = texts(RANDOM.gamma(4, 20, 4000) + 10)
    verdict = judged(INTEGER, base + ["0"] * 600 + ["999"] * 40 + ["-1"] * 40)
    assert verdict.settings["skip"] == "[-1, 0, 999]"
    low, high = map(Decimal, verdict.settings["bounds"][1:-1].split(", "))
    assert low >= 1
    assert high < 999
    # 99 within the range of the values is a value
    assert "skip" not in judged(INTEGER, base + ["99"] * 40).settings
    # the planner's statistics know of more than the sample
    statistics = Statistics(0.5, -0.5, {"0": 0.3, "50": 0.01}, ["0", "300"])
    assert judged(INTEGER, base, statistics=statistics).settings["skip"] == "[0]"


def test_bounds_are_rounded_outward_and_keep_the_sign() -> None:
    values = [f"{value:.2f}" for value in RANDOM.uniform(0.07, 9.87, 4000)]
    low, high = judged(NUMERIC, values).settings["bounds"][1:-1].split(", ")
    assert Decimal(0) < Decimal(low) <= Decimal("0.08")
    assert Decimal("9.87") <= Decimal(high) <= Decimal("10")
    verdict = judged(INTEGER, [*texts(RANDOM.normal(130, 18, 5000)), "13682"])
    assert Decimal(verdict.settings["bounds"][1:-1].split(", ")[1]) < 300
    assert any("far outside" in line for line in verdict.why)


def test_floats_with_all_digits_are_continuous() -> None:
    double = SqlType.parse("double precision")
    verdict = judged(double, [repr(float(v)) for v in RANDOM.normal(25, 5, 3000)])
    assert verdict.settings["continuous"] == "true"
    assert Decimal(verdict.settings["quantum"]) <= Decimal("0.1")
    verdict = judged(double, [repr(round(float(v), 2)) for v in RANDOM.normal(25, 5, 3000)])
    assert "continuous" not in verdict.settings
    assert verdict.scale == 2


def test_free_numeric_keeps_values_with_fewer_decimals_out() -> None:
    numeric = SqlType.parse("numeric")
    mixed = texts(RANDOM.normal(50, 10, 700)) + texts(RANDOM.normal(50, 10, 1300), 1)
    verdict = judged(numeric, mixed)
    assert verdict.settings["quantum"] in {"0.1", "0.2"}
    assert verdict.scale == 1


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(
        st.decimals(-(10**6), 10**6, places=2, allow_nan=False), min_size=30, max_size=80
    ),
    declared=st.sampled_from(["numeric", "numeric(12,2)", "double precision", "numeric(20,4)"]),
)
def test_whatever_is_suggested_can_be_loaded(values: list[Decimal], declared: str) -> None:
    verdict = judge_number(SqlType.parse(declared), Numbers.read([str(v) for v in values]))
    if isinstance(verdict, Leave):
        return
    body = "\n".join(f"{name} = {text}" for name, text in verdict.settings.items())
    extra = "" if verdict.scale == verdict.finest or "(" in declared else f"scale = {verdict.scale}"
    policy = load_policy(
        f'[relation."s.t"]\nkey = {{ id = "integer" }}\n[relation."s.t".carrier.x]\n'
        f'type = "{declared}"\n{body}\n{extra}'
    )
    tolerance = policy.relations[0].carriers[0].tolerances[None]
    assert isinstance(tolerance, Tolerance)
    assert tolerance.quantum > 0


def test_dates() -> None:
    days = np.datetime64("2001-03-04") + RANDOM.integers(0, 5000, 3000)
    verdict = judge_date("birth_date", [str(day) for day in days] + ["1900-01-01"] * 5)
    assert isinstance(verdict, Carry)
    assert verdict.settings["quantum"] == '"1 day"'
    assert verdict.settings["bounds"].startswith('["2001-03-01"')
    assert verdict.settings["skip"] == '["1900-01-01"]'
    assert any("birth date" in line for line in verdict.why)
    assert any(line.startswith("REVIEW") for line in verdict.why)
    months = days.astype("datetime64[M]").astype("datetime64[D]")
    verdict = judge_date("d", [str(day) for day in months])
    assert isinstance(verdict, Leave)
    assert "first of a month" in verdict.why
    ends = judge_date("d", [f"9999-12-{day:02d}" for day in range(2, 31)] * 3)
    assert isinstance(ends, Carry)
    assert ends.settings["bounds"] == '["9999-12-01", "9999-12-31"]'


@pytest.mark.parametrize(
    ("step", "quantum", "neutral"),
    [
        (1, "1 millisecond", True),
        (1_000, "10 milliseconds", True),
        (1_000_000, "1 second", False),
        (60_000_000, "1 minute", False),
        (300_000_000, "5 minutes", False),
        (900_000_000, "15 minutes", False),
        (3_600_000_000, None, False),
        (86_400_000_000, None, False),
    ],
)
def test_timestamps(step: int, quantum: str | None, neutral: bool) -> None:
    micro = RANDOM.integers(0, 3 * 10**14, 2000) // step * step
    stamps = [str(np.datetime64(int(m), "us")).replace("T", " ") + "Z" for m in micro]
    verdict = judge_timestamp(SqlType.parse("timestamptz"), stamps)
    if quantum is None:
        assert isinstance(verdict, Leave)
        return
    assert isinstance(verdict, Carry)
    assert verdict.settings["quantum"] == f'"{quantum}"'
    assert ("neutral" in verdict.settings) is neutral


def test_cohort(cluster: ThrowawayCluster, dpi: psycopg.Connection[Any]) -> None:
    with connect(cluster.dsn(dpi.info.dbname)) as session:
        text = suggest(session, ["dpi"])
        policy = load_policy(text)
        fit(session, policy)
        report = check(session, policy, sample_rows=20_000)
        assert text == suggest(session, ["dpi"])
    carriers = {r.name: {c.column: c for c in r.carriers} for r in policy.relations}
    assert set(carriers["patient"]) == {
        "birth_date", "height_cm", "weight_kg", "included_on", "last_seen_on",
    }  # fmt: skip
    assert set(carriers["lab_result"]) == {"value", "recorded_at"}
    assert carriers["lab_result"]["recorded_at"].neutral
    assert set(carriers["diagnosis"]) == {"diagnosed_on"}
    value = carriers["lab_result"]["value"]
    assert value.by is not None
    assert value.by[0] == "test"
    assert set(value.tolerances) == {"chol", "hdl", "dbp", "sbp", "fib4"}
    pressure = value.tolerances["sbp"]
    assert isinstance(pressure, Tolerance)
    assert (pressure.quantum, pressure.grid) == (1, 2)
    assert pressure.high < 400
    assert "#   smoke: left alone, a flag, 0 or 1" in text
    assert "#   age: follows from birth_date and included_on" in text
    assert "#   bmi: follows from height_cm and weight_kg" in text
    assert "#   patient_id: part of a foreign key, never marked" in text
    assert "#   ipp: unique: an identifier" in text
    assert "#   family_name: names of persons" in text
    assert "#   taken_at:" in text
    assert report.harmless
    for relation in report.relations:
        for carrier in relation.carriers:
            for part in carrier.parts:
                assert abs(part.mean_shift_in_sd or 0) < 0.03, part
                assert part.unmarkable.total <= 0.1 * part.selected, part


def test_repeated_columns_have_an_entity_or_are_copies(suggested: Callable[..., str]) -> None:
    text = suggested(
        "CREATE TABLE patient (id int PRIMARY KEY, born date NOT NULL, weight numeric(5,1))",
        "INSERT INTO patient SELECT i, date '1940-01-05' + (i * 37) % 20000,"
        " round((60 + random() * 50)::numeric, 1) FROM generate_series(1, 2000) AS i",
        "CREATE TABLE stay (id int PRIMARY KEY, patient int NOT NULL REFERENCES patient,"
        " born date NOT NULL, first_seen date NOT NULL, cost numeric(8,2), at timestamptz)",
        "INSERT INTO stay SELECT i, p.id, p.born, p.born + 9000 + p.id * 7 % 3000,"
        " round((random() * 5000)::numeric, 2), timestamptz '2020-01-01' + random() * interval"
        " '1000 days' FROM generate_series(1, 20000) AS i JOIN patient AS p ON p.id = i % 2000 + 1",
    )
    policy = load_policy(text)
    stay = {carrier.column: carrier for carrier in policy.relation("public.stay").carriers}
    assert "#   born: a copy of public.patient.born" in text
    assert stay["first_seen"].entity == (("patient", SqlType.parse("integer")),)
    assert stay["cost"].entity == ()
    assert stay["at"].neutral
    assert stay["at"].tolerances[None].quantum == 1_000  # type: ignore[union-attr]


def test_relations_and_columns_left_alone(suggested: Callable[..., str]) -> None:
    text = suggested(
        "CREATE TABLE no_key (weight numeric(5,1))",
        "CREATE TABLE codes (code int PRIMARY KEY, label text)",
        "INSERT INTO codes SELECT i, 'label ' || i FROM generate_series(1, 100) AS i",
        "CREATE TABLE small (id int PRIMARY KEY, x numeric)",
        "CREATE TABLE m (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), a numeric(6,2),"
        " c numeric(6,2), c_pounds numeric GENERATED ALWAYS AS (c * 2.20462) STORED, visit_nr int,"
        " counter bigint, doc jsonb, note text, b boolean, score int, bp int, serial_no int UNIQUE,"
        " a_twice numeric(8,2))",
        "INSERT INTO m (a, visit_nr, counter, doc, note, b, score, bp, serial_no, a_twice, c)"
        " SELECT x, random() * 1000, i * 3, '{}', repeat('word ' || i, 20), true, i % 5,"
        " 120 + 20 * (random() + random() + random() + random() - 2), i, 2 * x, 100 * random()"
        " FROM (SELECT i, round((random() * 90)::numeric, 2) AS x"
        "         FROM generate_series(1, 3000) AS i) AS y",
    )
    policy = load_policy(text)
    [relation] = policy.relations
    assert relation.name == "m"
    assert [str(declared) for _, declared in relation.key] == ["uuid"]
    assert {carrier.column for carrier in relation.carriers} == {"a", "bp"}
    for line in (
        "# public.no_key: left alone, it has no primary key and no unique index",
        "# public.small: left alone, it has too few rows to judge",
        "#   c: the server computes c_pounds from it, which would tell its value",
        "#   c_pounds: the server computes it",
        "#   visit_nr: by its name",
        "#   counter: nearly every row has its own value",
        "#   doc: of type jsonb",
        "#   note: ",
        "#   b: yes or no",
        "#   score: only 5 distinct values",
        "#   serial_no: unique: an identifier",
        "#   a_twice: follows from",
    ):
        assert line in text, line


def test_by_an_integer_code_that_is_a_foreign_key(suggested: Callable[..., str]) -> None:
    text = suggested(
        "CREATE TABLE analyte (id smallint PRIMARY KEY, label varchar(20))",
        "INSERT INTO analyte SELECT i, 'analyte ' || i FROM generate_series(1, 5) AS i",
        "CREATE TABLE result (id bigint PRIMARY KEY, analyte smallint REFERENCES analyte,"
        " value double precision)",
        "INSERT INTO result SELECT i, i % 5 + 1, CASE i % 5 WHEN 0 THEN (i / 5) % 2"
        " WHEN 1 THEN round((140 + 4 * sin(i))::numeric, 0) WHEN 2 THEN"
        " round((0.8 + 0.3 * sin(i))::numeric, 2) WHEN 3 THEN round((900 + 300 * sin(i))::numeric)"
        " ELSE round((37 + sin(i))::numeric, 1) END FROM generate_series(1, 8000) AS i",
    )
    [carrier] = load_policy(text).relation("public.result").carriers
    assert carrier.by == ("analyte", SqlType.parse("smallint"))
    assert carrier.scale == 2
    quanta = {code: t.quantum for code, t in carrier.tolerances.items() if isinstance(t, Tolerance)}
    assert "1" not in quanta
    assert quanta["3"] == Decimal("0.01")
    assert quanta["4"] >= 1
    assert "#   1: left alone, a flag, 0 or 1" in text
    assert "#   analyte: other carriers go by it" in text


def test_partitioned_and_odd_names(suggested: Callable[..., str]) -> None:
    text = suggested(
        'CREATE SCHEMA "Odd # schema"',
        'CREATE TABLE "Odd # schema"."Tâble ""x"""'
        ' ("the id" int, "year" int, "välue\n[x]" numeric(5,1), "see\nhere" boolean,'
        ' PRIMARY KEY ("the id", "year")) PARTITION BY RANGE ("year")',
        'CREATE TABLE "Odd # schema".p1 PARTITION OF "Odd # schema"."Tâble ""x"""'
        " FOR VALUES FROM (0) TO (2000)",
        'CREATE TABLE "Odd # schema".p2 PARTITION OF "Odd # schema"."Tâble ""x"""'
        " FOR VALUES FROM (2000) TO (3000)",
        'INSERT INTO "Odd # schema"."Tâble ""x""" SELECT i, 1990 + i % 20,'
        " round((random() * 90)::numeric, 1) FROM generate_series(1, 30000) AS i",
        "CREATE TABLE same (id int PRIMARY KEY, x numeric(5,1))",
        "INSERT INTO same SELECT i, round((random() * 90)::numeric, 1)"
        " FROM generate_series(1, 300) AS i",
        'CREATE TABLE "Odd # schema".same AS TABLE same',
        'ALTER TABLE "Odd # schema".same ADD PRIMARY KEY (id)',
        schemas=["public", "Odd # schema", "public"],
    )
    policy = load_policy(text)
    assert {(r.schema, r.name): r.carriers[0].column for r in policy.relations} == {
        ("public", "same"): ANY,
        ("Odd # schema", 'Tâble "x"'): "välue\n[x]",
        ("Odd # schema", "same"): ANY,
    }
    assert len({relation.view for relation in policy.relations}) == 3
    assert "#   see?here: yes or no" in text
    tomllib.loads(text)


def test_no_patient_value_in_a_suggestion_of_names(suggested: Callable[..., str]) -> None:
    text = suggested(
        "CREATE TABLE p (id int PRIMARY KEY, nom text, ville text, x numeric(5,1))",
        "INSERT INTO p SELECT i, 'SECRET' || i % 50, 'TOWN' || i % 50,"
        " round((random() * 90)::numeric, 1) FROM generate_series(1, 3000) AS i",
    )
    assert "SECRET" not in text
    assert "TOWN" not in text


def test_nothing_to_suggest(suggested: Callable[..., str]) -> None:
    with pytest.raises(InvalidInput, match="there is no schema nowhere"):
        suggested(schemas=["nowhere"])
    with pytest.raises(InvalidInput, match="nothing in public can carry a mark"):
        suggested("CREATE TABLE t (id int PRIMARY KEY)")


def test_works_without_statistics(
    cluster: ThrowawayCluster, empty_db: psycopg.Connection[Any]
) -> None:
    empty_db.execute("CREATE TABLE t (id int PRIMARY KEY, x numeric(5,1), n int)")
    empty_db.execute(
        "INSERT INTO t SELECT i, round((random() * 90)::numeric, 1), i"
        " FROM generate_series(1, 30000) AS i"
    )
    with connect(cluster.dsn(empty_db.info.dbname)) as session:
        policy = load_policy(suggest(session, ["public"]))
    assert [carrier.column for carrier in policy.relations[0].carriers] == ["x"]
