"""Issuing decoys to 10,000 recipients, and whether row numbers tell them from patients.

Wall clock and processor time of one ``decoys generate`` on the demonstration's hospital, five
decoys for each recipient with all their rows. Then what a recipient can see who sorts its own
view by number: for rows of 100 recipients' views, a gradient-boosted classifier gets the
distances to the numbers and times of the rows before and after, whether these are of the same
patient and test, and last digits. It is trained on half of the stretches of numbers, tried on the
others: holes are shared, it would else learn the holes themselves, which one recipient cannot.
Recipients who collude need no classifier: they compare their views, with or without shared holes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from pgbalise.database import apply_policy
from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.demo.cohort import load_cohort
from pgbalise.install import install
from pgbalise.issuing import issue_decoys
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import load_document
from pgbalise.session import PsycopgSession, connect

RECIPIENTS = 10_000
QUICK_RECIPIENTS = 500
VIEWS = 60
BAR_SECONDS = 600.0
BAR_AUC = 0.55
KEY = MasterKey(bytes(range(32)))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROJECT = Path(__file__).resolve().parents[1]


def measure(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return one entry per figure: name, value, unit, bar, holds, how."""
    recipients = QUICK_RECIPIENTS if quick else RECIPIENTS
    with ThrowawayCluster(settings={"max_locks_per_transaction": "256"}) as cluster:
        cluster.install_extension(PROJECT / "sql")
        with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
            load_cohort(connection)
        with connect(cluster.dsn()) as session:
            install(session)
            _enrol(session, recipients)
            begin, busy = perf_counter(), process_time()
            with session.connection.transaction():
                issue = issue_decoys(session, KEY, None, 5, NOW)
            seconds, busy = perf_counter() - begin, process_time() - busy
            [(indexes,)] = session.fetch(
                "SELECT count(*) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid"
                " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE n.nspname = 'balise_decoy' AND i.indisvalid"
            )
            what = f"{len(issue.decoys):,} decoys of {recipients:,} recipients"
            entries = [
                _entry(f"issuing {what}, {issue.rows:,} rows", seconds, "s", BAR_SECONDS),
                _entry("the same, processor time of the client", busy, "s", None),
                _entry("indexes of the decoys' tables", indexes, "", None),
                _entry(
                    "rows whose number does not go with their time",
                    100 * issue.out_of_order / issue.rows,
                    "%",
                    None,
                ),
            ]
            for relation, key, time, label in (
                ("lab_result", "result_id", "taken_at", "test"),
                ("diagnosis", "diagnosis_id", "diagnosed_on", "event"),
                ("patient", "patient_id", "included_on", "sex"),
            ):
                features, decoys = _neighbours(session, relation, key, time, label)
                auc = _auc(features, decoys)
                entries.append(_entry(f"AUC by the order of numbers, {relation}", auc, "", BAR_AUC))
    return entries


def _entry(name: str, value: float, unit: str, bar: float | None) -> dict[str, Any]:
    how = {
        "s": "one transaction as pgbalise decoys generate runs it, one run",
        "%": "of all rows issued",
    }.get(
        unit,
        f"the demonstration's hospital; {VIEWS} recipients' views, half of the numbers held out",
    )
    return {
        "name": name,
        "value": round(float(value), 3),
        "unit": unit,
        "bar": bar,
        "holds": None if bar is None else value <= bar,
        "how": how,
    }


def _enrol(session: PsycopgSession, recipients: int) -> None:
    """Put the policy in force, and the recipients into the catalog.

    Without their roles: what a view's privileges take in pg_class ends at some 600 of them.
    """
    document = load_document((PROJECT / "pgbalise/demo/policy.toml").read_text("utf-8"))
    with session.connection.transaction():
        apply_policy(session, document, KEY)
        session.fetch(
            "INSERT INTO balise.recipient (role_name, class)"
            " SELECT 'recipient_' || n, 'secondary' FROM generate_series(0, $1::int - 1) AS n",
            recipients,
        )


def _neighbours(
    session: PsycopgSession, relation: str, key: str, time: str, label: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The number and features of decoys' and as many real rows of recipients' views."""
    columns = f"{key}, patient_id, extract(epoch FROM {time})::float8, {label}"
    real = _columns(session.fetch(f"SELECT {columns} FROM dpi.{relation}"))
    chance = np.random.default_rng(1)
    features, decoys = [], []
    for view in range(VIEWS):
        rows = session.fetch(
            f"SELECT {columns} FROM balise_decoy.{relation} WHERE balise_recipient = $1",
            f"recipient_{view}",
        )
        if not rows:
            continue
        own = _columns(rows)
        ids, patients, times, labels = (np.r_[a, b] for a, b in zip(real, own, strict=True))
        fake = np.arange(len(ids)) >= len(real[0])
        order = np.argsort(ids, kind="stable")
        ids, patients, times, labels, fake = (
            part[order] for part in (ids, patients, times, labels, fake)
        )
        inner = slice(1, -1)
        table = np.column_stack(
            [
                ids[inner],
                ids[inner] - ids[:-2],
                ids[2:] - ids[inner],
                times[inner] - times[:-2],
                times[2:] - times[inner],
                (times[2:] - times[:-2]),
                patients[inner] == patients[:-2],
                patients[2:] == patients[inner],
                labels[inner] == labels[:-2],
                labels[2:] == labels[inner],
                ids[inner] % 10,
                ids[inner] % 2,
            ]
        ).astype(np.float64)
        mine = np.flatnonzero(fake[inner])
        others = chance.choice(np.flatnonzero(~fake[inner]), len(mine), replace=False)
        features.append(table[np.r_[mine, others]])
        decoys.append(np.repeat([True, False], len(mine)))
    return np.vstack(features), np.concatenate(decoys)


def _columns(rows: list[tuple[Any, ...]]) -> list[NDArray[Any]]:
    ids, patients, times, labels = zip(*rows, strict=True)
    return [
        np.array(ids, np.int64),
        np.array(patients, np.int64),
        np.array(times, np.float64),
        np.array(labels),
    ]


def _auc(features: NDArray[np.float64], decoys: NDArray[np.bool_]) -> float:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    numbers, features = features[:, 0], features[:, 1:]
    stretches = (numbers * 100 / (numbers.max() + 1)).astype(np.int64)
    scores = []
    for half in (0, 1):
        train = stretches % 2 == half
        model = HistGradientBoostingClassifier(random_state=1, max_iter=200)
        model.fit(features[train], decoys[train])
        scores.append(roc_auc_score(decoys[~train], model.predict_proba(features[~train])[:, 1]))
    return float(np.mean(scores))
