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
    (r"thousands grouped by points", "milliers séparés par des points"),
    (r"thousands grouped by commas", "milliers séparés par des virgules"),
    (r"unit (.+)", "unité {0}"),
    (r"day/month/year", "jour/mois/année"),
    (r"month/day/year", "mois/jour/année"),
    (r"year, month, day as digits", "année, mois, jour en chiffres"),
    (r"spreadsheet days", "jours de tableur"),
    (r"unix (s|ms|us)", "temps unix en {0}"),
    (r"time zone (.+)", "fuseau {0}"),
    (r"x (\S+)", "× {0}"),
    (r"x (\S+) ([+−-]) (\S+)", "× {0} {1} {2}"),
)
"""The words for `MappedColumn.formats`; ``x 1.8 + 32`` is what stored values became."""

_FITS = _terms(
    (r"read (.+)", "a lu {0}"),
    (r"was given (.+)", "a reçu {0}"),
    (r"delivered at least (\S+) rows?, (.+)", "au moins {0} lignes remises, {1}"),
    (r"delivered (\S+) rows?, (.+)", "{0} lignes remises, {1}"),
    (r"in epoch (\d+)", "pendant l’époque {0}"),
    (r"(\S+) days? before the leak was found", "{0} jours avant la découverte de la fuite"),
    (
        r"less than a day before the leak was found",
        "moins d’un jour avant la découverte de la fuite",
    ),
    (r"the leak has (\S+)", "la fuite en a {0}"),
    (
        r"the leak's (\S+) may not all be from it",
        "les {0} de la fuite n’en viennent peut-être pas toutes",
    ),
)
"""The words in which `pgbalise.registry.matching` says why an extract fits."""


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
    if language == "en":
        return reason
    said = _french(reason, _FITS)
    if said is None:
        return reason
    return re.sub(r"(?<=\d),(?=\d{3})", "\u202f", said).replace(" and ", " et ")


def _said(text: str, language: Language, terms: _Terms) -> str:
    said = None if language == "en" else _french(text, terms)
    if said is None:
        return text
    return re.sub(r"\bdays\b", "jours", re.sub(r"(?<=\d)\.(?=\d)", ",", said))


def _french(text: str, terms: _Terms) -> str | None:
    """Return a text whose words are known in French, the parts that it holds too."""
    for pattern, french in terms:
        match = pattern.fullmatch(text)
        if match:
            return french.format(*(_french(group, terms) or group for group in match.groups()))
    return None
