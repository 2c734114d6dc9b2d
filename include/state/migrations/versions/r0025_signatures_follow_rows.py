"""A seal keeps its signature with its ledger row, so that the row alone decides about the chain."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Add the signature of a bundle whose ledger row is committed; NULL before that."""
    op.add_column("evidence_intent", sa.Column("signature", sa.LargeBinary))
