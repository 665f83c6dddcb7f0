"""The report as PDF."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace

import pytest

from pgbalise.errors import InvalidInput
from pgbalise.report.facts import read_facts
from pgbalise.report.pdf import attached_facts, pdf

from .test_html import ONE


@pytest.fixture(scope="module")
def document() -> bytes:
    return pdf(ONE, "fr")


def test_facts_are_attached(document: bytes) -> None:
    assert read_facts(attached_facts(document)) == ONE
    with pytest.raises(InvalidInput, match="no facts"):
        attached_facts(document.replace(b"EmbeddedFile", b"EmbeddedLife"))
    with pytest.raises(InvalidInput, match="cannot be read"):
        attached_facts(document[: document.index(b"/EmbeddedFile")] + b"/EmbeddedFile stream\nno")


def test_same_report_gives_the_same_bytes(document: bytes) -> None:
    assert pdf(ONE, "fr") == document


def test_pages_are_a4_and_fonts_are_inside(document: bytes) -> None:
    parts = [document]
    for start in re.finditer(rb"stream\r?\n", document):
        try:
            parts.append(zlib.decompressobj().decompress(document[start.end() :]))
        except zlib.error:
            continue
    text = b"\n".join(parts)
    assert len(re.findall(rb"/Type ?/Page\b", text)) >= 4
    assert set(re.findall(rb"/MediaBox ?\[([^\]]*)\]", text)) == {b"0 0 595.275591 841.889764"}
    assert b"/FontFile" in text


def test_nothing_outside_is_read_whatever_names_say(caplog: pytest.LogCaptureFixture) -> None:
    name = '<img src="file:///etc/hostname"/><link rel="attachment" href="file:///etc/hostname"/>'
    made = pdf(replace(ONE, database=name))
    assert len(re.findall(rb"/Type ?/EmbeddedFile", made)) == 1
    assert not [record for record in caplog.records if "file:" in record.getMessage()]
