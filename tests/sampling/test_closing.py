"""Tests of the steps that conclude an audit: returned workpapers, verdicts, follow-up."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from include.evidence.model import Outcome
from include.findings import register
from include.reports.i18n import Translator
from include.sampling import issue
from include.sampling.closing import FIND_WORKPAPERS
from include.sampling.following import FOLLOW_UP
from include.sampling.workpapers import form
from include.sampling.workpapers.reading import draw_of
from include.sampling.workpapers.writing import write
from include.services.errors import ControlFailed
from tests.sampling.audit_fixtures import Audit, codes, figure, part_of
from tests.sampling.draw_fixtures import (
    ISSUED,
    audit_rules,
    committed_population,
    conclusion_context,
    hand_in,
    make_draw,
    returned_workbook,
)
from tests.sampling.workpapers.support import PEOPLE, edited, fill
from tests.support.contexts import step_record

DAY = timedelta(days=1)
LATE = ISSUED + 31 * DAY
DUE = date(2026, 11, 4)  # thirty days after ISSUED, and after a conclusion at ISSUED


def test_outstanding_workpapers_give_no_finding_until_due_date(audit: Audit) -> None:
    """Workpapers that are not due yet are listed, and the step has no finding."""
    record = audit.find_workpapers(ISSUED + 30 * DAY)
    assert (record.outcome, record.findings) == (Outcome.PASS, [])
    assert record.data["back"] == []
    assert [part for part, _at in record.data["out"]] == [part_of(audit)]
    assert figure(record, "workpapers_overdue") == 0


def test_follow_up_reports_missing_verdict_if_state_database_has_no_audit(state: Engine) -> None:
    """The follow-up of findings reports that no sample was drawn."""
    run = conclusion_context(state, audit_rules("shares"))
    assert step_record(FIND_WORKPAPERS, run).data == {"back": [], "out": []}
    record = step_record(FOLLOW_UP, run)
    assert codes(record) == [("sampling.no_verdict", Outcome.ATTENTION, "follow_up")]
    assert "no sample was drawn" in record.findings[0].message.text


def test_conclusion_of_quarter_fails_if_workpapers_are_not_returned_or_quarter_is_unknown(
    audit: Audit,
) -> None:
    """The quarter's workpapers are outstanding, or the quarter is unknown or concluded."""
    assert codes(audit.find_workpapers(quarter="2026Q3")) == [
        ("sampling.workpapers_out", Outcome.FAIL, part_of(audit))
    ]
    refused = audit.find_workpapers(quarter="2026Q2")
    assert codes(refused) == [("sampling.nothing_to_conclude", Outcome.FAIL, "2026Q2")]
    assert refused.could_not_run
    part = audit.return_first_stage()
    returned = audit.find_workpapers(quarter="2026Q3")
    assert (returned.outcome, returned.could_not_run) == (Outcome.PASS, False)
    audit.evaluate(part)
    assert codes(audit.find_workpapers(quarter="2026Q3"))[0][0] == "sampling.nothing_to_conclude"


def test_workpapers_are_overdue_the_day_after_due_date(audit: Audit) -> None:
    """Days begin in the policy pack's timezone: 07:00 in Shanghai is the previous day in UTC."""
    early = make_draw(
        committed_population("early"), audit="2026Q2", at=ISSUED - timedelta(hours=2, minutes=30)
    )
    assert early.papers.issued_at.date() < ISSUED.date()
    audit.issue(early)
    assert audit.find_workpapers(ISSUED + 30 * DAY).outcome is Outcome.PASS
    record = audit.find_workpapers(LATE)
    assert {code for code, _severity, _subject in codes(record)} == {"sampling.workpapers_overdue"}
    assert figure(record, "workpapers_overdue") == 2
    audit.return_first_stage()
    assert figure(audit.find_workpapers(LATE), "workpapers_overdue") == 1


def test_conclusion_of_one_quarter_reports_overdue_workpapers_of_other_quarters(
    audit: Audit,
) -> None:
    """The figure counts all quarters, although only the requested quarter is concluded."""
    audit.issue(make_draw(committed_population("early"), audit="2026Q2"))
    part = audit.return_first_stage()
    record = audit.find_workpapers(LATE, "2026Q3")
    assert record.data["back"] == [part]
    assert figure(record, "workpapers_overdue") == 1
    assert [code for code, _severity, _subject in codes(record)] == ["sampling.workpapers_overdue"]
    other = audit.find_workpapers(LATE, "2026Q2")
    assert other.data["back"] == []


