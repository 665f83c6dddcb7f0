"""What the proxy counts, in memory that all its processes share, and the page that shows it.

Each process has a row of its own and is the only one to write there, so no lock is needed; who
reads adds the rows up. A process that takes the place of another goes on with its totals.
"""

from __future__ import annotations

import mmap
import threading
import time
from dataclasses import dataclass
from enum import IntEnum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from socketserver import TCPServer
from typing import TYPE_CHECKING, Final

import pgbalise

if TYPE_CHECKING:
    from pgbalise.proxy.config import Address

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

REGISTRY_BEHIND_SECONDS: Final = 300
"""The oldest undelivered record may be this old before /health says so."""

_SILENT_SECONDS: Final = 15
_CLIENT_SECONDS: Final = 5


class Name(IntEnum):
    """What is counted: the first argument of ``Counters.add`` and ``Counters.set``."""

    CONNECTIONS = 0
    CONNECTIONS_OPEN = auto()
    LOGINS_FAILED = auto()
    LOGINS_OVER_LIMIT = auto()
    UPSTREAM_FAILURES = auto()
    CANCEL_REQUESTS = auto()
    STATEMENTS_SELECT = auto()
    STATEMENTS_COPY = auto()
    STATEMENTS_CURSOR = auto()
    STATEMENTS_WRITE = auto()
    STATEMENTS_UNPROTECTED = auto()
    STATEMENTS_REFUSED = auto()
    EXTRACTS = auto()
    ROWS = auto()
    BYTES_TO_CLIENT = auto()
    BYTES_TO_SERVER = auto()
    ANALYSES = auto()
    ANALYSIS_CACHE_HITS = auto()
    SESSIONS_WAITING = auto()
    INTENT_WAIT_NANOSECONDS = auto()
    SPOOL_PROBLEM = auto()
    SERVER_PROBLEM = auto()
    SPOOL_BYTES_WAITING = auto()
    RECORDS_DELIVERED = auto()
    RECORDS_SET_ASIDE = auto()
    OLDEST_UNDELIVERED_SECONDS = auto()
    ALERTS = auto()
    ALERTS_WAITING = auto()
    WORKERS_WANTED = auto()
    WORKERS_RUNNING = auto()
    PROCESSES_RESTARTED = auto()
    RELOADS = auto()
    RELOADS_FAILED = auto()
    STOPPING = auto()
    HEARTBEAT = auto()


@dataclass(frozen=True, slots=True)
class Metric:
    """How a number is shown: the metric's name without prefix, its help, its one label."""

    name: str
    help: str
    label: tuple[str, str] | None = None
    per_second: bool = False
    """Counted in nanoseconds, shown in seconds."""

    @property
    def gauge(self) -> bool:
        """Whether it goes up and down; a counter's name ends in ``_total``."""
        return not self.name.endswith("_total")


