"""Restore drills, and the scratch databases that they make."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "drill",
        sa.Column("dag_id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("database", sa.Text, primary_key=True),
        sa.Column("restore_point", sa.Text, nullable=False),
        sa.Column("drilled_at", MOMENT, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("restore_seconds", sa.Float),
        sa.Column("rpo_seconds", sa.Float),
        sa.CheckConstraint(
            "outcome IN ('pass', 'attention', 'fail')", name=op.f("drill_outcome_check")
        ),
    )
    op.create_index("drill_database_drilled_at_idx", "drill", ["database", "drilled_at"])
    op.create_table(
        "scratch_database",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("dropped_at", MOMENT),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
    )
