"""Whoever names the stored relations through the proxy gets the marked views' rows, to the byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.pq import ExecStatus, PGresult

from tests.proxy.queries import Query, generated

if TYPE_CHECKING:
    from tests.proxy.conftest import Ward

QUERIES = 320
SEED = 20_260_101

Answer = tuple[object, ...]
Asked = Callable[[psycopg.Connection[object], str], Answer]


@pytest.fixture(scope="module")
def sessions(ward: Ward) -> Iterator[tuple[psycopg.Connection[object], ...]]:
    with (
        psycopg.connect(ward.proxied, autocommit=True) as proxied,
        psycopg.connect(ward.direct, autocommit=True) as direct,
    ):
        for session, schema in ((proxied, "dpi"), (direct, "marked")):
            session.execute(f"SET search_path = {schema}")
            session.execute("SET synchronize_seqscans = off")
        yield proxied, direct


def _answer(result: PGresult | None) -> Answer:
    """All that a client can see of a result."""
    assert result is not None
    assert result.status == ExecStatus.TUPLES_OK, result.error_message.decode()
    columns = range(result.nfields)
    return (
        [(result.fname(at), result.ftype(at), result.fmod(at)) for at in columns],
        [[result.get_value(row, at) for at in columns] for row in range(result.ntuples)],
        result.command_status,
    )


def _simply(session: psycopg.Connection[object], query: str) -> Answer:
    return _answer(session.pgconn.exec_(query.encode()))


def _in_binary(session: psycopg.Connection[object], query: str) -> Answer:
    return _answer(session.pgconn.exec_params(query.encode(), [], result_format=1))


def _prepared(session: psycopg.Connection[object], query: str) -> Answer:
    session.pgconn.prepare(b"", query.encode())
    described = session.pgconn.describe_prepared(b"")
    names = [described.fname(at) for at in range(described.nfields)]
    return (names, *_answer(session.pgconn.exec_prepared(b"", [])))


def _by_cursor(session: psycopg.Connection[object], query: str) -> Answer:
    session.execute("BEGIN")
    try:
        session.execute(f"DECLARE c NO SCROLL CURSOR FOR {query}\n".encode())
        return _simply(session, "FETCH ALL FROM c")
    finally:
        session.execute("ROLLBACK")


def _copied(session: psycopg.Connection[object], query: str) -> Answer:
    with session.cursor().copy(f"COPY ({query}\n) TO STDOUT".encode()) as copy:
        return (b"".join(copy),)


def _kept(session: psycopg.Connection[object], query: str) -> Answer:
    columns = _simply(session, query)[0]
    names = ", ".join(f"k{at}" for at in range(len(columns)))  # type: ignore[arg-type]
    session.execute(f"CREATE TEMP TABLE kept ({names}) AS {query}\n".encode())
    try:
        return _simply(session, "SELECT * FROM kept")
    finally:
        session.execute("DROP TABLE kept")


WAYS: tuple[Asked, ...] = (_simply, _in_binary, _prepared, _by_cursor, _copied, _kept)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
def test_generated_queries_give_the_marked_views_rows(
    sessions: tuple[psycopg.Connection[object], ...], way: Asked
) -> None:
    proxied, direct = sessions
    queries = generated(QUERIES, SEED)[WAYS.index(way) :: len(WAYS)]
    empty = 0
    for query in queries:
        wanted = way(direct, query.direct)
        assert way(proxied, query.proxied) == wanted, query.proxied
        empty += not wanted[-2] if len(wanted) > 1 else not wanted[0]
    assert empty < len(queries) / 3


def test_the_queries_are_many_and_varied() -> None:
    queries = generated(QUERIES, SEED)
    assert len({query.proxied for query in queries}) >= 300
    for word in ("WITH", "LATERAL", "UNION", "OVER", "GROUP BY", "EXISTS", '"Hospital Stay"', "U&"):
        assert sum(word in query.proxied for query in queries) >= 10, word
    assert all(_names_no_view(query) for query in queries)


def _names_no_view(query: Query) -> bool:
    return "marked" not in query.proxied
