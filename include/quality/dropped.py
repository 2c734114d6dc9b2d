"""Close entries of the quarantine register whose rules or suites the pack no longer has."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import _
from include.quality import history
from include.quarantine import register
from include.workflow.run_context import RunContext


def close_dropped(
    findings: StepFindings, conn: Connection, place: register.Place, rules: Sequence[str]
) -> None:
    """Close the entries of rules that the pack no longer has; their records may still be broken."""
    with conn.begin():
        closed = register.close_others(conn, place, rules)
    if closed:
        findings.find(
            "quality.rule_dropped",
            Outcome.ATTENTION,
            _(
                "{count} entries of the quarantine register were closed because the policy pack "
                "has their rules no longer: {rules}. Nobody found their records good.",
                count=sum(closed.values()),
                rules=", ".join(sorted(closed)),
            ),
            _("See that the rules were left out on purpose."),
            subject=f"{place.database}.{place.collection}",
        )


def notice_dropped(
    findings: StepFindings,
    conn: Connection,
    run: RunContext[None],
    at: datetime,
    database: str,
    collections: set[str],
) -> None:
    """Close the entries of collections for which the pack has no suite any more.

    If it has one again, the next check examines all records: this run is noted as one of theirs.
    """
    with conn.begin():
        left = register.forsaken(conn, database, run.run.dag_id, collections)
    for name in left:
        place = register.Place(database, name, run.run.dag_id, run.run.run_id, at)
        with conn.begin():
            history.begin(conn, **place.__dict__)
        close_dropped(findings, conn, place, ())