def test_populations_without_deviation_are_accepted(audit: Audit) -> None:
    """Answers and verdicts are stored for the evidence bundle, and no finding is opened."""
    part = audit.return_first_stage()
    assert audit.find_workpapers().data["back"] == [part]
    record = audit.evaluate(part)
    assert (record.outcome, record.findings) == (Outcome.PASS, [])
    assert audit.decisions() == {"intake": "accepted", "shares": "accepted"}
    assert audit.findings() == []
    files = audit.files()
    assert set(files) == {f"answers-{part}.json", f"verdicts-{part}.json"}
    assert json.loads(files[f"verdicts-{part}.json"]) == record.data["verdicts"]
    assert issue.ReturnedAnswers.model_validate_json(files[f"answers-{part}.json"]).items
    assert audit.find_workpapers().data == {"back": [], "out": []}


def test_each_deviation_creates_an_audit_finding_with_owner_and_due_date(audit: Audit) -> None:
    """The step fails because a population is not accepted."""
    part = audit.return_first_stage({"shares": (3, 5)})
    record = audit.evaluate(part)
    assert codes(record) == [("sampling.not_accepted", Outcome.FAIL, "shares")]
    assert audit.decisions() == {"intake": "accepted", "shares": "not_accepted"}
    opened = audit.findings()
    assert [finding.reference for finding in opened] == [
        f"2026Q3/shares/{n}/approved" for n in (3, 5)
    ]
    assert {(finding.owner, finding.due_on, finding.kind) for finding in opened} == {
        ("management", DUE, "audit")
    }
    words = Translator("en").text(opened[0].description)
    key = audit.issued_draw.samples["shares"].items[2].key
    assert words == f"Shares, item {key}: Was it approved? no"
    assert record.data["performed_by"] == "陈晓"
    assert figure(record, "sampling.populations_not_accepted") == 1


def test_return_date_and_due_date_are_in_pack_timezone(audit: Audit) -> None:
    """07:00 in Shanghai is the previous day in UTC.

    The return date and due dates are those in Shanghai.
    """
    at = ISSUED + DAY - timedelta(hours=2, minutes=30)
    assert at.date() == ISSUED.date()
    with audit.state.begin() as conn:
        content = returned_workbook(audit.issued_draw.papers, {"shares": (1,)})
        part = issue.hand_in(conn, content, "x.xlsx", by="auditor", at=at).name
    record = audit.evaluate(part, at)
    assert datetime.fromisoformat(record.data["returned_at"]).date() == ISSUED.date() + DAY
    assert audit.findings()[0].due_on == DUE + DAY


def test_population_without_deviation_in_second_stage_is_accepted(audit: Audit) -> None:
    """The deviation of the first stage opens a finding before the second stage is tested."""
    part = audit.return_first_stage({"intake": (2,)})
    record = audit.evaluate(part)
    assert codes(record) == [
        ("sampling.deviations", Outcome.ATTENTION, "intake"),
        ("sampling.next_stage", Outcome.ATTENTION, part),
    ]
    assert figure(record, "sampling.populations_concluded") == 1
    assert audit.decisions() == {"shares": "accepted"}
    assert [finding.reference for finding in audit.findings()] == ["2026Q3/intake/2/approved"]
    second = part_of(audit, 2)
    file = audit.files()[f"workpapers-{second}.xlsx"]
    assert draw_of(file, "second") == (audit.issued_draw.papers.draw_sha256, 2)
    status = audit.find_workpapers()
    assert (status.data["back"], [part for part, _at in status.data["out"]]) == ([], [second])
    with audit.state.connect() as conn:
        papers = issue.all_issued(conn)[1].workpapers
    assert [paper.population for paper in papers.papers] == ["intake"]
    items = audit.issued_draw.samples["intake"].of_stage(2)
    assert [item.number for item in papers.papers[0].items] == [item.number for item in items]
    hand_in(audit.state, returned_workbook(papers))
    assert audit.find_workpapers().data["back"] == [second]
    judged = audit.evaluate(second, ISSUED + DAY, "r2")
    assert judged.data["verdicts"][0]["decision"] == "accepted"
    assert audit.decisions() == {"intake": "accepted", "shares": "accepted"}
    assert [finding.due_on for finding in audit.findings()] == [DUE]
    assert audit.find_workpapers().data == {"back": [], "out": []}


