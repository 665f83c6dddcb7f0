"""Which names common table expressions hide: the same as on a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgbalise.rewrite import Rules, analyse

if TYPE_CHECKING:
    from tests.conftest import Connection

NAMES = ("r0", "r1", "r2")
RULES = Rules({}, {}, frozenset(NAMES), {}, frozenset(), True, frozenset())


@st.composite
def queries(draw: st.DrawFn, depth: int = 3) -> str:
    """A query over r0, r1 and r2, each of them a table or a common table expression."""
    names = st.sampled_from(NAMES)
    items = []
    for at in range(draw(st.integers(1, 2))):
        kind = draw(st.integers(0, 4)) if depth else 0
        if kind == 4:
            items.append(f"LATERAL ({draw(queries(depth - 1))}) AS f{at}")
        else:
            items.append(draw(st.sampled_from(["", "public."])) + draw(names) + f" AS f{at}")
    column = "f0.a"
    if depth and draw(st.integers(0, 3)) == 3:
        column = f"({draw(queries(depth - 1))} LIMIT 1)"
    query = f"SELECT {column} AS a FROM {', '.join(items)}"
    if depth and draw(st.integers(0, 3)) == 3:
        other = draw(queries(depth - 1))
        wrapped = draw(st.booleans()) or other.startswith("WITH")
        query = f"{query} UNION ALL {f'({other})' if wrapped else other}"
    if depth and draw(st.booleans()):
        hidden = draw(st.lists(names, min_size=1, max_size=3, unique=True))
        ctes = ", ".join(f"{name} AS ({draw(queries(depth - 1))})" for name in hidden)
        query = f"WITH {draw(st.sampled_from(['', 'RECURSIVE ']))}{ctes} {query}"
        if draw(st.booleans()):
            query = f"({query})"
    return query


@pytest.fixture
def tables(empty_db: Connection) -> Connection:
    for name in NAMES:
        empty_db.execute(f"CREATE TABLE {name} (a int)")
    return empty_db


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(sql=queries())
def test_the_names_asked_about_are_the_relations_that_a_view_depends_on(
    tables: Connection, sql: str
) -> None:
    asked = {name.relation for name in analyse(sql, RULES).questions}
    with tables.transaction(force_rollback=True):
        try:
            tables.execute(f"CREATE VIEW probe AS {sql}")
        except psycopg.Error:
            # recursion that PostgreSQL does not do, or types that do not fit
            return
        found = tables.execute(
            "SELECT DISTINCT d.refobjid::regclass::text FROM pg_depend AS d"
            " JOIN pg_rewrite AS w ON w.oid = d.objid AND d.classid = 'pg_rewrite'::regclass"
            " WHERE w.ev_class = 'probe'::regclass AND d.refclassid = 'pg_class'::regclass"
            " AND d.refobjid <> w.ev_class"
        ).fetchall()
    assert asked == {name for (name,) in found}
