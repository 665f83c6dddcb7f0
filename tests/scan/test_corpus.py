"""Every decoy planted in two hundred files of all kinds is found, and nothing else."""

from __future__ import annotations

import base64
import bz2
import csv
import gzip
import io
import json
import lzma
import mailbox
import sqlite3
import subprocess
from datetime import date
from email.message import EmailMessage
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import openpyxl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pypdf
import pytest
import weasyprint

from pgbalise.decoys.identity import Role
from pgbalise.demo.cohort import build_cohort
from pgbalise.scan.book import Book
from pgbalise.scan.scanning import scan
from tests.scan.writing import (
    as_json,
    compound,
    filler,
    make_decoys,
    office,
    row,
    sentences,
    tarred,
    zipped,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgbalise.decoys.issued import IssuedDecoy
    from pgbalise.demo.cluster import ThrowawayCluster
    from tests.conftest import Connection

Made = tuple[bytes, str]
"""A file's content, and the kind of trait to be found in it."""

DECOYS = make_decoys(230)


def said(decoy: IssuedDecoy) -> tuple[str, str]:
    """A way to write a decoy, one after the other."""
    kinds = sentences(decoy)
    kind, text = kinds[decoy.decoy_id % len(kinds)]
    return kind, text


def text_of(decoy: IssuedDecoy) -> tuple[str, str]:
    kind, text = said(decoy)
    return kind, filler(30, decoy.decoy_id) + text + "\n" + filler(30, decoy.decoy_id + 1)


def plain(encoding: str) -> Callable[[IssuedDecoy], Made]:
    def made(decoy: IssuedDecoy) -> Made:
        kind, text = text_of(decoy)
        return text.encode(encoding, "replace"), kind

    return made


def packed(pack: Callable[[bytes], bytes]) -> Callable[[IssuedDecoy], Made]:
    def made(decoy: IssuedDecoy) -> Made:
        body, kind = plain("utf-8")(decoy)
        return pack(body), kind

    return made


def csv_file(decoy: IssuedDecoy) -> Made:
    target = io.StringIO()
    rows = csv.DictWriter(target, list(row(decoy)), quoting=csv.QUOTE_ALL)
    rows.writeheader()
    rows.writerow(row(decoy))
    return target.getvalue().encode(), "person"


def insert_file(decoy: IssuedDecoy) -> Made:
    values = ", ".join("'" + value.replace("'", "''") + "'" for value in row(decoy).values())
    return f"INSERT INTO p (a, b, c, d, e) VALUES\n({values});\n".encode(), "person"


def json_file(decoy: IssuedDecoy) -> Made:
    return as_json(decoy), "person"


def json_lines(decoy: IssuedDecoy) -> Made:
    return (json.dumps(row(decoy)) + "\n").encode() * 2, "person"


def xml_file(decoy: IssuedDecoy) -> Made:
    cells = "".join(f"<{name}>{escape(text)}</{name}>\n" for name, text in row(decoy).items())
    return f'<?xml version="1.0"?>\n<patients><p>{cells}</p></patients>'.encode(), "person"


def attributes(decoy: IssuedDecoy) -> Made:
    cells = " ".join(f'{name}="{escape(text)}"' for name, text in row(decoy).items())
    return f"<patients><p {cells}/></patients>".encode(), "person"


def html_file(decoy: IssuedDecoy) -> Made:
    cells = "".join(
        f"<td>{''.join(c if c.isascii() else f'&#{ord(c)};' for c in text)}</td>"
        for text in row(decoy).values()
    )
    return f"<!doctype html><table>\n<tr>{cells}</tr></table>".encode(), "person"


def rtf_file(decoy: IssuedDecoy) -> Made:
    kind, text = said(decoy)
    written = "".join(
        c if c.isascii() else f"\\'{c.encode('cp1252', 'replace').hex()}" for c in text
    )
    return ("{\\rtf1\\ansi " + written + "\\par}").encode(), kind


def mail_file(decoy: IssuedDecoy) -> Made:
    kind, text = said(decoy)
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@b.fr", "c@d.fr", "Réunion"
    message.set_content("Bonjour,\nété\n", cte="quoted-printable")
    attached = gzip.compress(text.encode())
    message.add_attachment(attached, "application", "gzip", filename="liste.csv.gz")
    return message.as_bytes(), kind


def quoted_mail(decoy: IssuedDecoy) -> Made:
    kind, text = said(decoy)
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@b.fr", "c@d.fr", "x"
    # Soft line breaks fall wherever the line is too long.
    message.set_content("é" * 15 + " " + text + "\n", cte="quoted-printable")
    return message.as_bytes(), kind


def mailbox_file(decoy: IssuedDecoy, folder: Path) -> Made:
    body, kind = mail_file(decoy)
    path = folder / f"box-{decoy.decoy_id}"
    box = mailbox.mbox(path)
    for content in (b"Subject: a\nFrom: b\n\nc\n", body):
        box.add(content)
    box.close()
    made = path.read_bytes()
    path.unlink()
    return made, kind


def outlook_file(decoy: IssuedDecoy) -> Made:
    kind, text = said(decoy)
    attached = "__attach_version1.0_#00000000"
    streams = {
        "__properties_version1.0": b"",
        "__substg1.0_0037001F": "Réunion".encode("utf-16-le"),
        "__substg1.0_1000001F": "Bonjour".encode("utf-16-le"),
        f"{attached}/__substg1.0_3707001F": "liste.zip".encode("utf-16-le"),
        f"{attached}/__substg1.0_37010102": zipped({"a.txt": text.encode()}),
    }
    return compound(streams), kind


def old_word(decoy: IssuedDecoy) -> Made:
    kind, text = said(decoy)
    return compound({"WordDocument": b"\x01\x02\0" * 99 + text.encode("utf-16-le")}), kind


def docx(decoy: IssuedDecoy) -> Made:
    kind, text = said(decoy)
    half = len(text) // 2
    runs = "".join(f"<w:r><w:t>{escape(part)}</w:t></w:r>" for part in (text[:half], text[half:]))
    return office("word/document.xml", "w", f"<w:p>{runs}</w:p>"), kind


def pptx(decoy: IssuedDecoy) -> Made:
    kind, text = said(decoy)
    return office("ppt/slides/slide1.xml", "p", f"<a:t>{escape(text)}</a:t>"), kind


def odt(decoy: IssuedDecoy) -> Made:
    kind, text = said(decoy)
    return office("content.xml", "office", f"<text:p>{escape(text)}</text:p>"), kind


def xlsx(decoy: IssuedDecoy) -> Made:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    values = row(decoy)
    sheet.append(list(values))
    sheet.append(
        [date.fromisoformat(v) if name == Role.BIRTH_DATE else v for name, v in values.items()]
    )
    target = io.BytesIO()
    book.save(target)
    return target.getvalue(), "person"


def table(decoy: IssuedDecoy) -> pa.Table:
    return pa.table({name: [text, None] for name, text in row(decoy).items()})


def parquet(decoy: IssuedDecoy) -> Made:
    target = io.BytesIO()
    pyarrow.parquet.write_table(table(decoy), target)
    return target.getvalue(), "person"


def arrow(decoy: IssuedDecoy) -> Made:
    target = io.BytesIO()
    pyarrow.feather.write_feather(table(decoy), target)
    return target.getvalue(), "person"


def sqlite(decoy: IssuedDecoy, folder: Path) -> Made:
    path = folder / f"{decoy.decoy_id}.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE p (a, b, c, d, e)")
    database.execute("INSERT INTO p VALUES (?, ?, ?, ?, ?)", list(row(decoy).values()))
    database.commit()
    database.close()
    made = path.read_bytes()
    path.unlink()
    return made, "person"


