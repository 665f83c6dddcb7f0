"""What the proxy knows of one database: what is protected there, and for whom.

Read over a connection of the proxy's own, by a role that may read the policy but neither data nor
secrets (balise_proxy), and read again every few seconds when something has changed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Any

import psycopg

from pgbalise.beacons import Beacons
from pgbalise.errors import DatabaseProblem, PgbaliseError
from pgbalise.install import found
from pgbalise.lookout import load_beacons
from pgbalise.marking.policy import Policy, RecipientClass, parse_policy
from pgbalise.rewrite import Protected, Rules, reason_not_to_run
from pgbalise.session import PsycopgSession, connect

_CHANGES = """
SELECT (SELECT max(version) FROM balise.policy WHERE applied_at IS NOT NULL),
       (SELECT max(epoch) FROM balise.epoch),
       (SELECT count(*) || ' ' || count(revoked_at) FROM balise.recipient),
       (SELECT count(*) || ' ' || coalesce(sum(xmin::text::numeric), 0) FROM pg_rewrite),
       (SELECT count(*) || ' ' || coalesce(sum(xmin::text::numeric), 0) FROM pg_policy),
       (SELECT count(*) || ' ' || coalesce(sum(xmin::text::numeric), 0)
          FROM pg_proc WHERE pronamespace <> 'pg_catalog'::regnamespace),
       (SELECT count(*) || ' ' || coalesce(sum(xmin::text::numeric), 0) FROM pg_inherits),
       (SELECT count(*) || ' ' || coalesce(sum(xmin::text::numeric), 0)
          FROM pg_class WHERE relkind IN ('r', 'v', 'm', 'f', 'p') AND relpersistence <> 't')
"""

_RELATIONS = """
SELECT r.schema_name::text, r.relation_name::text, v.schema_name::text, v.view_name::text,
       stored.oid::int8, shown.oid::int8
  FROM balise.relation AS r
  JOIN balise.marked_view AS v USING (relation_id)
  -- to_regclass() would ask for USAGE on their schemas
  JOIN pg_namespace AS sn ON sn.nspname = r.schema_name
  JOIN pg_class AS stored ON stored.relname = r.relation_name AND stored.relnamespace = sn.oid
  JOIN pg_namespace AS vn ON vn.nspname = v.schema_name
  JOIN pg_class AS shown ON shown.relname = v.view_name AND shown.relnamespace = vn.oid
"""

# views and partitions through which what is protected can be read, by any name; temporary ones
# concern their own session, which made them through the gate
_REACHING = """
WITH RECURSIVE reaching(oid) AS (
    SELECT unnest($1::int8[])::oid
    UNION
    SELECT found.oid
      FROM reaching AS r
      JOIN LATERAL (
          SELECT w.ev_class AS oid
            FROM pg_depend AS d JOIN pg_rewrite AS w ON w.oid = d.objid
           WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = r.oid
             AND d.classid = 'pg_rewrite'::regclass AND w.ev_class <> r.oid
          UNION ALL
          SELECT p.polrelid
            FROM pg_depend AS d JOIN pg_policy AS p ON p.oid = d.objid
           WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = r.oid
             AND d.classid = 'pg_policy'::regclass
          UNION ALL
          SELECT i.inhrelid FROM pg_inherits AS i WHERE i.inhparent = r.oid
          UNION ALL
          SELECT i.inhparent FROM pg_inherits AS i WHERE i.inhrelid = r.oid
      ) AS found ON true
)
SELECT DISTINCT c.relname::text FROM reaching AS r JOIN pg_class AS c ON c.oid = r.oid
 WHERE c.relpersistence <> 't'
"""

# an aggregate's body are the functions that it calls; those of extensions are their authors'.
# Temporary ones concern their own session, and their names must not be refused to all others
_FUNCTIONS = """
SELECT p.proname::text, l.lanname::text,
       CASE WHEN a.aggfnoid IS NOT NULL
            THEN concat_ws(' ', a.aggtransfn, nullif(a.aggfinalfn, 0), nullif(a.aggmtransfn, 0))
            ELSE {body} END,
       p.pronargs = 1 AND t.typtype IN ('c', 'p')
  FROM pg_proc AS p
  JOIN pg_language AS l ON l.oid = p.prolang
  JOIN pg_namespace AS n ON n.oid = p.pronamespace
  LEFT JOIN pg_aggregate AS a ON a.aggfnoid = p.oid
  LEFT JOIN pg_type AS t ON t.oid = p.proargtypes[0]
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'balise')
   AND n.nspname !~ '^pg_temp_'
   AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_proc'::regclass
                      AND d.objid = p.oid AND d.deptype = 'e')
