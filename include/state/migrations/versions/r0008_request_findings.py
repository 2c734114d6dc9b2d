"""What runs saw of a data subject's request: that records were there, and that law keeps them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add two moments; of requests from before nothing is known."""
    for name in ("found_at", "restricted_at"):
        op.add_column("erasure_request", sa.Column(name, sa.DateTime(timezone=True)))
