"""quality/*.yaml and purposes.yaml: every fault at once, and what purposes add."""

# ruff: noqa: E501 - a fault is easier to see in one line

from __future__ import annotations

from pathlib import Path

import pytest

from include.registry import load_pack
from tests.policy.packs import SHOP, said, write_pack

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


def test_ten_mistakes_are_ten_errors(tmp_path: Path) -> None:
    """Of form and of names that lead nowhere, also both in one expectation."""
    pack = write_pack(
        tmp_path, quality__shop=FAULTY, purposes=PURPOSES.replace("[id]", "[id, age]")
    )
    lines = said(pack)
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
def test_a_faulty_change_column_is_refused(tmp_path: Path, changed: str, problem: str) -> None:
    """It has to be mapped; its margin is a period or a number above 0."""
    wrong = SUITE.replace("  expectations:", f"  changed: {changed}\n  expectations:")
    (line,) = said(write_pack(tmp_path, quality__shop=wrong))
    assert problem in line


@pytest.mark.parametrize("margin", ["", ", late_arrivals: P1DT2H", ", late_arrivals: 500"])
def test_a_change_column_has_a_margin(tmp_path: Path, margin: str) -> None:
    """Two hours unless the pack says otherwise; suites of one collection share it."""
    changed = f"  changed: {{column: seen_at{margin}}}\n  expectations:"
    other = SUITE.replace("id: phone", "id: again")
    pack = load_pack(
        write_pack(tmp_path, quality__a=SUITE, quality__b=other.replace("  expectations:", changed))
    )
    (suite,) = pack.suites
    assert suite.changed
    assert str(suite.changed.late_arrivals) == (margin.rpartition(" ")[2] or "PT2H")


def test_a_field_that_no_purpose_needs_is_expected_to_be_empty(tmp_path: Path) -> None:
    """A rule of its own, of the personal fields only."""
    pack = load_pack(write_pack(tmp_path, quality__shop=SUITE, purposes=PURPOSES))
    (suite,) = pack.suites_of("shop")
    assert [one.id for one in suite.expectations] == ["phone", "over_collected_phone"]


def test_without_purposes_nothing_is_said_of_fields(tmp_path: Path) -> None:
    """Nor of a database that no purpose names."""
    pack = load_pack(write_pack(tmp_path, quality__shop=SUITE))
    assert [one.id for one in pack.suites[0].expectations] == ["phone"]


def test_suites_of_one_collection_are_joined(tmp_path: Path) -> None:
    """One collection is one scan, however many files speak of it."""
    other = SUITE.replace("id: phone", "id: again")
    pack = load_pack(write_pack(tmp_path, quality__a=SUITE, quality__b=other))
    (suite,) = pack.suites
    assert [one.id for one in suite.expectations] == ["phone", "again"]


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
def test_a_rule_that_asks_for_the_moment_depends_on_time(
    tmp_path: Path, kind: str, kwargs: str, time: bool
) -> None:
    """Unless its author says that only changes break records."""
    rule = f"    - {{id: r, type: {kind}, kwargs: {{{kwargs}}}, severity: fail, clause: '5.1', title: {{en: a, zh-CN: b}}}}\n"
    suite = f"- collection: buyer\n  expectations:\n{rule}"
    ((one,),) = [s.expectations for s in load_pack(write_pack(tmp_path, quality__s=suite)).suites]
    assert one.depends_on_time is time
    if (told := getattr(one.kwargs, "scope", None)) is not None:
        assert (told == "all") is (time or "scope: all" in kwargs)


def test_an_empty_file_of_expectations_is_none(tmp_path: Path) -> None:
    """As `config map` writes it of a database without personal data."""
    pack = load_pack(write_pack(tmp_path, quality__shop="[]\n", datamap__shop=SHOP))
    assert pack.suites == ()
