"""Tests of the report of `conclude_audit`: populations, outstanding workpapers, findings."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, insert

from include.evidence.model import Outcome, RunContext, StepRecord
from include.findings import register
from include.findings.register import Finding
from include.messages import Message, _, verbatim
from include.policy.rules import Role
from include.reports.conclusion import Conclusion
from include.reports.i18n import Translator
from include.reports.model import Block, Paragraph, Report, Signatures, Steps, Table
from include.reports.render import pdf_unavailable_reason, render_all
from include.sampling import conclusion_report
from include.sampling.closing import EVALUATE, FIND_WORKPAPERS
from include.sampling.following import FOLLOW_UP
from include.sampling.rules import AUDIT
from include.sampling.workpapers import form
from include.state import findings as tables
from include.workflow.run_records import RunRecords
from tests.sampling.draw_fixtures import (
    ISSUED,
    Draw,
    committed_population,
    conclusion_context,
    hand_in,
    make_draw,
    returned_workbook,
)
from tests.sampling.workpapers.support import PEOPLE
from tests.support.contexts import step_record

TODAY = date(2026, 10, 6)
ROLES = {
    "management": Role.model_validate(
        {"id": "management", "title": {"en": "Management", "zh-CN": "公司管理层"}}
    )
}

SENT = StepRecord(
    step="send",
    outcome=Outcome.PASS,
    data={
        "messages": 1,
        "kinds": [["audit.finding", 2, 1]],
        "deferred": 0,
        "waiting": 0,
        "undeliverable": [["audit.finding", "role:management", "no_address"]],
        "undeliverable_count": 1,
        "in_doubt": [],
        "in_doubt_count": 0,
    },
)


def incident_action(conn: Connection) -> int:
    """Open a finding for the corrective action of an incident, and return the id of the finding."""
    return register.open_finding(
        conn,
        kind="incident",
        reference="INC-2026-0001/1",
        description=verbatim("Scan repositories daily"),
        owner="management",
        opened_at=ISSUED,
        due_on=TODAY + timedelta(days=30),
    )


class Run:
    """A run of `conclude_audit` after workpapers were returned, and its three step records."""

    def __init__(self, state: Engine, issued: Draw, content: bytes | None, run: str = "r1") -> None:
        self.state = state
        with state.begin() as conn:
            issued.issue(conn)
        if content is not None:
            hand_in(state, content)
        self.rules = issued.rules
        self.context = conclusion_context(state, issued.rules, run=run)
        status = step_record(FIND_WORKPAPERS, self.context)
        self.records = [status]
        self.records += [step_record(EVALUATE, self.context, part) for part in status.data["back"]]
        self.records.append(step_record(FOLLOW_UP, self.context))

    def concluded(self, records: list[StepRecord] | None = None) -> Conclusion:
        all_records = [*(self.records if records is None else records), SENT]
        today = conclusion_context(self.state, self.rules, ISSUED + timedelta(days=1))
        assert today.today == TODAY
        return conclusion_report.conclude(today, RunRecords(all_records))

    def findings(self) -> list[Finding]:
        with self.state.connect() as conn:
            return register.list_findings(conn, closed=True)


def blocks(conclusion: Conclusion) -> list[Block]:
    return [block for section in conclusion.sections for block in section.blocks]


def headings(conclusion: Conclusion) -> list[str]:
    return [english(section.heading) for section in conclusion.sections]


def english(message: Message) -> str:
    return Translator("en").text(message)


def rows(conclusion: Conclusion, caption: str) -> list[list[str]]:
    """Return the texts of a table's cells as readers see them."""
    words = Translator("en")
    (table,) = [
        block
        for block in blocks(conclusion)
        if isinstance(block, Table) and english(block.caption) == caption
    ]
    return [[words.value(cell) for cell in row] for row in table.rows]  # type: ignore[arg-type]  # a cell is a value


def facts(conclusion: Conclusion) -> dict[str, object]:
    return {english(fact.label): fact.value for fact in conclusion.facts}


def figure(conclusion: Conclusion) -> float | None:
    (value,) = [
        metric.value
        for metric in conclusion.metrics
        if metric.name == "populations_above_tolerable_rate"
    ]
    return value


@pytest.fixture
def run(state: Engine) -> Run:
    """Provide a run with an accepted population, a rejected population, and an auditor's note."""
    issued = make_draw(committed_population(), committed_population("intake", 60))
    content = returned_workbook(
        issued.papers, {"shares": (1, 2)}, {("shares", 1): "Seen 13812345678"}
    )
    return Run(state, issued, content)


