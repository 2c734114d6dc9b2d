"""Tests of the report about accesses, in both languages."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.disclosure.accesses.report import (
    FEWEST_PEERS,
    access_facts,
    access_sections,
    stored_files,
)
from include.disclosure.accesses.step import AccessComparison
from include.evidence.model import Outcome
from include.messages import in_english
from include.reports.i18n import Translator
from include.reports.model import BarChart, Paragraph, Section, Table
from tests.disclosure.accesses.access_fixtures import NOON, AccessCompany, access_rules


def texts(sections: list[Section]) -> str:
    return " ".join(
        in_english(block.text)
        for section in sections
        for block in section.blocks
        if isinstance(block, Paragraph)
    )


def tables(sections: list[Section]) -> dict[str, Table]:
    return {
        block.caption.text: block
        for section in sections
        for block in section.blocks
        if isinstance(block, Table)
    }


def test_report_of_pack_without_access_log_shows_not_measured_instead_of_passed(
    company: AccessCompany,
):
    company.rules = None
    comparison = company.compare()
    facts = access_facts(comparison)
    assert [(fact.value, fact.status) for fact in facts] == [(None, None)] * 3
    assert "maps no access log" in texts(access_sections(comparison))


@pytest.mark.parametrize("comparison", [None, AccessComparison(mapped=True, database="firm")])
def test_report_of_step_without_counts_shows_not_measured(comparison: AccessComparison | None):
    assert [fact.status for fact in access_facts(comparison)] == [None] * 3
    assert len(access_sections(comparison)) == 1


def test_report_shows_open_and_new_violations_by_kind_and_department(company: AccessCompany):
    company.add_approval()
    company.add_access(1, approval=None)
    company.compare()
    company.now += timedelta(hours=1)
    company.add_access(2, approval=None, at=NOON, department=None)
    company.add_access(3, purpose="private", at=NOON)
    comparison = company.compare()
    sections = access_sections(comparison)
    kinds = tables(sections)["Accesses that differ from their approval, by kind"]
    rows = {in_english(row[0]): row[1:] for row in kinds.rows}  # type: ignore[arg-type]
    assert rows["No approval of the employee"] == [2, 1]
    assert rows["Other purpose than the approval"] == [1, 1]
    assert rows["Outside the period of the approval"] == [0, 0]
    departments = tables(sections)["Accesses that differ from their approval, by department"]
    assert [row[1:] for row in departments.rows] == [[2, 1, 1], [1, 1, 0]]
    facts = access_facts(comparison)
    assert [(fact.value, fact.status) for fact in facts] == [
        (2, Outcome.FAIL), (1, Outcome.FAIL), (0, None)
    ]  # fmt: skip
    assert "compared 3 accesses since" in texts(sections)


def test_report_states_what_the_log_does_not_record(company: AccessCompany):
    company.add_access(fields=None)
    assert "For 1 accesses, the log does not record the fields" in texts(
        access_sections(company.compare())
    )
    for columns, words in (
        ("access, person, at, approval, purpose", "does not record fields"),
        ("access, person, at, approval, fields", "does not record purposes"),
        ("access, person, at, approval", "records neither purposes nor fields"),
    ):
        company.rules = access_rules(log=f"SELECT {columns} FROM seen")
        comparison = company.compare()
        sections = access_sections(comparison)
        assert words in texts(sections)
        if "purpose" not in columns:
            assert access_facts(comparison)[1].value is None


def test_picture_shows_most_accesses_per_department_as_multiple_of_median(
    company: AccessCompany,
):
    number = 0
    for department, people in (("North", (1, 2, 6)), ("South", (3, 3)), ("East", (5, 5, 5, 5))):
        for person, accesses in enumerate(people):
            for _ in range(accesses):
                number += 1
                company.add_access(number, person=f"{department[0]}{person}",
                                   department=department)  # fmt: skip
    sections = access_sections(company.compare())
    (chart,) = [block for block in sections[1].blocks if isinstance(block, BarChart)]
    assert [(in_english(bar.label), bar.value) for bar in chart.bars] == [  # type: ignore[arg-type]
        ("East, E0", 1), ("North, N2", 3)
    ]  # fmt: skip
    assert FEWEST_PEERS == 3
    assert all(bar.status is None for bar in chart.bars)
    table = tables(sections)["Accesses of employees, by department"]
    assert [row[1:] for row in table.rows] == [
        [4, 5, 5, "E0"], [3, 2, 6, "N2"], [2, 3, 3, "S0"]
    ]  # fmt: skip


def test_accesses_before_the_peer_days_and_in_the_future_do_not_count_for_peers(
    company: AccessCompany,
):
    company.rules = access_rules(peer_days=1)
    company.add_access(1)
    company.add_access(2, at=NOON - timedelta(days=2))
    company.add_access(3, at=NOON + timedelta(days=2))
    (group,) = company.compare().peers
    assert (group.people, group.median, group.most) == (1, 1, 1)


def test_file_in_the_state_database_is_not_listed_as_stored(company: AccessCompany):
    company.add_access(approval=None)
    comparison = company.compare()
    assert stored_files(company.context("r1"), comparison) == {}
    assert stored_files(company.context("r1"), None) == {}


def test_all_texts_have_a_chinese_translation(company: AccessCompany):
    company.add_approval()
    for number in range(4):
        company.add_access(number, person=f"N{number}")
    company.compare()
    company.sql(
        "UPDATE seen SET approval = NULL WHERE access = 1; DELETE FROM seen WHERE access = 2"
    )
    company.now += timedelta(days=7)
    record = company.record()
    comparison = AccessComparison.model_validate(record.data)
    translator = Translator("zh_CN")
    messages = [
        *(finding.message for finding in record.findings),
        *(finding.action for finding in record.findings),
        *(fact.label for fact in access_facts(comparison)),
        *(section.heading for section in access_sections(comparison)),
    ]
    for message in messages:
        assert translator.text(message) != Translator("en").text(message), message.text
