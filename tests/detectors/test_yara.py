"""In the real tool: YARA-X."""

from __future__ import annotations

import json
import re
import time

import yara_x
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgbalise.decoys.identity import Role
from pgbalise.detectors.formats import FormatName
from pgbalise.detectors.patterns import rule_name
from tests.detectors.leaking import (
    awkward,
    decoy,
    encoded_leaks,
    files_of,
    namesakes,
    patients,
    real_rows,
    short_rows,
    strangers,
    written,
)


def compiled(source: bytes) -> yara_x.Rules:
    return yara_x.compile(source.decode())


def found(rules: yara_x.Rules, content: bytes) -> list[str]:
    return [rule.identifier for rule in rules.scan(content).matching_rules]


def test_rules_fire_on_every_spelling_and_encoding_and_on_nothing_near() -> None:
    one = decoy()
    rules = compiled(files_of(FormatName.YARA, [one])["decoys.yar"])
    for name, content, held in encoded_leaks():
        expected = [f"pgbalise_decoy_{rule_name(one)}"] if held else []
        assert found(rules, content) == expected, name


def test_real_rows_are_silent_even_where_names_are_the_decoys() -> None:
    others = namesakes()
    rules = compiled(files_of(FormatName.YARA, [decoy(), *others])["decoys.yar"])
    for encoding in ("utf-8", "cp1252", "utf-16-le"):
        assert found(rules, real_rows().encode(encoding)) == []
    leak = real_rows() + written(dict(others[0].identity))
    assert found(rules, leak.encode()) == [f"pgbalise_decoy_{rule_name(others[0])}"]


def test_names_and_dates_of_several_patients_make_no_decoy() -> None:
    some = strangers(150)
    rules = compiled(files_of(FormatName.YARA, some)["decoys.yar"])
    assert found(rules, real_rows().encode()) == []
    # in columns enough for a date, and in one line
    assert found(rules, short_rows().encode()) == []
    assert found(rules, json.dumps(patients()).encode()) == []


def test_names_that_mean_something_to_the_tool_are_found_too() -> None:
    some = awkward()
    rules = compiled(files_of(FormatName.YARA, some, named=True)["decoys.yar"])
    for one in some:
        assert found(rules, written(dict(one.identity)).encode()) == [
            f"pgbalise_decoy_{rule_name(one)}"
        ]
        assert found(rules, f"<{one.identity[Role.RECORD_NUMBER]}>".encode()) == [
            f"pgbalise_decoy_{rule_name(one)}"
        ]


def test_rules_say_until_when_and_whose_only_when_asked() -> None:
    one = decoy(recipient='vendor "brest"\\')
    for named in (False, True):
        source = files_of(FormatName.YARA, [one], named=named)["decoys.yar"]
        [rule] = compiled(source)
        meta = dict(rule.metadata)
        assert meta["expires"] == "2027-02-20"
        assert ("recipient" in meta) is named
        if named:
            # bytes, since the text holds escapes
            assert meta["recipient"] == one.recipient.encode()
        else:
            assert b"brest" not in source


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_any_name_makes_rules_that_compile(family: str, given_name: str) -> None:
    one = decoy(
        {
            Role.FAMILY_NAME: family,
            Role.GIVEN_NAME: given_name,
            Role.BIRTH_DATE: "1950-02-01",
            Role.RECORD_NUMBER: f"00001111{family}",
            Role.PHONE: "0261912345",
        },
        recipient=given_name,
    )
    rules = compiled(files_of(FormatName.YARA, [one], named=True)["decoys.yar"])
    assert found(rules, b"0261912345") == [f"pgbalise_decoy_{rule_name(one)}"]


def test_hundreds_of_decoys_compile_and_scan_in_seconds() -> None:
    some = [
        decoy(
            {
                Role.RECORD_NUMBER: f"77{n:08d}",
                Role.NIR: f"28505789{n:05d}",
                Role.PHONE: f"026191{n:04d}",
                Role.FAMILY_NAME: f"Le{'abcdefghij'[n % 10]}{'klmnopqrst'[n // 10 % 10]}o",
                Role.GIVEN_NAME: f"Ann{'abcdefghij'[n // 100 % 10]}",
                Role.BIRTH_DATE: "1985-05-12",
            },
            number=n,
        )
        for n in range(150)
    ]
    source = files_of(FormatName.YARA, some)["decoys.yar"]
    assert len(re.findall(rb"^rule ", source, re.MULTILINE)) == 150
    began = time.process_time()
    rules = compiled(source)
    assert len(found(rules, b"x;7700000007;y")) == 1
    assert found(rules, real_rows().encode()) == []
    assert time.process_time() - began < 20