def test_population_with_deviation_in_second_stage_is_rejected(audit: Audit) -> None:
    """The deviations of both stages have a finding."""
    audit.evaluate(audit.return_first_stage({"intake": (2,)}))
    with audit.state.connect() as conn:
        papers = issue.all_issued(conn)[1].workpapers
    number = papers.papers[0].items[0].number
    hand_in(audit.state, returned_workbook(papers, {"intake": (number,)}))
    record = audit.evaluate(part_of(audit, 2), run="r2")
    assert codes(record) == [("sampling.not_accepted", Outcome.FAIL, "intake")]
    assert len(audit.findings()) == 2


def test_repeated_evaluation_leaves_verdicts_findings_and_workpapers_unchanged(
    audit: Audit,
) -> None:
    """If another run repeats the evaluation, it changes no verdict, finding or next stage."""
    part = audit.return_first_stage({"intake": (2,), "shares": (1,)})
    first = audit.evaluate(part)
    before = audit.database_rows()
    assert audit.evaluate(part) == first
    assert audit.database_rows() == before
    later = audit.evaluate(part, ISSUED + 3 * DAY, "another")
    assert later.data["verdicts"] == first.data["verdicts"]
    after = audit.database_rows()
    for table in ("audit_workpapers", "audit_result", "finding", "finding_event"):
        assert after[table] == before[table]


def test_item_with_only_not_applicable_answers_is_reported_and_population_is_not_accepted(
    audit: Audit,
) -> None:
    """Answers that say "not applicable" to all questions must not let a population be accepted."""
    answers = {("shares", 4, name): "不适用 N/A" for name in ("approved", "bound")}
    papers = audit.issued_draw.papers
    content = edited(write(papers), lambda book: fill(book, papers, answers))
    record = audit.evaluate(hand_in(audit.state, content).name)
    assert codes(record) == [
        ("sampling.untested", Outcome.ATTENTION, "shares"),
        ("sampling.not_accepted", Outcome.FAIL, "shares"),
    ]
    assert (
        Translator("en").text(record.findings[0].message).startswith("No question applies to 1 of ")
    )


def test_question_that_applies_to_no_item_is_reported(audit: Audit) -> None:
    """The other questions are still evaluated."""
    count = len(audit.issued_draw.papers.papers[0].items)
    answers = {("shares", number, "bound"): "不适用 N/A" for number in range(1, count + 1)}
    papers = audit.issued_draw.papers
    content = edited(write(papers), lambda book: fill(book, papers, answers))
    record = audit.evaluate(hand_in(audit.state, content).name)
    assert codes(record) == [("sampling.question_untested", Outcome.ATTENTION, "shares")]


def test_evaluation_reports_finding_if_returned_workpapers_were_replaced(audit: Audit) -> None:
    """The finding asks a person to find out the reason for the replacement."""
    audit.return_first_stage({"shares": (1, 2, 3)})
    record = audit.evaluate(audit.return_first_stage())
    assert codes(record) == [("sampling.replaced", Outcome.ATTENTION, part_of(audit))]


def test_control_figure_is_zero_if_latest_quarter_was_accepted_after_earlier_rejection(
    audit: Audit,
) -> None:
    """After a later quarter was accepted, an earlier rejection is not in the figure any more."""
    audit.evaluate(audit.return_first_stage({"shares": tuple(range(1, 8))}))
    later = make_draw(committed_population(), audit="2026Q4", at=ISSUED + 90 * DAY)
    audit.issue(later)
    at = ISSUED + 91 * DAY
    people = PEOPLE | {form.PERFORMED_ON: at.date()}
    part = hand_in(audit.state, returned_workbook(later.papers, people=people), at).name
    audit.evaluate(part, ISSUED + 91 * DAY, "r4")
    record = audit.follow_up(ISSUED + 92 * DAY, "r5")
    assert figure(record, "populations_above_tolerable_rate") == 0


