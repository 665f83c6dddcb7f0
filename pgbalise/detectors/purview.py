"""Exact data match for Microsoft Purview: the table, its schema, and two rule packages.

https://learn.microsoft.com/purview/sit-get-started-exact-data-match-create-schema and
sit-create-edm-sit-unified-ux-rule-package. One package defines sensitive information types that
say where to look, the other compares what they find with the table.
"""

from __future__ import annotations

import csv
import io
import re
import uuid
from collections.abc import Iterator
from typing import Final
from xml.etree import ElementTree as ET

from pgbalise.decoys.identity import Role
from pgbalise.decoys.spellings import nir_key
from pgbalise.decoys.traits import TraitKind
from pgbalise.detectors.export import Export, Files
from pgbalise.detectors.patterns import LEAST_ALONE, Target
from pgbalise.detectors.stix import NAMESPACE

STORE: Final = "PgbaliseDecoys"

_EDM: Final = "http://schemas.microsoft.com/office/2018/edm"
_MCE: Final = "http://schemas.microsoft.com/office/2011/mce"

_IGNORED: Final = " ,-,.,/,+,(,)"
"""Delimiters that make no difference; a comma stands between them."""

_NIR: Final = r"[1-478][ ]?\d{2}[ ]?\d{2}[ ]?(?:\d{2}|2[AaBb])[ ]?\d{3}[ ]?\d{3}"

_LOOKED_FOR: Final = {
    "RecordNumber": "",
    "Nir": rf"\b{_NIR}\b",
    "NirWithKey": rf"\b{_NIR}[ ]?\d{{2}}\b",
    "Phone": r"\b0[1-9](?:[ ./-]?\d{2}){4}\b",
    "PhoneInternational": r"\b(?:00)?33[ ./-]?[1-9](?:[ ./-]?\d{2}){4}\b",
    "Mail": r"\b[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}\b",
    "Rpps": r"\b\d{11}\b",
}
"""The searchable fields, of which Purview takes ten, and where each may be; that of record numbers
depends on the site."""

_OTHERS: Final = ("FamilyName", "GivenName", "BirthDate")


def write_purview(export: Export) -> Files:
    """Return ``decoys.csv``, ``schema.xml``, ``types.xml`` and ``rules.xml``."""
    rows = [row for target in export.targets for row in _rows(target)]
    # Purview refuses a searchable field without values
    fields = [name for name in _LOOKED_FOR if any(row.get(name) for row in rows)]
    others = [name for name in _OTHERS if any(row.get(name) for row in rows)]
    table = io.StringIO()
    lines = csv.DictWriter(
        table, [*fields, *others], restval="", extrasaction="ignore", lineterminator="\r\n"
    )
    lines.writeheader()
    lines.writerows(rows)
    records = sorted({len(row["RecordNumber"]) for row in rows if row.get("RecordNumber")})
    return {
        "decoys.csv": table.getvalue().encode(),
        "schema.xml": _schema(export, fields, others),
        "types.xml": _types(fields, records),
        "rules.xml": _rules(fields, others),
    }


def _rows(target: Target) -> Iterator[dict[str, str]]:
    """Yield a row for each telephone number, one without any."""
    values: dict[str, list[str]] = {}
    for trait in target.decoy.traits:
        if target.of(trait.kind):
            values.setdefault(trait.kind, []).append(trait.value)
    row = {}
    for kind, name in (
        (TraitKind.RECORD, "RecordNumber"),
        (TraitKind.MAIL, "Mail"),
        (TraitKind.RPPS, "Rpps"),
        (TraitKind.NIR, "Nir"),
    ):
        if kind in values:
            row[name] = values[kind][0]
    if "Nir" in row:
        row["NirWithKey"] = row["Nir"] + nir_key(row["Nir"])
    identity = target.decoy.identity
    if target.person is not None:
        row["FamilyName"] = identity.get(Role.FAMILY_NAME, identity.get(Role.FULL_NAME, ""))
        row["GivenName"] = identity.get(Role.GIVEN_NAME, "")
        year, month, day = identity[Role.BIRTH_DATE].split("-")
        row["BirthDate"] = f"{day}/{month}/{year}"
    for phone in values.get(TraitKind.PHONE, [""]):
        digits = phone.removeprefix("+33")
        found = {"Phone": f"0{digits}", "PhoneInternational": f"33{digits}"} if digits else {}
        if row.keys() - set(_OTHERS) or found:
            yield row | found


