"""A report's facts survive being written and read, and nothing else is read as facts."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.errors import InvalidInput
from pgbalise.report.case import (
    CarrierEvidence,
    CarrierNoise,
    CaseLook,
    InputDigest,
    LeakedTable,
    LeakFile,
    MappedColumn,
    PossibleExtract,
    RecordedCommitment,
    Signer,
    SourceChange,
    TraceReport,
)
from pgbalise.report.facts import read_facts, write_facts
from pgbalise.report.html import html
from pgbalise.tracing.decision import decide

AT = datetime(2026, 6, 7, 14, 3, 5, 7, tzinfo=timezone(timedelta(hours=2)))


def report(values: list[float], names: list[str], text: str, share: float) -> TraceReport:
    column = MappedColumn(text, "link", text, "content", share, (text, "decimal comma"))
    return TraceReport(
        verdict=decide(
            names,
            np.array(values),
            np.full(len(values), 3),
            alpha=1e-9,
            rows_read=9,
            rows_aligned=8,
            cells_marked=7,
            cells_used=6,
        ),
        database=text,
        epoch=3,
        epoch_opened_at="2026-01-31",
        untried_epochs=(1, 2),
        files=(LeakFile(text, "ab" * 32, 1, 9),),
        tables=(LeakedTable(text, None, 9, 8, "linkage", 1, 0, 2, share, (column,)),),
        carriers=(CarrierEvidence(text, 4, 3, 2, 1, "a.b"),),
        noise=(CarrierNoise(text, ((text, share), ("replaced", 0.0))),),
        key_fingerprint="0123456789abcdef",
        versions={text: text},
        created_at=AT,
        source=(SourceChange("a.b", share, ((text, share),)),),
        extracts=(PossibleExtract(7, text, AT, None, None, "SELECT", (text,), why=(text,)),),
        extracts_fitting=3,
        commitments="registry",
        commitments_recorded=(RecordedCommitment(text, AT),),
        digests=(InputDigest("policy", text, "cd" * 32),),
        parameters=((text, text),),
        case=CaseLook(1, text, 2, 1e-3),
        signer=Signer("ef" * 32, AT.astimezone(UTC), text),
    )


FACTS = report([41.0, -1.0], ["a", "b"], "x", 0.5)


@given(
    st.dictionaries(st.text(), st.floats(-1e6, 1e6), min_size=1, max_size=5),
    st.text(st.characters(codec=None)),
    st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_report_comes_back_as_it_was(values: dict[str, float], text: str, share: float) -> None:
    facts = report(list(values.values()), list(values), text, share)
    written = write_facts(facts)
    assert read_facts(written) == facts
    assert written.isascii()
    assert not set("<>&\n") & set(written)


def changed(path: str, value: Any) -> str:
    document: Any = json.loads(write_facts(FACTS))
    *way, last = path.split(".")
    place = document
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    place[int(last) if last.isdigit() else last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("verdict.verdicts.1.accused", True),
        ("verdict.verdicts.0.accused", False),
        ("verdict.verdicts.1.log10_e_value", 50.0),
        ("verdict.verdicts.0.log10_e_value", float("nan")),
        ("verdict.verdicts.0.log10_e_value", "41"),
        ("verdict.verdicts.0.recipient", "b"),
        ("verdict.threshold_log10", 1.0),
        ("verdict.alpha", 0.5),
        ("verdict.recipients", 3),
        ("verdict.rows.aligned", 10),
        ("verdict.rows", 10),
        ("verdict", None),
        ("epoch", True),
        ("epoch", 3.0),
        ("epoch", None),
        ("created_at", "yesterday"),
        ("created_at", "2026-06-07T14:03:05"),
        ("files.0.sha256", "x"),
        ("files.0.more", 1),
        ("files", {}),
        ("noise.0.findings.0", ["x"]),
        ("commitments", "perhaps"),
        ("tables.0.aligned_by", 1),
        ("tables.0.columns.0.formats", "x"),
        ("versions", []),
        ("versions.x", 1),
        ("signer.public_key", "x"),
        ("rounds", [["b"]]),
    ],
)
def test_facts_that_are_not_what_they_must_be_are_refused(path: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read_facts(changed(path, value))
    assert "\n" not in str(refusal.value)


def test_facts_that_lack_something_are_refused() -> None:
    document = json.loads(write_facts(FACTS))
    del document["database"]
    with pytest.raises(InvalidInput, match="lacks database"):
        read_facts(json.dumps(document))


@pytest.mark.parametrize(
    "text", ["", "no", "[]", "null", "{}", "[" * 100_000, b"\xff\xfe\x00", "1"]
)
def test_what_is_no_report_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidInput):
        read_facts(text)


def test_older_facts_without_what_is_optional_are_read() -> None:
    document = json.loads(write_facts(FACTS))
    for name in ("rounds", "extracts", "case", "signer", "parameters"):
        del document[name]
    assert read_facts(json.dumps(document)) == replace(
        FACTS, extracts=None, case=None, signer=None, parameters=()
    )


def leaves(value: Any, way: str = "") -> list[str]:
    """Return the path of everything in a document."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [way[1:]] * bool(way) + [
        path for name, item in inner for path in leaves(item, f"{way}.{name}")
    ]


ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([]) | st.just({})
)


@given(
    st.sampled_from(leaves(json.loads(write_facts(FACTS)))),
    ANYTHING | st.sampled_from([10**400, 5e-324, -1e308, "0001-01-01T00:00:00+14:00"]),
)
@settings(max_examples=300, deadline=None)
def test_facts_are_refused_or_can_be_shown(path: str, value: Any) -> None:
    """Whoever renders somebody else's facts gets a page or one line."""
    text = changed(path, value)
    found = None
    with suppress(InvalidInput):
        found = read_facts(text)
    if found is not None:
        html(found)
        html(found, "fr")
