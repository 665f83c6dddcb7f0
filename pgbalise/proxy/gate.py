"""What becomes of a session's statements: the rewriting's verdicts, and the ledger's records.

An extract is one session's use of one statement: the first run writes an intent, and nothing
reaches the client before that is on the disk; what follows only adds to its sums, as long as no
single run returns more than a few rows.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from pgbalise.beacons import Beacons, Named, comparisons
from pgbalise.errors import EnvironmentProblem
from pgbalise.marking.policy import RecipientClass
from pgbalise.proxy.catalog import Snapshot
from pgbalise.proxy.metrics import Name as Count
from pgbalise.rewrite import (
    RESOLVE,
    Analysis,
    Answer,
    Decision,
    Name,
    Refusal,
    Rules,
    Shape,
    Step,
    Unreadable,
    analyse,
    answers,
    constants_of,
    decide,
    shape_of,
    shape_text,
)
from pgbalise.watch import decoy_alert
from pgbalise.wire.encodings import UnknownEncoding, decode, encode
from pgbalise.wire.messages import error_response
from pgbalise.wire.relay import Ask, Forward, Refuse, Verdict

if TYPE_CHECKING:
    from pgbalise.errors import SpoolProblem
    from pgbalise.lookout import RefusedRecipients
    from pgbalise.proxy.log import EventLog
    from pgbalise.proxy.metrics import Counters
    from pgbalise.proxy.spool import Spool

_COUNTED = {
    "select": Count.STATEMENTS_SELECT,
    "copy": Count.STATEMENTS_COPY,
    "cursor": Count.STATEMENTS_CURSOR,
    "write": Count.STATEMENTS_WRITE,
}

_CACHED_STATEMENTS = 4096
_CACHED_BYTES = 2048
"""A longer statement is analysed each time."""
_CACHED_TREES = 256 * 1024
"""Characters of cached statements whose trees are kept; a tree takes up to 1.5 kB for each."""

_OPEN_EXTRACTS = 1024
"""Extracts of one session that are kept open; the oldest is ended for one more."""

_RESOLVE = RESOLVE.encode()
_CANCELLED = "57014"
_STALE = Refusal(
    "0A000",
    "what this prepared statement names may be something else by now",
    "prepare the statement again",
)


class Source(Protocol):
    """Where the snapshot in force is found."""

    current: Snapshot

    def learn(self, names: Iterable[str]) -> None:
        """Know these relations' names from now on."""


class Analyses:
    """The last statements analysed, within bounds that no client can exceed."""

    def __init__(self) -> None:
        self._kept: OrderedDict[object, Analysis] = OrderedDict()
        self._characters = 0

    def get(self, key: object) -> Analysis | None:
        """Return what was kept for a key, None for nothing."""
        return self._kept.get(key)

    def keep(self, key: object, analysis: Analysis) -> None:
        """Keep an analysis, and let the oldest go for it."""
        # of a plain statement nothing but that it is plain is ever used
        self._kept[key] = replace(analysis, statements=()) if analysis.plain else analysis
        self._characters += _tree_characters(analysis)
        while len(self._kept) > _CACHED_STATEMENTS or self._characters > _CACHED_TREES:
            self._characters -= _tree_characters(self._kept.popitem(last=False)[1])


def _tree_characters(analysis: Analysis) -> int:
    return 0 if analysis.plain else len(analysis.sql)


@dataclass
class Desk:
    """What a process's sessions share. ``now`` returns the time in UTC."""

    spool: Spool
    counters: Counters
    point_rows: int
    now: Callable[[], datetime]
    refused: RefusedRecipients
    log: EventLog
    beacons: dict[str, Beacons] = field(default_factory=dict)
    analysed: Analyses = field(default_factory=Analyses)
    shapes: OrderedDict[object, _Known] = field(default_factory=OrderedDict)


@dataclass(frozen=True)
class Visitor:
    """Who a session is with; ``settings`` are the server's, kept up to date by the gate."""

    session: str
    recipient: str
    database: str
    client: str
    settings: dict[str, str]


