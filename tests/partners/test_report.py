"""The report says what binds each partner, and nothing of what was not checked at."""

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
from tests.partners.books import OTHERS, answered
from tests.partners.rig import Rig

SEND = "send"
SENT = StepRecord(step=SEND, outcome=Outcome.PASS, data={})

CONTEXT: Any = None  # the report needs the records alone


def concluded(*records: StepRecord) -> Conclusion:
    return report.conclude(CONTEXT, RunRecords(records))


def said(text: Any, locale: str = "en") -> str:
    return Translator(locale).value(text)


def tables(found: Conclusion) -> dict[str, list[list[str]]]:
    return {
        said(block.caption): [[said(cell) for cell in row] for row in block.rows]
        for section in found.sections
        for block in section.blocks
        if isinstance(block, Table)
    }


def bars(found: Conclusion) -> list[tuple[str, Any]]:
    (chart,) = [
        block
        for section in found.sections
        for block in section.blocks
        if isinstance(block, BarChart)
    ]
    return [(said(one.label), one.value) for one in chart.bars]


@pytest.fixture
def checked(rig: Rig) -> StepRecord:
    """Partners in every state, with open reviews and a sub-processor."""
    rig.ally("1")
    rig.ally("2", secrecy_to="2026-08-30")
    rig.ally("3", deal_to="2026-05-31", grade="9")
    rig.ally("4", connected=False, secrecy_to=None)
    rig.ally("5")
    rig.ally("5")
    rig.ally("6", company="<b>Süd & Söhne</b>")
    rig.ally("10", secrecy_from="2026-07-01")
    review = rig.issue("1")
    assert review.issued is not None
    content = answered(review.issued, others=OTHERS, on=rig.today)
    with rig.state.begin() as conn:
        reviews.hand_in(conn, content, "x.xlsx", by="E1", at=rig.now)
    rig.decide("1", passed=True)
    rig.hand_in(rig.issue("2"), encryption="No")
    rig.reopen("6", "an incident")
    record = rig.check()
    assert isinstance(record, StepRecord)
    return record


def test_every_partner_stands_with_what_binds_it(checked: StepRecord) -> None:
    """Refused ones first, then what ends soon, then the rest; by number, 9 before 10."""
    found = concluded(checked, SENT)
    rows = tables(found)["What binds each partner"]
    assert rows == [
        ["3", "Company 3", "not known", "yes", "until 2029-12-31", "lapsed, 2026-05-31",
         "not known", "refused"],
        ["5", "Company 5", "not known", "yes", "not known", "not known", "not known", "refused"],
        ["6", "<b>Süd & Söhne</b>", "1", "yes", "until 2029-12-31", "until 2029-12-31",
         "opened again", "refused"],
        ["10", "Company 10", "1", "yes", "from 2026-07-01 on", "until 2029-12-31",
         "until 2027-06-01", "refused"],
        ["2", "Company 2", "1", "yes", "until 2026-08-30", "until 2029-12-31",
         "until 2027-06-01", "allowed, ends in 90 days"],
        ["1", "Company 1", "1", "yes", "until 2029-12-31", "until 2029-12-31",
         "until 2027-06-01", "allowed"],
        ["4", "Company 4", "1", "no", "not known", "until 2029-12-31", "until 2027-06-01",
         "no access"],
    ]  # fmt: skip
    assert bars(found) == [
        ("Sharing is refused", 4),
        ("Something ends within 90 days", 1),
        ("In order for longer", 1),
        ("Without access", 1),
    ]
    assert said(found.summary) == (
        "4 of 6 partners with access may be given nothing: an agreement has lapsed, or their "
        "review does not hold."
    )
    assert found.outcome is Outcome.FAIL


def test_what_ends_sooner_stands_higher(rig: Rig) -> None:
    """To the very day; how soon is soon is the first rung of the pack's ladder."""
    rig.ally("1", deal_to="2026-08-31")  # in 91 days
    rig.ally("2", secrecy_to="2026-06-20")
    rig.ally("3", deal_to="2026-06-01")
    rig.ally("4", seen_on="2025-06-02")
    found = concluded(rig.check(), SENT)
    rows = tables(found)["What binds each partner"]
    assert [(row[0], row[-1]) for row in rows] == [
        ("3", "allowed, ends today"),
        ("4", "allowed, ends tomorrow"),
        ("2", "allowed, ends in 19 days"),
        ("1", "allowed"),
    ]
    rules = rig.context.rules.model_copy(update={"ladder": (100, 15)})
    rig.pack = rig.pack.model_copy(update={"sections": {PARTNERS.file: rules}})
    found = concluded(rig.check("r2"), SENT)
    assert bars(found)[1] == ("Something ends within 100 days", 4)


