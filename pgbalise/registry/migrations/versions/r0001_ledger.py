"""Databases, recipients, commitments, the ledger and its checkpoints."""

from __future__ import annotations

from typing import LiteralString

import sqlalchemy as sa
from alembic import op
from psycopg import sql
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

SCHEMA = "balise_registry"


def upgrade() -> None:
    """Make the tables; entries and checkpoints can only be added."""
    op.create_table(
        "database",
        sa.Column("database_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("system_identifier", sa.Text(), nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("database_id", name=op.f("pk_database")),
        sa.UniqueConstraint(
            "name", "system_identifier", name=op.f("uq_database_name_system_identifier")
        ),
        schema=SCHEMA,
        comment="The patient databases known: name within the server that has this identifier",
    )
    op.create_table(
        "recipient",
        sa.Column("recipient_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("database_id", sa.BigInteger(), nullable=False),
        sa.Column("role_name", sa.Text(), nullable=False),
        sa.Column("class", sa.Text(), nullable=False),
        sa.Column("enrolled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("class IN ('secondary', 'care')", name=op.f("ck_recipient_class")),
        sa.ForeignKeyConstraint(
            ["database_id"],
            [f"{SCHEMA}.database.database_id"],
            name=op.f("fk_recipient_database_id"),
        ),
        sa.PrimaryKeyConstraint("recipient_id", name=op.f("pk_recipient")),
        sa.UniqueConstraint(
            "database_id", "role_name", name=op.f("uq_recipient_database_id_role_name")
        ),
        schema=SCHEMA,
        comment="Login roles ever enrolled, with the times that their database gave",
    )
    op.create_table(
        "commitment",
        sa.Column("recipient_id", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("commitment", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key_fingerprint", sa.Text(), nullable=True),
        sa.CheckConstraint("octet_length(commitment) = 32", name=op.f("ck_commitment_commitment")),
        sa.ForeignKeyConstraint(
            ["recipient_id"],
            [f"{SCHEMA}.recipient.recipient_id"],
            name=op.f("fk_commitment_recipient_id"),
        ),
        sa.PrimaryKeyConstraint("recipient_id", "epoch", name=op.f("pk_commitment")),
        schema=SCHEMA,
        comment="Digests of codewords; made_at is when the registry first recorded one",
    )
    op.create_table(
        "entry",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", postgresql.JSONB(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("origin", sa.Text(), sa.Computed("body ->> 'origin'", persisted=True)),
        sa.CheckConstraint("sequence >= 1", name=op.f("ck_entry_sequence")),
        sa.CheckConstraint("octet_length(previous) = 32", name=op.f("ck_entry_previous")),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("ck_entry_hash")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_entry")),
        sa.UniqueConstraint("previous", name=op.f("uq_entry_previous")),
        sa.UniqueConstraint("hash", name=op.f("uq_entry_hash")),
        sa.UniqueConstraint("origin", name=op.f("uq_entry_origin")),
        schema=SCHEMA,
        comment="The ledger: each entry's hash covers the one before",
    )
    op.create_index(
        "ix_entry_body",
        "entry",
        ["body"],
        schema=SCHEMA,
        postgresql_using="gin",
        postgresql_ops={"body": "jsonb_path_ops"},
    )
    op.create_table(
        "checkpoint",
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("ck_checkpoint_hash")),
        sa.CheckConstraint("octet_length(public_key) = 32", name=op.f("ck_checkpoint_public_key")),
        sa.CheckConstraint("octet_length(signature) = 64", name=op.f("ck_checkpoint_signature")),
        sa.ForeignKeyConstraint(
            ["sequence"], [f"{SCHEMA}.entry.sequence"], name=op.f("fk_checkpoint_sequence")
        ),
        sa.PrimaryKeyConstraint("sequence", "public_key", name=op.f("pk_checkpoint")),
        schema=SCHEMA,
        comment="Ed25519 signatures of the ledger up to an entry",
    )
    op.execute(
        """
CREATE FUNCTION balise_registry.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION 'the ledger can only be added to'
        USING ERRCODE = 'insufficient_privilege', HINT = 'record a correction as a new entry';
END
$$"""
    )
    for table in ("entry", "checkpoint"):
        _run(
            "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {}"
            " FOR EACH STATEMENT EXECUTE FUNCTION {}()",
            table,
            "refuse_change",
        )
        # also for a session that says it applies a replica's changes
        _run("ALTER TABLE {} ENABLE ALWAYS TRIGGER append_only", table)


def downgrade() -> None:
    """Drop the tables, all of them empty."""
    from pgbalise.registry.migrations import refuse_loss

    tables = ("checkpoint", "entry", "commitment", "recipient", "database")
    refuse_loss(*tables)
    for table in tables:
        op.drop_table(table, schema=SCHEMA)
    _run("DROP FUNCTION {}()", "refuse_change")


def _run(template: LiteralString, *names: str) -> None:
    """Run a statement about things in the registry's schema."""
    quoted = (sql.Identifier(SCHEMA, name) for name in names)
    op.execute(sql.SQL(template).format(*quoted).as_string())
