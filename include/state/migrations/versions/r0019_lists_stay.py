"""The frozen list of affected people is history as the timeline is: it grows, and nothing else.

Tables of incidents may be emptied while no incident is in them, as tests and new homes do.
"""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"

# A person stands with the count that found them first, so nothing has to change a row either.
STAYS = """
CREATE TRIGGER history BEFORE UPDATE OR DELETE ON incident_subject
    FOR EACH ROW EXECUTE FUNCTION incident_history_stays();
"""
# Some homes have had it since 0018.
UNLESS_EMPTY = """
CREATE OR REPLACE FUNCTION incidents_are_not_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM incident) THEN
        RAISE EXCEPTION '% is history', TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation', HINT = 'Append what corrects it.';
    END IF;
    RETURN NULL;
END $$;
"""
EMPTY = """
DROP TRIGGER IF EXISTS emptied ON {table};
CREATE TRIGGER emptied BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION incidents_are_not_emptied();
"""


def upgrade() -> None:
    """Lock the lists."""
    op.execute(STAYS)
    op.execute(UNLESS_EMPTY)
    for table in ("incident", "incident_entry", "incident_scope", "incident_subject"):
        op.execute(EMPTY.format(table=table))
    op.drop_index("incident_open_idx", "incident")
    op.create_index("incident_fingerprint_idx", "incident", ["fingerprint"])
