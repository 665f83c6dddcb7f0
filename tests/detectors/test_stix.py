"""In the real tools: stix2's parser, and the grammar of patterns (stix2-patterns)."""

from __future__ import annotations

import re
from typing import Any

import stix2
from stix2.pattern_visitor import create_pattern_object
from stix2patterns.validator import run_validator

from pgbalise.detectors.formats import FormatName
from tests.detectors.leaking import (
    ALMOST,
    SPELLED,
    awkward,
    decoy,
    files_of,
    namesakes,
    real_rows,
    written,
)


def indicators(files: dict[str, bytes]) -> list[Any]:
    bundle = stix2.parse(files["decoys.stix.json"].decode(), version="2.1")
    return [each for each in bundle.objects if each.type == "indicator"]


def comparisons(pattern: str) -> list[Any]:
    """The comparisons of observations any of which is enough."""
    found, waiting = [], [create_pattern_object(pattern, version="2.1")]
    while waiting:
        each = waiting.pop()
        if hasattr(each, "operands"):
            assert each.operator == "OR"
            waiting += each.operands
        elif hasattr(each, "operand"):
            waiting.append(each.operand)
        else:
            found.append(each)
    return found


def fires(indicator: Any, path: str, value: str) -> bool:
    """Whether an observed object with this property is seen."""
    for each in comparisons(indicator.pattern):
        if f"{each.lhs.object_type_name}:{'.'.join(map(str, each.lhs.property_path))}" != path:
            continue
        if each.operator == "=" and each.rhs.value == value:
            return True
        # stix2 keeps a constant as it was written
        text = re.sub(r"\\(['\\])", r"\1", each.rhs.value)
        if each.operator == "MATCHES" and re.search(text, value):
            return True
    return False


def test_indicators_fire_on_every_spelling_and_on_nothing_near() -> None:
    [one] = indicators(files_of(FormatName.STIX, [decoy()]))
    for path in ("email-message:body", "artifact:payload_bin"):
        for name, text in SPELLED.items():
            assert fires(one, path, text), name
        for name, text in ALMOST.items():
            assert not fires(one, path, text), name
    assert fires(one, "email-addr:value", "marie.lefevre@patients.example.org")


def test_real_rows_are_silent() -> None:
    others = namesakes()
    for each in indicators(files_of(FormatName.STIX, others[:2])):
        assert not fires(each, "artifact:payload_bin", real_rows())


def test_every_pattern_is_of_the_grammar_whatever_the_names() -> None:
    some = awkward()
    found = indicators(files_of(FormatName.STIX, some, named=True))
    assert len(found) == len(some)
    for each in found:
        result = run_validator(each.pattern, stix_version="2.1")
        assert not result, result
    for one in some:
        text = written(dict(one.identity))
        assert sum(fires(each, "email-message:body", text) for each in found) == 1


def test_validity_marking_and_identifiers_are_set() -> None:
    [one] = indicators(files_of(FormatName.STIX, [decoy()]))
    assert one.valid_until.isoformat() == "2027-02-20T12:00:00+00:00"
    assert one.valid_from < one.valid_until
    assert one.object_marking_refs == [stix2.TLP_RED.id]
    assert "brest" not in one.serialize()
    [named] = indicators(files_of(FormatName.STIX, [decoy()], named=True, days=None))
    assert named.id == one.id
    assert "vendor_brest/1" in named.description
    assert "valid_until" not in named
