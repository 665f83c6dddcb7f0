"""A hospital with a thief among its recipients, and a twin that the thief cannot tell from it."""

from __future__ import annotations

import secrets
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from psycopg import sql
from pytest_postgresql.janitor import DatabaseJanitor

from pgbalise.database import apply_policy, enrol, revoke
from pgbalise.install import install
from pgbalise.marking.codes import bias, codeword, dither
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import RecipientClass
from pgbalise.session import PsycopgSession
from tests.attack.oracle import Client, Heard, pieces, spellings, texts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from _pytest.terminal import TerminalReporter

    from pgbalise.demo.cluster import ThrowawayCluster

Step = str | tuple[str, str]
"""A statement of mallory's, or (session, statement); see World.play."""

SEED = 20_260_101
RANDOM = np.random.default_rng(SEED)
KEY = MasterKey(RANDOM.bytes(32))
ROLES = ("mallory", "victim", "carole", "ghost", "outsider")
VIEWS = ("patient", "mesure")

CARRIERS = {
    "patient": {
        "solde": {
            "type": "bigint",
            "quantum": "1",
            "bounds": ["1", "9000000000000"],
            "density": "1",
        },
        "naissance": {"type": "date", "quantum": "1 day", "density": "1"},
        "vu_le": {"type": "timestamptz", "quantum": "1 second", "density": "0.8"},
    },
    "mesure": {
        "valeur": {"type": "numeric(12,4)", "quantum": "0.01", "density": "0.6"},
        "pris_le": {
            "type": "timestamptz",
            "quantum": "1 millisecond",
            "density": "1",
            "neutral": True,
        },
    },
}
DOCUMENT = {
    "relation": {
        "clinic.patient": {
            "key": {"id": "integer"},
            "decoys": True,
            "carrier": CARRIERS["patient"],
        },
        "clinic.mesure": {"key": {"mesure_id": "bigint"}, "carrier": CARRIERS["mesure"]},
    },
}
"""The policy in force."""

# Every value is unique and unmistakable, and no two rows are within a mark of each other.
PERSON = """
SELECT i AS id, 'patient-' || lpad((i * 7919 % 100003)::text, 6, '0') AS nom,
       (ARRAY['Brest', 'Morlaix', 'Quimper'])[1 + i % 3] AS ville,
       7000000000000 + i * 1000003::bigint AS solde, date '1901-01-01' + 3 * i AS naissance,
       timestamptz '2001-01-01 00:00:00.000377 UTC' + i * interval '5 h 7 s' AS vu_le
"""
TABLES = f"""
CREATE SCHEMA clinic;
CREATE TABLE clinic.patient (
    id integer PRIMARY KEY, nom text UNIQUE, ville text, solde bigint CHECK (solde > 0),
    naissance date, vu_le timestamptz);
CREATE TABLE clinic.mesure (
    mesure_id bigint PRIMARY KEY, patient_id integer REFERENCES clinic.patient, code text,
    valeur numeric(12,4), pris_le timestamptz);
INSERT INTO clinic.patient {PERSON} FROM generate_series(1, 300) AS i;
INSERT INTO clinic.mesure
SELECT i, 1 + i % 300, (ARRAY['hdl', 'sbp'])[1 + i % 2], 10000 + i * 7.0013,
       timestamptz '2003-01-01 00:00:00.000611 UTC' + i * interval '3 h 11 s'
  FROM generate_series(1, 400) AS i;
CREATE INDEX ON clinic.patient (solde);
CREATE INDEX ON clinic.mesure ((trunc(valeur)));
CREATE STATISTICS clinic.together ON ville, solde FROM clinic.patient;
CREATE SCHEMA m AUTHORIZATION mallory;
GRANT USAGE ON SCHEMA m TO PUBLIC;
"""
OTHERS_DECOYS = "leurre-v"
"""How the names of the victim's decoys begin."""

