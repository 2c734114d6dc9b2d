"""A settled batch of erasures takes no further entry.

One row that is inserted, or moved there from an open batch, makes the digest of the batch differ,
and every restore and drill then refuses the erasure ledger.
"""

from __future__ import annotations

from alembic import op

revision = "0029"
down_revision = "0028"

# The code enters one batch by each statement: a lookup by key takes less time than the join.
FUNCTION = """
CREATE FUNCTION entry_is_of_open_batch() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    lowest bigint;
    highest bigint;
    settled bigint;
BEGIN
    SELECT min(batch_id), max(batch_id) INTO lowest, highest FROM added;
    IF lowest = highest THEN
        EXECUTE format('SELECT id FROM %I.erasure_batch WHERE id = $1 AND settled_at IS NOT NULL',
            TG_TABLE_SCHEMA) INTO settled USING lowest;
    ELSIF lowest < highest THEN
        EXECUTE format('SELECT b.id FROM %I.erasure_batch b WHERE b.settled_at IS NOT NULL'
            ' AND b.id IN (SELECT batch_id FROM added) LIMIT 1', TG_TABLE_SCHEMA) INTO settled;
    END IF;
    IF settled IS NOT NULL THEN
        RAISE EXCEPTION 'erasure is a register that stays: % of an entry of settled batch % is'
            ' refused', TG_OP, settled
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NULL;
END $$;
"""
HINT = "Nothing adds to a settled batch: restore the state database where entries are wrong."
# By statement: the entries of a batch are copied by 64, and a row trigger would run for each.
ENTRIES = """
CREATE TRIGGER {name} AFTER {statement} ON erasure REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION entry_is_of_open_batch('{hint}');
"""


def upgrade() -> None:
    """Refuse further entries. Those that were added before the upgrade stay, and are reported."""
    op.execute(FUNCTION)
    for name, statement in (("added", "INSERT"), ("added_by_move", "UPDATE")):
        op.execute(ENTRIES.format(name=name, statement=statement, hint=HINT))
