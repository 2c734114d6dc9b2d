"""The tables of incidents: what happened, what is affected, and what was done about it when.

The timeline is append-only: triggers of the migrations refuse every change of an entry, and each
has the digest of the one before. They refuse changes of scopes and lists of people, too, which only
ever grow. An incident's own row changes in its state, its grade and its end.
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
    Column("what", Text, nullable=False),  # in the words of who pressed Trigger, value-free
    Column("noticed_by", Text, nullable=False),
    Column("opened_by", Text, nullable=False),
    Column("opened_at", MOMENT, nullable=False),
    Column("aware_at", MOMENT, nullable=False),  # clocks begin here
    Column("began_at", MOMENT),  # of the leak, where known
    Column("partner", Text),  # number in the register, of an incident at a partner
    Column("selection", JSONB, nullable=False),  # what is affected, as it was said
    Column("fingerprint", Text, nullable=False),  # of the form: the same again is the same incident
    Column("clocks", JSONB, nullable=False),  # rules, as they were when it was opened
    Column("kept", JSONB),  # other rules, likewise; none before 0020
    Column("duplicate_of", BigInteger, ForeignKey("incident.id")),
    Column("state", Text, nullable=False),
    Column("grade", Text),  # as a person confirmed it last
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
    Column("once", Text),  # what makes it the same entry when a task is repeated
    Column("words", JSONB, nullable=False),  # a message of the catalogue
    Column("data", JSONB, nullable=False),
    Column("previous", Text, nullable=False),  # sha256 of the entry before; zeros for the first
    Column("sha256", Text, nullable=False),
    UniqueConstraint("incident_id", "once"),
    CheckConstraint("place > 0", name="place"),
)

incident_scope = Table(  # what was counted; each version stands
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
    Column("version", Integer, nullable=False),  # of the scope that found them first
    Index("incident_subject_version_idx", "incident_id", "version"),
)
