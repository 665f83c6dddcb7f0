"""Files made to keep a scan busy for hours, or to fill the memory."""

from __future__ import annotations

import io
import time
import tracemalloc
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest

from pgbalise.leaks.archives import beginning
from pgbalise.scan.book import Book
from pgbalise.scan.markup import plain_markup
from pgbalise.scan.scanning import Findings, scan
from tests.scan.writing import make_decoys

if TYPE_CHECKING:
    from pathlib import Path

DECOYS = make_decoys(1)


def scanned(path: Path, content: bytes) -> Findings:
    path.write_bytes(content)
    return scan(Book(DECOYS), [str(path)], io.BytesIO())


def seconds(text: bytes) -> float:
    start = time.process_time()
    plain_markup(text)
    return time.process_time() - start


@pytest.mark.parametrize("piece", [b"</w:t>", b"</w:t><w:r>", b"<!--", b"<!-- <", b"--><!--"])
def test_markup_without_its_ends_takes_no_longer_than_its_length(piece: bytes) -> None:
    short, long = (min(seconds(piece * count) for _ in range(3)) for count in (2_000, 16_000))
    assert long < 24 * short + 0.02


def test_comments_and_runs_are_still_read() -> None:
    text = b"<p>a<!-- b\n<i>c --><w:t>Le G</w:t></w:r><w:r><w:t>off</w:t><!-- open <b>d</b>"
    assert b" ".join(plain_markup(text).split()) == b"a b c Le Goff <!-- open d"


@pytest.mark.parametrize(
    "field",
    [
        b"Subject: " + b"=?a?q?" * 60_000,
        b"Content-Type: multipart/mixed" + b";a" * 100_000,
        b"Content-Disposition: attachment" + b';"' * 100_000,
        b"Content-Disposition: attachment" + b"".join(b";f*%d=a" % n for n in range(40_000)),
    ],
)
def test_a_mail_with_an_endless_field_is_read_at_once(tmp_path: Path, field: bytes) -> None:
    start = time.process_time()
    scanned(tmp_path / "a.eml", b"From: a@b.fr\r\nDate: x\r\n" + field + b"\r\n\r\ntext\r\n")
    assert time.process_time() - start < 1.5


def test_the_beginning_of_a_member_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", b"application" + bytes(50 << 20))
    tracemalloc.start()
    try:
        with zipfile.ZipFile(path) as archive:
            assert beginning(archive, "mimetype", 11) == b"application"
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


def test_a_pdf_of_one_page_listed_many_times_is_given_up(tmp_path: Path) -> None:
    drawn = zlib.compress(b"q Q " * 100_000)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[" + b"3 0 R " * 5_000 + b"]/Count 5000>>",
        b"<</Type/Page/Parent 2 0 R/Contents 4 0 R>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n" % len(drawn) + drawn + b"\nendstream",
    ]
    out = b"%PDF-1.7\n"
    places = []
    for number, one in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + one + b"\nendobj\n"
    rows = b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"xref\n0 5\n0000000000 65535 f \n" + rows + b"trailer <</Size 5/Root 1 0 R>>\n"
    out += b"startxref\n%d\n%%%%EOF" % out.index(b"xref\n0 5")
    findings = scanned(tmp_path / "a.pdf", out)
    assert [one.reason for one in findings.unread] == [
        "more than 400 times its size when it is unpacked"
    ]
