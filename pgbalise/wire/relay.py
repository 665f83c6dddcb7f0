"""A session between a client and a server, from the first ReadyForQuery on.

Bytes of either side go in, bytes for either side come out. Every statement is shown to a gate
before the server may see it; the gate lets it pass, puts another text in its place, refuses it, or
asks the server something first, in the client's own session. Rows and COPY data are counted by
their headers and handed on unopened.

What the server answers is matched to what it was asked by a queue of expectations: the head is
what the server is answering now, and ``_TRANSITIONS`` says what each kind of message means to it.
After an error in the extended protocol the server ignores everything up to Sync (the manual,
section 55.2.3), and during COPY IN it ignores Flush and Sync (55.2.6): neither may be expected.
Where a COPY failed it cannot be known from here which Syncs it had ignored, so these are only
possible answers, and what would mean one thing or another because of that ends the session.

What a statement's or a portal's name means is settled by the server's answers. Before these are
there, a name means what the messages ahead of it in the same pipeline say, since they fail
together; beyond a Sync the client has to wait.

A refused statement is put in the place of one that the server will refuse for its syntax, and the
server's error is replaced by the refusal. So transactions, pipelines and what follows an error go
as for any statement that failed, and are the server's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from pgbalise.wire import messages as m
from pgbalise.wire.messages import Backend, Frontend, head_at, length_at
from pgbalise.wire.startup import ProtocolViolation

_UNSPEAKABLE = b"pgbalise refused this statement"
_SYNTAX_ERROR = "42601"
_TEXTS = (Frontend.QUERY, Frontend.PARSE, Frontend.FUNCTION_CALL)
_QUESTION = b"pgbalise.question"
_CLOSE_QUESTION = m.close(b"P", _QUESTION) + m.close(b"S", _QUESTION)
_STREAMED_BIND = 1 << 20
"""A Bind message longer than this is handed on before it is whole, its values unseen."""
_NAME_BYTES = 63
"""src/include/pg_config_manual.h, NAMEDATALEN - 1: the server looks at no more of a name."""
_WAIT = b"wait"
"""In the place of a message: it is to be looked at again when the server has answered."""
_FORGET_ALL = frozenset({b"DEALLOCATE ALL", b"DISCARD ALL"})

_UNREADABLE_NAME = m.error_response(
    "0A000",
    "the names of prepared statements and portals must be ASCII here",
    "rename them, or declare the cursor and fetch from it in SQL",
)
_UNENDED_COPY = "a COPY must be ended before anything else is sent"
_TWO_MEANINGS = m.error_response(
    "0A000",
    "this name was given both in SQL and by the protocol",
    "use another name",
)


@dataclass(frozen=True, slots=True)
class Forward:
    """Let a statement pass: as written when ``sql`` is None. ``token`` comes back with its rows."""

    sql: bytes | None = None
    token: Any = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not run a statement; the client gets this ErrorResponse."""

    response: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """Run a query of the gate's own first, in the client's session and transaction."""

    sql: bytes
    values: Sequence[bytes]


Verdict = Forward | Refuse | Ask


class Gate(Protocol):
    """Who decides about statements and counts what leaves.

    A token is what the gate said of a statement; None means that nothing is to be counted.
    """

    @property
    def values_wanted(self) -> bool:
        """Whether values bound to parameters are to be shown."""

    def statement(self, sql: bytes) -> Verdict:
        """Decide about the text of a Query or a Parse."""

    def answered(self, rows: list[tuple[bytes | None, ...]]) -> Forward | Refuse:
        """Decide about the statement asked for, now that the answer is there."""

    def known(self, name: bytes) -> Any:
        """Return the token of a statement prepared in SQL, or None."""

    def cursor(self, name: bytes) -> Any:
        """Return the token of a cursor declared in SQL, or None."""

    def bound(self, token: Any, values: list[bytes | str | None]) -> bytes | None:
        """A statement is bound to values (none unless wanted); return an ErrorResponse or None."""

    def starts(self, token: Any) -> int:
        """A statement is about to run; return how many things must happen before rows may leave.

        Each of them is one to be taken off ``Relay.holding`` again.
        """

    def ended(
        self, token: Any, step: int, rows: int, size: int, tag: bytes, sqlstate: str | None
    ) -> None:
        """A statement ran, or failed with an SQLSTATE.

        ``step`` is its place in the string it came in, ``rows`` and ``size`` count the DataRow and
        CopyData messages that the client got and their bytes, to which those of notices are added.
        An empty ``tag`` means that the
        portal has more rows.
        """

    def moved(self, token: Any, step: int, rows: int, size: int) -> None:
        """A statement that has not ended has given these since; ``ended`` will not count them."""

    def parameter(self, name: str, value: str) -> None:
        """The server reported a setting."""

    def idle(self, status: int, quiet: bool) -> None:
        """The server is ready; ``status`` is ReadyForQuery's, ``quiet`` that it was asked no more.

        When it is quiet, it has reported all settings as they are.
        """


