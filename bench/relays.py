"""Programs between a client and a throwaway server: pgbalise's proxy, and PgBouncer to compare.

Both listen on a loopback address, hand every session a server connection of its own, and end with
their context. Upstream is the server's TCP address, without TLS.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from pgbalise.demo.cluster import ThrowawayCluster

PROJECT = Path(__file__).resolve().parents[1]
PGBOUNCER = Path("/usr/sbin/pgbouncer")
PROXY_ROLE = "pgbalise_proxy"
DEADLINE = 30.0
"""Seconds that a program has to start listening, or to stop."""


def loopback(number: int = 0) -> str:
    """An address of this machine's own that no other run is likely to use: ports can be fixed."""
    low = os.getpid() % 62_500
    return f"127.{77 + number}.{low // 250 + 1}.{low % 250 + 1}"


def open_to_loopback(cluster: ThrowawayCluster, address: str) -> None:
    """Let every role in by TCP on 127.0.0.0/8; ``cluster`` was made with listen_addresses."""
    hba = cluster.data_dir / "pg_hba.conf"
    lines = [f"host {database} all 127.0.0.0/8 trust\n" for database in ("all", "replication")]
    hba.write_text(hba.read_text("utf-8") + "".join(lines), encoding="utf-8")
    cluster.psql("SELECT pg_reload_conf()")
    _wait_for(address, cluster.port, None)


@dataclass
class Relay:
    """A running program; ``process`` is the one that was started, its children are below it."""

    name: str
    host: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    def dsn(self, dbname: str, user: str) -> str:
        """A connection string through the program."""
        return make_conninfo(host=self.host, port=self.port, dbname=dbname, user=user)

    def pids(self) -> list[int]:
        """The program's processes."""
        found = [self.process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found.extend(map(int, (task / "children").read_text("ascii").split()))
        return found

    def proportional_bytes(self) -> int:
        """Memory of all its processes; what they share is counted once (PSS)."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def processor_seconds(self) -> float:
        """Processor time that its processes have used so far."""
        fields = (Path(f"/proc/{pid}/stat").read_text("ascii") for pid in self.pids())
        ticks = sum(sum(map(int, text.rpartition(")")[2].split()[11:13])) for text in fields)
        return ticks / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        """What the program said so far."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for how in (signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL):
            self.process.send_signal(how)
            try:
                self.process.wait(DEADLINE / 3)
            except subprocess.TimeoutExpired:
                continue
            break
        shutil.rmtree(self.folder, ignore_errors=True)


def pgbouncer(
    upstream: tuple[str, int], listen: tuple[str, int], roles: Sequence[str], connections: int = 300
) -> Relay:
    """Start PgBouncer in session mode, one process; ``roles`` may log in, unasked."""
    folder = _folder("pgbouncer")
    (folder / "users").write_text("".join(f'"{role}" ""\n' for role in roles), encoding="utf-8")
    (folder / "pgbouncer.ini").write_text(
        f"""
[databases]
* = host={upstream[0]} port={upstream[1]}

[pgbouncer]
listen_addr = {listen[0]}
listen_port = {listen[1]}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = session
server_reset_query = DISCARD ALL
max_client_conn = {connections}
default_pool_size = {connections}
ignore_startup_parameters = extra_float_digits, options, search_path
log_connections = 0
log_disconnections = 0
""",
        encoding="utf-8",
    )
    return _start("pgbouncer", [str(PGBOUNCER), str(folder / "pgbouncer.ini")], folder, listen)


def proxy(
    upstream: tuple[str, int],
    listen: tuple[str, int],
    *,
    workers: int = 1,
    limits: str = "",
    connections: int = 3_000,
) -> Relay:
    """Start ``pgbalise proxy``; ``limits`` are more of these, as TOML."""
    folder = _folder("proxy")
    (folder / "spool").mkdir(mode=0o700)
    (folder / "proxy.toml").write_text(
        f"""
listen = ["{listen[0]}:{listen[1]}"]
workers = {workers}
spool = "{folder}/spool"
run = "{folder}"
user = "{PROXY_ROLE}"

[upstream]
host = "{upstream[0]}"
port = {upstream[1]}
tls = "disable"

[limits]
connections = {connections}
{limits}
""",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pgbalise", "proxy", "--config", str(folder / "proxy.toml")]
    return _start("pgbalise", command, folder, listen)


def _folder(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp"))
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
    return folder


def _start(name: str, command: list[str], folder: Path, listen: tuple[str, int]) -> Relay:
    # PgBouncer refuses to run as root.
    user = "postgres" if os.geteuid() == 0 and name == "pgbouncer" else None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            # ends when this process does, however that dies
            ["setpriv", "--pdeathsig", "TERM", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=PROJECT,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            start_new_session=True,
        )
    relay = Relay(name, *listen, folder, process)
    try:
        _wait_for(*listen, process)
    except BaseException as error:
        error.add_note(relay.log()[-2000:])
        relay.__exit__(None, None, None)
        raise
    return relay


def _wait_for(host: str, port: int, process: subprocess.Popen[bytes] | None) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            socket.create_connection((host, port), 1).close()
        except OSError:
            if process is not None and process.poll() is not None:
                raise RuntimeError(f"it ended with status {process.returncode}") from None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
