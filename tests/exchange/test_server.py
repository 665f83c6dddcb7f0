"""The exchange over HTTP: who may do what, what answers look like, what is refused."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgbalise.errors import DatabaseProblem, EnvironmentProblem, InvalidInput
from pgbalise.exchange.limits import Limit, Limits
from pgbalise.exchange.messages import Beacon, Publication, Report
from pgbalise.exchange.server import LARGEST_BODY, Listen, check_listen, parse_listen, prepared
from pgbalise.exchange.store import (
    add_member,
    member_of,
    own_beacons,
    own_hits,
    publish,
    range_entries,
    record_hit,
    region,
    revoke_member,
)
from pgbalise.registry import tables
from pgbalise.registry.store import engine_of, entries, verify_registry
from tests.exchange.conftest import AT, NAMES, Exchange

RENNES, VITRE, PARC = NAMES
UNTIL = (AT + timedelta(days=300)).isoformat()


def beacon(number: int, digest: str | None = None, expires_at: str = UNTIL) -> dict[str, Any]:
    made = hashlib.sha512(b"%d" % number).hexdigest()
    return {
        "reference": f"{number:032x}",
        "digest": digest or made[:64],
        "seal": made,
        "expires_at": expires_at,
    }


def report(digest: str, **more: Any) -> dict[str, Any]:
    return {"digest": digest, "seen_at": AT.isoformat(), "place": "forum", **more}


class Caller:
    """A member that speaks HTTP by hand."""

    def __init__(self, exchange: Exchange, name: str | None) -> None:
        token = exchange.tokens.get(name or "", name)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(base_url=f"{exchange.url}/v1", headers=headers, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path)

    def post(self, path: str, body: object) -> httpx.Response:
        return self.http.post(path, json=body)


@pytest.fixture
def as_member(exchange: Exchange) -> Any:
    made: dict[str | None, Caller] = {}

    def caller(name: str | None) -> Caller:
        return made.setdefault(name, Caller(exchange, name))

    yield caller
    for one in made.values():
        one.http.close()


As = Callable[[str | None], Caller]


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """An error is RFC 9457's, complete, and holds no trace of the program."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["status"] == status
    assert "Traceback" not in answer.text
    return body


CALLS = [
    ("GET", "status"),
    ("POST", "beacons"),
    ("GET", "beacons"),
    ("GET", "range/0101"),
    ("POST", "hits"),
    ("GET", "hits"),
]


def test_nobody_gets_in_without_a_valid_token(exchange: Exchange, as_member: As) -> None:
    token = exchange.tokens[RENNES]
    wrong = ["x", "pgbx_" + "A" * 43, token[:-1], token.swapcase(), "é"]
    for method, path in CALLS:
        body = report("0" * 64) if path == "hits" else {}
        for text in wrong:
            headers = {"Authorization": f"Bearer {text}".encode()}
            answer = as_member(None).http.request(method, path, json=body, headers=headers)
            assert problem(answer, 401)["detail"] == "a valid token is needed"
            assert answer.headers["www-authenticate"] == "Bearer"
    # bodies of strangers are not even read, and they learn of no path
    for path in ("beacons", "nothing"):
        problem(as_member(None).http.post(path, content=b"{"), 401)
    assert as_member(RENNES).get("status").json()["member"] == RENNES


def test_a_revoked_or_rotated_token_ends_at_once(
    exchange: Exchange, registry: sa.Connection, as_member: As
) -> None:
    as_member(VITRE).post("beacons", {"publish": [beacon(1), beacon(2)]})
    assert revoke_member(registry, VITRE, AT) == 2
    problem(as_member(VITRE).get("status"), 401)
    with pytest.raises(InvalidInput, match="no such member"):
        revoke_member(registry, VITRE, AT)
    old = as_member(RENNES)
    assert old.get("status").status_code == 200
    fresh = add_member(registry, RENNES, AT, rotate=True)
    problem(old.get("status"), 401)
    assert as_member(fresh).get("status").json()["member"] == RENNES
    back = add_member(registry, VITRE, AT, rotate=True)
    assert as_member(back).get("status").json()["beacons"] == 0


