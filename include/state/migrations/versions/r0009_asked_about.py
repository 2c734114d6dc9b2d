"""Which record classes somebody was asked about: what was approved trips no limit again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Of runs from before nobody knows: they count as if nobody was asked, for less than a day."""
    op.add_column(
        "disposition",
        sa.Column("asked", sa.Boolean, nullable=False, server_default=sa.text("false")),
    )
