"""The table of time limits in the form of a human step."""

from __future__ import annotations

from tests.incident.incident_fixtures import Company


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