"""
_SQL_BODY_SINCE = 140000

# views, and tables with a policy, that call one of these functions for whoever reads them
_CALLING = """
SELECT DISTINCT ON (found.oid) found.oid::int8, p.proname::text
  FROM pg_depend AS d
  JOIN pg_proc AS p ON p.oid = d.refobjid
  JOIN LATERAL (
      SELECT w.ev_class AS oid FROM pg_rewrite AS w
       WHERE d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
      UNION ALL
      SELECT o.polrelid FROM pg_policy AS o
       WHERE d.classid = 'pg_policy'::regclass AND o.oid = d.objid
  ) AS found ON true
 WHERE d.refclassid = 'pg_proc'::regclass AND p.proname = ANY ($1::text[])
   AND p.pronamespace <> 'pg_catalog'::regnamespace AND NOT found.oid = ANY ($2::int8[]::oid[])
 ORDER BY found.oid, p.proname
"""

_VERIFIER = """
SELECT rolpassword FROM pg_catalog.pg_authid
 WHERE rolname = $1::text AND rolcanlogin AND (rolvaliduntil IS NULL OR rolvaliduntil > now())
"""

_numbers = count(1)


@dataclass(frozen=True)
class Snapshot:
    """One database as it was when last read; ``protected`` is false when nothing is."""

    number: int
    """Another one each time that something has changed, whichever the database."""
    database: str
    system: str
    epoch: int
    recipients: Mapping[str, RecipientClass]
    rules: Mapping[RecipientClass | None, Rules]
    """By class of recipient; None for roles that are no recipients."""

    @cached_property
    def protected(self) -> bool:
        """Whether any relation is protected here."""
        return any(rules.names for rules in self.rules.values())

    @cached_property
    def relations(self) -> frozenset[int]:
        """What is protected, by oid."""
        return frozenset(oid for rules in self.rules.values() for oid in rules.protected)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names by which something protected can be read."""
        return frozenset(name for rules in self.rules.values() for name in rules.names)


