"""The report of a conclusion says what was looked at, and nothing of what was not."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine

from include.evidence.model import Outcome, RunContext, StepRecord
from include.findings import register
from include.findings.register import Found
from include.messages import Message, verbatim
from include.policy.rules import Role
from include.reports.conclusion import Conclusion
from include.reports.i18n import Translator
from include.reports.model import Block, Paragraph, Report, Steps, Table
from include.reports.render import pdf_unavailable_reason, render_all
from include.sampling import conclusion_report
from include.sampling.closing import EVALUATE, LOOK
from include.sampling.following import FOLLOW_UP
from include.sampling.rules import AUDIT
from include.sampling.workpapers import form
from include.workflow.run_records import RunRecords
from tests.sampling.drawn import ISSUED, Draw, committed, concluding, draw, hand_in, returned
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
    """A corrective action, as the review of an incident leaves it."""
    return register.open_finding(
        conn,
        kind="incident",
        reference="INC-2026-0001/1",
        what=verbatim("Scan repositories daily"),
        owner="management",
        opened_at=ISSUED,
        due_on=TODAY + timedelta(days=30),
    )


class Run:
    """A run of three steps after workpapers came back."""

    def __init__(self, state: Engine, made: Draw, content: bytes | None, run: str = "r1") -> None:
        self.state = state
        with state.begin() as conn:
            made.issue(conn)
        if content is not None:
            hand_in(state, content)
        self.rules = made.rules
        self.context = concluding(state, made.rules, run=run)
        look = step_record(LOOK, self.context)
        self.records = [look]
        self.records += [step_record(EVALUATE, self.context, one) for one in look.data["back"]]
        self.records.append(step_record(FOLLOW_UP, self.context))

    def concluded(self, records: list[StepRecord] | None = None) -> Conclusion:
        left = [*(self.records if records is None else records), SENT]
        today = concluding(self.state, self.rules, ISSUED + timedelta(days=1))
        assert today.today == TODAY
        return conclusion_report.conclude(today, RunRecords(left))

    def findings(self) -> list[Found]:
        with self.state.connect() as conn:
            return register.listed(conn, closed=True)


def blocks(found: Conclusion) -> list[Block]:
    return [block for section in found.sections for block in section.blocks]


def headings(found: Conclusion) -> list[str]:
    return [english(one.heading) for one in found.sections]


def english(message: Message) -> str:
    return Translator("en").text(message)


def rows(found: Conclusion, caption: str) -> list[list[str]]:
    """Cells of a table as people read them."""
    words = Translator("en")
    (table,) = [
        one for one in blocks(found) if isinstance(one, Table) and english(one.caption) == caption
    ]
    return [[words.value(cell) for cell in row] for row in table.rows]  # type: ignore[arg-type]  # a cell is a value


def facts(found: Conclusion) -> dict[str, object]:
    return {english(one.label): one.value for one in found.facts}


def figure(found: Conclusion) -> float | None:
    (value,) = [
        one.value for one in found.metrics if one.name == "populations_above_tolerable_rate"
    ]
    return value


@pytest.fixture
def run(state: Engine) -> Run:
    """One population not accepted, another accepted; and a blank answer."""
    made = draw(committed(), committed("intake", 60))
    content = returned(made.papers, {"shares": (1, 2)}, {("shares", 1): "Seen 13812345678"})
    return Run(state, made, content)


def test_facts_and_summary_say_what_was_judged(run: Run) -> None:
    """The figure is the indicator of the control."""
    found = run.concluded()
    assert found.outcome is Outcome.FAIL
    assert english(found.summary) == "1 of 2 populations that were judged are not accepted."
    assert facts(found) == {
        "Populations judged in this run": 2,
        "Not accepted": 1,
        "Workpapers that are out": 0,
        "Open findings": 2,
        "Findings past their day": 0,
    }
    assert figure(found) == 1


def test_a_signed_report_goes_from_its_scope_to_its_signatures(run: Run) -> None:
    """With the remarks of the workbook, the deviations, and the state of all findings."""
    found = run.concluded()
    assert headings(found) == [
        "Audit 2026Q3, stage 1",
        "Results",
        "Remarks",
        "Conclusion",
        "Signatures",
        "Findings and corrective actions",
        "Messages",
    ]
    assert rows(found, "What was tested")[:2] == [
        ["Shares", "Was it approved?", "the company's own information protection policy"],
        ["Shares", "Was it bound?", "PIPL (2021-11-01), article 23"],
    ]
    results = rows(found, "Results of the populations")
    assert [(one[0], one[2], one[3], one[-1]) for one in results] == [
        ("Shares", "2", "0", "not accepted"),
        ("Intake", "0", "0", "accepted"),
    ]
    deviations = rows(found, "Deviations")
    assert [one[0] for one in deviations] == ["Shares", "Shares"]
    assert deviations[0][3:] == ["Was it approved?", "does not meet it", "Seen …"]
    said = [
        english(one) for block in blocks(found) if isinstance(block, Steps) for one in block.items
    ]
    assert any("Intake: accepted. At 90% confidence at most " in one for one in said)


def test_signatures_are_left_to_be_written(run: Run) -> None:
    """The reviewer's day too: nobody says when."""
    signatures = rows(run.concluded(), "Who answers for the work")
    assert signatures == [
        ["Performed by", PEOPLE[form.PERFORMED_BY], "2026-10-05", ""],
        ["Reviewed by", PEOPLE[form.REVIEWED_BY], "", ""],
        ["Handed in by", "auditor", "2026-10-05", ""],
    ]


