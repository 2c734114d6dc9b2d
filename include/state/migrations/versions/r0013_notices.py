"""What people are to be told, and in which message they were told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "notice_message",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.UniqueConstraint("message_id", name=op.f("notice_message_message_id_key")),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("urgent", sa.Boolean, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("claimed_until", MOMENT),
        sa.Column("next_try_at", MOMENT),
        sa.Column("reply", sa.Text, nullable=False, server_default=""),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("settled_at", MOMENT),
        sa.CheckConstraint(
            "state IN ('sending', 'deferred', 'sent', 'refused', 'in_doubt', 'dissolved')",
            name=op.f("notice_message_state_check"),
        ),
    )
    op.create_index(
        "notice_message_digest_idx",
        "notice_message",
        ["recipient", "channel", "day"],
        unique=True,
        postgresql_where=sa.text("NOT urgent AND state <> 'dissolved'"),
    )
    op.create_index(
        "notice_message_open_idx",
        "notice_message",
        ["id"],
        postgresql_where=sa.text("state IN ('sending', 'deferred')"),
    )
    op.create_table(
        "notice",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False, server_default=""),
        sa.Column("address", sa.Text, nullable=False, server_default=""),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("urgent", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("heading", JSONB, nullable=False),
        sa.Column("line", JSONB, nullable=False),
        sa.Column("due_on", sa.Date),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("queued_at", MOMENT, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="pending"),
        sa.Column("cause", sa.Text, nullable=False, server_default=""),
        sa.Column("message", sa.BigInteger, sa.ForeignKey("notice_message.id")),
        sa.Column("settled_at", MOMENT),
        sa.UniqueConstraint("kind", "key", name=op.f("notice_kind_key_key")),
        sa.CheckConstraint(
            "state IN ('pending', 'sent', 'withdrawn', 'undeliverable', 'in_doubt')",
            name=op.f("notice_state_check"),
        ),
    )
    op.create_index(op.f("notice_message_idx"), "notice", ["message"])
    op.create_index(
        "notice_pending_idx",
        "notice",
        ["recipient", "channel"],
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "notice_optout",
        sa.Column("recipient", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("entered_by", sa.Text, nullable=False),
    )
