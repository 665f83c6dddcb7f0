from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import pytest

from pgbalise.decoys.identity import Mode, Role
from pgbalise.errors import InvalidPolicy
from pgbalise.marking.document import split_name
from pgbalise.marking.policy import RecipientClass, Tolerance, load_policy, parse_policy
from pgbalise.marking.types import SqlType

GOOD: dict[str, Any] = {
    "relation": {
        "dpi.lab": {
            "key": {"id": "bigint"},
            "carrier": {
                "value": {"type": "numeric(7,2)", "quantum": "0.1", "bounds": ["0", "100"]},
                "at": {"type": "timestamptz", "quantum": "1 minute", "neutral": True},
            },
        }
    }
}


def changed(path: str, value: object) -> dict[str, Any]:
    document: dict[str, Any] = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    table = document
    for name in parents:
        table = table.setdefault(name, {})
    if value is None:
        del table[last]
    else:
        table[last] = value
    return document


LAB = "relation/dpi.lab"
VALUE = f"{LAB}/carrier/value"


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("relation", {}, "protects no relation"),
        ("colour", 1, "unknown setting 'colour'"),
        ("epoch", 0, "epoch"),
        ("derivation", "md5", "derivation"),
        ("views", {"secondary": "a", "care": "a"}, "different schemas"),
        (f"{LAB}/key", None, "no key"),
        (f"{LAB}/key", {"id": "jsonb"}, "cannot be part of a key"),
        (f"{LAB}/carrier", None, "no carrier"),
        (f"{LAB}/carrier/id", {"type": "bigint", "quantum": 1}, "a key is never marked"),
        (f"{VALUE}/type", "jsonb", "cannot be marked"),
        (f"{VALUE}/quantum", "0.001", "finer than the column's scale"),
        (f"{VALUE}/quantum", "-1", "positive"),
        (f"{VALUE}/quantum", "much", "not a number"),
        (f"{VALUE}/quantum", None, "no quantum"),
        (f"{VALUE}/bounds", ["0", "0.1"], "cannot move"),
        (f"{VALUE}/bounds", ["0"], "list of two"),
        (f"{VALUE}/density", "0", "density"),
        (f"{VALUE}/density", "1.5", "density"),
        (f"{VALUE}/grid", "0.15", "multiple of the quantum"),
        (f"{VALUE}/by", {"test": "text"}, "its own tolerance table"),
        (f"{VALUE}/equivalents", [["a", "b"]], "for text columns"),
        (f"{VALUE}/continuous", True, "floating-point"),
        (f"{LAB}/carrier/at/quantum", "1 month", "no duration"),
        (f"{LAB}/carrier/at/quantum", "7 milliseconds", "divide one second"),
        (f"{LAB}/carrier/day", {"type": "date", "quantum": "1 hour"}, "whole days"),
        (f"{LAB}/carrier/sex", {"type": "text", "equivalents": [["a"]]}, "two or more"),
        (
            f"{LAB}/carrier/sex",
            {"type": "text", "equivalents": [["a", "b"], ["a", "c"]]},
            "two groups",
        ),
        (f"{LAB}/carrier/n", {"type": "integer", "quantum": "0.5"}, "whole"),
        (f"{VALUE}/entity", {"at": "timestamptz"}, "must stay as it is"),
    ],
)
def test_a_wrong_policy_is_refused_in_one_line_that_says_where(
    path: str, value: object, complaint: str
) -> None:
    with pytest.raises(InvalidPolicy, match=complaint) as caught:
        parse_policy(changed(path, value))
    assert "\n" not in str(caught.value)


def test_toml_and_json_read_alike_and_numbers_stay_exact() -> None:
    toml = """
    [relation."dpi.lab"]
    key = { id = "bigint" }
    [relation."dpi.lab".carrier.value]
    type = "numeric(7,2)"
    quantum = 0.1
    bounds = [0, 100.55]
    """
    json = """{"relation": {"dpi.lab": {"key": {"id": "bigint"}, "carrier": {"value":
    {"type": "numeric(7,2)", "quantum": 0.1, "bounds": ["0", 100.55]}}}}}"""
    assert load_policy(toml) == load_policy(json)
    tolerance = load_policy(toml).relations[0].carriers[0].tolerances[None]
    assert isinstance(tolerance, Tolerance)
    assert tolerance.high == Decimal("100.55")


def test_the_order_of_entries_changes_nothing() -> None:
    def reversed_tables(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: reversed_tables(value[name]) for name in reversed(list(value))}
        return value

    document = changed(f"{LAB}/key", {"id": "bigint", "at_site": "text"})
    document["relation"]["dpi.other"] = GOOD["relation"]["dpi.lab"] | {"view": "other"}
    document["relation"]["dpi.lab"]["carrier"]["value"]["entity"] = {"p": "integer", "e": "date"}
    assert parse_policy(reversed_tables(document)) == parse_policy(document)


