"""The tables of the state database for accesses that differ from their approvals.

The register has keys of accesses and approvals, staff numbers and departments. It has no values of
customers, and no key of a customer.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
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

access_violation = Table(
    "access_violation",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("database", Text, nullable=False),  # name in the data map
    Column("access", Text, nullable=False),  # key of the access in the log
    Column("kind", Text, nullable=False),  # include.disclosure.accesses.rules.ViolationKind
    Column("detail", Text, nullable=False),
    Column("person", Text),  # staff number; null: the log names nobody
    Column("department", Text),
    Column("approval", Text),  # key that the access names
    Column("accessed_at", MOMENT),  # null: the log has no moment
    Column("first_seen_at", MOMENT, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'open'")),
    Column("opened_at", MOMENT, nullable=False),  # later than first_seen_at if opened again
    Column("opened_dag_id", Text, nullable=False),
    Column("opened_run_id", Text, nullable=False),
    Column("closed_at", MOMENT),
    Column("closed_because", Text),
    UniqueConstraint("database", "access", "kind"),
    CheckConstraint(
        "kind IN ('without_approval', 'approval_by_requester', 'outside_period', "
        "'outside_purpose', 'outside_fields', 'outside_records')",
        name="kind",
    ),
    CheckConstraint("state IN ('open', 'closed')", name="state"),
    CheckConstraint(
        "closed_because IN ('covered', 'access_deleted', 'not_compared', 'handled')",
        name="closed_because",
    ),
    CheckConstraint("num_nulls(closed_at, closed_because) IN (0, 2)", name="closed"),
    CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name="closed_state"),
    Index("access_violation_open_idx", "database", "kind", postgresql_where=text("state = 'open'")),
    Index("access_violation_opened_run_id_idx", "opened_run_id"),
    Index(
        "access_violation_closed_at_idx",
        "closed_at",
        postgresql_where=text("state = 'closed'"),
    ),
)

access_comparison = Table(  # the newest comparison of each database
    "access_comparison",
    metadata,
    Column("database", Text, primary_key=True),
    Column("definition", Text, nullable=False),  # digest of the queries and of the comparison
    Column("compared_at", MOMENT, nullable=False),
    Column("compared_until", MOMENT),  # the newest compared access; null: the log was empty
    Column("full_at", MOMENT, nullable=False),
    Column("full_dag_id", Text, nullable=False),
    Column("full_run_id", Text, nullable=False),
    Column("full_figures", JSONB, nullable=False),  # include.disclosure.accesses.register
)
