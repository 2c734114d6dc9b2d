"""Additions: who may enter which, when they happened, and that none is entered twice."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.incident import timeline, updating
from include.incident.clocks.clock import ClockState, clocks_of
from include.incident.form import Action
from include.incident.names import UPDATES, Kind, State
from include.incident.updating import Update
from include.notify.outbox import Run
from include.services.errors import UsageError
from tests.incident.desk_rig import (
    BOSS,
    COMP,
    LEAD,
    NIGHT,
    SERVICE,
    TECH,
    Case,
    Company,
    english,
)

MORE = {
    Action.HAND_OVER: {"account": COMP},
    Action.TAKE_OFF: {"account": "T2"},
    Action.ASSIGN: {"account": "X7", "duty": "technical"},
    Action.REGRADE: {"grade": "larger"},
    Action.CORRECT: {"entry": 2},
}
RIGHT = {Action.REGRADE: COMP, Action.CANCEL: BOSS, Action.TAKE_OFF: LEAD, Action.CORRECT: LEAD}


@pytest.mark.parametrize("action", Action)
def test_every_addition_is_an_entry_in_the_name_of_who_made_it(
    company: Company, action: Action
) -> None:
    """With what it is about, and nothing that could be a customer's."""
    case = company.open(1)
    case.answer("contain")
    who = RIGHT.get(action, SERVICE)
    words = "as 13800138000 said"
    entry = case.update(action, by=who, words=words, **MORE.get(action, {}))
    assert entry == case.entries()[-1]
    assert (entry.by, entry.data["action"]) == (who, str(action))
    assert "as … said" in english(entry.words)
    assert "13800138000" not in english(entry.words)
    assert timeline.verify(case.number, case.record.entries) is None


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("who", ["T1", "T2", "Z9", ""])
def test_suspects_those_taken_off_and_strangers_may_enter_nothing(
    company: Company, action: Action, who: str
) -> None:
    """Nor may nobody, which is a script."""
    case = company.open(accounts=["T1"])
    case.update(Action.TAKE_OFF, account="T2")
    count = len(case.entries())
    with pytest.raises(UsageError, match=r"may not do that|The run names no user"):
        case.update(action, by=who, **MORE.get(action, {}))
    assert len(case.entries()) == count


@pytest.mark.parametrize(("action", "who"), [(Action.REGRADE, LEAD), (Action.CANCEL, COMP)])
def test_grades_and_ends_are_of_those_who_grade_and_decide(
    company: Company, action: Action, who: str
) -> None:
    """Whoever leads the team cannot make an incident small, nor a grader make it none."""
    case = company.open(1).counted()
    with pytest.raises(UsageError, match="may not do that") as refused:
        case.update(action, by=who, **MORE.get(action, {}))
    assert RIGHT[action] in refused.value.action
    assert case.record.incident.state is State.OPEN
    assert case.record.incident.grade is None


@pytest.mark.parametrize(
    ("action", "more", "fault"),
    [
        (Action.NOTE, {"words": " 12 "}, "says nothing"),
        (Action.NOTE, {"at": "yesterday"}, "is no moment"),
        (Action.NOTE, {"at": (NIGHT + timedelta(minutes=1)).isoformat()}, "is yet to come"),
        (Action.NOTE, {"at": (NIGHT - timedelta(minutes=1)).isoformat()}, "lies before"),
        (Action.HAND_OVER, {"account": " "}, "`account` is missing"),
        (Action.HAND_OVER, {"account": "Z9"}, "Z9 is not of the team"),
        (Action.HAND_OVER, {"account": "T2"}, "T2 is not of the team"),
        (Action.TAKE_OFF, {}, "`account` is missing"),
        (Action.TAKE_OFF, {"account": "T-2"}, "nobody has the user id T-2"),
        (Action.TAKE_OFF, {"account": "T1 T2"}, "is no user id"),
        (Action.ASSIGN, {"account": "13800138000", "duty": "technical"}, "is no user id"),
        (Action.ASSIGN, {"account": "X7"}, "`duty` is missing"),
        (Action.ASSIGN, {"account": "X7", "duty": "cook"}, "none called cook"),
        (Action.REGRADE, {"grade": "terrible"}, "none called terrible"),
    ],
)
def test_a_field_that_is_missing_or_wrong_is_named(
    company: Company, action: Action, more: dict[str, str], fault: str
) -> None:
    """And nothing is entered."""
    case = company.open(1, accounts=["T2"])
    with pytest.raises(UsageError, match=fault):
        case.update(action, by=RIGHT.get(action, LEAD), **more)
    assert len(case.entries()) == 1


@pytest.mark.parametrize(
    ("who", "action", "more"),
    [
        (LEAD, Action.ASSIGN, {"account": LEAD, "duty": "technical"}),
        (BOSS, Action.ASSIGN, {"account": BOSS, "duty": "management"}),
        (SERVICE, Action.ASSIGN, {"account": "T2", "duty": "management"}),
        (SERVICE, Action.ASSIGN, {"account": "T2", "duty": "command"}),
        (TECH, Action.ASSIGN, {"account": "T2", "duty": "compliance"}),
        (SERVICE, Action.TAKE_OFF, {"account": BOSS}),
    ],
)
def test_nobody_gives_themselves_a_duty_and_powers_are_given_by_who_leads(
    company: Company, who: str, action: Action, more: dict[str, str]
) -> None:
    """Else one log-in could grade, decide and cancel alone, or leave only strangers to be asked."""
    case = company.open(1)
    with pytest.raises(UsageError, match=r"to themselves|may not do that"):
        case.update(action, by=who, **more)
    assert len(case.entries()) == 1


