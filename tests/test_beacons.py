"""A decoy's identity is known wherever a statement has it, and nothing else is taken for one."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from pgbalise.beacons import Beacons, beacon, canonical, comparisons
from pgbalise.database import apply_policy, enrol
from pgbalise.decoybook import enter
from pgbalise.decoys.identity import Identity, Mode, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.traits import traits
from pgbalise.errors import DatabaseProblem
from pgbalise.install import install
from pgbalise.lookout import load_beacons
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import PsycopgSession, connect

KEY = bytes(range(32))
AT = datetime(2026, 3, 4, tzinfo=UTC)
CARD = uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
IDENTITIES = [
    ("anna", "patient_id", "90001"),
    ("anna", "ipp", "IPP0090001"),
    ("anna", "nir", "2990199999999"),
    ("bob", "mail", "Leurre.Bob@chu.example"),
    ("bob", "card", str(CARD)),
    ("anna", "sex", "F"),
    ("anna", "family_name", "LEURRE"),
    ("anna", "born", "1950-01-31"),
    ("anna", "weight", "70.5"),
]


@pytest.fixture
def beacons() -> Beacons:
    return Beacons.of(KEY, IDENTITIES)


def test_an_identity_is_known_in_every_form_a_client_sends(beacons: Beacons) -> None:
    for value in (
        "IPP0090001",
        " ipp0090001\n",
        b"IPP0090001",
        "02990199999999",
        b"\0" + (2990199999999).to_bytes(7, "big"),
        CARD.bytes,
        str(CARD).upper(),
        "leurre.bob@CHU.example",
        "{1,2990199999999,3}",
        '{"IPP0090000","IPP0090001"}',
    ):
        assert beacons.match([value]), value
        assert beacons.match(["x", b"yy", value]), value
    assert beacons.owners(["IPP0090001", CARD.bytes]) == {"anna", "bob"}
    assert beacons.owners(["nobody", b"12"]) == frozenset()


def array(oid: int, *elements: bytes) -> bytes:
    """A one-dimensional array as the wire has it in binary form."""
    head = struct.pack(">iiiii", 1, 0, oid, len(elements), 1)
    return head + b"".join(struct.pack(">i", len(one)) + one for one in elements)


def test_arrays_in_binary_form_are_looked_into(beacons: Beacons) -> None:
    eight = [n.to_bytes(8, "big") for n in (1, 2990199999999)]
    assert beacons.match([array(20, *eight)])
    assert beacons.match([array(2950, CARD.bytes)])
    assert beacons.match([array(25, b"x", b"IPP0090001")])
    assert beacons.match(
        [array(23, (5).to_bytes(4, "big"), (90001).to_bytes(4, "big"))], "patient_id"
    )
    null = struct.pack(">iiiiii", 1, 1, 23, 2, 1, -1) + struct.pack(">i", 4) + b"\0\1\x5f\x91"
    assert beacons.match([null], "patient_id")
    assert not beacons.match([array(20, *eight)[:30], array(25)])


def test_a_short_number_counts_only_where_its_column_is_compared_with_it(beacons: Beacons) -> None:
    assert not beacons.match(["90001", b"\0\1\x5f\x91"])
    for value in ("90001", " 0090001", b"\0\1\x5f\x91", b"90001", "{7,90001}"):
        assert beacons.match([value], "patient_id"), value
    assert not beacons.match(["90001"], "result_id")


def test_a_word_in_binary_form_is_not_taken_for_a_number() -> None:
    number = int.from_bytes(b"2024", "big")
    made = Beacons.of(KEY, [("anna", "phone", str(number)), ("anna", "phone", "612345678")])
    assert made.match([str(number)])
    assert not made.match([b"2024", array(25, b"2024")])
    assert made.match([(612345678).to_bytes(4, "big"), (612345678).to_bytes(8, "big")])


def test_what_many_have_identifies_nobody(beacons: Beacons) -> None:
    assert len(beacons) == 5
    for value in ("F", "leurre", "1950-01-31", "31/01/1950", "70.5", "70,5", "12"):
        assert not beacons.match([value], "sex")
    for value in ("1950-01-31 10:00:00+00", "31.1.1950", "2,5", "-.5", "Zuydcoote", "a1b2c", ""):
        assert beacon(KEY, "any", value) is None


def test_without_the_key_digests_say_nothing(beacons: Beacons) -> None:
    other = Beacons.of(bytes(32), IDENTITIES)
    assert not set(other._decoys) & set(beacons._decoys)
    for word in ("IPP0090001", "2990199999999"):
        assert word not in repr(vars(beacons))


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("SELECT * FROM p WHERE patient_id = $1", [("patient_id", 1)]),
        ('SELECT 1 FROM p AS x WHERE x."Id p"=$2 AND Sex = $1', [("Id p", 2), ("sex", 1)]),
        ("SELECT 1 WHERE id IN ($1, $2,$3) LIMIT $4", [("id", 1), ("id", 2), ("id", 3)]),
        ("SELECT 1 WHERE id = ANY ($1) AND y = any($2::int[])", [("id", 1), ("y", 2)]),
        ("SELECT 1 WHERE id > $1 AND y <= $2 LIMIT $3", []),
        ("SELECT $1", []),
    ],
)
def test_comparisons_are_seen(statement: str, found: list[tuple[str, int]]) -> None:
    assert list(comparisons(statement)) == found


MARIE: Identity = {
    Role.RECORD_NUMBER: "80012345",
    Role.NIR: "285057800608491",
    Role.FAMILY_NAME: "Lefèvre-Œuvrard",
    Role.GIVEN_NAME: "Marie",
    Role.BIRTH_DATE: "1985-05-12",
    Role.PHONE: "01 99 00 12 34",
    Role.MAIL: "marie.lefevre@example.org",
}


@pytest.fixture(scope="module")
def book() -> Beacons:
    return Beacons.of(KEY, [], [("anna", 3, trait) for trait in traits(MARIE)])


@pytest.mark.parametrize(
    "values",
    [
        ["2 85 05 78 006 084 91"],
        ["2850578006084"],
        [b"285057800608491"],
        ["%2 85 05 78 006 084%"],
        [(2850578006084).to_bytes(8, "big")],
        ["+33 1 99 00 12 34"],
        ["0033199001234", "x"],
        ["01.99.00.12.34"],
        ["0199001234"],
        [b"0199001234"],
        ["Marie.LEFEVRE@Example.org"],
        ["<marie.lefevre@example.org>"],
        ["LEFEVRE OEUVRARD", "marie", "12/05/1985"],
        ["Lefèvre-Œuvrard", "Marie", "1985-05-12"],
        ["Lefèvre-Œuvrard".encode(), b"Marie", (-5347).to_bytes(4, "big", signed=True)],
        ["Lef\xe8vre-\u0152uvrard Marie", "F", "1985-05-12 00:00:00+01"],
        ["19850512", "Marie Lefèvre-Œuvrard"],
        ["marie lefevre oeuvrard, 12 mai 1985"],
        ["{1,285057800608491}"],
    ],
)
def test_a_decoy_of_the_book_is_known_in_another_spelling(
    book: Beacons, values: list[bytes | str]
) -> None:
    assert book.decoys(values) == {("anna", 3)}
    assert book.owners(["SELECT", *values, b"\0\0\0\7"]) == {"anna"}


def test_half_of_an_identity_is_nobodys(book: Beacons) -> None:
    for values in (
        ["80012345"],
        ["Lefèvre-Œuvrard", "1985-05-12"],
        ["Lefèvre-Œuvrard", "Marie"],
        ["Lefèvre-Œuvrard", "Marie", "1985-05-13"],
        ["185057800608491", "0199001235", "marie@example.org"],
    ):
        assert not book.match(values), values
        assert not book.match(values, "nir"), values


def test_the_books_digests_hold_no_trait(book: Beacons) -> None:
    for word in ("2850578006084", "+33199001234", "1985-05-12", "lefevre"):
        assert word not in repr(vars(book))


@given(st.binary(max_size=64))
@settings(max_examples=100, deadline=None)
def test_no_parameter_breaks_the_look(value: bytes) -> None:
    made = Beacons.of(KEY, IDENTITIES)
    made.owners([value, value.decode("latin-1"), b"\0\0" + value, b"{" + value], "patient_id")
    assert canonical(canonical(value)) == canonical(value)


SCHEMA = """
CREATE SCHEMA hospital;
CREATE TABLE hospital.patient (
    patient_id integer PRIMARY KEY, ipp text UNIQUE, mail varchar(80), card uuid, sex char(1),
    phone text, nurse integer, weight_kg numeric(5,1));
