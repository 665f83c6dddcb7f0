"""The binding to PostgreSQL's own grammar (libpg_query): text in, trees and tokens out.

The parser leaves a tree as deep as the text is nested, and turning such a tree into JSON takes
stack for each level, without a check: 65,000 terms of ``1+1+...`` overflow 8 MB and end the
process. So text that could be nested deeper than DEEPEST is not parsed.
"""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final, NamedTuple

# mypy cannot read the stub of the generated module
_messages: Any = import_module("postgast.pg_query_pb2")
_lib: Any = import_module("postgast.native").lib
_numbers: dict[str, int] = dict(_messages.Token.items())

DEEPEST: Final = 8_000
"""Levels of nesting; PostgreSQL's own max_stack_depth of 2 MB ends near the same number.

What nests to the right the grammar itself ends at fewer than 10,000 levels.
"""

_HARMLESS: Final = 2 * DEEPEST
"""Bytes; a level takes two at least (``1+``)."""

_OPERATORS: Final = b"+-*/<>=~!@#%^&|`?:"
_LEFTWARD: Final = (
    b"join",
    b"union",
    b"except",
    b"intersect",
    b"collate",
    b"at",
    b"is",
    b"notnull",
)
"""Keywords of what nests to the left, as operators do: a tree of it is as deep as it is long."""

AUTHORIZATION: Final = _numbers["AUTHORIZATION"]
CLOSE_PARENTHESIS: Final = _numbers["ASCII_41"]
DO: Final = _numbers["DO"]
EXECUTE: Final = _numbers["EXECUTE"]
FETCH: Final = _numbers["FETCH"]
IDENT: Final = _numbers["IDENT"]
LANGUAGE: Final = _numbers["LANGUAGE"]
MOVE: Final = _numbers["MOVE"]
OPEN_PARENTHESIS: Final = _numbers["ASCII_40"]
PARAM: Final = _numbers["PARAM"]
ROLE: Final = _numbers["ROLE"]
SCONST: Final = _numbers["SCONST"]
SEMICOLON: Final = _numbers["ASCII_59"]
STAR: Final = _numbers["ASCII_42"]
UESCAPE: Final = _numbers["UESCAPE"]
UIDENT: Final = _numbers["UIDENT"]
USCONST: Final = _numbers["USCONST"]


def _tokens(*names: str) -> frozenset[int]:
    return frozenset(_numbers[name] for name in names)


COMMENTS: Final = _tokens("SQL_COMMENT", "C_COMMENT")
STRINGS: Final = frozenset({SCONST, USCONST})
CONSTANTS: Final = STRINGS | _tokens("ICONST", "FCONST", "BCONST", "XCONST")

_OPENS: Final = _tokens("ASCII_40", "ASCII_91", "CASE", "BEGIN_P")
_CLOSES: Final = _tokens("ASCII_41", "ASCII_93", "END_P")
_SEPARATES: Final = _tokens("ASCII_44", "AND", "OR")
_CHAINS: Final = _tokens("JOIN", "UNION", "EXCEPT", "INTERSECT")

Tree = dict[str, Any]

_read_json: Final = json.JSONDecoder().raw_decode


class Lexeme(NamedTuple):
    """A token: its number in the grammar, its first byte, and the byte after its last."""

    token: int
    start: int
    end: int


class SyntaxProblem(Exception):
    """The grammar does not accept the text."""


class TooDeep(Exception):
    """The text could be nested deeper than the parser's stack allows."""


def parse(sql: bytes) -> list[Tree]:
    """Return the raw statements of a text; every location is an offset in bytes.

    Raise SyntaxProblem for what the grammar does not accept, TooDeep for what may not be parsed.
    """
    if len(sql) > _HARMLESS and _could_be_deep(sql) and depth(_scanned_tokens(sql)) > DEEPEST:
        raise TooDeep
    result = _lib.pg_query_parse(sql)
    try:
        if result.error:
            raise SyntaxProblem
        text = result.parse_tree.decode()
    finally:
        _lib.pg_query_free_parse_result(result)
    try:
        tree = _read_json(text)[0]
    except RecursionError:
        tree = _load_deep(text)
    statements: list[Tree] = tree.get("stmts", [])
    return statements


def normalised(sql: bytes) -> str:
    """Return a text with a parameter in the place of each constant, numbered from the left.

    Raise SyntaxProblem for what the grammar does not accept or is long.
    """
    if len(sql) > _HARMLESS:
        raise SyntaxProblem
    result = _lib.pg_query_normalize(sql)
    try:
        if result.error:
            raise SyntaxProblem
        text: str = result.normalized_query.decode()
        return text
    finally:
        _lib.pg_query_free_normalize_result(result)


def scan(sql: bytes) -> list[Lexeme]:
    """Return the tokens of a text, comments among them; raise SyntaxProblem if there are none."""
    return [Lexeme(token.token, token.start, token.end) for token in _scanned(sql)]


def _scanned(sql: bytes) -> Any:
    result = _lib.pg_query_scan(sql)
    try:
        if result.error:
            raise SyntaxProblem
        data = ctypes.string_at(result.pbuf.data, result.pbuf.len)
    finally:
        _lib.pg_query_free_scan_result(result)
    return _messages.ScanResult.FromString(data).tokens


def _scanned_tokens(sql: bytes) -> list[int]:
    return [token.token for token in _scanned(sql)]


def _could_be_deep(sql: bytes) -> bool:
    """Whether enough in a text looks like what nests to the left, wherever it stands."""
    seen = len(sql) - len(sql.translate(None, _OPERATORS))
    lower = sql.lower()
    return seen + sum(lower.count(word) for word in _LEFTWARD) > DEEPEST


def depth(tokens: Iterable[int]) -> int:
    """Return a bound of the depth of the tree that these tokens could make.

    Every token may add a level, but what follows a comma, AND or OR stands beside what came before
    it and not below. Joins and set operations nest across commas.
    """
    deepest, outside = 0, 0
    levels, chains = 0, 0
    open_: list[tuple[int, int]] = []
    for token in tokens:
        if token in _OPENS:
            open_.append((levels, chains))
            outside += levels + chains + 1
            levels, chains = 0, 0
        elif token in _CLOSES and open_:
            levels, chains = open_.pop()
            outside -= levels + chains + 1
            levels += 1
        elif token == SEMICOLON:
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
