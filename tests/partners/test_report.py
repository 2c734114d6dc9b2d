"""The report of the workflow `review_partners`."""

from __future__ import annotations

from typing import Any

import pytest

from include.evidence.model import Outcome, RunContext, StepRecord
from include.partners import report, reviews
from include.partners.rules import PARTNERS
from include.partners.workflow import REVIEW_PARTNERS
from include.reports.conclusion import Conclusion
from include.reports.i18n import Translator
from include.reports.model import BarChart, Paragraph, Report, Table
from include.reports.render import render_all
from include.workflow.run_records import RunRecords
from tests.partners.partner_fixtures import PartnersCompany
from tests.partners.questionnaire_workbooks import SUB_PROCESSORS, answered_workbook

SEND = "send"
SENT = StepRecord(step=SEND, outcome=Outcome.PASS, data={})

CONTEXT: Any = None  # the report uses only the step records


def conclude(*records: StepRecord) -> Conclusion:
    return report.conclude(CONTEXT, RunRecords(records))


def translate(text: Any, locale: str = "en") -> str:
    return Translator(locale).value(text)


def table_rows(conclusion: Conclusion) -> dict[str, list[list[str]]]:
    return {
        translate(block.caption): [[translate(cell) for cell in row] for row in block.rows]
        for section in conclusion.sections
        for block in section.blocks
        if isinstance(block, Table)
    }


def chart_bars(conclusion: Conclusion) -> list[tuple[str, Any]]:
    (chart,) = [
        block
        for section in conclusion.sections
        for block in section.blocks
        if isinstance(block, BarChart)
    ]
    return [(translate(bar.label), bar.value) for bar in chart.bars]


@pytest.fixture
def check_record(company: PartnersCompany) -> StepRecord:
    """Provide the step record of a check with partners in every state.

    Two reviews are open, and one partner has a sub-processor.
    """
    company.add_partner("1")
    company.add_partner("2", secrecy_to="2026-08-30")
    company.add_partner("3", deal_to="2026-05-31", grade="9")
    company.add_partner("4", connected=False, secrecy_to=None)
    company.add_partner("5")
    company.add_partner("5")
    company.add_partner("6", company="<b>Süd & Söhne</b>")
    company.add_partner("10", secrecy_from="2026-07-01")
    review = company.issue("1")
    assert review.issued is not None
    content = answered_workbook(review.issued, sub_processors=SUB_PROCESSORS, on=company.today)
    with company.state.begin() as conn:
        reviews.accept_questionnaire(conn, content, "x.xlsx", by="E1", at=company.now)
    company.decide("1", passed=True)
    company.hand_in(company.issue("2"), encryption="No")
    company.reopen("6", "an incident")
    record = company.check()
    assert isinstance(record, StepRecord)
    return record


def test_report_table_of_partners_and_obligations_has_the_most_urgent_partner_first(
    check_record: StepRecord,
) -> None:
    conclusion = conclude(check_record, SENT)
    rows = table_rows(conclusion)["Agreements and security review of each partner"]
    assert rows == [
        ["3", "Company 3", "not known", "yes", "valid until 2029-12-31", "ended on 2026-05-31",
         "not known", "not allowed"],
        ["5", "Company 5", "not known", "yes", "not known", "not known", "not known",
         "not allowed"],
        ["6", "<b>Süd & Söhne</b>", "1", "yes", "valid until 2029-12-31", "valid until 2029-12-31",
         "reopened", "not allowed"],
        ["10", "Company 10", "1", "yes", "valid from 2026-07-01", "valid until 2029-12-31",
         "valid until 2027-06-01", "not allowed"],
        ["2", "Company 2", "1", "yes", "valid until 2026-08-30", "valid until 2029-12-31",
         "valid until 2027-06-01", "allowed for 90 more days"],
        ["1", "Company 1", "1", "yes", "valid until 2029-12-31", "valid until 2029-12-31",
         "valid until 2027-06-01", "allowed"],
        ["4", "Company 4", "1", "no", "not known", "valid until 2029-12-31",
         "valid until 2027-06-01", "no access"],
    ]  # fmt: skip
    assert chart_bars(conclusion) == [
        ("Sharing is blocked", 4),
        ("An agreement or security review ends within 90 days", 1),
        ("Agreements and security review valid for more than 90 days", 1),
        ("Without access", 1),
    ]
    assert translate(conclusion.summary) == (
        "4 of 6 partners with access must not receive customer information: an agreement or "
        "the security review is missing or no longer valid."
    )
    assert conclusion.outcome is Outcome.FAIL


def test_report_of_a_complete_check_has_lines_for_signatures(check_record: StepRecord) -> None:
    assert translate(conclude(check_record).sections[-1].heading) == "Signatures"
    assert not conclude().sections


def test_report_sorts_partners_by_days_until_an_obligation_ends(company: PartnersCompany) -> None:
    company.add_partner("1", deal_to="2026-08-31")  # in 91 days
    company.add_partner("2", secrecy_to="2026-06-20")
    company.add_partner("3", deal_to="2026-06-01")
    company.add_partner("4", seen_on="2025-06-02")
    conclusion = conclude(company.check(), SENT)
    rows = table_rows(conclusion)["Agreements and security review of each partner"]
    assert [(row[0], row[-1]) for row in rows] == [
        ("3", "allowed until today"),
        ("4", "allowed until tomorrow"),
        ("2", "allowed for 19 more days"),
        ("1", "allowed"),
    ]
    rules = company.context.rules.model_copy(update={"ladder": (100, 15)})
    company.pack = company.pack.model_copy(update={"sections": {PARTNERS.file: rules}})
    conclusion = conclude(company.check("r2"), SENT)
    assert chart_bars(conclusion)[1] == ("An agreement or security review ends within 100 days", 4)


