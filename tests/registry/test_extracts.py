"""Who read what when: what the proxy told, in the ledger's words, and found again quickly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.errors import InvalidInput
from pgbalise.registry.extracts import OUTCOMES, OpenExtracts, draft, listed
from pgbalise.registry.ledger import instant
from pgbalise.registry.store import Draft, append
from tests.proxy.records import AT, intent, name, outcome, progress

BASE = datetime(2026, 1, 31, 12, tzinfo=UTC)
PGAUDIT = {
    "origin": "pgaudit/7/1.1/1.1/marked.patient",
    "recipient": "alice",
    "database": "dpi",
    "relations": ["marked.patient"],
    "rows": None,
    "outcome": "unknown",
    "started_at": instant(BASE + timedelta(hours=1)),
}


def made(record: dict[str, Any]) -> Draft:
    found = draft(record)
    assert found is not None
    return found


def at(minutes: float) -> datetime:
    return BASE + timedelta(minutes=minutes)


def extract(number: int, begin: float, end: float | None, **more: Any) -> list[Draft]:
    found = [made(intent(name(str(number)), at=instant(at(begin)), **more))]
    if end is not None:
        times = {"started_at": instant(at(begin)), "ended_at": instant(at(end))}
        found.append(made(outcome(name(str(number)), **times)))
    return found


def record(registry: sa.Connection, *drafts: Draft) -> None:
    with registry.begin():
        append(registry, drafts, BASE + timedelta(days=1))


def numbers(registry: sa.Connection, **filters: Any) -> list[int]:
    with registry.begin():
        return [item.entry.sequence for item in listed(registry, **filters)]


def test_an_intent_is_an_entry_with_the_members_that_pgaudit_s_have() -> None:
    touched = [
        {"relation": "hospital.patient", "carriers": ["birth_date"]},
        {"relation": "hospital.lab", "carriers": []},
        {"relation": "hospital.patient", "carriers": ["weight"]},
    ]
    found = made(intent(name("a"), relations=touched))
    assert found.kind == "extract"
    assert found.body == {
        "origin": f"extract:{name('a')}",
        "extract": name("a"),
        "session": name("session"),
        "recipient": "registry_rennes",
        "class": "secondary",
        "database": "dpi",
        "system": "7412345678901234567",
        "client": "192.0.2.7",
        "application": "report",
        "command": "SELECT",
        "relations": ["hospital.patient", "hospital.lab"],
        "carriers": {"hospital.patient": ["birth_date", "weight"], "hospital.lab": []},
        "epoch": 1,
        "started_at": AT,
        "normalised": intent("")["statement"],
        "normalised_sha256": intent("")["statement_hash"],
    }


def test_an_outcome_names_its_extract_and_an_error_its_sqlstate() -> None:
    found = made(outcome(name("a"), 12, outcome="error", sqlstate="57014"))
    assert found.kind == "outcome"
    assert found.body["origin"] == f"outcome:{name('a')}"
    assert (found.body["rows"], found.body["bytes"], found.body["executions"]) == (12, 120, 1)
    assert (found.body["outcome"], found.body["sqlstate"]) == ("error", "57014")
    for each in OUTCOMES:
        assert made(outcome(name("a"), outcome=each)).body["outcome"] == each


def test_progress_and_alerts_are_no_entries() -> None:
    assert draft(progress(name("a"), 1)) is None
    assert draft({"type": "alert"}) is None


@given(st.text(st.characters() | st.characters(categories=["Cs"])))
def test_nothing_that_a_client_chooses_keeps_its_extract_out(text: str) -> None:
    chosen = {"application_name": text, "statement": text, "recipient": text}
    body = made(intent(name("a"), **chosen)).body
    assert len(body["application"]) == len(text)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"type": "other"},
        intent("Dupont"),
        intent(name("a"), at="2026-01-31"),
        intent(name("a"), client=7),
        intent(name("a"), relations=["hospital.patient"]),
        intent(name("a"), epoch=2**60),
        outcome(name("a"), rows="many"),
        outcome(name("a"), -1),
        outcome(name("a"), outcome="fine"),
        outcome(name("a"), sqlstate="Dupont"),
        {**outcome(name("a")), "ended_at": None},
    ],
)
def test_what_is_no_record_is_refused_without_its_content(record: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        draft(record)
    assert "Dupont" not in str(caught.value)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["intent", "progress", "outcome"]),
        st.sampled_from("ab"),
        st.sampled_from("xyz"),
        st.integers(0, 9),
    ),
    max_size=30,
)


def follow(known: OpenExtracts, step: tuple[str, str, str, int]) -> None:
    kind, owner, extract, rows = step
    make = {"intent": intent(name(extract)), "progress": progress(name(extract), rows)}
    known.follow(owner, make.get(kind) or outcome(name(extract)))


@given(STEPS, st.integers(0, 30), st.integers(0, 30))
def test_what_is_open_survives_a_restart_and_being_told_again(
    steps: list[tuple[str, str, str, int]], stop: int, back: int
) -> None:
    straight = OpenExtracts()
    for step in steps:
        follow(straight, step)
    before = OpenExtracts()
    for step in steps[:stop]:
        follow(before, step)
    after = OpenExtracts(before.state())
    # the last part is read again from an earlier place: nothing stays open that ended
    for step in steps[max(stop - back, 0) :]:
        follow(after, step)
    for owner in "ab":
        ends = [
            {record["extract"] for record in known.unknown(owner, BASE)}
            for known in (straight, after)
        ]
        assert ends[0] == ends[1]


def test_what_a_dead_process_left_open_is_told_with_what_was_known_last() -> None:
    known = OpenExtracts()
    known.follow("1", intent(name("a")))
    known.follow("1", progress(name("a"), 70))
    known.follow("1", intent(name("b")))
    known.follow("2", intent(name("c")))
    [first, second] = [made(record).body for record in known.unknown("1", BASE)]
    assert (first["extract"], first["rows"], first["outcome"]) == (name("a"), 70, "unknown")
    assert (second["extract"], second["rows"]) == (name("b"), 0)
    assert second["ended_at"] == instant(BASE)
    known.forget("1")
    assert known.unknown("1", BASE) == []
    assert known.owners() == {"2"}
    assert OpenExtracts({"1": {"x": [1]}, "2": "y"}).owners() == set()


def test_an_extract_counts_when_any_part_of_it_lies_between(registry: sa.Connection) -> None:
    record(registry, *extract(1, 0, 10), *extract(2, 5, 30), *extract(3, 20, None))
    record(registry, Draft("extract", PGAUDIT), Draft("enrolment", {"recipient": "alice"}))
    # 1 and 2: the first; 3 and 4: the second; 5: never ended; 6: at 60; 7: a day later
    assert numbers(registry) == [1, 3, 5, 6, 7]
    for since, until, expected in (
        (11, 15, [3]),
        (10, 11, [1, 3]),
        (31, 60, [5]),
        (31, 61, [5, 6]),
        (-5, 0, []),
        (-5, 0.1, [1]),
        (61, None, [5, 7]),
        (None, 5, [1]),
    ):
        filters = {
            "since": None if since is None else at(since),
            "until": None if until is None else at(until),
        }
        assert numbers(registry, **filters) == expected, (since, until)


def test_entries_are_found_by_who_what_and_where(registry: sa.Connection) -> None:
    lab = [{"relation": "hospital.lab", "carriers": []}]
    record(registry, *extract(1, 0, 1), *extract(2, 2, 3, relations=lab, recipient="bob"))
    record(registry, *extract(3, 4, 5, database="other"), Draft("extract", PGAUDIT))
    assert numbers(registry, relations=["hospital.patient"]) == [1, 5]
    assert numbers(registry, relations=["hospital.lab", "marked.patient"]) == [3, 7]
    assert numbers(registry, relations=["hospital.patient"], database="dpi") == [1]
    assert numbers(registry, recipient="bob") == [3]
    assert numbers(registry, kind="outcome") == [2, 4, 6]
    assert numbers(registry, limit=2) == [5, 7]
    assert numbers(registry, relations=["hospital.patient"], limit=1) == [5]
    with registry.begin():
        ends = [item.outcome for item in listed(registry)]
    assert [end and end.sequence for end in ends] == [2, 4, 6, None]


def test_a_relation_is_found_by_the_index(registry: sa.Connection) -> None:
    with registry.begin():
        registry.execute(sa.text("ALTER TABLE balise_registry.entry DISABLE TRIGGER ALL"))
        registry.execute(
            sa.text(
                "INSERT INTO balise_registry.entry (sequence, recorded_at, kind, body, previous,"
                " hash) SELECT n, now(), 'extract', jsonb_build_object('origin', 'extract:' || n,"
                " 'extract', n::text, 'relations', jsonb_build_array('s.t' || n % 1000)),"
                " sha256(n::text::bytea), sha256((n + 1)::text::bytea)"
                " FROM generate_series(1, 20000) AS n"
            )
        )
        # as autovacuum does
        registry.execute(sa.text("SELECT gin_clean_pending_list('balise_registry.ix_entry_body')"))
        registry.execute(sa.text("ANALYZE balise_registry.entry"))
    seen: list[Any] = []
    sa.event.listen(registry, "before_cursor_execute", lambda *about: seen.append(about[2:4]))
    found = numbers(registry, relations=["s.t7", "s.t8"], since=BASE)
    assert len(found) == 40
    statement, parameters = seen[-1]
    with registry.begin():
        raw = registry.connection.cursor()
        plan = "\n".join(row[0] for row in raw.execute(f"EXPLAIN {statement}", parameters))
    assert "ix_entry_body" in plan
    assert "Seq Scan" not in plan
