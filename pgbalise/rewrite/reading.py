"""What a text of SQL touches and does, as far as the text alone can say.

A statement's tree is walked once, without recursion. Names that the rules list and no common
table expression hides become questions for the server; everything that must be refused whatever
they are is noted on the way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pgbalise.rewrite.bodies import reason_not_to_run
from pgbalise.rewrite.functions import takes_sql
from pgbalise.rewrite.grammar import SCONST, SyntaxProblem, TooDeep, Tree, parse, scan
from pgbalise.rewrite.names import Name, Refusal, Rules, Unreadable

NOT_SUPPORTED: Final = "0A000"
DENIED: Final = "42501"

_ROLE_SETTINGS: Final = frozenset({"role", "session_authorization"})
_NAME_SETTINGS: Final = _ROLE_SETTINGS | {"search_path"}
_PLAN_SETTINGS: Final = ("debug_print_", "auto_explain.")
_READING_SETTINGS: Final = frozenset({"client_encoding", "standard_conforming_strings"})


def prints_plans(setting: str) -> bool:
    """Whether a setting of this lower-case name makes the server tell plans."""
    return setting.startswith(_PLAN_SETTINGS)


class Scope:
    """One query level: what it reads by names that must be resolved, and the CTEs it sees.

    Of the CTEs only those are kept that hide a name which must be resolved.
    """

    __slots__ = ("body", "ctes", "items", "parent", "target")

    def __init__(self, parent: Scope | None) -> None:
        self.parent = parent
        self.ctes: frozenset[str] = parent.ctes if parent is not None else frozenset()
        self.body: bool = parent is not None and parent.body
        self.items: list[tuple[Tree, Name]] = []
        self.target: Name | None = None


class Statement:
    """What one statement of the text reads, writes and does.

    ``reads`` are FROM-items (and COPY's relation), ``targets`` what is written and must be looked
    at all the same, ``columns`` references such as schema.relation.column. ``changes`` are the
    bare names that may mean something else afterwards, None standing for all of them; ``creates``
    the bare names of relations that read what the statement reads; ``renamed`` what a name that
    must be resolved becomes. ``reads_constants`` says that a constant had a say in what is noted
    here, so a text that differs in its constants only may be another matter.
    """

    kind = "other"
    explain = False
    copied: Tree | None = None
    refusal: Refusal | None = None
    changes: frozenset[str] | None = frozenset()
    changes_reading = False
    reads_constants = False
    prepares: str | None = None
    executes: str | None = None
    declares: str | None = None
    fetches: str | None = None
    closes: str | None = None
    deallocates: str | None = None

    def __init__(self, raw: Tree) -> None:
        self.tree: Tree = raw
        self.start: int = raw.get("stmt_location", 0)
        self.length: int = raw.get("stmt_len", 0)
        self.reads: list[tuple[Tree, Name, Scope | None]] = []
        self.creates: list[str] = []
        self.renamed: list[str] = []
        self.targets: list[Name] = []
        self.returns: list[Name] = []
        self.columns: list[tuple[Tree, Name, Scope | None]] = []
        self.constants: list[Tree] = []

    @property
    def plain(self) -> bool:
        """Whether there is nothing to resolve, refuse or track."""
        return (
            self.changes is not None
            and not self.changes
            and self.refusal is None
            and not (self.reads or self.columns or self.targets)
            and not (self.prepares or self.executes or self.declares)
            and not (self.fetches or self.closes or self.deallocates)
            and not self.changes_reading
        )

    def constant_texts(self) -> tuple[str, ...]:
        """Return the string and number constants, as text, in no particular order."""
        return tuple(text for c in self.constants if (text := _constant(c)) is not None)


@dataclass(frozen=True)
class Analysis:
    """A text of SQL, read.

    ``questions`` are the names to resolve (with RESOLVE) before ``decide``; ``plain`` says that
    there is nothing to resolve, refuse or track, so the text may be forwarded unchanged.
    ``readable`` is False for text that the grammar does not accept, and that names nothing
    protected: the server will say what is wrong with it.
    """

    sql: str
    encoded: bytes
    statements: tuple[Statement, ...]
    questions: frozenset[Name]
    plain: bool
    readable: bool = True

    @property
    def constants(self) -> tuple[str, ...]:
        """The string and number constants of all statements, as text, in no particular order."""
        return tuple(text for s in self.statements for text in s.constant_texts())


def analyse(sql: str, rules: Rules, standard_conforming_strings: bool = True) -> Analysis:
    """Read a text of one or more statements.

    ``standard_conforming_strings`` is the session's setting. Raise Unreadable for what the grammar
    cannot read and cannot be left to the server.
    """
    try:
        encoded = sql.encode()
    except UnicodeEncodeError:
        raise _unreadable("the statement is not valid Unicode", sqlstate="22021") from None
    if "\0" in sql:
        raise _unreadable("the statement contains a NUL character", sqlstate="22021")
    try:
        if not standard_conforming_strings and "\\" in sql:
            _check_backslashes(encoded)
        raws = parse(encoded)
    except TooDeep:
        raise Unreadable(
            Refusal("54001", "the statement is nested too deeply", "Write it with fewer levels.")
        ) from None
    except SyntaxProblem:
        _check_unread(sql, rules)
        return Analysis(sql, encoded, (), frozenset(), plain=False, readable=False)
    statements = tuple(_Reader(raw, rules).statement for raw in raws)
    questions: frozenset[Name] = frozenset()
    plain = True
    for statement in statements:
        if statement.plain:
            continue
        plain = False
        questions |= {name for _, name, _ in statement.reads}
        questions |= {name for _, name, _ in statement.columns}
        questions |= frozenset(statement.targets)
    return Analysis(sql, encoded, statements, questions, plain)


def _unreadable(message: str, *, sqlstate: str = NOT_SUPPORTED) -> Unreadable:
    return Unreadable(
        Refusal(
            sqlstate,
            message,
            "The proxy forwards only what it can read; rewrite the statement in plainer SQL.",
        )
    )


def _check_backslashes(encoded: bytes) -> None:
    """Refuse backslashes in plain string constants: the two readings of such text differ."""
    for lexeme in scan(encoded):
        text = encoded[lexeme.start : lexeme.end]
        if lexeme.token == SCONST and b"\\" in text and text[:1] not in b"eE$":
            raise Unreadable(
                Refusal(
                    NOT_SUPPORTED,
                    "a string constant with a backslash cannot be read"
                    " while standard_conforming_strings is off",
                    "Write E'...', or set standard_conforming_strings to on.",
                )
            )


_WORDS: Final = re.compile(r"[\w$]+")
_TELLING: Final = frozenset(
    {"authorization", "execute", "function", "procedure", "role", "set_config"}
)
_BEGINNINGS: Final = re.compile(r"(?:\A|;|\*/|[\r\n])\s*(?:do|fetch|move)\b")


def _check_unread(sql: str, rules: Rules) -> None:
    """Raise Unreadable unless the text can be left to the server, which will likely refuse it.

    A newer server may know a syntax that this grammar does not. So the text may be forwarded only
    if it has none of the names, whatever it means: not even in a comment or a constant.
    """
    lower = sql.lower()
    words = {cut(word) for word in _WORDS.findall(lower)}
    bare = lower.replace('"', "")
    named = "\\" in sql or "u&" in lower
    for name in (*rules.names, *rules.functions):
        folded = name.lower()
        whole = _WORDS.fullmatch(folded) is not None
        named = named or (folded in words if whole else folded.replace('"', "") in bare)
    tells = words & _TELLING or _BEGINNINGS.search(lower) or any(takes_sql(w) for w in words)
    if named or (tells and rules.enrolled):
        raise _unreadable("the statement cannot be read")


def cut(name: str) -> str:
    """Cut a name to 63 bytes, as PostgreSQL does, between characters."""
    return name.encode()[:63].decode(errors="ignore")


def _constant(node: Tree) -> str | None:
    for key, value in node.items():
        if key in ("sval", "fval", "bsval"):
            text: str = value.get(key, "")
            return text
        if key == "ival":
            return str(value.get("ival", 0))
    return None


def _texts(names: list[Tree]) -> list[str]:
    return [part["String"].get("sval", "") for part in names if "String" in part]


class _Reader:
    """Walks one statement's tree."""

    def __init__(self, raw: Tree, rules: Rules) -> None:
        self.rules = rules
        self.statement = Statement(raw)
        self.stack: list[tuple[Tree, Scope | None]] = []
        for kind, node in raw["stmt"].items():
            self._top(kind, node)
        self.stack.append((raw["stmt"], None))
        self._walk()

    def _top(self, kind: str, node: Tree) -> None:
        top = _TOP.get(kind)
        if top is not None:
            top(self, node)
        elif kind not in _KEEPS_NAMES:
            self.statement.changes = None

    def _walk(self) -> None:
        stack, handlers = self.stack, _HANDLERS
        while stack:
            node, scope = stack.pop()
            for key, value in node.items():
                kind = type(value)
                if kind is dict:
                    handler = handlers.get(key)
                    if handler is None:
                        stack.append((value, scope))
                    else:
                        handler(self, value, scope)
                elif kind is list and key not in _SKIPPED_LISTS:
                    for item in value:
                        stack.append((item, scope))

    def refuse(self, message: str, hint: str, sqlstate: str = DENIED) -> None:
        """Note a refusal that holds for enrolled roles; the first one is told."""
        if self.rules.enrolled and self.statement.refusal is None:
            self.statement.refusal = Refusal(sqlstate, message, hint)

    def name(self, node: Tree) -> Name | None:
        """Return a RangeVar's name when it must be resolved."""
        relation = node["relname"]
        if relation not in self.rules.names:
            return None
        return Name(node.get("schemaname"), relation)

    def _made(self, relation: str) -> None:
        self.change(relation)
        self.statement.creates.append(relation)

    def change(self, *names: str) -> None:
        """Note that bare names may mean something else from here on; none given: all names."""
        changes = self.statement.changes
        if not names:
            self.statement.changes = None
        elif changes is not None:
            self.statement.changes = changes | frozenset(names)

    # Queries

    def query(self, node: Tree, scope: Scope | None) -> None:
        """Walk a query level: a scope of its own, and the CTEs of its WITH."""
        inner = Scope(scope)
        clause = node.get("withClause")
        if clause is not None:
            self._with(clause, inner)
        self.stack.append((node, inner))

    def _with(self, clause: Tree, scope: Scope) -> None:
        ctes = [item["CommonTableExpr"] for item in clause["ctes"]]
        # of names that are not asked about nobody wants to know whether a CTE hides them
        names = self.rules.names
        every = scope.ctes | {cte["ctename"] for cte in ctes if cte["ctename"] in names}
        seen = every if clause.get("recursive") else scope.ctes
        for cte in ctes:
            # not the query's own scope: a CTE does not see its FROM
            own = Scope(scope.parent)
            own.ctes, own.body = seen, scope.body
            self.stack.append((cte, own))
            if cte["ctename"] in every and cte["ctename"] not in seen:
                seen |= {cte["ctename"]}
        scope.ctes = every

    def select_branch(self, node: Tree, scope: Scope | None) -> None:
        """Walk larg or rarg: of a set operation a query, of a join anything."""
        if "op" in node:
            self.query(node, scope)
        else:
            self.stack.append((node, scope))

    def range_var(self, node: Tree, scope: Scope | None) -> None:
        """Note a FROM-item; outside of a query level a RangeVar is the target of a utility."""
        name = self.name(node)
        if scope is None:
            return
        relation = node["relname"]
        if relation == "pg_settings":
            self._settings_read()
        if name is None or (name.schema is None and relation in scope.ctes):
            return
        if scope.body:
            self.refuse(
                f"the function's body reaches {name}",
                "Query it from the client instead; function bodies are not rewritten.",
            )
        scope.items.append((node, name))
        self.statement.reads.append((node, name, scope))

    def write(self, node: Tree, scope: Scope | None) -> None:
        """Walk INSERT, UPDATE, DELETE or MERGE: the target stays as written."""
        inner = Scope(scope)
        clause = node.get("withClause")
        if clause is not None:
            self._with(clause, inner)
        relation = node["relation"]
        if relation["relname"] == "pg_settings":
            self.refuse(
                "settings may not be changed through pg_settings", "Use SET; SET ROLE is refused."
            )
            self.change()
        name = self.name(relation)
        if name is not None:
            if inner.body:
                self.refuse(
                    f"the function's body reaches {name}",
                    "Write from the client instead; function bodies are not rewritten.",
                )
            if "alias" not in relation:
                inner.target = name
            self.statement.targets.append(name)
            if "returningClause" in node and (self.rules.enrolled or _returns_stored(node)):
                self.statement.returns.append(name)
        self.stack.append((node, inner))

    def column(self, node: Tree, scope: Scope | None) -> None:
        """Note references that name a relation with its schema, and functions called as fields."""
        fields = node["fields"]
        if len(fields) == 1:
            return
        texts = _texts(fields)
        if len(texts) == len(fields):
            self._attribute(texts[-1])
        if len(fields) > 2:
            relation = texts[len(fields) - 2]
            if relation in self.rules.names:
                name = Name(texts[len(fields) - 3], relation)
                self.statement.columns.append((node, name, scope))

    def indirection(self, node: Tree, scope: Scope | None) -> None:
        """Walk (expression).field, which may call a function."""
        for text in _texts(node.get("indirection", [])):
            self._attribute(text)
        self.stack.append((node, scope))

    def _attribute(self, name: str) -> None:
        rules = self.rules
        calls = rules.functions if rules.attributes is None else rules.attributes
        if name in calls and name in rules.functions:
            self._function_refused(name)

    # Functions

    def call(self, node: Tree, scope: Scope | None) -> None:
        """Look at a function call and walk its arguments."""
        names = _texts(node["funcname"])
        name = names[-1]
        rules = self.rules
        own = len(names) > 1 and names[-2] == "pg_catalog"
        if name not in rules.builtins or (len(names) > 1 and not own):
            self.change()
        if not own and name in rules.functions:
            self._function_refused(name)
        if name == "set_config":
            self._set_config(node)
        elif takes_sql(name, len(node.get("args", ()))):
            self.statement.reads_constants = True
            if name not in rules.allowed:
                self.refuse(
                    f"function {name} takes SQL as text, which is not read",
                    "Query the relation itself, or have the administrator allow the function.",
                )
        self.stack.append((node, scope))

    def _function_refused(self, name: str) -> None:
        self.refuse(
            f"function {name} may not be called: {self.rules.functions[name]}",
            "Query the relations from the client; they are marked there.",
        )

    def functions_named(self, node: Tree) -> None:
        """Refuse a definition that names a refused function, in whatever role."""
        waiting: list[Any] = [node]
        while waiting:
            top = waiting.pop()
            if type(top) is dict:
                text = top.get("sval")
                if type(text) is str:
                    if text in self.rules.functions:
                        self._function_refused(text)
                    elif takes_sql(text) and text not in self.rules.allowed:
                        self.refuse(
                            f"function {text} takes SQL as text, which is not read",
                            "Have the administrator allow the function.",
                        )
                waiting.extend(top.values())
            elif type(top) is list:
                waiting.extend(top)

    def _set_config(self, node: Tree) -> None:
        self.statement.reads_constants = True
        args = node.get("args", [])
        first = args[0].get("A_Const", {}).get("sval") if args else None
        if first is None and args:
            first = _pinned(args[0], self.statement.tree["stmt"])
        if first is None:
            self.change()
            self.statement.changes_reading = True
            self.refuse(
                "set_config takes the setting's name as a constant here",
                "Write the name as a string constant, or use SET.",
            )
            return
        setting = first.get("sval", "").lower()
        if setting in _ROLE_SETTINGS:
            self._role_refused()
        self._setting(setting)

    def _setting(self, setting: str) -> None:
        if setting in _NAME_SETTINGS:
            self.change()
        if setting in _READING_SETTINGS:
            self.statement.changes_reading = True
        if prints_plans(setting):
            self.refuse(
                "plans may not be printed here",
                "They would tell decoys from patients; leave the setting as it is.",
            )

    def _role_refused(self) -> None:
        self.refuse(
            "the role of a session may not be changed here",
            "Connect as the role that you want to use.",
        )

    def _settings_read(self) -> None:
        if "ViewStmt" in self.statement.tree["stmt"] or "RuleStmt" in self.statement.tree["stmt"]:
            self.refuse(
                "settings may not be changed through pg_settings",
                "Query pg_settings itself instead of a view of it.",
            )

    # Utilities

    def setting(self, node: Tree, scope: Scope | None) -> None:
        """Look at SET and RESET, wherever they stand."""
        del scope
        name = node.get("name", "").lower()
        resets = node["kind"] in ("VAR_RESET", "VAR_SET_DEFAULT", "VAR_RESET_ALL")
        if name in _ROLE_SETTINGS and not resets:
            args = node.get("args", [])
            value = args[0].get("A_Const", {}).get("sval", {}).get("sval") if args else None
            if name != "role" or value != "none":
                self._role_refused()
        if node["kind"] == "VAR_RESET_ALL":
            self.change()
            self.statement.changes_reading = True
        self._setting(name)

    def into(self, node: Tree, scope: Scope | None) -> None:
        """Note the relation that SELECT INTO or CREATE TABLE AS makes."""
        del scope
        if self.statement.kind in ("select", "other"):
            self.statement.kind = "write"
        self._made(node["rel"]["relname"])

    def view(self, node: Tree, scope: Scope | None) -> None:
        """Note a view, also inside CREATE SCHEMA."""
        self._made(node["view"]["relname"])
        self.stack.append((node, scope))

    def execute(self, node: Tree, scope: Scope | None) -> None:
        """Note an EXECUTE, also inside EXPLAIN and CREATE TABLE AS."""
        self.statement.executes = node["name"]
        self.stack.append((node, scope))

    def body(self, node: Tree, scope: Scope | None) -> None:
        """Walk a body of SQL-standard statements."""
        inner = Scope(scope)
        inner.body = True
        self.stack.append((node, inner))

    def sql_select(self, node: Tree) -> None:
        self.statement.kind = "select"
        del node

    def sql_write(self, node: Tree) -> None:
        self.statement.kind = "write"
        del node

    def sql_copy(self, node: Tree) -> None:
        relation = node.get("relation")
        self.statement.kind = "write" if node.get("is_from") else "copy"
        if relation is not None and not node.get("is_from"):
            name = self.name(relation)
            if name is not None:
                self.statement.copied = node
                self.statement.reads.append((relation, name, None))

    def sql_explain(self, node: Tree) -> None:
        self.statement.kind = "explain"
        self.statement.explain = True
        del node

    def sql_prepare(self, node: Tree) -> None:
        self.statement.kind = "prepare"
        self.statement.prepares = node["name"]

    def sql_execute(self, node: Tree) -> None:
        self.statement.kind = "execute"
        del node

    def sql_declare(self, node: Tree) -> None:
        self.statement.kind = "cursor"
        self.statement.declares = node["portalname"]

    def sql_fetch(self, node: Tree) -> None:
        self.statement.kind = "fetch"
        self.statement.fetches = node["portalname"]

    def sql_close(self, node: Tree) -> None:
        self.statement.kind = "close"
        self.statement.closes = node.get("portalname") or "*"

    def sql_deallocate(self, node: Tree) -> None:
        self.statement.kind = "deallocate"
        self.statement.deallocates = node.get("name") or "*"

    def sql_discard(self, node: Tree) -> None:
        if node.get("target") == "DISCARD_ALL":
            self.statement.deallocates = "*"
            self.statement.closes = "*"
            self.statement.changes_reading = True
        self.change()

    def sql_transaction(self, node: Tree) -> None:
        self.statement.kind = "transaction"
        if node["kind"].startswith(("TRANS_STMT_ROLLBACK", "TRANS_STMT_COMMIT_PREPARED")):
            self.change()

    def sql_create(self, node: Tree) -> None:
        base = node.get("base", node)
        self.change(base["relation"]["relname"])

    def sql_table_as(self, node: Tree) -> None:
        self.statement.kind = "write"
        del node

    def sql_drop(self, node: Tree) -> None:
        dropped = []
        for item in node["objects"]:
            names = _texts(item["List"]["items"]) if "List" in item else []
            dropped.append(names[-1] if names else "")
        if node["removeType"] in _RELATIONS and "CASCADE" not in node.get("behavior", ""):
            self.change(*dropped)
        else:
            self.change()

    def sql_do(self, node: Tree) -> None:
        options = {item["DefElem"]["defname"]: item["DefElem"] for item in node["args"]}
        language = _argument(options.get("language")) or "plpgsql"
        self._check_body(_argument(options.get("as")) or "", language, "DO block")
        self.change()

    def sql_function(self, node: Tree) -> None:
        kind = "procedure" if node.get("is_procedure") else "function"
        options = {item["DefElem"]["defname"]: item["DefElem"] for item in node.get("options", ())}
        self.change()
        self._function_named(_texts(node["funcname"])[-1])
        if "as" not in options:
            return
        language = _argument(options.get("language")) or ""
        items = options["as"].get("arg", {}).get("List", {}).get("items", [])
        for text in _texts(items):
            self._check_body(text, language, kind)

    def _check_body(self, body: str, language: str, kind: str) -> None:
        if not self.rules.enrolled:
            return
        reason = reason_not_to_run(body, language, self.rules)
        if reason is not None:
            self.refuse(
                f"the {kind} is refused: {reason}",
                "Query the relations from the client; they are marked there.",
            )

    def _function_named(self, name: str) -> None:
        """Refuse a built-in function's name for another function: calls are told by name."""
        if name in self.rules.builtins:
            self.refuse(
                f"{name} is the name of a built-in function", "Give the function another name."
            )

    def sql_definition(self, node: Tree) -> None:
        self.functions_named(node)
        self.change()

    def sql_rename(self, node: Tree) -> None:
        self.sql_definition(node)
        if node["renameType"] in _FUNCTIONS:
            self._function_named(node["newname"])
        elif node.get("relation", {}).get("relname") in self.rules.names and "newname" in node:
            self.statement.renamed.append(node["newname"])

    def sql_attached(self, node: Tree) -> None:
        """A rule or a policy: its relation then reads what the rule or the policy reads."""
        relation = node["relation"] if "relation" in node else node["table"]
        self.statement.creates.append(relation["relname"])
        self.change()


def _pinned(column: Tree, statement: Tree) -> Tree | None:
    """Return the constant that a SELECT's WHERE sets one of its columns equal to, if it does.

    That is how pg_dump calls set_config() only where a setting is known.
    """
    select = statement.get("SelectStmt", {})
    where = select.get("whereClause", {}).get("A_Expr", {})
    equal = where.get("kind") == "AEXPR_OP" and _texts(where.get("name", [])) == ["="]
    fields = column.get("ColumnRef", {}).get("fields", [])
    same_column = where.get("lexpr", {}).get("ColumnRef", {}).get("fields") == fields
    if not (equal and same_column and len(select.get("fromClause", [])) == 1 and _texts(fields)):
        return None
    targets = [target["ResTarget"]["val"] for target in select.get("targetList", [])]
    calls = [target.get("FuncCall", {}).get("args", []) for target in targets]
    if not any(args and args[0] is column for args in calls):
        return None
    constant: Tree | None = where.get("rexpr", {}).get("A_Const", {}).get("sval")
    return constant


def _argument(option: Tree | None) -> str | None:
    if option is None:
        return None
    text: str | None = option.get("arg", {}).get("String", {}).get("sval", "")
    return text


def _returns_stored(node: Tree) -> bool:
    """Whether RETURNING can give values that were stored before, not only those just written."""
    conflict: str = node.get("onConflictClause", {}).get("action", "")
    # of the four, INSERT alone has OVERRIDING
    return "override" not in node or conflict == "ONCONFLICT_UPDATE"


def _skip(reader: _Reader, node: Tree, scope: Scope | None) -> None:
    del reader, node, scope


def _wrapped(reader: _Reader, node: Tree, scope: Scope | None) -> None:
    """Walk a field that holds a plain RangeVar in some nodes and any FROM-item in others."""
    if "relname" not in node:
        reader.stack.append((node, scope))


def _keep(reader: _Reader, node: Tree, scope: Scope | None) -> None:
    del scope
    reader.statement.constants.append(node)


_Handler = Callable[[_Reader, Tree, Scope | None], None]

_HANDLERS: Final[dict[str, _Handler]] = {
    "A_Const": _keep,
    "A_Indirection": _Reader.indirection,
    "A_Star": _skip,
    "ColumnRef": _Reader.column,
    "DeleteStmt": _Reader.write,
    "ExecuteStmt": _Reader.execute,
    "FuncCall": _Reader.call,
    "Integer": _skip,
    "InsertStmt": _Reader.write,
    "MergeStmt": _Reader.write,
    "ParamRef": _skip,
    "RangeVar": _Reader.range_var,
    "SelectStmt": _Reader.query,
    "String": _skip,
    "TypeName": _skip,
    "UpdateStmt": _Reader.write,
    "ViewStmt": _Reader.view,
    "VariableSetStmt": _Reader.setting,
    "alias": _skip,
    "funccall": _Reader.call,
    "into": _Reader.into,
    "intoClause": _Reader.into,
    "larg": _Reader.select_branch,
    "rarg": _Reader.select_branch,
    "relation": _wrapped,
    "setstmt": _Reader.setting,
    "sql_body": _Reader.body,
    "typeName": _skip,
    "withClause": _skip,
}

_SKIPPED_LISTS: Final = frozenset({"lockingClause"})

_Top = Callable[[_Reader, Tree], None]

_TOP: Final[dict[str, _Top]] = {
    "SelectStmt": _Reader.sql_select,
    "InsertStmt": _Reader.sql_write,
    "UpdateStmt": _Reader.sql_write,
    "DeleteStmt": _Reader.sql_write,
    "MergeStmt": _Reader.sql_write,
    "CopyStmt": _Reader.sql_copy,
    "ExplainStmt": _Reader.sql_explain,
    "PrepareStmt": _Reader.sql_prepare,
    "ExecuteStmt": _Reader.sql_execute,
    "DeclareCursorStmt": _Reader.sql_declare,
    "FetchStmt": _Reader.sql_fetch,
    "ClosePortalStmt": _Reader.sql_close,
    "DeallocateStmt": _Reader.sql_deallocate,
    "DiscardStmt": _Reader.sql_discard,
    "TransactionStmt": _Reader.sql_transaction,
    "CreateStmt": _Reader.sql_create,
    "CreateForeignTableStmt": _Reader.sql_create,
    "CreateTableAsStmt": _Reader.sql_table_as,
    "DropStmt": _Reader.sql_drop,
    "DoStmt": _Reader.sql_do,
    "CreateFunctionStmt": _Reader.sql_function,
    "AlterFunctionStmt": _Reader.sql_definition,
    "AlterObjectSchemaStmt": _Reader.sql_definition,
    "AlterOperatorStmt": _Reader.sql_definition,
    "AlterTypeStmt": _Reader.sql_definition,
    "CreateCastStmt": _Reader.sql_definition,
    "CreateConversionStmt": _Reader.sql_definition,
    "CreateEventTrigStmt": _Reader.sql_definition,
    "CreateOpClassStmt": _Reader.sql_definition,
    "CreateTransformStmt": _Reader.sql_definition,
    "CreateTrigStmt": _Reader.sql_definition,
    "DefineStmt": _Reader.sql_definition,
    "RenameStmt": _Reader.sql_rename,
    "RuleStmt": _Reader.sql_attached,
    "CreatePolicyStmt": _Reader.sql_attached,
    "AlterPolicyStmt": _Reader.sql_attached,
}

_KEEPS_NAMES: Final = frozenset(
    {
        "AlterDatabaseSetStmt",
        "AlterRoleSetStmt",
        "AlterSystemStmt",
        "CheckPointStmt",
        "ClusterStmt",
        "CommentStmt",
        "ConstraintsSetStmt",
        "ListenStmt",
        "LockStmt",
        "NotifyStmt",
        "RefreshMatViewStmt",
        "ReindexStmt",
        "SecLabelStmt",
        "TruncateStmt",
        "UnlistenStmt",
        "VacuumStmt",
        "VariableSetStmt",
        "VariableShowStmt",
        "ViewStmt",
    }
)
"""Statements after which names mean what they meant before, but for those noted on the way."""

HARMLESS: Final = frozenset(
    {
        "DeallocateStmt",
        "ListenStmt",
        "NotifyStmt",
        "TransactionStmt",
        "UnlistenStmt",
        "VariableSetStmt",
        "VariableShowStmt",
    }
)
"""Statements that run no code of anybody's: no function, operator, cast or trigger."""

_FUNCTIONS: Final = frozenset(
    {"OBJECT_AGGREGATE", "OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_ROUTINE"}
)

_RELATIONS: Final = frozenset(
    {
        "OBJECT_TABLE",
        "OBJECT_VIEW",
        "OBJECT_MATVIEW",
        "OBJECT_FOREIGN_TABLE",
        "OBJECT_SEQUENCE",
        "OBJECT_INDEX",
    }
)
