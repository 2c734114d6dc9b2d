"""What a run's report says of batches that it did not ask about, from records of its steps."""

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


def run(*, asked: int, reviewed: int, left: int = 0) -> list[StepRecord]:
    """The records of a run that asked about some of the batches that waited."""
    parts = [f"customers/IN-{n}" for n in range(asked)]
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
    ("given", "fact", "status", "summary"),
    [
        (
            {"asked": 1, "reviewed": 1, "left": 2},
            "1 of 3",
            Outcome.ATTENTION,
            "All 1 batches that were asked about were reviewed; 2 more wait within their deadline.",
        ),
        (
            {"asked": 3, "reviewed": 3},
            "3 of 3",
            Outcome.PASS,
            "All 3 batches that waited were reviewed.",
        ),
        (
            {"asked": 2, "reviewed": 1, "left": 2},
            "1 of 4",
            Outcome.ATTENTION,
            "1 of 4 batches were reviewed; the others wait within their deadline.",
        ),
    ],
)
def test_all_is_said_only_when_none_was_left_for_another_run(
    given: dict[str, int], fact: str, status: Outcome, summary: str
) -> None:
    """Batches beyond most_batches wait too."""
    english = Translator("en")
    concluded = report.concluded(RunRecords(run(**given)))
    reviewed = concluded.facts[0]
    assert english.value(reviewed.value) == fact
    assert reviewed.status is status
    assert english.text(concluded.summary) == summary


def test_figures_of_the_check_and_of_the_settlement_say_which_they_are() -> None:
    """What was let in between the two can make a record a duplicate: more are set aside."""
    records = run(asked=1, reviewed=1)
    title = verbatim("A rule").model_dump(mode="json")
    records[1].data["rules"] = [
        {"rule": "a", "title": title, "severity": "fail", "rows": 1, "broken": 1}
    ]
    records[3].data["set_aside"] = 2
    english = Translator("en")
    texts = [
        english.text(block.caption)
        for section in report.concluded(RunRecords(records)).sections
        for block in section.blocks
        if isinstance(block, BarChart | Table) and block.caption
    ]
    (table,) = [one for one in texts if one.startswith("Oldest first")]
    (chart,) = [one for one in texts if one.startswith("By rule")]
    assert "Rules broken: when the batch was checked" in table
    assert "set aside and rejected: when it was settled" in table
    assert "when the batches were checked" in chart