class Passage:
    """The gate of a database in which nothing is protected: everything passes."""

    values_wanted = False
    _forward = Forward()

    def statement(self, sql: bytes) -> Verdict:  # noqa: ARG002 - as Gate has it
        """Let a statement pass."""
        return self._forward

    def answered(self, rows: list[tuple[bytes | None, ...]]) -> Forward | Refuse:  # noqa: ARG002 - as Gate has it
        """Nothing is ever asked."""
        return self._forward

    def known(self, name: bytes) -> None:
        """No statement is counted."""

    def cursor(self, name: bytes) -> None:
        """No cursor is counted."""

    def bound(self, token: Any, values: list[bytes | str | None]) -> None:
        """No value is looked at."""

    def starts(self, token: Any) -> int:  # noqa: ARG002 - as Gate has it
        """Nothing is recorded."""
        return 0

    def ended(
        self, token: Any, step: int, rows: int, size: int, tag: bytes, sqlstate: str | None
    ) -> None:
        """Nothing is counted."""

    def moved(self, token: Any, step: int, rows: int, size: int) -> None:
        """Nothing is counted."""

    def parameter(self, name: str, value: str) -> None:
        """No setting matters."""

    def idle(self, status: int, quiet: bool) -> None:
        """Nothing waits for this."""

    def progress(self) -> None:
        """There are no extracts."""

    def finish(self, outcome: str) -> None:
        """There are no extracts."""


class _Extract:
    """What one statement gave one session, since its intent."""

    __slots__ = ("executions", "identity", "rows", "run_rows", "running", "size", "started", "told")

    def __init__(self, identity: str, started: str) -> None:
        self.identity = identity
        self.started = started
        self.executions = 0
        self.rows = 0
        self.size = 0
        self.running = 0
        self.run_rows = 0
        self.told = (0, 0)


class _Token:
    """What was decided about one string of statements.

    ``reads`` are, for each of its ``steps``, the steps whose rows it gives: itself, or what it runs
    of statements prepared and cursors declared before. ``names`` is the session's count of changes
    of names when it was decided, None when its names cannot come to mean something protected.
    ``forgets`` are the statements and cursors that it ends, ``makes`` those that it begins.
    ``functions`` are those that could not be called then. ``single`` is the extract's key when the
    token is one that reads only itself, as most do.
    """

    __slots__ = (
        "changes",
        "dynamic",
        "explains",
        "forgets",
        "functions",
        "makes",
        "names",
        "own",
        "reads",
        "single",
        "steps",
    )

    def __init__(
        self, steps: tuple[Step, ...], names: int | None, functions: Mapping[str, str]
    ) -> None:
        self.steps = steps
        self.functions = functions
        self.names = names
        self.changes = any(step.changes_names or step.changes_reading for step in steps)
        self.dynamic = any(step.executes or step.fetches for step in steps)
        self.explains = any(step.kind == "explain" for step in steps)
        self.own = [[step] if step.touched and not step.prepares else [] for step in steps]
        self.reads = list(self.own)
        self.forgets: list[list[tuple[_Named, str, _Token]]] = [[] for _ in steps]
        self.makes: list[tuple[int, _Named, str, _Token]] = []
        self.single: str | None = None
        if len(steps) == 1 and self.reads[0] and not (self.changes or self.dynamic):
            self.single = _key(steps[0])


_Named = dict[str, list[_Token]]


@dataclass(frozen=True, slots=True)
class _Known:
    """A shape, what its names were when it was decided, and the token for all texts of it."""

    shape: Shape
    answers: tuple[tuple[Name, Answer], ...]
    token: _Token


