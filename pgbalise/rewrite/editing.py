"""Decides what happens to a text: refused, forwarded as it is, or with protected names replaced.

Names are replaced at the places that the parser gives; every other byte stays. The result is
parsed again, and must be the tree that was intended.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pgbalise.rewrite.grammar import (
    CLOSE_PARENTHESIS,
    COMMENTS,
    CONSTANTS,
    OPEN_PARENTHESIS,
    PARAM,
    SEMICOLON,
    STAR,
    UESCAPE,
    Lexeme,
    SyntaxProblem,
    TooDeep,
    Tree,
    parse,
    scan,
)
from pgbalise.rewrite.names import Answer, Name, Protected, Refusal, Rules, quote_name
from pgbalise.rewrite.reading import DENIED, HARMLESS, NOT_SUPPORTED, Analysis, Scope, Statement


@dataclass(frozen=True, slots=True)
class Step:
    """What one statement of a text does; each gives one CommandComplete.

    ``kind`` is one of select, copy, cursor, write, explain, prepare, execute, fetch, close,
    deallocate, transaction and other. ``touched`` are the protected relations that it reads
    through marked views, sorted; ``statement`` is then its normalised text (constants are $n,
    no comments), otherwise empty. ``prepares`` and ``executes`` are names of SQL's PREPARE and
    EXECUTE (EXECUTE also inside EXPLAIN and CREATE TABLE AS); ``declares``, ``fetches`` and
    ``closes`` are cursors of DECLARE, FETCH or MOVE, and CLOSE; ``closes`` and ``deallocates``
    are "*" for all of them. ``constants`` are the string and number constants as text, in no
    particular order.

    ``changes_names``: names may mean something else later in the session (what SET LOCAL or a
    transaction that fails did is undone at the transaction's end, too). ``creates`` are bare names
    of relations that from now on may read what is protected (views of it, renamed ones): they
    belong to the rules' names. ``changes_reading``: the session's client_encoding or
    standard_conforming_strings may change, so later text must not be analysed before the server
    has reported its settings.
    """

    kind: str
    touched: tuple[Protected, ...] = ()
    statement: str = ""
    prepares: str | None = None
    executes: str | None = None
    declares: str | None = None
    fetches: str | None = None
    closes: str | None = None
    deallocates: str | None = None
    changes_names: bool = False
    changes_reading: bool = False
    creates: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """A text to forward: ``sql`` is the same object when nothing was changed.

    ``edited`` is where the last change ends, an offset in bytes of the text as it was.
    """

    sql: str
    statements: tuple[Step, ...]
    edited: int = 0


@dataclass
class _Edits:
    """Replacements by byte offsets, and the nodes that they are meant to change."""

    lexemes: list[Lexeme]
    spans: list[tuple[int, int, str]]
    intended: dict[int, Tree]


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def decide(analysis: Analysis, answers: Mapping[Name, Answer], rules: Rules) -> Decision | Refusal:
    """Decide about an analysed text, given what its questions' names are.

    One refused statement refuses the whole text. Raise KeyError when an answer is missing.
    """
    if analysis.plain:
        return Decision(analysis.sql, tuple(_step(s, ()) for s in analysis.statements))
    if not analysis.readable:
        return Decision(analysis.sql, (Step("other", changes_names=True, changes_reading=True),))
    try:
        _check_order(analysis, answers)
        touched = [_touched(statement, answers, rules) for statement in analysis.statements]
        edits = _edits(analysis, answers, rules)
        sql = analysis.sql if edits is None else _edit(analysis, edits)
    except _Refused as refused:
        return refused.refusal
    lexemes = edits.lexemes if edits is not None else None
    steps = []
    for statement, relations in zip(analysis.statements, touched, strict=True):
        text = ""
        if relations:
            if lexemes is None:
                lexemes = scan(analysis.encoded)
            text = _normalised(analysis.encoded, lexemes, statement)
        steps.append(_step(statement, relations, text))
    edited = max((end for _, end, _ in edits.spans), default=0) if edits is not None else 0
    return Decision(sql, tuple(steps), edited)


def explain_refusal(touched: tuple[Protected, ...]) -> Refusal:
    """Return why EXPLAIN is refused for a statement that touches protected relations."""
    return Refusal(
        DENIED,
        f"EXPLAIN is refused for {_listed(touched)}",
        "The plan would tell decoys from patients; run the query itself.",
    )


def _step(statement: Statement, touched: tuple[Protected, ...], text: str = "") -> Step:
    return Step(
        kind=statement.kind,
        touched=touched,
        statement=text,
        prepares=statement.prepares,
        executes=statement.executes,
        declares=statement.declares,
        fetches=statement.fetches,
        closes=statement.closes,
        deallocates=statement.deallocates,
        changes_names=statement.changes is None or bool(statement.changes),
        changes_reading=statement.changes_reading,
        creates=(*(statement.creates if touched else ()), *statement.renamed),
        constants=statement.constant_texts(),
    )


def _listed(relations: tuple[Protected, ...]) -> str:
    return ", ".join(str(relation) for relation in relations)


def _check_order(analysis: Analysis, answers: Mapping[Name, Answer]) -> None:
    """Refuse a text whose beginning may change what its end touches.

    What is protected now is replaced by a qualified name, so only a name that is not, and is
    written without a schema, is open to what functions and triggers do behind the text.
    """
    changed: set[str] | None = set()
    code_ran = False
    for statement in analysis.statements:
        asked = {name for _, name, _ in statement.reads}
        asked.update(name for _, name, _ in statement.columns)
        asked.update(statement.returns)
        if statement.explain:
            asked.update(statement.targets)
        if any(
            changed is None
            or name.relation in changed
            or (code_ran and name.schema is None and not answers[name].stored)
            for name in asked
        ):
            raise _Refused(
                Refusal(
                    NOT_SUPPORTED,
                    "an earlier statement of the text may change what a later one reads",
                    "Send the statements one by one.",
                )
            )
        if changed is not None:
            if statement.changes is None:
                changed = None
            else:
                changed |= statement.changes
        code_ran = code_ran or statement.tree["stmt"].keys().isdisjoint(HARMLESS)


def _touched(
    statement: Statement, answers: Mapping[Name, Answer], rules: Rules
) -> tuple[Protected, ...]:
    if statement.refusal is not None:
        raise _Refused(statement.refusal)
    touched: set[Protected] = set()
    copied = statement.copied.get("relation") if statement.copied is not None else None
    for node, name, _ in statement.reads:
        answer = answers[name]
        touched |= _reached(name, answer, rules)
        if (
            answer.parent
            and answer.oid in rules.protected
            and (node is copied or "inh" not in node)
        ):
            raise _Refused(_alone(name))
    for name in statement.targets:
        if answers[name].answering and answers[name].stored:
            raise _Refused(_answering(name))
    for name in statement.returns:
        answer = answers[name]
        if answer.stored:
            raise _Refused(_returning(name, rules))
        touched |= _reached(name, answer, rules)
    found = tuple(sorted(touched, key=lambda p: (p.schema, p.relation)))
    if found and rules.enrolled and statement.kind == "other":
        # who reads it later, and how often, would be written down nowhere
        raise _Refused(
            Refusal(
                DENIED,
                f"a recipient may not define what reads {_listed(found)}",
                "Query the relation itself.",
            )
        )
    if statement.explain and rules.enrolled:
        written = {rules.protected[o] for n in statement.targets for o in answers[n].stored}
        if touched or written:
            everything = sorted(touched | written, key=lambda p: (p.schema, p.relation))
            raise _Refused(explain_refusal(tuple(everything)))
    return found


def _reached(name: Name, answer: Answer, rules: Rules) -> set[Protected]:
    """Return the protected relations behind a name that is read; raise for what may not be."""
    reached = {rules.marked[oid] for oid in answer.marked if oid in rules.marked}
    stored = {rules.protected[oid] for oid in answer.stored if oid in rules.protected}
    if (reached or stored) and not rules.enrolled:
        raise _Refused(
            Refusal(
                DENIED,
                f"{name} is protected, and this role is not enrolled as a recipient",
                "Have the role enrolled: pgbalise recipient add ROLE.",
            )
        )
    if answer.oid in rules.protected:
        return {rules.protected[answer.oid]}
    for oid in answer.stored:
        if oid in rules.opaque and rules.enrolled:
            raise _Refused(
                Refusal(
                    DENIED,
                    f"{name} may not be read: {rules.opaque[oid]}",
                    "Query the relations themselves; they are marked.",
                )
            )
    if stored:
        behind = tuple(sorted(stored, key=lambda p: (p.schema, p.relation)))
        raise _Refused(
            Refusal(
                DENIED,
                f"{name} reads {_listed(behind)} as it is stored, past the marked view",
                f"Query {behind[0]} itself.",
            )
        )
    return reached


def _alone(name: Name) -> Refusal:
    return Refusal(
        NOT_SUPPORTED,
        f"{name} without what inherits from it cannot be read: its marked view shows both",
        "Leave ONLY out, or write COPY (SELECT ...) TO instead of COPY.",
    )


def _answering(name: Name) -> Refusal:
    return Refusal(
        DENIED,
        f"writing {name} is refused: a rule of it may give stored values",
        "Query the relation itself; the rule is for the relation's owner to change.",
    )


def _returning(name: Name, rules: Rules) -> Refusal:
    if rules.enrolled:
        return Refusal(
            NOT_SUPPORTED,
            f"RETURNING is refused for {name}: it would give stored values",
            "Leave RETURNING out, and query the relation afterwards.",
        )
    return Refusal(
        DENIED,
        f"RETURNING is refused for {name}: this role is not enrolled as a recipient",
        "Leave RETURNING out, or have the role enrolled: pgbalise recipient add ROLE.",
    )


# Edits


def _edits(analysis: Analysis, answers: Mapping[Name, Answer], rules: Rules) -> _Edits | None:
    """Return what must be replaced, or None."""
    edits: _Edits | None = None
    at: dict[int, int] = {}
    for statement in analysis.statements:
        for node, name, scope in statement.reads:
            answer = answers[name]
            protected = rules.protected.get(answer.oid)
            if protected is None and (name.schema is not None or answer.schema is None):
                continue
            if edits is None:
                lexemes = [x for x in scan(analysis.encoded) if x.token not in COMMENTS]
                edits = _Edits(lexemes, [], {})
                at = {lexeme.start: i for i, lexeme in enumerate(lexemes)}
            first = at.get(node.get("location", 0))
            if first is None:
                raise _Refused(_IRREPLACEABLE)
            if protected is None:
                # what it is now it stays, whatever becomes of search_path before this runs
                assert answer.schema is not None
                _edit_schema(node, answer.schema, first, edits)
            elif statement.copied is not None and statement.copied.get("relation") is node:
                _edit_copy(statement.copied, protected, first, edits)
            else:
                # a target of the same name without an alias is an error, and must remain one
                taken = scope is not None and _is_target(name, scope, answers)
                _edit_name(node, protected, first, edits, taken)
        if edits is not None:
            seen: dict[tuple[int, int], Protected | None] = {}
            for column, name, scope in statement.columns:
                protected = _replaced(name, scope, answers, rules, seen)
                if protected is not None:
                    first = at.get(column.get("location", 0))
                    if first is None:
                        raise _Refused(_IRREPLACEABLE)
                    _edit_column(column, protected, first, edits)
    return edits


def _replaced(
    name: Name,
    scope: Scope | None,
    answers: Mapping[Name, Answer],
    rules: Rules,
    seen: dict[tuple[int, int], Protected | None],
) -> Protected | None:
    """Return what a schema-qualified column's FROM-item was replaced by, if it was.

    ``seen`` keeps what was found for one statement: columns and FROM-items may both be very many.
    """
    oid = answers[name].oid
    protected = rules.protected.get(oid)
    if protected is None:
        return None
    passed: list[tuple[int, int]] = []
    found: Protected | None = None
    while scope is not None:
        key = (id(scope), oid)
        passed.append(key)
        if key in seen:
            found = seen[key]
            break
        if _is_target(name, scope, answers):
            break
        if any("alias" not in node and answers[item].oid == oid for node, item in scope.items):
            found = protected
            break
        scope = scope.parent
    seen.update(dict.fromkeys(passed, found))
    return found


def _is_target(name: Name, scope: Scope, answers: Mapping[Name, Answer]) -> bool:
    return scope.target is not None and answers[scope.target].oid == answers[name].oid


_IRREPLACEABLE: Final = Refusal(
    NOT_SUPPORTED,
    "the protected names of the statement cannot be replaced",
    "Write it in plainer SQL, for example COPY (SELECT ...) TO ... WITH (...).",
)


def _span(lexemes: list[Lexeme], first: int, parts: int) -> int:
    """Return the index of the last token of a qualified name."""
    at = first
    for part in range(parts):
        if part:
            at += 2
        if at + 1 < len(lexemes) and lexemes[at + 1].token == UESCAPE:
            at += 2
    return at


def _view(protected: Protected) -> str:
    return f"{quote_name(protected.view_schema)}.{quote_name(protected.view)}"


def _edit_name(node: Tree, protected: Protected, first: int, edits: _Edits, taken: bool) -> None:
    lexemes = edits.lexemes
    parts = 1 + ("schemaname" in node) + ("catalogname" in node)
    last = _span(lexemes, first, parts)
    edits.spans.append((lexemes[first].start, lexemes[last].end, _view(protected)))
    intended = dict(node)
    intended.pop("catalogname", None)
    intended["schemaname"] = protected.view_schema
    intended["relname"] = protected.view
    if "alias" not in node and (taken or protected.view != protected.relation):
        after = last
        following = [lexeme.token for lexeme in lexemes[last + 1 : last + 2]]
        only = "inh" not in node and first > 0 and lexemes[first - 1].token == OPEN_PARENTHESIS
        if following == [STAR] or (only and following == [CLOSE_PARENTHESIS]):
            after += 1
        end = lexemes[after].end
        edits.spans.append((end, end, f" AS {quote_name(protected.relation)}"))
        intended["alias"] = {"aliasname": protected.relation}
    edits.intended[id(node)] = intended


def _edit_schema(node: Tree, schema: str, first: int, edits: _Edits) -> None:
    start = edits.lexemes[first].start
    edits.spans.append((start, start, f"{quote_name(schema)}."))
    edits.intended[id(node)] = {**node, "schemaname": schema}


def _edit_column(node: Tree, protected: Protected, first: int, edits: _Edits) -> None:
    fields = node["fields"]
    last = _span(edits.lexemes, first, len(fields) - 1)
    if protected.view == protected.relation:
        text, names = _view(protected), [protected.view_schema, protected.view]
    else:
        text, names = quote_name(protected.relation), [protected.relation]
    edits.spans.append((edits.lexemes[first].start, edits.lexemes[last].end, text))
    renamed = [{"String": {"sval": name}} for name in names]
    edits.intended[id(node)] = {**node, "fields": [*renamed, fields[-1]]}


def _edit_copy(node: Tree, protected: Protected, first: int, edits: _Edits) -> None:
    lexemes = edits.lexemes
    relation = node["relation"]
    last = _span(lexemes, first, 1 + ("schemaname" in relation) + ("catalogname" in relation))
    columns = [item["String"]["sval"] for item in node.get("attlist", ())]
    if columns:
        while lexemes[last].token != CLOSE_PARENTHESIS:
            last += 1
    wanted = ", ".join(quote_name(name) for name in columns) or "*"
    query = " ".join(("SELECT", wanted, "FROM", _view(protected)))
    edits.spans.append((lexemes[first].start, lexemes[last].end, f"({query})"))
    [raw] = parse(query.encode())
    rest = {key: value for key, value in node.items() if key not in ("relation", "attlist")}
    edits.intended[id(node)] = {**rest, "query": raw["stmt"]}


def _edit(analysis: Analysis, edits: _Edits) -> str:
    """Return the edited text; raise _Refused unless it means what was intended."""
    pieces: list[bytes] = []
    done = 0
    # the tree has the query of SET (a, b) = (SELECT ...) once for each column
    for start, end, text in sorted(set(edits.spans)):
        pieces += (analysis.encoded[done:start], text.encode())
        done = end
    pieces.append(analysis.encoded[done:])
    edited = b"".join(pieces)
    try:
        again = parse(edited)
    except (SyntaxProblem, TooDeep):
        again = []
    if not same([s.tree for s in analysis.statements], again, edits.intended):
        raise _Refused(_IRREPLACEABLE)
    return edited.decode()


_PLACES: Final = frozenset(
    {
        "list_end",
        "list_start",
        "location",
        "name_location",
        "rexpr_list_end",
        "rexpr_list_start",
        "stmt_len",
        "stmt_location",
    }
)


def same(wanted: Any, found: Any, intended: Mapping[int, Tree]) -> bool:
    """Whether two trees are equal but for places in the text and the nodes meant to differ."""
    pairs: list[tuple[Any, Any]] = [(wanted, found)]
    while pairs:
        one, other = pairs.pop()
        if type(one) is dict and type(other) is dict:
            one = intended.get(id(one), one)
            missing = one.keys() ^ other.keys()
            if missing and not missing <= _PLACES:
                return False
            for key, value in one.items():
                if type(value) in (dict, list):
                    pairs.append((value, other[key]))
                elif value != other.get(key) and not (key in _PLACES and type(value) is int):
                    return False
        elif type(one) is list and type(other) is list:
            if len(one) != len(other):
                return False
            pairs.extend(zip(one, other, strict=True))
        elif one != other:
            return False
    return True


# Normalised text


def _normalised(encoded: bytes, lexemes: list[Lexeme], statement: Statement) -> str:
    """Return a statement without comments, its constants as parameters, spaces made one."""
    end = statement.start + statement.length if statement.length else len(encoded)
    # not all of them for each statement: a text may have very many of both
    first = bisect_left(lexemes, statement.start, key=_place)
    behind = bisect_left(lexemes, end, lo=first, key=_place)
    own = [lexeme for lexeme in lexemes[first:behind] if lexeme.token not in COMMENTS]
    return b"".join(_normal(encoded, own)).decode().strip()


def _place(lexeme: Lexeme) -> int:
    return lexeme.start


def _normal(encoded: bytes, lexemes: list[Lexeme]) -> Iterator[bytes]:
    number = max(
        (int(encoded[x.start + 1 : x.end]) for x in lexemes if x.token == PARAM), default=0
    )
    done = lexemes[0].start if lexemes else 0
    for lexeme in lexemes:
        if lexeme.token == SEMICOLON:
            continue
        if lexeme.start > done:
            yield b" "
        done = lexeme.end
        if lexeme.token in CONSTANTS:
            number += 1
            yield b"$%d" % number
        else:
            yield encoded[lexeme.start : lexeme.end]
