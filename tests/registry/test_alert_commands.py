"""``pgbalise alert`` as its users meet it."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from pgbalise.errors import InvalidInput
from pgbalise.registry.alert_commands import alert_app
from pgbalise.registry.alerts import record_alert
from pgbalise.watch import Alert, decoy_alert

AT = datetime(2026, 3, 4, 12, 5, tzinfo=UTC)


def run(*words: str, status: int = 0) -> str:
    done = CliRunner().invoke(alert_app, words, env={"COLUMNS": "80", "TERM": "dumb"})
    if isinstance(done.exception, Exception):
        raise done.exception
    assert done.exit_code == status, done.output
    return done.output


def decoy(hour: int, recipient: str) -> Alert:
    return decoy_alert(
        AT.replace(hour=hour),
        recipient=recipient,
        database="dpi",
        system="7",
        client="192.0.2.7",
        decoys=[("registry_rennes", 0)],
    )


def test_alerts_are_listed_as_sentences(registry: sa.Connection, registry_dsn: str) -> None:
    where = ("list", "--registry", registry_dsn)
    assert run(*where) == "no alerts\n"
    record_alert(registry, decoy(12, "vendor_\x1b[31mbrest"), AT, told=True)
    record_alert(registry, decoy(14, "vendor_brest"), AT, told=False)
    record_alert(registry, decoy(14, "vendor_brest"), AT, told=False)
    shown = run(*where)
    assert "\x1b" not in shown
    lines = [line.rstrip() for line in shown.splitlines()]
    assert lines[0] == "raised (UTC)      severity  what"
    assert lines[3:] == [
        "2026-03-04 14:05  critical  vendor_brest asked for a patient who does not exist,",
        "                            a decoy given to registry_rennes. Not yet told.",
    ]
    assert max(map(len, lines)) <= 80
    [told] = map(json.loads, run(*where, "--json", "--undelivered").splitlines())
    assert told == {
        **{name: value for name, value in decoy(14, "vendor_brest").items() if name != "type"},
        "text": "vendor_brest asked for a patient who does not exist,"
        " a decoy given to registry_rennes.",
        "delivered_at": None,
    }
    for words, count in (
        (["--recipient", "vendor_brest"], 1),
        (["--since", "2026-03-04T14:00"], 1),
        (["--until", "2026-03-04T13:30+01:00"], 1),
        (["--limit", "1"], 1),
        (["--until", "2026-03-04"], 0),
    ):
        assert len(run(*where, "--json", *words).splitlines()) == count, words
    assert json.loads(run(*where, "--json", "--limit", "1"))["recipient"] == "vendor_brest"
    with pytest.raises(InvalidInput, match="--since"):
        run(*where, "--since", "yesterday")


def test_a_test_alert_shows_which_sinks_take_it(tmp_path: Path) -> None:
    config = tmp_path / "proxy.toml"
    config.write_text('listen = ["127.0.0.1:6432"]\n')
    assert "names no sink" in run("test", "--config", str(config))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(5)
        good = f'[[alerts.syslog]]\naddress = "udp://127.0.0.1:{udp.getsockname()[1]}"\n'
        config.write_text(good)
        assert run("test", "--config", str(config)) == "syslog 127.0.0.1: taken\n"
        assert b"|test|Test|3|" in udp.recv(4096)
        config.write_text(good + '[[alerts.syslog]]\naddress = "unix:/nowhere/log"\n')
        told = json.loads(run("test", "--config", str(config), "--json", status=1))
    assert told["sinks"] == {
        "syslog 127.0.0.1": None,
        "syslog /nowhere/log": "syslog /nowhere/log: No such file or directory",
    }
    for content in ("[", "alerts = 3", "[alerts]\nmail = 1"):
        config.write_text(content)
        with pytest.raises(InvalidInput):
            run("test", "--config", str(config))
    with pytest.raises(InvalidInput, match="cannot be read"):
        run("test", "--config", str(tmp_path / "none.toml"))