_STATEMENTS: Final = "Statements forwarded, by what they do with protected relations."
METRICS: Final[dict[Name, Metric]] = {
    Name.CONNECTIONS: Metric("connections_total", "Connections accepted."),
    Name.CONNECTIONS_OPEN: Metric("connections_open", "Connections open now."),
    Name.LOGINS_FAILED: Metric("logins_failed_total", "Logins refused by proxy or server."),
    Name.LOGINS_OVER_LIMIT: Metric("logins_over_limit_total", "Logins refused by a limit."),
    Name.UPSTREAM_FAILURES: Metric(
        "upstream_failures_total", "Connections to the server that failed or broke."
    ),
    Name.CANCEL_REQUESTS: Metric("cancel_requests_total", "Cancel requests forwarded."),
    Name.STATEMENTS_SELECT: Metric("statements_total", _STATEMENTS, ("kind", "select")),
    Name.STATEMENTS_COPY: Metric("statements_total", _STATEMENTS, ("kind", "copy")),
    Name.STATEMENTS_CURSOR: Metric("statements_total", _STATEMENTS, ("kind", "cursor")),
    Name.STATEMENTS_WRITE: Metric("statements_total", _STATEMENTS, ("kind", "write")),
    Name.STATEMENTS_UNPROTECTED: Metric("statements_total", _STATEMENTS, ("kind", "unprotected")),
    Name.STATEMENTS_REFUSED: Metric("statements_refused_total", "Statements refused."),
    Name.EXTRACTS: Metric("extracts_total", "Extracts begun: intents recorded."),
    Name.ROWS: Metric("rows_total", "Rows of extracts sent to clients."),
    Name.BYTES_TO_CLIENT: Metric("bytes_to_client_total", "Bytes sent to clients."),
    Name.BYTES_TO_SERVER: Metric("bytes_to_server_total", "Bytes sent to the server."),
    Name.ANALYSES: Metric("analyses_total", "Statements parsed."),
    Name.ANALYSIS_CACHE_HITS: Metric(
        "analysis_cache_hits_total", "Statements known from an earlier analysis."
    ),
    Name.SESSIONS_WAITING: Metric("sessions_waiting", "Sessions whose rows wait for the disk."),
    Name.INTENT_WAIT_NANOSECONDS: Metric(
        "intent_wait_seconds_total", "Time that rows waited for the disk.", per_second=True
    ),
    Name.SPOOL_PROBLEM: Metric("spool_problem", "Processes that cannot write to the spool."),
    Name.SERVER_PROBLEM: Metric(
        "server_problem", "Processes that could not reach the server or read a catalog last time."
    ),
    Name.SPOOL_BYTES_WAITING: Metric("spool_bytes_waiting", "Bytes not yet delivered."),
    Name.RECORDS_DELIVERED: Metric("records_delivered_total", "Records in the registry."),
    Name.RECORDS_SET_ASIDE: Metric("records_set_aside_total", "Damaged records set aside."),
    Name.OLDEST_UNDELIVERED_SECONDS: Metric(
        "oldest_undelivered_seconds", "Age of the oldest record not yet in the registry."
    ),
    Name.ALERTS: Metric("alerts_total", "Alerts raised."),
    Name.ALERTS_WAITING: Metric("alerts_waiting", "Alerts not yet delivered everywhere."),
    Name.WORKERS_WANTED: Metric("workers_wanted", "Workers that should run."),
    Name.WORKERS_RUNNING: Metric("workers_running", "Workers that accept connections."),
    Name.PROCESSES_RESTARTED: Metric(
        "processes_restarted_total", "Processes started anew after they had died."
    ),
    Name.RELOADS: Metric("reloads_total", "Configurations taken without a restart."),
    Name.RELOADS_FAILED: Metric("reloads_failed_total", "Configurations not taken."),
    Name.STOPPING: Metric("stopping", "1 while sessions are given time to end."),
}
"""What the page shows; HEARTBEAT is for /health only."""

_GAUGES: Final = tuple(name for name in Name if name not in METRICS or METRICS[name].gauge)
_WIDTH: Final = len(Name)


class Counters:
    """One process's row: 64-bit integers, written by it alone."""

    __slots__ = ("_row",)

    def __init__(self, row: memoryview) -> None:
        self._row = row

    def add(self, name: Name, amount: int = 1) -> None:
        """Add to a number; a gauge takes negative amounts too."""
        self._row[name] += amount

    def set(self, name: Name, value: int) -> None:
        """Set a gauge."""
        self._row[name] = value

    def value(self, name: Name) -> int:
        """Return this process's own number."""
        return int(self._row[name])

    def heartbeat(self) -> None:
        """Say that this process's event loop turns; a second apart or less once begun."""
        self._row[Name.HEARTBEAT] = int(time.monotonic())


