"""What the reviewer's page says of a batch before it is decided on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.intake import steps
from tests.intake.conftest import ENTERER, NOW, OLDEST, Rig


def test_the_page_says_how_many_records_would_be_let_in(rig: Rig) -> None:
    """A record that breaks two rules is kept out once; all that are counted are let in."""
    rig.rows(
        "UPDATE intake_record SET phone = '1', email = 'none' WHERE batch_id = %s "
        "AND mod(intake_id, 10) = 0",
        OLDEST,
    )
    checked = rig.checked()
    broken = sum(one["broken"] for one in checked.data["rules"] if one["severity"] == "fail")
    page = steps.ask(rig.table, checked).body
    rig.answered(checked)
    done = steps.settle(rig.table, checked).data
    assert 0 < done["set_aside"] < broken
    assert f"\n- {done['promoted']} of 30 records break no rule that keeps them out\n" in page
    assert f"\n- 30 条记录中有 {done['promoted']} 条符合全部准入规则\n" in page


@pytest.mark.parametrize("batch", [OLDEST, "IN-000004"])
def test_the_page_says_that_the_deadline_has_passed(rig: Rig, batch: str) -> None:
    """Only then: the oldest batch is late from the start."""
    checked = rig.checked(batch)
    question = steps.ask(rig.table, checked)
    page = question.body
    late = batch == OLDEST
    assert (", OVERDUE since 2026-" in question.subject) is late
    assert ("已逾期" in question.subject) is late
    assert (", by 2026-" in question.subject) is not late
    assert "\n- To be reviewed by 2026-" in page
    assert (": **overdue**\n" in page) is late
    assert ("（**已逾期**）\n" in page) is late


def test_a_deadline_is_met_to_the_moment(rig: Rig) -> None:
    """As the count afterwards has it."""
    rig.rows("UPDATE intake_record SET entered_at = %s", NOW - timedelta(hours=72))
    assert "overdue" not in steps.ask(rig.table, rig.checked()).body


def test_names_of_staff_cannot_change_the_page(rig: Rig) -> None:
    """An account is data of the staff table, and Markdown in it would be shown as such."""
    hostile = "x](http://y) ![i](http://z) <b>*e*\n# head\u202e"
    plain = "wang_li@example.com"
    rig.rows("UPDATE employee SET number = %s WHERE number = %s", hostile, ENTERER)
    rig.rows("UPDATE employee SET number = %s WHERE number = 'E00017'", plain)
    checked = rig.checked()
    question = steps.ask(rig.table, checked)
    for sign in ("](", "![", "<b>", "*e*", "\n# head", "\u202e"):
        assert sign not in question.body
    assert r"wang\_li@example.com" in question.body
    assert plain in question.assigned
