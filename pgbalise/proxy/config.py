"""The proxy's configuration: TOML in, one frozen value out; docs/reference/proxy.toml has it all.

It holds no secret: keys and passwords are in files that it names, so it may be shown and kept under
version control. Pure: whether a file exists is the matter of who opens it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeVar

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgbalise.errors import InvalidInput
from pgbalise.session import check_dsn

DEFAULT_PORT: Final = 6432

_MIB: Final = 1024 * 1024
_SOCKET_PATH_BYTES: Final = 107


class TlsMode(StrEnum):
    """How the connection to the server is protected; libpq's names and meanings."""

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class AuthenticationMode(StrEnum):
    """Who checks the client: the server through the proxy, or the proxy in one of two ways."""

    RELAY = "relay"
    SCRAM = "scram"
    CERTIFICATE = "certificate"


class Unenrolled(StrEnum):
    """What becomes of a login by a role that is no recipient."""

    PASS = "pass"  # noqa: S105 - a choice, no password
    REFUSE = "refuse"


class LogFormat(StrEnum):
    """How log lines are written: for machines or for people."""

    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The least of what is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to connect: a host and port, or the folder of a Unix socket and a port."""

    host: str
    """A name or an IP address; a folder when it starts with a slash, as in libpq."""
    port: int

    @property
    def socket(self) -> Path | None:
        """The Unix socket's path, None for TCP."""
        return Path(self.host) / f".s.PGSQL.{self.port}" if self.host.startswith("/") else None

    @property
    def local(self) -> bool:
        """Whether only this machine can come in here."""
        if self.socket is not None or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.socket is not None:
            return f"unix:{self.host}:{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """The PostgreSQL server behind the proxy."""

    host: str
    """A name or an IP address; the folder of a Unix socket when it starts with a slash."""
    port: int
    tls: TlsMode
    ca: Path | None
    """Certificates to trust (PEM); None for the system's."""
    certificate: Path | None
    """The proxy's own certificate (PEM), for a server that asks for one."""
    key: Path | None
    connect_seconds: int

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken with the server, if it can."""
        return self.tls is not TlsMode.DISABLE and self.address.socket is None

    @property
    def address(self) -> Address:
        """Where to connect."""
        return Address(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS towards clients; files are PEM."""

    certificate: Path
    key: Path
    client_ca: Path | None
    required: bool
    """Whether a client that does not ask for TLS is refused; never those of a Unix socket."""
    minimum_version: str
    """``1.2`` or ``1.3``."""


@dataclass(frozen=True, slots=True)
class Authentication:
    """How clients prove who they are."""

    mode: AuthenticationMode


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the proxy takes on. Where 0 is allowed it means: no limit."""

    connections: int
    connections_per_address: int
    connections_per_role: int
    statement_bytes: int
    buffer_bytes: int
    startup_seconds: int
    drain_seconds: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is recorded, and what the spool may take of the disk."""

    point_rows: int
    outcome_seconds: int
    min_free_bytes: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Rewrite:
    """How statements are treated."""

    unenrolled: Unenrolled
    functions: tuple[str, ...]
    refresh_seconds: int


@dataclass(frozen=True, slots=True)
class Tripwires:
    """Whose events of balise.check() are told."""

    databases: tuple[str, ...]
    """Of the server behind the proxy."""


