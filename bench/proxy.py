"""What the proxy costs, beside PgBouncer in session mode: same server, same answers, one process.

``python -m bench proxy`` measures it on a server of its own, clients and relays on TCP without TLS.
Through PgBouncer a recipient names the marked views, through the proxy the stored relations. The
two take turns; each figure is a ratio of medians. Before anything is timed, the rows that the two
give are compared.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import psycopg

from bench.relays import (
    PROJECT,
    PROXY_ROLE,
    Relay,
    loopback,
    open_to_loopback,
    pgbouncer,
    proxy,
)
from pgbalise.database import apply_policy, enrol
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.install import install
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import connect

ROWS = 1_000_000
SCALE = 10
ROUNDS = 7
SECONDS = 8
CLIENTS = 8
IDLE = 2_000
BAR_COPY = 1.0
BAR_PREPARED = 0.75
BAR_SIMPLE = 0.4
BAR_IDLE_MEGABYTES = 400.0
ROLE = "research"
HOW = "python -m bench proxy"
SETTINGS = {
    "shared_buffers": "1GB",
    "effective_cache_size": "3GB",
    "max_connections": str(IDLE + 50),
}

TABLE = """
CREATE SCHEMA hospital;
CREATE TABLE hospital.reading (
    id bigint PRIMARY KEY, patient_id integer NOT NULL, code text NOT NULL,
    taken_at timestamptz NOT NULL, value numeric(8,1) NOT NULL, score integer NOT NULL,
    ratio double precision NOT NULL, note text NOT NULL, site text NOT NULL
);
SELECT setseed(0.25);
INSERT INTO hospital.reading
SELECT i, 1 + (random() * 50000)::int, (ARRAY['GLU', 'NA', 'K', 'HB'])[1 + i % 4],
    timestamptz '2018-01-01 00:00+00' + floor(random() * 200000000) * interval '1 second',
    round((40 + random() * 260)::numeric, 1), 1 + floor(random() * 998)::int,
    round((0.1 + random() * 9.8)::numeric, 3)::float8, md5(i::text), 'site ' || i % 12
