"""Which extracts may be a leak's source: what fits, what contradicts, in which order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgbalise.registry.extracts import Listed
from pgbalise.registry.ledger import Entry, instant
from pgbalise.registry.matching import Matches, Sought, judge, match

FOUND = datetime(2026, 3, 1, tzinfo=UTC)
SOUGHT = Sought(
    recipients={"alice"},
    carriers={"dpi.lab": {"value", "at"}},
    aliases={"marked.lab": "dpi.lab"},
    rows=400,
    several=False,
    epoch=2,
    epoch_opened_at=datetime(2026, 2, 1, tzinfo=UTC),
    epoch_closed_at=datetime(2026, 2, 20, tzinfo=UTC),
    found_at=FOUND,
)
PGAUDIT = {
    "recipient": "alice",
    "relations": ["marked.lab"],
    "rows": 400,
    "outcome": "unknown",
    "started_at": instant(datetime(2026, 2, 10, tzinfo=UTC)),
}


def extract(
    sequence: int = 1,
    rows: int | None = 400,
    day: int = 10,
    *,
    outcome: str = "complete",
    **more: Any,
) -> Listed:
    at = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(days=day - 1)
    body = {
        "recipient": "alice",
        "relations": ["dpi.lab", "dpi.patient"],
        "carriers": {"dpi.lab": ["at", "value"], "dpi.patient": []},
        "epoch": 2,
        "command": "SELECT",
        "application": "export",
        "client": "192.0.2.7",
        "normalised": "SELECT * FROM dpi.lab JOIN dpi.patient USING (id)",
        "started_at": instant(at),
        **more,
    }
    begun = Entry(sequence, at, "extract", body, b"", b"")
    if rows is None:
        return Listed(begun, None)
    told = {"rows": rows, "outcome": outcome, "ended_at": instant(at + timedelta(hours=1))}
    return Listed(begun, Entry(sequence + 1, at, "outcome", told, b"", b""))


def verdict(item: Listed, sought: Sought = SOUGHT) -> tuple[str, ...]:
    found = judge(item, sought)
    assert found is not None
    return found.contradicts


def test_an_extract_that_fits_is_told_with_all_that_fits() -> None:
    found = judge(extract(), SOUGHT)
    assert found is not None
    assert found.fits == (
        "read dpi.lab",
        "was given at and value",
        "delivered 400 rows, the leak has 400",
        "in epoch 2",
        "18 days before the leak was found",
    )
    assert found.contradicts == ()
    assert (found.rows, found.outcome, found.client) == (400, "complete", "192.0.2.7")
    assert found.ended_at == datetime(2026, 2, 10, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (extract(rows=12), "delivered 12 rows, the leak has 400"),
        (extract(rows=0), "delivered 0 rows, the leak has 400"),
        (extract(carriers={"dpi.lab": ["at"]}), "was not given value of dpi.lab"),
        (extract(carriers={}), "was not given at and value of dpi.lab"),
        (extract(epoch=1), "in epoch 1, the leak is of epoch 2"),
        (extract(epoch=None, day=20), "began later than epoch 2, the leak is of epoch 2"),
        (extract(epoch=None, day=-3), "ended before epoch 2, the leak is of epoch 2"),
        (extract(day=40), "began after the leak was found"),
    ],
)
def test_what_contradicts_is_said_in_words(item: Listed, words: str) -> None:
    assert verdict(item) == (words,)


@pytest.mark.parametrize(
    "item",
    [
        extract(rows=None),
        extract(rows=5000),
        # what is known is a lower bound
        extract(rows=12, outcome="unknown"),
        extract(rows=12, normalised="SELECT json_agg(l) FROM dpi.lab AS l"),
        extract(rows=12, normalised="SELECT ARRAY(SELECT value FROM dpi.lab)"),
        Listed(Entry(1, FOUND, "extract", PGAUDIT, b"", b""), None),
        Listed(Entry(1, FOUND, "extract", {**PGAUDIT, "rows": None}, b"", b""), None),
    ],
)
def test_what_is_not_known_contradicts_nothing(item: Listed) -> None:
    assert verdict(item) == ()


def test_a_leak_of_several_extracts_may_have_more_rows_than_each() -> None:
    several = replace(SOUGHT, several=True)
    assert verdict(extract(rows=12), several) == ()
    assert verdict(extract(rows=0), several) == ("delivered 0 rows, the leak has 400",)


def test_others_and_other_relations_are_not_looked_at() -> None:
    assert judge(extract(recipient="bob"), SOUGHT) is None
    assert judge(extract(relations=["dpi.patient", "dpi.laboratory"]), SOUGHT) is None
    assert judge(Listed(Entry(1, FOUND, "alert", PGAUDIT, b"", b""), None), SOUGHT) is None


def ranked(*items: Listed, kept: int = 20) -> tuple[list[int], Matches]:
    found = match(iter(items), SOUGHT, kept=kept)
    return [one.sequence for one in found.best], found


def test_the_closest_in_rows_and_time_come_first_and_contradictions_last() -> None:
    order, found = ranked(
        extract(1, rows=12, epoch=1),
        extract(2, rows=12),
        extract(3, rows=400_000),
        extract(4, rows=410, day=3),
        extract(5, rows=None),
        extract(6, rows=410, day=15),
        extract(7, recipient="bob"),
    )
    assert order == [6, 4, 5, 3, 2, 1]
    assert (found.fitting, found.considered) == (4, 6)


def test_only_the_best_are_kept_and_all_are_counted() -> None:
    order, found = ranked(*(extract(n, rows=400 + n) for n in range(1, 1001)), kept=3)
    assert order == [1, 2, 3]
    assert (found.fitting, found.considered) == (1000, 1000)
