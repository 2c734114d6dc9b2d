"""Legal holds: placed with reason and review date, counted until released, never lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from include.holds.registry import (
    Hold,
    HoldKind,
    active,
    add,
    due_for_review,
    every,
    release,
    restore_points_held,
)
from include.services.clock import FixedClock
from include.services.errors import UsageError
from include.state.connect import engine
from include.state.migrate import migrate
from tests.evidence.support import START

CLOCK = FixedClock(START)
POINTS = ["20261124T020000Z", "20261123T020000Z"]


@pytest.fixture
def conn(database: str) -> Iterator[Connection]:
    db = engine(database)
    migrate(db)
    with db.connect() as connection:
        yield connection


def place(conn: Connection, kind: HoldKind, value: str, **more: Any) -> Hold:
    given = {
        "reason": "claim pending",
        "owner": "legal",
        "case_ref": "C-1",
        "review_on": date(2027, 1, 1),
    } | more
    return add(conn, CLOCK, kind=kind, value=value, **given)


def test_a_hold_counts_until_it_is_released(conn: Connection) -> None:
    """The registry keeps who released it, when and why."""
    first = place(conn, HoldKind.WAYBILL, " SF1 ")
    second = place(conn, HoldKind.SUBJECT, "SF1", case_ref="C-2")
    assert first.value == "SF1"
    assert active(conn) == [first, second]
    assert active(conn, HoldKind.WAYBILL) == [first]
    assert active(conn, HoldKind.WAYBILL, "SF1") == [first]
    assert active(conn, HoldKind.WAYBILL, "SF2") == []
    released = release(conn, CLOCK, first.id, released_by="counsel", reason="settled")
    assert (released.released_at, released.released_by) == (START, "counsel")
    assert active(conn) == [second]
    assert every(conn) == [released, second]


def test_a_thing_held_twice_stays_held_after_one_release(conn: Connection) -> None:
    """Two cases on one waybill."""
    first = place(conn, HoldKind.WAYBILL, "SF1")
    second = place(conn, HoldKind.WAYBILL, "SF1", case_ref="C-2")
    release(conn, CLOCK, first.id, released_by="counsel", reason="settled")
    assert active(conn, HoldKind.WAYBILL, "SF1") == [second]


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