def test_the_store_holds_no_token(exchange: Exchange, registry: sa.Connection) -> None:
    with registry.begin():
        rows = registry.execute(sa.select(tables.exchange_member)).all()
        ledger = registry.execute(sa.select(tables.entry.c.body)).all()
    for token in exchange.tokens.values():
        secret = token.removeprefix("pgbx_")
        assert secret not in repr(rows)
        assert secret not in repr(ledger)


def test_answers_have_one_size_whatever_they_hold(as_member: As) -> None:
    digests = ["5" + hashlib.sha256(b"%d" % n).hexdigest()[1:] for n in range(40)]
    beacons = [beacon(n, digest) for n, digest in enumerate(digests)]
    as_member(RENNES).post("beacons", {"publish": beacons})
    bits = as_member(PARC).get("status").json()["bits"]
    answers = [as_member(PARC).get(f"range/{n:0{bits}b}") for n in range(2**bits)]
    sizes = {(len(a.content), len(str(sorted(a.headers.items())))) for a in answers}
    assert len(sizes) == 1
    # which ones are beacons cannot be told from two answers either
    assert answers[5].json() == as_member(VITRE).get("range/0101").json()


def test_an_expired_beacon_is_not_shown_and_a_hit_on_it_is_nobodys(
    exchange: Exchange, as_member: As
) -> None:
    soon = (AT + timedelta(seconds=60)).isoformat()
    as_member(RENNES).post("beacons", {"publish": [beacon(1, "5" * 64, soon), beacon(2)]})
    with_it = as_member(PARC).get("range/0101").json()
    exchange.clock.pass_(61)
    without = as_member(PARC).get("range/0101").json()
    assert len(set(with_it["entries"]) - set(without["entries"])) == 1
    problem(as_member(PARC).post("hits", report("5" * 64)), 404)
    assert as_member(RENNES).get("beacons").json()["count"] == 1
    # the next publication clears it away
    as_member(VITRE).post("beacons", {"publish": [beacon(3)]})
    assert as_member(RENNES).get("status").json()["beacons"] == 1


def test_a_member_replaces_and_withdraws_its_own_beacons_only(as_member: As) -> None:
    assert as_member(RENNES).post("beacons", {"publish": [beacon(1), beacon(2)]}).json() == {
        "published": 2,
        "withdrawn": 0,
    }
    taken = as_member(VITRE).post("beacons", {"withdraw": [beacon(1)["reference"]]})
    assert taken.json() == {"published": 0, "withdrawn": 0}
    # the same reference is another beacon with another member
    as_member(VITRE).post("beacons", {"publish": [beacon(1, "7" * 64)]})
    digest = beacon(1)["digest"]
    assert as_member(PARC).post("hits", report(digest)).json() == {"owners": [RENNES]}
    as_member(RENNES).post("beacons", {"publish": [beacon(1, "6" * 64)]})
    problem(as_member(PARC).post("hits", report(digest)), 404)
    assert as_member(PARC).post("hits", report("6" * 64)).json() == {"owners": [RENNES]}
    done = as_member(RENNES).post("beacons", {"withdraw": [beacon(n)["reference"] for n in (1, 2)]})
    assert done.json()["withdrawn"] == 2
    assert as_member(VITRE).get("beacons").json()["count"] == 1


def test_own_beacons_come_in_pages(as_member: As) -> None:
    for start in (0, 1000):
        body = {"publish": [beacon(n) for n in range(start, start + 1000)]}
        assert as_member(RENNES).post("beacons", body).status_code == 200
    first = as_member(RENNES).get("beacons").json()
    last = first["beacons"][-1]["reference"]
    second = as_member(RENNES).get(f"beacons?after={last}").json()
    assert first["count"] == 2000
    assert [len(page["beacons"]) for page in (first, second)] == [1000, 1000]
    assert {one["reference"] for page in (first, second) for one in page["beacons"]} == {
        f"{n:032x}" for n in range(2000)
    }
    # 2,000 beacons are less than 256 on each of 16 prefixes
    assert as_member(RENNES).get("status").json()["bits"] == 4


