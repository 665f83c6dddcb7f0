"""A private PostgreSQL server that leaves nothing behind.

The server listens on a Unix socket inside its own temporary folder and runs from a relocated copy
of the installed PostgreSQL, so an extension can be installed into it without touching a system
folder and without being root. Folder layout::

    /tmp/pgb-XXXXXXXX/
        usr/...        binaries (copied), libraries and shared files (links), this extension;
                       below another name when the installation is not in /usr
        python/        the pgbalise package, when the server's user cannot read the original
        settings.conf  the server's settings
        server.log     what the server said
        data/          the database cluster          (the server's user only)
        run/           the Unix socket               (the server's user only)

Every connection is trusted, and a superuser of the server can run code as its user; the wall is
the folder, which only the server's user and its group can enter.
"""

from __future__ import annotations

import atexit
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from psycopg.conninfo import make_conninfo

from pgbalise.errors import DatabaseProblem, EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

_T = TypeVar("_T")

PG_CONFIG: Final = Path("/usr/lib/postgresql/15/bin/pg_config")
"""Where Debian puts the ``pg_config`` of PostgreSQL 15; the variable PG_CONFIG overrides it."""

SERVER_USER: Final = "postgres"
"""Who runs the server when root starts it, since PostgreSQL refuses to run as root."""

SYSTEM_PYTHON: Final = Path("/usr/bin/python3")
"""The interpreter that Debian's plpython3u embeds."""

PORT: Final = 5432

_INSTALL_HINT: Final = "run: make setup"

# Durability is worth nothing in a folder that is deleted afterwards.
_DEFAULTS: Final[Mapping[str, str]] = {
    "autovacuum_naptime": "1h",
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "log_line_prefix": "%m [%p] %u@%d ",
    "log_timezone": "UTC",
    "max_wal_size": "2GB",
    "synchronous_commit": "off",
    "timezone": "UTC",
    "unix_socket_permissions": "0700",
}

# Holds the read end of a pipe whose write end dies with this process, however it dies; then ends
# the server, which is recognised by its executable lying in the folder, and removes the folder.
_REAPER: Final = r"""
trap '' HUP INT TERM
read -r _
[ -d "$1" ] || exit 0
ours() { case "$(readlink "/proc/$pid/exe")" in "$1"/*) return 0 ;; *) return 1 ;; esac; }
pid=$(head -n 1 "$1/data/postmaster.pid")
if [ -n "$pid" ] && ours "$1"; then
    kill -QUIT "$pid"
    tries=0
    while ours "$1"; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || kill -KILL "$pid"
        sleep 0.1
    done
fi
rm -rf -- "$1"
"""

# Run as the server's user: which of these folders and files can it not read, and which Python
# is it that would try?
_READABILITY: Final = r"""
import json, os, sys
def unreadable(top):
    if not os.access(top, os.R_OK | os.X_OK):
        return True
    if os.path.basename(top) != "pgbalise":
        numpy = os.path.join(top, "numpy", "__init__.py")
        return os.path.exists(os.path.dirname(numpy)) and not os.access(numpy, os.R_OK)
    return any(
        not os.access(os.path.join(folder, name), os.R_OK)
        for folder, _, names in os.walk(top)
        for name in names
    )
print(json.dumps([list(sys.version_info[:2]), [p for p in sys.argv[1:] if unreadable(p)]]))
"""


