"""The SQLAlchemy tables of incidents: register, timelines, counts and lists of affected people.

Database triggers refuse every change of a timeline entry, and of a stored count or list of people.
Each timeline entry contains the digest of the previous entry. In a row of the register, only the
state, the grade and the end time may change.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB

from include.state.tables import MOMENT, metadata

incident = Table(
    "incident",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("number", Text, nullable=False, unique=True),  # INC-2026-0001
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column(
        "what", Text, nullable=False
    ),  # as the triggering person wrote it, without customer values
    Column("noticed_by", Text, nullable=False),
    Column("opened_by", Text, nullable=False),
    Column("opened_at", MOMENT, nullable=False),
    Column("aware_at", MOMENT, nullable=False),  # time limits start here
    Column("began_at", MOMENT),  # start of the leak, if known
    Column("partner", Text),  # number in the register, of an incident at a partner
    Column("selection", JSONB, nullable=False),  # affected records as entered
    Column("fingerprint", Text, nullable=False),  # of the form; detects a form sent twice
    Column("clocks", JSONB, nullable=False),  # rules for time limits at the opening
    Column("kept", JSONB),  # other rules at the opening; NULL before migration 0020
    Column("duplicate_of", BigInteger, ForeignKey("incident.id")),
    Column("state", Text, nullable=False),
    Column("grade", Text),  # last confirmed grade
    Column("ended_at", MOMENT),  # closed or cancelled
    UniqueConstraint("dag_id", "run_id"),
    CheckConstraint("state IN ('open', 'closed', 'cancelled', 'duplicate')", name="state"),
    CheckConstraint("(state = 'duplicate') = (duplicate_of IS NOT NULL)", name="duplicate"),
    CheckConstraint("(state IN ('closed', 'cancelled')) = (ended_at IS NOT NULL)", name="ended"),
    CheckConstraint("began_at <= aware_at", name="aware"),
    Index("incident_fingerprint_idx", "fingerprint"),
)

incident_entry = Table(  # the timeline
    "incident_entry",
    metadata,
    Column("incident_id", BigInteger, ForeignKey(incident.c.id), primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),  # from 1, without gaps
    Column("kind", Text, nullable=False),
    Column("recorded_at", MOMENT, nullable=False),
    Column("happened_at", MOMENT, nullable=False),
    Column("by", Text, nullable=False),  # user id, or the name of the step
    Column("once", Text),  # identifies the entry when a task is repeated
    Column("words", JSONB, nullable=False),  # a translatable message
    Column("data", JSONB, nullable=False),
    Column("previous", Text, nullable=False),  # digest of the previous entry; zeros for the first
    Column("sha256", Text, nullable=False),
    UniqueConstraint("incident_id", "once"),
    CheckConstraint("place > 0", name="place"),
)

incident_scope = Table(  # counts; versions are never changed
    "incident_scope",
    metadata,
    Column("incident_id", BigInteger, ForeignKey(incident.c.id), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),  # from 1
    Column("made_at", MOMENT, nullable=False),
    Column("selection", JSONB, nullable=False),
    Column("counts", JSONB, nullable=False),
)

incident_subject = Table(  # keys of affected people: no name, no address
    "incident_subject",
    metadata,
    Column("incident_id", BigInteger, ForeignKey(incident.c.id), primary_key=True),
    Column("database", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("version", Integer, nullable=False),  # of the scope that found the person first
    Index("incident_subject_version_idx", "incident_id", "version"),
)