def test_prefixes_grow_with_the_region_and_old_lengths_are_refused(as_member: As) -> None:
    for start in range(0, 5000, 1000):
        as_member(RENNES).post(
            "beacons", {"publish": [beacon(n) for n in range(start, start + 1000)]}
        )
    assert as_member(PARC).get("status").json()["bits"] == 5
    told = problem(as_member(PARC).get("range/0101"), 409)
    assert "5 bits" in told["detail"]
    assert as_member(PARC).get("range/01011").status_code == 200


def test_a_hit_reaches_its_owners_once(as_member: As) -> None:
    digest = beacon(1)["digest"]
    as_member(RENNES).post("beacons", {"publish": [beacon(1)]})
    as_member(VITRE).post("beacons", {"publish": [{**beacon(2), "digest": digest}]})
    body = report(digest, severity="critical", note="case 12")
    for _ in "twice":
        answer = as_member(PARC).post("hits", body)
        assert (answer.status_code, answer.json()) == (201, {"owners": [VITRE, RENNES]})
    [hit] = as_member(RENNES).get("hits").json()["hits"]
    assert {k: hit[k] for k in ("reference", "reporter", "place", "severity", "note")} == {
        "reference": beacon(1)["reference"],
        "reporter": PARC,
        "place": "forum",
        "severity": "critical",
        "note": "case 12",
    }
    assert as_member(RENNES).get(f"hits?after={hit['hit']}").json() == {"hits": []}
    assert as_member(RENNES).get("hits?since=2026-05-04T08:00:01Z").json() == {"hits": []}
    assert as_member(PARC).get("hits").json() == {"hits": []}
    assert len(as_member(VITRE).get("hits").json()["hits"]) == 1
    as_member(RENNES).post("beacons", {"withdraw": [beacon(1)["reference"]]})
    assert len(as_member(RENNES).get("hits").json()["hits"]) == 1


def test_what_a_range_shows_is_not_enough_to_report_or_to_publish(as_member: As) -> None:
    as_member(RENNES).post("beacons", {"publish": [beacon(1, "5" * 64)]})
    known = ("5" * 36).ljust(64, "0")
    problem(as_member(PARC).post("hits", report(known)), 404)
    as_member(PARC).post("beacons", {"publish": [beacon(9, known)]})
    assert as_member(VITRE).post("hits", report("5" * 64)).json() == {"owners": [RENNES]}


def test_every_change_is_in_the_ledger(registry: sa.Connection, as_member: As) -> None:
    as_member(RENNES).post("beacons", {"publish": [beacon(1), beacon(2)]})
    as_member(PARC).post("hits", report(beacon(1)["digest"], note="case 12"))
    as_member(PARC).get("range/0101")
    revoke_member(registry, RENNES, AT)
    told = [(entry.kind, dict(entry.body)) for entry in entries(registry)][-3:]
    registry.rollback()
    assert told == [
        ("exchange publish", {"member": RENNES, "published": 2, "withdrawn": 0}),
        (
            "exchange hit",
            {
                "hit": told[1][1]["hit"],
                "reporter": PARC,
                "owner": RENNES,
                "reference": beacon(1)["reference"],
                "seen_at": "2026-05-04T08:00:00.000000Z",
                "place": "forum",
                "severity": "warning",
            },
        ),
        ("exchange member", {"name": RENNES, "change": "revoked", "withdrawn": 2}),
    ]
    faults, count, _ = verify_registry(registry, [])
    assert (faults, count) == ([], 7)


