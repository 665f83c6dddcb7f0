"""What an alert says to a person, in English and French: as a sentence, a mail, a push message."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pgbalise.sinks import Email

_TITLES: Final = {
    "rows_per_hour": "Too many rows in an hour",
    "rows_per_day": "Too many rows in a day",
    "own_past": "Far more rows than ever before",
    "first_seen": "A relation read for the first time",
    "off_hours": "Many rows outside working hours",
    "decoy": "A decoy was asked for",
    "decoy_found": "A decoy is in a file",
    "decoy_elsewhere": "Another establishment met a decoy",
    "tripwire": "A decoy's identity was used",
    "test": "Test",
}


def title(kind: str) -> str:
    """Return what a kind of alert is called."""
    return _TITLES.get(kind, kind)


def sentence(alert: Mapping[str, Any]) -> str:
    """Return what an alert says to a person: one sentence, in which nothing is a patient's."""
    who = alert.get("recipient") or "somebody"
    detail = alert.get("detail") or {}

    def rows(name: str) -> str:
        count = detail.get(name)
        return f"{count:,}" if isinstance(count, int) else str(count)

    match alert.get("kind"):
        case "rows_per_hour":
            hour = str(detail.get("hour", "")).replace("T", " ", 1)
            text = f"{who} took {rows('rows')} rows in the hour from {hour}"
            return f"{text}; its limit is {rows('limit')} rows an hour."
        case "rows_per_day":
            text = f"{who} took {rows('rows')} rows on {detail.get('day')}"
            return f"{text}; its limit is {rows('limit')} rows a day."
        case "own_past":
            text = f"{who} took {rows('rows')} rows on {detail.get('day')}, more than"
            text += f" {detail.get('times')} times its busiest comparable day"
            return f"{text} ({detail.get('busiest_day')}: {rows('busiest')} rows)."
        case "first_seen":
            where = f"{detail.get('relation')} of database {alert.get('database')}"
            return f"{who} read {where} for the first time."
        case "off_hours":
            text = f"{who} took {rows('rows')} rows outside working hours, in the night of"
            return f"{text} {detail.get('night')}."
        case "decoy":
            owners, named = list(detail.get("decoys_of", [])), list(detail.get("decoys", []))
            whose = f", a decoy given to {', '.join(owners)}" if owners else ", a decoy"
            if owners == [who]:
                whose = ", a decoy of its own"
            numbers = f" ({', '.join(named)})" if named else ""
            return f"{who} asked for a patient who does not exist{whose}{numbers}."
        case "tripwire":
            named, kinds = list(detail.get("decoys", [])), list(detail.get("kinds", []))
            text = f"{who} was given the identity of a patient who does not exist"
            return f"{text}, decoy {', '.join(named)} (by {', '.join(kinds)})."
        case "decoy_elsewhere":
            whose = f"decoy {detail['decoy']}" if detail.get("decoy") else "a decoy of this house"
            place = str(detail.get("place", "")).replace("_", " ")
            return f"{detail.get('reporter')} met {whose} elsewhere ({place})."
        case "decoy_found":
            named, kinds = list(detail.get("decoys", [])), list(detail.get("kinds", []))
            text = f"A decoy given to {who}, {', '.join(named)}, is in the file"
            return f"{text} {detail.get('file')} (by {', '.join(kinds)})."
        case "test":
            return "This is a test: alerts arrive here."
        case kind:
            return f"{who}: {kind}."


_FRENCH_TITLES: Final = {
    "rows_per_hour": "Trop de lignes en une heure",
    "rows_per_day": "Trop de lignes en un jour",
    "own_past": "Beaucoup plus de lignes que jamais",
    "first_seen": "Une relation lue pour la première fois",
    "off_hours": "Beaucoup de lignes hors des heures ouvrées",
    "decoy": "Un leurre a été demandé",
    "decoy_found": "Un leurre est dans un fichier",
    "decoy_elsewhere": "Un autre établissement a rencontré un leurre",
    "tripwire": "L'identité d'un leurre a été utilisée",
    "test": "Essai",
}
_LABELS: Final = {
    "en": ("Severity", "When", "Who", "From", "Database", "Application", "Decoys", "Alert"),
    "fr": ("Gravité", "Quand", "Qui", "Depuis", "Base", "Application", "Leurres", "Alerte"),
}
_SEVERITIES: Final = {"info": "information", "warning": "avertissement", "critical": "critique"}
_GAP: Final = "\u202f"
"""Between a French number's thousands."""
_PRIORITIES: Final = {"info": "3", "warning": "4", "critical": "5"}
_TAGS: Final = {"info": "information_source", "warning": "warning", "critical": "rotating_light"}


def heading(alert: Mapping[str, Any], language: str) -> str:
    """Return what an alert is about in a few words, in which nobody is named."""
    kind = str(alert["kind"])
    return _FRENCH_TITLES.get(kind, kind) if language == "fr" else title(kind)


def told(alert: Mapping[str, Any], language: str) -> str:
    """Return one sentence, in which nothing is a patient's; control characters are taken out."""
    text = _french(alert) if language == "fr" else sentence(alert)
    return _clean(text)


