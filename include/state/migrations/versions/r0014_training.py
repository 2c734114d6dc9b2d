"""Training: uploaded files, waivers, how many were trained."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "training_upload",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("lines", sa.BigInteger, nullable=False),
        sa.Column("uploaded_by", sa.Text, nullable=False),
        sa.Column("uploaded_at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "kind IN ('roster', 'courses', 'completions')", name=op.f("training_upload_kind_check")
        ),
    )

    op.create_table(
        "training_roster",
        sa.Column("upload_id", sa.BigInteger, sa.ForeignKey("training_upload.id"), nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("mail", sa.Text),
        sa.Column("department", sa.Text, nullable=False),
        sa.Column("supervisor", sa.Text),
        sa.Column("head", sa.Boolean, nullable=False),
        sa.Column("joined_on", sa.Date, nullable=False),
        sa.Column("left_on", sa.Date),
        sa.Column("leave_from", sa.Date),
        sa.Column("leave_until", sa.Date),
        sa.Column("access", sa.Boolean, nullable=False),
    )
    op.create_index(op.f("training_roster_upload_id_idx"), "training_roster", ["upload_id"])
    op.create_table(
        "training_course",
        sa.Column("upload_id", sa.BigInteger, sa.ForeignKey("training_upload.id"), nullable=False),
        sa.Column("course", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("published_on", sa.Date, nullable=False),
        sa.Column("within_days", sa.Integer, nullable=False),
        sa.Column("repeat_months", sa.Integer),
        sa.Column("due_each_year", sa.Text),
        sa.Column("retake_within_days", sa.Integer),
    )
    op.create_index(op.f("training_course_upload_id_idx"), "training_course", ["upload_id"])
    op.create_table(
        "training_completion",
        sa.Column("upload_id", sa.BigInteger, sa.ForeignKey("training_upload.id"), nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("course", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("completed_on", sa.Date, nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
    )
    op.create_index(op.f("training_completion_upload_id_idx"), "training_completion", ["upload_id"])
    op.create_index("training_completion_person_idx", "training_completion", ["person", "course"])
    op.create_table(
        "training_waiver",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("course", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("until", sa.Date, nullable=False),
        sa.Column("granted_by", sa.Text, nullable=False),
        sa.Column("granted_at", MOMENT, nullable=False),
        sa.Column("ended_by", sa.Text),
        sa.Column("ended_at", MOMENT),
        sa.CheckConstraint(
            "num_nulls(ended_by, ended_at) IN (0, 2)", name=op.f("training_waiver_ended_check")
        ),
    )
    op.create_index(
        "training_waiver_open_idx",
        "training_waiver",
        ["person", "course"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "training_coverage",
        sa.Column("dag_id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("department", sa.Text, primary_key=True),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("people", sa.BigInteger, nullable=False),
        sa.Column("covered", sa.BigInteger, nullable=False),
        sa.Column("overdue", sa.BigInteger, nullable=False),
    )
    op.create_index("training_coverage_day_idx", "training_coverage", ["day"])
