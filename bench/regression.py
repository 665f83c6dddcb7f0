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
from pathlib import Path
from typing import TYPE_CHECKING

from bench.forwarder import Forwarder
from pgbalise.demo.cluster import ThrowawayCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    return [path for path in paths if path.exists()]


def run(
    source: Path,
    observe: Callable[[], object],
    *,
    only: Sequence[str] = (),
    after_file: Callable[[ThrowawayCluster, Path], None] = lambda cluster, path: None,
) -> None:
    """Run the suite; each of its sessions gets an observer of ``observe()``.

    ``only`` names files to run (the first, which sets the rest up, always is). ``after_file`` is
    called after each file.
    """
    with ThrowawayCluster(settings=SETTINGS) as cluster:
        work = _scratch(source, cluster)
        cluster.psql(
            f"CREATE DATABASE {DATABASE} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C';"
            f"{_AS_THE_SUITE}"
        )
        server = f"{cluster.host}/.s.PGSQL.{cluster.port}"
        with Forwarder(work, server, observe) as forwarder:
            for at, path in enumerate(files(source)):
                if only and at and path.stem not in only:
                    continue
                with path.open("rb") as script, (work / "out" / path.stem).open("wb") as out:
                    subprocess.run(
                        _psql(cluster),
                        stdin=script,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                        cwd=work,
                        env=_environment(work),
                        timeout=900,
                        check=False,
                    )
                if not cluster.running:
                    raise RuntimeError(f"the server died in {path.name}")
                if forwarder.problems:
                    raise forwarder.problems[0]
                after_file(cluster, path)


def _psql(cluster: ThrowawayCluster) -> list[str | Path]:
    hidden = ("-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on")
    return [cluster.bin_dir / "psql", "-X", "-a", "-q", "-d", DATABASE, *hidden]


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
    for name in ("out", "results"):
        (work / name).mkdir()
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
