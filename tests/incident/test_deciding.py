"""Whether people are told: by another person, bound to words and list, to each person once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from include.approvals import registry
from include.approvals.question import AskAgain
from include.incident import register
from include.incident.clocks.clock import ClockState, clocks_of
from include.incident.form import Action
from include.incident.names import INDIVIDUAL, Kind, State
from include.incident.steps import decide
from include.incident.telling import notifying
from include.notify.status import statuses
from include.services.errors import ControlFailed
from tests.incident.deciding_rig import (
    asked,
    given,
    later,
    told,
    widened,
)
from tests.incident.desk_rig import BOSS, OTHER_BOSS, Company, assess


def test_the_page_is_a_dry_run(company: Company) -> None:
    """Whom it reaches, the letter as it would be sent, the digest; nothing is queued."""
    case = asked(company, 1, 2, 11)
    body = case.page("decide").body
    assert "3 people are affected; 3 of them were sent nothing before" in body
    assert "2 have an address of their own; 1 have none" in body
    assert "harm, said in en" in body
    assert "harm, said in zh" in body
    assert notifying.plan(case.context, case.record).sha256 in body
    assert told(case) == []


def test_who_wrote_the_letter_does_not_decide(company: Company) -> None:
    """Nor is asked; a second manager, or who stands in for them, does."""
    case = company.open(1, 2).until("grade")
    case.update(Action.ASSIGN, account=BOSS, duty="customer_service", words="nobody else is there")
    case.answer("impact", BOSS)
    page = case.page("decide")
    assert page.assigned == [OTHER_BOSS]
    assert "Not asked, since they wrote it: B1" in page.body
    assert "taken off" not in page.body  # nobody did anything wrong
    with pytest.raises(AskAgain, match="not of the team"):
        case.answer("decide", BOSS)
    case.answer("decide", OTHER_BOSS)
    assert case.entries(Kind.DECIDED)[0].by == OTHER_BOSS


def test_where_all_who_decide_wrote_it_deputies_and_management_are_asked(company: Company) -> None:
    """Whoever remains; where nobody does, somebody is assigned."""
    case = company.open(accounts=[OTHER_BOSS]).until("grade")
    case.update(Action.ASSIGN, account=BOSS, duty="customer_service", words="nobody else is there")
    case.answer("impact", BOSS)
    case.update(Action.ASSIGN, account="X7", duty="management", words="the parent company")
    assert case.page("decide").assigned == ["X7"]


def test_the_decision_is_void_once_words_change_even_back(company: Company) -> None:
    """What was open on the page is not what would be sent."""
    case = asked(company)
    case.answer("impact", harm_en="Something else")
    with pytest.raises(AskAgain, match="words or list changed"):
        case.answer("decide")
    assert case.ask("decide") is not None
    case.answer("decide")
    case.notify()
    case.answer("impact")
    with pytest.raises(ControlFailed, match="not what was approved"):
        case.notify()
    case.page("decide")
    case.answer("decide", OTHER_BOSS, option="Do not tell", reason="It was nothing")
    assert case.notify() is None
    assert len(case.entries(Kind.DECIDED)) == 2


def test_the_decision_is_void_once_more_people_are_found(company: Company) -> None:
    """Before it was made it is asked anew; the addition itself asks nobody then."""
    case = asked(company, 1, 2)
    run = widened(case, 1, 2, 3)
    assert decide.Decision(run, case.record).dry_run() is None
    with pytest.raises(AskAgain, match="words or list changed"):
        case.answer("decide")
    assert "3 people are affected" in case.page("decide").body
    case.answer("decide")
    case.notify()
    assert told(case) == ["courier/1", "courier/2", "courier/3"]


def test_found_later_is_told_by_a_decision_of_its_own_and_nobody_twice(company: Company) -> None:
    """Supplementary notices go to the new people only."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    case.delivered()
    run = widened(case, 1, 2, 4, 5)
    page = decide.Decision(run, case.record).dry_run()
    assert page is not None
    assert "4 people are affected; 2 of them were sent nothing before" in page.body
    notifying.queue(run, case.record)
    assert told(case) == ["courier/1", "courier/2"]
    decide.Decision(run, case.record).take(given(case, reason="They too"))
    queued = notifying.queue(run, case.record)
    assert queued is not None
    assert queued.new == 2
    assert told(case) == [f"courier/{one}" for one in (1, 2, 4, 5)]
    assert case.ask("decide") is None


