"""The exchange between establishments: region, members, beacons, hits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

SCHEMA = "balise_registry"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "exchange_region",
        sa.Column("region_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("padding", sa.LargeBinary(), nullable=False),
        sa.Column("bits", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("region_id = 1", name=op.f("ck_exchange_region_one")),
        sa.CheckConstraint("octet_length(salt) = 16", name=op.f("ck_exchange_region_salt")),
        sa.CheckConstraint("octet_length(padding) = 32", name=op.f("ck_exchange_region_padding")),
        sa.CheckConstraint("bits BETWEEN 4 AND 16", name=op.f("ck_exchange_region_bits")),
        sa.PrimaryKeyConstraint("region_id", name=op.f("pk_exchange_region")),
        schema=SCHEMA,
        comment="The region whose exchange this registry keeps; bits is how long prefixes are now",
    )
    op.create_table(
        "exchange_member",
        sa.Column("member_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_digest", sa.LargeBinary(), nullable=False),
        sa.Column("token_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "octet_length(token_digest) = 32", name=op.f("ck_exchange_member_token_digest")
        ),
        sa.CheckConstraint("revoked_at >= added_at", name=op.f("ck_exchange_member_revoked_at")),
        sa.PrimaryKeyConstraint("member_id", name=op.f("pk_exchange_member")),
        sa.UniqueConstraint("name", name=op.f("uq_exchange_member_name")),
        sa.UniqueConstraint("token_digest", name=op.f("uq_exchange_member_token_digest")),
        schema=SCHEMA,
        comment="Establishments of the exchange; of a token only its SHA-256 is kept",
    )
    op.create_table(
        "exchange_beacon",
        sa.Column("member_id", sa.BigInteger(), nullable=False),
        sa.Column("reference", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "octet_length(reference) = 16", name=op.f("ck_exchange_beacon_reference")
        ),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_exchange_beacon_digest")),
        sa.CheckConstraint("octet_length(seal) = 64", name=op.f("ck_exchange_beacon_seal")),
        sa.ForeignKeyConstraint(
            ["member_id"],
            [f"{SCHEMA}.exchange_member.member_id"],
            name=op.f("fk_exchange_beacon_member_id"),
        ),
        sa.PrimaryKeyConstraint("member_id", "reference", name=op.f("pk_exchange_beacon")),
        schema=SCHEMA,
        comment="Digests of decoys' traits, as their establishments published them",
    )
    op.create_index(op.f("ix_exchange_beacon_digest"), "exchange_beacon", ["digest"], schema=SCHEMA)
    op.create_table(
        "exchange_hit",
        sa.Column("hit_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("reporter_id", sa.BigInteger(), nullable=False),
        sa.Column("reference", sa.LargeBinary(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.CheckConstraint("octet_length(reference) = 16", name=op.f("ck_exchange_hit_reference")),
        sa.CheckConstraint(
            "severity IN ('info', 'warning', 'critical')", name=op.f("ck_exchange_hit_severity")
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"],
            [f"{SCHEMA}.exchange_member.member_id"],
            name=op.f("fk_exchange_hit_owner_id"),
        ),
        sa.ForeignKeyConstraint(
            ["reporter_id"],
            [f"{SCHEMA}.exchange_member.member_id"],
            name=op.f("fk_exchange_hit_reporter_id"),
        ),
        sa.PrimaryKeyConstraint("hit_id", name=op.f("pk_exchange_hit")),
        sa.UniqueConstraint(
            "owner_id",
            "reporter_id",
            "reference",
            "seen_at",
            "place",
            name=op.f("uq_exchange_hit_owner_id_reporter_id_reference_seen_at_place"),
        ),
        schema=SCHEMA,
        comment="Where decoys were met, by the establishment that owns them; no identities",
    )
    op.create_index(
        op.f("ix_exchange_hit_owner_id_hit_id"),
        "exchange_hit",
        ["owner_id", "hit_id"],
        schema=SCHEMA,
    )


def downgrade() -> None:
    """Drop the tables, empty ones only."""
    from pgbalise.registry.migrations import refuse_loss

    tables = ("exchange_hit", "exchange_beacon", "exchange_member", "exchange_region")
    refuse_loss(*tables)
    for table in tables:
        op.drop_table(table, schema=SCHEMA)
