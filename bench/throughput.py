"""What marking costs: rows through the marked view beside the same rows read raw.

``python -m bench throughput`` measures it on a server of its own: 1,000,000 rows of 9 columns, four
of them carriers at the default density, one recipient who (only here) may also read the relation.
Everything is a ratio of two measurements taken in turns on one connection. Before anything is
timed, the rows that the view changes are compared with those that the reference marker changes.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg.pq import ExecStatus

from pgbalise.database import apply_policy, enrol
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.frames import column_from_arrow, copied_rows, key_from_arrow, one_chunk
from pgbalise.install import install
from pgbalise.marking.cells import carrier_secret, select
from pgbalise.marking.codes import bias, codeword, dither
from pgbalise.marking.embedding import alternatives
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass, parse_policy
from pgbalise.session import PsycopgSession, connect

ROWS = 1_000_000
ROUNDS = 11
LOOKUPS = 5_000
WARM_UP = 200
BATCH = 10_000
BAR_SERVER = 1.7
BAR_CLIENT = 1.6
BAR_FETCHED = 1.15
BAR_LOOKUP = 1.4
ROLE, CARE_ROLE = "research", "ward"
CODES = ("GLU", "NA", "K", "HB", "CREA", "CRP")
RAW, MARKED, MARKED_CARE = "hospital.reading", "marked.reading", "marked_care.reading"
SETTINGS = {"shared_buffers": "1GB", "effective_cache_size": "3GB", "work_mem": "64MB"}
HOW = "python -m bench throughput"

TABLE = """
CREATE SCHEMA hospital;
CREATE TABLE hospital.reading (
    id bigint PRIMARY KEY, patient_id integer NOT NULL, code text NOT NULL,
    taken_at timestamptz NOT NULL, value numeric(8,1) NOT NULL, score integer NOT NULL,
    ratio double precision NOT NULL, note text NOT NULL, site text NOT NULL
);
SELECT setseed(0.25);
INSERT INTO hospital.reading
SELECT i, 1 + (random() * 50000)::int, ('{codes}'::text[])[1 + floor(random() * {n})::int],
    timestamptz '2018-01-01 00:00+00' + floor(random() * 200000000) * interval '1 second',
    round((40 + random() * 260)::numeric, 1), 1 + floor(random() * 998)::int,
    round((0.1 + random() * 9.8)::numeric, 3)::float8, md5(i::text), 'site ' || i % 12
