"""The hospital's database (DPI): policies, epochs, recipients, stored rows.

Everything here speaks through a ``Session``, which a psycopg connection and PL/Python both give,
so the command line and the SQL functions run the same code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from pgbalise.catalog import ColumnInfo, columns, protected_kin, server_version
from pgbalise.compile.cells import cast, column
from pgbalise.compile.views import CATALOG, marked_view, table
from pgbalise.decoy_tables import forget_decoys, prepare_decoys
from pgbalise.errors import DatabaseProblem, InvalidInput, InvalidPolicy, InvalidRecipient
from pgbalise.fit import fit, fit_columns
from pgbalise.install import OWNER, installed
from pgbalise.marking.cells import carrier_secret
from pgbalise.marking.codes import bias, codeword, commitment, dither, stored_word
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import Policy, RecipientClass, Relation, parse_policy

if TYPE_CHECKING:
    import pyarrow as pa

    from pgbalise.session import PsycopgSession, Session


@dataclass(frozen=True)
class Recipient:
    """A recipient as the catalog knows it. ``enrolled_at`` and ``revoked_at`` are ISO 8601."""

    role: str
    recipient_class: RecipientClass
    enrolled_at: str
    revoked_at: str | None
    commitments: Mapping[int, bytes]
    """The commitment to its codeword in each epoch that it was enrolled in."""


def recipients(session: Session) -> list[Recipient]:
    """Return every recipient ever enrolled, in the order of their names."""
    installed(session)
    commitments: dict[str, dict[int, bytes]] = {}
    for role, epoch, digest in session.fetch(
        "SELECT role_name::text, epoch, commitment FROM balise.commitment ORDER BY epoch"
    ):
        commitments.setdefault(role, {})[epoch] = bytes(digest)
    rows = session.fetch(
        "SELECT role_name::text, class, enrolled_at::text, revoked_at::text"
        " FROM balise.recipient ORDER BY role_name"
    )
    return [
        Recipient(role, RecipientClass(cls), enrolled, revoked, commitments.get(role, {}))
        for role, cls, enrolled, revoked in rows
    ]


@dataclass(frozen=True)
class Epoch:
    """A time during which marks stayed the same. Times are ISO 8601."""

    number: int
    key_fingerprint: str | None
    """Of the master key it marks with; None if 0.1.0 opened it and no key was used since."""
    opened_at: str
    closed_at: str | None
    """When the next one was opened; None for the epoch in force."""


def epochs(session: Session) -> list[Epoch]:
    """Return every epoch opened, the one in force last."""
    installed(session)
    rows = session.fetch(
        "SELECT epoch, key_fingerprint, opened_at::text,"
        " (lead(opened_at) OVER (ORDER BY epoch))::text FROM balise.epoch ORDER BY epoch"
    )
    return [Epoch(*row) for row in rows]


def applied_document(session: Session) -> Mapping[str, Any]:
    """Return the document of the policy in force."""
    documents = applied_documents(session)
    if not documents:
        raise DatabaseProblem("no policy has been applied", hint="run pgbalise policy apply")
    return documents[-1]


def applied_documents(session: Session) -> list[Mapping[str, Any]]:
    """Return the document of every policy ever applied, the one in force last."""
    installed(session)
    rows = session.fetch(
        "SELECT document::text FROM balise.policy WHERE applied_at IS NOT NULL ORDER BY version"
    )
    return [json.loads(document) for (document,) in rows]


def applied_policy(session: Session) -> Policy:
    """Return the policy in force."""
    return parse_policy(applied_document(session))


def check_master_key(session: Session, key: MasterKey) -> None:
    """Raise InvalidInput when the epoch in force marks with another master key."""
    known = epochs(session)
    if known and not epoch_uses(session, known[-1], key):
        raise InvalidInput(
            f"epoch {known[-1].number} marks with another master key"
            + (f", {known[-1].key_fingerprint}" if known[-1].key_fingerprint else ""),
            hint="to change keys, open a new epoch: pgbalise epoch open --key FILE",
        )


def epoch_uses(session: Session, epoch: Epoch, key: MasterKey) -> bool:
    """Whether an epoch marks with this master key."""
    if epoch.key_fingerprint is not None:
        return key.fingerprint() == epoch.key_fingerprint
    rows = session.fetch(
        "SELECT role_name::text, commitment FROM balise.commitment WHERE epoch = $1::int LIMIT 1",
        epoch.number,
    )
    return all(_committed(key, role, epoch.number) == bytes(digest) for role, digest in rows)


def _committed(key: MasterKey, role: str, epoch: int) -> bytes:
    return commitment(role, epoch, codeword(key, role, epoch, bias(key, epoch)))


def check_commitments(key: MasterKey, epoch: int, committed: Iterable[Recipient]) -> None:
    """Raise InvalidInput unless each codeword is the one committed to when it was made."""
    for recipient in committed:
        if _committed(key, recipient.role, epoch) != recipient.commitments.get(epoch):
            raise InvalidInput(
                f"the codeword of {recipient.role} is not the one committed to in epoch {epoch}",
                hint="the catalog was changed since",
            )


def apply_policy(session: Session, document: Mapping[str, Any], key: MasterKey) -> list[str]:
    """Put a policy in force: catalog, secrets, decoy tables, marked views, grants.

    Must run inside one transaction, so that an interruption leaves nothing half done. Without an
    ``epoch`` the document goes on with the one in force. Returns the names of the views. Raise
    InvalidPolicy when it does not fit the database, InvalidInput when the epoch marks with another
    master key.
    """
    return _apply(session, document, key, opening=False)


def open_epoch(session: Session, key: MasterKey) -> int:
    """Open a new epoch: from now on every mark is another, under this master key.

    Must run inside one transaction. Every recipient gets a new codeword; who was revoked before
    has none in it. Leaks of earlier epochs stay traceable with the key of their own epoch.
    """
    installed(session)
    _begin_writing(session)
    document = applied_document(session)
    number = epochs(session)[-1].number + 1
    _apply(session, {**document, "epoch": number}, key, opening=True)
    return number


def _apply(
    session: Session, document: Mapping[str, Any], key: MasterKey | None, *, opening: bool
) -> list[str]:
    """Apply a policy; without a key, to see what would be run: its secrets are then worthless."""
    installed(session)
    _begin_writing(session)
    known = epochs(session)
    current = known[-1].number if known else 1
    document = {"epoch": current, **document}
    policy = parse_policy(document)
    fit(session, policy)
    if known and not opening:
        if policy.epoch != current:
            raise InvalidPolicy(
                f"epoch: {current} is in force, not {policy.epoch}",
                hint="leave epoch out of the policy; pgbalise epoch open opens a new one",
            )
        if key is not None:
            check_master_key(session, key)
    documents = applied_documents(session)
    if documents:
        _withdraw(session, parse_policy(documents[-1]), policy)
    for schema in policy.schemas.values():
        _view_schema(session, schema)
    key = key or MasterKey(bytes(32))
    session.fetch(
        "INSERT INTO balise.epoch (epoch, key_fingerprint) VALUES ($1::int, $2::text)"
        " ON CONFLICT (epoch) DO UPDATE SET key_fingerprint = excluded.key_fingerprint",
        policy.epoch,
        key.fingerprint(),
    )
    _protect(session, policy, key)
    session.fetch("DELETE FROM balise.policy WHERE applied_at IS NULL")
    session.fetch(
        "INSERT INTO balise.policy (document, applied_at) VALUES ($1::jsonb, now())",
        json.dumps(document, default=str),
    )
    enrolled = [r for r in recipients(session) if r.revoked_at is None]
    renewed = [(r.role, r.recipient_class) for r in enrolled if policy.epoch not in r.commitments]
    session.fetch(
        "DELETE FROM balise.codeword WHERE role_name::text = ANY ($1::text[])",
        [role for role, _ in renewed],
    )
    _give_words(session, renewed, key, policy.epoch)
    _grant(session, policy, [(r.role, r.recipient_class) for r in enrolled])
    # the event triggers look these up at everybody's ALTER
    session.fetch("ANALYZE balise.relation, balise.marked_view")
    return [f"{schema}.{r.view}" for r in policy.relations for schema in policy.schemas.values()]


def _one_at_a_time(session: Session) -> None:
    """Wait until nobody else changes the catalog, before anything of it is read.

    Two at a time would write over each other's views, open one epoch with two keys, enrol in an
    epoch that is over, or give a word to who is just being revoked.
    """
    session.fetch("LOCK TABLE balise.policy IN EXCLUSIVE MODE")
    if session.fetch("SELECT 1 WHERE current_setting('transaction_isolation') <> 'read committed'"):
        # the snapshot may be older than the lock
        raise DatabaseProblem(
            "this changes the catalog in a transaction that may not see its newest state",
            hint="SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        )


def _begin_writing(session: Session) -> None:
    _one_at_a_time(session)
    # without pg_temp at its end, temporary types and relations would be found first
    session.fetch("SELECT set_config('search_path', 'pg_catalog, pg_temp', true)")
    session.fetch("SELECT set_config('standard_conforming_strings', 'on', true)")
    # a recipient idle in a transaction holds up the views' renewal, which would then hold up
    # everybody else's queries
    session.fetch(
        "SELECT set_config('lock_timeout', '10s', true) WHERE current_setting('lock_timeout') = '0'"
    )


def _give_words(
    session: Session, roles: Sequence[tuple[str, RecipientClass]], key: MasterKey, epoch: int
) -> None:
    """Store the codeword of each recipient in an epoch, and the commitment to it."""
    if not roles:
        return
    thresholds, dithers = bias(key, epoch), dither(key, epoch)
    digests: list[bytes] = []

    def words() -> Iterable[Sequence[object]]:
        for role, recipient_class in roles:
            bits = codeword(key, role, epoch, thresholds)
            digests.append(commitment(role, epoch, bits))
            yield role, recipient_class.value, stored_word(bits, dithers)

    session.append(CATALOG, "codeword", ("role_name", "class", "word"), words())
    session.append(
        CATALOG,
        "commitment",
        ("role_name", "epoch", "commitment"),
        [(role, epoch, digest) for (role, _), digest in zip(roles, digests, strict=True)],
    )


def _withdraw(session: Session, before: Policy, after: Policy) -> None:
    """Drop the views of relations that the new policy no longer names, or gives to others."""
    stay = {
        (schema, relation.view, relation.qualified)
        for relation in after.relations
        for schema in after.schemas.values()
    }
    for relation in before.relations:
        for schema in before.schemas.values():
            if (schema, relation.view, relation.qualified) not in stay:
                session.run("DROP VIEW IF EXISTS %I.%I", schema, relation.view)


def _view_schema(session: Session, schema: str) -> None:
    rows = session.fetch(
        "SELECT n.nspowner = c.nspowner OR o.rolsuper OR o.rolname = $2::text"
        " FROM pg_namespace AS n JOIN pg_roles AS o ON o.oid = n.nspowner, pg_namespace AS c"
        " WHERE n.nspname = $1::text AND c.nspname = $3::text",
        schema,
        OWNER,
        CATALOG,
    )
    if not rows:
        session.run("CREATE SCHEMA %I", schema)
    elif not rows[0][0]:
        # its owner could put views of its own in place of the marked ones
        raise DatabaseProblem(
            f"schema {schema} belongs to somebody else",
            hint="ALTER SCHEMA ... OWNER TO CURRENT_USER, or name another one under views",
        )
    session.run("GRANT USAGE, CREATE ON SCHEMA %I TO %I", schema, OWNER)


def _protect(session: Session, policy: Policy, key: MasterKey) -> None:
    for schema in sorted({relation.schema for relation in policy.relations}):
        session.run("GRANT USAGE ON SCHEMA %I TO %I", schema, OWNER)
    names = [part for r in policy.relations for part in (r.schema, r.name)]
    listed = ", ".join(["%I.%I"] * len(policy.relations))
    session.run(f"GRANT SELECT ON {listed} TO %I", *names, OWNER)
    # new numbers each time: a transaction whose snapshot is older than this policy finds no
    # secrets under them and is refused, instead of marking with those of another carrier
    for part in ("relation", "relation_secret", "marked_view"):
        session.run("DELETE FROM %I.%I", CATALOG, part)
    stored = [(r, columns(session, r.schema, r.name)) for r in policy.relations]
    session.append(
        CATALOG,
        "relation",
        ("schema_name", "relation_name", "column_names", "needed_columns"),
        [(r.schema, r.name, [info.name for info in infos], list(r.named)) for r, infos in stored],
    )
    numbers = _relation_numbers(session)
    rows = []
    for relation in policy.relations:
        secrets = [carrier_secret(key, policy, relation, carrier) for carrier in relation.carriers]
        seeds = [seed for secret in secrets for seed in (secret.first, secret.second)]
        number = numbers[relation.schema, relation.name]
        rows.append((number, seeds, [secret.key for secret in secrets]))
    session.append(CATALOG, "relation_secret", ("relation_id", "seeds", "keys"), rows)
    for relation in policy.relations:
        if relation.decoys:
            prepare_decoys(session, relation)
    _write_views(session, policy, stored)


def _relation_numbers(session: Session) -> dict[tuple[str, str], int]:
    rows = session.fetch(
        "SELECT schema_name::text, relation_name::text, relation_id FROM balise.relation"
    )
    return {(schema, name): number for schema, name, number in rows}


def _write_views(
    session: Session, policy: Policy, stored: Iterable[tuple[Relation, Sequence[ColumnInfo]]]
) -> None:
    """Write the marked views of these relations, and remember them as written."""
    numbers = _relation_numbers(session)
    version = server_version(session)
    shown = _shown(session, policy)
    written: list[tuple[str, str, int]] = []
    for relation, infos in stored:
        # a carrier renamed, retyped or computed from since would be given as it is stored
        fit_columns(relation, infos)
        number = numbers[relation.schema, relation.name]
        names = [info.name for info in infos]
        for recipient_class, schema in policy.schemas.items():
            marked = {carrier.column for carrier in relation.carriers_for(recipient_class)}
            # a marked value of a domain is given as its base type
            wanted = [
                (info.name, info.base_text if info.name in marked else info.type_text)
                for info in infos
            ]
            query = marked_view(
                relation, names, recipient_class, number, policy.derivation, version
            )
            before = shown.get((schema, relation.view), [])
            if before != wanted[: len(before)]:
                session.run("DROP VIEW %I.%I", schema, relation.view)
            # replaced where it can be, or a recipient's own view on it would hold up every policy;
            # the whole SELECT comes from the compiler: %s puts it in as it stands
            session.run("CREATE OR REPLACE VIEW %I.%I AS %s", schema, relation.view, query)
            session.run("ALTER VIEW %I.%I OWNER TO %I", schema, relation.view, OWNER)
            written.append((schema, relation.view, number))
    session.fetch(
        "DELETE FROM balise.marked_view WHERE relation_id = ANY ($1::int[])",
        [number for _, _, number in written],
    )
    session.fetch(
        "INSERT INTO balise.marked_view (schema_name, view_name, relation_id, definition_hash)"
        " SELECT w.schema_name, w.view_name, w.relation_id,"
        " sha256(convert_to(pg_get_viewdef(c.oid), 'UTF8'))"
        " FROM unnest($1::text[], $2::text[], $3::int[]) AS w(schema_name, view_name, relation_id)"
        " JOIN pg_namespace AS n ON n.nspname = w.schema_name"
        " JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.view_name",
        *(list(column) for column in zip(*written, strict=True)),
    )


def _shown(session: Session, policy: Policy) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Return the names and types of the columns of everything in the schemas of marked views."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for schema, view, name, type_text in session.fetch(
        "SELECT n.nspname::text, c.relname::text, a.attname::text,"
        " format_type(a.atttypid, a.atttypmod) FROM pg_namespace AS n"
        " JOIN pg_class AS c ON c.relnamespace = n.oid"
        " JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE n.nspname::text = ANY ($1::text[]) ORDER BY c.oid, a.attnum",
        list(policy.schemas.values()),
    ):
        found.setdefault((schema, view), []).append((name, type_text))
    return found


def refresh_views(session: Session, relation: str | None = None) -> list[str]:
    """Write marked views again, as the policy in force has them: no mark changes.

    After a relation got new columns, or a view was dropped or altered. ``relation`` is one of the
    policy's (``schema.name``); None means all. Needs no master key. Must run inside one
    transaction. Returns the names of the views. Raise InvalidPolicy when the policy no longer fits.
    """
    installed(session)
    _begin_writing(session)
    policy = applied_policy(session)
    chosen = policy.relations if relation is None else (policy.relation(relation),)
    for one in chosen:
        if one.decoys:
            prepare_decoys(session, one)
    _write_views(session, policy, [(r, columns(session, r.schema, r.name)) for r in chosen])
    enrolled = [r for r in recipients(session) if r.revoked_at is None]
    _grant(
        session, replace(policy, relations=chosen), [(r.role, r.recipient_class) for r in enrolled]
    )
    return [f"{schema}.{r.view}" for r in chosen for schema in policy.schemas.values()]


def enrol(
    session: Session,
    roles: Sequence[str],
    recipient_class: RecipientClass,
    key: MasterKey,
    *,
    force: bool = False,
) -> int:
    """Make login roles recipients: store their words and commitments, grant them marked views.

    Must run inside one transaction. Returns the epoch they are enrolled in, which is the one in
    force. Raise InvalidRecipient when there is no such role, it is enrolled already, or (unless
    ``force``) it can pass by its marked views.
    """
    installed(session)
    _one_at_a_time(session)
    policy = applied_policy(session)
    check_master_key(session, key)
    # known from now on, where 0.1.0 opened the epoch
    session.fetch(
        "UPDATE balise.epoch SET key_fingerprint = $2::text"
        " WHERE epoch = $1::int AND key_fingerprint IS NULL",
        policy.epoch,
        key.fingerprint(),
    )
    for role in roles:
        _check_enrollable(session, role, force=force)
        session.fetch(
            "INSERT INTO balise.recipient (role_name, class) VALUES ($1::text, $2::text)",
            role,
            recipient_class.value,
        )
        session.run("GRANT EXECUTE ON FUNCTION %I.refuse() TO %I", CATALOG, role)
        _hide_counters(session, role)
    enrolled = [(role, recipient_class) for role in roles]
    _give_words(session, enrolled, key, policy.epoch)
    _grant(session, policy, enrolled)
    return policy.epoch


def _check_enrollable(session: Session, role: str, *, force: bool) -> None:
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


def _hide_counters(session: Session, role: str) -> None:
    """The counters of its own transaction would tell a role which table a row came from.

    The setting is a superuser's; where there is none, doctor says what that leaves open.
    """
    if session.fetch("SELECT 1 WHERE current_setting('is_superuser')::bool"):
        [(database,)] = session.fetch("SELECT current_database()::text")
        session.run("ALTER ROLE %I IN DATABASE %I SET track_counts = off", role, database)


def _refuse_way_round(session: Session, role: str) -> None:
    rows = session.fetch(
        "SELECT c.oid::regclass::text FROM pg_class AS c, pg_roles AS g"
        " WHERE pg_has_role($1::text, g.oid, 'MEMBER')"
        " AND (c.oid = ANY ($2::text[]::oid[])"
        " OR c.oid IN ('balise.codeword'::regclass, 'balise.relation_secret'::regclass))"
        " AND (has_any_column_privilege(g.oid, c.oid, 'SELECT, INSERT, UPDATE')"
        " OR has_table_privilege(g.oid, c.oid, 'DELETE, TRUNCATE'))",
        role,
        protected_kin(session),
    )
    if rows:
        raise InvalidRecipient(
            f"role {role} can read or write {rows[0][0]} itself, past its marked view",
            hint="revoke that, or enrol with force",
        )


def _grant(
    session: Session, policy: Policy, enrolled: Sequence[tuple[str, RecipientClass]]
) -> None:
    for recipient_class, schema in policy.schemas.items():
        roles = [role for role, theirs in enrolled if theirs is recipient_class]
        if not roles:
            continue
        grantees = ", ".join(["%I"] * len(roles))
        session.run(f"GRANT USAGE ON SCHEMA %I TO {grantees}", schema, *roles)
        views = [part for relation in policy.relations for part in (schema, relation.view)]
        listed = ", ".join(["%I.%I"] * len(policy.relations))
        session.run(f"GRANT SELECT ON {listed} TO {grantees}", *views, *roles)


def revoke(session: Session, role: str) -> None:
    """Stop a recipient's access at once.

    It stays traceable for ever, so its name is never enrolled again; its decoys are retired, and
    stay known. Must run inside one transaction.
    """
    installed(session)
    _one_at_a_time(session)
    rows = session.fetch(
        "UPDATE balise.recipient SET revoked_at = now()"
        " WHERE role_name = $1::text AND revoked_at IS NULL RETURNING class",
        role,
    )
    if not rows:
        raise InvalidRecipient(f"role {role} is not enrolled")
    session.fetch("DELETE FROM balise.codeword WHERE role_name = $1::text", role)
    forget_decoys(session, role)
    if not session.fetch("SELECT 1 FROM pg_roles WHERE rolname = $1::text", role):
        return
    session.run("REVOKE EXECUTE ON FUNCTION %I.refuse() FROM %I", CATALOG, role)
    if session.fetch("SELECT 1 FROM balise.policy WHERE applied_at IS NOT NULL LIMIT 1"):
        policy = applied_policy(session)
        schema = policy.schemas[RecipientClass(rows[0][0])]
        for relation in policy.relations:
            session.run("REVOKE ALL ON %I.%I FROM %I", schema, relation.view, role)
        session.run("REVOKE ALL ON SCHEMA %I FROM %I", schema, role)


_LEAK_KEYS = "balise_leak_key"
_LARGE = 10_000_000
"""From so many rows on, a sample takes whole pages instead of reading every one of them."""


def stored_rows(
    session: Session, relation: Relation, names: Sequence[str], keys: pa.Table
) -> pa.Table:
    """Return the stored rows with these keys (columns of text, as in the policy), as text.

    Needs SELECT on these columns and the key, and TEMPORARY on the database; must run inside a
    transaction.
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
    query = _as_text(relation, names).where(exp.In(this=mine, query=wanted.subquery()))
    rows = session.read(query.sql(dialect="postgres", normalize_functions=False), names)
    session.run("DROP TABLE pg_temp.%I", _LEAK_KEYS)
    return rows


