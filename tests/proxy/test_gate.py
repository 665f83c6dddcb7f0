"""What a session's statements leave in the ledger, and that nothing protected leaves without it."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgbalise.proxy.gate import Analyses
from pgbalise.rewrite import Protected, Rules, analyse
from pgbalise.wire import messages as m
from tests.proxy.proxied import Raw, wait_until

if TYPE_CHECKING:
    from tests.proxy.proxied import Proxy

PATIENTS = "SELECT name FROM hospital.patient LIMIT 3"


def statements(front: Proxy, name: str) -> list[tuple[str, list[str], str]]:
    return [
        (one["statement"], [each["relation"] for each in one["relations"]], one["kind"])
        for one in front.intents(name)
    ]


def sums(front: Proxy, name: str) -> list[tuple[int, int, str]]:
    """Executions, rows and outcome of each extract."""
    found = [front.outcome(one["extract"]) for one in front.intents(name)]
    return [(one["executions"], one["rows"], one["outcome"]) for one in found]


def test_many_runs_of_a_point_query_are_one_extract(front: Proxy) -> None:
    with front.connect(application_name="point") as reader:
        for id_ in range(50):
            reader.execute("SELECT name FROM hospital.patient WHERE id = %s", (id_ % 9 + 1,))
        for id_ in (3, 4):
            reader.execute(f"SELECT name FROM hospital.patient WHERE id = {id_}".encode())
    assert statements(front, "point") == [
        ("SELECT name FROM hospital.patient WHERE id = $1", ["hospital.patient"], "select")
    ]
    assert sums(front, "point") == [(52, 52, "complete")]
    [intent] = front.intents("point")
    assert front.outcome(intent["extract"])["bytes"] > 52 * len("patient 1")
    assert intent["class"] == "secondary"
    assert (intent["recipient"], intent["client"]) == ("reader", "127.0.0.1")
    assert intent["relations"][0]["carriers"] == ["seen_at", "weight"]


def test_progress_is_told_of_what_goes_on(front: Proxy) -> None:
    with front.connect(application_name="progress") as reader:
        reader.execute("SELECT name FROM hospital.patient WHERE id = 1")
        [intent] = front.intents("progress")
        wait_until(
            lambda: any(
                one["extract"] == intent["extract"] and one["rows"] == 1
                for one in front.records("progress")
            )
        )


def test_a_big_result_ends_its_extract(front: Proxy) -> None:
    with front.connect(application_name="big") as reader:
        for _ in range(2):
            reader.execute("SELECT * FROM hospital.patient")
        assert len(front.intents("big")) == 2
        assert sums(front, "big") == [(1, 5000, "complete")] * 2


@pytest.mark.parametrize("kind", ["sql", "portal"])
def test_a_cursor_is_one_extract(front: Proxy, kind: str) -> None:
    with front.connect(application_name=f"cursor {kind}") as reader:
        if kind == "sql":
            with reader.transaction(), reader.cursor("c") as cursor:
                cursor.itersize = 1000
                cursor.execute("SELECT id FROM hospital.patient")
                assert len(list(cursor)) == 5000
        else:
            with Raw(front, application_name="cursor portal") as raw:
                limited = m.message(m.Frontend.EXECUTE, b"p\0\0\0\x03\xe8")
                raw.query("BEGIN")
                said = raw.run(
                    m.parse(b"", b"SELECT id FROM hospital.patient"),
                    m.bind(b"p", b"", []),
                    m.SYNC,
                )
                for _ in range(6):
                    said = raw.run(limited, m.SYNC)
                assert not said.errors
                raw.query("COMMIT")
    [(executions, rows, outcome)] = sums(front, f"cursor {kind}")
    assert (rows, outcome) == (5000, "complete")
    assert executions >= 1


def test_cursors_of_one_name_are_told_apart(front: Proxy) -> None:
    with Raw(front, application_name="cursors") as raw:
        for query, count in (("id FROM hospital.patient", 2), ("weight FROM ward.patient", 30)):
            raw.query("BEGIN")
            raw.query(f"DECLARE c CURSOR FOR SELECT {query}")
            assert raw.query(f"FETCH {count} FROM c").rows == count
            raw.query("COMMIT")
    assert [rows for _, rows, _ in sums(front, "cursors")] == [2, 30]
    assert [kind for _, _, kind in statements(front, "cursors")] == ["cursor", "cursor"]


@pytest.mark.parametrize(
    ("sql", "outcome", "sqlstate"),
    [
        ("SELECT 1 / (id - 3) FROM hospital.patient ORDER BY id", "error", "22012"),
        ("SELECT pg_sleep(1), id FROM hospital.patient", "cancelled", "57014"),
    ],
)
def test_a_failure_is_an_outcome(front: Proxy, sql: str, outcome: str, sqlstate: str) -> None:
    name = f"failure {outcome}"
    with front.connect(application_name=name) as reader:
        reader.execute("SET statement_timeout = 300")
        with pytest.raises(psycopg.Error) as problem:
            reader.execute(sql.encode())
        assert problem.value.sqlstate == sqlstate
        [intent] = front.intents(name)
        record = front.outcome(intent["extract"])
        assert (record["outcome"], record["sqlstate"]) == (outcome, sqlstate)
        assert reader.execute("SELECT 1").fetchall() == [(1,)]


def test_copy_is_counted(front: Proxy) -> None:
    with front.connect(application_name="copies") as reader:
        for options in ("", "(FORMAT csv)", "(FORMAT binary)"):
            statement = f"COPY hospital.patient TO STDOUT {options}"
            with reader.cursor().copy(statement.encode()) as copy:
                assert sum(len(block) for block in copy) > 5000
    assert [kind for _, _, kind in statements(front, "copies")] == ["copy"] * 3
    # the binary form has a header and a trailer, which are messages of their own
    assert all(rows >= 5000 for _, rows, _ in sums(front, "copies"))


def test_a_pipeline_is_recorded_statement_by_statement(front: Proxy) -> None:
    with front.connect(application_name="pipeline") as reader:
        with reader.pipeline():
            first = reader.execute("SELECT id FROM hospital.patient WHERE id < 4")
            second = reader.execute("SELECT id FROM ward.patient WHERE id < 6")
            third = reader.execute("SELECT id FROM drug")
        assert [len(each.fetchall()) for each in (first, second, third)] == [3, 5, 10]
    assert [relations for _, relations, _ in statements(front, "pipeline")] == [
        ["hospital.patient"],
        ["ward.patient"],
    ]
    assert [rows for _, rows, _ in sums(front, "pipeline")] == [3, 5]


def test_a_statement_prepared_either_way_is_recorded_when_it_is_run_either_way(
    front: Proxy,
) -> None:
    with Raw(front, application_name="either") as raw:
        raw.query(f"PREPARE q AS {PATIENTS}")
        raw.run(m.parse(b"p", b"SELECT id FROM ward.patient LIMIT 2"), m.SYNC)
        assert statements(front, "either") == []
        assert raw.run(m.bind(b"", b"q", []), m.execute(b""), m.SYNC).rows == 3
        assert raw.query("EXECUTE p").rows == 2
        assert raw.query("EXECUTE q").rows == 3
    assert [relations for _, relations, _ in statements(front, "either")] == [
        ["hospital.patient"],
        ["ward.patient"],
    ]
    assert sorted(sums(front, "either")) == [(1, 2, "complete"), (2, 6, "complete")]


def test_statements_of_one_string_are_recorded_each(front: Proxy) -> None:
    with Raw(front, application_name="string") as raw:
        said = raw.query(f"{PATIENTS}; SELECT 1; SELECT id FROM ward.patient LIMIT 2")
        assert said.rows == 6
    assert [rows for _, rows, _ in sums(front, "string")] == [3, 2]


def test_a_refusal_is_like_a_statement_that_failed(front: Proxy) -> None:
    with front.connect(application_name="refusal") as reader:
        reader.autocommit = False
        reader.execute("CREATE TEMP TABLE mine (a int)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("EXPLAIN SELECT * FROM hospital.patient")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            reader.execute("SELECT 1")
        reader.rollback()
        with pytest.raises(psycopg.errors.UndefinedTable):
            reader.execute("SELECT * FROM mine")
    assert front.intents("refusal") == []


@pytest.mark.parametrize("encoding", ["LATIN1", "SJIS", "SQL_ASCII", "UTF8"])
def test_any_encoding_is_read(front: Proxy, encoding: str) -> None:
    name = f"encoding {encoding}"
    with Raw(front, application_name=name, client_encoding=encoding) as raw:
        assert raw.query(f"{PATIENTS} -- x").rows == 3
        text = "SELECT 'é', id FROM hospital.patient LIMIT 2"
        codec = {"LATIN1": "latin-1", "SJIS": "ascii"}.get(encoding, "utf-8")
        said = raw.run(m.query(text.encode(codec, "replace")))
        assert (said.rows, said.errors) == (2, [])
    assert len(front.intents(name)) == 2


def test_a_backslash_is_no_way_around(front: Proxy) -> None:
    with Raw(front, application_name="backslash") as raw:
        raw.query("SET standard_conforming_strings TO off")
        said = raw.query(r"SELECT '\', (SELECT max(name) FROM hospital.patient), '\''")
        assert said.errors == ["0A000"]
        assert raw.query(PATIENTS).rows == 3
        # pipelined behind the setting, nobody knows yet which reading holds
        said = raw.run(
            m.query(b"SET standard_conforming_strings TO on"),
            m.query(rb"SELECT '\', name, '\' FROM hospital.patient LIMIT 2 --'"),
            times=2,
        )
        assert said.rows == 0 or len(front.intents("backslash")) == 2


def test_a_temporary_table_hides_the_protected_name(front: Proxy) -> None:
    with Raw(front, application_name="shadow") as raw:
        raw.query("SET search_path TO hospital")
        raw.run(m.parse(b"before", b"SELECT name FROM patient LIMIT 3"), m.SYNC)
        assert raw.query("SELECT name FROM patient LIMIT 3").rows == 3
        raw.query("CREATE TEMP TABLE patient (name text)")
        assert raw.query("SELECT name FROM patient LIMIT 3").rows == 0
        # what was prepared before has the marked view's name in it
        assert raw.run(m.bind(b"", b"before", []), m.execute(b""), m.SYNC).rows == 3
        raw.run(m.parse(b"during", b"SELECT name FROM patient LIMIT 3"), m.SYNC)
        raw.query("DROP TABLE patient")
        assert raw.query("SELECT name FROM patient LIMIT 3").rows == 3
        assert raw.run(m.bind(b"", b"during", []), m.execute(b""), m.SYNC).errors
    assert len(front.intents("shadow")) == 1


def test_search_path_can_come_with_the_connection(front: Proxy) -> None:
    with front.connect(application_name="path", options="-c search_path=ward") as reader:
        reader.execute("SELECT * FROM patient LIMIT 1")
    assert [relations for _, relations, _ in statements(front, "path")] == [["ward.patient"]]


@pytest.mark.parametrize(
    "options",
    ["-cdebug_print_plan=on", "--Debug-Print-Parse=on", "-c auto_explain.log_min_duration=0"],
)
def test_a_connection_may_not_ask_for_plans(front: Proxy, options: str) -> None:
    # the server sends what it logs to a client that wants it, without any EXPLAIN
    with pytest.raises(psycopg.OperationalError, match="may not set"):
        front.connect(options=f"-c client_min_messages=log {options}")


def test_kept_analyses_are_bounded_by_what_their_trees_take() -> None:
    protected = Protected("hospital", "patient", "marked", "patient", ())
    rules = Rules({1: protected}, {}, frozenset({"patient"}), {}, frozenset(), True, frozenset())
    analyses = Analyses()
    for at in range(4000):
        plain = f"SELECT {at}, 1, 2, 3"
        analyses.keep(plain, analyse(plain, rules))
    for at in range(400):
        text = f"SELECT {at} FROM patient WHERE a IN ({', '.join(['1'] * 650)})"
        analyses.keep(at, analyse(text, rules))
    kept = [at for at in range(400) if analyses.get(at) is not None]
    assert kept == list(range(400 - len(kept), 400))
    assert 100 < len(kept) < 200
    plain = "SELECT 4, 5, 6"
    analyses.keep(plain, analyse(plain, rules))
    found = analyses.get(plain)
    assert found is not None
    assert found.plain
    assert not found.statements


def test_one_text_is_another_extract_when_it_reads_another_relation(front: Proxy) -> None:
    with Raw(front, application_name="text") as raw:
        for path in ("hospital", "ward"):
            raw.query(f"SET search_path TO {path}")
            assert raw.query("SELECT count(*) FROM patient").rows == 1
    assert [relations for _, relations, _ in statements(front, "text")] == [
        ["hospital.patient"],
        ["ward.patient"],
    ]


def test_a_role_that_is_no_recipient_reads_nothing_protected(front: Proxy) -> None:
    with front.connect("clerk", application_name="clerk") as clerk:
        assert clerk.execute("SELECT count(*) FROM drug").fetchall() == [(10,)]
        for relation in ("hospital.patient", "marked.patient"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="not enrolled"):
                clerk.execute(f"SELECT * FROM {relation}".encode())
    assert front.intents("clerk") == []


def test_care_gets_neutral_marks_only(front: Proxy) -> None:
    with front.connect("nurse", application_name="nurse") as nurse:
        nurse.execute("SELECT * FROM hospital.patient LIMIT 1")
    [intent] = front.intents("nurse")
    assert intent["class"] == "care"
    assert intent["relations"] == [{"relation": "hospital.patient", "carriers": ["seen_at"]}]


# attempts at rows of a protected relation without a record of them


def test_what_a_bound_execute_runs_is_looked_up_when_it_runs(front: Proxy) -> None:
    with Raw(front, application_name="rebound") as raw:
        raw.query("BEGIN; PREPARE q AS SELECT 'a'::text")
        raw.run(m.parse(b"e", b"EXECUTE q"), m.bind(b"p", b"e", []), m.SYNC)
        raw.query("DEALLOCATE q")
        raw.query(f"PREPARE q AS {PATIENTS}")
        said = raw.run(m.execute(b"p"), m.SYNC)
        assert said.rows == 0 or front.intents("rebound")


def test_a_prepare_that_is_run_again_is_known_again(front: Proxy) -> None:
    again = (m.bind(b"", b"maker", []), m.execute(b""), m.SYNC)
    with Raw(front, application_name="again") as raw:
        raw.run(m.parse(b"maker", f"PREPARE q AS {PATIENTS}".encode()), *again)
        raw.query("DEALLOCATE q")
        raw.run(*again)
        assert raw.query("EXECUTE q").rows == 3
    assert sums(front, "again") == [(1, 3, "complete")]


def test_a_prepared_explain_is_refused_when_it_comes_to_touch_something(front: Proxy) -> None:
    with Raw(front) as raw:
        raw.query("PREPARE q AS SELECT 1")
        raw.run(m.parse(b"e", b"EXPLAIN ANALYZE EXECUTE q"), m.SYNC)
        raw.query("DEALLOCATE q")
        raw.query(f"PREPARE q AS {PATIENTS}")
        said = raw.run(m.bind(b"", b"e", []), m.execute(b""), m.SYNC)
        assert (said.rows, said.errors) == (0, ["42501"])


@pytest.mark.parametrize(
    "sql",
    [
        f"CREATE VIEW work.v AS {PATIENTS}",
        f"CREATE TEMP VIEW v AS {PATIENTS}",
        f"CREATE RULE r AS ON UPDATE TO t DO INSTEAD {PATIENTS}",
        "CREATE POLICY p ON t USING (EXISTS (SELECT FROM hospital.patient))",
        f"CREATE FUNCTION work.f() RETURNS text LANGUAGE sql AS $$ {PATIENTS} $$",
        "DO $$ BEGIN PERFORM * FROM hospital.patient; END $$",
    ],
)
def test_nothing_that_reads_later_can_be_defined(front: Proxy, sql: str) -> None:
    with Raw(front) as raw:
        raw.query("CREATE TEMP TABLE t (a text)")
        assert raw.query(sql).errors == ["42501"]


@pytest.mark.parametrize("form", ["query", "bound"])
def test_a_transactions_end_changes_no_meaning(front: Proxy, form: str) -> None:
    name = f"commit {form}"
    query = b"SELECT name FROM patient LIMIT 3"
    with Raw(front, application_name=name) as raw:
        raw.query("CREATE TABLE IF NOT EXISTS work.patient (name text)")
        raw.query("SET search_path TO marked")
        raw.query("BEGIN; SET LOCAL search_path TO work")
        if form == "query":
            again = (m.query(query), m.query(b"COMMIT"), m.query(query))
            said = raw.run(*again, times=3)
        else:
            raw.run(m.parse(b"s", query), m.SYNC)
            again = (m.query(b"COMMIT"), m.bind(b"", b"s", []), m.execute(b""), m.SYNC)
            said = raw.run(*again, times=2)
        assert said.rows == 0 or front.intents(name)
        # SET LOCAL is over: the name means what search_path says
        raw.query(PATIENTS.replace("hospital.", ""))
        assert len(front.intents(name)) == 1
        raw.query("DROP TABLE work.patient")


def test_what_another_session_drops_uncovers_nothing(front: Proxy) -> None:
    query = b"SELECT name FROM patient LIMIT 3"
    with Raw(front, application_name="uncovered") as raw, Raw(front) as other:
        raw.query("CREATE TABLE work.patient (name text)")
        raw.query("SET search_path TO work, marked")
        assert raw.query(query.decode()).rows == 0
        raw.run(m.parse(b"s", query), m.SYNC)
        other.query("DROP TABLE work.patient")
        assert raw.run(m.bind(b"", b"s", []), m.execute(b""), m.SYNC).errors
        assert front.intents("uncovered") == []
        assert raw.query(query.decode()).rows == 3
    assert len(front.intents("uncovered")) == 1


def run_of(statement: bytes, portal: bytes = b"") -> tuple[bytes, ...]:
    return m.bind(portal, statement, []), m.execute(portal), m.SYNC


def test_a_name_given_anew_in_sql_hides_nothing(front: Proxy) -> None:
    with Raw(front, application_name="given anew") as raw:
        for number, before in enumerate((b"SELECT 1", b"SET search_path TO public")):
            raw.run(m.parse(b"q", before), m.SYNC)
            raw.query("DEALLOCATE q")
            raw.query(f"PREPARE q AS SELECT name AS n{number} FROM hospital.patient LIMIT 3")
            said = raw.run(*run_of(b"q"))
            assert said.rows == 0 or len(front.intents("given anew")) == number + 1
            raw.query("DEALLOCATE q")


@pytest.mark.parametrize("name", [b"", b"s"])
@pytest.mark.parametrize("failure", [m.bind(b"", b"nowhere", []), m.parse(b"", b"SELEC")])
def test_a_parse_that_was_skipped_hides_nothing(front: Proxy, name: bytes, failure: bytes) -> None:
    application = f"skipped {name!r} {failure!r}"[:60]
    with Raw(front, application_name=application) as raw:
        raw.run(m.parse(name, PATIENTS.encode()), m.SYNC)
        said = raw.run(failure, m.parse(name, b"SELECT 1"), m.SYNC, *run_of(name), times=2)
        assert said.rows == 0 or front.intents(application)


def test_a_parse_that_failed_for_its_name_hides_nothing(front: Proxy) -> None:
    with Raw(front, application_name="taken") as raw:
        said = raw.run(
            m.parse(b"s", PATIENTS.encode()),
            m.SYNC,
            m.parse(b"s", b"SELECT 1"),
            m.SYNC,
            *run_of(b"s"),
            times=3,
        )
        assert said.rows == 0 or front.intents("taken")


@pytest.mark.parametrize("portal", [b"", b"p"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_bind_that_failed_hides_nothing(front: Proxy, portal: bytes, at_once: bool) -> None:
    name = f"bind {portal!r} {at_once}"
    with Raw(front, application_name=name) as raw:
        raw.run(
            m.parse(b"s", PATIENTS.encode()),
            m.parse(b"plain", b"SELECT 1"),
            m.parse(b"save", b"SAVEPOINT a"),
            m.parse(b"back", b"ROLLBACK TO a"),
            m.SYNC,
        )
        raw.query("BEGIN")
        steps = (
            (m.bind(portal, b"s", []), m.SYNC),
            run_of(b"save", b"x"),
            (m.bind(portal, b"plain" if portal else b"nowhere", []), m.SYNC),
            run_of(b"back", b"y"),
            (m.execute(portal), m.SYNC),
        )
        if at_once:
            said = raw.run(*(one for step in steps for one in step), times=len(steps))
        else:
            for step in steps:
                said = raw.run(*step)
        assert said.rows == 0 or front.intents(name)


def test_a_portal_that_was_closed_counts_no_more(front: Proxy) -> None:
    close = m.message(m.Frontend.CLOSE, b"Pc\0")
    with Raw(front, application_name="closed") as raw:
        raw.run(m.parse(b"s", b"SELECT 1"), m.SYNC)
        raw.query("BEGIN")
        raw.run(m.bind(b"c", b"s", []), close, m.SYNC)
        raw.query("DECLARE c CURSOR FOR SELECT name FROM hospital.patient")
        said = raw.run(m.execute(b"c"), m.SYNC)
        raw.query("COMMIT")
    assert [rows for _, rows, _ in sums(front, "closed")] == [said.rows]


TEXTS = [
    "SELECT 1",
    "SELEC",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "SET search_path TO marked",
    "SET search_path TO public",
    "SET LOCAL search_path TO marked",
    "SELECT name FROM patient LIMIT 2",
    "SELECT name FROM hospital.patient LIMIT 3",
    "TABLE shadow",
    "CREATE TEMP TABLE patient (name text)",
    "CREATE TEMP VIEW shadow AS SELECT name FROM hospital.patient LIMIT 4",
    "DROP TABLE pg_temp.patient",
    "DROP VIEW shadow",
    "PREPARE a AS SELECT name FROM hospital.patient LIMIT 5",
    "PREPARE a AS SELECT name FROM patient LIMIT 6",
    "PREPARE a AS SELECT 'x'::text",
    "EXECUTE a",
    "EXPLAIN EXECUTE a",
    "DEALLOCATE a",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "DECLARE a CURSOR FOR SELECT name FROM hospital.patient LIMIT 7",
    "DECLARE a CURSOR WITH HOLD FOR SELECT name FROM patient LIMIT 8",
    "DECLARE a CURSOR FOR SELECT 'x'::text",
    "FETCH 2 FROM a",
    "FETCH ALL FROM a",
    "CLOSE a",
    "SELECT 1; SELECT name FROM hospital.patient LIMIT 9; SELEC",
    "SELECT name FROM hospital.patient LIMIT 10; SELECT 1 / 0",
    "COPY (SELECT name FROM hospital.patient LIMIT 11) TO STDOUT",
]
"""A few words, from which attempts are put together."""


def random_message(draw: random.Random) -> bytes:
    """One message out of a few, with names out of fewer, so that they meet."""
    name, portal = draw.choice([b"", b"a"]), draw.choice([b"", b"a"])
    text = draw.choice(TEXTS).encode()
    limited = m.message(m.Frontend.EXECUTE, portal + b"\0\0\0\0\x01")
    common = [m.query(text), m.parse(name, text), m.bind(portal, name, []), m.execute(portal)]
    rare = [
        limited,
        m.SYNC,
        m.message(m.Frontend.CLOSE, b"S" + name + b"\0"),
        m.message(m.Frontend.CLOSE, b"P" + portal + b"\0"),
    ]
    return draw.choice([*common, *common, *rare, m.SYNC])


@pytest.mark.parametrize(
    "seeds", [range(40), pytest.param(range(40, 2000), marks=pytest.mark.slow)], ids=str
)
def test_every_row_that_leaves_is_counted(front: Proxy, seeds: range) -> None:
    total = 0
    for seed in seeds:
        draw = random.Random(seed)
        name = f"random {seed}"
        received = 0
        with Raw(front, application_name=name) as raw:
            for _ in range(4):
                sent = [random_message(draw) for _ in range(draw.randrange(1, 15))]
                # an error that says it, which ends a transaction or leaves it failed
                end = draw.choice([b"", m.query(b"ROLLBACK")]) + m.query(b"the_end")
                raw.socket.sendall(b"".join(sent) + m.SYNC + end)
                kind, body = raw.message()
                while kind and not (kind == b"E" and b"the_end" in body):
                    received += kind in b"Dd" and re.search(rb"patient \d", body) is not None
                    kind, body = raw.message()
                if not kind:
                    break
        counted = sum(rows for _, rows, _ in sums(front, name))
        assert counted >= received, seed
        total += received
    assert total > len(seeds)


def test_what_notices_carry_is_counted(front: Proxy) -> None:
    with Raw(front, application_name="notices") as raw:
        raw.query(
            "CREATE FUNCTION pg_temp.say(text) RETURNS int LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE NOTICE '%', $1; RETURN 1; END $$"
        )
        said = raw.query("SELECT sum(pg_temp.say(name)) FROM hospital.patient")
    told = sum(5 + len(body) for kind, body in said if kind == b"N")
    [intent] = front.intents("notices")
    assert front.outcome(intent["extract"])["bytes"] >= told > 5000 * len("patient 1")


def test_a_login_that_the_server_refuses_is_logged(front: Proxy) -> None:
    with pytest.raises(psycopg.OperationalError):
        front.connect("nobody_of_this_name")
    wait_until(lambda: '"role":"nobody_of_this_name"' in front.log)
