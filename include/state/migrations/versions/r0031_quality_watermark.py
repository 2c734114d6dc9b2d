"""The watermark of an incremental quality check is a value of the collection's change column.

Watermarks by transaction numbers cannot be converted, so the next check of each collection is full.
"""

from __future__ import annotations

from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    """Rename the column and clear it."""
    op.alter_column("quality_check", "mark", new_column_name="watermark")
    op.execute("UPDATE quality_check SET watermark = NULL WHERE watermark IS NOT NULL")
