"""What decoys cost those who read marked views: the same statements with and without them.

``python -m bench decoy_views`` measures it on a server of its own, with two databases of the
demonstration's cohort: one has the decoys of 10,000 recipients, five patients each with 28 rows,
1.4 million rows in all; the other has the same views without. One recipient runs each statement in
both in turns. Reported is the ratio of the medians, with prepared and with plain statements.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import psycopg

from pgbalise.database import apply_policy, enrol, refresh_views
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.demo.cohort import load_cohort
from pgbalise.install import install
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass, load_document
from pgbalise.session import connect

RECIPIENTS = 10_000
PATIENTS = 5
RESULTS_EACH = 23
DIAGNOSES_EACH = 4
BAR = 1.1
ROLE = "r5000"
KEY = MasterKey(bytes(range(32)))
WITH, WITHOUT = "decoyed", "plain"
SETTINGS = {"shared_buffers": "512MB", "effective_cache_size": "2GB"}
POLICY = Path(__file__).resolve().parents[1] / "pgbalise/demo/policy.toml"
HOW = "python -m bench decoy_views"

# Values of real rows, so that what is compared differs in nothing but how many rows there are.
# Every recipient's decoys share their keys, as those that fill the holes of a sequence do.
FILL = """
SET synchronous_commit = off;
INSERT INTO balise_decoy.patient
SELECT 'r' || r, 5 * r + p - 5, 1000000 + p, 'D-' || r || '-' || p, t.family_name, t.given_name,
       t.birth_date, t.sex, t.age, t.height_cm, t.weight_kg, t.bmi, t.included_on,
       t.last_seen_on, t.deceased
  FROM generate_series(1, {recipients}) AS r, generate_series(1, {patients}) AS p
  JOIN LATERAL (SELECT * FROM dpi.patient ORDER BY patient_id OFFSET p * 3000 LIMIT 1) AS t ON true;
INSERT INTO balise_decoy.lab_result
SELECT 'r' || r, 5 * r + p - 5, 10000000 + 100 * p + n, 1000000 + p, t.test, t.value, t.taken_at,
       t.recorded_at
  FROM generate_series(1, {recipients}) AS r, generate_series(1, {patients}) AS p
  JOIN LATERAL (SELECT l.*, row_number() OVER () AS n
                  FROM (SELECT * FROM dpi.lab_result ORDER BY result_id
                        OFFSET p * 70000 LIMIT {results}) AS l) AS t ON true;
INSERT INTO balise_decoy.diagnosis
SELECT 'r' || r, 5 * r + p - 5, 10000000 + 100 * p + n, 1000000 + p, t.event, t.diagnosed_on
  FROM generate_series(1, {recipients}) AS r, generate_series(1, {patients}) AS p
  JOIN LATERAL (SELECT l.*, row_number() OVER () AS n
                  FROM (SELECT * FROM dpi.diagnosis ORDER BY diagnosis_id
                        OFFSET p * 6000 LIMIT {diagnoses}) AS l) AS t ON true;
"""

# statements, and how many times each is run in either database; %(n)s changes each time
STATEMENTS = {
    "a patient by key": ("SELECT * FROM marked.patient WHERE patient_id = %(n)s", 1500),
    "a result by key": ("SELECT * FROM marked.lab_result WHERE result_id = %(n)s", 1500),
    "a patient's results": ("SELECT * FROM marked.lab_result WHERE patient_id = %(n)s", 1500),
    "a patient with results": (
        (
            "SELECT p.*, l.* FROM marked.patient AS p"
            " JOIN marked.lab_result AS l USING (patient_id) WHERE p.patient_id = %(n)s"
        ),
        1000,
    ),
    "patients with their results, a range of keys": (
        (
            "SELECT p.sex, l.test, l.value FROM marked.patient AS p JOIN marked.lab_result AS l"
            " USING (patient_id) WHERE p.patient_id BETWEEN %(n)s AND %(n)s + 200"
        ),
        60,
    ),
    "all patients with all results": (
        (
            "SELECT count(*) FROM marked.patient AS p"
            " JOIN marked.lab_result AS l USING (patient_id) WHERE p.sex = 'F'"
        ),
        9,
    ),
    "the first ten by key": ("SELECT * FROM marked.lab_result ORDER BY result_id LIMIT 10", 800),
    "ten from a key on": (
        "SELECT * FROM marked.lab_result WHERE result_id > %(n)s ORDER BY result_id LIMIT 10",
        800,
    ),
    "a range of an indexed date": (
        (
            "SELECT * FROM marked.patient WHERE birth_date BETWEEN date '1930-01-01' + %(n)s::int"
            " AND date '1930-01-01' + %(n)s::int + 7"
        ),
        600,
    ),
    "a test's results of a month": (
        (
            "SELECT * FROM marked.lab_result WHERE test = 'hdl' AND taken_at >= timestamptz"
            " '1999-01-01' + %(n)s * interval '1 hour' AND taken_at < timestamptz '1999-01-01'"
            " + %(n)s * interval '1 hour' + interval '30 days'"
        ),
        200,
    ),
    "count(*)": ("SELECT count(*) FROM marked.lab_result", 15),
    "an average by group": (
        "SELECT test, avg(value) FROM marked.lab_result GROUP BY test",
        7,
    ),
}


def measure(
    *, recipients: int = RECIPIENTS, share: float = 1.0, explain: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield one entry per statement: name, value, unit, bar, holds, how.

    ``share`` of the runs are made; ``explain`` prints the plans to standard error.
    """
    with ThrowawayCluster(settings=SETTINGS) as cluster:
        cluster.install_extension(POLICY.parents[2] / "sql")
        for name in (WITH, WITHOUT):
            _fill(cluster, name, recipients)
        with _Pair.connected(cluster) as pair:
            for label, (statement, runs) in STATEMENTS.items():
                if explain:
                    pair.explain(label, statement)
                for prepared in (True, False):
                    yield pair.compare(label, statement, max(3, int(runs * share)), prepared)


