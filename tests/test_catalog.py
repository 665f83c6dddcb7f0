from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgbalise.catalog import columns, relation_info, relations, sample, server_version, unique_keys
from pgbalise.errors import InvalidPolicy
from pgbalise.fit import fit
from pgbalise.marking.policy import load_policy
from pgbalise.session import PsycopgSession, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from pgbalise.demo.cluster import ThrowawayCluster

TABLES = """
CREATE SCHEMA dpi;
CREATE COLLATION dpi.loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE dpi.patient (
    patient_id integer PRIMARY KEY,
    ipp varchar(12) UNIQUE,
    weight numeric(5,1),
    double_id integer GENERATED ALWAYS AS (patient_id * 2) STORED,
    seen timestamptz(0),
    unit text COLLATE dpi.loose,
    code text,
    dropped int
);
ALTER TABLE dpi.patient DROP COLUMN dropped;
CREATE TABLE dpi.result (
    result_id bigint GENERATED ALWAYS AS IDENTITY,
    patient_id integer NOT NULL REFERENCES dpi.patient,
    year integer NOT NULL,
    value numeric,
    PRIMARY KEY (year, result_id)
) PARTITION BY RANGE (year);
CREATE TABLE dpi.result_a PARTITION OF dpi.result FOR VALUES FROM (0) TO (2000);
CREATE TABLE dpi.result_b PARTITION OF dpi.result FOR VALUES FROM (2000) TO (3000);
CREATE TABLE dpi.parent (id int PRIMARY KEY, x numeric(5,1));
CREATE TABLE dpi.child () INHERITS (dpi.parent);
CREATE TABLE dpi.loose_key (id int, x numeric(5,1));
CREATE UNIQUE INDEX ON dpi.loose_key (id) WHERE x > 0;
ALTER TABLE dpi.loose_key ALTER id SET NOT NULL;
CREATE VIEW dpi.v AS SELECT * FROM dpi.patient;
CREATE TABLE dpi."Odd Name" ("the; id" int PRIMARY KEY, "x""y" numeric(5,1));
INSERT INTO dpi.patient (patient_id, ipp, weight, seen, unit, code)
    SELECT i, 'P' || i, i % 100, now(), 'a', 'b' FROM generate_series(1, 5000) AS i;
INSERT INTO dpi.result (patient_id, year, value)
    SELECT i % 5000 + 1, 1990 + i % 20, i / 7.0 FROM generate_series(1, 20000) AS i;
INSERT INTO dpi."Odd Name" VALUES (1, 1.5);
ANALYZE;
"""


@pytest.fixture
def session(
    cluster: ThrowawayCluster, empty_db: psycopg.Connection[Any]
) -> Iterator[PsycopgSession]:
    for statement in TABLES.split(";\n"):
        empty_db.execute(statement)
    with connect(cluster.dsn(empty_db.info.dbname)) as opened:
        yield opened


def policy(name: str, key: str, carriers: str) -> Any:
    body = "\n".join(f'[relation."{name}".carrier.{line}' for line in carriers.split("|"))
    return load_policy(f'[relation."{name}"]\nkey = {key}\n{body}')


def test_columns(session: PsycopgSession) -> None:
    found = {info.name: info for info in columns(session, "dpi", "patient")}
    assert list(found) == ["patient_id", "ipp", "weight", "double_id", "seen", "unit", "code"]
    assert found["patient_id"].not_null
    assert found["patient_id"].foreign
    assert found["patient_id"].unique_with == ("patient_id",)
    assert found["ipp"].type_text == "character varying(12)"
    assert not found["ipp"].not_null
    assert found["weight"].type_text == "numeric(5,1)"
    assert found["weight"].unique_with == ()
    assert not found["weight"].generated
    assert found["double_id"].generated
    assert found["seen"].type_text == "timestamp(0) with time zone"
    assert not found["unit"].deterministic
    assert found["code"].deterministic
    assert columns(session, "dpi", "nothing") == []


def test_relations_and_keys(session: PsycopgSession) -> None:
    found = {info.name: info for info in relations(session, "dpi")}
    assert found["patient"].rows == 5000
    assert found["result"].kind == "p"
    assert found["result"].rows == 20_000
    assert not found["result"].children
    assert found["parent"].children
    assert relation_info(session, "dpi", "patient") == found["patient"]
    assert relation_info(session, "dpi", "nothing") is None
    assert unique_keys(session, "dpi", "result") == [("year", "result_id")]
    assert unique_keys(session, "dpi", "patient") == [("patient_id",), ("ipp",)]
    assert unique_keys(session, "dpi", "loose_key") == []


def test_server_version(session: PsycopgSession) -> None:
    assert 150000 <= server_version(session) < 160000


@pytest.mark.parametrize("name", ["patient", "result"])
def test_sample_is_bounded_repeatable_and_spread(session: PsycopgSession, name: str) -> None:
    info = relation_info(session, "dpi", name)
    assert info is not None
    known = columns(session, "dpi", name)
    rows = sample(session, info, known, 1_000)
    assert 700 < len(rows) <= 1_000
    assert rows == sample(session, info, known, 1_000)
    assert rows != sample(session, info, known, 1_000, seed=2)
    at = [column.name for column in known].index("patient_id")
    owners = [int(row[at]) for row in rows if row[at] is not None]
    # the last rows written are as likely as the first
    assert 2_250 < sum(owners) / len(owners) < 2_750
    assert len(sample(session, info, known, 10**6)) == info.rows


