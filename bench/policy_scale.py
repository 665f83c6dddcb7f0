"""A hospital of 1,000 tables: applying a policy of 10,000 carriers, and planning a lookup.

Wall clock of one ``policy apply`` as the command line runs it, with 20 recipients enrolled; then
the planning time that EXPLAIN (SUMMARY) reports for a lookup by key on marked views at random:
in sessions that use a few views, each several times, and in one session that goes through many.
"""

from __future__ import annotations

import random
from statistics import median
from time import perf_counter
from typing import Any

import psycopg

from pgbalise.database import apply_policy, enrol
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.install import install
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import connect

TABLES = 1_000
CARRIERS = 10
RECIPIENTS = 20
ROWS = 20
SESSIONS, VIEWS, TIMES = 30, 10, 5
BAR_APPLY_SECONDS = 60.0
BAR_PLAN_MILLISECONDS = 1.0
KEY = MasterKey(bytes(range(32)))

_KINDS = (
    ("integer", "1 + i % 200", {"quantum": "1", "bounds": ["0", "500"]}),
    ("numeric(6,2)", "10 + i % 50 + 0.25", {"quantum": "0.05", "bounds": ["0", "999"]}),
    ("date", "date '2020-01-01' + i", {"quantum": "1 day"}),
    ("timestamp with time zone", "'2020-01-01Z'::timestamptz + i * interval '1 h'", None),
    ("double precision", "36.5 + i * 0.1", {"quantum": "0.1", "bounds": ["0", "99"]}),
)


def measure(*, tables: int = TABLES, seed: int = 1) -> list[dict[str, Any]]:
    """Return one entry per figure: name, value, unit, bar, holds, how."""
    with ThrowawayCluster() as cluster:
        cluster.install_extension(_project() / "sql")
        _create(cluster, tables)
        with connect(cluster.dsn()) as session:
            install(session)
            with session.connection.transaction():
                apply_policy(session, _policy(1), KEY)
                roles = [f"recipient_{n}" for n in range(RECIPIENTS)]
                for role in roles:
                    session.run("CREATE ROLE %I LOGIN", role)
                enrol(session, roles, RecipientClass.SECONDARY, KEY)
            seconds = []
            for _ in range(2):
                begin = perf_counter()
                with session.connection.transaction():
                    apply_policy(session, _policy(tables), KEY)
                seconds.append(perf_counter() - begin)
            session.fetch("VACUUM ANALYZE")
        chance = random.Random(seed)
        few = [
            planned
            for _ in range(SESSIONS)
            for planned in _plans(cluster, chance.sample(range(tables), VIEWS))
        ]
        many = _plans(cluster, chance.sample(range(tables), min(tables, SESSIONS * VIEWS)))
    what = f"{tables:,} tables with {tables * CARRIERS:,} carriers"
    return [
        _entry(f"policy apply, {what}, from one table", seconds[0], "s", BAR_APPLY_SECONDS),
        _entry(f"policy apply, {what}, again", seconds[1], "s", BAR_APPLY_SECONDS),
        _entry(
            f"planning a key lookup, {CARRIERS} carriers, median",
            median(milliseconds for planned in few for milliseconds in planned),
            "ms",
            BAR_PLAN_MILLISECONDS,
        ),
        _entry(
            "the same, the first lookup on a view in its session",
            median(planned[0] for planned in few),
            "ms",
            None,
        ),
        _entry(
            f"the same, in one session that goes through {len(many)} views",
            median(milliseconds for planned in many for milliseconds in planned),
            "ms",
            None,
        ),
    ]


def _entry(name: str, value: float, unit: str, bar: float | None) -> dict[str, Any]:
    how = {
        "s": f"one transaction, {RECIPIENTS} recipients enrolled, wall clock, one run",
        "ms": f"EXPLAIN (SUMMARY) as a recipient, {TIMES} times for each view at random; {SESSIONS}"
        f" sessions of {VIEWS} views each, unless said otherwise",
    }[unit]
    return {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "bar": bar,
        "holds": None if bar is None else value <= bar,
        "how": how,
    }


def _project() -> Any:
    from pathlib import Path

    return Path(__file__).resolve().parents[1]


def _create(cluster: ThrowawayCluster, tables: int) -> None:
    columns = ", ".join(f"c{n} {_KINDS[n % len(_KINDS)][0]}" for n in range(CARRIERS))
    values = ", ".join(_KINDS[n % len(_KINDS)][1] for n in range(CARRIERS))
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA dpi")
        for at in range(tables):
            connection.execute(
                f"CREATE TABLE dpi.t{at} (id bigint PRIMARY KEY, label text, {columns});"
                f"INSERT INTO dpi.t{at} SELECT i, 'x', {values}"
                f" FROM generate_series(1, {ROWS}) AS i".encode()
            )


def _policy(tables: int) -> dict[str, Any]:
    carriers = {}
    for n in range(CARRIERS):
        kind, _, tolerance = _KINDS[n % len(_KINDS)]
        carriers[f"c{n}"] = {"type": kind, **(tolerance or {"quantum": "1 millisecond"})}
    return {
        "relation": {
            f"dpi.t{at}": {"key": {"id": "bigint"}, "carrier": carriers} for at in range(tables)
        }
    }


def _plans(cluster: ThrowawayCluster, views: list[int]) -> list[list[float]]:
    """Return the planning times of each view's lookups in one session, milliseconds."""
    found = []
    with psycopg.connect(cluster.dsn(user="recipient_0"), autocommit=True) as connection:
        for at in views:
            query = f"EXPLAIN (SUMMARY, FORMAT json) SELECT * FROM marked.t{at} WHERE id = 7"
            rows = [connection.execute(query.encode()).fetchone() for _ in range(TIMES)]
            found.append([row[0][0]["Planning Time"] for row in rows if row is not None])
    return found
