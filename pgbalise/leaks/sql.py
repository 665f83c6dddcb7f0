"""PURE. The parts of SQL text that carry rows: names, literals, column lists."""

from __future__ import annotations

import re
from mmap import mmap
from typing import Final

_NAME: Final = rb"(?:\"(?:[^\"]|\"\")+\"|`(?:[^`]|``)+`|\[[^\]]+\]|[^\s\"`\[\](),.;']+)"
_NAMES: Final = re.compile(_NAME)
_QUALIFIED: Final = rb"(" + _NAME + rb"(?:\s*\.\s*" + _NAME + rb")*+)"
_LIST: Final = rb"(?:\s*\(((?:" + _NAME + rb"|[\s,])*+)\))?+"
_STANDARD: Final = rb"[^']*+(?:''[^']*+)*+"
_BACKSLASH: Final = rb"(?:[^'\\]|\\.|'')*+"
_ANY: Final = re.IGNORECASE | re.DOTALL

GAP: Final = re.compile(rb"(?:[\s;]|--[^\n]*+(?:\n|\Z)|/\*.*?\*/|\#[^\n]*+|\\[^\n]*+)*+", _ANY)
"""What may stand between statements, the commands of psql among it."""

COPY: Final = re.compile(
    rb"COPY\s+" + _QUALIFIED + _LIST + rb"\s+FROM\s+stdin\b([^\n;]*);[^\S\n]*\n", _ANY
)
INSERT: Final = re.compile(
    rb"(?:INSERT|REPLACE)\s+(?:(?:IGNORE|DELAYED|LOW_PRIORITY|OR\s+\w+)\s+)?INTO\s+"
    + _QUALIFIED
    + _LIST
    + rb"\s*(?:OVERRIDING\s+\w+\s+VALUE\s+)?VALUES?\b\s*",
    _ANY,
)
SQL_SERVER_INSERT: Final = re.compile(rb"INSERT\s+(?=[\[\"\w])(?!INTO\b|IGNORE\b|OR\b)", _ANY)
CREATE: Final = re.compile(
    rb"CREATE\s+(?:[a-z]+\s+){0,3}?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?" + _QUALIFIED + rb"\s*\(", _ANY
)
OPENING: Final = re.compile(rb"\s*+\(")
_OPTIONAL: Final = re.compile(rb"(?:,|;|\Z)?", _ANY)
_CONSTRAINT: Final = re.compile(
    rb"(?:PRIMARY|UNIQUE|CONSTRAINT|KEY|INDEX|FULLTEXT|SPATIAL|FOREIGN|CHECK|EXCLUDE|LIKE|PERIOD)\Z",
    re.IGNORECASE,
)
_TOKENS: Final = (
    rb"'" + _STANDARD + rb"'|\"[^\"]*+\"|`[^`]*+`|\$(\w*)\$.*?\$\1\$|--[^\n]*+|/\*.*?\*/"
)
_REST: Final = {
    False: re.compile(rb"(?:[^'\"`$/;-]++|" + _TOKENS + rb"|[$/-])*+(?:;|\Z)", _ANY),
    True: re.compile(
        rb"(?:[^'\"`$/;-]++|'"
        + _BACKSLASH
        + rb"'|\"(?:[^\"\\]|\\.)*+\"|"
        + _TOKENS
        + rb"|[$/-])*+(?:;|\Z)",
        _ANY,
    ),
}
_PART: Final = re.compile(rb"[^'\"`(),/-]++|" + _TOKENS + rb"|[(),/-]", _ANY)


def _literal(string: bytes) -> re.Pattern[bytes]:
    return re.compile(
        rb"\s*+(?:(NULL|DEFAULT)(?![\w.(])|(TRUE|FALSE)(?![\w.(])"
        rb"|(?:0x|x(?='))('[0-9a-f]*+'|[0-9a-f]*+)"
        rb"|([+-]?(?:\d[\d.]*+|\.\d+)(?:e[+-]?\d+)?)(?![\w(])"
        rb"|e'(" + _BACKSLASH + rb")'"
        rb"|(?:_\w+\s*|n|b|u&)?'(" + string + rb")'"
        rb"|([^\s,()'\"`;]+\s*\((?:[^'()]|'"
        + string
        + rb"'|\((?:[^'()]|'"
        + string
        + rb"')*+\))*+\))"
        rb"|([^\s,()'\";]+))"
        rb"(?:\s*::\s*[\w\s.\"\[\]]+(?:\([\d,\s]*\))?)*+\s*+([,)])",
        _ANY,
    )


LITERAL: Final = {False: _literal(_STANDARD), True: _literal(_BACKSLASH)}
"""One value of a row and what follows it, by whether a backslash escapes within quotes. Groups:
null, boolean, hex, number, escaped string, string, function, anything else, what follows."""

_INNER: Final = re.compile(rb"n?'(" + _STANDARD + rb")'", _ANY)
_UNESCAPE: Final = re.compile(r"\\(.)|''", re.DOTALL)
_MEANT: Final = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a"}


def name_of(quoted: bytes) -> str:
    """Return a name, or names joined by dots, without quotes."""
    return ".".join(_plain(part) for part in _NAMES.findall(quoted))


def names_of(listed: bytes | None) -> tuple[str, ...]:
    """Return the names of a column list."""
    return tuple(_plain(part) for part in _NAMES.findall(listed)) if listed else ()


def _plain(part: bytes) -> str:
    text = part.decode("utf-8", "replace")
    if text[0] in '"`' and len(text) > 1:
        return text[1:-1].replace(text[0] * 2, text[0])
    return text[1:-1] if text[0] == "[" else text


def skipped(text: mmap | bytes, position: int, escape: bool) -> int:
    """Return where a statement ends, or -1 when it never does."""
    found = _REST[escape].match(text, position)
    return found.end() if found else -1


def created(text: mmap | bytes, position: int) -> tuple[str, ...]:
    """Return the columns of a CREATE TABLE whose parenthesis opens before the position."""
    depth, wanted = 1, True
    names: list[str] = []
    while depth and len(names) < 4_096:
        found = _PART.match(text, position)
        if found is None:
            return ()
        position = found.end()
        part = found[0]
        if part == b"(":
            depth += 1
        elif part == b")":
            depth -= 1
        elif part == b",":
            wanted = depth == 1
        elif wanted and part.strip() and not part.startswith((b"--", b"/*")):
            first = _NAMES.search(part)
            wanted = False
            if first and not _CONSTRAINT.match(first[0]):
                names.append(_plain(first[0]))
    return tuple(names)


def called(function: bytes) -> bytes | None:
    """Return what a function call in a row stands for: the string that it is given, mostly."""
    found = _INNER.search(function)
    if found is None:
        return None
    value: bytes = found[1]
    if function[:7].lower() == b"replace":
        # SQLite writes a newline as replace('a\\nb','\\n',char(10)).
        value = value.replace(b"\\n", b"\n") if b"char(10)" in function else value
        value = value.replace(b"\\r", b"\r") if b"char(13)" in function else value
    return value


def string(value: str, escape: bool) -> str:
    """Return the text that a quoted string stands for."""
    if not escape:
        return value.replace("''", "'")
    return _UNESCAPE.sub(lambda found: _MEANT.get(found[1], found[1]) if found[1] else "'", value)
