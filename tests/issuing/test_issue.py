"""Decoys in a real database: the demonstration's hospital, and small ones of every kind of key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from pgbalise.database import apply_policy, enrol
from pgbalise.decoybook import issued
from pgbalise.decoys.identity import Role
from pgbalise.errors import (
    DatabaseProblem,
    InvalidInput,
    InvalidPolicy,
    InvalidRecipient,
)
from pgbalise.install import install
from pgbalise.issuing import issue_decoys, make_decoys, reserve, retire
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass, load_document
from pgbalise.session import PsycopgSession, connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgbalise.decoys.issued import IssuedDecoy
    from pgbalise.demo.cluster import ThrowawayCluster
    from tests.conftest import Connection

KEY = MasterKey(bytes(range(32)))
NOW = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
LATER = datetime(2026, 6, 4, 10, 0, tzinfo=UTC)


def document(project: Path) -> dict[str, Any]:
    """The demonstration's policy, with decoys."""
    found = load_document((project / "pgbalise/demo/policy.toml").read_text("utf-8"))
    found["decoys"] = {"entity": "dpi.patient", "per_recipient": 3}
    for body in found["relation"].values():
        body["decoys"] = True
    found["relation"]["dpi.patient"]["identity"] = {
        "ipp": "record_number",
        "family_name": "family_name",
        "given_name": "given_name",
        "birth_date": "birth_date",
        "sex": "sex",
    }
    return found


@pytest.fixture(scope="module")
def small(cluster: ThrowawayCluster, dpi_template: str) -> Iterator[str]:
    """The name of a template database with one in 25 of the cohort."""
    name = "dpi_small"
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {dpi_template}".encode())
        with psycopg.connect(cluster.dsn(name), autocommit=True) as inside:
            for table in ("lab_result", "diagnosis", "patient"):
                inside.execute(f"DELETE FROM dpi.{table} WHERE patient_id % 25 > 0".encode())
            inside.execute("VACUUM (FULL, ANALYZE)")
        yield name
        connection.execute(f"DROP DATABASE {name}".encode())


@pytest.fixture
def session(cluster: ThrowawayCluster, small: str, project: Path) -> Iterator[PsycopgSession]:
    """That part of the cohort, with decoys: ana and ben (secondary), cora (care)."""
    roles = ("ana", "ben", "cora")
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE issuing TEMPLATE {small}".encode())
        for role in roles:
            connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        try:
            with connect(cluster.dsn("issuing")) as found:
                install(found)
                with found.connection.transaction():
                    apply_policy(found, document(project), KEY)
                    enrol(found, ["ana", "ben"], RecipientClass.SECONDARY, KEY)
                    enrol(found, ["cora"], RecipientClass.CARE, KEY)
                yield found
        finally:
            connection.execute("DROP DATABASE issuing WITH (FORCE)")
            for role in roles:
                connection.execute(f"DROP ROLE {role}".encode())


def generate(
    session: PsycopgSession,
    names: list[str] | None = None,
    count: int | None = None,
    now: datetime = NOW,
) -> list[IssuedDecoy]:
    with session.connection.transaction():
        return make_decoys(session, KEY, names, count, now)


def rows_of(session: PsycopgSession, table: str, *recipients: str) -> list[tuple[Any, ...]]:
    """Decoys' rows without the decoy's number in the catalog, which counts runs."""
    return session.fetch(
        f"SELECT to_jsonb(d) - 'balise_decoy' FROM balise_decoy.{table} AS d"
        " WHERE balise_recipient::text = ANY ($1::text[]) ORDER BY to_jsonb(d)::text",
        list(recipients),
    )


def everything(session: PsycopgSession, *recipients: str) -> list[list[tuple[Any, ...]]]:
    return [rows_of(session, name, *recipients) for name in ("patient", "lab_result", "diagnosis")]


