"""The rules of quality/*.yaml and purposes.yaml, and the checks made from purposes."""

# ruff: noqa: E501 - a fault is easier to read in a single line

from __future__ import annotations

from pathlib import Path

import pytest

from include.registry import load_pack
from tests.policy.packs import SHOP, problem_lines, write_pack

SUITE = """\
- collection: buyer
  expectations:
    - {id: phone, type: expect_column_values_to_be_mobile_numbers, kwargs: {column: phone}, severity: fail, clause: "5.1", title: {en: a, zh-CN: b}}
"""
PURPOSES = """\
- id: delivery
  title: {en: Delivery, zh-CN: 寄递}
  basis: contract
  fields: {shop: {buyer: [id]}}
"""
FAULTY = """\
- collection: buyer
  expectations:
    - {id: a, type: expect_nothing, kwargs: {column: phone}, severity: fail, clause: "5.1", title: {en: a, zh-CN: b}}
    - {id: b, type: expect_column_values_to_not_be_null, kwargs: {column: fone}, severity: fail, clause: "5.1", title: {en: a, zh-CN: b}}
    - {id: b, type: expect_column_values_to_not_be_null, kwargs: {column: phone}, severity: bad, clause: "5.1", title: {en: a, zh-CN: b}}
    - {id: c, type: expect_column_values_to_be_between, kwargs: {column: id, min_value: 5, max_value: 1}, severity: warn, clause: "5.1", title: {en: a}}
    - {id: d, type: expect_column_values_to_not_be_null, kwargs: {column: phone, mostly: 1.5}, severity: warn, clause: "5.1", title: {en: a, zh-CN: b}}
- collection: seller
  expectations: []
"""


def test_load_pack_reports_all_faults_of_expectation_suites_and_purposes(tmp_path: Path) -> None:
    """Invalid values and unknown names are all reported, even in the same expectation."""
    pack = write_pack(
        tmp_path, quality__shop=FAULTY, purposes=PURPOSES.replace("[id]", "[id, age]")
    )
    lines = problem_lines(pack)
    assert [line.split(": ")[0] for line in lines] == [
        "purposes.yaml:4",
        *(f"quality/shop.yaml:{line}" for line in (3, 4, 5, 5, 6, 6, 7, 8, 9)),
    ]
    assert len(lines) == 10


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ("{column: seen}", "collection 'buyer' has no field 'seen'"),
        ("{column: seen_at, late_arrivals: 2h}", "should be an ISO 8601 duration"),
        ("{column: seen_at, late_arrivals: P0D}", "should be an ISO 8601 duration"),
        ("{column: seen_at, late_arrivals: 0}", "should be an ISO 8601 duration"),
        ("{late_arrivals: PT2H}", "is required"),
    ],
)
def test_load_pack_reports_faults_in_the_change_column_of_an_expectation_suite(
    tmp_path: Path, changed: str, problem: str
) -> None:
    """The column must be mapped, and `late_arrivals` must be a period or a number above 0."""
    wrong = SUITE.replace("  expectations:", f"  changed: {changed}\n  expectations:")
    (line,) = problem_lines(write_pack(tmp_path, quality__shop=wrong))
    assert problem in line


@pytest.mark.parametrize("margin", ["", ", late_arrivals: P1DT2H", ", late_arrivals: 500"])
def test_margin_for_late_arrivals_of_change_column_is_two_hours_by_default(
    tmp_path: Path, margin: str
) -> None:
    """If several suites have the same collection, one of them may state the change column for all."""
    changed = f"  changed: {{column: seen_at{margin}}}\n  expectations:"
    other = SUITE.replace("id: phone", "id: again")
    pack = load_pack(
        write_pack(tmp_path, quality__a=SUITE, quality__b=other.replace("  expectations:", changed))
    )
    (suite,) = pack.suites
    assert suite.changed
    assert str(suite.changed.late_arrivals) == (margin.rpartition(" ")[2] or "PT2H")


