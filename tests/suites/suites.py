"""The suites: how each is run against a server, and what became of each of its tests."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

RECORDER = Path(__file__).with_name("recorder.py")
BIN = Path("/usr/lib/postgresql/15/bin")
LIB = Path("/usr/lib/postgresql/15/lib")
USER = "postgres"

Outcomes = dict[str, tuple[str, str]]
"""By test: what became of it ("passed", "failed", ...), and what it said."""


@dataclass(frozen=True)
class Place:
    """Where a suite is to connect, as a superuser who is no recipient."""

    host: str
    port: int
    dbname: str

    def environment(self) -> dict[str, str]:
        return {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": USER,
            "PGDATABASE": self.dbname,
        }


@dataclass(frozen=True)
class Suite:
    """A suite that pytest runs, in an environment of its own.

    ``parts`` of its source are copied and run from the copy: the whole tree would shadow the
    installed package. ``options`` and ``variables`` may name {host}, {port} and {dbname}.
    """

    parts: tuple[str, ...]
    targets: tuple[str, ...]
    options: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    dbname: str = "suite"
    prepare: str = ""
    """SQL run as a superuser in its new database before each leg."""

    def run(
        self,
        source: Path,
        python: Path,
        place: Place,
        work: Path,
        only: frozenset[str],
        more: list[str],
    ) -> Outcomes:
        """Run the tests (of the files of those in ``only``, when there are any).

        ``more`` are pytest's options on top of the suite's own.
        """
        for part in self.parts:
            (work / part).parent.mkdir(parents=True, exist_ok=True)
            if (source / part).is_dir():
                shutil.copytree(source / part, work / part, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy(source / part, work / part)
        shutil.copy(RECORDER, work / "suite_recorder.py")
        names = {"host": place.host, "port": place.port, "dbname": place.dbname}
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PG")},
            **place.environment(),
            **{key: value.format(**names) for key, value in self.variables},
            "PYTHONPATH": str(work),
            "RECORDER_FILE": str(work / "outcomes.json"),
        }
        command = [
            str(python),
            *("-m", "pytest", "-q", "-p", "suite_recorder"),
            *("--timeout=120", "-W", "ignore::pytest.PytestUnknownMarkWarning"),
            *(option.format(**names) for option in self.options),
            *more,
            *(sorted({test.partition("::")[0] for test in only}) or self.targets),
        ]
        with (work / "log").open("wb") as log:
            subprocess.run(
                command, cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if not (work / "outcomes.json").exists():
            tail = (work / "log").read_text("utf-8", "replace").splitlines()[-15:]
            raise RuntimeError("the suite did not finish:\n" + "\n".join(tail))
        outcomes: Outcomes = {
            test: (outcome, said)
            for test, (outcome, said) in json.loads(
                (work / "outcomes.json").read_text("utf-8")
            ).items()
        }
        return outcomes


@dataclass(frozen=True)
class Regress:
    """PostgreSQL's own regression tests: a test is a file, its answers are compared as text."""

    dbname: str = "regression"
    # what pg_regress gives a database that it creates itself
    prepare: str = "".join(
        f"ALTER DATABASE regression SET {setting};\n"
        for setting in (
            "lc_messages TO 'C'",
            "lc_monetary TO 'C'",
            "lc_numeric TO 'C'",
            "lc_time TO 'C'",
            "bytea_output TO 'hex'",
            "timezone_abbreviations TO 'Default'",
        )
    )

    def run(
        self,
        source: Path,
        python: Path,
        place: Place,
        work: Path,
        only: frozenset[str],
        more: list[str],
    ) -> Outcomes:
        """Run the whole schedule: its tests build on each other. ``source`` has pg_regress.c."""
        for part in ("sql", "expected", "data"):
            shutil.copytree(source / part, work / part)
        for part in ("parallel_schedule", "resultmap"):
            shutil.copy(source / part, work / part)
        include = _output([str(BIN / "pg_config"), "--includedir-server"])
        subprocess.run(
            [
                *("gcc", "-O2", "-w", "-fPIC", "-shared", "-I", include),
                *(str(source / "regress.c"), "-o", str(work / "regress.so")),
            ],
            check=True,
        )
        for library in ("autoinc.so", "refint.so"):
            (work / library).symlink_to(LIB / library)
        account = pwd.getpwnam(USER)
        for path in (work, *work.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
        command = [
            str(LIB / "pgxs/src/test/regress/pg_regress"),
            *("--use-existing", f"--dbname={place.dbname}", f"--user={USER}"),
            *(f"--host={place.host}", f"--port={place.port}", f"--bindir={BIN}"),
            *(f"--dlpath={work}", f"--inputdir={work}", f"--outputdir={work}"),
            *("--schedule=parallel_schedule", "--max-concurrent-tests=20", *more),
        ]
        done = subprocess.run(
            command,
            cwd=work,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            user=USER,
            group=USER,
            extra_groups=[],
        )
        (work / "log").write_text(done.stdout + done.stderr, encoding="utf-8")
        diffs = work / "regression.diffs"
        outcomes = regress_outcomes(
            done.stdout, diffs.read_text("utf-8", "replace") if diffs.exists() else ""
        )
        if not outcomes:
            raise RuntimeError(f"pg_regress did not run: {done.stderr[-500:]}")
        return outcomes


def regress_outcomes(said: str, diffs: str) -> Outcomes:
    """Read what pg_regress printed; a failed test says its difference, without places."""
    changes: dict[str, str] = {}
    for part in re.split(r"^diff .*/(?=\w+\.out$)", diffs, flags=re.MULTILINE)[1:]:
        name, _, change = part.partition(".out\n")
        lines = [line for line in change.splitlines() if re.match(r"[-+](?![-+])", line)]
        changes[name] = "\n".join(lines)
    return {
        name: ("passed", "") if word == "ok" else ("failed", changes.get(name, ""))
        for name, word in re.findall(r"^(?:test| {4,})\s*(\S+)\s+\.\.\. (ok|FAILED)", said, re.M)
    }


def differences(direct: Outcomes, relayed: Outcomes) -> list[str]:
    """The tests that did not become the same, in order.

    Failures are alike when they say the same; only regression files' sayings are free of
    addresses and times, so there a different difference counts.
    """
    found = []
    for test in sorted(direct.keys() | relayed.keys()):
        here, there = direct.get(test), relayed.get(test)
        same = here is not None and there is not None and here[0] == there[0]
        if not same or ("::" not in test and here != there):
            found.append(test)
    return found


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


SUITES: dict[str, Suite | Regress] = {
    "psycopg": Suite(
        parts=("tests", "tools", "pyproject.toml"),
        targets=("tests",),
        options=("-p", "no:randomly", "-m", "not slow", "--durations=15"),
        variables=(
            ("PSYCOPG_TEST_DSN", f"host={{host}} port={{port}} dbname={{dbname}} user={USER}"),
        ),
    ),
    "sqlalchemy": Suite(
        parts=("test", "lib", "tools", "setup.cfg", "pyproject.toml"),
        targets=("test/dialect/postgresql", "test/dialect/test_suite.py"),
        options=("--dburi", f"postgresql+psycopg://{USER}:none@{{host}}:{{port}}/{{dbname}}"),
        prepare="CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2;"
        " CREATE EXTENSION hstore; CREATE EXTENSION citext;"
        " ALTER DATABASE suite SET default_text_search_config = 'pg_catalog.english';",
    ),
    "asyncpg": Suite(parts=("tests",), targets=("tests",), dbname="postgres"),
    "psycopg2": Suite(
        parts=("tests",),
        targets=("tests",),
        variables=(("PSYCOPG2_TESTDB", "{dbname}"),),
        prepare="CREATE EXTENSION hstore;",
    ),
    "pg8000": Suite(
        parts=("test", "README.md"),
        targets=("test",),
        options=("--benchmark-disable",),
        # its tests connect to the database named after the role
        dbname="postgres",
        prepare="CREATE EXTENSION hstore;",
    ),
    "regress": Regress(),
}
