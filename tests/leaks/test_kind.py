from __future__ import annotations

import pytest

from pgbalise.leaks.kind import Kind, kind_of, utf16_order
from tests.leaks.corpus import GOOD

KINDS = {
    "csv": Kind.TEXT,
    "quoted": Kind.TEXT,
    "utf-16": Kind.TEXT,
    "parquet": Kind.PARQUET,
    "feather": Kind.ARROW_FILE,
    "arrows": Kind.ARROW_STREAM,
    "xlsx": Kind.ZIP,
    "sqlite": Kind.SQLITE,
    "json": Kind.JSON,
    "jsonl": Kind.JSON,
    "copy": Kind.SQL,
    "insert": Kind.SQL,
    "custom": Kind.PG_CUSTOM,
    "zip": Kind.ZIP,
    "tar": Kind.TAR,
    "gz": Kind.GZIP,
    "bz2": Kind.BZIP2,
    "xz": Kind.XZ,
    "zst": Kind.ZSTD,
    "toc": Kind.TAR,
}


@pytest.mark.parametrize("name", GOOD)
def test_a_file_is_told_by_its_first_bytes(name: str) -> None:
    assert kind_of(GOOD[name]()) is KINDS[name]


@pytest.mark.parametrize(
    "text",
    [
        "PAR1;PAR2\n1;2\n",
        "ORCID;nom\n1;a\n",
        "BZh;x\n1;2\n",
        "PGDMP\n1\n",
        "note\nINSERT\nCOPY\nCREATE\n",
        "id;note\n1;insert into the vein\n",
        "id;remarque\n1;<b>\n",
    ],
)
def test_text_that_begins_like_another_format_is_text(text: str) -> None:
    assert kind_of(text.encode()) is Kind.TEXT


def test_utf_16_is_told_with_and_without_a_byte_order_mark() -> None:
    text = "id;nom\n1;Zoé\n"
    orders = [utf16_order(text.encode(f"utf-16-{order}")) for order in ("le", "be")]
    assert orders == ["le", "be"]
    assert utf16_order(text.encode("utf-16")) == "le"
    assert utf16_order(text.encode()) is None
    assert utf16_order(bytes(100)) is None