@dataclass(frozen=True, slots=True)
class Log:
    """What is logged, to standard error."""

    level: LogLevel
    format: LogFormat


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, defaults filled in."""

    listen: tuple[Address, ...]
    workers: int
    """Processes that serve clients; 0 for one per processor."""
    metrics: Address | None
    spool: Path
    run: Path
    registry: str | None
    """The registry's connection string, without a password; None keeps records in the spool."""
    user: str
    passfile: Path | None
    """Where the password of ``user`` is; None for libpq's default."""
    upstream: Upstream
    tls: Tls | None
    authentication: Authentication
    limits: Limits
    ledger: Ledger
    rewrite: Rewrite
    watch: Mapping[str, object]
    """The table [watch], for pgbalise.watch."""
    alerts: Mapping[str, object]
    """The table [alerts], for pgbalise.alerts."""
    tripwires: Tripwires
    log: Log

    def own_dsn(self, database: str) -> str:
        """Return how the proxy itself connects to a database, as libpq reads it."""
        upstream = self.upstream
        # libpq's word for what the operating system trusts
        system = "system" if upstream.tls is TlsMode.VERIFY_FULL else None
        parameters: dict[str, object] = {
            "host": upstream.host,
            "port": upstream.port,
            "user": self.user,
            "dbname": database,
            "sslmode": str(upstream.tls),
            "connect_timeout": upstream.connect_seconds,
            "passfile": self.passfile,
            "sslrootcert": upstream.ca or system,
            "sslcert": upstream.certificate,
            "sslkey": upstream.key,
        }
        given = {name: str(value) for name, value in parameters.items() if value is not None}
        return make_conninfo("", **given)

    def reloaded(self, new: Config) -> Config:
        """Return ``new`` with what takes a restart left as it is here."""
        return replace(
            new,
            listen=self.listen,
            workers=self.workers,
            metrics=self.metrics,
            spool=self.spool,
            run=self.run,
            registry=self.registry,
            ledger=replace(
                new.ledger,
                min_free_bytes=self.ledger.min_free_bytes,
                max_bytes=self.ledger.max_bytes,
            ),
        )

    def reloadable(self, new: Config) -> tuple[str, ...]:
        """Return the keys by which ``new`` differs and that take a restart; empty: none does."""
        kept = self.reloaded(new)
        keys = ("listen", "workers", "metrics", "spool", "run", "registry")
        own = [key for key in keys if getattr(kept, key) != getattr(new, key)]
        ledger = [
            f"ledger.{key}"
            for key in ("min_free_bytes", "max_bytes")
            if getattr(kept.ledger, key) != getattr(new.ledger, key)
        ]
        return (*own, *ledger)

    def warnings(self) -> tuple[str, ...]:
        """Return what is allowed and still unwise, one sentence each."""
        found = []
        if not (self.tls and self.tls.required):
            found += [
                f"listen: {address} can be reached from other machines and does not ask for TLS"
                for address in self.listen
                if not address.local
            ]
        relays = self.authentication.mode is AuthenticationMode.RELAY
        if relays and self.tls is not None and self.upstream.encrypted:
            found.append(
                "authentication.mode: with TLS on both sides, relay lets SCRAM roles in only with"
                " channel_binding=disable; scram has no such limit"
            )
        if relays and self.upstream.certificate is not None:
            found.append(
                "upstream.certificate: with relay, a cert line in pg_hba.conf would take the"
                " proxy's certificate for every client's"
            )
        if self.metrics is not None and not self.metrics.local:
            found.append(f"metrics: {self.metrics} can be reached from other machines")
        if not self.upstream.address.local and self.upstream.tls in {
            TlsMode.DISABLE,
            TlsMode.PREFER,
            TlsMode.REQUIRE,
        }:
            found.append(
                f"upstream.tls: with {self.upstream.tls} anyone in between can pass for the server"
            )
        return tuple(found)


