"""Who tells a sink of an alert: over HTTP, syslog or SMTP, with certificates checked."""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import smtplib
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pgbalise import __version__
from pgbalise.alert_text import mail, push_headers, told
from pgbalise.errors import EnvironmentProblem, InvalidInput
from pgbalise.keyfile import read_private
from pgbalise.sinks import (
    Email,
    Push,
    Sinks,
    Syslog,
    Webhook,
    check_url,
    syslog_message,
    webhook_body,
)


class Sender(Protocol):
    """Tells a sink of an alert; ``name`` never holds a secret."""

    @property
    def name(self) -> str:
        """What a person calls the sink."""

    @property
    def minimum(self) -> str:
        """The least severity that it is told."""

    def send(self, alert: Mapping[str, Any]) -> None:
        """Tell it, or raise a PgbaliseError."""


_Sink = TypeVar("_Sink", bound=Webhook | Syslog | Email | Push)


@dataclass(frozen=True)
class _Sending(Generic[_Sink]):
    sink: _Sink

    @property
    def name(self) -> str:
        """What a person calls the sink."""
        return self.sink.name

    @property
    def minimum(self) -> str:
        """The least severity that it is told."""
        return self.sink.minimum


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none: an alert goes where the configuration says."""


@dataclass(frozen=True)
class WebhookSender(_Sending[Webhook]):
    """POSTs an alert as JSON, with the header X-Pgbalise-Signature when it has a secret."""

    def send(self, alert: Mapping[str, Any]) -> None:
        """Post it; raise EnvironmentProblem unless the answer is 2xx, InvalidKey for its files."""
        sink = self.sink
        body = webhook_body(alert)
        headers = {
            "Content-Type": "application/json",
            "X-Pgbalise-Alert": str(alert["alert"]),
        }
        if sink.secret_file is not None:
            secret = read_private(sink.secret_file, "it must hold the webhook's secret").strip()
            signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
            headers["X-Pgbalise-Signature"] = f"sha256={signature}"
        _post(sink, body, headers)


@dataclass(frozen=True)
class PushSender(_Sending[Push]):
    """POSTs a sentence to a topic, as ntfy takes it: title, priority and tags are headers."""

    def send(self, alert: Mapping[str, Any]) -> None:
        """Post it; raise EnvironmentProblem unless the answer is 2xx, InvalidKey for its files."""
        sink = self.sink
        headers = push_headers(alert, sink.language)
        if sink.token_file is not None:
            token = read_private(sink.token_file, "it must hold the topic's token").strip()
            if not token.isascii() or not token.decode("latin-1").isprintable():
                raise InvalidInput(f"{sink.token_file}: this is no token")
            headers["Authorization"] = f"Bearer {token.decode()}"
        _post(sink, told(alert, sink.language).encode("utf-8", "backslashreplace"), headers)


def _post(sink: Webhook | Push, body: bytes, headers: Mapping[str, str]) -> None:
    url = sink.url
    if sink.url_file is not None:
        kept = read_private(sink.url_file, "it must hold the address").decode("utf-8", "replace")
        url = kept.strip()
        check_url(url, str(sink.url_file))
    headers = {**headers, "User-Agent": f"pgbalise/{__version__}"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - check_url
    try:
        opener = urllib.request.build_opener(
            _NoRedirect(), urllib.request.HTTPSHandler(context=_tls(sink.ca))
        )
        with opener.open(request, timeout=sink.timeout) as answer:
            answer.read(1)
    except urllib.error.HTTPError as problem:
        problem.close()
        hint = "give the address it redirects to" if 300 <= problem.code < 400 else None
        raise EnvironmentProblem(f"{sink.name} answered {problem.code}", hint=hint) from None
    except (OSError, ValueError, ssl.SSLError) as problem:
        raise _unreachable(sink.name, problem) from None
    except Exception as problem:  # noqa: BLE001 - http.client's errors have no common base
        raise EnvironmentProblem(f"{sink.name}: {type(problem).__name__}") from None


@dataclass(frozen=True)
class MailSender(_Sending[Email]):
    """Sends an alert by SMTP, encrypted unless the server is on this machine."""

    def send(self, alert: Mapping[str, Any]) -> None:
        """Send it; raise EnvironmentProblem when no recipient is accepted, InvalidKey for files.

        The server may still refuse one of several recipients: the others are not told twice.
        """
        sink = self.sink
        message = mail(alert, sink, version=__version__)
        password = None
        if sink.password_file is not None:
            kept = read_private(sink.password_file, "it must hold the account's password")
            password = kept.decode("utf-8", "replace").strip()
        try:
            server = _smtp(sink)
            try:
                if password is not None:
                    server.login(sink.user, password)
                server.send_message(message, sink.sender, sink.recipients)
                # it is sent: what the server says to the end changes nothing
                with suppress(smtplib.SMTPException, OSError):
                    server.quit()
            finally:
                server.close()
        except smtplib.SMTPNotSupportedError:
            hint = "the server offers no such login, or no STARTTLS"
            raise EnvironmentProblem(f"{sink.name} cannot do that", hint=hint) from None
        except smtplib.SMTPAuthenticationError:
            raise EnvironmentProblem(f"{sink.name} refused the login") from None
        except smtplib.SMTPRecipientsRefused:
            raise EnvironmentProblem(f"{sink.name} refused every recipient") from None
        except smtplib.SMTPResponseException as problem:
            # the server's own words may quote an address
            raise EnvironmentProblem(f"{sink.name} answered {problem.smtp_code}") from None
        except smtplib.SMTPException as problem:
            raise EnvironmentProblem(f"{sink.name}: {type(problem).__name__}") from None
        except (OSError, ValueError) as problem:
            raise _unreachable(sink.name, problem) from None


def _smtp(sink: Email) -> smtplib.SMTP:
    host, port, wait = sink.host, sink.port, sink.timeout
    if sink.transport == "tls":
        return smtplib.SMTP_SSL(host, port, timeout=wait, context=_tls(sink.ca))
    server = smtplib.SMTP(host, port, timeout=wait)
    if sink.transport == "starttls":
        try:
            # raises when it is not offered: nothing is ever sent in the clear
            server.starttls(context=_tls(sink.ca))
        except BaseException:
            server.close()
            raise
    return server


@dataclass(frozen=True)
class SyslogSender(_Sending[Syslog]):
    """Sends an alert to a syslog server, each over a connection of its own."""

    def send(self, alert: Mapping[str, Any]) -> None:
        """Send it; raise EnvironmentProblem when the server cannot be reached.

        Over UDP nobody knows whether it arrived; over TCP, whether it was read.
        """
        sink = self.sink
        message = syslog_message(
            alert, sink, host=_host(), process=os.getpid(), version=__version__
        )
        try:
            if sink.transport == "unix":
                _to_socket(sink, message)
            elif sink.transport == "udp":
                [(family, _, _, _, address), *_] = socket.getaddrinfo(
                    sink.host, sink.port, type=socket.SOCK_DGRAM
                )
                with socket.socket(family, socket.SOCK_DGRAM) as udp:
                    udp.settimeout(sink.timeout)
                    udp.sendto(message, address)
            else:
                with socket.create_connection((sink.host, sink.port), sink.timeout) as tcp:
                    if sink.transport == "tcp":
                        _hand_over(tcp, message)
                        return
                    with _tls(sink.ca).wrap_socket(tcp, server_hostname=sink.host) as tls:
                        tls.sendall(message)
        except (OSError, ValueError) as problem:
            raise _unreachable(sink.name, problem) from None


def _to_socket(sink: Syslog, message: bytes) -> None:
    """Send to a local daemon: most take datagrams, some a stream."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_UNIX, kind) as local:
            local.settimeout(sink.timeout)
            try:
                local.connect(sink.host)
            except OSError as problem:
                if kind == socket.SOCK_DGRAM and problem.errno == errno.EPROTOTYPE:
                    continue
                raise
            local.sendall(message if kind == socket.SOCK_DGRAM else message + b"\n")
            return


def _hand_over(tcp: socket.socket, message: bytes) -> None:
    tcp.sendall(message)
    tcp.shutdown(socket.SHUT_WR)


def _tls(ca: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca) if ca is not None else None)


def _host() -> str:
    return "".join(c if 33 <= ord(c) < 127 else "-" for c in socket.gethostname()) or "-"


def _unreachable(name: str, problem: Exception) -> EnvironmentProblem:
    cause = problem.reason if isinstance(problem, urllib.error.URLError) else problem
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = f"its certificate is not trusted: {cause.verify_message}"
    elif isinstance(cause, TimeoutError):
        why = "it did not answer in time"
    else:
        # other exceptions' texts may quote the address, which may be a secret
        why = (cause.strerror if isinstance(cause, OSError) else None) or type(cause).__name__
    return EnvironmentProblem(f"{name}: {why}")


def senders(sinks: Sinks) -> list[Sender]:
    """Return who tells the sinks that the configuration names."""
    return [
        *map(WebhookSender, sinks.webhooks),
        *map(SyslogSender, sinks.syslogs),
        *map(MailSender, sinks.emails),
        *map(PushSender, sinks.pushes),
    ]
