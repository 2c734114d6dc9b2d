"""Clocks on the page of a human step are read as they are."""

from __future__ import annotations

from tests.incident.desk_rig import Company


def test_a_due_day_keeps_its_offset_and_a_source_its_version(company: Company) -> None:
    """Nothing of it is replaced, in both languages; it makes no link and no heading either."""
    page = company.open(1).counted().page("grade").body
    for words in (
        "| 2026-11-26 05:15 UTC+08:00 |",
        "Network Data Security Management Regulations (2025-01-01) 11",
        "the company's own rule",
        "《网络数据安全管理条例》",
    ):
        assert words in page
    assert "·" not in page
