"""The certificate's sections: why records stay, who decided, which backups still hold them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from include.approvals.reasons import COMMAND_LINE
from include.evidence.model import Outcome, RunContext
from include.policy.period import Period
from include.reports.html import render_html
from include.reports.i18n import Translator
from include.reports.model import BarChart, Report, TrendChart
from include.retention.certificate import case
from include.retention.certificate.case import Past
from include.retention.planning.plan import rule_digest
from tests.retention.certificate.certified import (
    SHA256,
    a_class,
    a_rule,
    a_run,
    certificate,
    counted,
    english,
    executed,
    one_left,
    planned,
    sentences,
)

SOURCE = {"instrument": "Civil Code", "version": "2021-01-01", "article": "188"}
TRIPPED = [{"name": "order", "cause": "records", "planned": 10, "allowed": 5}]
ASKED = {
    "tripped": TRIPPED,
    "request": 4,
    "asked_at": "2026-11-25T18:00:00+00:00",
    "asked_for": ["ana"],
}
ANSWER = {"asked": True, "decided_by": "bo", "decided_at": "2026-11-25T18:30:00+00:00"}
HOLD = {
    "hold": 3,
    "kind": "subject",
    "reason": "claim pending",
    "owner": "legal",
    "case": "C-1",
    "review_on": "2027-06-01",
}
REQUEST = {
    "request": 1,
    "reference": "R-2026-9",
    "received_on": "2026-11-20",
    "due_on": "2026-12-20",
    "left": 2,
    "unexplained": 0,
    "state": "restricted",
}
RULE_SHA256 = rule_digest(a_rule(on_request=True))
# everything that a certificate can show, at once
FULL: dict[str, Any] = {
    "plan": planned(
        a_class(
            expired=40,
            held=2,
            suspended=3,
            kept_longer=4,
            kept_by_reference=5,
            ahead=1,
            rule_sha256=RULE_SHA256,
            held_by=[{"hold": 3, "records": 2}],
            referred_by=[
                {"table": "public.claim", "collection": None, "constraint": "c", "records": 5}
            ],
        ),
        holds=[HOLD],
        holds_that_counted=1,
        **ASKED,
    ),
    "approve": ANSWER | {"decision": "Approve", "reason": "as every year"},
    "execute": executed({"order": 6}, refused={"order P0001": 1}, stopped="budget"),
    "verify": counted(
        {"order": 6},
        [one_left(held=5, referred=5)],
        requests=[REQUEST],
        requests_open=1,
        copies=[
            {
                "id": "20261001T180000Z-60b3d7",
                "taken_at": "2026-10-01T18:00:00+00:00",
                "expires_at": "2026-12-30T18:00:00+00:00",
                "held": True,
            }
        ],
    ),
}


@pytest.mark.parametrize(
    ("given", "reasons"),
    [
        ({"not_approved": ["order"]}, ["nobody approved | 4"]),
        ({"stopped": "budget"}, ["the run's time was used up; the next run goes on | 4"]),
        ({"stopped": "window"}, ["the time of day for deletions ended; the next run goes on | 4"]),
        (
            {"refused": {"order P0001": 1, "other 23503": 9}, "busy": {"order": 3}},
            [
                "the database refused them (SQLSTATE P0001) | 1",
                "other sessions held locks, 3 times; the next run tries again | 3",
            ],
        ),
        (
            {"knots": {"order": 4}},
            ["they refer to each other in a circle that one transaction cannot delete | 4"],
        ),
        (
            {"refused": {"order P0001": 1}, "given_up": ["order"]},
            [
                "the database refused them (SQLSTATE P0001) | 1",
                "not tried any more: the database had refused too many of the class | 3",
            ],
        ),
        (
            {"refused": {"order kept": 4}},
            ["a trigger of the database kept them and raised no error | 4"],
        ),
        ({"refused": {"order 23503": 4}}, ["the database refused them (SQLSTATE 23503) | 4"]),
        (
            {"locked": {"order": 3}, "busy": {"order": 3}},
            ["other sessions kept them locked; the next run tries again | 4"],
        ),
        (
            {"waiting": {"order": 9}, "stopped": "budget"},
            [
                "they came after the plan was made, and wait for the next | 9",
                "the run's time was used up; the next run goes on | 4",
            ],
        ),
        ({}, ["the run did not reach them; no change and no legal hold was found | 4"]),
        (
            {"staying": {"order": {"held": 1, "not_due": 2, "due": 1}}},
            [
                "a legal hold was placed on them after the plan was made | 1",
                "they were changed or deleted after the plan was made | 2",
                "the run did not reach them; no change and no legal hold was found | 1",
            ],
        ),
        (
            {"staying": {"order": {"suspended": 1, "kept_longer": 1, "kept_by_reference": 2}}},
            [
                "since the plan was made, a condition of the record class keeps them | 1",
                "since the plan was made, another class of the same records keeps them | 1",
                "records that were not erased refer to them | 2",
            ],
        ),
    ],
)
def test_what_was_planned_and_is_there_has_a_reason(given: Any, reasons: list[str]) -> None:
    """Records that the database refused, and the weightiest reason for the others."""
    found = certificate(
        a_run(execute=executed({"order": 6}, **given), verify=counted({"order": 6}, [one_left()]))
    )
    assert [one for one in sentences(found) if "All orders | " in one and one.count("|") == 2] == [
        f"All orders | {one}" for one in reasons
    ]
    (fact,) = [one for one in found.facts if one.label.text == "Planned and not reached"]
    assert (fact.value, fact.status) == (4, Outcome.ATTENTION)


def test_what_others_refer_to_that_were_not_approved_is_not_told_as_changed() -> None:
    """Nobody changed it, and no hold was placed: what refers to it was to go first."""
    left = one_left(referred=4)
    given = executed({"order": 6}, not_approved=["proof"])
    found = certificate(a_run(execute=given, verify=counted({"order": 6}, [left])))
    assert "All orders | records that were not erased refer to them | 4" in sentences(found)


def test_what_stays_is_told_with_its_hold_and_its_reference() -> None:
    """The hold by number, reason, owner and review date; the table, and that it is unmapped."""
    lines = sentences(certificate(a_run(**FULL)))
    assert "3 | a person | claim pending | legal | 2027-06-01 | All orders | 2" in lines
    for reason in (
        "a condition of retention.yaml keeps them | 3",
        "another class of the same records keeps them longer | 4",
        "public.claim, which the data map lacks, refers to them | 5",
        "their clock lies in the future: see that it is right | 1",
    ):
        assert f"All orders | {reason}" in lines


def test_two_keys_of_one_table_are_told_apart() -> None:
    """By their constraints; one record may be kept by both."""
    by = {"table": "public.waybill", "collection": "waybill", "records": 1}
    keys = [by | {"constraint": "sender"}, by | {"constraint": "receiver"}]
    lines = sentences(certificate(a_run(plan=planned(a_class(referred_by=keys)))))
    assert "All orders | records of public.waybill refer to them (sender) | 1" in lines
    assert "All orders | records of public.waybill refer to them (receiver) | 1" in lines


@pytest.mark.parametrize(
    ("answer", "row", "approver"),
    [
        (
            ANSWER | {"decision": "Approve", "reason": "as every year"},
            "approved | bo | 2026-11-26 02:30 UTC+08:00 | as every year",
            "bo",
        ),
        (
            ANSWER | {"decision": "Approve", "reason": f"{COMMAND_LINE} as every year"},
            "approved | answered for bo on the command line | 2026-11-26 02:30 UTC+08:00 | "
            f"{COMMAND_LINE} as every year",
            "answered for bo on the command line",
        ),
        (
            ANSWER | {"decision": "Reject", "reason": "too many"},
            "rejected | bo | 2026-11-26 02:30 UTC+08:00 | too many",
            "nobody",
        ),
        (
            ANSWER | {"decision": "Approve", "refused": "own_request"},
            "an answer that does not count | bo | 2026-11-26 02:30 UTC+08:00 | —",
            "nobody",
        ),
        (
            ANSWER | {"decided_by": "", "decision": "", "refused": "nobody"},
            "none | — | 2026-11-26 02:30 UTC+08:00 | —",
            "nobody",
        ),
        ({"asked": True}, "none | — | — | —", "nobody"),
        (None, "none | — | — | —", "nobody"),
    ],
)
def test_the_approval_says_who_decided_what_and_on_which_plan(
    answer: Any, row: str, approver: str
) -> None:
    """Somebody else's approval of this plan; silence and what does not count are none."""
    lines = sentences(certificate(a_run(plan=planned(a_class(), **ASKED), approve=answer)))
    assert f"The approval, bound to the plan with the SHA-256 {SHA256}" in lines
    assert f"2026-11-26 02:00 UTC+08:00 | ana | {row}" in lines
    assert "All orders | 10 | more than 5 records in one run" in lines
    assert f"Approved by | {approver}" in lines


