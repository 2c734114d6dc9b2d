"""Restore points that runs have begun to publish or to remove, and how that ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create an empty ledger: left-overs of earlier runs are reported, and not cleared."""
    op.create_table(
        "restore_point_begun",
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("store", sa.Text, nullable=False),
        sa.Column("database", sa.Text, nullable=False),
        sa.Column("point", sa.Text, nullable=False),
        sa.Column("work", sa.Text, nullable=False),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("begun_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.Column("ending", sa.Text),
        sa.CheckConstraint(
            "work IN ('publish', 'remove')", name=op.f("restore_point_begun_work_check")
        ),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (ending IS NULL)", name=op.f("restore_point_begun_ending_check")
        ),
    )
    op.create_index(
        "restore_point_begun_unfinished_idx",
        "restore_point_begun",
        ["database", "store"],
        postgresql_where=sa.text("ended_at IS NULL"),
    )
