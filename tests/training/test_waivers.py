"""Tests of granting, ending and listing waivers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from include.local.postgres import EmbeddedPostgres
from include.services.errors import UsageError
from include.state.connect import engine
from include.training import waivers
from include.training.obligations import Waiver
from tests.support.databases import temporary_database

ZONE = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 3, 2, 9, 30, tzinfo=ZONE)
UNTIL = date(2026, 6, 30)
REASON = "Works abroad until summer"


@pytest.fixture(scope="module")
def state(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """Provide a state database."""
    with temporary_database(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture
def conn(state: Engine) -> Iterator[Connection]:
    """Provide a connection whose transaction is rolled back after the test."""
    with state.connect() as connection:
        yield connection
        connection.rollback()


def grant(conn: Connection, person: str = "E0007", **more: object) -> waivers.GrantedWaiver:
    arguments = {"reason": REASON, "until": UNTIL, "by": "li.na", "at": NOW} | more
    return waivers.grant_waiver(conn, person, "LAW", **arguments)  # type: ignore[arg-type]  # a dict


def raises_usage_error(message: str) -> pytest.RaisesExc[UsageError]:
    return pytest.raises(UsageError, match=message)


def test_waiver_is_in_force_until_its_last_day(conn: Connection) -> None:
    waiver = grant(conn)
    assert waivers.list_waivers(conn, NOW.date()) == [waiver]
    assert waivers.waivers_in_force(conn, UNTIL) == [Waiver("E0007", "LAW")]
    assert waivers.waivers_in_force(conn, UNTIL + timedelta(days=1)) == []


def test_waivers_are_listed_by_last_day_and_person(conn: Connection) -> None:
    for person, until in (("E2", date(2026, 8, 1)), ("E3", UNTIL), ("E1", date(2026, 8, 1))):
        grant(conn, person, until=until)
    listed = waivers.list_waivers(conn, NOW.date())
    assert [waiver.person for waiver in listed] == ["E3", "E1", "E2"]


def test_second_waiver_of_same_course_for_a_person_raises_usage_error(conn: Connection) -> None:
    grant(conn)
    with raises_usage_error("LAW is already waived for E0007"):
        grant(conn, until=date(2026, 7, 1))
    grant(conn, "E0008")


def test_new_waiver_marks_expired_waiver_as_ended_and_keeps_it(conn: Connection) -> None:
    grant(conn)
    later = datetime(2026, 7, 1, 8, tzinfo=ZONE)
    grant(conn, until=date(2026, 9, 30), by="chen", at=later)
    rows = conn.execute(text("SELECT until, ended_by FROM training_waiver ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [(UNTIL, "chen"), (date(2026, 9, 30), None)]


def test_row_of_ended_waiver_is_kept_if_a_new_waiver_is_granted(conn: Connection) -> None:
    grant(conn)
    waivers.end_waiver(conn, "E0007", "LAW", by="chen", at=NOW)
    assert waivers.list_waivers(conn, NOW.date()) == []
    with raises_usage_error("LAW is not waived for E0007"):
        waivers.end_waiver(conn, "E0007", "LAW", by="chen", at=NOW)
    grant(conn)
    rows = conn.execute(text("SELECT ended_by FROM training_waiver ORDER BY id")).scalars().all()
    assert rows == ["chen", None]


def test_expired_waiver_cannot_be_ended(conn: Connection) -> None:
    grant(conn)
    with raises_usage_error("is not waived"):
        waivers.end_waiver(conn, "E0007", "LAW", by="chen", at=datetime(2026, 7, 1, tzinfo=ZONE))


@pytest.mark.parametrize("by", ["E0007", " e0007", "Ｅ０００７", "E00\u200b07"])
def test_person_cannot_grant_waiver_to_self(conn: Connection, by: str) -> None:
    with raises_usage_error("cannot waive their own course"):
        grant(conn, by=by)


@pytest.mark.parametrize("reason", ["", " ", "...", "13800138000", "2026-03-02"])
def test_waiver_without_words_in_its_reason_raises_usage_error(
    conn: Connection, reason: str
) -> None:
    with raises_usage_error("The reason has no words"):
        grant(conn, reason=reason)


def test_customer_numbers_in_reason_of_waiver_are_redacted(conn: Connection) -> None:
    assert grant(conn, reason="Ill, ask\n138 0013 8000").reason == "Ill, ask …"


@pytest.mark.parametrize("by", ["", "  "])
def test_waiver_cannot_be_granted_or_ended_without_user_id(conn: Connection, by: str) -> None:
    with raises_usage_error("who grants the waiver is not named"):
        grant(conn, by=by)
    with raises_usage_error("who ends the waiver is not named"):
        waivers.end_waiver(conn, "E0007", "LAW", by=by, at=NOW)


@pytest.mark.parametrize("person", ["", " ", "E\n7", "E" * 101])
def test_waiver_with_invalid_staff_number_raises_usage_error(conn: Connection, person: str) -> None:
    with raises_usage_error("The staff number is empty"):
        grant(conn, person)


def test_staff_number_of_waiver_is_normalized(conn: Connection) -> None:
    assert grant(conn, " Ｅ０００８ ").person == "E0008"


@given(days=st.integers(-1000, 1000))
def test_last_day_of_waiver_must_be_within_next_366_days(state: Engine, days: int) -> None:
    with state.connect() as conn:
        until = NOW.date() + timedelta(days=days)
        if 1 <= days <= 366:
            assert grant(conn, until=until).until == until
        else:
            with raises_usage_error("not in the future" if days < 1 else "more than 366 days away"):
                grant(conn, until=until)
        conn.rollback()


def test_last_day_of_waiver_is_compared_with_current_date_in_timezone_of_policy_pack(
    conn: Connection,
) -> None:
    with raises_usage_error("is not in the future"):
        grant(conn, until=date(2026, 3, 2), at=datetime(2026, 3, 2, 0, 30, tzinfo=ZONE))


def test_second_of_two_concurrent_waivers_for_same_course_raises_usage_error(state: Engine) -> None:
    messages: list[str] = []
    with state.connect() as first:
        grant(first, "E0099")

        def second() -> None:
            with state.connect() as conn:
                try:
                    grant(conn, "E0099", by="chen")
                except UsageError as error:
                    messages.append(error.message)

        other = threading.Thread(target=second)
        other.start()
        other.join(0.2)
        assert other.is_alive()
        first.commit()
        other.join(10)
    assert messages == ["LAW is already waived for E0099."]
    with state.begin() as conn:
        conn.execute(text("TRUNCATE training_waiver"))
