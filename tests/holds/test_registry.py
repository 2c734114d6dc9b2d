"""Tests of the register of legal holds: placing, reviewing and releasing holds."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from sqlalchemy import Connection

from include.holds.registry import (
    HoldKind,
    active_holds,
    all_holds,
    holds_due_for_review,
    release,
    restore_points_on_hold,
)
from include.services.errors import UsageError
from tests.evidence.support import START
from tests.holds.support import CLOCK, add_hold

POINTS = ["20261124T020000Z", "20261123T020000Z"]


def test_active_holds_does_not_return_released_hold(conn: Connection) -> None:
    """The register keeps the person, the time and the reason of the release."""
    first = add_hold(conn, HoldKind.WAYBILL, " SF1 ")
    second = add_hold(conn, HoldKind.SUBJECT, "SF1", case_ref="C-2")
    assert first.value == "SF1"
    assert active_holds(conn) == [first, second]
    released = release(conn, CLOCK, first.id, released_by="counsel", reason="settled")
    assert (released.released_at, released.released_by) == (START, "counsel")
    assert active_holds(conn) == [second]
    assert all_holds(conn) == [released, second]


def test_release_of_hold_keeps_other_hold_on_same_waybill(conn: Connection) -> None:
    first = add_hold(conn, HoldKind.WAYBILL, "SF1")
    second = add_hold(conn, HoldKind.WAYBILL, "SF1", case_ref="C-2")
    release(conn, CLOCK, first.id, released_by="counsel", reason="settled")
    assert active_holds(conn) == [second]


def test_release_fails_for_unknown_or_released_hold(conn: Connection) -> None:
    """A second release would overwrite the name of the person who released the hold first."""
    hold = add_hold(conn, HoldKind.CASE, "C-1")
    release(conn, CLOCK, hold.id, released_by="counsel", reason="settled")
    for hold_id in (hold.id, 999):
        with pytest.raises(UsageError, match=f"Hold {hold_id} does not exist or was released"):
            release(conn, CLOCK, hold_id, released_by="somebody", reason="else")
    assert all_holds(conn)[0].released_by == "counsel"


@pytest.mark.parametrize("field", ["value", "reason", "owner", "case_ref"])
def test_add_hold_refuses_empty_field_and_the_error_contains_the_field_name(
    conn: Connection, field: str
) -> None:
    texts = {"value": "x", field: "  "}
    with pytest.raises(UsageError, match=field.replace("_", " ")):
        add_hold(conn, HoldKind.CLASS, **texts)
    assert all_holds(conn) == []


def test_hold_is_due_for_review_from_review_date_and_stays_active(conn: Connection) -> None:
    """A new hold with a review date in the past is refused."""
    hold = add_hold(conn, HoldKind.CLASS, "waybill_formal", review_on=date(2026, 12, 1))
    add_hold(conn, HoldKind.CLASS, "later", review_on=date(2027, 6, 1))
    assert holds_due_for_review(conn, date(2026, 11, 30)) == []
    assert holds_due_for_review(conn, date(2026, 12, 1)) == [hold]
    assert len(active_holds(conn)) == 2
    with pytest.raises(UsageError, match="past"):
        add_hold(conn, HoldKind.CLASS, "x", review_on=START.date() - timedelta(days=1))


@pytest.mark.parametrize(
    ("kind", "value", "points_on_hold"),
    [
        (HoldKind.RESTORE_POINT, f"courier/{POINTS[0]}", {POINTS[0]}),
        (HoldKind.RESTORE_POINT, POINTS[1], {POINTS[1]}),
        (HoldKind.RESTORE_POINT, f"partners/{POINTS[0]}", set()),
        (HoldKind.DATABASE, "courier", set(POINTS)),
        (HoldKind.DATABASE, "partners", set()),
        (HoldKind.CLASS, "courier", set()),
        (HoldKind.CASE, POINTS[0], set()),
    ],
)
def test_hold_on_restore_point_or_database_keeps_restore_points_until_release(
    conn: Connection, kind: HoldKind, value: str, points_on_hold: set[str]
) -> None:
    hold = add_hold(conn, kind, value)
    assert restore_points_on_hold(conn, "courier", POINTS) == points_on_hold
    release(conn, CLOCK, hold.id, released_by="counsel", reason="settled")
    assert restore_points_on_hold(conn, "courier", POINTS) == set()


@pytest.mark.parametrize("field", ["value", "reason", "owner", "case_ref"])
@pytest.mark.parametrize("number", ["138 0013 8000", "53010219900307123X"])
def test_add_refuses_phone_or_id_number_without_quoting_it(
    conn: Connection, field: str, number: str
) -> None:
    """The register is kept for years. The message asks for a record key instead."""
    with pytest.raises(UsageError) as refused:
        add_hold(conn, HoldKind.SUBJECT, **{"value": "x", field: f"of {number}"})
    assert number not in str(refused.value)
    assert "key" in refused.value.action
    assert all_holds(conn) == []


def test_release_refuses_phone_number_in_reason(conn: Connection) -> None:
    hold = add_hold(conn, HoldKind.CASE, "C-1")
    with pytest.raises(UsageError, match="reason"):
        release(conn, CLOCK, hold.id, released_by="counsel", reason="called 13800138000")
    assert active_holds(conn) == [hold]


@pytest.mark.parametrize("kind", [HoldKind.SUBJECT, HoldKind.WAYBILL, HoldKind.CASE])
def test_add_hold_accepts_key_that_looks_like_phone_number_only_with_database_prefix(
    conn: Connection, kind: HoldKind
) -> None:
    """The prefix declares that the number is a key, although it looks like a phone number."""
    with pytest.raises(UsageError, match="looks like") as refused:
        add_hold(conn, kind, "13800138000")
    assert "<database>/KEY" in refused.value.action
    assert add_hold(conn, kind, "courier/13800138000").value == "courier/13800138000"


@pytest.mark.parametrize(
    "value",
    [
        "courier/+8613800138000",
        "courier/138 0013 8000",
        "courier/１３８００１３８０００",
        "courier/53010219900307123X",
        "13800138000/12",
    ],
)
def test_add_hold_refuses_key_with_country_code_spaces_or_final_x_even_with_database_prefix(
    conn: Connection, value: str
) -> None:
    """A serial number has no country code, no spaces and no final X."""
    with pytest.raises(UsageError, match="looks like"):
        add_hold(conn, HoldKind.SUBJECT, value)
