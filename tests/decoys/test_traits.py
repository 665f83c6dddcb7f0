"""Canonical forms: what makes no difference between two writings."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.decoys.traits import fold, person_trait


@given(st.text())
def test_a_folded_text_is_small_ascii_words_and_stays_as_it_is(text: str) -> None:
    folded = fold(text)
    assert re.fullmatch("(?:[0-9a-z]+(?: [0-9a-z]+)*)?", folded)
    assert fold(folded) == folded


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("Jean™", "jeantm"),
        ("№ 12", "no 12"),
        ("ﬁLS", "fils"),
        ("Œuvrard-LEFÈVRE", "oeuvrard lefevre"),
        ("D'ARTAGNAN", "d artagnan"),
    ],
)
def test_signs_ligatures_and_accents_become_plain_letters(written: str, folded: str) -> None:
    assert fold(written) == folded


@given(st.sampled_from(["Jean™", "Noël", "ZOÉ", "ßtrauss"]))
def test_case_makes_no_difference(name: str) -> None:
    written = f"{name} Martin"
    assert person_trait(written, "1985-05-12") == person_trait(written.lower(), "1985-05-12")
