"""The rewriting of statements, on PostgreSQL's own regression files, judged by the server.

``--source`` is a folder ``src/test/regress`` (or ``contrib/NAME``) of PostgreSQL's source, which
is not part of this project. With Debian's, in a folder of its own::

    echo 'deb-src http://deb.debian.org/debian bookworm main' > sources.list
    O="-o Dir::Etc::sourcelist=$PWD/sources.list -o Dir::Etc::sourceparts=-"
    O="$O -o Dir::State::lists=$PWD/lists -o Dir::Cache=$PWD/cache"
    mkdir -p lists/partial cache/archives/partial
    apt-get $O update && apt-get $O source postgresql-15
    python -m bench rewriting --source postgresql-15-*/src/test/regress

psql runs the files on a throwaway server that has pgaudit. Before a statement goes on, its names
are resolved in its own session; afterwards pgaudit has told which relations the server read for
it, whether named, through a view or in a function. Each of those in turn is then taken for the
only protected relation: what reads it must come out rewritten, known as a read of the marked view,
or refused. What did not is a miss.

Then the files run twice on servers with views that show just what the relations show: as they
are, and rewritten. The answers are compared.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import postgast

from bench import regression
from bench.forwarder import Refused
from pgbalise.rewrite import (
    RESOLVE,
    Protected,
    Refusal,
    Rules,
    Unreadable,
    analyse,
    answers,
    decide,
    reason_not_to_run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from bench.forwarder import Result, Session
    from pgbalise.demo.cluster import ThrowawayCluster
    from pgbalise.rewrite import Answer, Name

SHARED: Final = frozenset(
    ("public", name)
    for name in (
        "char_tbl",
        "emp",
        "float8_tbl",
        "ihighway",
        "int2_tbl",
        "int4_tbl",
        "int8_tbl",
        "onek",
        "onek2",
        "person",
        "point_tbl",
        "road",
        "shighway",
        "stud_emp",
        "student",
        "tenk1",
        "tenk2",
        "text_tbl",
        "varchar_tbl",
    )
)
"""What the suite's first file makes and the others use."""

_MARKED_FROM: Final = 4_000_000_000
"""Marked views get numbers from here where the server has none."""

_SNAPSHOT: Final = """
SELECT 'relation', c.oid::pg_catalog.text, n.nspname::pg_catalog.text,
    c.relname::pg_catalog.text, c.relpersistence::pg_catalog.text
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,f,v,m}'::pg_catalog."char"[])
    AND c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
UNION ALL
SELECT DISTINCT 'reach', d.refobjid::pg_catalog.text, r.ev_class::pg_catalog.text, '', ''
FROM pg_catalog.pg_rewrite AS r
JOIN pg_catalog.pg_depend AS d ON d.objid OPERATOR(pg_catalog.=) r.oid
    AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
    AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
WHERE d.refobjid OPERATOR(pg_catalog.<>) r.ev_class
UNION ALL
SELECT DISTINCT 'reach', d.refobjid::pg_catalog.text, o.polrelid::pg_catalog.text, '', ''
FROM pg_catalog.pg_policy AS o
JOIN pg_catalog.pg_depend AS d ON d.objid OPERATOR(pg_catalog.=) o.oid
    AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_policy'::pg_catalog.regclass
    AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
WHERE d.refobjid OPERATOR(pg_catalog.<>) o.polrelid
UNION ALL
SELECT 'reach', i.inhparent::pg_catalog.text, i.inhrelid::pg_catalog.text, '', ''
FROM pg_catalog.pg_inherits AS i
UNION ALL
SELECT 'reach', i.inhrelid::pg_catalog.text, i.inhparent::pg_catalog.text, '', ''
FROM pg_catalog.pg_inherits AS i
UNION ALL
SELECT DISTINCT 'call', COALESCE(r.ev_class, o.polrelid)::pg_catalog.text,
    f.proname::pg_catalog.text, '', ''
FROM pg_catalog.pg_depend AS d
JOIN pg_catalog.pg_proc AS f ON f.oid OPERATOR(pg_catalog.=) d.refobjid
LEFT JOIN pg_catalog.pg_rewrite AS r ON r.oid OPERATOR(pg_catalog.=) d.objid
    AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
LEFT JOIN pg_catalog.pg_policy AS o ON o.oid OPERATOR(pg_catalog.=) d.objid
    AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_policy'::pg_catalog.regclass
WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
    AND d.refobjid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    AND COALESCE(r.ev_class, o.polrelid) IS NOT NULL
UNION ALL
SELECT 'function', p.oid::pg_catalog.text, p.proname::pg_catalog.text,
    CASE WHEN a.aggfnoid IS NULL THEN l.lanname::pg_catalog.text ELSE 'sql' END,
    -- an aggregate is what its functions are
    CASE WHEN a.aggfnoid IS NULL THEN COALESCE(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc)
        ELSE pg_catalog.concat_ws(' ', a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn,
            a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn) END
FROM pg_catalog.pg_proc AS p
LEFT JOIN pg_catalog.pg_aggregate AS a
    ON a.aggfnoid::pg_catalog.oid OPERATOR(pg_catalog.=) p.oid
JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
"""

