"""The same hospital on servers of several major versions.

The variable PGBALISE_MATRIX lists the versions to test beside 15; without it, the newest. What a
run leaves out is said in its last lines.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgbalise.database import apply_policy, enrol
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.demo.cohort import load_cohort
from pgbalise.demo.servers import MAJORS, PACKAGES, installation
from pgbalise.errors import EnvironmentProblem
from pgbalise.install import install
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import Policy, RecipientClass, parse_policy
from pgbalise.session import PsycopgSession, connect
from tests.demonstration import marks_only

PROJECT = Path(__file__).resolve().parents[2]
KEY = MasterKey(bytes(range(32)))
RECIPIENTS = {
    "registry_rennes": RecipientClass.SECONDARY,
    "vendor_brest": RecipientClass.SECONDARY,
    "ward_quimper": RecipientClass.CARE,
}
ROWS = 400
MANY_ROWS = 5_000
"""In the relation that also has decoys: enough that sorting them would cost."""

WANTED = sorted({15} | {int(word) for word in os.environ.get("PGBALISE_MATRIX", "18").split(",")})
ORDER = [15, *(major for major in WANTED if major != 15)]

# Plain functions of the row's number n, so that every server is given the same rows.
_KEYS = {
    "by_smallint": {"k": ("smallint", "n - 200")},
    "by_integer": {"k": ("integer", "n * 7919 - 1000000")},
    "by_bigint": {"k": ("bigint", "n::bigint * 22517998136852 - 4503599627370496")},
    "by_text": {"k": ("text", "'é' || repeat(n::text, 1 + n % 9)")},
    "by_varchar": {"k": ("varchar(40)", "'a' || n")},
    "by_char": {"k": ("char(9)", "'b' || n")},
    "by_uuid": {"k": ("uuid", "md5(n::text)::uuid")},
    "by_date": {"k": ("date", "date '1970-01-01' + n")},
    "by_timestamp": {"k": ("timestamp", "timestamp '1970-01-01' + n * interval '1.000001 day'")},
    "by_timestamptz": {"k": ("timestamptz", "timestamptz '1970-01-01Z' + n * interval '1 hour'")},
    "by_two": {"k": ("text", "'c' || n % 7"), "l": ("integer", "n")},
}


def _drawn(number: int, below: int) -> str:
    return f"abs(hashint8extended(n, {number}) % {below})"


# type, values, and the rest of the carrier's policy
_CARRIERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "small": ("smallint", f"{_drawn(1, 120)} - 20", {"quantum": "1", "bounds": [-10, 90]}),
    "whole": ("integer", f"{_drawn(2, 200)} - 100", {"quantum": "2", "skip": [0]}),
    "big": ("bigint", f"{_drawn(3, 9999)} * 5000000000", {"quantum": "1", "grid": "5"}),
    "fixed": (
        "numeric(9,2)",
        f"{_drawn(4, 9000)} / 100.0",
        {"by": {"code": "text"}, "tolerance": {"x": {"quantum": "0.1", "thresholds": [40]}}},
    ),
    "free": (
        "numeric",
        f"(({_drawn(5, 9999)} / 10.0)::numeric(9,1) * CASE n % 3 WHEN 0 THEN 1 ELSE 0.1 END)",
        {"quantum": "0.1", "scale": 2},
    ),
    "single": ("real", f"{_drawn(6, 9999)} / 100.0", {"quantum": "0.1", "scale": 2}),
    "double": ("double precision", f"{_drawn(7, 99999)} / 1000.0", {"quantum": "0.01"}),
    "smooth": (
        "double precision",
        f"(ARRAY['NaN', '-Infinity', '0.1', '-5e-7', '7'])[1 + {_drawn(8, 5)}]::float8 * n / 7",
        {"quantum": "0.1", "continuous": True},
    ),
    "day": (
        "date",
        f"date '1950-01-01' + {_drawn(9, 30000)}::int",
        {"quantum": "3 days", "entity": {"owner": "integer"}},
    ),
    "naive": (
        "timestamp",
        f"timestamp '1990-01-01' + {_drawn(10, 10**9)} * interval '1.000001 second'",
        {"quantum": "7 seconds", "thresholds": ["2000-01-01 00:00:00"]},
    ),
    "instant": (
        "timestamptz",
        f"timestamptz '1990-01-01Z' + {_drawn(11, 10**9)} * interval '1.000001 second'",
        {"quantum": "1 millisecond", "neutral": True},
    ),
    "word": (
        "text",
        f"(ARRAY['M', 'H', 'm', 'other', ''])[1 + {_drawn(12, 5)}]",
        {"equivalents": [["M", "H", "m"]], "neutral": True},
    ),
    "short": ("varchar(5)", f"chr(97 + {_drawn(13, 3)}::int)", {"equivalents": [["a", "b"]]}),
    "padded": ("char(5)", f"chr(97 + {_drawn(14, 3)}::int)", {"equivalents": [["a", "c"]]}),
}


def document(derivation: str) -> dict[str, Any]:
    """The demonstration's policy, and relations with every type of key and of carrier."""
    made: dict[str, Any] = marks_only(PROJECT)
    made = {**made, "derivation": derivation, "relation": dict(made["relation"])}
    for name, key in _KEYS.items():
        made["relation"][f"kinds.{name}"] = {
            "key": {column: declared for column, (declared, _) in key.items()},
            "decoys": name == "by_integer",
            "carrier": {
                column: {"type": declared, "density": "0.6", **rest}
                for column, (declared, _, rest) in _CARRIERS.items()
            },
        }
    return made


