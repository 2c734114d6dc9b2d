"""A state database of revision 0101 keeps its findings and sealed figures when it is migrated."""

from __future__ import annotations

from dataclasses import replace

from alembic import command
from sqlalchemy import Engine, text

from include.evidence import register_figures
from include.evidence.model import RegisterFigure
from include.evidence.register_figures import EVENTS, FINDINGS, losses
from include.findings import register
from include.findings.register import State
from include.state import migrate as migrations
from include.state.connect import engine
from include.state.migrate import migrate

FINDING = """
INSERT INTO finding (kind, reference, description, owner, opened_at, due_on, closed_at) VALUES
    ('audit', '2026Q3/accesses/1/approved', '{"text": "no"}', 'management', '2026-10-12', '2026-11-11', NULL),
    ('incident', 'INC-2026-0001/1', '{"text": "yes"}', 'compliance', '2026-10-13', '2026-11-12', NULL);
INSERT INTO finding_event (finding_id, kind, by, at, cause, action)
    VALUES (1, 'answered', 'ann', '2026-10-20', 'old', 'renew');
INSERT INTO evidence_ledger (seq, bundle, dag_id, run_id, outcome, controls, started_at, sealed_at,
        sums_sha256, previous_sums_sha256, key_fingerprint, row_signature)
    VALUES (7, 'b7', 'backup_offsite', 'r7', 'fail', '{}', '2026-10-12', '2026-10-12', 'ab', '', 'k', '\\x00');
"""  # noqa: E501 - one row in each line


def upgrade_to(state: Engine, revision: str) -> None:
    """Apply the migrations up to a revision."""
    with state.begin() as conn:
        config = migrations._config()
        config.attributes["connection"] = conn
        command.upgrade(config, revision)


def figures_at_0101(state: Engine) -> dict[str, RegisterFigure]:
    """Compute the figures as the code of revision 0101 sealed them, without later columns."""
    figures = {}
    with state.connect() as conn:
        for registered in (FINDINGS, EVENTS):
            old = replace(registered, added=())
            bounds = register_figures._read_bounds(conn, old, is_incomplete=False)
            figures[old.name] = register_figures._figure(conn, old, bounds)
    return figures


def test_sealed_figures_of_findings_still_match_after_the_migration(database: str) -> None:
    state = engine(database)
    upgrade_to(state, "0101")
    with state.begin() as conn:
        conn.exec_driver_sql(FINDING)
    sealed = figures_at_0101(state)
    assert sealed["finding"].rows == 2
    migrate(state)
    with state.connect() as conn:
        assert losses(conn, {name: [figure] for name, figure in sealed.items()}) == []
        first, second = register.list_findings(conn)
    assert (first.state, first.answered_by, first.origin) == (State.ANSWERED, "ann", None)
    assert (second.state, second.due_on.isoformat()) == (State.OPEN, "2026-11-12")


def test_changed_column_of_a_later_version_is_noticed(database: str) -> None:
    state = engine(database)
    migrate(state)
    with state.begin() as conn:
        conn.exec_driver_sql(FINDING)
        conn.exec_driver_sql(
            "INSERT INTO finding_event (finding_id, kind, by, at, reason, owner, assignee)"
            " VALUES (1, 'reassigned', 'cai', '2026-10-21', 'moved', 'compliance', '')"
        )
    sealed = register_figures.take_figures(state, {})
    with state.begin() as conn:
        conn.exec_driver_sql("ALTER TABLE finding_event DISABLE TRIGGER USER")
        conn.exec_driver_sql(
            "UPDATE finding_event SET owner = 'management' WHERE kind = 'reassigned'"
        )
        conn.exec_driver_sql("ALTER TABLE finding_event ENABLE TRIGGER USER")
        lost = losses(conn, {name: [figure] for name, figure in sealed.items()})
    assert [loss.register.name for loss in lost] == ["finding_event"]


def test_register_begins_with_the_runs_after_the_upgrade(database: str) -> None:
    """Findings of earlier runs come back with the next run, if they still exist."""
    state = engine(database)
    upgrade_to(state, "0101")
    with state.begin() as conn:
        conn.exec_driver_sql(FINDING)
    migrate(state)
    with state.connect() as conn:
        assert conn.scalar(text("SELECT seq FROM finding_progress")) == 7
