"""A MISP event: an object ``person`` for each decoy, and its YARA rule.

https://www.misp-project.org/datamodels/ and the object templates that pymisp ships. Identifiers
are made of the rules' names, so that a second import updates the event's attributes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pgbalise.decoys.identity import Role
from pgbalise.decoys.spellings import nir_key
from pgbalise.decoys.traits import TraitKind
from pgbalise.detectors.export import Export, Files
from pgbalise.detectors.patterns import Target
from pgbalise.detectors.stix import NAMESPACE
from pgbalise.detectors.yara import rule

if TYPE_CHECKING:
    from pymisp import MISPEvent, MISPObject


def write_misp(export: Export) -> Files:
    """Return one event, for its own organisation only, tagged tlp:red, unpublished."""
    return {"decoys.misp.json": f"{event(export).to_json(sort_keys=True)}\n".encode()}


def event(export: Export) -> MISPEvent:
    """Return the event."""
    from pymisp import MISPEvent, MISPOrganisation

    author = MISPOrganisation()
    author.from_dict(name="pgbalise", uuid=_identifier("organisation", "pgbalise"))
    made = MISPEvent()
    made.Orgc = author
    made.uuid = _identifier("event", "pgbalise")
    made.info = "Decoys: patients who do not exist"
    made.date = export.made_at.date()
    made.timestamp = export.made_at
    made.distribution = 0
    made.threat_level_id = 1
    made.analysis = 2
    made.add_tag("tlp:red")
    for target in export.targets:
        made.add_object(_person(export, target))
        made.add_attribute("yara", **_common(export, target, "yara", rule(export, target)))
    return made


def _person(export: Export, target: Target) -> MISPObject:
    from pymisp import MISPObject

    made = MISPObject("person", strict=True)
    made.uuid = _identifier("person", target.rule)
    made.distribution = 0
    made.timestamp = export.made_at
    made.comment = export.title(target)
    identity = target.decoy.identity
    if target.person is not None:
        for relation, role in (
            ("last-name", Role.FAMILY_NAME),
            ("first-name", Role.GIVEN_NAME),
            ("full-name", Role.FULL_NAME),
        ):
            if identity.get(role):
                # names are many people's: they tell an analyst, and no detector
                made.add_attribute(
                    relation,
                    **_common(export, target, relation, identity[role], to_ids=False),
                )
        born = identity[Role.BIRTH_DATE]
        made.add_attribute(
            "date-of-birth", **_common(export, target, "date-of-birth", born, to_ids=False)
        )
    else:
        made.add_attribute("alias", **_common(export, target, "alias", target.rule, to_ids=False))
    for relation, value in _values(target):
        made.add_attribute(relation, **_common(export, target, relation, value))
    return made


def _values(target: Target) -> Iterator[tuple[str, str]]:
    """Yield relations of MISP's template ``person`` with the form that MISP correlates."""
    for trait in target.decoy.traits:
        if not target.of(trait.kind):
            continue
        match trait.kind:
            case TraitKind.NIR:
                yield "social-security-number", trait.value + nir_key(trait.value)
            case TraitKind.PHONE:
                yield "phone-number", trait.value
            case TraitKind.MAIL:
                yield "e-mail", trait.value
            case TraitKind.RECORD:
                yield "identity-card-number", trait.value
            case TraitKind.RPPS:
                yield "text", trait.value
            case TraitKind.PERSON:
                pass


def _common(
    export: Export, target: Target, relation: str, value: str, *, to_ids: bool = True
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "value": value,
        "uuid": _identifier(relation, f"{target.rule} {value}"),
        "to_ids": to_ids,
        "distribution": 0,
        "comment": export.title(target),
        "timestamp": export.made_at,
        "first_seen": target.decoy.issued_at,
    }
    if export.expires is not None:
        found["last_seen"] = max(export.expires, target.decoy.issued_at)
    return found


def _identifier(kind: str, name: str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"misp {kind} {name}"))