FROM generate_series(1, {rows}) AS i;
VACUUM (FREEZE, ANALYZE) hospital.reading;
CREATE ROLE {role} LOGIN;
CREATE ROLE {care} LOGIN;
GRANT USAGE ON SCHEMA hospital TO {role}, {care};
GRANT SELECT ON hospital.reading TO {role}, {care};
GRANT pg_write_server_files TO {role}, {care};
"""

DOCUMENT: dict[str, Any] = {
    "relation": {
        RAW: {
            "key": {"id": "bigint"},
            "carrier": {
                "taken_at": {"type": "timestamptz", "quantum": "1 second", "neutral": True},
                "value": {
                    "type": "numeric(8,1)",
                    "quantum": "0.1",
                    "bounds": ["0", "1000"],
                    "thresholds": ["126.0"],
                },
                "score": {"type": "integer", "quantum": "1", "bounds": ["0", "1000"]},
                "ratio": {"type": "double precision", "quantum": "0.001", "scale": 3},
            },
        }
    }
}


def measure(
    *, rows: int = ROWS, rounds: int = ROUNDS, lookups: int = LOOKUPS
) -> list[dict[str, Any]]:
    """Return one entry per figure: name, value, unit, bar, holds, how."""
    with ThrowawayCluster(settings=SETTINGS) as cluster:
        cluster.install_extension(Path(__file__).resolve().parents[1] / "sql")
        return _Bench(cluster, rows, rounds, lookups).run()


class _Bench:
    """One server with the relation in it, and the entries measured so far."""

    def __init__(self, cluster: ThrowawayCluster, rows: int, rounds: int, lookups: int) -> None:
        self.cluster, self.rows, self.rounds, self.lookups = cluster, rows, rounds, lookups
        self.key = MasterKey(bytes(range(32)))
        self.entries: list[dict[str, Any]] = []
        self.raw = pa.table({})

    def run(self) -> list[dict[str, Any]]:
        _say(f"filling {self.rows:,} rows")
        codes = "{" + ",".join(CODES) + "}"
        self.cluster.psql(
            TABLE.format(codes=codes, n=len(CODES), rows=self.rows, role=ROLE, care=CARE_ROLE)
        )
        with connect(self.cluster.dsn()) as session:
            install(session)
            self._apply(session, DOCUMENT)
            with session.connection.transaction():
                # it reads the relation itself too, to be compared with
                enrol(session, [ROLE], RecipientClass.SECONDARY, self.key, force=True)
                enrol(session, [CARE_ROLE], RecipientClass.CARE, self.key, force=True)
            self.raw = self._copied(session.connection, RAW)
            self._default(self._verify(DOCUMENT, ROLE, RecipientClass.SECONDARY))
            self._variants(session)
        return self.entries

    def _default(self, cells: str) -> None:
        """Measure the default policy: everything that has a bar."""
        with self._session(ROLE) as connection:
            jit = "used" if _uses_jit(connection) else "not used"
            self._ratio(
                "COPY inside the server",
                lambda name: _inside(connection, name),
                BAR_SERVER,
                f"COPY (SELECT * FROM ...) TO '/dev/null'; jit at its default ({jit}); {cells}",
            )
            connection.execute("SET jit = off")
            self._ratio(
                "COPY inside the server, jit off",
                lambda name: _inside(connection, name),
                None,
                "the same with jit = off",
            )
            connection.execute("RESET jit")
            self._ratio(
                "COPY to a client",
                self._to_client,
                BAR_CLIENT,
                "psql -c 'COPY (...) TO STDOUT' into a pipe, every byte counted",
            )
            self._ratio(
                "COPY to psycopg",
                lambda name: _copied_blocks(connection, name, self.rows),
                None,
                "psycopg cursor.copy(), blocks counted in Python",
            )
            self._ratio(
                "rows fetched by psycopg, server-side cursor",
                lambda name: _fetched(connection, name, self.rows),
                None,
                f"named cursor, fetchmany of {BATCH:,}, all Python objects made",
            )
            self._ratio(
                "rows fetched by psycopg",
                lambda name: _fetched(connection, name, self.rows, server_side=False),
                BAR_FETCHED,
                "its default cursor: execute, then fetchmany, all Python objects made",
            )
            self._ratio(
                "rows streamed by psycopg",
                lambda name: _streamed(connection, name, self.rows),
                None,
                "cursor.stream(size=1000): the client makes objects while the server goes on",
            )
            self._lookup(connection, "", MARKED, BAR_LOOKUP)

    def _variants(self, session: PsycopgSession) -> None:
        """Measure other policies and the care class, as information."""
        cells = self._verify(DOCUMENT, CARE_ROLE, RecipientClass.CARE)
        self._variant("care class", CARE_ROLE, MARKED_CARE, cells)
        sha256 = {**DOCUMENT, "derivation": "sha256"}
        self._apply(session, sha256)
        cells = self._verify(sha256, ROLE, RecipientClass.SECONDARY)
        self._variant("SHA-256 derivation", ROLE, MARKED, cells)
        by = deepcopy(DOCUMENT)
        by["relation"][RAW]["carrier"]["value"] = {
            "type": "numeric(8,1)",
            "by": {"code": "text"},
            "tolerance": {
                code: {"quantum": "0.1", "bounds": ["0", str(1_000 + at)]}
                for at, code in enumerate(CODES)
            },
        }
        self._apply(session, by)
        cells = self._verify(by, ROLE, RecipientClass.SECONDARY)
        self._variant(f"by a column of {len(CODES)} values", ROLE, MARKED, cells)

    def _variant(self, label: str, role: str, view: str, cells: str) -> None:
        with self._session(role) as connection:
            self._ratio(
                f"COPY inside the server, {label}",
                lambda name: _inside(connection, name),
                None,
                f"COPY (SELECT * FROM ...) TO '/dev/null'; {cells}",
                view,
            )
            self._lookup(connection, f", {label}", view, None)

    def _apply(self, session: PsycopgSession, document: dict[str, Any]) -> None:
        with session.connection.transaction():
            apply_policy(session, document, self.key)

    def _session(self, role: str) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self.cluster.dsn(user=role), autocommit=True)
        connection.execute("SET max_parallel_workers_per_gather = 0")
        return connection

    def _copied(self, connection: psycopg.Connection[Any], name: str) -> pa.Table:
        statement = f"COPY (SELECT * FROM {name} ORDER BY id) TO STDOUT (FORMAT csv)"
        with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            data = b"".join(bytes(block) for block in copy)
        names = [
            column.name
            for column in connection.execute(f"SELECT * FROM {name} LIMIT 0".encode()).description
            or ()
        ]
        return copied_rows(data, names)

    def _verify(self, document: dict[str, Any], role: str, cls: RecipientClass) -> str:
        """Compare the cells that the view changes with the reference's; say how many there are."""
        policy = parse_policy(document)
        relation = policy.relation(RAW)
        view = f"{policy.schemas[cls]}.{relation.view}"
        with self._session(role) as connection:
            connection.execute("SET timezone = 'UTC'")
            seen = self._copied(connection, view)
        word = codeword(self.key, role, 1, bias(self.key, 1)) ^ dither(self.key, 1)
        carriers = {carrier.column: carrier for carrier in relation.carriers_for(cls)}
        marked = moved = 0
        for name in self.raw.column_names:
            before, after = (one_chunk(table.column(name)) for table in (self.raw, seen))
            differing = np.flatnonzero(np.asarray(pc.not_equal(before, after)))
            expected = np.empty(0, np.int64)
            if name in carriers:
                carrier = carriers[name]
                parts, _ = key_from_arrow(self.raw, carrier.entity or relation.key)
                secret = carrier_secret(self.key, policy, relation, carrier)
                cells = select(secret, carrier, policy.derivation, parts)
                column = column_from_arrow(self.raw, carrier).take(cells.row)
                options = alternatives(carrier, column, cells.up)
                marked += int(options.markable.sum())
                expected = cells.row[options.markable & (options.parity != word[cells.position])]
            if not np.array_equal(differing, expected):
                raise RuntimeError(
                    f"{view}.{name}: the view and the reference change different rows"
                )
            moved += len(expected)
        per_row, changed = marked / self.rows, moved / self.rows
        wanted = float(sum(carrier.density for carrier in carriers.values()))
        if abs(per_row / wanted - 1) > 0.05 or abs(changed / per_row - 0.5) > 0.05:
            raise RuntimeError(f"{view}: {per_row:.3f} cells a row, {changed:.3f} changed")
        text = f"{per_row:.3f} marked cells per row, {changed:.3f} changed, as the reference's"
        _say(f"{view}: {text}")
        return text

    def _ratio(
        self,
        label: str,
        timed: Callable[[str], float],
        bar: float | None,
        how: str,
        view: str = MARKED,
    ) -> None:
        """Time raw and marked in turns, first one and then the other leading."""
        for name in (RAW, view):
            timed(name)
        raw: list[float] = []
        marked: list[float] = []
        for number in range(self.rounds):
            for name in (RAW, view) if number % 2 else (view, RAW):
                (raw if name == RAW else marked).append(timed(name))
        ratios = [m / r for m, r in zip(marked, raw, strict=True)]
        self._entry(
            f"{label}, marked / raw",
            median(marked) / median(raw),
            bar,
            f"{how}; medians of {self.rounds} alternating rounds "
            f"({median(marked):.3f} s / {median(raw):.3f} s), ratio of minima "
            f"{min(marked) / min(raw):.2f}, single rounds {min(ratios):.2f} to {max(ratios):.2f}",
        )

    def _lookup(
        self, connection: psycopg.Connection[Any], label: str, view: str, bar: float | None
    ) -> None:
        backend = connection.info.backend_pid
        for client, lookup, cores, limit in (
            ("libpq", _by_libpq, None, bar),
            ("psycopg", _by_psycopg, None, None),
            ("libpq", _by_libpq, 1, None),
            ("libpq", _by_libpq, 2, None),
        ):
            connection.execute("DEALLOCATE ALL")
            with _placed(backend, cores):
                raw, marked = _lookups(lookup(connection, view), self.rows, self.lookups)
            where = {None: "any core", 1: "one core", 2: "two cores"}[cores]
            name = f"key lookup by {client} on {where}{label}, marked / raw"
            fifths = [median(marked[at::5]) / median(raw[at::5]) for at in range(5)]
            self._entry(
                name,
                median(marked) / median(raw),
                limit,
                f"median of prepared SELECT * WHERE id = $1, {self.lookups:,} random ids each, "
                f"alternating, client and server process on {where} "
                f"({median(marked) * 1e6:.0f} us / {median(raw) * 1e6:.0f} us), "
                f"on fifths of them {min(fifths):.2f} to {max(fifths):.2f}",
            )
            self._entry(f"{name}, mean", fmean(marked) / fmean(raw), None, "mean of the same")

    def _to_client(self, name: str) -> float:
        statement = f"COPY (SELECT * FROM {name}) TO STDOUT"
        environment = {"PGOPTIONS": "-c max_parallel_workers_per_gather=0", "LC_ALL": "C.UTF-8"}
        psql = str(self.cluster.bin_dir / "psql")
        command = [psql, "-X", "-q", "-d", self.cluster.dsn(user=ROLE), "-c", statement]
        begin, size = perf_counter(), 0
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env=environment, bufsize=0
        ) as client:
            assert client.stdout is not None
            while block := client.stdout.read(1 << 16):
                size += len(block)
        seconds = perf_counter() - begin
        if client.returncode or size < 50 * self.rows:
            raise RuntimeError(f"psql gave {size} bytes of {name}, status {client.returncode}")
        return seconds

    def _entry(self, name: str, value: float, bar: float | None, how: str) -> None:
        holds = None if bar is None else value <= bar
        _say(f"{name}: {value:.2f}")
        self.entries.append(
            {
                "name": name,
                "value": round(value, 3),
                "unit": "x",
                "bar": bar,
                "holds": holds,
                "how": f"{how}; {HOW}",
            }
        )


