"""All occurrences of many words, as an automaton finds them."""

from __future__ import annotations

import random

import ahocorasick_rs
from hypothesis import given
from hypothesis import strategies as st

from pgbalise.scan.lexicon import LEAST, Lexicon, Word

texts = st.text("ab1", max_size=200).map(str.encode)
words = st.lists(
    st.tuples(st.text("ab1", min_size=LEAST, max_size=18), st.integers(0, 20)),
    min_size=1,
    max_size=20,
    unique_by=lambda drawn: drawn[0],
)


def by_automaton(found: list[Word], text: bytes) -> set[tuple[int, int]]:
    automaton = ahocorasick_rs.BytesAhoCorasick([word.text for word in found])
    matches = automaton.find_matches_as_indexes(text, overlapping=True)
    return {(start, index) for index, start, _ in matches}


@given(texts, words)
def test_small_texts_give_what_an_automaton_gives(
    text: bytes, drawn: list[tuple[str, int]]
) -> None:
    found = [Word(word.encode(), pivot) for word, pivot in drawn]
    assert set(Lexicon(found).find(text)) == by_automaton(found, text)


def test_many_words_of_digits_give_what_an_automaton_gives() -> None:
    drawn = random.Random(1)
    digits = {
        f"{drawn.randrange(10**size)}".encode() for size in range(6, 14) for _ in range(2_000)
    }
    found = [Word(word, len(word)) for word in sorted(digits) if len(word) >= LEAST]
    text = "".join(drawn.choices("0123456789", k=300_000)).encode()
    expected = by_automaton(found, text)
    assert len(expected) > 100
    assert set(Lexicon(found).find(text)) == expected
