"""Each human step: what it asks, what it takes, and what it refuses with the reason shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from include.approvals.question import Answer, AskAgain, Question
from include.evidence.step_findings import StepFindings
from include.incident.form import Action
from include.incident.names import CLAUSE, Kind, State
from include.incident.workflow import RESPOND_TO_INCIDENT
from include.policy.period import Period
from tests.incident.desk_rig import (
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

HUMAN = [one for one in STEPS if one not in ("counted", "notify")]
LATER = (NIGHT + timedelta(days=1)).isoformat()
EARLIER = (NIGHT - timedelta(days=1)).isoformat()


def before(company: Company, step: str, *keys: int, **form: Any) -> Case:
    """An incident in which everything before that step is done."""
    case = company.open(*(keys or (1, 2, 3)), **form).until(STEPS[STEPS.index(step) - 1])
    if step == "decide":
        case.page(step)
    return case


def shown(page: Question) -> dict[str, Any]:
    return {one.name: one.value for one in page.form if one.value is not None}


@pytest.mark.parametrize(
    ("step", "given", "cause"),
    [
        ("contain", dict.fromkeys(CHECKLIST, False), "not ticked, and nothing says why: Lock"),
        ("contain", {"lock_device": False, "notes": "1.2"}, "nothing says why: Lock and wipe"),
        ("contain", {"contained_at": LATER}, "When it was contained.*: is yet to come"),
        ("contain", {"contained_at": EARLIER}, "When it was contained.*: lies before 2026-11-26"),
        ("contain", {"contained_at": "soon"}, "is not a date and time"),
        ("grade", {"grade": "major"}, "not what the counts propose"),
        ("grade", {"grade": "major", "reason": "13800138000"}, "not what the counts propose"),
        ("grade", {"grade": "terrible"}, "is none of the choices"),
        ("grade", {"grade": ""}, "Grade: is missing"),
        ("report", {"receipt": " "}, "the receipt is missing"),
        ("report", {"handed_in_at": EARLIER}, "lies before"),
        ("report", {"handed_in_at": LATER}, "is yet to come"),
        ("impact", {"harm_zh": ""}, "Possible harm to people in Chinese: is missing"),
        ("impact", {"harm_zh": "138 0013 8000"}, "say nothing: Possible harm to people in Chinese"),
        ("decide", {"reason": "138 0013 8000"}, "the reasons say nothing"),
        ("decide", {"reason": ""}, "Reasons: is missing"),
        ("review", {"lessons": "123"}, "the lessons say nothing"),
        ("review", {"action_2": "Lock them"}, "nobody answers for action 2"),
        ("review", {"action_1": "Lock", "owner_1": "somebody"}, "is none of the choices"),
        ("summary", {"receipt": None}, "Number of the receipt.*: is missing"),
        ("summary", {"handed_in_at": EARLIER}, "lies before"),
    ],
)
def test_an_answer_that_does_not_count_is_refused_with_the_reason(
    company: Company, step: str, given: dict[str, Any], cause: str
) -> None:
    """The timeline tells who answered what, and the page says why it did not count."""
    case = before(company, step)
    done = len(case.entries())
    with pytest.raises(AskAgain, match=cause):
        case.answer(step, **given)
    (refused,) = case.entries()[done:]
    assert (refused.kind, refused.by) == (Kind.REFUSED, USUAL[step][0])
    assert f"The last answer, by {USUAL[step][0]}, did not count" in case.page(step).body


def test_what_was_entered_with_it_stands_in_the_fields_again(company: Company) -> None:
    """Boxes, words without what could be a customer's, moments; what cannot be read does not."""
    case = before(company, "contain")
    at = company.clock.now().isoformat()
    given = {"encryption": False, "notes": "138 0013 8000", "contained_at": at}
    with pytest.raises(AskAgain, match="nothing says why"):
        case.answer("contain", **given, lock_device=True)
    kept = {"encryption": False, "lock_device": True, "notes": "…", "contained_at": at}
    assert {name: shown(case.page("contain"))[name] for name in kept} == kept
    with pytest.raises(AskAgain, match="is not a date and time"):
        case.answer("contain", contained_at="soon")
    assert "contained_at" not in shown(case.page("contain"))


def test_what_counts_ends_the_refusal(company: Company) -> None:
    """A step that is cleared afterwards begins anew."""
    case = before(company, "grade")
    with pytest.raises(AskAgain):
        case.answer("grade", grade="major")
    case.answer("grade", grade="major", reason="the press knows")
    page = case.page("grade")
    assert "did not count" not in page.body
    assert shown(page) == {"grade": "general"}
    assert case.record.incident.grade == "major"


