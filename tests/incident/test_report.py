"""What the evidence of an incident says, and when it is red."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta

import pytest
from sqlalchemy import text

from include.evidence.model import ControlState, Finding, Outcome, StepRecord, judge
from include.incident import incident_run, report, timeline, watching
from include.incident.form import Action
from include.incident.names import UPDATES, WORKFLOW, Kind
from include.incident.rule_checks import INCIDENT
from include.incident.telling import notifying
from include.messages import Message, verbatim
from include.notify.outbox import Run
from include.notify.texts import digest
from include.reports.conclusion import Conclusion
from include.reports.i18n import Translator
from include.reports.model import Section, Table
from include.workflow.run_records import RunRecords
from tests.incident.desk_rig import BOSS, COMP, PACK, Case, Company, assess, english, holds, widen

TIMES = "Time limits and when they were met"
CRITICAL = "First report to the cyberspace administration, critical infrastructure"
DONE = StepRecord(step="close", outcome=Outcome.PASS)


def concluded(case: Case, *records: StepRecord) -> Conclusion:
    return report.conclude_incident(case.context, case.number, [DONE, *records])


def codes(found: Conclusion) -> list[str]:
    return [one.code for one in found.findings]


def controls(found: Conclusion) -> set[ControlState]:
    return {one.state for one in judge(PACK.controls_of("respond_to_incident"), found.metrics)}


def section(found: Conclusion, heading: str) -> Section:
    return {english(one.heading): one for one in found.sections}[heading]


def cells(found: Section) -> list[list[object]]:
    [table] = [one for one in found.blocks if isinstance(one, Table)]
    return [
        [english(one) if isinstance(one, Message) else one for one in row] for row in table.rows
    ]


def test_an_incident_that_was_led_in_time_passes(company: Company) -> None:
    """All three controls are shown to hold."""
    case = company.open(1, 2).until("summary")
    assert english(concluded(case).summary).endswith("but 1 periods still run.")
    assert ControlState.NOT_SHOWN in controls(concluded(case))  # the call of the team
    watching.settle(case.context)
    found = concluded(case)
    assert (found.outcome, found.findings) == (Outcome.PASS, [])
    assert english(found.summary) == (
        f"{case.number}, Lost or stolen device: everything that was due was done in time."
    )
    assert controls(found) == {ControlState.HELD}
    assert [one.decision for one in found.approvals] == ["Approve"]
    assert cells(section(found, "Notices to people")) == [["sent", 2]]


@pytest.mark.parametrize(
    ("late", "names"),
    [
        ({"hours": 3}, {"graded", "plan_started", "team_called"}),
        ({"hours": 30}, {"cac_general", "postal_first"}),
        ({"hours": 80}, {"individuals", "cac_general", "postal_first"}),
    ],
)
def test_a_clock_that_ran_out_is_red_however_well_the_rest_went(
    company: Company, late: dict[str, float], names: set[str]
) -> None:
    """Airflow was down: nothing was woken, and the truth is told all the same."""
    case = company.open(1, 2)
    company.clock.on(**late)
    case.until("summary")
    found = concluded(case)
    assert found.outcome is Outcome.FAIL
    ran_out = {one.subject for one in found.findings if one.code == "incident.clock_ran_out"}
    assert names - {"plan_started", "team_called"} <= ran_out
    assert set(codes(found)) == {"incident.clock_ran_out"}
    figures = {one.name: one.value for one in found.metrics}
    assert figures["incident.clocks_ran_out"] == len(ran_out)
    assert (figures["incident.people_told_late"] == 1) == ("individuals" in names)
    assert ControlState.NOT_HELD in controls(found)
    assert f"{len(ran_out)} periods ran out" in english(found.summary)


def test_a_duplicate_needs_a_look_and_is_evidence_of_no_control(company: Company) -> None:
    """What is led elsewhere is judged there; a second press is no drill either."""
    company.open(3, 4)
    again = company.open(3, 4, another=False)
    found = concluded(again)
    assert (found.outcome, codes(found)) == (Outcome.ATTENTION, ["incident.duplicate"])
    assert again.record.incident.duplicate_of in english(found.summary)
    assert controls(found) == {ControlState.NOT_SHOWN}


def test_a_duplicate_is_late_with_nothing(company: Company) -> None:
    """Also where Trigger was pressed twice hours after awareness: its clocks run elsewhere."""
    aware = (company.clock.now() - timedelta(hours=7)).isoformat()
    company.open(5, aware_at=aware)
    again = company.open(5, aware_at=aware, another=False)
    found = concluded(again)
    assert (found.outcome, codes(found)) == (Outcome.ATTENTION, ["incident.duplicate"])
    facts = {english(one.label): one.value for one in found.facts}
    assert facts["Periods that ran out"] == 0
    assert "By when, and when" not in {english(one.heading) for one in found.sections}


def test_a_false_alarm_passes_where_nothing_had_run_out(company: Company) -> None:
    """And stays red where it had."""
    quick, slow = company.open(1).counted(), company.open(2).counted()
    quick.update(Action.CANCEL, by=BOSS)
    company.clock.on(hours=5)
    slow.update(Action.CANCEL, by=BOSS)
    assert (concluded(quick).outcome, codes(concluded(quick))) == (Outcome.PASS, [])
    assert english(concluded(quick).summary).endswith("cancelled, it was none.")
    found = concluded(slow)
    assert found.outcome is Outcome.FAIL
    assert set(codes(found)) == {"incident.clock_ran_out"}


@pytest.mark.parametrize("last", ["grade", "close", "review"])
def test_a_run_that_ends_before_its_incident_is_red(company: Company, last: str) -> None:
    """A task failed, and nobody cleared it."""
    case = company.open(1).until(last)
    found = concluded(case)
    assert (found.outcome, codes(found)) == (Outcome.FAIL, ["incident.not_finished"])


def test_a_timeline_that_was_tampered_with_is_red_and_the_entry_named(company: Company) -> None:
    """By somebody who may change what the table itself refuses."""
    case = company.open(1).until("summary")
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(
            text("UPDATE incident_entry SET by = 'E9' WHERE incident_id = :id AND place = 3"),
            {"id": case.record.incident.id},
        )
    found = concluded(case)
    assert (found.outcome, codes(found)) == (Outcome.FAIL, ["incident.timeline_broken"])
    assert "entry 3" in english(found.findings[0].message)


def test_a_report_that_was_not_needed_is_never_plain_green(company: Company) -> None:
    """One person said so: who, why and what to do stand in it, and no control is shown by it."""
    case = company.open(1).until("grade")
    for step in ("report", "report_rest"):
        if step == "report_rest":
            case.answer("impact")
            case.page("decide")
            case.answer("decide")
        why = "13800138000 says we need not"
        case.answer(step, authority="postal", option="Not needed", reason=why)
        case.answer(step, authority="cac")
    found = concluded(case)
    unneeded = [one for one in found.findings if one.code == "incident.report_not_needed"]
    assert [one.subject for one in unneeded] == ["postal/first", "postal/rest"]
    assert {one.severity for one in unneeded} == {Outcome.ATTENTION}
    said = english(unneeded[0].message)
    assert said == (
        f"Not handed in, because {COMP} said that it is not needed: first report to: Local postal "
        "administration. Not handed in: first report to: Local postal administration. … says we "
        "need not"
    )
    assert "management confirm with the authority in writing" in english(unneeded[0].action)
    figures = {one.name: one.value for one in found.metrics}
    assert figures["incident.reports_late"] is None
    states = {
        one.id: one.state for one in judge(PACK.controls_of("respond_to_incident"), found.metrics)
    }
    assert states["incidents.reported"] is ControlState.NOT_SHOWN


def test_what_stands_is_the_grade_and_the_rules_of_the_timeline(company: Company) -> None:
    """Not the register's column, nor whether the pack says today that systems are critical."""
    case = company.open(1, 2).until("grade", grade={"grade": "larger", "reason": "It is a lot"})
    with company.state.begin() as conn:
        conn.execute(text("UPDATE incident SET grade = 'general' WHERE number = :n"),
                     {"n": case.number})  # fmt: skip
    company.rules = company.rules.model_copy(update={"critical": True})
    facts = {english(one.label): one.value for one in concluded(case).facts}
    assert english(facts["Grade"]) == "Larger"  # type: ignore[arg-type] # a grade is a Message
    rows = {row[0]: row[2] for row in cells(section(concluded(case), TIMES))}
    assert "not for this company's systems" in str(rows[CRITICAL])


