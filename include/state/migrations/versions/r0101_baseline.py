"""The first schema of the state database; `r0101_baseline.sql` contains the SQL statements.

After version 1.0, each change of the schema is a new revision.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import op

revision = "0101"
down_revision = None


def upgrade() -> None:
    """Create every table, index, function and trigger."""
    connection = op.get_bind().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    connection.execute(Path(__file__).with_suffix(".sql").read_bytes())
