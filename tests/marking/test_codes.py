from __future__ import annotations

import numpy as np

from pgbalise.marking.codes import (
    BIAS_CUTOFF,
    CODE_LENGTH,
    bias,
    codeword,
    codewords,
    commitment,
    dither,
    stored_word,
)
from pgbalise.marking.keys import MasterKey

KEY = MasterKey(bytes(range(32)))
THRESHOLDS = bias(KEY, 1)


def test_the_bias_follows_the_arcsine_law_cut_at_both_ends() -> None:
    share = np.sort(THRESHOLDS / 65536)
    assert share[0] >= BIAS_CUTOFF - 1e-4
    assert share[-1] <= 1 - BIAS_CUTOFF + 1e-4
    low = np.arcsin(np.sqrt(BIAS_CUTOFF))
    expected = (np.arcsin(np.sqrt(share)) - low) / (np.pi / 2 - 2 * low)
    distance = np.max(np.abs(expected - (np.arange(CODE_LENGTH) + 0.5) / CODE_LENGTH))
    # the 0.1 % critical value of Kolmogorov and Smirnov
    assert distance < 1.95 / np.sqrt(CODE_LENGTH)


def test_bits_are_one_as_often_as_the_bias_says_and_recipients_are_independent() -> None:
    words = np.stack([codeword(KEY, f"r{n}", 1, THRESHOLDS) for n in range(40)]).astype(float)
    p = THRESHOLDS / 65536
    standard = (words - p) / np.sqrt(p * (1 - p))
    assert abs(standard.mean()) < 4 / np.sqrt(standard.size)
    assert abs(np.mean(standard**2) - 1) < 0.02
    pairs = standard @ standard.T / CODE_LENGTH
    assert np.abs(pairs - np.diag(np.diag(pairs))).max() < 5 / np.sqrt(CODE_LENGTH)


def test_packed_codewords_are_the_codewords() -> None:
    packed = codewords(KEY, ["a", "b"], 2, THRESHOLDS)
    for row, name in zip(packed, ["a", "b"], strict=True):
        bits = np.unpackbits(row, bitorder="little")
        assert np.array_equal(bits, codeword(KEY, name, 2, THRESHOLDS))


def test_the_stored_word_hides_the_bias() -> None:
    word = codeword(KEY, "a", 1, THRESHOLDS)
    stored = np.unpackbits(np.frombuffer(stored_word(word, dither(KEY, 1)), np.uint8))
    likely = THRESHOLDS > 60_000
    assert len(stored) == CODE_LENGTH
    assert word[likely].mean() > 0.9
    assert (
        abs(
            np.unpackbits(
                np.frombuffer(stored_word(word, dither(KEY, 1)), np.uint8), bitorder="little"
            )[likely].mean()
            - 0.5
        )
        < 0.03
    )


def test_everything_depends_on_key_recipient_and_epoch() -> None:
    word = codeword(KEY, "a", 1, THRESHOLDS)
    assert commitment("a", 1, word) != commitment("b", 1, word)
    assert commitment("a", 1, word) != commitment("a", 2, word)
    assert not np.array_equal(word, codeword(KEY, "a", 2, THRESHOLDS))
    assert not np.array_equal(THRESHOLDS, bias(KEY, 2))
    assert not np.array_equal(dither(KEY, 1), dither(MasterKey(bytes(32)), 1))
