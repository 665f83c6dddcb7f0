"""What a report says, in each language; braces stand for values."""

from __future__ import annotations

from typing import Literal

from pgbalise.report.english import ENGLISH
from pgbalise.report.french import FRENCH

Language = Literal["en", "fr"]

WORDS: dict[Language, dict[str, str]] = {"en": ENGLISH, "fr": FRENCH}
