"""The tables of notifications: notices, messages, letter texts and opt-outs."""

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

notice_text = Table(  # what a letter says that many get
    "notice_text",
    metadata,
    Column("sha256", Text, primary_key=True),  # of the content, as include.notify.texts writes it
    Column("content", JSONB, nullable=False),  # a LetterText; no customer's value
)

notice_message = Table(  # one message of one channel to one recipient; a digest, or a letter
    "notice_message",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("message_id", Text, nullable=False, unique=True),  # Message-ID without the brackets
    Column("recipient", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("day", Date, nullable=False),  # in the pack's timezone
    Column("urgent", Boolean, nullable=False),  # stands beside the digest of the day
    Column("text", Text, nullable=False, server_default=""),  # of a letter; a digest has none
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("copies", Integer, nullable=False, server_default="0"),  # sent while it was in doubt
    Column("claimed_until", MOMENT),  # by whoever sends it now
    Column("next_try_at", MOMENT),  # of one that waits
    Column("reply", Text, nullable=False, server_default=""),  # code of the last reply, no words
    Column("created_at", MOMENT, nullable=False),
    Column("settled_at", MOMENT),
    CheckConstraint(
        "state IN ('sending', 'deferred', 'sent', 'refused', 'in_doubt', 'dissolved')",
        name="state",
    ),
    Index(
        "notice_message_digest_idx",
        "recipient",
        "channel",
        "day",
        "text",
        unique=True,
        postgresql_where=text("NOT urgent AND state <> 'dissolved'"),
    ),
    Index(
        "notice_message_open_idx",
        "id",
        postgresql_where=text("state IN ('sending', 'deferred')"),
    ),
)

notice = Table(  # one thing that one recipient is to be told, once
    "notice",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),  # training.reminder
    Column("key", Text, nullable=False),  # what makes it the same one, within its kind
    # staff number, role:compliance, partner:3, subject:courier/123
    Column("recipient", Text, nullable=False),
    Column("name", Text, nullable=False, server_default=""),  # for the greeting
    Column("address", Text, nullable=False, server_default=""),
    # A customer's address never stands here: its workflow says it when the letter is sent.
    Column("looked_up", Boolean, nullable=False, server_default=text("false")),
    Column("channel", Text, nullable=False),  # mail, robot
    Column("urgent", Boolean, nullable=False, server_default=text("false")),
    Column("heading", JSONB, nullable=False),  # a message of the catalogue
    Column("line", JSONB, nullable=False),  # likewise
    Column("text", Text, ForeignKey(notice_text.c.sha256)),  # makes it a letter of its own
    Column("due_on", Date),
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("queued_at", MOMENT, nullable=False),
    Column("first_deferred_at", MOMENT),  # a server put it off, or could not be reached
    Column("state", Text, nullable=False, server_default="pending"),
    Column("cause", Text, nullable=False, server_default=""),  # of withdrawn and undeliverable ones
    Column("message", BigInteger, ForeignKey(notice_message.c.id), index=True),
    Column("settled_at", MOMENT, index=True),
    UniqueConstraint("kind", "key"),
    Index(  # for all that begin alike, whatever the database's collation is
        "notice_key_idx", "kind", "key", postgresql_ops={"key": "text_pattern_ops"}
    ),
    CheckConstraint("text IS NULL OR channel = 'mail'", name="letter"),
    CheckConstraint(
        "NOT looked_up OR text IS NOT NULL AND address = '' AND name = ''", name="looked_up"
    ),
    CheckConstraint(
        "state IN ('pending', 'sent', 'withdrawn', 'undeliverable', 'in_doubt')", name="state"
    ),
    Index(
        "notice_pending_idx",
        "recipient",
        "channel",
        postgresql_where=text("state = 'pending'"),
    ),
)

notice_optout = Table(  # what a recipient does not want any more, where the policy lets them
    "notice_optout",
    metadata,
    Column("recipient", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("at", MOMENT, nullable=False),
    Column("entered_by", Text, nullable=False),
)
