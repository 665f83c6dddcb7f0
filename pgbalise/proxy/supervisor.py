"""The process above the workers: starts them, starts them anew, and stops them in order.

::

    supervisor              one thread, no event loop: it may fork at any time
    +-- keeper              metrics page, background tasks (threads)
    +-- worker 0 .. n-1     serve clients (an event loop each)

Signals to the supervisor: SIGTERM or SIGINT drains (no new clients, sessions may finish what they
are at, after ``limits.drain_seconds`` the rest is cut; a second one cuts at once), SIGQUIT stops at
once, SIGHUP reads the configuration anew. It passes them on, and a worker learns of them by
``WorkerContext.attend``. When the supervisor is killed, its children end by themselves.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import selectors
import signal
import socket
import struct
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from pgbalise.errors import EnvironmentProblem, InvalidInput, PgbaliseError
from pgbalise.proxy.config import Address, Config, parse_config
from pgbalise.proxy.listening import check_free, listen_tcp, listen_unix
from pgbalise.proxy.log import EventLog, configure
from pgbalise.proxy.metrics import Board, Counters, MetricsServer, Name
from pgbalise.proxy.notify import Notifier

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Serve = Callable[["WorkerContext"], None]
    Task = Callable[[threading.Event], None]
    Background = Callable[["WorkerContext"], Sequence[Task]]

CONFIG_NAME: Final = "proxy.toml"
"""The configuration in force, as a file in ``run``."""
PID_NAME: Final = "proxy.pid"
SECRET_NAME: Final = "mock.key"  # noqa: S105 - a file's name
"""What strangers' salts are drawn from: it tells them apart to replace it."""

_DRAIN, _STOP, _RELOAD = signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP
_PASSED_ON: Final = (_DRAIN, _STOP, _RELOAD)
_HANDLED: Final = (*_PASSED_ON, signal.SIGINT, signal.SIGCHLD)

_KEEPER: Final = -1
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 10.0
_HEALTHY_SECONDS: Final = 60.0
_LOCK_SECONDS: Final = 8.0
_ORPHAN_SECONDS: Final = 5.0
_CUT_SECONDS: Final = 5.0
"""How long processes have to end once told to stop at once, before they are killed."""
_KEEPER_SECONDS: Final = 20.0
"""How long the keeper has to deliver what the workers left."""

_FAILED: Final = 1
_SECRET_BYTES: Final = 32


@dataclass
class WorkerContext:
    """What a child process is given: a worker in ``serve``, the keeper in background tasks."""

    config: Config
    number: int
    """From 0; -1 in the keeper."""
    board: Board
    counters: Counters
    """This process's own numbers."""
    log: EventLog
    unix_sockets: tuple[socket.socket, ...]
    """Listening; shared by all workers."""
    ready: Callable[[], None]
    """To be called once the worker accepts connections."""
    secret: bytes = field(repr=False)
    """32 random bytes, the same in all processes and after a restart: for ``Verifier.mock``."""
    pending: set[signal.Signals] = field(default_factory=set)

    def listen(self) -> list[socket.socket]:
        """Open this worker's listening sockets, non-blocking; Unix ones are shared by all.

        Raises EnvironmentProblem when an address cannot be used.
        """
        tcp = [listen_tcp(address) for address in self.config.listen if address.socket is None]
        return [*(one for several in tcp for one in several), *self.unix_sockets]

    def reload(self) -> Config:
        """Take over the configuration that the supervisor has accepted, and return it."""
        text = (self.config.run / CONFIG_NAME).read_text("utf-8")
        self.config = self.config.reloaded(parse_config(text))
        configure(self.config.log)
        return self.config

    def attend(
        self,
        loop: AbstractEventLoop,
        *,
        drain: Callable[[], None],
        stop: Callable[[], None],
        reload: Callable[[Config], None],
    ) -> None:
        """Have the loop call these when the supervisor says so, and show that the loop turns.

        ``drain``: take no new connections, end idle sessions now (57P01) and busy ones when they
        are done, then return from ``serve``. ``stop``: end everything now. ``reload``: go on with
        this configuration. What was said before this call is done at once.
        """
        calls: dict[signal.Signals, Callable[[], None]] = {
            _DRAIN: drain,
            _STOP: stop,
            _RELOAD: lambda: reload(self.reload()),
        }
        for number, call in calls.items():
            loop.add_signal_handler(number, call)
        for number in tuple(self.pending):
            loop.call_soon(calls[number])

        def beat() -> None:
            self.counters.heartbeat()
            loop.call_later(1, beat)

        beat()


