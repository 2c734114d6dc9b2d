"""Tests that entered scope criteria are checked against the policy pack.

The check takes place before records are counted.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from include.incident.rule_checks import INCIDENT
from include.incident.selection import (
    MAX_KEYS,
    Selection,
    check_selection,
    locate_keys,
    parse_moment,
)
from include.policy import SHIPPED
from include.registry import load_pack
from include.services.errors import UsageError
from tests.incident.counting.shop_oracle import RULE

_SHIPPED = load_pack(SHIPPED).section(INCIDENT)
assert _SHIPPED is not None
COURIER = _SHIPPED.scope[0]
RULES = _SHIPPED.model_copy(update={"scope": (COURIER, RULE)})


def refused(**fields: object) -> str:
    """Return the error message with which entered scope criteria are refused."""
    with pytest.raises(UsageError) as error:
        check_selection(Selection(**fields), RULES)  # type: ignore[arg-type]  # the model looks at them
    return str(error.value)


def test_scope_without_criteria_covers_all_databases() -> None:
    checked = check_selection(Selection(), RULES)
    assert checked.databases == ("courier", "shop")
    assert not checked.is_narrowed


def test_databases_of_scope_are_those_of_entered_collections_if_no_database_is_entered() -> None:
    checked = check_selection(Selection(collections=("shop.doc",)), RULES)
    assert checked.databases == ("shop",)
    assert checked.collections_of(RULE) == ["doc"]
    two_databases = check_selection(
        Selection(databases=("shop", "courier"), collections=("shop.doc",)), RULES
    )
    assert two_databases.databases == ("shop", "courier")
    assert len(two_databases.collections_of(COURIER)) == 5


def test_error_for_invalid_scope_lists_all_faults() -> None:
    message = refused(databases=("shop", "moon"), collections=("shop.nothing", "sun.doc"))
    for fault in ("no database moon", "no records shop.nothing", "no database sun (of sun.doc)"):
        assert fault in message
    assert "courier, shop" in message


@pytest.mark.parametrize(
    "until", [datetime(2026, 1, 1, tzinfo=UTC), datetime(2025, 12, 31, tzinfo=UTC)]
)
def test_scope_raises_validation_error_if_time_window_ends_at_or_before_its_start(
    until: datetime,
) -> None:
    with pytest.raises(ValidationError, match="until should be after since"):
        Selection(since=datetime(2026, 1, 1, tzinfo=UTC), until=until)


def test_parse_moment_without_offset_uses_timezone_of_pack() -> None:
    zone = ZoneInfo("Asia/Shanghai")
    assert parse_moment("2026-01-01T03:15", zone) == datetime(2025, 12, 31, 19, 15, tzinfo=UTC)
    assert parse_moment(" 2026-01-01T03:15+01:00 ", zone) == datetime(2026, 1, 1, 2, 15, tzinfo=UTC)
    assert parse_moment(" ", zone) is None
    with pytest.raises(ValidationError):
        Selection(since=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point
    with pytest.raises(ValueError, match="Invalid isoformat"):
        parse_moment("yesterday", zone)


def test_key_belongs_to_database_of_its_prefix_or_to_the_only_entered_database() -> None:
    two = check_selection(Selection(keys=("shop/1", "courier/2")), RULES)
    assert list(locate_keys(two)) == [(1, "shop", "1"), (2, "courier", "2")]
    single = check_selection(Selection(databases=("shop",), keys=("1", "shop/2", "a/b")), RULES)
    assert list(locate_keys(single)) == [(1, "shop", "1"), (2, "shop", "2"), (3, "shop", "a/b")]
    papers = check_selection(Selection(keys_of="courier.waybill", keys=("7", "courier/8")), RULES)
    assert list(locate_keys(papers)) == [(1, "courier", "7"), (2, "courier", "8")]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"keys": ("1",)}, "key 1 names no database"),
        ({"keys": ("shop/1", "shop/")}, "key 2 is empty"),
        ({"databases": ("shop",), "keys": ("courier/1",)}, "key 1 belongs to a database"),
        ({"keys_of": "shop.doc"}, "no keys of shop.doc are listed"),
        ({"keys_of": "shop.nothing", "keys": ("1",)}, "no records shop.nothing"),
        ({"keys_of": "shop.tag", "keys": ("1",)}, "no `named` for records of shop.tag"),
        ({"keys_of": "courier.waybill", "keys": ("shop/1",)}, "key 1 belongs to another database"),
        (
            {"databases": ("shop",), "keys_of": "courier.waybill", "keys": ("1",)},
            "database is not selected",
        ),
        ({"databases": ("shop",), "keys": ("1\x00",)}, "keys, 1, has a character"),
        ({"departments": ("\ud800",)}, "departments, 1, has a character"),
        ({"accounts": ("E1", "\x00")}, "accounts, 2, has a character"),
        ({"partner": "\x00"}, "partner has a character"),
        ({"accounts": tuple(map(str, range(1001)))}, "more than 1,000 accounts"),
    ],
)
def test_check_selection_raises_usage_error_if_scope_criteria_are_invalid(
    fields: dict[str, object], fault: str
) -> None:
    assert fault in refused(**fields)


@pytest.mark.parametrize(
    "key",
    ["13812345678", "shop/+86 138 1234 5678", "110101199003078515", "shop/11010119900307851X"],
)
def test_error_for_key_that_looks_like_phone_or_id_number_does_not_contain_the_number(
    key: str,
) -> None:
    message = refused(databases=("shop",), keys=("1", key))
    assert "key 2 looks like a mobile or ID number" in message
    assert key not in message


def test_key_that_looks_like_phone_number_is_accepted_with_database_prefix() -> None:
    assert check_selection(Selection(keys=("shop/13812345678",)), RULES).keys == (
        "shop/13812345678",
    )


def test_error_for_many_faults_contains_number_of_omitted_faults() -> None:
    assert "more than 100,000 keys" in refused(keys=tuple(map(str, range(MAX_KEYS + 1))))
    message = refused(keys=tuple(map(str, range(500))))
    assert "and 480 more" in message
    assert len(message) < 2000


def test_is_only_keys_is_true_if_scope_has_keys_and_no_filter() -> None:
    keys = Selection(collections=("shop.doc",), keys=("shop/1",))
    assert keys.is_only_keys
    for more in (
        {"since": datetime(2026, 1, 1, tzinfo=UTC)}, {"departments": ("North",)},
        {"accounts": ("ann",)}, {"partner": "1"},
    ):  # fmt: skip
        assert not keys.model_copy(update=more).is_only_keys
    assert not Selection().is_only_keys


def test_entered_scope_as_json_leaves_out_empty_fields() -> None:
    window = datetime(2026, 1, 1, tzinfo=UTC)
    selection = Selection(accounts=("E1",), since=window, until=window + timedelta(hours=1))
    assert selection.as_json() == {
        "accounts": ["E1"], "since": "2026-01-01T00:00:00Z", "until": "2026-01-01T01:00:00Z",
    }  # fmt: skip
    assert Selection.model_validate(selection.as_json()) == selection
