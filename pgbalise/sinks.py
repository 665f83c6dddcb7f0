"""Where alerts go, and how they are written there: the table ``[alerts]``, CEF, syslog."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pgbalise.alert_text import sentence, title
from pgbalise.errors import InvalidInput
from pgbalise.watch import SEVERITIES

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_FACILITIES: Final = {
    "user": 1,
    "daemon": 3,
    "auth": 4,
    "authpriv": 10,
    **{f"local{n}": 16 + n for n in range(8)},
}
_PORTS: Final = {"udp": 514, "tcp": 514, "tls": 6514}
_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"


@dataclass(frozen=True)
class Webhook:
    """An HTTP server that is told by POST.

    ``url`` is empty when ``url_file`` holds it, as when it contains a token. ``secret_file`` holds
    what the body is signed with (HMAC-SHA256); ``ca`` certificates that are trusted instead of
    the system's.
    """

    name: str
    url: str = ""
    url_file: Path | None = None
    secret_file: Path | None = None
    ca: Path | None = None
    timeout: float = 10.0
    """Seconds."""
    minimum: str = "info"
    """The least severity that it is told."""


@dataclass(frozen=True)
class Syslog:
    """A syslog server that is sent CEF; ``transport`` is udp, tcp, tls or unix."""

    name: str
    transport: str
    host: str
    """The path of the socket when the transport is unix."""
    port: int = 514
    rfc: int = 5424
    """The form of a message: RFC 5424 or 3164."""
    facility: int = 10
    ca: Path | None = None
    timeout: float = 10.0
    """Seconds."""
    minimum: str = "info"
    """The least severity that it is sent."""


@dataclass(frozen=True)
class Email:
    """An SMTP server (RFC 5321) and who is written to.

    ``transport`` is starttls (RFC 3207), tls (RFC 8314) or smtp, which is in the clear.
    """

    name: str
    transport: str
    host: str
    port: int
    sender: str
    recipients: tuple[str, ...]
    user: str = ""
    password_file: Path | None = None
    ca: Path | None = None
    language: str = "en"
    timeout: float = 10.0
    """Seconds."""
    minimum: str = "info"
    """The least severity that it is sent."""


@dataclass(frozen=True)
class Push:
    """A topic of a push server such as ntfy; ``token_file`` holds its access token."""

    name: str
    url: str = ""
    url_file: Path | None = None
    token_file: Path | None = None
    ca: Path | None = None
    language: str = "en"
    timeout: float = 10.0
    """Seconds."""
    minimum: str = "info"
    """The least severity that it is told."""


@dataclass(frozen=True)
class Sinks:
    """Where alerts go besides the registry."""

    webhooks: tuple[Webhook, ...] = ()
    syslogs: tuple[Syslog, ...] = ()
    emails: tuple[Email, ...] = ()
    pushes: tuple[Push, ...] = ()


def parse_sinks(table: Mapping[str, Any]) -> Sinks:
    """Read the sinks from the table ``[alerts]``; raise InvalidInput naming what is wrong.

    It has lists of tables, ``webhook`` (``url`` or ``url_file``, ``secret_file``, ``ca``) and
    ``syslog`` (``address`` such as udp://host:514, tcp://host, tls://host or unix:/dev/log;
    ``format`` "rfc5424" or "rfc3164"; ``facility``, ``ca``), ``email`` (``address`` such as
    starttls://host:587 or tls://host:465, ``from``, ``to``, ``user``, ``password_file``, ``ca``,
    ``language``) and ``push`` (``url`` or ``url_file``, ``token_file``, ``ca``, ``language``); each
    may have ``minimum`` (a severity) and ``timeout_seconds``.
    """
    _known(table, {"webhook", "syslog", "email", "push"}, "alerts")
    taken: set[str] = set()
    webhooks = [_webhook(body, where, taken) for where, body in _listed(table, "webhook")]
    syslogs = [_syslog(body, where, taken) for where, body in _listed(table, "syslog")]
    emails = [_email(body, where, taken) for where, body in _listed(table, "email")]
    pushes = [_push(body, where, taken) for where, body in _listed(table, "push")]
    return Sinks(tuple(webhooks), tuple(syslogs), tuple(emails), tuple(pushes))


def _webhook(body: Mapping[str, Any], where: str, taken: set[str]) -> Webhook:
    _known(body, {"url", "url_file", "secret_file", "ca", "minimum", "timeout_seconds"}, where)
    url, host = _url(body, where)
    return Webhook(
        _unique(f"webhook {host}", taken),
        url,
        _path(body, "url_file", where),
        _path(body, "secret_file", where),
        _path(body, "ca", where),
        _seconds(body, where),
        _minimum(body, where),
    )


def _url(body: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Return an address, empty when a file has it, and what to call its server."""
    if ("url" in body) == ("url_file" in body):
        raise InvalidInput(f"{where}: give url, or url_file when the address is a secret")
    if "url" not in body:
        return "", Path(str(body["url_file"])).name
    url = _text(body["url"], f"{where}.url")
    return url, check_url(url, f"{where}.url")


