"""What a report holds, refuses, and hands on as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from pgbalise.errors import InvalidInput
from pgbalise.report.case import (
    CarrierEvidence,
    CarrierNoise,
    LeakedTable,
    LeakFile,
    MappedColumn,
    TraceReport,
    exponent_places,
    round_down,
    visible,
)
from pgbalise.tracing.decision import Verdict, decide


def verdict(*log10_e_value: float) -> Verdict:
    count = len(log10_e_value)
    return decide(
        [f"role_{index}" for index in range(count)],
        np.array(log10_e_value),
        np.full(count, 70),
        alpha=1e-9,
        rows_read=100,
        rows_aligned=90,
        cells_marked=80,
        cells_used=75,
    )


REPORT = TraceReport(
    verdict=verdict(41.4, 0.2),
    database="dpi",
    epoch=3,
    files=(LeakFile("dump.csv", "ab" * 32, 1234, 100),),
    tables=(
        LeakedTable(
            "dump.csv",
            "public.lab_result",
            12408,
            12391,
            columns=(MappedColumn("resultat", "carrier", "value"), MappedColumn("x", "ignored")),
        ),
    ),
    carriers=(CarrierEvidence("value", 80, 75, 70, 5),),
    noise=(CarrierNoise("value", (("unchanged", 0.9), ("rounded to 0.5", 0.1))),),
    key_fingerprint="0123456789abcdef",
    versions={"pgbalise": "0.1.0"},
    created_at=datetime(2026, 6, 7, 14, 3, tzinfo=UTC),
)


def test_report_as_json_contains_the_verdict_as_trace_prints_it() -> None:
    document = json.loads(json.dumps(REPORT.as_dict()))
    assert document["verdict"] == json.loads(json.dumps(REPORT.verdict.as_dict()))
    assert document["created_at"] == "2026-06-07T14:03:00+00:00"
    assert document["files"] == [
        {"name": "dump.csv", "sha256": "ab" * 32, "size": 1234, "rows": 100, "skipped": []}
    ]
    assert document["tables"][0]["columns"][1]["leak_column"] == "x"
    assert document["carriers"][0]["agreeing"] == 70
    assert document["noise"][0]["findings"][1] == ["rounded to 0.5", 0.1]
    assert document["key_fingerprint"] == "0123456789abcdef"


def test_time_without_zone_is_refused() -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        replace(REPORT, created_at=datetime(2026, 6, 7))


@pytest.mark.parametrize("fingerprint", ["", "0123456789ABCDEF", "0123456789abcdef0", "g" * 16])
def test_key_fingerprint_of_another_form_is_refused(fingerprint: str) -> None:
    with pytest.raises(InvalidInput, match="fingerprint"):
        replace(REPORT, key_fingerprint=fingerprint)


def test_refused_fingerprint_is_not_repeated() -> None:
    """It may be the key itself, passed by mistake."""
    with pytest.raises(InvalidInput) as refusal:
        replace(REPORT, key_fingerprint="5ec7e7" * 10)
    assert "5ec7e7" not in str(refusal.value)


@pytest.mark.parametrize(
    "counts", [(10, 11, 5, 5), (10, 9, 5, 5), (10, 9, -1, 5), (10, 9, 5, -1), (-1, 0, 0, 0)]
)
def test_counts_that_contradict_each_other_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="value"):
        CarrierEvidence("value", *counts)


def test_malformed_hash_count_share_and_use_are_refused() -> None:
    with pytest.raises(InvalidInput, match="SHA-256"):
        LeakFile("dump.csv", "ab", 1, 1)
    with pytest.raises(InvalidInput, match="negative"):
        LeakFile("dump.csv", "ab" * 32, 1, -1)
    with pytest.raises(InvalidInput, match="share"):
        CarrierNoise("value", (("unchanged", 1.2),))
    with pytest.raises(InvalidInput, match="use"):
        MappedColumn("x", "guess")  # type: ignore[arg-type]


def test_unseen_characters_become_visible() -> None:
    assert visible("a\u202eb\x1b[31m\nc\u200d") == "a\\u202eb\\u001b[31m\\u000ac\\u200d"
    assert visible("lone \ud800") == "lone \\ud800"
    assert visible("Hôpital Édouard 病院") == "Hôpital Édouard 病院"


@pytest.mark.parametrize(
    ("log", "places", "shown"),
    [(11.3, 1, 11.3), (41.37, 1, 41.3), (-0.04, 1, -0.1), (0.0, 1, 0.0), (4.35, 2, 4.35)],
)
def test_exponents_are_never_rounded_up(log: float, places: int, shown: float) -> None:
    assert round_down(log, places) == shown


def test_someone_a_hair_below_the_threshold_does_not_look_accused() -> None:
    threshold = verdict(0.0, 0.0).threshold_log10
    for gap in (1.0, 0.03, 0.004, 1e-5):
        near = verdict(threshold - gap, -1.0)
        assert not near.accused
        places = exponent_places(near)
        assert round_down(threshold - gap, places) < round_down(threshold, places)
    assert exponent_places(verdict(40.0, -1.0)) == 1
