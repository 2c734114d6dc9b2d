"""Requests that an earlier version found records of, without keeping the keys of these.

Such a version may have erased the record through which another one is found. Only a person can
tell whether that one is left.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Add the column; set it for open requests that have `found_at`."""
    op.add_column(
        "erasure_request",
        sa.Column("found_earlier", sa.Boolean, nullable=False, server_default="false"),
    )
    # The trigger lets nothing change the column afterwards.
    op.execute("ALTER TABLE erasure_request DISABLE TRIGGER closed")
    op.execute(
        "UPDATE erasure_request SET found_earlier = true"
        " WHERE closed_at IS NULL AND found_at IS NOT NULL"
    )
    op.execute("ALTER TABLE erasure_request ENABLE TRIGGER closed")
