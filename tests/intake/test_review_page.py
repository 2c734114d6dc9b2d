"""The page that shows a batch to its reviewer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.intake import steps
from tests.intake.conftest import ENTERER, NOW, OLDEST, Rig


def test_review_page_contains_number_of_records_that_can_be_promoted(rig: Rig) -> None:
    rig.rows(
        "UPDATE intake_record SET phone = '1', email = 'none' WHERE batch_id = %s "
        "AND mod(intake_id, 10) = 0",
        OLDEST,
    )
    checked = rig.checked()
    broken = sum(rule["broken"] for rule in checked.data["rules"] if rule["severity"] == "fail")
    page = steps.ask(rig.table, checked).body
    rig.answered(checked)
    done = steps.settle(rig.table, checked).data
    assert 0 < done["set_aside"] < broken
    assert f"\n- {done['promoted']} of 30 records meet all rules for acceptance\n" in page
    assert f"\n- 30 条记录中有 {done['promoted']} 条符合全部质量要求\n" in page


@pytest.mark.parametrize("batch", [OLDEST, "IN-000004"])
def test_review_page_contains_the_word_overdue_only_if_the_deadline_has_passed(
    rig: Rig, batch: str
) -> None:
    checked = rig.checked(batch)
    action = steps.ask(rig.table, checked)
    page = action.body
    late = batch == OLDEST
    assert (", OVERDUE since 2026-" in action.subject) is late
    assert ("已逾期" in action.subject) is late
    assert (", due 2026-" in action.subject) is not late
    assert "\n- To be reviewed by 2026-" in page
    assert (": **overdue**\n" in page) is late
    assert ("（**已逾期**）\n" in page) is late


def test_batch_is_overdue_only_after_its_deadline(rig: Rig) -> None:
    rig.rows("UPDATE intake_record SET entered_at = %s", NOW - timedelta(hours=72))
    assert "overdue" not in steps.ask(rig.table, rig.checked()).body


def test_staff_accounts_with_markup_are_escaped_on_review_page(rig: Rig) -> None:
    hostile = "x](http://y) ![i](http://z) <b>*e*\n# head\u202e"
    plain = "wang_li@example.com"
    rig.rows("UPDATE employee SET number = %s WHERE number = %s", hostile, ENTERER)
    rig.rows("UPDATE employee SET number = %s WHERE number = 'E00017'", plain)
    checked = rig.checked()
    action = steps.ask(rig.table, checked)
    for sign in ("](", "![", "<b>", "*e*", "\n# head", "\u202e"):
        assert sign not in action.body
    assert r"wang\_li@example.com" in action.body
    assert plain in action.assigned
