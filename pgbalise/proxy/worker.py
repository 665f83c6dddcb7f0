"""One process of the proxy: accepts clients, knows the databases, ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pgbalise.errors import EnvironmentProblem, InvalidInput, PgbaliseError
from pgbalise.lookout import RefusedRecipients
from pgbalise.proxy.catalog import Catalog
from pgbalise.proxy.config import Config, TlsMode
from pgbalise.proxy.gate import Desk
from pgbalise.proxy.metrics import Name as Count
from pgbalise.proxy.sessions import ALPN, Session, fatal, turn_away
from pgbalise.proxy.spool import Spool
from pgbalise.wire import messages as m
from pgbalise.wire.scram import Verifier, end_point
from pgbalise.wire.startup import Cancel

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine

    from pgbalise.proxy.supervisor import WorkerContext

_CANCELS_AT_ONCE = 64
_FAREWELLS_AT_ONCE = 64
_DECOYS_SECONDS = 3600
_DECOYS_LOOK_SECONDS = 5


def serve(context: WorkerContext) -> None:
    """Serve clients until told to stop."""
    spool = Spool(
        context.config.spool,
        min_free_bytes=context.config.ledger.min_free_bytes,
        max_bytes=context.config.ledger.max_bytes,
    )
    spool.start()
    # what is there now stays, and what one message leaves behind needs no collector
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    try:
        with asyncio.Runner(loop_factory=_loop) as runner:
            runner.run(Worker(context, spool).serve())
    finally:
        spool.close()


def _loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class Worker:
    """What a process's sessions share: configuration, databases, limits."""

    def __init__(self, context: WorkerContext, spool: Spool) -> None:
        self._context = context
        self.config = context.config
        self.log = context.log
        self.counters = context.counters
        self.draining = False
        self.desk = Desk(
            spool,
            context.counters,
            context.config.ledger.point_rows,
            lambda: datetime.now(UTC),
            RefusedRecipients(context.config.spool),
            context.log,
        )
        self._catalogs: dict[str, asyncio.Task[Catalog]] = {}
        self._sessions: set[Session] = set()
        self._by_address: Counter[str] = Counter()
        self._by_role: Counter[str] = Counter()
        self._by_database: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._cancels = asyncio.Semaphore(_CANCELS_AT_ONCE)
        self._farewells = 0
        self._load_tls()

    def _load_tls(self) -> None:
        self.tls: ssl.SSLContext | None = None
        self.end_point: bytes | None = None
        self._upstream_tls = upstream_context(self.config)
        if self.config.tls is None:
            return
        self.tls = client_context(self.config)
        pem = self.config.tls.certificate.read_text("ascii")
        first = pem[pem.index("-----BEGIN CERTIFICATE") :]
        self.end_point = end_point(ssl.PEM_cert_to_DER_cert(first[: first.index("-----END") + 25]))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        return asyncio.get_running_loop()

    async def serve(self) -> None:
        """Accept clients until stopped."""
        listeners = self._context.listen()
        self._context.attend(self.loop, drain=self.drain, stop=self.stop, reload=self.reload)
        accepting = [self.spawn(self._accept(listener)) for listener in listeners]
        self.spawn(self._tick())
        self._context.ready()
        await self._ended.wait()
        for task in accepting:
            task.cancel()
        for listener in listeners:
            listener.close()
        for session in list(self._sessions):
            session.dismiss()
        # what was written to the sockets still leaves
        await asyncio.sleep(0.05)
        for task in list(self._tasks):
            task.cancel()
        for catalog in self._catalogs.values():
            if catalog.done() and not catalog.cancelled() and catalog.exception() is None:
                catalog.result().rest()

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run a coroutine for as long as the worker lives."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # what the supervisor says

    def drain(self) -> None:
        """Take no more clients; end idle sessions now, the others when they are done."""
        if self.draining:
            self.stop()
            return
        self.draining = True
        for session in list(self._sessions):
            session.drain()
        if not self._sessions:
            self._ended.set()
        self.loop.call_later(self.config.limits.drain_seconds, self.stop)

    def stop(self) -> None:
        """End everything."""
        self.draining = True
        self._ended.set()

    def reload(self, config: Config) -> None:
        """Go on with another configuration; sessions that are there keep what they began with."""
        self.config = config
        self.desk.point_rows = config.ledger.point_rows
        try:
            self._load_tls()
        except (OSError, ssl.SSLError, ValueError) as problem:
            self.log.failure("certificates not loaded", problem)
        for database, task in self._catalogs.items():
            if task.done() and not task.cancelled() and task.exception() is None:
                allowed = frozenset(config.rewrite.functions)
                task.result().configure(self.config.own_dsn(database), allowed)

    # clients

    async def _accept(self, listener: socket.socket) -> None:
        while not self.draining:
            try:
                connection, peer = await self.loop.sock_accept(listener)
            except OSError as problem:
                # out of file descriptors: clients wait in the kernel's queue
                self.log.failure("cannot accept", problem)
                await asyncio.sleep(0.5)
                continue
            connection.setblocking(False)
            address = "local"
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                address = peer[0]
            session = Session(self, address)
            limits = self.config.limits
            per_address = limits.connections_per_address
            open_now = self._context.board.total(Count.CONNECTIONS_OPEN)
            if open_now >= limits.connections or (
                per_address and self._by_address[address] >= per_address
            ):
                self.counters.add(Count.LOGINS_OVER_LIMIT)
                if self._farewells < _FAREWELLS_AT_ONCE:
                    self.spawn(self._turn_away(connection))
                else:
                    connection.close()
                continue
            self._sessions.add(session)
            self._by_address[address] += 1
            self.counters.add(Count.CONNECTIONS)
            self.counters.add(Count.CONNECTIONS_OPEN)
            self.spawn(session.run(connection))

    async def _turn_away(self, connection: socket.socket) -> None:
        self._farewells += 1
        try:
            response = fatal("53300", "too many connections to the proxy")
            await turn_away(self.loop, connection, response)
        finally:
            self._farewells -= 1

    def admit(self, session: Session) -> bool:
        """Count a session to its role and database, unless the role has too many."""
        limit = self.config.limits.connections_per_role
        if limit and self._by_role[session.role] >= limit:
            session.role = session.database = ""
            self.counters.add(Count.LOGINS_OVER_LIMIT)
            return False
        self._by_role[session.role] += 1
        self._by_database[session.database] += 1
        return True

    def left(self, session: Session) -> None:
        """A session has ended."""
        if session not in self._sessions:
            return
        self._sessions.discard(session)
        self.counters.add(Count.CONNECTIONS_OPEN, -1)
        for counted, key in ((self._by_address, session.address), (self._by_role, session.role)):
            counted[key] -= 1
            if counted[key] <= 0:
                del counted[key]
        if session.database:
            self._by_database[session.database] -= 1
            if not self._by_database[session.database]:
                self._leave(session.database)
        if self.draining and not self._sessions:
            self._ended.set()

    def _leave(self, database: str) -> None:
        """Hold no connection to a database that no client uses: it can be dropped or renamed."""
        task = self._catalogs.get(database)
        if task is not None and task.done() and task.exception() is None:
            task.result().rest()

    async def _tick(self) -> None:
        seconds = 0
        while True:
            await asyncio.sleep(1)
            self.counters.set(Count.SPOOL_PROBLEM, int(self.desk.spool.problem is not None))
            seconds += 1
            if seconds >= self.config.ledger.outcome_seconds:
                seconds = 0
                for session in list(self._sessions):
                    session.tick()

    # the server

    async def catalog(self, database: str) -> Catalog:
        """Return what is known of a database, and now. Raise DatabaseProblem."""
        task = self._catalogs.get(database)
        if task is None or (task.done() and task.exception() is not None):
            task = self.loop.create_task(self._read_catalog(database))
            self._catalogs[database] = task
        try:
            catalog = await asyncio.shield(task)
        except PgbaliseError:
            # a client can think of any number of databases that are not there
            if self._catalogs.get(database) is task:
                del self._catalogs[database]
            raise
        if not catalog.connected:
            await self._read_anew(catalog)
        return catalog

    async def _read_anew(self, catalog: Catalog) -> bool:
        """Read what has changed of a catalog; return whether anything had. Raise PgbaliseError."""
        try:
            changed = await self.loop.run_in_executor(None, catalog.refresh)
        except PgbaliseError as problem:
            self.counters.set(Count.SERVER_PROBLEM, 1)
            self.log.failure("catalog not read", problem, database=catalog.current.database)
            raise
        self.counters.set(Count.SERVER_PROBLEM, 0)
        return changed

    async def _read_catalog(self, database: str) -> Catalog:
        catalog = Catalog(
            self.config.own_dsn(database), database, frozenset(self.config.rewrite.functions)
        )
        await self._read_anew(catalog)
        self.spawn(self._refresh(database, catalog))
        self.spawn(self._watch_decoys(database, catalog))
        return catalog

    async def _watch_decoys(self, database: str, catalog: Catalog) -> None:
        """Know the decoys' identities, new ones within seconds; every hour read all again."""
        seen, due, wait = "", 0.0, _DECOYS_LOOK_SECONDS
        while True:
            if catalog.current.protected and self._by_database[database]:
                try:
                    issued = await self.loop.run_in_executor(None, catalog.decoys_issued)
                    if issued != seen or self.loop.time() >= due:
                        await self._know_decoys(database, catalog)
                        seen, due = issued, self.loop.time() + _DECOYS_SECONDS
                    wait = _DECOYS_LOOK_SECONDS
                except PgbaliseError as problem:
                    self.log.failure("decoys not read", problem, database=database)
                    wait = min(2 * wait, _DECOYS_SECONDS)
            await asyncio.sleep(wait)

    async def _know_decoys(self, database: str, catalog: Catalog) -> None:
        beacons = await self.loop.run_in_executor(None, catalog.beacons)
        if len(beacons):
            self.desk.beacons[database] = beacons
        else:
            self.desk.beacons.pop(database, None)

    async def _refresh(self, database: str, catalog: Catalog) -> None:
        while True:
            await asyncio.sleep(self.config.rewrite.refresh_seconds)
            if not self._by_database[database]:
                continue
            before = catalog.read
            with contextlib.suppress(PgbaliseError):
                if await self._read_anew(catalog):
                    self.log.info("catalog", database=catalog.current.database)
                    now = catalog.read
                    if not now.relations <= before.relations:
                        self._outdate(database, None)
                    elif not now.names <= before.names:
                        # no other role may read by these names
                        self._outdate(database, now.recipients)

    def _outdate(self, database: str, roles: Collection[str] | None) -> None:
        """More leads to what is protected: end sessions that may have prepared to go that way.

        All sessions when ``roles`` is None.
        """
        outdated = [
            one
            for one in self._sessions
            if one.ready and one.database == database and (roles is None or one.role in roles)
        ]
        self.log.info("catalog.outdated", database=database, count=len(outdated))
        for session in outdated:
            session.outdated = True
            session.drain()
            self.loop.call_later(self.config.limits.drain_seconds, session.dismiss)

    async def verifier(self, database: str, role: str) -> Verifier:
        """Return what the server stores of a role's password, or what looks like it."""
        catalog = await self.catalog(database)
        stored = await self.loop.run_in_executor(None, catalog.verifier, role)
        if stored is not None:
            with contextlib.suppress(InvalidInput):
                return Verifier.parse(stored)
        return Verifier.mock(role, self._context.secret)

    async def connect(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Connect to the server, encrypted as configured. Raise EnvironmentProblem."""
        upstream = self.config.upstream
        try:
            async with asyncio.timeout(upstream.connect_seconds):
                return await self._connect(protocol)
        except (OSError, ssl.SSLError, TimeoutError) as problem:
            self.counters.add(Count.UPSTREAM_FAILURES)
            self.counters.set(Count.SERVER_PROBLEM, 1)
            self.log.failure("server not reached", problem, upstream=str(upstream.address))
            raise EnvironmentProblem(
                "the server cannot be reached", hint="see the proxy's log"
            ) from None

    async def _connect(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        upstream = self.config.upstream
        path = upstream.address.socket
        if path is not None:
            transport, _ = await self.loop.create_unix_connection(lambda: protocol, str(path))
            return transport
        connection = await _dial(self.loop, upstream.host, upstream.port)
        try:
            context = self._upstream_tls
            if context is not None:
                await self.loop.sock_sendall(connection, m.SSL_REQUEST_MESSAGE)
                # one byte and no more: what follows belongs to the handshake
                answer = await self.loop.sock_recv(connection, 1)
                if answer != b"S":
                    if upstream.tls is not TlsMode.PREFER or answer != b"N":
                        raise OSError("the server does not offer TLS")
                    context = None
            transport, _ = await self.loop.create_connection(
                lambda: protocol,
                sock=connection,
                ssl=context,
                server_hostname=upstream.host if context is not None else None,
            )
        except BaseException:
            connection.close()
            raise
        return transport

    async def cancel(self, request: Cancel) -> None:
        """Hand a cancel request on: the key that the client has is the server's own."""
        self.counters.add(Count.CANCEL_REQUESTS)
        async with self._cancels:
            ended = asyncio.Event()
            protocol = _Ending(ended)
            transport = await self.connect(protocol)
            transport.write(m.cancel_request(request.process_and_key))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), 5)
            transport.close()


