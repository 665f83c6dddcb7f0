"""Decoys issued, alerts, investigations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

SCHEMA = "balise_registry"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "decoy",
        sa.Column("decoy_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("recipient_id", sa.BigInteger(), nullable=False),
        sa.Column("schema_name", sa.Text(), nullable=False),
        sa.Column("relation_name", sa.Text(), nullable=False),
        sa.Column("key", postgresql.JSONB(), nullable=False),
        sa.Column("identity_digest", sa.LargeBinary(), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "octet_length(identity_digest) = 32", name=op.f("ck_decoy_identity_digest")
        ),
        sa.CheckConstraint("retired_at >= issued_at", name=op.f("ck_decoy_retired_at")),
        sa.ForeignKeyConstraint(
            ["recipient_id"],
            [f"{SCHEMA}.recipient.recipient_id"],
            name=op.f("fk_decoy_recipient_id"),
        ),
        sa.PrimaryKeyConstraint("decoy_id", name=op.f("pk_decoy")),
        sa.UniqueConstraint(
            "recipient_id",
            "schema_name",
            "relation_name",
            "key",
            name=op.f("uq_decoy_recipient_id_schema_name_relation_name_key"),
        ),
        schema=SCHEMA,
        comment="Rows about patients who do not exist, by the recipient they were issued to",
    )
    op.create_index(op.f("ix_decoy_identity_digest"), "decoy", ["identity_digest"], schema=SCHEMA)
    op.create_table(
        "alert",
        sa.Column("alert_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("recipient_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "body", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "severity IN ('info', 'warning', 'critical')", name=op.f("ck_alert_severity")
        ),
        sa.ForeignKeyConstraint(
            ["recipient_id"],
            [f"{SCHEMA}.recipient.recipient_id"],
            name=op.f("fk_alert_recipient_id"),
        ),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("pk_alert")),
        schema=SCHEMA,
        comment="What the auditor is to be told, and when that was done",
    )
    op.create_index(
        "ix_alert_undelivered",
        "alert",
        ["raised_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("delivered_at IS NULL"),
    )
    op.create_table(
        "investigation",
        sa.Column("investigation_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("conclusion", sa.Text(), nullable=True),
        sa.CheckConstraint("closed_at >= opened_at", name=op.f("ck_investigation_closed_at")),
        sa.CheckConstraint(
            "closed_at IS NULL OR conclusion IS NOT NULL", name=op.f("ck_investigation_conclusion")
        ),
        sa.PrimaryKeyConstraint("investigation_id", name=op.f("pk_investigation")),
        schema=SCHEMA,
        comment="Cases: leaks found, traces run, what was concluded",
    )
    op.create_table(
        "leak",
        sa.Column("leak_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("investigation_id", sa.BigInteger(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("file_digest", sa.LargeBinary(), nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("octet_length(file_digest) = 32", name=op.f("ck_leak_file_digest")),
        sa.ForeignKeyConstraint(
            ["investigation_id"],
            [f"{SCHEMA}.investigation.investigation_id"],
            name=op.f("fk_leak_investigation_id"),
        ),
        sa.PrimaryKeyConstraint("leak_id", name=op.f("pk_leak")),
        sa.UniqueConstraint(
            "investigation_id", "file_digest", name=op.f("uq_leak_investigation_id_file_digest")
        ),
        schema=SCHEMA,
        comment="Files of a case: their SHA-256, not their content",
    )
    op.create_table(
        "trace",
        sa.Column("trace_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("investigation_id", sa.BigInteger(), nullable=False),
        sa.Column("database_id", sa.BigInteger(), nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("relation", sa.Text(), nullable=False),
        sa.Column("verdict", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["investigation_id"],
            [f"{SCHEMA}.investigation.investigation_id"],
            name=op.f("fk_trace_investigation_id"),
        ),
        sa.ForeignKeyConstraint(
            ["database_id"], [f"{SCHEMA}.database.database_id"], name=op.f("fk_trace_database_id")
        ),
        sa.PrimaryKeyConstraint("trace_id", name=op.f("pk_trace")),
        schema=SCHEMA,
        comment="Runs of pgbalise trace in a case: the object that --json prints",
    )
    op.create_index(op.f("ix_trace_investigation_id"), "trace", ["investigation_id"], schema=SCHEMA)


def downgrade() -> None:
    """Drop the tables, all of them empty."""
    from pgbalise.registry.migrations import refuse_loss

    tables = ("trace", "leak", "investigation", "alert", "decoy")
    refuse_loss(*tables)
    for table in tables:
        op.drop_table(table, schema=SCHEMA)