def push_headers(alert: Mapping[str, Any], language: str) -> dict[str, str]:
    """Return Title, Priority and Tags as ntfy reads them (docs.ntfy.sh/publish)."""
    words = heading(alert, language)
    severity = str(alert["severity"])
    return {
        # RFC 2047 where it is not ASCII: a header holds nothing else
        "Title": words if words.isascii() else Header(words, "utf-8", maxlinelen=900).encode(),
        "Priority": _PRIORITIES[severity],
        "Tags": _TAGS[severity],
        "X-Pgbalise-Alert": str(alert["alert"]),
    }


def mail(alert: Mapping[str, Any], sink: Email, *, version: str) -> EmailMessage:
    """Return the message of an alert; one that is sent again has the same Message-ID."""
    language = sink.language
    severity = str(alert["severity"])
    shown = _SEVERITIES[severity] if language == "fr" else severity
    detail = alert.get("detail") or {}
    values = (
        shown,
        alert.get("at"),
        alert.get("recipient"),
        alert.get("client"),
        alert.get("database"),
        detail.get("application"),
        ", ".join(map(str, detail.get("decoys", []))),
        alert["alert"],
    )
    rows = [
        f"{label}: {_clean(str(value))}"
        for label, value in zip(_LABELS[language], values, strict=True)
        if value not in (None, "")
    ]
    message = EmailMessage()
    message["From"] = sink.sender
    message["To"] = ", ".join(sink.recipients)
    message["Subject"] = f"[pgbalise] {shown}: {heading(alert, language)}"
    message["Date"] = format_datetime(datetime.fromisoformat(str(alert["at"])).astimezone(UTC))
    message["Message-ID"] = f"<{alert['alert']}@{sink.sender.rpartition('@')[2]}>"
    # RFC 3834: no absence notice answers it
    message["Auto-Submitted"] = "auto-generated"
    message["X-Pgbalise-Alert"] = str(alert["alert"])
    message["User-Agent"] = f"pgbalise/{version}"
    if severity == "critical":
        message["Importance"] = "high"
    body = "\n".join([told(alert, language), "", *rows, ""])
    message.set_content(body.encode("utf-8", "backslashreplace").decode())
    return message


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() or c == _GAP else "?" for c in text)


def _french(alert: Mapping[str, Any]) -> str:
    who = alert.get("recipient") or "quelqu'un"
    detail = alert.get("detail") or {}

    def rows(name: str) -> str:
        count = detail.get(name)
        return f"{count:,}".replace(",", _GAP) if isinstance(count, int) else str(count)

    match alert.get("kind"):
        case "rows_per_hour":
            hour = str(detail.get("hour", "")).replace("T", " ", 1)
            text = f"{who} a pris {rows('rows')} lignes dans l'heure qui commence à {hour}"
            return f"{text} ; sa limite est de {rows('limit')} lignes par heure."
        case "rows_per_day":
            text = f"{who} a pris {rows('rows')} lignes le {detail.get('day')}"
            return f"{text} ; sa limite est de {rows('limit')} lignes par jour."
        case "own_past":
            text = f"{who} a pris {rows('rows')} lignes le {detail.get('day')}, plus de"
            text += f" {detail.get('times')} fois son jour comparable le plus chargé"
            return f"{text} ({detail.get('busiest_day')} : {rows('busiest')} lignes)."
        case "first_seen":
            where = f"{detail.get('relation')} de la base {alert.get('database')}"
            return f"{who} a lu {where} pour la première fois."
        case "off_hours":
            text = f"{who} a pris {rows('rows')} lignes hors des heures ouvrées, dans la nuit du"
            return f"{text} {detail.get('night')}."
        case "decoy":
            owners, named = list(detail.get("decoys_of", [])), list(detail.get("decoys", []))
            whose = f", un leurre donné à {', '.join(owners)}" if owners else ", un leurre"
            if owners == [who]:
                whose = ", l'un de ses propres leurres"
            numbers = f" ({', '.join(named)})" if named else ""
            return f"{who} a demandé un patient qui n'existe pas{whose}{numbers}."
        case "tripwire":
            named, kinds = list(detail.get("decoys", [])), list(detail.get("kinds", []))
            text = f"{who} a reçu l'identité d'un patient qui n'existe pas"
            return f"{text}, leurre {', '.join(named)} (par {', '.join(kinds)})."
        case "decoy_elsewhere":
            whose = f"le leurre {detail['decoy']}" if detail.get("decoy") else "un de nos leurres"
            place = str(detail.get("place", "")).replace("_", " ")
            return f"{detail.get('reporter')} a rencontré {whose} ailleurs ({place})."
        case "decoy_found":
            named, kinds = list(detail.get("decoys", [])), list(detail.get("kinds", []))
            text = f"Un leurre donné à {who}, {', '.join(named)}, est dans le fichier"
            return f"{text} {detail.get('file')} (par {', '.join(kinds)})."
        case "test":
            return "Ceci est un essai : les alertes arrivent ici."
        case kind:
            return f"{who} : {kind}."
