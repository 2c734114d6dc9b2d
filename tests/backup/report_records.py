"""Records of the steps of backups and drills, to be changed by tests of their reports."""

from __future__ import annotations

from typing import Any

from include.evidence.model import Finding, Metric, Outcome, StepRecord
from include.messages import _
from tests.support.holders import NOW


def finding(severity: Outcome) -> Finding:
    return Finding(code="x.y", severity=severity, subject="x", message=_("yes"), action=_("yes"))


def step(
    name: str,
    part: str = "courier",
    outcome: Outcome = Outcome.PASS,
    *,
    silent: bool = False,
    **data: Any,
) -> StepRecord:
    findings = [] if outcome is Outcome.PASS or silent else [finding(outcome)]
    return StepRecord(step=name, part=part, outcome=outcome, findings=findings, data=data)


PRUNED = {
    "history": [[NOW.isoformat(), 5]],
    "kept": {"p1": "floor", "p2": "legal hold", "p3": "locked", "p4": "daily"},
    "removed": {"p5": "expired", "p6": "superseded"},
}


def backup_records(**changes: StepRecord | None) -> list[StepRecord]:
    records: dict[str, StepRecord | None] = {
        "preflight": step("preflight", "", store="s3://x"),
        "backup": step("backup", seconds=1.5),
        "prune": step("prune", **PRUNED),
    }
    return [record for record in (records | changes).values() if record is not None]


def drilled(**changes: StepRecord | None) -> list[StepRecord]:
    done = step(
        "drill",
        restore_point="p1",
        rows=9,
        compared=2,
        foreign_keys=1,
        newest="none",
        erasures=1,
        replayed=1,
        remaining=0,
    )
    done.metrics.append(
        Metric(name="drill.rto_seconds", value=5, unit="seconds", target=10, subject="courier")
    )
    records: dict[str, StepRecord | None] = {
        "choose": step("choose", restore_point="p1"),
        "refusals": step("refusals", refused=["flipped_byte", "truncated", "wrong_key"]),
        "drill": done,
    }
    return [record for record in (records | changes).values() if record is not None]
