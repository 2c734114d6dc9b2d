"""Verdicts that were reached, one for each quarter and population."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from include.notify.outbox import Run
from include.sampling.evaluation import Verdict
from include.state.audits import audit_result


def conclude(conn: Connection, run: Run, audit: str, verdict: Verdict, at: datetime) -> Verdict:
    """Keep a verdict; the first one of a quarter and population stands and is returned."""
    row = {
        "audit": audit,
        "population": verdict.population,
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "concluded_at": at,
        "accepted": verdict.decision == "accepted",
        "verdict": verdict.model_dump(mode="json"),
    }
    conn.execute(insert(audit_result).values(row).on_conflict_do_nothing())
    return of_audit(conn, audit)[verdict.population]


def of_audit(conn: Connection, audit: str) -> dict[str, Verdict]:
    """Return the verdicts of a quarter, by population."""
    table = audit_result.c
    found = conn.execute(
        select(table.population, table.verdict)
        .where(table.audit == audit)
        .order_by(table.population)
    )
    return {row.population: Verdict.model_validate(row.verdict) for row in found}


def latest(conn: Connection) -> dict[str, tuple[str, bool]]:
    """Return the last verdict of each population: its quarter, and whether it was accepted."""
    table = audit_result.c
    found = conn.execute(
        select(table.population, table.audit, table.accepted).order_by(table.audit)
    )
    return {row.population: (row.audit, row.accepted) for row in found}  # the last one stays
