"""The region's registry over HTTP, and how it is served."""

from __future__ import annotations

import ipaddress
import math
import os
import signal
import socket
import ssl
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path as FilePath
from time import monotonic
from typing import Annotated, Any, Final

import sqlalchemy as sa
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgbalise.errors import EnvironmentProblem, InvalidInput, PgbaliseError
from pgbalise.exchange import protocol, store
from pgbalise.exchange.limits import Buckets, Limit, Limits
from pgbalise.exchange.messages import (
    Hits,
    Moment,
    OwnBeacons,
    Problem,
    Publication,
    Published,
    Range,
    Report,
    Status,
    Told,
)
from pgbalise.registry.store import engine_of, problems

LARGEST_BODY: Final = 1 << 20
"""Bytes of a request's body, at most."""

_CONNECTIONS: Final = 8
_STRANGER: Final = "a valid token is needed"
_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}
_PROBLEM: Final = "application/problem+json"
_LARGEST_NUMBER: Final = 2**63 - 1


class _Refused(Exception):
    """A call is not answered; ``detail`` says why, without what was sent."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


@dataclass
class _Exchange:
    """What the calls share; the clocks are given by whoever makes the application."""

    engine: sa.Engine
    limits: Limits
    now: Callable[[], datetime]
    ticks: Callable[[], float]
    reader: sa.Engine = field(init=False)
    _buckets: dict[str, Buckets] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # a statement that reads is its own transaction: two round trips less for each
        self.reader = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        for one in fields(self.limits):
            limit = getattr(self.limits, one.name)
            if isinstance(limit, Limit):
                self._buckets[one.name] = Buckets(limit)

    @contextmanager
    def call(
        self, credentials: HTTPAuthorizationCredentials | None, limit: str
    ) -> Iterator[tuple[sa.Connection, store.Member]]:
        """Connect, find out who calls and count the call; or refuse it."""
        engine = self.reader if limit in ("lookups", "reads") else self.engine
        with problems(), engine.connect() as registry:
            token = credentials.credentials if credentials is not None else ""
            member = store.member_of(registry, token)
            if member is None:
                raise _Refused(401, _STRANGER, _CHALLENGE)
            with self._lock:
                wait = self._buckets[limit].take(str(member.member_id), self.ticks())
            if wait:
                seconds = {"Retry-After": str(math.ceil(wait))}
                raise _Refused(429, "too many calls of this kind", seconds)
            yield registry, member


_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="The establishment's token, as pgbalise exchange member add gave it.",
)
_Token = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]

_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": Problem, "description": "No valid token"},
    422: {"model": Problem, "description": "Not as it must be; nothing was done"},
    429: {"model": Problem, "description": "Too many calls: Retry-After says when"},
    503: {"model": Problem, "description": "The store cannot be reached: try again"},
}
_router = APIRouter(prefix="/v1", responses=_REFUSALS)


def _shared(request: Request) -> _Exchange:
    found = request.app.state.exchange
    assert isinstance(found, _Exchange)
    return found


@_router.get("/status")
def get_status(request: Request, token: _Token) -> Status:
    """Say who the caller is, and what it needs to hash and to ask."""
    exchange = _shared(request)
    with exchange.call(token, "reads") as (registry, member):
        here = store.region(registry)
        _, count = store.own_beacons(registry, member, "", exchange.now())
        return Status(
            version=protocol.VERSION,
            region=here.name,
            member=member.name,
            salt=here.salt.hex(),
            bits=here.bits,
            answer=protocol.ANSWER,
            beacons=count,
        )


@_router.post(
    "/beacons",
    responses={
        409: {"model": Problem, "description": "More beacons than a member may have"},
        413: {"model": Problem, "description": "The body is too large"},
    },
)
def post_beacons(request: Request, token: _Token, body: Publication) -> Published:
    """Withdraw own beacons, then publish some or replace them: all or nothing."""
    exchange = _shared(request)
    with exchange.call(token, "changes") as (registry, member):
        try:
            published, withdrawn = store.publish(
                registry,
                member,
                body.publish,
                body.withdraw,
                exchange.now(),
                most=exchange.limits.beacons,
            )
        except store.TooMany as problem:
            raise _Refused(409, problem.message) from None
        return Published(published=published, withdrawn=withdrawn)


@_router.get("/beacons")
def get_beacons(
    request: Request,
    token: _Token,
    after: Annotated[
        str, Query(pattern="^([0-9a-f]{32})?$", description="A reference: what follows it.")
    ] = "",
) -> OwnBeacons:
    """List one's own beacons in force, 1,000 at a time."""
    exchange = _shared(request)
    with exchange.call(token, "reads") as (registry, member):
        beacons, count = store.own_beacons(registry, member, after, exchange.now())
        return OwnBeacons(beacons=beacons, count=count)