class _Ending(asyncio.Protocol):
    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._ended.set()


async def _dial(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    problem: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        connection = socket.socket(family, kind, protocol)
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, address)
        except OSError as refused:
            connection.close()
            problem = refused
            continue
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection
    raise problem or OSError("the host has no address")


def client_context(config: Config) -> ssl.SSLContext:
    """Return how TLS is spoken with clients; raise OSError for files that cannot be used."""
    assert config.tls is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    versions = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
    context.minimum_version = versions[config.tls.minimum_version]
    context.load_cert_chain(config.tls.certificate, config.tls.key)
    context.set_alpn_protocols([ALPN])
    if config.tls.client_ca is not None:
        context.load_verify_locations(config.tls.client_ca)
        # who has none is told so when the session opens, and not by a broken handshake
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def upstream_context(config: Config) -> ssl.SSLContext | None:
    """Return how TLS is spoken with the server, None for not at all."""
    upstream = config.upstream
    if upstream.tls is TlsMode.DISABLE or upstream.address.socket is not None:
        return None
    context = ssl.create_default_context(cafile=upstream.ca)
    context.set_alpn_protocols([ALPN])
    context.check_hostname = upstream.tls is TlsMode.VERIFY_FULL
    if upstream.tls in {TlsMode.PREFER, TlsMode.REQUIRE}:
        context.verify_mode = ssl.CERT_NONE
    if upstream.certificate is not None:
        context.load_cert_chain(upstream.certificate, upstream.key)
    return context