_BUILTINS: Final = """
SELECT DISTINCT p.proname::pg_catalog.text FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace
"""

_FINGERPRINT: Final = "SELECT pg_catalog.concat_ws('/', {})".format(
    ", ".join(
        f"""(SELECT pg_catalog.concat_ws(',', pg_catalog.count(*),
            pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8),
            pg_catalog.sum(pg_catalog.hashtext(x.ctid::pg_catalog.text)))
            FROM pg_catalog.{table} AS x
            WHERE x.{column} OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid)"""
        for table, column in (
            ("pg_class", "oid"),
            ("pg_proc", "oid"),
            ("pg_rewrite", "ev_class"),
            ("pg_inherits", "inhrelid"),
            ("pg_policy", "oid"),
        )
    )
)

# A question before these would fix the transaction's snapshot, and they read no relation.
_UNASKED: Final = frozenset(
    "abort begin commit end release reset rollback savepoint set show start".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Catalog:
    """What the rules are made of, as the session saw it."""

    relations: Mapping[tuple[str, str], int]  # that last: temporary ones are not among them
    bare: Mapping[int, str]  # the names of all of them, temporary ones too
    reach: Mapping[int, frozenset[int]]  # who sees the rows of a relation, one step away
    functions: tuple[tuple[str, str, str], ...]  # name, language, body
    calls: Mapping[int, frozenset[str]]  # a relation -> functions that its query or policy calls
    marked: Mapping[int, int] = field(default_factory=dict)  # relation -> its marked view

    def reaching(self, relations: Iterable[int]) -> set[int]:
        """Return these relations and all that sees their rows, however far."""
        seen: set[int] = set()
        views = set(self.marked.values())
        waiting = list(relations)
        while waiting:
            oid = waiting.pop()
            if oid not in seen:
                seen.add(oid)
                waiting.extend(self.reach.get(oid, frozenset()) - views)
        return seen


Key = tuple[str, str | None, int]
Parts = list[tuple[str, tuple[object, ...]]]


@dataclass
class Recording:
    """What came of each statement of a run: by file, text and how often it came before."""

    parts: dict[Key, Parts] = field(default_factory=dict)
    touched: dict[tuple[str, str | None], set[str]] = field(default_factory=dict)
    executed: dict[str, set[str]] = field(default_factory=dict)  # a file -> read by its EXECUTEs
    edited: set[Key] = field(default_factory=set)
    file: str = ""
    times: Counter[str | None] = field(default_factory=Counter)

    def keep(self, sql: str | None, result: Result, *, edited: bool = False) -> None:
        """Keep what came of a statement."""
        key = (self.file, sql, self.times[sql])
        self.times[sql] += 1
        self.parts[key] = result.parts
        if edited:
            self.edited.add(key)
        relations = {audit.relation for audit in result.audits if audit.relation}
        self.touched.setdefault((self.file, sql), set()).update(relations)
        if sql is not None and re.search(r"\bexecute\b", sql, re.IGNORECASE):
            self.executed.setdefault(self.file, set()).update(relations)


def _view(cluster: ThrowawayCluster) -> None:
    views = "".join(
        f"CREATE VIEW marked.{relation} AS SELECT * FROM {schema}.{relation};"
        for schema, relation in sorted(SHARED)
    )
    cluster.psql(
        "CREATE SCHEMA marked; GRANT USAGE ON SCHEMA marked TO PUBLIC;"
        f"{views} GRANT ALL ON ALL TABLES IN SCHEMA marked TO PUBLIC",
        dbname=regression.DATABASE,
    )


@dataclass
class Tally:
    """What was found, over all sessions."""

    statements: int = 0
    shares: Counter[str] = field(default_factory=Counter)
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)
    reads: Counter[str] = field(default_factory=Counter)
    relations: set[str] = field(default_factory=set)
    misses: list[dict[str, str]] = field(default_factory=list)
    untouched: list[dict[str, str]] = field(default_factory=list)
    edits: list[dict[str, str]] = field(default_factory=list)
    crashes: list[dict[str, str]] = field(default_factory=list)
    seconds: list[tuple[float, str]] = field(default_factory=list)
    recording: Recording = field(default_factory=Recording)

    @property
    def file(self) -> str:
        return self.recording.file