def test_a_refusal_about_one_authority_is_not_shown_for_another(company: Company) -> None:
    """Each has its own page, its own receipt, its own reasons."""
    case = before(company, "report")
    with pytest.raises(AskAgain):
        case.answer("report", option="Not needed", receipt="R-CAC", authority="cac")
    case.answer("report", authority="postal")
    page, other = case.page("report", "cac"), case.ask("report", "postal")
    assert other is None
    assert "did not count" in page.body
    assert shown(page)["receipt"] == "R-CAC"
    other = case.page("report_rest", "postal")
    assert "did not count" not in other.body
    assert "receipt" not in shown(other)


def test_a_moment_may_lie_between_the_leak_and_the_answer(company: Company) -> None:
    """Something may have been contained before anybody knew what it was."""
    case = before(company, "contain", began_at=EARLIER)
    at = NIGHT - timedelta(hours=1)
    case.answer("contain", contained_at=at.isoformat())
    (entry,) = case.entries(Kind.CONTAINED)
    assert entry.happened_at == at
    assert entry.recorded_at == company.clock.now()


def test_a_moment_without_offset_is_the_packs(company: Company) -> None:
    """Three o'clock is three at night where the company is."""
    case = before(company, "contain")
    company.clock.on(minutes=30)
    case.answer("contain", contained_at="2026-11-26T03:20")
    assert case.entries(Kind.CONTAINED)[0].happened_at == NIGHT + timedelta(minutes=5)


def test_an_answer_from_a_clock_that_is_ahead_counts_as_now(company: Company) -> None:
    """API server and worker are two machines; seconds between them are nobody's fault."""
    case = before(company, "grade")
    company.clock.on(seconds=5)
    given = given_now(case, "grade")
    company.clock.on(seconds=-5)
    case.take("grade", given)
    assert case.entries(Kind.GRADED)[0].happened_at == company.clock.now()


def given_now(case: Case, step: str) -> Any:
    who, chosen, entered = USUAL[step]
    at, content = case.company.clock.now(), case.content(step)
    return Answer(chosen, "", who, at, entered=entered, content=content)


@pytest.mark.parametrize("step", [one for one in HUMAN if one != "close"])
def test_an_answer_taken_twice_is_entered_once(company: Company, step: str) -> None:
    """A task that was killed behind its entry is repeated."""
    case = before(company, step)
    given = given_now(case, step)
    first = case.take(step, given)
    count = len(case.entries())
    company.clock.on(minutes=3)
    assert case.take(step, given) == first
    assert len(case.entries()) == count


def test_closing_taken_twice_is_entered_once(company: Company) -> None:
    """And the incident stays closed as it was."""
    case = before(company, "close")
    given = given_now(case, "close")
    case.take("close", given)
    ended = case.record.incident.ended_at
    company.clock.on(minutes=3)
    case.take("close", given)
    assert len(case.entries(Kind.CLOSED)) == 1
    assert (case.record.incident.state, case.record.incident.ended_at) == (State.CLOSED, ended)


@pytest.mark.parametrize("step", [one for one in HUMAN if one != "decide"])
def test_no_step_of_a_duplicate_or_cancelled_incident_asks_anybody(
    company: Company, step: str
) -> None:
    """The runs flow on to their seal."""
    first = company.open(1, 2).counted()
    again = company.open(1, 2, another=False)
    assert again.record.incident.duplicate_of == first.number
    assert _asks(again, step) is None
    first.update(Action.CANCEL, by=BOSS, words="a test of the alarm")
    assert _asks(first, step) is None


def _asks(case: Case, step: str) -> Question | None:
    human: Any = RESPOND_TO_INCIDENT.step(step)
    part = "cac" if step.startswith("report") else ""
    asked = human.ask(case.context, StepFindings(step, CLAUSE, part))
    return asked if isinstance(asked, Question) else None


def test_what_is_not_ticked_needs_a_reason_and_both_are_kept(company: Company) -> None:
    """A scanner has no storage to encrypt: that is said, and counts."""
    case = before(company, "contain")
    case.answer("contain", encryption=False, notes="It has no storage")
    (entry,) = case.entries(Kind.CONTAINED)
    assert english(entry.words) == (
        "Contained: 3 of 4 items of the checklist done. It has no storage"
    )
    assert entry.data["left"] == ["encryption"]