def run(
    config_path: Path,
    serve: Serve,
    *,
    background: Background | None = None,
    check: Callable[[Config], None] | None = None,
    listen: tuple[Address, ...] = (),
) -> int:
    """Run the proxy until it is told to stop; return the exit status: 0, or 1 after a failure.

    ``serve`` runs in each worker; it calls ``ready`` and returns when the worker is to end.
    ``background`` is called in the keeper and returns tasks, each run in a thread of its own until
    its event is set. ``check`` looks at a configuration further and raises InvalidInput.
    ``listen``, when given, takes the place of the configuration's.

    Call it before the process has threads or an event loop: it forks. Raises InvalidInput for the
    configuration, EnvironmentProblem when folders or addresses cannot be used.
    """
    text, config = read_config(config_path, check)
    if listen:
        config = replace(config, listen=listen)
    configure(config.log)
    with ExitStack() as stack:
        stack.enter_context(_locked(config.run))
        for address in (*config.listen, *((config.metrics,) if config.metrics else ())):
            if address.socket is None:
                check_free(address)
        sockets = tuple(
            stack.enter_context(listen_unix(address)) for address in config.listen if address.socket
        )
        supervisor = _Supervisor(
            config_path, text, config, serve, background, check, sockets, listen
        )
        return supervisor.run()


@dataclass
class _Child:
    """A process that should run."""

    number: int
    pid: int | None = None
    ready: bool = False
    started: float = 0.0
    failures: int = 0
    due: float | None = 0.0
    """When to start it, None when it runs or is not to be started."""

    @property
    def name(self) -> str:
        return "keeper" if self.number == _KEEPER else f"worker {self.number}"


