"""A registry of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from pgbalise.database import apply_policy
from pgbalise.install import install
from pgbalise.marking.keys import MasterKey
from pgbalise.registry.store import open_registry, upgrade
from pgbalise.session import PsycopgSession


@pytest.fixture
def registry_dsn(cluster: Any, empty_db: psycopg.Connection[Any]) -> str:
    """An empty database, and next to where the registry will be, a table of the hospital's."""
    empty_db.execute("CREATE TABLE public.hospital (id int PRIMARY KEY, note text)")
    return str(cluster.dsn(empty_db.info.dbname))


@pytest.fixture
def registry(registry_dsn: str) -> Iterator[sa.Connection]:
    """A registry at its newest revision."""
    with open_registry(registry_dsn) as connection:
        upgrade(connection)
        yield connection


def protected(connection: psycopg.Connection[Any], key: MasterKey) -> PsycopgSession:
    """Install pgbalise and protect a small relation."""
    session = PsycopgSession(connection)
    install(session)
    connection.execute("CREATE TABLE public.vital (id int PRIMARY KEY, pulse int)")
    carrier = {"pulse": {"type": "integer", "quantum": "1", "bounds": ["20", "250"]}}
    relation = {"key": {"id": "integer"}, "carrier": carrier}
    with connection.transaction():
        apply_policy(session, {"relation": {"public.vital": relation}}, key)
    return session
