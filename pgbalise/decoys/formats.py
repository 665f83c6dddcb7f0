"""The site's own way of writing numbers, learned from a column: lengths, prefixes, check digits.

A format is a mixture of blocks. A block is a shape (runs of digits, of letters, of punctuation)
and, where numbers keep apart (a range per site or per period), a range. Real numbers are only
learned from: what is drawn is never one of ``taken``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from pgbalise.decoys.stream import Mixture, Stream
from pgbalise.errors import EnvironmentProblem, InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_HELD: Final = 5
"""What fewer rows hold may tell who they are: it is not learned."""
LEAST_CHECKED: Final = 20
"""A check digit that holds on fewer distinct numbers may hold by chance (1 in 10 per number)."""

# Eighteen digits fit into 64 bits.
_RUN: Final = re.compile(r"[0-9]{1,18}|[A-Za-z]+|[^0-9A-Za-z]+")
_FEW: Final = 60
_WIDE_GAP: Final = 100.0
_ENUMERATED: Final = 5_000_000
_TRIES: Final = 2_000


@dataclass(frozen=True)
class Digits:
    """A number from ``low`` to ``high``, written with ``width`` digits."""

    width: int
    low: int
    high: int

    def draw(self, stream: Stream) -> str:
        """Draw a number of the range."""
        return f"{self.low + stream.below(self.high - self.low + 1):0{self.width}d}"

    @property
    def space(self) -> float:
        """How many there are."""
        return self.high - self.low + 1

    @property
    def pattern(self) -> str:
        """Regular expression of one capture."""
        return f"([0-9]{{{self.width}}})"


@dataclass(frozen=True)
class Letters:
    """Letters of which each place has its own alphabet."""

    alphabets: tuple[str, ...]

    def draw(self, stream: Stream) -> str:
        """Draw a letter for each place."""
        return "".join(stream.pick(alphabet) for alphabet in self.alphabets)

    @property
    def space(self) -> float:
        """How many there are, when a and A are one."""
        return math.prod(
            len(alphabet) / max(Counter(alphabet.upper()).values()) for alphabet in self.alphabets
        )

    @property
    def pattern(self) -> str:
        """Regular expression without captures."""
        return "".join(f"[{alphabet}]" for alphabet in self.alphabets)


@dataclass(frozen=True)
class Choice:
    """One of a few texts, as often as the column has them."""

    texts: Mixture[str]

    def draw(self, stream: Stream) -> str:
        """Draw a text."""
        return self.texts.pick(stream)

    @property
    def space(self) -> float:
        """1 over the share of the most frequent text, when a and A are one."""
        shares: dict[str, float] = {}
        for text, share in zip(self.texts.values, self.texts.shares, strict=True):
            shares[text.upper()] = shares.get(text.upper(), 0.0) + share
        return 1 / max(shares.values())

    @property
    def pattern(self) -> str:
        """Regular expression without captures."""
        return "(?:" + "|".join(re.escape(text) for text in self.texts.values) + ")"


Part = str | Digits | Letters | Choice
"""A text stands for itself."""


@dataclass(frozen=True)
class Check:
    """Check digits at the end: ``digits`` of them, made from all digits before them."""

    name: str
    digits: int
    make: Callable[[str], str | None]
    """None for digits that such a number cannot have."""
    share: float = 1.0
    """Of digits that can have one."""


def _checks() -> tuple[Check, ...]:
    try:
        from stdnum import damm, luhn, verhoeff
        from stdnum.iso7064 import mod_11_10, mod_97_10
    except ImportError as error:
        raise EnvironmentProblem(
            "numbers of patients who do not exist need the package python-stdnum",
            hint="run: pip install 'pgbalise[decoys]'",
        ) from error
    return (
        Check("Luhn", 1, luhn.calc_check_digit),
        Check("ISO 7064 mod 97-10", 2, mod_97_10.calc_check_digits),
        Check("97 less the remainder", 2, lambda body: f"{97 - int(body) % 97:02d}"),
        Check("remainder by 97", 2, lambda body: f"{int(body) % 97:02d}"),
        Check("ISO 7064 mod 11,10", 1, mod_11_10.calc_check_digit),
        Check("weights 2, 3, 4, ... mod 11", 1, _mod_11, 0.9),
        Check("Verhoeff", 1, verhoeff.calc_check_digit),
        Check("Damm", 1, damm.calc_check_digit),
    )


def _mod_11(body: str) -> str | None:
    rest = -sum(weight * int(digit) for weight, digit in enumerate(reversed(body), 2)) % 11
    return str(rest) if rest < 10 else None


def find_check(numbers: Sequence[str]) -> Check | None:
    """Return the check digits that all numbers (digits only) end in; None when none is sure."""
    if len(set(numbers)) < LEAST_CHECKED:
        return None
    for check in _checks():
        if all(
            len(number) > check.digits + 1
            and check.make(number[: -check.digits]) == number[-check.digits :]
            for number in numbers
        ):
            return check
    return None


@dataclass(frozen=True)
class Block:
    """Numbers of one shape and range."""

    parts: tuple[Part, ...]
    check: Check | None = None

    @property
    def space(self) -> float:
        """Among how many equally likely values a number of this block is drawn, at least."""
        possible = self.check.share if self.check else 1.0
        return possible * math.prod(map(_space, self.parts))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the block's numbers and, loosely, others of its shape; captures its ranges."""
        body = "".join(re.escape(p) if isinstance(p, str) else p.pattern for p in self.parts)
        return re.compile(body + (f"[0-9]{{{self.check.digits}}}" if self.check else ""))

    def finish(self, body: str) -> str | None:
        """Return a body with its check digits; None when it can have none."""
        if self.check is None:
            return body
        end = self.check.make("".join(letter for letter in body if letter.isdecimal()))
        return None if end is None else body + end

    def draw(self, stream: Stream) -> str | None:
        """Draw a number; None when what was drawn can have no check digit."""
        return self.finish(
            "".join(part if isinstance(part, str) else part.draw(stream) for part in self.parts)
        )


