"""What authorities are handed: all that the law asks for, nothing that is not so, blocked else."""

from __future__ import annotations

from include.documents.model import Document, Form
from include.documents.words import missing
from include.incident.form import Action
from include.incident.names import Kind
from include.incident.telling import authority_report
from include.incident.telling.authority_report import Phase
from include.messages import Message
from include.reports.i18n import Translator
from include.reports.model import Table
from tests.incident.desk_rig import COMP, LEAD, Case, Company, english


def report(case: Case, phase: Phase, authority: str = "cac") -> Document:
    return authority_report.report_of(case.context, case.record, authority, phase)


def summary(case: Case) -> Document:
    return authority_report.summary_of(case.context, case.record)


def said(document: Document) -> dict[str, object]:
    """What stands beside each label, in English."""

    def plain(value: object) -> object:
        if isinstance(value, tuple):
            return [plain(one) for one in value]
        return english(value) if isinstance(value, Message) else value

    return {
        english(entry.label): plain(entry.value)
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Form)
        for entry in block.entries
    }


def clocks(document: Document) -> list[list[str]]:
    """Rows of its clocks."""
    return [
        [english(cell) for cell in row if isinstance(cell, Message)]
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Table)
        for row in block.rows
    ]


def test_the_first_report_goes_out_with_what_is_known_at_once(company: Company) -> None:
    """Cause and harm follow; a grade nobody confirmed does not go out."""
    case = company.open(1, 2).counted()
    assert [english(one) for one in missing(report(case, Phase.FIRST))] == ["Grade"]
    case.answer("grade")
    made = report(case, Phase.FIRST)
    assert missing(made) == []
    found = said(made)
    assert found["Unit"] == "Sample Courier Co."
    assert found["Systems"] == "Courier"
    assert (found["People affected"], found["Records"]) == (2, 2)
    assert found["Types of information"] == [
        "name", "e-mail address", "customer or waybill number",
    ]  # fmt: skip
    assert found["Containment"] == "being contained; no result yet"
    assert found["Began"] == "not known yet"
    assert "Preliminary cause" not in found
    assert english(made.footer or made.title).startswith("How it is handed in: Hotline 12387")


def test_what_was_not_counted_is_not_zero(company: Company) -> None:
    """It is said to be unknown, by name."""
    company.broken = {"archive"}
    case = company.open(databases=["archive"], keys=[]).counted()
    case.answer("grade", reason="nothing could be counted")
    found = said(report(case, Phase.FIRST))
    assert found["People affected"] == "not known yet"
    assert found["Types of information"] == "not known yet"
    assert found["Could not be counted yet"] == "archive"
    assert found["Systems"] == "Archive"


def test_the_follow_up_names_cause_evidence_and_what_was_reported_before(company: Company) -> None:
    """To this authority, not to the other."""
    case = company.open(1).until("notify")
    case.answer("report_rest", authority="postal", receipt="POSTAL")
    made = report(case, Phase.REST)
    assert missing(made) == []
    found = said(made)
    assert found["Preliminary cause"] == "cause, said in en"
    assert found["Trend, leads and next steps"] == "next_steps, said in en"
    assert str(found["Whether affected people are told"]).startswith("1 affected people are told")
    evidence = found["Evidence that is kept"]
    assert isinstance(evidence, list)
    assert [one.partition(":")[0].partition(",")[0] for one in evidence] == [
        "List of 1 affected people", "Extract of the access log of courier",
        "Legal holds in force", f"Timeline of {len(case.entries())} entries",
    ]  # fmt: skip
    before = found["Reports"]
    assert isinstance(before, list)
    assert len(before) == 1
    assert "R-1" in before[0]


def test_only_clocks_that_run_for_it_stand_in_it(company: Company) -> None:
    """An authority does not have to read which rules are not for it."""
    case = company.open(1).until("grade")
    rows = clocks(report(case, Phase.FIRST))
    assert [row[0] for row in rows] == [
        "Report to the cyberspace administration of a general incident"
    ]
    case.update(Action.REGRADE, by=COMP, grade="larger", words="more was found")
    rows = clocks(report(case, Phase.FIRST))
    assert "First report to the cyberspace administration" in {row[0] for row in rows}
    assert all("not for" not in row[2] for row in rows)


def test_the_summary_has_lessons_and_what_is_changed(company: Company) -> None:
    """Before the review it is blocked by just that."""
    case = company.open(1).until("close")
    assert [english(one) for one in missing(summary(case))] == [
        "Lessons and accountability", "Corrective actions in the register",
    ]  # fmt: skip
    case.answer("review")
    assert missing(summary(case)) == []
    assert said(summary(case))["Corrective actions in the register"] == "none; see the lessons"
    other = company.open(2).until("close")
    other.answer("review", action_1="Lock them", owner_1="compliance")
    actions = said(summary(other))["Corrective actions in the register"]
    assert isinstance(actions, list)
    assert actions[0].startswith("Lock them (finding ")


def test_a_drills_documents_say_so_on_every_page_and_in_both_languages(company: Company) -> None:
    """Nobody hands them in by mistake."""
    case = company.open(scenario="scanner_lost", keys=[], databases=[]).counted()
    case.answer("grade")
    made = report(case, Phase.FIRST)
    assert made.marked is not None
    assert english(made.marked).startswith("DRILL")
    chinese = Translator("zh_CN", "Asia/Shanghai")
    assert "演练" in chinese.text(made.marked)
    happened = {
        chinese.text(entry.value)
        for section in made.sections
        for block in section.blocks
        if isinstance(block, Form)
        for entry in block.entries
        if isinstance(entry.value, Message)
    }
    assert any("快递员将扫描终端遗落在出租车上" in one for one in happened)
    real = company.open(1).until("grade")
    assert report(real, Phase.FIRST).marked is None


def test_what_was_entered_by_mistake_is_not_reported(company: Company) -> None:
    """Neither the containment, nor the report before."""
    case = company.open(1).until("report", contain={"notes": "The scanner is locked"})
    before = said(report(case, Phase.REST))
    assert "is locked" in str(before["Containment"])
    assert "R-1" in str(before["Reports"])
    for kind in (Kind.CONTAINED, Kind.REPORTED, Kind.REPORTED):
        last = [one.place for one in case.record.valid if one.kind is kind][-1]
        case.update(Action.CORRECT, by=LEAD, entry=last)
    after = said(report(case, Phase.REST))
    assert after["Containment"] == "being contained; no result yet"
    assert after["Reports"] is None
