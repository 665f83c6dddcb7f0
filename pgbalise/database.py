"""The hospital's database (DPI): install, apply a policy, enrol recipients, take their extracts.

Everything here speaks through a ``Session``, which a psycopg connection and PL/Python both give,
so the command line and the SQL functions run the same code. Identifiers are quoted by the server
(``format('%I')``), values are parameters.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from psycopg import RawCursor, sql
from sqlglot import exp

from pgbalise.catalog import columns, fit, server_version, unique_keys
from pgbalise.compile.cells import cast, column
from pgbalise.compile.views import CATALOG, DECOYS, decoy_table, marked_view, table
from pgbalise.errors import DatabaseProblem, InvalidInput, InvalidPolicy, InvalidRecipient
from pgbalise.marking.cells import carrier_secret
from pgbalise.marking.codes import bias, codeword, commitment, dither, stored_word
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import Policy, RecipientClass, Relation, parse_policy

if TYPE_CHECKING:
    import pyarrow as pa

OWNER = "balise_owner"
"""The role that owns the marked views."""


class Session(Protocol):
    """What pgbalise needs of a connection: parameters are ``$1``, ``$2``, ..."""

    def fetch(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""

    def run(self, template: str, *names: str) -> None:
        """Run ``format(template, *names)``, put together by the server."""

    def load(self, table: str, rows: pa.Table) -> None:
        """Append rows of text to a table made by pgbalise; columns in the table's order."""

    def read(self, query: str, names: Sequence[str]) -> pa.Table:
        """Return a query's rows as text, under these names."""


class PsycopgSession:
    """A Session over a psycopg connection; its errors become DatabaseProblem."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def fetch(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, none for one that returns no rows."""
        with problems(), RawCursor(self.connection) as cursor:
            cursor.execute(sql.encode(), args or None)
            return cursor.fetchall() if cursor.description else []

    def run(self, template: str, *names: str) -> None:
        """Run ``format(template, *names)``, put together by the server."""
        run(self, template, *names)

    def load(self, table: str, rows: pa.Table) -> None:
        """Append rows of text to a table made by pgbalise; columns in the table's order."""
        import pyarrow.csv

        body = io.BytesIO()
        pyarrow.csv.write_csv(rows, body, pyarrow.csv.WriteOptions(include_header=False))
        statement = sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(sql.Identifier(table))
        with problems(), self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(body.getbuffer())

    def read(self, query: str, names: Sequence[str]) -> pa.Table:
        """Return a query's rows as text, under these names."""
        from pgbalise.leak import copied_rows

        statement = b"COPY (" + query.encode() + b") TO STDOUT (FORMAT csv)"
        with problems(), self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            return copied_rows(b"".join(copy), list(names))


def run(session: Session, template: str, *names: str) -> None:
    """Have the server put a statement together with format(), and run it."""
    [(statement,)] = session.fetch(
        "SELECT pg_catalog.format($1::text, VARIADIC $2::text[])", template, list(names)
    )
    session.fetch(statement)


@contextmanager
def problems() -> Iterator[None]:
    """Turn a psycopg error into a DatabaseProblem of one line."""
    try:
        yield
    except psycopg.Error as problem:
        diag = problem.diag
        text = diag.message_primary or str(problem).strip().splitlines()[0]
        raise DatabaseProblem(f"the database says: {text}", hint=diag.message_hint) from None


@contextmanager
def connect(dsn: str) -> Iterator[PsycopgSession]:
    """Open a connection that prints every value the same way, whatever the server's settings.

    ``dsn`` is a libpq connection string or URI, empty for PG* variables and service files.
    """
    with problems():
        connection = psycopg.connect(dsn, autocommit=True, application_name="pgbalise")
    with connection:
        session = PsycopgSession(connection)
        for setting, value in (
            ("search_path", "pg_catalog"),
            ("datestyle", "ISO, YMD"),
            ("timezone", "UTC"),
            ("extra_float_digits", "1"),
            ("intervalstyle", "postgres"),
        ):
            session.fetch("SELECT set_config($1::text, $2::text, false)", setting, value)
        yield session


def install(session: Session) -> str:
    """Create the extension if it is not there; return its version."""
    if not session.fetch("SELECT 1 FROM pg_available_extensions WHERE name = 'pgbalise'"):
        raise DatabaseProblem(
            "this server has no pgbalise extension",
            hint="run make -C sql install on its machine first",
        )
    session.fetch("CREATE EXTENSION IF NOT EXISTS pgbalise CASCADE")
    return installed(session)


