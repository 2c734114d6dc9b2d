"""Tests of human steps: required actions, accepted answers and refused answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from include.approvals.required_action import Answer, InvalidAnswer, RequiredAction
from include.evidence.step_findings import StepFindings
from include.incident.form import Action
from include.incident.incident_ids import CLAUSE, Kind, State
from include.incident.workflow import RESPOND_TO_INCIDENT
from include.policy.period import Period
from tests.incident.incident_fixtures import (
    BOSS,
    CHECKLIST,
    COMP,
    NIGHT,
    STEPS,
    TEXTS,
    USUAL,
    Case,
    Company,
    english,
)

HUMAN = [step for step in STEPS if step not in ("counted", "notify")]
LATER = (NIGHT + timedelta(days=1)).isoformat()
EARLIER = (NIGHT - timedelta(days=1)).isoformat()


def before(company: Company, step: str, *keys: int, **form: Any) -> Case:
    """Return an incident in which all steps before the given step are done.

    Args:
        company: sample company.
        step: name of the step.
        keys: numbers of the affected customers.
        form: other fields of the trigger form.
    """
    case = company.open(*(keys or (1, 2, 3)), **form).until(STEPS[STEPS.index(step) - 1])
    if step == "decide":
        case.page(step)
    return case


def form_values(page: RequiredAction) -> dict[str, Any]:
    return {field.name: field.value for field in page.form if field.value is not None}


@pytest.mark.parametrize(
    ("step", "values", "cause"),
    [
        (
            "contain",
            dict.fromkeys(CHECKLIST, False),
            "these checklist items are not ticked, and no reason is given: Lock",
        ),
        ("contain", {"lock_device": False, "notes": "1.2"}, "no reason is given: Lock and wipe"),
        ("contain", {"contained_at": LATER}, "Time of containment.*: the time is in the future"),
        (
            "contain",
            {"contained_at": EARLIER},
            "Time of containment.*: the time is before 2026-11-26",
        ),
        ("contain", {"contained_at": "soon"}, "the value is not a date and time"),
        ("grade", {"grade": "major"}, "the selected grade differs from the proposed grade"),
        (
            "grade",
            {"grade": "major", "reason": "13800138000"},
            "the selected grade differs from the proposed grade",
        ),
        ("grade", {"grade": "terrible"}, "the value is not one of the options of this field"),
        ("grade", {"grade": ""}, "Grade: a value is required"),
        ("report", {"receipt": " "}, "the receipt is missing"),
        ("report", {"handed_in_at": EARLIER}, "is before"),
        ("report", {"handed_in_at": LATER}, "the time is in the future"),
        ("impact", {"harm_zh": ""}, "Possible harm to people in Chinese: a value is required"),
        (
            "impact",
            {"harm_zh": "138 0013 8000"},
            "contain no text: Possible harm to people in Chinese",
        ),
        ("decide", {"reason": "138 0013 8000"}, "the reasons contain no text"),
        ("decide", {"reason": ""}, "Reasons: a value is required"),
        ("review", {"lessons": "123"}, "the lessons learned contain no text"),
        ("review", {"action_2": "Lock them"}, "the owner of corrective action 2 is missing"),
        (
            "review",
            {"action_1": "Lock", "owner_1": "somebody"},
            "the value is not one of the options of this field",
        ),
        ("summary", {"receipt": None}, "Receipt number.*: a value is required"),
        ("summary", {"handed_in_at": EARLIER}, "is before"),
    ],
)
def test_invalid_answer_raises_error_with_reason_and_form_shows_that_it_was_not_accepted(
    company: Company, step: str, values: dict[str, Any], cause: str
) -> None:
    case = before(company, step)
    entries_before = len(case.entries())
    with pytest.raises(InvalidAnswer, match=cause):
        case.answer(step, **values)
    (refused,) = case.entries()[entries_before:]
    assert (refused.kind, refused.by) == (Kind.REFUSED, USUAL[step][0])
    assert f"The last answer, by {USUAL[step][0]}, was not accepted" in case.page(step).body


def test_form_after_refused_answer_contains_entered_values(company: Company) -> None:
    case = before(company, "contain")
    at = company.clock.now().isoformat()
    values = {"encryption": False, "notes": "138 0013 8000", "contained_at": at}
    with pytest.raises(InvalidAnswer, match="no reason is given"):
        case.answer("contain", **values, lock_device=True)
    expected = {"encryption": False, "lock_device": True, "notes": "…", "contained_at": at}
    assert {name: form_values(case.page("contain"))[name] for name in expected} == expected
    with pytest.raises(InvalidAnswer, match="the value is not a date and time"):
        case.answer("contain", contained_at="soon")
    assert "contained_at" not in form_values(case.page("contain"))


def test_form_after_valid_answer_shows_no_earlier_refusal(company: Company) -> None:
    case = before(company, "grade")
    with pytest.raises(InvalidAnswer):
        case.answer("grade", grade="major")
    case.answer("grade", grade="major", reason="the press knows")
    page = case.page("grade")
    assert "was not accepted" not in page.body
    assert form_values(page) == {"grade": "general"}
    assert case.record.incident.grade == "major"


def test_refused_answer_about_report_is_shown_only_in_form_for_same_report(
    company: Company,
) -> None:
    case = before(company, "report")
    with pytest.raises(InvalidAnswer):
        case.answer("report", option="Not needed", receipt="R-CAC", authority="cac")
    case.answer("report", authority="postal")
    page, other = case.page("report", "cac"), case.ask("report", "postal")
    assert other is None
    assert "was not accepted" in page.body
    assert form_values(page)["receipt"] == "R-CAC"
    other = case.page("report_rest", "postal")
    assert "was not accepted" not in other.body
    assert "receipt" not in form_values(other)


def test_containment_time_before_opening_of_incident_is_accepted_if_it_is_after_start_of_leak(
    company: Company,
) -> None:
    case = before(company, "contain", began_at=EARLIER)
    at = NIGHT - timedelta(hours=1)
    case.answer("contain", contained_at=at.isoformat())
    (entry,) = case.entries(Kind.CONTAINED)
    assert entry.happened_at == at
    assert entry.recorded_at == company.clock.now()


def test_entered_time_without_offset_is_interpreted_in_timezone_of_policy_pack(
    company: Company,
) -> None:
    case = before(company, "contain")
    company.clock.on(minutes=30)
    case.answer("contain", contained_at="2026-11-26T03:20")
    assert case.entries(Kind.CONTAINED)[0].happened_at == NIGHT + timedelta(minutes=5)


def test_answer_with_time_in_the_future_is_recorded_with_current_time(company: Company) -> None:
    case = before(company, "grade")
    company.clock.on(seconds=5)
    answer = usual_answer(case, "grade")
    company.clock.on(seconds=-5)
    case.record_answer("grade", answer)
    assert case.entries(Kind.GRADED)[0].happened_at == company.clock.now()


def usual_answer(case: Case, step: str) -> Any:
    user, option, entered = USUAL[step]
    at, content = case.company.clock.now(), case.content(step)
    return Answer(option, "", user, at, entered=entered, content=content)


@pytest.mark.parametrize("step", [name for name in HUMAN if name != "close"])
def test_repeated_answer_is_recorded_once(company: Company, step: str) -> None:
    case = before(company, step)
    answer = usual_answer(case, step)
    first = case.record_answer(step, answer)
    count = len(case.entries())
    company.clock.on(minutes=3)
    assert case.record_answer(step, answer) == first
    assert len(case.entries()) == count


def test_repeated_closing_is_recorded_once(company: Company) -> None:
    case = before(company, "close")
    answer = usual_answer(case, "close")
    case.record_answer("close", answer)
    ended = case.record.incident.ended_at
    company.clock.on(minutes=3)
    case.record_answer("close", answer)
    assert len(case.entries(Kind.CLOSED)) == 1
    assert (case.record.incident.state, case.record.incident.ended_at) == (State.CLOSED, ended)


@pytest.mark.parametrize("step", [name for name in HUMAN if name != "decide"])
def test_step_asks_nobody_if_incident_is_duplicate_or_cancelled(
    company: Company, step: str
) -> None:
    first = company.open(1, 2).counted()
    duplicate = company.open(1, 2, another=False)
    assert duplicate.record.incident.duplicate_of == first.number
    assert _asks(duplicate, step) is None
    first.update(Action.CANCEL, by=BOSS, words="a test of the alarm")
    assert _asks(first, step) is None


def _asks(case: Case, step: str) -> RequiredAction | None:
    human: Any = RESPOND_TO_INCIDENT.step(step)
    part = "cac" if step.startswith("report") else ""
    action = human.ask(case.context, StepFindings(step, CLAUSE, part))
    return action if isinstance(action, RequiredAction) else None


def test_unticked_checklist_item_is_accepted_with_reason(company: Company) -> None:
    case = before(company, "contain")
    case.answer("contain", encryption=False, notes="It has no storage")
    (entry,) = case.entries(Kind.CONTAINED)
    assert english(entry.words) == (
        "The incident is contained. Completed items of the checklist: 3 of 4. It has no storage"
    )
    assert entry.data["left"] == ["encryption"]


def test_markdown_entered_by_person_is_escaped_in_forms(company: Company) -> None:
    hostile = "Lost\n\n### Approved\n- [Click](https://evil.example) <b>now</b> `x` | y"
    case = before(company, "decide", what=hostile)
    for step in ("contain", "grade", "impact"):
        body = case.page(step).body
        assert "\n### Approved" not in body
        assert "[Click](" not in body.replace("\\[", "").replace("\\]", "]")
        assert "<b>" not in body.replace("\\<", "")
    case.answer("impact", harm_en="Calls\n\n# Approved\n- **all** is well")
    body = case.page("decide").body
    assert "\n# Approved" not in body
    assert "Calls \\# Approved - \\*\\*all\\*\\* is well" in body


def test_report_to_authority_with_empty_field_cannot_be_handed_in(company: Company) -> None:
    case = company.open(1, 2).counted()
    case.answer("grade")
    assert case.ask("report_rest") is not None
    page = case.page("report_rest")
    assert "Fields of the document that are still empty: " in page.body
    assert "Preliminary cause" in page.body
    missing = r"fields of the document are still empty: .*Preliminary cause"
    with pytest.raises(InvalidAnswer, match=missing):
        case.answer("report_rest")
    with pytest.raises(InvalidAnswer, match="the reasons contain no text"):
        case.answer("report_rest", option="Not needed")
    case.answer("report_rest", option="Not needed", reason="The authority said so")
    (entry,) = case.entries(Kind.REPORTED)
    assert (entry.by, entry.data["complete"]) == (COMP, False)


def test_impact_form_contains_current_texts(company: Company) -> None:
    case = before(company, "decide")
    assert form_values(case.page("impact")) == TEXTS


@pytest.mark.parametrize("step", ["grade", "close"])
@pytest.mark.parametrize(("table", "event"), [("incident", "UPDATE"), ("incident_entry", "INSERT")])
def test_register_and_timeline_stay_unchanged_if_write_to_one_of_them_fails(
    company: Company, step: str, table: str, event: str
) -> None:
    case = before(company, step)
    kind = {"grade": Kind.GRADED, "close": Kind.CLOSED}[step]
    answer = usual_answer(case, step)

    def recorded_values() -> tuple[int, object]:
        incident = case.record.incident
        value = incident.grade if step == "grade" else incident.ended_at
        return len(case.entries(kind)), value

    with fault(company, table, event), pytest.raises(DBAPIError, match="out of space"):
        case.record_answer(step, answer)
    assert recorded_values() == (0, None)
    case.record_answer(step, answer)
    assert recorded_values()[0] == 1
    assert recorded_values()[1] is not None


@contextmanager
def fault(company: Company, table: str, event: str) -> Iterator[None]:
    """Make the state database refuse a kind of write to a table inside a with block.

    Args:
        company: sample company.
        table: name of the table.
        event: kind of write, such as ``INSERT``.
    """
    begin = """
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE 'out of space'; END $$;
    CREATE TRIGGER fail BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION fail();
    """
    with company.state.begin() as conn:
        conn.execute(text(begin.format(event=event, table=table)))
    try:
        yield
    finally:
        with company.state.begin() as conn:
            conn.execute(text("DROP FUNCTION fail() CASCADE"))


def test_repeated_recording_of_grade_answer_does_not_replace_later_grade(company: Company) -> None:
    case = before(company, "grade")
    answer = usual_answer(case, "grade")
    case.record_answer("grade", answer)
    company.clock.on(minutes=1)
    case.update(Action.REGRADE, by=COMP, grade="major", words="it is in the press")
    case.record_answer("grade", answer)
    assert case.record.incident.grade == "major"


@pytest.mark.parametrize(
    ("within", "due_text"),
    [("P45D", "due 45 d after the incident"), ("P2M", "due 2 months after the incident")],
)
def test_closing_form_contains_deadline_of_post_incident_summary(
    company: Company, within: str, due_text: str
) -> None:
    time_limits = [
        time_limit.model_copy(update={"within": Period.parse(within)})
        if time_limit.begins == "closing"
        else time_limit
        for time_limit in company.rules.clocks
    ]
    company.rules = company.rules.model_copy(update={"clocks": tuple(time_limits)})
    case = company.open(1).counted()
    case.answer("grade")
    body = case.page("close").body
    assert f"Post-incident summary approved: {due_text}" in body
    assert "Post-incident summary submitted" not in body
    assert "Legal holds stay in force until they are released." in body


def test_due_date_of_corrective_actions_is_independent_of_review_date_of_holds(
    company: Company,
) -> None:
    hold = company.rules.hold.model_copy(update={"review_after": Period.parse("P10D")})
    more = {"actions_within": Period.parse("P20D"), "hold": hold}
    company.rules = company.rules.model_copy(update=more)
    case = company.open(1).until("close")
    case.answer("review", action_1="Lock scanners", owner_1="compliance")
    with company.state.connect() as conn:
        actions = text("SELECT due_on FROM finding WHERE reference LIKE :mine")
        due = conn.scalar(actions, {"mine": f"{case.number}/%"})
        review_on = conn.scalar(
            text("SELECT review_on FROM legal_hold WHERE case_ref = :mine"), {"mine": case.number}
        )
    today = company.clock.now().astimezone(ZoneInfo("Asia/Shanghai")).date()
    assert (due - today, review_on - today) == (timedelta(days=20), timedelta(days=10))
