"""A seal holds, whatever is done to the file."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pgbalise.errors import InvalidInput
from pgbalise.report.sealing import NotGenuine, public_key_of, report_format, seal, unseal

KEY, OTHER = bytes(range(32)), bytes(32)
AT = datetime(2026, 6, 7, 14, 3, 5, tzinfo=UTC)
REPORTS = {
    "html": b"<!DOCTYPE html>\n<html><p>role_17</p></html>\n",
    "pdf": b"%PDF-1.7\n1 0 obj\nendobj\nxref\nstartxref\n18\n%%EOF\n",
    "json": b'{"verdict":["role_17"]}\n',
}


def stamp(message: bytes) -> bytes:
    return b"response over " + message


@pytest.fixture(params=REPORTS)
def report(request: pytest.FixtureRequest) -> bytes:
    return REPORTS[request.param]


def test_sealed_report_comes_back_with_who_and_when(report: bytes) -> None:
    inside, made = unseal(seal(report, KEY, AT))
    assert inside == report
    assert (made.public_key, made.signed_at, made.timestamp) == (public_key_of(KEY), AT, None)


def test_same_report_gives_the_same_seal_in_any_time_zone(report: bytes) -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=2))).replace(microsecond=999)
    assert seal(report, KEY, elsewhere) == seal(report, KEY, AT)


def test_seal_is_what_its_description_says() -> None:
    """Anyone can check a seal with nothing but Ed25519, SHA-256 and this text."""
    import hashlib

    document = seal(REPORTS["html"], KEY, AT, stamp)
    line = document.splitlines()[-1]
    members = json.loads(re.fullmatch(rb"<!--pgbalise-seal (.*)-->", line)[1])  # type: ignore[index]
    digest = hashlib.sha256(document[: -len(line) - 1]).hexdigest()
    message = (
        f"pgbalise report seal 1\nhtml\n{members['public_key']}\n2026-06-07T14:03:05Z\n"
        f"timestamped\n{digest}"
    )
    signature = bytes.fromhex(members["signature"])
    public = Ed25519PrivateKey.from_private_bytes(KEY).public_key()
    assert public.public_bytes_raw().hex() == members["public_key"]
    public.verify(signature, message.encode())
    response = base64.b64decode(members["timestamp"])
    assert response == b"response over " + signature
    public.verify(
        bytes.fromhex(members["timestamp_signature"]),
        b"pgbalise report timestamp 1\n" + signature + response,
    )


@pytest.mark.parametrize("timestamp", [None, stamp], ids=["no timestamp", "timestamp"])
def test_no_byte_can_change(report: bytes, timestamp: object) -> None:
    document = seal(report, KEY, AT, timestamp)  # type: ignore[arg-type]
    for place in range(len(document)):
        for bit in (0x01, 0x20, 0x80):
            changed = bytearray(document)
            changed[place] ^= bit
            with pytest.raises(InvalidInput):
                unseal(bytes(changed))


def test_no_byte_can_go_or_come(report: bytes) -> None:
    document = seal(report, KEY, AT, stamp)
    for place in range(len(document)):
        with pytest.raises(InvalidInput):
            unseal(document[:place] + document[place + 1 :])
        for extra in (b" ", b"\n", b"0"):
            with pytest.raises(InvalidInput):
                unseal(document[:place] + extra + document[place:])
    for end in (b" ", b"\n", b"<p>more</p>\n", document, document.splitlines()[-1]):
        with pytest.raises(NotGenuine):
            unseal(document + end)


def test_seal_of_one_report_does_not_fit_another(report: bytes) -> None:
    line = seal(report, KEY, AT)[len(report) :]
    other = report.replace(b"1", b"2", 1)
    with pytest.raises(NotGenuine, match="not what was signed"):
        unseal(other + line)


def test_other_line_ends_void_the_seal(report: bytes) -> None:
    with pytest.raises(NotGenuine):
        unseal(seal(report, KEY, AT).replace(b"\n", b"\r\n"))


def test_second_seal_is_refused_when_made_and_when_checked(report: bytes) -> None:
    document = seal(report, KEY, AT)
    with pytest.raises(InvalidInput, match="already"):
        seal(document, OTHER, AT)
    line = seal(report, OTHER, AT)[len(report) :]
    for twice in (document + line, report + line + document[len(report) :]):
        with pytest.raises(NotGenuine):
            unseal(twice)


def members_of(document: bytes) -> dict[str, str]:
    found = re.search(rb"<!--pgbalise-seal (.*)-->\n$", document)
    assert found is not None
    return dict(json.loads(found[1]))


def with_members(report: bytes, members: dict[str, str]) -> bytes:
    text = json.dumps(members, separators=(",", ":")).encode()
    return report + b"<!--pgbalise-seal " + text + b"-->\n"


@pytest.mark.parametrize(
    "member", ["public_key", "signed_at", "signature", "timestamp", "timestamp_signature"]
)
def test_member_of_another_seal_does_not_fit(member: str) -> None:
    report = REPORTS["html"]
    mine = members_of(seal(report, KEY, AT, stamp))
    theirs = members_of(seal(report, OTHER, AT + timedelta(days=1), stamp))
    with pytest.raises(NotGenuine):
        unseal(with_members(report, mine | {member: theirs[member]}))


def test_timestamp_can_be_neither_removed_nor_added() -> None:
    report = REPORTS["html"]
    stamped = members_of(seal(report, KEY, AT, stamp))
    removed = {name: text for name, text in stamped.items() if "timestamp" not in name}
    bare = members_of(seal(report, KEY, AT))
    added = stamped | {name: bare[name] for name in bare}
    for forged in (removed, added):
        with pytest.raises(NotGenuine, match="not what was signed"):
            unseal(with_members(report, forged))


@pytest.mark.parametrize(
    "line",
    [
        b"<!--pgbalise-seal -->",
        b"<!--pgbalise-seal {}-->",
        b"<!--pgbalise-seal []-->",
        b"<!--pgbalise-seal null-->",
        b"<!--pgbalise-seal " + b"[" * 5000 + b"-->",
        b'<!--pgbalise-seal {"public_key":1,"signature":2}-->',
        b"<!--pgbalise-seal \xff-->",
        b"<!--pgbalise-seal {",
    ],
)
def test_malformed_seal_is_no_seal(line: bytes) -> None:
    for end in (b"", b"\n"):
        with pytest.raises(NotGenuine):
            unseal(REPORTS["html"] + line + end)


def test_other_way_to_write_the_same_seal_is_refused() -> None:
    report = REPORTS["html"]
    members = members_of(seal(report, KEY, AT))
    for changed in (
        dict(reversed(members.items())),
        members | {"public_key": members["public_key"].upper()},
        members | {"signed_at": "2026-6-7T14:03:05Z"},
        members | {"more": "1"},
        members | {"version": 2},
    ):
        with pytest.raises(NotGenuine):
            unseal(with_members(report, changed))  # type: ignore[arg-type]


def test_report_without_seal_is_not_genuine(report: bytes) -> None:
    with pytest.raises(NotGenuine, match="no seal"):
        unseal(report)


def test_what_is_no_report_is_refused() -> None:
    for document in (b"", b"PK\x03\x04", b"\xef\xbb\xbf<!DOCTYPE html>\n", b"<!doctype html>"):
        with pytest.raises(InvalidInput, match="no report"):
            report_format(document)
        with pytest.raises(InvalidInput):
            seal(document, KEY, AT)
    with pytest.raises(InvalidInput, match="end of a line"):
        seal(b"{}", KEY, AT)


def test_end_of_a_sealed_pdf_is_where_readers_look() -> None:
    assert seal(REPORTS["pdf"], KEY, AT, lambda _: bytes(6000)).endswith(b"startxref\n18\n%%EOF\n")
