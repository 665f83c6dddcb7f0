"""In the real tool: pySigma's parser; what it parsed is then held against events."""

from __future__ import annotations

import re
from typing import Any

from sigma.collection import SigmaCollection
from sigma.rule import SigmaDetectionItem
from sigma.types import SigmaRegularExpression, SigmaString

from pgbalise.detectors.formats import FormatName
from pgbalise.detectors.patterns import rule_name
from pgbalise.watch import decoy_alert
from tests.detectors.leaking import (
    ALMOST,
    NOW,
    SPELLED,
    awkward,
    decoy,
    files_of,
    namesakes,
    patients,
    written,
)


def rules(files: dict[str, bytes]) -> list[Any]:
    found = SigmaCollection.from_yaml(files["decoys.yml"].decode())
    assert not found.errors
    for rule in found.rules:
        assert not rule.errors
        for condition in rule.detection.parsed_condition:
            assert condition.parsed is not None
    return list(found.rules)


def fires(rule: Any, event: dict[str, Any]) -> bool:
    """Whether an event fulfils any of a rule's detections, all of whose items must hold."""
    assert rule.detection.condition == ["1 of them"]
    return any(
        all(holds(item, event) for item in detection.detection_items)
        for detection in rule.detection.detections.values()
    )


def holds(item: SigmaDetectionItem, event: dict[str, Any]) -> bool:
    values = [str(v) for name, v in event.items() if item.field is None or name == item.field]
    return any(compare(wanted, value) for wanted in item.value for value in values)


def compare(wanted: Any, value: str) -> bool:
    if isinstance(wanted, SigmaRegularExpression):
        flags = re.I if wanted.flags else re.NOFLAG
        return bool(re.search(str(wanted.regexp), value, flags))
    assert isinstance(wanted, SigmaString)
    return str(wanted).casefold() == value.casefold()


def fired(some: list[Any], line: str) -> set[str]:
    return {rule.title for rule in some if fires(rule, {"message": line})}


def test_the_first_rule_fires_on_the_proxys_alert_and_on_no_other() -> None:
    first, *_ = rules(files_of(FormatName.SIGMA, [decoy()]))
    alert = decoy_alert(
        NOW, recipient="a", database="d", system="1", client="192.0.2.1", decoys=[("b", 1)]
    )
    assert fires(first, alert)
    assert not fires(first, {**alert, "kind": "off_hours"})
    assert fires(first, {"cat": "decoy", "deviceProduct": "pgbalise"})
    assert not fires(first, {"cat": "decoy", "deviceProduct": "other"})


def test_rules_fire_on_every_spelling_and_on_nothing_near() -> None:
    one = decoy()
    some = rules(files_of(FormatName.SIGMA, [one]))
    for name, text in SPELLED.items():
        assert fired(some, text.replace("\n", " ")) == {f"Decoy {rule_name(one)}"}, name
    for name, text in ALMOST.items():
        assert fired(some, text) == set(), name
    for query in (
        "marie.lefevre%40patients.example.org",
        "06+39+98+12+34",
        "06%2039%2098%2012%2034",
    ):
        assert fires(some[1], {"c-uri": f"/search?q={query}&l=fr"}), query


def test_real_rows_are_silent() -> None:
    others = namesakes()
    some = rules(files_of(FormatName.SIGMA, others))
    for row in patients()[:3000]:
        assert fired(some, ";".join(row.values())) == set()
    assert fired(some, written(dict(others[0].identity))) == {f"Decoy {rule_name(others[0])}"}


def test_names_that_mean_something_to_the_tool_are_found_too() -> None:
    names = awkward()
    some = rules(files_of(FormatName.SIGMA, names, named=True))
    assert len({rule.id for rule in some}) == len(names) + 1
    for one in names:
        assert fired(some, written(dict(one.identity))) == {f"Decoy {rule_name(one)}"}
