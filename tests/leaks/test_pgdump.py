"""What the real pg_dump writes comes back, cell for cell, whatever the format."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pgbalise.demo.cluster import ThrowawayCluster
from pgbalise.demo.servers import MAJORS, installation
from pgbalise.errors import InvalidLeak
from pgbalise.leaks import open_leak
from tests.conftest import Connection
from tests.leaks.test_delimited import rows_of

VALUES = [
    "a",
    None,
    "",
    "x\ty",
    "l\nm\\n'",
    '"q"',
    "\\N",
    "\\.",
    "é;,",
    "\r",
    "--",
    "/*",
    "$$",
    "');",
]
OPTIONS = {
    "copy.sql": [],
    "inserts.sql": ["--inserts"],
    "rows-per-insert.sql": ["--rows-per-insert=3"],
    "column-inserts.sql": ["--column-inserts", "--on-conflict-do-nothing"],
    "latin1.sql": ["-E", "LATIN1"],
    "clean.sql": ["--clean", "--if-exists", "--create"],
    "custom": ["-Fc"],
    "custom-0": ["-Fc", "-Z0"],
    "custom-inserts": ["-Fc", "--inserts"],
    "tar": ["-Ft"],
    "directory": ["-Fd"],
    "directory-0": ["-Fd", "-Z0"],
}


@pytest.fixture
def source(empty_db: Connection) -> Connection:
    empty_db.execute(
        """
        CREATE SCHEMA dpi;
        CREATE TABLE dpi."Le patient" (id int PRIMARY KEY, nom text, "d,x" date, b bytea,
            CHECK (nom <> 'x;y'), EXCLUDE USING btree (id WITH =));
        CREATE TABLE dpi.seule (v text);
        CREATE TABLE dpi.vide (a int);
        CREATE FUNCTION dpi.f() RETURNS void LANGUAGE sql
            AS $$ INSERT INTO dpi.seule VALUES ('no') $$;
        COMMENT ON TABLE dpi.seule IS 'it''s; INSERT INTO x VALUES (1);';
        SELECT lo_from_bytea(0, 'large');
        """
    )
    with empty_db.cursor() as cursor:
        rows = [(n, value, "2021-02-03", b"\x00\xff") for n, value in enumerate(VALUES)]
        cursor.executemany('INSERT INTO dpi."Le patient" VALUES (%s, %s, %s, %s)', rows)
        cursor.executemany("INSERT INTO dpi.seule VALUES (%s)", [(value,) for value in VALUES])
    return empty_db


def dumped(
    program: Path, cluster: ThrowawayCluster, source: Connection, path: Path, *options: str
) -> Path:
    command = [program, "-d", cluster.dsn(source.info.dbname), *options]
    subprocess.run([*command, "-f", path], check=True)
    if path.is_dir():
        packed = path.with_suffix(".tgz")
        subprocess.run(["tar", "-C", path.parent, "-czf", packed, path.name], check=True)
        return packed
    return path


def check(path: Path) -> None:
    with open_leak(path) as leak:
        tables = {table.name: table for table in leak.tables}
        one = tables.pop(f"{path.name}: dpi.seule")
        several = tables.pop(f"{path.name}: dpi.Le patient")
        assert not tables
        assert (one.columns, several.columns) == (("v",), ("id", "nom", "d,x", "b"))
        assert one.named
        assert several.named
        assert [value for (value,) in rows_of(one)] == VALUES
        assert rows_of(several) == [
            [str(n), value, "2021-02-03", "\\x00ff"] for n, value in enumerate(VALUES)
        ]


@pytest.mark.parametrize("name", OPTIONS)
def test_each_format_comes_back(
    name: str, cluster: ThrowawayCluster, source: Connection, tmp_path: Path
) -> None:
    check(dumped(cluster.bin_dir / "pg_dump", cluster, source, tmp_path / name, *OPTIONS[name]))


def test_a_dump_that_went_through_a_pipe_has_no_offsets(
    cluster: ThrowawayCluster, source: Connection, tmp_path: Path
) -> None:
    dump = [cluster.bin_dir / "pg_dump", "-Fc", "-d", cluster.dsn(source.info.dbname)]
    with subprocess.Popen(dump, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        (tmp_path / "piped").write_bytes(process.stdout.read())
    check(tmp_path / "piped")


def test_a_dump_of_the_schema_has_no_rows(
    cluster: ThrowawayCluster, source: Connection, tmp_path: Path
) -> None:
    for name, form in (("plain", "-Fp"), ("custom", "-Fc"), ("tar", "-Ft")):
        path = dumped(
            cluster.bin_dir / "pg_dump", cluster, source, tmp_path / name, form, "--schema-only"
        )
        with pytest.raises(InvalidLeak, match="no rows"), open_leak(path):
            pass


@pytest.mark.matrix
@pytest.mark.parametrize(
    "options", [*OPTIONS.values(), ["-Fc", "-Zlz4"], ["-Fc", "-Zzstd"], ["-Fd", "-Zlz4"]]
)
def test_each_format_of_the_newest_version_comes_back(
    options: list[str], cluster: ThrowawayCluster, source: Connection, tmp_path: Path
) -> None:
    program = installation(max(MAJORS), lambda line: None).bin_dir / "pg_dump"
    check(dumped(program, cluster, source, tmp_path / "dump", *options))
