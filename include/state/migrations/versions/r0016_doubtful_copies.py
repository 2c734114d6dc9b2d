"""How often a message that may have arrived was sent again; an index for what was told since."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Of messages from before, the copies are not known: they count as none."""
    op.add_column(
        "notice_message", sa.Column("copies", sa.Integer, nullable=False, server_default="0")
    )
    op.create_index(op.f("notice_settled_at_idx"), "notice", ["settled_at"])
