"""Tests of the report of `remind_training`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from include.evidence.model import Outcome, StepRecord
from include.notify.sending import STEP_SEND
from include.policy import SHIPPED
from include.registry import load_pack
from include.reports.conclusion import Conclusion
from include.reports.i18n import Translator
from include.reports.model import BarChart, Table, TrendChart
from include.training import report
from include.training.plan import PLAN
from include.training.training_status import STEP_PLAN
from include.training.workflow import REMIND_TRAINING
from include.workflow.run_records import RunRecords
from tests.support.contexts import step_record
from tests.training.test_plan import add_trained_person
from tests.training.training_fixtures import TrainingCompany

CONTROLS = load_pack(SHIPPED).controls_of("remind_training")
SENT = StepRecord(
    step=STEP_SEND,
    outcome=Outcome.PASS,
    data={
        "messages": 3,
        "waiting": 0,
        "deferred": 0,
        "kinds": [["training.reminder", 4, 3]],
        "undeliverable": [],
        "in_doubt": [],
        "undeliverable_count": 0,
        "in_doubt_count": 0,
    },
)


def conclude_plan(company: TrainingCompany, *more: StepRecord) -> Conclusion:
    return conclude(company, [step_record(PLAN, company.context()), *(more or (SENT,))])


def conclude(company: TrainingCompany, records: Sequence[StepRecord]) -> Conclusion:
    company.controls = CONTROLS
    return report.conclude(company.context(), RunRecords(records))


def summary(conclusion: Conclusion, language: str = "en") -> str:
    return Translator(language).text(conclusion.summary)


def facts(conclusion: Conclusion) -> dict[str, Any]:
    return {fact.label.text: (fact.value, fact.status) for fact in conclusion.facts}


def tables(conclusion: Conclusion) -> dict[str, list[list[Any]]]:
    blocks = [block for section in conclusion.sections for block in section.blocks]
    return {block.caption.text: block.rows for block in blocks if isinstance(block, Table)}


def test_report_passes_if_everyone_is_trained(company: TrainingCompany):
    add_trained_person(company)
    conclusion = conclude_plan(company)
    assert conclusion.outcome is Outcome.PASS
    assert (
        summary(conclusion) == "1 of 1 people (100%) have no overdue course; 0 courses are overdue."
    )
    assert summary(conclusion, "zh_CN") == "1 人中有 1 人（100%）没有逾期课程；逾期课程 0 门次。"
    assert facts(conclusion) == {
        "Share of trained people": (1.0, Outcome.PASS),
        "People who should not have access": (0, Outcome.PASS),
        "Courses overdue": (0, None),
        "Messages sent in this run": (3, None),
    }
    assert Translator("en").text(conclusion.facts[0].note) == "at least 95%"


def test_report_sorts_departments_by_coverage(company: TrainingCompany):
    add_trained_person(company)
    company.add_person("P1", "2025-01-20", department="South", access=True)
    company.add_person("P2", "2025-01-20", department="Empty", leave_from="2026-01-01")
    conclusion = conclude_plan(company)
    blocks = [block for section in conclusion.sections for block in section.blocks]
    [bars] = [block for block in blocks if isinstance(block, BarChart)]
    assert [(bar.label, bar.value, bar.status) for bar in bars.bars] == [
        ("South", 0.0, Outcome.FAIL),
        ("North", 1.0, Outcome.PASS),
        ("Empty", None, None),
    ]
    assert bars.target is not None
    assert bars.target.value == 0.95
    [trend] = [block for block in blocks if isinstance(block, TrendChart)]
    assert [point.value for point in trend.points] == [0.5]
    assert tables(conclusion)["Departments"][0] == ["South", 1, 0, 0.0, 4, 0, 0]
    assert summary(conclusion) == (
        "1 of 2 people (50%) have no overdue course; 1 people have access to customer records "
        "although they have no valid training or are not employed."
    )
    assert conclusion.outcome is Outcome.FAIL


def test_report_identifies_people_by_staff_number_only(company: TrainingCompany):
    add_trained_person(company)
    company.add_person("P1", "2025-01-20", access=True)
    conclusion = conclude_plan(company)
    rows = tables(conclusion)["Overdue courses"]
    assert [row[0] for row in rows] == ["P1"] * 4
    assert rows[0][4] == 376
    assert [row[0] for row in tables(conclusion)["People"]] == ["P1"]
    assert "Name of" not in conclusion.sections.__repr__()
    assert "@" not in conclusion.sections.__repr__()


def test_report_contains_only_the_first_200_overdue_courses(company: TrainingCompany):
    add_trained_person(company)
    company.execute(
        "INSERT INTO people (person, name, department, joined_on, access, head) SELECT 'Q' || n, "
        "'N', 'North', '2025-01-20', false, false FROM generate_series(1, 100) n"
    )
    conclusion = conclude_plan(company)
    captions = [
        Translator("en").text(block.caption)
        for section in conclusion.sections
        for block in section.blocks
        if isinstance(block, Table)
    ]
    assert "Overdue courses: the first 200 of 400" in captions


@pytest.mark.parametrize("absent", [STEP_PLAN, STEP_SEND])
def test_report_fails_if_step_record_is_missing(company: TrainingCompany, absent: str):
    add_trained_person(company)
    records = [
        record for record in (step_record(PLAN, company.context()), SENT) if record.step != absent
    ]
    conclusion = conclude(company, records)
    assert conclusion.outcome is Outcome.FAIL
    assert f"training.{absent}.missing" in {finding.code for finding in conclusion.findings}
    if absent == STEP_PLAN:
        assert summary(conclusion) == "The training of people could not be checked."
        assert facts(conclusion)["Share of trained people"] == (None, None)


def test_report_omits_training_coverage_if_records_are_incomplete(company: TrainingCompany):
    add_trained_person(company)
    company.add_person("", "2025-01-20")
    conclusion = conclude_plan(company)
    assert summary(conclusion).startswith("The records of people or of courses are incomplete")
    assert facts(conclusion)["Share of trained people"] == (None, None)
    assert facts(conclusion)["People who should not have access"] == (None, None)


def test_report_rounds_coverage_down(company: TrainingCompany):
    add_trained_person(company)
    data = step_record(PLAN, company.context()).data | {"people": 100_000, "covered": 94_996}
    record = StepRecord(step=STEP_PLAN, outcome=Outcome.FAIL, data=data)
    conclusion = conclude(company, [record, SENT])
    assert "(94.99%)" in summary(conclusion)
    assert facts(conclusion)["Share of trained people"] == (0.9499, Outcome.FAIL)


def test_report_omits_training_coverage_if_roster_is_empty(company: TrainingCompany):
    company.add_course()
    conclusion = conclude_plan(company)
    assert summary(conclusion) == "The roster has no people who need training."
    assert facts(conclusion)["Share of trained people"] == (None, None)


def test_report_of_policy_pack_without_training_rules_passes():
    record = StepRecord(step=STEP_PLAN, outcome=Outcome.PASS, data={})
    conclusion = REMIND_TRAINING.conclude_without_rules([record])
    assert conclusion.outcome is Outcome.PASS
    assert conclusion.metrics == []
