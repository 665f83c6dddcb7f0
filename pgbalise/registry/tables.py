"""What the registry holds, as SQLAlchemy tables; migrations/ makes them, these only describe.

Change both together: a test compares them. Times are timestamptz, digests and keys bytea.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "balise_registry"

NAMES = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
}

metadata = MetaData(schema=SCHEMA, naming_convention=NAMES)

database = Table(
    "database",
    metadata,
    Column("database_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("system_identifier", Text, nullable=False),
    Column("first_seen", DateTime(timezone=True), nullable=False),
    UniqueConstraint("name", "system_identifier"),
    comment="The patient databases known: name within the server that has this identifier",
)

recipient = Table(
    "recipient",
    metadata,
    Column("recipient_id", BigInteger, Identity(always=True), primary_key=True),
    Column("database_id", ForeignKey(database.c.database_id), nullable=False),
    Column("role_name", Text, nullable=False),
    Column("class", Text, nullable=False),
    Column("enrolled_at", DateTime(timezone=True), nullable=False),
    Column("revoked_at", DateTime(timezone=True)),
    UniqueConstraint("database_id", "role_name"),
    CheckConstraint("class IN ('secondary', 'care')", name="class"),
    comment="Login roles ever enrolled, with the times that their database gave",
)

commitment = Table(
    "commitment",
    metadata,
    Column("recipient_id", ForeignKey(recipient.c.recipient_id), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("commitment", LargeBinary, nullable=False),
    Column("made_at", DateTime(timezone=True), nullable=False),
    Column("key_fingerprint", Text),
    CheckConstraint("octet_length(commitment) = 32", name="commitment"),
    comment="Digests of codewords; made_at is when the registry first recorded one",
)

entry = Table(
    "entry",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", JSONB, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    # taken from the body, which the hash covers: two writers cannot record one event twice
    Column("origin", Text, Computed("body ->> 'origin'", persisted=True)),
    UniqueConstraint("previous"),
    UniqueConstraint("hash"),
    UniqueConstraint("origin"),
    CheckConstraint("sequence >= 1", name="sequence"),
    CheckConstraint("octet_length(previous) = 32", name="previous"),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
    comment="The ledger: each entry's hash covers the one before",
)
Index(
    "ix_entry_body",
    entry.c.body,
    postgresql_using="gin",
    postgresql_ops={"body": "jsonb_path_ops"},
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("sequence", ForeignKey(entry.c.sequence), primary_key=True),
    Column("public_key", LargeBinary, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    Column("signed_at", DateTime(timezone=True), nullable=False),
    Column("signature", LargeBinary, nullable=False),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
    CheckConstraint("octet_length(public_key) = 32", name="public_key"),
    CheckConstraint("octet_length(signature) = 64", name="signature"),
    comment="Ed25519 signatures of the ledger up to an entry",
)

decoy = Table(
    "decoy",
    metadata,
    Column("decoy_id", BigInteger, Identity(always=True), primary_key=True),
    Column("recipient_id", ForeignKey(recipient.c.recipient_id), nullable=False),
    Column("schema_name", Text, nullable=False),
    Column("relation_name", Text, nullable=False),
    Column("key", JSONB, nullable=False),
    Column("identity_digest", LargeBinary, nullable=False),
    Column("issued_at", DateTime(timezone=True), nullable=False),
    Column("retired_at", DateTime(timezone=True)),
    UniqueConstraint("recipient_id", "schema_name", "relation_name", "key"),
    CheckConstraint("octet_length(identity_digest) = 32", name="identity_digest"),
    CheckConstraint("retired_at >= issued_at", name="retired_at"),
    Index(None, "identity_digest"),
    comment="Rows about patients who do not exist, by the recipient they were issued to",
)

alert = Table(
    "alert",
    metadata,
    Column("alert_id", BigInteger, Identity(always=True), primary_key=True),
    Column("raised_at", DateTime(timezone=True), nullable=False),
    Column("severity", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("recipient_id", ForeignKey(recipient.c.recipient_id)),
    Column("body", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("delivered_at", DateTime(timezone=True)),
    CheckConstraint("severity IN ('info', 'warning', 'critical')", name="severity"),
    Index("ix_alert_undelivered", "raised_at", postgresql_where=text("delivered_at IS NULL")),
    comment="What the auditor is to be told, and when that was done",
)

investigation = Table(
    "investigation",
    metadata,
    Column("investigation_id", BigInteger, Identity(always=True), primary_key=True),
    Column("title", Text, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    Column("closed_at", DateTime(timezone=True)),
    Column("conclusion", Text),
    Column("alpha", Double, nullable=False),
    CheckConstraint("closed_at >= opened_at", name="closed_at"),
    CheckConstraint("closed_at IS NULL OR conclusion IS NOT NULL", name="conclusion"),
    CheckConstraint("alpha > 0 AND alpha < 1", name="alpha"),
    comment="Cases: leaks found, traces run, what was concluded; alpha is for all looks together",
)

leak = Table(
    "leak",
    metadata,
    Column("leak_id", BigInteger, Identity(always=True), primary_key=True),
    Column("investigation_id", ForeignKey(investigation.c.investigation_id), nullable=False),
    Column("file_name", Text, nullable=False),
    Column("file_digest", LargeBinary, nullable=False),
    Column("found_at", DateTime(timezone=True), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("added_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("investigation_id", "file_digest"),
    CheckConstraint("octet_length(file_digest) = 32", name="file_digest"),
    CheckConstraint("size >= 0", name="size"),
    comment="Files of a case: their SHA-256, not their content",
)

trace = Table(
    "trace",
    metadata,
    Column("trace_id", BigInteger, Identity(always=True), primary_key=True),
    Column("investigation_id", ForeignKey(investigation.c.investigation_id), nullable=False),
    Column("database_id", ForeignKey(database.c.database_id), nullable=False),
    Column("run_at", DateTime(timezone=True), nullable=False),
    Column("relation", Text),
    Column("verdict", JSONB),
    Column("look", Integer, nullable=False),
    Column("alpha", Double, nullable=False),
    Column("repeats", ForeignKey("balise_registry.trace.trace_id")),
    Column("inputs", LargeBinary, nullable=False),
    Column("parameters", JSONB, nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Column("report_digest", LargeBinary),
    CheckConstraint("look >= 1", name="look"),
    CheckConstraint("alpha > 0 AND alpha < 1", name="alpha"),
    CheckConstraint("octet_length(inputs) = 32", name="inputs"),
    CheckConstraint("octet_length(report_digest) = 32", name="report_digest"),
    CheckConstraint("(ended_at IS NULL) = (verdict IS NULL)", name="ended_at"),
    Index(None, "investigation_id"),
    Index(
        "uq_trace_look",
        "investigation_id",
        "look",
        unique=True,
        postgresql_where=text("repeats IS NULL"),
    ),
    comment="Looks of a case, each written before the trace runs; the verdict comes after",
)

exchange_region = Table(
    "exchange_region",
    metadata,
    Column("region_id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("padding", LargeBinary, nullable=False),
    Column("bits", Integer, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("region_id = 1", name="one"),
    CheckConstraint("octet_length(salt) = 16", name="salt"),
    CheckConstraint("octet_length(padding) = 32", name="padding"),
    CheckConstraint("bits BETWEEN 4 AND 16", name="bits"),
    comment="The region whose exchange this registry keeps; bits is how long prefixes are now",
)

exchange_member = Table(
    "exchange_member",
    metadata,
    Column("member_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("token_digest", LargeBinary, nullable=False),
    Column("token_at", DateTime(timezone=True), nullable=False),
    Column("added_at", DateTime(timezone=True), nullable=False),
    Column("revoked_at", DateTime(timezone=True)),
    UniqueConstraint("name"),
    UniqueConstraint("token_digest"),
    CheckConstraint("octet_length(token_digest) = 32", name="token_digest"),
    CheckConstraint("revoked_at >= added_at", name="revoked_at"),
    comment="Establishments of the exchange; of a token only its SHA-256 is kept",
)

exchange_beacon = Table(
    "exchange_beacon",
    metadata,
    Column("member_id", ForeignKey(exchange_member.c.member_id), primary_key=True),
    Column("reference", LargeBinary, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("seal", LargeBinary, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("published_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("octet_length(reference) = 16", name="reference"),
    CheckConstraint("octet_length(digest) = 32", name="digest"),
    CheckConstraint("octet_length(seal) = 64", name="seal"),
    Index(None, "digest"),
    comment="Digests of decoys' traits, as their establishments published them",
)

exchange_hit = Table(
    "exchange_hit",
    metadata,
    Column("hit_id", BigInteger, Identity(always=True), primary_key=True),
    Column("owner_id", ForeignKey(exchange_member.c.member_id), nullable=False),
    Column("reporter_id", ForeignKey(exchange_member.c.member_id), nullable=False),
    Column("reference", LargeBinary, nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("place", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("note", Text, nullable=False),
    UniqueConstraint("owner_id", "reporter_id", "reference", "seen_at", "place"),
    CheckConstraint("octet_length(reference) = 16", name="reference"),
    CheckConstraint("severity IN ('info', 'warning', 'critical')", name="severity"),
    Index(None, "owner_id", "hit_id"),
    comment="Where decoys were met, by the establishment that owns them; no identities",
)
