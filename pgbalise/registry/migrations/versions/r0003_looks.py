"""What a case spends: its alpha, the looks taken, what each rested on."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

SCHEMA = "balise_registry"

_CHECKS = (
    ("investigation", "alpha", "alpha > 0 AND alpha < 1"),
    ("leak", "size", "size >= 0"),
    ("trace", "look", "look >= 1"),
    ("trace", "alpha", "alpha > 0 AND alpha < 1"),
    ("trace", "inputs", "octet_length(inputs) = 32"),
    ("trace", "report_digest", "octet_length(report_digest) = 32"),
    ("trace", "ended_at", "(ended_at IS NULL) = (verdict IS NULL)"),
)
_COMMENTS = {
    "investigation": (
        "Cases: leaks found, traces run, what was concluded",
        "Cases: leaks found, traces run, what was concluded; alpha is for all looks together",
    ),
    "trace": (
        "Runs of pgbalise trace in a case: the object that --json prints",
        "Looks of a case, each written before the trace runs; the verdict comes after",
    ),
}


def upgrade() -> None:
    """Add the columns. Nothing wrote these tables before, so they are empty."""
    for table, columns in _columns().items():
        for column in columns:
            op.add_column(table, column, schema=SCHEMA)
    for table, name, condition in _CHECKS:
        op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition, schema=SCHEMA)
    op.create_foreign_key(
        op.f("fk_trace_repeats"),
        "trace",
        "trace",
        ["repeats"],
        ["trace_id"],
        source_schema=SCHEMA,
        referent_schema=SCHEMA,
    )
    op.create_index(
        "uq_trace_look",
        "trace",
        ["investigation_id", "look"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("repeats IS NULL"),
    )
    _settle(nullable=True, comment=1)


def downgrade() -> None:
    """Drop the columns, of tables that are empty."""
    from pgbalise.registry.migrations import refuse_loss

    refuse_loss("trace", "leak", "investigation")
    _settle(nullable=False, comment=0)
    op.drop_index("uq_trace_look", "trace", schema=SCHEMA)
    op.drop_constraint(op.f("fk_trace_repeats"), "trace", schema=SCHEMA)
    for table, name, _ in _CHECKS:
        op.drop_constraint(op.f(f"ck_{table}_{name}"), table, schema=SCHEMA)
    for table, columns in _columns().items():
        for column in reversed(columns):
            op.drop_column(table, column.name, schema=SCHEMA)


def _columns() -> dict[str, tuple[sa.Column[Any], ...]]:
    return {
        "investigation": (sa.Column("alpha", sa.Double(), nullable=False),),
        "leak": (
            sa.Column("size", sa.BigInteger(), nullable=False),
            sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        ),
        "trace": (
            sa.Column("look", sa.Integer(), nullable=False),
            sa.Column("alpha", sa.Double(), nullable=False),
            sa.Column("repeats", sa.BigInteger(), nullable=True),
            sa.Column("inputs", sa.LargeBinary(), nullable=False),
            sa.Column("parameters", postgresql.JSONB(), nullable=False),
            sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
            sa.Column("report_digest", sa.LargeBinary(), nullable=True),
        ),
    }


def _settle(*, nullable: bool, comment: int) -> None:
    for column in ("relation", "verdict"):
        op.alter_column("trace", column, nullable=nullable, schema=SCHEMA)
    for table, texts in _COMMENTS.items():
        op.create_table_comment(table, texts[comment], schema=SCHEMA)
