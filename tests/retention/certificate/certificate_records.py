"""Step records of a run, which tests of the certificate of deletion change."""

from __future__ import annotations

from typing import Any

from include.evidence.model import Outcome, StepRecord
from include.messages import Message
from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.reports.conclusion import Conclusion
from include.reports.i18n import Translator
from include.reports.model import Code, Paragraph, Signatures, Steps, Table
from include.retention.certificate import report
from include.retention.certificate.database_run import PastRun
from include.retention.planning.plan import rule_digest
from include.workflow.run_records import RunRecords

SHA256 = "ab" * 32
CLEAR = {"requests": [], "requests_open": 0, "requests_closed": 0, "requests_overdue": 0}


def mapped_database(name: str = "shop") -> MappedDatabase:
    """Return a mapped database without collections."""
    return MappedDatabase.model_construct(name=name, title=name.title(), collections={})


def retention_rule(name: str = "order", **changes: Any) -> RetentionRule:
    """Return a record class that is kept for three years."""
    values = {
        "class": name,
        "title": {"en": f"All {name}s", "zh-CN": "订单"},
        "collection": "orders",
        "clock": "created_at",
        "period": "P3Y",
        "action": "delete",
        "basis": "business",
    }
    return RetentionRule.model_validate(values | changes)


def planned_class(name: str = "order", **changes: Any) -> dict[str, Any]:
    """Return the data of a record class in the result of the planning step."""
    values = {
        "name": name,
        "collection": "orders",
        "action": "delete",
        "rule_sha256": rule_digest(retention_rule(name)),
        "records": 100,
        "expired": 10,
        "to_delete": 10,
    }
    return values | changes


def plan_data(*classes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the data of the result of the planning step."""
    return {
        "as_of": "2026-11-26T00:00:00+08:00",
        "sha256": SHA256,
        "classes": list(classes),
        "tripped": [],
        "started_by": None,
        "key_id": "k1",
        "holds_that_counted": 0,
        "holds": [],
        "reactions": [],
        **changes,
    }


def execution_data(done: dict[str, int], **changes: Any) -> dict[str, Any]:
    """Return the data of the result of the execution step.

    Args:
        done: record class -> number of erased records.
        changes: fields that differ from a complete execution.
    """
    return {
        "done": done,
        "executed_as": "shop_retention",
        "counted": done,
        "entered": done,
        "partitions": {},
        "waiting": {},
        "staying": {},
        "stopped": None,
        "refused": {},
        "inserted": {},
        "updated": {},
        "busy": {},
        "locked": {},
        "knots": {},
        "given_up": [],
        "slow": [],
        "longest_transaction_ms": 120,
        "not_approved": [],
        **changes,
    }


def verification_data(
    done: dict[str, int], left: list[dict[str, Any]], **changes: Any
) -> dict[str, Any]:
    """Return the data of the result of the verification step.

    Args:
        done: record class -> number of erased records.
        left: remaining records of each class, see `remaining_data`.
        changes: fields that differ from a verification without problems.
    """
    moment = "2026-11-25T19:30:00+00:00"
    ledger = {"batches": 2, "first": 7, "last": 9, "begun": moment, "ended": moment}
    return {
        "left": left,
        "orphans": [],
        "done": done,
        "unexplained": sum(each["unexplained"] for each in left),
        "copies": [],
        "verified_at": moment,
        "ledger": ledger | {"key_ids": ["k1"]},
        **CLEAR,
        **changes,
    }


def remaining_data(name: str = "order", **changes: int) -> dict[str, Any]:
    """Return the data about the remaining records of a class, all 0 by default."""
    return {"name": name, "held": 0, "referred": 0, "unexplained": 0, "waiting": 0} | changes


def run_records(name: str = "shop", **changed: Any) -> list[StepRecord]:
    """Return the step records of a complete run.

    Args:
        name: name of the database.
        changed: step -> its result; a step with None has no record.
    """
    data: dict[str, Any] = {
        "plan": plan_data(planned_class()),
        "execute": execution_data({"order": 10}),
        "verify": verification_data({"order": 10}, [remaining_data()]),
        **changed,
    }
    return [
        StepRecord(step=step, part=name, outcome=Outcome.PASS, data=result)
        for step, result in data.items()
        if result is not None
    ]


def certificate(
    records: list[StepRecord],
    *,
    names: tuple[str, ...] = ("shop",),
    rules: dict[str, list[RetentionRule]] | None = None,
    requested: tuple[str, ...] | None = None,
    trend: tuple[PastRun, ...] = (),
) -> Conclusion:
    """Build the certificate of deletion from step records.

    Args:
        records: step records of the run.
        names: databases of the data map.
        rules: record classes by database; by default one class for each database.
        requested: databases of the run; by default all.
        trend: past runs of each database.
    """
    return report.certificate(
        RunRecords(records),
        databases=[mapped_database(name) for name in names],
        rules={name: [retention_rule()] for name in names} if rules is None else rules,
        requested=names if requested is None else requested,
        approvals=[],
        trends=dict.fromkeys(names, trend),
    )


def indicators(conclusion: Conclusion) -> dict[str, float | None]:
    """Return the values of the control indicators."""
    return {
        metric.name: metric.value
        for metric in conclusion.metrics
        if not metric.name.startswith("retention.")
    }


def sentences(conclusion: Conclusion, language: str = "en") -> list[str]:
    """Return all texts of the sections of a certificate. A row of a table is one line."""
    words = Translator(language)
    lines: list[str] = []
    for section in conclusion.sections:
        lines.append(words.text(section.heading))
        for block in section.blocks:
            if isinstance(block, Paragraph):
                lines.append(words.text(block.text))
            elif isinstance(block, Steps):
                lines += [words.text(item) for item in block.items]
            elif isinstance(block, Code):
                lines += block.lines
            elif isinstance(block, Signatures):
                lines += [words.text(line.role) for line in block.lines]
            else:
                lines.append(words.text(block.caption))
            if isinstance(block, Table):
                lines += [" | ".join(words.value(cell) for cell in row) for row in block.rows]
    return lines


def english(message: Message | None) -> str:
    """Return a message in English."""
    return Translator("en").text(message) if message else ""