@dataclass(frozen=True)
class Verdict:
    """``kind``: plain, unchanged, marked, rewritten or refused."""

    kind: str
    touched: frozenset[str] = frozenset()
    refusal: Refusal | None = None
    sql: str = ""
    executes: tuple[str, ...] = ()
    asked: bool = False  # whether names were resolved for it
    changes: bool = False  # whether names may mean something else afterwards


_KNOWN: Final = frozenset(("rewritten", "marked", "refused"))


class Judge:
    """Watches one session: judges each statement as though one relation after another mattered."""

    catalogs: dict[str, Catalog] = {}  # noqa: RUF012
    builtins: frozenset[str] = frozenset()

    def __init__(self, tally: Tally, known: Recording) -> None:
        self.tally, self.known = tally, known
        self.catalog: Catalog | None = None
        self.alone: dict[int, Verdict] = {}  # a relation, protected alone -> the verdict
        self.shared = Verdict("unasked")
        # what a prepared statement's name stands for, for each relation protected alone
        self.prepared: dict[str, tuple[int, dict[int, Verdict]]] = {}
        self.changes = 0

    def before(self, session: Session, sql: str | None) -> str | None:
        self.alone, self.shared = {}, Verdict("unasked")
        if sql is None or session.transaction == "E":
            return None
        tally = self.tally
        tally.statements += 1
        first = re.match(r"\s*([a-z]*)", sql, re.IGNORECASE)
        if self.catalog is None or (first and first[1].lower() not in _UNASKED):
            self.catalog = see(session)
        catalog = self.catalog
        self.shared = self._verdict(session, sql, frozenset(catalog.marked), timed=True)
        self._count(sql, self.shared)
        foreseen = self.known.touched.get((tally.file, sql), set())
        if first and first[1].lower() == "prepare":
            foreseen = self.known.executed.get(tally.file, set())
        for relation in foreseen:
            oid = catalog.relations.get(_parts(relation))
            if oid is not None:
                self.alone[oid] = self._verdict(session, sql, frozenset((oid,)))
        return None

    def after(self, session: Session, sql: str | None, result: Result) -> None:
        del session
        tally = self.tally
        tally.recording.keep(sql, result)
        catalog = self.catalog
        if sql is None or catalog is None:
            return
        tags = [str(values[0]) for kind, values in result.parts if kind == "done"]
        # a statement that failed on its way has read all the same
        tags = tags or [sql.lstrip().upper()]
        reads = _reads(result)
        if self.shared.kind == "unasked":
            if reads and re.match(r"\s*(rollback|abort|commit|end)", sql, re.IGNORECASE) is None:
                self._miss("in a failed transaction", "", sql, "")
            return
        for relation, text in reads.items():
            oid = catalog.relations.get(_parts(relation))
            if oid is None:
                tally.reads["of what came with the statement, or is temporary"] += 1
                continue
            if oid not in self.alone:
                tally.reads["not foreseen"] += 1
                continue
            verdict = self.alone[oid]
            how = _how(sql, text, tags)
            if how == _NAMED and tags and _all_write(tags) and not self._names(sql, oid):
                how = _RULE
            tally.relations.add(relation)
            if verdict.kind in _KNOWN:
                tally.reads[f"{how}: {verdict.kind}"] += 1
            elif self._known_earlier(verdict, oid):
                tally.reads[f"{how}: known from its PREPARE"] += 1
            else:
                tally.reads[f"{how}: {'left to the server' if how in _OWNERS else 'missed'}"] += 1
                self._miss(how, relation, sql, text)
        self._returning(sql, result, tags)
        if not any(kind == "error" for kind, _ in result.parts) and "PREPARE" not in tags:
            for extra in self.shared.touched - set(reads):
                tally.untouched.append({"relation": extra, "sql": sql, "file": tally.file})
        match = re.match(r"\s*prepare\s+(\w+)", sql, re.IGNORECASE)
        if "PREPARE" in tags and match:
            self.prepared[match[1].lower()] = self.changes, self.alone
        self.changes += self.shared.changes

    def _names(self, sql: str, oid: int) -> bool:
        """Whether the text reads a name that sees the relation's rows, beside what it writes."""
        catalog = self.catalog
        assert catalog is not None
        seeing = {catalog.bare[one] for one in catalog.reaching((oid,))}
        return any(name in seeing for name in _named(json.loads(_tree(sql))))

    def _returning(self, sql: str, result: Result, tags: list[str]) -> None:
        """A write that gives rows back would give stored values."""
        catalog = self.catalog
        rows = any(kind == "row" for kind, _ in result.parts)
        if catalog is None or not rows or len(tags) != 1 or not _all_write(tags):
            return
        for audit in result.audits:
            oid = catalog.relations.get(_parts(audit.relation))
            if oid in self.alone and audit.text.strip() in sql:
                verdict = self.alone[oid]
                if verdict.kind not in _KNOWN and not self._known_earlier(verdict, oid):
                    self._miss("rows of a written relation", audit.relation, sql, audit.text)

    def _verdict(
        self, session: Session, sql: str, protected: frozenset[int], *, timed: bool = False
    ) -> Verdict:
        catalog = self.catalog
        assert catalog is not None
        rules = rules_for(catalog, protected, sql)
        conforming = session.parameters.get("standard_conforming_strings") != "off"
        try:
            begin = perf_counter()
            asked = analyse(sql, rules, standard_conforming_strings=conforming).questions
            if timed:
                self.tally.seconds.append((perf_counter() - begin, sql))
            given = {}
            if asked:
                stops = (*protected, *rules.opaque)
                given = resolve(session, asked, stops, catalog.marked.values())
            return judge(sql, rules, given, conforming=conforming)
        except Unreadable as error:
            return Verdict("refused", refusal=error.refusal)
        except Refused as error:
            # the statement's own timeout, say
            return Verdict("unasked", sql=str(error))
        except Exception as error:  # noqa: BLE001
            self.tally.crashes.append({"error": repr(error), "sql": sql, "file": self.tally.file})
            return Verdict("crashed")

    def _known_earlier(self, verdict: Verdict, oid: int) -> bool:
        """Whether its PREPARE was, or the proxy will not run it since its names are stale."""
        for name in verdict.executes:
            changes, alone = self.prepared.get(name, (0, {}))
            known = alone.get(oid, verdict)
            if known.kind in _KNOWN or (known.asked and changes != self.changes):
                return True
        return False

    def _miss(self, how: str, relation: str, sql: str, text: str) -> None:
        self.tally.misses.append(
            {"how": how, "relation": relation, "sql": sql, "in": text, "file": self.tally.file}
        )

    def _count(self, sql: str, verdict: Verdict) -> None:
        tally = self.tally
        tally.shares[verdict.kind] += 1
        if verdict.kind == "rewritten":
            why = edit_problem(sql, verdict.sql)
            if why:
                tally.edits.append({"why": why, "sql": sql, "edited": verdict.sql})
        if verdict.refusal is not None:
            reason = (verdict.refusal.sqlstate, _general(verdict.refusal.message))
            tally.refusals[reason] += 1
            tally.examples.setdefault(reason, sql)


