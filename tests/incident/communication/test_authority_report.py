"""Tests of reports to authorities: required facts, and missing facts that prevent the hand-in."""

from __future__ import annotations

from types import SimpleNamespace

from include.documents.document_texts import missing_entries
from include.documents.model import Document, Form
from include.incident.communication import authority_report
from include.incident.communication.authority_report import Phase
from include.incident.form import Action
from include.incident.incident_ids import Kind
from include.incident.incident_run import sender_address
from include.messages import Message
from include.reports.i18n import Translator
from include.reports.model import Table
from tests.incident.incident_fixtures import COMP, LEAD, Case, Company, english


def report(case: Case, phase: Phase, authority: str = "cac") -> Document:
    return authority_report.report_of(case.context, case.record, authority, phase)


def summary(case: Case) -> Document:
    return authority_report.summary_of(case.context, case.record)


def values_by_label(document: Document) -> dict[str, object]:
    """Return the value of each form field of a document in English, by label."""

    def plain(value: object) -> object:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return english(value) if isinstance(value, Message) else value

    return {
        english(entry.label): plain(entry.value)
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Form)
        for entry in block.entries
    }


def time_limits(document: Document) -> list[list[str]]:
    """Return the rows of the tables of time limits in a document, in English."""
    return [
        [english(cell) for cell in row if isinstance(cell, Message)]
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Table)
        for row in block.rows
    ]


def test_first_report_to_authority_is_complete_as_soon_as_grade_is_entered(
    company: Company,
) -> None:
    case = company.open(1, 2).counted()
    assert [english(field) for field in missing_entries(report(case, Phase.FIRST))] == ["Grade"]
    case.answer("grade")
    document = report(case, Phase.FIRST)
    assert missing_entries(document) == []
    values = values_by_label(document)
    assert values["Company"] == "Sample Courier Co."
    assert values["Systems"] == "Courier"
    assert (values["People affected"], values["Records"]) == (2, 2)
    assert values["Types of information"] == [
        "name", "e-mail address", "customer or waybill number",
    ]  # fmt: skip
    assert values["Containment of the incident"] == "containment in progress; no result yet"
    assert values["Start of the incident"] == "not known yet"
    assert "Preliminary cause" not in values
    assert english(document.footer or document.title).startswith(
        "How to submit this report: Hotline 12387"
    )


def test_report_to_authority_shows_uncounted_number_of_people_as_not_known_yet(
    company: Company,
) -> None:
    company.broken = {"archive"}
    case = company.open(databases=["archive"], keys=[]).counted()
    case.answer("grade", reason="nothing could be counted")
    values = values_by_label(report(case, Phase.FIRST))
    assert values["People affected"] == "not known yet"
    assert values["Types of information"] == "not known yet"
    assert values["Databases in which the affected people are not counted yet"] == "Archive"
    assert values["Systems"] == "Archive"


UPPER_BOUND = (
    "not yet limited to the affected records; this is an upper bound and will be corrected in a "
    "follow-up report"
)
COUNTS = (
    "People affected",
    "Records",
    "People whose sensitive information is affected",
    "People under 14",
)


def test_counts_of_an_incident_without_a_restricted_scope_are_stated_as_upper_bounds(
    company: Company,
) -> None:
    """An authority would otherwise take the number of all customers for the number affected."""
    case = company.open(databases=["courier"], keys=[]).counted()
    case.answer("grade", reason="all records are counted")
    values = values_by_label(report(case, Phase.FIRST))
    for label in COUNTS:
        assert UPPER_BOUND in str(values[label]) or values[label] == "not known yet", label
    assert UPPER_BOUND in str(values["People affected"])
    document = report(case, Phase.FIRST)
    [people] = [
        entry.value
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Form)
        for entry in block.entries
        if english(entry.label) == "People affected"
    ]
    assert isinstance(people, Message)
    assert Translator("zh_CN").text(people).endswith("（尚未限定范围，系上限，续报更正）")
    final = values_by_label(summary(case))
    assert str(final["People affected"]).endswith(
        "(not limited to the affected records; this is an upper bound)"
    )


def test_upper_bound_says_that_it_covers_only_the_counted_databases(company: Company) -> None:
    company.broken = {"archive"}
    case = company.open(databases=["courier", "archive"], keys=[]).counted()
    case.answer("grade", reason="one database cannot be read")
    values = values_by_label(report(case, Phase.FIRST))
    assert "only in the databases counted so far" in str(values["People affected"])
    assert values["Databases in which the affected people are not counted yet"] == "Archive"


def test_counts_of_a_restricted_scope_are_plain_numbers(company: Company) -> None:
    case = company.open(1, 2).counted()
    case.answer("grade")
    values = values_by_label(report(case, Phase.FIRST))
    assert values["People affected"] == 2
    assert values["Records"] == 2