def test_the_schedule_is_printed_only_as_it_was_planned() -> None:
    """A rule that changed, came or went since is not called the one that was applied."""
    printed = "The schedule that was applied (retention.yaml)"
    assert printed in sentences(certificate(a_run()))
    for rules in ([a_rule(period="P1Y")], [], [a_rule(), a_rule("parcel")]):
        lines = sentences(certificate(a_run(), rules={"shop": rules}))
        assert printed not in lines
        assert [one for one in lines if one.startswith("retention.yaml changed after the plan")]


def test_a_plan_within_its_limits_needs_nobody() -> None:
    """And one that nobody may approve says that."""
    lines = sentences(certificate(a_run()))
    assert "No record class was beyond its limits: the plan needed no second person." in lines
    assert "Approved by | nobody had to" in lines
    lines = sentences(certificate(a_run(plan=planned(a_class(), tripped=TRIPPED))))
    assert "Nobody was asked, since nobody may approve." in lines


def test_the_plan_file_can_be_checked_by_hand() -> None:
    """With a line for the shell, in the bundle's folder."""
    assert f"echo '{SHA256}  plan-shop.json' | sha256sum --check" in sentences(certificate(a_run()))


@pytest.mark.parametrize(
    ("copies", "said"),
    [
        (None, "The off-site store could not be read: nobody can say here which backups"),
        ([], "No restore point is left that holds what was erased from this database."),
        (FULL["verify"]["copies"], "20261001T180000Z-60b3d7 | 2026-10-02 02:00 UTC+08:00 | "),
    ],
)
def test_backups_are_listed_or_said_to_be_none_or_unknown(copies: Any, said: str) -> None:
    """Three different things."""
    found = certificate(a_run(verify=counted({"order": 10}, [one_left()], copies=copies)))
    assert any(one.startswith(said) for one in sentences(found))