def test_decoys_are_whole_patients_of_each_secondary_recipient(session: PsycopgSession) -> None:
    made = generate(session)
    assert [d.name for d in made] == ["ana/1", "ana/2", "ana/3", "ben/1", "ben/2", "ben/3"]
    assert issued(session) == made
    # each row hangs on its decoy's patient, and no key is a real row's
    for child in ("lab_result", "diagnosis"):
        assert session.fetch(
            f"SELECT count(*) > 0, bool_and(p.balise_decoy IS NOT NULL) FROM balise_decoy.{child}"
            " AS c LEFT JOIN balise_decoy.patient AS p USING (balise_recipient, balise_decoy,"
            " patient_id)"
        ) == [(True, True)]
    for table, key in (
        ("patient", "patient_id"),
        ("lab_result", "result_id"),
        ("diagnosis", "diagnosis_id"),
    ):
        assert not session.fetch(
            f"SELECT 1 FROM balise_decoy.{table} JOIN dpi.{table} USING ({key})"
        )
    # the book tells who they are, as the rows do
    for decoy in made:
        [row] = session.fetch(
            "SELECT ipp, family_name, given_name, birth_date::text, sex FROM"
            " balise_decoy.patient WHERE balise_decoy = $1 AND patient_id = $2",
            decoy.decoy_id,
            int(decoy.key["patient_id"]),
        )
        roles = ("record_number", "family_name", "given_name", "birth_date", "sex")
        assert row == tuple(decoy.identity[Role(role)] for role in roles)
    ipps = {decoy.identity[Role.RECORD_NUMBER] for decoy in made}
    assert len(ipps) == 6
    assert not session.fetch("SELECT 1 FROM dpi.patient WHERE ipp = ANY ($1::text[])", list(ipps))
    # and the age is still that on the day of inclusion
    assert (
        session.fetch(
            "SELECT 1 FROM balise_decoy.patient WHERE"
            " abs(age - extract(year FROM age(included_on, birth_date))) > 1"
        )
        == []
    )


def test_a_recipient_sees_its_own_decoys_and_care_none(
    session: PsycopgSession, cluster: ThrowawayCluster
) -> None:
    made = generate(session)
    dbname = session.connection.info.dbname
    [(real,)] = session.fetch("SELECT count(*) FROM dpi.patient")
    for role, schema, extra in (("ana", "marked", 3), ("cora", "marked_care", 0)):
        with psycopg.connect(cluster.dsn(dbname, role)) as theirs:
            count = theirs.execute(f"SELECT count(*) FROM {schema}.patient".encode()).fetchone()
            assert count == (real + extra,)
    with psycopg.connect(cluster.dsn(dbname, "ana")) as theirs:
        for decoy in made:
            joined = theirs.execute(
                "SELECT p.ipp, count(*) FROM marked.patient AS p"
                " LEFT JOIN marked.lab_result USING (patient_id)"
                " WHERE p.ipp = %s GROUP BY p.ipp",
                (decoy.identity[Role.RECORD_NUMBER],),
            ).fetchall()
            assert bool(joined) == (decoy.recipient == "ana")


def test_the_same_key_gives_the_same_decoys(session: PsycopgSession) -> None:
    first = generate(session, ["ana"])
    rows = everything(session, "ana")
    session.fetch("DELETE FROM balise.decoy")
    session.fetch("DELETE FROM balise.decoy_trait")
    for table in ("patient", "lab_result", "diagnosis"):
        session.fetch(f"DELETE FROM balise_decoy.{table}")
    assert [d.identity for d in generate(session, ["ana"])] == [d.identity for d in first]
    assert everything(session, "ana") == rows
    assert generate(session, ["ana"]) == []


def test_retiring_and_replacing_changes_no_other(session: PsycopgSession) -> None:
    made = generate(session)
    others = everything(session, "ben")
    with session.connection.transaction():
        assert retire(session, [("ana", 2)], LATER) == 1
    assert [d.name for d in issued(session, ["ana"], retired=False)] == ["ana/1", "ana/3"]
    assert issued(session, ["ana"])[1].retired_at == LATER
    kept = {d.decoy_id for d in made if d.name in ("ana/1", "ana/3")}
    there = session.fetch(
        "SELECT DISTINCT balise_decoy FROM balise_decoy.lab_result WHERE balise_recipient = 'ana'"
    )
    assert {decoy for (decoy,) in there} <= kept
    before = {str(row) for rows in everything(session, "ana") for row in rows}
    [new] = generate(session, now=LATER)
    assert new.name == "ana/4"
    assert new.key != made[1].key
    assert new.identity != made[1].identity
    assert before < {str(row) for rows in everything(session, "ana") for row in rows}
    assert everything(session, "ben") == others
    with session.connection.transaction():
        assert retire(session, [("ana", 2), ("ana", 4)], LATER) == 1
    with pytest.raises(InvalidInput, match="no decoy ana/9"), session.connection.transaction():
        retire(session, [("ana", 1), ("ana", 9)], LATER)


