"""Sigma rules: one for the proxy's own alerts, one for each decoy in lines of logs.

https://sigmahq.io/docs/basics/rules.html. The fields of the first are those of an alert as a
webhook is sent it, those of the others Sigma's for ``category: proxy``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from pgbalise.detectors.export import Export, Files
from pgbalise.detectors.expressions import alone, on_text, person_expressions
from pgbalise.detectors.patterns import Target
from pgbalise.detectors.stix import NAMESPACE


def write_sigma(export: Export) -> Files:
    """Return rules as documents of one YAML file."""
    import yaml

    rules = [_of_alerts(export), *(_of_decoy(export, target) for target in export.targets)]
    text = yaml.safe_dump_all(rules, sort_keys=False, allow_unicode=False, explicit_start=True)
    return {"decoys.yml": text.encode("ascii")}


def _of_alerts(export: Export) -> dict[str, Any]:
    return {
        "title": "A decoy was asked for",
        "id": _identifier("alert"),
        "status": "stable",
        "description": "The proxy saw a statement that holds the identity of a decoy.",
        "author": "pgbalise",
        "date": export.made_on,
        "logsource": {"product": "pgbalise", "service": "alert"},
        "detection": {
            "webhook": {"kind": "decoy"},
            "cef": {"cat": "decoy", "deviceProduct": "pgbalise"},
            "condition": "1 of them",
        },
        "falsepositives": ["A recipient who opens a record among their own data"],
        "level": "critical",
    }


def _of_decoy(export: Export, target: Target) -> dict[str, Any]:
    expressions = list(_expressions(target))
    until = f" Not to be used after {export.expires_on}." if export.expires_on else ""
    return {
        "title": f"Decoy {target.rule}",
        "id": _identifier(target.rule),
        "status": "stable",
        "description": f"{export.title(target)}.{until}",
        "author": "pgbalise",
        "date": export.made_on,
        "logsource": {"category": "proxy"},
        "detection": {
            "address": {"c-uri|re|i": expressions},
            "text": {"|re|i": list(expressions)},
            "condition": "1 of them",
        },
        "falsepositives": ["none known: nobody has these"],
        "level": "critical",
    }


def _expressions(target: Target) -> Iterator[str]:
    texts = [spelling.text for spelling in target.texts]
    if texts:
        ways = [way(text, safe="") for text in texts for way in (quote, quote_plus)]
        yield alone(on_text([*texts, *ways]))
    if target.person is not None:
        for expression in person_expressions(target.person, on_text):
            yield alone(expression)


def _identifier(name: str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"sigma {name}"))