def _schema(export: Export, fields: list[str], others: list[str]) -> bytes:
    root = ET.Element("EdmSchema", xmlns=_EDM)
    until = f", to be renewed before {export.expires_on}" if export.expires_on else ""
    about = f"Patients who do not exist, {export.made_on}{until}"
    store = ET.SubElement(root, "DataStore", name=STORE, description=about, version="1")
    for name in fields:
        marks = {"searchable": "true", "caseInsensitive": "true"}
        if name != "Mail":
            marks["ignoredDelimiters"] = _IGNORED
        ET.SubElement(store, "Field", {"name": name, **marks})
    for name in others:
        ET.SubElement(store, "Field", name=name, searchable="false", caseInsensitive="true")
    return _document(root)


def _types(fields: list[str], records: list[int]) -> bytes:
    root, rules = _package(_MCE, "Where decoys may be", "types")
    lengths = f"{min(records, default=LEAST_ALONE)},{max(records, default=LEAST_ALONE)}"
    expressions = {**_LOOKED_FOR, "RecordNumber": rf"\b[0-9A-Za-z]{{{lengths}}}\b"}
    for name in fields:
        entity = ET.SubElement(
            rules,
            "Entity",
            id=_identifier(f"type {name}"),
            patternsProximity="300",
            recommendedConfidence="75",
        )
        found = ET.SubElement(entity, "Pattern", confidenceLevel="75")
        ET.SubElement(found, "IdMatch", idRef=f"Regex_{name}")
    for name in fields:
        ET.SubElement(rules, "Regex", id=f"Regex_{name}").text = expressions[name]
    _strings(rules, {f"type {name}": f"Looks like {_words(name)}" for name in fields})
    return _document(root)


def _rules(fields: list[str], others: list[str]) -> bytes:
    root, rules = _package(_EDM, "Decoys", "rules")
    for name in fields:
        match = ET.SubElement(
            rules,
            "ExactMatch",
            id=_identifier(f"match {name}"),
            patternsProximity="300",
            dataStore=STORE,
            recommendedConfidence="75",
        )
        for level in (75, 85) if others else (75,):
            found = ET.SubElement(match, "Pattern", confidenceLevel=str(level))
            ET.SubElement(
                found, "idMatch", matches=name, classification=_identifier(f"type {name}")
            )
            if level == 85:
                any_of = ET.SubElement(found, "Any", minMatches="1", maxMatches=str(len(others)))
                for other in others:
                    ET.SubElement(any_of, "match", matches=other)
    _strings(rules, {f"match {name}": f"Decoy, by {_words(name)}" for name in fields})
    return _document(root)


def _package(namespace: str, name: str, part: str) -> tuple[ET.Element, ET.Element]:
    root = ET.Element("RulePackage", xmlns=namespace)
    pack = ET.SubElement(root, "RulePack", id=_identifier(f"package {part}"))
    ET.SubElement(pack, "Version", build="0", major="1", minor="0", revision="0")
    ET.SubElement(pack, "Publisher", id=_identifier("publisher"))
    details = ET.SubElement(pack, "Details", defaultLangCode="en-us")
    localized = ET.SubElement(details, "LocalizedDetails", langcode="en-us")
    ET.SubElement(localized, "PublisherName").text = "pgbalise"
    ET.SubElement(localized, "Name").text = name
    ET.SubElement(localized, "Description").text = "Patients who do not exist"
    return root, ET.SubElement(root, "Rules")


def _strings(rules: ET.Element, names: dict[str, str]) -> None:
    strings = ET.SubElement(rules, "LocalizedStrings")
    for name, text in names.items():
        resource = ET.SubElement(strings, "Resource", idRef=_identifier(name))
        for part in ("Name", "Description"):
            ET.SubElement(resource, part, default="true", langcode="en-us").text = text


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _identifier(name: str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"purview {name}"))


def _document(root: ET.Element) -> bytes:
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"
