"""Records that the steps of a run leave, to be changed by tests of the certificate."""

from __future__ import annotations

from typing import Any

from include.evidence.model import Outcome, StepRecord
from include.messages import Message
from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.reports.conclusion import Conclusion
from include.reports.i18n import Translator
from include.reports.model import Code, Paragraph, Steps, Table
from include.retention.certificate import report
from include.retention.certificate.case import Past
from include.retention.planning.plan import rule_digest
from include.workflow.run_records import RunRecords

SHA256 = "ab" * 32
CLEAR = {"requests": [], "requests_open": 0, "requests_closed": 0, "requests_overdue": 0}


def a_database(name: str = "shop") -> MappedDatabase:
    """A mapped database of which only the name counts here."""
    return MappedDatabase.model_construct(name=name, title=name.title(), collections={})


def a_rule(name: str = "order", **given: Any) -> RetentionRule:
    """A record class of three years."""
    values = {
        "class": name,
        "title": {"en": f"All {name}s", "zh-CN": "订单"},
        "collection": "orders",
        "clock": "created_at",
        "period": "P3Y",
        "action": "delete",
        "basis": "business",
    }
    return RetentionRule.model_validate(values | given)


def a_class(name: str = "order", **given: Any) -> dict[str, Any]:
    """One record class in the plan's record."""
    values = {
        "name": name,
        "collection": "orders",
        "action": "delete",
        "rule_sha256": rule_digest(a_rule(name)),
        "records": 100,
        "expired": 10,
        "to_delete": 10,
    }
    return values | given


def planned(*classes: dict[str, Any], **given: Any) -> dict[str, Any]:
    """What the plan's step says."""
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
        **given,
    }


def executed(done: dict[str, int], **given: Any) -> dict[str, Any]:
    """What the execution's step says."""
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
        **given,
    }


def counted(done: dict[str, int], left: list[dict[str, Any]], **given: Any) -> dict[str, Any]:
    """What the count afterwards says."""
    moment = "2026-11-25T19:30:00+00:00"
    ledger = {"batches": 2, "first": 7, "last": 9, "begun": moment, "ended": moment}
    return {
        "left": left,
        "orphans": [],
        "done": done,
        "unexplained": sum(one["unexplained"] for one in left),
        "copies": [],
        "verified_at": moment,
        "ledger": ledger | {"key_ids": ["k1"]},
        **CLEAR,
        **given,
    }


def one_left(name: str = "order", **given: int) -> dict[str, Any]:
    """What is left of a class."""
    return {"name": name, "held": 0, "referred": 0, "unexplained": 0, "waiting": 0} | given


def a_run(name: str = "shop", **changed: Any) -> list[StepRecord]:
    """A run that erased everything; a step that is None left no record."""
    data: dict[str, Any] = {
        "plan": planned(a_class()),
        "execute": executed({"order": 10}),
        "verify": counted({"order": 10}, [one_left()]),
        **changed,
    }
    return [
        StepRecord(step=step, part=name, outcome=Outcome.PASS, data=found)
        for step, found in data.items()
        if found is not None
    ]


def certificate(
    records: list[StepRecord],
    *,
    names: tuple[str, ...] = ("shop",),
    rules: dict[str, list[RetentionRule]] | None = None,
    asked: tuple[str, ...] | None = None,
    trend: tuple[Past, ...] = (),
) -> Conclusion:
    """What the records add up to."""
    return report.certificate(
        RunRecords(records),
        databases=[a_database(one) for one in names],
        rules={one: [a_rule()] for one in names} if rules is None else rules,
        asked=names if asked is None else asked,
        approvals=[],
        trends=dict.fromkeys(names, trend),
    )


def indicators(found: Conclusion) -> dict[str, float | None]:
    """The figures of the controls."""
    return {one.name: one.value for one in found.metrics if not one.name.startswith("retention.")}


def sentences(found: Conclusion, language: str = "en") -> list[str]:
    """Every text of the sections, a table's row as one line."""
    words = Translator(language)
    lines: list[str] = []
    for section in found.sections:
        lines.append(words.text(section.heading))
        for block in section.blocks:
            if isinstance(block, Paragraph):
                lines.append(words.text(block.text))
            elif isinstance(block, Steps):
                lines += [words.text(one) for one in block.items]
            elif isinstance(block, Code):
                lines += block.lines
            else:
                lines.append(words.text(block.caption))
            if isinstance(block, Table):
                lines += [" | ".join(words.value(cell) for cell in row) for row in block.rows]
    return lines


def english(message: Message | None) -> str:
    """A message as English readers see it."""
    return Translator("en").text(message) if message else ""
