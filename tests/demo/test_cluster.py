"""The throwaway server: private, relocated, and gone afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgbalise.demo import cluster as cluster_module
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.errors import DatabaseProblem, EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(cluster_module.__file__).resolve().parents[1]
IS_ROOT = os.geteuid() == 0
root_only = pytest.mark.skipif(not IS_ROOT, reason="an ordinary user's server is its own")

# Starts a server, says where, and holds it until its input ends.
HOLD = """
import json, sys
from pgbalise.demo.cluster import ThrowawayCluster
with ThrowawayCluster() as cluster:
    print(json.dumps([str(cluster.folder), cluster.psql("SELECT current_user")]), flush=True)
    sys.stdin.read()
"""

# Installs an extension, and has the server's Python import pgbalise from where it was told to.
IMPORT = """
import json, sys
from pathlib import Path
from pgbalise.demo.cluster import ThrowawayCluster
with ThrowawayCluster() as cluster:
    cluster.install_extension(Path(sys.argv[1]))
    paths = [str(path) for path in cluster.python_path]
    cluster.psql(
        "CREATE EXTENSION plpython3u; DO LANGUAGE plpython3u $$ import sys; "
        f"sys.path[:0] = {paths!r}; import pgbalise.errors $$"
    )
    print(json.dumps([str(cluster.folder), paths[0]]))
"""


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    """The source of an extension with one function, which returns the PYTHON_PATH given."""
    source = tmp_path / "sql"
    source.mkdir()
    (source / "pgb_probe.control").write_text("default_version = '1'\n")
    (source / "pgb_probe.sql.in").write_text(
        "CREATE FUNCTION pgb_probe() RETURNS text LANGUAGE sql AS $$ SELECT '@PATH@'::text $$;\n"
    )
    (source / "Makefile").write_text(
        "EXTENSION = pgb_probe\n"
        "DATA_built = pgb_probe--1.sql\n"
        "PGXS := $(shell $(PG_CONFIG) --pgxs)\n"
        "include $(PGXS)\n"
        "pgb_probe--1.sql: pgb_probe.sql.in\n"
        "\tsed 's|@PATH@|$(PYTHON_PATH)|' $< >$@\n"
    )
    return source


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that everyone can read, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="pgbalise-test-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def copy_package(target: Path, *, readable: bool) -> None:
    """Copy the pgbalise package into a folder, readable by everyone or by the owner only."""
    copy = target / "pgbalise"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chmod", "-R", "u=rwX,go=rX" if readable else "u=rwX,go=", copy], check=True)


def wait_until_gone(folder: Path, seconds: float = 20) -> bool:
    """Wait for a folder to disappear; say whether it did."""
    deadline = time.monotonic() + seconds
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not folder.exists()


def server_programs(folder: Path) -> list[str]:
    """What runs from the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            program = str((process / "exe").readlink())
        except OSError:
            continue
        if program.startswith(f"{folder}/"):
            found.append(program)
    return found