def _push(body: Mapping[str, Any], where: str, taken: set[str]) -> Push:
    known = {"url", "url_file", "token_file", "ca", "language", "minimum", "timeout_seconds"}
    _known(body, known, where)
    url, host = _url(body, where)
    return Push(
        _unique(f"push {host}", taken),
        url,
        _path(body, "url_file", where),
        _path(body, "token_file", where),
        _path(body, "ca", where),
        _language(body, where),
        _seconds(body, where),
        _minimum(body, where),
    )


_SMTP: Final = re.compile(
    r"(starttls|tls|smtp)://(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]@]+)(?::(\d{1,5}))?"
)
_SMTP_PORTS: Final = {"starttls": 587, "tls": 465, "smtp": 25}
_MAILBOX: Final = re.compile(r"[!-;=?A-~]+@[A-Za-z0-9.-]+")


def _email(body: Mapping[str, Any], where: str, taken: set[str]) -> Email:
    known = {"address", "from", "to", "user", "password_file", "ca", "language", "minimum"}
    _known(body, known | {"timeout_seconds"}, where)
    match = _SMTP.fullmatch(_text(body.get("address"), f"{where}.address"))
    if match is None or not 0 < int(match[3] or 1) <= 65535:
        raise InvalidInput(
            f"{where}.address: cannot be read",
            hint="starttls://host:587, tls://host:465, or smtp://localhost:25 on this machine",
        )
    host = match[2].strip("[]")
    if match[1] == "smtp" and host not in _LOCAL:
        raise InvalidInput(
            f"{where}.address: only a server on this machine may be spoken to in the clear",
            hint="write starttls:// or tls://",
        )
    to = body.get("to", [])
    mailboxes = [body.get("from"), *(to if isinstance(to, list) and to else [None])]
    if not all(isinstance(one, str) and _MAILBOX.fullmatch(one) for one in mailboxes):
        raise InvalidInput(
            f"{where}: from must be a mail address, to a list of them",
            hint='from = "pgbalise@chu.example", to = ["dpo@chu.example"]',
        )
    if ("user" in body) != ("password_file" in body):
        raise InvalidInput(f"{where}: user and password_file go together")
    return Email(
        _unique(f"email {host}", taken),
        match[1],
        host,
        int(match[3] or _SMTP_PORTS[match[1]]),
        str(mailboxes[0]),
        tuple(map(str, mailboxes[1:])),
        _text(body["user"], f"{where}.user") if "user" in body else "",
        _path(body, "password_file", where),
        _path(body, "ca", where),
        _language(body, where),
        _seconds(body, where),
        _minimum(body, where),
    )


def _language(body: Mapping[str, Any], where: str) -> str:
    value = body.get("language", "en")
    if value not in ("en", "fr"):
        raise InvalidInput(f'{where}.language: must be "en" or "fr"')
    return str(value)


