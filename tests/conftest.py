"""One PostgreSQL server for the whole run, and a database of its own for each test.

Roles belong to the server, not to a database: those a test creates are dropped after it.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from pytest_postgresql.janitor import DatabaseJanitor

from pgbalise.database import apply_policy, enrol
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.demo.cohort import load_cohort
from pgbalise.demo.story import recipient_names
from pgbalise.install import install
from pgbalise.keyfile import generate_key
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import connect
from tests.demonstration import marks_only

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parent.parent

Connection = psycopg.Connection[Any]


def _janitor(cluster: ThrowawayCluster, dbname: str, template: str) -> DatabaseJanitor:
    return DatabaseJanitor(
        user="postgres",
        host=cluster.host,
        port=cluster.port,
        dbname=dbname,
        template_dbname=template,
    )


def _roles(cluster: ThrowawayCluster) -> set[str]:
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        return {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}


@contextmanager
def _database(cluster: ThrowawayCluster, dbname: str, template: str) -> Iterator[Connection]:
    """Create a database, connect to it as postgres, and drop it and the roles new since."""
    roles = _roles(cluster)
    with _janitor(cluster, dbname, template):
        connection = psycopg.connect(cluster.dsn(dbname), autocommit=True)
        try:
            yield connection
        finally:
            connection.close()
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        for role in _roles(cluster) - roles:
            # A role may still own something in a database that outlives this test.
            with suppress(psycopg.errors.DependentObjectsStillExist):
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root folder."""
    return PROJECT


@pytest.fixture(scope="session")
def cluster() -> Iterator[ThrowawayCluster]:
    """A running server with this project's extension installed, not yet created anywhere."""
    with ThrowawayCluster() as server:
        if (PROJECT / "sql" / "Makefile").exists():
            server.install_extension(PROJECT / "sql")
        yield server


@pytest.fixture(scope="session")
def dpi_template(cluster: ThrowawayCluster) -> Iterator[str]:
    """The name of a template database with the cohort in schema dpi and no extension."""
    name = "dpi_template"
    with _janitor(cluster, name, "template0"):
        with psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
            load_cohort(connection)
        yield name


@pytest.fixture
def dpi(cluster: ThrowawayCluster, dpi_template: str) -> Iterator[Connection]:
    """A fresh copy of the cohort's database: a connection as postgres, in autocommit.

    ``dpi.info.dbname`` names the database for ``cluster.dsn(dbname, user)``.
    """
    with _database(cluster, "dpi_test", dpi_template) as connection:
        yield connection


@pytest.fixture
def empty_db(cluster: ThrowawayCluster) -> Iterator[Connection]:
    """A fresh, empty database: a connection as postgres, in autocommit."""
    with _database(cluster, "empty_test", "template0") as connection:
        yield connection


@dataclass(frozen=True)
class Hospital:
    """A database with the demonstration's policy in force and recipients enrolled."""

    cluster: ThrowawayCluster
    dbname: str
    key: MasterKey
    key_file: Path
    recipients: tuple[str, ...]

    def dsn(self, user: str = "postgres") -> str:
        """A connection string for a role."""
        return self.cluster.dsn(self.dbname, user)


@contextmanager
def _hospital(
    cluster: ThrowawayCluster, dbname: str, template: str, folder: Path, names: list[str]
) -> Iterator[Hospital]:
    key_file = folder / f"{dbname}.key"
    key = generate_key(key_file)
    document = marks_only(PROJECT)
    with _database(cluster, dbname, template), connect(cluster.dsn(dbname)) as session:
        install(session)
        with session.connection.transaction():
            apply_policy(session, document, key)
            for name in names:
                if not session.fetch("SELECT 1 FROM pg_roles WHERE rolname = $1::text", name):
                    session.run("CREATE ROLE %I LOGIN", name)
            enrol(session, names, RecipientClass.SECONDARY, key)
        yield Hospital(cluster, dbname, key, key_file, tuple(names))


@pytest.fixture(scope="session")
def hospital(
    cluster: ThrowawayCluster, dpi_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hospital]:
    """The cohort under the demonstration's policy, with 200 recipients. Do not change it."""
    folder = tmp_path_factory.mktemp("hospital")
    with _hospital(cluster, "hospital", dpi_template, folder, recipient_names(200)) as made:
        yield made


@pytest.fixture(scope="session")
def elsewhere(
    cluster: ThrowawayCluster,
    dpi_template: str,
    hospital: Hospital,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Hospital]:
    """Another hospital of the same kind: same keys and recipients' names, another master key."""
    folder = tmp_path_factory.mktemp("elsewhere")
    names = list(hospital.recipients[:20])
    with _hospital(cluster, "elsewhere", dpi_template, folder, names) as made:
        yield made
