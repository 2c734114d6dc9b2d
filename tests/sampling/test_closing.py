"""The second half of an audit, on a state database: back, judged, followed."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from include.evidence.model import Outcome
from include.findings import register
from include.reports.i18n import Translator
from include.sampling import issue
from include.sampling.closing import LOOK
from include.sampling.following import FOLLOW_UP
from include.sampling.workpapers import form
from include.sampling.workpapers.reading import draw_of
from include.sampling.workpapers.writing import write
from include.services.errors import ControlFailed
from tests.sampling.closed import Audit, codes, figure, part_of
from tests.sampling.drawn import ISSUED, committed, concluding, draw, hand_in, returned, rules
from tests.sampling.workpapers.support import PEOPLE, edited, fill
from tests.support.contexts import step_record

DAY = timedelta(days=1)
LATE = ISSUED + 31 * DAY
DUE = date(2026, 11, 4)  # thirty days after ISSUED, and after a conclusion at ISSUED


def test_a_day_on_which_nothing_is_back_is_calm(audit: Audit) -> None:
    """What is out is told, and nobody is blamed before the day is over."""
    record = audit.looked(ISSUED + 30 * DAY)
    assert (record.outcome, record.findings) == (Outcome.PASS, [])
    assert record.data["back"] == []
    assert [part for part, _at in record.data["out"]] == [part_of(audit)]
    assert figure(record, "workpapers_overdue") == 0


def test_a_state_without_audits_is_calm(state: Engine) -> None:
    """Nothing is out, nothing open; what is missing is a sample."""
    run = concluding(state, rules("shares"))
    assert step_record(LOOK, run).data == {"back": [], "out": []}
    record = step_record(FOLLOW_UP, run)
    assert codes(record) == [("sampling.no_verdict", Outcome.ATTENTION, "follow_up")]
    assert "no sample has been drawn" in record.findings[0].message.text


def test_a_conclusion_that_is_asked_for_too_early_fails(audit: Audit) -> None:
    """Once they are out, and once there is nothing left or nothing at all."""
    assert codes(audit.looked(asked="2026Q3")) == [
        ("sampling.workpapers_out", Outcome.FAIL, part_of(audit))
    ]
    assert codes(audit.looked(asked="2026Q2")) == [
        ("sampling.nothing_to_conclude", Outcome.FAIL, "2026Q2")
    ]
    part = audit.back()
    assert audit.looked(asked="2026Q3").outcome is Outcome.PASS
    audit.evaluated(part)
    assert codes(audit.looked(asked="2026Q3"))[0][0] == "sampling.nothing_to_conclude"


def test_workpapers_are_overdue_the_day_after(audit: Audit) -> None:
    """Days are those of the pack: 07:00 in Shanghai is the day before in UTC."""
    early = draw(committed("early"), audit="2026Q2", at=ISSUED - timedelta(hours=2, minutes=30))
    assert early.papers.issued_at.date() < ISSUED.date()
    audit.issue(early)
    assert audit.looked(ISSUED + 30 * DAY).outcome is Outcome.PASS
    record = audit.looked(LATE)
    assert {code for code, _severity, _subject in codes(record)} == {"sampling.workpapers_overdue"}
    assert figure(record, "workpapers_overdue") == 2
    audit.back()
    assert figure(audit.looked(LATE), "workpapers_overdue") == 1


def test_whoever_asks_for_one_quarter_hears_of_others_that_are_overdue(audit: Audit) -> None:
    """The figure is that of all of them; only the quarter that was asked for is concluded."""
    audit.issue(draw(committed("early"), audit="2026Q2"))
    part = audit.back()
    record = audit.looked(LATE, "2026Q3")
    assert record.data["back"] == [part]
    assert figure(record, "workpapers_overdue") == 1
    assert [code for code, _severity, _subject in codes(record)] == ["sampling.workpapers_overdue"]
    other = audit.looked(LATE, "2026Q2")
    assert other.data["back"] == []


def test_what_came_back_well_is_accepted(audit: Audit) -> None:
    """Answers and verdicts are files of the bundle; no finding is opened."""
    part = audit.back()
    assert audit.looked().data["back"] == [part]
    record = audit.evaluated(part)
    assert (record.outcome, record.findings) == (Outcome.PASS, [])
    assert audit.decisions() == {"intake": "accepted", "shares": "accepted"}
    assert audit.findings() == []
    files = audit.files()
    assert set(files) == {f"answers-{part}.json", f"verdicts-{part}.json"}
    assert json.loads(files[f"verdicts-{part}.json"]) == record.data["verdicts"]
    assert issue.HandedIn.model_validate_json(files[f"answers-{part}.json"]).items
    assert audit.looked().data == {"back": [], "out": []}


def test_every_deviation_is_a_finding_with_an_owner_and_a_day(audit: Audit) -> None:
    """The population that deviates too much fails the run."""
    part = audit.back({"shares": (3, 5)})
    record = audit.evaluated(part)
    assert codes(record) == [("sampling.not_accepted", Outcome.FAIL, "shares")]
    assert audit.decisions() == {"intake": "accepted", "shares": "not_accepted"}
    found = audit.findings()
    assert [one.reference for one in found] == [f"2026Q3/shares/{n}/approved" for n in (3, 5)]
    assert {(one.owner, one.due_on, one.kind) for one in found} == {("management", DUE, "audit")}
    words = Translator("en").text(found[0].what)
    key = audit.made.samples["shares"].items[2].key
    assert words == f"Shares, item {key}: Was it approved? no"
    assert record.data["performed_by"] == "陈晓"
    assert figure(record, "sampling.populations_not_accepted") == 1


def test_the_days_of_people_are_those_of_the_pack(audit: Audit) -> None:
    """A hand-in at 07:00 in Shanghai is of that day, and so is a finding's."""
    at = ISSUED + DAY - timedelta(hours=2, minutes=30)
    assert at.date() == ISSUED.date()
    with audit.state.begin() as conn:
        content = returned(audit.made.papers, {"shares": (1,)})
        part = issue.hand_in(conn, content, "x.xlsx", by="auditor", at=at).part
    record = audit.evaluated(part, at)
    assert datetime.fromisoformat(record.data["returned_at"]).date() == ISSUED.date() + DAY
    assert audit.findings()[0].due_on == DUE + DAY


