"""Timestamps of a real authority (openssl ts)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgbalise.errors import EnvironmentProblem, InvalidInput
from pgbalise.report.timestamp import check_timestamp, read_certificates, request_timestamp

from .conftest import Authority


def test_authority_confirms_bytes_and_nothing_else(authority: Authority) -> None:
    response = request_timestamp(authority.url, b"a signature")
    trusted = read_certificates(authority.certificate)
    found = check_timestamp(response, b"a signature", trusted)
    assert found is not None
    assert abs(found.at - datetime.now(UTC)) < timedelta(minutes=5)
    assert found.authority == "CN=Test authority"
    assert check_timestamp(response, b"another signature", trusted) is None
    assert (
        check_timestamp(response, b"a signature", read_certificates(authority.other_certificate))
        is None
    )


def test_damaged_response_is_not_good(authority: Authority) -> None:
    response = request_timestamp(authority.url, b"a signature")
    trusted = read_certificates(authority.certificate)
    imprint = response.index(bytes.fromhex("0420"))
    for changed in (b"", response[:100], response[: imprint + 9] + b"?" + response[imprint + 10 :]):
        assert check_timestamp(changed, b"a signature", trusted) is None


@pytest.mark.parametrize("path", ["silent", "stale"])
def test_answer_that_is_none_or_an_old_one_is_refused(authority: Authority, path: str) -> None:
    request_timestamp(authority.url, b"first")
    with pytest.raises(EnvironmentProblem, match="authority"):
        request_timestamp(authority.url + path, b"first")


def test_authority_out_of_reach_is_told_in_one_line() -> None:
    with pytest.raises(EnvironmentProblem) as problem:
        request_timestamp("http://127.0.0.1:1/", b"x", seconds=5)
    assert "did not answer" in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    "url", ["", "ftp://127.0.0.1/", "file:///etc/passwd", "http://", "http://u:p@h/", "http://[x/"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="address"):
        request_timestamp(url, b"x")


def test_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_certificates(tmp_path / "missing.pem")
    (tmp_path / "no.pem").write_text("no")
    with pytest.raises(InvalidInput, match="no certificate"):
        read_certificates(tmp_path / "no.pem")
