"""Tests of the evidence report of an incident: outcome, findings and sections."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta

import pytest
from sqlalchemy import text

from include.evidence.model import ControlState, Finding, Outcome, StepRecord, judge
from include.incident import incident_run, report, timeline, watch
from include.incident.communication import notices
from include.incident.form import Action
from include.incident.incident_ids import UPDATES, WORKFLOW, Kind
from include.incident.rule_checks import INCIDENT
from include.messages import Message, verbatim
from include.notify.outbox import Run
from include.notify.texts import text_digest
from include.reports.conclusion import Conclusion
from include.reports.i18n import Translator
from include.reports.model import Section, Table
from include.workflow.run_records import RunRecords
from tests.incident.incident_fixtures import (
    BOSS,
    COMP,
    PACK,
    Case,
    Company,
    assess,
    english,
    holds,
    widen,
)

TIMES = "Time limits, and when each was met"
CRITICAL = "First report to the cyberspace administration, critical infrastructure"
DONE = StepRecord(step="close", outcome=Outcome.PASS)


def concluded(case: Case, *records: StepRecord) -> Conclusion:
    return report.conclude_incident(case.context, case.number, [DONE, *records])


def codes(conclusion: Conclusion) -> list[str]:
    return [finding.code for finding in conclusion.findings]


def controls(conclusion: Conclusion) -> set[ControlState]:
    return {
        control.state
        for control in judge(PACK.controls_of("respond_to_incident"), conclusion.metrics)
    }


def section(conclusion: Conclusion, heading: str) -> Section:
    return {english(section.heading): section for section in conclusion.sections}[heading]


def cells(section: Section) -> list[list[object]]:
    [table] = [block for block in section.blocks if isinstance(block, Table)]
    return [
        [english(cell) if isinstance(cell, Message) else cell for cell in row] for row in table.rows
    ]


def test_run_outcome_is_passed_if_all_time_limits_of_incident_were_met(company: Company) -> None:
    case = company.open(1, 2).until("summary")
    assert english(concluded(case).summary).endswith("but 1 time limits are still running.")
    assert ControlState.NO_EVIDENCE in controls(concluded(case))  # the control of the team call
    watch.settle_notifications(case.context)
    conclusion = concluded(case)
    assert (conclusion.outcome, conclusion.findings) == (Outcome.PASS, [])
    assert english(conclusion.summary) == (
        f"{case.number}, Lost or stolen device: every time limit was met."
    )
    assert controls(conclusion) == {ControlState.PASSED}
    assert [approval.decision for approval in conclusion.approvals] == ["Approve"]
    assert cells(section(conclusion, "Notices to affected people")) == [["sent", 2]]
    assert section(conclusion, "Signatures").blocks[0].kind == "signatures"


@pytest.mark.parametrize(
    ("late", "names"),
    [
        ({"hours": 3}, {"graded", "plan_started", "team_called"}),
        ({"hours": 30}, {"cac_general", "postal_first"}),
        ({"hours": 80}, {"individuals", "cac_general", "postal_first"}),
    ],
)
def test_run_fails_if_a_time_limit_was_missed(
    company: Company, late: dict[str, float], names: set[str]
) -> None:
    case = company.open(1, 2)
    company.clock.on(**late)
    case.until("summary")
    conclusion = concluded(case)
    assert conclusion.outcome is Outcome.FAIL
    ran_out = {
        finding.subject
        for finding in conclusion.findings
        if finding.code == "incident.clock_ran_out"
    }
    assert names - {"plan_started", "team_called"} <= ran_out
    assert set(codes(conclusion)) == {"incident.clock_ran_out"}
    figures = {metric.name: metric.value for metric in conclusion.metrics}
    assert figures["incident.clocks_ran_out"] == len(ran_out)
    assert (figures["incident.people_told_late"] == 1) == ("individuals" in names)
    assert ControlState.FAILED in controls(conclusion)
    assert f"{len(ran_out)} time limits were missed" in english(conclusion.summary)


def test_run_of_duplicate_incident_needs_attention_and_gives_no_evidence(company: Company) -> None:
    company.open(3, 4)
    duplicate = company.open(3, 4, another=False)
    conclusion = concluded(duplicate)
    assert (conclusion.outcome, codes(conclusion)) == (Outcome.ATTENTION, ["incident.duplicate"])
    assert duplicate.record.incident.duplicate_of in english(conclusion.summary)
    assert controls(conclusion) == {ControlState.NO_EVIDENCE}


def test_duplicate_incident_has_no_missed_time_limits(company: Company) -> None:
    aware = (company.clock.now() - timedelta(hours=7)).isoformat()
    company.open(5, aware_at=aware)
    duplicate = company.open(5, aware_at=aware, another=False)
    conclusion = concluded(duplicate)
    assert (conclusion.outcome, codes(conclusion)) == (Outcome.ATTENTION, ["incident.duplicate"])
    facts = {english(fact.label): fact.value for fact in conclusion.facts}
    assert facts["Missed time limits"] == 0
    assert "Time limits, and when each was met" not in {
        english(section.heading) for section in conclusion.sections
    }


def test_run_of_cancelled_incident_passes_if_no_time_limit_was_missed_and_fails_otherwise(
    company: Company,
) -> None:
    quick, slow = company.open(1).counted(), company.open(2).counted()
    quick.update(Action.CANCEL, by=BOSS)
    company.clock.on(hours=5)
    slow.update(Action.CANCEL, by=BOSS)
    assert (concluded(quick).outcome, codes(concluded(quick))) == (Outcome.PASS, [])
    assert english(concluded(quick).summary).endswith("cancelled, because it was not an incident.")
    conclusion = concluded(slow)
    assert conclusion.outcome is Outcome.FAIL
    assert set(codes(conclusion)) == {"incident.clock_ran_out"}


@pytest.mark.parametrize("last", ["grade", "close", "review"])
def test_run_fails_if_it_ends_before_summary_of_incident_is_submitted(
    company: Company, last: str
) -> None:
    case = company.open(1).until(last)
    conclusion = concluded(case)
    assert (conclusion.outcome, codes(conclusion)) == (Outcome.FAIL, ["incident.not_finished"])


def test_run_fails_if_a_timeline_entry_was_changed(company: Company) -> None:
    case = company.open(1).until("summary")
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(
            text("UPDATE incident_entry SET by = 'E9' WHERE incident_id = :id AND place = 3"),
            {"id": case.record.incident.id},
        )
    conclusion = concluded(case)
    assert (conclusion.outcome, codes(conclusion)) == (Outcome.FAIL, ["incident.timeline_broken"])
    assert "entry 3" in english(conclusion.findings[0].message)


def test_finding_about_authority_report_that_was_declared_not_needed_has_severity_attention(
    company: Company,
) -> None:
    case = company.open(1).until("grade")
    for step in ("report", "report_rest"):
        if step == "report_rest":
            case.answer("impact")
            case.page("decide")
            case.answer("decide")
        why = "13800138000 says we need not"
        case.answer(step, authority="postal", option="Not needed", reason=why)
        case.answer(step, authority="cac")
    conclusion = concluded(case)
    unneeded = [
        finding for finding in conclusion.findings if finding.code == "incident.report_not_needed"
    ]
    assert [finding.subject for finding in unneeded] == ["postal/first", "postal/rest"]
    assert {finding.severity for finding in unneeded} == {Outcome.ATTENTION}
    message = english(unneeded[0].message)
    assert message == (
        f"A report was not handed in, because {COMP} declared it not required: first report to: "
        "Local postal "
        "administration. The report was not handed in: first report to: Local postal "
        "administration. … says we "
        "need not"
    )
    assert "management confirm with the authority in writing" in english(unneeded[0].action)
    figures = {metric.name: metric.value for metric in conclusion.metrics}
    assert figures["incident.reports_late"] is None
    states = {
        finding.id: finding.state
        for finding in judge(PACK.controls_of("respond_to_incident"), conclusion.metrics)
    }
    assert states["incidents.reported"] is ControlState.NO_EVIDENCE


def test_evidence_report_uses_grade_of_timeline_if_register_or_policy_pack_was_changed(
    company: Company,
) -> None:
    case = company.open(1, 2).until("grade", grade={"grade": "larger", "reason": "It is a lot"})
    with company.state.begin() as conn:
        conn.execute(text("UPDATE incident SET grade = 'general' WHERE number = :n"),
                     {"n": case.number})  # fmt: skip
    company.rules = company.rules.model_copy(update={"critical": True})
    facts = {english(fact.label): fact.value for fact in concluded(case).facts}
    assert english(facts["Grade"]) == "Larger"  # type: ignore[arg-type] # a grade is a Message
    rows = {row[0]: row[2] for row in cells(section(concluded(case), TIMES))}
    assert "does not apply to the company's type of systems" in str(rows[CRITICAL])


def test_run_fails_if_awareness_time_in_register_was_changed(company: Company) -> None:
    case = company.open(1).until("summary")
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(
            text("UPDATE incident SET aware_at = aware_at - interval '1 second' WHERE number = :n"),
            {"n": case.number},
        )
    conclusion = concluded(case)
    assert (conclusion.outcome, codes(conclusion)) == (Outcome.FAIL, ["incident.register_changed"])
    assert "first entry of the timeline: time of awareness" in english(
        conclusion.findings[0].message
    )


def test_digest_of_decision_can_be_recalculated_from_timeline_file(company: Company) -> None:
    case = company.open(1, 2).until("decide")
    rows = [json.loads(line) for line in report.timeline_file(case.record).splitlines()]
    last = {row["kind"]: row for row in rows}
    decided = last["decided"]["data"]
    content = json.dumps(
        decided["bound"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert hashlib.sha256(content.encode()).hexdigest() == decided["sha256"]
    assert decided["bound"]["number"] == case.number
    assert decided["bound"]["words"] == last["impact"]["sha256"]
    assert decided["bound"]["list"] == last["preserved"]["data"]["list_sha256"]
    assert decided["bound"]["text"] == text_digest(
        notices.current_notice_text(case.context, case.record)
    )


def test_failed_findings_of_step_are_lowered_to_attention_after_later_update_succeeds(
    company: Company,
) -> None:
    company.broken = {"archive"}
    case = company.open(databases=["courier", "archive"], keys=["courier/1"])
    counted = assess(case.context)
    secured = case.preserve()
    conclusion = concluded(case, counted, secured)
    assert conclusion.outcome is Outcome.FAIL
    unread = ["incident.not_counted", "incident.list_not_frozen", "incident.not_finished"]
    assert codes(conclusion) == unread
    assert [finding.severity for finding in conclusion.findings] == [Outcome.FAIL] * 3
    assert not [
        finding for finding in conclusion.findings if "done later" in english(finding.message)
    ]
    company.broken = set()
    run = company.context(Run(UPDATES, "later"))
    selection = incident_run.require_scope(run, case.record.incident.id).selection
    widen(run, case.number, selection, by="L1")
    case.preserve(run.run)
    conclusion = concluded(case, counted, secured)
    assert codes(conclusion) == unread
    assert [finding.severity for finding in conclusion.findings[:2]] == [Outcome.ATTENTION] * 2
    assert english(conclusion.findings[0].message).endswith("This was corrected later.")


def test_failed_finding_with_unknown_code_is_not_lowered_to_attention(company: Company) -> None:
    case = company.open(1).until("summary")
    words = verbatim("Nobody foresaw it.")
    finding = Finding(
        code="assess.failed", severity=Outcome.FAIL, subject="archive", message=words,
        action=words, clause="6.3",
    )  # fmt: skip
    conclusion = concluded(
        case, StepRecord(step="assess", outcome=Outcome.FAIL, findings=[finding])
    )
    assert (conclusion.outcome, codes(conclusion)) == (Outcome.FAIL, ["assess.failed"])


def test_report_of_drill_is_marked_as_drill_and_has_score_sheet(company: Company) -> None:
    case = company.open(scenario="everything_gone", keys=[], databases=[])
    case.counted()
    for step in ("contain", "grade"):
        answers = (
            {"grade": "especially_major"}
            if step == "grade"
            else {
                item.id: True
                for item in PACK.require(INCIDENT).type("leaked_credentials").checklist
            }
        )
        case.answer(step, **answers)
    conclusion = concluded(case)
    assert english(conclusion.title) == "DRILL of an incident response"
    chinese = Translator("zh_CN", "Asia/Shanghai")
    assert chinese.text(conclusion.title) == "【演练】应急处置"
    assert "【演练】" in chinese.text(conclusion.summary)
    texts = [
        chinese.text(block.text)
        for block in section(conclusion, "Description of the incident").blocks
    ]
    assert "【演练】并非真实事件。" in texts
    assert any("某论坛公开出售公司全部客户数据" in item for item in texts)
    assert any("某论坛" in chinese.text(entry.words) for entry in case.entries(Kind.OPENED))
    score = cells(section(conclusion, "Score sheet of the drill"))
    met = {row[0]: row[3] for row in score}
    assert met["Grade confirmed"] is Outcome.PASS
    assert met["First report to the cyberspace administration"] is Outcome.FAIL
    assert "All incidents" not in {english(item.heading) for item in conclusion.sections}
    with company.state.connect() as conn:
        assert holds(conn, case.number) == set()


def test_report_contains_all_time_limits_and_timeline_entries(company: Company) -> None:
    case = company.open(1).until("impact")
    company.clock.on(minutes=20)
    case.update(Action.NOTE, words="the police were told", at="2026-11-26T03:20:00")
    conclusion = concluded(case)
    times = cells(section(conclusion, "Time limits, and when each was met"))
    assert len(times) == len(company.rules.clocks)
    attention = Outcome.ATTENTION  # the team was not called yet
    assert {row[4] for row in times} == {Outcome.PASS, attention, "still open", "does not apply"}
    rows = cells(section(conclusion, "Timeline"))
    assert len(rows) == len(case.entries())
    assert "entered" in str(rows[-1][1])
    assert "entered" not in str(rows[0][1])
    table = cells(section(conclusion, "Scope of the incident"))
    assert table[0][-1] is Outcome.PASS


def test_digests_of_timeline_entries_can_be_recalculated_from_timeline_file(
    company: Company,
) -> None:
    case = company.open(1).until("grade")
    lines = report.timeline_file(case.record).decode().splitlines()
    previous = timeline.FIRST_PREVIOUS
    for position, line in enumerate(lines, 1):
        row = json.loads(line)
        digest = row.pop("sha256")
        assert (row["place"], row["previous"]) == (position, previous)
        content = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(content.encode()).hexdigest() == digest
        previous = digest


def test_report_of_update_contains_number_and_text_of_timeline_entry(company: Company) -> None:
    case = company.open(1).until("grade")
    entry = case.update(Action.REGRADE, by=COMP, grade="major", words="it is in the press")
    run = company.context(Run(UPDATES, "u"))
    conclusion = report.conclude_entry(run, case.record, entry.place, [DONE])
    assert conclusion.outcome is Outcome.PASS
    expected = (
        f"{case.number}, entry {entry.place}: "
        "The grade of the incident is Major. it is in the press"
    )
    assert english(conclusion.summary) == expected
    refused = StepRecord(step="enter", outcome=Outcome.FAIL)
    assert report.conclude_update(run, RunRecords([refused])).outcome is Outcome.FAIL
    unopened = company.context(Run(WORKFLOW, "unopened"))
    assert report.conclude(unopened, RunRecords([refused])).outcome is Outcome.FAIL


def test_corrective_action_that_is_entered_again_in_a_repeated_review_creates_no_second_finding(
    company: Company,
) -> None:
    case = company.open(1).until("close")
    first = {"lessons": "Lock", "action_1": "Lock the scanners", "owner_1": "compliance"}
    case.answer("review", **first)
    case.answer("review", **first | {"action_1": "Encrypt the disks"})
    case.answer("review", **first)
    with company.state.connect() as conn:
        query = "SELECT description::text FROM finding WHERE reference LIKE :mine ORDER BY id"
        actions = conn.scalars(text(query), {"mine": f"{case.number}/%"}).all()
    assert ["scanners" in action for action in actions] == [True, False]
    assert "Encrypt the disks" in actions[1]


def test_corrective_actions_become_findings_with_owner_and_due_date(company: Company) -> None:
    case = company.open(1).until("close")
    answers = {
        "lessons": "Lock scanners", "action_1": "Lock scanners after a minute",
        "owner_1": "data_engineering", "action_3": "Train couriers", "owner_3": "compliance",
        "days_3": 10,
    }  # fmt: skip
    case.answer("review", **answers)
    with company.state.connect() as conn:
        rows = conn.execute(
            text(
                "SELECT kind, owner, due_on::text FROM finding"
                " WHERE reference LIKE :mine ORDER BY id"
            ),
            {"mine": f"{case.number}/%"},
        ).all()
    assert [tuple(row) for row in rows] == [
        ("incident", "data_engineering", "2027-02-24"),
        ("incident", "compliance", "2026-12-06"),
    ]
    case.answer("summary")
    (_, steps) = section(concluded(case), "Lessons and corrective actions").blocks
    action_lines = [english(item) for item in steps.items]  # type: ignore[union-attr] # actions are steps
    assert action_lines[0].startswith("Lock scanners after a minute (finding ")
    assert "data_engineering" not in action_lines[0]