def pdf(decoy: IssuedDecoy) -> Made:
    kind, text = said(decoy)
    made = weasyprint.HTML(string=f"<p>Compte rendu</p><p>{escape(text)}</p>").write_pdf()
    assert made is not None
    return made, kind


def binary(decoy: IssuedDecoy) -> Made:
    kind, text = said(decoy)
    return b"\x7fELF\0\x01\x02" * 50 + text.encode() + b"\0\xff" * 50, kind


def nested(decoy: IssuedDecoy) -> Made:
    body, kind = mail_file(decoy)
    inner = tarred({"d/m.eml": body}, "w:xz")
    return zipped({"a/b.tar.xz": inner, "a/readme": b"nothing"}), kind


def encoded_log(decoy: IssuedDecoy) -> Made:
    who = decoy.identity
    body = f"GET /search?mail={who[Role.MAIL].replace('@', '%40')}&x=1 HTTP/1.1\n"
    return body.encode(), "mail"


def zstd(body: bytes) -> bytes:
    return bytes(pa.compress(body, "zstd", asbytes=True))


FORMATS: dict[str, Callable[[IssuedDecoy], Made]] = {
    "txt": plain("utf-8"),
    "latin1.txt": plain("latin-1"),
    "cp1252.txt": plain("cp1252"),
    "utf16.txt": plain("utf-16"),
    "utf16be.txt": plain("utf-16-be"),
    "csv": csv_file,
    "sql": insert_file,
    "json": json_file,
    "jsonl": json_lines,
    "xml": xml_file,
    "attributes.xml": attributes,
    "html": html_file,
    "rtf": rtf_file,
    "eml": mail_file,
    "quoted.eml": quoted_mail,
    "msg": outlook_file,
    "doc": old_word,
    "docx": docx,
    "pptx": pptx,
    "odt": odt,
    "xlsx": xlsx,
    "parquet": parquet,
    "arrow": arrow,
    "pdf": pdf,
    "bin": binary,
    "nested.zip": nested,
    "log": encoded_log,
    "gz": packed(gzip.compress),
    "bz2": packed(bz2.compress),
    "xz": packed(lzma.compress),
    "zst": packed(zstd),
    "zip": packed(lambda body: zipped({"a.csv": body})),
    "tar": packed(lambda body: tarred({"a.csv": body}, "w")),
    "tgz": packed(lambda body: tarred({"a.csv": body})),
    "b64.eml": packed(
        lambda body: (
            b"From: a@b\nTo: c@d\nContent-Transfer-Encoding: base64\n\n" + base64.encodebytes(body)
        )
    ),
}