def see(session: Session) -> Catalog:
    """Return the catalog as the session sees it; kept for as long as nothing changes."""
    if not Judge.builtins:
        rows = session.ask(_BUILTINS)
        Judge.builtins = frozenset(str(row[0]) for row in rows)
    fingerprint = str(session.ask(_FINGERPRINT)[0][0])
    if fingerprint not in Judge.catalogs:
        Judge.catalogs.clear()
        Judge.catalogs[fingerprint] = _catalog(session.ask(_SNAPSHOT))
    return Judge.catalogs[fingerprint]


def _catalog(rows: list[tuple[str | None, ...]]) -> Catalog:
    relations, bare, functions = {}, {}, []
    reach: dict[int, set[int]] = {}
    calls: dict[int, set[str]] = {}
    views = {}
    for what, first, second, third, fourth in rows:
        if what == "relation":
            bare[int(str(first))] = str(third)
            if second == "marked":
                views[str(third)] = int(str(first))
            elif fourth != "t":
                relations[str(second), str(third)] = int(str(first))
        elif what == "reach":
            reach.setdefault(int(str(first)), set()).add(int(str(second)))
        elif what == "call":
            calls.setdefault(int(str(first)), set()).add(str(second))
        else:
            functions.append((str(second), str(third), str(fourth)))
    marked = {oid: views[r[1]] for r, oid in relations.items() if r in SHARED and r[1] in views}
    return Catalog(
        relations,
        bare,
        {oid: frozenset(others) for oid, others in reach.items()},
        tuple(functions),
        {oid: frozenset(names) for oid, names in calls.items()},
        marked,
    )


