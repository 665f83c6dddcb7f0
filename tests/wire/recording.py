"""A gate that records what the relay tells it, and one side of a conversation with a server."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pgbalise.wire import messages as m
from pgbalise.wire.relay import Ask, Forward, Refuse, Relay, Verdict

REFUSAL = m.error_response("42601", "refused")
END = b"the conversation is over"


@dataclass(eq=False)
class Run:
    """The token of one statement."""

    sql: bytes
    started: int = 0
    open: int = 0
    step: int = 0
    failed: bool = False


@dataclass
class Recorder:
    """A gate that counts every statement.

    It refuses a statement that contains ``refuse``, asks about one that contains ``ask``, and puts
    ``done`` in the place of ``edit``. Statements that contain ``plain`` have no token.
    """

    values_wanted: bool = False
    holds: int = 0
    names: dict[bytes, Run] = field(default_factory=dict)
    cursors: dict[bytes, Run] = field(default_factory=dict)
    stale: set[bytes] = field(default_factory=set)
    calls: list[tuple[object, ...]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    rows: Counter[bytes] = field(default_factory=Counter)
    _asked: bytes = b""

    def statement(self, sql: bytes) -> Verdict:
        self.calls.append(("statement", sql))
        if b"ask" in sql:
            self._asked = sql
            return Ask(b"SELECT $1::text, NULL", [b"a value"])
        return self._decided(sql)

    def _decided(self, sql: bytes) -> Forward | Refuse:
        if b"refuse" in sql:
            return Refuse(REFUSAL)
        edited = sql.replace(b"edit", b"done") if b"edit" in sql else None
        if b"plain" in sql:
            return Forward(edited)
        self.runs.append(Run(sql))
        return Forward(edited, self.runs[-1])

    def answered(self, rows: list[tuple[bytes | None, ...]]) -> Forward | Refuse:
        self.calls.append(("answered", rows))
        assert rows == [(b"a value", None)]
        return self._decided(self._asked)

    def known(self, name: bytes) -> Run | None:
        return self.names.get(name)

    def cursor(self, name: bytes) -> Run | None:
        return self.cursors.get(name)

    def bound(self, token: Run | None, values: Sequence[object]) -> bytes | None:
        self.calls.append(("bound", token and token.sql, list(values)))
        return REFUSAL if token is not None and token.sql in self.stale else None

    def starts(self, token: Run) -> int:
        self.calls.append(("starts", token.sql))
        token.started += 1
        token.open += 1
        return self.holds

    def ended(
        self, token: Run, step: int, rows: int, size: int, tag: bytes, sqlstate: str | None
    ) -> None:
        self.calls.append(("ended", token.sql, step, rows, size, tag, sqlstate))
        if step == 0:
            assert token.open, "a statement ended more often than it started"
            token.open -= 1
        else:
            assert step == token.step + 1, "a step was left out"
            assert not token.failed, "a step came behind one that failed"
        token.step, token.failed = step, sqlstate is not None
        self.rows[token.sql] += rows

    def moved(self, token: object, step: int, rows: int, size: int) -> None:
        raise AssertionError("nobody asked")

    def parameter(self, name: str, value: str) -> None:
        self.calls.append(("parameter", name, value))

    def idle(self, status: int, quiet: bool) -> None:
        self.calls.append(("idle", chr(status), quiet))

    def of(self, *kinds: str) -> list[tuple[object, ...]]:
        """Return the calls of some kinds."""
        return [call for call in self.calls if call[0] in kinds]


def split(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Split what a server sent into kinds and bodies; a message that is cut is left out."""
    at = 0
    while len(data) - at >= 5:
        after = at + 1 + struct.unpack_from("!I", data, at + 1)[0]
        if after > len(data):
            return
        yield chr(data[at]), data[at + 5 : after]
        at = after


def connect(address: str, database: str = "postgres", version: int = m.PROTOCOL_3_0) -> Line:
    """Log in as postgres at a server's Unix socket.

    Wait for a server that recovers: a few conversations end its process by a signal, straight too.
    """
    parameters = {"user": "postgres", "database": database, "application_name": "conversation"}
    until = time.monotonic() + 20
    while True:
        line = Line(socket.socket(socket.AF_UNIX))
        line.socket.connect(address)
        line.send(m.startup_message(parameters, version))
        while not line.closed and not line.seen.endswith(b"Z\0\0\0\5I"):
            line.read(5)
        if not line.closed:
            line.seen = b""
            return line
        line.socket.close()
        assert time.monotonic() < until, "the server lets nobody in"
        time.sleep(0.1)


@dataclass
class Line:
    """One connection to a server, straight or through a relay."""

    socket: socket.socket
    relay: Relay | None = None
    seen: bytes = b""
    closed: bool = False

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send what a client says."""
        if self.relay is not None:
            self.relay.from_client(data)
            self.pump()
        elif data:
            self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError:
            self.closed = True

    def read(self, seconds: float = 0) -> bool:
        """Take what the server says within some seconds; return whether there was anything."""
        ready, _, _ = select.select([self.socket], [], [], seconds)
        if not ready or self.closed:
            return False
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return True
        if self.relay is None:
            self.seen += data
        else:
            self.relay.from_server(data)
            self.pump()
        return True

    def pump(self) -> None:
        """Move what the relay put out; nothing may keep it from the client for ever."""
        assert self.relay is not None
        for data in self.relay.to_server:
            self._write(data)
        self.relay.to_server.clear()
        self.relay.holding = 0
        self.seen += b"".join(self.relay.to_client)
        self.relay.to_client.clear()

    def finish(self, seconds: float = 10) -> None:
        """Read up to the end of the conversation, or of the connection."""
        until = time.monotonic() + seconds
        while not self.closed and not (END in self.seen and self.seen[-6:-1] == b"Z\0\0\0\5"):
            assert time.monotonic() < until, "the conversation hangs"
            self.read(0.2)


def fields(data: bytes) -> list[object]:
    """Return what of a server's messages must not depend on who stands in between."""
    return [
        (kind, m.error_fields(body).get("C")) if kind in "EN" else (kind, body)
        for kind, body in split(data)
        if kind != "S"
    ]
