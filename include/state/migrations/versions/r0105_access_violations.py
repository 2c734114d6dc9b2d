"""Store accesses that differ from their approvals, and the newest comparison of each database."""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import op

revision = "0105"
down_revision = "0104"


def upgrade() -> None:
    """Create the tables and the triggers that refuse the removal of violations."""
    connection = op.get_bind().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    connection.execute(Path(__file__).with_suffix(".sql").read_bytes())
