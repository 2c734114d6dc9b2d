"""The table of time limits in the form of a human step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.incident.incident_ids import WORKFLOW
from tests.incident.incident_fixtures import Company

AIRFLOW = "https://airflow.example"


def test_form_shows_utc_offset_of_deadline_and_version_of_law(company: Company) -> None:
    page = company.open(1).counted().page("grade").body
    for words in (
        "| 2026-11-26 05:15 UTC+08:00 |",
        "Network Data Security Management Regulations (2025-01-01), article 11",
        "the company's own rule",
        "《网络数据安全管理条例》",
    ):
        assert words in page
    assert "·" not in page


@pytest.mark.parametrize("step", ["grade", "contain"])
def test_form_begins_with_its_deadline_and_ends_with_the_tables_without_remaining_times(
    company: Company, step: str
) -> None:
    """The form stays until a person answers, so a remaining time would soon be wrong."""
    lines = company.open(1).counted().page(step).body.splitlines()
    assert lines[0].startswith("###")
    assert lines[2].startswith("- 截止时间：2026-11-26")
    english = lines.index("### English")
    assert lines[english + 2].startswith("- Deadline: 2026-11-26")
    tables = [number for number, line in enumerate(lines) if line.startswith("|")]
    assert min(tables) > english
    assert not any(line.startswith("-") for line in lines[min(tables) :])
    text = "\n".join(lines)
    assert "not done yet" in text
    for words in (" left |", "剩余 ", "OVERDUE by"):
        assert words not in text


def test_form_of_containment_states_the_checklist_before_the_description(company: Company) -> None:
    case = company.open(1)
    lines = case.page("contain").body.splitlines()
    (checklist,) = [number for number, line in enumerate(lines) if "Checklist:" in line]
    (description,) = [number for number, line in enumerate(lines) if "Description:" in line]
    assert checklist < description
    incident_type = company.rules.type(case.record.incident.type)
    for item in incident_type.checklist:
        assert item.text["en"].split("(")[0].split(",")[0].rstrip(". ") in lines[checklist]


def test_form_links_to_the_remaining_times_and_to_the_document_to_hand_in(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = company.open(1).counted()
    run = company.context(case.run)
    task = replace(
        run.task,
        run_address=f"{AIRFLOW}/dags/{WORKFLOW}/runs/r",
        pages_address=f"{AIRFLOW}/compliance",
    )
    monkeypatch.setattr(company, "context", lambda *_a, **_k: replace(run, task=task))
    assert f"{AIRFLOW}/compliance/clocks" in case.page("grade").body
