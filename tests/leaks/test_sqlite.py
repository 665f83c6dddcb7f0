from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from pgbalise.leaks import open_leak
from tests.leaks.test_delimited import rows_of


def test_every_table_with_rows_is_read_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "leak ?#%.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute(
            'CREATE TABLE "pa""tient" (id INTEGER PRIMARY KEY, nom, valeur REAL, x BLOB)'
        )
        database.execute("CREATE TABLE vide (a)")
        database.execute("CREATE VIEW vue AS SELECT load_extension('x') FROM vide")
        rows = [(1, "Zoé\n", 12.1, b"\xff"), (2, None, None, None), (3, "", 3.0, b"")]
        database.executemany('INSERT INTO "pa""tient" VALUES (?, ?, ?, ?)', rows)
        database.commit()
    before = path.read_bytes(), sorted(tmp_path.iterdir())
    with open_leak(path) as leak:
        (table,) = leak.tables
        assert table.name == 'leak ?#%.db: pa"tient'
        expected = [
            ["1", "Zoé\n", "12.1", "\\xff"],
            ["2", None, None, None],
            ["3", "", "3.0", "\\x"],
        ]
        assert rows_of(table) == rows_of(table) == expected
    assert (path.read_bytes(), sorted(tmp_path.iterdir())) == before


def test_all_rows_of_a_large_table_come_in_batches(tmp_path: Path) -> None:
    path = tmp_path / "leak.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (id, nom)")
        database.executemany("INSERT INTO t VALUES (?, 'x')", ((n,) for n in range(150_000)))
        database.commit()
    with open_leak(path) as leak:
        batches = list(leak.tables[0].batches())
    assert max(batch.num_rows for batch in batches) <= 66_000
    assert [value for b in batches for value in b.column(0).to_pylist()] == [
        str(n) for n in range(150_000)
    ]
