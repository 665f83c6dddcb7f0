"""Statements of one shape: decided once, and never for a text that would be decided otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.rewrite import (
    Analysis,
    Answer,
    Decision,
    Name,
    Protected,
    Rules,
    Shape,
    analyse,
    constants_of,
    decide,
    shape_of,
    shape_text,
)

PATIENT = Protected("hospital", "patient", "marked", "patient", ("birth_date",))
RULES = Rules(
    protected={10: PATIENT},
    marked={20: PATIENT},
    names=frozenset({"patient"}),
    functions={},
    builtins=frozenset({"set_config", "lower", "table_to_xml"}),
    enrolled=True,
    allowed=frozenset(),
)
ANSWERS = {Name(None, "patient"): Answer(10, (), (10,), "hospital")}


def decided(sql: str) -> tuple[Analysis, Decision]:
    analysis = analyse(sql, RULES)
    decision = decide(analysis, ANSWERS, RULES)
    assert isinstance(decision, Decision)
    return analysis, decision


def learnt(sql: str) -> tuple[str, Shape | None]:
    text = shape_text(sql)
    assert text is not None
    found = shape_of(*decided(sql))
    return text, None if found is None else found[1]


constants = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(lambda d: f"{d:f}"),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")).map(
        lambda text: "'" + text.replace("'", "''") + "'"
    ),
    st.sampled_from(
        ["E'a\\'b'", "$$it's$$", "$x$ FROM patient $x$", "U&'d\\0061t'", "B'101'", "X'ff'"]
    ),
)
frames = st.sampled_from(
    [
        "SELECT name FROM patient WHERE id = {} AND name <> {}",
        "SELECT name FROM patient p WHERE {} = id LIMIT 5 -- {}",
        "SELECT {} AS x, name FROM patient WHERE id = {}",
        "SELECT name FROM patient WHERE id IN (SELECT {} UNION SELECT id FROM patient WHERE id>{})",
        "WITH w AS (SELECT * FROM patient) SELECT * FROM w WHERE id = {} OR lower(name) = {}",
    ]
)


@given(frames, constants, constants, constants, constants)
def test_a_text_of_a_known_shape_is_changed_as_if_it_were_decided_itself(
    frame: str, one: str, other: str, third: str, fourth: str
) -> None:
    first, second = frame.format(one, other), frame.format(third, fourth)
    text = shape_text(first)
    if text is None or shape_text(second) != text:
        return
    found = shape_of(*decided(first))
    if found is None or not found[1].fits(second):
        return
    shape = found[1]
    _, decision = decided(second)
    assert shape.edit(second) == decision.sql
    assert shape.step.touched == decision.statements[0].touched
    # a shape takes a sign for part of its constant
    own = decision.statements[0].statement.replace("-$", "$")
    assert shape.step.statement.replace("-$", "$") == own


def test_the_usual_lookup_has_a_shape_that_fits_the_next_one() -> None:
    text, shape = learnt("SELECT name FROM patient WHERE id = 1")
    assert shape is not None
    following = "SELECT name FROM patient WHERE id = 23456"
    assert shape_text(following) == text
    assert shape.fits(following)
    assert shape.edit(following) == 'SELECT name FROM "marked"."patient" WHERE id = 23456'


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1, name FROM patient",
        "SELECT name FROM patient WHERE id = 1; SELECT 2",
        "SELECT name FROM patient WHERE set_config('statement_timeout', '1', false) = '1'",
        "SELECT name FROM patient WHERE U&\"set!005fconfig\" UESCAPE '!' ('a.b', '1', false) = '1'",
        "SELECT name INTO TEMP kept FROM patient WHERE id = 1",
        "COPY (SELECT name FROM patient WHERE id = 1) TO STDOUT",
    ],
)
def test_what_a_constant_could_change_has_no_shape(sql: str) -> None:
    assert learnt(sql)[1] is None


def test_a_constant_that_sets_the_role_does_not_pass_in_the_shape_of_one_that_does_not() -> None:
    harmless = "SELECT name FROM patient WHERE set_config('statement_timeout','1',false) = '1'"
    assert learnt(harmless)[1] is None
    refused = decide(analyse(harmless.replace("statement_timeout", "role"), RULES), ANSWERS, RULES)
    assert not isinstance(refused, Decision)


@pytest.mark.parametrize("sql", ["SELEC 1", "SELECT '", "SELECT 1" + " " * 5000, "SELECT '\0'"])
def test_what_cannot_be_read_or_is_long_has_no_shape(sql: str) -> None:
    assert shape_text(sql) is None


def test_constants_come_from_the_left_without_their_quotes() -> None:
    sql = "SELECT 'it''s', 12, x FROM t WHERE y = 1.5 AND z = $1 -- 'no'\n AND a = E'e'"
    assert constants_of(sql) == ("it's", "12", "1.5", "E'e'")


def test_a_text_without_tokens_has_no_constants() -> None:
    assert constants_of("SELECT 'open") == ()
