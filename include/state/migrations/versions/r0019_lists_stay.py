"""The frozen list of affected people is history as the timeline is: it grows, and nothing else."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"

# A person stands with the count that found them first, so nothing has to change a row either.
STAYS = """
CREATE TRIGGER history BEFORE UPDATE OR DELETE ON incident_subject
    FOR EACH ROW EXECUTE FUNCTION incident_history_stays();
CREATE TRIGGER emptied BEFORE TRUNCATE ON incident_subject
    FOR EACH STATEMENT EXECUTE FUNCTION incidents_are_not_emptied();
"""


def upgrade() -> None:
    """Lock the lists."""
    op.execute(STAYS)
