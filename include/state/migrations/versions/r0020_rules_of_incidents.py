"""Incidents keep the rules that they are measured by, not only their clocks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0020"
down_revision = "0019"

STAY = """
CREATE TRIGGER rules BEFORE UPDATE OF kept ON incident
    FOR EACH ROW WHEN (OLD.kept IS DISTINCT FROM NEW.kept)
    EXECUTE FUNCTION incident_history_stays();
"""


def upgrade() -> None:
    """Those that are there go on with the rules of today: nobody kept theirs."""
    op.add_column("incident", sa.Column("kept", JSONB))
    op.execute(STAY)
