"""Test the supported PostgreSQL versions, and that documentation pages name the same versions."""

from __future__ import annotations

import re

import pytest

from include.service_container import ROOT
from include.services.errors import UsageError
from include.services.programs import (
    SUPPORTED,
    listed,
    major_version,
    require_fitting_server,
)

PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").rglob("*.md"))]
VERSION = re.compile(
    r"(?:PostgreSQL|postgresql-)\s*(\d+)((?:, \d+)*(?: (?:and|or|to) \d+)?)( or newer)?"
)


@pytest.mark.parametrize(
    ("version", "major"),
    [(150004, 15), (90624, 9), ("15.4 (Debian 15.4-1)", 15), ("18beta1", 18), ("", 0)],
)
def test_major_version_is_read_from_a_version_number_or_a_version_text(
    version: int | str, major: int
) -> None:
    assert major_version(version) == major


@pytest.mark.parametrize("version", [140022, 190000])
def test_error_for_unsupported_server_version_contains_the_supported_versions(version: int) -> None:
    with pytest.raises(UsageError, match="versions 15, 16, 17 and 18 are supported"):
        require_fitting_server(version, "The database courier")


def test_documentation_pages_mention_only_supported_server_versions() -> None:
    """Future versions are not tested, so documentation pages must not name them."""
    for page in PAGES:
        for first, others, or_newer in VERSION.findall(page.read_text()):
            versions = {int(number) for number in re.findall(r"\d+", first + others)}
            assert versions <= set(SUPPORTED), (page.name, versions)
            assert not or_newer, page.name
    versions_page = (ROOT / "docs" / "reference" / "postgresql.md").read_text()
    assert f"servers and client programs of PostgreSQL {listed(SUPPORTED)}." in versions_page