@dataclass(frozen=True)
class Installation:
    """A PostgreSQL on this machine, from which a ThrowawayCluster makes its own copy.

    ``bin_dir`` has initdb and postgres. The programs must find ``lib_dir`` and ``share_dir`` by
    their place relative to their own. ``pg_config`` is the program that knows how extensions are
    built for it, None when it has none: then only what needs no extension can be installed.
    """

    bin_dir: Path
    lib_dir: Path
    share_dir: Path
    pg_config: Path | None = None

    @classmethod
    def of(cls, pg_config: Path) -> Installation:
        """Return the installation that ``pg_config`` describes.

        Raises EnvironmentProblem when it does not run or its server is missing.
        """
        missing = EnvironmentProblem(
            f"PostgreSQL 15 is not installed: {pg_config} does not work or lacks its server",
            hint=_INSTALL_HINT,
        )
        try:
            done = subprocess.run(
                [pg_config, "--bindir", "--pkglibdir", "--sharedir"],
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise missing from error
        bin_dir, lib_dir, share_dir = (Path(line) for line in done.stdout.splitlines())
        if not (bin_dir / "initdb").exists() or not (bin_dir / "postgres").exists():
            raise missing
        return cls(bin_dir, lib_dir, share_dir, pg_config)


class ThrowawayCluster:
    """A PostgreSQL server in a temporary folder, gone when the context ends.

    ``settings`` go into the server's configuration on top of defaults that trade durability for
    speed. ``installation`` is what to relocate; without it, the one of ``pg_config``, and without
    that, the one of the variable PG_CONFIG or Debian's PostgreSQL 15. The superuser is
    ``postgres``, authentication is ``trust``.

    With ``primary``, a running cluster of the same installation, the server starts as its hot
    standby: a copy taken by pg_basebackup that streams what is written there, until
    ``pg_promote()``.

    Leaving the context, ``close()``, the interpreter's normal exit and even its death by a signal
    stop the server and remove the folder; after a signal that takes up to a second.

    Raises EnvironmentProblem when PostgreSQL is not installed or does not start.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        pg_config: Path | None = None,
        installation: Installation | None = None,
        primary: ThrowawayCluster | None = None,
    ) -> None:
        self.port: int = PORT
        self.python_path: tuple[Path, ...] = ()
        """Folders the server's Python was given; set by ``install_extension``."""
        self._settings = {**_DEFAULTS, **(settings or {})}
        self._pg_config = pg_config or Path(os.environ.get("PG_CONFIG") or PG_CONFIG)
        self._installation = installation
        self._primary = primary
        self._account: pwd.struct_passwd | None = None
        self._folder: Path | None = None
        self._bin_dir: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._reaper: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """The temporary folder that holds everything; EnvironmentProblem before ``start()``."""
        return _started(self._folder)

    @property
    def host(self) -> str:
        """The folder of the Unix socket, as libpq's ``host``."""
        return str(self.folder / "run")

    @property
    def bin_dir(self) -> Path:
        """The relocated programs: initdb, postgres and whatever else the installation has."""
        return _started(self._bin_dir)

    @property
    def data_dir(self) -> Path:
        """The database cluster's folder."""
        return self.folder / "data"

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._server is not None and self._server.poll() is None

    def dsn(self, dbname: str = "postgres", user: str = "postgres") -> str:
        """Return the libpq connection string for one database and role."""
        return make_conninfo(host=self.host, port=self.port, dbname=dbname, user=user)

    def start(self) -> None:
        """Start the server and return once it accepts connections; nothing when it runs.

        The first start builds the folder; a start after ``stop()`` finds the data again.
        """
        if self.running:
            return
        try:
            if self._folder is None:
                self._create_folder()
                self._relocate_installation()
                self._create_data()
            self._launch()
        except BaseException:
            self.close()
            raise

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server and keep its data; ``immediate`` simulates a crash (no checkpoint)."""
        server, self._server = self._server, None
        if server is None:
            return
        for how, seconds in ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
            if immediate and how is signal.SIGINT:
                continue
            if server.poll() is None:
                server.send_signal(how)
            try:
                server.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
            return

    def close(self) -> None:
        """Stop the server and remove the folder; harmless when repeated."""
        # A forked child inherits this object and its atexit hook, but not the server.
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.close)
        self.stop(immediate=True)
        folder, self._folder, self._bin_dir = self._folder, None, None
        if folder is not None:
            shutil.rmtree(folder)
        reaper, self._reaper = self._reaper, None
        if reaper is not None:
            reaper.communicate()

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the server's log."""
        try:
            text = (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def psql(self, script: str, *, dbname: str = "postgres", user: str = "postgres") -> str:
        """Run a script with psql, stop at the first error, return unaligned rows (``a|b``).

        Raises DatabaseProblem with psql's first line of complaint, EnvironmentProblem when the
        installation has no psql.
        """
        options = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(dbname, user))
        if not (self.bin_dir / "psql").exists():
            raise EnvironmentProblem("this PostgreSQL has no psql", hint=_INSTALL_HINT)
        done = subprocess.run(
            [self.bin_dir / "psql", *options],
            input=script,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=self._environment(),
            check=False,
        )
        if done.returncode:
            complaint = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise DatabaseProblem(f"psql on database {dbname}: {complaint[0]}")
        return done.stdout

    def install_extension(self, sql_dir: Path, python_path: Sequence[Path] | None = None) -> None:
        """Build and install the extension of ``sql_dir`` (PGXS) into this cluster's own folder.

        ``python_path`` lists the folders where the server's Python finds pgbalise and what it
        needs; without it they are the running package's and its environment's, and the package is
        copied when the server's user cannot read it. The result is kept in ``self.python_path``.

        Raises EnvironmentProblem when ``sql_dir`` is no such source, the server's user cannot read
        the libraries, make fails, or the installation cannot build extensions.
        """
        pg_config = _started(self._installation).pg_config
        if pg_config is None:
            raise EnvironmentProblem(
                f"the PostgreSQL in {_started(self._installation).bin_dir} has no pg_config, "
                "so no extension can be built for it",
                hint="install the catalog as plain SQL: pgbalise init --sql-only",
            )
        self.python_path = (
            tuple(Path(part) for part in python_path)
            if python_path is not None
            else self._find_python_path()
        )
        # make runs on a copy: the source folder may be read-only, or in use by another run.
        build = self.folder / "build"
        shutil.rmtree(build, ignore_errors=True)
        try:
            shutil.copytree(sql_dir, build, ignore=shutil.ignore_patterns("__pycache__"))
        except OSError as error:
            raise EnvironmentProblem(
                f"the extension's source in {sql_dir} cannot be read",
                hint="give the folder sql/ of the project's source",
            ) from error
        command = [
            "make",
            "-C",
            str(build),
            "install",
            f"DESTDIR={self.folder}",
            f"PG_CONFIG={pg_config}",
            f"PYTHON_PATH={':'.join(map(str, self.python_path))}",
        ]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                # A make above this process would pass its flags and its job server on.
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
                umask=0o022,
                check=False,
            )
        except FileNotFoundError as error:
            raise EnvironmentProblem(
                "make is not installed, cannot install the extension", hint=_INSTALL_HINT
            ) from error
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            complaint = next((line for line in said if "***" not in line), "it said nothing")
            raise EnvironmentProblem(
                f"make install of the extension in {sql_dir} failed: {complaint}",
                hint=f"run: make -C {sql_dir} install DESTDIR=/tmp/x PG_CONFIG={pg_config}",
            )
        shutil.rmtree(build)
        self._open_installation()

    def _create_folder(self) -> None:
        if os.geteuid() == 0:
            try:
                self._account = pwd.getpwnam(SERVER_USER)
            except KeyError as error:
                raise EnvironmentProblem(
                    f"there is no user {SERVER_USER} to run PostgreSQL as", hint=_INSTALL_HINT
                ) from error
        self._owner = os.getpid()
        # The path of a Unix socket holds 107 bytes, so TMPDIR is not followed.
        folder = Path(tempfile.mkdtemp(prefix="pgb-", dir="/tmp"))
        self._folder = folder
        atexit.register(self.close)
        self._reaper = subprocess.Popen(
            ["/bin/sh", "-c", _REAPER, "pgbalise-reaper", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            start_new_session=True,
        )
        # What the server can write is apart from what root reads and runs.
        for name in ("data", "run"):
            (folder / name).mkdir(mode=0o700)
        if self._account is not None:
            os.chown(folder, 0, self._account.pw_gid)
            folder.chmod(0o750)
            for name in ("data", "run"):
                os.chown(folder / name, self._account.pw_uid, self._account.pw_gid)

    def _relocate_installation(self) -> None:
        """Copy the programs and link the rest, in the installation's own layout.

        PostgreSQL derives where its libraries and shared files are from where its program really
        is: a link would lead it back to the system's, a copy keeps it in the folder.
        """
        if self._installation is None:
            self._installation = Installation.of(self._pg_config)
        origin = self._installation
        own_bin, own_lib, own_share = (
            self.folder / path.relative_to("/")
            for path in (origin.bin_dir, origin.lib_dir, origin.share_dir)
        )
        own_bin.mkdir(parents=True)
        for program in origin.bin_dir.iterdir():
            shutil.copy2(program, own_bin / program.name, follow_symlinks=False)
        # Folders into which `make install` writes are real, or it would write to the system.
        _link_entries(origin.lib_dir, own_lib, real=("bitcode",))
        _link_entries(origin.share_dir, own_share, real=("extension", "tsearch_data"))
        for stale in (own_share / "extension").glob("pgbalise*"):
            stale.unlink()
        self._bin_dir = own_bin
        self._open_installation()

    def _open_installation(self) -> None:
        origin = _started(self._installation)
        for top in {path.parts[1] for path in (origin.bin_dir, origin.lib_dir, origin.share_dir)}:
            _open_to_readers(self.folder / top)

    def _create_data(self) -> None:
        if self._primary is None:
            program, *options = (
                "initdb",
                f"--pgdata={self.data_dir}",
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            )
        else:
            program, *options = (
                "pg_basebackup",
                f"--pgdata={self.data_dir}",
                f"--dbname={self._primary.dsn()}",
                "--checkpoint=fast",
                "--write-recovery-conf",
                "--no-sync",
            )
        try:
            done = subprocess.run(
                [self.bin_dir / program, *options],
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                cwd=self.folder,
                env=self._environment(),
                check=False,
                user=self._uid,
                group=self._gid,
                extra_groups=self._groups,
            )
        except FileNotFoundError as error:
            raise EnvironmentProblem(
                f"this PostgreSQL has no {program}", hint=_INSTALL_HINT
            ) from error
        if done.returncode:
            complaint = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise EnvironmentProblem(
                f"{program} failed in {self.data_dir}: {complaint[-1]}",
                hint="check the free space in /tmp and the PostgreSQL packages",
            )

    def _launch(self) -> None:
        settings = {**self._settings, "unix_socket_directories": self.host, "port": str(PORT)}
        conf = self.folder / "settings.conf"
        conf.write_text(
            "".join(f"{name} = {_quote(value)}\n" for name, value in settings.items()),
            encoding="utf-8",
        )
        conf.chmod(0o644)
        with (self.folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    self.bin_dir / "postgres",
                    "-D",
                    self.data_dir,
                    "-c",
                    f"config_file={conf}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment(),
                user=self._uid,
                group=self._gid,
                extra_groups=self._groups,
                # Ctrl-C goes to this process, which then stops the server in order.
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not self._accepts_connections():
            if self._server.poll() is not None or time.monotonic() > deadline:
                log_lines = self.log_tail(50).splitlines()
                fatal = [line for line in log_lines if "FATAL" in line or "ERROR" in line]
                complaint = (fatal or log_lines or ["it said nothing"])[-1]
                raise EnvironmentProblem(
                    f"PostgreSQL did not start in {self.folder}: {complaint}",
                    hint="check the settings given and the free memory and space in /tmp",
                )
            time.sleep(0.02)

    def _accepts_connections(self) -> bool:
        # Line 8 is the postmaster's own word, line 1 tells a crashed predecessor's file apart.
        try:
            lines = (self.data_dir / "postmaster.pid").read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return False
        server = _started(self._server)
        return len(lines) >= 8 and lines[0] == str(server.pid) and lines[7].strip() == "ready"

    def _find_python_path(self) -> tuple[Path, ...]:
        package = Path(__file__).resolve().parents[1]
        libraries = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
        libraries.discard(package.parent)
        version, unreadable = self._ask_server_python([package, *sorted(libraries)])
        if version != sys.version_info[:2]:
            raise EnvironmentProblem(
                f"PL/Python is Python {version[0]}.{version[1]}, but pgbalise runs on "
                f"{sys.version_info[0]}.{sys.version_info[1]} ({sys.executable})",
                hint=f"use an environment of {SYSTEM_PYTHON}, as `make setup` creates",
            )
        for folder in libraries & unreadable:
            raise EnvironmentProblem(
                f"the libraries in {folder} cannot be read by user {SERVER_USER}, who runs "
                "PostgreSQL",
                hint="use the environment that `make setup` creates",
            )
        if package not in unreadable:
            return (package.parent, *sorted(libraries))
        if package.parent == Path(sysconfig.get_path("purelib")).resolve():
            libraries = {package.parent}
        copy = self.folder / "python"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(package, copy / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        _open_to_readers(copy)
        return (copy, *sorted(libraries))

    def _ask_server_python(self, paths: Sequence[Path]) -> tuple[tuple[int, int], set[Path]]:
        try:
            done = subprocess.run(
                [SYSTEM_PYTHON, "-I", "-S", "-c", _READABILITY, *paths],
                capture_output=True,
                text=True,
                cwd=self.folder,
                env=self._environment(),
                check=True,
                user=self._uid,
                group=self._gid,
                extra_groups=self._groups,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise EnvironmentProblem(
                f"{SYSTEM_PYTHON}, which PL/Python embeds, does not run", hint=_INSTALL_HINT
            ) from error
        version, unreadable = json.loads(done.stdout)
        return (int(version[0]), int(version[1])), {Path(path) for path in unreadable}

    @property
    def _uid(self) -> int | None:
        return None if self._account is None else self._account.pw_uid

    @property
    def _gid(self) -> int | None:
        return None if self._account is None else self._account.pw_gid

    @property
    def _groups(self) -> list[int] | None:
        return None if self._account is None else []

    def _environment(self) -> dict[str, str]:
        """Return an environment without the caller's PG*, PYTHON* and locale variables."""
        return {
            "HOME": self.host,
            "LC_ALL": "C.UTF-8",
            "PATH": f"{self.bin_dir}:/usr/local/bin:/usr/bin:/bin",
        }


def _started(value: _T | None) -> _T:
    if value is None:
        raise EnvironmentProblem(
            "the throwaway PostgreSQL server is not running", hint="call start() first"
        )
    return value


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _link_entries(source: Path, target: Path, *, real: Sequence[str]) -> None:
    """Make ``target`` a folder of links to the entries of ``source``; ``real`` are folders too."""
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.name in real and entry.is_dir():
            _link_entries(entry, target / entry.name, real=())
        else:
            (target / entry.name).symlink_to(entry)


def _open_to_readers(top: Path) -> None:
    """Let everyone who can enter the folder above read what is below ``top`` (``a+rX``)."""
    for folder, _, names in os.walk(top):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            if path.is_symlink():
                continue
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))