def parse_config(text: str) -> Config:
    """Read a configuration; raise InvalidInput that names the key and says what to write."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise InvalidInput(f"the configuration is no TOML: {problem}") from None
    top = _Table("", document)
    upstream = _upstream(top.table("upstream"))
    tls = _tls(top.table("tls"))
    chosen = top.table("authentication")
    limits = top.table("limits")
    ledger = top.table("ledger")
    rewrite = top.table("rewrite")
    log = top.table("log")
    tripwires = top.table("tripwires")
    config = Config(
        listen=_listen(top),
        workers=top.integer("workers", 0, 0, 1024),
        metrics=top.address("metrics", tcp_only=True),
        spool=top.path("spool") or Path("/var/lib/pgbalise/spool"),
        run=top.path("run") or Path("/run/pgbalise"),
        registry=_registry(top),
        user=top.text("user", "pgbalise_proxy"),
        passfile=top.path("passfile"),
        upstream=upstream,
        tls=tls,
        authentication=Authentication(chosen.choice("mode", AuthenticationMode.RELAY)),
        limits=Limits(
            connections=limits.integer("connections", 1000, 1),
            connections_per_address=limits.integer("connections_per_address", 0),
            connections_per_role=limits.integer("connections_per_role", 0),
            # PostgreSQL itself takes no message above 1 GiB.
            statement_bytes=limits.integer("statement_bytes", _MIB, 1024, 1024 * _MIB - 1),
            buffer_bytes=limits.integer("buffer_bytes", 4 * _MIB, 8192, 1024 * _MIB),
            startup_seconds=limits.integer("startup_seconds", 15, 1),
            drain_seconds=limits.integer("drain_seconds", 30),
        ),
        ledger=Ledger(
            point_rows=ledger.integer("point_rows", 100, 1),
            outcome_seconds=ledger.integer("outcome_seconds", 60, 1),
            min_free_bytes=ledger.integer("min_free_bytes", 256 * _MIB),
            max_bytes=ledger.integer("max_bytes", 8192 * _MIB, _MIB),
        ),
        rewrite=Rewrite(
            unenrolled=rewrite.choice("unenrolled", Unenrolled.PASS),
            functions=rewrite.texts("functions"),
            refresh_seconds=rewrite.integer("refresh_seconds", 5, 1),
        ),
        watch=top.table("watch").body,
        alerts=top.table("alerts").body,
        tripwires=Tripwires(tripwires.texts("databases")),
        log=Log(
            level=log.choice("level", LogLevel.INFO),
            format=log.choice("format", LogFormat.JSON),
        ),
    )
    for table in (top, chosen, limits, ledger, rewrite, log, tripwires):
        table.refuse_unknown()
    if config.authentication.mode is AuthenticationMode.CERTIFICATE and (
        tls is None or tls.client_ca is None or not tls.required
    ):
        raise InvalidInput(
            "authentication.mode: clients can show a certificate only over TLS",
            hint="write tls.certificate, tls.key and tls.client_ca, and leave tls.required true",
        )
    return config


_Choice = TypeVar("_Choice", bound=StrEnum)


class _Table:
    """One table of the document; remembers which keys were asked for."""

    def __init__(self, path: str, body: Mapping[str, object]) -> None:
        self._where = path
        self.body = body
        self._known: list[str] = []

    def name(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def get(self, key: str) -> object:
        self._known.append(key)
        return self.body.get(key)

    def wrong(self, key: str, must: str, example: object = None) -> InvalidInput:
        hint = None if example is None else f"write {self.name(key)} = {_toml(example)}"
        return InvalidInput(f"{self.name(key)}: must be {must}", hint=hint)

    def table(self, key: str) -> _Table:
        value = self.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise InvalidInput(
                f"{self.name(key)}: must be a table", hint=f"write [{self.name(key)}] above it"
            )
        return _Table(self.name(key), value)

    def text(self, key: str, default: str) -> str:
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value or "\0" in value:
            raise self.wrong(key, "a text", default)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            raise self.wrong(key, "a list of texts", ["one", "another"])
        return tuple(value)

    def integer(self, key: str, default: int, low: int = 0, high: int = 2**62) -> int:
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            limit = f"from {low}" + ("" if high == 2**62 else f" to {high}")
            raise self.wrong(key, f"a whole number {limit}", default)
        return value

    def flag(self, key: str) -> bool | None:
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def choice(self, key: str, default: _Choice) -> _Choice:
        value = self.get(key)
        if value is None:
            return default
        kind = type(default)
        if not isinstance(value, str) or value not in {str(member) for member in kind}:
            raise self.wrong(key, "one of " + ", ".join(_toml(str(member)) for member in kind))
        return kind(value)

    def path(self, key: str) -> Path | None:
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
            raise self.wrong(key, "an absolute path", f"/etc/pgbalise/{key}")
        return Path(value)

    def address(self, key: str, *, tcp_only: bool = False) -> Address | None:
        value = self.get(key)
        return None if value is None else self.one_address(key, value, tcp_only=tcp_only)

    def one_address(self, key: str, value: object, *, tcp_only: bool = False) -> Address:
        forms = "host:port or [::1]:port" + ("" if tcp_only else " or unix:/folder")
        match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
        if not match or (tcp_only and match["folder"]):
            hint = (
                "write 0.0.0.0 or [::] for every address" if str(value).startswith("*:") else None
            )
            raise InvalidInput(f"{self.name(key)}: must be {forms}", hint=hint)
        port = int(match["six_port"] or match["port"] or match["folder_port"] or DEFAULT_PORT)
        if not 1 <= port <= 65535:
            raise InvalidInput(f"{self.name(key)}: a port is from 1 to 65535")
        address = Address(match["six"] or match["host"] or match["folder"], port)
        self.check_socket(key, address)
        return address

    def check_socket(self, key: str, address: Address) -> None:
        if address.socket and len(str(address.socket).encode()) > _SOCKET_PATH_BYTES:
            raise InvalidInput(
                f"{self.name(key)}: a Unix socket's path has at most {_SOCKET_PATH_BYTES} bytes"
            )

    def refuse_unknown(self) -> None:
        for key in self.body:
            if key in self._known:
                continue
            if re.search("passw|secret", key, re.IGNORECASE):
                hint = "no secret is written here: name a file that holds it (passfile)"
            elif close := difflib.get_close_matches(key, self._known, 1):
                hint = f"is it {self.name(close[0])}?"
            else:
                hint = f"known are {', '.join(sorted(self._known))}"
            raise InvalidInput(f"{self.name(key)}: there is no such key", hint=hint)


_ADDRESS = re.compile(
    r"\[(?P<six>[0-9A-Fa-f:.]+)\]:(?P<six_port>[0-9]{1,6})"
    r"|(?P<host>[\w.-]+):(?P<port>[0-9]{1,6})"
    r"|unix:(?P<folder>/[^:\0]*?)/?(?::(?P<folder_port>[0-9]{1,6}))?",
    re.ASCII,
)


def _toml(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _listen(top: _Table) -> tuple[Address, ...]:
    values = top.get("listen")
    if values is None:
        return (Address("127.0.0.1", DEFAULT_PORT),)
    if not isinstance(values, list) or not values:
        raise top.wrong("listen", "a list of addresses", [f"127.0.0.1:{DEFAULT_PORT}"])
    found = tuple(top.one_address("listen", value) for value in values)
    for address in found:
        if found.count(address) > 1:
            raise InvalidInput(f"listen: {address} stands there twice")
    return found


def parse_listen(values: list[str]) -> tuple[Address, ...]:
    """Read addresses as ``listen`` has them; raise InvalidInput."""
    return _listen(_Table("", {"listen": values}))


def _registry(top: _Table) -> str | None:
    dsn = top.text("registry", "")
    if not dsn:
        return None
    try:
        check_dsn(dsn)
    except InvalidInput as problem:
        raise InvalidInput(f"registry: {problem.message}", hint=problem.hint) from None
    if conninfo_to_dict(dsn).keys() & {"password", "sslpassword"}:
        raise InvalidInput(
            "registry: a password does not belong into the configuration",
            hint="put it into a password file and add passfile=/path to the connection string",
        )
    return dsn


def _upstream(table: _Table) -> Upstream:
    host = table.text("host", "/var/run/postgresql")
    address = Address(host, table.integer("port", 5432, 1, 65535))
    table.check_socket("host", address)
    tls = table.choice("tls", TlsMode.DISABLE if address.socket else TlsMode.VERIFY_FULL)
    upstream = Upstream(
        host=address.host,
        port=address.port,
        tls=tls,
        ca=table.path("ca"),
        certificate=table.path("certificate"),
        key=table.path("key"),
        connect_seconds=table.integer("connect_seconds", 10, 1),
    )
    table.refuse_unknown()
    if address.socket and tls is not TlsMode.DISABLE:
        raise InvalidInput(
            "upstream.tls: PostgreSQL has no TLS on a Unix socket",
            hint="leave upstream.tls out, or write a host name as upstream.host",
        )
    _check_pair(table, upstream.certificate, upstream.key)
    if upstream.certificate and tls is TlsMode.DISABLE:
        raise InvalidInput(
            "upstream.certificate: without TLS it is never shown", hint="leave it out"
        )
    if upstream.ca and tls not in {TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL}:
        raise InvalidInput(
            f'upstream.ca: with tls = "{tls}" the server\'s certificate is not verified',
            hint='write upstream.tls = "verify-full" or leave upstream.ca out',
        )
    return upstream


def _tls(table: _Table) -> Tls | None:
    certificate, key, client_ca = (
        table.path("certificate"),
        table.path("key"),
        table.path("client_ca"),
    )
    required, version = table.flag("required"), table.text("minimum_version", "1.2")
    table.refuse_unknown()
    if version not in {"1.2", "1.3"}:
        raise table.wrong("minimum_version", 'one of "1.2", "1.3"')
    _check_pair(table, certificate, key)
    if certificate is None or key is None:
        if table.body:
            raise InvalidInput(
                f"tls.{next(iter(table.body))}: there is no TLS without a certificate",
                hint="write tls.certificate and tls.key",
            )
        return None
    return Tls(certificate, key, client_ca, required is not False, version)


def _check_pair(table: _Table, certificate: Path | None, key: Path | None) -> None:
    if (certificate is None) != (key is None):
        missing, there = ("key", "certificate") if key is None else ("certificate", "key")
        raise InvalidInput(
            f"{table.name(there)}: it needs a {missing}",
            hint=f'write {table.name(missing)} = "/etc/pgbalise/{missing}.pem"',
        )
