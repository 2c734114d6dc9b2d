"""What was entered by mistake: it is said to be one, counts no more, and stays to be read."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from include.incident import report, timeline, watching
from include.incident.clocks.clock import Clock, ClockState, clocks_of
from include.incident.form import Action
from include.incident.names import Kind
from include.incident.steps import decide
from include.incident.steps.closing import open_points
from include.services.errors import UsageError
from tests.incident.deciding_rig import asked, given, widened
from tests.incident.desk_rig import BOSS, COMP, LEAD, SERVICE, Case, Company, english


def left(case: Case) -> list[str]:
    return [english(one) for one in open_points(case.context, case.record)]


def clock(case: Case, ends: str) -> Clock:
    """The first clock that ends with a milestone."""
    return next(one for one in clocks_of(case.context, case.record) if one.rule.ends == ends)


def test_a_report_that_was_not_handed_in_is_due_again(company: Company) -> None:
    """Its clock runs as if nobody had answered; the step asks again, and the next answer counts."""
    case = company.open(1).until("grade", grade={"grade": "larger", "reason": "the press knows"})
    case.answer("report")
    wrong = case.entries(Kind.REPORTED)[-1].place
    assert not clock(case, "reported").is_open
    assert case.ask("report") is None
    company.clock.on(hours=30)
    entry = case.update(Action.CORRECT, by=LEAD, words="it was another incident's", entry=wrong)
    assert entry.kind is Kind.CORRECTED
    assert english(entry.words).startswith(f"Entry {wrong} was a mistake")
    assert clock(case, "reported").state is ClockState.OVERDUE
    assert any(one.startswith("first report to") for one in left(case))
    assert case.ask("report") is not None
    told = report.conclude_entry(case.context, case.record, entry.place, []).findings
    assert [(one.subject, english(one.action)) for one in told] == [
        (f"{case.number}/{wrong}",
         "Clear the task report in the incident's run in Airflow: it asks again."),
    ]  # fmt: skip
    case.answer("report")
    late = clock(case, "reported")
    assert (late.is_open, late.is_late, late.done_at) == (
        False,
        True,
        case.entries(Kind.REPORTED)[-1].happened_at,
    )
    assert wrong in [one.place for one in case.entries(Kind.REPORTED)]
    assert timeline.verify(case.number, case.record.entries) is None


def test_a_mistaken_not_needed_is_no_finding_any_more(company: Company) -> None:
    """And the report is asked for."""
    case = company.open(1).until("grade", grade={"grade": "larger", "reason": "the press knows"})
    case.answer("report", option="Not needed", receipt="", reason="they know")
    case.update(Action.CORRECT, by=LEAD, entry=case.entries(Kind.REPORTED)[-1].place)
    assert clock(case, "reported").is_open
    assert any(one.startswith("first report to") for one in left(case))


def test_what_is_not_contained_after_all_keeps_it_open(company: Company) -> None:
    """The next answer to the checklist counts."""
    case = company.open(1).counted()
    case.answer("contain")
    assert "it is not contained" not in left(case)
    case.update(Action.CORRECT, by=LEAD, entry=case.entries(Kind.CONTAINED)[-1].place)
    assert "it is not contained" in left(case)
    assert clock(case, "contained").is_open
    case.answer("contain")
    assert "it is not contained" not in left(case)
    assert not clock(case, "contained").is_open


def test_people_who_were_not_told_otherwise_after_all_wait_again(company: Company) -> None:
    """That all were told was found because of it, and goes with it."""
    case = company.open(1, 11).until("decide")
    case.notify()
    case.delivered("undeliverable")
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="called them")
    case.settle()
    assert not clock(case, "individuals_told").is_open
    wrong = case.entries(Kind.TOLD_OTHERWISE)[-1].place
    case.update(Action.CORRECT, by=LEAD, words="nobody picked up", entry=wrong)
    assert clock(case, "individuals_told").is_open
    assert any("could not be told by mail" in one for one in left(case))
    case.settle()
    assert clock(case, "individuals_told").is_open
    company.clock.on(hours=1)
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="wrote to them")
    case.settle()
    assert clock(case, "individuals_told").done_at == company.clock.now()


@pytest.mark.parametrize("place", [None, 0, 2, 99])
def test_only_what_can_be_a_mistake_is_corrected_and_the_choice_is_named(
    company: Company, place: int | None
) -> None:
    """Another grade or decision is entered anew; nothing is corrected twice."""
    case = company.open(1)
    case.answer("contain")
    case.update(Action.CORRECT, by=LEAD, entry=2)
    case.answer("contain")
    count = len(case.entries())
    with pytest.raises(UsageError, match=r"`entry`(:| is missing)") as refused:
        case.update(Action.CORRECT, by=LEAD, entry=place)
    assert place is None or refused.value.action.startswith("There are: 4.")
    assert len(case.entries()) == count


@pytest.mark.parametrize("who", [COMP, SERVICE])
def test_who_handed_in_does_not_take_it_back_alone(company: Company, who: str) -> None:
    """Who leads does."""
    case = company.open(1)
    case.answer("contain")
    with pytest.raises(UsageError, match="may not do that"):
        case.update(Action.CORRECT, by=who, entry=2)


def test_nobody_takes_back_alone_what_they_entered_and_whoever_reads_it_is_told(
    company: Company,
) -> None:
    """Else who is late says that it was a mistake, and enters an earlier moment."""
    case = company.open(1).until("grade")
    case.update(Action.ASSIGN, by=LEAD, account=BOSS, duty="compliance")
    case.answer("report", BOSS)
    wrong = case.entries(Kind.REPORTED)[-1].place
    with pytest.raises(UsageError, match="Nobody takes back alone"):
        case.update(Action.CORRECT, by=BOSS, entry=wrong)
    case.update(Action.CORRECT, by=LEAD, entry=wrong)
    found = report.conclude_incident(case.context, case.number, [])
    [told] = [one for one in found.findings if one.code == "incident.mistake"]
    assert told.subject == f"{case.number}/{wrong}"
    assert "B1 entered at" in english(told.message)
    assert "L1 entered at" in english(told.message)


def test_a_correction_counts_when_it_is_entered(company: Company) -> None:
    """No moment can be said for it."""
    case = company.open(1)
    case.answer("contain")
    with pytest.raises(UsageError, match="`at` cannot be said for correct"):
        case.update(Action.CORRECT, by=LEAD, entry=2, at=company.clock.now().isoformat())


def test_letters_that_were_sent_after_all_count_though_told_otherwise_was_a_mistake(
    company: Company,
) -> None:
    """What the notifier found by itself does not rest on what a person entered."""
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
    assert clock(case, "individuals_told").done_at == sent


def test_that_all_were_told_goes_with_the_mistake_it_rests_on(company: Company) -> None:
    """It was found once the last people were decided on, and is found anew once they are told."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    case.delivered("undeliverable")
    run = widened(case, 1, 2, 3)
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="called them")
    wrong = case.entries(Kind.TOLD_OTHERWISE)[-1].place
    decide.Decision(run, case.record).dry_run()
    decide.Decision(run, case.record).take(
        given(case, decide.DO_NOT_TELL, reason="It is our own man")
    )
    case.settle()
    assert case.entries(Kind.TOLD)[-1].data["complete"] is True
    case.update(Action.CORRECT, by=LEAD, entry=wrong)
    assert clock(case, "individuals_told").is_open
    counting = [one.data["complete"] for one in case.record.valid if one.kind is Kind.TOLD]
    assert counting == [False]