@_router.get(
    "/range/{prefix}",
    responses={409: {"model": Problem, "description": "Prefixes have another length now"}},
    response_model=Range,
)
def get_range(
    request: Request,
    token: _Token,
    prefix: Annotated[
        str,
        Path(
            pattern=f"^[01]{{{protocol.LEAST_BITS},{protocol.MOST_BITS}}}$",
            description="As many bits of a digest as the status says, in digits 0 and 1.",
        ),
    ],
) -> Response:
    """Return all beacons whose digests begin with a prefix, among padding.

    The answers to all prefixes are of one size, and the same prefix has the same padding.
    """
    exchange = _shared(request)
    with exchange.call(token, "lookups") as (registry, _):
        here = store.region(registry)
        if len(prefix) != here.bits:
            raise _Refused(409, f"prefixes have {here.bits} bits now: read the status")
        entries = store.range_entries(registry, here, prefix, exchange.now())
    return JSONResponse(
        {"prefix": prefix, "entries": [b64encode(entry).decode() for entry in entries]}
    )


@_router.post(
    "/hits",
    status_code=201,
    responses={
        404: {"model": Problem, "description": "Nobody's decoy"},
        413: {"model": Problem, "description": "The body is too large"},
    },
)
def post_hit(request: Request, token: _Token, body: Report) -> Told:
    """Tell whoever owns a decoy where it was met. Telling it again changes nothing."""
    exchange = _shared(request)
    with exchange.call(token, "reports") as (registry, member):
        owners = store.record_hit(registry, member, body, exchange.now())
        if not owners:
            raise _Refused(404, "this is nobody's decoy, or not any more")
        return Told(owners=owners)


@_router.get("/hits")
def get_hits(
    request: Request,
    token: _Token,
    after: Annotated[
        int, Query(ge=0, le=_LARGEST_NUMBER, description="A hit's number: what follows it.")
    ] = 0,
    since: Annotated[Moment | None, Query(description="Recorded then or later.")] = None,
) -> Hits:
    """List where one's own decoys were met, 1,000 at a time."""
    exchange = _shared(request)
    with exchange.call(token, "reads") as (registry, member):
        return Hits(hits=store.own_hits(registry, member, after, since))


def application(
    engine: sa.Engine,
    limits: Limits | None = None,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ticks: Callable[[], float] = monotonic,
) -> ASGIApp:
    """Return the ASGI application over a registry whose region is open.

    ``now`` gives the time that is recorded and that beacons expire by, ``ticks`` the seconds that
    limits count by. It must run in one process: limits are kept in memory.
    """
    app = described()
    app.state.exchange = _Exchange(engine, limits or Limits(), now, ticks)
    return _Guard(app)


