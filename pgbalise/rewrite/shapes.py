"""Statements that differ in their constants only, decided once.

The shape of a text is the text with a parameter in the place of each constant. Texts of one shape
have the same names in the same order, so what was decided for one of them holds for the others, as
long as no constant had a say in it, and every change lies before the first constant.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgbalise.rewrite.editing import Decision, Step
from pgbalise.rewrite.grammar import CONSTANTS, SyntaxProblem, normalised, scan
from pgbalise.rewrite.reading import Analysis

_LONGEST = 4096
"""Characters of a text that is worth a shape."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What was decided for texts that begin with ``before`` and have the same shape."""

    before: str
    after: str
    step: Step

    def fits(self, sql: str) -> bool:
        """Whether a text of this shape can be changed as the first one was."""
        return sql.startswith(self.before)

    def edit(self, sql: str) -> str:
        """Return such a text changed."""
        return self.after + sql[len(self.before) :]


def shape_text(sql: str) -> str | None:
    """Return the text that stands for all of its shape, None for one that has none."""
    if len(sql) > _LONGEST or "\0" in sql:
        return None
    try:
        return normalised(sql.encode())
    except (SyntaxProblem, UnicodeEncodeError):
        return None


def shape_of(analysis: Analysis, decision: Decision) -> tuple[str, Shape] | None:
    """Return an analysed text's ``shape_text`` and what can be kept for others of that shape.

    None when nothing can.
    """
    text = shape_text(analysis.sql)
    if text is None:
        return None
    if len(analysis.statements) != 1 or len(decision.statements) != 1:
        return None
    [step], [read] = decision.statements, analysis.statements
    quiet = step.kind == "select" and read.changes == frozenset() and not read.changes_reading
    if not quiet or read.executes or read.reads_constants:
        return None
    pairs = enumerate(zip(text, analysis.sql, strict=False))
    common = next((at for at, (one, other) in pairs if one != other), len(analysis.sql))
    before = analysis.sql[:common]
    if decision.edited > len(before.encode()):
        return None
    behind = analysis.sql[len(before) :]
    after = decision.sql[: len(decision.sql) - len(behind)]
    return text, Shape(before, after, step)


def constants_of(sql: str) -> tuple[str, ...]:
    """Return a text's constants from the left, those in single quotes without them.

    Other notations (E'...', $$...$$) are left as they are written. Empty for what has no tokens.
    """
    encoded = sql.encode("utf-8", "replace")
    try:
        lexemes = scan(encoded)
    except SyntaxProblem:
        return ()
    found = (encoded[one.start : one.end].decode() for one in lexemes if one.token in CONSTANTS)
    return tuple(
        text[1:-1].replace("''", "'") if len(text) > 1 and text[0] == "'" else text
        for text in found
    )
