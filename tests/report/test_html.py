"""What the HTML report says, and that it is safe and complete in itself."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest

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
from pgbalise.report.facts import read_facts
from pgbalise.report.html import html
from pgbalise.report.words import WORDS, Language
from pgbalise.tracing.decision import decide

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}
LANGUAGES: tuple[Language, ...] = ("en", "fr")


def report(
    log10_e_value: Sequence[float],
    names: Sequence[str] | None = None,
    *,
    alpha: float = 1e-9,
    decoys: Sequence[int] | None = None,
) -> TraceReport:
    count = len(log10_e_value)
    return TraceReport(
        verdict=decide(
            names or [f"role_{index}" for index in range(count)],
            np.array(log10_e_value, np.float64),
            np.full(count, 70),
            None if decoys is None else np.array(decoys),
            alpha=alpha,
            rows_read=12408,
            rows_aligned=12391,
            cells_marked=6240,
            cells_used=6118,
        ),
        database="dpi",
        epoch=3,
        files=(LeakFile("dump.csv", "ab" * 32, 48211903, 12408),),
        tables=(
            LeakedTable(
                "dump.csv",
                "public.lab_result",
                12408,
                12391,
                columns=(
                    MappedColumn("resultat", "carrier", "value"),
                    MappedColumn("no", "key", "id"),
                ),
            ),
        ),
        carriers=(CarrierEvidence("value", 80, 75, 70, 5), CarrierEvidence("weight", 9, 8, 8, 0)),
        noise=(
            CarrierNoise("value", (("unchanged", 0.9995), ("replaced", 0.0004))),
            CarrierNoise(
                "weight",
                (
                    ("noise about a shift of 3, rounded to 0.5", 0.6),
                    ("shifted by 2 days", 0.2),
                    ("first of month", 0.2),
                ),
            ),
        ),
        key_fingerprint="0123456789abcdef",
        versions={"pgbalise": "0.1.0", "PostgreSQL": "15.14"},
        created_at=datetime(2026, 6, 7, 14, 3, tzinfo=UTC),
    )


def innocents(count: int, **accused: float) -> list[float]:
    values = -np.abs(np.random.default_rng(7).gamma(2, 0.9, count))
    for index, value in accused.items():
        values[int(index.removeprefix("at"))] = value
    return [float(value) for value in values]


def tree(document: str) -> ET.Element:
    return ET.fromstring(document.removeprefix("<!DOCTYPE html>\n"))


def text_of(element: ET.Element | None) -> str:
    assert element is not None
    return re.sub(r"\s+", " ", "".join(element.itertext())).strip()


def body_of(document: str) -> ET.Element:
    """Return what people read: all but the facts for programs."""
    body = tree(document).find("body")
    assert body is not None
    script = body.find("script")
    assert script is not None
    body.remove(script)
    return body


def words_of(document: str) -> str:
    body = body_of(document)
    return " ".join(body.itertext()).lower()


def sentence(document: str) -> str:
    return text_of(tree(document).find(".//p[@class='sentence']"))


class Balance(HTMLParser):
    """Raises if a tag is closed that is not the one open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


ONE = report(innocents(200, at17=41.37))
NOBODY = report(innocents(200))
TWO = report(innocents(200, at17=41.37, at101=40.9))


def test_verdict_names_the_one_accused() -> None:
    assert sentence(html(ONE)) == "This file contains data from the copy supplied to role_17."
    assert "at most 1 in\u00a01,000,000,000" in html(ONE)


def test_verdict_names_two_accused_and_several_files() -> None:
    several = replace(TWO, files=TWO.files * 2)
    assert sentence(html(several)) == (
        "These files contain data from the copies supplied to role_17 and role_101."
    )


def test_verdict_of_many_names_the_first_and_the_table_all() -> None:
    values = [12.0 + index for index in range(30)] + innocents(30)
    document = html(report(values))
    assert sentence(document).endswith(
        "supplied to role_29, role_28, role_27, role_26, role_25 and 25 more."
    )
    rows = tree(document).findall(".//tr[@class='accused']")
    assert [text_of(row[1]) for row in rows] == [f"role_{29 - index}" for index in range(30)]