def check_url(url: str, where: str) -> str:
    """Return an address's host; raise InvalidInput, without the address, when it cannot be used.

    Only a server on this machine may be spoken to without TLS.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidInput(f"{where}: this is no address", hint="https://host/path") from None
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput(f"{where}: this is no address", hint="https://host/path")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(f"{where}: a password does not belong here", hint="use secret_file")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOCAL):
        raise InvalidInput(f"{where}: must begin with https://")
    return host


_ADDRESS: Final = re.compile(r"(udp|tcp|tls)://(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+)(?::(\d{1,5}))?")


def _syslog(body: Mapping[str, Any], where: str, taken: set[str]) -> Syslog:
    known = {"address", "format", "facility", "ca", "minimum", "timeout_seconds"}
    _known(body, known, where)
    address = _text(body.get("address"), f"{where}.address")
    match = _ADDRESS.fullmatch(address)
    if address.startswith("unix:/"):
        transport, host, port = "unix", address.removeprefix("unix:"), 0
    elif match is not None:
        transport, host = match[1], match[2].strip("[]")
        port = int(match[3] or _PORTS[transport])
    else:
        raise InvalidInput(
            f"{where}.address: cannot be read",
            hint="udp://host:514, tcp://host:514, tls://host:6514 or unix:/dev/log",
        )
    if port > 65535 or (transport != "unix" and not port):
        raise InvalidInput(f"{where}.address: there is no such port")
    form = body.get("format", "rfc3164" if transport == "unix" else "rfc5424")
    if form not in ("rfc5424", "rfc3164"):
        raise InvalidInput(f'{where}.format: must be "rfc5424" or "rfc3164"')
    facility = body.get("facility", "authpriv")
    if facility not in _FACILITIES:
        raise InvalidInput(f"{where}.facility: must be one of {', '.join(_FACILITIES)}")
    return Syslog(
        _unique(f"syslog {host}", taken),
        transport,
        host,
        port,
        int(form.removeprefix("rfc")),
        _FACILITIES[facility],
        _path(body, "ca", where),
        _seconds(body, where),
        _minimum(body, where),
    )


def _unique(name: str, taken: set[str]) -> str:
    number, found = 2, name
    while found in taken:
        number, found = number + 1, f"{name} ({number})"
    taken.add(found)
    return found


def _listed(table: Mapping[str, Any], kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    found = table.get(kind, [])
    if not isinstance(found, list) or not all(isinstance(body, Mapping) for body in found):
        raise InvalidInput(f"alerts.{kind}: must be a list of tables", hint=f"[[alerts.{kind}]]")
    return [(f"alerts.{kind}[{number}]", body) for number, body in enumerate(found, start=1)]


def _known(table: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise InvalidInput(
                f"{where}.{key}: there is no such key", hint=f"known: {', '.join(sorted(known))}"
            )


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{where}: must be a text")
    return value


def _path(body: Mapping[str, Any], key: str, where: str) -> Path | None:
    return Path(_text(body[key], f"{where}.{key}")) if key in body else None


def _seconds(body: Mapping[str, Any], where: str) -> float:
    value = body.get("timeout_seconds", 10)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 300:
        raise InvalidInput(f"{where}.timeout_seconds: must be a number of seconds up to 300")
    return float(value)


def _minimum(body: Mapping[str, Any], where: str) -> str:
    value = body.get("minimum", "info")
    if value not in SEVERITIES:
        raise InvalidInput(f"{where}.minimum: must be one of {', '.join(SEVERITIES)}")
    return str(value)


def wants(minimum: str, severity: str) -> bool:
    """Whether a sink that is told severities from ``minimum`` up is told this one."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(minimum)


def webhook_body(alert: Mapping[str, Any]) -> bytes:
    """Return what is posted: the alert, and under ``text`` what it says to a person."""
    body = {**alert, "text": sentence(alert)}
    return json.dumps(body, ensure_ascii=False, sort_keys=True).encode("utf-8", "backslashreplace")


_CEF_SEVERITY: Final = {"info": 3, "warning": 6, "critical": 10}
_SYSLOG_SEVERITY: Final = {"info": 6, "warning": 4, "critical": 2}


