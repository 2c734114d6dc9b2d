"""The order in which checks began and were kept; a clock may have been set back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Number what is kept of checks."""
    op.add_column(
        "quality_check",
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
    )
