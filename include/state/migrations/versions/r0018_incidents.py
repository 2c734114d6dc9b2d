"""Incidents: what happened, what is affected, and a timeline that nobody can change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018"
down_revision = "0017"

MOMENT = sa.DateTime(timezone=True)

LOCKS = """
CREATE FUNCTION incident_history_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is history', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', HINT = 'Append what corrects it.';
END $$;

CREATE FUNCTION incident_facts_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.id, OLD.number, OLD.dag_id, OLD.run_id, OLD.type, OLD.what, OLD.noticed_by,
            OLD.opened_by, OLD.opened_at, OLD.aware_at, OLD.began_at, OLD.partner,
            OLD.selection, OLD.fingerprint, OLD.clocks, OLD.duplicate_of)
        IS DISTINCT FROM (NEW.id, NEW.number, NEW.dag_id, NEW.run_id, NEW.type, NEW.what,
            NEW.noticed_by, NEW.opened_by, NEW.opened_at, NEW.aware_at, NEW.began_at, NEW.partner,
            NEW.selection, NEW.fingerprint, NEW.clocks, NEW.duplicate_of)
        OR OLD.state <> 'open' AND (OLD.state, OLD.ended_at, OLD.grade)
            IS DISTINCT FROM (NEW.state, NEW.ended_at, NEW.grade) THEN
        RAISE EXCEPTION 'what incident % began with, and how it ended, is history', OLD.number
            USING ERRCODE = 'restrict_violation', HINT = 'Append what corrects it.';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER facts BEFORE UPDATE ON incident
    FOR EACH ROW EXECUTE FUNCTION incident_facts_stay();
CREATE TRIGGER stays BEFORE DELETE ON incident
    FOR EACH ROW EXECUTE FUNCTION incident_history_stays();
"""
STAYS = """
CREATE TRIGGER history BEFORE UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION incident_history_stays();
"""
EMPTY = """
CREATE TRIGGER emptied BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION incident_history_stays();
"""


def upgrade() -> None:
    """Create the tables and what locks their history."""
    op.create_table(
        "incident",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("number", sa.Text, nullable=False),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("noticed_by", sa.Text, nullable=False),
        sa.Column("opened_by", sa.Text, nullable=False),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.Column("aware_at", MOMENT, nullable=False),
        sa.Column("began_at", MOMENT),
        sa.Column("partner", sa.Text),
        sa.Column("selection", JSONB, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("clocks", JSONB, nullable=False),
        sa.Column("duplicate_of", sa.BigInteger, sa.ForeignKey("incident.id")),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("grade", sa.Text),
        sa.Column("ended_at", MOMENT),
        sa.UniqueConstraint("number"),
        sa.UniqueConstraint("dag_id", "run_id"),
        sa.CheckConstraint(
            "state IN ('open', 'closed', 'cancelled', 'duplicate')",
            name=op.f("incident_state_check"),
        ),
        sa.CheckConstraint(
            "(state = 'duplicate') = (duplicate_of IS NOT NULL)",
            name=op.f("incident_duplicate_check"),
        ),
        sa.CheckConstraint(
            "(state IN ('closed', 'cancelled')) = (ended_at IS NOT NULL)",
            name=op.f("incident_ended_check"),
        ),
        sa.CheckConstraint("began_at <= aware_at", name=op.f("incident_aware_check")),
    )
    op.create_index(
        "incident_open_idx",
        "incident",
        ["fingerprint"],
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "incident_entry",
        sa.Column("incident_id", sa.BigInteger, sa.ForeignKey("incident.id"), primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.Column("happened_at", MOMENT, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("once", sa.Text),
        sa.Column("words", JSONB, nullable=False),
        sa.Column("data", JSONB, nullable=False),
        sa.Column("previous", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.UniqueConstraint("incident_id", "once"),
        sa.CheckConstraint("place > 0", name=op.f("incident_entry_place_check")),
    )
    op.create_table(
        "incident_scope",
        sa.Column("incident_id", sa.BigInteger, sa.ForeignKey("incident.id"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("made_at", MOMENT, nullable=False),
        sa.Column("selection", JSONB, nullable=False),
        sa.Column("counts", JSONB, nullable=False),
    )
    op.create_table(
        "incident_subject",
        sa.Column("incident_id", sa.BigInteger, sa.ForeignKey("incident.id"), primary_key=True),
        sa.Column("database", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_index("incident_subject_version_idx", "incident_subject", ["incident_id", "version"])
    op.execute(LOCKS)
    for table in ("incident_entry", "incident_scope"):
        op.execute(STAYS.format(table=table))
    for table in ("incident", "incident_entry", "incident_scope"):
        op.execute(EMPTY.format(table=table))