def cef(alert: Mapping[str, Any], version: str) -> str:
    """Return an alert in ArcSight's Common Event Format, version 0, one line.

    ``version`` is pgbalise's. Recipient is ``suser``, database ``cs1``, relations ``cs2``, the
    decoy's recipients ``cs3``, its name ``cs4``, an application ``cs5``, rows ``cn1``, their limit
    ``cn2``, the alert's id ``externalId``.
    """
    detail = alert.get("detail") or {}
    kind = str(alert["kind"])
    head = ["pgbalise", "pgbalise", version, kind, title(kind)]
    relations = detail.get("relations") or [detail.get("relation") or ""]
    fields: dict[str, Any] = {
        "rt": round(datetime.fromisoformat(alert["at"]).timestamp() * 1000),
        "externalId": alert["alert"],
        "cat": kind,
        "suser": alert.get("recipient"),
        **_source(str(alert.get("client") or "")),
        **_labelled("cs1", "Database", alert.get("database")),
        **_labelled("cs2", "Relations", ", ".join(relations)),
        **_labelled("cs3", "Decoys of", ", ".join(detail.get("decoys_of", []))),
        **_labelled("cs4", "Decoys", ", ".join(detail.get("decoys", []))),
        **_labelled("cs5", "Application", detail.get("application")),
        **_labelled("cn1", "Rows", detail.get("rows")),
        **_labelled("cn2", "Limit", detail.get("limit")),
        "msg": sentence(alert),
    }
    extension = " ".join(
        f"{name}={_cef_value(value)}" for name, value in fields.items() if value not in (None, "")
    )
    severity = _CEF_SEVERITY[alert["severity"]]
    return "|".join(["CEF:0", *map(_cef_header, head), str(severity), extension])


def _source(client: str) -> dict[str, str]:
    try:
        address = ip_address(client)
    except ValueError:
        return {}
    if isinstance(address, IPv6Address):
        return {"c6a2": str(address), "c6a2Label": "Source IPv6 Address"}
    return {"src": str(address)}


def _labelled(name: str, label: str, value: object) -> dict[str, Any]:
    return {name: value, f"{name}Label": label} if value not in (None, "") else {}


def _clean(text: str) -> str:
    """Control characters would end a message, or speak to a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _cef_header(value: object) -> str:
    return _clean(str(value)).replace("\\", "\\\\").replace("|", "\\|")


def _cef_value(value: object) -> str:
    text = str(value).replace("\r\n", "\n").replace("\r", "\n")
    lines = [_clean(line).replace("\\", "\\\\").replace("=", "\\=") for line in text.split("\n")]
    return "\\n".join(lines)


def syslog_message(
    alert: Mapping[str, Any], sink: Syslog, *, host: str, process: int, version: str
) -> bytes:
    """Return an alert as a syslog message with CEF in it, framed as the transport needs it.

    ``host`` and ``process`` say where it comes from. Over TCP and TLS, RFC 5424's form is counted
    (RFC 6587) and RFC 3164's ends with a line feed.
    """
    priority = sink.facility * 8 + _SYSLOG_SEVERITY[alert["severity"]]
    at = datetime.fromisoformat(alert["at"]).astimezone(UTC)
    text = cef(alert, version)
    if sink.rfc == 5424:
        stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        text = f"<{priority}>1 {stamp} {host} pgbalise {process} {alert['kind']} - {text}"
    else:
        month = _MONTHS[3 * at.month - 3 : 3 * at.month]
        stamp = f"{month} {at.day:2d} {at:%H:%M:%S}"
        # the local daemon knows its host
        origin = "" if sink.transport == "unix" else f"{host} "
        text = f"<{priority}>{stamp} {origin}pgbalise[{process}]: {text}"
    message = text.encode("utf-8", "backslashreplace")
    if sink.transport not in ("tcp", "tls"):
        return message
    return b"%d %s" % (len(message), message) if sink.rfc == 5424 else message + b"\n"