def installed(session: Session) -> str:
    """Return the extension's version; raise DatabaseProblem when the database lacks it."""
    rows = session.fetch("SELECT extversion::text FROM pg_extension WHERE extname = 'pgbalise'")
    if not rows:
        raise DatabaseProblem("this database has no pgbalise extension", hint="run pgbalise init")
    return str(rows[0][0])


@dataclass(frozen=True)
class Recipient:
    """A recipient as the catalog knows it. ``enrolled_at`` and ``revoked_at`` are ISO 8601."""

    role: str
    recipient_class: RecipientClass
    epoch: int
    commitment: bytes
    enrolled_at: str
    revoked_at: str | None


def recipients(session: Session) -> list[Recipient]:
    """Return every recipient ever enrolled, in the order of their names."""
    installed(session)
    rows = session.fetch(
        "SELECT role_name::text, class, epoch, commitment, enrolled_at::text, revoked_at::text"
        " FROM balise.recipient ORDER BY role_name"
    )
    return [
        Recipient(role, RecipientClass(cls), epoch, bytes(digest), enrolled, revoked)
        for role, cls, epoch, digest, enrolled, revoked in rows
    ]


def applied_document(session: Session) -> Mapping[str, Any]:
    """Return the document of the policy in force."""
    installed(session)
    rows = session.fetch(
        "SELECT document::text FROM balise.policy WHERE applied_at IS NOT NULL"
        " ORDER BY version DESC LIMIT 1"
    )
    if not rows:
        raise DatabaseProblem("no policy has been applied", hint="run pgbalise policy apply")
    document: Mapping[str, Any] = json.loads(rows[0][0])
    return document


def applied_policy(session: Session) -> Policy:
    """Return the policy in force."""
    return parse_policy(applied_document(session))


def apply_policy(session: Session, document: Mapping[str, Any], key: MasterKey) -> list[str]:
    """Put a policy in force: catalog, secrets, decoy tables, marked views, grants.

    Must run inside one transaction, so that an interruption leaves nothing half done. Returns
    the names of the views. Raise InvalidPolicy when it does not fit the database.
    """
    installed(session)
    # one apply at a time: two would write over each other's views
    session.fetch("LOCK TABLE balise.policy IN EXCLUSIVE MODE")
    session.fetch("SELECT set_config('search_path', 'pg_catalog', true)")
    session.fetch("SELECT set_config('standard_conforming_strings', 'on', true)")
    _keep_out_of_logs(session)
    policy = parse_policy(document)
    fit(session, policy)
    if any(r.epoch != policy.epoch for r in recipients(session) if r.revoked_at is None):
        raise InvalidPolicy(
            f"epoch: recipients are enrolled under another epoch than {policy.epoch}",
            hint="keep the epoch: a new one would leave their copies untraceable",
        )
    previous = session.fetch(
        "SELECT document::text FROM balise.policy WHERE applied_at IS NOT NULL"
        " ORDER BY version DESC LIMIT 1"
    )
    kept = {(relation.schema, relation.name) for relation in policy.relations}
    if previous:
        _withdraw(session, parse_policy(json.loads(previous[0][0])), policy, kept)
    for schema in policy.schemas.values():
        if not session.fetch("SELECT 1 FROM pg_namespace WHERE nspname = $1::text", schema):
            session.run("CREATE SCHEMA %I", schema)
        session.run("GRANT USAGE, CREATE ON SCHEMA %I TO %I", schema, OWNER)
    names = [
        name for relation in policy.relations for name in _protect(session, policy, relation, key)
    ]
    session.fetch("DELETE FROM balise.policy WHERE applied_at IS NULL")
    session.fetch(
        "INSERT INTO balise.policy (document, applied_at) VALUES ($1::jsonb, now())",
        json.dumps(document, default=str),
    )
    for recipient in recipients(session):
        if recipient.revoked_at is None:
            _grant(session, policy, recipient.role, recipient.recipient_class)
    return names


def _keep_out_of_logs(session: Session) -> None:
    """Parameters carry secrets, and log_statement would write them down."""
    session.fetch(
        "SELECT set_config(name, '0', true) FROM pg_settings"
        " WHERE current_setting('is_superuser')::bool"
        " AND name IN ('log_parameter_max_length', 'log_parameter_max_length_on_error')"
    )


