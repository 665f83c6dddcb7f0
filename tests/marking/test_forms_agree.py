"""The SQL that the compiler writes and the reference marker give the same bytes."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import pgbalise
from pgbalise.compile.views import marked_view
from pgbalise.marking.cells import carrier_secret
from pgbalise.marking.codes import bias, codeword, dither, stored_word
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import Policy, RecipientClass, parse_policy

KEYS = [MasterKey(bytes([n]) * 32) for n in range(3)]
ROLE = "postgres"
ARROW = {
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "text": pa.string(),
    "character varying": pa.string(),
    "character": pa.string(),
    "uuid": pa.string(),
    "date": pa.date32(),
    "timestamp without time zone": pa.timestamp("us"),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "numeric": pa.string(),
    "real": pa.float32(),
    "double precision": pa.float64(),
}

letters = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=30
)
instants = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
keys = {
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "text": letters,
    "character varying(40)": letters,
    "uuid": st.uuids().map(str),
    "date": st.dates(),
    "timestamp": instants,
    "timestamptz": instants.map(lambda t: t.replace(tzinfo=UTC)),
}
single_keys = st.sampled_from(sorted(keys)).map(lambda t: (t,))
composite_keys = st.tuples(st.sampled_from(sorted(keys)), st.sampled_from(sorted(keys)))


def near(
    low: Decimal, high: Decimal, quantum: Decimal, specials: list[Decimal]
) -> st.SearchStrategy[Decimal]:
    """Values all over, and many within a quantum or two of every edge."""
    edges = st.builds(
        lambda edge, steps: edge + steps * quantum / 2,
        st.sampled_from([low, high, Decimal(0), *specials]),
        st.integers(-5, 5),
    )
    return st.one_of(edges, st.decimals(low - 3 * quantum, high + 3 * quantum, places=6))


@st.composite
def numbers(draw: st.DrawFn, declared: str) -> tuple[dict[str, Any], st.SearchStrategy[Any]]:
    """A carrier of a number type: its policy table and a strategy for its values."""
    places = {"smallint": 0, "integer": 0, "bigint": 0}.get(declared)
    if places is None:
        finest = {"numeric(9,2)": 2, "real": 2}.get(declared, 3)
        places = 2 if declared == "numeric(9,2)" else draw(st.integers(0, finest))
    quantum = draw(st.sampled_from([1, 2, 3, 5])) * Decimal(1).scaleb(-draw(st.integers(0, places)))
    low = Decimal(draw(st.integers(-500, 100)))
    high = low + 20 * quantum + draw(st.integers(0, 900))
    inner = st.integers(0, 20).map(lambda k: low + k * quantum)
    thresholds = draw(st.lists(inner, max_size=2))
    skip = draw(st.lists(inner, max_size=2))
    table: dict[str, Any] = {"type": declared, "quantum": str(quantum)}
    if draw(st.booleans()):
        table |= {"bounds": [str(low), str(high)]}
    table |= {"thresholds": [str(t) for t in thresholds], "skip": [str(s) for s in skip]}
    values = near(low, high, quantum, thresholds + skip)
    if declared in ("smallint", "integer", "bigint", "numeric", "numeric(9,2)") and draw(
        st.booleans()
    ):
        table["grid"] = str(quantum * draw(st.sampled_from([2, 5])))
    if declared in ("smallint", "integer", "bigint"):
        limit = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}[declared]
        extremes = st.sampled_from([limit, -limit, -limit - 1, 0])
        return table, st.one_of(values.map(int), extremes)
    if declared == "numeric(9,2)":
        return table, st.one_of(
            values.map(lambda v: str(v.quantize(Decimal("0.01")))),
            st.sampled_from(["9999999.99", "-9999999.99", "NaN"]),
        )
    if declared == "numeric":
        shown = st.sampled_from([places, places, places, 1, 5])
        written = st.builds(lambda v, p: f"{v:.{p}f}", values, shown)
        return table, st.one_of(written, st.sampled_from(["NaN", "Infinity", "12", "1e30", "-0.5"]))
    if draw(st.booleans()):
        table["continuous"] = True
    else:
        table["scale"] = draw(st.integers(places, 2 if declared == "real" else 4))
    width = 32 if declared == "real" else 64
    return table, st.one_of(
        values.map(lambda v: to_width(float(round(v, places)), width)),
        values.map(lambda v: to_width(float(v), width)),
        st.floats(width=width),
    )


def to_width(value: float, width: int) -> float:
    """The nearest number of that width, as psycopg and Arrow both take it."""
    return float(pa.array([value], pa.float32())[0].as_py()) if width == 32 else value


@st.composite
def carriers(draw: st.DrawFn) -> tuple[dict[str, Any], st.SearchStrategy[Any]]:
    """Any carrier: its policy table and a strategy for its values."""
    number_types = [
        "smallint",
        "integer",
        "bigint",
        "numeric(9,2)",
        "numeric",
        "real",
        "double precision",
    ]
    declared = draw(
        st.sampled_from(
            [*number_types, "date", "timestamp", "timestamptz", "text", "varchar(5)", "char(5)"]
        )
    )
    if declared in number_types:
        return draw(numbers(declared))
    if declared == "date":
        days = draw(st.integers(1, 9))
        return {
            "type": declared,
            "quantum": f"{days} days",
            "bounds": ["1900-01-01", "2050-01-01"],
        }, st.one_of(st.dates(date(1890, 1, 1), date(2060, 1, 1)), st.dates())
    if declared in ("timestamp", "timestamptz"):
        quantum = draw(
            st.sampled_from(
                ["1 microsecond", "1 millisecond", "1 second", "7 seconds", "1 minute", "1 day"]
            )
        )
        zone = UTC if declared == "timestamptz" else None
        base = st.one_of(st.datetimes(datetime(1950, 1, 1), datetime(2050, 1, 1)), instants)
        return {
            "type": declared,
            "quantum": quantum,
            "thresholds": ["2000-01-01 00:00:00"],
        }, st.one_of(
            base, st.integers(-9, 9).map(lambda n: datetime(2000, 1, 1) + timedelta(seconds=n))
        ).map(lambda t: t.replace(tzinfo=zone))
    groups = draw(st.sampled_from([[["M", "H"]], [["a", "b", "c"], ["x'", "y"]]]))
    members = [m for group in groups for m in group]
    return {"type": declared, "equivalents": groups}, st.sampled_from([*members, "other", ""])


@st.composite
def relations(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """A policy document of one relation, its rows, and its columns' declarations."""
    key = draw(st.one_of(single_keys, composite_keys))
    names = [f"k{n}" for n in range(len(key))]
    table: dict[str, Any] = {"key": dict(zip(names, key, strict=True)), "carrier": {}}
    fields: dict[str, st.SearchStrategy[Any]] = {
        name: keys[declared] for name, declared in zip(names, key, strict=True)
    }
    declared = list(key)
    fields["Owner"] = st.one_of(st.none(), st.integers(0, 3))
    fields["code"] = st.one_of(st.none(), st.sampled_from(["x", "y", "é'", "none"]))
    code = draw(st.sampled_from(["text", "varchar(9)", "char(5)"]))
    declared += ["integer", code]
    for n in range(draw(st.integers(1, 3))):
        body, values = draw(carriers())
        kind = body.pop("type")
        body_density = str(draw(st.sampled_from([Decimal(1), Decimal("0.9"), Decimal("0.4")])))
        carrier: dict[str, Any] = {"type": kind, "density": body_density}
        for setting in ("scale", "continuous"):
            if setting in body:
                carrier[setting] = body.pop(setting)
        if draw(st.booleans()):
            carrier |= {"by": {"code": code}, "tolerance": {"x": body, "é'": body}}
        else:
            carrier |= body
        if draw(st.integers(0, 3)) == 0:
            carrier["entity"] = {"Owner": "integer"}
        table["carrier"][f"c{n}"] = carrier
        fields[f"c{n}"] = st.one_of(st.none(), values) if draw(st.booleans()) else values
        declared.append(kind)
    rows = draw(
        st.lists(
            st.fixed_dictionaries(fields),
            min_size=12,
            max_size=40,
            unique_by=lambda row: tuple(str(row[name]) for name in names),
        )
    )
    document = {
        "derivation": draw(st.sampled_from(["seeded", "seeded", "sha256"])),
        "relation": {"public.r": table},
    }
    ordered = [{name: row[name] for name in fields} for row in rows]
    return document, ordered, declared