class SessionGate:
    """The gate of one session.

    ``durable`` is called when an intent is on the disk, or cannot be. ``prepared`` finds the token
    of a statement that the client prepared by the protocol, by its name.
    """

    def __init__(
        self,
        desk: Desk,
        source: Source,
        visitor: Visitor,
        durable: Callable[[SpoolProblem | None], None],
        prepared: Callable[[bytes], _Token | None],
        portal: Callable[[bytes], _Token | None] = lambda _: None,
    ) -> None:
        self._desk = desk
        self._source = source
        self._visitor = visitor
        self._durable = durable
        self._parsed = prepared
        self._bound = portal
        self._snapshot: Snapshot | None = None
        self._class: RecipientClass | None = None
        self._rules: Rules | None = None
        self._answers: dict[Name, Answer] = {}
        self._shown: tuple[str, ...] = ()
        self._asked: tuple[Analysis, str, tuple[Name, ...]] | None = None
        self._changes = 0
        self._unsettled = False
        self._undone = False
        self._prepared: _Named = {}
        self._cursors: _Named = {}
        self._extracts: OrderedDict[str, _Extract] = OrderedDict()
        self._forward = Forward()

    @property
    def values_wanted(self) -> bool:
        """Whether there are decoys that a value may be of."""
        return self._visitor.database in self._desk.beacons

    # verdicts

    def statement(self, sql: bytes) -> Verdict:
        """Decide about the text of a Query or a Parse."""
        desk = self._desk
        rules = self._rules_now()
        settings = self._visitor.settings
        try:
            text = decode(sql, settings.get("client_encoding", ""), settled=not self._unsettled)
        except UnknownEncoding as problem:
            return self._refuse(Refusal("0A000", str(problem), "set client_encoding to UTF8"))
        if self.values_wanted:
            self._shown = constants_of(text)
            self._look_out(self._shown)
        # a setting that is on its way may change what a backslash means
        standard = not self._unsettled and settings.get("standard_conforming_strings") != "off"
        key = (*self._kind_now(), standard, text)
        analysis = desk.analysed.get(key)
        desk.counters.add(Count.ANALYSES if analysis is None else Count.ANALYSIS_CACHE_HITS)
        if standard and (analysis is None or not analysis.plain):
            shaped = self._shaped(text)
            if shaped is not None:
                return shaped
        if analysis is None:
            try:
                analysis = analyse(text, rules, standard_conforming_strings=standard)
            except Unreadable as problem:
                return self._refuse(problem.refusal)
            if len(text) <= _CACHED_BYTES:
                desk.analysed.keep(key, analysis)
        if analysis.plain:
            desk.counters.add(Count.STATEMENTS_UNPROTECTED)
            return self._forward
        missing = tuple(name for name in analysis.questions if name not in self._answers)
        if missing:
            try:
                # the names came in this encoding, so they go in it
                asked = encode(
                    _array([name.quoted for name in missing]), settings.get("client_encoding", "")
                )
            except UnknownEncoding as problem:
                return self._refuse(Refusal("0A000", str(problem), "set client_encoding to UTF8"))
            self._asked = (analysis, text, missing)
            return Ask(
                _RESOLVE,
                [
                    asked,
                    _array([str(oid) for oid in (*rules.protected, *rules.opaque)]).encode(),
                    _array([str(oid) for oid in rules.marked]).encode(),
                ],
            )
        return self._decided(analysis, text)

    def _shaped(self, text: str) -> Verdict | None:
        """Decide as for a statement that differed in its constants only, if there was one."""
        known = self._desk.shapes.get((*self._kind_now(), shape_text(text)))
        if known is None or not known.shape.fits(text):
            return None
        if any(self._answers.get(name) != answer for name, answer in known.answers):
            return None
        refusal = self._may_touch(known.token)
        if refusal is not None:
            return self._refuse(refusal)
        beacons = self._desk.beacons.get(self._visitor.database)
        if beacons is not None:
            decoys = self._compared(beacons, known.shape.step, self._shown)
            if decoys:
                self._alarm(decoys, (known.shape.step,))
        self._desk.counters.add(Count.STATEMENTS_SELECT)
        encoding = self._visitor.settings.get("client_encoding", "")
        return Forward(encode(known.shape.edit(text), encoding), known.token)

    def _kind_now(self) -> tuple[int, RecipientClass | None]:
        return self._source.current.number, self._class

    def answered(self, rows: list[tuple[bytes | None, ...]]) -> Forward | Refuse:
        """Decide about the statement asked for, now that the server has said what its names are."""
        assert self._asked is not None
        analysis, text, missing = self._asked
        self._asked = None
        encoding = self._visitor.settings.get("client_encoding", "")
        try:
            told = [tuple(v if v is None else decode(v, encoding) for v in row) for row in rows]
        except UnknownEncoding as problem:
            return self._refuse(Refusal("0A000", str(problem), "set client_encoding to UTF8"))
        if {row[0] for row in told} != {name.quoted for name in missing}:
            return self._refuse(
                Refusal("0A000", "the statement's names cannot be found", "write them in ASCII")
            )
        self._answers.update(answers(missing, told))
        verdict = self._decided(analysis, text)
        for name in missing:
            # another session may drop what hides a protected relation's name
            if name.schema is None and not _touches(self._answers.get(name, _NOTHING)):
                self._answers.pop(name, None)
        return verdict

    def _rules_now(self) -> Rules:
        snapshot = self._source.current
        if snapshot is self._snapshot and self._rules is not None:
            return self._rules
        if not snapshot.rules and self._rules is not None:
            # what was protected is as good as protected after the catalog was dropped
            return self._rules
        before, self._snapshot = self._snapshot, snapshot
        rules_before, self._rules = self._rules, self._look_up(snapshot)
        if before is not None and rules_before is not None:
            # what names mean, and what is protected, may be another matter now
            self._forget()
            if before.epoch != snapshot.epoch or rules_before.protected != self._rules.protected:
                for key, extract in list(self._extracts.items()):
                    if extract.running <= 0:
                        self._end(key, "complete", None)
        return self._rules

    def _look_up(self, snapshot: Snapshot) -> Rules:
        self._class = snapshot.recipients.get(self._visitor.recipient)
        return snapshot.rules.get(self._class) or snapshot.rules[None]

    def _changed(self) -> None:
        """Names and settings may change while what was just sent runs, and at the end of it."""
        self._forget()
        self._unsettled = self._undone = True

    def _forget(self) -> None:
        self._changes += 1
        self._answers.clear()

    def _decided(self, analysis: Analysis, text: str) -> Forward | Refuse:
        assert self._rules is not None
        decision = decide(analysis, self._answers, self._rules)
        if isinstance(decision, Refusal):
            return self._refuse(decision)
        loose = _is_loose(analysis, self._answers)
        names = self._changes if loose else None
        token = _Token(decision.statements, names, self._rules.functions)
        if token.dynamic and not self._find_reads(token):
            return self._refuse(_STALE)
        touching = any(token.reads) or any(step.touched for step in decision.statements)
        if touching:
            refusal = self._may_touch(token)
            if refusal is not None:
                return self._refuse(refusal)
        beacons = self._desk.beacons.get(self._visitor.database)
        if beacons is not None and len(decision.statements) == 1:
            # the constants are numbered like the parameters that stand for them in the statement
            owners = self._compared(beacons, decision.statements[0], self._shown)
            if owners:
                self._alarm(owners, decision.statements)
        for at, step in enumerate(decision.statements):
            self._remember(token, at, step)
            self._forgets(token, at, step)
            if step.creates:
                self._source.learn(step.creates)
        if token.changes:
            self._changed()
        edited = decision.sql is not text
        if touching:
            for step in decision.statements:
                self._desk.counters.add(_COUNTED.get(step.kind, Count.STATEMENTS_UNPROTECTED))
        if not edited:
            counted = touching or token.changes or token.dynamic or token.names is not None
            return Forward(None, token) if counted or any(token.forgets) else self._forward
        if token.single is not None and token.names is None and not self._unsettled:
            self._keep_shape(analysis, decision, token)
        encoding = self._visitor.settings.get("client_encoding", "")
        try:
            return Forward(encode(decision.sql, encoding), token)
        except UnknownEncoding as problem:
            return self._refuse(Refusal("0A000", str(problem), "set client_encoding to UTF8"))

    def _keep_shape(self, analysis: Analysis, decision: Decision, token: _Token) -> None:
        found = shape_of(analysis, decision)
        if found is None:
            return
        text, shape = found
        shapes = self._desk.shapes
        answers = tuple((name, self._answers[name]) for name in analysis.questions)
        shapes[(*self._kind_now(), text)] = _Known(shape, answers, token)
        if len(shapes) > _CACHED_STATEMENTS:
            shapes.popitem(last=False)

    def _find_reads(self, token: _Token) -> bool:
        """Find what a statement runs of others; return whether their names are what they were."""
        settled = True
        for at, step in enumerate(token.steps):
            others = list(self._cursors.get(step.fetches, ())) if step.fetches else []
            if step.fetches and (bound := self._bound(step.fetches.encode())) is not None:
                # FETCH reads what the client bound to a portal like any cursor
                others.append(bound)
            if step.executes:
                others += self._prepared.get(step.executes, ())
                parsed = self._parsed(step.executes.encode())
                if parsed is not None:
                    others.append(parsed)
                settled = settled and not any(self._is_stale(other) for other in others)
                token.changes |= any(other.changes for other in others)
            token.reads[at] = token.own[at] + [one for other in others for one in other.reads[0]]
        return settled

    def _remember(self, token: _Token, at: int, step: Step) -> None:
        for name, known in ((step.prepares, self._prepared), (step.declares, self._cursors)):
            if name:
                made = _Token((_as_run(step),), token.names, token.functions)
                token.makes.append((at, known, name, made))
                known.setdefault(name, []).append(made)

    def _forgets(self, token: _Token, at: int, step: Step) -> None:
        """Note what a statement ends: what there is now, not what comes while it runs."""
        for name, known in ((step.deallocates, self._prepared), (step.closes, self._cursors)):
            if name is not None:
                names = list(known) if name == "*" else [name]
                for one in names:
                    token.forgets[at] += [(known, one, old) for old in known.get(one, ())]

    def _may_touch(self, token: _Token) -> Refusal | None:
        assert self._rules is not None
        if not self._rules.enrolled:
            return Refusal(
                "42501",
                f'role "{self._visitor.recipient}" is not enrolled as a recipient',
                "ask the database administrator to enrol it",
            )
        if token.explains:
            return Refusal(
                "42501",
                "EXPLAIN of a protected relation is refused",
                "its plan would tell decoys from patients",
            )
        try:
            until = self._desk.refused.until(self._visitor.recipient, self._desk.now())
        except EnvironmentProblem as problem:
            return Refusal("53400", "the recipients' limits cannot be read now", problem.message)
        if until is not None:
            return Refusal(
                "53400",
                "this recipient has had as many rows as its limit allows",
                f"wait until {until:%Y-%m-%d %H:%M %Z}, or ask the database administrator",
            )
        full = self._desk.spool.problem
        if full is not None:
            return Refusal("53100", "extracts cannot be recorded now", full.message)
        return None

    def _refuse(self, refusal: Refusal) -> Refuse:
        self._desk.counters.add(Count.STATEMENTS_REFUSED)
        self._desk.log.info(
            "statement.refused",
            session=self._visitor.session,
            role=self._visitor.recipient,
            database=self._visitor.database,
            client=self._visitor.client,
            sqlstate=refusal.sqlstate,
            reason=refusal.message,
        )
        return Refuse(error_response(refusal.sqlstate, refusal.message, refusal.hint))

    def _is_stale(self, token: _Token) -> bool:
        if token.names is not None and token.names != self._changes:
            return True
        # a statement that calls functions changes what it likes; which may be called can change
        return (
            token.changes and self._rules is not None and token.functions != self._rules.functions
        )

    # what the relay tells

    def known(self, name: bytes) -> _Token | None:
        """Return the token of a statement prepared in SQL."""
        return _union(self._prepared, name)

    def cursor(self, name: bytes) -> _Token | None:
        """Return the token of a cursor declared in SQL."""
        return _union(self._cursors, name)

    def bound(self, token: _Token | None, values: list[bytes | str | None]) -> bytes | None:
        """Refuse a statement that may not be run now, or may mean something else by now."""
        if values:
            self._look_out(values, token)
        if token is None:
            return None
        self._rules_now()
        if self._is_stale(token) or (token.dynamic and not self._find_reads(token)):
            return self._refuse(_STALE).response
        refusal = self._may_touch(token) if token.single is not None or any(token.reads) else None
        return None if refusal is None else self._refuse(refusal).response

    def starts(self, token: _Token) -> int:
        """Write what is missing of intents; return for how many of them the client must wait."""
        if token.single is not None:
            extract = self._extracts.get(token.single)
            if extract is not None:
                extract.running += 1
                return 0
        if token.dynamic:
            # what it runs may have been prepared anew since it was bound
            self._find_reads(token)
        for _, known, name, made in token.makes:
            if made not in known.get(name, ()):
                known.setdefault(name, []).append(made)
        if token.changes:
            self._changed()
        waits = 0
        for steps in token.reads:
            for step in steps:
                extract = self._extracts.get(_key(step))
                if extract is None:
                    extract = self._intend(step)
                    waits += 1
                extract.running += 1
        return waits

    def ended(
        self, token: _Token, step: int, rows: int, size: int, tag: bytes, sqlstate: str | None
    ) -> None:
        """Add a run's rows to its extract, and end the extract when it was not a point query."""
        if token.single is not None and tag and 0 < rows <= self._desk.point_rows:
            extract = self._extracts.get(token.single)
            if extract is not None and not extract.run_rows and sqlstate is None:
                extract.running -= 1
                extract.executions += 1
                extract.rows += rows
                extract.size += size
                return
        if token.changes:
            self._changed()
        if sqlstate is None and step < len(token.forgets):
            for known, name, old in token.forgets[step]:
                _drop(known, name, [old])
        self._made(token, step, sqlstate)
        # a string that fails takes with it what comes behind
        for later in token.reads[step + 1 :] if sqlstate is not None else ():
            for one in later:
                if _key(one) in self._extracts:
                    self._extracts[_key(one)].running -= 1
        for index, one in enumerate(token.reads[step] if step < len(token.reads) else ()):
            key = _key(one)
            extract = self._extracts.get(key)
            if extract is None:
                continue
            extract.running -= 1
            if index == 0:
                told = rows or (0 if extract.run_rows else _rows_of(tag))
                extract.rows += told
                extract.run_rows += told
                extract.size += size
            if sqlstate:
                outcome = "cancelled" if sqlstate == _CANCELLED else "error"
                self._end(key, outcome, sqlstate)
            elif tag:
                extract.executions += 1
                # a cursor's rows are one extract, in however many pieces they are fetched
                whole = token.steps[step].fetches is None
                if whole and extract.run_rows > self._desk.point_rows and extract.running <= 0:
                    self._end(key, "complete", None)
                extract.run_rows = 0

    def moved(self, token: _Token, step: int, rows: int, size: int) -> None:
        """Add what has left of a run that has not ended."""
        for one in token.reads[step][:1] if step < len(token.reads) else ():
            extract = self._extracts.get(_key(one))
            if extract is not None:
                extract.rows += rows
                extract.run_rows += rows
                extract.size += size

    def _made(self, token: _Token, step: int, sqlstate: str | None) -> None:
        """Two of one name cannot be: what was made has taken the place of what was there."""
        for at, known, name, made in token.makes:
            if sqlstate is None and at == step:
                tokens = known.get(name, [])
                later = tokens[tokens.index(made) + 1 :] if made in tokens else tokens
                known[name] = [made, *later]
            elif sqlstate is not None and at >= step:
                _drop(known, name, [made])

    def parameter(self, name: str, value: str) -> None:
        """Remember a setting that the server reports."""
        self._visitor.settings[name] = value

    def idle(self, status: int, quiet: bool) -> None:
        """The server has told all that had changed; a transaction's end may take it back."""
        if self._undone and quiet:
            self._forget()
            self._unsettled = False
            self._undone = status != ord("I")

    # the ledger

    def _intend(self, step: Step) -> _Extract:
        if len(self._extracts) >= _OPEN_EXTRACTS:
            idle = (key for key, extract in self._extracts.items() if extract.running <= 0)
            if (oldest := next(idle, None)) is not None:
                self._end(oldest, "complete", None)
        desk, visitor, snapshot = self._desk, self._visitor, self._source.current
        extract = _Extract(secrets.token_hex(16), self._now())
        self._extracts[_key(step)] = extract
        record = {
            "type": "intent",
            "at": extract.started,
            "extract": extract.identity,
            "session": visitor.session,
            "recipient": visitor.recipient,
            "class": str(self._class),
            "database": snapshot.database,
            "system": snapshot.system,
            "client": visitor.client,
            "application_name": visitor.settings.get("application_name", ""),
            "statement": step.statement,
            "statement_hash": sha256(step.statement.encode()).hexdigest(),
            "relations": [
                {"relation": f"{one.schema}.{one.relation}", "carriers": list(one.carriers)}
                for one in step.touched
            ],
            "epoch": snapshot.epoch,
            "kind": step.kind if step.kind in _COUNTED else "select",
        }
        desk.counters.add(Count.EXTRACTS)
        desk.spool.append(record, self._durable)
        return extract

    def _end(self, key: str, outcome: str, sqlstate: str | None) -> None:
        extract = self._extracts.pop(key)
        self._desk.counters.add(Count.ROWS, extract.rows - extract.told[1])
        record = {
            "type": "outcome",
            "at": self._now(),
            **_sums(extract),
            "started_at": extract.started,
            "ended_at": self._now(),
            "outcome": outcome,
        }
        if sqlstate:
            record["sqlstate"] = sqlstate
        self._desk.spool.append(record)

    def progress(self) -> None:
        """Record how far extracts are that have not ended."""
        for extract in self._extracts.values():
            sums = (extract.executions, extract.rows)
            if sums != extract.told:
                self._desk.counters.add(Count.ROWS, extract.rows - extract.told[1])
                extract.told = sums
                record = {"type": "progress", "at": self._now(), **_sums(extract)}
                self._desk.spool.append(record)

    def finish(self, outcome: str) -> None:
        """End all extracts: the session is over."""
        for key, extract in list(self._extracts.items()):
            self._end(key, outcome if extract.running > 0 else "complete", None)

    def _now(self) -> str:
        return self._desk.now().isoformat(timespec="microseconds").replace("+00:00", "Z")

    # the decoys

    def _look_out(self, values: Sequence[bytes | str | None], token: _Token | None = None) -> None:
        """Raise the alarm when a value is a decoy's.

        ``token`` is of the statement that the values are bound to; without one they stand in it.
        """
        beacons = self._desk.beacons.get(self._visitor.database)
        if beacons is None:
            return
        decoys = beacons.decoys([value for value in values if value is not None])
        for step in token.steps if token is not None else ():
            decoys |= self._compared(beacons, step, values)
        if decoys:
            self._alarm(decoys, token.steps if token is not None else ())

    def _compared(
        self, beacons: Beacons, step: Step, values: Sequence[bytes | str | None]
    ) -> frozenset[Named]:
        """Return the decoys that values are of which stand beside a column's name."""
        found: frozenset[Named] = frozenset()
        for column, number in _comparisons(step.statement):
            if number <= len(values) and (value := values[number - 1]) is not None:
                found |= beacons.decoys([value], column)
        return found

    def _alarm(self, decoys: frozenset[Named], steps: Iterable[Step]) -> None:
        desk, visitor, snapshot = self._desk, self._visitor, self._source.current
        desk.spool.append(
            decoy_alert(
                desk.now(),
                recipient=visitor.recipient,
                database=snapshot.database,
                system=snapshot.system,
                client=visitor.client,
                decoys=decoys,
                relations={str(one) for step in steps for one in step.touched},
            )
        )


