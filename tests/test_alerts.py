"""Alerts reach real servers, each at least once, whatever fails on the way."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email import message_from_string
from email.header import decode_header, make_header
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from pgbalise.alerts import AlertDesk, parse_sinks, senders, trial_alert
from pgbalise.errors import EnvironmentProblem, InvalidInput, InvalidKey
from pgbalise.registry import tables
from pgbalise.registry.alerts import alerts, record_alert, undelivered
from pgbalise.registry.store import entries, open_registry, upgrade, verify_registry
from pgbalise.watch import Alert, alert_id
from tests.proxy.proxied import wait_until

AT = datetime(2026, 3, 4, 12, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_http_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def alert(number: int = 1, severity: str = "warning", recipient: str = "anna") -> Alert:
    at = AT + timedelta(seconds=number)
    return {
        "type": "alert",
        "at": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "alert": alert_id("rows_per_day", "7", recipient, str(number)),
        "kind": "rows_per_day",
        "severity": severity,
        "recipient": recipient,
        "database": "dpi",
        "system": "7",
        "client": "192.0.2.7",
        "detail": {"day": "2026-03-04", "rows": 100 + number, "limit": 100},
    }


class Hook(ThreadingHTTPServer):
    """An HTTP server that remembers what it was told and answers as it is set to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status, self.location, self.refuses = 204, "", ""
        self.heard: list[tuple[str, dict[str, str], bytes]] = []

    def rows(self) -> list[int]:
        return [json.loads(body)["detail"]["rows"] for _, _, body in self.heard]


