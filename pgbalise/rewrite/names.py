"""The words of rewriting: names, what is protected, answers and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pgbalise.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Name:
    """A relation's name as PostgreSQL reads it: folded, unquoted, at most 63 bytes.

    ``schema`` is None when the name was written without one.
    """

    schema: str | None
    relation: str

    @property
    def quoted(self) -> str:
        """The name as SQL text: every part in double quotes."""
        relation = quote_name(self.relation)
        return relation if self.schema is None else f"{quote_name(self.schema)}.{relation}"

    def __str__(self) -> str:
        return self.relation if self.schema is None else f"{self.schema}.{self.relation}"


@dataclass(frozen=True, slots=True)
class Protected:
    """A protected relation, and the marked view through which this recipient reads it."""

    schema: str
    relation: str
    view_schema: str
    view: str
    carriers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.schema}.{self.relation}"


@dataclass(frozen=True)
class Rules:
    """What one role may do in one database; shared by the role's sessions.

    ``protected`` has the stored relations by oid, ``marked`` all marked views by oid, whatever
    their class (the server's privileges decide who reads them). ``names`` are the bare names that
    must be resolved: of both, and of everything that reaches either (views, materialized views,
    partitions, parents). ``functions`` are bare names of functions outside pg_catalog that may
    not be called, with the reason. ``builtins`` are the names of pg_catalog's functions.
    ``enrolled`` is False for a role that is no recipient: it may not read anything protected, and
    nothing else is held against it. ``allowed`` are functions taking SQL as text that the
    administrator allows. ``attributes`` are those of ``functions`` that take one argument of a
    row type or a polymorphic one, because ``row.name`` calls them too; None means all of them.
    ``opaque`` are views and tables by oid whose query or policy calls one of ``functions``, with
    the reason: they may not be read. RESOLVE is given them among the protected relations.
    """

    protected: Mapping[int, Protected]
    marked: Mapping[int, Protected]
    names: frozenset[str]
    functions: Mapping[str, str]
    builtins: frozenset[str]
    enrolled: bool
    allowed: frozenset[str]
    attributes: frozenset[str] | None = None
    opaque: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a statement is not run, as an ErrorResponse says it; no constant of the SQL is in it."""

    sqlstate: str
    message: str
    hint: str


class Unreadable(InvalidInput):
    """The statement cannot be read, so nobody knows what it touches; ``refusal`` says why."""

    code = "unreadable_statement"

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message, hint=refusal.hint)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Answer:
    """What a name is, as the server resolved it in the client's session.

    ``oid`` is 0 when there is no such relation. ``marked`` are the oids of the marked views that
    it is or reaches, ``stored`` those of the protected relations that it is or reaches without a
    marked view in between. ``schema`` is where it was found, "pg_temp" for the session's own.
    ``answering``: whoever writes it may be given rows by a rule.
    ``parent``: other relations inherit from it or are its partitions, so ONLY means something.
    """

    oid: int
    marked: tuple[int, ...] = ()
    stored: tuple[int, ...] = ()
    schema: str | None = field(default=None, compare=False)
    answering: bool = False
    parent: bool = False


def quote_name(name: str) -> str:
    """Return an identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'