def sampled_rows(
    session: Session, relation: Relation, names: Sequence[str], limit: int | None
) -> pa.Table:
    """Return about ``limit`` stored rows drawn at random (None: all), columns of text.

    The same rows each time, as long as the relation stays the same. Needs SELECT on these columns.
    """
    query = _as_text(relation, names)
    if limit is not None:
        [(total, kind)] = session.fetch(
            "SELECT c.reltuples::int8, c.relkind::text FROM pg_class AS c JOIN pg_namespace AS n"
            " ON n.oid = c.relnamespace WHERE n.nspname = $1::text AND c.relname = $2::text",
            relation.schema,
            relation.name,
        )
        if total < 0:
            counted = exp.select(exp.Count(this=exp.Star())).from_(
                table(relation.name, relation.schema)
            )
            [(total,)] = session.fetch(counted.sql(dialect="postgres"))
        if total > limit and kind in ("r", "p", "m"):
            query.args["from_"].this.set(
                "sample",
                exp.TableSample(
                    method=exp.Var(this="BERNOULLI" if total < _LARGE else "SYSTEM"),
                    percent=exp.Literal.number(100 * limit / total),
                    seed=exp.Literal.number(1),
                ),
            )
        # an estimate of the server's may be too low
        query = query.limit(2 * limit)
    return session.read(query.sql(dialect="postgres", normalize_functions=False), list(names))