FROM generate_series(1, {rows}) AS i;
VACUUM (FREEZE, ANALYZE) hospital.reading;
CREATE ROLE {role} LOGIN;
GRANT USAGE ON SCHEMA hospital TO {role};
GRANT SELECT ON pgbench_branches TO {role};
"""

DOCUMENT: dict[str, Any] = {
    "relation": {
        "hospital.reading": {
            "key": {"id": "bigint"},
            "carrier": {
                "taken_at": {"type": "timestamptz", "quantum": "1 second"},
                "value": {"type": "numeric(8,1)", "quantum": "0.1", "bounds": ["0", "1000"]},
                "score": {"type": "integer", "quantum": "1", "bounds": ["0", "1000"]},
                "ratio": {"type": "double precision", "quantum": "0.001", "scale": 3},
            },
        },
        "public.pgbench_accounts": {
            "key": {"aid": "integer"},
            "carrier": {"abalance": {"type": "integer", "quantum": "1"}},
        },
    }
}

# pgbench's own -S script, with the marked view's name.
SELECT_MARKED = r"""
\set aid random(1, 100000 * :scale)
SELECT abalance FROM marked.pgbench_accounts WHERE aid = :aid;
"""


def measure(
    *, rows: int = ROWS, rounds: int = ROUNDS, seconds: int = SECONDS, idle: int = IDLE
) -> list[dict[str, Any]]:
    """Return one entry per figure: name, value, unit, bar, holds, how."""
    with ExitStack() as stack:
        address = loopback()
        settings = {**SETTINGS, "listen_addresses": address}
        cluster = stack.enter_context(ThrowawayCluster(settings=settings))
        cluster.install_extension(PROJECT / "sql")
        open_to_loopback(cluster, address)
        _fill(cluster, rows)
        upstream = (address, cluster.port)
        peer = stack.enter_context(pgbouncer(upstream, (address, 6433), [ROLE], idle + 50))
        own = stack.enter_context(proxy(upstream, (address, 6432), connections=idle + 50))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = _Bench(cluster, peer, own, folder, rounds, seconds)
        bench.compare()
        bench.copies(rows)
        bench.transactions()
        bench.idle(idle)
        return bench.entries


def _fill(cluster: ThrowawayCluster, rows: int) -> None:
    _say(f"filling {rows:,} rows and pgbench at scale {SCALE}")
    subprocess.run(
        [cluster.bin_dir / "pgbench", "-i", "-q", "-s", str(SCALE), cluster.dsn()],
        check=True,
        capture_output=True,
    )
    cluster.psql(TABLE.format(rows=rows, role=ROLE))
    key = MasterKey(bytes(range(32)))
    with connect(cluster.dsn()) as session:
        install(session)
        session.run("CREATE ROLE %I LOGIN IN ROLE balise_proxy", PROXY_ROLE)
        with session.connection.transaction():
            apply_policy(session, DOCUMENT, key)
            enrol(session, [ROLE], RecipientClass.SECONDARY, key)
    cluster.psql("CHECKPOINT")


class _Bench:
    def __init__(
        self,
        cluster: ThrowawayCluster,
        peer: Relay,
        own: Relay,
        folder: Path,
        rounds: int,
        seconds: int,
    ) -> None:
        self.cluster, self.peer, self.own = cluster, peer, own
        self.folder, self.rounds, self.seconds = folder, rounds, seconds
        self.entries: list[dict[str, Any]] = []

    def compare(self) -> None:
        """Both give the marked rows, or nothing that follows would mean anything."""
        tail = "WHERE id <= 5000 ORDER BY id"
        answers = []
        for relay, schema in ((self.peer, "marked"), (self.own, "hospital")):
            with psycopg.connect(relay.dsn("postgres", ROLE)) as connection:
                query = f"SELECT * FROM {schema}.reading {tail}".encode()
                answers.append(connection.execute(query).fetchall())
        query = f"SELECT * FROM hospital.reading {tail}".encode()
        with psycopg.connect(self.cluster.dsn()) as connection:
            stored = connection.execute(query).fetchall()
        if answers[0] != answers[1] or answers[0] == stored or len(stored) != 5000:
            raise RuntimeError("the proxy and PgBouncer do not give the same marked rows")

    def copies(self, rows: int) -> None:
        """COPY OUT of the whole marked view, to a client that throws it away."""
        self._compare(
            f"COPY OUT of {rows:,} marked rows, proxy / PgBouncer",
            lambda: rows / self._psql(self.own, "COPY hospital.reading TO STDOUT"),
            lambda: rows / self._psql(self.peer, "COPY (SELECT * FROM marked.reading) TO STDOUT"),
            BAR_COPY,
            "rows/s",
            "psql -c 'COPY ... TO STDOUT' >/dev/null",
        )
        wide = "COPY (SELECT repeat('x', 500) FROM generate_series(1, 1000000)) TO STDOUT"
        self._compare(
            "COPY OUT of 500 MB that no policy protects, proxy / PgBouncer",
            lambda: 501 / self._psql(self.own, wide),
            lambda: 501 / self._psql(self.peer, wide),
            None,
            "MB/s",
            "psql -c 'COPY ... TO STDOUT' >/dev/null, rows that cost the server next to nothing",
        )

    def transactions(self) -> None:
        """One row by its key, again and again."""
        script = self.folder / "select.sql"
        script.write_text(SELECT_MARKED, encoding="utf-8")
        marked = ("-f", str(script), "-D", f"scale={SCALE}")
        for mode, bar in (("prepared", BAR_PREPARED), ("extended", None), ("simple", BAR_SIMPLE)):
            self._compare(
                f"pgbench -S -M {mode} on a protected relation, proxy / PgBouncer",
                lambda mode=mode: self._pgbench(self.own, mode, "-S"),
                lambda mode=mode: self._pgbench(self.peer, mode, *marked),
                bar,
                "tps",
                f"{CLIENTS} clients, {self.seconds} s a round, scale {SCALE}",
            )

    def idle(self, count: int) -> None:
        """Memory of both with many sessions open, each having read one row."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        megabytes = []
        for relay, name in ((self.own, "pgbench_accounts"), (self.peer, "marked.pgbench_accounts")):
            before = relay.proportional_bytes()
            with ExitStack() as stack:
                for number in range(1, count + 1):
                    connection = psycopg.connect(relay.dsn("postgres", ROLE), autocommit=True)
                    stack.enter_context(connection)
                    connection.execute(
                        f"SELECT abalance FROM {name} WHERE aid = %s".encode(), (number,)
                    )
                after = relay.proportional_bytes()
            megabytes.append(after / 1e6)
            _say(f"{relay.name}: {before / 1e6:.0f} MB, with {count:,} sessions {after / 1e6:.0f}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.entries.append(
            {
                "name": f"memory of the proxy with {count:,} idle connections",
                "value": round(megabytes[0], 1),
                "unit": "MB",
                "bar": BAR_IDLE_MEGABYTES,
                "holds": megabytes[0] <= BAR_IDLE_MEGABYTES,
                "how": "proportional set size of its processes, each session having read a row; "
                f"PgBouncer {megabytes[1]:.0f} MB; {HOW}",
            }
        )

    def _compare(
        self,
        name: str,
        own: Callable[[], float],
        peer: Callable[[], float],
        bar: float | None,
        unit: str,
        how: str,
    ) -> None:
        """Measure two rates in turns, first one and then the other leading."""
        own(), peer()
        ours: list[float] = []
        theirs: list[float] = []
        before = [relay.processor_seconds() for relay in (self.own, self.peer)]
        for number in range(self.rounds):
            for mine in (True, False) if number % 2 else (False, True):
                (ours if mine else theirs).append((own if mine else peer)())
        after = [relay.processor_seconds() for relay in (self.own, self.peer)]
        used = [(b - a) / self.rounds for a, b in zip(before, after, strict=True)]
        ratio = median(ours) / median(theirs)
        singles = [a / b for a, b in zip(ours, theirs, strict=True)]
        rates = f"{median(ours):,.0f} / {median(theirs):,.0f} {unit}"
        processor = f"processor {used[0]:.2f} / {used[1]:.2f} s a round"
        _say(f"{name}: {ratio:.3f} ({rates}, {processor})")
        self.entries.append(
            {
                "name": name,
                "value": round(ratio, 3),
                "unit": "x",
                "bar": bar,
                "holds": None if bar is None else ratio >= bar,
                "how": f"{how}; medians of {self.rounds} alternating rounds "
                f"({rates}), single rounds {min(singles):.2f} to {max(singles):.2f}, relays' "
                f"{processor}; {HOW}",
            }
        )

    def _psql(self, relay: Relay, statement: str) -> float:
        command = [self.cluster.bin_dir / "psql", "-X", "-q", "-d", relay.dsn("postgres", ROLE)]
        begin = perf_counter()
        subprocess.run([*command, "-c", statement], stdout=subprocess.DEVNULL, check=True)
        return perf_counter() - begin

    def _pgbench(self, relay: Relay, mode: str, *script: str) -> float:
        done = subprocess.run(
            [
                self.cluster.bin_dir / "pgbench",
                *("-n", "-M", mode, "-c", str(CLIENTS), "-j", "1", "-T", str(self.seconds)),
                *script,
                relay.dsn("postgres", ROLE),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.search(r"tps = ([0-9.]+)", done.stdout)
        if done.returncode or found is None:
            raise RuntimeError(f"pgbench through {relay.name}: {done.stderr[-300:]}")
        return float(found[1])


def _say(text: str) -> None:
    print(f"proxy: {text}", file=sys.stderr, flush=True)