class Expected(IntEnum):
    """What the server was asked and has not answered in full."""

    QUERY = 0
    PARSE = 1
    BIND = 2
    DESCRIBE = 3
    EXECUTE = 4
    CLOSE = 5
    SYNC = 6
    COPY_END = 7
    """CopyDone or CopyFail, sent before the server said that it wants data. It has no answer."""
    SPARE_SYNC = 8
    """A Sync that the server ignores unless the COPY before it failed first."""


_CLOSES = (Expected.CLOSE, Expected.CLOSE)
"""What _CLOSE_QUESTION is to be answered with."""


class _Meaning(IntEnum):
    WRONG = 0
    PART = 1
    STEP = 2
    """One statement of a Query has run."""
    LAST = 3
    COPY_IN = 4
    SPARE = 5


_B = Backend
_TRANSITIONS: dict[Expected, dict[int, _Meaning]] = {
    Expected.QUERY: {
        _B.ROW_DESCRIPTION: _Meaning.PART,
        _B.COPY_OUT_RESPONSE: _Meaning.PART,
        _B.COPY_DONE: _Meaning.PART,
        _B.COPY_IN_RESPONSE: _Meaning.COPY_IN,
        _B.COMMAND_COMPLETE: _Meaning.STEP,
        _B.EMPTY_QUERY_RESPONSE: _Meaning.STEP,
        _B.READY_FOR_QUERY: _Meaning.LAST,
    },
    Expected.PARSE: {_B.PARSE_COMPLETE: _Meaning.LAST},
    Expected.BIND: {_B.BIND_COMPLETE: _Meaning.LAST},
    Expected.DESCRIBE: {
        _B.PARAMETER_DESCRIPTION: _Meaning.PART,
        _B.ROW_DESCRIPTION: _Meaning.LAST,
        _B.NO_DATA: _Meaning.LAST,
    },
    Expected.EXECUTE: {
        _B.COPY_OUT_RESPONSE: _Meaning.PART,
        _B.COPY_DONE: _Meaning.PART,
        _B.COPY_IN_RESPONSE: _Meaning.COPY_IN,
        _B.COMMAND_COMPLETE: _Meaning.LAST,
        _B.EMPTY_QUERY_RESPONSE: _Meaning.LAST,
        _B.PORTAL_SUSPENDED: _Meaning.LAST,
    },
    Expected.CLOSE: {_B.CLOSE_COMPLETE: _Meaning.LAST},
    Expected.SYNC: {_B.READY_FOR_QUERY: _Meaning.LAST},
    Expected.COPY_END: {},
    Expected.SPARE_SYNC: {_B.READY_FOR_QUERY: _Meaning.SPARE},
}

_ROWS = {
    expected: bytes(meanings.get(kind, _Meaning.WRONG) for kind in range(256))
    for expected, meanings in _TRANSITIONS.items()
}
# members of enumerations take longer to look up than what they are compared with
_LAST, _EXECUTED = int(_Meaning.LAST), Expected.EXECUTE
_DATA_ROW, _COPY_DATA, _READY = (
    int(kind) for kind in (_B.DATA_ROW, _B.COPY_DATA, _B.READY_FOR_QUERY)
)

_UNASKED = frozenset({_B.NOTICE_RESPONSE, _B.NOTIFICATION_RESPONSE, _B.PARAMETER_STATUS})
_OPENED = frozenset(
    {_B.COMMAND_COMPLETE, _B.ERROR_RESPONSE, _B.PARAMETER_STATUS, _B.READY_FOR_QUERY}
)
"""Messages whose body is read, and so waited for."""


class _Expectation:
    """One thing the server was asked; ``row`` is what each kind of message means to it."""

    __slots__ = ("asked", "kind", "name", "refusal", "row", "step", "token")

    def __init__(
        self,
        kind: Expected,
        token: Any = None,
        *,
        name: bytes = b"",
        refusal: bytes | None = None,
        asked: bool = False,
    ) -> None:
        self.kind = kind
        self.row = _ROWS[kind]
        self.token = token
        self.name = name
        self.refusal = refusal
        self.asked = asked
        self.step = 0


_BIND = _Expectation(Expected.BIND)
_DESCRIBE = _Expectation(Expected.DESCRIBE)
_EXECUTE = _Expectation(Expected.EXECUTE)
_SYNC = _Expectation(Expected.SYNC)
_COPY_END = _Expectation(Expected.COPY_END)
_SPARE_SYNC = _Expectation(Expected.SPARE_SYNC)


class _Flow(IntEnum):
    """What the server does with what it reads next."""

    NORMAL = 0
    SKIPPING = 1
    """It ignores everything up to Sync."""
    COPYING = 2
    """It wants COPY data, and ignores Sync and Flush."""
    UNSURE = 3
    """It is normal if it has answered a Sync of the COPY that failed, or else skips."""


