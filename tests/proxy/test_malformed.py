"""Thousands of malformed beginnings of a connection: nobody notices, nothing is left of them."""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from pgbalise.wire import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    import psutil

    from tests.proxy.proxied import Proxy

HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(32)
AT_ONCE = 16


def some_beginning(rng: random.Random) -> list[bytes]:
    """Return what a client that is broken, or hostile, sends first; no bytes mean that it waits."""
    user = rng.choice(("reader", "nobody", "café", "a" * 63, "a" * 64))
    good = m.startup_message({"user": user, "database": rng.choice(("none", "postgres", "x" * 70))})
    body = rng.randbytes(rng.choice((0, 1, 20, 300)))

    def packet(body: bytes, code: int = m.PROTOCOL_3_0, length: int | None = None) -> bytes:
        return struct.pack("!II", len(body) + 8 if length is None else length, code) + body

    def reader(more: bytes, length: int | None = None) -> list[bytes]:
        return [packet(b"user\0reader\0" + more, length=length)]

    def mutated() -> bytes:
        data = bytearray(good)
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)

    makers: list[Callable[[], list[bytes]]] = [
        lambda: [body],
        lambda: [good[: rng.randrange(len(good))]],
        lambda: [mutated()],
        lambda: [packet(body)],
        lambda: reader(b"", rng.choice((0, 3, 7, 9, 10_001, 2**31, 2**32 - 1))),
        lambda: [packet(good[8:], rng.choice((0, 1, 2 << 16, 4 << 16, 3 << 16 | 9999, 2**32 - 1)))],
        lambda: reader(b"database"),
        lambda: reader(b"\0trailing\0"),
        lambda: [packet(b"user\0\xff\xfe\0database\0\xfd\0\0")],
        lambda: reader(b"replication\0" + rng.choice((b"true", b"database")) + b"\0\0"),
        lambda: reader(b"_pq_.x\0\xff\0" * rng.randrange(1, 900) + b"\0"),
        lambda: reader(b"options\0" + b"-c a=b " * rng.randrange(1, 1300) + b"\0\0"),
        lambda: reader(b"".join(b"o%d\0v\0" % n for n in range(900)) + b"\0"),
        lambda: [m.SSL_REQUEST_MESSAGE, b"", m.SSL_REQUEST_MESSAGE],
        lambda: [m.SSL_REQUEST_MESSAGE + good],
        lambda: [m.SSL_REQUEST_MESSAGE, b"", HELLO[: rng.randrange(1, len(HELLO))]],
        lambda: [packet(b"", m.GSSENC_REQUEST), b"", packet(b"", m.GSSENC_REQUEST)],
        lambda: [HELLO[: rng.randrange(1, len(HELLO))]],
        lambda: [HELLO + body],
        lambda: [m.cancel_request(rng.randbytes(rng.choice((0, 3, 4, 7, 8, 260, 261, 9000))))],
        lambda: [good, m.query(b"SELECT 1") * rng.randrange(1, 50)],
        lambda: [good + body],
        lambda: [good, b"", rng.choice((m.TERMINATE, body, m.message(ord("p"), body)))],
        lambda: [b"GET / HTTP/1.1\r\nHost: proxy\r\n\r\n"],
        lambda: [good[:5], b"", good[5:9]],
        list,
    ]  # fmt: skip
    return rng.choice(makers)()


def begin(port: int, seed: int) -> None:
    """Send a beginning, read an answer for a moment or none, and leave, now and then rudely."""
    rng = random.Random(seed)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        if rng.random() < 0.2:
            # closing sends a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            for data in [*some_beginning(rng), *[b""] * (rng.random() < 0.5)]:
                if data:
                    connection.sendall(data)
                elif select.select([connection], [], [], 0.05)[0]:
                    connection.recv(4096)
        except ConnectionError:
            pass


def sockets(processes: list[psutil.Process]) -> int:
    return sum(len(process.net_connections("all")) for process in processes)


def memory(processes: list[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in processes)


def storm(proxy: Proxy, count: int) -> None:
    workers = proxy.processes()[1:]

    def beginnings(first: int, count: int) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda seed: begin(proxy.port, seed), range(first, first + count)):
                pass

    def settled(most: int) -> bool:
        until = time.monotonic() + 10
        while sockets(workers) > most and time.monotonic() < until:
            time.sleep(0.05)
        return sockets(workers) <= most

    with proxy.connect() as connection:
        before = sockets(workers)
        beginnings(10**6, 500)
        assert settled(before)
        others = sum(process.num_fds() for process in workers)
        warm = memory(workers)
        beginnings(0, count)
        assert settled(before)
        assert sum(process.num_fds() for process in workers) <= others
        grown = memory(workers) - warm
        print(f"{count} beginnings: {grown / 1024:.0f} kB more")
        assert grown < 4 << 20
        # neither who was there nor who comes is harmed
        assert connection.execute("SELECT count(*) FROM hospital.patient").fetchone() == (5000,)
    assert proxy.connect().execute("SELECT 1").fetchone() == (1,)
    assert [one.pid for one in workers] == [one.pid for one in proxy.processes()[1:]]
    assert "library" not in proxy.log


def test_malformed_beginnings_leave_nothing_behind(front: Proxy) -> None:
    storm(front, 1_000)


@pytest.mark.slow
def test_ten_thousand_malformed_beginnings_leave_nothing_behind(front: Proxy) -> None:
    storm(front, 10_000)
