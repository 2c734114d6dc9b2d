"""Audits by samples: commitments, the seeds that auditors entered, what was drawn."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

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
