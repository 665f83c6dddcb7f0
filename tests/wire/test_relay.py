"""The relay: every transition, every split, and what a client does to get rows uncounted."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.wire import messages as m
from pgbalise.wire.messages import Backend, Frontend
from pgbalise.wire.relay import Relay
from pgbalise.wire.startup import ProtocolViolation
from tests.wire.recording import END, REFUSAL, Line, Recorder, Run, connect, fields, split

READY = m.message(Backend.READY_FOR_QUERY, b"I")
BUSY = m.message(Backend.READY_FOR_QUERY, b"T")
DONE = m.message(Backend.COMMAND_COMPLETE, b"SELECT 1\0")
COPIED = m.message(Backend.COMMAND_COMPLETE, b"COPY 1\0")
ROW = m.message(Backend.DATA_ROW, b"\0\1\0\0\0\1x")
PARSED, BOUND, CLOSED = (m.message(kind) for kind in b"123")
ERROR = m.error_response("22012", "division by zero")
SYNTAX = m.error_response("42601", "syntax error")
WANTS = m.message(Backend.COPY_IN_RESPONSE, b"\0\0\0")
COPY_DATA, COPY_DONE = m.message(Frontend.COPY_DATA, b"1\n"), m.message(Frontend.COPY_DONE)
TYPES = m.message(Backend.PARAMETER_DESCRIPTION, b"\0\0")
COLUMNS, NO_DATA = m.message(Backend.ROW_DESCRIPTION, b"\0\0"), m.message(Backend.NO_DATA)
DESCRIBE = m.message(Frontend.DESCRIBE, b"S\0")
COPY_OUT, COPY_END = m.message(Backend.COPY_OUT_RESPONSE, b"\0\0\0"), m.message(Backend.COPY_DONE)
EMPTY, SUSPENDED = m.message(Backend.EMPTY_QUERY_RESPONSE), m.message(Backend.PORTAL_SUSPENDED)


def whole(sql: bytes, name: bytes = b"", portal: bytes = b"") -> bytes:
    return m.parse(name, sql) + m.bind(portal, name, []) + m.execute(portal)


def relay(gate: Recorder | None = None) -> Relay:
    return Relay(gate or Recorder(), statement_bytes=1 << 20)


def out(one: Relay) -> tuple[bytes, bytes]:
    return b"".join(one.to_client), b"".join(one.to_server)


# what is asked, and every way in which the server may answer it in full
ANSWERS = {
    "query": (
        m.query(b"SELECT 1"),
        [COLUMNS + ROW + DONE, DONE + DONE, EMPTY, ERROR, DONE + ERROR, COPY_OUT + COPY_END + DONE],
    ),
    "parse": (m.parse(b"", b"SELECT 1"), [PARSED, ERROR]),
    "bind": (m.bind(b"", b"", []), [BOUND, ERROR]),
    "describe": (DESCRIBE, [TYPES + COLUMNS, TYPES + NO_DATA, COLUMNS, NO_DATA, ERROR]),
    "execute": (
        m.execute(b""),
        [ROW + DONE, DONE, EMPTY, ROW + SUSPENDED, ERROR, ROW + ERROR, COPY_OUT + COPY_END + DONE],
    ),
    "close": (m.message(Frontend.CLOSE, b"S\0"), [CLOSED, ERROR]),
    "sync": (b"", [b"", ERROR]),
}


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        pytest.param(asked, answer, id=f"{kind}-{bytes(dict(split_kinds(answer)))!r}")
        for kind, (asked, answers) in ANSWERS.items()
        for answer in answers
        for split_kinds in [lambda data: [(ord(k), 0) for k, _ in split(data)]]
    ],
)
def test_every_answer_is_handed_on_as_it_is(asked: bytes, answer: bytes) -> None:
    one = relay()
    end = b"" if asked[:1] == b"Q" else m.SYNC
    one.from_client(asked + end)
    assert one.busy
    one.from_server(answer + READY)
    assert out(one) == (answer + READY, asked + end)
    assert not one.busy


ANSWERED = {
    kind: {answer[0] for answer in answers if answer} for kind, (_, answers) in ANSWERS.items()
}
FREE = frozenset(b"NASDdEZ")


@pytest.mark.parametrize("kind", [kind for kind in ANSWERS if kind != "sync"])
def test_what_was_not_asked_for_ends_the_session(kind: str) -> None:
    fitting = ANSWERED[kind] | FREE | set(b"GHcsTCIn")
    for wrong in Backend:
        if wrong in fitting:
            continue
        one = relay()
        one.from_client(ANSWERS[kind][0] + m.SYNC)
        with pytest.raises(ProtocolViolation, match="not asked"):
            one.from_server(m.message(wrong, b"\0\0\0\0"))


@pytest.mark.parametrize("kind", sorted(set(range(256)) - {*Frontend}))
def test_a_message_that_no_client_sends_ends_the_session(kind: int) -> None:
    with pytest.raises(ProtocolViolation, match="invalid frontend message type"):
        relay().from_client(m.message(kind))


@pytest.mark.parametrize(
    "data",
    [
        b"Q\0\0\0\3",
        b"d\0\0\0\0",
        b"d\x7f\xff\xff\xff",
        b"S\0\0\x27\x11",
        b"E\0\1\0\0" + bytes(20_000),
        m.message(Frontend.QUERY),
        m.message(Frontend.QUERY, b"SELECT 1"),
        m.message(Frontend.QUERY, b"SELECT 1\0;\0"),
        m.message(Frontend.PARSE, b"name\0SELECT 1"),
        m.message(Frontend.BIND, b"portal\0statement"),
        m.message(Frontend.BIND, b"p" * (1 << 21))[: 1 << 21],
    ],
)
def test_a_malformed_message_of_a_client_ends_the_session(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        relay().from_client(data)


@pytest.mark.parametrize(
    "data", [b"C\0\0\0\3", b"Z\0\0\0\4", b"Z\0\0\0\6II", PARSED, b"\0\0\0\0\4"]
)
def test_a_malformed_message_of_a_server_ends_the_session(data: bytes) -> None:
    one = relay()
    one.from_client(m.SYNC)
    with pytest.raises(ProtocolViolation):
        one.from_server(data + READY)


def test_a_parameter_that_is_no_utf8_is_handed_on() -> None:
    gate = Recorder()
    one = relay(gate)
    status = m.message(Backend.PARAMETER_STATUS, b"\xff\0\xfe\0")
    one.from_server(status)
    assert out(one)[0] == status
    assert gate.calls == [("parameter", "\udcff", "\udcfe")]


def test_a_function_call_is_refused_like_a_statement() -> None:
    one = relay()
    one.from_client(m.message(Frontend.FUNCTION_CALL, b"\0\0\0\1\0\0\0\0\0\0"))
    assert b"refused this statement" in out(one)[1]
    one.from_server(SYNTAX + READY)
    assert [kind for kind, _ in split(out(one)[0])] == ["E", "Z"]
    assert b"Function Call" in out(one)[0]


@pytest.mark.parametrize("size", [(1 << 20) - 6, (1 << 20) + 1])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_statement_beyond_the_limit_is_refused_however_it_comes(size: int, pieces: int) -> None:
    gate = Recorder()
    one = relay(gate)
    data = m.query(b" " * size)
    step = -(-len(data) // pieces)
    for at in range(0, len(data), step):
        one.from_client(data[at : at + step])
    assert len(gate.of("statement")) == (size < 1 << 20)
    one.from_client(m.query(b"SELECT 2"))
    one.from_server(SYNTAX + READY + DONE + READY)
    assert (b"54000" in out(one)[0]) == (size > 1 << 20)


# conversations: what a client says, and what a server answers to what reaches it

Conversation = Sequence[tuple[bytes, bytes]]

ASK = b"\x33\x33\x31\x32"


def answer_to_question(end: bytes) -> bytes:
    row = m.message(Backend.DATA_ROW, b"\0\2\0\0\0\7a value\xff\xff\xff\xff")
    return CLOSED + CLOSED + PARSED + BOUND + row + DONE + CLOSED + CLOSED + end


CONVERSATIONS: dict[str, Conversation] = {
    "simple": [(m.query(b"SELECT 1"), COLUMNS + ROW * 3 + DONE + READY)],
    "several": [(m.query(b"SELECT 1; SELECT 2"), COLUMNS + ROW + DONE + COLUMNS + DONE + READY)],
    "edited": [(m.query(b"SELECT 1 /* edit */"), ROW + DONE + READY)],
    "refused": [(m.query(b"refuse"), SYNTAX + READY)],
    "asked": [
        (m.query(b"SELECT /* ask */ 1") + m.query(b"SELECT 2"), answer_to_question(READY)),
        (b"", ROW + DONE + READY + ROW + DONE + READY),
    ],
    "asked in a pipeline": [
        (whole(b"SELECT 1") + whole(b"SELECT /* ask */ 1") + m.SYNC, PARSED + BOUND + ROW + DONE),
        (b"", answer_to_question(b"")),
        (b"", PARSED + BOUND + ROW + DONE + READY),
    ],
    "extended": [
        (m.parse(b"s", b"SELECT 1") + DESCRIBE + m.SYNC, PARSED + TYPES + COLUMNS + READY),
        (m.bind(b"", b"s", [b"1"]) + m.execute(b"") + m.SYNC, BOUND + ROW * 2 + DONE + READY),
    ],
    "error in a pipeline": [
        (
            whole(b"SELECT 1 / 0") + whole(b"SELECT 2") + m.SYNC + whole(b"SELECT 3") + m.SYNC,
            PARSED + BOUND + ROW + ERROR + READY + PARSED + BOUND + ROW + DONE + READY,
        )
    ],
    "suspended": [
        (whole(b"SELECT 1") + m.FLUSH, PARSED + BOUND + ROW + SUSPENDED),
        (m.execute(b"") + m.SYNC, ROW + DONE + READY),
    ],
    "copy in": [
        (m.query(b"COPY t FROM STDIN"), WANTS),
        (COPY_DATA * 3 + COPY_DONE + m.query(b"SELECT 1"), COPIED + READY + ROW + DONE + READY),
    ],
    "copy in without waiting": [
        (whole(b"COPY t FROM STDIN") + m.SYNC + COPY_DATA + COPY_DONE + m.SYNC + whole(b"SELECT 1")
         + m.SYNC, PARSED + BOUND + WANTS + COPIED + READY + PARSED + BOUND + ROW + DONE + READY),
    ],
    "copy out": [
        (
            m.query(b"COPY t TO STDOUT"),
            COPY_OUT + m.message(Backend.COPY_DATA, b"1\n") * 2 + COPY_END + COPIED + READY,
        )
    ],
    "unasked": [
        (
            m.query(b"SELECT 1"),
            m.message(Backend.NOTIFICATION_RESPONSE, b"\0\0\0\1a\0b\0")
            + m.message(Backend.NOTICE_RESPONSE, b"SNOTICE\0\0")
            + m.message(Backend.PARAMETER_STATUS, b"TimeZone\0UTC\0")
            + DONE + READY,
        )
    ],
    "terminated": [(m.query(b"SELECT 1") + m.TERMINATE + m.query(b"SELECT 2"), DONE + READY)],
}  # fmt: skip

Cut = Callable[[bytes], list[bytes]]


def held(conversation: Conversation, cut: Cut) -> tuple[bytes, bytes, list[tuple[object, ...]]]:
    gate = Recorder()
    one = relay(gate)
    for said, answered in conversation:
        for piece in cut(said):
            one.from_client(piece)
        for piece in cut(answered):
            one.from_server(piece)
    return *out(one), gate.calls


def cut_at(*places: int) -> Cut:
    def cut(data: bytes) -> list[bytes]:
        return [
            data[a:b] for a, b in pairwise([0, *(min(p, len(data)) for p in places), len(data)])
        ]

    return cut


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_is_the_same_wherever_it_is_split(name: str) -> None:
    conversation = CONVERSATIONS[name]
    expected = held(conversation, cut_at())
    assert held(conversation, lambda data: [data[i : i + 1] for i in range(len(data))]) == expected
    longest = max(len(data) for pair in conversation for data in pair)
    for first in range(longest):
        assert held(conversation, cut_at(first)) == expected
        for second in range(first, longest, 7):
            assert held(conversation, cut_at(first, second)) == expected


@given(
    st.sampled_from(sorted(CONVERSATIONS)), st.lists(st.integers(0, 400), max_size=30).map(sorted)
)
@settings(max_examples=200)
def test_a_conversation_is_the_same_in_any_pieces(name: str, places: list[int]) -> None:
    conversation = CONVERSATIONS[name]
    assert held(conversation, cut_at(*places)) == held(conversation, cut_at())


RECORDED = sorted((Path(__file__).parent / "conversations").glob("*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_conversation_passes_unchanged_wherever_it_is_split(path: Path) -> None:
    """Psycopg's with PostgreSQL 15, who spoke in turn."""
    turns = [(who, base64.b64decode(data)) for who, data in json.loads(path.read_text())]
    conversation = [(data, b"") if who == "client" else (b"", data) for who, data in turns]
    whole = held(conversation, cut_at())
    assert whole[0] == b"".join(data for who, data in turns if who == "server")
    assert whole[1] == b"".join(data for who, data in turns if who == "client")
    assert held(conversation, lambda data: [data[i : i + 1] for i in range(len(data))]) == whole
    for first in range(max(len(data) for _, data in turns)):
        assert held(conversation, cut_at(first)) == whole
        assert held(conversation, cut_at(first, first + 5)) == whole


