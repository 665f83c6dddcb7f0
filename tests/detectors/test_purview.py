"""Purview runs in the cloud only: the documented forms are checked strictly instead.

https://learn.microsoft.com/purview/sit-get-started-exact-data-match-create-schema (fields, at
most ten searchable of 32, ignoredDelimiters any sign but the comma and quotes) and
sit-get-started-exact-data-match-export-data. What it does with them is acted out: a type's
expression says where to look, delimiters and case are taken away, the table is asked.
"""

from __future__ import annotations

import csv
import io
import re
import uuid
from xml.etree import ElementTree as ET

from pgbalise.detectors.formats import FormatName
from tests.detectors.leaking import ALMOST, SPELLED, awkward, decoy, files_of, namesakes, real_rows

EDM = "{http://schemas.microsoft.com/office/2018/edm}"
MCE = "{http://schemas.microsoft.com/office/2011/mce}"


def table(files: dict[str, bytes]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(files["decoys.csv"].decode(), newline="")))


def matched(files: dict[str, bytes], text: str) -> set[str]:
    """The fields by which the text is recognised."""
    types, rules = ET.fromstring(files["types.xml"]), ET.fromstring(files["rules.xml"])
    schema = {
        field.get("name"): field for field in ET.fromstring(files["schema.xml"]).iter(f"{EDM}Field")
    }
    expressions = {each.get("id"): each.text or "" for each in types.iter(f"{MCE}Regex")}
    of_type = {
        entity.get("id"): expressions[match.get("idRef")]
        for entity in types.iter(f"{MCE}Entity")
        for match in entity.iter(f"{MCE}IdMatch")
    }
    found = set()
    for match in rules.iter(f"{EDM}idMatch"):
        name = match.get("matches") or ""
        ignored = (schema[name].get("ignoredDelimiters") or "").split(",")
        values = {plain(row[name], ignored) for row in table(files) if row[name]}
        for hit in re.finditer(of_type[match.get("classification")], text):
            if plain(hit[0], ignored) in values:
                found.add(name)
    return found


def plain(text: str, ignored: list[str]) -> str:
    for delimiter in filter(None, ignored):
        text = text.replace(delimiter, "")
    return text.casefold()


def test_the_table_and_rules_find_what_is_written_in_the_usual_ways() -> None:
    files = files_of(FormatName.PURVIEW, [decoy()])
    assert matched(files, SPELLED["record"]) == {"RecordNumber"}
    assert matched(files, SPELLED["nir"]) == {"Nir"}
    assert matched(files, "2 85 05 78 999 084 30") == {"Nir", "NirWithKey"}
    assert matched(files, "NIR=285057899908430") == {"NirWithKey"}
    assert matched(files, SPELLED["phone"]) == {"PhoneInternational"}
    assert matched(files, SPELLED["mobile"]) == {"Phone"}
    assert matched(files, SPELLED["dotted"]) == {"Phone"}
    assert matched(files, SPELLED["mail"]) == {"Mail"}
    assert matched(files, SPELLED["rpps"]) == {"Rpps"}
    for name, text in ALMOST.items():
        assert matched(files, text) == set(), name


def test_real_rows_are_silent() -> None:
    assert matched(files_of(FormatName.PURVIEW, [decoy(), *namesakes()]), real_rows()) == set()


def test_the_schema_fits_the_table_and_the_limits() -> None:
    for some in ([decoy()], [decoy(), *awkward()], namesakes()):
        files = files_of(FormatName.PURVIEW, some)
        schema = ET.fromstring(files["schema.xml"])
        assert schema.tag == f"{EDM}EdmSchema"
        [store] = schema
        assert (store.tag, store.get("version")) == (f"{EDM}DataStore", "1")
        assert "2027-02-20" in (store.get("description") or "")
        names = [field.get("name") or "" for field in store]
        rows = table(files)
        assert names == list(rows[0])
        assert all(re.fullmatch("[A-Za-z][A-Za-z0-9]{2,}", name) for name in names)
        searchable = [field.get("name") for field in store if field.get("searchable") == "true"]
        assert 1 <= len(searchable) <= 10
        for field in store:
            assert set(field.attrib) <= {
                "name",
                "searchable",
                "caseInsensitive",
                "ignoredDelimiters",
            }
            for delimiter in (field.get("ignoredDelimiters") or "-").split(","):
                assert len(delimiter) == 1
                assert not delimiter.isalnum()
                assert delimiter not in '",'
        # one without any searchable value would never be found
        assert all(any(row[name] for name in searchable if name) for row in rows)


def test_identifiers_are_guids_that_stay_and_refer_to_each_other() -> None:
    files = files_of(FormatName.PURVIEW, [decoy()])
    assert files == files_of(FormatName.PURVIEW, [decoy()])
    types, rules = ET.fromstring(files["types.xml"]), ET.fromstring(files["rules.xml"])
    entities = {entity.get("id") for entity in types.iter(f"{MCE}Entity")}
    for match in rules.iter(f"{EDM}idMatch"):
        assert match.get("classification") in entities
    for root, tag in ((types, f"{MCE}Entity"), (rules, f"{EDM}ExactMatch")):
        own = [each.get("id") or "" for each in root.iter(tag)]
        namespace = tag.partition("}")[0] + "}"
        told = [each.get("idRef") for each in root.iter(f"{namespace}Resource")]
        assert sorted(own) == sorted(map(str, told))
        assert all(str(uuid.UUID(each)) == each for each in own)
    for expression in types.iter(f"{MCE}Regex"):
        # Purview takes no look-around and no unbounded repeats
        assert not re.search(r"\(\?[<=!]|[*+](?![^\[]*\])|\{\d+,\}", expression.text or "")
