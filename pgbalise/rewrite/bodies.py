"""Function bodies and DO blocks: why one reaches protected relations, or cannot be known.

A body is judged by its tokens, not by what it means: a name in it counts wherever it stands.
"""

from __future__ import annotations

import re
from typing import Final

from pgbalise.rewrite.functions import takes_sql
from pgbalise.rewrite.grammar import (
    AUTHORIZATION,
    COMMENTS,
    DO,
    EXECUTE,
    FETCH,
    LANGUAGE,
    MOVE,
    ROLE,
    STRINGS,
    UESCAPE,
    UIDENT,
    Lexeme,
    SyntaxProblem,
    scan,
)
from pgbalise.rewrite.names import Rules

# what CREATE TYPE ... AS RANGE makes of itself
_RANGES: Final = frozenset(
    {
        "multirange_constructor0",
        "multirange_constructor1",
        "multirange_constructor2",
        "range_constructor2",
        "range_constructor3",
    }
)
_LANGUAGES: Final = frozenset({"sql", "plpgsql"})
_WORDS: Final = re.compile(r"[\w$]+")
_ESCAPES: Final = re.compile(r"\\[bfnrt'\"\\]")
_BEFORE: Final = frozenset({b";", b"begin", b"then", b"else", b"loop", b">>"})
_UNKNOWN: Final = "its body cannot be read"


def reason_not_to_run(body: str, language: str, rules: Rules) -> str | None:
    """Return why a body may not be run by an enrolled role, or None.

    ``body`` is the source, as pg_proc.prosrc or pg_get_function_sqlbody give it. A reason says
    what the body reaches, or that it cannot be known: another language than sql and plpgsql, SQL
    put together at run time.
    """
    if language.lower() == "internal" and body in _RANGES:
        return None
    if language.lower() not in _LANGUAGES:
        return f"bodies in language {language.lower()} cannot be read"
    try:
        encoded = body.encode()
        lexemes = [lexeme for lexeme in scan(encoded) if lexeme.token not in COMMENTS]
    except (SyntaxProblem, UnicodeEncodeError):
        return _UNKNOWN
    if "\0" in body:
        return _UNKNOWN
    for at, lexeme in enumerate(lexemes):
        text = encoded[lexeme.start : lexeme.end].decode()
        following = lexemes[at + 1] if at + 1 < len(lexemes) else None
        before = lexemes[at - 1] if at else None
        if _is(lexeme, FETCH, MOVE) and _begins(before, encoded):
            # of any name: the session may have a cursor on what is protected
            return "it fetches from a cursor"
        reason = _reason(lexeme, text, following, rules)
        if reason is not None:
            return reason
    return None


def _reason(lexeme: Lexeme, text: str, following: Lexeme | None, rules: Rules) -> str | None:
    token = lexeme.token
    if token in STRINGS:
        return _in_string(text, rules)
    if token == UIDENT:
        return (
            _UNKNOWN if "\\" in text or _is(following, UESCAPE) else _named(_fold(text[2:]), rules)
        )
    if token == EXECUTE:
        return "it runs SQL that is put together at run time"
    if token == DO and (_is(following, LANGUAGE) or _is(following, *STRINGS)):
        return "it runs code of its own"
    if token in (ROLE, AUTHORIZATION):
        return "it may change the session's role"
    # an identifier, or a keyword that could be one
    return _named(_fold(text), rules)


def _begins(before: Lexeme | None, encoded: bytes) -> bool:
    """Whether a statement of PL/pgSQL begins behind this."""
    return before is None or encoded[before.start : before.end].lower() in _BEFORE


def _is(lexeme: Lexeme | None, *tokens: int) -> bool:
    return lexeme is not None and lexeme.token in tokens


def _fold(text: str) -> str:
    if text.startswith('"'):
        text = text[1:-1].replace('""', '"')
    else:
        text = "".join(c.lower() if c.isascii() else c for c in text)
    return text.encode()[:63].decode(errors="ignore")


def _named(name: str, rules: Rules) -> str | None:
    if name in rules.names:
        return f"it reaches {name}"
    if name in rules.functions:
        return f"it calls {name}: {rules.functions[name]}"
    if takes_sql(name) and name not in rules.allowed:
        return f"it calls {name}, which takes SQL as text"
    return None


def _in_string(text: str, rules: Rules) -> str | None:
    if text[:2].lower() == "u&":
        return _UNKNOWN
    if text[:1] in "eE":
        text = _ESCAPES.sub(" ", text)
        if "\\" in text:
            return _UNKNOWN
    lower = text.lower()
    words = set(_WORDS.findall(lower))
    if words & {"role", "session_authorization"}:
        return "it may change the session's role"
    bare = lower.replace('"', "").replace("''", "'")
    for name in (*rules.names, *rules.functions):
        folded = name.lower()
        whole = _WORDS.fullmatch(folded) is not None
        if folded in words if whole else folded.replace('"', "") in bare:
            return f"it reaches {name}"
    for word in words:
        if takes_sql(word) and word not in rules.allowed:
            return f"it calls {word}, which takes SQL as text"
    return None
