"""The supervisor with real processes: what happens to workers that die, and by which signal."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import port_for
import psutil
import pytest

# A worker that sends its process id and its limit of connections to whoever connects. A client
# that says "busy" is busy until it hangs up; all others are idle.
SERVE = """
import asyncio, os, sys, uvloop
from pathlib import Path
from pgbalise.proxy.metrics import Name
from pgbalise.proxy.supervisor import run

def serve(context):
    uvloop.run(main(context))

async def main(context):
    if os.environ.get("FAIL"):
        raise ValueError("patient 4711")
    done, idle, busy = asyncio.Event(), set(), set()
    draining = False

    async def talk(reader, writer):
        nonlocal draining
        context.counters.add(Name.CONNECTIONS)
        idle.add(writer)
        limit = context.config.limits.connections
        writer.write(f"{os.getpid()} {limit} {context.secret.hex()}\\n".encode())
        while said := await reader.readline():
            if said == b"busy\\n":
                idle.discard(writer); busy.add(writer); writer.write(b"ok\\n")
            elif said == b"hang\\n":
                import time; time.sleep(60)
        idle.discard(writer); busy.discard(writer)
        writer.close()
        if draining and not busy:
            done.set()

    servers = [await asyncio.start_server(talk, sock=s) for s in context.listen()]

    def drain():
        nonlocal draining
        draining = True
        for server in servers:
            server.close()
        for writer in idle:
            writer.write(b"57P01\\n"); writer.close()
        if not busy:
            done.set()

    context.attend(asyncio.get_running_loop(), drain=drain, stop=done.set,
                   reload=lambda config: None)
    context.ready()
    await done.wait()
    context.log.info("worker.done")

def background(context):
    def task(stop):
        path = context.config.spool
        path.with_name(f"task-{os.getpid()}").touch()
        while not stop.wait(0.02):
            if path.with_name("break").exists():
                path.with_name("break").unlink()
                raise RuntimeError("patient 4711")
        path.with_name("task-ended").touch()
    return [task]

sys.exit(run(Path(sys.argv[1]), serve, background=background))
"""


@dataclass
class Proxy:
    folder: Path
    port: int
    metrics_port: int
    process: subprocess.Popen[bytes]
    notified: socket.socket
    said: list[str] = field(default_factory=list)
    clients: list[socket.socket] = field(default_factory=list)
    secrets: set[bytes] = field(default_factory=set)

    @property
    def log(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    def events(self, name: str) -> list[dict[str, object]]:
        return [event for event in self.log if event["event"] == name]

    def configure(self, more: str = "", *, workers: int = 2, drain: int = 5) -> None:
        (self.folder / "proxy.toml").write_text(
            f'listen = ["127.0.0.1:{self.port}", "unix:{self.folder}:{self.port}"]\n'
            f'workers = {workers}\nmetrics = "127.0.0.1:{self.metrics_port}"\n'
            f'spool = "{self.folder}/spool"\nrun = "{self.folder}/run"\n'
            f"[limits]\ndrain_seconds = {drain}\n{more}"
        )

    def await_notice(self, line: str) -> None:
        while not any(line in one for one in self.said):
            self.said.append(self.notified.recv(4096).decode())

    def await_event(self, name: str, count: int = 1) -> dict[str, object]:
        wait_until(lambda: len(self.events(name)) >= count)
        return self.events(name)[-1]

    def connect(self, *, busy: bool = False) -> tuple[socket.socket, int]:
        """Open a session; return it and the process that serves it."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self.clients.append(client)
        pid = int(client.recv(100).split()[0])
        if busy:
            client.sendall(b"busy\n")
            assert client.recv(10) == b"ok\n"
        return client, pid

    def ask(self) -> set[tuple[int, int]]:
        """Return the workers that answer and the limit each goes by."""
        answers = set()
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
                pid, limit, secret = client.recv(100).split()
                self.secrets.add(secret)
                answers.add((int(pid), int(limit)))
        return answers

    def workers(self) -> set[int]:
        return {pid for pid, _ in self.ask()}

    def limits(self) -> set[int]:
        return {limit for _, limit in self.ask()}

    def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.metrics_port}/{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.read().decode()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    started: list[Proxy] = []

    def launch(*, more: str = "", drain: int = 5, **environment: str) -> Proxy:
        notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = tmp_path / f"notify{len(started)}"
        notified.bind(str(address))
        notified.settimeout(10)
        (tmp_path / "serve.py").write_text(SERVE)
        if started:
            port, metrics_port = started[0].port, started[0].metrics_port
        else:
            port, metrics_port = port_for.select_random(), port_for.select_random()
        proxy = Proxy(tmp_path, port, metrics_port, None, notified)  # type: ignore[arg-type]
        proxy.configure(more, drain=drain)
        with (tmp_path / "log").open("wb") as log:
            proxy.process = subprocess.Popen(
                [sys.executable, tmp_path / "serve.py", tmp_path / "proxy.toml"],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path),
                     "NOTIFY_SOCKET": str(address), **environment},
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        started.append(proxy)
        return proxy

    yield launch
    for proxy in started:
        family = []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(proxy.process.pid).children()
        proxy.process.kill()
        proxy.process.wait()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        proxy.notified.close()
        for client in proxy.clients:
            client.close()