def test_what_people_write_makes_no_page_of_its_own(company: Company) -> None:
    """Neither a heading, nor a link, nor a line that looks like ours."""
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


def test_a_report_that_lacks_a_field_is_blocked_and_the_field_named(company: Company) -> None:
    """By the law it says what was done; before the containment nobody can."""
    case = company.open(1, 2).counted()
    case.answer("grade")
    assert case.ask("report_rest") is not None
    page = case.page("report_rest")
    assert "The document lacks: " in page.body
    assert "Preliminary cause" in page.body
    with pytest.raises(AskAgain, match=r"the document lacks: .*Preliminary cause"):
        case.answer("report_rest")
    with pytest.raises(AskAgain, match="the reasons say nothing"):
        case.answer("report_rest", option="Not needed")
    case.answer("report_rest", option="Not needed", reason="The authority said so")
    (entry,) = case.entries(Kind.REPORTED)
    assert (entry.by, entry.data["complete"]) == (COMP, False)


def test_words_that_are_written_anew_begin_with_those_of_before(company: Company) -> None:
    """One word is to be changed, not ten texts at four in the morning."""
    case = before(company, "decide")
    assert shown(case.page("impact")) == TEXTS


@pytest.mark.parametrize("step", ["grade", "close"])
@pytest.mark.parametrize(("table", "event"), [("incident", "UPDATE"), ("incident_entry", "INSERT")])
def test_the_register_and_the_timeline_say_the_same_whatever_fails_between(
    company: Company, step: str, table: str, event: str
) -> None:
    """Either has the answer or neither; taken again, both have it."""
    case = before(company, step)
    kind = {"grade": Kind.GRADED, "close": Kind.CLOSED}[step]
    given = given_now(case, step)

    def kept() -> tuple[int, object]:
        incident = case.record.incident
        said = incident.grade if step == "grade" else incident.ended_at
        return len(case.entries(kind)), said

    with fault(company, table, event), pytest.raises(DBAPIError, match="out of space"):
        case.take(step, given)
    assert kept() == (0, None)
    case.take(step, given)
    assert kept()[0] == 1
    assert kept()[1] is not None


@contextmanager
def fault(company: Company, table: str, event: str) -> Iterator[None]:
    """The database can no longer write that."""
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


def test_a_grade_that_is_taken_again_does_not_undo_a_later_one(company: Company) -> None:
    """The task was killed behind its entry, and somebody regraded before it was repeated."""
    case = before(company, "grade")
    given = given_now(case, "grade")
    case.take("grade", given)
    company.clock.on(minutes=1)
    case.update(Action.REGRADE, by=COMP, grade="major", words="it is in the press")
    case.take("grade", given)
    assert case.record.incident.grade == "major"


@pytest.mark.parametrize(
    ("within", "said"), [("P45D", "due 45 d after the end"), ("P2M", "due P2M after the end")]
)
def test_closing_says_when_the_summary_is_due_by_the_pack(
    company: Company, within: str, said: str
) -> None:
    """Of the grade's own clock, by its period; other clocks that begin then are told too."""
    found = [
        one.model_copy(update={"within": Period.parse(within)}) if one.begins == "closing" else one
        for one in company.rules.clocks
    ]
    company.rules = company.rules.model_copy(update={"clocks": tuple(found)})
    case = company.open(1).counted()
    case.answer("grade")
    body = case.page("close").body
    assert f"Post-incident summary approved: {said}" in body
    assert "Post-incident summary handed in" not in body
    assert "Legal holds stay until they are released." in body


def test_corrective_actions_and_holds_have_periods_of_their_own(company: Company) -> None:
    """The one says when an action is due, the other when somebody asks about a hold."""
    hold = company.rules.hold.model_copy(update={"review_after": Period.parse("P10D")})
    more = {"actions_within": Period.parse("P20D"), "hold": hold}
    company.rules = company.rules.model_copy(update=more)
    case = company.open(1).until("close")
    case.answer("review", action_1="Lock scanners", owner_1="compliance")
    with company.state.connect() as conn:
        actions = text("SELECT due_on FROM finding WHERE reference LIKE :mine")
        due = conn.scalar(actions, {"mine": f"{case.number}/%"})
        ask = conn.scalar(
            text("SELECT review_on FROM legal_hold WHERE case_ref = :mine"), {"mine": case.number}
        )
    today = company.clock.now().astimezone(ZoneInfo("Asia/Shanghai")).date()
    assert (due - today, ask - today) == (timedelta(days=20), timedelta(days=10))