def test_calls_are_limited_by_member_and_kind(serve: Callable[..., Any]) -> None:
    limits = Limits(lookups=Limit(0.5, 3), reports=Limit(1, 1))
    with serve(limits) as exchange:
        parc, rennes = Caller(exchange, PARC), Caller(exchange, RENNES)
        statuses = [parc.get("range/0101").status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        refused = parc.get("range/0101")
        assert problem(refused, 429)["title"] == "Too Many Requests"
        assert refused.headers["retry-after"] == "2"
        assert rennes.get("range/0101").status_code == 200
        assert parc.get("status").status_code == 200
        exchange.clock.pass_(2)
        assert [parc.get("range/0101").status_code for _ in range(2)] == [200, 429]
        for one in (parc, rennes):
            one.http.close()


def test_a_member_has_so_many_beacons_at_most(serve: Callable[..., Any]) -> None:
    with serve(Limits(beacons=2)) as exchange:
        rennes = Caller(exchange, RENNES)
        assert rennes.post("beacons", {"publish": [beacon(1), beacon(2)]}).status_code == 200
        problem(rennes.post("beacons", {"publish": [beacon(3)]}), 409)
        assert rennes.get("beacons").json()["count"] == 2
        swap = {"publish": [beacon(3)], "withdraw": [beacon(1)["reference"]]}
        assert rennes.post("beacons", swap).json() == {"published": 1, "withdrawn": 1}
        rennes.http.close()


def test_large_bodies_are_refused_however_they_come(as_member: As) -> None:
    large = b"[" + b" " * LARGEST_BODY
    http = as_member(RENNES).http
    json_body = {"Content-Type": "application/json"}
    problem(http.post("beacons", content=large, headers=json_body), 413)

    def chunks() -> Any:
        for at in range(0, len(large), 65536):
            yield large[at : at + 65536]

    # the server may end the call before all of it was sent
    with suppress(httpx.WriteError):
        problem(http.post("beacons", content=chunks(), headers=json_body), 413)
    # two lengths, or none that can be read, reach no application
    for length in (b"-1", b"1e3", b"9" * 40):
        assert b" 4" in raw(http.base_url, length)[:15]
    assert as_member(RENNES).get("status").status_code == 200


def raw(url: httpx.URL, length: bytes) -> bytes:
    with socket.create_connection((url.host, url.port or 80), timeout=5) as spoken:
        spoken.sendall(
            b"POST /v1/beacons HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\n{}"
        )
        return spoken.recv(4096)


def test_errors_are_problems_and_quote_nothing(as_member: As) -> None:
    http = as_member(RENNES).http
    json_body = {"Content-Type": "application/json"}
    secret = "DUPONT Marie"
    bodies: list[Any] = [
        {"publish": [{**beacon(1), "digest": secret}]},
        {"publish": [{**beacon(1), secret: 1}]},
        {"publish": [{**beacon(1), "expires_at": secret}]},
        {"publish": [{**beacon(1), "expires_at": "2026-05-04T08:00:00"}]},
        {"publish": [{**beacon(1), "expires_at": "0001-01-01T00:00:00+14:00"}]},
        {"withdraw": [secret]},
        {"withdraw": secret},
        [secret],
        secret,
        None,
        {"publish": [beacon(n) for n in range(1001)]},
    ]
    for body in bodies:
        answer = http.post("beacons", json=body)
        problem(answer, 422)
        assert secret not in answer.text
    for content in (b"", b"{", b"[" * 100_000, b"\xff", b'{"a":' * 50_000, f'"{secret}'.encode()):
        answer = http.post("beacons", content=content, headers=json_body)
        problem(answer, 422 if answer.status_code == 422 else 400)
        assert secret not in answer.text
    for note in ("a\0b", "\ud800", "x" * 201, "a\nb"):
        content = json.dumps(report("0" * 64, note=note)).encode()
        problem(http.post("hits", content=content, headers=json_body), 422)
    for path in ("nothing", "range/0102", "range/01", "range/" + "0" * 17, "../openapi.json"):
        answer = http.get(path)
        problem(answer, answer.status_code)
        assert answer.status_code in (404, 422)
    for query in ("hits?after=-1", "hits?after=" + "9" * 30, "hits?since=now", "beacons?after=x"):
        problem(http.get(query), 422)
    problem(http.delete("beacons"), 405)
    assert http.get("/docs").status_code == http.get("/openapi.json").status_code == 404


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES_OF_MEMBERS = st.sampled_from(
    [*Publication.model_fields, *Beacon.model_fields, *Report.model_fields]
)
LIKELY = VALUES | st.sampled_from(
    ["0" * 32, "0" * 64, "0" * 128, UNTIL, "forum", "2999-12-31T23:59:59-23:59", "-1", 2**70]
)
BODIES = st.recursive(
    LIKELY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES_OF_MEMBERS, inner),
    max_leaves=12,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=BODIES, path=st.sampled_from(["beacons", "hits"]))
