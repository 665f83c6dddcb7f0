"""Clients work through the proxy unchanged: they name the stored relations and get marked rows."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.rows import dict_row

if TYPE_CHECKING:
    from tests.proxy.conftest import Ward

CLIENTS = Path(__file__).with_name("clients")
JDBC = Path("/usr/share/java/postgresql.jar")
MARKED = "SELECT * FROM marked.patient ORDER BY patient_id"
STORED = MARKED.replace("marked.", "dpi.")


def _run(*command: str | Path, **more: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **more)
    assert not done.returncode, done.stderr
    return done.stdout


def _psql(ward: Ward, dsn: str, script: str) -> str:
    """What psql prints, of both kinds, and goes on after an error as it does by default."""
    done = subprocess.run(
        [ward.cluster.bin_dir / "psql", "-X", "-d", dsn],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_the_recipients_rows_are_marked(ward: Ward) -> None:
    with psycopg.connect(ward.cluster.dsn("ward")) as connection:
        stored = connection.execute(STORED.encode()).fetchall()
    assert ward.rows(MARKED) != stored


@pytest.mark.parametrize(
    "command",
    [r"\d", r"\d dpi.patient", r"\d+ dpi.*", r"\dt dpi.*", r"\dn+", r"\df balise.*", r"\du", r"\l"],
)
def test_psql_describes_as_it_does_directly(ward: Ward, command: str) -> None:
    said = _psql(ward, ward.proxied, command)
    assert said == _psql(ward, ward.direct, command)
    assert "ERROR" not in said
    assert said.strip()


@pytest.mark.parametrize(
    "script",
    [
        "SELECT * FROM {}.patient ORDER BY patient_id LIMIT 20;",
        "TABLE {}.patient \\gdesc",
        "SELECT count(*) AS n FROM {}.patient \\gset\n\\echo :n",
        "SELECT sex, deceased, count(*) FROM {}.patient GROUP BY 1, 2 ORDER BY 1 \\crosstabview",
        "\\set FETCH_COUNT 100\nSELECT * FROM {}.lab_result ORDER BY result_id;",
        "\\copy (SELECT * FROM {}.patient WHERE weight_kg > 70 ORDER BY 1) TO STDOUT",
        (
            "CREATE TEMP SEQUENCE s; SELECT 6 / (3 - nextval('s')), sum(weight_kg)\n"
            "  FROM {}.patient \\watch 0.01"
        ),
        (
            "BEGIN; SELECT max(weight_kg) FROM {}.patient; SAVEPOINT a; SELECT 1/0; ROLLBACK TO a;"
            " SELECT min(weight_kg) FROM {}.patient; COMMIT;"
        ),
        'SELECT "Stay Id", "from" FROM {}."Hospital Stay" ORDER BY 1;',
        "PREPARE p (int) AS SELECT * FROM {}.patient WHERE patient_id = $1; EXECUTE p (5);",
        "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM {}.patient ORDER BY 1; FETCH 3 FROM c;",
    ],
)
def test_psql_prints_what_it_prints_of_the_marked_views(ward: Ward, script: str) -> None:
    said = _psql(ward, ward.proxied, script.replace("{}", "dpi"))
    # \watch repeats until the query fails, and prints the time before each round
    lines = [line for line in said.splitlines() if "every 0.01s" not in line]
    wanted = _psql(ward, ward.direct, script.replace("{}", "marked"))
    assert lines == [line for line in wanted.splitlines() if "every 0.01s" not in line]
    assert len(lines) > 1 or "\\gset" in script


@pytest.mark.parametrize(
    ("proxied", "directly"),
    [
        (r"\copy dpi.patient TO STDOUT", r"\copy (TABLE marked.patient) TO STDOUT"),
        (
            r"\copy dpi.patient (ipp, weight_kg) TO STDOUT (FORMAT csv, HEADER)",
            r"\copy (SELECT ipp, weight_kg FROM marked.patient) TO STDOUT (FORMAT csv, HEADER)",
        ),
        ("COPY dpi.diagnosis TO STDOUT;", "COPY (TABLE marked.diagnosis) TO STDOUT;"),
    ],
)
def test_a_relation_is_copied_as_its_marked_view(ward: Ward, proxied: str, directly: str) -> None:
    said = _psql(ward, ward.proxied, proxied)
    # PostgreSQL itself copies no view by its name alone
    assert said == _psql(ward, ward.direct, directly)
    assert said.count("\n") >= 160 or "diagnosis" in proxied


def test_psql_copies_a_file_into_a_table_and_out_again(ward: Ward, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_text("".join(f"{n}\tmot {n}\n" for n in range(1_000)), encoding="utf-8")
    said = _psql(
        ward,
        ward.proxied,
        "CREATE TEMP TABLE note (id integer, word text);\n"
        f"\\copy note FROM '{source}'\n\\copy note TO '{target}'\n",
    )
    assert said.splitlines() == ["CREATE TABLE", "COPY 1000", "COPY 1000"]
    assert target.read_bytes() == source.read_bytes()


def test_pg_dump_of_the_marked_schemas_is_what_it_is_directly(ward: Ward) -> None:
    dumps = [
        _run(ward.cluster.bin_dir / "pg_dump", "--schema=marked*", "-d", dsn)
        for dsn in (ward.proxied, ward.direct)
    ]
    # since 15.14 a dump begins with a random word for psql
    ours, directly = ([ln for ln in d.splitlines() if "restrict " not in ln] for d in dumps)
    assert ours == directly
    assert any(line.startswith("CREATE VIEW marked.patient") for line in ours)


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench_runs_its_transactions(ward: Ward, tmp_path: Path, mode: str) -> None:
    script = tmp_path / "script.sql"
    script.write_text(
        "\\set id random(1, 160)\n"
        "SELECT count(*) AS n FROM dpi.patient WHERE patient_id = :id \\gset\n"
        "SELECT weight_kg, value FROM dpi.patient JOIN dpi.lab_result USING (patient_id)"
        " WHERE patient_id = :id ORDER BY result_id;\n"
    )
    said = _run(
        ward.cluster.bin_dir / "pgbench",
        *("-n", "-M", mode, "-c", "4", "-t", "50", "-f", script, ward.proxied),
    )
    assert "processed: 200/200" in said
    assert "failed transactions: 0 " in said


@pytest.mark.parametrize("binary", [False, True])
def test_psycopg_fetches(ward: Ward, binary: bool) -> None:
    with psycopg.connect(ward.proxied) as connection:
        cursor = connection.execute(STORED.encode(), binary=binary)
        assert cursor.fetchall() == ward.rows(MARKED)
        one = "SELECT * FROM dpi.patient WHERE patient_id = %s"
        # from the fifth time on it is a prepared statement
        for wanted in range(1, 10):
            [row] = connection.execute(one, (wanted,), binary=binary)
            assert [row] == ward.rows(f"SELECT * FROM marked.patient WHERE patient_id = {wanted}")


def test_psycopg_goes_on_after_an_error(ward: Ward) -> None:
    with psycopg.connect(ward.proxied, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / (weight_kg - weight_kg) FROM dpi.patient")
        with pytest.raises(psycopg.errors.UndefinedColumn):
            connection.execute("SELECT nobody FROM dpi.patient")
        assert connection.execute(STORED.encode()).fetchall() == ward.rows(MARKED)


def test_psycopg_pipelines(ward: Ward) -> None:
    one = "SELECT * FROM dpi.lab_result WHERE patient_id = %s ORDER BY result_id"
    with psycopg.connect(ward.proxied) as connection, connection.pipeline():
        cursors = [connection.execute(one, (wanted,)) for wanted in range(1, 40)]
        found = [row for cursor in cursors for row in cursor]
    assert found == ward.rows(
        "SELECT * FROM marked.lab_result WHERE patient_id < 40 ORDER BY patient_id, result_id"
    )


def test_psycopg_reads_through_cursors_streams_and_copies(ward: Ward) -> None:
    rows = ward.rows(MARKED)
    with psycopg.connect(ward.proxied) as connection:
        with connection.cursor("mine", scrollable=True) as named:
            named.execute(STORED.encode())
            found = named.fetchmany(90)
            named.scroll(-50)
            assert named.fetchone() == rows[40]
            assert found + named.fetchall()[49:] == rows
        assert list(connection.cursor().stream(STORED.encode(), size=64)) == rows
        for copied in ("dpi.patient", "(SELECT * FROM dpi.patient)"):
            with connection.cursor().copy(f"COPY {copied} TO STDOUT".encode()) as copy:
                assert sum(1 for _ in copy.rows()) == len(rows)
        with connection.cursor().copy("COPY dpi.patient TO STDOUT (FORMAT binary)") as copy:
            ours = b"".join(copy)
    with (
        psycopg.connect(ward.direct) as connection,
        connection.cursor().copy("COPY (TABLE marked.patient) TO STDOUT (FORMAT binary)") as copy,
    ):
        assert b"".join(copy) == ours


def test_psycopg_async_sessions_do_not_mix(ward: Ward) -> None:
    one = "SELECT *, pg_sleep(0.001) IS NULL FROM dpi.patient WHERE patient_id = %s"

    async def read(first: int) -> list[Any]:
        found = []
        async with await psycopg.AsyncConnection.connect(ward.proxied) as connection:
            for wanted in range(first, 40, 8):
                cursor = await connection.execute(one, (wanted,))
                found += await cursor.fetchall()
        return found

    async def everybody() -> list[list[Any]]:
        return await asyncio.gather(*(read(first) for first in range(1, 9)))

    found = sorted(row[:-1] for rows in asyncio.run(everybody()) for row in rows)
    assert found == ward.rows(
        "SELECT * FROM marked.patient WHERE patient_id < 40 ORDER BY patient_id"
    )


def test_a_query_can_be_cancelled_through_the_proxy(ward: Ward) -> None:
    with psycopg.connect(ward.proxied, autocommit=True) as connection:
        connection.execute("SELECT count(*) FROM dpi.patient")
        connection.pgconn.send_query(b"SELECT pg_sleep(30), count(*) FROM dpi.patient")
        connection.cancel_safe(timeout=10)
        result = connection.pgconn.get_result()
        assert result is not None
        assert b"canceling statement" in result.error_message
        assert connection.pgconn.get_result() is None
        assert connection.execute(STORED.encode()).fetchall() == ward.rows(MARKED)


def test_asyncpg(ward: Ward) -> None:
    asyncpg = pytest.importorskip("asyncpg", reason="asyncpg is not installed")
    place = {"host": ward.relay.host, "port": ward.relay.port, "ssl": False}

    async def talk() -> None:
        rows = [tuple(row.values()) for row in await connection.fetch(STORED)]
        assert rows == ward.rows(MARKED)
        one = await connection.prepare("SELECT * FROM dpi.patient WHERE patient_id = $1")
        assert tuple(await one.fetchrow(7)) == rows[6]
        assert [attribute.name for attribute in one.get_attributes()][:2] == ["patient_id", "ipp"]
        async with connection.transaction():
            seen = [tuple(row) async for row in connection.cursor(STORED, prefetch=30)]
        assert seen == rows
        await connection.execute("CREATE TEMP TABLE note (id integer, word text)")
        await connection.executemany(
            "INSERT INTO note VALUES ($1, $2)", [(n, f"mot {n}") for n in range(100)]
        )
        records = [(n, "mot") for n in range(100, 300)]
        await connection.copy_records_to_table("note", records=records)
        assert await connection.fetchval("SELECT count(*) FROM note") == 300
        copied: list[bytes] = []

        async def keep(block: bytes) -> None:
            copied.append(block)

        await connection.copy_from_table("patient", schema_name="dpi", output=keep)
        assert b"".join(copied).count(b"\n") == len(rows)
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.fetch("SELECT 1 / 0 FROM dpi.patient")
        assert await connection.fetchval("SELECT count(*) FROM dpi.patient") == len(rows)

    async def run() -> None:
        nonlocal connection
        connection = await asyncpg.connect(user=ward.recipient, database=ward.dbname, **place)
        try:
            await talk()
        finally:
            await connection.close()

    connection: Any = None
    asyncio.run(run())


def test_sqlalchemy_core_and_orm(ward: Ward) -> None:
    alchemy = pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")
    from sqlalchemy import orm

    url = alchemy.URL.create(
        "postgresql+psycopg",
        username=ward.recipient,
        host=ward.relay.host,
        port=ward.relay.port,
        database=ward.dbname,
    )
    engine = alchemy.create_engine(url)
    try:
        tables = {
            name: alchemy.Table(name, alchemy.MetaData(), schema="dpi", autoload_with=engine)
            for name in ("patient", "lab_result", "Hospital Stay")
        }
        patient, stay = tables["patient"], tables["Hospital Stay"]
        assert [column.name for column in patient.primary_key] == ["patient_id"]
        with engine.connect() as connection:
            found = connection.execute(alchemy.select(patient).order_by(patient.c.patient_id))
            assert [tuple(row) for row in found] == ward.rows(MARKED)
            found = connection.execute(alchemy.select(stay).order_by(stay.c["Stay Id"]))
            assert [tuple(row) for row in found] == ward.rows(
                'SELECT * FROM marked."Hospital Stay" ORDER BY 1'
            )

        class Base(orm.DeclarativeBase):
            pass

        class Patient(Base):
            __table__ = patient
            results = orm.relationship(
                lambda: Result,
                primaryjoin=lambda: Patient.patient_id == orm.foreign(Result.patient_id),
                order_by=lambda: Result.result_id,
                viewonly=True,
            )

        class Result(Base):
            __table__ = tables["lab_result"]

        values = "SELECT value FROM marked.lab_result WHERE patient_id = {} ORDER BY result_id"
        for loading in (orm.selectinload, orm.joinedload, orm.lazyload):
            with orm.Session(engine) as session:
                query = (
                    alchemy.select(Patient)
                    .where(Patient.patient_id < 8)
                    .order_by(Patient.patient_id)
                    .options(loading(Patient.results))
                )
                people = session.scalars(query).unique().all()
                assert len(people) == 7
                for one in people:
                    ours = [(result.value,) for result in one.results]
                    assert ours == ward.rows(values.format(one.patient_id))
    finally:
        engine.dispose()


@pytest.mark.skipif(
    not (shutil.which("javac") and JDBC.exists()), reason=f"javac or {JDBC} is not installed"
)
def test_jdbc(ward: Ward, tmp_path: Path) -> None:
    # the driver cannot use a Unix socket, so what it must give is read by another client
    _run("javac", "-d", tmp_path, CLIENTS / "Rows.java")
    url = (
        f"jdbc:postgresql://{ward.relay.host}:{ward.relay.port}/{ward.dbname}"
        f"?user={ward.recipient}&sslmode=disable"
    )
    java = ("java", "-XX:TieredStopAtLevel=1", "-cp", f"{tmp_path}:{JDBC}", "Rows")
    rows = ward.rows(
        "SELECT p.patient_id::text, ipp, birth_date::text, weight_kg::text, height_cm::text"
        " FROM marked.patient AS p ORDER BY p.patient_id"
    )
    lines = ["\t".join("null" if v is None else v for v in row) + "\t" for row in rows]
    wanted: list[str] = []
    for way in ("preferQueryMode=simple", "prepareThreshold=0", "prepareThreshold=-1"):
        for first in (1, 120):
            wanted += [f"{way} {first}", *lines[first - 1 :]]
        wanted += ["notes", "20\tword 0\t"]
    assert _run(*java, url, "dpi.patient").splitlines() == wanted


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_node_postgres(ward: Ward) -> None:
    environment = dict(os.environ)
    if subprocess.run(
        ["node", "-e", "require('pg')"], env=environment, capture_output=True
    ).returncode:
        pytest.skip("node-postgres is not installed: npm install pg, and set NODE_PATH")
    script = ("node", CLIENTS / "rows.js")
    who = (ward.recipient, ward.dbname)
    places = ((ward.relay, "dpi"), (ward.cluster, "marked"))
    ours, directly = (
        _run(*script, place.host, str(place.port), *who, f"{schema}.patient", env=environment)
        for place, schema in places
    )
    assert ours == directly
    assert len(ours) > 10_000


def test_rows_as_dictionaries_have_the_stored_relations_columns(ward: Ward) -> None:
    with psycopg.connect(ward.proxied, row_factory=dict_row) as connection:
        row = connection.execute("SELECT * FROM dpi.patient LIMIT 1").fetchone()
    assert row is not None
    assert list(row)[:3] == ["patient_id", "ipp", "family_name"]