@pytest.fixture
def catalog(empty_db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A database with the extension and one enrolled recipient, the connection's own role."""
    empty_db.execute("CREATE EXTENSION pgbalise CASCADE")
    empty_db.execute("SET timezone = 'UTC'")
    empty_db.execute("INSERT INTO balise.relation VALUES (1, 'public', 'r')")
    empty_db.execute("INSERT INTO balise.recipient VALUES (%s, 'secondary')", [ROLE])
    empty_db.execute(
        "INSERT INTO balise.codeword VALUES (%s, 'secondary', %s)", [ROLE, bytes(8000)]
    )
    return empty_db


def arrow(document: dict[str, Any], rows: list[dict[str, Any]], declared: list[str]) -> pa.Table:
    """The rows as an Arrow table of the declared types."""
    columns = {}
    for name, text in zip(rows[0], declared, strict=True):
        kind = ARROW[str(parse_type(text))]
        columns[name] = pa.array([row[name] for row in rows], kind)
    return pa.table(columns)


def parse_type(text: str) -> str:
    """The plain name of a declared type."""
    from pgbalise.marking.types import SqlType

    return SqlType.parse(text).name


WORDS = {}
for _n, _key in enumerate(KEYS):
    _bits = codeword(_key, ROLE, 1, bias(_key, 1))
    WORDS[_n] = stored_word(_bits, dither(_key, 1))


def install(connection: psycopg.Connection[Any], policy: Policy, number: int) -> None:
    """Give the catalog the secrets that this policy has under one of the keys."""
    relation = policy.relations[0]
    secrets = [
        carrier_secret(KEYS[number], policy, relation, carrier) for carrier in relation.carriers
    ]
    connection.execute("UPDATE balise.codeword SET word = %s", [WORDS[number]])
    connection.execute(
        "INSERT INTO balise.relation_secret VALUES (1, %s, %s)"
        " ON CONFLICT (relation_id) DO UPDATE SET seeds = excluded.seeds, keys = excluded.keys",
        [[seed for s in secrets for seed in (s.first, s.second)], [s.key for s in secrets]],
    )


changed_cells: Counter[str] = Counter()


@settings(
    max_examples=500,
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(example=relations(), number=st.integers(0, len(KEYS) - 1))
def check_agreement(
    catalog: psycopg.Connection[Any],
    example: tuple[dict[str, Any], list[dict[str, Any]], list[str]],
    number: int,
) -> None:
    """Mark one relation in SQL and in Python and compare every cell's text."""
    document, rows, declared = example
    policy = parse_policy(document)
    relation = policy.relations[0]
    names = list(rows[0])
    width = len(relation.key)
    listed = ", ".join(f'"{name}" {kind}' for name, kind in zip(names, declared, strict=True))
    with catalog.transaction(force_rollback=True):
        install(catalog, policy, number)
        catalog.execute(f"CREATE TEMP TABLE expected ({listed})")
        catalog.execute(f"CREATE TABLE public.r ({listed})")
        view = marked_view(relation, names, RecipientClass.SECONDARY, 1, policy.derivation, 150000)
        catalog.execute(f"CREATE VIEW public.v AS {view}".encode())
        raw = arrow(document, rows, declared)
        marked = pgbalise.mark(raw, policy, ROLE, KEYS[number])
        holes = ", ".join(["%s"] * len(names))
        with catalog.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO public.r VALUES ({holes})", [list(row.values()) for row in rows]
            )
            cursor.executemany(
                f"INSERT INTO expected VALUES ({holes})",
                [list(row.values()) for row in marked.to_pylist()],
            )
        view_types = catalog.execute(
            "SELECT format_type(a.atttypid, a.atttypmod), format_type(b.atttypid, b.atttypmod)"
            " FROM pg_attribute a JOIN pg_attribute b ON a.attname = b.attname"
            " WHERE a.attrelid = 'public.v'::regclass AND b.attrelid = 'public.r'::regclass"
            " AND a.attnum > 0"
        ).fetchall()
        assert all(ours == theirs for ours, theirs in view_types)
        texts = ", ".join(f'"{name}"::text' for name in names)
        stored, by_sql, by_python = (
            sorted(
                catalog.execute(f"SELECT {texts} FROM {where}").fetchall(),
                key=lambda row: row[:width],
            )
            for where in ("public.r", "public.v", "expected")
        )
        cells = [
            cell
            for three in zip(stored, by_sql, by_python, strict=True)
            for cell in zip(names, declared, *three, strict=True)
        ]
        differing = [cell for cell in cells if cell[3] != cell[4]]
        assert not differing, document
        changed_cells.update(cell[1] for cell in cells if cell[2] != cell[3])


def test_sql_and_python_mark_random_relations_alike(catalog: psycopg.Connection[Any]) -> None:
    check_agreement(catalog)
    # every kind of carrier must have been changed often enough for the comparison to mean something
    assert len(changed_cells) == 13, changed_cells
    assert min(changed_cells.values()) >= 20, changed_cells
