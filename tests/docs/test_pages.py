"""Tests of the pages in docs/: links resolve, the index lists each page, and pages stay short."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.service_container import ROOT

DOCS = ROOT / "docs"
INDEX = DOCS / "index.md"
PAGES = sorted(DOCS.rglob("*.md"))
TOP = [
    page
    for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "SECURITY.md")
    if (page := ROOT / name).exists()
]
MOST_LINES = 250
LONGEST_LINE = 120
MOST_SENTENCES = 5
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`]*`")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|No)\.")
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z*`\"(\[]|\s*$)")


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix() if ROOT in page.parents else page.name


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the line number and text of each line of a page outside of code fences."""
    is_fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif not is_fenced:
            yield number, line


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    repeated: Counter[str] = Counter()
    names = set()
    for _, line in prose(page):
        if heading := re.match(r"#{1,6} +(.+?) *$", line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "")
            name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            names.add(f"{name}-{repeated[name]}" if repeated[name] else name)
            repeated[name] += 1
    return names


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the line number and target of each link that leads to a file or an anchor."""
    for number, line in prose(page):
        for target in _LINK.findall(_CODE.sub("``", line)):
            if not re.match(r"[a-z]+:", target):
                yield number, target


def broken_links(page: Path) -> list[str]:
    """Return the links of a page whose file or anchor does not exist, each with its line number."""
    broken = []
    for number, target in links(page):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        is_found = linked.exists()
        if is_found and anchor and linked.suffix == ".md":
            is_found = anchor in anchors(linked)
        if not is_found:
            broken.append(f"{_name(page)}:{number}: {target}")
    return broken


def missing_modules(page: Path) -> list[str]:
    """Return the Python files that a page names but that do not exist, each with its line."""
    named = [
        (number, name)
        for number, line in prose(page)
        for name in re.findall(r"`([a-z_]+(?:/[a-z_]+)+\.py)`", line)
    ]
    return [
        f"{_name(page)}:{number}: {name}"
        for number, name in named
        if not any((ROOT / folder / name).exists() for folder in ("", "include", "tests"))
    ]


def paragraphs(page: Path) -> Iterator[tuple[int, str]]:
    """Yield each paragraph and list item of a page with the number of its first line."""
    first, lines = 0, []
    for number, line in [*prose(page), (0, "")]:
        is_text = bool(line.strip()) and not line.lstrip().startswith(("|", "#"))
        is_item = bool(re.match(r"\s*(?:[-*]|\d+\.) ", line))
        if lines and (not is_text or is_item):
            yield first, " ".join(lines)
            lines = []
        if is_text:
            first = first if lines else number
            lines.append(line.strip())


@pytest.mark.parametrize("page", [*PAGES, *TOP], ids=_name)
def test_links_and_anchors_of_a_page_resolve(page: Path) -> None:
    assert broken_links(page) == []


def test_check_of_links_reports_missing_files_and_missing_anchors(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Other page\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "# A `title`, short\n\n[a](missing.md) [b](#a-title-short) [c](#no-heading)\n"
        "[d](other.md#other-page) [e](other.md#no-heading) `[f](in-code.md)`\n",
        encoding="utf-8",
    )
    targets = [broken.rpartition(" ")[2] for broken in broken_links(page)]
    assert targets == ["missing.md", "#no-heading", "other.md#no-heading"]


@pytest.mark.parametrize("page", [*PAGES, *TOP], ids=_name)
def test_python_files_that_are_mentioned_on_a_page_exist(page: Path) -> None:
    assert missing_modules(page) == []


def test_index_page_links_to_every_documentation_page_or_its_folder() -> None:
    listed = {(DOCS / target.partition("#")[0]).resolve() for _, target in links(INDEX)}
    folders = {path for path in listed if path.is_dir()}
    indexes = {path.parent for path in listed if path.name == "index.md"}
    missing = [
        _name(page)
        for page in PAGES
        if page not in listed | {INDEX} and not (folders | indexes) & set(page.parents) - {DOCS}
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_page_has_at_most_250_lines(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_lines_outside_tables_and_code_have_at_most_120_characters(page: Path) -> None:
    too_long = [
        f"{_name(page)}:{number}: {len(line)} characters"
        for number, line in prose(page)
        if len(line) > LONGEST_LINE and not line.lstrip().startswith("|")
    ]
    assert too_long == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_paragraphs_have_at_most_five_sentences(page: Path) -> None:
    too_long = []
    for number, paragraph in paragraphs(page):
        text = _ABBREVIATION.sub("", _CODE.sub("code", paragraph))
        if len(_SENTENCE_END.findall(text)) > MOST_SENTENCES:
            too_long.append(f"{_name(page)}:{number}: {paragraph[:60]}")
    assert too_long == []