_comparisons = lru_cache(1024)(comparisons)


def _as_run(step: Step) -> Step:
    """Return the step that runs what another prepares or declares."""
    return replace(step, prepares=None)


def _key(step: Step) -> str:
    """Return what tells extracts apart: one text may read other relations at another time."""
    return "\n".join((step.statement, *(repr((one.schema, one.relation)) for one in step.touched)))


def _drop(known: _Named, name: str, gone: list[_Token]) -> None:
    kept = [token for token in known.get(name, ()) if token not in gone]
    if kept:
        known[name] = kept
    else:
        known.pop(name, None)


def _union(known: _Named, name: bytes) -> _Token | None:
    tokens = known.get(name.decode("utf-8", "replace")) if known else None
    if not tokens:
        return None
    if len(tokens) == 1:
        return tokens[0]
    names = [one.names for one in tokens if one.names is not None]
    steps = tuple(step for one in tokens for step in one.steps)
    made = _Token(steps, min(names, default=None), tokens[0].functions)
    made.own = [[] for _ in made.steps]
    made.own[0] = [step for one in tokens for steps in one.reads for step in steps]
    made.reads = list(made.own)
    made.makes = [(0, known, name, new) for one in tokens for _, known, name, new in one.makes]
    made.single = None
    return made


_NOTHING = Answer(0)


def _is_loose(analysis: Analysis, answers: Mapping[Name, Answer]) -> bool:
    """Whether a name that was forwarded may come to mean something protected.

    One that does is a marked view's now, and others that are read have got their schema written
    before them. But there may be none yet, and the session's own may become another.
    """
    returns = {name for one in analysis.statements for name in one.returns if name.schema is None}
    return any(
        not _touches(answer) and (answer.schema in (None, "pg_temp") or name in returns)
        for name, answer in ((name, answers[name]) for name in analysis.questions)
    )


def _touches(answer: Answer) -> bool:
    return bool(answer.marked or answer.stored)


def _sums(extract: _Extract) -> dict[str, object]:
    return {
        "extract": extract.identity,
        "executions": extract.executions,
        "rows": extract.rows,
        "bytes": extract.size,
    }


def _rows_of(tag: bytes) -> int:
    """Return the rows of a statement that gave none to the client: copied into a table or file."""
    found = re.fullmatch(rb"(?:SELECT|COPY|INSERT \d+) (\d+)", tag)
    return int(found[1]) if found else 0


def _array(values: Iterable[str]) -> str:
    """Return a text array as PostgreSQL reads it."""
    return "{" + ",".join(_element(value) for value in values) + "}"


def _element(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
