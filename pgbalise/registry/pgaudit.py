"""Direct connections, as pgaudit wrote them into PostgreSQL's log.

Reads csvlog, jsonlog (PostgreSQL 15) and the plain log, which carries text that clients choose and
so can be told apart only when those fields have a fixed width::

    log_line_prefix = '%m [%p] %c %h user=%-63u db=%-63d app=%-63a '

A message is pgaudit's when it begins with ``AUDIT:`` and carries neither context nor statement:
anybody can write such a message with RAISE, but not without the server adding both.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import IO, Any, cast

import sqlalchemy as sa

from pgbalise.errors import InvalidInput
from pgbalise.registry import tables
from pgbalise.registry.ledger import instant
from pgbalise.registry.store import Draft, append, batches, problems

PREFIX = "%m [%p] %c %h user=%-63u db=%-63d app=%-63a "
"""The ``log_line_prefix`` that a plain log must have been written with."""

_MARK = "AUDIT: "
_STAMP = rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [^\s,]+"
_CSV = re.compile(_STAMP + rb',(?:"|,)')
_PLAIN = re.compile(
    rb"(?P<at>" + _STAMP + rb") \[(?P<pid>\d+)\] (?P<session>[0-9a-f]+\.[0-9a-f]+)"
    rb" (?P<client>\S*) user=(?P<user>[^\n]{63}) db=(?P<db>[^\n]{63}) app=(?P<app>[^\n]{63}) "
    rb"(?P<label>[A-Z][A-Z0-9]*):  (?P<text>.*)",
    re.DOTALL,
)
_ADDED = {b"CONTEXT", b"STATEMENT", b"DETAIL", b"HINT", b"QUERY", b"LOCATION"}
_LARGEST = 64 * 2**20
"""Bytes of one record; a longer one means a quote that never closes."""


@dataclass(frozen=True)
class Line:
    """One message that looks like pgaudit's, with who caused it. ``number`` is its line's."""

    number: int
    at: str
    user: str
    database: str
    client: str
    application: str
    session: str
    message: str
    imitated: bool


@dataclass(frozen=True)
class Event:
    """One relation that one statement touched."""

    line: Line
    statement_id: int
    substatement_id: int
    audit_class: str
    command: str
    relation: tuple[str, str] | None
    statement: str | None
    rows: int | None


@dataclass
class Summary:
    """What came of a log's messages of pgaudit; nothing is left out without being counted.

    ``recorded`` are new in the ledger, ``known`` were there. Not recorded: ``other`` (another
    class, schema or database), ``nameless`` (no relation: log_relation is off, or none was
    read), ``imitated`` (written by somebody else in pgaudit's form). ``incomplete`` says that the
    file ends within a record.
    """

    messages: int = 0
    recorded: int = 0
    known: int = 0
    other: int = 0
    nameless: int = 0
    imitated: int = 0
    incomplete: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return dict(vars(self))


def audit_lines(file: IO[bytes], summary: Summary) -> Iterator[Line]:
    """Yield a log's messages of pgaudit, whichever of the three forms it has; streams.

    Raise InvalidInput, naming the line, for a record that cannot be read.
    """
    lines = _numbered(file, summary)
    first = next(lines, None)
    if first is None:
        return
    whole = _chain(first, lines)
    if first[1].startswith(b"{"):
        yield from _json_lines(whole)
    elif _CSV.match(first[1]):
        yield from _csv_lines(whole, summary)
    else:
        yield from _plain_lines(whole)


def _numbered(file: IO[bytes], summary: Summary) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(_LARGEST):
        number += 1
        if line.endswith(b"\n"):
            yield number, line
        elif len(line) == _LARGEST:
            raise InvalidInput(f"line {number} is longer than any log's")
        else:
            # the server is still writing it
            summary.incomplete = True


def _chain(first: tuple[int, bytes], rest: Iterator[tuple[int, bytes]]) -> Any:
    yield first
    yield from rest


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _json_lines(lines: Iterable[tuple[int, bytes]]) -> Iterator[Line]:
    for number, raw in lines:
        if b'"AUDIT: ' not in raw:
            continue
        try:
            found = json.loads(_text(raw))
            if not str(found.get("message", "")).startswith(_MARK):
                continue
            host, port = found.get("remote_host", ""), found.get("remote_port")
            yield Line(
                number,
                found["timestamp"],
                found["user"],
                found["dbname"],
                host if port is None else f"{host}:{port}",
                found.get("application_name", ""),
                found["session_id"],
                found["message"],
                "context" in found or "statement" in found,
            )
        except (ValueError, KeyError, AttributeError, RecursionError):
            raise InvalidInput(f"line {number} is no record of a jsonlog") from None


def _csv_lines(lines: Iterable[tuple[int, bytes]], summary: Summary) -> Iterator[Line]:
    pending: list[bytes] = []
    start = size = 0
    quotes = 0
    for number, raw in lines:
        if not pending:
            start = number
            size = quotes = 0
        pending.append(raw)
        size += len(raw)
        quotes += raw.count(b'"')
        if size > _LARGEST:
            raise InvalidInput(f"line {start}: a quoted field never ends")
        if quotes % 2:
            continue
        record = b"".join(pending)
        pending = []
        if not _CSV.match(record):
            raise InvalidInput(f"line {start} does not begin a record of a csvlog")
        if b"AUDIT: " not in record:
            continue
        fields = _csv_record(_text(record))
        if len(fields) < 23:
            raise InvalidInput(f"line {start} is no record of a csvlog")
        if fields[13].startswith(_MARK):
            at, user, database, _, client, session = fields[:6]
            imitated = bool(fields[18] or fields[19])
            application, message = fields[22], fields[13]
            yield Line(start, at, user, database, client, application, session, message, imitated)
    summary.incomplete |= bool(pending)


def _csv_record(text: str) -> list[str]:
    before = csv.field_size_limit(_LARGEST)
    try:
        [fields] = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (csv.Error, ValueError):
        return []
    finally:
        csv.field_size_limit(before)
    return fields


def _plain_lines(lines: Iterable[tuple[int, bytes]]) -> Iterator[Line]:
    records = _plain_records(lines)
    record = next(records, None)
    while record is not None:
        number, raw = record
        record = next(records, None)
        if b"AUDIT: " not in raw:
            continue
        found = _PLAIN.fullmatch(raw)
        if found is None:
            raise InvalidInput(
                f"line {number} speaks of AUDIT, but does not begin as it must",
                hint=f"log_line_prefix = '{PREFIX}' and lc_messages = 'C', or use csvlog",
            )
        if not found["text"].startswith(b"AUDIT: "):
            continue
        after = _PLAIN.fullmatch(record[1]) if record else None
        imitated = bool(after and after["session"] == found["session"] and after["label"] in _ADDED)
        yield Line(
            number,
            _text(found["at"]),
            _text(found["user"]).rstrip(" "),
            _text(found["db"]).rstrip(" "),
            _text(found["client"]),
            _text(found["app"]).rstrip(" "),
            _text(found["session"]),
            _text(found["text"]),
            imitated,
        )


def _plain_records(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Join the lines of each message: those after the first begin with a tab."""
    start, size = 0, 0
    parts: list[bytes] = []
    for number, raw in lines:
        body = raw.rstrip(b"\n")
        if body.startswith(b"\t") and parts:
            parts.append(body[1:])
            size += len(raw)
            if size > _LARGEST:
                raise InvalidInput(f"line {start}: a message never ends")
            continue
        if parts:
            yield start, b"\n".join(parts)
        start, parts, size = number, [body], len(raw)
    if parts:
        yield start, b"\n".join(parts)


def parse(line: Line) -> Event:
    """Read pgaudit's own comma-separated fields; raise InvalidInput when they are none."""
    fields = _csv_record(line.message.removeprefix(_MARK))
    try:
        kind, statement_id, substatement_id, audit_class, command, _, name, statement = fields[:8]
        if kind not in ("SESSION", "OBJECT") or len(fields) not in (9, 10):
            raise ValueError
        return Event(
            line,
            int(statement_id),
            int(substatement_id),
            audit_class,
            command,
            _relation(name) if name else None,
            None if statement in ("<not logged>", "<previously logged>") else statement,
            int(fields[9]) if len(fields) == 10 else None,
        )
    except ValueError:
        raise InvalidInput(f"line {line.number}: this is no message of pgaudit") from None


_NAME = re.compile(r'("(?:[^"]|"")+"|[^".]+)\.("(?:[^"]|"")+"|[^".]+)')


def _relation(name: str) -> tuple[str, str]:
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError
    schema, relation = (
        part[1:-1].replace('""', '"') if part.startswith('"') else part for part in found.groups()
    )
    return schema, relation


# What PostgreSQL's lexer sees, as far as constants and comments need it. sqlglot's tokenizer was
# tried: it does not look into DECLARE and EXPLAIN, and keeps the end of 1_840_127 as a name.
_TOKEN = re.compile(
    r"""
    (?P<space> (?: \s | --[^\r\n]* )+ )
  | (?P<comment> /\* )
  | (?P<constant> \$(?P<tag>(?:[a-zA-Z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?)\$ .*? \$(?P=tag)\$
    | [eE]' (?: [^'\\] | \\. | '' )* '
    | (?: [bBnNxX] | [uU]& )? ' (?: [^'] | '' )* '
    | (?: \d | \.\d ) [\w.]* (?: (?<=[eE]) [+-] \d+ )? )
  | (?P<kept> \$\d+
    | (?: [uU]& )? " (?: [^"] | "" )* "
    | [a-zA-Z_\x80-\U0010ffff] [\w$\x80-\U0010ffff]*
    | [-+*/<>=~!@\#%^&|`?:;,.()\[\]{}] )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_SIGN = re.compile(r"/\*|\*/")


def normalised(statement: str) -> str | None:
    """Return a statement without comments, each constant as ``?``, spaces as one space.

    None when it cannot be read for sure, so that what is not understood is not stored: a quote
    that does not close, or a backslash before one, whose meaning is a setting of the session.
    """
    parts: list[str] = []
    at = 0
    while at < len(statement):
        found = _TOKEN.match(statement, at)
        if found is None:
            return None
        at = found.end()
        text = found[0]
        if found["comment"]:
            depth = 1
            while depth:
                sign = _COMMENT_SIGN.search(statement, at)
                if sign is None:
                    return None
                depth += 1 if sign[0] == "/*" else -1
                at = sign.end()
        if found["kept"]:
            parts.append(text)
        elif found["constant"]:
            if "\\'" in text and text[0] not in "eE$":
                return None
            parts.append("?")
        elif parts and parts[-1] != " ":
            parts.append(" ")
    return "".join(parts).strip()


def moment(text: str, zone: tzinfo | None) -> datetime:
    """Return the time of a log's line, in UTC.

    ``zone`` is the server's ``log_timezone``, needed when the log names it by letters other than
    UTC or GMT, which do not say which zone is meant. Raise InvalidInput when it is missing or
    never uses those letters at that time.
    """
    stamp, _, letters = text.rpartition(" ")
    offset = re.fullmatch(r"([+-])(\d\d):?(\d\d)?", letters)
    try:
        local = datetime.fromisoformat(stamp)
        if local.tzinfo is not None:
            raise ValueError
    except ValueError:
        raise InvalidInput("a line of the log has no readable time") from None
    if letters in ("UTC", "GMT"):
        return local.replace(tzinfo=UTC)
    if offset:
        ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
        return local.replace(tzinfo=timezone(ahead if offset[1] == "+" else -ahead)).astimezone(UTC)
    if zone is None:
        raise InvalidInput(
            f"the log's time zone {letters} could be several",
            hint="give --log-timezone as the server has it, for example Europe/Paris",
        )
    for fold in (0, 1):
        known = local.replace(tzinfo=zone, fold=fold)
        if known.tzname() == letters:
            return known.astimezone(UTC)
    raise InvalidInput(
        f"the log's time zone {letters} is not that of {zone}",
        hint="give --log-timezone as the server has it",
    )


def draft(event: Event, system: str, zone: tzinfo | None, *, keep_statements: bool) -> Draft:
    """Return what the ledger records of an event that touched a relation."""
    assert event.relation is not None
    line = event.line
    relation = ".".join(event.relation)
    number = f"{event.statement_id}.{event.substatement_id}"
    shape = None if event.statement is None else normalised(event.statement)
    body: dict[str, Any] = {
        "origin": f"pgaudit/{system}/{line.session}/{number}/{relation}",
        "database": line.database,
        "system": system,
        "recipient": line.user,
        "client": line.client,
        "application": line.application,
        "session": line.session,
        "statement_number": number,
        "command": event.command,
        "relations": [relation],
        "rows": event.rows,
        "started_at": instant(moment(line.at, zone)),
        "outcome": "unknown",
        "normalised": shape,
        "normalised_sha256": shape and hashlib.sha256(shape.encode()).hexdigest(),
    }
    if keep_statements and event.statement is not None:
        body["statement"] = event.statement
        body["statement_sha256"] = hashlib.sha256(event.statement.encode()).hexdigest()
    return Draft("extract", body)


def import_log(
    registry: sa.Connection,
    path: Path,
    schemas: Iterable[str],
    at: datetime,
    *,
    system: str | None = None,
    zone: tzinfo | None = None,
    keep_statements: bool = False,
) -> Summary:
    """Record what a log (also ``.gz``) says was read from the views in ``schemas``.

    The log must be of a server whose databases are recorded; ``system`` is its identifier, needed
    when several of them are. Nothing is added twice, so a file may be imported again, in
    another form, or overlapping. Raise InvalidInput at the first record that cannot be read;
    what came before it stays recorded.
    """
    wanted = frozenset(schemas)
    summary = Summary()
    with problems():
        with registry.begin():
            known = _databases(registry, system)
        drafts = _drafts(path, summary, wanted, known, zone, keep_statements)
        # short transactions: whoever else adds to the ledger waits for each
        for batch in batches(drafts):
            with registry.begin():
                summary.recorded += len(append(registry, batch, at))
    events = summary.other + summary.nameless + summary.imitated + summary.recorded
    summary.known = summary.messages - events
    return summary


def _databases(registry: sa.Connection, system: str | None) -> dict[str, str]:
    table = tables.database
    rows = registry.execute(sa.select(table.c.name, table.c.system_identifier)).all()
    if system is not None:
        rows = [row for row in rows if row.system_identifier == system]
    if not rows:
        raise InvalidInput(
            "no database of this server is in the registry", hint="run pgbalise registry record"
        )
    systems = Counter(row.system_identifier for row in rows)
    if len(systems) > 1:
        raise InvalidInput(
            "the registry knows several servers", hint=f"give --system: {', '.join(systems)}"
        )
    return {row.name: row.system_identifier for row in rows}


def _drafts(
    path: Path,
    summary: Summary,
    wanted: frozenset[str],
    known: dict[str, str],
    zone: tzinfo | None,
    keep_statements: bool,
) -> Iterator[Draft]:
    try:
        with _open(path) as file:
            for line in audit_lines(file, summary):
                summary.messages += 1
                if line.imitated:
                    summary.imitated += 1
                    continue
                event = parse(line)
                system = known.get(line.database)
                if event.audit_class != "READ" or system is None:
                    summary.other += 1
                elif event.relation is None:
                    summary.nameless += 1
                elif event.relation[0] not in wanted:
                    summary.other += 1
                else:
                    yield draft(event, system, zone, keep_statements=keep_statements)
    except (OSError, EOFError) as problem:
        reason = getattr(problem, "strerror", None) or "it is damaged"
        raise InvalidInput(f"{path}: the log cannot be read: {reason}") from None
    except InvalidInput as problem:
        raise InvalidInput(f"{path}: {problem.message}", hint=problem.hint) from None


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")
