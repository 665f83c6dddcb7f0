from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pgbalise.errors import InvalidLeak
from pgbalise.leaks import open_leak
from tests.leaks.corpus import NAMES, ROWS, archive, csv_text, parquet, tar
from tests.leaks.test_delimited import rows_of

CSV = csv_text().encode()


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        bz2.compress,
        lzma.compress,
        lambda data: pa.compress(data, "zstd", asbytes=True),
        lambda data: gzip.compress(data[:900]) + gzip.compress(data[900:]),
        lambda data: archive(**{"folder/leak__csv": data}),
        lambda data: tar(("folder", None), ("folder/leak.csv", data)),
        lambda data: gzip.compress(tar(("leak.csv", data))),
        lambda data: archive(leak__csv__gz=gzip.compress(data)),
        lambda data: archive(inner__zip=archive(leak__csv__bz2=bz2.compress(data))),
    ],
)
def test_what_is_packed_is_unpacked(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "leak"
    path.write_bytes(pack(CSV))
    with open_leak(path) as leak:
        (table,) = leak.tables
        assert table.columns == tuple(NAMES)
        assert rows_of(table) == ROWS
        assert leak.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert leak.size == path.stat().st_size


def test_what_cannot_be_read_in_an_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "leak.zip"
    path.write_bytes(archive(a__csv=CSV, b__parquet=parquet(), c__pdf=b"%PDF-1.4", d__csv=b""))
    with open_leak(path) as leak:
        assert [table.name for table in leak.tables] == ["leak.zip: a.csv", "leak.zip: b.parquet"]
        assert leak.skipped == (
            "leak.zip: c.pdf: the file is a PDF document",
            "leak.zip: d.csv: the file is empty",
        )


def test_nothing_is_written_where_a_member_s_name_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    path = tmp_path / "leak.tar"
    path.write_bytes(tar(("../../evil.csv", CSV), ("/absolute\n.csv", CSV)))
    with open_leak(path) as leak:
        assert [table.name for table in leak.tables] == [
            "leak.tar: ../../evil.csv",
            "leak.tar: /absolute?.csv",
        ]
        (folder,) = temporary.iterdir()
        assert sorted(file.name for file in folder.iterdir()) == ["unpacked-1", "unpacked-2"]
    assert not list(temporary.iterdir())
    assert sorted(tmp_path.iterdir()) == [path, temporary]


def test_what_may_be_unpacked_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "leak.gz"
    path.write_bytes(gzip.compress(CSV))
    with (
        pytest.raises(InvalidLeak, match="when it is unpacked"),
        open_leak(path, max_unpacked=len(CSV) - 1),
    ):
        pass
    with open_leak(path, max_unpacked=len(CSV)) as leak:
        assert leak.tables


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "leak.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("a.csv", "w") as member,
    ):
        for _ in range(200):
            member.write(b"1;2\n" * (1 << 18))
    with pytest.raises(InvalidLeak, match="times its size"), open_leak(path):
        pass
