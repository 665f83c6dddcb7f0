"""What a report says, in each language; braces stand for values."""

from __future__ import annotations

from typing import Literal, get_args

from pgbalise.errors import InvalidInput
from pgbalise.report.english import ENGLISH
from pgbalise.report.french import FRENCH

Language = Literal["en", "fr"]

WORDS: dict[Language, dict[str, str]] = {"en": ENGLISH, "fr": FRENCH}


def language_named(name: str) -> Language:
    """Return a language of reports; raise InvalidInput when there are none in it."""
    for known in get_args(Language):
        if known == name:
            return known  # type: ignore[no-any-return]
    raise InvalidInput(f"no report in {name!r}", hint=" or ".join(get_args(Language)))
