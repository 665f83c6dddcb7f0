"""Tardos codewords: bias vector, codewords, dither, and the word a database stores.

G. Tardos, "Optimal probabilistic fingerprint codes", J. ACM 55(2), 2008. Position i has a bias p_i
drawn once from the arcsine law cut at ``BIAS_CUTOFF``; bit i of a recipient's codeword is 1 with
probability p_i, independently of everything else. All of it derives from the master key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pgbalise.marking.keys import MasterKey, frame

CODE_LENGTH = 64_000
"""Positions in a codeword. 8,000 bytes are the largest round size that PostgreSQL can keep inside
one 8 kB heap page beside the row's header: read in place, never de-TOASTed."""

BIAS_CUTOFF = 0.01
"""The arcsine law of the bias is cut to [BIAS_CUTOFF, 1 - BIAS_CUTOFF]."""


def bias(key: MasterKey, epoch: int) -> NDArray[np.uint16]:
    """Return the bias thresholds t, uint16[CODE_LENGTH]; p_i = t_i / 65536 exactly.

    With r uniform between asin(sqrt(cutoff)) and its complement to pi/2, p = sin(r)^2 follows
    the arcsine law cut at both ends.
    """
    stream = key.stream("bias", epoch, length=8 * CODE_LENGTH)
    uniform = (np.frombuffer(stream, "<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53
    low = np.arcsin(np.sqrt(BIAS_CUTOFF))
    angle = low + uniform * (np.pi / 2 - 2 * low)
    share: NDArray[np.float64] = np.sin(angle) ** 2
    return np.rint(share * 65536).astype(np.uint16)


def codeword(
    key: MasterKey, recipient: str, epoch: int, thresholds: NDArray[np.uint16]
) -> NDArray[np.uint8]:
    """Return a recipient's codeword, uint8[CODE_LENGTH] of 0 and 1, P(bit i is 1) = p_i.

    With the first n thresholds alone it is the first n bits, for less work.
    """
    stream = key.stream("codeword", recipient, epoch, length=2 * thresholds.size)
    return (np.frombuffer(stream, "<u2") < thresholds).astype(np.uint8)


def codewords(
    key: MasterKey, recipients: Sequence[str], epoch: int, thresholds: NDArray[np.uint16]
) -> NDArray[np.uint8]:
    """Return many codewords, packed: uint8[len(recipients), CODE_LENGTH // 8], least bit first.

    With the first 8 n thresholds alone it is the first n bytes of each.
    """
    out = np.empty((len(recipients), thresholds.size // 8), np.uint8)
    for row, recipient in enumerate(recipients):
        out[row] = np.packbits(codeword(key, recipient, epoch, thresholds), bitorder="little")
    return out


def dither(key: MasterKey, epoch: int) -> NDArray[np.uint8]:
    """Return the secret dither, uint8[CODE_LENGTH] of fair bits; it never leaves the auditor."""
    stream = key.stream("dither", epoch, length=CODE_LENGTH // 8)
    return np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little")


def stored_word(codeword_bits: NDArray[np.uint8], dither_bits: NDArray[np.uint8]) -> bytes:
    """Return what the database keeps for a recipient: codeword XOR dither, CODE_LENGTH // 8 bytes.

    Bit n is PostgreSQL's ``get_bit(word, n)``: least significant bit of each byte first.
    """
    return np.packbits(codeword_bits ^ dither_bits, bitorder="little").tobytes()


def commitment(recipient: str, epoch: int, codeword_bits: NDArray[np.uint8]) -> bytes:
    """Return the SHA-256 commitment to a codeword, made at enrolment and checked at trial.

    The codeword's own entropy (tens of thousands of bits) hides it.
    """
    packed = np.packbits(codeword_bits, bitorder="little").tobytes()
    return hashlib.sha256(frame("pgbalise/1 commitment", recipient, epoch, packed)).digest()
