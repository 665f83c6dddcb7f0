from __future__ import annotations

import io
import zipfile
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pytest

from pgbalise.errors import EnvironmentProblem
from pgbalise.leaks import open_leak, spreadsheet
from pgbalise.leaks.workbook import table_of
from tests.leaks.test_delimited import rows_of

ODS = """<?xml version="1.0" encoding="UTF-8"?><office:document-content
 xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" office:version="1.2"><office:body>
<office:spreadsheet><table:table table:name="Feuille1">{}</table:table></office:spreadsheet>
</office:body></office:document-content>"""
MANIFEST = """<?xml version="1.0" encoding="UTF-8"?><manifest:manifest
 xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"><manifest:file-entry
 manifest:full-path="/" manifest:media-type="application/vnd.oasis.opendocument.spreadsheet"/>
</manifest:manifest>"""


def test_every_sheet_with_rows_is_a_table_of_text(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = "Patients"
    book.active.append(["Extraction du 3 février"])
    book.active.append([])
    book.active.append(["id", "nom", "naissance", "vu", "valeur", "suivi"])
    book.active.append([1, "Zoé", date(1980, 2, 3), datetime(2021, 2, 3, 4, 5), 12.1, True])
    book.active.append([2, None, None, None, 3.0, False])
    book.create_sheet("Vide")
    book.create_sheet("Notes").append([1, 2, "x"])
    book.save(tmp_path / "leak.bin")
    with open_leak(tmp_path / "leak.bin") as leak:
        patients, notes = leak.tables
        assert patients.name == "leak.bin: Patients"
        assert patients.columns == ("id", "nom", "naissance", "vu", "valeur", "suivi")
        assert rows_of(patients) == [
            ["1", "Zoé", "1980-02-03", "2021-02-03 04:05:00", "12.1", "true"],
            ["2", None, None, None, "3", "false"],
        ]
        assert (notes.named, rows_of(notes)) == (False, [["1", "2", "x"]])


def test_opendocument_is_read(tmp_path: Path) -> None:
    def cell(value: str) -> str:
        text = f"<text:p>{value}</text:p>"
        return f'<table:table-cell office:value-type="string">{text}</table:table-cell>'

    rows = "".join(
        f"<table:table-row>{cell(a)}{cell(b)}</table:table-row>"
        for a, b in (("code", "nom"), ("17", "Zoé"), ("18", "Gaël"))
    )
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        file.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        file.writestr("META-INF/manifest.xml", MANIFEST)
        file.writestr("content.xml", ODS.format(rows))
    (tmp_path / "leak").write_bytes(sink.getvalue())
    with open_leak(tmp_path / "leak") as leak:
        (table,) = leak.tables
        assert table.name == "leak: Feuille1"
        assert (table.columns, rows_of(table)) == (
            ("code", "nom"),
            [["17", "Zoé"], ["18", "Gaël"]],
        )


def test_titles_and_blank_columns_are_left_out() -> None:
    rows = [
        ["Titre", None, None, None],
        [None] * 4,
        ["id", None, "nom", "age"],
        ["1", None, "a", "3"],
    ]
    assert table_of(rows) == (("id", "nom", "age"), True, [["1", "a", "3"]])
    assert table_of([[None, None]]) == ((), False, [])


def test_without_the_library_a_hint_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreadsheet, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'pgbalise\[leaks\]'"):
        spreadsheet.read(tmp_path / "leak.xlsx", "leak.xlsx", tmp_path)
