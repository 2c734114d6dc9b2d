"""A batch of erasures is settled only with the digest of its entries.

A worker of an older version that settles a batch after the migration leaves no digest, and every
restore then takes the batch for a changed one.
"""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0026"

# The digest is that of revision 0024. A batch that lacks entries keeps none: it is reported.
DIGESTS = """
UPDATE erasure_batch b SET entries_sha256 = c.digest FROM (
    SELECT b.id, sha256(coalesce(string_agg(
        e.key_hmac || convert_to(e.action || ' ' || e.key_id || chr(10), 'UTF8'), ''::bytea
        ORDER BY e.key_hmac, e.action COLLATE "C", e.key_id COLLATE "C"
    ), ''::bytea)) AS digest
    FROM erasure_batch b LEFT JOIN erasure e ON e.batch_id = b.id
    WHERE b.settled_at IS NOT NULL AND b.entries_sha256 IS NULL
    GROUP BY b.id HAVING count(e.key_hmac) = coalesce(b.entries, count(e.key_hmac))
) AS c WHERE c.id = b.id
"""


def upgrade() -> None:
    """Digest the batches that an older worker settled, and refuse further ones.

    Where a batch lacks entries, the constraint is not validated, and the batch stays as it is.
    """
    op.execute("ALTER TABLE erasure_batch DISABLE TRIGGER stays")
    op.execute(DIGESTS)
    op.execute("ALTER TABLE erasure_batch ENABLE TRIGGER stays")
    op.execute(
        "ALTER TABLE erasure_batch ADD CONSTRAINT erasure_batch_digested_check"
        " CHECK (settled_at IS NULL OR entries_sha256 IS NOT NULL) NOT VALID"
    )
    op.execute(
        "DO $$ BEGIN ALTER TABLE erasure_batch VALIDATE CONSTRAINT erasure_batch_digested_check;"
        " EXCEPTION WHEN check_violation THEN NULL; END $$"
    )