def test_more_are_added_up_to_the_count(session: PsycopgSession) -> None:
    generate(session, ["ana"], 2)
    assert [d.name for d in generate(session, None, 4)] == [
        "ana/3",
        "ana/4",
        "ben/1",
        "ben/2",
        "ben/3",
        "ben/4",
    ]
    assert generate(session) == []


def test_numbers_go_with_times_as_the_real_ones(session: PsycopgSession) -> None:
    with session.connection.transaction():
        issue = issue_decoys(session, KEY, None, 20, NOW)
    assert issue.rows > 400
    # but for the last times: the newest numbers may still be somebody's
    assert issue.out_of_order < 0.1 * issue.rows
    for table, key, time in (
        ("lab_result", "result_id", "taken_at"),
        ("diagnosis", "diagnosis_id", "diagnosed_on"),
    ):
        rows = session.fetch(
            f"SELECT {key}, extract(epoch FROM {time})::float8, false FROM dpi.{table} UNION ALL"
            f" SELECT {key}, extract(epoch FROM {time})::float8, true FROM balise_decoy.{table}"
            " WHERE balise_recipient = 'ana' ORDER BY 1"
        )
        times, decoy = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
        behind = np.r_[np.diff(times) < 0, False] | np.r_[False, np.diff(times) < 0]
        assert np.mean(behind[decoy]) < 0.1


def test_a_decoy_whose_key_a_real_row_got_is_replaced(session: PsycopgSession) -> None:
    made = generate(session, ["ana"])
    session.fetch(
        "INSERT INTO dpi.patient SELECT $1::int, 'other', 'A', 'B', birth_date, sex, age,"
        " height_cm, weight_kg, bmi, included_on, last_seen_on, deceased FROM dpi.patient LIMIT 1",
        int(made[1].key["patient_id"]),
    )
    with session.connection.transaction():
        issue = issue_decoys(session, KEY, None, None, LATER)
    assert issue.retired == 1
    assert issue.decoys[0].name == "ana/4"
    assert issued(session, ["ana"])[1].retired_at == LATER


def test_reserved_numbers_are_taken_from_every_sequence(session: PsycopgSession) -> None:
    before = reserve(session, 10)
    assert {name: last + 7 for name, last in before.items()} == reserve(session, 7)
    assert sorted(before) == ["dpi.diagnosis", "dpi.lab_result", "dpi.patient"]
    with pytest.raises(InvalidInput, match="count"):
        reserve(session, 0)


def test_who_gets_none_is_told(session: PsycopgSession, project: Path) -> None:
    for names, words in ((["nobody"], "nobody is not enrolled"), (["cora"], "enrolled for care")):
        with pytest.raises(InvalidRecipient, match=words):
            generate(session, names)
    with pytest.raises(InvalidInput, match="another master key"), session.connection.transaction():
        make_decoys(session, MasterKey(bytes(32)), None, None, NOW)
    with pytest.raises(InvalidInput, match="count"):
        generate(session, None, 0)
    without = document(project)
    del without["decoys"]
    with session.connection.transaction():
        apply_policy(session, without, KEY)
    with pytest.raises(InvalidPolicy, match="does not say which decoys"):
        generate(session)


