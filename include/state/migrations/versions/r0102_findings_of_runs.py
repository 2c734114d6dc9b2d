"""Enter the findings of runs in the findings register, and guard how they are closed."""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import op

revision = "0102"
down_revision = "0101"


def upgrade() -> None:
    """Add columns, tables and guards. Findings of earlier versions keep their rows and digests."""
    connection = op.get_bind().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    connection.execute(Path(__file__).with_suffix(".sql").read_bytes())