def test_every_conversation_is_over_at_its_end() -> None:
    for name, conversation in CONVERSATIONS.items():
        to_client, _, calls = held(conversation, cut_at())
        assert to_client.endswith(READY), name
        assert calls[-1] == ("idle", "I", True), name
        starts = sum(call[0] == "starts" for call in calls)
        assert starts == sum(call[0] == "ended" and call[2] == 0 for call in calls), name


# what a name means


@pytest.fixture
def line(server: str) -> Iterator[Line]:
    with connect(server) as made:
        made.relay = Relay(Recorder(), statement_bytes=1 << 20)
        yield made


def counts(line: Line, *said: bytes) -> dict[bytes, int]:
    """Hold a conversation, and return the rows counted to each statement."""
    assert line.relay is not None
    for data in said:
        line.send(data)
        # as a client would: the next thing is said when the server has nothing more to say
        while line.read(0.05):
            pass
    line.send(m.query(b"ROLLBACK") + m.query(b"SELECT '%s' /* plain */" % END))
    line.finish()
    gate = line.relay._gate
    assert isinstance(gate, Recorder)
    assert not any(run.open for run in gate.runs)
    return {sql: rows for sql, rows in gate.rows.items() if rows}


SECRET = b"SELECT 'secret' FROM generate_series(1, 7)"
PLAIN = b"SELECT 'plain' /* plain */"
RUN = m.bind(b"", b"s", []) + m.execute(b"") + m.SYNC