def test_load_pack_adds_expectation_that_a_personal_field_without_purpose_is_empty(
    tmp_path: Path,
) -> None:
    pack = load_pack(write_pack(tmp_path, quality__shop=SUITE, purposes=PURPOSES))
    (suite,) = pack.suites_of("shop")
    assert [expectation.id for expectation in suite.expectations] == [
        "phone",
        "over_collected_phone",
    ]


def test_title_of_over_collection_expectation_contains_the_field_title(tmp_path: Path) -> None:
    titles = "{collections: {buyer: {field_titles: {phone: {en: mobile number, zh-CN: 手机号码}}}}}"
    shop = f"{SHOP}meta: {{parcelseal: {titles}}}\n"
    pack = load_pack(
        write_pack(tmp_path, datamap__shop=shop, quality__shop=SUITE, purposes=PURPOSES)
    )
    (suite,) = pack.suites_of("shop")
    assert suite.expectations[-1].title == {
        "en": "The field mobile number, which no purpose needs, is empty",
        "zh-CN": "手机号码并非任何处理目的所必需，该项应为空",
    }


def test_pack_without_purposes_has_only_the_expectations_of_its_suites(tmp_path: Path) -> None:
    pack = load_pack(write_pack(tmp_path, quality__shop=SUITE))
    assert [expectation.id for expectation in pack.suites[0].expectations] == ["phone"]


def test_load_pack_merges_expectation_suites_of_the_same_collection_from_two_files(
    tmp_path: Path,
) -> None:
    """Each collection is scanned once, even if several files have suites for it."""
    other = SUITE.replace("id: phone", "id: again")
    pack = load_pack(write_pack(tmp_path, quality__a=SUITE, quality__b=other))
    (suite,) = pack.suites
    assert [expectation.id for expectation in suite.expectations] == ["phone", "again"]


@pytest.mark.parametrize(
    ("kind", "kwargs", "time"),
    [
        ("expect_records_to_satisfy", "condition: 'seen_at < :now'", True),
        ("expect_records_to_satisfy", "condition: 'seen_at < :now', scope: changed", False),
        ("expect_records_to_satisfy", "condition: 'id > 0', where: 'seen_at < :now'", True),
        ("expect_records_to_satisfy", "condition: 'id::now > 0'", False),  # a cast
        ("expect_records_to_satisfy", "condition: 'id > 0', scope: all", False),
        (
            "expect_related_records",
            "collection: buyer, field: id, key: id, condition: 'other.seen_at < :now'",
            True,
        ),
        ("expect_column_values_to_not_be_blank", "column: phone, where: 'seen_at < :now'", True),
        ("expect_column_values_to_not_be_blank", "column: phone", False),
        ("expect_column_values_to_not_be_null", "column: phone", False),
        ("expect_records_to_be_distinct", "columns: [phone], where: 'seen_at < :now'", True),
    ],
)
def test_expectation_is_time_dependent_if_its_sql_condition_contains_the_parameter_now(
    tmp_path: Path, kind: str, kwargs: str, time: bool
) -> None:
    """The key ``scope: changed`` overrides this default."""
    rule = f"    - {{id: r, type: {kind}, kwargs: {{{kwargs}}}, severity: fail, clause: '5.1', title: {{en: a, zh-CN: b}}}}\n"
    suite = f"- collection: buyer\n  expectations:\n{rule}"
    ((expectation,),) = [
        s.expectations for s in load_pack(write_pack(tmp_path, quality__s=suite)).suites
    ]
    assert expectation.depends_on_time is time
    if (scope := getattr(expectation.kwargs, "scope", None)) is not None:
        assert (scope == "all") is (time or "scope: all" in kwargs)


def test_quality_file_with_empty_list_adds_no_expectation_suite(tmp_path: Path) -> None:
    """`config map` writes such a file for a database without personal data."""
    pack = load_pack(write_pack(tmp_path, quality__shop="[]\n", datamap__shop=SHOP))
    assert pack.suites == ()