def test_an_open_finding_says_what_it_has_not_yet(run: Run) -> None:
    """Cause, action and reminder are no measurements."""
    number = run.findings()[0].id
    with run.state.begin() as conn:
        register.answer(conn, number, cause="No form", action="Form", by="owner", at=ISSUED)
        register.record_reminder(conn, number, by="conclude_audit", at=ISSUED)
    first, second = rows(run.concluded(), "Open findings")
    assert first[2:] == [
        "Management",
        "2026-11-04",
        "answered, to be tested again",
        "No form",
        "Form",
        "2026-10-05 09:30 UTC+08:00",
    ]
    assert second[4:] == ["open", "not yet", "not yet", "not yet"]
    assert Translator("zh_CN").text(conclusion_report.NOT_YET) == "尚无"


def test_closed_findings_are_counted(run: Run) -> None:
    """They are not among the open ones."""
    for one in run.findings():
        with run.state.begin() as conn:
            register.answer(conn, one.id, cause="No form", action="Form", by="owner", at=ISSUED)
            register.retest(conn, one.id, met=True, by="auditor", at=ISSUED)
    found = run.concluded()
    assert facts(found)["Open findings"] == 0
    last = found.sections[-2].blocks
    assert len(last) == 1
    assert isinstance(last[0], Paragraph)
    assert english(last[0].text).endswith("met: 2.")


def test_a_day_with_nothing_back_claims_nothing(state: Engine) -> None:
    """No population is judged or accepted; what is out is listed, and is why there is no figure."""
    found = Run(state, draw(committed()), None).concluded()
    assert found.outcome is Outcome.ATTENTION
    assert [one.code for one in found.findings] == ["sampling.no_verdict"]
    assert english(found.summary) == (
        "No workpapers came back since the last run; out: 1, open findings: 0."
    )
    assert facts(found)["Not accepted"] is None
    assert headings(found) == [
        "Workpapers that are out",
        "Findings and corrective actions",
        "Messages",
    ]
    assert len(rows(found, "Not handed in yet")) == 1


def test_a_population_that_goes_on_is_not_judged_yet(state: Engine) -> None:
    """It is neither accepted nor counted as judged."""
    made = draw(committed("intake", 60, plan="staged"))
    found = Run(state, made, returned(made.papers, {"intake": (1,)})).concluded()
    assert found.outcome is Outcome.ATTENTION
    assert english(found.summary) == (
        "No verdict was reached yet; open findings: 1. To the next stage of their plan: Intake."
    )
    assert Translator("zh_CN").text(found.summary) == (
        "尚未得出结论；未关闭的发现事项：1。按计划进入下一阶段：总体intake。"
    )
    assert facts(found)["Workpapers that are out"] == 1  # this run issued them
    (out,) = rows(found, "Not handed in yet")
    assert (out[0][:9], out[1]) == ("2026Q3-2-", "by this run")
    assert facts(found)["Populations judged in this run"] == 0
    assert facts(found)["Not accepted"] is None
    assert rows(found, "Results of the populations")[0][-1] == "next stage"


def test_a_day_on_which_nothing_is_judged_says_what_is_still_not_accepted(run: Run) -> None:
    """Summary, tile and control speak of the same figure."""
    later = concluding(run.state, run.rules, ISSUED + timedelta(days=1), "r2")
    records = [step_record(LOOK, later), step_record(FOLLOW_UP, later)]
    found = run.concluded(records)
    assert found.outcome is Outcome.FAIL
    assert english(found.summary) == (
        "No workpapers came back since the last run; out: 0, open findings: 2. Judged before, "
        "still not accepted and not mended: 1."
    )
    assert facts(found)["Not accepted"] == figure(found) == 1