def test_a_second_stage_is_issued_and_judged(audit: Audit) -> None:
    """The first stage's deviation is a finding at once; without another one it is accepted."""
    part = audit.back({"intake": (2,)})
    record = audit.evaluated(part)
    assert codes(record) == [
        ("sampling.deviations", Outcome.ATTENTION, "intake"),
        ("sampling.next_stage", Outcome.ATTENTION, part),
    ]
    assert figure(record, "sampling.populations_concluded") == 1
    assert audit.decisions() == {"shares": "accepted"}
    assert [one.reference for one in audit.findings()] == ["2026Q3/intake/2/approved"]
    second = part_of(audit, 2)
    file = audit.files()[f"workpapers-{second}.xlsx"]
    assert draw_of(file, "second") == (audit.made.papers.draw_sha256, 2)
    seen = audit.looked()
    assert (seen.data["back"], [one for one, _at in seen.data["out"]]) == ([], [second])
    with audit.state.connect() as conn:
        papers = issue.all_issued(conn)[1].workpapers
    assert [one.population for one in papers.papers] == ["intake"]
    first = audit.made.samples["intake"].of_stage(2)
    assert [one.number for one in papers.papers[0].items] == [one.number for one in first]
    hand_in(audit.state, returned(papers))
    assert audit.looked().data["back"] == [second]
    judged = audit.evaluated(second, ISSUED + DAY, "r2")
    assert judged.data["verdicts"][0]["decision"] == "accepted"
    assert audit.decisions() == {"intake": "accepted", "shares": "accepted"}
    assert [one.due_on for one in audit.findings()] == [DUE]
    assert audit.looked().data == {"back": [], "out": []}


def test_another_deviation_in_the_second_stage_rejects(audit: Audit) -> None:
    """Its finding stands beside the first one."""
    audit.evaluated(audit.back({"intake": (2,)}))
    with audit.state.connect() as conn:
        papers = issue.all_issued(conn)[1].workpapers
    number = papers.papers[0].items[0].number
    hand_in(audit.state, returned(papers, {"intake": (number,)}))
    record = audit.evaluated(part_of(audit, 2), run="r2")
    assert codes(record) == [("sampling.not_accepted", Outcome.FAIL, "intake")]
    assert len(audit.findings()) == 2


def test_a_repeated_step_changes_nothing(audit: Audit) -> None:
    """The same verdicts, findings, files and next stage; of another run too."""
    part = audit.back({"intake": (2,), "shares": (1,)})
    first = audit.evaluated(part)
    before = audit.everything()
    assert audit.evaluated(part) == first
    assert audit.everything() == before
    later = audit.evaluated(part, ISSUED + 3 * DAY, "another")
    assert later.data["verdicts"] == first.data["verdicts"]
    after = audit.everything()
    for table in ("audit_workpapers", "audit_result", "finding", "finding_event"):
        assert after[table] == before[table]


def test_items_of_which_nothing_was_tested_are_told(audit: Audit) -> None:
    """A population is not quietly accepted by answers that say nothing."""
    answers = {("shares", 4, name): "不适用 N/A" for name in ("approved", "bound")}
    papers = audit.made.papers
    content = edited(write(papers), lambda book: fill(book, papers, answers))
    record = audit.evaluated(hand_in(audit.state, content).part)
    assert codes(record) == [
        ("sampling.untested", Outcome.ATTENTION, "shares"),
        ("sampling.not_accepted", Outcome.FAIL, "shares"),
    ]
    assert Translator("en").text(record.findings[0].message).startswith("Shares: to 1 of ")


def test_a_question_that_applied_to_nothing_is_told(audit: Audit) -> None:
    """Every answer to it says nothing; the others are judged."""
    count = len(audit.made.papers.papers[0].items)
    answers = {("shares", number, "bound"): "不适用 N/A" for number in range(1, count + 1)}
    papers = audit.made.papers
    content = edited(write(papers), lambda book: fill(book, papers, answers))
    record = audit.evaluated(hand_in(audit.state, content).part)
    assert codes(record) == [("sampling.question_untested", Outcome.ATTENTION, "shares")]


