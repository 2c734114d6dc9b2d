"""Evidence: the ledger, its checkpoints, and what steps leave for the seal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "evidence_ledger",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("bundle", sa.Text, nullable=False),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("controls", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("sealed_at", MOMENT, nullable=False),
        sa.Column("sums_sha256", sa.Text, nullable=False),
        sa.Column("previous_sums_sha256", sa.Text, nullable=False),
        sa.Column("key_fingerprint", sa.Text, nullable=False),
        sa.Column("row_signature", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("bundle", name="evidence_ledger_bundle_key"),
        sa.UniqueConstraint("dag_id", "run_id", name="evidence_ledger_dag_id_run_id_key"),
        sa.CheckConstraint(
            "outcome IN ('pass', 'attention', 'fail')", name=op.f("evidence_ledger_outcome_check")
        ),
    )
    op.create_index(
        "evidence_ledger_controls_idx", "evidence_ledger", ["controls"], postgresql_using="gin"
    )
    op.create_table(
        "evidence_intent",
        sa.Column("bundle", sa.Text, primary_key=True),
        sa.Column("begun_at", MOMENT, nullable=False),
    )
    op.create_table(
        "evidence_checkpoint",
        sa.Column("up_to_seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("bundle", sa.Text, nullable=False),
        sa.Column("sums_sha256", sa.Text, nullable=False),
        sa.Column("signed_at", MOMENT, nullable=False),
        sa.Column("key_fingerprint", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "run_step",
        sa.Column("dag_id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("step", sa.Text, primary_key=True),
        sa.Column("part", sa.Text, primary_key=True),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.Column("record", JSONB, nullable=False),
    )
    op.create_table(
        "run_artifact",
        sa.Column("dag_id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
