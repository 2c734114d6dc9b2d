"""Partners: their reviews, locked once they are decided on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"

MOMENT = sa.DateTime(timezone=True)

LOCKS = """
CREATE FUNCTION partner_review_is_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.decided_at IS NOT NULL THEN
        RAISE EXCEPTION 'review % was decided on: it is history', OLD.id
            USING ERRCODE = 'restrict_violation', HINT = 'A correction is a new review.';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION partner_answer_is_history() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    one bigint;
    decided timestamptz;
BEGIN
    -- Of an update both: an answer is moved neither out of a review that is history nor into one.
    FOREACH one IN ARRAY CASE TG_OP
        WHEN 'INSERT' THEN ARRAY[NEW.review_id]
        WHEN 'DELETE' THEN ARRAY[OLD.review_id]
        ELSE ARRAY[OLD.review_id, NEW.review_id] END
    LOOP
        -- Locked first, so that a decision that is being made is seen.
        SELECT decided_at INTO decided FROM partner_review WHERE id = one FOR SHARE;
        IF decided IS NOT NULL THEN
            RAISE EXCEPTION 'review % was decided on: it is history', one
                USING ERRCODE = 'restrict_violation', HINT = 'A correction is a new review.';
        END IF;
    END LOOP;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION partner_history_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM partner_review WHERE decided_at IS NOT NULL) THEN
        RAISE EXCEPTION 'reviews that were decided on are history'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER history BEFORE UPDATE OR DELETE ON partner_review
    FOR EACH ROW EXECUTE FUNCTION partner_review_is_history();
"""
ANSWERS = """
CREATE TRIGGER history BEFORE INSERT OR UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION partner_answer_is_history();
"""
STAYS = """
CREATE TRIGGER stays BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION partner_history_stays();
"""


def upgrade() -> None:
    """Create the tables and what locks their history."""
    op.create_table(
        "partner_review",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("partner", sa.Text, nullable=False),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.Column("opened_by", sa.Text, nullable=False),
        sa.Column("reopened_because", sa.Text),
        sa.Column("reopened_at", MOMENT),
        sa.Column("reopened_by", sa.Text),
        sa.Column("issued_at", MOMENT),
        sa.Column("issued_sha256", sa.Text),
        sa.Column("issued", JSONB),
        sa.Column("returned_at", MOMENT),
        sa.Column("returned_by", sa.Text),
        sa.Column("answered_on", sa.Date),
        sa.Column("file_sha256", sa.Text),
        sa.Column("replaced", JSONB, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("decided_at", MOMENT),
        sa.Column("decided_by", sa.Text),
        sa.Column("passed", sa.Boolean),
        sa.Column("score", sa.Text),
        sa.Column("reason", sa.Text),
        sa.CheckConstraint(
            "num_nulls(decided_at, decided_by, passed, reason) IN (0, 4)",
            name=op.f("partner_review_decided_check"),
        ),
        sa.CheckConstraint(
            "num_nulls(issued_at, issued_sha256, issued) IN (0, 3)",
            name=op.f("partner_review_issued_check"),
        ),
        sa.CheckConstraint(
            "num_nulls(returned_at, returned_by, answered_on, file_sha256) IN (0, 4)",
            name=op.f("partner_review_returned_check"),
        ),
        sa.CheckConstraint(
            "num_nulls(reopened_because, reopened_at, reopened_by) IN (0, 3)",
            name=op.f("partner_review_reopened_check"),
        ),
        sa.CheckConstraint(
            "NOT passed OR returned_at IS NOT NULL", name=op.f("partner_review_passed_check")
        ),
    )
    op.create_index(
        "partner_review_open_idx",
        "partner_review",
        ["partner"],
        unique=True,
        postgresql_where=sa.text("decided_at IS NULL"),
    )
    op.create_index("partner_review_partner_idx", "partner_review", ["partner", "decided_at"])
    op.create_table(
        "partner_answer",
        sa.Column("review_id", sa.BigInteger, sa.ForeignKey("partner_review.id"), primary_key=True),
        sa.Column("question", sa.Text, primary_key=True),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.CheckConstraint(
            "answer IN ('yes', 'no', 'not_applicable')", name=op.f("partner_answer_answer_check")
        ),
    )
    op.create_table(
        "partner_sub_processor",
        sa.Column("review_id", sa.BigInteger, sa.ForeignKey("partner_review.id"), primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("country", sa.Text, nullable=False),
        sa.Column("what_for", sa.Text, nullable=False),
    )
    op.execute(LOCKS)
    for table in ("partner_answer", "partner_sub_processor"):
        op.execute(ANSWERS.format(table=table))
    for table in ("partner_review", "partner_answer", "partner_sub_processor"):
        op.execute(STAYS.format(table=table))
