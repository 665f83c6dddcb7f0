"""No registry has Suricata: its documented grammar is checked strictly instead.

https://docs.suricata.io/en/latest/rules/intro.html (actions, headers, options, escapes),
payload-keywords.html (content, fast_pattern, pcre), meta.html (msg, sid, rev, classtype,
metadata). A rule may have 8,192 characters (DETECT_MAX_RULE_SIZE of its source).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pgbalise.detectors.formats import FormatName
from pgbalise.detectors.patterns import rule_name
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

RULE = re.compile(
    r'alert (tcp|http|smtp) any any -> any any \(msg:"([^";\\:]*)"; '
    r"flow:(established(?:,to_server|,to_client)?); (file\.data; )?"
    r'content:"((?:[^"\\;:|]|\|[0-9a-f]{2}(?: [0-9a-f]{2})*\|)+)"; nocase; fast_pattern; '
    r'pcre:"/((?:[^"/;\\]|\\x[0-9a-f]{2})+)/(i|is)"; classtype:policy-violation; '
    r"metadata:((?:\w+ \w+)(?:, \w+ \w+)*); sid:(\d+); rev:(\d+);\)"
)


@dataclass(frozen=True)
class Rule:
    protocol: str
    message: str
    buffer: str
    content: bytes
    pcre: re.Pattern[bytes]
    metadata: dict[str, str]
    sid: int

    def fires(self, payload: bytes) -> bool:
        return self.content.lower() in payload.lower() and bool(self.pcre.search(payload))


def parsed(source: bytes) -> list[Rule]:
    rules = []
    for line in source.decode("ascii").splitlines():
        assert len(line) < 8192
        match = RULE.fullmatch(line)
        assert match is not None, line
        protocol, message, flow, buffer, content, pcre, flags, metadata, sid, _ = match.groups()
        assert (flow == "established") == (protocol == "tcp") == (buffer is None)
        parts = re.split(r"\|([0-9a-f ]+)\|", content)
        raw = b"".join(
            bytes.fromhex(part) if place % 2 else part.encode("ascii")
            for place, part in enumerate(parts)
        )
        expression = re.compile(pcre.encode(), re.I | (re.S if "s" in flags else 0))
        facts = dict(fact.split(" ") for fact in metadata.split(", "))
        rules.append(Rule(protocol, message, buffer or "", raw, expression, facts, int(sid)))
    return rules


def fired(rules: list[Rule], payload: bytes, protocol: str = "tcp") -> set[str]:
    return {r.metadata["decoy"] for r in rules if r.protocol == protocol and r.fires(payload)}


def test_rules_fire_on_every_spelling_in_clear_and_on_nothing_near() -> None:
    one = decoy()
    rules = parsed(files_of(FormatName.SURICATA, [one])["decoys.rules"])
    for protocol in ("tcp", "http", "smtp"):
        for encoding in ("utf-8", "cp1252"):
            for name, text in SPELLED.items():
                assert fired(rules, text.encode(encoding), protocol) == {rule_name(one)}, name
            for name, text in ALMOST.items():
                assert fired(rules, text.encode(encoding), protocol) == set(), name


def test_real_rows_are_silent() -> None:
    others = namesakes()[:2]
    rules = parsed(files_of(FormatName.SURICATA, [decoy(), *others])["decoys.rules"])
    rows = real_rows().encode()
    assert fired(rules, rows) == set()
    assert fired(rules, rows + written(dict(others[1].identity)).encode()) == {rule_name(others[1])}


def test_names_that_mean_something_to_the_tool_are_found_too() -> None:
    some = awkward()
    rules = parsed(files_of(FormatName.SURICATA, some)["decoys.rules"])
    for one in some:
        assert fired(rules, written(dict(one.identity)).encode()) == {rule_name(one)}


def test_every_rule_has_a_number_of_its_own_that_stays() -> None:
    both = [decoy(), *namesakes()]
    rules = parsed(files_of(FormatName.SURICATA, both)["decoys.rules"])
    numbers = [rule.sid for rule in rules]
    assert len(set(numbers)) == len(numbers)
    assert all(1_000_000_000 <= number < 2**32 for number in numbers)
    assert {rule.metadata["expires_at"] for rule in rules} == {"2027_02_20"}
    alone = parsed(files_of(FormatName.SURICATA, [decoy()], days=None)["decoys.rules"])
    assert {rule.sid for rule in alone} <= set(numbers)
    assert all("expires_at" not in rule.metadata for rule in alone)