def test_folder_and_server_are_gone_after_an_exception() -> None:
    seen: list[Path] = []

    def fail() -> None:
        with ThrowawayCluster() as cluster:
            seen.append(cluster.folder)
            assert server_programs(cluster.folder)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not seen[0].exists()
    assert server_programs(seen[0]) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_folder_is_gone_when_the_process_is_killed(how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        folder = Path(json.loads(holder.stdout.readline())[0])
        assert folder.exists()
        holder.send_signal(how)
        holder.wait(20)
    assert wait_until_gone(folder)
    assert server_programs(folder) == []


def test_folder_is_gone_when_the_interpreter_exits_without_closing() -> None:
    script = (
        "from pgbalise.demo.cluster import ThrowawayCluster\n"
        "cluster = ThrowawayCluster()\n"
        "cluster.start()\n"
        "print(cluster.folder)\n"
    )
    folder = subprocess.check_output([sys.executable, "-c", script], text=True).strip()
    assert folder.startswith("/tmp/pgb-")
    assert not Path(folder).exists()


def test_a_forked_child_leaves_the_server_alone(cluster: ThrowawayCluster) -> None:
    child = os.fork()
    if child == 0:
        cluster.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert cluster.psql("SELECT 1") == "1\n"


def test_close_is_harmless_when_repeated_and_start_builds_anew() -> None:
    cluster = ThrowawayCluster()
    cluster.close()
    cluster.start()
    first = cluster.folder
    cluster.start()
    assert cluster.folder == first
    cluster.close()
    assert not first.exists()
    cluster.close()
    with pytest.raises(EnvironmentProblem, match="not running"):
        cluster.dsn()
    with cluster:
        assert cluster.psql("SELECT 1") == "1\n"


def test_nobody_else_can_enter_and_no_port_is_open(cluster: ThrowawayCluster) -> None:
    assert cluster.folder.stat().st_mode & 0o007 == 0
    for private in (cluster.data_dir, Path(cluster.host)):
        assert private.stat().st_mode & 0o077 == 0
    assert cluster.psql("SHOW listen_addresses") == "\n"
    assert len(f"{cluster.host}/.s.PGSQL.{cluster.port}") < 108


@root_only
def test_another_user_is_refused(cluster: ThrowawayCluster) -> None:
    done = subprocess.run(
        ["/usr/lib/postgresql/15/bin/psql", "-w", "-c", "SELECT 1", cluster.dsn()],
        user="nobody",
        group="nogroup",
        extra_groups=[],
        cwd="/",
        env={},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Permission denied" in done.stderr


@root_only
def test_the_server_can_write_nothing_that_root_runs(cluster: ThrowawayCluster) -> None:
    for folder, _, names in os.walk(cluster.folder / "usr"):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            status = path.lstat()
            assert status.st_uid == 0
            assert path.is_symlink() or status.st_mode & 0o022 == 0


def test_installation_is_relocated(cluster: ThrowawayCluster) -> None:
    shown = cluster.psql(
        "SELECT setting FROM pg_config"
        " WHERE name IN ('BINDIR', 'PKGLIBDIR', 'SHAREDIR') ORDER BY name"
    )
    usr = cluster.folder / "usr"
    assert shown.splitlines() == [
        f"{usr}/lib/postgresql/15/bin",
        f"{usr}/lib/postgresql/15/lib",
        f"{usr}/share/postgresql/15",
    ]


def test_extension_is_installed_here_and_finds_this_package(extension: Path) -> None:
    before = sorted(path.name for path in extension.iterdir())
    with ThrowawayCluster() as cluster:
        cluster.install_extension(extension)
        paths = [str(path) for path in cluster.python_path]
        told = cluster.psql("CREATE EXTENSION pgb_probe; SELECT pgb_probe()")
        assert told == ":".join(paths) + "\n"
        body = (
            f"import sys; sys.path[:0] = {paths!r};"
            "import numpy, psycopg, sqlglot, pgbalise.errors as e; return e.__file__"
        )
        file = cluster.psql(
            "CREATE EXTENSION plpython3u;"
            f"CREATE FUNCTION f() RETURNS text LANGUAGE plpython3u AS $py${body}$py$;"
            "SELECT f()"
        ).strip()
        # It may be a copy, when the server's user cannot read the original.
        assert Path(file).read_bytes() == (PACKAGE / "errors.py").read_bytes()
        cluster.install_extension(extension, [Path("/some/where")])
        assert cluster.python_path == (Path("/some/where"),)
    assert sorted(path.name for path in extension.iterdir()) == before
    assert list(Path("/usr/share/postgresql/15/extension").glob("pgb_probe*")) == []


def test_failing_make_is_one_clear_error(cluster: ThrowawayCluster, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("install:\n\t@echo 'disk on fire' >&2; exit 1\n")
    with pytest.raises(EnvironmentProblem, match="failed: disk on fire") as caught:
        cluster.install_extension(tmp_path, cluster.python_path)
    assert "\n" not in str(caught.value)


def test_missing_extension_source_is_one_clear_error(
    cluster: ThrowawayCluster, tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentProblem, match="none cannot be read") as caught:
        cluster.install_extension(tmp_path / "none", cluster.python_path)
    assert "\n" not in str(caught.value)


@root_only
def test_an_unreadable_package_is_copied(extension: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    copy_package(tmp_path, readable=False)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(extension)],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    folder, first = json.loads(done.stdout)
    assert first == f"{folder}/python"


@root_only
def test_unreadable_libraries_are_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, extension: Path, tmp_path: Path, cluster: ThrowawayCluster
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(closed))
    with pytest.raises(EnvironmentProblem, match="cannot be read by user postgres") as caught:
        cluster.install_extension(extension)
    assert "\n" not in str(caught.value)


@root_only
def test_runs_as_an_ordinary_user(extension: Path, public_folder: Path) -> None:
    """Root has nobody run it; when the tests run as an ordinary user, all of them show it."""
    copy_package(public_folder, readable=True)
    shutil.copytree(extension, public_folder / "sql")
    subprocess.run(["chmod", "-R", "a+rX", public_folder], check=True)
    nobody = {
        "cwd": "/",
        "env": {"PYTHONPATH": str(public_folder), "PATH": "/usr/bin:/bin"},
        "user": "nobody",
        "group": "nogroup",
        "extra_groups": [],
    }
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(public_folder / "sql")],
        capture_output=True,
        text=True,
        **nobody,
    )
    assert done.returncode == 0, done.stderr
    folder, first = json.loads(done.stdout)
    assert first == str(public_folder)
    assert not Path(folder).exists()

    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **nobody,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        name, superuser = json.loads(holder.stdout.readline())
        assert superuser == "postgres\n"
        assert Path(name).owner() == "nobody"
        assert Path(name).stat().st_mode & 0o077 == 0
        holder.stdin.close()
        assert holder.wait(20) == 0
    assert not Path(name).exists()