def _load_kinds(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE SCHEMA kinds")
    for name, key in _KEYS.items():
        columns = {**key, "owner": ("integer", "n / 4"), "code": ("text", "chr(120 + n % 3)")}
        columns |= {
            # some cells of every carrier are NULL
            column: (declared, f"CASE WHEN {_drawn(99 + at, 20)} > 0 THEN {values} END")
            for at, (column, (declared, values, _)) in enumerate(_CARRIERS.items())
        }
        listed = ", ".join(f"{column} {declared}" for column, (declared, _) in columns.items())
        values = ", ".join(f"({value})::{declared}" for declared, value in columns.values())
        connection.execute(f"CREATE TABLE kinds.{name} ({listed}, PRIMARY KEY ({', '.join(key)}))")
        rows = MANY_ROWS if name == "by_integer" else ROWS
        connection.execute(
            f"INSERT INTO kinds.{name} SELECT {values} FROM generate_series(1, {rows}) AS n"
        )
        connection.execute(f"ANALYZE kinds.{name}")


def _digest(session: PsycopgSession, schema: str, name: str, key: list[str]) -> str:
    """The SHA-256 of a relation's rows as COPY writes them, in the order of their keys."""
    query = sql.SQL("COPY (SELECT * FROM {} ORDER BY {}) TO STDOUT").format(
        sql.Identifier(schema, name), sql.SQL(", ").join(map(sql.Identifier, key))
    )
    hashed = hashlib.sha256()
    with session.connection.cursor().copy(query) as rows:
        for row in rows:
            hashed.update(row)
    return hashed.hexdigest()


Answers = dict[tuple[str | None, str], str]
"""By role and relation; under None, the stored relations."""


@dataclass(frozen=True)
class Server:
    """A server with the hospital on it."""

    major: int
    extension: bool
    cluster: ThrowawayCluster
    key: MasterKey = KEY
    recipients: Mapping[str, RecipientClass] = field(default_factory=lambda: RECIPIENTS)

    @property
    def owner(self) -> str:
        """Who installed: a superuser, or as on managed servers one who may only create roles."""
        return "postgres" if self.extension else "dba"

    def dsn(self, role: str | None = None) -> str:
        return self.cluster.dsn("hospital", role or self.owner)

    def policy(self, derivation: str) -> Policy:
        return parse_policy(document(derivation))

    def apply(self, derivation: str) -> Policy:
        """Put the policy in force, with this derivation."""
        with connect(self.dsn()) as session, session.connection.transaction():
            apply_policy(session, document(derivation), KEY)
        return self.policy(derivation)

    def answers(self, policy: Policy) -> Answers:
        """The digest of every stored relation, and of every marked view for every recipient."""
        found = {}
        for role in (None, *RECIPIENTS):
            with connect(self.dsn(role)) as session:
                for relation in policy.relations:
                    where, name = relation.schema, relation.name
                    if role is not None:
                        where, name = policy.schemas[RECIPIENTS[role]], relation.view
                    key = [column for column, _ in relation.key]
                    found[role, relation.qualified] = _digest(session, where, name, key)
        return found


@contextmanager
def _serve(major: int) -> Iterator[Server]:
    extension = major == 15 or PACKAGES[major].extension
    with ThrowawayCluster(installation=installation(major)) as cluster:
        if extension:
            cluster.install_extension(PROJECT / "sql")
        made = Server(major, extension, cluster)
        with psycopg.connect(cluster.dsn(), autocommit=True) as superuser:
            if not extension:
                superuser.execute("CREATE ROLE dba LOGIN CREATEROLE")
            superuser.execute(f"CREATE DATABASE hospital OWNER {made.owner}")
        with connect(made.dsn()) as session:
            load_cohort(session.connection)
            # a quarter of the 400,123 results, so that every version is tested in seconds
            session.connection.execute("DELETE FROM dpi.lab_result WHERE result_id > 100000")
            session.connection.execute("VACUUM (ANALYZE) dpi.lab_result")
            _load_kinds(session.connection)
            install(session, sql_only=not extension)
            made.apply("seeded")
            with session.connection.transaction():
                for role, recipient_class in RECIPIENTS.items():
                    session.run("CREATE ROLE %I LOGIN", role)
                    enrol(session, [role], recipient_class, KEY)
        yield made


@pytest.fixture(scope="session")
def digest() -> Callable[[PsycopgSession, str, str, list[str]], str]:
    """What gives the SHA-256 of a relation's rows: session, schema, name, columns of the key."""
    return _digest


@pytest.fixture(scope="session")
def fifteen() -> Iterator[Server]:
    """PostgreSQL 15, with which the others are compared."""
    with _serve(15) as made:
        yield made


@pytest.fixture(scope="session")
def expected(fifteen: Server) -> dict[str, Answers]:
    """By derivation, what PostgreSQL 15 answers."""
    return {name: fifteen.answers(fifteen.apply(name)) for name in ("sha256", "seeded")}


@pytest.fixture(scope="session", params=ORDER, ids="postgresql-{}".format)
def server(
    request: pytest.FixtureRequest, fifteen: Server, expected: dict[str, Answers]
) -> Iterator[Server]:
    """Each server in turn, 15 first."""
    if request.param == 15:
        yield fifteen
        return
    plugins = request.config.pluginmanager

    def say(line: str) -> None:
        with plugins.get_plugin("capturemanager").global_and_fixture_disabled():
            plugins.get_plugin("terminalreporter").write_line(line)

    try:
        installation(request.param, say)
    except EnvironmentProblem as problem:
        pytest.fail(f"{problem} (PGBALISE_MATRIX=15 leaves the other versions out)")
    with _serve(request.param) as made:
        yield made


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each server, and one for those left out."""
    found: dict[int, Counter[str]] = {}
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            match = re.search(r"tests/matrix/.*\[postgresql-(\d+)", report.nodeid)
            if match:
                found.setdefault(int(match[1]), Counter())[outcome] += 1
    if not found:
        return
    terminalreporter.section("PostgreSQL versions")
    for major in sorted(found):
        way = "extension" if major == 15 or PACKAGES[major].extension else "plain SQL"
        said = ", ".join(f"{count} {outcome}" for outcome, count in found[major].items())
        terminalreporter.write_line(f"PostgreSQL {major} ({way}): {said}")
    missing = [str(major) for major in MAJORS if major not in found]
    if missing:
        terminalreporter.write_line(
            f"LEFT OUT: PostgreSQL {', '.join(missing)} (make test-matrix tests all of them)"
        )
