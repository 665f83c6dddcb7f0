"""Two establishments publish, a third asks, reports, and is heard: over a real server."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pgbalise.alert_text import sentence
from pgbalise.decoys.identity import Role
from pgbalise.decoys.traits import Trait, TraitKind, traits
from pgbalise.errors import EnvironmentProblem, InvalidInput, InvalidKey
from pgbalise.exchange import protocol
from pgbalise.exchange.client import (
    Client,
    Synchronised,
    check,
    decoy_of_reference,
    hash_all,
    hit_alert,
    read_token,
    synchronise,
)
from pgbalise.exchange.limits import Limit, Limits
from pgbalise.exchange.messages import Publication, Report
from pgbalise.sinks import cef
from tests.exchange.conftest import AT, NAMES, Exchange, decoy

RENNES, VITRE, PARC = NAMES
YEAR = AT + timedelta(days=365)
STRANGER = Trait(TraitKind.NIR, "2850535238042")


def quiet(*_: Any) -> None:
    pass


def noise() -> Iterator[int]:
    return (0x9E3779B97F4A7C15 * n % 2**64 for n in itertools.count(1))


def person(number: int) -> Trait:
    [found] = [trait for trait in decoy(number).traits if trait.kind is TraitKind.PERSON]
    return found


def test_a_third_learns_whose_decoy_it_is_and_the_owner_where_it_was_met(
    exchange: Exchange,
) -> None:
    rennes, vitre, parc = map(exchange.client, NAMES)
    synchronise(rennes, [decoy(1)], YEAR, AT, quiet)
    synchronise(vitre, [decoy(2, "vendor")], YEAR, AT, quiet)
    found = check(parc, [person(1), person(2), STRANGER], noise(), quiet)
    assert found.owners == {person(1): [RENNES], person(2): [VITRE]}
    assert found.asked == 16

    digest = found.hashed[person(2)].digest.hex()
    report = Report(digest=digest, seen_at=AT, place="forum", severity="critical", note="n 7")
    assert parc.report(report) == [VITRE]
    [hit] = vitre.hits(None)
    assert list(rennes.hits(None)) == []
    known = decoy_of_reference([decoy(1), decoy(2, "vendor")])[hit.reference]
    alert = hit_alert(hit, known, "Bretagne")
    assert (alert["kind"], alert["severity"], alert["recipient"]) == (
        "decoy_elsewhere",
        "critical",
        "vendor",
    )
    assert alert["detail"] == {
        "decoy": "vendor/2",
        "region": "Bretagne",
        "reporter": PARC,
        "place": "forum",
        "seen_at": "2026-05-04T08:00:00+00:00",
        "note": "n 7",
        "reference": hit.reference,
    }
    assert re.fullmatch("[0-9a-f]{32}", alert["alert"])
    assert sentence(alert) == "Clinique du Parc met decoy vendor/2 elsewhere (forum)."
    unnamed = sentence(hit_alert(hit, None, "Bretagne"))
    assert unnamed == "Clinique du Parc met a decoy of this house elsewhere (forum)."
    assert "|decoy_elsewhere|Another establishment met a decoy|10|" in cef(alert, "1")
    assert hit_alert(hit, None, "Bretagne")["alert"] == alert["alert"]
    nobody = Report(digest="0" * 64, seen_at=AT, place="web")
    assert parc.report(nobody) == []


def test_only_prefixes_of_digests_leave(exchange: Exchange, monkeypatch: Any) -> None:
    sent: list[tuple[str, Any]] = []
    parc = exchange.client(PARC)
    once = Client._once

    def heard(self: Client, path: str, body: Any) -> Any:
        sent.append((path, body))
        return once(self, path, body)

    monkeypatch.setattr(Client, "_once", heard)
    check(parc, [STRANGER], noise(), quiet)
    assert sent[0] == ("status", None)
    asked = [path for path, _ in sent[1:]]
    assert sorted(asked) == [f"range/{n:04b}" for n in range(16)]
    assert asked != sorted(asked)
    assert {body for _, body in sent} == {None}


def test_a_book_is_kept_in_step(exchange: Exchange) -> None:
    rennes = exchange.client(RENNES)
    first = synchronise(rennes, [decoy(1), decoy(2)], YEAR, AT, quiet)
    assert first == Synchronised(published=6, withdrawn=0, kept=0, left_out=4)
    assert synchronise(rennes, [decoy(1), decoy(2)], YEAR, AT, quiet).published == 0
    retired = replace(decoy(2), retired_at=AT)
    assert synchronise(rennes, [retired], YEAR, AT, quiet) == Synchronised(0, 3, 3, 2)
    assert check(rennes, [person(1), person(2)], noise(), quiet).owners == {person(2): [RENNES]}
    late = AT + timedelta(days=340)
    exchange.clock.now = late
    renewed = synchronise(rennes, [retired], late + timedelta(days=365), late, quiet)
    assert renewed == Synchronised(3, 0, 0, 2)
    assert synchronise(rennes, [], YEAR, AT, quiet) == Synchronised(0, 3, 0, 0)
    assert rennes.status().beacons == 0


def test_other_spellings_are_found(exchange: Exchange) -> None:
    synchronise(exchange.client(RENNES), [decoy(3)], YEAR, AT, quiet)
    one = decoy(3).identity
    other = {
        Role.FULL_NAME: f"maelle  LEVEQUE {one[Role.FAMILY_NAME].split('-')[1].upper()}",
        Role.BIRTH_DATE: one[Role.BIRTH_DATE],
        Role.NIR_13: " ".join(one[Role.NIR][:13]),
        Role.MAIL: one[Role.MAIL].upper(),
    }
    found = check(exchange.client(PARC), traits(other), noise(), quiet)
    assert {trait.kind.value for trait in found.owners} == {"nir", "person", "mail"}


def test_a_client_that_calls_too_often_waits_as_long_as_it_is_told(
    serve: Callable[..., Any],
) -> None:
    with serve(Limits(lookups=Limit(2, 10))) as exchange:
        found = check(exchange.client(PARC), [STRANGER], noise(), quiet)
        assert (found.owners, found.asked) == ({}, 16)
        assert exchange.pauses
        assert sum(exchange.pauses) <= 6
    assert set(exchange.pauses) == {1}


def test_a_region_that_grows_meanwhile_is_asked_again(exchange: Exchange) -> None:
    rennes, parc = exchange.client(RENNES), exchange.client(PARC)
    synchronise(rennes, [decoy(1)], YEAR, AT, quiet)
    grown = False

    def progress(step: str, done: int, total: int) -> None:
        nonlocal grown
        if step == "asking" and done == 3 and not grown:
            grown = True
            beacons = [
                {
                    "reference": f"{n:032x}",
                    "digest": f"{n * 2**240 // 5000 * 2**16:064x}",
                    "seal": "0" * 128,
                    "expires_at": YEAR,
                }
                for n in range(5000)
            ]
            for at in range(0, 5000, 1000):
                body = {"publish": beacons[at : at + 1000]}
                exchange.client(VITRE).publish(Publication.model_validate(body))

    found = check(parc, [person(1)], noise(), progress)
    assert grown
    assert found.owners == {person(1): [RENNES]}
    assert (found.asked, rennes.status().bits) == (3 + 32, 5)


def test_the_token_comes_from_a_private_file_and_is_shown_nowhere(
    exchange: Exchange, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(exchange.tokens[RENNES] + "\n")
    file.chmod(0o644)
    with pytest.raises(InvalidKey, match="read by others"):
        read_token(file)
    file.chmod(0o600)
    token = read_token(file)
    assert token not in repr(exchange.client(RENNES))
    file.write_text("hunter2")
    with pytest.raises(InvalidInput, match="not a token") as refused:
        read_token(file)
    assert "hunter2" not in str(refused.value)
    stranger = Client(exchange.url, protocol.token_text(bytes(32)))
    with pytest.raises(InvalidInput, match="does not know this token"):
        stranger.status()


@pytest.mark.parametrize(
    "url", ["http://exchange.example.org", "ftp://localhost", "localhost", "https://u:p@host", ""]
)
def test_a_token_is_sent_over_tls_only(url: str) -> None:
    with pytest.raises(InvalidInput, match="--url"):
        Client(url, protocol.token_text(bytes(32)))


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("nothing")
    for file in ("ca", "missing"):
        with pytest.raises(InvalidInput, match="--ca"):
            Client("https://localhost", protocol.token_text(bytes(32)), tmp_path / file)


class Liar(BaseHTTPRequestHandler):
    """Answers every call with what it is set to."""

    status, content, place = 200, b"", ""

    def do_GET(self) -> None:
        self.send_response(self.status)
        if self.place:
            self.send_header("Location", self.place)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def liar() -> Iterator[tuple[type[Liar], Client]]:
    kind = type("Kind", (Liar,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    yield kind, Client(url, protocol.token_text(bytes(32)), timeout=5)
    server.shutdown()
    thread.join()
    server.server_close()


STATUS = {
    "version": 1,
    "region": "x",
    "member": "x",
    "salt": "0" * 32,
    "bits": 12,
    "answer": 512,
    "beacons": 0,
}


@pytest.mark.parametrize(
    "changed",
    [{"bits": 17}, {"bits": 256}, {"bits": 0}, {"salt": ""}, {"salt": "zz"}, {"salt": "00" * 15}],
)
def test_a_server_cannot_ask_for_more_than_the_protocol_shows(
    liar: tuple[type[Liar], Client], changed: dict[str, Any]
) -> None:
    kind, client = liar
    kind.content = json.dumps(STATUS).encode()
    assert client.status().bits == 12
    kind.content = json.dumps(STATUS | changed).encode()
    with pytest.raises(EnvironmentProblem, match="cannot be read"):
        check(client, [STRANGER], noise(), quiet)


def test_what_a_server_answers_amiss_is_one_line(liar: tuple[type[Liar], Client]) -> None:
    kind, client = liar
    kind.content = json.dumps(STATUS | {"version": 2, "news": 1}).encode()
    with pytest.raises(EnvironmentProblem, match="another version"):
        client.status()
    entry = {"prefix": "0101", "entries": ["AAAA"]}
    for content in (b"", b"<html>", b"[" * 99999, b"{}", json.dumps(entry).encode()):
        kind.content = content
        with pytest.raises(EnvironmentProblem, match="cannot be read"):
            client.range("0101")
    hit = {"reference": "0" * 32, "expires_at": AT.isoformat()}
    kind.content = json.dumps({"beacons": [hit], "count": 1}).encode()
    with pytest.raises(EnvironmentProblem, match="cannot be read"):
        list(client.own())
    kind.status, kind.content = 500, b"Traceback \x1b[31m"
    with pytest.raises(EnvironmentProblem, match=r"answered 500$"):
        client.status()
    body = {"title": "x", "status": 503, "detail": "\x1b[31mred\nline"}
    kind.status, kind.content = 503, json.dumps(body).encode()
    with pytest.raises(EnvironmentProblem, match=r"503: \?\[31mred\?line$"):
        client.status()
    kind.status, kind.place = 302, "http://127.0.0.1:1/elsewhere"
    with pytest.raises(EnvironmentProblem, match="answered 302"):
        client.status()


def test_an_exchange_that_is_away_is_told(liar: tuple[type[Liar], Client]) -> None:
    token = protocol.token_text(bytes(32))
    with pytest.raises(EnvironmentProblem, match="cannot be reached: Connection refused"):
        Client("http://127.0.0.1:1", token).status()


def test_hashing_is_broken_off_at_once(monkeypatch: Any) -> None:
    many = [Trait(TraitKind.NIR, f"{n:013d}") for n in range(2000)]
    stream = hash_all(many, bytes(16), quiet)
    trait, _ = next(stream)
    assert trait == many[0]
    stream.close()
