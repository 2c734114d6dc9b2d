"""Tests which content and which people make an answer to a review request valid."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.approvals.required_action import InvalidAnswer
from tests.intake import steps
from tests.intake.conftest import ENTERER, NOW, OLDEST, REVIEWER, Rig


def test_review_answer_raises_error_if_the_batch_changed_after_the_form_was_created(
    rig: Rig,
) -> None:
    shown = steps.ask(rig.table, rig.checked())
    rig.rows(
        "UPDATE intake_record SET name = 'Somebody Else' WHERE intake_id = "
        "(SELECT min(intake_id) FROM intake_record WHERE batch_id = %s)",
        OLDEST,
    )
    checked = rig.checked()
    with pytest.raises(InvalidAnswer, match="changed after the review form was created"):
        rig.answered(checked, content=shown.content)
    steps.settle(rig.table, checked)
    assert rig.states() == {"pending": 30}
    again = steps.ask(rig.table, checked)
    assert checked.data["sha256"] in again.body
    assert again.content != shown.content
    with pytest.raises(InvalidAnswer):  # another browser window still shows the first form
        rig.answered(checked, content=shown.content, at=NOW + timedelta(minutes=1))
    record = rig.answered(checked, content=again.content, at=NOW + timedelta(minutes=2))
    (finding,) = [finding for finding in record.findings if finding.code == "intake.other_content"]
    assert finding.message.values["count"] == 2
    assert steps.settle(rig.table, checked).data["promoted"] == 24


def test_review_answer_is_accepted_if_batch_was_checked_again_and_has_not_changed(rig: Rig) -> None:
    shown = steps.ask(rig.table, rig.checked())
    checked = rig.checked()
    assert steps.ask(rig.table, checked).content == shown.content
    assert rig.answered(checked, content=shown.content).data["refused"] is None


def test_another_spelling_of_the_account_that_entered_the_rows_is_not_assigned_to_the_review(
    rig: Rig,
) -> None:
    rig.rows("UPDATE employee SET number = lower(%s) WHERE number = %s", ENTERER, ENTERER)
    rig.rows(
        "UPDATE employee SET number = %s WHERE number = 'E00017'",
        f"\u200b{ENTERER}",
    )
    action = steps.ask(rig.table, rig.checked())
    assert f"\u200b{ENTERER}" not in action.assigned
    assert REVIEWER in action.assigned


def test_review_answer_is_accepted_if_account_of_the_reviewer_is_in_lower_case(rig: Rig) -> None:
    checked = rig.checked()
    assert rig.answered(checked, user=REVIEWER.lower()).data["refused"] is None
    assert steps.settle(rig.table, checked).data["promoted"] == 24
    assert (
        rig.one("SELECT DISTINCT reviewed_by FROM intake_record WHERE batch_id = %s", OLDEST) == 3
    )