@pytest.fixture
def proxy(launch: Callable[..., Proxy]) -> Proxy:
    started = launch()
    started.await_notice("READY=1")
    return started


def test_ready_once_all_workers_listen(proxy: Proxy) -> None:
    assert len(proxy.workers()) == 2
    assert "STATUS=2 workers, listening on 127.0.0.1" in proxy.said[-1]
    assert (proxy.folder / "run" / "proxy.pid").read_text() == f"{proxy.process.pid}\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{proxy.folder}/.s.PGSQL.{proxy.port}")
        assert client.recv(100)
    assert proxy.end() == 0
    assert any("STOPPING=1" in line for line in [proxy.notified.recv(4096).decode()])
    assert not (proxy.folder / f".s.PGSQL.{proxy.port}").exists()
    assert proxy.events("proxy.stopped") == [proxy.log[-1]]
    assert (proxy.folder / "task-ended").exists()


def test_dead_worker_is_replaced_and_the_others_go_on(proxy: Proxy) -> None:
    client, victim = proxy.connect()
    other, survivor = proxy.connect()
    while survivor == victim:
        other, survivor = proxy.connect()
    os.kill(victim, signal.SIGKILL)
    assert client.recv(10) == b""
    ended = proxy.await_event("process.ended")
    assert (ended["pid"], ended["signal"], ended["level"]) == (victim, "SIGKILL", "error")
    wait_until(lambda: len(proxy.workers()) == 2)
    assert victim not in proxy.workers()
    other.sendall(b"busy\n")
    assert other.recv(10) == b"ok\n"
    wait_until(lambda: proxy.get("health") == (200, "ok\n"))


def test_worker_that_keeps_dying_is_started_less_and_less_often(proxy: Proxy) -> None:
    for count in range(1, 5):
        os.kill(proxy.connect()[1], signal.SIGKILL)
        proxy.await_event("process.ended", count)
        wait_until(lambda: proxy.get("health")[0] == 200)
    assert "pgbalise_processes_restarted_total 4" in proxy.get("metrics")[1]


def terminate(proxy: Proxy) -> None:
    proxy.process.send_signal(signal.SIGTERM)


def interrupt_from_the_keyboard(proxy: Proxy) -> None:
    os.killpg(proxy.process.pid, signal.SIGINT)


@pytest.mark.parametrize("tell", [terminate, interrupt_from_the_keyboard])
def test_drain_ends_idle_sessions_and_lets_busy_ones_finish(
    proxy: Proxy, tell: Callable[[Proxy], None]
) -> None:
    idle, busy = proxy.connect()[0], proxy.connect(busy=True)[0]
    tell(proxy)
    assert idle.recv(10) == b"57P01\n"
    proxy.await_event("proxy.stopping")
    wait_until(lambda: proxy.get("health")[0] == 503)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))
    assert proxy.process.poll() is None
    busy.close()
    assert proxy.process.wait(5) == 0
    assert not proxy.events("proxy.cutting")


def test_sessions_that_do_not_finish_are_cut(launch: Callable[..., Proxy]) -> None:
    proxy = launch(drain=1)
    proxy.await_notice("READY=1")
    proxy.connect(busy=True)
    started = time.monotonic()
    assert proxy.end() == 0
    assert 1 <= time.monotonic() - started < 5.5
    assert proxy.events("proxy.cutting")[0]["signal"] == "SIGQUIT"


@pytest.mark.parametrize("numbers", [[signal.SIGQUIT], [signal.SIGINT, signal.SIGTERM]])
def test_stop_at_once(proxy: Proxy, numbers: list[signal.Signals]) -> None:
    proxy.connect(busy=True)
    for number in numbers[:-1]:
        proxy.process.send_signal(number)
        proxy.await_event("proxy.stopping")
    started = time.monotonic()
    assert proxy.end(numbers[-1]) == 0
    assert time.monotonic() - started < 4.5