def resolve(
    session: Session, names: Iterable[Name], protected: Iterable[int], marked: Iterable[int]
) -> dict[Name, Answer]:
    """Ask the server, in the client's session, what these names are."""
    asked = tuple(names)
    rows = session.ask(
        RESOLVE,
        _array(name.quoted for name in asked),
        _array(map(str, protected)),
        _array(map(str, marked)),
    )
    return dict(answers(asked, rows))


def _array(texts: Iterable[str]) -> str:
    quoted = ('"{}"'.format(re.sub(r'(["\\])', r"\\\1", text)) for text in texts)
    return "{{{}}}".format(",".join(quoted))


def rules_for(
    catalog: Catalog,
    protected: frozenset[int],
    sql: str,
) -> Rules:
    """Return the rules of a recipient to whom these relations are protected.

    Only the functions that the statement can mention are looked into: the others do not matter
    to it.
    """
    by_oid = {oid: relation for relation, oid in catalog.relations.items() if oid in protected}
    known = {
        oid: Protected(schema, relation, "marked", relation, ())
        for oid, (schema, relation) in by_oid.items()
    }
    names = frozenset(catalog.bare[oid] for oid in catalog.reaching(protected))
    mentioned = " ".join((sql, *(name for called in catalog.calls.values() for name in called)))
    functions = _functions(catalog.functions, names, mentioned)
    opaque = {
        oid: f"it calls {name}: {functions[name]}"
        for oid, called in catalog.calls.items()
        for name in called & functions.keys()
        if oid not in protected
    }
    if opaque:
        names |= {catalog.bare[oid] for oid in catalog.reaching(opaque)}
    return Rules(
        protected=known,
        marked={
            catalog.marked.get(oid, _MARKED_FROM + at): known[oid]
            for at, oid in enumerate(sorted(known))
        },
        names=names,
        functions=functions,
        builtins=Judge.builtins,
        enrolled=True,
        allowed=frozenset(),
        opaque=opaque,
    )


def _functions(
    functions: tuple[tuple[str, str, str], ...], names: frozenset[str], sql: str
) -> dict[str, str]:
    mentioned: dict[str, tuple[str, str, str]] = {}
    waiting = [sql]
    while waiting:
        text = waiting.pop().lower()
        for at, (name, language, body) in enumerate(functions):
            key = f"{at}"
            if key not in mentioned and name.lower() in text:
                mentioned[key] = (name, language, body)
                waiting.append(body)
    refused: dict[str, str] = {}
    while True:
        rules = _rules_of_bodies(names, frozenset(refused))
        more = {
            name: reason
            for name, language, body in mentioned.values()
            if name not in refused and (reason := _reason(body, language, rules))
        }
        if not more:
            return refused
        refused.update(more)


@cache
def _rules_of_bodies(names: frozenset[str], refused: frozenset[str]) -> Rules:
    functions = dict.fromkeys(refused, "reads a protected relation")
    return Rules({}, {}, names, functions, Judge.builtins, enrolled=True, allowed=frozenset())


_REASONS: dict[tuple[str, str, frozenset[str], frozenset[str]], str | None] = {}


def _reason(body: str, language: str, rules: Rules) -> str | None:
    key = (body, language, rules.names, frozenset(rules.functions))
    if key not in _REASONS:
        if len(_REASONS) > 1_000_000:
            _REASONS.clear()
        _REASONS[key] = reason_not_to_run(body, language, rules)
    return _REASONS[key]


