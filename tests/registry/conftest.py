"""A registry of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from pgbalise.registry.store import open_registry, upgrade


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
