"""One client's session: how it opens, how bytes move, how it ends.

``Session.run`` reads what comes before it (pgbalise.wire.startup), logs in on
both sides (pgbalise.wire.login), and then hands both transports to two protocol objects that do
nothing but feed the relay (pgbalise.wire.relay) and send what it puts out.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pgbalise.errors import AuthenticationRefused, PgbaliseError
from pgbalise.marking.policy import RecipientClass
from pgbalise.proxy.catalog import Catalog
from pgbalise.proxy.config import AuthenticationMode, Unenrolled
from pgbalise.proxy.gate import Passage, SessionGate, Visitor
from pgbalise.proxy.metrics import Name as Count
from pgbalise.rewrite import prints_plans
from pgbalise.wire import messages as m
from pgbalise.wire.login import Login
from pgbalise.wire.messages import Authentication, Frontend
from pgbalise.wire.relay import Relay
from pgbalise.wire.scram import ScramClient, ScramServer, Verifier, end_point
from pgbalise.wire.startup import Answer, Cancel, Encrypt, Opening, ProtocolViolation, Start

if TYPE_CHECKING:
    from pgbalise.errors import SpoolProblem
    from pgbalise.proxy.worker import Worker

ALPN = "postgresql"
"""The application protocol of direct TLS."""
_GREATEST_ANSWER = 1 + m.PG_MAX_AUTH_TOKEN_LENGTH
_FAREWELL_SECONDS = 2
_STALE = 12
"""So many refreshes missed in a row, and what the catalog says is too old to let anyone in."""


def fatal(sqlstate: str, text: str, hint: str | None = None) -> bytes:
    """Return the ErrorResponse that ends a connection."""
    return m.error_response(sqlstate, text, hint, severity="FATAL")


class _Refused(Exception):
    """The client gets this ErrorResponse, and the connection ends."""

    def __init__(self, response: bytes, why: str) -> None:
        super().__init__(why)
        self.response = response


class _Pipe(asyncio.Protocol):
    """One side while it logs in: keeps what comes for who reads it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._data = b""
        self._ended = False
        self._waiting: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport by inheritance
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > 4 * _GREATEST_ANSWER and self.transport is not None:
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def read(self) -> bytes:
        """Return what has come, at least one byte; none at the end."""
        while not self._data and not self._ended:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self.taken()

    def taken(self) -> bytes:
        """Return what has come and was not read."""
        data, self._data = self._data, b""
        if self.transport is not None and not self.transport.is_reading():
            self.transport.resume_reading()
        return data


class _Client(asyncio.Protocol):
    """The client's side of a session that is ready."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def data_received(self, data: bytes) -> None:
        session = self._session
        try:
            session.relay.from_client(data)
        except ProtocolViolation as problem:
            session.break_off(problem)
            return
        session.flush()

    def pause_writing(self) -> None:
        self._session.pause_server(1)

    def resume_writing(self) -> None:
        self._session.resume_server(1)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._session.client_lost()


class _Server(asyncio.Protocol):
    """The server's side of a session that is ready."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def data_received(self, data: bytes) -> None:
        session = self._session
        try:
            session.relay.from_server(data)
        except ProtocolViolation as problem:
            session.break_off(problem)
            return
        session.flush()

    def pause_writing(self) -> None:
        self._session.pause_client(1)

    def resume_writing(self) -> None:
        self._session.resume_client(1)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._session.server_lost()


