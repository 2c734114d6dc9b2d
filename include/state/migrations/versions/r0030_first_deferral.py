"""Record when a notice was deferred for the first time.

The time after which a notice is given up counts from its first deferral. Counted from its queueing,
the first deferral after a holiday was already too late.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    """Add the column; for a notice that waits for its next try, the time starts now."""
    op.add_column("notice", sa.Column("first_deferred_at", sa.DateTime(timezone=True)))
