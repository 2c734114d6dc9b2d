"""Legal holds: placed with reason and review date, counted until released, never lost."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from sqlalchemy import Connection

from include.holds.registry import (
    HoldKind,
    active,
    due_for_review,
    every,
    release,
    restore_points_held,
)
from include.services.errors import UsageError
from tests.evidence.support import START
from tests.holds.support import CLOCK, place

POINTS = ["20261124T020000Z", "20261123T020000Z"]


def test_a_hold_counts_until_it_is_released(conn: Connection) -> None:
    """The registry keeps who released it, when and why."""
    first = place(conn, HoldKind.WAYBILL, " SF1 ")
    second = place(conn, HoldKind.SUBJECT, "SF1", case_ref="C-2")
    assert first.value == "SF1"
    assert active(conn) == [first, second]
    released = release(conn, CLOCK, first.id, released_by="counsel", reason="settled")
    assert (released.released_at, released.released_by) == (START, "counsel")
    assert active(conn) == [second]
    assert every(conn) == [released, second]


def test_a_thing_held_twice_stays_held_after_one_release(conn: Connection) -> None:
    """Two cases on one waybill."""
    first = place(conn, HoldKind.WAYBILL, "SF1")
    second = place(conn, HoldKind.WAYBILL, "SF1", case_ref="C-2")
    release(conn, CLOCK, first.id, released_by="counsel", reason="settled")
    assert active(conn) == [second]


def test_a_hold_is_released_once_and_only_if_it_exists(conn: Connection) -> None:
    """The second release would overwrite who did it."""
    hold = place(conn, HoldKind.CASE, "C-1")
    release(conn, CLOCK, hold.id, released_by="counsel", reason="settled")
    for wrong in (hold.id, 999):
        with pytest.raises(UsageError, match=f"no active hold {wrong}"):
            release(conn, CLOCK, wrong, released_by="somebody", reason="else")
    assert every(conn)[0].released_by == "counsel"


@pytest.mark.parametrize("field", ["value", "reason", "owner", "case_ref"])
def test_an_incomplete_hold_is_refused(conn: Connection, field: str) -> None:
    """The message names what is missing."""
    texts = {"value": "x", field: "  "}
    with pytest.raises(UsageError, match=field.replace("_", " ")):
        place(conn, HoldKind.CLASS, **texts)
    assert every(conn) == []


def test_review_dates_ask_and_never_release(conn: Connection) -> None:
    """Due on the day itself; a date in the past is refused."""
    hold = place(conn, HoldKind.CLASS, "waybill_formal", review_on=date(2026, 12, 1))
    place(conn, HoldKind.CLASS, "later", review_on=date(2027, 6, 1))
    assert due_for_review(conn, date(2026, 11, 30)) == []
    assert due_for_review(conn, date(2026, 12, 1)) == [hold]
    assert len(active(conn)) == 2
    with pytest.raises(UsageError, match="past"):
        place(conn, HoldKind.CLASS, "x", review_on=START.date() - timedelta(days=1))


@pytest.mark.parametrize(
    ("kind", "value", "held"),
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
def test_restore_points_are_held_by_themselves_or_with_their_database(
    conn: Connection, kind: HoldKind, value: str, held: set[str]
) -> None:
    """And free again after the release."""
    hold = place(conn, kind, value)
    assert restore_points_held(conn, "courier", POINTS) == held
    release(conn, CLOCK, hold.id, released_by="counsel", reason="settled")
    assert restore_points_held(conn, "courier", POINTS) == set()


@pytest.mark.parametrize("field", ["value", "reason", "owner", "case_ref"])
@pytest.mark.parametrize("number", ["138 0013 8000", "53010219900307123X"])
def test_a_persons_number_is_refused_and_not_repeated(
    conn: Connection, field: str, number: str
) -> None:
    """The registry is kept for years; the message says what to name instead, without the number."""
    with pytest.raises(UsageError) as refused:
        place(conn, HoldKind.SUBJECT, **{"value": "x", field: f"of {number}"})
    assert number not in str(refused.value)
    assert "key" in refused.value.action
    assert every(conn) == []


def test_release_takes_no_persons_number_either(conn: Connection) -> None:
    """Its reason is kept as long."""
    hold = place(conn, HoldKind.CASE, "C-1")
    with pytest.raises(UsageError, match="reason"):
        release(conn, CLOCK, hold.id, released_by="counsel", reason="called 13800138000")
    assert active(conn) == [hold]


@pytest.mark.parametrize("kind", [HoldKind.SUBJECT, HoldKind.WAYBILL, HoldKind.CASE])
def test_a_running_number_behind_its_database_is_a_key(conn: Connection, kind: HoldKind) -> None:
    """Whatever it looks like: who writes the database says that it is one."""
    with pytest.raises(UsageError, match="looks like") as refused:
        place(conn, kind, "13800138000")
    assert "<database>/KEY" in refused.value.action
    assert place(conn, kind, "courier/13800138000").value == "courier/13800138000"


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
def test_what_is_written_as_a_persons_number_is_no_key(conn: Connection, value: str) -> None:
    """A running number has neither country code nor spaces nor X."""
    with pytest.raises(UsageError, match="looks like"):
        place(conn, HoldKind.SUBJECT, value)