def test_a_correction_brings_no_abandoned_answer_back(company: Company) -> None:
    """Said not to be needed, then handed in, which was a mistake: it is due."""
    case = company.open(1).until("grade", grade={"grade": "larger", "reason": "the press knows"})
    case.answer("report", option="Not needed", receipt="", reason="they know")
    case.answer("report")
    case.update(Action.CORRECT, by=LEAD, entry=case.entries(Kind.REPORTED)[-1].place)
    assert clock(case, "reported").is_open
    assert any(one.startswith("first report to") for one in left(case))


def test_a_follow_up_is_no_first_report(company: Company) -> None:
    """Its clock runs on, as the open points say."""
    larger = {"grade": "larger", "reason": "the press knows"}
    case = company.open(1).until("report_rest", grade=larger)
    first = next(one for one in case.entries(Kind.REPORTED) if one.data["authority"] == "cac")
    case.update(Action.CORRECT, by=LEAD, entry=first.place)
    assert clock(case, "reported").is_open
    assert any(one.startswith("first report to") for one in left(case))


def test_whose_step_it_is_and_management_are_told_of_a_correction_at_once(
    company: Company,
) -> None:
    """The step does not ask by itself, and rungs that were told before are not told again."""
    case = company.open(1).until("report")
    wrong = case.entries(Kind.REPORTED)[-1].place
    entry = case.update(Action.CORRECT, by=LEAD, entry=wrong)
    for _again in range(2):
        watching.look(case.context)
    with company.state.connect() as conn:
        query = text("SELECT key FROM notice WHERE key LIKE :mine ORDER BY key")
        keys = conn.scalars(query, {"mine": f"{case.number}/corrected/%"}).all()
    assert keys
    assert {one.split("/")[2] for one in keys} == {str(entry.place)}
    assert {one.split("/")[3] for one in keys} == {"compliance", "management"}
