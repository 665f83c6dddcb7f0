"""The published vectors hold in every form: the reference marker, and SQL in a server."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from pgbalise.compile.views import marked_view
from pgbalise.marking.cells import carrier_secret
from pgbalise.marking.codes import bias, codeword, dither, stored_word
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass, parse_policy

FOLDER = Path(__file__).parents[1] / "vectors"
PUBLISHED: dict[str, Any] = json.loads((FOLDER / "v1.json").read_text("utf-8"))


def test_the_reference_gives_the_published_vectors() -> None:
    spec = importlib.util.spec_from_file_location("generate", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert json.loads(json.dumps(generate.vectors())) == PUBLISHED


def test_postgresql_hashes_as_published(empty_db: psycopg.Connection[Any]) -> None:
    for value, seed, expected in PUBLISHED["hash_int8"]:
        query = "SELECT hashint8extended(%s::int8, %s::int8)"
        assert empty_db.execute(query, [value, seed]).fetchone() == (expected,)
    for value, seed, expected in PUBLISHED["hash_text"]:
        query = 'SELECT hashtextextended(%s::text COLLATE "C", %s::int8)'
        assert empty_db.execute(query, [value, seed]).fetchone() == (expected,)


@pytest.mark.parametrize("derivation", ["seeded", "sha256"])
def test_sql_marks_as_published(empty_db: psycopg.Connection[Any], derivation: str) -> None:
    empty_db.execute("CREATE EXTENSION pgbalise CASCADE")
    empty_db.execute("SET timezone = 'UTC'")
    key = MasterKey(bytes.fromhex(PUBLISHED["master_key"]))
    policy = parse_policy(PUBLISHED["policy"] | {"derivation": derivation})
    relation = policy.relations[0]
    secrets = [carrier_secret(key, policy, relation, carrier) for carrier in relation.carriers]
    word = stored_word(codeword(key, PUBLISHED["recipient"], 1, bias(key, 1)), dither(key, 1))
    empty_db.execute("INSERT INTO balise.relation VALUES (1, 'dpi', 'sample')")
    empty_db.execute(
        "INSERT INTO balise.relation_secret VALUES (1, %s, %s)",
        [[seed for s in secrets for seed in (s.first, s.second)], [s.key for s in secrets]],
    )
    empty_db.execute("INSERT INTO balise.recipient VALUES ('postgres', 'secondary')")
    empty_db.execute("INSERT INTO balise.codeword VALUES ('postgres', 'secondary', %s)", [word])
    types = {name: str(declared) for name, declared in relation.key}
    types |= {"test": "text"} | {c.column: str(c.type) for c in relation.carriers}
    columns = list(PUBLISHED["rows"])
    empty_db.execute("CREATE SCHEMA dpi")
    listed = ", ".join(f'"{name}" {types[name]}' for name in columns)
    empty_db.execute(f"CREATE TABLE dpi.sample ({listed})".encode())
    holes = ", ".join(["%s"] * len(columns))
    with empty_db.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO dpi.sample VALUES ({holes})".encode(),
            list(zip(*PUBLISHED["rows"].values(), strict=True)),
        )
    view = marked_view(relation, columns, RecipientClass.SECONDARY, 1, policy.derivation, 150000)
    expected = PUBLISHED["derivations"][derivation]["marked"]
    rows = empty_db.execute(f"SELECT * FROM ({view}) AS v ORDER BY id".encode()).fetchall()
    for name, values in zip(columns, zip(*rows, strict=True), strict=True):
        wanted = empty_db.execute(
            (
                "SELECT v::text FROM unnest(%s::text[]) WITH ORDINALITY AS u(t, n),"
                f" CAST(t AS {types[name]}) AS v ORDER BY n"
            ).encode(),
            [expected[name]],
        ).fetchall()
        got = empty_db.execute(
            (
                f"SELECT v::text FROM unnest(%s::{types[name]}[])"
                " WITH ORDINALITY AS u(v, n) ORDER BY n"
            ).encode(),
            [list(values)],
        ).fetchall()
        assert got == wanted, name


def test_the_code_has_the_published_bias() -> None:
    key = MasterKey(bytes.fromhex(PUBLISHED["master_key"]))
    assert bias(key, 1)[:16].tolist() == PUBLISHED["bias_first"]
    share = codeword(key, "x", 1, bias(key, 1)).mean()
    assert abs(share - np.mean(bias(key, 1)) / 65536) < 0.005