DECOYS = f"""
INSERT INTO balise_decoy.patient
SELECT 'mallory', 1, id, 'leurre-m-' || id, ville, solde, naissance, vu_le
  FROM ({PERSON} FROM generate_series(1001, 1012) AS i) AS p;
INSERT INTO balise_decoy.patient
SELECT 'victim', 2, id, '{OTHERS_DECOYS}-' || id,
       CASE WHEN id % 3 > 0 THEN 'Zuydcoote' ELSE ville END, solde, naissance, vu_le
  FROM ({PERSON} FROM generate_series(2001, 2120) AS i) AS p;
"""


@dataclass(frozen=True)
class World:
    """One database of the pair."""

    cluster: ThrowawayCluster
    dbname: str
    forbidden: Mapping[str, frozenset[str]]
    """By role, the texts it must never be sent."""
    known: Mapping[str, str]
    """What a script may name: placeholders such as @raw@, and what they stand for."""

    def dsn(self, user: str = "postgres") -> str:
        return self.cluster.dsn(self.dbname, user)

    def dba(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn(), autocommit=True)

    def play(self, script: Sequence[Step]) -> dict[str, Heard]:
        """Run a script; return what each attacking role was sent.

        A session is named by its role, then, if there are several, a colon and a number, then
        options for the connection: ``mallory:2 -c work_mem=1MB``. Two names are no roles': dba is
        the superuser, and pgbalise says what the administration does (apply, revoke ROLE). @last@
        stands for the first value of the last row that came back.
        """
        heard = {role: Heard() for role in (*ROLES, "dba")}
        sessions: dict[str, Client] = {}
        last = ""
        with ExitStack() as stack:
            for step in script:
                name, statement = ("mallory", step) if isinstance(step, str) else step
                for mark, text in {**self.known, "last": last}.items():
                    statement = statement.replace(f"@{mark}@", text)
                if name == "pgbalise":
                    self._administer(statement)
                    continue
                if name not in sessions:
                    who, _, options = name.partition(" ")
                    role = who.partition(":")[0]
                    dsn = psycopg.conninfo.make_conninfo(
                        self.dsn("postgres" if role == "dba" else role),
                        options=f"-c statement_timeout=5s -c timezone=UTC {options}",
                    )
                    client = Client(dsn, heard[role])
                    sessions[name] = stack.enter_context(closing(client))
                sessions[name].run(statement)
                last = sessions[name].last or last
        assert not heard.pop("dba").states
        return heard

    def _administer(self, what: str) -> None:
        with self.dba() as connection, connection.transaction():
            session = PsycopgSession(connection)
            connection.execute("SET LOCAL lock_timeout = '5s'")
            match what.split():
                case ["apply"]:
                    apply_policy(session, DOCUMENT, KEY)
                case ["revoke", role]:
                    revoke(session, role)
                case _:
                    raise AssertionError(what)

    def clean(self) -> None:
        """Remove what mallory made."""
        with self.dba() as dba:
            dba.execute("DROP SCHEMA m CASCADE")
            dba.execute("CREATE SCHEMA m AUTHORIZATION mallory")
            dba.execute("GRANT USAGE ON SCHEMA m TO PUBLIC")
            dba.execute("ALTER ROLE mallory RESET ALL")


@dataclass(frozen=True)
class Pair:
    """The hospital and its twin."""

    real: World
    twin: World

    def worlds(self) -> tuple[World, World]:
        return (self.real, self.twin)


