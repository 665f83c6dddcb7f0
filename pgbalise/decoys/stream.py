"""Choices drawn from a seed: the same seed and topic give the same choices, always."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from pgbalise.errors import InvalidInput
from pgbalise.marking.keys import frame

if TYPE_CHECKING:
    from _hashlib import HASHXOF

T = TypeVar("T")

_FIRST_BYTES: Final = 128
_WORD: Final = 8


@cache
def _start(topic: str) -> HASHXOF:
    return hashlib.shake_128(frame("pgbalise/1/decoy", topic))


class Stream:
    """Choices of one topic: SHAKE-128 (FIPS 202) of a seed and the topic, eight bytes a choice.

    Topics are independent, so that what is drawn of one does not hang on whether another is asked
    for. A choice among n is a 64-bit number modulo n: no value is more than n / 2**64 too likely.
    """

    __slots__ = ("_at", "_bytes", "_source")

    def __init__(self, seed: bytes, topic: str) -> None:
        self._source = _start(topic).copy()
        self._source.update(seed)
        self._bytes = self._source.digest(_FIRST_BYTES)
        self._at = 0

    def word(self) -> int:
        """Return the next number, 0 to 2**64 - 1."""
        start = self._at
        if start == len(self._bytes):
            self._bytes = self._source.digest(2 * start)
        self._at = start + _WORD
        return int.from_bytes(self._bytes[start : start + _WORD], "big")

    def below(self, count: int) -> int:
        """Return a number from 0 to ``count`` - 1."""
        return self.word() % count

    def share(self) -> float:
        """Return a number of at least 0 and less than 1."""
        return (self.word() >> 11) / (1 << 53)

    def pick(self, values: Sequence[T]) -> T:
        """Return one of the values, each as likely as the others."""
        return values[self.word() % len(values)]

    def digits(self, count: int) -> str:
        """Return that many decimal digits."""
        return f"{self.word() % 10**count:0{count}d}" if count else ""


@dataclass(frozen=True)
class Mixture(Generic[T]):
    """Values that are drawn with unequal shares, which sum to 1."""

    values: tuple[T, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, counts: Mapping[T, float]) -> Mixture[T]:
        """Return values with shares in proportion to their counts; raise InvalidInput for none."""
        total = sum(counts.values())
        if total <= 0:
            raise InvalidInput("there is nothing to draw from")
        return cls(tuple(counts), tuple(count / total for count in counts.values()))

    @classmethod
    def even(cls, values: Iterable[T]) -> Mixture[T]:
        """Return values that are equally likely; raise InvalidInput for none."""
        return cls.of(dict.fromkeys(values, 1.0))

    def pick(self, stream: Stream) -> T:
        """Draw a value; takes one choice of the stream, none where there is but one value."""
        if len(self.values) == 1:
            return self.values[0]
        point = stream.share()
        for value, upto in zip(self.values, accumulate(self.shares), strict=True):
            if point < upto:
                return value
        return self.values[-1]

    @property
    def space(self) -> float:
        """1 over the share of the likeliest: n values hold what is drawn with n / space at most."""
        return 1 / max(self.shares)