def test_evaluation_raises_control_failed_if_workpapers_were_not_returned(audit: Audit) -> None:
    """Workpapers that were never issued are refused too."""
    for part in (part_of(audit), "2026Q3-1-000000"):
        with pytest.raises(ControlFailed, match="no returned workpapers"):
            audit.evaluate(part)


def test_follow_up_reminds_owners_weekly_and_reports_overdue_findings(audit: Audit) -> None:
    """The reminders start a week before the due date.

    If the step is repeated on the same day, no reminder is sent again.
    """
    audit.evaluate(audit.return_first_stage({"shares": (1, 2)}))
    numbers = [finding.id for finding in audit.findings()]
    start = ISSUED + 20 * DAY
    days = []
    for day in range(18):
        at = start + day * DAY
        record = audit.follow_up(at, f"d{day}")
        assert record.data["reminded"] in ([], numbers)
        assert audit.follow_up(at + timedelta(minutes=9), f"d{day}") == record
        if record.data["reminded"]:
            days.append((start + day * DAY).date())
        late = (start + day * DAY).date() > DUE
        overdue = "sampling.findings_overdue" in [finding.code for finding in record.findings]
        assert overdue is late
        assert figure(record, "audit_findings_overdue") == 2 * late
    assert days == [DUE - 7 * DAY, DUE, DUE + 7 * DAY]
    with audit.state.connect() as conn:
        count = text("SELECT count(*) FROM finding_event WHERE kind = 'reminded'")
        assert conn.execute(count).scalar_one() == 6
    assert ("sampling.findings_overdue", Outcome.FAIL, "management") in codes(record)


def test_follow_up_sends_no_reminder_for_closed_findings(audit: Audit) -> None:
    audit.evaluate(audit.return_first_stage({"shares": (1,)}))
    number = audit.findings()[0].id
    with audit.state.begin() as conn:
        register.answer(conn, number, cause="No form", action="Form", by="owner", at=ISSUED)
        register.retest(conn, number, met=True, by="auditor", at=ISSUED)
    record = audit.follow_up(LATE + 30 * DAY)
    assert record.outcome is Outcome.PASS
    assert record.data == {"reminded": [], "open": []}


def test_rejected_population_stays_reported_until_findings_are_closed(
    audit: Audit,
) -> None:
    """The population is reported even in runs without a verdict.

    The report ends when the findings of the population are corrected and retested.
    """
    audit.evaluate(audit.return_first_stage({"shares": tuple(range(1, 8))}))
    same = audit.follow_up()  # the evaluation of this run has already reported it
    assert codes(same) == []
    assert figure(same, "populations_above_tolerable_rate") == 1
    still = audit.follow_up(ISSUED + DAY, "r2")
    assert ("sampling.still_not_accepted", Outcome.FAIL, "shares") in codes(still)
    assert figure(still, "populations_above_tolerable_rate") == 1
    with audit.state.begin() as conn:
        for finding in register.list_findings(conn):
            words = {"cause": "no check", "action": "a check was added"}
            register.answer(conn, finding.id, **words, by="E1", at=ISSUED + DAY)
            register.retest(conn, finding.id, met=True, by="E2", at=ISSUED + DAY)
    calm = audit.follow_up(ISSUED + 2 * DAY, "r3")
    assert codes(calm) == []
    assert figure(calm, "populations_above_tolerable_rate") == 0


def test_follow_up_before_first_verdict_has_no_value_for_the_control_figure(state: Engine) -> None:
    """No population was evaluated yet, because the workpapers are outstanding."""
    audit = Audit(state)
    record = audit.follow_up()
    assert figure(record, "populations_above_tolerable_rate") is None
    (finding,) = record.findings
    assert (finding.code, finding.severity) == ("sampling.no_verdict", Outcome.ATTENTION)
    assert finding.message.text.format(**finding.message.values) == (
        "No population was evaluated yet. Outstanding workpapers: 1."
    )
    audit.evaluate(audit.return_first_stage())
    assert "sampling.no_verdict" not in [code for code, *_ in codes(audit.follow_up())]
