"""Tests of updates: who may enter them, their times, and repeated runs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.evidence.step_findings import StepFindings
from include.incident import timeline, updates
from include.incident.form import Action
from include.incident.incident_ids import UPDATES, Kind, State
from include.incident.time_limits.time_limit import TimeLimitState, time_limits_of
from include.incident.updates import Update
from include.notify.outbox import Run
from include.services.errors import CouldNotRun, UsageError
from tests.incident.incident_fixtures import (
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

FIELDS = {
    Action.HAND_OVER: {"account": COMP},
    Action.TAKE_OFF: {"account": "T2"},
    Action.ASSIGN: {"account": "X7", "duty": "technical"},
    Action.REGRADE: {"grade": "larger"},
    Action.CORRECT: {"entry": 2},
}
ENTITLED = {Action.REGRADE: COMP, Action.CANCEL: BOSS, Action.TAKE_OFF: LEAD, Action.CORRECT: LEAD}


@pytest.mark.parametrize("action", Action)
def test_update_is_recorded_with_author_and_action(company: Company, action: Action) -> None:
    case = company.open(1)
    case.answer("contain")
    author = ENTITLED.get(action, SERVICE)
    words = "as 13800138000 said"
    entry = case.update(action, by=author, words=words, **FIELDS.get(action, {}))
    assert entry == case.entries()[-1]
    assert (entry.by, entry.data["action"]) == (author, str(action))
    assert "as … said" in english(entry.words)
    assert "13800138000" not in english(entry.words)
    assert timeline.verify_timeline(case.number, case.record.entries) is None


def test_update_run_with_wrong_inputs_raises_could_not_run_and_records_nothing(
    company: Company,
) -> None:
    case = company.open(1)
    count = len(case.entries())
    run = company.context(
        Run(UPDATES, "manual__1"), incident=case.number, action="note", words="..."
    )
    with pytest.raises(CouldNotRun, match="contains no words"):
        updates.enter_update(run, StepFindings("enter", "6.3"))
    assert len(case.entries()) == count


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("author", ["T1", "T2", "Z9", ""])
def test_update_by_suspect_or_person_outside_team_raises_usage_error(
    company: Company, action: Action, author: str
) -> None:
    case = company.open(accounts=["T1"])
    case.update(Action.TAKE_OFF, account="T2")
    count = len(case.entries())
    with pytest.raises(UsageError, match=r"may not enter this|The run names no user"):
        case.update(action, by=author, **FIELDS.get(action, {}))
    assert len(case.entries()) == count


@pytest.mark.parametrize(("action", "author"), [(Action.REGRADE, LEAD), (Action.CANCEL, COMP)])
def test_new_grade_or_cancellation_by_author_without_the_duty_raises_usage_error(
    company: Company, action: Action, author: str
) -> None:
    case = company.open(1).counted()
    with pytest.raises(UsageError, match="may not enter this") as refused:
        case.update(action, by=author, **FIELDS.get(action, {}))
    assert ENTITLED[action] in refused.value.action
    assert case.record.incident.state is State.OPEN
    assert case.record.incident.grade is None


@pytest.mark.parametrize(
    ("action", "more", "fault"),
    [
        (Action.NOTE, {"words": " 12 "}, "contains no words"),
        (Action.NOTE, {"at": "yesterday"}, "is not a valid time"),
        (Action.NOTE, {"at": (NIGHT + timedelta(minutes=1)).isoformat()}, "is in the future"),
        (Action.NOTE, {"at": (NIGHT - timedelta(minutes=1)).isoformat()}, "is before"),
        (Action.HAND_OVER, {"account": " "}, "`account` is missing"),
        (Action.HAND_OVER, {"account": "Z9"}, "Z9 is not in the team"),
        (Action.HAND_OVER, {"account": "T2"}, "T2 is not in the team"),
        (Action.TAKE_OFF, {}, "`account` is missing"),
        (Action.TAKE_OFF, {"account": "T-2"}, "the user id T-2 does not exist"),
        (Action.TAKE_OFF, {"account": "T1 T2"}, "is not a user id"),
        (Action.ASSIGN, {"account": "13800138000", "duty": "technical"}, "is not a user id"),
        (Action.ASSIGN, {"account": "X7"}, "`duty` is missing"),
        (Action.ASSIGN, {"account": "X7", "duty": "cook"}, "cook does not exist"),
        (Action.REGRADE, {"grade": "terrible"}, "terrible does not exist"),
    ],
)
def test_update_with_invalid_field_raises_usage_error(
    company: Company, action: Action, more: dict[str, str], fault: str
) -> None:
    case = company.open(1, accounts=["T2"])
    with pytest.raises(UsageError, match=fault):
        case.update(action, by=ENTITLED.get(action, LEAD), **more)
    assert len(case.entries()) == 1


@pytest.mark.parametrize(
    ("author", "action", "more"),
    [
        (LEAD, Action.ASSIGN, {"account": LEAD, "duty": "technical"}),
        (BOSS, Action.ASSIGN, {"account": BOSS, "duty": "management"}),
        (SERVICE, Action.ASSIGN, {"account": "T2", "duty": "management"}),
        (SERVICE, Action.ASSIGN, {"account": "T2", "duty": "command"}),
        (TECH, Action.ASSIGN, {"account": "T2", "duty": "compliance"}),
        (SERVICE, Action.TAKE_OFF, {"account": BOSS}),
    ],
)
def test_team_change_for_oneself_or_by_person_who_is_not_a_leader_raises_usage_error(
    company: Company, author: str, action: Action, more: dict[str, str]
) -> None:
    case = company.open(1)
    with pytest.raises(UsageError, match=r"to yourself|may not enter this"):
        case.update(action, by=author, **more)
    assert len(case.entries()) == 1


def test_author_of_impact_texts_may_not_cancel_incident(company: Company) -> None:
    case = company.open(1).until("grade")
    case.update(Action.ASSIGN, by=BOSS, account=SERVICE, duty="management")
    case.answer("impact")
    with pytest.raises(UsageError, match="may not enter this"):
        case.update(Action.CANCEL, by=SERVICE)
    case.update(Action.CANCEL, by=BOSS)


def test_update_stores_time_of_event_and_time_of_recording(company: Company) -> None:
    case = company.open(1, began_at="2026-11-26T01:00")
    company.clock.on(hours=6)  # Airflow was down, and people wrote on paper
    entry = case.update(Action.NOTE, at="2026-11-26T01:00")
    assert entry.happened_at == NIGHT - timedelta(hours=2, minutes=15)
    assert entry.recorded_at == NIGHT + timedelta(hours=6)
    with pytest.raises(UsageError, match="is before"):
        case.update(Action.NOTE, at="2026-11-26T00:59:59")


@pytest.mark.parametrize("action", [Action.REGRADE, Action.CANCEL])
def test_entered_time_in_new_grade_or_cancellation_raises_usage_error(
    company: Company, action: Action
) -> None:
    aware = company.clock.now() - timedelta(hours=8)
    case = company.open(1, aware_at=aware.isoformat()).counted()
    case.update(Action.REGRADE, by=COMP, grade="larger")
    more = {"grade": "general"} if action is Action.REGRADE else {}
    with pytest.raises(
        UsageError, match=r"`at` is not allowed for .* time limits missed before stay"
    ):
        case.update(
            action, by=ENTITLED[action], at=(aware + timedelta(hours=3)).isoformat(), **more
        )
    company.clock.on(minutes=5)
    entry = case.update(action, by=ENTITLED[action], **more)
    assert entry.happened_at == entry.recorded_at == company.clock.now()
    time_limit = {item.id: item for item in time_limits_of(case.context, case.record)}["cac_first"]
    assert (time_limit.state, time_limit.lateness) == (
        TimeLimitState.MISSED, timedelta(hours=4, minutes=5),
    )  # fmt: skip
    if action is Action.CANCEL:
        assert case.record.incident.ended_at == company.clock.now()


@pytest.mark.parametrize("action", [Action.CANCEL, Action.TAKE_OFF, Action.NOTE])
def test_record_update_called_twice_returns_same_entry(company: Company, action: Action) -> None:
    case = company.open(1)
    run = company.context(Run(UPDATES, "again"), BOSS)
    update = Update(action, "as said", account=BOSS)
    first = updates.record_update(run, case.number, update, by=BOSS, once="update_incident/again")
    company.clock.on(minutes=5)
    assert (
        updates.record_update(run, case.number, update, by=BOSS, once="update_incident/again")
        == first
    )


def test_all_confirmed_grades_are_kept_on_timeline(company: Company) -> None:
    case = company.open(1).until("grade")
    for grade in ("major", "general"):
        case.update(Action.REGRADE, by=COMP, grade=grade)
        assert case.record.incident.grade == grade
    assert [entry.data["grade"] for entry in case.entries(Kind.GRADED)] == [
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
def test_closed_incident_accepts_notes_and_team_changes_but_cancelled_incident_only_notes(
    company: Company, end: State, allowed: set[Action]
) -> None:
    case = ended(company, end)
    for action in Action:
        if action in allowed:
            case.update(action, by=ENTITLED.get(action, LEAD), **FIELDS.get(action, {}))
        else:
            with pytest.raises(UsageError, match=f"is {end}"):
                case.update(action, by=ENTITLED.get(action, LEAD), **FIELDS.get(action, {}))
    if end is State.CLOSED:
        assert TECH in case.page("contain").assigned
        assert "X7" in case.page("contain").assigned