def _withdraw(session: Session, before: Policy, after: Policy, kept: set[tuple[str, str]]) -> None:
    """Drop the views and secrets of relations that the new policy no longer names."""
    stay = {
        (schema, relation.view) for relation in after.relations for schema in after.schemas.values()
    }
    for relation in before.relations:
        for schema in before.schemas.values():
            if (schema, relation.view) not in stay:
                session.run("DROP VIEW IF EXISTS %I.%I", schema, relation.view)
        if (relation.schema, relation.name) not in kept:
            session.fetch(
                "DELETE FROM balise.relation"
                " WHERE schema_name = $1::text AND relation_name = $2::text",
                relation.schema,
                relation.name,
            )


def _protect(session: Session, policy: Policy, relation: Relation, key: MasterKey) -> list[str]:
    session.run("GRANT USAGE ON SCHEMA %I TO %I", relation.schema, OWNER)
    session.run("GRANT SELECT ON %I.%I TO %I", relation.schema, relation.name, OWNER)
    # a new number each time: a transaction whose snapshot is older than this policy finds no
    # secrets under it and is refused, instead of marking with those of another carrier
    session.fetch(
        "DELETE FROM balise.relation WHERE schema_name = $1::text AND relation_name = $2::text",
        relation.schema,
        relation.name,
    )
    [(relation_id,)] = session.fetch(
        "INSERT INTO balise.relation (schema_name, relation_name) VALUES ($1::text, $2::text)"
        " RETURNING relation_id",
        relation.schema,
        relation.name,
    )
    secrets = [carrier_secret(key, policy, relation, carrier) for carrier in relation.carriers]
    session.fetch(
        "INSERT INTO balise.relation_secret (relation_id, seeds, keys)"
        " VALUES ($1::int, $2::bigint[], $3::bytea[])",
        relation_id,
        [seed for secret in secrets for seed in (secret.first, secret.second)],
        [secret.key for secret in secrets],
    )
    infos = columns(session, relation.schema, relation.name)
    names = [info.name for info in infos]
    if relation.decoys:
        _decoy_table(session, relation)
    version = server_version(session)
    views = []
    for recipient_class, schema in policy.schemas.items():
        query = marked_view(
            relation, names, recipient_class, relation_id, policy.derivation, version
        )
        # the whole SELECT comes from the compiler; %s puts it in as it stands
        before = columns(session, schema, relation.view)
        kept = zip(before, infos, strict=False)
        if len(before) > len(infos) or any(
            (old.name, old.type_text) != (new.name, new.type_text) for old, new in kept
        ):
            session.run("DROP VIEW %I.%I", schema, relation.view)
        # replaced where it can be, or a recipient's own view on it would hold up every policy
        session.run("CREATE OR REPLACE VIEW %I.%I AS %s", schema, relation.view, query)
        session.run("ALTER VIEW %I.%I OWNER TO %I", schema, relation.view, OWNER)
        views.append(f"{schema}.{relation.view}")
    return views


def _decoy_table(session: Session, relation: Relation) -> None:
    name = decoy_table(relation)
    if not session.fetch("SELECT 1 FROM pg_namespace WHERE nspname = $1::text", DECOYS):
        session.run("CREATE SCHEMA %I", DECOYS)
    session.run("GRANT USAGE ON SCHEMA %I TO %I", DECOYS, OWNER)
    if session.fetch(
        "SELECT 1 FROM pg_namespace AS d, pg_namespace AS c"
        " WHERE d.nspname = $1::text AND c.nspname = $2::text AND d.nspowner <> c.nspowner",
        DECOYS,
        CATALOG,
    ):
        raise DatabaseProblem(f"schema {DECOYS} belongs to somebody else", hint="drop it first")
    # predicate locks would tell a recipient which of its rows are decoys
    session.run("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_lock_status() FROM PUBLIC")
    session.run("GRANT EXECUTE ON FUNCTION pg_catalog.pg_lock_status() TO pg_monitor")
    there = {info.name for info in columns(session, DECOYS, name)}
    if there:
        for info in columns(session, relation.schema, relation.name):
            if info.name not in there:
                session.run(
                    "ALTER TABLE %I.%I ADD COLUMN %I %s", DECOYS, name, info.name, info.type_text
                )
        return
    session.run(
        "CREATE TABLE %I.%I (balise_recipient name NOT NULL,"
        " LIKE %I.%I INCLUDING DEFAULTS INCLUDING GENERATED)",
        DECOYS,
        name,
        relation.schema,
        relation.name,
    )
    # in the key's own order, so that its index and this one can be merged
    named = {column for column, _ in relation.key}
    keys = next(
        k for k in unique_keys(session, relation.schema, relation.name) if named.issuperset(k)
    )
    listed = ", ".join(["%I"] * len(keys))
    session.run(f"CREATE UNIQUE INDEX ON %I.%I (balise_recipient, {listed})", DECOYS, name, *keys)
    session.run("ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY", DECOYS, name)
    # row security, not a WHERE in the view: a recipient's own functions are then never given
    # another recipient's decoys, however cheap they claim to be
    session.run(
        "CREATE POLICY own_decoys ON %I.%I FOR SELECT USING (balise_recipient = SESSION_USER)",
        DECOYS,
        name,
    )
    session.run("GRANT SELECT ON %I.%I TO %I", DECOYS, name, OWNER)


