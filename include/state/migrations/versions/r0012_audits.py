"""Audits by samples, from commitments to results; the register of findings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "audit_commitment",
        sa.Column("dag_id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("audit", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("bundle", sa.Text, nullable=False),
        sa.Column("sums_sha256", sa.Text, nullable=False),
        sa.Column("sealed_at", MOMENT, nullable=False),
    )
    op.create_table(
        "audit_seed",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("seed", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("published_at", MOMENT),
        sa.Column("entered_by", sa.Text, nullable=False),
        sa.Column("entered_at", MOMENT, nullable=False),
        sa.Column("refused", sa.Text),
        sa.UniqueConstraint(
            "dag_id",
            "run_id",
            "entered_by",
            "entered_at",
            name=op.f("audit_seed_dag_id_run_id_entered_by_entered_at_key"),
        ),
    )
    taken = sa.text("refused IS NULL")
    op.create_index(
        "audit_seed_once_idx", "audit_seed", ["seed"], unique=True, postgresql_where=taken
    )
    op.create_index(
        "audit_seed_run_idx",
        "audit_seed",
        ["dag_id", "run_id"],
        unique=True,
        postgresql_where=taken,
    )
    op.create_table(
        "audit_sample",
        sa.Column("audit", sa.Text, primary_key=True),
        sa.Column("population", sa.Text, primary_key=True),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("frame_sha256", sa.Text, nullable=False),
        sa.Column("sample_sha256", sa.Text, nullable=False),
        sa.Column("items", sa.BigInteger, nullable=False),
        sa.Column("drawn_at", MOMENT, nullable=False),
    )
    op.create_table(
        "audit_workpapers",
        sa.Column("draw_sha256", sa.Text, primary_key=True),
        sa.Column("stage", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("audit", sa.Text, nullable=False),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("issued_at", MOMENT, nullable=False),
        sa.Column("issued", JSONB, nullable=False),
        sa.Column("returned_at", MOMENT),
        sa.Column("returned_by", sa.Text),
        sa.Column("file_sha256", sa.Text),
        sa.Column("returned", JSONB),
    )
    op.create_table(
        "audit_result",
        sa.Column("audit", sa.Text, primary_key=True),
        sa.Column("population", sa.Text, primary_key=True),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("concluded_at", MOMENT, nullable=False),
        sa.Column("accepted", sa.Boolean, nullable=False),
        sa.Column("verdict", JSONB, nullable=False),
    )
    _findings()


def _findings() -> None:
    op.create_table(
        "finding",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("what", JSONB, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.Column("due_on", sa.Date, nullable=False),
        sa.Column("closed_at", MOMENT),
        sa.UniqueConstraint("kind", "reference", name=op.f("finding_kind_reference_key")),
    )
    op.create_index(
        "finding_open_idx", "finding", ["due_on"], postgresql_where=sa.text("closed_at IS NULL")
    )
    op.create_table(
        "finding_event",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("finding_id", sa.BigInteger, sa.ForeignKey("finding.id"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("cause", sa.Text, nullable=False, server_default=""),
        sa.Column("action", sa.Text, nullable=False, server_default=""),
        sa.Column("due_on", sa.Date),
        sa.CheckConstraint(
            "kind IN ('answered', 'met', 'deviates', 'reminded')",
            name=op.f("finding_event_kind_check"),
        ),
    )
    op.create_index(op.f("finding_event_finding_id_idx"), "finding_event", ["finding_id"])