class _Names:
    """What running a prepared statement, or a portal, means, by its name.

    ``pending`` are the Parse or Bind messages that the server has not answered.
    """

    __slots__ = ("confirmed", "here", "pending")

    def __init__(self) -> None:
        self.confirmed: dict[bytes, _Expectation] = {}
        self.pending: dict[bytes, _Expectation] = {}
        self.here = False
        """Whether the one without a name was made since the last Sync."""

    def get(self, name: bytes) -> _Expectation | None:
        made = self.pending.get(name)
        if made is not None:
            run: _Expectation = made.token
            return run
        return self.confirmed.get(name)

    def unsettled(self) -> bool:
        """Whether what has no name may have been made, or may have failed to."""
        return not self.here and b"" in self.pending

    def confirm(self, made: _Expectation) -> None:
        self.confirmed[made.name] = made.token
        self.lose(made)

    def lose(self, made: _Expectation) -> None:
        if self.pending.get(made.name) is made:
            del self.pending[made.name]


def _run(token: Any) -> _Expectation:
    """Return what an Execute is to be expected to do."""
    return _EXECUTE if token is None else _Expectation(Expected.EXECUTE, token)


class _Question(NamedTuple):
    """A statement that waits for an answer: of a Query, or of a Parse with its name and types."""

    message: bytes
    name: bytes | None
    types: bytes
    pipelined: bool