def test_facts_and_summary_of_report_contain_numbers_of_evaluated_and_rejected_populations(
    run: Run,
) -> None:
    """The number of rejected populations in the report equals the figure of the control."""
    conclusion = run.concluded()
    assert conclusion.outcome is Outcome.FAIL
    assert english(conclusion.summary) == "Not accepted: 1 of 2 evaluated populations."
    assert facts(conclusion) == {
        "Populations evaluated in this run": 2,
        "Populations not accepted": 1,
        "Outstanding workpapers": 0,
        "Open findings": 2,
        "Overdue findings": 0,
    }
    assert figure(conclusion) == 1


def test_signed_report_has_sections_from_scope_to_signatures(run: Run) -> None:
    """The sections include remarks on the workbook, deviations, and the status of findings."""
    conclusion = run.concluded()
    assert headings(conclusion) == [
        "Audit of the third quarter of 2026, stage 1",
        "Results",
        "Remarks",
        "Conclusion",
        "Signatures",
        "Findings and corrective actions",
        "Messages",
    ]
    assert rows(conclusion, "Tested questions")[:2] == [
        ["Shares", "Was it approved?", "the company's own information protection policy"],
        ["Shares", "Was it bound?", "PIPL (2021-11-01), article 23"],
    ]
    results = rows(conclusion, "Results of the populations")
    assert [(result[0], result[2], result[3], result[-1]) for result in results] == [
        ("Shares", "2", "0", "not accepted"),
        ("Intake", "0", "0", "accepted"),
    ]
    deviations = rows(conclusion, "Deviations")
    assert [deviation[0] for deviation in deviations] == ["Shares", "Shares"]
    assert deviations[0][3:] == ["Was it approved?", "does not meet the criterion", "Seen …"]
    items = [
        english(item)
        for block in blocks(conclusion)
        if isinstance(block, Steps)
        for item in block.items
    ]
    assert any("Intake: accepted. With 90% confidence, at most " in item for item in items)


def test_signature_lines_name_the_people_and_leave_the_unknown_date_blank(run: Run) -> None:
    """The date of the reviewer is empty too, because the workbook has no field for it."""
    [signatures] = [block for block in blocks(run.concluded()) if isinstance(block, Signatures)]
    day = date(2026, 10, 5)
    assert [(english(line.role), line.name, line.day) for line in signatures.lines] == [
        ("Performed by", PEOPLE[form.PERFORMED_BY], day),
        ("Reviewed by", PEOPLE[form.REVIEWED_BY], None),
        ("Handed in by", "auditor", day),
    ]


def test_findings_table_shows_the_text_not_yet_if_cause_or_corrective_action_is_missing(
    run: Run,
) -> None:
    """The text "not yet" stands for a missing cause, corrective action and reminder."""
    number = run.findings()[0].id
    with run.state.begin() as conn:
        register.answer(conn, number, cause="No form", action="Form", by="owner", at=ISSUED)
        register.record_reminder(conn, number, by="conclude_audit", at=ISSUED)
    first, second = rows(run.concluded(), "Open findings")
    assert first[2:] == [
        "Management",
        "2026-11-04",
        "answered by the owner, waits for the retest",
        "No form",
        "Form",
        "2026-10-05 09:30 UTC+08:00",
    ]
    assert second[4:] == ["open", "not yet", "not yet", "not yet"]
    assert Translator("zh_CN").text(conclusion_report.NOT_YET) == "尚无"


def test_report_contains_number_of_closed_findings_but_no_row_for_them(run: Run) -> None:
    for finding in run.findings():
        with run.state.begin() as conn:
            register.answer(conn, finding.id, cause="No form", action="Form", by="owner", at=ISSUED)
            register.retest(conn, finding.id, met=True, by="auditor", at=ISSUED)
    conclusion = run.concluded()
    assert facts(conclusion)["Open findings"] == 0
    last = conclusion.sections[-2].blocks
    assert len(last) == 1
    assert isinstance(last[0], Paragraph)
    assert english(last[0].text).endswith("another person: 2.")


