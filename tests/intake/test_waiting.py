"""Tests of finding the pending batches. A batch with a fault must not hide other batches."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.evidence.model import Outcome
from include.intake import report
from include.messages import in_english
from include.workflow.run_records import RunRecords
from tests.intake import steps
from tests.intake.conftest import NOW, OLDEST, Rig

OTHERS = [f"customers/IN-00000{n}" for n in (4, 5, 6)]


def entered(rig: Rig, at: str | None, *, rows: int = 30) -> None:
    """Set the time of entry of rows in the oldest batch."""
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
def test_batch_without_valid_entry_time_creates_a_finding_and_is_not_submitted(
    rig: Rig, at: str | None, rows: int
) -> None:
    entered(rig, at, rows=rows)
    search = steps.find([rig.table])
    assert search.data["batches"] == OTHERS
    (finding,) = search.findings
    assert (finding.code, finding.severity) == ("intake.undated", Outcome.FAIL)
    assert finding.subject == f"customers/{OLDEST}"
    assert finding.message.values == {"count": rows, "rows": 30}
    late = 3 if rows == 30 else 4
    assert steps.verify([rig.later(hours=80)], []).data["past_deadline"] == late
    # As if the batch had lost its times of entry after the search.
    checked = steps.check(rig.table, OLDEST)
    assert [finding.code for finding in checked.findings] == ["intake.undated"]
    assert checked.data["request"] is None
    assert report.conclude_records(RunRecords([search])).facts[0].value.values["total"] == 4  # type: ignore[union-attr]


def test_batch_with_entry_time_in_the_future_creates_a_finding_and_can_be_reviewed(
    rig: Rig,
) -> None:
    entered(rig, "2099-01-01 00:00:00+00")
    search = steps.find([rig.table])
    assert search.data["batches"] == [*OTHERS, f"customers/{OLDEST}"]
    (finding,) = search.findings
    assert (finding.code, finding.severity) == ("intake.entered_ahead", Outcome.FAIL)
    assert finding.subject == f"customers/{OLDEST}"
    checked = rig.checked()
    rig.answered(checked)
    assert steps.settle(rig.table, checked).data["promoted"] > 0


def test_batch_with_entry_time_one_minute_in_the_future_creates_no_finding(rig: Rig) -> None:
    entered(rig, (NOW + timedelta(minutes=1)).isoformat())
    assert steps.find([rig.table]).findings == []


@pytest.mark.parametrize("name", ["13912345678", "IN-139-1234-5678", "53010219200508011X"])
def test_batch_whose_name_has_a_phone_or_id_number_is_not_submitted(rig: Rig, name: str) -> None:
    rig.rows("UPDATE intake_record SET batch_id = %s WHERE batch_id = %s", name, OLDEST)
    search = steps.find([rig.table])
    assert search.data["batches"] == OTHERS
    (finding,) = search.findings
    assert (finding.code, finding.severity) == ("intake.personal_name", Outcome.FAIL)
    assert in_english(finding.message).startswith("1 batches of Incoming records have a phone or")
    verified = steps.verify([rig.later(hours=200)], [])
    assert name not in search.model_dump_json() + verified.model_dump_json()
    assert report.conclude_records(RunRecords([search])).facts[0].value.values["total"] == 4  # type: ignore[union-attr]
