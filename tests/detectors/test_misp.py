"""In the real tool: pymisp's own validation of events, objects and feeds."""

from __future__ import annotations

import json
import uuid

import yara_x
from pymisp import MISPEvent

from pgbalise.detectors.formats import FormatName
from pgbalise.detectors.patterns import rule_name
from tests.detectors.leaking import SPELLED, awkward, decoy, files_of, namesakes, real_rows


def loaded(content: bytes) -> MISPEvent:
    event = MISPEvent(strict_validation=True)
    event.from_json(content.decode())
    return event


def test_pymisp_takes_the_event_and_makes_a_feed_of_it() -> None:
    some = [decoy(), *awkward(), *namesakes()]
    content = files_of(FormatName.MISP, some, named=True)["decoys.misp.json"]
    event = loaded(content)
    assert len(event.objects) == len(event.attributes) == len(some)
    feed = event.to_feed(valid_distributions=[0])
    assert len(feed["Event"]["Object"]) == len(some)
    assert [tag.name for tag in event.tags] == ["tlp:red"]
    assert int(event.distribution) == 0
    identifiers = [event.uuid, *(each.uuid for each in [*event.objects, *event.attributes])]
    assert len(set(identifiers)) == len(identifiers)
    assert all(str(uuid.UUID(each)) == each for each in identifiers)


def test_an_object_has_what_the_decoy_is_recognised_by() -> None:
    event = loaded(files_of(FormatName.MISP, [decoy()])["decoys.misp.json"])
    [person] = event.objects
    values = {
        (each.object_relation, each.value): each.to_ids
        for each in person.attributes
        if each.object_relation != "date-of-birth"
    }
    assert values == {
        ("last-name", "LEFÈVRE"): False,
        ("first-name", "Marie-Hélène"): False,
        ("social-security-number", "285057899908430"): True,
        ("identity-card-number", "8380809999"): True,
        ("phone-number", "+33261912345"): True,
        ("phone-number", "+33639981234"): True,
        ("e-mail", "marie.lefevre@patients.example.org"): True,
        ("text", "10003456782"): True,
    }
    assert all(each.last_seen.date().isoformat() == "2027-02-20" for each in person.attributes)


def test_its_yara_rule_fires_on_the_leak_and_not_on_real_rows() -> None:
    one = decoy()
    event = loaded(files_of(FormatName.MISP, [one])["decoys.misp.json"])
    [rule] = [each for each in event.attributes if each.type == "yara"]
    rules = yara_x.compile(rule.value)
    assert rules.scan(real_rows().encode()).matching_rules == ()
    for text in SPELLED.values():
        [found] = rules.scan(text.encode()).matching_rules
        assert found.identifier == f"pgbalise_decoy_{rule_name(one)}"


def test_a_second_import_updates_the_first() -> None:
    first = json.loads(files_of(FormatName.MISP, [decoy()])["decoys.misp.json"])
    again = json.loads(files_of(FormatName.MISP, [decoy()], days=10)["decoys.misp.json"])
    assert first["uuid"] == again["uuid"]
    assert [each["uuid"] for each in first["Object"]] == [each["uuid"] for each in again["Object"]]