def test_no_body_makes_the_server_fail(
    exchange: Exchange, as_member: As, body: object, path: str
) -> None:
    exchange.clock.ticks += 60
    content = json.dumps(body).encode()
    header = {"Content-Type": "application/json"}
    answer = as_member(RENNES).http.post(path, content=content, headers=header)
    assert answer.status_code in (200, 404, 422)


def test_a_store_that_is_away_is_told_without_its_address(
    exchange: Exchange, as_member: As, cluster: Any, registry: sa.Connection
) -> None:
    assert as_member(RENNES).get("status").status_code == 200
    with registry.begin():
        registry.execute(sa.text("ALTER TABLE balise_registry.exchange_beacon RENAME TO away"))
    answer = as_member(RENNES).get("range/0101")
    assert problem(answer, 503)["detail"] == "the exchange cannot answer now"
    assert answer.headers["retry-after"] == "30"
    with registry.begin():
        registry.execute(sa.text("ALTER TABLE balise_registry.away RENAME TO exchange_beacon"))
    assert as_member(RENNES).get("range/0101").status_code == 200


def test_a_role_with_the_rights_of_the_page_is_enough(
    exchange: Exchange, project: Path, cluster: Any, home: psycopg.Connection[Any]
) -> None:
    page = (project / "docs/how-to/run-an-exchange.md").read_text("utf-8")
    [rights] = re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    home.execute(rights.encode())
    engine = engine_of(cluster.dsn(home.info.dbname, "pgbalise_exchange"), 1)
    with engine.connect() as registry:
        member = member_of(registry, exchange.tokens[RENNES])
        assert member is not None
        here = region(registry)
        given = [Beacon.model_validate(beacon(n)) for n in (1, 2)]
        assert publish(registry, member, given, [], AT, most=9) == (2, 0)
        assert publish(registry, member, given[:1], [beacon(2)["reference"]], AT, most=9) == (1, 1)
        assert len(range_entries(registry, here, "0101", AT)) == 512
        told = Report.model_validate(report(beacon(1)["digest"]))
        assert record_hit(registry, member, told, AT) == [RENNES]
        assert len(own_hits(registry, member, 0, None)) == own_beacons(registry, member, "", AT)[1]
        with pytest.raises(DatabaseProblem, match="permission denied"):
            add_member(registry, "another", AT)
    engine.dispose()
    home.execute("DROP OWNED BY pgbalise_exchange; DROP ROLE pgbalise_exchange")


def test_without_tls_it_listens_on_this_machine_only(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        check_listen(Listen(host, 0))
    for host in ("0.0.0.0", "::", "192.0.2.1", "exchange.example.org"):
        with pytest.raises(InvalidInput, match="without TLS"):
            check_listen(Listen(host, 0))
        check_listen(Listen(host, 0, without_tls=True))
        check_listen(Listen(host, 0, tmp_path, tmp_path))
    with pytest.raises(InvalidInput, match="both"):
        check_listen(Listen("127.0.0.1", 0, tmp_path))
    with pytest.raises(EnvironmentProblem, match="certificate"):
        prepared(lambda *_: None, Listen("127.0.0.1", 0, tmp_path / "a", tmp_path / "b"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8711", ("127.0.0.1", 8711)),
        (":8711", ("127.0.0.1", 8711)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:80", ("::1", 80)),
        ("exchange.example.org:443", ("exchange.example.org", 443)),
    ],
)
def test_addresses_are_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["", "host", "host:", "host:http", "host:65536", "h:٣"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="HOST:PORT"):
        parse_listen(text)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        f" -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {key} -out {chain}",
        shell=True,
        check=True,
        capture_output=True,
    )
    return chain, key


def test_tls_is_verified(serve: Callable[..., Any], certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    with serve(certificate=chain, key=key) as exchange:
        assert exchange.client(RENNES, chain).status().member == RENNES
        with pytest.raises(EnvironmentProblem, match="cannot be reached"):
            exchange.client(RENNES).status()
        plain = replace(exchange, url=exchange.url.replace("https", "http"))
        with pytest.raises(EnvironmentProblem, match="cannot be reached"):
            plain.client(RENNES, chain).status()