@dataclass(frozen=True)
class Format:
    """How a column's numbers are written: blocks, as often as the column has them."""

    blocks: Mixture[Block]

    @property
    def space(self) -> float:
        """Among how many equally likely values a number is drawn at least, when none is taken."""
        blocks = self.blocks
        return _least(blocks, [block.space for block in blocks.values])

    def draw(self, seed: bytes, taken: AbstractSet[str] = frozenset()) -> str:
        """Draw a number that is not taken; for many at once, keep a ``Drawer``."""
        return Drawer(self, taken).draw(Stream(seed, "number"))


class Drawer:
    """Draws numbers of a format that are not taken.

    Ranges that are full are left out. Of a range of which more than a quarter is taken, a hole is
    drawn. Raises InvalidInput when every range is full.
    """

    def __init__(self, learned: Format, taken: AbstractSet[str]) -> None:
        self._taken = taken
        self._holes: dict[int, NDArray[np.int64]] = {}
        free: dict[int, float] = {}
        left: dict[int, float] = {}
        accepted: dict[int, float] = {}
        blocks = learned.blocks
        for place, (block, share) in enumerate(zip(blocks.values, blocks.shares, strict=True)):
            held = [match for text in taken if (match := block.pattern.fullmatch(text))]
            left[place] = block.space
            accepted[place] = 1 - len(held) / block.space
            numeric = [part for part in block.parts if not isinstance(part, str)]
            only = numeric[0] if len(numeric) == 1 else None
            if isinstance(only, Digits) and only.space <= min(_ENUMERATED, 4 * len(held)):
                holes = _holes(only, (int(match[1]) for match in held))
                self._holes[place] = holes
                left[place] = len(holes) * (block.check.share if block.check else 1.0)
                accepted[place] = 1.0
            if left[place] * accepted[place] >= 1:
                free[place] = share
        if not free:
            raise InvalidInput(
                "every number of the site's format is in use",
                hint="let the next number be given by the sequence or the application",
            )
        self._blocks = blocks.values
        self._places = Mixture.of(free)
        mixed = Mixture(tuple(blocks.values[place] for place in free), self._places.shares)
        # what is passed over as taken leaves its share to all others, of every range
        self.space = _least(mixed, [left[place] for place in free]) * sum(
            share * accepted[place]
            for place, share in zip(self._places.values, self._places.shares, strict=True)
        )
        """Among how many equally likely values a number is drawn, at least."""

    def draw(self, stream: Stream) -> str:
        """Draw the stream's next number that is not taken."""
        for _ in range(_TRIES):
            place = self._places.pick(stream)
            block = self._blocks[place]
            if place in self._holes:
                holes = self._holes[place]
                hole = int(holes[stream.below(len(holes))])
                drawn = block.finish(
                    "".join(
                        part if isinstance(part, str) else f"{hole:0{part.width}d}"
                        for part in block.parts
                        if isinstance(part, str | Digits)
                    )
                )
            else:
                drawn = block.draw(stream)
            if drawn is not None and drawn not in self._taken:
                return drawn
        raise InvalidInput(
            "nearly every number of the site's format is in use",
            hint="let the next number be given by the sequence or the application",
        )


