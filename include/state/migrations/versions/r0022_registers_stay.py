"""Holds, findings and the ledger of evidence change only as the code changes them.

Who owns the tables can take the triggers away. That is a statement of its own, so that no slip and
no wrong tool rewrites a register without a word.
"""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"

# Tables are named with the schema of the one that is changed: drills have registers of their own,
# and what a session put before it in its search path, a temporary table for one, says nothing.
LOCKS = """
CREATE FUNCTION register_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is a register that stays: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
END $$;

CREATE FUNCTION register_is_not_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    filled boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %I.%I)', TG_TABLE_SCHEMA, TG_TABLE_NAME)
        INTO filled;
    IF filled THEN
        RAISE EXCEPTION '% is a register that stays: % is refused', TG_TABLE_NAME, TG_OP
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION hold_is_only_released() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    release text[] := ARRAY['released_at', 'released_by', 'release_reason'];
BEGIN
    IF OLD.released_at IS NOT NULL OR NEW.released_at IS NULL
        OR to_jsonb(OLD) - release IS DISTINCT FROM to_jsonb(NEW) - release THEN
        RAISE EXCEPTION 'legal_hold is a register that stays: hold % is only ever released, once',
            OLD.id
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION finding_is_only_closed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    met boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %I.finding_event WHERE finding_id = $1'
        ' AND kind = %L)', TG_TABLE_SCHEMA, 'met') INTO met USING OLD.id;
    IF OLD.closed_at IS NOT NULL OR NEW.closed_at IS NULL OR NOT met
        OR to_jsonb(OLD) - 'closed_at' IS DISTINCT FROM to_jsonb(NEW) - 'closed_at' THEN
        RAISE EXCEPTION 'finding is a register that stays: finding % is only ever closed, once, by'
            ' a test that is met', OLD.id
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION ledger_is_only_pruned() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    pruned bigint;
    last bigint;
BEGIN
    EXECUTE format('SELECT coalesce(max(up_to_seq), 0) FROM %I.evidence_checkpoint',
        TG_TABLE_SCHEMA) INTO pruned;
    SELECT max(seq) INTO last FROM gone;
    IF last > pruned THEN
        RAISE EXCEPTION 'evidence_ledger is a register that stays: number % is not pruned', last
            USING ERRCODE = 'restrict_violation', HINT = TG_ARGV[0];
    END IF;
    RETURN NULL;
END $$;
"""
HOLD = "Release the hold (./parcelseal hold release), and place another where it was wrong."
FINDING = "Answer the finding and test it again: ./parcelseal findings answer, then retest."
LEDGER = "Prune old evidence up to a signed checkpoint; what was wrong is run and sealed again."
HINTS = {
    "legal_hold": HOLD,
    "finding": FINDING,
    "finding_event": FINDING,
    "evidence_ledger": LEDGER,
}
BEFORE = """
CREATE TRIGGER {name} BEFORE {statement} ON {table}
    FOR EACH ROW EXECUTE FUNCTION {function}('{hint}');
"""
PRUNED = """
CREATE TRIGGER pruned AFTER DELETE ON evidence_ledger REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_only_pruned('{hint}');
"""
EMPTIED = """
CREATE TRIGGER emptied BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied('{hint}');
"""
ROWS = (
    ("stays", "DELETE", "legal_hold", "register_stays"),
    ("released", "UPDATE", "legal_hold", "hold_is_only_released"),
    ("stays", "DELETE", "finding", "register_stays"),
    ("closed", "UPDATE", "finding", "finding_is_only_closed"),
    ("stays", "UPDATE OR DELETE", "finding_event", "register_stays"),
    ("stays", "UPDATE", "evidence_ledger", "register_stays"),
)


def upgrade() -> None:
    """Lock what is there as well."""
    op.execute(LOCKS)
    for name, statement, table, function in ROWS:
        op.execute(
            BEFORE.format(
                name=name, statement=statement, table=table, function=function, hint=HINTS[table]
            )
        )
    op.execute(PRUNED.format(hint=LEDGER))
    for table, hint in HINTS.items():
        op.execute(EMPTIED.format(table=table, hint=hint))
