"""Record when a notice was deferred for the first time.

The age at which a notice is given up counts from there: counted from its queueing, the first
deferral after a holiday gave it up.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    """Add the column; a notice that waits for its next try counts from now."""
    op.add_column("notice", sa.Column("first_deferred_at", sa.DateTime(timezone=True)))