def _fill(cluster: ThrowawayCluster, name: str, recipients: int) -> None:
    _say(f"filling {name}")
    cluster.psql(f"CREATE DATABASE {name}")
    document = load_document(POLICY.read_text("utf-8"))
    if name == WITHOUT:
        del document["decoys"]
        for body in document["relation"].values():
            del body["decoys"]
            body.pop("identity", None)
    with connect(cluster.dsn(name)) as session:
        load_cohort(session.connection)
        install(session)
        with session.connection.transaction():
            apply_policy(session, document, KEY)
            if not session.fetch("SELECT 1 FROM pg_roles WHERE rolname = $1::text", ROLE):
                session.run("CREATE ROLE %I LOGIN", ROLE)
            enrol(session, [ROLE], RecipientClass.SECONDARY, KEY)
        if name == WITH:
            statements = FILL.format(
                recipients=recipients,
                patients=PATIENTS,
                results=RESULTS_EACH,
                diagnoses=DIAGNOSES_EACH,
            )
            for statement in statements.split(";\n"):
                session.fetch(statement)
        session.fetch("VACUUM (FREEZE, ANALYZE)")
        with session.connection.transaction():
            refresh_views(session)
        session.fetch("CHECKPOINT")


@dataclass
class _Pair:
    """The recipient's connections to both databases."""

    sides: dict[str, psycopg.Connection[Any]]

    @classmethod
    def connected(cls, cluster: ThrowawayCluster) -> _Pair:
        sides = {
            name: psycopg.connect(cluster.dsn(name, ROLE), autocommit=True)
            for name in (WITH, WITHOUT)
        }
        return cls(sides)

    def __enter__(self) -> _Pair:
        return self

    def __exit__(self, *problem: object) -> None:
        for connection in self.sides.values():
            connection.close()

    def compare(self, label: str, statement: str, runs: int, prepared: bool) -> dict[str, Any]:
        taken: dict[str, list[float]] = {name: [] for name in self.sides}
        for number in range(-3, runs):
            order = (WITH, WITHOUT) if number % 2 else (WITHOUT, WITH)
            for name in order:
                begin = perf_counter()
                self.sides[name].execute(
                    statement.encode(), {"n": (number * 7919) % 17_000 + 1}, prepare=prepared
                ).fetchall()
                if number >= 0:
                    taken[name].append(perf_counter() - begin)
        decoyed, plain = (median(taken[name]) for name in (WITH, WITHOUT))
        ratio = decoyed / plain
        how = "prepared" if prepared else "planned each time"
        return {
            "name": f"marked views with decoys / without: {label}, {how}",
            "value": round(ratio, 3),
            "unit": "times",
            "bar": BAR if prepared else None,
            "holds": ratio <= BAR if prepared else None,
            "how": f"{HOW}; {runs} runs in turns, medians {1e3 * decoyed:.3f} ms and"
            f" {1e3 * plain:.3f} ms",
        }

    def explain(self, label: str, statement: str) -> None:
        for name, connection in self.sides.items():
            _say(f"--- {label}, {name}")
            text = "EXPLAIN (ANALYZE, BUFFERS) " + statement.replace("%(n)s", "5000")
            for (line,) in connection.execute(text.encode()):
                _say(line)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
