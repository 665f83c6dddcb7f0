"""The server that conversations are held with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from pgbalise.demo.cluster import ThrowawayCluster


@pytest.fixture(scope="session")
def server(cluster: ThrowawayCluster) -> str:
    """The address of a server that has a table, a view and a table that takes nothing."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS t (a int); CREATE OR REPLACE VIEW v AS SELECT a FROM t;"
            " CREATE TABLE IF NOT EXISTS s (a int);"
            " CREATE OR REPLACE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN RAISE ''no''; END';"
            " CREATE OR REPLACE TRIGGER no BEFORE INSERT ON s EXECUTE FUNCTION no()"
        )
    return str(Path(cluster.host) / f".s.PGSQL.{cluster.port}")
