"""The tables of the state database for reviews of partners, their answers and sub-processors.

Database triggers refuse every change of a decided review, of its answers and of its sub-processors.
To correct a decision, a person has to open a new review.
"""

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
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from include.state.tables import MOMENT, metadata

partner_review = Table(
    "partner_review",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("partner", Text, nullable=False),  # number of the partner in the register
    Column("opened_at", MOMENT, nullable=False),
    Column("opened_by", Text, nullable=False),
    Column("reopened_because", Text),  # null for a periodic review
    Column("reopened_at", MOMENT),
    Column("reopened_by", Text),
    Column("issued_at", MOMENT),
    Column("issued_sha256", Text),  # digest of the issued questionnaire
    Column("issued", JSONB),  # the questionnaire with its questions
    Column("returned_at", MOMENT),
    Column("returned_by", Text),
    Column("answered_on", Date),
    Column("file_sha256", Text),
    Column(
        "replaced", JSONB, nullable=False, server_default=text("'[]'")
    ),  # files that later files replaced
    Column("decided_at", MOMENT),
    Column("decided_by", Text),
    Column("passed", Boolean),
    Column("score", Text),  # exact fraction such as 17/20; null without answers
    Column("reason", Text),
    CheckConstraint("num_nulls(decided_at, decided_by, passed, reason) IN (0, 4)", name="decided"),
    CheckConstraint("num_nulls(issued_at, issued_sha256, issued) IN (0, 3)", name="issued"),
    CheckConstraint(
        "num_nulls(returned_at, returned_by, answered_on, file_sha256) IN (0, 4)", name="returned"
    ),
    CheckConstraint(
        "num_nulls(reopened_because, reopened_at, reopened_by) IN (0, 3)", name="reopened"
    ),
    CheckConstraint("NOT passed OR returned_at IS NOT NULL", name="passed"),
    Index(
        "partner_review_open_idx",
        "partner",
        unique=True,
        postgresql_where=text("decided_at IS NULL"),
    ),
    Index("partner_review_partner_idx", "partner", "decided_at"),
)

partner_answer = Table(
    "partner_answer",
    metadata,
    Column("review_id", BigInteger, ForeignKey(partner_review.c.id), primary_key=True),
    Column("question", Text, primary_key=True),
    Column("answer", Text, nullable=False),
    Column("note", Text, nullable=False),
    CheckConstraint("answer IN ('yes', 'no', 'not_applicable')", name="answer"),
)

partner_sub_processor = Table(  # companies that process customer information for a partner
    "partner_sub_processor",
    metadata,
    Column("review_id", BigInteger, ForeignKey(partner_review.c.id), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("country", Text, nullable=False),
    Column("purpose", Text, nullable=False),
)
