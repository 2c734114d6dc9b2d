"""Letters: a text that many notices share, and addresses that are looked up when they are sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0017"
down_revision = "0016"

DIGEST = "notice_message_digest_idx"


def upgrade() -> None:
    """Messages from before are digests: they have no text, and their index says the same."""
    op.create_table(
        "notice_text",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("content", JSONB, nullable=False),
    )
    op.add_column("notice", sa.Column("text", sa.Text, sa.ForeignKey("notice_text.sha256")))
    op.add_column(
        "notice",
        sa.Column("looked_up", sa.Boolean, nullable=False, server_default=sa.text("false")),
    )
    op.create_check_constraint(
        op.f("notice_letter_check"), "notice", "text IS NULL OR channel = 'mail'"
    )
    op.create_check_constraint(
        op.f("notice_looked_up_check"),
        "notice",
        "NOT looked_up OR text IS NOT NULL AND address = '' AND name = ''",
    )
    op.create_index(
        "notice_key_idx", "notice", ["kind", "key"], postgresql_ops={"key": "text_pattern_ops"}
    )
    op.add_column("notice_message", sa.Column("text", sa.Text, nullable=False, server_default=""))
    op.drop_index(DIGEST, "notice_message")
    op.create_index(
        DIGEST,
        "notice_message",
        ["recipient", "channel", "day", "text"],
        unique=True,
        postgresql_where=sa.text("NOT urgent AND state <> 'dissolved'"),
    )