def test_of_two_decisions_on_the_same_people_the_second_is_not_taken(company: Company) -> None:
    """Two additions may be open at once; both ask, one is answered."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    run = widened(case, 1, 2, 4)
    assert decide.Decision(run, case.record).dry_run() is not None
    assert case.ask("decide") is not None
    case.answer("decide")
    with pytest.raises(AskAgain, match="decided elsewhere"):
        decide.Decision(run, case.record).take(given(case, reason="They too"))
    assert decide.Decision(run, case.record).dry_run() is None


@pytest.mark.parametrize("looked", [True, False])
def test_many_without_an_address_have_to_be_looked_at(company: Company, looked: bool) -> None:
    """Whoever took the wrong list finds out before a letter leaves."""
    case = asked(company, 1, 2, 11, 12)
    assert "UNUSUALLY MANY" in case.page("decide").body
    if looked:
        case.answer("decide", list_looked_at=True)
        return
    with pytest.raises(AskAgain, match="too many people have no usable address"):
        case.answer("decide", list_looked_at=False)
    case.answer("decide", option="Do not tell", list_looked_at=False)


def test_where_nobody_is_affected_nobody_is_asked_and_the_clock_is_met(company: Company) -> None:
    """It stands on the timeline; who is found later is decided on."""
    case = company.open(since="2026-11-20T00:00").until("impact")
    assert case.ask("decide") is None
    assert case.ask("decide") is None
    assert case.said(Kind.DECIDED) == [
        "Nobody is affected by what was counted: nobody has to be told."
    ]
    assert case.notify() is None
    clock = {one.id: one for one in clocks_of(case.context, case.record)}["individuals"]
    assert clock.state is ClockState.MET
    for authority in ("cac", "postal"):
        case.answer("report", authority=authority)
        case.answer("report_rest", authority=authority)
    case.answer("close")
    assert case.record.incident.state is State.CLOSED


def test_who_is_found_after_nobody_was_is_decided_on(company: Company) -> None:
    """And the clock runs again: it was met by nobody's being affected."""
    case = company.open(since="2026-11-20T00:00").until("impact")
    assert case.ask("decide") is None
    run = widened(case, 1)
    assert decide.Decision(run, case.record).dry_run() is not None
    decide.Decision(run, case.record).take(given(case, reason="One person"))
    clock = {one.id: one for one in clocks_of(case.context, case.record)}["individuals"]
    assert clock.is_open


def test_where_nothing_could_be_read_the_decision_waits_and_says_for_what(company: Company) -> None:
    """Unknown is not nobody."""
    company.broken = {"archive"}
    case = company.open(databases=["archive"], keys=[]).counted()
    case.answer("impact")
    with pytest.raises(ControlFailed, match=r"no list of affected people yet.*archive") as blocked:
        case.ask("decide")
    assert "assess" in blocked.value.action
    assert case.entries(Kind.DECIDED) == []


def test_where_one_database_could_not_be_read_the_page_says_so(company: Company) -> None:
    """The others' people need not wait for it."""
    company.broken = {"archive"}
    case = company.open(databases=["courier", "archive"], keys=[]).counted()
    case.answer("impact")
    body = case.page("decide").body
    assert "NOT ON THE LIST: people of archive" in body
    assert "12 people are affected" in body
    case.answer("decide")
    company.broken = set()
    assess(case.context)
    case.preserve()
    assert "24 people are affected; 24 of them" in case.page("decide").body


def test_a_list_that_could_not_be_secured_is_not_nobody(company: Company) -> None:
    """The database went away between the count and the list."""
    case = company.open(databases=["archive"], keys=[])
    assess(case.context)
    company.broken = {"archive"}
    record = case.preserve()
    assert {one.code for one in record.findings} == {
        "incident.list_not_frozen", "incident.no_access_log",
    }  # fmt: skip
    case.answer("impact")
    with pytest.raises(ControlFailed, match=r"no list of affected people yet.*archive"):
        case.ask("decide")


def test_a_letter_that_lacks_its_words_is_blocked_and_they_are_named(company: Company) -> None:
    """Nothing is asked, nothing is sent."""
    case = company.open(1).counted()
    with pytest.raises(ControlFailed, match="lacks What happened, What may come of it") as blocked:
        case.ask("decide")
    assert "impact" in blocked.value.action
    assert (
        notifying.wanted(case.context, {case.number: case.record}, [f"{case.number}/courier/1"])
        == set()
    )


