"""Check values of the erasure ledger's keys: another secret under the same id is noticed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Keys of entries from before are remembered when they are used next."""
    op.create_table(
        "erasure_key",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("check", sa.LargeBinary, nullable=False),
        sa.Column("first_used_at", sa.DateTime(timezone=True), nullable=False),
    )
