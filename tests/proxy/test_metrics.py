"""What processes count in shared memory, and the page that shows it."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import port_for
import pytest

from pgbalise.proxy.config import Address
from pgbalise.proxy.metrics import CONTENT_TYPE, METRICS, Board, MetricsServer, Name

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-z]+="[^"\\]*"\})? (\S+)')


def parsed(page: str) -> dict[str, float]:
    """Read the text format 0.0.4 strictly: each family once, described before its samples."""
    kinds: dict[str, str] = {}
    samples: dict[str, float] = {}
    current = ""
    assert page.endswith("\n")
    for line in page.splitlines():
        if line.startswith("# HELP "):
            current = line.split()[2]
            assert current not in kinds
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name == current
            assert kind in {"counter", "gauge"}
            assert (kind == "counter") == name.endswith("_total")
            kinds[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] == current
            key = match[1] + (match[2] or "")
            assert key not in samples
            samples[key] = float(match[3])
    return samples


@pytest.fixture
def board() -> Board:
    made = Board(3)
    made.row(0).set(Name.WORKERS_RUNNING, 1)
    made.row(0).set(Name.WORKERS_WANTED, 1)
    return made


def test_processes_add_up(board: Board) -> None:
    child = os.fork()
    if child == 0:
        board.row(2).add(Name.ROWS, 5_000_000_000)
        board.row(2).add(Name.INTENT_WAIT_NANOSECONDS, 1_500_000_000)
        os._exit(0)
    os.waitpid(child, 0)
    board.row(1).add(Name.ROWS)
    samples = parsed(board.page())
    assert samples["pgbalise_rows_total"] == 5_000_000_001
    assert samples["pgbalise_intent_wait_seconds_total"] == 1.5
    assert samples['pgbalise_statements_total{kind="copy"}'] == 0


def test_every_number_but_the_heartbeat_is_on_the_page(board: Board) -> None:
    assert set(Name) - set(METRICS) == {Name.HEARTBEAT}
    assert len(parsed(board.page())) == len(METRICS) + 1


def test_successor_of_a_process_goes_on_with_its_totals(board: Board) -> None:
    row = board.row(1)
    row.add(Name.CONNECTIONS, 3)
    row.add(Name.CONNECTIONS_OPEN, 2)
    row.set(Name.SPOOL_PROBLEM, 1)
    row.heartbeat()
    board.clear_gauges(1)
    assert [row.value(name) for name in (Name.CONNECTIONS, Name.CONNECTIONS_OPEN)] == [3, 0]
    assert board.complaints(1e12) == []


@pytest.mark.parametrize(
    ("row", "name", "value", "complaint"),
    [
        (0, Name.WORKERS_RUNNING, 0, "no worker runs"),
        (0, Name.WORKERS_WANTED, 3, "2 of 3 workers do not run"),
        (2, Name.SPOOL_PROBLEM, 1, "the spool cannot be written: protected data is refused"),
        (1, Name.OLDEST_UNDELIVERED_SECONDS, 301, "the registry is 301 s behind"),
        (2, Name.HEARTBEAT, 980, "a worker has not moved for 20 s"),
        (0, Name.STOPPING, 1, "stopping: no new connections are taken"),
    ],
)
def test_health_says_what_is_wrong(
    board: Board, row: int, name: Name, value: int, complaint: str
) -> None:
    assert board.complaints(1000) == []
    board.row(row).set(name, value)
    assert board.complaints(1000) == [complaint]


@pytest.fixture
def url(board: Board) -> Iterator[str]:
    address = Address("127.0.0.1", port_for.select_random())
    server = MetricsServer(address, board)
    try:
        yield f"http://{address}"
    finally:
        server.close()


def test_pages_over_http(url: str, board: Board) -> None:
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        assert answer.headers["Content-Type"] == CONTENT_TYPE
        assert parsed(answer.read().decode())["pgbalise_workers_running"] == 1
    with urllib.request.urlopen(f"{url}/health") as answer:
        assert (answer.status, answer.read()) == (200, b"ok\n")
    board.row(1).set(Name.SPOOL_PROBLEM, 1)
    for path, status in (("health", 503), ("else", 404)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{url}/{path}")
        caught.value.close()
        assert caught.value.code == status