def test_reload_reaches_workers_and_an_invalid_one_changes_nothing(proxy: Proxy) -> None:
    before = proxy.workers()
    proxy.configure("connections = 17\n")
    proxy.process.send_signal(signal.SIGHUP)
    proxy.await_event("config.reloaded")
    wait_until(lambda: proxy.limits() == {17})
    proxy.await_notice("RELOADING=1\nMONOTONIC_USEC=")
    proxy.configure("connections = -1\n")
    proxy.process.send_signal(signal.SIGHUP)
    refused = proxy.await_event("config.refused")
    assert refused["error"] == "limits.connections: must be a whole number from 1"
    assert refused["hint"] == "write limits.connections = 1000"
    assert proxy.limits() == {17}
    proxy.configure("connections = 18\n", workers=3)
    proxy.process.send_signal(signal.SIGHUP)
    assert proxy.await_event("config.needs_restart")["keys"] == "workers"
    wait_until(lambda: proxy.limits() == {18})
    assert proxy.workers() == before
    [victim, *_] = before
    os.kill(victim, signal.SIGKILL)
    proxy.await_event("process.ended")
    wait_until(lambda: len(proxy.workers()) == 2)
    assert proxy.limits() == {18}


def test_reload_that_cannot_be_kept_changes_nothing(proxy: Proxy) -> None:
    (proxy.folder / "run" / "proxy.new").mkdir()
    proxy.configure("connections = 17\n")
    proxy.process.send_signal(signal.SIGHUP)
    assert "cannot be written" in str(proxy.await_event("config.refused")["error"])
    assert proxy.limits() == {1000}
    assert len(proxy.workers()) == 2


def test_killed_supervisor_leaves_no_process(proxy: Proxy) -> None:
    family = psutil.Process(proxy.process.pid).children()
    assert len(family) == 3
    proxy.process.kill()
    _, alive = psutil.wait_procs(family, 3)
    assert not alive


def test_successor_of_a_killed_supervisor_waits_for_what_is_left(
    launch: Callable[..., Proxy],
) -> None:
    first = launch()
    first.await_notice("READY=1")
    first.connect(busy=True)
    first.process.kill()
    second = launch()
    second.await_notice("READY=1")
    assert len(second.workers()) == 2


def test_secret_is_one_for_all_workers_and_outlives_them(launch: Callable[..., Proxy]) -> None:
    proxies = []
    for _ in range(2):
        proxies.append(launch())
        proxies[-1].await_notice("READY=1")
        assert len(proxies[-1].workers()) == 2
        proxies[-1].end()
    assert proxies[0].secrets == proxies[1].secrets
    [secret] = proxies[0].secrets
    assert len(bytes.fromhex(secret.decode())) == 32
    assert (proxies[0].folder / "run" / "mock.key").stat().st_mode & 0o777 == 0o600


def test_stuck_worker_ends_with_the_supervisor_too(proxy: Proxy) -> None:
    proxy.connect()[0].sendall(b"hang\n")
    family = psutil.Process(proxy.process.pid).children()
    proxy.process.kill()
    _, alive = psutil.wait_procs(family, 8)
    assert not alive


def test_second_proxy_on_the_same_folder_is_refused(launch: Callable[..., Proxy]) -> None:
    first = launch()
    first.await_notice("READY=1")
    second = subprocess.run(
        [sys.executable, first.folder / "serve.py", first.folder / "proxy.toml"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, timeout=20, text=True,
    )  # fmt: skip
    assert second.returncode != 0
    assert "another proxy runs in" in second.stderr
    assert len(first.workers()) == 2


def test_proxy_that_cannot_start_says_why_and_ends(launch: Callable[..., Proxy]) -> None:
    proxy = launch(FAIL="1")
    assert proxy.process.wait(10) == 1
    failed = proxy.events("process.failed")[0]
    assert (failed["error"], str(failed["place"]).split(":")[0]) == ("ValueError", "serve.py")
    assert "4711" not in (proxy.folder / "log").read_text()


def test_port_in_use_is_named(launch: Callable[..., Proxy]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        proxy = launch()
        proxy.process.kill()
        proxy.process.wait()
        proxy.port = taken.getsockname()[1]
        proxy.configure()
        done = subprocess.run(
            [sys.executable, proxy.folder / "serve.py", proxy.folder / "proxy.toml"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, timeout=20, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{proxy.port}: Address already in use" in done.stderr


def test_background_task_that_fails_is_started_anew(proxy: Proxy) -> None:
    (proxy.folder / "break").touch()
    assert proxy.await_event("process.ended")["worker"] == "keeper"
    wait_until(lambda: len(list(proxy.folder.glob("task-[0-9]*"))) == 2)
    assert len(proxy.workers()) == 2
    assert "4711" not in (proxy.folder / "log").read_text()


def test_watchdog_is_fed(launch: Callable[..., Proxy]) -> None:
    proxy = launch(WATCHDOG_USEC="200000")
    proxy.await_notice("READY=1")
    proxy.said.clear()
    started = time.monotonic()
    for _ in range(3):
        proxy.await_notice("WATCHDOG=1")
        proxy.said.clear()
    assert time.monotonic() - started < 3


def test_log_for_people(launch: Callable[..., Proxy]) -> None:
    proxy = launch(more='[log]\nformat = "text"\n')
    proxy.await_notice("READY=1")
    assert (
        "INFO    proxy.ready process=supervisor workers=2\n" in (proxy.folder / "log").read_text()
    )
