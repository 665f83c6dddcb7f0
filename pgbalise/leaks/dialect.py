"""PURE. How a delimited text is written: found from its beginning."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from pgbalise.leaks.fields import Row, split
from pgbalise.leaks.header import TYPED, is_header, numbered, unique

DELIMITERS: Final = ",;\t|\x01^:"
_UNLIKELY: Final = {"^": 0.9, ":": 0.75}
_FIT: Final = 0.9
"""The share of rows that must have as many fields as most have."""

_PREAMBLE: Final = 50
"""Lines above the table that are remarks."""

_OTHER_DELIMITER: Final = re.compile(r"[;\t|\x01]|,(?! )")
_SEP: Final = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)
_RULE: Final = re.compile(r"^[ ]?(?:-{2,}\+)+-+[ ]*$|^\+(?:-{2,}\+)+$|^\|?(?:[ ]?:?-{3,}:?[ ]?\|)+")
_REMARK: Final = re.compile(r"(?:#|--|//|%)[^\n]*\n")


class NotATable(Exception):
    """The text is no table; the message says why, without any of its content."""


@dataclass(frozen=True)
class Dialect:
    """How a text is written, and where its rows begin."""

    delimiter: str
    quote: str
    """Empty: nothing is quoted."""
    escape: bool
    """Within quotes, a backslash stands before a quote."""
    copy_text: bool
    """COPY's text format: NULL is \\N only, and backslashes are undone."""
    ruled: bool
    """Drawn for the eye, with rules and padding (psql, mysql, Markdown)."""
    padded: bool
    """A blank follows each delimiter."""
    skip: int
    """Characters before the first row of data."""
    header: tuple[str | None, ...]
    """The header as the file has it; empty when it has none."""
    width: int
    """Fields of a row, as the text has them."""
    keep: tuple[int, ...]
    """Which of them are columns: a delimiter at the end of each row makes one more."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that are kept."""
        if not self.header:
            return numbered(len(self.keep))
        return unique([self.header[field] for field in self.keep])


def infer(sample: str, complete: bool) -> Dialect:
    """Return how a text is written that begins like this; ``complete``: the sample is all of it.

    Raise NotATable when it is empty, has a header only, or its rows differ in their fields.
    """
    start = len(sample) - len(sample.lstrip("\ufeff\r\n"))
    forced = ""
    if found := _SEP.match(sample, start):
        forced, start = found[1], found.end()
    if not sample[start:].strip():
        raise NotATable("the file is empty")
    while found := _REMARK.match(sample, start):
        start = found.end()
    text = sample[start:]
    lines = re.split(r"\r\n|\r|\n", text)
    rules = sum(1 for line in lines[:200] if _RULE.match(line))
    if rules and "|" in text:
        dialect = _fitted(text, "|", "", False, complete)
        if dialect is not None:
            return replace(dialect[1], ruled=True, copy_text=False, skip=dialect[1].skip + start)
    best: tuple[float, Dialect] | None = None
    refusal: NotATable | None = None
    for delimiter in forced or DELIMITERS:
        if delimiter not in text:
            continue
        for quote, escape in _quotings(text, delimiter):
            try:
                scored = _fitted(text, delimiter, quote, escape, complete)
            except NotATable as problem:
                refusal = refusal or problem
                continue
            if scored is not None and (best is None or scored[0] > best[0]):
                best = scored
    if best is None and refusal is not None:
        raise refusal
    chosen = best[1] if best else _one_column(text, complete)
    return replace(chosen, skip=chosen.skip + start)


def _quotings(text: str, delimiter: str) -> list[tuple[str, bool]]:
    d = re.escape(delimiter)
    lines = text.count("\n") + text.count("\r")
    copied = _is_copied(text, delimiter)
    found = []
    for quote in "\"'":
        opening = len(re.findall(rf"(?:^|\r|{d}){quote}", text, re.MULTILINE))
        closing = len(re.findall(rf"{quote}(?:$|{d}|\r)", text, re.MULTILINE))
        # What COPY wrote may have a quote here and there, which quotes nothing.
        if not opening or not closing or (copied and opening * 2 < lines):
            continue
        # An apostrophe begins a word now and then; a quote comes in pairs.
        if quote == '"' or abs(opening - closing) * 10 <= opening:
            escaped = re.search(
                rf"[^{d}\n\\]\\(?:\\\\)*{quote}(?!\s*(?:{d}|$))", text, re.MULTILINE
            )
            found.append((quote, bool(escaped)))
    return found or [("", False) if copied else ('"', False)]


def _is_copied(text: str, delimiter: str) -> bool:
    """Say whether the backslashes in a text are those of COPY's text format."""
    if "\\" not in text:
        return False
    d = re.escape(delimiter)
    if re.search(rf"(?:^|\r|{d})\\N(?:$|{d}|\r)", text, re.MULTILINE):
        return True
    if delimiter != "\t" or re.search(r"(?:^|\r|\t)([\"']).*\1(?:\t|\r|$)", text, re.MULTILINE):
        return False
    return not re.search(r"\\(?![bfnrtv\\N])", text.replace("\\\\", ""))