class _Supervisor:
    def __init__(
        self,
        config_path: Path,
        text: str,
        config: Config,
        serve: Serve,
        background: Background | None,
        check: Callable[[Config], None] | None,
        unix_sockets: tuple[socket.socket, ...],
        listen: tuple[Address, ...],
    ) -> None:
        self._path = config_path
        self._config = config
        self._serve = serve
        self._background = background
        self._check = check
        self._unix_sockets = unix_sockets
        self._listen = listen
        self._log = EventLog(process="supervisor")
        self._notifier = Notifier(os.environ)
        workers = config.workers or len(os.sched_getaffinity(0))
        self._board = Board(workers + 2)
        self._counters = self._board.row(0)
        self._counters.set(Name.WORKERS_WANTED, workers)
        self._children = {n: _Child(n) for n in range(_KEEPER, workers)}
        self._keeper = self._children[_KEEPER]
        self._workers = [self._children[n] for n in range(workers)]
        self._up = False
        self._stopping = False
        self._deadlines: list[tuple[float, signal.Signals, frozenset[int]]] = []
        self._keeper_told = False
        self._status = 0
        self._pinged = 0.0
        # The children hold the read end: it ends when this process does, however it does.
        self._lifeline = os.pipe()
        self._ready_pipe = os.pipe()
        self._wakeup = socket.socketpair()
        for end in (self._wakeup[0], self._wakeup[1]):
            end.setblocking(False)
        os.set_blocking(self._ready_pipe[0], False)
        self._secret = _lasting_secret(config.run)
        self._publish(text)

    def run(self) -> int:
        """Start the children and look after them until none is left."""
        before = {number: signal.getsignal(number) for number in _HANDLED}
        for number in _HANDLED:
            signal.signal(number, _note)
        signal.set_wakeup_fd(self._wakeup[1].fileno())
        listening = ", ".join(map(str, self._config.listen))
        self._log.info("proxy.starting", address=listening, workers=len(self._workers))
        for warning in self._config.warnings():
            self._log.warning("config.unwise", reason=warning)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wakeup[0], selectors.EVENT_READ, self._take_signals)
                selector.register(self._ready_pipe[0], selectors.EVENT_READ, self._take_ready)
                while self._turn(selector):
                    pass
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._kill_all()
            for end in (*self._lifeline, *self._ready_pipe):
                os.close(end)
            for one in self._wakeup:
                one.close()
        self._log.info("proxy.stopped", exit_status=self._status)
        return self._status

    def _turn(self, selector: selectors.BaseSelector) -> bool:
        now = time.monotonic()
        for child in self._children.values():
            if child.due is not None and child.due <= now:
                self._start(child)
        self._enforce(now)
        if self._stopping and not _pids(self._workers):
            if self._keeper.pid is None:
                return False
            if not self._keeper_told:
                self._keeper_told = True
                self._end_keeper(now)
        self._ping(now)
        for key, _ in selector.select(self._patience(now)):
            key.data()
        return True

    def _patience(self, now: float) -> float | None:
        moments = [child.due for child in self._children.values() if child.due is not None]
        moments += [moment for moment, _, _ in self._deadlines]
        if self._notifier.watchdog_seconds is not None:
            moments.append(self._pinged + self._notifier.watchdog_seconds)
        return max(0.0, min(moments) - now) if moments else None

    def _ping(self, now: float) -> None:
        every = self._notifier.watchdog_seconds
        if every is not None and now - self._pinged >= every:
            self._pinged = now
            self._notifier.send("WATCHDOG=1")

    # --- signals

    def _take_signals(self) -> None:
        with suppress(BlockingIOError):
            for number in self._wakeup[0].recv(4096):
                match number:
                    case signal.SIGCHLD:
                        self._reap()
                    case signal.SIGHUP:
                        self._reload()
                    case signal.SIGTERM | signal.SIGINT:
                        self._stop(at_once=self._stopping)
                    case signal.SIGQUIT:
                        self._stop(at_once=True)

    def _stop(self, *, at_once: bool) -> None:
        seconds = self._config.limits.drain_seconds
        if not self._stopping:
            self._stopping = True
            self._counters.set(Name.STOPPING, 1)
            allowed = (0 if at_once else seconds) + _CUT_SECONDS + _KEEPER_SECONDS + 5
            self._notifier.send(
                "STOPPING=1",
                "STATUS=stopping: sessions may finish what they are at",
                f"EXTEND_TIMEOUT_USEC={int(allowed * 1e6)}",
            )
            self._log.info("proxy.stopping", seconds=0 if at_once else seconds)
            for child in self._children.values():
                child.due = None
            for listener in self._unix_sockets:
                listener.close()
        now = time.monotonic()
        workers = _pids(self._workers)
        if at_once:
            _tell(_STOP, workers)
            self._deadlines = [(now + _CUT_SECONDS, signal.SIGKILL, workers)]
        else:
            _tell(_DRAIN, workers)
            self._deadlines = [(now + seconds, _STOP, workers)]

    def _end_keeper(self, now: float) -> None:
        pids = _pids([self._keeper])
        _tell(_DRAIN, pids)
        self._deadlines.append((now + _KEEPER_SECONDS, signal.SIGKILL, pids))

    def _enforce(self, now: float) -> None:
        due = [one for one in self._deadlines if one[0] <= now]
        self._deadlines = [one for one in self._deadlines if one[0] > now]
        for _, number, pids in due:
            left = pids & _pids(self._children.values())
            if left:
                self._log.warning("proxy.cutting", count=len(left), signal=number.name)
                _tell(number, left)
            if left and number is not signal.SIGKILL:
                self._deadlines.append((now + _CUT_SECONDS, signal.SIGKILL, left))

    def _reload(self) -> None:
        if self._stopping:
            return
        self._notifier.reloading()
        try:
            text, new = read_config(self._path, self._check)
            if self._listen:
                new = replace(new, listen=self._listen)
            self._publish(text)
        except PgbaliseError as problem:
            self._counters.add(Name.RELOADS_FAILED)
            self._log.failure("config.refused", problem)
            self._notifier.send("READY=1", "STATUS=the new configuration is refused, see the log")
            return
        fixed = self._config.reloadable(new)
        if fixed:
            self._log.warning("config.needs_restart", keys=", ".join(fixed))
        self._config = self._config.reloaded(new)
        configure(self._config.log)
        for warning in self._config.warnings():
            self._log.warning("config.unwise", reason=warning)
        _tell(_RELOAD, _pids(self._workers))
        # Background tasks are made for a configuration: the keeper is started anew.
        self._end_keeper(time.monotonic())
        self._counters.add(Name.RELOADS)
        self._log.info("config.reloaded")
        self._notifier.send("READY=1", self._state())

    def _publish(self, text: str) -> None:
        target = self._config.run / CONFIG_NAME
        fresh = target.with_suffix(".new")
        try:
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(target)
        except OSError as problem:
            raise EnvironmentProblem(
                f"run: {fresh} cannot be written: {problem.strerror}"
            ) from None

    # --- children

    def _start(self, child: _Child) -> None:
        child.due = None
        child.ready = False
        child.started = time.monotonic()
        row = child.number + 2
        self._board.clear_gauges(row)
        # A signal in between would be handled by the parent's handler in the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(child.number)
        except OSError as problem:
            self._log.failure("process.unstarted", problem, worker=child.name)
            child.due = child.started + _LONGEST_DELAY
            return
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        child.pid = pid
        self._log.debug("process.started", worker=child.name, pid=pid)

    def _become(self, number: int) -> NoReturn:
        """Be the child; never return."""
        status = _FAILED
        pending: set[signal.Signals] = set()
        name = "keeper" if number == _KEEPER else f"worker {number}"
        log = EventLog(process=name)
        try:
            signal.set_wakeup_fd(-1)
            for one in self._wakeup:
                one.close()
            os.close(self._ready_pipe[0])
            os.close(self._lifeline[1])
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for passed in _PASSED_ON:
                signal.signal(passed, lambda got, _: pending.add(signal.Signals(got)))
            # While signals are blocked: the thread never takes one from the main thread.
            threading.Thread(
                target=_end_with, args=(self._lifeline[0],), name="lifeline", daemon=True
            ).start()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            context = WorkerContext(
                config=self._config,
                number=number,
                board=self._board,
                counters=self._board.row(number + 2),
                log=log,
                unix_sockets=self._unix_sockets,
                ready=lambda: _say_ready(self._ready_pipe[1], number),
                secret=self._secret,
                pending=pending,
            )
            if number == _KEEPER:
                _keep(context, self._background)
            else:
                self._serve(context)
            status = 0
        except BaseException as problem:  # noqa: BLE001 - the process ends here, whatever it was
            log.failure("process.failed", problem)
        finally:
            os._exit(status)

    def _take_ready(self) -> None:
        with suppress(BlockingIOError):
            said = os.read(self._ready_pipe[0], 4096)
            for (number,) in struct.iter_unpack("i", said):
                self._children[number].ready = True
            self._count_running()
        if not self._up and all(child.ready for child in self._children.values()):
            self._up = True
            self._log.info("proxy.ready", workers=len(self._workers))
            self._notifier.send("READY=1", self._state())

    def _state(self) -> str:
        running = sum(child.ready for child in self._workers)
        return f"STATUS={running} workers, listening on {', '.join(map(str, self._config.listen))}"

    def _count_running(self) -> None:
        self._counters.set(Name.WORKERS_RUNNING, sum(child.ready for child in self._workers))

    def _reap(self) -> None:
        for child in self._children.values():
            if child.pid is None:
                continue
            pid, raw = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._buried(child, os.waitstatus_to_exitcode(raw))
        self._count_running()

    def _buried(self, child: _Child, status: int) -> None:
        lived = time.monotonic() - child.started
        was_ready, pid = child.ready, child.pid
        child.pid, child.ready = None, False
        self._board.clear_gauges(child.number + 2)
        if self._stopping:
            return
        if child.number == _KEEPER and status == 0:
            child.due = time.monotonic()
            return
        how = {"signal": signal.Signals(-status).name} if status < 0 else {"exit_status": status}
        self._log.error("process.ended", worker=child.name, pid=pid, seconds=round(lived, 3), **how)
        if not self._up and not was_ready:
            # What cannot start now will hardly start later: whoever started us should know.
            self._status = _FAILED
            self._stop(at_once=True)
            return
        child.failures = 0 if lived > _HEALTHY_SECONDS else child.failures + 1
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** (child.failures - 1))
        child.due = time.monotonic() + (delay if child.failures else 0)
        self._counters.add(Name.PROCESSES_RESTARTED)

    def _kill_all(self) -> None:
        for pid in _pids(self._children.values()):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _pids(children: Iterable[_Child]) -> frozenset[int]:
    return frozenset(child.pid for child in children if child.pid is not None)


