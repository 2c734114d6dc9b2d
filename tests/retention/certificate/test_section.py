"""Tests of the certificate's sections: reasons why records are kept, approval, backups, charts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from include.approvals.reasons import COMMAND_LINE
from include.evidence.model import Outcome, RunContext
from include.policy.datamap import MappedCollection, MappedField
from include.policy.period import Period
from include.reports.html import render_html
from include.reports.i18n import Translator
from include.reports.model import BarChart, Report, TrendChart
from include.retention.certificate import database_run
from include.retention.certificate.database_run import PastRun
from include.retention.planning.plan import rule_digest
from tests.retention.certificate.certificate_records import (
    SHA256,
    certificate,
    english,
    execution_data,
    plan_data,
    planned_class,
    remaining_data,
    retention_rule,
    run_records,
    sentences,
    verification_data,
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
RULE_SHA256 = rule_digest(retention_rule(on_request=True))
# step records with everything that a certificate can show
FULL: dict[str, Any] = {
    "plan": plan_data(
        planned_class(
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
    "execute": execution_data({"order": 6}, refused={"order P0001": 1}, stopped="budget"),
    "verify": verification_data(
        {"order": 6},
        [remaining_data(held=5, referred=5)],
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
    ("results", "reasons"),
    [
        ({"not_approved": ["order"]}, ["the disposition plan was not approved | 4"]),
        (
            {"stopped": "budget"},
            ["the time limit of the run expired; the next run continues with these records | 4"],
        ),
        (
            {"stopped": "window"},
            ["the daily window for deletions ended; the next run continues with these records | 4"],
        ),
        (
            {"refused": {"order P0001": 1, "other 23503": 9}, "busy": {"order": 3}},
            [
                "the database refused the disposition (SQLSTATE P0001) | 1",
                "3 attempts failed, because other database sessions had locked records; the next "
                "run tries again | 3",
            ],
        ),
        (
            {"knots": {"order": 4}},
            [
                "the records refer to each other in a cycle that is too large for one "
                "transaction | 4"
            ],
        ),
        (
            {"refused": {"order P0001": 1}, "given_up": ["order"]},
            [
                "the database refused the disposition (SQLSTATE P0001) | 1",
                "not tried: the database had already refused too many records of this "
                "record class | 3",
            ],
        ),
        (
            {"refused": {"order kept": 4}},
            ["a database trigger prevented the disposition without an error | 4"],
        ),
        (
            {"refused": {"order 23503": 4}},
            ["the database refused the disposition (SQLSTATE 23503) | 4"],
        ),
        (
            {"locked": {"order": 3}, "busy": {"order": 3}},
            ["other database sessions had locked the records; the next run tries again | 4"],
        ),
        (
            {"waiting": {"order": 9}, "stopped": "budget"},
            [
                "the records became due for disposition after the plan was made; "
                "the next plan will contain them | 9",
                "the time limit of the run expired; the next run continues with these records | 4",
            ],
        ),
        (
            {},
            ["not processed for an unknown reason: no change and no legal hold was found | 4"],
        ),
        (
            {"staying": {"order": {"held": 1, "not_due": 2, "due": 1}}},
            [
                "a legal hold was placed on the records after the plan was made | 1",
                "the records were changed or deleted after the plan was made | 2",
                "not processed for an unknown reason: no change and no legal hold was found | 1",
            ],
        ),
        (
            {"staying": {"order": {"suspended": 1, "kept_longer": 1, "kept_by_reference": 2}}},
            [
                "after the plan was made, a condition of the record class suspended the "
                "disposition | 1",
                "another record class required a longer retention of the same records after the "
                "plan was made | 1",
                "referenced by other records that were not disposed of | 2",
            ],
        ),
    ],
)
def test_database_section_gives_reason_for_each_planned_record_that_remains(
    results: Any, reasons: list[str]
) -> None:
    """Records that the database refused to change are listed before the other records."""
    conclusion = certificate(
        run_records(
            execute=execution_data({"order": 6}, **results),
            verify=verification_data({"order": 6}, [remaining_data()]),
        )
    )
    assert [
        sentence
        for sentence in sentences(conclusion)
        if "All orders | " in sentence and sentence.count("|") == 2
    ] == [f"All orders | {reason}" for reason in reasons]
    (fact,) = [
        fact
        for fact in conclusion.facts
        if fact.label.text == "Records planned but not disposed of"
    ]
    assert (fact.value, fact.status) == (4, Outcome.ATTENTION)


def test_reason_for_remaining_record_is_reference_from_record_whose_deletion_was_not_approved() -> (
    None
):
    left = remaining_data(referred=4)
    results = execution_data({"order": 6}, not_approved=["proof"])
    conclusion = certificate(
        run_records(execute=results, verify=verification_data({"order": 6}, [left]))
    )
    assert "All orders | referenced by other records that were not disposed of | 4" in sentences(
        conclusion
    )


def test_database_section_contains_legal_holds_and_references_that_keep_records() -> None:
    lines = sentences(certificate(run_records(**FULL)))
    assert "3 | data subject | claim pending | legal | 2027-06-01 | All orders | 2" in lines
    for reason in (
        "a condition of the retention schedule suspends the disposition | 3",
        "another record class requires a longer retention of the same records | 4",
        "the table public.claim, which is not in the data map, refers to the records | 5",
        "the start of the retention period is in the future: verify the date | 1",
    ):
        assert f"All orders | {reason}" in lines


def test_reason_for_remaining_records_contains_foreign_key_name_if_a_table_has_two() -> None:
    by = {"table": "public.waybill", "collection": "waybill", "records": 1}
    keys = [by | {"constraint": "sender"}, by | {"constraint": "receiver"}]
    lines = sentences(certificate(run_records(plan=plan_data(planned_class(referred_by=keys)))))
    assert "All orders | referenced by records of public.waybill (foreign key sender) | 1" in lines
    assert (
        "All orders | referenced by records of public.waybill (foreign key receiver) | 1" in lines
    )


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
            "approved | decision entered on the command line in the name of bo | "
            "2026-11-26 02:30 UTC+08:00 | "
            f"{COMMAND_LINE} as every year",
            "decision entered on the command line in the name of bo",
        ),
        (
            ANSWER | {"decision": "Reject", "reason": "too many"},
            "rejected | bo | 2026-11-26 02:30 UTC+08:00 | too many",
            "not approved",
        ),
        (
            ANSWER | {"decision": "Approve", "refused": "own_request"},
            "invalid decision | bo | 2026-11-26 02:30 UTC+08:00 | —",
            "not approved",
        ),
        (
            ANSWER | {"decided_by": "", "decision": "", "refused": "nobody"},
            "none | — | 2026-11-26 02:30 UTC+08:00 | —",
            "not approved",
        ),
        ({"asked": True}, "none | — | — | —", "not approved"),
        (None, "none | — | — | —", "not approved"),
    ],
)
def test_database_section_shows_approver_decision_and_plan_hash(
    answer: Any, row: str, approver: str
) -> None:
    lines = sentences(
        certificate(run_records(plan=plan_data(planned_class(), **ASKED), approve=answer))
    )
    assert f"Approval of the disposition plan with the SHA-256 {SHA256}" in lines
    assert f"2026-11-26 02:00 UTC+08:00 | ana | {row}" in lines
    assert "All orders | 10 | more than 5 records in one run" in lines
    assert f"Approved by | {approver}" in lines


def test_database_section_omits_retention_schedule_if_policy_pack_changed() -> None:
    printed = "Applied retention schedule"
    assert printed in sentences(certificate(run_records()))
    for rules in ([retention_rule(period="P1Y")], [], [retention_rule(), retention_rule("parcel")]):
        lines = sentences(certificate(run_records(), rules={"shop": rules}))
        assert printed not in lines
        assert [line for line in lines if line.startswith("The retention schedule changed after")]


def test_database_section_shows_no_approval_if_plan_is_within_limits() -> None:
    lines = sentences(certificate(run_records()))
    assert "No record class exceeded its limit, so the plan required no approval." in lines
    assert "Approved by | no approval required" in lines
    lines = sentences(certificate(run_records(plan=plan_data(planned_class(), tripped=TRIPPED))))
    assert "The approval was not requested, because no person is entitled to approve." in lines


def test_certificate_contains_sha256sum_command_with_hash_of_the_plan() -> None:
    assert f"echo '{SHA256}  plan-shop.json' | sha256sum --check" in sentences(
        certificate(run_records())
    )


@pytest.mark.parametrize(
    ("copies", "said"),
    [
        (None, "The off-site store could not be read, so this report cannot state which backups"),
        ([], "No restore point contains records that were deleted from this database."),
        (FULL["verify"]["copies"], "20261001T180000Z-60b3d7 | 2026-10-02 02:00 UTC+08:00 | "),
    ],
)
def test_database_section_lists_backups_with_deleted_records_or_states_why_it_lists_none(
    copies: Any, said: str
) -> None:
    conclusion = certificate(
        run_records(verify=verification_data({"order": 10}, [remaining_data()], copies=copies))
    )
    assert any(sentence.startswith(said) for sentence in sentences(conclusion))


def test_charts_of_certificate_show_numbers_of_erased_and_expired_records() -> None:
    moment = datetime(2026, 11, 25, tzinfo=UTC)
    conclusion = certificate(run_records(), trend=(PastRun(moment, 10), PastRun(moment, None)))
    blocks = [each for section in conclusion.sections for each in section.blocks]
    (bars,) = [block for block in blocks if isinstance(block, BarChart)]
    assert [(bar.value, bar.status) for bar in bars.bars] == [(10, None), (10, Outcome.PASS)]
    (trend,) = [block for block in blocks if isinstance(block, TrendChart)]
    assert [point.value for point in trend.points] == [10, None]


@pytest.mark.parametrize(
    ("results", "text"),
    [
        ({}, "3 years after created_at"),
        ({"period": "P0D"}, "until created_at"),
        ({"period": "P1Y1M1D"}, "1 year, 1 month, 1 day after created_at"),
        ({"period": "PT36H", "clock": ["a", "b"]}, "36 h after the latest of a, b"),
        (
            {"period": "P90D", "clock": {"sql": "t.x"}},
            "90 days after the date that the retention schedule defines for this record class",
        ),
        (
            {"minimum": [{"period": "P6M", "basis": SOURCE}]},
            "3 years after created_at; at least 6 months under "
            "Civil Code (2021-01-01), article 188",
        ),
        (
            {"minimum": [{"period": "P2Y", "clock": "paid_at", "basis": SOURCE}]},
            "3 years after created_at; at least 2 years after paid_at under "
            "Civil Code (2021-01-01), article 188",
        ),
    ],
)
def test_retention_text_contains_period_and_its_start_and_legal_minimum(
    results: dict[str, Any], text: str
) -> None:
    assert english(database_run.retention_text(retention_rule(**results), None)) == text


def test_retention_and_disposition_texts_contain_field_titles_instead_of_column_names() -> None:
    title = {"en": "the order", "zh-CN": "下单之日"}
    created_at = MappedField(name="created_at", titles=title)
    orders = MappedCollection(
        name="orders", schema_name="public", table="orders", fields={"created_at": created_at}
    )
    rule = retention_rule()
    assert english(database_run.retention_text(rule, orders)) == "3 years after the order"
    sql_clock = retention_rule(clock={"sql": "t.x", "title": title})
    assert english(database_run.retention_text(sql_clock, None)) == "3 years after the order"
    mask = retention_rule(action="mask", mask={"created_at": "erase", "other": "erase"})
    text = database_run.disposition_text(mask, orders)
    assert english(text) == "masked by GB/T 41833-2022: the order, other"


def test_retention_text_in_chinese_has_no_plural() -> None:
    assert (
        Translator("zh_CN").text(database_run.retention_text(retention_rule(), None))
        == "3 年（起算：created_at）"
    )
    assert Translator("zh_CN").text(database_run.period_text(Period.parse("P1M"))) == "1 个月"


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_full_certificate_contains_all_values_in_both_languages_and_no_untranslated_text(
    language: str,
) -> None:
    """All cells are filled, and the Chinese report contains no English sentence."""
    conclusion = certificate(run_records(**FULL), rules={"shop": [retention_rule(on_request=True)]})
    page = render_html(
        Report(
            title=conclusion.title,
            summary=conclusion.summary,
            run=RunContext(
                dag_id="enforce_retention",
                run_id="manual__1",
                started_at=datetime(2026, 11, 25, tzinfo=UTC),
                code_version="1",
                policy_hash=SHA256,
                policy_name="shop",
                clock_source="a clock",
            ),
            outcome=conclusion.outcome,
            finished_at=datetime(2026, 11, 25, 20, tzinfo=UTC),
            facts=conclusion.facts,
            sections=conclusion.sections,
            findings=conclusion.findings,
        ),
        language,
    )
    for whole in (SHA256, RULE_SHA256, "20261001T180000Z-60b3d7", "claim pending", "R-2026-9"):
        assert whole in page
    assert "{" not in page.split("</style>")[1].split("<svg")[0]
    if language == "zh_CN":
        in_both_languages = set(sentences(conclusion)) & set(sentences(conclusion, language))
        assert {
            each
            for each in in_both_languages
            if " " in each and "sha256sum" not in each and RULE_SHA256 not in each
        } == set()


DIGESTS = {  # of the version before clocks had titles
    "clock": "ba62918630d1715385c7f26badf97ce111c4ec5d9e7798d959c03d2096267a65",
    "minimum": "202480c4ffe9e9002178c1e69ad5b9ec34d3b22aad1d239a3895eceeb65a0bd0",
}


@pytest.mark.parametrize("key", ["clock", "minimum"])
def test_title_of_sql_clock_does_not_change_the_digest_of_the_record_class(key: str) -> None:
    """Plans and ledger entries of earlier versions contain the digest."""

    def digest(**title: Any) -> str:
        clock = {"sql": "t.x", **title}
        minimum = [{"period": "P6M", "clock": clock, "basis": SOURCE}]
        return rule_digest(retention_rule(**{key: clock if key == "clock" else minimum}))

    assert digest(title={"en": "the order", "zh-CN": "下单之日"}) == digest()
    assert digest() == DIGESTS[key]
