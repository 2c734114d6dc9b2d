"""The page on which a second person decides about a plan."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from include.approvals.question import Question
from include.retention.planning.approval import People, question
from include.retention.planning.breaker import Tripped
from include.retention.planning.plan import Plan, PlannedClass
from tests.retention.yard import rule

HOSTILE = "x](http://y) ![i](http://z) <b>*e*\n# head | cell\u202e"
CLASSES = (
    PlannedClass(
        name="paper", collection="t", action="delete", rule_sha256="0" * 64, records=20_000,
        expired=12_345, requested=5, held=7, suspended=3, to_delete=12_300,
    ),
    PlannedClass(
        name="label", collection="t", action="mask", rule_sha256="0" * 64, records=9,
        expired=9, to_mask=9,
    ),
)  # fmt: skip
PLAN = Plan(
    database="shop", as_of=datetime(2026, 3, 1, 16, tzinfo=UTC), key_id="1", classes=CLASSES
)
TRIPPED = (Tripped("paper", "records", 12_300, 10_000),)


def page(
    title: str = "Shop",
    names: tuple[str, ...] = ("bo", "wang_li@example.com"),
    label: object = None,
    tripped: tuple[Tripped, ...] = TRIPPED,
) -> Question:
    label = label or {"en": "Paper forms", "zh-CN": "纸质单据"}
    rules = {"paper": rule("t", name="paper", title=label), "label": rule("t", name="label")}
    return question(PLAN, title, rules, tripped, People(("ana",), names), "Asia/Shanghai", "1:a")


def test_it_says_in_both_languages_what_goes_and_why_it_waits() -> None:
    """Counts of the classes that wait, and of no other."""
    found = page()
    assert found.assigned == ["bo", "wang_li@example.com"]
    assert "12,300" in found.subject
    chinese, english = found.body.split("### English")
    assert chinese.startswith("### 中文")
    for half, title in ((chinese, "纸质单据"), (english, "Paper forms")):
        row = next(line for line in half.splitlines() if title in line)
        assert row.startswith(f"| {title} | 12,350 | 7 | 3 | 12,300 | 0 | 0 | ")
        assert "10,000" in row
        assert PLAN.sha256 in half
        assert "label" not in half
        assert half.count("\n| ") == 3  # head, rule, one class
    assert "2026-03-02 00:00" in english
    assert r"Only bo, wang\_li@example.com may answer" in english


def test_form_shows_legal_holds_and_suspended_records_apart() -> None:
    """A suspended record is under no legal hold; each figure has its own heading."""
    chinese, english = page().body.split("### English")
    assert "| Held | Suspended |" in english
    assert "| 法律保全 | 暂缓 |" in chinese


@pytest.mark.parametrize("recent", [0, 4_321])
@pytest.mark.parametrize("cause", ["records", "percent", "trend"])
def test_each_cause_has_its_words(cause: str, recent: int) -> None:
    """With the number that it is beyond, and what went the last day where that counts."""
    recent = 0 if cause == "trend" else recent
    tripped = Tripped("paper", cause, 12_300, 777, recent)  # type: ignore[arg-type]  # the three causes
    assert page(tripped=(tripped,)).body.count("4,321") == (2 if recent else 0)
    assert page(tripped=(tripped,)).body.count("777") == 2


def test_many_approvers_are_counted(place_names: tuple[str, ...]) -> None:
    """Ten are named, and all may answer."""
    found = page(names=place_names)
    assert len(found.assigned) == 30
    assert "and 20 more may answer" in found.body
    assert "p10" not in found.body


@pytest.fixture
def place_names() -> tuple[str, ...]:
    return tuple(f"p{number:02d}" for number in range(30))


@pytest.mark.parametrize(
    "hostile",
    [
        {"title": HOSTILE},
        {"label": {"en": HOSTILE, "zh-CN": HOSTILE}},
        {"names": (HOSTILE, "bo")},
    ],
)  # fmt: skip
def test_titles_and_names_cannot_change_the_page(hostile: dict[str, object]) -> None:
    """Neither links, nor pictures, nor headings, nor cells, nor hidden text."""
    found = page(**hostile)  # type: ignore[arg-type]  # one of page's own arguments
    text = f"{found.subject}\n{found.body}"
    for sign in ("](", "![", "<b>", "*e*", "\n# head", "\u202e"):
        assert sign not in text
    assert "\n" not in found.subject
    rows = [line for line in found.body.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in rows} == {9}
