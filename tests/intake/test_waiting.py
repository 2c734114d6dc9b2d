"""Which waiting batches are asked about: what is wrong with one batch hides no other."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.evidence.model import Outcome
from include.intake import report
from include.workflow.run_records import RunRecords
from tests.intake import steps
from tests.intake.conftest import NOW, OLDEST, Rig

OTHERS = [f"customers/IN-00000{n}" for n in (4, 5, 6)]


def entered(rig: Rig, at: str | None, *, rows: int = 30) -> None:
    """Give rows of the oldest batch another time of entry."""
    rig.rows("ALTER TABLE intake_record ALTER entered_at DROP NOT NULL")
    rig.rows(
        "UPDATE intake_record SET entered_at = %s::timestamptz WHERE intake_id IN "
        "(SELECT intake_id FROM intake_record WHERE batch_id = %s ORDER BY 1 LIMIT %s)",
        at,
        OLDEST,
        rows,
    )


@pytest.mark.parametrize("rows", [1, 30])
@pytest.mark.parametrize(
    "at", [None, "infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "20000-01-01 00:00:00+00"]
)
def test_a_batch_without_a_time_of_entry_is_a_finding_and_hides_no_other(
    rig: Rig, at: str | None, rows: int
) -> None:
    """No deadline can be counted for such records; those of all others are."""
    entered(rig, at, rows=rows)
    found = steps.find([rig.table])
    assert found.data["batches"] == OTHERS
    (finding,) = found.findings
    assert (finding.code, finding.severity) == ("intake.undated", Outcome.FAIL)
    assert finding.subject == f"customers/{OLDEST}"
    assert finding.message.values == {"count": rows, "rows": 30}
    late = 3 if rows == 30 else 4
    assert steps.verify([rig.later(hours=80)], []).data["past_deadline"] == late
    checked = steps.check(rig.table, OLDEST)  # as when it lost its times since it was found
    assert [one.code for one in checked.findings] == ["intake.undated"]
    assert checked.data["request"] is None
    assert report.concluded(RunRecords([found])).facts[0].value.values["wanted"] == 4  # type: ignore[union-attr]


def test_an_entry_in_the_future_is_a_finding_and_the_batch_is_asked_about(rig: Rig) -> None:
    """It would wait for ever without anybody being told that it waits too long."""
    entered(rig, "2099-01-01 00:00:00+00")
    found = steps.find([rig.table])
    assert found.data["batches"] == [*OTHERS, f"customers/{OLDEST}"]
    (finding,) = found.findings
    assert (finding.code, finding.severity) == ("intake.entered_ahead", Outcome.FAIL)
    assert finding.subject == f"customers/{OLDEST}"
    checked = rig.checked()
    rig.answered(checked)
    assert steps.settle(rig.table, checked).data["promoted"] > 0


def test_clocks_of_two_machines_may_differ_a_little(rig: Rig) -> None:
    """An entry of the next minute is no finding."""
    entered(rig, (NOW + timedelta(minutes=1)).isoformat())
    assert steps.find([rig.table]).findings == []


@pytest.mark.parametrize("name", ["13912345678", "IN-139-1234-5678", "53010219200508011X"])
def test_a_batch_that_is_named_by_a_number_of_a_person_is_not_asked_about(
    rig: Rig, name: str
) -> None:
    """The name would be kept in evidence and XCom; the finding does not repeat it."""
    rig.rows("UPDATE intake_record SET batch_id = %s WHERE batch_id = %s", name, OLDEST)
    found = steps.find([rig.table])
    assert found.data["batches"] == OTHERS
    (finding,) = found.findings
    assert (finding.code, finding.severity) == ("intake.personal_name", Outcome.FAIL)
    assert finding.message.values == {"count": 1, "table": "intake_record"}
    verified = steps.verify([rig.later(hours=200)], [])
    assert name not in found.model_dump_json() + verified.model_dump_json()
    assert report.concluded(RunRecords([found])).facts[0].value.values["wanted"] == 4  # type: ignore[union-attr]
