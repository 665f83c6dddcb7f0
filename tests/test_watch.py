"""The watch counts rows by what the records say, and tells once when a limit is crossed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgbalise.alert_text import sentence
from pgbalise.errors import InvalidInput
from pgbalise.limits import Limits, parse_limits
from pgbalise.watch import Past, Watch, decoy_alert

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)  # a Wednesday
PARIS = ZoneInfo("Europe/Paris")


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def intent(number: int, at: datetime = NOON, recipient: str = "anna", *relations: str) -> Any:
    return {
        "type": "intent",
        "at": stamp(at),
        "extract": f"{number:032x}",
        "recipient": recipient,
        "database": "dpi",
        "system": "7",
        "client": "192.0.2.7",
        "relations": [{"relation": name} for name in relations or ("hospital.patient",)],
    }


def so_far(number: int, rows: int, at: datetime = NOON, kind: str = "progress") -> Any:
    return {"type": kind, "at": stamp(at), "extract": f"{number:032x}", "rows": rows}


def taken(number: int, rows: int, at: datetime = NOON, recipient: str = "anna") -> list[Any]:
    return [intent(number, at, recipient), so_far(number, rows, at, "outcome")]


ALERT = decoy_alert(
    NOON, recipient="bob", database="dpi", system="7", client="local", decoys=[("anna", 0)]
)


def kinds(alerts: list[dict[str, Any]]) -> list[str]:
    return [alert["kind"] for alert in alerts]


def test_a_days_limit_is_told_when_it_is_crossed_and_once() -> None:
    watch = Watch(Limits(rows_per_day=100))
    assert watch.observe([intent(1), so_far(1, 60), so_far(1, 100)]) == []
    [alert] = watch.observe([so_far(1, 101, NOON + timedelta(minutes=5))])
    assert watch.observe([so_far(1, 900), *taken(2, 500)]) == []
    assert (alert["kind"], alert["severity"], alert["recipient"]) == (
        "rows_per_day",
        "warning",
        "anna",
    )
    assert alert["at"] == "2026-03-04T12:05:00.000000Z"
    assert alert["detail"] == {"day": "2026-03-04", "rows": 101, "limit": 100}
    assert sentence(alert) == "anna took 101 rows on 2026-03-04; its limit is 100 rows a day."
    assert kinds(watch.observe(taken(3, 101, NOON + timedelta(days=1)))) == ["rows_per_day"]


def test_an_hours_limit_counts_the_rows_that_left_in_that_hour() -> None:
    watch = Watch(Limits(rows_per_hour=100, zone=PARIS))
    later = NOON + timedelta(hours=1)
    assert watch.observe([intent(1), so_far(1, 100), so_far(1, 200, later)]) == []
    [alert] = watch.observe([so_far(1, 201, later)])
    assert alert["detail"] == {"hour": "2026-03-04T14:00+01:00", "rows": 101, "limit": 100}
    assert "in the hour from 2026-03-04 14:00+01:00;" in sentence(alert)


def test_each_recipient_has_its_own_sums_and_may_have_its_own_limits() -> None:
    limits = parse_limits(
        {"rows_per_day": 100, "recipient": {"feed": {"rows_per_day": "unlimited"}}}
    )
    watch = Watch(limits)
    found = watch.observe(
        [*taken(1, 70), *taken(2, 70, recipient="bob"), *taken(3, 10**6, recipient="feed")]
    )
    assert found == []
    assert [a["recipient"] for a in watch.observe(taken(4, 31, recipient="bob"))] == ["bob"]


def test_a_day_is_one_of_the_zone_also_when_clocks_change() -> None:
    watch = Watch(Limits(zone=PARIS))
    for number, local in enumerate(
        [
            datetime(2026, 3, 28, 23, 59, 59, tzinfo=PARIS),
            datetime(2026, 3, 29, 0, 0, tzinfo=PARIS),  # a day of 23 hours
            datetime(2026, 3, 29, 23, 59, 59, tzinfo=PARIS),
            datetime(2026, 10, 25, 0, 0, tzinfo=PARIS),  # and one of 25
            datetime(2026, 10, 25, 23, 59, 59, tzinfo=PARIS),
        ]
    ):
        watch.observe(taken(number, 10**number, local))
        if number == 2:
            assert watch.rows("anna") == {"2026-03-28": 1, "2026-03-29": 110}
    assert watch.rows("anna") == {"2026-10-25": 11_000}, "what is older than 90 days is forgotten"


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    watch = Watch(Limits(rows_per_hour=100, zone=PARIS))
    first = datetime(2026, 10, 25, 2, 30, tzinfo=PARIS)
    second = first.replace(fold=1)
    assert watch.observe([*taken(1, 100, first), *taken(2, 100, second)]) == []
    assert len(watch.observe([*taken(3, 1, first), *taken(4, 1, second)])) == 2


@pytest.mark.parametrize(
    ("now", "until"),
    [
        (NOON, datetime(2026, 3, 4, 23, tzinfo=UTC)),
        (datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC)),
        (datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 10, 25, 23, tzinfo=UTC)),
    ],
)
def test_who_is_beyond_a_days_limit_is_refused_until_midnight(
    now: datetime, until: datetime
) -> None:
    limits = parse_limits({"zone": "Europe/Paris", "rows_per_day": 10, "on_limit": "refuse"})
    watch = Watch(limits)
    watch.observe([*taken(1, 10, now), *taken(2, 11, now, "bob")])
    assert watch.refused(now) == {"bob": until}
    assert watch.refused(until - timedelta(seconds=1)) == {"bob": until}
    assert watch.refused(until) == {}


def test_who_is_beyond_an_hours_limit_is_refused_until_it_ends() -> None:
    watch = Watch(Limits(rows_per_hour=10, refuse=True))
    watch.observe(taken(1, 11, NOON + timedelta(minutes=20)))
    assert watch.refused(NOON + timedelta(minutes=59)) == {"anna": NOON + timedelta(hours=1)}
    assert watch.refused(NOON + timedelta(hours=1)) == {}
    watch.limits = Limits(rows_per_hour=10)
    assert watch.refused(NOON + timedelta(minutes=59)) == {}


def busy(days: int, rows: int, until: date) -> dict[str, int]:
    return {(until - timedelta(days=n)).isoformat(): rows for n in range(1, days + 1)}


def test_a_day_far_beyond_the_recipients_own_past_is_told() -> None:
    limits = Limits(times_own_past=5, known_days=10, bulk_rows=100)
    past = {"anna": Past("2026-01-01", busy(10, 1000, NOON.date()), {"dpi:hospital.patient"})}
    watch = Watch(limits, past)
    assert watch.observe(taken(1, 5000)) == []
    [alert] = watch.observe(taken(2, 1))
    assert (alert["kind"], alert["detail"]["busiest"], alert["detail"]["days"]) == (
        "own_past",
        1000,
        10,
    )
    assert sentence(alert).endswith(
        "more than 5 times its busiest comparable day (2026-03-03: 1,000 rows)."
    )
    few = {"anna": Past("2026-01-01", busy(9, 1000, NOON.date()))}
    assert "own_past" not in kinds(Watch(limits, few).observe(taken(1, 10**6)))
    small = {"anna": Past("2026-01-01", busy(10, 1, NOON.date()))}
    assert "own_past" not in kinds(Watch(limits, small).observe(taken(1, 100)))


def test_days_off_are_compared_with_days_off() -> None:
    limits = parse_limits(
        {
            "bulk_rows": 100,
            "known_days": 3,
            "off_hours": {"days_off": ["saturday", "sunday"]},
        }
    )
    saturday = date(2026, 3, 7)
    past = {"anna": Past("2026-01-01", busy(28, 1000, saturday))}
    for day in past["anna"].days:
        if date.fromisoformat(day).weekday() >= 5:
            past["anna"].days[day] = 50
    found = kinds(Watch(limits, past).observe(taken(1, 900, datetime(2026, 3, 7, 12, tzinfo=UTC))))
    assert "own_past" in found
    friday = datetime(2026, 3, 6, 12, tzinfo=UTC)
    assert "own_past" not in kinds(Watch(limits, past).observe(taken(1, 900, friday)))


def test_a_relation_never_read_before_is_told_after_the_learning_days() -> None:
    watch = Watch(Limits(learning_days=14))
    assert watch.observe([intent(1, NOON, "anna", "hospital.patient")]) == []
    assert watch.observe([intent(2, NOON + timedelta(days=13), "anna", "hospital.stay")]) == []
    later = NOON + timedelta(days=14)
    again = [intent(3, later, "anna", "hospital.patient", "hospital.lab"), intent(4, later)]
    [alert] = watch.observe(again)
    assert (alert["kind"], alert["severity"]) == ("first_seen", "info")
    assert sentence(alert) == "anna read hospital.lab of database dpi for the first time."
    assert watch.observe([intent(5, later, "bob", "hospital.lab")]) == [], "bob is new himself"


@pytest.mark.parametrize(
    ("local", "told"),
    [
        (datetime(2026, 3, 4, 19, 59), False),
        (datetime(2026, 3, 4, 20, 0), True),
        (datetime(2026, 3, 5, 6, 59), True),
        (datetime(2026, 3, 5, 7, 0), False),
        (datetime(2026, 3, 7, 12, 0), True),
    ],
)
def test_bulk_off_hours_is_told_by_local_time(local: datetime, told: bool) -> None:
    table = {
        "zone": "Europe/Paris",
        "bulk_rows": 1000,
        "off_hours": {"start": "20:00", "end": "07:00", "days_off": ["saturday", "sunday"]},
    }
    watch = Watch(parse_limits(table))
    at = local.replace(tzinfo=PARIS)
    assert watch.observe(taken(1, 1000, at)) == []
    assert kinds(watch.observe(taken(2, 1, at))) == (["off_hours"] if told else [])


def test_a_night_is_one_though_midnight_divides_it() -> None:
    watch = Watch(parse_limits({"bulk_rows": 100, "off_hours": {"start": "20:00", "end": "07:00"}}))
    evening, morning = NOON.replace(hour=23), NOON.replace(hour=3) + timedelta(days=1)
    assert watch.observe(taken(1, 60, evening)) == []
    [alert] = watch.observe(taken(2, 60, morning))
    assert alert["detail"] == {"night": "2026-03-04", "rows": 120, "limit": 100}
    assert watch.observe(taken(3, 60, evening + timedelta(days=1))) == []


def test_a_decoy_is_told_once_an_hour_and_names_whose_it_was() -> None:
    def used(at: datetime, *owners: str) -> Any:
        return decoy_alert(
            at,
            recipient="bob",
            database="dpi",
            system="7",
            client="local",
            decoys=[(o, 0) for o in owners],
        )

    watch = Watch(Limits())
    [alert] = watch.observe([used(NOON, "anna"), used(NOON + timedelta(minutes=9), "anna")])
    assert alert["severity"] == "critical"
    assert sentence(alert) == "bob asked for a patient who does not exist, a decoy given to anna."
    assert len(watch.observe([used(NOON + timedelta(hours=1), "bob")])) == 1
    watch = Watch(parse_limits({"own_decoys": "ignore"}))
    assert watch.observe([used(NOON, "bob")]) == []
    assert len(watch.observe([used(NOON, "bob", "anna")])) == 1


def test_asking_for_ones_own_decoy_first_does_not_hide_that_another_is_asked_for() -> None:
    def used(*decoys: tuple[str, int]) -> Any:
        return decoy_alert(
            NOON, recipient="bob", database="dpi", system="7", client="local", decoys=decoys
        )

    told = Watch(Limits()).observe([used(("bob", 2)), used(("bob", 1)), used(("anna", 3))])
    assert [alert["detail"]["decoys"] for alert in told] == [["bob/2"], ["anna/3"]]
    assert sentence(told[0]).endswith("a decoy of its own (bob/2).")
    assert sentence(told[1]).endswith("a decoy given to anna (anna/3).")


def test_what_is_no_record_is_passed_over() -> None:
    watch = Watch(Limits(rows_per_day=10))
    bad: list[Mapping[str, Any]] = [
        {},
        {"type": "intent", "at": "yesterday"},
        {**intent(1), "relations": None},
        {**intent(2), "relations": ["x"]},
        {**so_far(3, 5), "rows": "many"},
        {"type": "alert", "at": stamp(NOON), "detail": 3},
        {**ALERT, "alert": "../x"},
        {**ALERT, "severity": "fatal"},
        {**ALERT, "detail": None},
        {**intent(4), "at": "2026-03-04T12:00:00"},
        so_far(99, 10**6),
    ]
    assert watch.observe([*bad, *taken(5, 11)])[0]["kind"] == "rows_per_day"
    assert watch.rows("anna") == {"2026-03-04": 11}


moments = st.integers(0, 40 * 60).map(lambda minutes: NOON + timedelta(minutes=minutes))


@st.composite
def streams(draw: st.DrawFn) -> list[list[Any]]:
    """Extracts, each with the records about it in order."""
    found = []
    for number in range(draw(st.integers(1, 5))):
        at = draw(moments)
        recipient = draw(st.sampled_from(["anna", "bob"]))
        steps = draw(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 60)), max_size=4))
        records, rows = [intent(number, at, recipient)], 0
        for more, minutes in steps:
            rows, at = rows + more, at + timedelta(minutes=minutes)
            records.append(so_far(number, rows, at))
        if draw(st.booleans()):
            records.append(so_far(number, rows, at, "outcome"))
        found.append(records)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(streams(), st.data())
def test_neither_order_among_extracts_nor_repetition_changes_what_is_counted_and_told(
    extracts: list[list[Any]], data: st.DataObject
) -> None:
    limits = Limits(rows_per_day=100, rows_per_hour=70, learning_days=0, zone=PARIS)
    plain = Watch(limits)
    expected = plain.observe(record for records in extracts for record in records)
    other = Watch(limits)
    told, position = [], [0] * len(extracts)
    while any(at < len(records) for at, records in zip(position, extracts, strict=True)):
        one = data.draw(st.sampled_from(range(len(extracts))))
        if data.draw(st.booleans()):
            position[one] = max(0, position[one] - 2)  # some come again
        told += other.observe(extracts[one][position[one] :][:1])
        position[one] += 1
        if data.draw(st.integers(0, 4)) == 0:
            other = Watch.restore(limits, json.loads(json.dumps(other.state())))
    for recipient in ("anna", "bob"):
        assert other.rows(recipient) == plain.rows(recipient)
    assert sorted(a["alert"] for a in told) == sorted(a["alert"] for a in expected)
    sums = {r: sum(plain.rows(r).values()) for r in ("anna", "bob")}
    last = {r: sum(x[-1].get("rows", 0) for x in extracts if x[0]["recipient"] == r) for r in sums}
    assert sums == last


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(streams())
def test_below_every_limit_nobody_is_told(extracts: list[list[Any]]) -> None:
    watch = Watch(Limits(rows_per_day=10**4, rows_per_hour=10**4))
    assert watch.observe(record for records in extracts for record in records) == []


def test_what_is_remembered_is_bounded() -> None:
    watch = Watch(Limits(rows_per_hour=1))
    for day in range(120):
        at = NOON + timedelta(days=day)
        for number in range(20):
            watch.observe(
                [*taken(day * 100 + number, 9, at), intent(10**6 + day * 100 + number, at)]
            )
    state = watch.state()
    known = state["recipients"]["anna"]
    assert len(known["days"]) == 91
    assert len(known["hours"]) <= 4
    assert len(state["finished"]) <= 3 * 20
    assert len(state["open"]) <= 31 * 20
    assert len(state["raised"]) == 91


def test_a_state_that_is_none_is_refused() -> None:
    for state in ({}, {"version": 2}, {"version": 1, "recipients": 3}, {"version": 1}):
        with pytest.raises(InvalidInput):
            Watch.restore(Limits(), state)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"row_per_day": 1}, "watch.row_per_day: there is no such key"),
        ({"rows_per_day": 0}, "watch.rows_per_day: must be a whole number from 1"),
        ({"rows_per_hour": True}, "watch.rows_per_hour: must be a whole number from 1"),
        ({"bulk_rows": 1.5}, "watch.bulk_rows: must be a whole number from 1"),
        ({"known_days": 91}, "watch.known_days: at most 90"),
        ({"zone": "Europe/Rennes"}, "watch.zone: there is no such time zone"),
        ({"zone": "../x"}, "watch.zone: there is no such time zone"),
        ({"on_limit": "stop"}, 'watch.on_limit: must be "alert" or "refuse"'),
        ({"off_hours": {"start": "25:00"}}, "watch.off_hours.start: must be a local time"),
        ({"off_hours": {"days_off": ["samedi"]}}, "watch.off_hours.days_off: must be a list"),
        ({"off_hours": {}}, "watch.off_hours: covers no time"),
        ({"recipient": {"bob": {"zone": "UTC"}}}, "watch.recipient.bob.zone: there is no such"),
        ({"recipient": {"bob": 3}}, "watch.recipient.bob: must be a table"),
    ],
)
def test_limits_that_make_no_sense_are_refused(table: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput, match="^" + complaint.replace(".", r"\.")):
        parse_limits(table)
