"""How many entries a batch of the erasure ledger has, and of which types their keys are.

So that lost entries are noticed, and a table whose key is another since.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Batches from before are counted now: what was lost until then stays unnoticed."""
    op.add_column("erasure_batch", sa.Column("key_types", sa.Text))
    op.add_column("erasure_batch", sa.Column("entries", sa.BigInteger))
    op.execute(
        "UPDATE erasure_batch b SET entries = c.entries FROM ("
        "SELECT b.id, count(e.batch_id) AS entries FROM erasure_batch b "
        "LEFT JOIN erasure e ON e.batch_id = b.id WHERE b.settled_at IS NOT NULL GROUP BY b.id"
        ") AS c WHERE c.id = b.id"
    )