def test_letters_never_state_the_time_that_is_left(company: Company) -> None:
    """An official letter is read later than it was written."""
    case = company.open(1).until("grade")
    documents = [report(case, Phase.FIRST), report(case, Phase.FIRST, "postal"), summary(case)]
    company.clock.on(hours=200)
    documents += [report(case, Phase.FIRST), summary(case)]
    states = [row[2] for document in documents for row in time_limits(document)]
    assert "not due yet" in states
    assert "not done by the deadline" in states
    assert not [state for state in states if " left" in state or "OVERDUE" in state]


def test_letter_shows_the_address_only_if_the_pack_names_the_company_of_the_incident(
    company: Company,
) -> None:
    case = company.open(1).until("grade")
    address = report(case, Phase.FIRST).sender_address
    assert address is not None
    assert "Kunming" in english(address)
    pack = case.context.pack
    assert pack.company is not None
    other = pack.company.model_copy(update={"name": {"en": "Other Ltd.", "zh-CN": "其他公司"}})
    for named in (None, other):
        run = SimpleNamespace(
            pack=pack.model_copy(update={"company": named}), rules=case.context.rules
        )
        assert sender_address(run) is None  # type: ignore[arg-type]  # has what the function reads


def test_follow_up_report_contains_cause_evidence_and_earlier_reports(company: Company) -> None:
    case = company.open(1).until("notify")
    case.answer("report_rest", authority="postal", receipt="POSTAL")
    document = report(case, Phase.REST)
    assert missing_entries(document) == []
    values = values_by_label(document)
    assert values["Preliminary cause"] == "cause, said in en"
    assert (
        values["Expected development of the incident, traces of its cause, and next steps"]
        == "next_steps, said in en"
    )
    assert str(values["Notification of affected people"]).startswith(
        "1 affected people are to be notified"
    )
    evidence = values["Preserved evidence"]
    assert isinstance(evidence, list)
    assert [line.partition(":")[0].partition(",")[0] for line in evidence] == [
        "List of 1 affected people", "Extract of the access log of Courier",
        "Legal holds in force", f"Timeline of {len(case.entries())} entries",
    ]  # fmt: skip
    before = values["Reports"]
    assert isinstance(before, list)
    assert len(before) == 1
    assert "R-1" in before[0]


def test_report_to_authority_contains_only_time_limits_that_apply_to_this_authority(
    company: Company,
) -> None:
    case = company.open(1).until("grade")
    rows = time_limits(report(case, Phase.FIRST))
    assert [row[0] for row in rows] == [
        "Report to the cyberspace administration of a general incident"
    ]
    case.update(Action.REGRADE, by=COMP, grade="larger", words="more was found")
    rows = time_limits(report(case, Phase.FIRST))
    assert "First report to the cyberspace administration" in {row[0] for row in rows}
    assert all("does not apply" not in row[2] for row in rows)


def test_summary_report_is_complete_only_after_lessons_and_corrective_actions_are_entered(
    company: Company,
) -> None:
    case = company.open(1).until("close")
    assert [english(field) for field in missing_entries(summary(case))] == [
        "Lessons learned and accountability", "Corrective actions that were registered as findings",
    ]  # fmt: skip
    case.answer("review")
    assert missing_entries(summary(case)) == []
    assert (
        values_by_label(summary(case))["Corrective actions that were registered as findings"]
        == "none; the lessons learned state the reason"
    )
    other = company.open(2).until("close")
    other.answer("review", action_1="Lock them", owner_1="compliance")
    actions = values_by_label(summary(other))["Corrective actions that were registered as findings"]
    assert isinstance(actions, list)
    assert actions[0].startswith("Lock them (finding ")


def test_report_of_incident_drill_has_drill_warning_in_both_languages(company: Company) -> None:
    case = company.open(scenario="scanner_lost", keys=[], databases=[]).counted()
    case.answer("grade")
    document = report(case, Phase.FIRST)
    assert document.warning is not None
    assert english(document.warning).startswith("DRILL")
    chinese = Translator("zh_CN", "Asia/Shanghai")
    assert "演练" in chinese.text(document.warning)
    happened = {
        chinese.text(entry.value)
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Form)
        for entry in block.entries
        if isinstance(entry.value, Message)
    }
    assert any("快递员将扫描终端遗落在出租车上" in value for value in happened)
    real = company.open(1).until("grade")
    assert report(real, Phase.FIRST).warning is None


def test_report_to_authority_leaves_out_entries_that_were_corrected_as_mistakes(
    company: Company,
) -> None:
    case = company.open(1).until("report", contain={"notes": "The scanner is locked"})
    before = values_by_label(report(case, Phase.REST))
    assert "is locked" in str(before["Containment of the incident"])
    assert "R-1" in str(before["Reports"])
    for kind in (Kind.CONTAINED, Kind.REPORTED, Kind.REPORTED):
        last = [entry.place for entry in case.record.valid if entry.kind is kind][-1]
        case.update(Action.CORRECT, by=LEAD, entry=last)
    after = values_by_label(report(case, Phase.REST))
    assert after["Containment of the incident"] == "containment in progress; no result yet"
    assert after["Reports"] is None
