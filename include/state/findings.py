"""The tables of the findings register: findings, their owners and their events."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from include.state.tables import MOMENT, metadata

finding = Table(
    "finding",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),  # audit
    Column("reference", Text, nullable=False),  # 2026Q3/accesses/17/approved
    Column("description", JSONB, nullable=False),  # a message of the catalogue
    Column("owner", Text, nullable=False),  # role of roles.yaml
    Column("opened_at", MOMENT, nullable=False),
    Column("due_on", Date, nullable=False),
    Column("closed_at", MOMENT),
    UniqueConstraint("kind", "reference"),
    Index("finding_open_idx", "due_on", postgresql_where=text("closed_at IS NULL")),
)

finding_event = Table(  # append-only
    "finding_event",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("finding_id", BigInteger, ForeignKey(finding.c.id), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("cause", Text, nullable=False, server_default=""),
    Column("action", Text, nullable=False, server_default=""),
    Column("due_on", Date),
    CheckConstraint(
        "kind IN ('answered', 'met', 'deviates', 'reminded')",
        name="kind",
    ),
)
