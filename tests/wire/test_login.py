"""A login between client and server, in each of its states."""

from __future__ import annotations

import pytest

from pgbalise.wire import messages as m
from pgbalise.wire.login import Login
from pgbalise.wire.messages import Authentication, Backend, Frontend
from pgbalise.wire.startup import ProtocolViolation

OK = m.authentication(Authentication.OK)
READY = m.message(Backend.READY_FOR_QUERY, b"I")
KEY = m.message(Backend.BACKEND_KEY_DATA, b"\0\0\0\1" + b"k" * 32)
ZONE = m.message(Backend.PARAMETER_STATUS, b"TimeZone\0UTC\0")
SASL = m.authentication(Authentication.SASL, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
CONTINUE = m.authentication(Authentication.SASL_CONTINUE, b"r=")
FINAL = m.authentication(Authentication.SASL_FINAL, b"v=")
SECRET = m.message(Frontend.PASSWORD, b"secret\0")
NEGOTIATE = m.negotiate_protocol_version(m.PROTOCOL_3_0, ["_pq_.a"])


class Answers:
    """A client's side of an exchange that was won already."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def start(self, offered: tuple[str, ...]) -> tuple[str, bytes]:
        self.heard.append(offered)
        return "SCRAM-SHA-256", b"first"

    def next(self, data: bytes) -> bytes:
        self.heard.append(data)
        return b"last"

    def verify(self, data: bytes) -> None:
        self.heard.append(data)


def out(login: Login) -> tuple[bytes, bytes]:
    return b"".join(login.to_client), b"".join(login.to_server)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    "asked", [[], [m.authentication(Authentication.CLEARTEXT_PASSWORD)],
              [m.authentication(Authentication.MD5_PASSWORD, b"salt")]]
)  # fmt: skip
def test_a_password_is_handed_on(asked: list[bytes], size: int) -> None:
    login = Login()
    for request in asked:
        for at in range(0, len(request), size):
            login.from_server(request[at : at + size])
        for at in range(0, len(SECRET), size):
            login.from_client(SECRET[at : at + size])
    end = OK + ZONE + KEY + READY
    for at in range(0, len(end), size):
        login.from_server(end[at : at + size])
    assert login.done
    assert out(login) == (b"".join(asked) + end, SECRET * len(asked))
    assert login.parameters == {"TimeZone": "UTC"}


def test_channel_binding_is_not_offered_across_two_connections() -> None:
    login = Login()
    login.from_server(SASL)
    assert out(login)[0] == m.authentication(Authentication.SASL, b"SCRAM-SHA-256\0\0")
    login.from_client(SECRET)
    login.from_server(CONTINUE)
    login.from_client(SECRET)
    login.from_server(FINAL + OK + READY)
    assert login.done
    assert out(login)[1] == SECRET * 2


def test_what_comes_early_waits_for_the_session() -> None:
    login = Login()
    login.from_client(m.SYNC)
    login.from_server(OK + READY + ZONE)
    assert (login.client_rest, login.server_rest) == (m.SYNC, ZONE)
    assert out(login)[1] == b""


def test_a_client_that_has_proved_itself_is_asked_nothing() -> None:
    answers = Answers()
    login = Login(answers=answers)
    login.from_server(SASL + CONTINUE + FINAL + OK + READY)
    assert out(login)[0] == OK + READY
    assert answers.heard == [("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"), b"r=", b"v="]
    assert out(login)[1].count(b"p\0\0\0") == 2


def test_the_server_may_not_ask_such_a_client_for_its_password() -> None:
    with pytest.raises(ProtocolViolation, match="SCRAM"):
        Login(answers=Answers()).from_server(m.authentication(Authentication.CLEARTEXT_PASSWORD))


@pytest.mark.parametrize(
    ("newest", "negotiated", "version"),
    [
        (None, b"", None),
        (m.PROTOCOL_3_2, b"", m.PROTOCOL_3_2),
        (None, NEGOTIATE, m.PROTOCOL_3_0),
        (m.PROTOCOL_3_2, NEGOTIATE, m.PROTOCOL_3_0),
    ],
)
def test_the_older_of_both_versions_is_offered(
    newest: int | None, negotiated: bytes, version: int | None
) -> None:
    login = Login(newest=newest)
    login.from_server(negotiated + OK + READY)
    options = ["_pq_.a"] if negotiated else []
    first = b"" if version is None else m.negotiate_protocol_version(version, options)
    assert out(login)[0] == first + OK + READY


def test_the_greatest_numbers_of_a_negotiation_are_handed_on() -> None:
    body = b"\xff" * 8 + b"\xff\0"
    login = Login()
    login.from_server(m.message(Backend.NEGOTIATE_PROTOCOL_VERSION, body) + OK)
    assert out(login)[0].endswith(OK)


def test_a_refusal_reaches_the_client() -> None:
    login = Login()
    login.from_server(m.error_response("28P01", "no"))
    assert login.refused
    assert b"28P01" in out(login)[0]


@pytest.mark.parametrize(
    "said",
    [
        READY,
        OK + OK,
        OK + SASL,
        SASL + SASL,
        SASL + READY,
        m.message(Backend.DATA_ROW, b"\0\0"),
        m.message(Backend.AUTHENTICATION, b"\0"),
        m.message(Backend.NEGOTIATE_PROTOCOL_VERSION, b"\0"),
        b"R\0\0\0\3",
        b"R\0\1\0\0",
    ],
)
def test_what_no_server_sends_ends_the_login(said: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        Login().from_server(said)


@pytest.mark.parametrize(
    "said", [m.TERMINATE, m.SYNC, m.query(b"SELECT 1"), b"p\0\0\0\3", b"p\0\1\0\0", b"x" * 140_000]
)
def test_what_no_client_sends_ends_the_login(said: bytes) -> None:
    login = Login()
    login.from_server(m.authentication(Authentication.CLEARTEXT_PASSWORD))
    with pytest.raises(ProtocolViolation):
        login.from_client(said)


def test_a_client_cannot_fill_the_memory_before_its_session() -> None:
    login = Login()
    for _ in range(131):
        login.from_client(b"x" * 1000)
    with pytest.raises(ProtocolViolation, match="too much"):
        login.from_client(b"x" * 1000)


def test_a_parameter_that_is_no_utf8_is_kept() -> None:
    login = Login()
    login.from_server(m.message(Backend.PARAMETER_STATUS, b"\xff\0\xfe\0"))
    assert login.parameters == {"\udcff": "\udcfe"}