def test_data_survive_a_stop_and_a_crash(cluster: ThrowawayCluster) -> None:
    with ThrowawayCluster(settings={"work_mem": "7MB", "cluster_name": "it's \\ here"}) as own:
        assert own.psql("SHOW work_mem; SHOW cluster_name") == "7MB\nit's \\ here\n"
        own.psql("CREATE TABLE t AS SELECT 1 AS a; CHECKPOINT")
        own.stop()
        assert not own.running
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(own.dsn())
        own.start()
        own.stop(immediate=True)
        own.start()
        assert own.psql("TABLE t") == "1\n"
        assert "database system is ready to accept connections" in own.log_tail()
        # Two servers at a time do not meet.
        assert cluster.psql("SELECT to_regclass('t')") == "\n"


def test_psql_reports_the_first_complaint(cluster: ThrowawayCluster) -> None:
    with pytest.raises(DatabaseProblem, match="database postgres: ERROR:  division by zero"):
        cluster.psql("SELECT 1/0; SELECT 2")


def test_missing_postgresql_is_one_clear_error(tmp_path: Path) -> None:
    cluster = ThrowawayCluster(pg_config=tmp_path / "pg_config")
    with pytest.raises(EnvironmentProblem, match="PostgreSQL 15 is not installed") as caught:
        cluster.start()
    assert "make setup" in str(caught.value)


def test_a_bad_setting_is_one_clear_error_and_leaves_nothing() -> None:
    cluster = ThrowawayCluster(settings={"shared_buffers": "lots"})
    with pytest.raises(EnvironmentProblem, match=r"did not start in /tmp/pgb-\w+: ") as caught:
        cluster.start()
    assert not Path(str(caught.value).split("did not start in ")[1].split(":")[0]).exists()
    assert "\n" not in str(caught.value)