class Catalog:
    """A database's snapshot, kept up to date. Methods that read block: call them in a thread."""

    def __init__(self, dsn: str, database: str, allowed: frozenset[str]) -> None:
        self._dsn = dsn
        self._database = database
        self._allowed = allowed
        self._stack = ExitStack()
        self._session: PsycopgSession | None = None
        self._seen: tuple[Any, ...] | None = None
        self._reading = threading.Lock()
        self._naming = threading.Lock()
        self._learned: set[str] = set()
        self.current = Snapshot(next(_numbers), database, "", 0, {}, {})
        self.read = self.current
        """The snapshot as it was read, without what was learned since."""
        self.missed = 0
        self._reconfigured = False

    @property
    def connected(self) -> bool:
        """Whether it is kept up to date."""
        return self._session is not None

    def refresh(self) -> bool:
        """Read what has changed; return whether anything had. Raise DatabaseProblem."""
        with self._reading:
            if self._reconfigured:
                self._reconfigured = False
                self._close()
                self._seen = None
            try:
                changed = self._refresh()
            except DatabaseProblem:
                self.missed += 1
                self._close()
                raise
            self.missed = 0
            return changed

    def learn(self, names: Iterable[str]) -> None:
        """Know these relations' names from now on: something protected may be read by them."""
        with self._naming:
            if not self._learned.issuperset(names):
                self._learned |= set(names)
                self.current = self._with_learned(self.current)

    def _with_learned(self, snapshot: Snapshot) -> Snapshot:
        rules = {
            recipient_class: replace(rules, names=rules.names | self._learned)
            for recipient_class, rules in snapshot.rules.items()
        }
        return replace(snapshot, number=next(_numbers), rules=rules)

    def configure(self, dsn: str, allowed: frozenset[str]) -> None:
        """Connect by this string, and allow these functions, from the next refresh on."""
        if (dsn, allowed) != (self._dsn, self._allowed):
            self._dsn, self._allowed = dsn, allowed
            self._reconfigured = True

    def rest(self) -> None:
        """Close the connection, unless it is in use; the next refresh opens another."""
        if self._reading.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._reading.release()

    def _close(self) -> None:
        self._session = None
        # a connection that is broken says so once more
        with suppress(psycopg.Error, PgbaliseError):
            self._stack.close()

    def verifier(self, role: str) -> str | None:
        """Return what the server stores of a role's password, None for a role without."""
        with self._reading:
            try:
                rows = self._connected().fetch(_VERIFIER, role)
            except DatabaseProblem:
                # the server may have been restarted since
                self._close()
                rows = self._connected().fetch(_VERIFIER, role)
        return rows[0][0] if rows else None

    def decoys_issued(self) -> str:
        """Return what changes when decoys were issued. Raise DatabaseProblem."""
        with self._reading:
            try:
                [(issued,)] = self._connected().fetch("SELECT balise.decoys_issued()")
            except DatabaseProblem:
                self._close()
                raise
        return str(issued)

    def beacons(self) -> Beacons:
        """Return the identities of the database's decoys. Raise DatabaseProblem."""
        # over a connection of its own: it may take long
        with connect(self._dsn) as session:
            return load_beacons(session, os.urandom(32))

    def _connected(self) -> PsycopgSession:
        if self._session is None:
            self._session = self._stack.enter_context(connect(self._dsn))
        return self._session

    def _refresh(self) -> bool:
        session = self._connected()
        version, _ = found(session)
        if version is None:
            changed = self._seen != ()
            self._seen = ()
            self.current = self.read = Snapshot(next(_numbers), self._database, "", 0, {}, {})
            return changed
        [seen] = session.fetch(_CHANGES)
        if seen == self._seen:
            return False
        snapshot = self._read(session)
        with self._naming:
            # what a session has made is not to be seen here before its transaction ends
            self.current = self._with_learned(snapshot) if self._learned else snapshot
        self.read = snapshot
        self._seen = seen
        return True

    def _read(self, session: PsycopgSession) -> Snapshot:
        [(name, system)] = session.fetch(
            "SELECT current_database()::text, system_identifier::text FROM pg_control_system()"
        )
        [(epoch,)] = session.fetch("SELECT coalesce(max(epoch), 1) FROM balise.epoch")
        recipients = {
            role: RecipientClass(value)
            for role, value in session.fetch(
                "SELECT role_name::text, class FROM balise.recipient WHERE revoked_at IS NULL"
            )
        }
        documents = session.fetch(
            "SELECT document FROM balise.policy WHERE applied_at IS NOT NULL"
            " ORDER BY version DESC LIMIT 1"
        )
        policy = parse_policy(documents[0][0]) if documents else None
        rules = self._rules(session, policy)
        return Snapshot(next(_numbers), name, system, epoch, recipients, rules)

    def _rules(
        self, session: PsycopgSession, policy: Policy | None
    ) -> dict[RecipientClass | None, Rules]:
        carriers = {
            ((relation.schema, relation.name), recipient_class): tuple(
                sorted(carrier.column for carrier in relation.carriers_for(recipient_class))
            )
            for relation in (policy.relations if policy else ())
            for recipient_class in RecipientClass
        }
        schemas = {schema: one for one, schema in policy.schemas.items()} if policy else {}
        protected: dict[RecipientClass, dict[int, Protected]] = {one: {} for one in RecipientClass}
        marked: dict[int, Protected] = {}
        for schema, relation, view_schema, view, stored, shown in session.fetch(_RELATIONS):
            recipient_class = schemas.get(view_schema)
            if recipient_class is None:
                continue
            known = Protected(
                schema,
                relation,
                view_schema,
                view,
                carriers.get(((schema, relation), recipient_class), ()),
            )
            protected[recipient_class][stored] = known
            marked[shown] = known
        oids = [*marked, *(oid for known in protected.values() for oid in known)]
        names = frozenset(name for (name,) in session.fetch(_REACHING, oids))
        builtins = frozenset(
            name
            for (name,) in session.fetch(
                "SELECT DISTINCT proname::text FROM pg_proc"
                " WHERE pronamespace = 'pg_catalog'::regnamespace"
            )
        )
        functions, attributes = self._functions(session, names)
        opaque = {
            oid: f"it calls function {name}"
            for oid, name in session.fetch(_CALLING, list(functions), oids)
        }
        if opaque:
            names |= {name for (name,) in session.fetch(_REACHING, list(opaque))}
        return {
            recipient_class: Rules(
                protected=protected[recipient_class or RecipientClass.SECONDARY],
                marked=marked,
                names=names,
                functions=functions,
                builtins=builtins,
                enrolled=recipient_class is not None,
                allowed=self._allowed,
                attributes=attributes,
                opaque=opaque,
            )
            for recipient_class in (*RecipientClass, None)
        }

    def _functions(
        self, session: PsycopgSession, names: frozenset[str]
    ) -> tuple[dict[str, str], frozenset[str]]:
        """Return the functions that recipients may not call, with reasons, and those of one row."""
        if not names:
            return {}, frozenset()
        body = "p.prosrc"
        if session.connection.info.server_version >= _SQL_BODY_SINCE:
            body = "coalesce(pg_get_function_sqlbody(p.oid), p.prosrc)"
        bodies = session.fetch(_FUNCTIONS.replace("{body}", body))
        refused: dict[str, str] = {}
        while True:
            rules = Rules(
                protected={},
                marked={},
                names=names,
                functions=dict(refused),
                builtins=frozenset(),
                enrolled=True,
                allowed=self._allowed,
            )
            before = len(refused)
            for name, language, text, _ in bodies:
                if name in refused or name in self._allowed:
                    continue
                # an aggregate's language is "internal", its body names of functions
                reason = reason_not_to_run(
                    text or "", "sql" if language == "internal" else language, rules
                )
                if reason is not None:
                    refused[name] = reason
            # who calls a refused function is refused in the next round
            if len(refused) == before:
                attributes = (name for name, _, _, single in bodies if single and name in refused)
                return refused, frozenset(attributes)
