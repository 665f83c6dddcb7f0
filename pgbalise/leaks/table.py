"""One table of a leak, as a stream of text columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from pgbalise.errors import InvalidLeak

ROWS: int = 65_536
"""Rows of a batch, about."""


@dataclass(frozen=True)
class LeakTable:
    """Rows of one table in a leak; all values are text."""

    name: str
    """The file, and where in it: ``leak.csv``, ``dump.sql: dpi.patient``, ``book.xlsx: Sheet1``."""
    columns: tuple[str, ...]
    """The names in the file made unique, or ``column 1``, ``column 2`` and so on."""
    named: bool
    """Whether the file itself names its columns."""
    reading: Callable[[], Iterator[pa.RecordBatch]] = field(repr=False, compare=False)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches of about 65,536, from the first row each time.

        Every column is a string column; NULL where the file has no value. Raise InvalidLeak when
        the file turns out to be malformed further on.
        """
        try:
            yield from self.reading()
        except (pa.ArrowException, OSError, UnicodeError, ValueError, OverflowError):
            raise InvalidLeak(f"{self.name}: the file is damaged or cut") from None
