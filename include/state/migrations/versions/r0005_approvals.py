"""Requests for approval, the one decision on each, and answers that did not count."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0005"
down_revision = "0004"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "approval_request",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("requested_by", ARRAY(sa.Text), nullable=False),
        sa.Column("asked_at", MOMENT, nullable=False),
        sa.Column("deadline", MOMENT),
        sa.UniqueConstraint(
            "dag_id",
            "run_id",
            "kind",
            "subject",
            "sha256",
            name=op.f("approval_request_dag_id_run_id_kind_subject_sha256_key"),
        ),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("approval_request_sha256_check")),
    )
    request = sa.ForeignKey("approval_request.id")
    op.create_table(
        "approval_decision",
        sa.Column("request_id", sa.BigInteger, request, primary_key=True),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("decided_by", sa.Text, nullable=False),
        sa.Column("decided_at", MOMENT, nullable=False),
    )
    op.create_table(
        "approval_refusal",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column(
            "request_id", sa.BigInteger, sa.ForeignKey("approval_request.id"), nullable=False
        ),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("decided_by", sa.Text, nullable=False),
        sa.Column("decided_at", MOMENT, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.UniqueConstraint(
            "request_id",
            "decided_by",
            "decided_at",
            name=op.f("approval_refusal_request_id_decided_by_decided_at_key"),
        ),
    )