def enrol(
    session: Session,
    role: str,
    recipient_class: RecipientClass,
    key: MasterKey,
    epoch: int,
    *,
    force: bool = False,
) -> None:
    """Make a login role a recipient: store its word and commitment, grant it its marked views.

    Must run inside one transaction. Raise InvalidRecipient when there is no such role, it is
    enrolled already, or (unless ``force``) it can pass by its marked views.
    """
    installed(session)
    _keep_out_of_logs(session)
    rows = session.fetch(
        "SELECT r.rolsuper OR r.rolreplication OR r.rolbypassrls, r.rolcanlogin, r.rolcreaterole,"
        " EXISTS (SELECT FROM pg_roles AS g WHERE pg_has_role(r.oid, g.oid, 'MEMBER')"
        " AND (g.rolname = ANY (ARRAY[$2::text, 'pg_read_all_data', 'pg_write_all_data',"
        " 'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'])"
        " OR g.rolsuper))"
        " FROM pg_roles AS r WHERE r.rolname = $1::text",
        role,
        OWNER,
    )
    if not rows:
        raise InvalidRecipient(
            f"there is no role {role}", hint="create it first: CREATE ROLE ... LOGIN"
        )
    superuser, can_login, creates, owns = rows[0]
    if not can_login:
        raise InvalidRecipient(f"role {role} cannot log in, so nothing is ever sent to it")
    if not force:
        # before PostgreSQL 16, who creates roles can join any role
        if superuser or owns or (creates and server_version(session) < 160000):
            raise InvalidRecipient(f"role {role} reads the base relations whatever it is granted")
        _refuse_way_round(session, role)
    known = session.fetch(
        "SELECT revoked_at FROM balise.recipient WHERE role_name = $1::text", role
    )
    if known:
        state = "enrolled already" if known[0][0] is None else "revoked, and stays so"
        raise InvalidRecipient(f"role {role} is {state}")
    thresholds = bias(key, epoch)
    bits = codeword(key, role, epoch, thresholds)
    session.fetch(
        "INSERT INTO balise.recipient (role_name, class, epoch, commitment)"
        " VALUES ($1::text, $2::text, $3::int, $4::bytea)",
        role,
        recipient_class.value,
        epoch,
        commitment(role, epoch, bits),
    )
    session.fetch(
        "INSERT INTO balise.codeword (role_name, class, word)"
        " VALUES ($1::text, $2::text, $3::bytea)",
        role,
        recipient_class.value,
        stored_word(bits, dither(key, epoch)),
    )
    session.run("GRANT EXECUTE ON FUNCTION %I.refuse() TO %I", CATALOG, role)
    # the counters of its own transaction would tell it which table a row came from
    [(database,)] = session.fetch("SELECT current_database()::text")
    session.run("ALTER ROLE %I IN DATABASE %I SET track_counts = off", role, database)
    if session.fetch("SELECT 1 FROM balise.policy WHERE applied_at IS NOT NULL LIMIT 1"):
        _grant(session, applied_policy(session), role, recipient_class)


def _refuse_way_round(session: Session, role: str) -> None:
    rows = session.fetch(
        "SELECT c.oid::regclass::text FROM pg_class AS c, pg_roles AS g"
        " WHERE pg_has_role($1::text, g.oid, 'MEMBER') AND c.oid IN ("
        "SELECT to_regclass(format('%I.%I', r.schema_name, r.relation_name))"
        " FROM balise.relation AS r"
        " UNION ALL VALUES ('balise.codeword'::regclass), ('balise.relation_secret'::regclass))"
        " AND (has_any_column_privilege(g.oid, c.oid, 'SELECT, INSERT, UPDATE')"
        " OR has_table_privilege(g.oid, c.oid, 'DELETE, TRUNCATE'))",
        role,
    )
    if rows:
        raise InvalidRecipient(
            f"role {role} can read or write {rows[0][0]} itself, past its marked view",
            hint="revoke that, or enrol with force",
        )


def _grant(session: Session, policy: Policy, role: str, recipient_class: RecipientClass) -> None:
    schema = policy.schemas[recipient_class]
    session.run("GRANT USAGE ON SCHEMA %I TO %I", schema, role)
    for relation in policy.relations:
        session.run("GRANT SELECT ON %I.%I TO %I", schema, relation.view, role)