def judge(sql: str, rules: Rules, given: Mapping[Name, Answer], *, conforming: bool) -> Verdict:
    """Return what comes of a statement under these rules."""
    try:
        analysis = analyse(sql, rules, standard_conforming_strings=conforming)
    except Unreadable as error:
        return Verdict("refused", refusal=error.refusal, changes=True)
    if analysis.plain:
        return Verdict("plain")
    decision = decide(analysis, given, rules)
    if isinstance(decision, Refusal):
        return Verdict("refused", refusal=decision, changes=True)
    touched = frozenset(
        f"{p.schema}.{p.relation}" for step in decision.statements for p in step.touched
    )
    executes = tuple(step.executes for step in decision.statements if step.executes)
    changed = decision.sql != sql
    kind = "rewritten" if changed else "marked" if touched else "unchanged"
    changes = any(step.changes_names for step in decision.statements)
    return Verdict(kind, touched, None, decision.sql, executes, bool(analysis.questions), changes)


def edit_problem(before: str, after: str) -> str | None:
    """Return what else than relation names an edit changed, by the tokens alone."""
    old, new = _tokens(before), _tokens(after)
    at = 0
    while at < min(len(old), len(new)) and old[at] == new[at]:
        at += 1
    i = j = at
    while i < len(old) or j < len(new):
        if i < len(old) and j < len(new) and old[i] == new[j]:
            i, j = i + 1, j + 1
        elif j + 2 < len(new) and new[j] == '"marked"' and new[j + 1] == ".":
            if i + 2 < len(old) and old[i + 1] == "." and _bare(old[i + 2]) == _bare(new[j + 2]):
                i += 2
            if i >= len(old) or _bare(old[i]) != _bare(new[j + 2]):
                return f"{old[i : i + 3]} became {new[j : j + 3]}"
            i, j = i + 1, j + 3
        elif new[j : j + 1] == ["("] and old[:1] and "copy" in (t.lower() for t in old):
            return None if "SELECT" in new[j + 1].upper() else f"{new[j : j + 3]} added"
        else:
            return f"{old[i : i + 3]} became {new[j : j + 3]}"
    return None


def _tokens(sql: str) -> list[str]:
    raw = sql.encode()
    return [raw[t.start : t.end].decode() for t in postgast.scan(sql).tokens]


def _bare(token: str) -> str:
    return token.strip('"') if token.startswith('"') else token.lower()


def _parts(relation: str) -> tuple[str, str]:
    """Split the qualified name that pgaudit writes."""
    found = re.fullmatch(r'("(?:[^"]|"")*"|[^".]+)\.("(?:[^"]|"")*"|[^".]+)', relation)
    if found is None:
        return "", relation
    schema, name = (
        part[1:-1].replace('""', '"') if part.startswith('"') else part for part in found.groups()
    )
    return schema, name


def _tree(sql: str) -> bytes:
    result = postgast.native.lib.pg_query_parse(sql.encode())
    try:
        tree: bytes = result.parse_tree
    finally:
        postgast.native.lib.pg_query_free_parse_result(result)
    return tree


