"""The tables of the findings register: findings, their owners and their events."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from include.state.tables import MOMENT, metadata

RUN_COLUMNS = (
    *("dag_id", "step", "part", "code", "subject", "aspect", "severity", "clause"),
    *("details", "opened_in", "opened_seq"),
)
"""The columns of a finding that a run reported; null in findings of other kinds."""

finding = Table(
    "finding",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),  # audit, incident, run or event
    Column("reference", Text, nullable=False),  # 2026Q3/accesses/17/approved
    Column("description", JSONB, nullable=False),  # a message of the catalogue
    Column("owner", Text, nullable=False),  # role of roles.yaml
    Column("opened_at", MOMENT, nullable=False),
    Column("due_on", Date, nullable=False),
    Column("closed_at", MOMENT),
    Column("dag_id", Text),  # empty for findings that every workflow reports
    Column("step", Text),
    Column("part", Text),
    Column("code", Text),
    Column("subject", Text),
    Column("aspect", Text),
    Column("severity", Text),
    Column("clause", Text),
    Column("details", JSONB),  # subject_title, action, for_engineers
    Column("opened_in", Text),  # bundle of the run that reported it first
    Column("opened_seq", BigInteger),
    UniqueConstraint("kind", "reference"),
    Index("finding_open_idx", "due_on", postgresql_where=text("closed_at IS NULL")),
    Index(
        "finding_cause_idx",
        *("dag_id", "step", "part", "code", "subject", "aspect"),
        unique=True,
        postgresql_where=text("closed_at IS NULL AND dag_id IS NOT NULL"),
    ),
    CheckConstraint(
        f"num_nulls({', '.join(RUN_COLUMNS)}) ="
        f" CASE WHEN kind IN ('run', 'event') THEN 0 ELSE {len(RUN_COLUMNS)} END",
        name="run",
    ),
    CheckConstraint("severity IN ('attention', 'fail')", name="severity"),
)

EVENT_KINDS = (
    *("answered", "met", "deviates", "reminded"),
    *("closed", "commented", "reassigned", "accepted", "withdrawn"),
)

finding_event = Table(  # append-only
    "finding_event",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("finding_id", BigInteger, ForeignKey(finding.c.id), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("at", MOMENT, nullable=False),
    Column("cause", Text, nullable=False, server_default=""),
    Column("action", Text, nullable=False, server_default=""),
    Column("due_on", Date),
    Column("reason", Text),  # of a comment, a reassignment, an acceptance or its withdrawal
    Column("owner", Text),  # new role
    Column("assignee", Text),  # new responsible person of the role; empty for nobody
    Column("until", Date),  # last day of an accepted risk
    Column("severity", Text),  # severity that was accepted
    Column("bundle", Text),  # evidence of a closed finding
    CheckConstraint(f"kind IN ({', '.join(map(repr, EVENT_KINDS))})", name="kind"),
    CheckConstraint("(kind = 'closed') = (bundle IS NOT NULL)", name="bundle"),
    CheckConstraint("(kind = 'accepted') = (num_nulls(until, severity) = 0)", name="accepted"),
)

finding_report = Table(  # the newest report of an open finding; an index of the bundles
    "finding_report",
    metadata,
    Column("finding_id", BigInteger, primary_key=True, autoincrement=False),
    Column("bundle", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("reported_at", MOMENT, nullable=False),
    Column("severity", Text, nullable=False),
    Column("description", JSONB, nullable=False),
    Column("details", JSONB, nullable=False),
    Column("reports", Integer, nullable=False),  # runs that reported the finding
)

finding_progress = Table(  # how far the register has followed the evidence ledger
    "finding_progress",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("unread", ARRAY(BigInteger), nullable=False, server_default="{}"),
    CheckConstraint("id = 1", name="one_row"),
)
