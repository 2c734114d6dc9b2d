"""The tables of the state database for notifications, messages, texts of notices, and opt-outs."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from include.state.tables import MOMENT, metadata

notification_text = Table(  # the text of a notice to many recipients
    "notification_text",
    metadata,
    Column("sha256", Text, primary_key=True),  # of the content, as include.notify.texts writes it
    Column("content", JSONB, nullable=False),  # a NoticeText; no customer's value
)

notification_message = Table(  # a message of a channel to a recipient: a digest or a notice
    "notification_message",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("message_id", Text, nullable=False, unique=True),  # Message-ID without the brackets
    Column("recipient", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("day", Date, nullable=False),  # in the pack's timezone
    Column("urgent", Boolean, nullable=False),  # sent apart from the digest of the day
    Column(
        "text", Text, nullable=False, server_default=""
    ),  # SHA-256 of a notice's text; empty for a digest of the day
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("copies", Integer, nullable=False, server_default="0"),  # copies sent while in doubt
    Column("claimed_until", MOMENT),  # end of the lease
    Column("next_try_at", MOMENT),  # of a deferred message
    Column("reply", Text, nullable=False, server_default=""),  # codes of the last reply
    Column("created_at", MOMENT, nullable=False),
    Column("settled_at", MOMENT),
    CheckConstraint(
        "state IN ('sending', 'deferred', 'sent', 'refused', 'in_doubt', 'dissolved')",
        name="state",
    ),
    Index(
        "notification_message_digest_idx",
        "recipient",
        "channel",
        "day",
        "text",
        unique=True,
        postgresql_where=text("NOT urgent AND state <> 'dissolved'"),
    ),
    Index(
        "notification_message_open_idx",
        "id",
        postgresql_where=text("state IN ('sending', 'deferred')"),
    ),
)

notification = Table(  # a notification for a recipient, sent once
    "notification",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),  # training.reminder
    Column("key", Text, nullable=False),  # unique within its kind
    # staff number, role:compliance, partner:3, subject:courier/123
    Column("recipient", Text, nullable=False),
    Column("name", Text, nullable=False, server_default=""),  # for the greeting
    Column("address", Text, nullable=False, server_default=""),
    # Empty for a customer: the workflow returns the address when the notice is sent.
    Column("looked_up", Boolean, nullable=False, server_default=text("false")),
    Column("channel", Text, nullable=False),  # mail, robot
    Column("urgent", Boolean, nullable=False, server_default=text("false")),
    Column("heading", JSONB, nullable=False),  # a message of the catalogue
    Column("line", JSONB, nullable=False),  # a message of the catalogue
    Column(
        "text", Text, ForeignKey(notification_text.c.sha256)
    ),  # set for a notice to data subjects
    Column("due_on", Date),
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("queued_at", MOMENT, nullable=False),
    Column("first_deferred_at", MOMENT),  # first deferral by a server, or first failure to reach it
    Column("state", Text, nullable=False, server_default="pending"),
    Column(
        "cause", Text, nullable=False, server_default=""
    ),  # of withdrawn and undeliverable notifications
    Column("message", BigInteger, ForeignKey(notification_message.c.id), index=True),
    Column("settled_at", MOMENT, index=True),
    UniqueConstraint("kind", "key"),
    Index(  # for prefixes, independent of the database's collation
        "notification_key_idx", "kind", "key", postgresql_ops={"key": "text_pattern_ops"}
    ),
    CheckConstraint("text IS NULL OR channel = 'mail'", name="letter"),
    CheckConstraint(
        "NOT looked_up OR text IS NOT NULL AND address = '' AND name = ''", name="looked_up"
    ),
    CheckConstraint(
        "state IN ('pending', 'sent', 'withdrawn', 'undeliverable', 'in_doubt')", name="state"
    ),
    Index(
        "notification_pending_idx",
        "recipient",
        "channel",
        postgresql_where=text("state = 'pending'"),
    ),
)

notification_optout = Table(  # kinds of notification that a recipient opted out of
    "notification_optout",
    metadata,
    Column("recipient", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("at", MOMENT, nullable=False),
    Column("entered_by", Text, nullable=False),
)