def described() -> FastAPI:
    """Return the application without what it needs to answer; its OpenAPI is complete."""
    app = FastAPI(
        title="pgbalise exchange",
        version=f"{protocol.VERSION}",
        # the pages would load scripts from elsewhere, and say to anybody what runs here
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(_router)
    app.add_exception_handler(_Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(PgbaliseError, _failed)
    return app


def _problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(body.model_dump(), status, dict(headers or {}), _PROBLEM)


def _refused(_: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, _Refused)
    return _problem(problem.status, problem.detail, problem.headers)


def _invalid(_: Request, problem: Exception) -> JSONResponse:
    """What was sent might be a patient's: only where it stands is told."""
    assert isinstance(problem, RequestValidationError)
    first = problem.errors()[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        place[-1] = "(a member that is not known)"
    return _problem(422, f"{'.'.join(place)}: {first['type'].replace('_', ' ')}")


def _http(_: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, HTTPException)
    return _problem(problem.status_code, str(problem.detail), problem.headers)


def _failed(_: Request, problem: Exception) -> JSONResponse:
    _log(type(problem).__name__)
    return _problem(503, "the exchange cannot answer now", {"Retry-After": "30"})


def _log(what: str) -> None:
    print(f"pgbalise exchange: a call failed: {what}", file=sys.stderr, flush=True)  # noqa: T201 - its log


class _TooLarge(HTTPException):
    """A body is larger than the largest, or goes on beyond it."""

    def __init__(self) -> None:
        # what follows of the body is not read
        headers = {"Connection": "close"}
        super().__init__(413, f"a body has at most {LARGEST_BODY} bytes", headers)


@dataclass
class _Guard:
    """Around the application: strangers stay out, bodies are bounded, no traceback leaves."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > LARGEST_BODY:
                raise _TooLarge
            return message

        async def told(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [
                    *message["headers"],
                    (b"cache-control", b"no-store"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        headers = scope["headers"]
        tokens = [value for name, value in headers if name == b"authorization"]
        scheme, _, token = tokens[0].decode("latin-1").partition(" ") if tokens else ("", "", "")
        if scheme.lower() != "bearer" or protocol.token_digest(token) is None:
            # what has not the form of a token costs no look into the store
            await _problem(401, _STRANGER, _CHALLENGE)(scope, receive, told)
            return
        lengths = [value for name, value in headers if name == b"content-length"]
        try:
            if any(not value.isdigit() or int(value[:20]) > LARGEST_BODY for value in lengths):
                raise _TooLarge
            await self.app(scope, bounded, told)
        except _TooLarge as problem:
            large = _problem(413, problem.detail, problem.headers)
            await large(scope, receive, told)
        except Exception as problem:  # noqa: BLE001 - its message might hold what was sent
            _log(type(problem).__name__)
            if not begun:
                await _problem(500, "internal error")(scope, receive, told)


@dataclass(frozen=True)
class Listen:
    """Where to listen, and with which certificate."""

    host: str
    port: int
    certificate: FilePath | None = None
    key: FilePath | None = None
    without_tls: bool = False
    """Whether it may be spoken to without TLS from other machines."""


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT, [V6]:PORT or PORT; raise InvalidInput."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isascii() or not port.isdigit() or int(port[:6]) > 65535:
        raise InvalidInput("--listen: must be HOST:PORT", hint="127.0.0.1:8711")
    return host, int(port)


def check_listen(listen: Listen) -> None:
    """Raise InvalidInput when tokens would cross a network in the clear."""
    if (listen.certificate is None) != (listen.key is None):
        raise InvalidInput("give both --tls-cert and --tls-key, or neither")
    if listen.certificate is None and not listen.without_tls and not _local(listen.host):
        raise InvalidInput(
            "without TLS the exchange listens on this machine only",
            hint="give --tls-cert and --tls-key, or --without-tls behind a reverse proxy",
        )


def _local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Server(uvicorn.Server):
    """Stops in order when told to: uvicorn's own would end by the signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self.handle_exit)
        yield


def prepared(app: ASGIApp, listen: Listen) -> tuple[uvicorn.Server, socket.socket]:
    """Return a server and the socket it will listen on, ``server.run(sockets=[socket])``.

    Raise InvalidInput as ``check_listen`` does, EnvironmentProblem when the address or the
    certificate cannot be used.
    """
    check_listen(listen)
    configuration = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        # a reverse proxy on this machine says whom it speaks for
        proxy_headers=_local(listen.host),
        ssl_certfile=listen.certificate,
        ssl_keyfile=listen.key,
        timeout_graceful_shutdown=10,
    )
    try:
        configuration.load()
    except ssl.SSLError:
        raise EnvironmentProblem(
            "the certificate or its key: not PEM, or not of each other"
        ) from None
    except OSError as problem:
        raise EnvironmentProblem(
            f"the certificate or its key: {problem.strerror or 'unusable'}"
        ) from None
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        opened = socket.create_server((listen.host, listen.port), family=family, backlog=256)
    except OSError as problem:
        raise EnvironmentProblem(
            # Python's own words repeat the address
            f"cannot listen on {listen.host}, port {listen.port}:"
            f" {os.strerror(problem.errno) if problem.errno else problem.strerror}"
        ) from None
    return _Server(configuration), opened


def serve(dsn: str, listen: Listen, limits: Limits, ready: Callable[[str], None]) -> None:
    """Serve the region that a registry keeps, until told to stop.

    ``ready`` is given the address once it listens. Raise what ``prepared`` and ``region`` do.
    """
    check_listen(listen)
    engine = engine_of(dsn, _CONNECTIONS)
    try:
        with problems(), engine.connect() as registry:
            store.region(registry)
        server, opened = prepared(application(engine, limits), listen)
        with opened:
            scheme = "https" if listen.certificate is not None else "http"
            host = f"[{listen.host}]" if ":" in listen.host else listen.host
            ready(f"{scheme}://{host}:{opened.getsockname()[1]}")
            server.run(sockets=[opened])
    finally:
        engine.dispose()


def describe() -> dict[str, Any]:
    """Return the API's description, OpenAPI 3.1."""
    return described().openapi()
