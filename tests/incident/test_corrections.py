"""Tests that an entry that a correction declares to be a mistake is ignored but not removed."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from include.incident import report, timeline, watch
from include.incident.form import Action
from include.incident.incident_ids import Kind
from include.incident.steps import decision
from include.incident.steps.closing import open_points
from include.incident.time_limits.time_limit import TimeLimit, TimeLimitState, time_limits_of
from include.services.errors import UsageError
from tests.incident.decision_fixtures import asked, given, widened
from tests.incident.incident_fixtures import BOSS, COMP, LEAD, SERVICE, Case, Company, english


def left(case: Case) -> list[str]:
    return [english(point) for point in open_points(case.context, case.record)]


def time_limit(case: Case, ends: str) -> TimeLimit:
    """Return the first time limit of an incident that requires the milestone `ends`."""
    return next(
        item for item in time_limits_of(case.context, case.record) if item.rule.ends == ends
    )


def test_report_to_authority_is_due_again_after_timeline_entry_was_declared_a_mistake(
    company: Company,
) -> None:
    case = company.open(1).until("grade", grade={"grade": "larger", "reason": "the press knows"})
    case.answer("report")
    wrong = case.entries(Kind.REPORTED)[-1].place
    assert not time_limit(case, "reported").is_open
    assert case.ask("report") is None
    company.clock.on(hours=30)
    entry = case.update(Action.CORRECT, by=LEAD, words="it was another incident's", entry=wrong)
    assert entry.kind is Kind.CORRECTED
    assert english(entry.words).startswith(f"Entry {wrong} of the timeline was a mistake")
    assert time_limit(case, "reported").state is TimeLimitState.OVERDUE
    assert any(item.startswith("first report to") for item in left(case))
    assert case.ask("report") is not None
    findings = report.conclude_entry(case.context, case.record, entry.place, []).findings
    assert [(item.subject, english(item.action)) for item in findings] == [
        (f"{case.number}/{wrong}",
         "Ask the data engineers to repeat the step “First report to an authority” in Airflow, "
         "then answer “First report to an authority” again."),
    ]  # fmt: skip
    case.answer("report")
    late = time_limit(case, "reported")
    assert (late.is_open, late.is_late, late.done_at) == (
        False,
        True,
        case.entries(Kind.REPORTED)[-1].happened_at,
    )
    assert wrong in [entry.place for entry in case.entries(Kind.REPORTED)]
    assert timeline.verify_timeline(case.number, case.record.entries) is None


def test_report_to_authority_is_due_again_after_answer_not_needed_was_declared_a_mistake(
    company: Company,
) -> None:
    case = company.open(1).until("grade", grade={"grade": "larger", "reason": "the press knows"})
    case.answer("report", option="Not needed", receipt="", reason="they know")
    case.update(Action.CORRECT, by=LEAD, entry=case.entries(Kind.REPORTED)[-1].place)
    assert time_limit(case, "reported").is_open
    assert any(point.startswith("first report to") for point in left(case))


def test_incident_is_not_contained_any_more_after_entry_about_containment_is_corrected(
    company: Company,
) -> None:
    case = company.open(1).counted()
    case.answer("contain")
    assert "the incident is not contained" not in left(case)
    case.update(Action.CORRECT, by=LEAD, entry=case.entries(Kind.CONTAINED)[-1].place)
    assert "the incident is not contained" in left(case)
    assert time_limit(case, "contained").is_open
    case.answer("contain")
    assert "the incident is not contained" not in left(case)
    assert not time_limit(case, "contained").is_open


def test_time_limit_to_notify_people_is_open_again_if_entry_about_phone_calls_is_corrected(
    company: Company,
) -> None:
    case = company.open(1, 11).until("decide")
    case.notify()
    case.delivered("undeliverable")
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="called them")
    case.settle()
    assert not time_limit(case, "individuals_told").is_open
    wrong = case.entries(Kind.TOLD_OTHERWISE)[-1].place
    case.update(Action.CORRECT, by=LEAD, words="nobody picked up", entry=wrong)
    assert time_limit(case, "individuals_told").is_open
    assert any("could not be notified by mail" in point for point in left(case))
    case.settle()
    assert time_limit(case, "individuals_told").is_open
    company.clock.on(hours=1)
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="wrote to them")
    case.settle()
    assert time_limit(case, "individuals_told").done_at == company.clock.now()


@pytest.mark.parametrize("position", [None, 0, 2, 99])
def test_error_contains_correctable_entries_if_entry_number_of_correction_is_invalid(
    company: Company, position: int | None
) -> None:
    case = company.open(1)
    case.answer("contain")
    case.update(Action.CORRECT, by=LEAD, entry=2)
    case.answer("contain")
    count = len(case.entries())
    with pytest.raises(UsageError, match=r"`entry`(:| is missing)") as refused:
        case.update(Action.CORRECT, by=LEAD, entry=position)
    assert position is None or refused.value.action.startswith("Entries: 4.")
    assert len(case.entries()) == count


@pytest.mark.parametrize("author", [COMP, SERVICE])
def test_correction_by_person_who_is_not_a_leader_raises_usage_error(
    company: Company, author: str
) -> None:
    case = company.open(1)
    case.answer("contain")
    with pytest.raises(UsageError, match="may not enter this"):
        case.update(Action.CORRECT, by=author, entry=2)


def test_correction_of_own_entry_raises_usage_error(
    company: Company,
) -> None:
    case = company.open(1).until("grade")
    case.update(Action.ASSIGN, by=LEAD, account=BOSS, duty="compliance")
    case.answer("report", BOSS)
    wrong = case.entries(Kind.REPORTED)[-1].place
    with pytest.raises(UsageError, match="The author of an entry may not correct it"):
        case.update(Action.CORRECT, by=BOSS, entry=wrong)
    case.update(Action.CORRECT, by=LEAD, entry=wrong)
    conclusion = report.conclude_incident(case.context, case.number, [])
    [mistake] = [finding for finding in conclusion.findings if finding.code == "incident.mistake"]
    assert mistake.subject == f"{case.number}/{wrong}"
    assert "entry of B1" in english(mistake.message)
    assert "L1 recorded at" in english(mistake.message)


def test_correction_with_entered_time_of_event_raises_usage_error(company: Company) -> None:
    case = company.open(1)
    case.answer("contain")
    with pytest.raises(UsageError, match="`at` is not allowed for correct"):
        case.update(Action.CORRECT, by=LEAD, entry=2, at=company.clock.now().isoformat())


def test_notification_stays_complete_if_entry_is_corrected_after_notices_were_sent(
    company: Company,
) -> None:
    case = company.open(1).until("decide")
    case.notify()
    case.delivered("undeliverable")
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="called them")
    case.settle()
    company.clock.on(hours=2)
    case.delivered("sent")
    sent = company.clock.now()
    company.clock.on(hours=1)
    wrong = case.entries(Kind.TOLD_OTHERWISE)[-1].place
    case.update(Action.CORRECT, by=LEAD, entry=wrong)
    case.settle()
    assert time_limit(case, "individuals_told").done_at == sent


def test_correction_of_entry_about_phone_calls_makes_completed_notification_incomplete(
    company: Company,
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    case.delivered("undeliverable")
    run = widened(case, 1, 2, 3)
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="called them")
    wrong = case.entries(Kind.TOLD_OTHERWISE)[-1].place
    decision.Decision(run, case.record).dry_run()
    decision.Decision(run, case.record).record_answer(
        given(case, decision.DO_NOT_TELL, reason="It is our own man")
    )
    case.settle()
    assert case.entries(Kind.TOLD)[-1].data["complete"] is True
    case.update(Action.CORRECT, by=LEAD, entry=wrong)
    assert time_limit(case, "individuals_told").is_open
    completeness = [
        entry.data["complete"] for entry in case.record.valid if entry.kind is Kind.TOLD
    ]
    assert completeness == [False]


def test_report_to_authority_is_due_again_if_later_of_two_report_entries_is_corrected(
    company: Company,
) -> None:
    case = company.open(1).until("grade", grade={"grade": "larger", "reason": "the press knows"})
    case.answer("report", option="Not needed", receipt="", reason="they know")
    case.answer("report")
    case.update(Action.CORRECT, by=LEAD, entry=case.entries(Kind.REPORTED)[-1].place)
    assert time_limit(case, "reported").is_open
    assert any(point.startswith("first report to") for point in left(case))


def test_follow_up_report_does_not_meet_time_limit_of_first_report(company: Company) -> None:
    larger = {"grade": "larger", "reason": "the press knows"}
    case = company.open(1).until("report_rest", grade=larger)
    first = next(entry for entry in case.entries(Kind.REPORTED) if entry.data["authority"] == "cac")
    case.update(Action.CORRECT, by=LEAD, entry=first.place)
    assert time_limit(case, "reported").is_open
    assert any(point.startswith("first report to") for point in left(case))


def test_compliance_and_management_are_notified_once_after_report_entry_is_corrected(
    company: Company,
) -> None:
    case = company.open(1).until("report")
    wrong = case.entries(Kind.REPORTED)[-1].place
    entry = case.update(Action.CORRECT, by=LEAD, entry=wrong)
    for _again in range(2):
        watch.watch_once(case.context)
    with company.state.connect() as conn:
        query = text("SELECT key FROM notification WHERE key LIKE :mine ORDER BY key")
        keys = conn.scalars(query, {"mine": f"{case.number}/corrected/%"}).all()
    assert keys
    assert {key.split("/")[2] for key in keys} == {str(entry.place)}
    assert {key.split("/")[3] for key in keys} == {"compliance", "management"}
