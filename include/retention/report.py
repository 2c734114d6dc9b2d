"""The certificate of `enforce_retention`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from include.evidence.model import Approval, Metric, Outcome, StepRecord
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.reports.conclusion import Conclusion, by_step, missing_record, not_asked_for, worst
from include.retention.names import CLAUSE, STEP_EXECUTE, STEP_PLAN, STEP_VERIFY
from include.state.tables import disposition

TITLE = _("Certificate of deletion")
LOOKED_BACK = 60  # runs in a trend


@dataclass(frozen=True)
class Past:
    """What one run erased from a database."""

    at: datetime
    done: int


def past(conn: Connection, database: str) -> list[Past]:
    """Return what the last runs erased from a database, the oldest first."""
    table = disposition
    query = (
        select(func.min(table.c.planned_at), func.sum(table.c.done))
        .where(table.c.database == database, table.c.done.is_not(None))
        .group_by(table.c.dag_id, table.c.run_id)
        .order_by(func.max(table.c.number).desc())
        .limit(LOOKED_BACK)
    )
    return [Past(row[0], int(row[1])) for row in conn.execute(query)][::-1]


def conclude(
    records: Sequence[StepRecord],
    *,
    databases: Sequence[MappedDatabase],
    rules: Mapping[str, Sequence[RetentionRule]],
    asked: Sequence[str],
    approvals: Sequence[Approval],
    trends: Mapping[str, Sequence[Past]],
) -> Conclusion:
    """Judge a run."""
    del rules, trends
    steps = by_step(records)
    findings = [finding for record in records for finding in record.findings]
    for one in databases:
        if one.name not in asked:
            findings.append(not_asked_for(one.name, "retention.left_out", CLAUSE))
            continue
        for name, title in (
            (STEP_PLAN, _("The plan")),
            (STEP_EXECUTE, _("The execution")),
            (STEP_VERIFY, _("The count afterwards")),
        ):
            if (name, one.name) not in steps:
                findings.append(missing_record(title, one.name, "retention.missing", CLAUSE))
    outcome = worst(records, findings) if databases else Outcome.FAIL
    return Conclusion(
        title=TITLE,
        summary=TITLE,
        outcome=outcome,
        findings=findings,
        metrics=[
            *(metric for record in records for metric in record.metrics),
            Metric(
                name="expired_records_unexplained", value=_sum(steps, "unexplained"), unit="rows"
            ),
            Metric(
                name="erasure_requests_overdue", value=_sum(steps, "requests_overdue"), unit="1"
            ),
        ],
        approvals=list(approvals),
    )


def _sum(steps: Mapping[tuple[str, str], StepRecord], name: str) -> int | None:
    found = [one.data.get(name) for (step, _part), one in steps.items() if step == STEP_VERIFY]
    return sum(int(one) for one in found if one is not None) if found else None