def test_others_that_are_not_mended_stand_beside_what_was_judged(run: Run) -> None:
    """Whether this run accepted everything or not."""
    for audit, bad, summary in (
        ("2026Q4", {}, "Populations judged in this run, all of them accepted: 1; open findings: 2. "
         "Judged before, still not accepted and not mended: 1."),
        ("2027Q1", {"intake": (1, 2)}, "1 of 1 populations that were judged are not accepted; not "
         "accepted by their last verdict and not mended yet: 2."),
    ):  # fmt: skip
        made = draw(committed("intake", 60), audit=audit)
        found = Run(run.state, made, returned(made.papers, bad), audit).concluded()
        assert english(found.summary) == summary
        assert facts(found)["Not accepted"] == figure(found)


def test_a_step_that_left_no_record_is_missing(run: Run) -> None:
    """What it would have counted is not measured, and not nothing."""
    look, evaluated, followed = (replace_outcome(one) for one in run.records)
    without = run.concluded([look, followed])
    assert [one.code for one in without.findings][-1] == "sampling.evaluate.missing"
    assert without.outcome is Outcome.FAIL
    assert english(without.summary).startswith(
        "Workpapers that are back and could not be judged: 1; open findings: 2. Judged before, "
        "still not accepted and not mended: 1."
    )
    assert figure(without) == 1  # of the last verdicts, whichever run reached them
    unseen = run.concluded([evaluated, followed])
    assert unseen.findings[-1].code == "sampling.look.missing"
    assert facts(unseen)["Workpapers that are out"] is None
    assert facts(unseen)["Populations judged in this run"] is None
    assert figure(unseen) == 1
    nothing = run.concluded([])
    assert nothing.outcome is Outcome.FAIL
    assert english(nothing.summary).startswith("Nobody could see which workpapers are back")


def replace_outcome(record: StepRecord) -> StepRecord:
    """The same record of a step that passed."""
    return record.model_copy(update={"outcome": Outcome.PASS, "findings": []})


def test_it_can_be_read_in_both_languages(run: Run) -> None:
    """By the renderers of every report; no sentence is left in English in the Chinese one."""
    found = run.concluded()
    report = Report(
        title=found.title,
        summary=found.summary,
        run=RunContext(
            dag_id="conclude_audit",
            run_id="r1",
            started_at=ISSUED,
            code_version="1",
            policy_hash="ef" * 32,
            policy_name="sample",
            clock_source="fixed clock",
        ),
        outcome=found.outcome,
        finished_at=datetime(2026, 10, 6, tzinfo=UTC),
        facts=found.facts,
        sections=found.sections,
        findings=found.findings,
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
        "未被接受",
    ):
        assert words in chinese
    page = rendered.files["report.en.html"].decode()
    for words in ("not yet", "Was it approved?", "Shares", "Management", "Seen …"):
        assert words in page
    assert "13812345678" not in page


def test_a_pack_without_audits_says_so(run: Run) -> None:
    """No figure of audits; of the register what incidents left there."""
    found = conclusion_report.nothing_to_audit(RunRecords([]), ROLES, [])
    assert (found.metrics, found.sections) == ([], [])
    assert "has no audit.yaml" in english(found.summary)
    with run.state.begin() as conn:
        incident_action(conn)
        left = register.listed(conn, "incident")
    later = concluding(run.state, None, ISSUED + timedelta(days=100), "r2")
    record = step_record(FOLLOW_UP, later)
    assert later.pack.section(AUDIT) is None
    found = conclusion_report.nothing_to_audit(RunRecords([record]), ROLES, left)
    late = {one.name: one.value for one in found.metrics}["audit_findings_overdue"]
    assert (late, found.outcome) == (1 + len(run.findings()) - 1, Outcome.FAIL)
    ((number, what, owner, *_rest),) = rows(found, "Open findings")
    assert (what, owner) == ("Scan repositories daily", "Management")
    assert int(number) == left[0].id in record.data["reminded"]


def test_corrective_actions_of_incidents_stand_beside_what_audits_found(run: Run) -> None:
    """One register: shown, counted and followed with the others."""
    before = facts(run.concluded())["Open findings"]
    with run.state.begin() as conn:
        incident_action(conn)
    record = step_record(FOLLOW_UP, run.context)
    assert "INC-2026-0001/1" in [one["reference"] for one in record.data["open"]]
    found = run.concluded([*run.records[:-1], record])
    assert facts(found)["Open findings"] == before + 1  # type: ignore[operator]  # a count
    assert "Scan repositories daily" in [row[1] for row in rows(found, "Open findings")]
