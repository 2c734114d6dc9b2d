"""The supported versions of PostgreSQL, and the pages that name them."""

from __future__ import annotations

import re

import pytest

from include.services.errors import UsageError
from include.services.programs import (
    SUPPORTED,
    listed,
    major_version,
    require_fitting_server,
)
from include.workplace import ROOT

PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
VERSION = re.compile(
    r"(?:PostgreSQL|postgresql-)\s*(\d+)((?:, \d+)*(?: (?:and|or|to) \d+)?)( or newer)?"
)


@pytest.mark.parametrize(
    ("version", "major"),
    [(150004, 15), (90624, 9), ("15.4 (Debian 15.4-1)", 15), ("18beta1", 18), ("", 0)],
)
def test_major_version_reads_each_form(version: int | str, major: int) -> None:
    assert major_version(version) == major


@pytest.mark.parametrize("version", [140022, 190000])
def test_require_fitting_server_names_supported_versions(version: int) -> None:
    with pytest.raises(UsageError, match="versions 15, 16, 17 and 18 are supported"):
        require_fitting_server(version, "The database courier")


def test_pages_name_no_version_that_is_not_supported() -> None:
    """Pages name no future version either, since it is not tested."""
    for page in PAGES:
        for first, others, or_newer in VERSION.findall(page.read_text()):
            versions = {int(number) for number in re.findall(r"\d+", first + others)}
            assert versions <= set(SUPPORTED), (page.name, versions)
            assert not or_newer, page.name
    connections = (ROOT / "docs" / "connections.md").read_text()
    assert f"PostgreSQL {listed(SUPPORTED)} are supported" in connections
