"""Two protected relations, and what a server would answer about names."""

from __future__ import annotations

import pytest

from pgbalise.rewrite import (
    Answer,
    Decision,
    Name,
    Protected,
    Refusal,
    Rules,
    Unreadable,
    analyse,
    decide,
)

PATIENT = Protected("hospital", "patient", "marked", "patient", ("birth_date",))
STAY = Protected("hospital", "Stay", "marked", "stay_view", ("admitted",))

BUILTINS = frozenset(
    {"count", "cursor_to_xml", "lower", "max", "query_to_xml", "set_config", "ts_stat", "unnest"}
)

# oids: 1 and 2 are stored, 11 and 12 their views, 20 reads 1, 21 reads 11, 30 and 31 shadow
_OIDS = {
    "patient": {"hospital": 1, "marked": 11, None: 1, "pg_temp": 30},
    "Stay": {"hospital": 2, None: 2},
    "stay_view": {"marked": 12, None: 12},
    "shadow": {"work": 31, None: 31},
    "report": {"hospital": 20, None: 20},
    "summary": {"hospital": 21, None: 21},
}
_ANSWERS = {
    1: Answer(1, (), (1,)),
    2: Answer(2, (), (2,)),
    11: Answer(11, (11,), ()),
    12: Answer(12, (12,), ()),
    20: Answer(20, (), (1,)),
    21: Answer(21, (11,), ()),
    30: Answer(30),
    31: Answer(31, schema="work"),
}


def answer(name: Name) -> Answer:
    """What the server says of a name."""
    return _ANSWERS.get(_OIDS.get(name.relation, {}).get(name.schema, 0), Answer(0))


def rules(*, enrolled: bool = True, allowed: frozenset[str] = frozenset()) -> Rules:
    return Rules(
        protected={1: PATIENT, 2: STAY},
        marked={11: PATIENT, 12: STAY},
        names=frozenset(_OIDS),
        functions={"leak": "it reads hospital.patient", "blob": "its body cannot be read"},
        builtins=BUILTINS,
        enrolled=enrolled,
        allowed=allowed,
        attributes=frozenset({"leak"}),
    )


class Door:
    """Runs a text through analyse and decide, as one role's session would."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def __call__(self, sql: str, *, standard_conforming_strings: bool = True) -> Decision | Refusal:
        try:
            analysis = analyse(sql, self.rules, standard_conforming_strings)
        except Unreadable as unreadable:
            return unreadable.refusal
        return decide(analysis, {n: answer(n) for n in analysis.questions}, self.rules)

    def passes(self, sql: str) -> Decision:
        decision = self(sql)
        assert isinstance(decision, Decision), decision
        return decision

    def refuses(self, sql: str) -> Refusal:
        refusal = self(sql)
        assert isinstance(refusal, Refusal), refusal
        return refusal


@pytest.fixture
def door() -> Door:
    """The door for an enrolled recipient."""
    return Door(rules())


@pytest.fixture
def back_door() -> Door:
    """The door for a role that is no recipient."""
    return Door(rules(enrolled=False))


@pytest.fixture
def recipient_rules() -> Rules:
    return rules()