@pytest.fixture(scope="package")
def pair(cluster: ThrowawayCluster) -> Iterator[Pair]:
    """The hospital and its twin, shared: undo what a test does to them."""
    with _database(cluster, "attack_real", "template0"):
        _build(cluster.dsn("attack_real"))
        with _database(cluster, "attack_twin", "attack_real"):
            real = _survey(cluster, "attack_real")
            twin = replace(real, dbname="attack_twin")
            _settings(twin)
            shown = {view: rows(real, "mallory", f"marked.{view}") for view in VIEWS}
            _disguise(twin, shown)
            assert shown == {view: rows(twin, "mallory", f"marked.{view}") for view in VIEWS}
            yield Pair(real, twin)
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        for role in ROLES:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture
def fresh_pair(pair: Pair) -> Iterator[Pair]:
    """Copies of the hospital and its twin, to do anything to."""
    with ExitStack() as stack:
        copies = []
        for world in pair.worlds():
            copy = replace(world, dbname=f"{world.dbname}_{secrets.token_hex(3)}")
            stack.enter_context(_database(world.cluster, copy.dbname, world.dbname))
            _settings(copy)
            copies.append(copy)
        yield Pair(*copies)


@contextmanager
def _database(cluster: ThrowawayCluster, name: str, template: str) -> Iterator[None]:
    with DatabaseJanitor(
        user="postgres",
        host=cluster.host,
        port=cluster.port,
        dbname=name,
        template_dbname=template,
    ):
        yield