FEW = ("pdf", "xlsx")
"""Formats whose libraries take long."""


def plant(folder: Path) -> dict[str, tuple[str, str]]:
    """Write the files; return by name which decoy is in each, and which kind of trait shows."""
    expected = {}
    decoys = iter(DECOYS[:-5])
    special = {"mbox": mailbox_file, "db": sqlite}
    for name, make in FORMATS.items():
        for _ in range(2 if name in FEW else 6 if len(name) % 2 else 5):
            decoy = next(decoys)
            body, kind = make(decoy)
            path = folder / name[:1] / f"{decoy.decoy_id}.{name}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(body)
            expected[str(path)] = decoy.name, kind
    for name, write in special.items():
        for _ in range(8):
            decoy = next(decoys)
            body, kind = write(decoy, folder)
            path = folder / f"{decoy.decoy_id}.{name}"
            path.write_bytes(body)
            expected[str(path)] = decoy.name, kind
    return expected


def dump(cluster: ThrowawayCluster, source: Connection, folder: Path) -> dict[str, str]:
    """Write dumps of real databases, each with a decoy; return by path which."""
    expected = {}
    forms = {"plain": "-Fp", "insert": "--inserts", "custom": "-Fc", "tar": "-Ft", "folder": "-Fd"}
    for (name, form), decoy in zip(forms.items(), DECOYS[-5:], strict=True):
        source.execute("DROP TABLE IF EXISTS p")
        source.execute("CREATE TABLE p (a text, b text, c text, d date, e text)")
        source.execute("INSERT INTO p VALUES (%s, %s, %s, %s, %s)", list(row(decoy).values()))
        path = folder / f"dump.{name}"
        command = [cluster.bin_dir / "pg_dump", form, "-f", path]
        subprocess.run([*command, "-d", cluster.dsn(source.info.dbname)], check=True)
        expected[str(path)] = decoy.name
    return expected


def test_every_planted_decoy_is_found(
    tmp_path: Path, cluster: ThrowawayCluster, empty_db: Connection
) -> None:
    expected = plant(tmp_path)
    dumps = dump(cluster, empty_db, tmp_path)
    assert len(expected) + len(dumps) >= 200
    findings = scan(Book(DECOYS), [str(tmp_path)], io.BytesIO())
    found = {(hit.file, hit.decoy, hit.kind) for hit in findings.hits}
    missed = {(path, *what) for path, what in expected.items()} - found
    assert not missed
    for path, decoy in dumps.items():
        assert any(file.startswith(path) and name == decoy for file, name, _ in found), path
    assert not findings.unread
    # Each file has its own decoy and no other.
    for file, name, _ in found:
        planted = expected[file][0] if file in expected else None
        assert planted == name or any(file.startswith(p) and d == name for p, d in dumps.items())


def test_the_demonstration_has_no_decoy(tmp_path: Path, project: Path) -> None:
    for member in build_cohort().tables():
        with (tmp_path / f"{member.name}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(member.columns)
            rows.writerows(member.rows())
    paths = [str(tmp_path), str(project / "README.md"), str(project / "docs")]
    findings = scan(Book(make_decoys(500, seed=7)), paths, io.BytesIO())
    assert findings.files > 20
    assert findings.status == 1
    assert not findings.hits


def test_an_encrypted_pdf_is_listed_as_unread(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    path = tmp_path / "a.pdf"
    with path.open("wb") as file:
        writer.write(file)
    findings = scan(Book(DECOYS[:5]), [str(path)], io.BytesIO())
    assert [(unread.reason, findings.status) for unread in findings.unread] == [("encrypted", 2)]


@pytest.mark.parametrize("name", ["zip", "docx", "pdf", "tgz", "gz", "msg", "parquet", "xz"])
def test_a_file_cut_or_garbled_anywhere_does_not_stop_the_scan(tmp_path: Path, name: str) -> None:
    body, _ = FORMATS[name](DECOYS[0])
    for number in range(6):
        (tmp_path / f"cut-{number}").write_bytes(body[: len(body) * (number + 1) // 7])
        at = len(body) * number // 6
        garbled = body[:at] + b"\xff\0garbled" + body[at + 9 :]
        (tmp_path / f"garbled-{number}").write_bytes(garbled)
    (tmp_path / "whole").write_bytes(plain("utf-8")(DECOYS[1])[0])
    findings = scan(Book(DECOYS[:5]), [str(tmp_path)], io.BytesIO())
    assert DECOYS[1].name in {hit.decoy for hit in findings.hits if hit.file.endswith("whole")}
