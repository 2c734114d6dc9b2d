"""The history of controls, and since when each control is known.

Both tables are append-only. The functions of their triggers exist since revision 0101. Table names
carry no schema, because a drill of an incident has the same tables in a schema of its own.
"""

from __future__ import annotations

from alembic import op

revision = "0103"
down_revision = "0102"

_HINTS = {
    "evidence_control": "Delete wrong rows as the owner of the table; recover-ledger enters them "
    "again.",
    "policy_control": "Delete wrong rows as the owner of the table; the next seal enters them "
    "again, with its own time.",
}
_TABLES = """
CREATE TABLE evidence_control (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seq bigint NOT NULL,
    control text NOT NULL,
    clause text NOT NULL,
    state text NOT NULL,
    value double precision,
    finished_at timestamptz NOT NULL,
    CONSTRAINT evidence_control_state_check CHECK (state IN ('held', 'not_held', 'not_shown')),
    UNIQUE (control, seq)
);
CREATE INDEX evidence_control_seq_idx ON evidence_control (seq);

CREATE TABLE policy_control (
    control text PRIMARY KEY,
    known_since timestamptz NOT NULL
);
"""


def upgrade() -> None:
    """Create the tables and the triggers that refuse changes."""
    op.execute(_TABLES)
    for table, hint in _HINTS.items():
        op.execute(
            f"CREATE TRIGGER emptied BEFORE TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION register_is_not_emptied('{hint}')"
        )
        op.execute(
            f"CREATE TRIGGER stays BEFORE DELETE OR UPDATE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION register_stays('{hint}')"
        )