def test_nobody_is_named_when_nobody_is_accused() -> None:
    document = html(NOBODY)
    assert sentence(document) == "No recipient can be named as a source of this file."
    assert tree(document).find(".//tr[@class='accused']") is None
    assert tree(document).find(".//*[@class='ring']") is None
    assert "clears no one" in document


def test_decoys_are_reported_even_of_someone_not_named() -> None:
    document = html(report([1.0, 0.0], decoys=[0, 4]))
    assert "4 issued to <bdi" in document
    assert sentence(document).startswith("No recipient")


def test_bound_and_hashes_are_stated() -> None:
    text = text_of(body_of(html(ONE)))
    for fact in (
        "N = 200, α = 10−9 and",
        "Markov",
        "ab" * 32,
        "0123456789abcdef",
        "PostgreSQL 15.14",
    ):
        assert fact in text
    assert "12,391 (99.9%)" in text


def test_shares_just_short_of_all_are_not_rounded_up() -> None:
    text = text_of(body_of(html(ONE)))
    assert "> 99.9%" in text
    assert "< 0.1%" in text


def test_share_past_one_by_rounding_is_all() -> None:
    noise = (CarrierNoise("value", (("unchanged", 1.0 + 2e-16 * 3),)),)
    assert '<td class="number">100%</td>' in html(replace(ONE, noise=noise, carriers=()))


def test_evidence_is_rounded_down() -> None:
    first = tree(html(ONE)).find(".//tr[@class='accused']")
    assert "1041.3" in text_of(first)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "a&b<!--",
        "]]></style>{0}^{9}",
        "a\u202eb\x00\x1b\ud800\ufffe",
    ],
)
def test_hostile_names_stay_text(language: Language, hostile: str) -> None:
    base = report([40.0, 0.0], [hostile, "b"])
    document = html(
        replace(
            base,
            database=hostile,
            files=(LeakFile(hostile, "ab" * 32, 1, 1),),
            tables=(
                LeakedTable(
                    "dump.csv",
                    "public.lab_result",
                    12408,
                    12391,
                    columns=(MappedColumn(hostile, "carrier", hostile),),
                ),
            ),
            carriers=(CarrierEvidence(hostile, 3, 2, 1, 1),),
            noise=(CarrierNoise(hostile, ((hostile, 1.0),)),),
            versions={hostile: hostile},
        ),
        language,
    )
    document.encode("utf-8")
    parser = Balance()
    parser.feed(document)
    tags = {tag for tag, _ in parser.seen}
    assert not tags & {"img", "iframe", "link", "object"}
    assert not any(name.startswith("on") for _, attributes in parser.seen for name in attributes)
    shown = sentence(document)
    assert "\u202e" not in document
    if "\x00" not in hostile:
        assert hostile in shown
    else:
        assert "a\\u202eb\\u0000\\u001b\\ud800" in shown


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("case", [ONE, NOBODY, TWO], ids=["one", "nobody", "two"])
def test_nothing_is_requested_from_elsewhere(case: TraceReport, language: Language) -> None:
    document = html(case, language)
    parser = Balance()
    parser.feed(document)
    for _, attributes in parser.seen:
        assert not {"src", "href", "srcset", "xlink:href", "data", "action"} & set(attributes)
    for reference in ("://", "url(", "@import"):
        assert reference not in document
    assert "default-src 'none'" in document


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "values",
    [
        [9.3],
        [-0.4],
        [0.0],
        [23.1, -2.0, -2.5],
        [30.0, 20.0, 15.0],
        [1721.4, 2.0],
        innocents(200),
        innocents(200, at3=300.0, at9=-800.0),
        innocents(10_000, at4444=297.2, at5=13.0),
        [12.0] * 80,
        [0.0] * 10_000,
    ],
    ids=lambda values: f"{len(values)} up to {max(values):g}",
)
def test_any_number_of_recipients_gives_balanced_markup_and_a_plot_in_its_frame(
    values: Sequence[float], language: Language
) -> None:
    document = html(report(values), language)
    parser = Balance()
    parser.feed(document)
    assert not parser.open
    root = tree(document)
    assert root.get("lang") == language
    assert "{" not in text_of(body_of(document))
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in root.iter():
        for name in (element.get("aria-labelledby") or "").split():
            assert name in ids
    plot = root.find(".//svg[@role='img']")
    assert plot is not None
    marks = [
        (float(x), float(y))
        for path in plot.findall("path")
        for x, y in re.findall(r"M(\S+) (\S+)h0", path.get("d") or "")
    ]
    marks += [
        (float(ring.get("cx") or ""), float(ring.get("cy") or ""))
        for ring in plot.findall("circle")
    ]
    assert marks
    assert all(40 <= x <= 720 and 0 <= y <= 290 for x, y in marks)
    assert len(document) < 80_000 + 120 * len(values)
    accused = sum(value >= np.log10(len(values)) + 9 for value in values)
    assert len(plot.findall("circle")) == accused