def test_who_wrote_the_impact_or_opened_it_does_not_cancel_it(company: Company) -> None:
    """It takes two people to make it none."""
    case = company.open(1).until("grade")
    case.update(Action.ASSIGN, by=BOSS, account=SERVICE, duty="management")
    case.answer("impact")
    with pytest.raises(UsageError, match="may not do that"):
        case.update(Action.CANCEL, by=SERVICE)
    case.update(Action.CANCEL, by=BOSS)


def test_an_addition_tells_when_it_happened_and_when_it_was_entered(company: Company) -> None:
    """In the pack's timezone where it names none; from the beginning of the leak on."""
    case = company.open(1, began_at="2026-11-26T01:00")
    company.clock.on(hours=6)  # Airflow was down, and people wrote on paper
    entry = case.update(Action.NOTE, at="2026-11-26T01:00")
    assert entry.happened_at == NIGHT - timedelta(hours=2, minutes=15)
    assert entry.recorded_at == NIGHT + timedelta(hours=6)
    with pytest.raises(UsageError, match="lies before"):
        case.update(Action.NOTE, at="2026-11-26T00:59:59")


@pytest.mark.parametrize("action", [Action.REGRADE, Action.CANCEL])
def test_no_moment_can_be_said_for_what_ends_clocks(company: Company, action: Action) -> None:
    """Else whoever is late enters that it was small, or none, before anything ran out."""
    aware = company.clock.now() - timedelta(hours=8)
    case = company.open(1, aware_at=aware.isoformat()).counted()
    case.update(Action.REGRADE, by=COMP, grade="larger")
    more = {"grade": "general"} if action is Action.REGRADE else {}
    with pytest.raises(UsageError, match=r"`at` cannot be said for .* what ran out before stays"):
        case.update(action, by=RIGHT[action], at=(aware + timedelta(hours=3)).isoformat(), **more)
    company.clock.on(minutes=5)
    entry = case.update(action, by=RIGHT[action], **more)
    assert entry.happened_at == entry.recorded_at == company.clock.now()
    found = {one.id: one for one in clocks_of(case.context, case.record)}["cac_first"]
    assert (found.state, found.lateness) == (
        ClockState.MISSED, timedelta(hours=4, minutes=5),
    )  # fmt: skip
    if action is Action.CANCEL:
        assert case.record.incident.ended_at == company.clock.now()


@pytest.mark.parametrize("action", [Action.CANCEL, Action.TAKE_OFF, Action.NOTE])
def test_the_same_run_again_enters_nothing_and_is_not_refused(
    company: Company, action: Action
) -> None:
    """Though the incident ended by it, or the person took himself off."""
    case = company.open(1)
    run = company.context(Run(UPDATES, "again"), BOSS)
    update = Update(action, "as said", account=BOSS)
    first = updating.enter(run, case.number, update, by=BOSS, once="update_incident/again")
    company.clock.on(minutes=5)
    assert updating.enter(run, case.number, update, by=BOSS, once="update_incident/again") == first


def test_a_grade_is_changed_up_and_down_and_each_stands(company: Company) -> None:
    """The register has the last one, the timeline all of them."""
    case = company.open(1).until("grade")
    for grade in ("major", "general"):
        case.update(Action.REGRADE, by=COMP, grade=grade)
        assert case.record.incident.grade == grade
    assert [one.data["grade"] for one in case.entries(Kind.GRADED)] == [
        "general", "major", "general",
    ]  # fmt: skip


def ended(company: Company, end: State) -> Case:
    case = company.open(1).counted()
    if end is State.DUPLICATE:
        return company.open(1, another=False)
    if end is State.CANCELLED:
        case.update(Action.CANCEL, by=BOSS)
        return case
    return company.open(2).until("close")


@pytest.mark.parametrize(
    ("end", "allowed"),
    [
        (State.CLOSED, {Action.NOTE, Action.HAND_OVER, Action.TAKE_OFF, Action.ASSIGN}),
        (State.CANCELLED, {Action.NOTE}),
        (State.DUPLICATE, {Action.NOTE}),
    ],
)
def test_after_the_end_notes_are_added_and_people_changed_while_a_summary_is_due(
    company: Company, end: State, allowed: set[Action]
) -> None:
    """Thirty days are long: who writes the summary may turn out to be the suspect."""
    case = ended(company, end)
    for action in Action:
        if action in allowed:
            case.update(action, by=RIGHT.get(action, LEAD), **MORE.get(action, {}))
        else:
            with pytest.raises(UsageError, match=f"is {end}"):
                case.update(action, by=RIGHT.get(action, LEAD), **MORE.get(action, {}))
    if end is State.CLOSED:
        assert TECH in case.page("contain").assigned
        assert "X7" in case.page("contain").assigned
