"""The binding to PostgreSQL's own grammar (libpg_query): text in, trees and tokens out.

The parser leaves a tree as deep as the text is nested, and turning such a tree into JSON takes
stack for each level, without a check: 65,000 terms of ``1+1+...`` overflow 8 MB and end the
process. So text that could be nested deeper than DEEPEST is not parsed.
"""

from __future__ import annotations

import ctypes
import json
import re
from importlib import import_module
from typing import Any, Final, NamedTuple

# mypy cannot read the stub of the generated module
Token: Any = import_module("postgast.pg_query_pb2").Token
_ScanResult: Any = import_module("postgast.pg_query_pb2").ScanResult
_lib: Any = import_module("postgast.native").lib

DEEPEST: Final = 8_000
"""Levels of nesting; PostgreSQL's own max_stack_depth of 2 MB ends near the same number."""

_HARMLESS: Final = 2 * DEEPEST
"""Bytes; a level takes two at least (``1+``)."""

_OPENS: Final = frozenset({Token.ASCII_40, Token.ASCII_91, Token.CASE, Token.BEGIN_P})
_CLOSES: Final = frozenset({Token.ASCII_41, Token.ASCII_93, Token.END_P})
_SEPARATES: Final = frozenset({Token.ASCII_44, Token.AND, Token.OR})
_CHAINS: Final = frozenset({Token.JOIN, Token.UNION, Token.EXCEPT, Token.INTERSECT})

COMMENTS: Final = frozenset({Token.SQL_COMMENT, Token.C_COMMENT})
CONSTANTS: Final = frozenset(
    {Token.SCONST, Token.USCONST, Token.ICONST, Token.FCONST, Token.BCONST, Token.XCONST}
)

Tree = dict[str, Any]


class Lexeme(NamedTuple):
    """A token: its number in the grammar, and its first and its last byte plus one."""

    token: int
    start: int
    end: int
    keyword: bool


class SyntaxProblem(Exception):
    """The grammar does not accept the text."""


class TooDeep(Exception):
    """The text could be nested deeper than the parser's stack allows."""


def parse(sql: bytes) -> list[Tree]:
    """Return the raw statements of a text; every location is an offset in bytes.

    Raise SyntaxProblem for what the grammar does not accept, TooDeep for what may not be parsed.
    """
    if len(sql) > _HARMLESS and depth(scan(sql)) > DEEPEST:
        raise TooDeep
    result = _lib.pg_query_parse(sql)
    try:
        if result.error:
            raise SyntaxProblem
        text = result.parse_tree
    finally:
        _lib.pg_query_free_parse_result(result)
    try:
        tree = json.loads(text)
    except RecursionError:
        tree = _load_deep(text.decode())
    statements: list[Tree] = tree.get("stmts", [])
    return statements


def scan(sql: bytes) -> list[Lexeme]:
    """Return the tokens of a text, comments among them; raise SyntaxProblem if there are none."""
    result = _lib.pg_query_scan(sql)
    try:
        if result.error:
            raise SyntaxProblem
        data = ctypes.string_at(result.pbuf.data, result.pbuf.len)
    finally:
        _lib.pg_query_free_scan_result(result)
    return [
        Lexeme(token.token, token.start, token.end, token.keyword_kind != 0)
        for token in _ScanResult.FromString(data).tokens
    ]


def depth(lexemes: list[Lexeme]) -> int:
    """Return a bound of the depth of the tree that these tokens could make.

    Every token may add a level, but what follows a comma, AND or OR stands beside what came before
    it and not below. Joins and set operations nest across commas.
    """
    deepest, outside = 0, 0
    levels, chains = 0, 0
    open_: list[tuple[int, int]] = []
    for lexeme in lexemes:
        token = lexeme.token
        if token in _OPENS:
            open_.append((levels, chains))
            outside += levels + chains + 1
            levels, chains = 0, 0
        elif token in _CLOSES and open_:
            levels, chains = open_.pop()
            outside -= levels + chains + 1
            levels += 1
        elif token == Token.ASCII_59:
            open_.clear()
            levels, chains, outside = 0, 0, 0
        elif token in _CHAINS:
            chains += 1
            levels = 0
        elif token in _SEPARATES:
            levels = 0
        elif token not in COMMENTS:
            levels += 1
        deepest = max(deepest, outside + levels + chains)
    return deepest


_PIECES: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


def _load_deep(text: str) -> Tree:
    """Read JSON that is nested deeper than the interpreter's recursion limit."""
    holder: list[Any] = []
    stack: list[Any] = [holder]
    key: str | None = None
    for match in _PIECES.finditer(text):
        piece = match.group()
        top = stack[-1]
        if piece in "]}":
            stack.pop()
        elif piece in ",:":
            continue
        elif type(top) is dict and key is None:
            key = json.loads(piece)
        else:
            value: Any = {} if piece == "{" else [] if piece == "[" else json.loads(piece)
            if type(top) is dict:
                top[key], key = value, None
            else:
                top.append(value)
            if piece in "{[":
                stack.append(value)
    tree: Tree = holder[0]
    return tree