def _named(node: object) -> Iterator[str]:
    """Yield the relations named in a tree, but for those that are written."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "RangeVar":
                yield value["relname"]
            elif key != "relation":
                yield from _named(value)
    elif isinstance(node, list):
        for item in node:
            yield from _named(item)


_LOCKS: Final = re.compile(r"\bfor\s+(no\s+key\s+update|update|share|key\s+share)\b", re.I)
_WRITES: Final = re.compile(r"\b(insert|update|delete|merge)\b", re.I)


def _reads(result: Result) -> dict[str, str]:
    """Return the relations read, each with the text that read it, the statement's own first.

    pgaudit takes a locking SELECT for an UPDATE, and cannot name what happens to a child of a
    relation or to a view whose query took its place.
    """
    found: dict[str, str] = {}
    for audit in result.audits:
        read = (
            audit.kind == "READ"
            or (audit.command == "UPDATE" and _LOCKS.search(audit.text))
            or (audit.command == "???" and not _WRITES.search(_LOCKS.sub("", audit.text)))
        )
        if read and audit.relation and not audit.relation.startswith(("pg_catalog.", "pg_toast.")):
            found.setdefault(audit.relation, audit.text)
    return found


_NAMED: Final = "by name or view"
_RULE: Final = "by a rule or view that is written"
_CHECK: Final = "by a foreign key's check"
_TRIGGER: Final = "by a trigger, or a function in a write"
_UTILITY: Final = "in a utility statement"
_OWNERS: Final = frozenset((_RULE, _CHECK, _TRIGGER, _UTILITY))
_ANSWERS: Final = re.compile(
    "SELECT|FETCH|DECLARE|COPY|INSERT|UPDATE|DELETE|MERGE|EXPLAIN|CREATE|DO|CALL|VALUES"
    "|PREPARE|WITH|TABLE"
)


def _how(sql: str, text: str, tags: list[str]) -> str:
    if text.strip().rstrip(";") in sql:
        return _NAMED if not tags or _ANSWERS.match(tags[0]) else _UTILITY
    if re.match(r'SELECT 1 FROM (ONLY )?"|SELECT fk\.|SELECT \$1', text):
        return _CHECK
    if tags and _all_write(tags):
        return _TRIGGER
    if tags and not any(tag.startswith(("SELECT", "FETCH", "DO", "CALL", "WITH")) for tag in tags):
        return _UTILITY
    return "in a function"


def _all_write(tags: list[str]) -> bool:
    return all(re.match("INSERT|UPDATE|DELETE|MERGE|TRUNCATE|COPY", tag) for tag in tags)


def _general(message: str) -> str:
    """Leave the names out of a message, so that like ones can be counted."""
    names = r'"[^"]*"|\b\w+\.\w+\b|(?<=function )\w+(?= )|(?<=calls )\w+|(?<=reaches )\w+'
    return re.sub(names, "...", message)


class Client:
    """Sends statements as they are, or rewritten to views that show the relations as they are."""

    def __init__(self, recording: Recording, *, rewriting: bool = False) -> None:
        self.recording, self.rewriting = recording, rewriting
        self.edited = False

    def before(self, session: Session, sql: str | None) -> str | None:
        self.edited = False
        first = re.match(r"\s*([a-z]*)", sql or "", re.IGNORECASE)
        if (
            not self.rewriting
            or sql is None
            or session.transaction == "E"
            or (first and first[1].lower() in _UNASKED)
        ):
            return None
        catalog = see(session)
        protected = frozenset(catalog.marked)
        rules = rules_for(catalog, protected, sql)
        conforming = session.parameters.get("standard_conforming_strings") != "off"
        try:
            asked = analyse(sql, rules, standard_conforming_strings=conforming).questions
            stops = (*protected, *rules.opaque)
            given = resolve(session, asked, stops, catalog.marked.values()) if asked else {}
            verdict = judge(sql, rules, given, conforming=conforming)
        except (Unreadable, Refused):
            return None
        self.edited = verdict.kind == "rewritten"
        return verdict.sql if self.edited else None

    def after(self, session: Session, sql: str | None, result: Result) -> None:
        del session
        self.recording.keep(sql, result, edited=self.edited)


def recorded(source: Path, recording: Recording, observe: Callable[[], object]) -> Recording:
    """Run the files, with views of the shared relations once they are there."""
    with regression.Suite(source, observe) as suite:
        for at, path in enumerate(regression.files(source)):
            if at == 1:
                _view(suite.cluster)
            recording.file = path.stem
            recording.times.clear()
            suite.run(path)
    return recording


_BROWSE: Final = """
\\l
\\dn+
\\d
\\d+
\\dt+ public.*
\\d tenk1
\\d+ tenk1
\\d+ public.onek
\\d+ person
\\dv marked.*
\\d+ marked.tenk1
\\di+
\\ds
\\df+
\\do
\\dT+
\\du+
\\dp tenk1
\\ddp
\\dC
\\dx+
\\sf name
\\sv marked.tenk1
\\dRp
\\dX
\\z
"""


def browsed(source: Path) -> Counter[str]:
    """Return the verdicts on what psql's \\d commands and pg_dump ask the catalog."""
    found: Counter[str] = Counter()
    tally = Tally()
    with regression.Suite(source, lambda: Judge(tally, Recording())) as suite:
        suite.run(regression.files(source)[0])
        _view(suite.cluster)
        tally.shares.clear()
        script = suite.cluster.folder / "browse.sql"
        script.write_text(_BROWSE, encoding="utf-8")
        suite.call("psql", "-X", "-d", regression.DATABASE, script=script)
        suite.call("pg_dump", "--schema-only", regression.DATABASE)
        found.update(tally.shares)
    return found


