"""Database tables of sampling audits: commitments, seeds, samples, workpapers and verdicts."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Identity,
    Index,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from include.state.tables import MOMENT, metadata

audit_commitment = Table(  # sealed before the seed was known
    "audit_commitment",
    metadata,
    Column("dag_id", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("audit", Text, nullable=False),
    Column("sha256", Text, nullable=False),  # of commitment.json
    Column("bundle", Text, nullable=False),
    Column("sums_sha256", Text, nullable=False),
    Column("sealed_at", MOMENT, nullable=False),
)

audit_seed = Table(  # seeds that auditors entered, accepted or refused
    "audit_seed",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("seed", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("published_at", MOMENT),
    Column("entered_by", Text, nullable=False),
    Column("entered_at", MOMENT, nullable=False),
    Column("refused", Text),  # cause; null if accepted
    UniqueConstraint("dag_id", "run_id", "entered_by", "entered_at"),
    Index("audit_seed_once_idx", "seed", unique=True, postgresql_where=text("refused IS NULL")),
    Index(
        "audit_seed_run_idx",
        "dag_id",
        "run_id",
        unique=True,
        postgresql_where=text("refused IS NULL"),
    ),
)

audit_sample = Table(  # one row per quarter and population, so that it is drawn only once
    "audit_sample",
    metadata,
    Column("audit", Text, primary_key=True),
    Column("population", Text, primary_key=True),
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("frame_sha256", Text, nullable=False),
    Column("sample_sha256", Text, nullable=False),
    Column("items", BigInteger, nullable=False),
    Column("drawn_at", MOMENT, nullable=False),
)

audit_workpapers = Table(  # issued workpapers and returned answers
    "audit_workpapers",
    metadata,
    Column("draw_sha256", Text, primary_key=True),
    Column("stage", BigInteger, primary_key=True, autoincrement=False),
    Column("audit", Text, nullable=False),
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("issued_at", MOMENT, nullable=False),
    Column("issued", JSONB, nullable=False),  # the workpapers, commitments and samples
    Column("returned_at", MOMENT),
    Column("returned_by", Text),
    Column("file_sha256", Text),
    Column("returned", JSONB),  # answers and redacted notes, but not the workbook
)

audit_result = Table(  # one per quarter and population
    "audit_result",
    metadata,
    Column("audit", Text, primary_key=True),
    Column("population", Text, primary_key=True),
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("concluded_at", MOMENT, nullable=False),
    Column("accepted", Boolean, nullable=False),
    Column("verdict", JSONB, nullable=False),
)
