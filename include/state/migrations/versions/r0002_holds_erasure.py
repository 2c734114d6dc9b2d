"""Legal holds and the erasure ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "legal_hold",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("case_ref", sa.Text, nullable=False),
        sa.Column("placed_at", MOMENT, nullable=False),
        sa.Column("review_on", sa.Date, nullable=False),
        sa.Column("released_at", MOMENT),
        sa.Column("released_by", sa.Text),
        sa.Column("release_reason", sa.Text),
        sa.CheckConstraint(
            "kind IN ('subject', 'waybill', 'class', 'case', 'restore_point', 'database')",
            name=op.f("legal_hold_kind_check"),
        ),
        sa.CheckConstraint(
            "num_nulls(released_at, released_by, release_reason) IN (0, 3)",
            name=op.f("legal_hold_release_check"),
        ),
    )
    op.create_index("legal_hold_kind_value_idx", "legal_hold", ["kind", "value"])
    op.create_table(
        "erasure",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("database", sa.Text, nullable=False),
        sa.Column("collection", sa.Text, nullable=False),
        sa.Column("key_hmac", sa.LargeBinary, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("record_class", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("erased_at", MOMENT, nullable=False),
        sa.UniqueConstraint(
            "database",
            "collection",
            "key_hmac",
            "key_id",
            name="erasure_database_collection_key_hmac_key_id_key",
        ),
        sa.CheckConstraint("action IN ('delete')", name=op.f("erasure_action_check")),
    )
