"""Run another project's suite directly and through a relay, and print what differs.

    PYTHONPATH=. python tests/suites NAME --source DIR [--python FILE] [--through pgbalise] [-- ...]

One throwaway server; for each leg a new database in which pgbalise is installed and protects a
relation, and the suite connects as a superuser who is no recipient. A test that differs is run
again on both ways, with the others of its file: what does not differ the second time is called
flaky. The exit status is 1 when something differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import psycopg
from suites import SUITES, Outcomes, Place, differences

from bench.relays import PROJECT, PROXY_ROLE, loopback, open_to_loopback, pgbouncer, proxy
from pgbalise.database import apply_policy, enrol
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.install import install
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import connect

TEMPLATE = "suite_template"
SETTINGS = {
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "wal_level": "logical",
    "shared_buffers": "128MB",
}
PROTECTED = """
CREATE SCHEMA hospital;
CREATE TABLE hospital.patient (id integer PRIMARY KEY, born date, weight numeric(5,1));
INSERT INTO hospital.patient
SELECT n, date '1950-01-01' + 37 * n, 50.5 + n % 40 FROM generate_series(1, 100) AS n;
CREATE ROLE suite_recipient LOGIN;
"""
DOCUMENT = {
    "relation": {
        "hospital.patient": {
            "key": {"id": "integer"},
            "carrier": {
                "born": {"type": "date", "quantum": "1 day"},
                "weight": {"type": "numeric(5,1)", "quantum": "0.1"},
            },
        }
    }
}


class Stage:
    """The server and its template; a new database for each leg."""

    def __init__(self, stack: ExitStack, *, sql_only: bool) -> None:
        self.address = loopback()
        settings = {**SETTINGS, "listen_addresses": self.address}
        self.cluster = stack.enter_context(ThrowawayCluster(settings=settings))
        open_to_loopback(self.cluster, self.address)
        if not sql_only:
            self.cluster.install_extension(PROJECT / "sql")
        self.cluster.psql(f"CREATE DATABASE {TEMPLATE}")
        key = MasterKey(bytes(range(32)))
        self.cluster.psql(PROTECTED, dbname=TEMPLATE)
        with connect(self.cluster.dsn(TEMPLATE)) as session:
            install(session, sql_only=sql_only)
            session.run("CREATE ROLE %I LOGIN IN ROLE balise_proxy", PROXY_ROLE)
            with session.connection.transaction():
                apply_policy(session, DOCUMENT, key)
                enrol(session, ["suite_recipient"], RecipientClass.SECONDARY, key)
        self.roles = self._names("SELECT rolname FROM pg_roles")

    def renew(self, dbname: str, prepare: str) -> None:
        """Make the database anew and drop what the leg before left in the server."""
        with psycopg.connect(self.cluster.dsn("template1"), autocommit=True) as connection:
            for name in self._names("SELECT datname FROM pg_database"):
                if name not in ("postgres", "template0", "template1", TEMPLATE) or name == dbname:
                    connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
            for name in self._names("SELECT spcname FROM pg_tablespace"):
                if not name.startswith("pg_"):
                    connection.execute(f'DROP TABLESPACE "{name}"'.encode())
            for name in self._names("SELECT rolname FROM pg_roles"):
                if name not in self.roles:
                    connection.execute(f'DROP ROLE "{name}"'.encode())
            connection.execute(f"CREATE DATABASE {dbname} TEMPLATE {TEMPLATE}".encode())
        self.cluster.psql(prepare, dbname=dbname)

    def _names(self, query: str) -> list[str]:
        return self.cluster.psql(query, dbname="template1").split()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tests/suites", description=__doc__)
    parser.add_argument("name", choices=SUITES)
    parser.add_argument("--source", type=Path, required=True, help="the project's source tree")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="to run it with")
    parser.add_argument("--through", choices=("pgbalise", "pgbouncer", "nothing"), default=None)
    parser.add_argument("--sql-only", action="store_true", help="the catalog without the extension")
    parser.add_argument("--json", type=Path, help="write all outcomes there")
    parser.add_argument("--keep", type=Path, help="keep each leg's files in this folder")
    # argparse gives no positional arguments that stand behind options
    at = arguments.index("--") if "--" in arguments else len(arguments)
    given, more = parser.parse_args(arguments[:at]), arguments[at + 1 :]
    suite = SUITES[given.name]
    legs: dict[str, Outcomes] = {}
    with ExitStack() as stack:
        stage = Stage(stack, sql_only=given.sql_only)
        direct = (stage.address, stage.cluster.port)
        relayed = _relay(stack, given.through, stage, direct)

        def leg(name: str, place: tuple[str, int], only: frozenset[str]) -> Outcomes:
            stage.renew(suite.dbname, suite.prepare)
            with ExitStack() as kept:
                work = (
                    given.keep / name
                    if given.keep
                    else Path(kept.enter_context(tempfile.TemporaryDirectory()))
                )
                work.mkdir(parents=True, exist_ok=True)
                work.chmod(0o755)
                begin = perf_counter()
                found = suite.run(
                    given.source.resolve(),
                    given.python.absolute(),
                    Place(*place, suite.dbname),
                    work.resolve(),
                    only,
                    more,
                )
            print(f"{name}: {_counts(found)} in {perf_counter() - begin:.0f} s", flush=True)
            return found

        legs["direct"] = leg("direct", direct, frozenset())
        if relayed is None:
            _write(given.json, legs)
            return 0
        legs["relayed"] = leg("relayed", relayed, frozenset())
        different = differences(legs["direct"], legs["relayed"])
        flaky = _flaky(different, leg, direct, relayed)
        _write(given.json, legs)
    _print(legs, different, flaky)
    return int(bool(set(different) - flaky))


def _relay(
    stack: ExitStack, through: str | None, stage: Stage, direct: tuple[str, int]
) -> tuple[str, int] | None:
    if through is None:
        return None
    if through == "nothing":
        # twice the same way: what differs says how stable the suite is
        return direct
    # the same port as the server's: suites ask for it
    listen = (loopback(1), stage.cluster.port)
    if through == "pgbouncer":
        stack.enter_context(pgbouncer(direct, listen, stage.roles))
    else:
        stack.enter_context(proxy(direct, listen, limits="statement_bytes = 134217728"))
    return listen


def _flaky(
    different: list[str],
    leg: Callable[[str, tuple[str, int], frozenset[str]], Outcomes],
    direct: tuple[str, int],
    relayed: tuple[str, int],
) -> frozenset[str]:
    if not different:
        return frozenset()
    wanted = frozenset(different)
    again = [leg(f"{name} again", place, wanted) for name, place in
             (("direct", direct), ("relayed", relayed))]  # fmt: skip
    return wanted - frozenset(differences(*again))


def _counts(outcomes: Outcomes) -> str:
    counts = Counter(outcome for outcome, _ in outcomes.values())
    return ", ".join(f"{number:,} {outcome}" for outcome, number in sorted(counts.items()))


def _print(legs: dict[str, Outcomes], different: list[str], flaky: frozenset[str]) -> None:
    for test in different:
        print(f"\n{test}{'  (flaky)' if test in flaky else ''}")
        for name, outcomes in legs.items():
            outcome, said = outcomes.get(test, ("absent", ""))
            print(f"    {name}: {outcome} {said[:400]}")
    print(f"\n{len(different)} tests differ, {len(flaky)} of them flaky")


def _write(path: Path | None, legs: dict[str, Outcomes]) -> None:
    if path is not None:
        path.write_text(json.dumps(legs, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
