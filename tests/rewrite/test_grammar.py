"""The binding survives every text: what could overflow the parser's stack is not parsed."""

from __future__ import annotations

import json

import pytest

from pgbalise.rewrite.grammar import (
    SyntaxProblem,
    TooDeep,
    _load_deep,
    depth,
    parse,
    scan,
)

DEEP = {
    "terms": "SELECT 1" + "+1" * 70_000,
    "joins": "SELECT 1 FROM a" + " CROSS JOIN a" * 70_000,
    "joins with conditions": "SELECT 1 FROM a" + " JOIN a ON b AND c" * 70_000,
    "joins with lists": "SELECT 1 FROM a" + " JOIN a USING (b, c)" * 70_000,
    "collations": "SELECT a" + ' COLLATE "C"' * 70_000,
    "casts": "SELECT 1" + "::int" * 70_000,
    "set operations": "SELECT 1, 2" + " UNION SELECT 1, 2" * 70_000,
    "tests": "SELECT a" + " IS NULL" * 70_000,
    "terms in parentheses": "SELECT (" + "(1" + "+1" * 9_000 + ")" * 2,
}


@pytest.mark.parametrize("shape", DEEP)
def test_what_could_overflow_the_stack_is_not_parsed(shape: str) -> None:
    with pytest.raises(TooDeep):
        parse(DEEP[shape].encode())


@pytest.mark.parametrize("opened", ["(", "- ", "NOT ", "(SELECT ", "CASE WHEN ", "f(", "ARRAY["])
def test_what_overflows_the_grammar_is_no_syntax(opened: str) -> None:
    with pytest.raises((SyntaxProblem, TooDeep)):
        parse(b"SELECT " + opened.encode() * 70_000)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 WHERE a IN (" + "1, " * 100_000 + "1)",
        "INSERT INTO t VALUES " + "(1, 'a'), " * 30_000 + "(1, 'b')",
        "SELECT 1 WHERE " + "(a = 1 AND b = 2) OR " * 20_000 + "c",
        "SELECT 1" + " UNION ALL SELECT 1" * 5_000,
        "INSERT INTO t VALUES ('" + "x+" * 1_000_000 + "')",
        "SELECT 1; " * 10_000,
        "/* " + "x + " * 20_000 + "*/ SELECT 1",
    ],
)
def test_long_statements_pass(sql: str) -> None:
    assert parse(sql.encode())


def test_the_bound_is_no_less_than_the_depth_of_the_tree() -> None:
    for sql in (
        "SELECT 1+1+1+1",
        "SELECT a FROM b JOIN c ON d AND e JOIN f USING (g, h)",
        "SELECT CASE WHEN a AND CASE WHEN b OR c THEN d END THEN CASE e WHEN f THEN g END END",
        "SELECT (SELECT a, (SELECT b[c[d]] FROM e) UNION SELECT NOT NOT f)",
        "SELECT a BETWEEN b + c AND d - e AND f",
    ):
        [raw] = parse(sql.encode())
        assert depth(x.token for x in scan(sql.encode())) >= _nodes(raw)


def _nodes(tree: object) -> int:
    """Expressions above one another: the longest chain of operators, branches and queries."""
    if isinstance(tree, dict):
        own = sum(key in ("A_Expr", "JoinExpr", "CaseExpr", "SubLink", "larg") for key in tree)
        return own + max((_nodes(value) for value in tree.values()), default=0)
    return max((_nodes(item) for item in tree), default=0) if isinstance(tree, list) else 0


def test_json_deeper_than_the_interpreter_allows_is_read() -> None:
    text = '{"a": [1, -2.5, true, null, "b\\"{]", {}, []], "c": {"d": [{"e": "é"}]}}'
    assert _load_deep(text) == json.loads(text)
    [nested] = parse(b"SELECT " + b"NOT " * 3_000 + b"x")
    node, levels = nested["stmt"]["SelectStmt"]["targetList"][0]["ResTarget"]["val"], 0
    while "BoolExpr" in node:
        node, levels = node["BoolExpr"]["args"][0], levels + 1
    assert levels == 3_000
