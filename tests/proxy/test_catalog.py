"""What is protected and for whom changes while sessions are open."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgbalise.database import apply_policy, enrol, revoke
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import connect
from pgbalise.wire import messages as m
from tests.proxy.proxied import KEY, POLICY, Raw, build, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.proxy.proxied import Proxy

DBNAME = "changing"
SOON = "[rewrite]\nrefresh_seconds = 1\n[limits]\ndrain_seconds = 2"


@pytest.fixture(scope="module")
def server() -> Iterator[ThrowawayCluster]:
    with ThrowawayCluster() as cluster:
        build(cluster, DBNAME)
        cluster.psql("ALTER TABLE public.drug ADD dose int DEFAULT 100", dbname=DBNAME)
        yield cluster


@pytest.fixture(scope="module")
def changing(server: ThrowawayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("changing")
    with running(folder, DBNAME, f'host = "{server.host}"', top="workers = 1", more=SOON) as made:
        yield made


def works(connection: psycopg.Connection[object], sql: str) -> bool:
    with suppress(psycopg.errors.InsufficientPrivilege):
        connection.execute(sql.encode())
        return True
    return False


def test_who_is_enrolled_or_revoked_later_is_known_soon(
    server: ThrowawayCluster, changing: Proxy
) -> None:
    clerk = changing.connect("clerk", application_name="clerk")
    query = "SELECT name FROM hospital.patient LIMIT 1"
    assert not works(clerk, query)
    with connect(server.dsn(DBNAME)) as session, session.connection.transaction():
        enrol(session, ["clerk"], RecipientClass.SECONDARY, KEY)
    wait_until(lambda: works(clerk, query))
    [intent] = changing.intents("clerk")
    assert intent["class"] == "secondary"
    run = (m.bind(b"", b"s", []), m.execute(b""), m.SYNC)
    with Raw(changing, "clerk") as prepared:
        prepared.run(m.parse(b"s", query.encode()), m.SYNC)
        assert prepared.run(*run).rows == 1
        with connect(server.dsn(DBNAME)) as session, session.connection.transaction():
            revoke(session, "clerk")
        assert prepared.run(*run).rows == 0
        wait_until(lambda: "not enrolled" in str(prepared.run(*run)))


def test_a_relation_protected_later_ends_what_was_prepared_before(
    server: ThrowawayCluster, changing: Proxy
) -> None:
    with Raw(changing) as raw:
        raw.run(m.parse(b"s", b"SELECT * FROM drug"), m.SYNC)
        document = {
            "relation": {
                **POLICY["relation"],
                "public.drug": {
                    "key": {"id": "integer"},
                    "carrier": {"dose": {"type": "integer", "quantum": 1}},
                },
            }
        }
        with connect(server.dsn(DBNAME)) as session, session.connection.transaction():
            apply_policy(session, document, KEY)
        kind, body = raw.message()
        assert (kind, m.error_fields(body)["C"]) == (b"E", "57P01")
    reader = changing.connect(application_name="drugs")
    assert len(reader.execute("SELECT * FROM drug").fetchall()) == 10
    [intent] = changing.intents("drugs")
    assert intent["relations"] == [{"relation": "public.drug", "carriers": ["dose"]}]


def test_a_database_without_policy_is_passed_through_and_then_is_not(
    server: ThrowawayCluster, changing: Proxy
) -> None:
    server.psql("CREATE DATABASE plain")
    server.psql("CREATE SCHEMA hospital; CREATE TABLE hospital.patient (id int)", dbname="plain")
    with changing.connect("postgres", dbname="plain") as connection:
        connection.execute("SELECT * FROM hospital.patient")
    assert not [one for one in changing.records("intent") if one["database"] == "plain"]


def test_a_restarted_server_is_found_again(server: ThrowawayCluster, changing: Proxy) -> None:
    reader = changing.connect()
    server.stop(immediate=True)
    with pytest.raises(psycopg.OperationalError):
        reader.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="the proxy"):
        changing.connect()
    server.start()

    def back() -> bool:
        with suppress(psycopg.OperationalError):
            changing.connect(application_name="back").execute(
                "SELECT name FROM hospital.patient LIMIT 1"
            )
            return True
        return False

    wait_until(back)
    assert len(changing.intents("back")) == 1


def test_what_calls_a_function_that_cannot_be_read_is_not_read_either(
    server: ThrowawayCluster, changing: Proxy
) -> None:
    server.psql(
        "CREATE FUNCTION public.stored(int) RETURNS int LANGUAGE plpgsql AS"
        " $$ BEGIN EXECUTE 'SELECT count(*) FROM marked.pat' || 'ient' INTO $1; RETURN $1; END $$;"
        "CREATE FUNCTION public.step(int, int) RETURNS int LANGUAGE sql"
        " AS 'SELECT public.stored($2)';"
        "CREATE AGGREGATE public.counted(int) (SFUNC = public.step, STYPE = int);"
        "CREATE VIEW public.figures AS SELECT public.stored(1) AS n;"
        "CREATE VIEW public.report AS SELECT n FROM public.figures;"
        "CREATE TABLE public.screened (n int); INSERT INTO public.screened VALUES (1);"
        "ALTER TABLE public.screened ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY by_call ON public.screened USING (public.stored(n) > 0);"
        "GRANT SELECT ON public.figures, public.report, public.screened TO PUBLIC",
        dbname=DBNAME,
    )

    def refused() -> bool:
        # new views that lead to protected data send recipients away
        with suppress(psycopg.errors.AdminShutdown):
            return not works(changing.connect(), "SELECT public.stored(1)")
        return False

    wait_until(refused)
    reader = changing.connect(application_name="caller")
    for sql in (
        "SELECT public.step(1, 2)",
        "SELECT public.counted(id) FROM public.drug",
        "SELECT * FROM public.figures",
        "SELECT * FROM report",
        "SELECT * FROM public.screened",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(sql)
    assert not changing.intents("caller")


def test_a_prepared_call_is_refused_once_its_function_may_not_be_called(
    server: ThrowawayCluster, changing: Proxy
) -> None:
    server.psql(
        "CREATE FUNCTION public.later() RETURNS int LANGUAGE sql AS 'SELECT 1'", dbname=DBNAME
    )
    run = (m.bind(b"", b"s", []), m.execute(b""), m.SYNC)
    with Raw(changing) as raw:
        raw.run(m.parse(b"s", b"SELECT public.later()"), m.SYNC)
        assert raw.run(*run).rows == 1
        server.psql(
            "CREATE OR REPLACE FUNCTION public.later() RETURNS int LANGUAGE sql"
            " AS 'SELECT count(*)::int FROM marked.patient'",
            dbname=DBNAME,
        )
        wait_until(lambda: "prepare the statement again" in str(raw.run(*run)))


def test_a_view_that_comes_to_read_protected_data_ends_what_was_prepared_on_it(
    server: ThrowawayCluster, changing: Proxy
) -> None:
    server.psql(
        "CREATE VIEW public.harmless AS SELECT 'x'::text AS name;"
        "GRANT SELECT ON public.harmless TO PUBLIC; GRANT USAGE ON SCHEMA marked TO PUBLIC",
        dbname=DBNAME,
    )
    with Raw(changing) as raw:
        raw.run(m.parse(b"s", b"SELECT * FROM harmless"), m.SYNC)
        server.psql(
            "CREATE OR REPLACE VIEW public.harmless AS SELECT name FROM marked.patient",
            dbname=DBNAME,
        )
        kind, body = raw.message()
        assert (kind, m.error_fields(body)["C"]) == (b"E", "57P01")


def test_a_temporary_function_takes_its_name_from_nobody_else(changing: Proxy) -> None:
    maker = changing.connect("clerk")
    maker.execute(
        "CREATE FUNCTION pg_temp.count(text) RETURNS int LANGUAGE plpgsql AS"
        " $$ BEGIN EXECUTE 'SELECT 1'; RETURN 1; END $$"
    )
    time.sleep(3)
    reader = changing.connect()
    assert reader.execute("SELECT count(*) FROM hospital.patient").fetchone() != (0,)