def _tell(number: signal.Signals, pids: Iterable[int]) -> None:
    for pid in pids:
        os.kill(pid, number)


def _note(*_: object) -> None:
    """Have Python write the signal's number to the wakeup socket."""


def _end_with(lifeline: int) -> None:
    """Wait for the supervisor's end, then end this process too."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), _STOP)
    time.sleep(_ORPHAN_SECONDS)
    os._exit(_FAILED)


def _say_ready(pipe: int, number: int) -> None:
    os.write(pipe, struct.pack("i", number))


def _keep(context: WorkerContext, background: Background | None) -> None:
    """Be the keeper: the metrics page and the background tasks, until told to end."""
    ends = {_DRAIN, _STOP}
    # Before there are threads, so that none of them can take a signal from sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    stop = threading.Event()
    failures: list[BaseException] = []
    metrics = context.config.metrics
    server = None
    if metrics is not None:
        try:
            server = MetricsServer(metrics, context.board)
        except OSError as problem:
            raise EnvironmentProblem(
                f"metrics: cannot listen on {metrics}: {problem.strerror}"
            ) from None

    def guarded(task: Task) -> None:
        try:
            task(stop)
        except BaseException as problem:  # noqa: BLE001 - the keeper ends with it and is replaced
            failures.append(problem)
            os.kill(os.getpid(), _DRAIN)

    tasks = [
        threading.Thread(target=guarded, args=(task,), name="task")
        for task in (background(context) if background else ())
    ]
    for task in tasks:
        task.start()
    context.ready()
    got = context.pending & ends or {signal.Signals(signal.sigwait(ends))}
    stop.set()
    if _STOP in got:
        return
    for task in tasks:
        task.join()
    if server is not None:
        server.close()
    if failures:
        raise failures[0]


def read_config(path: Path, check: Callable[[Config], None] | None) -> tuple[str, Config]:
    """Return a configuration's text and what it says; raise InvalidInput."""
    try:
        text = path.read_text("utf-8")
    except OSError as problem:
        raise InvalidInput(f"the configuration {path} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"the configuration {path} is no UTF-8") from None
    config = parse_config(text)
    if check is not None:
        check(config)
    return text, config


def _lasting_secret(folder: Path) -> bytes:
    path = folder / SECRET_NAME
    made = secrets.token_bytes(_SECRET_BYTES)
    try:
        with suppress(FileNotFoundError):
            if len(found := path.read_bytes()) == _SECRET_BYTES:
                return found
            path.unlink()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(made)
    except OSError as problem:
        raise EnvironmentProblem(f"run: {path} cannot be used: {problem.strerror}") from None
    return made


def _lives(written: bytes) -> bool:
    try:
        os.kill(int(written), 0)
    except PermissionError:
        return True
    except (ValueError, ProcessLookupError):
        return False
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's pid file; a predecessor's children have time to end.

    The children hold it too: the folder is taken as long as one of them lives.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / PID_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as problem:
        raise EnvironmentProblem(
            f"run: {folder} cannot be used: {problem.strerror}",
            hint="write run = a folder that the proxy's user owns",
        ) from None
    deadline = time.monotonic() + _LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline or _lives(os.pread(handle, 20, 0)):
                    raise EnvironmentProblem(
                        f"run: another proxy runs in {folder}",
                        hint="stop it, or write another folder as run",
                    ) from None
                time.sleep(0.05)
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
        os.truncate(handle, 0)
    finally:
        os.close(handle)
