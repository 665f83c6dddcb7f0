"""PostgreSQL's regression files, run by psql in the suite's own order on a throwaway server.

``source`` is a folder ``src/test/regress`` or ``contrib/NAME`` of PostgreSQL's source: it has
``sql/``, perhaps ``data/`` and ``parallel_schedule``. The C library of the suite is compiled when
there is a ``regress.c``; without a compiler the statements that need it fail, which the measure
does not mind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bench.forwarder import Forwarder
from pgbalise.demo.cluster import ThrowawayCluster

if TYPE_CHECKING:
    from collections.abc import Callable

DATABASE = "regression"
SETTINGS = {
    "shared_preload_libraries": "pgaudit",
    "pgaudit.log": "all",
    "pgaudit.log_relation": "on",
    # the schema of a relation in pg_catalog alone would only make noise
    "pgaudit.log_catalog": "off",
    "pgaudit.log_client": "on",
    # sent to the client whatever client_min_messages says
    "pgaudit.log_level": "info",
    # sessions that switch plan types off make questions look so costly that they are compiled
    "jit": "off",
    "max_prepared_transactions": "2",
    "max_connections": "30",
    "shared_buffers": "256MB",
}
_AS_THE_SUITE = "; ".join(
    f"ALTER DATABASE {DATABASE} SET {name} TO '{value}'"
    for name, value in {
        "lc_messages": "C",
        "lc_monetary": "C",
        "lc_numeric": "C",
        "lc_time": "C",
        "bytea_output": "hex",
        "timezone_abbreviations": "Default",
    }.items()
)
# one statement that recurses to the stack's end: pgaudit looks through all levels at each
_LEFT_OUT = frozenset({"infinite_recurse"})
_LIBRARIES = ("autoinc.so", "refint.so", "tcn.so")


def files(source: Path) -> list[Path]:
    """Return the suite's files in the order it runs them; by name where it has no schedule."""
    schedule = source / "parallel_schedule"
    if not schedule.exists():
        return sorted((source / "sql").glob("*.sql"))
    names = [
        name
        for line in schedule.read_text(encoding="utf-8").splitlines()
        if line.startswith("test:")
        for name in line.removeprefix("test:").split()
    ]
    paths = [source / "sql" / f"{name}.sql" for name in names]
    return [path for path in paths if path.exists() and path.stem not in _LEFT_OUT]


class Suite:
    """The suite's server, with a forwarder before it; each session gets an observer of its own."""

    def __init__(self, source: Path, observe: Callable[[], object]) -> None:
        self.source = source
        self._observe = observe
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.cluster = stack.enter_context(ThrowawayCluster(settings=SETTINGS))
            self._work = _scratch(self.source, self.cluster)
            self.cluster.psql(
                f"CREATE DATABASE {DATABASE} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C';"
                f"{_AS_THE_SUITE}"
            )
            server = f"{self.cluster.host}/.s.PGSQL.{self.cluster.port}"
            self._forwarder = stack.enter_context(Forwarder(self._work, server, self._observe))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, path: Path) -> None:
        """Let psql run one of the files as the suite does; its errors are none of ours."""
        hidden = ("-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on")
        self.call("psql", "-X", "-a", "-q", "-d", DATABASE, *hidden, script=path)

    def call(self, program: str, *options: str, script: Path | None = None) -> str:
        """Run a program of PostgreSQL's through the forwarder; return what it printed."""
        with (script or Path(os.devnull)).open("rb") as stdin:
            done = subprocess.run(
                [self.cluster.bin_dir / program, *options],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._work,
                env=_environment(self._work),
                timeout=900,
                check=False,
            )
        if not self.cluster.running:
            raise RuntimeError(f"the server died: {program} {script}")
        if self._forwarder.problems:
            raise self._forwarder.problems[0]
        return done.stdout.decode("utf-8", "replace")


def _environment(work: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(work),
        "LC_ALL": "C.UTF-8",
        "PGHOST": str(work),
        "PGPORT": "5432",
        "PGUSER": "postgres",
        "PGTZ": "PST8PDT",
        "PGDATESTYLE": "Postgres, MDY",
        "PGGSSENCMODE": "disable",
        "PG_ABS_SRCDIR": str(work),
        "PG_ABS_BUILDDIR": str(work),
        "PG_LIBDIR": str(work),
        "PG_DLSUFFIX": ".so",
    }


def _scratch(source: Path, cluster: ThrowawayCluster) -> Path:
    """Make a folder the server can read and write: the suite's data, its libraries, results."""
    work = cluster.folder / "suite"
    work.mkdir()
    (work / "results").mkdir()
    for name in ("data", "sql", "expected"):
        if (source / name).exists():
            shutil.copytree(source / name, work / name)
    pg_config = Path(os.environ.get("PG_CONFIG", "/usr/lib/postgresql/15/bin/pg_config"))

    def ask(what: str) -> Path:
        done = subprocess.run([pg_config, what], capture_output=True, text=True, check=True)
        return Path(done.stdout.strip())

    for name in _LIBRARIES:
        shutil.copy(ask("--pkglibdir") / name, work / name)
    compiler = shutil.which("cc")
    if compiler and (source / "regress.c").exists():
        include = f"-I{ask('--includedir-server')}"
        command = [compiler, "-shared", "-fPIC", "-O1", include, source / "regress.c"]
        subprocess.run([*command, "-o", work / "regress.so"], check=True)
    for folder, _, names in os.walk(work):
        Path(folder).chmod(0o777)
        for name in names:
            (Path(folder) / name).chmod(0o666)
    return work
