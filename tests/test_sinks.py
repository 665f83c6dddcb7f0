"""How alerts are written: CEF and syslog to the letter, and a configuration that is checked."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.errors import InvalidInput
from pgbalise.sinks import Syslog, cef, parse_sinks, syslog_message, wants

MAIL = {"from": "pgbalise@chu.example", "to": ["dpo@chu.example"]}
ALERT: dict[str, Any] = {
    "type": "alert",
    "at": "2026-03-04T12:05:00.250000Z",
    "alert": "ab" * 16,
    "kind": "rows_per_day",
    "severity": "warning",
    "recipient": "anna",
    "database": "dpi",
    "system": "7",
    "client": "192.0.2.7",
    "detail": {"day": "2026-03-04", "rows": 1101, "limit": 1000},
}


def test_an_alert_in_cef() -> None:
    assert cef(ALERT, "0.3.0") == (
        "CEF:0|pgbalise|pgbalise|0.3.0|rows_per_day|Too many rows in a day|6|"
        "rt=1772625900250 externalId=abababababababababababababababab cat=rows_per_day suser=anna"
        " src=192.0.2.7 cs1=dpi cs1Label=Database cn1=1101 cn1Label=Rows cn2=1000 cn2Label=Limit"
        " msg=anna took 1,101 rows on 2026-03-04; its limit is 1,000 rows a day."
    )
    decoy = {
        **ALERT,
        "kind": "decoy",
        "severity": "critical",
        "client": "2001:db8::1",
        "detail": {"decoys_of": ["bob", "eve"], "relations": ["h.patient"]},
    }
    text = cef(decoy, "0.3.0")
    assert "|decoy|A decoy was asked for|10|" in text
    assert "c6a2=2001:db8::1 c6a2Label=Source IPv6 Address" in text
    assert "cs2=h.patient cs2Label=Relations cs3=bob, eve cs3Label=Decoys of" in text
    assert "src=" not in cef({**ALERT, "client": "local"}, "0.3.0")


def test_what_cef_gives_a_meaning_is_escaped() -> None:
    odd = {**ALERT, "kind": "a|b\\c=d", "recipient": "a|b\\c=d\ne\x1b[31m", "database": "\r\n"}
    text = cef(odd, "1|2")
    assert text.startswith("CEF:0|pgbalise|pgbalise|1\\|2|a\\|b\\\\c=d|a\\|b\\\\c=d|6|")
    assert " suser=a|b\\\\c\\=d\\ne?[31m " in text
    assert " cs1=\\n cs1Label" in text


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_whatever_a_role_is_called_cef_stays_one_line_of_the_same_fields(name: str) -> None:
    text = cef({**ALERT, "recipient": name, "client": "local"}, "0")
    assert text.isprintable()
    assert len(re.findall(r"(?<!\\)=", text)) == 11 - (not name)
    fields = re.split(r"(?<!\\)(?:\\\\)*\|", text, maxsplit=7)
    assert fields[6] == "6"


@pytest.mark.parametrize(
    ("transport", "rfc", "begins", "ends"),
    [
        (
            "udp",
            5424,
            b"<84>1 2026-03-04T12:05:00.250000Z gate pgbalise 42 rows_per_day - CEF",
            b".",
        ),
        ("udp", 3164, b"<84>Mar  4 12:05:00 gate pgbalise[42]: CEF:0|", b"day."),
        ("unix", 3164, b"<84>Mar  4 12:05:00 pgbalise[42]: CEF:0|", b"day."),
        ("tcp", 3164, b"<84>Mar  4 12:05:00 gate pgbalise[42]: CEF:0|", b"day.\n"),
    ],
)
def test_syslogs_forms(transport: str, rfc: int, begins: bytes, ends: bytes) -> None:
    sink = Syslog("s", transport, "h", rfc=rfc)
    message = syslog_message(ALERT, sink, host="gate", process=42, version="0.3.0")
    assert message.startswith(begins)
    assert message.endswith(ends)


def test_over_tcp_a_message_of_rfc_5424_is_counted() -> None:
    alert = {**ALERT, "recipient": "hélène"}
    plain, counted = (
        syslog_message(alert, Syslog("s", way, "h"), host="g", process=1, version="0")
        for way in ("udp", "tls")
    )
    assert counted == b"%d %s" % (len(plain), plain)


def test_a_configuration_names_its_sinks() -> None:
    sinks = parse_sinks(
        {
            "webhook": [
                {"url": "https://siem.example/hook", "minimum": "critical"},
                {"url_file": "/etc/pgbalise/chat.url", "timeout_seconds": 2.5},
                {"url": "http://127.0.0.1:8080/", "secret_file": "/etc/pgbalise/secret"},
                {"url": "https://siem.example/other"},
            ],
            "syslog": [
                {"address": "udp://siem.example"},
                {"address": "tls://[2001:db8::1]", "facility": "local3", "ca": "/etc/ca.pem"},
                {"address": "unix:/dev/log"},
                {"address": "tcp://siem.example:1514", "format": "rfc3164"},
            ],
            "email": [
                {"address": "starttls://post.example", **MAIL},
                {"address": "tls://[::1]", **MAIL, "user": "u", "password_file": "/etc/password"},
                {"address": "smtp://localhost:2525", **MAIL, "language": "fr"},
            ],
            "push": [{"url": "https://push.example/topic"}, {"url_file": "/etc/topic.url"}],
        }
    )
    assert [(m.transport, m.host, m.port, m.language, m.user) for m in sinks.emails] == [
        ("starttls", "post.example", 587, "en", ""),
        ("tls", "::1", 465, "en", "u"),
        ("smtp", "localhost", 2525, "fr", ""),
    ]
    assert [push.name for push in sinks.pushes] == ["push push.example", "push topic.url"]
    assert [hook.name for hook in sinks.webhooks] == [
        "webhook siem.example",
        "webhook chat.url",
        "webhook 127.0.0.1",
        "webhook siem.example (2)",
    ]
    assert [(s.transport, s.host, s.port, s.rfc, s.facility) for s in sinks.syslogs] == [
        ("udp", "siem.example", 514, 5424, 10),
        ("tls", "2001:db8::1", 6514, 5424, 19),
        ("unix", "/dev/log", 0, 3164, 10),
        ("tcp", "siem.example", 1514, 3164, 10),
    ]
    assert not parse_sinks({}).webhooks
    assert [wants("warning", s) for s in ("info", "warning", "critical")] == [False, True, True]


@pytest.mark.parametrize(
    ("kind", "body", "complaint"),
    [
        ("webhook", {}, "give url, or url_file"),
        ("webhook", {"url": "https://a/", "url_file": "b"}, "give url, or url_file"),
        ("webhook", {"url": "http://siem.example/"}, "must begin with https"),
        ("webhook", {"url": "ftp://siem.example/"}, "must begin with https"),
        ("webhook", {"url": "file:///etc/passwd"}, "this is no address"),
        ("webhook", {"url": "https://u:secret@h/"}, "a password does not belong here"),
        ("webhook", {"url": "https://h:99999/"}, "this is no address"),
        ("webhook", {"url": "https://h/\r\nX: y"}, "this is no address"),
        ("webhook", {"url": "https://h/", "secret": "x"}, "there is no such key"),
        ("webhook", {"url": "https://h/", "minimum": "low"}, "must be one of info"),
        ("webhook", {"url": "https://h/", "timeout_seconds": 0}, "must be a number of seconds"),
        ("syslog", {}, "must be a text"),
        ("syslog", {"address": "siem.example"}, "cannot be read"),
        ("syslog", {"address": "udp://h:0"}, "there is no such port"),
        ("syslog", {"address": "udp://h", "format": "cef"}, "must be"),
        ("syslog", {"address": "udp://h", "facility": "mail"}, "must be one of user"),
        ("email", {}, "must be a text"),
        ("email", {"address": "smtp://post.example", **MAIL}, "only a server on this machine"),
        ("email", {"address": "https://post.example", **MAIL}, "cannot be read"),
        ("email", {"address": "tls://u:secret@h", **MAIL}, "cannot be read"),
        ("email", {"address": "tls://h:0", **MAIL}, "cannot be read"),
        ("email", {"address": "tls://h", **MAIL, "to": []}, "must be a mail address"),
        ("email", {"address": "tls://h", **MAIL, "to": ["a@b\r\nBcc: c@d"]}, "must be a mail"),
        ("email", {"address": "tls://h", **MAIL, "to": "a@b"}, "must be a mail address"),
        ("email", {"address": "tls://h", **MAIL, "user": "x"}, "go together"),
        ("email", {"address": "tls://h", **MAIL, "language": "de"}, "must be"),
        ("email", {"address": "tls://h", **MAIL, "password": "x"}, "there is no such key"),
        ("push", {}, "give url, or url_file"),
        ("push", {"url": "http://push.example/topic"}, "must begin with https"),
    ],
)
def test_a_sink_that_makes_no_sense_is_refused(
    kind: str, body: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint) as caught:
        parse_sinks({kind: [body]})
    assert f"alerts.{kind}[1]" in str(caught.value)
    assert "secret@" not in str(caught.value)


def test_sinks_are_lists_of_tables() -> None:
    for table in ({"webhook": {}}, {"syslog": ["udp://h"]}, {"email": {}}, {"mail": []}):
        with pytest.raises(InvalidInput, match="alerts"):
            parse_sinks(table)
