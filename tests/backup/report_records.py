"""Provide step records of backups and restore drills for tests of their reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from include.backup import drill_report, offsite_report
from include.backup.drill_report import PastDrill
from include.backup.manifest import Manifest
from include.evidence.model import Finding, Metric, Outcome, StepRecord
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.reports.conclusion import Conclusion
from include.workflow.run_records import RunRecords
from tests.support.holders import NOW


def finding(severity: Outcome) -> Finding:
    return Finding(code="x.y", severity=severity, subject="x", message=_("yes"), action=_("yes"))


_DATA: dict[str, dict[str, Any]] = {
    "preflight": {
        "may_dump": True, "store": "s3://x", "store_kind": "directory", "recipients": [],
        "at_primary_site": {}, "sites": {},
    },
    "backup": {
        "restore_point": "p1", "published_by_an_earlier_try": False, "cleared": [],
        "cleared_uploads": 0, "seconds": 1,
    },
    "prune": {"kept": {}, "removed": {}, "refused": [], "copies": [], "history": []},
    "choose": {"restore_point": "p1", "of": 1, "latest_taken_at": NOW.isoformat()},
    "refusals": {"restore_point": "p1", "refused": []},
}  # fmt: skip


def step(
    name: str,
    part: str = "courier",
    outcome: Outcome = Outcome.PASS,
    *,
    silent: bool = False,
    **data: Any,
) -> StepRecord:
    """Return a step record.

    Args:
        name: name of the step.
        part: name of the database to which the step applies.
        outcome: outcome of the step.
        silent: whether the record has no finding, even if the step did not pass.
        **data: figures of the step, which replace default figures. If none are given, the record
        has no figures.
    """
    findings = [] if outcome is Outcome.PASS or silent else [finding(outcome)]
    if data:
        data = _DATA.get(name, {}) | data
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


def conclude_backup(
    records: Sequence[StepRecord],
    databases: Sequence[MappedDatabase],
    manifests: Mapping[str, Manifest],
    *,
    requested: Sequence[str],
) -> Conclusion:
    """Return the conclusion of a backup run.

    Args:
        records: step records of the run.
        databases: mapped databases.
        manifests: manifests that the run stored, by database name.
        requested: names of the databases for which the run was started.
    """
    run: Any = SimpleNamespace(
        pack=SimpleNamespace(databases={each.name: each for each in databases}),
        requested_databases=requested,
    )
    files = {f"manifest.{name}.json": each.as_bytes() for name, each in manifests.items()}
    return offsite_report.conclude(run, RunRecords(records, files))


def conclude_drill(
    records: Sequence[StepRecord],
    databases: Sequence[MappedDatabase],
    history: Mapping[str, Sequence[PastDrill]],
) -> Conclusion:
    """Return the conclusion of a run of restore drills.

    Args:
        records: step records of the run.
        databases: mapped databases.
        history: earlier drills of each database, by database name.
    """
    run: Any = SimpleNamespace(
        pack=SimpleNamespace(databases={each.name: each for each in databases}), state=None
    )
    with patch.object(
        drill_report, "past_drills", lambda _state, database: history.get(database, ())
    ):
        return drill_report.conclude(run, RunRecords(records))