def test_labels_in_the_plot_do_not_cover_each_other() -> None:
    for values in (innocents(200, at1=41.0, at2=40.9, at3=40.8), [30.0, 20.0, 15.0]):
        plot = tree(html(report(values))).find(".//svg[@role='img']")
        assert plot is not None
        heights = [
            (float(label.get("x") or ""), float(label.get("y") or ""))
            for label in plot.findall("text[@class='label']")
        ]
        assert heights
        for index, (x, y) in enumerate(heights):
            for other_x, other_y in heights[:index]:
                assert abs(y - other_y) >= 13 or abs(x - other_x) > 42


@pytest.mark.parametrize("alpha", [0.3, 0.05, 1e-3, 5e-8, 1e-9, 1e-30])
def test_any_alpha_can_be_written(alpha: float) -> None:
    for language in LANGUAGES:
        tree(html(report(innocents(20, at3=60.0), alpha=alpha), language))


def test_alpha_is_written_as_people_say_it() -> None:
    assert "1 in\u00a020." in html(report(innocents(20, at3=60.0), alpha=0.05))
    assert "5\u00a0×\u00a010<sup>−8</sup>" in html(report(innocents(20), alpha=5e-8))


def test_report_without_details_still_reads() -> None:
    bare = replace(ONE, files=(), tables=(), carriers=(), noise=(), versions={})
    for language in LANGUAGES:
        assert "role_17" in sentence(html(bare, language))


def test_french_report_speaks_french_only() -> None:
    english = words_of(html(TWO))
    french = words_of(html(TWO, "fr"))
    assert sentence(html(TWO, "fr")) == (
        "Ce fichier contient des données des copies remises à role_17 et role_101."
    )
    common = {
        "Relation",
        "Relations",
        "Table",
        "Page",
        "Signature",
        "Total",
        "SHA-256",
        "–",
        "N",
        "α",
    }
    english_words = {"the", "of", "and", "is", "rows", "with", "threshold", "unchanged", "evidence"}
    # A name given by whoever wrote the policy stays as it is.
    french_words = set(re.findall(r"[a-zé]+", french.replace("first of month", "")))
    assert not english_words & french_words
    assert english_words <= set(re.findall(r"[a-zé]+", english))
    for name, text in WORDS["en"].items():
        assert text in common or WORDS["fr"][name] != text, name


def test_french_numbers_and_dates() -> None:
    text = "".join(tree(html(TWO, "fr")).itertext())
    assert "7 juin 2026 à 14 h 03 (UTC)" in text
    assert "12\u202f391" in text
    assert "41,3" in text
    assert "bruit ajouté autour d’un décalage de 3, puis arrondi à 0,5" in text
    assert "décalée de 2 jours" in text


def test_languages_say_the_same_things() -> None:
    fields = re.compile(r"\{(\w*)\}")
    assert WORDS["en"].keys() == WORDS["fr"].keys()
    for name, text in WORDS["en"].items():
        assert set(fields.findall(text)) == set(fields.findall(WORDS["fr"][name])), name


def test_same_report_gives_the_same_bytes() -> None:
    assert html(ONE) == html(ONE)


AT = datetime(2026, 6, 7, 14, 3, tzinfo=UTC)


