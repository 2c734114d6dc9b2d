"""Quality checks of records, and the quarantine register."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("database", sa.Text, nullable=False),
        sa.Column("collection", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("part", sa.Text),
        sa.Column("found_at", MOMENT, nullable=False),
        sa.Column("found_dag_id", sa.Text, nullable=False),
        sa.Column("found_run_id", sa.Text, nullable=False),
        sa.Column("resolved_at", MOMENT),
        sa.Column("resolved_dag_id", sa.Text),
        sa.Column("resolved_run_id", sa.Text),
        sa.CheckConstraint(
            "num_nulls(resolved_at, resolved_dag_id, resolved_run_id) IN (0, 3)",
            name=op.f("quarantine_resolved_check"),
        ),
    )
    op.create_index(
        "quarantine_open_key",
        "quarantine",
        ["database", "collection", "rule", "key"],
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "quality_check",
        sa.Column("dag_id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("database", sa.Text, primary_key=True),
        sa.Column("collection", sa.Text, primary_key=True),
        sa.Column("rule", sa.Text, primary_key=True),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("checked_at", MOMENT, nullable=False),
        sa.Column("whole", sa.Boolean, nullable=False),
        sa.Column("rows", sa.BigInteger),
        sa.Column("broken", sa.BigInteger),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("mark", sa.Text),
        sa.CheckConstraint(
            "outcome IN ('pass', 'attention', 'fail')", name=op.f("quality_check_outcome_check")
        ),
    )
    op.create_index(
        "quality_check_collection_idx", "quality_check", ["database", "collection", "checked_at"]
    )
    op.create_index("quality_check_database_idx", "quality_check", ["database", "checked_at"])
