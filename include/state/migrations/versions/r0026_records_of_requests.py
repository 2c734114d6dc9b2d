"""Records that a run found for a data subject's request, by key, until the request is closed.

A record may be found through another one that the same run erases. Its key has to outlive that.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Add the table; of requests from before, the next plan finds what can still be found."""
    op.create_table(
        "erasure_request_record",
        sa.Column("request_id", sa.BigInteger, sa.ForeignKey("erasure_request.id")),
        sa.Column("record_class", sa.Text),
        sa.Column("key", sa.Text),
        sa.Column("found_by", sa.Text),
        sa.Column("collection", sa.Text, nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "record_class", "key", "found_by"),
    )
    op.add_column("erasure_request", sa.Column("oversized_at", sa.DateTime(timezone=True)))
