"""Between psql and a server: shows each statement to an observer before it goes on.

It speaks the simple protocol with the client and asks the server questions of its own, in the
client's session, in between. pgaudit's messages, sent to the client as INFO, are taken out and
handed to the observer: what the server itself says a statement touched.
"""

from __future__ import annotations

import csv
import socket
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

_ENCODINGS = {"UTF8": "utf-8", "SQL_ASCII": "utf-8", "LATIN1": "latin-1"}
# a statement in a line of pgaudit may be long
csv.field_size_limit(1 << 30)
_INT = struct.Struct("!i")


class Refused(Exception):
    """The server's answer to a question was an error; its SQLSTATE and message."""


@dataclass(frozen=True, slots=True)
class Audit:
    """One relation that the server says a statement touched, as one line of pgaudit."""

    kind: str  # READ, WRITE ...
    command: str  # SELECT, UPDATE ...
    relation: str  # quoted where needed, "" when the line is about none
    text: str  # of the statement, the function's or trigger's own when it is nested


@dataclass
class Result:
    """What came back for one message: parts in order, each (type, text values)."""

    audits: list[Audit] = field(default_factory=list)
    parts: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)


class Observer(Protocol):
    """What is told about one session; ``session`` outlives every call."""

    def before(self, session: Session, sql: str | None) -> str | None:
        """Look at a statement (None: not text); return what to send, None to send it as it is."""

    def after(self, session: Session, sql: str | None, result: Result) -> None:
        """Look at what came of it."""


class Session:
    """One client and its server connection."""

    def __init__(self, client: socket.socket, server: socket.socket, observer: Observer) -> None:
        self._client, self._server, self._observer = client, server, observer
        self._from_client, self._from_server = client.makefile("rb"), server.makefile("rb")
        self.transaction = "I"
        self.parameters: dict[str, str] = {}

    @property
    def encoding(self) -> str:
        return _ENCODINGS.get(self.parameters.get("client_encoding", ""), "latin-1")

    def run(self) -> None:
        """Serve until one side leaves."""
        (length,) = _INT.unpack(self._from_client.read(4))
        self._server.sendall(_INT.pack(length) + self._from_client.read(length - 4))
        self._until_ready(None)
        while True:
            kind, body = _read(self._from_client)
            if kind != b"Q":
                if kind:
                    self._server.sendall(_message(kind, body))
                return
            sql = _text(body[:-1], self.encoding)
            instead = self._observer.before(self, sql)
            if instead is not None:
                body = instead.encode(self.encoding) + b"\0"
            self._server.sendall(_message(b"Q", body))
            result = Result()
            alive = self._until_ready(result)
            self._observer.after(self, sql, result)
            if not alive:
                return

    def ask(self, sql: str, *values: str) -> list[tuple[str | None, ...]]:
        """Run a query with text parameters in this session; raise Refused on an error."""
        texts = [value.encode(self.encoding) for value in values]
        bind = b"".join(_INT.pack(len(text)) + text for text in texts)
        parts = (
            (b"P", b"\0" + sql.encode(self.encoding) + b"\0\0\0"),
            (b"B", b"\0\0\0\0" + struct.pack("!h", len(texts)) + bind + b"\0\0"),
            (b"E", b"\0\0\0\0\0"),
            (b"S", b""),
        )
        self._server.sendall(b"".join(_message(*part) for part in parts))
        rows: list[tuple[str | None, ...]] = []
        refused = None
        while True:
            kind, body = _read(self._from_server)
            if kind == b"D":
                rows.append(_row(body, self.encoding))
            elif kind == b"E":
                fields = _fields(body, self.encoding)
                refused = Refused(fields.get("C"), fields.get("M"))
            elif kind in b"AS" and kind:
                self._client.sendall(_message(kind, body))
            elif kind == b"Z":
                self.transaction = body.decode()
                break
            elif not kind:
                raise Refused("08006", "the server closed the connection")
        if refused:
            raise refused
        return rows

    def _until_ready(self, result: Result | None) -> bool:
        """Relay what the server sends up to ReadyForQuery; return whether it is still there."""
        while True:
            kind, body = _read(self._from_server)
            if not kind:
                return False
            if kind == b"N":
                said = _fields(body, self.encoding)
                audit = _audit(said.get("M", "")) if said.get("S") == "INFO" else None
                if audit is not None:
                    if result is not None:
                        result.audits.append(audit)
                    continue
            elif kind == b"S":
                name, value = body[:-1].split(b"\0")
                self.parameters[name.decode()] = value.decode("utf-8", "replace")
            if result is not None:
                part = _part(kind, body, self.encoding)
                if part is not None:
                    result.parts.append(part)
            self._client.sendall(_message(kind, body))
            if kind == b"G":
                self._copy_in()
            elif kind == b"Z":
                self.transaction = body.decode()
                return True

    def _copy_in(self) -> None:
        while True:
            kind, body = _read(self._from_client)
            self._server.sendall(_message(kind, body))
            if kind in (b"c", b"f", b""):
                return