def test_open_reviews_and_sub_processors_are_listed(checked: StepRecord) -> None:
    """With what they wait for, and by the last review that passed."""
    found = tables(concluded(checked, SENT))
    first, second = found["Not decided on yet"]
    assert first[1:4] == ["2", "Company 2", "its turn came"]
    assert first[-1] == "66.66%, does not pass"
    assert second[1:4] == ["6", "<b>Süd & Söhne</b>", "an incident"]
    assert second[-2:] == ["not yet", "not yet"]
    assert found["Sub-processors"] == [["1", "Cloud Ltd", "CN", "hosting"]]


def test_no_consent_is_claimed_that_nobody_recorded(checked: StepRecord) -> None:
    """What the law asks for stands above the list, and that it is not kept here."""
    (section,) = [one for one in concluded(checked, SENT).sections
                  if said(one.heading) == "Who processes for partners"]  # fmt: skip
    (first, _table) = section.blocks
    assert isinstance(first, Paragraph)
    assert "None may process" not in said(first.text)
    assert said(first.text).endswith("to be kept with the agreement; it is not recorded here.")
    assert "未在此记录" in said(first.text, "zh_CN")


def test_the_first_screen_has_the_figures_of_the_controls(checked: StepRecord) -> None:
    """With access, each with its state."""
    facts = {said(one.label): (one.value, one.status) for one in concluded(checked, SENT).facts}
    assert facts["Partners with access"] == (6, None)
    assert facts["Without agreement in force"] == (3, Outcome.FAIL)
    assert facts["Without review that holds"] == (3, Outcome.FAIL)


def test_a_search_that_failed_shows_nothing_as_in_order() -> None:
    """What was not measured is not measured, and the run is red."""
    failed = StepRecord(step="check", outcome=Outcome.FAIL)
    found = concluded(failed, SENT)
    assert said(found.summary) == "Nobody could see which partners are bound and reviewed."
    assert {one.value for one in found.facts} == {None}
    assert found.outcome is Outcome.FAIL


def test_a_step_that_left_nothing_is_told(rig: Rig) -> None:
    """A run without its sending is not green."""
    rig.ally("1")
    found = concluded(rig.check())
    assert [(one.code, one.severity) for one in found.findings] == [
        ("partners.send.missing", Outcome.FAIL)
    ]
    assert [one.code for one in concluded().findings] == [
        "partners.check.missing", "partners.send.missing",
    ]  # fmt: skip


def test_a_register_without_partners_says_so(rig: Rig) -> None:
    """No chart of nothing, no figure of anybody, and it is red."""
    found = concluded(rig.check(), SENT)
    assert said(found.summary) == (
        "The register has no partner: nobody could see whether partners are bound."
    )
    assert tables(found) == {}
    assert found.outcome is Outcome.FAIL
    facts = {said(one.label): (one.value, one.status) for one in found.facts}
    assert facts["Without agreement in force"] == (None, None)
    assert facts["Without review that holds"] == (None, None)


def test_a_register_in_which_nobody_has_access_claims_nothing(rig: Rig) -> None:
    """Of none that all are in order says nothing."""
    rig.ally("1", connected=False)
    found = concluded(rig.check(), SENT)
    assert said(found.summary) == (
        "By the register no partner has access: there was none to look at."
    )
    assert found.outcome is Outcome.ATTENTION


def test_a_pack_without_partners_is_calm() -> None:
    """Nothing is shown, nothing fails."""
    nothing = StepRecord(step="check", outcome=Outcome.PASS)
    found = REVIEW_PARTNERS.conclude_without_rules([nothing, SENT])
    assert (found.outcome, found.metrics) == (Outcome.PASS, [])


def test_the_report_is_rendered_in_both_languages(rig: Rig, checked: StepRecord) -> None:
    """Names are text, whatever they look like; no contact stands in it."""
    found = concluded(checked, SENT)
    run = RunContext(
        dag_id="review_partners", run_id="r1", started_at=rig.now, code_version="x",
        policy_hash="ab", policy_name="pack", clock_source="fixed",
    )  # fmt: skip
    made = Report(
        title=found.title, summary=found.summary, run=run, outcome=found.outcome,
        finished_at=rig.now, facts=found.facts, sections=found.sections, findings=found.findings,
    )  # fmt: skip
    files = render_all(made).files
    english, chinese = (files[f"report.{one}.html"].decode() for one in ("en", "zh-CN"))
    assert "&lt;b&gt;Süd &amp; Söhne&lt;/b&gt;" in english
    assert "<b>Süd" not in english + chinese
    assert "数据处理协议" in chinese
    assert "拒绝共享" in chinese
    assert "privacy@" not in english + chinese
