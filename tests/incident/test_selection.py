"""What somebody enters is held against the pack before anything is counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from include.incident.rule_checks import INCIDENT
from include.incident.selection import MOST_KEYS, Selection, checked, located, moment
from include.policy import SHIPPED
from include.registry import load_pack
from include.services.errors import UsageError
from tests.incident.counting.shop import RULE

_SHIPPED = load_pack(SHIPPED).section(INCIDENT)
assert _SHIPPED is not None
COURIER = _SHIPPED.scope[0]
RULES = _SHIPPED.model_copy(update={"scope": (COURIER, RULE)})


def refused(**said: object) -> str:
    """Why a selection is refused."""
    with pytest.raises(UsageError) as error:
        checked(Selection(**said), RULES)  # type: ignore[arg-type]  # the model looks at them
    return str(error.value)


def test_nothing_said_means_all_databases() -> None:
    """The worst case; nothing narrows it down."""
    found = checked(Selection(), RULES)
    assert found.databases == ("courier", "shop")
    assert not found.narrowed


def test_collections_say_in_which_databases() -> None:
    """Those that are named for a database, and all of one that is named without any."""
    found = checked(Selection(collections=("shop.doc",)), RULES)
    assert found.databases == ("shop",)
    assert found.collections_of(RULE) == ["doc"]
    both = checked(Selection(databases=("shop", "courier"), collections=("shop.doc",)), RULES)
    assert both.databases == ("shop", "courier")
    assert len(both.collections_of(COURIER)) == 5


def test_every_fault_is_said_at_once() -> None:
    """With what there is."""
    said = refused(databases=("shop", "moon"), collections=("shop.nothing", "sun.doc"))
    for fault in ("no database moon", "no records shop.nothing", "no database sun (of sun.doc)"):
        assert fault in said
    assert "courier, shop" in said


@pytest.mark.parametrize(
    "until", [datetime(2026, 1, 1, tzinfo=UTC), datetime(2025, 12, 31, tzinfo=UTC)]
)
def test_a_window_that_ends_before_it_begins_is_refused(until: datetime) -> None:
    """Also one without a moment in it."""
    with pytest.raises(ValidationError, match="until should be after since"):
        Selection(since=datetime(2026, 1, 1, tzinfo=UTC), until=until)


def test_moments_without_an_offset_are_of_the_pack() -> None:
    """A window without a timezone has no meaning."""
    zone = ZoneInfo("Asia/Shanghai")
    assert moment("2026-01-01T03:15", zone) == datetime(2025, 12, 31, 19, 15, tzinfo=UTC)
    assert moment(" 2026-01-01T03:15+01:00 ", zone) == datetime(2026, 1, 1, 2, 15, tzinfo=UTC)
    assert moment(" ", zone) is None
    with pytest.raises(ValidationError):
        Selection(since=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point
    with pytest.raises(ValueError, match="Invalid isoformat"):
        moment("yesterday", zone)


def test_keys_are_of_the_database_before_the_slash() -> None:
    """Or of the only one; a slash that is part of a key stays."""
    two = checked(Selection(keys=("shop/1", "courier/2")), RULES)
    assert list(located(two)) == [(1, "shop", "1"), (2, "courier", "2")]
    one = checked(Selection(databases=("shop",), keys=("1", "shop/2", "a/b")), RULES)
    assert list(located(one)) == [(1, "shop", "1"), (2, "shop", "2"), (3, "shop", "a/b")]
    papers = checked(Selection(keys_of="courier.waybill", keys=("7", "courier/8")), RULES)
    assert list(located(papers)) == [(1, "courier", "7"), (2, "courier", "8")]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"keys": ("1",)}, "key 1 names no database"),
        ({"keys": ("shop/1", "shop/")}, "key 2 is empty"),
        ({"databases": ("shop",), "keys": ("courier/1",)}, "key 1 is of a database in which"),
        ({"keys_of": "shop.doc"}, "no keys of shop.doc are listed"),
        ({"keys_of": "shop.nothing", "keys": ("1",)}, "no records shop.nothing"),
        ({"keys_of": "shop.tag", "keys": ("1",)}, "does not say how records of shop.tag are"),
        ({"keys_of": "courier.waybill", "keys": ("shop/1",)}, "key 1 is of another database"),
        ({"databases": ("shop",), "keys_of": "courier.waybill", "keys": ("1",)}, "none of those"),
        ({"databases": ("shop",), "keys": ("1\x00",)}, "keys, 1, has a character"),
        ({"departments": ("\ud800",)}, "departments, 1, has a character"),
        ({"accounts": ("E1", "\x00")}, "accounts, 2, has a character"),
        ({"partner": "\x00"}, "partner has a character"),
        ({"accounts": tuple(map(str, range(1001)))}, "more than 1,000 accounts"),
    ],
)
def test_what_cannot_be_found_is_refused(said: dict[str, object], fault: str) -> None:
    """Before anything is counted."""
    assert fault in refused(**said)


@pytest.mark.parametrize(
    "key",
    ["13812345678", "shop/+86 138 1234 5678", "110101199003078515", "shop/11010119900307851X"],
)
def test_a_mobile_or_id_number_is_no_key(key: str) -> None:
    """It would stand in the timeline for years; the message does not repeat it."""
    said = refused(databases=("shop",), keys=("1", key))
    assert "key 2 looks like a mobile or ID number" in said
    assert key not in said


def test_digits_behind_the_database_are_a_key() -> None:
    """A running number may look like a mobile number."""
    assert checked(Selection(keys=("shop/13812345678",)), RULES).keys == ("shop/13812345678",)


def test_too_many_keys_are_refused_without_a_line_each() -> None:
    """Nor do many faults make a message that nobody reads."""
    assert "more than 100,000 keys" in refused(keys=tuple(map(str, range(MOST_KEYS + 1))))
    said = refused(keys=tuple(map(str, range(500))))
    assert "and 480 more" in said
    assert len(said) < 2000


def test_keys_alone_are_all_and_add_to_anything_else() -> None:
    """Where they are looked for narrows nothing down."""
    keys = Selection(collections=("shop.doc",), keys=("shop/1",))
    assert keys.only_keys
    for more in (
        {"since": datetime(2026, 1, 1, tzinfo=UTC)}, {"departments": ("North",)},
        {"accounts": ("ann",)}, {"partner": "1"},
    ):  # fmt: skip
        assert not keys.model_copy(update=more).only_keys
    assert not Selection().only_keys


def test_what_is_kept_has_only_what_was_said() -> None:
    """As JSON."""
    window = datetime(2026, 1, 1, tzinfo=UTC)
    said = Selection(accounts=("E1",), since=window, until=window + timedelta(hours=1))
    assert said.as_json() == {
        "accounts": ["E1"], "since": "2026-01-01T00:00:00Z", "until": "2026-01-01T01:00:00Z",
    }  # fmt: skip
    assert Selection.model_validate(said.as_json()) == said