def test_workpapers_that_took_the_place_of_others_are_told(audit: Audit) -> None:
    """Who hands in again after the first answers has to be asked why."""
    audit.back({"shares": (1, 2, 3)})
    record = audit.evaluated(audit.back())
    assert codes(record) == [("sampling.replaced", Outcome.ATTENTION, part_of(audit))]


def test_the_last_verdict_of_a_population_counts(audit: Audit) -> None:
    """Of two quarters the later one, whichever was judged first."""
    audit.evaluated(audit.back({"shares": tuple(range(1, 8))}))
    later = draw(committed(), audit="2026Q4", at=ISSUED + 90 * DAY)
    audit.issue(later)
    at = ISSUED + 91 * DAY
    people = PEOPLE | {form.PERFORMED_ON: at.date()}
    part = hand_in(audit.state, returned(later.papers, people=people), at).part
    audit.evaluated(part, ISSUED + 91 * DAY, "r4")
    record = audit.followed(ISSUED + 92 * DAY, "r5")
    assert figure(record, "populations_above_tolerable_rate") == 0


def test_what_is_not_back_is_not_judged(audit: Audit) -> None:
    """Nor what was never issued."""
    for part in (part_of(audit), "2026Q3-1-000000"):
        with pytest.raises(ControlFailed, match="no returned workpapers"):
            audit.evaluated(part)


def test_owners_are_reminded_once_a_week_and_overdue_findings_fail(audit: Audit) -> None:
    """From a week before the day on; a repeated step of the same day reminds nobody again."""
    audit.evaluated(audit.back({"shares": (1, 2)}))
    numbers = [one.id for one in audit.findings()]
    start = ISSUED + 20 * DAY
    days = []
    for day in range(18):
        at = start + day * DAY
        record = audit.followed(at, f"d{day}")
        assert record.data["reminded"] in ([], numbers)
        assert audit.followed(at + timedelta(minutes=9), f"d{day}") == record
        if record.data["reminded"]:
            days.append((start + day * DAY).date())
        late = (start + day * DAY).date() > DUE
        overdue = "sampling.findings_overdue" in [one.code for one in record.findings]
        assert overdue is late
        assert figure(record, "audit_findings_overdue") == 2 * late
    assert days == [DUE - 7 * DAY, DUE, DUE + 7 * DAY]
    with audit.state.connect() as conn:
        count = text("SELECT count(*) FROM finding_event WHERE kind = 'reminded'")
        assert conn.execute(count).scalar_one() == 6
    assert ("sampling.findings_overdue", Outcome.FAIL, "management") in codes(record)


def test_a_closed_finding_is_followed_no_more(audit: Audit) -> None:
    """It is neither open nor overdue."""
    audit.evaluated(audit.back({"shares": (1,)}))
    number = audit.findings()[0].id
    with audit.state.begin() as conn:
        register.answer(conn, number, cause="No form", action="Form", by="owner", at=ISSUED)
        register.retest(conn, number, met=True, by="auditor", at=ISSUED)
    record = audit.followed(LATE + 30 * DAY)
    assert record.outcome is Outcome.PASS
    assert record.data == {"reminded": [], "open": []}


def test_a_population_that_was_not_accepted_stays_red_until_its_findings_are_closed(
    audit: Audit,
) -> None:
    """A day on which nothing was judged does not make it good; what was mended and tested does."""
    audit.evaluated(audit.back({"shares": tuple(range(1, 8))}))
    same = audit.followed()  # the run that judged it has said so already
    assert codes(same) == []
    assert figure(same, "populations_above_tolerable_rate") == 1
    still = audit.followed(ISSUED + DAY, "r2")
    assert ("sampling.still_not_accepted", Outcome.FAIL, "shares") in codes(still)
    assert figure(still, "populations_above_tolerable_rate") == 1
    with audit.state.begin() as conn:
        for one in register.listed(conn):
            words = {"cause": "no check", "action": "a check was added"}
            register.answer(conn, one.id, **words, by="E1", at=ISSUED + DAY)
            register.retest(conn, one.id, met=True, by="E2", at=ISSUED + DAY)
    calm = audit.followed(ISSUED + 2 * DAY, "r3")
    assert codes(calm) == []
    assert figure(calm, "populations_above_tolerable_rate") == 0


def test_before_the_first_verdict_nothing_is_shown(state: Engine) -> None:
    """Nothing was judged, so nothing was accepted either: the workpapers are not back."""
    audit = Audit(state)
    record = audit.followed()
    assert figure(record, "populations_above_tolerable_rate") is None
    (finding,) = record.findings
    assert (finding.code, finding.severity) == ("sampling.no_verdict", Outcome.ATTENTION)
    assert finding.message.text.format(**finding.message.values) == (
        "No population has been judged yet; workpapers that are not back: 1."
    )
    audit.evaluated(audit.back())
    assert "sampling.no_verdict" not in [code for code, *_ in codes(audit.followed())]