def test_a_register_that_was_changed_is_red(company: Company) -> None:
    """When the company became aware: every clock starts there, and the first entry has it."""
    case = company.open(1).until("summary")
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(
            text("UPDATE incident SET aware_at = aware_at - interval '1 second' WHERE number = :n"),
            {"n": case.number},
        )
    found = concluded(case)
    assert (found.outcome, codes(found)) == (Outcome.FAIL, ["incident.register_changed"])
    assert "first entry of the timeline: aware_at" in english(found.findings[0].message)


def test_a_decision_can_be_worked_out_again_from_the_timeline_alone(company: Company) -> None:
    """Its parts stand there: the words are an entry, the list the one that was secured."""
    case = company.open(1, 2).until("decide")
    rows = [json.loads(one) for one in report.timeline_file(case.record).splitlines()]
    last = {row["kind"]: row for row in rows}
    decided = last["decided"]["data"]
    content = json.dumps(
        decided["bound"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert hashlib.sha256(content.encode()).hexdigest() == decided["sha256"]
    assert decided["bound"]["number"] == case.number
    assert decided["bound"]["words"] == last["impact"]["sha256"]
    assert decided["bound"]["list"] == last["preserved"]["data"]["list_sha256"]
    assert decided["bound"]["text"] == digest(notifying.text_of(case.context, case.record))


def test_what_steps_could_not_do_is_red_until_an_addition_did_it(company: Company) -> None:
    """Then it needs a look: why it was not there at first."""
    company.broken = {"archive"}
    case = company.open(databases=["courier", "archive"], keys=["courier/1"])
    counted = assess(case.context)
    secured = case.preserve()
    found = concluded(case, counted, secured)
    assert found.outcome is Outcome.FAIL
    unread = ["incident.not_counted", "incident.list_not_frozen", "incident.not_finished"]
    assert codes(found) == unread
    assert [one.severity for one in found.findings] == [Outcome.FAIL] * 3
    assert not [one for one in found.findings if "done later" in english(one.message)]
    company.broken = set()
    run = company.context(Run(UPDATES, "later"))
    chosen = incident_run.require_scope(run, case.record.incident.id).selection
    widen(run, case.number, chosen, by="L1")
    case.preserve(run.run)
    found = concluded(case, counted, secured)
    assert codes(found) == unread
    assert [one.severity for one in found.findings[:2]] == [Outcome.ATTENTION] * 2
    assert english(found.findings[0].message).endswith("It was done later.")


def test_a_step_that_failed_otherwise_stays_red(company: Company) -> None:
    """The worst of all decides."""
    case = company.open(1).until("summary")
    words = verbatim("Nobody foresaw it.")
    seen = Finding(
        code="assess.failed", severity=Outcome.FAIL, subject="archive", message=words,
        action=words, clause="6.3",
    )  # fmt: skip
    found = concluded(case, StepRecord(step="assess", outcome=Outcome.FAIL, findings=[seen]))
    assert (found.outcome, codes(found)) == (Outcome.FAIL, ["assess.failed"])


def test_a_drill_says_so_everywhere_and_has_a_score_sheet(company: Company) -> None:
    """In both languages; its story too, which no customer's language is the other half of."""
    case = company.open(scenario="everything_gone", keys=[], databases=[])
    case.counted()
    for step in ("contain", "grade"):
        given = (
            {"grade": "especially_major"}
            if step == "grade"
            else {
                one.id: True for one in PACK.require(INCIDENT).type("leaked_credentials").checklist
            }
        )
        case.answer(step, **given)
    found = concluded(case)
    assert english(found.title) == "DRILL of the incident response"
    chinese = Translator("zh_CN", "Asia/Shanghai")
    assert chinese.text(found.title) == "【演练】事件响应"
    assert "【演练】" in chinese.text(found.summary)
    told = [chinese.text(one.text) for one in section(found, "What happened").blocks]
    assert "【演练】并非真实事件。" in told
    assert any("某论坛公开出售公司全部客户数据" in one for one in told)
    assert any("某论坛" in chinese.text(one.words) for one in case.entries(Kind.OPENED))
    score = cells(section(found, "Score sheet"))
    met = {row[0]: row[3] for row in score}
    assert met["Grade confirmed"] is Outcome.PASS
    assert met["First report to the cyberspace administration"] is Outcome.FAIL
    assert "All incidents" not in {english(one.heading) for one in found.sections}
    with company.state.connect() as conn:
        assert holds(conn, case.number) == set()


def test_every_clock_and_every_entry_stands_in_it(company: Company) -> None:
    """Those that do not apply with the reason; entries made later with both moments."""
    case = company.open(1).until("impact")
    company.clock.on(minutes=20)
    case.update(Action.NOTE, words="the police were told", at="2026-11-26T03:20:00")
    found = concluded(case)
    times = cells(section(found, "Time limits and when they were met"))
    assert len(times) == len(company.rules.clocks)
    soon = Outcome.ATTENTION  # the team was not called yet
    assert {row[4] for row in times} == {Outcome.PASS, soon, "still open", "does not apply"}
    rows = cells(section(found, "Timeline"))
    assert len(rows) == len(case.entries())
    assert "entered" in str(rows[-1][1])
    assert "entered" not in str(rows[0][1])
    table = cells(section(found, "What is affected"))
    assert table[0][-1] is Outcome.PASS


def test_the_timeline_file_can_be_verified_without_us(company: Company) -> None:
    """By the rule of the page: canonical JSON, the digest of the entry before."""
    case = company.open(1).until("grade")
    lines = report.timeline_file(case.record).decode().splitlines()
    previous = timeline.FIRST
    for place, line in enumerate(lines, 1):
        row = json.loads(line)
        digest = row.pop("sha256")
        assert (row["place"], row["previous"]) == (place, previous)
        content = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(content.encode()).hexdigest() == digest
        previous = digest


def test_an_addition_is_concluded_by_its_entry(company: Company) -> None:
    """With the whole timeline; where nothing was entered it says so."""
    case = company.open(1).until("grade")
    entry = case.update(Action.REGRADE, by=COMP, grade="major", words="it is in the press")
    run = company.context(Run(UPDATES, "u"))
    found = report.conclude_entry(run, case.record, entry.place, [DONE])
    assert found.outcome is Outcome.PASS
    said = f"{case.number}, entry {entry.place}: Graded Major. it is in the press"
    assert english(found.summary) == said
    refused = StepRecord(step="enter", outcome=Outcome.FAIL)
    assert report.conclude_update(run, RunRecords([refused])).outcome is Outcome.FAIL
    unopened = company.context(Run(WORKFLOW, "unopened"))
    assert report.conclude(unopened, RunRecords([refused])).outcome is Outcome.FAIL


def test_a_review_that_is_repeated_loses_no_action_and_enters_none_twice(company: Company) -> None:
    """Cleared and answered otherwise: what was entered before stays a finding of its own."""
    case = company.open(1).until("close")
    first = {"lessons": "Lock", "action_1": "Lock the scanners", "owner_1": "compliance"}
    case.answer("review", **first)
    case.answer("review", **first | {"action_1": "Encrypt the disks"})
    case.answer("review", **first)
    with company.state.connect() as conn:
        query = "SELECT what::text FROM finding WHERE reference LIKE :mine ORDER BY id"
        said = conn.scalars(text(query), {"mine": f"{case.number}/%"}).all()
    assert ["scanners" in one for one in said] == [True, False]
    assert "Encrypt the disks" in said[1]


def test_corrective_actions_are_named_with_who_answers_for_them(company: Company) -> None:
    """In the report and in the register of findings, each once."""
    case = company.open(1).until("close")
    given = {
        "lessons": "Lock scanners", "action_1": "Lock scanners after a minute",
        "owner_1": "data_engineering", "action_3": "Train couriers", "owner_3": "compliance",
        "days_3": 10,
    }  # fmt: skip
    case.answer("review", **given)
    with company.state.connect() as conn:
        rows = conn.execute(
            text(
                "SELECT kind, owner, due_on::text FROM finding"
                " WHERE reference LIKE :mine ORDER BY id"
            ),
            {"mine": f"{case.number}/%"},
        ).all()
    assert [tuple(one) for one in rows] == [
        ("incident", "data_engineering", "2027-02-24"),
        ("incident", "compliance", "2026-12-06"),
    ]
    case.answer("summary")
    (_, steps) = section(concluded(case), "Lessons and corrective actions").blocks
    said = [english(one) for one in steps.items]  # type: ignore[union-attr] # actions are steps
    assert said[0].startswith("Lock scanners after a minute (finding ")
    assert "data_engineering" not in said[0]
