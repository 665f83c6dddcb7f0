"""YARA rules, one for each decoy (YARA 4 and YARA-X).

Grammar: https://yara.readthedocs.io/en/stable/writingrules.html. Nothing of the rules is
specific to YARA-X, which is stricter than YARA about escapes and unused strings.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgbalise.detectors.export import Export, Files, visible
from pgbalise.detectors.expressions import encoded, person_expressions
from pgbalise.detectors.patterns import Target


def write_yara(export: Export) -> Files:
    """Return one file of rules ``pgbalise_decoy_<rule>``, each of which fires on any spelling."""
    return {"decoys.yar": "".join(rule(export, target) for target in export.targets).encode()}


def rule(export: Export, target: Target) -> str:
    """Return the rule of one decoy."""
    meta = {
        "description": export.title(target),
        "decoy": target.rule,
        "date": export.made_on,
        "expires": export.expires_on,
        "recipient": target.decoy.recipient if export.named else None,
    }
    lines = [f"    {name} = {_said(value)}" for name, value in meta.items() if value]
    strings = [f"    {line}" for line in _strings(target)]
    return "\n".join(
        [
            f"rule pgbalise_decoy_{target.rule} : decoy {{",
            "  meta:",
            *lines,
            "  strings:",
            *strings,
            "  condition:",
            "    any of them",
            "}\n\n",
        ]
    )


def _strings(target: Target) -> Iterator[str]:
    for number, spelling in enumerate(target.texts):
        name = f"${spelling.kind.value}_{number}"
        if spelling.text.isascii():
            yield f"{name} = {_text(spelling.text)} ascii wide nocase fullword"
            continue
        for way, content in enumerate(encoded(spelling.text)):
            yield f"{name}_{way} = {_bytes(content)} nocase fullword"
    if target.person is not None:
        for number, expression in enumerate(person_expressions(target.person)):
            yield f"$person_{number} = /{expression}/is fullword"


def _said(text: str) -> str:
    """Write a text for people: engines hand over bytes where there are hexadecimal escapes."""
    escaped = visible(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _text(text: str) -> str:
    return _bytes(text.encode())


def _bytes(content: bytes) -> str:
    kept = "".join(
        chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else f"\\x{b:02x}" for b in content
    )
    return f'"{kept}"'
