"""What the extension's PL/Python functions call: the same code as the command line's.

``plpy`` is the module that PostgreSQL gives PL/Python functions; see the manual's chapter 46.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from pgbalise.catalog import columns
from pgbalise.database import (
    apply_policy,
    check_master_key,
    enrol,
    open_epoch,
    refresh_views,
    revoke,
)
from pgbalise.decoybook import issued
from pgbalise.errors import (
    EnvironmentProblem,
    InvalidInput,
    InvalidKey,
    InvalidPolicy,
    PgbaliseError,
)
from pgbalise.install import installed
from pgbalise.keyfile import read_key
from pgbalise.marking.decoy_policy import MOST_DECOYS
from pgbalise.marking.keys import MasterKey
from pgbalise.marking.policy import Policy, RecipientClass, parse_policy
from pgbalise.session import run

if TYPE_CHECKING:
    import pyarrow as pa

P = ParamSpec("P")
R = TypeVar("R")

_SQL_TYPES: dict[type, str] = {
    str: "text",
    bool: "boolean",
    int: "bigint",
    bytes: "bytea",
    float: "float8",
}

# What writes down the parameters of a statement inside a function, or its plan with the
# parameters in it; whoever calls the function may have asked for that, and to be sent it.
_OUT_OF_LOGS = {
    "plan_cache_mode": "force_generic_plan",
    "debug_print_parse": "off",
    "debug_print_rewritten": "off",
    "debug_print_plan": "off",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "auto_explain.log_nested_statements": "off",
    "auto_explain.log_parameter_max_length": "0",
    "pgaudit.log_parameter": "off",
}


_FILLED = 10_000
"""Rows that go to the server in one statement."""


class PlpySession:
    """A Session over the server programming interface that ``plpy`` gives."""

    def __init__(self, plpy: Any) -> None:
        self.plpy = plpy

    def fetch(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, none for one that returns no rows."""
        result = self._execute(sql, args)
        try:
            names = result.colnames()
        except self.plpy.Error:
            return []
        if len(set(names)) < len(names):
            # rows are dictionaries: columns of the same name would hide each other
            names = [f"c{n}" for n in range(len(names))]
            numbered = f"SELECT * FROM ({sql}) AS q({', '.join(names)})"  # noqa: S608 - no input
            result = self._execute(numbered, args)
        return [tuple(row[name] for name in names) for row in result]

    def _execute(self, sql: str, args: Sequence[object]) -> Any:
        if not args:
            return self.plpy.execute(sql)
        return self.plpy.execute(self.plpy.prepare(sql, [_sql_type(a) for a in args]), list(args))

    def run(self, template: str, *names: str) -> None:
        """Run ``format(template, *names)``, put together by the server."""
        run(self, template, *names)

    def append(
        self, schema: str, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> None:
        """Append rows to a table; log_statement does not see what a function runs."""
        places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        [(statement,)] = self.fetch(
            "SELECT format('INSERT INTO %I.%I (%s) VALUES (' || $4 || ')', $1, $2,"
            " (SELECT string_agg(format('%I', name), ', ') FROM unnest($3) AS name))",
            schema,
            table,
            list(columns),
            places,
        )
        types = [
            name
            for (name,) in self.fetch(
                "SELECT format_type(a.atttypid, a.atttypmod)"
                " FROM unnest($3) WITH ORDINALITY AS c(name, at)"
                " JOIN pg_attribute AS a ON a.attrelid = format('%I.%I', $1, $2)::regclass"
                " AND a.attname = c.name ORDER BY c.at",
                schema,
                table,
                list(columns),
            )
        ]
        with self.set_for_now(_OUT_OF_LOGS):
            plan = self.plpy.prepare(statement, types)
            for row in rows:
                self.plpy.execute(plan, list(row))

    @contextmanager
    def set_for_now(self, wanted: Mapping[str, str]) -> Iterator[None]:
        """Change settings, those that the server knows, and give them back as they were."""
        before = self.fetch(
            "SELECT name, setting FROM pg_settings WHERE name = ANY ($1)", list(wanted)
        )
        for name, _ in before:
            self.fetch("SELECT set_config($1, $2, true)", name, wanted[name])
        try:
            yield
        finally:
            for name, value in before:
                self.fetch("SELECT set_config($1, $2, true)", name, value)

    def load(self, table: str, rows: pa.Table) -> None:
        """Append rows of text to a table made by pgbalise; columns in the table's order."""
        types = self.fetch(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum",
            table,
        )
        casts = ", ".join(f"c{n}::{name}" for n, (name,) in enumerate(types))
        arrays = ", ".join(f"${n + 1}::text[]" for n in range(len(types)))
        names = ", ".join(f"c{n}" for n in range(len(types)))
        [(statement,)] = self.fetch(
            "SELECT format('INSERT INTO %I SELECT ' || $2::text, $1::text)",
            table,
            f"{casts} FROM unnest({arrays}) AS u({names})",
        )
        self.fetch(statement, *(column.to_pylist() for column in rows.columns))

    def fill(self, schema: str, table: str, rows: pa.Table) -> None:
        """Append many rows to a table, columns by name; text, numbers, dates and timestamps."""
        import pyarrow as pa
        import pyarrow.compute as pc

        names = rows.column_names
        [(statement,)] = self.fetch(
            "SELECT format('INSERT INTO %I.%I (%s) SELECT %s FROM unnest(%s) AS u(%s)', $1, $2,"
            " string_agg(format('%I', c.name), ', ' ORDER BY c.at),"
            " string_agg(format('c%s::%s', c.at, format_type(a.atttypid, a.atttypmod)), ', '"
            " ORDER BY c.at),"
            " string_agg(format('$%s::text[]', c.at), ', ' ORDER BY c.at),"
            " string_agg(format('c%s', c.at), ', ' ORDER BY c.at))"
            " FROM unnest($3) WITH ORDINALITY AS c(name, at)"
            " JOIN pg_attribute AS a ON a.attrelid = format('%I.%I', $1, $2)::regclass"
            " AND a.attname = c.name",
            schema,
            table,
            list(names),
        )
        with self.set_for_now(_OUT_OF_LOGS):
            for batch in rows.to_batches(_FILLED):
                texts = [pc.cast(column, pa.string()).to_pylist() for column in batch.columns]
                if batch.num_rows:
                    self.plpy.execute(self.plpy.prepare(statement, ["text[]"] * len(names)), texts)

    def read(self, query: str, names: Sequence[str]) -> pa.Table:
        """Return a query's rows as text, under these names."""
        import pyarrow as pa

        rows = self.fetch(query)
        arrays = [pa.array([row[n] for row in rows], pa.string()) for n in range(len(names))]
        return pa.table(arrays, names=list(names))


def _sql_type(value: object) -> str:
    if isinstance(value, list | tuple):
        return _sql_type(value[0] if value else "") + "[]"
    return _SQL_TYPES.get(type(value), "text")


def _spoken(
    method: Callable[Concatenate[Functions, P], R],
) -> Callable[Concatenate[Functions, P], R]:
    """Report a PgbaliseError as a PostgreSQL error with its hint, without a Python traceback."""

    @wraps(method)
    def speaking(self: Functions, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except PgbaliseError as problem:
            extra = {"hint": problem.hint} if problem.hint else {}
            self.plpy.error(problem.message, sqlstate="22023", **extra)
            raise

    return speaking


def _issuing() -> Any:
    """Import what makes decoys, which needs packages that the rest does without."""
    try:
        return import_module("pgbalise.issuing")
    except ImportError as problem:
        raise EnvironmentProblem(
            f"decoys need a package that the server's Python lacks: {problem.name}",
            hint="run: pip install 'pgbalise[decoys]' in the environment of balise.python_path()",
        ) from None


class Functions:
    """The SQL functions of schema balise, one method each."""

    def __init__(self, plpy: Any) -> None:
        self.plpy = plpy
        self.session = PlpySession(plpy)

    @contextmanager
    def _settings(self) -> Iterator[None]:
        """Print values the same way whatever the caller's settings, and give those back."""
        wanted = {"DateStyle": "ISO, YMD", "TimeZone": "UTC", "extra_float_digits": "1"}
        # pg_temp said last, or the caller's own temporary types would come before the server's
        wanted["search_path"] = "pg_catalog, pg_temp"
        wanted["standard_conforming_strings"] = "on"
        # the work sets it, and the caller's transaction goes on without
        wanted["lock_timeout"] = self.session.fetch("SELECT current_setting('lock_timeout')")[0][0]
        with self.session.set_for_now(wanted):
            yield

    @_spoken
    def mark_column(
        self,
        relation: str | None,
        column: str | None,
        quantum: str | None,
        bounds: list[str] | None,
        thresholds: list[str] | None,
        skip: list[str] | None,
        grid: str | None,
        equivalents: list[list[str]] | None,
        density: Any,
        neutral: bool,
        continuous: bool,
        entity: list[str] | None,
        by_column: str | None,
        by_value: str | None,
    ) -> None:
        """Add a carrier, or one value of its ``by`` column, to the draft."""
        if relation is None or column is None:
            raise InvalidInput("relation and column_name must not be NULL")
        [(oid,)] = self.session.fetch("SELECT $1::regclass::oid::bigint", relation)
        with self._settings():
            [(schema, name, qualified)] = self.session.fetch(
                "SELECT n.nspname::text, c.relname::text, format('%I.%I', n.nspname, c.relname)"
                " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE c.oid = $1::oid",
                oid,
            )
            types = {info.name: info.base_text for info in columns(self.session, schema, name)}
            for wanted in [column, *(entity or []), *([by_column] if by_column else [])]:
                if wanted not in types:
                    raise InvalidPolicy(f"{qualified} has no column {wanted}")
            key = self.session.fetch(
                "SELECT a.attname::text FROM pg_index AS i JOIN pg_attribute AS a"
                " ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
                " WHERE i.indrelid = $1::oid AND i.indisprimary"
                " ORDER BY array_position(i.indkey::int[], a.attnum::int)",
                oid,
            )
            document = self._draft()
            table = document.setdefault("relation", {}).setdefault(qualified, {})
            if "key" not in table:
                if not key:
                    raise InvalidPolicy(f"{qualified} has no primary key")
                table["key"] = {part: types[part] for (part,) in key}
            carrier = table.setdefault("carrier", {}).setdefault(column, {})
            tolerance = {
                "quantum": quantum,
                "bounds": bounds,
                "thresholds": thresholds,
                "skip": skip,
                "grid": grid,
                "equivalents": equivalents,
            }
            given = {setting: value for setting, value in tolerance.items() if value is not None}
            carrier["type"] = types[column]
            carrier |= {"neutral": neutral} if neutral else {}
            carrier |= {"continuous": continuous} if continuous else {}
            carrier |= {"density": str(density)} if density is not None else {}
            carrier |= {"entity": {part: types[part] for part in entity}} if entity else {}
            if (by_column is None) != (by_value is None):
                raise InvalidPolicy("by_column and by_value go together")
            if by_column is None:
                carrier |= given
            else:
                carrier["by"] = {by_column: types[by_column]}
                carrier.setdefault("tolerance", {})[by_value] = given
            parse_policy(document)
            self._save(document)

    @_spoken
    def unmark_column(self, relation: str, column: str) -> None:
        """Take a carrier out of the draft; a relation without carriers and decoys goes too."""
        [(oid,)] = self.session.fetch("SELECT $1::regclass::oid::bigint", relation)
        with self._settings():
            [(qualified,)] = self.session.fetch(
                "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c"
                " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = $1::oid",
                oid,
            )
            document = self._draft()
            carriers = document.get("relation", {}).get(qualified, {}).get("carrier", {})
            if column not in carriers:
                raise InvalidPolicy(f"{qualified} has no carrier {column} in the draft")
            del carriers[column]
            if not carriers and not document["relation"][qualified].get("decoys", False):
                del document["relation"][qualified]
            self._save(document)

    @_spoken
    def apply(self, key_file: str) -> int:
        """Apply the draft, or the policy in force once more; return the number of views."""
        with self._settings():
            installed(self.session)
            key = self._key(key_file)
            document = self._draft()
            self._check_grantable(parse_policy(document))
            return len(apply_policy(self.session, document, key))

    def _key(self, file: str | None) -> MasterKey:
        """Read a master key; only who may read the server's files is told why one cannot be."""
        if file is None:
            raise InvalidInput("this needs the master key", hint="give key_file")
        try:
            return read_key(Path(file))
        except InvalidKey:
            if self.session.fetch(
                "SELECT 1 WHERE pg_has_role(session_user, 'pg_read_server_files', 'USAGE')"
            ):
                raise
            # whether there is such a file, and whose, is nobody else's business
            raise InvalidKey(
                "there is no master key in that file that the server may read",
                hint="a superuser who calls this is told why",
            ) from None

    def _check_grantable(self, policy: Policy) -> None:
        """Who runs this with the owner's rights gives out only what it could give out itself."""
        for relation in policy.relations:
            rows = self.session.fetch(
                "SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE n.nspname = $1 AND c.relname = $2 AND NOT"
                " has_table_privilege(session_user, c.oid, 'SELECT WITH GRANT OPTION')"
                " AND NOT EXISTS (SELECT FROM balise.relation AS r"
                " WHERE r.schema_name = n.nspname AND r.relation_name = c.relname)",
                relation.schema,
                relation.name,
            )
            if rows:
                raise InvalidPolicy(
                    f"{relation.qualified}: you may not give it to others",
                    hint="have its owner GRANT SELECT ... WITH GRANT OPTION",
                )

    @_spoken
    def refresh_views(self, relation: str | None) -> int:
        """Write the marked views of a relation, or of all, again; return how many."""
        with self._settings():
            name = None
            if relation is not None:
                [(name,)] = self.session.fetch(
                    "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c"
                    " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                    " WHERE c.oid = $1::regclass",
                    relation,
                )
            return len(refresh_views(self.session, name))

    @_spoken
    def open_epoch(self, key_file: str) -> int:
        """Open a new epoch under this master key; return its number."""
        with self._settings():
            return open_epoch(self.session, self._key(key_file))

    @_spoken
    def enrol(self, role: str, recipient_class: str, key_file: str | None, force: bool) -> None:
        """Make a login role a recipient."""
        with self._settings():
            try:
                chosen = RecipientClass(recipient_class)
            except ValueError:
                raise InvalidPolicy("class: must be secondary or care") from None
            if force and not self.session.fetch(
                "SELECT 1 FROM pg_roles WHERE rolname = session_user AND rolsuper"
            ):
                raise InvalidInput("only a superuser may enrol with force")
            enrol(self.session, [role], chosen, self._key(key_file), force=force)

    @_spoken
    def revoke(self, role: str) -> None:
        """Stop a recipient's access at once."""
        with self._settings():
            revoke(self.session, role)

    @_spoken
    def make_decoys(self, role: str | None, how_many: int | None, key_file: str | None) -> int:
        """Give a recipient, or all of them, the decoys that they lack; return how many."""
        if how_many is not None and not 1 <= how_many <= MOST_DECOYS:
            raise InvalidInput(f"how_many must be from 1 to {MOST_DECOYS}")
        issuing = _issuing()
        with self._settings():
            installed(self.session)
            key = self._key(key_file)
            check_master_key(self.session, key)
            names = None if role is None else [role]
            return len(issuing.make_decoys(self.session, key, names, how_many, self._now()))

    @_spoken
    def retire_decoys(self, role: str | None, number: int | None) -> int:
        """Take a decoy of a recipient, or all of them, out of its views; return how many."""
        if role is None:
            raise InvalidInput("role_name must not be NULL")
        issuing = _issuing()
        with self._settings():
            installed(self.session)
            ever = self.session.fetch(
                "SELECT number, retired_at IS NOT NULL FROM balise.decoy"
                " WHERE role_name = $1::name AND number = coalesce($2::int, number)",
                role,
                number,
            )
            if not ever:
                which = "no decoy" if number is None else f"no decoy {number}"
                raise InvalidInput(f"role {role} has {which}")
            names = [(role, known) for known, retired in ever if not retired]
            issuing.retire(self.session, names, self._now())
        return len(names)

    def _now(self) -> datetime:
        [(text,)] = self.session.fetch(
            "SELECT to_char(timezone('UTC', now()), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')"
        )
        return datetime.fromisoformat(text)

    @_spoken
    def trace(
        self, leak: str | None, relation: str | None, key_file: str | None, alpha: float
    ) -> list[tuple[str, bool, float, int]]:
        """Trace a table of leaked rows; strongest evidence first."""
        if leak is None or relation is None or key_file is None:
            raise InvalidInput("leak, relation and key_file must not be NULL")
        from pgbalise.investigate import check_accused, markings
        from pgbalise.trace import trace

        [(oid,)] = self.session.fetch("SELECT $1::regclass::oid::bigint", leak)
        with self._settings():
            installed(self.session)
            keys = [self._key(file) for file in key_file.split(":")]
            leaked = self._leak(oid)
            possible, _ = markings(self.session, keys, relation)
            verdict = trace(leaked, possible, alpha=alpha, decoys=issued(self.session)).verdict
            check_accused(self.session, possible, verdict.accused)
        return [(v.recipient, v.accused, v.log10_e_value, v.cells) for v in verdict.verdicts]

    def _leak(self, oid: int) -> pa.Table:
        names = [
            name
            for (name,) in self.session.fetch(
                "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::oid AND attnum > 0"
                " AND NOT attisdropped ORDER BY attnum",
                oid,
            )
        ]
        [(query,)] = self.session.fetch(
            "SELECT format('SELECT %s FROM %s',"
            " string_agg(format('%I::text', name), ', '), $1::oid::regclass)"
            " FROM unnest($2::text[]) AS name",
            oid,
            names,
        )
        return self.session.read(query, names)

    def _draft(self) -> dict[str, Any]:
        # read to be written again, or applied: nobody else's change in between may get lost
        self.session.fetch("LOCK TABLE balise.policy IN EXCLUSIVE MODE")
        rows = self.session.fetch(
            "SELECT document::text FROM balise.policy"
            " ORDER BY applied_at IS NULL DESC, version DESC LIMIT 1"
        )
        document: dict[str, Any] = json.loads(rows[0][0]) if rows else {}
        return document

    def _save(self, document: dict[str, Any]) -> None:
        self.session.fetch("DELETE FROM balise.policy WHERE applied_at IS NULL")
        self.session.fetch(
            "INSERT INTO balise.policy (document) VALUES ($1::jsonb)", json.dumps(document)
        )
