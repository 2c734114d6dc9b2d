"""Tests of the kind that the comparison finds for an access, for each way to differ."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from include.evidence.model import Outcome
from tests.disclosure.accesses.access_fixtures import NOON, AccessCompany

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
START = NOON - DAY
CASES: list[tuple[str, dict[str, Any], dict[str, Any], set[tuple[str, str]]]] = [
    ("covered", {}, {}, set()),
    ("at_start", {"at": START}, {}, set()),
    ("at_end", {"at": START + 7 * DAY}, {}, set()),
    ("fields_not_logged", {"fields": None}, {}, set()),
    ("all_fields_approved", {"fields": ["religion"]}, {"fields": None}, set()),
    ("approved_record", {}, {"subjects": [6, 7]}, set()),
    ("withdrawn_later", {}, {"withdrawn_at": NOON}, set()),
    ("none_named", {"approval": None}, {}, {("without_approval", "none_named")}),
    ("not_found", {"approval": 11}, {}, {("without_approval", "not_found")}),
    ("other_person", {"person": "N2"}, {}, {("without_approval", "other_person")}),
    ("person_unknown", {"person": None}, {}, {("without_approval", "person_unknown")}),
    ("not_approved", {}, {"approver": None}, {("without_approval", "not_approved")}),
    ("by_requester", {}, {"approver": "N1"}, {("approval_by_requester", "by_requester")}),
    ("before", {"at": START - HOUR}, {}, {("outside_period", "before")}),
    ("after", {"at": START + 7 * DAY + HOUR}, {}, {("outside_period", "after")}),
    ("no_moment", {"at": None}, {}, {("outside_period", "no_moment")}),
    ("no_start", {}, {"starts": None}, {("outside_period", "before")}),
    ("no_end", {}, {"ends": None}, {("outside_period", "after")}),
    ("entered_later", {}, {"entered_at": NOON}, {("outside_period", "before")}),
    ("never_entered", {}, {"entered_at": None}, {("outside_period", "before")}),
    ("withdrawn_before", {}, {"withdrawn_at": NOON - 2 * HOUR}, {("outside_period", "withdrawn")}),
    ("withdrawn_then", {}, {"withdrawn_at": NOON - HOUR}, {("outside_period", "withdrawn")}),
    ("other_purpose", {"purpose": "marketing"}, {}, {("outside_purpose", "other_purpose")}),
    ("no_purpose", {"purpose": None}, {}, {("outside_purpose", "not_stated")}),
    ("purpose_not_approved", {}, {"purpose": None}, {("outside_purpose", "other_purpose")}),
    ("other_fields", {"fields": ["name", "religion"]}, {},
     {("outside_fields", "other_fields")}),
    ("null_field", {"fields": ["name", None]}, {}, {("outside_fields", "other_fields")}),
    ("other_record", {}, {"subjects": [6]}, {("outside_records", "other_record")}),
    ("no_record", {"subject": None}, {"subjects": [6]}, {("outside_records", "other_record")}),
    ("two_kinds", {"purpose": "private", "at": START + 8 * DAY}, {"approver": "N1"},
     {("approval_by_requester", "by_requester"), ("outside_period", "after"),
      ("outside_purpose", "other_purpose")}),
    ("kinds_of_other_person", {"person": "N2", "purpose": "private"}, {"approver": "N1"},
     {("without_approval", "other_person")}),
]  # fmt: skip


@pytest.mark.parametrize(("access", "approval", "expected"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])  # fmt: skip
def test_compare_finds_kind_and_detail_of_each_difference(
    company: AccessCompany,
    access: dict[str, Any],
    approval: dict[str, Any],
    expected: set[tuple[str, str]],
):
    company.add_approval(**approval)
    company.add_access(**access)
    comparison = company.compare()
    assert {(row.kind, row.detail) for row in company.entries()} == expected
    assert {count.kind: count.open for count in comparison.kinds if count.open} == {
        kind: 1 for kind, _detail in expected
    }


@pytest.mark.parametrize(
    ("access", "without", "outside"),
    [
        ({}, 0, 0),
        ({"approval": None}, 1, 0),
        ({"at": NOON - 9 * DAY}, 1, 0),
        ({"purpose": "private"}, 0, 1),
        ({"purpose": "private", "at": NOON - 9 * DAY}, 1, 1),
        ({"fields": ["religion"]}, 0, 0),
    ],
)
def test_compare_measures_figures_of_both_controls(
    company: AccessCompany, access: dict[str, Any], without: int, outside: int
):
    company.add_approval()
    company.add_access(**access)
    metrics = {metric.name: metric.value for metric in company.record().metrics}
    assert metrics["accesses_without_approval"] == without
    assert metrics["accesses_outside_purpose"] == outside
    assert metrics["use.accesses_compared"] == 1


def test_access_under_own_and_expired_approval_counts_once_without_live_approval(
    company: AccessCompany,
):
    company.add_approval(approver="N1", ends=NOON - 2 * HOUR)
    company.add_access()
    assert company.compare().without_live_approval == 1
    assert len(company.entries()) == 2


def test_compare_reports_one_finding_per_kind_with_its_count_and_clause(company: AccessCompany):
    company.add_approval()
    company.add_approval(11, approver="N1")
    company.add_access(1, approval=None)
    company.add_access(2, approval=12)
    company.add_access(3, approval=11)
    company.add_access(4, at=NOON - 3 * DAY)
    company.add_access(5, purpose="private")
    company.add_access(6, fields=["religion"])
    record = company.record()
    assert record.outcome is Outcome.FAIL
    assert {
        finding.code: (finding.message.values["count"], finding.clause)
        for finding in record.findings
    } == {
        "use.access_without_approval": (2, "5.3"),
        "use.approval_by_requester": (1, "5.3"),
        "use.access_outside_period": (1, "5.3"),
        "use.access_outside_purpose": (1, "4.3"),
        "use.access_outside_fields": (1, "5.3"),
    }


def test_approval_with_repeated_key_covers_no_access(company: AccessCompany):
    company.add_approval()
    company.add_approval()
    company.add_access()
    record = company.record()
    assert [(row.kind, row.detail) for row in company.entries()] == [
        ("without_approval", "not_unique")
    ]
    assert "use.approval_not_unique" in {finding.code for finding in record.findings}


def test_access_that_log_returns_twice_has_one_entry_per_kind(company: AccessCompany):
    company.add_approval()
    company.add_access()
    company.add_access(purpose="private")
    company.add_access(purpose="marketing")
    assert company.compare().accesses == 3
    assert company.violations() == {("1", "outside_purpose")}


def test_violation_without_access_key_is_reported_and_not_registered(company: AccessCompany):
    company.add_access(None)
    record = company.record()
    assert company.entries() == []
    assert "use.access_without_key" in {finding.code for finding in record.findings}
    company.add_access(2, at=NOON)
    company.add_approval()
    again = company.record()
    assert "use.access_without_key" in {finding.code for finding in again.findings}


def test_register_and_result_contain_no_key_of_a_customer(company: AccessCompany):
    company.add_access(subject=987654321)
    record = company.record()
    assert "987654321" not in record.model_dump_json()
    assert "987654321" not in str(company.entries())
