"""The ledger is read page by page, workflow by workflow, the newest first: an index for that."""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Any page costs the same, however far back; outcome and day are looked at without the row."""
    op.create_index(
        "evidence_ledger_pages_idx",
        "evidence_ledger",
        ["dag_id", "seq"],
        postgresql_include=["outcome", "sealed_at"],
    )