CREATE TABLE hospital.lab (lab_id bigint PRIMARY KEY,
    patient_id integer REFERENCES hospital.patient, test text, value numeric(5,1));
INSERT INTO hospital.patient SELECT i, 'IPP' || 1000000 + i, 'p' || i || '@example.org',
    gen_random_uuid(), 'F', '06 12 34 56 ' || 10 + i, i, 70 FROM generate_series(1, 50) AS i;
INSERT INTO hospital.lab SELECT i, i, '2345-7', 5 FROM generate_series(1, 50) AS i;
"""
CARRIER = {"type": "numeric(5,1)", "quantum": "0.1", "bounds": ["2", "300"]}
POLICY = {
    "relation": {
        "hospital.patient": {
            "key": {"patient_id": "integer"},
            "carrier": {"weight_kg": CARRIER},
            "view": "people",
            "decoys": True,
        },
        "hospital.lab": {
            "key": {"lab_id": "bigint"},
            "carrier": {"value": CARRIER},
            "decoys": True,
        },
    }
}
DECOYS = [
    # recipient, patient_id, ipp, mail, card, sex, phone, nurse, weight
    ("anna", 90001, " Ipp9000001", "leurre@example.org", CARD, "F", "07 00 00 00 01", 99, 70),
    ("bob", 90002, "IPP9000002", "p7@example.org", None, "F", "0600000002", 98, 71),
    ("bob", 90003, "IPP1000007", None, None, "M", "café é 12", 97, 71),
]


@pytest.fixture
def dpi_with_decoys(empty_db: psycopg.Connection[Any]) -> Iterator[PsycopgSession]:
    session = PsycopgSession(empty_db)
    install(session)
    empty_db.execute(SCHEMA)
    key = MasterKey(bytes(32))
    with empty_db.transaction():
        apply_policy(session, POLICY, key)
        for role in ("anna", "bob", "gate"):
            session.run("CREATE ROLE %I LOGIN", role)
        enrol(session, ["anna", "bob"], RecipientClass.SECONDARY, key)
        with empty_db.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO balise_decoy.people VALUES (%s, 1, %s, %s, %s, %s, %s, %s, %s, %s)",
                DECOYS,
            )
        empty_db.execute(
            "INSERT INTO balise_decoy.lab VALUES ('anna', 1, 812345678901, 90001, 'x', 5)"
        )
    empty_db.execute("GRANT USAGE ON SCHEMA balise TO gate")
    empty_db.execute("GRANT EXECUTE ON FUNCTION balise.decoy_digests(bytea) TO gate")
    return session


def test_the_proxys_role_learns_which_identities_are_decoys_and_reads_none(
    dpi_with_decoys: PsycopgSession, cluster: Any
) -> None:
    dbname = dpi_with_decoys.connection.info.dbname
    decoy = IssuedDecoy(1, "anna", 7, Mode.SAFE, MARIE, {}, {}, AT, AT)
    enter(dpi_with_decoys, [decoy], "f" * 16)
    with connect(cluster.dsn(dbname, "gate")) as session:
        found = load_beacons(session, KEY)
        for relation in ("balise_decoy.people", "hospital.patient", "balise.codeword"):
            with pytest.raises(DatabaseProblem, match="permission denied"):
                session.fetch(f"SELECT * FROM {relation}")
        with pytest.raises(DatabaseProblem, match="too short"):
            load_beacons(session, b"short")
    for value, owner in (
        ("IPP9000001", "anna"),
        ("leurre@example.org", "anna"),
        (CARD.bytes, "anna"),
        ("07 00 00 00 01", "anna"),
        ((812345678901).to_bytes(8, "big"), "anna"),
        ("0600000002", "bob"),
        ("IPP9000002", "bob"),
        ("café é 12", "bob"),
    ):
        assert found.owners([value]) == {owner}, value
    assert found.decoys(["2 85 05 78 006 084"]) == {("anna", 7)}, "retired, and rings still"
    assert found.owners(["90002"], "patient_id") == {"bob"}
    assert found.owners([b"\0\1\x5f\x91"], "patient_id") == {"anna"}
    stored = [str(v) for row in dpi_with_decoys.fetch("TABLE hospital.patient") for v in row]
    for column in ("patient_id", "nurse", "sex", "lab_id"):
        assert not found.match([*stored, "99", "98", "97", "x", "5", "2345-7"], column), column


def test_other_roles_may_not_ask(dpi_with_decoys: PsycopgSession, cluster: Any) -> None:
    dbname = dpi_with_decoys.connection.info.dbname
    with connect(cluster.dsn(dbname, "anna")) as session, pytest.raises(DatabaseProblem):
        load_beacons(session, KEY)


WORDS = [
    *(value for _, _, value in IDENTITIES),
    *(
        "007",
        "-0012345678",
        "-12",
        "0",
        "000000000",
        "00123456789",
        "ÀÉ@12345",
        "İI123456",
        "ß12345",
    ),
    *("\t 12 345 678 ", "1.234567", "12/3/2020", "12-3-2020x", "2020-1-1", "a\\b1234", "x" * 201),
]


def test_the_database_makes_the_same_digests(dpi_with_decoys: PsycopgSession) -> None:
    """Each value as the phone of a decoy of its own, whose role is its number."""
    session = dpi_with_decoys
    session.fetch("DELETE FROM balise_decoy.people")
    session.fetch("DELETE FROM balise_decoy.lab")
    session.fetch(
        "INSERT INTO balise_decoy.people (balise_recipient, balise_decoy, patient_id, phone)"
        " SELECT 'r' || n, n, n, v FROM jsonb_array_elements_text($1) WITH ORDINALITY AS t(v, n)",
        Jsonb(WORDS),
    )
    theirs: dict[str, set[bytes]] = {}
    for owner, _, digest in session.fetch("SELECT * FROM balise.decoy_digests($1::bytea)", KEY):
        theirs.setdefault(str(owner), set()).add(bytes(digest))
    for number, word in enumerate(WORDS, start=1):
        mine = {beacon(KEY, "phone", word), beacon(KEY, "patient_id", str(number))}
        if number <= 50:
            mine.discard(beacon(KEY, "patient_id", str(number)))  # a patient has it as well
        if len(word) > 200:
            mine.discard(beacon(KEY, "phone", word))
        assert theirs.get(f"r{number}", set()) == mine - {None}, word
