"""What compliance staff read: the first screen, departments, who is overdue, what was told."""

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
from include.training.standing import STEP_PLAN
from include.training.workflow import REMIND_TRAINING
from include.workflow.run_records import RunRecords
from tests.support.contexts import step_record
from tests.training.rig import Rig
from tests.training.test_plan import trained

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


def concluded(rig: Rig, *more: StepRecord) -> Conclusion:
    return judged(rig, [step_record(PLAN, rig.context()), *(more or (SENT,))])


def judged(rig: Rig, records: Sequence[StepRecord]) -> Conclusion:
    rig.controls = CONTROLS
    return report.conclude(rig.context(), RunRecords(records))


def summary(found: Conclusion, language: str = "en") -> str:
    return Translator(language).text(found.summary)


def facts(found: Conclusion) -> dict[str, Any]:
    return {one.label.text: (one.value, one.status) for one in found.facts}


def tables(found: Conclusion) -> dict[str, list[list[Any]]]:
    blocks = [block for section in found.sections for block in section.blocks]
    return {block.caption.text: block.rows for block in blocks if isinstance(block, Table)}


def test_a_good_day_says_so_in_both_languages(rig: Rig):
    """Everybody trained: green, with the target beside the figure."""
    trained(rig)
    found = concluded(rig)
    assert found.outcome is Outcome.PASS
    assert summary(found) == "1 of 1 people (100%) have no overdue course; courses overdue: 0."
    assert summary(found, "zh_CN") == "1 人中有 1 人（100%）没有逾期课程；逾期课程 0 门次。"
    assert facts(found) == {
        "Trained": (1.0, Outcome.PASS),
        "Access without valid training": (0, Outcome.PASS),
        "Courses overdue": (0, None),
        "Messages sent in this run": (3, None),
    }
    assert Translator("en").text(found.facts[0].note) == "at least 95%"


def test_the_worst_departments_come_first(rig: Rig):
    """With their share against the target, as bars and as figures."""
    trained(rig)
    rig.person("P1", "2025-01-20", department="South", access=True)
    rig.person("P2", "2025-01-20", department="Empty", leave_from="2026-01-01")
    found = concluded(rig)
    blocks = [block for section in found.sections for block in section.blocks]
    [bars] = [one for one in blocks if isinstance(one, BarChart)]
    assert [(one.label, one.value, one.status) for one in bars.bars] == [
        ("South", 0.0, Outcome.FAIL),
        ("North", 1.0, Outcome.PASS),
        ("Empty", None, None),
    ]
    assert bars.target is not None
    assert bars.target.value == 0.95
    [trend] = [one for one in blocks if isinstance(one, TrendChart)]
    assert [one.value for one in trend.points] == [0.5]
    assert tables(found)["Departments"][0] == ["South", 1, 0, 0.0, 4, 0, 0]
    assert summary(found) == (
        "1 of 2 people (50%) have no overdue course; 1 may open customer records without valid "
        "training."
    )
    assert found.outcome is Outcome.FAIL


def test_people_stand_in_it_by_number(rig: Rig):
    """Overdue courses, the oldest first, and access without training; no names, no addresses."""
    trained(rig)
    rig.person("P1", "2025-01-20", access=True)
    found = concluded(rig)
    rows = tables(found)["Overdue courses"]
    assert [row[0] for row in rows] == ["P1"] * 4
    assert rows[0][4] == 376
    assert [row[0] for row in tables(found)["People"]] == ["P1"]
    assert "Name of" not in found.sections.__repr__()
    assert "@" not in found.sections.__repr__()


def test_a_long_list_says_what_it_leaves_out(rig: Rig):
    """The file has all of them."""
    trained(rig)
    rig.execute(
        "INSERT INTO people (person, name, department, joined_on, access, head) SELECT 'Q' || n, "
        "'N', 'North', '2025-01-20', false, false FROM generate_series(1, 100) n"
    )
    found = concluded(rig)
    captions = [
        Translator("en").text(block.caption)
        for section in found.sections
        for block in section.blocks
        if isinstance(block, Table)
    ]
    assert "Overdue courses: the first 200 of 400" in captions


@pytest.mark.parametrize("absent", [STEP_PLAN, STEP_SEND])
def test_a_step_that_did_not_finish_is_red(rig: Rig, absent: str):
    """Nothing that nobody looked at passes."""
    trained(rig)
    records = [one for one in (step_record(PLAN, rig.context()), SENT) if one.step != absent]
    found = judged(rig, records)
    assert found.outcome is Outcome.FAIL
    assert f"training.{absent}.missing" in {one.code for one in found.findings}
    if absent == STEP_PLAN:
        assert summary(found) == "Nobody could see who is trained."
        assert facts(found)["Trained"] == (None, None)


def test_missing_records_leave_the_first_screen_without_figures(rig: Rig):
    """Somebody without a number: what is left would look better than what is."""
    trained(rig)
    rig.person("", "2025-01-20")
    found = concluded(rig)
    assert summary(found).startswith("People or courses are missing in the records")
    assert facts(found)["Trained"] == (None, None)
    assert facts(found)["Access without valid training"] == (None, None)


def test_a_share_just_below_the_target_does_not_read_like_it(rig: Rig):
    """94.996% is no 95%."""
    trained(rig)
    data = step_record(PLAN, rig.context()).data | {"people": 100_000, "covered": 94_996}
    record = StepRecord(step=STEP_PLAN, outcome=Outcome.FAIL, data=data)
    found = judged(rig, [record, SENT])
    assert "(94.99%)" in summary(found)
    assert facts(found)["Trained"] == (0.9499, Outcome.FAIL)


def test_an_empty_roster_has_no_share(rig: Rig):
    """Not measured is no 0% and no 100%."""
    rig.course()
    found = concluded(rig)
    assert summary(found) == "The roster has nobody who has to be trained."
    assert facts(found)["Trained"] == (None, None)


def test_a_pack_without_training_is_calm():
    """No training.yaml: nothing done, nothing shown, nothing red."""
    record = StepRecord(step=STEP_PLAN, outcome=Outcome.PASS, data={})
    found = REMIND_TRAINING.conclude_without_rules([record])
    assert found.outcome is Outcome.PASS
    assert found.metrics == []