class _Answer(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        refused = self.server.refuses and self.server.refuses.encode() in body
        if not refused:
            self.server.heard.append((self.path, dict(self.headers), body))
        self.send_response(400 if refused else self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(server: Hook) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    with serving(server):
        yield server


def url(server: Hook) -> str:
    return f"http://127.0.0.1:{server.server_port}/told"


def sender(kind: str, **body: Any) -> Any:
    [found] = senders(parse_sinks({kind: [body]}))
    return found


def desk(folder: Path, *hooks: Hook, registry: str | None = None) -> AlertDesk:
    sinks = parse_sinks({"webhook": [{"url": url(server)} for server in hooks]})
    return AlertDesk(folder / "alerts", senders(sinks), registry)


def private(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(0o600)
    return path


def test_a_webhook_is_posted_the_alert_signed(hook: Hook, tmp_path: Path) -> None:
    secret = private(tmp_path / "secret", "hunter2\n")
    sender("webhook", url=url(hook), secret_file=str(secret)).send(alert())
    [(path, headers, body)] = hook.heard
    told = json.loads(body)
    assert path == "/told"
    assert told.pop("text") == "anna took 101 rows on 2026-03-04; its limit is 100 rows a day."
    assert told == alert()
    signature = hmac.new(b"hunter2", body, hashlib.sha256).hexdigest()
    assert headers["X-Pgbalise-Signature"] == f"sha256={signature}"
    assert headers["X-Pgbalise-Alert"] == alert()["alert"]


def test_a_webhooks_secrets_are_files_that_others_cannot_read(hook: Hook, tmp_path: Path) -> None:
    address = private(tmp_path / "chat.url", url(hook) + "\n")
    told = sender("webhook", url_file=str(address))
    told.send(alert())
    assert len(hook.heard) == 1
    address.chmod(0o644)
    with pytest.raises(InvalidKey):
        told.send(alert())
    private(address, "http://elsewhere.example/token-of-ours")
    with pytest.raises(InvalidInput) as caught:
        told.send(alert())
    assert "token" not in str(caught.value)


def test_a_redirect_is_not_followed(hook: Hook) -> None:
    other = Hook()
    with serving(other) as there:
        hook.location = there
        for hook.status in (301, 302, 303, 307, 308):
            with pytest.raises(EnvironmentProblem, match=f"answered {hook.status}"):
                sender("webhook", url=url(hook)).send(alert())
        assert other.heard == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    paths = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return paths


def test_a_certificate_must_be_trusted_and_of_that_host(certificate: tuple[Path, Path]) -> None:
    server = Hook()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]
    with serving(server):
        port, ca = server.server_port, str(certificate[0])
        sender("webhook", url=f"https://localhost:{port}/", ca=ca).send(alert())
        assert len(server.heard) == 1
        for host, trusted in (("localhost", {}), ("127.0.0.1", {"ca": ca})):
            with pytest.raises(EnvironmentProblem, match="certificate is not trusted"):
                sender("webhook", url=f"https://{host}:{port}/", **trusted).send(alert())
        assert len(server.heard) == 1


def test_a_server_that_is_away_or_silent_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        silent_one = sender("webhook", url=f"http://127.0.0.1:{port}/", timeout_seconds=0.2)
        with pytest.raises(EnvironmentProblem, match="did not answer in time"):
            silent_one.send(alert())
    for gone in (
        sender("webhook", url=f"http://127.0.0.1:{port}/"),
        sender("syslog", address=f"tcp://127.0.0.1:{port}"),
        sender("syslog", address="unix:/nowhere/log"),
    ):
        with pytest.raises(EnvironmentProblem) as caught:
            gone.send(alert())
        assert "\n" not in str(caught.value)


def test_syslog_over_udp_tcp_and_the_local_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(5)
        sender("syslog", address=f"udp://127.0.0.1:{udp.getsockname()[1]}").send(alert())
        assert b" pgbalise " in (found := udp.recv(4096))
        assert found.startswith(b"<84>1 2026-03-04T12:05:01.000000Z ")
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        tcp.settimeout(5)
        sender("syslog", address=f"tcp://127.0.0.1:{tcp.getsockname()[1]}").send(alert())
        connection, _ = tcp.accept()
        with connection, connection.makefile("rb") as file:
            size, _, message = file.read().partition(b" ")
        assert int(size) == len(message)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        path = tmp_path / f"log{kind}"
        with socket.socket(socket.AF_UNIX, kind) as local:
            local.bind(str(path))
            local.settimeout(5)
            if kind == socket.SOCK_STREAM:
                local.listen()
            sender("syslog", address=f"unix:{path}", facility="local0").send(alert())
            if kind == socket.SOCK_STREAM:
                connection, _ = local.accept()
                with connection:
                    found = connection.recv(4096)
            else:
                found = local.recv(4096)
        assert found.startswith(b"<132>Mar  4 12:05:01 pgbalise[")


def test_syslog_over_tls(certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.settimeout(5)

        def answer() -> None:
            connection, _ = plain.accept()
            with context.wrap_socket(connection, server_side=True) as tls:
                heard.append(tls.recv(4096))

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"tls://localhost:{plain.getsockname()[1]}"
        sender("syslog", address=address, ca=str(certificate[0])).send(alert())
        thread.join()
    assert b"CEF:0|" in heard[0]


class Post:
    """An SMTP server that keeps what it is sent; it asks for ``starttls`` and a ``password``."""

    def __init__(
        self, tls: ssl.SSLContext | None, *, starttls: bool = True, password: str = ""
    ) -> None:
        self.tls, self.starttls, self.password = tls, starttls, password
        self.mails: list[tuple[bool, str, list[str], str]] = []
        self.refused: set[str] = set()
        self.logins: list[str] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(5)

    def run(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            with suppress(OSError, ValueError):
                if self.tls is not None and not self.starttls:
                    client = self.tls.wrap_socket(client, server_side=True)
                self.talk(client)
            client.close()

    def talk(self, client: socket.socket) -> None:
        file, secure, to, sender = client.makefile("rb"), not self.starttls, list[str](), ""

        def say(line: str) -> None:
            client.sendall(line.encode() + b"\r\n")

        say("220 post")
        while line := file.readline().decode().strip():
            word, _, rest = line.partition(" ")
            match word.upper():
                case "EHLO":
                    offers = ["post"] + ["STARTTLS"] * (self.tls is not None and not secure)
                    offers += ["AUTH PLAIN"] * (secure and bool(self.password))
                    for offer in offers[:-1]:
                        say(f"250-{offer}")
                    say(f"250 {offers[-1]}")
                case "STARTTLS":
                    assert self.tls is not None
                    say("220 go")
                    client = self.tls.wrap_socket(client, server_side=True)
                    file, secure = client.makefile("rb"), True
                case "AUTH":
                    self.logins.append(b64decode(rest.split()[1]).decode())
                    good = self.logins[-1] == f"\0balise\0{self.password}"
                    say("235 ok" if good else "535 no such balise@post.example")
                case "MAIL":
                    sender = rest
                    say("250 ok")
                case "RCPT":
                    refused = any(one in rest for one in self.refused)
                    to += [] if refused else [rest]
                    say("550 nobody" if refused else "250 ok")
                case "DATA":
                    say("354 go")
                    text = ""
                    while (line := file.readline().decode()) != ".\r\n":
                        text += line
                    self.mails.append((secure, sender, to, text))
                    say("250 ok")
                case _:
                    say("250 ok")
        file.close()
        client.close()


@pytest.fixture
def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


ADDRESSES = {"from": "pgbalise@chu.example", "to": ["dpo@chu.example", "rssi@chu.example"]}


@pytest.mark.parametrize("transport", ["starttls", "tls"])
def test_a_mail_goes_encrypted_and_logged_in(
    transport: str, server_tls: ssl.SSLContext, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    post = Post(server_tls, starttls=transport == "starttls", password="hunter2")
    account = {
        "user": "balise",
        "password_file": str(private(tmp_path / "password", "hunter2\n")),
        "ca": str(certificate[0]),
    }
    try:
        address = f"{transport}://localhost:{post.port}"
        mine = sender("email", address=address, **ADDRESSES, **account, language="fr")
        mine.send({**alert(), "detail": {"day": "2026-03-04", "rows": 12345, "limit": 1000}})
        private(tmp_path / "password", "guess")
        with pytest.raises(EnvironmentProblem) as caught:
            mine.send(alert(2))
        assert str(caught.value) == "email localhost refused the login"
        untrusted = sender("email", address=address, **ADDRESSES)
        with pytest.raises(EnvironmentProblem, match="certificate is not trusted"):
            untrusted.send(alert(3))
    finally:
        post.close()
    [(secure, origin, to, text)] = post.mails
    assert secure
    assert "pgbalise@chu.example" in origin
    assert len(to) == 2
    message = message_from_string(text, policy=default)
    assert message["Subject"] == "[pgbalise] avertissement: Trop de lignes en un jour"
    assert message["Message-ID"] == f"<{alert()['alert']}@chu.example>"
    assert message["Date"].datetime == AT + timedelta(seconds=1)
    body = message.get_content()
    assert body.startswith(
        "anna a pris 12\u202f345 lignes le 2026-03-04 ; sa limite est de 1\u202f000"
    )
    assert "Depuis: 192.0.2.7\n" in body.replace("\r", "")


def test_no_mail_goes_in_the_clear_to_a_server_that_offers_no_starttls(tmp_path: Path) -> None:
    post = Post(None)
    try:
        with pytest.raises(EnvironmentProblem, match="cannot do that"):
            sender("email", address=f"starttls://127.0.0.1:{post.port}", **ADDRESSES).send(alert())
        local = sender("email", address=f"smtp://127.0.0.1:{post.port}", **ADDRESSES)
        post.refused = {"dpo@"}
        local.send({**alert(), "recipient": "an\nna\udc80", "client": "a\r\nBcc: x@y.example"})
        post.refused = {"dpo@", "rssi@"}
        with pytest.raises(EnvironmentProblem, match="refused every recipient"):
            local.send(alert())
    finally:
        post.close()
    [(_, _, to, text)] = post.mails
    assert len(to) == 1, "who is refused for good does not have the others told again"
    message = message_from_string(text, policy=default)
    assert message["Bcc"] is None
    assert message.get_content().startswith("an?na? took 101 rows")
    with pytest.raises(EnvironmentProblem):
        local.send(alert())


def test_a_push_message_has_title_priority_and_tags(hook: Hook, tmp_path: Path) -> None:
    token = private(tmp_path / "token", "tk_hunter2\n")
    sender("push", url=url(hook), token_file=str(token)).send(alert(severity="critical"))
    sender("push", url=url(hook), language="fr").send({**alert(), "kind": "decoy", "detail": {}})
    (_, english, body), (_, french, said) = hook.heard
    assert body.decode().startswith("anna took 101 rows on 2026-03-04")
    assert english["Authorization"] == "Bearer tk_hunter2"
    assert (english["Title"], english["Priority"]) == ("Too many rows in a day", "5")
    assert english["X-Pgbalise-Alert"] == alert()["alert"]
    assert "Authorization" not in french
    assert str(make_header(decode_header(french["Title"]))) == "Un leurre a été demandé"
    assert said.decode() == "anna a demandé un patient qui n'existe pas, un leurre."
    hook.status = 403
    with pytest.raises(EnvironmentProblem, match=r"^push 127\.0\.0\.1 answered 403$"):
        sender("push", url=url(hook)).send(alert())
    token.write_text("a\nX-Other: b")
    with pytest.raises(InvalidInput):
        sender("push", url=url(hook), token_file=str(token)).send(alert())


def test_a_desk_tells_every_sink_in_order_and_forgets_what_all_have_taken(
    hook: Hook, tmp_path: Path
) -> None:
    mine = desk(tmp_path, hook)
    mine.submit([alert(3), alert(1), alert(2)])
    mine.submit([alert(2)])
    assert mine.waiting() == 3
    assert mine.deliver(0) == 3
    assert hook.rows() == [101, 102, 103]
    assert (mine.waiting(), mine.deliver(1)) == (0, 0)
    assert len(hook.heard) == 3


def test_a_sink_that_fails_is_tried_again_ever_more_rarely_and_holds_up_no_other(
    hook: Hook, tmp_path: Path
) -> None:
    other = Hook()
    with serving(other):
        hook.status = 503
        mine = desk(tmp_path, hook, other)
        mine.submit([alert(1), alert(2)])
        for second in range(100):
            mine.deliver(float(second))
        assert other.rows() == [101, 102]
        assert len(hook.heard) == 7, "after 0, 1, 3, 7, 15, 31, 63 seconds"
        assert mine.problems == {"webhook 127.0.0.1": "webhook 127.0.0.1 answered 503"}
        hook.status, hook.heard = 200, []
        again = desk(tmp_path, hook, other)  # as after a restart
        assert again.deliver(0) == 2
        assert (hook.rows(), other.rows(), again.problems) == ([101, 102], [101, 102], {})


def test_an_alert_that_a_sink_never_takes_holds_up_no_other(hook: Hook, tmp_path: Path) -> None:
    mine = desk(tmp_path, hook)
    hook.refuses = '"rows": 101'
    mine.submit([alert(1), alert(2), alert(3)])
    mine.submit([{**alert(0), "detail": {"rows": [], "day": 3}}, {**alert(4), "detail": 3}])
    for second in range(10):
        mine.deliver(float(second))
    assert (hook.rows()[1:], mine.waiting()) == ([102, 103], 2)


def test_a_sink_is_told_from_its_least_severity_up(hook: Hook, tmp_path: Path) -> None:
    sinks = parse_sinks({"webhook": [{"url": url(hook), "minimum": "critical"}]})
    mine = AlertDesk(tmp_path / "alerts", senders(sinks))
    mine.submit([alert(1, "info"), alert(2, "warning"), alert(3, "critical")])
    assert mine.deliver(0) == 3
    assert hook.rows() == [103]


def test_what_was_submitted_survives_a_kill(hook: Hook, tmp_path: Path) -> None:
    program = (
        "import sys, json, os, signal; from pathlib import Path;"
        "from pgbalise.alerts import AlertDesk;"
        "AlertDesk(Path(sys.argv[1]) / 'alerts', []).submit(json.loads(sys.argv[2]));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    told = json.dumps([alert(1), alert(2)])
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path), told])
    assert done.returncode == -9
    (tmp_path / "alerts" / f"{'f' * 32}.json.unfinished").write_text("{")
    (tmp_path / "alerts" / f"{'f' * 32}.json").write_text("{")
    mine = desk(tmp_path, hook)
    mine.deliver(0)
    assert hook.rows() == [101, 102]
    assert "cannot be read" in mine.problems["folder"]
    with pytest.raises(InvalidInput):
        mine.submit([{**alert(), "alert": "../x"}])


def test_a_desk_runs_until_it_is_told_to_stop(hook: Hook, tmp_path: Path) -> None:
    mine, stop = desk(tmp_path, hook), threading.Event()
    thread = threading.Thread(target=mine.run, args=(stop,))
    thread.start()
    mine.submit([alert(1)])
    end = time.monotonic() + 10
    while not hook.heard and time.monotonic() < end:
        time.sleep(0.02)
    stop.set()
    thread.join(5)
    assert hook.rows() == [101]
    assert not thread.is_alive()


@pytest.fixture
def registry_dsn(cluster: Any, empty_db: psycopg.Connection[Any]) -> str:
    dsn = str(cluster.dsn(empty_db.info.dbname))
    with open_registry(dsn) as registry:
        upgrade(registry)
        with registry.begin():
            registry.execute(
                sa.insert(tables.database).values(name="dpi", system_identifier="7", first_seen=AT)
            )
            registry.execute(
                sa.insert(tables.recipient).from_select(
                    ["database_id", "role_name", "class", "enrolled_at"],
                    sa.select(
                        tables.database.c.database_id,
                        sa.literal("anna"),
                        sa.literal("secondary"),
                        sa.literal(AT),
                    ),
                )
            )
    return dsn


def test_the_registry_knows_what_was_raised_and_when_all_had_taken_it(
    registry_dsn: str, hook: Hook, tmp_path: Path
) -> None:
    hook.status = 500
    mine = desk(tmp_path, hook, registry=registry_dsn)
    mine.submit([alert(1), alert(2, recipient="stranger")])
    assert mine.deliver(0) == 0
    with open_registry(registry_dsn) as registry:
        now = datetime.now(UTC)
        assert undelivered(registry, now) == [alert(1), alert(2, recipient="stranger")]
        hook.status = 200
        assert mine.deliver(100) == 2
        assert undelivered(registry, now) == []
        assert all(told for _, told in alerts(registry))
        with registry.begin():
            rows = registry.execute(sa.select(tables.alert).order_by("raised_at")).all()
            assert [row.recipient_id for row in rows] == [1, None]
            found = list(entries(registry, kind="alert", recipient="anna"))
        assert [entry.body["severity"] for entry in found] == ["warning"]
        assert verify_registry(registry, [])[:2] == ([], 2)


def test_an_alert_that_comes_again_is_recorded_once(registry_dsn: str, tmp_path: Path) -> None:
    mine = desk(tmp_path, registry=registry_dsn)
    for _ in range(2):
        mine.submit([alert(1)])
        assert mine.deliver(0) == 1
    odd = {**alert(2), "client": "a\0b\udc80", "detail": {"relation": "h.p"}}
    mine.submit([odd])
    assert mine.deliver(0) == 1, mine.problems
    with open_registry(registry_dsn) as registry:
        assert len(list(alerts(registry))) == 2
        with registry.begin():
            assert [e.body["alert"] for e in entries(registry, relation="h.p")] == [odd["alert"]]


def test_sinks_are_told_while_the_registry_is_away(hook: Hook, tmp_path: Path) -> None:
    away = "host=/nowhere dbname=x"
    mine = desk(tmp_path, hook, registry=away)
    mine.submit([alert(1)])
    assert mine.deliver(0) == 0
    assert hook.rows() == [101]
    assert list(mine.problems) == ["registry"]
    assert mine.deliver(1000) == 0
    assert hook.rows() == [101], "who took it is not told again"


def test_a_new_machine_takes_up_what_was_never_told(
    registry_dsn: str, hook: Hook, tmp_path: Path
) -> None:
    hook.status = 500
    old = desk(tmp_path, hook, registry=registry_dsn)
    old.submit([alert(1)])
    old.deliver(0)
    (tmp_path / "new").mkdir()
    new = desk(tmp_path / "new", hook, registry=registry_dsn)
    assert new.adopt(AT + timedelta(minutes=9)) == 0, "its own desk may still tell it"
    assert new.adopt(AT + timedelta(minutes=11)) == 1
    hook.status, hook.heard = 200, []
    assert new.deliver(0) == 1
    assert hook.rows() == [101]


def test_what_a_command_records_is_told_by_a_desk_that_runs_already(
    registry_dsn: str, hook: Hook, tmp_path: Path
) -> None:
    running = desk(tmp_path, hook, registry=registry_dsn)
    running.look = 0.1
    stop = threading.Event()
    thread = threading.Thread(target=running.run, args=(stop,))
    thread.start()
    try:
        # it has looked once when this has arrived
        running.submit([alert(1)])
        wait_until(lambda: bool(hook.heard) and not running.waiting())
        found = {**alert(2), "kind": "decoy_found", "at": datetime.now(UTC).isoformat()}
        with open_registry(registry_dsn) as registry:
            record_alert(registry, found, AT, told=False)
            record_alert(registry, alert(3) | {"at": found["at"]}, AT, told=False)
            wait_until(lambda: not undelivered(registry, AT))
            left = [a["alert"] for a, told in alerts(registry) if told is None]
    finally:
        stop.set()
        thread.join()
    assert [json.loads(heard[2])["alert"] for heard in hook.heard[1:]] == [found["alert"]]
    assert left == [alert(3)["alert"]], "of what another desk recorded, that one tells"


def test_what_another_desk_has_told_meanwhile_is_given_up(
    registry_dsn: str, hook: Hook, tmp_path: Path
) -> None:
    found = {**alert(1), "kind": "decoy_found"}
    with open_registry(registry_dsn) as registry:
        record_alert(registry, found, AT, told=False)
    (tmp_path / "other").mkdir()
    mine, other = (
        desk(path, hook, registry=registry_dsn) for path in (tmp_path, tmp_path / "other")
    )
    assert (mine.adopt(AT), other.adopt(AT)) == (1, 1)
    mine.submit([alert(2)])
    assert other.deliver(0) == 1
    assert mine.adopt(AT) == 0
    assert mine.waiting() == 1, "its own are nobody else's"
    mine.deliver(0)
    assert sorted(hook.rows()) == [101, 102]


def test_a_trial_alert_says_that_it_is_one(hook: Hook) -> None:
    sender("webhook", url=url(hook)).send(trial_alert(AT))
    assert json.loads(hook.heard[0][2])["text"] == "This is a test: alerts arrive here."
