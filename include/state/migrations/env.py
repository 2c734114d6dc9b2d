"""The script that Alembic executes for each command.

include.state.migrate provides the connection.
"""

from __future__ import annotations

from alembic import context

from include.state.migrate import VERSION_TABLE
from include.state.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