def test_report_contains_tables_of_undecided_reviews_and_of_sub_processors(
    check_record: StepRecord,
) -> None:
    conclusion = table_rows(conclude(check_record, SENT))
    first, second = conclusion["Security reviews without a decision"]
    assert first[1:4] == ["2", "Company 2", "periodic review"]
    assert first[-1] == "66.66%, does not pass"
    assert second[1:4] == ["6", "<b>Süd & Söhne</b>", "an incident"]
    assert second[-2:] == ["not yet", "not yet"]
    assert conclusion["Sub-processors"] == [["1", "Cloud Ltd", "CN", "hosting"]]


def test_report_says_that_parcelseal_does_not_record_consents_to_sub_processors(
    check_record: StepRecord,
) -> None:
    (section,) = [section for section in conclude(check_record, SENT).sections
                  if translate(section.heading) == "Sub-processors of partners"]  # fmt: skip
    (first, _table) = section.blocks
    assert isinstance(first, Paragraph)
    assert "None may process" not in translate(first.text)
    assert translate(first.text).endswith(
        "Keep the consents with the agreement; ParcelSeal does not record them."
    )
    assert "此处不作记录" in translate(first.text, "zh_CN")


def test_facts_at_head_of_partners_report_equal_the_metrics_of_its_controls(
    check_record: StepRecord,
) -> None:
    facts = {
        translate(fact.label): (fact.value, fact.status)
        for fact in conclude(check_record, SENT).facts
    }
    assert facts["Partners with access"] == (6, None)
    assert facts["Partners without valid agreements"] == (3, Outcome.FAIL)
    assert facts["Partners without a valid security review"] == (3, Outcome.FAIL)


def test_report_shows_no_metric_values_if_the_check_did_not_finish() -> None:
    failed = StepRecord(step="check", outcome=Outcome.FAIL)
    conclusion = conclude(failed, SENT)
    assert (
        translate(conclusion.summary)
        == "The agreements and reviews of partners could not be checked."
    )
    assert {fact.value for fact in conclusion.facts} == {None}
    assert conclusion.outcome is Outcome.FAIL


def test_run_fails_if_a_step_record_is_missing(company: PartnersCompany) -> None:
    company.add_partner("1")
    conclusion = conclude(company.check())
    assert [(finding.code, finding.severity) for finding in conclusion.findings] == [
        ("partners.send.missing", Outcome.FAIL)
    ]
    assert [finding.code for finding in conclude().findings] == [
        "partners.check.missing", "partners.send.missing",
    ]  # fmt: skip


def test_run_with_empty_register_fails(company: PartnersCompany) -> None:
    conclusion = conclude(company.check(), SENT)
    assert translate(conclusion.summary) == (
        "The partner register is empty, so no partner was checked."
    )
    assert table_rows(conclusion) == {}
    assert conclusion.outcome is Outcome.FAIL
    facts = {translate(fact.label): (fact.value, fact.status) for fact in conclusion.facts}
    assert facts["Partners without valid agreements"] == (None, None)
    assert facts["Partners without a valid security review"] == (None, None)


def test_run_needs_attention_if_no_partner_has_access(company: PartnersCompany) -> None:
    company.add_partner("1", connected=False)
    conclusion = conclude(company.check(), SENT)
    assert translate(conclusion.summary) == (
        "According to the partner register, no partner has access to customer information, so no "
        "partner was checked."
    )
    assert conclusion.outcome is Outcome.ATTENTION


def test_run_passes_if_pack_has_no_partner_rules() -> None:
    record = StepRecord(step="check", outcome=Outcome.PASS)
    conclusion = REVIEW_PARTNERS.conclude_without_rules([record, SENT])
    assert (conclusion.outcome, conclusion.metrics) == (Outcome.PASS, [])


def test_report_files_in_both_languages_contain_escaped_names_and_no_mail_address(
    company: PartnersCompany, check_record: StepRecord
) -> None:
    conclusion = conclude(check_record, SENT)
    run = RunContext(
        dag_id="review_partners", run_id="r1", started_at=company.now, code_version="x",
        policy_hash="ab", policy_name="pack", clock_source="fixed",
    )  # fmt: skip
    report_model = Report(
        title=conclusion.title, summary=conclusion.summary, run=run, outcome=conclusion.outcome,
        finished_at=company.now, facts=conclusion.facts, sections=conclusion.sections,
                findings=conclusion.findings,
    )  # fmt: skip
    files = render_all(report_model).files
    english, chinese = (files[f"report.{language}.html"].decode() for language in ("en", "zh-CN"))
    assert "&lt;b&gt;Süd &amp; Söhne&lt;/b&gt;" in english
    assert "<b>Süd" not in english + chinese
    assert "数据处理协议" in chinese
    assert "不得提供客户信息" in chinese
    assert "privacy@" not in english + chinese
