"""Candidates of long texts take time in proportion to their length."""

from __future__ import annotations

import time

import pytest

from pgbalise.decoys.candidates import candidates


def seconds(text: str) -> float:
    start = time.process_time()
    candidates(text)
    return time.process_time() - start


@pytest.mark.parametrize("begins", ["@ ", "a@"])
@pytest.mark.parametrize("goes_on", ["a", "a.", "1-"])
def test_what_may_be_an_address_takes_no_longer_than_its_length(begins: str, goes_on: str) -> None:
    short, long = (
        min(seconds(begins + goes_on * count) for _ in range(3)) for count in (4_000, 32_000)
    )
    assert long < 24 * short + 0.02


def test_an_address_in_a_long_text_is_found() -> None:
    text = "x" * 5_000 + " Anne.LeGoff@Example.org, " + "y" * 5_000
    assert "anne.legoff@example.org" in candidates(text).texts
