"""What the tracer calls what happened, in the report's language."""

from __future__ import annotations

import re

from pgbalise.report.words import Language

_Terms = tuple[tuple[re.Pattern[str], str], ...]


def _terms(*pairs: tuple[str, str]) -> _Terms:
    return tuple((re.compile(pattern), french) for pattern, french in pairs)


_TRANSFORMATIONS = _terms(
    (r"unchanged", "inchangée"),
    (r"replaced", "remplacée par une autre valeur"),
    (r"rounded to (.+)", "arrondie à {0}"),
    (r"truncated to (.+)", "tronquée à {0}"),
    (r"shifted by (.+)", "décalée de {0}"),
    (
        r"noise about a shift of (.+?), rounded to (.+)",
        "bruit ajouté autour d’un décalage de {0}, puis arrondi à {1}",
    ),
    (r"noise about a shift of (.+)", "bruit ajouté autour d’un décalage de {0}"),
    (r"noise, rounded to (.+)", "bruit ajouté, puis arrondi à {0}"),
    (r"noise", "bruit ajouté"),
)
"""The words of `pgbalise.tracing.noise.NoiseModel.describe`."""

_FORMATS = _terms(
    (r"decimal comma", "virgule décimale"),
    (r"decimal point", "point décimal"),
    (r"thousands separated by (.+)", "milliers séparés par {0}"),
    (r"day/month/year", "jour/mois/année"),
    (r"month/day/year", "mois/jour/année"),
    (r"year/month/day", "année/mois/jour"),
    (r"spreadsheet serial (?:days|dates)", "numéros de jour de tableur"),
    (r"unix seconds", "secondes unix"),
    (r"unix milliseconds", "millisecondes unix"),
    (r"unix microseconds", "microsecondes unix"),
    (r"x (.+)", "× {0}"),
)
"""The words in which a column's way of writing values is told."""

_FITS = _terms(
    (r"same recipient", "même destinataire"),
    (r"touched (.+)", "a touché {0}"),
    (r"within the epoch", "pendant l’époque"),
    (r"before the leak was found", "avant la découverte de la fuite"),
    (r"delivered ([\d,]+) rows", "{0} lignes remises"),
)
"""The words in which it is told why an extract fits."""


def happened(description: str, language: Language) -> str:
    """Return a transformation of values; unknown words stay as they are, in every function here."""
    return _said(description, language, _TRANSFORMATIONS)


def written(description: str, language: Language) -> str:
    """Return a way of writing values."""
    if language == "en":
        return re.sub(r"^x (?=[\d.])", "× ", description)
    return _said(description, language, _FORMATS)


def fitting(reason: str, language: Language) -> str:
    """Return a reason why an extract fits."""
    return _said(reason, language, _FITS)


def _said(text: str, language: Language, terms: _Terms) -> str:
    if language == "en":
        return text
    for pattern, french in terms:
        match = pattern.fullmatch(text)
        if match:
            filled = re.sub(r"(?<=\d)\.(?=\d)", ",", french.format(*match.groups()))
            return re.sub(r"\bdays\b", "jours", filled)
    return text