def _fitted(
    text: str, delimiter: str, quote: str, escape: bool, complete: bool
) -> tuple[float, Dialect] | None:
    """Return a dialect and how well it explains the text, or None when it does not."""
    # COPY reads a backslash before a newline as part of the value.
    rows = list(split(text, delimiter, quote, escape or not quote))
    if not complete and len(rows) > 1:
        rows.pop()
    widths = Counter(len(row.fields) for row in rows)
    width = max(widths, key=lambda w: (widths[w] if w > 1 else 0, w))
    if width < 2:
        return None
    first = next(n for n, row in enumerate(rows) if _may_begin(rows, n, row, width))
    if first > min(_PREAMBLE, max(3, len(rows) // 2)):
        return None
    ends = [rows[first - 1].end if first else 0, rows[first].end]
    table = [row for row in rows[first:] if len(row.fields) > 1 or not is_rule(row.fields[0])]
    body = table[1:]
    exact = sum(1 for row in body if len(row.fields) == width)
    fitting = sum(1 for row in body if _fits(row, width))
    if fitting < len(body) - max(1.0, (1 - _FIT) * len(body)) or exact * 2 < len(body):
        return None
    # What stands above the table counts against it, too.
    fit = (fitting + 1) / (len(body) + 1) * len(table) / len(rows)
    score = fit * _typed(table) * _UNLIKELY.get(delimiter, 1.0)
    copy_text = not quote and not escape
    dialect = Dialect(
        delimiter, quote, escape, copy_text, False, _is_padded(table), 0, (), width, ()
    )
    return score, _with_header(dialect, table, ends)


def is_rule(text: str | None) -> bool:
    """Say whether a line is drawn, as under the header in psql and in Markdown."""
    return bool(text and _RULE.match(text))


def _may_begin(rows: list[Row], index: int, row: Row, width: int) -> bool:
    """Say whether a table of that width may begin at a row: a header may lack its last field."""
    have = len(row.fields)
    if have == width:
        return True
    following = rows[index + 1 : index + 4]
    return have == width - 1 and have > 1 and all(len(r.fields) == width for r in following)


def _fits(row: Row, width: int) -> bool:
    return len(row.fields) == width or (not any(row.fields[width:]) and len(row.fields) > 1)


def _typed(rows: list[Row]) -> float:
    """Return the share of cells that are single values: no other delimiter is inside."""
    cells = single = 0
    for row in rows[:500]:
        for value, quoted in zip(row.fields, row.quoted, strict=True):
            cells += 1
            if quoted or not value or not _OTHER_DELIMITER.search(value) or TYPED.fullmatch(value):
                single += 1
    return single / max(1, cells)


def _is_padded(rows: list[Row]) -> bool:
    values = [value for row in rows[:500] for value in row.fields[1:] if value]
    return bool(values) and all(value[0] == " " for value in values)


def _with_header(dialect: Dialect, table: list[Row], ends: list[int]) -> Dialect:
    width = dialect.width
    body = [row.fields for row in table[1:] if len(row.fields) == width]
    keep = list(range(width))
    first = table[0].fields
    header: tuple[str | None, ...] = ()
    if len(first) == width - 1:
        # Either each row ends with a delimiter, or the first column holds row names (R).
        header = (*first, None) if not any(row[-1] for row in body) else (None, *first)
    elif is_header(first, body):
        header = first
    known = [header, *body] if header else [first, *body]
    for edge in (width - 1, 0):
        if len(keep) > 1 and not any((row[edge] or "").strip() for row in known):
            keep.remove(edge)
    if len(table) == 1 and not any(cell and TYPED.fullmatch(cell) for cell in first):
        raise NotATable("the file has a header and no rows")
    return replace(dialect, header=header, keep=tuple(keep), skip=ends[1] if header else ends[0])


def _one_column(text: str, complete: bool) -> Dialect:
    lines = [line for line in re.split(r"[\r\n]", text) if line.strip()]
    if not complete:
        lines.pop()
    for delimiter in ",;\t|":
        if sum(1 for line in lines if delimiter in line) * 2 > len(lines) > 0:
            raise NotATable("its rows differ in their number of fields")
    # No row has this character, so each is one field.
    rows = list(split(text, "\x1f", '"', False))
    if not complete and len(rows) > 1:
        rows.pop()
    if not rows or max(len(row.fields) for row in rows) > 1:
        raise NotATable("its rows differ in their number of fields")
    if len(rows) == 1:
        raise NotATable("the file has a single value")
    dialect = Dialect("\x1f", '"', False, False, False, False, 0, (), 1, ())
    return _with_header(dialect, rows, [0, rows[0].end])