def step(sql: bytes) -> bytes:
    return whole(sql, b"step", b"step") + m.message(Frontend.CLOSE, b"Sstep\0") + m.SYNC


ATTACKS = {
    "a Bind that fails leaves the portal that was there": [
        m.query(b"BEGIN") + m.parse(b"s", SECRET) + m.parse(b"u", PLAIN) + m.bind(b"p", b"s", [])
        + m.SYNC + m.query(b"SAVEPOINT a"),
        m.bind(b"p", b"u", []) + m.SYNC + m.query(b"ROLLBACK TO a"),
        m.execute(b"p") + m.SYNC,
    ],
    "the same without waiting": [
        m.query(b"BEGIN") + m.parse(b"s", SECRET) + m.parse(b"u", PLAIN) + m.bind(b"p", b"s", [])
        + m.SYNC + m.query(b"SAVEPOINT a")
        + m.bind(b"p", b"u", []) + m.SYNC + m.query(b"ROLLBACK TO a") + m.execute(b"p") + m.SYNC,
    ],
    "a Bind without a portal's name fails": [
        m.query(b"BEGIN") + m.query(b"SAVEPOINT a") + m.parse(b"s", SECRET) + m.bind(b"", b"s", [])
        + m.SYNC,
        m.bind(b"", b"none", []) + m.SYNC + step(b"ROLLBACK TO a /* plain */"),
        m.query(b"BEGIN") + m.parse(b"step2", b"SAVEPOINT b /* plain */")
        + m.parse(b"back", b"ROLLBACK TO b /* plain */") + m.bind(b"", b"s", []) + m.SYNC
        + m.bind(b"p", b"step2", []) + m.execute(b"p") + m.SYNC + m.bind(b"", b"none", []) + m.SYNC
        + m.bind(b"q", b"back", []) + m.execute(b"q") + m.execute(b"") + m.SYNC,
    ],
    "a statement is replaced in what the server ignores": [
        m.parse(b"s", SECRET) + m.SYNC,
        m.bind(b"", b"no such statement", [])
        + m.message(Frontend.CLOSE, b"Ss\0") + m.parse(b"s", PLAIN) + m.SYNC + RUN,
    ],
    "the statement without a name is replaced in what the server ignores": [
        m.parse(b"", SECRET) + m.SYNC,
        m.bind(b"", b"no such statement", []) + m.parse(b"", PLAIN) + m.SYNC
        + m.bind(b"", b"", []) + m.execute(b"") + m.SYNC,
    ],
    "a name is longer than the server looks at": [
        m.parse(b"n" * 63 + b"a", SECRET) + m.SYNC
        + m.bind(b"p" * 64, b"n" * 63 + b"b", []) + m.execute(b"p" * 63) + m.SYNC,
    ],
    "a Parse that fails leaves the statement that was there": [
        m.parse(b"s", SECRET) + m.SYNC + m.parse(b"s", PLAIN) + m.SYNC, RUN,
    ],
    "an answer to a question is not waited for by the server": [
        whole(b"SAVEPOINT a /* plain */") + m.query(PLAIN) + m.query(b"SELECT /* ask */ 1"), m.SYNC,
        m.query(SECRET),
    ],
    "a COPY into a view fails before its Sync is read": [
        whole(b"COPY v FROM STDIN") + m.SYNC, m.query(SECRET),
    ],
    "a COPY fails before its Sync is read": [
        whole(b"COPY t FROM STDIN") + m.SYNC + m.message(Frontend.COPY_DATA, b"x\n") + COPY_DONE
        + m.SYNC, m.query(SECRET),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_rows_are_counted_when(name: str, line: Line) -> None:
    assert counts(line, *ATTACKS[name]) == {SECRET: 7}
    assert line.seen.count(b"secret") == 7


def test_a_failed_question_does_not_spoil_the_next(line: Line) -> None:
    ask = b"SELECT /* ask */ 1"
    wrong = m.query(b"SELECT 1 / 0 /* plain */")
    assert counts(line, m.query(b"BEGIN"), wrong, m.query(ask), m.query(b"ROLLBACK"),
                  m.query(b"BEGIN") + m.query(ask) + m.query(ask)) == {ask: 2}  # fmt: skip


@pytest.mark.parametrize("name", ["déjà".encode(), "déjà".encode("latin1"), b"\xff"])
def test_names_that_depend_on_an_encoding_are_refused(line: Line, name: bytes) -> None:
    counts(line, m.parse(name, SECRET) + m.SYNC, m.parse(b"s", PLAIN) + m.bind(name, b"s", [])
           + m.SYNC, m.bind(b"", name, []) + m.SYNC, m.execute(name) + m.SYNC)  # fmt: skip
    assert [code for kind, code in fields(line.seen) if kind == "E"] == ["0A000"] * 4


@pytest.mark.parametrize("where", ["names", "cursors"])
def test_a_name_given_in_sql_and_by_the_protocol_is_refused(line: Line, where: str) -> None:
    assert line.relay is not None
    known = {b"s": Run(SECRET)}
    setattr(line.relay._gate, where, known)
    said = m.parse(b"s", b"SELECT 2") + m.bind(b"s", b"s", []) + m.execute(b"s") + m.SYNC
    assert counts(line, said) == {}
    assert [code for kind, code in fields(line.seen) if kind == "E"] == ["0A000"]


def test_a_statement_prepared_in_sql_is_counted(line: Line) -> None:
    assert line.relay is not None
    gate = line.relay._gate
    assert isinstance(gate, Recorder)
    gate.names[b"s"] = Run(SECRET)
    prepare = b"PREPARE s AS %s /* plain */" % SECRET
    assert counts(line, m.query(prepare), RUN) == {SECRET: 7}


def test_deallocated_statements_are_forgotten(line: Line) -> None:
    assert line.relay is not None
    counts(line, m.parse(b"s", SECRET) + m.SYNC, m.query(b"DEALLOCATE ALL"))
    assert line.relay.prepared(b"s") is None


def test_a_stale_statement_is_refused_when_it_is_bound(line: Line) -> None:
    assert line.relay is not None
    gate = line.relay._gate
    assert isinstance(gate, Recorder)
    gate.stale.add(SECRET)
    assert counts(line, whole(SECRET) + m.SYNC) == {}
    assert ("E", "42601") in fields(line.seen)
    assert REFUSAL in line.seen


def test_portals_are_known_by_their_names(line: Line) -> None:
    assert line.relay is not None
    line.send(m.query(b"BEGIN") + m.parse(b"s", SECRET) + m.bind(b"p", b"s", []) + m.SYNC)
    assert line.relay.portal(b"p").sql == SECRET
    assert counts(line) == {}
    assert line.relay.portal(b"p") is None


@pytest.mark.parametrize("late", [m.query(b"SELECT 1"), m.parse(b"", b"SELECT 1"), m.execute(b"")])
def test_what_may_or_may_not_be_ignored_ends_the_session(late: bytes) -> None:
    one = relay()
    one.from_client(whole(b"COPY t FROM STDIN") + m.SYNC)
    one.from_server(PARSED + BOUND + WANTS + ERROR)
    with pytest.raises(ProtocolViolation, match="COPY"):
        one.from_client(late)


def test_a_session_goes_on_once_the_server_has_answered_a_sync_within_copy() -> None:
    one = relay()
    one.from_client(whole(b"COPY t FROM STDIN") + m.SYNC)
    one.from_server(PARSED + BOUND + WANTS + ERROR + READY)
    assert not one.busy
    one.from_client(m.query(b"SELECT 1"))
    one.from_server(ROW + DONE + READY)
    assert not one.busy


def test_a_session_of_protocol_3_2_goes_as_one_of_3_0(server: str) -> None:
    with connect(server, version=m.PROTOCOL_3_2) as made:
        made.relay = Relay(Recorder(), statement_bytes=1 << 20)
        assert counts(made, whole(SECRET) + m.SYNC) == {SECRET: 7}
