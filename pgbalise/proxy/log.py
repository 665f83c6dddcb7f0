"""The proxy's log: one event per line on standard error, as JSON or for people.

An event has a name and a few known fields. What is not in FIELDS is left out, so that no SQL text,
bound value or password can come in by a new caller's oversight; of an exception only those that
pgbalise raises on purpose give their message, of any other the type and the place are enough.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pgbalise.errors import PgbaliseError
from pgbalise.proxy.config import LogFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgbalise.proxy.config import Log

FIELDS: Final = frozenset(
    {
        "address", "alert", "application_name", "bytes", "client", "count", "database", "error",
        "exit_status", "extract", "file", "hint", "keys", "kind", "logger", "outcome", "path",
        "pid", "place", "process", "reason", "relation", "role", "rows", "seconds", "session",
        "signal", "sqlstate", "statement_hash", "tls", "upstream", "version", "worker", "workers",
    }
)  # fmt: skip
"""The fields that an event may have."""

ROOT: Final = "pgbalise"
_LONGEST: Final = 300

Value = str | int | float | bool | None


class EventLog:
    """Where events go; ``bound`` fields are part of each, such as the worker and the session."""

    def __init__(self, **bound: Value) -> None:
        self._logger = logging.getLogger(ROOT)
        self._bound = bound

    def bind(self, **fields: Value) -> EventLog:
        """Return a log whose events have these fields too."""
        return EventLog(**{**self._bound, **fields})

    def debug(self, event: str, **fields: Value) -> None:
        """Log what only someone who looks for a mistake wants to know."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Value) -> None:
        """Log what is as it should be."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Value) -> None:
        """Log what someone should look at."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Value) -> None:
        """Log what does not work."""
        self._write(logging.ERROR, event, fields)

    def failure(self, event: str, problem: BaseException, **fields: Value) -> None:
        """Log what does not work because of an exception."""
        self._write(logging.ERROR, event, {**described(problem), **fields})

    def _write(self, level: int, event: str, fields: Mapping[str, Value]) -> None:
        if self._logger.isEnabledFor(level):
            known = {k: v for k, v in {**self._bound, **fields}.items() if k in FIELDS}
            self._logger.log(level, "%s", event, extra={"fields": known})


def described(problem: BaseException) -> dict[str, Value]:
    """Return the fields ``error``, ``place`` and ``hint`` of an exception, nothing secret in it."""
    found: dict[str, Value] = {"error": type(problem).__name__}
    if isinstance(problem, PgbaliseError):
        found["error"] = problem.message
        found["hint"] = problem.hint
    elif isinstance(problem, OSError) and problem.strerror:
        found["error"] = f"{type(problem).__name__}: {problem.strerror}"
    trace = problem.__traceback__
    while trace is not None:
        found["place"] = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def configure(settings: Log) -> None:
    """Send events, and what libraries log, to standard error in the format asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format is LogFormat.JSON else TextFormatter())
    # Otherwise a line that cannot be written is shown, with its arguments, on standard error.
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(settings.level.value.upper())


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, event, then the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = {"time": _time(record), "level": record.levelname.lower(), **_content(record)}
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


class TextFormatter(logging.Formatter):
    """A line for people: time, level, event, then ``field=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        content = _content(record)
        event = content.pop("event")
        # JSON's quotes also keep line ends and escape sequences out of a terminal.
        fields = " ".join(f"{name}={_shown(value)}" for name, value in content.items())
        return f"{_time(record)} {record.levelname:<7} {event} {fields}".rstrip()


def _content(record: logging.LogRecord) -> dict[str, Value]:
    fields: dict[str, Value] | None = getattr(record, "fields", None)
    if fields is not None:
        kept = {name: _clipped(value) for name, value in fields.items() if value is not None}
        return {"event": record.getMessage(), **kept}
    # A library's words may quote data after the first bracket or quotation mark.
    said = re.match(r"[\w .,-]*", str(record.msg))
    content: dict[str, Value] = {"event": "library", "logger": record.name}
    content["reason"] = _clipped(said[0].strip() if said else "")
    if record.exc_info and record.exc_info[1] is not None:
        content |= described(record.exc_info[1])
    return {name: value for name, value in content.items() if value is not None}


def _clipped(value: Value) -> Value:
    if isinstance(value, str) and len(value) > _LONGEST:
        return value[:_LONGEST] + "…"
    return value


def _shown(value: Value) -> str:
    if isinstance(value, str) and re.fullmatch(r"[\w.:/@%+-]+", value, re.ASCII):
        return value
    return json.dumps(value, ensure_ascii=True)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