def _build(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as dba:
        session = PsycopgSession(dba)
        install(session)
        for role in ROLES:
            dba.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        dba.execute(TABLES)
        with dba.transaction():
            apply_policy(session, DOCUMENT, KEY)
        for role, recipient_class in (
            ("mallory", RecipientClass.SECONDARY),
            ("victim", RecipientClass.SECONDARY),
            ("ghost", RecipientClass.SECONDARY),
            ("carole", RecipientClass.CARE),
        ):
            with dba.transaction():
                enrol(session, [role], recipient_class, KEY)
        with dba.transaction():
            revoke(session, "ghost")
        dba.execute(DECOYS)
        _pack(dba)


def _settings(world: World) -> None:
    """Repeat what enrolment sets for a role in one database, since a copy does not inherit it."""
    with world.dba() as dba:
        for role in ("mallory", "victim", "carole"):
            dba.execute(
                sql.SQL("ALTER ROLE {} IN DATABASE {} SET track_counts = off").format(
                    sql.Identifier(role), sql.Identifier(world.dbname)
                )
            )


def rows(world: World, role: str, relation: str) -> list[tuple[Any, ...]]:
    """All rows of a relation as a role sees them, in the order of the first column."""
    with psycopg.connect(world.dsn(role), autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        name = sql.SQL(".").join(map(sql.Identifier, relation.split(".")))
        return connection.execute(sql.SQL("SELECT * FROM {} ORDER BY 1").format(name)).fetchall()


def _disguise(twin: World, shown: Mapping[str, list[tuple[Any, ...]]]) -> None:
    """Store what mallory is shown (marking it again changes nothing), and change the others'."""
    with twin.dba() as dba:
        for view in VIEWS:
            key = "id" if view == "patient" else "mesure_id"
            at = {d.name: n for n, d in enumerate(_described(dba, view))}
            for table in (f"clinic.{view}", *(["balise_decoy.patient"] * (view == "patient"))):
                update = sql.SQL("UPDATE {} SET {} WHERE {} = %s").format(
                    sql.SQL(".").join(map(sql.Identifier, table.split("."))),
                    sql.SQL(", ").join(
                        sql.SQL("{} = %s").format(sql.Identifier(name)) for name in CARRIERS[view]
                    ),
                    sql.Identifier(key),
                )
                with dba.cursor() as cursor:
                    cursor.executemany(
                        update,
                        [(*(row[at[n]] for n in CARRIERS[view]), row[0]) for row in shown[view]],
                    )
        dba.execute(
            "UPDATE balise_decoy.patient SET id = id + 4000, nom = 'fausse-x-' || id + 4000,"
            " ville = CASE ville WHEN 'Zuydcoote' THEN 'Tourcoing' ELSE ville END,"
            " solde = solde + 77, naissance = naissance + 900, vu_le = vu_le + interval '77 s'"
            " WHERE balise_recipient = 'victim'"
        )
        dba.execute(
            "UPDATE balise.codeword SET word = %s WHERE role_name = 'victim'",
            [np.random.default_rng(SEED + 1).bytes(8000)],
        )
        _pack(dba)


def _pack(dba: psycopg.Connection[Any]) -> None:
    """Leave nothing of how the tables were filled: plans show a table's size."""
    dba.execute("VACUUM FULL")
    dba.execute("VACUUM ANALYZE")


def _described(dba: psycopg.Connection[Any], view: str) -> Sequence[psycopg.Column]:
    query = sql.SQL("SELECT * FROM clinic.{} LIMIT 0").format(sql.Identifier(view))
    return dba.execute(query).description or []


def _survey(cluster: ThrowawayCluster, dbname: str) -> World:
    """Keep what each role must not see: all that anyone else is shown or that is stored."""
    world = World(cluster, dbname, {}, {})
    stored = {f"clinic.{view}": rows(world, "postgres", f"clinic.{view}") for view in VIEWS}
    # as the view shows them, with whose they are
    decoys = [(row[0], *row[2:]) for row in rows(world, "postgres", "balise_decoy.patient")]
    shown: dict[str, list[tuple[Any, ...]]] = {"ghost": [], "outsider": []}
    for role, schema in (("mallory", "marked"), ("victim", "marked"), ("carole", "marked_care")):
        shown[role] = [row for view in VIEWS for row in rows(world, role, f"{schema}.{view}")]
    every = [row for table in (*stored.values(), decoys, *shown.values()) for row in table]
    cells = _texts(every)
    hidden = _secret_texts(world)
    forbidden = {role: frozenset(cells - _texts(own) | hidden) for role, own in shown.items()}
    # what the victim is sent, nobody attacks with
    del forbidden["victim"]
    mine = {row[0]: row for row in rows(world, "mallory", "marked.patient")}
    row = next(row for row in stored["clinic.patient"][100:] if mine[row[0]][3] != row[3])
    theirs = {row[0]: row for row in rows(world, "victim", "marked.patient")}
    decoy = next(row for row in decoys if row[3] == "Zuydcoote")
    known = {
        "id": str(row[0]),
        "raw": str(row[3]),
        "mine": str(mine[row[0]][3]),
        "born": str(row[4]),
        "theirs": str(next(r[3] for k, r in theirs.items() if mine.get(k, r)[3] != r[3])),
        "decoy": str(decoy[2]),
        "decoyid": str(decoy[1]),
        "decoytown": str(decoy[3]),
    }
    return World(cluster, dbname, forbidden, known)


def _texts(table: Sequence[tuple[Any, ...]]) -> set[str]:
    return {text for row in table for value in row for text in texts_of(value)}


def _secret_texts(world: World) -> set[str]:
    texts: set[str] = set()
    with world.dba() as dba:
        for seeds, keys in dba.execute("SELECT seeds, keys FROM balise.relation_secret"):
            texts.update(text for seed in seeds for text in spellings(seed))
            texts.update(text for key in keys for text in pieces(bytes(key)))
        words = [bytes(word) for (word,) in dba.execute("SELECT word FROM balise.codeword")]
    bits = [dither(KEY, 1), *(codeword(KEY, role, 1, bias(KEY, 1)) for role in ROLES[:3])]
    words += [np.packbits(secret, bitorder="little").tobytes() for secret in bits]
    texts.update(text for word in words for text in pieces(word))
    return texts


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Say how many attempts there were, by family, and how many told nothing."""
    families: dict[str, list[bool]] = {}
    for outcome in ("passed", "failed", "xfailed"):
        for report in terminalreporter.getreports(outcome):
            test, _, name = report.nodeid.partition("[")
            if test.endswith("::test_attempt_tells_nothing"):
                families.setdefault(name.partition(":")[0], []).append(outcome == "passed")
    if families:
        terminalreporter.section("attempts: tried, stopped")
        total = [stopped for family in families.values() for stopped in family]
        for family, tried in [*families.items(), ("all", total)]:
            terminalreporter.write_line(f"{family:34}{len(tried):4}{sum(tried):4}")