def test_of_a_cancelled_incident_no_letter_is_wanted_any_more(company: Company) -> None:
    """What waits is withdrawn by the notifier, which asks before it sends."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    keys = [f"{case.number}/courier/{one}" for one in (1, 2)]
    assert notifying.wanted(case.context, {case.number: case.record}, keys) == set(keys)
    case.update(Action.CANCEL, by=BOSS, words="a test of the alarm")
    assert notifying.wanted(case.context, {case.number: case.record}, keys) == set()
    with company.state.begin() as conn:
        register.ended(conn, case.record.incident.id, State.CANCELLED, company.clock.now())
        assert sum(statuses(conn, INDIVIDUAL, f"{case.number}/").values()) == 2


def test_a_decision_whose_process_was_killed_is_entered_by_the_next_answer(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is left, or all of it; and one that an older program left half counts."""
    case = asked(company, 1, 2)

    def killed(*_given: object, **_more: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(decide, "append_answer", killed)
        with pytest.raises(MemoryError):
            case.answer("decide")
    with company.state.begin() as conn:
        asked_for = registry.request_of(
            conn, case.run.dag_id, case.run.run_id, notifying.APPROVAL, case.number
        )
        assert asked_for is not None
        assert registry.decision_on(conn, asked_for.id) is None
        registry.decide(
            conn, asked_for, decision=registry.APPROVE, reason="The risk is high", decided_by=BOSS,
            decided_at=company.clock.now(), may_decide=[BOSS], content=asked_for.content,
        )  # fmt: skip
    company.clock.on(minutes=5)
    with pytest.raises(AskAgain, match="decided before, by B1: Tell people"):
        case.answer("decide", OTHER_BOSS, option="Do not tell", reason="No")
    assert [(one.by, one.data["tell"]) for one in case.entries(Kind.DECIDED)] == [(BOSS, True)]
    assert case.ask("decide") is None
    assert case.notify().new == 2


def test_an_answer_that_a_repeated_task_takes_again_is_the_one_that_is_there(
    company: Company,
) -> None:
    """Its process was killed after it was entered."""
    for option in (decide.TELL, decide.DO_NOT_TELL):
        case = asked(company, 1)
        answer = given(case, option, reason="As said")
        company.clock.on(seconds=1)
        first = case.take("decide", answer)
        assert case.take("decide", answer) == first
        assert len(case.entries(Kind.DECIDED)) == 1


def test_of_two_decisions_at_once_one_counts(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the main run and by an addition: whoever comes second is asked again."""
    case = asked(company, 1, 2)
    case.answer("decide")
    case.answer("impact", harm_en="other")
    run = later(case)
    case.page("decide")
    content = case.content("decide")
    question = decide.Decision(run, case.record).dry_run()
    assert question is not None
    here = Barrier(2, timeout=300)
    real = decide.Decision._decide
    monkeypatch.setattr(decide.Decision, "_decide", lambda *some: (here.wait(), real(*some))[1])

    both = [replace(given(case, decide.TELL, reason="because so"), content=content)]
    company.clock.on(seconds=1)
    other = given(case, decide.DO_NOT_TELL, reason="because so")
    both.append(replace(other, content=question.content))
    with ThreadPoolExecutor(2) as pool:
        each = zip((case.context, run), both, strict=True)
        answers = [pool.submit(decide.Decision(mine, case.record).take, one) for mine, one in each]
    (refused,) = [str(one.exception()) for one in answers if one.exception() is not None]
    assert "decided elsewhere" in refused
    assert len(case.entries(Kind.DECIDED)) == 2


def test_a_decision_counts_only_for_the_request_whose_form_was_answered(company: Company) -> None:
    """An older browser window shows the list of before; nobody decides on a list unseen."""
    case = asked(company, 1, 2)
    then = given(case, reason="The risk is high")
    case.answer("impact", cause_en="Another cause")
    case.page("decide")
    with pytest.raises(AskAgain, match="words or list changed"):
        case.take("decide", then)
    assert not case.entries(Kind.DECIDED)
    case.take("decide", given(case, reason="The risk is high"))
    assert len(case.entries(Kind.DECIDED)) == 1