def test_report_counts_no_finding_that_a_run_of_another_workflow_reported(run: Run) -> None:
    """Such a finding is judged by the runs of its own workflow."""
    before = run.concluded()
    texts = {
        "severity": "fail",
        "description": _("Broken").model_dump(mode="json"),
        "details": register.Details(action=_("Repair")).model_dump(mode="json"),
    }
    cause = {"dag_id": "check_quality", "step": "check", "code": "x", "subject": "customer"}
    with run.state.begin() as conn:
        number = conn.scalar(
            insert(tables.finding)
            .values(
                kind="run", reference="1/1", owner="management", opened_at=ISSUED,
                due_on=TODAY, part="", aspect="", clause="4.1", opened_in="b", opened_seq=1,
                **cause, **texts,
            )
            .returning(tables.finding.c.id)
        )  # fmt: skip
        conn.execute(
            insert(tables.finding_report).values(
                finding_id=number, bundle="b", seq=1, reported_at=ISSUED, reports=1, **texts
            )
        )
    after = run.concluded()
    assert facts(after)["Open findings"] == facts(before)["Open findings"] == 2
    assert rows(after, "Open findings") == rows(before, "Open findings")


def test_report_of_run_without_returned_workpapers_has_no_control_figure(state: Engine) -> None:
    """The report lists the outstanding workpapers, which are the reason."""
    conclusion = Run(state, make_draw(committed_population()), None).concluded()
    assert conclusion.outcome is Outcome.ATTENTION
    assert [finding.code for finding in conclusion.findings] == ["sampling.no_verdict"]
    assert english(conclusion.summary) == (
        "No workpapers were handed in since the last run. Outstanding workpapers: 1. "
        "Open findings: 0."
    )
    assert facts(conclusion)["Populations not accepted"] is None
    assert headings(conclusion) == [
        "Outstanding workpapers",
        "Findings and corrective actions",
        "Messages",
    ]
    assert len(rows(conclusion, "Outstanding workpapers")) == 1


def test_population_that_needs_next_stage_is_not_counted_as_evaluated(state: Engine) -> None:
    issued = make_draw(committed_population("intake", 60, plan="staged"))
    conclusion = Run(state, issued, returned_workbook(issued.papers, {"intake": (1,)})).concluded()
    assert conclusion.outcome is Outcome.ATTENTION
    assert english(conclusion.summary) == (
        "No population has a final conclusion yet. Open findings: 1. Populations that continue "
        "with the next stage of their plan: Intake."
    )
    assert Translator("zh_CN").text(conclusion.summary) == (
        "尚无总体得出最终结论；未关闭的审计发现事项 1 项。按方案进入下一阶段的总体：总体intake。"
    )
    assert facts(conclusion)["Outstanding workpapers"] == 1  # this run issued them
    (outstanding,) = rows(conclusion, "Outstanding workpapers")
    assert outstanding[0].startswith("workpapers of the third quarter of 2026, stage 2, draw ")
    assert outstanding[1] == "issued by this run"
    assert facts(conclusion)["Populations evaluated in this run"] == 0
    assert facts(conclusion)["Populations not accepted"] is None
    assert rows(conclusion, "Results of the populations")[0][-1] == "next stage"


def test_report_of_run_without_verdict_counts_populations_that_an_earlier_run_rejected(
    run: Run,
) -> None:
    """Summary, fact and control show the number of populations that an earlier run rejected."""
    later = conclusion_context(run.state, run.rules, ISSUED + timedelta(days=1), "r2")
    records = [step_record(FIND_WORKPAPERS, later), step_record(FOLLOW_UP, later)]
    conclusion = run.concluded(records)
    assert conclusion.outcome is Outcome.FAIL
    assert english(conclusion.summary) == (
        "No workpapers were handed in since the last run. Outstanding workpapers: 0. "
        "Open findings: 2. Populations that an earlier run did not accept and whose findings are "
        "still open: 1."
    )
    assert facts(conclusion)["Populations not accepted"] == figure(conclusion) == 1


def test_summary_includes_populations_that_earlier_runs_rejected(run: Run) -> None:
    """The summary includes these populations whether or not this run rejects a population."""
    for audit, bad, summary in (
        ("2026Q4", {}, "This run evaluated 1 populations and accepted all of them. Open "
         "findings: 2. Populations that an earlier run did not accept and whose findings are still "
         "open: 1."),
        ("2027Q1", {"intake": (1, 2)}, "Not accepted: 1 of 1 evaluated populations. "
         "Including earlier runs, 2 populations are not accepted and have open findings."),
    ):  # fmt: skip
        issued = make_draw(committed_population("intake", 60), audit=audit)
        conclusion = Run(
            run.state, issued, returned_workbook(issued.papers, bad), audit
        ).concluded()
        assert english(conclusion.summary) == summary
        assert facts(conclusion)["Populations not accepted"] == figure(conclusion)


