"""Tests of reports, for runs after which some batches are still not reviewed."""

from __future__ import annotations

from typing import Any

import pytest

from include.evidence.model import Outcome, StepRecord
from include.intake import report
from include.messages import verbatim
from include.reports.i18n import Translator
from include.reports.model import BarChart, Table
from include.workflow.run_records import RunRecords

CHECKED = {
    "rows": 1,
    "oldest": None,
    "newest": None,
    "due": None,
    "enterers": ["E2"],
    "sha256": "a" * 64,
    "clean": 1,
    "rules": [],
}


def step(name: str, part: str, **data: Any) -> StepRecord:
    return StepRecord(step=name, part=part, outcome=Outcome.PASS, data=data)


def run(*, requested: int, reviewed: int, left: int = 0) -> list[StepRecord]:
    """Return the step records of a run that reviewed some of the pending batches.

    Args:
        requested: number of batches that the run submitted for review.
        reviewed: number of batches that were reviewed.
        left: number of pending batches that the run did not submit.
    """
    parts = [f"customers/IN-{n}" for n in range(requested)]
    answer = {
        "decision": "Approve",
        "decided_by": "E1",
        "decided_at": "2026-03-02T01:00:00+00:00",
        "reason": "",
    }
    records = [step("batches", "", batches=parts, left={"customers": left}, unfit=0)]
    for n, part in enumerate(parts):
        records += [
            step("check", part, **(CHECKED | {"batch": part, "request": n})),
            step("review", part, **(answer if n < reviewed else {})),
            step("settle", part, promoted=1),
        ]
    return [*records, step("verify", "", past_deadline=0, promoted=reviewed, unreviewed=0)]


@pytest.mark.parametrize(
    ("counts", "fact", "status", "summary"),
    [
        (
            {"requested": 1, "reviewed": 1, "left": 2},
            "1 of 3",
            Outcome.ATTENTION,
            "All 1 batches of this run were reviewed; 2 more batches wait for review, and their "
            "deadlines have not passed.",
        ),
        (
            {"requested": 3, "reviewed": 3},
            "3 of 3",
            Outcome.PASS,
            "All 3 waiting batches were reviewed.",
        ),
        (
            {"requested": 2, "reviewed": 1, "left": 2},
            "1 of 4",
            Outcome.ATTENTION,
            "1 of 4 batches were reviewed; the deadlines of the remaining batches have not passed.",
        ),
    ],
)
def test_summary_contains_number_of_reviewed_batches_and_mentions_batches_that_still_wait(
    counts: dict[str, int], fact: str, status: Outcome, summary: str
) -> None:
    english = Translator("en")
    concluded = report.conclude_records(RunRecords(run(**counts)))
    reviewed = concluded.facts[0]
    assert english.value(reviewed.value) == fact
    assert reviewed.status is status
    assert english.text(concluded.summary) == summary


def test_report_captions_say_which_counts_are_from_the_check_and_which_from_the_decision() -> None:
    records = run(requested=1, reviewed=1)
    title = verbatim("A rule").model_dump(mode="json")
    records[1].data["rules"] = [
        {"rule": "a", "title": title, "severity": "fail", "rows": 1, "broken": 1}
    ]
    records[3].data["set_aside"] = 2
    english = Translator("en")
    texts = [
        english.text(block.caption)
        for section in report.conclude_records(RunRecords(records)).sections
        for block in section.blocks
        if isinstance(block, BarChart | Table) and block.caption
    ]
    (table,) = [text for text in texts if text.startswith("The oldest batch")]
    (chart,) = [text for text in texts if text.startswith("Numbers of records")]
    assert "The number of broken rules is from the check before the review" in table
    assert "quarantined and rejected records are from the execution of the decision" in table
    assert "when the batches were checked" in chart


def test_report_names_intake_rule_of_batch_only_if_batches_of_several_rules_were_checked() -> None:
    records = run(requested=2, reviewed=2)
    assert _batch_names(records) == ["IN-0", "IN-1"]
    parts = ["customers/IN-0", "parcels/IN-0"]
    records[0].data["batches"] = parts
    for record in records:
        if record.part == "customers/IN-1":
            record.part = parts[1]
    assert _batch_names(records) == parts


def _batch_names(records: list[StepRecord]) -> list[str]:
    english = Translator("en")
    tables = [
        block
        for section in report.conclude_records(RunRecords(records)).sections
        for block in section.blocks
        if isinstance(block, Table)
    ]
    return [english.value(row[0]) for row in tables[0].rows]