def test_sample_prints_times_in_utc(session: PsycopgSession) -> None:
    session.fetch("CREATE TABLE dpi.t (d date, n timestamp, z timestamptz)")
    session.fetch(
        "INSERT INTO dpi.t VALUES ('2020-02-03', '2020-02-03 04:05:06.7', '2020-02-03 04:05+02'),"
        " ('infinity', '-infinity', 'infinity'), ('0044-03-15 BC', '10000-01-01', NULL)"
    )
    session.fetch("SET timezone = 'Europe/Paris'")
    session.fetch("SET datestyle = 'German'")
    info = relation_info(session, "dpi", "t")
    assert info is not None
    assert sample(session, info, columns(session, "dpi", "t"), 10) == [
        ("2020-02-03", "2020-02-03 04:05:06.700000", "2020-02-03 02:05:00.000000Z"),
        (None, None, None),
        (None, None, None),
    ]


@pytest.mark.parametrize(
    ("name", "key", "carriers"),
    [
        ("dpi.patient", '{ patient_id = "integer" }', 'weight]\ntype="numeric(5,1)"\nquantum=0.1'),
        ("dpi.patient", '{ patient_id = "int4" }', 'weight]\ntype="decimal(5, 1)"\nquantum=0.1'),
        # more columns than the unique index are unique as well
        (
            "dpi.result",
            '{ year = "integer", result_id = "bigint", patient_id = "integer" }',
            'value]\ntype="numeric"\nquantum=0.1',
        ),
        (
            "dpi.patient",
            '{ patient_id = "integer" }',
            'seen]\ntype="timestamptz(0)"\nquantum="1 minute"\nentity = { ipp = "varchar" }',
        ),
        (
            'dpi.\\"Odd Name\\"',
            '{ "the; id" = "integer" }',
            '"x\\"y"]\ntype="numeric(5,1)"\nquantum=0.1',
        ),
    ],
)
def test_fits(session: PsycopgSession, name: str, key: str, carriers: str) -> None:
    fit(session, policy(name, key, carriers))


WEIGHT = 'weight]\ntype="numeric(5,1)"\nquantum=0.1'
ID = '{ patient_id = "integer" }'


@pytest.mark.parametrize(
    ("name", "key", "carriers", "says"),
    [
        ("dpi.nobody", ID, WEIGHT, r"dpi\.nobody: there is no such relation"),
        ("dpi.v", ID, WEIGHT, r"dpi\.v: it is a view"),
        ("dpi.patient", '{ nr = "integer" }', WEIGHT, r"dpi\.patient: key: .* no column nr"),
        ("dpi.patient", '{ patient_id = "bigint" }', WEIGHT, r"key patient_id: .*integer, not big"),
        ("dpi.patient", '{ ipp = "varchar" }', WEIGHT, r"key ipp: the column may be NULL"),
        ("dpi.result", '{ result_id = "bigint" }', 'value]\ntype="numeric"\nquantum=1', "unique"),
        ("dpi.loose_key", '{ id = "integer" }', 'x]\ntype="numeric(5,1)"\nquantum=1', "unique"),
        ("dpi.parent", '{ id = "integer" }', 'x]\ntype="numeric(5,1)"\nquantum=1', "inherit"),
        ("dpi.patient", ID, 'height]\ntype="integer"\nquantum=1', "no column height"),
        ("dpi.patient", ID, 'weight]\ntype="numeric(6,1)"\nquantum=1', r"numeric\(5,1\), not num"),
        (
            "dpi.patient",
            ID,
            'weight]\ntype="numeric(5,2)"\nquantum=0.01',
            r"dpi\.patient: carrier weight: the quantum is finer .* \(numeric\(5,1\)\)",
        ),
        (
            "dpi.result",
            '{ year = "integer", result_id = "bigint" }',
            'patient_id]\ntype="integer"\nquantum=1',
            "carrier patient_id: it is part of a foreign key",
        ),
        ("dpi.patient", ID, WEIGHT + '\nentity = { who = "text" }', "entity: .* no column who"),
        ("dpi.patient", ID, WEIGHT + '\nentity = { ipp = "text" }', "entity ipp: .*varying"),
        (
            "dpi.patient",
            ID,
            (
                'weight]\ntype="numeric(5,1)"\nby={ unit = "text" }\n'
                '[relation."dpi.patient".carrier.weight.tolerance.a]\nquantum=1'
            ),
            "by unit: its collation is not deterministic",
        ),
        (
            "dpi.patient",
            ID,
            (
                'weight]\ntype="numeric(5,1)"\nby={ kind = "text" }\n'
                '[relation."dpi.patient".carrier.weight.tolerance.a]\nquantum=1'
            ),
            "by: .* no column kind",
        ),
        (
            "dpi.patient",
            ID,
            'unit]\ntype="text"\nequivalents=[["a", "A"]]',
            "carrier unit: its collation is not deterministic",
        ),
    ],
)
def test_does_not_fit(
    session: PsycopgSession, name: str, key: str, carriers: str, says: str
) -> None:
    with pytest.raises(InvalidPolicy, match=says) as caught:
        fit(session, policy(name, key, carriers))
    assert "\n" not in str(caught.value)
