"""Settled erasures and requests to be erased change only as the code changes them.

A settled batch keeps a digest of its entries, so that an entry that was replaced shows, too. The
table `register_loss` holds the losses of registers that a person accepted after a disaster.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0024"
down_revision = "0023"

DIGESTS = """
UPDATE erasure_batch b SET entries_sha256 = c.digest FROM (
    SELECT b.id, sha256(coalesce(string_agg(
        e.key_hmac || convert_to(e.action || ' ' || e.key_id || chr(10), 'UTF8'), ''::bytea
        ORDER BY e.key_hmac, e.action COLLATE "C", e.key_id COLLATE "C"
    ), ''::bytea)) AS digest
    FROM erasure_batch b LEFT JOIN erasure e ON e.batch_id = b.id
    WHERE b.settled_at IS NOT NULL GROUP BY b.id
) AS c WHERE c.id = b.id
"""
LOCKS = """
CREATE FUNCTION batch_stays_once_settled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.settled_at IS NOT NULL THEN
        RAISE EXCEPTION 'erasure_batch is a register that stays: % of settled batch % is refused',
            TG_OP, OLD.id
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION entry_stays_once_settled() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    settled bigint;
BEGIN
    EXECUTE format('SELECT b.id FROM %I.erasure_batch b WHERE b.settled_at IS NOT NULL'
        ' AND b.id IN (SELECT batch_id FROM gone) LIMIT 1', TG_TABLE_SCHEMA) INTO settled;
    IF settled IS NOT NULL THEN
        RAISE EXCEPTION 'erasure is a register that stays: % of an entry of settled batch % is'
            ' refused', TG_OP, settled
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION request_is_only_closed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    closing text[] := ARRAY['closed_at', 'closed_by', 'closed_because'];
    counts text[] := ARRAY['found_at', 'restricted_at', 'oversized_at'];
BEGIN
    IF to_jsonb(OLD) - closing - counts IS DISTINCT FROM to_jsonb(NEW) - closing - counts
        OR OLD.closed_at IS NOT NULL
            AND to_jsonb(OLD) - counts IS DISTINCT FROM to_jsonb(NEW) - counts THEN
        RAISE EXCEPTION 'erasure_request is a register that stays: request % is only ever closed,'
            ' once', OLD.id
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NEW;
END $$;
"""
ERASURES = "Nothing removes an erasure: restore the state database where entries are wrong."
REQUESTS = "Withdraw the request (./parcelseal erasure withdraw), and enter another."
LOSSES = "Accept a loss once more (./parcelseal recover-ledger --accept-losses)."
TRIGGERS = (
    ("stays", "BEFORE UPDATE OR DELETE", "erasure_batch", "batch_stays_once_settled", ERASURES),
    ("stays", "BEFORE DELETE", "erasure_request", "register_stays", REQUESTS),
    ("closed", "BEFORE UPDATE", "erasure_request", "request_is_only_closed", REQUESTS),
    ("stays", "BEFORE UPDATE OR DELETE", "register_loss", "register_stays", LOSSES),
)
ROW = """
CREATE TRIGGER {name} {statement} ON {table}
    FOR EACH ROW EXECUTE FUNCTION {function}('{hint}');
"""
# By statement, since one statement withdraws thousands of entries of an open batch.
ENTRIES = """
CREATE TRIGGER {name} AFTER {statement} ON erasure REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION entry_stays_once_settled('{hint}');
"""
EMPTIED = """
CREATE TRIGGER emptied BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied('{hint}');
"""
HINTS = {
    "erasure": ERASURES,
    "erasure_batch": ERASURES,
    "erasure_request": REQUESTS,
    "register_loss": LOSSES,
}


def upgrade() -> None:
    """Digest the entries of settled batches. Entries replaced before the upgrade go unnoticed."""
    op.add_column("erasure_batch", sa.Column("entries_sha256", sa.LargeBinary))
    op.execute(DIGESTS)
    op.create_table(
        "register_loss",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted_by", sa.Text, nullable=False),
        sa.Column("because", sa.Text, nullable=False),
        sa.Column("lost", JSONB, nullable=False),
        sa.Column("figures", JSONB, nullable=False),
        sa.Column("key_fingerprint", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
    )
    op.execute(LOCKS)
    for name, statement, table, function, hint in TRIGGERS:
        op.execute(
            ROW.format(name=name, statement=statement, table=table, function=function, hint=hint)
        )
    for name, statement in (("stays", "DELETE"), ("moved", "UPDATE")):
        op.execute(ENTRIES.format(name=name, statement=statement, hint=ERASURES))
    for table, hint in HINTS.items():
        op.execute(EMPTIED.format(table=table, hint=hint))