def _least(blocks: Mixture[Block], spaces: Sequence[float]) -> float:
    """Among how many equally likely values a mixture's is drawn, at least.

    Ranges of one shape have no value in common. Those of different shapes may: without hyphens,
    zeros before and the difference of a and A they may be the same.
    """
    likeliest: dict[tuple[object, ...], float] = {}
    for block, share, space in zip(blocks.values, blocks.shares, spaces, strict=True):
        shape = tuple(p.width if isinstance(p, Digits) else p for p in block.parts)
        likeliest[shape] = max(likeliest.get(shape, 0.0), share / space)
    return 1 / sum(likeliest.values())


def _holes(numbers: Digits, held: Iterable[int]) -> NDArray[np.int64]:
    empty = np.ones(numbers.high - numbers.low + 1, np.bool_)
    places = np.fromiter(held, np.int64) - numbers.low
    empty[places[(places >= 0) & (places < len(empty))]] = False
    return np.flatnonzero(empty) + numbers.low


def learn_format(texts: Iterable[str]) -> Format:
    """Learn how numbers are written from a column's texts (NULL and empty ones are left out).

    The more texts, the closer: the range of what is drawn is that of the texts given. Raises
    InvalidInput when there is none.
    """
    shapes: dict[tuple[object, ...], list[str]] = {}
    count = 0
    for text in texts:
        if text:
            count += 1
            shapes.setdefault(_shape(text), []).append(text)
    if not count:
        raise InvalidInput(
            "there is no number to learn the site's format from",
            hint="a column of numbers that is empty has the role empty",
        )
    often = {
        shape: found
        for shape, found in shapes.items()
        if len(found) >= LEAST_HELD and len(found) >= 0.005 * count
    }
    blocks: dict[Block, float] = {}
    for found in (often or {(): max(shapes.values(), key=len)}).values():
        for block, held in _blocks(found):
            blocks[block] = blocks.get(block, 0.0) + held
    return Format(Mixture.of(blocks))


def _shape(text: str) -> tuple[object, ...]:
    return tuple(
        ("0" if run[0].isdecimal() else "A" if run[0].isupper() else "a", len(run))
        if run[0].isascii() and run[0].isalnum()
        else run
        for run in _RUN.findall(text)
    )


def _blocks(texts: Sequence[str]) -> list[tuple[Block, int]]:
    """Return the blocks of texts of one shape, and how many rows each stands for."""
    columns = [list(run) for run in zip(*(_RUN.findall(text) for text in texts), strict=True)]
    check = None
    if columns[-1][0].isdecimal() and len(set(columns[-1])) >= LEAST_CHECKED:
        check = find_check(["".join(c for c in text if c.isdecimal()) for text in texts])
    if check:
        if len(columns[-1][0]) <= check.digits:
            check = None
        else:
            columns[-1] = [run[: -check.digits] for run in columns[-1]]
    parts = [_part(column) for column in columns]
    ranges = [place for place, part in enumerate(parts) if isinstance(part, Digits)]
    if not ranges:
        return [(Block(tuple(parts), check), len(texts))]
    main = max(ranges, key=lambda place: _space(parts[place]))
    numbers = np.sort(np.fromiter(map(int, columns[main]), np.int64))
    width = len(columns[main][0])
    found = [
        (
            Block((*parts[:main], Digits(width, int(c[0]), int(c[-1])), *parts[main + 1 :]), check),
            len(c),
        )
        for c in _clusters(numbers)
    ]
    often = [pair for pair in found if pair[1] >= LEAST_HELD]
    return often or found


def _space(part: Part) -> float:
    return 1.0 if isinstance(part, str) else part.space


def _part(column: Sequence[str]) -> Part:
    counts = Counter(column)
    if len(counts) == 1:
        return column[0]
    digits = column[0].isdecimal()
    if len(counts) <= _FEW and (len(counts) * LEAST_HELD <= len(column)):
        often = {text: count for text, count in counts.items() if count >= LEAST_HELD}
        if often and sum(often.values()) >= 0.9 * len(column):
            return Choice(Mixture.of({text: often[text] for text in sorted(often)}))
    if digits:
        numbers = [int(text) for text in counts]
        return Digits(len(column[0]), min(numbers), max(numbers))
    return Letters(tuple("".join(sorted(set(place))) for place in zip(*counts, strict=True)))


def _clusters(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split sorted numbers where a gap is far wider than the others are."""
    gaps = np.diff(numbers)
    if len(numbers) < 2 * LEAST_CHECKED or not gaps.any():
        return [numbers]
    usual = max(float(np.median(gaps)), 1.0)
    wide = (gaps > _WIDE_GAP * usual) & (gaps > 0.01 * float(numbers[-1] - numbers[0]))
    return np.split(numbers, np.flatnonzero(wide) + 1)
