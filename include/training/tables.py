"""The tables of the state database for training: uploaded files, waivers and coverage of runs."""

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

from include.state.tables import MOMENT, metadata

training_upload = Table(
    "training_upload",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("lines", BigInteger, nullable=False),
    Column("uploaded_by", Text, nullable=False),
    Column("uploaded_at", MOMENT, nullable=False),
    CheckConstraint("kind IN ('roster', 'courses', 'completions')", name="kind"),
)

# Rows of uploaded files, with the columns of training.yaml's queries. Duplicate people are allowed:
# a run reports them.
training_roster = Table(
    "training_roster",
    metadata,
    Column("upload_id", BigInteger, ForeignKey(training_upload.c.id), nullable=False, index=True),
    Column("person", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("mail", Text),
    Column("department", Text, nullable=False),
    Column("supervisor", Text),
    Column("head", Boolean, nullable=False),
    Column("joined_on", Date, nullable=False),
    Column("left_on", Date),
    Column("leave_from", Date),
    Column("leave_until", Date),
    Column("access", Boolean, nullable=False),
)

training_course = Table(
    "training_course",
    metadata,
    Column("upload_id", BigInteger, ForeignKey(training_upload.c.id), nullable=False, index=True),
    Column("course", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("published_on", Date, nullable=False),
    Column("within_days", Integer, nullable=False),
    Column("repeat_months", Integer),
    Column("due_each_year", Text),
    Column("retake_within_days", Integer),
)

training_completion = Table(
    "training_completion",
    metadata,
    Column("upload_id", BigInteger, ForeignKey(training_upload.c.id), nullable=False, index=True),
    Column("person", Text, nullable=False),
    Column("course", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("completed_on", Date, nullable=False),
    Column("passed", Boolean, nullable=False),
    Index("training_completion_person_idx", "person", "course"),
)

training_waiver = Table(
    "training_waiver",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("person", Text, nullable=False),
    Column("course", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("until", Date, nullable=False),
    Column("granted_by", Text, nullable=False),
    Column("granted_at", MOMENT, nullable=False),
    Column("ended_by", Text),
    Column("ended_at", MOMENT),
    CheckConstraint("num_nulls(ended_by, ended_at) IN (0, 2)", name="ended"),
    Index(
        "training_waiver_open_idx",
        "person",
        "course",
        unique=True,
        postgresql_where=text("ended_at IS NULL"),
    ),
)

training_coverage = Table(  # coverage of each department in each run, for the trend
    "training_coverage",
    metadata,
    Column("dag_id", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("department", Text, primary_key=True),
    Column("day", Date, nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("people", BigInteger, nullable=False),  # without people on leave
    Column("covered", BigInteger, nullable=False),  # people without an overdue course
    Column("overdue", BigInteger, nullable=False),  # overdue courses
    Index("training_coverage_day_idx", "day"),
)