class Board:
    """The rows of all processes; made before the first fork, so that all share it."""

    def __init__(self, rows: int) -> None:
        self._memory = memoryview(mmap.mmap(-1, rows * _WIDTH * 8)).cast("q")
        self._rows = rows

    def row(self, number: int) -> Counters:
        """Return the counters of the process with that number."""
        return Counters(self._memory[number * _WIDTH : (number + 1) * _WIDTH])

    def clear_gauges(self, number: int) -> None:
        """Forget what a process said about the present; its totals stay."""
        for name in _GAUGES:
            self._memory[number * _WIDTH + name] = 0

    def total(self, name: Name) -> int:
        """Return the sum over all processes."""
        return sum(self._memory[name::_WIDTH])

    def largest(self, name: Name) -> int:
        """Return the largest number of any process."""
        return max(self._memory[name::_WIDTH])

    def page(self) -> str:
        """Return all metrics in Prometheus's text format 0.0.4."""
        lines: list[str] = []
        described: set[str] = set()
        for name, metric in METRICS.items():
            full = f"pgbalise_{metric.name}"
            if full not in described:
                described.add(full)
                kind = "gauge" if metric.gauge else "counter"
                lines += [f"# HELP {full} {metric.help}", f"# TYPE {full} {kind}"]
            label = '{{{}="{}"}}'.format(*metric.label) if metric.label else ""
            total = self.total(name)
            lines.append(f"{full}{label} {total / 1e9 if metric.per_second else total}")
        lines += [
            "# HELP pgbalise_build_info The version that runs.",
            "# TYPE pgbalise_build_info gauge",
            f'pgbalise_build_info{{version="{pgbalise.__version__}"}} 1',
        ]
        return "\n".join(lines) + "\n"

    def complaints(self, now: float) -> list[str]:
        """Return why the proxy is not well, empty when it is; ``now`` is monotonic, in seconds."""
        found = []
        if self.total(Name.STOPPING):
            found.append("stopping: no new connections are taken")
        running, wanted = self.total(Name.WORKERS_RUNNING), self.total(Name.WORKERS_WANTED)
        if running == 0:
            found.append("no worker runs")
        elif running < wanted:
            found.append(f"{wanted - running} of {wanted} workers do not run")
        for row in range(self._rows):
            beat = self._memory[row * _WIDTH + Name.HEARTBEAT]
            if beat and now - beat > _SILENT_SECONDS:
                found.append(f"a worker has not moved for {int(now - beat)} s")
        if self.total(Name.SPOOL_PROBLEM):
            found.append("the spool cannot be written: protected data is refused")
        if self.total(Name.SERVER_PROBLEM):
            found.append("the server cannot be reached, or its catalog cannot be read: see the log")
        age = self.largest(Name.OLDEST_UNDELIVERED_SECONDS)
        if age > REGISTRY_BEHIND_SECONDS:
            found.append(f"the registry is {age} s behind")
        return found


class MetricsServer:
    """Serves ``/metrics`` and ``/health`` over HTTP from a thread, until ``close()``."""

    def __init__(self, address: Address, board: Board) -> None:
        self._server = _Server(address, board)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics")
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: Address, board: Board) -> None:
        self.address_family = AF_INET6 if ":" in address.host else AF_INET
        self.board = board
        super().__init__((address.host, address.port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the resolver for this machine's name, which may take long.
        TCPServer.server_bind(self)

    def handle_error(self, *_: object) -> None:
        """Say nothing: a scraper that went away is no event."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _CLIENT_SECONDS
    server_version = "pgbalise"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._answer(200, CONTENT_TYPE, self.server.board.page())
        elif self.path == "/health":
            complaints = self.server.board.complaints(time.monotonic())
            text = "\n".join(complaints) if complaints else "ok"
            self._answer(503 if complaints else 200, "text/plain; charset=utf-8", text + "\n")
        else:
            self._answer(404, "text/plain; charset=utf-8", "there are /metrics and /health\n")

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: scrapes are no events."""