def test_default_densities_mark_half_a_cell_per_row() -> None:
    carriers = parse_policy(GOOD).relations[0].carriers
    assert sum(carrier.density for carrier in carriers) == Decimal("0.5")


def test_care_gets_neutral_carriers_only() -> None:
    relation = parse_policy(GOOD).relations[0]
    assert [c.column for c in relation.carriers_for(RecipientClass.CARE)] == ["at"]
    assert len(relation.carriers_for(RecipientClass.SECONDARY)) == 2


def test_names_fold_unless_quoted() -> None:
    assert split_name("DPI.Lab", "x") == ("dpi", "lab")
    assert split_name('"Odd schema"."a.b""c"', "x") == ("Odd schema", 'a.b"c')
    with pytest.raises(InvalidPolicy, match=r"schema\.name"):
        split_name("lab", "x")


@pytest.mark.parametrize(
    "text",
    ["numeric(7,2)", "numeric", "character varying(20)", "timestamp(3) with time zone", "bigint"],
)
def test_types_are_written_as_they_are_read(text: str) -> None:
    assert str(SqlType.parse(text)) == text


def test_synonyms_are_the_same_type() -> None:
    assert SqlType.parse("timestamptz") == SqlType.parse("timestamp with time zone")
    assert SqlType.parse("NUMERIC(5)") == SqlType.parse("decimal(5,0)")
    assert SqlType.parse("float8").name == "double precision"


ENTITY = {
    "key": {"patient_id": "integer"},
    "decoys": True,
    "identity": {"ipp": "record_number", "born": "birth_date", "note": "empty", "memo": "empty"},
}
STAY = {"key": {"stay_id": "bigint"}, "decoys": True, "parent": {"patient": "dpi.patient"}}


def with_decoys(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "decoys": {"entity": "dpi.patient"},
        "relation": {"dpi.patient": copy.deepcopy(ENTITY), "dpi.stay": copy.deepcopy(STAY)},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        table = document
        for name in parents:
            known = {"patient": "dpi.patient", "stay": "dpi.stay"}
            table = table.setdefault(known.get(name, name), {})
        table[last] = value
    return document


def test_decoys_are_read_with_what_they_default_to() -> None:
    policy = parse_policy(with_decoys())
    decoys = policy.decoys
    assert decoys is not None
    assert (decoys.entity, decoys.per_recipient, decoys.mode) == (("dpi", "patient"), 5, Mode.SAFE)
    assert decoys.mail_domain == "example.org"
    patient = policy.relation("dpi.patient")
    assert patient.carriers == ()
    assert patient.identity["ipp"] is Role.RECORD_NUMBER
    assert patient.needed == ("patient_id",)
    assert set(patient.named) == {"patient_id", "ipp", "born", "note", "memo"}
    assert policy.relation("dpi.stay").parents == {"patient": ("dpi", "patient")}
    assert parse_policy(GOOD).decoys is None


@pytest.mark.parametrize(
    ("change", "value", "complaint"),
    [
        ("decoys__entity", "dpi.nobody", "not a relation of the policy with decoys"),
        ("decoys__entity", None, "text that is not empty"),
        ("patient__decoys", False, "for a relation with decoys|no carrier"),
        ("decoys__per_recipient", 0, "whole number from 1"),
        ("decoys__per_recipient", True, "whole number from 1"),
        ("decoys__mode", "real", "safe"),
        ("decoys__mail_domain", "hospital", "no domain name"),
        ("decoys__mail_domain", "a@b.org", "no domain name"),
        ("decoys__many", 1, "unknown setting"),
        (
            "relation__patient__identity",
            {"a": "nir", "b": "nir"},
            "two columns are a patient's nir",
        ),
        ("relation__patient__identity", {"a": "colour"}, "of nobody"),
        ("relation__patient__identity", {"a": ["nir"]}, "of nobody"),
        ("relation__stay__parent", {"patient": "dpi.ward"}, "not a relation of the policy"),
        ("relation__stay__parent", {"patient": "patient"}, "of the form schema.name"),
        (
            "relation__patient__carrier",
            {"ipp": {"type": "text", "equivalents": [["a", "b"]]}},
            "recognised by it",
        ),
        ("relation__patient__key", {"a": "integer", "b": "integer"}, "several columns"),
    ],
)
def test_a_bad_policy_on_decoys_is_refused(change: str, value: object, complaint: str) -> None:
    change = change.replace("patient__decoys", "relation__patient__decoys")
    with pytest.raises(InvalidPolicy, match=complaint):
        parse_policy(with_decoys(**{change: value}))


def test_a_date_of_birth_may_be_marked_and_tell_who_somebody_is() -> None:
    carrier = {"born": {"type": "date", "quantum": "1 day"}}
    relation = parse_policy(with_decoys(relation__patient__carrier=carrier)).relation("dpi.patient")
    assert relation.carriers[0].column == "born"
    assert relation.identity["born"] is Role.BIRTH_DATE