def _say(text: str) -> None:
    print(f"throughput: {text}", file=sys.stderr, flush=True)


def _uses_jit(connection: psycopg.Connection[Any]) -> bool:
    plan = connection.execute(f"EXPLAIN (ANALYZE, TIMING OFF) SELECT * FROM {MARKED}".encode())
    return any(line.strip().startswith("JIT") for (line,) in plan)


def _inside(connection: psycopg.Connection[Any], name: str) -> float:
    begin = perf_counter()
    connection.execute(f"COPY (SELECT * FROM {name}) TO '/dev/null'".encode())
    return perf_counter() - begin


def _copied_blocks(connection: psycopg.Connection[Any], name: str, rows: int) -> float:
    begin, size = perf_counter(), 0
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY (SELECT * FROM {name}) TO STDOUT".encode()) as copy,
    ):
        for block in copy:
            size += len(block)
    seconds = perf_counter() - begin
    if size < 50 * rows:
        raise RuntimeError(f"{size} bytes of {name}")
    return seconds


def _streamed(connection: psycopg.Connection[Any], name: str, rows: int) -> float:
    begin = perf_counter()
    with connection.transaction(), connection.cursor() as cursor:
        stream = cursor.stream(f"SELECT * FROM {name}".encode(), size=1_000)
        count = sum(1 for _ in stream)
    seconds = perf_counter() - begin
    if count != rows:
        raise RuntimeError(f"{count} rows of {name}")
    return seconds