CLINIC = """
CREATE SCHEMA clinic;
CREATE TYPE clinic.ward AS ENUM ('north', 'south');
CREATE TABLE clinic.site (site_id integer PRIMARY KEY);
INSERT INTO clinic.site SELECT generate_series(1, 3);
CREATE TABLE clinic.person (
    ref uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    nip varchar(12) NOT NULL UNIQUE,
    name text NOT NULL, birth date, height numeric(4,1) CHECK (height BETWEEN 100 AND 220),
    site_id integer NOT NULL REFERENCES clinic.site, note jsonb, free text, active boolean,
    cm integer GENERATED ALWAYS AS (height::integer) STORED
);
CREATE TABLE clinic.stay (
    stay_no serial PRIMARY KEY, ref uuid NOT NULL REFERENCES clinic.person,
    ward clinic.ward NOT NULL, came timestamp NOT NULL, went timestamp,
    CHECK (went >= came), next_stay integer REFERENCES clinic.stay
);
CREATE TABLE clinic.act (
    stay_no integer NOT NULL REFERENCES clinic.stay, line smallint NOT NULL,
    ref uuid REFERENCES clinic.person, nip varchar(12), code char(4) NOT NULL, price numeric,
    PRIMARY KEY (stay_no, line)
);
INSERT INTO clinic.person (nip, name, birth, height, site_id, note, free, active)
SELECT 'N' || lpad((i * 7919 % 100000)::text, 6, '0'), 'Nom' || i || ' Marie',
       date '1940-01-01' + i * 37, 150 + i % 40, 1 + i % 3, '{}', 'about ' || i, i % 2 = 0
  FROM generate_series(1, 300) AS i;
INSERT INTO clinic.stay (stay_no, ref, ward, came, went)
SELECT 2 * n, ref, CASE WHEN n % 3 = 0 THEN 'north' ELSE 'south' END::clinic.ward,
       timestamp '2020-01-01 08:00' + n * interval '5 hours',
       timestamp '2020-01-01 08:00' + n * interval '5 hours' + n % 9 * interval '1 day'
  FROM (SELECT ref, row_number() OVER (ORDER BY nip, k) AS n
          FROM clinic.person, generate_series(1, 4) AS k) AS s;
SELECT setval('clinic.stay_stay_no_seq', 5000);
INSERT INTO clinic.act SELECT stay_no, line, ref, nip, 'A00' || line, 10.50 * line
  FROM clinic.stay JOIN clinic.person USING (ref), generate_series(1, 3) AS line;
ANALYZE;
CREATE ROLE ana LOGIN;
"""

CLINIC_POLICY: dict[str, Any] = {
    "decoys": {"entity": "clinic.person", "per_recipient": 5},
    "relation": {
        "clinic.person": {
            "key": {"ref": "uuid"},
            "decoys": True,
            "identity": {
                "nip": "record_number",
                "name": "full_name",
                "birth": "birth_date",
                "free": "empty",
            },
        },
        "clinic.stay": {"key": {"stay_no": "integer"}, "decoys": True},
        "clinic.act": {
            "key": {"stay_no": "integer", "line": "smallint"},
            "decoys": True,
            "identity": {"nip": "record_number"},
        },
    },
}


@pytest.fixture
def clinic(cluster: ThrowawayCluster, empty_db: Connection) -> Iterator[PsycopgSession]:
    """A small database with keys of every kind, and children of children."""
    empty_db.execute(CLINIC.encode())
    with connect(cluster.dsn(empty_db.info.dbname)) as found:
        install(found)
        with found.connection.transaction():
            apply_policy(found, CLINIC_POLICY, KEY)
            enrol(found, ["ana"], RecipientClass.SECONDARY, KEY)
        yield found


def test_keys_of_every_kind_and_rows_of_rows(clinic: PsycopgSession) -> None:
    made = generate(clinic)
    assert len(made) == 5
    persons = clinic.fetch(
        "SELECT ref::text, nip, name, birth::text, height, site_id, note, free, cm"
        " FROM balise_decoy.person ORDER BY balise_decoy"
    )
    for decoy, row in zip(made, persons, strict=True):
        assert decoy.key == {"ref": row[0]}
        assert row[1] == decoy.identity[Role.RECORD_NUMBER]
        assert row[1][0] == "N"
        assert len(row[1]) == 7
        assert row[2] == decoy.identity[Role.FULL_NAME]
        assert row[3] == decoy.identity[Role.BIRTH_DATE]
        assert 100 <= row[4] <= 220
        assert row[5] in (1, 2, 3)
        assert row[6:8] == (None, None)
        assert row[8] == round(row[4])
    # the one identity everywhere, references that resolve, lines that count from one
    assert clinic.fetch(
        "SELECT count(*) > 0, bool_and(a.ref = s.ref AND a.ref = p.ref AND a.nip = p.nip)"
        " FROM balise_decoy.act AS a"
        " JOIN balise_decoy.stay AS s USING (balise_decoy, stay_no)"
        " JOIN balise_decoy.person AS p USING (balise_decoy)"
    ) == [(True, True)]
    [(acts,)] = clinic.fetch("SELECT count(*) FROM balise_decoy.act")
    [(joined,)] = clinic.fetch(
        "SELECT count(*) FROM balise_decoy.act JOIN balise_decoy.stay USING (balise_decoy, stay_no)"
    )
    assert acts == joined
    assert (
        clinic.fetch("SELECT 1 FROM balise_decoy.act GROUP BY stay_no HAVING max(line) <> count(*)")
        == []
    )
    assert (
        clinic.fetch("SELECT 1 FROM balise_decoy.stay WHERE went < came OR stay_no % 2 = 0") == []
    )
    assert clinic.fetch("SELECT 1 FROM balise_decoy.act WHERE code !~ '^A00[1-3]$'") == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"nip": "record_number", "name": "full_name", "birth": "birth_date"}, "column free"),
        ({"nip": "record_number", "birth": "birth_date", "free": "empty"}, "column name"),
    ],
)
def test_a_column_that_would_quote_a_patient_is_refused(
    clinic: PsycopgSession, change: dict[str, str], problem: str
) -> None:
    relation = {**CLINIC_POLICY["relation"]["clinic.person"], "identity": change}
    relations = {**CLINIC_POLICY["relation"], "clinic.person": relation}
    with clinic.connection.transaction():
        apply_policy(clinic, {**CLINIC_POLICY, "relation": relations}, KEY)
    with pytest.raises(InvalidPolicy, match=f"{problem}.*quote a patient"):
        generate(clinic)
    assert issued(clinic) == []


