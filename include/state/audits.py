"""The tables of audits by samples: what was committed to, by which seed it was drawn."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Identity, Index, Table, Text, UniqueConstraint, text

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

audit_seed = Table(  # what auditors entered, taken or refused
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
    Column("refused", Text),  # why; null where it was taken
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

audit_sample = Table(  # one per quarter and population: nobody draws again
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