class Session:
    """One client and its connection to the server."""

    relay: Relay
    gate: SessionGate | Passage
    _to_client: Callable[[bytes], None]
    _to_server: Callable[[bytes], None]

    def __init__(self, worker: Worker, address: str) -> None:
        self._worker = worker
        self._loop = worker.loop
        self.address = address
        self.role = ""
        self.database = ""
        self.identity = secrets.token_hex(16)
        self.client: asyncio.Transport | None = None
        self.server: asyncio.Transport | None = None
        self._client_paused = 0
        self._server_paused = 0
        self.outdated = False
        self.ready = False
        self._closed = False
        self._bytes_to_client = 0
        self._bytes_to_server = 0
        self._held_since: float | None = None

    # opening

    async def run(self, connection: socket.socket) -> None:
        """Open the session; return when it is ready or has ended."""
        config = self._worker.config
        pipe = _Pipe()
        try:
            try:
                async with asyncio.timeout(config.limits.startup_seconds):
                    await self._open(connection, pipe)
            except ProtocolViolation as problem:
                raise _Refused(problem.response, str(problem)) from None
            except TimeoutError:
                raise _Refused(
                    fatal("57014", "canceling authentication due to timeout"), "timeout"
                ) from None
            except PgbaliseError as problem:
                # it may tell of the server what clients need not know
                raise _Refused(
                    fatal("57P03", "the proxy cannot serve this database now", "see its log"),
                    problem.message,
                ) from None
        except _Refused as refused:
            self._log("refused", reason=str(refused))
            self._worker.counters.add(Count.LOGINS_FAILED)
            await self._send_last(connection, refused.response)
        except OSError as problem:
            # a TLS handshake that failed, or a client that left in the midst of its login
            self._log("connection.lost", reason=type(problem).__name__)
        finally:
            if not self.ready:
                if self.client is None:
                    connection.close()
                self.close("disconnected")

    async def _send_last(self, connection: socket.socket, response: bytes) -> None:
        if self.client is not None:
            if not self.client.is_closing():
                self.client.write(response)
            return
        with contextlib.suppress(OSError):
            await asyncio.wait_for(self._loop.sock_sendall(connection, response), 5)

    def _log(self, event: str, **fields: str) -> None:
        self._worker.log.info(
            event, session=self.identity, client=self.address, role=self.role, **fields
        )

    async def _open(self, connection: socket.socket, pipe: _Pipe) -> None:
        worker = self._worker
        tls = worker.tls if connection.family != socket.AF_UNIX else None
        required = tls is not None and worker.config.tls is not None and worker.config.tls.required
        opening = Opening(tls=tls is not None, tls_required=required)
        step: object = None
        await _readable(self._loop, connection)
        if tls is not None and connection.recv(1, socket.MSG_PEEK) == b"\x16":
            step = Encrypt(b"", direct=True)
        while not isinstance(step, Encrypt | Start | Cancel):
            data = await self._loop.sock_recv(connection, max(opening.wanted, 1))
            if not data:
                return
            step = opening.receive(data)
            if isinstance(step, Answer):
                await self._loop.sock_sendall(connection, step.data)
        if isinstance(step, Encrypt):
            if step.data:
                await self._loop.sock_sendall(connection, step.data)
            made = await self._loop.connect_accepted_socket(lambda: pipe, connection, ssl=tls)
            self.client = made[0]
            encrypted = self.client.get_extra_info("ssl_object")
            if step.direct and encrypted.selected_alpn_protocol() != ALPN:
                raise ProtocolViolation("direct TLS needs ALPN postgresql")
            opening = Opening(tls=True, encrypted=True)
            step = None
            while not isinstance(step, Start | Cancel):
                data = await pipe.read()
                if not data:
                    return
                step = opening.receive(data)
                if isinstance(step, Answer):
                    self.client.write(step.data)
        if isinstance(step, Cancel):
            await worker.cancel(step)
            return
        if self.client is None:
            made = await self._loop.connect_accepted_socket(lambda: pipe, connection)
            self.client = made[0]
        assert isinstance(step, Start)
        await self._log_in(step, pipe)

    async def _log_in(self, start: Start, client: _Pipe) -> None:
        worker, config = self._worker, self._worker.config
        self.role = start.parameters["user"]
        database = self.database = start.parameters.get("database") or self.role
        if not worker.admit(self):
            raise _Refused(fatal("53300", "too many connections for this role"), "role's limit")
        answers = None
        if config.authentication.mode is AuthenticationMode.SCRAM:
            answers = await self._prove(client, database)
        elif config.authentication.mode is AuthenticationMode.CERTIFICATE:
            self._check_certificate()
        server = _Pipe()
        self.server = await worker.connect(server)
        self.server.write(start.data)
        if answers is not None:
            certificate = self.server.get_extra_info("ssl_object")
            if certificate is not None:
                answers.bind(end_point(certificate.getpeercert(binary_form=True)))
        login = Login(newest=start.newest, unspoken=start.unspoken, answers=answers)
        await self._both(login, client, server)
        if login.refused:
            self._log("refused", reason="the server refused the login")
            worker.counters.add(Count.LOGINS_FAILED)
        if not login.done:
            return
        # only now, so that what is wrong with the login is told in the server's own words
        catalog = await worker.catalog(database)
        if catalog.missed >= _STALE:
            raise _Refused(
                fatal("57P03", "the proxy cannot read this database's catalog now"), "stale"
            )
        recipient_class = catalog.current.recipients.get(self.role)
        if catalog.current.protected:
            self._check_start(start, recipient_class)
        assert self.client is not None
        if self.client.is_closing() or self.server.is_closing():
            # who is lost already is told of to nobody any more
            return
        self.client.writelines(login.to_client)
        self._begin(login, catalog, database, client, server)

    def _check_start(self, start: Start, recipient_class: RecipientClass | None) -> None:
        if recipient_class is None:
            if self._worker.config.rewrite.unenrolled is Unenrolled.REFUSE:
                raise _Refused(
                    fatal(
                        "28000",
                        f'role "{self.role}" is not enrolled as a recipient',
                        "ask the database administrator to enrol it",
                    ),
                    "not enrolled",
                )
            return
        for setting in start.settings:
            if setting in ("role", "session_authorization") or prints_plans(setting):
                raise _Refused(
                    fatal("42501", f"a recipient may not set {setting} at connection"), setting
                )

    def _check_certificate(self) -> None:
        assert self.client is not None
        encrypted = self.client.get_extra_info("ssl_object")
        shown = encrypted.getpeercert() if encrypted is not None else None
        if not shown:
            raise _Refused(
                fatal("28000", "connection requires a valid client certificate"), "no certificate"
            )
        subject = dict(pair for part in shown.get("subject", ()) for pair in part)
        if subject.get("commonName") != self.role:
            raise _Refused(
                fatal("28000", f'certificate authentication failed for user "{self.role}"'),
                "certificate of another name",
            )

    async def _prove(self, client: _Pipe, database: str) -> _Answers:
        """Have the client prove its password; return what the proxy proves upstream with."""
        assert self.client is not None
        worker = self._worker
        verifier = await worker.verifier(database, self.role)
        binding = worker.end_point if self.client.get_extra_info("ssl_object") else None
        exchange = ScramServer(verifier, secrets.token_urlsafe(18), binding)
        try:
            names = b"".join(map(m.string, exchange.mechanisms)) + b"\0"
            self.client.write(m.authentication(Authentication.SASL, names))
            body = await self._answer(client)
            mechanism, _, first = body.partition(b"\0")
            (size,) = struct.unpack("!i", first[:4])
            reply = exchange.start(mechanism.decode("ascii", "replace"), first[4 : 4 + size])
            self.client.write(m.authentication(Authentication.SASL_CONTINUE, reply))
            reply, client_key = exchange.finish(await self._answer(client))
        except struct.error:
            raise ProtocolViolation("invalid SASLInitialResponse") from None
        except AuthenticationRefused as problem:
            raise _Refused(
                fatal(problem.sqlstate, f'{problem.message} for user "{self.role}"'),
                "authentication",
            ) from None
        self.client.write(m.authentication(Authentication.SASL_FINAL, reply))
        return _Answers(self.role, client_key, verifier)

    async def _answer(self, client: _Pipe) -> bytes:
        data = b""
        while len(data) < m.HEADER_BYTES or len(data) <= m.length_at(data, 1)[0]:
            more = await client.read()
            if not more:
                raise ConnectionResetError
            data += more
            if data[0] != Frontend.PASSWORD or len(data) > _GREATEST_ANSWER:
                raise ProtocolViolation("expected SASL response")
        if len(data) != 1 + m.length_at(data, 1)[0]:
            raise ProtocolViolation("expected SASL response")
        return data[m.HEADER_BYTES :]

    async def _both(self, login: Login, client: _Pipe, server: _Pipe) -> None:
        """Hand the login's messages to and fro until it is over."""
        assert self.client is not None
        assert self.server is not None
        reads = {
            self._loop.create_task(client.read()): (client, login.from_client),
            self._loop.create_task(server.read()): (server, login.from_server),
        }
        try:
            while not (login.done or login.refused):
                ready, _ = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
                for task in ready:
                    side, take = reads.pop(task)
                    data = task.result()
                    if not data:
                        return
                    try:
                        take(data)
                    except AuthenticationRefused as problem:
                        raise _Refused(
                            fatal(problem.sqlstate, problem.message), "upstream"
                        ) from None
                    reads[self._loop.create_task(side.read())] = (side, take)
                if not self.server.is_closing():
                    self.server.writelines(login.to_server)
                login.to_server.clear()
                if not self.client.is_closing() and not login.done:
                    self.client.writelines(login.to_client)
                    login.to_client.clear()
        finally:
            for task in reads:
                task.cancel()

    def _begin(
        self,
        login: Login,
        catalog: Catalog,
        database: str,
        client: _Pipe,
        server: _Pipe,
    ) -> None:
        assert self.client is not None
        assert self.server is not None
        worker = self._worker
        if catalog.current.protected:
            visitor = Visitor(
                self.identity,
                self.role,
                database,
                self.address,
                login.parameters,
            )
            self.gate = SessionGate(
                worker.desk, catalog, visitor, self._durable, self._prepared, self._portal
            )
        else:
            self.gate = Passage()
        self.relay = Relay(self.gate, statement_bytes=worker.config.limits.statement_bytes)
        size = worker.config.limits.buffer_bytes
        for transport in (self.client, self.server):
            transport.set_write_buffer_limits(high=size)
        self.client.set_protocol(_Client(self))
        self.server.set_protocol(_Server(self))
        self._to_client, self._to_server = self.client.write, self.server.write
        self.ready = True
        self._log("session", database=database)
        try:
            if rest := login.server_rest + server.taken():
                self.relay.from_server(rest)
            if rest := login.client_rest + client.taken():
                self.relay.from_client(rest)
        except ProtocolViolation as problem:
            self.break_off(problem)
            return
        self.flush()

    def _prepared(self, name: bytes) -> Any:
        return self.relay.prepared(name)

    def _portal(self, name: bytes) -> Any:
        return self.relay.portal(name)

    # moving bytes

    def flush(self) -> None:
        """Send what the relay put out, as far as it may leave."""
        relay = self.relay
        out = relay.to_server
        if out:
            relay.to_server = []
            data = out[0] if len(out) == 1 else b"".join(out)
            self._bytes_to_server += len(data)
            self._to_server(data)
        out = relay.to_client
        if out:
            if relay.holding:
                self._hold()
            else:
                relay.to_client = []
                data = out[0] if len(out) == 1 else b"".join(out)
                self._bytes_to_client += len(data)
                self._to_client(data)
        if relay.blocked:
            self.pause_client(2)
        elif self._client_paused:
            self.resume_client(2)
        if relay.over:
            self.close("disconnected" if relay.busy else "complete")
        elif self._worker.draining or self.outdated:
            self.drain()

    def _hold(self) -> None:
        """Rows are there, and their intent is not on the disk."""
        if self._held_since is None:
            self._held_since = self._loop.time()
            self._worker.counters.add(Count.SESSIONS_WAITING)
            self.pause_server(2)

    def _let_go(self) -> None:
        if self._held_since is not None:
            waited = self._loop.time() - self._held_since
            self._held_since = None
            self._worker.counters.add(Count.SESSIONS_WAITING, -1)
            self._worker.counters.add(Count.INTENT_WAIT_NANOSECONDS, int(waited * 1e9))
            self.resume_server(2)

    def _tell_bytes(self) -> None:
        counters = self._worker.counters
        counters.add(Count.BYTES_TO_CLIENT, self._bytes_to_client)
        counters.add(Count.BYTES_TO_SERVER, self._bytes_to_server)
        self._bytes_to_client = self._bytes_to_server = 0

    def _durable(self, problem: SpoolProblem | None) -> None:
        """An intent is on the disk, or cannot be. Called by the thread that writes."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._released, problem)

    def _released(self, problem: SpoolProblem | None) -> None:
        if self._closed:
            return
        if problem is not None:
            self.relay.to_client.clear()
            self._end(
                fatal(
                    "53100",
                    "this extract cannot be recorded, so nothing may leave",
                    problem.message,
                ),
                "unrecorded",
            )
            return
        self.relay.holding -= 1
        if not self.relay.holding:
            self._let_go()
            self.flush()

    def pause_server(self, reason: int) -> None:
        """Read no more of the server, for one more reason."""
        if not self._server_paused and self.server is not None and not self.server.is_closing():
            self.server.pause_reading()
        self._server_paused |= reason

    def resume_server(self, reason: int) -> None:
        """One reason less not to read of the server."""
        if self._server_paused:
            self._server_paused &= ~reason
            if not self._server_paused and self.server and not self.server.is_closing():
                self.server.resume_reading()

    def pause_client(self, reason: int) -> None:
        """Read no more of the client, for one more reason."""
        if not self._client_paused and self.client is not None and not self.client.is_closing():
            self.client.pause_reading()
        self._client_paused |= reason

    def resume_client(self, reason: int) -> None:
        """One reason less not to read of the client."""
        if self._client_paused:
            self._client_paused &= ~reason
            if not self._client_paused and self.client and not self.client.is_closing():
                self.client.resume_reading()

    # ending

    def break_off(self, problem: ProtocolViolation) -> None:
        """End the session for what one side sent."""
        self._log("protocol violation", reason=str(problem))
        self._end(problem.response, "error")

    def drain(self) -> None:
        """End the session if it is at nothing."""
        if not self.ready or not (self.relay.busy or self.relay.holding):
            self.dismiss()

    def dismiss(self) -> None:
        """End the session because the proxy stops, or because more is protected now."""
        if self._closed:
            return
        if not self.ready:
            self.close("disconnected")
            return
        why = "the proxy is stopping" if self._worker.draining else "more is protected now"
        outcome = "disconnected" if self.relay.busy else "complete"
        self._end(fatal("57P01", f"terminating connection: {why}", "connect again"), outcome)

    def _end(self, response: bytes, outcome: str) -> None:
        if self.client is not None and not self.client.is_closing():
            if not self.relay.holding:
                self.client.writelines(self.relay.to_client)
            self.client.write(response)
        self.close(outcome)

    def client_lost(self) -> None:
        """The client is gone."""
        self.close("disconnected" if self.relay.busy else "complete")

    def server_lost(self) -> None:
        """The server is gone; what it sent still reaches the client."""
        if self.relay.holding:
            self._loop.call_later(0.05, self.server_lost)
            return
        self.close("disconnected" if self.relay.busy else "complete")

    def close(self, outcome: str) -> None:
        """End both sides; what was sent to them still arrives."""
        if self._closed:
            return
        self._closed = True
        self._tell_bytes()
        self._let_go()
        if self.ready:
            self.relay.tell()
            self.gate.finish(outcome)
        for transport in (self.server, self.client):
            if transport is not None and not transport.is_closing():
                transport.close()
        self._worker.left(self)

    def tick(self) -> None:
        """Tell the ledger how far extracts are that have not ended."""
        if self.ready:
            self._tell_bytes()
            self.relay.tell()
            self.gate.progress()


async def turn_away(
    loop: asyncio.AbstractEventLoop, connection: socket.socket, response: bytes
) -> None:
    """Read what a client asks for, say no, and close its connection."""
    opening = Opening(tls=False)
    with contextlib.closing(connection), contextlib.suppress(OSError, ProtocolViolation):
        async with asyncio.timeout(_FAREWELL_SECONDS):
            step: object = None
            while not isinstance(step, Start | Cancel):
                data = await loop.sock_recv(connection, max(opening.wanted, 1))
                if not data:
                    return
                step = opening.receive(data)
                if isinstance(step, Answer):
                    await loop.sock_sendall(connection, step.data)
            await loop.sock_sendall(connection, response)


class _Answers:
    """The client's side of SCRAM with the server, with the key that its password gave away."""

    def __init__(self, role: str, client_key: bytes, verifier: Verifier) -> None:
        self._role = role
        self._key = client_key
        self._verifier = verifier
        self._binding: bytes | None = None
        self._exchange: ScramClient | None = None

    def bind(self, binding: bytes | None) -> None:
        """Bind the exchange to the connection to the server."""
        self._binding = binding

    def start(self, offered: tuple[str, ...]) -> tuple[str, bytes]:
        """Choose a mechanism and say the first word."""
        self._exchange = ScramClient(
            self._role,
            self._key,
            self._verifier,
            secrets.token_urlsafe(18),
            self._binding,
            offered,
        )
        return self._exchange.start()

    def next(self, data: bytes) -> bytes:
        """Prove the key."""
        assert self._exchange is not None
        return self._exchange.next(data)

    def verify(self, data: bytes) -> None:
        """Check that the server knows the password too."""
        assert self._exchange is not None
        self._exchange.verify(data)


async def _readable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    ready = loop.create_future()

    def arrived() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, arrived)
    try:
        await ready
    finally:
        loop.remove_reader(connection)