class Forwarder:
    """Listens on a Unix socket in ``folder``; a thread for each client. A context manager."""

    def __init__(self, folder: Path, server: str, observe: type | object) -> None:
        self.folder = folder
        self._server, self._observe = server, observe
        self.problems: list[BaseException] = []
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        self._listener.bind(str(self.folder / ".s.PGSQL.5432"))
        self._listener.listen()
        (self.folder / ".s.PGSQL.5432").chmod(0o777)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._server)
            try:
                Session(client, server, self._observe()).run()  # type: ignore[operator]
            except (BrokenPipeError, ConnectionResetError, struct.error):
                pass
            except BaseException as error:
                self.problems.append(error)
                raise
            finally:
                # closing alone would wait for the streams made of them
                client.shutdown(socket.SHUT_RDWR)
                server.shutdown(socket.SHUT_RDWR)


def _read(stream: object) -> tuple[bytes, bytes]:
    head = stream.read(5)  # type: ignore[attr-defined]
    if len(head) < 5:
        return b"", b""
    (length,) = _INT.unpack(head[1:])
    return head[:1], stream.read(length - 4)  # type: ignore[attr-defined]


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + _INT.pack(len(body) + 4) + body


def _text(raw: bytes, encoding: str) -> str | None:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        return None


def _row(body: bytes, encoding: str) -> tuple[str | None, ...]:
    values: list[str | None] = []
    at = 2
    for _ in range(int.from_bytes(body[:2])):
        (length,) = _INT.unpack_from(body, at)
        at += 4
        if length < 0:
            values.append(None)
            continue
        values.append(body[at : at + length].decode(encoding, "replace"))
        at += length
    return tuple(values)


def _fields(body: bytes, encoding: str) -> dict[str, str]:
    texts = body.decode(encoding, "replace").split("\0")
    return {text[0]: text[1:] for text in texts if text}


def _part(kind: bytes, body: bytes, encoding: str) -> tuple[str, tuple[object, ...]] | None:
    if kind == b"D":
        return "row", _row(body, encoding)
    if kind == b"T":
        names, at = [], 2
        for _ in range(int.from_bytes(body[:2])):
            end = body.index(b"\0", at)
            (kind_oid,) = struct.unpack_from("!I", body, end + 7)
            names.append((body[at:end].decode(encoding, "replace"), kind_oid))
            at = end + 19
        return "columns", tuple(names)
    if kind == b"C":
        return "done", (body[:-1].decode(encoding, "replace"),)
    if kind == b"E":
        fields = _fields(body, encoding)
        return "error", (fields.get("C"), fields.get("M"))
    if kind == b"d":
        return "data", (body.decode(encoding, "replace"),)
    return None


def _audit(message: str) -> Audit | None:
    prefix = "AUDIT: SESSION,"
    if not message.startswith(prefix):
        return None
    fields = next(csv.reader([message.removeprefix(prefix)], strict=False))
    return Audit(fields[2], fields[3], fields[5], fields[6])
