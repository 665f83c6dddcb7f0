"""A STIX 2.1 bundle: an indicator for each decoy.

https://docs.oasis-open.org/cti/stix/v2.1/os/stix-v2.1-os.html, section 9 for patterns. The
identifiers are made of the rules' names (RFC 9562, version 5), so that a second import replaces.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Final

from pgbalise.decoys.traits import TraitKind
from pgbalise.detectors.export import Export, Files
from pgbalise.detectors.expressions import alone, on_text, person_expressions
from pgbalise.detectors.patterns import Target

NAMESPACE: Final = uuid.UUID("6d3f5f0e-0d0b-5b43-9a5e-3c1d6a3f7b21")
"""Of the identifiers that detectors are given."""


def write_stix(export: Export) -> Files:
    """Return a bundle of an identity and of indicators, marked TLP:RED."""
    import stix2

    author = stix2.Identity(
        id=_identifier("identity", "pgbalise"),
        name="pgbalise",
        identity_class="system",
        created=export.made_at,
        modified=export.made_at,
    )
    indicators = [
        stix2.Indicator(
            id=_identifier("indicator", target.rule),
            created_by_ref=author.id,
            created=target.decoy.issued_at,
            modified=max(export.made_at, target.decoy.issued_at),
            name=f"Decoy {target.rule}",
            description=export.title(target),
            indicator_types=["compromised"],
            pattern=pattern(target),
            pattern_type="stix",
            pattern_version="2.1",
            valid_from=target.decoy.issued_at,
            valid_until=export.expires,
            labels=["decoy"],
            object_marking_refs=[stix2.TLP_RED],
        )
        for target in export.targets
    ]
    digest = " ".join([export.made_at.isoformat(), *(target.rule for target in export.targets)])
    bundle = stix2.Bundle(author, stix2.TLP_RED, *indicators, id=_identifier("bundle", digest))
    return {"decoys.stix.json": f"{bundle.serialize(ensure_ascii=True)}\n".encode("ascii")}


def pattern(target: Target) -> str:
    """Return a decoy's pattern: its addresses, and its texts in mails, files and requests."""
    mails = [text for text in target.of(TraitKind.MAIL) if "%" not in text]
    seen = [f"[email-addr:value = '{_quoted(mail)}']" for mail in mails]
    for expression in _expressions(target):
        text = _quoted(f"(?is){expression}")
        seen += [
            f"[email-message:body MATCHES '{text}']",
            f"[email-message:body_multipart[*].body MATCHES '{text}']",
            f"[artifact:payload_bin MATCHES '{text}']",
        ]
    return " OR ".join(seen)


def _expressions(target: Target) -> Iterator[str]:
    if target.texts:
        yield alone(on_text(spelling.text for spelling in target.texts))
    if target.person is not None:
        for expression in person_expressions(target.person, on_text):
            yield alone(expression)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _identifier(kind: str, name: str) -> str:
    return f"{kind}--{uuid.uuid5(NAMESPACE, f'{kind} {name}')}"