def _fetched(
    connection: psycopg.Connection[Any], name: str, rows: int, *, server_side: bool = True
) -> float:
    begin, count = perf_counter(), 0
    cursor = connection.cursor("rows") if server_side else connection.cursor()
    with connection.transaction(), cursor:
        cursor.execute(f"SELECT * FROM {name}".encode())
        while batch := cursor.fetchmany(BATCH):
            count += len(batch)
    seconds = perf_counter() - begin
    if count != rows:
        raise RuntimeError(f"{count} rows of {name}")
    return seconds


@contextmanager
def _placed(backend: int, cores: int | None) -> Iterator[None]:
    """Keep this process and its server process on one core, on one each, or where they are put.

    Left alone, as clients are, they drift between the two. Waking the other core then costs more
    than a lookup does, which hides part of what marking adds: on one core it shows in full.
    """
    if cores is None:
        yield
        return
    free = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(free)})
    os.sched_setaffinity(backend, {min(free) if cores == 1 else max(free)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, free)
        os.sched_setaffinity(backend, free)


def _by_libpq(connection: psycopg.Connection[Any], view: str) -> Callable[[bool, int], float]:
    """Return what looks one row up, raw or marked, with nothing of Python's in between."""
    link = connection.pgconn
    for statement, name in ((b"raw", RAW), (b"marked", view)):
        link.prepare(statement, f"SELECT * FROM {name} WHERE id = $1".encode())

    def lookup(marked: bool, wanted: int) -> float:
        statement, key = b"marked" if marked else b"raw", str(wanted).encode()
        begin = perf_counter()
        result = link.exec_prepared(statement, [key])
        seconds = perf_counter() - begin
        if result.status != ExecStatus.TUPLES_OK or result.get_value(0, 0) != key:
            raise RuntimeError(f"no row {wanted}: {result.error_message.decode()}")
        return seconds

    return lookup


def _by_psycopg(connection: psycopg.Connection[Any], view: str) -> Callable[[bool, int], float]:
    """Return what looks one row up as an application does, Python objects made."""
    queries = [f"SELECT * FROM {name} WHERE id = %s".encode() for name in (RAW, view)]

    def lookup(marked: bool, wanted: int) -> float:
        begin = perf_counter()
        row = connection.execute(queries[marked], (wanted,), prepare=True).fetchone()
        seconds = perf_counter() - begin
        if row is None or row[0] != wanted:
            raise RuntimeError(f"no row {wanted}")
        return seconds

    return lookup


def _lookups(
    lookup: Callable[[bool, int], float], rows: int, lookups: int
) -> tuple[list[float], list[float]]:
    """Seconds of single lookups, raw and marked, each pair in random order, each of its own id."""
    rng = random.Random(3)
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(-WARM_UP, lookups):
        for marked in rng.sample((False, True), 2):
            spent = lookup(marked, rng.randint(1, rows))
            if number >= 0:
                seconds[marked].append(spent)
    return seconds
