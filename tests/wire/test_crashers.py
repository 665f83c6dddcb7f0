"""Inputs of the fuzzer that once brought out something else than a ProtocolViolation."""

from __future__ import annotations

import base64

import pytest

from tests.fuzz.fuzz_wire import reproduce

CRASHERS = {
    "a negotiation that is cut": "+/UA",
    "a negotiation of a version beyond 2^31": (
        "0wAZRgAAAAwAAAAAAAAAAFMAAAAMAAAAAAAAAAAAFUQAAAAKYQBiAAAAZAAAAAphAGIAAACADHYAAAAM//9BVEFM"
        "AAAAJlEAAAAMAAAAAAAAAABmAAAADAAAAAAAAAAARgAAAAwAAAAAAAAAAIARbgAAAAVJYwAAAAVJcwAAAAVJ"
    ),
}


@pytest.mark.parametrize("name", CRASHERS)
def test_a_crasher_is_survived(name: str) -> None:
    reproduce(base64.b64decode(CRASHERS[name]))