def readable_columns(session: Session, relation: Relation) -> set[str]:
    """Return the columns of a relation that the session's role may read."""
    return {
        name
        for (name,) in session.fetch(
            "SELECT a.attname::text FROM pg_attribute AS a WHERE a.attnum > 0"
            " AND NOT a.attisdropped AND a.attrelid = format('%I.%I', $1::text, $2::text)::regclass"
            " AND has_column_privilege(a.attrelid, a.attnum, 'SELECT')",
            relation.schema,
            relation.name,
        )
    }


def _as_text(relation: Relation, names: Sequence[str]) -> exp.Select:
    return exp.select(*(cast(column(name, "t"), "text") for name in names)).from_(
        table(relation.name, relation.schema, "t")
    )


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

    def append(
        self, schema: str, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> None:
        self._session.append(schema, table, columns, rows)

    def load(self, table: str, rows: pa.Table) -> None:
        self._session.load(table, rows)

    def fill(self, schema: str, table: str, rows: pa.Table) -> None:
        self._session.fill(schema, table, rows)

    def read(self, query: str, names: Sequence[str]) -> pa.Table:
        return self._session.read(query, names)


def planned(session: PsycopgSession, document: Mapping[str, Any]) -> list[str]:
    """Return the statements that apply_policy would run, by running and undoing them.

    Needs no master key: secrets are never part of a statement.
    """
    recorder = _Recorder(session)
    try:
        with session.connection.transaction():
            _apply(recorder, document, None, opening=False)
            raise _Undo
    except _Undo:
        return recorder.statements
