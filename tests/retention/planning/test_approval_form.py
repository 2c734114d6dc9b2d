"""Tests of the approval form of a plan."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from include.approvals.required_action import RequiredAction
from include.messages import Message, verbatim
from include.policy.rules import translated_message
from include.reports.i18n import Translator
from include.retention.planning.approval import PlanPeople, build_form
from include.retention.planning.breaker import ExceededLimit
from include.retention.planning.plan import Plan, PlannedClass, suspension_reason
from tests.retention.retention_schema import rule

HOSTILE = "x](http://y) ![i](http://z) <b>*e*\n# head | cell\u202e"
CLASSES = (
    PlannedClass(
        name="paper", collection="t", action="delete", rule_sha256="0" * 64, records=20_000,
        expired=12_345, requested=5, held=7, suspended=3, kept_by_reference=38, kept_longer=2,
        to_delete=12_300,
    ),
    PlannedClass(
        name="label", collection="t", action="mask", rule_sha256="0" * 64, records=9,
        expired=9, to_mask=9,
    ),
)  # fmt: skip
PLAN = Plan(
    database="shop", as_of=datetime(2026, 3, 1, 16, tzinfo=UTC), key_id="1", classes=CLASSES
)
TRIPPED = (ExceededLimit("paper", "records", 12_300, 10_000),)


def page(
    title: str | Message = "Shop",
    names: tuple[str, ...] = ("bo", "wang_li@example.com"),
    label: object = None,
    tripped: tuple[ExceededLimit, ...] = TRIPPED,
) -> RequiredAction:
    label = label or {"en": "Paper forms", "zh-CN": "纸质单据"}
    rules = {"paper": rule("t", name="paper", title=label), "label": rule("t", name="label")}
    return build_form(
        PLAN,
        title if isinstance(title, Message) else verbatim(title),
        rules,
        tripped,
        PlanPeople(("ana",), names),
        "Asia/Shanghai",
        "1:a",
    )


def test_approval_form_contains_numbers_of_records_and_limits_in_both_languages() -> None:
    form = page()
    assert form.assigned == ["bo", "wang_li@example.com"]
    assert "12,300" in form.subject
    chinese, english = form.body.split("### English")
    assert chinese.startswith("### 中文")
    for half, title in ((chinese, "纸质单据"), (english, "Paper forms")):
        row = next(line for line in half.splitlines() if title in line)
        assert row.startswith(f"| {title} | 12,350 | 7 | 3 | 40 | 12,300 | 0 | 0 | ")
        assert "10,000" in row
        assert PLAN.sha256 in half
        assert "label" not in half
        assert half.count("\n| ") == 3  # head, rule, one class
    assert "2026-03-02 00:00" in english
    assert r"Only bo, wang\_li@example.com may decide" in english


def test_approval_form_subject_has_the_escaped_database_title_of_each_language() -> None:
    title = translated_message({"en": "Shop <{b}>\u061c\x00", "zh-CN": "商店*"})
    english, chinese = sorted(page(title=title).subject.split(" / "))
    assert english.startswith(r"Shop ·{b}··u061c·u0000: ")
    assert chinese.startswith("商店·")


def test_approval_form_has_separate_columns_for_records_on_legal_hold_and_suspended_records() -> (
    None
):
    """A suspended record is not on legal hold, so each of the two figures has its own heading."""
    chinese, english = page().body.split("### English")
    assert "| On legal hold | Suspended | Referenced by other records |" in english
    assert "| 法律保全 | 暂缓 |" in chinese


def test_approval_form_states_why_records_are_suspended_as_the_certificate_does() -> None:
    reason = {"en": "a claim is open", "zh-CN": "有未结索赔"}
    suspended = {"where": "claim_open", "title": reason}
    paper = rule("t", name="paper", title={"en": "Paper", "zh-CN": "单据"}, suspended=suspended)
    for rules, english, chinese in (
        ({"paper": paper}, reason["en"], reason["zh-CN"]),
        ({"paper": rule("t", name="paper")}, "retention schedule suspends", "暂缓"),
    ):
        form = build_form(
            PLAN, verbatim("Shop"), rules, TRIPPED, PlanPeople((), ("bo",)), "UTC", "1:a"
        )
        first, second = form.body.split("### English")
        assert chinese in first.strip().splitlines()[-1]
        assert "3 records are suspended. Reason: " in second
        assert english in second.strip().splitlines()[-1]
        assert Translator("en").text(suspension_reason(rules["paper"])) in second


@pytest.mark.parametrize("recent", [0, 4_321])
@pytest.mark.parametrize("cause", ["records", "percent", "trend"])
def test_approval_form_contains_limit_and_number_of_recent_erasures_for_each_type_of_limit(
    cause: str, recent: int
) -> None:
    recent = 0 if cause == "trend" else recent
    tripped = ExceededLimit("paper", cause, 12_300, 777, recent)  # type: ignore[arg-type]  # the three causes
    assert page(tripped=(tripped,)).body.count("4,321") == (2 if recent else 0)
    assert page(tripped=(tripped,)).body.count("777") == 2


def test_approval_form_lists_ten_approvers_and_number_of_the_others(
    place_names: tuple[str, ...],
) -> None:
    form = page(names=place_names)
    assert len(form.assigned) == 30
    assert "and 20 more people may decide" in form.body
    assert "p10" not in form.body


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
def test_approval_form_escapes_markup_in_titles_and_names(hostile: dict[str, object]) -> None:
    form = page(**hostile)  # type: ignore[arg-type]  # one of page's own arguments
    text = f"{form.subject}\n{form.body}"
    for sign in ("](", "![", "<b>", "*e*", "\n# head", "\u202e"):
        assert sign not in text
    assert "\n" not in form.subject
    rows = [line for line in form.body.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in rows} == {10}