def revoke(session: Session, role: str) -> None:
    """Stop a recipient's access at once.

    It stays traceable for ever, so its name is never enrolled again.
    """
    installed(session)
    rows = session.fetch(
        "UPDATE balise.recipient SET revoked_at = now()"
        " WHERE role_name = $1::text AND revoked_at IS NULL RETURNING class",
        role,
    )
    if not rows:
        raise InvalidRecipient(f"role {role} is not enrolled")
    session.fetch("DELETE FROM balise.codeword WHERE role_name = $1::text", role)
    if not session.fetch("SELECT 1 FROM pg_roles WHERE rolname = $1::text", role):
        return
    session.run("REVOKE EXECUTE ON FUNCTION %I.refuse() FROM %I", CATALOG, role)
    if session.fetch("SELECT 1 FROM balise.policy WHERE applied_at IS NOT NULL LIMIT 1"):
        policy = applied_policy(session)
        schema = policy.schemas[RecipientClass(rows[0][0])]
        for relation in policy.relations:
            session.run("REVOKE ALL ON %I.%I FROM %I", schema, relation.view, role)
        session.run("REVOKE ALL ON SCHEMA %I FROM %I", schema, role)


def check_commitments(key: MasterKey, committed: Sequence[Recipient]) -> None:
    """Raise InvalidInput unless each codeword is the one committed to when it was enrolled."""
    for recipient in committed:
        bits = codeword(key, recipient.role, recipient.epoch, bias(key, recipient.epoch))
        if commitment(recipient.role, recipient.epoch, bits) != recipient.commitment:
            raise InvalidInput(
                f"the codeword of {recipient.role} is not the one committed to at enrolment",
                hint="another master key, or the catalog was changed since",
            )


def check_master_key(session: Session, key: MasterKey) -> None:
    """Raise InvalidInput when recipients were enrolled under another master key."""
    check_commitments(key, recipients(session)[:1])


_LEAK_KEYS = "balise_leak_key"


def stored_rows(
    session: Session, relation: Relation, names: Sequence[str], keys: pa.Table
) -> pa.Table:
    """Return the stored rows with these keys (columns of text, as in the policy), as text.

    ``names`` are the columns to read. Needs SELECT on the relation and TEMPORARY on the database;
    must run inside a transaction, at whose end the temporary table is gone.
    """
    key = relation.key
    columns_made = ", ".join(["%I %s"] * len(key))
    declared = [part for name, kind in key for part in (name, kind.unlimited)]
    session.run(f"CREATE TEMPORARY TABLE %I ({columns_made}) ON COMMIT DROP", _LEAK_KEYS, *declared)
    session.load(_LEAK_KEYS, keys.drop_null())
    session.run("ANALYZE %I", _LEAK_KEYS)
    wanted = exp.select(*(column(name, "k") for name, _ in key)).from_(
        table(_LEAK_KEYS, "pg_temp", "k")
    )
    mine = exp.Tuple(expressions=[column(name, "t") for name, _ in key])
    query = (
        exp.select(*(cast(column(name, "t"), "text") for name in names))
        .from_(table(relation.name, relation.schema, "t"))
        .where(exp.In(this=mine, query=wanted.subquery()))
    )
    return session.read(query.sql(dialect="postgres", normalize_functions=False), names)


class _Undo(Exception):
    pass


class _Recorder:
    """A Session that keeps the statements it is asked to run."""

    def __init__(self, session: PsycopgSession) -> None:
        self._session = session
        self.statements: list[str] = []

    def fetch(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        return self._session.fetch(sql, *args)

    def run(self, template: str, *names: str) -> None:
        [(statement,)] = self.fetch(
            "SELECT pg_catalog.format($1::text, VARIADIC $2::text[])", template, list(names)
        )
        self.statements.append(statement)
        self.fetch(statement)

    def load(self, table: str, rows: pa.Table) -> None:
        self._session.load(table, rows)

    def read(self, query: str, names: Sequence[str]) -> pa.Table:
        return self._session.read(query, names)


def planned(session: PsycopgSession, document: Mapping[str, Any]) -> list[str]:
    """Return the statements that apply_policy would run, by running and undoing them.

    Needs no master key: secrets are parameters, never part of a statement.
    """
    recorder = _Recorder(session)
    try:
        with session.connection.transaction():
            apply_policy(recorder, document, MasterKey(bytes(32)))
            raise _Undo
    except _Undo:
        return recorder.statements