def differences(plain: Recording, again: Recording, edited: Recording) -> dict[str, list[Key]]:
    """Compare the answers to rewritten statements with those to the statements as they were.

    Left out are those whose answers differ from run to run.
    """
    found: dict[str, list[Key]] = {"same": [], "other order": [], "other error": [], "other": []}
    for key in edited.edited:
        before, after = _comparable(plain.parts.get(key)), _comparable(edited.parts[key])
        if before is None or after is None or before != _comparable(again.parts.get(key)):
            continue
        if before == after:
            found["same"].append(key)
        elif sorted(map(repr, before)) == sorted(map(repr, after)):
            found["other order"].append(key)
        elif before[-1][0] == after[-1][0] == "error":
            found["other error"].append(key)
        else:
            found["other"].append(key)
    return found


def _comparable(parts: Parts | None) -> Parts | None:
    if parts is None:
        return None
    return [
        (kind, tuple((name, min(oid, 16384)) for name, oid in values))  # type: ignore[misc]
        if kind == "columns"
        else (kind, values)
        for kind, values in parts
    ]


def measure(source: Path) -> list[dict[str, Any]]:
    """Return one entry per figure: name, value, unit, bar, holds, how."""
    plain = Recording()
    recorded(source, plain, lambda: Client(plain))
    tally = Tally()
    recorded(source, tally.recording, lambda: Judge(tally, plain))
    edited = Recording()
    recorded(source, edited, lambda: Client(edited, rewriting=True))
    compared = differences(plain, tally.recording, edited)
    browse = browsed(source)
    return entries(tally, compared, browse)


def entries(
    tally: Tally, compared: Mapping[str, list[Key]], browse: Counter[str]
) -> list[dict[str, Any]]:
    """Return the figures of the four runs."""
    reasons = tally.refusals.most_common(20)
    said = "; ".join(f"{count} {state} {text}" for (state, text), count in reasons)
    found = [
        _entry(
            f"statements, {len(SHARED)} relations protected: {kind}",
            100 * tally.shares[kind] / sum(tally.shares.values()),
            "%",
            None,
            how,
        )
        for kind, how in (
            ("plain", "forwarded: nothing to resolve, refuse or track"),
            (
                "unchanged",
                "forwarded: names resolved, or effects tracked",
            ),
            ("rewritten", "names replaced"),
            ("refused", said),
        )
    ]
    judged = sum(count for how, count in tally.reads.items() if ":" in how)
    owners = [miss for miss in tally.misses if miss["how"] in _OWNERS]
    seconds = sorted(second for second, _ in tally.seconds)
    count = len(seconds)
    reads = "; ".join(f"{count} {how}" for how, count in sorted(tally.reads.items()))
    checked = "the same statement sent as it is and rewritten, to views that show what is stored"
    timed = "analyse() alone, in one run among other work"
    return [
        _entry("statements", tally.statements, "statements", None, "as psql sent them"),
        *found,
        _entry(
            f"reads of {len(tally.relations):,} relations, each protected alone, judged",
            judged,
            "reads",
            None,
            reads,
        ),
        _entry("reads missed", len(tally.misses) - len(owners), "reads", 0, "bar: none"),
        _entry(
            "reads by triggers, checks, rules and views of what is written",
            len(owners),
            "reads",
            None,
            "no row of theirs comes to the client: a write is left to the server's privileges",
        ),
        _entry("statements on which it crashed", len(tally.crashes), "statements", 0, ""),
        _entry("edits of more than names, by tokens", len(tally.edits), "edits", 0, ""),
        *(
            _entry(f"rewritten statements: {kind} answer", len(keys), "statements", None, checked)
            for kind, keys in compared.items()
        ),
        _entry(
            "statements of psql's \\d commands and pg_dump that do not pass as they are",
            sum(browse.values()) - browse["plain"] - browse["unchanged"],
            "statements",
            0,
            f"of {sum(browse.values())}; with nothing to resolve or track: {browse['plain']}",
        ),
        _entry("analyse, median", 1e6 * seconds[count // 2], "us", None, timed),
        _entry("analyse, 99th percentile", 1e6 * seconds[count * 99 // 100], "us", None, timed),
        _entry("analyse, worst", 1e6 * seconds[-1], "us", None, timed),
    ]


def _entry(name: str, value: float, unit: str, bar: float | None, how: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "bar": bar,
        "holds": None if bar is None else value <= bar,
        "how": how,
    }
