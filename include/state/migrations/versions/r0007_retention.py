"""The erasure ledger by batches, requests of data subjects, and what retention runs came to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

MOMENT = sa.DateTime(timezone=True)
ACTIONS = "action IN ('delete', 'mask')"


def upgrade() -> None:
    """Create the tables, and bring the ledger into its new form without losing an entry."""
    _batches()
    _requests()
    _dispositions()


def _batches() -> None:
    op.create_table(
        "erasure_batch",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("database", sa.Text, nullable=False),
        sa.Column("collection", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("record_class", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("erased_at", MOMENT, nullable=False),
        sa.Column("transaction", sa.Text),
        sa.Column("server", sa.Text),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("settled_at", MOMENT),
        sa.CheckConstraint(ACTIONS, name=op.f("erasure_batch_action_check")),
    )
    op.rename_table("erasure", "erasure_of_old")
    for name in ("erasure_action_check", "erasure_pkey"):
        op.execute(f"ALTER TABLE erasure_of_old DROP CONSTRAINT {name}")
    op.create_table(
        "erasure",
        sa.Column("key_hmac", sa.LargeBinary, primary_key=True),
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("action", sa.Text, primary_key=True),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.CheckConstraint(ACTIONS, name=op.f("erasure_action_check")),
        sa.ForeignKeyConstraint(["batch_id"], ["erasure_batch.id"], name="erasure_batch_id_fkey"),
    )
    one_batch = "database, collection, action, record_class, rule, dag_id, run_id, erased_at"
    op.execute(
        f"INSERT INTO erasure_batch ({one_batch}, records, settled_at) "  # noqa: S608 - fixed names
        f"SELECT {one_batch}, count(*), erased_at FROM erasure_of_old GROUP BY {one_batch}"
    )
    op.execute(
        "INSERT INTO erasure (key_hmac, key_id, action, batch_id) "  # noqa: S608 - fixed names
        "SELECT key_hmac, key_id, action, b.id FROM erasure_of_old JOIN erasure_batch b "
        f"USING ({one_batch})"
    )
    op.drop_table("erasure_of_old")
    op.create_index("erasure_batch_id_idx", "erasure", ["batch_id"])
    op.create_index("erasure_batch_database_idx", "erasure_batch", ["database", "collection"])
    op.create_index("erasure_batch_run_idx", "erasure_batch", ["dag_id", "run_id"])
    op.create_index(
        "erasure_batch_open_idx",
        "erasure_batch",
        ["database"],
        postgresql_where=sa.text("settled_at IS NULL"),
    )


def _requests() -> None:
    op.create_table(
        "erasure_request",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("database", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("received_on", sa.Date, nullable=False),
        sa.Column("due_on", sa.Date, nullable=False),
        sa.Column("entered_by", sa.Text, nullable=False),
        sa.Column("entered_at", MOMENT, nullable=False),
        sa.Column("closed_at", MOMENT),
        sa.Column("closed_by", sa.Text),
        sa.Column("closed_because", sa.Text),
        sa.CheckConstraint(
            "num_nulls(closed_at, closed_by, closed_because) IN (0, 3)",
            name=op.f("erasure_request_closed_check"),
        ),
        sa.CheckConstraint("due_on >= received_on", name=op.f("erasure_request_due_check")),
    )
    op.create_index(
        "erasure_request_open_key",
        "erasure_request",
        ["database", "subject"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
    )


def _dispositions() -> None:
    op.create_table(
        "disposition",
        sa.Column("dag_id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("database", sa.Text, primary_key=True),
        sa.Column("record_class", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("planned_at", MOMENT, nullable=False),
        sa.Column("as_of", MOMENT, nullable=False),
        sa.Column("plan_sha256", sa.Text, nullable=False),
        sa.Column("expired", sa.BigInteger, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("planned", sa.BigInteger, nullable=False),
        sa.Column("done", sa.BigInteger),
        sa.CheckConstraint(
            "plan_sha256 ~ '^[0-9a-f]{64}$'", name=op.f("disposition_plan_sha256_check")
        ),
    )
    op.create_index("disposition_class_idx", "disposition", ["database", "record_class", "number"])
