"""A small hospital with the proxy in front of it: what clients get there, and what directly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pytest_postgresql.janitor import DatabaseJanitor

from bench.relays import PROJECT, PROXY_ROLE, Relay, loopback, proxy
from pgbalise.database import apply_policy, enrol
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.demo.cohort import load_cohort
from pgbalise.install import install
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import connect
from tests.demonstration import marks_only
from tests.proxy.proxied import front, guarded  # noqa: F401 - fixtures

RECIPIENT = "ward_recipient"
SMALL = """
CREATE TEMP TABLE p AS SELECT * FROM dpi.patient WHERE patient_id <= 160;
CREATE TEMP TABLE r AS SELECT * FROM dpi.lab_result WHERE patient_id <= 160 AND result_id % 2 = 0;
CREATE TEMP TABLE d AS SELECT * FROM dpi.diagnosis WHERE patient_id <= 160;
TRUNCATE dpi.patient, dpi.lab_result, dpi.diagnosis;
INSERT INTO dpi.patient TABLE p;
INSERT INTO dpi.lab_result TABLE r;
INSERT INTO dpi.diagnosis TABLE d;
CREATE TABLE dpi."Hospital Stay" ("Stay Id" bigint PRIMARY KEY, patient_id integer NOT NULL,
                                  "from" date NOT NULL, "Ward" text);
INSERT INTO dpi."Hospital Stay"
SELECT row_number() OVER (ORDER BY diagnosis_id), patient_id, diagnosed_on - 3, 'Ward ' || event
  FROM dpi.diagnosis;
CREATE INDEX ON dpi."Hospital Stay" (patient_id);
CREATE TABLE dpi.ward_list (ward text PRIMARY KEY, beds integer);
INSERT INTO dpi.ward_list SELECT DISTINCT "Ward", length("Ward") FROM dpi."Hospital Stay";
GRANT USAGE ON SCHEMA dpi TO ward_recipient;
GRANT SELECT ON dpi.ward_list TO ward_recipient;
ALTER DATABASE ward SET max_parallel_workers_per_gather = 0;
VACUUM ANALYZE;
"""
STAY = {
    "key": {"Stay Id": "bigint"},
    "carrier": {"from": {"type": "date", "quantum": "1 day"}},
}


@pytest.fixture(scope="session")
def cluster() -> Iterator[ThrowawayCluster]:
    """A server of these tests' own: the roles that they make are in nobody else's way."""
    with ThrowawayCluster() as server:
        server.install_extension(PROJECT / "sql")
        yield server


@pytest.fixture(scope="session")
def dpi_template(cluster: ThrowawayCluster) -> str:
    """The name of a template database with the cohort, on the server of these tests."""
    name = "dpi_template"
    cluster.psql(f"CREATE DATABASE {name}")
    with psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
        load_cohort(connection)
    return name


@dataclass(frozen=True)
class Ward:
    """A database with marked relations in schema dpi, one of which has a name to be quoted.

    Directly, the recipient reads them in schema marked; through the proxy, in schema dpi.
    """

    cluster: ThrowawayCluster
    relay: Relay
    dbname: str = "ward"
    recipient: str = RECIPIENT

    @property
    def direct(self) -> str:
        """The recipient's connection string around the proxy."""
        return self.cluster.dsn(self.dbname, self.recipient)

    @property
    def proxied(self) -> str:
        """The recipient's connection string through the proxy."""
        return self.relay.dsn(self.dbname, self.recipient)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the recipient reads directly."""
        with psycopg.connect(self.direct) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture(scope="session")
def ward(cluster: ThrowawayCluster, dpi_template: str) -> Iterator[Ward]:
    """The small hospital. Its stored rows do not change."""
    roles = (RECIPIENT, PROXY_ROLE)
    janitor = DatabaseJanitor(
        user="postgres",
        host=cluster.host,
        port=cluster.port,
        dbname="ward",
        template_dbname=dpi_template,
    )
    try:
        with janitor:
            _furnish(cluster)
            with proxy((cluster.host, cluster.port), (loopback(), 6432)) as relay:
                yield Ward(cluster, relay)
    finally:
        with closing(psycopg.connect(cluster.dsn(), autocommit=True)) as connection:
            for role in roles:
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


def _furnish(cluster: ThrowawayCluster) -> None:
    project = Path(__file__).resolve().parents[2]
    document = marks_only(project)
    document = {**document, "relation": {**document["relation"], 'dpi."Hospital Stay"': STAY}}
    key = MasterKey(bytes(range(32)))
    with connect(cluster.dsn("ward")) as session:
        session.run("CREATE ROLE %I LOGIN", RECIPIENT)
    cluster.psql(SMALL, dbname="ward")
    with connect(cluster.dsn("ward")) as session:
        install(session)
        session.run("CREATE ROLE %I LOGIN IN ROLE balise_proxy", PROXY_ROLE)
        with session.connection.transaction():
            apply_policy(session, document, key)
            enrol(session, [RECIPIENT], RecipientClass.SECONDARY, key)