def test_charts_set_what_was_erased_against_what_was_over() -> None:
    """By class, the largest first; and over the last runs, with gaps."""
    moment = datetime(2026, 11, 25, tzinfo=UTC)
    found = certificate(a_run(), trend=(Past(moment, 10), Past(moment, None)))
    blocks = [one for section in found.sections for one in section.blocks]
    (bars,) = [one for one in blocks if isinstance(one, BarChart)]
    assert [(one.value, one.status) for one in bars.bars] == [(10, None), (10, Outcome.PASS)]
    (trend,) = [one for one in blocks if isinstance(one, TrendChart)]
    assert [one.value for one in trend.points] == [10, None]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "3 years after created_at"),
        ({"period": "P0D"}, "until created_at"),
        ({"period": "P1Y1M1D"}, "1 year, 1 month, 1 day after created_at"),
        ({"period": "PT36H", "clock": ["a", "b"]}, "36 h after the latest of a, b"),
        (
            {"period": "P90D", "clock": {"sql": "t.x"}},
            "90 days after the moment that retention.yaml computes",
        ),
        (
            {"minimum": [{"period": "P6M", "basis": SOURCE}]},
            "3 years after created_at; at least 6 months by Civil Code (2021-01-01) 188",
        ),
        (
            {"minimum": [{"period": "P2Y", "clock": "paid_at", "basis": SOURCE}]},
            "3 years after created_at; at least 2 years after paid_at by "
            "Civil Code (2021-01-01) 188",
        ),
    ],
)
def test_periods_are_told_in_words(given: dict[str, Any], text: str) -> None:
    """Of the calendar, with their clock and what a law asks at least."""
    assert english(case.kept(a_rule(**given))) == text


def test_periods_in_chinese_have_no_plural() -> None:
    """And the clock comes first."""
    assert Translator("zh_CN").text(case.kept(a_rule())) == "自 created_at 起 3 年"
    assert Translator("zh_CN").text(case.length(Period.parse("P1M"))) == "1 个月"


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_a_full_certificate_renders_whole(language: str) -> None:
    """Each cell as it is, hashes too; in Chinese no sentence stays English."""
    found = certificate(a_run(**FULL), rules={"shop": [a_rule(on_request=True)]})
    page = render_html(
        Report(
            title=found.title,
            summary=found.summary,
            run=RunContext(
                dag_id="enforce_retention",
                run_id="manual__1",
                started_at=datetime(2026, 11, 25, tzinfo=UTC),
                code_version="1",
                policy_hash=SHA256,
                policy_name="shop",
                clock_source="a clock",
            ),
            outcome=found.outcome,
            finished_at=datetime(2026, 11, 25, 20, tzinfo=UTC),
            facts=found.facts,
            sections=found.sections,
            findings=found.findings,
        ),
        language,
    )
    for whole in (SHA256, RULE_SHA256, "20261001T180000Z-60b3d7", "claim pending", "R-2026-9"):
        assert whole in page
    assert "{" not in page.split("</style>")[1].split("<svg")[0]
    if language == "zh_CN":
        both = set(sentences(found)) & set(sentences(found, language))
        assert {
            one for one in both if " " in one and "sha256sum" not in one and RULE_SHA256 not in one
        } == set()
