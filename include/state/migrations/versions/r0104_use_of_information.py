"""Store requests for customer information, their grants, and the openings of extracts."""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import op

revision = "0104"
down_revision = "0103"


def upgrade() -> None:
    """Create the tables and the triggers that refuse changes."""
    connection = op.get_bind().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    connection.execute(Path(__file__).with_suffix(".sql").read_bytes())
