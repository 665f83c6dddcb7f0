"""What Alembic runs for every command: the registry's schema, and nothing beside it."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection, func, select, text
from sqlalchemy.schema import CreateSchema

from pgbalise.registry.tables import SCHEMA, metadata

_LOCK = 7_310_218_545_902_131
"""Keeps two migrations of one registry apart."""


def _migrate(**how: Any) -> None:
    context.configure(
        target_metadata=metadata,
        version_table="alembic_version",
        version_table_schema=SCHEMA,
        include_schemas=True,
        include_name=_ours,
        compare_server_default=True,
        transaction_per_migration=False,
        **how,
    )
    with context.begin_transaction():
        context.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        context.execute(CreateSchema(SCHEMA, if_not_exists=True))
        context.run_migrations()


def _ours(name: str | None, kind: str, parents: Any) -> bool:
    # the hospital's tables in the same database are none of our business
    return name == SCHEMA if kind == "schema" else parents.get("schema_name") == SCHEMA


connection: Connection | None = context.config.attributes.get("connection")
if connection is None:
    _migrate(dialect_name="postgresql", literal_binds=True)
else:
    connection.execute(text("SET LOCAL client_min_messages = warning"))
    _migrate(connection=connection)