class Relay:
    """One session. What to send lies in ``to_client`` and ``to_server`` after each call.

    While ``holding``, what lies in ``to_client`` must not be sent. While ``blocked``, something of
    the server's must come first: the client's bytes are only kept, so its socket should not be
    read.
    ``over`` once the client has left. ``status`` is ReadyForQuery's. Both ``from_`` methods raise
    ProtocolViolation, and the session is then of no more use.
    """

    def __init__(self, gate: Gate, *, statement_bytes: int) -> None:
        self.to_client: list[bytes] = []
        self.to_server: list[bytes] = []
        self.holding = 0
        self.over = False
        self.status = ord("I")
        self._gate = gate
        self._limit = statement_bytes
        self._queue: deque[_Expectation] = deque()
        self._statements = _Names()
        self._portals = _Names()
        self._contested = False
        self._contested_before = False
        self._pipelined = False
        self._flow = _Flow.NORMAL
        self._waiting = False
        self.blocked = False
        self._question: _Question | None = None
        self._rows_asked: list[tuple[bytes | None, ...]] = []
        self._question_failed: bytes | None = None
        self._question_run = False
        self._client: list[bytes] = []
        self._client_size = 0
        self._client_need = 0
        self._client_skip = 0
        self._client_drop = False
        self._server = b""
        self._server_skip = 0
        self._rows = 0
        self._size = 0
        self._takes: dict[int, Callable[[bytes, int, int], bytes | None]] = {
            Frontend.BIND: self._bind,
            Frontend.EXECUTE: self._execute,
            Frontend.SYNC: self._sync,
            Frontend.DESCRIBE: self._describe,
            Frontend.QUERY: self._query,
            Frontend.PARSE: self._parse,
            Frontend.CLOSE: self._close,
            Frontend.FLUSH: self._flush,
            Frontend.COPY_DATA: self._copy_data,
            Frontend.COPY_DONE: self._copy_end,
            Frontend.COPY_FAIL: self._copy_end,
            Frontend.FUNCTION_CALL: self._function_call,
            Frontend.TERMINATE: self._terminate,
        }

    def prepared(self, name: bytes) -> Any:
        """Return the token of a statement that was prepared by a Parse, or None."""
        run = self._statements.get(name[:_NAME_BYTES])
        return None if run is None else run.token

    def portal(self, name: bytes) -> Any:
        """Return the token of a portal that was made by a Bind, or None."""
        run = self._portals.get(name[:_NAME_BYTES])
        return None if run is None else run.token

    @property
    def busy(self) -> bool:
        """Whether the server owes an answer or a transaction is open."""
        return (
            not self._quiet() or self.status != ord("I") or bool(self._flow) or bool(self._client)
        )

    def _quiet(self) -> bool:
        queue = self._queue
        return not queue or all(one.kind >= Expected.COPY_END for one in queue)

    def tell(self) -> None:
        """Tell the gate what has left of the statement that the server is answering now."""
        head = self._queue[0] if self._queue else None
        runs = head is not None and head.kind in (Expected.QUERY, Expected.EXECUTE)
        if runs and head is not None and head.token is not None and self._rows:
            rows, size = self._rows, self._size
            self._rows = self._size = 0
            self._gate.moved(head.token, head.step, rows, size)

    # what the client sends

    def from_client(self, data: bytes) -> None:
        """Take bytes of the client; what comes behind Terminate is nobody's."""
        if self.over:
            return
        if self._client or self.blocked:
            self._keep(data)
            if self.blocked or self._client_size < self._client_need:
                return
            data = self._kept()
        self._client_messages(data)

    def _keep(self, data: bytes) -> None:
        self._client.append(data)
        self._client_size += len(data)

    def _kept(self) -> bytes:
        data = b"".join(self._client)
        self._client.clear()
        self._client_size = 0
        return data

    def _client_messages(self, data: bytes) -> None:
        end = len(data)
        start = pos = 0
        if self._client_skip:
            pos = min(self._client_skip, end)
            self._client_skip -= pos
            if self._client_drop:
                start = pos
        takes = self._takes
        while end - pos >= m.HEADER_BYTES:
            kind = data[pos]
            (length,) = length_at(data, pos + 1)
            after = pos + 1 + length
            if after > end or length < 4:
                self._check(kind, length)
                if kind == Frontend.COPY_DATA:
                    replacement = self._copy_data(data, pos, end)
                elif self._is_long_bind(kind, data, pos):
                    replacement = self._bind(data, pos, end)
                    if replacement is _WAIT:
                        self._wait()
                        break
                elif kind in _TEXTS and length > self._limit:
                    replacement = self._too_long(kind)
                    if replacement is _WAIT:
                        self._wait()
                        break
                else:
                    break
                self._client_skip = after - end
                self._client_drop = replacement is not None
                after = end
            else:
                take = takes.get(kind)
                if take is None:
                    raise ProtocolViolation(f"invalid frontend message type {kind}")
                if length > m.PQ_SMALL_MESSAGE_LIMIT:
                    self._check(kind, length)
                if length > self._limit and kind in _TEXTS:
                    replacement = self._too_long(kind)
                else:
                    replacement = take(data, pos, after)
            if replacement is not None:
                if replacement is _WAIT:
                    self._wait()
                    break
                if start < pos:
                    self.to_server.append(data[start:pos])
                if replacement:
                    self.to_server.append(replacement)
                start = after
            pos = after
            if self._question is not None or self.over:
                break
        if start < pos:
            self.to_server.append(data[start:pos] if start or pos < end else data)
        if pos < end and not self.over:
            self._keep(data[pos:])
            self._client_need = m.HEADER_BYTES
            if end - pos >= m.HEADER_BYTES:
                self._client_need = 1 + length_at(data, pos + 1)[0]
                if data[pos] == Frontend.BIND:
                    self._client_need = min(self._client_need, _STREAMED_BIND)

    def _wait(self) -> None:
        self._waiting = self.blocked = True

    def _check(self, kind: int, length: int) -> None:
        if kind not in self._takes:
            raise ProtocolViolation(f"invalid frontend message type {kind}")
        limit = m.PQ_LARGE_MESSAGE_LIMIT
        if kind in m.SMALL_FRONTEND:
            limit = m.PQ_SMALL_MESSAGE_LIMIT
        if not 4 <= length <= limit:
            raise ProtocolViolation("invalid message length")

    def _too_long(self, kind: int) -> bytes | None:
        """Refuse a statement that is longer than what is kept to be read."""
        if (self._flow or self._contested_before) and (aside := self._set_aside()) is not None:
            return aside
        response = m.error_response(
            "54000",
            f"a statement of more than {self._limit} bytes is not read by this proxy",
            "raise limits.statement_bytes in the proxy's configuration",
        )
        name = _QUESTION if kind == Frontend.PARSE else None
        return self._settle(Refuse(response), _Question(b"", name, b"", self._pipelined))

    def _is_long_bind(self, kind: int, data: bytes, pos: int) -> bool:
        """Whether a Bind is handed on before it is whole: its names are there, the rest is data."""
        if kind != Frontend.BIND or len(data) - pos < _STREAMED_BIND:
            return False
        middle = data.find(b"\0", pos + 5)
        if middle < 0 or data.find(b"\0", middle + 1) < 0:
            raise ProtocolViolation("invalid Bind message")
        return True

    def _set_aside(self) -> bytes | None:
        """Return what replaces a message that is no part of a COPY, None if it may go on."""
        if self._flow is _Flow.SKIPPING:
            return b""
        if self._flow is not _Flow.NORMAL:
            if self._flow is _Flow.UNSURE or (
                self._queue[0].kind is Expected.EXECUTE and len(self._queue) > 1
            ):
                # whether the server would skip it depends on how far it had read when it failed
                raise ProtocolViolation(_UNENDED_COPY)
            self._flow = _Flow.NORMAL
        if self._contested_before:
            if any(one.kind is Expected.SYNC for one in self._queue):
                return _WAIT
            self._contested_before = False
        return None

    def _refused(self, response: bytes) -> bytes:
        self._pipelined = True
        # by a name of its own, since it must not take the client's unnamed statement away
        self._queue.append(_Expectation(Expected.PARSE, _EXECUTE, name=_QUESTION, refusal=response))
        return m.parse(_QUESTION, _UNSPEAKABLE)

    def _bind(self, data: bytes, pos: int, after: int) -> bytes | None:
        if (self._flow or self._contested_before) and (aside := self._set_aside()) is not None:
            return aside
        middle = data.find(b"\0", pos + 5, after)
        end = data.find(b"\0", middle + 1, after)
        if middle < 0 or end < 0:
            raise ProtocolViolation("invalid Bind message")
        portal, name = data[pos + 5 : middle], data[middle + 1 : end]
        if portal or name:
            portal, name = portal[:_NAME_BYTES], name[:_NAME_BYTES]
            if not (portal.isascii() and name.isascii()):
                return self._refused(_UNREADABLE_NAME)
        run = self._statements.get(name)
        if name:
            known = self._gate.known(name)
            if known is not None:
                if run is not None and run.token is not None:
                    return self._refused(_TWO_MEANINGS)
                run = _run(known)
        elif self._statements.unsettled():
            return _WAIT
        if run is None:
            run = _EXECUTE
        token = run.token
        self._pipelined = True
        values: list[bytes | str | None] = []
        if self._gate.values_wanted and after - pos < _STREAMED_BIND:
            try:
                values = m.bound_values(data[end + 1 : after], 0)
            except ValueError:
                raise ProtocolViolation("invalid Bind message") from None
        if token is not None or values:
            refusal = self._gate.bound(token, values)
            if refusal is not None:
                return self._refused(refusal)
        portals = self._portals
        old = portals.get(portal)
        made = _BIND
        if old is not None or run is not _EXECUTE:
            made = _Expectation(Expected.BIND, run, name=portal)
            portals.pending[portal] = made
            self._contest(portal, old, run)
        if not portal:
            portals.here = True
        self._queue.append(made)
        return None

    def _contest(self, name: bytes, old: _Expectation | None, new: _Expectation) -> None:
        """Note when a name would go on to mean something else if what was just sent fails."""
        if name and old is not None and old.token is not None and old is not new:
            self._contested = True

    def _execute(self, data: bytes, pos: int, after: int) -> bytes | None:
        if (self._flow or self._contested_before) and (aside := self._set_aside()) is not None:
            return aside
        portal = data[pos + 5 : data.find(b"\0", pos + 5, after)]
        run = self._portals.get(portal[:_NAME_BYTES])
        self._pipelined = True
        if portal:
            portal = portal[:_NAME_BYTES]
            if not portal.isascii():
                return self._refused(_UNREADABLE_NAME)
            declared = self._gate.cursor(portal)
            if declared is not None:
                if run is not None and run.token is not None:
                    return self._refused(_TWO_MEANINGS)
                run = _run(declared)
        elif self._portals.unsettled():
            return _WAIT
        if run is None:
            run = _EXECUTE
        elif run.token is not None:
            self.holding += self._gate.starts(run.token)
        self._queue.append(run)
        return None

    def _sync(self, _data: bytes, _pos: int, _after: int) -> bytes | None:
        self._pipelined = False
        self._statements.here = self._portals.here = False
        if self._contested:
            self._contested = False
            self._contested_before = True
        if self._flow is _Flow.COPYING:
            self._queue.append(_SPARE_SYNC)
            return None
        self._queue.append(_SYNC)
        self._flow = _Flow.NORMAL
        return None

    def _flush(self, _data: bytes, _pos: int, _after: int) -> bytes | None:
        return b"" if self._flow is _Flow.SKIPPING else None

    def _describe(self, _data: bytes, _pos: int, _after: int) -> bytes | None:
        if (self._flow or self._contested_before) and (aside := self._set_aside()) is not None:
            return aside
        self._pipelined = True
        self._queue.append(_DESCRIBE)
        return None

    def _close(self, data: bytes, pos: int, after: int) -> bytes | None:
        if (self._flow or self._contested_before) and (aside := self._set_aside()) is not None:
            return aside
        self._pipelined = True
        name = data[pos + 5 : after - 1]
        self._queue.append(_Expectation(Expected.CLOSE, name=name))
        return None

    def _query(self, data: bytes, pos: int, after: int) -> bytes | None:
        if (self._flow or self._contested_before) and (aside := self._set_aside()) is not None:
            return aside
        if after - pos < 6 or data[after - 1]:
            raise ProtocolViolation("invalid Query message")
        sql = data[pos + 5 : after - 1]
        # the server reads a string up to its first NUL, and would object to what follows
        if b"\0" in sql:
            raise ProtocolViolation("invalid Query message")
        return self._decide(sql, _Question(data[pos:after], None, b"", self._pipelined))

    def _parse(self, data: bytes, pos: int, after: int) -> bytes | None:
        if (self._flow or self._contested_before) and (aside := self._set_aside()) is not None:
            return aside
        middle = data.find(b"\0", pos + 5, after)
        end = data.find(b"\0", middle + 1, after)
        if middle < 0 or end < 0:
            raise ProtocolViolation("invalid Parse message")
        name = data[pos + 5 : middle]
        question = _Question(data[pos:after], name, data[end + 1 : after], self._pipelined)
        if not name.isascii():
            return self._refused(_UNREADABLE_NAME)
        return self._decide(data[middle + 1 : end], question)

    def _decide(self, sql: bytes, question: _Question) -> bytes | None:
        verdict = self._gate.statement(sql)
        if isinstance(verdict, Ask):
            return self._ask(verdict, question)
        return self._settle(verdict, question)

    def _settle(self, verdict: Forward | Refuse, question: _Question) -> bytes | None:
        """Expect what a verdict leads to; return what replaces the client's message."""
        _, name, types, _ = question
        if name is not None:
            self._pipelined = True
        if isinstance(verdict, Refuse):
            kind = Expected.QUERY if name is None else Expected.PARSE
            self._queue.append(_Expectation(kind, refusal=verdict.response))
            return m.query(_UNSPEAKABLE) if name is None else m.parse(name, _UNSPEAKABLE)
        if name is None:
            if verdict.token is not None:
                self.holding += self._gate.starts(verdict.token)
            # a simple query ends the unnamed statement and portal
            self._queue.append(_Expectation(Expected.QUERY, verdict.token))
            return None if verdict.sql is None else m.query(verdict.sql)
        run = _run(verdict.token)
        key = name[:_NAME_BYTES]
        self._contest(key, self._statements.get(key), run)
        made = _Expectation(Expected.PARSE, run, name=key)
        self._statements.pending[key] = made
        if not key:
            self._statements.here = True
        self._queue.append(made)
        return None if verdict.sql is None else m.parse(name, verdict.sql, types)

    def _ask(self, ask: Ask, question: _Question) -> bytes:
        self._question = question
        self.blocked = True
        self._rows_asked = []
        self._question_failed = None
        self._question_run = False
        kinds = [*_CLOSES, Expected.PARSE, Expected.BIND, Expected.EXECUTE, *_CLOSES]
        # within a pipeline a Sync would end the client's implicit transaction, and make the server
        # run what it ignores after an error
        if question.pipelined:
            end = m.FLUSH
        else:
            end = m.SYNC
            kinds.append(Expected.SYNC)
        self._queue.extend(_Expectation(kind, asked=True) for kind in kinds)
        return b"".join(
            (
                # what a question that failed has left
                _CLOSE_QUESTION,
                m.parse(_QUESTION, ask.sql),
                m.bind(_QUESTION, _QUESTION, ask.values),
                m.execute(_QUESTION),
                _CLOSE_QUESTION,
                end,
            )
        )

    def _copy_data(self, _data: bytes, _pos: int, _after: int) -> bytes | None:
        return b"" if self._flow is _Flow.SKIPPING else None

    def _copy_end(self, _data: bytes, _pos: int, _after: int) -> bytes | None:
        if self._flow is _Flow.SKIPPING:
            return b""
        if self._flow is _Flow.COPYING:
            self._flow = _Flow.NORMAL
        else:
            self._queue.append(_COPY_END)
        return None

    def _function_call(self, _data: bytes, _pos: int, _after: int) -> bytes | None:
        if (self._flow or self._contested_before) and (aside := self._set_aside()) is not None:
            return aside
        response = m.error_response(
            "0A000",
            "the Function Call message is refused by this proxy",
            "call the function in a SELECT",
        )
        return self._settle(Refuse(response), _Question(b"", None, b"", self._pipelined))

    def _terminate(self, _data: bytes, _pos: int, _after: int) -> bytes | None:
        self.over = True
        return None

    # what the server sends

    def from_server(self, data: bytes) -> None:
        """Take bytes of the server."""
        if self._server:
            data = self._server + data
            self._server = b""
        end = len(data)
        pos = self._server_skip
        if pos > end:
            self._server_skip = pos - end
            self.to_client.append(data)
            return
        self._server_skip = 0
        start = 0
        rows = size = 0
        queue = self._queue
        unasked = self._question is None
        last = end - m.HEADER_BYTES
        while pos <= last:
            kind, length = head_at(data, pos)
            if length < 4:
                raise ProtocolViolation("the server sent a message of invalid length")
            if (kind == _DATA_ROW or kind == _COPY_DATA) and unasked:  # noqa: SIM109 - faster
                first = pos
                while True:
                    rows += 1
                    pos += length + 1
                    if pos > last:
                        break
                    kind, length = head_at(data, pos)
                    if (kind != _DATA_ROW and kind != _COPY_DATA) or length < 4:
                        break
                size += pos - first
                if pos > end:
                    self._server_skip = pos - end
                    pos = end
                continue
            after = pos + 1 + length
            if queue and after <= end:
                head = queue[0]
                if head.row[kind] == _LAST and not head.asked:
                    self._rows += rows
                    self._size += size
                    rows = size = 0
                    queue.popleft()
                    if kind == _READY:
                        self._ready(data, pos, after)
                    else:
                        self._complete(head, data, pos, after)
                    pos = after
                    continue
            if queue and queue[0].kind >= Expected.COPY_END and kind not in _UNASKED:
                self._strip(kind)
            asked = bool(queue) and queue[0].asked
            if after > end and (asked or kind in _OPENED):
                break
            self._rows += rows
            self._size += size
            rows = size = 0
            replacement = self._server_message(kind, data, pos, after, asked=asked)
            unasked = self._question is None
            if replacement is not None:
                if start < pos:
                    self.to_client.append(data[start:pos])
                if replacement:
                    self.to_client.append(replacement)
                start = after
            if after > end:
                self._server_skip = after - end
                after = end
            pos = after
        self._rows += rows
        self._size += size
        if start < pos:
            self.to_client.append(data[start:pos] if start or pos < end else data)
        if pos < end:
            self._server = data[pos:]

    def _server_message(
        self, kind: int, data: bytes, pos: int, after: int, *, asked: bool
    ) -> bytes | None:
        """Take a message that is no row of the client's; return what replaces it, if anything."""
        if kind == Backend.ERROR_RESPONSE:
            return self._error(data[pos:after], asked=asked)
        if kind in _UNASKED:
            if kind == Backend.PARAMETER_STATUS:
                text = data[pos + 5 : after].decode("utf-8", "surrogateescape")
                name, value, *_ = (*text.split("\0"), "", "")
                self._gate.parameter(name, value)
            elif kind == Backend.NOTICE_RESPONSE and not asked:
                # a function may tell rows to the client this way
                self._size += after - pos
            return None
        if not self._queue:
            raise ProtocolViolation("the server answers what it was not asked")
        head = self._queue[0]
        if asked and kind == Backend.DATA_ROW:
            try:
                self._rows_asked.append(m.text_row(data[pos + 5 : after]))
            except ValueError:
                raise ProtocolViolation("the server sent a malformed row") from None
            return b""
        if kind in (Backend.DATA_ROW, Backend.COPY_DATA):
            # rows of an earlier statement, while a question waits behind it
            self._rows += 1
            self._size += after - pos
            return None
        meaning = _TRANSITIONS[head.kind].get(kind, _Meaning.WRONG)
        if meaning is _Meaning.PART:
            pass
        elif meaning is _Meaning.LAST:
            self._queue.popleft()
            if kind == Backend.READY_FOR_QUERY:
                self._ready(data, pos, after)
            elif not asked:
                self._complete(head, data, pos, after)
            elif head.kind is Expected.EXECUTE:
                self._question_run = True
            if asked and not (self._queue and self._queue[0].asked):
                self._answered()
        elif meaning is _Meaning.STEP:
            self._count(head, data[pos + 5 : after - 1] or b"-", None)
            head.step += 1
            self._copied(1)
        elif meaning is _Meaning.SPARE:
            # the Sync after the COPY is answered in any case, those within it perhaps
            self._queue.remove(_SYNC if self._synced() else _SPARE_SYNC)
            self._ready(data, pos, after)
        elif meaning is _Meaning.COPY_IN:
            self._copy_in()
        else:
            raise ProtocolViolation("the server answers what it was not asked")
        return b"" if asked else None

    def _strip(self, kind: int) -> None:
        """Take away what has no answer, now that the server has gone on to something else."""
        queue = self._queue
        while queue and (
            queue[0].kind is Expected.COPY_END
            or (queue[0].kind is Expected.SPARE_SYNC and kind != _READY)
        ):
            queue.popleft()

    def _synced(self) -> bool | None:
        """Whether a Sync is what follows a COPY that failed, None when nothing follows."""
        for one in self._queue:
            if one.kind < Expected.COPY_END:
                return one.kind is Expected.SYNC
        return None

    def _copied(self, at: int) -> None:
        """A statement has succeeded: what came within its COPY was ignored."""
        queue = self._queue
        while len(queue) > at and queue[at].kind is Expected.SPARE_SYNC:
            del queue[at]
        if self._flow is _Flow.COPYING:
            self._flow = _Flow.NORMAL

    def _complete(self, head: _Expectation, data: bytes, pos: int, after: int) -> None:
        kind = head.kind
        if kind is _EXECUTED:
            suspended = data[pos] == Backend.PORTAL_SUSPENDED
            self._count(head, b"" if suspended else data[pos + 5 : after - 1] or b"-", None)
            if self._flow or (self._queue and self._queue[0].kind is Expected.SPARE_SYNC):
                self._copied(0)
        elif kind is Expected.BIND:
            if head is not _BIND:
                self._portals.confirm(head)
        elif kind is Expected.PARSE:
            if head.token is not None:
                self._statements.confirm(head)
        elif kind is Expected.CLOSE:
            names = self._statements if head.name[:1] == b"S" else self._portals
            names.confirmed.pop(head.name[1 : 1 + _NAME_BYTES], None)

    def _count(self, head: _Expectation, tag: bytes, sqlstate: str | None) -> None:
        rows, size = self._rows, self._size
        self._rows = self._size = 0
        if tag[:1] == b"D" and tag in _FORGET_ALL:
            self._statements.confirmed.clear()
        if head.token is not None:
            self._gate.ended(head.token, head.step, rows, size, tag, sqlstate)

    def _ready(self, data: bytes, pos: int, after: int) -> None:
        if after - pos != m.HEADER_BYTES + 1:
            raise ProtocolViolation("the server sent a message of invalid length")
        status = data[pos + 5]
        self.status = status
        self._rows = self._size = 0
        if self._flow is _Flow.UNSURE or self._flow is _Flow.COPYING:
            self._flow = _Flow.NORMAL
        quiet = self._quiet()
        if quiet:
            self._pipelined = False
        if quiet and status == ord("I"):
            # portals end with their transaction; with nothing asked since, none is of the next one
            self._portals.confirmed.clear()
        self._gate.idle(status, quiet)
        self._go_on()

    def _copy_in(self) -> None:
        """The server wants data, and ignores every Sync up to the end of it."""
        queue = self._queue
        head = queue.popleft()
        spare = 0
        self._flow = _Flow.COPYING
        while queue:
            following = queue.popleft()
            if following.kind is not Expected.SYNC:
                self._flow = _Flow.NORMAL
                if following.kind is not Expected.COPY_END:
                    if spare and head.kind is Expected.EXECUTE:
                        raise ProtocolViolation(_UNENDED_COPY)
                    queue.appendleft(following)
                break
            spare += 1
        queue.extendleft([_SPARE_SYNC] * spare)
        queue.appendleft(head)
        self._go_on()

    def _error(self, whole: bytes, *, asked: bool) -> bytes | None:
        fields = m.error_fields(whole[5:])
        sqlstate = fields.get("C", "")
        if fields.get("V", fields.get("S")) in ("FATAL", "PANIC") or not self._queue:
            return None
        if self._flow is _Flow.COPYING:
            self._flow = _Flow.NORMAL
        head = self._queue[0]
        replacement: bytes | None = None
        if head.refusal is not None and sqlstate == _SYNTAX_ERROR:
            replacement = head.refusal
        if head.kind in (Expected.QUERY, Expected.SYNC):
            if head.kind is Expected.QUERY:
                self._count(head, b"", sqlstate)
            elif asked:
                self._question_failed = whole
                return b""
            return replacement
        first = True
        while self._queue and self._queue[0].kind not in (Expected.SYNC, Expected.SPARE_SYNC):
            self._lose(self._queue.popleft(), sqlstate if first else "")
            first = False
        if not self._queue:
            self._flow = _Flow.SKIPPING
            if self._question is not None:
                # what waited for the answer belongs to what the server now ignores
                self._question = None
                self.blocked = False
                self._resume()
            return replacement
        if self._queue[0].kind is Expected.SPARE_SYNC:
            synced = self._synced()
            if synced is False:
                raise ProtocolViolation(_UNENDED_COPY)
            if synced is None:
                self._flow = _Flow.UNSURE
        if asked:
            self._question_failed = whole
            return b""
        return replacement

    def _lose(self, lost: _Expectation, sqlstate: str) -> None:
        """Something failed with an SQLSTATE, or was never run because something before it did."""
        if lost.kind is Expected.PARSE:
            self._statements.lose(lost)
        elif lost.kind is Expected.BIND:
            self._portals.lose(lost)
        elif lost.token is not None and lost.kind in (Expected.EXECUTE, Expected.QUERY):
            if not sqlstate:
                self._rows = self._size = 0
            self._count(lost, b"", sqlstate)

    def _answered(self) -> None:
        question = self._question
        assert question is not None
        self._question = None
        self.blocked = False
        verdict: Forward | Refuse
        if self._question_failed is not None:
            verdict = Refuse(self._question_failed)
        elif not self._question_run:
            raise ProtocolViolation("the server left out what it was asked")
        else:
            verdict = self._gate.answered(self._rows_asked)
        replacement = self._settle(verdict, question)
        self.to_server.append(question.message if replacement is None else replacement)
        self._resume()

    def _go_on(self) -> None:
        """Look again at what had to wait."""
        if self._waiting:
            self._waiting = self.blocked = False
            self._resume()

    def _resume(self) -> None:
        """Go on with what the client sent meanwhile."""
        if self._client:
            self._client_messages(self._kept())