@pytest.mark.parametrize("language", LANGUAGES)
def test_tables_say_how_rows_and_columns_were_found(language: Language) -> None:
    columns = (
        MappedColumn(
            "poids", "carrier", "weight", "content", 0.913, ("x 2.20462", "decimal comma")
        ),
        MappedColumn("c 2", "ignored"),
    )
    tables = (
        LeakedTable(
            "a.zip: b.csv", "clinic.patient", 900, 800, "linkage", 60, 40, 7, 0.104, columns
        ),
        LeakedTable("a.zip: notes.csv", None, 88, 0),
    )
    text = text_of(body_of(html(replace(ONE, tables=tables), language)))
    expected = {
        "en": ("by content", "10.4%", "91.3%", "× 2.20462, decimal comma", "no relation"),
        "fr": ("par contenu", "10,4 %", "91,3 %", "× 2,20462, virgule décimale", "aucune relation"),
    }
    for fact in ("a.zip: b.csv", "clinic.patient", "900", "800", "60", *expected[language]):
        assert fact in text


def test_several_relations_are_named_and_their_carriers_told_apart() -> None:
    tables = tuple(LeakedTable(name, name, 9, 8, "key") for name in ("clinic.a", "clinic.b"))
    carriers = (
        CarrierEvidence("w", 3, 2, 1, 1, "clinic.a"),
        CarrierEvidence("w", 3, 2, 1, 1, "clinic.b"),
    )
    document = html(replace(ONE, tables=tables, carriers=carriers))
    assert "<title>Trace report – clinic.a, clinic.b</title>" in document
    text = text_of(body_of(document))
    assert "w clinic.a" in text
    assert "w clinic.b" in text


def test_rounds_are_shown_when_there_were_several() -> None:
    together = replace(TWO, rounds=(("role_17", "role_101"),))
    assert "Named in rounds" not in html(together)
    document = html(replace(TWO, rounds=(("role_17",), ("role_101",))))
    section = tree(document).find(".//table[@class='rounds']")
    assert text_of(section) == "Who was named whenRoundNewly named 1role_17 2role_101"


def test_rounds_that_name_others_than_the_verdict_are_refused() -> None:
    with pytest.raises(InvalidInput, match="rounds"):
        replace(TWO, rounds=(("role_17",), ("role_3",)))


def test_ledger_not_consulted_is_told_apart_from_nothing_found() -> None:
    assert "ledger of extracts was not consulted" in html(ONE)
    assert "holds no extract of the recipients named" in html(replace(ONE, extracts=()))


def test_extracts_are_listed_with_why_they_fit() -> None:
    extract = PossibleExtract(
        1207,
        "role_17",
        AT,
        datetime(2026, 6, 7, 14, 9, tzinfo=UTC),
        12408,
        "SELECT",
        ("public.lab_result",),
        "psql",
        "10.3.0.17",
        ("delivered 12,408 rows, the leak has 9,001", "something new"),
    )
    found = replace(ONE, extracts=(extract, replace(extract, rows=None)), extracts_fitting=11)
    text = text_of(body_of(html(found)))
    for fact in (
        "2 of 11 that fit",
        "1,207",
        "2026-06-07 14:03–14:09 UTC",
        "psql",
        "10.3.0.17",
        "not known",
    ):
        assert fact in text
    assert "12 408 lignes remises, la fuite en a 9 001 ; something new" in text_of(
        body_of(html(found, "fr"))
    )


def test_what_the_numbers_rest_on_is_told() -> None:
    full = replace(
        ONE,
        commitments="registry",
        commitments_recorded=(RecordedCommitment("role_17", AT),),
        digests=(InputDigest("source", "public.lab_result", "cd" * 32),),
        parameters=(("--column", "resultat=value"),),
        case=CaseLook(4, "Forum, June", 2, 6e-9),
        signer=Signer("ef" * 32, AT, "http://tsa.example/"),
        source=(SourceChange("public.lab_result", 0.013, (("value", 0.004),)),),
    )
    text = text_of(body_of(html(full)))
    for fact in (
        "as the registry’s ledger keeps it; role_17 recorded on 7 June 2026",
        "cd" * 32,
        "--column resultat=value",
        "Forum, June (number 4), look 2",
        "kept to 6 × 10−9; this look spent 10−9",
        "ef" * 32,
        "http://tsa.example/",
        "rows since deleted1.3%",
        "cells changed in value0.4%",
    ):
        assert fact in text
    bare = text_of(body_of(html(ONE)))
    assert "This report is not signed" in bare
    assert "Commitmentsnot checked" in bare


def test_facts_for_programs_are_in_the_page() -> None:
    script = tree(html(ONE, "fr")).find(".//script[@type='application/json']")
    assert script is not None
    assert read_facts(script.text or "") == ONE