def test_a_column_that_no_law_draws_is_refused_where_it_must_be_filled(
    clinic: PsycopgSession,
) -> None:
    clinic.fetch("ALTER TABLE clinic.person ALTER COLUMN note SET NOT NULL")
    with pytest.raises(InvalidPolicy, match=r"column note is NOT NULL.*jsonb"):
        generate(clinic)


def test_keys_without_a_sequence_that_run_out_are_told(clinic: PsycopgSession) -> None:
    clinic.fetch("ALTER TABLE clinic.stay ALTER COLUMN stay_no DROP DEFAULT")
    clinic.fetch("DROP SEQUENCE clinic.stay_stay_no_seq")
    with pytest.raises(DatabaseProblem, match=r"clinic\.stay: too few numbers.*stay_no"):
        generate(clinic, None, 900)


def test_a_constraint_that_calls_foreign_code_is_not_run(clinic: PsycopgSession) -> None:
    clinic.fetch("CREATE TABLE clinic.seen (at text)")
    clinic.fetch(
        "CREATE FUNCTION clinic.peek(x anyelement) RETURNS boolean LANGUAGE plpgsql AS"
        " $$BEGIN INSERT INTO clinic.seen VALUES (x::text); RETURN true; END$$"
    )
    clinic.fetch("ALTER TABLE clinic.act ADD CHECK (clinic.peek(price)) NOT VALID")
    assert len(generate(clinic)) == 5
    assert clinic.fetch("SELECT 1 FROM clinic.seen") == []


@pytest.mark.parametrize(
    ("column", "change", "problem"),
    [
        (
            "clinic.level",
            "CREATE CAST (clinic.level AS text) WITH FUNCTION clinic.seen_as(clinic.level)",
            "is of a type that is cast to text",
        ),
        (
            "clinic.short",
            "ALTER DOMAIN clinic.short ADD CHECK (clinic.seen_as(value) <> 'x') NOT VALID",
            "is of a domain",
        ),
    ],
)
def test_a_type_that_began_to_run_code_is_refused(
    clinic: PsycopgSession, column: str, change: str, problem: str
) -> None:
    clinic.fetch("CREATE TABLE clinic.seen (who text)")
    clinic.fetch("CREATE TYPE clinic.level AS ENUM ('low', 'high')")
    clinic.fetch("CREATE DOMAIN clinic.short AS varchar")
    clinic.fetch(f"ALTER TABLE clinic.act ADD COLUMN grade {column} DEFAULT 'low'")
    with clinic.connection.transaction():
        apply_policy(clinic, CLINIC_POLICY, KEY)
    clinic.fetch(
        f"CREATE FUNCTION clinic.seen_as(x {column}) RETURNS text LANGUAGE plpgsql AS"
        " $$BEGIN INSERT INTO clinic.seen VALUES (current_user); RETURN 'low'; END$$"
    )
    clinic.fetch(change)
    with pytest.raises(InvalidPolicy, match=f"column grade {problem}"):
        generate(clinic)
    assert clinic.fetch("SELECT 1 FROM clinic.seen") == []
