"""Answers to reviews: for which content they count, and from which people."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.approvals.question import AskAgain
from tests.intake import steps
from tests.intake.conftest import ENTERER, NOW, OLDEST, REVIEWER, Rig


def test_an_answer_counts_only_for_the_content_that_its_form_showed(rig: Rig) -> None:
    """The check is repeated while the review waits: the answer is asked for again."""
    shown = steps.ask(rig.table, rig.checked())
    rig.rows(
        "UPDATE intake_record SET name = 'Somebody Else' WHERE intake_id = "
        "(SELECT min(intake_id) FROM intake_record WHERE batch_id = %s)",
        OLDEST,
    )
    checked = rig.checked()
    with pytest.raises(AskAgain, match="changed after the form was made"):
        rig.answered(checked, content=shown.content)
    steps.settle(rig.table, checked)
    assert rig.states() == {"pending": 30}
    again = steps.ask(rig.table, checked)
    assert checked.data["sha256"] in again.body
    assert again.content != shown.content
    with pytest.raises(AskAgain):  # another browser window still shows the first form
        rig.answered(checked, content=shown.content, at=NOW + timedelta(minutes=1))
    record = rig.answered(checked, content=again.content, at=NOW + timedelta(minutes=2))
    (finding,) = [one for one in record.findings if one.code == "intake.other_content"]
    assert finding.message.values["count"] == 2
    assert steps.settle(rig.table, checked).data["promoted"] == 24


def test_an_answer_counts_after_a_check_that_read_the_same_content_again(rig: Rig) -> None:
    """Two windows with the same form, and a check repeated for nothing, change nothing."""
    shown = steps.ask(rig.table, rig.checked())
    checked = rig.checked()
    assert steps.ask(rig.table, checked).content == shown.content
    assert rig.answered(checked, content=shown.content).data["refused"] is None


def test_who_entered_a_record_may_not_review_it_under_another_spelling(rig: Rig) -> None:
    """Two rows of the staff table may spell one account in two ways: it is one person."""
    rig.rows("UPDATE employee SET number = lower(%s) WHERE number = %s", ENTERER, ENTERER)
    rig.rows(
        "UPDATE employee SET number = %s WHERE number = 'E00017'",
        f"\u200b{ENTERER}",
    )
    question = steps.ask(rig.table, rig.checked())
    assert f"\u200b{ENTERER}" not in question.assigned
    assert REVIEWER in question.assigned


def test_a_reviewer_answers_in_any_spelling(rig: Rig) -> None:
    """And stands in the formal records by the key of the staff table."""
    checked = rig.checked()
    assert rig.answered(checked, user=REVIEWER.lower()).data["refused"] is None
    assert steps.settle(rig.table, checked).data["promoted"] == 24
    assert (
        rig.one("SELECT DISTINCT reviewed_by FROM intake_record WHERE batch_id = %s", OLDEST) == 3
    )
