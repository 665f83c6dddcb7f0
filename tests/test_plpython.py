"""Everything a DBA does from psql, with the extension's own functions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgbalise import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def dba(dpi: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A superuser's connection to the cohort's database, with the extension created."""
    dpi.execute("CREATE EXTENSION pgbalise CASCADE")
    return dpi


@pytest.fixture
def key_file(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A master key that the server's user may read."""
    owner = cluster.data_dir.stat()
    path = cluster.data_dir / "test-master.key"
    path.write_text(os.urandom(32).hex())
    path.chmod(0o600)
    os.chown(path, owner.st_uid, owner.st_gid)
    yield path
    path.unlink()


def mark_and_enrol(dba: psycopg.Connection[Any], key_file: Path) -> None:
    for test in ("hdl", "chol"):
        dba.execute(
            "SELECT balise.mark_column('dpi.lab_result', 'value', quantum => '1',"
            " bounds => '{1,250}', thresholds => '{40,50}', by_column => 'test', by_value => %s)",
            [test],
        )
    dba.execute(
        "SELECT balise.mark_column('dpi.lab_result', 'recorded_at', quantum => '1 millisecond',"
        " neutral => true)"
    )
    assert dba.execute("SELECT balise.apply(%s)", [str(key_file)]).fetchone() == (2,)
    for role, kind in (("alice", "secondary"), ("bob", "secondary"), ("carol", "care")):
        dba.execute(f"CREATE ROLE {role} LOGIN".encode())
        dba.execute("SELECT balise.enrol(%s, %s, %s)", [role, kind, str(key_file)])


def test_a_dba_does_it_all_in_sql(
    cluster: Any, dba: psycopg.Connection[Any], key_file: Path
) -> None:
    assert dba.execute("SELECT balise.load_library()").fetchone() == (__version__,)
    mark_and_enrol(dba, key_file)
    dba.execute("CREATE TABLE leak (result_id text, value text, recorded_at text, note text)")
    query = (
        "SELECT result_id, value, recorded_at, 'x' FROM marked.lab_result WHERE result_id % 300 = 5"
    )
    with psycopg.connect(cluster.dsn(dba.info.dbname, "alice")) as alice:
        rows = alice.execute(query.encode().replace(b"%", b"%%"), []).fetchall()
    with dba.cursor() as cursor:
        cursor.executemany("INSERT INTO leak VALUES (%s, %s, %s, %s)", rows)
    before = dba.execute(
        "SELECT current_setting('datestyle'), current_setting('search_path')"
    ).fetchone()
    found = dba.execute(
        "SELECT * FROM balise.trace('leak', 'dpi.lab_result', %s)", [str(key_file)]
    ).fetchall()
    assert found[0][0] == "alice"
    assert [accused for _, accused, _, _ in found] == [True, False, False]
    after = dba.execute(
        "SELECT current_setting('datestyle'), current_setting('search_path')"
    ).fetchone()
    assert before == after
    dba.execute("SELECT balise.revoke('alice')")
    with (
        psycopg.connect(cluster.dsn(dba.info.dbname, "alice")) as alice,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        alice.execute("SELECT count(*) FROM marked.lab_result")
    again = dba.execute(
        "SELECT recipient FROM balise.trace('leak', 'dpi.lab_result', %s)", [str(key_file)]
    )
    assert again.fetchone() == ("alice",)


def test_care_sees_neutral_marks_only(
    cluster: Any, dba: psycopg.Connection[Any], key_file: Path
) -> None:
    mark_and_enrol(dba, key_file)
    with psycopg.connect(cluster.dsn(dba.info.dbname, "carol")) as carol:
        rows = carol.execute(
            "SELECT result_id, value, recorded_at FROM marked_care.lab_result"
            " WHERE result_id <= 2000"
        )
        marked = {number: (value, stored) for number, value, stored in rows}
    raw = dba.execute(
        "SELECT result_id, value, recorded_at FROM dpi.lab_result WHERE result_id <= 2000"
    )
    moved = 0
    for number, value, stored in raw:
        assert marked[number][0] == value
        assert abs((marked[number][1] - stored).total_seconds()) <= 0.001
        moved += marked[number][1] != stored
    assert 150 < moved < 350


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "SELECT balise.mark_column('dpi.patient', 'nothing', quantum => '1')",
            "no column nothing",
        ),
        ("SELECT balise.mark_column('dpi.patient', 'weight_kg', quantum => '0.01')", "finer"),
        (
            "SELECT balise.mark_column('dpi.patient', 'ipp', quantum => '1')",
            "text columns|equivalents",
        ),
        ("SELECT balise.mark_column('dpi.patient', 'weight_kg')", "no quantum"),
        ("SELECT balise.unmark_column('dpi.patient', 'weight_kg')", "no carrier"),
        ("SELECT balise.apply('/nowhere/key')", "cannot be read"),
        ("SELECT balise.enrol('postgres')", "master key"),
        ("SELECT balise.enrol('postgres', 'friend', '/nowhere')", "secondary or care"),
        ("SELECT balise.revoke('nobody')", "not enrolled"),
        ("SELECT * FROM balise.trace('dpi.patient', 'dpi.patient', '/nowhere')", "cannot be read"),
    ],
)
def test_bad_input_is_a_postgresql_error_that_changes_nothing(
    dba: psycopg.Connection[Any], statement: str, said: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=said) as caught:
        dba.execute(statement.encode())
    assert "\n" not in (caught.value.diag.message_primary or "\n")
    assert dba.execute("SELECT count(*) FROM balise.policy").fetchone() == (0,)


def test_unmarking_takes_a_carrier_out_of_the_next_views(
    dba: psycopg.Connection[Any], key_file: Path
) -> None:
    mark_and_enrol(dba, key_file)
    dba.execute("SELECT balise.unmark_column('dpi.lab_result', 'value')")
    assert "value" in str(dba.execute("SELECT pg_get_viewdef('marked.lab_result')").fetchone())
    dba.execute("SELECT balise.apply(%s)", [str(key_file)])
    carriers = "SELECT document #>> '{relation,dpi.lab_result,carrier}' FROM balise.policy"
    assert "value" not in str(dba.execute(carriers + " ORDER BY version DESC LIMIT 1").fetchone())


def test_nobody_but_the_dba_may_call_these_functions(
    cluster: Any, dba: psycopg.Connection[Any], key_file: Path
) -> None:
    mark_and_enrol(dba, key_file)
    public = dba.execute(
        "SELECT p.proname FROM pg_proc AS p,"
        " aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a"
        " WHERE p.pronamespace = 'balise'::regnamespace AND a.grantee = 0"
    ).fetchall()
    assert public == []
    with psycopg.connect(cluster.dsn(dba.info.dbname, "bob"), autocommit=True) as bob:
        for call in ("apply('x')", "load_library()", "revoke('alice')", "python_path()"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                bob.execute(f"SELECT balise.{call}".encode())


def test_an_unimportable_library_is_said_clearly(
    dba: psycopg.Connection[Any], cluster: Any
) -> None:
    dba.execute(
        "CREATE OR REPLACE FUNCTION balise.python_path() RETURNS text LANGUAGE sql IMMUTABLE"
        " AS $$ SELECT '/nowhere' $$"
    )
    with psycopg.connect(cluster.dsn(dba.info.dbname), autocommit=True) as fresh:
        with pytest.raises(psycopg.errors.UndefinedFile, match="cannot import pgbalise") as caught:
            fresh.execute("SELECT balise.load_library()")
        assert "make -C sql install" in (caught.value.diag.message_hint or "")
        assert "/nowhere" in (caught.value.diag.message_detail or "")
