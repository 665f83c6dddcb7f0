"""Log lines: what is in them, and what never is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from pgbalise.errors import InvalidInput
from pgbalise.proxy.config import Log, LogFormat, LogLevel
from pgbalise.proxy.log import ROOT, EventLog, configure

Lines = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    logging.raiseExceptions = raising
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger(ROOT).setLevel(logging.NOTSET)


def json_log() -> EventLog:
    configure(Log(LogLevel.INFO, LogFormat.JSON))
    return EventLog(process="worker 1")


def test_event_is_one_json_object(capsys: Lines) -> None:
    json_log().bind(session="ab" * 16, role="reader").info("session.started", client=None, rows=3)
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "event": "session.started", "process": "worker 1",
                    "session": "ab" * 16, "role": "reader", "rows": 3}  # fmt: skip


def test_fields_that_could_hold_data_are_left_out(capsys: Lines) -> None:
    json_log().warning(
        "statement.refused", statement="SELECT 'Dupont'", password="x", sqlstate="42501"
    )
    line = capsys.readouterr().err
    assert "Dupont" not in line
    assert set(json.loads(line)) == {"time", "level", "event", "process", "sqlstate"}


def test_only_own_errors_give_their_message(capsys: Lines) -> None:
    log = json_log()
    for problem in (ValueError("Dupont"), OSError(28, "No space left on device", "/Dupont")):
        try:
            raise problem
        except (ValueError, OSError) as caught:
            log.failure("process.failed", caught)
    log.failure("config.refused", InvalidInput("listen: wrong", hint="write it"))
    first, second, third = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["error"] == "ValueError"
    assert first["place"].startswith("test_log.py:")
    assert second["error"] == "OSError: No space left on device"
    assert (third["error"], third["hint"]) == ("listen: wrong", "write it")


def test_libraries_say_no_more_than_where_to_look(capsys: Lines) -> None:
    json_log()
    logger = logging.getLogger("asyncio")
    try:
        raise ValueError("Dupont")
    except ValueError:
        logger.exception("Exception in callback write(b'Dupont') of %s", "Dupont")
    line = capsys.readouterr().err
    assert "Dupont" not in line
    assert json.loads(line)["reason"] == "Exception in callback write"
    assert json.loads(line)["error"] == "ValueError"


def test_level(capsys: Lines) -> None:
    log = json_log()
    log.debug("process.started")
    assert capsys.readouterr().err == ""
    configure(Log(LogLevel.DEBUG, LogFormat.TEXT))
    log.debug("process.started", pid=7)
    assert capsys.readouterr().err.endswith('DEBUG   process.started process="worker 1" pid=7\n')


@pytest.mark.parametrize("form", list(LogFormat))
def test_a_client_cannot_forge_lines(form: LogFormat, capsys: Lines) -> None:
    configure(Log(LogLevel.INFO, form))
    EventLog().info("session.started", application_name="x\n\x1b[31m" + "y" * 5000)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert len(line) < 500