def test_report_fails_and_shows_figures_as_missing_if_record_of_the_measuring_step_is_missing(
    run: Run,
) -> None:
    """The numbers that the missing step would have measured are shown as missing, not as zero."""
    look, evaluated, followed = (replace_outcome(record) for record in run.records)
    without = run.concluded([look, followed])
    assert [finding.code for finding in without.findings][-1] == "sampling.evaluate.missing"
    assert without.outcome is Outcome.FAIL
    assert english(without.summary).startswith(
        "Workpapers that were handed in but could not be evaluated: 1. Open findings: 2. "
        "Populations that an earlier run did not accept and whose findings are still open: 1."
    )
    assert figure(without) == 1  # the figure of the last verdicts of all runs
    without_status = run.concluded([evaluated, followed])
    assert without_status.findings[-1].code == "sampling.look.missing"
    assert facts(without_status)["Outstanding workpapers"] is None
    assert facts(without_status)["Populations evaluated in this run"] is None
    assert figure(without_status) == 1
    nothing = run.concluded([])
    assert nothing.outcome is Outcome.FAIL
    assert english(nothing.summary).startswith("The run could not determine which workpapers")


def replace_outcome(record: StepRecord) -> StepRecord:
    """Return a copy of a step record that has passed without findings."""
    return record.model_copy(update={"outcome": Outcome.PASS, "findings": []})


def test_report_renders_in_both_languages(run: Run) -> None:
    """The Chinese report contains no English sentence."""
    conclusion = run.concluded()
    report = Report(
        title=conclusion.title,
        summary=conclusion.summary,
        run=RunContext(
            dag_id="conclude_audit",
            run_id="r1",
            started_at=ISSUED,
            code_version="1",
            policy_hash="ef" * 32,
            policy_name="sample",
            clock_source="fixed clock",
        ),
        outcome=conclusion.outcome,
        finished_at=datetime(2026, 10, 6, tzinfo=UTC),
        facts=conclusion.facts,
        sections=conclusion.sections,
        findings=conclusion.findings,
    )
    rendered = render_all(report)
    if pdf_unavailable_reason() is None:
        assert not rendered.not_made
        assert rendered.files["report.zh-CN.pdf"].startswith(b"%PDF")
    chinese = rendered.files["report.zh-CN.html"].decode()
    for words in (
        "尚无",
        "说明事项",
        "签字",
        "是否已审批？",
        "总体shares",
        "公司管理层",
        "不予接受",
    ):
        assert words in chinese
    page = rendered.files["report.en.html"].decode()
    for words in ("not yet", "Was it approved?", "Shares", "Management", "Seen …"):
        assert words in page
    assert "13812345678" not in page


def test_report_contains_findings_of_incidents_if_policy_pack_has_no_audit_rules(run: Run) -> None:
    """The report then has no figure about audits."""
    conclusion = conclusion_report.nothing_to_audit(RunRecords([]), ROLES, [])
    assert (conclusion.metrics, conclusion.sections) == ([], [])
    assert "has no rules for audit samples" in english(conclusion.summary)
    with run.state.begin() as conn:
        incident_action(conn)
        open_findings = register.list_findings(conn, "incident")
    later = conclusion_context(run.state, None, ISSUED + timedelta(days=100), "r2")
    record = step_record(FOLLOW_UP, later)
    assert later.pack.section(AUDIT) is None
    conclusion = conclusion_report.nothing_to_audit(RunRecords([record]), ROLES, open_findings)
    overdue = {metric.name: metric.value for metric in conclusion.metrics}["audit_findings_overdue"]
    assert (overdue, conclusion.outcome) == (1 + len(run.findings()) - 1, Outcome.FAIL)
    ((number, description, owner, *_rest),) = rows(conclusion, "Open findings")
    assert (description, owner) == ("Scan repositories daily", "Management")
    assert int(number) == open_findings[0].id in record.data["reminded"]


def test_findings_section_includes_corrective_actions_of_incidents(run: Run) -> None:
    """Corrective actions of incidents are listed, counted and followed up like audit findings."""
    before = facts(run.concluded())["Open findings"]
    with run.state.begin() as conn:
        incident_action(conn)
    record = step_record(FOLLOW_UP, run.context)
    assert "INC-2026-0001/1" in [finding["reference"] for finding in record.data["open"]]
    conclusion = run.concluded([*run.records[:-1], record])
    assert facts(conclusion)["Open findings"] == before + 1  # type: ignore[operator]  # a count
    assert "Scan repositories daily" in [row[1] for row in rows(conclusion, "Open findings")]
